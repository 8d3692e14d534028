//! What hosts are told: whatever happens, the touched objects are all that differ.

use crate::cloud::*;
use agent_api::{PortObserved, ViewKind, ViewObject};
use base::{Env, HostName};
use contract::{Ports, Projector, ServerPort, Touched, Where};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use store::{Event, Watch};

const HOSTS: [&str; 2] = ["host-a", "host-b"];

const SERVERS: [&str; 4] = ["server-0", "server-1", "server-2", "server-3"];

type View = BTreeMap<(ViewKind, String), ViewObject>;

/// Follows the watch as control does, and compares with the whole.
struct Follower {
    watch: Watch,
    views: BTreeMap<&'static str, View>,
    ports: BTreeMap<String, Vec<ServerPort>>,
}

impl Follower {
    fn new(cloud: &Cloud) -> Follower {
        Follower { watch: cloud.store.watch(), views: HOSTS.iter().map(|host| (*host, View::new())).collect(), ports: BTreeMap::new() }
    }

    async fn follow(&mut self, cloud: &Cloud) {
        let mut changes = Vec::new();
        while let Some(event) = self.watch.try_next() {
            let Event::Revision(revision) = event else { panic!("the watch lost a revision") };
            changes.extend(revision.changes.iter().cloned());
        }
        let net = cloud.net.clone();
        let mut views = std::mem::take(&mut self.views);
        let mut ports = std::mem::take(&mut self.ports);
        (self.views, self.ports) = cloud.store.read(move |reader| {
            let mut touched = Touched::default();
            for change in &changes {
                net.touched(reader, change, &mut touched)?;
                for server in net.servers_touched(reader, change)?.expect("known without looking at all") {
                    ports.insert(server.to_string(), net.of_server(reader, &server)?);
                }
            }
            for (_, kind, id) in touched.0.iter().filter(|(place, _, _)| *place == Where::Anywhere) {
                let mut there = net.everywhere(reader, *kind, id)?;
                for host in HOSTS.map(HostName::from) {
                    assert_eq!(there.remove(&host), net.one(reader, &host, *kind, id)?, "{kind:?} {id} on {host}");
                }
                assert!(there.is_empty(), "{kind:?} {id} on {:?}", there.keys());
            }
            for (place, kind, id) in &touched.0 {
                for (host, view) in views.iter_mut().filter(|(host, _)| match place {
                    Where::On(only) => only.as_str() == **host,
                    Where::Anywhere => true,
                }) {
                    match net.one(reader, &HostName::from(*host), *kind, id)? {
                        Some(object) => view.insert((*kind, id.clone()), object),
                        None => view.remove(&(*kind, id.clone())),
                    };
                }
            }
            Ok((std::mem::take(&mut views), std::mem::take(&mut ports)))
        }).await.unwrap();
    }

    async fn compare(&self, cloud: &Cloud, after: &str) {
        for host in HOSTS {
            let net = cloud.net.clone();
            let whole = cloud.store.read(move |reader| net.whole(reader, &host.into())).await.unwrap();
            let whole: View = whole.into_iter().map(|object| {
                let (kind, id) = object.key();
                ((kind, id.to_owned()), object)
            }).collect();
            assert_eq!(self.views[host].keys().collect::<Vec<_>>(), whole.keys().collect::<Vec<_>>(), "{host} after {after}");
            assert_eq!(self.views[host], whole, "{host} after {after}");
        }
        for server in SERVERS {
            let net = cloud.net.clone();
            let ports = cloud.store.read(move |reader| net.of_server(reader, &server.into())).await.unwrap();
            assert_eq!(self.ports.get(server).cloned().unwrap_or_default(), ports, "{server} after {after}");
        }
    }
}

async fn pick(cloud: &Cloud, env: &Env, path: &str) -> Option<Value> {
    let many = path.replace('-', "_");
    let list = cloud.get(ADMIN, &format!("/v2.0/{path}")).await;
    let list = list[&many].as_array().unwrap();
    (!list.is_empty()).then(|| list[env.random.below(list.len() as u64) as usize]["id"].clone())
}

