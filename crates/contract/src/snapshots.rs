//! Making an image of a server's disk: what compute asks of the image service and of hosts.

use agent_api::BoxStream;
use base::{HostName, ImageId, ProjectId, Result, ServerId};
use std::collections::BTreeMap;
use std::sync::Arc;
use store::Tx;

/// An image whose bytes a job will bring.
#[derive(Clone, Debug)]
pub struct NewSnapshot {
    pub id: ImageId,
    pub project: ProjectId,
    pub name: String,
    pub server: ServerId,
    pub min_disk_gib: u64,
    pub min_ram_mib: u64,
    pub properties: BTreeMap<String, String>,
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

/// A server's disk as a qcow2 file without a backing file, as it was at one moment.
pub struct Disk {
    pub size_bytes: u64,
    pub bytes: BoxStream,
}

/// Asks a host for a server's disk. Filled in by `control`.
#[async_trait::async_trait]
pub trait Disks: Send + Sync + 'static {
    /// Waits until the host has made a copy; the guest goes on meanwhile.
    async fn disk(&self, host: &HostName, server: &ServerId) -> Result<Disk>;
}
