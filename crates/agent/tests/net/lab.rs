//! A laboratory: an underlay, a cloud id, a driver, and guests that are namespaces.

use agent::Wiring;
use agent::net::{Bridge, Options, ServiceOptions};
use agent_api::*;
use base::{CloudId, SecurityGroupId};
use netlink::{Address, LinkSet, Netns, Route, link, route};
use std::io::{BufRead, BufReader, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// True when the test can run; says why not, and fails where it was required.
pub fn capable() -> bool {
    let root = nix::unistd::geteuid().is_root();
    if root && Netns::scratch().is_ok() {
        return true;
    }
    let required = std::env::var("NUBO_REQUIRE").unwrap_or_default();
    assert!(!required.split(',').any(|r| matches!(r, "all" | "root" | "netns")), "requires root and namespaces");
    println!("SKIP needs root and network namespaces");
    false
}

static NEXT: AtomicU32 = AtomicU32::new(0);

pub struct Lab {
    pub cloud: CloudId,
    pub underlay: Netns,
    pub options: Options,
    pub bridge: Option<Bridge>,
    folder: Option<tempfile::TempDir>,
    version: u64,
}

impl Drop for Lab {
    fn drop(&mut self) {
        self.bridge = None;
        if self.folder.is_some() {
            agent::netd::stop(self.socket());
        }
        let _ = agent::net::purge(&self.cloud, &self.underlay);
    }
}

/// A namespace that stands for a guest.
pub struct Machine {
    pub ns: Netns,
    pub port: PortSpec,
}

pub fn id(text: &str) -> String {
    let mut tail = 0xcbf2_9ce4_8422_2325u64;
    for byte in text.bytes() {
        tail = (tail ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    }
    format!("019a0000-0000-7000-8000-{:012x}", tail & 0xffff_ffff_ffff)
}

pub fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

pub fn network(name: &str, cidr: &str) -> NetworkSpec {
    let net: ipnet::IpNet = cidr.parse().unwrap();
    let host = |n: usize| net.hosts().nth(n - 1).unwrap();
    NetworkSpec {
        id: id(name).into(),
        mtu: 1450,
        admin_state_up: true,
        subnets: vec![SubnetSpec {
            id: id(&format!("subnet of {name}")).into(),
            cidr: net,
            gateway: Some(host(1)),
            dhcp: true,
            dns: vec![ip("192.0.2.53")],
            host_routes: vec![],
            ipv6_ra_mode: None,
            ipv6_address_mode: None,
        }],
        external: None,
        service_mac: Some("fa:16:3e:00:00:02".into()),
        service_addresses: vec![host(2)],
    }
}

pub fn external(name: &str, cidr: &str, masquerade: Option<&str>) -> NetworkSpec {
    let mut spec = network(name, cidr);
    let net: ipnet::IpNet = cidr.parse().unwrap();
    let host_address = ipnet::IpNet::new(net.hosts().next().unwrap(), net.prefix_len()).unwrap();
    spec.mtu = 1500;
    spec.subnets[0].dhcp = false;
    spec.service_addresses.clear();
    spec.external = Some(ExternalSpec { host_address, masquerade: masquerade.map(str::to_owned) });
    spec
}

pub fn port(name: &str, network: &NetworkSpec, last: u8, groups: &[&str]) -> PortSpec {
    let ipnet::IpNet::V4(net) = network.subnets[0].cidr else { panic!("an IPv4 subnet") };
    let address = std::net::Ipv4Addr::from(u32::from(net.network()) + u32::from(last));
    PortSpec {
        id: id(name).into(),
        network: network.id.clone(),
        server: Some(id(&format!("server {name}")).into()),
        mac: format!("fa:16:3e:01:{:02x}:{last:02x}", name.bytes().fold(0u8, u8::wrapping_add)),
        fixed_ips: vec![(network.subnets[0].id.clone(), address.into())],
        admin_state_up: true,
        port_security: true,
        security_groups: groups.iter().map(|g| group_id(g)).collect(),
        allowed_address_pairs: vec![],
        hostname: Some(name.to_owned()),
        extra_dhcp_opts: vec![],
    }
}

pub fn group_id(name: &str) -> SecurityGroupId {
    id(&format!("group {name}")).into()
}

pub fn rule(ingress: bool, protocol: Option<u8>, port: Option<u16>) -> RuleSpec {
    RuleSpec { ingress, ipv6: false, protocol, port_min: port, port_max: port, remote_group: None, remote_prefix: None }
}

/// A group that lets everything out, and in what `rules` say.
pub fn group(name: &str, rules: Vec<RuleSpec>) -> SecurityGroupSpec {
    let out = [rule(false, None, None), RuleSpec { ipv6: true, ..rule(false, None, None) }];
    SecurityGroupSpec { id: group_id(name), stateful: true, rules: out.into_iter().chain(rules).collect() }
}

pub fn members(name: &str, ports: &[&PortSpec]) -> AddressSet {
    let addresses = ports.iter().flat_map(|p| &p.fixed_ips).map(|(_, ip)| (*ip).into()).collect();
    AddressSet { id: group_id(name), addresses }
}

pub fn router(name: &str, gateway: Option<(&NetworkSpec, u8)>, inside: &[&NetworkSpec]) -> RouterSpec {
    let interface = |network: &&NetworkSpec| {
        let subnet = &network.subnets[0];
        RouterInterface {
            port: id(&format!("{name} in {}", network.id)).into(),
            network: network.id.clone(),
            mac: format!("fa:16:3e:02:00:{:02x}", network.id.bytes().fold(0u8, u8::wrapping_add)),
            addresses: vec![ipnet::IpNet::new(subnet.gateway.unwrap(), subnet.cidr.prefix_len()).unwrap()],
        }
    };
    let gateway = gateway.map(|(network, last)| {
        let host = network.external.as_ref().unwrap().host_address;
        let IpAddr::V4(own) = host.addr() else { panic!("IPv4") };
        let address = IpAddr::from((u32::from(own) & 0xffff_ff00 | u32::from(last)).to_be_bytes());
        RouterGateway {
            port: id(&format!("{name} gateway")).into(),
            network: network.id.clone(),
            mac: format!("fa:16:3e:03:00:{last:02x}"),
            addresses: vec![ipnet::IpNet::new(address, host.prefix_len()).unwrap()],
            next_hops: vec![host.addr()],
            snat: true,
        }
    });
    RouterSpec {
        id: id(name).into(),
        admin_state_up: true,
        gateway,
        interfaces: inside.iter().map(interface).collect(),
        routes: vec![],
        floating: vec![],
    }
}

pub fn floating(outer: &str, port: &PortSpec) -> FloatingSpec {
    FloatingSpec { id: id(outer).into(), floating: ip(outer), fixed: port.fixed_ips[0].1 }
}

impl Lab {
    pub fn new() -> Option<Lab> {
        capable().then(|| Lab::within(Netns::scratch().unwrap()))
    }

    /// One whose guests get DHCP and metadata.
    pub fn with_services() -> Option<Lab> {
        let mut lab = Lab::new()?;
        let folder = tempfile::tempdir().unwrap();
        lab.options.services = Some(ServiceOptions {
            socket: folder.path().join("netd.sock"),
            command: vec![env!("CARGO_BIN_EXE_agent-netd").into()],
            log: None,
        });
        lab.folder = Some(folder);
        lab.restart();
        Some(lab)
    }

    pub fn socket(&self) -> &std::path::Path {
        &self.options.services.as_ref().unwrap().socket
    }

    /// Another cloud on the same machine.
    pub fn within(underlay: Netns) -> Lab {
        link::set(&underlay, "lo", &LinkSet { up: Some(true), ..Default::default() }).unwrap();
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let cloud = CloudId::from(format!("{:08x}", (std::process::id() << 8) | number));
        let mut options = Options::new(cloud.clone(), underlay.clone());
        options.port_patience = Duration::from_millis(200);
        let bridge = Some(Bridge::start(options.clone()).unwrap());
        Lab { cloud, underlay, options, bridge, folder: None, version: 0 }
    }

    pub fn bridge(&self) -> &Bridge {
        self.bridge.as_ref().unwrap()
    }

    /// As if the agent had ended and come back.
    pub fn restart(&mut self) {
        self.bridge = None;
        self.bridge = Some(Bridge::start(self.options.clone()).unwrap());
    }

    pub async fn step(&mut self, whole: bool, put: Vec<ViewObject>, remove: Vec<(ViewKind, String)>) {
        self.version += 1;
        self.bridge().apply(&ViewDelta { version: self.version, whole, put, remove }).await;
        self.bridge().settled().await;
    }

    pub async fn put(&mut self, put: Vec<ViewObject>) {
        self.step(false, put, vec![]).await;
    }

    /// Starts a guest at a port with its address set by hand.
    pub async fn guest(&self, port: &PortSpec, gateway: Option<&str>) -> Machine {
        let ns = Netns::scratch().unwrap();
        self.bridge().open_veth(&port.id, &ns, "eth0").await.unwrap();
        self.bridge().wire(&port.id).await.unwrap();
        for name in ["lo", "eth0"] {
            link::set(&ns, name, &LinkSet { up: Some(true), ..Default::default() }).unwrap();
        }
        // Again, now that both ends are up: answered when the bridge carries the port's frames.
        self.bridge().wire(&port.id).await.unwrap();
        let address = ipnet::IpNet::new(port.fixed_ips[0].1, 24).unwrap();
        route::change_addresses(&ns, &[], &[Address { link: "eth0".into(), address }]).unwrap();
        if let Some(via) = gateway {
            let way = Route { to: "0.0.0.0/0".parse().unwrap(), via: Some(ip(via)), link: Some("eth0".into()) };
            route::change_routes(&ns, &[], &[way]).unwrap();
        }
        Machine { ns, port: port.clone() }
    }

    pub async fn agrees(&self) {
        let found = self.bridge().verify().await;
        assert!(found.is_empty(), "the kernel differs from the plan: {found:#?}");
    }
}

impl Machine {
    pub fn ip(&self) -> IpAddr {
        self.port.fixed_ips[0].1
    }
}

/// Answers every connection with a line that names the caller, then echoes.
pub fn serve(ns: &Netns, port: u16) -> u16 {
    let listener = ns.run(|| Ok(TcpListener::bind(("0.0.0.0", port)).unwrap())).unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            std::thread::spawn(move || {
                let mut stream = stream;
                let peer = stream.peer_addr()?;
                stream.write_all(format!("{}\n", peer.ip()).as_bytes())?;
                std::io::copy(&mut stream.try_clone()?, &mut stream)
            });
        }
    });
    port
}

