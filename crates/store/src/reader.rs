//! Reading: documents, unique keys, lists, counts and the ledger, on one snapshot, or inside a transaction with what
//! it has changed so far.

use crate::buffer::{Buffer, DocRow, Entry, unique_value};
use crate::conn::Conn;
use crate::document::{Document, Keys, Rev, Stored, decode};
use crate::moment::Then;
use crate::query::{Query, Scope};
use crate::sql::{self, Cells, Each, Row, Sql, Value};
use crate::store::Shared;
use crate::{Error, Secrets, Usage};
use base::Timestamp;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

/// Reads one consistent snapshot. A [`crate::Tx`] can be used wherever a `&mut Reader` is asked for, and then shows its
/// own unwritten changes, too.
pub struct Reader {
    pub(crate) conn: Box<dyn Conn>,
    pub(crate) shared: Arc<Shared>,
    pub(crate) buffer: Buffer,
    /// Committed rows that the transaction has read; empty outside of one.
    pub(crate) seen: HashMap<(&'static str, String), Option<DocRow>>,
    /// The revision of the last commit that a transaction builds upon; `None` outside of one.
    pub(crate) base: Option<Rev>,
    /// Set while it stands in the past.
    pub(crate) then: Option<Box<Then>>,
    /// The engine's last failure: it dooms the transaction even if the closure goes on.
    pub(crate) failed: Option<Error>,
}

impl Reader {
    pub(crate) fn new(conn: Box<dyn Conn>, shared: Arc<Shared>) -> Reader {
        Reader { conn, shared, buffer: Buffer::default(), seen: HashMap::new(), base: None, then: None, failed: None }
    }

    /// The document with this id.
    pub fn get<T: Document>(&mut self, id: &str) -> Result<Option<Stored<T>>, Error> {
        self.know::<T>(false)?;
        self.row(T::KIND, id)?.map(stored).transpose()
    }

    /// The document with this id, or [`Error::NotFound`].
    pub fn need<T: Document>(&mut self, id: &str) -> Result<Stored<T>, Error> {
        self.get(id)?.ok_or_else(|| Error::NotFound { kind: T::KIND, id: id.to_owned() })
    }

    /// The document that owns this unique key.
    pub fn get_unique<T: Document>(
        &mut self,
        name: &'static str,
        parts: impl IntoIterator<Item = impl AsRef<str>>,
    ) -> Result<Option<Stored<T>>, Error> {
        self.know::<T>(false)?;
        let value = unique_value(parts);
        if self.then.is_some() {
            return self.unique_then::<T>(name, value)?.map(stored).transpose();
        }
        if let Some(owner) = self.buffer.owners.get(&(T::KIND, name, value.clone())).cloned() {
            return owner.map_or(Ok(None), |id| self.get(&id));
        }
        if no_key(&value) {
            return Ok(None);
        }
        let Some(row) = self.query(&sql::GET_UNIQUE, &[T::KIND.into(), name.into(), (&value).into()])?.pop() else {
            return Ok(None);
        };
        let row = doc_row(row)?;
        // The transaction may have changed the document without having looked at its keys' owner.
        match self.buffer.entry(T::KIND, &row.id) {
            None => stored(row).map(Some),
            Some(_) => Ok(None),
        }
    }

    /// The documents that match, in the order of their creation.
    pub fn list<T: Document>(&mut self, query: Query) -> Result<Vec<Stored<T>>, Error> {
        self.know::<T>(false)?;
        let rows = if self.then.is_some() {
            self.rows_then::<T>(&query)?
        } else if self.buffer.entries.contains_key(T::KIND) {
            self.rows(T::KIND, &query)?
        } else {
            return self.committed::<T>(&query);
        };
        rows.into_iter().map(stored).collect()
    }

    /// A list that nothing has to be laid over: each row is parsed as it comes.
    fn committed<T: Document>(&mut self, query: &Query) -> Result<Vec<Stored<T>>, Error> {
        let start = self.start(T::KIND, query)?;
        let most = query.most();
        let mut found = Vec::new();
        self.committed_rows(T::KIND, query, &start, most, &mut |row| {
            found.push(found_as(row)?);
            Ok(())
        })?;
        Ok(found)
    }

