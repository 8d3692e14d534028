//! Endpoints: where a service is reached, by interface and region.

use crate::Identity;
use crate::documents::*;
use crate::fields::Fields;
use crate::listing::{filtered, forbid, linked, missing, single};
use crate::project::{pairs, remove_where};
use base::{Fault, Result};
use policy::Target;
use rest::{Call, Reply, Route};
use serde_json::{Value, json};
use std::sync::Arc;
use store::Tx;

const URL_CHARS: usize = 2048;
pub(crate) const INTERFACES: [&str; 3] = ["public", "internal", "admin"];

pub(super) fn routes(identity: &Arc<Identity>) -> Vec<Route> {
    let (all, one) = ("/v3/endpoints", "/v3/endpoints/{id}");
    routes![identity;
        GET all, "endpoints:list", "identity:list_endpoints", 200, list;
        POST all, "endpoints:create", "identity:create_endpoint", 201, create;
        GET one, "endpoints:show", "identity:get_endpoint", 200, show;
        PATCH one, "endpoints:update", "identity:update_endpoint", 200, update;
        DELETE one, "endpoints:delete", "identity:delete_endpoint", 204, delete;
    ]
}

pub(crate) fn shown(identity: &Identity, call: &Call, endpoint: &Endpoint) -> Value {
    let mut object = endpoint.extra.clone();
    object.extend(pairs([
        ("id", json!(endpoint.id)),
        ("interface", json!(endpoint.interface)),
        ("region", json!(endpoint.region_id)),
        ("region_id", json!(endpoint.region_id)),
        ("service_id", json!(endpoint.service_id)),
        ("url", json!(super::url(identity, endpoint))),
        ("enabled", json!(endpoint.enabled)),
    ]));
    linked(call, "endpoints", object)
}

async fn list(identity: Arc<Identity>, call: Call) -> Result<Reply> {
    forbid(&call, &Target::new())?;
    let items: Vec<_> = identity.model().endpoints.all().map(|e| shown(&identity, &call, e)).collect();
    filtered(&call, "endpoints", items, &["interface", "service_id", "region_id", "region", "name"])
}

fn find(identity: &Identity, call: &Call) -> Result<Arc<Endpoint>> {
    forbid(call, &Target::new())?;
    let id = call.param("id");
    identity.model().endpoints.get(id).cloned().ok_or_else(|| missing("endpoint", id))
}

async fn show(identity: Arc<Identity>, call: Call) -> Result<Reply> {
    let endpoint = find(&identity, &call)?;
    single(&call, 200, "endpoint", shown(&identity, &call, &endpoint))
}

/// The attributes of a body.
#[derive(Clone)]
struct Given {
    interface: Option<String>,
    service: Option<String>,
    url: Option<String>,
    enabled: Option<bool>,
    /// By `region_id`: must exist. By the older `region`: is made.
    region: Option<Option<String>>,
    make_region: bool,
    extra: Extra,
}

impl Given {
    fn read(mut fields: Fields) -> Result<Given> {
        let interface = fields.name("interface", 16)?;
        if let Some(other) = interface.as_deref().filter(|name| !INTERFACES.contains(name)) {
            return Err(Fault::invalid(format!(
                "Invalid input for field 'interface': '{other}' is not one of admin, internal, public."
            )));
        }
        let url = fields.name("url", URL_CHARS)?;
        if let Some(bad) = url.as_deref().filter(|url| !good(url)) {
            return Err(Fault::invalid(format!(
                "Invalid input for field 'url': '{bad}' is no URL with known substitutions."
            )));
        }
        let (by_id, older) = (fields.text("region_id")?, fields.text("region")?);
        Ok(Given {
            interface,
            service: fields.id("service_id")?.flatten(),
            url,
            enabled: fields.flag("enabled")?,
            make_region: by_id.is_none() && older.is_some(),
            region: by_id.or(older),
            extra: fields.rest()?,
        })
    }

