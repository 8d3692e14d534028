//! `os-volume_upload_image`: an image of a volume, made by a durable job.
//!
//! ```text
//!   POST -> image queued, volume uploading, job                                                  (one commit)
//!     job: its host copies it -> image saving -> image active, volume as it was, job gone
//!     image deleted, volume gone, status reset, deadline, given up -> image gone, volume as it was, job gone (one commit)
//! ```
//!
//! The bytes go the way that those of a server's disk go. Never: a volume that stays `uploading` after its job.

use super::invalid;
use crate::document::Volume;
use crate::sight::Sight;
use crate::{Ask, Volumes, messages};
use agent_api::DiskFormat;
use async_trait::async_trait;
use base::{Fault, ImageId, Result, VolumeId};
use contract::{Disks, Intake, NewSnapshot, Shape, Waiting};
use engine::job::{End, Held, Job, NewJob, Progress, Work};
use policy::Target;
use rest::input::{self, Fields};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::sync::Arc;
use store::{Document, Reader, Stored, Tx};

const KIND: &str = "volume.image";
const STORE: &str = "store";
/// What Cinder knows; the hosts of this cloud write the first two.
const DISK_FORMATS: &[&str] = &["raw", "qcow2", "vmdk", "vdi", "vhd", "vhdx", "ploop"];
const VISIBILITIES: &[&str] = &["community", "public", "private", "shared"];

/// What the job needs to know.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Input {
    volume: VolumeId,
    image: ImageId,
    format: DiskFormat,
}

fn input_of(job: &Job) -> Result<Input> {
    serde_json::from_value(job.input.clone()).map_err(|error| Fault::bug("a job's input").because(error))
}

/// What the body asks for.
struct Wanted {
    name: String,
    force: bool,
    format: DiskFormat,
    shape: Shape,
}

fn one_of(name: &str, value: String, known: &[&str]) -> Result<String> {
    if known.contains(&value.as_str()) {
        return Ok(value);
    }
    Err(Fault::invalid(format!("{name}: '{value}' is not one of {}", known.join(", "))))
}

fn read(ask: &Ask, mut fields: Fields<'_>) -> Result<Wanted> {
    let name = input::text("image_name", fields.need("image_name")?, 1, 255)?;
    let force = fields.boolean("force")?.unwrap_or(false);
    let disk = fields.text("disk_format", 1, 255)?.unwrap_or_else(|| "raw".to_owned());
    let disk_format = one_of("disk_format", disk, DISK_FORMATS)?;
    let container = fields.text("container_format", 1, 255)?;
    let (mut visibility, mut protected) = (None, None);
    if ask.since(1) {
        visibility = fields.text("visibility", 1, 255)?;
        protected = fields.boolean("protected")?;
    }
    fields.finish()?;
    let format = match disk_format.as_str() {
        "raw" => DiskFormat::Raw,
        "qcow2" => DiskFormat::Qcow2,
        other => {
            return Err(Fault::invalid(format!(
                "disk_format: the hosts of this cloud write raw and qcow2, and no {other}"
            )));
        }
    };
    let container_format = container.unwrap_or_else(|| "bare".to_owned());
    if container_format == "compressed" {
        return Err(Fault::invalid(
            "container_format: the hosts of this cloud compress no images; bare would be right",
        ));
    }
    let visibility = one_of("visibility", visibility.unwrap_or_else(|| "private".to_owned()), VISIBILITIES)?;
    let shape = Shape { disk_format, container_format, visibility, protected: protected.unwrap_or(false) };
    Ok(Wanted { name, force, format, shape })
}

/// The action of the API.
pub fn begin(state: &Volumes, tx: &mut Tx, ask: &Ask, volume: Stored<Volume>, fields: Fields<'_>) -> Result<Value> {
    let Wanted { name, force, format, shape } = read(ask, fields)?;
    let target = Target::project(volume.project_id.as_str());
    match shape.visibility.as_str() {
        "public" => {
            ask.enforce_rule("volume_extension:volume_actions:upload_public", &target)?;
            ask.enforce_rule("publicize_image", &target)?;
        }
        "community" => ask.enforce_rule("communitize_image", &target)?,
        _ => {}
    }
    let status = Sight::of(tx, &volume)?.status(&volume);
    let fits: &[&str] = if force { &["available", "in-use"] } else { &["available"] };
    if !fits.contains(&status.as_str()) || volume.host.is_none() {
        return Err(invalid(format!(
            "Volume {} status must be {}, but current status is {status}.",
            volume.id,
            fits.join(" or ")
        )));
    }
    let image = ImageId::new(tx.uuid());
    let new = NewSnapshot {
        id: image.clone(),
        project: ask.project()?,
        name: name.clone(),
        of: volume.id.to_string(),
        shape: shape.clone(),
        min_disk_gib: 0,
        min_ram_mib: 0,
        properties: contract::inherited(volume.image_metadata.clone()),
    };
    state.images.reserve(tx, &new)?;
    let input = Input { volume: volume.id.clone(), image: image.clone(), format };
    let new = NewJob {
        kind: KIND,
        project_id: volume.project_id.to_string(),
        owners: vec![image.to_string(), volume.id.to_string()],
        input: serde_json::to_value(&input).map_err(|error| Fault::bug("a job's input").because(error))?,
        steps: &[STORE],
        deadline: tx.now().plus_s(state.options.upload_s),
    };
    Job::create(tx, new)?;
    let changed = volume.updated != volume.created;
    let mut answer = json!({
        "id": volume.id,
        "updated_at": changed.then(|| volume.updated.iso_naive()),
        "status": "uploading",
        "display_description": volume.description,
        "size": volume.size_gib,
        "volume_type": crate::types::brief(tx, &volume.volume_type)?,
        "image_id": image,
        "container_format": shape.container_format,
        "disk_format": shape.disk_format,
        "image_name": name,
    });
    if ask.since(1) {
        answer["visibility"] = json!(shape.visibility);
        answer["protected"] = json!(shape.protected);
    }
    tx.update(&Volume { uploading: Some(image), ..volume.doc })?;
    Ok(json!({"os-volume_upload_image": answer}))
}

