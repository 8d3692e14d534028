//! The store's file, read by a stranger: what is committed, whatever the process that wrote it believes.

use anyhow::Result;
use rusqlite::{Connection, OpenFlags};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

pub struct Mirror {
    db: Connection,
    rev: i64,
    /// By kind and id.
    docs: BTreeMap<String, BTreeMap<String, Value>>,
}

impl Mirror {
    pub fn open(file: &Path) -> Result<Mirror> {
        let db = Connection::open_with_flags(file, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
        db.set_prepared_statement_cache_capacity(16);
        Ok(Mirror { db, rev: -1, docs: BTreeMap::new() })
    }

    /// Takes over what has been committed since.
    pub fn refresh(&mut self) -> Result<()> {
        let rev: i64 = self
            .db
            .prepare_cached("SELECT value FROM meta WHERE name = 'rev'")?
            .query_row([], |row| row.get(0))
            .unwrap_or(0);
        if rev == self.rev {
            return Ok(());
        }
        let mut fresh = self.db.prepare_cached("SELECT kind, id, body FROM document WHERE rev > ?1")?;
        let rows = fresh.query_map([self.rev], |row| {
            Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?, row.get::<_, String>(2)?))
        })?;
        for row in rows {
            let (kind, id, body) = row?;
            self.docs.entry(kind).or_default().insert(id, serde_json::from_str(&body)?);
        }
        let known: usize = self.docs.values().map(BTreeMap::len).sum();
        let count: i64 = self.db.prepare_cached("SELECT count(*) FROM document")?.query_row([], |row| row.get(0))?;
        if known as i64 != count {
            let mut all = self.db.prepare_cached("SELECT kind, id FROM document")?;
            let rows = all.query_map([], |row| Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?)))?;
            let here = rows.collect::<Result<BTreeSet<_>, _>>()?;
            for (kind, docs) in &mut self.docs {
                docs.retain(|id, _| here.contains(&(kind.clone(), id.clone())));
            }
        }
        self.rev = rev;
        Ok(())
    }

    /// The revision up to which all is known.
    pub fn rev(&self) -> i64 {
        self.rev
    }

    pub fn all(&self, kind: &str) -> impl Iterator<Item = (&String, &Value)> {
        self.docs.get(kind).into_iter().flatten()
    }

    /// All that there is, by kind and id.
    pub fn everything(&self) -> BTreeMap<String, BTreeMap<String, Value>> {
        self.docs.clone()
    }

    pub fn get(&self, kind: &str, id: &str) -> Option<&Value> {
        self.docs.get(kind)?.get(id)
    }

    /// Scope, resource, used.
    pub fn ledger(&self) -> Result<BTreeMap<(String, String), i64>> {
        let mut rows = self.db.prepare_cached("SELECT scope, resource, used FROM ledger")?;
        let rows = rows.query_map([], |row| Ok(((row.get(0)?, row.get(1)?), row.get(2)?)))?;
        Ok(rows.collect::<Result<_, _>>()?)
    }
}
