//! Policies: texts in whatever language, kept for the endpoints of services ([`association`]). Nothing here reads them,
//! and they decide nothing: the rights of this cloud stand in its policy file.

mod association;

use crate::Identity;
use crate::documents::*;
use crate::fields::Fields;
use crate::listing::{filtered, forbid, linked, missing, single};
use crate::project::{pairs, remove_where};
use base::{Fault, Result};
use policy::Target;
use rest::{Call, Reply, Route};
use serde_json::{Value, json};
use std::sync::Arc;
use store::Tx;

pub(crate) fn routes(identity: &Arc<Identity>) -> Vec<Route> {
    let (all, one) = ("/v3/policies", "/v3/policies/{id}");
    let mut routes = association::routes(identity);
    routes.extend(routes![identity;
        GET all, "policies:list", "identity:list_policies", 200, list;
        POST all, "policies:create", "identity:create_policy", 201, create;
        GET one, "policies:show", "identity:get_policy", 200, show;
        PATCH one, "policies:update", "identity:update_policy", 200, update;
        DELETE one, "policies:delete", "identity:delete_policy", 204, delete;
    ]);
    routes
}

fn shown(call: &Call, policy: &PolicyText) -> Value {
    let mut object = policy.extra.clone();
    object.extend(pairs([("id", json!(policy.id)), ("type", json!(policy.kind)), ("blob", json!(policy.blob))]));
    linked(call, "policies", object)
}

async fn list(identity: Arc<Identity>, call: Call) -> Result<Reply> {
    forbid(&call, &Target::new())?;
    let items: Vec<_> = identity.model().policies.all().map(|policy| shown(&call, policy)).collect();
    filtered(&call, "policies", items, &["type"])
}

fn find(identity: &Identity, call: &Call) -> Result<Arc<PolicyText>> {
    forbid(call, &Target::new())?;
    let id = call.param("id");
    identity.model().policies.get(id).cloned().ok_or_else(|| missing("policy", id))
}

async fn show(identity: Arc<Identity>, call: Call) -> Result<Reply> {
    let policy = find(&identity, &call)?;
    single(&call, 200, "policy", shown(&call, &policy))
}

fn blob(fields: &mut Fields) -> Result<Option<String>> {
    let given = fields.text("blob")?;
    given
        .map(|text| text.ok_or_else(|| Fault::invalid("Invalid input for field 'blob': null is not a string.")))
        .transpose()
}

async fn create(identity: Arc<Identity>, mut call: Call) -> Result<Reply> {
    forbid(&call, &Target::new())?;
    let mut fields = Fields::read(&mut call, "policy").await?;
    let policy = PolicyText {
        id: identity.env.uuid_hex(),
        kind: fields.need_name("type", 255)?,
        blob: blob(&mut fields)?.ok_or_else(|| fields.missing("blob"))?,
        extra: fields.rest()?,
    };
    let shown = shown(&call, &policy);
    identity.write(&call, move |tx| Ok(tx.create(&policy).map(drop)?)).await?;
    single(&call, 201, "policy", shown)
}

async fn update(identity: Arc<Identity>, mut call: Call) -> Result<Reply> {
    let known = find(&identity, &call)?;
    let mut fields = Fields::read(&mut call, "policy").await?;
    fields.fixed("id", &json!(known.id))?;
    let (kind, blob) = (fields.name("type", 255)?, blob(&mut fields)?);
    let (id, extra) = (known.id.clone(), fields.rest()?);
    let work = move |tx: &mut Tx| {
        let mut policy = tx.get::<PolicyText>(&id)?.ok_or_else(|| missing("policy", &id))?.doc;
        policy.kind = kind.clone().unwrap_or(policy.kind);
        policy.blob = blob.clone().unwrap_or(policy.blob);
        policy.extra.extend(extra.clone());
        tx.update(&policy)?;
        Ok(policy)
    };
    let policy = identity.write(&call, work).await?;
    single(&call, 200, "policy", shown(&call, &policy))
}

async fn delete(identity: Arc<Identity>, call: Call) -> Result<Reply> {
    let id = find(&identity, &call)?.id.clone();
    let work = move |tx: &mut Tx| {
        tx.get::<PolicyText>(&id)?.ok_or_else(|| missing("policy", &id))?;
        remove_where::<PolicyAssociation>(tx, "policy", &id)?;
        Ok(tx.delete::<PolicyText>(&id).map(drop)?)
    };
    identity.write(&call, work).await?;
    Ok(Reply::empty(204))
}
