//! Revoked tokens, in memory. Exact: checked on each use of a token, and a token made after the event is never hit.
//!
//! A Fernet token tells its birth in whole seconds only. So that a token of the same second can be told from one before
//! the event, our audit ids begin with the microsecond of their making ([`audit_id`]). In a token of another maker those
//! bytes are random; they disagree with the token's second, and the second counts.

use super::payload::AuditId;
use crate::documents::Revocation;
use base::{Random, Timestamp};
use std::collections::{BTreeSet, HashMap, HashSet};

/// How many low bits of the microsecond clock an audit id carries: 56 bits last until the year 4253.
const CLOCK_BYTES: usize = 7;

/// A new audit id: seven bytes of microseconds, nine of chance.
pub fn audit_id(now: Timestamp, random: &dyn Random) -> AuditId {
    let mut id = [0u8; 16];
    random.fill(&mut id[CLOCK_BYTES..]);
    id[..CLOCK_BYTES].copy_from_slice(&now.micros().to_be_bytes()[8 - CLOCK_BYTES..]);
    AuditId(id)
}

/// When a token was made: to the microsecond if its audit id says so, else the start of its second.
pub fn issued(id: AuditId, second: u64) -> Timestamp {
    let mut bytes = [0u8; 8];
    bytes[8 - CLOCK_BYTES..].copy_from_slice(&id.0[..CLOCK_BYTES]);
    let micros = i64::from_be_bytes(bytes);
    let start = i64::try_from(second).unwrap_or(i64::MAX / 1_000_000).saturating_mul(1_000_000);
    if (start..start.saturating_add(1_000_000)).contains(&micros) { Timestamp(micros) } else { Timestamp(start) }
}

/// What the events are matched against.
pub struct Facts<'a> {
    pub audit_id: AuditId,
    /// Of the token that began the chain.
    pub chain: Option<AuditId>,
    pub issued: Timestamp,
    pub user: &'a str,
    pub project: Option<&'a str>,
    /// The domains of user, project and scope.
    pub domains: [Option<&'a str>; 3],
}

#[derive(Default)]
pub struct Revocations {
    audit: HashSet<AuditId>,
    chains: HashSet<AuditId>,
    user: HashMap<String, BTreeSet<(Timestamp, String)>>,
    project: HashMap<String, BTreeSet<(Timestamp, String)>>,
    domain: HashMap<String, BTreeSet<(Timestamp, String)>>,
    /// Events by id, to take them out again.
    events: HashMap<String, Revocation>,
}

impl Revocations {
    pub fn put(&mut self, event: &Revocation) {
        self.remove(&event.id);
        self.audit.extend(event.audit_id.as_deref().and_then(AuditId::parse));
        self.chains.extend(event.audit_chain_id.as_deref().and_then(AuditId::parse));
        for (map, key) in self.maps(event) {
            map.entry(key).or_default().insert((event.before, event.id.clone()));
        }
        self.events.insert(event.id.clone(), event.clone());
    }

    pub fn remove(&mut self, id: &str) {
        let Some(event) = self.events.remove(id) else { return };
        if let Some(audit_id) = event.audit_id.as_deref().and_then(AuditId::parse) {
            self.audit.remove(&audit_id);
        }
        if let Some(chain) = event.audit_chain_id.as_deref().and_then(AuditId::parse) {
            self.chains.remove(&chain);
        }
        for (map, key) in self.maps(&event) {
            if let Some(events) = map.get_mut(&key) {
                events.remove(&(event.before, id.to_owned()));
                if events.is_empty() {
                    map.remove(&key);
                }
            }
        }
    }

    #[expect(clippy::type_complexity)]
    fn maps(&mut self, event: &Revocation) -> Vec<(&mut HashMap<String, BTreeSet<(Timestamp, String)>>, String)> {
        let keys = [
            (&mut self.user, event.user_id.as_ref().map(ToString::to_string)),
            (&mut self.project, event.project_id.as_ref().map(ToString::to_string)),
            (&mut self.domain, event.domain_id.as_ref().map(ToString::to_string)),
        ];
        keys.into_iter().filter_map(|(map, key)| Some((map, key?))).collect()
    }

