//! The body of `POST /v3/auth/tokens`.

use serde::Deserialize;
use serde_json::Value;

#[derive(Deserialize)]
#[serde(expecting = "an object")]
pub struct Request {
    pub auth: Auth,
}

#[derive(Deserialize)]
#[serde(expecting = "an object")]
pub struct Auth {
    pub identity: Identity,
    /// An object, or the word `unscoped`.
    pub scope: Option<Value>,
}

#[derive(Default, Deserialize)]
#[serde(expecting = "an object")]
pub struct Identity {
    pub methods: Vec<String>,
    pub password: Option<Password>,
    pub token: Option<Token>,
    pub application_credential: Option<ApplicationCredential>,
    pub totp: Option<Totp>,
    pub mapped: Option<Mapped>,
    pub openid: Option<Mapped>,
}

/// By whom a bearer's token shall be read; or a token of this cloud that came of one.
#[derive(Deserialize)]
#[serde(expecting = "an object")]
pub struct Mapped {
    pub id: Option<String>,
    pub identity_provider: Option<String>,
    pub protocol: Option<String>,
}

#[derive(Deserialize)]
#[serde(expecting = "an object")]
pub struct Password {
    pub user: UserWithPassword,
}

#[derive(Deserialize)]
#[serde(expecting = "an object")]
pub struct UserWithPassword {
    #[serde(flatten)]
    pub user: UserReference,
    pub password: String,
}

#[derive(Deserialize)]
#[serde(expecting = "an object")]
pub struct Totp {
    pub user: UserWithPasscode,
}

#[derive(Deserialize)]
#[serde(expecting = "an object")]
pub struct UserWithPasscode {
    #[serde(flatten)]
    pub user: UserReference,
    pub passcode: String,
}

/// By id, or by name and domain.
#[derive(Clone, Debug, Deserialize, Default)]
#[serde(expecting = "an object")]
pub struct UserReference {
    pub id: Option<String>,
    pub name: Option<String>,
    pub domain: Option<DomainReference>,
}

/// By id or by name.
#[derive(Clone, Debug, Deserialize, Default)]
#[serde(expecting = "an object")]
pub struct DomainReference {
    pub id: Option<String>,
    pub name: Option<String>,
}

#[derive(Deserialize)]
#[serde(expecting = "an object")]
pub struct Token {
    pub id: String,
}

#[derive(Deserialize)]
#[serde(expecting = "an object")]
pub struct ApplicationCredential {
    pub id: Option<String>,
    pub name: Option<String>,
    pub user: Option<UserReference>,
    pub secret: String,
}

#[derive(Deserialize)]
#[serde(expecting = "an object")]
pub struct ScopeRequest {
    pub project: Option<ProjectReference>,
    pub domain: Option<DomainReference>,
    pub system: Option<SystemReference>,
    pub unscoped: Option<Value>,
    #[serde(rename = "OS-TRUST:trust")]
    pub trust: Option<TrustReference>,
}

#[derive(Deserialize)]
#[serde(expecting = "an object")]
pub struct TrustReference {
    pub id: String,
}

/// By id, or by name and domain.
#[derive(Deserialize)]
#[serde(expecting = "an object")]
pub struct ProjectReference {
    pub id: Option<String>,
    pub name: Option<String>,
    pub domain: Option<DomainReference>,
}

#[derive(Deserialize)]
#[serde(expecting = "an object")]
pub struct SystemReference {
    pub all: bool,
}
