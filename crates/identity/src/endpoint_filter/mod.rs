//! Which endpoints a project sees (OS-EP-FILTER): single ones, and groups of those that fit a filter ([`group`]).
//!
//! A project that has been given any sees these and no others in its catalog. This hides and does not protect: an
//! endpoint left out answers as before.

mod group;

use crate::Identity;
use crate::catalog::endpoint;
use crate::documents::*;
use crate::listing::{collection, forbid, missing};
use crate::model::Model;
use base::{Fault, ProjectId, Result};
use policy::Target;
use rest::{Call, Reply, Route};
use std::collections::BTreeSet;
use std::sync::Arc;
use store::Tx;

pub(crate) fn routes(identity: &Arc<Identity>) -> Vec<Route> {
    let one = "/v3/OS-EP-FILTER/projects/{id}/endpoints/{endpoint_id}";
    let mut routes = group::routes(identity);
    routes.extend(routes![identity;
        GET "/v3/OS-EP-FILTER/projects/{id}/endpoints", "projects:endpoints:list", "identity:list_endpoints_for_project", 200, list;
        PUT one, "projects:endpoints:add", "identity:add_endpoint_to_project", 204, add;
        GET one, "projects:endpoints:check", "identity:check_endpoint_in_project", 204, check;
        DELETE one, "projects:endpoints:remove", "identity:remove_endpoint_from_project", 204, remove;
        GET "/v3/OS-EP-FILTER/endpoints/{id}/projects", "endpoints:projects", "identity:list_projects_for_endpoint", 200, projects;
    ]);
    routes
}

/// True where an endpoint fits all that a group asks for.
fn fits(group: &EndpointGroup, endpoint: &Endpoint) -> bool {
    group.filters.iter().all(|(name, wanted)| {
        let value = match name.as_str() {
            "service_id" => Some(endpoint.service_id.as_str()),
            "region_id" => endpoint.region_id.as_deref(),
            "interface" => Some(endpoint.interface.as_str()),
            _ => return false,
        };
        wanted.as_str() == value
    })
}

/// The ids of the endpoints that a project is confined to; none where it sees all.
pub(crate) fn seen(model: &Model, project: &str) -> Option<BTreeSet<String>> {
    let mut filters = model.endpoint_filters.find("project", project).peekable();
    filters.peek()?;
    let mut ids = BTreeSet::new();
    for filter in filters {
        ids.extend(filter.endpoint_id.as_ref().map(ToString::to_string));
        let group = filter.endpoint_group_id.as_ref().and_then(|id| model.endpoint_groups.get(id));
        if let Some(group) = group {
            let members = model.endpoints.all().filter(|endpoint| fits(group, endpoint));
            ids.extend(members.map(|endpoint| endpoint.id.to_string()));
        }
    }
    Some(ids)
}

impl EndpointFilter {
    /// Of one project and one endpoint or group, named by its id.
    pub fn new(project: &str, endpoint: Option<&str>, group: Option<&str>) -> EndpointFilter {
        let of = endpoint.or(group).unwrap_or_default();
        EndpointFilter {
            id: format!("{project}:{of}"),
            project_id: ProjectId::new(project),
            endpoint_id: endpoint.map(Into::into),
            endpoint_group_id: group.map(Into::into),
        }
    }
}

fn known_project(model: &Model, id: &str) -> Result<Arc<Project>> {
    model.projects.get(id).cloned().ok_or_else(|| missing("project", id))
}

/// The filter of the path; project and endpoint exist.
fn asked(identity: &Identity, call: &Call) -> Result<EndpointFilter> {
    forbid(call, &Target::new())?;
    let (project, endpoint, model) = (call.param("id"), call.param("endpoint_id"), identity.model());
    model.endpoints.get(endpoint).ok_or_else(|| missing("endpoint", endpoint))?;
    known_project(&model, project)?;
    Ok(EndpointFilter::new(project, Some(endpoint), None))
}

/// Keeps a filter, unless what it names has gone meanwhile.
fn put(tx: &mut Tx, filter: &EndpointFilter) -> Result<()> {
    let project = &filter.project_id;
    tx.get::<Project>(project)?.ok_or_else(|| missing("project", project))?;
    if let Some(id) = &filter.endpoint_id {
        tx.get::<Endpoint>(id)?.ok_or_else(|| missing("endpoint", id))?;
    }
    if let Some(id) = &filter.endpoint_group_id {
        tx.get::<EndpointGroup>(id)?.ok_or_else(|| missing("endpoint group", id))?;
    }
    Ok(tx.put(filter).map(drop)?)
}

fn lacks(filter: &EndpointFilter) -> Fault {
    Fault::not_found(format!(
        "Could not find an association of project {} with what the path names.",
        filter.project_id
    ))
}

fn take_away(tx: &mut Tx, filter: &EndpointFilter) -> Result<()> {
    tx.get::<EndpointFilter>(&filter.id)?.ok_or_else(|| lacks(filter))?;
    Ok(tx.delete::<EndpointFilter>(&filter.id).map(drop)?)
}

async fn add(identity: Arc<Identity>, call: Call) -> Result<Reply> {
    let filter = asked(&identity, &call)?;
    identity.write(&call, move |tx| put(tx, &filter)).await?;
    Ok(Reply::empty(204))
}

async fn check(identity: Arc<Identity>, call: Call) -> Result<Reply> {
    let filter = asked(&identity, &call)?;
    identity.model().endpoint_filters.get(&filter.id).ok_or_else(|| lacks(&filter))?;
    Ok(Reply::empty(204))
}

async fn remove(identity: Arc<Identity>, call: Call) -> Result<Reply> {
    forbid(&call, &Target::new())?;
    let filter = EndpointFilter::new(call.param("id"), Some(call.param("endpoint_id")), None);
    identity.write(&call, move |tx| take_away(tx, &filter)).await?;
    Ok(Reply::empty(204))
}

async fn list(identity: Arc<Identity>, call: Call) -> Result<Reply> {
    forbid(&call, &Target::new())?;
    let model = identity.model();
    let project = known_project(&model, call.param("id"))?;
    let ids = seen(&model, &project.id).unwrap_or_default();
    let found = ids.iter().filter_map(|id| model.endpoints.get(id));
    collection(&call, "endpoints", found.map(|found| endpoint::shown(&identity, &call, found)).collect())
}

async fn projects(identity: Arc<Identity>, call: Call) -> Result<Reply> {
    forbid(&call, &Target::new())?;
    let (id, model) = (call.param("id"), identity.model());
    model.endpoints.get(id).ok_or_else(|| missing("endpoint", id))?;
    collection(&call, "projects", shown_projects(&call, &model, "endpoint", id))
}

fn shown_projects(call: &Call, model: &Model, index: &str, id: &str) -> Vec<serde_json::Value> {
    let found = model.endpoint_filters.find(index, id).filter_map(|filter| model.projects.get(&filter.project_id));
    found.map(|project| crate::project::shown(call, project)).collect()
}
