//! QoS specs: what types may ask of hosts and guests beside their extra specs. They are kept and shown; no host acts on
//! them yet.

use crate::listing::Listing;
use crate::types::VolumeType;
use crate::{Ask, Volumes, table};
use base::{Fault, Result};
use rest::input;
use rest::{Call, Reply, Route};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;
use store::{Document, Keys, Query, Reader, Stored, Tx};

/// The most QoS specs of a cloud, and the most keys of one.
const MOST: usize = 1_000;
const KEYS: usize = 128;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Qos {
    pub id: String,
    pub name: String,
    pub consumer: String,
    pub specs: BTreeMap<String, String>,
}

impl Document for Qos {
    const KIND: &'static str = "volume_qos";
    fn id(&self) -> &str {
        &self.id
    }
    fn keys(&self, keys: &mut Keys) {
        keys.unique("name", [&self.name]);
    }
}

pub fn routes(state: &Arc<Volumes>) -> Vec<Route> {
    table! { state;
        GET "/v3/{project_id}/qos-specs" "qos:list" "volume_extension:qos_specs_manage:get_all" 200 list;
        POST "/v3/{project_id}/qos-specs" "qos:create" "volume_extension:qos_specs_manage:create" 200 create;
        GET "/v3/{project_id}/qos-specs/{qos_id}" "qos:show" "volume_extension:qos_specs_manage:get" 200 show;
        PUT "/v3/{project_id}/qos-specs/{qos_id}" "qos:update" "volume_extension:qos_specs_manage:update" 200 update;
        DELETE "/v3/{project_id}/qos-specs/{qos_id}" "qos:delete" "volume_extension:qos_specs_manage:delete" 202 delete;
        PUT "/v3/{project_id}/qos-specs/{qos_id}/delete_keys" "qos:delete_keys" "volume_extension:qos_specs_manage:update" 202 delete_keys;
        GET "/v3/{project_id}/qos-specs/{qos_id}/associations" "qos:associations" "volume_extension:qos_specs_manage:get" 200 associations;
        GET "/v3/{project_id}/qos-specs/{qos_id}/associate" "qos:associate" "volume_extension:qos_specs_manage:update" 202 associate, no_past("it changes something, though it is a GET");
        GET "/v3/{project_id}/qos-specs/{qos_id}/disassociate" "qos:disassociate" "volume_extension:qos_specs_manage:update" 202 disassociate, no_past("it changes something, though it is a GET");
        GET "/v3/{project_id}/qos-specs/{qos_id}/disassociate_all" "qos:disassociate_all" "volume_extension:qos_specs_manage:update" 202 disassociate_all, no_past("it changes something, though it is a GET");
    }
}

const LISTING: Listing = Listing {
    plural: "qos_specs",
    filters: &["id", "name", "consumer"],
    open: None,
    sorts: &["id", "name", "consumer", "created_at"],
    brief: &[],
};

fn view(qos: &Qos) -> Value {
    json!({"id": qos.id, "name": qos.name, "consumer": qos.consumer, "specs": qos.specs})
}

fn find(reader: &mut Reader, ask: &Ask) -> Result<Stored<Qos>> {
    let id = ask.param("qos_id");
    reader.get::<Qos>(id)?.ok_or_else(|| Fault::not_found(format!("No such qos spec {id}.")))
}

fn parse(body: &Value) -> Result<(Option<String>, Option<String>, BTreeMap<String, String>)> {
    let value = body.get("qos_specs").unwrap_or(&Value::Null);
    let map = value.as_object().ok_or_else(|| Fault::invalid("'qos_specs' is a required property"))?;
    let (mut name, mut consumer, mut specs) = (None, None, BTreeMap::new());
    for (key, value) in map {
        match key.as_str() {
            "name" => name = Some(input::name("name", value)?),
            "consumer" => {
                let text = input::text("consumer", value, 1, 255)?;
                if !["front-end", "back-end", "both"].contains(&text.as_str()) {
                    return Err(Fault::invalid("Valid consumer of QoS specs are: ['both', 'front-end', 'back-end']"));
                }
                consumer = Some(text);
            }
            key => {
                base::limits::text("qos_specs", key, 255)?;
                let text = value.as_i64().map(|number| number.to_string());
                specs.insert(key.to_owned(), text.map_or_else(|| input::text(key, value, 0, 255), Ok)?);
            }
        }
    }
    Ok((name, consumer, specs))
}

async fn list(state: Arc<Volumes>, call: Call) -> Result<Reply> {
    let ask = Ask::of(&call)?;
    ask.enforce_own()?;
    let all = state.read(&ask, |reader, _| Ok(reader.list::<Qos>(Query::all())?)).await?;
    ask.reply(200, &LISTING.page(&ask, all.iter().map(|qos| view(qos)).collect(), true)?)
}

fn answer(ask: &Ask, qos: &Qos) -> Result<Reply> {
    let links = ask.links(&format!("/qos-specs/{}", qos.id));
    ask.reply(200, &json!({"qos_specs": view(qos), "links": links}))
}

async fn create(state: Arc<Volumes>, mut call: Call) -> Result<Reply> {
    let (ask, body) = Ask::read(&mut call).await?;
    ask.enforce_own()?;
    let (name, consumer, specs) = parse(&body)?;
    let name = name.ok_or_else(|| Fault::invalid("'name' is a required property"))?;
    let qos = state
        .write(&ask, move |tx, _| {
            if tx.get_unique::<Qos>("name", [&name])?.is_some() {
                return Err(Fault::conflict(format!("QoS specs with name {name} already exists.")));
            }
            if tx.count::<Qos>(Query::all())? >= MOST || specs.len() > KEYS {
                return Err(Fault::too_large(format!(
                    "A cloud has at most {MOST} QoS specs, and each at most {KEYS} keys."
                )));
            }
            let consumer = consumer.clone().unwrap_or_else(|| "back-end".to_owned());
            let qos = Qos { id: tx.uuid(), name: name.clone(), consumer, specs: specs.clone() };
            tx.create(&qos)?;
            Ok(qos)
        })
        .await?;
    answer(&ask, &qos)
}

