//! The keys of tokens: made, rotated, taken over and handed out, in Keystone's order.
//!
//! They lie sealed in one document, so that all control processes rotate as one. The staged key verifies already, so
//! that no process meets a token whose key it has never seen; one that does looks at the store before it says no. A key
//! that no longer seals is kept for as long as a token of it may be shown.

use super::methods::Order;
use super::verify::EXPIRED_WINDOW_S;
use super::{fernet, jws};
use crate::Identity;
use crate::documents::{JwsKeys, KeyHolder, PublicKey, Retired, TokenKeys};
use crate::model::Keyring;
use base::{Env, Fault, Result};
use std::collections::BTreeMap;
use std::sync::PoisonError;
use store::{Cause, Secrets, Stored, Tx};

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
        methods: Vec::new(),
    })?;
    Ok(())
}

/// The keys in the clear. Seals are bound to their field, so what moves is opened and sealed anew.
struct Open {
    staged: String,
    primary: String,
    /// Newest first.
    secondary: Vec<(String, base::Timestamp)>,
    methods: Vec<String>,
}

impl Open {
    fn of(keys: &TokenKeys, secrets: &Secrets) -> Result<Open> {
        let retired = keys.secondary.iter().map(|old| Ok((secrets.open(keys, "secondary", &old.key)?, old.at)));
        Ok(Open {
            staged: secrets.open(keys, "staged", &keys.staged)?,
            primary: secrets.open(keys, "primary", &keys.primary)?,
            secondary: retired.collect::<Result<_>>()?,
            methods: keys.methods.clone(),
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
            methods: self.methods,
        })?;
        Ok(())
    }
}

