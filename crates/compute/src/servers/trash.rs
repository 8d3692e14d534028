//! Guests of deleted servers while these rest in the trash.
//!
//! ```text
//!   DELETE -> server, ports, quota, vcpus, memory gone;  TrashedGuest: stopped on its host, its disk reserved
//!     undo  -> TrashedGuest gone, the server back on the same host, one generation further
//!     purge -> TrashedGuest gone, Tombstone: absent on its host --report Absent--> Tombstone and reservation gone
//! ```
//!
//! Never: a disk that is reserved and belongs to neither server, trash nor tombstone; a guest in the trash that runs.

use super::document::{Server, Tombstone, TrashedGuest};
use super::observe;
use crate::Compute;
use crate::hosts::{DISK, Host, disk_claim, scope};
use async_trait::async_trait;
use base::{HostName, Result, ServerId};
use contract::recount::{Counts, add};
use engine::{Outcome, Reconciler};
use model::scheduler::{self, Request, choose};
use model::server::Power;
use std::collections::BTreeSet;
use std::sync::Arc;
use store::{Change, Document, Query, Reader, Stored, Trash, Tx};

/// How many entries of the trash one look takes; the rest is for the next.
const BATCH: usize = 500;

/// Takes a server out of the cloud, and leaves its guest on its host. Its generation has been raised for that.
pub fn lay(state: &Compute, tx: &mut Tx, server: Stored<Server>) -> Result<()> {
    let resting = Server { power: Power::Stopped, ..server.doc.clone() };
    let deleted = tx.now();
    observe::remove(state, tx, server, Some(resting.generation))?;
    // What the allocation gave back, but for the disk.
    if let Some(host) = &resting.host {
        tx.charge(&scope(host), DISK, disk_claim(&resting.flavor), None)?;
    }
    tx.create(&TrashedGuest { server: resting, deleted })?;
    Ok(())
}

/// True where a guest rests on this host.
pub fn is_on(reader: &mut Reader, id: &ServerId, host: &HostName) -> Result<bool> {
    Ok(reader.get::<TrashedGuest>(id)?.is_some_and(|trashed| trashed.server.host.as_ref() == Some(host)))
}

/// The guest has gone from its host, and gives back what its disk had reserved.
pub fn bury(state: &Compute, tx: &mut Tx, tombstone: &Tombstone) -> Result<()> {
    if tx.get::<Server>(&tombstone.id)?.is_none() {
        state.volumes.guest_gone(tx, &tombstone.id)?;
    }
    if tombstone.disk_gib > 0 {
        tx.charge(&scope(&tombstone.host), DISK, -(tombstone.disk_gib as i64), None)?;
    }
    tx.delete::<Tombstone>(tombstone.id())?;
    Ok(())
}

/// Empties one request's part of the trash for good: its guests are asked to go.
pub fn purge(tx: &mut Tx, trash: &Trash) -> Result<()> {
    for part in tx.list::<Trash>(Query::index("request", trash.request_id.as_str()))? {
        for document in part.documents.iter().filter(|document| document.kind == Server::KIND) {
            if let Some(trashed) = tx.get::<TrashedGuest>(&document.id)? {
                send_away(tx, trashed.doc)?;
            }
        }
        tx.delete::<Trash>(&part.id)?;
    }
    Ok(())
}

fn send_away(tx: &mut Tx, trashed: TrashedGuest) -> Result<()> {
    let server = trashed.server;
    tx.delete::<TrashedGuest>(&server.id)?;
    let Some(host) = server.host else { return Ok(()) };
    let disk_gib = disk_claim(&server.flavor).max(0) as u64;
    let mut tombstone = Tombstone::new(server.id, host, server.generation + 1);
    tombstone.disk_gib = disk_gib;
    tx.put(&tombstone)?;
    Ok(())
}

