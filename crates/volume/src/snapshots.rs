//! Snapshots: what a volume was at a moment, kept by the volume's host beside it.
//!
//! The host makes one when the volume's specification names it, crash-consistent where a guest writes; it is there
//! once the host says so.

use crate::document::{Snapshot, Volume, VolumeObserved};
use crate::listing::Listing;
use crate::volumes;
use crate::{Ask, Volumes, metadata, place, quota, sight, table, trash};
use base::{Fault, Result, VolumeSnapshotId};
use rest::input::{self, Fields};
use rest::{Call, Reply, Route};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;
use store::{Query, Reader, Stored, Tx};

/// The most snapshots of a volume: each is a layer that a read may have to go through.
const MOST: usize = 128;

const ACTIONS: &[&str] = &["os-reset_status", "os-update_snapshot_status", "os-force_delete"];

pub fn routes(state: &Arc<Volumes>) -> Vec<Route> {
    let mut routes = table! { state;
        GET "/v3/{project_id}/snapshots" "snapshots:list" "volume:get_all_snapshots" 200 list;
        GET "/v3/{project_id}/snapshots/detail" "snapshots:detail" "volume:get_all_snapshots" 200 detail;
        POST "/v3/{project_id}/snapshots" "snapshots:create" "volume:create_snapshot" 202 create;
        GET "/v3/{project_id}/snapshots/{snapshot_id}" "snapshots:show" "volume:get_snapshot" 200 show;
        PUT "/v3/{project_id}/snapshots/{snapshot_id}" "snapshots:update" "volume:update_snapshot" 200 update;
        DELETE "/v3/{project_id}/snapshots/{snapshot_id}" "snapshots:delete" "volume:delete_snapshot" 202 delete;
        POST "/v3/{project_id}/snapshots/{snapshot_id}/action" "snapshots:action" "snapshot_extension:snapshot_actions:update_snapshot_status" 202 action, actions(ACTIONS);
    };
    routes.extend(metadata::routes::<Snapshot>(state));
    routes
}

const LISTING: Listing = Listing {
    plural: "snapshots",
    filters: &["id", "name", "status", "volume_id", "metadata", "project_id", "created_at", "updated_at"],
    open: Some((31, "snapshot")),
    sorts: &["id", "name", "status", "volume_id", "size", "created_at", "updated_at"],
    brief: &["id", "name", "status", "description", "created_at", "updated_at", "volume_id", "size", "metadata"],
};

fn view(ask: &Ask, snapshot: &Stored<Snapshot>, observed: Option<&VolumeObserved>, full: bool) -> Value {
    let status = sight::snapshot(snapshot, observed);
    let changed = snapshot.updated != snapshot.created;
    let mut view = json!({
        "id": snapshot.id,
        "name": snapshot.name,
        "description": snapshot.description,
        "status": status,
        "size": snapshot.size_gib,
        "volume_id": snapshot.volume,
        "metadata": snapshot.metadata,
        "created_at": snapshot.created.iso_naive(),
        "updated_at": changed.then(|| snapshot.updated.iso_naive()),
    });
    if full {
        view["os-extended-snapshot-attributes:progress"] = json!(match &snapshot.progress {
            Some(said) => said,
            None if status == "available" => "100%",
            None => "0%",
        });
        view["os-extended-snapshot-attributes:project_id"] = json!(snapshot.project_id);
    }
    if ask.since(14) {
        view["group_snapshot_id"] = Value::Null;
    }
    if ask.since(41) {
        view["user_id"] = json!(snapshot.user_id);
    }
    if ask.since(65) {
        view["consumes_quota"] = json!(true);
    }
    view
}

pub fn find(reader: &mut Reader, ask: &Ask) -> Result<Stored<Snapshot>> {
    let id = ask.param("snapshot_id");
    let missing = || Fault::not_found(format!("Snapshot {id:.255} could not be found."));
    let snapshot = reader.get::<Snapshot>(id)?.ok_or_else(missing)?;
    ask.allow(&snapshot.project_id, missing)?;
    Ok(snapshot)
}

/// With what the host says of its volume.
fn seen(reader: &mut Reader, snapshot: Stored<Snapshot>) -> Result<(Stored<Snapshot>, Option<VolumeObserved>)> {
    let observed = reader.get::<VolumeObserved>(&snapshot.volume)?.map(|seen| seen.doc);
    Ok((snapshot, observed))
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
    let inner = ask.clone();
    let items = state
        .store
        .read(move |reader| {
            let observed = sight::Sight::of_all(reader, &query)?.observed;
            let snapshots = reader.list::<Snapshot>(query.clone())?;
            Ok(snapshots.iter().map(|it| view(&inner, it, observed.get(&it.volume), true)).collect::<Vec<_>>())
        })
        .await?;
    ask.reply(200, &LISTING.page(&ask, items, detail)?)
}

