//! Read-only: availability zones, agents, and how many addresses networks have left.

use crate::networks::Network;
use crate::ports::Port;
use crate::ranges::Range;
use crate::resource::{self, Resource, plain};
use crate::standard::{Ctx, Look};
use crate::subnets::SubnetAddresses;
use crate::{Network as Service, ZONE, error};
use base::{Result, SubnetId};
use policy::Target;
use rest::{Call, Method, Reply, Route};
use serde_json::{Map, Value, json};
use std::collections::BTreeSet;
use std::sync::Arc;
use store::{Query, Reader};

async fn zones(net: Arc<Service>, call: Call) -> Result<Reply> {
    net.ctx(&call).require("get_availability_zone", &Target::new())?;
    let zone = |resource: &str| json!({"name": ZONE, "resource": resource, "state": "available"});
    Reply::json(200, &json!({"availability_zones": [zone("network"), zone("router")]}))
}

/// There are none: what Neutron's agents do is part of nubo's own on each host. As in Neutron, who may not see agents
/// gets an empty list, too.
async fn agents(_net: Arc<Service>, _call: Call) -> Result<Reply> {
    Reply::json(200, &json!({"agents": []}))
}

/// A number as JSON holds it; larger ones (IPv6) as a float, as Neutron's database makes them.
fn count(number: u128) -> Value {
    u64::try_from(number).map_or_else(|_| json!(number as f64), |number| json!(number))
}

/// How many addresses of a subnet are taken. The set that finds the next free one has no history: of the past, the
/// ports are counted.
fn used(reader: &mut Reader, subnet: &SubnetId) -> Result<u128> {
    if reader.stands_in().is_none() {
        return Ok(reader.doc::<SubnetAddresses>(subnet)?.map_or(0, |addresses| addresses.used.count()));
    }
    let ports: Vec<Port> = reader.docs(Query::index("subnet", subnet.as_str()))?;
    let fixed = ports.iter().flat_map(|port| &port.fixed_ips).filter(|fixed| fixed.subnet_id == *subnet);
    Ok(fixed.map(|fixed| fixed.ip_address).collect::<BTreeSet<_>>().len() as u128)
}

fn availability(reader: &mut Reader, network: &Network) -> Result<Map<String, Value>> {
    let (mut total_all, mut used_all, mut subnets) = (0u128, 0u128, Vec::new());
    for subnet in network.subnets(reader)? {
        let used = used(reader, &subnet.id)?;
        let total = subnet.pools.iter().fold(0u128, |sum, pool: &Range| sum.saturating_add(pool.count()));
        total_all = total_all.saturating_add(total);
        used_all = used_all.saturating_add(used);
        subnets.push(json!({
            "subnet_id": subnet.id,
            "subnet_name": subnet.name,
            "cidr": subnet.cidr,
            "ip_version": if subnet.is_ipv4() { 4 } else { 6 },
            "total_ips": count(total),
            "used_ips": count(used),
        }));
    }
    Ok(crate::standard::object(json!({
        "network_id": network.id,
        "network_name": network.name,
        "project_id": network.project_id,
        "tenant_id": network.project_id,
        "total_ips": count(total_all),
        "used_ips": count(used_all),
        "subnet_ip_availability": subnets,
    })))
}

fn require(ctx: &Ctx) -> Result<()> {
    ctx.require("get_network_ip_availability", &Target::new())
}

async fn list(net: Arc<Service>, call: Call) -> Result<Reply> {
    require(&net.ctx(&call))?;
    let query = call.query.clone();
    let all = net.read(move |reader| {
        let networks: Vec<Network> = reader.docs(Query::all())?;
        let mut all = Vec::new();
        for network in networks {
            let one = availability(reader, &network)?;
            let version = query.get("ip_version").map(|text| text.parse::<u64>().unwrap_or(0));
            let is = |name: &str| query.get(name).is_none_or(|wanted| one.get(name).and_then(Value::as_str) == Some(wanted));
            let has = version.is_none_or(|version| {
                one["subnet_ip_availability"].as_array().into_iter().flatten().any(|subnet| subnet["ip_version"] == version)
            });
            if has && ["network_id", "network_name", "project_id", "tenant_id"].into_iter().all(is) {
                all.push(one);
            }
        }
        Ok(all)
    }).await?;
    Reply::json(200, &json!({"network_ip_availabilities": all}))
}

async fn show(net: Arc<Service>, call: Call) -> Result<Reply> {
    let (ctx, id) = (net.ctx(&call), call.param("id").to_owned());
    let one = net.read(move |reader| {
        if require(&ctx).is_err() {
            return Err(Network::not_found(&id));
        }
        let (network, _) = resource::find::<Network>(reader, &ctx, &id)?;
        availability(reader, &network)
    }).await.map_err(|fault| if fault.kind == base::FaultKind::NotFound { error::network_not_found(call.param("id")) } else { fault })?;
    Reply::json(200, &json!({"network_ip_availability": one}))
}

pub fn routes(net: &Arc<Service>) -> Vec<Route> {
    vec![
        plain(net, Method::GET, "/v2.0/availability_zones", "availability_zone:list", "get_availability_zone", 200, zones),
        plain(net, Method::GET, "/v2.0/agents", "agent:list", "get_agent", 200, agents),
        plain(net, Method::GET, "/v2.0/network-ip-availabilities", "network_ip_availability:list", "get_network_ip_availability", 200, list),
        plain(net, Method::GET, "/v2.0/network-ip-availabilities/{id}", "network_ip_availability:show", "get_network_ip_availability", 200, show),
    ]
}
