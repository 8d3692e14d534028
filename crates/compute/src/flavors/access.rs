//! Which projects may use a private flavor.

use super::{Flavor, find};
use crate::{Ask, Compute, ask, input};
use base::{Fault, Result};
use rest::{Access, Call, Method, Reply, Route, Version};
use serde_json::{Value, json};
use std::sync::Arc;

pub fn routes(state: &Arc<Compute>) -> Vec<Route> {
    let list = Access::Rule("os_compute_api:os-flavor-access");
    vec![
        Route::new(state, Method::GET, "/flavors/{flavor_id}/os-flavor-access", "flavors:access", list, 200, index),
        Route::new(state, Method::POST, "/flavors/{flavor_id}/action", "flavors:action", list, 200, action)
            .actions(&["addTenantAccess", "removeTenantAccess"]),
    ]
}

async fn flavor(state: &Compute, ask: &Ask) -> Result<store::Stored<Flavor>> {
    ask.enforce_own()?;
    state.read(ask, |reader, ask| find(reader, ask, ask.param("flavor_id"))).await
}

fn entries(flavor: &Flavor) -> Value {
    let entry = |project: &String| json!({"flavor_id": flavor.id, "tenant_id": project});
    json!({"flavor_access": flavor.projects.iter().map(entry).collect::<Vec<_>>()})
}

async fn index(state: Arc<Compute>, call: Call) -> Result<Reply> {
    let ask = Ask::of(&call);
    let flavor = flavor(&state, &ask).await?;
    if flavor.is_public {
        return Err(Fault::not_found("Access list not available for public flavors."));
    }
    Reply::json(200, &entries(&flavor))
}

async fn action(state: Arc<Compute>, mut call: Call) -> Result<Reply> {
    let (ask, body) = ask::read(&mut call, &[]).await?;
    let (name, value) = input::action(&body)?;
    let add = match name {
        "addTenantAccess" => true,
        "removeTenantAccess" => false,
        other => return Err(Fault::invalid(format!("There is no such action: {other}"))),
    };
    let rule = if add { "add_tenant_access" } else { "remove_tenant_access" };
    ask.enforce_rule(&format!("os_compute_api:os-flavor-access:{rule}"), &ask.own())?;
    let mut fields = input::Fields::of(if add { "addTenantAccess" } else { "removeTenantAccess" }, value)?;
    let project = input::text("tenant", fields.need("tenant")?, 1, 255)?;
    fields.finish()?;
    let version = ask.version;
    let flavor = state
        .write(&ask, move |tx, ask| {
            let mut flavor = find(tx, ask, ask.param("flavor_id"))?.doc;
            change(&mut flavor, &project, add, version)?;
            tx.update(&flavor)?;
            Ok(flavor)
        })
        .await?;
    Reply::json(200, &entries(&flavor))
}

fn change(flavor: &mut Flavor, project: &str, add: bool, version: Version) -> Result<()> {
    if add && flavor.is_public && version >= Version(2, 7) {
        return Err(Fault::conflict("Can not add access to a public flavor."));
    }
    let changed = if add { flavor.projects.insert(project.to_owned()) } else { flavor.projects.remove(project) };
    match (changed, add) {
        (true, _) => Ok(()),
        (false, true) => Err(Fault::conflict(format!(
            "Flavor access already exists for flavor {} and project {project} combination.",
            flavor.id
        ))),
        (false, false) => {
            Err(Fault::not_found(format!("Flavor access not found for {} / {project} combination.", flavor.id)))
        }
    }
}
