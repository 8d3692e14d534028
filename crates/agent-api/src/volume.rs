//! Volumes: disks of their own, which a host keeps and gives to guests.
//!
//! Control says what shall be (the volume, its size, its snapshots), the host says what is. How a back-end keeps a
//! volume (files, logical volumes, a cluster) shows nowhere here.

use crate::{AgentFault, DiskFormat, RootDisk};
use base::{AttachmentId, ImageId, VolumeId, VolumeSnapshotId};
use serde::{Deserialize, Serialize};

/// A volume as it shall be. `generation` rises with every change of it; an agent refuses a lower one than it has seen.
/// It stays in its host's view as [`Desired::Absent`] until the host has reported it [`VolumeState::Absent`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct VolumeSpec {
    pub id: VolumeId,
    pub generation: u64,
    /// Rises or stays, never falls. At least as large as what the volume was made from.
    pub size_gib: u64,
    pub desired: Desired,
    /// What its first content is. Looked at once, when it is made.
    #[serde(default)]
    pub source: VolumeSource,
    #[serde(default)]
    pub snapshots: Vec<SnapshotSpec>,
    /// Shall depend on no image and on no other volume any more: a copy-on-write parent is copied into it.
    #[serde(default)]
    pub flatten: bool,
    /// Its host has had it. Where it is missing it was lost, and is not made again.
    #[serde(default)]
    pub made: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Desired {
    #[default]
    Present,
    Absent,
}

/// What a volume begins with. A source on the same host is shared, copy-on-write; it may go before the volume does.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(tag = "from", rename_all = "snake_case")]
pub enum VolumeSource {
    /// Zeros.
    #[default]
    Blank,
    Image(ImageSource),
    Snapshot {
        volume: VolumeId,
        snapshot: VolumeSnapshotId,
    },
    /// As it is at the moment at which the host gets there; crash-consistent where a guest writes into it.
    Volume {
        volume: VolumeId,
    },
}

/// An image by its content.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ImageSource {
    pub image: ImageId,
    pub format: DiskFormat,
    /// SHA-512 of the image's bytes, hex: the content address under which a host keeps it.
    pub sha512: String,
    /// Bytes of the image file.
    pub image_bytes: u64,
}

impl From<&RootDisk> for ImageSource {
    fn from(root: &RootDisk) -> ImageSource {
        let RootDisk { image, format, sha512, image_bytes, .. } = root.clone();
        ImageSource { image, format, sha512, image_bytes }
    }
}

/// A snapshot as it shall be. One that the spec no longer names is left as it is: it goes by [`Desired::Absent`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SnapshotSpec {
    pub id: VolumeSnapshotId,
    #[serde(default)]
    pub desired: Desired,
}

/// A volume as it is. Reported when it changes, and for every volume at the start of a session.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct VolumeObserved {
    pub id: VolumeId,
    /// The generation of the spec that this observation has reached; 0 when the ledger knows none.
    pub generation: u64,
    pub state: VolumeState,
    /// Of the disk that a guest sees.
    pub size_bytes: u64,
    /// What it takes of the host's room: all its layers, snapshots included, what it shares counted with the first.
    pub used_bytes: u64,
    #[serde(default)]
    pub snapshots: Vec<SnapshotObserved>,
    /// The volumes with which it shares content, copy-on-write, and which are still there.
    #[serde(default)]
    pub depends_on: Vec<VolumeId>,
    /// It stands on an image, or on what was another volume's, copy-on-write.
    #[serde(default)]
    pub shares: bool,
    /// The host could not do what the spec asks.
    #[serde(default)]
    pub fault: Option<AgentFault>,
    /// How often it has tried in vain; said anew at each doubling only.
    #[serde(default)]
    pub attempts: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum VolumeState {
    Absent,
    /// There is a disk, though perhaps not yet of the newest generation.
    Ready,
    /// On its way; never a resting state.
    Building,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SnapshotObserved {
    pub id: VolumeSnapshotId,
    /// The volume's size when the snapshot was made.
    pub size_bytes: u64,
}

/// A volume in a guest. Its serial number there is the volume's id, cut to 20 characters for virtio.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GuestVolume {
    pub attachment: AttachmentId,
    pub volume: VolumeId,
    /// `vda` to `vdo`: which slot it sits in, and so in which order a guest that boots finds it.
    pub device: String,
    /// 0: the guest boots from it.
    #[serde(default)]
    pub boot_index: Option<u32>,
    #[serde(default)]
    pub bus: DiskBus,
    /// Shown in the guest's metadata.
    #[serde(default)]
    pub tag: Option<String>,
    #[serde(default)]
    pub read_only: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DiskBus {
    #[default]
    Virtio,
    Scsi,
}

impl DiskBus {
    pub fn name(self) -> &'static str {
        match self {
            DiskBus::Virtio => "virtio",
            DiskBus::Scsi => "scsi",
        }
    }
}

/// A volume in a guest as it is. One that is missing is not in it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GuestVolumeObserved {
    pub volume: VolumeId,
    pub attachment: AttachmentId,
    pub state: AttachmentState,
    #[serde(default)]
    pub fault: Option<AgentFault>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AttachmentState {
    /// QEMU has it, or will have it at the next start of a guest that is off.
    Attached,
    Attaching,
    /// The guest has been asked to let go of it.
    Detaching,
}

/// Where a host keeps volumes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct VolumePool {
    pub total_gib: u64,
    pub free_gib: u64,
    /// `file`.
    pub backend: String,
}
