//! Taking in a stream: written, hashed twice and looked at, all at the same time.
//!
//! Three blocking threads share the chunks by reference: one writes, one makes the MD5, one the SHA-512. None waits for
//! another beyond a short queue, so that an upload is as fast as the slowest of the three, and memory stays bounded by
//! the queues. Chunks are handed over in batches: a wake-up for each would cost more than writing it.

use super::sink::Sink;
use super::transfer::hex;
use crate::document::Promised;
use base::{Fault, FaultKind, Result};
use bytes::Bytes;
use format::{Findings, Glimpse, Limits, OnDisk};
use http_body_util::BodyExt;
use md5::{Digest, Md5};
use rest::Body;
use sha2::{Sha224, Sha256, Sha384, Sha512};
use std::fs::File;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::{JoinHandle, spawn_blocking};

/// Batches that may wait for each of the three.
const QUEUE: usize = 8;
/// The same without threads, where nobody empties the queue before the end: uploads up to 64 MiB.
const INLINE_QUEUE: usize = 512;
/// A batch is handed over when it has so many bytes, or so many chunks.
const BATCH_BYTES: usize = 128 << 10;
/// Bytes that all uploads together may have handed over and not done with. Only the work on them holds this, and no
/// client: a slow one keeps nobody else waiting.
const UNDERWAY_BYTES: usize = 8 << 20;
const BATCH_CHUNKS: usize = 256;
/// An upload that sends nothing for so long is broken.
const IDLE: Duration = Duration::from_secs(120);
/// What is still read and thrown away after a refusal, so that the client reads the answer instead of a reset.
const DRAIN_BYTES: u64 = 64 << 20;

/// Some chunks of the stream, and their share of [`Underway`].
struct Chunks {
    chunks: Vec<Bytes>,
    _share: Option<OwnedSemaphorePermit>,
}

type Batch = Arc<Chunks>;

/// What all uploads of a service have in memory together.
#[derive(Clone)]
pub struct Underway(Arc<Semaphore>);

impl Default for Underway {
    fn default() -> Underway {
        Underway(Arc::new(Semaphore::new(UNDERWAY_BYTES)))
    }
}

impl Underway {
    async fn share(&self, bytes: usize) -> Option<OwnedSemaphorePermit> {
        // One chunk may be larger than a batch; none is larger than all of it together.
        let bytes = u32::try_from(bytes.min(UNDERWAY_BYTES)).unwrap_or(u32::MAX);
        self.0.clone().acquire_many_owned(bytes).await.ok()
    }
}

/// What to hold an upload against.
pub struct Expected {
    pub disk_format: String,
    pub container_format: String,
    /// None: bytes are kept whatever they are.
    pub enforced: Option<Limits>,
    pub most_bytes: u64,
    /// From `Content-Length` or `x-openstack-image-size`.
    pub size_bytes: Option<u64>,
    /// A hash that the bytes must have.
    pub promised: Option<Promised>,
    /// No threads: the three do their work one after the other when all has come. See [`store::Store::is_inline`].
    pub inline: bool,
    pub underway: Underway,
}

/// Bytes that came whole.
pub struct Received {
    pub size_bytes: u64,
    pub md5: [u8; 16],
    pub sha512: [u8; 64],
    /// The bytes by the algorithm that was promised, in hex.
    pub also: Option<String>,
    pub findings: Findings,
}

impl Received {
    /// UnsupportedMedia where the bytes are not those that were promised: another attempt brings no others.
    pub fn keeps(&self, promised: Option<&Promised>) -> Result<()> {
        let Some(promised) = promised else { return Ok(()) };
        match &self.also {
            Some(found) if *found == promised.value => Ok(()),
            found => Err(Fault::unsupported_media(format!(
                "The {} of the bytes is {}, but {} was promised.",
                promised.algorithm,
                found.as_deref().unwrap_or("not known"),
                promised.value
            ))),
        }
    }
}

/// Takes the stream in until its end. The file is on disk when this returns.
///
/// # Errors
/// TooLarge beyond the limit, UnsupportedMedia as soon as the first bytes show that the file is not acceptable,
/// Invalid for a stream that breaks off or is not as long as announced.
pub async fn receive(mut body: Body, file: &File, expected: &Expected) -> Result<Received> {
    let file = file.try_clone().map_err(|error| Fault::unavailable("The upload's file is lost.").because(error))?;
    let direct = !expected.inline;
    let (to_file, writer) = stage(expected.inline, move |batches| write(file, direct, batches));
    let (to_md5, md5) = stage(expected.inline, hash::<Md5>);
    let (to_sha512, sha512) = stage(expected.inline, hash::<Sha512>);
    let mut to = vec![to_file, to_md5, to_sha512];
    // A fourth only for the sake of a promise, which hardly anybody makes.
    let also = expected.promised.as_ref().map(|promised| {
        let algorithm = promised.algorithm.clone();
        let (queue, worker) = stage(expected.inline, move |batches| hash_by(&algorithm, batches));
        to.push(queue);
        worker
    });
    let mut size_bytes = 0u64;
    let pumped = pump(&mut body, &to, expected, &mut size_bytes).await;
    drop(to);
    let (written, md5, sha512) = (join(writer).await?, join(md5).await?, join(sha512).await?);
    let also = match also {
        Some(worker) => Some(join(worker).await?),
        None => None,
    };
    let findings = match pumped.and(written) {
        Ok(findings) => findings,
        Err(fault) => {
            drain(body, &fault).await;
            return Err(fault);
        }
    };
    if let Some(announced) = expected.size_bytes.filter(|announced| *announced != size_bytes) {
        return Err(Fault::invalid(format!("The upload has {size_bytes} bytes, but {announced} were announced.")));
    }
    Ok(Received { size_bytes, md5: md5.into(), sha512: sha512.into(), also, findings })
}

