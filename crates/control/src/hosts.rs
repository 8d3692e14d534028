//! The listener for hosts of this machine: HTTP over a Unix socket, and a second socket over which image files are
//! passed as descriptors. Who connects is asked of the kernel: only root, under which agents run, is let in.
//!
//! `POST /agent/v1/poll`, `/agent/v1/report`: JSON in, JSON out. `POST /agent/v1/orders/{id}/bytes`: an answer's bytes,
//! or with `x-nubo-error: 1` its error text. `POST /agent/v1/orders/{id}/stream`: upgraded to a stream of bytes.

use crate::link::Link;
use agent_api::{ControlLink, LinkError};
use axum::body::Body;
use base::{HostName, ImageId};
use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::BodyExt;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use std::convert::Infallible;
use std::os::fd::AsFd;
use std::path::Path;
use tokio::net::{UnixListener, UnixStream};

/// The most bytes of a report or a console log.
const BODY_BYTES: usize = 64 << 20;

/// Makes the socket anew, reachable for all (the peer's uid decides).
fn bind(path: &Path) -> std::io::Result<UnixListener> {
    use std::os::unix::fs::PermissionsExt;
    let listener = unixfd::listen(path)?;
    listener.set_nonblocking(true)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o666))?;
    UnixListener::from_std(listener)
}

/// Serves both sockets in `run` until the future is dropped.
pub async fn serve(link: Link, run: &Path) -> std::io::Result<()> {
    let api = bind(&run.join("control.sock"))?;
    let files = bind(&run.join("control-fd.sock"))?;
    tokio::join!(serve_api(link.clone(), api), serve_files(link, files));
    Ok(())
}

async fn serve_api(link: Link, listener: UnixListener) {
    loop {
        let Some(stream) = accept(&listener).await else { continue };
        let link = link.clone();
        tokio::spawn(async move {
            let service = service_fn(move |request: Request<hyper::body::Incoming>| {
                let link = link.clone();
                async move { Ok::<_, Infallible>(answer(link, request).await) }
            });
            let builder = auto::Builder::new(TokioExecutor::new());
            if let Err(error) = builder.serve_connection_with_upgrades(TokioIo::new(stream), service).await {
                tracing::debug!("a host's connection broke: {error}");
            }
        });
    }
}

/// A connection of a process of root, or of our own account (tests run agents without root).
async fn accept(listener: &UnixListener) -> Option<UnixStream> {
    let (stream, _) = match listener.accept().await {
        Ok(accepted) => accepted,
        Err(error) => {
            tracing::warn!("cannot accept a host: {error}");
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            return None;
        }
    };
    let own = std::fs::metadata("/proc/self").map(|meta| std::os::unix::fs::MetadataExt::uid(&meta)).ok();
    match stream.peer_cred() {
        Ok(peer) if peer.uid() == 0 || Some(peer.uid()) == own => Some(stream),
        _ => {
            tracing::warn!("a process that is not root tried to be a host");
            None
        }
    }
}

async fn answer(link: Link, request: Request<hyper::body::Incoming>) -> Response<Body> {
    let path = request.uri().path().to_owned();
    let parts: Vec<&str> = path.split('/').skip(1).collect();
    let result = match parts.as_slice() {
        ["agent", "v1", "poll"] => poll(link, request).await,
        ["agent", "v1", "report"] => report(link, request).await,
        ["agent", "v1", "orders", order, "bytes"] => bytes(link, order, request).await,
        ["agent", "v1", "orders", order, "stream"] => stream(link, order, request).await,
        _ => Ok(reply(StatusCode::NOT_FOUND, "no such path")),
    };
    result.unwrap_or_else(|error| reply(StatusCode::CONFLICT, error.0))
}

fn reply(status: StatusCode, body: impl Into<Body>) -> Response<Body> {
    let mut response = Response::new(body.into());
    *response.status_mut() = status;
    response
}

fn json<T: serde::Serialize>(value: &T) -> Result<Response<Body>, LinkError> {
    let bytes = serde_json::to_vec(value).map_err(|error| LinkError(error.to_string()))?;
    Ok(reply(StatusCode::OK, bytes))
}

