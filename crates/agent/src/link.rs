//! Control over a Unix socket: HTTP/2 with JSON for polls and reports, a connection of its own for each console, and
//! images as passed descriptors.
//!
//! | request | body | answer |
//! |---|---|---|
//! | `POST /agent/v1/poll` | `PollRequest` | 200 and a `PollAnswer` |
//! | `POST /agent/v1/report` | `Report` | 200 or 204 |
//! | `POST /agent/v1/orders/{id}/bytes` | the bytes, or with `X-Nubo-Error: 1` why there is nothing, of either kind of order | 200 or 204 |
//! | `POST /agent/v1/orders/{id}/stream` | HTTP/1.1 `Upgrade: nubo-stream` | 101, then raw bytes |
//!
//! `X-Nubo-Host` names the host in each. A failure is any other status, with a text that is logged. On the second
//! socket (`control-fd.sock`) the agent sends one line `{"image": ID}` and gets one message back: JSON with the file,
//! or `{"error": …}`.

use agent_api::{BoxStream, ControlLink, LinkError, PollAnswer, PollRequest, Report};
use async_trait::async_trait;
use base::{HostName, ImageId};
use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde::Serialize;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::net::UnixStream;

/// The most bytes of an answer: a whole view of a large host.
const ANSWER_BYTES: usize = 256 << 20;
/// A poll is answered after some 20 seconds at the latest.
const PATIENCE: Duration = Duration::from_secs(60);
const UPGRADE: &str = "nubo-stream";

type Sender = http2::SendRequest<Full<Bytes>>;

/// The link of an agent to the control process of the same machine.
pub struct HttpLink {
    socket: PathBuf,
    files: PathBuf,
    /// Who must sit at the other end; none: anybody who could make the sockets.
    control_uid: Option<u32>,
    connection: tokio::sync::Mutex<Option<Sender>>,
}

fn broken(what: impl std::fmt::Display) -> LinkError {
    LinkError(what.to_string())
}

impl HttpLink {
    /// `run` is the folder of `control.sock` and `control-fd.sock`.
    pub fn new(run: &Path, control_uid: Option<u32>) -> HttpLink {
        HttpLink {
            socket: run.join("control.sock"),
            files: run.join("control-fd.sock"),
            control_uid,
            connection: tokio::sync::Mutex::default(),
        }
    }

    async fn connect(&self) -> Result<TokioIo<UnixStream>, LinkError> {
        let socket = checked(&self.socket, self.control_uid).map_err(broken)?;
        socket.set_nonblocking(true).map_err(broken)?;
        Ok(TokioIo::new(UnixStream::from_std(socket).map_err(broken)?))
    }

    /// The standing connection, made anew when it has ended.
    async fn sender(&self) -> Result<Sender, LinkError> {
        let mut connection = self.connection.lock().await;
        if let Some(sender) = connection.as_ref().filter(|sender| !sender.is_closed()) {
            return Ok(sender.clone());
        }
        let (sender, driver) = http2::handshake(TokioExecutor::new(), self.connect().await?).await.map_err(broken)?;
        tokio::spawn(driver);
        *connection = Some(sender.clone());
        Ok(sender)
    }

    async fn post(&self, path: &str, host: &HostName, kind: Kind, body: Vec<u8>) -> Result<Bytes, LinkError> {
        let request = request(path, host, kind, body)?;
        let exchange = async {
            let mut sender = self.sender().await?;
            let answer = sender.send_request(request).await;
            if answer.is_err() {
                // The next attempt begins with a connection of its own.
                self.connection.lock().await.take();
            }
            read(answer.map_err(broken)?).await
        };
        let exchanged = tokio::time::timeout(PATIENCE, exchange).await;
        exchanged.unwrap_or_else(|_| Err(broken(format!("control did not answer {path} in time"))))
    }

    async fn post_json(&self, path: &str, host: &HostName, body: &impl Serialize) -> Result<Bytes, LinkError> {
        let body = serde_json::to_vec(body).map_err(broken)?;
        self.post(path, host, Kind::Json, body).await
    }

