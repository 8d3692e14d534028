//! Loops over servers: finding a host, noticing the first ACTIVE, removing what no host has.

use super::document::{DeletedServer, Server, ServerFault, ServerObserved, Tombstone};
use super::{consoles, history, observe};
use crate::{Compute, hosts};
use async_trait::async_trait;
use base::{HostName, Result};
use engine::{Outcome, Reconciler};
use model::scheduler::{self, Request, choose};
use model::server::Power;
use std::sync::Arc;
use store::{Cause, Change, Document, Query, Stored, Tx};

/// How long deleted servers are remembered.
const REMEMBERED_S: i64 = 24 * 3600;

fn cause(what: &str) -> Cause {
    Cause::new("nubo", "", what)
}

fn document<T: Document>(change: &Change) -> Option<Stored<T>> {
    if change.kind != T::KIND {
        return None;
    }
    change.document::<T>().ok().flatten()
}

/// Gives each new server a host, its room there, and its ports a binding: in one commit.
pub struct Placer(pub Arc<Compute>);

#[async_trait]
impl Reconciler for Placer {
    fn name(&self) -> &'static str {
        "place"
    }

    fn concerns(&self, change: &Change) -> Option<String> {
        document::<Server>(change).filter(|server| server.needs_placing()).map(|server| server.id.to_string())
    }

    async fn pending(&self) -> Result<Vec<String>> {
        let servers = self.0.store.list::<Server>(Query::index("todo", "place")).await?;
        Ok(servers.iter().map(|server| server.id.to_string()).collect())
    }

    async fn reconcile(&self, id: &str) -> Result<Outcome> {
        let (state, id) = (self.0.clone(), id.to_owned());
        let placed = self.0.store.write(cause("server.place"), move |tx| place(&state, tx, &id)).await?;
        Ok(placed.value)
    }
}

fn place(state: &Compute, tx: &mut Tx, id: &str) -> Result<Outcome> {
    let Some(server) = tx.get::<Server>(id)?.filter(|server| server.needs_placing()) else {
        return Ok(Outcome::Settled);
    };
    let mut server = server.doc;
    let mut rooms = Vec::new();
    let known = hosts::all(tx)?;
    for host in &known {
        rooms.push(host.room(tx, &state.options.ratios, state.hosts.is_alive(&host.name))?);
    }
    let flavor = &server.flavor;
    let request = Request {
        vcpus: u64::from(flavor.vcpus),
        memory_mib: flavor.ram_mib,
        disk_gib: flavor.disk_gib + flavor.ephemeral_gib,
        availability_zone: server.wanted_zone.clone(),
        host: server.wanted_host.clone(),
        avoid: Vec::new(),
    };
    match choose(&request, &rooms) {
        Ok(host) => {
            let chosen = known.iter().find(|known| known.name == host);
            for (resource, amount) in hosts::claims(flavor) {
                let most = chosen.map_or(0, |chosen| chosen.capacity(&state.options.ratios, resource)) as i64;
                tx.charge(&hosts::scope(&host), resource, amount, Some(most))?;
            }
            state.ports.bind(tx, &server.id, Some(&host))?;
            server.host = Some(host);
        }
        Err(_) if may_still_come(state, tx, &request, &rooms) => return Ok(Outcome::Again { after_ms: 200 }),
        Err(explained) => {
            server.unschedulable = true;
            server.fault = Some(ServerFault {
                code: 500,
                message: format!("No valid host was found. {}", explained.summary()),
                details: explained.table(),
                created: tx.now(),
            });
            history::close(tx, &server.id, server.verb_generation, true)?;
        }
    }
    tx.update(&server)?;
    Ok(Outcome::Settled)
}

/// After a start of control, hosts take a moment to call: a server waits for those that would do, and for the first
/// host of a new cloud.
fn may_still_come(state: &Compute, tx: &Tx, request: &Request, rooms: &[scheduler::Host]) -> bool {
    let early = tx.now().ms_since(state.started) < state.options.host_grace_ms;
    let hopeful: Vec<_> = rooms.iter().map(|room| scheduler::Host { alive: true, ..room.clone() }).collect();
    early && (rooms.is_empty() || choose(request, &hopeful).is_ok())
}

/// Notices that a server is ACTIVE for the first time when no report says so: a port was taken down by its owner.
pub struct Launcher(pub Arc<Compute>);

