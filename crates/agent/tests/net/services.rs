//! DHCP and metadata, asked for by real clients, served by a process without privileges.

use super::lab::*;
use agent_api::ViewObject::*;
use agent_api::*;
use netlink::{LinkSet, Route, link, route};
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::process::Stdio;
use std::time::{Duration, Instant};

const METADATA: IpAddr = IpAddr::V4(agent::net::names::METADATA);

fn server_of(port: &PortSpec, name: &str) -> ViewObject {
    let id = port.server.clone().unwrap();
    let metadata =
        InstanceMetadata { uuid: id.clone(), name: name.into(), hostname: name.into(), ..Default::default() };
    ViewObject::Guest(GuestSpec {
        id,
        generation: 1,
        power: DesiredPower::Running,
        power_generation: 1,
        at_once: false,
        soft_reboots: 0,
        hard_reboots: 0,
        vcpus: 1,
        memory_mib: 64,
        root: Some(RootDisk {
            image: "i".into(),
            format: DiskFormat::Qcow2,
            sha512: String::new(),
            image_bytes: 0,
            size_gib: 0,
            flat: false,
        }),
        volumes: Vec::new(),
        nics: vec![],
        on_crash: OnCrash::Stop,
        config_drive: false,
        metadata,
    })
}

/// Runs a DHCP client; what it was told, by the names that busybox gives it.
fn dhcp(guest: &Machine, arguments: &[&str]) -> Option<BTreeMap<String, String>> {
    let folder = tempfile::tempdir().unwrap();
    let (script, told) = (folder.path().join("script"), folder.path().join("told"));
    std::fs::write(
        &script,
        format!("#!/bin/sh\n[ \"$1\" = bound ] && env > {}.new && mv {0}.new {0}\nexit 0\n", told.display()),
    )
    .unwrap();
    std::fs::set_permissions(&script, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let client = guest
        .ns
        .command("busybox")
        .args(["udhcpc", "-f", "-i", "eth0", "-n", "-q", "-t", "4", "-T", "1", "-O", "121", "-O", "26", "-s"])
        .arg(&script)
        .args(arguments)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    assert!(client.is_ok(), "busybox is needed");
    let text = std::fs::read_to_string(told).ok()?;
    Some(text.lines().filter_map(|line| line.split_once('=')).map(|(k, v)| (k.to_owned(), v.to_owned())).collect())
}

/// A guest as it is before it has an address.
async fn bare(lab: &Lab, port: &PortSpec) -> Machine {
    let guest = lab.guest(port, None).await;
    let address = netlink::Address { link: "eth0".into(), address: ipnet::IpNet::new(guest.ip(), 24).unwrap() };
    route::change_addresses(&guest.ns, &[address], &[]).unwrap();
    guest
}

/// What a guest does with its lease.
fn take_lease(guest: &Machine, told: &BTreeMap<String, String>) {
    let address = ipnet::IpNet::new(told["ip"].parse().unwrap(), told["mask"].parse().unwrap()).unwrap();
    route::change_addresses(&guest.ns, &[], &[netlink::Address { link: "eth0".into(), address }]).unwrap();
    let words: Vec<&str> = told["staticroutes"].split(' ').collect();
    for pair in words.chunks(2).filter(|pair| pair.len() == 2) {
        let to = if pair[0] == "default" { "0.0.0.0/0" } else { pair[0] };
        let way = Route { to: to.parse().unwrap(), via: Some(ip(pair[1])), link: Some("eth0".into()) };
        route::change_routes(&guest.ns, &[], &[way]).unwrap();
    }
}

fn get(guest: &Machine, path: &str) -> Option<(u16, String)> {
    let to = SocketAddr::new(METADATA, 80);
    let mut stream = guest.ns.run(|| Ok(TcpStream::connect_timeout(&to, Duration::from_secs(1)))).unwrap().ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
    stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").as_bytes()).ok()?;
    let mut text = String::new();
    stream.read_to_string(&mut text).ok()?;
    let (head, body) = text.split_once("\r\n\r\n")?;
    Some((head.split(' ').nth(1)?.parse().ok()?, body.to_owned()))
}

async fn one_guest(lab: &mut Lab) -> (Machine, Vec<ViewObject>) {
    let net = network("n", "10.0.0.0/24");
    // In no group at all: an address and metadata are there all the same.
    let a = port("a", &net, 11, &[]);
    let view = vec![Network(net), Port(a.clone()), server_of(&a, "guest-a")];
    lab.step(true, view.clone(), vec![]).await;
    (bare(lab, &a).await, view)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_gets_its_address_and_routes_and_reads_its_own_metadata() {
    let Some(mut lab) = Lab::with_services() else { return };
    let (guest, _) = one_guest(&mut lab).await;
    for way in [&["-B"][..], &[]] {
        let told = dhcp(&guest, way).expect("a lease");
        assert_eq!((told["ip"].as_str(), told["mask"].as_str()), ("10.0.0.11", "24"), "{told:?}");
        assert_eq!(told["staticroutes"], "169.254.169.254/32 10.0.0.2 0.0.0.0/0 10.0.0.1");
        assert_eq!((told["mtu"].as_str(), told["hostname"].as_str()), ("1450", "a"));
        assert_eq!((told["dns"].as_str(), told["serverid"].as_str()), ("192.0.2.53", "10.0.0.2"));
    }
    take_lease(&guest, &dhcp(&guest, &[]).unwrap());
    let (status, body) = get(&guest, "/openstack/latest/meta_data.json").unwrap();
    assert!(status == 200 && body.contains("guest-a"), "{status} {body}");
    assert_eq!(get(&guest, "/latest/meta-data/hostname").unwrap(), (200, "guest-a".to_owned()));
    assert_eq!(get(&guest, "/openstack/latest/nothing").unwrap().0, 404);
    lab.agrees().await;

    let (_, netd) = agent::netd::status(lab.socket()).unwrap();
    let status = std::fs::read_to_string(format!("/proc/{netd}/status")).unwrap();
    let line = |name: &str| status.lines().find_map(|l| l.strip_prefix(name)).unwrap().trim().to_owned();
    assert!(line("Uid:").starts_with("65534\t65534\t65534"), "{}", line("Uid:"));
    assert_eq!((line("CapEff:"), line("CapPrm:")), ("0000000000000000".to_owned(), "0000000000000000".to_owned()));
    let here = |pid: &str| std::fs::read_link(format!("/proc/{pid}/ns/net")).unwrap();
    assert_ne!(here(&netd.to_string()), here("self"));
}

#[tokio::test(flavor = "multi_thread")]
async fn guests_of_overlapping_networks_each_read_their_own_metadata() {
    let Some(mut lab) = Lab::with_services() else { return };
    let (n1, n2) = (network("n1", "10.0.0.0/24"), network("n2", "10.0.0.0/24"));
    let (a, b) = (port("a", &n1, 11, &[]), port("b", &n2, 11, &[]));
    lab.put(vec![Network(n1), Network(n2), Port(a.clone()), Port(b.clone())]).await;
    lab.put(vec![server_of(&a, "guest-a"), server_of(&b, "guest-b")]).await;
    for (port, name) in [(&a, "guest-a"), (&b, "guest-b")] {
        let guest = bare(&lab, port).await;
        take_lease(&guest, &dhcp(&guest, &[]).expect("a lease"));
        assert_eq!(get(&guest, "/latest/meta-data/hostname").unwrap().1, name);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn services_go_on_while_the_agent_is_away_and_a_killed_netd_comes_back() {
    let Some(mut lab) = Lab::with_services() else { return };
    let (guest, view) = one_guest(&mut lab).await;
    take_lease(&guest, &dhcp(&guest, &[]).expect("a lease"));
    let (_, first) = agent::netd::status(lab.socket()).unwrap();
    lab.bridge = None;
    assert!(dhcp(&guest, &[]).is_some(), "no agent");
    assert_eq!(get(&guest, "/latest/meta-data/hostname").unwrap().1, "guest-a");
    lab.restart();
    lab.step(true, view.clone(), vec![]).await;
    assert_eq!(agent::netd::status(lab.socket()).unwrap().1, first, "adopted");
    assert!(dhcp(&guest, &[]).is_some(), "after adoption");

    nix::sys::signal::kill(nix::unistd::Pid::from_raw(first as i32), nix::sys::signal::Signal::SIGKILL).unwrap();
    wait_for("a new netd", || agent::netd::status(lab.socket()).is_some_and(|(_, pid)| pid != first)).await;
    lab.bridge().settled().await;
    assert!(dhcp(&guest, &[]).is_some(), "by the new one");
    assert_eq!(get(&guest, "/latest/meta-data/hostname").unwrap().1, "guest-a");

    // A bridge that was deleted comes back with new sockets.
    let names = agent::net::names::Names::new(&lab.cloud);
    let ns = netlink::Netns::open(&names.network(&guest.port.network)).unwrap().unwrap();
    link::delete(&ns, "br0").unwrap();
    lab.bridge().repair().await;
    link::set(&ns, &agent::net::names::tap(&guest.port.id), &LinkSet { up: Some(true), ..Default::default() }).unwrap();
    agent::Wiring::wire(lab.bridge(), &guest.port.id).await.unwrap();
    assert!(dhcp(&guest, &[]).is_some(), "on the new bridge");
    lab.agrees().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_that_holds_connections_open_keeps_only_itself_from_metadata() {
    let Some(mut lab) = Lab::with_services() else { return };
    let net = network("n", "10.0.0.0/24");
    let (a, b) = (port("a", &net, 11, &[]), port("b", &net, 12, &[]));
    lab.put(vec![Network(net), Port(a.clone()), Port(b.clone()), server_of(&a, "greedy"), server_of(&b, "other")])
        .await;
    let mut guests = Vec::new();
    for port in [&a, &b] {
        let guest = bare(&lab, port).await;
        take_lease(&guest, &dhcp(&guest, &[]).expect("a lease"));
        guests.push(guest);
    }
    let to = SocketAddr::new(METADATA, 80);
    let open = || guests[0].ns.run(|| Ok(TcpStream::connect_timeout(&to, Duration::from_secs(1)))).unwrap();
    let mut held: Vec<TcpStream> = (0..64).filter_map(|_| open().ok()).collect();
    for stream in &mut held {
        let _ = stream.write_all(b"GET / HTTP/1.1\r\nX-Slow: ");
    }
    let began = Instant::now();
    assert_eq!(get(&guests[1], "/latest/meta-data/hostname").unwrap().1, "other");
    assert!(began.elapsed() < Duration::from_secs(1));
    assert!(get(&guests[0], "/latest/meta-data/hostname").is_none());
    drop(held);
    wait_for("its own turn", || get(&guests[0], "/latest/meta-data/hostname").is_some()).await;
    let huge = format!("/{}", "x".repeat(100_000));
    assert!(get(&guests[0], &huge).is_none_or(|(status, _)| (400..500).contains(&status)));
}
