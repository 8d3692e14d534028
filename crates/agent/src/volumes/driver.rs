//! What a back-end of volumes can do, in the words of the API and not of files.
//!
//! A back-end keeps contents and nothing else: what control wants is in the ledger above it. Each method may be cut off
//! at any await, by the end of the process too, and called again with the same arguments; it then goes on from what it
//! finds. A caller never has two of them under way for one volume, save for reading.

use agent_api::{AgentFault, DiskFormat, VolumePool};
use async_trait::async_trait;
use base::{VolumeId, VolumeSnapshotId};
use qemu::{DiskSource, Monitor};
use std::fs::File;
use std::sync::Arc;
use tokio::sync::watch;

pub type Result<T, E = AgentFault> = std::result::Result<T, E>;

/// What a volume begins with.
pub enum Content {
    /// Zeros.
    Blank,
    /// An image that has been inspected and is never written.
    Image { file: File, format: DiskFormat, name: String },
    /// A snapshot that this back-end keeps.
    Snapshot { volume: VolumeId, snapshot: VolumeSnapshotId },
}

/// Who has a volume open.
#[derive(Clone)]
pub enum Holder {
    /// Nobody: a back-end that must open what a guest has written does so in the sandbox.
    Nobody,
    /// A guest: what must be done to an open disk is asked of its QEMU.
    Guest(Arc<Monitor>),
}

/// A volume as it lies there.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Look {
    pub size_bytes: u64,
    /// All that it takes, snapshots included; what it shares counts with the first.
    pub used_bytes: u64,
    pub snapshots: Vec<(VolumeSnapshotId, u64)>,
    pub depends_on: Vec<VolumeId>,
    /// It stands on an image or on another volume, and [`Driver::tidy`] with `flatten` would change that.
    pub shares: bool,
    /// [`Driver::tidy`] would give room back.
    pub untidy: bool,
}

/// A guest asks for the volume: work that takes long ends early, and is done again later.
pub type Wanted = watch::Receiver<u32>;

#[async_trait]
pub trait Driver: Send + Sync + 'static {
    fn pool(&self) -> Result<VolumePool>;

    /// The volumes of which anything lies there, also those that nobody wants.
    async fn list(&self) -> Result<Vec<VolumeId>>;

    /// None: there is no such volume, or not wholly yet.
    async fn look(&self, id: &VolumeId) -> Result<Option<Look>>;

    /// Makes a volume of at least this size. What cannot be (an image that is larger) is refused for good. Afterwards
    /// neither the image nor the snapshot is needed by name.
    async fn create(&self, id: &VolumeId, size_bytes: u64, content: Content) -> Result<()>;

    /// Makes it larger, never smaller; a guest sees the new size.
    async fn extend(&self, id: &VolumeId, size_bytes: u64, holder: &Holder) -> Result<()>;

    /// Keeps it as it is at one moment.
    async fn snapshot(&self, id: &VolumeId, snapshot: &VolumeSnapshotId, holder: &Holder) -> Result<()>;

    /// Forgets a snapshot. What was made from it is not harmed.
    async fn delete_snapshot(&self, id: &VolumeId, snapshot: &VolumeSnapshotId) -> Result<()>;

    /// Gives back the room that forgotten snapshots hold; with `flatten` makes it stand on nothing but itself, as far
    /// as its own snapshots do. False: ended early, since somebody wants the volume.
    async fn tidy(&self, id: &VolumeId, flatten: bool, holder: &Holder, wanted: Wanted) -> Result<bool>;

    /// Removes the volume with its snapshots. What was made from them is not harmed.
    async fn delete(&self, id: &VolumeId) -> Result<()>;

    /// A file of this format that holds all of the volume as it is at one moment, whoever goes on with it; the file has
    /// no name and goes with its last descriptor. None: ended early, since somebody wants the volume.
    async fn copy(&self, id: &VolumeId, format: DiskFormat, holder: &Holder, wanted: Wanted) -> Result<Option<File>>;

    /// The disk for QEMU: open descriptors, and names of nodes that begin with [`nodes`].
    async fn open(&self, id: &VolumeId, read_only: bool) -> Result<DiskSource>;
}

/// What the names of a volume's nodes begin with: QEMU allows 31 characters, an id has 36. The first 22 of its 32
/// digits tell the volumes of one guest apart.
pub fn nodes(id: &VolumeId) -> String {
    let digits: String = id.chars().filter(|it| *it != '-').take(22).collect();
    format!("v{digits}-")
}
