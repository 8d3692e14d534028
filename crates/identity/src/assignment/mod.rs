//! Role assignments: who has which role where.
//!
//! Granted and revoked one by one (`/v3/projects/{id}/users/{user_id}/roles/{role_id}` and its kin), listed together in
//! [`list`]. What they come to is worked out in [`effective`].

pub mod effective;
mod list;

use crate::Identity;
use crate::documents::*;
use crate::listing::{collection, forbid, missing};
use crate::role::with_role;
use base::{Fault, Result};
use policy::Target;
use rest::{Access, Call, Method, Reply, Route};
use std::sync::Arc;
use store::Tx;

/// A family of paths: place, actor and inheritance.
struct Family {
    path: &'static str,
    roles: &'static str,
    create: &'static str,
    check: &'static str,
    list: &'static str,
    revoke: &'static str,
}

const fn grants(path: &'static str, roles: &'static str) -> Family {
    Family {
        path,
        roles,
        create: "identity:create_grant",
        check: "identity:check_grant",
        list: "identity:list_grants",
        revoke: "identity:revoke_grant",
    }
}

const FAMILIES: &[Family] = &[
    grants("/v3/projects/{id}/users/{user_id}/roles/{role_id}", "/v3/projects/{id}/users/{user_id}/roles"),
    grants("/v3/projects/{id}/groups/{group_id}/roles/{role_id}", "/v3/projects/{id}/groups/{group_id}/roles"),
    grants("/v3/domains/{id}/users/{user_id}/roles/{role_id}", "/v3/domains/{id}/users/{user_id}/roles"),
    grants("/v3/domains/{id}/groups/{group_id}/roles/{role_id}", "/v3/domains/{id}/groups/{group_id}/roles"),
    grants(
        "/v3/OS-INHERIT/projects/{id}/users/{user_id}/roles/{role_id}/inherited_to_projects",
        "/v3/OS-INHERIT/projects/{id}/users/{user_id}/roles/inherited_to_projects",
    ),
    grants(
        "/v3/OS-INHERIT/projects/{id}/groups/{group_id}/roles/{role_id}/inherited_to_projects",
        "/v3/OS-INHERIT/projects/{id}/groups/{group_id}/roles/inherited_to_projects",
    ),
    grants(
        "/v3/OS-INHERIT/domains/{id}/users/{user_id}/roles/{role_id}/inherited_to_projects",
        "/v3/OS-INHERIT/domains/{id}/users/{user_id}/roles/inherited_to_projects",
    ),
    grants(
        "/v3/OS-INHERIT/domains/{id}/groups/{group_id}/roles/{role_id}/inherited_to_projects",
        "/v3/OS-INHERIT/domains/{id}/groups/{group_id}/roles/inherited_to_projects",
    ),
    Family {
        path: "/v3/system/users/{user_id}/roles/{role_id}",
        roles: "/v3/system/users/{user_id}/roles",
        create: "identity:create_system_grant_for_user",
        check: "identity:check_system_grant_for_user",
        list: "identity:list_system_grants_for_user",
        revoke: "identity:revoke_system_grant_for_user",
    },
    Family {
        path: "/v3/system/groups/{group_id}/roles/{role_id}",
        roles: "/v3/system/groups/{group_id}/roles",
        create: "identity:create_system_grant_for_group",
        check: "identity:check_system_grant_for_group",
        list: "identity:list_system_grants_for_group",
        revoke: "identity:revoke_system_grant_for_group",
    },
];

