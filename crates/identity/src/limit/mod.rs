//! Registered limits (the default of a resource) and limits (of one project or domain).

mod enforcement;

pub use enforcement::Model;

use crate::Identity;
use crate::documents::*;
use crate::fields::Fields;
use crate::listing::{filtered, forbid, linked, missing, single};
use crate::project::pairs;
use base::{Fault, ProjectId, Result};
use policy::Target;
use rest::{Call, Reply, Route};
use serde_json::{Map, Value, json};
use std::sync::Arc;
use store::{Query, Reader, Tx};

/// The most entries of one request.
const ENTRIES: usize = 256;

pub(crate) fn routes(identity: &Arc<Identity>) -> Vec<Route> {
    let (registered, one_registered) = ("/v3/registered_limits", "/v3/registered_limits/{id}");
    let (limits, one) = ("/v3/limits", "/v3/limits/{id}");
    routes![identity;
        GET registered, "registered_limits:list", "identity:list_registered_limits", 200, list_registered;
        POST registered, "registered_limits:create", "identity:create_registered_limits", 201, register;
        GET one_registered, "registered_limits:show", "identity:get_registered_limit", 200, show_registered;
        PATCH one_registered, "registered_limits:update", "identity:update_registered_limit", 200, update_registered;
        DELETE one_registered, "registered_limits:delete", "identity:delete_registered_limit", 204, delete_registered;
        GET "/v3/limits/model", "limits:model", "identity:get_limit_model", 200, model;
        GET limits, "limits:list", "identity:list_limits", 200, list;
        POST limits, "limits:create", "identity:create_limits", 201, create;
        GET one, "limits:show", "identity:get_limit", 200, show;
        PATCH one, "limits:update", "identity:update_limit", 200, update;
        DELETE one, "limits:delete", "identity:delete_limit", 204, delete;
    ]
}

fn shown_registered(call: &Call, limit: &RegisteredLimit) -> Value {
    let object = pairs([
        ("id", json!(limit.id)),
        ("service_id", json!(limit.service_id)),
        ("region_id", json!(limit.region_id)),
        ("resource_name", json!(limit.resource_name)),
        ("default_limit", json!(limit.default_limit)),
        ("description", limit.description.clone()),
    ]);
    linked(call, "registered_limits", object.collect())
}

fn shown(call: &Call, limit: &Limit) -> Value {
    let object = pairs([
        ("id", json!(limit.id)),
        ("project_id", json!(limit.project_id)),
        ("domain_id", json!(limit.domain_id)),
        ("service_id", json!(limit.service_id)),
        ("region_id", json!(limit.region_id)),
        ("resource_name", json!(limit.resource_name)),
        ("resource_limit", json!(limit.resource_limit)),
        ("description", limit.description.clone()),
    ]);
    linked(call, "limits", object.collect())
}

async fn model(identity: Arc<Identity>, call: Call) -> Result<Reply> {
    forbid(&call, &Target::new())?;
    let model = identity.options.limit_model;
    call.reply(200, &json!({"model": {"name": model.name(), "description": model.description()}}))
}

/// The objects of a body such as `{"limits": [{…}]}`.
async fn entries(call: &mut Call, name: &'static str) -> Result<Vec<Fields>> {
    let mut body: Map<String, Value> = call.json().await?;
    let Some(Value::Array(items)) = body.remove(name) else {
        return Err(Fault::invalid(format!("Invalid input for field '{name}': it must be a list.")));
    };
    if items.is_empty() || items.len() > ENTRIES {
        return Err(Fault::invalid(format!("Invalid input for field '{name}': it must have 1 to {ENTRIES} entries.")));
    }
    let object = |item| match item {
        Value::Object(map) => Ok(Fields::of(name, map)),
        _ => Err(Fault::invalid(format!("Invalid input for field '{name}': an entry is no object."))),
    };
    items.into_iter().map(object).collect()
}

/// Service and region must exist.
fn known(tx: &mut Tx, service: &str, region: Option<&str>) -> Result<()> {
    tx.get::<Service>(service)?.ok_or_else(|| Fault::invalid(format!("Could not find service: {service}.")))?;
    if let Some(region) = region {
        tx.get::<Region>(region)?.ok_or_else(|| Fault::invalid(format!("Could not find region: {region}.")))?;
    }
    Ok(())
}

fn unique<T>(result: Result<T, store::Error>, what: &str) -> Result<T> {
    match result {
        Err(store::Error::Taken { .. }) => {
            Err(Fault::conflict(format!("Conflict occurred attempting to store {what} - Duplicate entry.")))
        }
        other => Ok(other?),
    }
}

async fn list_registered(identity: Arc<Identity>, call: Call) -> Result<Reply> {
    forbid(&call, &Target::new())?;
    let items: Vec<_> = identity.model().registered_limits.all().map(|l| shown_registered(&call, l)).collect();
    filtered(&call, "registered_limits", items, &["service_id", "region_id", "resource_name"])
}

