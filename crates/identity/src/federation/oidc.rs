//! OpenID Connect as a resource server: a bearer token that an issuer has signed says who its bearer is.
//!
//! Which issuers count is the operator's word, in the settings. Their keys are found by discovery, kept for an hour, and
//! looked for again when a token names one that is not there, at most every ten seconds: a flood of made-up tokens must
//! not become a flood at the issuer. A token is never sent anywhere, and nothing of it is logged. How a browser gets to
//! an issuer is in [`super::browser`].

use super::jwt::{self, Jwt, Key};
use super::client::{ClientSecret, Login};
use super::rules::Assertion;
use crate::Identity;
use crate::token::verify::refused;
use base::{Fault, Result, Timestamp};
use bytes::Bytes;
use serde::Deserialize;
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

/// Asks issuers, and takes at most [`DOCUMENT_BYTES`] of what they answer.
#[async_trait::async_trait]
pub trait Fetch: std::fmt::Debug + Send + Sync + 'static {
    async fn get(&self, url: &str) -> Result<Bytes>;

    /// Sends a form, with what stands in `Authorization`; the status and the body of whatever is answered.
    async fn post(&self, url: &str, authorization: Option<&str>, form: String) -> Result<(u16, Bytes)>;
}

/// The most bytes of a discovery document or of a set of keys.
pub const DOCUMENT_BYTES: usize = 1 << 18;
pub(super) const FRESH_S: i64 = 3600;
/// An issuer that cannot be reached is believed by its last keys for so long.
const STALE_S: i64 = 86_400;
pub(super) const AGAIN_MS: i64 = 10_000;
/// The most that clocks may differ.
const SKEW_S: i64 = 600;
/// The most values of an attribute, and bytes of a value.
const VALUES: usize = 1024;

/// Somebody whose tokens count.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Issuer {
    /// As it stands in tokens; discovery is below it.
    pub issuer: String,
    /// A token must be for one of these.
    pub audience: Vec<String>,
    /// Where the keys are, where the issuer has no discovery.
    pub jwks_uri: Option<String>,
    /// How many seconds the clocks may differ.
    #[serde(default = "usual_skew")]
    pub clock_skew: u32,
    /// As whom this cloud sends browsers there; without it no browser is sent.
    pub client_id: Option<String>,
    pub client_secret: Option<ClientSecret>,
    /// Read by whoever makes the settings.
    pub client_secret_file: Option<PathBuf>,
    pub scopes: Option<Vec<String>>,
}

fn usual_skew() -> u32 {
    60
}

/// The settings of federation.
#[derive(Clone, Debug, Default)]
pub struct Options {
    pub issuers: Vec<Issuer>,
    /// Where a browser may be sent with a token.
    pub trusted_dashboards: Vec<String>,
    pub web: Option<Arc<dyn Fetch>>,
    /// Set where this cloud vouches for its users elsewhere.
    pub saml: Option<Arc<super::saml::Idp>>,
}

impl Options {
    /// Invalid where the settings cannot be kept.
    pub fn check(&self) -> Result<()> {
        for issuer in &self.issuers {
            for url in std::iter::once(&issuer.issuer).chain(&issuer.jwks_uri) {
                if !is_safe(url) {
                    return Err(Fault::invalid(format!("federation: {url} is no https URL, nor one of loopback.")));
                }
            }
            if issuer.audience.is_empty() || i64::from(issuer.clock_skew) > SKEW_S {
                return Err(Fault::invalid(format!(
                    "federation: {} needs an audience, and a clock_skew of at most {SKEW_S} seconds.",
                    issuer.issuer
                )));
            }
            issuer.check_client()?;
            if self.issuers.iter().filter(|other| other.issuer == issuer.issuer).count() > 1 {
                return Err(Fault::invalid(format!("federation: the issuer {} is there twice.", issuer.issuer)));
            }
        }
        Ok(())
    }
}

