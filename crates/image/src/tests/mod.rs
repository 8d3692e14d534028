//! The service through its gateway, on a store in memory and a folder of its own.

mod cache;
mod conversion;
mod data;
mod hostile;
mod images;
mod import;
mod members;
mod metadefs;
mod protection;
mod random;
mod remote;
mod stores;

use crate::document::Image;
use crate::{Options, Service};
use async_trait::async_trait;
use base::{Env, Fault, Result};
use bytes::Bytes;
use http_body_util::BodyExt;
use policy::{Credentials, Policy};
use rest::{Body, Caller, Gateway, GatewayOptions, Tokens};
use serde_json::Value;
use std::path::PathBuf;
use std::sync::Arc;
use store::Store;

/// A token is `USER:PROJECT:ROLE`.
struct PlainTokens;

#[async_trait]
impl Tokens for PlainTokens {
    async fn verify(&self, token: &str) -> Result<Arc<Caller>> {
        let parts: Vec<&str> = token.split(':').collect();
        let [user, project, role] = parts.as_slice() else { return Err(Fault::unauthenticated("no such token")) };
        let roles: &[&str] = match *role {
            "admin" => &["admin", "manager", "member", "reader"],
            "member" => &["member", "reader"],
            _ => &["reader"],
        };
        let credentials = Credentials {
            user_id: (*user).into(),
            project_id: (*project != "system").then(|| (*project).into()),
            system_scope: (*project == "system").then_some("all"),
            roles: roles.iter().map(|role| (*role).to_owned()).collect(),
            ..Credentials::default()
        };
        Ok(Arc::new(Caller { credentials, token: None }))
    }
}

pub const OWNER: &str = "alice:red:member";
pub const READER: &str = "rita:red:reader";
pub const OTHER: &str = "bob:blue:member";
pub const ADMIN: &str = "root:admin:admin";

pub struct World {
    pub service: Arc<Service>,
    pub gateway: Gateway,
    pub store: Store,
    pub folder: PathBuf,
    _temporary: tempfile::TempDir,
}

pub struct Answer {
    pub status: u16,
    pub headers: rest::HeaderMap,
    pub bytes: Bytes,
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.bytes).unwrap_or_else(|_| panic!("no JSON: {}", self.text()))
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes).into_owned()
    }

    /// The answer, if it has this status.
    #[track_caller]
    pub fn expect(self, status: u16) -> Answer {
        assert_eq!(self.status, status, "{}", self.text());
        self
    }

    /// A refusal that says this.
    #[track_caller]
    pub fn refuses(self, status: u16, because: &str) {
        let message = self.expect(status).json()["message"].as_str().unwrap_or_default().to_owned();
        assert!(message.contains(because), "{message:?} lacks {because:?}");
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or("")
    }
}

impl World {
    pub async fn new() -> World {
        World::with(|_| {}).await
    }

    pub async fn with(change: impl FnOnce(&mut Options)) -> World {
        let temporary = tempfile::tempdir().unwrap();
        let store = Store::open(store::Options::memory(), Env::system()).await.unwrap();
        let mut options = Options::new(temporary.path().join("images"));
        change(&mut options);
        World::over(store, options, temporary)
    }

    /// A service over what another has left behind.
    pub fn over(store: Store, options: Options, temporary: tempfile::TempDir) -> World {
        let folder = options.folder.clone();
        let service = Service::new(store.clone(), Env::system(), options).unwrap();
        let policy = Arc::new(Policy::new(crate::RULES, None).unwrap());
        let options =
            GatewayOptions { public_url: "http://cloud".to_owned(), env: Env::system(), identity_path: "/identity" };
        let gateway = Gateway::new(options, Arc::new(PlainTokens), vec![service.rest(policy)]).unwrap();
        World { service, gateway, store, folder, _temporary: temporary }
    }

    pub async fn call(&self, token: &str, method: &str, path: &str, headers: &[(&str, &str)], body: Body) -> Answer {
        let mut request = http::Request::builder().method(method).uri(format!("/image{path}"));
        if !token.is_empty() {
            request = request.header("x-auth-token", token);
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let response = self.gateway.handle(request.body(body).unwrap()).await;
        let (parts, body) = response.into_parts();
        let bytes = body.collect().await.expect("the answer's body").to_bytes();
        Answer { status: parts.status.as_u16(), headers: parts.headers, bytes }
    }

    pub async fn get(&self, token: &str, path: &str) -> Answer {
        self.call(token, "GET", path, &[], Body::empty()).await
    }

    pub async fn delete(&self, token: &str, path: &str) -> Answer {
        self.call(token, "DELETE", path, &[], Body::empty()).await
    }

    pub async fn send(&self, token: &str, method: &str, path: &str, body: Value) -> Answer {
        let headers = [("content-type", "application/json")];
        self.call(token, method, path, &headers, Body::from(body.to_string())).await
    }

    pub async fn patch(&self, token: &str, id: &str, body: Value) -> Answer {
        let headers = [("content-type", "application/openstack-images-v2.1-json-patch")];
        self.call(token, "PATCH", &format!("/v2/images/{id}"), &headers, Body::from(body.to_string())).await
    }

    pub async fn upload(&self, token: &str, id: &str, body: impl Into<Body>) -> Answer {
        let headers = [("content-type", "application/octet-stream")];
        self.call(token, "PUT", &format!("/v2/images/{id}/file"), &headers, body.into()).await
    }

    /// The id of a new image.
    pub async fn image(&self, token: &str, attributes: Value) -> String {
        let created = self.send(token, "POST", "/v2/images", attributes).await.expect(201);
        created.json()["id"].as_str().unwrap().to_owned()
    }

    pub async fn raw_image(&self, token: &str) -> String {
        let attributes = serde_json::json!({"name": "raw", "disk_format": "raw", "container_format": "bare"});
        self.image(token, attributes).await
    }

    pub async fn show(&self, id: &str) -> Value {
        self.get(ADMIN, &format!("/v2/images/{id}")).await.expect(200).json()
    }

    /// Names of all files in the folder.
    pub fn files(&self) -> Vec<String> {
        let entries = std::fs::read_dir(&self.folder).unwrap();
        let files = entries.map(|entry| entry.unwrap()).filter(|entry| entry.path().is_file());
        let mut names: Vec<String> = files.map(|entry| entry.file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    /// The sweeper's whole round.
    pub async fn sweep(&self) {
        use engine::Reconciler;
        let sweeper = crate::Sweeper(self.service.clone());
        for id in sweeper.pending().await.unwrap() {
            // A program that another test starts has all locks of this process, until it is another program.
            for _ in 0..5 {
                if matches!(sweeper.reconcile(&id).await.unwrap(), engine::Outcome::Settled) {
                    break;
                }
                tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            }
        }
    }
}

pub async fn wait_for(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    for _ in 0..2000 {
        if condition().await {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    panic!("waited in vain for {what}");
}
