//! What one request carries through every call of the store: a dry run's plan, a moment of the past, what is written along.
//!
//! A handler calls `store.write(…)`, and then reads what it wrote; it does not know whether the request is a dry run.
//! So the request says it once, around the handler's future ([`run`]), and every public entry of [`crate::Store`] asks
//! ([`current`]) on the task that calls it, before the closure goes to another thread (docs/adr/0006).
//!
//! ```text
//! run(dry) ─> write 1 ─> undone, its changes stay in the Plan
//!                read    ─> sees the committed rows with the Plan's changes laid over them
//!                write 2 ─> starts with the Plan's changes, leaves them and its own there
//! ```
//!
//! What must never happen: a task that is spawned by a handler has no scope, so a handler that may run dry must not
//! leave work to one.

use crate::buffer::Buffer;
use crate::tx::Tx;
use crate::{AsOf, Difference, Result};
use base::Fault;
use serde_json::Value;
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The most notes that a plan takes; more are dropped.
const NOTES: usize = 1000;

/// What a request carries. The default changes nothing.
#[derive(Clone, Default)]
pub struct Scope {
    /// Set in a dry run: writes are undone, and their changes collected here.
    pub dry: Option<Plan>,
    /// Set where the request asks for the past. Writes are refused.
    pub as_of: Option<AsOf>,
    /// What is written in the same transaction as each write of the request.
    pub along: Option<Arc<dyn Along>>,
}

/// What is written along with the changes of a request.
pub trait Along: Send + Sync {
    /// Called at the end of each transaction of the request that changes something; a fault undoes the whole of it. May
    /// run more than once, as closures may.
    fn write(&self, tx: &mut Tx) -> Result<()>;
}

/// What a dry run has collected so far. Clones share it.
#[derive(Clone, Default)]
pub struct Plan(Arc<Mutex<Collected>>);

#[derive(Default)]
struct Collected {
    /// Everything that the writes so far would have changed.
    overlay: Option<Arc<Buffer>>,
    differences: Vec<Difference>,
    notes: Vec<Note>,
}

/// Something that a handler knows of its plan and no document says: the host that was chosen, for instance.
#[derive(Clone, Debug, PartialEq)]
pub struct Note {
    /// Under which name the answer shows it, such as `host`.
    pub name: &'static str,
    /// What a tenant may read.
    pub public: Value,
    /// What only an administrator may read; shown instead of `public`.
    pub admin: Value,
}

impl Plan {
    pub fn new() -> Plan {
        Plan::default()
    }

    /// What all writes so far would change together, secrets blanked.
    pub fn differences(&self) -> Vec<Difference> {
        self.lock().differences.clone()
    }

    pub fn notes(&self) -> Vec<Note> {
        self.lock().notes.clone()
    }

    pub fn note(&self, note: Note) {
        let mut collected = self.lock();
        if collected.notes.len() < NOTES {
            collected.notes.push(note);
        }
    }

    pub(crate) fn overlay(&self) -> Option<Arc<Buffer>> {
        self.lock().overlay.clone()
    }

    pub(crate) fn keep(&self, overlay: Buffer, differences: Vec<Difference>) {
        let mut collected = self.lock();
        collected.overlay = Some(Arc::new(overlay));
        collected.differences = differences;
    }

    fn lock(&self) -> MutexGuard<'_, Collected> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

tokio::task_local! {
    static SCOPE: Scope;
}

/// Runs the future with the scope around everything that it awaits itself.
pub async fn run<F: Future>(scope: Scope, future: F) -> F::Output {
    SCOPE.scope(scope, future).await
}

/// The scope of the calling task; the default outside of any.
pub fn current() -> Scope {
    SCOPE.try_with(Clone::clone).unwrap_or_default()
}

/// The plan of the dry run in which the calling task is, if it is in one. For handlers that do something outside the
/// store: they must not.
pub fn dry() -> Option<Plan> {
    SCOPE.try_with(|scope| scope.dry.clone()).ok().flatten()
}

/// True in a dry run.
pub fn is_dry() -> bool {
    dry().is_some()
}

/// The moment of the past that the calling task's request asks for.
pub fn as_of() -> Option<AsOf> {
    SCOPE.try_with(|scope| scope.as_of).ok().flatten()
}

/// Invalid in a dry run, for an operation that has none: `what` begins the sentence, such as "An upload".
pub fn refuse_dry(what: &str, why: &str) -> Result<()> {
    if is_dry() {
        return Err(no_dry_run(what, why));
    }
    Ok(())
}

/// What the caller reads whose operation has no dry run.
pub fn no_dry_run(what: &str, why: &str) -> Fault {
    Fault::invalid(format!("{what} has no dry run: {why}."))
}
