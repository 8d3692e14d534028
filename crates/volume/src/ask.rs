//! What of a request may cross into a transaction: everything but its body.

use base::{Fault, ProjectId, Result, Timestamp};
use policy::{Decision, Policy, Target};
use rest::{Call, Caller, Query, Reply, Version};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;

/// The names of all placeholders in this service's paths.
const PLACEHOLDERS: &[&str] = &[
    "project_id",
    "volume_id",
    "snapshot_id",
    "type_id",
    "qos_id",
    "transfer_id",
    "attachment_id",
    "message_id",
    "key",
    "target_id",
    "class",
    "host_name",
    "pool_host",
    "verb",
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
    pub path: String,
    pub query: Query,
    pub now: Timestamp,
    pub request_id: base::RequestId,
    policy: Arc<Policy>,
    params: BTreeMap<&'static str, String>,
}

impl std::ops::Deref for Ask {
    type Target = Inner;
    fn deref(&self) -> &Inner {
        &self.0
    }
}

impl Ask {
    /// Invalid where the path names another project than the token: a URL is never a way around a scope.
    pub fn of(call: &Call) -> Result<Ask> {
        let params = PLACEHOLDERS.iter().filter(|name| !call.param(name).is_empty());
        let ask = Ask(Arc::new(Inner {
            caller: call.caller.clone(),
            rule: call.rule,
            operation: call.operation,
            version: call.version,
            base_url: call.base_url.clone(),
            path: call.path.clone(),
            query: call.query.clone(),
            now: call.now,
            request_id: call.request_id.clone(),
            policy: call.policy.clone(),
            params: params.map(|name| (*name, call.param(name).to_owned())).collect(),
        }));
        let project = ask.project()?;
        if ask.param("project_id") != project.as_str() {
            return Err(Fault::invalid("Malformed request url"));
        }
        Ok(ask)
    }

    /// On behalf of another service's request: what it asks for here is held against a rule of this service.
    pub fn inside(state: &crate::Volumes, caller: &Arc<Caller>, rule: &'static str, now: Timestamp) -> Ask {
        Ask(Arc::new(Inner {
            caller: caller.clone(),
            rule,
            operation: "",
            version: crate::VERSIONS.max,
            base_url: String::new(),
            path: String::new(),
            query: Query::default(),
            now,
            request_id: base::RequestId::default(),
            policy: state.policy.clone(),
            params: BTreeMap::new(),
        }))
    }

    /// The request with its body.
    pub async fn read(call: &mut Call) -> Result<(Ask, Value)> {
        let ask = Ask::of(call)?;
        let body: Value = call.json().await.map_err(|fault| match fault.message.starts_with("Malformed") {
            true => Fault { message: "Malformed request body".to_owned(), ..fault },
            false => fault,
        })?;
        Ok((ask, body))
    }

    /// A placeholder of the path; empty where the path has none of that name.
    pub fn param(&self, name: &str) -> &str {
        self.params.get(name).map_or("", String::as_str)
    }

    pub fn since(&self, minor: u16) -> bool {
        self.version >= Version(3, minor)
    }

    pub fn may(&self, rule: &str, target: &Target<'_>) -> bool {
        matches!(self.policy.check(rule, &self.caller.credentials, target), Decision::Allowed)
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
        self.enforce_rule(self.rule, &self.own())
    }

    pub fn is_admin(&self) -> bool {
        self.may("admin_api", &self.own())
    }

    /// An object of a project: NotFound for who may not know of it, Forbidden for who may not do this.
    pub fn allow(&self, project: &str, missing: impl FnOnce() -> Fault) -> Result<()> {
        let target = Target::project(project);
        if !self.may("volume:get", &target) {
            return Err(missing());
        }
        self.enforce_rule(self.rule, &target)
    }

    /// The project of the token. Cinder takes no token without one.
    pub fn project(&self) -> Result<ProjectId> {
        self.caller.project_id().ok_or_else(|| {
            Fault::forbidden("This operation needs a token that is scoped to a project; this one is not.")
        })
    }

    pub fn cause(&self) -> store::Cause {
        store::Cause::new(self.caller.user_id().as_str(), self.request_id.clone(), self.operation)
    }

    /// A link below the caller's project.
    pub fn link(&self, rest: &str) -> String {
        format!("{}/volume/v3/{}{rest}", self.base_url, self.param("project_id"))
    }

    /// `self` and `bookmark`.
    pub fn links(&self, rest: &str) -> Value {
        json!([
            {"rel": "self", "href": self.link(rest)},
            {"rel": "bookmark", "href": format!("{}/volume/{}{rest}", self.base_url, self.param("project_id"))},
        ])
    }

    pub fn reply(&self, status: u16, body: &Value) -> Result<Reply> {
        Reply::json(status, body)
    }
}
