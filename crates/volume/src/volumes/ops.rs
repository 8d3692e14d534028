//! The operations on volumes. Each is one transaction.

use super::{Wanted, find, invalid, make, wire};
use crate::document::{Attachment, Snapshot, Volume};
use crate::listing::Listing;
use crate::sight::Sight;
use crate::{Ask, Volumes, metadata, place, trash};
use base::{Fault, FaultKind, Result};
use rest::input::{self, Fields};
use rest::{Call, Reply, Version};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;
use store::{Query, Reader, Stored, Tx};

const LISTING: Listing = Listing {
    plural: "volumes",
    filters: &[
        "id",
        "name",
        "status",
        "size",
        "bootable",
        "availability_zone",
        "metadata",
        "glance_metadata",
        "volume_type",
        "snapshot_id",
        "source_volid",
        "user_id",
        "project_id",
        "host",
        "multiattach",
        "created_at",
        "updated_at",
    ],
    open: Some((31, "volume")),
    sorts: &[
        "id",
        "name",
        "status",
        "size",
        "bootable",
        "availability_zone",
        "created_at",
        "updated_at",
        "volume_type",
        "host",
        "display_name",
    ],
    brief: &["id", "name", "links"],
};

/// Whose volumes are listed.
pub fn whose(ask: &Ask) -> Result<Query> {
    let all = ask.is_admin() && ask.query.boolean("all_tenants")?.unwrap_or(false);
    Ok(if all { Query::all() } else { Query::project(ask.project()?.as_str()) })
}

/// What a list of nameless things is asked for: `volumes/` with nothing behind it.
pub async fn nameless(_: Arc<Volumes>, call: Call) -> Result<Reply> {
    let ask = Ask::of(&call)?;
    if ask.path.ends_with('/') {
        return Err(Fault::not_found("Volume with an empty id could not be found."));
    }
    let message = format!("The method {} is not allowed for this resource; allowed: GET, POST.", call.method);
    Err(Fault::new(FaultKind::MethodNotAllowed, message).named("GET, POST"))
}

pub async fn list(state: Arc<Volumes>, call: Call) -> Result<Reply> {
    if call.path.ends_with('/') {
        return nameless(state, call).await;
    }
    page(state, call, false).await
}

pub async fn detail(state: Arc<Volumes>, call: Call) -> Result<Reply> {
    page(state, call, true).await
}

async fn page(state: Arc<Volumes>, call: Call, detail: bool) -> Result<Reply> {
    let ask = Ask::of(&call)?;
    ask.enforce_own()?;
    let query = whose(&ask)?;
    let inner = ask.clone();
    if let Some(newest) = LISTING.newest(&ask)? {
        let project = if query == Query::all() { None } else { Some(ask.project()?.to_string()) };
        let wanted = newest.clone();
        let read = move |reader: &mut Reader| {
            let volumes: Vec<Stored<Volume>> = wanted.read(reader, query.clone(), project.as_deref())?;
            let view = |volume: &Stored<Volume>| Ok(wire::view(&inner, volume, &Sight::of(reader, volume)?, true));
            volumes.iter().map(view).collect::<Result<Vec<_>>>()
        };
        let page = state.store.read(read).await?;
        return ask.reply(200, &LISTING.newest_page(&ask, page, &newest, detail));
    }
    let items = state
        .store
        .read(move |reader| {
            let sight = Sight::of_all(reader, &query)?;
            let volumes = reader.list::<Volume>(query.clone())?;
            Ok(volumes.iter().map(|volume| wire::view(&inner, volume, &sight, true)).collect::<Vec<_>>())
        })
        .await?;
    ask.reply(200, &LISTING.page(&ask, items, detail)?)
}

pub async fn summary(state: Arc<Volumes>, call: Call) -> Result<Reply> {
    let ask = Ask::of(&call)?;
    ask.enforce_own()?;
    let query = whose(&ask)?;
    let volumes = state.store.list::<Volume>(query).await?;
    let size: u64 = volumes.iter().map(|volume| volume.size_gib).sum();
    let mut body = json!({"total_count": volumes.len(), "total_size": size});
    if ask.since(36) {
        let mut metadata: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for (key, value) in volumes.iter().flat_map(|volume| &volume.metadata) {
            let values = metadata.entry(key).or_default();
            if !values.contains(&value.as_str()) {
                values.push(value);
            }
        }
        body["metadata"] = json!(metadata);
    }
    ask.reply(200, &json!({"volume-summary": body}))
}

/// A volume with all that is shown of it.
pub fn seen(reader: &mut Reader, volume: Stored<Volume>) -> Result<(Stored<Volume>, Sight)> {
    let sight = Sight::of(reader, &volume)?;
    Ok((volume, sight))
}

