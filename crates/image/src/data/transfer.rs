//! Uploading and staging: three commits around a stream.
//!
//! 1. `queued` becomes `saving` (or `uploading`) and names the transfer, whose file exists and is locked.
//! 2. The stream comes in. No transaction is open meanwhile.
//! 3. The file has its whole name, or its bytes are in the store that is no folder, and one commit names it and makes
//!    the image `active` (or keeps it staged), only if the image still waits for this very transfer. Otherwise the image
//!    goes back to `queued` and the file is removed.
//!
//! The work runs in a task of its own: a client that goes away does not stop the third step.

use super::convert;
use super::files::Files;
use super::intake::After;
use super::receive::{self, Expected, Received};
use super::remote::{Arrival, settle};
use super::stores::Store;
use crate::document::{Contents, Copying, Image, Staged, Status};
use crate::images::find;
use crate::{Options, Service, quota};
use base::{Fault, FaultKind, ImageId, Result, is_uuid};
use format::{Decision, Findings, decide};
use model::deadline::Passing;
use rest::{Body, Call, Reply};
use std::fs::File;
use std::sync::Arc;
use std::time::Duration;
use store::{Cause, Tx};

/// What a transfer waits for.
pub const SENDER: &str = "the client that sends its bytes";

/// A transfer that has been announced.
pub struct Transfer {
    image: ImageId,
    nonce: String,
    /// Locked as long as this lives.
    file: File,
    /// Where the bytes go. The file lies in its folder, or in the service's own.
    store: Store,
    /// Copies to make once it is whole.
    copies: Option<Copying>,
    status: Status,
    cause: Cause,
    expected: Expected,
    digests: Digests,
    /// The image as the first commit left it. Its formats cannot change while a transfer runs.
    as_announced: Image,
    /// What a job does in the last commit.
    done: Option<contract::InTx>,
    /// Whether the operator's format is wanted.
    converts: bool,
}

impl Transfer {
    /// Bytes that a job brings.
    #[allow(clippy::too_many_arguments)]
    pub(super) fn of_job(
        image: Image,
        nonce: String,
        file: File,
        cause: Cause,
        expected: Expected,
        done: contract::InTx,
        store: Store,
        stores: After,
    ) -> Transfer {
        // Whatever the image shows meanwhile: its bytes become its own at the end.
        let (id, status, digests) = (image.id.clone(), Status::Saving, Digests::default());
        let (as_announced, done) = (image, Some(done));
        let (copies, converts) = (stores.then, stores.converts);
        Transfer { image: id, nonce, file, store, copies, status, cause, expected, digests, as_announced, done, converts }
    }
}

/// What to hold a stream against.
pub(super) fn expected(service: &Service, image: &Image, status: Status, size_bytes: Option<u64>) -> Expected {
    // What is staged is judged when it is imported, since its formats may still change.
    let enforced = service.options.format_enforcement && status == Status::Saving;
    Expected {
        disk_format: image.disk_format.clone().unwrap_or_default(),
        container_format: image.container_format.clone().unwrap_or_default(),
        enforced: enforced.then(|| service.options.format_limits.clone()),
        most_bytes: service.options.size_limit_bytes,
        size_bytes,
        promised: None,
        inline: service.store.is_inline(),
        underway: service.underway.clone(),
    }
}

pub async fn upload(service: Arc<Service>, call: Call) -> Result<Reply> {
    run(service, call, Status::Saving).await
}

pub async fn stage(service: Arc<Service>, call: Call) -> Result<Reply> {
    run(service, call, Status::Uploading).await
}

