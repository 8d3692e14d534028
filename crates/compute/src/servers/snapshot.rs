//! `createImage`: an image of a server's root disk, made by a durable job.
//!
//! ```text
//!   POST -> image queued, server's task image_snapshot, job      (one commit)
//!     job: host copies its disk -> image saving, task image_uploading -> image active, task gone, job gone
//!     image deleted, server deleted, deadline, given up -> image gone, task gone, job gone      (one commit)
//! ```
//!
//! Never: a server whose task stays after its job, an unfinished image without a job.

use super::document::{Imaging, Server};
use super::history::{self, InstanceAction};
use super::{Full, actions, block_devices, ops};
use crate::input::{self, Fields};
use crate::{Ask, Compute, quota};
use async_trait::async_trait;
use base::{Fault, ImageId, Result, ServerId};
use contract::{Disks, Intake, NewSnapshot, Shape};
use engine::job::{End, Held, Job, NewJob, Progress, Work};
use model::deadline::Operation;
use model::server::Power;
use rest::{Reply, Version, header};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;
use store::{Document, Reader, Tx};

const KIND: &str = "server.image";
const STORE: &str = "store";

/// What the job needs to know.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Input {
    server: ServerId,
    image: ImageId,
    /// The instance action that it closes.
    action: String,
}

fn input_of(job: &Job) -> Result<Input> {
    serde_json::from_value(job.input.clone()).map_err(|error| Fault::bug("a job's input").because(error))
}

/// The action of the API.
pub async fn create(state: &Arc<Compute>, ask: &Ask, rule: &'static str, value: &Value) -> Result<Reply> {
    let mut fields = Fields::of("createImage", value)?;
    let name = input::name("name", fields.need("name")?)?;
    let metadata = match fields.opt("metadata") {
        None => BTreeMap::new(),
        Some(value) => input::metadata("metadata", value)?,
    };
    fields.finish()?;
    metadata.keys().try_for_each(|name| state.images.may_create(&ask.caller, name))?;
    let inner = state.clone();
    let image = actions::change(state, ask, rule, move |tx, ask, full| begin(&inner, tx, ask, full, &name, &metadata));
    let image = image.await?;
    if ask.version >= Version(2, 45) {
        return Reply::json(202, &json!({"image_id": image}));
    }
    let root = ask.base_url.split("/compute").next().unwrap_or_default();
    Ok(Reply::empty(202).header(header::LOCATION, format!("{root}/image/v2/images/{image}")))
}

fn begin(
    state: &Compute,
    tx: &mut Tx,
    ask: &Ask,
    full: Full,
    name: &str,
    metadata: &BTreeMap<String, String>,
) -> Result<ImageId> {
    let shown = full.state();
    let mut server = full.server.doc;
    if !["active", "stopped", "paused", "suspended"].contains(&shown.vm_state) {
        return Err(ops::refuse_state("createImage", &server.id, "vm_state", shown.vm_state));
    }
    if let Some(task) = shown.task_state {
        return Err(ops::refuse_state("createImage", &server.id, "task_state", task));
    }
    if server.host.is_none() || full.observed.is_none() {
        return Err(ops::refuse_state("createImage", &server.id, "vm_state", shown.vm_state));
    }
    quota::check_metadata(tx, &server.project_id, metadata.len())?;
    if server.root.is_none() {
        return of_volumes(state, tx, ask, &server, name, metadata);
    }
    let image = ImageId::new(tx.uuid());
    let min_ram_mib = state.images.describe(tx, &server.image)?.map_or(0, |base| base.min_ram_mib);
    let new = NewSnapshot {
        id: image.clone(),
        project: server.project_id.clone(),
        name: name.to_owned(),
        of: server.id.to_string(),
        shape: Shape::default(),
        min_disk_gib: server.flavor.disk_gib,
        min_ram_mib,
        properties: properties_of(state, tx, &server, metadata)?,
    };
    state.images.reserve(tx, &new)?;
    // Open until the job closes it: no generation of the server ends it.
    let action = history::begin_for(tx, ask, &server, "createImage")?;
    let input = Input { server: server.id.clone(), image: image.clone(), action };
    let limit = state.options.deadlines.seconds(Operation::Image);
    let new = NewJob {
        kind: KIND,
        project_id: server.project_id.to_string(),
        owners: vec![image.to_string(), server.id.to_string()],
        input: serde_json::to_value(&input).map_err(|error| Fault::bug("a job's input").because(error))?,
        steps: &[STORE],
        deadline: tx.now().plus_s(limit),
    };
    Job::create(tx, new)?;
    server.imaging = Some(Imaging { image: image.clone(), uploading: false });
    tx.update(&server)?;
    Ok(image)
}

/// An image of a server that boots from a volume has no bytes: it names snapshots of all that the server has. They are
/// asked for in the same commit, and there is nothing that a job would bring.
fn of_volumes(
    state: &Compute,
    tx: &mut Tx,
    ask: &Ask,
    server: &Server,
    name: &str,
    metadata: &BTreeMap<String, String>,
) -> Result<ImageId> {
    let kept = state.volumes.keep_as_they_are(tx, &ask.caller, &server.id, name)?;
    let Some(root) = kept.iter().find(|kept| kept.of.is_root()) else {
        return Err(Fault::conflict(format!("Instance {} has no volume to boot from.", server.id)));
    };
    let mut properties = contract::inherited(root.image_metadata.clone());
    properties.extend(properties_of(state, tx, server, metadata)?);
    for (key, value) in [
        (block_devices::PROPERTY, block_devices::mapping(&kept).to_string()),
        ("bdm_v2", "True".to_owned()),
        ("root_device_name", format!("/dev/{}", root.of.device)),
    ] {
        properties.insert(key.to_owned(), value);
    }
    let image = ImageId::new(tx.uuid());
    let new = NewSnapshot {
        id: image.clone(),
        project: server.project_id.clone(),
        name: name.to_owned(),
        of: server.id.to_string(),
        shape: Shape::default(),
        min_disk_gib: 0,
        min_ram_mib: 0,
        properties,
    };
    state.images.register(tx, &new)?;
    history::begin(tx, ask, server, "createImage", None)?;
    Ok(image)
}

