//! Which roles somebody really has where: assignments to the user and to the user's groups, those inherited from above,
//! and the roles that they imply.

use crate::documents::{Actor, Assignment, Place, Project};
use crate::model::Model;
use std::collections::BTreeSet;
use std::sync::Arc;

/// Ids of all roles that `user` has in `place`. Empty for a place or user that does not exist.
pub fn roles(model: &Model, user: &str, place: &Place) -> BTreeSet<String> {
    roles_with(model, user, &[], place)
}

/// The same for somebody who is in further groups, as an identity provider says.
pub fn roles_with(model: &Model, user: &str, groups: &[String], place: &Place) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    each_of_actor(model, user, groups, &mut |assignment| {
        if applies(model, assignment, place) {
            found.insert(assignment.role_id.to_string());
        }
    });
    expand(model, &mut found);
    found
}

/// Runs `tell` on every assignment of the user, of the user's groups and of further ones.
fn each_of_actor<'a>(model: &'a Model, user: &str, groups: &[String], tell: &mut dyn FnMut(&'a Arc<Assignment>)) {
    let own = model.assignments.find("actor", user).filter(|a| matches!(a.actor, Actor::User(_)));
    own.for_each(&mut *tell);
    let stands = |group: &&str| model.groups.get(group).is_some_and(|group| model.group_stands(group));
    for group in model.groups_of(user).chain(groups.iter().map(String::as_str)).filter(stands) {
        let of_group = model.assignments.find("actor", group).filter(|a| matches!(a.actor, Actor::Group(_)));
        of_group.for_each(&mut *tell);
    }
}

/// True if the assignment gives its role in `place`, directly or by inheritance.
pub fn applies(model: &Model, assignment: &Assignment, place: &Place) -> bool {
    if !assignment.inherited {
        return assignment.place == *place
            // A domain and the project that acts as it are one.
            || matches!((&assignment.place, place), (Place::Domain(d), Place::Project(p)) if d.as_str() == p.as_str())
            || matches!((&assignment.place, place), (Place::Project(p), Place::Domain(d)) if d.as_str() == p.as_str());
    }
    let Place::Project(project) = place else { return false };
    let Some(project) = model.projects.get(project).filter(|project| !project.is_domain) else { return false };
    model.ancestors(project).any(|above| above.id.as_str() == assignment.place.id())
}

/// Adds what the roles imply, and what that implies.
pub fn expand(model: &Model, roles: &mut BTreeSet<String>) {
    let mut open: Vec<String> = roles.iter().cloned().collect();
    while let Some(role) = open.pop() {
        for rule in model.implied.find("prior", &role) {
            if roles.insert(rule.implied_role_id.to_string()) {
                open.push(rule.implied_role_id.to_string());
            }
        }
    }
}

/// The enabled projects in which the user has any role, each once, in the order of ids.
pub fn projects(model: &Model, user: &str, groups: &[String]) -> Vec<Arc<Project>> {
    let mut ids = BTreeSet::new();
    each_of_actor(model, user, groups, &mut |assignment| {
        if assignment.inherited {
            ids.extend(model.descendants(assignment.place.id()).iter().map(|project| project.id.to_string()));
        } else if let Place::Project(id) = &assignment.place {
            ids.insert(id.to_string());
        }
    });
    ids.iter().filter_map(|id| model.projects.get(id)).filter(|project| !project.is_domain).cloned().collect()
}

/// The domains in which the user has any role.
pub fn domains(model: &Model, user: &str, groups: &[String]) -> Vec<Arc<Project>> {
    let mut ids = BTreeSet::new();
    each_of_actor(model, user, groups, &mut |assignment| {
        if let (false, Place::Domain(id)) = (assignment.inherited, &assignment.place) {
            ids.insert(id.to_string());
        }
    });
    ids.iter().filter_map(|id| model.domain(id)).cloned().collect()
}
