//! Version documents, and the old list of extensions.

use crate::{Compute, VERSIONS};
use base::{Fault, Result};
use rest::{Access, Call, Method, Reply, Route};
use serde_json::{Value, json};
use std::sync::Arc;

/// What existed before microversions and every cloud has; tools ask for some of these by alias.
const EXTENSIONS: &[(&str, &str)] = &[
    ("NMN", "os-create-server-ext"),
    ("AccessIPs", "os-access-ips"),
    ("AdminActions", "os-admin-actions"),
    ("AttachInterfaces", "os-attach-interfaces"),
    ("AvailabilityZone", "os-availability-zone"),
    ("ConfigDrive", "os-config-drive"),
    ("ConsoleOutput", "os-console-output"),
    ("Consoles", "os-consoles"),
    ("DiskConfig", "OS-DCF"),
    ("ExtendedAvailabilityZone", "OS-EXT-AZ"),
    ("ExtendedServerAttributes", "OS-EXT-SRV-ATTR"),
    ("ExtendedStatus", "OS-EXT-STS"),
    ("ExtendedVolumes", "os-extended-volumes"),
    ("FlavorAccess", "os-flavor-access"),
    ("FlavorDisabled", "OS-FLV-DISABLED"),
    ("FlavorExtraData", "OS-FLV-EXT-DATA"),
    ("FlavorExtraSpecs", "os-flavor-extra-specs"),
    ("FlavorManage", "os-flavor-manage"),
    ("Hypervisors", "os-hypervisors"),
    ("InstanceActions", "os-instance-actions"),
    ("Keypairs", "os-keypairs"),
    ("LockServer", "os-lock-server"),
    ("MultipleCreate", "os-multiple-create"),
    ("PauseServer", "os-pause-server"),
    ("Quotas", "os-quota-sets"),
    ("QuotaClasses", "os-quota-class-sets"),
    ("RemoteConsoles", "os-remote-consoles"),
    ("SchedulerHints", "OS-SCH-HNT"),
    ("SecurityGroups", "os-security-groups"),
    ("ServerStartStop", "os-server-start-stop"),
    ("ServerUsage", "OS-SRV-USG"),
    ("Services", "os-services"),
    ("SimpleTenantUsage", "os-simple-tenant-usage"),
    ("SuspendServer", "os-suspend-server"),
    ("UsedLimits", "os-used-limits"),
    ("UserData", "os-user-data"),
];

/// Below `/compute`.
pub fn root_routes(state: &Arc<Compute>) -> Vec<Route> {
    vec![Route::new(state, Method::GET, "", "versions:list", Access::Open, 200, list)]
}

/// Below `/compute/v2.1`.
pub fn routes(state: &Arc<Compute>) -> Vec<Route> {
    let rule = Access::Rule("os_compute_api:extensions");
    vec![
        Route::new(state, Method::GET, "", "versions:show", Access::Open, 200, show),
        Route::new(state, Method::GET, "/extensions", "extensions:list", rule, 200, extensions),
        Route::new(state, Method::GET, "/extensions/{name}", "extensions:show", rule, 200, extension),
    ]
}

fn version(base_url: &str) -> Value {
    json!({
        "id": "v2.1",
        "status": "CURRENT",
        "version": VERSIONS.max.to_string(),
        "min_version": VERSIONS.min.to_string(),
        "updated": "2013-07-23T11:33:21Z",
        "links": [{"rel": "self", "href": format!("{base_url}/compute/v2.1/")}],
    })
}

async fn list(_: Arc<Compute>, call: Call) -> Result<Reply> {
    Reply::json(200, &json!({"versions": [version(&call.base_url)]}))
}

async fn show(_: Arc<Compute>, call: Call) -> Result<Reply> {
    let mut version = version(&call.base_url);
    version["media-types"] =
        json!([{"base": "application/json", "type": "application/vnd.openstack.compute+json;version=2.1"}]);
    Reply::json(200, &json!({"version": version}))
}

fn view(name: &str, alias: &str) -> Value {
    json!({"name": name, "alias": alias, "description": name, "links": [], "namespace": "http://docs.openstack.org/compute/ext/fake_xml", "updated": "2014-12-03T00:00:00Z"})
}

async fn extensions(_: Arc<Compute>, call: Call) -> Result<Reply> {
    crate::Ask::of(&call).enforce_own()?;
    let all: Vec<_> = EXTENSIONS.iter().map(|(name, alias)| view(name, alias)).collect();
    Reply::json(200, &json!({"extensions": all}))
}

async fn extension(_: Arc<Compute>, call: Call) -> Result<Reply> {
    crate::Ask::of(&call).enforce_own()?;
    let found = EXTENSIONS.iter().find(|(_, alias)| *alias == call.param("name"));
    let (name, alias) = found.ok_or_else(|| Fault::not_found("The resource could not be found."))?;
    Reply::json(200, &json!({"extension": view(name, alias)}))
}
