//! Tokens: issued, validated, checked and revoked at `/v3/auth/tokens`; and what a token's bearer may ask for.
//!
//! A token is a sealed statement ([`payload`] inside [`fernet`]); nothing is stored when one is made. What it is worth
//! is found out on each use ([`verify`]), and a revocation is a document that every control process follows
//! ([`revoke`]).

pub mod cache;
mod events;
pub mod fernet;
pub mod issue;
pub mod jws;
pub mod keys;
pub mod methods;
pub mod payload;
mod receipt;
pub mod request;
pub mod revoke;
pub(crate) mod totp;
pub mod verify;
pub mod wire;

use crate::documents::*;
use crate::listing::{collection, forbid};
use crate::{Identity, assignment::effective};
use base::{Fault, Result};
use bytes::Bytes;
use policy::Target;
use rest::{Access, Call, HeaderName, Method, Reply, Route};
use serde_json::json;
use std::sync::Arc;
use verify::{Verified, verify};

pub(crate) fn routes(identity: &Arc<Identity>) -> Vec<Route> {
    let tokens = "/v3/auth/tokens";
    let mut routes = routes![identity;
        GET tokens, "auth:validate_token", "identity:validate_token", 200, show;
        HEAD tokens, "auth:check_token", "identity:check_token", 200, show;
        DELETE tokens, "auth:revoke_token", "identity:revoke_token", 204, revoke;
        GET "/v3/auth/tokens/OS-PKI/revoked", "auth:revoked", "identity:revocation_list", 410, events::gone;
        GET "/v3/OS-REVOKE/events", "revoke_events:list", "identity:list_revoke_events", 200, events::list;
        DELETE "/v3/users/{id}/tokens", "users:revoke", "identity:revoke_tokens_for_user", 204, events::revoke_all;
        GET "/v3/auth/catalog", "auth:catalog", "identity:get_auth_catalog", 200, catalog;
        GET "/v3/auth/projects", "auth:projects", "identity:get_auth_projects", 200, projects;
        GET "/v3/auth/domains", "auth:domains", "identity:get_auth_domains", 200, domains;
        GET "/v3/auth/system", "auth:system", "identity:get_auth_system", 200, system;
        GET "/v3/OS-FEDERATION/projects", "federation:projects", "identity:get_auth_projects", 200, projects;
        GET "/v3/OS-FEDERATION/domains", "federation:domains", "identity:get_auth_domains", 200, domains;
    ];
    for path in ["/v3/OS-SIMPLE-CERT/ca", "/v3/OS-SIMPLE-CERT/certificates"] {
        let operation = if path.ends_with("ca") { "simple_cert:ca" } else { "simple_cert:certificates" };
        routes.push(Route::new(identity, Method::GET, path, operation, Access::Open, 410, events::gone));
    }
    routes.push(Route::new(identity, Method::POST, tokens, "auth:issue_token", Access::Open, 201, issue));
    routes
}

const SUBJECT: HeaderName = HeaderName::from_static("x-subject-token");
const VARY: HeaderName = HeaderName::from_static("vary");

pub(crate) fn reply(identity: &Identity, status: u16, verified: &Verified, text: &str, catalog: bool) -> Reply {
    let body = if catalog {
        verified.body.get_or_init(|| with_catalog(identity, verified)).clone()
    } else {
        wire::body(verified, None, &identity.model()).into()
    };
    Reply::json_bytes(status, body).header(SUBJECT, text).header(VARY, "X-Auth-Token")
}

fn with_catalog(identity: &Identity, verified: &Verified) -> Bytes {
    let scoped = verified.payload.scope != payload::Scope::Unscoped;
    let catalog = scoped.then(|| crate::catalog::of(identity, &identity.model(), verified));
    wire::body(verified, catalog.as_deref(), &identity.model()).into()
}

async fn issue(identity: Arc<Identity>, mut call: Call) -> Result<Reply> {
    let request = call.json().await?;
    let receipt = call.header("openstack-auth-receipt").map(str::to_owned);
    let bearer = crate::federation::bearer(&call);
    let signed = if bearer.is_some() { None } else { crate::oauth1::SignedRequest::of(&call)? };
    let headers = issue::Headers { receipt, signed, bearer, source: identity.source(&call), ..Default::default() };
    match identity.issue(request, headers).await? {
        issue::Outcome::Token(issued) => {
            let catalog = !call.query.has("nocatalog");
            Ok(reply(&identity, 201, &issued.verified, &issued.text, catalog))
        }
        issue::Outcome::Receipt(receipt) => receipt.reply(&call),
    }
}

