//! The one thread that changes the kernel: takes jobs, keeps what must be looked at again, and tries again what failed.
//!
//! ```text
//!   jobs ──> world (dirty) ──> settle: underlay, networks, routers ──> observed
//!                 ^                          │ fault
//!                 └── due after a backoff ───┘
//! ```

use super::Options;
use super::names::{self, Names};
use super::seen::Seen;
use super::services::Services;
use super::shape::is_guest_link;
use super::taps::{self, Taps};
use super::verify::Difference;
use super::world::{Dirty, World};
use agent_api::{AgentFault, PortObserved, PortSpec, RouterObserved, ViewDelta};
use base::{NetworkId, PortId, RouterId};
use netlink::nft::Table;
use netlink::{Netns, link};
use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

type Answer<T> = oneshot::Sender<T>;

pub enum Job {
    Delta {
        delta: Box<ViewDelta>,
        answer: Answer<()>,
    },
    OpenTap {
        port: PortId,
        until: Option<Instant>,
        answer: Answer<Result<OwnedFd, AgentFault>>,
    },
    OpenVeth {
        port: PortId,
        guest: Netns,
        name: String,
        until: Option<Instant>,
        answer: Answer<Result<(), AgentFault>>,
    },
    Wire {
        port: PortId,
        until: Option<Instant>,
        answer: Answer<Result<(), AgentFault>>,
    },
    Unwire {
        port: PortId,
        answer: Answer<()>,
    },
    Barrier(Answer<()>),
    Verify(Answer<Vec<Difference>>),
    Repair(Answer<()>),
    /// netd's connection has ended.
    ServicesLost,
    Stop,
}

/// A namespace that is ours, and what we know of it.
pub struct Space {
    pub ns: Netns,
    /// The rules as last loaded; none: unknown, to be loaded whole.
    pub tables: Option<Vec<Table>>,
    /// Sysctls have been set.
    pub prepared: bool,
    /// Flows may bear the mark of stopped ones.
    pub marked: bool,
}

impl Space {
    pub fn new(ns: Netns) -> Space {
        Space { ns, tables: None, prepared: false, marked: true }
    }
}

/// What failed, and when it is tried again.
struct Failure {
    attempts: u32,
    at: Instant,
}

#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Thing {
    Underlay,
    Network(NetworkId),
    Router(RouterId),
    Sweep,
}

pub struct Keeper {
    pub options: Options,
    pub names: Names,
    pub world: World,
    pub dirty: Dirty,
    pub underlay: Space,
    pub networks: BTreeMap<NetworkId, Space>,
    pub routers: BTreeMap<RouterId, Space>,
    /// External networks that clash with the host, and how.
    pub refused: BTreeMap<NetworkId, String>,
    /// Uplinks whose forwarding we switched on.
    pub switched: BTreeSet<String>,
    pub services: Services,
    pub seen: Arc<Seen>,
    pub taps: Arc<Taps>,
    failing: BTreeMap<Thing, Failure>,
    waiting: Vec<Job>,
    checked: Instant,
}

/// Links, addresses and routes are compared this often; rules at start, on repair and by `fsck`.
const CHECK_EVERY: Duration = Duration::from_secs(30);

impl Keeper {
    pub fn new(options: Options, seen: Arc<Seen>, jobs: std::sync::mpsc::Sender<Job>) -> Keeper {
        let gone = Arc::new(move || drop(jobs.send(Job::ServicesLost)));
        let taps = Taps::new(&options.cloud);
        Keeper {
            names: Names::new(&options.cloud),
            underlay: Space::new(options.underlay.clone()),
            services: Services::new(options.services.clone(), gone),
            options,
            world: World::default(),
            dirty: Dirty::default(),
            networks: BTreeMap::new(),
            routers: BTreeMap::new(),
            refused: BTreeMap::new(),
            switched: BTreeSet::new(),
            seen,
            taps: Arc::new(taps),
            failing: BTreeMap::new(),
            waiting: Vec::new(),
            checked: Instant::now(),
        }
    }

