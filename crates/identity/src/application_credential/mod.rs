//! Application credentials: a part of a user's rights in one project, for a program to log in with.
//!
//! The secret is shown once. A token made with one cannot make further ones unless it is `unrestricted`. It is worth at
//! most what its user still has, and nothing once the user has none of its roles.

use crate::Identity;
use crate::access_rule;
use crate::documents::*;
use crate::fields::Fields;
use crate::listing::{collection, forbid, linked, missing, single};
use crate::project::{pairs, taken};
use crate::token::verify::Verified;
use base::{Fault, Result, Timestamp};
use policy::Target;
use rest::{Call, Reply, Route};
use serde_json::{Value, json};
use std::sync::Arc;
use store::Tx;

pub(crate) fn routes(identity: &Arc<Identity>) -> Vec<Route> {
    let (all, one) =
        ("/v3/users/{id}/application_credentials", "/v3/users/{id}/application_credentials/{credential_id}");
    routes![identity;
        GET all, "application_credentials:list", "identity:list_application_credentials", 200, list;
        POST all, "application_credentials:create", "identity:create_application_credential", 201, create;
        GET one, "application_credentials:show", "identity:get_application_credential", 200, show;
        DELETE one, "application_credentials:delete", "identity:delete_application_credential", 204, delete;
    ]
}

fn shown(identity: &Identity, call: &Call, credential: &ApplicationCredential) -> Value {
    let model = identity.model();
    let roles: Vec<_> = credential.roles.iter().filter_map(|id| model.roles.get(id)).collect();
    let roles: Vec<_> =
        roles.iter().map(|role| json!({"id": role.id, "name": role.name, "domain_id": role.domain_id})).collect();
    let mut object: Extra = pairs([
        ("id", json!(credential.id)),
        ("name", json!(credential.name)),
        ("description", credential.description.clone()),
        ("user_id", json!(credential.user_id)),
        ("project_id", json!(credential.project_id)),
        ("system", Value::Null),
        ("roles", json!(roles)),
        ("expires_at", json!(credential.expires_at.map(|at| at.iso_naive()))),
        ("unrestricted", json!(credential.unrestricted)),
    ])
    .collect();
    if let Some(ids) = &credential.access_rules {
        let rules = ids.iter().filter_map(|id| model.access_rules.get(id)).map(|rule| access_rule::plain(rule));
        object.insert("access_rules".into(), rules.map(Value::Object).collect());
    }
    drop(model);
    linked(call, &format!("users/{}/application_credentials", credential.user_id), object)
}

fn target(call: &Call) -> Target<'static> {
    let id = call.param("id").to_owned();
    Target::new().with("target.user.id", id.clone()).with("user_id", id)
}

async fn list(identity: Arc<Identity>, call: Call) -> Result<Reply> {
    forbid(&call, &target(&call))?;
    let found: Vec<_> = identity.model().application_credentials.find("user", call.param("id")).cloned().collect();
    let named = call.query.get("name");
    let found = found.iter().filter(|credential| named.is_none_or(|name| credential.name == name));
    collection(&call, "application_credentials", found.map(|c| shown(&identity, &call, c)).collect())
}

fn find(identity: &Identity, call: &Call) -> Result<Arc<ApplicationCredential>> {
    let id = call.param("credential_id");
    let found =
        identity.model().application_credentials.get(id).filter(|c| c.user_id.as_str() == call.param("id")).cloned();
    forbid(call, &target(call))?;
    found.ok_or_else(|| missing("application credential", id))
}

async fn show(identity: Arc<Identity>, call: Call) -> Result<Reply> {
    let credential = find(&identity, &call)?;
    single(&call, 200, "application_credential", shown(&identity, &call, &credential))
}

/// A token that lends rights may not lend them on, unless it was made to.
pub(crate) fn may_lend(call: &Call) -> Result<Arc<Verified>> {
    let token = call.caller.token.clone().and_then(|token| token.downcast::<Verified>().ok());
    let token = token.ok_or_else(|| Fault::forbidden("This needs a token of a user."))?;
    if token.trust.is_some() {
        return Err(Fault::forbidden("A token from a trust cannot manage application credentials."));
    }
    if token.application_credential.as_ref().is_some_and(|credential| !credential.unrestricted) {
        return Err(Fault::forbidden(
            "Using method 'application_credential' is not allowed for managing additional application credentials.",
        ));
    }
    Ok(token)
}

