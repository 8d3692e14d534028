//! What a namespace defines: resource types, objects and properties. Each call is one change of the namespace.

use super::document::{Association, Namespace, Object, Part, ResourceType};
use super::namespaces::{find, href, limit, rises, target, unprotected};
use super::property;
use crate::Service;
use base::{Fault, Result};
use policy::Target;
use rest::{Call, Query as Params, Reply};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;
use store::{Query, Stored, Tx};

/// Most resource types of the cloud.
const TYPES: usize = 1000;

/// Changes the namespace of the path in one transaction, and gives it as it then is.
pub async fn change(
    service: Arc<Service>,
    call: Call,
    change: impl Fn(&mut Tx, &mut Namespace) -> Result<()> + Send + Sync + 'static,
) -> Result<Namespace> {
    let cause = call.cause();
    let written = service.store.write(cause, move |tx| {
        let mut namespace = find(tx, &call, call.rule)?.doc;
        change(tx, &mut namespace)?;
        namespace.save(tx)?;
        Ok(namespace)
    });
    Ok(written.await?.value)
}

/// An object inside a body.
pub fn fields<'a>(what: &str, name: &str, value: &'a Value) -> Result<&'a Map<String, Value>> {
    value.as_object().ok_or_else(|| property::mismatch(what, name, value, "is not of type 'object'"))
}

/// A call whose path says all takes no body, or an empty one.
pub async fn nothing_else(call: &mut Call) -> Result<()> {
    call.bytes(base::limits::BODY_BYTES).await.map(drop)
}

/// By which times or names a list of parts is sorted.
#[derive(Clone, Copy)]
pub enum SortKey {
    Created,
    Updated,
    Name,
}

pub fn sort_key(query: &Params) -> Result<SortKey> {
    match query.get("sort_key").unwrap_or("created_at") {
        "created_at" => Ok(SortKey::Created),
        "updated_at" => Ok(SortKey::Updated),
        "name" => Ok(SortKey::Name),
        other => Err(Fault::invalid(format!(
            "Invalid sort key: {other}. It must be one of the following: created_at, updated_at, name."
        ))),
    }
}

pub fn in_order<T>(parts: &BTreeMap<String, Part<T>>, key: SortKey, rises: bool) -> Vec<(&String, &Part<T>)> {
    let mut list: Vec<_> = parts.iter().collect();
    list.sort_by(|a, b| {
        let order = match key {
            SortKey::Created => a.1.created.cmp(&b.1.created),
            SortKey::Updated => a.1.updated.cmp(&b.1.updated),
            SortKey::Name => a.0.cmp(b.0),
        };
        if rises { order } else { order.reverse() }
    });
    list
}

// Resource types.

/// Makes sure that a resource type is known.
pub fn name_type(tx: &mut Tx, name: &str) -> Result<()> {
    if tx.get::<ResourceType>(name)?.is_some() {
        return Ok(());
    }
    if tx.count::<ResourceType>(Query::all())? >= TYPES {
        return Err(Fault::too_large(format!("The cloud knows {TYPES} resource types, and may not know more.")));
    }
    tx.create(&ResourceType { name: name.to_owned() })?;
    Ok(())
}

pub async fn list_types(service: Arc<Service>, call: Call) -> Result<Reply> {
    let own = call.caller.project_id();
    call.enforce(&Target::project(own.as_deref()))?;
    let types = service.store.read(|reader| Ok(reader.list::<ResourceType>(Query::all())?)).await?;
    let view = |one: &Stored<ResourceType>| {
        json!({
            "name": one.name,
            "created_at": one.created.iso_seconds(),
            "updated_at": one.updated.iso_seconds(),
        })
    };
    Reply::json(200, &json!({"resource_types": types.iter().map(view).collect::<Vec<_>>()}))
}

const ASSOCIATION: &str = "resource_type_association";

pub fn read_association(body: &Map<String, Value>) -> Result<(String, Association)> {
    let known = ["name", "prefix", "properties_target"];
    property::only(ASSOCIATION, body, &known, &["created_at", "updated_at"])?;
    let association = Association {
        prefix: property::text(ASSOCIATION, body, "prefix", property::NAME_CHARS)?,
        properties_target: property::text(ASSOCIATION, body, "properties_target", property::NAME_CHARS)?,
    };
    Ok((property::name(ASSOCIATION, body, "name")?, association))
}

