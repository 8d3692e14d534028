//! Limits: the same numbers in the words that tools for users read.

use super::{defaults, project_scope};
use crate::{Ask, Compute};
use base::Result;
use policy::Target;
use rest::{Access, Call, Change, Method, Reply, Route, Version};
use serde_json::{Value, json};
use std::sync::Arc;

const LIMITS: &[&str] = &["limits:show"];

pub const CHANGES: &[Change] = &[
    Change { since: Version(2, 36), operations: LIMITS, request: None, response: Some(with_network) },
    Change { since: Version(2, 39), operations: LIMITS, request: None, response: Some(with_image_metadata) },
    Change { since: Version(2, 57), operations: LIMITS, request: None, response: Some(with_files) },
];

fn absolute(body: &mut Value) -> &mut Value {
    &mut body["limits"]["absolute"]
}

fn with_files(body: &mut Value) {
    let absolute = absolute(body);
    absolute["maxPersonality"] = json!(5);
    absolute["maxPersonalitySize"] = json!(10_240);
}

fn with_image_metadata(body: &mut Value) {
    let absolute = absolute(body);
    absolute["maxImageMeta"] = absolute["maxServerMeta"].clone();
}

/// The network keeps these itself; Nova shows them as unlimited and unused.
fn with_network(body: &mut Value) {
    let absolute = absolute(body);
    for name in ["maxSecurityGroups", "maxSecurityGroupRules", "maxTotalFloatingIps"] {
        absolute[name] = json!(-1);
    }
    for name in ["totalSecurityGroupsUsed", "totalFloatingIpsUsed"] {
        absolute[name] = json!(0);
    }
}

pub fn routes(state: &Arc<Compute>) -> Vec<Route> {
    vec![Route::new(state, Method::GET, "/limits", "limits:show", Access::Rule("os_compute_api:limits"), 200, show)]
}

async fn show(state: Arc<Compute>, call: Call) -> Result<Reply> {
    let ask = Ask::of(&call);
    ask.enforce_own()?;
    ask.known_query(&["tenant_id", "reserved"])?;
    let own = ask.project_str().unwrap_or("").to_owned();
    let project = ask.query.get("tenant_id").filter(|id| *id != own).map(str::to_owned);
    if let Some(project) = &project {
        ask.enforce_rule("os_compute_api:limits:other_project", &Target::project(project.as_str()))?;
    }
    let project = project.unwrap_or(own);
    let (defaults, usage) = state
        .read(&ask, move |reader, _| Ok((defaults(reader)?, reader.list_usage(&project_scope(&project))?)))
        .await?;
    let limit = |name: &str| {
        let own = usage.get(name).and_then(|usage| usage.limit);
        json!(own.unwrap_or_else(|| defaults.get(name).copied().unwrap_or(-1)))
    };
    let used = |name: &str| json!(usage.get(name).map_or(0, |usage| usage.used));
    let body = json!({"limits": {"rate": [], "absolute": {
        "maxServerMeta": limit("metadata_items"),
        "maxTotalInstances": limit("instances"),
        "maxTotalCores": limit("cores"),
        "maxTotalRAMSize": limit("ram"),
        "maxTotalKeypairs": limit("key_pairs"),
        "maxServerGroups": limit("server_groups"),
        "maxServerGroupMembers": limit("server_group_members"),
        "totalInstancesUsed": used("instances"),
        "totalCoresUsed": used("cores"),
        "totalRAMUsed": used("ram"),
        "totalServerGroupsUsed": 0,
    }}});
    ask.answer(CHANGES, 200, body)
}
