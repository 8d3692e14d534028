//! Trusts: a user (the trustor) lends another (the trustee) some of the roles in one project, as oneself or as a deputy.
//!
//! A token made with a trust is worth what the trust says *now*: the trustee's, or with impersonation the trustor's name,
//! and the trust's roles as long as the first trustor of the chain still has all of them. A trust may allow to be lent on
//! ([`redelegation`]), each time narrower. It goes with either user, with its project, and with the trust that it came from.

mod redelegation;

use crate::Identity;
use crate::documents::*;
use crate::fields::Fields;
use crate::listing::{collection, forbid, forbid_rule, linked, missing, single};
use crate::model::Model;
use crate::project::pairs;
use crate::token::methods::Methods;
use crate::token::verify::Verified;
use base::{Fault, Result, RoleId, Timestamp};
use policy::Target;
use rest::{Call, Reply, Route};
use serde_json::{Map, Value, json};
use std::collections::BTreeSet;
use std::sync::Arc;
use store::{Query, Tx};

pub(crate) use redelegation::{chain_holds, lenders, origin};

/// The most roles that one trust lends.
const ROLES: usize = 100;

pub(crate) fn routes(identity: &Arc<Identity>) -> Vec<Route> {
    let (all, one) = ("/v3/OS-TRUST/trusts", "/v3/OS-TRUST/trusts/{id}");
    let (roles, role) = ("/v3/OS-TRUST/trusts/{id}/roles", "/v3/OS-TRUST/trusts/{id}/roles/{role_id}");
    routes![identity;
        GET all, "trusts:list", "identity:list_trusts", 200, list;
        POST all, "trusts:create", "identity:create_trust", 201, create;
        GET one, "trusts:show", "identity:get_trust", 200, show;
        DELETE one, "trusts:delete", "identity:delete_trust", 204, delete;
        GET roles, "trusts:roles", "identity:list_roles_for_trust", 200, list_roles;
        GET role, "trusts:role", "identity:get_role_for_trust", 200, show_role;
    ]
}

fn shown(call: &Call, trust: &Trust) -> Map<String, Value> {
    let object = pairs([
        ("id", json!(trust.id)),
        ("trustor_user_id", json!(trust.trustor_user_id)),
        ("trustee_user_id", json!(trust.trustee_user_id)),
        ("project_id", json!(trust.project_id)),
        ("impersonation", json!(trust.impersonation)),
        ("expires_at", json!(trust.expires_at.map(|at| at.iso_micros()))),
        ("remaining_uses", json!(trust.remaining_uses)),
        ("redelegation_count", json!(trust.redelegation_count)),
        ("redelegated_trust_id", json!(trust.redelegated_trust_id)),
        ("deleted_at", Value::Null),
    ]);
    match linked(call, "OS-TRUST/trusts", object.collect()) {
        Value::Object(object) => object,
        _ => Map::new(),
    }
}

fn whole(identity: &Identity, call: &Call, trust: &Trust) -> Value {
    let mut object = shown(call, trust);
    object.insert("roles".into(), roles(&identity.model(), call, trust).into());
    let link = call.link(&format!("/v3/OS-TRUST/trusts/{}/roles", trust.id));
    object.insert("roles_links".into(), json!({"self": link, "next": null, "previous": null}));
    Value::Object(object)
}

fn roles(model: &Model, call: &Call, trust: &Trust) -> Vec<Value> {
    let known = trust.roles.iter().filter_map(|id| model.roles.get(id));
    known.map(|role| crate::role::shown(call, role)).collect()
}

fn target(trust: &Trust) -> Target<'static> {
    Target::new()
        .with("target.trust.trustor_user_id", trust.trustor_user_id.to_string())
        .with("target.trust.trustee_user_id", trust.trustee_user_id.to_string())
}

/// Lent rights of other kinds do not suffice: they would grow beyond what was lent.
fn may_trust(call: &Call) -> Result<Arc<Verified>> {
    let token = call.caller.token.clone().and_then(|token| token.downcast::<Verified>().ok());
    let token = token.ok_or_else(|| Fault::forbidden("This needs a token of a user."))?;
    if token.application_credential.is_some() || token.by(Methods::APPLICATION_CREDENTIAL) {
        return Err(Fault::forbidden("Delegated tokens cannot manage trusts."));
    }
    Ok(token)
}

