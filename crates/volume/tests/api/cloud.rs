//! A cloud in one value: the service behind a gateway, one image, simulated hosts.

use agent_api::{DiskFormat, HostAgent, ViewDelta};
use async_trait::async_trait;
use base::clock::ManualClock;
use base::{Env, Fault, HostName, ImageId, ProjectId, Result, UserId};
use contract::{Hosts, ImageInfo, Images, Projector, Recount};
use engine::Reconciler;
use http_body_util::BodyExt;
use policy::Credentials;
use rest::{Body, Caller, Gateway, GatewayOptions, Tokens};
use serde_json::{Value, json};
use simhost::SimHost;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use store::{Cause, Reader, Store};
use volume::{Options, Volumes};

pub const IMAGE: &str = "22222222-2222-2222-2222-222222222222";
/// One that says of which type its volumes shall be.
pub const TYPED_IMAGE: &str = "22222222-2222-2222-2222-222222222223";

/// Tokens are `user@project:role,role`.
struct FakeTokens;

#[async_trait]
impl Tokens for FakeTokens {
    async fn verify(&self, token: &str) -> Result<Arc<Caller>> {
        let parts = token.split_once('@').and_then(|(user, rest)| Some((user, rest.split_once(':')?)));
        let (user, (project, roles)) = parts.ok_or_else(|| Fault::unauthenticated("no"))?;
        let credentials = Credentials {
            user_id: UserId::new(user),
            project_id: Some(ProjectId::new(project)),
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
    fn locate(&self, reader: &mut Reader, _: &Caller, id: &ImageId) -> Result<ImageInfo> {
        self.describe(reader, id)?.ok_or_else(|| Fault::not_found("no such image"))
    }

    fn describe(&self, _: &mut Reader, id: &ImageId) -> Result<Option<ImageInfo>> {
        let mut properties = BTreeMap::from([("os".to_owned(), "tiny".to_owned())]);
        if id.as_str() == TYPED_IMAGE {
            properties.insert("cinder_img_volume_type".into(), "fast".into());
        }
        Ok([IMAGE, TYPED_IMAGE].contains(&id.as_str()).then(|| ImageInfo {
            id: id.clone(),
            name: "tiny".into(),
            active: true,
            disk_format: Some(DiskFormat::Qcow2),
            size_bytes: 1 << 20,
            virtual_size_bytes: 2 << 30,
            sha512: "ab".repeat(64),
            min_disk_gib: 0,
            min_ram_mib: 0,
            quarantined: None,
            properties,
        }))
    }
}

#[derive(Default)]
pub struct Hardware(Mutex<Vec<(Arc<SimHost>, bool)>>);

impl Hosts for Hardware {
    fn alive(&self) -> Vec<HostName> {
        self.0.lock().unwrap().iter().filter(|(_, alive)| *alive).map(|(host, _)| host.inventory().name).collect()
    }
    fn is_alive(&self, host: &HostName) -> bool {
        self.alive().contains(host)
    }
}

pub struct Cloud {
    gateway: Gateway,
    pub volumes: Arc<Volumes>,
    pub store: Store,
    pub clock: Arc<ManualClock>,
    hardware: Arc<Hardware>,
    env: Env,
}

pub struct Answer {
    pub status: u16,
    pub body: Value,
}

impl Answer {
    #[track_caller]
    pub fn ok(self, status: u16) -> Value {
        assert_eq!(self.status, status, "{}", self.body);
        self.body
    }
}

impl Cloud {
    /// Hosts of 10 GiB each, of which twenty-fold is handed out.
    pub async fn new(hosts: usize) -> Cloud {
        Cloud::with_trash(hosts, 3_600_000).await
    }

    pub async fn with_trash(hosts: usize, trash_ms: i64) -> Cloud {
        let (env, clock) = Env::seeded(42);
        let store = Store::open(store::Options { trash_ms, ..store::Options::memory() }, env.clone()).await.unwrap();
        volume::bootstrap(&store).await.unwrap();
        let hardware = Arc::new(Hardware::default());
        let options = Options { host_grace_ms: 0, ..Options::default() };
        let policy = Arc::new(policy::Policy::new(volume::RULES, None).unwrap());
        let volumes = Volumes::new(store.clone(), env.clone(), options, Arc::new(FakeImages), hardware.clone(), policy);
        let options =
            GatewayOptions { public_url: "http://cloud".into(), env: env.clone(), identity_path: "/identity" };
        let gateway = Gateway::new(options, Arc::new(FakeTokens), vec![volumes.service()]).unwrap();
        let cloud = Cloud { gateway, volumes, store, clock, hardware, env };
        for n in 1..=hosts {
            cloud.add_host(&format!("sim-{n}")).await;
        }
        cloud
    }

    pub async fn add_host(&self, name: &str) {
        let mut options = simhost::Options::new(name);
        options.disk_gib = 10;
        let host = Arc::new(SimHost::new(self.env.clone(), options));
        let (volumes, inventory) = (self.volumes.clone(), host.inventory());
        self.hardware.0.lock().unwrap().push((host, true));
        let cause = Cause::new("test", "", "host_seen");
        self.store.write(cause, move |tx| volumes.host_seen(tx, &inventory)).await.unwrap();
    }

    pub fn host(&self, n: usize) -> Arc<SimHost> {
        self.hardware.0.lock().unwrap()[n].0.clone()
    }

    pub fn set_alive(&self, n: usize, alive: bool) {
        self.hardware.0.lock().unwrap()[n].1 = alive;
    }

    /// Lets loops and hosts work until nothing is left to do; the ledger is always what volumes add up to.
    pub async fn settle(&self) {
        for _ in 0..20 {
            let before = self.store.read(|reader| Ok(reader.snapshot_rev()?)).await.unwrap();
            self.work().await;
            if self.store.read(|reader| Ok(reader.snapshot_rev()?)).await.unwrap() == before {
                let services: Vec<Arc<dyn Recount>> = vec![self.volumes.clone()];
                let look = move |reader: &mut Reader| contract::recount::miscounts(&services, reader);
                assert_eq!(self.store.read(look).await.unwrap(), []);
                return;
            }
        }
        panic!("the cloud does not settle");
    }

    async fn work(&self) {
        for reconciler in self.volumes.loops() {
            let reconciler: Arc<dyn Reconciler> = reconciler;
            for id in reconciler.pending().await.unwrap() {
                reconciler.reconcile(&id).await.unwrap();
            }
        }
        let hosts: Vec<_> = self.hardware.0.lock().unwrap().iter().filter(|it| it.1).map(|it| it.0.clone()).collect();
        for host in hosts {
            let (volumes, name) = (self.volumes.clone(), host.inventory().name);
            let objects = self.store.read(move |reader| volumes.whole(reader, &name)).await.unwrap();
            let here: Vec<String> = objects.iter().map(|object| object.key().1.to_owned()).collect();
            let gone = host.volumes().into_iter().filter(|volume| !here.contains(&volume.id.to_string()));
            let remove = gone.map(|volume| (agent_api::ViewKind::Volume, volume.id.to_string())).collect();
            host.apply_now(ViewDelta { version: 1, whole: false, put: objects, remove });
            let report = host.observe_now(false);
            let volumes = self.volumes.clone();
            let cause = Cause::new("test", "", "observed");
            self.store.write(cause, move |tx| volumes.observed(tx, &report)).await.unwrap();
        }
    }

    pub async fn send(&self, method: &str, token: &str, path: &str, version: &str, body: Option<Value>) -> Answer {
        let project = token.split_once('@').and_then(|(_, rest)| rest.split(':').next()).unwrap_or_default();
        let uri = format!("/volume/v3/{project}{path}");
        self.raw(method, token, &uri, version, body).await
    }

    pub async fn raw(&self, method: &str, token: &str, uri: &str, version: &str, body: Option<Value>) -> Answer {
        let mut request = http::Request::builder().method(method).uri(uri);
        if !token.is_empty() {
            request = request.header("x-auth-token", token);
        }
        if !version.is_empty() {
            request = request.header("openstack-api-version", format!("volume {version}"));
        }
        let body = body.map_or_else(Body::empty, |body| Body::from(body.to_string()));
        let response = self.gateway.handle(request.body(body).unwrap()).await;
        let (parts, body) = response.into_parts();
        let bytes = body.collect().await.unwrap().to_bytes();
        Answer { status: parts.status.as_u16(), body: serde_json::from_slice(&bytes).unwrap_or(Value::Null) }
    }

    /// Alice's request with an `If-Match`: status and `ETag` of the answer.
    pub async fn tagged(
        &self,
        method: &str,
        path: &str,
        version: &str,
        tag: Option<&str>,
        body: Option<Value>,
    ) -> (u16, Option<String>) {
        let mut request = http::Request::builder().method(method).uri(format!("/volume/v3/demo{path}"));
        request = request.header("x-auth-token", ALICE).header("openstack-api-version", format!("volume {version}"));
        if let Some(tag) = tag {
            request = request.header("if-match", tag);
        }
        let body = body.map_or_else(Body::empty, |body| Body::from(body.to_string()));
        let answer = self.gateway.handle(request.body(body).unwrap()).await;
        let seen = answer.headers().get("etag").map(|tag| tag.to_str().unwrap().to_owned());
        (answer.status().as_u16(), seen)
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

    pub async fn act(&self, token: &str, id: &str, action: Value) -> Answer {
        self.post(token, &format!("/volumes/{id}/action"), action).await
    }

    /// An available volume of Alice's.
    pub async fn volume(&self, body: Value) -> String {
        let made = self.post(ALICE, "/volumes", json!({"volume": body})).await.ok(202);
        self.settle().await;
        let id = made["volume"]["id"].as_str().unwrap().to_owned();
        assert_eq!(self.status(&id).await, "available");
        id
    }

    pub async fn show(&self, id: &str) -> Value {
        self.get(ADMIN, &format!("/volumes/{id}")).await.ok(200)["volume"].clone()
    }

    /// Whether its host is told that it has had the volume.
    pub async fn made(&self, id: &str) -> bool {
        let (volumes, id) = (self.volumes.clone(), id.to_owned());
        let look = move |reader: &mut Reader| volumes.everywhere(reader, agent_api::ViewKind::Volume, &id);
        let there = self.store.read(look).await.unwrap();
        there.values().any(|object| matches!(object, agent_api::ViewObject::Volume(spec) if spec.made))
    }

    pub async fn status(&self, id: &str) -> String {
        self.show(id).await["status"].as_str().unwrap().to_owned()
    }

    pub async fn snapshot(&self, volume: &str) -> String {
        let body = json!({"snapshot": {"volume_id": volume, "name": "s"}});
        let made = self.post(ALICE, "/snapshots", body).await.ok(202);
        self.settle().await;
        made["snapshot"]["id"].as_str().unwrap().to_owned()
    }

    /// A row of the ledger of Alice's project.
    pub async fn used(&self, resource: &str) -> i64 {
        let resource = resource.to_owned();
        self.store.read(move |reader| Ok(reader.usage("project:demo", &resource)?.used)).await.unwrap()
    }
}