fn association_view(name: &str, part: &Part<Association>) -> Value {
    let mut view = json!({
        "name": name,
        "created_at": part.created.iso_seconds(),
        "updated_at": part.updated.iso_seconds(),
    });
    for (field, value) in [("prefix", &part.it.prefix), ("properties_target", &part.it.properties_target)] {
        if let Some(value) = value {
            view[field] = json!(value);
        }
    }
    view
}

pub fn associations(namespace: &Namespace) -> Value {
    namespace.associations.iter().map(|(name, part)| association_view(name, part)).collect()
}

pub async fn list_associations(service: Arc<Service>, call: Call) -> Result<Reply> {
    let found = service.store.read(move |reader| {
        let found = find(reader, &call, call.rule)?;
        Ok(if call.may("get_metadef_resource_type", &target(&found)) { associations(&found) } else { json!([]) })
    });
    Reply::json(200, &json!({"resource_type_associations": found.await?}))
}

pub async fn create_association(service: Arc<Service>, mut call: Call) -> Result<Reply> {
    let body: Map<String, Value> = call.json().await?;
    let (name, association) = read_association(&body)?;
    let shown = name.clone();
    let changed = change(service, call, move |tx, namespace| {
        name_type(tx, &name)?;
        let part = Part::new(association.clone(), tx.now());
        match namespace.associations.insert(name.clone(), part) {
            None => Ok(()),
            Some(_) => Err(Fault::conflict(format!(
                "The metadata definition resource-type association of resource-type={name} to namespace={} already \
                 exists.",
                namespace.name
            ))),
        }
    });
    Reply::json(201, &association_view(&shown, &changed.await?.associations[&shown]))
}

pub async fn delete_association(service: Arc<Service>, call: Call) -> Result<Reply> {
    let name = call.param("resource_type").to_owned();
    let changed = change(service, call, move |_, namespace| {
        unprotected(namespace, "resource-type-association", &name)?;
        let removed = namespace.associations.remove(&name);
        removed.map(drop).ok_or_else(|| Fault::not_found(format!("Failed to find resource type {name} to delete")))
    });
    changed.await?;
    Ok(Reply::empty(204))
}

// Objects.

const OBJECT: &str = "object";

pub fn read_object(body: &Map<String, Value>) -> Result<(String, Object)> {
    let known = ["name", "description", "required", "properties"];
    property::only(OBJECT, body, &known, &["self", "schema", "created_at", "updated_at"])?;
    let object = Object {
        description: property::text(OBJECT, body, "description", 10_000)?,
        required: body
            .get("required")
            .map(|list| property::strings(OBJECT, "required", list))
            .transpose()?
            .unwrap_or_default(),
        properties: body.get("properties").map(property::read_all).transpose()?.unwrap_or_default(),
    };
    Ok((property::name(OBJECT, body, "name")?, object))
}

/// `prefix` is put before the names of the properties.
fn object_view(namespace: &Namespace, name: &str, part: &Part<Object>, prefix: &str) -> Value {
    let properties = part.it.properties.iter().map(|(name, it)| (format!("{prefix}{name}"), Value::Object(it.clone())));
    let mut view = json!({
        "name": name,
        "required": part.it.required.iter().map(|name| format!("{prefix}{name}")).collect::<Vec<_>>(),
        "properties": properties.collect::<Map<String, Value>>(),
        "created_at": part.created.iso_seconds(),
        "updated_at": part.updated.iso_seconds(),
        "self": format!("{}/objects/{name}", href(namespace)),
        "schema": "/v2/schemas/metadefs/object",
    });
    if let Some(description) = &part.it.description {
        view["description"] = json!(description);
    }
    view
}

pub fn objects(namespace: &Namespace, prefix: &str) -> Value {
    namespace.objects.iter().map(|(name, part)| object_view(namespace, name, part, prefix)).collect()
}

fn no_object(namespace: &Namespace, name: &str) -> Fault {
    Fault::not_found(format!(
        "The metadata definition object with name={name} was not found in namespace={}.",
        namespace.name
    ))
}

