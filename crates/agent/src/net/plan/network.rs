//! A tenant network: a namespace with one bridge, the services' address on it, and the rules of its ports.
//!
//! A frame passes, in this order: bridge prerouting -300 (who may send what: before the bridge learns and before
//! connection tracking), inet prerouting -150 (copies the flow's state into the mark; both families see the same
//! packet through br_netfilter), bridge forward -10 (what its sender may send), bridge forward +10 (what its receiver
//! may get). `accept` ends only its own base chain, so that both sides' rules must agree.

use super::super::names::{self, BRIDGE, METADATA, Names, short};
use super::super::shape::{Actual, BridgeShape, LinkShape, Shape, is_guest_link};
use super::super::world::World;
use super::groups;
use agent_api::{NetworkSpec, PortSpec};
use base::SecurityGroupId;
use ipnet::IpNet;
use netlink::nft::{Family, Table};
use netlink::{Address, FdbEntry};
use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv6Addr};

/// The tables of a network's namespace.
pub const TABLE: &str = "nubo";
/// Flows that one address may have at once: a guest must not fill the table that all of them share.
const FLOWS_MOST: u32 = 16_384;

/// The services' MAC where the view names none.
const SERVICE_MAC: [u8; 6] = [0xfa, 0x16, 0x3e, 0x00, 0x00, 0x02];

pub fn service_mac(network: &NetworkSpec) -> [u8; 6] {
    network.service_mac.as_deref().and_then(netlink::mac).unwrap_or(SERVICE_MAC)
}

/// `actual` tells which guests' links are there: they come and go with QEMU.
pub fn shape(names: &Names, world: &World, network: &NetworkSpec, actual: &Actual) -> Shape {
    Shape { tables: tables(world, network), ..links(names, world, network, actual) }
}

/// The shape without its rules.
pub fn links(names: &Names, world: &World, network: &NetworkSpec, actual: &Actual) -> Shape {
    let mut shape = Shape::default();
    let mtu = u32::from(network.mtu);
    shape.bridges.insert(BRIDGE.into(), BridgeShape { nf_call: true });
    let bridge = LinkShape {
        alias: Some(names.alias("network", &network.id)),
        mac: Some(service_mac(network)),
        mtu: Some(mtu),
        up: true,
        ..Default::default()
    };
    shape.links.insert(BRIDGE.into(), bridge);
    let lo = LinkShape { alias: Some(names.alias("network", &network.id)), up: true, ..Default::default() };
    shape.links.insert("lo".into(), lo);
    for address in service_addresses(network) {
        shape.addresses.insert(Address { link: BRIDGE.into(), address });
    }
    for (_, interface) in world.interfaces_of(&network.id) {
        let link = LinkShape {
            alias: Some(names.alias("port", &interface.port)),
            mtu: Some(mtu),
            master: Some(BRIDGE.into()),
            up: true,
            ..Default::default()
        };
        shape.links.insert(names::inside(&interface.port), link);
    }
    for port in world.ports_of(&network.id) {
        let name = names::tap(&port.id);
        // Only what is in the bridge already: a fresh tap joins it when its guest holds it.
        let wired = actual.links.get(&name).is_some_and(|link| is_guest_link(link) && link.master.is_some());
        if wired {
            add_guest_link(&mut shape, names, network, port);
        }
    }
    let off = ["bridge-nf-call-iptables", "bridge-nf-call-ip6tables", "bridge-nf-call-arptables"];
    shape.sysctls.extend(off.iter().map(|name| (format!("net/bridge/{name}"), "0".to_owned())));
    for (name, value) in [("net/ipv4/ip_forward", "0"), ("net/ipv4/conf/all/accept_redirects", "0")] {
        shape.sysctls.push((name.into(), value.into()));
    }
    // The namespace only carries IPv6: its own links have no part in it.
    shape.sysctls.push(("net/ipv6/conf/default/disable_ipv6".into(), "1".into()));
    shape.link_sysctls.push((format!("net/ipv6/conf/{BRIDGE}/disable_ipv6"), "1".into()));
    shape
}

