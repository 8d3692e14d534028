//! A small client of the OpenStack API: what nubo's own commands speak.

use anyhow::{Context, Result, anyhow, bail};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1;
use hyper::{Method, Request};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::path::Path;
use std::time::Duration;
use tokio::net::TcpStream;

const PATIENCE: Duration = Duration::from_secs(60);

/// A client with a token of its own.
pub struct Client {
    token: String,
    /// Service type to public endpoint.
    catalog: HashMap<String, String>,
    ca: Option<std::path::PathBuf>,
}

/// Where and as whom to log in.
#[derive(Clone, Debug)]
pub struct Login {
    /// With the path of the identity service, without `/v3`.
    pub auth_url: String,
    pub user: String,
    pub password: String,
    pub project: String,
    pub ca: Option<std::path::PathBuf>,
}

impl Client {
    pub async fn login(login: &Login) -> Result<Client> {
        let domain = json!({"id": "default"});
        let user = json!({"name": login.user, "password": login.password, "domain": domain});
        let body = json!({"auth": {
            "identity": {"methods": ["password"], "password": {"user": user}},
            "scope": {"project": {"name": login.project, "domain": domain}},
        }});
        let base = login.auth_url.trim_end_matches('/').trim_end_matches("/v3");
        let url = format!("{base}/v3/auth/tokens");
        let body = Some(("application/json", Bytes::from(body.to_string())));
        let answer = send(Method::POST, &url, &[], body, login.ca.as_deref()).await?;
        if answer.status != 201 {
            bail!("cannot log in at {url}: {}", answer.fault());
        }
        let token = answer.headers.get("x-subject-token").context("no token in the answer")?.to_str()?.to_owned();
        let mut catalog = HashMap::new();
        for service in answer.json()?["token"]["catalog"].as_array().into_iter().flatten() {
            let public = service["endpoints"].as_array().into_iter().flatten().find(|e| e["interface"] == "public");
            if let (Some(kind), Some(url)) = (service["type"].as_str(), public.and_then(|e| e["url"].as_str())) {
                catalog.insert(kind.to_owned(), url.trim_end_matches('/').to_owned());
            }
        }
        Ok(Client { token, catalog, ca: login.ca.clone() })
    }

    fn url(&self, service: &str, path: &str) -> Result<String> {
        let base = self.catalog.get(service).ok_or_else(|| anyhow!("the catalog has no service of type {service}"))?;
        Ok(format!("{base}{path}"))
    }

    /// Sends and returns whatever comes, also a fault.
    pub async fn try_call(&self, method: Method, service: &str, path: &str, body: Option<Value>) -> Result<Answer> {
        let body = body.map(|body| ("application/json", Bytes::from(body.to_string())));
        self.send(method, service, path, body).await
    }

    /// Sends JSON and reads JSON; an error for any other status than 2xx.
    pub async fn call(&self, method: Method, service: &str, path: &str, body: Option<Value>) -> Result<Value> {
        let answer = self.try_call(method.clone(), service, path, body).await?;
        if !(200..300).contains(&answer.status) {
            bail!("{method} {service} {path}: {}", answer.fault());
        }
        if answer.body.is_empty() { Ok(Value::Null) } else { answer.json() }
    }

    pub async fn get(&self, service: &str, path: &str) -> Result<Value> {
        self.call(Method::GET, service, path, None).await
    }

    /// GET of a whole address: nubo's own service stands in no catalog.
    pub async fn get_url(&self, url: &str) -> Result<Value> {
        let answer = send(Method::GET, url, &[("x-auth-token", &self.token)], None, self.ca.as_deref()).await?;
        if answer.status != 200 {
            bail!("{url}: {}", answer.fault());
        }
        answer.json()
    }

    /// POST to a whole address.
    pub async fn post_url(&self, url: &str, body: Value) -> Result<Value> {
        self.send_url(Method::POST, url, body).await
    }

    /// PUT to a whole address.
    pub async fn put_url(&self, url: &str, body: Value) -> Result<Value> {
        self.send_url(Method::PUT, url, body).await
    }

    async fn send_url(&self, method: Method, url: &str, body: Value) -> Result<Value> {
        let body = Some(("application/json", Bytes::from(body.to_string())));
        let answer = send(method, url, &[("x-auth-token", &self.token)], body, self.ca.as_deref()).await?;
        if answer.status != 200 {
            bail!("{url}: {}", answer.fault());
        }
        answer.json()
    }

