//! The extra specs of a type.

use super::{VolumeType, find};
use crate::document::Volume;
use crate::{Ask, Volumes, table};
use base::{Fault, Result};
use rest::{Call, Reply, Route, input};
use serde_json::json;
use std::collections::BTreeMap;
use std::sync::Arc;
use store::{Query, Reader};

/// The most extra specs of a type.
const MOST: usize = 128;
/// What every user may see, in Cinder's words the user visible extra specs.
pub const SEEN_BY_ALL: &[&str] = &["RESKEY:availability_zones", "multiattach", "replication_enabled"];

pub fn routes(state: &Arc<Volumes>) -> Vec<Route> {
    table! { state;
        GET "/v3/{project_id}/types/{type_id}/extra_specs" "extra_specs:list" "volume_extension:types_extra_specs:index" 200 list;
        POST "/v3/{project_id}/types/{type_id}/extra_specs" "extra_specs:create" "volume_extension:types_extra_specs:create" 200 create;
        GET "/v3/{project_id}/types/{type_id}/extra_specs/{key}" "extra_specs:show" "volume_extension:types_extra_specs:show" 200 show;
        PUT "/v3/{project_id}/types/{type_id}/extra_specs/{key}" "extra_specs:update" "volume_extension:types_extra_specs:update" 200 update;
        DELETE "/v3/{project_id}/types/{type_id}/extra_specs/{key}" "extra_specs:delete" "volume_extension:types_extra_specs:delete" 202 delete;
    }
}

/// What a key may have beside letters and digits; with a new type also what comes behind it.
const LEGAL: &str = "-_:.";
pub const LEGAL_WITH_A_TYPE: &str = "-_:. /";

/// What volumes have been made by stays as it is.
fn refuse_in_use(reader: &mut Reader, kind: &VolumeType) -> Result<()> {
    match reader.count::<Volume>(Query::index("type", kind.id.as_str()).limit(1))? {
        0 => Ok(()),
        _ => Err(Fault::invalid("Volume Type is currently in use.")),
    }
}

fn keep(reader: &mut Reader, kind: &mut VolumeType, specs: BTreeMap<String, String>) -> Result<()> {
    refuse_in_use(reader, kind)?;
    kind.extra_specs.extend(specs);
    match kind.extra_specs.len() > MOST {
        true => Err(Fault::invalid(format!("A volume type has at most {MOST} extra specs."))),
        false => Ok(()),
    }
}

async fn list(state: Arc<Volumes>, call: Call) -> Result<Reply> {
    let ask = Ask::of(&call)?;
    ask.enforce_own()?;
    let mut specs = state.read(&ask, find).await?.doc.extra_specs;
    if !ask.may("volume_extension:access_types_extra_specs", &ask.own()) {
        specs.retain(|name, _| SEEN_BY_ALL.contains(&name.as_str()));
    }
    ask.reply(200, &json!({"extra_specs": specs}))
}

async fn create(state: Arc<Volumes>, mut call: Call) -> Result<Reply> {
    let (ask, body) = Ask::read(&mut call).await?;
    ask.enforce_own()?;
    let mut fields = input::Fields::body(&body)?;
    let specs = input::keyed("extra_specs", fields.need("extra_specs")?, LEGAL, 255)?;
    fields.finish()?;
    let made = specs.clone();
    state
        .write(&ask, move |tx, ask| {
            let mut kind = find(tx, ask)?.doc;
            keep(tx, &mut kind, specs.clone())?;
            tx.update(&kind)?;
            Ok(())
        })
        .await?;
    ask.reply(200, &json!({"extra_specs": made}))
}

fn missing(ask: &Ask) -> Fault {
    let (id, key) = (ask.param("type_id"), ask.param("key"));
    Fault::not_found(format!("Volume Type {id} has no extra specs with key {key}."))
}

async fn show(state: Arc<Volumes>, call: Call) -> Result<Reply> {
    let ask = Ask::of(&call)?;
    ask.enforce_own()?;
    let specs = state.read(&ask, find).await?.doc.extra_specs;
    let admin = ask.may("volume_extension:access_types_extra_specs", &ask.own());
    let seen = |name: &str| admin || SEEN_BY_ALL.contains(&name);
    let value = specs.get(ask.param("key")).filter(|_| seen(ask.param("key"))).ok_or_else(|| missing(&ask))?;
    ask.reply(200, &json!({ask.param("key"): value}))
}

async fn update(state: Arc<Volumes>, mut call: Call) -> Result<Reply> {
    let (ask, body) = Ask::read(&mut call).await?;
    ask.enforce_own()?;
    let specs = input::keyed("extra_specs", &body, LEGAL, 255)?;
    if specs.len() != 1 || !specs.contains_key(ask.param("key")) {
        return Err(Fault::invalid("Request body and URI mismatch: name exactly the key of the URI."));
    }
    let made = specs.clone();
    state
        .write(&ask, move |tx, ask| {
            let mut kind = find(tx, ask)?.doc;
            keep(tx, &mut kind, specs.clone())?;
            tx.update(&kind)?;
            Ok(())
        })
        .await?;
    ask.reply(200, &json!(made))
}

async fn delete(state: Arc<Volumes>, call: Call) -> Result<Reply> {
    let ask = Ask::of(&call)?;
    ask.enforce_own()?;
    state
        .write(&ask, |tx, ask| {
            let mut kind = find(tx, ask)?.doc;
            refuse_in_use(tx, &kind)?;
            kind.extra_specs.remove(ask.param("key")).ok_or_else(|| missing(ask))?;
            tx.update(&kind)?;
            Ok(())
        })
        .await?;
    Ok(Reply::empty(202))
}
