//! Which object is due when. Pure: time comes in as a number.

use crate::trouble::Trouble;
use base::Timestamp;
use base::backoff::Backoff;
use std::collections::{BTreeMap, BTreeSet};

const BACKOFF: Backoff = Backoff { first_ms: 100, most_ms: 30_000 };

/// Due when its pass is over, if it is to be due again at all.
const UNDER_WAY: Timestamp = Timestamp(i64::MAX);

/// An object that a loop could not settle.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Unsettled {
    pub reconciler: &'static str,
    pub id: String,
    pub attempts: u32,
    pub since: Timestamp,
    pub last_error: String,
}

struct Entry {
    due: Timestamp,
    attempts: u32,
    /// Of the first failure in a row.
    since: Timestamp,
    last_error: String,
    /// The attempts that the store knows of; 0: it has no [`Trouble`] of this object.
    recorded: u32,
}

impl Entry {
    fn due(due: Timestamp) -> Entry {
        Entry { due, attempts: 0, since: due, last_error: String::new(), recorded: 0 }
    }
}

/// What the store shall know of an object's failures, where it does not yet.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Note {
    Nothing,
    Write(u32),
    Remove,
}

/// The objects of one loop that wait for a pass.
#[derive(Default)]
pub(crate) struct Queue {
    entries: BTreeMap<String, Entry>,
    /// The same by their time: of a hundred thousand that wait, the next is found at once.
    order: BTreeSet<(Timestamp, String)>,
}

impl Queue {
    fn add(&mut self, id: String, entry: Entry) {
        self.remove(&id);
        self.order.insert((entry.due, id.clone()));
        self.entries.insert(id, entry);
    }

    fn remove(&mut self, id: &str) {
        if let Some((id, entry)) = self.entries.remove_entry(id) {
            self.order.remove(&(entry.due, id));
        }
    }

    /// When it shall be due instead; nothing where there is no such object.
    fn shift(&mut self, id: &str, due: impl FnOnce(Timestamp) -> Timestamp) {
        let Some(entry) = self.entries.get_mut(id) else { return };
        let due = due(entry.due);
        if due != entry.due {
            self.order.remove(&(entry.due, id.to_owned()));
            self.order.insert((due, id.to_owned()));
            entry.due = due;
        }
    }

    fn is_under_way(&self, id: &str) -> bool {
        self.entries.get(id).is_some_and(|entry| entry.due == UNDER_WAY)
    }

    /// A signal: due at once, also when it was backing off.
    pub fn signal(&mut self, id: String, now: Timestamp) {
        match self.entries.contains_key(&id) {
            true => self.shift(&id, |due| due.min(now)),
            false => self.add(id, Entry::due(now)),
        }
    }

    /// The timer: due at once, unless it waits already.
    pub fn remind(&mut self, id: String, now: Timestamp) {
        if !self.entries.contains_key(&id) {
            self.add(id, Entry::due(now));
        }
    }

    /// At the start of a process: what an earlier one could not settle goes on counting.
    pub fn resume(&mut self, trouble: Trouble, now: Timestamp) {
        let Trouble { object, attempts, since, last_error, .. } = trouble;
        self.add(object, Entry { due: now, attempts, since, last_error, recorded: attempts });
    }

    /// The first object that is due.
    pub fn due(&self, now: Timestamp) -> Option<String> {
        self.order.first().filter(|(due, _)| *due <= now).map(|(_, id)| id.clone())
    }

    /// Marks that a pass over the object begins. A signal that comes meanwhile makes it due again.
    pub fn begin(&mut self, id: &str) {
        self.shift(id, |_| UNDER_WAY);
    }

    pub fn settled(&mut self, id: &str) -> Note {
        let note = self.went_well(id);
        // What is still to be removed from the store stays until it is.
        if note == Note::Nothing && self.is_under_way(id) {
            self.remove(id);
        }
        note
    }

    pub fn again(&mut self, id: &str, at: Timestamp) -> Note {
        self.shift(id, |due| due.min(at));
        self.went_well(id)
    }

    fn went_well(&mut self, id: &str) -> Note {
        let Some(entry) = self.entries.get_mut(id) else { return Note::Nothing };
        entry.attempts = 0;
        if entry.recorded > 0 { Note::Remove } else { Note::Nothing }
    }

    /// The store has been told: of so many attempts, or (0) that there is no trouble any more.
    pub fn recorded(&mut self, id: &str, attempts: u32) {
        let Some(entry) = self.entries.get_mut(id) else { return };
        entry.recorded = attempts;
        if attempts == 0 && entry.attempts == 0 && entry.due == UNDER_WAY {
            self.remove(id);
        }
    }

