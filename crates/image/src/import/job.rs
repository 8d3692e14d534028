//! The job that brings the bytes of an image from elsewhere.
//!
//! It takes them in as an upload is taken in, with its own fence in both commits: the first sets the task to
//! processing, the second makes the image active, ends the task and removes the job. What may come right is tried
//! three times; after that, or past the deadline, the image is `queued` again and the task says why.

use crate::data::{After, begin_for_job, carry_for_job};
use crate::document::{Contents, Copying, Image, Location, Promised, Status};
use crate::tasks::{self, Task};
use crate::web::Fetched;
use crate::{Service, quota};
use async_trait::async_trait;
use base::{Fault, FaultKind, ImageId, Result};
use engine::job::{End, Held, Job, NewJob, Progress, Work};
use model::deadline::{Deadlines, Operation};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use store::{Reader, Tx};

pub const KIND: &str = "image_import";
const FETCH: &str = "fetch";
/// Failures in a row after which no further attempt is made.
const ATTEMPTS: u32 = 3;
/// Properties that an image takes along from another one, by the beginning of their names (Glance's
/// `glance_download_properties`).
const TAKEN_ALONG: [&str; 5] = ["hw_", "trait:", "os_distro", "os_secure_boot", "os_type"];

/// Where the bytes come from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    Web {
        uri: String,
        /// What the bytes must hash to.
        check: Option<Promised>,
        /// The image remembers the URL.
        location: bool,
    },
    Image {
        image: ImageId,
        /// Whoever asked may have it.
        there: bool,
    },
    /// What its client has staged.
    Staged,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Input {
    image: ImageId,
    task: String,
    source: Source,
    /// Where the bytes go: to the first, and from there to the others.
    stores: Vec<String>,
}

/// Writes the job down, in the transaction of the call, and sets the image to wait for it.
pub fn start(
    tx: &mut Tx,
    image: &mut Image,
    task: &Task,
    source: Source,
    stores: &[String],
    deadlines: &Deadlines,
) -> Result<()> {
    image.status = Status::Importing;
    image.importing = Some(task.id.clone());
    image.failed = None;
    let input = Input { image: image.id.clone(), task: task.id.clone(), source, stores: stores.to_vec() };
    let new = NewJob {
        kind: KIND,
        project_id: image.owner.as_deref().unwrap_or_default().to_owned(),
        owners: vec![image.id.to_string()],
        input: serde_json::to_value(&input).map_err(|error| Fault::bug("a job's input").because(error))?,
        steps: &[FETCH],
        deadline: tx.now().plus_s(deadlines.seconds(Operation::Image)),
    };
    Job::create(tx, new)?;
    Ok(())
}

fn input_of(job: &Job) -> Result<Input> {
    serde_json::from_value(job.input.clone()).map_err(|error| Fault::bug("the input of an import").because(error))
}

/// The image, while it still waits for this import.
fn wanting(reader: &mut Reader, input: &Input) -> Result<Option<Image>> {
    let image = reader.get::<Image>(&input.image)?.map(|stored| stored.doc);
    Ok(image.filter(|image| image.importing.as_ref() == Some(&input.task)))
}

/// The work of the job.
pub struct ImportWork(pub Arc<Service>);