async fn show(state: Arc<Volumes>, call: Call) -> Result<Reply> {
    let ask = Ask::of(&call)?;
    let (snapshot, observed) = state
        .read(&ask, |reader, ask| {
            let snapshot = find(reader, ask)?;
            seen(reader, snapshot)
        })
        .await?;
    ask.reply(200, &json!({"snapshot": view(&ask, &snapshot, observed.as_ref(), true)}))
}

async fn create(state: Arc<Volumes>, mut call: Call) -> Result<Reply> {
    let (ask, body) = Ask::read(&mut call).await?;
    let mut outer = Fields::body(&body)?;
    let mut fields = outer.object("snapshot")?;
    outer.finish()?;
    let volume = match fields.opt("volume_id") {
        None => return Err(Fault::invalid("'volume_id' is a required property")),
        Some(Value::Null) => return Err(Fault::not_found("Volume None could not be found.")),
        Some(value) => input::uuid("volume_id", value)?,
    };
    let (name, description) = volumes_names(&mut fields)?;
    let force = fields.opt("force").map(|value| input::boolean("force", value)).transpose()?;
    if force == Some(false) && ask.since(66) {
        return Err(Fault::invalid("Since microversion 3.66 the 'force' flag may only be true, or left out."));
    }
    let force = force.unwrap_or(false) || ask.since(66);
    let metadata = match fields.opt("metadata").filter(|value| !value.is_null()) {
        Some(value) => metadata::read("metadata", value)?,
        None => BTreeMap::new(),
    };
    fields.finish()?;
    let (snapshot, observed) = state
        .write(&ask, move |tx, ask| {
            let found = volumes::of(tx, ask, &volume)?;
            place::refuse_frozen(tx, found.host.as_ref())?;
            let status = sight::status_of(tx, &found)?;
            if !(status == "available" || force && status == "in-use") {
                return Err(volumes::invalid(format!(
                    "Volume {volume} status must be available, but current status is: {status}."
                )));
            }
            let said = Said { name: name.clone(), description: description.clone(), metadata: metadata.clone() };
            let snapshot = keep(tx, ask, found.doc, said)?;
            let snapshot = tx.need::<Snapshot>(&snapshot.id)?;
            seen(tx, snapshot)
        })
        .await?;
    ask.reply(202, &json!({"snapshot": view(&ask, &snapshot, observed.as_ref(), false)}))
}

/// What is said of a new snapshot.
#[derive(Default)]
pub struct Said {
    pub name: Option<String>,
    pub description: Option<String>,
    pub metadata: BTreeMap<String, String>,
}

/// The volume's host is asked to keep it as it is.
pub fn keep(tx: &mut Tx, ask: &Ask, mut volume: Volume, said: Said) -> Result<Snapshot> {
    if tx.count::<Snapshot>(Query::index("volume", volume.id.as_str()))? >= MOST {
        return Err(Fault::too_large(format!("A volume has at most {MOST} snapshots.")));
    }
    volume.touch();
    let snapshot = Snapshot {
        id: VolumeSnapshotId::new(tx.uuid()),
        project_id: volume.project_id.clone(),
        user_id: ask.caller.user_id(),
        volume: volume.id.clone(),
        volume_type: volume.volume_type.clone(),
        name: said.name,
        description: said.description,
        size_gib: volume.size_gib,
        metadata: said.metadata,
        generation: volume.generation,
        passing_since: Some(tx.now()),
        overdue: false,
        forced: None,
        progress: None,
    };
    quota::charge_snapshot(tx, &snapshot)?;
    tx.create(&snapshot)?;
    tx.update(&volume)?;
    Ok(snapshot)
}

fn volumes_names(fields: &mut Fields<'_>) -> Result<(Option<String>, Option<String>)> {
    let (name, description) = volumes::read_names(fields)?;
    Ok((name.flatten(), description.flatten()))
}

async fn update(state: Arc<Volumes>, mut call: Call) -> Result<Reply> {
    let (ask, body) = Ask::read(&mut call).await?;
    let mut outer = Fields::body(&body)?;
    let mut fields = outer.object("snapshot")?;
    outer.finish()?;
    let (named, described) = (["name", "display_name"], ["description", "display_description"]);
    let has = |keys: [&str; 2]| keys.iter().any(|key| body["snapshot"].get(key).is_some());
    let (with_name, with_description) = (has(named), has(described));
    let (name, description) = volumes_names(&mut fields)?;
    fields.finish()?;
    if !with_name && !with_description {
        return Err(Fault::invalid("snapshot: name at least one of name and description"));
    }
    let (snapshot, observed) = state
        .write(&ask, move |tx, ask| {
            let mut snapshot = find(tx, ask)?.doc;
            if with_name {
                snapshot.name = name.clone();
            }
            if with_description {
                snapshot.description = description.clone();
            }
            tx.update(&snapshot)?;
            let snapshot = tx.need::<Snapshot>(&snapshot.id)?;
            seen(tx, snapshot)
        })
        .await?;
    ask.reply(200, &json!({"snapshot": view(&ask, &snapshot, observed.as_ref(), false)}))
}