async fn run(service: Arc<Service>, mut call: Call, status: Status) -> Result<Reply> {
    let content_type = call.header("content-type").unwrap_or("").split(';').next().unwrap_or("").trim();
    if !content_type.eq_ignore_ascii_case("application/octet-stream") {
        return Err(Fault::unsupported_media("Image data are uploaded as application/octet-stream."));
    }
    let body = call.body();
    // A client that waits for leave to send has sent nothing, and reading would be the leave.
    let sends_unasked = !call.header("expect").is_some_and(|expect| expect.eq_ignore_ascii_case("100-continue"));
    let work = tokio::spawn(async move {
        let _permit = service.uploads.acquire().await;
        let transfer = match begin(&service, call, status).await {
            Ok(transfer) => transfer,
            Err(fault) => {
                if sends_unasked {
                    receive::drain(body, &fault).await;
                }
                return Err(fault);
            }
        };
        let done = carry(&service, &transfer, body).await;
        if let Err(fault) = &done {
            abandon(&service, &transfer, fault).await;
        }
        done
    });
    work.await.map_err(|error| Fault::bug("an upload's task ended badly").because(error))??;
    Ok(Reply::empty(204))
}

/// The first commit. The file exists and is locked before it.
async fn begin(service: &Arc<Service>, call: Call, status: Status) -> Result<Transfer> {
    let size_bytes = announced(&call)?;
    let digests = Digests::read(&call)?;
    let most_bytes = service.options.size_limit_bytes;
    if size_bytes.is_some_and(|size| size > most_bytes) {
        return Err(Fault::too_large(format!(
            "The incoming image is too large: at most {most_bytes} bytes are allowed."
        )));
    }
    let id = ImageId::new(call.param("image_id"));
    if id.len() != 36 || !is_uuid(&id) {
        // The id becomes part of a file's name.
        return Err(Fault::not_found(format!("No image found with ID {id}")));
    }
    let nonce = service.env.secret_hex(8);
    let cause = call.cause();
    let (quota, wanted) = (service.options.quota.clone(), nonce.clone());
    let store = chosen(service, &call, status)?;
    reachable(&store).await?;
    let files = service.stores.intake(&store).clone();
    let file = files.begin(&id, &nonce)?;
    let announcing = service.store.write(cause.clone(), move |tx| {
        let before = find(tx, &call, call.param("image_id"), call.rule)?.doc;
        may_begin(&before, status)?;
        let mut image = before.clone();
        let counted = if status == Status::Saving { quota::SIZE } else { quota::STAGE };
        quota::precheck(tx, &quota, &image, counted, size_bytes.unwrap_or(0))?;
        image.status = status;
        image.locations.clear();
        image.begin_transfer(&wanted, tx.now());
        quota::settle(tx, &quota, Some(&before), Some(&image))?;
        tx.update(&image)?;
        Ok(image)
    });
    let as_announced = match announcing.await {
        Ok(committed) => committed.value,
        Err(fault) => {
            files.remove(&Files::partial(&id, &nonce))?;
            return Err(fault);
        }
    };
    let expected = expected(service, &as_announced, status, size_bytes);
    let (copies, done) = (None, None);
    Ok(Transfer { image: id, nonce, file, store, copies, status, cause, expected, digests, as_announced, done, converts: false })
}

/// The store that the client names, for an upload; what is staged waits in the first.
fn chosen(service: &Service, call: &Call, status: Status) -> Result<Store> {
    if status != Status::Saving {
        return Ok(service.stores.local().clone());
    }
    let named = call.header("x-image-meta-store").unwrap_or(service.stores.default());
    let known = service.stores.get(named).cloned();
    known.ok_or_else(|| {
        let shown: String = named.chars().take(64).collect();
        Fault::invalid(format!("There is no store '{shown}'; there are: {}.", service.stores.ids().join(", ")))
    })
}

/// Refuses before any byte is taken what could not be put.
pub async fn reachable(store: &Store) -> Result<()> {
    match store.objects() {
        Some(objects) => store.said(objects.check().await),
        None => Ok(()),
    }
}

fn may_begin(image: &Image, status: Status) -> Result<()> {
    if image.status != Status::Queued {
        return Err(Fault::conflict(format!(
            "Image status transition from {} to {} is not allowed",
            image.status.as_str(),
            status.as_str()
        )));
    }
    if let Some(of) = &image.awaits {
        return Err(Fault::conflict(format!("Image {} waits for the disk of {of}, which a job brings.", image.id)));
    }
    if status == Status::Saving {
        formats_are_set(image)?;
    }
    Ok(())
}

