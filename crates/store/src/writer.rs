//! The one writer: runs jobs in batches, each job in a savepoint, and answers after the commit.
//!
//! A panic, a taken key or a refused quota in one job undoes that job alone. When the engine gives up the whole batch
//! (disk full, connection lost, failed COMMIT), its jobs run again, one batch each: a closure is therefore `FnMut`.
//!
//! ```text
//! begin ─> [savepoint ─> closure ─> flush ─> release | undo] × up to 256 or 20 ms ─> commit ─> publish ─> answer
//!   └──────────────── the transaction is gone: every job again, alone ────────────────┘
//! ```

use crate::buffer::{Buffer, Difference, seq};
use crate::conn::Connect;
use crate::document::plain;
use crate::reader::Reader;
use crate::scope::Along;
use crate::sql::{self, given};
use crate::store::Shared;
use crate::tx::Tx;
use crate::watch::{Change, Revision};
use crate::{Error, Result, Rev};
use base::{Fault, RequestId};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

/// The most jobs of a batch, and how long it goes on taking them after the first.
const BATCH_JOBS: usize = 256;
const BATCH_TIME: Duration = Duration::from_millis(20);
/// After another process has written, so many commits ask for the revision before it is taken as known again.
const WARY: u32 = 16;
/// How long a server that could not be reached is left alone.
const AWAY: Duration = Duration::from_millis(500);

/// Who changes something, in which request, and what for. Kept in history.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cause {
    /// A user's id, or the name of a part of nubo.
    pub actor: String,
    pub request_id: RequestId,
    /// The operation, such as `server.create`.
    pub what: String,
}

impl Cause {
    pub fn new(actor: impl Into<String>, request_id: impl Into<RequestId>, what: impl Into<String>) -> Cause {
        Cause { actor: actor.into(), request_id: request_id.into(), what: what.into() }
    }

    fn check(&self) -> Result<(), Error> {
        plain("actor", &self.actor, 512)?;
        plain("request_id", &self.request_id, 512)?;
        plain("what", &self.what, 512)
    }
}

/// What a write returned, and its revision. A closure that changed nothing has the revision of the last commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Committed<R> {
    pub value: R,
    pub rev: Rev,
}

/// A closure on its way through the writer.
pub(crate) trait Job: Send {
    fn run(&mut self, tx: &mut Tx) -> Result<()>;
    fn cause(&self) -> &Cause;
    fn dry(&self) -> bool;
    /// What earlier writes of the same dry run would have changed.
    fn overlay(&self) -> Option<&Buffer>;
    fn answer(self: Box<Self>, outcome: Result<Outcome>);
}

/// What became of a job.
#[derive(Default)]
pub(crate) struct Outcome {
    pub rev: Rev,
    pub differences: Vec<Difference>,
    /// Of a dry run: what it has changed, for the reads and writes that follow in the same scope.
    pub overlay: Option<Buffer>,
    changes: Vec<Change>,
    pub changed: bool,
}

/// Where the result of a job goes.
pub(crate) type Answer<R> = oneshot::Sender<Result<(R, Outcome)>>;

pub(crate) struct Work<R, F> {
    pub cause: Cause,
    pub dry: bool,
    pub overlay: Option<Arc<Buffer>>,
    pub along: Option<Arc<dyn Along>>,
    pub closure: F,
    pub value: Option<R>,
    pub to: Answer<R>,
}

impl<R: Send, F: FnMut(&mut Tx) -> Result<R> + Send> Job for Work<R, F> {
    fn run(&mut self, tx: &mut Tx) -> Result<()> {
        self.value = None;
        self.value = Some((self.closure)(tx)?);
        match &self.along {
            Some(along) if tx.changes_anything() => along.write(tx),
            _ => Ok(()),
        }
    }

    fn cause(&self) -> &Cause {
        &self.cause
    }

    fn dry(&self) -> bool {
        self.dry
    }

    fn overlay(&self) -> Option<&Buffer> {
        self.overlay.as_deref()
    }

