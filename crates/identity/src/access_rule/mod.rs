//! Access rules: what tokens of an application credential may be used for.
//!
//! A rule names a service, a method and a path ([`pattern`]); a credential that lists rules opens nothing else. Rules are
//! made with a credential and belong to its user; equal rules are one. One in use cannot be deleted. A credential whose
//! rules are gone opens nothing: a restriction must never turn into freedom.

pub(crate) mod pattern;

use crate::Identity;
use crate::documents::*;
use crate::listing::{filtered, forbid, linked, missing, single};
use crate::project::pairs;
use crate::token::verify::{Verified, refused};
use base::{Fault, Result, UserId};
use policy::Target;
use rest::{Call, Reply, Route};
use serde_json::{Map, Value, json};
use std::sync::Arc;
use store::{Query, Reader, Tx};

/// The most rules of one credential: each request is compared with all of them.
const RULES: usize = 64;
/// Keystone's own bound.
const PATH_CHARS: usize = 225;
const METHODS: [&str; 6] = ["DELETE", "GET", "HEAD", "PATCH", "POST", "PUT"];

pub(crate) fn routes(identity: &Arc<Identity>) -> Vec<Route> {
    let (all, one) = ("/v3/users/{id}/access_rules", "/v3/users/{id}/access_rules/{rule_id}");
    routes![identity;
        GET all, "access_rules:list", "identity:list_access_rules", 200, list;
        GET one, "access_rules:show", "identity:get_access_rule", 200, show;
        DELETE one, "access_rules:delete", "identity:delete_access_rule", 204, delete;
    ]
}

/// Without a link, as it stands in credentials and tokens.
pub(crate) fn plain(rule: &AccessRule) -> Map<String, Value> {
    let fields = [("id", &rule.id), ("service", &rule.service), ("path", &rule.path), ("method", &rule.method)];
    pairs(fields.map(|(name, value)| (name, json!(value)))).collect()
}

fn shown(call: &Call, rule: &AccessRule) -> Value {
    linked(call, &format!("users/{}/access_rules", rule.user_id), plain(rule))
}

fn target(call: &Call) -> Target<'static> {
    let id = call.param("id").to_owned();
    Target::new().with("target.user.id", id.clone()).with("user_id", id)
}

async fn list(identity: Arc<Identity>, call: Call) -> Result<Reply> {
    forbid(&call, &target(&call))?;
    let items: Vec<_> =
        identity.model().access_rules.find("user", call.param("id")).map(|rule| shown(&call, rule)).collect();
    filtered(&call, "access_rules", items, &["service", "path", "method"])
}

fn find(identity: &Identity, call: &Call) -> Result<Arc<AccessRule>> {
    forbid(call, &target(call))?;
    let id = call.param("rule_id");
    let found = identity.model().access_rules.get(id).filter(|rule| rule.user_id.as_str() == call.param("id")).cloned();
    found.ok_or_else(|| missing("access rule", id))
}

async fn show(identity: Arc<Identity>, call: Call) -> Result<Reply> {
    let rule = find(&identity, &call)?;
    single(&call, 200, "access_rule", shown(&call, &rule))
}

async fn delete(identity: Arc<Identity>, call: Call) -> Result<Reply> {
    let rule = find(&identity, &call)?;
    crate::application_credential::may_lend(&call)?;
    let id = rule.id.clone();
    let work = move |tx: &mut Tx| {
        let rule = tx.get::<AccessRule>(&id)?.ok_or_else(|| missing("access rule", &id))?;
        if let Some(user) = users(tx, &rule)?.into_iter().next() {
            let name = &user.name;
            return Err(Fault::forbidden(format!(
                "May not delete access rule in use: the application credential {name} lists it."
            )));
        }
        tx.delete::<AccessRule>(&id)?;
        Ok(())
    };
    identity.write(&call, work).await?;
    Ok(Reply::empty(204))
}

/// The application credentials that list a rule.
fn users(reader: &mut Reader, rule: &AccessRule) -> Result<Vec<ApplicationCredential>> {
    let credentials = reader.list::<ApplicationCredential>(Query::index("user", rule.user_id.as_str()))?;
    let lists = |c: &ApplicationCredential| c.access_rules.iter().flatten().any(|used| *used == rule.id);
    Ok(credentials.into_iter().map(|stored| stored.doc).filter(lists).collect())
}

/// Why an undo must not take back that a rule was made: a credential uses it that the same request did not make.
pub fn held_from_undo(
    reader: &mut Reader,
    id: &str,
    same: &dyn Fn(&str, &str) -> bool,
) -> Result<Option<store::Held>> {
    let Some(rule) = reader.get::<AccessRule>(id)?.map(|stored| stored.doc) else { return Ok(None) };
    let kind = <ApplicationCredential as store::Document>::KIND;
    let user = users(reader, &rule)?.into_iter().find(|user| !same(kind, &user.id));
    Ok(user.map(|user| {
        let reason = format!("the application credential {} lists it by now", user.name);
        (reason, Some((kind.to_owned(), user.id.to_string())))
    }))
}

