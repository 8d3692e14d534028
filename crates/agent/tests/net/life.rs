//! Restarts, repairs, removal, and two clouds side by side.

use super::lab::*;
use agent::Wiring;
use agent::net::inventory;
use agent_api::ViewObject::*;
use agent_api::*;
use netlink::{Netns, link, nft};
use std::time::{Duration, Instant};

const TCP: u8 = 6;

struct Cloud {
    lab: Lab,
    view: Vec<ViewObject>,
    client: Machine,
    server: Machine,
    router: RouterSpec,
}

async fn cloud(lab: Option<Lab>, outside: &str) -> Option<Cloud> {
    let mut lab = match lab {
        Some(lab) => lab,
        None => Lab::new()?,
    };
    let outside = external(&format!("public {}", lab.cloud), outside, None);
    let net = network("n", "10.0.0.0/24");
    let (cli, srv) = (port("cli", &net, 11, &["open"]), port("srv", &net, 12, &["open"]));
    let mut router = router("r", Some((&outside, 10)), &[&net]);
    router.floating =
        vec![floating(&outside.external.as_ref().unwrap().host_address.to_string().replace(".1/24", ".50"), &srv)];
    let view = vec![
        Network(outside),
        Network(net),
        Port(cli.clone()),
        Port(srv.clone()),
        SecurityGroup(group("open", vec![rule(true, Some(TCP), Some(22))])),
        Router(router.clone()),
    ];
    lab.step(true, view.clone(), vec![]).await;
    let (client, server) = (lab.guest(&cli, Some("10.0.0.1")).await, lab.guest(&srv, Some("10.0.0.1")).await);
    serve(&server.ns, 22);
    Some(Cloud { lab, view, client, server, router })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_leaves_traffic_flowing_and_repairs_what_was_broken_meanwhile() {
    let Some(Cloud { mut lab, view, client, server, router }) = cloud(None, "172.24.4.0/24").await else { return };
    let mut flow = Flow::open(&client.ns, server.ip(), 22, Duration::from_secs(1)).unwrap();
    let mut inward = Flow::open(&lab.underlay, ip("172.24.4.50"), 22, Duration::from_secs(1)).unwrap();
    lab.restart();
    assert!(flow.alive(), "while no driver has a view");
    let began = Instant::now();
    lab.step(true, view.clone(), vec![]).await;
    println!("adoption took {:?}", began.elapsed());
    assert!(flow.alive() && inward.alive(), "after adoption");
    lab.agrees().await;
    let (ports, _) = lab.bridge().observe(true).await;
    assert!(ports.len() == 2 && ports.iter().all(|p| p.up), "{ports:?}");

    // Break a rule, a link, an address and a master, all below the driver.
    let names = agent::net::names::Names::new(&lab.cloud);
    let net_ns = Netns::open(&names.network(&client.port.network)).unwrap().unwrap();
    let router_ns = Netns::open(&names.router(&router.id)).unwrap().unwrap();
    nft::apply(&net_ns, "flush chain bridge nubo antispoof\n").unwrap();
    link::delete(&router_ns, &agent::net::names::inside(&router.interfaces[0].port)).unwrap();
    link::delete(&lab.underlay, &names.gateway(&router.gateway.as_ref().unwrap().port)).unwrap();
    let found = lab.bridge().verify().await;
    for what in ["antispoof", "qr-", "qg-"] {
        assert!(found.iter().any(|d| d.what.contains(what)), "{what} is missed: {found:#?}");
    }
    assert_eq!(call(&lab.underlay, ip("172.24.4.50"), 22), None);
    lab.restart();
    lab.step(true, view.clone(), vec![]).await;
    lab.agrees().await;
    assert!(call_soon(&lab.underlay, ip("172.24.4.50"), 22).is_some());
    assert!(flow.alive());

    // The same again, mended by the standing driver.
    nft::apply(&router_ns, "flush ruleset\n").unwrap();
    nft::apply(&net_ns, "delete table bridge nubo\n").unwrap();
    assert!(!lab.bridge().verify().await.is_empty());
    lab.bridge().repair().await;
    lab.agrees().await;
    // A change right after somebody has taken the rules away still leads to the whole.
    nft::apply(&net_ns, "flush ruleset\n").unwrap();
    lab.put(vec![SecurityGroup(group("open", vec![rule(true, Some(TCP), Some(23))]))]).await;
    assert!(!flow.alive());
    lab.agrees().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_namespace_comes_back() {
    let Some(Cloud { mut lab, view, client, .. }) = cloud(None, "172.24.4.0/24").await else { return };
    let names = agent::net::names::Names::new(&lab.cloud);
    Netns::delete(&names.network(&client.port.network)).unwrap();
    drop(client);
    lab.restart();
    lab.step(true, view, vec![]).await;
    lab.agrees().await;
}

/// What `ip` and `nft` show: an account that is independent of our own listing.
fn account(underlay: &Netns) -> String {
    let run = |program: &str, arguments: &[&str]| {
        let output = underlay.command(program).args(arguments).output().unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    run("ip", &["-br", "link"]) + &run("ip", &["route"]) + &run("nft", &["list", "ruleset"])
}

fn namespaces(lab: &Lab) -> usize {
    let output = std::process::Command::new("ip").args(["netns", "list"]).output().unwrap();
    let cloud = format!("nubo-{}-", lab.cloud);
    String::from_utf8_lossy(&output.stdout).lines().filter(|line| line.starts_with(&cloud)).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn removal_leaves_nothing_and_waits_for_guests_that_still_run() {
    let Some(lab) = Lab::new() else { return };
    let before = account(&lab.underlay);
    let Some(Cloud { mut lab, view, client, server, .. }) = cloud(Some(lab), "172.24.4.0/24").await else { return };
    assert_eq!(namespaces(&lab), 2);
    let found = inventory(&lab.cloud, &lab.underlay).unwrap();
    for object in &found {
        assert!(object.owner.is_some() || object.kind == "nft-table", "nobody's: {object:?}");
    }
    let ids: Vec<String> = view.iter().map(|object| object.key().1.to_owned()).collect();
    for id in [&ids[0], &ids[1], &ids[2], &ids[5]] {
        assert!(found.iter().any(|o| o.owner.as_ref().is_some_and(|(_, owner)| owner == id)), "{id} has nothing");
    }
    let remove: Vec<_> = view.iter().map(|object| (object.key().0, object.key().1.to_owned())).collect();
    lab.step(false, vec![], remove).await;
    assert_eq!(namespaces(&lab), 1, "guests still run in the network");
    lab.bridge().unwire(&client.port.id).await;
    lab.bridge().unwire(&server.port.id).await;
    lab.bridge().unwire(&server.port.id).await;
    wait_for("the network's namespace goes", || namespaces(&lab) == 0).await;
    wait_for("the kernel's links go", || account(&lab.underlay) == before).await;
    assert_eq!(inventory(&lab.cloud, &lab.underlay).unwrap(), vec![]);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_clouds_on_one_machine_do_not_see_each_other_and_purging_one_leaves_the_other_whole() {
    let Some(Cloud { lab: one, client: c1, server: s1, .. }) = cloud(None, "172.24.4.0/24").await else { return };
    let two = Lab::within(one.underlay.clone());
    let Some(Cloud { lab: two, client: c2, server: s2, .. }) = cloud(Some(two), "172.24.5.0/24").await else { return };
    assert!(call(&c1.ns, s1.ip(), 22).is_some() && call(&c2.ns, s2.ip(), 22).is_some());
    one.agrees().await;
    two.agrees().await;
    drop(one);
    wait_for("links go", || link::list(&two.underlay).unwrap().keys().filter(|n| n.starts_with("qg-")).count() == 1)
        .await;
    assert!(call(&c2.ns, s2.ip(), 22).is_some());
    assert!(call(&two.underlay, ip("172.24.5.50"), 22).is_some());
    two.agrees().await;
    assert_eq!(namespaces(&two), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tap_is_opened_for_a_port_that_arrives_a_moment_later_and_refused_for_one_that_never_does() {
    let Some(mut lab) = Lab::new() else { return };
    let net = network("n", "10.0.0.0/24");
    let late = port("late", &net, 11, &["open"]);
    let fault = lab.bridge().open_tap(&late.id).await.unwrap_err();
    assert!(fault.retried, "{fault:?}");
    lab.options.port_patience = Duration::from_secs(20);
    lab.restart();
    let view = ViewDelta { version: 1, whole: false, put: vec![Network(net), Port(late.clone())], remove: vec![] };
    let (tap, ()) = tokio::join!(lab.bridge().open_tap(&late.id), lab.bridge().apply(&view));
    let tap = tap.unwrap();
    let names = agent::net::names::Names::new(&lab.cloud);
    let ns = Netns::open(&names.network(&late.network)).unwrap().unwrap();
    let name = agent::net::names::tap(&late.id);
    assert_eq!(link::list(&ns).unwrap()[&name].master, None, "not in the bridge before its guest holds it");
    lab.bridge().wire(&late.id).await.unwrap();
    assert!(link::list(&ns).unwrap()[&name].master.is_some());
    assert_eq!(asks_by_tap(&tap, &late, "10.0.0.2"), Some("fa:16:3e:00:00:02".into()), "the services' address");
    let mut thief = late.clone();
    thief.mac = "fa:16:3e:01:99:99".into();
    assert_eq!(asks_by_tap(&tap, &thief, "10.0.0.2"), None, "another MAC");
    let busy = lab.bridge().open_tap(&late.id).await.unwrap_err();
    assert!(busy.retried, "a running guest's tap is not taken away");
    lab.agrees().await;
    drop(tap);
    let gone = lab.bridge().wire(&late.id).await.unwrap_err();
    assert!(gone.retried);
    lab.bridge().unwire(&late.id).await;
    let (ports, _) = lab.bridge().observe(true).await;
    assert!(!ports[0].up);
}

/// Asks by ARP for an address, as a guest behind the tap; the MAC that answers.
fn asks_by_tap(tap: &std::os::fd::OwnedFd, port: &PortSpec, target: &str) -> Option<String> {
    let std::net::IpAddr::V4(own) = port.fixed_ips[0].1 else { panic!("IPv4") };
    let target: std::net::Ipv4Addr = target.parse().unwrap();
    let mac = netlink::mac(&port.mac).unwrap();
    // Ten bytes that say that nothing is left to be computed, then the frame.
    let mut frame = vec![0u8; 10];
    frame.extend([0xff; 6]);
    frame.extend(mac);
    frame.extend([8, 6, 0, 1, 8, 0, 6, 4, 0, 1]);
    frame.extend(mac);
    frame.extend(own.octets());
    frame.extend([0; 6]);
    frame.extend(target.octets());
    nix::unistd::write(tap, &frame).unwrap();
    let end = Instant::now() + Duration::from_millis(300);
    let mut buffer = [0u8; 2048];
    while Instant::now() < end {
        match nix::unistd::read(tap, &mut buffer) {
            Ok(length) if length >= 52 && buffer[22..24] == [8, 6] && buffer[38..42] == target.octets() => {
                return Some(netlink::mac_text(&buffer[32..38]));
            }
            Ok(_) => {}
            Err(_) => std::thread::sleep(Duration::from_millis(2)),
        }
    }
    None
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_specs_are_left_out_and_the_rest_is_carried_out() {
    let Some(mut lab) = Lab::new() else { return };
    let net = network("n", "10.0.0.0/24");
    let mut bad = port("bad", &net, 11, &["open"]);
    bad.mac = "aa:bb\"; flush ruleset".into();
    let mut uplink = external("public", "172.24.4.0/24", Some("eth0\" drop; #"));
    uplink.service_mac = None;
    let mut odd = port("odd", &net, 12, &["open"]);
    odd.id = "not-a-uuid; \" drop".into();
    odd.security_groups = vec!["}} flush ruleset".into()];
    lab.put(vec![Network(net), Network(uplink), Port(bad.clone()), Port(odd.clone())]).await;
    lab.agrees().await;
    assert!(lab.bridge().open_tap(&bad.id).await.is_err());
    assert!(lab.bridge().open_tap(&odd.id).await.is_ok());
}
