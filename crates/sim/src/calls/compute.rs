//! Bodies of the compute service.

use super::Gen;
use serde_json::{Map, Value, json};

pub fn body(g: &Gen, operation: &str) -> Option<Value> {
    Some(match operation {
        "servers:create" => server(g),
        "servers:action" => action(g),
        "servers:update" => json!({"server": {"name": g.name("server")}}),
        "flavors:create" => json!({"flavor": {"name": g.name("flavor"), "ram": g.dice.of([64, 256, 1 << 20]),
            "vcpus": g.dice.of([1, 2, 100]), "disk": g.dice.of([0, 1, 5])}}),
        "flavors:update" => json!({"flavor": {"description": g.word()}}),
        "flavors:action" => {
            let action = g.dice.of(["addTenantAccess", "removeTenantAccess"]);
            json!({action: {"tenant": g.id("projects")}})
        }
        "flavors:extra_specs:create" => json!({"extra_specs": {"nubo:on_crash": g.dice.of(["restart", "stop", "x"])}}),
        "flavors:extra_specs:update" => json!({g.word(): g.word()}),
        "keypairs:create" => json!({"keypair": {"name": g.name("key")}}),
        "metadata:create" | "metadata:replace" => json!({"metadata": {g.word(): g.word()}}),
        "metadata:update" => json!({"meta": {g.word(): g.word()}}),
        "tags:replace" => json!({"tags": g.words()}),
        "tags:add" => Value::Null,
        "interfaces:create" => json!({"interfaceAttachment": if g.chance(50) {
            json!({"net_id": g.id("networks")})
        } else {
            json!({"port_id": g.id("ports")})
        }}),
        "volume_attachments:create" => {
            let mut wanted = json!({"volumeId": g.id("volumes")});
            if g.chance(30) {
                wanted["device"] = g.dice.of(["/dev/vdb", "/dev/vdd", "/dev/sdx"]).into();
            }
            json!({"volumeAttachment": wanted})
        }
        "volume_attachments:update" => json!({"volumeAttachment": {"volumeId": g.id("os-volume_attachments"),
            "delete_on_termination": g.chance(50)}}),
        "remote_consoles:create" => {
            json!({"remote_console": {"protocol": g.dice.of(["vnc", "serial"]), "type": g.dice.of(["novnc", "serial"])}})
        }
        "services:update" => json!({"status": g.dice.of(["enabled", "enabled", "disabled"])}),
        "quotas:update" => json!({"quota_set": quota(g)}),
        "quota_classes:update" => json!({"quota_class_set": quota(g)}),
        _ => return None,
    })
}

fn quota(g: &Gen) -> Value {
    let mut quota = Map::new();
    quota.insert(g.dice.of(["cores", "instances", "ram"]).to_owned(), g.dice.of([-1, 20, 100, 51_200]).into());
    Value::Object(quota)
}

fn server(g: &Gen) -> Value {
    let mut server =
        json!({"name": g.name("server"), "imageRef": fixed(g, "images"), "flavorRef": fixed(g, "flavors")});
    server["networks"] = match g.dice.below(10) {
        0 => json!("auto"),
        1 => json!("none"),
        2 | 3 => json!([{"port": g.id("ports")}]),
        4 => json!([{"uuid": g.id("networks")}, {"uuid": g.id("networks")}]),
        5 => json!([{"uuid": g.id("networks"), "fixed_ip": g.address()}]),
        _ => json!([{"uuid": g.id("networks")}]),
    };
    if g.chance(15) {
        server["min_count"] = 1.into();
        server["max_count"] = g.dice.between(2, 4).into();
    }
    if g.chance(10) {
        server["key_name"] = g.id("os-keypairs").into();
    }
    if g.chance(10) {
        server["metadata"] = json!({g.word(): g.word()});
    }
    if g.chance(10) {
        server["security_groups"] = json!([{"name": g.dice.of(["default", "group-1", "none"])}]);
    }
    if g.chance(25) {
        disks(g, &mut server);
    }
    if g.chance(5) {
        server["user_data"] = "IyEvYmluL3NoCg==".into();
    }
    if g.chance(5) {
        server["availability_zone"] = g.dice.of(["nova", "nova:sim-1", "elsewhere"]).into();
    }
    json!({"server": server})
}

/// Volumes of its own, one to boot from or one beside the local disk.
fn disks(g: &Gen, server: &mut Value) {
    let delete = g.chance(50);
    let volume = match g.dice.below(6) {
        0 | 1 => json!({"source_type": "image", "uuid": fixed(g, "images"), "volume_size": 1, "boot_index": 0}),
        2 => json!({"source_type": "volume", "uuid": g.id("volumes"), "boot_index": g.dice.of([0, -1])}),
        3 => json!({"source_type": "volume", "uuid": g.id("volumes"), "boot_index": -1}),
        4 => json!({"source_type": "snapshot", "uuid": g.id("snapshots"), "boot_index": g.dice.of([0, -1])}),
        _ => json!({"source_type": "blank", "volume_size": 1, "boot_index": -1}),
    };
    if volume["boot_index"] == 0 {
        server["imageRef"] = "".into();
    }
    let mut list = vec![volume];
    if g.chance(20) {
        list.push(json!({"source_type": "blank", "volume_size": 2, "boot_index": -1}));
    }
    for volume in &mut list {
        volume["destination_type"] = "volume".into();
        volume["delete_on_termination"] = delete.into();
    }
    server["block_device_mapping_v2"] = list.into();
}

/// Mostly one that serves.
fn fixed(g: &Gen, class: &str) -> String {
    let fixed: Vec<_> = g.known.all(class).iter().filter(|thing| thing.fixed).collect();
    match g.dice.pick(&fixed).filter(|_| g.chance(90)) {
        Some(thing) => thing.id.clone(),
        None => g.id(class),
    }
}

fn action(g: &Gen) -> Value {
    match g.dice.below(27) {
        0..3 => json!({"os-stop": null}),
        3..6 => json!({"os-start": null}),
        6 => json!({"reboot": {"type": "SOFT"}}),
        7 => json!({"reboot": {"type": "HARD"}}),
        8 | 9 => json!({"pause": null}),
        10 | 11 => json!({"unpause": null}),
        12 => json!({"suspend": null}),
        13 => json!({"resume": null}),
        14 => json!({"lock": null}),
        15 => json!({"unlock": null}),
        16 => json!({"forceDelete": null}),
        17 => json!({"os-getConsoleOutput": {"length": 10}}),
        18 => json!({"os-getConsoleOutput": {}}),
        19 => json!({"os-resetState": {"state": g.dice.of(["active", "error"])}}),
        20 => json!({"addSecurityGroup": {"name": g.dice.of(["default", "twin", "none"])}}),
        21 => json!({"removeSecurityGroup": {"name": "default"}}),
        22 => json!({"restore": null}),
        25 => json!({"nubo-flatten": null}),
        23 | 24 => json!({"createImage": {"name": g.name("image"), "metadata": {g.word(): g.word()}}}),
        _ => json!({"os-getVNCConsole": {"type": "novnc"}}),
    }
}
