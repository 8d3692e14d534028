//! Tags of a namespace: names that resources of its kind may be tagged with.

use super::document::{Namespace, Part, Tag};
use super::namespaces::{find, limit, rises, unprotected};
use super::parts::{change, fields, in_order, nothing_else, sort_key};
use super::property;
use crate::Service;
use base::{Fault, Result};
use rest::{Call, Reply};
use serde_json::{Map, Value, json};
use std::sync::Arc;

const WHAT: &str = "tag";

pub fn read(body: &Map<String, Value>) -> Result<String> {
    property::only(WHAT, body, &["name"], &["created_at", "updated_at"])?;
    property::name(WHAT, body, "name")
}

pub fn names(namespace: &Namespace) -> Value {
    namespace.tags.keys().map(|name| json!({"name": name})).collect()
}

fn view(name: &str, tag: &Part<Tag>) -> Value {
    json!({"name": name, "created_at": tag.created.iso_seconds(), "updated_at": tag.updated.iso_seconds()})
}

fn missing(namespace: &str, name: &str) -> Fault {
    Fault::not_found(format!("The metadata definition tag with name={name} was not found in namespace={namespace}."))
}

fn duplicate(namespace: &str, name: &str) -> Fault {
    Fault::conflict(format!("A metadata tag with name={name} already exists in namespace={namespace}."))
}

pub async fn list(service: Arc<Service>, call: Call) -> Result<Reply> {
    let (limit, rises) = (limit(&call.query)?, rises(&call.query)?);
    let sort = sort_key(&call.query)?;
    let marker = call.query.get("marker").filter(|marker| !marker.is_empty()).map(str::to_owned);
    let found = service.store.read(move |reader| find(reader, &call, call.rule)).await?;
    let mut tags = in_order(&found.tags, sort, rises);
    if let Some(marker) = marker {
        let at = tags.iter().position(|(name, _)| **name == marker).ok_or_else(|| missing(&found.name, &marker))?;
        tags.drain(..=at);
    }
    // As with Glance, a limit of 0 is none.
    tags.truncate(limit.filter(|limit| *limit > 0).unwrap_or(usize::MAX));
    let tags: Vec<Value> = tags.into_iter().map(|(name, _)| json!({"name": name})).collect();
    Reply::json(200, &json!({"tags": tags}))
}

pub async fn show(service: Arc<Service>, call: Call) -> Result<Reply> {
    let name = call.param("tag_name").to_owned();
    let found = service.store.read(move |reader| find(reader, &call, call.rule)).await?;
    let tag = found.tags.get(&name).ok_or_else(|| missing(&found.name, &name))?;
    Reply::json(200, &view(&name, tag))
}

pub async fn create(service: Arc<Service>, mut call: Call) -> Result<Reply> {
    nothing_else(&mut call).await?;
    let name = call.param("tag_name").to_owned();
    property::called(WHAT, &name)?;
    let shown = name.clone();
    let changed = change(service, call, move |tx, namespace| {
        if namespace.tags.insert(name.clone(), Part::new(Tag {}, tx.now())).is_some() {
            return Err(duplicate(&namespace.name, &name));
        }
        Ok(())
    });
    Reply::json(201, &view(&shown, &changed.await?.tags[&shown]))
}

/// Puts these in the place of all that are there, or beside them where the client says so by a header.
pub async fn create_all(service: Arc<Service>, mut call: Call) -> Result<Reply> {
    let body: Map<String, Value> = call.json().await?;
    property::only("tags", &body, &["tags"], &["created_at", "updated_at"])?;
    let listed = body.get("tags").cloned().unwrap_or_else(|| json!([]));
    let Value::Array(list) = &listed else {
        return Err(property::mismatch("tags", "tags", &listed, "is not of type 'array'"));
    };
    let tags: Vec<String> = list.iter().map(|one| read(fields("tags", "tags", one)?)).collect::<Result<_>>()?;
    let append = matches!(
        call.header("x-openstack-append").unwrap_or("").trim().to_ascii_lowercase().as_str(),
        "true" | "1" | "t" | "yes" | "y" | "on"
    );
    let shown: Vec<Value> = tags.iter().map(|name| json!({"name": name})).collect();
    let changed = change(service, call, move |tx, namespace| {
        if !append {
            namespace.tags.clear();
        }
        for name in &tags {
            if namespace.tags.insert(name.clone(), Part::new(Tag {}, tx.now())).is_some() {
                return Err(duplicate(&namespace.name, name));
            }
        }
        Ok(())
    });
    changed.await?;
    Reply::json(201, &json!({"tags": shown}))
}

pub async fn update(service: Arc<Service>, mut call: Call) -> Result<Reply> {
    let body: Map<String, Value> = call.json().await?;
    let new = read(&body)?;
    let old = call.param("tag_name").to_owned();
    let shown = new.clone();
    let changed = change(service, call, move |tx, namespace| {
        let mut tag = namespace.tags.remove(&old).ok_or_else(|| missing(&namespace.name, &old))?;
        tag.updated = tx.now();
        match namespace.tags.insert(new.clone(), tag) {
            None => Ok(()),
            Some(_) => Err(duplicate(&namespace.name, &new)),
        }
    });
    Reply::json(200, &view(&shown, &changed.await?.tags[&shown]))
}

pub async fn delete(service: Arc<Service>, call: Call) -> Result<Reply> {
    let name = call.param("tag_name").to_owned();
    let changed = change(service, call, move |_, namespace| {
        unprotected(namespace, WHAT, &name)?;
        namespace.tags.remove(&name).map(drop).ok_or_else(|| missing(&namespace.name, &name))
    });
    changed.await?;
    Ok(Reply::empty(204))
}

pub async fn delete_all(service: Arc<Service>, call: Call) -> Result<Reply> {
    let changed = change(service, call, |_, namespace| {
        unprotected(namespace, "namespace", &namespace.name)?;
        namespace.tags.clear();
        Ok(())
    });
    changed.await?;
    Ok(Reply::empty(204))
}
