//! OAuth 1.0a (OS-OAUTH1): consumers, programs that users may lend roles to, and the tokens by which they do.
//!
//! A consumer's secret is shown once, when it is made; requests are signed with it, so it is no hash.

mod access;
mod request;
mod tokens;

pub(crate) use request::SignedRequest;

use crate::Identity;
use crate::documents::*;
use crate::fields::Fields;
use crate::listing::{collection, forbid, linked, missing, single};
use crate::project::{pairs, remove_where};
use base::{Fault, Result};
use policy::Target;
use rest::{Call, Reply, Route};
use serde_json::{Value, json};
use std::sync::Arc;
use store::Tx;

pub(crate) fn routes(identity: &Arc<Identity>) -> Vec<Route> {
    let (all, one) = ("/v3/OS-OAUTH1/consumers", "/v3/OS-OAUTH1/consumers/{id}");
    let mut routes = tokens::routes(identity);
    routes.extend(access::routes(identity));
    routes.extend(routes![identity;
        GET all, "consumers:list", "identity:list_consumers", 200, list;
        POST all, "consumers:create", "identity:create_consumer", 201, create;
        GET one, "consumers:show", "identity:get_consumer", 200, show;
        PATCH one, "consumers:update", "identity:update_consumer", 200, update;
        DELETE one, "consumers:delete", "identity:delete_consumer", 204, delete;
    ]);
    routes
}

/// Without the secret.
fn shown(call: &Call, consumer: &Consumer) -> Value {
    let mut object = consumer.extra.clone();
    object.extend(pairs([("id", json!(consumer.id)), ("description", consumer.description.clone())]));
    linked(call, "OS-OAUTH1/consumers", object)
}

async fn list(identity: Arc<Identity>, call: Call) -> Result<Reply> {
    forbid(&call, &Target::new())?;
    let items: Vec<_> = identity.model().consumers.all().map(|consumer| shown(&call, consumer)).collect();
    collection(&call, "consumers", items)
}

fn find(identity: &Identity, call: &Call) -> Result<Arc<Consumer>> {
    forbid(call, &Target::new())?;
    let id = call.param("id");
    identity.model().consumers.get(id).cloned().ok_or_else(|| missing("consumer", id))
}

async fn show(identity: Arc<Identity>, call: Call) -> Result<Reply> {
    let consumer = find(&identity, &call)?;
    single(&call, 200, "consumer", shown(&call, &consumer))
}

/// The secret is ours to choose, once.
fn no_secret(fields: &mut Fields) -> Result<()> {
    match fields.take("secret") {
        None => Ok(()),
        Some(_) => Err(Fault::invalid("Invalid input for field 'secret': the service chooses it.")),
    }
}

async fn create(identity: Arc<Identity>, mut call: Call) -> Result<Reply> {
    forbid(&call, &Target::new())?;
    let mut fields = Fields::read(&mut call, "consumer").await?;
    fields.take("secret");
    let secret = identity.env.secret_hex(32);
    let consumer = Consumer {
        id: identity.env.uuid_hex(),
        description: fields.description()?.unwrap_or(Value::Null),
        secret: secret.as_str().into(),
        extra: fields.rest()?,
    };
    let mut answer = shown(&call, &consumer);
    answer["secret"] = secret.into();
    identity.write(&call, move |tx| Ok(tx.create(&consumer).map(drop)?)).await?;
    single(&call, 201, "consumer", answer)
}

async fn update(identity: Arc<Identity>, mut call: Call) -> Result<Reply> {
    let known = find(&identity, &call)?;
    let mut fields = Fields::read(&mut call, "consumer").await?;
    fields.fixed("id", &json!(known.id))?;
    no_secret(&mut fields)?;
    let description = fields.description()?;
    let (id, extra) = (known.id.clone(), fields.rest()?);
    let work = move |tx: &mut Tx| {
        let mut consumer = tx.get::<Consumer>(&id)?.ok_or_else(|| missing("consumer", &id))?.doc;
        consumer.description = description.clone().unwrap_or(consumer.description);
        consumer.extra.extend(extra.clone());
        tx.update(&consumer)?;
        Ok(consumer)
    };
    let consumer = identity.write(&call, work).await?;
    single(&call, 200, "consumer", shown(&call, &consumer))
}

async fn delete(identity: Arc<Identity>, call: Call) -> Result<Reply> {
    let id = find(&identity, &call)?.id.clone();
    let work = move |tx: &mut Tx| {
        remove_where::<RequestToken>(tx, "consumer", &id)?;
        remove_where::<AccessToken>(tx, "consumer", &id)?;
        Ok(tx.delete::<Consumer>(&id).map(drop)?)
    };
    identity.write(&call, work).await?;
    Ok(Reply::empty(204))
}
