//! What an undo must bring in line: addresses taken, and what hosts must look at again; and what is in the way of taking
//! back that a network, a subnet, a router or a server was made.

use crate::error;
use crate::floatingips::FloatingIp;
use crate::networks::Network;
use crate::ports::{self, Port};
use crate::project::touch;
use crate::routers::{self, Router};
use crate::security_groups::{SecurityGroup, SecurityGroupRule};
use crate::standard::{Look, Standard};
use crate::subnets::{Subnet, SubnetAddresses};
use agent_api::ViewKind;
use base::{Result, RouterId, Timestamp};
use store::{Document, Held, Needs, Reader, Tx};

/// Neutron's counter and the times beside it: they go back only with everything else.
pub const COUNTERS: &[&str] = &["revision", "updated_at", "wanted_at"];

/// An undo of some fields is one more change of the object.
pub fn touch_standard(standard: &mut Standard, now: Timestamp, replaced: Option<&Standard>) {
    if replaced.is_some_and(|replaced| replaced.revision == standard.revision) {
        standard.touch(now);
    }
}

/// A port's network, subnets and groups, and what holds it.
pub fn needs_of_port(port: &Port, needs: &mut Needs) {
    needs.on::<crate::networks::Network>(&port.network_id);
    for fixed in &port.fixed_ips {
        needs.on::<Subnet>(&fixed.subnet_id);
    }
    for group in &port.security_groups {
        needs.on::<SecurityGroup>(group);
    }
    if let Some(attached) = &port.attached {
        needs.kind("server", &attached.server);
    }
    if port.is_router_owned() {
        needs.on::<crate::routers::Router>(&port.device_id);
    }
    if port.device_owner == ports::FLOATING {
        needs.on::<FloatingIp>(&port.device_id);
    }
}

/// A subnet that came back knows its addresses again.
pub fn subnet(tx: &mut Tx, _before: Option<&Subnet>, after: Option<&Subnet>) -> Result<()> {
    let Some(subnet) = after else { return Ok(()) };
    if tx.doc::<SubnetAddresses>(&subnet.id)?.is_some() {
        return Ok(());
    }
    let mut addresses = SubnetAddresses { id: subnet.id.clone(), used: Default::default() };
    let ports: Vec<Port> = tx.by("subnet", &subnet.id)?;
    for fixed in ports.iter().flat_map(|port| &port.fixed_ips).filter(|fixed| fixed.subnet_id == subnet.id) {
        addresses.used.take(fixed.ip_address);
    }
    tx.create(&addresses)?;
    Ok(())
}

/// What a port has, is taken; what it had, is free; and hosts look at everything that it was or is part of.
pub fn port(tx: &mut Tx, before: Option<&Port>, after: Option<&Port>) -> Result<()> {
    let has = |port: Option<&Port>, fixed: &ports::FixedIp| port.is_some_and(|port| port.fixed_ips.contains(fixed));
    for fixed in before.iter().flat_map(|port| &port.fixed_ips).filter(|fixed| !has(after, fixed)) {
        ports::addresses::give_back(tx, fixed)?;
    }
    for fixed in after.iter().flat_map(|port| &port.fixed_ips) {
        if let Some(mut addresses) = tx.doc::<SubnetAddresses>(&fixed.subnet_id)? {
            addresses.used.take(fixed.ip_address);
            tx.update(&addresses)?;
        }
    }
    if let (Some(gone), None) = (before, after) {
        crate::floatingips::port_gone(tx, &gone.id)?;
        if tx.doc::<ports::Observed>(&gone.id)?.is_some() {
            tx.delete::<ports::Observed>(&gone.id)?;
        }
    }
    let asks = |port: &Port| (port.admin_state_up, port.attached.clone(), port.host.clone());
    if let Some(after) = after.filter(|after| before.map(asks) != Some(asks(after))) {
        awaited(tx, after)?;
    }
    for port in before.into_iter().chain(after) {
        touch(tx, ViewKind::Network, &port.network_id)?;
        for group in &port.security_groups {
            touch(tx, ViewKind::AddressSet, group)?;
            touch(tx, ViewKind::SecurityGroup, group)?;
        }
        if let Some(attached) = &port.attached {
            touch(tx, ViewKind::Guest, &attached.server)?;
        }
        if port.is_router_owned() {
            touch(tx, ViewKind::Router, &port.device_id)?;
        }
    }
    Ok(())
}

