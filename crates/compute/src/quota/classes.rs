//! Quota classes: the defaults, which an administrator may change.

use super::{QuotaClass, RESOURCES, sets};
use crate::input::drop_field;
use crate::{Ask, Compute, ask, input};
use base::Result;
use rest::{Access, Call, Change, Method, Reply, Route, Version};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;

pub const CHANGES: &[Change] = &[Change {
    since: Version(2, 50),
    operations: &["quota_classes:show", "quota_classes:update"],
    request: None,
    response: Some(without_groups),
}];

/// Groups of servers came into classes only with 2.50.
fn without_groups(body: &mut Value) {
    if let Some(set) = body.get_mut("quota_class_set") {
        drop_field(set, "server_groups");
        drop_field(set, "server_group_members");
    }
}

pub fn routes(state: &Arc<Compute>) -> Vec<Route> {
    let path = "/os-quota-class-sets/{class}";
    let rule = |name| Access::Rule(name);
    vec![
        Route::new(
            state,
            Method::GET,
            path,
            "quota_classes:show",
            rule("os_compute_api:os-quota-class-sets:show"),
            200,
            show,
        ),
        Route::new(
            state,
            Method::PUT,
            path,
            "quota_classes:update",
            rule("os_compute_api:os-quota-class-sets:update"),
            200,
            update,
        ),
    ]
}

fn view(ask: &Ask, own: &BTreeMap<String, i64>, with_id: bool) -> Value {
    let hidden = sets::hidden(ask.version, Version(2, 50));
    let mut set: Map<String, Value> = RESOURCES
        .iter()
        .filter(|(name, _)| !hidden.contains(name))
        .map(|(name, limit)| ((*name).to_owned(), json!(own.get(*name).unwrap_or(limit))))
        .collect();
    if with_id {
        set.insert("id".to_owned(), json!(ask.param("class")));
    }
    json!({"quota_class_set": set})
}

async fn show(state: Arc<Compute>, call: Call) -> Result<Reply> {
    let ask = Ask::of(&call);
    ask.enforce_own()?;
    let class = state.store.get::<QuotaClass>(ask.param("class")).await?;
    let own = class.map(|class| class.doc.limits).unwrap_or_default();
    ask.answer(CHANGES, 200, view(&ask, &own, true))
}

async fn update(state: Arc<Compute>, mut call: Call) -> Result<Reply> {
    let (ask, body) = ask::read(&mut call, CHANGES).await?;
    ask.enforce_own()?;
    base::limits::text("class", ask.param("class"), 255)?;
    let mut outer = input::Fields::body(&body)?;
    let mut fields = outer.object("quota_class_set")?;
    outer.finish()?;
    let limits = sets::parse_limits(&mut fields, &sets::hidden(ask.version, Version(2, 50)))?;
    fields.finish()?;
    let own = state
        .write(&ask, move |tx, ask| {
            let name = ask.param("class").to_owned();
            let known = tx.get::<QuotaClass>(&name)?.map(|class| class.doc);
            let mut class = known.unwrap_or(QuotaClass { name, limits: BTreeMap::new() });
            class.limits.extend(limits.clone());
            tx.put(&class)?;
            Ok(class.limits)
        })
        .await?;
    ask.answer(CHANGES, 200, view(&ask, &own, false))
}
