//! Tokens as signed statements (JWS, ES256): Keystone's second provider. What a token says can be read by anybody and
//! changed by nobody; whoever has the public keys can check one without the cloud.

use super::fernet::URL_SAFE;
use super::methods::Methods;
use super::payload::{AuditId, FederatedScope, Payload, Scope};
use crate::documents::JwsKeys;
use crate::federation::jwt::{Algorithm, Jwt, Key};
use base::{DomainId, Fault, ProjectId, Result, Timestamp, UserId};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::sync::Arc;
use store::Secrets;

/// What stands before the point of a public key on P-256 in DER (SubjectPublicKeyInfo).
const SPKI: [u8; 26] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce,
    0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];
const POINT_BYTES: usize = 65;

/// The keys, ready to use.
#[derive(Clone, Default)]
pub struct Ring {
    signer: Option<Arc<EcdsaKeyPair>>,
    public: Vec<Key>,
    points: Vec<Vec<u8>>,
}

impl Ring {
    pub fn parse(keys: &JwsKeys, secrets: &Secrets) -> Result<Ring> {
        let signer = pair(&secrets.open(keys, "private", &keys.private)?)?;
        let points = keys.public.iter().map(|public| point(&public.pem)).collect::<Result<Vec<_>>>()?;
        let public = points.iter().map(|point| Key::on_p256(point.clone())).collect();
        Ok(Ring { signer: Some(Arc::new(signer)), public, points })
    }

    pub fn differs(&self, other: &Ring) -> bool {
        self.points != other.points
    }

    pub fn is_empty(&self) -> bool {
        self.public.is_empty()
    }
}

/// The bytes of the first part of this kind in a text of PEM.
pub(crate) fn der(pem: &str, what: &str) -> Option<Vec<u8>> {
    let (begin, end) = (format!("-----BEGIN {what}-----"), format!("-----END {what}-----"));
    let inner = pem.split_once(&begin)?.1.split_once(&end)?.0;
    BASE64_STANDARD.decode(inner.split_ascii_whitespace().collect::<String>()).ok()
}

fn pem(der: &[u8], what: &str) -> String {
    let text = BASE64_STANDARD.encode(der);
    let lines: Vec<&str> = text.as_bytes().chunks(64).filter_map(|line| std::str::from_utf8(line).ok()).collect();
    format!("-----BEGIN {what}-----\n{}\n-----END {what}-----\n", lines.join("\n"))
}

fn pair(private: &str) -> Result<EcdsaKeyPair> {
    let wrong = || Fault::invalid("The private key is no PKCS#8 key on P-256 in PEM, as Keystone makes them for ES256.");
    let der = der(private, "PRIVATE KEY").ok_or_else(wrong)?;
    EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &der, &SystemRandom::new()).map_err(|_| wrong())
}

/// The point of a public key in PEM.
pub(super) fn point(public: &str) -> Result<Vec<u8>> {
    let found = der(public, "PUBLIC KEY").filter(|der| der.len() == SPKI.len() + POINT_BYTES && der.starts_with(&SPKI));
    let found = found.map(|der| der[SPKI.len()..].to_vec()).filter(|point| point[0] == 4);
    found.ok_or_else(|| Fault::invalid("A public key is no key on P-256 in PEM, as Keystone makes them for ES256."))
}

pub(super) fn public_pem(point: &[u8]) -> String {
    pem(&[&SPKI[..], point].concat(), "PUBLIC KEY")
}

/// The public key of a private one, both in PEM. Invalid for what is no key.
pub(super) fn public_of(private: &str) -> Result<String> {
    Ok(public_pem(pair(private)?.public_key().as_ref()))
}

/// A new private key in PEM.
pub(super) fn generate() -> Result<String> {
    let made = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &SystemRandom::new());
    let made = made.map_err(|_| Fault::bug("the system gives no randomness for a key"))?;
    Ok(pem(made.as_ref(), "PRIVATE KEY"))
}

/// Has the form of what some key has signed.
pub fn looks_like(token: &str) -> bool {
    token.len() <= 16 << 10 && token.starts_with("eyJ") && token.bytes().filter(|byte| *byte == b'.').count() == 2
}