/// A router that came back, or whose gateway, interface or switch did, is awaited from now on. Its document has the times
/// that it had: the undo of an earlier request would find another one changed.
pub fn router(tx: &mut Tx, id: &RouterId) -> Result<()> {
    let Some(router) = tx.doc::<Router>(id)? else { return Ok(()) };
    let seen = router.observed(tx)?.unwrap_or_else(|| routers::Observed::nothing(id, &router.host));
    if !seen.up {
        tx.put(&routers::Observed { down_at: Some(tx.now()), ..seen })?;
    }
    Ok(())
}

/// So is a port of a server.
fn awaited(tx: &mut Tx, port: &Port) -> Result<()> {
    if port.is_router_owned() {
        return router(tx, &RouterId::new(&port.device_id));
    }
    if port.attached.is_none() || port.host.is_empty() {
        return Ok(());
    }
    let seen = port.observed(tx)?.unwrap_or_else(|| ports::Observed::nothing(&port.id, &port.host));
    if !seen.up {
        tx.put(&ports::Observed { down_at: Some(tx.now()), ..seen })?;
    }
    Ok(())
}

/// And a floating address.
fn floating_awaited(tx: &mut Tx, floating: &FloatingIp) -> Result<()> {
    let Some(router) = floating.router_id.as_ref().map(|id| tx.doc::<Router>(id)).transpose()?.flatten() else {
        return Ok(());
    };
    let mut seen = router.observed(tx)?.unwrap_or_else(|| routers::Observed::nothing(&router.id, &router.host));
    if !seen.floating.contains(&floating.id) {
        seen.missing.insert(floating.id.clone(), tx.now());
        tx.put(&seen)?;
    }
    Ok(())
}

pub fn floating(tx: &mut Tx, before: Option<&FloatingIp>, after: Option<&FloatingIp>) -> Result<()> {
    let asks = |floating: &FloatingIp| (floating.port_id.clone(), floating.router_id.clone());
    if let Some(after) = after.filter(|after| after.port_id.is_some() && before.map(asks) != Some(asks(after))) {
        floating_awaited(tx, after)?;
    }
    for floating in before.into_iter().chain(after) {
        if let Some(router) = &floating.router_id {
            touch(tx, ViewKind::Router, router)?;
        }
        if let Some(port) = floating.port_id.as_ref().map(|id| tx.doc::<Port>(id)).transpose()?.flatten()
            && let Some(attached) = &port.attached
        {
            touch(tx, ViewKind::Guest, &attached.server)?;
        }
    }
    Ok(())
}

/// A group that is taken back must not be in use.
pub fn group(tx: &mut Tx, before: Option<&SecurityGroup>, after: Option<&SecurityGroup>) -> Result<()> {
    if let (Some(gone), None) = (before, after) {
        let used = tx.first::<Port>("group", &gone.id)?.is_some();
        let named = tx.first::<SecurityGroupRule>("remote", &gone.id)?.is_some();
        let filled = tx.first::<SecurityGroupRule>("group", &gone.id)?.is_some();
        if used || named || filled {
            return Err(error::security_group_in_use(&gone.id));
        }
    }
    for group in before.into_iter().chain(after) {
        touch(tx, ViewKind::SecurityGroup, &group.id)?;
        touch(tx, ViewKind::AddressSet, &group.id)?;
    }
    Ok(())
}

