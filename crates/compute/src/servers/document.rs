//! A server as it lies in the store: what it shall be, what was seen of it, and its secrets apart.

use agent_api::RootDisk;
use base::{FlavorId, HostName, ImageId, ProjectId, ServerId, Timestamp, UserId};
use model::server::{Facts, Observed, Power, State, Verb, state};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use store::{Document, Keys, Query, Reader, Secret};

/// The flavor at the time of creation. A server keeps its size when the flavor goes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ServerFlavor {
    pub id: FlavorId,
    pub name: String,
    pub vcpus: u32,
    pub ram_mib: u64,
    pub disk_gib: u64,
    pub ephemeral_gib: u64,
    pub swap_mib: u64,
    pub extra_specs: BTreeMap<String, String>,
    /// The server boots from a volume: what the flavor says of a root disk is not taken of its host.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub root_on_volume: bool,
}

/// Why a server is in ERROR.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ServerFault {
    pub code: u16,
    pub message: String,
    /// For administrators only.
    pub details: String,
    pub created: Timestamp,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Lock {
    /// True: an administrator did it, and the owner cannot undo it.
    pub by_admin: bool,
    pub reason: Option<String>,
}

/// The desired state. `generation` rises with every change that the host must see.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Server {
    pub id: ServerId,
    pub project_id: ProjectId,
    pub user_id: UserId,
    pub name: String,
    pub description: Option<String>,
    pub hostname: String,
    pub generation: u64,
    pub power: Power,
    pub verb: Verb,
    pub verb_generation: u64,
    pub soft_reboots: u64,
    pub hard_reboots: u64,
    pub host: Option<HostName>,
    /// What the user asked of the scheduler.
    pub wanted_zone: Option<String>,
    pub wanted_host: Option<HostName>,
    pub flavor: ServerFlavor,
    /// Empty where it boots from a volume.
    pub image: ImageId,
    /// None when it boots from a volume, and when the image could not be used: then it is in ERROR from the start.
    pub root: Option<RootDisk>,
    pub key_name: Option<String>,
    pub public_key: Option<String>,
    pub metadata: BTreeMap<String, String>,
    pub tags: Vec<String>,
    pub config_drive: bool,
    pub lock: Option<Lock>,
    pub reservation_id: String,
    pub launch_index: u32,
    pub ec2_number: u32,
    pub disk_config: String,
    pub access_ip_v4: Option<String>,
    pub access_ip_v6: Option<String>,
    pub fault: Option<ServerFault>,
    /// Scheduling has ended without a host, or could never begin.
    pub unschedulable: bool,
    pub forced_error: bool,
    /// Why it stopped although nobody asked.
    pub stop_reason: Option<String>,
    /// Since when it has been on its way; none while it rests. See [`super::pending`].
    #[serde(default)]
    pub passing_since: Option<Timestamp>,
    /// The generation of the verb whose deadline has passed; 0: none.
    #[serde(default)]
    pub overdue: u64,
    /// Hosts that gave up before it ever ran.
    #[serde(default)]
    pub avoid: Vec<HostName>,
    /// Set while it is SOFT_DELETED.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub soft_deleted: Option<SoftDeleted>,
    /// Set while a job makes an image of its disk.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub imaging: Option<Imaging>,
}

/// An image of the server that is on its way.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Imaging {
    pub image: ImageId,
    /// The copy is made, and its bytes travel.
    pub uploading: bool,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SoftDeleted {
    pub at: Timestamp,
    /// It ran, and shall do so again when it is restored.
    pub running: bool,
}