async fn register(identity: Arc<Identity>, mut call: Call) -> Result<Reply> {
    forbid(&call, &Target::new())?;
    let mut made = Vec::new();
    for mut fields in entries(&mut call, "registered_limits").await? {
        made.push(RegisteredLimit {
            id: identity.env.uuid_hex(),
            service_id: fields.need_id("service_id")?.into(),
            region_id: fields.text("region_id")?.flatten(),
            resource_name: fields.need_name("resource_name", 255)?,
            default_limit: fields.number("default_limit")?.ok_or_else(|| fields.missing("default_limit"))?,
            description: fields.description()?.unwrap_or(Value::Null),
        });
    }
    let shown: Vec<_> = made.iter().map(|limit| shown_registered(&call, limit)).collect();
    let work = move |tx: &mut Tx| {
        for limit in &made {
            known(tx, &limit.service_id, limit.region_id.as_deref())?;
            unique(tx.create(limit), "registered_limit")?;
        }
        Ok(())
    };
    identity.write(&call, work).await?;
    call.reply(201, &json!({ "registered_limits": shown }))
}

fn find_registered(identity: &Identity, call: &Call) -> Result<Arc<RegisteredLimit>> {
    forbid(call, &Target::new())?;
    let id = call.param("id");
    identity.model().registered_limits.get(id).cloned().ok_or_else(|| missing("registered_limit", id))
}

async fn show_registered(identity: Arc<Identity>, call: Call) -> Result<Reply> {
    let limit = find_registered(&identity, &call)?;
    single(&call, 200, "registered_limit", shown_registered(&call, &limit))
}

/// True if some limit is set against the registered one, which then may neither move nor go.
fn in_use(tx: &mut Tx, limit: &RegisteredLimit) -> Result<bool> {
    let limits = tx.list::<Limit>(Query::index("service", limit.service_id.as_str()))?;
    Ok(limits.iter().any(|l| l.region_id == limit.region_id && l.resource_name == limit.resource_name))
}

fn used(id: &str) -> Fault {
    Fault::forbidden(format!(
        "Unable to change the registered limit {id} because there are project limits associated with it."
    ))
}

async fn update_registered(identity: Arc<Identity>, mut call: Call) -> Result<Reply> {
    let limit = find_registered(&identity, &call)?;
    let mut fields = Fields::read(&mut call, "registered_limit").await?;
    let (service, region) = (fields.id("service_id")?.flatten(), fields.text("region_id")?);
    let (name, default) = (fields.name("resource_name", 255)?, fields.number("default_limit")?);
    let (id, description) = (limit.id.clone(), fields.description()?);
    let work = move |tx: &mut Tx| {
        let was = tx.get::<RegisteredLimit>(&id)?.ok_or_else(|| missing("registered_limit", &id))?.doc;
        let mut limit = was.clone();
        limit.service_id = service.clone().map_or(limit.service_id, Into::into);
        limit.region_id = region.clone().unwrap_or(limit.region_id);
        limit.resource_name = name.clone().unwrap_or(limit.resource_name);
        limit.default_limit = default.unwrap_or(limit.default_limit);
        limit.description = description.clone().unwrap_or(limit.description);
        if in_use(tx, &was)? {
            return Err(used(&id));
        }
        known(tx, &limit.service_id, limit.region_id.as_deref())?;
        unique(tx.update(&limit), "registered_limit")?;
        Ok(limit)
    };
    let limit = identity.write(&call, work).await?;
    single(&call, 200, "registered_limit", shown_registered(&call, &limit))
}

async fn delete_registered(identity: Arc<Identity>, call: Call) -> Result<Reply> {
    let id = find_registered(&identity, &call)?.id.clone();
    let work = move |tx: &mut Tx| {
        let limit = tx.get::<RegisteredLimit>(&id)?.ok_or_else(|| missing("registered_limit", &id))?.doc;
        if in_use(tx, &limit)? {
            return Err(used(&id));
        }
        tx.delete::<RegisteredLimit>(&id)?;
        Ok(())
    };
    identity.write(&call, work).await?;
    Ok(Reply::empty(204))
}

/// As policies see it.
fn target(identity: &Identity, limit: &Limit) -> Target<'static> {
    let project = limit.project_id.as_ref().map(|id| id.to_string());
    let home = project.as_ref().and_then(|id| Some(identity.model().projects.get(id)?.domain().to_owned()));
    Target::new()
        .with("target.limit.project_id", project)
        .with("target.limit.project.domain_id", home)
        .with("target.limit.domain.id", limit.domain_id.as_ref().map(|id| id.to_string()))
}

async fn list(identity: Arc<Identity>, call: Call) -> Result<Reply> {
    forbid(&call, &Target::new())?;
    let all: Vec<_> = identity.model().limits.all().cloned().collect();
    let mine = all.iter().filter(|limit| call.may("identity:get_limit", &target(&identity, limit)));
    let items = mine.map(|limit| shown(&call, limit)).collect();
    filtered(&call, "limits", items, &["service_id", "region_id", "resource_name", "project_id", "domain_id"])
}

