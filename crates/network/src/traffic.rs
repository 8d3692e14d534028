//! Who loses traffic when documents change: for dry runs.
//!
//! Looks at what a change takes away: a port that goes or is switched off, an address that a floating address no longer
//! leads to, a way that a router no longer has, a rule that no longer allows. What a change adds interrupts nobody.

use crate::floatingips::FloatingIp;
use crate::networks::Network;
use crate::ports::Port;
use crate::routers::Router;
use crate::security_groups::SecurityGroupRule;
use base::{PortId, ProjectId, Result};
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::collections::BTreeMap;
use store::{Difference, Document, Query, Reader};

/// The most ports that are named.
const MOST: usize = 1000;

/// A port in use that would lose traffic, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loser {
    pub port: PortId,
    pub project_id: ProjectId,
    /// What holds the port: a server, mostly.
    pub device_id: String,
    pub why: &'static str,
}

/// The ports that would lose traffic, each once. The reader shows the time before the change.
pub fn losers(reader: &mut Reader, differences: &[Difference]) -> Result<Vec<Loser>> {
    let mut found: BTreeMap<String, Loser> = BTreeMap::new();
    for difference in differences {
        let Difference::Document { kind, before: Some(before), after, .. } = difference else { continue };
        let lost = match *kind {
            Port::KIND => of_port(reader, read(before), after.as_ref().and_then(read))?,
            FloatingIp::KIND => of_floating(reader, read(before), after.as_ref().and_then(read))?,
            Router::KIND => of_router(reader, read(before), after.as_ref().and_then(read))?,
            Network::KIND => of_network(reader, read(before), after.as_ref().and_then(read))?,
            SecurityGroupRule::KIND if after.is_none() => of_rule(reader, read(before))?,
            "server" => of_server(reader, before, after.as_ref())?,
            _ => Vec::new(),
        };
        for loser in lost {
            if found.len() < MOST {
                found.entry(loser.port.to_string()).or_insert(loser);
            }
        }
    }
    Ok(found.into_values().collect())
}

fn read<T: DeserializeOwned>(body: &Value) -> Option<T> {
    serde_json::from_value(body.clone()).ok()
}

/// A port that something uses, and that is no part of a router, of a floating address or of our own services.
fn used(port: &Port, why: &'static str) -> Option<Loser> {
    if port.device_id.is_empty() || port.device_owner.starts_with("network:") {
        return None;
    }
    let (project_id, device_id) = (port.project_id.clone(), port.device_id.clone());
    Some(Loser { port: port.id.clone(), project_id, device_id, why })
}

fn by_index(reader: &mut Reader, name: &'static str, value: &str, why: &'static str) -> Result<Vec<Loser>> {
    let ports = reader.list::<Port>(Query::index(name, value).limit(MOST))?;
    Ok(ports.iter().filter_map(|port| used(port, why)).collect())
}

fn of_port(reader: &mut Reader, before: Option<Port>, after: Option<Port>) -> Result<Vec<Loser>> {
    let Some(before) = before else { return Ok(Vec::new()) };
    if before.is_router_owned() {
        if after.is_some() {
            return Ok(Vec::new());
        }
        let mut lost = Vec::new();
        for fixed in &before.fixed_ips {
            lost.extend(by_index(reader, "subnet", fixed.subnet_id.as_str(), "its router leaves the subnet")?);
        }
        return Ok(lost);
    }
    let why = match &after {
        None => "its port is deleted",
        Some(after) if before.admin_state_up && !after.admin_state_up => "its port is switched off",
        Some(after) if before.device_id != after.device_id => "its port is taken away",
        Some(after) if before.fixed_ips.iter().any(|ip| !after.fixed_ips.contains(ip)) => "an address is taken away",
        Some(after) if before.security_groups.iter().any(|group| !after.security_groups.contains(group)) => {
            "a security group no longer allows"
        }
        Some(_) => return Ok(Vec::new()),
    };
    Ok(used(&before, why).into_iter().collect())
}

fn of_floating(reader: &mut Reader, before: Option<FloatingIp>, after: Option<FloatingIp>) -> Result<Vec<Loser>> {
    let Some(before) = before else { return Ok(Vec::new()) };
    let same =
        after.is_some_and(|after| after.port_id == before.port_id && after.fixed_ip_address == before.fixed_ip_address);
    let Some(port) = before.port_id.filter(|_| !same) else { return Ok(Vec::new()) };
    let port = reader.get::<Port>(&port)?;
    Ok(port.and_then(|port| used(&port, "a floating address no longer leads to it")).into_iter().collect())
}

fn of_router(reader: &mut Reader, before: Option<Router>, after: Option<Router>) -> Result<Vec<Loser>> {
    let Some(before) = before else { return Ok(Vec::new()) };
    let network = |router: &Router| router.gateway.as_ref().map(|gateway| gateway.network_id.clone());
    let off = before.admin_state_up && after.as_ref().is_none_or(|after| !after.admin_state_up);
    let cut = before.gateway.is_some() && after.as_ref().and_then(network) != network(&before);
    if !off && !cut {
        return Ok(Vec::new());
    }
    let why = if off { "its router is switched off" } else { "its router loses its gateway" };
    let mut lost = Vec::new();
    for interface in before.interfaces(reader)? {
        for fixed in &interface.fixed_ips {
            lost.extend(by_index(reader, "subnet", fixed.subnet_id.as_str(), why)?);
        }
    }
    Ok(lost)
}

fn of_network(reader: &mut Reader, before: Option<Network>, after: Option<Network>) -> Result<Vec<Loser>> {
    let off = |network: &Network| network.admin_state_up && after.as_ref().is_none_or(|after| !after.admin_state_up);
    let Some(before) = before.filter(off) else { return Ok(Vec::new()) };
    by_index(reader, "network", before.id.as_str(), "its network is switched off")
}

fn of_rule(reader: &mut Reader, rule: Option<SecurityGroupRule>) -> Result<Vec<Loser>> {
    let Some(rule) = rule else { return Ok(Vec::new()) };
    by_index(reader, "group", rule.group_id.as_str(), "a rule no longer allows")
}

/// A server whose guest stops, pauses, starts anew or goes. Servers are another service's: only these fields are known.
fn of_server(reader: &mut Reader, before: &Value, after: Option<&Value>) -> Result<Vec<Loser>> {
    let runs = |body: &Value| body["power"] == "running";
    let reboots = |body: &Value| (body["soft_reboots"].as_u64(), body["hard_reboots"].as_u64());
    let why = match after {
        _ if !runs(before) => return Ok(Vec::new()),
        None => "its server is deleted",
        Some(after) if !runs(after) => "its server stops running",
        Some(after) if reboots(after) != reboots(before) => "its server reboots",
        Some(_) => return Ok(Vec::new()),
    };
    by_index(reader, "device", before["id"].as_str().unwrap_or(""), why)
}
