//! Runs reconcilers: one task each, woken by the watch and by a timer.

use crate::queue::Queue;
use crate::{Outcome, Reconciler, Unsettled};
use base::Env;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use store::{Event, Store, Watch};
use tokio::task::JoinSet;

/// After so many fruitless passes over one object a warning is logged, and again at each doubling.
const WARN_AFTER: u32 = 5;

/// The loops of a process. Dropping it stops them.
pub struct Handle {
    queues: Vec<(&'static str, Arc<Mutex<Queue>>)>,
    _tasks: JoinSet<()>,
}

impl Handle {
    /// Every object that failed at least once and has not settled since.
    pub fn unsettled(&self) -> Vec<Unsettled> {
        self.queues.iter().flat_map(|(name, queue)| lock(queue).unsettled(name)).collect()
    }
}

/// Starts one task for each reconciler.
pub fn run(store: &Store, env: &Env, reconcilers: Vec<Arc<dyn Reconciler>>) -> Handle {
    let mut tasks = JoinSet::new();
    let mut queues = Vec::new();
    for reconciler in reconcilers {
        let queue = Arc::new(Mutex::new(Queue::default()));
        queues.push((reconciler.name(), queue.clone()));
        tasks.spawn(drive(store.watch(), env.clone(), reconciler, queue));
    }
    Handle { queues, _tasks: tasks }
}

async fn drive(mut watch: Watch, env: Env, reconciler: Arc<dyn Reconciler>, queue: Arc<Mutex<Queue>>) {
    remind(&*reconciler, &queue, &env).await;
    let mut reminded = tokio::time::Instant::now();
    let period = Duration::from_millis(reconciler.period_ms());
    loop {
        while let Some(event) = watch.try_next() {
            hear(event, &*reconciler, &queue, &env).await;
        }
        let due = lock(&queue).due(env.now());
        if let Some(id) = due {
            pass(&*reconciler, &queue, &env, &id).await;
            continue;
        }
        let next_due = lock(&queue)
            .next()
            .map_or(period, |at| Duration::from_micros(at.micros().saturating_sub(env.now().micros()).max(0) as u64));
        let until_reminder = period.saturating_sub(reminded.elapsed());
        if until_reminder.is_zero() {
            remind(&*reconciler, &queue, &env).await;
            reminded = tokio::time::Instant::now();
            continue;
        }
        tokio::select! {
            biased;
            event = watch.next() => match event {
                Some(event) => hear(event, &*reconciler, &queue, &env).await,
                // The store is gone, and the process with it.
                None => return,
            },
            _ = tokio::time::sleep(next_due.min(until_reminder)) => {}
        }
    }
}

async fn hear(event: Event, reconciler: &dyn Reconciler, queue: &Mutex<Queue>, env: &Env) {
    match event {
        Event::Revision(revision) => {
            for id in revision.changes.iter().filter_map(|change| reconciler.concerns(change)) {
                lock(queue).signal(id, env.now());
            }
        }
        Event::Lost => remind(reconciler, queue, env).await,
    }
}

async fn remind(reconciler: &dyn Reconciler, queue: &Mutex<Queue>, env: &Env) {
    match reconciler.pending().await {
        Ok(ids) => ids.into_iter().for_each(|id| lock(queue).remind(id, env.now())),
        Err(fault) => tracing::warn!(reconciler = reconciler.name(), "cannot list what is pending: {}", fault.chain()),
    }
}

async fn pass(reconciler: &dyn Reconciler, queue: &Mutex<Queue>, env: &Env, id: &str) {
    lock(queue).begin(id);
    match reconciler.reconcile(id).await {
        Ok(Outcome::Settled) => lock(queue).settled(id),
        Ok(Outcome::Again { after_ms }) => lock(queue).again(id, env.now().plus_ms(after_ms as i64)),
        Err(fault) => {
            let attempts = lock(queue).failed(id, fault.chain(), env.now(), &*env.random);
            if attempts >= WARN_AFTER
                && (attempts / WARN_AFTER).is_power_of_two()
                && attempts.is_multiple_of(WARN_AFTER)
            {
                tracing::warn!(reconciler = reconciler.name(), id, attempts, "does not settle: {}", fault.chain());
            }
        }
    }
}

fn lock(queue: &Mutex<Queue>) -> std::sync::MutexGuard<'_, Queue> {
    queue.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}
