//! What one host has been told: its view in memory, and the steps between its versions. Pure.

use agent_api::{ViewDelta, ViewKind, ViewObject};
use base::HostName;
use std::collections::{BTreeMap, BTreeSet, HashMap};

pub(crate) type Key = (ViewKind, String);

/// The view of a host, as last projected. Lives as long as the session; a new session starts with a whole view.
pub(crate) struct View {
    version: u64,
    objects: BTreeMap<Key, (u64, ViewObject)>,
    /// What went after `known`: a view that lives for months would otherwise remember all that it ever had.
    removed: BTreeMap<Key, u64>,
    /// The newest version that the host has said it has. An older one is answered by the whole view.
    known: u64,
}

impl View {
    /// `born`, the version before the first object, must lie above every version of an earlier life: microseconds since
    /// the epoch do. No two lives share versions: a host that hands back one of another life gets the whole view.
    pub fn new(born: u64) -> View {
        View { version: born, objects: BTreeMap::new(), removed: BTreeMap::new(), known: born }
    }

    /// Replaces everything. Returns whether anything differs.
    pub fn replace(&mut self, objects: Vec<ViewObject>) -> bool {
        let mut gone: BTreeSet<Key> = self.objects.keys().cloned().collect();
        let mut changed = false;
        for object in objects {
            let (kind, id) = object.key();
            let key = (kind, id.to_owned());
            gone.remove(&key);
            changed |= self.set(key, Some(object));
        }
        for key in gone {
            changed |= self.set(key, None);
        }
        changed
    }

    /// Sets or removes one object. Returns whether that is a change.
    pub fn set(&mut self, key: Key, object: Option<ViewObject>) -> bool {
        match object {
            Some(object) => {
                if self.objects.get(&key).is_some_and(|(_, known)| *known == object) {
                    return false;
                }
                self.version += 1;
                self.removed.remove(&key);
                self.objects.insert(key, (self.version, object));
            }
            None => {
                if self.objects.remove(&key).is_none() {
                    return false;
                }
                self.version += 1;
                self.removed.insert(key, self.version);
            }
        }
        true
    }

    pub fn keys(&self) -> impl Iterator<Item = &Key> {
        self.objects.keys()
    }

    /// The step from `since` to now; the whole view where `since` is unknown; none when nothing has changed.
    pub fn delta(&mut self, since: Option<u64>) -> Option<ViewDelta> {
        let Some(since) = since.filter(|since| (self.known..=self.version).contains(since)) else {
            let put = self.objects.values().map(|(_, object)| object.clone()).collect();
            return Some(ViewDelta { version: self.version, whole: true, put, remove: Vec::new() });
        };
        if since > self.known {
            self.known = since;
            self.removed.retain(|_, version| *version > since);
        }
        if since == self.version {
            return None;
        }
        let newer = self.objects.values().filter(|(version, _)| *version > since);
        let gone = self.removed.iter().filter(|(_, version)| **version > since);
        Some(ViewDelta {
            version: self.version,
            whole: false,
            put: newer.map(|(_, object)| object.clone()).collect(),
            remove: gone.map(|((kind, id), _)| (*kind, id.clone())).collect(),
        })
    }
}

/// Which hosts have an object in their view.
#[derive(Default)]
pub(crate) struct Holders(HashMap<Key, BTreeSet<HostName>>);

impl Holders {
    pub fn note(&mut self, host: &HostName, key: &Key, has: bool) {
        if has {
            match self.0.get_mut(key) {
                Some(hosts) => drop(hosts.insert(host.clone())),
                None => drop(self.0.insert(key.clone(), BTreeSet::from([host.clone()]))),
            }
        } else if let Some(hosts) = self.0.get_mut(key) {
            hosts.remove(host);
            if hosts.is_empty() {
                self.0.remove(key);
            }
        }
    }

    pub fn of(&self, key: &Key) -> impl Iterator<Item = &HostName> {
        self.0.get(key).into_iter().flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use agent_api::AddressSet;

    fn set(id: &str, count: usize) -> ViewObject {
        let addresses = (0..count).map(|n| format!("10.0.0.{n}/32").parse().unwrap()).collect();
        ViewObject::AddressSet(AddressSet { id: id.into(), addresses })
    }

    fn apply(known: &mut BTreeMap<Key, ViewObject>, delta: ViewDelta) {
        if delta.whole {
            known.clear();
        }
        for (kind, id) in delta.remove {
            known.remove(&(kind, id));
        }
        for object in delta.put {
            let (kind, id) = object.key();
            known.insert((kind, id.to_owned()), object);
        }
    }

    #[test]
    fn any_chain_of_deltas_leads_to_the_same_view() {
        let random = base::random::SeededRandom::new(3);
        let mut view = View::new(1_000);
        let (mut known, mut version) = (BTreeMap::new(), None);
        for round in 0..500 {
            let id = format!("g{}", base::Random::below(&random, 6));
            let count = base::Random::below(&random, 4) as usize;
            match base::Random::below(&random, 5) {
                0 => drop(view.set((ViewKind::AddressSet, id), None)),
                1 => drop(view.replace(vec![set("g0", count), set(&id, count)])),
                _ => drop(view.set((ViewKind::AddressSet, id.clone()), Some(set(&id, count)))),
            }
            if base::Random::below(&random, 3) == 0 {
                if let Some(delta) = view.delta(version) {
                    version = Some(delta.version);
                    apply(&mut known, delta);
                }
                let now: BTreeMap<Key, ViewObject> =
                    view.objects.iter().map(|(k, v)| (k.clone(), v.1.clone())).collect();
                assert_eq!(known, now, "round {round}");
                assert!(view.delta(version).is_none());
            }
        }
    }

    #[test]
    fn what_a_host_has_been_told_is_gone_is_not_remembered() {
        let mut view = View::new(1_000);
        view.replace(vec![set("a", 1), set("b", 1)]);
        let first = view.delta(None).unwrap().version;
        view.set((ViewKind::AddressSet, "a".into()), None);
        let second = view.delta(Some(first)).unwrap();
        assert_eq!((second.whole, second.remove.len()), (false, 1));
        // The answer may be lost: only the host's own word says that it has it.
        assert_eq!(view.delta(Some(first)).unwrap(), second);
        assert!(view.delta(Some(second.version)).is_none() && view.removed.is_empty());
        assert!(view.delta(Some(first)).unwrap().whole, "a poll that was held up is answered by the whole view");
    }

    #[test]
    fn holders_are_those_that_have_it() {
        let (mut holders, key) = (Holders::default(), (ViewKind::Port, "p".to_owned()));
        let [a, b] = ["a", "b"].map(HostName::new);
        for (host, has) in [(&a, true), (&b, true), (&b, true), (&a, false), (&a, false)] {
            holders.note(host, &key, has);
        }
        assert_eq!(holders.of(&key).collect::<Vec<_>>(), [&b]);
        holders.note(&b, &key, false);
        assert!(holders.0.is_empty());
    }

    #[test]
    fn an_unchanged_object_makes_no_step() {
        let mut view = View::new(1_000);
        assert!(view.replace(vec![set("a", 1)]));
        assert!(!view.replace(vec![set("a", 1)]));
        let mut before = View::new(10);
        before.replace(vec![set("a", 1), set("b", 1)]);
        for other_life in [0, 10, before.version, 999, 2_000] {
            assert!(view.delta(Some(other_life)).unwrap().whole, "a version from another life means a whole view");
        }
    }
}
