//! Regions: a tree of names.

use crate::Identity;
use crate::documents::*;
use crate::fields::Fields;
use crate::listing::{filtered, forbid, linked, missing, single};
use crate::project::pairs;
use base::{Fault, Result};
use policy::Target;
use rest::{Call, Reply, Route};
use serde_json::{Value, json};
use std::sync::Arc;
use store::{Query, Tx};

const ID_CHARS: usize = 255;
const DEPTH: usize = 32;

pub(super) fn routes(identity: &Arc<Identity>) -> Vec<Route> {
    let (all, one) = ("/v3/regions", "/v3/regions/{id}");
    routes![identity;
        GET all, "regions:list", "identity:list_regions", 200, list;
        POST all, "regions:create", "identity:create_region", 201, create;
        PUT one, "regions:create_named", "identity:create_region", 201, create;
        GET one, "regions:show", "identity:get_region", 200, show;
        PATCH one, "regions:update", "identity:update_region", 200, update;
        DELETE one, "regions:delete", "identity:delete_region", 204, delete;
    ]
}

fn shown(call: &Call, region: &Region) -> Value {
    let mut object = region.extra.clone();
    object.extend(pairs([
        ("id", json!(region.id)),
        ("description", json!(region.description)),
        ("parent_region_id", json!(region.parent_region_id)),
    ]));
    linked(call, "regions", object)
}

async fn list(identity: Arc<Identity>, call: Call) -> Result<Reply> {
    forbid(&call, &Target::new())?;
    let items: Vec<_> = identity.model().regions.all().map(|region| shown(&call, region)).collect();
    filtered(&call, "regions", items, &["parent_region_id"])
}

fn find(identity: &Identity, call: &Call) -> Result<Arc<Region>> {
    forbid(call, &Target::new())?;
    let id = call.param("id");
    identity.model().regions.get(id).cloned().ok_or_else(|| missing("region", id))
}

async fn show(identity: Arc<Identity>, call: Call) -> Result<Reply> {
    let region = find(&identity, &call)?;
    single(&call, 200, "region", shown(&call, &region))
}

async fn create(identity: Arc<Identity>, mut call: Call) -> Result<Reply> {
    forbid(&call, &Target::new())?;
    let mut fields = Fields::read(&mut call, "region").await?;
    let given = fields.text("id")?.flatten().filter(|id| !id.is_empty());
    let named = Some(call.param("id").to_owned()).filter(|id| !id.is_empty());
    if given.is_some() && named.is_some() && given != named {
        return Err(Fault::invalid("The id of the region in the path differs from that in the body."));
    }
    let id = named.or(given).unwrap_or_else(|| identity.env.uuid_hex());
    base::limits::text("id", &id, ID_CHARS)?;
    let region = Region {
        id,
        parent_region_id: fields.text("parent_region_id")?.flatten(),
        description: fields.text("description")?.flatten().unwrap_or_default(),
        extra: fields.rest()?,
    };
    let shown = shown(&call, &region);
    let work = move |tx: &mut Tx| {
        parent(tx, &region)?;
        match tx.create(&region) {
            Err(store::Error::Exists { id, .. }) => Err(crate::duplicate("region", &id)),
            other => Ok(other.map(drop)?),
        }
    };
    identity.write(&call, work).await?;
    single(&call, 201, "region", shown)
}

/// The parent exists and is not below the region itself.
fn parent(tx: &mut Tx, region: &Region) -> Result<()> {
    let mut next = region.parent_region_id.clone();
    for _ in 0..DEPTH {
        let Some(id) = next else { return Ok(()) };
        if id == region.id {
            return Err(Fault::invalid(format!("The region {id} would become its own ancestor.")));
        }
        next = tx.get::<Region>(&id)?.ok_or_else(|| missing("region", &id))?.doc.parent_region_id;
    }
    Err(Fault::invalid(format!("Regions may be nested at most {DEPTH} deep.")))
}

async fn update(identity: Arc<Identity>, mut call: Call) -> Result<Reply> {
    let known = find(&identity, &call)?;
    let mut fields = Fields::read(&mut call, "region").await?;
    fields.fixed("id", &json!(known.id))?;
    let (above, description) = (fields.text("parent_region_id")?, fields.text("description")?);
    let (id, extra) = (known.id.clone(), fields.rest()?);
    let work = move |tx: &mut Tx| {
        let mut region = tx.get::<Region>(&id)?.ok_or_else(|| missing("region", &id))?.doc;
        region.parent_region_id = above.clone().unwrap_or(region.parent_region_id);
        region.description = description.clone().map_or(region.description, Option::unwrap_or_default);
        region.extra.extend(extra.clone());
        parent(tx, &region)?;
        tx.update(&region)?;
        Ok(region)
    };
    let region = identity.write(&call, work).await?;
    single(&call, 200, "region", shown(&call, &region))
}

async fn delete(identity: Arc<Identity>, call: Call) -> Result<Reply> {
    let id = find(&identity, &call)?.id.clone();
    let work = move |tx: &mut Tx| {
        let used =
            tx.count::<Endpoint>(Query::index("region", &*id))? + tx.count::<Region>(Query::index("parent", &*id))?;
        if used > 0 {
            return Err(Fault::forbidden(format!(
                "Unable to delete region {id} because it or its child regions have associated endpoints."
            )));
        }
        crate::project::remove_where::<PolicyAssociation>(tx, "region", &id)?;
        tx.delete::<Region>(&id)?;
        Ok(())
    };
    identity.write(&call, work).await?;
    Ok(Reply::empty(204))
}
