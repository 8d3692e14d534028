//! How many failed logins there may be: by user, and by where they come from. Beyond the lockout, which is a user's and
//! off unless it is set: this one is there from the start, and holds back who tries many users.
//!
//! A login takes its place before its proof is looked at and gives it back when the proof holds, so that many at once
//! are no more than many in a row. Whoever is asked for, there or not, is counted alike. All in memory and bounded: an
//! entry is a moment, found by a hash; when there is no room, those that are soonest forgotten go.

use base::{Fault, FaultKind, Result, Timestamp};
use std::collections::HashMap;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};

/// The most entries: under a megabyte.
const ENTRIES: usize = 16_384;

/// So many failures at once, and so many more each minute.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// 0: there is no limit.
    pub burst: u32,
    pub per_minute: u32,
}

impl Rate {
    fn step_us(self) -> i64 {
        60_000_000 / i64::from(self.per_minute.max(1))
    }
}

#[derive(Clone, Debug)]
pub struct Options {
    pub per_user: Rate,
    pub per_source: Rate,
    /// Whose word about where a request comes from counts (`X-Forwarded-For`).
    pub trusted_proxies: Vec<IpAddr>,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            per_user: Rate { burst: 30, per_minute: 6 },
            per_source: Rate { burst: 300, per_minute: 120 },
            trusted_proxies: Vec::new(),
        }
    }
}

impl Options {
    /// Where a request comes from: the nearest address that no trusted proxy has.
    pub(crate) fn source(&self, peer: Option<IpAddr>, forwarded: Option<&str>) -> Option<IpAddr> {
        let mut at = peer?.to_canonical();
        for hop in forwarded.unwrap_or_default().rsplit(',') {
            if !self.trusted_proxies.contains(&at) {
                break;
            }
            match hop.trim().parse::<IpAddr>() {
                Ok(address) => at = address.to_canonical(),
                Err(_) => break,
            }
        }
        Some(at)
    }
}

/// Who fails, as it is counted.
pub(crate) enum Subject<'a> {
    User(&'a str),
    Source(IpAddr),
}

/// What is kept of a subject: how much time must pass until all is forgotten, as of when. A clock that is set back
/// makes nobody wait longer.
#[derive(Clone, Copy)]
struct Entry {
    owed_us: i64,
    at: Timestamp,
}

impl Entry {
    fn owed_us(self, now: Timestamp) -> i64 {
        let passed = (now.micros() - self.at.micros()).max(0);
        (self.owed_us - passed).max(0)
    }
}

#[derive(Default)]
pub(crate) struct Limit {
    hasher: RandomState,
    entries: Mutex<HashMap<u64, Entry>>,
}

/// Places that a login has taken.
#[derive(Debug, Default)]
pub(crate) struct Taken(Vec<(u64, i64)>);

impl Limit {
    fn key(&self, subject: &Subject) -> u64 {
        match subject {
            Subject::User(user) => self.hasher.hash_one(("user", user)),
            Subject::Source(IpAddr::V4(address)) => self.hasher.hash_one(("source", address.octets())),
            // A network of IPv6 has as many addresses as anybody likes.
            Subject::Source(IpAddr::V6(address)) => self.hasher.hash_one(("source", &address.segments()[..4])),
        }
    }

    /// Takes a place for each subject, or none: RateLimited with the seconds until there is one.
    pub fn take(&self, options: &Options, subjects: &[Subject], now: Timestamp) -> Result<Taken> {
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        let mut taken = Vec::new();
        let mut wait_us = 0;
        for subject in subjects {
            let rate = if matches!(subject, Subject::User(_)) { options.per_user } else { options.per_source };
            if rate.burst == 0 {
                continue;
            }
            let (key, step) = (self.key(subject), rate.step_us());
            let owed_us = entries.get(&key).map_or(0, |entry| entry.owed_us(now));
            wait_us = wait_us.max(owed_us + step - step * i64::from(rate.burst));
            taken.push((key, step));
        }
        if wait_us > 0 {
            let seconds = (wait_us + 999_999) / 1_000_000;
            let why = format!("Too many failed logins. Try again in {seconds} seconds.");
            return Err(Fault::new(FaultKind::RateLimited, why).retry_after(seconds.unsigned_abs()));
        }
        for (key, step) in &taken {
            make_room(&mut entries, now);
            let owed_us = entries.get(key).map_or(0, |entry| entry.owed_us(now));
            entries.insert(*key, Entry { owed_us: owed_us + step, at: now });
        }
        Ok(Taken(taken))
    }

    /// The proof held: nothing has failed.
    pub fn give_back(&self, taken: Taken) {
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        for (key, step) in taken.0 {
            if let Some(entry) = entries.get_mut(&key) {
                entry.owed_us -= step;
            }
        }
    }
}