fn formats_are_set(image: &Image) -> Result<()> {
    let formats = [("disk_format", &image.disk_format), ("container_format", &image.container_format)];
    let missing: Vec<&str> = formats.iter().filter(|(_, value)| value.is_none()).map(|(name, _)| *name).collect();
    match missing.as_slice() {
        [] => Ok(()),
        [one] => Err(Fault::invalid(format!("Property {one} must be set prior to saving data."))),
        many => Err(Fault::invalid(format!("Properties {} must be set prior to saving data.", many.join(", ")))),
    }
}

/// Stream, rename, commit.
pub(super) async fn carry(service: &Arc<Service>, transfer: &Transfer, body: Body) -> Result<()> {
    let received = in_time(service, receive::receive(body, &transfer.file, &transfer.expected)).await?;
    transfer.digests.check(&received)?;
    received.keeps(transfer.expected.promised.as_ref())?;
    let mut contents = Contents {
        file: Files::whole(&transfer.image, &transfer.nonce),
        size_bytes: received.size_bytes,
        virtual_size_bytes: None,
        md5: hex(&received.md5),
        sha512: hex(&received.sha512),
        quarantined: None,
        promised: transfer.expected.promised.clone(),
        stores: vec![transfer.store.id.clone()],
    };
    let (id, nonce, status) = (transfer.image.clone(), transfer.nonce.clone(), transfer.status);
    if status == Status::Saving {
        let judged = judge(&transfer.as_announced, &received.findings, &service.options)?;
        (contents.virtual_size_bytes, contents.quarantined) = judged;
    }
    let wanted = Some(&contents).filter(|_| transfer.converts);
    let to = wanted.and_then(|contents| convert::wanted(service, &transfer.as_announced, contents));
    let mut _converted = None;
    if let Some(to) = to {
        let (named, from) = ((&transfer.image, &*transfer.nonce), transfer.as_announced.disk_format.clone());
        let files = service.stores.intake(&transfer.store);
        let (converted, lock) = convert::convert(service, files, named, from, to, contents).await?;
        (contents, _converted) = (converted, Some(lock));
    }
    let object = finish(service, transfer, _converted.as_ref(), &contents).await?;
    let quota = service.options.quota.clone();
    let findings = received.findings;
    let done = transfer.done.clone();
    let (copies, deadlines) = (transfer.copies.clone(), service.options.deadlines);
    let committing = service.store.write(transfer.cause.clone(), move |tx| {
        let before = awaited(tx, &id, &nonce)?;
        let mut image = before.clone();
        image.end_transfer();
        (image.awaits, image.importing) = (None, None);
        if let Some(done) = &done {
            done(tx)?;
        }
        if let Some(object) = &object {
            settle(tx, object, &id, &nonce)?;
        }
        if status == Status::Saving {
            image.contents = Some(contents.clone());
            image.status = Status::Active;
            image.staged = None;
            if let Some(to) = to {
                image.disk_format = Some(to.as_str().to_owned());
            }
            if let Some(copies) = &copies {
                crate::import::copy(tx, &mut image, copies.clone(), &deadlines)?;
            }
        } else {
            image.staged = Some(Staged { contents: contents.clone(), findings: findings.clone() });
        }
        quota::settle(tx, &quota, Some(&before), Some(&image))?;
        tx.update(&image)?;
        Ok(())
    });
    committing.await?;
    let files = service.stores.intake(&transfer.store);
    files.remove(&Files::partial(&transfer.image, &transfer.nonce)).or_else(|fault| {
        tracing::warn!(image = %transfer.image, "an upload's file is left to the sweeper: {}", fault.chain());
        Ok(())
    })
}