    pub fn hit(&self, facts: &Facts) -> bool {
        if self.events.is_empty() {
            return false;
        }
        let reached = |map: &HashMap<String, BTreeSet<(Timestamp, String)>>, key: &str| {
            map.get(key).and_then(|events| events.last()).is_some_and(|(before, _)| facts.issued <= *before)
        };
        self.audit.contains(&facts.audit_id)
            || facts.chain.is_some_and(|chain| self.chains.contains(&chain))
            || reached(&self.user, facts.user)
            || facts.project.is_some_and(|project| reached(&self.project, project))
            || facts.domains.iter().flatten().any(|domain| reached(&self.domain, domain))
    }

    /// All events, in the order of their making.
    pub fn events(&self) -> Vec<&Revocation> {
        let mut events: Vec<&Revocation> = self.events.values().collect();
        events.sort_by(|one, other| (one.before, &one.id).cmp(&(other.before, &other.id)));
        events
    }

    /// Events that no living token can match any more.
    pub fn outdated(&self, now: Timestamp) -> Vec<String> {
        self.events.values().filter(|event| event.until < now).map(|event| event.id.clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use base::random::SeededRandom;

    fn facts(user: &str, issued: i64) -> Facts<'_> {
        Facts {
            audit_id: AuditId([1; 16]),
            chain: Some(AuditId([2; 16])),
            issued: Timestamp(issued),
            user,
            project: Some("p"),
            domains: [Some("d"), Some("e"), None],
        }
    }

    #[test]
    fn an_event_hits_older_tokens_and_spares_newer_ones() {
        let mut events = Revocations::default();
        assert!(!events.hit(&facts("u", 0)));
        let event = |id: &str, before| Revocation { id: id.into(), before: Timestamp(before), ..Revocation::default() };
        events.put(&Revocation { user_id: Some("u".into()), ..event("1", 100) });
        events.put(&Revocation { user_id: Some("u".into()), ..event("2", 200) });
        assert!(events.hit(&facts("u", 200)) && !events.hit(&facts("u", 201)) && !events.hit(&facts("v", 1)));
        events.remove("2");
        assert!(events.hit(&facts("u", 100)) && !events.hit(&facts("u", 101)));
        events.remove("1");
        events.put(&Revocation { domain_id: Some("e".into()), ..event("3", 5) });
        assert!(events.hit(&facts("w", 5)) && !events.hit(&facts("w", 6)));
        events.put(&Revocation { audit_id: Some(AuditId([1; 16]).to_string()), ..event("4", 0) });
        assert!(events.hit(&facts("w", 6)));
        events.remove("4");
        events.put(&Revocation { audit_chain_id: Some(AuditId([2; 16]).to_string()), ..event("5", 0) });
        assert!(events.hit(&facts("w", 6)), "of a chain");
        assert_eq!(events.events().iter().map(|event| event.id.as_str()).collect::<Vec<_>>(), ["5", "3"]);
        assert_eq!(events.outdated(Timestamp(1)).len(), 2);
    }

    #[test]
    fn the_moment_of_issue_is_exact_for_our_tokens_and_the_second_for_others() {
        let now = Timestamp(1_795_226_312_345_678);
        let id = audit_id(now, &SeededRandom::new(1));
        assert_eq!(issued(id, 1_795_226_312), now);
        assert_eq!(issued(id, 1_795_226_313), Timestamp(1_795_226_313_000_000));
        assert_eq!(issued(AuditId([0xab; 16]), 5), Timestamp(5_000_000));
        assert_ne!(audit_id(now, &SeededRandom::new(1)), audit_id(now, &SeededRandom::new(2)));
    }
}