/// A guest's link as it is once its guest is wired.
pub fn add_guest_link(shape: &mut Shape, names: &Names, network: &NetworkSpec, port: &PortSpec) {
    let name = names::tap(&port.id);
    // Static entries stand in for learning, unless the port may speak with MACs that are not its own.
    let strict = port.port_security && port.allowed_address_pairs.iter().all(|(mac, _)| mac.is_none());
    let link = LinkShape {
        alias: Some(names.alias("port", &port.id)),
        mac: None,
        mtu: Some(u32::from(network.mtu)),
        master: Some(BRIDGE.into()),
        learning: Some(!strict),
        flood: Some(!strict),
        up: port.admin_state_up && network.admin_state_up,
    };
    if let Some(mac) = netlink::mac(&port.mac) {
        shape.fdb.insert(FdbEntry { link: name.clone(), mac });
    }
    shape.links.insert(name, link);
}

/// The IPv4 addresses of the services with their subnets' masks, and the metadata address.
pub fn service_addresses(network: &NetworkSpec) -> Vec<IpNet> {
    let mut all = vec![IpNet::from(IpAddr::V4(METADATA))];
    for ip in network.service_addresses.iter().filter(|ip| ip.is_ipv4()) {
        let subnet = network.subnets.iter().find(|subnet| subnet.cidr.contains(ip));
        let prefix = subnet.map_or(32, |subnet| subnet.cidr.prefix_len());
        all.extend(IpNet::new(*ip, prefix));
    }
    all
}

pub fn tables(world: &World, network: &NetworkSpec) -> Vec<Table> {
    let mut table = Table::new(Family::Bridge, TABLE);
    for name in ["c_spoof", "c_in"] {
        table.counters.insert(name.into());
    }
    for (name, kind) in [
        ("trusted", "ifname"),
        ("open_ports", "ifname"),
        ("stateless", "ifname"),
        ("pmac", "ifname . ether_addr"),
        ("pip4", "ifname . ether_addr . ipv4_addr"),
        ("pip6", "ifname . ether_addr . ipv6_addr"),
    ] {
        table.set(name, kind);
    }
    for name in ["nd_port", "spoof_port", "out_port", "in_port"] {
        table.map(name, "ifname : verdict");
    }
    add_base_chains(&mut table, network);
    for (_, interface) in world.interfaces_of(&network.id) {
        table.set("trusted", "").elements.insert(quoted(&names::inside(&interface.port)));
    }
    let mut used: BTreeSet<&SecurityGroupId> = BTreeSet::new();
    for port in world.ports_of(&network.id).filter(|port| port.admin_state_up && network.admin_state_up) {
        if port.port_security {
            used.extend(&port.security_groups);
            add_port(&mut table, world, port);
        } else {
            table.set("open_ports", "").elements.insert(quoted(&names::tap(&port.id)));
        }
    }
    add_groups(&mut table, world, &used);
    vec![state_table(), table]
}

fn quoted(name: &str) -> String {
    format!("\"{name}\"")
}

/// Copies connection tracking's word into the mark, which the bridge family can read on every kernel.
fn state_table() -> Table {
    let mut table = Table::new(Family::Inet, TABLE);
    for (name, kind) in [("flows4", "ipv4_addr"), ("flows6", "ipv6_addr")] {
        table.set(name, kind).dynamic = true;
    }
    table
        .base("pre", "type filter hook prerouting priority -150; policy accept;")
        .rule("ct mark 2 meta mark set 2 accept")
        .rule(format!("ct state new add @flows4 {{ ip saddr ct count over {FLOWS_MOST} }} meta mark set 2 accept"))
        .rule(format!("ct state new add @flows6 {{ ip6 saddr ct count over {FLOWS_MOST} }} meta mark set 2 accept"))
        .rule("meta mark set ct state map { established : 1, related : 1, invalid : 2, new : 0, untracked : 0 }");
    table
}

