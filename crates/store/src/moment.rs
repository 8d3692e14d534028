//! Moments of the past: how they are asked for, which revision they mean, and a [`Reader`] that stands in one.
//!
//! A reader that stands in the past answers every question from history as the tables would have answered it then: the
//! same documents in the same order, the same unique keys and indexes (computed again from the bodies of then), the
//! same ledger. Secrets are blank there. What no history is kept of is refused, never answered from the present.

use crate::buffer::{DocRow, seq};
use crate::document::{Document, Keys, Rev, Stored, decode};
use crate::ledger;
use crate::past::past_row;
use crate::query::{Query, Scope};
use crate::reader::{Reader, no_key};
use crate::sql::{self, given, values};
use crate::{Error, Usage};
use base::Timestamp;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

/// How many documents are looked at in one step when the keys of a kind are computed again.
const STEP: i64 = 2_000;

/// A moment of the past, as it is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AsOf {
    /// After this commit.
    Rev(Rev),
    /// After the last commit at or before this time.
    Time(Timestamp),
}

impl std::fmt::Display for AsOf {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            AsOf::Rev(rev) => write!(f, "rev:{rev}"),
            AsOf::Time(time) => f.write_str(&time.iso_micros()),
        }
    }
}

/// A moment of the past that history reaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    /// The newest commit at the moment.
    pub rev: Rev,
    /// The time that was asked for, or of the commit.
    pub at: Timestamp,
}

/// Where a reader stands that does not stand in the present.
pub(crate) struct Then {
    moment: Moment,
    /// History below this `seq` is what had happened.
    bound: i64,
    kinds: HashMap<&'static str, Arc<KeysThen>>,
}

type Place = (i64, String);

