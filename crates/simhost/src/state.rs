//! The host as a value: pure steps, ordered maps, no waiting.

use crate::guest::Guest;
use crate::volume::Volume;
use agent_api::{
    AgentFault, GuestObserved, GuestSpec, ObservedPower, PortObserved, Report, RouterObserved, ViewDelta, ViewKind,
    ViewObject, VolumeObserved, VolumeSpec, VolumeState,
};
use base::{Env, HostName, PortId, RouterId, ServerId, Timestamp, VolumeId};
use std::collections::{BTreeMap, BTreeSet};

/// How a start fails.
#[derive(Clone, Debug)]
pub struct Trouble {
    pub message: String,
    /// True: the next [`crate::SimHost::tick`] tries again. False: given up until the generation rises.
    pub retried: bool,
}

/// What a machine keeps while no agent runs on it: on its disk the ledger and the guests' disks, in its kernel their
/// processes. Everything else of a host is the agent's memory and goes with it.
#[derive(Clone, Debug)]
pub struct Machine {
    boot_id: String,
    guests: BTreeMap<ServerId, Guest>,
    volumes: BTreeMap<VolumeId, Volume>,
}

impl Machine {
    pub fn new(env: &Env) -> Machine {
        Machine { boot_id: env.uuid(), guests: BTreeMap::new(), volumes: BTreeMap::new() }
    }

    /// The power goes and comes back: the processes are gone, the disks stay, and the kernel is another.
    pub fn power_cut(&mut self, env: &Env) {
        self.boot_id = env.uuid();
        for guest in self.guests.values_mut().filter(|guest| guest.is_wired()) {
            guest.power = ObservedPower::Stopped;
            guest.started_at = None;
            guest.interrupted = true;
        }
    }

    /// The guests, by id: what runs and what lies on the disk.
    pub fn guests(&self) -> Vec<GuestObserved> {
        self.guests.values().map(Guest::observed).collect()
    }

    /// The volumes, by id.
    pub fn volumes(&self) -> Vec<VolumeObserved> {
        let there = |id: &VolumeId| self.volumes.get(id).is_some_and(|volume| !volume.is_gone());
        self.volumes.values().map(|volume| volume.observed(there)).collect()
    }
}

#[derive(Clone)]
pub struct State {
    pub session: String,
    pub delay_ms: u64,
    reports: u64,
    machine: Machine,
    /// When the changes under way are done.
    due: BTreeMap<ServerId, Timestamp>,
    volumes_due: BTreeMap<VolumeId, Timestamp>,
    /// The view without its guests.
    view: BTreeMap<(ViewKind, String), ViewObject>,
    failing_starts: u32,
    trouble: Option<Trouble>,
    reported_guests: BTreeMap<ServerId, GuestObserved>,
    reported_volumes: BTreeMap<VolumeId, VolumeObserved>,
    reported_ports: BTreeMap<PortId, PortObserved>,
    reported_routers: BTreeMap<RouterId, RouterObserved>,
}

impl State {
    /// An agent starts on the machine: what was under way is begun again, and what ran before a power cut is started.
    pub fn new(env: &Env, delay_ms: u64, machine: Machine) -> State {
        let mut state = State {
            session: env.uuid(),
            delay_ms,
            reports: 0,
            machine,
            due: BTreeMap::new(),
            volumes_due: BTreeMap::new(),
            view: BTreeMap::new(),
            failing_starts: 0,
            trouble: None,
            reported_guests: BTreeMap::new(),
            reported_volumes: BTreeMap::new(),
            reported_ports: BTreeMap::new(),
            reported_routers: BTreeMap::new(),
        };
        let due = env.now().plus_ms(i64::try_from(delay_ms).unwrap_or(i64::MAX));
        for (id, _) in state.machine.volumes.iter().filter(|(_, volume)| volume.has_work()) {
            state.volumes_due.insert(id.clone(), due);
        }
        for guest in state.machine.guests.values_mut().filter(|guest| guest.has_work()) {
            state.due.insert(guest.spec.id.clone(), env.now().plus_ms(i64::try_from(delay_ms).unwrap_or(i64::MAX)));
            if guest.needs_start() && guest.power == ObservedPower::Stopped && delay_ms > 0 {
                guest.power = ObservedPower::Building;
            }
        }
        state
    }

    pub fn machine(&self) -> Machine {
        let mut machine = self.machine.clone();
        for guest in machine.guests.values_mut().filter(|guest| guest.power == ObservedPower::Building) {
            guest.power = ObservedPower::Stopped;
        }
        machine
    }

    /// The size of a guest's disk; none: there is no such guest.
    pub fn disk_gib(&self, id: &ServerId) -> Option<u64> {
        let guest = self.machine.guests.get(id).filter(|guest| guest.power != ObservedPower::Absent)?;
        Some(guest.spec.root.as_ref().map_or(0, |root| root.size_gib))
    }

