//! A server's volumes: which it has, giving it one, and taking one away.
//!
//! The attachments are the volume service's, behind [`contract::Volumes`]; that a guest shall have another set of
//! volumes is a new generation of its server, in the same commit.

use super::attributes::device_tag;
use super::block_devices::slot;
use super::{Full, find, history, ops};
use crate::input::{self, Fields, drop_field};
use crate::{Ask, Compute, ask};
use agent_api::DiskBus;
use base::{Fault, Result, VolumeId};
use contract::{ForServer, ServerVolume, VolumeFrom, WantedVolume};
use rest::{Access, Call, Change, Method, Reply, Route, Version};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;
use store::{Reader, Tx};

const SHOWN: &[&str] = &["volume_attachments:list", "volume_attachments:show", "volume_attachments:create"];

pub const CHANGES: &[Change] = &[
    Change {
        since: Version(2, 49),
        operations: &["volume_attachments:create"],
        request: Some(|body| input::refuse_new(body, "volumeAttachment", "tag")),
        response: None,
    },
    Change { since: Version(2, 70), operations: SHOWN, request: None, response: Some(|body| without(body, "tag")) },
    Change {
        since: Version(2, 79),
        operations: &["volume_attachments:create"],
        request: Some(|body| input::refuse_new(body, "volumeAttachment", "delete_on_termination")),
        response: None,
    },
    Change {
        since: Version(2, 79),
        operations: SHOWN,
        request: None,
        response: Some(|body| without(body, "delete_on_termination")),
    },
];

fn without(body: &mut Value, field: &str) {
    if let Some(one) = body.get_mut("volumeAttachment") {
        drop_field(one, field);
    }
    for one in body.get_mut("volumeAttachments").and_then(Value::as_array_mut).into_iter().flatten() {
        drop_field(one, field);
    }
}

pub fn routes(state: &Arc<Compute>) -> Vec<Route> {
    let rule = |name| Access::Rule(name);
    let (all, one) =
        ("/servers/{server_id}/os-volume_attachments", "/servers/{server_id}/os-volume_attachments/{volume_id}");
    let [index, make, look, change, remove] = [
        rule("os_compute_api:os-volumes-attachments:index"),
        rule("os_compute_api:os-volumes-attachments:create"),
        rule("os_compute_api:os-volumes-attachments:show"),
        rule("os_compute_api:os-volumes-attachments:update"),
        rule("os_compute_api:os-volumes-attachments:delete"),
    ];
    vec![
        Route::new(state, Method::GET, all, "volume_attachments:list", index, 200, list),
        Route::new(state, Method::POST, all, "volume_attachments:create", make, 200, attach)
            .no_undo("the volume is detached instead, which asks its guest first"),
        Route::new(state, Method::GET, one, "volume_attachments:show", look, 200, show),
        Route::new(state, Method::PUT, one, "volume_attachments:update", change, 202, update),
        Route::new(state, Method::DELETE, one, "volume_attachments:delete", remove, 202, detach)
            .no_undo("the volume is attached anew instead, where it is still free"),
    ]
}

fn view(volume: &ServerVolume) -> Value {
    json!({
        "id": volume.volume,
        "volumeId": volume.volume,
        "serverId": volume.server,
        "device": format!("/dev/{}", volume.device),
        "tag": volume.tag,
        "delete_on_termination": volume.delete_on_termination,
    })
}

fn missing(ask: &Ask) -> Fault {
    Fault::not_found(format!(
        "Instance {} is not attached to volume {}",
        ask.param("server_id"),
        ask.param("volume_id")
    ))
}

/// The server of the path with its volume of the path.
fn load(state: &Compute, reader: &mut Reader, ask: &Ask) -> Result<(Full, ServerVolume)> {
    let full = find(reader, ask)?;
    let mut volumes = state.volumes.of_server(reader, &full.server.id)?.into_iter();
    let volume = volumes.find(|volume| volume.volume.as_str() == ask.param("volume_id"));
    Ok((full, volume.ok_or_else(|| missing(ask))?))
}

async fn list(state: Arc<Compute>, call: Call) -> Result<Reply> {
    let ask = Ask::of(&call);
    ask.known_query(&["limit", "offset"])?;
    let number = |key| ask.query.number(key).map(|number| number.map(|number| number as usize));
    let (limit, offset) = (number("limit")?.unwrap_or(usize::MAX), number("offset")?.unwrap_or(0));
    let inner = state.clone();
    let volumes = state.read(&ask, move |reader, ask| {
        let full = find(reader, ask)?;
        inner.volumes.of_server(reader, &full.server.id)
    });
    let views: Vec<Value> = volumes.await?.iter().skip(offset).take(limit).map(view).collect();
    ask.answer(CHANGES, 200, json!({"volumeAttachments": views}))
}

async fn show(state: Arc<Compute>, call: Call) -> Result<Reply> {
    let ask = Ask::of(&call);
    let inner = state.clone();
    let (_, volume) = state.read(&ask, move |reader, ask| load(&inner, reader, ask)).await?;
    ask.answer(CHANGES, 200, json!({"volumeAttachment": view(&volume)}))
}

/// Which states take a change of volumes.
fn refuse_change(ask: &Ask, full: &Full, action: &str) -> Result<()> {
    ops::refuse_locked(ask, &full.server)?;
    let now = full.state();
    if !matches!(now.vm_state, "active" | "paused" | "stopped") {
        return Err(ops::refuse_state(action, &full.server.id, "vm_state", now.vm_state));
    }
    match now.task_state {
        Some(task) => Err(ops::refuse_state(action, &full.server.id, "task_state", task)),
        None => Ok(()),
    }
}

