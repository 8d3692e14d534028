//! What has changed since a revision, by name alone: for who keeps something in memory that is derived from the store,
//! and brings it up to the snapshot in which it is asked for.

use crate::document::{Document, Rev};
use crate::moment::after;
use crate::reader::Reader;
use crate::sql::{self, given};
use crate::{Error, ledger};
use std::collections::BTreeSet;

/// Names of what has changed. Only kinds with history are seen.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Moved {
    /// Kind and id of documents.
    documents: BTreeSet<(String, String)>,
    /// Scopes of the ledger.
    scopes: BTreeSet<String>,
}

impl Moved {
    /// The ids of one kind's documents.
    pub fn ids<T: Document>(&self) -> impl Iterator<Item = &str> {
        self.documents.iter().filter(|(kind, _)| kind == T::KIND).map(|(_, id)| id.as_str())
    }

    /// What follows `prefix` in the ledger's scopes that begin with it.
    pub fn scopes<'a>(&'a self, prefix: &'a str) -> impl Iterator<Item = &'a str> {
        self.scopes.iter().filter_map(move |scope| scope.strip_prefix(prefix))
    }
}

impl Reader {
    /// What commits after `since` have changed, up to the one that this snapshot or transaction builds upon. `None`
    /// where that is more than `limit` rows of history, or where history does not reach back so far.
    pub fn moved_since(&mut self, since: Rev, limit: usize) -> Result<Option<Moved>, Error> {
        if self.check_kept(since).is_err() {
            return Ok(None);
        }
        let most = i64::try_from(limit).unwrap_or(i64::MAX - 1) + 1;
        let from = after(since);
        let rows = self.query(&sql::PAST_MOVED, &given![from, most])?;
        if rows.len() > limit {
            return Ok(None);
        }
        let mut moved = Moved::default();
        for mut row in rows {
            let (kind, id) = (row.text(0)?, row.text(1)?);
            if kind == ledger::KIND {
                moved.scopes.insert(ledger::scope_of(&id));
            } else {
                moved.documents.insert((kind, id));
            }
        }
        Ok(Some(moved))
    }

    /// What this transaction itself has changed so far; nothing outside of one.
    pub fn own_moves(&self) -> Moved {
        let documents = self.buffer.entries.iter();
        Moved {
            documents: documents
                .flat_map(|(kind, ids)| ids.keys().map(|id| ((*kind).to_owned(), id.clone())))
                .collect(),
            scopes: self.buffer.ledger.keys().map(|(scope, _)| scope.clone()).collect(),
        }
    }
}