    /// The size of a volume that is there.
    pub fn volume_gib(&self, id: &VolumeId) -> Option<u64> {
        self.machine.volumes.get(id).and_then(Volume::size_gib)
    }

    pub fn boot_id(&self) -> &str {
        &self.machine.boot_id
    }

    pub fn fail_starts(&mut self, count: u32, trouble: Trouble) {
        self.failing_starts = count;
        self.trouble = Some(trouble);
    }

    pub fn apply(&mut self, delta: ViewDelta, now: Timestamp) {
        if delta.whole {
            self.view.clear();
        }
        for object in delta.put {
            match object {
                ViewObject::Guest(spec) => self.put_guest(spec, now),
                ViewObject::Volume(spec) => self.put_volume(spec, now),
                other => {
                    let (kind, id) = other.key();
                    self.view.insert((kind, id.to_owned()), other);
                }
            }
        }
        for (kind, id) in delta.remove {
            if kind == ViewKind::Guest {
                self.forget_if_absent(&ServerId::new(id));
            } else if kind == ViewKind::Volume {
                self.forget_volume(&VolumeId::new(id));
            } else {
                self.view.remove(&(kind, id));
            }
        }
    }

    fn put_volume(&mut self, spec: VolumeSpec, now: Timestamp) {
        let id = spec.id.clone();
        let volume = match self.machine.volumes.get_mut(&id) {
            // An older spec comes from a control process that has been overtaken.
            Some(volume) if spec.generation < volume.spec.generation => return,
            Some(volume) => volume,
            None => self.machine.volumes.entry(id.clone()).or_insert_with(|| Volume::new(spec.clone())),
        };
        volume.spec = spec;
        if volume.has_work() && !self.volumes_due.contains_key(&id) {
            self.volumes_due.insert(id, now.plus_ms(i64::try_from(self.delay_ms).unwrap_or(i64::MAX)));
        }
    }

    /// A volume that is missing from a view is left as it is, unless it has already gone.
    fn forget_volume(&mut self, id: &VolumeId) {
        if self.machine.volumes.get(id).is_some_and(Volume::is_gone) {
            self.machine.volumes.remove(id);
            self.volumes_due.remove(id);
            self.reported_volumes.remove(id);
        }
    }

    fn put_guest(&mut self, spec: GuestSpec, now: Timestamp) {
        let id = spec.id.clone();
        let guest = match self.machine.guests.get_mut(&id) {
            // An older spec comes from a control process that has been overtaken.
            Some(guest) if spec.generation < guest.spec.generation => return,
            Some(guest) => guest,
            None => self.machine.guests.entry(id).or_insert_with(|| Guest::new(spec.clone())),
        };
        let risen = spec.generation > guest.spec.generation;
        guest.spec = spec;
        if risen {
            guest.fault = None;
        }
        let id = guest.spec.id.clone();
        if guest.has_work() && (risen || !self.due.contains_key(&id)) {
            self.due.insert(id, now.plus_ms(i64::try_from(self.delay_ms).unwrap_or(i64::MAX)));
            if guest.needs_start() && guest.power == ObservedPower::Stopped && self.delay_ms > 0 {
                guest.power = ObservedPower::Building;
            }
        }
    }

    /// A guest that is missing from a view is left as it is, unless it has already gone.
    fn forget_if_absent(&mut self, id: &ServerId) {
        if self.machine.guests.get(id).is_some_and(|guest| guest.power == ObservedPower::Absent) {
            self.machine.guests.remove(id);
            self.due.remove(id);
            self.reported_guests.remove(id);
        }
    }

    /// Does what is due.
    pub fn step(&mut self, now: Timestamp) {
        self.volumes_due.retain(|id, due| {
            if *due > now {
                return true;
            }
            if let Some(volume) = self.machine.volumes.get_mut(id).filter(|volume| volume.has_work()) {
                volume.reach();
            }
            false
        });
        for guest in self.machine.guests.values_mut() {
            let retries = guest.fault.as_ref().is_some_and(|fault| fault.retried);
            let due = self.due.get(&guest.spec.id).map_or(retries, |due| *due <= now);
            if !guest.has_work() || !due {
                continue;
            }
            self.due.remove(&guest.spec.id);
            let fails = guest.needs_start() && self.failing_starts > 0;
            match self.trouble.as_ref().filter(|_| fails) {
                Some(trouble) => {
                    self.failing_starts -= 1;
                    let detail = format!("simulated: {}", trouble.message);
                    guest.fail(AgentFault { message: trouble.message.clone(), detail, retried: trouble.retried });
                }
                None => guest.reach(now),
            }
        }
    }

