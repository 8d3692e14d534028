//! Roles, and which roles imply which.
//!
//! A role may belong to a domain; then it is worth only what it implies. A role with the option `immutable` is neither
//! changed nor deleted until that option is taken off.

use crate::Identity;
use crate::documents::*;
use crate::fields::{Fields, merge_options};
use crate::listing::{filtered, forbid_rule, linked, missing, single};
use crate::project::{pairs, remove_where, taken};
use base::{Fault, Result};
use policy::Target;
use rest::{Call, Reply, Route};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;
use store::Tx;

const NAME_CHARS: usize = 255;
/// What no role may imply: whoever may edit implications could become administrator.
const NEVER_IMPLIED: &str = "admin";

pub(crate) fn routes(identity: &Arc<Identity>) -> Vec<Route> {
    let (all, one, implies) = ("/v3/roles", "/v3/roles/{id}", "/v3/roles/{id}/implies");
    let implied = "/v3/roles/{id}/implies/{implied_id}";
    routes![identity;
        GET all, "roles:list", "identity:list_roles", 200, list;
        POST all, "roles:create", "identity:create_role", 201, create;
        GET one, "roles:show", "identity:get_role", 200, show;
        PATCH one, "roles:update", "identity:update_role", 200, update;
        DELETE one, "roles:delete", "identity:delete_role", 204, delete;
        GET implies, "roles:implies:list", "identity:list_implied_roles", 200, list_implied;
        PUT implied, "roles:implies:create", "identity:create_implied_role", 201, imply;
        GET implied, "roles:implies:show", "identity:get_implied_role", 200, show_implied;
        HEAD implied, "roles:implies:check", "identity:check_implied_role", 204, check_implied;
        DELETE implied, "roles:implies:delete", "identity:delete_implied_role", 204, unimply;
        GET "/v3/role_inferences", "role_inferences:list", "identity:list_role_inference_rules", 200, inferences;
    ]
}

pub(crate) fn shown(call: &Call, role: &Role) -> Value {
    let mut object = role.extra.clone();
    object.extend(pairs([
        ("id", json!(role.id)),
        ("name", json!(role.name)),
        ("domain_id", json!(role.domain_id)),
        ("description", role.description.clone()),
        ("options", json!(role.options)),
    ]));
    linked(call, "roles", object)
}

