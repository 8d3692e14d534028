//! The job that copies the bytes of an image to other stores.
//!
//! Each copy is read once from a store that has it, hashed on the way, and counts only if it is what was accepted. Its
//! file is locked from before it has a name until the commit that names its store, as that of an upload is.

use crate::data::remote::Arrival;
use crate::data::{Files, Place, Store, reachable, settle};
use crate::document::{Contents, Copying, Image, Status};
use crate::images::find;
use crate::tasks::{self, Task};
use crate::{Service, quota};
use async_trait::async_trait;
use base::{Fault, FaultKind, ImageId, Result};
use engine::job::{End, Held, Job, NewJob, Progress, Work};
use model::deadline::{Deadlines, Operation};
use rest::{Call, Reply};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha512};
use std::fs::File;
use std::io::{Read, Write};
use std::sync::Arc;
use store::{Reader, Tx};

pub const KIND: &str = "image_copy";
const COPY: &str = "copy";
const ATTEMPTS: u32 = 3;
/// Bytes that are read at a time.
const PIECE: usize = 1 << 20;

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Input {
    image: ImageId,
    task: String,
}

/// Writes the job down, in the transaction that makes copies wanted.
pub fn copy(tx: &mut Tx, image: &mut Image, copies: Copying, deadlines: &Deadlines) -> Result<()> {
    let input = Input { image: image.id.clone(), task: copies.task.clone() };
    image.copying = Some(copies);
    image.not_copied.clear();
    let new = NewJob {
        kind: KIND,
        project_id: image.owner.as_deref().unwrap_or_default().to_owned(),
        owners: vec![image.id.to_string()],
        input: serde_json::to_value(&input).map_err(|error| Fault::bug("a job's input").because(error))?,
        steps: &[COPY],
        deadline: tx.now().plus_s(deadlines.seconds(Operation::Image)),
    };
    Job::create(tx, new)?;
    Ok(())
}

/// `copy-image`.
pub async fn request(service: Arc<Service>, call: Call, input: Value, stores: Vec<String>, all: bool) -> Result<Reply> {
    let (deadlines, cause) = (service.options.deadlines, call.cause());
    let written = service.store.write(cause, move |tx| {
        let mut image = find(tx, &call, call.param("image_id"), "copy_image")?.doc;
        let contents = image.contents.as_ref().filter(|_| image.status == Status::Active);
        let Some(contents) = contents else {
            return Err(Fault::conflict("Only images with status active can be targeted for copying"));
        };
        if image.copying.is_some() {
            return Err(Fault::conflict(format!(
                "New operation on image '{}' is not permitted as prior operation is still in progress",
                image.id
            )));
        }
        let (there, to): (Vec<String>, Vec<String>) =
            stores.iter().cloned().partition(|store| contents.stores.contains(store));
        if let Some(store) = there.first().filter(|_| !all) {
            return Err(Fault::invalid(format!("Image is already present at store '{store}'")));
        }
        if to.is_empty() {
            return Ok(());
        }
        let task = Task::begin(tx, &call, tasks::Kind::ApiImageImport, &image.id, input.clone())?;
        copy(tx, &mut image, Copying { task: task.id, to, failed: Vec::new() }, &deadlines)?;
        tx.update(&image)?;
        Ok(())
    });
    written.await?;
    Ok(Reply::empty(202))
}

fn input_of(job: &Job) -> Result<Input> {
    serde_json::from_value(job.input.clone()).map_err(|error| Fault::bug("the input of a copy").because(error))
}

/// The image with its bytes and what is to be copied, while it still wants that.
fn wanting(reader: &mut Reader, input: &Input) -> Result<Option<(Image, Contents, Copying)>> {
    let Some(image) = reader.get::<Image>(&input.image)?.map(|stored| stored.doc) else { return Ok(None) };
    let copying = image.copying.clone().filter(|copying| copying.task == input.task);
    Ok(match (image.contents.clone(), copying) {
        (Some(contents), Some(copying)) => Some((image, contents, copying)),
        _ => None,
    })
}

/// The work of the job.
pub struct CopyWork(pub Arc<Service>);