impl Document for Server {
    const KIND: &'static str = "server";
    const MADE: store::Made = store::Made::Removed(0);
    fn id(&self) -> &str {
        &self.id
    }
    fn project_id(&self) -> &str {
        &self.project_id
    }
    fn keys(&self, keys: &mut Keys) {
        if let Some(host) = &self.host {
            keys.index("host", host.as_str());
        }
        if self.needs_placing() {
            keys.index("todo", "place");
        }
        if self.power == Power::Absent {
            keys.index("todo", "remove");
        }
        if self.passing_since.is_some() && !self.is_overdue() {
            keys.index("todo", "passing");
        }
        if self.soft_deleted.is_some() {
            keys.index("todo", "reclaim");
        }
    }
    fn needs(&self, needs: &mut store::Needs) {
        if let Some(host) = &self.host {
            needs.on::<crate::hosts::Host>(host);
        }
    }
    fn restored(&mut self, now: Timestamp, replaced: Option<&Self>) {
        match replaced {
            // Its host has seen one generation more: that of the guest in the trash.
            None => {
                self.generation += 1;
                // Its job has ended with it.
                self.imaging = None;
                self.ask_for_power(now);
            }
            Some(current) => {
                self.imaging = current.imaging.clone();
                (self.generation, self.verb) = (current.generation, current.verb);
                (self.verb_generation, self.stop_reason) = (current.verb_generation, current.stop_reason.clone());
                (self.soft_reboots, self.hard_reboots) = (current.soft_reboots, current.hard_reboots);
                (self.passing_since, self.overdue) = (current.passing_since, current.overdue);
                match self.power == current.power {
                    true => self.touch(),
                    false => self.ask_for_power(now),
                }
            }
        }
    }
    fn undone(_tx: &mut store::Tx, before: Option<&Self>, _after: Option<&Self>) -> base::Result<()> {
        if let Some(server) = before.filter(|server| server.power == Power::Absent) {
            return Err(base::Fault::conflict(format!("Instance {} is being deleted at once.", server.id)));
        }
        Ok(())
    }
}

impl Server {
    pub fn needs_placing(&self) -> bool {
        self.host.is_none() && !self.unschedulable && self.power != Power::Absent
    }

    /// Nova's name for it on the host.
    pub fn instance_name(&self) -> String {
        format!("instance-{:08x}", self.ec2_number)
    }

    /// The deadline of its newest verb has passed.
    pub fn is_overdue(&self) -> bool {
        self.overdue != 0 && self.overdue == self.verb_generation
    }

    /// A new generation, because of `verb`.
    pub fn ask(&mut self, verb: Verb, now: Timestamp) {
        self.passing_since = Some(now);
        self.generation += 1;
        self.verb = verb;
        self.verb_generation = self.generation;
        self.stop_reason = None;
        match verb {
            Verb::Start | Verb::Unpause | Verb::Resume | Verb::Create => self.power = Power::Running,
            Verb::Stop | Verb::PowerSync => self.power = Power::Stopped,
            Verb::Pause => self.power = Power::Paused,
            Verb::Suspend => self.power = Power::Suspended,
            Verb::Delete => self.power = Power::Absent,
            Verb::SoftReboot => self.soft_reboots += 1,
            Verb::HardReboot => {
                self.power = Power::Running;
                self.hard_reboots += 1;
                self.forced_error = false;
            }
        }
    }

    /// A new generation, by whatever verb leads to the power that is desired already.
    fn ask_for_power(&mut self, now: Timestamp) {
        let verb = match self.power {
            Power::Running => Verb::Start,
            Power::Stopped => Verb::Stop,
            Power::Paused => Verb::Pause,
            Power::Suspended => Verb::Suspend,
            Power::Absent => Verb::Delete,
        };
        self.ask(verb, now);
    }

    /// A new generation for what the guest merely reads, such as its metadata.
    pub fn touch(&mut self) {
        self.generation += 1;
    }
}

/// What a host said last. Written only when it changes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ServerObserved {
    pub id: ServerId,
    pub project_id: ProjectId,
    pub generation: u64,
    /// None: on its way.
    pub power: Option<Power>,
    pub rest: Power,
    pub soft_reboots: u64,
    pub hard_reboots: u64,
    pub fault: Option<ServerFault>,
    /// How often the host has tried in vain, as of the last doubling.
    #[serde(default)]
    pub attempts: u32,
    /// The host has given up until the generation rises.
    pub gave_up: bool,
    pub started_at: Option<Timestamp>,
    /// When it was ACTIVE for the first time.
    pub launched_at: Option<Timestamp>,
    /// Its root disk stands on no image any more; or why it still does, although that was asked for.
    #[serde(default)]
    pub flat: bool,
    #[serde(default)]
    pub flat_problem: Option<String>,
}