/// The trust of the path. One that does not exist or has ended is not found, whoever asks, and so is one with which the
/// caller has nothing to do.
fn find(identity: &Identity, call: &Call) -> Result<Arc<Trust>> {
    let id = call.param("id");
    let found = identity.model().trusts.get(id).filter(|trust| trust.lasts(call.now)).cloned();
    let trust = found.ok_or_else(|| missing("trust", id))?;
    let part = |rule| call.may(rule, &target(&trust));
    if !part("identity:get_trust") {
        return Err(missing("trust", id));
    }
    forbid(call, &target(&trust))?;
    may_trust(call)?;
    Ok(trust)
}

async fn list(identity: Arc<Identity>, call: Call) -> Result<Reply> {
    let (trustor, trustee) = (call.query.get("trustor_user_id"), call.query.get("trustee_user_id"));
    match (trustor, trustee) {
        (Some(id), _) => {
            let target = Target::new().with("target.trust.trustor_user_id", id.to_owned());
            forbid_rule(&call, "identity:list_trusts_for_trustor", &target)?;
        }
        (None, Some(id)) => {
            let target = Target::new().with("target.trust.trustee_user_id", id.to_owned());
            forbid_rule(&call, "identity:list_trusts_for_trustee", &target)?;
        }
        (None, None) => forbid(&call, &Target::new())?,
    }
    may_trust(&call)?;
    let fits = |trust: &&Arc<Trust>| {
        trust.lasts(call.now)
            && trustor.is_none_or(|id| trust.trustor_user_id.as_str() == id)
            && trustee.is_none_or(|id| trust.trustee_user_id.as_str() == id)
    };
    let found: Vec<Value> =
        identity.model().trusts.all().filter(fits).map(|trust| shown(&call, trust).into()).collect();
    collection(&call, "trusts", found)
}

async fn show(identity: Arc<Identity>, call: Call) -> Result<Reply> {
    let trust = find(&identity, &call)?;
    single(&call, 200, "trust", whole(&identity, &call, &trust))
}

async fn list_roles(identity: Arc<Identity>, call: Call) -> Result<Reply> {
    let trust = find(&identity, &call)?;
    let roles = roles(&identity.model(), &call, &trust);
    collection(&call, "roles", roles)
}

async fn show_role(identity: Arc<Identity>, call: Call) -> Result<Reply> {
    let trust = find(&identity, &call)?;
    let id = call.param("role_id");
    let role = trust.roles.iter().find(|role| role.as_str() == id);
    let role = role.and_then(|id| identity.model().roles.get(id).cloned()).ok_or_else(|| missing("role", id))?;
    single(&call, 200, "role", crate::role::shown(&call, &role))
}

async fn delete(identity: Arc<Identity>, call: Call) -> Result<Reply> {
    let id = find(&identity, &call)?.id.clone();
    identity.write(&call, move |tx| remove(tx, &id)).await?;
    Ok(Reply::empty(204))
}

/// Deletes a trust and all that came from it.
pub(crate) fn remove(tx: &mut Tx, id: &str) -> Result<()> {
    if tx.get::<Trust>(id)?.is_none() {
        return Err(missing("trust", id));
    }
    let mut ids = vec![id.to_owned()];
    while let Some(id) = ids.pop() {
        ids.extend(tx.list::<Trust>(Query::index("from", &*id))?.into_iter().map(|trust| trust.doc.id));
        if tx.get::<Trust>(&id)?.is_some() {
            tx.delete::<Trust>(&id)?;
        }
    }
    Ok(())
}

/// Deletes all trusts with this index value.
pub(crate) fn remove_where(tx: &mut Tx, index: &'static str, value: &str) -> Result<()> {
    for trust in tx.list::<Trust>(Query::index(index, value))? {
        // It may have gone with another of them.
        if tx.get::<Trust>(&trust.id)?.is_some() {
            remove(tx, &trust.id)?;
        }
    }
    Ok(())
}

fn flag(fields: &mut Fields, name: &str) -> Result<Option<bool>> {
    if fields.take_null(name) { Ok(None) } else { fields.flag(name) }
}

fn count(fields: &mut Fields, name: &str, least: i64) -> Result<Option<i64>> {
    if fields.take_null(name) {
        return Ok(None);
    }
    let number = fields.number(name)?;
    if number.is_some_and(|number| number < least) {
        return Err(Fault::invalid(format!("{name} must be a whole number of at least {least}, or null.")));
    }
    Ok(number)
}

