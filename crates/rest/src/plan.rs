//! The answer of a dry run: what a call would have changed, as far as its caller may know.
//!
//! Whoever the rule [`PLAN_RULE`] allows reads everything. Others read the documents and quotas of their own project,
//! without the names of hosts, and of everything else how many documents of which kind; no more than the real call and
//! the lists would have told them.

use crate::{Caller, Reply};
use base::Result;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use store::scope::{Note, Plan};
use store::{Difference, Usage};

/// Who reads a plan whole: the names of hosts, other projects, and who loses traffic.
pub const PLAN_RULE: &str = "nubo:dry_run:admin";

/// What a plan means beyond its documents, for whoever joins the services: who loses traffic, for instance.
#[async_trait::async_trait]
pub trait Effects: Send + Sync {
    /// Called outside of the dry run's scope, so it reads what is committed.
    async fn notes(&self, differences: &[Difference]) -> Result<Vec<Note>>;
}

/// The most documents that are shown; further ones are counted.
const SHOWN: usize = 1000;

/// Fields that name a host, or hold the table of hosts of a fault, in a document of any kind.
const HOST_FIELDS: [&str; 8] =
    ["host", "hosts", "wanted_host", "host_id", "hypervisor_hostname", "details", "decision", "explained"];

/// Makes the answer. `status` is what the real call would have answered.
pub(crate) fn reply(operation: &str, status: u16, plan: &Plan, caller: &Caller, admin: bool) -> Result<Reply> {
    let (mut changes, mut quota) = (Vec::new(), Vec::new());
    let mut others: BTreeMap<&str, u64> = BTreeMap::new();
    let mut more = 0;
    for difference in plan.differences() {
        match difference {
            Difference::Document { kind, id, project_id, before, after } => {
                let own = admin || is_own(caller, &project_id, before.as_ref().or(after.as_ref()));
                if own && changes.len() == SHOWN {
                    more += 1;
                } else if own {
                    changes.push(change(kind, &id, &project_id, before, after, admin));
                } else {
                    *others.entry(kind).or_default() += 1;
                }
            }
            Difference::Ledger { scope, resource, before, after } => {
                if admin || is_own_scope(caller, &scope) {
                    quota.push(usage(&scope, &resource, before, after));
                }
            }
        }
    }
    let mut plan_shown = json!({"operation": operation, "status": status, "changes": changes, "quota": quota});
    if more > 0 {
        plan_shown["more_changes"] = json!(more);
    }
    if !others.is_empty() {
        plan_shown["others"] = json!(others);
    }
    for note in plan.notes() {
        plan_shown[note.name] = if admin { note.admin } else { note.public };
    }
    Reply::json(200, &json!({"dry_run": plan_shown}))
}

/// Whether the document is the caller's: its project's, or, where it has none, its user's.
fn is_own(caller: &Caller, project_id: &str, body: Option<&Value>) -> bool {
    if !project_id.is_empty() {
        return caller.project_id().is_some_and(|own| own.as_str() == project_id);
    }
    let user = body.and_then(|body| body.get("user_id")).and_then(Value::as_str);
    user.is_some_and(|user| !user.is_empty() && user == caller.user_id().as_str())
}

/// Whether a row of the ledger counts what the caller's project or user has: its scope is the id, with words around it.
fn is_own_scope(caller: &Caller, scope: &str) -> bool {
    let own = [caller.project_id().map(|id| id.to_string()), Some(caller.user_id().to_string())];
    scope.split([':', '/']).any(|part| !part.is_empty() && own.iter().flatten().any(|id| id == part))
}

fn change(
    kind: &str,
    id: &str,
    project_id: &str,
    mut before: Option<Value>,
    mut after: Option<Value>,
    admin: bool,
) -> Value {
    if !admin {
        before.iter_mut().chain(&mut after).for_each(hide_hosts);
    }
    let mut shown = json!({"kind": kind, "id": id});
    if !project_id.is_empty() {
        shown["project_id"] = project_id.into();
    }
    let (what, parts) = match (before, after) {
        (None, after) => ("create", vec![("after", after)]),
        (before, None) => ("delete", vec![("before", before)]),
        (Some(before), Some(after)) => ("update", vec![("fields", Some(fields(&before, &after)))]),
    };
    shown["change"] = what.into();
    for (name, value) in parts {
        shown[name] = value.unwrap_or_default();
    }
    shown
}

/// The fields in which two bodies differ, as they were and as they become.
fn fields(before: &Value, after: &Value) -> Value {
    let (Some(old), Some(new)) = (before.as_object(), after.as_object()) else {
        return json!({"": {"before": before, "after": after}});
    };
    let mut differing = Map::new();
    for name in old.keys().chain(new.keys().filter(|name| !old.contains_key(*name))) {
        let (was, is) = (old.get(name), new.get(name));
        if was != is {
            differing.insert(name.clone(), json!({"before": was, "after": is}));
        }
    }
    Value::Object(differing)
}

/// Takes out what names a host, at any depth.
fn hide_hosts(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.retain(|name, _| !HOST_FIELDS.contains(&name.as_str()));
            fields.values_mut().for_each(hide_hosts);
        }
        Value::Array(items) => items.iter_mut().for_each(hide_hosts),
        _ => {}
    }
}

fn usage(scope: &str, resource: &str, before: Option<Usage>, after: Usage) -> Value {
    let before = before.unwrap_or_default();
    let mut shown = json!({
        "scope": scope, "resource": resource, "from": before.used, "to": after.used, "limit": after.limit,
    });
    if before.limit != after.limit {
        shown["limit_before"] = json!(before.limit);
    }
    shown
}
