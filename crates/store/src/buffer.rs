//! What a transaction has changed and not yet written: the overlay that its own reads see, and the rows it becomes.

use crate::document::{Keys, join};
use crate::sql::{self, Rows, Value, Write, values};
use crate::trash::Charged;
use crate::{Cause, Change, Error, Rev, Usage, ledger};
use base::Timestamp;
use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

/// The most documents one transaction may touch: `seq` has 16 bits for them.
pub(crate) const DOCUMENTS: usize = 20_000;

/// A document's row.
#[derive(Clone, Debug)]
pub(crate) struct DocRow {
    pub id: String,
    pub project_id: String,
    pub rev: i64,
    pub created: i64,
    pub updated: i64,
    pub body: String,
}

/// A document that the transaction touched.
#[derive(Clone)]
pub(crate) struct Entry {
    /// As committed, and its keys.
    pub before: Option<(DocRow, Keys)>,
    /// As the transaction leaves it; `None`: deleted.
    pub after: Option<(DocRow, Keys)>,
    pub history: bool,
    /// Rests in the trash when it is deleted.
    pub trash: bool,
    pub redacted: fn(&str) -> Result<String, Error>,
    /// The order of first touch, which is the order in history and watch.
    pub order: usize,
}

impl Entry {
    /// False when the transaction left it as it was.
    fn changed(&self) -> bool {
        match (&self.before, &self.after) {
            (None, None) => false,
            (Some((a, _)), Some((b, _))) => a.body != b.body || a.project_id != b.project_id || a.created != b.created,
            _ => true,
        }
    }
}

#[derive(Clone)]
pub(crate) struct LedgerRow {
    pub before: Option<Usage>,
    pub after: Usage,
}

#[derive(Clone, Default)]
pub(crate) struct Buffer {
    pub entries: BTreeMap<&'static str, BTreeMap<String, Entry>>,
    /// Who owns a unique key now, where the transaction changed that.
    pub owners: HashMap<(&'static str, &'static str, String), Option<String>>,
    pub ledger: BTreeMap<(String, String), LedgerRow>,
    pub meta: BTreeMap<String, i64>,
    pub touched: usize,
}

impl Buffer {
    pub fn entry(&self, kind: &str, id: &str) -> Option<&Entry> {
        self.entries.get(kind)?.get(id)
    }

    pub fn entry_mut(&mut self, kind: &str, id: &str) -> Option<&mut Entry> {
        self.entries.get_mut(kind)?.get_mut(id)
    }

    pub fn of_kind(&self, kind: &str) -> impl Iterator<Item = &Entry> {
        self.entries.get(kind).into_iter().flat_map(BTreeMap::values)
    }

    /// Passes unique keys from what a document had to what it has now.
    pub fn pass_keys(&mut self, kind: &'static str, id: &str, old: &Keys, new: &Keys) {
        for (name, value) in &old.uniques {
            self.owners.insert((kind, name, value.clone()), None);
        }
        for (name, value) in &new.uniques {
            self.owners.insert((kind, name, value.clone()), Some(id.to_owned()));
        }
    }

    /// The changed entries in the order in which they were touched.
    pub fn changed(&self) -> Vec<(&'static str, &str, &Entry)> {
        let all = self.entries.iter().flat_map(|(kind, ids)| ids.iter().map(move |(id, e)| (*kind, id.as_str(), e)));
        let mut changed: Vec<_> = all.filter(|(_, _, entry)| entry.changed()).collect();
        changed.sort_by_key(|(_, _, entry)| entry.order);
        changed
    }

    /// Whether any document or ledger row is changed.
    pub fn any_changed(&self) -> bool {
        let ledger = |row: &LedgerRow| row.before.unwrap_or_default() != row.after;
        self.entries.values().flat_map(BTreeMap::values).any(Entry::changed) || self.ledger.values().any(ledger)
    }

    /// What the watch will tell and history will keep, secrets blanked.
    pub fn changes(&self, rev: Rev, now: Timestamp) -> Result<Vec<Change>, Error> {
        let mut changes = Vec::new();
        for (kind, id, entry) in self.changed() {
            let Some(row) = entry.after.as_ref().or(entry.before.as_ref()).map(|(row, _)| row) else { continue };
            // What comes back says that it last changed when it did.
            let (body, updated) = match &entry.after {
                Some((row, _)) => (Some(Arc::from((entry.redacted)(&row.body)?)), Timestamp(row.updated)),
                None => (None, now),
            };
            changes.push(Change {
                rev,
                kind: Cow::Borrowed(kind),
                id: id.to_owned(),
                project_id: row.project_id.clone(),
                created: Timestamp(row.created),
                updated,
                existed: entry.before.is_some(),
                left: left(entry),
                kept: entry.history,
                body,
            });
        }
        Ok(changes)
    }