/// Gives the file its whole name; bytes that are there already are compared, which takes as long as reading them. Puts
/// them where the store is no folder: the object's id then.
async fn finish(
    service: &Service,
    transfer: &Transfer,
    converted: Option<&File>,
    contents: &Contents,
) -> Result<Option<String>> {
    let (image, nonce) = (transfer.image.clone(), transfer.nonce.clone());
    let Some(files) = transfer.store.files().cloned() else {
        let file = converted.unwrap_or(&transfer.file);
        let (size_bytes, sha512) = (contents.size_bytes, &*contents.sha512);
        let arrival = Arrival { store: &transfer.store, image: &image, nonce: &nonce, file, size_bytes, sha512 };
        let (id, waited) = (image.clone(), nonce.clone());
        return service.arrive(arrival, move |tx| awaited(tx, &id, &waited).map(drop)).await;
    };
    let sha512 = contents.sha512.clone();
    service.beside(move || files.finish(&image, &nonce, &sha512).map(|()| None)).await
}

/// Bytes that have not come by the deadline are waited for no longer.
async fn in_time(service: &Service, received: impl Future<Output = Result<Received>>) -> Result<Received> {
    let passing = service.passing(service.env.now());
    let left_ms = passing.deadline.ms_since(passing.since).max(0) as u64;
    let late = || Fault::new(FaultKind::Invalid, late(&passing)).with_status(408);
    tokio::time::timeout(Duration::from_millis(left_ms), received).await.map_err(|_| late())?
}

/// What is said of a transfer that was not done in time.
pub(super) fn late(passing: &Passing) -> String {
    passing.fault(SENDER, None, "Upload its bytes again.")
}

/// The image, if it still waits for this transfer. Gone where it was deleted or taken back meanwhile.
fn awaited(tx: &mut Tx, id: &ImageId, nonce: &str) -> Result<Image> {
    let image = tx.get::<Image>(id)?.filter(|image| image.transfer.as_deref() == Some(nonce));
    image.map(|image| image.doc).ok_or_else(|| {
        Fault::gone(format!(
            "Image {id} could not be found after upload. The image may have been deleted during the upload, cleaning \
             up the chunks uploaded."
        ))
    })
}

/// Back to `queued`, and no bytes left. The document first: should this process die in between, the sweeper finds a
/// file that nobody names.
pub(super) async fn abandon(service: &Arc<Service>, transfer: &Transfer, why: &Fault) {
    let (id, nonce) = (transfer.image.clone(), transfer.nonce.clone());
    if let Err(fault) = requeue(service, transfer.cause.clone(), id, nonce, why.message.to_string()).await {
        tracing::warn!(image = %transfer.image, "a broken upload is left to the sweeper: {}", fault.chain());
        return;
    }
    let (image, nonce) = (&transfer.image, &transfer.nonce);
    let files = service.stores.intake(&transfer.store);
    for name in [Files::converted(image, nonce), Files::partial(image, nonce), Files::whole(image, nonce)] {
        if let Err(fault) = files.remove(&name) {
            tracing::warn!(%image, "a broken upload's file is left to the sweeper: {}", fault.chain());
        }
    }
    if let Err(fault) = service.disown(image).await {
        tracing::warn!(%image, "a broken upload's object is left to the sweeper: {}", fault.chain());
    }
}

/// Ends a transfer that came to nothing. Does nothing to an image that no longer waits for it.
pub(super) async fn requeue(service: &Service, cause: Cause, id: ImageId, nonce: String, why: String) -> Result<()> {
    let quota = service.options.quota.clone();
    let written = service.store.write(cause, move |tx| {
        let image = tx.get::<Image>(&id)?.filter(|image| image.transfer.as_ref() == Some(&nonce));
        let Some(before) = image.map(|image| image.doc) else { return Ok(()) };
        let mut image = before.clone();
        image.fail_transfer(&why);
        quota::settle(tx, &quota, Some(&before), Some(&image))?;
        tx.update(&image)?;
        Ok(())
    });
    written.await.map(|_| ())
}

