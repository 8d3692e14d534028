//! Who may do what, for operators: the defaults of all services as a `policy.yaml`, and why a user may do something or
//! may not.

use base::{Fault, Result};
use identity::Identity;
use policy::{Credentials, Decision, Policy, Rule, Scope, Step, Target};
use rest::{Access, Call, Method, Reply, Route};
use serde_json::{Value, json};
use std::sync::Arc;

/// What a `policy.yaml` may override.
pub(crate) const DEFAULTS: [&[Rule]; 5] =
    [identity::RULES, image::RULES, network::RULES, volume::RULES, compute::RULES];

const EXPLAIN: &str = "nubo:policy:explain";
pub(crate) const RULES: &[Rule] = &[Rule::new(
    EXPLAIN,
    "role:admin",
    &[Scope::System, Scope::Project],
    "Read what a user may do, and why.",
)];

/// Facts of a target at most.
const FACTS: usize = 32;

/// A `policy.yaml` with every default in it, commented out.
///
/// # Errors
/// Bug where the defaults do not fit each other.
pub fn sample() -> Result<String> {
    Ok(Policy::joined(&DEFAULTS, None)?.sample())
}

pub(crate) struct Asking {
    identity: Arc<Identity>,
    /// Of the services, then of nubo itself.
    policies: [Arc<Policy>; 2],
}

impl Asking {
    pub fn new(identity: &Arc<Identity>, policies: [&Arc<Policy>; 2]) -> Asking {
        Asking { identity: identity.clone(), policies: policies.map(Arc::clone) }
    }
}

pub(crate) fn routes(asking: &Arc<Asking>) -> Vec<Route> {
    let route = Route::new(asking, Method::GET, "/nubo/v1/policy", EXPLAIN, Access::Rule(EXPLAIN), 200, explain);
    vec![route.no_past("the rules of the past are not kept")]
}

async fn explain(asking: Arc<Asking>, call: Call) -> Result<Reply> {
    call.enforce(&Target::default())?;
    let wanted = |name: &str| {
        let text = call.query.get(name).filter(|text| !text.is_empty());
        text.ok_or_else(|| Fault::invalid(format!("The query needs a {name}.")))
    };
    let (user, rule) = (wanted("user")?, wanted("rule")?);
    let policy = asking.policies.iter().find(|policy| policy.contains(rule));
    let policy = policy.ok_or_else(|| Fault::not_found(format!("There is no rule called {rule:.200}.")))?;
    let facts = facts(&asking.identity, call.query.get("target").unwrap_or_default())?;
    let project = facts.iter().find(|(name, _)| name == "project_id").map(|(_, id)| id.as_str());
    let tokens = asking.identity.rights(user, project)?;
    let told: Vec<Value> = tokens.iter().filter_map(|token| told(policy, rule, token, &facts)).collect();
    let (id, name) = tokens.first().map(|token| (&token.user_id, &token.user_name)).unzip();
    let allowed = told.iter().any(|token| token["decision"] == "allowed");
    let listed = policy.rules().find(|listed| listed.name == rule);
    call.reply(
        200,
        &json!({"policy": {
            "rule": rule,
            "check": listed.as_ref().map(|listed| listed.check),
            "description": listed.and_then(|listed| listed.default).map(|rule| rule.description),
            "user": {"id": id, "name": name},
            "allowed": allowed,
            "tokens": told,
        }}),
    )
}

/// What a target says: `name=value,…`, or a project by id or name; nothing: what belongs to the token's own project.
fn facts(identity: &Identity, target: &str) -> Result<Vec<(String, String)>> {
    if target.is_empty() {
        return Ok(Vec::new());
    }
    if !target.contains('=') {
        let (project, domain) = identity.project_called(target)?;
        let names = [
            ("project_id", &project),
            ("tenant_id", &project),
            ("owner", &project),
            ("target.project.id", &project),
            ("domain_id", &domain),
            ("target.project.domain_id", &domain),
        ];
        return Ok(names.map(|(name, value)| (name.to_owned(), value.clone())).to_vec());
    }
    let pairs: Vec<Option<(String, String)>> = target
        .split(',')
        .take(FACTS + 1)
        .map(|pair| pair.split_once('=').map(|(name, value)| (name.trim().to_owned(), value.trim().to_owned())))
        .collect();
    if pairs.len() > FACTS {
        return Err(Fault::invalid(format!("A target has at most {FACTS} values.")));
    }
    let pairs: Option<Vec<(String, String)>> = pairs.into_iter().collect();
    pairs.ok_or_else(|| Fault::invalid("A target is a project, or name=value,name=value."))
}

/// One token: its scope and roles, the decision, and each check.
fn told(policy: &Policy, rule: &str, token: &Credentials, facts: &[(String, String)]) -> Option<Value> {
    let mut target = facts.iter().fold(Target::new(), |target, (name, value)| target.with(name.as_str(), value));
    if facts.is_empty() {
        let own = |id: Option<&str>| id.map(str::to_owned);
        target = target
            .with("project_id", own(token.project_id.as_deref()))
            .with("tenant_id", own(token.project_id.as_deref()))
            .with("owner", own(token.project_id.as_deref()))
            .with("user_id", token.user_id.as_str());
    }
    let found = policy.explain(rule, token, &target)?;
    let decision = match found.decision {
        Decision::Allowed => "allowed",
        Decision::Denied => "denied",
        Decision::WrongScope => "wrong scope",
    };
    let step = |step: &Step| json!({"depth": step.depth, "check": step.check, "holds": step.holds});
    let scope = match (token.project_id.as_deref(), token.domain_id.as_deref(), token.system_scope) {
        (Some(id), ..) => json!({"project": {"id": id, "name": token.project_name}}),
        (_, Some(id), _) => json!({"domain": {"id": id}}),
        (.., Some(_)) => json!({"system": {"all": true}}),
        _ => json!({}),
    };
    Some(json!({
        "scope": scope,
        "roles": token.roles,
        "decision": decision,
        "takes": found.scope.iter().map(|scope| scope.as_str()).collect::<Vec<_>>(),
        "checks": found.steps.iter().map(step).collect::<Vec<_>>(),
    }))
}
