//! The metadata service of one network. A guest is known by the network it asks in and its source address, which
//! anti-spoofing makes true; nothing it says of itself is believed.

use super::serve::Served;
use crate::metadata as render;
use agent_api::InstanceMetadata;
use base::NetworkId;
use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::{Method, Request, Response, StatusCode, header};
use hyper_util::rt::{TokioIo, TokioTimer};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::net::TcpListener;

/// Connections of one address at a time, and of one network.
const PER_GUEST: usize = 16;
const PER_NETWORK: usize = 512;
const HEAD_BYTES: usize = 16 * 1024;
const HEADERS: usize = 64;
const HEAD_PATIENCE: Duration = Duration::from_secs(5);
const CONNECTION_LIFE: Duration = Duration::from_secs(60);

type Open = Arc<Mutex<BTreeMap<IpAddr, usize>>>;

/// A connection's place among those of its guest.
struct Place(Open, IpAddr);

impl Place {
    fn take(open: &Open, who: IpAddr) -> Option<Place> {
        let mut all = open.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        if all.values().sum::<usize>() >= PER_NETWORK || all.get(&who).is_some_and(|n| *n >= PER_GUEST) {
            return None;
        }
        *all.entry(who).or_default() += 1;
        Some(Place(open.clone(), who))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut all = self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        if let Some(count) = all.get_mut(&self.1) {
            *count -= 1;
            if *count == 0 {
                all.remove(&self.1);
            }
        }
    }
}

pub async fn serve(served: Arc<Served>, network: NetworkId, listener: TcpListener) {
    let open = Open::default();
    loop {
        let Ok((stream, peer)) = listener.accept().await else {
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        // Whoever has too many open is hung up on: a guest cannot keep others from their metadata.
        let Some(place) = Place::take(&open, peer.ip()) else { continue };
        let (served, network) = (served.clone(), network.clone());
        tokio::spawn(async move {
            let _place = place;
            let service = hyper::service::service_fn(|request| {
                let response = answer(&served, &network, peer.ip(), &request);
                async move { Ok::<_, std::convert::Infallible>(response) }
            });
            let connection = hyper::server::conn::http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEAD_PATIENCE)
                .max_buf_size(HEAD_BYTES)
                .max_headers(HEADERS)
                .serve_connection(TokioIo::new(stream), service);
            // A guest that hangs up is none of our faults.
            let _ = tokio::time::timeout(CONNECTION_LIFE, connection).await;
        });
    }
}

fn answer(served: &Served, network: &NetworkId, who: IpAddr, request: &Request<Incoming>) -> Response<Full<Bytes>> {
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        return plain(StatusCode::METHOD_NOT_ALLOWED, "405 Method Not Allowed\n");
    }
    let found = guest(served, network, who);
    let rendered = found.as_ref().and_then(|guest| render_path(request.uri().path(), &guest.metadata));
    match rendered {
        Some((kind, body)) => {
            let mut response = Response::new(Full::from(body));
            response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static(kind));
            response
        }
        None => plain(StatusCode::NOT_FOUND, "404 Not Found\n"),
    }
}

fn render_path(path: &str, metadata: &InstanceMetadata) -> Option<render::Answer> {
    if path.split('/').find(|part| !part.is_empty()) == Some("openstack") {
        render::openstack(path, metadata)
    } else {
        render::ec2(path, metadata)
    }
}

fn guest(served: &Served, network: &NetworkId, who: IpAddr) -> Option<Arc<super::link::GuestView>> {
    let view = served.view(network)?;
    let port = view.ports.iter().find(|port| port.fixed_ips.iter().any(|(_, ip)| *ip == who))?;
    served.guest(port.server.as_ref()?)
}

fn plain(status: StatusCode, text: &'static str) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(text));
    *response.status_mut() = status;
    response
}
