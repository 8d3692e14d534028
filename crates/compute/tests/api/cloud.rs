//! A cloud in one value: the service behind a gateway, doubles for what belongs to other services, simulated hosts.

use agent_api::{BoxStream, DiskFormat, HostAgent, PortObserved, RouterObserved, ViewDelta};
use async_trait::async_trait;
use base::clock::ManualClock;
use base::{Env, Fault, HostName, ImageId, NetworkId, PortId, ProjectId, Result, SecurityGroupId, ServerId, UserId};
use compute::{Compute, Options};
use contract::{Consoles, FixedAddress, Hosts, ImageInfo, Images, NetworkRequest, Ports, Projector, ServerPort};
use engine::{Outcome, Reconciler};
use http_body_util::BodyExt;
use policy::Credentials;
use rest::{Body, Caller, Gateway, GatewayOptions, Tokens};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use simhost::SimHost;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use store::{Cause, Document, Keys, Query, Reader, Store, Tx};

pub const NET: &str = "11111111-1111-1111-1111-111111111111";
pub const IMAGE: &str = "22222222-2222-2222-2222-222222222222";
pub const QUARANTINED: &str = "22222222-2222-2222-2222-222222222223";
pub const PRIVATE_IMAGE: &str = "22222222-2222-2222-2222-222222222224";

/// Tokens are `user@project:role,role`.
struct FakeTokens;

#[async_trait]
impl Tokens for FakeTokens {
    async fn verify(&self, token: &str) -> Result<Arc<Caller>> {
        let parts = token.split_once('@').and_then(|(user, rest)| Some((user, rest.split_once(':')?)));
        let (user, (project, roles)) = parts.ok_or_else(|| Fault::unauthenticated("no"))?;
        let credentials = Credentials {
            user_id: UserId::new(user),
            project_id: (project != "-").then(|| ProjectId::new(project)),
            system_scope: (project == "-").then_some("all"),
            roles: roles.split(',').map(str::to_owned).collect(),
            ..Credentials::default()
        };
        Ok(Arc::new(Caller { credentials, token: None }))
    }
}

pub const ALICE: &str = "alice@demo:member,reader";
pub const READER: &str = "rita@demo:reader";
pub const MALLORY: &str = "mallory@other:member,reader";
pub const ADMIN: &str = "root@admin:admin,manager,member,reader";

struct FakeImages;

impl Images for FakeImages {
    fn locate(&self, reader: &mut Reader, caller: &Caller, id: &ImageId) -> Result<ImageInfo> {
        let private = id.as_str() == PRIVATE_IMAGE && caller.credentials.project_id.as_deref() != Some("other");
        self.describe(reader, id)?.filter(|_| !private).ok_or_else(|| Fault::not_found("no such image"))
    }

    fn describe(&self, _: &mut Reader, id: &ImageId) -> Result<Option<ImageInfo>> {
        let known = [IMAGE, QUARANTINED, PRIVATE_IMAGE].contains(&id.as_str());
        Ok(known.then(|| ImageInfo {
            id: id.clone(),
            name: "tiny".into(),
            active: true,
            disk_format: Some(DiskFormat::Qcow2),
            size_bytes: 1 << 20,
            virtual_size_bytes: 1 << 30,
            sha512: "ab".repeat(64),
            min_disk_gib: 0,
            min_ram_mib: 0,
            quarantined: (id.as_str() == QUARANTINED).then(|| "it is no qcow2".to_owned()),
            properties: BTreeMap::new(),
        }))
    }
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct FakePort {
    id: String,
    device_id: Option<String>,
    number: u32,
    up: bool,
    groups: Vec<String>,
    made: bool,
}

impl Document for FakePort {
    const KIND: &'static str = "port";
    fn id(&self) -> &str {
        &self.id
    }
    fn keys(&self, keys: &mut Keys) {
        if let Some(device) = &self.device_id {
            keys.index("device", device.as_str());
        }
    }
}

impl FakePort {
    fn shown(&self) -> ServerPort {
        ServerPort {
            id: self.id.as_str().into(),
            server: self.device_id.clone().unwrap_or_default().into(),
            network: NET.into(),
            network_name: "demo-net".into(),
            mac: format!("fa:16:3e:00:00:{:02x}", self.number % 256),
            mtu: 1450,
            fixed: vec![FixedAddress {
                subnet: "s".into(),
                address: format!("10.0.{}.{}", self.number / 250, self.number % 250 + 3).parse().unwrap(),
                prefix_len: 16,
                gateway: None,
                dns: Vec::new(),
                dhcp: true,
            }],
            floating: Vec::new(),
            security_groups: self
                .groups
                .iter()
                .map(|name| (SecurityGroupId::new(format!("id-{name}")), name.clone()))
                .collect(),
            admin_state_up: true,
            up: self.up,
            fault: None,
            made_for_server: self.made,
            tag: None,
        }
    }
}

struct FakePorts;

impl FakePorts {
    fn all(reader: &mut Reader, server: &ServerId) -> Result<Vec<FakePort>> {
        let ports = reader.list::<FakePort>(Query::index("device", server.as_str()))?;
        Ok(ports.into_iter().map(|port| port.doc).collect())
    }
}

impl Ports for FakePorts {
    fn attach(
        &self,
        tx: &mut Tx,
        _: &Caller,
        _: &ProjectId,
        server: &ServerId,
        _: &str,
        request: &NetworkRequest,
        groups: &[String],
    ) -> Result<Vec<ServerPort>> {
        let wanted = match request {
            NetworkRequest::None => Vec::new(),
            NetworkRequest::Auto => vec![NetworkId::new(NET)],
            NetworkRequest::List(list) => {
                list.iter().map(|it| it.network.clone().unwrap_or(NetworkId::new(NET))).collect()
            }
        };
        let mut made = Vec::new();
        for network in wanted {
            if network.as_str() != NET {
                return Err(Fault::not_found(format!("Network {network} could not be found.")));
            }
            let groups = if groups.is_empty() { vec!["default".to_owned()] } else { groups.to_vec() };
            let number = tx.meta("ports")?.unwrap_or(0) + 1;
            tx.set_meta("ports", number)?;
            let port = FakePort {
                id: tx.uuid(),
                device_id: Some(server.to_string()),
                number: number as u32,
                up: false,
                groups,
                made: true,
            };
            tx.create(&port)?;
            made.push(port.shown());
        }
        Ok(made)
    }

