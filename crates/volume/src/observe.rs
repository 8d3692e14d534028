//! Taking over what hosts say: pools at the start of a session, volumes whenever they change.

use crate::document::{Pool, Snapshot, SnapshotTombstone, TrashedVolume, Volume, VolumeObserved, VolumeTombstone, Why};
use crate::messages::{self, Event};
use crate::{Volumes, sight, trash};
use agent_api::{HostInventory, Report, VolumeState};
use base::{Result, VolumeId, VolumeSnapshotId};
use model::volume::Verb;
use std::collections::BTreeSet;
use store::{Query, Stored, Tx};

/// The zone of every host, until aggregates exist.
pub const ZONE: &str = "nova";

impl Volumes {
    /// What a host says of itself. Writes only what changed, and of the room that is free only what matters.
    ///
    /// # Errors
    /// What the store says.
    pub fn host_seen(&self, tx: &mut Tx, inventory: &HostInventory) -> Result<()> {
        let Some(said) = &inventory.volume_pool else { return Ok(()) };
        let Some(known) = tx.get::<Pool>(&inventory.name)?.map(|known| known.doc) else {
            let pool = Pool {
                host: inventory.name.clone(),
                total_gib: said.total_gib,
                free_gib: said.free_gib,
                backend: said.backend.clone(),
                zone: ZONE.to_owned(),
                enabled: true,
                disabled_reason: None,
                frozen: false,
                service_uuid: tx.uuid(),
            };
            tx.create(&pool)?;
            return Ok(());
        };
        let drift = known.free_gib.abs_diff(said.free_gib) * 20 > known.total_gib;
        if drift || known.total_gib != said.total_gib || known.backend != said.backend {
            let (total_gib, free_gib, backend) = (said.total_gib, said.free_gib, said.backend.clone());
            tx.update(&Pool { total_gib, free_gib, backend, ..known })?;
        }
        Ok(())
    }

    /// What a host says of its volumes.
    ///
    /// # Errors
    /// What the store says.
    pub fn observed(&self, tx: &mut Tx, report: &Report) -> Result<()> {
        for said in &report.volumes {
            let volume = tx.get::<Volume>(&said.id)?.filter(|it| it.host.as_ref() == Some(&report.host));
            if let Some(volume) = volume {
                self.take(tx, volume, said)?;
            } else if let Some(trashed) = tx.get::<TrashedVolume>(&said.id)? {
                resting(tx, trashed.doc, said)?;
            } else if let Some(tombstone) = tx.get::<VolumeTombstone>(&said.id)? {
                if said.state == VolumeState::Absent && tombstone.host == report.host {
                    trash::bury(tx, &tombstone)?;
                }
            } else if said.state != VolumeState::Absent {
                stray(report, said);
            }
        }
        if report.whole { missing(tx, report) } else { Ok(()) }
    }

    fn take(&self, tx: &mut Tx, volume: Stored<Volume>, said: &agent_api::VolumeObserved) -> Result<()> {
        let before = tx.get::<VolumeObserved>(&volume.id)?.map(|seen| seen.doc);
        if said.state == VolumeState::Absent && before.is_none() {
            // The host has not heard of it yet.
            return Ok(());
        }
        let seen = observation(before.clone(), &volume, said);
        if before.as_ref() == Some(&seen) {
            return Ok(());
        }
        let mut doc = volume.doc.clone();
        if sight::reached(&doc, Some(&seen)) {
            if doc.verb == Verb::Extend && doc.passing_since.is_some() {
                self.tell(tx, &doc.id, |guests, tx, server| guests.volume_grown(tx, server))?;
            }
            (doc.passing_since, doc.overdue) = (None, 0);
        } else if before.as_ref().is_some_and(|seen| seen.ready) && !seen.ready && seen.generation == 0 {
            tracing::warn!(volume = %doc.id, host = ?doc.host, "a volume vanished from its host");
            doc.passing_since = doc.passing_since.or(Some(tx.now()));
        }
        if seen.gave_up && !before.as_ref().is_some_and(|seen| seen.gave_up) {
            say_why(tx, &doc, &seen)?;
        }
        tx.put(&seen)?;
        tx.update(&doc)?;
        settle_snapshots(tx, &doc, &seen, before.as_ref())
    }
}

/// The host has given up: what of a volume, and why.
fn say_why(tx: &mut Tx, volume: &Volume, seen: &VolumeObserved) -> Result<()> {
    let why = seen.fault.as_ref().map_or("", |why| why.message.as_str());
    if !sight::reached(volume, Some(seen)) {
        return messages::say(tx, &volume.project_id, &volume.id, messages::failed(volume, Some(seen)), why);
    }
    let mut snapshots = tx.list::<Snapshot>(Query::index("volume", volume.id.as_str()))?;
    snapshots.retain(|it| it.generation <= seen.generation && !seen.snapshots.contains(&it.id));
    for snapshot in &snapshots {
        messages::say(tx, &snapshot.project_id, &snapshot.id, Event::NoSnapshot, why)?;
    }
    match snapshots.is_empty() {
        true => messages::say(tx, &volume.project_id, &volume.id, Event::Unknown, why),
        false => Ok(()),
    }
}

