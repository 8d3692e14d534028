//! A client of the cloud in the same process: what is measured is control, not a socket.

use crate::control_life::ADMIN_PASSWORD;
use anyhow::{Context, Result, bail};
use axum::body::{Body, Bytes};
use control::Cloud;
use http::{HeaderMap, Method, Request};
use http_body_util::BodyExt;
use serde_json::{Value, json};

/// A caller with a token of one project.
#[derive(Clone)]
pub(super) struct Client {
    pub cloud: Cloud,
    pub token: String,
    pub project: String,
    pub user: String,
}

impl Client {
    /// The administrator in a project of that id; without one, in the project `admin`.
    pub async fn login(cloud: &Cloud, project: Option<&str>) -> Result<Client> {
        let nobody = Client { cloud: cloud.clone(), token: String::new(), project: String::new(), user: String::new() };
        let (headers, said) = nobody.answer(Method::POST, "/identity/v3/auth/tokens", credentials(project)).await?;
        let token = headers.get("x-subject-token").context("no token")?.to_str()?.to_owned();
        let text = |value: &Value| value["id"].as_str().map(str::to_owned).context("no id in the token");
        let (project, user) = (text(&said["token"]["project"])?, text(&said["token"]["user"])?);
        Ok(Client { cloud: cloud.clone(), token, project, user })
    }

    pub async fn answer(&self, method: Method, path: &str, body: Value) -> Result<(HeaderMap, Value)> {
        let (headers, bytes) = self.bytes(method, path, body).await?;
        Ok((headers, serde_json::from_slice(&bytes).unwrap_or(Value::Null)))
    }

    /// The answer as it comes: to read it is the caller's work, not the cloud's.
    pub async fn bytes(&self, method: Method, path: &str, body: Value) -> Result<(HeaderMap, Bytes)> {
        let bytes = if body.is_null() { Vec::new() } else { body.to_string().into_bytes() };
        let kind = if path.ends_with("/file") { "application/octet-stream" } else { "application/json" };
        let request = Request::builder()
            .method(&method)
            .uri(path)
            .header("x-auth-token", &self.token)
            .header("x-subject-token", &self.token)
            .header("content-type", kind)
            .header("content-length", bytes.len())
            .header("openstack-api-version", "compute 2.60, volume 3.60");
        let response = self.cloud.answer(request.body(Body::from(bytes))?).await;
        let (status, headers) = (response.status(), response.headers().clone());
        let bytes = response.into_body().collect().await?.to_bytes();
        if !status.is_success() {
            bail!("{method} {path}: {status} {}", String::from_utf8_lossy(&bytes));
        }
        Ok((headers, bytes))
    }

    pub async fn ok(&self, method: Method, path: &str, body: Value) -> Result<Value> {
        Ok(self.answer(method, path, body).await?.1)
    }

    /// Makes an object; its id. `key` is what the answer has it under; empty: it is the answer.
    pub async fn make(&self, path: &str, key: &str, body: Value) -> Result<String> {
        let made = self.ok(Method::POST, path, body).await?;
        let object = if key.is_empty() { &made } else { &made[key] };
        Ok(object["id"].as_str().with_context(|| format!("POST {path} answers no id"))?.to_owned())
    }
}

pub(super) fn credentials(project: Option<&str>) -> Value {
    let project = match project {
        Some(id) => json!({"id": id}),
        None => json!({"name": "admin", "domain": {"id": "default"}}),
    };
    json!({"auth": {
        "identity": {"methods": ["password"], "password": {"user": {
            "name": "admin", "password": ADMIN_PASSWORD, "domain": {"id": "default"}}}},
        "scope": {"project": project}}})
}