#[async_trait]
impl Reconciler for Launcher {
    fn name(&self) -> &'static str {
        "launch"
    }

    fn concerns(&self, change: &Change) -> Option<String> {
        document::<ServerObserved>(change).filter(|seen| seen.waits_for_ports()).map(|seen| seen.id.to_string())
    }

    async fn pending(&self) -> Result<Vec<String>> {
        let seen = self.0.store.list::<ServerObserved>(Query::index("todo", "launch")).await?;
        Ok(seen.iter().map(|seen| seen.id.to_string()).collect())
    }

    async fn reconcile(&self, id: &str) -> Result<Outcome> {
        // Usually the report that wrote it has done this already: look before writing.
        let waits = self.0.store.get::<ServerObserved>(id).await?.is_some_and(|seen| seen.waits_for_ports());
        if !waits {
            return Ok(Outcome::Settled);
        }
        let (state, id) = (self.0.clone(), id.to_owned());
        self.0.store.write(cause("server.launch"), move |tx| launch(&state, tx, &id)).await?;
        Ok(Outcome::Settled)
    }
}

fn launch(state: &Compute, tx: &mut Tx, id: &str) -> Result<()> {
    let (Some(server), Some(seen)) = (tx.get::<Server>(id)?, tx.get::<ServerObserved>(id)?) else { return Ok(()) };
    observe::launch(state, tx, &server, seen.doc)
}

/// Removes servers that shall be gone and that no host can answer for; forgets what has been gone for long.
pub struct Janitor(pub Arc<Compute>);

#[async_trait]
impl Reconciler for Janitor {
    fn name(&self) -> &'static str {
        "janitor"
    }

    fn concerns(&self, change: &Change) -> Option<String> {
        document::<Server>(change)
            .filter(|server| server.power == Power::Absent && server.host.is_none())
            .map(|server| server.id.to_string())
    }

    async fn pending(&self) -> Result<Vec<String>> {
        self.forget().await?;
        let servers = self.0.store.list::<Server>(Query::index("todo", "remove")).await?;
        Ok(servers.iter().map(|server| server.id.to_string()).collect())
    }

    async fn reconcile(&self, id: &str) -> Result<Outcome> {
        let (state, id) = (self.0.clone(), id.to_owned());
        self.0.store.write(cause("server.remove"), move |tx| sweep(&state, tx, &id)).await?;
        Ok(Outcome::Settled)
    }
}

fn sweep(state: &Compute, tx: &mut Tx, id: &str) -> Result<()> {
    let Some(server) = tx.get::<Server>(id)?.filter(|server| server.power == Power::Absent) else { return Ok(()) };
    let orphan = match &server.host {
        None => true,
        Some(host) => tx.get::<hosts::Host>(host)?.is_none(),
    };
    if orphan { observe::remove(state, tx, server) } else { Ok(()) }
}

impl Janitor {
    async fn forget(&self) -> Result<()> {
        let before = self.0.env.now().plus_s(-REMEMBERED_S);
        let deleted = self.0.store.list::<DeletedServer>(Query::all().limit(200)).await?;
        let old: Vec<String> =
            deleted.iter().filter(|it| it.deleted < before).map(|it| it.server.id.to_string()).collect();
        let tokens = consoles::expired(&self.0).await?;
        let lost = self.lost_tombstones().await?;
        if old.is_empty() && tokens.is_empty() && lost.is_empty() {
            return Ok(());
        }
        let forget = move |tx: &mut Tx| {
            for id in &old {
                if tx.get::<DeletedServer>(id)?.is_some() {
                    tx.delete::<DeletedServer>(id)?;
                    history::forget(tx, id)?;
                }
            }
            consoles::forget(tx, &tokens)?;
            for id in &lost {
                if tx.get::<Tombstone>(id)?.is_some() {
                    tx.delete::<Tombstone>(id)?;
                }
            }
            Ok(())
        };
        self.0.store.write(cause("server.forget"), forget).await?;
        Ok(())
    }

    /// Tombstones of hosts that have been forgotten.
    async fn lost_tombstones(&self) -> Result<Vec<String>> {
        let tombstones = self.0.store.list::<Tombstone>(Query::all().limit(200)).await?;
        if tombstones.is_empty() {
            return Ok(Vec::new());
        }
        let known: Vec<HostName> =
            self.0.store.list::<hosts::Host>(Query::all()).await?.into_iter().map(|host| host.doc.name).collect();
        Ok(tombstones.iter().filter(|it| !known.contains(&it.host)).map(|it| it.id.to_string()).collect())
    }
}
