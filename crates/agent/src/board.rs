//! What has been observed of guests or volumes and not been handed out yet.

use agent_api::GuestObserved;
use base::ServerId;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use tokio::sync::Notify;

/// What is observed of one thing.
pub trait Observed: Clone + PartialEq {
    type Id: Clone + Ord;
    fn id(&self) -> &Self::Id;
}

impl Observed for GuestObserved {
    type Id = ServerId;
    fn id(&self) -> &ServerId {
        &self.id
    }
}

pub struct Board<T: Observed> {
    inner: Mutex<Inner<T>>,
    changed: Notify,
}

struct Inner<T: Observed> {
    things: BTreeMap<T::Id, T>,
    fresh: BTreeSet<T::Id>,
    /// Those of a ledger that nobody has looked at since the agent started.
    unseen: BTreeSet<T::Id>,
}

impl<T: Observed> Default for Board<T> {
    fn default() -> Board<T> {
        let inner = Inner { things: BTreeMap::new(), fresh: BTreeSet::new(), unseen: BTreeSet::new() };
        Board { inner: Mutex::new(inner), changed: Notify::new() }
    }
}

impl<T: Observed> Board<T> {
    fn inner(&self) -> std::sync::MutexGuard<'_, Inner<T>> {
        self.inner.lock().unwrap_or_else(|broken| broken.into_inner())
    }

    pub fn expect(&self, id: T::Id) {
        self.inner().unseen.insert(id);
    }

    /// Takes an observation; one that says nothing new is not handed out again.
    pub fn publish(&self, observed: T) {
        let mut inner = self.inner();
        inner.unseen.remove(observed.id());
        let old = inner.things.insert(observed.id().clone(), observed.clone());
        if old.as_ref() != Some(&observed) {
            inner.fresh.insert(observed.id().clone());
        }
        drop(inner);
        self.changed.notify_waiters();
    }

    pub fn forget(&self, id: &T::Id) {
        let mut inner = self.inner();
        inner.things.remove(id);
        inner.fresh.remove(id);
        inner.unseen.remove(id);
    }

    pub fn get(&self, id: &T::Id) -> Option<T> {
        self.inner().things.get(id).cloned()
    }

    /// Takes everything, once each of the ledger has been looked at.
    pub async fn whole(&self) -> Vec<T> {
        loop {
            let changed = self.changed.notified();
            {
                let mut inner = self.inner();
                if inner.unseen.is_empty() {
                    inner.fresh.clear();
                    return inner.things.values().cloned().collect();
                }
            }
            changed.await;
        }
    }

    /// Takes what is new; waits when nothing is. Cancelling the wait loses nothing.
    pub async fn fresh(&self) -> Vec<T> {
        loop {
            let changed = self.changed.notified();
            {
                let mut inner = self.inner();
                let fresh = std::mem::take(&mut inner.fresh);
                if !fresh.is_empty() {
                    return fresh.iter().filter_map(|id| inner.things.get(id).cloned()).collect();
                }
            }
            changed.await;
        }
    }

    /// What is new right now, without waiting.
    pub fn take(&self) -> Vec<T> {
        let mut inner = self.inner();
        let fresh = std::mem::take(&mut inner.fresh);
        fresh.iter().filter_map(|id| inner.things.get(id).cloned()).collect()
    }

    /// After [`Board::whole`] was given up on: shows what is known.
    pub fn all(&self) -> Vec<T> {
        let mut inner = self.inner();
        inner.fresh.clear();
        inner.things.values().cloned().collect()
    }
}
