//! The service as clients see it, through the gateway.

mod access_rules;
mod audit;
mod compliance_of_passwords;
mod crud;
mod ec2;
mod extensions;
mod factors;
mod failed_logins;
mod limits;
mod method_order;
mod oauth1;
mod oauth2;
mod rights;
mod sealed;
mod signed;
mod tokens;
mod trusts;

use crate::*;
use base::clock::ManualClock;
use http_body_util::BodyExt;
use rest::{Body, Gateway, GatewayOptions, Route};
use serde_json::{Value, json};
use std::sync::Arc;

pub(crate) struct Cloud {
    pub gateway: Gateway,
    pub identity: Arc<Identity>,
    pub clock: Arc<ManualClock>,
    /// Project-scoped, of the administrator.
    pub admin: String,
}

pub(crate) struct Answer {
    pub status: u16,
    pub body: Value,
    pub token: String,
}

const SERVICES: &[ServiceSpec] = &[
    ServiceSpec { kind: "identity", name: "keystone", path: "/identity" },
    ServiceSpec { kind: "compute", name: "nova", path: "/compute/v2.1" },
];

pub(crate) fn bootstrap_options() -> BootstrapOptions {
    BootstrapOptions {
        admin_password: "secret".into(),
        demo_password: Some("demo".into()),
        password_algorithm: Algorithm::Bcrypt { rounds: 4 },
        region: "RegionOne".into(),
        services: SERVICES.to_vec(),
    }
}

impl Cloud {
    pub async fn new() -> Cloud {
        Cloud::with(Default::default()).await
    }

    pub async fn with(compliance: compliance::Compliance) -> Cloud {
        let store = store::Options { kinds: kinds(), ..store::Options::memory() };
        Cloud::on(store, Options { compliance, ..Options::default() }).await
    }

    pub async fn on(store: store::Options, options: Options) -> Cloud {
        let (env, clock) = base::Env::seeded(7);
        let store = Store::open(store, env.clone()).await.unwrap();
        let bootstrap_options = bootstrap_options();
        let cause = store::Cause::new("test", "", "bootstrap");
        store.write(cause, move |tx| bootstrap(tx, &bootstrap_options)).await.unwrap();
        let options = Options {
            public_url: "http://cloud".into(),
            password_algorithm: Algorithm::Bcrypt { rounds: 4 },
            ..options
        };
        let identity = Identity::open(store, env.clone(), options).await.unwrap();
        let policy = Arc::new(Policy::new(RULES, None).unwrap());
        let gateway = GatewayOptions { public_url: "http://cloud".into(), env, identity_path: "/identity" };
        let gateway = Gateway::new(gateway, identity.clone(), vec![identity.service(policy)]).unwrap();
        let mut cloud = Cloud { gateway, identity, clock, admin: String::new() };
        cloud.admin = cloud.login("admin", "secret", json!({"project": project_named("admin")})).await.token;
        cloud
    }

    pub async fn ask(&self, method: &str, path: &str, headers: &[(&str, &str)], body: Option<Value>) -> Answer {
        // Real requests never fall into one microsecond.
        self.clock.advance_ms(1);
        let mut request = http::Request::builder().method(method).uri(format!("/identity{path}"));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let body = body.map_or_else(Body::empty, |body| Body::from(body.to_string()));
        let response = self.gateway.handle(request.body(body).unwrap()).await;
        let status = response.status().as_u16();
        let token = response.headers().get("x-subject-token").map_or("", |token| token.to_str().unwrap()).to_owned();
        let bytes = response.into_body().collect().await.unwrap().to_bytes();
        let body = if bytes.is_empty() { Value::Null } else { serde_json::from_slice(&bytes).unwrap() };
        Answer { status, body, token }
    }

    pub async fn login(&self, user: &str, password: &str, scope: Value) -> Answer {
        let user = json!({"name": user, "domain": {"id": "default"}, "password": password});
        let mut auth = json!({"identity": {"methods": ["password"], "password": {"user": user}}});
        if !scope.is_null() {
            auth["scope"] = scope;
        }
        self.ask("POST", "/v3/auth/tokens", &[], Some(json!({ "auth": auth }))).await
    }

    pub async fn by(&self, token: &str, method: &str, path: &str, body: Option<Value>) -> Answer {
        self.ask(method, path, &[("x-auth-token", token)], body).await
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.by(&self.admin, "GET", path, None).await
    }

    pub async fn post(&self, path: &str, body: Value) -> Answer {
        self.by(&self.admin, "POST", path, Some(body)).await
    }

    pub async fn patch(&self, path: &str, body: Value) -> Answer {
        self.by(&self.admin, "PATCH", path, Some(body)).await
    }

    pub async fn put(&self, path: &str) -> u16 {
        self.by(&self.admin, "PUT", path, None).await.status
    }

    pub async fn delete(&self, path: &str) -> u16 {
        self.by(&self.admin, "DELETE", path, None).await.status
    }

    /// Makes one and returns its id.
    pub async fn made(&self, path: &str, name: &str, object: Value) -> String {
        let answer = self.post(path, json!({ name: object })).await;
        assert_eq!(answer.status, 201, "{}", answer.body);
        answer.body[name]["id"].as_str().unwrap().to_owned()
    }

    /// The id of the first thing of this name.
    pub async fn id(&self, collection: &str, name: &str) -> String {
        let answer = self.get(&format!("/v3/{collection}?name={name}")).await;
        answer.body[collection][0]["id"].as_str().unwrap_or_else(|| panic!("{name}: {}", answer.body)).to_owned()
    }

    /// What validating a token answers; the administrator asks.
    pub async fn validate(&self, token: &str) -> Answer {
        self.ask("GET", "/v3/auth/tokens", &[("x-auth-token", &self.admin), ("x-subject-token", token)], None).await
    }

    pub fn routes(&self) -> Vec<Route> {
        self.gateway.services()[0].routes.clone()
    }
}

pub(crate) fn project_named(name: &str) -> Value {
    json!({"name": name, "domain": {"id": "default"}})
}

pub(crate) fn names(list: &Value, key: &str) -> Vec<String> {
    list.as_array().unwrap().iter().map(|item| item[key].as_str().unwrap_or("").to_owned()).collect()
}
