//! Mappings: kept as they were given, after they have been read once, so that a login never meets one that means nothing.

use super::chosen;
use super::rules::Rules;
use crate::Identity;
use crate::documents::*;
use crate::fields::Fields;
use crate::listing::{collection, forbid, linked, missing, single};
use crate::project::{pairs, taken};
use base::Result;
use policy::Target;
use rest::{Call, Reply, Route};
use serde_json::{Value, json};
use std::sync::Arc;
use store::Tx;

pub(super) fn routes(identity: &Arc<Identity>) -> Vec<Route> {
    let (all, one) = ("/v3/OS-FEDERATION/mappings", "/v3/OS-FEDERATION/mappings/{id}");
    routes![identity;
        GET all, "mappings:list", "identity:list_mappings", 200, list;
        PUT one, "mappings:create", "identity:create_mapping", 201, create;
        GET one, "mappings:show", "identity:get_mapping", 200, show;
        PATCH one, "mappings:update", "identity:update_mapping", 200, update;
        DELETE one, "mappings:delete", "identity:delete_mapping", 204, delete;
    ]
}

fn shown(call: &Call, mapping: &Mapping) -> Value {
    let parts = pairs([
        ("id", json!(mapping.id)),
        ("rules", mapping.rules.clone()),
        ("schema_version", json!(mapping.schema_version)),
    ]);
    linked(call, "OS-FEDERATION/mappings", parts.collect())
}

async fn list(identity: Arc<Identity>, call: Call) -> Result<Reply> {
    forbid(&call, &Target::new())?;
    let items: Vec<_> = identity.model().mappings.all().map(|mapping| shown(&call, mapping)).collect();
    collection(&call, "mappings", items)
}

fn find(identity: &Identity, call: &Call) -> Result<Arc<Mapping>> {
    forbid(call, &Target::new())?;
    let id = call.param("id");
    identity.model().mappings.get(id).cloned().ok_or_else(|| missing("mapping", id))
}

async fn show(identity: Arc<Identity>, call: Call) -> Result<Reply> {
    let mapping = find(&identity, &call)?;
    single(&call, 200, "mapping", shown(&call, &mapping))
}

/// What a body says, read. Other attributes are ignored, as in Keystone.
async fn given(call: &mut Call, id: String) -> Result<Mapping> {
    let mut fields = Fields::read(call, "mapping").await?;
    let version = fields.text("schema_version")?.flatten().filter(|version| !version.is_empty());
    let schema_version = version.unwrap_or_else(|| "1.0".into());
    let rules = fields.take("rules").ok_or_else(|| fields.missing("rules"))?;
    Rules::read(&schema_version, &rules)?;
    Ok(Mapping { id, rules, schema_version })
}

async fn create(identity: Arc<Identity>, mut call: Call) -> Result<Reply> {
    forbid(&call, &Target::new())?;
    let id = chosen(&call, "id")?.to_owned();
    let mapping = given(&mut call, id).await?;
    let shown = shown(&call, &mapping);
    let work = move |tx: &mut Tx| taken(tx.create(&mapping).map(drop), "mapping", &mapping.id);
    identity.write(&call, work).await?;
    single(&call, 201, "mapping", shown)
}

async fn update(identity: Arc<Identity>, mut call: Call) -> Result<Reply> {
    let id = find(&identity, &call)?.id.clone();
    let mapping = given(&mut call, id).await?;
    let shown = shown(&call, &mapping);
    let work = move |tx: &mut Tx| {
        tx.get::<Mapping>(&mapping.id)?.ok_or_else(|| missing("mapping", &mapping.id))?;
        Ok(tx.update(&mapping).map(drop)?)
    };
    identity.write(&call, work).await?;
    single(&call, 200, "mapping", shown)
}

/// A protocol may go on naming it, and logs nobody in then: as in Keystone.
async fn delete(identity: Arc<Identity>, call: Call) -> Result<Reply> {
    let id = find(&identity, &call)?.id.clone();
    let work = move |tx: &mut Tx| {
        tx.get::<Mapping>(&id)?.ok_or_else(|| missing("mapping", &id))?;
        Ok(tx.delete::<Mapping>(&id).map(drop)?)
    };
    identity.write(&call, work).await?;
    Ok(Reply::empty(204))
}
