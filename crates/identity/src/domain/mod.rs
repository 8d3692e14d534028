//! Domains: the roots of projects, users and groups. A domain is kept as the project that acts as it.
//!
//! An enabled domain cannot be deleted; a disabled one takes everything in it along, in one commit.

pub(crate) mod config;

use crate::Identity;
use crate::documents::*;
use crate::fields::Fields;
use crate::listing::{allowed, filtered, forbid, linked, missing, single};
use crate::project::{Changes, NAME_CHARS, pairs, remove_where, taken};
use base::{Fault, Result};
use policy::Target;
use rest::{Call, Reply, Route};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::sync::Arc;
use store::{Query, Tx};

pub(crate) fn routes(identity: &Arc<Identity>) -> Vec<Route> {
    let (all, one) = ("/v3/domains", "/v3/domains/{id}");
    let mut routes = config::routes(identity);
    routes.extend(routes![identity;
        GET all, "domains:list", "identity:list_domains", 200, list;
        POST all, "domains:create", "identity:create_domain", 201, create;
        GET one, "domains:show", "identity:get_domain", 200, show;
        PATCH one, "domains:update", "identity:update_domain", 200, update;
        DELETE one, "domains:delete", "identity:delete_domain", 204, delete;
    ]);
    routes
}

pub(crate) fn shown(call: &Call, domain: &Project) -> Value {
    let mut object = domain.extra.clone();
    object.extend(pairs([
        ("id", json!(domain.id)),
        ("name", json!(domain.name)),
        ("description", domain.description.clone()),
        ("enabled", json!(domain.enabled)),
        ("tags", json!(domain.tags)),
        ("options", json!(domain.options)),
    ]));
    linked(call, "domains", object)
}

fn target(domain: &Project) -> Target<'static> {
    Target::new().with("target.domain.id", domain.id.to_string())
}

fn find(identity: &Identity, id: &str) -> Option<Arc<Project>> {
    identity.model().domain(id).cloned()
}

async fn list(identity: Arc<Identity>, call: Call) -> Result<Reply> {
    let scope = call.caller.domain_id();
    forbid(&call, &Target::new().with("target.domain.id", scope.as_ref().map(|id| id.to_string())))?;
    let items: Vec<_> = {
        let model = identity.model();
        let mine = |domain: &Project| scope.as_ref().is_none_or(|id| domain.id.as_str() == id.as_str());
        model.projects.all().filter(|p| p.is_domain && mine(p)).map(|domain| shown(&call, domain)).collect()
    };
    filtered(&call, "domains", items, &["name", "enabled"])
}

async fn show(identity: Arc<Identity>, call: Call) -> Result<Reply> {
    let domain = allowed(&call, find(&identity, call.param("id")), "domain", |d| target(d))?;
    single(&call, 200, "domain", shown(&call, &domain))
}

async fn create(identity: Arc<Identity>, mut call: Call) -> Result<Reply> {
    forbid(&call, &Target::new())?;
    let mut fields = Fields::read(&mut call, "domain").await?;
    let explicit = fields.take("explicit_domain_id");
    let domain = Project {
        id: match explicit {
            None => identity.env.uuid_hex().into(),
            Some(Value::String(id)) if base::is_uuid(&id) && id.len() == 32 => id.to_lowercase().into(),
            Some(_) => return Err(Fault::invalid("Invalid input for field 'explicit_domain_id': it is no UUID.")),
        },
        name: fields.need_name("name", NAME_CHARS)?,
        domain_id: None,
        parent_id: None,
        is_domain: true,
        enabled: fields.flag("enabled")?.unwrap_or(true),
        description: fields.description()?.unwrap_or_else(|| "".into()),
        tags: BTreeSet::new(),
        options: fields.object("options")?.unwrap_or_default(),
        extra: fields.rest()?,
    };
    let shown = shown(&call, &domain);
    identity.write(&call, move |tx| taken(tx.create(&domain).map(drop), "domain", &domain.name)).await?;
    single(&call, 201, "domain", shown)
}

async fn update(identity: Arc<Identity>, mut call: Call) -> Result<Reply> {
    let known = allowed(&call, find(&identity, call.param("id")), "domain", |d| target(d))?;
    let mut fields = Fields::read(&mut call, "domain").await?;
    fields.fixed("id", &json!(known.id))?;
    let changes = Changes::read(fields)?;
    let id = known.id.to_string();
    let domain = identity.write(&call, move |tx| changes.apply(tx, &id, "domain")).await?;
    single(&call, 200, "domain", shown(&call, &domain))
}

pub(crate) async fn delete(identity: Arc<Identity>, call: Call) -> Result<Reply> {
    let domain = allowed(&call, find(&identity, call.param("id")), "domain", |d| target(d))?;
    let id = domain.id.to_string();
    identity.write(&call, move |tx| remove(tx, &id)).await?;
    Ok(Reply::empty(204))
}

fn remove(tx: &mut Tx, id: &str) -> Result<()> {
    let domain = tx.get::<Project>(id)?.filter(|p| p.is_domain).ok_or_else(|| missing("domain", id))?;
    if crate::project::immutable(&domain) {
        return Err(crate::project::is_immutable("domain", id));
    }
    if domain.enabled {
        return Err(Fault::forbidden("Cannot delete a domain that is enabled, please disable it first."));
    }
    for provider in tx.list::<IdentityProvider>(Query::index("domain", id))? {
        crate::federation::remove(tx, &provider.id)?;
    }
    for user in tx.list::<User>(Query::index("domain", id))? {
        crate::user::remove(tx, &user.id)?;
    }
    for group in tx.list::<Group>(Query::index("domain", id))? {
        crate::group::remove(tx, &group.id)?;
    }
    for role in tx.list::<Role>(Query::index("domain", id))? {
        crate::role::remove(tx, &role.id)?;
    }
    for project in tx.list::<Project>(Query::index("parent", id))? {
        crate::project::remove(tx, &project.id, true)?;
    }
    remove_where::<Assignment>(tx, "place", id)?;
    remove_where::<Limit>(tx, "owner", id)?;
    if tx.get::<DomainConfig>(id)?.is_some() {
        tx.delete::<DomainConfig>(id)?;
    }
    tx.delete::<Project>(id)?;
    Ok(())
}
