//! Quota sets: a project's limits and its use of them.

use super::{OF_FILES, OF_NETWORK, RESOURCES, defaults, member_scope, project_scope};
use crate::input::drop_field;
use crate::{Ask, Compute, ask, input};
use base::{Fault, Result};
use policy::Target;
use rest::{Access, Call, Method, Reply, Route, Version};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;
use store::{Reader, Usage};

/// What a version no longer shows, nor takes. Fields go here by version and name: a table of changes would say the
/// same for each operation.
pub fn hidden(version: Version, network_until: Version) -> Vec<&'static str> {
    let mut hidden = Vec::new();
    if version >= network_until {
        hidden.extend(OF_NETWORK);
    }
    if version >= Version(2, 57) {
        hidden.extend(OF_FILES);
    }
    hidden
}

fn shown(ask: &Ask, mut set: Value) -> Value {
    for name in hidden(ask.version, Version(2, 36)) {
        drop_field(&mut set, name);
    }
    set
}

pub fn routes(state: &Arc<Compute>) -> Vec<Route> {
    let rule = |name| Access::Rule(name);
    let one = "/os-quota-sets/{project_id}";
    vec![
        Route::new(state, Method::GET, one, "quotas:show", rule("os_compute_api:os-quota-sets:show"), 200, show),
        Route::new(
            state,
            Method::GET,
            "/os-quota-sets/{project_id}/detail",
            "quotas:detail",
            rule("os_compute_api:os-quota-sets:detail"),
            200,
            detail,
        ),
        Route::new(
            state,
            Method::GET,
            "/os-quota-sets/{project_id}/defaults",
            "quotas:defaults",
            rule("os_compute_api:os-quota-sets:defaults"),
            200,
            show_defaults,
        ),
        Route::new(state, Method::PUT, one, "quotas:update", rule("os_compute_api:os-quota-sets:update"), 200, update),
        Route::new(
            state,
            Method::DELETE,
            one,
            "quotas:delete",
            rule("os_compute_api:os-quota-sets:delete"),
            202,
            delete,
        ),
    ]
}

/// The limits that hold where a row has none, and the rows: of the project, or of one user in it.
fn rows(reader: &mut Reader, ask: &Ask) -> Result<(BTreeMap<String, i64>, BTreeMap<String, Usage>)> {
    let project = ask.param("project_id");
    let (mut limits, usage) = (defaults(reader)?, reader.list_usage(&project_scope(project))?);
    let Some(user) = ask.query.get("user_id") else { return Ok((limits, usage)) };
    // A user may have what the project may, unless told otherwise.
    limits.extend(usage.iter().filter_map(|(name, usage)| Some((name.clone(), usage.limit?))));
    Ok((limits, reader.list_usage(&member_scope(project, user))?))
}

/// Whose limits are changed.
fn scope(ask: &Ask) -> String {
    let project = ask.param("project_id");
    ask.query.get("user_id").map_or_else(|| project_scope(project), |user| member_scope(project, user))
}

fn limit(defaults: &BTreeMap<String, i64>, usage: &BTreeMap<String, Usage>, name: &str) -> i64 {
    let own = usage.get(name).and_then(|usage| usage.limit);
    own.unwrap_or_else(|| defaults.get(name).copied().unwrap_or(-1))
}

async fn get(state: &Compute, ask: &Ask) -> Result<(BTreeMap<String, i64>, BTreeMap<String, Usage>)> {
    ask.enforce(&Target::project(ask.param("project_id")))?;
    ask.known_query(&["user_id"])?;
    state.read(ask, rows).await
}

async fn show(state: Arc<Compute>, call: Call) -> Result<Reply> {
    let ask = Ask::of(&call);
    let (defaults, usage) = get(&state, &ask).await?;
    let mut set: Map<String, Value> =
        RESOURCES.iter().map(|(name, _)| ((*name).to_owned(), json!(limit(&defaults, &usage, name)))).collect();
    set.insert("id".to_owned(), json!(ask.param("project_id")));
    Reply::json(200, &json!({"quota_set": shown(&ask, Value::Object(set))}))
}

async fn detail(state: Arc<Compute>, call: Call) -> Result<Reply> {
    let ask = Ask::of(&call);
    let (defaults, usage) = get(&state, &ask).await?;
    let entry = |name: &str| {
        // Key pairs are counted by user and shown as unused here, as Nova does.
        let used = usage.get(name).map_or(0, |usage| usage.used);
        json!({"limit": limit(&defaults, &usage, name), "in_use": used, "reserved": 0})
    };
    let mut set: Map<String, Value> = RESOURCES.iter().map(|(name, _)| ((*name).to_owned(), entry(name))).collect();
    set.insert("id".to_owned(), json!(ask.param("project_id")));
    Reply::json(200, &json!({"quota_set": shown(&ask, Value::Object(set))}))
}

async fn show_defaults(state: Arc<Compute>, call: Call) -> Result<Reply> {
    let ask = Ask::of(&call);
    ask.enforce_own()?;
    let defaults = state.read(&ask, |reader, _| defaults(reader)).await?;
    let mut set = json!(defaults);
    set["id"] = json!(ask.param("project_id"));
    Reply::json(200, &json!({"quota_set": shown(&ask, set)}))
}

/// The limits of a body. `known` are the names that this version takes.
pub fn parse_limits(fields: &mut input::Fields<'_>, hidden: &[&str]) -> Result<BTreeMap<String, i64>> {
    let mut limits = BTreeMap::new();
    for (name, _) in RESOURCES.iter().filter(|(name, _)| !hidden.contains(name)) {
        if let Some(limit) = fields.integer(name, -1, 0x7fff_ffff)? {
            limits.insert((*name).to_owned(), limit);
        }
    }
    Ok(limits)
}

async fn update(state: Arc<Compute>, mut call: Call) -> Result<Reply> {
    let (ask, body) = ask::read(&mut call, &[]).await?;
    ask.enforce(&Target::project(ask.param("project_id")))?;
    let mut outer = input::Fields::body(&body)?;
    let mut fields = outer.object("quota_set")?;
    outer.finish()?;
    let limits = parse_limits(&mut fields, &hidden(ask.version, Version(2, 36)))?;
    let force = fields.boolean("force")?.unwrap_or(false);
    fields.finish()?;
    let (defaults, usage) = state
        .write(&ask, move |tx, ask| {
            let scope = scope(ask);
            for (name, limit) in &limits {
                let used = tx.usage(&scope, name)?.used;
                if !force && *limit >= 0 && *limit < used {
                    return Err(Fault::invalid(format!(
                        "Quota limit {limit} for {name} must be greater than or equal to already used and reserved {used}."
                    )));
                }
                tx.set_limit(&scope, name, Some(*limit))?;
            }
            rows(tx, ask)
        })
        .await?;
    let set: Map<String, Value> =
        RESOURCES.iter().map(|(name, _)| ((*name).to_owned(), json!(limit(&defaults, &usage, name)))).collect();
    Reply::json(200, &json!({"quota_set": shown(&ask, Value::Object(set))}))
}

async fn delete(state: Arc<Compute>, call: Call) -> Result<Reply> {
    let ask = Ask::of(&call);
    ask.enforce(&Target::project(ask.param("project_id")))?;
    state
        .write(&ask, |tx, ask| {
            for (name, _) in RESOURCES {
                tx.set_limit(&scope(ask), name, None)?;
            }
            Ok(())
        })
        .await?;
    Ok(Reply::empty(202))
}
