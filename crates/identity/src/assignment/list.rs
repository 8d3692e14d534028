//! `GET /v3/role_assignments`: as granted, or what they come to (`effective`).

use super::effective::expand;
use crate::Identity;
use crate::documents::*;
use crate::listing::{forbid_rule, set};
use crate::model::Model;
use base::{Fault, Result};
use policy::Target;
use rest::{Access, Call, Method, Reply, Route};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::sync::Arc;

pub(super) fn routes(identity: &Arc<Identity>) -> Vec<Route> {
    let rule = Access::Rule("identity:list_role_assignments");
    vec![Route::new(identity, Method::GET, "/v3/role_assignments", "role_assignments:list", rule, 200, list)]
}

/// One line of the answer.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Line {
    actor: Actor,
    place: Place,
    role: String,
    inherited: bool,
    /// The assignment that it comes from, as a path.
    source: String,
    /// The membership that it comes by, as a path.
    membership: Option<String>,
    /// The role that implies this one.
    prior: Option<String>,
}

async fn list(identity: Arc<Identity>, call: Call) -> Result<Reply> {
    let query = |name: &str| call.query.get(name).filter(|value| !value.is_empty()).map(str::to_owned);
    let project = query("scope.project.id");
    let scope = call.caller.domain_id();
    let tree = set(&call, "include_subtree");
    let rule = if tree { "identity:list_role_assignments_for_tree" } else { call.rule };
    let asked = Target::new().with("target.domain_id", scope.as_ref().map(|id| id.to_string()));
    forbid_rule(&call, rule, &asked)?;
    let (effective, names) = (set(&call, "effective"), set(&call, "include_names"));
    check(&call, effective, tree)?;
    let model = identity.model();
    let places: Option<BTreeSet<String>> = project.clone().map(|id| {
        let below = if tree { model.descendants(&id) } else { Vec::new() };
        below.iter().map(|project| project.id.to_string()).chain([id]).collect()
    });
    let keeps = |line: &Line| -> bool {
        let same = |name: &str, value: &str| query(name).is_none_or(|wanted| wanted == value);
        let (user, group) = match &line.actor {
            Actor::User(id) => (id.as_str(), ""),
            Actor::Group(id) => ("", id.as_str()),
        };
        let domain = if let Place::Domain(id) = &line.place { id.as_str() } else { "" };
        let system = line.place == Place::System;
        same("user.id", user)
            && same("group.id", group)
            && same("role.id", &line.role)
            && same("scope.domain.id", domain)
            && places.as_ref().is_none_or(|ids| matches!(&line.place, Place::Project(id) if ids.contains(id.as_str())))
            && (!call.query.has("scope.system") || system)
            && (effective || !call.query.has("scope.OS-INHERIT:inherited_to") || line.inherited)
            && scope.as_ref().is_none_or(|id| lies_in(&model, &line.place, id))
    };
    let mut lines: Vec<Line> = model
        .assignments
        .all()
        .flat_map(|assignment| if effective { expanded(&model, assignment) } else { vec![granted(assignment)] })
        .filter(|line| keeps(line))
        .collect();
    // The same right may come by several ways; each is shown once per assignment that it comes from.
    lines.sort();
    lines.dedup();
    let items: Vec<_> = lines.iter().map(|line| shown(&call, &model, line, names)).collect();
    let links = json!({"next": null, "previous": null, "self": format!("{}{}", call.base_url, call.path)});
    call.reply(200, &json!({"role_assignments": items, "links": links}))
}

fn check(call: &Call, effective: bool, tree: bool) -> Result<()> {
    let has = |name| call.query.has(name);
    if has("user.id") && has("group.id") {
        return Err(Fault::invalid("Specify a user or group, not both."));
    }
    if ["scope.project.id", "scope.domain.id", "scope.system"].into_iter().filter(|name| has(name)).count() > 1 {
        return Err(Fault::invalid("Specify a domain, project, or system, not more than one."));
    }
    if effective && has("group.id") {
        return Err(Fault::invalid("Combining effective and group filter will always result in an empty list."));
    }
    if effective && has("scope.domain.id") && has("scope.OS-INHERIT:inherited_to") {
        return Err(Fault::invalid(
            "Combining effective, domain and inherited filters will always result in an empty list.",
        ));
    }
    if tree && !has("scope.project.id") {
        return Err(Fault::invalid("scope.project.id must be specified if include_subtree is also specified."));
    }
    Ok(())
}

