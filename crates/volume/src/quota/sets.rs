//! Quota sets and the class of defaults.

use super::{QuotaClass, RESOURCES, defaults, rows, scope};
use crate::{Ask, Volumes, table};
use base::{Fault, Result};
use policy::Target;
use rest::input::{self, Fields};
use rest::{Call, Reply, Route};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;
use store::{Reader, Tx, Usage};

const MOST: i64 = 0x7fff_ffff;

pub fn routes(state: &Arc<Volumes>) -> Vec<Route> {
    table! { state;
        GET "/v3/{project_id}/os-quota-sets/{target_id}" "quota_sets:show" "volume_extension:quotas:show" 200 show;
        PUT "/v3/{project_id}/os-quota-sets/{target_id}" "quota_sets:update" "volume_extension:quotas:update" 200 update;
        DELETE "/v3/{project_id}/os-quota-sets/{target_id}" "quota_sets:delete" "volume_extension:quotas:delete" 200 delete;
        GET "/v3/{project_id}/os-quota-sets/{target_id}/defaults" "quota_sets:defaults" "volume_extension:quotas:show" 200 show_defaults;
        GET "/v3/{project_id}/os-quota-class-sets/{class}" "quota_classes:show" "volume_extension:quota_classes:get" 200 show_class;
        PUT "/v3/{project_id}/os-quota-class-sets/{class}" "quota_classes:update" "volume_extension:quota_classes:update" 200 update_class;
    }
}

/// All that a set is shown of.
struct Seen {
    rows: Vec<(String, String)>,
    defaults: BTreeMap<String, i64>,
    usage: BTreeMap<String, Usage>,
}

fn seen(reader: &mut Reader, project: &str) -> Result<Seen> {
    Ok(Seen { rows: rows(reader)?, defaults: defaults(reader)?, usage: reader.list_usage(&scope(project))? })
}

impl Seen {
    fn set(&self, entry: impl Fn(i64, i64) -> Value) -> Map<String, Value> {
        let rows = self.rows.iter().map(|(row, name)| {
            let usage = self.usage.get(row).copied().unwrap_or_default();
            let limit = usage.limit.or(self.defaults.get(row).copied()).unwrap_or(-1);
            (name.clone(), entry(limit, usage.used))
        });
        rows.collect()
    }
}

async fn show(state: Arc<Volumes>, call: Call) -> Result<Reply> {
    let ask = Ask::of(&call)?;
    ask.enforce_rule(ask.rule, &Target::project(ask.param("target_id")))?;
    let seen = state.read(&ask, |reader, ask| seen(reader, ask.param("target_id"))).await?;
    let with_usage = ask.query.boolean("usage")?.unwrap_or(false);
    let mut set = seen.set(|limit, used| match with_usage {
        true => json!({"limit": limit, "in_use": used, "reserved": 0}),
        false => json!(limit),
    });
    set.insert("id".into(), json!(ask.param("target_id")));
    ask.reply(200, &json!({"quota_set": set}))
}

async fn show_defaults(state: Arc<Volumes>, call: Call) -> Result<Reply> {
    let ask = Ask::of(&call)?;
    ask.enforce_rule(ask.rule, &Target::project(ask.param("target_id")))?;
    let mut seen = state.read(&ask, |reader, ask| seen(reader, ask.param("target_id"))).await?;
    seen.usage.clear();
    let mut set = seen.set(|limit, _| json!(limit));
    set.insert("id".into(), json!(ask.param("target_id")));
    ask.reply(200, &json!({"quota_set": set}))
}

/// The limits of a body, by the rows that they are of.
fn parse(body: &Value, outer: &'static str, rows: &[(String, String)]) -> Result<BTreeMap<String, i64>> {
    let mut fields = Fields::body(body)?;
    let value = fields.need(outer)?;
    fields.finish()?;
    let set = value.as_object().ok_or_else(|| input::refuse(outer, value, "it is not of type 'object'"))?;
    let mut limits = BTreeMap::new();
    for (name, value) in set.iter().filter(|(name, _)| *name != "tenant_id" && *name != "id") {
        let row = rows.iter().find(|(_, shown)| shown == name);
        let (row, _) = row.ok_or_else(|| Fault::invalid(format!("Bad key(s) in quota set: {name:.100}")))?;
        limits.insert(row.clone(), input::integer(name, value, -1, MOST)?);
    }
    Ok(limits)
}

