//! The two sides of a session.

use crate::{HostInventory, MemorySharing, Order, PollAnswer, PollRequest, Report, ViewDelta};
use async_trait::async_trait;
use base::{HostName, ImageId};
use std::pin::Pin;
use tokio::io::{AsyncRead, AsyncWrite};

/// A byte stream in both directions: a console.
pub trait Stream: AsyncRead + AsyncWrite + Send {}
impl<T: AsyncRead + AsyncWrite + Send> Stream for T {}
pub type BoxStream = Pin<Box<dyn Stream>>;

/// A link that did not carry. The caller tries again with backoff.
#[derive(Debug, Clone)]
pub struct LinkError(pub String);

impl std::fmt::Display for LinkError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}
impl std::error::Error for LinkError {}

/// The host's side: real in crate `agent`, simulated in crate `simhost`.
#[async_trait]
pub trait HostAgent: Send + Sync + 'static {
    fn inventory(&self) -> HostInventory;

    /// What its guests share of their memory now; none: its kernel shares nothing.
    fn memory_sharing(&self) -> Option<MemorySharing> {
        None
    }

    /// Takes over a step of the view: written to the ledger when this returns, realised afterwards. Repeatable.
    async fn apply(&self, delta: ViewDelta) -> Result<(), String>;

    /// Waits until something is to be reported, and says it. Called with `whole` at the start of a session; what was
    /// handed out in a report that failed to arrive is said again, since the caller then asks with `whole`.
    async fn observe(&self, whole: bool) -> Report;

    /// The last `bytes` bytes of a console log.
    async fn console_log(&self, server: &base::ServerId, bytes: u64) -> Result<Vec<u8>, String>;

    /// Opens a console: VNC, or serial where `serial` is set.
    async fn console(&self, server: &base::ServerId, serial: bool) -> Result<BoxStream, String>;

    /// Makes a copy of a guest's root disk, a qcow2 file without a backing file, and streams it as [`crate::send_disk`]
    /// says. Returns at once; the guest goes on meanwhile.
    async fn disk(&self, server: &base::ServerId) -> Result<BoxStream, String> {
        Err(format!("The host of server {server} cannot copy disks."))
    }

    /// The same of a volume, whoever has it: a file of this format that stands alone.
    async fn volume(&self, volume: &base::VolumeId, _format: crate::DiskFormat) -> Result<BoxStream, String> {
        Err(format!("The host of volume {volume} cannot copy volumes."))
    }
}

/// Control's side as a host sees it: HTTP/2 over a Unix socket or TLS in crate `agent`, in-process in `control`.
#[async_trait]
pub trait ControlLink: Send + Sync + 'static {
    /// Long poll.
    async fn poll(&self, request: PollRequest) -> Result<PollAnswer, LinkError>;
    async fn report(&self, report: Report) -> Result<(), LinkError>;
    /// Answers an order that asks for bytes.
    async fn answer_bytes(
        &self,
        host: &HostName,
        order: &str,
        answer: Result<Vec<u8>, String>,
    ) -> Result<(), LinkError>;
    /// Answers an order that asks for a stream; returns when the stream has ended.
    async fn answer_stream(
        &self,
        host: &HostName,
        order: &str,
        answer: Result<BoxStream, String>,
    ) -> Result<(), LinkError>;
    /// An image's bytes, as a file opened read-only. The caller checks length and SHA-512 itself.
    async fn image(&self, host: &HostName, image: &ImageId) -> Result<std::fs::File, LinkError>;
}

/// Carries out one order against an agent and answers it.
pub async fn obey(agent: &dyn HostAgent, link: &dyn ControlLink, order: Order) -> Result<(), LinkError> {
    let host = agent.inventory().name;
    match order.what {
        crate::OrderKind::ConsoleLog { server, bytes } => {
            let answer = agent.console_log(&server, bytes).await;
            link.answer_bytes(&host, &order.id, answer).await
        }
        crate::OrderKind::Vnc { server } => {
            let answer = agent.console(&server, false).await;
            link.answer_stream(&host, &order.id, answer).await
        }
        crate::OrderKind::Serial { server } => {
            let answer = agent.console(&server, true).await;
            link.answer_stream(&host, &order.id, answer).await
        }
        crate::OrderKind::Disk { server } => {
            let answer = agent.disk(&server).await;
            link.answer_stream(&host, &order.id, answer).await
        }
        crate::OrderKind::Volume { volume, format } => {
            let answer = agent.volume(&volume, format).await;
            link.answer_stream(&host, &order.id, answer).await
        }
    }
}
