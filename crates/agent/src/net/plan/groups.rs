//! Security groups as nftables text, and the same rules as a question about one flow.

use super::super::names::key;
use super::super::world::World;
use agent_api::{RuleSpec, SecurityGroupSpec};
use ipnet::IpNet;
use netlink::nft::Table;
use std::net::IpAddr;

const ICMP: u8 = 1;
const ICMPV6: u8 = 58;
/// Protocols that have ports at the same place.
const WITH_PORTS: [u8; 5] = [6, 17, 33, 132, 136];

pub fn ingress_chain(group: &str) -> String {
    format!("gi_{}", key(group))
}

pub fn egress_chain(group: &str) -> String {
    format!("go_{}", key(group))
}

/// Members' single addresses and networks are sets of their own: only the first kind changes often and may be large.
fn set_name(group: &str, ipv6: bool, networks: bool) -> String {
    format!("{}{}_{}", if networks { 'n' } else { 'a' }, if ipv6 { 6 } else { 4 }, key(group))
}

fn single(net: &IpNet) -> bool {
    net.prefix_len() == net.max_prefix_len()
}

/// The sets of a remote group's members.
pub fn add_members(table: &mut Table, world: &World, group: &base::SecurityGroupId) {
    let addresses = world.members.get(group).map_or(&[][..], |set| &set.addresses);
    for ipv6 in [false, true] {
        let kind = if ipv6 { "ipv6_addr" } else { "ipv4_addr" };
        let mine = |net: &&IpNet| net.addr().is_ipv6() == ipv6;
        let hosts = addresses.iter().filter(mine).filter(|net| single(net)).map(|net| net.addr().to_string());
        table.set(set_name(group, ipv6, false), kind).elements = hosts.collect();
        let networks = networks_of(addresses, ipv6);
        if !networks.is_empty() {
            let set = table.set(set_name(group, ipv6, true), kind);
            set.interval = true;
            set.elements = networks;
        }
    }
}

/// Without overlaps: the kernel refuses them in a set of ranges.
fn networks_of(addresses: &[IpNet], ipv6: bool) -> std::collections::BTreeSet<String> {
    let wide: Vec<IpNet> =
        addresses.iter().filter(|n| n.addr().is_ipv6() == ipv6 && !single(n)).map(IpNet::trunc).collect();
    IpNet::aggregate(&wide).iter().map(ToString::to_string).collect()
}

/// The chains of a group: what it lets in, and what it lets out.
pub fn add_chains(table: &mut Table, world: &World, group: &SecurityGroupSpec) {
    for (ingress, name) in [(true, ingress_chain(&group.id)), (false, egress_chain(&group.id))] {
        let texts: Vec<String> = group
            .rules
            .iter()
            .filter(|rule| rule.ingress == ingress)
            .flat_map(|rule| rule_texts(world, rule))
            .collect();
        table.chain(name).rules = texts;
    }
}

fn rule_texts(world: &World, rule: &RuleSpec) -> Vec<String> {
    let Some(protocol) = protocol_text(rule) else { return Vec::new() };
    let family = if rule.ipv6 { "ip6" } else { "ip" };
    let side = if rule.ingress { "saddr" } else { "daddr" };
    let line = |remote: &str| {
        let words = [format!("ether type {family}"), remote.to_owned(), protocol.clone(), "accept".to_owned()];
        words.into_iter().filter(|w| !w.is_empty()).collect::<Vec<_>>().join(" ")
    };
    if let Some(group) = &rule.remote_group {
        let mut all = vec![line(&format!("{family} {side} @{}", set_name(group, rule.ipv6, false)))];
        let addresses = world.members.get(group).map_or(&[][..], |set| &set.addresses);
        if !networks_of(addresses, rule.ipv6).is_empty() {
            all.push(line(&format!("{family} {side} @{}", set_name(group, rule.ipv6, true))));
        }
        return all;
    }
    match &rule.remote_prefix {
        Some(net) if net.addr().is_ipv6() != rule.ipv6 => Vec::new(),
        Some(net) if net.prefix_len() > 0 => vec![line(&format!("{family} {side} {}", net.trunc()))],
        _ => vec![line("")],
    }
}

/// The protocol that a rule means: for IPv6 `icmp` is ICMPv6.
fn protocol_of(rule: &RuleSpec) -> Option<u8> {
    match (rule.protocol, rule.ipv6) {
        (Some(ICMP), true) => Some(ICMPV6),
        (other, _) => other,
    }
}

/// None for a rule that can never match.
fn protocol_text(rule: &RuleSpec) -> Option<String> {
    let Some(protocol) = protocol_of(rule) else { return Some(String::new()) };
    let mut text = format!("meta l4proto {protocol}");
    if matches!((protocol, rule.ipv6), (ICMP, false) | (ICMPV6, true)) {
        let word = if rule.ipv6 { "icmpv6" } else { "icmp" };
        for (part, value) in [("type", rule.port_min), ("code", rule.port_max)] {
            if let Some(value) = value {
                text.push_str(&format!(" {word} {part} {}", u8::try_from(value).ok()?));
            }
        }
    } else if WITH_PORTS.contains(&protocol) {
        match (rule.port_min, rule.port_max) {
            (None, None) => {}
            (min, max) => {
                let (min, max) = (min.unwrap_or(0), max.unwrap_or(u16::MAX));
                match min.cmp(&max) {
                    std::cmp::Ordering::Greater => return None,
                    std::cmp::Ordering::Equal => text.push_str(&format!(" th dport {min}")),
                    std::cmp::Ordering::Less => text.push_str(&format!(" th dport {min}-{max}")),
                }
            }
        }
    }
    Some(text)
}

