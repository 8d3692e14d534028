//! A host that exists only in memory: the same [`HostAgent`] as the real one, with guests that boot at once.
//!
//! Part of the product (`nubo up --simulated-hosts N`) and the ground of the simulator. It keeps the promises of a real
//! agent: a ledger per guest that refuses lower generations, reboots counted once, an answer for every spec, reports
//! only of transitions. It must never touch the machine, never read a clock or entropy but those of [`Env`], and never
//! decide anything by the order of a hash map: one seed, one history.
//!
//! ```text
//!   no entry --spec--> Building --delay--> Running <-> Paused
//!                         |                  |  ^ \--> Suspended
//!                         +--fault--> Stopped <-+          any --spec Absent--> Absent --removed from view--> no entry
//! ```

mod disk;
mod guest;
mod state;
mod volume;

pub use state::{Machine, Trouble};

use agent_api::{BoxStream, DiskFormat, HostAgent, HostInventory, Report, ViewDelta, VolumePool};
use async_trait::async_trait;
use base::{Env, HostName, ServerId, VolumeId};
use state::State;
use std::sync::{Mutex, MutexGuard};
use tokio::io::AsyncWriteExt;
use tokio::sync::Notify;

/// Sends a disk after a while.
fn sent((length, bytes): disk::Bytes, delay_ms: u64) -> BoxStream {
    let (mut ours, theirs) = tokio::io::duplex(64 << 10);
    tokio::spawn(async move {
        tokio::time::sleep(std::time::Duration::from_millis(delay_ms)).await;
        // Control going away is no trouble of this host.
        agent_api::send_disk(&mut ours, Ok((length, bytes))).await.ok();
    });
    Box::pin(theirs)
}

/// What a simulated host is.
#[derive(Clone, Debug)]
pub struct Options {
    pub name: HostName,
    pub vcpus: u32,
    pub memory_mib: u64,
    pub disk_gib: u64,
    /// How long a power change takes on the clock of [`Env`]; 0: done when the spec arrives.
    pub delay_ms: u64,
}

impl Options {
    /// A host large enough for tests: 64 processors, 256 GiB of memory, 10 TiB of disk.
    pub fn new(name: impl Into<HostName>) -> Options {
        Options { name: name.into(), vcpus: 64, memory_mib: 256 << 10, disk_gib: 10 << 10, delay_ms: 0 }
    }
}

/// A simulated host. Shared by reference; all methods may be called at any time.
pub struct SimHost {
    options: Options,
    env: Env,
    state: Mutex<State>,
    changed: Notify,
}

impl SimHost {
    pub fn new(env: Env, options: Options) -> SimHost {
        let machine = Machine::new(&env);
        SimHost::start(env, options, machine)
    }

    /// An agent that starts on a machine where another has been: with [`SimHost::machine`], how a simulator ends one
    /// agent and begins the next. Nothing but the machine goes from the one to the other.
    pub fn start(env: Env, options: Options, machine: Machine) -> SimHost {
        let state = State::new(&env, options.delay_ms, machine);
        SimHost { options, env, state: Mutex::new(state), changed: Notify::new() }
    }

    /// What would stay if the agent were killed now.
    pub fn machine(&self) -> Machine {
        self.state().machine()
    }

