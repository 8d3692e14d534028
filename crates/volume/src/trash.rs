//! Deleted volumes and snapshots: what stays on a host until the trash is emptied, and how it goes.

use crate::document::{
    Attachment, By, Leaving, Snapshot, SnapshotTombstone, TrashedSnapshot, TrashedVolume, Volume, VolumeObserved,
    VolumeTombstone,
};
use crate::place::{ROOM, scope};
use crate::{Volumes, quota};
use base::{Fault, Result, VolumeId, VolumeSnapshotId};
use store::{Held, Query, Reader, Stored, Tx};

/// Takes a volume out of the cloud with its snapshots, and leaves its bytes on its host while the trash keeps it.
pub fn lay(tx: &mut Tx, volume: Stored<Volume>) -> Result<()> {
    for snapshot in tx.list::<Snapshot>(Query::index("volume", volume.id.as_str()))? {
        lay_snapshot(tx, snapshot, false)?;
    }
    let (id, mut doc) = (volume.id.clone(), volume.doc);
    quota::release_volume(tx, &doc)?;
    if tx.get::<Leaving>(&id)?.is_some() {
        tx.delete::<Leaving>(&id)?;
    }
    tx.delete::<Volume>(&id)?;
    if doc.host.is_none() {
        return Ok(());
    }
    doc.touch();
    let trashed = TrashedVolume { volume: doc, deleted: tx.now() };
    if tx.has_trash() {
        tx.create(&trashed)?;
        return Ok(());
    }
    send_away(tx, &trashed)
}

/// `alone`: its volume stays, and is told.
pub fn lay_snapshot(tx: &mut Tx, snapshot: Stored<Snapshot>, alone: bool) -> Result<()> {
    quota::release_snapshot(tx, &snapshot)?;
    let volume = snapshot.volume.clone();
    tx.delete::<Snapshot>(&snapshot.id)?;
    if tx.has_trash() {
        tx.create(&TrashedSnapshot { snapshot: snapshot.doc, deleted: tx.now() })?;
    } else if alone {
        forget(tx, &volume, &snapshot.doc.id)?;
    }
    Ok(())
}

/// The host of its volume is asked to forget a snapshot.
fn forget(tx: &mut Tx, volume: &VolumeId, snapshot: &VolumeSnapshotId) -> Result<()> {
    let Some(mut doc) = tx.get::<Volume>(volume)?.map(|volume| volume.doc) else { return Ok(()) };
    doc.touch();
    if doc.host.is_some() {
        let (id, volume, generation) = (snapshot.clone(), doc.id.clone(), doc.generation);
        tx.put(&SnapshotTombstone { id, volume, generation })?;
    }
    tx.update(&doc)?;
    Ok(())
}

/// The host is asked to remove what rests there.
pub fn send_away(tx: &mut Tx, trashed: &TrashedVolume) -> Result<()> {
    let volume = &trashed.volume;
    for resting in tx.list::<TrashedSnapshot>(Query::index("volume", volume.id.as_str()))? {
        tx.delete::<TrashedSnapshot>(&resting.doc.snapshot.id)?;
    }
    for tombstone in tx.list::<SnapshotTombstone>(Query::index("volume", volume.id.as_str()))? {
        tx.delete::<SnapshotTombstone>(&tombstone.doc.id)?;
    }
    if tx.get::<VolumeObserved>(&volume.id)?.is_some() {
        tx.delete::<VolumeObserved>(&volume.id)?;
    }
    let Some(host) = volume.host.clone() else { return Ok(()) };
    let (id, generation, size_gib) = (volume.id.clone(), volume.generation + 1, volume.size_gib);
    tx.put(&VolumeTombstone { id, host, generation, size_gib })?;
    Ok(())
}

/// The volume has gone from its host, and gives back what it had reserved.
pub fn bury(tx: &mut Tx, tombstone: &VolumeTombstone) -> Result<()> {
    if tombstone.size_gib > 0 {
        tx.charge(&scope(&tombstone.host), ROOM, -(tombstone.size_gib as i64), None)?;
    }
    tx.delete::<VolumeTombstone>(&tombstone.id)?;
    Ok(())
}

/// What rests on hosts though nothing in the trash stands for it any more: `volume/ID`, `snapshot/ID`.
pub fn orphans(reader: &mut Reader) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for trashed in reader.list::<TrashedVolume>(Query::all())? {
        if reader.in_trash::<Volume>(&trashed.volume.id)?.is_none() {
            found.push(format!("volume/{}", trashed.volume.id));
        }
    }
    for trashed in reader.list::<TrashedSnapshot>(Query::all())? {
        if reader.in_trash::<Snapshot>(&trashed.snapshot.id)?.is_none() {
            found.push(format!("snapshot/{}", trashed.snapshot.id));
        }
    }
    Ok(found)
}

