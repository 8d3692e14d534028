//! Undo: what a request did to documents and ledger, taken back in one transaction.
//!
//! ```text
//! request ─> its revisions ─> each document before and after ─> a step back, or a collision that says with what
//!            created: deleted            unless it has changed since; or removed by its service, see [`Made`]
//!            changed: the fields back    unless somebody changed one of them since
//!            deleted: out of the trash   unless its id or a unique key is taken, or what it needs is gone
//! ```
//!
//! The plan only reads; [`Tx::undo`] does it. Nothing here knows a kind: what a kind wants otherwise it says in
//! [`Document`] (`TRASH`, `UNDO`, `MADE`, `COUNTERS`, `needs`, `costs`, `restored`, `undone`), and what only its service
//! can do, that does through [`UndoServices`].

mod merge;
mod plan;

pub use plan::{Collision, PastRequest, Reversal, UndoPlan};

use crate::document::{Costs, Document, Kind, Made, Needs, decode, encode, redacted};
use crate::trash::{Charged, Trash, TrashedDocument};
use crate::{Error, Query, Reader, Tx};
use base::{Fault, RequestId, Timestamp};
use merge::Merged;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Why something stays, and kind and id of what is in the way, unless that belongs to another project.
pub type Held = (String, Option<(String, String)>);

/// What an undo asks of the services.
pub trait UndoServices {
    /// The limit of a row of the ledger that has none of its own.
    fn limit(&mut self, reader: &mut Reader, scope: &str, resource: &str) -> Result<Option<i64>, Fault>;

    /// What has come to depend on a document since it was made, but for what the same request touched.
    fn held(
        &mut self,
        reader: &mut Reader,
        kind: &str,
        id: &str,
        same: &dyn Fn(&str, &str) -> bool,
    ) -> Result<Option<Held>, Fault>;

    /// Removes a document whose kind says [`Made::Removed`], as its service's own call does.
    fn remove(&mut self, tx: &mut Tx, kind: &str, id: &str) -> Result<(), Fault>;
}

/// Says that a request has been undone, or how far.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Undone {
    /// The request that was undone.
    pub id: String,
    pub project_id: String,
    /// The request that undid it last.
    pub by: RequestId,
    pub at: Timestamp,
    /// False: something still lies in the trash because it collided.
    pub whole: bool,
    /// What the rest will charge.
    pub rest: Vec<Charged>,
}

impl Document for Undone {
    const KIND: &'static str = "undone";
    const HISTORY: bool = false;
    const TRASH: bool = false;
    const UNDO: bool = false;

    fn id(&self) -> &str {
        &self.id
    }
    fn project_id(&self) -> &str {
        &self.project_id
    }
}

/// What an undo does with documents of a kind, its type erased.
#[derive(Clone, Copy)]
pub(crate) struct Reversing {
    pub trash: bool,
    pub undo: bool,
    pub share: bool,
    pub made: Made,
    pub needs: fn(&str) -> Result<Needs, Error>,
    pub costs: fn(&str) -> Result<Costs, Error>,
    pub merge: fn(&str, &str, &str, Timestamp) -> Result<Merged, Error>,
    revive: fn(&str, Timestamp) -> Result<String, Error>,
    bring_back: fn(&mut Tx, &TrashedDocument) -> Result<(), Error>,
    change: fn(&mut Tx, &str) -> Result<(), Error>,
    delete: fn(&mut Tx, &str) -> Result<(), Error>,
    undone: fn(&mut Tx, Option<&str>, Option<&str>) -> Result<(), Fault>,
}

impl Reversing {
    pub fn of<T: Document>() -> Reversing {
        Reversing {
            trash: T::TRASH && T::HISTORY,
            undo: T::UNDO,
            share: T::SHARE,
            made: T::MADE,
            needs: |text| {
                let mut needs = Needs::default();
                decode::<T>(text)?.needs(&mut needs);
                Ok(needs)
            },
            costs: |text| {
                let mut costs = Costs::default();
                decode::<T>(text)?.costs(&mut costs);
                Ok(costs)
            },
            merge: merged::<T>,
            revive: |text, now| {
                let mut doc = decode::<T>(text)?;
                doc.restored(now, None);
                encode(&doc)
            },
            bring_back: |tx, trashed| {
                tx.bring_back(&decode::<T>(&trashed.body)?, trashed.created.0, trashed.updated.0)
            },
            change: |tx, text| tx.update(&decode::<T>(text)?).map(drop),
            delete: |tx, id| tx.delete::<T>(id).map(drop),
            undone: |tx, before, after| {
                let before = before.map(decode::<T>).transpose()?;
                let after = after.map(decode::<T>).transpose()?;
                T::undone(tx, before.as_ref(), after.as_ref())
            },
        }
    }
}

