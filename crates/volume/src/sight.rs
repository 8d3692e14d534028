//! What is known of volumes beside their own documents: what hosts said, who holds them, what their types are called.

use crate::document::{Attachment, Leaving, Snapshot, TrashedSnapshot, Volume, VolumeObserved};
use crate::types::VolumeType;
use base::{Result, VolumeId};
use model::volume::{Facts, Stage, snapshot_status, status};
use std::collections::BTreeMap;
use store::{Query, Reader, Stored};

#[derive(Default)]
pub struct Sight {
    pub observed: BTreeMap<VolumeId, VolumeObserved>,
    pub attachments: BTreeMap<VolumeId, Vec<Stored<Attachment>>>,
    pub types: BTreeMap<String, String>,
    /// Volumes that the guests of deleted servers may still have open, and whether for longer than they may.
    pub leaving: BTreeMap<VolumeId, bool>,
}

impl Sight {
    /// Of one volume.
    pub fn of(reader: &mut Reader, volume: &Volume) -> Result<Sight> {
        let mut sight = Sight::default();
        sight.observed.extend(reader.get::<VolumeObserved>(&volume.id)?.map(|seen| (volume.id.clone(), seen.doc)));
        let attachments = reader.list::<Attachment>(Query::index("volume", volume.id.as_str()))?;
        sight.attachments.insert(volume.id.clone(), attachments);
        let kind = reader.get::<VolumeType>(&volume.volume_type)?;
        sight.types.extend(kind.map(|kind| (kind.doc.id, kind.doc.name)));
        sight.leaving.extend(reader.get::<Leaving>(&volume.id)?.map(|it| (it.doc.id, it.doc.overdue)));
        Ok(sight)
    }

    /// Of a project's volumes, or of all.
    pub fn of_all(reader: &mut Reader, query: &Query) -> Result<Sight> {
        let mut sight = Sight::default();
        let observed = reader.list::<VolumeObserved>(query.clone())?;
        sight.observed = observed.into_iter().map(|seen| (seen.doc.id.clone(), seen.doc)).collect();
        for attachment in reader.list::<Attachment>(query.clone())? {
            sight.attachments.entry(attachment.volume.clone()).or_default().push(attachment);
        }
        let leaving = reader.list::<Leaving>(query.clone())?;
        sight.leaving = leaving.into_iter().map(|it| (it.doc.id, it.doc.overdue)).collect();
        let types = reader.list::<VolumeType>(Query::all())?;
        sight.types = types.into_iter().map(|kind| (kind.doc.id, kind.doc.name)).collect();
        Ok(sight)
    }

    pub fn attachments(&self, volume: &VolumeId) -> &[Stored<Attachment>] {
        self.attachments.get(volume).map_or(&[], Vec::as_slice)
    }

    pub fn status(&self, volume: &Volume) -> String {
        let observed = self.observed.get(&volume.id);
        let attachments = self.attachments(&volume.id);
        let mut stages: Vec<Stage> = attachments.iter().map(|it| it.stage).collect();
        let leaving = self.leaving.get(&volume.id).copied();
        stages.extend(leaving.map(|_| Stage::Detaching));
        let facts = Facts {
            forced: volume.forced.as_deref(),
            verb: volume.verb,
            unplaceable: volume.unplaceable.is_some(),
            gave_up: observed.is_some_and(|seen| seen.gave_up && seen.generation >= volume.verb_generation),
            overdue: volume.is_overdue(),
            reached: reached(volume, observed),
            uploading: volume.uploading.is_some(),
            hold: volume.hold,
            offered: volume.transfer.is_some(),
            stages: &stages,
        };
        let late = leaving == Some(true) || attachments.iter().any(|it| it.overdue);
        match status(&facts) {
            "attaching" if late => "error_attaching",
            "detaching" if late => "error_detaching",
            status => status,
        }
        .to_owned()
    }
}

/// True once the volume is what the newest verb asked for.
pub fn reached(volume: &Volume, observed: Option<&VolumeObserved>) -> bool {
    let wanted = volume.size_gib << 30;
    observed.is_some_and(|seen| seen.ready && seen.generation >= volume.verb_generation && seen.size_bytes >= wanted)
}

/// The status of a volume, looked up.
pub fn status_of(reader: &mut Reader, volume: &Volume) -> Result<String> {
    Ok(Sight::of(reader, volume)?.status(volume))
}

/// The status of a snapshot by what is known of its volume.
pub fn snapshot<'a>(snapshot: &'a Snapshot, observed: Option<&VolumeObserved>) -> &'a str {
    let there = observed.is_some_and(|seen| seen.snapshots.contains(&snapshot.id));
    let gave_up = observed.is_some_and(|seen| seen.gave_up && seen.generation >= snapshot.generation);
    snapshot_status(snapshot.forced.as_deref(), there, gave_up, snapshot.overdue)
}

/// How many snapshots of a volume rest in the trash.
pub fn resting(reader: &mut Reader, volume: &VolumeId) -> Result<Vec<Stored<TrashedSnapshot>>> {
    Ok(reader.list::<TrashedSnapshot>(Query::index("volume", volume.as_str()))?)
}