#[async_trait]
impl Work for CopyWork {
    fn kind(&self) -> &'static str {
        KIND
    }

    fn owner_kinds(&self) -> &'static [&'static str] {
        &["image"]
    }

    fn wanted(&self, reader: &mut Reader, job: &Job) -> Result<bool> {
        Ok(wanting(reader, &input_of(job)?)?.is_some())
    }

    /// One store after the other; the last commit ends task and job.
    async fn step(&self, _: &str, held: &Held) -> Result<Progress> {
        let Some(job) = held.job().await? else { return Ok(Progress::Done) };
        let (service, input) = (&self.0, input_of(&job)?);
        loop {
            let asked = input.clone();
            let found = service.store.read_few(move |reader| wanting(reader, &asked)).await?;
            let (_, contents, copying) = found.ok_or_else(|| gone(&input))?;
            let Some(next) = copying.to.first().cloned() else { break };
            let _permit = service.uploads.acquire().await;
            // The lock goes with the file, after the commit.
            let (_file, object) = self.copied(&input, &contents, &next).await?;
            let (store, partial) = (next.clone(), Files::partial(&input.image, nonce_of(&contents)));
            let (asked, quota) = (input.clone(), service.options.quota.clone());
            let whole = held.commit("images:copy", move |tx, job| {
                let (before, was, mut copying) = wanting(tx, &asked)?.ok_or_else(|| gone(&asked))?;
                if was.file != contents.file {
                    return Err(gone(&asked));
                }
                if let Some(object) = &object {
                    settle(tx, object, &asked.image, nonce_of(&contents))?;
                }
                let mut image = before.clone();
                copying.to.retain(|store| *store != next);
                if let Some(contents) = image.contents.as_mut().filter(|it| !it.stores.contains(&next)) {
                    contents.stores.push(next.clone());
                }
                let whole = copying.to.is_empty();
                image.copying = Some(copying).filter(|_| !whole);
                quota::settle(tx, &quota, Some(&before), Some(&image))?;
                tx.update(&image)?;
                if whole {
                    Task::set(tx, &asked.task, tasks::Status::Success, "")?;
                    Held::pass(job, COPY);
                } else {
                    Task::set(tx, &asked.task, tasks::Status::Processing, "")?;
                }
                Ok(whole)
            });
            let whole = whole.await?;
            service.stores.get(&store).map(|store| service.stores.intake(store).remove(&partial)).transpose()?;
            if whole {
                break;
            }
        }
        Ok(Progress::Done)
    }

    /// What was copied stays; the rest is named.
    fn end(&self, tx: &mut Tx, job: &Job, why: &End) -> Result<()> {
        let input = input_of(job)?;
        if let Some((mut image, _, copying)) = wanting(tx, &input)? {
            image.copying = None;
            image.not_copied = copying.failed.into_iter().chain(copying.to).collect();
            tx.update(&image)?;
        }
        Task::set(tx, &input.task, tasks::Status::Failure, &why.reason(job))
    }

    fn gives_up(&self, fault: &Fault, attempts: u32) -> bool {
        use FaultKind::{Gone, Quota, TooLarge};
        attempts >= ATTEMPTS || matches!(fault.kind, Gone | Quota | TooLarge)
    }
}

/// Of IMAGE.NONCE, as [`Files::whole`] writes it: the copy has the same name.
fn nonce_of(contents: &Contents) -> &str {
    contents.file.rsplit('.').next().unwrap_or_default()
}

fn gone(input: &Input) -> Fault {
    Fault::gone(format!("Image {} no longer wants copies.", input.image))
}

impl CopyWork {
    /// What holds the copy until it is committed: the finished, locked file, and the object of a place that is no
    /// folder.
    async fn copied(&self, input: &Input, contents: &Contents, to: &str) -> Result<(File, Option<String>)> {
        let service = &self.0;
        let store = service.stores.get(to);
        let store = store.ok_or_else(|| Fault::gone("A store that was asked for is there no longer.".to_owned()))?;
        reachable(store).await?;
        let (files, nonce) = (service.stores.intake(store), nonce_of(contents));
        let partial = Files::partial(&input.image, nonce);
        if !files.remove_unheld(&partial)? {
            return Err(Fault::conflict(format!("Image {} is being copied already.", input.image)));
        }
        let copied = match &store.place {
            Place::Folder(files) => self.poured(files, &input.image, contents).await.map(|file| (file, None)),
            Place::Remote(_) => self.put(store, input, contents).await,
        };
        if copied.is_err() {
            files.remove(&partial)?;
            service.disown(&input.image).await?;
        }
        copied
    }

    async fn poured(&self, files: &Files, image: &ImageId, contents: &Contents) -> Result<File> {
        let from = self.0.file(contents).await?;
        let (files, image, contents) = (files.clone(), image.clone(), contents.clone());
        let work = move || {
            let nonce = nonce_of(&contents);
            let mut to = files.begin(&image, nonce)?;
            pour(from, &mut to, &contents).and_then(|()| files.finish(&image, nonce, &contents.sha512))?;
            Ok(to)
        };
        self.0.beside(work).await
    }

    /// An empty file of the folder is the lock; what is put was held against its hash.
    async fn put(&self, store: &Store, input: &Input, contents: &Contents) -> Result<(File, Option<String>)> {
        let (service, nonce) = (&self.0, nonce_of(contents));
        let lock = service.stores.intake(store).begin(&input.image, nonce)?;
        let file = service.verified(contents).await?;
        let (size_bytes, sha512) = (contents.size_bytes, &*contents.sha512);
        let arrival = Arrival { store, image: &input.image, nonce, file: &file, size_bytes, sha512 };
        let asked = input.clone();
        let wanted = move |tx: &mut Tx| wanting(tx, &asked)?.map(drop).ok_or_else(|| gone(&asked));
        let object = service.arrive(arrival, wanted).await?;
        Ok((lock, object))
    }
}

/// Copies, and refuses to call it a copy if it is none.
fn pour(mut from: File, to: &mut File, contents: &Contents) -> Result<()> {
    let failed = |error: std::io::Error| match error.kind() {
        std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => {
            Fault::too_large("Image storage media is full.").because(error)
        }
        _ => Fault::unavailable("The image service cannot copy an image.").because(error),
    };
    let (mut digest, mut piece) = (Sha512::new(), vec![0; PIECE]);
    loop {
        let read = from.read(&mut piece).map_err(failed)?;
        if read == 0 {
            break;
        }
        digest.update(&piece[..read]);
        to.write_all(&piece[..read]).map_err(failed)?;
    }
    to.sync_all().map_err(failed)?;
    let found: String = digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    if found != contents.sha512 {
        return Err(Fault::unavailable(format!(
            "The bytes of {} are no longer those that were accepted.",
            contents.file
        )));
    }
    Ok(())
}
