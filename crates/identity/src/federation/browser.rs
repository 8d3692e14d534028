//! A browser's way to a token: to the identity provider, back with a code (OpenID Connect's authorization code flow, with
//! PKCE), and on to the dashboard that asked.
//!
//! ```text
//! dashboard ─> websso ── cookie, state ──> provider ── code, state ──> callback ── token ──> dashboard
//! ```
//!
//! Nothing is kept here, so that any control process can go on: what the way back needs lies sealed in a cookie of the
//! browser that began, and nobody without that cookie can end what it began. A code is used up by the provider.

use super::client::{Client, Login};
use super::login::{self, page};
use super::oidc::{Bearer, Issuer};
use crate::Identity;
use crate::documents::Protocol;
use crate::login_limit::Subject;
use crate::token::fernet;
use crate::token::issue::Headers;
use crate::token::verify::refused;
use base::{Fault, FaultKind, Result, Timestamp};
use base64::Engine;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD};
use form_urlencoded::{Serializer, byte_serialize};
use rest::{Access, Call, Method, Reply, Route};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::sync::Arc;
use subtle::ConstantTimeEq;

/// How long somebody may take to log in at their provider.
const LASTS_S: i64 = 600;
const CALLBACK: &str = "/v3/auth/OS-FEDERATION/oidc/callback";
/// What a cookie's name begins with; the beginning of the state follows, so that two tabs do not disturb each other.
const COOKIE: &str = "nubo-websso-";
/// Longer than any that is made here.
const COOKIE_BYTES: usize = 8 << 10;

pub(super) fn routes(identity: &Arc<Identity>) -> Vec<Route> {
    // The browser's cookie and the provider's code are the right to ask.
    vec![Route::new(identity, Method::GET, CALLBACK, "federation:websso_callback", Access::Open, 200, callback)]
}

/// What the way back needs.
#[derive(Serialize, Deserialize)]
struct Begun {
    issuer: String,
    provider: String,
    protocol: String,
    origin: String,
    state: String,
    nonce: String,
    verifier: String,
    until: i64,
}

impl Begun {
    fn new(identity: &Identity, issuer: &Issuer, provider: String, protocol: &str, origin: &str) -> Begun {
        let random = || {
            let mut bytes = [0u8; 32];
            identity.env.random.fill(&mut bytes);
            BASE64_URL_SAFE_NO_PAD.encode(bytes)
        };
        Begun {
            issuer: issuer.issuer.clone(),
            provider,
            protocol: protocol.to_owned(),
            origin: origin.to_owned(),
            state: random(),
            nonce: random(),
            verifier: random(),
            until: identity.env.now().plus_s(LASTS_S).micros(),
        }
    }

    fn seal(&self, identity: &Identity) -> Result<String> {
        let text = serde_json::to_vec(self).map_err(|error| Fault::bug("a login cannot be written").because(error))?;
        let model = identity.model();
        let key = model.keys.keys.first().ok_or_else(|| Fault::bug("there are no keys for logins"))?;
        let mut iv = [0u8; 16];
        identity.env.random.fill(&mut iv);
        Ok(key.encrypt(&text, (identity.env.now().micros() / 1_000_000) as u64, iv))
    }

    fn open(identity: &Identity, sealed: &str) -> Option<Begun> {
        let (text, _) = fernet::open(&identity.model().keys.keys, sealed)?;
        serde_json::from_slice(&text).ok()
    }
}

/// Sends a browser to the provider that is meant; none where no settings say how.
pub(super) async fn send(identity: &Identity, call: &Call, origin: &str) -> Result<Option<Reply>> {
    let (named, protocol) = (call.param("id"), call.param("protocol_id"));
    let Some((issuer, client, provider)) = meant(identity, named, protocol)? else { return Ok(None) };
    let login = identity.login_at(issuer).await?;
    let begun = Begun::new(identity, issuer, provider, protocol, origin);
    let mut query = Serializer::new(String::new());
    let challenge = BASE64_URL_SAFE_NO_PAD.encode(Sha256::digest(&begun.verifier));
    query.extend_pairs([
        ("response_type", "code"),
        ("client_id", &client.id),
        ("redirect_uri", &call.link(CALLBACK)),
        ("scope", &client.scopes.join(" ")),
        ("state", &begun.state),
        ("nonce", &begun.nonce),
        ("code_challenge", &challenge),
        ("code_challenge_method", "S256"),
    ]);
    let joint = if login.authorization_endpoint.contains('?') { '&' } else { '?' };
    let location = format!("{}{joint}{}", login.authorization_endpoint, query.finish());
    let cookie = cookie(call, &begun.state, &begun.seal(identity)?, LASTS_S);
    let reply = Reply::empty(303).header(rest::header::LOCATION, location).header(rest::header::SET_COOKIE, cookie);
    Ok(Some(reply.header(rest::header::CACHE_CONTROL, "no-store")))
}

