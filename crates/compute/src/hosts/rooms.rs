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
use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use store::{Moved, Reader, Rev, Stored};

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
        self.ask(state, reader, |rooms| rooms.iter().map(|room| room.clone().into_owned()).collect())
    }

    /// The same for a look: what stands in the table is not copied.
    pub fn ask<T>(
        &self,
        state: &Compute,
        reader: &mut Reader,
        ask: impl FnOnce(&[Cow<'_, scheduler::Host>]) -> T,
    ) -> Result<T> {
        let own = names(&reader.own_moves());
        let mut kept = self.0.lock().unwrap_or_else(|broken| broken.into_inner());
        let ahead = bring_up(&mut kept, state, reader, own)?;
        let (Some(ahead), Some(table)) = (ahead, &*kept) else {
            drop(kept);
            let rooms: Vec<_> = exact(state, reader)?.into_iter().map(Cow::Owned).collect();
            return Ok(ask(&rooms));
        };
        // Both are in the order of names: asked for one by one, a thousand hosts would be sought a thousand times.
        let mut alive = state.hosts.alive();
        alive.sort();
        let mut alive = alive.into_iter().peekable();
        let mut rooms: Vec<Cow<'_, scheduler::Host>> = Vec::with_capacity(table.hosts.len());
        for room in table.hosts.values().filter(|room| !ahead.contains(&room.name)) {
            while alive.next_if(|name| *name < room.name).is_some() {}
            let answers = alive.peek() == Some(&room.name);
            rooms.push(with_life(Cow::Borrowed(room), answers));
        }
        for name in &ahead {
            rooms.extend(one(state, reader, name)?.map(Cow::Owned));
        }
        if !ahead.is_empty() {
            rooms.sort_by(|a, b| a.name.cmp(&b.name));
        }
        debug_assert!(
            rooms.iter().map(|room| &**room).eq(exact(state, reader)?.iter()),
            "the table is what the store says"
        );
        Ok(ask(&rooms))
    }

    /// Forgets everything: the next one reads it anew.
    pub fn forget(&self) {
        *self.0.lock().unwrap_or_else(|broken| broken.into_inner()) = None;
    }
}

/// Every host by name, read from the store.
pub fn exact(state: &Compute, reader: &mut Reader) -> Result<Vec<scheduler::Host>> {
    let known = all(reader)?;
    let room = |host: &Stored<Host>| {
        let room = host.room(reader, &state.options.ratios, true)?;
        Ok(living(state, Cow::Owned(room)).into_owned())
    };
    known.iter().map(room).collect()
}

/// One host, read from the store.
pub fn one(state: &Compute, reader: &mut Reader, name: &HostName) -> Result<Option<scheduler::Host>> {
    let Some(host) = reader.get::<Host>(name)? else { return Ok(None) };
    let room = host.room(reader, &state.options.ratios, true)?;
    Ok(Some(living(state, Cow::Owned(room)).into_owned()))
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
fn living<'a>(state: &Compute, room: Cow<'a, scheduler::Host>) -> Cow<'a, scheduler::Host> {
    let answers = state.hosts.is_alive(&room.name);
    with_life(room, answers)
}

fn with_life(mut room: Cow<'_, scheduler::Host>, answers: bool) -> Cow<'_, scheduler::Host> {
    let alive = room.alive && answers;
    if room.alive != alive {
        room.to_mut().alive = alive;
    }
    room
}

fn names(moved: &Moved) -> BTreeSet<HostName> {
    let prefix = scope("");
    moved.ids::<Host>().chain(moved.scopes(&prefix)).map(HostName::new).collect()
}
