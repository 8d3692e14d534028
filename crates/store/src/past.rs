//! The past as rows: a document's versions, and changes since a revision. What it looked like then is `moment.rs`.
//!
//! A row of history has `seq = rev * 65,536 + n`. A deletion is a row without a body. A document that changed hands has
//! a deletion under its old project just before its row under the new one, in the same revision; only lists of the old
//! project's past see it.

use crate::buffer::{DocRow, seq};
use crate::document::Rev;
use crate::moment::after;
use crate::reader::Reader;
use crate::sql::{self, Row, given};
use crate::{Change, Error};
use base::{RequestId, Timestamp};
use std::borrow::Cow;
use std::sync::Arc;

/// One version of a document, and who made it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Version {
    pub rev: Rev,
    pub at: Timestamp,
    pub actor: String,
    pub request_id: RequestId,
    pub what: String,
    /// The body with its secrets blanked; `None` when this was the deletion.
    pub body: Option<Arc<str>>,
}

impl Reader {
    /// The newest versions of a document, newest first, at most `limit`.
    pub fn history(&mut self, kind: &str, id: &str, limit: usize) -> Result<Vec<Version>, Error> {
        if kind.contains('\0') || id.contains('\0') {
            return Ok(Vec::new());
        }
        let most = i64::try_from(limit).unwrap_or(i64::MAX);
        let (bound, mut versions) = (self.bound(), Vec::<Version>::new());
        for mut row in self.query(&sql::PAST_OF, &given![kind, id, bound, most])? {
            let rev = Rev((row.int(0)? / 65_536) as u64);
            let body = row.maybe_text(5).map(Arc::from);
            if body.is_none() && versions.last().is_some_and(|newer| newer.rev == rev) {
                continue;
            }
            let (actor, request_id, what) = (row.text(1)?, row.text(2)?.into(), row.text(3)?);
            versions.push(Version { rev, at: Timestamp(row.int(4)?), actor, request_id, what, body });
        }
        Ok(versions)
    }

    /// The changes after `since` to kinds with history, oldest first, in whole revisions: about `limit`, more only when
    /// one revision alone has more. Empty means that there are none. [`Error::Gone`] when history no longer reaches back.
    pub fn changes(&mut self, since: Rev, limit: usize) -> Result<Vec<Change>, Error> {
        self.check_kept(since)?;
        let most = i64::try_from(limit.max(1)).unwrap_or(i64::MAX).saturating_add(1);
        let bound = self.bound();
        let from = after(since);
        let mut rows = self.query(&sql::PAST_SINCE, &given![from, bound, most])?;
        if rows.len() > limit.max(1) {
            // The last revision may be cut in two: leave it for the next page, or take it whole if it is the only one.
            let (first, last) = (rows[0].int(0)? / 65_536, rows[rows.len() - 1].int(0)? / 65_536);
            if first == last {
                let end = seq(Rev(first as u64 + 1), 0);
                rows = self.query(&sql::PAST_SINCE, &given![from, end, i64::MAX])?;
            } else {
                rows.retain(|row| row.int(0).is_ok_and(|seq| seq / 65_536 < last));
            }
        }
        let mut changes: Vec<Change> = Vec::with_capacity(rows.len());
        for row in rows {
            let mut change = change(row)?;
            let same = |old: &Change| old.rev == change.rev && old.kind == change.kind && old.id == change.id;
            if changes.last().is_some_and(same) {
                // It changed hands.
                (change.existed, change.left) = (true, changes.pop().map(|old| old.project_id));
            }
            changes.push(change);
        }
        Ok(changes)
    }
}

/// A row of (id, project_id, seq, created, at, body); `None` for a deletion.
pub(crate) fn past_row(mut row: Row) -> Result<Option<DocRow>, Error> {
    let Some(body) = row.maybe_text(5) else { return Ok(None) };
    Ok(Some(DocRow {
        id: row.text(0)?,
        project_id: row.text(1)?,
        rev: row.int(2)? / 65_536,
        created: row.int(3)?,
        updated: row.int(4)?,
        body,
    }))
}

fn change(mut row: Row) -> Result<Change, Error> {
    Ok(Change {
        rev: Rev((row.int(0)? / 65_536) as u64),
        kind: Cow::Owned(row.text(1)?),
        id: row.text(2)?,
        project_id: row.text(3)?,
        created: Timestamp(row.int(4)?),
        updated: Timestamp(row.int(5)?),
        existed: row.int(7)? != 0,
        left: None,
        kept: true,
        body: row.maybe_text(6).map(Arc::from),
    })
}