    fn bind(&self, _: &mut Tx, _: &ServerId, _: Option<&HostName>) -> Result<()> {
        Ok(())
    }

    fn detach(&self, tx: &mut Tx, server: &ServerId, port: &PortId) -> Result<()> {
        let known = tx.get::<FakePort>(port)?.filter(|it| it.device_id.as_deref() == Some(server.as_str()));
        known.ok_or_else(|| Fault::not_found("no port"))?;
        tx.delete::<FakePort>(port)?;
        Ok(())
    }

    fn detach_all(&self, tx: &mut Tx, server: &ServerId) -> Result<()> {
        for port in FakePorts::all(tx, server)? {
            tx.delete::<FakePort>(&port.id)?;
        }
        Ok(())
    }

    fn of_server(&self, reader: &mut Reader, server: &ServerId) -> Result<Vec<ServerPort>> {
        Ok(FakePorts::all(reader, server)?.iter().map(FakePort::shown).collect())
    }

    fn servers_with_ports(&self, reader: &mut Reader) -> Result<Vec<ServerId>> {
        let ports = reader.list::<FakePort>(Query::all())?;
        Ok(ports.into_iter().filter_map(|port| port.doc.device_id.map(ServerId::new)).collect())
    }

    fn add_security_group(&self, tx: &mut Tx, _: &Caller, server: &ServerId, group: &str) -> Result<()> {
        for mut port in FakePorts::all(tx, server)? {
            port.groups.push(group.to_owned());
            tx.update(&port)?;
        }
        Ok(())
    }

    fn remove_security_group(&self, tx: &mut Tx, _: &Caller, server: &ServerId, group: &str) -> Result<()> {
        for mut port in FakePorts::all(tx, server)? {
            if !port.groups.contains(&group.to_owned()) {
                return Err(Fault::not_found(format!(
                    "Security group {group} not associated with the instance {server}"
                )));
            }
            port.groups.retain(|known| known != group);
            tx.update(&port)?;
        }
        Ok(())
    }

    fn ports_observed(&self, tx: &mut Tx, _: &HostName, ports: &[PortObserved]) -> Result<()> {
        for seen in ports {
            if let Some(port) = tx.get::<FakePort>(&seen.id)? {
                tx.update(&FakePort { up: seen.up, ..port.doc })?;
            }
        }
        Ok(())
    }

    fn routers_observed(&self, _: &mut Tx, _: &HostName, _: &[RouterObserved]) -> Result<()> {
        Ok(())
    }
}

#[derive(Default)]
pub struct Hardware {
    pub hosts: Mutex<Vec<(Arc<SimHost>, bool)>>,
}

impl Hardware {
    fn find(&self, name: &HostName) -> Option<Arc<SimHost>> {
        let hosts = self.hosts.lock().unwrap();
        hosts.iter().find(|(host, alive)| *alive && host.inventory().name == *name).map(|(host, _)| host.clone())
    }