pub fn rule(tx: &mut Tx, before: Option<&SecurityGroupRule>, after: Option<&SecurityGroupRule>) -> Result<()> {
    for rule in before.into_iter().chain(after) {
        touch(tx, ViewKind::SecurityGroup, &rule.group_id)?;
    }
    Ok(())
}

/// Finds the first that depends on an object by now, but for what the request that made it touched itself.
pub fn held(reader: &mut Reader, kind: &str, id: &str, same: &dyn Fn(&str, &str) -> bool) -> Result<Option<Held>> {
    let foreign = |ports: Vec<Port>| ports.into_iter().find(|port| !same(Port::KIND, &port.id));
    match kind {
        Network::KIND => {
            let Some(network) = reader.doc::<Network>(id)? else { return Ok(None) };
            let subnets: Vec<Subnet> = reader.by("network", id)?;
            if let Some(subnet) = subnets.into_iter().find(|subnet| !same(Subnet::KIND, &subnet.id)) {
                return Ok(Some(by(&network.project_id, Subnet::KIND, &subnet.id, &subnet.project_id)));
            }
            let ports =
                reader.by::<Port>("network", id)?.into_iter().filter(|port| port.device_owner != ports::SERVICE);
            Ok(foreign(ports.collect()).map(|port| by_port(&network.project_id, &port)))
        }
        Subnet::KIND => {
            let Some(subnet) = reader.doc::<Subnet>(id)? else { return Ok(None) };
            let ports =
                reader.by::<Port>("subnet", id)?.into_iter().filter(|port| !crate::subnets::leaves(&subnet, port));
            Ok(foreign(ports.collect()).map(|port| by_port(&subnet.project_id, &port)))
        }
        Router::KIND => {
            let Some(router) = reader.doc::<Router>(id)? else { return Ok(None) };
            if let Some(port) = foreign(router.interfaces(reader)?) {
                return Ok(Some(by_port(&router.project_id, &port)));
            }
            let floating = reader.first::<FloatingIp>("router", id)?;
            Ok(floating.map(|it| by(&router.project_id, FloatingIp::KIND, &it.id, &it.project_id)))
        }
        _ => held_server(reader, id, same),
    }
}

/// A server by whatever else was plugged into it, and by the floating addresses that lead to it.
fn held_server(reader: &mut Reader, id: &str, same: &dyn Fn(&str, &str) -> bool) -> Result<Option<Held>> {
    for port in reader.by::<Port>("device", id)? {
        if !same(Port::KIND, &port.id) {
            return Ok(Some(by_port(&port.project_id, &port)));
        }
        if let Some(it) = reader.first::<FloatingIp>("port", &port.id)?.filter(|it| !same(FloatingIp::KIND, &it.id)) {
            return Ok(Some(by(&port.project_id, FloatingIp::KIND, &it.id, &it.project_id)));
        }
    }
    Ok(None)
}

fn by_port(owner: &str, port: &Port) -> Held {
    by(owner, Port::KIND, &port.id, &port.project_id)
}

/// What belongs to another project is not named.
fn by(owner: &str, kind: &str, id: &str, project: &str) -> Held {
    match owner == project || project.is_empty() {
        true => (format!("{kind} {id} depends on it by now"), Some((kind.to_owned(), id.to_owned()))),
        false => (format!("a {kind} of another project depends on it by now"), None),
    }
}

/// Removes what an undo takes back, as the call that deletes it does. A fault says what is in the way.
pub fn remove(tx: &mut Tx, kind: &str, id: &str) -> Result<()> {
    match kind {
        Network::KIND => tx.doc::<Network>(id)?.map_or(Ok(()), |network| crate::networks::remove(network, tx)),
        Subnet::KIND => tx.doc::<Subnet>(id)?.map_or(Ok(()), |subnet| crate::subnets::delete(subnet, tx)),
        Router::KIND => tx.doc::<Router>(id)?.map_or(Ok(()), |router| router.remove(tx)),
        _ => Err(base::Fault::bug(format!("no undo removes a {kind} here"))),
    }
}
