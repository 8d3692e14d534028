//! Namespaces: created whole, shown whole, listed without what they define.

use super::document::{Association, NAMESPACES, Namespace, Object, Part, Tag};
use super::{parts, property, tags};
use crate::Service;
use crate::images::ops::{is_admin, only_projects};
use base::{Fault, ProjectId, Result, Timestamp, limits};
use contract::Caller;
use policy::Target;
use rest::{Call, Query as Params, Reply, header};
use serde_json::{Map, Value, json};
use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::sync::Arc;
use store::{Query, Reader, Stored, Tx};

/// Glance's page when a client names none.
const PAGE: usize = 25;
const WHAT: &str = "namespace";
const OWN: [&str; 6] = ["namespace", "display_name", "description", "visibility", "protected", "owner"];
const CONTAINED: [&str; 4] = ["resource_type_associations", "properties", "objects", "tags"];
const READ_ONLY: [&str; 4] = ["self", "schema", "created_at", "updated_at"];
const SORT_KEYS: [&str; 9] =
    ["created_at", "updated_at", "id", "namespace", "display_name", "description", "visibility", "protected", "owner"];

/// What the rules look at.
pub fn target(namespace: &Namespace) -> Target<'_> {
    let owner = namespace.owner.as_deref();
    let visibility = visibility(namespace);
    Target::new().with("project_id", owner).with("owner", owner).with("visibility", visibility)
}

fn visibility(namespace: &Namespace) -> &'static str {
    if namespace.public { "public" } else { "private" }
}

fn visible(caller: &Caller, namespace: &Namespace) -> bool {
    let own = caller.project_id().is_some_and(|project| namespace.owner == Some(project));
    is_admin(caller) || namespace.public || namespace.owner.is_none() || own
}

/// The namespace of the path that the caller may see and do `rule` to. NotFound for one that it may not see.
pub fn find(reader: &mut Reader, call: &Call, rule: &str) -> Result<Stored<Namespace>> {
    only_projects(call)?;
    let name = call.param("namespace_name");
    let missing = || Fault::not_found(format!("Metadata definition namespace={name} was not found."));
    let found = reader.get_unique::<Namespace>("name", [name])?.ok_or_else(missing)?;
    if !visible(&call.caller, &found) {
        return Err(missing());
    }
    call.enforce_rule(rule, &target(&found))?;
    Ok(found)
}

pub fn href(namespace: &Namespace) -> String {
    format!("/v2/metadefs/namespaces/{}", namespace.name)
}

/// A namespace without what it defines.
fn summary(namespace: &Stored<Namespace>) -> Map<String, Value> {
    let mut view = Map::new();
    let fields = [
        ("namespace", json!(namespace.name)),
        ("display_name", json!(namespace.display_name)),
        ("description", json!(namespace.description)),
        ("visibility", json!(visibility(namespace))),
        ("protected", json!(namespace.protected)),
        ("owner", json!(namespace.owner)),
        ("created_at", json!(namespace.created.iso_seconds())),
        ("updated_at", json!(namespace.updated.iso_seconds())),
        ("self", json!(href(namespace))),
        ("schema", json!("/v2/schemas/metadefs/namespace")),
    ];
    view.extend(fields.into_iter().filter(|(_, value)| !value.is_null()).map(|(name, value)| (name.to_owned(), value)));
    view
}

fn with_associations(namespace: &Stored<Namespace>) -> Map<String, Value> {
    let mut view = summary(namespace);
    if !namespace.associations.is_empty() {
        view.insert("resource_type_associations".into(), parts::associations(namespace));
    }
    view
}

/// All of it; the properties as a resource type spells them, where one is named.
fn whole(namespace: &Stored<Namespace>, resource_type: Option<&str>) -> Value {
    let prefix = resource_type.and_then(|name| namespace.associations.get(name)).and_then(|it| it.it.prefix.as_deref());
    let prefix = prefix.unwrap_or("");
    let mut view = with_associations(namespace);
    if !namespace.properties.is_empty() {
        view.insert("properties".into(), parts::properties(namespace, prefix));
    }
    if !namespace.objects.is_empty() {
        view.insert("objects".into(), parts::objects(namespace, prefix));
    }
    if !namespace.tags.is_empty() {
        view.insert("tags".into(), tags::names(namespace));
    }
    Value::Object(view)
}