/// Purges what rests on a host, oldest first, until `reserved` GiB of its disk are no longer passed; true when
/// something was purged. What has been purged before and not gone yet is counted as gone.
pub fn purge_beyond(tx: &mut Tx, host: &HostName, reserved: u64) -> Result<bool> {
    let used = tx.usage(&scope(host), DISK)?.used.max(0) as u64;
    let going: u64 = going(tx, host)?;
    let mut left = used.saturating_sub(going);
    let mut purged = false;
    if left <= reserved {
        return Ok(false);
    }
    let mut resting = tx.list::<TrashedGuest>(Query::index("host", host.as_str()))?;
    resting.sort_by_key(|trashed| (trashed.deleted, trashed.created));
    for trashed in resting {
        if left <= reserved {
            break;
        }
        left = left.saturating_sub(disk_claim(&trashed.server.flavor).max(0) as u64);
        purged = true;
        match tx.in_trash::<Server>(&trashed.server.id)? {
            Some(trash) => purge(tx, &trash)?,
            None => send_away(tx, trashed.doc)?,
        }
    }
    Ok(purged)
}

fn going(reader: &mut Reader, host: &HostName) -> Result<u64> {
    let tombstones = reader.list::<Tombstone>(Query::index("host", host.as_str()))?;
    Ok(tombstones.iter().map(|tombstone| tombstone.disk_gib).sum())
}

/// How much of a host's disk is reserved by what rests there or is going.
fn not_needed(reader: &mut Reader, host: &HostName) -> Result<u64> {
    let resting = reader.list::<TrashedGuest>(Query::index("host", host.as_str()))?;
    let resting: u64 = resting.iter().map(|trashed| disk_claim(&trashed.server.flavor).max(0) as u64).sum();
    Ok(resting + going(reader, host)?)
}

/// The hosts as they would be if nothing rested on them.
pub fn emptied(reader: &mut Reader, rooms: &[scheduler::Host]) -> Result<Vec<scheduler::Host>> {
    let mut emptied = rooms.to_vec();
    for room in &mut emptied {
        room.disk_gib.used = room.disk_gib.used.saturating_sub(not_needed(reader, &room.name)?);
    }
    Ok(emptied)
}

/// Makes room for a server that would fit if nothing rested on a host; true where it will soon.
pub fn make_room(tx: &mut Tx, request: &Request, rooms: &[scheduler::Host]) -> Result<bool> {
    let emptied = emptied(tx, rooms)?;
    let Ok(host) = choose(request, &emptied) else { return Ok(false) };
    let capacity = rooms.iter().find(|room| room.name == host).map_or(0, |room| room.disk_gib.capacity);
    purge_beyond(tx, &host, capacity.saturating_sub(request.disk_gib))?;
    Ok(true)
}

impl Compute {
    /// Keeps the trash of a host below its share of the disk.
    pub(super) fn keep_share(&self, tx: &mut Tx, host: &HostName) -> Result<()> {
        if let Some(most) = self.passes_share(tx, host)? {
            purge_beyond(tx, host, most)?;
        }
        Ok(())
    }

    /// What is due, guests whose trash is gone, and hosts whose trash takes too much: looked for without writing.
    fn to_sweep(&self, reader: &mut Reader) -> Result<Vec<String>> {
        let now = self.env.now();
        let old = reader.list::<Trash>(Query::all().limit(BATCH))?;
        let mut found: Vec<String> =
            old.iter().filter(|trash| trash.until <= now).map(|trash| trash.id.clone()).collect();
        let mut hosts = BTreeSet::new();
        for trashed in reader.list::<TrashedGuest>(Query::all())? {
            hosts.extend(trashed.server.host.clone().map(|host| host.to_string()));
            if reader.in_trash::<Server>(&trashed.server.id)?.is_none() {
                found.push(format!("guest/{}", trashed.server.id));
            }
        }
        for host in hosts {
            if self.passes_share(reader, &HostName::new(host.clone()))?.is_some() {
                found.push(format!("host/{host}"));
            }
        }
        Ok(found)
    }

    /// What a host's disk may reserve, where it reserves more.
    fn passes_share(&self, reader: &mut Reader, host: &HostName) -> Result<Option<u64>> {
        let Some(known) = reader.get::<Host>(host)? else { return Ok(None) };
        let most = (known.capacity(&self.options.ratios, DISK) as f64 * self.options.trash_share) as u64;
        let used = reader.usage(&scope(host), DISK)?.used.max(0) as u64;
        Ok((used > most).then_some(most))
    }

