//! One volume of the ledger: its newest spec, and what there is of it.

use agent_api::{Desired, SnapshotObserved, VolumeObserved, VolumeSource, VolumeSpec, VolumeState};
use base::{VolumeId, VolumeSnapshotId};
use std::collections::BTreeMap;

#[derive(Clone, Debug)]
pub struct Volume {
    pub spec: VolumeSpec,
    /// The generation that is reached; 0: nothing of it is there yet.
    reached: u64,
    size_gib: u64,
    /// With the size that the volume had.
    snapshots: BTreeMap<VolumeSnapshotId, u64>,
    parent: Option<VolumeId>,
    shares: bool,
    gone: bool,
}

impl Volume {
    pub fn new(spec: VolumeSpec) -> Volume {
        Volume { spec, reached: 0, size_gib: 0, snapshots: BTreeMap::new(), parent: None, shares: false, gone: false }
    }

    pub fn has_work(&self) -> bool {
        self.reached < self.spec.generation
    }

    pub fn is_gone(&self) -> bool {
        self.gone
    }

    /// Reaches the spec.
    pub fn reach(&mut self) {
        if self.spec.desired == Desired::Absent {
            (self.gone, self.size_gib) = (true, 0);
            self.snapshots.clear();
            (self.parent, self.shares) = (None, false);
        } else {
            if self.reached == 0 || self.gone {
                self.shares = self.spec.source != VolumeSource::Blank;
                self.parent = match &self.spec.source {
                    VolumeSource::Snapshot { volume, .. } | VolumeSource::Volume { volume } => Some(volume.clone()),
                    VolumeSource::Blank | VolumeSource::Image(_) => None,
                };
            }
            if self.spec.flatten {
                (self.parent, self.shares) = (None, false);
            }
            self.gone = false;
            let before = if self.size_gib == 0 { self.spec.size_gib } else { self.size_gib };
            for snapshot in &self.spec.snapshots {
                match snapshot.desired {
                    Desired::Present => drop(self.snapshots.entry(snapshot.id.clone()).or_insert(before)),
                    Desired::Absent => drop(self.snapshots.remove(&snapshot.id)),
                }
            }
            // A volume never shrinks.
            self.size_gib = self.size_gib.max(self.spec.size_gib);
        }
        self.reached = self.spec.generation;
    }

    /// The size of what there is of it.
    pub fn size_gib(&self) -> Option<u64> {
        (self.reached > 0 && !self.gone).then_some(self.size_gib)
    }

    /// `there`: whether another volume is still on this host.
    pub fn observed(&self, there: impl Fn(&VolumeId) -> bool) -> VolumeObserved {
        let state = match (self.gone, self.reached) {
            (true, _) => VolumeState::Absent,
            (false, 0) => VolumeState::Building,
            (false, _) => VolumeState::Ready,
        };
        let snapshots = self.snapshots.iter();
        VolumeObserved {
            id: self.spec.id.clone(),
            generation: self.reached,
            state,
            size_bytes: self.size_gib << 30,
            used_bytes: 0,
            snapshots: snapshots.map(|(id, gib)| SnapshotObserved { id: id.clone(), size_bytes: gib << 30 }).collect(),
            depends_on: self.parent.iter().filter(|parent| there(parent)).cloned().collect(),
            shares: self.shares,
            fault: None,
            attempts: 0,
        }
    }
}