    pub fn crash(&mut self, id: &ServerId, reason: &str, now: Timestamp) -> bool {
        let Some(guest) = self.machine.guests.get_mut(id).filter(|guest| guest.is_wired()) else { return false };
        guest.crash(reason, now);
        true
    }

    pub fn lose(&mut self, id: &ServerId) -> bool {
        self.machine.guests.remove(id).is_some()
    }

    pub fn reboot(&mut self, env: &Env) {
        self.session = env.uuid();
        self.machine.boot_id = env.uuid();
        let now = env.now();
        self.machine.guests.values_mut().filter(|guest| guest.is_wired()).for_each(|guest| guest.boot(now));
    }

    pub fn runs(&self, id: &ServerId) -> bool {
        self.machine.guests.get(id).is_some_and(Guest::is_wired)
    }

    pub fn console_log(&self, id: &ServerId) -> Option<&str> {
        self.machine.guests.get(id).map(|guest| guest.log.as_str())
    }

    pub fn all_guests(&self) -> Vec<GuestObserved> {
        self.machine.guests()
    }

    pub fn all_volumes(&self) -> Vec<VolumeObserved> {
        self.machine.volumes()
    }

    pub fn objects(&self) -> Vec<(ViewKind, String)> {
        let volumes = self.machine.volumes.iter().filter(|(_, volume)| !volume.is_gone());
        let volumes = volumes.map(|(id, _)| (ViewKind::Volume, id.to_string()));
        self.view.keys().cloned().chain(volumes).collect()
    }

    fn ports(&self) -> BTreeMap<PortId, PortObserved> {
        let specs = self.view.values().filter_map(|object| match object {
            ViewObject::Port(port) => Some(port),
            _ => None,
        });
        let observed = specs.filter_map(|port| {
            let guest = self.machine.guests.get(port.server.as_ref()?)?;
            let up = guest.is_wired() && port.admin_state_up;
            Some((port.id.clone(), PortObserved { id: port.id.clone(), up, fault: None }))
        });
        observed.collect()
    }

    fn routers(&self) -> BTreeMap<RouterId, RouterObserved> {
        let specs = self.view.values().filter_map(|object| match object {
            ViewObject::Router(router) => Some(router),
            _ => None,
        });
        let observed = specs.map(|router| {
            let floating = router.floating.iter().map(|floating| floating.id.clone()).collect();
            let up = router.admin_state_up;
            (router.id.clone(), RouterObserved { id: router.id.clone(), up, floating, fault: None, attempts: 0 })
        });
        observed.collect()
    }

    /// What differs from the last report; everything where `whole` is set.
    pub fn report(&mut self, host: &HostName, whole: bool) -> Report {
        let guests: BTreeMap<_, _> =
            self.machine.guests.iter().map(|(id, guest)| (id.clone(), guest.observed())).collect();
        let (ports, routers) = (self.ports(), self.routers());
        let volumes: BTreeMap<_, _> = self.all_volumes().into_iter().map(|it| (it.id.clone(), it)).collect();
        // A guest that vanished is absent; the whole report says so by leaving it out.
        let gone: BTreeSet<_> = self.reported_guests.keys().filter(|id| !guests.contains_key(*id)).cloned().collect();
        self.reports += 1;
        let (session, sequence) = (self.session.clone(), self.reports);
        let mut report = Report { host: host.clone(), session, sequence, whole, ..Report::default() };
        report.guests = changed(&guests, &self.reported_guests, whole);
        report.volumes = changed(&volumes, &self.reported_volumes, whole);
        // A whole report says by leaving it out that a volume is gone.
        report.volumes.retain(|volume| !whole || volume.state != VolumeState::Absent);
        self.reported_volumes = volumes;
        report.ports = changed(&ports, &self.reported_ports, whole);
        report.routers = changed(&routers, &self.reported_routers, whole);
        if !whole {
            report.guests.extend(gone.into_iter().map(absent));
        }
        (self.reported_guests, self.reported_ports, self.reported_routers) = (guests, ports, routers);
        report
    }
}

fn absent(id: ServerId) -> GuestObserved {
    GuestObserved {
        id,
        generation: 0,
        power: ObservedPower::Absent,
        soft_reboots: 0,
        hard_reboots: 0,
        stopped_by_itself: None,
        fault: None,
        volumes: Vec::new(),
        attempts: 0,
        started_at: None,
        flat: false,
        flat_problem: None,
    }
}

fn changed<K: Ord, V: PartialEq + Clone>(now: &BTreeMap<K, V>, before: &BTreeMap<K, V>, whole: bool) -> Vec<V> {
    now.iter().filter(|(key, value)| whole || before.get(key) != Some(value)).map(|(_, value)| value.clone()).collect()
}
