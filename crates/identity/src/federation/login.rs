//! Logging in by what an identity provider says: the methods `openid` and `mapped`, the paths at which clients of a
//! provider ask for a token, and the way back of a browser to a dashboard.

use super::rules::Rules;
use super::shadow::{self, Wanted};
use crate::Identity;
use crate::documents::*;
use crate::listing::missing;
use crate::token::issue::{Federated, Headers, Issued, Outcome, Proof};
use crate::token::methods::Methods;
use crate::token::request::{self, Request};
use crate::token::verify::refused;
use base::{Fault, Result};
use rest::{Access, Call, HeaderName, Method, Reply, Route};
use std::sync::Arc;

pub(super) fn routes(identity: &Arc<Identity>) -> Vec<Route> {
    let auth = "/v3/OS-FEDERATION/identity_providers/{id}/protocols/{protocol_id}/auth";
    let provider = "/v3/auth/OS-FEDERATION/identity_providers/{id}/protocols/{protocol_id}/websso";
    let any = "/v3/auth/OS-FEDERATION/websso/{protocol_id}";
    // The bearer's token is the right to ask.
    vec![
        Route::new(identity, Method::GET, auth, "federation:auth", Access::Open, 201, login),
        Route::new(identity, Method::POST, auth, "federation:auth_post", Access::Open, 201, login),
        Route::new(identity, Method::GET, provider, "federation:websso_provider", Access::Open, 200, dashboard),
        Route::new(identity, Method::POST, provider, "federation:websso_provider_post", Access::Open, 200, dashboard),
        Route::new(identity, Method::GET, any, "federation:websso", Access::Open, 200, dashboard),
        Route::new(identity, Method::POST, any, "federation:websso_post", Access::Open, 200, dashboard),
    ]
}

/// The token after `Bearer` in the header `Authorization`.
pub(crate) fn bearer(call: &Call) -> Option<String> {
    let (scheme, token) = call.header("authorization")?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim().to_owned())
}

/// A request for an unscoped token in the words of `POST /v3/auth/tokens`.
fn request(provider: &str, protocol: &str) -> Request {
    let of = request::Mapped {
        id: None,
        identity_provider: Some(provider.to_owned()),
        protocol: Some(protocol.to_owned()),
    };
    let identity = request::Identity { methods: vec!["mapped".into()], mapped: Some(of), ..Default::default() };
    Request { auth: request::Auth { identity, scope: None } }
}

async fn issue(identity: &Identity, call: &Call, provider: &str) -> Result<Box<Issued>> {
    let headers = Headers { bearer: bearer(call), source: identity.source(call), ..Headers::default() };
    issue_by(identity, provider, call.param("protocol_id"), headers).await
}

/// An unscoped token by what these headers show of somebody.
pub(super) async fn issue_by(
    identity: &Identity,
    provider: &str,
    protocol: &str,
    headers: Headers,
) -> Result<Box<Issued>> {
    match identity.issue(request(provider, protocol), headers).await? {
        Outcome::Token(issued) => Ok(issued),
        Outcome::Receipt(_) => Err(refused("the user's rules ask for more than this login shows")),
    }
}

async fn login(identity: Arc<Identity>, call: Call) -> Result<Reply> {
    let issued = issue(&identity, &call, call.param("id")).await?;
    Ok(crate::token::reply(&identity, 201, &issued.verified, &issued.text, true))
}

/// Takes a browser back to its dashboard with a token, or first to the provider that knows who sits there. Only to a
/// dashboard of the settings: the token must not go anywhere that a link says.
async fn dashboard(identity: Arc<Identity>, call: Call) -> Result<Reply> {
    let origin = call.query.get("origin").filter(|origin| !origin.is_empty());
    let origin = origin.ok_or_else(|| Fault::invalid("Request must have an origin query parameter"))?;
    let trusted = identity.options.federation.trusted_dashboards.iter().find(|trusted| trusted.as_str() == origin);
    let trusted = trusted.ok_or_else(|| {
        Fault::unauthenticated(format!("{origin:.200} is not a trusted dashboard host; trusted_dashboards names them."))
    })?;
    if bearer(&call).is_none()
        && let Some(sent) = super::browser::send(&identity, &call, trusted).await?
    {
        return Ok(sent);
    }
    let provider = match call.param("id") {
        "" => provider_of(&identity, &call).await?,
        named => named.to_owned(),
    };
    let issued = issue(&identity, &call, &provider).await?;
    Ok(page(trusted, &issued.text))
}

