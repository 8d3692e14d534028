//! Making, changing and removing subnets.

use super::plan::{self, Gateway};
use super::{Subnet, SubnetAddresses};
use crate::attr::{self, Input, entries, only, shown};
use crate::networks::Network;
use crate::ports::{self, Port};
use crate::ranges::{Range, Used};
use crate::resource::bump;
use crate::standard::{Ctx, Look, Standard, charge};
use crate::error;
use base::{Result, SubnetId};
use ipnet::IpNet;
use serde_json::{Value, json};
use std::net::IpAddr;
use store::Tx;

/// `[{"start": …, "end": …}]`.
pub fn pools(value: Value) -> Result<Value, String> {
    entries(value, |map| {
        only(&map, &["start", "end"])?;
        let bound = |name: &str| attr::ip(map.get(name).unwrap_or(&Value::Null));
        Ok(json!({"start": bound("start")?, "end": bound("end")?}))
    })
}

pub fn nameservers(value: Value) -> Result<Value, String> {
    let list = match value {
        Value::Null => vec![],
        Value::Array(list) => list,
        other => return Err(format!("'{}' is not a list", shown(&other))),
    };
    let mut seen: Vec<IpAddr> = Vec::new();
    for item in &list {
        let address = attr::ip(item).map_err(|why| format!("'{}' is not a valid nameserver. {why}", shown(item)))?;
        if seen.contains(&address) {
            return Err(format!("Duplicate nameserver '{address}'"));
        }
        seen.push(address);
    }
    Ok(json!(seen))
}

/// `[{"destination": …, "nexthop": …}]`, of subnets and of routers.
pub fn routes(value: Value) -> Result<Value, String> {
    let mut seen: Vec<(IpNet, IpAddr)> = Vec::new();
    entries(value, |map| {
        only(&map, &["destination", "nexthop"])?;
        let to = attr::cidr(map.get("destination").unwrap_or(&Value::Null))?;
        let via = attr::ip(map.get("nexthop").unwrap_or(&Value::Null))?;
        Ok(json!({"destination": to, "nexthop": via}))
    }).and_then(|checked| {
        for route in read_routes(checked.as_array().map_or(&[][..], Vec::as_slice)) {
            if seen.contains(&route) {
                return Err(format!("Duplicate hostroute '{}' via '{}'", route.0, route.1));
            }
            seen.push(route);
        }
        Ok(checked)
    })
}

pub fn read_routes(list: &[Value]) -> Vec<(IpNet, IpAddr)> {
    let field = |item: &Value, name: &str| item.get(name).and_then(Value::as_str).unwrap_or("").to_owned();
    list.iter().filter_map(|item| Some((field(item, "destination").parse().ok()?, field(item, "nexthop").parse().ok()?))).collect()
}

fn read_pools(input: &Input) -> Option<Vec<Range>> {
    let list = input.list("allocation_pools")?;
    Some(list.iter().filter_map(|item| serde_json::from_value(item.clone()).ok()).collect())
}

fn read_gateway(input: &Input) -> Gateway {
    match input.ip("gateway_ip") {
        Some(at) => Gateway::At(at),
        None if input.is_null("gateway_ip") => Gateway::None,
        None => Gateway::Default,
    }
}

fn read_dns(input: &Input) -> Result<Option<Vec<IpAddr>>> {
    let Some(list) = input.texts("dns_nameservers") else { return Ok(None) };
    if list.len() > plan::NAMESERVERS {
        return Err(error::too_many_nameservers(plan::NAMESERVERS));
    }
    Ok(Some(list.iter().filter_map(|text| text.parse().ok()).collect()))
}

fn read_host_routes(input: &Input, version: u8) -> Result<Option<Vec<(IpNet, IpAddr)>>> {
    let Some(list) = input.list("host_routes") else { return Ok(None) };
    if list.len() > plan::HOST_ROUTES {
        return Err(error::too_many_host_routes(plan::HOST_ROUTES));
    }
    let routes = read_routes(list);
    let v4 = version == 4;
    match routes.iter().find(|(to, via)| to.addr().is_ipv4() != v4 || via.is_ipv4() != v4) {
        Some((to, _)) => Err(error::invalid_input(format!("host route '{to}' does not match the ip_version '{version}'"))),
        None => Ok(Some(routes)),
    }
}

pub fn create(tx: &mut Tx, _ctx: &Ctx, project: &str, input: &Input) -> Result<Subnet> {
    let id = input.text("network_id").unwrap_or("");
    let network = tx.doc::<Network>(id)?.ok_or_else(|| error::network_not_found(id))?;
    let subnet = plan_subnet(tx, &network, project, input)?;
    charge(tx, project, "subnet", 1)?;
    for other in network.subnets(tx)? {
        if other.overlaps(&subnet.cidr) {
            return Err(error::invalid_input(format!(
                "Requested subnet with cidr: {} for network: {} overlaps with another subnet", subnet.cidr, network.id
            )));
        }
    }
    tx.create(&subnet)?;
    tx.create(&SubnetAddresses { id: subnet.id.clone(), used: Used::default() })?;
    bump::<Network>(tx, &network.id)?;
    ports::ensure_service_port(tx, &network)?;
    ports::add_stateless_addresses(tx, &network, &subnet)?;
    Ok(subnet)
}

