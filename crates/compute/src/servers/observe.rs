//! What hosts report becomes documents, written only where something changed.

use super::document::{DeletedServer, Server, ServerFault, ServerObserved, ServerSecret, Tombstone, facts};
use super::{allocation, history, pending, place, trash};
use crate::{Compute, quota};
use agent_api::{GuestObserved, ObservedPower, Report};
use base::{HostName, Result, ServerId};
use model::server::{Power, Verb, settled};
use std::collections::BTreeSet;
use store::{Query, Stored, Tx};

/// Takes over a report of a host.
pub fn report(state: &Compute, tx: &mut Tx, report: &Report) -> Result<()> {
    for guest in &report.guests {
        guest_seen(state, tx, &report.host, guest)?;
    }
    if report.whole {
        missing_guests(state, tx, report)?;
    }
    if !report.ports.is_empty() {
        launch_waiting(state, tx, &report.host)?;
    }
    Ok(())
}

/// Ports that came up after their guests: the servers of the host that waited for them are ACTIVE now.
fn launch_waiting(state: &Compute, tx: &mut Tx, host: &HostName) -> Result<()> {
    for seen in tx.list::<ServerObserved>(Query::index("todo", "launch"))? {
        let server = tx.get::<Server>(&seen.id)?.filter(|server| server.host.as_ref() == Some(host));
        if let Some(server) = server {
            launch(state, tx, &server, seen.doc)?;
        }
    }
    Ok(())
}

/// Notes the first ACTIVE, if it has come.
pub fn launch(state: &Compute, tx: &mut Tx, server: &Server, seen: ServerObserved) -> Result<()> {
    if seen.waits_for_ports() && is_ready(state, tx, server, &seen)? {
        let seen = ServerObserved { launched_at: Some(tx.now()), ..seen };
        tx.update(&seen)?;
        conclude(tx, server, &seen)?;
        note(tx, &mut server.clone(), Some(&seen))?;
    }
    Ok(())
}

/// Writes down whether the server is on its way, where that has changed.
fn note(tx: &mut Tx, server: &mut Server, seen: Option<&ServerObserved>) -> Result<()> {
    if pending::mark(tx.now(), server, seen) {
        tx.update(server)?;
    }
    Ok(())
}

fn guest_seen(state: &Compute, tx: &mut Tx, host: &HostName, guest: &GuestObserved) -> Result<()> {
    let server = tx.get::<Server>(&guest.id)?;
    match server {
        Some(server) if server.host.as_ref() == Some(host) => server_seen(state, tx, server, guest),
        Some(_) => stray_seen(state, tx, host, guest),
        None => {
            // What a deleted server had is free once its guest has let go of it.
            match guest.power {
                ObservedPower::Absent => state.volumes.guest_gone(tx, &guest.id)?,
                _ => state.volumes.guest_seen(tx, &guest.id, guest.generation, &guest.volumes)?,
            }
            stray_seen(state, tx, host, guest)
        }
    }
}

/// A guest that the store does not want on that host. It is asked to go where the store has a word about its server at
/// least as late as the guest's own: it was deleted, or is another host's. Of one that the store has never heard of, or
/// that is further than the store knows, the store may be the older copy: it stays as it is, and a person decides.
fn stray_seen(state: &Compute, tx: &mut Tx, host: &HostName, guest: &GuestObserved) -> Result<()> {
    if trash::is_on(tx, &guest.id, host)? {
        return Ok(());
    }
    let known = Tombstone::of(tx, &guest.id, host)?;
    match (known, guest.power) {
        (Some(tombstone), ObservedPower::Absent) => trash::bury(state, tx, &tombstone)?,
        (None, ObservedPower::Absent) | (Some(_), _) => {}
        (None, _) => {
            if last_word(tx, &guest.id)?.is_none_or(|known| known < guest.generation) {
                tracing::warn!(host = %host, server = %guest.id, "a guest that the store does not know is left alone: \
                    nubo fsck names it on its host");
                return Ok(());
            }
            tracing::warn!(host = %host, server = %guest.id, "a guest that has no place here any more is removed");
            let generation = guest.generation + 1;
            tx.create(&Tombstone::new(guest.id.clone(), host.clone(), generation))?;
        }
    }
    Ok(())
}

