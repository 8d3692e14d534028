//! The past: documents as of a revision or a time, a document's versions, and changes since a revision.
//!
//! A row of history has `seq = rev * 65,536 + n`. A deletion is a row without a body. A document that changed hands has
//! a deletion under its old project just before its row under the new one, in the same revision; only lists of the old
//! project's past see it.

use crate::buffer::{DocRow, seq};
use crate::document::{Document, Keys, Rev, Stored, decode};
use crate::query::{Query, Scope};
use crate::reader::{Reader, stored};
use crate::sql::{self, Row, given};
use crate::{Change, Error};
use base::{RequestId, Timestamp};
use std::borrow::Cow;
use std::sync::Arc;

/// A moment of the past.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AsOf {
    /// After this commit. One that has not happened yet means now.
    Rev(Rev),
    /// After the last commit at or before this time.
    Time(Timestamp),
}

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
    /// The document as it was, without its secrets. [`Error::Gone`] before the oldest history that is kept.
    pub fn get_as_of<T: Document>(&mut self, id: &str, at: AsOf) -> Result<Option<Stored<T>>, Error> {
        let bound = self.bound::<T>(at)?;
        if id.contains('\0') {
            return Ok(None);
        }
        let row = self.query(&sql::PAST_GET, &given![T::KIND, id, bound])?.pop();
        row.map(past_row).transpose()?.flatten().map(stored).transpose()
    }

    /// The documents that matched then, in the order of their creation, without their secrets.
    pub fn list_as_of<T: Document>(&mut self, query: Query, at: AsOf) -> Result<Vec<Stored<T>>, Error> {
        let bound = self.bound::<T>(at)?;
        let found = match &query.scope {
            Scope::Project(project) if project.is_empty() || project.contains('\0') => Vec::new(),
            Scope::Project(project) => self.query(&sql::PAST_PROJECT, &given![T::KIND, project, bound])?,
            Scope::All | Scope::Index(..) => self.query(&sql::PAST_ALL, &given![T::KIND, bound])?,
        };
        let mut rows = found.into_iter().filter_map(|row| past_row(row).transpose()).collect::<Result<Vec<_>, _>>()?;
        if let Scope::Index(name, value) = &query.scope {
            // Index entries of the past are not kept: the keys are computed again.
            let mut kept = Vec::new();
            for row in rows {
                if Keys::of(&decode::<T>(&row.body)?)?.has_index(name, value) {
                    kept.push(row);
                }
            }
            rows = kept;
        }
        page(T::KIND, rows, &query)?.into_iter().map(stored).collect()
    }

    /// The newest versions of a document, newest first, at most `limit`.
    pub fn history(&mut self, kind: &str, id: &str, limit: usize) -> Result<Vec<Version>, Error> {
        if kind.contains('\0') || id.contains('\0') {
            return Ok(Vec::new());
        }
        let most = i64::try_from(limit).unwrap_or(i64::MAX);
        let mut versions: Vec<Version> = Vec::new();
        for mut row in self.query(&sql::PAST_OF, &given![kind, id, i64::MAX, most])? {
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
        let from = seq(Rev(since.0.min(i64::MAX as u64 / 65_536 - 2) + 1), 0);
        let mut rows = self.query(&sql::PAST_SINCE, &given![from, i64::MAX, most])?;
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
            let change = change(row)?;
            let same = |old: &Change| old.rev == change.rev && old.kind == change.kind && old.id == change.id;
            if changes.last().is_some_and(same) {
                changes.pop();
            }
            changes.push(change);
        }
        Ok(changes)
    }

    /// The revision that was the newest at a time. Searched by halves, since both grow together.
    pub fn rev_at(&mut self, time: Timestamp) -> Result<Rev, Error> {
        let last = self.query(&sql::PAST_LAST, &[])?.first().map(|row| row.int(0)).transpose()?.unwrap_or(0);
        let (mut low, mut high) = (self.oldest()?.0 as i64, last / 65_536 + 1);
        while low + 1 < high {
            let middle = low + (high - low) / 2;
            let rows = self.query(&sql::PAST_AT, &[seq(Rev(middle as u64), 0).into()])?;
            let Some(row) = rows.first() else {
                high = middle;
                continue;
            };
            if row.int(1)? <= time.0 {
                low = (row.int(0)? / 65_536).max(middle);
            } else {
                high = middle;
            }
        }
        Ok(Rev(low as u64))
    }

    /// The oldest revision that `as_of` and `changes` still reach.
    pub fn oldest(&mut self) -> Result<Rev, Error> {
        Ok(Rev(self.raw_meta("trim")?.unwrap_or(0) as u64))
    }

    fn check_kept(&mut self, rev: Rev) -> Result<(), Error> {
        let oldest = self.oldest()?;
        if rev < oldest { Err(Error::Gone { asked: rev.0, oldest: oldest.0 }) } else { Ok(()) }
    }

    /// The `seq` below which the past lies.
    fn bound<T: Document>(&mut self, at: AsOf) -> Result<i64, Error> {
        if !T::HISTORY {
            return Err(Error::Unsupported(format!("No history is kept of {}", T::KIND)));
        }
        let rev = match at {
            AsOf::Rev(rev) => rev,
            AsOf::Time(time) => {
                let rev = self.rev_at(time)?;
                let oldest = self.oldest()?;
                if rev == oldest && rev.0 > 0 {
                    self.check_time(rev, time)?;
                }
                rev
            }
        };
        self.check_kept(rev)?;
        Ok(seq(Rev(rev.0.min(i64::MAX as u64 / 65_536 - 2) + 1), 0))
    }

    /// A time before the oldest revision cannot be answered once history has been trimmed.
    fn check_time(&mut self, oldest: Rev, time: Timestamp) -> Result<(), Error> {
        match self.raw_meta("trim_at")? {
            Some(at) if time.0 < at => Err(Error::Gone { asked: 0, oldest: oldest.0 }),
            _ => Ok(()),
        }
    }
}

/// Sorts a list of the past and cuts the page out.
fn page(kind: &'static str, mut rows: Vec<DocRow>, query: &Query) -> Result<Vec<DocRow>, Error> {
    rows.sort_by(|a, b| (a.created, &a.id).cmp(&(b.created, &b.id)));
    if query.reverse {
        rows.reverse();
    }
    if let Some(id) = &query.after {
        let place = rows.iter().position(|row| row.id == *id);
        let place = place.ok_or_else(|| Error::Marker { kind, id: id.clone() })?;
        rows.drain(..=place);
    }
    rows.truncate(query.limit.unwrap_or(usize::MAX));
    Ok(rows)
}

/// A row of (id, project_id, seq, created, at, body); `None` for a deletion.
fn past_row(mut row: Row) -> Result<Option<DocRow>, Error> {
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
        body: row.maybe_text(6).map(Arc::from),
    })
}