    pub fn run(mut self, inbox: Receiver<Job>) {
        loop {
            let job = match inbox.recv_timeout(self.idle()) {
                Ok(job) => Some(job),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => return,
            };
            // What has arrived meanwhile is taken together: steps of the view first, so that one pass serves them all.
            let mut jobs: Vec<Job> = job.into_iter().chain(inbox.try_iter()).collect();
            if jobs.iter().any(|job| matches!(job, Job::Stop)) {
                return;
            }
            jobs.append(&mut self.waiting);
            let (deltas, rest): (Vec<Job>, Vec<Job>) =
                jobs.into_iter().partition(|job| matches!(job, Job::Delta { .. }));
            for job in deltas {
                self.take(job);
            }
            let (last, first): (Vec<Job>, Vec<Job>) =
                rest.into_iter().partition(|job| matches!(job, Job::Barrier(_) | Job::Verify(_) | Job::Repair(_)));
            first.into_iter().for_each(|job| self.take(job));
            self.settle_due();
            last.into_iter().for_each(|job| self.take(job));
        }
    }

    fn idle(&self) -> Duration {
        let now = Instant::now();
        if !self.dirty.is_empty() {
            return Duration::ZERO;
        }
        let due = self.failing.values().map(|failure| failure.at);
        let patience = self.waiting.iter().filter_map(|job| match job {
            Job::OpenTap { until, .. } | Job::OpenVeth { until, .. } | Job::Wire { until, .. } => *until,
            _ => None,
        });
        let next =
            due.chain(patience).chain(self.services.retry).chain([self.checked + CHECK_EVERY]).min().unwrap_or(now);
        next.saturating_duration_since(now).max(Duration::from_millis(1))
    }

    fn take(&mut self, job: Job) {
        match job {
            Job::Delta { delta, answer } => {
                self.apply(&delta);
                let _ = answer.send(());
            }
            Job::OpenTap { port, until, answer } => match self.port(&port, until) {
                Wait::More(until) => self.waiting.push(Job::OpenTap { port, until: Some(until), answer }),
                Wait::Over(found) => {
                    let _ = answer.send(found.and_then(|spec| self.open_tap(&spec)));
                }
            },
            Job::OpenVeth { port, guest, name, until, answer } => match self.port(&port, until) {
                Wait::More(until) => self.waiting.push(Job::OpenVeth { port, guest, name, until: Some(until), answer }),
                Wait::Over(found) => {
                    let _ = answer.send(found.and_then(|spec| self.open_veth(&spec, &guest, &name)));
                }
            },
            Job::Wire { port, until, answer } => match self.port(&port, until) {
                Wait::More(until) => self.waiting.push(Job::Wire { port, until: Some(until), answer }),
                Wait::Over(found) => {
                    let _ = answer.send(found.and_then(|spec| self.wire(&spec)));
                }
            },
            Job::Unwire { port, answer } => {
                self.unwire(&port);
                let _ = answer.send(());
            }
            Job::Barrier(answer) => {
                let _ = answer.send(());
            }
            Job::Verify(answer) => {
                let _ = answer.send(self.verify());
            }
            Job::Repair(answer) => {
                self.repair();
                let _ = answer.send(());
            }
            Job::ServicesLost => self.services.lost(),
            Job::Stop => {}
        }
    }

    fn apply(&mut self, delta: &ViewDelta) {
        let (dirty, refused) = self.world.apply(delta);
        for why in refused {
            tracing::warn!(%why, "an object of the view is left out");
        }
        self.dirty.networks.extend(dirty.networks);
        self.dirty.routers.extend(dirty.routers);
        self.dirty.underlay |= dirty.underlay;
        self.dirty.guests |= dirty.guests;
        self.dirty.sweep |= dirty.sweep;
        let world = &self.world;
        self.taps.note(world, delta);
        self.seen.keep(|id| world.ports.contains_key(id), |id| world.routers.contains_key(id));
    }

