//! Locations: "its bytes lie there". Version 2.17's calls.
//!
//! Glance would leave the bytes where they are and read them anew for every guest. Here they are fetched once, hashed,
//! inspected and kept: what a guest boots is what was accepted, whatever lies behind the URL tomorrow. Only `http` and
//! `https` count, under the rules of a web download; nothing says where a file lies on a disk of the cloud.

use super::job::{Source, start};
use crate::document::{LOCAL, Promised, Status, WEB};
use crate::images::find;
use crate::tasks::{self, Task};
use crate::{Service, quota};
use base::{Fault, Result};
use rest::{Call, Reply};
use serde_json::{Map, Value, json};
use std::sync::Arc;

/// Known hashes, and how many hex digits each has.
const HASHES: [(&str, usize); 4] = [("sha224", 56), ("sha256", 64), ("sha384", 96), ("sha512", 128)];

pub async fn create(service: Arc<Service>, mut call: Call) -> Result<Reply> {
    let body: Map<String, Value> = call.json().await?;
    if let Some(name) = body.keys().find(|name| !["url", "validation_data"].contains(&name.as_str())) {
        let shown: String = name.chars().take(100).collect();
        return Err(Fault::invalid(format!("A location has no field '{shown}', only url and validation_data.")));
    }
    let url = body.get("url").and_then(Value::as_str).ok_or_else(|| Fault::invalid("A location needs a 'url'."))?;
    // Clients that promise nothing send an empty object.
    let nothing = |data: &Value| data.is_null() || data.as_object().is_some_and(Map::is_empty);
    let check = body.get("validation_data").filter(|data| !nothing(data)).map(promised).transpose()?;
    let uri = service.options.web_rules.check("URI for add location", url)?.to_string();
    let input = json!({
        "image_id": call.param("image_id"),
        "loc_url": url,
        "validation_data": body.get("validation_data").cloned().unwrap_or_else(|| json!({})),
    });
    let source = Source::Web { uri, check, location: true };
    let (limits, deadlines, cause) = (service.options.quota.clone(), service.options.deadlines, call.cause());
    let written = service.store.write(cause, move |tx| {
        let before = find(tx, &call, call.param("image_id"), call.rule)?.doc;
        if before.status != Status::Queued {
            let status = before.status.as_str();
            return Err(Fault::conflict(format!("It's not allowed to add locations if image status is {status}.")));
        }
        super::may_begin(&before, "location")?;
        let mut image = before.clone();
        let task = Task::begin(tx, &call, tasks::Kind::LocationImport, &image.id, input.clone())?;
        start(tx, &mut image, &task, source.clone(), &[LOCAL.to_owned()], &deadlines)?;
        quota::settle(tx, &limits, Some(&before), Some(&image))?;
        tx.update(&image)?;
        Ok(())
    });
    written.await?;
    Ok(Reply::empty(202))
}

fn promised(data: &Value) -> Result<Promised> {
    let Value::Object(fields) = data else { return Err(Fault::invalid("validation_data is not of type 'object'.")) };
    let text = |name: &str| {
        let text = fields.get(name).and_then(Value::as_str);
        text.ok_or_else(|| Fault::invalid(format!("validation_data: '{name}' is a required property.")))
    };
    let (algorithm, value) = (text("os_hash_algo")?, text("os_hash_value")?);
    let Some((_, digits)) = HASHES.iter().find(|(name, _)| *name == algorithm) else {
        let known = HASHES.map(|(name, _)| name).join(", ");
        return Err(Fault::invalid(format!("os_hash_algo: '{algorithm}' is not one of {known}.")));
    };
    if value.len() != *digits || !value.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err(Fault::invalid(format!("os_hash_value: ({value}) is not the {digits} hex digits of {algorithm}.")));
    }
    Ok(Promised { algorithm: algorithm.to_owned(), value: value.to_ascii_lowercase() })
}

/// Where the bytes were taken from; for what was uploaded, their name in the store, which is no path.
pub async fn list(service: Arc<Service>, call: Call) -> Result<Reply> {
    let image = service.store.read(move |reader| find(reader, &call, call.param("image_id"), call.rule)).await?;
    let web = image.locations.iter().map(|location| json!({"url": location.url, "metadata": {"store": WEB}}));
    let own = image.contents.as_ref().filter(|_| image.locations.is_empty()).map(|contents| {
        json!({"url": format!("nubo:sha512:{}", contents.sha512), "metadata": {"store": contents.stores.join(",")}})
    });
    Reply::json(200, &web.chain(own).collect::<Vec<Value>>())
}
