//! Requests that were signed with an EC2 key, as their receivers hand them in: Amazon's signature versions 2 and 4, and
//! the two of S3.
//!
//! Versions 0 and 1 are not taken: whoever has seen one such signature can make others.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use hmac::{Hmac, Mac};
use serde::Deserialize;
use serde_json::{Map, Value};
use sha1::Sha1;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

/// What was signed, and the signature.
#[derive(Deserialize)]
#[serde(expecting = "an object")]
pub struct Signed {
    pub access: Option<String>,
    signature: Option<String>,
    #[serde(default)]
    host: String,
    #[serde(default)]
    verb: String,
    #[serde(default)]
    path: String,
    #[serde(default)]
    body_hash: String,
    #[serde(default)]
    params: Map<String, Value>,
    #[serde(default)]
    headers: Map<String, Value>,
    /// Of S3: URL-safe base64 of the text that was signed.
    token: Option<String>,
}

/// The services of S3's signatures of version 4.
const S3_SERVICES: [&str; 3] = ["s3", "iam", "sts"];

impl Signed {
    /// When it was signed, if it says so.
    pub fn at(&self) -> Option<&str> {
        let of = [(&self.params, "Timestamp"), (&self.headers, "X-Amz-Date"), (&self.params, "X-Amz-Date")];
        of.into_iter().find_map(|(map, name)| map.get(name).and_then(Value::as_str).filter(|text| !text.is_empty()))
    }

    /// An EC2 request that this secret has signed. Some clients leave the port out of what they sign.
    pub fn holds_for_ec2(&self, secret: &str) -> bool {
        let Some(given) = self.signature.as_deref().filter(|signature| !signature.is_empty()) else { return false };
        let bare = self.host.rsplit_once(':').map(|(host, _)| host.trim_matches(['[', ']']).to_lowercase());
        let hosts = std::iter::once(self.host.clone()).chain(bare);
        let holds = hosts.filter_map(|host| self.ec2(secret, &host)).filter(|wanted| same(wanted, given)).count();
        holds > 0
    }

    /// A request to S3 that this secret has signed.
    pub fn holds_for_s3(&self, secret: &str) -> bool {
        let (Some(token), Some(given)) = (&self.token, &self.signature) else { return false };
        let Ok(text) = crate::token::fernet::URL_SAFE.decode(token) else { return false };
        let wanted = if text.starts_with(b"AWS4") { s3_v4(secret, &text) } else { Some(s3_v1(secret, &text)) };
        wanted.is_some_and(|wanted| same(&wanted, given))
    }

    fn ec2(&self, secret: &str, host: &str) -> Option<String> {
        match self.param("SignatureVersion").as_deref() {
            Some("2") => Some(self.v2(secret, host)),
            None if self.is_v4() => self.v4(secret),
            _ => None,
        }
    }

    fn param(&self, name: &str) -> Option<String> {
        self.params.get(name).map(plain)
    }

    fn is_v4(&self) -> bool {
        let header = self.headers.get("Authorization").and_then(Value::as_str);
        header.is_some_and(|header| header.starts_with("AWS4-HMAC-SHA256"))
            || self.param("X-Amz-Algorithm").as_deref() == Some("AWS4-HMAC-SHA256")
    }

    fn v2(&self, secret: &str, host: &str) -> String {
        let mut params = self.params.clone();
        params.insert("SignatureMethod".into(), "HmacSHA256".into());
        let text = format!("{}\n{host}\n{}\n{}", self.verb, self.path, canonical_query(&params));
        BASE64_STANDARD.encode(sha256_mac(secret.as_bytes(), text.as_bytes()))
    }

    /// Part of the header `Authorization`, or of the query.
    fn part(&self, name: &str) -> Option<String> {
        match self.headers.get("Authorization").and_then(Value::as_str) {
            Some(header) => {
                let (_, rest) = header.split_once(&format!("{name}="))?;
                Some(rest.split(',').next().unwrap_or_default().to_owned())
            }
            None => self.param(&format!("X-Amz-{name}")),
        }
    }