    /// What history will keep of the ledger.
    pub fn ledger_past(&self) -> Result<Vec<ledger::Past>, Error> {
        let changed = self.ledger.iter().filter(|(_, row)| row.before.unwrap_or_default() != row.after);
        changed.map(|((scope, resource), row)| ledger::Past::new(scope, resource, row.after)).collect()
    }

    /// The rows to write, in an order in which no two of them can clash: ledger, then what is deleted, then the rest.
    pub fn rows<'a>(
        &'a self,
        rev: Rev,
        changes: &'a [Change],
        ledger: &'a [ledger::Past],
        cause: &'a Cause,
        now: Timestamp,
        charged: &'a str,
    ) -> Vec<Rows<'a>> {
        let mut rows = Groups::default();
        for ((scope, resource), row) in &self.ledger {
            let Usage { used, limit } = row.after;
            match row.before {
                // A row that says nothing need not be there.
                None if row.after == Usage::default() => {}
                None => rows.add(&sql::LEDGER_INSERT, values![scope, resource, used, limit]),
                Some(old) if old != row.after => {
                    rows.add(&sql::LEDGER_UPDATE, values![scope, resource, used, limit, old.used]);
                }
                Some(_) => {}
            }
        }
        for (kind, id, entry) in self.changed() {
            entry_rows(&mut rows, kind, id, entry);
        }
        let n = self.history_rows(&mut rows, changes, cause, now);
        let request = cause.request_id.as_str();
        if n > 0 && !request.is_empty() {
            rows.add(&sql::REQUEST_INSERT, values![rev.0 as i64, request, charged]);
        }
        for (n, past) in (n..).zip(ledger) {
            rows.add(
                &sql::HISTORY_INSERT,
                values![
                    seq(rev, n),
                    ledger::KIND,
                    &past.id,
                    "",
                    0,
                    &cause.actor,
                    request,
                    &cause.what,
                    now.0,
                    past.body.as_deref(),
                    now.0
                ],
            );
        }
        rows.sorted()
    }

    /// `seq` is the revision and the place in it. A document that changed hands leaves a deletion with its old project,
    /// so that the past of that project ends there; `past.rs` hides it from everything that is not a project's list.
    /// Returns the place after the last.
    fn history_rows<'a>(
        &'a self,
        rows: &mut Groups<'a>,
        changes: &'a [Change],
        cause: &'a Cause,
        now: Timestamp,
    ) -> i64 {
        let mut n = 0;
        for change in changes {
            let Some(entry) = self.entry(&change.kind, &change.id).filter(|entry| entry.history) else { continue };
            let mut add = |project_id: &'a str, body: Option<&'a str>| {
                let seq = seq(change.rev, n);
                n += 1;
                let (actor, request_id, what) = (&cause.actor, cause.request_id.as_str(), &cause.what);
                let (kind, id, created) = (&*change.kind, &change.id, change.created.0);
                rows.add(
                    &sql::HISTORY_INSERT,
                    values![seq, kind, id, project_id, created, actor, request_id, what, now.0, body, change.updated.0],
                );
            };
            if let (Some((old, _)), Some(_)) = (&entry.before, &entry.after)
                && old.project_id != change.project_id
            {
                add(&old.project_id, None);
            }
            add(&change.project_id, change.body.as_deref());
        }
        n
    }

    /// By how much each row of the ledger rose or fell: what an undo takes back.
    pub fn charged(&self) -> Vec<Charged> {
        let changed = self.ledger.iter().map(|((scope, resource), row)| Charged {
            scope: scope.clone(),
            resource: resource.clone(),
            delta: row.after.used - row.before.unwrap_or_default().used,
        });
        changed.filter(|charged| charged.delta != 0).collect()
    }

    /// What the transaction would change, secrets blanked.
    pub fn differences(&self) -> Result<Vec<Difference>, Error> {
        let mut differences = Vec::new();
        for (kind, id, entry) in self.changed() {
            let show = |side: &Option<(DocRow, Keys)>| match side {
                Some((row, _)) => {
                    let body = (entry.redacted)(&row.body)?;
                    serde_json::from_str(&body).map(Some).map_err(|error| Error::Corrupt(error.to_string()))
                }
                None => Ok(None),
            };
            let project_id = entry.after.as_ref().or(entry.before.as_ref()).map(|(row, _)| row.project_id.clone());
            differences.push(Difference::Document {
                kind,
                id: id.to_owned(),
                project_id: project_id.unwrap_or_default(),
                before: show(&entry.before)?,
                after: show(&entry.after)?,
            });
        }
        for ((scope, resource), row) in &self.ledger {
            if row.before.unwrap_or_default() != row.after {
                let (scope, resource) = (scope.clone(), resource.clone());
                differences.push(Difference::Ledger { scope, resource, before: row.before, after: row.after });
            }
        }
        Ok(differences)
    }
}

