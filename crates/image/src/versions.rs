//! What the service says about itself: versions, import methods, stores.

use crate::Service;
use base::Result;
use rest::{Call, Reply};
use serde_json::{Value, json};
use std::sync::Arc;

/// Ways to import. Copying needs somewhere to copy to.
pub fn import_methods(service: &Service) -> Vec<&'static str> {
    let mut methods = vec!["glance-direct", "web-download", "glance-download"];
    if service.stores.iter().count() > 1 {
        methods.push("copy-image");
    }
    methods
}

/// Version 2.17 is Glance with the calls for locations. Where no cache is set, its calls answer as those of a Glance that
/// has none.
fn versions(call: &Call) -> Value {
    let version = |minor: u32, status: &str| {
        json!({
            "id": format!("v2.{minor}"),
            "status": status,
            "links": [{"rel": "self", "href": call.link("/v2/")}],
        })
    };
    let older = (0..=16).rev().map(|minor| version(minor, "SUPPORTED"));
    json!({"versions": std::iter::once(version(17, "CURRENT")).chain(older).collect::<Vec<_>>()})
}

/// The roots answer that there is a choice.
pub async fn choices(_: Arc<Service>, call: Call) -> Result<Reply> {
    Reply::json(300, &versions(&call))
}

pub async fn list(_: Arc<Service>, call: Call) -> Result<Reply> {
    Reply::json(200, &versions(&call))
}

pub async fn show_import(service: Arc<Service>, _: Call) -> Result<Reply> {
    let methods = json!({
        "description": "Import methods available.",
        "type": "array",
        "value": import_methods(&service),
    });
    Reply::json(200, &json!({"import-methods": methods}))
}
