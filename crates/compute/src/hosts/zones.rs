//! Availability zones.

use super::{Host, all};
use crate::{Ask, Compute};
use base::Result;
use rest::{Access, Call, Method, Reply, Route};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;
use store::Stored;

pub fn routes(state: &Arc<Compute>) -> Vec<Route> {
    let (list_rule, detail_rule) = (
        Access::Rule("os_compute_api:os-availability-zone:list"),
        Access::Rule("os_compute_api:os-availability-zone:detail"),
    );
    vec![
        Route::new(state, Method::GET, "/os-availability-zone", "availability_zones:list", list_rule, 200, list),
        Route::new(
            state,
            Method::GET,
            "/os-availability-zone/detail",
            "availability_zones:detail",
            detail_rule,
            200,
            detail,
        ),
    ]
}

type Zones = BTreeMap<String, Vec<Stored<Host>>>;

async fn zones(state: &Compute, ask: &Ask) -> Result<Zones> {
    ask.enforce_own()?;
    let hosts = state.read(ask, |reader, _| all(reader)).await?;
    let mut zones = Zones::new();
    for host in hosts {
        zones.entry(host.zone.clone()).or_default().push(host);
    }
    Ok(zones)
}

fn zone(name: &str, hosts: &[Stored<Host>], detail: Value) -> Value {
    let available = hosts.iter().any(|host| host.enabled);
    json!({"zoneName": name, "zoneState": {"available": available}, "hosts": detail})
}

async fn list(state: Arc<Compute>, call: Call) -> Result<Reply> {
    let zones = zones(&state, &Ask::of(&call)).await?;
    let zones: Vec<_> = zones.iter().map(|(name, hosts)| zone(name, hosts, Value::Null)).collect();
    Reply::json(200, &json!({"availabilityZoneInfo": zones}))
}

async fn detail(state: Arc<Compute>, call: Call) -> Result<Reply> {
    let zones = zones(&state, &Ask::of(&call)).await?;
    let past = store::scope::as_of().is_some();
    let detailed = |(name, hosts): (&String, &Vec<Stored<Host>>)| {
        let services = hosts.iter().map(|host| {
            let alive = state.hosts.is_alive(&host.name) && !host.forced_down;
            // Of the past nobody wrote it down.
            let available = if past { Value::Null } else { json!(alive) };
            let service =
                json!({"available": available, "active": host.enabled, "updated_at": host.updated.iso_naive()});
            (host.name.to_string(), json!({"nova-compute": service}))
        });
        zone(name, hosts, Value::Object(services.collect()))
    };
    let zones: Vec<_> = zones.iter().map(detailed).collect();
    Reply::json(200, &json!({"availabilityZoneInfo": zones}))
}
