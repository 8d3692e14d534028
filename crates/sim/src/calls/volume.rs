//! Bodies of the volume service.

use super::Gen;
use crate::known::Thing;
use serde_json::{Value, json};

pub fn body(g: &Gen, operation: &str) -> Option<Value> {
    if let Some(operation) = operation.strip_prefix("new_") {
        return body(g, operation);
    }
    Some(match operation {
        "volumes:create" => volume(g),
        "volumes:update" | "volumes:update_nameless" => {
            json!({"volume": {"name": g.name("volume"), "metadata": {g.word(): g.word()}}})
        }
        "volumes:action" => action(g),
        "snapshots:create" => json!({"snapshot": {"volume_id": g.id("volumes"), "name": g.name("snapshot"),
            "force": g.chance(50)}}),
        "snapshots:update" => json!({"snapshot": {"name": g.name("snapshot")}}),
        "snapshots:action" => match g.dice.below(3) {
            0 => json!({"os-reset_status": {"status": "available"}}),
            1 => json!({"os-update_snapshot_status": {"status": "available", "progress": "10%"}}),
            _ => json!({"os-force_delete": null}),
        },
        "volume_metadata:create"
        | "volume_metadata:replace"
        | "snapshot_metadata:create"
        | "snapshot_metadata:replace" => json!({"metadata": {g.word(): g.word()}}),
        "volume_metadata:update" | "snapshot_metadata:update" => json!({"meta": {g.word(): g.word()}}),
        "types:create" => {
            json!({"volume_type": {"name": g.name("type"), "os-volume-type-access:is_public": g.chance(80)}})
        }
        "types:update" => json!({"volume_type": {"name": g.name("type"), "description": g.word()}}),
        "types:action" => {
            let action = g.dice.of(["addProjectAccess", "removeProjectAccess"]);
            json!({action: {"project": g.id("projects")}})
        }
        "extra_specs:create" => json!({"extra_specs": {"volume_backend_name": g.dice.of(["file", "file", "none"])}}),
        "extra_specs:update" => json!({g.word(): g.word()}),
        "qos:create" => json!({"qos_specs": {"name": g.name("qos"), "consumer": "both", "a": "1"}}),
        "qos:update" => json!({"qos_specs": {g.word(): "2"}}),
        "qos:delete_keys" => json!({"keys": [g.word()]}),
        "attachments:create" => {
            let mut attachment = json!({"volume_uuid": g.id("volumes"), "instance_uuid": g.id("servers")});
            if g.chance(50) {
                attachment["connector"] = json!({"host": "elsewhere"});
            }
            json!({"attachment": attachment})
        }
        "attachments:update" => json!({"attachment": {"connector": {"host": "elsewhere", "mountpoint": "/dev/vdb"}}}),
        "attachments:action" => json!({"os-complete": {}}),
        "transfers:create" => json!({"transfer": {"volume_id": g.id("volumes"), "name": g.name("transfer")}}),
        "transfers:accept" => {
            let key = offer(g).filter(|_| g.chance(85)).map(|offer| &offer.value["auth_key"]);
            json!({"accept": {"auth_key": key.unwrap_or(&json!("no key that anybody knows"))}})
        }
        "quota_sets:update" => json!({"quota_set": {"volumes": 10 + g.dice.below(90)}}),
        "quota_classes:update" => json!({"quota_class_set": {"snapshots": 10 + g.dice.below(90)}}),
        "volume_services:update" => json!({"host": "sim-1@file", "binary": "cinder-volume"}),
        _ => return None,
    })
}

/// The last volume that was offered to whoever knows the key.
pub fn offer<'a>(g: &Gen<'a>) -> Option<&'a Thing> {
    let all = ["os-volume-transfer", "volume-transfers"].into_iter().flat_map(|class| g.known.all(class));
    all.filter(|thing| thing.value["auth_key"].is_string()).last()
}

fn volume(g: &Gen) -> Value {
    let mut volume = json!({"name": g.name("volume"), "size": g.dice.of([1, 1, 1, 2, 3])});
    match g.dice.below(8) {
        0 => volume["snapshot_id"] = g.id("snapshots").into(),
        1 => volume["source_volid"] = g.id("volumes").into(),
        2 => volume["imageRef"] = g.id("images").into(),
        3 => volume["volume_type"] = g.id("types").into(),
        _ => {}
    }
    json!({"volume": volume})
}

fn action(g: &Gen) -> Value {
    match g.dice.below(18) {
        15 => json!({"nubo-flatten": null}),
        16 | 17 => json!({"os-volume_upload_image": {"image_name": g.name("image"), "disk_format": "qcow2",
            "force": g.chance(60)}}),
        0..3 => json!({"os-extend": {"new_size": 1 + g.dice.below(6)}}),
        3 => json!({"os-reserve": null}),
        4 => json!({"os-unreserve": null}),
        5 => json!({"os-attach": {"instance_uuid": g.id("servers"), "mountpoint": "/dev/vdb"}}),
        6 => json!({"os-detach": {}}),
        7 => json!({"os-begin_detaching": null}),
        8 => json!({"os-roll_detaching": null}),
        9 => json!({"os-set_bootable": {"bootable": g.chance(50)}}),
        10 => json!({"os-update_readonly_flag": {"readonly": g.chance(50)}}),
        11 => json!({"os-set_image_metadata": {"metadata": {g.word(): g.word()}}}),
        13 => json!({"os-retype": {"new_type": g.id("types"), "migration_policy": "never"}}),
        12 => json!({"os-reset_status": {"status": g.dice.of(["available", "available", "error"])}}),
        _ => {
            json!({g.dice.of(["os-show_image_metadata", "os-initialize_connection", "os-force_detach", "os-force_delete"]):
            {"connector": {"host": "elsewhere"}}})
        }
    }
}