fn add_base_chains(table: &mut Table, network: &NetworkSpec) {
    let mac = netlink::mac_text(&service_mac(network));
    let spoof = "counter name c_spoof drop";
    table
        .base("antispoof", "type filter hook prerouting priority -300; policy accept;")
        .rule("meta mark set 0")
        .rule(format!("ether saddr {mac} {spoof}"))
        .rule("iifname @trusted accept")
        .rule("iifname @open_ports accept")
        .rule(format!("iifname . ether saddr != @pmac {spoof}"))
        .rule("ether type arp iifname . arp saddr ether . arp saddr ip @pip4 accept")
        .rule("ether type arp arp saddr ip 0.0.0.0 iifname . arp saddr ether @pmac accept")
        .rule("ether type ip iifname . ether saddr . ip saddr @pip4 goto guest4")
        .rule("ether type ip ip saddr 0.0.0.0 ip daddr 255.255.255.255 udp sport 68 udp dport 67 accept")
        .rule("ether type ip6 iifname . ether saddr . ip6 saddr @pip6 goto guest6")
        .rule("ether type ip6 ip6 saddr :: icmpv6 type { nd-neighbor-solicit, mld2-listener-report } accept")
        .rule("iifname vmap @spoof_port")
        .rule(spoof);
    table.chain("guest4").rule(format!("udp sport 67 {spoof}")).rule("accept");
    table
        .chain("guest6")
        .rule(format!("udp sport 547 {spoof}"))
        .rule(format!("icmpv6 type {{ nd-router-advert, nd-redirect }} {spoof}"))
        .rule("icmpv6 type nd-neighbor-advert iifname vmap @nd_port")
        .rule("accept");
    table
        .base("fwd_out", "type filter hook forward priority -10; policy drop;")
        .rule("iifname @trusted accept")
        .rule("meta mark 2 drop")
        .rule("iifname @open_ports accept")
        .rule("iifname != @stateless meta mark 1 accept")
        .rule("ether type arp accept")
        .rule("ether type ip6 icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert, nd-router-solicit, mld-listener-report, mld2-listener-report } accept")
        .rule("iifname vmap @out_port");
    let services: Vec<String> = service_addresses(network).iter().map(|net| net.addr().to_string()).collect();
    table
        .base("fwd_in", "type filter hook forward priority 10; policy drop;")
        .rule(format!("oifname @trusted ether daddr {mac} drop"))
        .rule(format!("oifname @trusted arp daddr ip {{ {} }} drop", services.join(", ")))
        .rule("oifname @trusted udp dport 67 drop")
        .rule("oifname @trusted accept")
        .rule("meta mark 2 counter name c_in drop")
        .rule("oifname @open_ports accept")
        .rule("oifname != @stateless meta mark 1 accept")
        .rule("ether type arp accept")
        .rule("ether type ip6 icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert, nd-router-advert } accept")
        .rule("oifname vmap @in_port")
        .rule("counter name c_in");
    table
        .base("input", "type filter hook input priority 0; policy drop;")
        .rule("iifname @trusted drop")
        .rule("ether type arp accept")
        .rule("meta mark 2 drop")
        .rule("meta mark 1 accept")
        .rule("udp dport { 53, 67 } accept")
        .rule(format!("ip daddr {METADATA} tcp dport 80 accept"))
        .rule("icmp type echo-request accept");
    table
        .base("post", "type filter hook postrouting priority 0; policy accept;")
        .rule(format!("oifname @trusted ether saddr {mac} drop"));
}

fn add_port(table: &mut Table, world: &World, port: &PortSpec) {
    let (tap, short) = (quoted(&names::tap(&port.id)), short(&port.id));
    let own = netlink::mac(&port.mac).map(|m| netlink::mac_text(&m)).unwrap_or_default();
    let mut targets = BTreeSet::new();
    let mut wide = Vec::new();
    let mut pairs: Vec<(String, IpNet)> =
        port.fixed_ips.iter().map(|(_, ip)| (own.clone(), IpNet::from(*ip))).collect();
    for (mac, net) in &port.allowed_address_pairs {
        let mac = mac.as_deref().and_then(netlink::mac).map_or_else(|| own.clone(), |m| netlink::mac_text(&m));
        pairs.push((mac, *net));
    }
    table.set("pmac", "").elements.insert(format!("{tap} . {own}"));
    for mac in pairs.iter().map(|(mac, _)| mac).chain([&own]).collect::<BTreeSet<_>>() {
        table.set("pmac", "").elements.insert(format!("{tap} . {mac}"));
        if let Some(local) = netlink::mac(mac).map(link_local) {
            table.set("pip6", "").elements.insert(format!("{tap} . {mac} . {local}"));
            targets.insert(local);
        }
    }
    for (mac, net) in &pairs {
        match (net.addr(), net.prefix_len() == net.max_prefix_len()) {
            (_, false) => wide.push((mac, net.trunc())),
            (IpAddr::V4(ip), true) => {
                table.set("pip4", "").elements.insert(format!("{tap} . {mac} . {ip}"));
            }
            (IpAddr::V6(ip), true) => {
                table.set("pip6", "").elements.insert(format!("{tap} . {mac} . {ip}"));
                targets.insert(ip);
            }
        }
    }
    if !wide.is_empty() {
        let name = format!("sp_{short}");
        table.chain(&name).rules = wide.iter().flat_map(|(mac, net)| wide_rules(mac, net)).collect();
        table.map("spoof_port", "").elements.insert(tap.clone(), format!("jump {name}"));
    }
    if !wide.iter().any(|(_, net)| net.addr().is_ipv6()) {
        let name = format!("nd_{short}");
        let list: Vec<String> = targets.iter().map(|ip| format!("0x{:032x}", u128::from(*ip))).collect();
        table.chain(&name).rule(format!("@th,64,128 != {{ {} }} counter name c_spoof drop", list.join(", ")));
        table.map("nd_port", "").elements.insert(tap.clone(), format!("jump {name}"));
    }
    add_verdicts(table, world, port, &tap, &short);
}

