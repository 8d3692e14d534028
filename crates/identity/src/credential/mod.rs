//! Credentials of other kinds: EC2 keys and seeds of one-time passwords, which serve here, and whatever else a user
//! keeps for whoever knows how to use it.

mod ec2;
mod ec2tokens;
mod signature;

use crate::Identity;
use crate::documents::*;
use crate::fields::Fields;
use crate::listing::{filtered, forbid, linked, missing, single};
use crate::project::pairs;
use base::{Fault, Result};
use policy::Target;
use rest::{Call, Reply, Route};
use serde_json::{Value, json};
use sha2::Digest;
use std::sync::Arc;
use store::{Query, Secret, Secrets, Stored, Tx};

pub(crate) fn routes(identity: &Arc<Identity>) -> Vec<Route> {
    let (all, one) = ("/v3/credentials", "/v3/credentials/{id}");
    let mut routes = ec2::routes(identity);
    routes.extend(ec2tokens::routes(identity));
    routes.extend(routes![identity;
        GET all, "credentials:list", "identity:list_credentials", 200, list;
        POST all, "credentials:create", "identity:create_credential", 201, create;
        GET one, "credentials:show", "identity:get_credential", 200, show;
        PATCH one, "credentials:update", "identity:update_credential", 200, update;
        DELETE one, "credentials:delete", "identity:delete_credential", 204, delete;
    ]);
    routes
}

fn shown(call: &Call, secrets: &Secrets, credential: &Credential) -> Result<Value> {
    let mut object = credential.extra.clone();
    object.extend(pairs([
        ("id", json!(credential.id)),
        ("type", json!(credential.kind)),
        ("blob", json!(secrets.open(credential, "blob", &credential.blob)?)),
        ("user_id", json!(credential.user_id)),
        ("project_id", json!(credential.project_id)),
    ]));
    Ok(linked(call, "credentials", object))
}

fn target(user: &str) -> Target<'static> {
    Target::new().with("target.credential.user_id", user.to_owned())
}

async fn list(identity: Arc<Identity>, call: Call) -> Result<Reply> {
    // Everybody may list; what is shown is what may be shown.
    let query = match call.query.get("user_id") {
        Some(user) => Query::index("user", user),
        None => Query::all(),
    };
    let found = identity.store.list::<Credential>(query).await?;
    let mine = found.iter().filter(|credential| call.may(call.rule, &target(&credential.user_id)));
    let items = mine.map(|credential| shown(&call, identity.store.secrets(), credential)).collect::<Result<_>>()?;
    filtered(&call, "credentials", items, &["user_id", "type"])
}

/// `found` comes from the store, with its blob.
fn allowed(call: &Call, found: Option<Stored<Credential>>) -> Result<Credential> {
    forbid(call, &found.as_ref().map_or_else(Target::new, |credential| target(&credential.user_id)))?;
    found.map(|stored| stored.doc).ok_or_else(|| missing("credential", call.param("id")))
}

async fn show(identity: Arc<Identity>, call: Call) -> Result<Reply> {
    let found = identity.store.get(call.param("id")).await?;
    let credential = allowed(&call, found)?;
    single(&call, 200, "credential", shown(&call, identity.store.secrets(), &credential)?)
}

fn blob(fields: &mut Fields) -> Result<Option<String>> {
    match fields.take("blob") {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(object @ Value::Object(_)) => Ok(Some(object.to_string())),
        Some(_) => Err(Fault::invalid("Invalid input for field 'blob': it must be a string.")),
    }
}

/// The access key inside the blob of an EC2 credential; its hash is the credential's id, so that it is unique.
fn ec2_id(blob: &str) -> Result<String> {
    let parsed: Value = serde_json::from_str(blob).map_err(|_| Fault::invalid("Invalid blob in credential"))?;
    let access = parsed["access"].as_str().ok_or_else(|| Fault::invalid("Could not find access key in blob"))?;
    Ok(sha2::Sha256::digest(access).iter().map(|b| format!("{b:02x}")).collect())
}