    /// The place in its order after which a list begins.
    fn start(&mut self, kind: &'static str, query: &Query) -> Result<(i64, String), Error> {
        match &query.after {
            None => Ok(query.beginning()),
            Some(id) => match self.row(kind, id)? {
                Some(row) => Ok((row.created, row.id)),
                None => Err(Error::Marker { kind, id: id.clone() }),
            },
        }
    }

    /// How many match; marker and limit are not looked at.
    pub fn count<T: Document>(&mut self, query: Query) -> Result<usize, Error> {
        self.know::<T>(false)?;
        if self.then.is_some() {
            return self.count_then::<T>(&query.scope);
        }
        let kind = Value::Text(T::KIND);
        let found = match &query.scope {
            Scope::Project(value) | Scope::Index(_, value) if no_key(value) => return Ok(0),
            Scope::All => self.query(&sql::COUNT_ALL, &[kind])?,
            Scope::Project(project) => self.query(&sql::COUNT_PROJECT, &[kind, project.into()])?,
            Scope::Index(name, value) => self.query(&sql::COUNT_INDEX, &[kind, (*name).into(), value.into()])?,
        };
        let mut count = found.first().map_or(Ok(0), |row| row.int(0))?;
        for Entry { before, after, .. } in self.buffer.of_kind(T::KIND) {
            count -= before.as_ref().is_some_and(|side| matches(side, &query.scope)) as i64;
            count += after.as_ref().is_some_and(|side| matches(side, &query.scope)) as i64;
        }
        Ok(count.max(0) as usize)
    }

    /// What a scope (a project, a user, a provider) uses of a resource, and its own limit. Zero and none if never used.
    pub fn usage(&mut self, scope: &str, resource: &str) -> Result<Usage, Error> {
        if self.then.is_some() {
            return self.usage_then(scope, resource);
        }
        if let Some(row) = self.buffer.ledger.get(&(scope.to_owned(), resource.to_owned())) {
            return Ok(row.after);
        }
        if no_key(scope) || no_key(resource) {
            return Ok(Usage::default());
        }
        let rows = self.query(&sql::USAGE, &[scope.into(), resource.into()])?;
        rows.first().map_or(Ok(Usage::default()), usage)
    }

    /// Every ledger row of a scope by resource.
    pub fn list_usage(&mut self, scope: &str) -> Result<BTreeMap<String, Usage>, Error> {
        if self.then.is_some() {
            return self.usages_then(scope);
        }
        let mut usages = BTreeMap::new();
        if no_key(scope) {
            return Ok(usages);
        }
        for mut row in self.query(&sql::USAGES, &[scope.into()])? {
            usages.insert(row.text(0)?, Usage { used: row.int(1)?, limit: row.maybe_int(2) });
        }
        for ((at, resource), row) in &self.buffer.ledger {
            if at == scope {
                usages.insert(resource.clone(), row.after);
            }
        }
        Ok(usages)
    }

    /// The whole ledger by scope and resource: for who counts it again.
    pub fn ledger(&mut self) -> Result<BTreeMap<(String, String), Usage>, Error> {
        if self.then.is_some() {
            return Err(Reader::no_past("the whole ledger"));
        }
        let mut usages = BTreeMap::new();
        for mut row in self.query(&sql::LEDGER, &[])? {
            usages.insert((row.text(0)?, row.text(1)?), Usage { used: row.int(2)?, limit: row.maybe_int(3) });
        }
        usages.extend(self.buffer.ledger.iter().map(|(row, usage)| (row.clone(), usage.after)));
        Ok(usages)
    }

    /// A named number of the cloud, kept outside documents and history.
    pub fn meta(&mut self, name: &str) -> Result<Option<i64>, Error> {
        if self.then.is_some() {
            return Err(Reader::no_past("the cloud's numbers"));
        }
        self.raw_meta(&format!("m:{name}"))
    }

