//! Work that survives: loops that bring what is to what shall be.
//!
//! A [`Reconciler`] owns one question ("is this server placed?") about one kind of object. It keeps no state: what it
//! needs stands in the store, so that after a crash at any moment the next process goes on. The runner wakes it for
//! objects that a committed change concerns, and on a timer for all that are not settled; it never runs the same
//! object twice at a time, and it waits longer after each failure.
//!
//! One-shot work that takes longer than a transaction is a [`Job`], worked on under a lease.
//!
//! What must never happen here: a step outside the store before the commit that intends it, and a failure that nobody
//! sees: what does not settle stands in [`Handle::unsettled`] and, for whoever comes after this process, in a [`Trouble`].

mod bug;
pub mod job;
mod queue;
mod runner;
#[cfg(test)]
mod tests;
mod trouble;

pub use bug::Leftover;
pub use job::{Held, Job, Jobs, NewJob, Progress, Work};
pub use queue::Unsettled;
pub use runner::{Handle, run};
pub use trouble::{Trouble, WARN_AFTER};

use async_trait::async_trait;
use base::Result;
use store::Change;

/// The kinds of documents, for opening the store.
pub fn kinds() -> Vec<store::Kind> {
    vec![store::Kind::of::<Trouble>(), store::Kind::of::<job::Job>()]
}

/// How a pass over one object ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Nothing is left to do until the object changes.
    Settled,
    /// Look again after this many milliseconds, though nothing failed.
    Again { after_ms: u64 },
}

#[async_trait]
pub trait Reconciler: Send + Sync + 'static {
    /// A short name for logs, metrics and `nubo status`.
    fn name(&self) -> &'static str;

    /// The object that a committed change concerns; none: this change is nothing to this loop.
    fn concerns(&self, change: &Change) -> Option<String>;

    /// All objects that are not settled. Asked at start, after a lost watch, and on the timer.
    async fn pending(&self) -> Result<Vec<String>>;

    /// Brings one object a step further. May be repeated at any time, also for an object that is settled or gone.
    async fn reconcile(&self, id: &str) -> Result<Outcome>;

    /// How often all pending objects are looked at although nothing signalled, in milliseconds.
    fn period_ms(&self) -> u64 {
        10_000
    }
}
