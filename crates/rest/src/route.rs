//! Routes as data.

use crate::{Call, Envelope, Microversions, Reply, Version};
use base::Result;
use futures::future::BoxFuture;
use http::Method;
use policy::Policy;
use std::future::Future;
use std::sync::Arc;

/// Who may come as far as the handler.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Anybody, also without a token: version documents, `POST /v3/auth/tokens`, consoles with a one-time token.
    Open,
    /// A verified caller; the handler checks the named policy rule against its target.
    Rule(&'static str),
}

type Handler = Arc<dyn Fn(Call) -> BoxFuture<'static, Result<Reply>> + Send + Sync>;

/// One operation: where it is, since when, who may, and what answers.
#[derive(Clone)]
pub struct Route {
    pub method: Method,
    /// Below the service's prefix, such as `/servers/{id}`; empty for the prefix itself.
    pub path: &'static str,
    /// A name that no other route of the service has, such as `servers:create`. Actions that share one path have one
    /// route (`servers:action`) and name what they do in [`Route::actions`].
    pub operation: &'static str,
    pub access: Access,
    /// The status of success, as the API reference says.
    pub success: u16,
    pub since: Option<Version>,
    pub until: Option<Version>,
    /// Names of the actions that this route dispatches by the body's only key.
    pub actions: &'static [&'static str],
    pub handler: Handler,
}

impl Route {
    pub fn new<S, F, Fut>(
        state: &Arc<S>,
        method: Method,
        path: &'static str,
        operation: &'static str,
        access: Access,
        success: u16,
        handler: F,
    ) -> Route
    where
        S: Send + Sync + 'static,
        F: Fn(Arc<S>, Call) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Reply>> + Send + 'static,
    {
        let state = state.clone();
        let handler: Handler = Arc::new(move |call| Box::pin(handler(state.clone(), call)));
        Route { method, path, operation, access, success, since: None, until: None, actions: &[], handler }
    }

    /// Exists from this version on.
    pub fn since(mut self, major: u16, minor: u16) -> Route {
        self.since = Some(Version(major, minor));
        self
    }

    /// Exists up to and with this version.
    pub fn until(mut self, major: u16, minor: u16) -> Route {
        self.until = Some(Version(major, minor));
        self
    }

    pub fn actions(mut self, actions: &'static [&'static str]) -> Route {
        self.actions = actions;
        self
    }

    pub(crate) fn speaks(&self, version: Option<Version>) -> bool {
        let Some(version) = version else { return true };
        self.since.is_none_or(|since| version >= since) && self.until.is_none_or(|until| version <= until)
    }
}

/// A service: everything the gateway needs to know of it.
#[derive(Clone)]
pub struct Service {
    /// A short name for logs and metrics, such as `compute`.
    pub name: &'static str,
    /// Where its routes live, such as `/compute/v2.1`. No trailing slash.
    pub prefix: &'static str,
    pub envelope: Envelope,
    pub microversions: Option<Microversions>,
    pub policy: Arc<Policy>,
    pub routes: Vec<Route>,
}
