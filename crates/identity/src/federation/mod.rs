//! Federation (OS-FEDERATION): users that others know, by identity providers, protocols and mappings; and the service
//! providers that users of this cloud may go to.
//!
//! Nothing that a provider says counts before its signature holds ([`oidc`]), and nothing beyond what a mapping makes of
//! it ([`rules`]). Users are kept as shadows ([`shadow`]), so that roles can be given to them.

mod browser;
#[cfg(test)]
mod browser_tests;
mod client;
pub(crate) mod jwt;
mod login;
mod mapping;
pub mod oidc;
mod protocol;
mod provider;
pub mod rules;
pub mod saml;
mod service_provider;
mod shadow;
mod text;
#[cfg(test)]
mod tests;

pub use client::ClientSecret;
pub(crate) use login::bearer;
pub(crate) use oidc::Bearer;
pub use oidc::{DOCUMENT_BYTES, Fetch, Issuer, Options};
pub(crate) use provider::{remove, users_of};

use crate::Identity;
use crate::fields::Fields;
use base::{Fault, Result};
use rest::{Call, Route};
use std::sync::Arc;

pub(crate) fn routes(identity: &Arc<Identity>) -> Vec<Route> {
    let parts = [
        provider::routes(identity),
        protocol::routes(identity),
        mapping::routes(identity),
        service_provider::routes(identity),
        login::routes(identity),
        browser::routes(identity),
        saml::routes(identity),
    ];
    parts.into_iter().flatten().collect()
}

/// The id that a client has chosen, in the path.
fn chosen<'a>(call: &'a Call, name: &str) -> Result<&'a str> {
    let id = call.param(name);
    base::limits::text(name, id, 64)?;
    if id.trim().is_empty() || id.contains(['/', '\\']) || id.chars().any(char::is_control) {
        return Err(Fault::invalid(format!("'{id}' is no id: 1 to 64 characters, no slash, no control characters.")));
    }
    Ok(id)
}

/// Refuses what nobody asked for: these resources keep nothing that they do not know.
fn finish(fields: Fields) -> Result<()> {
    let rest = fields.rest()?;
    match rest.keys().next() {
        None => Ok(()),
        Some(name) => Err(Fault::invalid(format!("Additional properties are not allowed ('{name:.64}' was unexpected)"))),
    }
}
