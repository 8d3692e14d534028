//! Proving the tables equal to each other, and mending them: for fsck.
//!
//! A document stands in three places that one transaction writes: its row, its entries and its history. A row that was
//! changed past this crate (a hand, a torn backup) disagrees with the other two. History decides: it is only ever added
//! to. Mending writes no history, since nothing happens to the cloud: what was lost comes back as it was.

use crate::document::{Keys, Kind};
use crate::reader::{Reader, doc_row};
use crate::sql::{self, Rows, given, values};
use crate::{Error, Tx};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// Documents that are read at a time.
const PAGE: i64 = 2_000;
/// Wrong entries of one document that are named.
const NAMED: usize = 4;

/// A document about which the tables disagree.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Flaw {
    pub kind: String,
    pub id: String,
    /// The document's own name, where it has one.
    pub name: Option<String>,
    pub what: What,
    /// Why it cannot be mended; none: it can.
    pub stuck: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(tag = "flaw", rename_all = "snake_case")]
pub enum What {
    /// The body is no document of its kind.
    Unreadable { why: String },
    /// The row is not what history says; the fields that differ.
    Edited { fields: Vec<String> },
    /// History has it, the table has not.
    Lost,
    /// The table has it; history does not know it, or knows that it was deleted.
    Unknown,
    /// Index entries or unique keys are missing or too many.
    Entries { wrong: Vec<String> },
    /// Another document claims the same unique key.
    Claimed { key: String, by: String },
    /// Of a kind that this program does not have.
    Foreign,
}

impl What {
    /// As a sentence without its subject.
    pub fn describe(&self) -> String {
        match self {
            What::Unreadable { why } => format!("its document cannot be read: {why}"),
            What::Edited { fields } => format!("its document is not what its history says: {}", fields.join(", ")),
            What::Lost => "its document is gone, and nothing deleted it".into(),
            What::Unknown => "its document came from nowhere: history does not have it".into(),
            What::Entries { wrong } => format!("its index entries are wrong: {}", wrong.join(", ")),
            What::Claimed { key, by } => format!("it claims {key}, and so does {by}"),
            What::Foreign => "its kind is unknown to this program".into(),
        }
    }

    /// What mending does.
    pub fn cure(&self) -> &'static str {
        match self {
            What::Unreadable { .. } | What::Edited { .. } | What::Lost => "take the document back from its history",
            What::Unknown => "remove the document",
            What::Entries { .. } => "compute its index entries anew",
            What::Claimed { .. } | What::Foreign => "nothing",
        }
    }
}

/// A document's newest row of history.
struct Past {
    rev: i64,
    project_id: String,
    created: i64,
    at: i64,
    body: Option<String>,
}

