//! Records of POSTs that came with an `Idempotency-Key`: a repeat finds the answer instead of doing the work again.
//!
//! A record is written in the transaction of the request's first change, by [`store::scope::Along`]: so it is there
//! exactly if something was done. The answer is added afterwards. When control dies between the two, a repeat is told
//! what was done, and it is not done again.
//!
//! ```text
//! (none) ─ first commit ─> done, no answer ─ answer kept ─> answered ─ 24 hours ─> (none)
//!    └──────────────── a success without any commit ───────────┘
//! ```
//!
//! The key itself is never kept, and neither is anything of the answer in the clear; see [`seal`].

mod record;
mod seal;
#[cfg(test)]
mod tests;

pub(crate) use record::Record;

use crate::idempotency::record::{Made, Sealed};
use async_trait::async_trait;
use base::{Env, Fault, Result};
use engine::{Outcome, Reconciler};
use rest::{Answer, Begun, First, Keyed, Repeats};
use seal::Secret;
use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use store::scope::Along;
use store::{Cause, Change, Document, Query, Store, Stored, Tx};

/// How long a record is kept.
pub(crate) const KEPT_MS: i64 = 24 * 3600 * 1000;
/// The most records of a project; then the oldest go.
const RECORDS: usize = 10_000;
/// The most documents that a record names.
const MADE: usize = 100;
/// Records that are forgotten in one transaction.
const STEP: usize = 20;

/// The requests with a key that run in this process, by the id of their record.
type Running = Arc<Mutex<HashSet<String>>>;

#[derive(Clone)]
pub(crate) struct Keys {
    store: Store,
    env: Env,
    running: Running,
}

impl Keys {
    pub fn new(store: Store, env: Env) -> Arc<Keys> {
        Arc::new(Keys { store, env, running: Running::default() })
    }

    async fn known(&self, id: &str) -> Result<Option<Stored<Record>>> {
        let found = self.store.get::<Record>(id).await?;
        Ok(found.filter(|record| !is_over(record, self.env.now())))
    }
}

fn is_over(record: &Stored<Record>, now: base::Timestamp) -> bool {
    now.ms_since(record.created) >= KEPT_MS
}

fn lock(running: &Running) -> MutexGuard<'_, HashSet<String>> {
    running.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A request under way; its drop ends it.
struct Slot {
    id: String,
    running: Running,
}

impl Drop for Slot {
    fn drop(&mut self) {
        lock(&self.running).remove(&self.id);
    }
}

#[async_trait]
impl Repeats for Keys {
    async fn begin(&self, keyed: Keyed) -> Result<Begun> {
        let secret = Secret::of(&keyed)?;
        let id = secret.id();
        // First the place, then the look: who ends in between has left an answer.
        if !lock(&self.running).insert(id.clone()) {
            return Err(Fault::conflict("A request with this Idempotency-Key is still running."));
        }
        let slot = Slot { id: id.clone(), running: self.running.clone() };
        let body = secret.digest(&keyed.meaning, &keyed.body);
        let Some(known) = self.known(&id).await? else {
            let record = Record {
                id,
                project_id: keyed.project.clone(),
                scope: if keyed.project.is_empty() { format!("user:{}", keyed.user) } else { keyed.project },
                request_id: keyed.request_id,
                body,
                made: Vec::new(),
                answer: None,
            };
            return Ok(Begun::First(Box::new(Begin { keys: self.clone(), record, secret, _slot: slot })));
        };
        if known.body != body {
            return Err(Fault::conflict(format!(
                "This Idempotency-Key came with another request, {}: a new request needs a new key.",
                known.request_id
            )));
        }
        let first = known.request_id.clone();
        match &known.answer {
            Some(sealed) => Ok(Begun::Done(secret.open(sealed, &first)?, first)),
            None => Err(lost(&known)),
        }
    }
}

/// What is said where something was done and nobody knows the answer any more.
fn lost(record: &Record) -> Fault {
    let made: Vec<String> = record.made.iter().map(|made| format!("{} {}", made.kind, made.id)).collect();
    let made = if made.is_empty() { "no documents".to_owned() } else { made.join(", ") };
    Fault::conflict(format!(
        "The request with this Idempotency-Key has been done, and is not done again: request {}, which made {made}. Its \
         answer was lost.",
        record.request_id
    ))
}

/// The first request with its key.
struct Begin {
    keys: Keys,
    record: Record,
    secret: Secret,
    _slot: Slot,
}

