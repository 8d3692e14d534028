//! The API of attachments (3.27 and later): who reserves a volume, how it is reached, and that it is there.
//!
//! What this cloud's own servers hold is shown here, too; it changes only by the server, so that no attachment outlives
//! what it stands for.

use crate::document::{Attachment, By, Volume};
use crate::listing::{self, Listing};
use crate::volumes::{self, invalid};
use crate::{Ask, Volumes, sight, table};
use base::{AttachmentId, Fault, Result, ServerId};
use model::volume::{Hold, Stage};
use rest::input::{self, Fields};
use rest::{Call, Reply, Route};
use serde_json::{Value, json};
use std::sync::Arc;
use store::{Query, Reader, Stored, Tx};

/// The most characters of a connector as JSON.
const CONNECTOR: usize = 16_384;

pub fn routes(state: &Arc<Volumes>) -> Vec<Route> {
    table! { state;
        GET "/v3/{project_id}/attachments" "attachments:list" "volume:get_all" 200 list, since(3, 27);
        GET "/v3/{project_id}/attachments/detail" "attachments:detail" "volume:get_all" 200 detail, since(3, 27);
        POST "/v3/{project_id}/attachments" "attachments:create" "volume:attachment_create" 200 create, since(3, 27);
        GET "/v3/{project_id}/attachments/{attachment_id}" "attachments:show" "volume:get" 200 show, since(3, 27);
        PUT "/v3/{project_id}/attachments/{attachment_id}" "attachments:update" "volume:attachment_update" 200 update, since(3, 27);
        DELETE "/v3/{project_id}/attachments/{attachment_id}" "attachments:delete" "volume:attachment_delete" 200 delete, since(3, 27);
        POST "/v3/{project_id}/attachments/{attachment_id}/action" "attachments:action" "volume:attachment_complete" 204 complete, since(3, 44), actions(&["os-complete"]);
    }
}

const LISTING: Listing = Listing {
    plural: "attachments",
    filters: &["volume_id", "status", "instance_id", "attach_status"],
    open: Some((31, "attachment")),
    sorts: &["id", "volume_id", "status", "created_at", "updated_at"],
    brief: &["id", "status", "instance", "volume_id"],
};

fn view(attachment: &Stored<Attachment>, volume: Option<&Volume>) -> Value {
    json!({
        "id": attachment.id,
        "status": attachment.stage.as_str(),
        "attach_status": attachment.stage.as_str(),
        "instance": attachment.server,
        "instance_id": attachment.server,
        "volume_id": attachment.volume,
        "attached_at": attachment.attached_at.map(|at| at.iso_naive()).unwrap_or_default(),
        "detached_at": "",
        "created_at": attachment.created.iso_naive(),
        "attach_mode": match attachment.stage == Stage::Reserved && !attachment.told && attachment.mode == "rw" {
            true => "null",
            false => &attachment.mode,
        },
        "connection_info": match volume.filter(|_| attachment.connector.is_some() || attachment.by == By::Server) {
            Some(volume) => volumes::connection(volume)["data"].clone(),
            None => json!({}),
        },
    })
}

const SHOWN: &[&str] =
    &["id", "status", "instance", "volume_id", "attached_at", "detached_at", "attach_mode", "connection_info"];

fn answer(ask: &Ask, attachment: &Stored<Attachment>, volume: &Volume) -> Result<Reply> {
    let mut view = view(attachment, Some(volume));
    listing::keep(&mut view, SHOWN);
    ask.reply(200, &json!({"attachment": view}))
}

fn find(reader: &mut Reader, ask: &Ask) -> Result<(Stored<Attachment>, Stored<Volume>)> {
    let id = ask.param("attachment_id");
    let missing =
        || Fault::not_found(format!("Volume attachment could not be found with filter: attachment_id = {id:.255}."));
    let attachment = reader.get::<Attachment>(id)?.ok_or_else(missing)?;
    ask.allow(&attachment.project_id, missing)?;
    let volume = reader.need::<Volume>(&attachment.volume)?;
    Ok((attachment, volume))
}

async fn list(state: Arc<Volumes>, call: Call) -> Result<Reply> {
    page(state, call, false).await
}

