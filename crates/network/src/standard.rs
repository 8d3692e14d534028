//! What every resource has, and small helpers around documents.

use crate::attr::Input;
use base::{Result, Timestamp};
use rest::Caller;
use policy::{Policy, Target};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::sync::Arc;
use store::{Document, Query, Reader, Tx};

use crate::{Network, error};

/// Neutron's standard attributes.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Standard {
    pub description: String,
    /// Sorted, without duplicates.
    pub tags: Vec<String>,
    /// Neutron's own counter: raised by changes of the object and of its children.
    pub revision: u64,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
}

impl Standard {
    pub fn new(tx: &Tx, input: &Input) -> Standard {
        let mut tags = input.texts("tags").unwrap_or_default();
        tags.sort();
        tags.dedup();
        let description = input.text("description").unwrap_or("").to_owned();
        Standard { description, tags, revision: 1, created_at: tx.now(), updated_at: tx.now() }
    }

    pub fn update(&mut self, input: &Input) {
        if input.has("description") {
            self.description = input.text("description").unwrap_or("").to_owned();
        }
    }

    pub fn touch(&mut self, now: Timestamp) {
        self.revision += 1;
        self.updated_at = now;
    }

    pub fn show(&self, object: &mut Map<String, Value>) {
        object.insert("description".into(), self.description.clone().into());
        object.insert("tags".into(), self.tags.clone().into());
        object.insert("revision_number".into(), self.revision.into());
        object.insert("created_at".into(), self.created_at.iso_seconds().into());
        object.insert("updated_at".into(), self.updated_at.iso_seconds().into());
    }
}

/// Who asks, and by which rules. Cheap to clone: closures of transactions own one.
#[derive(Clone)]
pub struct Ctx {
    pub net: Arc<Network>,
    pub caller: Arc<Caller>,
    pub policy: Arc<Policy>,
}

impl Ctx {
    pub fn may(&self, rule: &str, target: &Target) -> bool {
        self.policy.allows(rule, &self.caller.credentials, target)
    }

    /// Forbidden, with Neutron's name for it.
    pub fn require(&self, rule: &str, target: &Target) -> Result<()> {
        if self.may(rule, target) { Ok(()) } else { Err(error::not_authorized(rule)) }
    }

    /// The administrator sees and owns everything.
    pub fn is_admin(&self) -> bool {
        self.may("context_is_admin", &Target::new())
    }

    /// The project of the token's scope; empty for other scopes.
    pub fn project(&self) -> &str {
        self.caller.credentials.project_id.as_deref().unwrap_or("")
    }

    /// Whose a new object shall be.
    pub fn owner(&self, input: &Input) -> Result<String> {
        let asked = input.text("project_id").or_else(|| input.text("tenant_id"));
        match asked {
            Some(asked) if asked != self.project() && !self.is_admin() => Err(error::bad_request(
                "Specifying 'project_id' or 'tenant_id' other than the authenticated project in request requires admin privileges",
            )),
            Some(asked) => Ok(asked.to_owned()),
            None if self.project().is_empty() => {
                Err(error::bad_request("The token is not scoped to a project, so a project_id must be specified"))
            }
            None => Ok(self.project().to_owned()),
        }
    }
}

/// Reading documents without their envelope.
pub trait Look {
    fn doc<D: Document>(&mut self, id: &str) -> Result<Option<D>>;
    fn docs<D: Document>(&mut self, query: Query) -> Result<Vec<D>>;

    fn by<D: Document>(&mut self, index: &'static str, value: &str) -> Result<Vec<D>> {
        self.docs(Query::index(index, value))
    }

    /// The first document of an index value.
    fn first<D: Document>(&mut self, index: &'static str, value: &str) -> Result<Option<D>> {
        Ok(self.docs(Query::index(index, value).limit(1))?.pop())
    }
}

impl Look for Reader {
    fn doc<D: Document>(&mut self, id: &str) -> Result<Option<D>> {
        // Ids come from outside: what cannot be a key names nothing.
        if id.is_empty() || id.len() > 255 || id.contains('\0') {
            return Ok(None);
        }
        Ok(self.get::<D>(id)?.map(|stored| stored.doc))
    }

    fn docs<D: Document>(&mut self, query: Query) -> Result<Vec<D>> {
        Ok(self.list::<D>(query)?.into_iter().map(|stored| stored.doc).collect())
    }
}

/// Charges a project's ledger; Neutron's OverQuota when that would pass the limit.
pub fn charge(tx: &mut Tx, project: &str, resource: &'static str, delta: i64) -> Result<()> {
    match tx.charge(project, resource, delta, crate::quotas::default_limit(resource)) {
        Ok(_) => Ok(()),
        Err(fault @ store::Error::Quota { .. }) => Err(error::over_quota(resource).because(fault)),
        Err(fault) => Err(fault.into()),
    }
}

/// The object that `json!({…})` makes.
pub fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(map) => map,
        _ => Map::new(),
    }
}
