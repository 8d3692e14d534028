//! The plans as goldens: what a change of a rule's text would do to every network is seen here.

use super::super::names::Names;
use super::super::shape::Actual;
use super::super::world::World;
use super::{flows, network, router};
use agent_api::*;
use expect_test::expect;
use ipnet::IpNet;
use std::net::IpAddr;

fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn id(last: u8) -> String {
    format!("019a0000-0000-7000-8000-0000000000{last:02x}")
}

fn rule(ingress: bool, port: u16) -> RuleSpec {
    RuleSpec {
        ingress,
        ipv6: false,
        protocol: Some(6),
        port_min: Some(port),
        port_max: Some(port),
        remote_group: None,
        remote_prefix: None,
    }
}

fn world() -> World {
    let mut world = World::default();
    let subnet = SubnetSpec {
        id: id(0x51).into(),
        cidr: net("10.0.0.0/24"),
        gateway: Some(ip("10.0.0.1")),
        dhcp: true,
        dns: vec![],
        host_routes: vec![],
        ipv6_ra_mode: None,
        ipv6_address_mode: None,
    };
    let tenant = NetworkSpec {
        id: id(1).into(),
        mtu: 1450,
        admin_state_up: true,
        subnets: vec![subnet],
        external: None,
        service_mac: Some("fa:16:3e:00:00:02".into()),
        service_addresses: vec![ip("10.0.0.2")],
    };
    let outside = NetworkSpec {
        id: id(2).into(),
        external: Some(ExternalSpec { host_address: net("172.24.4.1/24"), masquerade: None }),
        mtu: 1500,
        service_addresses: vec![],
        ..tenant.clone()
    };
    let port = PortSpec {
        id: id(0x11).into(),
        network: tenant.id.clone(),
        server: Some(id(0x91).into()),
        mac: "FA:16:3E:00:00:11".into(),
        fixed_ips: vec![(id(0x51).into(), ip("10.0.0.11"))],
        admin_state_up: true,
        port_security: true,
        security_groups: vec![id(0x21).into()],
        allowed_address_pairs: vec![(None, net("10.7.0.0/16"))],
        hostname: None,
        extra_dhcp_opts: vec![],
    };
    let remote = RuleSpec { remote_group: Some(id(0x21).into()), ..rule(true, 5432) };
    let group = SecurityGroupSpec {
        id: id(0x21).into(),
        stateful: true,
        rules: vec![
            rule(true, 22),
            remote,
            RuleSpec { protocol: None, port_min: None, port_max: None, ..rule(false, 0) },
        ],
    };
    let router = RouterSpec {
        id: id(0x31).into(),
        admin_state_up: true,
        gateway: Some(RouterGateway {
            port: id(0x41).into(),
            network: outside.id.clone(),
            mac: "fa:16:3e:00:00:41".into(),
            addresses: vec![net("172.24.4.10/24")],
            next_hops: vec![ip("172.24.4.1")],
            snat: true,
        }),
        interfaces: vec![RouterInterface {
            port: id(0x42).into(),
            network: tenant.id.clone(),
            mac: "fa:16:3e:00:00:42".into(),
            addresses: vec![net("10.0.0.1/24")],
        }],
        routes: vec![(net("10.99.0.0/16"), ip("10.0.0.9"))],
        floating: vec![FloatingSpec { id: id(0x61).into(), floating: ip("172.24.4.50"), fixed: ip("10.0.0.11") }],
    };
    let members = AddressSet { id: id(0x21).into(), addresses: [net("10.0.0.11/32")].into() };
    let put = vec![
        ViewObject::Network(tenant),
        ViewObject::Network(outside),
        ViewObject::Port(port),
        ViewObject::SecurityGroup(group),
        ViewObject::AddressSet(members),
        ViewObject::Router(router),
    ];
    let (dirty, refused) = world.apply(&ViewDelta { version: 1, whole: true, put, remove: vec![] });
    assert!(refused.is_empty() && dirty.underlay && dirty.sweep, "{refused:?}");
    world
}

