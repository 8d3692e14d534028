//! Secrets at rest: fields that lie in the database sealed with the cloud's secret key.
//!
//! A document names its secret fields in [`crate::Document::secrets`], and whatever writes it seals them: no path into
//! the tables leads past it. They stay sealed in what is read, until [`Secrets::open`] is asked for one. A seal is bound
//! to kind, id and field, so that one secret cannot be laid in the place of another.
//!
//! The keys are numbered; the newest seals, all of them open, and what an older one sealed is sealed anew when it is
//! written, or when the store is next opened ([`crate::Store::reseal`]). Must never write a key into the store.

use crate::reader::doc_row;
use crate::sql::{self, given};
use crate::{Cause, Document, Error, Kind, Result, Store, Tx};
use base::{Env, Fault};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// The most keys of a ring.
const KEYS: usize = 64;
/// Documents that one step of sealing anew looks at.
const STEP: i64 = 500;

/// A secret field of a document. Shown to nobody: its `Debug` says no more than whether there is one.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Secret {
    /// As it was given, on its way to the store, or as an older program kept it. Empty: there is none, or it was blanked.
    Clear(String),
    Sealed(Sealed),
}

/// What lies in the database.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sealed {
    /// The number of the key, from 1.
    key: u32,
    /// Base64 of nonce, text and tag.
    sealed: String,
}

impl Default for Secret {
    fn default() -> Secret {
        Secret::Clear(String::new())
    }
}

impl From<String> for Secret {
    fn from(text: String) -> Secret {
        Secret::Clear(text)
    }
}

impl From<&str> for Secret {
    fn from(text: &str) -> Secret {
        Secret::Clear(text.to_owned())
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if self.is_blank() { "Secret(none)" } else { "Secret(hidden)" })
    }
}

impl Secret {
    /// There is none, or it was blanked.
    pub fn is_blank(&self) -> bool {
        matches!(self, Secret::Clear(text) if text.is_empty())
    }
}

/// The keys of a cloud. Clones share them.
#[derive(Clone, Default)]
pub struct Secrets(Arc<Vec<Ring>>);

struct Ring {
    key: LessSafeKey,
    /// Tells keys apart without telling anything of them.
    mark: i64,
}

impl std::fmt::Debug for Secrets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Secrets({} keys)", self.0.len())
    }
}

impl Secrets {
    /// From the texts of [`Secrets::draw`], oldest first; their numbers are their places.
    pub fn parse(texts: &[String]) -> Result<Secrets, Error> {
        let wrong = |n: usize| Error::Unsupported(format!("Secret key {} is not 32 bytes in base64", n + 1));
        if texts.len() > KEYS {
            return Err(Error::Unsupported(format!("There may be at most {KEYS} secret keys")));
        }
        let ring = |(n, text): (usize, &String)| {
            let bytes = BASE64_STANDARD.decode(text.trim()).map_err(|_| wrong(n))?;
            Ring::new(&bytes).ok_or_else(|| wrong(n))
        };
        Ok(Secrets(Arc::new(texts.iter().enumerate().map(ring).collect::<Result<_, _>>()?)))
    }

    /// A new key's text.
    pub fn draw(env: &Env) -> String {
        let mut bytes = [0u8; 32];
        env.random.fill(&mut bytes);
        BASE64_STANDARD.encode(bytes)
    }

    /// For a store that is never on a disk: there is nothing at rest to protect.
    pub(crate) fn of_memory() -> Secrets {
        Secrets(Arc::new(Ring::new(&[7; 32]).into_iter().collect()))
    }

    fn newest(&self) -> u32 {
        self.0.len() as u32
    }

    fn ring(&self, number: u32) -> Result<&Ring, Error> {
        let ring = (number as usize).checked_sub(1).and_then(|n| self.0.get(n));
        ring.ok_or_else(|| Error::Corrupt(format!("a secret is sealed with key {number}, which is not there")))
    }

    /// The text of a document's secret field; empty if there is none.
    pub fn open<T: Document>(&self, doc: &T, field: &'static str, secret: &Secret) -> Result<String, Error> {
        self.open_at(&place::<T>(doc.id(), field), secret)
    }