/// The last generation that the store knows of a server, deleted ones included.
fn last_word(tx: &mut Tx, id: &ServerId) -> Result<Option<u64>> {
    if let Some(server) = tx.get::<Server>(id)? {
        return Ok(Some(server.generation));
    }
    Ok(tx.get::<DeletedServer>(id)?.map(|deleted| deleted.server.generation))
}

fn server_seen(state: &Compute, tx: &mut Tx, server: Stored<Server>, guest: &GuestObserved) -> Result<()> {
    if guest.power == ObservedPower::Absent {
        return gone(state, tx, server);
    }
    state.volumes.guest_seen(tx, &server.id, guest.generation, &guest.volumes)?;
    let known = tx.get::<ServerObserved>(&server.id)?.map(|seen| seen.doc);
    // That a host has begun says nothing new of a server that nothing is known of.
    let before = known.unwrap_or_else(|| ServerObserved::nothing(&server));
    let mut seen = take(tx, before.clone(), guest);
    let mut server = server;
    if let Some(reason) = &guest.stopped_by_itself
        && guest.power == ObservedPower::Stopped
        && guest.generation >= server.verb_generation
        && matches!(server.power, Power::Running | Power::Paused)
    {
        follow_power(tx, &mut server, reason)?;
    }
    if seen.launched_at.is_none() && is_ready(state, tx, &server, &seen)? {
        seen.launched_at = Some(tx.now());
    }
    if gave_up_on(&server, &seen) && place::elsewhere(state, tx, &mut server.doc, &mut seen)? {
        return Ok(());
    }
    if before != seen {
        tx.put(&seen)?;
        conclude(tx, &server, &seen)?;
        note(tx, &mut server.doc, Some(&seen))?;
    }
    Ok(())
}

/// The host has given up building a server that never ran, and answers for it that nothing runs there.
fn gave_up_on(server: &Server, seen: &ServerObserved) -> bool {
    seen.gave_up
        && seen.launched_at.is_none()
        && seen.power != Some(Power::Running)
        && seen.generation >= server.verb_generation
        && server.verb == Verb::Create
}

/// The observation as a document.
fn take(tx: &Tx, before: ServerObserved, guest: &GuestObserved) -> ServerObserved {
    let power = match guest.power {
        ObservedPower::Running => Some(Power::Running),
        ObservedPower::Stopped => Some(Power::Stopped),
        ObservedPower::Paused => Some(Power::Paused),
        ObservedPower::Suspended => Some(Power::Suspended),
        ObservedPower::Building | ObservedPower::Absent => None,
    };
    let fault = guest.fault.as_ref().map(|fault| {
        let known =
            before.fault.as_ref().filter(|known| known.message == fault.message && known.details == fault.detail);
        let created = known.map_or(tx.now(), |known| known.created);
        ServerFault { code: 500, message: fault.message.clone(), details: fault.detail.clone(), created }
    });
    ServerObserved {
        generation: guest.generation,
        power,
        rest: power.unwrap_or(before.rest),
        soft_reboots: guest.soft_reboots,
        hard_reboots: guest.hard_reboots,
        attempts: guest.attempts,
        gave_up: guest.fault.as_ref().is_some_and(|fault| !fault.retried),
        fault,
        started_at: guest.started_at,
        flat: guest.flat,
        flat_problem: guest.flat_problem.clone(),
        ..before
    }
}

/// The guest stopped and nobody asked: that is what it shall be from now on, and why is written down.
fn follow_power(tx: &mut Tx, server: &mut Stored<Server>, reason: &str) -> Result<()> {
    server.doc.ask(Verb::PowerSync, tx.now());
    server.doc.stop_reason = Some(reason.to_owned());
    let message = Some(format!("The guest stopped by itself: {reason}."));
    let request = format!("req-{}", tx.uuid());
    history::write(tx, &server.doc, "nubo", &request, "stop", Some(server.generation), message)?;
    tx.update(&server.doc)?;
    Ok(())
}

