//! Who takes which job when. A loop like any other, which starts a worker for each job whose lease it takes.

use super::held::is_overtaken;
use super::{End, Held, Job, LEASE_MS, Lease, Progress, Work};
use crate::{Outcome, Reconciler};
use async_trait::async_trait;
use base::{Env, Fault, Result, Timestamp};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use store::{Cause, Change, Query, Store, Tx};
use tokio::task::JoinSet;

/// Jobs that a process works on at a time; more wait.
const WORKERS: usize = 16;
/// A job that is worked on, or that finds no worker, is looked at again after so long.
const LOOK_MS: u64 = 1_000;
/// The most jobs that one look lists.
const ROUND: usize = 10_000;
/// Before the id of an object whose jobs are to be looked at.
const OWNER: &str = "owner:";

/// The job under way here, with the epoch of its worker.
type Running = Arc<Mutex<BTreeMap<(String, u64), ()>>>;

/// The loop over all jobs.
pub struct Jobs {
    store: Store,
    env: Env,
    /// This process.
    holder: String,
    /// No other process works on this store: whoever else holds a lease is dead.
    sole: bool,
    works: BTreeMap<&'static str, Arc<dyn Work>>,
    running: Running,
    workers: Mutex<JoinSet<()>>,
}

impl Jobs {
    /// `sole`: the store is this process's alone, so that leases of others need not run out before they are taken.
    pub fn new(store: Store, env: Env, sole: bool, works: Vec<Arc<dyn Work>>) -> Jobs {
        let holder = env.uuid();
        let works = works.into_iter().map(|work| (work.kind(), work)).collect();
        Jobs { store, env, holder, sole, works, running: Running::default(), workers: Mutex::default() }
    }

    fn work(&self, job: &Job) -> Result<Arc<dyn Work>> {
        let known = self.works.get(job.kind.as_str()).cloned();
        known.ok_or_else(|| Fault::unavailable(format!("No such work is known here: {}", job.kind)))
    }

    /// Why nobody shall work on it any more.
    fn over(work: &dyn Work, tx: &mut Tx, job: &Job, now: Timestamp) -> Result<Option<End>> {
        if !work.wanted(tx, job)? {
            return Ok(Some(End::Cancelled));
        }
        Ok((job.deadline <= now).then_some(End::Late))
    }

    /// Looks at one job: ends it, takes it, or says when to look again.
    async fn look(&self, id: &str) -> Result<Outcome> {
        let Some(job) = self.store.get::<Job>(id).await? else { return Ok(Outcome::Settled) };
        let work = self.work(&job)?;
        let (id, holder, sole) = (id.to_owned(), self.holder.clone(), self.sole);
        let running = self.running.clone();
        let (wanted, env) = (work.clone(), self.env.clone());
        // Most looks change nothing, and a transaction without a change costs no commit.
        let looked = self.store.write(Cause::new("nubo", "", "job.take"), move |tx| {
            let Some(job) = tx.get::<Job>(&id)? else { return Ok(Look::Gone) };
            let mut job = job.doc;
            // Not the transaction's time, which stands still when the clock is set back: what waits would wait for ever.
            let now = env.now();
            if let Some(end) = Jobs::over(&*wanted, tx, &job, now)? {
                tracing::info!(job = id, kind = job.kind, "a job ends: {}", end.reason(&job));
                wanted.end(tx, &job, &end)?;
                job.remove(tx)?;
                return Ok(Look::Gone);
            }
            if !may_take(&job, now, &holder, sole, &running) {
                return Ok(Look::Later);
            }
            job.lease = Lease { holder: holder.clone(), epoch: job.lease.epoch + 1, until: now.plus_ms(LEASE_MS) };
            job.written_by = job.lease.epoch;
            tx.update(&job)?;
            Ok(Look::Taken(job.lease.epoch))
        });
        match looked.await?.value {
            Look::Gone => Ok(Outcome::Settled),
            Look::Later => Ok(Outcome::Again { after_ms: LOOK_MS }),
            Look::Taken(epoch) => {
                self.start(work, store::Document::id(&job.doc).to_owned(), epoch);
                Ok(Outcome::Again { after_ms: LOOK_MS })
            }
        }
    }