async fn read(request: Request<hyper::body::Incoming>) -> Result<Bytes, LinkError> {
    let body = http_body_util::Limited::new(request.into_body(), BODY_BYTES).collect().await;
    Ok(body.map_err(|error| LinkError(error.to_string()))?.to_bytes())
}

async fn parse<T: serde::de::DeserializeOwned>(request: Request<hyper::body::Incoming>) -> Result<T, LinkError> {
    serde_json::from_slice(&read(request).await?).map_err(|error| LinkError(error.to_string()))
}

async fn poll(link: Link, request: Request<hyper::body::Incoming>) -> Result<Response<Body>, LinkError> {
    json(&link.poll(parse(request).await?).await?)
}

async fn report(link: Link, request: Request<hyper::body::Incoming>) -> Result<Response<Body>, LinkError> {
    json(&link.report(parse(request).await?).await?)
}

fn header(request: &Request<hyper::body::Incoming>, name: &str) -> Option<String> {
    Some(request.headers().get(name)?.to_str().ok()?.to_owned())
}

fn host(request: &Request<hyper::body::Incoming>) -> Result<HostName, LinkError> {
    header(request, "x-nubo-host").map(HostName::new).ok_or_else(|| LinkError("no x-nubo-host".into()))
}

async fn bytes(link: Link, order: &str, request: Request<hyper::body::Incoming>) -> Result<Response<Body>, LinkError> {
    let host = host(&request)?;
    let failed = header(&request, "x-nubo-error").is_some();
    let body = read(request).await?.to_vec();
    let answer = if failed { Err(String::from_utf8_lossy(&body).into_owned()) } else { Ok(body) };
    link.answer_bytes(&host, order, answer).await?;
    Ok(reply(StatusCode::OK, Body::empty()))
}

async fn stream(
    link: Link,
    order: &str,
    mut request: Request<hyper::body::Incoming>,
) -> Result<Response<Body>, LinkError> {
    let host = host(&request)?;
    let upgrade = hyper::upgrade::on(&mut request);
    let order = order.to_owned();
    tokio::spawn(async move {
        let Ok(upgraded) = upgrade.await else { return };
        let answer = link.answer_stream(&host, &order, Ok(Box::pin(TokioIo::new(upgraded)))).await;
        if let Err(error) = answer {
            tracing::debug!("a console that nobody waits for: {error}");
        }
    });
    let mut response = reply(StatusCode::SWITCHING_PROTOCOLS, Body::empty());
    let upgrade = http::HeaderValue::from_static("nubo-stream");
    response.headers_mut().insert(http::header::UPGRADE, upgrade);
    response.headers_mut().insert(http::header::CONNECTION, http::HeaderValue::from_static("upgrade"));
    Ok(response)
}

#[derive(serde::Deserialize)]
struct WantImage {
    image: ImageId,
}

/// One line of JSON in, one line and a descriptor out, for each connection.
async fn serve_files(link: Link, listener: UnixListener) {
    loop {
        let Some(stream) = accept(&listener).await else { continue };
        let (link, runtime) = (link.clone(), tokio::runtime::Handle::current());
        tokio::task::spawn_blocking(move || {
            if let Err(error) = pass_file(&link, &runtime, stream) {
                tracing::debug!("an image was not passed: {error}");
            }
        });
    }
}

fn pass_file(
    link: &Link,
    runtime: &tokio::runtime::Handle,
    stream: UnixStream,
) -> Result<(), Box<dyn std::error::Error>> {
    let stream = stream.into_std()?;
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(std::time::Duration::from_secs(5)))?;
    let (message, _) = unixfd::recv_fd(&stream)?;
    let wanted: WantImage = serde_json::from_slice(&message)?;
    match runtime.block_on(link.observers.image(&wanted.image)) {
        Ok(file) => unixfd::send_fd(&stream, b"{}\n", Some(file.as_fd()))?,
        Err(fault) => {
            let said = serde_json::json!({"error": fault.message}).to_string();
            unixfd::send_fd(&stream, said.as_bytes(), None)?;
        }
    }
    Ok(())
}
