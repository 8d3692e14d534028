//! Making an image of a server's disk or of a volume: what is asked of the image service and of hosts.

use agent_api::{BoxStream, DiskFormat};
use base::{Fault, HostName, ImageId, ProjectId, Result, ServerId, VolumeId};
use std::collections::BTreeMap;
use std::sync::Arc;
use store::Tx;

/// An image whose bytes a job will bring.
#[derive(Clone, Debug)]
pub struct NewSnapshot {
    pub id: ImageId,
    pub project: ProjectId,
    pub name: String,
    /// Whose disk it is: the id of a server, or of a volume.
    pub of: String,
    pub shape: Shape,
    pub min_disk_gib: u64,
    pub min_ram_mib: u64,
    pub properties: BTreeMap<String, String>,
}

/// What an image says that it is, and who sees it.
#[derive(Clone, Debug)]
pub struct Shape {
    pub disk_format: String,
    pub container_format: String,
    pub visibility: String,
    pub protected: bool,
}

impl Default for Shape {
    /// An image of a server.
    fn default() -> Shape {
        Shape {
            disk_format: "qcow2".into(),
            container_format: "bare".into(),
            visibility: "private".into(),
            protected: false,
        }
    }
}

/// Runs inside a transaction of another service, and may refuse it.
pub type InTx = Arc<dyn Fn(&mut Tx) -> Result<()> + Send + Sync>;

/// Takes in the bytes of an image that [`crate::Images::reserve`] has made. Filled in by the image service.
#[async_trait::async_trait]
pub trait Intake: Send + Sync + 'static {
    /// As an upload: written, hashed, inspected, charged. `begun` runs in the commit that announces the bytes, `done`
    /// in the one that makes the image active; a fault of either ends it, and the image is `queued` again.
    async fn take_in(&self, image: &ImageId, size_bytes: u64, bytes: BoxStream, begun: InTx, done: InTx) -> Result<()>;
}

/// So often a host may say no before its copy is given up. One that does not answer is waited for until the deadline.
const REFUSALS: u32 = 8;

/// Whether bytes that a job wanted to bring will not come in. Gone: the image was deleted and brought back, and waits
/// for a client's bytes since.
#[must_use]
pub fn is_in_vain(fault: &Fault, attempts: u32) -> bool {
    use base::FaultKind::{Conflict, Gone, Quota, TooLarge, UnsupportedMedia};
    matches!(fault.kind, Gone | Quota | TooLarge | UnsupportedMedia) || (fault.kind == Conflict && attempts >= REFUSALS)
}

/// A disk as a file without a backing file, as it was at one moment.
pub struct Disk {
    pub size_bytes: u64,
    pub bytes: BoxStream,
}

/// Asks a host for the disk of a server (qcow2), or a volume. Filled in by `control`.
#[async_trait::async_trait]
pub trait Disks: Send + Sync + 'static {
    /// Waits until the host has made a copy; the guest goes on meanwhile.
    async fn disk(&self, host: &HostName, server: &ServerId) -> Result<Disk>;
    /// The same of a volume, whether a guest has it or not.
    async fn volume(&self, host: &HostName, volume: &VolumeId, format: DiskFormat) -> Result<Disk>;
}
