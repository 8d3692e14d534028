//! One actor per guest: one task, one inbox, and the only hand on the guest's process and files.
//!
//! ```text
//!                      Start            Wire, Continue
//!   (nothing) ──► disks, process ──► prelaunch ──► RUNNING ◄──────────────┐
//!       ▲               ▲                │           │ │ ▲                │
//!       │               │ memory         │     Pause │ │ │ Continue       │ SoftRebooted
//!       │               │                └──────► PAUSED                  │
//!       │               │                            │ Save         PressPower ──► shut down
//!       │           SUSPENDED ◄──── End ◄──── memory saved                │
//!       │                                                                 │ End
//!       └── Remove ◄── STOPPED ◄────────── End, Ended, Crashed ◄──────────┘
//! ```
//!
//! The arrows are [`plan::Step`]s. [`plan::next`] chooses one from the spec, the ledger and the state of the process;
//! the actor performs it and looks again. It may be killed at each point: the next actor finds the process by the lock
//! that it holds and goes on from what it sees. A process is never started while that lock is held, so that no disk
//! ever has two writers.
//!
//! The actor never stops a guest because the agent stops.

pub mod check;
mod console;
pub(crate) mod copy;
mod flatten;
mod hold;
pub mod plan;
mod start;
mod steps;
mod volumes;

pub use console::{pump, tail};
pub use copy::{AT_A_TIME, copy, sweep};
pub use hold::{Held, end_orphans};
pub use volumes::slot;

use crate::agent::Host;
use crate::fault;
use crate::files::GuestFiles;
use crate::ledger::{Ledger, LedgerFile};
use agent_api::{AgentFault, DesiredPower, GuestObserved, GuestVolumeObserved, ObservedPower};
use base::ServerId;
use base::backoff::Backoff;
use plan::{Step, World};
use qemu::RunState;
use std::io;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, oneshot, watch};

const RETRY: Backoff = Backoff { first_ms: 500, most_ms: 60_000 };
/// How often a guest at rest is looked after: its logs are kept small.
const HOUSEKEEPING: Duration = Duration::from_secs(5);

/// What others ask of an actor.
enum Request {
    /// Show the screen to whoever sits at the other end.
    Viewer { socket: UnixStream, answer: oneshot::Sender<Result<(), String>> },
    /// Hand out the monitor; none where there is no process.
    Monitor { answer: oneshot::Sender<Option<Arc<qemu::Monitor>>> },
}

