//! Volumes as the API shows them.

use crate::Ask;
use crate::document::{Attachment, Origin, Volume};
use crate::sight::Sight;
use model::volume::Stage;
use serde_json::{Map, Value, json};
use store::Stored;

/// What a volume is made of, as the API tells it: (snapshot_id, source_volid).
fn made_of(volume: &Volume) -> (Value, Value) {
    match &volume.origin {
        Origin::Snapshot { snapshot, .. } => (json!(snapshot), Value::Null),
        Origin::Volume { volume } => (Value::Null, json!(volume)),
        Origin::Blank | Origin::Image { .. } => (Value::Null, Value::Null),
    }
}

fn attachment(attachment: &Stored<Attachment>, admin: bool) -> Value {
    json!({
        "id": attachment.volume,
        "attachment_id": attachment.id,
        "volume_id": attachment.volume,
        "server_id": attachment.server,
        "host_name": attachment.host_name.as_ref().filter(|_| admin),
        "device": attachment.device,
        "attached_at": attachment.attached_at.map(|at| at.iso_naive()),
    })
}

/// The metadata of users, and what Cinder shows among it.
pub fn metadata(volume: &Volume, sight: &Sight) -> Map<String, Value> {
    let mut metadata: Map<String, Value> = volume.metadata.iter().map(|(k, v)| (k.clone(), json!(v))).collect();
    if let Some(read_only) = volume.read_only {
        metadata.insert("readonly".into(), json!(if read_only { "True" } else { "False" }));
    }
    let attached = sight.attachments(&volume.id).iter().find(|it| it.stage == Stage::Attached);
    if let Some(attached) = attached {
        metadata.insert("attached_mode".into(), json!(attached.mode));
    }
    metadata
}

/// `full`: as show and detail have it; creating and updating answer with less.
pub fn view(ask: &Ask, volume: &Stored<Volume>, sight: &Sight, full: bool) -> Value {
    let admin = ask.is_admin();
    let (snapshot_id, source_volid) = made_of(volume);
    let shown = sight.attachments(&volume.id).iter();
    let shown = shown.filter(|it| matches!(it.stage, Stage::Attached | Stage::Detaching));
    let changed = volume.updated != volume.created;
    let mut view = json!({
        "id": volume.id,
        "name": volume.name,
        "description": volume.description,
        "status": sight.status(volume),
        "size": volume.size_gib,
        "availability_zone": volume.zone,
        "created_at": volume.created.iso_naive(),
        "updated_at": changed.then(|| volume.updated.iso_naive()),
        "volume_type": sight.types.get(&volume.volume_type),
        "snapshot_id": snapshot_id,
        "source_volid": source_volid,
        "metadata": metadata(volume, sight),
        "bootable": volume.bootable.to_string(),
        "encrypted": false,
        "multiattach": volume.multiattach,
        "replication_status": Value::Null,
        "consistencygroup_id": Value::Null,
        "user_id": volume.user_id,
        "attachments": shown.map(|it| attachment(it, admin)).collect::<Vec<_>>(),
        "links": ask.links(&format!("/volumes/{}", volume.id)),
    });
    if admin {
        view["migration_status"] = Value::Null;
    }
    if ask.since(13) {
        view["group_id"] = Value::Null;
    }
    if ask.since(21) && admin {
        view["provider_id"] = Value::Null;
    }
    if ask.since(48) {
        view["shared_targets"] = json!(false);
        view["service_uuid"] = Value::Null;
    }
    if ask.since(61) && admin {
        view["cluster_name"] = Value::Null;
    }
    if ask.since(63) {
        view["volume_type_id"] = json!(volume.volume_type);
    }
    if ask.since(65) {
        view["consumes_quota"] = json!(true);
    }
    if full {
        extended(ask, volume, &mut view);
    }
    view
}

fn extended(ask: &Ask, volume: &Volume, view: &mut Value) {
    if ask.may("volume_extension:volume_host_attribute", &ask.own()) {
        let host = volume.host.as_ref().map(|host| format!("{host}@file#file"));
        view["os-vol-host-attr:host"] = json!(host);
    }
    if ask.may("volume_extension:volume_mig_status_attribute", &ask.own()) {
        view["os-vol-mig-status-attr:migstat"] = Value::Null;
        view["os-vol-mig-status-attr:name_id"] = Value::Null;
    }
    view["os-vol-tenant-attr:tenant_id"] = json!(volume.project_id);
    if !volume.image_metadata.is_empty() {
        view["volume_image_metadata"] = json!(volume.image_metadata);
    }
}