/// What Nova tells of an image's origin, over what the server's own image said, below what the user says.
fn properties_of(
    state: &Compute,
    tx: &mut Tx,
    server: &Server,
    metadata: &BTreeMap<String, String>,
) -> Result<BTreeMap<String, String>> {
    let base = state.images.describe(tx, &server.image)?;
    let mut properties = base.map(|base| contract::inherited(base.properties)).unwrap_or_default();
    for (key, value) in [
        ("base_image_ref", server.image.to_string()),
        ("image_type", "snapshot".to_owned()),
        ("instance_uuid", server.id.to_string()),
        ("user_id", server.user_id.to_string()),
    ] {
        properties.insert(key.to_owned(), value);
    }
    properties.extend(metadata.clone());
    Ok(properties)
}

/// The work of the job.
pub struct ImageWork {
    pub compute: Arc<Compute>,
    pub intake: Arc<dyn Intake>,
    pub disks: Arc<dyn Disks>,
}

/// The server, while it still wants this image.
fn wanting(reader: &mut Reader, input: &Input) -> Result<Option<Server>> {
    let server = reader.get::<Server>(&input.server)?.map(|stored| stored.doc);
    let wants = |server: &Server| server.imaging.as_ref().is_some_and(|imaging| imaging.image == input.image);
    Ok(server.filter(|server| server.power != Power::Absent && server.soft_deleted.is_none() && wants(server)))
}

fn gone(input: &Input) -> Fault {
    Fault::conflict(format!("Instance {} no longer waits for image {}.", input.server, input.image))
}

#[async_trait]
impl Work for ImageWork {
    fn kind(&self) -> &'static str {
        KIND
    }

    fn owner_kinds(&self) -> &'static [&'static str] {
        &["image", Server::KIND]
    }

    fn wanted(&self, reader: &mut Reader, job: &Job) -> Result<bool> {
        let input = input_of(job)?;
        Ok(wanting(reader, &input)?.is_some() && self.compute.images.is_awaited(reader, &input.image)?)
    }

    async fn step(&self, _: &str, held: &Held) -> Result<Progress> {
        let Some(job) = held.job().await? else { return Ok(Progress::Done) };
        let input = input_of(&job)?;
        let (state, wanted) = (&self.compute, input.clone());
        let server = state.store.read_few(move |reader| wanting(reader, &wanted)).await?;
        let host = server.and_then(|server| server.host).ok_or_else(|| gone(&input))?;
        if !state.hosts.is_alive(&host) {
            return Err(Fault::unavailable("The server's host does not answer at the moment."));
        }
        let disk = self.disks.disk(&host, &input.server).await?;
        let (begun, done) = (held.in_tx(input.clone(), announce), held.in_tx(input.clone(), finish));
        self.intake.take_in(&input.image, disk.size_bytes, disk.bytes, begun, done).await?;
        Ok(Progress::Done)
    }

    fn end(&self, tx: &mut Tx, job: &Job, why: &End) -> Result<()> {
        let input = input_of(job)?;
        tx.skip_trash();
        self.compute.images.discard(tx, &input.image)?;
        close(tx, &input, Some(&why.reason(job)))
    }

    fn gives_up(&self, fault: &Fault, attempts: u32) -> bool {
        contract::is_in_vain(fault, attempts)
    }
}

fn announce(tx: &mut Tx, _: &mut Job, input: &Input) -> Result<()> {
    let server = wanting(tx, input)?.ok_or_else(|| gone(input))?;
    tx.update(&Server { imaging: Some(Imaging { image: input.image.clone(), uploading: true }), ..server })?;
    Ok(())
}

fn finish(tx: &mut Tx, job: &mut Job, input: &Input) -> Result<()> {
    wanting(tx, input)?.ok_or_else(|| gone(input))?;
    Held::pass(job, STORE);
    close(tx, input, None)
}

/// The server is at rest again, and its action says how it ended.
fn close(tx: &mut Tx, input: &Input, failed: Option<&str>) -> Result<()> {
    if let Some(server) = tx.get::<Server>(&input.server)?.map(|stored| stored.doc)
        && server.imaging.as_ref().is_some_and(|imaging| imaging.image == input.image)
    {
        tx.update(&Server { imaging: None, ..server })?;
    }
    if let Some(action) = tx.get::<InstanceAction>(&input.action)? {
        let message = failed.map(str::to_owned);
        let finish = Some(tx.now());
        tx.update(&InstanceAction { finish, message, success: failed.is_none(), ..action.doc })?;
    }
    Ok(())
}

/// For what the job of a server's image waits.
pub fn waiting(reader: &mut Reader, server: &Server, admin: bool) -> Result<Option<contract::Waiting>> {
    let Some(imaging) = &server.imaging else { return Ok(None) };
    let Some(job) = Job::about(reader, &imaging.image)?.pop() else { return Ok(None) };
    let host = match &server.host {
        Some(host) if admin => format!("host {host}"),
        _ => "its host".to_owned(),
    };
    let what = if imaging.uploading { "send" } else { "copy" };
    Ok(Some(job.waiting(format!("{host} to {what} its disk for image {}", imaging.image))))
}
