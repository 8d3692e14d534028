//! Flavors as clients see them.

use super::Flavor;
use crate::Ask;
use crate::input::{drop_field, refuse_new};
use rest::{Change, Version};
use serde_json::{Value, json};
use store::Stored;

const ALL: &[&str] = &["flavors:detail", "flavors:show", "flavors:create", "flavors:update"];

pub const CHANGES: &[Change] = &[
    Change {
        since: Version(2, 55),
        operations: ALL,
        request: Some(|body| refuse_new(body, "flavor", "description")),
        response: Some(|body| each(body, |flavor| drop_field(flavor, "description"))),
    },
    Change {
        since: Version(2, 61),
        operations: ALL,
        request: None,
        response: Some(|body| each(body, |flavor| drop_field(flavor, "extra_specs"))),
    },
    Change { since: Version(2, 75), operations: ALL, request: None, response: Some(|body| each(body, empty_swap)) },
];

fn each(body: &mut Value, change: fn(&mut Value)) {
    if let Some(flavor) = body.get_mut("flavor") {
        change(flavor);
    }
    for flavor in body.get_mut("flavors").and_then(Value::as_array_mut).into_iter().flatten() {
        change(flavor);
    }
}

/// Until 2.75 no swap was an empty string.
fn empty_swap(flavor: &mut Value) {
    if flavor["swap"] == 0 {
        flavor["swap"] = json!("");
    }
}

pub fn brief(ask: &Ask, flavor: &Flavor) -> Value {
    let mut brief =
        json!({"id": flavor.id, "name": flavor.name, "links": ask.links(&format!("/flavors/{}", flavor.id))});
    if ask.version >= Version(2, 55) {
        brief["description"] = json!(flavor.description);
    }
    brief
}

pub fn whole(ask: &Ask, flavor: &Stored<Flavor>) -> Value {
    let mut whole = json!({
        "id": flavor.id,
        "name": flavor.name,
        "ram": flavor.ram_mib,
        "disk": flavor.disk_gib,
        "swap": flavor.swap_mib,
        "OS-FLV-EXT-DATA:ephemeral": flavor.ephemeral_gib,
        "OS-FLV-DISABLED:disabled": false,
        "vcpus": flavor.vcpus,
        "os-flavor-access:is_public": flavor.is_public,
        "rxtx_factor": flavor.rxtx_factor,
        "description": flavor.description,
        "links": ask.links(&format!("/flavors/{}", flavor.id)),
    });
    if ask.may("os_compute_api:os-flavor-extra-specs:index", &ask.own()) {
        whole["extra_specs"] = json!(flavor.extra_specs);
    }
    whole
}