pub async fn list_objects(service: Arc<Service>, call: Call) -> Result<Reply> {
    let limit = limit(&call.query)?;
    if limit == Some(0) {
        return Err(Fault::invalid("limit param must be positive"));
    }
    let (sort, rises) = (sort_key(&call.query)?, rises(&call.query)?);
    let marker = call.query.get("marker").map(str::to_owned);
    let found = service.store.read(move |reader| {
        let found = find(reader, &call, call.rule)?;
        Ok(call.may("get_metadef_object", &target(&found)).then_some(found))
    });
    let Some(found) = found.await? else { return Reply::json(200, &json!({"objects": []})) };
    let mut list = in_order(&found.objects, sort, rises);
    if let Some(marker) = marker {
        let at = list.iter().position(|(name, _)| **name == marker).ok_or_else(|| no_object(&found, &marker))?;
        list.drain(..=at);
    }
    list.truncate(limit.unwrap_or(usize::MAX));
    let objects: Vec<Value> = list.into_iter().map(|(name, part)| object_view(&found, name, part, "")).collect();
    Reply::json(200, &json!({"objects": objects, "schema": "v2/schemas/metadefs/objects"}))
}

pub async fn show_object(service: Arc<Service>, call: Call) -> Result<Reply> {
    let name = call.param("object_name").to_owned();
    let found = service.store.read(move |reader| find(reader, &call, call.rule)).await?;
    let part = found.objects.get(&name).ok_or_else(|| no_object(&found, &name))?;
    Reply::json(200, &object_view(&found, &name, part, ""))
}

fn put_object(namespace: &mut Namespace, name: &str, part: Part<Object>) -> Result<()> {
    match namespace.objects.insert(name.to_owned(), part) {
        None => Ok(()),
        Some(_) => Err(Fault::conflict(format!(
            "A metadata definition object with name={name} already exists in namespace={}.",
            namespace.name
        ))),
    }
}

pub async fn create_object(service: Arc<Service>, mut call: Call) -> Result<Reply> {
    let body: Map<String, Value> = call.json().await?;
    let (name, object) = read_object(&body)?;
    let shown = name.clone();
    let changed =
        change(service, call, move |tx, namespace| put_object(namespace, &name, Part::new(object.clone(), tx.now())));
    let changed = changed.await?;
    Reply::json(201, &object_view(&changed, &shown, &changed.objects[&shown], ""))
}

pub async fn update_object(service: Arc<Service>, mut call: Call) -> Result<Reply> {
    let body: Map<String, Value> = call.json().await?;
    let (new, object) = read_object(&body)?;
    let (old, shown) = (call.param("object_name").to_owned(), new.clone());
    let changed = change(service, call, move |tx, namespace| {
        let before = namespace.objects.remove(&old).ok_or_else(|| no_object(namespace, &old))?;
        put_object(namespace, &new, Part { created: before.created, updated: tx.now(), it: object.clone() })
    });
    let changed = changed.await?;
    Reply::json(200, &object_view(&changed, &shown, &changed.objects[&shown], ""))
}

pub async fn delete_object(service: Arc<Service>, call: Call) -> Result<Reply> {
    let name = call.param("object_name").to_owned();
    let changed = change(service, call, move |_, namespace| {
        unprotected(namespace, OBJECT, &name)?;
        namespace.objects.remove(&name).map(drop).ok_or_else(|| no_object(namespace, &name))
    });
    changed.await?;
    Ok(Reply::empty(204))
}

pub async fn delete_objects(service: Arc<Service>, call: Call) -> Result<Reply> {
    let changed = change(service, call, |_, namespace| {
        unprotected(namespace, "namespace", &namespace.name)?;
        namespace.objects.clear();
        Ok(())
    });
    changed.await?;
    Ok(Reply::empty(204))
}

// Properties.

const PROPERTY: &str = "property";

/// All of them by their names, which `prefix` is put before.
pub fn properties(namespace: &Namespace, prefix: &str) -> Value {
    let all = namespace.properties.iter();
    Value::Object(all.map(|(name, part)| (format!("{prefix}{name}"), Value::Object(part.it.clone()))).collect())
}

fn property_view(name: &str, part: &Part<Map<String, Value>>) -> Value {
    let mut view = part.it.clone();
    view.insert("name".into(), json!(name));
    Value::Object(view)
}