/// Moves the stream into the queues. Ends early, without a fault, when a thread is gone: that one's own error says why.
async fn pump(body: &mut Body, to: &[mpsc::Sender<Batch>], expected: &Expected, size: &mut u64) -> Result<()> {
    let mut glimpse = Glimpse::new();
    let (mut batch, mut batch_bytes) = (Vec::new(), 0);
    loop {
        let chunk = next(body).await?;
        let ended = chunk.is_none();
        if let Some(chunk) = chunk {
            *size += chunk.len() as u64;
            if *size > expected.most_bytes {
                return Err(too_large(expected.most_bytes));
            }
            if let Some(limits) = &expected.enforced
                && let Some(reason) = glimpse.push(&chunk, &expected.disk_format, &expected.container_format, limits)
            {
                return Err(Fault::unsupported_media(reason));
            }
            batch_bytes += chunk.len();
            batch.push(chunk);
        }
        if ended || batch_bytes >= BATCH_BYTES || batch.len() >= BATCH_CHUNKS {
            let share = if expected.inline { None } else { expected.underway.share(batch_bytes).await };
            let full: Batch = Arc::new(Chunks { chunks: std::mem::take(&mut batch), _share: share });
            batch_bytes = 0;
            for queue in to {
                if queue.send(full.clone()).await.is_err() {
                    return Ok(());
                }
            }
        }
        if ended {
            return Ok(());
        }
    }
}

fn too_large(most: u64) -> Fault {
    Fault::too_large(format!("The incoming image is too large: at most {most} bytes are allowed."))
}

/// One of the three at work.
enum Worker<T> {
    Thread(JoinHandle<T>),
    /// Begins when all senders are gone.
    Here(Box<dyn FnOnce() -> T + Send>),
}

fn stage<T: Send + 'static>(
    inline: bool,
    run: impl FnOnce(mpsc::Receiver<Batch>) -> T + Send + 'static,
) -> (mpsc::Sender<Batch>, Worker<T>) {
    if inline {
        let (to, from) = mpsc::channel(INLINE_QUEUE);
        return (to, Worker::Here(Box::new(move || run(from))));
    }
    let (to, from) = mpsc::channel(QUEUE);
    (to, Worker::Thread(spawn_blocking(move || run(from))))
}

async fn join<T>(worker: Worker<T>) -> Result<T> {
    match worker {
        Worker::Thread(handle) => {
            handle.await.map_err(|error| Fault::bug("a thread of an upload ended badly").because(error))
        }
        Worker::Here(run) => Ok(run()),
    }
}

/// The next batch; none when all senders are gone. Waits only where there is somebody to wait for, on a thread.
fn take(batches: &mut mpsc::Receiver<Batch>) -> Option<Batch> {
    match batches.try_recv() {
        Ok(batch) => Some(batch),
        Err(mpsc::error::TryRecvError::Disconnected) => None,
        Err(mpsc::error::TryRecvError::Empty) => batches.blocking_recv(),
    }
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

fn hash<D: Digest>(mut batches: mpsc::Receiver<Batch>) -> md5::digest::Output<D> {
    let mut digest = D::new();
    while let Some(batch) = take(&mut batches) {
        for chunk in &batch.chunks {
            digest.update(chunk);
        }
    }
    digest.finalize()
}

/// By an algorithm that [`crate::import::locations`] lets through, in hex.
fn hash_by(algorithm: &str, batches: mpsc::Receiver<Batch>) -> String {
    match algorithm {
        "sha224" => hex(&hash::<Sha224>(batches)),
        "sha256" => hex(&hash::<Sha256>(batches)),
        "sha384" => hex(&hash::<Sha384>(batches)),
        _ => hex(&hash::<Sha512>(batches)),
    }
}

/// Writes the chunks, brings them to disk, and looks at what they are.
fn write(file: File, direct: bool, mut batches: mpsc::Receiver<Batch>) -> Result<Findings> {
    let failed = |error: std::io::Error| match error.kind() {
        std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => {
            Fault::too_large("Image storage media is full.").because(error)
        }
        _ => Fault::unavailable("The image service cannot write the upload.").because(error),
    };
    let mut sink = Sink::new(file, direct);
    while let Some(batch) = take(&mut batches) {
        for chunk in &batch.chunks {
            sink.push(chunk).map_err(failed)?;
        }
    }
    let file = sink.finish().map_err(failed)?;
    OnDisk::new(file).and_then(|file| format::examine(&file)).map_err(failed)
}
