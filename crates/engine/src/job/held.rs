//! A lease that was taken: the only way in which a worker writes.

use super::{End, Job, LEASE_MS, LOOP, Work, short};
use crate::Trouble;
use base::backoff::Backoff;
use base::{Env, Fault, FaultKind, Result};
use std::sync::Arc;
use std::time::Duration;
use store::{Cause, Store, Tx};

const BACKOFF: Backoff = Backoff { first_ms: 1_000, most_ms: 30_000 };

/// A job under one epoch of its lease. Cheap to clone; a clone is the same worker.
#[derive(Clone)]
pub struct Held {
    pub(super) store: Store,
    pub(super) env: Env,
    pub(super) id: String,
    pub(super) epoch: u64,
}

fn overtaken(id: &str) -> Fault {
    Fault::new(FaultKind::Precondition, format!("Another worker has taken over job {id}, or it has ended."))
}

/// True for the refusal of a worker that was overtaken.
pub(super) fn is_overtaken(fault: &Fault) -> bool {
    fault.kind == FaultKind::Precondition
}

impl Held {
    pub fn job_id(&self) -> &str {
        &self.id
    }

    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    pub fn env(&self) -> &Env {
        &self.env
    }

    /// The job, if this worker is still the one that works on it.
    fn check(&self, tx: &mut Tx) -> Result<Job> {
        let job = tx.get::<Job>(&self.id)?.ok_or_else(|| overtaken(&self.id))?.doc;
        if job.lease.epoch != self.epoch {
            return Err(overtaken(&self.id));
        }
        Ok(job)
    }

    /// As it stands now; none: it has ended.
    ///
    /// # Errors
    /// What the store says.
    pub async fn job(&self) -> Result<Option<Job>> {
        Ok(self.store.get::<Job>(&self.id).await?.map(|stored| stored.doc))
    }

    /// Writes inside a transaction that somebody else opened: the fence is checked first, and the job is written after
    /// the change, so that the two are one. A job whose last step `change` marks as done goes in the same commit.
    ///
    /// # Errors
    /// Precondition where another worker has taken over; else what `change` or the store says.
    pub fn within<R>(&self, tx: &mut Tx, change: impl FnOnce(&mut Tx, &mut Job) -> Result<R>) -> Result<R> {
        let mut job = self.check(tx)?;
        let changed = change(tx, &mut job)?;
        job.written_by = self.epoch;
        match job.step() {
            Some(_) => drop(tx.update(&job)?),
            None => job.remove(tx)?,
        }
        Ok(changed)
    }

    /// [`Held::within`] for a transaction that another service opens.
    pub fn in_tx<I: Send + Sync + 'static>(
        &self,
        input: I,
        change: fn(&mut Tx, &mut Job, &I) -> Result<()>,
    ) -> Arc<dyn Fn(&mut Tx) -> Result<()> + Send + Sync> {
        let held = self.clone();
        Arc::new(move |tx: &mut Tx| held.within(tx, |tx, job| change(tx, job, &input)))
    }

    /// [`Held::within`] in a transaction of its own.
    ///
    /// # Errors
    /// As there.
    pub async fn commit<R: Send + 'static>(
        &self,
        what: &'static str,
        mut change: impl FnMut(&mut Tx, &mut Job) -> Result<R> + Send + 'static,
    ) -> Result<R> {
        let held = self.clone();
        let write = self.store.write(Cause::new("nubo", "", what), move |tx| held.within(tx, &mut change));
        Ok(write.await?.value)
    }

    /// Marks a step as done, inside [`Held::within`]; one that is done already stays so.
    pub fn pass(job: &mut Job, step: &str) {
        if job.step() == Some(step) {
            job.done += 1;
            job.attempts = 0;
            job.last_error = None;
        }
    }

    /// Marks a step as done where its own commit has not done so.
    pub(super) async fn passed(&self, step: &str) -> Result<()> {
        let step = step.to_owned();
        let marked = self.commit("job.step", move |tx, job| {
            Held::pass(job, &step);
            Trouble::drop_in(tx, LOOP, job_id(job))
        });
        match marked.await {
            // The step's own commit was the last of all.
            Err(fault) if is_overtaken(&fault) && self.job().await?.is_none() => Ok(()),
            other => other,
        }
    }

    /// Renews the lease until it is lost; returns only then.
    pub(super) async fn keep(&self) -> Fault {
        loop {
            tokio::time::sleep(Duration::from_millis(LEASE_MS as u64 / 3)).await;
            let env = self.env.clone();
            let renewed = self.commit("job.renew", move |_, job| {
                job.lease.until = env.now().plus_ms(LEASE_MS);
                Ok(())
            });
            match renewed.await {
                Err(fault) if is_overtaken(&fault) => return fault,
                Err(fault) => tracing::debug!(job = self.id, "a lease is not renewed: {}", fault.chain()),
                Ok(()) => {}
            }
        }
    }

    /// Writes a failure down and gives the lease back; or ends the job, where there is no use in going on.
    pub(super) async fn failed(&self, work: Arc<dyn Work>, fault: Fault) -> Result<()> {
        let (message, kind) = (fault.message.to_string(), fault.kind);
        let (chain, env) = (short(&fault.chain()), self.env.clone());
        let held = self.clone();
        let write = self.store.write(Cause::new("nubo", "", "job.failed"), move |tx| {
            let mut job = held.check(tx)?;
            job.attempts = job.attempts.saturating_add(1);
            let fault = Fault::new(kind, message.clone());
            if work.gives_up(&fault, job.attempts) {
                work.end(tx, &job, &End::GaveUp(fault))?;
                return job.remove(tx);
            }
            job.last_error = Some(chain.clone());
            job.not_before = env.now().plus_ms(BACKOFF.delay_ms(job.attempts, &*env.random) as i64);
            job.lease.holder.clear();
            job.written_by = held.epoch;
            if job.attempts.is_power_of_two() {
                tx.put(&Trouble::new(LOOP, job_id(&job), job.attempts, job.since, &chain))?;
            }
            tx.update(&job)?;
            Ok(())
        });
        write.await.map(drop)
    }
}

fn job_id(job: &Job) -> &str {
    store::Document::id(job)
}
