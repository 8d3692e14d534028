//! What has been observed of guests and not been handed out yet.

use agent_api::GuestObserved;
use base::ServerId;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use tokio::sync::Notify;

#[derive(Default)]
pub struct Board {
    inner: Mutex<Inner>,
    changed: Notify,
}

#[derive(Default)]
struct Inner {
    guests: BTreeMap<ServerId, GuestObserved>,
    fresh: BTreeSet<ServerId>,
    /// Guests of the ledger that nobody has looked at since the agent started.
    unseen: BTreeSet<ServerId>,
}

impl Board {
    fn inner(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(|broken| broken.into_inner())
    }

    pub fn expect(&self, id: ServerId) {
        self.inner().unseen.insert(id);
    }

    /// Takes an observation; one that says nothing new is not handed out again.
    pub fn publish(&self, observed: GuestObserved) {
        let mut inner = self.inner();
        inner.unseen.remove(&observed.id);
        let old = inner.guests.insert(observed.id.clone(), observed.clone());
        if old.as_ref() != Some(&observed) {
            inner.fresh.insert(observed.id);
        }
        drop(inner);
        self.changed.notify_waiters();
    }

    pub fn forget(&self, id: &ServerId) {
        let mut inner = self.inner();
        inner.guests.remove(id);
        inner.fresh.remove(id);
        inner.unseen.remove(id);
    }

    pub fn get(&self, id: &ServerId) -> Option<GuestObserved> {
        self.inner().guests.get(id).cloned()
    }

    /// Takes everything, once each guest of the ledger has been looked at.
    pub async fn whole(&self) -> Vec<GuestObserved> {
        loop {
            let changed = self.changed.notified();
            {
                let mut inner = self.inner();
                if inner.unseen.is_empty() {
                    inner.fresh.clear();
                    return inner.guests.values().cloned().collect();
                }
            }
            changed.await;
        }
    }

    /// Takes what is new; waits when nothing is. Cancelling the wait loses nothing.
    pub async fn fresh(&self) -> Vec<GuestObserved> {
        loop {
            let changed = self.changed.notified();
            {
                let mut inner = self.inner();
                let fresh = std::mem::take(&mut inner.fresh);
                if !fresh.is_empty() {
                    return fresh.iter().filter_map(|id| inner.guests.get(id).cloned()).collect();
                }
            }
            changed.await;
        }
    }

    /// What is new right now, without waiting.
    pub fn take(&self) -> Vec<GuestObserved> {
        let mut inner = self.inner();
        let fresh = std::mem::take(&mut inner.fresh);
        fresh.iter().filter_map(|id| inner.guests.get(id).cloned()).collect()
    }

    /// After [`Board::whole`] was given up on: shows what is known.
    pub fn all(&self) -> Vec<GuestObserved> {
        let mut inner = self.inner();
        inner.fresh.clear();
        inner.guests.values().cloned().collect()
    }
}