/// True once the server may be called ACTIVE for the first time: running, and every port wired that shall be.
fn is_ready(state: &Compute, tx: &mut Tx, server: &Server, seen: &ServerObserved) -> Result<bool> {
    let running = seen.power == Some(Power::Running) && server.power == Power::Running;
    if !running || seen.generation < server.verb_generation || seen.gave_up {
        return Ok(false);
    }
    let ports = state.ports.of_server(tx, &server.id)?;
    Ok(ports.iter().all(|port| port.up || !port.admin_state_up))
}

/// Closes the actions that this observation ends.
fn conclude(tx: &mut Tx, server: &Server, seen: &ServerObserved) -> Result<()> {
    let failed = seen.gave_up && seen.generation >= server.verb_generation;
    if failed || settled(&facts(server, Some(seen))) {
        history::close(tx, &server.id, seen.generation.max(server.verb_generation), failed)?;
    }
    Ok(())
}

/// The guest is not on its host (any more). One that vanished while it was being built is no longer known there, so
/// its host is told again; a host that has not heard of it yet loses nothing by that.
fn gone(state: &Compute, tx: &mut Tx, server: Stored<Server>) -> Result<()> {
    if server.power == Power::Absent {
        // It was asked for without the trash, and its disk is gone.
        tx.skip_trash();
        return remove(state, tx, server, None);
    }
    state.volumes.guest_gone(tx, &server.id)?;
    let seen = tx.get::<ServerObserved>(&server.id)?.map(|seen| seen.doc);
    if seen.as_ref().is_some_and(|seen| seen.power.is_some()) {
        tracing::warn!(server = %server.id, host = ?server.host, "a guest vanished from its host and is made again");
    }
    let seen = seen.map(|seen| ServerObserved { power: None, generation: 0, ..seen });
    if let Some(seen) = &seen {
        tx.update(seen)?;
    }
    let mut server = server;
    server.doc.touch();
    pending::mark(tx.now(), &mut server.doc, seen.as_ref());
    tx.update(&server.doc)?;
    Ok(())
}

/// What a whole report leaves out is not there.
fn missing_guests(state: &Compute, tx: &mut Tx, report: &Report) -> Result<()> {
    let named: BTreeSet<&ServerId> = report.guests.iter().map(|guest| &guest.id).collect();
    for server in tx.list::<Server>(Query::index("host", report.host.as_str()))? {
        if !named.contains(&server.id) {
            gone(state, tx, server)?;
        }
    }
    for tombstone in tx.list::<Tombstone>(Query::index("host", report.host.as_str()))? {
        if !named.contains(&tombstone.doc.id) {
            trash::bury(state, tx, &tombstone)?;
        }
    }
    Ok(())
}

/// Takes a server out of the cloud with everything it held: ports, volumes, room on its host, quota. `resting`: its
/// guest is still on its host, and is without volumes by that generation.
pub fn remove(state: &Compute, tx: &mut Tx, server: Stored<Server>, resting: Option<u64>) -> Result<()> {
    let id = server.id.clone();
    state.ports.detach_all(tx, &id)?;
    state.volumes.let_go(tx, &id, resting)?;
    if server.soft_deleted.is_none() {
        quota::release_server(tx, &server.project_id, &server.user_id, &server.flavor)?;
    }
    allocation::release(tx, &server)?;
    let observed = tx.get::<ServerObserved>(&id)?.map(|seen| seen.doc);
    if observed.is_some() {
        tx.delete::<ServerObserved>(&id)?;
    }
    if tx.get::<ServerSecret>(&id)?.is_some() {
        tx.delete::<ServerSecret>(&id)?;
    }
    history::close(tx, &id, u64::MAX, false)?;
    tx.delete::<Server>(&id)?;
    let (created, deleted) = (server.created, tx.now());
    tx.put(&DeletedServer { server: server.doc, observed, created, deleted })?;
    Ok(())
}