    /// The store is told of the first failure, and of each doubling of the attempts.
    pub fn failed(&mut self, id: &str, error: String, now: Timestamp, random: &dyn base::Random) -> Note {
        let Some(entry) = self.entries.get_mut(id) else { return Note::Nothing };
        if entry.attempts == 0 {
            entry.since = now;
        }
        entry.attempts = entry.attempts.saturating_add(1);
        entry.last_error = error;
        let (attempts, recorded) = (entry.attempts, entry.recorded);
        let again = now.plus_ms(BACKOFF.delay_ms(attempts, random) as i64);
        self.shift(id, |due| due.min(again));
        if attempts >= recorded.saturating_mul(2) { Note::Write(attempts) } else { Note::Nothing }
    }

    pub fn trouble(&self, reconciler: &'static str, id: &str) -> Option<Trouble> {
        let entry = self.entries.get(id)?;
        Some(Trouble::new(reconciler, id, entry.attempts, entry.since, &entry.last_error))
    }

    /// The wall clock was set back: what waits goes on waiting for as long as it would have, not until the clock is again
    /// where it was.
    pub fn set_back(&mut self, by_us: i64) {
        for entry in self.entries.values_mut().filter(|entry| entry.due != UNDER_WAY) {
            entry.due = Timestamp(entry.due.0.saturating_sub(by_us));
        }
        self.order = self.entries.iter().map(|(id, entry)| (entry.due, id.clone())).collect();
    }

    /// When the next object is due.
    pub fn next(&self) -> Option<Timestamp> {
        self.order.first().map(|(due, _)| *due)
    }

    pub fn unsettled(&self, reconciler: &'static str) -> Vec<Unsettled> {
        let failing = self.entries.iter().filter(|(_, entry)| entry.attempts > 0);
        failing
            .map(|(id, entry)| Unsettled {
                reconciler,
                id: id.clone(),
                attempts: entry.attempts,
                since: entry.since,
                last_error: entry.last_error.clone(),
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use base::random::SeededRandom;

    #[test]
    fn a_signal_during_a_pass_is_not_lost() {
        let mut queue = Queue::default();
        let now = Timestamp(1_000_000);
        queue.signal("a".into(), now);
        assert_eq!(queue.due(now).as_deref(), Some("a"));
        queue.begin("a");
        assert_eq!(queue.due(now), None);
        queue.signal("a".into(), now);
        queue.settled("a");
        assert_eq!(queue.due(now).as_deref(), Some("a"));
        queue.begin("a");
        assert_eq!(queue.settled("a"), Note::Nothing);
        assert_eq!(queue.next(), None);
    }

    #[test]
    fn failures_wait_longer_and_are_visible_until_settled() {
        let (mut queue, random) = (Queue::default(), SeededRandom::new(7));
        let mut now = Timestamp(0);
        queue.signal("a".into(), now);
        for attempt in 1..=5 {
            queue.begin("a");
            let note = queue.failed("a", "no".into(), now, &random);
            let told = if matches!(attempt, 1 | 2 | 4) { Note::Write(attempt) } else { Note::Nothing };
            assert_eq!(note, told, "the store is told at each doubling");
            if note != Note::Nothing {
                queue.recorded("a", attempt);
            }
            assert_eq!(queue.due(now), None);
            queue.remind("a".into(), now);
            assert_eq!(queue.due(now), None, "a reminder does not cut the wait short");
            now = queue.next().unwrap();
            assert_eq!(queue.due(now).as_deref(), Some("a"));
        }
        assert_eq!(queue.unsettled("x")[0].attempts, 5);
        queue.begin("a");
        assert_eq!(queue.settled("a"), Note::Remove);
        queue.recorded("a", 0);
        assert!(queue.unsettled("x").is_empty());
        assert_eq!(queue.next(), None);
    }

    #[test]
    fn a_clock_that_is_set_back_makes_nothing_wait_longer() {
        let (mut queue, hour) = (Queue::default(), 3_600_000_000);
        for id in ["a", "under way"] {
            queue.signal(id.into(), Timestamp(hour));
            queue.begin(id);
        }
        queue.again("a", Timestamp(hour + 1_000));
        queue.set_back(hour);
        assert_eq!((queue.due(Timestamp(999)), queue.due(Timestamp(1_000)).as_deref()), (None, Some("a")));
        queue.begin("a");
        assert_eq!(queue.due(Timestamp(2 * hour)), None, "what is under way is not begun again");
    }

    #[test]
    fn what_the_store_could_not_be_told_is_told_at_the_next_attempt() {
        let (mut queue, random) = (Queue::default(), SeededRandom::new(7));
        queue.signal("a".into(), Timestamp(0));
        for attempt in 1..=3 {
            queue.begin("a");
            assert_eq!(queue.failed("a", "no".into(), Timestamp(0), &random), Note::Write(attempt));
        }
    }
}