/// A rule as a request names it.
#[derive(Clone)]
pub(crate) enum Asked {
    Known(String),
    New { service: String, method: String, path: String },
}

/// Reads the rules of a new credential. An empty list restricts nothing, as in Keystone.
pub(crate) fn read(rules: Option<Value>) -> Result<Option<Vec<Asked>>> {
    let wrong = |why: String| Fault::invalid(format!("Invalid input for field 'access_rules': {why}."));
    let rules = match rules {
        None | Some(Value::Null) => return Ok(None),
        Some(Value::Array(rules)) if rules.is_empty() => return Ok(None),
        Some(Value::Array(rules)) if rules.len() <= RULES => rules,
        Some(Value::Array(_)) => return Err(wrong(format!("a credential has at most {RULES} rules"))),
        Some(_) => return Err(wrong("it must be a list".into())),
    };
    let one = |rule: Value| {
        let Value::Object(mut rule) = rule else { return Err(wrong("each rule is an object".into())) };
        let mut text = |name: &str| match rule.remove(name) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(_) => Err(wrong(format!("'{name}' of a rule is a string"))),
        };
        let (id, service, method, path) = (text("id")?, text("service")?, text("method")?, text("path")?);
        if let Some(other) = rule.keys().next() {
            return Err(wrong(format!("a rule has no '{other}'")));
        }
        let (service, method, path) = match (id, service, method, path) {
            (Some(id), ..) => return Ok(Asked::Known(id)),
            (None, Some(service), Some(method), Some(path)) => (service, method, path),
            _ => return Err(wrong("a rule has service, method and path, or the id of a rule".into())),
        };
        if !METHODS.contains(&method.as_str()) {
            return Err(wrong(format!("the method '{method}' is not one of {}", METHODS.join(", "))));
        }
        if !path.starts_with('/') || path.chars().count() > PATH_CHARS {
            return Err(wrong(format!("the path '{path}' must begin with / and have at most {PATH_CHARS} characters")));
        }
        let word = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
        if !(1..=64).contains(&service.len()) || !service.bytes().all(word) {
            return Err(wrong(format!("'{service}' is no type of a service")));
        }
        Ok(Asked::New { service, method, path })
    };
    rules.into_iter().map(one).collect::<Result<_>>().map(Some)
}

/// The ids of the rules, each found or made.
pub(crate) fn ensure(tx: &mut Tx, user: &UserId, asked: &[Asked]) -> Result<Vec<String>> {
    let mut ids = Vec::with_capacity(asked.len());
    for rule in asked {
        let id = match rule {
            Asked::Known(id) => {
                let known = tx.get::<AccessRule>(id)?.filter(|rule| rule.user_id == *user);
                known.ok_or_else(|| missing("access rule", id))?.doc.id
            }
            Asked::New { service, method, path } => {
                let key = [user.as_str(), service.as_str(), method.as_str(), path.as_str()];
                match tx.get_unique::<AccessRule>("meaning", key)? {
                    Some(known) => known.doc.id,
                    None => {
                        let (user_id, id) = (user.clone(), tx.uuid_hex());
                        let (service, method, path) = (service.clone(), method.clone(), path.clone());
                        tx.create(&AccessRule { id: id.clone(), user_id, service, method, path })?;
                        id
                    }
                }
            }
        };
        if !ids.contains(&id) {
            ids.push(id);
        }
    }
    Ok(ids)
}

/// Refuses a request that the token's rules do not name. A rule's path is that of the whole URL, or that below the
/// service's mount (`/v2.1/servers` for `/compute/v2.1/servers`), as the service's documentation has it.
pub(crate) fn admit(verified: &Verified, service: &rest::Service, method: &rest::Method, path: &str) -> Result<()> {
    let Some(rules) = &verified.access_rules else { return Ok(()) };
    let mount = service.prefix.get(1..).and_then(|rest| rest.find('/')).map_or(service.prefix.len(), |at| at + 1);
    let below = path.get(mount..).unwrap_or("");
    let names = |rule: &AccessRule| {
        types(service.name).contains(&rule.service.as_str())
            && rule.method == method.as_str()
            && (pattern::matches(&rule.path, path) || pattern::matches(&rule.path, below))
    };
    if rules.iter().any(|rule| names(rule)) {
        return Ok(());
    }
    Err(refused("no access rule of the application credential names this request"))
}

/// The types under which clients know a service.
fn types(name: &'static str) -> Vec<&'static str> {
    match name {
        "volume" | "volumev3" | "block-storage" => vec!["block-storage", "volumev3", "volume"],
        other => vec![other],
    }
}