pub fn purge_volume(tx: &mut Tx, id: &str) -> Result<()> {
    let Some(trashed) = tx.get::<TrashedVolume>(id)? else { return Ok(()) };
    if tx.in_trash::<Volume>(id)?.is_some() {
        return Ok(());
    }
    tx.delete::<TrashedVolume>(id)?;
    send_away(tx, &trashed)
}

pub fn purge_snapshot(tx: &mut Tx, id: &str) -> Result<()> {
    let Some(trashed) = tx.get::<TrashedSnapshot>(id)? else { return Ok(()) };
    let volume = trashed.snapshot.volume.clone();
    if tx.in_trash::<Snapshot>(id)?.is_some() || tx.get::<TrashedVolume>(&volume)?.is_some() {
        // It goes with its volume.
        return Ok(());
    }
    tx.delete::<TrashedSnapshot>(id)?;
    forget(tx, &volume, &trashed.snapshot.id)
}

/// Why a volume must not go now.
pub fn holders(reader: &mut Reader, id: &VolumeId) -> Result<Option<Held>> {
    if let Some(attachment) = reader.list::<Attachment>(Query::index("volume", id.as_str()).limit(1))?.pop() {
        return Ok(Some(("it is attached".to_owned(), Some(("volume_attachment".to_owned(), attachment.id.to_string())))));
    }
    let snapshot = reader.list::<Snapshot>(Query::index("volume", id.as_str()).limit(1))?.pop();
    Ok(snapshot.map(|it| ("it has a snapshot".to_owned(), Some(("volume_snapshot".to_owned(), it.id.to_string())))))
}

impl Volumes {
    /// Why an undo must not take back that something was made, but for what the same request touched.
    ///
    /// # Errors
    /// What the store says.
    pub fn held_from_undo(
        &self,
        reader: &mut Reader,
        kind: &str,
        id: &str,
        same: &dyn Fn(&str, &str) -> bool,
    ) -> Result<Option<Held>> {
        if kind != "volume" {
            return Ok(None);
        }
        let Some(volume) = reader.get::<Volume>(id)? else { return Ok(None) };
        if let Some(transfer) = volume.transfer.as_deref().filter(|transfer| !same("volume_transfer", transfer)) {
            return Ok(Some(("it is offered to another project".to_owned(), Some(("volume_transfer".into(), transfer.into())))));
        }
        for attachment in reader.list::<Attachment>(Query::index("volume", id))? {
            if !same("volume_attachment", &attachment.id) {
                return Ok(Some(("it is attached".to_owned(), Some(("volume_attachment".into(), attachment.id.to_string())))));
            }
        }
        for snapshot in reader.list::<Snapshot>(Query::index("volume", id))? {
            if !same("volume_snapshot", &snapshot.id) {
                return Ok(Some(("it has a snapshot".to_owned(), Some(("volume_snapshot".into(), snapshot.id.to_string())))));
            }
        }
        Ok(None)
    }

    /// Removes what an undo takes back, as its own call does.
    ///
    /// # Errors
    /// Conflict where it is in use, or what the store says.
    pub fn remove_by_undo(&self, tx: &mut Tx, kind: &str, id: &str) -> Result<()> {
        match kind {
            "volume" => match tx.get::<Volume>(id)? {
                Some(volume) => match holders(tx, &volume.id)? {
                    Some((why, _)) if why == "it is attached" => {
                        Err(Fault::conflict(format!("Volume {id} cannot be removed: {why}.")))
                    }
                    _ => lay(tx, volume),
                },
                None => Ok(()),
            },
            "volume_snapshot" => match tx.get::<Snapshot>(id)? {
                Some(snapshot) => lay_snapshot(tx, snapshot, true),
                None => Ok(()),
            },
            "volume_attachment" => match tx.get::<Attachment>(id)? {
                Some(attachment) if attachment.by == By::Server => Err(Fault::conflict(format!(
                    "Volume {} is attached to a server: detach it there.",
                    attachment.volume
                ))),
                Some(attachment) => Ok(tx.delete::<Attachment>(&attachment.id).map(drop)?),
                None => Ok(()),
            },
            _ => Ok(()),
        }
    }

    /// True where removing a document of this kind is ours.
    pub fn removes(&self, kind: &str) -> bool {
        ["volume", "volume_snapshot", "volume_attachment"].contains(&kind)
    }

    /// What an undo may charge of a row of the ledger that has no limit of its own; none: not ours.
    ///
    /// # Errors
    /// What the store says.
    pub fn undo_limit(&self, reader: &mut Reader, scope: &str, resource: &str) -> Result<Option<Option<i64>>> {
        if let Some(host) = scope.strip_prefix("host:").filter(|_| resource == ROOM) {
            let pool = reader.get::<crate::Pool>(host)?;
            return Ok(Some(Some(pool.map_or(0, |pool| crate::place::capacity(self, &pool)))));
        }
        match scope.starts_with("project:") && quota::is_ours(resource) {
            true => Ok(Some(quota::default_limit(reader, resource).map(|limit| Some(limit).filter(|limit| *limit >= 0))?)),
            false => Ok(None),
        }
    }
}
