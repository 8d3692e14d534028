//! A small HTTP client that knows where each of its connections goes.

use super::{Fetched, Rules, Web};
use async_trait::async_trait;
use base::{Fault, Result};
use http::header::{
    ACCEPT, ACCEPT_ENCODING, AUTHORIZATION, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, HOST, LOCATION, USER_AGENT,
};
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper_util::rt::TokioIo;
use rest::Body;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;
use url::{Host, Url};

/// Redirects that are followed.
const HOPS: usize = 5;
/// Until a connection stands, TLS included.
const CONNECT: Duration = Duration::from_secs(10);
/// Until the answer begins.
const ANSWER: Duration = Duration::from_secs(60);
/// Addresses of a name that are tried.
const ADDRESSES: usize = 4;
/// Where systems keep the certificates that they trust.
const BUNDLES: [&str; 3] =
    ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem"];

/// Resolves names. Only tests put another in the place of the system's.
#[async_trait]
pub trait Names: Send + Sync + 'static {
    async fn addresses(&self, host: &str) -> std::io::Result<Vec<IpAddr>>;
}

struct System;

#[async_trait]
impl Names for System {
    async fn addresses(&self, host: &str) -> std::io::Result<Vec<IpAddr>> {
        Ok(tokio::net::lookup_host((host, 0)).await?.map(|address| address.ip()).collect())
    }
}

/// [`Web`] over the network.
pub struct Client {
    names: Arc<dyn Names>,
    tls: OnceLock<Arc<ClientConfig>>,
}

impl Default for Client {
    fn default() -> Client {
        Client::with_names(Arc::new(System))
    }
}

impl Client {
    pub(super) fn with_names(names: Arc<dyn Names>) -> Client {
        Client { names, tls: OnceLock::new() }
    }

    /// Certificates are read when the first `https` is fetched.
    fn tls(&self, rules: &Rules) -> Result<Arc<ClientConfig>> {
        if let Some(config) = self.tls.get() {
            return Ok(config.clone());
        }
        let config = client_config(rules.ca_file.as_deref())?;
        Ok(self.tls.get_or_init(|| Arc::new(config)).clone())
    }

    /// The addresses behind a URL that may be connected to.
    async fn addresses(&self, url: &Url, rules: &Rules) -> Result<Vec<SocketAddr>> {
        let port = url.port_or_known_default().unwrap_or(0);
        let found = match url.host() {
            Some(Host::Ipv4(address)) => vec![IpAddr::V4(address)],
            Some(Host::Ipv6(address)) => vec![IpAddr::V6(address)],
            Some(Host::Domain(name)) => {
                let looked_up = tokio::time::timeout(CONNECT, self.names.addresses(name)).await;
                let looked_up = looked_up.unwrap_or_else(|_| Err(std::io::ErrorKind::TimedOut.into()));
                looked_up.map_err(|error| {
                    Fault::unavailable(format!("The host {name} cannot be resolved.")).because(error)
                })?
            }
            None => Vec::new(),
        };
        let mut refused = None;
        let mut allowed = Vec::new();
        for address in found.into_iter().take(64) {
            match rules.look_at(address) {
                Ok(()) => allowed.push(SocketAddr::new(address, port)),
                Err(why) => refused = Some(why),
            }
        }
        allowed.truncate(ADDRESSES);
        match (allowed.is_empty(), refused) {
            (false, _) => Ok(allowed),
            (true, Some(why)) => Err(Fault::forbidden(format!("{} may not be fetched: {why}.", shown(url)))),
            (true, None) => Err(Fault::unavailable(format!("The host of {} has no address.", shown(url)))),
        }
    }

