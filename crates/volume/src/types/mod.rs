//! Volume types: what a volume shall be like, and who may ask for it.
//!
//! A type that is not public exists only for the projects that were let in, and for administrators.

mod ops;
mod specs;

use crate::{Ask, Volumes};
use base::{Fault, ProjectId, Result};
use rest::Route;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use store::{Document, Keys, Reader, Stored, Tx};

/// The type of volumes that name none.
const DEFAULT: &str = "__DEFAULT__";

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct VolumeType {
    pub id: String,
    pub name: String,
    pub description: Option<String>,
    pub public: bool,
    pub extra_specs: BTreeMap<String, String>,
    /// The projects that may use it beside everybody, or instead.
    pub access: BTreeSet<ProjectId>,
    pub qos: Option<String>,
}

impl Document for VolumeType {
    const KIND: &'static str = "volume_type";
    fn id(&self) -> &str {
        &self.id
    }
    fn keys(&self, keys: &mut Keys) {
        keys.unique("name", [&self.name]);
        if let Some(qos) = &self.qos {
            keys.index("qos", qos.as_str());
        }
    }
}

pub fn routes(state: &Arc<Volumes>) -> Vec<Route> {
    [ops::routes(state), specs::routes(state)].concat()
}

pub fn default_type(reader: &mut Reader) -> Result<Option<Stored<VolumeType>>> {
    Ok(reader.get_unique::<VolumeType>("name", [DEFAULT])?)
}

/// What anybody may see of a type.
pub fn brief(reader: &mut Reader, id: &str) -> Result<Value> {
    let Some(kind) = reader.get::<VolumeType>(id)? else { return Ok(Value::Null) };
    Ok(json!({"id": kind.id, "name": kind.name, "description": kind.description, "is_public": kind.public}))
}

pub fn make_default(tx: &mut Tx) -> Result<()> {
    if default_type(tx)?.is_some() {
        return Ok(());
    }
    let kind = VolumeType {
        id: tx.uuid(),
        name: DEFAULT.to_owned(),
        description: Some("Default Volume Type".to_owned()),
        public: true,
        extra_specs: BTreeMap::new(),
        access: BTreeSet::new(),
        qos: None,
    };
    tx.create(&kind)?;
    Ok(())
}

/// Volumes of a type with this extra spec are made to stand on nothing but themselves.
pub fn flattens(specs: &BTreeMap<String, String>) -> bool {
    let told = specs.get("nubo:flatten").map(|told| told.strip_prefix("<is> ").unwrap_or(told));
    told.is_some_and(|told| told.eq_ignore_ascii_case("true"))
}

pub fn visible(ask: &Ask, kind: &VolumeType) -> bool {
    kind.public || ask.is_admin() || ask.caller.project_id().is_some_and(|own| kind.access.contains(&own))
}

/// A type by id or name that the caller may use; that of volumes that name none where none is named.
pub fn wanted(reader: &mut Reader, ask: &Ask, named: Option<&str>) -> Result<Stored<VolumeType>> {
    let Some(named) = named else {
        return default_type(reader)?.ok_or_else(|| Fault::invalid("There is no default volume type: name one."));
    };
    let found = match reader.get::<VolumeType>(named)? {
        Some(found) => Some(found),
        None => reader.get_unique::<VolumeType>("name", [named])?,
    };
    let found = found.filter(|kind| visible(ask, kind));
    found.ok_or_else(|| Fault::not_found(format!("Volume type with name {named:.255} could not be found.")))
}

fn find(reader: &mut Reader, ask: &Ask) -> Result<Stored<VolumeType>> {
    let id = ask.param("type_id");
    let found = reader.get::<VolumeType>(id)?.filter(|kind| visible(ask, kind));
    found.ok_or_else(|| Fault::not_found(format!("Volume type {id} could not be found.")))
}
