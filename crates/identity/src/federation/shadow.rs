//! Users of identity providers, as they are kept here: found by who they are at the provider, made when they are first
//! seen, with the projects and memberships that the mapping gives them. One transaction a login at most, and none for
//! somebody who is as the last time.

use super::rules::{DomainRef, Mapped, MappedProject};
use crate::Identity;
use crate::documents::*;
use crate::escape;
use crate::model::{Model, federated, named};
use crate::project::taken;
use crate::token::verify::refused;
use base::{DomainId, Fault, ProjectId, Result, RoleId, UserId};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use store::{Query, Tx};

/// A membership is written anew only when its end moves by more.
const MOVES_MS: i64 = 60_000;
const NAME_CHARS: usize = 255;

/// Who logs in, with everything named by ids.
#[derive(Clone)]
pub(super) struct Wanted {
    of: FederatedId,
    name: String,
    email: Option<String>,
    domain: DomainId,
    projects: Vec<GivenProject>,
    in_step: bool,
    pub groups: BTreeSet<String>,
    /// Minutes.
    membership_ttl: i64,
}

#[derive(Clone)]
struct GivenProject {
    name: String,
    domain: DomainId,
    roles: BTreeSet<String>,
}

/// The id of a domain. Keystone says 404 for one that a mapping names and that is not there.
fn domain_id(model: &Model, domain: Option<&DomainRef>, usual: &DomainId) -> Result<DomainId> {
    let Some(domain) = domain.filter(|domain| domain.id.is_some() || domain.name.is_some()) else {
        return Ok(usual.clone());
    };
    let found = match (&domain.id, &domain.name) {
        (Some(id), _) => model.domain(id),
        (None, name) => name.as_deref().and_then(|name| model.domain_named(name)),
    };
    let shown = domain.id.as_ref().or(domain.name.as_ref()).map_or("", String::as_str);
    found.map(|found| found.id.as_str().into()).ok_or_else(|| crate::listing::missing("domain", shown))
}

/// The ids of the groups that a mapping names. A name that nobody has counts for nothing, as in Keystone.
pub(super) fn groups(model: &Model, mapped: &Mapped, usual: &DomainId) -> Result<BTreeSet<String>> {
    let mut ids = BTreeSet::new();
    for id in &mapped.group_ids {
        let group = model.groups.get(id).filter(|group| model.group_stands(group));
        group.ok_or_else(|| refused("the mapping names a group that is not there"))?;
        ids.insert(id.clone());
    }
    for (name, domain) in &mapped.group_names {
        let domain = domain_id(model, Some(domain), usual)?;
        let group = model.groups.one("name", &named(&domain, name)).filter(|group| model.group_stands(group));
        ids.extend(group.map(|group| group.id.to_string()));
    }
    Ok(ids)
}

/// The user of this cloud that a mapping names.
pub(super) fn local(model: &Model, mapped: &Mapped) -> Result<UserId> {
    let domain = mapped.domain.clone().unwrap_or_default();
    let found = match (&mapped.id, &mapped.name) {
        (Some(id), _) => model.users.get(id),
        (None, Some(name)) if domain.id.is_some() || domain.name.is_some() => {
            let domain = domain_id(model, Some(&domain), &DomainId::new("")).ok();
            domain.and_then(|domain| model.users.one("name", &named(&domain, name)))
        }
        _ => None,
    };
    let within = |user: &User| model.domain(&user.domain_id).is_some_and(|domain| domain.enabled);
    let found = found.filter(|user| user.enabled && model.stands(user) && within(user));
    found.map(|user| user.id.clone()).ok_or_else(|| refused("the mapping names no user of this cloud that is enabled"))
}