/// What bits mean is one for all keys. Where the setting has changed, all keys are made anew: a token of before would
/// say that it was made by other methods than it was, and what it was lent would look like its bearer's own.
pub async fn follow_order(store: &store::Store, order: Order) -> Result<()> {
    let follows = move |known: Option<Stored<TokenKeys>>| {
        known.is_none_or(|known| Order::parse(&known.methods).is_ok_and(|known| known == order))
    };
    if follows(store.get::<TokenKeys>(TokenKeys::ID).await?) {
        return Ok(());
    }
    let work = move |tx: &mut Tx| {
        // Another process may have begun with it at the same time: its keys are good, and seal already.
        if follows(tx.get::<TokenKeys>(TokenKeys::ID)?) {
            return Ok(false);
        }
        let random = tx.env().random.clone();
        let [staged, primary] = [(); 2].map(|()| fernet::Key::generate(&*random));
        Open { staged, primary, secondary: Vec::new(), methods: order.names() }.put(tx)?;
        Ok(true)
    };
    if store.write(Cause::new("nubo", "", "identity.keys"), work).await?.value {
        tracing::info!("identity: the order of [auth] methods is new, so all tokens of before have ended");
    }
    Ok(())
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

/// A process that has not said for so long that it lives does not.
const LIVES_S: i64 = 900;

/// Writes down which staged key a process has, and forgets those that are gone.
pub fn announce(tx: &mut Tx, holder: Option<&KeyHolder>) -> Result<()> {
    let Some(holder) = holder else { return Ok(()) };
    let now = tx.now();
    for known in tx.list::<KeyHolder>(store::Query::all())? {
        if known.seen.plus_s(LIVES_S) <= now && known.id != holder.id {
            tx.delete::<KeyHolder>(&known.id)?;
        }
    }
    tx.put(holder)?;
    Ok(())
}

/// A living process that has not loaded the staged key: were it to seal, nobody could be sure to open.
pub fn laggard(tx: &mut Tx) -> Result<Option<KeyHolder>> {
    let known = tx.need::<TokenKeys>(TokenKeys::ID)?.doc;
    let staged = fernet::Key::parse(&Open::of(&known, &tx.secrets())?.staged)?.name();
    let now = tx.now();
    let holders = tx.list::<KeyHolder>(store::Query::all())?;
    let late = holders.into_iter().find(|holder| now < holder.seen.plus_s(LIVES_S) && holder.staged != staged);
    Ok(late.map(|late| late.doc))
}

/// Makes the keys of signed tokens if there are none.
pub async fn ensure_signing(store: &store::Store) -> Result<()> {
    if store.get::<JwsKeys>(JwsKeys::ID).await?.is_some() {
        return Ok(());
    }
    let private = jws::generate()?;
    let public = jws::public_of(&private)?;
    let work = move |tx: &mut Tx| {
        if tx.get::<JwsKeys>(JwsKeys::ID)?.is_none() {
            put_signing(tx, &private, vec![PublicKey { pem: public.clone(), retired: None }])?;
        }
        Ok(())
    };
    store.write(Cause::new("nubo", "", "identity.keys"), work).await.map(drop)
}

fn put_signing(tx: &mut Tx, private: &str, public: Vec<PublicKey>) -> Result<()> {
    let rotated = tx.now();
    tx.put(&JwsKeys { id: JwsKeys::ID.into(), private: private.into(), public, rotated })?;
    Ok(())
}

/// A new key signs; the one before goes on verifying until no token of it can be left.
pub fn rotate_signing(tx: &mut Tx, ttl_s: i64) -> Result<()> {
    let private = jws::generate()?;
    let public = jws::public_of(&private)?;
    sign_with(tx, &private, vec![public], ttl_s)
}

/// The first of the public keys is that of the private one.
fn sign_with(tx: &mut Tx, private: &str, public: Vec<String>, ttl_s: i64) -> Result<()> {
    let now = tx.now();
    let known = tx.get::<JwsKeys>(JwsKeys::ID)?.map_or_else(Vec::new, |known| known.doc.public);
    let mut keys: Vec<PublicKey> = Vec::new();
    let given = public.into_iter().map(|pem| PublicKey { pem, retired: None });
    for key in given.chain(known) {
        if !keys.iter().any(|other| other.pem == key.pem) {
            let retired = if keys.is_empty() { None } else { key.retired.or(Some(now)) };
            keys.push(PublicKey { retired, ..key });
        }
    }
    keys.retain(|key| key.retired.is_none_or(|at| now < at.plus_s(ttl_s.saturating_add(EXPIRED_WINDOW_S))));
    if keys.len() > KEYS {
        return Err(Fault::conflict(format!("There would be more than {KEYS} keys whose tokens may still be shown.")));
    }
    put_signing(tx, private, keys)
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
    let mut methods = Vec::new();
    if let Some(known) = tx.get::<TokenKeys>(TokenKeys::ID)? {
        let known = Open::of(&known.doc, &tx.secrets())?;
        methods = known.methods;
        secondary.push((known.primary, now));
        secondary.extend(known.secondary);
    }
    let mut seen = std::collections::BTreeSet::from([staged.clone(), primary.clone()]);
    secondary.retain(|(key, _)| seen.insert(key.clone()));
    if secondary.len() > KEYS {
        return Err(Fault::invalid(format!("At most {KEYS} keys can be kept, with those of this cloud.")));
    }
    let count = secondary.len() + 2;
    Open { staged, primary, secondary, methods }.put(tx)?;
    Ok(count)
}

impl Identity {
    /// A new primary key, now; and a new one that signs, where any does.
    pub async fn rotate_keys(&self, cause: Cause) -> Result<()> {
        let (env, ttl_s) = (self.env.clone(), self.options.token_ttl_s);
        let work = move |tx: &mut Tx| {
            if let Some(late) = laggard(tx)? {
                return Err(Fault::conflict(format!(
                    "The control process {} has not loaded the next key yet; it does within five minutes, or is forgotten within {LIVES_S} seconds of its last word at {}.",
                    late.id,
                    late.seen.iso_seconds()
                )));
            }
            rotate(tx, &env, ttl_s)?;
            if tx.get::<JwsKeys>(JwsKeys::ID)?.is_some() { rotate_signing(tx, ttl_s) } else { Ok(()) }
        };
        self.store.write(cause, work).await?;
        self.sync().await?;
        // So that the next rotation need not wait for this process.
        let Some(holder) = self.holder(self.env.now()) else { return Ok(()) };
        let cause = Cause::new("nubo", "", "identity.keys");
        self.store.write(cause, move |tx| announce(tx, Some(&holder))).await.map(drop)
    }

    /// What this process says of itself, where others share the store.
    pub(crate) fn holder(&self, now: base::Timestamp) -> Option<KeyHolder> {
        if self.options.alone {
            return None;
        }
        let staged = self.present().keys.keys.get(1).map(fernet::Key::name)?;
        Some(KeyHolder { id: self.process.clone(), staged, seen: now })
    }

    /// Takes over what another process has made of the keys.
    pub(crate) async fn reload_keys(&self) -> Result<()> {
        let ring = self.store.read_few(|reader| Keyring::read(reader)).await?;
        let mut model = self.model.write().unwrap_or_else(PoisonError::into_inner);
        if model.keys.texts_differ(&ring) {
            model.keys = ring;
            model.generation += 1;
        }
        Ok(())
    }

    /// Takes keys of signed tokens over; those of this cloud go on verifying. How many verify then.
    pub async fn import_signing(&self, cause: Cause, private: String, public: Vec<String>) -> Result<usize> {
        if public.len() > KEYS {
            return Err(Fault::invalid(format!("At most {KEYS} keys can be imported.")));
        }
        let mut all = vec![jws::public_of(&private)?];
        for pem in public {
            // One text for one key.
            all.push(jws::public_pem(&jws::point(&pem)?));
        }
        let ttl_s = self.options.token_ttl_s;
        let work = move |tx: &mut Tx| {
            sign_with(tx, &private, all.clone(), ttl_s)?;
            Ok(tx.need::<JwsKeys>(JwsKeys::ID)?.doc.public.len())
        };
        let count = self.store.write(cause, work).await?.value;
        self.sync().await?;
        Ok(count)
    }

    /// The private key and all public ones, in PEM; NotFound where no token was ever signed.
    pub async fn export_signing(&self) -> Result<(String, Vec<String>)> {
        let known = self.store.get::<JwsKeys>(JwsKeys::ID).await?;
        let known = known.ok_or_else(|| Fault::not_found("This cloud has no keys of signed tokens (JWS)."))?;
        let private = self.store.secrets().open(&known.doc, "private", &known.private)?;
        Ok((private, known.doc.public.iter().map(|key| key.pem.clone()).collect()))
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
        let signed = jws::looks_like(token);
        let known = self.present().keys.open(token).is_some();
        if known || !signed && !fernet::looks_like(token) {
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
        self.reload_keys().await
    }
}
