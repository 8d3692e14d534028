//! Security groups and anti-spoofing, with frames.

use super::lab::*;
use agent::Wiring;
use agent_api::ViewObject::*;
use agent_api::*;
use netlink::{Netns, link};
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

const TCP: u8 = 6;
const ICMP: u8 = 1;

struct Pair {
    lab: Lab,
    client: Machine,
    server: Machine,
}

/// A network with a client (group `cli`: nothing in) and a server (group `srv`: TCP/22 and echo in, 5432 from `cli`).
async fn pair() -> Option<Pair> {
    let mut lab = Lab::new()?;
    let net = network("n", "10.0.0.0/24");
    let (cli, srv) = (port("cli", &net, 11, &["cli"]), port("srv", &net, 12, &["srv"]));
    let from_cli = RuleSpec { remote_group: Some(group_id("cli")), ..rule(true, Some(TCP), Some(5432)) };
    let rules = vec![rule(true, Some(TCP), Some(22)), rule(true, Some(ICMP), None), from_cli];
    lab.put(vec![
        Network(net),
        Port(cli.clone()),
        Port(srv.clone()),
        SecurityGroup(group("cli", vec![])),
        SecurityGroup(group("srv", rules)),
        AddressSet(members("cli", &[&cli])),
    ])
    .await;
    let (client, server) = (lab.guest(&cli, None).await, lab.guest(&srv, None).await);
    for port in [22, 80, 5432] {
        serve(&server.ns, port);
    }
    serve(&client.ns, 22);
    Some(Pair { lab, client, server })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_lets_in_what_it_says_and_answers_and_nothing_else() {
    let Some(Pair { lab, client, server }) = pair().await else { return };
    assert_eq!(call(&client.ns, server.ip(), 22).as_deref(), Some("10.0.0.11"));
    assert_eq!(call(&client.ns, server.ip(), 80), None);
    assert_eq!(call(&server.ns, client.ip(), 22), None, "a new flow in the other direction");
    assert!(pings(&client.ns, server.ip()));
    assert!(!pings(&server.ns, client.ip()));
    assert_eq!(call(&client.ns, server.ip(), 5432).as_deref(), Some("10.0.0.11"), "by the remote group");
    lab.agrees().await;
    let (ports, _) = lab.bridge().observe(true).await;
    assert!(ports.iter().all(|port| port.up && port.fault.is_none()) && ports.len() == 2, "{ports:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_of_membership_or_rules_counts_from_the_next_packet_on_and_stops_flows_that_lost_their_rule() {
    let Some(Pair { mut lab, client, server }) = pair().await else { return };
    let patience = Duration::from_millis(600);
    let mut by_rule = Flow::open(&client.ns, server.ip(), 22, patience).unwrap();
    let mut by_group = Flow::open(&client.ns, server.ip(), 5432, patience).unwrap();
    assert!(by_rule.alive() && by_group.alive());

    lab.put(vec![AddressSet(members("cli", &[]))]).await;
    assert!(!by_group.alive(), "its member was removed");
    assert!(by_rule.alive(), "another rule's flow goes on");
    assert_eq!(call(&client.ns, server.ip(), 5432), None);
    lab.put(vec![AddressSet(members("cli", &[&client.port]))]).await;
    assert_eq!(call(&client.ns, server.ip(), 5432).as_deref(), Some("10.0.0.11"));

    let began = Instant::now();
    lab.put(vec![SecurityGroup(group("srv", vec![rule(true, Some(TCP), Some(80))]))]).await;
    println!("a rule change took {:?}", began.elapsed());
    assert!(!by_rule.alive(), "its rule was removed");
    assert_eq!(call(&client.ns, server.ip(), 22), None);
    assert_eq!(call(&client.ns, server.ip(), 80).as_deref(), Some("10.0.0.11"));
    lab.put(vec![SecurityGroup(group("srv", vec![rule(true, Some(TCP), Some(22))]))]).await;
    assert_eq!(call(&client.ns, server.ip(), 22).as_deref(), Some("10.0.0.11"));
    lab.agrees().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_in_no_group_may_neither_send_nor_receive_and_one_without_port_security_may_both() {
    let Some(Pair { mut lab, client, server }) = pair().await else { return };
    let mut bare = client.port.clone();
    bare.security_groups.clear();
    lab.put(vec![Port(bare.clone())]).await;
    assert_eq!(call(&client.ns, server.ip(), 22), None);
    bare.port_security = false;
    lab.put(vec![Port(bare)]).await;
    assert_eq!(call(&client.ns, server.ip(), 22).as_deref(), Some("10.0.0.11"));
    assert_eq!(call(&server.ns, client.ip(), 22).as_deref(), Some("10.0.0.12"));
    let mut down = server.port.clone();
    down.admin_state_up = false;
    lab.put(vec![Port(down)]).await;
    assert_eq!(call(&client.ns, server.ip(), 22), None, "administratively down");
    lab.agrees().await;
}

/// Sends a frame at one guest's link and looks whether it comes out of another's.
fn crosses(from: &Netns, to: &Netns, frame: &[u8]) -> bool {
    let open = |ns: &Netns, protocol: u16| {
        ns.run(|| {
            // SAFETY: plain system calls; the descriptor is owned at once.
            let fd = unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW, i32::from(protocol.to_be())) };
            assert!(fd >= 0);
            // SAFETY: as above.
            Ok(unsafe { <std::os::fd::OwnedFd as std::os::fd::FromRawFd>::from_raw_fd(fd) })
        })
        .unwrap()
    };
    use std::os::fd::AsRawFd;
    let (sender, receiver) = (open(from, 0), open(to, 3));
    let index = link::index(from, "eth0").unwrap();
    // SAFETY: an all-zero sockaddr_ll is valid; lengths describe what pointers point at.
    unsafe {
        let mut address: libc::sockaddr_ll = std::mem::zeroed();
        (address.sll_family, address.sll_ifindex) = (libc::AF_PACKET as u16, index as i32);
        let sent = libc::sendto(
            sender.as_raw_fd(),
            frame.as_ptr().cast(),
            frame.len(),
            0,
            (&raw const address).cast(),
            size_of_val(&address) as u32,
        );
        assert_eq!(sent, frame.len() as isize);
        let mut buffer = [0u8; 2048];
        let end = Instant::now() + Duration::from_millis(250);
        while Instant::now() < end {
            let mut poll = libc::pollfd { fd: receiver.as_raw_fd(), events: libc::POLLIN, revents: 0 };
            libc::poll(&mut poll, 1, 20);
            let length = libc::recv(receiver.as_raw_fd(), buffer.as_mut_ptr().cast(), buffer.len(), libc::MSG_DONTWAIT);
            if length > 0 && buffer[..length as usize].starts_with(frame) {
                return true;
            }
        }
    }
    false
}

fn ether(to: &str, from: &str, kind: u16, payload: &[u8]) -> Vec<u8> {
    let mac = |text: &str| netlink::mac(text).unwrap();
    [&mac(to)[..], &mac(from)[..], &kind.to_be_bytes()[..], payload].concat()
}

fn udp(from: &str, to: &str, source_port: u16) -> Vec<u8> {
    let (from, to): (Ipv4Addr, Ipv4Addr) = (from.parse().unwrap(), to.parse().unwrap());
    let mut header = vec![0x45, 0, 0, 36, 0, 7, 0, 0, 64, 17, 0, 0];
    header.extend(from.octets());
    header.extend(to.octets());
    let sum: u32 = header.chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum();
    let folded = !((sum & 0xffff) + (sum >> 16)) as u16;
    header[10..12].copy_from_slice(&folded.to_be_bytes());
    header.extend(source_port.to_be_bytes());
    header.extend([0x27, 0x0f, 0, 16, 0, 0]);
    header.extend(b"nubotest");
    header
}

fn arp(sender_mac: &str, sender: &str, target: &str) -> Vec<u8> {
    let mut bytes = vec![0, 1, 8, 0, 6, 4, 0, 2];
    bytes.extend(netlink::mac(sender_mac).unwrap());
    bytes.extend(sender.parse::<Ipv4Addr>().unwrap().octets());
    bytes.extend([0xff; 6]);
    bytes.extend(target.parse::<Ipv4Addr>().unwrap().octets());
    bytes
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_speaks_only_with_its_own_mac_and_addresses() {
    let Some(Pair { mut lab, client, server }) = pair().await else { return };
    lab.put(vec![SecurityGroup(group("srv", vec![rule(true, None, None)]))]).await;
    let (m1, m2) = (client.port.mac.clone(), server.port.mac.clone());
    let all = "ff:ff:ff:ff:ff:ff";
    let check = |what: &str, frame: Vec<u8>, passes: bool| {
        assert_eq!(crosses(&client.ns, &server.ns, &frame), passes, "{what}");
    };
    check("honest UDP", ether(&m2, &m1, 0x800, &udp("10.0.0.11", "10.0.0.12", 5000)), true);
    check("a made-up MAC", ether(&m2, "02:00:00:00:00:99", 0x800, &udp("10.0.0.11", "10.0.0.12", 5000)), false);
    check("another's MAC", ether(&m2, &m2, 0x800, &udp("10.0.0.11", "10.0.0.12", 5000)), false);
    check("the services' MAC", ether(&m2, "fa:16:3e:00:00:02", 0x800, &udp("10.0.0.2", "10.0.0.12", 67)), false);
    check("a made-up address", ether(&m2, &m1, 0x800, &udp("10.0.0.77", "10.0.0.12", 5000)), false);
    check("a DHCP server", ether(&m2, &m1, 0x800, &udp("10.0.0.11", "10.0.0.12", 67)), false);
    check("honest ARP", ether(all, &m1, 0x806, &arp(&m1, "10.0.0.11", "10.0.0.12")), true);
    check("ARP for the gateway", ether(all, &m1, 0x806, &arp(&m1, "10.0.0.1", "10.0.0.12")), false);
    check("ARP with another MAC inside", ether(all, &m1, 0x806, &arp(&m2, "10.0.0.11", "10.0.0.12")), false);
    check("another EtherType", ether(&m2, &m1, 0x88b5, b"nubotest"), false);
    check(
        "a VLAN tag",
        ether(&m2, &m1, 0x8100, &[&[0, 100, 8, 0][..], &udp("10.0.0.11", "10.0.0.12", 5000)].concat()),
        false,
    );

    let mut paired = client.port.clone();
    paired.allowed_address_pairs = vec![
        (None, "10.0.0.77/32".parse().unwrap()),
        (Some("02:00:00:00:00:99".into()), "10.9.0.0/16".parse().unwrap()),
    ];
    lab.put(vec![Port(paired)]).await;
    check("an allowed address", ether(&m2, &m1, 0x800, &udp("10.0.0.77", "10.0.0.12", 5000)), true);
    check("an allowed network", ether(&m2, "02:00:00:00:00:99", 0x800, &udp("10.9.1.2", "10.0.0.12", 5000)), true);
    check("that network with another MAC", ether(&m2, &m1, 0x800, &udp("10.9.1.2", "10.0.0.12", 5000)), false);
    lab.agrees().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ipv6_passes_with_neighbour_discovery_and_obeys_the_groups() {
    let Some(Pair { mut lab, client, server }) = pair().await else { return };
    let (mut one, mut two) = (client.port.clone(), server.port.clone());
    for (port, address) in [(&mut one, "fd00::11"), (&mut two, "fd00::12")] {
        port.fixed_ips.push((id("v6").into(), ip(address)));
    }
    let six = RuleSpec { ipv6: true, ..rule(true, Some(ICMP), None) };
    lab.put(vec![Port(one), Port(two), SecurityGroup(group("srv", vec![six]))]).await;
    for (guest, address) in [(&client, "fd00::11/64"), (&server, "fd00::12/64")] {
        let address = netlink::Address { link: "eth0".into(), address: address.parse().unwrap() };
        netlink::route::change_addresses(&guest.ns, &[], &[address]).unwrap();
    }
    wait_for("an IPv6 answer", || pings(&client.ns, ip("fd00::12"))).await;
    assert!(!pings(&server.ns, ip("fd00::11")));
}
