//! Loops over servers: finding a host, noticing the first ACTIVE, removing what no host has.

use super::document::{DeletedServer, Server, ServerFault, ServerObserved, Tombstone};
use super::{allocation, consoles, history, observe, pending, trash};
use crate::Compute;
use crate::hosts::{self, Host, rooms};
use async_trait::async_trait;
use base::{HostName, Result};
use engine::{Outcome, Reconciler};
use model::scheduler::{self, Decision, Request, choose, decide};
use model::server::Power;
use std::sync::Arc;
use store::{Cause, Change, Document, Query, Reader, Stored, Tx};

/// How long deleted servers are remembered.
const REMEMBERED_S: i64 = 24 * 3600;

/// So many that wait get their hosts in one commit. Each by itself, of a hundred that one request asked for, would wait
/// for whatever is written between two of them, such as the reports of the hosts of those before it. No more, because
/// others want to write, too.
const TOGETHER: usize = 25;

/// On so many hosts a server is tried before it is given up, as Nova does.
const HOSTS_TRIED: usize = 3;

pub(super) fn cause(what: &str) -> Cause {
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
        if change.kind == Tombstone::KIND && change.body.is_none() {
            return Tombstone::parse(&change.id).map(|(server, _)| server.to_owned());
        }
        document::<Server>(change).filter(|server| server.needs_placing()).map(|server| server.id.to_string())
    }

    async fn pending(&self) -> Result<Vec<String>> {
        let servers = self.0.store.list::<Server>(Query::index("todo", "place")).await?;
        Ok(servers.iter().map(|server| server.id.to_string()).collect())
    }

    async fn reconcile(&self, id: &str) -> Result<Outcome> {
        // Usually one before it has taken it along: look before writing.
        if !self.0.store.get::<Server>(id).await?.is_some_and(|server| server.needs_placing()) {
            return Ok(Outcome::Settled);
        }
        match self.place(id, TOGETHER).await {
            // Another one may be the trouble.
            Err(_) => self.place(id, 1).await,
            placed => placed,
        }
    }
}

impl Placer {
    /// Places this one, and of those that have waited longest as many as find a host: to look for one that is nowhere
    /// takes long.
    async fn place(&self, id: &str, together: usize) -> Result<Outcome> {
        let (state, id) = (self.0.clone(), id.to_owned());
        let work = move |tx: &mut Tx| {
            let outcome = place(&state, tx, &id)?;
            let mut last = id.clone();
            for server in tx.list::<Server>(Query::index("todo", "place").limit(together - 1))? {
                if tx.get::<Server>(&last)?.is_none_or(|last| last.host.is_none()) {
                    break;
                }
                place(&state, tx, &server.id)?;
                last = server.id.to_string();
            }
            Ok(outcome)
        };
        Ok(self.0.store.write(cause("server.place"), work).await?.value)
    }
}

/// The first attempt, in the very commit that makes the server: its host hears of guest and ports in one step, and no
/// second commit is waited for. What finds no room now is left to the loop, which can wait and can explain.
pub fn at_once(state: &Compute, tx: &mut Tx, server: &Server) -> Result<()> {
    let Some(server) = tx.get::<Server>(&server.id)?.filter(|server| server.needs_placing()) else { return Ok(()) };
    let mut server = server.doc;
    let request = request(state, tx, &server)?;
    let Ok(decision) = look_for_host(state, tx, &request)? else { return Ok(()) };
    settle_on(state, tx, &mut server, decision)?;
    tx.update(&server)?;
    Ok(())
}

/// Why no host was found, and the hosts that were looked at.
struct NoHost {
    explained: scheduler::Explained,
    rooms: Vec<scheduler::Host>,
}

/// Chooses by the table in memory. That it was right of the chosen host is seen in the ledger; that there is none, and
/// why, by reading all of them.
fn look_for_host(state: &Compute, reader: &mut Reader, request: &Request) -> Result<Result<Decision, NoHost>> {
    let chosen = state.rooms.ask(state, reader, |rooms| {
        let decision = decide(request, rooms).ok()?;
        let believed = rooms.iter().find(|room| room.name == decision.host).map(|room| (**room).clone());
        Some((decision, believed))
    })?;
    if let Some((decision, believed)) = chosen {
        if rooms::one(state, reader, &decision.host)? == believed {
            return Ok(Ok(decision));
        }
        tracing::warn!(host = %decision.host, "the table of hosts was wrong and is read anew");
        state.rooms.forget();
    }
    let rooms = rooms::exact(state, reader)?;
    Ok(decide(request, &rooms).map_err(|explained| NoHost { explained, rooms }))
}

pub fn request(state: &Compute, reader: &mut Reader, server: &Server) -> Result<Request> {
    let flavor = &server.flavor;
    Ok(Request {
        vcpus: u64::from(flavor.vcpus),
        memory_mib: flavor.ram_mib,
        disk_gib: hosts::disk_claim(flavor).unsigned_abs(),
        availability_zone: server.wanted_zone.clone(),
        host: server.wanted_host.clone(),
        avoid: server.avoid.clone(),
        volumes: state.volumes.hosts_for(reader, &server.id)?,
    })
}

