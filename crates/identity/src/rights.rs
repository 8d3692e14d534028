//! Which tokens a user could get, for operators who ask what somebody may do.

use crate::Identity;
use crate::assignment::effective;
use crate::documents::*;
use crate::model::Model;
use crate::token::verify::shown_roles;
use base::{Fault, Result};
use policy::Credentials;
use std::sync::Arc;

/// The most tokens that are told of: a user may have roles in very many projects.
pub const MOST: usize = 100;

impl Identity {
    /// What a token of the user would say in each scope in which it has a role, at most [`MOST`]: the system, domains,
    /// projects, those of `first` before others. A user without roles has an unscoped one.
    ///
    /// # Errors
    /// NotFound for nobody; Conflict for a name that several have, and for who gets no token at all.
    pub fn rights(&self, user: &str, first: Option<&str>) -> Result<Vec<Credentials>> {
        let model = self.model();
        let user = named(&model, user)?;
        let on = |domain: &str| model.domain(domain).is_some_and(|domain| domain.enabled);
        if model.active_user(&user.id).is_none() || !on(&user.domain_id) {
            return Err(Fault::conflict(format!("User {} or its domain is disabled: it gets no token.", user.id)));
        }
        let mut places = vec![Place::System];
        let mut projects = effective::projects(&model, &user.id, &[]);
        projects.retain(|project| project.enabled && on(project.domain()));
        let (early, late): (Vec<_>, Vec<_>) =
            projects.iter().partition(|project| first.is_some_and(|first| *project.id == *first));
        places.extend(early.iter().map(|project| Place::Project(project.id.clone())));
        let mut domains = effective::domains(&model, &user.id, &[]);
        domains.retain(|domain| domain.enabled);
        places.extend(domains.iter().map(|domain| Place::Domain(domain.id.as_str().into())));
        // A domain is a project as well, in which its roles hold.
        places.extend(domains.iter().map(|domain| Place::Project(domain.id.clone())));
        places.extend(late.iter().map(|project| Place::Project(project.id.clone())));
        let tokens = places.iter().map(|place| token(&model, user, place)).filter(|token| !token.roles.is_empty());
        let mut tokens: Vec<Credentials> = tokens.take(MOST).collect();
        if tokens.is_empty() {
            tokens.push(unscoped(user));
        }
        Ok(tokens)
    }

    /// The id of a project that is named by id or, where one project alone has it, by name.
    ///
    /// # Errors
    /// NotFound for none; Conflict for a name that several have.
    pub fn project_called(&self, project: &str) -> Result<(String, String)> {
        let model = self.model();
        let known = |project: &Arc<Project>| (project.id.to_string(), project.domain().to_owned());
        if let Some(found) = model.projects.get(project) {
            return Ok(known(found));
        }
        let mut called = model.projects.all().filter(|found| found.name == project && !found.is_domain);
        match (called.next(), called.next()) {
            (Some(found), None) => Ok(known(found)),
            (None, _) => Err(crate::listing::missing("project", project)),
            _ => Err(Fault::conflict(format!("Several projects are called {project:.100}: name one by its id."))),
        }
    }
}

fn named<'a>(model: &'a Model, user: &str) -> Result<&'a Arc<User>> {
    if let Some(found) = model.users.get(user) {
        return Ok(found);
    }
    let mut called = model.users.all().filter(|found| found.name == user);
    match (called.next(), called.next()) {
        (Some(found), None) => Ok(found),
        (None, _) => Err(crate::listing::missing("user", user)),
        _ => Err(Fault::conflict(format!("Several users are called {user:.100}: name one by its id."))),
    }
}

fn unscoped(user: &User) -> Credentials {
    Credentials {
        user_id: user.id.clone(),
        user_name: user.name.clone(),
        user_domain_id: user.domain_id.clone(),
        is_admin_project: true,
        ..Credentials::default()
    }
}

fn token(model: &Model, user: &User, place: &Place) -> Credentials {
    let roles = shown_roles(model, &model.roles_of(&user.id, place));
    let roles = roles.iter().map(|role| role.name.clone()).collect();
    let mut token = Credentials { roles, ..unscoped(user) };
    match place {
        Place::System => token.system_scope = Some("all"),
        Place::Domain(id) => token.domain_id = Some(id.clone()),
        Place::Project(id) => {
            let project = model.projects.get(id);
            token.project_id = Some(id.clone());
            token.project_name = project.map(|project| project.name.clone());
            token.project_domain_id = project.map(|project| project.domain().into());
        }
    }
    token
}