/// One random call. Refusals are fine: the point is what hosts hear.
async fn step(cloud: &Cloud, env: &Env, n: u64) -> String {
    let roll = |bound: u64| env.random.below(bound);
    let server = format!("server-{}", roll(4));
    let (kind, a, b) = (roll(17), roll(4), roll(2) == 0);
    match kind {
        0 => {
            let network = pick(cloud, env, "networks").await;
            cloud.ask(DEMO, "POST", "/v2.0/subnets", json!({"subnet": {"network_id": network, "cidr": format!("10.{n}.0.0/24"), "ip_version": 4}})).await;
            "subnet".into()
        }
        1 | 2 => {
            let Some(network) = pick(cloud, env, "networks").await else { return String::new() };
            let _ = cloud.attach(DEMO, &server, on(&json!({"id": network})), &[]).await;
            format!("attach {server}")
        }
        3 | 4 => {
            cloud.bind(&server, match a { 0 => None, 1 | 2 => Some("host-a"), _ => Some("host-b") }).await;
            format!("bind {server} {a}")
        }
        5 => {
            cloud.detach_all(&server).await;
            format!("detach {server}")
        }
        6 if b => {
            let Some(group) = pick(cloud, env, "security-groups").await else { return String::new() };
            cloud.change(ADMIN, "security-groups", &group, json!({"name": format!("renamed{n}")})).await;
            "group renamed".into()
        }
        6 => {
            let _ = cloud.ask(DEMO, "POST", "/v2.0/security-groups", json!({"security_group": {"name": format!("g{n}")}})).await;
            "group".into()
        }
        7 => {
            let (group, remote) = (pick(cloud, env, "security-groups").await, pick(cloud, env, "security-groups").await);
            cloud.ask(DEMO, "POST", "/v2.0/security-group-rules", json!({"security_group_rule": {"security_group_id": group, "direction": "ingress", "remote_group_id": remote}})).await;
            "rule".into()
        }
        8 => {
            let (port, group) = (pick(cloud, env, "ports").await, pick(cloud, env, "security-groups").await);
            let Some(port) = port else { return String::new() };
            cloud.change(ADMIN, "ports", &port, json!({"security_groups": if b { json!([group]) } else { json!([]) }})).await;
            "port groups".into()
        }
        9 => {
            let Some(rule) = pick(cloud, env, "security-group-rules").await else { return String::new() };
            cloud.delete(ADMIN, &format!("/v2.0/security-group-rules/{}", text(&rule))).await;
            "rule gone".into()
        }
        10 => {
            let (router, subnet) = (pick(cloud, env, "routers").await, pick(cloud, env, "subnets").await);
            let Some(router) = router else { return String::new() };
            let verb = if b { "add" } else { "remove" };
            cloud.ask(ADMIN, "PUT", &format!("/v2.0/routers/{}/{verb}_router_interface", text(&router)), json!({"subnet_id": subnet})).await;
            cloud.settle().await;
            format!("{verb} interface")
        }
        11 => {
            let (port, floating) = (pick(cloud, env, "ports").await, pick(cloud, env, "floatingips").await);
            let Some(floating) = floating else { return String::new() };
            cloud.change(ADMIN, "floatingips", &floating, json!({"port_id": if b { port } else { None }})).await;
            "associate".into()
        }
        12 => {
            let path = ["networks", "subnets", "security-groups", "floatingips"][a as usize];
            let Some(object) = pick(cloud, env, path).await else { return String::new() };
            cloud.delete(ADMIN, &format!("/v2.0/{path}/{}", text(&object))).await;
            format!("delete of {path}")
        }
        13 => {
            let Some(subnet) = pick(cloud, env, "subnets").await else { return String::new() };
            cloud.change(ADMIN, "subnets", &subnet, json!({"enable_dhcp": b, "dns_nameservers": [format!("9.9.9.{a}")]})).await;
            "subnet change".into()
        }
        14 => {
            let Some(router) = pick(cloud, env, "routers").await else { return String::new() };
            let network = cloud.get(ADMIN, "/v2.0/networks?router:external=true").await["networks"][0]["id"].clone();
            let info = if b { json!({"network_id": network, "enable_snat": a == 0}) } else { json!({}) };
            cloud.change(ADMIN, "routers", &router, json!({"external_gateway_info": info})).await;
            cloud.settle().await;
            "gateway".into()
        }
        15 => {
            let Some(port) = pick(cloud, env, "ports").await else { return String::new() };
            let seen = PortObserved { id: text(&port).into(), up: b, fault: None };
            cloud.ports_seen(HOSTS[a as usize % 2], vec![seen]).await;
            "report".into()
        }
        _ => {
            let Some(network) = pick(cloud, env, "networks").await else { return String::new() };
            cloud.change(ADMIN, "networks", &network, json!({"admin_state_up": b, "mtu": 1300 + a, "name": format!("n{n}")})).await;
            "network change".into()
        }
    }
}

