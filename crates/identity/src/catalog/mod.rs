//! The catalog: regions, services and their endpoints, and the list of them that stands in a token.
//!
//! Endpoints that nubo made for itself keep only a path; they are shown below the public URL of the moment, so that a
//! moved cloud needs no edited documents.

pub(crate) mod endpoint;
mod region;
mod service;

use crate::Identity;
use crate::documents::Endpoint;
use crate::model::Model;
use crate::token::verify::Verified;
use rest::Route;
use serde::Serialize;
use serde_json::value::RawValue;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

pub(crate) fn routes(identity: &Arc<Identity>) -> Vec<Route> {
    [region::routes(identity), service::routes(identity), endpoint::routes(identity)].into_iter().flatten().collect()
}

/// The most catalogs that are kept worked out.
const KEPT: usize = 4096;

#[derive(Serialize)]
struct Entry<'a> {
    endpoints: Vec<EndpointShown<'a>>,
    id: &'a str,
    #[serde(rename = "type")]
    kind: &'a str,
    name: &'a str,
}

#[derive(Serialize)]
struct EndpointShown<'a> {
    id: &'a str,
    interface: &'a str,
    region: Option<&'a str>,
    region_id: Option<&'a str>,
    url: String,
}

/// The catalog as a token's bearer sees it, ready as JSON.
pub(crate) fn of(identity: &Identity, model: &Model, verified: &Verified) -> Arc<RawValue> {
    let project = verified.project.as_ref().map(|(project, _)| project.id.as_str());
    let seen = project.and_then(|project| crate::endpoint_filter::seen(model, project));
    let personal = seen.is_some() || model.endpoints.all().any(|endpoint| marks(&endpoint.url));
    let key = if personal { format!("{}/{}", project.unwrap_or(""), verified.user.id) } else { String::new() };
    let mut kept = model.catalogs.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    if let Some(catalog) = kept.get(&key) {
        return catalog.clone();
    }
    let catalog: Arc<RawValue> = build(identity, model, project, seen.as_ref(), &verified.user.id).into();
    if kept.len() >= KEPT {
        kept.clear();
    }
    kept.insert(key, catalog.clone());
    catalog
}

fn marks(url: &str) -> bool {
    url.contains("$(") || url.contains("%(")
}

/// `seen` are the ids of the endpoints that the project is confined to.
fn build(
    identity: &Identity,
    model: &Model,
    project: Option<&str>,
    seen: Option<&BTreeSet<String>>,
    user: &str,
) -> Box<RawValue> {
    let mut by_service: BTreeMap<&str, Vec<EndpointShown>> = BTreeMap::new();
    let sees = |endpoint: &Endpoint| seen.is_none_or(|seen| seen.contains(endpoint.id.as_str()));
    for endpoint in model.endpoints.all().filter(|endpoint| endpoint.enabled && sees(endpoint)) {
        // What needs a project is of no use without one, so it is left out, as Keystone does.
        let Some(url) = filled(&url(identity, endpoint), project, user) else { continue };
        let region = endpoint.region_id.as_deref();
        let shown = EndpointShown { id: &endpoint.id, interface: &endpoint.interface, region, region_id: region, url };
        by_service.entry(&endpoint.service_id).or_default().push(shown);
    }
    let services = model.services.all().filter(|service| service.enabled);
    let entries: Vec<Entry> = services
        .map(|service| Entry {
            endpoints: by_service.remove(service.id.as_str()).unwrap_or_default(),
            id: &service.id,
            kind: &service.kind,
            name: service.name.as_deref().unwrap_or(""),
        })
        .filter(|entry| !entry.endpoints.is_empty())
        .collect();
    serde_json::value::to_raw_value(&entries).unwrap_or_default()
}

/// Where an endpoint is, with its marks still in it.
fn url(identity: &Identity, endpoint: &Endpoint) -> String {
    if endpoint.url.starts_with('/') {
        format!("{}{}", identity.options.public_url, endpoint.url)
    } else {
        endpoint.url.clone()
    }
}

/// None where a mark has no value.
fn filled(url: &str, project: Option<&str>, user: &str) -> Option<String> {
    if !marks(url) {
        return Some(url.to_owned());
    }
    let mut url = url.replace("$(", "%(");
    for mark in ["%(project_id)s", "%(tenant_id)s"] {
        if url.contains(mark) {
            url = url.replace(mark, project?);
        }
    }
    url = url.replace("%(user_id)s", user);
    (!marks(&url)).then_some(url)
}