    /// A port of the view with its network; waits for it a bounded time.
    fn port(&self, id: &PortId, until: Option<Instant>) -> Wait {
        let spec = self.world.ports.get(id).filter(|port| self.world.networks.contains_key(&port.network));
        if let Some(spec) = spec {
            return Wait::Over(Ok(spec.clone()));
        }
        let until = until.unwrap_or_else(|| Instant::now() + self.options.port_patience);
        if Instant::now() < until {
            return Wait::More(until);
        }
        Wait::Over(Err(AgentFault {
            message: "The port's network has not reached this host yet.".into(),
            detail: format!("port {id} or its network is not in the view"),
            retried: true,
        }))
    }

    /// Carries out what is due: what changed, what failed and has waited, and now and then everything.
    fn settle_due(&mut self) {
        let now = Instant::now();
        if now.duration_since(self.checked) >= CHECK_EVERY {
            self.checked = now;
            self.look_at_all();
        }
        let due: Vec<Thing> =
            self.failing.iter().filter(|(_, f)| f.at <= now).map(|(thing, _)| thing.clone()).collect();
        for thing in due {
            self.mark(&thing);
        }
        let dirty = std::mem::take(&mut self.dirty);
        if dirty.underlay {
            self.attempt(Thing::Underlay);
        }
        for id in dirty.networks {
            self.attempt(Thing::Network(id));
        }
        for id in dirty.routers {
            self.attempt(Thing::Router(id));
        }
        if dirty.sweep {
            self.attempt(Thing::Sweep);
        }
        if dirty.guests {
            self.services.guests(&self.world);
        }
        if dirty.sweep && self.world.whole {
            self.services.complete();
        }
        if self.services.retry.is_some_and(|at| at <= Instant::now()) {
            self.services.sync();
        }
    }

    fn mark(&mut self, thing: &Thing) {
        match thing {
            Thing::Underlay => self.dirty.underlay = true,
            Thing::Network(id) => {
                self.dirty.networks.insert(id.clone());
            }
            Thing::Router(id) => {
                self.dirty.routers.insert(id.clone());
            }
            Thing::Sweep => self.dirty.sweep = true,
        }
    }

    pub fn look_at_all(&mut self) {
        self.dirty.underlay |= self.underlay.tables.is_some();
        self.dirty.networks.extend(self.world.networks.keys().cloned());
        self.dirty.routers.extend(self.world.routers.keys().cloned());
        self.dirty.sweep |= self.world.whole;
    }

    fn attempt(&mut self, thing: Thing) {
        let result = match &thing {
            Thing::Underlay => self.settle_underlay(),
            Thing::Network(id) => self.settle_network(id),
            Thing::Router(id) => self.settle_router(id),
            Thing::Sweep => self.sweep(),
        };
        let Err(error) = result else {
            self.failing.remove(&thing);
            return;
        };
        let attempts = self.failing.get(&thing).map_or(1, |f| f.attempts.saturating_add(1));
        let wait = Duration::from_millis(50 << attempts.min(9));
        if attempts == 1 || attempts.is_power_of_two() {
            tracing::info!(%error, attempts, "a network is not as it shall be yet");
        }
        if let Thing::Router(id) = &thing {
            let fault = Some(error.to_string());
            // As of the last doubling: not every attempt is worth a report.
            let attempts = 1 << attempts.ilog2();
            self.seen.router(RouterObserved { id: id.clone(), up: false, floating: Vec::new(), fault, attempts });
        }
        self.failing.insert(thing, Failure { attempts, at: Instant::now() + wait });
    }

