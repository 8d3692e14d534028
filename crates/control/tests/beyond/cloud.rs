//! A whole cloud on simulated hosts in this process, and calls to it.

use axum::body::Body;
use base::Env;
use control::{Bootstrap, Cloud, CloudOptions};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;

pub struct TestCloud {
    pub cloud: Cloud,
    /// Scoped to the project `demo`, with the role `admin` there.
    pub admin: String,
    /// Scoped to `demo` as its member.
    pub demo: String,
    _hosts: Tasks,
    _images: Option<tempfile::TempDir>,
}

/// Tasks that end with it.
struct Tasks(Vec<tokio::task::JoinHandle<()>>);

impl Drop for Tasks {
    fn drop(&mut self) {
        self.0.iter().for_each(|host| host.abort());
    }
}

pub struct Answer {
    pub status: u16,
    pub headers: http::HeaderMap,
    pub body: Value,
}

impl Answer {
    pub fn request_id(&self) -> String {
        self.header("x-openstack-request-id").unwrap_or_default().to_owned()
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }
}

pub fn options(store_url: &str, images: &std::path::Path) -> CloudOptions {
    let bootstrap = Bootstrap {
        cloud_id: "0a1b2c3d".into(),
        admin_password: "admin".into(),
        demo_password: "demo".into(),
        secret_keys: vec!["YSBrZXkgZm9yIHRlc3RzLCBvZiAzMiBieXRlcyAuLi4=".into()],
    };
    CloudOptions {
        store_url: store_url.into(),
        public_url: "http://cloud".into(),
        images: images.to_owned(),
        policy: None,
        bcrypt_rounds: 4,
        image_format_enforcement: true,
        image_stores: Default::default(),
        image_cache: None,
        image_default_store: None,
        image_import: Default::default(),
        image_protections: None,
        compliance: Default::default(),
        limit_model: Default::default(),
        federation: Default::default(),
        token_provider: Default::default(),
        auth_methods: Default::default(),
        login_limit: Default::default(),
        directories: None,
        bootstrap,
        masquerade: None,
        history_retention_s: control::HISTORY_RETENTION_S,
        trash_retention_s: control::TRASH_RETENTION_S,
        reclaim_instance_interval_s: 0,
        deadlines: Default::default(),
    }
}

impl TestCloud {
    pub async fn start(hosts: usize) -> TestCloud {
        TestCloud::open("sqlite::memory:", Env::system(), hosts).await
    }

    pub async fn open(store_url: &str, env: Env, hosts: usize) -> TestCloud {
        let images = tempfile::tempdir().unwrap();
        let cloud = TestCloud::open_with(options(store_url, images.path()), env, hosts).await;
        TestCloud { _images: Some(images), ..cloud }
    }

    /// With options of one's own; the caller keeps the images' folder.
    pub async fn open_with(options: CloudOptions, env: Env, hosts: usize) -> TestCloud {
        let cloud = Cloud::open(options, env.clone()).await.unwrap();
        let mut tasks = Tasks(Vec::new());
        for number in 1..=hosts {
            let host = simhost::SimHost::new(env.clone(), simhost::Options::new(format!("sim{number}")));
            tasks.0.push(tokio::spawn(control::host(Arc::new(host), cloud.link())));
        }
        cloud.wait_hosts(hosts).await;
        TestCloud { _hosts: tasks, ..TestCloud::of(cloud).await }
    }

    /// Around a cloud that was opened otherwise, without hosts.
    pub async fn of(cloud: Cloud) -> TestCloud {
        let mut cloud =
            TestCloud { cloud, admin: String::new(), demo: String::new(), _hosts: Tasks(Vec::new()), _images: None };
        cloud.admin = cloud.token("admin", "admin", "demo").await;
        cloud.demo = cloud.token("demo", "demo", "demo").await;
        cloud
    }

    pub async fn token(&self, user: &str, password: &str, project: &str) -> String {
        let domain = json!({"id": "default"});
        let body = json!({"auth": {
            "identity": {"methods": ["password"], "password": {"user": {"name": user, "domain": domain, "password": password}}},
            "scope": {"project": {"name": project, "domain": domain}},
        }});
        let answer = self.call("", "POST", "/identity/v3/auth/tokens", &body, &[]).await;
        assert_eq!(answer.status, 201, "{}", answer.body);
        answer.header("x-subject-token").unwrap().to_owned()
    }

    pub async fn raw(&self, request: http::Request<Body>) -> Answer {
        let answer = self.cloud.answer(request).await;
        let (parts, body) = answer.into_parts();
        let bytes = body.collect().await.unwrap().to_bytes();
        let body = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
        Answer { status: parts.status.as_u16(), headers: parts.headers, body }
    }

    pub async fn call(&self, token: &str, method: &str, path: &str, body: &Value, headers: &[(&str, &str)]) -> Answer {
        let mut request = http::Request::builder().method(method).uri(path);
        if !token.is_empty() {
            request = request.header("x-auth-token", token);
        }
        if path.starts_with("/compute") {
            request = request.header("openstack-api-version", "compute 2.85");
        }
        let patch = method == "PATCH" && path.starts_with("/image");
        let kind = if patch { "application/openstack-images-v2.1-json-patch" } else { "application/json" };
        request = request.header("content-type", kind);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let bytes = if body.is_null() { Vec::new() } else { body.to_string().into_bytes() };
        request = request.header("content-length", bytes.len());
        self.raw(request.body(Body::from(bytes)).unwrap()).await
    }

    pub async fn get(&self, path: &str) -> Value {
        self.call(&self.admin, "GET", path, &Value::Null, &[]).await.body
    }

    /// An image with bytes, to boot servers from.
    pub async fn image(&self) -> String {
        let body = json!({"name": "tiny", "disk_format": "raw", "container_format": "bare", "visibility": "public"});
        let made = self.call(&self.admin, "POST", "/image/v2/images", &body, &[]).await;
        let id = made.body["id"].as_str().unwrap().to_owned();
        let mut bytes = vec![7u8; 1 << 16];
        bytes[..512].fill(0);
        let request = http::Request::builder()
            .method("PUT")
            .uri(format!("/image/v2/images/{id}/file"))
            .header("x-auth-token", &self.admin)
            .header("content-type", "application/octet-stream");
        let answer = self.raw(request.body(Body::from(bytes)).unwrap()).await;
        assert_eq!(answer.status, 204, "{}", answer.body);
        id
    }

    /// Until nothing is written any more by itself.
    pub async fn settle(&self) {
        let store = self.cloud.store();
        let mut still = 0;
        let mut rev = store.rev();
        while still < 4 {
            tokio::time::sleep(Duration::from_millis(2)).await;
            still = if store.rev() == rev { still + 1 } else { 0 };
            rev = store.rev();
        }
    }
}