#[derive(Default, Deserialize, Serialize)]
#[serde(default)]
struct Claims {
    sub: String,
    iat: u64,
    exp: u64,
    openstack_methods: Vec<String>,
    openstack_audit_ids: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    openstack_system: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    openstack_domain_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    openstack_project_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    openstack_trust_id: Option<String>,
    /// Objects with an id, as Keystone writes them.
    #[serde(skip_serializing_if = "Option::is_none")]
    openstack_group_ids: Option<Vec<Value>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    openstack_idp_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    openstack_protocol_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    openstack_access_token_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    openstack_app_cred_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    openstack_thumbprint: Option<String>,
}

fn project(id: &ProjectId) -> Option<String> {
    Some(id.to_string()).filter(|id| !id.is_empty())
}

impl Claims {
    fn of(payload: &Payload, second: u64) -> Claims {
        let mut claims = Claims {
            sub: payload.user.to_string(),
            iat: second,
            exp: u64::try_from(payload.expires.micros() / 1_000_000).unwrap_or(0),
            openstack_methods: payload.methods.names().into_iter().map(str::to_owned).collect(),
            openstack_audit_ids: payload.audit.iter().map(AuditId::to_string).collect(),
            ..Claims::default()
        };
        match &payload.scope {
            Scope::Unscoped => {}
            Scope::System => claims.openstack_system = Some("all".into()),
            Scope::Domain(id) => claims.openstack_domain_id = Some(id.to_string()),
            Scope::Project(id) => claims.openstack_project_id = project(id),
            Scope::Trust { project: id, trust } => {
                (claims.openstack_project_id, claims.openstack_trust_id) = (project(id), Some(trust.clone()));
            }
            Scope::Oauth { project: id, access_token } => {
                claims.openstack_project_id = project(id);
                claims.openstack_access_token_id = Some(access_token.clone());
            }
            Scope::ApplicationCredential { project: id, id: credential } => {
                claims.openstack_project_id = project(id);
                claims.openstack_app_cred_id = Some(credential.clone());
            }
            Scope::Oauth2 { project: id, domain, thumbprint } => {
                claims.openstack_project_id = project(id);
                claims.openstack_domain_id = Some(domain.to_string());
                claims.openstack_thumbprint = Some(thumbprint.clone());
            }
            Scope::Federated { scope, groups, provider, protocol } => {
                match scope {
                    FederatedScope::Unscoped => {}
                    FederatedScope::Project(id) => claims.openstack_project_id = project(id),
                    FederatedScope::Domain(id) => claims.openstack_domain_id = Some(id.to_string()),
                }
                claims.openstack_group_ids = Some(groups.iter().map(|id| json!({ "id": id })).collect());
                claims.openstack_idp_id = Some(provider.clone());
                claims.openstack_protocol_id = Some(protocol.clone());
            }
        }
        claims
    }

    /// None for what is no statement about a token.
    fn payload(self) -> Option<Payload> {
        let audit = self.openstack_audit_ids.iter().map(|id| AuditId::parse(id)).collect::<Option<Vec<_>>>()?;
        let methods = self.openstack_methods.iter().map(|name| Methods::named(name));
        let id = self.openstack_project_id.clone().map(ProjectId::new);
        let domain = self.openstack_domain_id.clone().map(DomainId::new);
        let none = || ProjectId::new("");
        let scope = if let Some(trust) = self.openstack_trust_id {
            Scope::Trust { project: id.unwrap_or_else(none), trust }
        } else if let Some(credential) = self.openstack_app_cred_id {
            Scope::ApplicationCredential { project: id?, id: credential }
        } else if let Some(access_token) = self.openstack_access_token_id {
            Scope::Oauth { project: id?, access_token }
        } else if let Some(thumbprint) = self.openstack_thumbprint {
            Scope::Oauth2 { project: id.unwrap_or_else(none), domain: domain.unwrap_or_else(|| DomainId::new("")), thumbprint }
        } else if let Some(provider) = self.openstack_idp_id {
            let group = |group: Value| {
                let id = group.get("id").cloned().unwrap_or(group);
                id.as_str().map(str::to_owned)
            };
            let groups = self.openstack_group_ids.unwrap_or_default().into_iter().map(group).collect::<Option<_>>()?;
            let scope = match (id, domain) {
                (Some(id), _) => FederatedScope::Project(id),
                (None, Some(domain)) => FederatedScope::Domain(domain),
                (None, None) => FederatedScope::Unscoped,
            };
            Scope::Federated { scope, groups, provider, protocol: self.openstack_protocol_id? }
        } else if self.openstack_system.is_some() {
            (self.openstack_system.as_deref() == Some("all")).then_some(Scope::System)?
        } else {
            match (id, domain) {
                (Some(id), _) => Scope::Project(id),
                (None, Some(domain)) => Scope::Domain(domain),
                (None, None) => Scope::Unscoped,
            }
        };
        let expires = Timestamp(i64::try_from(self.exp).ok()?.checked_mul(1_000_000)?);
        let methods = methods.fold(Methods::default(), Methods::with);
        let payload = Payload { user: UserId::new(self.sub), methods, scope, expires, audit };
        (!payload.audit.is_empty() && !payload.user.is_empty()).then_some(payload)
    }
}