    fn open_at(&self, place: &[u8], secret: &Secret) -> Result<String, Error> {
        let Secret::Sealed(sealed) = secret else {
            let Secret::Clear(text) = secret else { return Ok(String::new()) };
            return Ok(text.clone());
        };
        let broken = || Error::Corrupt("the seal of a secret is broken".into());
        let mut bytes = BASE64_STANDARD.decode(&sealed.sealed).map_err(|_| broken())?;
        let (nonce, text) = bytes.split_at_mut_checked(NONCE_LEN).ok_or_else(broken)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| broken())?;
        let text = self.ring(sealed.key)?.key.open_in_place(nonce, Aad::from(place), text).map_err(|_| broken())?;
        std::str::from_utf8(text).map(str::to_owned).map_err(|_| broken())
    }

    fn seal_at(&self, place: &[u8], text: &str, env: &Env) -> Result<Secret, Error> {
        let none = || Error::Corrupt("this store was opened without the cloud's secret key".into());
        let ring = self.0.last().ok_or_else(none)?;
        let mut nonce = [0u8; NONCE_LEN];
        env.random.fill(&mut nonce);
        let mut bytes = text.as_bytes().to_vec();
        let sealed =
            ring.key.seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), Aad::from(place), &mut bytes);
        sealed.map_err(|_| Error::Corrupt("a secret cannot be sealed".into()))?;
        let sealed = BASE64_STANDARD.encode([&nonce[..], &bytes].concat());
        Ok(Secret::Sealed(Sealed { key: self.newest(), sealed }))
    }

    /// The document with every secret sealed by the newest key. What is sealed so already stays as it is, so that an
    /// update that changes nothing is still known by its text.
    pub(crate) fn seal<T: Document>(&self, doc: &T, env: &Env) -> Result<T, Error> {
        let (mut sealed, id) = (doc.clone(), doc.id().to_owned());
        let mut failed = None;
        sealed.secrets(&mut |field, secret| {
            if !self.stale(secret) {
                return;
            }
            let place = place::<T>(&id, field);
            match self.open_at(&place, secret).and_then(|text| self.seal_at(&place, &text, env)) {
                Ok(fresh) => *secret = fresh,
                Err(error) => failed = Some(error),
            }
        });
        failed.map_or(Ok(sealed), Err)
    }

    /// Lies in the clear, or under an older key.
    fn stale(&self, secret: &Secret) -> bool {
        match secret {
            Secret::Clear(text) => !text.is_empty(),
            Secret::Sealed(sealed) => sealed.key < self.newest(),
        }
    }

    pub(crate) fn any_stale<T: Document>(&self, doc: &mut T) -> bool {
        let mut any = false;
        doc.secrets(&mut |_, secret| any |= self.stale(secret));
        any
    }

    /// Refuses a store whose secrets another key has sealed. Without any key a store may be looked at and repaired.
    pub(crate) fn fits(&self, mark: Option<i64>) -> Result<(), Error> {
        let Some(mark) = mark.filter(|_| !self.0.is_empty()) else { return Ok(()) };
        if self.0.iter().any(|ring| ring.mark == mark) {
            return Ok(());
        }
        Err(Error::Unsupported(
            "The secrets of this store are sealed with a key that is not at hand; it is in the setup.json of the \
             state folder that the store was made with"
                .into(),
        ))
    }
}

impl Ring {
    fn new(bytes: &[u8]) -> Option<Ring> {
        let key = LessSafeKey::new(UnboundKey::new(&CHACHA20_POLY1305, bytes).ok()?);
        let mark = ring::hmac::sign(&ring::hmac::Key::new(ring::hmac::HMAC_SHA256, bytes), b"nubo secret key mark");
        let mark = mark.as_ref().first_chunk().map(|first| i64::from_be_bytes(*first))?;
        Some(Ring { key, mark })
    }
}

/// No kind and no field holds U+0000, and no id does.
fn place<T: Document>(id: &str, field: &str) -> Vec<u8> {
    [T::KIND, id, field].join("\0").into_bytes()
}

impl Store {
    /// Opens the secret fields of documents.
    pub fn secrets(&self) -> &Secrets {
        &self.shared().secrets
    }

    /// Seals what an older program left in the clear, or an older key has sealed. Looks only once for each newest key.
    pub async fn reseal(&self) -> Result<usize> {
        let Some(mark) = self.secrets().0.last().map(|ring| ring.mark) else {
            return Err(Fault::bug("a store without the cloud's secret key cannot be served"));
        };
        let kinds: Vec<Kind> = self.shared().registered.iter().filter(|kind| kind.sealed).copied().collect();
        let mut count = 0;
        for kind in kinds {
            count += self.reseal_kind(kind).await?;
        }
        if self.read_few(|reader| Ok(reader.meta(MARK)?)).await? != Some(mark) {
            self.write(cause(), move |tx| Ok(tx.set_meta(MARK, mark)?)).await?;
        }
        Ok(count)
    }

    async fn reseal_kind(&self, kind: Kind) -> Result<usize> {
        let (newest, name) = (i64::from(self.secrets().newest()), format!("sealed:{}", kind.name));
        let asked = name.clone();
        if self.read_few(move |reader| Ok(reader.meta(&asked)?)).await? == Some(newest) {
            return Ok(0);
        }
        let (mut from, mut count) = ((i64::MIN, String::new()), 0);
        loop {
            let ((created, id), name) = (from, name.clone());
            let step = move |tx: &mut Tx| {
                let page = tx.query(&sql::LIST_ALL[0], &given![kind.name, created, &id, STEP])?;
                let rows = page.into_iter().map(doc_row).collect::<Result<Vec<_>, _>>()?;
                let secrets = tx.shared.secrets.clone();
                let mut sealed = 0;
                for row in &rows {
                    if (kind.stale)(&secrets, &row.body)? {
                        (kind.put)(tx, &row.body)?;
                        sealed += 1;
                    }
                }
                let last = rows.last().map(|row| (row.created, row.id.clone()));
                if last.is_none() {
                    tx.set_meta(&name, newest)?;
                }
                Ok((last, sealed))
            };
            let (last, sealed) = self.write(cause(), step).await?.value;
            count += sealed;
            let Some(last) = last else { return Ok(count) };
            from = last;
        }
    }
}