async fn create(identity: Arc<Identity>, mut call: Call) -> Result<Reply> {
    let mut fields = Fields::read(&mut call, "trust").await?;
    let trustor = fields.need_id("trustor_user_id")?;
    forbid(&call, &Target::new().with("trust.trustor_user_id", trustor.clone()))?;
    let token = may_trust(&call)?;
    if *call.caller.user_id() != *trustor {
        return Err(Fault::forbidden("The authenticated user should match the trustor."));
    }
    let trustee = fields.need_id("trustee_user_id")?;
    let impersonation = fields.flag("impersonation")?.ok_or_else(|| fields.missing("impersonation"))?;
    let project = fields.id("project_id")?.flatten();
    let expires_at = fields.text("expires_at")?.flatten().map(|text| end(&text, call.now)).transpose()?;
    let asked = wanted_roles(fields.take("roles"))?;
    if project.is_some() && asked.is_empty() {
        return Err(Fault::forbidden("At least one role should be specified."));
    }
    let depth = redelegation::Asked {
        allowed: flag(&mut fields, "allow_redelegation")?.unwrap_or(false),
        count: count(&mut fields, "redelegation_count", 0)?,
    };
    let remaining_uses = count(&mut fields, "remaining_uses", 1)?;
    let parent = token.trust.clone();
    let mut trust = Trust {
        id: identity.env.uuid_hex(),
        trustor_user_id: trustor.into(),
        trustee_user_id: trustee.into(),
        project_id: project.map(Into::into),
        impersonation,
        roles: named_roles(&identity.model(), &asked)?,
        expires_at,
        remaining_uses,
        redelegation_count: 0,
        redelegated_trust_id: parent.as_ref().map(|parent| parent.id.clone()),
    };
    trust.redelegation_count = redelegation::depth(&depth, remaining_uses, parent.as_deref())?;
    if let Some(parent) = &parent {
        trust.expires_at = redelegation::narrower(parent, &trust)?;
    }
    has_roles(&identity.model(), &trust)?;
    let kept = trust.clone();
    let work = move |tx: &mut Tx| {
        for user in [&kept.trustor_user_id, &kept.trustee_user_id] {
            tx.get::<User>(user)?.ok_or_else(|| missing("user", user))?;
        }
        if let Some(project) = &kept.project_id {
            tx.get::<Project>(project)?.ok_or_else(|| missing("project", project))?;
        }
        if let Some(parent) = &kept.redelegated_trust_id {
            tx.get::<Trust>(parent)?.ok_or_else(|| missing("trust", parent))?;
        }
        Ok(tx.create(&kept).map(drop)?)
    };
    identity.write(&call, work).await?;
    single(&call, 201, "trust", whole(&identity, &call, &trust))
}

fn end(text: &str, now: Timestamp) -> Result<Timestamp> {
    let wrong = |why: &str| Fault::invalid(format!("Invalid input for field 'expires_at': '{text}' {why}."));
    let at = Timestamp::parse(text).ok_or_else(|| wrong("is no time"))?;
    if at > now { Ok(at) } else { Err(wrong("lies in the past")) }
}

/// Each with an id or a name, not both.
fn wanted_roles(given: Option<Value>) -> Result<Vec<(bool, String)>> {
    let wrong =
        || Fault::invalid("Invalid input for field 'roles': it must be a list of objects with an id or a name.");
    let given = match given {
        None => return Ok(Vec::new()),
        Some(Value::Array(given)) => given,
        Some(_) => return Err(wrong()),
    };
    if given.len() > ROLES {
        return Err(Fault::invalid(format!("A trust lends at most {ROLES} roles.")));
    }
    let one = |role: &Value| match (role["id"].as_str(), role["name"].as_str()) {
        (Some(id), None) => Ok((true, id.to_owned())),
        (None, Some(name)) => Ok((false, name.to_owned())),
        _ => Err(wrong()),
    };
    given.iter().map(one).collect()
}

fn named_roles(model: &Model, asked: &[(bool, String)]) -> Result<Vec<RoleId>> {
    let mut ids = BTreeSet::new();
    for (by_id, value) in asked {
        let found: Vec<_> =
            model.roles.all().filter(|role| if *by_id { *role.id == **value } else { role.name == *value }).collect();
        match found[..] {
            [role] => ids.insert(role.id.clone()),
            [] => return Err(missing("role", value)),
            _ => return Err(Fault::conflict(format!("Multiple roles have the name {value}: say which by its id."))),
        };
    }
    Ok(ids.into_iter().collect())
}

/// NotFound for a role that the first trustor of the chain does not have in the project.
fn has_roles(model: &Model, trust: &Trust) -> Result<()> {
    let Some(project) = &trust.project_id else { return Ok(()) };
    model.projects.get(project).ok_or_else(|| missing("project", project))?;
    let held = model.roles_of(&origin(model, trust), &Place::Project(project.clone()));
    match trust.roles.iter().find(|role| !held.contains(role.as_str())) {
        Some(role) => Err(missing("role", role)),
        None => Ok(()),
    }
}
