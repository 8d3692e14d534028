//! Signed requests (RFC 5849): read from the header `Authorization`, checked with the secrets of both sides.
//!
//! HMAC-SHA1 and HMAC-SHA256. PLAINTEXT would send secrets along, and nobody has keys for RSA here: neither is taken.

use crate::escape::{percent, unescape};
use base::{Fault, Result, Timestamp};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use hmac::{Hmac, Mac};
use rest::Call;
use sha1::Sha1;
use sha2::Sha256;
use subtle::ConstantTimeEq;

/// The longest header and the most parameters that are read.
const HEADER_BYTES: usize = 8192;
const PARAMETERS: usize = 64;
/// How far a client's clock may be off.
const SKEW_S: i64 = 600;

/// A request with an OAuth header.
pub(crate) struct SignedRequest {
    method: String,
    /// Where the client may have sent it: by the cloud's public address, and by the one that it used.
    urls: Vec<String>,
    /// Of header and query, without escapes, in the order in which they came.
    parameters: Vec<(String, String)>,
    now: Timestamp,
}

impl SignedRequest {
    /// None without such a header.
    pub(crate) fn of(call: &Call) -> Result<Option<SignedRequest>> {
        let Some(header) = call.header("authorization") else { return Ok(None) };
        let Some(rest) = strip_scheme(header) else { return Ok(None) };
        let wrong =
            || Fault::invalid("Invalid header 'Authorization': right is OAuth name=\"value\", name=\"value\", ….");
        if rest.len() > HEADER_BYTES {
            return Err(wrong());
        }
        let mut parameters = Vec::new();
        for part in rest.split(',').map(str::trim).filter(|part| !part.is_empty()) {
            let (name, value) = part.split_once('=').ok_or_else(wrong)?;
            let value = value.trim().strip_prefix('"').and_then(|value| value.strip_suffix('"')).ok_or_else(wrong)?;
            let pair = unescape(name.trim()).zip(unescape(value)).ok_or_else(wrong)?;
            if parameters.iter().any(|(known, _): &(String, String)| *known == pair.0) {
                return Err(Fault::invalid(format!("Invalid header 'Authorization': {} stands there twice.", pair.0)));
            }
            parameters.push(pair);
        }
        parameters.extend(call.query.iter().map(|(name, value)| (name.to_owned(), value.to_owned())));
        if parameters.len() > PARAMETERS {
            return Err(wrong());
        }
        let mut urls = vec![url(&call.base_url, &call.path)];
        if let Some(host) = call.header("host") {
            urls.extend(["http", "https"].map(|scheme| url(&format!("{scheme}://{host}"), &call.path)));
        }
        let method = call.method.as_str().to_owned();
        Ok(Some(SignedRequest { method, urls, parameters, now: call.now }))
    }

    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.parameters.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// Invalid where it is missing.
    pub(crate) fn need(&self, name: &'static str) -> Result<&str> {
        let missing = || Fault::invalid(format!("Expecting to find {name} in request."));
        self.get(name).filter(|value| !value.is_empty()).ok_or_else(missing)
    }

    /// Signed with these secrets, and lately. `token` is empty where the client has no token yet.
    pub(crate) fn holds(&self, consumer: &str, token: &str) -> bool {
        let Some(signature) = self.get("oauth_signature") else { return false };
        let at = self.get("oauth_timestamp").and_then(|text| text.parse::<i64>().ok());
        let fresh = at.is_some_and(|at| (self.now.micros() / 1_000_000).saturating_sub(at).abs() <= SKEW_S);
        let version = self.get("oauth_version").is_none_or(|version| version == "1.0");
        if !fresh || !version || self.get("oauth_nonce").is_none_or(str::is_empty) {
            return false;
        }
        let key = format!("{}&{}", percent(consumer), percent(token));
        let wanted = self.urls.iter().filter_map(|url| self.sign(&key, url));
        wanted.filter(|wanted| bool::from(wanted.as_bytes().ct_eq(signature.as_bytes()))).count() > 0
    }

