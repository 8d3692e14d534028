//! Keystone to Keystone: this cloud as an identity provider. Whoever has a token of a project gets a signed SAML 2.0
//! assertion ([`assertion`]) for a service provider, alone or in the envelope of an enhanced client (ECP), and service
//! providers read who speaks to them ([`metadata`]).
//!
//! The XML is made here and none is read. A token that was restricted or lent must not become more than it is: one with
//! access rules makes no assertion, and one that was lent names no groups of whoever lent it.

mod assertion;
mod metadata;
mod settings;
#[cfg(test)]
mod tests;
mod xml;

pub use settings::{Idp, Settings};

use crate::Identity;
use crate::documents::ServiceProvider;
use crate::listing::missing;
use crate::token::verify::Verified;
use assertion::Subject;
use base::{Fault, Result};
use rest::{Access, Call, HeaderName, Method, Reply, Route};
use serde::Deserialize;
use std::sync::Arc;
use xml::Element;

pub(super) fn routes(identity: &Arc<Identity>) -> Vec<Route> {
    let (saml2, ecp) = ("/v3/auth/OS-FEDERATION/saml2", "/v3/auth/OS-FEDERATION/saml2/ecp");
    let about = "/v3/OS-FEDERATION/saml2/metadata";
    // The token in the body is the right to ask.
    vec![
        Route::new(identity, Method::POST, saml2, "federation:saml2", Access::Open, 200, alone),
        Route::new(identity, Method::POST, ecp, "federation:saml2_ecp", Access::Open, 200, enveloped),
        Route::new(identity, Method::GET, about, "federation:saml2_metadata", Access::Open, 200, about_us),
    ]
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, expecting = "an object")]
struct Request {
    auth: Auth,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, expecting = "an object")]
struct Auth {
    identity: Proof,
    scope: Scope,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, expecting = "an object")]
struct Proof {
    token: Named,
    /// Nothing but a token makes an assertion, whatever stands here, as in Keystone.
    #[serde(default, rename = "methods")]
    _methods: Vec<serde_json::Value>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, expecting = "an object")]
struct Scope {
    service_provider: Named,
}

#[derive(Deserialize)]
#[serde(expecting = "an object")]
struct Named {
    id: String,
}

async fn alone(identity: Arc<Identity>, mut call: Call) -> Result<Reply> {
    let (response, provider) = asserted(&identity, &mut call).await?;
    reply(&response, Some(&provider))
}

async fn enveloped(identity: Arc<Identity>, mut call: Call) -> Result<Reply> {
    let (response, provider) = asserted(&identity, &mut call).await?;
    let envelope = assertion::envelope(&identity.env, response, &provider.relay_state_prefix);
    reply(&envelope, Some(&provider))
}

async fn about_us(identity: Arc<Identity>, _: Call) -> Result<Reply> {
    reply(&metadata::descriptor(ours(&identity)?), None)
}

/// XML, with where it is to go.
fn reply(element: &Element, provider: Option<&ServiceProvider>) -> Result<Reply> {
    let mut reply = Reply::empty(200).content_type("text/xml").body(element.document()?.into());
    if let Some(provider) = provider {
        reply = reply.header(HeaderName::from_static("x-sp-url"), &provider.sp_url);
        reply = reply.header(HeaderName::from_static("x-auth-url"), &provider.auth_url);
        reply = reply.header(HeaderName::from_static("cache-control"), "no-store");
    }
    Ok(reply)
}

/// 500, as a Keystone without these settings says.
fn ours(identity: &Identity) -> Result<&Idp> {
    let none = || Fault::unavailable("This cloud signs no SAML: [saml] is not in its nubo.toml.").with_status(500);
    identity.options.federation.saml.as_deref().ok_or_else(none)
}

async fn asserted(identity: &Identity, call: &mut Call) -> Result<(Element, Arc<ServiceProvider>)> {
    let Request { auth: Auth { identity: proof, scope } } = call.json().await?;
    // An assertion is worth as much as a new token.
    if let Ok(lately) = identity.verify_lately(&proof.token.id).await {
        identity.confirm_all(&lately.verified).await?;
    }
    let known = identity.known(&proof.token.id);
    let verified = known.map_err(|fault| Fault::not_found("Could not find token.").because(fault))?.verified;
    let id = &scope.service_provider.id;
    let provider = identity.model().service_providers.get(id).cloned();
    let provider = provider.ok_or_else(|| missing("Service Provider", id))?;
    if !provider.enabled {
        return Err(Fault::forbidden("You are not authorized to perform the requested action."));
    }
    let subject = subject(identity, &verified, &provider)?;
    let idp = ours(identity)?;
    Ok((assertion::response(idp, &identity.env, &subject, call.now)?, provider))
}

fn subject(identity: &Identity, verified: &Verified, provider: &ServiceProvider) -> Result<Subject> {
    let not = |why: &str| {
        Fault::forbidden(format!("You are not authorized to perform the requested action: {why}."))
    };
    let Some((project, project_domain)) = &verified.project else {
        return Err(not("Use a project scoped token when attempting to create a SAML assertion"));
    };
    if verified.access_rules.is_some() {
        return Err(not("a token that access rules restrict makes no SAML assertion"));
    }
    let model = identity.model();
    let mut groups = Vec::new();
    if !verified.is_delegated() {
        for group in model.groups_of(&verified.user.id).filter_map(|id| model.groups.get(id)) {
            let domain = model.domain(&group.domain_id).map_or_else(String::new, |domain| domain.name.clone());
            groups.push((group.name.clone(), domain));
        }
    }
    Ok(Subject {
        user: verified.user.name.clone(),
        user_domain: verified.user_domain.name.clone(),
        roles: verified.roles.iter().map(|role| role.name.clone()).collect(),
        project: project.name.clone(),
        project_domain: project_domain.name.clone(),
        groups,
        recipient: provider.sp_url.clone(),
        until: verified.payload.expires,
    })
}