    /// One request to one of the addresses.
    async fn ask(&self, url: &Url, rules: &Rules, form: Option<&Form>) -> Result<http::Response<Flow>> {
        let addresses = self.addresses(url, rules).await?;
        let unreachable = |error: std::io::Error| {
            Fault::unavailable(format!("The host of {} does not answer.", shown(url))).because(error)
        };
        let connected = tokio::time::timeout(CONNECT, async {
            let mut last = std::io::Error::from(std::io::ErrorKind::NotFound);
            for address in addresses {
                match TcpStream::connect(address).await {
                    Ok(stream) => return Ok(stream),
                    Err(error) => last = error,
                }
            }
            Err(last)
        });
        let timed_out = || std::io::Error::from(std::io::ErrorKind::TimedOut);
        let stream = connected.await.unwrap_or_else(|_| Err(timed_out())).map_err(unreachable)?;
        if url.scheme() != "https" {
            return talk(url, stream, form).await;
        }
        let name = url.host_str().unwrap_or_default().trim_matches(['[', ']']).to_owned();
        let name = ServerName::try_from(name)
            .map_err(|error| Fault::invalid(format!("{} names no host for TLS.", shown(url))).because(error))?;
        let greeted = tokio::time::timeout(CONNECT, TlsConnector::from(self.tls(rules)?).connect(name, stream)).await;
        let stream = greeted
            .unwrap_or_else(|_| Err(timed_out()))
            .map_err(|error| Fault::invalid(format!("The host of {} is not trusted: {error}.", shown(url))))?;
        talk(url, stream, form).await
    }

    /// Sends a form, and follows no redirect: the status and the body of whatever is answered. `authorization` is what
    /// stands in that header.
    ///
    /// # Errors
    /// As those of [`Web::get`] before there is an answer.
    pub async fn post_form(
        &self,
        text: &str,
        rules: &Rules,
        authorization: Option<&str>,
        form: String,
    ) -> Result<(u16, Body)> {
        let url = rules.check("URI", text)?;
        let form = Form { authorization: authorization.map(str::to_owned), text: form };
        let answer = self.ask(&url, rules, Some(&form)).await?;
        Ok((answer.status().as_u16(), fetched(&url, answer)?.body))
    }
}

/// What is sent where not only fetched.
struct Form {
    authorization: Option<String>,
    text: String,
}

#[async_trait]
impl Web for Client {
    async fn get(&self, text: &str, rules: &Rules) -> Result<Fetched> {
        let mut url = rules.check("URI", text)?;
        for _ in 0..=HOPS {
            let answer = self.ask(&url, rules, None).await?;
            let status = answer.status();
            match status.as_u16() {
                200 => return fetched(&url, answer),
                301 | 302 | 303 | 307 | 308 => {
                    let next = next(&url, &answer)?;
                    rules.look(&next).map_err(|why| {
                        Fault::forbidden(format!(
                            "{} leads to {}, which may not be fetched: {why}.",
                            shown(&url),
                            shown(&next)
                        ))
                    })?;
                    url = next;
                }
                429 | 500..=599 => {
                    return Err(Fault::unavailable(format!("{} answers {status}.", shown(&url))));
                }
                _ => return Err(Fault::not_found(format!("{} answers {status}.", shown(&url)))),
            }
        }
        Err(Fault::not_found(format!("{} leads on more than {HOPS} times.", shown(&url))))
    }
}

/// Without the query, which may hold what only the user should know.
fn shown(url: &Url) -> String {
    let mut url = url.clone();
    url.set_query(None);
    url.set_fragment(None);
    url.to_string()
}

fn next(url: &Url, answer: &http::Response<Flow>) -> Result<Url> {
    let to = answer.headers().get(LOCATION).and_then(|value| value.to_str().ok());
    let next = to.and_then(|to| url.join(to).ok());
    let next = next.ok_or_else(|| Fault::not_found(format!("{} leads nowhere.", shown(url))))?;
    if url.scheme() == "https" && next.scheme() == "http" {
        return Err(Fault::forbidden(format!("{} leads from https to http.", shown(url))));
    }
    Ok(next)
}