    fn sign(&self, key: &str, url: &str) -> Option<String> {
        let text = format!("{}&{}&{}", self.method, percent(url), percent(&self.normalized()));
        let (key, text) = (key.as_bytes(), text.as_bytes());
        let bytes = match self.get("oauth_signature_method")? {
            "HMAC-SHA1" => {
                <Hmac<Sha1> as Mac>::new_from_slice(key).ok()?.chain_update(text).finalize().into_bytes().to_vec()
            }
            "HMAC-SHA256" => {
                <Hmac<Sha256> as Mac>::new_from_slice(key).ok()?.chain_update(text).finalize().into_bytes().to_vec()
            }
            _ => return None,
        };
        Some(BASE64_STANDARD.encode(bytes))
    }

    fn normalized(&self) -> String {
        let counts = |name: &str| name != "realm" && name != "oauth_signature";
        let counted = self.parameters.iter().filter(|(name, _)| counts(name));
        let mut pairs: Vec<(String, String)> = counted.map(|(name, value)| (percent(name), percent(value))).collect();
        pairs.sort();
        let pairs: Vec<String> = pairs.into_iter().map(|(name, value)| format!("{name}={value}")).collect();
        pairs.join("&")
    }
}

fn strip_scheme(header: &str) -> Option<&str> {
    let (scheme, rest) = header.trim().split_once(' ')?;
    scheme.eq_ignore_ascii_case("oauth").then_some(rest)
}

/// Scheme and host in small letters, without the port that the scheme has anyway.
fn url(base: &str, path: &str) -> String {
    let (scheme, rest) = base.split_once("://").unwrap_or(("http", base));
    let (host, below) = rest.find('/').map_or((rest, ""), |at| rest.split_at(at));
    let (scheme, host) = (scheme.to_ascii_lowercase(), host.to_ascii_lowercase());
    let usual = if scheme == "https" { ":443" } else { ":80" };
    let host = host.strip_suffix(usual).unwrap_or(&host);
    format!("{scheme}://{host}{below}{path}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(urls: &[&str], parameters: &[(&str, &str)], at: i64) -> SignedRequest {
        SignedRequest {
            method: "POST".into(),
            urls: urls.iter().map(|url| (*url).to_owned()).collect(),
            parameters: parameters.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
            now: Timestamp(at * 1_000_000),
        }
    }

    /// What oauthlib's client makes of the same request.
    #[test]
    fn agrees_with_oauthlib() {
        let of = |method: &'static str, signature: &'static str| {
            [
                ("realm", "x"),
                ("oauth_nonce", "137131201"),
                ("oauth_timestamp", "1767225600"),
                ("oauth_version", "1.0"),
                ("oauth_signature_method", method),
                ("oauth_consumer_key", "c"),
                ("oauth_token", "t"),
                ("oauth_signature", signature),
                ("b", "1 2"),
                ("a", "ü"),
            ]
        };
        for (method, signature) in [("HMAC-SHA1", SHA1), ("HMAC-SHA256", SHA256)] {
            let parameters = of(method, signature);
            let url = ["http://elsewhere/", "http://cloud:8774/identity/v3/auth/tokens"];
            assert!(request(&url, &parameters, 1_767_225_900).holds("cs", "ts"), "{method}");
            assert!(!request(&url, &parameters, 1_767_225_900).holds("cs", "tS"));
            assert!(!request(&url[..1], &parameters, 1_767_225_900).holds("cs", "ts"), "another address");
            assert!(!request(&url, &parameters, 1_767_226_201).holds("cs", "ts"), "too old");
        }
        let plain = of("PLAINTEXT", "cs&ts");
        assert!(!request(&["http://cloud:8774/identity/v3/auth/tokens"], &plain, 1_767_225_600).holds("cs", "ts"));
    }

    #[test]
    fn addresses_are_compared_as_they_are_meant() {
        for (base, expected) in [
            ("HTTP://Cloud:80", "http://cloud/p"),
            ("https://cloud:443", "https://cloud/p"),
            ("https://cloud:80", "https://cloud:80/p"),
            ("http://cloud/Below", "http://cloud/Below/p"),
        ] {
            assert_eq!(url(base, "/p"), expected);
        }
    }

    const SHA1: &str = "l9c9q9O/EaO0sUG0WNUppzezcNU=";
    const SHA256: &str = "o9nQYffMB9Fz/+6dPXYlvF2Rs2WvEVQQ4OHNcGF/cW8=";
}
