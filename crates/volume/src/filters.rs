//! What everybody may filter lists by: the table that Cinder comes with. Administrators may filter by whatever a list
//! shows.

use crate::{Ask, Volumes, table};
use base::Result;
use rest::{Call, Reply, Route};
use serde_json::{Value, json};
use std::sync::Arc;

const ALL: &[(&str, &[&str])] = &[
    ("attachment", &["volume_id", "status", "instance_id", "attach_status"]),
    ("message", &["resource_uuid", "resource_type", "event_id", "request_id", "message_level"]),
    ("pool", &["name", "volume_type"]),
    ("snapshot", &["name", "status", "volume_id", "metadata", "availability_zone", "consumes_quota"]),
    (
        "volume",
        &[
            "name",
            "status",
            "metadata",
            "bootable",
            "migration_status",
            "availability_zone",
            "group_id",
            "size",
            "created_at",
            "updated_at",
            "consumes_quota",
        ],
    ),
    ("volume_type", &["is_public", "extra_specs"]),
];

pub fn routes(state: &Arc<Volumes>) -> Vec<Route> {
    table! { state;
        GET "/v3/{project_id}/resource_filters" "resource_filters:list" "volume_extension:list_extensions" 200 list, since(3, 33);
    }
}

/// The names by which the lists of a resource may be filtered.
pub fn of(resource: &str) -> &'static [&'static str] {
    ALL.iter().find(|(name, _)| *name == resource).map_or(&[], |(_, filters)| filters)
}

async fn list(_: Arc<Volumes>, call: Call) -> Result<Reply> {
    let ask = Ask::of(&call)?;
    ask.enforce_own()?;
    let wanted = ask.query.get("resource");
    let seen = ALL.iter().filter(|(name, _)| wanted.is_none_or(|wanted| wanted == *name));
    let list: Vec<Value> = seen.map(|(name, filters)| json!({"resource": name, "filters": filters})).collect();
    ask.reply(200, &json!({"resource_filters": list}))
}