/// Where a port's frames are judged: its group's chain, or one of its own that asks each of its groups. Whoever is in
/// none may nothing but ask for an address and for metadata.
fn add_verdicts(table: &mut Table, world: &World, port: &PortSpec, tap: &str, short: &str) {
    let known: BTreeSet<&SecurityGroupId> =
        port.security_groups.iter().filter(|id| world.groups.contains_key(*id)).collect();
    type Naming = fn(&str) -> String;
    let sides: [(&str, &str, Naming); 2] =
        [("in_port", "pi", groups::ingress_chain), ("out_port", "po", groups::egress_chain)];
    for (map, prefix, chain_of) in sides {
        let target = match known.iter().next() {
            None => continue,
            Some(only) if known.len() == 1 => chain_of(only),
            Some(_) => {
                let own = format!("{prefix}_{short}");
                table.chain(&own).rules = known.iter().map(|id| format!("jump {}", chain_of(id))).collect();
                own
            }
        };
        table.map(map, "").elements.insert(tap.to_owned(), format!("jump {target}"));
    }
    if !known.is_empty() && known.iter().all(|id| world.groups.get(*id).is_some_and(|g| !g.stateful)) {
        table.set("stateless", "").elements.insert(tap.to_owned());
    }
}

fn add_groups(table: &mut Table, world: &World, used: &BTreeSet<&SecurityGroupId>) {
    let groups: Vec<_> = used.iter().filter_map(|id| world.groups.get(*id)).collect();
    let remote: BTreeSet<_> = groups.iter().flat_map(|g| &g.rules).filter_map(|r| r.remote_group.as_ref()).collect();
    for id in remote {
        groups::add_members(table, world, id);
    }
    for group in groups {
        groups::add_chains(table, world, group);
    }
}

/// An allowed pair with a whole network.
fn wide_rules(mac: &str, net: &IpNet) -> Vec<String> {
    let some = |text: String| if net.prefix_len() == 0 { String::new() } else { text };
    if net.addr().is_ipv6() {
        return vec![format!("ether type ip6 ether saddr {mac} {}goto guest6", some(format!("ip6 saddr {net} ")))];
    }
    vec![
        format!("ether type ip ether saddr {mac} {}goto guest4", some(format!("ip saddr {net} "))),
        format!("ether type arp arp saddr ether {mac} {}accept", some(format!("arp saddr ip {net} "))),
    ]
}

/// The link-local address that a guest makes of its MAC.
fn link_local(m: [u8; 6]) -> Ipv6Addr {
    Ipv6Addr::from([0xfe, 0x80, 0, 0, 0, 0, 0, 0, m[0] ^ 2, m[1], m[2], 0xff, 0xfe, m[3], m[4], m[5]])
}

/// True when `after` may allow less than `before`: then standing flows must be judged.
pub fn may_revoke(before: &[Table], after: &[Table]) -> bool {
    before.iter().any(|old| {
        let Some(new) = after.iter().find(|t| (t.family, &t.name) == (old.family, &old.name)) else { return true };
        let kept = |name: &String, rules: &[String]| {
            new.chains.get(name).is_some_and(|chain| rules.iter().all(|rule| chain.rules.contains(rule)))
        };
        !old.chains.iter().all(|(name, chain)| kept(name, &chain.rules))
            || !old.sets.iter().filter(|(_, s)| !s.dynamic).all(|(name, set)| {
                set.elements.is_empty() || new.sets.get(name).is_some_and(|it| it.elements.is_superset(&set.elements))
            })
            || !old.maps.iter().all(|(name, map)| {
                new.maps.get(name).is_some_and(|it| map.elements.iter().all(|(k, v)| it.elements.get(k) == Some(v)))
            })
    })
}