    fn v4(&self, secret: &str) -> Option<String> {
        let signed = self.part("SignedHeaders")?;
        let credential = self.part("Credential")?;
        let (_, scope) = credential.split_once('/')?;
        let mut parts = scope.split('/');
        let (date, region, service) = (parts.next()?, parts.next()?, parts.next()?);
        let at = self.headers.get("X-Amz-Date").map(plain).or_else(|| self.param("X-Amz-Date"))?;
        if date.is_empty() || !at.starts_with(date) {
            return None;
        }
        let verb = self.verb.to_uppercase();
        let query = if verb == "POST" { String::new() } else { canonical_query(&self.params) };
        let headers = self.canonical_headers(&signed);
        let request = format!("{verb}\n{}\n{query}\n{headers}\n{signed}\n{}", self.path, self.body_hash);
        let text = format!("AWS4-HMAC-SHA256\n{at}\n{scope}\n{}", hex(&Sha256::digest(request)));
        Some(hex(&sha256_mac(&v4_key(secret, date, region, service), text.as_bytes())))
    }

    fn canonical_headers(&self, signed: &str) -> String {
        let header = |name: &str| self.headers.iter().find(|(key, _)| key.trim().eq_ignore_ascii_case(name));
        let lines = signed.split(';').filter_map(|name| {
            let (_, value) = header(name)?;
            Some(format!("{name}:{}\n", plain(value).trim()))
        });
        let text: String = lines.collect();
        if text.is_empty() { "\n".into() } else { text }
    }
}

/// A value's text: numbers as they are written.
fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// Sorted, and escaped as Amazon has it.
fn canonical_query(params: &Map<String, Value>) -> String {
    let mut keys: Vec<&String> = params.keys().collect();
    keys.sort();
    let pairs: Vec<String> = keys
        .into_iter()
        .map(|key| format!("{}={}", crate::escape::percent(key), crate::escape::percent(&plain(&params[key]))))
        .collect();
    pairs.join("&")
}

fn v4_key(secret: &str, date: &str, region: &str, service: &str) -> [u8; 32] {
    let first = sha256_mac(format!("AWS4{secret}").as_bytes(), date.as_bytes());
    [region, service, "aws4_request"].into_iter().fold(first, |key, part| sha256_mac(&key, part.as_bytes()))
}

fn s3_v1(secret: &str, text: &[u8]) -> String {
    let mac = <Hmac<Sha1> as Mac>::new_from_slice(secret.as_bytes()).expect("HMAC takes keys of every length");
    BASE64_STANDARD.encode(mac.chain_update(text).finalize().into_bytes())
}

fn s3_v4(secret: &str, text: &[u8]) -> Option<String> {
    let lines: Vec<&str> = std::str::from_utf8(text).ok()?.split('\n').collect();
    let ["AWS4-HMAC-SHA256", _, scope, _] = lines[..] else { return None };
    let [date, region, service, "aws4_request"] = scope.split('/').collect::<Vec<_>>()[..] else { return None };
    if !S3_SERVICES.contains(&service) {
        return None;
    }
    Some(hex(&sha256_mac(&v4_key(secret, date, region, service), text)))
}

