//! Fernet: authenticated encryption of short messages, as the specification and Python's `cryptography` have it.
//!
//! `0x80 | seconds since 1970, 8 bytes big-endian | IV, 16 bytes | AES-128-CBC with PKCS#7 | HMAC-SHA256 of all that`,
//! in URL-safe base64. A key is 32 bytes: first the signing half, then the encrypting half.

use aes::Aes128;
use aes::cipher::{BlockDecryptMut, BlockEncryptMut, InnerIvInit, KeyInit, block_padding::Pkcs7};
use base::{Fault, Random, Result};
use base64::Engine;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use hmac::Mac;
use sha2::Sha256;

const VERSION: u8 = 0x80;
const HEAD: usize = 1 + 8 + 16;
const TAG: usize = 32;

/// Writes no padding, as Keystone does, and reads with or without.
pub(crate) const URL_SAFE: GeneralPurpose = GeneralPurpose::new(
    &base64::alphabet::URL_SAFE,
    GeneralPurposeConfig::new().with_encode_padding(false).with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// One key, with its schedules worked out.
#[derive(Clone)]
pub struct Key {
    /// Tells keys apart.
    mark: [u8; 32],
    mac: hmac::Hmac<Sha256>,
    cipher: Aes128,
}

impl Key {
    pub fn new(bytes: &[u8; 32]) -> Key {
        let mac = <hmac::Hmac<Sha256> as Mac>::new_from_slice(&bytes[..16]).expect("HMAC takes keys of every length");
        let cipher = Aes128::new_from_slice(&bytes[16..]).expect("the half is 16 bytes");
        let mark = mac.clone().chain_update(b"nubo key mark").chain_update(&bytes[16..]).finalize().into_bytes().into();
        Key { mark, mac, cipher }
    }

    /// Names the key and tells nothing of it: part of a keyed sum.
    pub fn name(&self) -> String {
        self.mark[..8].iter().map(|byte| format!("{byte:02x}")).collect()
    }

    pub fn same(&self, other: &Key) -> bool {
        self.mark == other.mark
    }

    /// From the text in which Keystone keeps keys: URL-safe base64 of 32 bytes.
    pub fn parse(text: &str) -> Result<Key> {
        let bytes = URL_SAFE.decode(text.trim()).ok().and_then(|bytes| <[u8; 32]>::try_from(bytes).ok());
        bytes.map(|bytes| Key::new(&bytes)).ok_or_else(|| Fault::bug("a Fernet key is not 32 bytes of base64"))
    }

    /// A new key's text.
    pub fn generate(random: &dyn Random) -> String {
        let mut bytes = [0u8; 32];
        random.fill(&mut bytes);
        base64::engine::general_purpose::URL_SAFE.encode(bytes)
    }

    /// Encrypts; `at` is in seconds since 1970.
    pub fn encrypt(&self, message: &[u8], at: u64, iv: [u8; 16]) -> String {
        let padded = message.len() / 16 * 16 + 16;
        let mut token = Vec::with_capacity(HEAD + padded + TAG);
        token.push(VERSION);
        token.extend_from_slice(&at.to_be_bytes());
        token.extend_from_slice(&iv);
        token.extend_from_slice(message);
        token.resize(HEAD + padded, 0);
        cbc::Encryptor::inner_iv_init(self.cipher.clone(), &iv.into())
            .encrypt_padded_mut::<Pkcs7>(&mut token[HEAD..], message.len())
            .expect("the buffer has room for the padding");
        let tag = self.mac.clone().chain_update(&token).finalize().into_bytes();
        token.extend_from_slice(&tag);
        URL_SAFE.encode(token)
    }

    /// The message within decoded bytes; none unless this key made them.
    fn decrypt(&self, token: &[u8]) -> Option<Vec<u8>> {
        let (signed, tag) = token.split_at_checked(token.len().checked_sub(TAG)?)?;
        if signed.len() < HEAD + 16 || signed[0] != VERSION {
            return None;
        }
        self.mac.clone().chain_update(signed).verify_slice(tag).ok()?;
        let iv: [u8; 16] = signed[9..HEAD].try_into().ok()?;
        let mut message = signed[HEAD..].to_vec();
        let length = cbc::Decryptor::inner_iv_init(self.cipher.clone(), &iv.into())
            .decrypt_padded_mut::<Pkcs7>(&mut message)
            .ok()?
            .len();
        message.truncate(length);
        Some(message)
    }
}

/// Has the form of what some key has sealed.
pub fn looks_like(token: &str) -> bool {
    let bytes = URL_SAFE.decode(token).unwrap_or_default();
    bytes.first() == Some(&VERSION) && bytes.len() >= HEAD + 16 + TAG && (bytes.len() - HEAD - TAG) % 16 == 0
}

/// The message and the second of its making; none unless one of the keys made it.
pub fn open<'a>(keys: impl IntoIterator<Item = &'a Key>, token: &str) -> Option<(Vec<u8>, u64)> {
    let bytes = URL_SAFE.decode(token).ok()?;
    let at = u64::from_be_bytes(bytes.get(1..9)?.try_into().ok()?);
    keys.into_iter().find_map(|key| key.decrypt(&bytes)).map(|message| (message, at))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The vector of the Fernet specification.
    #[test]
    fn agrees_with_the_specification() {
        let key = Key::parse("cw_0x689RpI-jtRR7oE8h_eQsKImvJapLeSbXpwF4e4=").unwrap();
        let token =
            "gAAAAAAdwJ6wAAECAwQFBgcICQoLDA0ODy021cpGVWKZ_eEwCGM4BLLF_5CV9dOPmrhuVUPgJobwOz7JcbmrR64jVmpU4IwqDA==";
        assert_eq!(open([&key], token).unwrap(), (b"hello".to_vec(), 499_162_800));
        let iv: [u8; 16] = std::array::from_fn(|i| i as u8);
        assert_eq!(key.encrypt(b"hello", 499_162_800, iv), token.trim_end_matches('='));
    }

    proptest! {
        #[test]
        fn what_is_sealed_opens_and_what_is_bent_does_not(
            message in proptest::collection::vec(any::<u8>(), 0..80), at in 0u64..1 << 40, bit in any::<usize>()) {
            let (key, other) = (Key::new(&[1; 32]), Key::new(&[2; 32]));
            let token = key.encrypt(&message, at, [3; 16]);
            prop_assert_eq!(open([&other, &key], &token), Some((message, at)));
            prop_assert_eq!(open([&other], &token), None);
            let mut bytes = URL_SAFE.decode(&token).unwrap();
            let bit = bit % (bytes.len() * 8);
            bytes[bit / 8] ^= 1 << (bit % 8);
            prop_assert_eq!(open([&key], &URL_SAFE.encode(bytes)), None);
        }

        #[test]
        fn any_text_is_taken_without_a_panic(text in "\\PC{0,120}") {
            prop_assert_eq!(open([&Key::new(&[1; 32])], &text), None);
        }
    }
}
