//! `GET /v3/role_assignments`: as granted, or what they come to (`effective`).

use super::effective::expand;
use crate::Identity;
use crate::documents::*;
use crate::listing::{forbid_rule, set};
use crate::model::Model;
use base::{Fault, Result};
use policy::Target;
use rest::{Access, Call, Method, Reply, Route};
use serde::Serialize;
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
    if effective {
        identity.renew_assigned(query("user.id").as_deref()).await;
    }
    let model = identity.model();
    let places: Option<BTreeSet<String>> = project.clone().map(|id| {
        let below = if tree { model.descendants(&id) } else { Vec::new() };
        below.iter().map(|project| project.id.to_string()).chain([id]).collect()
    });
    let (wanted_user, wanted_group, wanted_role) = (query("user.id"), query("group.id"), query("role.id"));
    let wanted_domain = query("scope.domain.id");
    let same = |wanted: &Option<String>, value: &str| wanted.as_deref().is_none_or(|wanted| wanted == value);
    // There may be very many: those that come to nothing are left out before a line is made of them. A group may come to
    // any user, and a role to others.
    let may_keep = |assignment: &Assignment| match &assignment.actor {
        Actor::User(id) => wanted_group.is_none() && same(&wanted_user, id),
        Actor::Group(id) => same(&wanted_group, id) && (effective || wanted_user.is_none()),
    };
    let keeps = |line: &Line| -> bool {
        let (user, group) = match &line.actor {
            Actor::User(id) => (id.as_str(), ""),
            Actor::Group(id) => ("", id.as_str()),
        };
        let domain = if let Place::Domain(id) = &line.place { id.as_str() } else { "" };
        let system = line.place == Place::System;
        same(&wanted_user, user)
            && same(&wanted_group, group)
            && same(&wanted_role, &line.role)
            && same(&wanted_domain, domain)
            && places.as_ref().is_none_or(|ids| matches!(&line.place, Place::Project(id) if ids.contains(id.as_str())))
            && (!call.query.has("scope.system") || system)
            && (effective || !call.query.has("scope.OS-INHERIT:inherited_to") || line.inherited)
            && scope.as_ref().is_none_or(|id| lies_in(&model, &line.place, id))
    };
    let mut lines: Vec<Line> = model
        .assignments
        .all()
        .filter(|assignment| may_keep(assignment))
        .flat_map(|assignment| if effective { expanded(&model, assignment) } else { vec![granted(assignment)] })
        .filter(|line| keeps(line))
        .collect();
    // The same right may come by several ways; each is shown once per assignment that it comes from.
    lines.sort();
    lines.dedup();
    let role_assignments = lines.iter().map(|line| shown(&call, &model, line, names)).collect();
    let links = json!({"next": null, "previous": null, "self": format!("{}{}", call.base_url, call.path)});
    call.reply(200, &Answer { role_assignments, links })
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

#[derive(Serialize)]
struct Answer<'a> {
    role_assignments: Vec<Item<'a>>,
    links: Value,
}

/// An item of the answer, over what the model holds: there may be very many.
#[derive(Serialize)]
struct Item<'a> {
    links: Links,
    #[serde(skip_serializing_if = "Option::is_none")]
    user: Option<Known<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    group: Option<Known<'a>>,
    role: Known<'a>,
    scope: Within<'a>,
}

#[derive(Serialize)]
struct Links {
    assignment: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    membership: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    prior_role: Option<String>,
}

/// With its name where that is asked for and known.
#[derive(Serialize)]
struct Known<'a> {
    id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    domain: Option<Domain<'a>>,
}

#[derive(Serialize)]
struct Domain<'a> {
    id: &'a str,
    name: Option<&'a str>,
}

#[derive(Default, Serialize)]
struct Within<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    system: Option<All>,
    #[serde(skip_serializing_if = "Option::is_none")]
    domain: Option<Known<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    project: Option<Known<'a>>,
    #[serde(rename = "OS-INHERIT:inherited_to", skip_serializing_if = "Option::is_none")]
    inherited: Option<&'static str>,
}

#[derive(Serialize)]
struct All {
    all: bool,
}

fn shown<'a>(call: &Call, model: &'a Model, line: &'a Line, names: bool) -> Item<'a> {
    let domain = |id: &'a str| Domain { id, name: model.domain(id).map(|domain| domain.name.as_str()) };
    // `found`: name and domain, where the model has it.
    let known = |id: &'a str, found: Option<(&'a str, Option<&'a str>)>| match found.filter(|_| names) {
        Some((name, within)) => Known { id, name: Some(name), domain: within.map(domain) },
        None => Known { id, name: None, domain: None },
    };
    let (user, group) = match &line.actor {
        Actor::User(id) => {
            let found = model.users.get(id).map(|user| (user.name.as_str(), Some(user.domain_id.as_str())));
            (Some(known(id, found)), None)
        }
        Actor::Group(id) => {
            let found = model.groups.get(id).map(|group| (group.name.as_str(), Some(group.domain_id.as_str())));
            (None, Some(known(id, found)))
        }
    };
    let role = model.roles.get(&line.role).map(|role| (role.name.as_str(), role.domain_id.as_deref()));
    let mut scope = Within { inherited: line.inherited.then_some("projects"), ..Within::default() };
    match &line.place {
        Place::System => scope.system = Some(All { all: true }),
        Place::Domain(id) => {
            let found = model.domain(id).map(|domain| (domain.name.as_str(), None));
            scope.domain = Some(known(id, found));
        }
        Place::Project(id) => {
            let found = model.projects.get(id).map(|project| (project.name.as_str(), Some(project.domain())));
            scope.project = Some(known(id, found));
        }
    }
    let links = Links {
        assignment: call.link(&line.source),
        membership: line.membership.as_ref().map(|path| call.link(path)),
        prior_role: line.prior.as_ref().map(|prior| call.link(&format!("/v3/roles/{prior}"))),
    };
    Item { links, user, group, role: known(&line.role, role), scope }
}