    pub fn set_alive(&self, name: &str, alive: bool) {
        for host in self.hosts.lock().unwrap().iter_mut().filter(|host| host.0.inventory().name.as_str() == name) {
            host.1 = alive;
        }
    }
}

impl Hosts for Hardware {
    fn alive(&self) -> Vec<HostName> {
        let hosts = self.hosts.lock().unwrap();
        hosts.iter().filter(|(_, alive)| *alive).map(|(host, _)| host.inventory().name).collect()
    }
    fn is_alive(&self, host: &HostName) -> bool {
        self.alive().contains(host)
    }
}

#[async_trait]
impl Consoles for Hardware {
    async fn console_log(&self, host: &HostName, server: &ServerId, bytes: u64) -> Result<Vec<u8>> {
        let host = self.find(host).ok_or_else(|| Fault::unavailable("the host does not answer"))?;
        host.console_log(server, bytes).await.map_err(Fault::conflict)
    }
    async fn console(&self, host: &HostName, server: &ServerId, serial: bool) -> Result<BoxStream> {
        let host = self.find(host).ok_or_else(|| Fault::unavailable("the host does not answer"))?;
        host.console(server, serial).await.map_err(Fault::conflict)
    }
}

pub struct Cloud {
    pub gateway: Gateway,
    pub compute: Arc<Compute>,
    pub store: Store,
    pub clock: Arc<ManualClock>,
    pub hardware: Arc<Hardware>,
    pub env: Env,
}

pub struct Answer {
    pub status: u16,
    pub headers: http::HeaderMap,
    pub body: Value,
}

impl Answer {
    /// The message of a fault, whatever its name.
    pub fn message(&self) -> &str {
        let fault = self.body.as_object().and_then(|body| body.values().next());
        fault.and_then(|fault| fault["message"].as_str()).unwrap_or("")
    }

    #[track_caller]
    pub fn ok(self, status: u16) -> Value {
        assert_eq!(self.status, status, "{}", self.body);
        self.body
    }
}

impl Cloud {
    pub async fn new(hosts: usize) -> Cloud {
        let (env, clock) = Env::seeded(42);
        let store = Store::open(store::Options::memory(), env.clone()).await.unwrap();
        let hardware = Arc::new(Hardware::default());
        let (gateway, compute) = Cloud::start(&store, &env, &hardware);
        let cloud = Cloud { gateway, compute, store, clock, hardware, env };
        for n in 1..=hosts {
            cloud.add_host(simhost::Options::new(format!("sim-{n}"))).await;
        }
        let flavor = json!({"flavor": {"id": "1", "name": "m1.tiny", "ram": 512, "vcpus": 1, "disk": 1}});
        cloud.post(ADMIN, "/flavors", flavor).await.ok(200);
        cloud
    }

    fn start(store: &Store, env: &Env, hardware: &Arc<Hardware>) -> (Gateway, Arc<Compute>) {
        let options = Options { host_grace_ms: 0, ..Options::default() };
        let compute = Compute::new(
            store.clone(),
            env.clone(),
            options,
            Arc::new(FakeImages),
            Arc::new(FakePorts),
            Arc::new(contract::NoVolumes),
            hardware.clone(),
            hardware.clone(),
            Arc::new(policy::Policy::new(compute::RULES, None).unwrap()),
        );
        let options =
            GatewayOptions { public_url: "http://cloud".into(), env: env.clone(), identity_path: "/identity" };
        let gateway = Gateway::new(options, Arc::new(FakeTokens), compute.services()).unwrap();
        (gateway, compute)
    }

    /// The process ends and another one starts: what is only in memory is lost.
    pub fn restart(&mut self) {
        (self.gateway, self.compute) = Cloud::start(&self.store, &self.env, &self.hardware);
    }

    pub async fn add_host(&self, options: simhost::Options) {
        let host = Arc::new(SimHost::new(self.env.clone(), options));
        let (compute, inventory) = (self.compute.clone(), host.inventory());
        self.hardware.hosts.lock().unwrap().push((host, true));
        let cause = Cause::new("test", "", "host_seen");
        self.store.write(cause, move |tx| compute.host_seen(tx, &inventory)).await.unwrap();
    }

    pub fn host(&self, n: usize) -> Arc<SimHost> {
        self.hardware.hosts.lock().unwrap()[n].0.clone()
    }

    /// Lets loops and hosts work until nothing is left to do.
    pub async fn settle(&self) {
        for _ in 0..20 {
            let before = self.store.read(|reader| Ok(reader.snapshot_rev()?)).await.unwrap();
            self.work().await;
            self.report(false).await;
            self.work().await;
            if self.store.read(|reader| Ok(reader.snapshot_rev()?)).await.unwrap() == before {
                return self.counts().await;
            }
        }
        panic!("the cloud does not settle");
    }