impl Document for ServerObserved {
    const KIND: &'static str = "server_observed";
    fn id(&self) -> &str {
        &self.id
    }
    fn project_id(&self) -> &str {
        &self.project_id
    }
    fn keys(&self, keys: &mut Keys) {
        if self.waits_for_ports() {
            keys.index("todo", "launch");
        }
    }
    /// Its guest was stopped meanwhile, and its host will say what it is.
    fn restored(&mut self, _now: Timestamp, replaced: Option<&Self>) {
        if replaced.is_none() {
            (self.generation, self.power, self.rest, self.gave_up) = (0, None, Power::Stopped, false);
        }
    }
}

impl ServerObserved {
    /// It runs, and has not been ACTIVE yet.
    pub fn waits_for_ports(&self) -> bool {
        self.launched_at.is_none() && self.power == Some(Power::Running) && !self.gave_up
    }

    pub fn nothing(server: &Server) -> ServerObserved {
        ServerObserved {
            id: server.id.clone(),
            project_id: server.project_id.clone(),
            generation: 0,
            power: None,
            rest: Power::Stopped,
            soft_reboots: 0,
            hard_reboots: 0,
            fault: None,
            attempts: 0,
            gave_up: false,
            started_at: None,
            launched_at: None,
            flat: false,
            flat_problem: None,
        }
    }
}

/// What must not stand in history: apart from the server, so that lists and the watch carry none of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ServerSecret {
    pub id: ServerId,
    pub project_id: ProjectId,
    /// Base64, as the user gave it.
    pub user_data: Option<Secret>,
    pub admin_pass: Option<Secret>,
}

impl ServerSecret {
    /// User data and password of a server, in the clear.
    pub fn of(reader: &mut Reader, server: &ServerId) -> Result<(Option<String>, Option<String>), store::Error> {
        let Some(known) = reader.get::<ServerSecret>(server)?.map(|stored| stored.doc) else { return Ok((None, None)) };
        let secrets = reader.secrets();
        let open = |field, secret: &Option<Secret>| {
            secret.as_ref().map(|secret| secrets.open(&known, field, secret)).transpose()
        };
        Ok((open("user_data", &known.user_data)?, open("admin_pass", &known.admin_pass)?))
    }
}

impl Document for ServerSecret {
    const KIND: &'static str = "server_secret";
    const SEALED: bool = true;
    fn id(&self) -> &str {
        &self.id
    }
    fn project_id(&self) -> &str {
        &self.project_id
    }
    fn secrets(&mut self, each: &mut dyn FnMut(&'static str, &mut Secret)) {
        self.user_data.iter_mut().for_each(|secret| each("user_data", secret));
        self.admin_pass.iter_mut().for_each(|secret| each("admin_pass", secret));
    }
    fn redact(body: &mut serde_json::Value) {
        body["user_data"] = serde_json::Value::Null;
        body["admin_pass"] = serde_json::Value::Null;
    }
}

/// What remains of a server for those who ask what was deleted; forgotten after a day.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DeletedServer {
    pub server: Server,
    pub observed: Option<ServerObserved>,
    pub created: Timestamp,
    pub deleted: Timestamp,
}

impl Document for DeletedServer {
    const KIND: &'static str = "deleted_server";
    fn id(&self) -> &str {
        &self.server.id
    }
    fn project_id(&self) -> &str {
        &self.server.project_id
    }
}

/// A deleted server's guest while the server rests in the trash: stopped, without ports, its disk in its place. It
/// goes when the trash is purged, and an undo takes it away in favour of the server.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TrashedGuest {
    /// As it shall be on its host: one generation beyond that of the deleted server.
    pub server: Server,
    pub deleted: Timestamp,
}

