//! A client that keeps connections busy, and the bare endpoint that nubo is compared with.

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::{Method, Request};
use hyper_util::rt::TokioIo;
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

/// Requests a second over `connections` connections during `time`.
pub async fn rate(url: &str, path: &str, headers: &[(&str, &str)], connections: usize, time: Duration) -> Result<f64> {
    let began = Instant::now();
    let workers = (0..connections).map(|_| async {
        let mut connection = Connection::open(url).await?;
        let mut count = 0u64;
        while began.elapsed() < time {
            let answer = connection.send(Method::GET, path, headers, Bytes::new()).await?;
            if answer.status != 200 {
                bail!("{path} answered {}", answer.status);
            }
            count += 1;
        }
        Ok(count)
    });
    let counts: Vec<u64> = futures::future::try_join_all(workers).await?;
    Ok(counts.iter().sum::<u64>() as f64 / began.elapsed().as_secs_f64())
}

/// The endpoint that does nothing but JSON: what axum alone costs. Prints its address.
pub async fn serve_bare() -> Result<()> {
    async fn hello() -> impl axum::response::IntoResponse {
        let body = serde_json::to_vec(&serde_json::json!({"hello": "world"})).unwrap_or_default();
        ([("content-type", "application/json")], body)
    }
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