/// Sets what a create and an update have in common. What is not named gets its default, in both.
fn set(namespace: &mut Namespace, body: &Map<String, Value>, own: Option<ProjectId>) -> Result<()> {
    namespace.name = property::name(WHAT, body, "namespace")?;
    namespace.display_name = property::text(WHAT, body, "display_name", property::NAME_CHARS)?;
    namespace.description = property::text(WHAT, body, "description", 500)?;
    namespace.public = match property::text(WHAT, body, "visibility", 16)?.as_deref() {
        None | Some("private") => false,
        Some("public") => true,
        Some(other) => {
            return Err(property::mismatch(WHAT, "visibility", &json!(other), "is not one of ['public', 'private']"));
        }
    };
    namespace.protected = match body.get("protected") {
        None => false,
        Some(Value::Bool(protected)) => *protected,
        Some(other) => return Err(property::mismatch(WHAT, "protected", other, "is not of type 'boolean'")),
    };
    let owner = property::text(WHAT, body, "owner", limits::NAME_CHARS)?;
    namespace.owner = owner.map(ProjectId::new).or(own);
    Ok(())
}

/// What a new namespace defines at once.
fn set_contained(namespace: &mut Namespace, body: &Map<String, Value>, now: Timestamp) -> Result<()> {
    let list = |name: &str| match body.get(name) {
        None => Ok(Vec::new()),
        Some(Value::Array(list)) => list.iter().map(|one| parts::fields(WHAT, name, one)).collect::<Result<Vec<_>>>(),
        Some(other) => Err(property::mismatch(WHAT, name, other, "is not of type 'array'")),
    };
    fn put<T>(all: &mut BTreeMap<String, Part<T>>, what: &str, name: String, it: T, now: Timestamp) -> Result<()> {
        match all.insert(name.clone(), Part::new(it, now)) {
            None => Ok(()),
            Some(_) => Err(Fault::conflict(format!("The namespace has the {what} {name} twice."))),
        }
    }
    for one in list("resource_type_associations")? {
        let (name, it): (String, Association) = parts::read_association(one)?;
        put(&mut namespace.associations, "resource type", name, it, now)?;
    }
    for one in list("objects")? {
        let (name, it): (String, Object) = parts::read_object(one)?;
        put(&mut namespace.objects, "object", name, it, now)?;
    }
    for one in list("tags")? {
        put(&mut namespace.tags, "tag", tags::read(one)?, Tag {}, now)?;
    }
    if let Some(properties) = body.get("properties") {
        for (name, it) in property::read_all(properties)? {
            put(&mut namespace.properties, "property", name, it, now)?;
        }
    }
    Ok(())
}

/// Refuses a name that another namespace has.
fn free(tx: &mut Tx, namespace: &Namespace) -> Result<()> {
    match tx.get_unique::<Namespace>("name", [namespace.name.as_str()])?.filter(|other| other.id != namespace.id) {
        None => Ok(()),
        Some(_) => {
            Err(Fault::conflict(format!("The metadata definition namespace={} already exists.", namespace.name)))
        }
    }
}

/// An empty namespace, to be filled.
pub fn empty(id: String) -> Namespace {
    Namespace {
        id,
        name: String::new(),
        owner: None,
        display_name: None,
        description: None,
        public: false,
        protected: false,
        associations: BTreeMap::new(),
        objects: BTreeMap::new(),
        properties: BTreeMap::new(),
        tags: BTreeMap::new(),
    }
}