    fn answer(self: Box<Self>, outcome: Result<Outcome>) {
        let Work { value, to, .. } = *self;
        let answer = match (outcome, value) {
            (Ok(outcome), Some(value)) => Ok((value, outcome)),
            (Ok(_), None) => Err(Fault::bug("a job was answered without having run")),
            (Err(fault), _) => Err(fault),
        };
        // Nobody listens when the caller has gone away; what was committed stands nevertheless.
        let _ = to.send(answer);
    }
}

type Done = (Box<dyn Job>, Result<Outcome>);

/// How a batch ended.
enum End {
    Committed,
    /// The transaction is gone and nothing of it was kept.
    Gone(Error),
    /// Nobody can say.
    Unknown(Error),
}

pub(crate) struct Writer {
    tx: Tx,
    connect: Arc<dyn Connect>,
    shared: Arc<Shared>,
    /// The newest revision, the batch under way included.
    rev: Rev,
    /// The revision of our last commit, as long as nobody else seems to write.
    known: Option<Rev>,
    /// So many commits are asked for the revision yet.
    wary: u32,
    /// When the server could last not be reached, and why.
    away: Option<(Instant, Error)>,
    /// The engine refused something that a job without a savepoint asked of it: the transaction must not be committed.
    torn: bool,
}

impl Writer {
    pub fn new(connect: Arc<dyn Connect>, shared: Arc<Shared>) -> Result<Writer, Error> {
        let reader = Reader::new(connect.writer()?, shared.clone());
        let (rev, known) = (Rev(0), None);
        Ok(Writer { tx: Tx::new(reader), connect, shared, rev, known, wary: 0, away: None, torn: false })
    }

    /// For reads in inline mode, between batches.
    pub fn reader(&mut self) -> &mut Reader {
        &mut self.tx
    }

    /// Runs the job, and whatever `more` has at hand, as one commit; then answers them all.
    pub fn batch(&mut self, first: Box<dyn Job>, mut more: impl FnMut() -> Option<Box<dyn Job>>) {
        let known = self.known.filter(|_| self.wary == 0);
        self.wary = self.wary.saturating_sub(1);
        if let Err(error) = self.begin(known) {
            return first.answer(Err(error.into()));
        }
        let before = self.rev;
        let mut done: Vec<Done> = Vec::new();
        let mut since_first = None;
        let mut next = Some(first);
        while let Some(mut job) = next.take() {
            let outcome = self.one(&mut *job);
            done.push((job, outcome));
            if !self.standing() {
                return self.again(done);
            }
            if self.torn {
                let behind = self.tx.conn.is_behind();
                self.tx.conn.rollback();
                // The only one was undone by that; others are innocent, and so are all if the revision was another.
                return if done.len() == 1 && !behind { answer(done) } else { self.again(done) };
            }
            // However long the first took: what waited for it may come along.
            let started = *since_first.get_or_insert_with(Instant::now);
            if done.len() < BATCH_JOBS && started.elapsed() < BATCH_TIME {
                next = more();
            }
        }
        match self.finish(before, &done) {
            End::Committed => self.settle(done),
            End::Gone(_) => self.again(done),
            End::Unknown(error) => self.unknown(done, &error),
        }
    }

    /// Runs the jobs of a lost batch one by one. One that loses its transaction alone is answered with the reason.
    fn again(&mut self, jobs: Vec<Done>) {
        if self.tx.conn.is_behind() {
            self.wary = WARY;
            tracing::debug!(jobs = jobs.len(), "another process has written: a batch runs again");
        } else {
            tracing::warn!(jobs = jobs.len(), "a batch was lost and runs again, each job alone");
        }
        let mut jobs = jobs.into_iter();
        while let Some((mut job, outcome)) = jobs.next() {
            if let Err(error) = self.begin(None) {
                // The engine is away: the rest need not wait for that one by one.
                return fail([(job, outcome)].into_iter().chain(jobs), &error);
            }
            let before = self.rev;
            let outcome = self.one(&mut *job);
            if !self.standing() {
                self.tx.conn.rollback();
                job.answer(outcome.and_then(|_| Err(Error::Unavailable("the transaction ended early".into()).into())));
                continue;
            }
            let done = vec![(job, outcome)];
            if self.torn {
                self.tx.conn.rollback();
                answer(done);
                continue;
            }
            match self.finish(before, &done) {
                End::Committed => self.settle(done),
                End::Gone(error) => fail(done, &error),
                End::Unknown(error) => self.unknown(done, &error),
            }
        }
    }