fn lies_in(model: &Model, place: &Place, domain: &str) -> bool {
    match place {
        Place::Domain(id) => id.as_str() == domain,
        Place::Project(id) => model.projects.get(id).is_some_and(|project| project.domain() == domain),
        Place::System => false,
    }
}

/// The path of an assignment.
fn path(assignment: &Assignment) -> String {
    let who = match &assignment.actor {
        Actor::User(id) => format!("users/{id}"),
        Actor::Group(id) => format!("groups/{id}"),
    };
    let place = match &assignment.place {
        Place::Project(id) => format!("projects/{id}"),
        Place::Domain(id) => format!("domains/{id}"),
        Place::System => "system".to_owned(),
    };
    let role = &assignment.role_id;
    if assignment.inherited {
        format!("/v3/OS-INHERIT/{place}/{who}/roles/{role}/inherited_to_projects")
    } else {
        format!("/v3/{place}/{who}/roles/{role}")
    }
}

fn granted(assignment: &Assignment) -> Line {
    Line {
        actor: assignment.actor.clone(),
        place: assignment.place.clone(),
        role: assignment.role_id.to_string(),
        inherited: assignment.inherited,
        source: path(assignment),
        membership: None,
        prior: None,
    }
}

/// Groups become their members, inheritance the projects below, roles also those that they imply.
fn expanded(model: &Model, assignment: &Assignment) -> Vec<Line> {
    let actors: Vec<(Actor, Option<String>)> = match &assignment.actor {
        Actor::User(_) => vec![(assignment.actor.clone(), None)],
        Actor::Group(group) => model
            .members_of(group)
            .map(|user| (Actor::User(user.id.clone()), Some(format!("/v3/groups/{group}/users/{}", user.id))))
            .collect(),
    };
    let places: Vec<Place> = if assignment.inherited {
        model.descendants(assignment.place.id()).iter().map(|project| Place::Project(project.id.clone())).collect()
    } else {
        vec![assignment.place.clone()]
    };
    let own = assignment.role_id.to_string();
    let mut roles = BTreeSet::from([own.clone()]);
    expand(model, &mut roles);
    // As in a token, a role of one domain is worth only what it implies.
    roles.retain(|id| model.roles.get(id).is_some_and(|role| role.domain_id.is_none()));
    let mut lines = Vec::new();
    for (actor, membership) in &actors {
        for place in &places {
            for role in &roles {
                lines.push(Line {
                    actor: actor.clone(),
                    place: place.clone(),
                    role: role.clone(),
                    inherited: false,
                    source: path(assignment),
                    membership: membership.clone(),
                    prior: (*role != own).then(|| own.clone()),
                });
            }
        }
    }
    lines
}

fn shown(call: &Call, model: &Model, line: &Line, names: bool) -> Value {
    let domain = |id: &str| json!({"id": id, "name": model.domain(id).map(|domain| domain.name.as_str())});
    let mut item = json!({"links": {"assignment": call.link(&line.source)}});
    match &line.actor {
        Actor::User(id) => {
            item["user"] = json!({ "id": id });
            if let (true, Some(user)) = (names, model.users.get(id)) {
                item["user"] = json!({"id": id, "name": user.name, "domain": domain(&user.domain_id)});
            }
        }
        Actor::Group(id) => {
            item["group"] = json!({ "id": id });
            if let (true, Some(group)) = (names, model.groups.get(id)) {
                item["group"] = json!({"id": id, "name": group.name, "domain": domain(&group.domain_id)});
            }
        }
    }
    item["role"] = json!({ "id": line.role });
    if let (true, Some(role)) = (names, model.roles.get(&line.role)) {
        item["role"]["name"] = json!(role.name);
        if let Some(id) = &role.domain_id {
            item["role"]["domain"] = domain(id);
        }
    }
    item["scope"] = match &line.place {
        Place::System => json!({"system": {"all": true}}),
        Place::Domain(id) if names => json!({ "domain": domain(id) }),
        Place::Domain(id) => json!({"domain": {"id": id}}),
        Place::Project(id) => {
            let mut project = json!({ "id": id });
            if let (true, Some(known)) = (names, model.projects.get(id)) {
                project = json!({"id": id, "name": known.name, "domain": domain(known.domain())});
            }
            json!({ "project": project })
        }
    };
    if line.inherited {
        item["scope"]["OS-INHERIT:inherited_to"] = "projects".into();
    }
    if let Some(membership) = &line.membership {
        item["links"]["membership"] = call.link(membership).into();
    }
    if let Some(prior) = &line.prior {
        item["links"]["prior_role"] = call.link(&format!("/v3/roles/{prior}")).into();
    }
    item
}