    /// A connection whose bytes are the console's.
    async fn stream(&self, path: &str, host: &HostName) -> Result<TokioIo<hyper::upgrade::Upgraded>, LinkError> {
        let (mut sender, driver) = http1::handshake(self.connect().await?).await.map_err(broken)?;
        tokio::spawn(driver.with_upgrades());
        let mut request = request(path, host, Kind::Bytes, Vec::new())?;
        let headers = request.headers_mut();
        headers.insert(header::HOST, header::HeaderValue::from_static("control"));
        headers.insert(header::CONNECTION, header::HeaderValue::from_static("upgrade"));
        headers.insert(header::UPGRADE, header::HeaderValue::from_static(UPGRADE));
        let answer = sender.send_request(request).await.map_err(broken)?;
        if answer.status() != StatusCode::SWITCHING_PROTOCOLS {
            return Err(broken(format!("control answered {} to a stream", answer.status())));
        }
        Ok(TokioIo::new(hyper::upgrade::on(answer).await.map_err(broken)?))
    }
}

fn checked(path: &Path, uid: Option<u32>) -> io::Result<std::os::unix::net::UnixStream> {
    let socket = unixfd::connect(path)?;
    if let Some(uid) = uid {
        let peer = unixfd::peer_uid(&socket)?;
        if peer != uid && peer != 0 {
            return Err(io::Error::other(format!("user {peer} holds control's socket instead of {uid}")));
        }
    }
    Ok(socket)
}

/// What a body is.
#[derive(Clone, Copy)]
enum Kind {
    Json,
    Bytes,
    /// Why an order is not answered with what it asked for.
    Error,
}

fn request(path: &str, host: &HostName, kind: Kind, body: Vec<u8>) -> Result<Request<Full<Bytes>>, LinkError> {
    let content_type = match kind {
        Kind::Json => "application/json",
        Kind::Bytes => "application/octet-stream",
        Kind::Error => "text/plain; charset=UTF-8",
    };
    let request = Request::builder()
        .method(Method::POST)
        .uri(format!("http://control{path}"))
        .header(header::CONTENT_TYPE, content_type)
        .header("x-nubo-host", host.as_str());
    let request = if matches!(kind, Kind::Error) { request.header("x-nubo-error", "1") } else { request };
    request.body(Full::new(Bytes::from(body))).map_err(broken)
}

async fn read(answer: Response<Incoming>) -> Result<Bytes, LinkError> {
    let status = answer.status();
    let body = Limited::new(answer.into_body(), ANSWER_BYTES).collect().await.map_err(broken)?.to_bytes();
    if status.is_success() {
        return Ok(body);
    }
    let text: String = String::from_utf8_lossy(&body).chars().take(300).collect();
    Err(broken(format!("control answered {status}: {text}")))
}

#[async_trait]
impl ControlLink for HttpLink {
    async fn poll(&self, request: PollRequest) -> Result<PollAnswer, LinkError> {
        let answer = self.post_json("/agent/v1/poll", &request.inventory.name, &request).await?;
        serde_json::from_slice(&answer).map_err(broken)
    }

    async fn report(&self, report: Report) -> Result<(), LinkError> {
        self.post_json("/agent/v1/report", &report.host, &report).await.map(drop)
    }

    async fn answer_bytes(
        &self,
        host: &HostName,
        order: &str,
        answer: Result<Vec<u8>, String>,
    ) -> Result<(), LinkError> {
        let path = order_path(order, "bytes")?;
        let (kind, body) = match answer {
            Ok(bytes) => (Kind::Bytes, bytes),
            Err(error) => (Kind::Error, error.into_bytes()),
        };
        self.post(&path, host, kind, body).await.map(drop)
    }

