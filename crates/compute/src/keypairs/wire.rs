//! Key pairs as clients see them.

use super::KeyPair;
use crate::input::{drop_field, refuse_new};
use rest::{Change, Version};
use serde_json::{Value, json};
use store::Stored;

const ALL: &[&str] = &["keypairs:list", "keypairs:create", "keypairs:show"];

pub const CHANGES: &[Change] = &[
    Change {
        since: Version(2, 2),
        operations: ALL,
        request: Some(|body| refuse_new(body, "keypair", "type")),
        response: Some(|body| each(body, |pair| drop_field(pair, "type"))),
    },
    Change {
        since: Version(2, 10),
        operations: ALL,
        request: Some(|body| refuse_new(body, "keypair", "user_id")),
        response: None,
    },
];

fn each(body: &mut Value, change: fn(&mut Value)) {
    if let Some(pair) = body.get_mut("keypair") {
        change(pair);
    }
    for entry in body.get_mut("keypairs").and_then(Value::as_array_mut).into_iter().flatten() {
        if let Some(pair) = entry.get_mut("keypair") {
            change(pair);
        }
    }
}

pub fn listed(pair: &KeyPair) -> Value {
    json!({"keypair": {
        "name": pair.name,
        "public_key": pair.public_key,
        "fingerprint": pair.fingerprint,
        "type": "ssh",
    }})
}

pub fn created(pair: &KeyPair, private_key: Option<&str>) -> Value {
    let mut body = listed(pair);
    body["keypair"]["user_id"] = json!(pair.user_id);
    if let Some(private_key) = private_key {
        body["keypair"]["private_key"] = json!(private_key);
    }
    body
}

pub fn whole(pair: &Stored<KeyPair>) -> Value {
    json!({"keypair": {
        "name": pair.name,
        "public_key": pair.public_key,
        "fingerprint": pair.fingerprint,
        "type": "ssh",
        "user_id": pair.user_id,
        "id": pair.number,
        "created_at": pair.created.iso_naive(),
        "updated_at": null,
        "deleted_at": null,
        "deleted": false,
    }})
}
