//! Who this cloud is to service providers: the settings of `[saml]`, in Keystone's words, and the key that signs.

use crate::token::jws::der;
use base::{Fault, Result};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use ring::rand::SystemRandom;
use ring::signature::{KeyPair, RSA_PKCS1_SHA256, RsaKeyPair};
use serde::Deserialize;
use std::path::PathBuf;

const URI_CHARS: usize = 1024;
/// An assertion that lasts longer is a password.
const LASTS_S: u32 = 86_400;
const CONTACTS: [&str; 5] = ["technical", "support", "administrative", "billing", "other"];

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// PEM, of the key.
    pub certfile: PathBuf,
    /// PEM: PKCS#8 or PKCS#1, RSA of 2048 to 4096 bits, without a password.
    pub keyfile: PathBuf,
    pub idp_entity_id: String,
    pub idp_sso_endpoint: String,
    #[serde(default = "usual_life")]
    pub assertion_expiration_time: u32,
    /// Of service providers that are made without one.
    #[serde(default = "usual_prefix")]
    pub relay_state_prefix: String,
    #[serde(default = "usual_lang")]
    pub idp_lang: String,
    pub idp_organization_name: Option<String>,
    pub idp_organization_display_name: Option<String>,
    pub idp_organization_url: Option<String>,
    pub idp_contact_company: Option<String>,
    pub idp_contact_name: Option<String>,
    pub idp_contact_surname: Option<String>,
    pub idp_contact_email: Option<String>,
    pub idp_contact_telephone: Option<String>,
    #[serde(default = "usual_contact")]
    pub idp_contact_type: String,
}

fn usual_life() -> u32 {
    3600
}

fn usual_prefix() -> String {
    "ss:mem:".into()
}

fn usual_lang() -> String {
    "en".into()
}

fn usual_contact() -> String {
    "other".into()
}

impl Settings {
    fn check(&self) -> Result<()> {
        for (name, uri) in [("idp_entity_id", &self.idp_entity_id), ("idp_sso_endpoint", &self.idp_sso_endpoint)] {
            let bad = |c: char| c.is_whitespace() || c.is_control();
            if !uri.contains(':') || uri.chars().count() > URI_CHARS || uri.contains(bad) {
                return Err(wrong(&format!("{name} is no URI of at most {URI_CHARS} characters: '{uri:.200}'")));
            }
        }
        if !(1..=LASTS_S).contains(&self.assertion_expiration_time) {
            return Err(wrong(&format!("assertion_expiration_time lies outside 1 to {LASTS_S} seconds")));
        }
        if !CONTACTS.contains(&self.idp_contact_type.as_str()) {
            return Err(wrong(&format!("idp_contact_type is none of {}", CONTACTS.join(", "))));
        }
        let of = [&self.idp_organization_name, &self.idp_organization_display_name, &self.idp_organization_url];
        if of.iter().any(|part| part.is_some()) && of.iter().any(|part| part.is_none()) {
            return Err(wrong("an organization has a name, a display name and a URL"));
        }
        base::limits::text("relay_state_prefix", &self.relay_state_prefix, 256)
    }
}

fn wrong(what: &str) -> Fault {
    Fault::invalid(format!("[saml] {what}."))
}

/// This cloud as an identity provider.
#[derive(Debug)]
pub struct Idp {
    pub settings: Settings,
    /// Base64 of DER.
    pub certificate: String,
    key: RsaKeyPair,
}

impl Idp {
    /// From what the two files hold. Invalid where they do not fit each other, or the settings cannot be kept.
    pub fn new(settings: Settings, certificate: &str, key: &str) -> Result<Idp> {
        settings.check()?;
        let certificate = der(certificate, "CERTIFICATE").ok_or_else(|| wrong("certfile holds no certificate in PEM"))?;
        let key = match (der(key, "PRIVATE KEY"), der(key, "RSA PRIVATE KEY")) {
            (Some(key), _) => RsaKeyPair::from_pkcs8(&key),
            (None, Some(key)) => RsaKeyPair::from_der(&key),
            (None, None) => return Err(wrong("keyfile holds no private key in PEM")),
        };
        let key = key.map_err(|error| wrong(&format!("keyfile holds no RSA key that is taken here: {error}")))?;
        let public = key.public_key().as_ref();
        if !certificate.windows(public.len()).any(|part| part == public) {
            return Err(wrong("the certificate in certfile is not of the key in keyfile"));
        }
        Ok(Idp { settings, certificate: BASE64_STANDARD.encode(certificate), key })
    }

    /// RSASSA-PKCS1-v1_5 with SHA-256, in base64.
    pub fn sign(&self, text: &str) -> Result<String> {
        let mut signature = vec![0; self.key.public().modulus_len()];
        let done = self.key.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), text.as_bytes(), &mut signature);
        done.map_err(|_| Fault::bug("the system gives no randomness for a signature"))?;
        Ok(BASE64_STANDARD.encode(signature))
    }
}