#[async_trait]
impl First for Begin {
    fn along(&self) -> Arc<dyn Along> {
        Arc::new(Write(self.record.clone()))
    }

    async fn finish(self: Box<Self>, answer: Answer) {
        let sealed = match self.secret.seal(&answer, &self.record.request_id, &self.keys.env) {
            Ok(sealed) => sealed,
            Err(fault) => return tracing::error!("an answer is not kept: {}", fault.chain()),
        };
        let (record, success) = (self.record.clone(), answer.status < 400);
        let cause = Cause::new("nubo", "", "idempotency.answer");
        let kept = self.keys.store.write(cause, move |tx| keep(tx, &record, sealed.clone(), success));
        if let Err(fault) = kept.await {
            tracing::warn!(request = %self.record.request_id, "an answer is not kept: {}", fault.chain());
        }
    }
}

/// Adds the answer. A refusal without any commit leaves nothing: a repeat may fare better.
fn keep(tx: &mut Tx, record: &Record, sealed: Sealed, success: bool) -> Result<()> {
    let now = tx.now();
    match tx.get::<Record>(&record.id)? {
        Some(known) if known.request_id == record.request_id => {
            tx.update(&Record { answer: Some(sealed), ..known.doc })?;
        }
        Some(known) if !is_over(&known, now) => {}
        _ if success => enter(tx, &Record { answer: Some(sealed), ..record.clone() })?,
        _ => {}
    }
    Ok(())
}

/// Writes the record with each change of its request.
struct Write(Record);

impl Along for Write {
    fn write(&self, tx: &mut Tx) -> Result<()> {
        let touched = tx.touched();
        let new =
            touched.into_iter().filter(|touched| !touched.before && touched.after && touched.kind != Record::KIND);
        let mut made: Vec<Made> = new.map(|new| Made { kind: new.kind.to_owned(), id: new.id }).collect();
        let now = tx.now();
        match tx.get::<Record>(&self.0.id)? {
            Some(known) if known.request_id == self.0.request_id => {
                let mut record = known.doc;
                record.made.append(&mut made);
                record.made.truncate(MADE);
                tx.update(&record)?;
                Ok(())
            }
            // Another control process was quicker.
            Some(known) if !is_over(&known, now) => {
                Err(Fault::conflict("A request with this Idempotency-Key is still running."))
            }
            _ => {
                made.truncate(MADE);
                enter(tx, &Record { made, ..self.0.clone() })
            }
        }
    }
}

/// Adds a record, in the place of one that is over, and makes room for it.
fn enter(tx: &mut Tx, record: &Record) -> Result<()> {
    if tx.get::<Record>(&record.id)?.is_some() {
        tx.delete::<Record>(&record.id)?;
    }
    let of_scope = || Query::index("scope", record.scope.as_str());
    let count = tx.count::<Record>(of_scope())?;
    if count >= RECORDS {
        let surplus = (count + 1 - RECORDS).min(STEP);
        for old in tx.list::<Record>(of_scope().limit(surplus))? {
            tx.delete::<Record>(&old.doc.id)?;
        }
    }
    tx.create(record)?;
    Ok(())
}

/// Forgets records that are over.
pub(crate) struct Forget(pub Arc<Keys>);

#[async_trait]
impl Reconciler for Forget {
    fn name(&self) -> &'static str {
        "idempotency"
    }

    fn concerns(&self, _: &Change) -> Option<String> {
        None
    }

    async fn pending(&self) -> Result<Vec<String>> {
        let now = self.0.env.now();
        loop {
            // In the order of their making: the first that is not over ends it.
            let oldest = self.0.store.list::<Record>(Query::all().limit(STEP)).await?;
            let over: Vec<String> = oldest.iter().filter(|it| is_over(it, now)).map(|it| it.doc.id.clone()).collect();
            if over.is_empty() {
                return Ok(Vec::new());
            }
            let forget = move |tx: &mut Tx| {
                for id in &over {
                    if tx.get::<Record>(id)?.is_some_and(|record| is_over(&record, now)) {
                        tx.delete::<Record>(id)?;
                    }
                }
                Ok(())
            };
            self.0.store.write(Cause::new("nubo", "", "idempotency.forget"), forget).await?;
        }
    }

    async fn reconcile(&self, _: &str) -> Result<Outcome> {
        Ok(Outcome::Settled)
    }

    fn period_ms(&self) -> u64 {
        60_000
    }
}