pub async fn create(service: Arc<Service>, mut call: Call) -> Result<Reply> {
    let body: Map<String, Value> = call.json().await?;
    let known: Vec<&str> = OWN.iter().chain(&CONTAINED).copied().collect();
    property::only(WHAT, &body, &known, &READ_ONLY)?;
    let mut namespace = empty(service.env.uuid());
    set(&mut namespace, &body, call.caller.project_id())?;
    call.enforce(&target(&namespace))?;
    for (contained, rule) in CONTAINED.iter().zip([
        "add_metadef_resource_type_association",
        "add_metadef_property",
        "add_metadef_object",
        "add_metadef_tag",
    ]) {
        if body.contains_key(*contained) {
            call.enforce_rule(rule, &target(&namespace))?;
        }
    }
    set_contained(&mut namespace, &body, call.now)?;
    let written = service.store.write(call.cause(), move |tx| {
        free(tx, &namespace)?;
        if tx.count::<Namespace>(Query::all())? >= NAMESPACES {
            return Err(Fault::too_large(format!("The cloud has {NAMESPACES} namespaces, and may not have more.")));
        }
        for name in namespace.associations.keys() {
            parts::name_type(tx, name)?;
        }
        namespace.save(tx)?;
        Ok(tx.need::<Namespace>(&namespace.id)?)
    });
    let stored = written.await?.value;
    Ok(Reply::json(201, &whole(&stored, None))?.header(header::LOCATION, href(&stored)))
}

pub async fn show(service: Arc<Service>, call: Call) -> Result<Reply> {
    let resource_type = call.query.get("resource_type").map(str::to_owned);
    only_projects(&call)?;
    let found = service.store.read(move |reader| {
        find(reader, &call, call.rule).map_err(|fault| match fault.kind {
            base::FaultKind::Forbidden => Fault::not_found("No such namespace."),
            _ => fault,
        })
    });
    Reply::json(200, &whole(&found.await?, resource_type.as_deref()))
}

pub async fn update(service: Arc<Service>, mut call: Call) -> Result<Reply> {
    let body: Map<String, Value> = call.json().await?;
    // What it defines has calls of its own; Glance takes it here and leaves it unread.
    let known: Vec<&str> = OWN.iter().chain(&CONTAINED).copied().collect();
    property::only(WHAT, &body, &known, &READ_ONLY)?;
    let cause = call.cause();
    let written = service.store.write(cause, move |tx| {
        let mut namespace = find(tx, &call, call.rule)?.doc;
        set(&mut namespace, &body, call.caller.project_id())?;
        free(tx, &namespace)?;
        namespace.save(tx)?;
        Ok(tx.need::<Namespace>(&namespace.id)?)
    });
    Reply::json(200, &Value::Object(summary(&written.await?.value)))
}

pub async fn delete(service: Arc<Service>, call: Call) -> Result<Reply> {
    let cause = call.cause();
    let deleted = service.store.write(cause, move |tx| {
        let namespace = find(tx, &call, call.rule)?;
        unprotected(&namespace, "namespace", &namespace.name)?;
        tx.delete::<Namespace>(&namespace.id)?;
        Ok(())
    });
    deleted.await?;
    Ok(Reply::empty(204))
}

/// Of a protected namespace nothing is deleted.
pub fn unprotected(namespace: &Namespace, what: &str, name: &str) -> Result<()> {
    if namespace.protected {
        return Err(Fault::forbidden(format!("Metadata definition {what} {name} is protected and cannot be deleted.")));
    }
    Ok(())
}