/// What an EC2 key is good for never changes with its blob. The access key may, and whoever signs goes on by the one of
/// the id, as with Keystone.
fn same_ec2(known: &str, wanted: &str) -> Result<()> {
    ec2_id(wanted)?;
    let parse = |text: &str| serde_json::from_str::<Value>(text).unwrap_or_default();
    let (known, wanted) = (parse(known), parse(wanted));
    for key in ["trust_id", "app_cred_id", "access_token_id", "access_id"] {
        if known.get(key).unwrap_or(&Value::Null) != wanted.get(key).unwrap_or(&Value::Null) {
            return Err(Fault::invalid(format!("{key} can not be updated for credential")));
        }
    }
    Ok(())
}

async fn create(identity: Arc<Identity>, mut call: Call) -> Result<Reply> {
    let mut fields = Fields::read(&mut call, "credential").await?;
    let user = fields.id("user_id")?.flatten().unwrap_or_else(|| call.caller.user_id().to_string());
    forbid(&call, &target(&user))?;
    delegated(&call)?;
    let kind = fields.need_name("type", 255)?;
    let blob = blob(&mut fields)?.ok_or_else(|| fields.missing("blob"))?;
    let project = fields.id("project_id")?.flatten();
    if kind == "ec2" && project.is_none() {
        return Err(fields.missing("project_id"));
    }
    let credential = Credential {
        id: if kind == "ec2" { ec2_id(&blob)? } else { identity.env.uuid_hex() },
        kind,
        user_id: user.into(),
        project_id: project.map(Into::into),
        blob: blob.into(),
        extra: fields.rest()?,
    };
    let shown = shown(&call, identity.store.secrets(), &credential)?;
    let work = move |tx: &mut Tx| match tx.create(&credential) {
        Err(store::Error::Exists { id, .. }) => Err(crate::duplicate("credential", &id)),
        other => Ok(other.map(drop)?),
    };
    identity.write(&call, work).await?;
    single(&call, 201, "credential", shown)
}

/// Lent rights do not suffice to make or change credentials, which would outlive them.
fn delegated(call: &Call) -> Result<()> {
    if call.caller.credentials.is_delegated_auth {
        return Err(Fault::forbidden("A token from an application credential cannot manage credentials."));
    }
    Ok(())
}

async fn update(identity: Arc<Identity>, mut call: Call) -> Result<Reply> {
    let found = identity.store.get(call.param("id")).await?;
    let known = allowed(&call, found)?;
    delegated(&call)?;
    let mut fields = Fields::read(&mut call, "credential").await?;
    fields.fixed("id", &json!(known.id))?;
    let blob = blob(&mut fields)?;
    let (kind, user, project) = (fields.name("type", 255)?, fields.id("user_id")?.flatten(), fields.id("project_id")?);
    if let Some(user) = &user {
        forbid(&call, &target(user))?;
    }
    let (id, extra) = (known.id, fields.rest()?);
    let work = move |tx: &mut Tx| {
        let mut credential = tx.get::<Credential>(&id)?.ok_or_else(|| missing("credential", &id))?.doc;
        if credential.kind == "ec2"
            && let Some(blob) = &blob
        {
            let known = tx.secrets().open(&credential, "blob", &credential.blob)?;
            same_ec2(&known, blob)?;
        }
        credential.blob = blob.clone().map_or(credential.blob, Secret::from);
        credential.kind = kind.clone().unwrap_or(credential.kind);
        credential.user_id = user.clone().map_or(credential.user_id, Into::into);
        if let Some(project) = &project {
            credential.project_id = project.clone().map(Into::into);
        }
        credential.extra.extend(extra.clone());
        tx.update(&credential)?;
        Ok(credential)
    };
    let credential = identity.write(&call, work).await?;
    single(&call, 200, "credential", shown(&call, identity.store.secrets(), &credential)?)
}

async fn delete(identity: Arc<Identity>, call: Call) -> Result<Reply> {
    let found = identity.store.get(call.param("id")).await?;
    let id = allowed(&call, found)?.id;
    delegated(&call)?;
    identity.write(&call, move |tx| Ok(tx.delete::<Credential>(&id).map(drop)?)).await?;
    Ok(Reply::empty(204))
}