async fn create(identity: Arc<Identity>, mut call: Call) -> Result<Reply> {
    forbid(&call, &Target::new())?;
    let mut made = Vec::new();
    for mut fields in entries(&mut call, "limits").await? {
        let (project, domain) = (fields.id("project_id")?.flatten(), fields.id("domain_id")?.flatten());
        if project.is_some() == domain.is_some() {
            return Err(Fault::invalid(
                "Invalid input for field 'limits': exactly one of project_id and domain_id is needed.",
            ));
        }
        made.push(Limit {
            id: identity.env.uuid_hex(),
            project_id: project.map(Into::into),
            domain_id: domain.map(Into::into),
            service_id: fields.need_id("service_id")?.into(),
            region_id: fields.text("region_id")?.flatten(),
            resource_name: fields.need_name("resource_name", 255)?,
            resource_limit: fields.number("resource_limit")?.ok_or_else(|| fields.missing("resource_limit"))?,
            description: fields.description()?.unwrap_or(Value::Null),
        });
    }
    let shown: Vec<_> = made.iter().map(|limit| shown(&call, limit)).collect();
    let model = identity.options.limit_model;
    let work = move |tx: &mut Tx| {
        made.iter().try_for_each(|limit| insert(tx, limit))?;
        // When all are there: a request may bring a domain's limit with those of its projects.
        made.iter().try_for_each(|limit| model.check(tx, limit))
    };
    identity.write(&call, work).await?;
    call.reply(201, &json!({ "limits": shown }))
}

fn insert(tx: &mut Tx, limit: &Limit) -> Result<()> {
    let owner = limit.project_id.as_deref().or(limit.domain_id.as_deref()).unwrap_or("");
    tx.get::<Project>(owner)?.ok_or_else(|| Fault::invalid(format!("Could not find project: {owner}.")))?;
    let region = limit.region_id.as_deref().unwrap_or("");
    let registered = [limit.service_id.as_str(), region, limit.resource_name.as_str()];
    tx.get_unique::<RegisteredLimit>("resource", registered)?.ok_or_else(|| {
        let (name, service) = (&limit.resource_name, &limit.service_id);
        Fault::forbidden(format!("No registered limit for {name} of service {service}: register one first."))
    })?;
    unique(tx.create(limit).map(drop), "limit")
}

fn find(identity: &Identity, call: &Call) -> Result<Arc<Limit>> {
    let id = call.param("id");
    let found = identity.model().limits.get(id).cloned();
    forbid(call, &found.as_ref().map_or_else(Target::new, |limit| target(identity, limit)))?;
    found.ok_or_else(|| missing("limit", id))
}

async fn show(identity: Arc<Identity>, call: Call) -> Result<Reply> {
    let limit = find(&identity, &call)?;
    single(&call, 200, "limit", shown(&call, &limit))
}

async fn update(identity: Arc<Identity>, mut call: Call) -> Result<Reply> {
    let limit = find(&identity, &call)?;
    let mut fields = Fields::read(&mut call, "limit").await?;
    let (number, description) = (fields.number("resource_limit")?, fields.description()?);
    let (id, model) = (limit.id.clone(), identity.options.limit_model);
    let work = move |tx: &mut Tx| {
        let mut limit = tx.get::<Limit>(&id)?.ok_or_else(|| missing("limit", &id))?.doc;
        limit.resource_limit = number.unwrap_or(limit.resource_limit);
        limit.description = description.clone().unwrap_or(limit.description);
        tx.update(&limit)?;
        model.check(tx, &limit)?;
        Ok(limit)
    };
    let limit = identity.write(&call, work).await?;
    single(&call, 200, "limit", shown(&call, &limit))
}

async fn delete(identity: Arc<Identity>, call: Call) -> Result<Reply> {
    let id = find(&identity, &call)?.id.clone();
    identity.write(&call, move |tx| Ok(tx.delete::<Limit>(&id).map(drop)?)).await?;
    Ok(Reply::empty(204))
}

impl contract::Limits for Identity {
    fn limit(
        &self,
        reader: &mut Reader,
        project: &ProjectId,
        service_type: &str,
        resource: &str,
    ) -> Result<Option<i64>> {
        let services = reader.list::<Service>(Query::all())?;
        for service in services.iter().filter(|service| service.kind == service_type) {
            let registered = reader.list::<RegisteredLimit>(Query::index("service", service.id.as_str()))?;
            let Some(registered) = registered.into_iter().find(|one| one.resource_name == resource) else { continue };
            let region = registered.region_id.as_deref().unwrap_or("");
            let own = reader.get_unique::<Limit>("resource", [project.as_str(), "", &service.id, region, resource])?;
            return Ok(Some(own.map_or(registered.default_limit, |own| own.resource_limit)));
        }
        Ok(None)
    }
}