/// Takes the server's room on the host, binds its ports there, and has its volumes made there.
fn settle_on(state: &Compute, tx: &mut Tx, server: &mut Server, decision: Decision) -> Result<()> {
    let host = decision.host.clone();
    let chosen = tx.need::<Host>(&host)?;
    allocation::take(tx, server, &chosen, &state.options.ratios, decision)?;
    state.ports.bind(tx, &server.id, Some(&host))?;
    state.volumes.settle(tx, &server.id, &host)?;
    server.host = Some(host);
    Ok(())
}

/// Takes a server that its host could not build away from it, where another one would do. The host is told to remove
/// it, and only when it has said that it did, the server is placed anew: at no time two hosts have it. False where no
/// other host would do: then it stays where it is, in ERROR, and the fault says why. Only for a host that answers: a
/// silent one may be running the guest.
pub fn elsewhere(state: &Compute, tx: &mut Tx, server: &mut Server, seen: &mut ServerObserved) -> Result<bool> {
    let Some(old) = server.host.clone() else { return Ok(false) };
    let said = seen.fault.as_ref().map_or_else(String::new, |fault| fault.message.clone());
    let avoid = [server.avoid.clone(), vec![old.clone()]].concat();
    let request = Request { avoid, ..request(state, tx, server)? };
    if request.avoid.len() >= HOSTS_TRIED {
        explain_further(seen, &format!("{HOSTS_TRIED} hosts could not build it, this was the last."));
        return Ok(false);
    }
    if let Err(NoHost { explained, .. }) = look_for_host(state, tx, &request)? {
        explain_further(seen, &format!("No other host would do:\n{}", explained.table()));
        return Ok(false);
    }
    tracing::info!(server = %server.id, from = %old, "a host could not build a server: {said}");
    tx.put(&Tombstone::new(server.id.clone(), old, server.generation + 1))?;
    allocation::release(tx, server)?;
    state.ports.bind(tx, &server.id, None)?;
    if tx.get::<ServerObserved>(&server.id)?.is_some() {
        tx.delete::<ServerObserved>(&server.id)?;
    }
    server.avoid = request.avoid;
    server.host = None;
    server.touch();
    history::remark(tx, server, &format!("A host could not build it and another one tries: {said}"))?;
    tx.update(server)?;
    Ok(true)
}

fn explain_further(seen: &mut ServerObserved, why: &str) {
    if let Some(fault) = seen.fault.as_mut().filter(|fault| !fault.details.contains(why)) {
        fault.details = if fault.details.is_empty() { why.to_owned() } else { format!("{}\n{why}", fault.details) };
    }
}

fn place(state: &Compute, tx: &mut Tx, id: &str) -> Result<Outcome> {
    let Some(server) = tx.get::<Server>(id)?.filter(|server| server.needs_placing()) else {
        return Ok(Outcome::Settled);
    };
    let mut server = server.doc;
    if !server.avoid.is_empty() && tx.count::<Tombstone>(Query::index("guest", id))? > 0 {
        // Its going is a signal.
        return Ok(Outcome::Settled);
    }
    let request = request(state, tx, &server)?;
    match look_for_host(state, tx, &request)? {
        Ok(decision) => {
            let host = decision.host.clone();
            settle_on(state, tx, &mut server, decision)?;
            state.keep_share(tx, &host)?;
        }
        Err(NoHost { rooms, .. }) if may_still_come(state, tx, &request, &rooms) => {
            return Ok(Outcome::Again { after_ms: 200 });
        }
        Err(NoHost { rooms, .. }) if trash::make_room(tx, &request, &rooms)? => {
            return Ok(Outcome::Again { after_ms: 200 });
        }
        Err(NoHost { explained, .. }) => {
            server.unschedulable = true;
            server.fault = Some(ServerFault {
                code: 500,
                message: format!("No valid host was found. {}", explained.summary()),
                details: explained.table(),
                created: tx.now(),
            });
            history::close(tx, &server.id, server.verb_generation, true)?;
            pending::mark(tx.now(), &mut server, None);
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
    if orphan { observe::remove(state, tx, server, None) } else { Ok(()) }
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
        let state = self.0.clone();
        let forget = move |tx: &mut Tx| {
            for id in &old {
                if tx.get::<DeletedServer>(id)?.is_some() {
                    tx.delete::<DeletedServer>(id)?;
                    history::forget(tx, id)?;
                }
            }
            consoles::forget(tx, &tokens)?;
            for id in &lost {
                if let Some(tombstone) = tx.get::<Tombstone>(id)? {
                    trash::bury(&state, tx, &tombstone)?;
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
        Ok(tombstones.iter().filter(|it| !known.contains(&it.host)).map(|it| it.doc.id().to_owned()).collect())
    }
}
