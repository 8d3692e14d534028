//! What is derived from a client's key: the id of its record, a digest of the body, and the seal of the answer.
//!
//! All three come from HKDF-SHA256 over the key, with the scope of the request (project, user, method, path) as salt, so
//! the same key in another scope is another record, and none of the three tells another. The answer, which may hold a
//! password or a private key, is sealed with ChaCha20-Poly1305: whoever reads the store without the client's key reads
//! nothing of it. A key that can be guessed protects nothing; clients are told to draw a UUID.

use super::record::Sealed;
use base::{Env, Fault, RequestId, Result};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use rest::{Answer, Keyed};
use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::{hkdf, hmac};
use serde::{Deserialize, Serialize};

/// The secrets of one key in one scope. Lives as long as its request.
pub(super) struct Secret {
    id: [u8; 32],
    body: [u8; 32],
    answer: [u8; 32],
}

/// An answer before it is sealed.
#[derive(Serialize, Deserialize)]
struct Plain {
    status: u16,
    headers: Vec<(String, String)>,
    body: String,
}

impl Secret {
    pub fn of(keyed: &Keyed) -> Result<Secret> {
        let mut scope = Vec::new();
        for part in [&keyed.project, &keyed.user, keyed.method.as_str(), &keyed.path] {
            scope.extend((part.len() as u64).to_be_bytes());
            scope.extend(part.as_bytes());
        }
        let drawn = hkdf::Salt::new(hkdf::HKDF_SHA256, &scope).extract(keyed.key.as_bytes());
        Ok(Secret {
            id: expand(&drawn, b"nubo idempotency id")?,
            body: expand(&drawn, b"nubo idempotency body")?,
            answer: expand(&drawn, b"nubo idempotency answer")?,
        })
    }

    /// The id of the record, in hex.
    pub fn id(&self) -> String {
        hex(&self.id)
    }

    /// The digest of a request's meaning: its query, version and body.
    pub fn digest(&self, meaning: &str, body: &[u8]) -> String {
        let mut context = hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA256, &self.body));
        context.update(&(meaning.len() as u64).to_be_bytes());
        context.update(meaning.as_bytes());
        context.update(body);
        hex(context.sign().as_ref())
    }

    pub fn seal(&self, answer: &Answer, request: &RequestId, env: &Env) -> Result<Sealed> {
        let body = BASE64_STANDARD.encode(&answer.body);
        let plain = Plain { status: answer.status, headers: answer.headers.clone(), body };
        let mut text = serde_json::to_vec(&plain).map_err(|error| Fault::bug("an answer is no JSON").because(error))?;
        let mut nonce = [0; NONCE_LEN];
        env.random.fill(&mut nonce);
        let seal = self.key()?.seal_in_place_append_tag(at(nonce), aad(request), &mut text);
        seal.map_err(|_| Fault::bug("an answer cannot be sealed"))?;
        Ok(Sealed { nonce: BASE64_STANDARD.encode(nonce), text: BASE64_STANDARD.encode(text) })
    }

    /// # Errors
    /// Bug when the seal is broken: the digest of the body, which came from the same key, was right.
    pub fn open(&self, sealed: &Sealed, request: &RequestId) -> Result<Answer> {
        let broken = || Fault::bug("the seal of a kept answer is broken");
        let nonce = BASE64_STANDARD.decode(&sealed.nonce).ok().and_then(|nonce| nonce.try_into().ok());
        let mut text = BASE64_STANDARD.decode(&sealed.text).map_err(|_| broken())?;
        let text = self.key()?.open_in_place(at(nonce.ok_or_else(broken)?), aad(request), &mut text);
        let plain: Plain = serde_json::from_slice(text.map_err(|_| broken())?).map_err(|_| broken())?;
        let body = BASE64_STANDARD.decode(plain.body).map_err(|_| broken())?;
        Ok(Answer { status: plain.status, headers: plain.headers, body: Bytes::from(body) })
    }

    fn key(&self) -> Result<LessSafeKey> {
        let key = UnboundKey::new(&CHACHA20_POLY1305, &self.answer);
        key.map(LessSafeKey::new).map_err(|_| Fault::bug("a key has 32 bytes"))
    }
}

fn at(nonce: [u8; NONCE_LEN]) -> Nonce {
    Nonce::assume_unique_for_key(nonce)
}

fn aad(request: &RequestId) -> Aad<&[u8]> {
    Aad::from(request.as_str().as_bytes())
}

/// 32 bytes are one block of the hash, so there are never too many of them.
fn expand(from: &hkdf::Prk, purpose: &[u8]) -> Result<[u8; 32]> {
    let mut key = [0; 32];
    let purpose = [purpose];
    let filled = from.expand(&purpose, hkdf::HKDF_SHA256).and_then(|okm| okm.fill(&mut key));
    filled.map_err(|_| Fault::bug("32 bytes are derived from a key"))?;
    Ok(key)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keyed(key: &str, project: &str, user: &str, path: &str) -> Keyed {
        Keyed {
            key: key.into(),
            project: project.into(),
            user: user.into(),
            method: rest::Method::POST,
            path: path.into(),
            meaning: String::new(),
            body: Bytes::new(),
            request_id: "req-1".into(),
        }
    }

    #[test]
    fn another_scope_or_key_is_another_record() {
        let scopes = [("k", "p", "u", "/a"), ("l", "p", "u", "/a"), ("k", "q", "u", "/a"), ("k", "p", "v", "/a")];
        let scopes = scopes.into_iter().chain([("k", "p", "u", "/b"), ("k", "pu", "", "/a")]);
        let ids: Vec<String> = scopes.map(|(k, p, u, path)| Secret::of(&keyed(k, p, u, path)).unwrap().id()).collect();
        let unique: std::collections::BTreeSet<_> = ids.iter().collect();
        assert_eq!(unique.len(), ids.len());
        assert_eq!(ids[0], Secret::of(&keyed("k", "p", "u", "/a")).unwrap().id());
    }

    #[test]
    fn only_the_same_key_and_request_open_an_answer() {
        let secret = Secret::of(&keyed("k", "p", "u", "/a")).unwrap();
        let answer =
            Answer { status: 202, headers: vec![("location".into(), "x".into())], body: Bytes::from("adminPass") };
        let sealed = secret.seal(&answer, &"req-1".into(), &Env::system()).unwrap();
        assert!(!format!("{sealed:?}").contains("adminPass"));
        assert_eq!(secret.open(&sealed, &"req-1".into()).unwrap(), answer);
        assert!(secret.open(&sealed, &"req-2".into()).is_err());
        assert!(Secret::of(&keyed("l", "p", "u", "/a")).unwrap().open(&sealed, &"req-1".into()).is_err());
    }

    #[test]
    fn the_digest_tells_bodies_and_meanings_apart() {
        let secret = Secret::of(&keyed("k", "p", "u", "/a")).unwrap();
        let digests = [secret.digest("a", b"bc"), secret.digest("ab", b"c"), secret.digest("a", b"bd")];
        assert!(digests[0] != digests[1] && digests[0] != digests[2]);
        assert_eq!(digests[0], secret.digest("a", b"bc"));
    }
}