async fn update(state: Arc<Volumes>, mut call: Call) -> Result<Reply> {
    let (ask, body) = Ask::read(&mut call).await?;
    ask.enforce_rule(ask.rule, &Target::project(ask.param("target_id")))?;
    base::limits::text("project_id", ask.param("target_id"), 255)?;
    let seen = state
        .write(&ask, move |tx, ask| {
            let project = ask.param("target_id").to_owned();
            let known = rows(tx)?;
            let limits = parse(&body, "quota_set", &known)?;
            if body["quota_set"].as_object().is_none_or(Map::is_empty) {
                return Err(input::refuse("quota_set", &body["quota_set"], "{} does not have enough properties"));
            }
            for (row, limit) in limits {
                refuse_below(tx, &project, &row, limit)?;
                tx.set_limit(&scope(&project), &row, Some(limit))?;
            }
            seen(tx, &project)
        })
        .await?;
    ask.reply(200, &json!({"quota_set": seen.set(|limit, _| json!(limit))}))
}

/// A limit is not below what is used already.
fn refuse_below(tx: &mut Tx, project: &str, row: &str, limit: i64) -> Result<()> {
    let used = tx.usage(&scope(project), row)?.used;
    if limit < 0 || row == "per_volume_gigabytes" || limit >= used {
        return Ok(());
    }
    Err(Fault::invalid(format!(
        "Quota {row} limit must be equal or greater than existing resources. Current usage is {used} and the requested \
         limit is {limit}."
    )))
}

async fn delete(state: Arc<Volumes>, call: Call) -> Result<Reply> {
    let ask = Ask::of(&call)?;
    ask.enforce_rule(ask.rule, &Target::project(ask.param("target_id")))?;
    state
        .write(&ask, |tx: &mut Tx, ask| {
            for (row, _) in rows(tx)? {
                tx.set_limit(&scope(ask.param("target_id")), &row, None)?;
            }
            Ok(())
        })
        .await?;
    Ok(Reply::empty(200))
}

fn class_view(rows: &[(String, String)], limits: &BTreeMap<String, i64>) -> Map<String, Value> {
    let program = |row: &str| RESOURCES.iter().find(|(name, _)| *name == row).map_or(-1, |(_, limit)| *limit);
    let view = rows.iter().map(|(row, name)| (name.clone(), json!(limits.get(row).copied().unwrap_or(program(row)))));
    view.collect()
}

async fn show_class(state: Arc<Volumes>, call: Call) -> Result<Reply> {
    let ask = Ask::of(&call)?;
    ask.enforce_own()?;
    let mut set = state
        .read(&ask, |reader, ask| {
            let class = reader.get::<QuotaClass>(ask.param("class"))?.map(|class| class.doc.limits).unwrap_or_default();
            Ok(class_view(&rows(reader)?, &class))
        })
        .await?;
    set.insert("id".into(), json!(ask.param("class")));
    ask.reply(200, &json!({"quota_class_set": set}))
}

async fn update_class(state: Arc<Volumes>, mut call: Call) -> Result<Reply> {
    let (ask, body) = Ask::read(&mut call).await?;
    ask.enforce_own()?;
    base::limits::text("class", ask.param("class"), 255)?;
    let set = state
        .write(&ask, move |tx, ask| {
            let known = rows(tx)?;
            let limits = parse(&body, "quota_class_set", &known)?;
            let name = ask.param("class").to_owned();
            let class = tx.get::<QuotaClass>(&name)?.map(|class| class.doc);
            let mut class = class.unwrap_or(QuotaClass { name, limits: BTreeMap::new() });
            class.limits.extend(limits);
            tx.put(&class)?;
            Ok(class_view(&known, &class.limits))
        })
        .await?;
    ask.reply(200, &json!({"quota_class_set": set}))
}