/// The issuer that a path means, how this cloud speaks to it, and the provider that it is here.
fn meant<'a>(
    identity: &'a Identity,
    named: &str,
    protocol: &str,
) -> Result<Option<(&'a Issuer, Client, String)>> {
    let model = identity.model();
    let mut found = Vec::new();
    for issuer in &identity.options.federation.issuers {
        let Some(client) = issuer.client() else { continue };
        let Some(provider) = model.identity_providers.one("remote", &issuer.issuer) else { continue };
        if !named.is_empty() && provider.id != named {
            continue;
        }
        if !named.is_empty() && !provider.enabled {
            return Err(Fault::forbidden(format!("Identity Provider {named} is disabled")));
        }
        if provider.enabled && model.protocols.get(&Protocol::id_of(&provider.id, protocol)).is_some() {
            found.push((issuer, client, provider.id.clone()));
        }
    }
    if named.is_empty() && found.len() > 1 {
        return Err(Fault::invalid(format!(
            "Several identity providers speak {protocol:.64}: ask below /v3/auth/OS-FEDERATION/identity_providers/ID."
        )));
    }
    Ok(found.into_iter().next())
}

/// Only for the way back, only over TLS where the cloud has it, and for no script. `Lax`, as the browser comes back by a
/// link of another site.
fn cookie(call: &Call, state: &str, value: &str, lasts_s: i64) -> String {
    let place = call.link(CALLBACK);
    let path = place.split_once("://").and_then(|(_, rest)| rest.find('/').map(|at| &rest[at..])).unwrap_or("/");
    let secure = if place.starts_with("https://") { "; Secure" } else { "" };
    format!("{}={value}; Path={path}; Max-Age={lasts_s}; HttpOnly; SameSite=Lax{secure}", cookie_name(state))
}

fn cookie_name(state: &str) -> String {
    format!("{COOKIE}{}", state.chars().take(12).collect::<String>())
}

async fn callback(identity: Arc<Identity>, call: Call) -> Result<Reply> {
    let begun = begun(&identity, &call).await?;
    let federation = &identity.options.federation;
    let gone = || refused("the settings have changed since the login began");
    let origin = federation.trusted_dashboards.iter().find(|trusted| **trusted == begun.origin).ok_or_else(gone)?;
    let issuer = federation.issuers.iter().find(|issuer| issuer.issuer == begun.issuer).ok_or_else(gone)?;
    let client = issuer.client().ok_or_else(gone)?;
    if call.query.get("iss").is_some_and(|iss| iss != issuer.issuer) {
        return Err(refused("the code is another issuer's"));
    }
    if let Some(error) = call.query.get("error") {
        return Err(Fault::unauthenticated(format!("The identity provider lets nobody in: {error:.64}.")));
    }
    let code = call.query.get("code").filter(|code| !code.is_empty());
    let code = code.ok_or_else(|| Fault::invalid("The identity provider gave no code."))?;
    let subjects: Vec<Subject> = identity.source(&call).map(Subject::Source).into_iter().collect();
    let taken = identity.login_limit.take(&identity.options.login_limit, &subjects, call.now)?;
    let bearer = identity.exchanged(issuer, &client, &begun, code, &call.link(CALLBACK)).await;
    if !matches!(&bearer, Err(fault) if fault.kind == FaultKind::Unauthenticated) {
        identity.login_limit.give_back(taken);
    }
    let headers = Headers { known: Some(bearer?), source: identity.source(&call), ..Headers::default() };
    let issued = login::issue_by(&identity, &begun.provider, &begun.protocol, headers).await?;
    let forget = cookie(&call, &begun.state, "", 0);
    Ok(page(origin, &issued.text).header(rest::header::SET_COOKIE, forget))
}

