//! What a document is: its trait, its keys, and how its body is written and read.

use crate::undo::Reversing;
use crate::{Error, Secret, Secrets, Tx};
use base::Timestamp;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::Value;
use std::any::TypeId;
use std::borrow::Cow;
use std::ops::Deref;

/// The most bytes of a body.
pub const BODY_BYTES: usize = 4 << 20;
/// The most bytes of an id.
pub const ID_BYTES: usize = 512;
/// The most bytes of an index value or of a unique key with its parts joined. PostgreSQL's index rows end at 2,704.
pub const KEY_BYTES: usize = 1500;
/// The most index entries and unique keys of one document.
pub const KEYS: usize = 1000;

/// A type that is kept in the store.
///
/// The body is the JSON of the struct, which must be an object. Kinds are `snake_case` words, spelled as the API does.
/// Use `BTreeMap` and not `HashMap` inside: an update is compared with what is kept by its text.
pub trait Document: Serialize + DeserializeOwned + Clone + Send + Sync + 'static {
    /// Names the kind in every table. Never changes, never serves two types.
    const KIND: &'static str;
    /// False: no history, so it shows neither in `as_of` nor in [`crate::Store::changes`], only in the watch of this
    /// process. For what is rewritten often: progress, heartbeats, counters.
    const HISTORY: bool = true;
    /// The version of the body's shape. A body carries it; [`Document::lift`] reads older ones.
    const SCHEMA: u32 = 1;
    /// Raise it whenever [`Document::keys`] changes: the entries of a registered kind are then rebuilt at open.
    const INDEX_VERSION: u32 = 1;

    /// At most 512 bytes, unique within the kind.
    fn id(&self) -> &str;

    /// Whose it is; empty for what belongs to no project. [`crate::Query::project`] lists by it without an index.
    fn project_id(&self) -> &str {
        ""
    }

    /// Declares index entries and unique keys. Must depend on nothing but `self`, and must also be stable under
    /// serialization: the entries of a stored document are found again from its body.
    fn keys(&self, _keys: &mut Keys) {}

    /// Brings the body of an older schema to the newest. A body of a newer schema than ours is refused before.
    fn lift(_from: u32, body: Value) -> Result<Value, Error> {
        Ok(body)
    }

    /// True: it has secret fields, which [`Document::secrets`] names and the store keeps sealed.
    const SEALED: bool = false;

    /// Calls `each` with the name of every secret field and the field. Names never change: seals are bound to them.
    fn secrets(&mut self, _each: &mut dyn FnMut(&'static str, &mut Secret)) {}

    /// Blanks secrets in the copy that goes to history, watch and dry runs. What remains must still deserialize.
    fn redact(_body: &mut Value) {}

    /// False: a deleted document of this kind never rests in the [`crate::Trash`], and no undo brings it back: tokens,
    /// keys, credentials, and what is observed anew.
    const TRASH: bool = true;
    /// False: an undo leaves documents of this kind as they are: logs, and what follows from other documents.
    const UNDO: bool = true;
    /// True: it lets another project, in whose lists it stands, use what it hangs on. A request of whoever owns that is
    /// wholly theirs.
    const SHARE: bool = false;
    /// How an undo takes back the making of one.
    const MADE: Made = Made::Deleted;
    /// Fields, at any depth, that only rise: an undo takes them back only where the document is, as a whole, what the
    /// request left. What must rise even then, [`Document::restored`] raises.
    const COUNTERS: &'static [&'static str] = &[];

    /// Names the documents without which this one cannot be. An undo brings none back without them.
    fn needs(&self, _needs: &mut Needs) {}

    /// Names what this document uses of the ledger: what an undo that leaves it out does not charge.
    fn costs(&self, _costs: &mut Costs) {}

    /// Called on what an undo is about to write: after a deletion, or in the place of `replaced`.
    fn restored(&mut self, _now: Timestamp, _replaced: Option<&Self>) {}

    /// Called when an undo has written everything, to bring in line what follows from documents of this kind. A fault
    /// refuses the undo.
    fn undone(_tx: &mut Tx, _before: Option<&Self>, _after: Option<&Self>) -> Result<(), base::Fault> {
        Ok(())
    }
}