fn parse_attach(body: &Value) -> Result<WantedVolume> {
    let mut outer = Fields::body(body)?;
    let mut fields = outer.object("volumeAttachment")?;
    outer.finish()?;
    let id = input::uuid("volumeId", fields.need("volumeId")?)?;
    let device = parse_device(&mut fields)?;
    let tag = device_tag(&mut fields)?;
    let delete_on_termination = fields.boolean("delete_on_termination")?.unwrap_or(false);
    fields.finish()?;
    Ok(WantedVolume {
        from: VolumeFrom::Volume(VolumeId::new(id)),
        size_gib: None,
        volume_type: None,
        boot_index: None,
        bus: DiskBus::Virtio,
        tag,
        device: slot(device),
        delete_on_termination,
    })
}

fn parse_device(fields: &mut Fields<'_>) -> Result<Option<String>> {
    let Some(value) = fields.opt("device").filter(|value| !value.is_null()) else { return Ok(None) };
    let text = input::text("device", value, 1, 255)?;
    let name = text.strip_prefix("/dev/").map(|name| name.trim_end_matches(|c: char| c.is_ascii_digit()));
    if name.is_none_or(|name| name.is_empty() || !name.chars().all(|c| c.is_ascii_lowercase())) {
        let why =
            format!("{} does not match '(^/dev/x{{0,1}}[a-z]{{0,1}}d{{0,1}})([a-z]+)[0-9]*$'", input::repr(value));
        return Err(input::refuse("device", value, why));
    }
    Ok(Some(text))
}

async fn attach(state: Arc<Compute>, mut call: Call) -> Result<Reply> {
    let (ask, body) = ask::read(&mut call, CHANGES).await?;
    let wanted = parse_attach(&body)?;
    let inner = state.clone();
    let volume = state.write(&ask, move |tx, ask| plug(&inner, tx, ask, &wanted)).await?;
    ask.answer(CHANGES, 200, json!({"volumeAttachment": view(&volume)}))
}

fn plug(state: &Compute, tx: &mut Tx, ask: &Ask, wanted: &WantedVolume) -> Result<ServerVolume> {
    let full = find(tx, ask)?;
    refuse_change(ask, &full, "attach_volume")?;
    let mut server = full.server.doc;
    let Some(host) = server.host.clone() else {
        return Err(ops::refuse_state("attach_volume", &server.id, "vm_state", "error"));
    };
    server.touch();
    let asked = ForServer {
        caller: &ask.caller,
        server: &server.id,
        host: Some(&host),
        generation: server.generation,
        has_root: server.root.is_some(),
    };
    let volumes = state.volumes.attach(tx, asked, std::slice::from_ref(wanted))?;
    history::begin(tx, ask, &server, "attach_volume", Some(server.generation))?;
    tx.update(&server)?;
    volumes.into_iter().next().ok_or_else(|| Fault::bug("an attachment of one volume made none"))
}

async fn update(state: Arc<Compute>, mut call: Call) -> Result<Reply> {
    let (ask, body) = ask::read(&mut call, CHANGES).await?;
    let mut outer = Fields::body(&body)?;
    let mut fields = outer.object("volumeAttachment")?;
    outer.finish()?;
    let id = input::text("volumeId", fields.need("volumeId")?, 1, 255)?;
    let mut told = BTreeMap::new();
    let mut delete = None;
    if ask.version >= Version(2, 85) {
        for known in ["device", "tag", "serverId", "id"] {
            told.extend(fields.opt(known).map(|value| (known, value.clone())));
        }
        delete = fields.boolean("delete_on_termination")?;
    }
    fields.finish()?;
    let inner = state.clone();
    state
        .write(&ask, move |tx, ask| {
            let (full, volume) = load(&inner, tx, ask)?;
            ops::refuse_locked(ask, &full.server)?;
            let shown = view(&volume);
            if let Some((field, _)) = told.iter().find(|(field, value)| shown[**field] != **value) {
                return Err(Fault::invalid(format!("The {field} property is not mutable")));
            }
            // Before 2.85 there is nothing else that could be changed.
            if volume.volume.as_str() != id || ask.version < Version(2, 85) {
                return Err(Fault::conflict(format!(
                    "volume {} is not migrating: a server's volume cannot be swapped for another one by this cloud yet. \
                     Detach it, and attach the other one.",
                    volume.volume
                )));
            }
            match delete {
                Some(delete) => inner.volumes.keep_or_delete(tx, &full.server.id, &volume.volume, delete),
                None => Ok(()),
            }
        })
        .await?;
    Ok(Reply::empty(202))
}

async fn detach(state: Arc<Compute>, call: Call) -> Result<Reply> {
    let ask = Ask::of(&call);
    let inner = state.clone();
    state
        .write(&ask, move |tx, ask| {
            let (full, volume) = load(&inner, tx, ask)?;
            if volume.is_root() {
                return Err(Fault::invalid("Cannot detach a root device volume"));
            }
            refuse_change(ask, &full, "detach_volume")?;
            if !volume.is_wanted() {
                return Err(Fault::invalid(format!(
                    "Invalid volume: Invalid input received: Invalid volume: Unable to detach volume. Volume status \
                     must be 'in-use' and attach_status must be 'attached' to detach. (volume {})",
                    volume.volume
                )));
            }
            let mut server = full.server.doc;
            server.touch();
            let on_host = server.host.is_some();
            inner.volumes.detach(tx, &server.id, &volume.volume, server.generation, on_host)?;
            history::begin(tx, ask, &server, "detach_volume", Some(server.generation))?;
            tx.update(&server)?;
            Ok(())
        })
        .await?;
    Ok(Reply::empty(202))
}
