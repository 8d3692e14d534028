//! One-time passwords by the clock (RFC 6238): six digits of HMAC-SHA1 over a count of half minutes, under a seed that a
//! user keeps as a credential of the type `totp`, in base32.

use super::issue::{Proof, find_user};
use super::methods::Methods;
use super::request;
use super::verify::refused;
use crate::Identity;
use crate::documents::*;
use base::Result;
use hmac::Mac;
use sha1::Sha1;
use store::Query;
use subtle::ConstantTimeEq;

const STEP_S: i64 = 30;
/// The present step, and Keystone's default of one before it.
const STEPS: i64 = 2;
/// The most seeds of one user that are tried.
const SEEDS: usize = 64;

impl Identity {
    /// Unauthenticated without a seed of the user that makes the code. Wrong codes count as failed logins.
    pub(crate) async fn by_totp(&self, proof: &request::Totp) -> Result<Proof> {
        let found = find_user(&self.model(), &proof.user.user)?;
        let user = found.as_deref().map(|user| user.id.as_str());
        let holds = self.passcode_holds(user, &proof.user.passcode).await?;
        let user = self.counted_login(user, holds).await?;
        let user = user.ok_or_else(|| refused("user and passcode do not fit, or the user is locked"))?;
        Ok(Proof { methods: Methods::TOTP, ..Proof::of(user.id) })
    }

    async fn passcode_holds(&self, user: Option<&str>, passcode: &str) -> Result<bool> {
        // For who does not exist the same is read.
        let query = Query::index("user", user.unwrap_or("nobody"));
        let credentials = self.store.list::<Credential>(query).await?;
        let seeds = credentials.iter().filter(|credential| credential.kind == "totp").take(SEEDS);
        let step = self.env.now().micros() / 1_000_000 / STEP_S;
        let mut holds = false;
        for credential in seeds {
            let Some(seed) = seed(&self.store.secrets().open(&credential.doc, "blob", &credential.blob)?) else {
                continue;
            };
            for back in 0..STEPS {
                let code = code(&seed, (step - back) as u64);
                holds |= bool::from(code.as_bytes().ct_eq(passcode.as_bytes()));
            }
        }
        Ok(holds)
    }
}

/// The bytes of a base32 text, with padding or without; none for what is no base32, or empty.
fn seed(text: &str) -> Option<Vec<u8>> {
    const ALPHABET: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
    let (mut bytes, mut bits, mut held) = (Vec::new(), 0u32, 0u32);
    for byte in text.trim_end_matches('=').bytes() {
        let value = ALPHABET.iter().position(|known| *known == byte)? as u32;
        held = held << 5 | value;
        bits += 5;
        if bits >= 8 {
            bits -= 8;
            bytes.push((held >> bits) as u8);
            held &= (1 << bits) - 1;
        }
    }
    (!bytes.is_empty()).then_some(bytes)
}

fn code(seed: &[u8], count: u64) -> String {
    let mac = <hmac::Hmac<Sha1> as Mac>::new_from_slice(seed).expect("HMAC takes keys of every length");
    let hash: [u8; 20] = mac.chain_update(count.to_be_bytes()).finalize().into_bytes().into();
    let at = usize::from(hash[19] & 15);
    let word = u32::from_be_bytes([hash[at], hash[at + 1], hash[at + 2], hash[at + 3]]) & 0x7fff_ffff;
    format!("{:06}", word % 1_000_000)
}

#[cfg(test)]
pub(crate) fn now(seed_text: &str, at: base::Timestamp) -> String {
    code(&seed(seed_text).unwrap(), (at.micros() / 1_000_000 / STEP_S) as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The vectors of RFC 6238, cut to six digits.
    #[test]
    fn agrees_with_the_rfc() {
        let seed = b"12345678901234567890";
        for (at, expected) in [
            (59, "287082"),
            (1_111_111_109, "081804"),
            (1_111_111_111, "050471"),
            (1_234_567_890, "005924"),
            (2_000_000_000, "279037"),
            (20_000_000_000u64, "353130"),
        ] {
            assert_eq!(code(seed, at / 30), expected);
        }
    }

    #[test]
    fn seeds_are_base32() {
        assert_eq!(seed("GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ").as_deref(), Some(&b"12345678901234567890"[..]));
        assert_eq!(seed("MFRGG===").as_deref(), Some(&b"abc"[..]));
        assert_eq!(seed("MFRGG").as_deref(), Some(&b"abc"[..]));
        for bad in ["", "=", "mfrgg", "MFRG1", "ü"] {
            assert_eq!(seed(bad), None, "{bad}");
        }
    }
}
