//! What the service says about itself: versions, import methods, stores.

use crate::Service;
use base::{Fault, Result};
use rest::{Call, Reply};
use serde_json::{Value, json};
use std::sync::Arc;

/// Ways to import that are implemented.
pub const IMPORT_METHODS: [&str; 1] = ["glance-direct"];

/// Version 2.9 is Glance with the hash fields; what came later are several stores, caches and locations, which are
/// not here.
fn versions(call: &Call) -> Value {
    let version = |minor: u32, status: &str| {
        json!({
            "id": format!("v2.{minor}"),
            "status": status,
            "links": [{"rel": "self", "href": call.link("/v2/")}],
        })
    };
    let older = (0..=7).rev().map(|minor| version(minor, "SUPPORTED"));
    json!({"versions": std::iter::once(version(9, "CURRENT")).chain(older).collect::<Vec<_>>()})
}

/// The roots answer that there is a choice.
pub async fn choices(_: Arc<Service>, call: Call) -> Result<Reply> {
    Reply::json(300, &versions(&call))
}

pub async fn list(_: Arc<Service>, call: Call) -> Result<Reply> {
    Reply::json(200, &versions(&call))
}

pub async fn import_methods(_: Arc<Service>, _: Call) -> Result<Reply> {
    let methods = json!({
        "description": "Import methods available.",
        "type": "array",
        "value": IMPORT_METHODS,
    });
    Reply::json(200, &json!({"import-methods": methods}))
}

/// There is one store, and Glance answers this to a cloud with one store.
pub async fn stores(_: Arc<Service>, _: Call) -> Result<Reply> {
    Err(Fault::not_found("Multi backend is not supported at this site."))
}