fn fetched(url: &Url, answer: http::Response<Flow>) -> Result<Fetched> {
    if answer.headers().get(CONTENT_ENCODING).is_some_and(|encoding| encoding != "identity") {
        return Err(Fault::not_found(format!("{} answers encoded bytes, which nobody asked for.", shown(url))));
    }
    let length = answer.headers().get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
    Ok(Fetched { size_bytes: length, body: Body::new(answer.into_body()) })
}

async fn talk<S>(url: &Url, stream: S, form: Option<&Form>) -> Result<http::Response<Flow>>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let broken =
        |error: hyper::Error| Fault::unavailable(format!("The host of {} broke off.", shown(url))).because(error);
    let host = match url.port() {
        Some(port) => format!("{}:{port}", url.host_str().unwrap_or_default()),
        None => url.host_str().unwrap_or_default().to_owned(),
    };
    let mut target = url.path().to_owned();
    if let Some(query) = url.query() {
        target.push('?');
        target.push_str(query);
    }
    let mut request = match form {
        None => http::Request::get(target),
        Some(form) => http::Request::post(target)
            .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
            .header(CONTENT_LENGTH, form.text.len()),
    };
    if let Some(authorization) = form.and_then(|form| form.authorization.as_deref()) {
        request = request.header(AUTHORIZATION, authorization);
    }
    let request = request
        .header(HOST, host)
        .header(USER_AGENT, "nubo")
        .header(ACCEPT, "*/*")
        .header(ACCEPT_ENCODING, "identity")
        .body(Full::new(Bytes::from(form.map_or_else(String::new, |form| form.text.clone()))))
        .map_err(|error| Fault::invalid(format!("{} cannot be asked for.", shown(url))).because(error))?;
    let answer = tokio::time::timeout(ANSWER, exchange(stream, request)).await;
    answer.map_err(|_| Fault::unavailable(format!("The host of {} does not answer.", shown(url))))?.map_err(broken)
}

/// One request on a connection of its own.
pub(crate) async fn exchange<S, B>(stream: S, request: http::Request<B>) -> hyper::Result<http::Response<Flow>>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    B: http_body::Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let mut builder = hyper::client::conn::http1::Builder::new();
    builder.max_buf_size(64 << 10);
    let (mut sender, connection) = builder.handshake(TokioIo::new(stream)).await?;
    let connection = Running(tokio::spawn(async move {
        let _ = connection.await;
    }));
    let answer = sender.send_request(request).await?;
    Ok(answer.map(|body| Flow { body, _connection: connection }))
}

/// TLS that trusts the certificates of a file, or those that the system does.
///
/// # Errors
/// Unavailable where they cannot be read.
pub(crate) fn client_config(ca_file: Option<&Path>) -> Result<ClientConfig> {
    let mut roots = RootCertStore::empty();
    let files: Vec<PathBuf> = match ca_file {
        Some(file) => vec![file.to_owned()],
        None => BUNDLES.iter().map(PathBuf::from).filter(|path| path.exists()).take(1).collect(),
    };
    for file in &files {
        let unread =
            |error| Fault::unavailable(format!("Certificates of {} cannot be read.", file.display())).because(error);
        for certificate in CertificateDer::pem_file_iter(file).map_err(unread)?.flatten() {
            // A bundle may hold what rustls does not take; the others still count.
            let _ = roots.add(certificate);
        }
    }
    if let (Some(file), true) = (ca_file, roots.is_empty()) {
        return Err(Fault::unavailable(format!("{} has no certificate to trust.", file.display())));
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| Fault::bug("the TLS versions of rustls").because(error))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(config)
}

/// Ends the connection's task with whoever reads from it.
struct Running(JoinHandle<()>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// The bytes of an answer, and the connection that brings them.
pub struct Flow {
    body: Incoming,
    _connection: Running,
}

impl http_body::Body for Flow {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<std::result::Result<http_body::Frame<Bytes>, hyper::Error>>> {
        std::pin::Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> http_body::SizeHint {
        self.body.size_hint()
    }
}