async fn show(state: Arc<Volumes>, call: Call) -> Result<Reply> {
    let ask = Ask::of(&call)?;
    ask.enforce_own()?;
    let qos = state.read(&ask, find).await?;
    answer(&ask, &qos)
}

async fn update(state: Arc<Volumes>, mut call: Call) -> Result<Reply> {
    let (ask, body) = Ask::read(&mut call).await?;
    ask.enforce_own()?;
    let (_, consumer, specs) = parse(&body)?;
    state
        .write(&ask, move |tx, ask| {
            let mut qos = find(tx, ask)?.doc;
            qos.consumer = consumer.clone().unwrap_or(qos.consumer);
            qos.specs.extend(specs.clone());
            if qos.specs.len() > KEYS {
                return Err(Fault::too_large(format!("QoS specs have at most {KEYS} keys.")));
            }
            tx.update(&qos)?;
            Ok(())
        })
        .await?;
    ask.reply(200, &json!({"qos_specs": body["qos_specs"]}))
}

async fn delete(state: Arc<Volumes>, call: Call) -> Result<Reply> {
    let ask = Ask::of(&call)?;
    ask.enforce_own()?;
    let force = ask.query.boolean("force")?.unwrap_or(false);
    state
        .write(&ask, move |tx, ask| {
            let qos = find(tx, ask)?;
            let kinds = tx.list::<VolumeType>(Query::index("qos", qos.id.as_str()))?;
            if !kinds.is_empty() && !force {
                return Err(Fault::invalid(format!("QoS Specs {} is still associated with entities.", qos.id)));
            }
            for kind in kinds {
                tx.update(&VolumeType { qos: None, ..kind.doc })?;
            }
            Ok(tx.delete::<Qos>(&qos.id).map(drop)?)
        })
        .await?;
    Ok(Reply::empty(202))
}

async fn delete_keys(state: Arc<Volumes>, mut call: Call) -> Result<Reply> {
    let (ask, body) = Ask::read(&mut call).await?;
    ask.enforce_own()?;
    let keys = body.get("keys").and_then(Value::as_array);
    let keys = keys.ok_or_else(|| Fault::invalid("'keys' is a required property"))?;
    let keys: Result<Vec<String>> = keys.iter().map(|key| input::text("keys", key, 1, 255)).collect();
    let keys = keys?;
    state
        .write(&ask, move |tx, ask| {
            let mut qos = find(tx, ask)?.doc;
            for key in &keys {
                let missing =
                    || Fault::invalid(format!("QoS spec {} has no spec with key {key}.", ask.param("qos_id")));
                qos.specs.remove(key).ok_or_else(missing)?;
            }
            tx.update(&qos)?;
            Ok(())
        })
        .await?;
    Ok(Reply::empty(202))
}

async fn associations(state: Arc<Volumes>, call: Call) -> Result<Reply> {
    let ask = Ask::of(&call)?;
    ask.enforce_own()?;
    let kinds = state
        .read(&ask, |reader, ask| {
            let qos = find(reader, ask)?;
            Ok(reader.list::<VolumeType>(Query::index("qos", qos.id.as_str()))?)
        })
        .await?;
    let list: Vec<Value> =
        kinds.iter().map(|kind| json!({"association_type": "volume_type", "name": kind.name, "id": kind.id})).collect();
    ask.reply(200, &json!({"qos_associations": list}))
}

/// Cinder changes with a GET here; that it names no dry run is its own, too.
async fn change(
    state: Arc<Volumes>,
    call: Call,
    change: impl Fn(&mut Tx, &Ask, &Qos) -> Result<()> + Send + Sync + 'static,
) -> Result<Reply> {
    let ask = Ask::of(&call)?;
    ask.enforce_own()?;
    state
        .write(&ask, move |tx, ask| {
            let qos = find(tx, ask)?;
            change(tx, ask, &qos)
        })
        .await?;
    Ok(Reply::empty(202))
}

fn named(tx: &mut Tx, ask: &Ask) -> Result<Stored<VolumeType>> {
    let id = ask.query.get("vol_type_id").ok_or_else(|| Fault::invalid("Volume Type id must not be None."))?;
    tx.get::<VolumeType>(id)?.ok_or_else(|| Fault::not_found(format!("Volume type {id} could not be found.")))
}

async fn associate(state: Arc<Volumes>, call: Call) -> Result<Reply> {
    change(state, call, |tx, ask, qos| {
        let kind = named(tx, ask)?;
        if kind.qos.as_ref().is_some_and(|known| *known != qos.id) {
            return Err(Fault::invalid(format!("Type {} is already associated with another qos specs.", kind.id)));
        }
        Ok(tx.update(&VolumeType { qos: Some(qos.id.clone()), ..kind.doc }).map(drop)?)
    })
    .await
}

async fn disassociate(state: Arc<Volumes>, call: Call) -> Result<Reply> {
    change(state, call, |tx, ask, _| {
        let kind = named(tx, ask)?;
        Ok(tx.update(&VolumeType { qos: None, ..kind.doc }).map(drop)?)
    })
    .await
}

async fn disassociate_all(state: Arc<Volumes>, call: Call) -> Result<Reply> {
    change(state, call, |tx, _, qos| {
        for kind in tx.list::<VolumeType>(Query::index("qos", qos.id.as_str()))? {
            tx.update(&VolumeType { qos: None, ..kind.doc })?;
        }
        Ok(())
    })
    .await
}
