//! EC2 keys of a user: credentials of the type `ec2` under their own paths.

use super::{delegated, ec2_id};
use crate::Identity;
use crate::documents::*;
use crate::listing::{collection, forbid, missing, single};
use base::{Fault, Result};
use policy::Target;
use rest::{Call, Reply, Route};
use serde_json::{Value, json};
use std::sync::Arc;
use store::{Query, Secrets, Stored, Tx};

pub(super) fn routes(identity: &Arc<Identity>) -> Vec<Route> {
    let (all, one) = ("/v3/users/{id}/credentials/OS-EC2", "/v3/users/{id}/credentials/OS-EC2/{access}");
    routes![identity;
        GET all, "ec2:list", "identity:ec2_list_credentials", 200, list;
        POST all, "ec2:create", "identity:ec2_create_credential", 201, create;
        GET one, "ec2:show", "identity:ec2_get_credential", 200, show;
        DELETE one, "ec2:delete", "identity:ec2_delete_credential", 204, delete;
    ]
}

fn shown(call: &Call, secrets: &Secrets, credential: &Credential) -> Result<Value> {
    let blob: Value = serde_json::from_str(&secrets.open(credential, "blob", &credential.blob)?).unwrap_or_default();
    let user = &credential.user_id;
    let link = format!("/v3/users/{user}/credentials/OS-EC2/{}", blob["access"].as_str().unwrap_or(""));
    Ok(json!({
        "access": blob["access"],
        "secret": blob["secret"],
        "trust_id": blob["trust_id"],
        "user_id": user,
        "tenant_id": credential.project_id,
        "links": {"self": call.link(&link)},
    }))
}

/// The user of the path owns what is asked for.
fn target(call: &Call) -> Target<'static> {
    let id = call.param("id").to_owned();
    Target::new().with("user_id", id.clone()).with("target.credential.user_id", id)
}

async fn list(identity: Arc<Identity>, call: Call) -> Result<Reply> {
    forbid(&call, &target(&call))?;
    let found = identity.store.list::<Credential>(Query::index("user", call.param("id"))).await?;
    let keys = found.iter().filter(|credential| credential.kind == "ec2");
    let items = keys.map(|credential| shown(&call, identity.store.secrets(), credential)).collect::<Result<_>>()?;
    collection(&call, "credentials", items)
}

/// The id under which the key of the path is kept.
fn id(call: &Call) -> Result<String> {
    ec2_id(&json!({"access": call.param("access")}).to_string())
}

/// The key, if it is that of the user of the path. Who may ask for that user's keys learns that there is none.
fn found(call: &Call, stored: Option<Stored<Credential>>) -> Result<Credential> {
    forbid(call, &target(call))?;
    let own = stored.filter(|credential| credential.user_id.as_str() == call.param("id"));
    own.map(|stored| stored.doc).ok_or_else(|| missing("credential", call.param("access")))
}

async fn show(identity: Arc<Identity>, call: Call) -> Result<Reply> {
    let stored = identity.store.get::<Credential>(&id(&call)?).await?;
    let credential = found(&call, stored)?;
    single(&call, 200, "credential", shown(&call, identity.store.secrets(), &credential)?)
}

async fn create(identity: Arc<Identity>, mut call: Call) -> Result<Reply> {
    forbid(&call, &target(&call))?;
    delegated(&call)?;
    let body: Value = call.json().await?;
    let project = body["tenant_id"].as_str().unwrap_or("").to_owned();
    if project.is_empty() {
        return Err(Fault::invalid("Invalid input for field 'tenant_id': it is a required property."));
    }
    let blob = json!({"access": identity.env.secret_hex(16), "secret": identity.env.secret_hex(16), "trust_id": null});
    let blob = blob.to_string();
    let credential = Credential {
        id: ec2_id(&blob)?,
        kind: "ec2".into(),
        user_id: call.param("id").into(),
        project_id: Some(project.into()),
        blob: blob.into(),
        extra: Extra::new(),
    };
    let shown = shown(&call, identity.store.secrets(), &credential)?;
    let work = move |tx: &mut Tx| {
        tx.get::<User>(&credential.user_id)?.ok_or_else(|| missing("user", &credential.user_id))?;
        let project = credential.project_id.as_deref().unwrap_or("");
        tx.get::<Project>(project)?.ok_or_else(|| missing("project", project))?;
        tx.create(&credential)?;
        Ok(())
    };
    identity.write(&call, work).await?;
    single(&call, 201, "credential", shown)
}

async fn delete(identity: Arc<Identity>, call: Call) -> Result<Reply> {
    let stored = identity.store.get::<Credential>(&id(&call)?).await?;
    let id = found(&call, stored)?.id;
    delegated(&call)?;
    identity.write(&call, move |tx| Ok(tx.delete::<Credential>(&id).map(drop)?)).await?;
    Ok(Reply::empty(204))
}
