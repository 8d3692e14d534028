//! Signed tokens of others (JWS in compact form, RFC 7515) and the keys they are held against (JWK sets, RFC 7517).
//!
//! RS256 and ES256 and nothing else: what a token says of its algorithm only chooses among keys that are of that
//! algorithm themselves, so no token can have one key taken for another kind.

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use ring::signature;
use serde::Deserialize;
use serde_json::{Map, Value};

/// The longest token that is looked at.
const TOKEN_BYTES: usize = 16 << 10;
/// The most keys of a set.
const KEYS: usize = 64;

/// A token in its parts. Nothing of it holds before [`Jwt::signed_by`] says so.
pub struct Jwt<'a> {
    pub algorithm: Algorithm,
    pub key_id: Option<String>,
    claims: Map<String, Value>,
    signed: &'a str,
    signature: Vec<u8>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Algorithm {
    Rs256,
    Es256,
}

#[derive(Deserialize)]
struct Header {
    alg: String,
    kid: Option<String>,
    crit: Option<Value>,
}

/// A public key.
#[derive(Clone, Debug)]
pub struct Key {
    pub id: Option<String>,
    public: Public,
}

#[derive(Clone, Debug)]
enum Public {
    Rsa { n: Vec<u8>, e: Vec<u8> },
    /// Uncompressed, on P-256.
    Ec(Vec<u8>),
}

fn bytes(text: &str) -> Option<Vec<u8>> {
    BASE64_URL_SAFE_NO_PAD.decode(text).ok()
}

impl<'a> Jwt<'a> {
    /// None for what has not the form, an algorithm that is not taken, or extensions that must be understood.
    pub fn parse(token: &'a str) -> Option<Jwt<'a>> {
        let (signed, signature) = token.rsplit_once('.').filter(|_| token.len() <= TOKEN_BYTES)?;
        let (header, claims) = signed.split_once('.')?;
        let header: Header = serde_json::from_slice(&bytes(header)?).ok()?;
        let algorithm = match header.alg.as_str() {
            "RS256" => Algorithm::Rs256,
            "ES256" => Algorithm::Es256,
            _ => return None,
        };
        if header.crit.is_some() {
            return None;
        }
        let claims: Map<String, Value> = rest::from_slice(&bytes(claims)?).ok()?;
        Some(Jwt { algorithm, key_id: header.kid, claims, signed, signature: bytes(signature)? })
    }

    /// Who says to have made it: to choose whose keys it is held against, and for nothing else.
    pub fn claimed_issuer(&self) -> Option<&str> {
        self.claims.get("iss")?.as_str()
    }

    /// What it says, if one of the keys that may be meant has signed it.
    pub fn signed_by(&self, keys: &[Key]) -> Option<&Map<String, Value>> {
        let meant = |key: &&Key| self.key_id.is_none() || key.id.is_none() || key.id == self.key_id;
        keys.iter().filter(meant).any(|key| key.has_signed(self)).then_some(&self.claims)
    }

    /// Whether the set has a key that the token may mean.
    pub fn is_known_to(&self, keys: &[Key]) -> bool {
        keys.iter().any(|key| self.key_id.is_none() || key.id.is_none() || key.id == self.key_id)
    }
}

impl Key {
    /// On P-256, uncompressed.
    pub fn on_p256(point: Vec<u8>) -> Key {
        Key { id: None, public: Public::Ec(point) }
    }

    fn has_signed(&self, token: &Jwt) -> bool {
        let (message, signature) = (token.signed.as_bytes(), token.signature.as_slice());
        match (&self.public, token.algorithm) {
            (Public::Rsa { n, e }, Algorithm::Rs256) => signature::RsaPublicKeyComponents { n, e }
                .verify(&signature::RSA_PKCS1_2048_8192_SHA256, message, signature)
                .is_ok(),
            (Public::Ec(point), Algorithm::Es256) => {
                let key = signature::UnparsedPublicKey::new(&signature::ECDSA_P256_SHA256_FIXED, point);
                key.verify(message, signature).is_ok()
            }
            _ => false,
        }
    }

    /// None for a key that is for something else, or of a kind that is not taken.
    fn of(jwk: Jwk) -> Option<Key> {
        if jwk.purpose.is_some_and(|purpose| purpose != "sig") {
            return None;
        }
        let alg = jwk.alg.as_deref();
        let public = match jwk.kty.as_str() {
            "RSA" if alg.is_none_or(|alg| alg == "RS256") => {
                Public::Rsa { n: bytes(&jwk.n?)?, e: bytes(&jwk.e?)? }
            }
            "EC" if jwk.crv.as_deref() == Some("P-256") && alg.is_none_or(|alg| alg == "ES256") => {
                let (x, y) = (bytes(&jwk.x?)?, bytes(&jwk.y?)?);
                if x.len() != 32 || y.len() != 32 {
                    return None;
                }
                Public::Ec([&[4], x.as_slice(), y.as_slice()].concat())
            }
            _ => return None,
        };
        Some(Key { id: jwk.kid, public })
    }
}

#[derive(Deserialize)]
struct Jwk {
    kty: String,
    kid: Option<String>,
    alg: Option<String>,
    #[serde(rename = "use")]
    purpose: Option<String>,
    crv: Option<String>,
    n: Option<String>,
    e: Option<String>,
    x: Option<String>,
    y: Option<String>,
}

/// The keys of a set that can be used here; none where it is no set.
pub fn keys(set: &[u8]) -> Option<Vec<Key>> {
    let set: Value = rest::from_slice(set).ok()?;
    let listed = set.get("keys")?.as_array()?;
    let usable = listed.iter().take(KEYS).filter_map(|key| Jwk::deserialize(key).ok()).filter_map(Key::of);
    Some(usable.collect())
}
