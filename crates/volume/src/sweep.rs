//! What nobody asks for: deadlines, holds that lapse, and the emptying of the trash on hosts.

use crate::document::{Attachment, Leaving, Snapshot, Volume, VolumeObserved};
use crate::messages::{Event, failed, unfinished};
use crate::{Volumes, messages, trash};
use async_trait::async_trait;
use base::{Result, Timestamp};
use engine::{Outcome, Reconciler};
use model::volume::Hold;
use std::sync::Arc;
use store::{Cause, Change, Query, Reader, Tx};

pub struct Sweeper(pub Arc<Volumes>);

#[async_trait]
impl Reconciler for Sweeper {
    fn name(&self) -> &'static str {
        "volume_sweep"
    }

    fn concerns(&self, _: &Change) -> Option<String> {
        None
    }

    fn period_ms(&self) -> u64 {
        5_000
    }

    async fn pending(&self) -> Result<Vec<String>> {
        let state = self.0.clone();
        self.0.store.read(move |reader| state.to_sweep(reader)).await
    }

    async fn reconcile(&self, id: &str) -> Result<Outcome> {
        let (state, id) = (self.0.clone(), id.to_owned());
        let sweep = move |tx: &mut Tx| match id.split_once('/') {
            Some(("volume", id)) => trash::purge_volume(tx, id),
            Some(("snapshot", id)) => trash::purge_snapshot(tx, id),
            Some(("late", id)) => state.late(tx, id),
            Some(("late_snapshot", id)) => state.late_snapshot(tx, id),
            Some(("late_attachment", id)) => state.late_attachment(tx, id),
            Some(("late_leaving", id)) => state.late_leaving(tx, id),
            _ => Ok(()),
        };
        self.0.store.write(Cause::new("nubo", "", "volume.sweep"), sweep).await?;
        Ok(Outcome::Settled)
    }
}

impl Volumes {
    fn to_sweep(&self, reader: &mut Reader) -> Result<Vec<String>> {
        let mut found = trash::orphans(reader)?;
        let now = reader.clock();
        for volume in reader.list::<Volume>(Query::index("todo", "passing"))? {
            if self.is_late(&volume, now) || self.has_lapsed(&volume, now) {
                found.push(format!("late/{}", volume.id));
            }
        }
        for snapshot in reader.list::<Snapshot>(Query::index("todo", "passing"))? {
            if self.past(snapshot.passing_since, self.options.deadline_s, now) {
                found.push(format!("late_snapshot/{}", snapshot.id));
            }
        }
        for attachment in reader.list::<Attachment>(Query::index("todo", "passing"))? {
            if self.past(Some(attachment.since), self.options.hold_s, now) {
                found.push(format!("late_attachment/{}", attachment.id));
            }
        }
        for leaving in reader.list::<Leaving>(Query::index("todo", "passing"))? {
            if self.past(Some(leaving.since), self.options.hold_s, now) {
                found.push(format!("late_leaving/{}", leaving.id));
            }
        }
        Ok(found)
    }

    fn past(&self, since: Option<Timestamp>, seconds: i64, now: Timestamp) -> bool {
        since.is_some_and(|since| since.plus_s(seconds) <= now)
    }

    fn is_late(&self, volume: &Volume, now: Timestamp) -> bool {
        !volume.is_overdue() && self.past(volume.passing_since, self.options.deadline_s, now)
    }

    fn has_lapsed(&self, volume: &Volume, now: Timestamp) -> bool {
        self.past(volume.held_since, self.options.hold_s, now)
    }

    /// Past its deadline a volume is in error; what it shall be stays, so that what comes right later is right.
    fn late(&self, tx: &mut Tx, id: &str) -> Result<()> {
        let Some(volume) = tx.get::<Volume>(id)? else { return Ok(()) };
        let (mut doc, now) = (volume.doc, tx.now());
        if self.is_late(&doc, now) {
            doc.overdue = doc.verb_generation;
            let minutes = self.options.deadline_s / 60;
            let why = format!("Its host has not done it within {minutes} minutes. It goes on trying.");
            let seen = tx.get::<VolumeObserved>(id)?;
            let event = failed(&doc, seen.as_ref().map(|seen| &seen.doc));
            messages::say(tx, &doc.project_id, &doc.id, event, &why)?;
        }
        if self.has_lapsed(&doc, now) {
            (doc.hold, doc.held_since) = (Hold::None, None);
        }
        tx.update(&doc)?;
        Ok(())
    }

    fn late_attachment(&self, tx: &mut Tx, id: &str) -> Result<()> {
        let Some(attachment) = tx.get::<Attachment>(id)?.filter(|it| it.is_passing()) else { return Ok(()) };
        if self.past(Some(attachment.since), self.options.hold_s, tx.now()) {
            let doc = Attachment { overdue: true, ..attachment.doc };
            let why = "The host of the server has not done it in time. It goes on trying.";
            messages::say(tx, &doc.project_id, &doc.volume, unfinished(&doc), why)?;
            tx.update(&doc)?;
        }
        Ok(())
    }

    fn late_leaving(&self, tx: &mut Tx, id: &str) -> Result<()> {
        let Some(leaving) = tx.get::<Leaving>(id)?.filter(|it| !it.overdue) else { return Ok(()) };
        if self.past(Some(leaving.since), self.options.hold_s, tx.now()) {
            let doc = Leaving { overdue: true, ..leaving.doc };
            let why = "The host of a deleted server has not said that its guest let go of the volume.";
            messages::say(tx, &doc.project_id, &doc.id, Event::NotDetached, why)?;
            tx.update(&doc)?;
        }
        Ok(())
    }

    fn late_snapshot(&self, tx: &mut Tx, id: &str) -> Result<()> {
        let Some(snapshot) = tx.get::<Snapshot>(id)? else { return Ok(()) };
        if self.past(snapshot.passing_since, self.options.deadline_s, tx.now()) {
            let doc = Snapshot { overdue: true, ..snapshot.doc };
            let why = "The host of its volume has not made it in time. It goes on trying.";
            messages::say(tx, &doc.project_id, &doc.id, Event::NoSnapshot, why)?;
            tx.update(&doc)?;
        }
        Ok(())
    }
}
