//! The first contents of a cloud: domain, roles, projects, users, catalog and the keys of tokens.
//!
//! Runs at each start and adds what is missing; what somebody changed stays changed.

use crate::documents::*;
use crate::password::{self, Algorithm};
use crate::{ServiceSpec, token, user};
use base::{Result, RoleId};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use store::Tx;

#[derive(Clone, Debug)]
pub struct BootstrapOptions {
    /// Of the users `admin` and `demo`; used only when the user is made.
    pub admin_password: String,
    pub demo_password: Option<String>,
    pub password_algorithm: Algorithm,
    pub region: String,
    pub services: Vec<ServiceSpec>,
}

/// The id of the domain that Keystone calls `Default`.
pub const DEFAULT_DOMAIN: &str = "default";

/// What others may need to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bootstrapped {
    pub admin_project: base::ProjectId,
    pub demo_project: base::ProjectId,
    pub admin_user: base::UserId,
}

/// Fills the store. Hashing a password takes a fifth of a second here, once.
pub fn bootstrap(tx: &mut Tx, options: &BootstrapOptions) -> Result<Bootstrapped> {
    token::keys::ensure(tx)?;
    let domain = |id: &str, name: &str| Project {
        id: id.into(),
        name: name.into(),
        domain_id: None,
        parent_id: None,
        is_domain: true,
        enabled: true,
        description: "The default domain".into(),
        tags: BTreeSet::new(),
        options: Extra::new(),
        extra: Extra::new(),
    };
    if tx.get::<Project>(DEFAULT_DOMAIN)?.is_none() {
        tx.create(&domain(DEFAULT_DOMAIN, "Default"))?;
    }
    let admin = roles(tx)?;
    let admin_project = project(tx, "admin", "The administrator's project")?;
    let demo_project = project(tx, "demo", "A project to try things in")?;
    let admin_user = account(tx, options, "admin", Some(&options.admin_password))?;
    grant(tx, &admin_user, Place::Project(admin_project.clone()), &admin)?;
    grant(tx, &admin_user, Place::Domain(DEFAULT_DOMAIN.into()), &admin)?;
    grant(tx, &admin_user, Place::System, &admin)?;
    let demo = account(tx, options, "demo", options.demo_password.as_deref())?;
    let member = role(tx, "member", "May make and change things in a project")?;
    grant(tx, &demo, Place::Project(demo_project.clone()), &member)?;
    grant(tx, &admin_user, Place::Project(demo_project.clone()), &admin)?;
    catalog(tx, options)?;
    Ok(Bootstrapped { admin_project, demo_project, admin_user })
}

/// The usual roles, each implying the next; the id of `admin`.
fn roles(tx: &mut Tx) -> Result<RoleId> {
    let reader = role(tx, "reader", "May read what is in a project")?;
    let member = role(tx, "member", "May make and change things in a project")?;
    let manager = role(tx, "manager", "Manages a project or a domain")?;
    let admin = role(tx, "admin", "Administers the cloud")?;
    role(tx, "service", "Of the services of the cloud among themselves")?;
    for (prior, implied) in [(&admin, &manager), (&manager, &member), (&member, &reader)] {
        tx.put(&ImpliedRole::new(prior, implied))?;
    }
    Ok(admin)
}

fn role(tx: &mut Tx, name: &str, description: &str) -> Result<RoleId> {
    if let Some(known) = tx.get_unique::<Role>("name", ["", name])? {
        return Ok(known.doc.id);
    }
    let id: RoleId = tx.uuid_hex().into();
    tx.create(&Role {
        id: id.clone(),
        name: name.into(),
        domain_id: None,
        description: description.into(),
        options: Extra::from_iter([("immutable".to_owned(), Value::Bool(true))]),
        extra: Extra::new(),
    })?;
    Ok(id)
}

fn project(tx: &mut Tx, name: &str, description: &str) -> Result<base::ProjectId> {
    if let Some(known) = tx.get_unique::<Project>("name", [DEFAULT_DOMAIN, name])? {
        return Ok(known.doc.id);
    }
    let id: base::ProjectId = tx.uuid_hex().into();
    tx.create(&Project {
        id: id.clone(),
        name: name.into(),
        domain_id: Some(DEFAULT_DOMAIN.into()),
        parent_id: Some(DEFAULT_DOMAIN.into()),
        is_domain: false,
        enabled: true,
        description: description.into(),
        tags: BTreeSet::new(),
        options: Extra::new(),
        extra: Extra::new(),
    })?;
    Ok(id)
}

fn account(tx: &mut Tx, options: &BootstrapOptions, name: &str, secret: Option<&str>) -> Result<base::UserId> {
    if let Some(known) = user::by_name(tx, DEFAULT_DOMAIN, name)? {
        return Ok(known.id);
    }
    let random = tx.env().random.clone();
    let password = secret.map(|text| password::hash(text, options.password_algorithm, &*random)).transpose()?;
    let id: base::UserId = tx.uuid_hex().into();
    tx.create(&User {
        id: id.clone(),
        name: name.into(),
        domain_id: DEFAULT_DOMAIN.into(),
        enabled: true,
        default_project_id: None,
        password_changed: password.is_some().then(|| tx.now()),
        password,
        password_expires_at: None,
        password_history: Vec::new(),
        options: Extra::new(),
        extra: Extra::new(),
        federated: Vec::new(),
        shadow: false,
        directory: None,
    })?;
    Ok(id)
}

fn grant(tx: &mut Tx, user: &base::UserId, place: Place, role: &RoleId) -> Result<()> {
    tx.put(&Assignment::new(Actor::User(user.clone()), place, role, false))?;
    Ok(())
}

/// Region, services and their three endpoints. A service keeps its id, so that clients may remember it.
fn catalog(tx: &mut Tx, options: &BootstrapOptions) -> Result<()> {
    if tx.get::<Region>(&options.region)?.is_none() {
        let id = options.region.clone();
        tx.create(&Region { id, parent_region_id: None, description: String::new(), extra: Extra::new() })?;
    }
    let services = tx.list::<Service>(store::Query::all())?;
    let endpoints = tx.list::<Endpoint>(store::Query::all())?;
    for spec in &options.services {
        let known = services.iter().find(|s| s.kind == spec.kind && s.name.as_deref() == Some(spec.name));
        let id = match known {
            Some(service) => service.doc.id.clone(),
            None => {
                let id: base::ServiceId = tx.uuid_hex().into();
                tx.create(&Service {
                    id: id.clone(),
                    kind: spec.kind.into(),
                    name: Some(spec.name.into()),
                    enabled: true,
                    description: json!(null),
                    extra: Extra::new(),
                })?;
                id
            }
        };
        if endpoints.iter().any(|endpoint| endpoint.service_id == id) {
            continue;
        }
        for interface in ["public", "internal", "admin"] {
            tx.create(&Endpoint {
                id: tx.uuid_hex().into(),
                service_id: id.clone(),
                interface: interface.into(),
                region_id: Some(options.region.clone()),
                url: spec.path.into(),
                enabled: true,
                extra: Extra::new(),
            })?;
        }
    }
    Ok(())
}
