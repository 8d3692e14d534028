//! A kind in memory, kept fresh by the watch: for filters that have no index, and for what must be quick.

use crate::document::redacted;
use crate::query::Query;
use crate::store::Way;
use crate::{Document, Error, Event, Result, Rev, Revision, Store, Stored, Watch};
use std::collections::BTreeMap;

/// All documents of one kind, by id, without their secrets (as the watch tells them).
///
/// It is as fresh as the last [`Follower::catch_up`]; what decides must be read again inside the transaction.
pub struct Follower<T> {
    store: Store,
    watch: Watch,
    docs: BTreeMap<String, Stored<T>>,
    rev: Rev,
    /// False until the first read, and after a loss.
    whole: bool,
}

impl<T: Document> Follower<T> {
    /// Follows from now on; nothing is there before the first [`Follower::catch_up`].
    pub fn new(store: &Store) -> Follower<T> {
        Follower { store: store.clone(), watch: store.watch(), docs: BTreeMap::new(), rev: Rev(0), whole: false }
    }

    /// Applies what has been committed since, and reads everything anew where something was missed. On an error it
    /// stays as it was, and the next call tries again.
    pub async fn catch_up(&mut self) -> Result<&BTreeMap<String, Stored<T>>> {
        while let Some(event) = self.watch.try_next() {
            self.hear(&event);
        }
        if !self.whole {
            self.read().await?;
        }
        Ok(&self.docs)
    }

    /// The watch was made before this snapshot, so nothing falls between the two. What a dry run would have changed, or
    /// the past that a request asks for, must not stay here.
    async fn read(&mut self) -> Result<()> {
        let read = self.store.read_by(Way::Away, |reader| {
            let rows = reader.rows(T::KIND, &Query::all())?;
            let mut docs = BTreeMap::new();
            for mut row in rows {
                row.body = redacted::<T>(&row.body)?;
                docs.insert(row.id.clone(), crate::reader::stored::<T>(row)?);
            }
            Ok((reader.snapshot_rev()?, docs))
        });
        (self.rev, self.docs) = read.await?;
        self.whole = true;
        Ok(())
    }

    /// As of the last [`Follower::catch_up`].
    pub fn docs(&self) -> &BTreeMap<String, Stored<T>> {
        &self.docs
    }

    /// Waits for the next commit, of whatever kind; false when the store is gone. Then call [`Follower::catch_up`].
    pub async fn changed(&mut self) -> bool {
        let Some(event) = self.watch.next().await else { return false };
        self.hear(&event);
        true
    }

    fn hear(&mut self, event: &Event) {
        match event {
            Event::Lost => self.whole = false,
            // What the snapshot has seen already is skipped; what cannot be applied is read anew.
            Event::Revision(revision) if self.whole && revision.rev > self.rev => {
                self.whole = self.apply(revision).is_ok();
            }
            Event::Revision(_) => {}
        }
    }

    fn apply(&mut self, revision: &Revision) -> Result<(), Error> {
        for change in revision.changes.iter().filter(|change| change.kind == T::KIND) {
            match change.document::<T>()? {
                Some(doc) => self.docs.insert(change.id.clone(), doc),
                None => self.docs.remove(&change.id),
            };
        }
        self.rev = revision.rev;
        Ok(())
    }
}