/// A form that sends itself to a dashboard, with a token; and not with the address of this page, which may have a code.
pub(super) fn page(dashboard: &str, token: &str) -> Reply {
    let page = format!(
        "<!DOCTYPE html>\n<html><head><meta charset=\"utf-8\"><title>Logging in</title></head>\n\
         <body onload=\"document.forms[0].submit()\"><form method=\"post\" action=\"{}\">\n\
         <input type=\"hidden\" name=\"token\" value=\"{}\"><noscript><input type=\"submit\" value=\"Go on\"></noscript>\n\
         </form></body></html>\n",
        attribute(dashboard),
        attribute(token)
    );
    let reply = Reply::empty(200).content_type("text/html; charset=utf-8").body(page.into());
    let reply = reply.header(HeaderName::from_static("cache-control"), "no-store");
    reply.header(HeaderName::from_static("referrer-policy"), "strict-origin")
}

fn attribute(text: &str) -> String {
    text.replace('&', "&amp;").replace('"', "&quot;").replace('<', "&lt;").replace('>', "&gt;")
}

/// The provider that calls itself as the bearer's token says.
async fn provider_of(identity: &Identity, call: &Call) -> Result<String> {
    let token = bearer(call).ok_or_else(|| refused("there is no bearer token"))?;
    let bearer = identity.bearer(&token).await?;
    let model = identity.model();
    let provider = model.identity_providers.one("remote", &bearer.issuer);
    provider.map(|provider| provider.id.clone()).ok_or_else(|| missing("identity provider", &bearer.issuer))
}

impl Identity {
    /// The methods `openid` and `mapped`: a bearer's token that an identity provider has signed, or a token of this
    /// cloud that was made from one.
    pub(crate) async fn by_mapping(&self, wanted: &request::Mapped, headers: &Headers) -> Result<Proof> {
        if let Some(text) = &wanted.id {
            self.find_key(text).await?;
            let proof = self.by_token(text)?;
            return if proof.federated.is_some() { Ok(proof) } else { Err(refused("the token is of no such login")) };
        }
        let need = |what: &str| Fault::invalid(format!("Expecting to find {what} in mapped."));
        let provider = wanted.identity_provider.as_deref().ok_or_else(|| need("identity_provider"))?;
        let protocol = wanted.protocol.as_deref().ok_or_else(|| need("protocol"))?;
        let bearer = match (&headers.known, &headers.bearer) {
            (Some(known), _) => known.clone(),
            (None, Some(token)) => self.bearer(token).await?,
            (None, None) => return Err(refused("there is no bearer token")),
        };
        let method = if protocol == "openid" { Methods::OPENID } else { Methods::MAPPED };
        let shadow = {
            let model = self.model();
            let (provider, protocol) = heard(&model, provider, protocol, &bearer)?;
            let mapping = model.mappings.get(&protocol.mapping_id);
            let mapping = mapping.ok_or_else(|| missing("mapping", &protocol.mapping_id))?;
            let rules = Rules::read(&mapping.schema_version, &mapping.rules)
                .map_err(|fault| refused("the mapping cannot be read").because(fault))?;
            let mapped = rules.apply(&bearer.assertion)?;
            if mapped.local {
                return Ok(Proof { methods: method, ..Proof::of(shadow::local(&model, &mapped)?) });
            }
            Wanted::new(&model, &provider, &protocol, mapped, bearer.subject)?
        };
        let groups = shadow.groups.iter().cloned().collect();
        let federated = Federated { groups, provider: provider.to_owned(), protocol: protocol.to_owned() };
        let user = self.shadow(shadow).await?;
        Ok(Proof { methods: method, federated: Some(federated), ..Proof::of(user) })
    }
}

/// Provider and protocol, if the provider is enabled and the bearer's token is one of its own. A provider must name its
/// issuer among its remote ids: nothing else would keep one issuer from speaking for another's users.
fn heard(
    model: &crate::model::Model,
    provider: &str,
    protocol: &str,
    bearer: &super::oidc::Bearer,
) -> Result<(Arc<IdentityProvider>, Arc<Protocol>)> {
    let known = model.identity_providers.get(provider).ok_or_else(|| missing("identity provider", provider))?;
    if !known.enabled {
        return Err(Fault::forbidden(format!("Identity Provider {provider} is disabled")));
    }
    let heard = model.protocols.get(&Protocol::id_of(provider, protocol));
    let heard = heard.ok_or_else(|| missing("federated protocol", &format!("{protocol} of {provider}")))?;
    let mut names = vec![bearer.issuer.as_str()];
    if let Some(attribute) = heard.remote_id_attribute.as_deref().filter(|attribute| !attribute.is_empty()) {
        let said = bearer.assertion.get(attribute).map(Vec::as_slice);
        let [one] = said.unwrap_or_default() else {
            return Err(Fault::invalid("Could not find Identity Provider identifier in what it says."));
        };
        names.push(one);
    }
    if names.iter().all(|name| known.remote_ids.contains(*name)) {
        return Ok((known.clone(), heard.clone()));
    }
    Err(Fault::forbidden(format!(
        "Incoming identity provider identifier not included among the accepted identifiers: remote_ids of {provider} must have it."
    )))
}
