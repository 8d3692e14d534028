//! A cloud in a test.

use agent_api::{PortObserved, RouterObserved};
use base::clock::ManualClock;
use base::{Env, Fault, HostName, ProjectId, Result, ServerId};
use contract::{Caller, Hosts, NetworkRequest, Ports, RequestedNetwork, ServerPort, Tokens};
use network::{Network, Options};
use policy::Credentials;
use rest::{Body, Gateway, GatewayOptions};
use serde_json::{Value, json};
use std::sync::Arc;
use store::{Cause, Store};

/// A token reads `role@project`.
pub struct SpokenTokens;

pub fn caller(token: &str) -> Option<Caller> {
    let (role, project) = token.split_once('@')?;
    let all = ["admin", "manager", "member", "reader"];
    let at = all.iter().position(|known| *known == role)?;
    let credentials = Credentials {
        user_id: format!("{role}-of-{project}").into(),
        project_id: Some(project.into()),
        roles: all[at..].iter().map(|role| (*role).to_owned()).collect(),
        ..Credentials::default()
    };
    Some(Caller { credentials, token: None })
}

#[async_trait::async_trait]
impl Tokens for SpokenTokens {
    async fn verify(&self, token: &str) -> Result<Arc<Caller>> {
        caller(token).map(Arc::new).ok_or_else(|| Fault::unauthenticated("The request you have made requires authentication."))
    }
}

pub struct OneHost;

impl Hosts for OneHost {
    fn alive(&self) -> Vec<HostName> {
        vec!["host-a".into()]
    }

    fn is_alive(&self, host: &HostName) -> bool {
        host.as_str() == "host-a"
    }
}

pub const ADMIN: &str = "admin@ops";
pub const DEMO: &str = "member@demo";
pub const OTHER: &str = "member@other";

pub struct Cloud {
    pub gateway: Gateway,
    pub net: Arc<Network>,
    pub store: Store,
    pub clock: Arc<ManualClock>,
}

impl Cloud {
    pub async fn new() -> Cloud {
        let (env, clock) = Env::seeded(7);
        let store = Store::open(Network::register(store::Options::memory()), env.clone()).await.unwrap();
        let policy = Arc::new(policy::Policy::new(network::RULES, None).unwrap());
        let net = Network::new(store.clone(), env.clone(), Options::default(), policy);
        let options = GatewayOptions { public_url: "http://cloud".into(), env, identity_path: "/identity/v3" };
        let gateway = Gateway::new(options, Arc::new(SpokenTokens), vec![net.service()]).unwrap();
        Cloud { gateway, net, store, clock }
    }

    pub fn clock_now(&self) -> base::Timestamp {
        base::Clock::now(&*self.clock)
    }