/// Operation ids, in the order of [`FAMILIES`]: create, check, list, revoke.
const OPERATIONS: [[&str; 4]; 10] = [
    [
        "grants:project_user:create",
        "grants:project_user:check",
        "grants:project_user:list",
        "grants:project_user:revoke",
    ],
    [
        "grants:project_group:create",
        "grants:project_group:check",
        "grants:project_group:list",
        "grants:project_group:revoke",
    ],
    ["grants:domain_user:create", "grants:domain_user:check", "grants:domain_user:list", "grants:domain_user:revoke"],
    [
        "grants:domain_group:create",
        "grants:domain_group:check",
        "grants:domain_group:list",
        "grants:domain_group:revoke",
    ],
    [
        "inherited:project_user:create",
        "inherited:project_user:check",
        "inherited:project_user:list",
        "inherited:project_user:revoke",
    ],
    [
        "inherited:project_group:create",
        "inherited:project_group:check",
        "inherited:project_group:list",
        "inherited:project_group:revoke",
    ],
    [
        "inherited:domain_user:create",
        "inherited:domain_user:check",
        "inherited:domain_user:list",
        "inherited:domain_user:revoke",
    ],
    [
        "inherited:domain_group:create",
        "inherited:domain_group:check",
        "inherited:domain_group:list",
        "inherited:domain_group:revoke",
    ],
    ["grants:system_user:create", "grants:system_user:check", "grants:system_user:list", "grants:system_user:revoke"],
    [
        "grants:system_group:create",
        "grants:system_group:check",
        "grants:system_group:list",
        "grants:system_group:revoke",
    ],
];

pub(crate) fn routes(identity: &Arc<Identity>) -> Vec<Route> {
    let rule = Access::Rule;
    let mut routes = list::routes(identity);
    for (family, names) in FAMILIES.iter().zip(OPERATIONS) {
        routes.push(Route::new(identity, Method::PUT, family.path, names[0], rule(family.create), 204, create));
        routes.push(Route::new(identity, Method::GET, family.path, names[1], rule(family.check), 204, check));
        routes.push(Route::new(identity, Method::GET, family.roles, names[2], rule(family.list), 200, list_roles));
        routes.push(Route::new(identity, Method::DELETE, family.path, names[3], rule(family.revoke), 204, revoke));
    }
    routes
}

/// Actor and place of a path, after the right has been asked for.
struct Grant {
    actor: Actor,
    place: Place,
    inherited: bool,
    role: Option<Arc<Role>>,
}

fn grant(identity: &Identity, call: &Call) -> Result<Grant> {
    let model = identity.model();
    let mut target = Target::new();
    let mut absent: Option<Fault> = None;
    let mut lacks = |what: &str, id: &str| {
        absent.get_or_insert_with(|| missing(what, id));
    };
    let (user, group, role) = (call.param("user_id"), call.param("group_id"), call.param("role_id"));
    let actor = if group.is_empty() {
        match model.users.get(user) {
            Some(user) => target = target.with("target.user.domain_id", user.domain_id.to_string()),
            None => lacks("user", user),
        }
        Actor::User(user.into())
    } else {
        match model.groups.get(group) {
            Some(group) => target = target.with("target.group.domain_id", group.domain_id.to_string()),
            None => lacks("group", group),
        }
        Actor::Group(group.into())
    };
    let id = call.param("id");
    let place = if call.operation.contains(":system_") {
        Place::System
    } else if call.operation.contains(":domain_") {
        match model.domain(id) {
            Some(domain) => target = target.with("target.domain.id", domain.id.to_string()),
            None => lacks("domain", id),
        }
        Place::Domain(id.into())
    } else {
        match model.projects.get(id) {
            Some(project) => target = target.with("target.project.domain_id", project.domain().to_owned()),
            None => lacks("project", id),
        }
        Place::Project(id.into())
    };
    let known = model.roles.get(role).cloned();
    match &known {
        Some(role) => target = with_role(target, role),
        None if role.is_empty() => {}
        None => lacks("role", role),
    }
    forbid(call, &target)?;
    let inherited = call.operation.starts_with("inherited:");
    absent.map_or(Ok(Grant { actor, place, inherited, role: known }), Err)
}