/// The current document with the fields back that a request changed from `before` to `after`.
fn merged<T: Document>(current: &str, before: &str, after: &str, now: Timestamp) -> Result<Merged, Error> {
    let corrupt = |error: serde_json::Error| Error::Corrupt(format!("a {} cannot be merged: {error}", T::KIND));
    let value = |text: &str| -> Result<Value, Error> { serde_json::to_value(decode::<T>(text)?).map_err(corrupt) };
    let replaced = decode::<T>(current)?;
    let exact = value(&redacted::<T>(current)?)? == value(after)?;
    let counters = if exact { &[] } else { T::COUNTERS };
    let mut merged = Merged::of(value(current)?, &value(before)?, &value(after)?, counters);
    let mut doc: T = serde_json::from_value(merged.value.take()).map_err(corrupt)?;
    doc.restored(now, Some(&replaced));
    merged.text = encode(&doc)?;
    Ok(merged)
}

/// One step back.
#[derive(Clone, Debug)]
pub(crate) enum Step {
    BringBack(TrashedDocument),
    Change { before: String, after: String },
    Delete { before: String },
    /// By its service.
    Remove(u8),
}

impl Reader {
    pub(crate) fn kind_named(&self, name: &str) -> Option<Kind> {
        self.shared.registered.iter().find(|kind| kind.name == name).copied()
    }
}

impl Tx {
    /// Takes the steps of a plan that was made in this transaction. What collided stays as it is, and stays in the
    /// trash; the caller decides before whether that will do.
    pub fn undo(
        &mut self,
        plan: &UndoPlan,
        by: &RequestId,
        services: &mut dyn UndoServices,
    ) -> Result<(), Fault> {
        // What a service removes rests as it always does: guests have their disks.
        if !plan.removes() {
            self.skip_trash();
        }
        for (n, step) in plan.ordered() {
            let kind = self.reversing(&plan.steps[n].kind)?;
            let id = plan.steps[n].id.clone();
            match step {
                Step::Delete { .. } => (kind.delete)(self, &id)?,
                // It may have gone with another: a subnet with its network.
                Step::Remove(_) => {
                    let kind = plan.steps[n].kind.as_str();
                    if self.has(kind, &id)? {
                        services.remove(self, kind, &id)?;
                    }
                }
                Step::Change { after, .. } => (kind.change)(self, after)?,
                Step::BringBack(trashed) => (kind.bring_back)(self, trashed)?,
            }
        }
        for charge in &plan.charges {
            // The plan has looked at the limits, which are not the store's.
            self.charge(&charge.scope, &charge.resource, charge.delta, None)?;
        }
        for (n, step) in plan.ordered() {
            let kind = self.reversing(&plan.steps[n].kind)?;
            match step {
                Step::Delete { before } => (kind.undone)(self, Some(before), None)?,
                Step::Remove(_) => {}
                Step::Change { before, after } => (kind.undone)(self, Some(before), Some(after))?,
                Step::BringBack(trashed) => (kind.undone)(self, None, Some(&trashed.body))?,
            }
        }
        self.empty_trash_of(plan)?;
        let undone = Undone {
            id: plan.request.request_id.as_str().to_owned(),
            project_id: plan.request.projects.first().cloned().unwrap_or_default(),
            by: by.clone(),
            at: self.now(),
            whole: !plan.leaves_trash(),
            rest: plan.rest.clone(),
        };
        self.put(&undone)?;
        Ok(())
    }

    fn has(&mut self, kind: &str, id: &str) -> Result<bool, Error> {
        let Some(kind) = self.kind_named(kind) else { return Ok(false) };
        Ok(self.row(kind.name, id)?.is_some())
    }

    /// Takes out of the trash what came back.
    fn empty_trash_of(&mut self, plan: &UndoPlan) -> Result<(), Error> {
        for trash in self.list::<Trash>(Query::index("request", plan.request.request_id.as_str()))? {
            let mut trash = trash.doc;
            trash.documents.retain(|document| plan.collided(&document.kind, &document.id));
            match trash.documents.is_empty() {
                true => drop(self.delete::<Trash>(&trash.id)?),
                false => drop(self.update(&trash)?),
            }
        }
        Ok(())
    }

    fn reversing(&self, kind: &str) -> Result<Reversing, Error> {
        let found = self.kind_named(kind);
        found.map(|kind| kind.reversing).ok_or_else(|| Error::Corrupt(format!("no kind {kind} is registered")))
    }
}
