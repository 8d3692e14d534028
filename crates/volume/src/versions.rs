//! Version documents, and the old list of extensions.

use crate::{Ask, VERSIONS, Volumes, open, table};
use base::Result;
use rest::{Call, Reply, Route};
use serde_json::{Value, json};
use std::sync::Arc;

/// What tools ask for by alias.
const EXTENSIONS: &[(&str, &str)] = &[
    ("AvailabilityZones", "os-availability-zone"),
    ("ExtendedSnapshotAttributes", "os-extended-snapshot-attributes"),
    ("Hosts", "os-hosts"),
    ("QuotaClasses", "os-quota-class-sets"),
    ("Quotas", "os-quota-sets"),
    ("Qos_specs_manage", "qos-specs"),
    ("SchedulerStats", "scheduler-stats"),
    ("Services", "os-services"),
    ("SnapshotActions", "os-snapshot-actions"),
    ("TypesExtraSpecs", "os-types-extra-specs"),
    ("TypesManage", "os-types-manage"),
    ("UsedLimits", "os-used-limits"),
    ("VolumeActions", "os-volume-actions"),
    ("VolumeHostAttribute", "os-vol-host-attr"),
    ("VolumeImageMetadata", "os-vol-image-meta"),
    ("VolumeMigStatusAttribute", "os-vol-mig-status-attr"),
    ("VolumeTenantAttribute", "os-vol-tenant-attr"),
    ("VolumeTransfer", "os-volume-transfer"),
    ("VolumeTypeAccess", "os-volume-type-access"),
];

pub fn routes(state: &Arc<Volumes>) -> Vec<Route> {
    let mut routes =
        vec![
            open(state, "", "versions:choices", 300, choices),
            open(state, "/v3", "versions:show", 200, show),
            // What the catalog names.
            open(state, "/v3/{project_id}", "versions:of_project", 200, show),
        ];
    routes.extend(table! { state;
        GET "/v3/{project_id}/extensions" "extensions:list" "volume_extension:list_extensions" 200 extensions;
    });
    routes
}

fn body(base_url: &str) -> Value {
    json!({"versions": [{
        "id": "v3.0",
        "status": "CURRENT",
        "version": VERSIONS.max.to_string(),
        "min_version": VERSIONS.min.to_string(),
        "updated": "2023-08-31T00:00:00Z",
        "links": [
            {"rel": "describedby", "type": "text/html", "href": "https://docs.openstack.org/"},
            {"rel": "self", "href": format!("{base_url}/volume/v3/")},
        ],
        "media-types": [{"base": "application/json", "type": "application/vnd.openstack.volume+json;version=3"}],
    }]})
}

async fn choices(_: Arc<Volumes>, call: Call) -> Result<Reply> {
    Reply::json(300, &body(&call.base_url))
}

async fn show(_: Arc<Volumes>, call: Call) -> Result<Reply> {
    Reply::json(200, &body(&call.base_url))
}

async fn extensions(_: Arc<Volumes>, call: Call) -> Result<Reply> {
    Ask::of(&call)?.enforce_own()?;
    let view = |(name, alias): &(&str, &str)| {
        json!({"name": name, "alias": alias, "description": name, "links": [], "updated": "2014-12-03T00:00:00+00:00"})
    };
    Reply::json(200, &json!({"extensions": EXTENSIONS.iter().map(view).collect::<Vec<_>>()}))
}
