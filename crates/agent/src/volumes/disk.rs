//! The layers of a volume in files, and what may be done to them: decisions without files.
//!
//! ```text
//!   4.qcow2   the active layer, the only one that is written
//!   3.qcow2   ◄── snapshot B
//!   2.qcow2   ◄── snapshot A
//!   1.raw     an image, or a layer of another volume (the same file under a second name)
//! ```
//!
//! A layer below the active one is never written again: whoever stands on it may have it open, on this volume or on
//! another one. So a layer that no snapshot names any more is not written into what lies below it: what it holds is
//! copied up into the active layer, and then it goes.

use agent_api::DiskFormat;
use base::{VolumeId, VolumeSnapshotId};
use serde::{Deserialize, Serialize};

/// What is known of a volume's files; one file beside them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Disk {
    pub version: u32,
    pub size_bytes: u64,
    /// The number of the next layer: none is used twice.
    pub next: u32,
    /// From the bottom to the active one.
    pub layers: Vec<Layer>,
    #[serde(default)]
    pub snapshots: Vec<Snapshot>,
    /// A snapshot on its way: the layer lies there, empty, and QEMU may stand on it already.
    #[serde(default)]
    pub pending: Option<Pending>,
    /// A growth on its way: QEMU may have done it already.
    #[serde(default)]
    pub growing: Option<u64>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Layer {
    pub number: u32,
    pub format: DiskFormat,
    #[serde(default)]
    pub of: Origin,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Origin {
    #[default]
    Own,
    Image,
    Volume(VolumeId),
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Snapshot {
    pub id: VolumeSnapshotId,
    /// The topmost layer of it.
    pub layer: u32,
    pub size_bytes: u64,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Pending {
    pub snapshot: VolumeSnapshotId,
    pub layer: u32,
}

/// Layers to copy into the active one.
#[derive(Clone, Debug, PartialEq)]
pub struct Merge {
    /// What stays below; none: nothing.
    pub base: Option<u32>,
    pub gone: Vec<u32>,
}

/// A chain of this length is shortened although that gives no room back.
const LONG: usize = 16;

impl Disk {
    pub fn new(size_bytes: u64, mut layers: Vec<Layer>) -> Disk {
        // What stands below keeps its numbers: they are the names in the headers.
        let number = layers.last().map_or(0, |layer| layer.number) + 1;
        layers.push(Layer { number, format: DiskFormat::Qcow2, of: Origin::Own });
        Disk { version: 1, size_bytes, next: number + 1, layers, snapshots: Vec::new(), pending: None, growing: None }
    }

    pub fn active(&self) -> u32 {
        self.layers.last().map_or(0, |layer| layer.number)
    }

    /// The layers of a snapshot, from the bottom.
    pub fn below(&self, snapshot: &VolumeSnapshotId) -> Option<(Vec<Layer>, u64)> {
        let found = self.snapshots.iter().find(|it| it.id == *snapshot)?;
        let end = self.layers.iter().position(|layer| layer.number == found.layer)?;
        Some((self.layers[..=end].to_vec(), found.size_bytes))
    }

    pub fn has(&self, snapshot: &VolumeSnapshotId) -> bool {
        self.snapshots.iter().any(|it| it.id == *snapshot)
    }

    /// Writes down the layer that is to come on top.
    pub fn announce(&mut self, snapshot: &VolumeSnapshotId, layer: u32) {
        self.next = layer + 1;
        self.pending = Some(Pending { snapshot: snapshot.clone(), layer });
    }

    /// The announced layer is the active one.
    pub fn seal(&mut self) {
        let Some(pending) = self.pending.take() else { return };
        let sealed = Snapshot { id: pending.snapshot, layer: self.active(), size_bytes: self.size_bytes };
        self.snapshots.push(sealed);
        self.layers.push(Layer { number: pending.layer, format: DiskFormat::Qcow2, of: Origin::Own });
    }

    /// What may be copied into the active layer. `shared` says of a layer of our own that others have it, too: then its
    /// end gives no room back.
    pub fn merge(&self, flatten: bool, shared: impl Fn(u32) -> bool) -> Option<Merge> {
        let needed = |number: u32| self.snapshots.iter().any(|it| it.layer == number);
        let long = self.layers.len() > LONG;
        let mut below: Vec<&Layer> = self.layers.iter().rev().skip(1).collect();
        let free = below.iter().take_while(|layer| {
            let own = layer.of == Origin::Own;
            !needed(layer.number) && (flatten || (own && (long || !shared(layer.number))))
        });
        let gone: Vec<u32> = free.map(|layer| layer.number).collect();
        if gone.is_empty() {
            return None;
        }
        let base = below.drain(..).nth(gone.len()).map(|layer| layer.number);
        Some(Merge { base, gone })
    }

    pub fn merged(&mut self, merge: &Merge) {
        self.layers.retain(|layer| !merge.gone.contains(&layer.number));
    }

    /// Stands on what is not its own.
    pub fn shares(&self) -> bool {
        self.layers.iter().any(|layer| layer.of != Origin::Own)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An image, snapshots of the given layers, and the active layer on top.
    fn disk(own: u32, snapshots: &[u32]) -> Disk {
        let image = Layer { number: 1, format: DiskFormat::Raw, of: Origin::Image };
        let mut disk = Disk::new(1 << 30, vec![image]);
        for _ in 1..own {
            disk.announce(&"any".into(), disk.next);
            disk.seal();
        }
        disk.snapshots.clear();
        for layer in snapshots {
            disk.snapshots.push(Snapshot { id: format!("s{layer}").into(), layer: *layer, size_bytes: 1 });
        }
        disk
    }

    #[test]
    fn only_what_no_snapshot_needs_is_copied_up() {
        let check = |disk: Disk, flatten: bool, expected: Option<(Option<u32>, &[u32])>| {
            let merge = disk.merge(flatten, |_| false);
            assert_eq!(merge, expected.map(|(base, gone)| Merge { base, gone: gone.to_vec() }), "{disk:?}");
        };
        check(disk(1, &[]), false, None);
        check(disk(1, &[]), true, Some((None, &[1])));
        check(disk(3, &[]), false, Some((Some(1), &[3, 2])));
        check(disk(3, &[]), true, Some((None, &[3, 2, 1])));
        check(disk(3, &[3]), false, None);
        // What lies below a snapshot waits for its end.
        check(disk(3, &[3]), true, None);
        check(disk(4, &[2]), false, Some((Some(2), &[4, 3])));
        check(disk(4, &[2]), true, Some((Some(2), &[4, 3])));
        // Others have layer 3, too.
        assert_eq!(disk(3, &[]).merge(false, |number| number == 3), None);
        assert!(disk(20, &[]).merge(false, |_| true).is_some());
    }

    #[test]
    fn a_snapshot_on_its_way_becomes_one() {
        let mut disk = disk(1, &[]);
        disk.announce(&"a".into(), 3);
        assert!(!disk.has(&"a".into()));
        disk.seal();
        disk.seal();
        assert_eq!((disk.active(), disk.next), (3, 4));
        let (layers, size) = disk.below(&"a".into()).unwrap();
        assert_eq!((layers.len(), size), (2, 1 << 30));
        assert!(disk.below(&"b".into()).is_none());
    }
}
