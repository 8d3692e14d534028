//! Runs reconcilers: one task each, woken by the watch and by a timer.

use crate::queue::{Note, Queue};
use crate::trouble::Trouble;
use crate::{Outcome, Reconciler, Unsettled};
use base::{Env, FaultKind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use store::{Event, Store};
use tokio::task::JoinSet;

/// How long to wait before the store is told again that a trouble is over.
const UNTOLD_MS: i64 = 1_000;

/// The loops of a process. Dropping it stops them.
pub struct Handle {
    queues: Vec<(&'static str, Arc<Mutex<Queue>>)>,
    bugs: Arc<AtomicU64>,
    _tasks: JoinSet<()>,
}

impl Handle {
    /// Every object that failed at least once and has not settled since.
    pub fn unsettled(&self) -> Vec<Unsettled> {
        self.queues.iter().flat_map(|(name, queue)| lock(queue).unsettled(name)).collect()
    }

    /// How many passes of this process ended in a broken invariant of ours.
    pub fn bugs(&self) -> u64 {
        self.bugs.load(Ordering::Relaxed)
    }
}

/// A loop with its queue.
struct Loop {
    store: Store,
    env: Env,
    reconciler: Arc<dyn Reconciler>,
    queue: Arc<Mutex<Queue>>,
    bugs: Arc<AtomicU64>,
}

/// Starts one task for each reconciler.
pub fn run(store: &Store, env: &Env, reconcilers: Vec<Arc<dyn Reconciler>>) -> Handle {
    let mut tasks = JoinSet::new();
    let mut queues = Vec::new();
    let bugs = Arc::new(AtomicU64::new(0));
    for reconciler in reconcilers {
        let queue = Arc::new(Mutex::new(Queue::default()));
        queues.push((reconciler.name(), queue.clone()));
        let (store, env, bugs) = (store.clone(), env.clone(), bugs.clone());
        tasks.spawn(Loop { env, reconciler, queue, bugs, store }.drive());
    }
    Handle { queues, bugs, _tasks: tasks }
}

impl Loop {
    async fn drive(self) {
        let mut watch = self.store.watch();
        let period = Duration::from_millis(self.reconciler.period_ms());
        self.resume().await;
        self.remind().await;
        let mut reminded = tokio::time::Instant::now();
        let mut seen = self.env.now();
        loop {
            let now = self.env.now();
            if now < seen {
                lock(&self.queue).set_back(seen.micros() - now.micros());
            }
            seen = now;
            while let Some(event) = watch.try_next() {
                self.hear(event).await;
            }
            let due = lock(&self.queue).due(self.env.now());
            if let Some(id) = due {
                self.pass(&id).await;
                continue;
            }
            let until = |at: base::Timestamp| at.micros().saturating_sub(self.env.now().micros()).max(0) as u64;
            let next_due = lock(&self.queue).next().map_or(period, |at| Duration::from_micros(until(at)));
            let until_reminder = period.saturating_sub(reminded.elapsed());
            if until_reminder.is_zero() {
                self.remind().await;
                reminded = tokio::time::Instant::now();
                continue;
            }
            tokio::select! {
                biased;
                event = watch.next() => match event {
                    Some(event) => self.hear(event).await,
                    // The store is gone, and the process with it.
                    None => return,
                },
                _ = tokio::time::sleep(next_due.min(until_reminder)) => {}
            }
        }
    }

    /// Goes on counting where an earlier process stopped.
    async fn resume(&self) {
        match Trouble::of(&self.store, self.reconciler.name()).await {
            Ok(known) => {
                let now = self.env.now();
                known.into_iter().for_each(|trouble| lock(&self.queue).resume(trouble, now));
            }
            Err(fault) => self.warn("cannot read what could not be settled before", &fault),
        }
    }

    async fn hear(&self, event: Event) {
        match event {
            Event::Revision(revision) => {
                for id in revision.changes.iter().filter_map(|change| self.reconciler.concerns(change)) {
                    lock(&self.queue).signal(id, self.env.now());
                }
            }
            Event::Lost => self.remind().await,
        }
    }

    async fn remind(&self) {
        match self.reconciler.pending().await {
            Ok(ids) => ids.into_iter().for_each(|id| lock(&self.queue).remind(id, self.env.now())),
            Err(fault) => self.warn("cannot list what is pending", &fault),
        }
    }

    async fn pass(&self, id: &str) {
        lock(&self.queue).begin(id);
        let note = match self.reconciler.reconcile(id).await {
            Ok(Outcome::Settled) => lock(&self.queue).settled(id),
            Ok(Outcome::Again { after_ms }) => lock(&self.queue).again(id, self.env.now().plus_ms(after_ms as i64)),
            Err(fault) => {
                if fault.kind == FaultKind::Bug {
                    self.bugs.fetch_add(1, Ordering::Relaxed);
                    tracing::error!(reconciler = self.reconciler.name(), id, "a bug: {}", fault.chain());
                }
                lock(&self.queue).failed(id, fault.chain(), self.env.now(), &*self.env.random)
            }
        };
        self.note(id, note).await;
    }

    /// Tells the store. What it cannot be told now is told after the next attempt.
    async fn note(&self, id: &str, note: Note) {
        let name = self.reconciler.name();
        let (told, attempts) = match note {
            Note::Nothing => return,
            Note::Remove => (Trouble::remove(&self.store, name, id).await, 0),
            Note::Write(attempts) => {
                let Some(trouble) = lock(&self.queue).trouble(name, id) else { return };
                if trouble.is_warning() {
                    tracing::warn!(reconciler = name, id, attempts, "does not settle: {}", trouble.last_error);
                }
                (trouble.write(&self.store).await, attempts)
            }
        };
        match told {
            Ok(()) => lock(&self.queue).recorded(id, attempts),
            Err(fault) => {
                tracing::debug!(reconciler = name, id, "a trouble is not written down: {}", fault.chain());
                // One that settled has no next attempt of its own.
                if attempts == 0 {
                    lock(&self.queue).again(id, self.env.now().plus_ms(UNTOLD_MS));
                }
            }
        }
    }

    fn warn(&self, what: &str, fault: &base::Fault) {
        tracing::warn!(reconciler = self.reconciler.name(), "{what}: {}", fault.chain());
    }
}

fn lock(queue: &Mutex<Queue>) -> std::sync::MutexGuard<'_, Queue> {
    queue.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}