    /// Replaces the connection. A server that was away a moment ago is not tried again at once: each try may take
    /// seconds, and jobs queue up behind it.
    fn reconnect(&mut self) -> Result<(), Error> {
        if let Some((at, error)) = &self.away
            && at.elapsed() < AWAY
        {
            return Err(error.clone());
        }
        match self.connect.writer() {
            Ok(conn) => {
                self.tx.conn = conn;
                self.away = None;
                Ok(())
            }
            Err(error) => {
                self.away = Some((Instant::now(), error.clone()));
                Err(error)
            }
        }
    }

    /// Begins the transaction on a connection that works and reads the revision that it builds upon, unless the engine
    /// makes sure by itself that it is the known one.
    fn begin(&mut self, known: Option<Rev>) -> Result<(), Error> {
        if !self.tx.conn.is_alive() {
            self.reconnect()?;
        }
        self.tx.stop();
        self.torn = false;
        self.known = None;
        match self.began(known) {
            Ok(rev) => {
                self.rev = rev;
                Ok(())
            }
            Err(error) => {
                self.tx.conn.rollback();
                // A connection that died while idle says so only now: once more on a new one.
                if self.tx.conn.is_alive() {
                    return Err(error);
                }
                self.reconnect()?;
                self.rev = self.began(None)?;
                Ok(())
            }
        }
    }

    fn began(&mut self, known: Option<Rev>) -> Result<Rev, Error> {
        if let (true, Some(rev)) = (self.tx.conn.begin_write(known)?, known) {
            return Ok(rev);
        }
        Ok(Rev(self.tx.raw_meta("rev")?.unwrap_or(0) as u64))
    }

    fn standing(&self) -> bool {
        self.tx.conn.is_alive() && self.tx.conn.in_transaction()
    }

    /// Runs one job. A savepoint costs a copy of each page that the job touches, so only those have one that write past
    /// their buffer or are undone for sure. Any other has written nothing when it fails, unless the engine refuses the
    /// buffer itself, which means that something is wrong: then the batch is torn.
    fn one(&mut self, job: &mut dyn Job) -> Result<Outcome> {
        job.cause().check()?;
        self.tx.start(self.rev);
        if job.dry() {
            self.tx.save()?;
        }
        if let Some(overlay) = job.overlay() {
            self.tx.lay_over(overlay.clone());
        }
        let ran = catch_unwind(AssertUnwindSafe(|| job.run(&mut self.tx)))
            .unwrap_or_else(|panic| Err(Fault::bug(format!("a transaction panicked: {}", message(&*panic)))));
        let mut refused = self.tx.failed.is_some();
        let outcome = ran.and_then(|()| match self.tx.failed.take() {
            Some(error) => Err(error.into()),
            None => self.flush(job).inspect_err(|_| refused = true).map_err(Fault::from),
        });
        let keep = !job.dry() && outcome.is_ok();
        self.tx.stop();
        let ended = match (self.tx.saved, keep) {
            (false, _) => {
                self.torn = refused;
                Ok(())
            }
            (true, true) => self.tx.conn.release(),
            (true, false) => self.tx.conn.undo(),
        };
        match (ended, outcome) {
            (Err(error), Ok(_)) => Err(error.into()),
            (_, outcome) => {
                if let Ok(outcome) = &outcome
                    && keep
                {
                    self.rev = outcome.rev;
                }
                outcome
            }
        }
    }

    /// Writes what the job has buffered.
    fn flush(&mut self, job: &dyn Job) -> Result<Outcome, Error> {
        let (rev, now) = (self.tx.rev(), self.tx.now());
        if !job.dry() {
            self.tx.fill_trash(job.cause())?;
        }
        let reader: &mut Reader = &mut self.tx;
        let charged = crate::trash::to_text(&reader.buffer.charged())?;
        let changes = reader.buffer.changes(rev, now)?;
        let ledger = reader.buffer.ledger_past()?;
        let rows = reader.buffer.rows(rev, &changes, &ledger, job.cause(), now, &charged);
        let changed = !rows.is_empty() || !reader.buffer.meta.is_empty();
        // What an overlay builds upon may have been changed by others since; its rows would not fit any more.
        if !rows.is_empty() && job.overlay().is_none() {
            reader.conn.flush(&rows)?;
        }
        for (name, value) in &reader.buffer.meta {
            reader.conn.execute(&sql::META_SET, &given![name, *value])?;
        }
        let differences = if job.dry() { reader.buffer.differences()? } else { Vec::new() };
        let rev = if changed { rev } else { self.rev };
        drop(rows);
        let overlay = job.dry().then(|| std::mem::take(&mut reader.buffer));
        Ok(Outcome { rev, differences, overlay, changes, changed })
    }