impl Wanted {
    pub fn new(
        model: &Model,
        provider: &IdentityProvider,
        protocol: &Protocol,
        mapped: Mapped,
        subject: Option<String>,
    ) -> Result<Wanted> {
        let groups = groups(model, &mapped, &provider.domain_id)?;
        let name = mapped.name.or_else(|| mapped.id.clone()).or(subject);
        let name = name.filter(|name| !name.trim().is_empty()).ok_or_else(|| refused("the mapping names no user"))?;
        let unique = mapped.id.unwrap_or_else(|| name.clone());
        base::limits::text("a user's name", &name, NAME_CHARS)?;
        base::limits::text("a user's id", &unique, NAME_CHARS)?;
        let domain = domain_id(model, mapped.domain.as_ref(), &provider.domain_id)?;
        let place = |project: MappedProject| place(model, project, &provider.domain_id, &domain);
        Ok(Wanted {
            of: FederatedId {
                idp_id: provider.id.clone(),
                protocol_id: protocol.name.clone(),
                unique_id: escape::percent(&unique).replace("%2F", "/"),
            },
            projects: mapped.projects.into_iter().map(place).collect::<Result<_>>()?,
            in_step: mapped.in_step,
            name,
            email: mapped.email,
            domain,
            groups,
            membership_ttl: provider.authorization_ttl.unwrap_or(0),
        })
    }

    fn known<'a>(&self, model: &'a Model) -> Option<&'a User> {
        let key = federated(&self.of.idp_id, &self.of.protocol_id, &self.of.unique_id);
        model.users.one("federated", &key).map(|user| &**user)
    }

    /// The user, if nothing is to be written.
    pub fn settled(&self, model: &Model) -> Option<UserId> {
        let user = self.known(model).filter(|user| !self.differs(user))?;
        if self.membership_ttl > 0 || self.in_step && !self.projects.is_empty() {
            return None;
        }
        let has = |project: &GivenProject| {
            let found = model.projects.one("name", &named(&project.domain, &project.name));
            found.is_some_and(|found| {
                let grant = |role: &String| grant(&user.id, &found.id, role).id;
                project.roles.iter().all(|role| model.assignments.get(&grant(role)).is_some())
            })
        };
        let lent = model.memberships.find("user", &user.id).any(|m| self.is_lent(m));
        (!self.in_step && !lent && self.projects.iter().all(has)).then(|| user.id.clone())
    }

    fn is_lent(&self, membership: &Membership) -> bool {
        membership.lent.as_ref().is_some_and(|lent| lent.idp_id == self.of.idp_id)
    }

    fn differs(&self, user: &User) -> bool {
        user.shadow && user.name != self.name
            || self.email.as_ref().is_some_and(|email| user.extra.get("email") != Some(&json!(email)))
    }

    /// Brings what is kept in line with what the provider says.
    pub fn write(&self, tx: &mut Tx) -> Result<UserId> {
        let key = [&self.of.idp_id, &self.of.protocol_id, &self.of.unique_id];
        let known = tx.get_unique::<User>("federated", key)?.map(|stored| stored.doc);
        let user = match known {
            Some(mut user) => {
                if self.differs(&user) {
                    if user.shadow {
                        user.name = self.name.clone();
                    }
                    user.extra.extend(self.email.iter().map(|email| ("email".to_owned(), json!(email))));
                    tx.update(&user)?;
                }
                user
            }
            None => self.make(tx)?,
        };
        let mut places = BTreeSet::new();
        for project in &self.projects {
            let id = self.project(tx, project)?;
            for role in &project.roles {
                tx.put(&grant(&user.id, &id, role))?;
                places.insert((id.to_string(), role.clone()));
            }
        }
        if self.in_step {
            for known in tx.list::<Assignment>(Query::index("actor", user.id.as_str()))? {
                let Place::Project(project) = &known.place else { continue };
                if !places.contains(&(project.to_string(), known.role_id.to_string())) {
                    tx.delete::<Assignment>(&known.id)?;
                }
            }
        }
        self.memberships(tx, &user.id)?;
        Ok(user.id)
    }

    fn make(&self, tx: &mut Tx) -> Result<User> {
        let id = crate::directory::public_id(&self.domain, "user", &self.of.unique_id);
        tx.get::<Project>(&self.domain)?.filter(|d| d.is_domain && d.enabled).ok_or_else(|| refused("no domain"))?;
        let user = User {
            id: id.into(),
            name: self.name.clone(),
            domain_id: self.domain.clone(),
            enabled: true,
            default_project_id: None,
            password: None,
            password_changed: None,
            password_expires_at: None,
            password_history: Vec::new(),
            options: Extra::new(),
            extra: self.email.iter().map(|email| ("email".to_owned(), json!(email))).collect(),
            federated: vec![self.of.clone()],
            shadow: true,
            directory: None,
        };
        taken(tx.create(&user).map(drop), "user", &user.name)?;
        Ok(user)
    }

    fn project(&self, tx: &mut Tx, project: &GivenProject) -> Result<ProjectId> {
        if let Some(known) = tx.get_unique::<Project>("name", [project.domain.as_str(), &project.name])? {
            return Ok(known.doc.id);
        }
        let id: ProjectId = tx.uuid_hex().into();
        tx.create(&Project {
            id: id.clone(),
            name: project.name.clone(),
            domain_id: Some(project.domain.clone()),
            parent_id: Some(project.domain.as_str().into()),
            is_domain: false,
            enabled: true,
            description: Value::from(""),
            tags: BTreeSet::new(),
            options: Extra::new(),
            extra: Extra::new(),
        })?;
        Ok(id)
    }

    /// Memberships that the provider lends, for a provider whose word lasts.
    fn memberships(&self, tx: &mut Tx, user: &UserId) -> Result<()> {
        let until = tx.now().plus_s(self.membership_ttl.saturating_mul(60));
        for known in tx.list::<Membership>(Query::index("user", user.as_str()))? {
            if self.is_lent(&known) && (self.membership_ttl == 0 || !self.groups.contains(known.group_id.as_str())) {
                tx.delete::<Membership>(&known.id)?;
            }
        }
        if self.membership_ttl == 0 {
            return Ok(());
        }
        for group in &self.groups {
            let id = Membership::id_of(user, group);
            let known = tx.get::<Membership>(&id)?.map(|stored| stored.doc);
            let stays = known.is_some_and(|known| {
                known.lent.is_none_or(|lent| lent.idp_id == self.of.idp_id && until.ms_since(lent.until) < MOVES_MS)
            });
            if !stays {
                let lent = Some(Lent { idp_id: self.of.idp_id.clone(), until });
                tx.put(&Membership { id, user_id: user.clone(), group_id: group.as_str().into(), lent })?;
            }
        }
        Ok(())
    }
}

