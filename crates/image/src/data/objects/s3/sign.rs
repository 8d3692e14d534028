//! Signatures of requests: AWS Signature Version 4 in the `Authorization` header.
//!
//! The hash of the body is signed as well, so that bytes that are damaged on their way are refused.

use hmac::{Hmac, Mac};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use sha2::{Digest, Sha256};

use super::super::super::transfer::hex;

/// What stands for itself in a canonical request.
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

pub struct Signer {
    pub access_key: String,
    pub secret: String,
    pub region: String,
}

/// A request before it is signed.
pub struct Unsigned<'a> {
    pub method: &'a str,
    /// Of characters that need no encoding.
    pub path: &'a str,
    /// As [`query`] wrote it.
    pub query: &'a str,
    /// Names in lower case, sorted.
    pub headers: &'a [(&'static str, String)],
    /// SHA-256 of the body in hex.
    pub payload: &'a str,
    /// `20261121T013832Z`
    pub at: &'a str,
}

impl Signer {
    /// The value of the header `Authorization`.
    pub fn authorize(&self, request: &Unsigned<'_>) -> String {
        let day = &request.at[..8];
        let scope = format!("{day}/{}/s3/aws4_request", self.region);
        let names: Vec<&str> = request.headers.iter().map(|(name, _)| *name).collect();
        let names = names.join(";");
        let lines = request.headers.iter().map(|(name, value)| format!("{name}:{}\n", value.trim()));
        let headers: String = lines.collect();
        let Unsigned { method, path, query, payload, .. } = request;
        let canonical = format!("{method}\n{path}\n{query}\n{headers}\n{names}\n{payload}");
        let text = format!("AWS4-HMAC-SHA256\n{}\n{scope}\n{}", request.at, hex(&Sha256::digest(canonical)));
        let mut key = keyed(format!("AWS4{}", self.secret).as_bytes(), day);
        for part in [&*self.region, "s3", "aws4_request"] {
            key = keyed(&key, part);
        }
        let (access_key, signature) = (&self.access_key, hex(&keyed(&key, &text)));
        format!("AWS4-HMAC-SHA256 Credential={access_key}/{scope}, SignedHeaders={names}, Signature={signature}")
    }
}

fn keyed(key: &[u8], text: &str) -> Vec<u8> {
    // HMAC takes keys of any length.
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(key) else { return Vec::new() };
    mac.update(text.as_bytes());
    mac.finalize().into_bytes().to_vec()
}

/// The query of a URL, in the order and the writing that are signed.
pub fn query(parts: &[(&str, &str)]) -> String {
    let encoded = |text: &str| utf8_percent_encode(text, ENCODED).to_string();
    let mut parts: Vec<String> =
        parts.iter().map(|(name, value)| format!("{}={}", encoded(name), encoded(value))).collect();
    parts.sort();
    parts.join("&")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The examples of "Signature Calculations for the Authorization Header" in Amazon's API reference.
    #[test]
    fn signatures_are_those_of_the_reference() {
        let signer = Signer {
            access_key: "AKIAIOSFODNN7EXAMPLE".to_owned(),
            secret: "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY".to_owned(),
            region: "us-east-1".to_owned(),
        };
        let empty = hex(&Sha256::digest(""));
        let at = "20130524T000000Z";
        let usual = [
            ("host", "examplebucket.s3.amazonaws.com".to_owned()),
            ("x-amz-content-sha256", empty.clone()),
            ("x-amz-date", at.to_owned()),
        ];
        let mut ranged = usual.to_vec();
        ranged.insert(1, ("range", "bytes=0-9".to_owned()));
        let listing = query(&[("prefix", "J"), ("max-keys", "2")]);
        for (path, query, headers, signature) in [
            ("/test.txt", "", &ranged[..], "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41"),
            ("/", &*listing, &usual[..], "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7"),
        ] {
            let request = Unsigned { method: "GET", path, query, headers, payload: &empty, at };
            let authorization = signer.authorize(&request);
            assert!(authorization.ends_with(&format!("Signature={signature}")), "{path}?{query}: {authorization}");
        }
    }

    #[test]
    fn queries_are_sorted_and_encoded() {
        assert_eq!(query(&[("uploads", ""), ("prefix", "a/b c~")]), "prefix=a%2Fb%20c~&uploads=");
    }
}
