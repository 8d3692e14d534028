//! Endpoint groups: a name for all endpoints that fit a filter, and the projects that see them.

use super::{fits, known_project, lacks, put, shown_projects, take_away};
use crate::Identity;
use crate::catalog::endpoint;
use crate::documents::*;
use crate::fields::Fields;
use crate::listing::{collection, filtered, forbid, linked, missing, single};
use crate::project::{pairs, remove_where};
use base::{Fault, Result};
use policy::Target;
use rest::{Call, Reply, Route};
use serde_json::{Value, json};
use std::sync::Arc;
use store::Tx;

const NAME_CHARS: usize = 255;
const FILTERS: [&str; 3] = ["service_id", "region_id", "interface"];

pub(super) fn routes(identity: &Arc<Identity>) -> Vec<Route> {
    let (all, one) = ("/v3/OS-EP-FILTER/endpoint_groups", "/v3/OS-EP-FILTER/endpoint_groups/{id}");
    let project = "/v3/OS-EP-FILTER/endpoint_groups/{id}/projects/{project_id}";
    routes![identity;
        GET all, "endpoint_groups:list", "identity:list_endpoint_groups", 200, list;
        POST all, "endpoint_groups:create", "identity:create_endpoint_group", 201, create;
        GET one, "endpoint_groups:show", "identity:get_endpoint_group", 200, show;
        PATCH one, "endpoint_groups:update", "identity:update_endpoint_group", 200, update;
        DELETE one, "endpoint_groups:delete", "identity:delete_endpoint_group", 204, delete;
        GET "/v3/OS-EP-FILTER/endpoint_groups/{id}/endpoints", "endpoint_groups:endpoints", "identity:list_endpoints_associated_with_endpoint_group", 200, endpoints;
        GET "/v3/OS-EP-FILTER/endpoint_groups/{id}/projects", "endpoint_groups:projects", "identity:list_projects_associated_with_endpoint_group", 200, projects;
        PUT project, "endpoint_groups:add_project", "identity:add_endpoint_group_to_project", 204, add;
        GET project, "endpoint_groups:show_project", "identity:get_endpoint_group_in_project", 200, show_project;
        DELETE project, "endpoint_groups:remove_project", "identity:remove_endpoint_group_from_project", 204, remove;
        GET "/v3/OS-EP-FILTER/projects/{id}/endpoint_groups", "projects:endpoint_groups", "identity:list_endpoint_groups_for_project", 200, of_project;
    ]
}

fn shown(call: &Call, group: &EndpointGroup) -> Value {
    let mut object = group.extra.clone();
    object.extend(pairs([
        ("id", json!(group.id)),
        ("name", json!(group.name)),
        ("description", group.description.clone()),
        ("filters", json!(group.filters)),
    ]));
    linked(call, "OS-EP-FILTER/endpoint_groups", object)
}

async fn list(identity: Arc<Identity>, call: Call) -> Result<Reply> {
    forbid(&call, &Target::new())?;
    let items: Vec<_> = identity.model().endpoint_groups.all().map(|group| shown(&call, group)).collect();
    filtered(&call, "endpoint_groups", items, &["name"])
}

fn find(identity: &Identity, call: &Call) -> Result<Arc<EndpointGroup>> {
    forbid(call, &Target::new())?;
    let id = call.param("id");
    identity.model().endpoint_groups.get(id).cloned().ok_or_else(|| missing("endpoint group", id))
}

async fn show(identity: Arc<Identity>, call: Call) -> Result<Reply> {
    let group = find(&identity, &call)?;
    single(&call, 200, "endpoint_group", shown(&call, &group))
}

fn filters(fields: &mut Fields) -> Result<Option<Extra>> {
    let Some(filters) = fields.object("filters")? else { return Ok(None) };
    for (name, value) in &filters {
        if !FILTERS.contains(&name.as_str()) {
            let known = FILTERS.join(", ");
            return Err(Fault::invalid(format!("Invalid input for field 'filters': '{name}' is not one of {known}.")));
        }
        let text = value.as_str();
        let text =
            text.ok_or_else(|| Fault::invalid(format!("Invalid input for field 'filters': '{name}' is a string.")))?;
        base::limits::text(name, text, NAME_CHARS)?;
        if name == "interface" && !endpoint::INTERFACES.contains(&text) {
            return Err(Fault::invalid(format!(
                "Invalid input for field 'filters': the interface '{text}' is not one of admin, internal, public."
            )));
        }
    }
    Ok(Some(filters))
}