impl Document for TrashedGuest {
    const KIND: &'static str = "trashed_guest";
    const TRASH: bool = false;
    fn id(&self) -> &str {
        &self.server.id
    }
    fn project_id(&self) -> &str {
        &self.server.project_id
    }
    fn keys(&self, keys: &mut Keys) {
        if let Some(host) = &self.server.host {
            keys.index("host", host.as_str());
        }
    }
}

/// A guest that must go from a host: its server is another host's now, or nobody's, be it that the trash was emptied.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Tombstone {
    /// `SERVER/HOST`: a server may have left several hosts.
    key: String,
    pub id: ServerId,
    pub host: HostName,
    pub generation: u64,
    /// What its disk has reserved there until it is gone.
    #[serde(default)]
    pub disk_gib: u64,
}

impl Document for Tombstone {
    const KIND: &'static str = "guest_tombstone";
    const SCHEMA: u32 = 2;
    const INDEX_VERSION: u32 = 2;
    const TRASH: bool = false;
    const UNDO: bool = false;
    fn id(&self) -> &str {
        &self.key
    }
    fn keys(&self, keys: &mut Keys) {
        keys.index("host", self.host.as_str());
        keys.index("guest", self.id.as_str());
    }
    /// The first ones were named after the server alone.
    fn lift(_: u32, mut body: serde_json::Value) -> Result<serde_json::Value, store::Error> {
        body["key"] = body["id"].clone();
        Ok(body)
    }
}

impl Tombstone {
    pub fn new(id: ServerId, host: HostName, generation: u64) -> Tombstone {
        Tombstone { key: format!("{id}/{host}"), id, host, generation, disk_gib: 0 }
    }

    /// The server and the host of a tombstone that is gone, from its key.
    pub fn parse(key: &str) -> Option<(&str, HostName)> {
        key.split_once('/').map(|(id, host)| (id, HostName::new(host)))
    }

    pub fn of(reader: &mut Reader, server: &str, host: &HostName) -> Result<Option<Tombstone>, store::Error> {
        let known = reader.list::<Tombstone>(Query::index("guest", server))?;
        Ok(known.into_iter().map(|stored| stored.doc).find(|tombstone| tombstone.host == *host))
    }
}

pub fn facts(server: &Server, observed: Option<&ServerObserved>) -> Facts {
    Facts {
        desired: server.power,
        verb: server.verb,
        verb_generation: server.verb_generation,
        soft_reboots: server.soft_reboots,
        hard_reboots: server.hard_reboots,
        scheduled: server.host.is_some(),
        unschedulable: server.unschedulable,
        forced_error: server.forced_error,
        overdue: server.is_overdue(),
        soft_deleted: server.soft_deleted.is_some(),
        launched: observed.is_some_and(|seen| seen.launched_at.is_some()),
        ports_up: false,
        observed: observed.map(|seen| Observed {
            generation: seen.generation,
            power: seen.power,
            rest: seen.rest,
            soft_reboots: seen.soft_reboots,
            hard_reboots: seen.hard_reboots,
            gave_up: seen.gave_up,
        }),
    }
}

pub fn state_of(server: &Server, observed: Option<&ServerObserved>) -> State {
    let rest = rest_of(server, observed);
    // A guest goes on while its disk is copied: only what is at rest shows the copying.
    let imaging = server.imaging.as_ref().filter(|_| rest.task_state.is_none() && !rest.shows_fault);
    let task = imaging.map(|imaging| if imaging.uploading { "image_uploading" } else { "image_snapshot" });
    State { task_state: rest.task_state.or(task), ..rest }
}

/// The same without what jobs do beside.
pub fn rest_of(server: &Server, observed: Option<&ServerObserved>) -> State {
    state(&facts(server, observed))
}

/// The fault to show: the host's own if it is newer than what the scheduler said.
pub fn fault_of<'a>(server: &'a Server, observed: Option<&'a ServerObserved>) -> Option<&'a ServerFault> {
    let from_host = observed.filter(|seen| seen.gave_up && seen.generation >= server.verb_generation);
    from_host.and_then(|seen| seen.fault.as_ref()).or(server.fault.as_ref())
}