    fn start(&self, work: Arc<dyn Work>, id: String, epoch: u64) {
        let held = Held { store: self.store.clone(), env: self.env.clone(), id: id.clone(), epoch };
        lock(&self.running).insert((id.clone(), epoch), ());
        let left = Left { running: self.running.clone(), key: (id, epoch) };
        let mut workers = lock(&self.workers);
        while workers.try_join_next().is_some() {}
        workers.spawn(async move {
            let _left = left;
            labour(held, work).await;
        });
    }
}

enum Look {
    Gone,
    Later,
    Taken(u64),
}

fn may_take(job: &Job, now: Timestamp, holder: &str, sole: bool, running: &Running) -> bool {
    let running = lock(running);
    if running.len() >= WORKERS {
        return false;
    }
    let id = store::Document::id(job);
    if job.is_held(now) {
        // Dead: of a process that is gone, or of a worker of ours that ended without a word.
        let ours = job.lease.holder == holder;
        return (!ours && sole) || (ours && !running.contains_key(&(id.to_owned(), job.lease.epoch)));
    }
    // A clock that was set back must not make a failed job wait for longer than it ever would.
    job.not_before <= now || job.not_before > now.plus_ms(LEASE_MS * 2)
}

/// A worker: one step after the other, while the lease is kept.
async fn labour(held: Held, work: Arc<dyn Work>) {
    let ended = tokio::select! {
        biased;
        ended = steps(&held, &*work) => ended,
        lost = held.keep() => Err(lost),
    };
    let Err(fault) = ended else { return };
    if is_overtaken(&fault) {
        tracing::debug!(job = held.id, epoch = held.epoch, "a worker was overtaken");
        return;
    }
    tracing::debug!(job = held.id, "a step failed: {}", fault.chain());
    if let Err(fault) = held.failed(work, fault).await
        && !is_overtaken(&fault)
    {
        tracing::debug!(job = held.id, "a failure is not written down: {}", fault.chain());
    }
}

async fn steps(held: &Held, work: &dyn Work) -> Result<()> {
    while let Some(job) = held.job().await? {
        let Some(step) = job.step() else { return Ok(()) };
        match work.step(step, held).await? {
            Progress::Done => held.passed(step).await?,
            Progress::Again { after_ms } => tokio::time::sleep(Duration::from_millis(after_ms)).await,
        }
    }
    Ok(())
}

#[async_trait]
impl Reconciler for Jobs {
    fn name(&self) -> &'static str {
        "jobs"
    }

    /// A job that changed, and the jobs of an object that changed and may have been their owner.
    fn concerns(&self, change: &Change) -> Option<String> {
        if change.kind == <Job as store::Document>::KIND {
            return change.body.is_some().then(|| change.id.clone());
        }
        let owner = self.works.values().any(|work| work.owner_kinds().contains(&change.kind.as_ref()));
        (owner && change.existed && change.body.is_none()).then(|| format!("{OWNER}{}", change.id))
    }

    async fn pending(&self) -> Result<Vec<String>> {
        let jobs = self.store.list::<Job>(Query::all().limit(ROUND)).await?;
        Ok(jobs.into_iter().map(|job| store::Document::id(&job.doc).to_owned()).collect())
    }

    async fn reconcile(&self, id: &str) -> Result<Outcome> {
        let Some(owner) = id.strip_prefix(OWNER) else { return self.look(id).await };
        let owner = owner.to_owned();
        for job in self.store.read_few(move |reader| Job::about(reader, &owner)).await? {
            self.look(store::Document::id(&job)).await?;
        }
        Ok(Outcome::Settled)
    }

    fn period_ms(&self) -> u64 {
        5_000
    }
}

/// Says that a worker has ended, however it did.
struct Left {
    running: Running,
    key: (String, u64),
}

impl Drop for Left {
    fn drop(&mut self) {
        lock(&self.running).remove(&self.key);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}
