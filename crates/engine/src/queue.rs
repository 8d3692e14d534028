//! Which object is due when. Pure: time comes in as a number.

use base::Timestamp;
use base::backoff::Backoff;
use std::collections::BTreeMap;

const BACKOFF: Backoff = Backoff { first_ms: 100, most_ms: 30_000 };

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
    since: Timestamp,
    last_error: String,
}

/// The objects of one loop that wait for a pass.
#[derive(Default)]
pub(crate) struct Queue(BTreeMap<String, Entry>);

impl Queue {
    /// A signal: due at once, also when it was backing off.
    pub fn signal(&mut self, id: String, now: Timestamp) {
        let entry = self.0.entry(id).or_insert(Entry { due: now, attempts: 0, since: now, last_error: String::new() });
        entry.due = entry.due.min(now);
    }

    /// The timer: due at once, unless it waits already.
    pub fn remind(&mut self, id: String, now: Timestamp) {
        self.0.entry(id).or_insert(Entry { due: now, attempts: 0, since: now, last_error: String::new() });
    }

    /// The first object that is due.
    pub fn due(&self, now: Timestamp) -> Option<String> {
        let first = self.0.iter().filter(|(_, entry)| entry.due <= now).min_by_key(|(_, entry)| entry.due);
        first.map(|(id, _)| id.clone())
    }

    /// Marks that a pass over the object begins. A signal that comes meanwhile makes it due again.
    pub fn begin(&mut self, id: &str) {
        if let Some(entry) = self.0.get_mut(id) {
            entry.due = Timestamp(i64::MAX);
        }
    }

    pub fn settled(&mut self, id: &str) {
        if self.0.get(id).is_some_and(|entry| entry.due.0 == i64::MAX) {
            self.0.remove(id);
        } else if let Some(entry) = self.0.get_mut(id) {
            entry.attempts = 0;
        }
    }

    pub fn again(&mut self, id: &str, at: Timestamp) {
        if let Some(entry) = self.0.get_mut(id) {
            entry.due = entry.due.min(at);
            entry.attempts = 0;
        }
    }

    /// Returns the number of fruitless attempts so far.
    pub fn failed(&mut self, id: &str, error: String, now: Timestamp, random: &dyn base::Random) -> u32 {
        let Some(entry) = self.0.get_mut(id) else { return 0 };
        entry.attempts += 1;
        entry.last_error = error;
        entry.due = entry.due.min(now.plus_ms(BACKOFF.delay_ms(entry.attempts, random) as i64));
        entry.attempts
    }

    /// When the next object is due.
    pub fn next(&self) -> Option<Timestamp> {
        self.0.values().map(|entry| entry.due).min()
    }

    pub fn unsettled(&self, reconciler: &'static str) -> Vec<Unsettled> {
        let failing = self.0.iter().filter(|(_, entry)| entry.attempts > 0);
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
        queue.settled("a");
        assert_eq!(queue.next(), None);
    }

    #[test]
    fn failures_wait_longer_and_are_visible_until_settled() {
        let (mut queue, random) = (Queue::default(), SeededRandom::new(7));
        let mut now = Timestamp(0);
        queue.signal("a".into(), now);
        for attempt in 1..=5 {
            queue.begin("a");
            assert_eq!(queue.failed("a", "no".into(), now, &random), attempt);
            assert_eq!(queue.due(now), None);
            queue.remind("a".into(), now);
            assert_eq!(queue.due(now), None, "a reminder does not cut the wait short");
            now = queue.next().unwrap();
            assert_eq!(queue.due(now).as_deref(), Some("a"));
        }
        assert_eq!(queue.unsettled("x")[0].attempts, 5);
        queue.begin("a");
        queue.settled("a");
        assert!(queue.unsettled("x").is_empty());
    }
}