/// How an undo takes back the making of a document.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Made {
    /// It is deleted, unless it has changed since.
    Deleted,
    /// Its service removes it as by its own call, with all that came with it, unless something depends on it by now.
    /// What has a lower number goes first.
    Removed(u8),
}

/// Collects what a document cannot be without.
#[derive(Clone, Debug, Default)]
pub struct Needs(pub(crate) Vec<(&'static str, String)>);

impl Needs {
    /// An empty id names nothing.
    pub fn on<T: Document>(&mut self, id: &str) {
        self.kind(T::KIND, id);
    }

    /// The same for a document of another service.
    pub fn kind(&mut self, kind: &'static str, id: &str) {
        if !id.is_empty() {
            self.0.push((kind, id.to_owned()));
        }
    }
}

/// Collects what a document uses of the ledger.
#[derive(Clone, Debug, Default)]
pub struct Costs(pub(crate) Vec<(String, String, i64)>);

impl Costs {
    pub fn add(&mut self, scope: &str, resource: &str, used: i64) {
        self.0.push((scope.to_owned(), resource.to_owned(), used));
    }
}

/// Counts the commits of the whole cloud. 0 is the empty store.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Rev(pub u64);

impl std::fmt::Display for Rev {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// A document as it lies in the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored<T> {
    pub doc: T,
    /// The commit that last changed it.
    pub rev: Rev,
    /// Strictly increasing from one created document to the next, so that lists keep the order of creation.
    pub created: Timestamp,
    pub updated: Timestamp,
}

impl<T> Deref for Stored<T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.doc
    }
}