    /// Any call of a whole address without a body; null where the answer has none.
    pub async fn call_url(&self, method: Method, url: &str) -> Result<Value> {
        let answer = send(method, url, &[("x-auth-token", &self.token)], None, self.ca.as_deref()).await?;
        if !(200..300).contains(&answer.status) {
            bail!("{}", answer.fault());
        }
        if answer.body.is_empty() { Ok(Value::Null) } else { answer.json() }
    }

    pub async fn post(&self, service: &str, path: &str, body: Value) -> Result<Value> {
        self.call(Method::POST, service, path, Some(body)).await
    }

    pub async fn put(&self, service: &str, path: &str, body: Value) -> Result<Value> {
        self.call(Method::PUT, service, path, Some(body)).await
    }

    pub async fn upload(&self, service: &str, path: &str, file: &Path) -> Result<()> {
        let bytes = Bytes::from(std::fs::read(file)?);
        let answer = self.send(Method::PUT, service, path, Some(("application/octet-stream", bytes))).await?;
        if answer.status != 204 {
            bail!("the upload of {} failed: {}", file.display(), answer.fault());
        }
        Ok(())
    }

    async fn send(
        &self,
        method: Method,
        service: &str,
        path: &str,
        body: Option<(&'static str, Bytes)>,
    ) -> Result<Answer> {
        let url = self.url(service, path)?;
        let headers = [("x-auth-token", self.token.as_str()), ("x-openstack-nova-api-version", "2.60")];
        send(method, &url, &headers, body, self.ca.as_deref()).await
    }
}

/// An answer, read whole.
pub struct Answer {
    pub status: u16,
    pub headers: hyper::HeaderMap,
    pub body: Bytes,
}

impl Answer {
    pub fn json(&self) -> Result<Value> {
        serde_json::from_slice(&self.body).context("the answer is not JSON")
    }

    /// The message inside any service's fault.
    pub fn fault(&self) -> String {
        fn message(value: &Value) -> Option<&str> {
            let own = value.get("message").and_then(Value::as_str);
            own.or_else(|| value.as_object()?.values().find_map(message))
        }
        let said = self.json().ok().and_then(|body| message(&body).map(str::to_owned));
        format!("{} {}", self.status, said.unwrap_or_else(|| String::from_utf8_lossy(&self.body).into_owned()))
    }
}

/// One request over a connection of its own.
pub async fn send(
    method: Method,
    url: &str,
    headers: &[(&str, &str)],
    body: Option<(&'static str, Bytes)>,
    ca: Option<&Path>,
) -> Result<Answer> {
    tokio::time::timeout(PATIENCE, send_once(method, url, headers, body, ca))
        .await
        .with_context(|| format!("{url} does not answer"))?
}

async fn send_once(
    method: Method,
    url: &str,
    headers: &[(&str, &str)],
    body: Option<(&'static str, Bytes)>,
    ca: Option<&Path>,
) -> Result<Answer> {
    let uri: hyper::Uri = url.parse().with_context(|| format!("{url} is no address"))?;
    let secure = uri.scheme_str() == Some("https");
    let host = uri.host().context("an address without a host")?.trim_matches(['[', ']']).to_owned();
    let port = uri.port_u16().unwrap_or(if secure { 443 } else { 80 });
    let mut request = Request::builder().method(method).uri(uri.path_and_query().map_or("/", |p| p.as_str()));
    request = request.header("host", uri.authority().map_or("", |a| a.as_str()));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let (kind, bytes) = body.unwrap_or(("", Bytes::new()));
    if !kind.is_empty() {
        request = request.header("content-type", kind);
    }
    let request = request.body(Full::new(bytes))?;
    let stream = TcpStream::connect((host.as_str(), port)).await.with_context(|| format!("cannot reach {url}"))?;
    let response = if secure {
        let stream = crate::tls::connect(stream, &host, ca).await?;
        exchange(TokioIo::new(stream), request).await?
    } else {
        exchange(TokioIo::new(stream), request).await?
    };
    let (parts, body) = response.into_parts();
    let body = http_body_util::Limited::new(body, 256 << 20).collect().await.map_err(|error| anyhow!("{error}"))?;
    Ok(Answer { status: parts.status.as_u16(), headers: parts.headers, body: body.to_bytes() })
}

async fn exchange<S>(stream: S, request: Request<Full<Bytes>>) -> Result<hyper::Response<hyper::body::Incoming>>
where
    S: hyper::rt::Read + hyper::rt::Write + Unpin + Send + 'static,
{
    let (mut sender, connection) = http1::handshake(stream).await?;
    tokio::spawn(connection);
    Ok(sender.send_request(request).await?)
}