    /// Raises the revision and commits. A connection that is lost here leaves it open whether it happened: then the
    /// history is asked.
    fn finish(&mut self, before: Rev, done: &[Done]) -> End {
        let refused = self.shared.hooks.as_ref().filter(|_| self.rev != before).and_then(|hooks| hooks.commit().err());
        if let Some(error) = refused {
            self.tx.conn.rollback();
            return End::Gone(error);
        }
        let committed = if self.rev == before {
            self.tx.conn.commit()
        } else {
            self.tx.conn.commit_with(&sql::REV_RAISE, &given![self.rev.0 as i64, before.0 as i64])
        };
        match committed {
            Ok(()) => {
                self.known = Some(self.rev);
                End::Committed
            }
            Err(error) if self.tx.conn.is_alive() => {
                self.tx.conn.rollback();
                End::Gone(error)
            }
            Err(error) => self.look(before, done, error),
        }
    }

    /// After a connection was lost during COMMIT: finds out on a new one, under the lock, whether it happened.
    fn look(&mut self, before: Rev, done: &[Done], error: Error) -> End {
        let wanted = self.rev;
        if let Err(again) = self.begin(None) {
            return End::Unknown(again);
        }
        let now = self.rev;
        let found = self.traces(done);
        self.tx.conn.rollback();
        match found {
            _ if now == before => End::Gone(error),
            Ok(Some(true)) => {
                self.rev = wanted;
                End::Committed
            }
            Ok(Some(false)) => End::Gone(error),
            Ok(None) => End::Unknown(error),
            Err(error) => End::Unknown(error),
        }
    }

    /// Whether history shows a job of this batch in its place; `None` when no job of it leaves history.
    fn traces(&mut self, done: &[Done]) -> Result<Option<bool>, Error> {
        for (job, outcome) in done {
            let Ok(outcome) = outcome else { continue };
            if !outcome.changed || outcome.changes.is_empty() || job.dry() {
                continue;
            }
            let place = seq(outcome.rev, 0);
            if let Some(mut row) = self.tx.query(&sql::PAST_REQUEST, &[place.into()])?.pop() {
                let same = row.text(0)? == job.cause().request_id.as_str()
                    && outcome.changes.first().is_some_and(|change| row.int(1) == Ok(change.updated.0));
                return Ok(Some(same));
            }
        }
        Ok(None)
    }

    /// Tells the watchers, in order, and then the callers.
    fn settle(&mut self, mut done: Vec<Done>) {
        for (job, outcome) in &mut done {
            if let Ok(outcome) = outcome
                && outcome.changed
                && !job.dry()
            {
                let changes = std::mem::take(&mut outcome.changes);
                self.shared.publish(Revision { rev: outcome.rev, changes });
            }
        }
        answer(done);
    }

    /// Nobody knows whether the batch was kept: watchers must read anew, and callers must look.
    fn unknown(&mut self, done: Vec<Done>, error: &Error) {
        self.shared.lose();
        fail(done, &Error::Unknown(error.to_string()));
    }
}

/// Answers jobs that changed nothing.
fn answer(done: Vec<Done>) {
    for (job, outcome) in done {
        job.answer(outcome);
    }
}

/// Answers jobs whose commit failed; those that had failed by themselves keep their own reason.
fn fail(done: impl IntoIterator<Item = Done>, error: &Error) {
    for (job, outcome) in done {
        job.answer(outcome.and_then(|_| Err(error.clone().into())));
    }
}

/// The text of a panic.
pub(crate) fn message(panic: &(dyn std::any::Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message")
}
