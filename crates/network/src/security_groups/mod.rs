//! Security groups and their rules. What no rule allows is dropped; answers to what was allowed pass.
//!
//! Rules: each project has a group `default`, made with its rules in the transaction that first needs it; it can
//! neither be removed nor renamed. No two equal rules in one group (a unique key). The default group and the rules that
//! a new group starts with count against no quota: nobody asked for them.

mod default;
mod ops;
pub mod protocol;
mod rules;

use crate::attr::{Attr, Input, Kind};
use crate::crud_routes;
use crate::resource::{Info, Resource};
use crate::standard::{Ctx, Look, Standard, object};
use crate::{Network as Service, error, resource};
use base::{Fault, ProjectId, Result, SecurityGroupId};
use rest::{Call, Reply, Route};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use std::sync::Arc;
use store::{Document, Keys, Reader, Tx};

pub(crate) use default::{ensure_default, find_by_name_or_id};
pub use rules::{Direction, SecurityGroupRule};

pub const DEFAULT: &str = "default";

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SecurityGroup {
    pub id: SecurityGroupId,
    pub project_id: ProjectId,
    pub name: String,
    pub stateful: bool,
    /// The project's `default`.
    pub is_default: bool,
    pub standard: Standard,
}

impl Document for SecurityGroup {
    const KIND: &'static str = "security_group";
    const COUNTERS: &'static [&'static str] = crate::undo::COUNTERS;

    fn id(&self) -> &str {
        &self.id
    }

    fn costs(&self, costs: &mut store::Costs) {
        if !self.is_default {
            costs.add(&self.project_id, "security_group", 1);
        }
    }

    fn restored(&mut self, now: base::Timestamp, replaced: Option<&Self>) {
        crate::undo::touch_standard(&mut self.standard, now, replaced.map(|it| &it.standard));
    }

    fn undone(tx: &mut Tx, before: Option<&Self>, after: Option<&Self>) -> Result<()> {
        crate::undo::group(tx, before, after)
    }

    fn project_id(&self) -> &str {
        &self.project_id
    }

    fn keys(&self, keys: &mut Keys) {
        if self.is_default {
            keys.unique("default", [self.project_id.as_str()]);
        }
    }
}

const ATTRS: &[Attr] = &[
    Attr::new("name", Kind::Custom(group_name)),
    Attr::new("stateful", Kind::Bool),
    Attr::fixed("shared"),
    Attr::fixed("security_group_rules"),
];

/// A group can only be called `default` by us.
fn group_name(value: Value) -> Result<Value, String> {
    match value.as_str() {
        Some(text) if text.chars().count() <= 255 && !text.contains('\0') => Ok(value),
        Some(text) => Err(format!("'{text:.40}' exceeds maximum length of 255")),
        None => Err(format!("'{}' is not a valid string", crate::attr::shown(&value))),
    }
}

impl Resource for SecurityGroup {
    const INFO: Info = Info { one: "security_group", many: "security_groups", attrs: ATTRS, filters: &[] };

    fn standard(&self) -> &Standard {
        &self.standard
    }

    fn standard_mut(&mut self) -> &mut Standard {
        &mut self.standard
    }

    fn not_found(id: &str) -> Fault {
        error::security_group_not_found(id)
    }

    fn show(&self, reader: &mut Reader, _net: &crate::Network) -> Result<Map<String, Value>> {
        let rules: Vec<SecurityGroupRule> = reader.by("group", &self.id)?;
        let rules = rules.iter().map(|rule| rule.whole(self)).collect::<Vec<_>>();
        Ok(object(json!({
            "name": self.name,
            "stateful": self.stateful,
            "shared": false,
            "security_group_rules": rules,
        })))
    }

    fn create(tx: &mut Tx, ctx: &Ctx, project: &str, input: &Input) -> Result<SecurityGroup> {
        ops::create(tx, ctx, project, input)
    }

    fn update(&mut self, tx: &mut Tx, ctx: &Ctx, input: &Input) -> Result<()> {
        ops::update(self, tx, ctx, input)
    }

    fn delete(self, tx: &mut Tx, ctx: &Ctx) -> Result<()> {
        ops::delete(self, tx, ctx)
    }
}

/// Lists groups; a project that has none yet gets its default first, as in Neutron.
async fn list(net: Arc<Service>, call: Call) -> Result<Reply> {
    let project = net.ctx(&call).project().to_owned();
    // The past is shown as it was.
    if !project.is_empty() && store::scope::as_of().is_none() {
        let wanted = project.clone();
        let known = net.read(move |reader| {
            Ok(reader.get_unique::<SecurityGroup>("default", [wanted.as_str()])?.is_some())
        }).await?;
        if !known {
            net.write(call.cause(), move |tx| ensure_default(tx, &project).map(drop)).await?;
        }
    }
    resource::list::<SecurityGroup>(net, call).await
}

pub fn routes(net: &Arc<Service>) -> Vec<Route> {
    let mut all = crud_routes!(net, SecurityGroup, "security-groups", "security_group");
    all.retain(|route| route.operation != "security_group:list");
    all.push(resource::plain(net, rest::Method::GET, "/v2.0/security-groups", "security_group:list", "get_security_group", 200, list));
    all.extend(crud_routes!(net, SecurityGroupRule, "security-group-rules", "security_group_rule"));
    all
}