async fn delete(state: Arc<Volumes>, call: Call) -> Result<Reply> {
    let ask = Ask::of(&call)?;
    state
        .write(&ask, |tx, ask| {
            let snapshot = find(tx, ask)?;
            let (snapshot, observed) = seen(tx, snapshot)?;
            let status = sight::snapshot(&snapshot, observed.as_ref()).to_owned();
            if !["available", "creating", "error"].contains(&status.as_str()) {
                return Err(Fault::invalid(format!(
                    "Invalid snapshot: Snapshot status must be available or error, but it is {status}."
                )));
            }
            refuse_frozen(tx, &snapshot)?;
            trash::lay_snapshot(tx, snapshot, true)
        })
        .await?;
    Ok(Reply::empty(202))
}

/// Refuses where the back-end of its volume is frozen.
fn refuse_frozen(reader: &mut Reader, snapshot: &Snapshot) -> Result<()> {
    let volume = reader.get::<Volume>(&snapshot.volume)?;
    place::refuse_frozen(reader, volume.as_ref().and_then(|volume| volume.host.as_ref()))
}

async fn action(state: Arc<Volumes>, mut call: Call) -> Result<Reply> {
    let (ask, body) = Ask::read(&mut call).await?;
    let (name, value) = input::action(&body)?;
    let (name, value) = (name.to_owned(), value.clone());
    state
        .write(&ask, move |tx, ask| {
            let snapshot = find(tx, ask)?;
            let target = policy::Target::project(snapshot.project_id.to_string());
            match name.as_str() {
                "os-reset_status" => {
                    ask.enforce_rule("volume_extension:snapshot_admin_actions:reset_status", &target)?;
                    let doc = Snapshot { forced: reset(&value)?, ..snapshot.doc };
                    tx.update(&doc)?;
                    Ok(())
                }
                "os-update_snapshot_status" => {
                    ask.enforce_rule(ask.rule, &target)?;
                    let (snapshot, observed) = seen(tx, snapshot)?;
                    let now = sight::snapshot(&snapshot, observed.as_ref()).to_owned();
                    let (forced, progress) = moved(&now, Fields::of(&name, &value)?)?;
                    let doc = Snapshot { forced, progress, ..snapshot.doc };
                    tx.update(&doc)?;
                    Ok(())
                }
                "os-force_delete" => {
                    ask.enforce_rule("volume_extension:snapshot_admin_actions:force_delete", &target)?;
                    refuse_frozen(tx, &snapshot)?;
                    trash::lay_snapshot(tx, snapshot, true)
                }
                other => Err(Fault::invalid(format!("There is no such action: {other:.100}"))),
            }
        })
        .await?;
    Ok(Reply::empty(202))
}

/// What a driver may say of a snapshot that is on its way: its status, unless it is what it really is, and how far it is.
fn moved(now: &str, mut fields: Fields<'_>) -> Result<(Option<String>, Option<String>)> {
    let progress = fields.text_or_null("progress", 1, 4)?;
    let percent =
        |text: &str| text.strip_suffix('%').and_then(|text| text.parse::<u8>().ok()).is_some_and(|it| it <= 100);
    if let Some(progress) = progress.as_ref().filter(|text| !percent(text)) {
        return Err(Fault::invalid(format!("progress must be an integer percentage, not {progress}")));
    }
    let status = input::text("status", fields.need("status")?, 1, 64)?;
    fields.finish()?;
    let next: &[&str] = match now {
        "creating" => &["creating", "available", "error"],
        "deleting" => &["deleting", "error_deleting"],
        _ => return Err(Fault::invalid(format!("Snapshot status {now} not allowed for update_snapshot_status"))),
    };
    match next.contains(&status.as_str()) {
        true => Ok(((status != "available").then_some(status), progress)),
        false => Err(Fault::invalid(format!(
            "Provided snapshot status {status} not allowed for snapshot with status {now}."
        ))),
    }
}

/// What `os-reset_status` takes, as Cinder does.
const STATUSES: &[&str] = &[
    "error",
    "available",
    "creating",
    "deleting",
    "deleted",
    "updating",
    "error_deleting",
    "unmanaging",
    "backing-up",
    "restoring",
];

/// `available` means: what it really is.
fn reset(value: &Value) -> Result<Option<String>> {
    let mut fields = Fields::of("os-reset_status", value)?;
    let status = input::text("status", fields.need("status")?, 1, 64)?.to_lowercase();
    fields.finish()?;
    if !STATUSES.contains(&status.as_str()) {
        return Err(Fault::invalid(format!("Must specify a valid status. Provided status: {status}")));
    }
    Ok((status != "available").then_some(status))
}
