//! What the store keeps of metadata definitions.

use base::{Fault, ProjectId, Result, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use store::{Document, Keys, Tx};

/// Most things of one kind in a namespace, most bytes of a namespace as it is kept, and most namespaces.
const PARTS: usize = 1000;
const BYTES: usize = 1 << 20;
pub const NAMESPACES: usize = 2000;

/// A namespace with everything that it defines.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Namespace {
    pub id: String,
    /// Unique in the cloud: it stands in the paths.
    pub name: String,
    pub owner: Option<ProjectId>,
    pub display_name: Option<String>,
    pub description: Option<String>,
    pub public: bool,
    pub protected: bool,
    /// By the name of the resource type.
    #[serde(default)]
    pub associations: BTreeMap<String, Part<Association>>,
    #[serde(default)]
    pub objects: BTreeMap<String, Part<Object>>,
    /// Definitions as [`super::property::read`] lets them through.
    #[serde(default)]
    pub properties: BTreeMap<String, Part<Map<String, Value>>>,
    #[serde(default)]
    pub tags: BTreeMap<String, Part<Tag>>,
}

/// Something in a namespace, with the times that clients see.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Part<T> {
    pub created: Timestamp,
    pub updated: Timestamp,
    #[serde(flatten)]
    pub it: T,
}

impl<T> Part<T> {
    pub fn new(it: T, now: Timestamp) -> Part<T> {
        Part { created: now, updated: now, it }
    }
}

/// How the properties of a namespace are spelled for a resource type.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Association {
    pub prefix: Option<String>,
    pub properties_target: Option<String>,
}

/// Properties that belong together.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Object {
    pub description: Option<String>,
    pub required: Vec<String>,
    pub properties: BTreeMap<String, Map<String, Value>>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Tag {}

impl Namespace {
    /// Writes it, if it is not too much.
    pub fn save(&self, tx: &mut Tx) -> Result<()> {
        let bytes = serde_json::to_vec(self).map_err(|error| Fault::bug("a namespace is no JSON").because(error))?;
        let most = [self.associations.len(), self.objects.len(), self.properties.len(), self.tags.len()];
        if bytes.len() > BYTES || most.into_iter().any(|count| count > PARTS) {
            return Err(Fault::too_large(format!(
                "The namespace {} may have at most {PARTS} objects, properties, tags and resource types each, and \
                 {BYTES} bytes in all; it would have {}.",
                self.name,
                bytes.len()
            )));
        }
        tx.put(self)?;
        Ok(())
    }
}

impl Document for Namespace {
    const KIND: &'static str = "metadef_namespace";

    fn id(&self) -> &str {
        &self.id
    }

    fn project_id(&self) -> &str {
        self.owner.as_deref().unwrap_or("")
    }

    fn keys(&self, keys: &mut Keys) {
        keys.unique("name", [self.name.as_str()]);
    }
}

/// A kind of resource that namespaces are meant for. It stays when no namespace names it any more.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ResourceType {
    pub name: String,
}

impl Document for ResourceType {
    const KIND: &'static str = "metadef_resource_type";
    /// It says nothing, and whoever comes after may have come to name it.
    const UNDO: bool = false;

    fn id(&self) -> &str {
        &self.name
    }
}
