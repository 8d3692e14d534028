//! Services of the catalog.

use crate::Identity;
use crate::documents::*;
use crate::fields::Fields;
use crate::listing::{filtered, forbid, linked, missing, single};
use crate::project::{pairs, remove_where};
use base::Result;
use policy::Target;
use rest::{Call, Reply, Route};
use serde_json::{Value, json};
use std::sync::Arc;
use store::{Query, Tx};

pub(super) fn routes(identity: &Arc<Identity>) -> Vec<Route> {
    let (all, one) = ("/v3/services", "/v3/services/{id}");
    routes![identity;
        GET all, "services:list", "identity:list_services", 200, list;
        POST all, "services:create", "identity:create_service", 201, create;
        GET one, "services:show", "identity:get_service", 200, show;
        PATCH one, "services:update", "identity:update_service", 200, update;
        DELETE one, "services:delete", "identity:delete_service", 204, delete;
    ]
}

fn shown(call: &Call, service: &Service) -> Value {
    let mut object = service.extra.clone();
    object.extend(pairs([
        ("id", json!(service.id)),
        ("type", json!(service.kind)),
        ("enabled", json!(service.enabled)),
        ("description", service.description.clone()),
    ]));
    if let Some(name) = &service.name {
        object.insert("name".into(), json!(name));
    }
    linked(call, "services", object)
}

async fn list(identity: Arc<Identity>, call: Call) -> Result<Reply> {
    forbid(&call, &Target::new())?;
    let items: Vec<_> = identity.model().services.all().map(|service| shown(&call, service)).collect();
    filtered(&call, "services", items, &["type", "name"])
}

fn find(identity: &Identity, call: &Call) -> Result<Arc<Service>> {
    forbid(call, &Target::new())?;
    let id = call.param("id");
    identity.model().services.get(id).cloned().ok_or_else(|| missing("service", id))
}

async fn show(identity: Arc<Identity>, call: Call) -> Result<Reply> {
    let service = find(&identity, &call)?;
    single(&call, 200, "service", shown(&call, &service))
}

async fn create(identity: Arc<Identity>, mut call: Call) -> Result<Reply> {
    forbid(&call, &Target::new())?;
    let mut fields = Fields::read(&mut call, "service").await?;
    let service = Service {
        id: identity.env.uuid_hex().into(),
        kind: fields.need_name("type", 255)?,
        name: fields.name("name", 255)?,
        enabled: fields.flag("enabled")?.unwrap_or(true),
        description: fields.description()?.unwrap_or(Value::Null),
        extra: fields.rest()?,
    };
    let shown = shown(&call, &service);
    identity.write(&call, move |tx| Ok(tx.create(&service).map(drop)?)).await?;
    single(&call, 201, "service", shown)
}

async fn update(identity: Arc<Identity>, mut call: Call) -> Result<Reply> {
    let known = find(&identity, &call)?;
    let mut fields = Fields::read(&mut call, "service").await?;
    fields.fixed("id", &json!(known.id))?;
    let (kind, name) = (fields.name("type", 255)?, fields.name("name", 255)?);
    let (enabled, description) = (fields.flag("enabled")?, fields.description()?);
    let (id, extra) = (known.id.to_string(), fields.rest()?);
    let work = move |tx: &mut Tx| {
        let mut service = tx.get::<Service>(&id)?.ok_or_else(|| missing("service", &id))?.doc;
        service.kind = kind.clone().unwrap_or(service.kind);
        service.name = name.clone().or(service.name);
        service.enabled = enabled.unwrap_or(service.enabled);
        service.description = description.clone().unwrap_or(service.description);
        service.extra.extend(extra.clone());
        tx.update(&service)?;
        Ok(service)
    };
    let service = identity.write(&call, work).await?;
    single(&call, 200, "service", shown(&call, &service))
}

async fn delete(identity: Arc<Identity>, call: Call) -> Result<Reply> {
    let id = find(&identity, &call)?.id.to_string();
    let work = move |tx: &mut Tx| {
        tx.get::<Service>(&id)?.ok_or_else(|| missing("service", &id))?;
        for endpoint in tx.list::<Endpoint>(Query::index("service", &*id))? {
            super::endpoint::remove(tx, &endpoint.id)?;
        }
        remove_where::<PolicyAssociation>(tx, "service", &id)?;
        remove_where::<RegisteredLimit>(tx, "service", &id)?;
        remove_where::<Limit>(tx, "service", &id)?;
        tx.delete::<Service>(&id)?;
        Ok(())
    };
    identity.write(&call, work).await?;
    Ok(Reply::empty(204))
}