    /// Why an undo must not take back that a server was made.
    pub fn held_from_undo(&self, reader: &mut Reader, id: &str) -> Result<Option<String>> {
        let Some(server) = reader.get::<Server>(id)? else { return Ok(None) };
        Ok(match (&server.lock, server.power) {
            (Some(_), _) => Some("it is locked".to_owned()),
            (None, Power::Absent) => Some("it is being deleted at once".to_owned()),
            _ => None,
        })
    }

    /// True where only an administrator may do anything with a server.
    pub fn is_locked_by_admin(&self, reader: &mut Reader, id: &str) -> Result<bool> {
        Ok(reader.get::<Server>(id)?.is_some_and(|server| server.lock.as_ref().is_some_and(|lock| lock.by_admin)))
    }

    /// Deletes a server whose making is taken back, as its own call does: its guest rests.
    pub fn remove_by_undo(&self, tx: &mut Tx, id: &str, user: &str, request: &str) -> Result<()> {
        match tx.get::<Server>(id)? {
            Some(server) => super::ops::delete_for(self, tx, user, request, server),
            None => Ok(()),
        }
    }

    /// What an undo may charge of a row of the ledger that has no limit of its own: (known here, the limit).
    pub fn undo_limit(&self, reader: &mut Reader, scope: &str, resource: &str) -> Result<Option<i64>> {
        if let Some(host) = scope.strip_prefix("host:") {
            let host = reader.get::<Host>(host)?;
            return Ok(Some(host.map_or(0, |host| host.capacity(&self.options.ratios, resource) as i64)));
        }
        if scope.contains("/user:") {
            return Ok(None);
        }
        crate::quota::default_limit(reader, resource).map(Some)
    }
}

/// Purges what has rested long enough.
pub struct Sweeper(pub Arc<Compute>);

#[async_trait]
impl Reconciler for Sweeper {
    fn name(&self) -> &'static str {
        "trash"
    }

    fn concerns(&self, _change: &Change) -> Option<String> {
        None
    }

    async fn pending(&self) -> Result<Vec<String>> {
        let state = self.0.clone();
        self.0.store.read(move |reader| state.to_sweep(reader)).await
    }

    fn period_ms(&self) -> u64 {
        5_000
    }

    async fn reconcile(&self, id: &str) -> Result<Outcome> {
        let (state, id) = (self.0.clone(), id.to_owned());
        let sweep = move |tx: &mut Tx| match id.split_once('/') {
            Some(("guest", id)) => orphan(tx, id),
            Some((_, host)) => state.keep_share(tx, &HostName::new(host)),
            None => expire(tx, &id),
        };
        self.0.store.write(super::place::cause("trash.sweep"), sweep).await?;
        Ok(Outcome::Settled)
    }
}

fn expire(tx: &mut Tx, id: &str) -> Result<()> {
    let now = tx.now();
    match tx.get::<Trash>(id)?.filter(|trash| trash.until <= now) {
        Some(trash) => purge(tx, &trash),
        None => Ok(()),
    }
}

fn orphan(tx: &mut Tx, id: &str) -> Result<()> {
    let Some(trashed) = tx.get::<TrashedGuest>(id)? else { return Ok(()) };
    match tx.in_trash::<Server>(id)? {
        Some(_) => Ok(()),
        None => send_away(tx, trashed.doc),
    }
}

/// What rests has reserved of the disks of hosts, for whoever counts again: also of a host that was forgotten since.
pub fn recount(reader: &mut Reader, counts: &mut Counts) -> Result<()> {
    for trashed in reader.list::<TrashedGuest>(Query::all())? {
        let Some(host) = &trashed.server.host else { continue };
        add(counts, &scope(host), DISK, disk_claim(&trashed.server.flavor).max(0));
    }
    for tombstone in reader.list::<Tombstone>(Query::all())? {
        add(counts, &scope(&tombstone.host), DISK, tombstone.disk_gib as i64);
    }
    Ok(())
}
