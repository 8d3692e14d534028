//! The body of a token, as `GET` and `POST /v3/auth/tokens` answer it.

use super::payload::Scope;
use super::verify::Verified;
use crate::model::Model;
use serde::Serialize;
use serde_json::value::RawValue;

#[derive(Serialize)]
struct Wrapper<'a> {
    token: Token<'a>,
}

#[derive(Serialize)]
struct Token<'a> {
    methods: Vec<&'static str>,
    user: User<'a>,
    audit_ids: Vec<String>,
    expires_at: String,
    issued_at: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    project: Option<InDomain<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    is_domain: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    domain: Option<Named<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    system: Option<System>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    roles: Vec<Named<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    application_credential: Option<ApplicationCredential<'a>>,
    #[serde(rename = "OS-OAUTH1", skip_serializing_if = "Option::is_none")]
    oauth1: Option<Oauth1<'a>>,
    #[serde(rename = "OS-TRUST:trust", skip_serializing_if = "Option::is_none")]
    trust: Option<Trust<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    catalog: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    service_providers: Vec<ServiceProvider<'a>>,
}

#[derive(Serialize)]
struct ServiceProvider<'a> {
    auth_url: &'a str,
    id: &'a str,
    sp_url: &'a str,
}

#[derive(Serialize)]
struct Federation<'a> {
    groups: Vec<ById<'a>>,
    identity_provider: ById<'a>,
    protocol: ById<'a>,
}

#[derive(Serialize)]
struct Named<'a> {
    id: &'a str,
    name: &'a str,
}

#[derive(Serialize)]
struct InDomain<'a> {
    domain: Named<'a>,
    id: &'a str,
    name: &'a str,
}

#[derive(Serialize)]
struct User<'a> {
    domain: Named<'a>,
    id: &'a str,
    name: &'a str,
    /// Left out where an identity provider knows the user.
    #[serde(skip_serializing_if = "Option::is_none")]
    password_expires_at: Option<Option<String>>,
    #[serde(rename = "OS-FEDERATION", skip_serializing_if = "Option::is_none")]
    federation: Option<Federation<'a>>,
}

/// What an identity provider said.
fn federation(verified: &Verified) -> Option<Federation<'_>> {
    let Scope::Federated { groups, provider, protocol, .. } = &verified.payload.scope else { return None };
    Some(Federation {
        groups: groups.iter().map(|id| ById { id }).collect(),
        identity_provider: ById { id: provider },
        protocol: ById { id: protocol },
    })
}

#[derive(Serialize)]
struct System {
    all: bool,
}

#[derive(Serialize)]
struct ApplicationCredential<'a> {
    id: &'a str,
    name: &'a str,
    restricted: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    access_rules: Option<Vec<serde_json::Map<String, serde_json::Value>>>,
}

#[derive(Serialize)]
struct Oauth1<'a> {
    access_token_id: &'a str,
    consumer_id: &'a str,
}

#[derive(Serialize)]
struct Trust<'a> {
    id: &'a str,
    trustor_user: ById<'a>,
    trustee_user: ById<'a>,
    impersonation: bool,
}

#[derive(Serialize)]
struct ById<'a> {
    id: &'a str,
}

/// The JSON; `catalog` is left out where none is given.
pub fn body(verified: &Verified, catalog: Option<&RawValue>, model: &Model) -> Vec<u8> {
    let project = verified.project.as_ref();
    let federation = federation(verified);
    let providers = model.service_providers.all().filter(|provider| provider.enabled);
    let token = Token {
        methods: verified.payload.methods.names(),
        user: User {
            domain: Named { id: &verified.user_domain.id, name: &verified.user_domain.name },
            id: &verified.user.id,
            name: &verified.user.name,
            password_expires_at: federation
                .is_none()
                .then(|| verified.user.password_end().map(|end| end.iso_naive())),
            federation,
        },
        audit_ids: verified.payload.audit.iter().map(ToString::to_string).collect(),
        expires_at: verified.payload.expires.iso_micros(),
        issued_at: verified.issued.iso_micros(),
        project: project.map(|(project, domain)| InDomain {
            domain: Named { id: &domain.id, name: &domain.name },
            id: &project.id,
            name: &project.name,
        }),
        // A trust's token does not say it, as in Keystone.
        is_domain: project.filter(|_| verified.trust.is_none()).map(|(project, _)| project.is_domain),
        domain: verified.domain.as_ref().map(|domain| Named { id: &domain.id, name: &domain.name }),
        system: (verified.payload.scope == Scope::System).then_some(System { all: true }),
        roles: verified.roles.iter().map(|role| Named { id: &role.id, name: &role.name }).collect(),
        application_credential: verified.application_credential.as_ref().map(|credential| ApplicationCredential {
            id: &credential.id,
            name: &credential.name,
            restricted: !credential.unrestricted,
            access_rules: (verified.access_rules.as_ref())
                .map(|rules| rules.iter().map(|rule| crate::access_rule::plain(rule)).collect()),
        }),
        oauth1: verified
            .access_token
            .as_ref()
            .map(|token| Oauth1 { access_token_id: &token.id, consumer_id: &token.consumer_id }),
        trust: verified.trust.as_ref().map(|trust| Trust {
            id: &trust.id,
            trustor_user: ById { id: &trust.trustor_user_id },
            trustee_user: ById { id: &trust.trustee_user_id },
            impersonation: trust.impersonation,
        }),
        catalog,
        service_providers: providers
            .map(|provider| ServiceProvider { auth_url: &provider.auth_url, id: &provider.id, sp_url: &provider.sp_url })
            .collect(),
    };
    // Strings and numbers only: nothing that serde_json could refuse.
    serde_json::to_vec(&Wrapper { token }).unwrap_or_default()
}
