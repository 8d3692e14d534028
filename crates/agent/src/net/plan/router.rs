//! A router: a namespace with a link into each of its networks and one to the external network.

use super::super::names::{self, Names};
use super::super::shape::{LinkShape, Shape};
use super::super::world::World;
use agent_api::{RouterGateway, RouterSpec};
use ipnet::IpNet;
use netlink::nft::{Family, Table};
use netlink::{Address, Route};
use std::net::{IpAddr, Ipv4Addr};

pub const TABLE: &str = "nubo";

/// The MTU of a network; that of Ethernet where the view does not have it.
fn mtu(world: &World, network: &base::NetworkId) -> u32 {
    world.networks.get(network).map_or(1500, |n| u32::from(n.mtu))
}

pub fn shape(names: &Names, world: &World, router: &RouterSpec) -> Shape {
    let mut shape = Shape::default();
    let alias = names.alias("router", &router.id);
    shape.links.insert("lo".into(), LinkShape { alias: Some(alias), up: true, ..Default::default() });
    for (name, value) in [
        ("net/ipv4/ip_forward", "1"),
        ("net/ipv6/conf/all/forwarding", "1"),
        ("net/ipv6/conf/default/accept_dad", "0"),
        ("net/ipv4/conf/all/arp_ignore", "1"),
        ("net/ipv4/conf/all/arp_announce", "2"),
        ("net/ipv4/conf/all/send_redirects", "0"),
        ("net/ipv4/conf/default/send_redirects", "0"),
        ("net/ipv4/conf/all/rp_filter", "1"),
    ] {
        shape.sysctls.push((name.into(), value.into()));
    }
    if !router.admin_state_up {
        shape.tables = vec![table(names, router, None)];
        return shape;
    }
    for interface in &router.interfaces {
        let name = names::inside(&interface.port);
        add_link(&mut shape, names, &name, &interface.port, &interface.mac, mtu(world, &interface.network));
        let addresses = interface.addresses.iter();
        shape.addresses.extend(addresses.map(|a| Address { link: name.clone(), address: *a }));
    }
    let gateway = usable_gateway(world, router);
    if let Some(gateway) = gateway {
        let name = names.gateway(&gateway.port);
        add_link(&mut shape, names, &name, &gateway.port, &gateway.mac, mtu(world, &gateway.network));
        shape.addresses.extend(gateway.addresses.iter().map(|a| Address { link: name.clone(), address: *a }));
        for floating in floating(router).map(|(outer, _)| IpNet::from(IpAddr::V4(outer))) {
            // The gateway's own address may stand for a guest; it is on the link already.
            if !gateway.addresses.iter().any(|a| a.addr() == floating.addr()) {
                shape.addresses.insert(Address { link: name.clone(), address: floating });
            }
        }
        for hop in &gateway.next_hops {
            let any = if hop.is_ipv4() { "0.0.0.0/0" } else { "::/0" };
            let to = any.parse().unwrap_or_else(|_| IpNet::from(*hop));
            shape.routes.insert(Route { to, via: Some(*hop), link: Some(name.clone()) });
        }
    }
    for (to, via) in &router.routes {
        if let Some(link) = link_towards(&shape, *via) {
            shape.routes.retain(|route| route.to != to.trunc());
            shape.routes.insert(Route { to: to.trunc(), via: Some(*via), link: Some(link) });
        }
    }
    shape.tables = vec![table(names, router, gateway)];
    shape
}

/// The gateway, if its network is one that this host carries.
pub fn usable_gateway<'a>(world: &World, router: &'a RouterSpec) -> Option<&'a RouterGateway> {
    let gateway = router.gateway.as_ref().filter(|_| router.admin_state_up)?;
    world.networks.get(&gateway.network).filter(|network| network.external.is_some())?;
    Some(gateway)
}

fn add_link(shape: &mut Shape, names: &Names, name: &str, port: &str, mac: &str, mtu: u32) {
    let link = LinkShape {
        alias: Some(names.alias("port", port)),
        mac: netlink::mac(mac),
        mtu: Some(mtu),
        up: true,
        ..Default::default()
    };
    shape.links.insert(name.to_owned(), link);
}

