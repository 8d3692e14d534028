//! Who else is trusted to say who people are, and where people of this cloud may go.

use super::document;
use base::DomainId;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeSet;
use store::{Document, Keys};

/// Somebody else who says who people are; see [`crate::federation`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct IdentityProvider {
    pub id: String,
    /// Where its users belong unless a mapping says otherwise.
    pub domain_id: DomainId,
    pub enabled: bool,
    pub description: Value,
    /// The names by which its assertions call it.
    pub remote_ids: BTreeSet<String>,
    /// Minutes for which a membership that it names lasts; none or 0: only within the token.
    pub authorization_ttl: Option<i64>,
}

/// How an identity provider is heard, and which mapping reads what it says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Protocol {
    pub id: String,
    pub idp_id: String,
    /// `openid`: what clients call it.
    pub name: String,
    pub mapping_id: String,
    pub remote_id_attribute: Option<String>,
}

impl Protocol {
    pub fn id_of(idp: &str, name: &str) -> String {
        format!("{idp}:{name}")
    }
}

/// Rules that make users, groups and projects of what an identity provider says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Mapping {
    pub id: String,
    /// As they were given; they are known to be readable.
    pub rules: Value,
    pub schema_version: String,
}

/// Another cloud that users of this one may go to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ServiceProvider {
    pub id: String,
    pub enabled: bool,
    pub description: Value,
    pub auth_url: String,
    pub sp_url: String,
    pub relay_state_prefix: String,
}

document!(IdentityProvider, "identity_provider", |p, keys| {
    keys.index("domain", p.domain_id.as_str());
    p.remote_ids.iter().for_each(|remote| keys.unique("remote", [remote]));
});
document!(Protocol, "federation_protocol", |p, keys| {
    keys.index("idp", p.idp_id.as_str());
    keys.index("mapping", p.mapping_id.as_str());
});
document!(Mapping, "mapping", |_, _| {});
document!(ServiceProvider, "service_provider", |_, _| {});
