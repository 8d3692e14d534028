//! The limits of the caller's project with what it uses.

use super::scope;
use crate::{Ask, Volumes, quota, table};
use base::Result;
use policy::Target;
use rest::{Call, Reply, Route};
use serde_json::json;
use std::sync::Arc;

pub fn routes(state: &Arc<Volumes>) -> Vec<Route> {
    table! { state;
        GET "/v3/{project_id}/limits" "limits:show" "limits_extension:used_limits" 200 show;
    }
}

async fn show(state: Arc<Volumes>, call: Call) -> Result<Reply> {
    let ask = Ask::of(&call)?;
    ask.enforce_own()?;
    let mut project = ask.project()?.to_string();
    let asked = ask.query.get("project_id").or(ask.query.get("tenant_id"));
    // As in Cinder, who may not ask for another project sees the own.
    if let Some(other) = asked.filter(|other| ask.since(39) && ask.may("admin_api", &Target::project(*other))) {
        project = other.to_owned();
    }
    let (defaults, usage) =
        state.read(&ask, move |reader, _| Ok((quota::defaults(reader)?, reader.list_usage(&scope(&project))?))).await?;
    let limit = |name: &str| {
        let own = usage.get(name).and_then(|usage| usage.limit);
        own.or(defaults.get(name).copied()).unwrap_or(-1)
    };
    let used = |name: &str| usage.get(name).map_or(0, |usage| usage.used);
    ask.reply(
        200,
        &json!({"limits": {"rate": [], "absolute": {
            "maxTotalVolumes": limit("volumes"),
            "maxTotalVolumeGigabytes": limit("gigabytes"),
            "maxTotalSnapshots": limit("snapshots"),
            "maxTotalBackups": limit("backups"),
            "maxTotalBackupGigabytes": limit("backup_gigabytes"),
            "totalVolumesUsed": used("volumes"),
            "totalGigabytesUsed": used("gigabytes"),
            "totalSnapshotsUsed": used("snapshots"),
            "totalBackupsUsed": 0,
            "totalBackupGigabytesUsed": 0,
        }}}),
    )
}
