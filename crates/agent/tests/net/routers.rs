//! Routers: between subnets, outward, inward by floating addresses, and with overlapping networks.

use super::lab::*;
use agent_api::ViewObject::*;
use agent_api::*;
use netlink::nft;
use std::time::{Duration, Instant};

const TCP: u8 = 6;

fn open_group() -> SecurityGroupSpec {
    group("open", vec![rule(true, Some(TCP), Some(22)), rule(true, Some(1), None)])
}

#[tokio::test(flavor = "multi_thread")]
async fn a_router_carries_between_subnets_outward_and_inward_by_floating_addresses() {
    let Some(mut lab) = Lab::new() else { return };
    let outside = external("public", "172.24.4.0/24", None);
    let (n1, n2) = (network("n1", "10.0.0.0/24"), network("n2", "10.0.1.0/24"));
    let (a, b) = (port("a", &n1, 11, &["open"]), port("b", &n2, 11, &["open"]));
    let mut r = router("r", Some((&outside, 10)), &[&n1, &n2]);
    let began = Instant::now();
    lab.put(vec![
        Network(outside.clone()),
        Network(n1.clone()),
        Network(n2.clone()),
        Port(a.clone()),
        Port(b.clone()),
        SecurityGroup(open_group()),
        Router(r.clone()),
    ])
    .await;
    println!("two networks and a router took {:?}", began.elapsed());
    let ga = lab.guest(&a, Some("10.0.0.1")).await;
    let gb = lab.guest(&b, Some("10.0.1.1")).await;
    serve(&ga.ns, 22);
    serve(&gb.ns, 22);
    serve(&lab.underlay, 8000);
    let host = ip("172.24.4.1");
    assert_eq!(call_soon(&ga.ns, gb.ip(), 22).as_deref(), Some("10.0.0.11"), "between the subnets");
    assert_eq!(call(&ga.ns, host, 8000).as_deref(), Some("172.24.4.10"), "outward by the gateway's address");
    lab.agrees().await;

    r.floating = vec![floating("172.24.4.50", &a)];
    let began = Instant::now();
    lab.put(vec![Router(r.clone())]).await;
    println!("a floating address took {:?}", began.elapsed());
    assert_eq!(call(&lab.underlay, ip("172.24.4.50"), 22).as_deref(), Some("172.24.4.1"), "inward");
    assert_eq!(call(&lab.underlay, ip("172.24.4.50"), 80), None, "the group holds");
    assert_eq!(call(&ga.ns, host, 8000).as_deref(), Some("172.24.4.50"), "outward by its floating address");
    assert_eq!(call(&gb.ns, ip("172.24.4.50"), 22).as_deref(), Some("172.24.4.10"), "hairpin");
    let mut flow = Flow::open(&lab.underlay, ip("172.24.4.50"), 22, Duration::from_millis(600)).unwrap();
    let (_, routers) = agent::Wiring::observe(lab.bridge(), true).await;
    assert_eq!(routers[0].floating, vec![r.floating[0].id.clone()]);
    assert!(routers[0].up);

    // The same address for another guest: old flows end, new ones arrive there.
    r.floating = vec![floating("172.24.4.50", &b)];
    lab.put(vec![Router(r.clone())]).await;
    assert!(!flow.alive());
    assert_eq!(call(&gb.ns, host, 8000).as_deref(), Some("172.24.4.50"));
    lab.agrees().await;

    r.gateway = None;
    r.floating.clear();
    lab.put(vec![Router(r.clone())]).await;
    assert_eq!(call(&ga.ns, host, 8000), None);
    assert_eq!(call(&ga.ns, gb.ip(), 22).as_deref(), Some("10.0.0.11"));
    lab.agrees().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_routers_carry_the_same_range_at_once_and_a_floating_address_moves_between_them() {
    let Some(mut lab) = Lab::new() else { return };
    let outside = external("public", "172.24.4.0/24", None);
    let (n1, n2) = (network("n1", "10.0.0.0/24"), network("n2", "10.0.0.0/24"));
    let (a, b) = (port("a", &n1, 11, &["open"]), port("b", &n2, 11, &["open"]));
    let (mut r1, mut r2) = (router("r1", Some((&outside, 10)), &[&n1]), router("r2", Some((&outside, 20)), &[&n2]));
    r1.floating = vec![floating("172.24.4.50", &a)];
    let mut all = vec![Network(outside.clone()), Network(n1), Network(n2), Port(a.clone()), Port(b.clone())];
    all.extend([SecurityGroup(open_group()), Router(r1.clone()), Router(r2.clone())]);
    lab.put(all).await;
    let ga = lab.guest(&a, Some("10.0.0.1")).await;
    let gb = lab.guest(&b, Some("10.0.0.1")).await;
    serve(&ga.ns, 22);
    serve(&lab.underlay, 8000);
    let host = ip("172.24.4.1");
    assert_eq!(call_soon(&ga.ns, host, 8000).as_deref(), Some("172.24.4.50"));
    assert_eq!(call_soon(&gb.ns, host, 8000).as_deref(), Some("172.24.4.20"));
    assert_eq!(call(&gb.ns, ip("172.24.4.50"), 22).as_deref(), Some("172.24.4.20"), "between the routers");
    assert!(call(&lab.underlay, ip("172.24.4.50"), 22).is_some());
    r2.floating = vec![floating("172.24.4.50", &b)];
    r1.floating.clear();
    serve(&gb.ns, 22);
    lab.put(vec![Router(r1), Router(r2)]).await;
    assert!(call(&lab.underlay, ip("172.24.4.50"), 22).is_some(), "the new router said that it has the address");
    lab.agrees().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_external_network_masquerades_only_where_told_and_puts_the_uplink_back() {
    let Some(mut lab) = Lab::new() else { return };
    // The world beyond the host: it knows no way to the cloud's addresses.
    let world = netlink::Netns::scratch().unwrap();
    use netlink::link;
    let peer = link::VethPeer { name: "up1".into(), mac: None, mtu: None, namespace: world.clone() };
    let kind = link::NewKind::Veth { peer: Box::new(peer) };
    link::create(&lab.underlay, &netlink::NewLink { name: "up0".into(), mac: None, mtu: None, kind }).unwrap();
    for (ns, name, address) in [(&lab.underlay, "up0", "198.51.100.1/24"), (&world, "up1", "198.51.100.2/24")] {
        link::set(ns, name, &netlink::LinkSet { up: Some(true), ..Default::default() }).unwrap();
        let address = netlink::Address { link: name.into(), address: address.parse().unwrap() };
        netlink::route::change_addresses(ns, &[], &[address]).unwrap();
    }
    serve(&world, 8000);
    let off = Some("0".to_owned());
    lab.underlay.sysctl(&[("net/ipv4/conf/up0/forwarding".into(), "0".into())]).unwrap();
    let (outside, n1) = (external("public", "172.24.4.0/24", None), network("n1", "10.0.0.0/24"));
    let a = port("a", &n1, 11, &["open"]);
    let r = router("r", Some((&outside, 10)), &[&n1]);
    let beyond = ip("198.51.100.2");
    let underlay = lab.underlay.clone();
    let forwarding = move || underlay.sysctl_read(&["net/ipv4/conf/up0/forwarding".into()]).unwrap()[0].clone();
    lab.put(vec![Network(outside), Network(n1), Port(a.clone()), SecurityGroup(open_group()), Router(r)]).await;
    let guest = lab.guest(&a, Some("10.0.0.1")).await;
    assert_eq!(call(&guest.ns, beyond, 8000), None, "not told to masquerade");
    assert_eq!(forwarding(), off);
    lab.put(vec![Network(external("public", "172.24.4.0/24", Some("up0")))]).await;
    assert_eq!(call_soon(&guest.ns, beyond, 8000).as_deref(), Some("198.51.100.1"));
    assert_eq!(forwarding(), Some("1".to_owned()));
    lab.agrees().await;
    lab.restart();
    lab.step(true, vec![], vec![]).await;
    assert_eq!(forwarding(), off, "put back also by an agent that was started later");
    assert!(nft::tables(&lab.underlay).unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_external_network_that_overlaps_the_hosts_is_refused_and_said() {
    let Some(mut lab) = Lab::new() else { return };
    let address = netlink::Address { link: "lo".into(), address: "172.24.4.9/24".parse().unwrap() };
    netlink::route::change_addresses(&lab.underlay, &[], std::slice::from_ref(&address)).unwrap();
    let conflicts = agent::net::external_conflicts(&lab.underlay, "172.24.0.0/16".parse().unwrap(), None).unwrap();
    assert!(conflicts.iter().any(|c| c.contains("172.24.4.0/24") || c.contains("172.24.4.9")), "{conflicts:?}");
    let (outside, n1) = (external("public", "172.24.4.0/24", None), network("n1", "10.0.0.0/24"));
    let r = router("r", Some((&outside, 10)), &[&n1]);
    lab.put(vec![Network(outside), Network(n1), Router(r)]).await;
    let (_, routers) = agent::Wiring::observe(lab.bridge(), true).await;
    assert!(!routers[0].up && routers[0].fault.as_deref().is_some_and(|f| f.contains("172.24.4.")), "{routers:?}");
    assert!(netlink::link::list(&lab.underlay).unwrap().keys().all(|name| !name.starts_with("nubr-")));
}