/// Tells which key sealed last.
const MARK: &str = "secret_key";

fn cause() -> Cause {
    Cause::new("store", "", "secrets.seal")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Options;

    #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
    struct Purse {
        id: String,
        coins: Secret,
        label: String,
    }

    impl Document for Purse {
        const KIND: &'static str = "purse";
        const SEALED: bool = true;
        fn id(&self) -> &str {
            &self.id
        }
        fn secrets(&mut self, each: &mut dyn FnMut(&'static str, &mut Secret)) {
            each("coins", &mut self.coins);
        }
        fn redact(body: &mut serde_json::Value) {
            body["coins"] = "".into();
        }
    }

    fn purse(id: &str, coins: &str) -> Purse {
        Purse { id: id.into(), coins: coins.into(), label: String::new() }
    }

    fn key(byte: u8) -> String {
        BASE64_STANDARD.encode([byte; 32])
    }

    async fn open(path: &str, keys: &[String]) -> Result<Store> {
        let mut options = Options::new(format!("sqlite:{path}")).kind::<Purse>().inline();
        options.secrets = Secrets::parse(keys)?;
        let store = Store::open(options, Env::system()).await?;
        if !keys.is_empty() {
            store.reseal().await?;
        }
        Ok(store)
    }

    fn raw(path: &str) -> String {
        let connection = rusqlite::Connection::open(path).unwrap();
        let mut rows = connection.prepare("SELECT body FROM document UNION ALL SELECT body FROM history").unwrap();
        let texts: Vec<Option<String>> = rows.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect();
        texts.into_iter().flatten().collect()
    }

    async fn coins(store: &Store, id: &str) -> String {
        let purse = store.get::<Purse>(id).await.unwrap().unwrap().doc;
        store.secrets().open(&purse, "coins", &purse.coins).unwrap()
    }

    #[tokio::test]
    async fn what_is_written_is_sealed_and_no_two_seals_are_alike() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s.db").display().to_string();
        let store = open(&path, &[key(1)]).await.unwrap();
        let work = |tx: &mut crate::Tx| {
            tx.create(&purse("a", "gold-and-silver"))?;
            tx.create(&purse("b", "gold-and-silver"))?;
            Ok(())
        };
        store.write(Cause::default(), work).await.unwrap();
        assert!(!raw(&path).contains("gold-and-silver"));
        assert_eq!(
            (coins(&store, "a").await, coins(&store, "b").await),
            ("gold-and-silver".into(), "gold-and-silver".into())
        );
        let (a, b) =
            (store.get::<Purse>("a").await.unwrap().unwrap().doc, store.get::<Purse>("b").await.unwrap().unwrap());
        assert_ne!(a.coins, b.doc.coins);
        assert!(store.secrets().open(&b.doc, "coins", &a.coins).is_err(), "a seal holds in its own place only");
        assert_eq!(format!("{a:?}"), "Purse { id: \"a\", coins: Secret(hidden), label: \"\" }");
        let (rev, same) = (store.rev(), a.clone());
        store.write(Cause::default(), move |tx| Ok(tx.update(&same)?)).await.unwrap();
        assert_eq!(store.rev(), rev, "an update that changes nothing writes nothing");
        assert_eq!(store.get::<Purse>("a").await.unwrap().unwrap().doc, a);
    }

    #[tokio::test]
    async fn old_texts_are_sealed_at_open_and_another_key_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s.db").display().to_string();
        drop(open(&path, &[key(1)]).await.unwrap());
        let connection = rusqlite::Connection::open(&path).unwrap();
        let old = r#"INSERT INTO document(kind, id, project_id, rev, created, updated, body)
            VALUES ('purse', 'old', '', 1, 1, 1, '{"id":"old","coins":"copper","label":""}')"#;
        connection.execute(old, []).unwrap();
        connection.execute("DELETE FROM meta WHERE name LIKE '%sealed:purse'", []).unwrap();
        drop(connection);
        let store = open(&path, &[key(1)]).await.unwrap();
        assert!(!raw(&path).contains("copper"));
        assert_eq!(coins(&store, "old").await, "copper");
        drop(store);
        assert!(open(&path, &[key(2)]).await.is_err_and(|fault| fault.message.contains("not at hand")));
        let store = open(&path, &[key(1), key(2)]).await.unwrap();
        assert_eq!(coins(&store, "old").await, "copper");
        drop(store);
        let unsealed = open(&path, &[key(1), key(3)]).await;
        assert!(unsealed.is_err(), "key 2 has sealed everything since");
        let store = open(&path, &[]).await.unwrap();
        assert!(store.write(Cause::default(), |tx| Ok(tx.create(&purse("new", "tin"))?)).await.is_err());
    }
}
