//! Taking in a stream: written, hashed twice and looked at, all at the same time.
//!
//! Three blocking threads share each chunk by reference: one writes, one makes the MD5, one the SHA-512. None waits for
//! another beyond a short queue, so that an upload is as fast as the slowest of the three, and memory stays bounded by
//! the queues.

use base::{Fault, FaultKind, Result};
use bytes::Bytes;
use format::{Findings, Glimpse, Limits, Source};
use http_body_util::BodyExt;
use md5::{Digest, Md5};
use rest::Body;
use sha2::Sha512;
use std::fs::File;
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::task::{JoinHandle, spawn_blocking};

/// Chunks that may wait for each of the three.
const QUEUE: usize = 8;
/// An upload that sends nothing for so long is broken.
const IDLE: Duration = Duration::from_secs(120);
/// What is still read and thrown away after a refusal, so that the client reads the answer instead of a reset.
const DRAIN_BYTES: u64 = 64 << 20;

/// What to hold an upload against.
pub struct Expected {
    pub disk_format: String,
    pub container_format: String,
    /// None: bytes are kept whatever they are.
    pub enforced: Option<Limits>,
    pub most_bytes: u64,
    /// From `Content-Length` or `x-openstack-image-size`.
    pub size_bytes: Option<u64>,
}

/// Bytes that came whole.
pub struct Received {
    pub size_bytes: u64,
    pub md5: [u8; 16],
    pub sha512: [u8; 64],
    pub findings: Findings,
}

/// Takes the stream in until its end. The file is on disk when this returns.
///
/// # Errors
/// TooLarge beyond the limit, UnsupportedMedia as soon as the first bytes show that the file is not acceptable,
/// Invalid for a stream that breaks off or is not as long as announced.
pub async fn receive(mut body: Body, file: &File, expected: &Expected) -> Result<Received> {
    let file = file.try_clone().map_err(|error| Fault::unavailable("The upload's file is lost.").because(error))?;
    let (to_file, writer) = stage(move |chunks| write(file, chunks));
    let (to_md5, md5) = stage(|chunks| hash::<Md5>(chunks));
    let (to_sha512, sha512) = stage(|chunks| hash::<Sha512>(chunks));
    let mut glimpse = Glimpse::new();
    let mut size_bytes = 0u64;
    let pumped = async {
        while let Some(chunk) = next(&mut body).await? {
            size_bytes += chunk.len() as u64;
            if size_bytes > expected.most_bytes {
                return Err(too_large(expected.most_bytes));
            }
            if let Some(limits) = &expected.enforced
                && let Some(reason) = glimpse.push(&chunk, &expected.disk_format, &expected.container_format, limits)
            {
                return Err(Fault::unsupported_media(reason));
            }
            let sent =
                (to_file.send(chunk.clone()).await, to_md5.send(chunk.clone()).await, to_sha512.send(chunk).await);
            if sent.0.is_err() || sent.1.is_err() || sent.2.is_err() {
                // The writer ended early; its own error says why.
                break;
            }
        }
        Ok(())
    };
    let pumped = pumped.await;
    drop((to_file, to_md5, to_sha512));
    let (written, md5, sha512) = (join(writer).await?, join(md5).await?, join(sha512).await?);
    if let Err(fault) = pumped {
        drain(body, &fault).await;
        return Err(fault);
    }
    let findings = written?;
    if let Some(announced) = expected.size_bytes.filter(|announced| *announced != size_bytes) {
        return Err(Fault::invalid(format!("The upload has {size_bytes} bytes, but {announced} were announced.")));
    }
    Ok(Received { size_bytes, md5: md5.into(), sha512: sha512.into(), findings })
}

fn too_large(most: u64) -> Fault {
    Fault::too_large(format!("The incoming image is too large: at most {most} bytes are allowed."))
}

fn stage<T: Send + 'static>(
    run: impl FnOnce(mpsc::Receiver<Bytes>) -> T + Send + 'static,
) -> (mpsc::Sender<Bytes>, JoinHandle<T>) {
    let (to, from) = mpsc::channel(QUEUE);
    (to, spawn_blocking(move || run(from)))
}

async fn join<T>(handle: JoinHandle<T>) -> Result<T> {
    handle.await.map_err(|error| Fault::bug("a thread of an upload ended badly").because(error))
}

/// The next chunk of data; none at the end.
async fn next(body: &mut Body) -> Result<Option<Bytes>> {
    loop {
        let frame = tokio::time::timeout(IDLE, body.frame()).await.map_err(|_| {
            let seconds = IDLE.as_secs();
            Fault::new(FaultKind::Invalid, format!("The upload sent nothing for {seconds} seconds.")).with_status(408)
        })?;
        match frame {
            None => return Ok(None),
            Some(Err(error)) => return Err(Fault::invalid(format!("The upload broke off: {error}."))),
            Some(Ok(frame)) => match frame.into_data() {
                Ok(data) if data.is_empty() => {}
                Ok(data) => return Ok(Some(data)),
                Err(_trailers) => {}
            },
        }
    }
}

/// Reads on for a while after a refusal. Most clients send the whole body before they look for an answer.
pub async fn drain(mut body: Body, fault: &Fault) {
    if matches!(fault.kind, FaultKind::Invalid) {
        return;
    }
    let mut left = DRAIN_BYTES;
    while let Ok(Some(chunk)) = next(&mut body).await {
        left = left.saturating_sub(chunk.len() as u64);
        if left == 0 {
            return;
        }
    }
}

fn hash<D: Digest>(mut chunks: mpsc::Receiver<Bytes>) -> md5::digest::Output<D> {
    let mut digest = D::new();
    while let Some(chunk) = chunks.blocking_recv() {
        digest.update(&chunk);
    }
    digest.finalize()
}

/// Writes the chunks, brings them to disk, and looks at what they are.
fn write(mut file: File, mut chunks: mpsc::Receiver<Bytes>) -> Result<Findings> {
    let failed = |error: std::io::Error| match error.kind() {
        std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => {
            Fault::too_large("Image storage media is full.").because(error)
        }
        _ => Fault::unavailable("The image service cannot write the upload.").because(error),
    };
    while let Some(chunk) = chunks.blocking_recv() {
        file.write_all(&chunk).map_err(failed)?;
    }
    file.sync_data().map_err(failed)?;
    let size_bytes = file.metadata().map_err(failed)?.len();
    format::examine(&OnDisk { file, size_bytes }).map_err(failed)
}

struct OnDisk {
    file: File,
    size_bytes: u64,
}

impl Source for OnDisk {
    fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> std::io::Result<()> {
        self.file.read_exact_at(buffer, offset)
    }
}