    /// Opens the secret fields of documents.
    pub fn secrets(&self) -> Secrets {
        self.shared.secrets.clone()
    }

    /// The revision that this snapshot shows; in a transaction the last commit before it; in the past the one of then.
    pub fn snapshot_rev(&mut self) -> Result<Rev, Error> {
        if let Some(then) = self.stands_in() {
            return Ok(then.rev);
        }
        match self.base {
            Some(rev) => Ok(rev),
            None => Ok(Rev(self.raw_meta("rev")?.unwrap_or(0) as u64)),
        }
    }

    /// The clock's time, or that of the moment in which the reader stands; a transaction's own is [`crate::Tx::now`].
    pub fn clock(&self) -> Timestamp {
        self.stands_in().map_or_else(|| self.shared.env.now(), |then| then.at)
    }

    pub(crate) fn raw_meta(&mut self, name: &str) -> Result<Option<i64>, Error> {
        if let Some(value) = self.buffer.meta.get(name) {
            return Ok(Some(*value));
        }
        self.query(&sql::META, &[name.into()])?.first().map(|row| row.int(0)).transpose()
    }

    pub(crate) fn query(&mut self, sql: &'static Sql, values: &[Value<'_>]) -> Result<Vec<Row>, Error> {
        self.conn.query(sql, values).inspect_err(|error| self.failed = Some(error.clone()))
    }

    fn query_each(&mut self, sql: &'static Sql, values: &[Value<'_>], each: &mut Each<'_>) -> Result<(), Error> {
        let mut refused = false;
        let done = self.conn.query_each(sql, values, &mut |row| each(row).inspect_err(|_| refused = true));
        // A row that cannot be parsed is not the engine's failure.
        done.inspect_err(|error| {
            if !refused {
                self.failed = Some(error.clone());
            }
        })
    }

    pub(crate) fn query_all(&mut self, calls: &[(&'static Sql, Vec<Value<'_>>)]) -> Result<Vec<Vec<Row>>, Error> {
        self.conn.query_all(calls).inspect_err(|error| self.failed = Some(error.clone()))
    }

    /// The row as this reader sees it.
    pub(crate) fn row(&mut self, kind: &'static str, id: &str) -> Result<Option<DocRow>, Error> {
        if self.then.is_some() {
            return self.row_then(kind, id);
        }
        if let Some(entry) = self.buffer.entry(kind, id) {
            return Ok(entry.after.as_ref().map(|(row, _)| row.clone()));
        }
        if no_key(id) {
            return Ok(None);
        }
        if self.base.is_none() {
            return self.query(&sql::GET, &[kind.into(), id.into()])?.pop().map(doc_row).transpose();
        }
        let key = (kind, id.to_owned());
        if let Some(row) = self.seen.get(&key) {
            return Ok(row.clone());
        }
        let row = self.query(&sql::GET, &[kind.into(), id.into()])?.pop().map(doc_row).transpose()?;
        self.seen.insert(key, row.clone());
        Ok(row)
    }

    /// Checks once per kind and process that the entries in the database were made by our `keys()`; in the past, that
    /// the kind has one.
    pub(crate) fn know<T: Document>(&mut self, writing: bool) -> Result<(), Error> {
        if self.then.is_some() {
            return if T::HISTORY { Ok(()) } else { Err(Reader::no_past(T::KIND)) };
        }
        if self.shared.knows(T::KIND) {
            return Ok(());
        }
        let name = format!("index:{}", T::KIND);
        match self.raw_meta(&name)? {
            Some(version) if version == i64::from(T::INDEX_VERSION) => {
                if !self.buffer.meta.contains_key(&name) {
                    self.shared.learn(T::KIND);
                }
                Ok(())
            }
            Some(version) => Err(Error::Corrupt(format!(
                "the index of {} has version {version}, not {}: register the kind in Options so that open rebuilds it",
                T::KIND,
                T::INDEX_VERSION
            ))),
            None if writing => {
                self.buffer.meta.insert(name, T::INDEX_VERSION.into());
                Ok(())
            }
            None => Ok(()),
        }
    }

    /// The rows of a list: the committed ones, with the transaction's own laid over them.
    pub(crate) fn rows(&mut self, kind: &'static str, query: &Query) -> Result<Vec<DocRow>, Error> {
        let start = self.start(kind, query)?;
        // Committed rows that the transaction changed are replaced below: ask for as many more.
        let hidden = self.buffer.of_kind(kind).filter(|entry| entry.before.is_some()).count();
        let most = query.limit.map_or(i64::MAX, |limit| limit.saturating_add(hidden).min(i64::MAX as usize) as i64);
        let mut rows = Vec::new();
        self.committed_rows(kind, query, &start, most, &mut |row| {
            rows.push(copied(row)?);
            Ok(())
        })?;
        if self.buffer.entries.contains_key(kind) {
            self.overlay(kind, query, &start, &mut rows);
        }
        rows.truncate(query.limit.unwrap_or(usize::MAX));
        Ok(rows)
    }

    fn committed_rows(
        &mut self,
        kind: &'static str,
        query: &Query,
        start: &(i64, String),
        most: i64,
        each: &mut Each<'_>,
    ) -> Result<(), Error> {
        let Some((sql, values)) = query.statement(kind, start, most) else { return Ok(()) };
        self.query_each(sql, &values, each)
    }

    fn overlay(&self, kind: &'static str, query: &Query, start: &(i64, String), rows: &mut Vec<DocRow>) {
        rows.retain(|row| self.buffer.entry(kind, &row.id).is_none());
        let own = self.buffer.of_kind(kind).filter_map(|entry| entry.after.as_ref());
        rows.extend(own.filter(|side| matches(side, &query.scope)).map(|(row, _)| row.clone()).filter(|row| {
            let place = (row.created, &row.id);
            let marker = (start.0, &start.1);
            if query.reverse { place < marker } else { place > marker }
        }));
        rows.sort_by(|a, b| (a.created, &a.id).cmp(&(b.created, &b.id)));
        if query.reverse {
            rows.reverse();
        }
    }
}