    /// The network's namespace with the port's rules in it: from here on a link may be made.
    fn ready_network(&mut self, port: &PortSpec) -> Result<Netns, AgentFault> {
        let thing = Thing::Network(port.network.clone());
        let stands = self.networks.contains_key(&port.network) && !self.failing.contains_key(&thing);
        if self.dirty.networks.contains(&port.network) || !stands {
            self.settle_network(&port.network).map_err(|error| fault(&error))?;
            self.dirty.networks.remove(&port.network);
            self.failing.remove(&thing);
        }
        self.networks.get(&port.network).map(|space| space.ns.clone()).ok_or_else(|| AgentFault {
            message: "A server cannot be attached to this network on this host.".into(),
            detail: format!("network {} has no namespace of its own", port.network),
            retried: false,
        })
    }

    fn open_tap(&mut self, port: &PortSpec) -> Result<OwnedFd, AgentFault> {
        let ns = self.ready_network(port)?;
        let mtu = self.world.networks.get(&port.network).map(|n| u32::from(n.mtu));
        taps::open(&self.names, &ns, &port.id, mtu).map_err(|error| fault(&error))
    }

    fn open_veth(&mut self, port: &PortSpec, guest: &Netns, inner: &str) -> Result<(), AgentFault> {
        let ns = self.ready_network(port)?;
        let mtu = self.world.networks.get(&port.network).map(|n| u32::from(n.mtu));
        let peer = link::VethPeer { name: inner.into(), mac: netlink::mac(&port.mac), mtu, namespace: guest.clone() };
        let kind = link::NewKind::Veth { peer: Box::new(peer) };
        let new = netlink::NewLink { name: names::tap(&port.id), mac: None, mtu, kind };
        match link::create(&ns, &new) {
            Err(error) if error.exists() => Ok(()),
            other => other,
        }
        .and_then(|()| self.dress(&ns, port))
        .map_err(|error| fault(&error))
    }

    fn dress(&self, ns: &Netns, port: &PortSpec) -> netlink::Result<()> {
        let mtu = self.world.networks.get(&port.network).map(|n| u32::from(n.mtu));
        taps::dress(&self.names, ns, &port.id, mtu)
    }

    fn wire(&mut self, port: &PortSpec) -> Result<(), AgentFault> {
        let result = self.ready_network(port).and_then(|_| self.settle_port(port).map_err(|error| fault(&error)));
        let fault = result.as_ref().err().map(|fault| fault.message.clone());
        self.seen.port(PortObserved { id: port.id.clone(), up: result.is_ok() && port.admin_state_up, fault });
        result
    }

    fn unwire(&mut self, port: &PortId) {
        let name = names::tap(port);
        let network = self.world.ports.get(port).map(|spec| spec.network.clone());
        let spaces = self.networks.iter().filter(|(id, _)| network.as_ref().is_none_or(|n| n == *id));
        for (id, space) in spaces {
            if link::list(&space.ns).is_ok_and(|links| links.get(&name).is_some_and(is_guest_link)) {
                if let Err(error) = link::delete(&space.ns, &name) {
                    tracing::warn!(%error, %port, "a guest's link is left for the next pass");
                }
                if !self.world.networks.contains_key(id) {
                    self.dirty.sweep = true;
                }
            }
        }
        if self.world.ports.contains_key(port) {
            self.seen.port(PortObserved { id: port.clone(), up: false, fault: None });
        }
    }

    /// Loads all rules whole and looks at every link.
    fn repair(&mut self) {
        self.underlay.tables = None;
        self.dirty.underlay = true;
        for space in self.networks.values_mut().chain(self.routers.values_mut()) {
            space.tables = None;
            space.prepared = false;
        }
        self.look_at_all();
        self.settle_due();
    }
}

enum Wait {
    More(Instant),
    Over(Result<PortSpec, AgentFault>),
}

pub fn fault(error: &netlink::Error) -> AgentFault {
    AgentFault {
        message: "The host could not set up the port's network; it tries again.".into(),
        detail: error.to_string(),
        retried: true,
    }
}