/// Nobody knows it. The store may be an older copy than the volume: it is left alone, and fsck names it.
fn stray(report: &Report, said: &agent_api::VolumeObserved) {
    tracing::warn!(volume = %said.id, host = %report.host, "a volume that the store does not know is left alone");
}

fn observation(before: Option<VolumeObserved>, volume: &Volume, said: &agent_api::VolumeObserved) -> VolumeObserved {
    let before = before.unwrap_or_else(|| VolumeObserved {
        id: volume.id.clone(),
        project_id: volume.project_id.clone(),
        ..VolumeObserved::default()
    });
    let fault = said.fault.as_ref().map(|fault| Why { message: fault.message.clone(), details: fault.detail.clone() });
    // What is used is only of interest by the eighth of a GiB: it changes with every write of a guest.
    let used_bytes = match before.used_bytes.abs_diff(said.used_bytes) < 1 << 27 && before.ready {
        true => before.used_bytes,
        false => said.used_bytes,
    };
    VolumeObserved {
        project_id: volume.project_id.clone(),
        generation: said.generation,
        ready: said.state == VolumeState::Ready,
        made: before.made || said.state == VolumeState::Ready,
        size_bytes: said.size_bytes,
        used_bytes,
        snapshots: said.snapshots.iter().map(|snapshot| snapshot.id.clone()).collect(),
        depends_on: said.depends_on.iter().cloned().collect(),
        shares: said.shares,
        gave_up: said.fault.as_ref().is_some_and(|fault| !fault.retried),
        fault,
        attempts: said.attempts,
        ..before
    }
}

/// Ends the waiting of snapshots that are there, and of those that are gone. One that nobody knows is left alone, as a
/// volume is that nobody knows.
fn settle_snapshots(
    tx: &mut Tx,
    volume: &Volume,
    seen: &VolumeObserved,
    before: Option<&VolumeObserved>,
) -> Result<()> {
    let snapshots = tx.list::<Snapshot>(Query::index("volume", volume.id.as_str()))?;
    let mut known: BTreeSet<VolumeSnapshotId> = snapshots.iter().map(|it| it.id.clone()).collect();
    known.extend(bury_snapshots(tx, seen)?);
    known.extend(sight::resting(tx, &volume.id)?.into_iter().map(|resting| resting.doc.snapshot.id));
    let new = |id: &&VolumeSnapshotId| before.is_none_or(|before| !before.snapshots.contains(*id));
    for id in seen.snapshots.difference(&known).filter(new) {
        tracing::warn!(volume = %volume.id, snapshot = %id, "a snapshot that the store does not know is left alone");
    }
    for snapshot in snapshots {
        if seen.snapshots.contains(&snapshot.id) && (snapshot.passing_since.is_some() || snapshot.overdue) {
            tx.update(&Snapshot { passing_since: None, overdue: false, ..snapshot.doc })?;
        }
    }
    Ok(())
}

/// Takes away the tombstones of snapshots that are gone; all that there were.
fn bury_snapshots(tx: &mut Tx, seen: &VolumeObserved) -> Result<Vec<VolumeSnapshotId>> {
    let tombstones = tx.list::<SnapshotTombstone>(Query::index("volume", seen.id.as_str()))?;
    for tombstone in &tombstones {
        if seen.generation >= tombstone.generation && !seen.snapshots.contains(&tombstone.id) {
            tx.delete::<SnapshotTombstone>(&tombstone.id)?;
        }
    }
    Ok(tombstones.into_iter().map(|tombstone| tombstone.doc.id).collect())
}

fn resting(tx: &mut Tx, trashed: TrashedVolume, said: &agent_api::VolumeObserved) -> Result<()> {
    if said.state == VolumeState::Absent {
        return Ok(());
    }
    let before = tx.get::<VolumeObserved>(&said.id)?.map(|seen| seen.doc);
    let seen = observation(before, &trashed.volume, said);
    tx.put(&seen)?;
    bury_snapshots(tx, &seen).map(drop)
}

/// What a whole report leaves out is not there.
fn missing(tx: &mut Tx, report: &Report) -> Result<()> {
    let named: BTreeSet<&VolumeId> = report.volumes.iter().map(|volume| &volume.id).collect();
    for tombstone in tx.list::<VolumeTombstone>(Query::index("host", report.host.as_str()))? {
        if !named.contains(&tombstone.id) {
            trash::bury(tx, &tombstone)?;
        }
    }
    for volume in tx.list::<Volume>(Query::index("host", report.host.as_str()))? {
        if named.contains(&volume.id) {
            continue;
        }
        let Some(seen) = tx.get::<VolumeObserved>(&volume.id)?.filter(|seen| seen.ready) else { continue };
        tracing::warn!(volume = %volume.id, host = %report.host, "a volume vanished from its host");
        tx.update(&VolumeObserved { ready: false, generation: 0, ..seen.doc })?;
        let since = volume.passing_since.or(Some(tx.now()));
        let mut doc = Volume { passing_since: since, ..volume.doc };
        doc.touch();
        tx.update(&doc)?;
    }
    Ok(())
}