async fn create(identity: Arc<Identity>, mut call: Call) -> Result<Reply> {
    forbid(&call, &target(&call))?;
    let token = may_lend(&call)?;
    let mut fields = Fields::read(&mut call, "application_credential").await?;
    let rules = access_rule::read(fields.take("access_rules"))?;
    let project = call.project()?;
    let secret = fields.text("secret")?.flatten().unwrap_or_else(|| identity.env.secret_hex(43));
    base::limits::text("secret", &secret, 255)?;
    let expires_at = fields.text("expires_at")?.flatten();
    let credential = ApplicationCredential {
        id: identity.env.uuid_hex(),
        name: fields.need_name("name", 255)?,
        description: fields.description()?.unwrap_or(Value::Null),
        user_id: call.caller.user_id(),
        project_id: project,
        roles: roles(&token, fields.take("roles"))?,
        expires_at: expires_at.map(|text| end(&text, call.now)).transpose()?,
        unrestricted: fields.flag("unrestricted")?.unwrap_or(false),
        access_rules: None,
        secret: identity.passwords.hash(secret.clone(), identity.env.random.clone()).await?,
    };
    let work = move |tx: &mut Tx| {
        let mut credential = credential.clone();
        tx.get::<User>(&credential.user_id)?.ok_or_else(|| missing("user", &credential.user_id))?;
        credential.access_rules =
            rules.as_ref().map(|rules| access_rule::ensure(tx, &credential.user_id, rules)).transpose()?;
        taken(tx.create(&credential).map(drop), "application_credential", &credential.name)?;
        Ok(credential)
    };
    let credential = identity.write(&call, work).await?;
    let mut answer = shown(&identity, &call, &credential);
    answer["secret"] = secret.into();
    single(&call, 201, "application_credential", answer)
}

fn end(text: &str, now: Timestamp) -> Result<Timestamp> {
    let at = Timestamp::parse(text)
        .ok_or_else(|| Fault::invalid(format!("Invalid input for field 'expires_at': '{text}' is no time.")))?;
    if at <= now {
        return Err(Fault::invalid(format!("Invalid input for field 'expires_at': '{text}' lies in the past.")));
    }
    Ok(at)
}

/// The roles asked for, all of which the token must have; without any, those of the token.
fn roles(token: &Verified, asked: Option<Value>) -> Result<Vec<base::RoleId>> {
    let asked = match asked {
        None | Some(Value::Null) => Vec::new(),
        Some(Value::Array(roles)) => roles,
        Some(_) => return Err(Fault::invalid("Invalid input for field 'roles': it must be a list.")),
    };
    if asked.is_empty() {
        return Ok(token.roles.iter().map(|role| role.id.clone()).collect());
    }
    let find = |wanted: &Value| {
        let (id, name) = (wanted["id"].as_str(), wanted["name"].as_str());
        let found = token.roles.iter().find(|role| match (id, name) {
            (Some(id), _) => role.id.as_str() == id,
            (None, name) => Some(role.name.as_str()) == name,
        });
        found.map(|role| role.id.clone()).ok_or_else(|| {
            Fault::invalid(format!(
                "Invalid application credential: Could not find role assignment with role: {wanted}."
            ))
        })
    };
    asked.iter().map(find).collect()
}

async fn delete(identity: Arc<Identity>, call: Call) -> Result<Reply> {
    let credential = find(&identity, &call)?;
    may_lend(&call)?;
    let id = credential.id.clone();
    let work = move |tx: &mut Tx| {
        tx.get::<ApplicationCredential>(&id)?.ok_or_else(|| missing("application credential", &id))?;
        tx.delete::<ApplicationCredential>(&id)?;
        Ok(())
    };
    identity.write(&call, work).await?;
    Ok(Reply::empty(204))
}