pub async fn create(state: Arc<Volumes>, mut call: Call) -> Result<Reply> {
    let (ask, body) = Ask::read(&mut call).await?;
    ask.enforce_own()?;
    let wanted = Wanted::read(&ask, &body)?;
    let inner = state.clone();
    let (volume, sight) = state
        .write(&ask, move |tx, ask| {
            let volume = make(&inner, tx, ask, &wanted)?;
            let volume = tx.need::<Volume>(&volume.id)?;
            seen(tx, volume)
        })
        .await?;
    ask.reply(202, &json!({"volume": wire::view(&ask, &volume, &sight, false)}))
}

pub async fn show(state: Arc<Volumes>, call: Call) -> Result<Reply> {
    let ask = Ask::of(&call)?;
    let (volume, sight) = state
        .read(&ask, |reader, ask| {
            let volume = find(reader, ask)?;
            seen(reader, volume)
        })
        .await?;
    ask.reply(200, &json!({"volume": wire::view(&ask, &volume, &sight, true)}))
}

/// Name and description of a body; none: not named.
pub type Named = (Option<Option<String>>, Option<Option<String>>);

pub fn read_names(fields: &mut Fields<'_>) -> Result<Named> {
    let mut text = |key| {
        let value = fields.opt(key);
        let text = value.map(|value| match value {
            Value::Null => Ok(None),
            value => input::text(key, value, 0, 255).map(|text| Some(text.trim().to_owned())),
        });
        text.transpose()
    };
    let name = text("name")?.or(text("display_name")?);
    let description = text("description")?.or(text("display_description")?);
    Ok((name, description))
}

pub async fn update(state: Arc<Volumes>, mut call: Call) -> Result<Reply> {
    let (ask, body) = Ask::read(&mut call).await?;
    let mut outer = Fields::body(&body)?;
    let mut fields = outer.object("volume")?;
    outer.finish()?;
    let (name, description) = read_names(&mut fields)?;
    let metadata = fields.opt("metadata").map(|value| metadata::read("metadata", value)).transpose()?;
    fields.finish()?;
    if ask.since(53) && name.is_none() && description.is_none() && metadata.is_none() {
        return Err(Fault::invalid("volume: name at least one of name, description and metadata"));
    }
    let (volume, sight) = state
        .write(&ask, move |tx, ask| {
            let mut volume = find(tx, ask)?.doc;
            volume.name = name.clone().unwrap_or(volume.name);
            volume.description = description.clone().unwrap_or(volume.description);
            volume.metadata = metadata.clone().unwrap_or(volume.metadata);
            tx.update(&volume)?;
            let volume = tx.need::<Volume>(&volume.id)?;
            seen(tx, volume)
        })
        .await?;
    ask.reply(200, &json!({"volume": wire::view(&ask, &volume, &sight, false)}))
}

pub async fn delete(state: Arc<Volumes>, call: Call) -> Result<Reply> {
    let ask = Ask::of(&call)?;
    let cascade = ask.query.boolean("cascade")?.unwrap_or(false);
    let force = ask.version >= Version(3, 23) && ask.query.boolean("force")?.unwrap_or(false);
    if force {
        ask.enforce_rule("volume:force_delete", &ask.own())?;
    }
    state
        .write(&ask, move |tx, ask| {
            let volume = find(tx, ask)?;
            remove(tx, volume, cascade, force)
        })
        .await?;
    Ok(Reply::empty(202))
}

/// A volume that nothing needs: deleting it is refused while it is attached, offered, or has snapshots.
pub fn remove(tx: &mut Tx, volume: Stored<Volume>, cascade: bool, force: bool) -> Result<()> {
    const GOES: &[&str] = &["available", "creating", "error", "error_restoring", "error_extending", "error_managing"];
    let status = Sight::of(tx, &volume)?.status(&volume);
    if !force && !GOES.contains(&status.as_str()) || status == "in-use" {
        return Err(invalid(format!(
            "Volume status must be available or error or error_restoring or error_extending or error_managing and must \
             not be migrating, attached, belong to a group, have snapshots, awaiting a transfer, or be disassociated \
             from snapshots after volume transfer; it is {status}."
        )));
    }
    let attachments = tx.list::<Attachment>(Query::index("volume", volume.id.as_str()))?;
    if attachments.iter().any(|it| !force || it.by == crate::document::By::Server) {
        return Err(invalid("it is attached. Detach it first."));
    }
    for attachment in attachments {
        tx.delete::<Attachment>(&attachment.id)?;
    }
    if let Some(transfer) = &volume.transfer {
        tx.delete::<crate::transfers::Transfer>(transfer)?;
    }
    place::refuse_frozen(tx, volume.host.as_ref())?;
    if !cascade && tx.count::<Snapshot>(Query::index("volume", volume.id.as_str()).limit(1))? > 0 {
        return Err(invalid("it has snapshots. Delete them first, or delete with cascade."));
    }
    trash::lay(tx, volume)
}
