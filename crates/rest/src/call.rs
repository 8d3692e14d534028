//! One request on its way through a handler.

use crate::{Body, Caller, PageRequest, Query, Reply, Version, from_slice};
use base::{Fault, FaultKind, RequestId, Result, Timestamp, limits};
use bytes::Bytes;
use http::{HeaderMap, Method};
use http_body_util::BodyExt;
use policy::{Decision, Policy, Target};
use serde::de::DeserializeOwned;
use std::sync::{Arc, Mutex};

/// The values of a path's placeholders, percent-decoded.
#[derive(Clone, Debug, Default)]
pub struct Params(pub(crate) Vec<(&'static str, String)>);

/// Where a request's connection comes from, as an extension of the request.
#[derive(Clone, Copy, Debug)]
pub struct Peer(pub std::net::IpAddr);

/// A request that found its route.
pub struct Call {
    pub request_id: RequestId,
    pub operation: &'static str,
    pub rule: &'static str,
    pub caller: Arc<Caller>,
    /// The version negotiated; `Version(0, 0)` where the service has none.
    pub version: Version,
    pub method: Method,
    /// As the client wrote it, without the query.
    pub path: String,
    /// Where the client reached the cloud, such as `http://127.0.0.1:8774`; no trailing slash. For links.
    pub base_url: String,
    /// The prefix of the service, such as `/compute/v2.1`.
    pub prefix: &'static str,
    pub headers: HeaderMap,
    pub query: Query,
    pub params: Params,
    pub policy: Arc<Policy>,
    pub now: Timestamp,
    /// The address at the other end of the connection, where there is one.
    pub peer: Option<std::net::IpAddr>,
    /// Behind a lock only so that a shared reference to the call may cross an await: a body is not `Sync`.
    pub(crate) body: Mutex<Option<Body>>,
    pub(crate) upgrade: Option<hyper::upgrade::OnUpgrade>,
}

impl Call {
    /// A placeholder of the path. Empty for a name that the path does not have.
    pub fn param(&self, name: &str) -> &str {
        self.params.0.iter().find(|pair| pair.0 == name).map_or("", |pair| pair.1.as_str())
    }

    /// The JSON body as `T`.
    pub async fn json<T: DeserializeOwned>(&mut self) -> Result<T> {
        from_slice(&self.bytes(limits::BODY_BYTES).await?)
    }

    /// The whole body, at most `most` bytes.
    pub async fn bytes(&mut self, most: usize) -> Result<Bytes> {
        let Some(body) = self.take_body() else { return Ok(Bytes::new()) };
        let declared =
            self.headers.get(http::header::CONTENT_LENGTH).and_then(|v| v.to_str().ok()?.parse::<u64>().ok());
        if declared.is_some_and(|length| length > most as u64) {
            return Err(too_large(most));
        }
        match http_body_util::Limited::new(body, most).collect().await {
            Ok(collected) => Ok(collected.to_bytes()),
            Err(error) if error.is::<http_body_util::LengthLimitError>() => Err(too_large(most)),
            Err(error) => Err(Fault::invalid(format!("The request body broke off: {error}."))),
        }
    }

    /// The body as a stream, for uploads. Can be taken once.
    pub fn body(&mut self) -> Body {
        self.take_body().unwrap_or_else(Body::empty)
    }

    /// Puts a body in the place of the one that was taken.
    pub(crate) fn put_body(&mut self, body: Body) {
        *self.body.get_mut().unwrap_or_else(|poisoned| poisoned.into_inner()) = Some(body);
    }

    fn take_body(&mut self) -> Option<Body> {
        self.body.get_mut().unwrap_or_else(|poisoned| poisoned.into_inner()).take()
    }

    /// For websockets: the connection after the answer 101.
    pub fn upgrade(&mut self) -> Option<hyper::upgrade::OnUpgrade> {
        self.upgrade.take()
    }

    pub fn page(&self) -> Result<PageRequest> {
        PageRequest::read(&self.query)
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    /// True where the caller may do what `rule` says to `target`.
    pub fn may(&self, rule: &str, target: &Target) -> bool {
        matches!(self.policy.check(rule, &self.caller.credentials, target), Decision::Allowed)
    }

    /// Checks the route's rule; Forbidden otherwise.
    pub fn enforce(&self, target: &Target) -> Result<()> {
        self.enforce_rule(self.rule, target)
    }

    pub fn enforce_rule(&self, rule: &str, target: &Target) -> Result<()> {
        if self.may(rule, target) { Ok(()) } else { Err(denied(rule)) }
    }

    /// The project of the token's scope; Forbidden for a token of another scope.
    pub fn project(&self) -> Result<base::ProjectId> {
        self.caller.project_id().ok_or_else(|| {
            Fault::forbidden(format!("{} needs a token that is scoped to a project; this one is not.", self.operation))
        })
    }

    /// Who did this, for the history.
    pub fn cause(&self) -> store::Cause {
        store::Cause {
            actor: self.caller.credentials.user_id.to_string(),
            request_id: self.request_id.clone(),
            what: self.operation.to_owned(),
        }
    }

    /// A link below the service, such as `http://…/compute/v2.1/servers/ID`.
    pub fn link(&self, rest: &str) -> String {
        format!("{}{}{rest}", self.base_url, self.prefix)
    }

    /// JSON with the route's usual status is what most handlers answer.
    pub fn reply<T: serde::Serialize + ?Sized>(&self, status: u16, value: &T) -> Result<Reply> {
        Reply::json(status, value)
    }
}

/// What a caller reads who lacks the right.
pub(crate) fn denied(rule: &str) -> Fault {
    Fault::new(FaultKind::Forbidden, format!("Policy doesn't allow {rule} to be performed."))
}

fn too_large(most: usize) -> Fault {
    Fault::too_large(format!("Request is too large: a body may have at most {most} bytes."))
}
