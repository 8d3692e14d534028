//! The write transaction as a closure sees it.
//!
//! Changes are buffered here and written once at the end; reads through the same [`Tx`] see them. There is one writer
//! at a time, so what a closure read stays true until its commit: read, change, [`Tx::update`] needs no comparison.

use crate::buffer::{Buffer, DOCUMENTS, DocRow, Entry, LedgerRow};
use crate::document::{Document, Keys, Rev, Stored, decode, encode, plain, redacted};
use crate::reader::{Reader, stored, usage};
use crate::sql::{self, Value};
use crate::{Error, Usage};
use base::{Env, Timestamp};
use std::cell::RefCell;
use std::collections::HashSet;
use std::ops::{Deref, DerefMut};

/// The most bytes of a ledger's scope or resource, or of a meta name.
const NAME_BYTES: usize = 512;

/// A write transaction. Everything that a [`Reader`] can do, and changes.
pub struct Tx {
    reader: Reader,
    rev: Rev,
    now: Timestamp,
    /// The newest `created` given so far by this process.
    created: i64,
    /// Ids that this transaction drew: no document has them yet.
    fresh: RefCell<HashSet<String>>,
    /// What it deletes does not rest in the trash.
    pub(crate) at_once: bool,
    /// The engine has a savepoint from before anything that this job wrote.
    pub(crate) saved: bool,
}

/// A change of one ledger row; see [`Tx::charge`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Charge<'a> {
    pub resource: &'a str,
    pub delta: i64,
    pub default_limit: Option<i64>,
}

/// A document that a transaction has changed; see [`Tx::touched`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Touched {
    pub kind: &'static str,
    pub id: String,
    pub project_id: String,
    /// Whether it was there before the transaction, and whether it is there after it.
    pub before: bool,
    pub after: bool,
}

impl Deref for Tx {
    type Target = Reader;
    fn deref(&self) -> &Reader {
        &self.reader
    }
}

