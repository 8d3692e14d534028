//! Transfers: a volume offered to whoever knows the key, and taken over by another project. Two paths lead here: the
//! old `os-volume-transfer` and, from 3.55 on, `volume-transfers`.
//!
//! The key is shown once; what is kept is its hash.

use crate::document::{Attachment, Snapshot, Volume, VolumeObserved};
use crate::listing::{self, Listing};
use crate::types::{self, VolumeType};
use crate::volumes::{self, invalid};
use crate::{Ask, Volumes, quota, sight, table};
use base::{Fault, ProjectId, Result, VolumeId};
use rest::input::{self, Fields};
use rest::{Call, Reply, Route};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::sync::Arc;
use store::{Document, Keys, Query, Reader, Stored};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Transfer {
    pub id: String,
    pub project_id: ProjectId,
    pub volume: VolumeId,
    pub name: Option<String>,
    /// SHA-256 of id and key.
    pub key_hash: String,
    pub no_snapshots: bool,
}

impl Document for Transfer {
    const KIND: &'static str = "volume_transfer";
    const TRASH: bool = false;
    fn id(&self) -> &str {
        &self.id
    }
    fn project_id(&self) -> &str {
        &self.project_id
    }
    fn keys(&self, keys: &mut Keys) {
        keys.unique("volume", [self.volume.as_str()]);
    }
}

pub fn routes(state: &Arc<Volumes>) -> Vec<Route> {
    const KEY: &str = "a key is shown once, and only its hash is kept";
    let old = table! { state;
        GET "/v3/{project_id}/os-volume-transfer" "transfers:list" "volume:get_all_transfers" 200 list;
        GET "/v3/{project_id}/os-volume-transfer/detail" "transfers:detail" "volume:get_all_transfers" 200 detail;
        POST "/v3/{project_id}/os-volume-transfer" "transfers:create" "volume:create_transfer" 202 create;
        GET "/v3/{project_id}/os-volume-transfer/{transfer_id}" "transfers:show" "volume:get_transfer" 200 show;
        DELETE "/v3/{project_id}/os-volume-transfer/{transfer_id}" "transfers:delete" "volume:delete_transfer" 202 delete, no_undo(KEY);
        POST "/v3/{project_id}/os-volume-transfer/{transfer_id}/accept" "transfers:accept" "volume:accept_transfer" 202 accept, no_undo("what another project has taken over is its own");
    };
    let new = table! { state;
        GET "/v3/{project_id}/volume-transfers" "new_transfers:list" "volume:get_all_transfers" 200 list, since(3, 55);
        GET "/v3/{project_id}/volume-transfers/detail" "new_transfers:detail" "volume:get_all_transfers" 200 detail, since(3, 55);
        POST "/v3/{project_id}/volume-transfers" "new_transfers:create" "volume:create_transfer" 202 create, since(3, 55);
        GET "/v3/{project_id}/volume-transfers/{transfer_id}" "new_transfers:show" "volume:get_transfer" 200 show, since(3, 55);
        DELETE "/v3/{project_id}/volume-transfers/{transfer_id}" "new_transfers:delete" "volume:delete_transfer" 202 delete, since(3, 55), no_undo(KEY);
        POST "/v3/{project_id}/volume-transfers/{transfer_id}/accept" "new_transfers:accept" "volume:accept_transfer" 202 accept, since(3, 55), no_undo("what another project has taken over is its own");
    };
    [old, new].concat()
}

const LISTING: Listing = Listing {
    plural: "transfers",
    filters: &["id", "name", "volume_id"],
    open: None,
    sorts: &["id", "name", "volume_id", "created_at"],
    brief: &["id", "name", "volume_id", "links"],
};

fn is_new(ask: &Ask) -> bool {
    ask.operation.starts_with("new_")
}

fn view(ask: &Ask, transfer: &Stored<Transfer>) -> Value {
    let path = if is_new(ask) { "volume-transfers" } else { "os-volume-transfer" };
    let mut view = json!({
        "id": transfer.id,
        "name": transfer.name,
        "volume_id": transfer.volume,
        "created_at": transfer.created.iso_naive(),
        "links": ask.links(&format!("/{path}/{}", transfer.id)),
    });
    if ask.since(55) {
        view["no_snapshots"] = json!(transfer.no_snapshots);
    }
    if ask.since(57) {
        view["source_project_id"] = json!(transfer.project_id);
        view["destination_project_id"] = Value::Null;
        view["accepted"] = json!(false);
    }
    view
}

