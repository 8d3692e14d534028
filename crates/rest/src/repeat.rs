//! `Idempotency-Key`: a POST that is sent again is not done again.
//!
//! ```text
//! begin ── First ─> the handler runs, its first commit takes the record along ─> finish keeps the answer
//!   └───── Done ──> the answer of the first, with `Idempotency-Replayed: true`
//! ```
//!
//! Here is what HTTP knows of it; where records lie is whose [`Repeats`] the gateway was given. The work runs in a task
//! of its own: a client that goes away, and will come again with the same key, shall find the answer.

use crate::route::Access;
use crate::{Body, Reply, Route};
use base::{Fault, RequestId, Result};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, Method, header};
use std::sync::Arc;
use store::Scope;
use store::scope::Along;

pub const KEY: HeaderName = HeaderName::from_static("idempotency-key");
pub const REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");
/// The request that did the work, beside a repeated answer.
pub const FIRST: HeaderName = HeaderName::from_static("idempotency-request-id");
/// The most bytes of a key.
const KEY_BYTES: usize = 255;
/// An answer that is longer is not kept.
const ANSWER_BYTES: usize = 1 << 20;

/// A request with a key.
#[derive(Clone)]
pub struct Keyed {
    /// As the client wrote it. Must not be kept.
    pub key: String,
    /// Empty where the token has no project.
    pub project: String,
    pub user: String,
    pub method: Method,
    pub path: String,
    /// The query and the version, which mean something besides the body.
    pub meaning: String,
    pub body: Bytes,
    pub request_id: RequestId,
}

/// An answer as it is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Bytes,
}

pub enum Begun {
    /// It has been done, by the request of this id.
    Done(Answer, RequestId),
    First(Box<dyn First>),
}

/// A request that is the first with its key. Dropping it without [`First::finish`] ends it without an answer.
#[async_trait::async_trait]
pub trait First: Send {
    /// What goes along with each commit of the request.
    fn along(&self) -> Arc<dyn Along>;

    /// Keeps the answer. Without a commit only that of a success is kept. What goes wrong here is logged, not answered.
    async fn finish(self: Box<Self>, answer: Answer);
}

/// Where the keys are kept.
#[async_trait::async_trait]
pub trait Repeats: Send + Sync {
    /// Conflict for a key that came with another body, that is under way, or whose answer was lost.
    async fn begin(&self, keyed: Keyed) -> Result<Begun>;
}

/// The key of a request, where it has one that means something; Invalid for one that is none.
pub(crate) fn key(route: &Route, headers: &HeaderMap, scope: &Scope) -> Result<Option<String>> {
    let mut values = headers.get_all(KEY).iter();
    let Some(value) = values.next().filter(|_| route.method == Method::POST && scope.dry.is_none()) else {
        return Ok(None);
    };
    let refuse = |why: &str| Err(Fault::invalid(format!("{} takes no Idempotency-Key: {why}.", route.operation)));
    if route.access == Access::Open {
        return refuse("it is open to callers without a token");
    }
    if let Some(why) = route.no_repeat {
        return refuse(why);
    }
    let kind = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or("");
    if kind.starts_with("application/octet-stream") {
        return refuse("its body is a stream of data, which is not compared");
    }
    if values.next().is_some() {
        return Err(Fault::invalid("The header Idempotency-Key may be given once."));
    }
    let bytes = value.as_bytes();
    if bytes.is_empty() || bytes.len() > KEY_BYTES || !bytes.iter().all(|byte| (0x20..0x7f).contains(byte)) {
        return Err(Fault::invalid(format!(
            "Invalid Idempotency-Key: it has {} bytes, and may have 1 to {KEY_BYTES} printable ASCII characters.",
            bytes.len()
        )));
    }
    Ok(Some(String::from_utf8_lossy(bytes).into_owned()))
}

impl Answer {
    /// Takes the body in. `None` where it is too long to be kept; then the reply goes out as it is.
    pub(crate) async fn of(reply: Reply) -> Result<(Option<Answer>, Reply)> {
        let body = http_body_util::BodyExt::collect(reply.body).await;
        let body = body.map_err(|error| Fault::bug(format!("an answer broke off: {error}")))?.to_bytes();
        let text = |value: &http::HeaderValue| value.to_str().map(str::to_owned).ok();
        let headers = reply.headers.iter().filter_map(|(name, value)| Some((name.to_string(), text(value)?))).collect();
        let kept = (body.len() <= ANSWER_BYTES).then(|| Answer { status: reply.status, headers, body: body.clone() });
        Ok((kept, Reply { body: Body::from(body), ..reply }))
    }

    pub(crate) fn repeated(self, first: &RequestId) -> Reply {
        let mut reply = Reply::empty(self.status).body(Body::from(self.body));
        for (name, value) in self.headers {
            if let Ok(name) = HeaderName::try_from(name) {
                reply = reply.header(name, value);
            }
        }
        reply.header(REPLAYED, "true").header(FIRST, first.as_str())
    }
}