/// As policies see it.
pub(crate) fn with_role(target: Target<'static>, role: &Role) -> Target<'static> {
    target
        .with("target.role.id", role.id.to_string())
        .with("target.role.name", role.name.clone())
        .with("target.role.domain_id", role.domain_id.as_ref().map(|id| id.to_string()))
}

/// The role of the path; for one of a domain, another rule decides.
fn allowed(identity: &Identity, call: &Call, of_domain: &str) -> Result<Arc<Role>> {
    let role = identity.model().roles.get(call.param("id")).cloned();
    let target = role.as_ref().map_or_else(Target::new, |role| with_role(Target::new(), role));
    let domain = role.as_ref().is_some_and(|role| role.domain_id.is_some());
    forbid_rule(call, if domain { of_domain } else { call.rule }, &target)?;
    role.ok_or_else(|| missing("role", call.param("id")))
}

async fn list(identity: Arc<Identity>, call: Call) -> Result<Reply> {
    let domain = call.query.get("domain_id").filter(|id| !id.is_empty());
    let rule = if domain.is_some() { "identity:list_domain_roles" } else { call.rule };
    forbid_rule(&call, rule, &Target::new())?;
    let items: Vec<_> = {
        let model = identity.model();
        let wanted = model.roles.all().filter(|role| role.domain_id.as_deref() == domain);
        wanted.map(|role| shown(&call, role)).collect()
    };
    filtered(&call, "roles", items, &["name"])
}

async fn show(identity: Arc<Identity>, call: Call) -> Result<Reply> {
    let role = allowed(&identity, &call, "identity:get_domain_role")?;
    single(&call, 200, "role", shown(&call, &role))
}

async fn create(identity: Arc<Identity>, mut call: Call) -> Result<Reply> {
    let mut fields = Fields::read(&mut call, "role").await?;
    let domain = fields.id("domain_id")?.flatten();
    let rule = if domain.is_some() { "identity:create_domain_role" } else { call.rule };
    forbid_rule(&call, rule, &Target::new().with("target.role.domain_id", domain.clone()))?;
    let role = Role {
        id: identity.env.uuid_hex().into(),
        name: fields.need_name("name", NAME_CHARS)?,
        domain_id: domain.map(Into::into),
        description: fields.description()?.unwrap_or(Value::Null),
        options: fields.object("options")?.unwrap_or_default(),
        extra: fields.rest()?,
    };
    let shown = shown(&call, &role);
    let work = move |tx: &mut Tx| {
        if let Some(id) = &role.domain_id {
            tx.get::<Project>(id)?.filter(|d| d.is_domain).ok_or_else(|| missing("domain", id))?;
        }
        taken(tx.create(&role).map(drop), "role", &role.name)
    };
    identity.write(&call, work).await?;
    single(&call, 201, "role", shown)
}

fn immutable(options: &Extra) -> bool {
    options.get("immutable") == Some(&Value::Bool(true))
}

fn is_immutable(role: &Role) -> Fault {
    let id = &role.id;
    Fault::forbidden(format!(
        "Unable to change immutable role resource: `{id}`. Set resource option 'immutable' to false first."
    ))
}

async fn update(identity: Arc<Identity>, mut call: Call) -> Result<Reply> {
    let known = allowed(&identity, &call, "identity:update_domain_role")?;
    let mut fields = Fields::read(&mut call, "role").await?;
    fields.fixed("id", &json!(known.id))?;
    fields.fixed("domain_id", &json!(known.domain_id))?;
    let (name, description) = (fields.name("name", NAME_CHARS)?, fields.description()?);
    let options = fields.object("options")?.unwrap_or_default();
    let (id, extra) = (known.id.to_string(), fields.rest()?);
    let work = move |tx: &mut Tx| {
        let mut role = tx.get::<Role>(&id)?.ok_or_else(|| missing("role", &id))?.doc;
        let was = immutable(&role.options);
        merge_options(&mut role.options, options.clone());
        if was && immutable(&role.options) {
            return Err(is_immutable(&role));
        }
        role.name = name.clone().unwrap_or(role.name);
        role.description = description.clone().unwrap_or(role.description);
        role.extra.extend(extra.clone());
        taken(tx.update(&role), "role", &role.name)?;
        Ok(role)
    };
    let role = identity.write(&call, work).await?;
    single(&call, 200, "role", shown(&call, &role))
}

async fn delete(identity: Arc<Identity>, call: Call) -> Result<Reply> {
    let role = allowed(&identity, &call, "identity:delete_domain_role")?;
    let id = role.id.to_string();
    let work = move |tx: &mut Tx| {
        let role = tx.get::<Role>(&id)?.ok_or_else(|| missing("role", &id))?;
        if immutable(&role.options) { Err(is_immutable(&role)) } else { remove(tx, &id) }
    };
    identity.write(&call, work).await?;
    Ok(Reply::empty(204))
}

/// Deletes a role with its assignments and implications.
pub(crate) fn remove(tx: &mut Tx, id: &str) -> Result<()> {
    remove_where::<Assignment>(tx, "role", id)?;
    remove_where::<ImpliedRole>(tx, "role", id)?;
    tx.delete::<Role>(id)?;
    Ok(())
}

fn brief(call: &Call, role: &Role) -> Value {
    let object = pairs([
        ("id", json!(role.id)),
        ("name", json!(role.name)),
        ("description", role.description.clone()),
        ("domain_id", json!(role.domain_id)),
    ]);
    linked(call, "roles", object.collect())
}

async fn list_implied(identity: Arc<Identity>, call: Call) -> Result<Reply> {
    forbid_rule(&call, call.rule, &Target::new())?;
    let model = identity.model();
    let id = call.param("id");
    let prior = model.roles.get(id).ok_or_else(|| missing("role", id))?;
    let implied = model.implied.find("prior", id).filter_map(|rule| model.roles.get(&rule.implied_role_id));
    let implies: Vec<_> = implied.map(|role| brief(&call, role)).collect();
    let links = json!({"self": call.link(&format!("/v3/roles/{id}/implies")), "next": null, "previous": null});
    call.reply(200, &json!({"role_inference": {"prior_role": brief(&call, prior), "implies": implies}, "links": links}))
}

/// Both roles of the path.
fn both(identity: &Identity, call: &Call) -> Result<(Arc<Role>, Arc<Role>)> {
    forbid_rule(call, call.rule, &Target::new())?;
    let model = identity.model();
    let get = |id: &str| model.roles.get(id).cloned().ok_or_else(|| missing("role", id));
    Ok((get(call.param("id"))?, get(call.param("implied_id"))?))
}

fn inference(call: &Call, status: u16, prior: &Role, implied: &Role) -> Result<Reply> {
    let link = call.link(&format!("/v3/roles/{}/implies/{}", prior.id, implied.id));
    let both = json!({"prior_role": brief(call, prior), "implies": brief(call, implied)});
    call.reply(status, &json!({"role_inference": both, "links": {"self": link}}))
}

async fn imply(identity: Arc<Identity>, call: Call) -> Result<Reply> {
    let (prior, implied) = both(&identity, &call)?;
    if implied.name == NEVER_IMPLIED || implied.id == prior.id {
        return Err(Fault::forbidden(format!("The role {} may not be implied by {}.", implied.name, prior.name)));
    }
    if prior.domain_id.is_none() && implied.domain_id.is_some() {
        return Err(Fault::forbidden("A role of the cloud may not imply a role of a domain."));
    }
    let rule = ImpliedRole::new(&prior.id, &implied.id);
    let work = move |tx: &mut Tx| {
        tx.need::<Role>(&rule.prior_role_id)?;
        tx.need::<Role>(&rule.implied_role_id)?;
        Ok(tx.put(&rule)?)
    };
    identity.write(&call, work).await?;
    inference(&call, 201, &prior, &implied)
}

fn known_inference(identity: &Identity, call: &Call) -> Result<(Arc<Role>, Arc<Role>)> {
    let (prior, implied) = both(identity, call)?;
    let id = ImpliedRole::id_of(&prior.id, &implied.id);
    identity.model().implied.get(&id).ok_or_else(|| missing("inference rule", &id))?;
    Ok((prior, implied))
}

async fn show_implied(identity: Arc<Identity>, call: Call) -> Result<Reply> {
    let (prior, implied) = known_inference(&identity, &call)?;
    inference(&call, 200, &prior, &implied)
}

async fn check_implied(identity: Arc<Identity>, call: Call) -> Result<Reply> {
    known_inference(&identity, &call)?;
    Ok(Reply::empty(204))
}

async fn unimply(identity: Arc<Identity>, call: Call) -> Result<Reply> {
    let (prior, implied) = known_inference(&identity, &call)?;
    let id = ImpliedRole::id_of(&prior.id, &implied.id);
    identity.write(&call, move |tx| Ok(tx.delete::<ImpliedRole>(&id).map(drop)?)).await?;
    Ok(Reply::empty(204))
}

async fn inferences(identity: Arc<Identity>, call: Call) -> Result<Reply> {
    forbid_rule(&call, call.rule, &Target::new())?;
    let model = identity.model();
    let mut by_prior: BTreeMap<&str, Vec<Value>> = BTreeMap::new();
    for role in model.roles.all() {
        let rules = model.implied.find("prior", &role.id);
        for implied in rules.filter_map(|rule| model.roles.get(&rule.implied_role_id)) {
            by_prior.entry(&role.id).or_default().push(brief(&call, implied));
        }
    }
    let rules: Vec<_> = by_prior
        .into_iter()
        .filter_map(|(id, implies)| Some(json!({"prior_role": brief(&call, model.roles.get(id)?), "implies": implies})))
        .collect();
    let links = json!({"self": call.link("/v3/role_inferences"), "next": null, "previous": null});
    call.reply(200, &json!({"role_inferences": rules, "links": links}))
}
