//! How full every host is, kept in memory between placements: a cloud of a thousand hosts is not read anew for each
//! server.
//!
//! The table is the store's as of one revision. Who asks brings it up to the snapshot in which it stands, by what has
//! changed since, and sees what its own transaction has changed, too. Where that cannot be done exactly everything is
//! read. Nothing is decided here, and nothing here is believed when it comes to charging: the ledger refuses.

use super::{Host, all, scope};
use crate::Compute;
use base::{HostName, Result, Timestamp};
use model::scheduler;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use store::{Moved, Reader, Rev};

/// So many rows of history are looked through before everything is read.
const BEHIND: usize = 2_000;
/// Everything is read at least so often: an operator may have mended the ledger behind our back.
const ANEW_MS: i64 = 60_000;

#[derive(Default)]
pub struct Rooms(Mutex<Option<Table>>);

struct Table {
    rev: Rev,
    made: Timestamp,
    hosts: BTreeMap<HostName, scheduler::Host>,
}

impl Rooms {
    /// Every host by name, as this reader's snapshot and transaction have it.
    pub fn all(&self, state: &Compute, reader: &mut Reader) -> Result<Vec<scheduler::Host>> {
        let rooms = self.known(state, reader)?;
        let Some(rooms) = rooms else { return exact(state, reader) };
        let rooms: Vec<_> = rooms.into_values().map(|room| living(state, room)).collect();
        debug_assert_eq!(rooms, exact(state, reader)?, "the table is what the store says");
        Ok(rooms)
    }

    fn known(&self, state: &Compute, reader: &mut Reader) -> Result<Option<BTreeMap<HostName, scheduler::Host>>> {
        let own = names(&reader.own_moves());
        let mut table = self.0.lock().unwrap_or_else(|broken| broken.into_inner());
        let Some(ahead) = bring_up(&mut table, state, reader, own)? else { return Ok(None) };
        let Some(table) = &*table else { return Ok(None) };
        let mut rooms = table.hosts.clone();
        for name in &ahead {
            put(&mut rooms, state, reader, name)?;
        }
        Ok(Some(rooms))
    }

    /// Forgets everything: the next one reads it anew.
    pub fn forget(&self) {
        *self.0.lock().unwrap_or_else(|broken| broken.into_inner()) = None;
    }
}

/// Every host by name, read from the store.
pub fn exact(state: &Compute, reader: &mut Reader) -> Result<Vec<scheduler::Host>> {
    let known = all(reader)?;
    known.iter().map(|host| Ok(living(state, host.room(reader, &state.options.ratios, true)?))).collect()
}

/// One host, read from the store.
pub fn one(state: &Compute, reader: &mut Reader, name: &HostName) -> Result<Option<scheduler::Host>> {
    let Some(host) = reader.get::<Host>(name)? else { return Ok(None) };
    Ok(Some(living(state, host.room(reader, &state.options.ratios, true)?)))
}

/// Brings the table to the reader's snapshot, as far as that is committed. The hosts of which the reader sees more than
/// that; `None` where everything has to be read.
fn bring_up(
    kept: &mut Option<Table>,
    state: &Compute,
    reader: &mut Reader,
    own: BTreeSet<HostName>,
) -> Result<Option<BTreeSet<HostName>>> {
    if reader.stands_in().is_some() {
        return Ok(None);
    }
    let (rev, now) = (reader.snapshot_rev()?, state.env.now());
    // What shares our commit may still fail with it, and its revision be used again.
    let committed = rev <= state.store.rev();
    let young = kept.as_ref().filter(|table| now.ms_since(table.made) < ANEW_MS).map(|table| table.rev);
    let Some(since) = young else {
        if !own.is_empty() || !committed {
            return Ok(None);
        }
        *kept = Some(read(state, reader, rev, now)?);
        return Ok(Some(own));
    };
    if since > rev {
        return Ok(None);
    }
    let Some(moved) = reader.moved_since(since, BEHIND)? else {
        *kept = None;
        return Ok(None);
    };
    let moved = names(&moved);
    if !committed || !moved.is_disjoint(&own) {
        return Ok(Some(&moved | &own));
    }
    // Taken out meanwhile: half a step would be taken for a whole one.
    if let Some(mut table) = kept.take() {
        for name in &moved {
            put(&mut table.hosts, state, reader, name)?;
        }
        *kept = Some(Table { rev, ..table });
    }
    Ok(Some(own))
}

fn read(state: &Compute, reader: &mut Reader, rev: Rev, made: Timestamp) -> Result<Table> {
    let mut hosts = BTreeMap::new();
    for host in all(reader)? {
        hosts.insert(host.name.clone(), host.room(reader, &state.options.ratios, true)?);
    }
    Ok(Table { rev, made, hosts })
}

fn put(
    rooms: &mut BTreeMap<HostName, scheduler::Host>,
    state: &Compute,
    reader: &mut Reader,
    name: &HostName,
) -> Result<()> {
    match reader.get::<Host>(name)? {
        Some(host) => rooms.insert(name.clone(), host.room(reader, &state.options.ratios, true)?),
        None => rooms.remove(name),
    };
    Ok(())
}

/// The room with what stands in no document: whether its host answers. Forced down, it counts as silent.
fn living(state: &Compute, room: scheduler::Host) -> scheduler::Host {
    scheduler::Host { alive: room.alive && state.hosts.is_alive(&room.name), ..room }
}

fn names(moved: &Moved) -> BTreeSet<HostName> {
    let prefix = scope("");
    moved.ids::<Host>().chain(moved.scopes(&prefix)).map(HostName::new).collect()
}
