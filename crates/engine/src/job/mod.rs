//! Durable jobs: one-shot work that takes longer than a transaction and must not be lost.
//!
//! A job is a document. The change that needs it creates it in its own commit, so there is never a change without its
//! job, nor a job without its change. Who works holds the job's lease; taking the lease raises its epoch, and every
//! commit of a worker holds its epoch against the lease's inside the transaction: a worker that was overtaken, however
//! long it slept, writes nothing any more. What a worker knows is in the store, so the next one goes on at the first
//! step that is not done.
//!
//! ```text
//!                 take (epoch + 1)               last step
//!   waiting ──────────────────────► held ─────────────────────► gone
//!      ▲                             │ │ run out, holder dead: taken by another, epoch + 1
//!      └── failed: attempts + 1 ─────┘ └─ owner gone, deadline passed, given up: `Work::end`, gone
//! ```
//!
//! What must never happen here: an effect on the store outside of [`Held::commit`] or [`Held::within`], and a step that
//! may not be begun again.

mod held;
mod runner;
#[cfg(test)]
mod tests;

pub use held::Held;
pub use runner::Jobs;

use crate::Trouble;
use async_trait::async_trait;
use base::{Fault, FaultKind, Result, Timestamp};
use contract::Waiting;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use store::{Document, Keys, Query, Reader, Tx};

/// How long a lease lasts that nobody renews. A worker renews its lease three times as often.
pub const LEASE_MS: i64 = 30_000;
/// The most bytes of an error that are kept.
const ERROR_BYTES: usize = 2_000;
/// Under this name of a loop failing jobs stand among the troubles.
const LOOP: &str = "job";

/// Who works on a job.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// The control process; empty: nobody.
    pub holder: String,
    /// The fencing token: raised each time the lease is taken, never lowered.
    pub epoch: u64,
    pub until: Timestamp,
}

/// A job as it lies in the store.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Job {
    id: String,
    /// Names the [`Work`].
    pub kind: String,
    pub project_id: String,
    /// The ids of the documents that it works for. When one goes, the job is cancelled.
    pub owners: Vec<String>,
    /// What the steps need to know, in the words of the work.
    pub input: Value,
    pub steps: Vec<String>,
    /// How many of the steps are done.
    pub done: usize,
    pub since: Timestamp,
    pub deadline: Timestamp,
    /// Failures in a row of the step that is on.
    pub attempts: u32,
    pub last_error: Option<String>,
    /// Not begun again before.
    pub not_before: Timestamp,
    pub lease: Lease,
    /// The epoch under which this was last written: always the lease's own. The simulator holds that.
    pub written_by: u64,
}

impl Document for Job {
    const KIND: &'static str = "job";
    /// It is work, not state: what it reaches is in the documents that it changes.
    const HISTORY: bool = false;
    const TRASH: bool = false;
    const UNDO: bool = false;

    fn id(&self) -> &str {
        &self.id
    }
    fn project_id(&self) -> &str {
        &self.project_id
    }
    fn keys(&self, keys: &mut Keys) {
        for owner in &self.owners {
            keys.index("owner", owner.as_str());
        }
    }
}

/// What a new job is made of.
#[derive(Clone, Debug)]
pub struct NewJob {
    pub kind: &'static str,
    pub project_id: String,
    pub owners: Vec<String>,
    pub input: Value,
    pub steps: &'static [&'static str],
    pub deadline: Timestamp,
}

impl Job {
    /// Writes a job down, in the transaction of the change that needs it.
    ///
    /// # Errors
    /// Bug for a job without steps or owners; else what the store says.
    pub fn create(tx: &mut Tx, new: NewJob) -> Result<Job> {
        if new.steps.is_empty() || new.owners.is_empty() {
            return Err(Fault::bug(format!("a job {} has no step or no owner", new.kind)));
        }
        let job = Job {
            id: tx.uuid(),
            kind: new.kind.to_owned(),
            project_id: new.project_id,
            owners: new.owners,
            input: new.input,
            steps: new.steps.iter().map(|step| (*step).to_owned()).collect(),
            done: 0,
            since: tx.now(),
            deadline: new.deadline,
            attempts: 0,
            last_error: None,
            not_before: tx.now(),
            lease: Lease::default(),
            written_by: 0,
        };
        tx.create(&job)?;
        Ok(job)
    }

