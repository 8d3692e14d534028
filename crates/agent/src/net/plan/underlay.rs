//! The namespace in which the agent itself runs: one bridge per external network, one table, and nothing else of it is
//! ours. What the host has beside that stays as it was.

use super::super::names::Names;
use super::super::shape::{BridgeShape, LinkShape, Shape};
use super::super::world::World;
use super::router::usable_gateway;
use agent_api::{ExternalSpec, NetworkSpec};
use ipnet::IpNet;
use netlink::nft::{Family, Table};
use netlink::{Address, Route};
use std::collections::BTreeSet;

/// At the end of a bridge's alias: forwarding of its uplink was off before and is put back when the bridge goes.
pub const SWITCHED: &str = "uplink-was-off";

pub struct Uplink {
    pub bridge: String,
    pub link: String,
}

/// `switched` names the uplinks whose forwarding we switched on; `refused` the networks that clash with the host.
pub fn shape(names: &Names, world: &World, switched: &BTreeSet<String>, refused: &BTreeSet<base::NetworkId>) -> Shape {
    let mut shape = Shape::default();
    let carried = |id: &base::NetworkId| !refused.contains(id);
    for (network, external) in externals(world).filter(|(network, _)| carried(&network.id)) {
        let name = names.external(&network.id);
        shape.bridges.insert(name.clone(), BridgeShape { nf_call: false });
        let mut alias = names.alias("external", &network.id);
        if let Some(link) = external.masquerade.as_ref().filter(|link| switched.contains(*link)) {
            alias.push_str(&format!(":{link}:{SWITCHED}"));
        }
        let link = LinkShape {
            alias: Some(alias),
            mtu: Some(u32::from(network.mtu)),
            up: network.admin_state_up,
            ..Default::default()
        };
        shape.links.insert(name.clone(), link);
        shape.addresses.insert(Address { link: name.clone(), address: external.host_address });
        shape.link_sysctls.push((format!("net/ipv4/conf/{name}/forwarding"), "1".into()));
        if external.host_address.addr().is_ipv4() {
            shape.link_sysctls.push((format!("net/ipv6/conf/{name}/disable_ipv6"), "1".into()));
        }
        if let Some(link) = &external.masquerade {
            shape.link_sysctls.push((format!("net/ipv4/conf/{link}/forwarding"), "1".into()));
        }
    }
    for router in world.routers.values() {
        if let Some(gateway) = usable_gateway(world, router).filter(|gateway| carried(&gateway.network)) {
            let link = LinkShape {
                alias: Some(names.alias("port", &gateway.port)),
                mtu: world.networks.get(&gateway.network).map(|n| u32::from(n.mtu)),
                master: Some(names.external(&gateway.network)),
                up: true,
                ..Default::default()
            };
            let name = names.gateway(&gateway.port);
            // The host must not talk IPv6 with guests' routers by addresses that nobody gave.
            shape.link_sysctls.push((format!("net/ipv6/conf/{name}/disable_ipv6"), "1".into()));
            shape.links.insert(name, link);
        }
    }
    shape.tables = vec![table(names, world, switched, refused)];
    shape
}

pub fn externals(world: &World) -> impl Iterator<Item = (&NetworkSpec, &ExternalSpec)> {
    world.networks.values().filter_map(|network| Some((network, network.external.as_ref()?)))
}

fn table(names: &Names, world: &World, switched: &BTreeSet<String>, refused: &BTreeSet<base::NetworkId>) -> Table {
    let mut table = Table::new(Family::Inet, names.table());
    let mut forward = Vec::new();
    let mut post = Vec::new();
    for (network, external) in externals(world).filter(|(network, _)| !refused.contains(&network.id)) {
        let bridge = names.external(&network.id);
        let Some(uplink) = &external.masquerade else { continue };
        if switched.contains(uplink) {
            // Forwarding is on for our bridge alone: what else the uplink brings stays where it was dropped before.
            forward.push(format!("iifname \"{uplink}\" oifname != \"{bridge}\" drop"));
        }
        forward.push(format!("iifname \"{uplink}\" oifname \"{bridge}\" ct state established,related accept"));
        forward.push(format!("iifname \"{uplink}\" oifname \"{bridge}\" drop"));
        let net = external.host_address.trunc();
        let family = if net.addr().is_ipv6() { "ip6" } else { "ip" };
        post.push(format!("oifname \"{uplink}\" {family} saddr {net} masquerade"));
    }
    table.base("forward", "type filter hook forward priority 0; policy accept;").rules = forward;
    table.base("post", "type nat hook postrouting priority 100; policy accept;").rules = post;
    table
}

/// Routes of the host that an external network would take over, as sentences. `own` knows the cloud's own bridges.
pub fn conflicts(
    cidr: IpNet,
    routes: &BTreeSet<Route>,
    addresses: &BTreeSet<Address>,
    own: impl Fn(&str) -> bool,
) -> Vec<String> {
    let clash = |net: &IpNet| net.contains(&cidr.network()) || cidr.contains(&net.network());
    let foreign = |link: Option<&str>| !link.is_some_and(&own);
    let mut all = Vec::new();
    for route in routes.iter().filter(|r| r.to.prefix_len() > 0 && clash(&r.to) && foreign(r.link.as_deref())) {
        let link = route.link.as_deref().unwrap_or("another link");
        all.push(format!("{cidr} overlaps {}, to which this host has a route by {link}", route.to));
    }
    for a in addresses.iter().filter(|a| cidr.contains(&a.address.addr()) && foreign(Some(&a.link))) {
        all.push(format!("{cidr} holds {}, an address of this host's link {}", a.address.addr(), a.link));
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_that_the_host_knows_already_is_said_with_the_route() {
        let net = |text: &str| text.parse::<IpNet>().unwrap();
        let route = |to: &str, link: &str| Route { to: net(to), via: None, link: Some(link.into()) };
        let routes = BTreeSet::from([
            route("0.0.0.0/0", "eth0"),
            route("172.24.0.0/16", "tun0"),
            route("172.24.4.0/24", "nubr-1"),
        ]);
        let none = BTreeSet::new();
        let found = conflicts(net("172.24.4.0/24"), &routes, &none, |link| link == "nubr-1");
        assert_eq!(found, ["172.24.4.0/24 overlaps 172.24.0.0/16, to which this host has a route by tun0"]);
        assert!(conflicts(net("192.168.0.0/24"), &routes, &none, |_| false).is_empty());
    }
}
