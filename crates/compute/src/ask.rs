//! What of a request may cross into a transaction: everything but its body.

use crate::input;
use base::{Fault, ProjectId, Result, Timestamp};
use policy::{Decision, Policy, Target};
use rest::{Call, Caller, Change, Query, Reply, Version, lift_request, lower_response};
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::Arc;

/// The names of all placeholders in this service's paths.
const PLACEHOLDERS: &[&str] = &[
    "flavor_id",
    "server_id",
    "key",
    "tag",
    "port_id",
    "volume_id",
    "network",
    "request_id",
    "project_id",
    "class",
    "id",
    "name",
    "version",
];

/// A request without its body. Cheap to clone.
#[derive(Clone)]
pub struct Ask(Arc<Inner>);

pub struct Inner {
    pub caller: Arc<Caller>,
    pub rule: &'static str,
    pub operation: &'static str,
    pub version: Version,
    pub base_url: String,
    pub query: Query,
    pub now: Timestamp,
    /// The request asks for the past. Only what is written down is known of it: not which hosts were alive, for one.
    pub past: bool,
    pub request_id: base::RequestId,
    policy: Arc<Policy>,
    prefix: &'static str,
    params: BTreeMap<&'static str, String>,
}

impl std::ops::Deref for Ask {
    type Target = Inner;
    fn deref(&self) -> &Inner {
        &self.0
    }
}

impl Ask {
    pub fn of(call: &Call) -> Ask {
        let params = PLACEHOLDERS.iter().filter(|name| !call.param(name).is_empty());
        Ask(Arc::new(Inner {
            caller: call.caller.clone(),
            rule: call.rule,
            operation: call.operation,
            version: call.version,
            base_url: call.base_url.clone(),
            query: call.query.clone(),
            now: call.now,
            past: store::scope::as_of().is_some(),
            request_id: call.request_id.clone(),
            policy: call.policy.clone(),
            prefix: call.prefix,
            params: params.map(|name| (*name, call.param(name).to_owned())).collect(),
        }))
    }

    /// A placeholder of the path; empty where the path has none of that name.
    pub fn param(&self, name: &str) -> &str {
        self.params.get(name).map_or("", String::as_str)
    }

    pub fn may(&self, rule: &str, target: &Target<'_>) -> bool {
        matches!(self.policy.check(rule, &self.caller.credentials, target), Decision::Allowed)
    }

    /// The route's rule for an object of a project.
    pub fn enforce(&self, target: &Target<'_>) -> Result<()> {
        self.enforce_rule(self.rule, target)
    }

    pub fn enforce_rule(&self, rule: &str, target: &Target<'_>) -> Result<()> {
        if self.may(rule, target) {
            return Ok(());
        }
        Err(Fault::forbidden(format!("Policy doesn't allow {rule} to be performed.")))
    }

    /// The caller's own project and user as a target: for what belongs to nobody in particular.
    pub fn own(&self) -> Target<'_> {
        let credentials = &self.caller.credentials;
        Target::project(credentials.project_id.as_deref()).with("user_id", credentials.user_id.as_str())
    }

    /// The route's rule for the caller's own project.
    pub fn enforce_own(&self) -> Result<()> {
        self.enforce(&self.own())
    }

    pub fn is_admin(&self) -> bool {
        self.may("admin_api", &self.own())
    }

    /// The project of the token. Nova takes no token without one.
    pub fn project(&self) -> Result<ProjectId> {
        self.caller.project_id().ok_or_else(|| {
            Fault::forbidden("This operation needs a token that is scoped to a project; this one is not.")
        })
    }

    pub fn project_str(&self) -> Option<&str> {
        self.caller.credentials.project_id.as_deref()
    }

    pub fn cause(&self) -> store::Cause {
        store::Cause::new(self.caller.user_id().as_str(), self.request_id.clone(), self.operation)
    }

    /// A link below the service.
    pub fn link(&self, rest: &str) -> String {
        format!("{}{}{rest}", self.base_url, self.prefix)
    }

    /// `self` and `bookmark`.
    pub fn links(&self, rest: &str) -> Value {
        serde_json::json!([
            {"rel": "self", "href": self.link(rest)},
            {"rel": "bookmark", "href": format!("{}/compute{rest}", self.base_url)},
        ])
    }

    /// Refuses unknown query parameters from 2.75 on; older versions took and ignored them.
    pub fn known_query(&self, known: &[&str]) -> Result<()> {
        input::limit(&self.query)?;
        if self.version < Version(2, 75) {
            return Ok(());
        }
        match self.query.iter().find(|(name, _)| !known.contains(name)) {
            None => Ok(()),
            Some((name, _)) => {
                Err(Fault::invalid(format!("Additional properties are not allowed ('{name}' was unexpected)")))
            }
        }
    }

    /// Brings an answer of the newest shape down to the caller's version.
    pub fn answer(&self, changes: &[Change], status: u16, mut body: Value) -> Result<Reply> {
        lower_response(changes, self.operation, self.version, &mut body);
        Reply::json(status, &body)
    }

    /// The `next` link of a list, where more follows and the caller can page.
    pub fn next_link(&self, path: &str, marker: &str) -> Value {
        let href = format!("{}?{}", self.link(path), self.query.with("marker", marker));
        serde_json::json!([{"rel": "next", "href": href}])
    }
}

/// The request's body in the newest shape, and what else of the request matters.
pub async fn read(call: &mut Call, changes: &[Change]) -> Result<(Ask, Value)> {
    let ask = Ask::of(call);
    let mut body: Value = call.json().await.map_err(|fault| match fault.message.starts_with("Malformed") {
        true => Fault { message: "Malformed request body".to_owned(), ..fault },
        false => fault,
    })?;
    lift_request(changes, call.operation, call.version, &mut body)?;
    Ok((ask, body))
}