pub async fn list(service: Arc<Service>, call: Call) -> Result<Reply> {
    let own = call.caller.project_id();
    call.enforce(&Target::project(own.as_deref()))?;
    let wanted = Wanted::read(&call.query)?;
    let (query, caller) = (call.query.clone(), call.caller.clone());
    let all = service.store.read(|reader| Ok(reader.list::<Namespace>(Query::all())?)).await?;
    let mut seen: Vec<Stored<Namespace>> = all.into_iter().filter(|one| visible(&caller, one)).collect();
    seen.sort_by(|a, b| wanted.order(a, b));
    if let Some(marker) = &wanted.marker {
        let at = seen.iter().position(|one| one.name == *marker);
        let at =
            at.ok_or_else(|| Fault::not_found(format!("Metadata definition namespace={marker} was not found.")))?;
        seen.drain(..=at);
    }
    seen.retain(|one| wanted.shows(one) && call.may("get_metadef_namespace", &target(one)));
    seen.truncate(wanted.limit);
    let link = |query: String| match query.as_str() {
        "" => "/v2/metadefs/namespaces".to_owned(),
        query => format!("/v2/metadefs/namespaces?{query}"),
    };
    let mut body = json!({
        "namespaces": seen.iter().map(|one| Value::Object(with_associations(one))).collect::<Vec<_>>(),
        "first": link(query.without("marker")),
        "schema": "/v2/schemas/metadefs/namespaces",
    });
    if let Some(last) = seen.last().filter(|_| seen.len() == wanted.limit) {
        body["next"] = json!(link(query.with("marker", &last.name)));
    }
    Reply::json(200, &body)
}

/// A list as a client asks for it.
struct Wanted {
    public: Option<bool>,
    resource_types: Option<Vec<String>>,
    sort: String,
    rises: bool,
    limit: usize,
    marker: Option<String>,
}

impl Wanted {
    fn read(query: &Params) -> Result<Wanted> {
        let sort = query.get("sort_key").unwrap_or("created_at").to_owned();
        if !SORT_KEYS.contains(&sort.as_str()) {
            let available = SORT_KEYS.join(", ");
            return Err(Fault::invalid(format!(
                "Invalid sort key: {sort}. It must be one of the following: {available}."
            )));
        }
        let public = match query.get("visibility") {
            None | Some("") => None,
            Some("public") => Some(true),
            Some("private") => Some(false),
            Some(other) => return Err(Fault::invalid(format!("Invalid visibility value: {other}"))),
        };
        let types = query.get("resource_types");
        Ok(Wanted {
            public,
            resource_types: types.map(|text| text.split(',').take(100).map(str::to_owned).collect()),
            sort,
            rises: rises(query)?,
            limit: limit(query)?.unwrap_or(PAGE).min(limits::PAGE),
            marker: query.get("marker").map(str::to_owned),
        })
    }

    fn shows(&self, namespace: &Namespace) -> bool {
        let meant = |types: &Vec<String>| types.iter().any(|name| namespace.associations.contains_key(name));
        self.public.is_none_or(|public| namespace.public == public) && self.resource_types.as_ref().is_none_or(meant)
    }

    fn order(&self, a: &Stored<Namespace>, b: &Stored<Namespace>) -> Ordering {
        let (a, b) = if self.rises { (a, b) } else { (b, a) };
        let by_key = match self.sort.as_str() {
            "updated_at" => a.updated.cmp(&b.updated),
            "id" => a.id.cmp(&b.id),
            "namespace" => a.name.cmp(&b.name),
            "display_name" => a.display_name.cmp(&b.display_name),
            "description" => a.description.cmp(&b.description),
            "visibility" => visibility(a).cmp(visibility(b)),
            "protected" => a.protected.cmp(&b.protected),
            "owner" => a.owner.cmp(&b.owner),
            _ => Ordering::Equal,
        };
        by_key.then(a.created.cmp(&b.created)).then(a.id.cmp(&b.id))
    }
}

/// `sort_dir`; lists fall unless it says otherwise.
pub fn rises(query: &Params) -> Result<bool> {
    match query.get("sort_dir") {
        None | Some("desc") => Ok(false),
        Some("asc") => Ok(true),
        Some(other) => Err(Fault::invalid(format!("Invalid sort direction: {other}"))),
    }
}

pub fn limit(query: &Params) -> Result<Option<usize>> {
    let Some(text) = query.get("limit") else { return Ok(None) };
    let number: i64 = text.parse().map_err(|_| Fault::invalid("limit param must be an integer"))?;
    usize::try_from(number).map(Some).map_err(|_| Fault::invalid("limit param must be positive"))
}