/// Keys come by https, or from this very machine.
pub(super) fn is_safe(url: &str) -> bool {
    let host = |rest: &str| {
        let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
        let bare = authority.rsplit_once(':').filter(|(_, port)| port.bytes().all(|b| b.is_ascii_digit()));
        bare.map_or(authority, |(host, _)| host).to_owned()
    };
    url.strip_prefix("https://").is_some_and(|rest| !host(rest).is_empty())
        || url
            .strip_prefix("http://")
            .is_some_and(|rest| matches!(host(rest).as_str(), "127.0.0.1" | "localhost" | "[::1]"))
}

/// The keys of issuers, as far as they are known.
#[derive(Default)]
pub struct KeySets(Mutex<BTreeMap<String, Arc<tokio::sync::Mutex<Option<KeySet>>>>>);

/// How browsers get to issuers, as far as it is known.
#[derive(Default)]
pub struct Logins(pub(super) Mutex<BTreeMap<String, Arc<tokio::sync::Mutex<Option<Login>>>>>);

#[derive(Clone)]
struct KeySet {
    keys: Arc<Vec<Key>>,
    fetched: Option<Timestamp>,
    asked: Timestamp,
}

/// Who a token says its bearer is.
#[derive(Clone)]
pub(crate) struct Bearer {
    pub issuer: String,
    pub subject: Option<String>,
    pub assertion: Assertion,
}

impl Bearer {
    pub(super) fn of(issuer: &Issuer, claims: &Map<String, Value>) -> Bearer {
        let subject = claims.get("sub").and_then(Value::as_str).map(str::to_owned);
        Bearer { issuer: issuer.issuer.clone(), subject, assertion: assertion(claims) }
    }
}

impl Identity {
    /// Who the bearer of a token is. Unauthenticated for a token that does not hold.
    pub(crate) async fn bearer(&self, token: &str) -> Result<Bearer> {
        let jwt = Jwt::parse(token).ok_or_else(|| refused("the bearer token is no signed token that is taken here"))?;
        let claimed = jwt.claimed_issuer().unwrap_or_default();
        let issuer = self.options.federation.issuers.iter().find(|issuer| issuer.issuer == claimed);
        let issuer = issuer.ok_or_else(|| refused("no issuer of the settings has made the bearer token"))?;
        let claims = self.signed_claims(issuer, &jwt).await?;
        let audience = claims.get("aud").map_or_else(Vec::new, values);
        if !audience.iter().any(|aud| issuer.audience.contains(aud)) {
            return Err(refused("the bearer token is for somebody else"));
        }
        Ok(Bearer::of(issuer, claims))
    }

    /// What a token says, if the issuer has signed it and it holds now.
    pub(super) async fn signed_claims<'a>(
        &self,
        issuer: &Issuer,
        jwt: &'a Jwt<'_>,
    ) -> Result<&'a Map<String, Value>> {
        let keys = self.issuer_keys(issuer, jwt).await?;
        let claims = jwt.signed_by(&keys).ok_or_else(|| refused("the bearer token's signature does not hold"))?;
        timely(claims, issuer, self.env.now())?;
        Ok(claims)
    }

    /// Keys against which a token can be held. One task at a time asks an issuer.
    async fn issuer_keys(&self, issuer: &Issuer, jwt: &Jwt<'_>) -> Result<Arc<Vec<Key>>> {
        let now = self.env.now();
        let place = {
            let mut sets = self.key_sets.0.lock().unwrap_or_else(PoisonError::into_inner);
            sets.entry(issuer.issuer.clone()).or_default().clone()
        };
        let mut place = place.lock().await;
        let known = place.clone();
        let age_s = known.as_ref().and_then(|set| set.fetched).map(|at| now.ms_since(at) / 1000);
        let fresh = age_s.is_some_and(|age| age < FRESH_S);
        if let Some(set) = &known {
            // A clock that was set back says nothing.
            let asked_lately = (0..AGAIN_MS).contains(&now.ms_since(set.asked));
            if fresh && jwt.is_known_to(&set.keys) || asked_lately && set.fetched.is_some() {
                return Ok(set.keys.clone());
            }
            if asked_lately {
                return Err(unreachable(&issuer.issuer));
            }
        }
        match self.fetch_keys(issuer).await {
            Ok(keys) => {
                let keys = Arc::new(keys);
                *place = Some(KeySet { keys: keys.clone(), fetched: Some(now), asked: now });
                Ok(keys)
            }
            Err(fault) => {
                tracing::info!(issuer = issuer.issuer, "the keys of an issuer cannot be had: {}", fault.chain());
                let kept = known.filter(|_| age_s.is_some_and(|age| age < STALE_S));
                let set = KeySet {
                    keys: kept.as_ref().map_or_else(Default::default, |set| set.keys.clone()),
                    fetched: kept.as_ref().and_then(|set| set.fetched),
                    asked: now,
                };
                let keys = set.keys.clone();
                *place = Some(set);
                if kept.is_some() { Ok(keys) } else { Err(unreachable(&issuer.issuer).because(fault)) }
            }
        }
    }

    async fn fetch_keys(&self, issuer: &Issuer) -> Result<Vec<Key>> {
        let web = self.options.federation.web.as_ref().ok_or_else(|| Fault::bug("nothing fetches keys here"))?;
        let place = match &issuer.jwks_uri {
            Some(place) => place.clone(),
            None => {
                let at = format!("{}/.well-known/openid-configuration", issuer.issuer.trim_end_matches('/'));
                discovered(&web.get(&at).await?, &issuer.issuer)?
            }
        };
        let set = web.get(&place).await?;
        jwt::keys(&set).ok_or_else(|| Fault::unavailable(format!("What stands at {place} is no set of keys.")))
    }
}