fn plan_subnet(tx: &mut Tx, network: &Network, project: &str, input: &Input) -> Result<Subnet> {
    let Some(cidr) = input.text("cidr").and_then(|text| text.parse::<IpNet>().ok()) else {
        return Err(error::bad("subnets", "a subnetpool must be specified in the absence of a cidr"));
    };
    let dhcp = input.boolean("enable_dhcp").unwrap_or(true);
    let version = input.int("ip_version").unwrap_or(4);
    plan::check_cidr(&cidr, version, dhcp)?;
    let (ra, address) = (input.text("ipv6_ra_mode"), input.text("ipv6_address_mode"));
    if version == 4 && (input.get("ipv6_ra_mode").is_some() || input.get("ipv6_address_mode").is_some()) {
        return Err(error::invalid_input("ipv6_ra_mode and ipv6_address_mode are not valid when ip_version is 4"));
    }
    plan::check_modes(&cidr, dhcp, ra, address)?;
    if version == 6 && network.mtu < 1280 {
        return Err(base::Fault::conflict(format!("MTU of {} is not valid, subnet requires a minimum of 1280", network.id)).named("NetworkMTUSubnetConflict"));
    }
    let gateway = plan::gateway(&cidr, read_gateway(input))?;
    Ok(Subnet {
        id: SubnetId::new(tx.uuid()),
        project_id: project.into(),
        network_id: network.id.clone(),
        name: input.text("name").unwrap_or("").to_owned(),
        pools: plan::pools(&cidr, gateway, read_pools(input))?,
        gateway,
        dhcp,
        dns: read_dns(input)?.unwrap_or_default(),
        host_routes: read_host_routes(input, version as u8)?.unwrap_or_default(),
        ipv6_ra_mode: ra.map(str::to_owned),
        ipv6_address_mode: address.map(str::to_owned),
        cidr,
        standard: Standard::new(tx, input),
    })
}

pub fn update(subnet: &mut Subnet, tx: &mut Tx, _ctx: &Ctx, input: &Input) -> Result<()> {
    if let Some(name) = input.text("name") {
        subnet.name = name.to_owned();
    }
    if let Some(dns) = read_dns(input)? {
        subnet.dns = dns;
    }
    if let Some(routes) = read_host_routes(input, if subnet.is_ipv4() { 4 } else { 6 })? {
        subnet.host_routes = routes;
    }
    if let Some(dhcp) = input.boolean("enable_dhcp") {
        plan::check_cidr(&subnet.cidr, if subnet.is_ipv4() { 4 } else { 6 }, dhcp)?;
        plan::check_modes(&subnet.cidr, dhcp, subnet.ipv6_ra_mode.as_deref(), subnet.ipv6_address_mode.as_deref())?;
        subnet.dhcp = dhcp;
    }
    update_addresses(subnet, tx, input)?;
    // The service port follows what is stored.
    tx.update(&*subnet)?;
    if let Some(network) = tx.doc::<Network>(&subnet.network_id)? {
        ports::ensure_service_port(tx, &network)?;
        bump::<Network>(tx, &network.id)?;
    }
    Ok(())
}

/// The gateway and the pools, which bound each other.
fn update_addresses(subnet: &mut Subnet, tx: &mut Tx, input: &Input) -> Result<()> {
    if let Some(pools) = read_pools(input) {
        subnet.pools = plan::pools(&subnet.cidr, None, Some(pools))?;
    }
    if input.has("gateway_ip") {
        let new = plan::gateway(&subnet.cidr, read_gateway(input))?;
        if new != subnet.gateway {
            gateway_free(subnet, tx)?;
        }
        subnet.gateway = new;
    }
    plan::check_gateway_outside(subnet.gateway, &subnet.pools)
}

/// A gateway that a router interface holds cannot move away from under it.
fn gateway_free(subnet: &Subnet, tx: &mut Tx) -> Result<()> {
    let Some(gateway) = subnet.gateway else { return Ok(()) };
    let holder = tx.get_unique::<Port>("address", [subnet.id.as_str(), &gateway.to_string()])?;
    match holder {
        Some(port) if port.device_owner == ports::INTERFACE => Err(error::gateway_in_use(gateway, &port.id)),
        _ => Ok(()),
    }
}

/// True for a port that only loses its address when the subnet goes.
pub(crate) fn leaves(subnet: &Subnet, port: &Port) -> bool {
    port.device_owner == ports::SERVICE || subnet.is_stateless() && !ports::is_router_owned(port)
}

pub fn delete(subnet: Subnet, tx: &mut Tx) -> Result<()> {
    let ports: Vec<Port> = tx.by("subnet", &subnet.id)?;
    if ports.iter().any(|port| !leaves(&subnet, port)) {
        return Err(error::subnet_in_use(&subnet.id));
    }
    for port in ports {
        ports::drop_subnet(tx, port, &subnet.id)?;
    }
    remove(tx, &subnet)?;
    if let Some(network) = tx.doc::<Network>(&subnet.network_id)? {
        ports::ensure_service_port(tx, &network)?;
        bump::<Network>(tx, &network.id)?;
    }
    Ok(())
}

/// Removes a subnet that no port uses any more.
pub(crate) fn remove(tx: &mut Tx, subnet: &Subnet) -> Result<()> {
    charge(tx, &subnet.project_id, "subnet", -1)?;
    tx.delete::<SubnetAddresses>(&subnet.id)?;
    tx.delete::<Subnet>(&subnet.id)?;
    Ok(())
}
