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

/// Whether `?dry_run=true` tells what an operation would do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DryRun {
    Yes,
    /// It cannot, and why: a clause, such as "a token is the answer itself".
    Not(&'static str),
}

/// Whether `undo` takes back what an operation did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Undo {
    Yes,
    /// It cannot, and why.
    Not(&'static str),
}

/// Whether `?as_of=` tells what an operation would have answered then. Only for operations that change nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Past {
    Yes,
    /// It cannot, and why: a clause, such as "how hosts are is not written down".
    Not(&'static str),
}

/// What holds for one action of a route that dispatches by the body's only key, where it differs from the route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Except {
    pub action: &'static str,
    pub dry: DryRun,
    pub undo: Undo,
}

/// What answers a route.
pub type Handler = Arc<dyn Fn(Call) -> BoxFuture<'static, Result<Reply>> + Send + Sync>;

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
    /// Means something for operations that change something.
    pub dry: DryRun,
    pub undo: Undo,
    pub except: &'static [Except],
    /// Means something for operations that change nothing.
    pub past: Past,
    /// Why the operation takes no `Idempotency-Key`, where it takes none.
    pub no_repeat: Option<&'static str>,
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
        let (dry, undo, past, no_repeat) = (DryRun::Yes, Undo::Yes, Past::Yes, None);
        let (since, until, actions, except) = (None, None, &[], &[]);
        Route {
            method,
            path,
            operation,
            access,
            success,
            since,
            until,
            actions,
            dry,
            undo,
            except,
            past,
            no_repeat,
            handler,
        }
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

    /// Says that the operation has no dry run, and why.
    pub fn no_dry_run(mut self, why: &'static str) -> Route {
        self.dry = DryRun::Not(why);
        self
    }

    /// Says that the operation cannot be undone, and why.
    pub fn no_undo(mut self, why: &'static str) -> Route {
        self.undo = Undo::Not(why);
        self
    }

    /// Says that the operation cannot answer for the past, and why.
    pub fn no_past(mut self, why: &'static str) -> Route {
        self.past = Past::Not(why);
        self
    }

    /// Says that the operation takes no `Idempotency-Key`, and why.
    pub fn no_repeat(mut self, why: &'static str) -> Route {
        self.no_repeat = Some(why);
        self
    }

    /// Says which of the actions have no dry run or no undo.
    pub fn except(mut self, except: &'static [Except]) -> Route {
        self.except = except;
        self
    }

    /// Whether the operation may change something. A GET may write what it finds missing, but nobody asked it to.
    pub fn mutates(&self) -> bool {
        !matches!(self.method, Method::GET | Method::HEAD | Method::OPTIONS)
    }

    pub(crate) fn speaks(&self, version: Option<Version>) -> bool {
        let Some(version) = version else { return true };
        self.since.is_none_or(|since| version >= since) && self.until.is_none_or(|until| version <= until)
    }
}

/// Writes into a table which of its operations have no dry run or no undo, and why. A service keeps these in one list,
/// so that they can be read together.
///
/// # Panics
/// When the table has no such operation: the list would promise something of nothing.
pub fn except(mut routes: Vec<Route>, list: &[(&str, DryRun, Undo)]) -> Vec<Route> {
    for (operation, dry, undo) in list {
        let route = routes.iter_mut().find(|route| route.operation == *operation && route.mutates());
        let route = route.unwrap_or_else(|| panic!("no operation {operation} changes anything"));
        (route.dry, route.undo) = (*dry, *undo);
    }
    routes
}

/// Writes into a table which of its reads cannot answer for the past, and why; one list for each service, as above.
///
/// # Panics
/// When the table has no such operation.
pub fn no_past(mut routes: Vec<Route>, list: &[(&str, &'static str)]) -> Vec<Route> {
    for (operation, why) in list {
        let route = routes.iter_mut().find(|route| route.operation == *operation && !route.mutates());
        let route = route.unwrap_or_else(|| panic!("no operation {operation} only reads"));
        route.past = Past::Not(why);
    }
    routes
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
