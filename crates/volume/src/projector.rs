//! Volumes as the hosts that keep them are told.

use crate::document::{
    Origin, Snapshot, SnapshotTombstone, TrashedVolume, Volume, VolumeObserved, VolumeTombstone,
};
use crate::{Volumes, sight};
use agent_api::{Desired, ImageSource, SnapshotSpec, ViewKind, ViewObject, VolumeSource, VolumeSpec};
use base::{HostName, Result, VolumeSnapshotId};
use contract::{Projector, Touched};
use std::collections::BTreeMap;
use store::{Change, Document, Query, Reader};

impl Projector for Volumes {
    fn whole(&self, reader: &mut Reader, host: &HostName) -> Result<Vec<ViewObject>> {
        let mut objects = Vec::new();
        for volume in reader.list::<Volume>(Query::index("host", host.as_str()))? {
            objects.push(ViewObject::Volume(spec(reader, &volume)?));
        }
        for trashed in reader.list::<TrashedVolume>(Query::index("host", host.as_str()))? {
            objects.push(ViewObject::Volume(spec(reader, &trashed.volume)?));
        }
        for tombstone in reader.list::<VolumeTombstone>(Query::index("host", host.as_str()))? {
            objects.push(ViewObject::Volume(absent(&tombstone)));
        }
        Ok(objects)
    }

    fn touched(&self, _: &mut Reader, change: &Change, touched: &mut Touched) -> Result<()> {
        match change.kind.as_ref() {
            Volume::KIND => match change.document::<Volume>()?.map(|volume| volume.doc.host) {
                Some(Some(host)) => touched.on(&host, ViewKind::Volume, &change.id),
                Some(None) => {}
                None => touched.anywhere(ViewKind::Volume, &change.id),
            },
            VolumeObserved::KIND | TrashedVolume::KIND | VolumeTombstone::KIND => {
                touched.anywhere(ViewKind::Volume, &change.id)
            }
            _ => {}
        }
        Ok(())
    }

    fn one(&self, reader: &mut Reader, host: &HostName, kind: ViewKind, id: &str) -> Result<Option<ViewObject>> {
        if kind != ViewKind::Volume {
            return Ok(None);
        }
        let volume = match reader.get::<Volume>(id)? {
            Some(volume) => Some(volume.doc),
            None => reader.get::<TrashedVolume>(id)?.map(|trashed| trashed.doc.volume),
        };
        if let Some(volume) = volume.filter(|volume| volume.host.as_ref() == Some(host)) {
            return Ok(Some(ViewObject::Volume(spec(reader, &volume)?)));
        }
        let tombstone = reader.get::<VolumeTombstone>(id)?.filter(|tombstone| tombstone.host == *host);
        Ok(tombstone.map(|tombstone| ViewObject::Volume(absent(&tombstone))))
    }

    fn everywhere(&self, reader: &mut Reader, kind: ViewKind, id: &str) -> Result<BTreeMap<HostName, ViewObject>> {
        let mut objects = BTreeMap::new();
        if kind != ViewKind::Volume {
            return Ok(objects);
        }
        let mut hosts: Vec<HostName> = Vec::new();
        hosts.extend(reader.get::<Volume>(id)?.and_then(|volume| volume.doc.host));
        hosts.extend(reader.get::<TrashedVolume>(id)?.and_then(|trashed| trashed.doc.volume.host));
        hosts.extend(reader.get::<VolumeTombstone>(id)?.map(|tombstone| tombstone.doc.host));
        for host in hosts {
            if let Some(object) = self.one(reader, &host, kind, id)? {
                objects.insert(host, object);
            }
        }
        Ok(objects)
    }
}

fn absent(tombstone: &VolumeTombstone) -> VolumeSpec {
    VolumeSpec {
        id: tombstone.id.clone(),
        generation: tombstone.generation,
        size_gib: tombstone.size_gib,
        desired: Desired::Absent,
        source: VolumeSource::Blank,
        snapshots: Vec::new(),
        flatten: false,
        made: true,
    }
}

/// A snapshot in the trash is there, too. One that only the host knows of is left alone: the store may be an older copy.
fn spec(reader: &mut Reader, volume: &Volume) -> Result<VolumeSpec> {
    let living = reader.list::<Snapshot>(Query::index("volume", volume.id.as_str()))?;
    let mut present: Vec<VolumeSnapshotId> = living.into_iter().map(|snapshot| snapshot.doc.id).collect();
    present.extend(sight::resting(reader, &volume.id)?.into_iter().map(|resting| resting.doc.snapshot.id));
    let made = reader.get::<VolumeObserved>(&volume.id)?.is_some_and(|seen| seen.doc.made);
    let gone = reader.list::<SnapshotTombstone>(Query::index("volume", volume.id.as_str()))?;
    let snapshots = present.iter().map(|id| (id, Desired::Present));
    let snapshots = snapshots.chain(gone.iter().map(|gone| (&gone.doc.id, Desired::Absent)));
    Ok(VolumeSpec {
        id: volume.id.clone(),
        generation: volume.generation,
        size_gib: volume.size_gib,
        desired: Desired::Present,
        source: match volume.origin.clone() {
            Origin::Blank => VolumeSource::Blank,
            Origin::Image { image, format, sha512, image_bytes } => {
                VolumeSource::Image(ImageSource { image, format, sha512, image_bytes })
            }
            Origin::Snapshot { volume, snapshot } => VolumeSource::Snapshot { volume, snapshot },
            Origin::Volume { volume } => VolumeSource::Volume { volume },
        },
        snapshots: snapshots.map(|(id, desired)| SnapshotSpec { id: id.clone(), desired }).collect(),
        flatten: volume.flatten,
        made,
    })
}