/// The token that is asked about. NotFound if it does not hold, whoever asks: a token cannot be guessed, so this tells
/// nobody anything, and it is what Keystone answers.
async fn subject(identity: &Identity, call: &Call, allow_expired: bool) -> Result<(Arc<Verified>, String)> {
    let text = call.header("x-subject-token").unwrap_or("");
    let own = call.header("x-auth-token") == Some(text);
    let known = call.caller.token.clone().filter(|_| own).and_then(|token| token.downcast::<Verified>().ok());
    let verified = match known {
        Some(verified) => verified,
        None => {
            let lately = identity.verify_lately(text).await.map(|entry| entry.verified);
            let found = if allow_expired && lately.is_err() {
                verify(&identity.model(), text, identity.env.now(), true).map(Arc::new)
            } else {
                lately
            };
            found.map_err(|fault| Fault::not_found("Could not find token.").because(fault))?
        }
    };
    forbid(call, &Target::new().with("target.token.user_id", verified.user.id.as_str()))?;
    Ok((verified, text.to_owned()))
}

async fn show(identity: Arc<Identity>, call: Call) -> Result<Reply> {
    let allow_expired = call.query.boolean("allow_expired")?.unwrap_or(false);
    identity.find_key(call.header("x-subject-token").unwrap_or("")).await?;
    let (verified, text) = subject(&identity, &call, allow_expired).await?;
    if verified.access_rules.is_some() && !understands_rules(&call) {
        let fault = Fault::not_found("Failed to validate token: it is restricted by access rules.");
        return Err(fault.because(std::io::Error::other("the service asking does not say that it knows access rules")));
    }
    Ok(reply(&identity, 200, &verified, &text, !call.query.has("nocatalog")))
}

/// Whether the service that asks says that it enforces access rules; for others there is no
/// such token.
fn understands_rules(call: &Call) -> bool {
    let version = call.header("openstack-identity-access-rules").and_then(|text| text.parse::<f64>().ok());
    version.is_some_and(|version| version >= 1.0)
}

/// Also what was made from the token, unless `?cascade=false` says no, as in Keystone since 2025.
async fn revoke(identity: Arc<Identity>, call: Call) -> Result<Reply> {
    let (verified, _) = subject(&identity, &call, false).await?;
    let cascade = call.query.boolean("cascade")?.unwrap_or(true);
    let audit = verified.payload.audit[0].to_string();
    let event = Revocation {
        audit_chain_id: cascade.then(|| audit.clone()),
        audit_id: Some(audit),
        until: verified.payload.expires.plus_s(verify::EXPIRED_WINDOW_S),
        before: call.now,
        id: identity.env.uuid_hex(),
        ..Revocation::default()
    };
    identity.write(&call, move |tx| Ok(tx.create(&event)?)).await?;
    Ok(Reply::empty(204))
}

fn own(call: &Call) -> Result<Arc<Verified>> {
    let token = call.caller.token.clone().and_then(|token| token.downcast::<Verified>().ok());
    token.ok_or_else(|| verify::refused("the caller has no token of this service"))
}

async fn catalog(identity: Arc<Identity>, call: Call) -> Result<Reply> {
    let verified = own(&call)?;
    if verified.payload.scope == payload::Scope::Unscoped {
        return Err(forbidden_catalog());
    }
    let entries = crate::catalog::of(&identity, &identity.model(), &verified);
    call.reply(200, &json!({"catalog": &*entries, "links": {"next": null, "self": call.link("/v3/auth/catalog"), "previous": null}}))
}

fn forbidden_catalog() -> Fault {
    Fault::forbidden("You are not authorized to perform the requested action: the catalog needs a scoped token.")
}

async fn projects(identity: Arc<Identity>, call: Call) -> Result<Reply> {
    let verified = own(&call)?;
    let model = identity.model();
    let found = effective::projects(&model, &verified.user.id, verified.lent_groups());
    let open = found.iter().filter(|p| p.enabled && model.domain(p.domain()).is_some_and(|d| d.enabled));
    collection(&call, "projects", open.map(|project| crate::project::shown(&call, project)).collect())
}

async fn domains(identity: Arc<Identity>, call: Call) -> Result<Reply> {
    let verified = own(&call)?;
    let found = effective::domains(&identity.model(), &verified.user.id, verified.lent_groups());
    let open = found.iter().filter(|domain| domain.enabled);
    collection(&call, "domains", open.map(|domain| crate::domain::shown(&call, domain)).collect())
}

async fn system(identity: Arc<Identity>, call: Call) -> Result<Reply> {
    let any = !identity.model().roles_of(&call.caller.user_id(), &Place::System).is_empty();
    let places = if any { json!([{"all": true}]) } else { json!([]) };
    call.reply(200, &json!({"system": places, "links": {"self": call.link("/v3/auth/system")}}))
}
