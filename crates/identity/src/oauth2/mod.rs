//! OAuth 2.0 client credentials (RFC 6749, section 4.4) at `/v3/OS-OAUTH2/token`: the client is an application
//! credential, with its id as the client's and its secret as the client's.
//!
//! Errors have the form of the RFC and not that of the service. Client certificates mean nothing here, as in a Keystone
//! whose web server asks for none: whoever shows no secret is refused.

use crate::Identity;
use crate::token::issue::{Headers, Outcome, whole};
use crate::token::request::{self, Request};
use crate::token::verify::refused;
use base::{Fault, FaultKind, Result};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use rest::{Access, Call, Envelope, HeaderName, Method, Query, Reply, Route};
use serde_json::json;
use std::sync::Arc;

const FORM_BYTES: usize = 16 << 10;
const METHODS: [(Method, &str); 4] = [
    (Method::GET, "oauth2:token_get"),
    (Method::PUT, "oauth2:token_put"),
    (Method::PATCH, "oauth2:token_patch"),
    (Method::DELETE, "oauth2:token_delete"),
];

pub(crate) fn routes(identity: &Arc<Identity>) -> Vec<Route> {
    let path = "/v3/OS-OAUTH2/token";
    let token = Route::new(identity, Method::POST, path, "oauth2:token", Access::Open, 200, token);
    let others = METHODS.map(|(method, operation)| {
        Route::new(identity, method, path, operation, Access::Open, 405, not_allowed)
    });
    [token].into_iter().chain(others).collect()
}

/// An error in the words of RFC 6749, section 5.2, and `other_error` of Keystone's own.
#[derive(Debug)]
struct Refusal {
    status: u16,
    error: &'static str,
    description: String,
    retry_after_s: Option<u64>,
}

impl Refusal {
    fn new(status: u16, error: &'static str, description: impl Into<String>) -> Refusal {
        Refusal { status, error, description: description.into(), retry_after_s: None }
    }

    fn invalid_request(description: impl Into<String>) -> Refusal {
        Refusal::new(400, "invalid_request", description)
    }

    fn invalid_client() -> Refusal {
        Refusal::new(401, "invalid_client", "Client authentication failed.")
    }

    /// Of a login that failed.
    fn of(fault: &Fault) -> Refusal {
        let status = Envelope::Identity.status(fault);
        match fault.kind {
            FaultKind::Unauthenticated => Refusal::new(status, "invalid_client", &fault.message),
            FaultKind::Invalid => Refusal::new(status, "invalid_request", &fault.message),
            FaultKind::RateLimited => {
                let refusal = Refusal::new(status, "other_error", &fault.message);
                Refusal { retry_after_s: fault.retry_after_s, ..refusal }
            }
            _ => {
                let text = "An unknown error occurred and failed to get an OAuth2.0 access token.";
                Refusal::new(status, "other_error", text)
            }
        }
    }

    fn reply(&self, call: &Call) -> Result<Reply> {
        let body = json!({"error": self.error, "error_description": self.description});
        let mut reply = unkept(Reply::json(self.status, &body)?);
        if self.status == 401 {
            let scheme = format!("Keystone uri=\"{}\"", call.link("/v3"));
            reply = reply.header(HeaderName::from_static("www-authenticate"), scheme);
        }
        if let Some(seconds) = self.retry_after_s {
            reply = reply.header(HeaderName::from_static("retry-after"), seconds.to_string());
        }
        Ok(reply)
    }
}

/// Neither tokens nor what was said of them may lie in a cache.
fn unkept(reply: Reply) -> Reply {
    let no_store = reply.header(HeaderName::from_static("cache-control"), "no-store");
    no_store.header(HeaderName::from_static("pragma"), "no-cache")
}

async fn token(identity: Arc<Identity>, mut call: Call) -> Result<Reply> {
    let form = match form(&mut call).await {
        Ok(form) => form,
        Err(fault) => return Refusal::of(&fault).reply(&call),
    };
    let (id, secret) = match client(&call, &form) {
        Ok(client) => client,
        Err(refusal) => return refusal.reply(&call),
    };
    let headers = Headers { source: identity.source(&call), ..Headers::default() };
    let issued = match identity.issue(request(id, secret), headers).await {
        Ok(Outcome::Token(issued)) => Ok(issued),
        Ok(Outcome::Receipt(_)) => Err(refused("the user's rules ask for more than this login shows")),
        Err(fault) => Err(fault),
    };
    match issued {
        Ok(issued) => {
            let life_s = issued.verified.payload.expires.ms_since(whole(call.now)) / 1000;
            let body = json!({"access_token": issued.text, "token_type": "Bearer", "expires_in": life_s});
            Ok(unkept(Reply::json(200, &body)?))
        }
        // What is wrong here is the gateway's to log and to answer.
        Err(fault) if fault.kind == FaultKind::Bug => Err(fault),
        Err(fault) => {
            tracing::debug!("an OAuth 2.0 client is refused: {}", fault.chain());
            Refusal::of(&fault).reply(&call)
        }
    }
}

/// The fields of the body; none where it is no form.
async fn form(call: &mut Call) -> Result<Query> {
    let kind = call.header("content-type").and_then(|kind| kind.split(';').next()).unwrap_or_default().trim();
    let is_form = kind.eq_ignore_ascii_case("application/x-www-form-urlencoded");
    let body = call.bytes(FORM_BYTES).await?;
    if !is_form {
        return Ok(Query::default());
    }
    let text = std::str::from_utf8(&body).map_err(|_| Fault::invalid("The form is not UTF-8."))?;
    Query::parse(text)
}

/// Id and secret: those of HTTP Basic, or else those of the form, as in Keystone.
fn client(call: &Call, form: &Query) -> Result<(String, String), Refusal> {
    match form.get("grant_type") {
        None => return Err(Refusal::invalid_request("The parameter grant_type is required.")),
        Some("client_credentials") => {}
        Some(other) => {
            let text = format!("The parameter grant_type {other:.200} is not supported.");
            return Err(Refusal::new(400, "unsupported_grant_type", text));
        }
    }
    let of_form = || Some((form.get("client_id")?.to_owned(), form.get("client_secret")?.to_owned()));
    let client = call.header("authorization").and_then(basic).or_else(of_form);
    client.filter(|(id, secret)| !id.is_empty() && !secret.is_empty()).ok_or_else(Refusal::invalid_client)
}

/// What stands after `Basic` (RFC 7617).
fn basic(header: &str) -> Option<(String, String)> {
    let (scheme, coded) = header.split_once(' ')?;
    let coded = coded.trim();
    if !scheme.eq_ignore_ascii_case("basic") || coded.len() > FORM_BYTES {
        return None;
    }
    let text = String::from_utf8(BASE64_STANDARD.decode(coded).ok()?).ok()?;
    let (id, secret) = text.split_once(':')?;
    Some((id.to_owned(), secret.to_owned()))
}

fn request(id: String, secret: String) -> Request {
    let credential = request::ApplicationCredential { id: Some(id), name: None, user: None, secret };
    let identity = request::Identity {
        methods: vec!["application_credential".into()],
        application_credential: Some(credential),
        ..Default::default()
    };
    Request { auth: request::Auth { identity, scope: None } }
}

async fn not_allowed(_: Arc<Identity>, call: Call) -> Result<Reply> {
    let refusal = Refusal::new(405, "other_error", "The method is not allowed for the requested URL.");
    Ok(refusal.reply(&call)?.header(HeaderName::from_static("allow"), "POST"))
}
