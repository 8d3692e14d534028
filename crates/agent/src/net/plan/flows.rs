//! Which flows of a network its rules no longer allow: asked after every change that takes something away.

use super::super::world::World;
use super::groups::allows;
use agent_api::PortSpec;
use base::NetworkId;
use netlink::conntrack::Flow;
use std::collections::BTreeMap;
use std::net::IpAddr;

/// The mark of a flow that must stop: the rules of the network's namespace drop its packets.
pub const STOPPED: u32 = 2;

#[derive(Debug, Default, PartialEq)]
pub struct Verdicts {
    /// Flows to be marked.
    pub stop: Vec<Flow>,
    /// Marked flows that are allowed again: to be forgotten, so that they can begin anew.
    pub release: Vec<Flow>,
}

/// Judges flows by the ports at both their ends. A flow of nobody's (the services' own) is left alone.
pub fn judge(world: &World, network: &NetworkId, flows: Vec<Flow>) -> Verdicts {
    let mut by_address: BTreeMap<IpAddr, &PortSpec> = BTreeMap::new();
    for port in world.ports_of(network).filter(|port| port.port_security) {
        by_address.extend(port.fixed_ips.iter().map(|(_, ip)| (*ip, port)));
    }
    let mut verdicts = Verdicts::default();
    for flow in flows {
        match (allowed(world, &by_address, &flow), flow.mark == STOPPED) {
            (false, false) => verdicts.stop.push(flow),
            (true, true) => verdicts.release.push(flow),
            _ => {}
        }
    }
    verdicts
}

fn allowed(world: &World, ports: &BTreeMap<IpAddr, &PortSpec>, flow: &Flow) -> bool {
    let sends = ports
        .get(&flow.source)
        .is_none_or(|port| is_service(flow.destination) || port_allows(world, port, false, flow.destination, flow));
    let receives = ports.get(&flow.destination).is_none_or(|port| port_allows(world, port, true, flow.source, flow));
    sends && receives
}

/// DHCP and metadata are allowed whatever the groups say.
fn is_service(ip: IpAddr) -> bool {
    ip == IpAddr::V4(super::super::names::METADATA) || ip == IpAddr::from([255, 255, 255, 255])
}

fn port_allows(world: &World, port: &PortSpec, ingress: bool, remote: IpAddr, flow: &Flow) -> bool {
    port.admin_state_up
        && port.security_groups.iter().filter_map(|id| world.groups.get(id)).any(|group| {
            let rules = group.rules.iter().filter(|rule| rule.ingress == ingress);
            rules.into_iter().any(|rule| allows(world, rule, remote, flow.protocol, flow.destination_port))
        })
}
