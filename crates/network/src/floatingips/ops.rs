//! Making, associating and removing floating addresses.

use super::FloatingIp;
use crate::attr::Input;
use crate::networks::Network;
use crate::ports::{self, FLOATING, INTERFACE, NewPort, Port, Wanted};
use crate::project::touch;
use crate::resource::{find, save};
use crate::routers::Router;
use crate::standard::{Ctx, Look, Standard, charge};
use crate::error;
use agent_api::ViewKind;
use base::{FloatingIpId, Result, RouterId, SubnetId};
use std::net::IpAddr;
use store::Tx;

pub fn create(tx: &mut Tx, ctx: &Ctx, project: &str, input: &Input) -> Result<FloatingIp> {
    let (network, _) = find::<Network>(tx, ctx, input.text("floating_network_id").unwrap_or(""))?;
    if !network.external {
        return Err(error::bad("floatingip", format!("Network {} is not a valid external network", network.id)));
    }
    charge(tx, project, "floatingip", 1)?;
    let id = FloatingIpId::new(tx.uuid());
    let new = NewPort {
        wanted: wanted(tx, &network, input)?,
        device_id: id.to_string(),
        device_owner: FLOATING.into(),
        ..NewPort::default()
    };
    let standard = Standard::new(tx, &Input::default());
    let holder = ports::insert(tx, &network, new, standard)?;
    let Some(address) = holder.fixed_ips.iter().map(|fixed| fixed.ip_address).find(IpAddr::is_ipv4) else {
        return Err(base::Fault::invalid(format!("Unable to find any IP address on external network {}.", network.id)).named("ExternalIpAddressExhausted"));
    };
    let mut floating = FloatingIp {
        id,
        project_id: project.into(),
        network_id: network.id,
        address,
        holder: holder.id,
        port_id: None,
        fixed_ip_address: None,
        router_id: None,
        wanted_at: None,
        standard: Standard::new(tx, input),
    };
    associate(&mut floating, tx, ctx, input)?;
    tx.create(&floating)?;
    Ok(floating)
}

/// Where the address may come from: only IPv4 can be translated.
fn wanted(tx: &mut Tx, network: &Network, input: &Input) -> Result<Option<Vec<Wanted>>> {
    let address = input.ip("floating_ip_address");
    if address.is_some_and(|address| !address.is_ipv4()) {
        return Err(error::invalid_input("a floating IP address must be an IPv4 address"));
    }
    if input.get("subnet_id").is_some() || address.is_some() {
        return Ok(Some(vec![Wanted { subnet: input.text("subnet_id").map(SubnetId::new), address }]));
    }
    if network.subnets(tx)?.iter().all(|subnet| !subnet.is_ipv4()) {
        return Err(error::bad("floatingip", format!("Network {} does not contain any IPv4 subnet", network.id)));
    }
    Ok(None)
}

pub fn update(floating: &mut FloatingIp, tx: &mut Tx, ctx: &Ctx, input: &Input) -> Result<()> {
    if input.has("port_id") || input.has("fixed_ip_address") {
        associate(floating, tx, ctx, input)?;
    }
    Ok(())
}

pub fn delete(floating: FloatingIp, tx: &mut Tx, _ctx: &Ctx) -> Result<()> {
    drop(tx, floating)
}

fn drop(tx: &mut Tx, floating: FloatingIp) -> Result<()> {
    if let Some(router) = &floating.router_id {
        touch(tx, ViewKind::Router, router)?;
    }
    if let Some(port) = &floating.port_id {
        port_touched(tx, port)?;
    }
    charge(tx, &floating.project_id, "floatingip", -1)?;
    tx.delete::<FloatingIp>(&floating.id)?;
    if let Some(holder) = tx.doc::<Port>(&floating.holder)? {
        ports::remove(tx, holder)?;
    }
    Ok(())
}

/// Floating addresses that stand for nothing go with their network, as in Neutron.
pub fn drop_idle(tx: &mut Tx, network: &str) -> Result<()> {
    let all: Vec<FloatingIp> = tx.by("network", network)?;
    for floating in all.into_iter().filter(|floating| floating.port_id.is_none()) {
        drop(tx, floating)?;
    }
    Ok(())
}