    /// Status and JSON of a request below `/network`.
    pub async fn send(&self, token: &str, method: &str, path: &str, body: Option<&Value>, headers: &[(&str, &str)]) -> (u16, Value) {
        let mut request = http::Request::builder().method(method).uri(format!("/network{path}"));
        if !token.is_empty() {
            request = request.header("x-auth-token", token);
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let body = body.map_or_else(Body::empty, |body| Body::from(body.to_string()));
        let response = self.gateway.handle(request.body(body).unwrap()).await;
        let status = response.status().as_u16();
        let bytes = http_body_util::BodyExt::collect(response.into_body()).await.unwrap().to_bytes();
        (status, serde_json::from_slice(&bytes).unwrap_or(Value::Null))
    }

    pub async fn ask(&self, token: &str, method: &str, path: &str, body: Value) -> (u16, Value) {
        self.send(token, method, path, Some(&body), &[]).await
    }

    pub async fn get(&self, token: &str, path: &str) -> Value {
        let (status, body) = self.send(token, "GET", path, None, &[]).await;
        assert_eq!(status, 200, "GET {path}: {body}");
        body
    }

    pub async fn delete(&self, token: &str, path: &str) -> u16 {
        self.send(token, "DELETE", path, None, &[]).await.0
    }

    /// Makes one object; `path` is its collection.
    pub async fn make(&self, token: &str, path: &str, attributes: Value) -> Value {
        let one = path.trim_end_matches('s').replace('-', "_");
        let (status, mut body) = self.ask(token, "POST", &format!("/v2.0/{path}"), json!({&one: attributes})).await;
        assert_eq!(status, 201, "POST {path}: {body}");
        body[&one].take()
    }

    pub async fn change(&self, token: &str, path: &str, id: &Value, attributes: Value) -> (u16, Value) {
        let one = path.trim_end_matches('s').replace('-', "_");
        let (status, body) = self.ask(token, "PUT", &format!("/v2.0/{path}/{}", text(id)), json!({&one: attributes})).await;
        (status, body.get(&one).cloned().unwrap_or(body))
    }

    pub async fn show(&self, token: &str, path: &str, id: &Value) -> Value {
        let one = path.trim_end_matches('s').replace('-', "_");
        self.get(token, &format!("/v2.0/{path}/{}", text(id))).await[&one].take()
    }

    /// A network with one subnet.
    pub async fn net_with(&self, token: &str, cidr: &str) -> (Value, Value) {
        let network = self.make(token, "networks", json!({"name": "net"})).await;
        let version = if cidr.contains(':') { 6 } else { 4 };
        let subnet = self.make(token, "subnets", json!({"network_id": network["id"], "cidr": cidr, "ip_version": version})).await;
        (network, subnet)
    }

    /// The external network of the demo.
    pub async fn public(&self) -> (Value, Value) {
        let network = self.make(ADMIN, "networks", json!({
            "name": "public", "router:external": true, "provider:network_type": "flat", "provider:physical_network": "public"
        })).await;
        let subnet = self.make(ADMIN, "subnets", json!({
            "network_id": network["id"], "cidr": "172.24.4.0/24", "ip_version": 4, "enable_dhcp": false,
            "allocation_pools": [{"start": "172.24.4.10", "end": "172.24.4.254"}]
        })).await;
        (network, subnet)
    }

    pub async fn attach(&self, token: &'static str, server: &str, request: NetworkRequest, groups: &[&str]) -> Result<Vec<ServerPort>> {
        let (net, server) = (self.net.clone(), ServerId::new(server));
        let groups: Vec<String> = groups.iter().map(|group| (*group).to_owned()).collect();
        let caller = caller(token).unwrap();
        let project: ProjectId = caller.project_id().unwrap();
        let done = self.store.write(cause(), move |tx| net.attach(tx, &caller, &project, &server, "guest", &request, &groups)).await?;
        Ok(done.value)
    }

    pub async fn bind(&self, server: &str, host: Option<&str>) {
        let (net, server, host) = (self.net.clone(), ServerId::new(server), host.map(HostName::from));
        self.store.write(cause(), move |tx| net.bind(tx, &server, host.as_ref())).await.unwrap();
    }

    pub async fn detach_all(&self, server: &str) {
        let (net, server) = (self.net.clone(), ServerId::new(server));
        self.store.write(cause(), move |tx| net.detach_all(tx, &server)).await.unwrap();
    }

    pub async fn ports_seen(&self, host: &str, ports: Vec<PortObserved>) {
        let (net, host) = (self.net.clone(), HostName::from(host));
        self.store.write(cause(), move |tx| net.ports_observed(tx, &host, &ports)).await.unwrap();
    }

    pub async fn routers_seen(&self, host: &str, routers: Vec<RouterObserved>) {
        let (net, host) = (self.net.clone(), HostName::from(host));
        self.store.write(cause(), move |tx| net.routers_observed(tx, &host, &routers)).await.unwrap();
    }

    /// Runs the loops once over all that is pending.
    pub async fn settle(&self) {
        for one in self.net.loops(Arc::new(OneHost)) {
            for id in one.pending().await.unwrap() {
                one.reconcile(&id).await.unwrap();
            }
        }
    }

    pub async fn used(&self, project: &str, resource: &str) -> i64 {
        let details = self.get(ADMIN, &format!("/v2.0/quotas/{project}/details")).await;
        details["quota"][resource]["used"].as_i64().unwrap()
    }
}

pub fn cause() -> Cause {
    Cause::new("test", "req-test", "test")
}

pub fn text(value: &Value) -> &str {
    value.as_str().unwrap_or("")
}

pub fn on(network: &Value) -> NetworkRequest {
    NetworkRequest::List(vec![RequestedNetwork { network: Some(text(&network["id"]).into()), ..Default::default() }])
}

/// Type and message of a refusal.
pub fn refusal(body: &Value) -> String {
    format!("{} {}", text(&body["NeutronError"]["type"]), text(&body["NeutronError"]["message"]))
}