impl Grant {
    fn assignment(&self, call: &Call) -> Assignment {
        Assignment::new(self.actor.clone(), self.place.clone(), call.param("role_id"), self.inherited)
    }
}

async fn create(identity: Arc<Identity>, call: Call) -> Result<Reply> {
    let grant = grant(&identity, &call)?;
    identity.renew_actor(&grant.actor).await?;
    standing(&identity.model(), &grant.actor)?;
    let home = match &grant.place {
        Place::Project(id) => identity.model().projects.get(id).map(|project| project.domain().to_owned()),
        Place::Domain(id) => Some(id.to_string()),
        Place::System => None,
    };
    if grant.role.as_ref().is_some_and(|role| role.domain_id.is_some() && role.domain_id.as_deref() != home.as_deref())
    {
        return Err(Fault::forbidden("A role of a domain may be assigned only in that domain."));
    }
    let assignment = grant.assignment(&call);
    let work = move |tx: &mut Tx| {
        match &assignment.actor {
            Actor::User(id) => tx.get::<User>(id)?.map(drop).ok_or_else(|| missing("user", id))?,
            Actor::Group(id) => tx.get::<Group>(id)?.map(drop).ok_or_else(|| missing("group", id))?,
        }
        match &assignment.place {
            Place::Project(id) => tx.get::<Project>(id)?.map(drop).ok_or_else(|| missing("project", id))?,
            Place::Domain(id) => tx.get::<Project>(id)?.map(drop).ok_or_else(|| missing("domain", id))?,
            Place::System => {}
        }
        tx.get::<Role>(&assignment.role_id)?.ok_or_else(|| missing("role", &assignment.role_id))?;
        Ok(tx.put(&assignment)?)
    };
    identity.write(&call, work).await?;
    Ok(Reply::empty(204))
}

/// Nobody whom a directory has lost gets a role; what is lost can still lose one.
fn standing(model: &crate::model::Model, actor: &Actor) -> Result<()> {
    match actor {
        Actor::User(id) if model.users.get(id).is_some_and(|user| !model.stands(user)) => Err(missing("user", id)),
        Actor::Group(id) if model.groups.get(id).is_some_and(|group| !model.group_stands(group)) => {
            Err(missing("group", id))
        }
        _ => Ok(()),
    }
}

fn not_granted(assignment: &Assignment) -> Fault {
    let (role, actor, place) = (&assignment.role_id, assignment.actor.id(), assignment.place.id());
    Fault::not_found(format!(
        "Could not find role assignment with role: {role}, user or group: {actor}, project, domain, or system: {place}."
    ))
}

async fn check(identity: Arc<Identity>, call: Call) -> Result<Reply> {
    let assignment = grant(&identity, &call)?.assignment(&call);
    let known = identity.model().assignments.get(&assignment.id).is_some();
    if known { Ok(Reply::empty(204)) } else { Err(not_granted(&assignment)) }
}

async fn revoke(identity: Arc<Identity>, call: Call) -> Result<Reply> {
    let assignment = grant(&identity, &call)?.assignment(&call);
    let work = move |tx: &mut Tx| {
        if tx.get::<Assignment>(&assignment.id)?.is_none() {
            return Err(not_granted(&assignment));
        }
        tx.delete::<Assignment>(&assignment.id)?;
        Ok(())
    };
    identity.write(&call, work).await?;
    Ok(Reply::empty(204))
}

async fn list_roles(identity: Arc<Identity>, call: Call) -> Result<Reply> {
    let grant = grant(&identity, &call)?;
    let items: Vec<_> = {
        let model = identity.model();
        let found = model
            .assignments
            .find("actor", grant.actor.id())
            .filter(|a| a.actor == grant.actor && a.place == grant.place && a.inherited == grant.inherited);
        let roles = found.filter_map(|assignment| model.roles.get(&assignment.role_id));
        roles.map(|role| crate::role::shown(&call, role)).collect()
    };
    collection(&call, "roles", items)
}
