//! What has been observed and not yet reported.

use agent_api::{PortObserved, RouterObserved};
use base::{PortId, RouterId};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use tokio::sync::Notify;

#[derive(Default)]
pub struct Seen {
    inner: Mutex<Inner>,
    news: Notify,
}

#[derive(Default)]
struct Inner {
    ports: BTreeMap<PortId, PortObserved>,
    routers: BTreeMap<RouterId, RouterObserved>,
    changed_ports: BTreeSet<PortId>,
    changed_routers: BTreeSet<RouterId>,
}

impl Seen {
    fn change<T>(&self, change: impl FnOnce(&mut Inner) -> T) -> T {
        change(&mut self.inner.lock().unwrap_or_else(|poisoned| poisoned.into_inner()))
    }

    pub fn port(&self, now: PortObserved) {
        let new = self.change(|inner| {
            let new = inner.ports.get(&now.id) != Some(&now);
            if new {
                inner.changed_ports.insert(now.id.clone());
                inner.ports.insert(now.id.clone(), now);
            }
            new
        });
        if new {
            self.news.notify_one();
        }
    }

    pub fn router(&self, now: RouterObserved) {
        let new = self.change(|inner| {
            let new = inner.routers.get(&now.id) != Some(&now);
            if new {
                inner.changed_routers.insert(now.id.clone());
                inner.routers.insert(now.id.clone(), now);
            }
            new
        });
        if new {
            self.news.notify_one();
        }
    }

    pub fn is_up(&self, port: &PortId) -> bool {
        self.change(|inner| inner.ports.get(port).is_some_and(|it| it.up))
    }

    /// Forgets what the view no longer has.
    pub fn keep(&self, port: impl Fn(&PortId) -> bool, router: impl Fn(&RouterId) -> bool) {
        self.change(|inner| {
            inner.ports.retain(|id, _| port(id));
            inner.routers.retain(|id, _| router(id));
            inner.changed_ports.retain(|id| port(id));
            inner.changed_routers.retain(|id| router(id));
        });
    }

    /// Waits for news; with `whole` everything, at once.
    pub async fn observe(&self, whole: bool) -> (Vec<PortObserved>, Vec<RouterObserved>) {
        loop {
            let found = self.change(|inner| {
                let (ports, routers) =
                    (std::mem::take(&mut inner.changed_ports), std::mem::take(&mut inner.changed_routers));
                if whole {
                    return (inner.ports.values().cloned().collect(), inner.routers.values().cloned().collect());
                }
                let ports: Vec<_> = ports.iter().filter_map(|id| inner.ports.get(id).cloned()).collect();
                let routers: Vec<_> = routers.iter().filter_map(|id| inner.routers.get(id).cloned()).collect();
                (ports, routers)
            });
            if whole || !found.0.is_empty() || !found.1.is_empty() {
                return found;
            }
            self.news.notified().await;
        }
    }
}