fn sha256_mac(key: &[u8], text: &[u8]) -> [u8; 32] {
    let mac = <Hmac<Sha256> as Mac>::new_from_slice(key).expect("HMAC takes keys of every length");
    mac.chain_update(text).finalize().into_bytes().into()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Tells nothing by the time it takes, but whether the lengths differ.
fn same(one: &str, other: &str) -> bool {
    one.as_bytes().ct_eq(other.as_bytes()).into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn signed(value: Value) -> Signed {
        serde_json::from_value(value).unwrap()
    }

    /// What keystoneclient 5.7's `Ec2Signer` makes of the same requests.
    #[test]
    fn agrees_with_keystones_own_client() {
        let v2 = signed(json!({"access": "a", "signature": V2, "host": "ec2.example.com:8773", "verb": "GET",
            "path": "/services/Cloud", "params": {"SignatureVersion": "2", "Action": "Foo", "Key": "a b/~ü&=",
            "Timestamp": "2026-01-02T03:04:05Z", "Number": 7}}));
        assert!(v2.holds_for_ec2("c53ab51c0d4b4fd0a5ad2ca1fa3e0bd7") && !v2.holds_for_ec2("other"));
        assert_eq!(v2.at(), Some("2026-01-02T03:04:05Z"));
        let bare = signed(json!({"access": "a", "signature": V2_BARE, "host": "ec2.example.com:8773", "verb": "GET",
            "path": "/", "params": {"SignatureVersion": "2"}}));
        assert!(bare.holds_for_ec2("secret"), "signed without the port");
        let credential = "Credential=a/20260102/RegionOne/ec2/aws4_request";
        let authorization = format!("AWS4-HMAC-SHA256 {credential},SignedHeaders=host;x-amz-date,Signature=x");
        let v4 = signed(json!({"access": "a", "signature": V4, "host": "h", "verb": "get", "path": "/",
            "params": {"Action": "Foo", "b": "c d"}, "body_hash": "e3b0",
            "headers": {"Host": "h", "X-Amz-Date": "20260102T030405Z", "Authorization": authorization}}));
        assert!(v4.holds_for_ec2("secret") && !v4.holds_for_ec2("Secret"));
    }

    #[test]
    fn s3_signs_a_text() {
        let url = |text: &str| crate::token::fernet::URL_SAFE.encode(text);
        let v1 = signed(json!({"access": "a", "token": url("GET\n\n\nThu\n/bucket"), "signature": S3_V1}));
        assert!(v1.holds_for_s3("secret") && !v1.holds_for_s3("secreT"));
        let text = "AWS4-HMAC-SHA256\n20260102T030405Z\n20260102/RegionOne/s3/aws4_request\nabc";
        let v4 = signed(json!({"access": "a", "token": url(text), "signature": S3_V4}));
        assert!(v4.holds_for_s3("secret") && !v4.holds_for_s3("secreT"));
        let other = signed(json!({"token": url(&text.replace("/s3/", "/ec2/")), "signature": S3_V4}));
        assert!(!other.holds_for_s3("secret"), "another service");
    }

    #[test]
    fn what_is_no_signature_is_refused() {
        for bad in [
            json!({}),
            json!({"signature": ""}),
            json!({"signature": "x", "params": {"SignatureVersion": "1"}}),
            json!({"signature": "x", "params": {"SignatureVersion": "0", "Action": "a", "Timestamp": "b"}}),
            json!({"signature": "x", "headers": {"Authorization": "AWS4-HMAC-SHA256"}}),
            json!({"signature": "x", "token": "%%", "params": {"X-Amz-Algorithm": "AWS4-HMAC-SHA256"}}),
        ] {
            let bad = signed(bad);
            assert!(!bad.holds_for_ec2("secret") && !bad.holds_for_s3("secret"));
        }
    }

    const V2: &str = "DeJb7A8amdMNacDt9e00Ddq6kT+gHd/ITm5FCoIHZjk=";
    const V2_BARE: &str = "SJw6AniDBote5p5EwYrikIoEYHXKzaiS3LIkELzHO3U=";
    const V4: &str = "4124619e3d8ad6d30aaa309cfcf438be56d73d985c335a5217d287bda31afcb7";
    const S3_V1: &str = "a8qQGapTpyiKOccJ72GXznqBBA0=";
    const S3_V4: &str = "653eb43f84a285f4a82db9c114b0e479692841b71aec23b87a0421ea59ce36f0";
}