impl DerefMut for Tx {
    fn deref_mut(&mut self) -> &mut Reader {
        &mut self.reader
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Mode {
    Create,
    Update,
    Put,
}

impl Tx {
    pub(crate) fn new(reader: Reader) -> Tx {
        Tx {
            reader,
            rev: Rev(0),
            now: Timestamp(0),
            created: 0,
            fresh: RefCell::default(),
            at_once: false,
            saved: false,
        }
    }

    /// Forgets the last job and starts one on top of the commit `base`.
    pub(crate) fn start(&mut self, base: Rev) {
        let reader = &mut self.reader;
        reader.buffer = Default::default();
        reader.seen.clear();
        reader.failed = None;
        reader.base = Some(base);
        self.fresh.get_mut().clear();
        self.at_once = false;
        self.saved = false;
        self.rev = Rev(base.0 + 1);
        self.now = reader.shared.env.now().max(self.now);
    }

    /// Begins with what earlier writes of the same dry run would have changed.
    pub(crate) fn lay_over(&mut self, overlay: Buffer) {
        self.reader.buffer = overlay;
    }

    pub(crate) fn stop(&mut self) {
        let reader = &mut self.reader;
        reader.buffer = Default::default();
        reader.seen.clear();
        reader.base = None;
    }

    /// The documents that this transaction has changed so far, in the order in which it touched them.
    pub fn touched(&self) -> Vec<Touched> {
        let changed = self.reader.buffer.changed().into_iter();
        let touched = changed.map(|(kind, id, entry)| {
            let project = entry.after.as_ref().or(entry.before.as_ref()).map(|(row, _)| row.project_id.clone());
            let (before, after) = (entry.before.is_some(), entry.after.is_some());
            Touched { kind, id: id.to_owned(), project_id: project.unwrap_or_default(), before, after }
        });
        touched.collect()
    }

    /// False while the transaction would leave everything as it was.
    pub(crate) fn changes_anything(&self) -> bool {
        let buffer = &self.reader.buffer;
        buffer.any_changed() || !buffer.meta.is_empty()
    }

    /// The revision that this transaction becomes if it changes anything.
    pub fn rev(&self) -> Rev {
        self.rev
    }

    /// The time of this transaction; never before that of an earlier one of this process.
    pub fn now(&self) -> Timestamp {
        self.now
    }

    /// Time and randomness. A closure that runs again draws again.
    pub fn env(&self) -> &Env {
        &self.reader.shared.env
    }

    /// A new time-ordered id, dashed. Ordered ids write 1.3 to 2.2 times as fast as random ones, and `create` need not
    /// ask whether one that was drawn here exists already.
    pub fn uuid(&self) -> String {
        self.drawn(self.env().uuid())
    }

    /// A new time-ordered id of 32 hex digits.
    pub fn uuid_hex(&self) -> String {
        self.drawn(self.env().uuid_hex())
    }

    fn drawn(&self, id: String) -> String {
        self.fresh.borrow_mut().insert(id.clone());
        id
    }

    /// Adds a document. [`Error::Exists`] for its id, [`Error::Taken`] for a unique key.
    pub fn create<T: Document>(&mut self, doc: &T) -> Result<Stored<T>, Error> {
        self.keep(doc, Mode::Create)?;
        self.reader.need(doc.id())
    }

    /// Replaces a document that must exist. One that is equal already is left alone: no revision, no history, no watch.
    /// Tells whether anything changed.
    pub fn update<T: Document>(&mut self, doc: &T) -> Result<bool, Error> {
        self.keep(doc, Mode::Update)
    }

    /// Adds or replaces. For documents whose existence means nothing; otherwise say which of the two is meant.
    pub fn put<T: Document>(&mut self, doc: &T) -> Result<bool, Error> {
        self.keep(doc, Mode::Put)
    }

    /// Changes a document that must exist, and returns it as it then is.
    pub fn modify<T: Document>(&mut self, id: &str, change: impl FnOnce(&mut T)) -> Result<Stored<T>, Error> {
        let mut doc = self.reader.need::<T>(id)?.doc;
        change(&mut doc);
        if doc.id() != id {
            return Err(Error::Invalid(format!("The id of a {} cannot change", T::KIND)));
        }
        self.update(&doc)?;
        self.reader.need(id)
    }

    /// Removes a document and returns it. [`Error::NotFound`] when there is none.
    pub fn delete<T: Document>(&mut self, id: &str) -> Result<Stored<T>, Error> {
        self.reader.know::<T>(true)?;
        self.room()?;
        let row = self.reader.row(T::KIND, id)?;
        let row = row.ok_or_else(|| Error::NotFound { kind: T::KIND, id: id.to_owned() })?;
        let doc = stored::<T>(row.clone())?;
        let keys = self.keys_of::<T>(&row)?;
        self.reader.buffer.pass_keys(T::KIND, id, &keys, &Keys::default());
        self.enter::<T>(id, Some((row, keys)), None);
        Ok(doc)
    }

    /// [`Error::Conflict`] unless the document was last changed by `rev`: for a change that a client decided upon after
    /// reading it in an earlier request.
    pub fn expect_rev<T: Document>(&mut self, id: &str, rev: Rev) -> Result<Stored<T>, Error> {
        let found = self.reader.need::<T>(id)?;
        if found.rev != rev {
            return Err(Error::Conflict(format!("The {} {id} has been changed by someone else", T::KIND)));
        }
        Ok(found)
    }

    /// Uses more (or, with a negative `delta`, less) of a resource. [`Error::Quota`] when a positive delta would pass
    /// the row's own limit, or `default_limit` where it has none; `None` and negative limits are no limits. Giving back
    /// more than is used leaves 0 and an error in the log: a delete must not fail because a counter was wrong.
    pub fn charge(
        &mut self,
        scope: &str,
        resource: &str,
        delta: i64,
        default_limit: Option<i64>,
    ) -> Result<Usage, Error> {
        let usage = self.ledger_row(scope, resource)?;
        if let Some(limit) = usage.refused(delta, default_limit) {
            let (scope, resource, used) = (scope.to_owned(), resource.to_owned(), usage.used);
            return Err(Error::Quota { scope, resource, used, limit, asked: delta });
        }
        let used = usage.used.saturating_add(delta);
        if used < 0 {
            tracing::error!(scope, resource, used = usage.used, delta, "more is given back than was used");
        }
        Ok(self.set_ledger(scope, resource, Usage { used: used.max(0), ..usage }))
    }

    /// Several charges of one scope with one question to the engine: all of them, or the first refusal and none.
    pub fn charge_all(&mut self, scope: &str, charges: &[Charge<'_>]) -> Result<(), Error> {
        let resources: Vec<&str> = charges.iter().map(|charge| charge.resource).collect();
        self.ledger_rows(scope, &resources)?;
        let mut before = Vec::with_capacity(charges.len());
        for charge in charges {
            before.push(self.ledger_row(scope, charge.resource)?);
            if let Err(refused) = self.charge(scope, charge.resource, charge.delta, charge.default_limit) {
                for (charge, usage) in charges.iter().zip(before).rev() {
                    self.set_ledger(scope, charge.resource, usage);
                }
                return Err(refused);
            }
        }
        Ok(())
    }

    /// Sets the row's own limit; negative is unlimited, `None` lets the resource's default hold.
    pub fn set_limit(&mut self, scope: &str, resource: &str, limit: Option<i64>) -> Result<Usage, Error> {
        let usage = self.ledger_row(scope, resource)?;
        Ok(self.set_ledger(scope, resource, Usage { limit, ..usage }))
    }

    /// Sets what is used, whatever the limit: for repair by fsck, which has counted.
    pub fn set_used(&mut self, scope: &str, resource: &str, used: i64) -> Result<Usage, Error> {
        let usage = self.ledger_row(scope, resource)?;
        Ok(self.set_ledger(scope, resource, Usage { used: used.max(0), ..usage }))
    }

    /// Sets a named number of the cloud.
    pub fn set_meta(&mut self, name: &str, value: i64) -> Result<(), Error> {
        plain("meta", name, NAME_BYTES)?;
        self.reader.buffer.meta.insert(format!("m:{name}"), value);
        Ok(())
    }

    /// Makes it possible to undo what follows. What a job buffers needs none: it is not written unless the job succeeds.
    pub(crate) fn save(&mut self) -> Result<(), Error> {
        if !self.saved {
            self.reader.conn.savepoint().inspect_err(|error| self.reader.failed = Some(error.clone()))?;
            self.saved = true;
        }
        Ok(())
    }

    /// Writes at once, and past the buffer.
    pub(crate) fn execute(&mut self, sql: &'static sql::Sql, values: &[Value<'_>]) -> Result<u64, Error> {
        self.save()?;
        let reader = &mut self.reader;
        reader.conn.execute(sql, values).inspect_err(|error| reader.failed = Some(error.clone()))
    }

    /// Puts a deleted document back with the times that it had, so that every list shows it in its old place.
    pub(crate) fn bring_back<T: Document>(&mut self, doc: &T, created: i64, updated: i64) -> Result<(), Error> {
        self.keep(doc, Mode::Create)?;
        if let Some((row, _)) = self.reader.buffer.entry_mut(T::KIND, doc.id()).and_then(|entry| entry.after.as_mut()) {
            (row.created, row.updated) = (created, updated);
        }
        Ok(())
    }

    fn keep<T: Document>(&mut self, doc: &T, mode: Mode) -> Result<bool, Error> {
        self.reader.know::<T>(true)?;
        self.room()?;
        let (kind, id) = (T::KIND, doc.id());
        let body = if T::SEALED {
            let shared = &self.reader.shared;
            encode(&shared.secrets.seal(doc, &shared.env)?)?
        } else {
            encode(doc)?
        };
        let keys = Keys::of(doc)?;
        self.fetch(kind, id, &keys)?;
        let current = self.reader.row(kind, id)?;
        match (mode, &current) {
            (Mode::Create, Some(_)) => return Err(Error::Exists { kind, id: id.to_owned() }),
            (Mode::Update, None) => return Err(Error::NotFound { kind, id: id.to_owned() }),
            (_, Some(row)) if row.body == body && row.project_id == doc.project_id() => return Ok(false),
            _ => {}
        }
        for (name, value) in &keys.uniques {
            let owner = self.reader.buffer.owners.get(&(kind, *name, value.clone()));
            if owner.is_some_and(|owner| owner.as_deref().is_some_and(|owner| owner != id)) {
                return Err(Error::Taken { kind, name, value: value.clone() });
            }
        }
        let current = current.map(|row| Ok::<_, Error>((self.keys_of::<T>(&row)?, row))).transpose()?;
        let old_keys = current.as_ref().map_or_else(Keys::default, |(keys, _)| keys.clone());
        let created = current.as_ref().map_or_else(|| self.next_created(), |(_, row)| row.created);
        let row = DocRow {
            id: id.to_owned(),
            project_id: doc.project_id().to_owned(),
            rev: self.rev.0 as i64,
            created,
            updated: self.now.0,
            body,
        };
        self.reader.buffer.pass_keys(kind, id, &old_keys, &keys);
        self.enter::<T>(id, current.map(|(keys, row)| (row, keys)), Some((row, keys)));
        Ok(true)
    }

    /// Fetches in one round trip what `keep` needs to know: the document, and who owns its unique keys.
    fn fetch(&mut self, kind: &'static str, id: &str, keys: &Keys) -> Result<(), Error> {
        let reader = &mut self.reader;
        let mut calls = Vec::new();
        let known = reader.buffer.entry(kind, id).is_some() || reader.seen.contains_key(&(kind, id.to_owned()));
        let fresh = !known && self.fresh.get_mut().contains(id);
        if fresh {
            reader.seen.insert((kind, id.to_owned()), None);
        }
        let known = known || fresh;
        if !known {
            calls.push((&sql::GET, sql::values![kind, id]));
        }
        let unknown = |key: &&(&'static str, String)| !reader.buffer.owners.contains_key(&(kind, key.0, key.1.clone()));
        let asked: Vec<_> = keys.uniques.iter().filter(unknown).collect();
        for (name, value) in &asked {
            calls.push((&sql::OWNER, sql::values![kind, *name, value]));
        }
        if calls.is_empty() {
            return Ok(());
        }
        let mut answers = reader.query_all(&calls)?.into_iter();
        if !known {
            let row = answers.next().and_then(|mut rows| rows.pop()).map(crate::reader::doc_row).transpose()?;
            reader.seen.insert((kind, id.to_owned()), row);
        }
        for ((name, value), rows) in asked.into_iter().zip(answers) {
            let owner = rows.into_iter().next().map(|mut row| row.text(0)).transpose()?;
            reader.buffer.owners.insert((kind, name, value.clone()), owner);
        }
        Ok(())
    }

    /// The keys of a row as this transaction sees it.
    fn keys_of<T: Document>(&self, row: &DocRow) -> Result<Keys, Error> {
        match self.reader.buffer.entry(T::KIND, &row.id).and_then(|entry| entry.after.as_ref()) {
            Some((_, keys)) => Ok(keys.clone()),
            None => Keys::of(&decode::<T>(&row.body)?),
        }
    }

    /// Refuses a transaction that grows without end.
    fn room(&self) -> Result<(), Error> {
        if self.reader.buffer.touched < DOCUMENTS {
            return Ok(());
        }
        Err(Error::Invalid(format!("One transaction may change at most {DOCUMENTS} documents")))
    }

    /// Notes a change. `current` is what the transaction saw before; it is the committed state at the first touch.
    fn enter<T: Document>(&mut self, id: &str, current: Option<(DocRow, Keys)>, after: Option<(DocRow, Keys)>) {
        let buffer = &mut self.reader.buffer;
        if let Some(entry) = buffer.entry_mut(T::KIND, id) {
            entry.after = after;
            return;
        }
        let order = buffer.touched;
        buffer.touched += 1;
        let entry = Entry {
            before: current,
            after,
            history: T::HISTORY,
            trash: T::TRASH && T::UNDO && T::HISTORY,
            redacted: redacted::<T>,
            order,
        };
        buffer.entries.entry(T::KIND).or_default().insert(id.to_owned(), entry);
    }

    fn next_created(&mut self) -> i64 {
        self.created = self.now.0.max(self.created.saturating_add(1));
        self.created
    }

    /// The row as this transaction sees it.
    fn ledger_row(&mut self, scope: &str, resource: &str) -> Result<Usage, Error> {
        self.ledger_rows(scope, &[resource])?;
        self.reader.usage(scope, resource)
    }

    /// Fetches rows into the buffer, those that are not there yet in one round trip.
    fn ledger_rows(&mut self, scope: &str, resources: &[&str]) -> Result<(), Error> {
        plain("scope", scope, NAME_BYTES)?;
        let mut calls = Vec::new();
        let mut asked = Vec::new();
        for resource in resources {
            plain("resource", resource, NAME_BYTES)?;
            let key = (scope.to_owned(), (*resource).to_owned());
            if self.reader.buffer.ledger.len() + asked.len() >= DOCUMENTS {
                return Err(Error::Invalid(format!("One transaction may change at most {DOCUMENTS} ledger rows")));
            }
            if !self.reader.buffer.ledger.contains_key(&key) && !asked.contains(&key) {
                calls.push((&sql::USAGE, sql::values![scope, *resource]));
                asked.push(key);
            }
        }
        if calls.is_empty() {
            return Ok(());
        }
        let answers = self.reader.query_all(&calls)?;
        for (key, rows) in asked.into_iter().zip(answers) {
            let before = rows.first().map(usage).transpose()?;
            let row = LedgerRow { before, after: before.unwrap_or_default() };
            self.reader.buffer.ledger.insert(key, row);
        }
        Ok(())
    }

    fn set_ledger(&mut self, scope: &str, resource: &str, usage: Usage) -> Usage {
        if let Some(row) = self.reader.buffer.ledger.get_mut(&(scope.to_owned(), resource.to_owned())) {
            row.after = usage;
        }
        usage
    }
}