async fn detail(state: Arc<Volumes>, call: Call) -> Result<Reply> {
    page(state, call, true).await
}

async fn page(state: Arc<Volumes>, call: Call, detail: bool) -> Result<Reply> {
    let ask = Ask::of(&call)?;
    ask.enforce_own()?;
    let all = ask.is_admin() && ask.query.boolean("all_tenants")?.unwrap_or(false);
    let query = if all { Query::all() } else { Query::project(ask.project()?.as_str()) };
    let items = state
        .store
        .read(move |reader| {
            let mut items = Vec::new();
            for attachment in reader.list::<Attachment>(query.clone())? {
                let volume = if detail { reader.get::<Volume>(&attachment.volume)? } else { None };
                items.push(view(&attachment, volume.as_ref().map(|volume| &volume.doc)));
            }
            Ok(items)
        })
        .await?;
    let mut body = LISTING.page(&ask, items, detail)?;
    for item in body["attachments"].as_array_mut().into_iter().flatten().filter(|_| detail) {
        listing::keep(item, SHOWN);
    }
    ask.reply(200, &body)
}

async fn show(state: Arc<Volumes>, call: Call) -> Result<Reply> {
    let ask = Ask::of(&call)?;
    let (attachment, volume) = state.read(&ask, find).await?;
    answer(&ask, &attachment, &volume)
}

fn connector(value: &Value) -> Result<Option<Value>> {
    match value {
        Value::Null => Ok(None),
        Value::Object(map) if map.is_empty() => Ok(None),
        Value::Object(_) if value.to_string().len() <= CONNECTOR => Ok(Some(value.clone())),
        Value::Object(_) => Err(Fault::invalid(format!("A connector has at most {CONNECTOR} characters."))),
        other => Err(input::refuse("connector", other, "it is not of type 'object'")),
    }
}

fn mode(text: &str) -> Result<String> {
    match text {
        "rw" | "ro" => Ok(text.to_owned()),
        other => {
            Err(Fault::invalid(format!("Invalid attaching mode '{other:.20}'. Attaching mode should be 'rw' or 'ro'.")))
        }
    }
}

/// A read-only volume is attached read-only; else what was told at first holds, and then what the connector says.
fn mode_of(volume: &Volume, told: Option<&str>, connector: Option<&Value>) -> Result<String> {
    if volume.read_only == Some(true) {
        return Ok("ro".to_owned());
    }
    let said = connector.and_then(|connector| connector.get("mode")).and_then(Value::as_str);
    told.or(said).map_or_else(|| Ok("rw".to_owned()), mode)
}

async fn create(state: Arc<Volumes>, mut call: Call) -> Result<Reply> {
    let (ask, body) = Ask::read(&mut call).await?;
    let mut outer = Fields::body(&body)?;
    let mut fields = outer.object("attachment")?;
    outer.finish()?;
    let server = fields.uuid_or_null("instance_uuid")?;
    let volume = input::uuid("volume_uuid", fields.need("volume_uuid")?)?;
    let connector = fields.opt("connector").map(connector).transpose()?.flatten();
    let told =
        if ask.since(54) { fields.text_or_null("mode", 1, 16)?.map(|text| mode(&text)).transpose()? } else { None };
    fields.finish()?;
    let (attachment, volume) = state
        .write(&ask, move |tx, ask| {
            let found = volumes::of(tx, ask, &volume)?;
            let status = sight::status_of(tx, &found)?;
            // Nova reserves by the old calls, too; a reservation may become an attachment.
            if !["available", "attaching"].contains(&status.as_str()) {
                return Err(invalid(format!("Volume {volume} status must be available or downloading to reserve, but the current status is {status}.")));
            }
            if tx.count::<Attachment>(Query::index("volume", found.id.as_str()).limit(1))? > 0 {
                return Err(invalid(format!("volume {volume} already attached")));
            }
            let attachment = Attachment {
                id: AttachmentId::new(tx.uuid()),
                project_id: found.project_id.clone(),
                volume: found.id.clone(),
                by: By::Client,
                server: server.clone().map(ServerId::new),
                host_name: host_of(connector.as_ref()),
                device: None,
                mode: mode_of(&found, told.as_deref(), connector.as_ref())?,
                told: told.is_some(),
                stage: if connector.is_some() { Stage::Attaching } else { Stage::Reserved },
                connector: connector.clone(),
                attached_at: None,
                since: tx.now(),
                generation: 0,
                overdue: false,
                why: None,
                delete_on_termination: false,
                boot_index: None,
                tag: None,
                bus: None,
            };
            let made = tx.create(&attachment)?;
            let doc = Volume { hold: Hold::None, held_since: None, ..found.doc };
            tx.update(&doc)?;
            Ok((made, doc))
        })
        .await?;
    answer(&ask, &attachment, &volume)
}

