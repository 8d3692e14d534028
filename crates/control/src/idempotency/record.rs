//! The document of one key.

use base::RequestId;
use serde::{Deserialize, Serialize};
use store::{Document, Keys};

/// What is known of a request with a key. Holds nothing of the key and nothing of the body but digests that need the key.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Record {
    pub id: String,
    /// Empty where the token had no project.
    pub project_id: String,
    /// Among whose records it counts: the project, or the user where there is none.
    pub scope: String,
    pub request_id: RequestId,
    /// Tells another body from the same.
    pub body: String,
    /// The first documents that the request made.
    pub made: Vec<Made>,
    pub answer: Option<Sealed>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Made {
    pub kind: String,
    pub id: String,
}

/// An answer that only the client's key opens.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Sealed {
    /// Base64.
    pub nonce: String,
    /// Base64.
    pub text: String,
}

impl Document for Record {
    const KIND: &'static str = "idempotency_key";
    const HISTORY: bool = false;
    const TRASH: bool = false;
    const UNDO: bool = false;

    fn id(&self) -> &str {
        &self.id
    }

    fn project_id(&self) -> &str {
        &self.project_id
    }

    fn keys(&self, keys: &mut Keys) {
        keys.index("scope", self.scope.as_str());
    }

    /// Even sealed, an answer belongs nowhere else.
    fn redact(body: &mut serde_json::Value) {
        body["answer"] = serde_json::Value::Null;
    }
}