#[async_trait]
impl Work for ImportWork {
    fn kind(&self) -> &'static str {
        KIND
    }

    fn owner_kinds(&self) -> &'static [&'static str] {
        &["image"]
    }

    fn wanted(&self, reader: &mut Reader, job: &Job) -> Result<bool> {
        Ok(wanting(reader, &input_of(job)?)?.is_some())
    }

    async fn step(&self, _: &str, held: &Held) -> Result<Progress> {
        let Some(job) = held.job().await? else { return Ok(Progress::Done) };
        let (service, input) = (&self.0, input_of(&job)?);
        let converts = service.options.convert_to.is_some();
        let _turn = if converts { Some(service.converting.acquire().await) } else { None };
        let _permit = service.uploads.acquire().await;
        let (fetched, origin) = self.fetch(&input).await?;
        let (task, held_begun) = (input.task.clone(), held.clone());
        let begun: contract::InTx = Arc::new(move |tx: &mut Tx| {
            held_begun.within(tx, |tx, _| Task::set(tx, &task, tasks::Status::Processing, ""))
        });
        let (task, held_done) = (input.task.clone(), held.clone());
        let then: Vec<String> = input.stores.iter().skip(1).cloned().collect();
        let last = then.is_empty();
        let done: contract::InTx = Arc::new(move |tx: &mut Tx| {
            held_done.within(tx, |tx, job| {
                Held::pass(job, FETCH);
                if last { Task::set(tx, &task, tasks::Status::Success, "") } else { Ok(()) }
            })
        });
        let copies = Copying { task: input.task.clone(), to: then, failed: Vec::new() };
        let first = input.stores.first().cloned().unwrap_or_else(|| service.stores.default().to_owned());
        // What a location says lies there is what it says.
        let converts = converts && !matches!(input.source, Source::Web { location: true, .. });
        let stores = After { first, then: Some(copies).filter(|_| !last), converts };
        let expected = input.clone();
        let prepare = move |image: &mut Image| {
            if image.importing.as_ref() != Some(&expected.task) {
                return Err(Fault::gone(format!("Image {} no longer waits for this import.", image.id)));
            }
            if let Some(origin) = &origin {
                take_along(image, origin);
            }
            match &expected.source {
                Source::Web { uri, location: true, .. } => image.locations = vec![Location { url: uri.clone() }],
                _ => image.locations.clear(),
            }
            image.status = Status::Importing;
            Ok(())
        };
        let check = match &input.source {
            Source::Web { check, .. } => check.clone(),
            Source::Image { .. } | Source::Staged => None,
        };
        let (image, size) = (&input.image, fetched.size_bytes);
        let announced = begin_for_job(service, image, size, check, "images:import", prepare, begun, done, stores);
        let transfer = announced.await?;
        carry_for_job(service, &transfer, fetched.body).await?;
        Ok(Progress::Done)
    }

    fn end(&self, tx: &mut Tx, job: &Job, why: &End) -> Result<()> {
        let input = input_of(job)?;
        let reason = why.reason(job);
        if let Some(before) = wanting(tx, &input)? {
            let mut image = before.clone();
            (image.importing, image.staged) = (None, None);
            image.fail_transfer(&reason);
            quota::settle(tx, &self.0.options.quota, Some(&before), Some(&image))?;
            tx.update(&image)?;
        }
        Task::set(tx, &input.task, tasks::Status::Failure, &reason)
    }

    fn gives_up(&self, fault: &Fault, attempts: u32) -> bool {
        use FaultKind::{Forbidden, Gone, NotFound, Quota, TooLarge, UnsupportedMedia};
        attempts >= ATTEMPTS || matches!(fault.kind, Forbidden | Gone | NotFound | Quota | TooLarge | UnsupportedMedia)
    }
}

impl ImportWork {
    /// The stream, and the image that it is a copy of.
    async fn fetch(&self, input: &Input) -> Result<(Fetched, Option<Image>)> {
        let service = &self.0;
        match &input.source {
            Source::Web { uri, .. } => Ok((service.options.web.get(uri, &service.options.web_rules).await?, None)),
            Source::Image { image, there } => {
                let missing = || Fault::not_found(format!("No image with bytes was found with ID {image}."));
                let found = service.store.get::<Image>(image).await?.filter(|_| *there).ok_or_else(missing)?.doc;
                let usable = found.status == Status::Active;
                let contents = found.contents.as_ref().filter(|_| usable).ok_or_else(missing)?;
                Ok((self.kept(contents).await?, Some(found)))
            }
            Source::Staged => {
                let asked = input.clone();
                let found = service.store.read_few(move |reader| wanting(reader, &asked)).await?;
                let staged = found.and_then(|image| image.staged);
                let gone = || Fault::gone(format!("Image {} has no staged bytes any more.", input.image));
                Ok((self.kept(&staged.ok_or_else(gone)?.contents).await?, None))
            }
        }
    }
}

impl ImportWork {
    /// Bytes that a store has.
    async fn kept(&self, contents: &Contents) -> Result<Fetched> {
        let size = contents.size_bytes;
        Ok(Fetched { size_bytes: Some(size), body: self.0.bytes(contents, 0, size).await? })
    }
}

/// What an image has of the one whose bytes it gets.
fn take_along(image: &mut Image, origin: &Image) {
    image.disk_format = origin.disk_format.clone();
    image.container_format = origin.container_format.clone();
    let taken = origin.properties.iter().filter(|(name, _)| TAKEN_ALONG.iter().any(|begin| name.starts_with(begin)));
    for (name, value) in taken {
        if image.properties.len() < crate::images::wire::PROPERTIES || image.properties.contains_key(name) {
            image.properties.insert(name.clone(), value.clone());
        }
    }
}