fn no_property(namespace: &Namespace, name: &str) -> Fault {
    Fault::not_found(format!(
        "The metadata definition property with name={name} was not found in namespace={}.",
        namespace.name
    ))
}

pub async fn list_properties(service: Arc<Service>, call: Call) -> Result<Reply> {
    let found = service.store.read(move |reader| find(reader, &call, call.rule)).await?;
    Reply::json(200, &json!({"properties": properties(&found, "")}))
}

/// With `resource_type` the name in the path is as that type spells it.
pub async fn show_property(service: Arc<Service>, call: Call) -> Result<Reply> {
    let mut name = call.param("property_name").to_owned();
    let resource_type = call.query.get("resource_type").filter(|name| !name.is_empty()).map(str::to_owned);
    let wants_type = resource_type.is_some();
    let found = service.store.read(move |reader| {
        let found = find(reader, &call, call.rule)?;
        if wants_type {
            call.enforce_rule("get_metadef_resource_type", &target(&found))?;
        }
        Ok(found)
    });
    let found = found.await?;
    if let Some(resource_type) = resource_type {
        let association = found.associations.get(&resource_type).ok_or_else(|| {
            Fault::not_found(format!(
                "The metadata definition resource-type association of resource-type={resource_type} to namespace={} \
                 was not found.",
                found.name
            ))
        })?;
        let prefix = association.it.prefix.as_deref().unwrap_or("");
        let rest = name.strip_prefix(prefix).filter(|_| !prefix.is_empty()).map(str::to_owned);
        name = rest.ok_or_else(|| {
            Fault::not_found(format!(
                "Property {name} does not start with the expected resource type association prefix of '{prefix}'."
            ))
        })?;
    }
    let part = found.properties.get(&name).ok_or_else(|| no_property(&found, &name))?;
    Reply::json(200, &property_view(&name, part))
}

fn read_property(body: &Map<String, Value>) -> Result<(String, Map<String, Value>)> {
    property::only(PROPERTY, body, &property::FIELDS, &["created_at", "updated_at"])?;
    Ok((property::name(PROPERTY, body, "name")?, property::read(body)?))
}

fn put_property(namespace: &mut Namespace, name: &str, part: Part<Map<String, Value>>) -> Result<()> {
    match namespace.properties.insert(name.to_owned(), part) {
        None => Ok(()),
        Some(_) => Err(Fault::conflict(format!(
            "A metadata definition property with name={name} already exists in namespace={}.",
            namespace.name
        ))),
    }
}

pub async fn create_property(service: Arc<Service>, mut call: Call) -> Result<Reply> {
    let body: Map<String, Value> = call.json().await?;
    let (name, definition) = read_property(&body)?;
    let shown = name.clone();
    let changed = change(service, call, move |tx, namespace| {
        put_property(namespace, &name, Part::new(definition.clone(), tx.now()))
    });
    Reply::json(201, &property_view(&shown, &changed.await?.properties[&shown]))
}

pub async fn update_property(service: Arc<Service>, mut call: Call) -> Result<Reply> {
    let body: Map<String, Value> = call.json().await?;
    let (new, definition) = read_property(&body)?;
    let (old, shown) = (call.param("property_name").to_owned(), new.clone());
    let changed = change(service, call, move |tx, namespace| {
        let before = namespace.properties.remove(&old).ok_or_else(|| no_property(namespace, &old))?;
        put_property(namespace, &new, Part { created: before.created, updated: tx.now(), it: definition.clone() })
    });
    Reply::json(200, &property_view(&shown, &changed.await?.properties[&shown]))
}

pub async fn delete_property(service: Arc<Service>, call: Call) -> Result<Reply> {
    let name = call.param("property_name").to_owned();
    let changed = change(service, call, move |_, namespace| {
        unprotected(namespace, PROPERTY, &name)?;
        namespace.properties.remove(&name).map(drop).ok_or_else(|| no_property(namespace, &name))
    });
    changed.await?;
    Ok(Reply::empty(204))
}

pub async fn delete_properties(service: Arc<Service>, call: Call) -> Result<Reply> {
    let changed = change(service, call, |_, namespace| {
        unprotected(namespace, "namespace", &namespace.name)?;
        namespace.properties.clear();
        Ok(())
    });
    changed.await?;
    Ok(Reply::empty(204))
}