/// The virtual size and, without enforcement, the reason for quarantine. UnsupportedMedia for a refusal.
pub fn judge(image: &Image, findings: &Findings, options: &Options) -> Result<(Option<u64>, Option<String>)> {
    let disk_format = image.disk_format.as_deref().unwrap_or_default();
    let container_format = image.container_format.as_deref().unwrap_or_default();
    match decide(disk_format, container_format, findings, &options.format_limits) {
        Decision::Accept(accepted) => Ok((accepted.virtual_size, None)),
        Decision::Refuse(reason) if options.format_enforcement => Err(Fault::unsupported_media(reason)),
        Decision::Refuse(reason) => Ok((None, Some(reason))),
    }
}

pub fn may_import(image: &Image) -> Result<Staged> {
    if matches!(image.status, Status::Active | Status::Deactivated) {
        return Err(Fault::conflict("Image with status active cannot be target for import"));
    }
    if image.importing.is_some() {
        return Err(Fault::conflict(format!(
            "New operation on image '{}' is not permitted as prior operation is still in progress",
            image.id
        )));
    }
    for (name, value) in [("container_format", &image.container_format), ("disk_format", &image.disk_format)] {
        if value.is_none() {
            return Err(Fault::conflict(format!("'{name}' needs to be set before import")));
        }
    }
    let staged = image.staged.clone().filter(|_| image.status == Status::Uploading && image.transfer.is_none());
    staged.ok_or_else(|| Fault::conflict("Image needs to be staged before 'glance-direct' method can be used"))
}

/// The size that the client announces.
fn announced(call: &Call) -> Result<Option<u64>> {
    let header = call.header("x-openstack-image-size").or(call.header("content-length"));
    let Some(text) = header else { return Ok(None) };
    let number = text.trim().parse().map_err(|_| Fault::invalid("Invalid or missing image size in request headers."));
    number.map(Some)
}

/// Checksums that the client announces: `Content-MD5` (RFC 1864) and `Content-Digest` (RFC 9530) with `sha-512`.
#[derive(Default)]
struct Digests {
    md5: Option<[u8; 16]>,
    sha512: Option<[u8; 64]>,
}

impl Digests {
    fn read(call: &Call) -> Result<Digests> {
        let mut digests = Digests::default();
        if let Some(text) = call.header("content-md5") {
            digests.md5 = Some(digest("Content-MD5", text)?);
        }
        let digest_header = call.header("content-digest").unwrap_or("");
        for part in digest_header.split(',') {
            if let Some(text) = part.trim().strip_prefix("sha-512=") {
                digests.sha512 = Some(digest("Content-Digest", text.trim_matches(':'))?);
            }
        }
        Ok(digests)
    }

    fn check(&self, received: &Received) -> Result<()> {
        let wrong = |what: &str, announced: &[u8], found: &[u8]| {
            Err(Fault::invalid(format!(
                "The {what} of the uploaded data is {}, but {} was announced: the upload was damaged on its way.",
                hex(found),
                hex(announced)
            )))
        };
        match (&self.md5, &self.sha512) {
            (Some(md5), _) if *md5 != received.md5 => wrong("MD5", md5, &received.md5),
            (_, Some(sha512)) if *sha512 != received.sha512 => wrong("SHA-512", sha512, &received.sha512),
            _ => Ok(()),
        }
    }
}

/// A digest in base64, as the standards say, or in hex, as people write them.
fn digest<const N: usize>(header: &str, text: &str) -> Result<[u8; N]> {
    use base64::Engine;
    let text = text.trim();
    let unhex = || {
        let bytes = text.as_bytes().chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok());
        bytes.collect::<Option<Vec<u8>>>()
    };
    let bytes = if text.len() == 2 * N { unhex() } else { base64::prelude::BASE64_STANDARD.decode(text).ok() };
    let bytes = bytes.and_then(|bytes| bytes.try_into().ok());
    bytes.ok_or_else(|| Fault::invalid(format!("The header {header} does not hold a digest of {N} bytes.")))
}

pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
