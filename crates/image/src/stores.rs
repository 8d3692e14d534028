//! The stores as clients see them: which there are, and which of them hold an image.

use crate::data::{Store, Stores};
use crate::document::{Image, Status};
use crate::images::find;
use crate::images::ops::only_projects;
use crate::{Service, quota};
use base::{Fault, ImageId, Result};
use policy::Target;
use rest::{Call, Reply};
use serde_json::{Map, Value, json};
use std::sync::Arc;

fn view(stores: &Stores, store: &Store) -> Value {
    let mut view = json!({"id": store.id, "description": store.description});
    if store.id == stores.default() {
        view["default"] = json!("true");
    }
    view
}

pub async fn list(service: Arc<Service>, call: Call) -> Result<Reply> {
    only_projects(&call)?;
    let views: Vec<Value> = service.stores.iter().map(|store| view(&service.stores, store)).collect();
    Reply::json(200, &json!({"stores": views}))
}

/// What administrators see as well. Where on a disk a store lies is nobody's business.
pub async fn detail(service: Arc<Service>, call: Call) -> Result<Reply> {
    only_projects(&call)?;
    call.enforce(&Target::project(call.caller.project_id().as_deref()))?;
    let detailed = service.stores.iter().map(|store| {
        let mut view = view(&service.stores, store);
        (view["type"], view["weight"]) = (json!(store.kind()), json!(store.weight));
        // An image of RBD has no objects where its bytes are zeroes.
        view["properties"] = json!({"thin_provisioning": store.kind() == "rbd"});
        view
    });
    Reply::json(200, &json!({"stores": detailed.collect::<Vec<_>>()}))
}

/// The stores that an import names, in its order, and whether it named all; the default one where it names none.
pub fn asked(service: &Service, body: &Map<String, Value>, header: Option<&str>) -> Result<(Vec<String>, bool)> {
    let flag = |name: &str| match body.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::Bool(flag)) => Ok(Some(*flag)),
        Some(_) => Err(Fault::invalid(format!("'{name}' must be boolean value only"))),
    };
    let all = flag("all_stores")?.unwrap_or(false);
    flag("all_stores_must_succeed")?;
    let named = match body.get("stores").filter(|named| !named.is_null()) {
        None => None,
        Some(_) if all => return Err(Fault::invalid("Stores parameter is not allowed when 'all_stores' is True")),
        Some(Value::Array(named)) => Some(named.clone()),
        Some(_) => return Err(Fault::invalid("'stores' must be a list of store identifiers")),
    };
    if all {
        return Ok((service.stores.ids(), true));
    }
    let named = named.or_else(|| header.map(|store| vec![json!(store)]));
    let named = named.unwrap_or_else(|| vec![json!(service.stores.default())]);
    let mut stores = Vec::new();
    for one in named.iter().take(64) {
        let known = one.as_str().and_then(|id| service.stores.get(id));
        let Some(store) = known else {
            let (shown, ids): (String, _) = (one.to_string().chars().take(100).collect(), service.stores.ids());
            return Err(Fault::conflict(format!("There is no store {shown}; there are: {}.", ids.join(", "))));
        };
        if !stores.contains(&store.id) {
            stores.push(store.id.clone());
        }
    }
    if stores.is_empty() {
        return Err(Fault::invalid("'stores' names no store"));
    }
    Ok((stores, false))
}

/// Takes the copy out of one store. The last one is never taken.
pub async fn delete(service: Arc<Service>, call: Call) -> Result<Reply> {
    let (id, cause) = (ImageId::new(call.param("image_id")), call.cause());
    let (quota, known) = (service.options.quota.clone(), service.stores.get(call.param("store_id")).is_some());
    let deleted = service.store.write(cause, move |tx| {
        let store = call.param("store_id");
        let before = find(tx, &call, call.param("image_id"), call.rule)?.doc;
        if !known {
            return Err(Fault::not_found(format!("Store '{store}' is not known.")));
        }
        if before.status != Status::Active || before.copying.is_some() {
            return Err(Fault::conflict(format!("Image {} is not active, or is being copied.", before.id)));
        }
        let mut image: Image = before.clone();
        let stores = image.contents.as_mut().map(|contents| &mut contents.stores);
        let stores = stores.ok_or_else(|| Fault::conflict(format!("Image {} has no bytes.", before.id)))?;
        if !stores.iter().any(|one| one == store) {
            return Err(Fault::not_found(format!("Image {} is not stored on store '{store}'.", before.id)));
        }
        if stores.len() == 1 {
            return Err(Fault::forbidden(format!("Image {} has no other copy; delete the image instead.", before.id)));
        }
        stores.retain(|one| one != store);
        quota::settle(tx, &quota, Some(&before), Some(&image))?;
        tx.update(&image)?;
        Ok(())
    });
    deleted.await?;
    if !store::scope::is_dry() {
        service.reclaim(&id).await;
    }
    Ok(Reply::empty(204))
}