    /// Another one of the same state: for who measures what a simulated host holds.
    pub fn twin(&self) -> SimHost {
        let (options, env, state) = (self.options.clone(), self.env.clone(), self.state().clone());
        SimHost { options, env, state: Mutex::new(state), changed: Notify::new() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn change<T>(&self, change: impl FnOnce(&mut State, &Env) -> T) -> T {
        let mut state = self.state();
        let answer = change(&mut state, &self.env);
        state.step(self.env.now());
        drop(state);
        self.changed.notify_waiters();
        self.changed.notify_one();
        answer
    }

    /// Lets what is due happen. Whoever moves a manual clock calls this; with `delay_ms` 0 nobody needs to.
    pub fn tick(&self) {
        self.change(|_, _| ());
    }

    /// The next `count` starts of guests fail as `trouble` says.
    pub fn fail_starts(&self, count: u32, trouble: Trouble) {
        self.change(|state, _| state.fail_starts(count, trouble));
    }

    /// Changes how long power changes take from now on.
    pub fn set_delay_ms(&self, delay_ms: u64) {
        self.change(|state, _| state.delay_ms = delay_ms);
    }

    /// The guest's process ends without having been asked to: `guest`, `killed: signal 9`. False if it did not run.
    pub fn crash_guest(&self, id: &ServerId, reason: &str) -> bool {
        self.change(|state, env| state.crash(id, reason, env.now()))
    }

    /// The guest vanishes with its ledger entry, as if a person had removed it from the host.
    pub fn lose_guest(&self, id: &ServerId) -> bool {
        self.change(|state, _| state.lose(id))
    }

    /// The agent ends and starts again: a new session, guests untouched.
    pub fn restart_agent(&self) {
        self.change(|state, env| state.session = env.uuid());
    }

    /// The machine reboots: a new boot id and session; guests that ran are started again from the ledger.
    pub fn reboot(&self) {
        self.change(|state, env| state.reboot(env));
    }

    /// The guests of the ledger, by id: what a test compares with the store.
    pub fn guests(&self) -> Vec<agent_api::GuestObserved> {
        self.state().all_guests()
    }

    /// The volumes of the ledger, by id.
    pub fn volumes(&self) -> Vec<agent_api::VolumeObserved> {
        self.state().all_volumes()
    }

    /// The objects that the view asks for, volumes that are there among them: networks, ports, routers, groups and sets, by kind and id.
    pub fn objects(&self) -> Vec<(agent_api::ViewKind, String)> {
        self.state().objects()
    }

    /// What is to be reported now, if anything: [`HostAgent::observe`] without waiting.
    pub fn observe_now(&self, whole: bool) -> Report {
        let mut state = self.state();
        state.step(self.env.now());
        state.report(&self.options.name, whole)
    }

    /// [`HostAgent::apply`] without a runtime.
    pub fn apply_now(&self, delta: ViewDelta) {
        self.change(|state, env| state.apply(delta, env.now()));
    }
}

#[async_trait]
impl HostAgent for SimHost {
    fn inventory(&self) -> HostInventory {
        let state = self.state();
        HostInventory {
            name: self.options.name.clone(),
            session: state.session.clone(),
            boot_id: state.boot_id().to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            arch: "x86_64".to_owned(),
            vcpus: self.options.vcpus,
            memory_mib: self.options.memory_mib,
            disk_gib: self.options.disk_gib,
            hypervisor_type: "simulated".to_owned(),
            hypervisor_version: 1_000_000,
            accel: "simulated".to_owned(),
            cpu_model: "simulated".to_owned(),
            address: "127.0.0.1".to_owned(),
            volume_pool: Some(VolumePool {
                total_gib: self.options.disk_gib,
                free_gib: self.options.disk_gib,
                backend: "file".to_owned(),
            }),
            warnings: Vec::new(),
        }
    }

    async fn apply(&self, delta: ViewDelta) -> Result<(), String> {
        self.apply_now(delta);
        Ok(())
    }

    async fn observe(&self, whole: bool) -> Report {
        loop {
            let waiting = self.changed.notified();
            let report = self.observe_now(whole);
            if !report.is_empty() {
                return report;
            }
            waiting.await;
        }
    }

    async fn console_log(&self, server: &ServerId, bytes: u64) -> Result<Vec<u8>, String> {
        let state = self.state();
        let log = state.console_log(server).ok_or_else(|| format!("Server {server} is not on this host."))?.as_bytes();
        let from = log.len().saturating_sub(usize::try_from(bytes).unwrap_or(usize::MAX));
        Ok(log[from..].to_vec())
    }

    async fn console(&self, server: &ServerId, serial: bool) -> Result<BoxStream, String> {
        if !self.state().runs(server) {
            return Err(format!("Server {server} is not running on this host."));
        }
        let (ours, theirs) = tokio::io::duplex(4096);
        let greeting =
            if serial { format!("simulated serial console of {server}\r\n") } else { "RFB 003.008\n".into() };
        tokio::spawn(async move {
            let (mut read, mut write) = tokio::io::split(ours);
            if write.write_all(greeting.as_bytes()).await.is_ok() {
                // The other side going away is the usual end of a console.
                tokio::io::copy(&mut read, &mut write).await.ok();
            }
        });
        Ok(Box::pin(theirs))
    }

    async fn disk(&self, server: &ServerId) -> Result<BoxStream, String> {
        let (size_gib, delay_ms) = {
            let state = self.state();
            let size = state.disk_gib(server).ok_or_else(|| format!("Server {server} is not on this host."))?;
            (size, state.delay_ms)
        };
        Ok(sent(disk::qcow2(size_gib, server.as_str()), delay_ms))
    }

    async fn volume(&self, volume: &VolumeId, format: DiskFormat) -> Result<BoxStream, String> {
        let (size_gib, delay_ms) = {
            let state = self.state();
            let size = state.volume_gib(volume).ok_or_else(|| format!("The host has no volume {volume}."))?;
            (size, state.delay_ms)
        };
        let image = match format {
            DiskFormat::Qcow2 => disk::qcow2(size_gib, volume.as_str()),
            DiskFormat::Raw => disk::raw(volume.as_str()),
        };
        Ok(sent(image, delay_ms))
    }
}
