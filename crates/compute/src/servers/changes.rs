//! What each microversion changed in servers. The newest shape is in [`super::render`] and [`super::create`].
//!
//! One step is not here: until 2.46 a server's flavor was a link. The newest shape does not hold the flavor's id, so
//! the link is made where the flavor is still known, in `render`.

use crate::input::{drop_field, refuse_new};
use base::Result;
use rest::{Change, Version};
use serde_json::{Value, json};

const SHOWN: &[&str] = &["servers:detail", "servers:show", "servers:update"];
const CREATE: &[&str] = &["servers:create"];
const WRITE: &[&str] = &["servers:create", "servers:update"];

pub const CHANGES: &[Change] = &[
    Change {
        since: Version(2, 3),
        operations: SHOWN,
        request: None,
        response: Some(|body| each(body, without_more_attributes)),
    },
    Change {
        since: Version(2, 9),
        operations: SHOWN,
        request: None,
        response: Some(|body| each(body, |s| drop_field(s, "locked"))),
    },
    Change {
        since: Version(2, 16),
        operations: SHOWN,
        request: None,
        response: Some(|body| each(body, |s| drop_field(s, "host_status"))),
    },
    Change {
        since: Version(2, 19),
        operations: SHOWN,
        request: None,
        response: Some(|body| each(body, |s| drop_field(s, "description"))),
    },
    Change {
        since: Version(2, 19),
        operations: WRITE,
        request: Some(|body| refuse_new(body, "server", "description")),
        response: None,
    },
    Change {
        since: Version(2, 26),
        operations: SHOWN,
        request: None,
        response: Some(|body| each(body, |s| drop_field(s, "tags"))),
    },
    Change {
        since: Version(2, 32),
        operations: CREATE,
        request: Some(|body| refuse_in_networks(body, "tag")),
        response: None,
    },
    Change { since: Version(2, 37), operations: CREATE, request: Some(default_networks), response: None },
    Change {
        since: Version(2, 52),
        operations: CREATE,
        request: Some(|body| refuse_new(body, "server", "tags")),
        response: None,
    },
    Change { since: Version(2, 57), operations: CREATE, request: Some(drop_personality), response: None },
    Change {
        since: Version(2, 63),
        operations: CREATE,
        request: Some(|body| refuse_new(body, "server", "trusted_image_certificates")),
        response: None,
    },
    Change {
        since: Version(2, 63),
        operations: SHOWN,
        request: None,
        response: Some(|body| each(body, |s| drop_field(s, "trusted_image_certificates"))),
    },
    Change {
        since: Version(2, 71),
        operations: SHOWN,
        request: None,
        response: Some(|body| each(body, |s| drop_field(s, "server_groups"))),
    },
    Change {
        since: Version(2, 73),
        operations: SHOWN,
        request: None,
        response: Some(|body| each(body, |s| drop_field(s, "locked_reason"))),
    },
    Change { since: Version(2, 74), operations: CREATE, request: Some(refuse_destination), response: None },
    Change {
        since: Version(2, 75),
        operations: &["servers:update"],
        request: None,
        response: Some(|body| each(body, only_basics)),
    },
];

fn each(body: &mut Value, change: fn(&mut Value)) {
    if let Some(server) = body.get_mut("server") {
        change(server);
    }
    body.get_mut("servers").and_then(Value::as_array_mut).into_iter().flatten().for_each(change);
}

fn without_more_attributes(server: &mut Value) {
    for volume in server["os-extended-volumes:volumes_attached"].as_array_mut().into_iter().flatten() {
        drop_field(volume, "delete_on_termination");
    }
    for name in
        ["reservation_id", "launch_index", "hostname", "kernel_id", "ramdisk_id", "root_device_name", "user_data"]
    {
        drop_field(server, &format!("OS-EXT-SRV-ATTR:{name}"));
    }
}

/// Until 2.74 the answer to an update held less than that to a GET.
fn only_basics(server: &mut Value) {
    let more = |key: &String| key.contains(':') && key != "OS-DCF:diskConfig";
    let Some(map) = server.as_object_mut() else { return };
    let gone: Vec<_> = map.keys().filter(|key| more(key)).cloned().collect();
    gone.iter().chain(&["config_drive", "key_name", "security_groups", "host_status"].map(String::from)).for_each(
        |key| {
            map.remove(key);
        },
    );
}

fn refuse_in_networks(body: &Value, field: &'static str) -> Result<()> {
    for network in body["server"]["networks"].as_array().into_iter().flatten() {
        if network.get(field).is_some() {
            return Err(crate::input::refuse(
                "networks",
                network,
                format!("Additional properties are not allowed ('{field}' was unexpected)"),
            ));
        }
    }
    Ok(())
}

/// Before 2.37 no networks meant: whatever the project has. An empty list meant the same.
fn default_networks(body: &mut Value) -> Result<()> {
    let Some(server) = body.get_mut("server").and_then(Value::as_object_mut) else { return Ok(()) };
    match server.get("networks") {
        None => {
            server.insert("networks".to_owned(), json!("auto"));
        }
        Some(Value::Array(list)) if list.is_empty() => {
            server.insert("networks".to_owned(), json!("auto"));
        }
        Some(value @ Value::String(_)) => {
            let why = format!("{} is not of type 'array'", crate::input::repr(value));
            return Err(crate::input::refuse("networks", value, why));
        }
        Some(_) => {}
    }
    Ok(())
}

/// Files could be injected until 2.56. An empty list asks for nothing; anything else cannot be done.
fn drop_personality(body: &mut Value) -> Result<()> {
    let Some(server) = body.get_mut("server").and_then(Value::as_object_mut) else { return Ok(()) };
    match server.remove("personality") {
        None => Ok(()),
        Some(Value::Array(files)) if files.is_empty() => Ok(()),
        Some(other) => Err(crate::input::refuse(
            "personality",
            &other,
            "Files are not injected by this cloud: use user_data, which cloud-init reads",
        )),
    }
}

fn refuse_destination(body: &mut Value) -> Result<()> {
    refuse_new(body, "server", "host")?;
    refuse_new(body, "server", "hypervisor_hostname")
}