/// A guest's actor as others see it. Dropping it stops the actor, not the guest.
pub struct Guest {
    pub ledger: LedgerFile,
    files: GuestFiles,
    wake: watch::Sender<u64>,
    requests: mpsc::Sender<Request>,
    /// The ports are to be brought into their networks once more.
    rewire: Arc<AtomicBool>,
    /// The serial port has one user at a time; the newest wins.
    serial: Mutex<Option<UnixStream>>,
    /// Held by who copies the root disk, or makes it stand alone.
    disk: Arc<tokio::sync::Mutex<()>>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Guest {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Guest {
    pub fn run(host: Arc<Host>, id: ServerId, ledger: LedgerFile) -> Guest {
        let files = host.layout.guest(&id);
        let (wake, woken) = watch::channel(0);
        let (requests, inbox) = mpsc::channel(16);
        let rewire = Arc::new(AtomicBool::new(false));
        let disk = Arc::new(tokio::sync::Mutex::new(()));
        let actor = Actor {
            rewire: rewire.clone(),
            plugs: volumes::Plugs::default(),
            flatten: flatten::Flatten::new(disk.clone(), host.flattenings.clone()),
            made: host.volumes.made(),
            host,
            id,
            files: files.clone(),
            ledger: ledger.clone(),
            woken,
            inbox,
            held: None,
            told: None,
            wired: false,
            failures: 0,
            given_up: None,
            pressed: None,
        };
        let task = tokio::spawn(actor.run());
        Guest { ledger, files, wake, requests, rewire, serial: Mutex::new(None), disk, task }
    }

    /// Says that the ledger's spec has changed.
    pub fn wake(&self) {
        self.wake.send_modify(|count| *count += 1);
    }

    /// Looks at its process and ports anew, as after an adoption.
    pub fn look_again(&self) {
        self.rewire.store(true, Ordering::SeqCst);
        self.wake();
    }

    /// A connection to the serial port. Whoever had one loses it.
    pub fn serial(&self) -> io::Result<UnixStream> {
        let mut user = self.serial.lock().unwrap_or_else(|broken| broken.into_inner());
        if let Some(old) = user.take() {
            let _ = old.shutdown(std::net::Shutdown::Both);
        }
        let socket = unixfd::connect(&self.files.serial())?;
        *user = Some(socket.try_clone()?);
        Ok(socket)
    }

    /// A connection to the screen, speaking RFB.
    pub async fn screen(&self) -> Result<UnixStream, String> {
        let (here, there) = UnixStream::pair().map_err(|error| error.to_string())?;
        let (answer, answered) = oneshot::channel();
        let request = Request::Viewer { socket: there, answer };
        let asked = async {
            self.requests.send(request).await.map_err(|_| "the server is being removed".to_owned())?;
            answered.await.map_err(|_| "the server is being removed".to_owned())?
        };
        let asked = tokio::time::timeout(Duration::from_secs(15), asked).await;
        asked.unwrap_or_else(|_| Err("the server is busy starting or stopping; try again".into()))?;
        Ok(here)
    }
}

struct Actor {
    host: Arc<Host>,
    id: ServerId,
    files: GuestFiles,
    ledger: LedgerFile,
    woken: watch::Receiver<u64>,
    inbox: mpsc::Receiver<Request>,
    held: Option<Held>,
    /// What QMP has just said of the guest; taken by the next look, which need not ask again.
    told: Option<RunState>,
    wired: bool,
    rewire: Arc<AtomicBool>,
    /// Fruitless attempts since the last success.
    failures: u32,
    /// The generation that cannot be reached, and why.
    given_up: Option<(u64, AgentFault)>,
    /// When the power button was last pressed by this actor.
    pressed: Option<Instant>,
    plugs: volumes::Plugs,
    flatten: flatten::Flatten,
    /// Rises when a volume has been made that this guest may wait for.
    made: watch::Receiver<u64>,
}

/// How a step went.
enum Flow {
    Next,
    Gone,
}

impl Actor {
    async fn run(mut self) {
        loop {
            self.woken.borrow_and_update();
            match self.pass().await {
                Ok(Flow::Next) => {}
                Ok(Flow::Gone) => return,
                Err(fault) => self.failed(fault).await,
            }
        }
    }

    /// Looks, decides, and performs one step.
    async fn pass(&mut self) -> Result<Flow, AgentFault> {
        let ledger = self.ledger.read();
        let absent = ledger.spec.power == agent_api::DesiredPower::Absent;
        if self.held.is_none() {
            self.held = self.adopt().await?;
            if self.held.is_none() {
                self.let_go(&ledger).await?;
            }
        }
        if self.rewire.swap(false, Ordering::SeqCst) {
            self.wired = false;
        }
        let run = self.run_state().await?;
        let goes_on = matches!(ledger.spec.power, DesiredPower::Running | DesiredPower::Paused) && !ledger.done.ending;
        if self.wired && goes_on && matches!(run, Some(RunState::Running | RunState::Paused)) {
            self.plug_volumes(&ledger).await?;
            self.flatten_live(&ledger).await?;
        }
        let ledger = self.ledger.read_with(ledger.spec);
        if let Some((generation, fault)) = self.given_up.clone().filter(|_| !absent) {
            if generation == ledger.spec.generation {
                let power = if run.is_some() { ObservedPower::Running } else { ObservedPower::Stopped };
                self.publish(&ledger, Some(power), Some(fault));
                self.wait(HOUSEKEEPING).await;
                return Ok(Flow::Next);
            }
            self.given_up = None;
        }
        if !absent {
            check::spec(&ledger.spec)?;
        }
        let step = plan::next(&World {
            spec: &ledger.spec,
            done: &ledger.done,
            run,
            wired: self.wired,
            boot_id: &self.host.options.boot_id,
            now: self.host.env.now(),
            soft_deadline_ms: self.host.options.soft_deadline.as_millis() as i64,
        });
        if !matches!(step, Step::Rest(_) | Step::Wait) {
            tracing::debug!(server = %self.id, generation = ledger.spec.generation, ?run, ?step, "step");
        }
        self.announce(&ledger, run, step);
        self.perform(&ledger, run, step).await
    }

    /// The state of the process; none when there is none.
    async fn run_state(&mut self) -> Result<Option<RunState>, AgentFault> {
        let told = self.told.take();
        let Some(held) = &mut self.held else { return Ok(None) };
        if told.is_some() && !held.process.has_ended() {
            return Ok(told);
        }
        // Before asking: an event after this wakes the next wait.
        held.changes.borrow_and_update();
        if held.process.has_ended() {
            return Ok(None);
        }
        match held.monitor.state().await {
            Ok(state) => Ok(Some(state)),
            Err(_) if held.process.has_ended() => Ok(None),
            Err(error) => {
                // Adopted anew at the next pass; its process lives on.
                self.held = None;
                Err(fault::qemu("be asked for the server's state", &error))
            }
        }
    }

    /// Shows what a step means to those who watch.
    fn announce(&self, ledger: &Ledger, run: Option<RunState>, step: Step) {
        let building = match step {
            Step::Start | Step::Crashed => true,
            // A guest that is adopted runs already: nothing to show until it has been looked at wholly.
            Step::Wire | Step::Continue | Step::Wait => ledger.done.alive.is_none() && run != Some(RunState::Running),
            _ => false,
        };
        if building {
            self.publish(ledger, Some(ObservedPower::Building), None);
        }
    }

    fn publish(&self, ledger: &Ledger, power: Option<ObservedPower>, fault: Option<AgentFault>) {
        let volumes = self.volumes_observed(ledger);
        let problem = self.flatten.problem.clone();
        publish(&self.host, &self.id, ledger, power, fault, self.failures, volumes, problem);
    }

    /// Shows a fault and waits before the next attempt, or for a new spec when there is no use in trying.
    async fn failed(&mut self, fault: AgentFault) {
        self.failures = self.failures.saturating_add(1);
        let ledger = self.ledger.read();
        tracing::warn!(server = %self.id, failures = self.failures, detail = fault.detail, "{}", fault.message);
        if !fault.retried {
            self.given_up = Some((ledger.spec.generation, fault));
            return;
        }
        self.publish(&ledger, None, Some(fault));
        let delay = RETRY.delay_ms(self.failures, &*self.host.env.random);
        self.wait(Duration::from_millis(delay)).await;
    }

    /// Waits until something may have changed, at most this long; serves requests meanwhile.
    async fn wait(&mut self, most: Duration) {
        let until = tokio::time::Instant::now() + most;
        loop {
            let mut changes = self.held.as_ref().map(|held| held.changes.clone());
            let ended = async {
                match &self.held {
                    Some(held) => held.process.ended().await,
                    None => std::future::pending().await,
                }
            };
            let event = async {
                let told = match &mut changes {
                    Some(changes) => changes.changed().await.is_ok(),
                    None => false,
                };
                if !told {
                    // No process, or a monitor that is closed: then the end of the process tells, or the time.
                    std::future::pending::<()>().await;
                }
            };
            tokio::select! {
                changed = self.woken.changed() => {
                    if changed.is_err() {
                        // The handle is gone; so will this task be in a moment.
                        std::future::pending::<()>().await;
                    }
                    return;
                }
                () = ended => return,
                () = event => return,
                () = tokio::time::sleep_until(until) => return,
                _ = self.made.changed() => {
                    if self.failures > 0 || self.plugs.unsettled {
                        self.plugs.hurry();
                        return;
                    }
                }
                Some(request) = self.inbox.recv() => self.serve(request).await,
            }
        }
    }

    async fn serve(&mut self, request: Request) {
        match request {
            Request::Viewer { socket, answer } => {
                let shown = match &self.held {
                    Some(held) => held.monitor.add_viewer(socket).await.map_err(|error| error.to_string()),
                    None => Err("the server is not running".into()),
                };
                let _ = answer.send(shown);
            }
            Request::Monitor { answer } => {
                let _ = answer.send(self.held.as_ref().map(|held| held.monitor.clone()));
            }
        }
    }
}

/// The last power of two: what is told of attempts changes with each doubling only.
pub fn doubling(failures: u32) -> u32 {
    failures.checked_ilog2().map_or(0, |n| 1 << n)
}

/// Shows a guest; without a power the one shown before stays.
fn publish(
    host: &Host,
    id: &ServerId,
    ledger: &Ledger,
    power: Option<ObservedPower>,
    fault: Option<AgentFault>,
    failures: u32,
    volumes: Vec<GuestVolumeObserved>,
    flat_problem: Option<String>,
) {
    let shown = || host.board.get(id).map(|it| it.power);
    let done = &ledger.done;
    let stopped = done.stopped_by_itself.as_ref().filter(|it| ledger.spec.power_generation <= it.generation);
    host.board.publish(GuestObserved {
        id: id.clone(),
        generation: done.generation,
        power: power.or_else(shown).unwrap_or(ObservedPower::Building),
        soft_reboots: done.soft_reboots,
        hard_reboots: done.hard_reboots,
        stopped_by_itself: stopped.map(|it| it.reason.clone()),
        attempts: fault.as_ref().map_or(0, |_| doubling(failures)),
        fault,
        volumes,
        started_at: done.started_at,
        flat: done.flat,
        flat_problem,
    });
}

#[cfg(test)]
pub(crate) mod tests {
    use agent_api::{DesiredPower, DiskFormat, GuestSpec, OnCrash, RootDisk};

    /// A small guest without ports.
    pub fn spec(id: &str) -> GuestSpec {
        GuestSpec {
            id: id.into(),
            generation: 1,
            power: DesiredPower::Running,
            power_generation: 1,
            at_once: false,
            soft_reboots: 0,
            hard_reboots: 0,
            vcpus: 1,
            memory_mib: 128,
            root: Some(RootDisk {
                image: "image".into(),
                format: DiskFormat::Qcow2,
                sha512: "0".repeat(128),
                image_bytes: 1,
                size_gib: 1,
                flat: false,
            }),
            volumes: Vec::new(),
            nics: Vec::new(),
            on_crash: OnCrash::Stop,
            config_drive: true,
            metadata: agent_api::InstanceMetadata { uuid: id.into(), ..Default::default() },
        }
    }
}