#[tokio::test]
async fn touched_objects_are_all_that_changes() {
    for seed in 0..6 {
        let cloud = Cloud::new().await;
        let mut follower = Follower::new(&cloud);
        let (env, _) = Env::seeded(seed);
        let (public, _) = cloud.public().await;
        for n in 0..2 {
            cloud.net_with(DEMO, &format!("192.168.{n}.0/24")).await;
            cloud.make(DEMO, "routers", json!({"name": "r", "external_gateway_info": {"network_id": public["id"]}})).await;
            cloud.make(DEMO, "floatingips", json!({"floating_network_id": public["id"]})).await;
        }
        cloud.settle().await;
        for n in 0..150 {
            let what = step(&cloud, &env, n).await;
            follower.follow(&cloud).await;
            follower.compare(&cloud, &format!("seed {seed} step {n}: {what}")).await;
        }
    }
}

#[tokio::test]
async fn a_host_is_told_what_a_first_server_needs() {
    let cloud = Cloud::new().await;
    let (public, _) = cloud.public().await;
    let (network, subnet) = cloud.net_with(DEMO, "10.0.0.0/24").await;
    let router = cloud.make(DEMO, "routers", json!({"name": "r", "external_gateway_info": {"network_id": public["id"]}})).await;
    cloud.ask(DEMO, "PUT", &format!("/v2.0/routers/{}/add_router_interface", text(&router["id"])), json!({"subnet_id": subnet["id"]})).await;
    let ports = cloud.attach(DEMO, "s1", on(&network), &[]).await.unwrap();
    cloud.make(DEMO, "floatingips", json!({"floating_network_id": public["id"], "port_id": ports[0].id})).await;
    cloud.bind("s1", Some("host-a")).await;
    cloud.settle().await;
    let net = cloud.net.clone();
    let whole = cloud.store.read(move |reader| net.whole(reader, &"host-a".into())).await.unwrap();
    let mut lines = Vec::new();
    for object in &whole {
        lines.push(match object {
            ViewObject::Network(it) => format!(
                "network mtu {} subnets {:?} external {:?} service {:?}", it.mtu,
                it.subnets.iter().map(|subnet| format!("{} via {:?} dhcp {}", subnet.cidr, subnet.gateway, subnet.dhcp)).collect::<Vec<_>>(),
                it.external.as_ref().map(|external| external.host_address.to_string()), it.service_addresses
            ),
            ViewObject::Port(it) => format!("port of {:?} called {:?} at {:?} secured {}", it.server, it.hostname, it.fixed_ips[0].1, it.port_security),
            ViewObject::Router(it) => format!(
                "router gateway {:?} next {:?} snat {:?} interfaces {:?} floating {:?}",
                it.gateway.as_ref().map(|gateway| &gateway.addresses), it.gateway.as_ref().map(|gateway| &gateway.next_hops), it.gateway.as_ref().map(|gateway| gateway.snat),
                it.interfaces.iter().map(|interface| &interface.addresses).collect::<Vec<_>>(),
                it.floating.iter().map(|floating| (floating.floating, floating.fixed)).collect::<Vec<_>>()
            ),
            ViewObject::SecurityGroup(it) => format!("group with {} rules", it.rules.len()),
            ViewObject::AddressSet(it) => format!("addresses {:?}", it.addresses),
            ViewObject::Guest(_) => "guest".into(),
            ViewObject::Volume(_) => "volume".into(),
        });
    }
    lines.sort();
    expect_test::expect![[r#"
        addresses [10.0.0.3/32]
        group with 4 rules
        network mtu 1450 subnets ["10.0.0.0/24 via Some(10.0.0.1) dhcp true"] external None service [10.0.0.2]
        network mtu 1500 subnets ["172.24.4.0/24 via Some(172.24.4.1) dhcp false"] external Some("172.24.4.1/24") service []
        port of Some(ServerId(s1)) called Some("guest") at 10.0.0.3 secured true
        router gateway Some([172.24.4.10/24]) next Some([172.24.4.1]) snat Some(true) interfaces [[10.0.0.1/24]] floating [(172.24.4.11, 10.0.0.3)]"#]]
    .assert_eq(&lines.join("\n"));
}