/// Collects the index entries and unique keys of one document.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Keys {
    pub(crate) indexes: Vec<(&'static str, String)>,
    pub(crate) uniques: Vec<(&'static str, String)>,
}

impl Keys {
    /// Lets [`crate::Query::index`] find the document by this value. May be called many times for one name.
    pub fn index(&mut self, name: &'static str, value: impl Into<String>) {
        self.indexes.push((name, value.into()));
    }

    /// Lets no other document of the kind have the same parts under this name.
    pub fn unique<P: AsRef<str>>(&mut self, name: &'static str, parts: impl IntoIterator<Item = P>) {
        self.uniques.push((name, join(parts)));
    }

    pub(crate) fn of<T: Document>(doc: &T) -> Result<Keys, Error> {
        let mut keys = Keys::default();
        doc.keys(&mut keys);
        for list in [&mut keys.indexes, &mut keys.uniques] {
            list.sort();
            list.dedup();
        }
        if keys.indexes.len() + keys.uniques.len() > KEYS {
            return Err(Error::Invalid(format!("A {} may have at most {KEYS} keys", T::KIND)));
        }
        for (name, value) in keys.indexes.iter().chain(&keys.uniques) {
            plain(name, value, KEY_BYTES)?;
        }
        Ok(keys)
    }

    pub(crate) fn has_index(&self, name: &str, value: &str) -> bool {
        self.indexes.iter().any(|(n, v)| *n == name && v == value)
    }
}

/// Joins the parts of a unique key by `/`; a `/` or `\` inside a part is escaped, so no two lists of parts clash.
pub(crate) fn join<P: AsRef<str>>(parts: impl IntoIterator<Item = P>) -> String {
    let mut joined = String::new();
    for (n, part) in parts.into_iter().enumerate() {
        if n > 0 {
            joined.push('/');
        }
        for c in part.as_ref().chars() {
            if matches!(c, '/' | '\\') {
                joined.push('\\');
            }
            joined.push(c);
        }
    }
    joined
}

/// Refuses U+0000, which PostgreSQL cannot keep, and what is too long.
pub(crate) fn plain(what: &str, value: &str, most: usize) -> Result<(), Error> {
    if value.contains('\0') {
        return Err(Error::Invalid(format!("The value of {what} contains the character U+0000")));
    }
    if value.len() > most {
        return Err(Error::Invalid(format!("The value of {what} has {} bytes and may have {most}", value.len())));
    }
    Ok(())
}

/// The body's text: the document's JSON, with the schema version in front where it is not 1.
pub(crate) fn encode<T: Document>(doc: &T) -> Result<String, Error> {
    plain("id", doc.id(), ID_BYTES)?;
    plain("project_id", doc.project_id(), ID_BYTES)?;
    if doc.id().is_empty() {
        return Err(Error::Invalid(format!("A {} needs an id", T::KIND)));
    }
    let text = serde_json::to_string(doc)
        .map_err(|error| Error::Corrupt(format!("{} {} cannot be serialized: {error}", T::KIND, doc.id())))?;
    if !text.starts_with('{') {
        return Err(Error::Corrupt(format!("{} serializes to something other than an object", T::KIND)));
    }
    if text.len() > BODY_BYTES {
        let (kind, length) = (T::KIND, text.len());
        return Err(Error::Invalid(format!("The {kind} has {length} bytes and may have {BODY_BYTES}")));
    }
    if has_escaped_nul(&text) {
        return Err(Error::Invalid(format!("The {} contains the character U+0000", T::KIND)));
    }
    Ok(with_version(T::SCHEMA, text))
}

fn with_version(schema: u32, text: String) -> String {
    match (schema, text.as_str()) {
        (1, _) => text,
        (_, "{}") => format!("{{\"_v\":{schema}}}"),
        _ => format!("{{\"_v\":{schema},{}", &text[1..]),
    }
}

/// Finds `\u0000` where the backslash is not itself escaped.
fn has_escaped_nul(json: &str) -> bool {
    json.match_indices("\\u0000").any(|(at, _)| {
        let before = json.as_bytes()[..at].iter().rev().take_while(|byte| **byte == b'\\').count();
        before % 2 == 0
    })
}

/// The document of a body, lifted where it was written by an older program.
pub(crate) fn decode<T: Document>(text: &str) -> Result<T, Error> {
    let corrupt = |error: serde_json::Error| Error::Corrupt(format!("a {} cannot be read: {error}", T::KIND));
    let (from, text) = version(text)?;
    if from == T::SCHEMA {
        return serde_json::from_str(&text).map_err(corrupt);
    }
    if from > T::SCHEMA {
        let (kind, ours) = (T::KIND, T::SCHEMA);
        return Err(Error::Corrupt(format!(
            "a {kind} was written with schema {from} by a newer program (ours: {ours})"
        )));
    }
    let body = serde_json::from_str(&text).map_err(corrupt)?;
    serde_json::from_value(T::lift(from, body)?).map_err(corrupt)
}

/// Splits a body's text into its schema version and its JSON without it.
fn version(text: &str) -> Result<(u32, Cow<'_, str>), Error> {
    let Some(rest) = text.strip_prefix("{\"_v\":") else { return Ok((1, Cow::Borrowed(text))) };
    let end = rest.find([',', '}']).unwrap_or(rest.len());
    let from = rest[..end].parse().map_err(|_| Error::Corrupt(format!("no schema version in {text:.40}")))?;
    let rest = rest[end..].trim_start_matches(',');
    Ok((from, Cow::Owned(format!("{{{rest}"))))
}

/// The redacted copy of a body.
pub(crate) fn redacted<T: Document>(text: &str) -> Result<String, Error> {
    let corrupt = |error: serde_json::Error| Error::Corrupt(format!("a {} is no JSON: {error}", T::KIND));
    let (from, json) = version(text)?;
    let mut body: Value = serde_json::from_str(&json).map_err(corrupt)?;
    T::redact(&mut body);
    Ok(with_version(from, body.to_string()))
}

/// A kind with its type erased: what open needs to rebuild its entries.
#[derive(Clone, Copy)]
pub struct Kind {
    pub(crate) name: &'static str,
    pub(crate) of: TypeId,
    pub(crate) index_version: u32,
    pub(crate) keys: fn(&str) -> Result<Keys, Error>,
    pub(crate) history: bool,
    pub(crate) redacted: fn(&str) -> Result<String, Error>,
    /// Id and project as the body has them.
    pub(crate) head: fn(&str) -> Result<(String, String), Error>,
    /// Replaces and removes a document by its body and its id, with history.
    pub(crate) put: fn(&mut crate::Tx, &str) -> Result<(), Error>,
    pub(crate) delete: fn(&mut crate::Tx, &str) -> Result<(), Error>,
    pub(crate) reversing: Reversing,
    pub(crate) sealed: bool,
    /// True for a body with a secret that lies in the clear or under an older key.
    pub(crate) stale: fn(&Secrets, &str) -> Result<bool, Error>,
}

impl Kind {
    /// The word that names it in every table.
    pub fn name(&self) -> &'static str {
        self.name
    }

    pub fn of<T: Document>() -> Kind {
        Kind {
            name: T::KIND,
            of: TypeId::of::<T>(),
            index_version: T::INDEX_VERSION,
            keys: |text| Keys::of(&decode::<T>(text)?),
            history: T::HISTORY,
            redacted: redacted::<T>,
            head: |text| decode::<T>(text).map(|doc| (doc.id().to_owned(), doc.project_id().to_owned())),
            put: |tx, text| tx.put(&decode::<T>(text)?).map(drop),
            delete: |tx, id| tx.delete::<T>(id).map(drop),
            reversing: Reversing::of::<T>(),
            sealed: T::SEALED,
            stale: |secrets, text| Ok(secrets.any_stale(&mut decode::<T>(text)?)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Thing {
        id: String,
        size_bytes: u64,
    }

    impl Document for Thing {
        const KIND: &'static str = "thing";
        const SCHEMA: u32 = 3;
        fn id(&self) -> &str {
            &self.id
        }
        fn lift(from: u32, mut body: Value) -> Result<Value, Error> {
            if from < 3 {
                let kib = body.as_object_mut().and_then(|body| body.remove("size_kib"));
                body["size_bytes"] = (kib.and_then(|kib| kib.as_u64()).unwrap_or(0) * 1024).into();
            }
            Ok(body)
        }
        fn redact(body: &mut Value) {
            body["size_bytes"] = 0.into();
        }
    }

    #[test]
    fn a_body_carries_its_schema_and_older_ones_are_lifted() {
        let thing = Thing { id: "a".into(), size_bytes: 2048 };
        let text = encode(&thing).unwrap();
        assert_eq!(text, r#"{"_v":3,"id":"a","size_bytes":2048}"#);
        assert_eq!(decode::<Thing>(&text), Ok(thing.clone()));
        assert_eq!(decode::<Thing>(r#"{"id":"a","size_kib":2}"#), Ok(thing.clone()));
        assert_eq!(decode::<Thing>(r#"{"_v":2,"id":"a","size_kib":2}"#), Ok(thing));
        assert!(decode::<Thing>(r#"{"_v":4,"id":"a"}"#).is_err());
        assert_eq!(redacted::<Thing>(&text).unwrap(), r#"{"_v":3,"id":"a","size_bytes":0}"#);
    }

    #[test]
    fn nul_is_refused_and_only_nul() {
        for (text, refused) in
            [("a\0b", true), ("a\\u0000b", false), ("\\\0", true), ("\\\\u0000", false), ("ü", false)]
        {
            let thing = Thing { id: text.replace('\0', "x"), size_bytes: 1 };
            assert!(encode(&thing).is_ok());
            assert_eq!(has_escaped_nul(&serde_json::to_string(text).unwrap()), refused, "{text:?}");
        }
    }

    #[test]
    fn parts_of_unique_keys_never_run_into_each_other() {
        let lists: [&[&str]; 7] =
            [&["a", "b"], &["a/b"], &["a\\", "b"], &["a\\/b"], &["", "a/b"], &["a", "", "b"], &["/"]];
        let joined: std::collections::BTreeSet<_> = lists.iter().map(|parts| join(*parts)).collect();
        assert_eq!(joined.len(), lists.len());
        assert_eq!(join(["default", "demo"]), "default/demo");
    }
}