/// What this browser began under the state that it comes back with.
async fn begun(identity: &Identity, call: &Call) -> Result<Begun> {
    let again = |why: &str| {
        let fault = Fault::unauthenticated("This login did not begin in this browser, or too long ago: begin again.");
        fault.because(std::io::Error::other(why.to_owned()))
    };
    let state = call.query.get("state").ok_or_else(|| Fault::invalid("The identity provider gave no state."))?;
    let name = cookie_name(state);
    let headers = call.headers.get_all(rest::header::COOKIE).iter().filter_map(|value| value.to_str().ok());
    let pairs = headers.flat_map(|header| header.split(';')).filter_map(|pair| pair.trim().split_once('='));
    let values: Vec<&str> =
        pairs.filter(|(key, value)| *key == name && value.len() <= COOKIE_BYTES).map(|(_, value)| value).collect();
    for value in values.into_iter().take(4) {
        if Begun::open(identity, value).is_none() {
            // Another process may have a key that this one has not seen.
            identity.find_key(value).await?;
        }
        let Some(begun) = Begun::open(identity, value) else { continue };
        if !bool::from(begun.state.as_bytes().ct_eq(state.as_bytes())) {
            continue;
        }
        if identity.env.now() >= Timestamp(begun.until) {
            return Err(again("its time is over"));
        }
        return Ok(begun);
    }
    Err(again("no cookie of the browser has the state"))
}

/// What a token endpoint answers, as far as it matters.
#[derive(Deserialize)]
struct Tokens {
    id_token: Option<String>,
    error: Option<String>,
}

impl Identity {
    /// Who the provider says has logged in, for a code.
    async fn exchanged(
        &self,
        issuer: &Issuer,
        client: &Client,
        begun: &Begun,
        code: &str,
        redirect_uri: &str,
    ) -> Result<Bearer> {
        let login = self.login_at(issuer).await?;
        let (form, authorization) = asked(client, &login, begun, code, redirect_uri);
        let web = self.options.federation.web.as_ref().ok_or_else(|| Fault::bug("nothing asks providers here"))?;
        let (status, answer) = web.post(&login.token_endpoint, authorization.as_deref(), form).await?;
        let tokens: Option<Tokens> = rest::from_slice(&answer).ok();
        let error = tokens.as_ref().and_then(|tokens| tokens.error.clone()).unwrap_or_default();
        if error == "invalid_grant" {
            return Err(refused("the provider does not take the code"));
        }
        let odd = || Fault::unavailable(format!("The identity provider {} gives no id token.", issuer.issuer));
        if status != 200 {
            tracing::info!(issuer = issuer.issuer, status, error, "a provider gives nothing for a code");
            return Err(odd());
        }
        let text = tokens.and_then(|tokens| tokens.id_token).ok_or_else(odd)?;
        self.id_token(issuer, &client.id, &begun.nonce, &text).await
    }
}

/// The form for a token endpoint, and what stands in `Authorization` (RFC 6749, section 2.3.1).
fn asked(client: &Client, login: &Login, begun: &Begun, code: &str, redirect_uri: &str) -> (String, Option<String>) {
    let mut form = Serializer::new(String::new());
    form.extend_pairs([
        ("grant_type", "authorization_code"),
        ("code", code),
        ("redirect_uri", redirect_uri),
        ("code_verifier", &begun.verifier),
    ]);
    let Some(secret) = &client.secret else {
        form.append_pair("client_id", &client.id);
        return (form.finish(), None);
    };
    if !login.takes_basic() {
        form.extend_pairs([("client_id", client.id.as_str()), ("client_secret", secret.as_str())]);
        return (form.finish(), None);
    }
    let coded = |text: &str| byte_serialize(text.as_bytes()).collect::<String>();
    let pair = BASE64_STANDARD.encode(format!("{}:{}", coded(&client.id), coded(secret.as_str())));
    (form.finish(), Some(format!("Basic {pair}")))
}
