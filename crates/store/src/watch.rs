//! The watch: every committed revision of this process, whole and in order.

use crate::document::decode;
use crate::{Document, Error, Rev, Stored};
use base::Timestamp;
use std::borrow::Cow;
use std::sync::Arc;
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::{RecvError, TryRecvError};

/// How many revisions a watcher may lag behind before it loses them.
pub(crate) const BACKLOG: usize = 4096;

/// One document that a commit created, changed or deleted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    pub rev: Rev,
    pub kind: Cow<'static, str>,
    pub id: String,
    pub project_id: String,
    pub created: Timestamp,
    pub updated: Timestamp,
    /// It was there before the commit.
    pub existed: bool,
    /// The project that it has left with this change.
    pub left: Option<String>,
    /// False for a kind without history: it shows here and never in [`crate::Store::changes`].
    pub kept: bool,
    /// The body with its secrets blanked; `None` when the document was deleted.
    pub body: Option<Arc<str>>,
}

impl Change {
    /// The document after the change, without its secrets; `None` when it was deleted.
    pub fn document<T: Document>(&self) -> Result<Option<Stored<T>>, Error> {
        let Some(body) = &self.body else { return Ok(None) };
        Ok(Some(Stored { doc: decode(body)?, rev: self.rev, created: self.created, updated: self.updated }))
    }
}

/// One commit: all documents that it touched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Revision {
    pub rev: Rev,
    pub changes: Vec<Change>,
}

/// What a watcher is told.
#[derive(Clone, Debug)]
#[must_use]
pub enum Event {
    /// The next commit. Commits that touched no document are left out, so `rev` may skip numbers.
    Revision(Arc<Revision>),
    /// Something was missed: the watcher lagged by more than 4,096 commits, or another process wrote, or the database
    /// went back in time after a fail-over. Everything that was derived from the watch must be read anew.
    Lost,
}

/// Receives revisions from the moment it was made. To follow a kind: make the watch first, then read a snapshot with
/// its [`crate::Reader::snapshot_rev`], then apply only revisions above that.
pub struct Watch {
    receiver: broadcast::Receiver<Event>,
}

impl Watch {
    pub(crate) fn new(receiver: broadcast::Receiver<Event>) -> Watch {
        Watch { receiver }
    }

    /// Waits for the next revision; `None` when the store is gone. Safe to cancel.
    pub async fn next(&mut self) -> Option<Event> {
        match self.receiver.recv().await {
            Ok(watched) => Some(watched),
            Err(RecvError::Lagged(_)) => Some(Event::Lost),
            Err(RecvError::Closed) => None,
        }
    }

    /// What is there already, without waiting; `None` when there is nothing.
    pub fn try_next(&mut self) -> Option<Event> {
        match self.receiver.try_recv() {
            Ok(watched) => Some(watched),
            Err(TryRecvError::Lagged(_)) => Some(Event::Lost),
            Err(TryRecvError::Empty | TryRecvError::Closed) => None,
        }
    }
}
