//! One request to an S3 server, and the bodies in both directions.

use super::super::{Bites, Error, Result};
use crate::web::client::{Flow, exchange};
use bytes::{Bytes, BytesMut};
use futures::StreamExt;
use http_body_util::BodyExt;
use rest::Body;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// Until a connection stands, TLS included.
const CONNECT: Duration = Duration::from_secs(10);
/// A body that brings nothing for so long is broken.
const IDLE: Duration = Duration::from_secs(30);
/// What is read of an answer that is not an object: a page of a list has a thousand keys.
const WORDS_BYTES: usize = 4 << 20;
/// Bytes of a file that are in memory at a time.
const PIECE: usize = 256 << 10;

pub struct Endpoint {
    pub host: String,
    pub port: u16,
    /// None: plain HTTP.
    pub tls: Option<Arc<ClientConfig>>,
}

impl Endpoint {
    /// # Errors
    /// Silent where nothing is answered in time.
    pub async fn send(&self, request: http::Request<Body>, wait: Duration) -> Result<http::Response<Flow>> {
        // An address of IPv6 has brackets in a URL, and nowhere else.
        let host = self.host.trim_matches(['[', ']']);
        let connecting = TcpStream::connect((host, self.port));
        let stream = in_time(CONNECT, connecting).await?.map_err(|error| Error::Silent(said(&error)))?;
        let _ = stream.set_nodelay(true);
        let answered = match &self.tls {
            None => in_time(wait, exchange(stream, request)).await?,
            Some(tls) => {
                let name = ServerName::try_from(host.to_owned())
                    .map_err(|_| Error::Refused("its endpoint names no host for TLS".to_owned()))?;
                let greeted = in_time(CONNECT, TlsConnector::from(tls.clone()).connect(name, stream)).await?;
                let stream = greeted.map_err(|error| Error::Silent(format!("TLS fails: {error}")))?;
                in_time(wait, exchange(stream, request)).await?
            }
        };
        answered.map_err(|error| Error::Silent(format!("the connection broke off ({error})")))
    }
}

async fn in_time<T>(wait: Duration, future: impl Future<Output = T>) -> Result<T> {
    let late = |_| Error::Silent(format!("nothing came for {} seconds", wait.as_secs()));
    tokio::time::timeout(wait, future).await.map_err(late)
}

fn said(error: &std::io::Error) -> String {
    error.raw_os_error().map_or_else(|| error.kind().to_string(), |code| {
        nix::errno::Errno::from_raw(code).desc().to_lowercase()
    })
}

/// The text of an answer.
pub async fn words(flow: Flow) -> Result<String> {
    let (mut flow, mut text) = (flow, BytesMut::new());
    while let Some(frame) = in_time(IDLE, flow.frame()).await? {
        let frame = frame.map_err(|error| Error::Silent(format!("the connection broke off ({error})")))?;
        if let Ok(data) = frame.into_data() {
            if text.len() + data.len() > WORDS_BYTES {
                return Err(Error::Refused("its answer is too long".to_owned()));
            }
            text.extend_from_slice(&data);
        }
    }
    Ok(String::from_utf8_lossy(&text).into_owned())
}

/// `length` bytes of an answer, and an error where there are fewer.
pub fn bites(flow: Flow, length: u64) -> Bites {
    futures::stream::try_unfold((flow, length), |(mut flow, left)| async move {
        while left > 0 {
            let late = |_| std::io::Error::from(std::io::ErrorKind::TimedOut);
            match tokio::time::timeout(IDLE, flow.frame()).await.map_err(late)? {
                None => return Err(std::io::ErrorKind::UnexpectedEof.into()),
                Some(Err(error)) => return Err(std::io::Error::other(error)),
                Some(Ok(frame)) => {
                    if let Ok(mut data) = frame.into_data() {
                        data.truncate(usize::try_from(left).unwrap_or(usize::MAX));
                        let left = left - data.len() as u64;
                        return Ok(Some((data, (flow, left))));
                    }
                }
            }
        }
        Ok(None)
    })
    .boxed()
}

/// A part of a file as a body. Holds one piece in memory.
pub fn part(file: Arc<File>, first: u64, length: u64) -> Body {
    let pieces = futures::stream::try_unfold(0, move |done: u64| {
        let file = file.clone();
        async move {
            let now = (length - done).min(PIECE as u64) as usize;
            if now == 0 {
                return Ok(None);
            }
            let read = tokio::task::spawn_blocking(move || {
                let mut piece = vec![0; now];
                file.read_exact_at(&mut piece, first + done).map(|()| Bytes::from(piece))
            });
            let piece = read.await.map_err(std::io::Error::other)??;
            Ok::<_, std::io::Error>(Some((piece, done + now as u64)))
        }
    });
    Body::from_stream(pieces)
}
