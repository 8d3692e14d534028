//! The public listener: plain HTTP or TLS, HTTP/1.1 and HTTP/2, with bounds on connections and headers.

use crate::Cloud;
use axum::body::Body;
use http::{Request, Response};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use rest::Peer;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

/// The most connections at a time; further ones wait in the kernel's queue.
const CONNECTIONS: usize = 8192;
/// A client that does not finish its headers within this time is dropped.
const HEADERS: Duration = Duration::from_secs(30);

/// Serves until the future is dropped.
pub async fn serve(cloud: Cloud, listener: TcpListener, tls: Option<Arc<rustls::ServerConfig>>) {
    let slots = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let Ok(slot) = slots.clone().acquire_owned().await else { return };
        let (stream, peer) = match listener.accept().await {
            Ok((stream, peer)) => (stream, Peer(peer.ip())),
            Err(error) => {
                // Out of descriptors, mostly: others end meanwhile.
                tracing::warn!("cannot accept a connection: {error}");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        let (cloud, tls) = (cloud.clone(), tls.clone());
        tokio::spawn(async move {
            if let Err(error) = connection(cloud, stream, peer, tls).await {
                tracing::debug!("a connection broke: {error}");
            }
            drop(slot);
        });
    }
}

type Broken = Box<dyn std::error::Error + Send + Sync>;

async fn connection(cloud: Cloud, stream: TcpStream, peer: Peer, tls: Option<Arc<rustls::ServerConfig>>) -> Result<(), Broken> {
    stream.set_nodelay(true)?;
    let Some(config) = tls else { return talk(cloud, peer, TokioIo::new(stream)).await };
    let accept = tokio_rustls::TlsAcceptor::from(config).accept(stream);
    let stream = tokio::time::timeout(HEADERS, accept).await??;
    talk(cloud, peer, TokioIo::new(stream)).await
}

async fn talk<S>(cloud: Cloud, peer: Peer, stream: S) -> Result<(), Broken>
where
    S: hyper::rt::Read + hyper::rt::Write + Unpin + Send + 'static,
{
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HEADERS).max_buf_size(128 << 10);
    builder.http2().timer(TokioTimer::new()).max_concurrent_streams(256).max_header_list_size(64 << 10);
    let service = service_fn(move |request: Request<hyper::body::Incoming>| {
        let cloud = cloud.clone();
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(peer);
        async move { Ok::<Response<Body>, Infallible>(cloud.answer(request).await) }
    });
    builder.serve_connection_with_upgrades(stream, service).await
}