/// Signs a statement.
pub fn seal(ring: &Ring, payload: &Payload, second: u64) -> Result<String> {
    let signer = ring.signer.as_ref().ok_or_else(|| Fault::bug("there are no keys for signed tokens"))?;
    let claims = serde_json::to_vec(&Claims::of(payload, second))
        .map_err(|error| Fault::bug("a token's claims cannot be written").because(error))?;
    let head = URL_SAFE.encode(r#"{"alg":"ES256","typ":"JWT"}"#);
    let signed = format!("{head}.{}", URL_SAFE.encode(claims));
    let signature = signer.sign(&SystemRandom::new(), signed.as_bytes());
    let signature = signature.map_err(|_| Fault::bug("the system gives no randomness for a signature"))?;
    Ok(format!("{signed}.{}", URL_SAFE.encode(signature.as_ref())))
}

/// The statement and the second of its making; none unless one of the keys has signed it.
pub fn open(ring: &Ring, token: &str) -> Option<(Payload, u64)> {
    let jwt = Jwt::parse(token).filter(|jwt| jwt.algorithm == Algorithm::Es256)?;
    let claims = Value::Object(jwt.signed_by(&ring.public)?.clone());
    let claims = Claims::deserialize(claims).ok()?;
    let second = claims.iat;
    Some((claims.payload()?, second))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Keys and tokens of a real Keystone; `tests/conformance/golden-jws` writes them.
    const GOLDEN: &str = include_str!("jws_golden.json");

    fn ring(private: &str) -> Ring {
        let point = point(&public_of(private).unwrap()).unwrap();
        Ring {
            signer: Some(Arc::new(pair(private).unwrap())),
            public: vec![Key::on_p256(point.clone())],
            points: vec![point],
        }
    }

    #[test]
    fn reads_what_keystone_signed_and_says_the_same() {
        let golden: Value = serde_json::from_str(GOLDEN).unwrap();
        let (private, public) = (golden["private"].as_str().unwrap(), golden["public"].as_str().unwrap());
        assert_eq!(public_of(private).unwrap(), public);
        let ring = ring(private);
        let tokens = golden["tokens"].as_array().unwrap();
        assert_eq!(tokens.len(), 9);
        for case in tokens {
            let text = case["token"].as_str().unwrap();
            assert!(looks_like(text));
            let (payload, second) = open(&ring, text).unwrap_or_else(|| panic!("{case}"));
            let ours = seal(&ring, &payload, second).unwrap();
            let claims = |token: &str| -> Value {
                serde_json::from_slice(&URL_SAFE.decode(token.split('.').nth(1).unwrap()).unwrap()).unwrap()
            };
            assert_eq!(claims(&ours), claims(text), "{}", case["what"]);
            assert_eq!(open(&ring, &ours), Some((payload, second)));
        }
    }

    #[test]
    fn another_key_or_a_bent_token_opens_nothing() {
        let (one, two) = (ring(&generate().unwrap()), ring(&generate().unwrap()));
        assert!(one.differs(&two) && !one.is_empty());
        let payload = Payload {
            user: "u".into(),
            methods: Methods::PASSWORD,
            scope: Scope::Unscoped,
            expires: Timestamp(1_700_000_000_000_000),
            audit: vec![AuditId([1; 16])],
        };
        let token = seal(&one, &payload, 7).unwrap();
        assert_eq!(open(&one, &token), Some((payload, 7)));
        assert_eq!(open(&two, &token), None);
        for at in [10, 60, token.len() - 10] {
            let mut bent = token.clone().into_bytes();
            bent[at] = if bent[at] == b'A' { b'B' } else { b'A' };
            assert_eq!(open(&one, &String::from_utf8(bent).unwrap()), None, "{at}");
        }
        assert!(pair("nonsense").is_err() && point("nonsense").is_err());
    }
}