    async fn answer_stream(
        &self,
        host: &HostName,
        order: &str,
        answer: Result<BoxStream, String>,
    ) -> Result<(), LinkError> {
        let mut console = match answer {
            Ok(console) => console,
            Err(error) => return self.answer_bytes(host, order, Err(error)).await,
        };
        let path = order_path(order, "stream")?;
        let opened = tokio::time::timeout(PATIENCE, self.stream(&path, host)).await;
        let mut upgraded = opened.unwrap_or_else(|_| Err(broken("control did not take a stream in time")))?;
        // However it ends, it has ended: a viewer that closes its window is no failure.
        let _ = tokio::io::copy_bidirectional(&mut console, &mut upgraded).await;
        Ok(())
    }

    async fn image(&self, _host: &HostName, image: &ImageId) -> Result<File, LinkError> {
        let (path, uid) = (self.files.clone(), self.control_uid);
        let line = format!("{}\n", serde_json::json!({ "image": image }));
        let asked = tokio::task::spawn_blocking(move || -> io::Result<File> {
            let socket = checked(&path, uid)?;
            socket.set_read_timeout(Some(PATIENCE))?;
            socket.set_write_timeout(Some(PATIENCE))?;
            unixfd::send_fd(&socket, line.as_bytes(), None)?;
            match unixfd::recv_fd(&socket)? {
                (_, Some(file)) => Ok(File::from(file)),
                (message, None) => Err(io::Error::other(String::from_utf8_lossy(&message).into_owned())),
            }
        });
        asked.await.map_err(broken)?.map_err(broken)
    }
}

