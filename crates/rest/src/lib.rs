//! HTTP as all services speak it: routes as data, the caller, microversions, faults, paging, bodies with limits.
//!
//! A service is a [`Service`]: a path prefix, an envelope for faults, a range of microversions, a policy and a table of
//! [`Route`]s. A [`Gateway`] joins services behind one listener: it finds the route, verifies the token, negotiates the
//! version, runs the handler, turns a [`base::Fault`] into the service's own answer, and writes one log line.
//!
//! What must never happen here: an answer without a request id, a handler that runs without a caller on a route that is
//! not declared open, a body that is read beyond its limit.

mod call;
mod caller;
mod envelope;
mod gateway;
pub mod input;
mod json;
mod metrics;
mod page;
mod plan;
mod query;
mod repeat;
mod reply;
mod route;
mod version;
mod wish;

pub use call::{Call, Params, Peer};
pub use caller::{Caller, Tokens};
pub use envelope::Envelope;
pub use gateway::{Gateway, GatewayOptions, WeakGateway};
pub use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
pub use json::{check_json, from_slice};
pub use metrics::Metrics;
pub use page::{Page, PageRequest};
pub use plan::Effects;
pub use plan::PLAN_RULE;
pub use query::Query;
pub use repeat::{Answer, Begun, First, Keyed, Repeats};
pub use reply::{Body, Reply};
pub use route::{Access, DryRun, Except, Handler, Past, Route, Service, Undo, except, no_past};
pub use version::{Change, Microversions, Version, lift_request, lower_response};