/// Lets the address stand for what the input names; nothing named: for nothing.
fn associate(floating: &mut FloatingIp, tx: &mut Tx, ctx: &Ctx, input: &Input) -> Result<()> {
    let id = match input.text("port_id") {
        Some(id) => id.to_owned(),
        None if input.has("port_id") || floating.port_id.is_none() => {
            if input.get("fixed_ip_address").is_some() {
                return Err(error::bad("floatingip", "fixed_ip_address cannot be specified without a port_id"));
            }
            return release(floating, tx);
        }
        None => floating.port_id.as_ref().map(ToString::to_string).unwrap_or_default(),
    };
    let (port, _) = find::<Port>(tx, ctx, &id)?;
    if port.project_id != floating.project_id && !ctx.is_admin() {
        return Err(error::bad("floatingip", format!(
            "Port {} is associated with a different project than Floating IP {} and therefore cannot be bound", port.id, floating.id
        )));
    }
    let fixed = fixed_of(&port, input.ip("fixed_ip_address"))?;
    check_free(floating, tx, &port, fixed.1)?;
    let router = router_between(tx, floating, &port, &fixed.0)?;
    release(floating, tx)?;
    floating.port_id = Some(port.id);
    floating.fixed_ip_address = Some(fixed.1);
    floating.router_id = Some(router);
    floating.wanted_at = Some(tx.now());
    Ok(())
}

fn release(floating: &mut FloatingIp, tx: &mut Tx) -> Result<()> {
    if let Some(router) = floating.router_id.take() {
        touch(tx, ViewKind::Router, &router)?;
    }
    if let Some(port) = floating.port_id.take() {
        port_touched(tx, &port)?;
    }
    floating.fixed_ip_address = None;
    floating.wanted_at = None;
    Ok(())
}

/// The server behind a port shows its floating addresses.
fn port_touched(tx: &mut Tx, port: &str) -> Result<()> {
    match tx.doc::<Port>(port)?.and_then(|port| port.attached) {
        Some(attached) => touch(tx, ViewKind::Guest, &attached.server),
        None => Ok(()),
    }
}

/// The fixed address that is meant.
fn fixed_of(port: &Port, asked: Option<IpAddr>) -> Result<(SubnetId, IpAddr)> {
    let v4: Vec<_> = port.fixed_ips.iter().filter(|fixed| fixed.ip_address.is_ipv4()).collect();
    let id = &port.id;
    let found = match (asked, v4.as_slice()) {
        (Some(asked), list) => list.iter().find(|fixed| fixed.ip_address == asked)
            .ok_or_else(|| error::bad("floatingip", format!("Port {id} does not have fixed ip {asked}")))?,
        (None, [only]) => only,
        (None, []) => return Err(error::bad("floatingip", format!("Cannot add floating IP to port {id} that has no fixed IPv4 addresses"))),
        (None, _) => return Err(error::bad("floatingip", format!(
            "Port {id} has multiple fixed IPv4 addresses.  Must provide a specific IPv4 address when assigning a floating IP"
        ))),
    };
    Ok((found.subnet_id.clone(), found.ip_address))
}

fn check_free(floating: &FloatingIp, tx: &mut Tx, port: &Port, fixed: IpAddr) -> Result<()> {
    let holder = tx.get_unique::<FloatingIp>("fixed", [port.id.as_str(), &fixed.to_string(), &floating.network_id])?;
    match holder {
        Some(other) if other.id != floating.id => {
            Err(error::already_associated(floating.address, &floating.id, &port.id, fixed, &floating.network_id))
        }
        _ => Ok(()),
    }
}

/// A router that joins the subnet with the external network; the one that is the subnet's gateway first.
fn router_between(tx: &mut Tx, floating: &FloatingIp, port: &Port, subnet: &SubnetId) -> Result<RouterId> {
    let ports: Vec<Port> = tx.by("subnet", subnet)?;
    let gateway = tx.doc::<crate::subnets::Subnet>(subnet)?.and_then(|subnet| subnet.gateway);
    let mut interfaces: Vec<Port> = ports.into_iter().filter(|port| port.device_owner == INTERFACE).collect();
    interfaces.sort_by_key(|interface| interface.address_on(subnet) != gateway);
    for interface in interfaces {
        let Some(router) = tx.doc::<Router>(&interface.device_id)? else { continue };
        if router.gateway.as_ref().is_some_and(|gateway| gateway.network_id == floating.network_id) {
            return Ok(router.id);
        }
    }
    Err(error::no_external_gateway(&floating.network_id, subnet, &port.id))
}

/// A port goes: its floating addresses stay with their project and stand for nothing.
pub fn port_gone(tx: &mut Tx, port: &str) -> Result<()> {
    let floating: Vec<FloatingIp> = tx.by("port", port)?;
    for old in floating {
        let mut new = old.clone();
        release(&mut new, tx)?;
        save(tx, &old, &mut new)?;
    }
    Ok(())
}

/// The same for those fixed addresses that a port no longer has.
pub fn addresses_changed(tx: &mut Tx, port: &Port) -> Result<()> {
    let floating: Vec<FloatingIp> = tx.by("port", &port.id)?;
    for old in floating {
        if port.fixed_ips.iter().any(|fixed| Some(fixed.ip_address) == old.fixed_ip_address) {
            continue;
        }
        let mut new = old.clone();
        release(&mut new, tx)?;
        save(tx, &old, &mut new)?;
    }
    Ok(())
}