/// The project that a document has left.
fn left(entry: &Entry) -> Option<String> {
    let (Some((before, _)), Some((after, _))) = (&entry.before, &entry.after) else { return None };
    (before.project_id != after.project_id).then(|| before.project_id.clone())
}

/// Where a revision's n-th row stands in history.
pub(crate) fn seq(rev: Rev, n: i64) -> i64 {
    (rev.0 as i64) * 65_536 + n
}

/// One thing that a dry run would have changed.
#[derive(Clone, Debug, PartialEq)]
pub enum Difference {
    Document {
        kind: &'static str,
        id: String,
        project_id: String,
        before: Option<serde_json::Value>,
        after: Option<serde_json::Value>,
    },
    Ledger {
        scope: String,
        resource: String,
        before: Option<Usage>,
        after: Usage,
    },
}

/// The rows of one document and its keys.
fn entry_rows<'a>(rows: &mut Groups<'a>, kind: &'static str, id: &'a str, entry: &'a Entry) {
    let empty = &*EMPTY;
    let (before, old) = entry.before.as_ref().map_or((None, empty), |(row, keys)| (Some(row), keys));
    let (after, new) = entry.after.as_ref().map_or((None, empty), |(row, keys)| (Some(row), keys));
    match (before, after) {
        (None, Some(row)) => rows.add(
            &sql::DOCUMENT_INSERT,
            values![kind, id, &row.project_id, row.rev, row.created, row.updated, &row.body],
        ),
        (Some(was), Some(row)) => rows.add(
            &sql::DOCUMENT_UPDATE,
            values![kind, id, &row.project_id, row.rev, row.created, row.updated, &row.body, was.rev],
        ),
        (Some(was), None) => rows.add(&sql::DOCUMENT_DELETE, values![kind, id, was.rev]),
        (None, None) => {}
    }
    // A document deleted and created again has a new place in every list.
    let moved = matches!((before, after), (Some(a), Some(b)) if a.created != b.created);
    for (name, value) in old.indexes.iter().filter(|key| moved || !new.indexes.contains(key)) {
        rows.add(&sql::INDEX_DELETE, values![kind, *name, value, before.map(|row| row.created), id]);
    }
    for (name, value) in new.indexes.iter().filter(|key| moved || !old.indexes.contains(key)) {
        rows.add(&sql::INDEX_INSERT, values![kind, *name, value, after.map(|row| row.created), id]);
    }
    for (name, value) in old.uniques.iter().filter(|key| !new.uniques.contains(key)) {
        rows.add(&sql::UNIQUE_DELETE, values![kind, *name, value, id]);
    }
    for (name, value) in new.uniques.iter().filter(|key| !old.uniques.contains(key)) {
        rows.add(&sql::UNIQUE_INSERT, values![kind, *name, value, id]);
    }
}

static EMPTY: std::sync::LazyLock<Keys> = std::sync::LazyLock::new(Keys::default);

/// Rows grouped by statement.
#[derive(Default)]
struct Groups<'a>(Vec<Rows<'a>>);

impl<'a> Groups<'a> {
    fn add(&mut self, write: &'static Write, row: Vec<Value<'a>>) {
        match self.0.iter_mut().find(|rows| std::ptr::eq(rows.write, write)) {
            Some(rows) => rows.rows.push(row),
            None => self.0.push(Rows { write, rows: vec![row] }),
        }
    }

    /// Deletes of unique entries come before inserts, so that two documents can swap a key.
    fn sorted(mut self) -> Vec<Rows<'a>> {
        let order: [&Write; 11] = [
            &sql::LEDGER_INSERT,
            &sql::LEDGER_UPDATE,
            &sql::UNIQUE_DELETE,
            &sql::INDEX_DELETE,
            &sql::DOCUMENT_DELETE,
            &sql::DOCUMENT_UPDATE,
            &sql::DOCUMENT_INSERT,
            &sql::UNIQUE_INSERT,
            &sql::INDEX_INSERT,
            &sql::HISTORY_INSERT,
            &sql::REQUEST_INSERT,
        ];
        self.0.sort_by_key(|rows| order.iter().position(|write| std::ptr::eq(*write, rows.write)));
        self.0
    }
}

/// The text under which a unique key is kept.
pub(crate) fn unique_value<P: AsRef<str>>(parts: impl IntoIterator<Item = P>) -> String {
    join(parts)
}
