//! One guest of the ledger.

use agent_api::{
    AgentFault, AttachmentState, DesiredPower, GuestObserved, GuestSpec, GuestVolume, GuestVolumeObserved, ObservedPower,
    OnCrash,
};
use base::Timestamp;

/// The most bytes of console text kept for a guest.
const LOG_BYTES: usize = 64 << 10;

/// A guest as it outlives its agent: the ledger's entry with the newest spec accepted, its disk, and its process.
#[derive(Clone, Debug)]
pub struct Guest {
    pub spec: GuestSpec,
    pub power: ObservedPower,
    /// The generation that `power` has reached.
    pub reached: u64,
    /// The root disk stands on no image any more.
    pub flat: bool,
    pub soft_reboots: u64,
    pub hard_reboots: u64,
    /// In which generation, and why.
    pub stopped_by_itself: Option<(u64, String)>,
    pub fault: Option<AgentFault>,
    /// Fruitless attempts in a row.
    pub failures: u32,
    pub started_at: Option<Timestamp>,
    /// Its process went with the machine, and the ledger says that it shall run.
    pub interrupted: bool,
    pub log: String,
    /// The volumes that are in it.
    plugged: Vec<GuestVolume>,
}

impl Guest {
    /// A guest that the host has never seen: reboots asked for before now concern nobody.
    pub fn new(spec: GuestSpec) -> Guest {
        Guest {
            power: ObservedPower::Stopped,
            reached: 0,
            flat: false,
            soft_reboots: spec.soft_reboots,
            hard_reboots: spec.hard_reboots,
            stopped_by_itself: None,
            fault: None,
            failures: 0,
            started_at: None,
            interrupted: false,
            log: String::new(),
            plugged: Vec::new(),
            spec,
        }
    }

    pub fn observed(&self) -> GuestObserved {
        GuestObserved {
            id: self.spec.id.clone(),
            generation: self.reached,
            power: self.power,
            soft_reboots: self.soft_reboots,
            hard_reboots: self.hard_reboots,
            stopped_by_itself: self.stopped_by_itself.as_ref().map(|(_, reason)| reason.clone()),
            fault: self.fault.clone(),
            attempts: self.failures.checked_ilog2().map_or(0, |n| 1 << n),
            volumes: self.volumes(),
            started_at: self.started_at,
            flat: self.flat,
            flat_problem: None,
        }
    }

    fn volumes(&self) -> Vec<GuestVolumeObserved> {
        let said = |volume: &GuestVolume, state| GuestVolumeObserved {
            volume: volume.volume.clone(),
            attachment: volume.attachment.clone(),
            state,
            fault: None,
        };
        let in_it = |list: &[GuestVolume], volume: &GuestVolume| list.iter().any(|it| it.attachment == volume.attachment);
        let mut seen: Vec<GuestVolumeObserved> = Vec::new();
        for volume in &self.spec.volumes {
            let there = in_it(&self.plugged, volume);
            seen.push(said(volume, if there { AttachmentState::Attached } else { AttachmentState::Attaching }));
        }
        for volume in self.plugged.iter().filter(|volume| !in_it(&self.spec.volumes, volume)) {
            seen.push(said(volume, AttachmentState::Detaching));
        }
        seen
    }

    /// True while the guest is not what its spec says and somebody is expected to change that.
    pub fn has_work(&self) -> bool {
        let gave_up = self.fault.as_ref().is_some_and(|fault| !fault.retried);
        !gave_up && (self.reached < self.spec.generation || self.interrupted)
    }

    pub fn is_wired(&self) -> bool {
        matches!(self.power, ObservedPower::Running | ObservedPower::Paused)
    }

    pub fn reboots_wanted(&self) -> bool {
        self.spec.soft_reboots > self.soft_reboots || self.spec.hard_reboots > self.hard_reboots
    }

    /// True where reaching the spec means starting a process.
    pub fn needs_start(&self) -> bool {
        let wanted = matches!(self.spec.power, DesiredPower::Running | DesiredPower::Paused);
        let process = matches!(self.power, ObservedPower::Running | ObservedPower::Paused);
        wanted && !self.stays_stopped() && (!process || self.spec.hard_reboots > self.hard_reboots)
    }

    /// It stopped by itself, and nothing has been asked of its power since.
    fn stays_stopped(&self) -> bool {
        self.stopped_by_itself.as_ref().is_some_and(|(generation, _)| self.spec.power_generation <= *generation)
    }

    /// Reaches the spec.
    pub fn reach(&mut self, now: Timestamp) {
        let started = self.needs_start() || self.reboots_wanted();
        let stays_stopped = self.stays_stopped();
        self.power = match self.spec.power {
            DesiredPower::Running | DesiredPower::Paused if stays_stopped => ObservedPower::Stopped,
            DesiredPower::Running => ObservedPower::Running,
            DesiredPower::Stopped => ObservedPower::Stopped,
            DesiredPower::Paused => ObservedPower::Paused,
            DesiredPower::Suspended => ObservedPower::Suspended,
            DesiredPower::Absent => ObservedPower::Absent,
        };
        if self.is_wired() && started {
            self.boot(now);
        }
        self.soft_reboots = self.soft_reboots.max(self.spec.soft_reboots);
        self.hard_reboots = self.hard_reboots.max(self.spec.hard_reboots);
        self.reached = self.spec.generation;
        self.flat |= self.spec.root.as_ref().is_some_and(|root| root.flat);
        self.plugged = self.spec.volumes.clone();
        self.stopped_by_itself.take_if(|_| !stays_stopped);
        self.fault = None;
        self.interrupted = false;
        self.failures = 0;
    }

    pub fn fail(&mut self, fault: AgentFault) {
        if !fault.retried {
            self.reached = self.spec.generation;
        }
        self.power = ObservedPower::Stopped;
        self.interrupted &= fault.retried;
        self.fault = Some(fault);
        self.failures = self.failures.saturating_add(1);
    }

    /// The process ended by itself; a guest whose flavor says so is started again.
    pub fn crash(&mut self, reason: &str, now: Timestamp) {
        self.say(&format!("the guest ended: {reason}"));
        if self.spec.on_crash == OnCrash::Restart {
            self.boot(now);
            return;
        }
        self.power = ObservedPower::Stopped;
        self.stopped_by_itself = Some((self.spec.generation, reason.to_owned()));
        self.started_at = None;
    }

    pub fn boot(&mut self, now: Timestamp) {
        self.started_at = Some(now);
        self.say(&format!("Linux simulated: {} started at {}", self.spec.metadata.name, now.iso_seconds()));
        let (vcpus, memory) = (self.spec.vcpus, self.spec.memory_mib);
        self.say(&format!("smp: {vcpus} processors"));
        self.say(&format!("Memory: {memory} MiB"));
        for nic in self.spec.nics.clone() {
            self.say(&format!("net: {} mtu {}", nic.mac, nic.mtu));
        }
        self.say("Reached target Multi-User System.");
        for (name, _) in self.spec.metadata.public_keys.clone() {
            self.say(&format!("authorized the key {name}"));
        }
        self.say(&format!("{} login:", self.spec.metadata.hostname));
    }

    fn say(&mut self, line: &str) {
        self.log.push_str(line);
        self.log.push('\n');
        if self.log.len() > LOG_BYTES {
            let mut cut = self.log.len() - LOG_BYTES / 2;
            while !self.log.is_char_boundary(cut) {
                cut += 1;
            }
            self.log.drain(..cut);
        }
    }
}