/// True for texts that no key can be: they are found nowhere, and PostgreSQL would not even take the question.
pub(crate) fn no_key(text: &str) -> bool {
    text.contains('\0')
}

fn matches((row, keys): &(DocRow, Keys), scope: &Scope) -> bool {
    match scope {
        Scope::All => true,
        Scope::Project(project) => !project.is_empty() && row.project_id == *project,
        Scope::Index(name, value) => keys.has_index(name, value),
    }
}

/// A row of (used, limit).
pub(crate) fn usage(row: &Row) -> Result<Usage, Error> {
    Ok(Usage { used: row.int(0)?, limit: row.maybe_int(1) })
}

pub(crate) fn doc_row(mut row: Row) -> Result<DocRow, Error> {
    Ok(DocRow {
        id: row.text(0)?,
        project_id: row.text(1)?,
        rev: row.int(2)?,
        created: row.int(3)?,
        updated: row.int(4)?,
        body: row.text(5)?,
    })
}

fn copied(row: &dyn Cells) -> Result<DocRow, Error> {
    Ok(DocRow {
        id: row.borrowed(0)?.to_owned(),
        project_id: row.borrowed(1)?.to_owned(),
        rev: row.number(2)?,
        created: row.number(3)?,
        updated: row.number(4)?,
        body: row.borrowed(5)?.to_owned(),
    })
}

/// A document's row, parsed where it lies.
pub(crate) fn found_as<T: Document>(row: &dyn Cells) -> Result<Stored<T>, Error> {
    let (rev, created, updated) = (Rev(row.number(2)? as u64), Timestamp(row.number(3)?), Timestamp(row.number(4)?));
    Ok(Stored { doc: decode(row.borrowed(5)?)?, rev, created, updated })
}

pub(crate) fn stored<T: Document>(row: DocRow) -> Result<Stored<T>, Error> {
    let doc = decode(&row.body)?;
    let (rev, created, updated) = (Rev(row.rev as u64), Timestamp(row.created), Timestamp(row.updated));
    Ok(Stored { doc, rev, created, updated })
}