/// Whether a rule allows the beginning of a flow. `remote` is the address at the other side.
pub fn allows(world: &World, rule: &RuleSpec, remote: IpAddr, protocol: u8, port: u16) -> bool {
    if rule.ipv6 != remote.is_ipv6() || protocol_of(rule).is_some_and(|p| p != protocol) {
        return false;
    }
    let within = |net: &IpNet| net.contains(&remote);
    let reach = match (&rule.remote_group, &rule.remote_prefix) {
        (Some(group), _) => world.members.get(group).is_some_and(|set| set.addresses.iter().any(within)),
        (None, Some(net)) => within(net),
        (None, None) => true,
    };
    let fits = if protocol_of(rule).is_none() {
        true
    } else if matches!(protocol, ICMP | ICMPV6) {
        let (kind, code) = (port / 256, port % 256);
        rule.port_min.is_none_or(|v| v == kind) && rule.port_max.is_none_or(|v| v == code)
    } else if WITH_PORTS.contains(&protocol) {
        rule.port_min.is_none_or(|v| port >= v) && rule.port_max.is_none_or(|v| port <= v)
    } else {
        true
    };
    reach && fits
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use expect_test::{Expect, expect};

    fn rule() -> RuleSpec {
        RuleSpec {
            ingress: true,
            ipv6: false,
            protocol: None,
            port_min: None,
            port_max: None,
            remote_group: None,
            remote_prefix: None,
        }
    }

    fn check(rule: RuleSpec, expect: Expect) {
        let mut world = World::default();
        let addresses = ["10.0.0.5/32", "10.1.0.0/16", "10.1.2.0/24", "fd00::5/128"];
        let set =
            agent_api::AddressSet { id: "g".into(), addresses: addresses.iter().map(|a| a.parse().unwrap()).collect() };
        world.members.insert("g".into(), set);
        expect.assert_eq(&rule_texts(&world, &rule).join("\n"));
    }

    #[test]
    fn rules_become_text() {
        check(rule(), expect!["ether type ip accept"]);
        check(
            RuleSpec { protocol: Some(6), port_min: Some(22), port_max: Some(22), ..rule() },
            expect!["ether type ip meta l4proto 6 th dport 22 accept"],
        );
        check(
            RuleSpec {
                protocol: Some(17),
                port_min: Some(1000),
                port_max: Some(2000),
                ingress: false,
                remote_prefix: Some("10.0.0.9/8".parse().unwrap()),
                ..rule()
            },
            expect!["ether type ip ip daddr 10.0.0.0/8 meta l4proto 17 th dport 1000-2000 accept"],
        );
        check(
            RuleSpec { protocol: Some(1), port_min: Some(8), port_max: Some(0), ..rule() },
            expect!["ether type ip meta l4proto 1 icmp type 8 icmp code 0 accept"],
        );
        check(RuleSpec { protocol: Some(1), ipv6: true, ..rule() }, expect!["ether type ip6 meta l4proto 58 accept"]);
        check(RuleSpec { protocol: Some(6), port_min: Some(9), port_max: Some(8), ..rule() }, expect![""]);
        check(RuleSpec { ipv6: true, remote_prefix: Some("10.0.0.0/8".parse().unwrap()), ..rule() }, expect![""]);
        check(
            RuleSpec { remote_prefix: Some("0.0.0.0/0".parse().unwrap()), ..rule() },
            expect!["ether type ip accept"],
        );
    }

    #[test]
    fn members_networks_are_a_second_line_and_their_own_set() {
        let digest = key("g");
        let text = {
            let mut world = World::default();
            let set = agent_api::AddressSet { id: "g".into(), addresses: Arc::new(["10.1.0.0/16".parse().unwrap()]) };
            world.members.insert("g".into(), set);
            rule_texts(&world, &RuleSpec { remote_group: Some("g".into()), ..rule() }).join("\n")
        };
        assert_eq!(
            text,
            format!("ether type ip ip saddr @a4_{digest} accept\nether type ip ip saddr @n4_{digest} accept")
        );
        let nets: Vec<IpNet> =
            ["10.1.0.0/16", "10.1.2.0/24", "10.0.0.5/32"].iter().map(|a| a.parse().unwrap()).collect();
        assert_eq!(networks_of(&nets, false).into_iter().collect::<Vec<_>>(), ["10.1.0.0/16"]);
    }

    #[test]
    fn a_flow_is_allowed_exactly_when_the_text_would_accept_it() {
        let world = World::default();
        let ssh = RuleSpec { protocol: Some(6), port_min: Some(22), port_max: Some(25), ..rule() };
        let a: IpAddr = "10.0.0.1".parse().unwrap();
        assert!(allows(&world, &ssh, a, 6, 22) && allows(&world, &ssh, a, 6, 25));
        assert!(!allows(&world, &ssh, a, 6, 26) && !allows(&world, &ssh, a, 17, 22));
        assert!(!allows(&world, &ssh, "fd00::1".parse().unwrap(), 6, 22));
        let member = RuleSpec { remote_group: Some("nobody".into()), ..rule() };
        assert!(!allows(&world, &member, a, 6, 22));
        let echo = RuleSpec { protocol: Some(1), port_min: Some(8), ..rule() };
        assert!(allows(&world, &echo, a, 1, 8 * 256) && !allows(&world, &echo, a, 1, 13 * 256));
    }
}
