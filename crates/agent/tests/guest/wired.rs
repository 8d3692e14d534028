//! A guest on a network: DHCP, metadata, a floating address, and what reboots and restarts do to them.

use crate::fixture::{self, Fixture, spec};
use crate::lab::*;
use agent::Wiring;
use agent::net::{Bridge, ServiceOptions};
use agent_api::ViewObject as Object;
use agent_api::*;
use netlink::Netns;
use std::io::Read;
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// What the SSH server at an address says first.
fn ssh_banner(from: &Netns, to: IpAddr) -> Option<String> {
    let patience = Duration::from_secs(2);
    let to = SocketAddr::new(to, 22);
    let mut stream = from.run(|| Ok(TcpStream::connect_timeout(&to, patience))).unwrap().ok()?;
    stream.set_read_timeout(Some(patience)).unwrap();
    let mut banner = [0u8; 8];
    stream.read_exact(&mut banner).ok()?;
    Some(String::from_utf8_lossy(&banner).into_owned())
}

async fn until_ssh(from: &Netns, to: IpAddr) {
    let end = Instant::now() + Duration::from_secs(90);
    while ssh_banner(from, to).as_deref() != Some("SSH-2.0-") {
        assert!(Instant::now() < end, "no SSH at {to}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

fn bridge(lab: &mut Lab, socket: &std::path::Path) -> Arc<dyn Wiring> {
    lab.bridge = None;
    lab.options.port_patience = Duration::from_secs(5);
    lab.options.services = Some(ServiceOptions {
        socket: socket.into(),
        command: vec![env!("CARGO_BIN_EXE_agent-netd").into()],
        log: None,
    });
    Arc::new(Bridge::start(lab.options.clone()).unwrap())
}

struct Netd(std::path::PathBuf);

impl Drop for Netd {
    fn drop(&mut self) {
        agent::netd::stop(&self.0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_is_reached_through_its_floating_address() {
    let Some(mut lab) = Lab::new() else { return };
    let Some(fixture) = Fixture::new("wired").await else { return };
    let netd = Netd(fixture.state().join("netd.sock"));
    let mut spec = spec(1);
    let inner = network("inner", "10.9.0.0/24");
    let outer = external("outer", "172.24.4.0/24", None);
    let mut port = port("p", &inner, 10, &["open"]);
    port.server = Some(spec.id.clone());
    let mut way = router("r", Some((&outer, 5)), &[&inner]);
    way.floating = vec![floating("172.24.4.20", &port)];
    spec.config_drive = false;
    spec.nics = vec![Nic { port: port.id.clone(), network: inner.id.clone(), mac: port.mac.clone(), mtu: inner.mtu }];
    spec.metadata.hostname = "wired.novalocal".into();
    spec.metadata.user_data = Some(fixture::base64(b"#!/bin/sh\necho from the service\n"));
    let open = group("open", vec![rule(true, Some(6), Some(22))]);
    let objects = |spec: &GuestSpec| ViewDelta {
        version: 1,
        whole: true,
        put: vec![
            Object::Network(inner.clone()),
            Object::Network(outer.clone()),
            Object::Port(port.clone()),
            Object::Router(way.clone()),
            Object::SecurityGroup(open.clone()),
            Object::AddressSet(members("open", &[&port])),
            Object::Guest(fixture.with_image(spec)),
        ],
        remove: Vec::new(),
    };

    std::fs::create_dir_all(fixture.state()).unwrap();
    let agent = fixture.agent_on(bridge(&mut lab, &netd.0)).await;
    agent.apply(objects(&spec)).await.unwrap();
    fixture.until(&agent, &spec, ObservedPower::Running).await;
    until_ssh(&lab.underlay, ip("172.24.4.20")).await;
    let log = fixture.until_console(&agent, &spec, |log| log.contains("user data: exit status 0")).await;
    assert!(log.contains("host=wired metadata=http-openstack eth0=10.9.0.10/24"), "{log}");
    assert!(log.contains("user data: from the service"), "{log}");

    // Agent and networks restart: the process and its tap are not touched.
    let before = fixture.process(&spec);
    drop(agent);
    let agent = fixture.agent_on(bridge(&mut lab, &netd.0)).await;
    agent.apply(objects(&spec)).await.unwrap();
    fixture.until(&agent, &spec, ObservedPower::Running).await;
    assert_eq!(fixture.process(&spec), before);
    until_ssh(&lab.underlay, ip("172.24.4.20")).await;

    // A new process gets a tap again.
    fixture.change(&agent, &mut spec, |spec| spec.hard_reboots = 1).await;
    fixture.until(&agent, &spec, ObservedPower::Running).await;
    until_ssh(&lab.underlay, ip("172.24.4.20")).await;

    fixture.change(&agent, &mut spec, |spec| spec.power = DesiredPower::Absent).await;
    fixture.until(&agent, &spec, ObservedPower::Absent).await;
    let report = agent.observe(true).await;
    assert!(report.ports.iter().all(|port| !port.up), "{:?}", report.ports);
    drop(agent);
}
