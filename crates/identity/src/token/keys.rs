//! The keys of tokens: made, rotated, taken over and handed out, in Keystone's order.
//!
//! They lie sealed in one document, so that all control processes rotate as one. The staged key verifies already, so
//! that no process meets a token whose key it has never seen; one that does looks at the store before it says no. A key
//! that no longer seals is kept for as long as a token of it may be shown.

use super::fernet;
use super::verify::EXPIRED_WINDOW_S;
use crate::Identity;
use crate::documents::{Retired, TokenKeys};
use crate::model::Keyring;
use base::{Env, Fault, Result};
use std::collections::BTreeMap;
use std::sync::PoisonError;
use store::{Cause, Secrets, Tx};

/// The most keys that are kept.
const KEYS: usize = 64;
/// An unknown key makes nobody read the store more often.
const RELOAD_MS: i64 = 200;

/// Makes the keys if there are none.
pub fn ensure(tx: &mut Tx) -> Result<()> {
    if tx.get::<TokenKeys>(TokenKeys::ID)?.is_some() {
        return Ok(());
    }
    let random = tx.env().random.clone();
    tx.create(&TokenKeys {
        id: TokenKeys::ID.into(),
        staged: fernet::Key::generate(&*random).into(),
        primary: fernet::Key::generate(&*random).into(),
        secondary: Vec::new(),
        rotated: tx.now(),
    })?;
    Ok(())
}

/// The keys in the clear. Seals are bound to their field, so what moves is opened and sealed anew.
struct Open {
    staged: String,
    primary: String,
    /// Newest first.
    secondary: Vec<(String, base::Timestamp)>,
}

impl Open {
    fn of(keys: &TokenKeys, secrets: &Secrets) -> Result<Open> {
        let retired = keys.secondary.iter().map(|old| Ok((secrets.open(keys, "secondary", &old.key)?, old.at)));
        Ok(Open {
            staged: secrets.open(keys, "staged", &keys.staged)?,
            primary: secrets.open(keys, "primary", &keys.primary)?,
            secondary: retired.collect::<Result<_>>()?,
        })
    }

    fn put(self, tx: &mut Tx) -> Result<()> {
        let retired = self.secondary.into_iter().map(|(key, at)| Retired { key: key.into(), at });
        tx.put(&TokenKeys {
            id: TokenKeys::ID.into(),
            staged: self.staged.into(),
            primary: self.primary.into(),
            secondary: retired.collect(),
            rotated: tx.now(),
        })?;
        Ok(())
    }
}

/// The staged key becomes the primary, a new one is staged, and the primary goes on verifying until no token of it can
/// be left. `ttl_s` is the life of a token.
pub fn rotate(tx: &mut Tx, env: &Env, ttl_s: i64) -> Result<()> {
    let now = tx.now();
    let known = tx.need::<TokenKeys>(TokenKeys::ID)?.doc;
    let mut keys = Open::of(&known, &tx.secrets())?;
    let fresh = fernet::Key::generate(&*env.random);
    let retired = std::mem::replace(&mut keys.primary, std::mem::replace(&mut keys.staged, fresh));
    keys.secondary.insert(0, (retired, now));
    keys.secondary.retain(|(_, at)| now < at.plus_s(ttl_s.saturating_add(EXPIRED_WINDOW_S)));
    if keys.secondary.len() > KEYS {
        return Err(Fault::conflict(format!(
            "There are {KEYS} keys whose tokens may still be shown; another rotation would make some of them worthless."
        )));
    }
    keys.put(tx)
}

/// Takes the keys of a Keystone over: 0 is staged, the highest number is the primary. Those of this cloud go on
/// verifying, so that nobody is logged out.
fn import(tx: &mut Tx, mut given: BTreeMap<u32, String>) -> Result<usize> {
    for (number, text) in given.iter_mut() {
        fernet::Key::parse(text).map_err(|_| {
            Fault::invalid(format!("Key {number} is not 32 bytes in URL-safe base64, as Keystone writes keys."))
        })?;
        *text = text.trim().to_owned();
    }
    let (_, primary) =
        given.pop_last().ok_or_else(|| Fault::invalid("There is no key among what is to be imported."))?;
    let random = tx.env().random.clone();
    let staged = given.remove(&0).unwrap_or_else(|| fernet::Key::generate(&*random));
    let now = tx.now();
    let mut secondary: Vec<_> = given.into_values().rev().map(|key| (key, now)).collect();
    if let Some(known) = tx.get::<TokenKeys>(TokenKeys::ID)? {
        let known = Open::of(&known.doc, &tx.secrets())?;
        secondary.push((known.primary, now));
        secondary.extend(known.secondary);
    }
    let mut seen = std::collections::BTreeSet::from([staged.clone(), primary.clone()]);
    secondary.retain(|(key, _)| seen.insert(key.clone()));
    if secondary.len() > KEYS {
        return Err(Fault::invalid(format!("At most {KEYS} keys can be kept, with those of this cloud.")));
    }
    let count = secondary.len() + 2;
    Open { staged, primary, secondary }.put(tx)?;
    Ok(count)
}

impl Identity {
    /// A new primary key, now.
    pub async fn rotate_keys(&self, cause: Cause) -> Result<()> {
        let (env, ttl_s) = (self.env.clone(), self.options.token_ttl_s);
        self.store.write(cause, move |tx| rotate(tx, &env, ttl_s)).await?;
        self.sync().await
    }

    /// Takes keys over by their numbers; how many there are then.
    pub async fn import_keys(&self, cause: Cause, keys: BTreeMap<u32, String>) -> Result<usize> {
        if keys.len() > KEYS {
            return Err(Fault::invalid(format!("At most {KEYS} keys can be imported.")));
        }
        let count = self.store.write(cause, move |tx| import(tx, keys.clone())).await?.value;
        self.sync().await?;
        Ok(count)
    }

    /// The keys by their numbers, as Keystone keeps them.
    pub async fn export_keys(&self) -> Result<BTreeMap<u32, String>> {
        let known = self.store.get::<TokenKeys>(TokenKeys::ID).await?;
        let known = known.ok_or_else(|| Fault::bug("there are no keys for tokens"))?;
        let keys = Open::of(&known.doc, self.store.secrets())?;
        let retired = keys.secondary.into_iter().rev().map(|(key, _)| key);
        let all = std::iter::once(keys.staged).chain(retired).chain([keys.primary]);
        Ok((0..).zip(all).collect())
    }

    /// Looks for the key of a token in the store if this process has not seen it: another one may have rotated.
    pub(crate) async fn find_key(&self, token: &str) -> Result<()> {
        let known = fernet::open(&self.present().keys.keys, token).is_some();
        if known || !fernet::looks_like(token) {
            return Ok(());
        }
        let now = self.env.now();
        {
            let mut last = self.reloaded.lock().unwrap_or_else(PoisonError::into_inner);
            if last.is_some_and(|last| now.ms_since(last) < RELOAD_MS) {
                return Ok(());
            }
            *last = Some(now);
        }
        let stored = self.store.read_few(|reader| Ok(reader.get::<TokenKeys>(TokenKeys::ID)?)).await?;
        let Some(stored) = stored else { return Ok(()) };
        let ring = Keyring::parse(&stored.doc, self.store.secrets())?;
        let mut model = self.model.write().unwrap_or_else(PoisonError::into_inner);
        if model.keys.texts_differ(&ring) {
            model.keys = ring;
            model.generation += 1;
        }
        Ok(())
    }
}