    fn apply(&self, tx: &mut Tx, mut endpoint: Endpoint) -> Result<Endpoint> {
        let given = self.clone();
        endpoint.interface = given.interface.unwrap_or(endpoint.interface);
        endpoint.url = given.url.unwrap_or(endpoint.url);
        endpoint.enabled = given.enabled.unwrap_or(endpoint.enabled);
        endpoint.extra.extend(given.extra);
        if let Some(id) = given.service {
            endpoint.service_id = id.into();
        }
        let service = &endpoint.service_id;
        let known = tx.get::<Service>(service)?;
        known.ok_or_else(|| Fault::invalid(format!("Could not find service: {service}.")))?;
        if let Some(region) = given.region {
            if let Some(id) = region.as_deref().filter(|id| !id.is_empty())
                && tx.get::<Region>(id)?.is_none()
            {
                if !given.make_region {
                    return Err(Fault::invalid(format!("Could not find region: {id}.")));
                }
                tx.create(&Region {
                    id: id.to_owned(),
                    parent_region_id: None,
                    description: String::new(),
                    extra: Extra::new(),
                })?;
            }
            endpoint.region_id = region.filter(|id| !id.is_empty());
        }
        Ok(endpoint)
    }
}

/// A URL with a scheme whose marks are all known.
fn good(url: &str) -> bool {
    let mut rest = url.replace("$(", "%(");
    for mark in ["project_id", "tenant_id", "user_id"] {
        rest = rest.replace(&format!("%({mark})s"), "x");
    }
    url.contains("://") && !rest.contains("%(")
}

async fn create(identity: Arc<Identity>, mut call: Call) -> Result<Reply> {
    forbid(&call, &Target::new())?;
    let fields = Fields::read(&mut call, "endpoint").await?;
    let lacks =
        |name: &str| Fault::invalid(format!("Invalid input for field 'endpoint': '{name}' is a required property."));
    let given = Given::read(fields)?;
    let blank = Endpoint {
        id: identity.env.uuid_hex().into(),
        service_id: given.service.clone().ok_or_else(|| lacks("service_id"))?.into(),
        interface: given.interface.clone().ok_or_else(|| lacks("interface"))?,
        region_id: None,
        url: given.url.clone().ok_or_else(|| lacks("url"))?,
        enabled: true,
        extra: Extra::new(),
    };
    let work = move |tx: &mut Tx| {
        let endpoint = given.apply(tx, blank.clone())?;
        tx.create(&endpoint)?;
        Ok(endpoint)
    };
    let endpoint = identity.write(&call, work).await?;
    single(&call, 201, "endpoint", shown(&identity, &call, &endpoint))
}

async fn update(identity: Arc<Identity>, mut call: Call) -> Result<Reply> {
    let known = find(&identity, &call)?;
    let mut fields = Fields::read(&mut call, "endpoint").await?;
    fields.fixed("id", &json!(known.id))?;
    let given = Given::read(fields)?;
    let id = known.id.to_string();
    let work = move |tx: &mut Tx| {
        let known = tx.get::<Endpoint>(&id)?.ok_or_else(|| missing("endpoint", &id))?.doc;
        let endpoint = given.apply(tx, known)?;
        tx.update(&endpoint)?;
        Ok(endpoint)
    };
    let endpoint = identity.write(&call, work).await?;
    single(&call, 200, "endpoint", shown(&identity, &call, &endpoint))
}

async fn delete(identity: Arc<Identity>, call: Call) -> Result<Reply> {
    let id = find(&identity, &call)?.id.to_string();
    identity.write(&call, move |tx| remove(tx, &id)).await?;
    Ok(Reply::empty(204))
}

/// Deletes an endpoint and what was said of it.
pub(super) fn remove(tx: &mut Tx, id: &str) -> Result<()> {
    remove_where::<PolicyAssociation>(tx, "endpoint", id)?;
    remove_where::<EndpointFilter>(tx, "endpoint", id)?;
    Ok(tx.delete::<Endpoint>(id).map(drop)?)
}
