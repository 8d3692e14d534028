//! Tokens that have been verified, while nothing has changed that could make them worth less.
//!
//! An entry holds for one generation of the read model: any change to anything of the identity service empties the
//! cache. So it saves work and can never answer what a fresh look would not.

use super::verify::Verified;
use base::Timestamp;
use rest::Caller;
use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

/// The most tokens that are kept. With the catalog an entry has a few kilobytes.
const KEPT: usize = 2048;

#[derive(Clone)]
pub struct Entry {
    pub caller: Arc<Caller>,
    pub verified: Arc<Verified>,
    until: Timestamp,
}

impl Entry {
    pub fn new(verified: Verified) -> Entry {
        let credential = verified.application_credential.as_ref().and_then(|credential| credential.expires_at);
        let lent = verified.access_token.as_ref().map(|token| token.expires_at);
        let until = [credential, lent, verified.memberships_end].into_iter().flatten().fold(verified.payload.expires, Timestamp::min);
        let verified = Arc::new(verified);
        let caller = Arc::new(Caller { credentials: verified.credentials(), token: Some(verified.clone()) });
        Entry { caller, verified, until }
    }
}

#[derive(Default)]
struct Kept {
    generation: u64,
    entries: HashMap<Box<str>, Entry>,
}

#[derive(Default)]
pub struct Cache(RwLock<Kept>);

impl Cache {
    pub fn get(&self, generation: u64, token: &str, now: Timestamp) -> Option<Entry> {
        let kept = self.0.read().unwrap_or_else(PoisonError::into_inner);
        if kept.generation != generation {
            return None;
        }
        kept.entries.get(token).filter(|entry| now < entry.until).cloned()
    }

    pub fn put(&self, generation: u64, token: &str, entry: Entry) {
        let mut kept = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if kept.generation != generation || kept.entries.len() >= KEPT {
            kept.entries.clear();
            kept.generation = generation;
        }
        kept.entries.insert(token.into(), entry);
    }
}