async fn create(identity: Arc<Identity>, mut call: Call) -> Result<Reply> {
    forbid(&call, &Target::new())?;
    let mut fields = Fields::read(&mut call, "endpoint_group").await?;
    let filters = filters(&mut fields)?.filter(|filters| !filters.is_empty());
    let group = EndpointGroup {
        id: identity.env.uuid_hex(),
        name: fields.need_name("name", NAME_CHARS)?,
        description: fields.description()?.unwrap_or(Value::Null),
        filters: filters
            .ok_or_else(|| Fault::invalid("Invalid input for field 'filters': it is required and cannot be empty."))?,
        extra: fields.rest()?,
    };
    let shown = shown(&call, &group);
    identity.write(&call, move |tx| Ok(tx.create(&group).map(drop)?)).await?;
    single(&call, 201, "endpoint_group", shown)
}

async fn update(identity: Arc<Identity>, mut call: Call) -> Result<Reply> {
    let known = find(&identity, &call)?;
    let mut fields = Fields::read(&mut call, "endpoint_group").await?;
    fields.fixed("id", &json!(known.id))?;
    // The `openstack` command sends what it was not given as null.
    for name in ["name", "filters"] {
        fields.take_null(name);
    }
    let (name, description) = (fields.name("name", NAME_CHARS)?, fields.description()?);
    let filters = filters(&mut fields)?;
    let (id, extra) = (known.id.clone(), fields.rest()?);
    let work = move |tx: &mut Tx| {
        let mut group = tx.get::<EndpointGroup>(&id)?.ok_or_else(|| missing("endpoint group", &id))?.doc;
        group.name = name.clone().unwrap_or(group.name);
        group.description = description.clone().unwrap_or(group.description);
        group.filters = filters.clone().unwrap_or(group.filters);
        group.extra.extend(extra.clone());
        tx.update(&group)?;
        Ok(group)
    };
    let group = identity.write(&call, work).await?;
    single(&call, 200, "endpoint_group", shown(&call, &group))
}

async fn delete(identity: Arc<Identity>, call: Call) -> Result<Reply> {
    let id = find(&identity, &call)?.id.clone();
    let work = move |tx: &mut Tx| {
        tx.get::<EndpointGroup>(&id)?.ok_or_else(|| missing("endpoint group", &id))?;
        remove_where::<EndpointFilter>(tx, "group", &id)?;
        Ok(tx.delete::<EndpointGroup>(&id).map(drop)?)
    };
    identity.write(&call, work).await?;
    Ok(Reply::empty(204))
}

async fn endpoints(identity: Arc<Identity>, call: Call) -> Result<Reply> {
    let (group, model) = (find(&identity, &call)?, identity.model());
    let found = model.endpoints.all().filter(|endpoint| fits(&group, endpoint));
    collection(&call, "endpoints", found.map(|found| endpoint::shown(&identity, &call, found)).collect())
}

async fn projects(identity: Arc<Identity>, call: Call) -> Result<Reply> {
    let (group, model) = (find(&identity, &call)?, identity.model());
    collection(&call, "projects", shown_projects(&call, &model, "group", &group.id))
}

/// The filter of the path; group and project exist.
fn asked(identity: &Identity, call: &Call) -> Result<EndpointFilter> {
    let group = find(identity, call)?;
    let project = known_project(&identity.model(), call.param("project_id"))?;
    Ok(EndpointFilter::new(&project.id, None, Some(&group.id)))
}

async fn add(identity: Arc<Identity>, call: Call) -> Result<Reply> {
    let filter = asked(&identity, &call)?;
    identity.write(&call, move |tx| put(tx, &filter)).await?;
    Ok(Reply::empty(204))
}

async fn show_project(identity: Arc<Identity>, call: Call) -> Result<Reply> {
    let filter = asked(&identity, &call)?;
    identity.model().endpoint_filters.get(&filter.id).ok_or_else(|| lacks(&filter))?;
    let (group, project) = (call.param("id"), &filter.project_id);
    let link = call.link(&format!("/v3/OS-EP-FILTER/endpoint_groups/{group}/projects/{project}"));
    let object = json!({"endpoint_group_id": group, "project_id": project, "links": {"self": link}});
    single(&call, 200, "project_endpoint_group", object)
}

async fn remove(identity: Arc<Identity>, call: Call) -> Result<Reply> {
    let filter = asked(&identity, &call)?;
    identity.write(&call, move |tx| take_away(tx, &filter)).await?;
    Ok(Reply::empty(204))
}

async fn of_project(identity: Arc<Identity>, call: Call) -> Result<Reply> {
    forbid(&call, &Target::new())?;
    let model = identity.model();
    let project = known_project(&model, call.param("id"))?;
    let filters = model.endpoint_filters.find("project", &project.id);
    let groups = filters.filter_map(|filter| model.endpoint_groups.get(filter.endpoint_group_id.as_ref()?));
    collection(&call, "endpoint_groups", groups.map(|group| shown(&call, group)).collect())
}
