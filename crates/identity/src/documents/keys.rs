//! The keys of tokens, and who has them.

use super::blank;
use base::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use store::{Document, Secret};

/// The keys that seal tokens: all in one document, so that a rotation is one write.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TokenKeys {
    pub id: String,
    /// Becomes the primary with the next rotation; verifies already, so that no process meets an unknown key.
    pub staged: Secret,
    pub primary: Secret,
    /// Verify only; newest first.
    pub secondary: Vec<Retired>,
    pub rotated: Timestamp,
    /// What the bits of methods mean in what is sealed with them; empty: the usual. See [`crate::token::methods::Order`].
    #[serde(default)]
    pub methods: Vec<String>,
}

/// A key that no longer seals.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Retired {
    pub key: Secret,
    /// Since when.
    pub at: Timestamp,
}

/// The keys of signed tokens, where tokens are signed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct JwsKeys {
    pub id: String,
    /// PKCS#8 in PEM.
    pub private: Secret,
    /// The first belongs to the private one; the others only verify.
    pub public: Vec<PublicKey>,
    pub rotated: Timestamp,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PublicKey {
    pub pem: String,
    /// Since when nothing is signed with its private key.
    pub retired: Option<Timestamp>,
}

/// A control process that makes tokens, and the next key that it has. Its id is the process's.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct KeyHolder {
    pub id: String,
    /// A mark of the staged key, which tells nothing about it.
    pub staged: String,
    pub seen: Timestamp,
}

impl Document for KeyHolder {
    const KIND: &'static str = "token_key_holder";
    const HISTORY: bool = false;
    const TRASH: bool = false;
    const UNDO: bool = false;

    fn id(&self) -> &str {
        &self.id
    }
}

impl JwsKeys {
    pub const ID: &'static str = "tokens";
}

impl TokenKeys {
    pub const ID: &'static str = "tokens";
}

impl Document for JwsKeys {
    const KIND: &'static str = "jws_keys";
    const HISTORY: bool = false;
    const TRASH: bool = false;
    const UNDO: bool = false;

    fn id(&self) -> &str {
        &self.id
    }

    const SEALED: bool = true;
    fn secrets(&mut self, each: &mut dyn FnMut(&'static str, &mut Secret)) {
        each("private", &mut self.private);
    }

    fn redact(body: &mut Value) {
        blank(body, "private", "".into());
    }
}

impl Document for TokenKeys {
    const KIND: &'static str = "token_keys";
    /// The second says when a key stopped sealing.
    const SCHEMA: u32 = 2;
    const HISTORY: bool = false;
    const TRASH: bool = false;
    const UNDO: bool = false;

    fn id(&self) -> &str {
        &self.id
    }

    fn lift(from: u32, mut body: Value) -> Result<Value, store::Error> {
        if from < 2 {
            let at = body["rotated"].clone();
            for key in body["secondary"].as_array_mut().into_iter().flatten() {
                *key = serde_json::json!({"key": key.take(), "at": at});
            }
        }
        Ok(body)
    }

    const SEALED: bool = true;
    fn secrets(&mut self, each: &mut dyn FnMut(&'static str, &mut Secret)) {
        each("staged", &mut self.staged);
        each("primary", &mut self.primary);
        self.secondary.iter_mut().for_each(|old| each("secondary", &mut old.key));
    }

    fn redact(body: &mut Value) {
        blank(body, "staged", "".into());
        blank(body, "primary", "".into());
        blank(body, "secondary", Value::Array(Vec::new()));
    }
}