#[test]
fn a_ports_part_of_a_network() {
    let world = world();
    let tables = network::tables(&world, &world.networks[&id(1).into()]);
    let mut without = world.clone();
    without.apply(&ViewDelta { remove: vec![(ViewKind::Port, id(0x11))], ..Default::default() });
    let empty = network::tables(&without, &world.networks[&id(1).into()]);
    // What joining a network costs: one short transaction.
    let added: String = empty.iter().zip(&tables).map(|(a, b)| netlink::nft::script(Some(a), b)).collect();
    expect![[r#"
        add set bridge nubo a4_019a0000000070008000000000000021 { type ipv4_addr; }
        add set bridge nubo a6_019a0000000070008000000000000021 { type ipv6_addr; }
        add chain bridge nubo gi_019a0000000070008000000000000021
        add chain bridge nubo go_019a0000000070008000000000000021
        add chain bridge nubo nd_000000000011
        add chain bridge nubo sp_000000000011
        add rule bridge nubo gi_019a0000000070008000000000000021 ether type ip meta l4proto 6 th dport 22 accept
        add rule bridge nubo gi_019a0000000070008000000000000021 ether type ip ip saddr @a4_019a0000000070008000000000000021 meta l4proto 6 th dport 5432 accept
        add rule bridge nubo go_019a0000000070008000000000000021 ether type ip accept
        add rule bridge nubo nd_000000000011 @th,64,128 != { 0xfe80000000000000f8163efffe000011 } counter name c_spoof drop
        add rule bridge nubo sp_000000000011 ether type ip ether saddr fa:16:3e:00:00:11 ip saddr 10.7.0.0/16 goto guest4
        add rule bridge nubo sp_000000000011 ether type arp arp saddr ether fa:16:3e:00:00:11 arp saddr ip 10.7.0.0/16 accept
        add element bridge nubo a4_019a0000000070008000000000000021 { 10.0.0.11 }
        add element bridge nubo pip4 { "tap000000000011" . fa:16:3e:00:00:11 . 10.0.0.11 }
        add element bridge nubo pip6 { "tap000000000011" . fa:16:3e:00:00:11 . fe80::f816:3eff:fe00:11 }
        add element bridge nubo pmac { "tap000000000011" . fa:16:3e:00:00:11 }
        add element bridge nubo in_port { "tap000000000011" : jump gi_019a0000000070008000000000000021 }
        add element bridge nubo nd_port { "tap000000000011" : jump nd_000000000011 }
        add element bridge nubo out_port { "tap000000000011" : jump go_019a0000000070008000000000000021 }
        add element bridge nubo spoof_port { "tap000000000011" : jump sp_000000000011 }
    "#]]
    .assert_eq(&added);
    assert!(!network::may_revoke(&empty, &tables) && network::may_revoke(&tables, &empty));
}

#[test]
fn a_router_with_a_floating_address() {
    let world = world();
    let names = Names { cloud: "0011aabb".into() };
    let shape = router::shape(&names, &world, &world.routers[&id(0x31).into()]);
    expect![[r#"
        add table ip nubo
        delete table ip nubo
        add table ip nubo
        add set ip nubo inside { type ifname; }
        add set ip nubo nets { type ipv4_addr; flags interval; }
        add map ip nubo fip_in { type ipv4_addr : ipv4_addr; }
        add map ip nubo fip_out { type ipv4_addr : ipv4_addr; }
        add chain ip nubo forward { type filter hook forward priority 0; policy drop; }
        add chain ip nubo mss { type filter hook forward priority -10; policy accept; }
        add chain ip nubo post { type nat hook postrouting priority 100; policy accept; }
        add chain ip nubo pre { type nat hook prerouting priority -100; policy accept; }
    "#]]
    .assert_eq(
        &netlink::nft::script(None, &shape.tables[0]).lines().take(11).map(|l| format!("{l}\n")).collect::<String>(),
    );
    let routes: Vec<String> = shape.routes.iter().map(|r| format!("{} via {:?}", r.to, r.via.unwrap())).collect();
    assert_eq!(routes, ["0.0.0.0/0 via 172.24.4.1", "10.99.0.0/16 via 10.0.0.9"]);
    let addresses: Vec<String> = shape.addresses.iter().map(|a| a.address.to_string()).collect();
    assert_eq!(addresses, ["172.24.4.10/24", "172.24.4.50/32", "10.0.0.1/24"]);
}

#[test]
fn a_step_touches_only_what_it_concerns() {
    let mut world = world();
    let check = |world: &mut World, put: Vec<ViewObject>, networks: usize, routers: usize, underlay: bool| {
        let (dirty, _) = world.apply(&ViewDelta { put, ..Default::default() });
        assert_eq!((dirty.networks.len(), dirty.routers.len(), dirty.underlay), (networks, routers, underlay));
    };
    let members = AddressSet { id: id(0x21).into(), addresses: [].into() };
    check(&mut world, vec![ViewObject::AddressSet(members.clone())], 1, 0, false);
    check(&mut world, vec![ViewObject::AddressSet(AddressSet { id: id(0x29).into(), ..members })], 0, 0, false);
    let router = world.routers[&id(0x31).into()].clone();
    check(&mut world, vec![ViewObject::Router(router)], 1, 1, true);
    let port = world.ports[&id(0x11).into()].clone();
    check(&mut world, vec![ViewObject::Port(port)], 1, 0, false);
    let (dirty, _) = world.apply(&ViewDelta { whole: true, ..Default::default() });
    assert!(dirty.sweep && world.ports.is_empty() && world.routers.is_empty() && world.networks.is_empty());
}

#[test]
fn flows_are_stopped_when_no_rule_allows_them_and_released_when_one_does_again() {
    let mut world = world();
    let network = base::NetworkId::from(id(1));
    let flow = |source: &str, destination: &str, port: u16, mark: u32| {
        netlink::conntrack::Flow::new(ip(source), ip(destination), 6, port, mark)
    };
    let judge = |world: &World, flow: netlink::conntrack::Flow| {
        let verdicts = flows::judge(world, &network, vec![flow]);
        (verdicts.stop.len(), verdicts.release.len())
    };
    assert_eq!(judge(&world, flow("192.0.2.1", "10.0.0.11", 22, 0)), (0, 0));
    assert_eq!(judge(&world, flow("192.0.2.1", "10.0.0.11", 80, 0)), (1, 0), "no rule");
    assert_eq!(judge(&world, flow("192.0.2.1", "10.0.0.11", 80, 2)), (0, 0), "stopped already");
    assert_eq!(judge(&world, flow("192.0.2.1", "10.0.0.11", 22, 2)), (0, 1), "allowed again");
    assert_eq!(judge(&world, flow("10.0.0.11", "192.0.2.1", 80, 0)), (0, 0), "outward");
    assert_eq!(judge(&world, flow("192.0.2.1", "192.0.2.2", 80, 0)), (0, 0), "nobody's");
    let mut port = world.ports[&id(0x11).into()].clone();
    port.security_groups.clear();
    world.apply(&ViewDelta { put: vec![ViewObject::Port(port)], ..Default::default() });
    assert_eq!(judge(&world, flow("192.0.2.1", "10.0.0.11", 22, 0)), (1, 0));
    assert_eq!(judge(&world, flow("10.0.0.11", "169.254.169.254", 80, 0)), (0, 0), "metadata always");
}

#[test]
fn a_fresh_tap_joins_the_bridge_only_when_it_is_wired() {
    let world = world();
    let names = Names { cloud: "0011aabb".into() };
    let spec = &world.networks[&id(1).into()];
    let tap = super::super::names::tap(&id(0x11));
    let mut actual = Actual::default();
    let link = netlink::Link { index: 9, name: tap.clone(), kind: netlink::LinkKind::Tun, ..Default::default() };
    actual.links.insert(tap.clone(), link);
    assert!(!network::shape(&names, &world, spec, &actual).links.contains_key(&tap));
    actual.links.get_mut(&tap).unwrap().master = Some(2);
    let shape = network::shape(&names, &world, spec, &actual);
    assert_eq!((shape.links[&tap].learning, shape.fdb.len()), (Some(false), 1));
}