fn hash(id: &str, key: &str) -> String {
    let digest = Sha256::new().chain_update(id).chain_update(":").chain_update(key).finalize();
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// One's own transfer. Who accepts one of another project knows its key.
fn find(reader: &mut Reader, ask: &Ask) -> Result<Stored<Transfer>> {
    let missing = || Fault::not_found(format!("Transfer {} could not be found.", ask.param("transfer_id")));
    let transfer = reader.get::<Transfer>(ask.param("transfer_id"))?.ok_or_else(missing)?;
    ask.allow(&transfer.project_id, missing)?;
    Ok(transfer)
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
    let transfers = state.store.list::<Transfer>(query).await?;
    let items = transfers.iter().map(|transfer| view(&ask, transfer)).collect();
    ask.reply(200, &LISTING.page(&ask, items, detail)?)
}

async fn show(state: Arc<Volumes>, call: Call) -> Result<Reply> {
    let ask = Ask::of(&call)?;
    let transfer = state.read(&ask, find).await?;
    ask.reply(200, &json!({"transfer": view(&ask, &transfer)}))
}

async fn create(state: Arc<Volumes>, mut call: Call) -> Result<Reply> {
    let (ask, body) = Ask::read(&mut call).await?;
    let mut outer = Fields::body(&body)?;
    let mut fields = outer.object("transfer")?;
    outer.finish()?;
    let volume = input::uuid("volume_id", fields.need("volume_id")?)?;
    let name = fields.text_or_null("name", 0, 255)?.map(|name| name.trim().to_owned());
    let no_snapshots = match is_new(&ask) {
        true => fields.boolean("no_snapshots")?.unwrap_or(false),
        false => false,
    };
    fields.finish()?;
    let key = state.env.secret_hex(16);
    let given = key.clone();
    let transfer = state
        .write(&ask, move |tx, ask| {
            let found = volumes::of(tx, ask, &volume)?;
            let status = sight::status_of(tx, &found)?;
            if status != "available" {
                return Err(invalid(format!("status must be available to offer it, not {status}")));
            }
            let seen = tx.get::<VolumeObserved>(&found.id)?.map(|seen| seen.doc);
            for snapshot in tx.list::<Snapshot>(Query::index("volume", found.id.as_str()))? {
                if no_snapshots {
                    return Err(invalid("it has snapshots, which would stay with the project"));
                }
                if sight::snapshot(&snapshot, seen.as_ref()) != "available" {
                    let why = format!("Invalid snapshot: snapshot: {} status must be available", snapshot.id);
                    return Err(Fault::invalid(why));
                }
            }
            let id = tx.uuid();
            let key_hash = hash(&id, &key);
            let (project_id, name) = (found.project_id.clone(), name.clone());
            let transfer =
                Transfer { id: id.clone(), project_id, volume: found.id.clone(), name, key_hash, no_snapshots };
            tx.update(&Volume { transfer: Some(id), ..found.doc })?;
            Ok(tx.create(&transfer)?)
        })
        .await?;
    let mut view = view(&ask, &transfer);
    view["auth_key"] = json!(given);
    ask.reply(202, &json!({"transfer": view}))
}

async fn delete(state: Arc<Volumes>, call: Call) -> Result<Reply> {
    let ask = Ask::of(&call)?;
    state
        .write(&ask, |tx, ask| {
            let transfer = find(tx, ask)?;
            if let Some(volume) = tx.get::<Volume>(&transfer.volume)? {
                tx.update(&Volume { transfer: None, ..volume.doc })?;
            }
            Ok(tx.delete::<Transfer>(&transfer.id).map(drop)?)
        })
        .await?;
    Ok(Reply::empty(202))
}

async fn accept(state: Arc<Volumes>, mut call: Call) -> Result<Reply> {
    let (ask, body) = Ask::read(&mut call).await?;
    ask.enforce_own()?;
    let mut outer = Fields::body(&body)?;
    let mut fields = outer.object("accept")?;
    outer.finish()?;
    let key = match fields.need("auth_key")? {
        Value::Number(number) if number.is_u64() => number.to_string(),
        value => input::text("auth_key", value, 1, 255)?,
    };
    fields.finish()?;
    let transfer = state
        .write(&ask, move |tx, ask| {
            let id = ask.param("transfer_id");
            let transfer = tx.get::<Transfer>(id)?;
            let transfer =
                transfer.ok_or_else(|| Fault::not_found(format!("Transfer {id:.255} could not be found.")))?;
            if hash(&transfer.id, &key) != transfer.key_hash {
                return Err(Fault::invalid(format!(
                    "Invalid auth key: Attempt to transfer {id} with invalid auth key."
                )));
            }
            let volume = tx.need::<Volume>(&transfer.volume)?.doc;
            if tx.count::<Attachment>(Query::index("volume", volume.id.as_str()))? > 0 {
                return Err(invalid("it is attached"));
            }
            let kind = tx.need::<VolumeType>(&volume.volume_type)?;
            if !types::visible(ask, &kind) {
                return Err(Fault::not_found(format!("Volume type {} could not be found.", kind.id)));
            }
            let (project, user) = (ask.project()?, ask.caller.user_id());
            quota::release_volume(tx, &volume)?;
            let volume = Volume { project_id: project.clone(), user_id: user.clone(), transfer: None, ..volume };
            quota::charge_volume(tx, &volume)?;
            tx.update(&volume)?;
            if let Some(seen) = tx.get::<VolumeObserved>(&volume.id)? {
                tx.update(&VolumeObserved { project_id: project.clone(), ..seen.doc })?;
            }
            for snapshot in tx.list::<Snapshot>(Query::index("volume", volume.id.as_str()))? {
                quota::release_snapshot(tx, &snapshot)?;
                let snapshot = Snapshot { project_id: project.clone(), user_id: user.clone(), ..snapshot.doc };
                quota::charge_snapshot(tx, &snapshot)?;
                tx.update(&snapshot)?;
            }
            Ok(tx.delete::<Transfer>(&transfer.id)?)
        })
        .await?;
    let mut view = view(&ask, &transfer);
    listing::keep(&mut view, &["id", "name", "volume_id", "links"]);
    ask.reply(202, &json!({"transfer": view}))
}