    /// The ledger is always what servers and key pairs add up to.
    pub async fn counts(&self) {
        let services: Vec<Arc<dyn contract::Recount>> = vec![self.compute.clone()];
        let wrong = self.store.read(move |reader| contract::recount::miscounts(&services, reader)).await.unwrap();
        assert_eq!(wrong, []);
    }

    pub async fn work(&self) {
        for reconciler in self.compute.loops() {
            run(&*reconciler).await;
        }
    }

    /// Views to hosts, reports back.
    pub async fn report(&self, whole: bool) {
        let hosts: Vec<_> =
            self.hardware.hosts.lock().unwrap().iter().filter(|it| it.1).map(|it| it.0.clone()).collect();
        for host in hosts {
            let (compute, name) = (self.compute.clone(), host.inventory().name);
            let mut objects = self.store.read(move |reader| compute.whole(reader, &name)).await.unwrap();
            let mut ports = Vec::new();
            for object in &objects {
                if let agent_api::ViewObject::Guest(guest) = object {
                    ports.extend(guest.nics.iter().map(|nic| (guest.id.clone(), nic.clone())));
                }
            }
            objects.extend(ports.into_iter().map(|(server, nic)| agent_api::ViewObject::Port(port_spec(server, nic))));
            host.apply_now(ViewDelta { version: 1, whole: true, put: objects, remove: Vec::new() });
            let report = host.observe_now(whole);
            if report.is_empty() {
                continue;
            }
            let compute = self.compute.clone();
            let observed = move |tx: &mut Tx| {
                FakePorts.ports_observed(tx, &report.host, &report.ports)?;
                compute.observed(tx, &report)
            };
            self.store.write(Cause::new("test", "", "observed"), observed).await.unwrap();
        }
    }

    pub async fn send(&self, method: &str, token: &str, path: &str, version: &str, body: Option<Value>) -> Answer {
        let mut request = http::Request::builder().method(method).uri(format!("/compute/v2.1{path}"));
        if !token.is_empty() {
            request = request.header("x-auth-token", token);
        }
        if !version.is_empty() {
            request = request.header("openstack-api-version", format!("compute {version}"));
        }
        let body = body.map_or_else(Body::empty, |body| Body::from(body.to_string()));
        self.answer(request.body(body).unwrap()).await
    }

    pub async fn answer(&self, request: http::Request<Body>) -> Answer {
        let response = self.gateway.handle(request).await;
        let (parts, body) = response.into_parts();
        let bytes = body.collect().await.unwrap().to_bytes();
        let body = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
        Answer { status: parts.status.as_u16(), headers: parts.headers, body }
    }

    pub async fn get(&self, token: &str, path: &str) -> Answer {
        self.send("GET", token, path, "latest", None).await
    }

    pub async fn post(&self, token: &str, path: &str, body: Value) -> Answer {
        self.send("POST", token, path, "latest", Some(body)).await
    }

    pub async fn put(&self, token: &str, path: &str, body: Value) -> Answer {
        self.send("PUT", token, path, "latest", Some(body)).await
    }

    pub async fn delete(&self, token: &str, path: &str) -> Answer {
        self.send("DELETE", token, path, "latest", None).await
    }

    /// A server's id, as soon as it is accepted.
    pub async fn boot(&self, name: &str) -> String {
        let body = json!({"server": {"name": name, "flavorRef": "1", "imageRef": IMAGE, "networks": "auto"}});
        self.post(ALICE, "/servers", body).await.ok(202)["server"]["id"].as_str().unwrap().to_owned()
    }

    pub async fn active(&self, name: &str) -> String {
        let id = self.boot(name).await;
        self.settle().await;
        assert_eq!(self.status(&id).await, "ACTIVE");
        id
    }

    pub async fn server(&self, id: &str) -> Value {
        self.get(ADMIN, &format!("/servers/{id}")).await.ok(200)["server"].clone()
    }

    pub async fn status(&self, id: &str) -> String {
        self.server(id).await["status"].as_str().unwrap().to_owned()
    }

    pub async fn act(&self, token: &str, id: &str, action: Value) -> Answer {
        self.post(token, &format!("/servers/{id}/action"), action).await
    }
}

async fn run(reconciler: &dyn Reconciler) {
    for id in reconciler.pending().await.unwrap() {
        // What must wait is looked at again in the next round.
        let _: Outcome = reconciler.reconcile(&id).await.unwrap();
    }
}

fn port_spec(server: ServerId, nic: agent_api::Nic) -> agent_api::PortSpec {
    agent_api::PortSpec {
        id: nic.port,
        network: nic.network,
        server: Some(server),
        mac: nic.mac,
        fixed_ips: Vec::new(),
        admin_state_up: true,
        port_security: true,
        security_groups: Vec::new(),
        allowed_address_pairs: Vec::new(),
        hostname: None,
        extra_dhcp_opts: Vec::new(),
    }
}