/// The work of the job.
pub struct ImageWork {
    pub volumes: Arc<Volumes>,
    pub intake: Arc<dyn Intake>,
    pub disks: Arc<dyn Disks>,
}

/// The volume, while this image is still made of it.
fn wanting(reader: &mut Reader, input: &Input) -> Result<Option<Volume>> {
    let volume = reader.get::<Volume>(&input.volume)?.map(|stored| stored.doc);
    Ok(volume.filter(|volume| volume.uploading.as_ref() == Some(&input.image)))
}

fn gone(input: &Input) -> Fault {
    Fault::conflict(format!("Volume {} no longer waits for image {}.", input.volume, input.image))
}

#[async_trait]
impl Work for ImageWork {
    fn kind(&self) -> &'static str {
        KIND
    }

    fn owner_kinds(&self) -> &'static [&'static str] {
        &["image", Volume::KIND]
    }

    fn wanted(&self, reader: &mut Reader, job: &Job) -> Result<bool> {
        let input = input_of(job)?;
        Ok(wanting(reader, &input)?.is_some() && self.volumes.images.is_awaited(reader, &input.image)?)
    }

    async fn step(&self, _: &str, held: &Held) -> Result<Progress> {
        let Some(job) = held.job().await? else { return Ok(Progress::Done) };
        let input = input_of(&job)?;
        let (state, wanted) = (&self.volumes, input.clone());
        let volume = state.store.read_few(move |reader| wanting(reader, &wanted)).await?;
        let host = volume.and_then(|volume| volume.host).ok_or_else(|| gone(&input))?;
        if !state.hosts.is_alive(&host) {
            return Err(Fault::unavailable("The volume's host does not answer at the moment."));
        }
        let disk = self.disks.volume(&host, &input.volume, input.format).await?;
        let (begun, done) = (held.in_tx(input.clone(), announce), held.in_tx(input.clone(), finish));
        self.intake.take_in(&input.image, disk.size_bytes, disk.bytes, begun, done).await?;
        Ok(Progress::Done)
    }

    fn end(&self, tx: &mut Tx, job: &Job, why: &End) -> Result<()> {
        let input = input_of(job)?;
        tx.skip_trash();
        self.volumes.images.discard(tx, &input.image)?;
        if !matches!(why, End::Cancelled) {
            let why = format!("Image {} could not be made of it: {}", input.image, why.reason(job));
            messages::say(tx, &job.project_id.as_str().into(), &input.volume, messages::Event::NoImage, &why)?;
        }
        close(tx, &input)
    }

    fn gives_up(&self, fault: &Fault, attempts: u32) -> bool {
        contract::is_in_vain(fault, attempts)
    }
}

fn announce(tx: &mut Tx, _: &mut Job, input: &Input) -> Result<()> {
    wanting(tx, input)?.ok_or_else(|| gone(input)).map(drop)
}

fn finish(tx: &mut Tx, job: &mut Job, input: &Input) -> Result<()> {
    wanting(tx, input)?.ok_or_else(|| gone(input))?;
    Held::pass(job, STORE);
    close(tx, input)
}

/// The volume is what it was.
fn close(tx: &mut Tx, input: &Input) -> Result<()> {
    if let Some(volume) = wanting(tx, input)? {
        tx.update(&Volume { uploading: None, ..volume })?;
    }
    Ok(())
}

/// For what the job of a volume's image waits.
pub fn waiting(reader: &mut Reader, volume: &Volume, admin: bool) -> Result<Option<Waiting>> {
    let Some(image) = &volume.uploading else { return Ok(None) };
    let Some(job) = Job::about(reader, image)?.pop() else { return Ok(None) };
    let host = match &volume.host {
        Some(host) if admin => format!("host {host}"),
        _ => "its host".to_owned(),
    };
    Ok(Some(job.waiting(format!("{host} to copy it for image {image}"))))
}