/// A conversation: who the other side took us for.
pub fn call(ns: &Netns, to: IpAddr, port: u16) -> Option<String> {
    Flow::open(ns, to, port, Duration::from_millis(600)).map(|flow| flow.peer)
}

/// Calls until it is answered: for what takes a moment to come.
pub fn call_soon(ns: &Netns, to: IpAddr, port: u16) -> Option<String> {
    let end = Instant::now() + Duration::from_secs(5);
    loop {
        let found = call(ns, to, port);
        if found.is_some() || Instant::now() > end {
            return found;
        }
    }
}

pub struct Flow {
    stream: TcpStream,
    pub peer: String,
}

impl Flow {
    pub fn open(ns: &Netns, to: IpAddr, port: u16, patience: Duration) -> Option<Flow> {
        let to = SocketAddr::new(to, port);
        let stream = ns.run(|| Ok(TcpStream::connect_timeout(&to, patience))).unwrap().ok()?;
        stream.set_read_timeout(Some(patience)).unwrap();
        let mut line = String::new();
        BufReader::new(&stream).read_line(&mut line).ok()?;
        Some(Flow { stream, peer: line.trim().to_owned() })
    }

    pub fn alive(&mut self) -> bool {
        let mut byte = [0u8; 1];
        self.stream.write_all(b"x").is_ok() && std::io::Read::read(&mut self.stream, &mut byte).is_ok_and(|n| n == 1)
    }
}

pub fn pings(ns: &Netns, to: IpAddr) -> bool {
    let output = ns.command("ping").args(["-c1", "-W1", &to.to_string()]).output().unwrap();
    output.status.success()
}

pub async fn wait_for(what: &str, mut condition: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(10);
    while !condition() {
        assert!(Instant::now() < end, "waited in vain: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
