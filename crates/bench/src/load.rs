//! A client that keeps connections busy, and the bare endpoint that nubo is compared with.

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::{Method, Request};
use hyper_util::rt::TokioIo;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use tokio::net::TcpStream;

/// One connection, kept alive.
pub struct Connection {
    sender: SendRequest<Full<Bytes>>,
    host: String,
}

pub struct Answer {
    pub status: u16,
    pub headers: hyper::HeaderMap,
    pub body: Bytes,
}

impl Connection {
    /// `url` is `http://HOST:PORT` without a path.
    pub async fn open(url: &str) -> Result<Connection> {
        let host = url.trim_start_matches("http://").trim_end_matches('/').to_owned();
        let stream = TcpStream::connect(&host).await.with_context(|| format!("cannot reach {host}"))?;
        stream.set_nodelay(true)?;
        let (sender, connection) = handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        Ok(Connection { sender, host })
    }

    pub async fn send(
        &mut self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> Result<Answer> {
        if self.sender.is_closed() {
            // A server ends connections that nobody uses.
            *self = Connection::open(&self.host.clone()).await?;
        }
        let mut request = Request::builder().method(method).uri(path).header("host", &self.host);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        self.sender.ready().await?;
        let response = self.sender.send_request(request.body(Full::new(body.into()))?).await?;
        let (parts, body) = response.into_parts();
        let body = body.collect().await?.to_bytes();
        Ok(Answer { status: parts.status.as_u16(), headers: parts.headers, body })
    }
}

/// One request, and the answer that is right.
pub struct Ask<'a> {
    pub method: Method,
    pub path: &'a str,
    pub headers: Vec<(&'a str, &'a str)>,
    pub body: Bytes,
    pub status: u16,
}

impl<'a> Ask<'a> {
    pub fn get(path: &'a str) -> Ask<'a> {
        Ask { method: Method::GET, path, headers: Vec::new(), body: Bytes::new(), status: 200 }
    }
}

/// Requests a second over `connections` connections during `time`; `ask` makes the nth.
pub async fn rate_of<'a>(
    url: &str,
    connections: usize,
    time: Duration,
    ask: impl Fn(usize) -> Ask<'a>,
) -> Result<f64> {
    let (began, next) = (Instant::now(), AtomicUsize::new(0));
    let workers = (0..connections).map(|_| async {
        let mut connection = Connection::open(url).await?;
        let mut count = 0u64;
        while began.elapsed() < time {
            let Ask { method, path, headers, body, status } = ask(next.fetch_add(1, Ordering::Relaxed));
            let answer = connection.send(method, path, &headers, body).await?;
            if answer.status != status {
                bail!("{path} answered {}", answer.status);
            }
            count += 1;
        }
        Ok(count)
    });
    let counts: Vec<u64> = futures::future::try_join_all(workers).await?;
    Ok(counts.iter().sum::<u64>() as f64 / began.elapsed().as_secs_f64())
}

/// Requests a second of one kind.
pub async fn rate(url: &str, path: &str, headers: &[(&str, &str)], connections: usize, time: Duration) -> Result<f64> {
    rate_of(url, connections, time, |_| Ask { headers: headers.to_vec(), ..Ask::get(path) }).await
}

/// The endpoint that does nothing but JSON, that of a file or a greeting: what axum alone costs. Prints its address.
pub async fn serve_bare(file: Option<&str>) -> Result<()> {
    let json: serde_json::Value = match file {
        Some(file) => serde_json::from_slice(&std::fs::read(file)?)?,
        None => serde_json::json!({"hello": "world"}),
    };
    let json = std::sync::Arc::new(json);
    let hello = move || {
        let json = json.clone();
        async move { ([("content-type", "application/json")], serde_json::to_vec(&*json).unwrap_or_default()) }
    };
    let router = axum::Router::new().route("/", axum::routing::get(hello));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    println!("http://{}", listener.local_addr()?);
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let service = hyper_util::service::TowerToHyperService::new(router.clone());
        tokio::spawn(async move {
            let builder = hyper_util::server::conn::auto::Builder::new(hyper_util::rt::TokioExecutor::new());
            let _ = builder.serve_connection(TokioIo::new(stream), service).await;
        });
    }
}