fn make_room(entries: &mut HashMap<u64, Entry>, now: Timestamp) {
    if entries.len() < ENTRIES {
        return;
    }
    entries.retain(|_, entry| entry.owed_us(now) > 0);
    if entries.len() < ENTRIES {
        return;
    }
    let mut owed: Vec<i64> = entries.values().map(|entry| entry.owed_us(now)).collect();
    let (_, middle, _) = owed.select_nth_unstable(ENTRIES / 2);
    let middle = *middle;
    entries.retain(|_, entry| entry.owed_us(now) > middle);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp(seconds * 1_000_000)
    }

    fn options() -> Options {
        let per_user = Rate { burst: 3, per_minute: 6 };
        Options { per_user, per_source: Rate { burst: 5, per_minute: 60 }, trusted_proxies: Vec::new() }
    }

    #[test]
    fn failures_are_counted_and_forgotten_and_what_holds_is_not_counted() {
        let (limit, options) = (Limit::default(), options());
        let take = |user: &str, now| limit.take(&options, &[Subject::User(user)], at(now));
        for _ in 0..20 {
            limit.give_back(take("bob", 0).unwrap());
        }
        for _ in 0..3 {
            take("bob", 0).unwrap();
        }
        let refused = take("bob", 0).unwrap_err();
        assert_eq!((refused.kind, refused.retry_after_s), (FaultKind::RateLimited, Some(10)));
        assert!(take("bob", 9).is_err() && take("eve", 9).is_ok());
        take("bob", 10).unwrap();
        assert!(take("bob", 10).is_err());
        for _ in 0..3 {
            take("bob", 100).unwrap();
        }
        assert!(take("bob", 100).is_err());
    }

    #[test]
    fn a_clock_that_is_set_back_makes_nobody_wait_longer() {
        let (limit, options) = (Limit::default(), options());
        let take = |user: &str, now| limit.take(&options, &[Subject::User(user)], at(now));
        limit.give_back(take("eve", 10_000).unwrap());
        for _ in 0..3 {
            take("bob", 10_000).unwrap();
        }
        take("eve", 0).unwrap();
        assert_eq!(take("bob", 0).unwrap_err().retry_after_s, Some(10));
    }

    #[test]
    fn one_source_is_held_back_over_all_users_and_takes_no_place_of_theirs_then() {
        let (limit, options) = (Limit::default(), options());
        let take = |user: &str, source: &str, now| {
            let subjects = [Subject::User(user), Subject::Source(source.parse().unwrap())];
            limit.take(&options, &subjects, at(now))
        };
        for user in ["a", "b", "c", "d", "e"] {
            take(user, "2001:db8::1", 0).unwrap();
        }
        for _ in 0..9 {
            assert_eq!(take("f", "2001:db8::ffff", 0).unwrap_err().retry_after_s, Some(1), "of the same network");
        }
        for _ in 0..3 {
            take("f", "192.0.2.1", 0).unwrap();
        }
        assert!(take("f", "192.0.2.1", 0).is_err() && take("g", "192.0.2.1", 0).is_ok());
        let off = Options { per_user: Rate { burst: 0, per_minute: 0 }, ..options };
        assert!(limit.take(&off, &[Subject::User("f")], at(0)).is_ok());
    }

    #[test]
    fn memory_is_bounded_and_the_worst_stay() {
        let (limit, options) = (Limit::default(), options());
        for _ in 0..3 {
            limit.take(&options, &[Subject::User("bob")], at(0)).unwrap();
        }
        for n in 0..ENTRIES * 2 {
            limit.take(&options, &[Subject::User(&n.to_string())], at(0)).unwrap();
        }
        assert!(limit.entries.lock().unwrap().len() <= ENTRIES);
        assert!(limit.take(&options, &[Subject::User("bob")], at(0)).is_err());
    }

    #[test]
    fn only_a_trusted_proxy_says_where_a_request_comes_from() {
        let address = |text: &str| text.parse::<IpAddr>().ok();
        let mut options = options();
        let from = |options: &Options, peer, forwarded| options.source(address(peer), forwarded);
        assert_eq!(from(&options, "192.0.2.9", Some("10.0.0.1")), address("192.0.2.9"));
        options.trusted_proxies = vec!["192.0.2.9".parse().unwrap(), "192.0.2.8".parse().unwrap()];
        for (said, source) in [
            (Some("10.0.0.1"), "10.0.0.1"),
            (Some("6.6.6.6, 10.0.0.1, 192.0.2.8"), "10.0.0.1"),
            (Some("nonsense"), "192.0.2.9"),
            (None, "192.0.2.9"),
        ] {
            assert_eq!(from(&options, "::ffff:192.0.2.9", said), address(source), "{said:?}");
        }
        assert_eq!(options.source(None, Some("10.0.0.1")), None);
    }
}