type Entry = (&'static str, String, String, i64);

/// Everything in which the tables disagree about documents of these kinds, in the order of kind and id.
pub fn check(reader: &mut Reader, kinds: &[Kind]) -> Result<Vec<Flaw>, Error> {
    let mut flaws = Vec::new();
    let known: BTreeMap<&str, &Kind> = kinds.iter().map(|kind| (kind.name, kind)).collect();
    for mut row in reader.query(&sql::CHECK_KINDS, &[])? {
        let kind = row.text(0)?;
        if !known.contains_key(kind.as_str()) {
            let stuck = Some("a newer program may have written it".to_owned());
            flaws.push(Flaw { kind, id: String::new(), name: None, what: What::Foreign, stuck });
        }
    }
    for kind in known.values() {
        check_kind(reader, kind, &mut flaws)?;
    }
    flaws.sort();
    Ok(flaws)
}

fn check_kind(reader: &mut Reader, kind: &Kind, flaws: &mut Vec<Flaw>) -> Result<(), Error> {
    let mut past = if kind.history { newest(reader, kind.name)? } else { BTreeMap::new() };
    let mut entries = entries(reader, kind.name)?;
    let mut owners: BTreeMap<(&'static str, String), String> = BTreeMap::new();
    let (mut created, mut after) = (i64::MIN, String::new());
    loop {
        let page = reader.query(&sql::LIST_ALL[0], &given![kind.name, created, &after, PAGE])?;
        let rows = page.into_iter().map(doc_row).collect::<Result<Vec<_>, _>>()?;
        let Some(last) = rows.last() else { break };
        (created, after) = (last.created, last.id.clone());
        for row in &rows {
            let (past, found) = (past.remove(&row.id), entries.remove(&row.id).unwrap_or_default());
            let name = name(&row.body).or_else(|| name(past.as_ref()?.body.as_deref()?));
            let mut note = |what: What, stuck: Option<String>| {
                flaws.push(Flaw { kind: kind.name.into(), id: row.id.clone(), name: name.clone(), what, stuck });
            };
            let keys = (kind.keys)(&row.body);
            let mut claimed = false;
            if let Ok(keys) = &keys {
                for (key, value) in &keys.uniques {
                    if let Some(by) = owners.insert((key, value.clone()), row.id.clone()) {
                        let stuck = Some("only their owners know which of them shall have it".to_owned());
                        claimed = true;
                        note(What::Claimed { key: format!("{key} {value}"), by }, stuck);
                    }
                }
            }
            match judge(kind, row, &keys, past.as_ref()) {
                Some(what) => {
                    let whole = past.as_ref().and_then(|past| past.body.as_deref());
                    let stuck = match (&what, whole) {
                        (What::Unknown, _) => None,
                        (_, None) => Some("no history has it".to_owned()),
                        (What::Edited { .. }, Some(_)) => None,
                        (_, Some(body)) => secret(kind, body),
                    };
                    note(what, stuck);
                }
                None => {
                    let wanted = keys.map(|keys| wanted(&keys, row.created)).unwrap_or_default();
                    let wrong = differing(&wanted, &found);
                    if !wrong.is_empty() && !claimed {
                        note(What::Entries { wrong }, None);
                    }
                }
            }
        }
    }
    for (id, past) in past {
        entries.remove(&id);
        let Some(body) = &past.body else { continue };
        let (name, stuck) = (name(body), secret(kind, body));
        flaws.push(Flaw { kind: kind.name.into(), id, name, what: What::Lost, stuck });
    }
    for (id, found) in entries {
        let wrong = differing(&BTreeSet::new(), &found);
        flaws.push(Flaw { kind: kind.name.into(), id, name: None, what: What::Entries { wrong }, stuck: None });
    }
    Ok(())
}

/// What is wrong with a row, looked at beside its newest history.
fn judge(kind: &Kind, row: &crate::buffer::DocRow, keys: &Result<Keys, Error>, past: Option<&Past>) -> Option<What> {
    let unreadable = |error: &Error| Some(What::Unreadable { why: error.to_string() });
    let head = match (keys, (kind.head)(&row.body)) {
        (Err(error), _) => return unreadable(error),
        (_, Err(error)) => return unreadable(&error),
        (Ok(_), Ok(head)) => head,
    };
    let mut fields = Vec::new();
    if head != (row.id.clone(), row.project_id.clone()) {
        fields.push("its id or project".to_owned());
    }
    if !kind.history {
        let why = format!("it bears the id {} and the project '{}'", head.0, head.1);
        return (!fields.is_empty()).then_some(What::Unreadable { why });
    }
    let Some(Past { body: Some(kept), rev, project_id, created, .. }) = past else { return Some(What::Unknown) };
    let redacted = match (kind.redacted)(&row.body) {
        Ok(text) => text,
        Err(error) => return unreadable(&error),
    };
    fields.extend(differing_fields(&redacted, kept));
    if (*rev, project_id, *created) != (row.rev, &row.project_id, row.created) && fields.is_empty() {
        fields.push("its row".to_owned());
    }
    (!fields.is_empty()).then_some(What::Edited { fields })
}

/// The top-level fields in which two bodies differ.
fn differing_fields(one: &str, other: &str) -> Vec<String> {
    if one == other {
        return Vec::new();
    }
    let parse = |text: &str| serde_json::from_str::<BTreeMap<String, Value>>(text).unwrap_or_default();
    let (one, other) = (parse(one), parse(other));
    let names: BTreeSet<&String> = one.keys().chain(other.keys()).collect();
    names.into_iter().filter(|name| one.get(*name) != other.get(*name)).cloned().collect()
}

fn name(body: &str) -> Option<String> {
    let body: Value = serde_json::from_str(body).ok()?;
    body.get("name")?.as_str().filter(|name| !name.is_empty()).map(str::to_owned)
}

/// Why a document cannot come back from its history: the secrets in it are not there.
fn secret(kind: &Kind, body: &str) -> Option<String> {
    let mut probe: BTreeMap<String, Value> = serde_json::from_str(body).unwrap_or_default();
    probe.values_mut().for_each(|value| *value = "a probe".into());
    let text = serde_json::to_string(&probe).unwrap_or_default();
    let gone = (kind.redacted)(&text).map(|redacted| differing_fields(&redacted, &text)).unwrap_or_default();
    (!gone.is_empty()).then(|| format!("history does not keep its {}", gone.join(", ")))
}

fn newest(reader: &mut Reader, kind: &str) -> Result<BTreeMap<String, Past>, Error> {
    let rows = reader.query(&sql::CHECK_PAST, &[kind.into()])?;
    rows.into_iter().map(past_row).collect()
}

fn past_row(mut row: sql::Row) -> Result<(String, Past), Error> {
    let (rev, project_id) = (row.int(1)? / 65_536, row.text(2)?);
    let (created, at, body) = (row.int(3)?, row.int(4)?, row.maybe_text(5));
    Ok((row.text(0)?, Past { rev, project_id, created, at, body }))
}

fn entries(reader: &mut Reader, kind: &str) -> Result<BTreeMap<String, BTreeSet<Entry>>, Error> {
    let mut found: BTreeMap<String, BTreeSet<Entry>> = BTreeMap::new();
    for mut row in reader.query(&sql::CHECK_INDEXES, &[kind.into()])? {
        let entry = ("index", row.text(0)?, row.text(1)?, row.int(2)?);
        found.entry(row.text(3)?).or_default().insert(entry);
    }
    for mut row in reader.query(&sql::CHECK_UNIQUES, &[kind.into()])? {
        let entry = ("unique", row.text(0)?, row.text(1)?, 0);
        found.entry(row.text(2)?).or_default().insert(entry);
    }
    Ok(found)
}

fn wanted(keys: &Keys, created: i64) -> BTreeSet<Entry> {
    let indexes = keys.indexes.iter().map(|(name, value)| ("index", (*name).to_owned(), value.clone(), created));
    let uniques = keys.uniques.iter().map(|(name, value)| ("unique", (*name).to_owned(), value.clone(), 0));
    indexes.chain(uniques).collect()
}

fn differing(wanted: &BTreeSet<Entry>, found: &BTreeSet<Entry>) -> Vec<String> {
    let missing = wanted.difference(found).map(|(way, name, value, _)| format!("{way} {name}={value} is missing"));
    let surplus = found.difference(wanted).map(|(way, name, value, _)| format!("{way} {name}={value} is too many"));
    missing.chain(surplus).take(NAMED).collect()
}

impl Reader {
    /// Every document of a kind as it lies in the store: id and body. For checks across kinds, not for answers.
    pub fn bodies(&mut self, kind: &Kind) -> Result<Vec<(String, String)>, Error> {
        let all = crate::Query::all();
        Ok(self.rows(kind.name, &all)?.into_iter().map(|row| (row.id, row.body)).collect())
    }
}

impl Tx {
    /// Replaces a document by its body, as [`Tx::put`] does.
    pub fn put_body(&mut self, kind: &Kind, body: &str) -> Result<(), Error> {
        (kind.put)(self, body)
    }

    /// Removes a document, as [`Tx::delete`] does.
    pub fn delete_body(&mut self, kind: &Kind, id: &str) -> Result<(), Error> {
        (kind.delete)(self, id)
    }

    /// Mends one document. True when it is as it shall be afterwards; false when nothing can be done for it. What other
    /// documents stand in the way of (a unique key that they hold wrongly) works once those are mended.
    pub fn mend(&mut self, kinds: &[Kind], kind: &str, id: &str) -> Result<bool, Error> {
        let Some(kind) = kinds.iter().find(|known| known.name == kind) else { return Ok(false) };
        let row = self.query(&sql::GET, &given![kind.name, id])?.pop().map(doc_row).transpose()?;
        let past = match kind.history {
            true => self.query(&sql::CHECK_PAST_ONE, &given![kind.name, id])?.pop().map(past_row).transpose()?,
            false => None,
        };
        let past = past.map(|(_, past)| past);
        let keys = row.as_ref().map(|row| (kind.keys)(&row.body));
        let wrong = match (&row, &keys) {
            (Some(row), Some(keys)) => judge(kind, row, keys, past.as_ref()),
            _ => past.as_ref().is_some_and(|past| past.body.is_some()).then_some(What::Lost),
        };
        let row = match wrong {
            None => row,
            Some(What::Unknown) => None,
            Some(what) => {
                let Some(Past { body: Some(kept), rev, project_id, created, at }) = past else { return Ok(false) };
                let edited = matches!(what, What::Edited { .. });
                if !edited && secret(kind, &kept).is_some() {
                    return Ok(false);
                }
                let body = match (&row, edited) {
                    (Some(row), true) => with_secrets(kind, &row.body, &kept)?,
                    _ => kept,
                };
                let (id, updated) = (id.to_owned(), at);
                Some(crate::buffer::DocRow { id, project_id, rev, created, updated, body })
            }
        };
        self.place(kind, id, row.as_ref())?;
        Ok(true)
    }

    /// Replaces a document's row and its entries, or removes them.
    fn place(&mut self, kind: &Kind, id: &str, row: Option<&crate::buffer::DocRow>) -> Result<(), Error> {
        for statement in [&sql::MEND_DOCUMENT, &sql::MEND_INDEXES, &sql::MEND_UNIQUES] {
            self.execute(statement, &given![kind.name, id])?;
        }
        let Some(row) = row else { return Ok(()) };
        let keys = (kind.keys)(&row.body)?;
        // An entry that another document holds wrongly is in the way of the one that is entitled to it.
        for (name, value) in &keys.uniques {
            self.execute(&sql::MEND_CLAIM, &given![kind.name, *name, value])?;
        }
        let document = vec![values![kind.name, id, &row.project_id, row.rev, row.created, row.updated, &row.body]];
        let index = |(name, value): &(&'static str, String)| (*name, value.clone());
        let (indexes, uniques): (Vec<_>, Vec<_>) =
            (keys.indexes.iter().map(index).collect(), keys.uniques.iter().map(index).collect());
        let indexes = indexes.iter().map(|(name, value)| values![kind.name, *name, value, row.created, id]).collect();
        let uniques = uniques.iter().map(|(name, value)| values![kind.name, *name, value, id]).collect();
        let reader: &mut Reader = self;
        let written = reader.conn.flush(&[
            Rows { write: &sql::DOCUMENT_INSERT, rows: document },
            Rows { write: &sql::INDEX_INSERT, rows: indexes },
            Rows { write: &sql::UNIQUE_INSERT, rows: uniques },
        ]);
        written.inspect_err(|error| reader.failed = Some(error.clone()))
    }
}

/// The history's body with the secrets of the row.
fn with_secrets(kind: &Kind, current: &str, kept: &str) -> Result<String, Error> {
    let corrupt = |error: serde_json::Error| Error::Corrupt(format!("a {} is no JSON: {error}", kind.name));
    let secrets = differing_fields(&(kind.redacted)(current)?, current);
    if secrets.is_empty() {
        return Ok(kept.to_owned());
    }
    let current: BTreeMap<String, Value> = serde_json::from_str(current).map_err(corrupt)?;
    let mut body: BTreeMap<String, Value> = serde_json::from_str(kept).map_err(corrupt)?;
    body.extend(secrets.into_iter().filter_map(|name| Some((name.clone(), current.get(&name)?.clone()))));
    serde_json::to_string(&body).map_err(corrupt)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Cause, Document, Options, Store};
    use base::Fault;

    #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
    struct Door {
        id: String,
        name: String,
        room: String,
        code: Option<String>,
    }

    impl Document for Door {
        const KIND: &'static str = "door";
        fn id(&self) -> &str {
            &self.id
        }
        fn keys(&self, keys: &mut Keys) {
            keys.index("room", self.room.as_str());
            keys.unique("name", [&self.name]);
        }
        fn redact(body: &mut Value) {
            if body["code"].is_string() {
                body["code"] = "".into();
            }
        }
    }

    static EDIT: sql::Sql = sql::Sql::new("UPDATE document SET body = REPLACE(body, $1, $2)");
    static LOSE: sql::Sql = sql::Sql::new("DELETE FROM document WHERE id = $1");
    static FORGET: sql::Sql = sql::Sql::new("DELETE FROM history WHERE id = $1");
    static UNINDEX: sql::Sql = sql::Sql::new("DELETE FROM index_entry WHERE id = $1");
    static STRAY: sql::Sql =
        sql::Sql::new("INSERT INTO unique_entry(kind, name, value, id) VALUES('door', 'name', $1, 'nobody')");

    static MOVE: sql::Sql = sql::Sql::new("UPDATE document SET project_id = $2 WHERE id = $1");
    static UNKEY: sql::Sql = sql::Sql::new("DELETE FROM unique_entry WHERE id = $1");
    static SURPLUS: sql::Sql =
        sql::Sql::new("INSERT INTO index_entry(kind, name, value, sort, id) VALUES('door', 'room', $2, 1, $1)");
    static GHOST: sql::Sql = sql::Sql::new(
        "INSERT INTO document(kind, id, project_id, rev, created, updated, body) VALUES('door', $1, '', 1, 1, 1, $2)",
    );
    static STOLEN: sql::Sql = sql::Sql::new("UPDATE unique_entry SET id = $1, value = $2 WHERE value = $2");

    fn door(id: &str, name: &str, code: Option<&str>) -> Door {
        Door { id: id.into(), name: name.into(), room: "hall".into(), code: code.map(str::to_owned) }
    }

    /// Damages a store by hand; says what is found, and whether mending brings everything back.
    async fn round(options: Options, damage: &[(&'static sql::Sql, &[&str])]) -> (Vec<String>, bool) {
        let store = Store::open(options.kind::<Door>(), base::Env::system()).await.unwrap();
        let kinds = [Kind::of::<Door>()];
        let make = |tx: &mut Tx| {
            tx.create(&door("a", "front", Some("1234")))?;
            tx.create(&door("b", "back", None))?;
            Ok::<_, Fault>(())
        };
        store.write(Cause::default(), make).await.unwrap();
        let all = || store.list::<Door>(crate::Query::all());
        let (before, clean) = (all().await.unwrap(), store.read(move |r| Ok(check(r, &kinds)?)).await.unwrap());
        assert_eq!(clean, []);
        let damage: Vec<(&'static sql::Sql, Vec<String>)> =
            damage.iter().map(|(sql, values)| (*sql, values.iter().map(|v| (*v).to_owned()).collect())).collect();
        let hurt = move |tx: &mut Tx| {
            for (sql, values) in &damage {
                tx.execute(sql, &values.iter().map(sql::Value::from).collect::<Vec<_>>())?;
            }
            Ok::<_, Fault>(())
        };
        store.write(Cause::default(), hurt).await.unwrap();
        let flaws = store.read(move |r| Ok(check(r, &kinds)?)).await.unwrap();
        let shown = flaws.iter().map(|f| format!("{} {} {}", f.id, f.what.describe(), f.stuck.is_none())).collect();
        let mend = move |tx: &mut Tx| {
            for flaw in &flaws {
                assert!(tx.mend(&kinds, &flaw.kind, &flaw.id)? || flaw.stuck.is_some());
            }
            Ok::<_, Fault>(())
        };
        store.write(Cause::default(), mend).await.unwrap();
        let clean = store.read(move |r| Ok(check(r, &kinds)?)).await.unwrap().is_empty();
        (shown, clean && all().await.is_ok_and(|now| now == before))
    }

    /// Every kind of damage to the tables, each in a store of its own.
    async fn damage_by_hand(mut options: impl FnMut() -> Options) {
        let mut round = async |damage: &[(&'static sql::Sql, &[&str])]| round(options(), damage).await;
        let edited = "a its document is not what its history says: name true";
        assert_eq!(round(&[(&EDIT, &["front", "side"])]).await, (vec![edited.into()], true));
        assert_eq!(
            round(&[(&LOSE, &["b"])]).await.0,
            ["b its document is gone, and nothing deleted it false"],
            "a door may have a code, which history does not keep"
        );
        let (found, mended) = round(&[(&EDIT, &["{\"id\":\"b\"", "{\"id\":\"b"])]).await;
        assert!(found[0].starts_with("b its document cannot be read"), "{found:?}");
        assert!(!mended);
        let (found, mended) = round(&[(&UNINDEX, &["b"]), (&STRAY, &["cellar"])]).await;
        assert_eq!(found[0], "b its index entries are wrong: index room=hall is missing true");
        assert_eq!(found[1], "nobody its index entries are wrong: unique name=cellar is too many true");
        assert!(mended);
        let (found, _) = round(&[(&FORGET, &["a"])]).await;
        assert_eq!(found, ["a its document came from nowhere: history does not have it true"]);
        let (found, mended) = round(&[(&EDIT, &["back", "front"])]).await;
        assert_eq!(found[0], "b its document is not what its history says: name true");
        assert_eq!(found[1], "b it claims name front, and so does a false");
        assert!(mended);
        let (found, mended) =
            round(&[(&MOVE, &["b", "elsewhere"]), (&UNKEY, &["a"]), (&SURPLUS, &["a", "cellar"])]).await;
        assert_eq!(
            found[0],
            "a its index entries are wrong: unique name=front is missing, index room=cellar is too many true"
        );
        assert_eq!(found[1], "b its document is not what its history says: its id or project true");
        assert!(mended);
        let (found, mended) =
            round(&[(&GHOST, &["c", "{\"id\":\"c\",\"name\":\"\",\"room\":\"\",\"code\":null}"])]).await;
        assert_eq!(found, ["c its document came from nowhere: history does not have it true"]);
        assert!(mended);
        let (found, mended) = round(&[(&STOLEN, &["b", "front"])]).await;
        assert_eq!(found[0], "a its index entries are wrong: unique name=front is missing true");
        assert_eq!(found[1], "b its index entries are wrong: unique name=front is too many true");
        assert!(mended);
    }

    #[tokio::test]
    async fn damage_by_hand_is_found_and_mended_from_history() {
        damage_by_hand(Options::memory).await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn damage_by_hand_is_found_and_mended_on_postgresql() {
        let Some(server) = testkit::Postgres::start() else { return };
        let mut count = 0;
        let options = || {
            count += 1;
            Options::new(server.database(&format!("damage{count}")))
        };
        damage_by_hand(options).await;
    }
}