pub(super) fn unreachable(issuer: &str) -> Fault {
    Fault::unavailable(format!("The keys of the identity provider {issuer} cannot be had at the moment; try again."))
}

/// Where the keys are, by the discovery document of the issuer itself.
fn discovered(document: &[u8], issuer: &str) -> Result<String> {
    #[derive(Deserialize)]
    struct Document {
        issuer: String,
        jwks_uri: String,
    }
    let document: Document = rest::from_slice(document)?;
    if document.issuer != issuer || !is_safe(&document.jwks_uri) {
        return Err(Fault::unavailable(format!("The discovery document of {issuer} is another's, or leads to no https.")));
    }
    Ok(document.jwks_uri)
}

/// It must say when it ends; that it is from the future is as bad as that it is over.
fn timely(claims: &Map<String, Value>, issuer: &Issuer, now: Timestamp) -> Result<()> {
    let (now, skew) = (now.micros() as f64 / 1e6, f64::from(issuer.clock_skew));
    let moment = |name: &str| match claims.get(name) {
        None => Ok(None),
        Some(value) => value.as_f64().map(Some).ok_or_else(|| refused("the bearer token has a time that is no number")),
    };
    let end = moment("exp")?.ok_or_else(|| refused("the bearer token does not say when it ends"))?;
    if now >= end + skew {
        return Err(refused("the bearer token has expired"));
    }
    if moment("nbf")?.is_some_and(|begin| now + skew < begin) || moment("iat")?.is_some_and(|made| now + skew < made) {
        return Err(refused("the bearer token does not hold yet"));
    }
    Ok(())
}

/// The values of a claim. A list's entries stay whole; a string may hold several, as other front ends write them.
fn values(claim: &Value) -> Vec<String> {
    match claim {
        Value::Null => Vec::new(),
        Value::String(text) => text.split(';').map(str::to_owned).collect(),
        Value::Array(items) => items.iter().take(VALUES).map(plain).collect(),
        other => vec![other.to_string()],
    }
}

fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// Claims under the names by which mappings of a Keystone behind mod_auth_openidc know them.
fn assertion(claims: &Map<String, Value>) -> Assertion {
    let mut said = Assertion::new();
    for (name, claim) in claims {
        let values = values(claim);
        let upper = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' };
        said.insert(format!("HTTP_OIDC_{}", name.chars().map(upper).collect::<String>()), values.clone());
        said.insert(format!("OIDC-{name}"), values);
    }
    // Who it is in a word cannot be two.
    for name in ["sub", "iss"] {
        if let Some(text) = claims.get(name).and_then(Value::as_str) {
            said.insert(format!("HTTP_OIDC_{}", name.to_ascii_uppercase()), vec![text.to_owned()]);
            said.insert(format!("OIDC-{name}"), vec![text.to_owned()]);
        }
    }
    said
}