/// An order's id comes from control and goes into a path.
fn order_path(order: &str, kind: &str) -> Result<String, LinkError> {
    if order.is_empty() || order.len() > 128 || !order.bytes().all(|it| it.is_ascii_alphanumeric() || it == b'-') {
        return Err(broken("an order's id is letters, digits and dashes"));
    }
    Ok(format!("/agent/v1/orders/{order}/{kind}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use agent_api::{HostInventory, Order, OrderKind};
    use axum::Router;
    use axum::extract::{Path as UrlPath, Request as AxumRequest, State};
    use axum::routing::post;
    use hyper_util::server::conn::auto;
    use std::os::fd::AsFd;
    use std::sync::{Arc, Mutex};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    type Seen = Arc<Mutex<Vec<String>>>;

    async fn note(
        State(seen): State<Seen>,
        UrlPath((id, kind)): UrlPath<(String, String)>,
        request: AxumRequest,
    ) -> Response<axum::body::Body> {
        let note = |text: String| seen.lock().unwrap().push(text);
        if request.headers().contains_key(header::UPGRADE) {
            let upgraded = hyper::upgrade::on(request);
            tokio::spawn(async move {
                let mut stream = TokioIo::new(upgraded.await.unwrap());
                stream.write_all(b"ping").await.unwrap();
                let mut text = String::new();
                stream.read_to_string(&mut text).await.unwrap();
                seen.lock().unwrap().push(format!("{id} streamed {text}"));
            });
            let upgrade = Response::builder().status(101).header(header::UPGRADE, UPGRADE);
            return upgrade.header(header::CONNECTION, "upgrade").body(axum::body::Body::empty()).unwrap();
        }
        let host = request.headers()["x-nubo-host"].to_str().unwrap().to_owned();
        let type_ = if request.headers().contains_key("x-nubo-error") { "error" } else { "bytes" };
        let body = axum::body::to_bytes(request.into_body(), 1000).await.unwrap();
        note(format!("{id} {kind} {host} {type_} {}", String::from_utf8_lossy(&body)));
        Response::new(axum::body::Body::empty())
    }

    async fn control(run: &Path) -> Seen {
        let seen = Seen::default();
        let router = Router::new()
            .route(
                "/agent/v1/poll",
                post(|body: Bytes| async move {
                    let request: PollRequest = serde_json::from_slice(&body).unwrap();
                    let what = OrderKind::Serial { server: request.inventory.name.as_str().into() };
                    serde_json::to_vec(&PollAnswer { delta: None, orders: vec![Order { id: "1".into(), what }] })
                        .unwrap()
                }),
            )
            .route("/agent/v1/report", post(|| async { (StatusCode::CONFLICT, "an old session") }))
            .route("/agent/v1/orders/{id}/{kind}", post(note))
            .with_state(seen.clone());
        let listener = unixfd::listen(&run.join("control.sock")).unwrap();
        listener.set_nonblocking(true).unwrap();
        let listener = tokio::net::UnixListener::from_std(listener).unwrap();
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let service = hyper_util::service::TowerToHyperService::new(router.clone());
                tokio::spawn(async move {
                    let _ = auto::Builder::new(TokioExecutor::new())
                        .serve_connection_with_upgrades(TokioIo::new(stream), service)
                        .await;
                });
            }
        });
        seen
    }

    fn inventory() -> HostInventory {
        let zero = serde_json::json!({"name": "h", "session": "", "boot_id": "", "version": "", "arch": "", "vcpus": 0,
            "memory_mib": 0, "disk_gib": 0, "hypervisor_type": "", "hypervisor_version": 0, "accel": "",
            "cpu_model": "", "address": "", "warnings": []});
        serde_json::from_value(zero).unwrap()
    }

    #[tokio::test]
    async fn polls_reports_and_answers_reach_control() {
        let run = tempfile::tempdir().unwrap();
        let link = HttpLink::new(run.path(), None);
        assert!(link.poll(PollRequest { inventory: inventory(), version: None, memory_sharing: None }).await.is_err());
        let seen = control(run.path()).await;
        let answer = link.poll(PollRequest { inventory: inventory(), version: None, memory_sharing: None }).await.unwrap();
        assert_eq!(answer.orders.len(), 1);
        let refused = link.report(Report::default()).await.unwrap_err();
        assert!(refused.0.contains("409") && refused.0.contains("an old session"), "{refused}");

        let host = HostName::from("h");
        link.answer_bytes(&host, "one", Ok(b"log".to_vec())).await.unwrap();
        link.answer_bytes(&host, "two", Err("gone".into())).await.unwrap();
        link.answer_stream(&host, "no-stream", Err("busy".into())).await.unwrap();
        assert!(link.answer_bytes(&host, "../report", Ok(Vec::new())).await.is_err());
        let (ours, theirs) = tokio::io::duplex(100);
        let echo = tokio::spawn(async move {
            let mut ours = ours;
            let mut bytes = [0; 4];
            ours.read_exact(&mut bytes).await.unwrap();
            ours.write_all(b"pong").await.unwrap();
            bytes
        });
        link.answer_stream(&host, "three", Ok(Box::pin(theirs))).await.unwrap();
        assert_eq!(&echo.await.unwrap(), b"ping");
        for _ in 0..500 {
            if seen.lock().unwrap().len() == 4 {
                break;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert_eq!(
            *seen.lock().unwrap(),
            ["one bytes h bytes log", "two bytes h error gone", "no-stream bytes h error busy", "three streamed pong",]
        );
    }

    #[tokio::test]
    async fn an_image_comes_as_a_file() {
        let run = tempfile::tempdir().unwrap();
        let listener = unixfd::listen(&run.path().join("control-fd.sock")).unwrap();
        let content = run.path().join("image");
        std::fs::write(&content, b"bytes").unwrap();
        let served = std::thread::spawn(move || {
            for _ in 0..2 {
                let (socket, _) = listener.accept().unwrap();
                let (line, _) = unixfd::recv_fd(&socket).unwrap();
                if line == b"{\"image\":\"good\"}\n" {
                    let file = File::open(&content).unwrap();
                    unixfd::send_fd(&socket, b"{\"ok\":true}\n", Some(file.as_fd())).unwrap();
                } else {
                    unixfd::send_fd(&socket, b"{\"error\":\"no such image\"}\n", None).unwrap();
                }
            }
        });
        let link = HttpLink::new(run.path(), Some(nix::unistd::getuid().as_raw()));
        let mut file = link.image(&"h".into(), &"good".into()).await.unwrap();
        let mut text = String::new();
        io::Read::read_to_string(&mut file, &mut text).unwrap();
        assert_eq!(text, "bytes");
        let refused = link.image(&"h".into(), &"bad".into()).await.unwrap_err();
        assert!(refused.0.contains("no such image"));
        served.join().unwrap();
    }
}