    /// The step that is on; none: all are done.
    pub fn step(&self) -> Option<&str> {
        self.steps.get(self.done).map(String::as_str)
    }

    /// The jobs that work for an object, the oldest first.
    ///
    /// # Errors
    /// What the store says.
    pub fn about(reader: &mut Reader, owner: &str) -> Result<Vec<Job>> {
        Ok(reader.list::<Job>(Query::index("owner", owner))?.into_iter().map(|stored| stored.doc).collect())
    }

    /// As it is explained; `waiting_on` says in the owner's words for what.
    pub fn waiting(&self, waiting_on: impl Into<String>) -> Waiting {
        Waiting {
            waiting_on: waiting_on.into(),
            since: self.since,
            deadline: Some(self.deadline),
            attempts: self.attempts,
            last_error: self.last_error.clone(),
        }
    }

    /// Somebody works on it, as far as one can know: its lease has not run out. One that lasts longer than any lease
    /// was given by a clock that has been set back since.
    fn is_held(&self, now: Timestamp) -> bool {
        !self.lease.holder.is_empty() && self.lease.until > now && self.lease.until <= now.plus_ms(LEASE_MS)
    }

    /// Removes it, with what was said against it.
    fn remove(&self, tx: &mut Tx) -> Result<()> {
        Trouble::drop_in(tx, LOOP, &self.id)?;
        tx.delete::<Job>(&self.id)?;
        Ok(())
    }
}

/// How a step ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    Done,
    /// Nothing failed, but what it waits for is not there yet.
    Again {
        after_ms: u64,
    },
}

/// Why a job ends before its last step.
#[derive(Debug)]
pub enum End {
    /// An owner is gone.
    Cancelled,
    /// The deadline has passed.
    Late,
    /// There is no use in trying again.
    GaveUp(Fault),
}

impl End {
    /// For the owner.
    pub fn reason(&self, job: &Job) -> String {
        match self {
            End::Cancelled => "What it was for is gone.".to_owned(),
            End::Late => {
                let error = job.last_error.as_ref().map(|error| format!(" The last error was: {error}"));
                format!("It took longer than it may.{}", error.unwrap_or_default())
            }
            End::GaveUp(fault) => fault.message.to_string(),
        }
    }
}

/// One kind of job: what its steps do.
#[async_trait]
pub trait Work: Send + Sync + 'static {
    /// As in [`NewJob::kind`].
    fn kind(&self) -> &'static str;

    /// The kinds of documents whose deletion may end a job of this kind.
    fn owner_kinds(&self) -> &'static [&'static str];

    /// False once an owner no longer wants the job: it is cancelled.
    fn wanted(&self, reader: &mut Reader, job: &Job) -> Result<bool>;

    /// Does one step, or begins it again: whoever did it before may have died anywhere in it. Everything that it
    /// writes goes through `held`.
    async fn step(&self, step: &str, held: &Held) -> Result<Progress>;

    /// Puts right what an unfinished job leaves, in the commit that removes the job.
    fn end(&self, tx: &mut Tx, job: &Job, why: &End) -> Result<()>;

    /// Whether a failure is the last: `attempts` counts it. What the input or a limit is to blame for does not come
    /// right by waiting.
    fn gives_up(&self, fault: &Fault, attempts: u32) -> bool {
        let _ = attempts;
        !matches!(fault.kind, FaultKind::Unavailable | FaultKind::Conflict | FaultKind::Bug | FaultKind::Capacity)
    }
}

/// A text that the store takes, and not more of it than is read.
fn short(error: &str) -> String {
    let mut end = error.len().min(ERROR_BYTES);
    while !error.is_char_boundary(end) {
        end -= 1;
    }
    error[..end].replace('\0', " ")
}
