//! What one host has been told: its view in memory, and the steps between its versions. Pure.

use agent_api::{ViewDelta, ViewKind, ViewObject};
use std::collections::BTreeMap;

pub(crate) type Key = (ViewKind, String);

/// The view of a host, as last projected. Lives as long as the session; a new session starts with a whole view.
pub(crate) struct View {
    /// The version before the first object. No two lives of a view share versions: a host that hands back a version of
    /// another life gets the whole view.
    born: u64,
    version: u64,
    objects: BTreeMap<Key, (u64, ViewObject)>,
    removed: BTreeMap<Key, u64>,
}

impl View {
    /// `born` must lie above every version of an earlier life: microseconds since the epoch do.
    pub fn new(born: u64) -> View {
        View { born, version: born, objects: BTreeMap::new(), removed: BTreeMap::new() }
    }

    /// Replaces everything. Returns whether anything differs.
    pub fn replace(&mut self, objects: Vec<ViewObject>) -> bool {
        let mut gone: Vec<Key> = self.objects.keys().cloned().collect();
        let mut changed = false;
        for object in objects {
            let (kind, id) = object.key();
            let key = (kind, id.to_owned());
            gone.retain(|known| *known != key);
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

    pub fn has(&self, key: &Key) -> bool {
        self.objects.contains_key(key)
    }

    /// The step from `since` to now; the whole view where `since` is unknown; none when nothing has changed.
    pub fn delta(&self, since: Option<u64>) -> Option<ViewDelta> {
        let Some(since) = since.filter(|since| (self.born..=self.version).contains(since)) else {
            let put = self.objects.values().map(|(_, object)| object.clone()).collect();
            return Some(ViewDelta { version: self.version, whole: true, put, remove: Vec::new() });
        };
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