fn link_towards(shape: &Shape, via: IpAddr) -> Option<String> {
    shape.addresses.iter().find(|a| a.address.prefix_len() > 0 && a.address.contains(&via)).map(|a| a.link.clone())
}

/// Floating and fixed IPv4 addresses; of two that claim the same the first holds, as a map takes a key once.
pub fn floating(router: &RouterSpec) -> impl Iterator<Item = (Ipv4Addr, Ipv4Addr)> {
    let mut seen = std::collections::BTreeSet::new();
    router.floating.iter().filter_map(move |it| match (it.floating, it.fixed) {
        (IpAddr::V4(outer), IpAddr::V4(inner)) => {
            (seen.insert((0, outer)) && seen.insert((1, inner))).then_some((outer, inner))
        }
        _ => None,
    })
}

fn table(names: &Names, router: &RouterSpec, gateway: Option<&RouterGateway>) -> Table {
    let mut table = Table::new(Family::Ip, TABLE);
    table.set("inside", "ifname");
    table.set("nets", "ipv4_addr").interval = true;
    table.map("fip_in", "ipv4_addr : ipv4_addr");
    table.map("fip_out", "ipv4_addr : ipv4_addr");
    if router.admin_state_up {
        let insides = router.interfaces.iter().map(|i| format!("\"{}\"", names::inside(&i.port)));
        table.set("inside", "").elements = insides.collect();
        let nets: Vec<IpNet> = router
            .interfaces
            .iter()
            .flat_map(|i| &i.addresses)
            .filter(|n| n.addr().is_ipv4())
            .map(IpNet::trunc)
            .collect();
        table.set("nets", "").elements = IpNet::aggregate(&nets).iter().map(ToString::to_string).collect();
    }
    table
        .base("mss", "type filter hook forward priority -10; policy accept;")
        // Clamps the segment size where the path narrows.
        .rule("tcp flags & (syn|rst) == syn tcp option maxseg size set rt mtu");
    let Some(gateway) = gateway else {
        table
            .base("forward", "type filter hook forward priority 0; policy drop;")
            .rule("ct state invalid drop")
            .rule("iifname @inside oifname @inside accept");
        return table;
    };
    for (outer, inner) in floating(router) {
        table.map("fip_in", "").elements.insert(outer.to_string(), inner.to_string());
        table.map("fip_out", "").elements.insert(inner.to_string(), outer.to_string());
    }
    add_gateway(&mut table, names, gateway);
    table
}

fn add_gateway(table: &mut Table, names: &Names, gateway: &RouterGateway) {
    let out = names.gateway(&gateway.port);
    table.base("pre", "type nat hook prerouting priority -100; policy accept;").rule("dnat to ip daddr map @fip_in");
    let first = gateway.addresses.iter().find(|a| a.addr().is_ipv4()).map(|a| a.addr());
    let post = table.base("post", "type nat hook postrouting priority 100; policy accept;");
    post.rule(format!("oifname \"{out}\" ip saddr @nets snat to ip saddr map @fip_out"));
    if let Some(own) = first.filter(|_| gateway.snat) {
        post.rule(format!("oifname \"{out}\" ip saddr @nets snat to {own}"));
    }
    // A guest that calls a floating address from inside: the answer must come back through here.
    post.rule("oifname @inside ct status dnat ip saddr @nets snat to ip saddr map @fip_out");
    if let Some(own) = first {
        post.rule(format!("oifname @inside ct status dnat ip saddr @nets snat to {own}"));
    }
    let forward = table.base("forward", "type filter hook forward priority 0; policy drop;");
    forward.rule("ct state established,related accept").rule("ct state invalid drop");
    forward.rule(format!("iifname \"{out}\" oifname @inside ct status dnat accept"));
    if !gateway.snat {
        // Without translation the outside routes to fixed addresses; the groups guard them.
        forward.rule(format!("iifname \"{out}\" oifname @inside accept"));
    }
    forward.rule("iifname @inside accept");
}