fn grant(user: &UserId, project: &ProjectId, role: &str) -> Assignment {
    Assignment::new(Actor::User(user.clone()), Place::Project(project.clone()), role, false)
}

/// A project of a mapping, its roles looked for before anything is made.
fn place(model: &Model, project: MappedProject, usual: &DomainId, user_domain: &DomainId) -> Result<GivenProject> {
    base::limits::text("a project's name", &project.name, crate::project::NAME_CHARS)?;
    if project.name.trim().is_empty() {
        return Err(refused("the mapping names a project without a name"));
    }
    let role = |name: &String| -> Result<String> {
        let global = model.roles.one("name", &named("", name));
        let role = global.or_else(|| model.roles.all().find(|role| role.name == *name));
        let role = role.ok_or_else(|| crate::listing::missing("role", name))?;
        match &role.domain_id {
            Some(domain) if domain != user_domain => Err(Fault::forbidden(format!(
                "The role {name} belongs to another domain than the users of the identity provider."
            ))),
            _ => Ok(RoleId::to_string(&role.id)),
        }
    };
    Ok(GivenProject {
        roles: project.roles.iter().map(role).collect::<Result<_>>()?,
        domain: domain_id(model, project.domain.as_ref(), usual)?,
        name: project.name,
    })
}

impl Identity {
    /// The user of somebody who logs in.
    pub(super) async fn shadow(&self, wanted: Wanted) -> Result<UserId> {
        if let Some(known) = wanted.settled(&self.model()) {
            return Ok(known);
        }
        let cause = store::Cause::new("nubo", "", "federation.login");
        let work = move |tx: &mut Tx| wanted.write(tx);
        // A login is a login, whatever else the request asks for.
        let written = store::scope::run(store::Scope::default(), self.store.write(cause, work)).await?;
        self.sync().await?;
        Ok(written.value)
    }
}