fn host_of(connector: Option<&Value>) -> Option<String> {
    let host = connector?.get("host")?.as_str()?;
    Some(host.chars().take(255).collect())
}

/// What servers of this cloud hold changes by them alone.
fn by_client(attachment: &Attachment) -> Result<()> {
    match attachment.by {
        By::Client => Ok(()),
        By::Server => Err(Fault::conflict(format!(
            "Attachment {} is that of server {}: detach the volume there.",
            attachment.id,
            attachment.server.clone().unwrap_or_default()
        ))),
    }
}

async fn update(state: Arc<Volumes>, mut call: Call) -> Result<Reply> {
    let (ask, body) = Ask::read(&mut call).await?;
    let mut outer = Fields::body(&body)?;
    let mut fields = outer.object("attachment")?;
    outer.finish()?;
    let connector = connector(fields.need("connector")?)?;
    let connector =
        connector.ok_or_else(|| Fault::invalid("Invalid input received: required element 'connector' is empty"))?;
    fields.finish()?;
    let (attachment, volume) = state
        .write(&ask, move |tx, ask| {
            let (attachment, volume) = find(tx, ask)?;
            by_client(&attachment)?;
            let mut doc = attachment.doc;
            doc.host_name = host_of(Some(&connector));
            doc.device = connector.get("mountpoint").and_then(Value::as_str).map(|it| it.chars().take(255).collect());
            let told = doc.told.then_some(doc.mode.as_str());
            doc.mode = mode_of(&volume, told, Some(&connector))?;
            doc.connector = Some(connector.clone());
            // Before 3.44 nobody says that it is complete.
            doc.stage = if ask.since(44) { Stage::Attaching } else { Stage::Attached };
            doc.attached_at = (doc.stage == Stage::Attached).then(|| tx.now());
            tx.update(&doc)?;
            Ok((tx.need::<Attachment>(&doc.id)?, volume.doc))
        })
        .await?;
    answer(&ask, &attachment, &volume)
}

async fn complete(state: Arc<Volumes>, mut call: Call) -> Result<Reply> {
    let (ask, body) = Ask::read(&mut call).await?;
    let (name, _) = input::action(&body)?;
    if name != "os-complete" {
        return Err(Fault::invalid(format!("There is no such action: {name:.100}")));
    }
    state
        .write(&ask, |tx: &mut Tx, ask| {
            let (attachment, _) = find(tx, ask)?;
            by_client(&attachment)?;
            if attachment.stage == Stage::Reserved {
                return Err(Fault::invalid(format!("Attachment {} has no connector yet.", attachment.id)));
            }
            let mut doc = attachment.doc;
            doc.stage = Stage::Attached;
            doc.attached_at = doc.attached_at.or(Some(tx.now()));
            tx.update(&doc)?;
            Ok(())
        })
        .await?;
    Ok(Reply::empty(204))
}

async fn delete(state: Arc<Volumes>, call: Call) -> Result<Reply> {
    let ask = Ask::of(&call)?;
    let left = state
        .write(&ask, |tx, ask| {
            let (attachment, volume) = find(tx, ask)?;
            by_client(&attachment)?;
            tx.delete::<Attachment>(&attachment.id)?;
            tx.update(&Volume { hold: Hold::None, held_since: None, ..volume.doc })?;
            Ok(tx.list::<Attachment>(Query::index("volume", attachment.volume.as_str()))?)
        })
        .await?;
    let mut items: Vec<Value> = left.iter().map(|it| view(it, None)).collect();
    items.iter_mut().for_each(|item| listing::keep(item, SHOWN));
    ask.reply(200, &json!({"attachments": items}))
}