/// The keys that a kind had then.
#[derive(Default)]
struct KeysThen {
    /// In the order of creation.
    indexes: HashMap<(&'static str, String), Vec<Place>>,
    uniques: HashMap<(&'static str, String), String>,
}

impl Reader {
    /// The document as it was, without its secrets. [`Error::Gone`] before the oldest history that is kept; what lies
    /// in the future means now.
    pub fn get_as_of<T: Document>(&mut self, id: &str, at: AsOf) -> Result<Option<Stored<T>>, Error> {
        let moment = self.reached(at)?;
        self.standing(moment, |reader| reader.get(id))
    }

    /// The documents that matched then, in the order of their creation, without their secrets.
    pub fn list_as_of<T: Document>(&mut self, query: Query, at: AsOf) -> Result<Vec<Stored<T>>, Error> {
        let moment = self.reached(at)?;
        self.standing(moment, |reader| reader.list(query))
    }

    /// Runs the closure with the reader standing in the past. [`Error::Outside`] for what history does not reach. In a
    /// transaction its own changes are not seen meanwhile.
    pub fn at<R, E: From<Error>>(
        &mut self,
        at: AsOf,
        closure: impl FnOnce(&mut Reader) -> Result<R, E>,
    ) -> Result<R, E> {
        let moment = self.moment(at)?;
        self.standing(moment, closure)
    }

    pub(crate) fn standing<R>(&mut self, moment: Moment, closure: impl FnOnce(&mut Reader) -> R) -> R {
        let then = Then { moment, bound: after(moment.rev), kinds: HashMap::new() };
        let outer = self.then.replace(Box::new(then));
        let result = closure(self);
        self.then = outer;
        result
    }

    /// The moment in which this reader stands; `None` in the present.
    pub fn stands_in(&self) -> Option<Moment> {
        self.then.as_ref().map(|then| then.moment)
    }

    /// The commit and the time that are meant. [`Error::Outside`] before the first revision that is kept, and in the
    /// future.
    pub fn moment(&mut self, at: AsOf) -> Result<Moment, Error> {
        let newest = Rev(self.raw_meta("rev")?.unwrap_or(0) as u64);
        let oldest = self.oldest()?.max(Rev(1));
        let began = self.began(oldest)?;
        let now = self.shared.env.now();
        let reached = match at {
            AsOf::Rev(rev) => (oldest..=newest).contains(&rev),
            AsOf::Time(time) => newest >= oldest && (began..=now).contains(&time),
        };
        if !reached {
            return Err(Error::Outside {
                asked: at.to_string(),
                oldest: (oldest.0, began.iso_micros()),
                newest: (newest.0, now.iso_micros()),
            });
        }
        match at {
            AsOf::Rev(rev) => {
                let rows = self.query(&sql::PAST_BEFORE, &[after(rev).into()])?;
                let at = rows.first().map_or(Ok(began), |row| row.int(1).map(Timestamp))?;
                Ok(Moment { rev, at })
            }
            AsOf::Time(at) => Ok(Moment { rev: self.rev_at(at)?, at }),
        }
    }

    /// The time of the oldest revision that is kept.
    fn began(&mut self, oldest: Rev) -> Result<Timestamp, Error> {
        if let Some(at) = self.raw_meta("trim_at")? {
            return Ok(Timestamp(at));
        }
        let rows = self.query(&sql::PAST_AT, &[seq(oldest, 0).into()])?;
        rows.first().map_or(Ok(self.shared.env.now()), |row| row.int(1).map(Timestamp))
    }

    /// As [`Reader::moment`], but the empty cloud and the future are answered: with nothing, and with the present.
    fn reached(&mut self, at: AsOf) -> Result<Moment, Error> {
        let (rev, at) = match at {
            AsOf::Rev(rev) => (rev, self.shared.env.now()),
            AsOf::Time(time) => {
                let (rev, oldest) = (self.rev_at(time)?, self.oldest()?);
                // A time before the oldest revision cannot be answered once history has been trimmed.
                if rev == oldest && rev.0 > 0 && self.raw_meta("trim_at")?.is_some_and(|at| time.0 < at) {
                    return Err(Error::Gone { asked: 0, oldest: oldest.0 });
                }
                (rev, time)
            }
        };
        self.check_kept(rev)?;
        Ok(Moment { rev, at })
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

    pub(crate) fn check_kept(&mut self, rev: Rev) -> Result<(), Error> {
        let oldest = self.oldest()?;
        if rev < oldest { Err(Error::Gone { asked: rev.0, oldest: oldest.0 }) } else { Ok(()) }
    }
}

/// The first `seq` after a revision.
pub(crate) fn after(rev: Rev) -> i64 {
    seq(Rev(rev.0.min(i64::MAX as u64 / 65_536 - 2) + 1), 0)
}

/// The answers of a reader that stands in the past.
impl Reader {
    /// History below this `seq` is what had happened; all of it in the present.
    pub(crate) fn bound(&self) -> i64 {
        self.then.as_ref().map_or(i64::MAX, |then| then.bound)
    }

    pub(crate) fn row_then(&mut self, kind: &str, id: &str) -> Result<Option<DocRow>, Error> {
        if no_key(id) {
            return Ok(None);
        }
        let bound = self.bound();
        let row = self.query(&sql::PAST_GET, &given![kind, id, bound])?.pop();
        row.map(past_row).transpose().map(Option::flatten)
    }

    pub(crate) fn unique_then<T: Document>(
        &mut self,
        name: &'static str,
        value: String,
    ) -> Result<Option<DocRow>, Error> {
        let keys = self.keys_then::<T>()?;
        match keys.uniques.get(&(name, value)) {
            Some(id) => self.row_then(T::KIND, id),
            None => Ok(None),
        }
    }

    pub(crate) fn rows_then<T: Document>(&mut self, query: &Query) -> Result<Vec<DocRow>, Error> {
        let start = match &query.after {
            None => (if query.reverse { i64::MAX } else { i64::MIN }, String::new()),
            Some(id) => match self.row_then(T::KIND, id)? {
                Some(row) => (row.created, row.id),
                None => return Err(Error::Marker { kind: T::KIND, id: id.clone() }),
            },
        };
        let (kind, bound, way) = (T::KIND, self.bound(), usize::from(query.reverse));
        let most = query.limit.map_or(i64::MAX, |limit| i64::try_from(limit).unwrap_or(i64::MAX));
        let (created, id) = (start.0, &start.1);
        let found = match &query.scope {
            Scope::Project(project) if project.is_empty() || no_key(project) => Vec::new(),
            Scope::All => self.query(&sql::PAST_ALL[way], &given![kind, bound, created, id, most])?,
            Scope::Project(project) => {
                self.query(&sql::PAST_PROJECT[way], &given![kind, project, bound, created, id, most])?
            }
            Scope::Index(name, value) => return self.indexed_then::<T>(name, value, start, query),
        };
        found.into_iter().filter_map(|row| past_row(row).transpose()).collect()
    }

    fn indexed_then<T: Document>(
        &mut self,
        name: &'static str,
        value: &str,
        start: Place,
        query: &Query,
    ) -> Result<Vec<DocRow>, Error> {
        let (keys, bound) = (self.keys_then::<T>()?, self.bound());
        let Some(places) = keys.indexes.get(&(name, value.to_owned())) else { return Ok(Vec::new()) };
        let most = query.limit.unwrap_or(usize::MAX);
        let page: Vec<&Place> = match query.reverse {
            false => places.iter().filter(|place| **place > start).take(most).collect(),
            true => places.iter().rev().filter(|place| **place < start).take(most).collect(),
        };
        let calls: Vec<_> = page.iter().map(|(_, id)| (&sql::PAST_GET, values![T::KIND, id, bound])).collect();
        let found = self.query_all(&calls)?.into_iter().flatten();
        found.filter_map(|row| past_row(row).transpose()).collect()
    }

    pub(crate) fn count_then<T: Document>(&mut self, scope: &Scope) -> Result<usize, Error> {
        let (kind, bound) = (T::KIND, self.bound());
        let found = match scope {
            Scope::Project(project) if project.is_empty() || no_key(project) => return Ok(0),
            Scope::All => self.query(&sql::PAST_COUNT_ALL, &given![kind, bound])?,
            Scope::Project(project) => self.query(&sql::PAST_COUNT_PROJECT, &given![kind, project, bound])?,
            Scope::Index(name, value) => {
                let keys = self.keys_then::<T>()?;
                return Ok(keys.indexes.get(&(*name, value.clone())).map_or(0, Vec::len));
            }
        };
        Ok(found.first().map_or(Ok(0), |row| row.int(0))?.max(0) as usize)
    }

    /// The keys of all documents of a kind, computed once for as long as the reader stands here.
    fn keys_then<T: Document>(&mut self) -> Result<Arc<KeysThen>, Error> {
        if let Some(known) = self.then.as_ref().and_then(|then| then.kinds.get(T::KIND)) {
            return Ok(known.clone());
        }
        let (mut keys, mut from) = (KeysThen::default(), String::new());
        loop {
            let bound = self.bound();
            let rows = self.query(&sql::PAST_PAGE, &given![T::KIND, bound, &from, STEP])?;
            let last = (rows.len() as i64) < STEP;
            for mut row in rows {
                let id = row.text(0)?;
                if id > from {
                    from = id.clone();
                }
                let (created, Some(body)) = (row.int(3)?, row.maybe_text(5)) else { continue };
                let own = Keys::of(&decode::<T>(&body)?)?;
                for key in own.indexes {
                    keys.indexes.entry(key).or_default().push((created, id.clone()));
                }
                for key in own.uniques {
                    keys.uniques.insert(key, id.clone());
                }
            }
            if last {
                break;
            }
        }
        keys.indexes.values_mut().for_each(|places| places.sort());
        let keys = Arc::new(keys);
        if let Some(then) = &mut self.then {
            then.kinds.insert(T::KIND, keys.clone());
        }
        Ok(keys)
    }

    pub(crate) fn usage_then(&mut self, scope: &str, resource: &str) -> Result<Usage, Error> {
        self.check_ledger()?;
        let (id, bound) = (ledger::id(scope, resource), self.bound());
        if no_key(&id) {
            return Ok(Usage::default());
        }
        let row = self.query(&sql::PAST_GET, &given![ledger::KIND, &id, bound])?.pop();
        ledger::parse(row.and_then(|mut row| row.maybe_text(5)).as_deref())
    }

    /// Ledger rows are never removed: those of then are among those of today.
    pub(crate) fn usages_then(&mut self, scope: &str) -> Result<BTreeMap<String, Usage>, Error> {
        self.check_ledger()?;
        if no_key(scope) {
            return Ok(BTreeMap::new());
        }
        let bound = self.bound();
        let mut resources = Vec::new();
        for mut row in self.query(&sql::USAGES, &[scope.into()])? {
            resources.push(row.text(0)?);
        }
        let ids: Vec<String> = resources.iter().map(|resource| ledger::id(scope, resource)).collect();
        let calls: Vec<_> = ids.iter().map(|id| (&sql::PAST_GET, values![ledger::KIND, id, bound])).collect();
        let mut usages = BTreeMap::new();
        for (resource, mut rows) in resources.into_iter().zip(self.query_all(&calls)?) {
            if let Some(mut row) = rows.pop() {
                usages.insert(resource, ledger::parse(row.maybe_text(5).as_deref())?);
            }
        }
        Ok(usages)
    }

    /// Programs before the ledger had a history left none.
    fn check_ledger(&mut self) -> Result<(), Error> {
        let from = Rev(self.raw_meta("ledger_from")?.unwrap_or(0) as u64);
        match self.stands_in() {
            Some(then) if then.rev < from => Err(Error::Gone { asked: then.rev.0, oldest: from.0 }),
            _ => Ok(()),
        }
    }

    /// What no history is kept of.
    pub(crate) fn no_past(what: &str) -> Error {
        Error::Unsupported(format!("No history is kept of {what}, so it cannot be asked for with as_of"))
    }
}
