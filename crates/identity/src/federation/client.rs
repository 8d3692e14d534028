//! This cloud as a client of OpenID Connect issuers: the settings by which browsers are sent to them, where they are sent
//! to, and the id tokens that come back.

use super::jwt::Jwt;
use super::oidc::{AGAIN_MS, Bearer, FRESH_S, Issuer, is_safe, unreachable};
use crate::Identity;
use crate::token::verify::refused;
use base::{Fault, Result, Timestamp};
use serde::Deserialize;
use serde_json::Value;
use std::sync::PoisonError;
use subtle::ConstantTimeEq;

const ID_CHARS: usize = 255;
const SCOPES: usize = 32;

/// A secret of the settings, which no log shows.
#[derive(Clone, Deserialize)]
#[serde(transparent)]
pub struct ClientSecret(String);

impl ClientSecret {
    pub fn new(text: impl Into<String>) -> ClientSecret {
        ClientSecret(text.into())
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Debug for ClientSecret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ClientSecret")
    }
}

/// As whom this cloud sends browsers to an issuer.
pub(super) struct Client {
    pub id: String,
    pub secret: Option<ClientSecret>,
    pub scopes: Vec<String>,
}

impl Issuer {
    /// None where the settings send no browser there.
    pub(super) fn client(&self) -> Option<Client> {
        let usual = || ["openid", "profile", "email"].map(str::to_owned).to_vec();
        Some(Client {
            id: self.client_id.clone()?,
            secret: self.client_secret.clone(),
            scopes: self.scopes.clone().unwrap_or_else(usual),
        })
    }

    pub(super) fn check_client(&self) -> Result<()> {
        let wrong = |what: &str| Err(Fault::invalid(format!("federation: {} {what}.", self.issuer)));
        let Some(client) = self.client() else {
            let lonely = self.client_secret.is_some() || self.client_secret_file.is_some() || self.scopes.is_some();
            return if lonely { wrong("has a client's secret or scopes, and no client_id") } else { Ok(()) };
        };
        let empty = client.secret.is_some_and(|secret| secret.as_str().is_empty());
        if client.id.is_empty() || client.id.chars().count() > ID_CHARS || empty {
            return wrong(&format!("needs a client_id of 1 to {ID_CHARS} characters, and no empty secret"));
        }
        let odd = |scope: &String| scope.is_empty() || !scope.bytes().all(|b| b.is_ascii_graphic());
        if client.scopes.len() > SCOPES || client.scopes.iter().any(odd) || !client.scopes.contains(&"openid".into()) {
            return wrong(&format!("has scopes that are no list of at most {SCOPES} words with openid among them"));
        }
        Ok(())
    }
}

/// Where an issuer takes browsers and codes, as its discovery document says.
#[derive(Clone)]
pub struct Login {
    pub(super) authorization_endpoint: String,
    pub(super) token_endpoint: String,
    methods: Vec<String>,
    fetched: Option<Timestamp>,
    asked: Timestamp,
}

#[derive(Deserialize)]
struct Document {
    issuer: String,
    authorization_endpoint: String,
    token_endpoint: String,
    token_endpoint_auth_methods_supported: Option<Vec<String>>,
}

impl Login {
    /// One that could not be had.
    fn failed(asked: Timestamp) -> Login {
        let (authorization_endpoint, token_endpoint) = Default::default();
        Login { authorization_endpoint, token_endpoint, methods: Vec::new(), fetched: None, asked }
    }

    fn read(document: &[u8], issuer: &str, now: Timestamp) -> Result<Login> {
        let document: Document = rest::from_slice(document)?;
        let places = [&document.authorization_endpoint, &document.token_endpoint];
        let odd = |place: &&String| !is_safe(place) || place.contains(|c: char| c == '#' || c.is_whitespace());
        if document.issuer != issuer || places.iter().any(|place| odd(place)) {
            let text = format!("The discovery document of {issuer} is another's, or leads to no https.");
            return Err(Fault::unavailable(text));
        }
        Ok(Login {
            authorization_endpoint: document.authorization_endpoint,
            token_endpoint: document.token_endpoint,
            methods: document.token_endpoint_auth_methods_supported.unwrap_or_default(),
            fetched: Some(now),
            asked: now,
        })
    }

    /// Whether the token endpoint takes a secret by HTTP Basic, which is usual.
    pub(super) fn takes_basic(&self) -> bool {
        let has = |name: &str| self.methods.iter().any(|method| method == name);
        has("client_secret_basic") || !has("client_secret_post")
    }
}

impl Identity {
    /// Where an issuer takes browsers and codes. One task at a time asks it, at most every ten seconds.
    pub(super) async fn login_at(&self, issuer: &Issuer) -> Result<Login> {
        let place = {
            let mut all = self.logins.0.lock().unwrap_or_else(PoisonError::into_inner);
            all.entry(issuer.issuer.clone()).or_default().clone()
        };
        let mut place = place.lock().await;
        let now = self.env.now();
        if let Some(known) = &*place {
            // A clock that was set back says nothing.
            let age_ms = now.ms_since(known.asked);
            if known.fetched.is_some() && (0..FRESH_S * 1000).contains(&age_ms) {
                return Ok(known.clone());
            }
            if known.fetched.is_none() && (0..AGAIN_MS).contains(&age_ms) {
                return Err(unreachable(&issuer.issuer));
            }
        }
        let web = self.options.federation.web.as_ref().ok_or_else(|| Fault::bug("nothing asks providers here"))?;
        let at = format!("{}/.well-known/openid-configuration", issuer.issuer.trim_end_matches('/'));
        let read = match web.get(&at).await {
            Ok(document) => Login::read(&document, &issuer.issuer, now),
            Err(fault) => Err(fault),
        };
        match read {
            Ok(login) => Ok(place.insert(login).clone()),
            Err(fault) => {
                tracing::info!(issuer = issuer.issuer, "where an issuer takes logins cannot be had: {}", fault.chain());
                *place = Some(Login::failed(self.env.now()));
                Err(unreachable(&issuer.issuer).because(fault))
            }
        }
    }

    /// Who an id token says has logged in; it must be for this client, and answer the login that began with `nonce`.
    pub(super) async fn id_token(&self, issuer: &Issuer, client: &str, nonce: &str, text: &str) -> Result<Bearer> {
        let jwt = Jwt::parse(text).ok_or_else(|| refused("the id token is no signed token that is taken here"))?;
        if jwt.claimed_issuer() != Some(&issuer.issuer) {
            return Err(refused("the id token is another issuer's"));
        }
        let claims = self.signed_claims(issuer, &jwt).await?;
        let (several, ours) = match claims.get("aud") {
            Some(Value::String(one)) => (false, one == client),
            Some(Value::Array(all)) => (all.len() > 1, all.iter().any(|one| one == client)),
            _ => (false, false),
        };
        let party = claims.get("azp");
        if !ours || party.is_some_and(|party| party != client) || several && party.is_none() {
            return Err(refused("the id token is for somebody else"));
        }
        let said = claims.get("nonce").and_then(Value::as_str).unwrap_or_default();
        if !bool::from(said.as_bytes().ct_eq(nonce.as_bytes())) {
            return Err(refused("the id token answers another login"));
        }
        Ok(Bearer::of(issuer, claims))
    }
}
