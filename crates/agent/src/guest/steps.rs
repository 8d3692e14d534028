//! Performing a step. Each may be cut off at any await and done again.

use super::hold;
use super::plan::{Step, Why};
use super::{Actor, Flow, HOUSEKEEPING, console};
use crate::fault;
use crate::files;
use crate::ledger::{Alive, Done, Ledger, StoppedByItself, blocking};
use agent_api::{AgentFault, DesiredPower, ObservedPower};
use base::backoff::Backoff;
use qemu::RunState;
use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::time::{Duration, Instant};

/// How long QEMU may take to end in order before it is killed.
const QUIT: Duration = Duration::from_secs(5);
/// How often the power button is pressed: a guest that is still booting does not hear it.
const PRESS_AGAIN: Duration = Duration::from_secs(5);
const CRASHED: Backoff = Backoff { first_ms: 200, most_ms: 60_000 };
/// A guest that has lived this long has not crashed in a row.
const LIVED_MS: i64 = 600_000;

fn ledger_fault(error: io::Error) -> AgentFault {
    fault::disk("server's ledger", &error)
}

impl Actor {
    pub(super) async fn perform(
        &mut self,
        ledger: &Ledger,
        run: Option<RunState>,
        step: Step,
    ) -> Result<Flow, AgentFault> {
        match step {
            Step::Rest(power) => self.rest(ledger, power).await?,
            Step::Wait => self.wait_for_guest(run).await?,
            Step::Start => {
                // Of an earlier boot of the host, or ended while a reboot was asked for: a new life begins.
                self.ledger.update(|ledger| ledger.done.end_life()).await.map_err(ledger_fault)?;
                self.start(ledger).await?;
            }
            Step::Wire => self.wire(ledger).await?,
            Step::Continue => self.go_on(run).await?,
            Step::Pause => {
                if let Some(held) = &self.held {
                    held.monitor.pause().await.map_err(|error| fault::qemu("pause the server", &error))?;
                }
            }
            Step::Save => self.save(ledger).await?,
            Step::PressPower => self.press_power().await?,
            Step::SoftRebooted => self.soft_rebooted(ledger).await?,
            Step::End => self.end(ledger).await?,
            Step::Ended(why) => self.ended(ledger, why).await?,
            Step::Crashed => self.crashed(ledger).await?,
            Step::Remove => return self.remove(ledger).await,
        }
        Ok(Flow::Next)
    }

    /// As it shall be: says so and waits for something to happen.
    async fn rest(&mut self, ledger: &Ledger, power: ObservedPower) -> Result<(), AgentFault> {
        self.failures = 0;
        let at_rest = !matches!(power, ObservedPower::Running | ObservedPower::Paused);
        // The spec that was planned for: a newer one may be in the ledger by now.
        let mut reached = ledger.clone();
        let done = &mut reached.done;
        done.generation = ledger.spec.generation;
        if at_rest {
            // A guest that is off has nothing to reboot: what was asked for is settled.
            done.soft_reboots = ledger.spec.soft_reboots;
            done.hard_reboots = ledger.spec.hard_reboots;
            done.end_life();
            done.power_pressed_at = None;
            done.memory_saved &= power == ObservedPower::Suspended;
        }
        // Said first: should it not be written, the next agent comes to the same conclusion.
        self.publish(&reached, Some(power), None);
        let done = reached.done;
        self.ledger
            .update(move |ledger| {
                let Done { ports, plugged, .. } = std::mem::take(&mut ledger.done);
                ledger.done = Done { ports, plugged, ..done };
            })
            .await
            .map_err(ledger_fault)?;
        let files = self.files.clone();
        let tidy = blocking(move || {
            if power != ObservedPower::Suspended {
                files::remove(&files.memory())?;
            }
            console::cut(&files)
        });
        tidy.await.map_err(|error| fault::disk("console log", &error))?;
        if at_rest && self.flatten_at_rest(&self.ledger.read()).await? {
            return Ok(());
        }
        let soon = self.plugs.unsettled || self.flatten.runs();
        self.wait(if soon { super::volumes::SOON } else { HOUSEKEEPING }).await;
        Ok(())
    }

    async fn wait_for_guest(&mut self, run: Option<RunState>) -> Result<(), AgentFault> {
        if run == Some(RunState::Incoming) {
            self.wait(Duration::from_millis(50)).await;
            return Ok(());
        }
        if self.pressed.is_none_or(|at| at.elapsed() >= PRESS_AGAIN)
            && let Some(held) = &self.held
        {
            self.pressed = Some(Instant::now());
            held.monitor.press_power().await.map_err(|error| fault::qemu("stop the server", &error))?;
        }
        let deadline = self.host.options.soft_deadline.min(Duration::from_secs(1));
        self.wait(deadline).await;
        Ok(())
    }

    async fn wire(&mut self, ledger: &Ledger) -> Result<(), AgentFault> {
        self.wire_ports(&ledger.spec).await?;
        self.wired = true;
        Ok(())
    }

    /// Lets the guest run. What must not be done twice is written first: from here on its saved memory is stale, and
    /// its end is noticed.
    async fn go_on(&mut self, run: Option<RunState>) -> Result<(), AgentFault> {
        let Some(held) = &self.held else { return Ok(()) };
        let begun = self.begin(&held.process);
        self.ledger.update(begun).await.map_err(ledger_fault)?;
        let Some(held) = &mut self.held else { return Ok(()) };
        let before = *held.changes.borrow();
        held.monitor.go_on().await.map_err(|error| fault::qemu("start the server", &error))?;
        // Its one event says that it runs, before its answer. A second one has to be looked at.
        if *held.changes.borrow_and_update() == before + 1 {
            self.told = Some(RunState::Running);
        }
        if run == Some(RunState::DiskError) {
            self.told = None;
            // Gives it a moment to run into the same wall.
            self.wait(Duration::from_millis(200)).await;
            if let Some(held) = &self.held
                && matches!(held.monitor.state().await, Ok(RunState::DiskError))
            {
                let waits_for = held.monitor.disks_without_room().await.unwrap_or_default();
                return Err(self.without_room(&waits_for));
            }
        }
        Ok(())
    }

    /// What the ledger says of a guest that runs in this process, for the first time or again.
    pub(super) fn begin(&self, process: &qemu::Process) -> impl FnOnce(&mut Ledger) + Send + 'static {
        let (pid, start_ticks) = (process.pid, process.start_ticks);
        let (boot_id, now) = (self.host.options.boot_id.clone(), self.host.env.now());
        move |ledger| {
            let done = &mut ledger.done;
            if done.alive.is_none() {
                done.soft_reboots = ledger.spec.soft_reboots;
                done.hard_reboots = ledger.spec.hard_reboots;
                done.started_at = Some(now);
                done.power_pressed_at = None;
            }
            done.alive = Some(Alive { pid, start_ticks, boot_id });
            done.ending = false;
            done.memory_saved = false;
            done.stopped_by_itself = None;
        }
    }

    async fn press_power(&mut self) -> Result<(), AgentFault> {
        let now = self.host.env.now();
        self.ledger.update(move |ledger| ledger.done.power_pressed_at = Some(now)).await.map_err(ledger_fault)?;
        self.pressed = None;
        Ok(())
    }

    async fn soft_rebooted(&mut self, ledger: &Ledger) -> Result<(), AgentFault> {
        let Some(held) = &self.held else { return Ok(()) };
        let failed = |error: qemu::Error| fault::qemu("reboot the server", &error);
        held.monitor.reset().await.map_err(failed)?;
        // The reset takes place in QEMU's main loop, after the answer.
        let reset = async {
            while held.monitor.state().await? == RunState::Shutdown {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            held.monitor.go_on().await
        };
        let reset = tokio::time::timeout(QUIT, reset).await;
        reset.unwrap_or(Err(qemu::Error::Timeout("the reset".into()))).map_err(failed)?;
        let performed = ledger.spec.soft_reboots;
        self.ledger
            .update(move |ledger| {
                ledger.done.soft_reboots = performed;
                ledger.done.power_pressed_at = None;
            })
            .await
            .map_err(ledger_fault)
    }

    /// Ends the process because that was asked for. The ledger says so first: its end is not its own doing, and an
    /// agent that finds the process half ended does not take it for the one that was to come.
    async fn end(&mut self, ledger: &Ledger) -> Result<(), AgentFault> {
        self.ledger.update(|ledger| ledger.done.ending = true).await.map_err(ledger_fault)?;
        self.end_process(ledger).await
    }

    /// Ends the process in order, or at once when the guest is to go, and gives its ports back.
    async fn end_process(&mut self, ledger: &Ledger) -> Result<(), AgentFault> {
        if let Some(held) = &self.held {
            if ledger.spec.power != DesiredPower::Absent && !held.process.has_ended() {
                let quit = async {
                    let _ = held.monitor.quit().await;
                    held.process.ended().await;
                };
                let _ = tokio::time::timeout(QUIT, quit).await;
            }
            held.process.kill();
            let ended = tokio::time::timeout(QUIT, held.process.ended()).await;
            ended.map_err(|_| fault::qemu("end the server", &"the process does not end even when killed"))?;
            held.process.exit_reason();
        }
        self.held = None;
        self.flatten.ended();
        self.wired = false;
        self.unwire(ledger).await;
        self.let_go(&self.ledger.read()).await
    }

    async fn unwire(&mut self, ledger: &Ledger) {
        for nic in &ledger.spec.nics {
            self.host.wiring.unwire(&nic.port).await;
        }
        for port in &ledger.done.ports {
            self.host.wiring.unwire(port).await;
        }
        if !ledger.done.ports.is_empty() {
            // Only forgetting: unwiring them once more would do no harm.
            let _ = self.ledger.update(|ledger| ledger.done.ports.clear()).await;
        }
    }

    /// It ended by itself and stays so until something is asked of its power.
    async fn ended(&mut self, ledger: &Ledger, why: Why) -> Result<(), AgentFault> {
        let exit = self.held.as_ref().and_then(|held| held.process.exit_reason());
        let other_boot = ledger.done.alive.as_ref().is_some_and(|alive| alive.boot_id != self.host.options.boot_id);
        let reason = match why {
            Why::Guest => "guest".to_owned(),
            Why::Broken => "crashed: the virtual machine cannot go on".into(),
            Why::Process if other_boot => "host reboot".into(),
            // Only a parent learns the status, and after a restart the agent is none.
            Why::Process => exit.unwrap_or_else(|| "killed or crashed".into()),
        };
        tracing::info!(server = %self.id, reason, "stopped by itself");
        let generation = ledger.spec.generation;
        self.ledger
            .update(move |ledger| {
                ledger.done.alive = None;
                ledger.done.stopped_by_itself = Some(StoppedByItself { generation, reason });
            })
            .await
            .map_err(ledger_fault)?;
        self.end_process(ledger).await
    }

    /// It crashed and is started again: at once the first time, later and later when it goes on crashing.
    async fn crashed(&mut self, ledger: &Ledger) -> Result<(), AgentFault> {
        let reason = self.held.as_ref().and_then(|held| held.process.exit_reason());
        let lived = ledger.done.started_at.map_or(0, |at| self.host.env.now().ms_since(at));
        let crashes = if lived > LIVED_MS { 1 } else { ledger.done.crashes.saturating_add(1) };
        tracing::warn!(server = %self.id, crashes, reason, "crashed; started again");
        self.ledger
            .update(move |ledger| {
                ledger.done.alive = None;
                ledger.done.crashes = crashes;
            })
            .await
            .map_err(ledger_fault)?;
        self.end_process(ledger).await?;
        if crashes > 1 {
            self.wait(Duration::from_millis(CRASHED.delay_ms(crashes, &*self.host.env.random))).await;
        }
        Ok(())
    }

    /// Writes the memory of the paused guest into its file. Until that is whole the guest could still go on.
    async fn save(&mut self, ledger: &Ledger) -> Result<(), AgentFault> {
        self.pause_flatten().await?;
        let Some(held) = &self.held else { return Ok(()) };
        let disk = |error: io::Error| fault::disk("server's memory", &error);
        let partial = self.files.memory().with_extension("partial");
        let file = File::options().write(true).create(true).truncate(true).mode(0o600).open(&partial).map_err(disk)?;
        let (read, write) = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC).map_err(|error| disk(error.into()))?;
        let target = self.files.memory();
        let writer = tokio::task::spawn_blocking(move || {
            let (mut read, mut file) = (File::from(read), file);
            io::copy(&mut read, &mut file)?;
            file.sync_all()
        });
        let sent = held.monitor.save(write.as_fd()).await;
        drop(write);
        if sent.is_err() {
            // Lets go of QEMU's end of the pipe, or the writer would wait for ever.
            let _ = held.monitor.cancel_save().await;
        }
        let written = tokio::time::timeout(QUIT * 12, writer).await;
        let written = match written {
            Ok(joined) => joined.unwrap_or_else(|error| Err(io::Error::other(error))),
            Err(_) => Err(io::ErrorKind::TimedOut.into()),
        };
        let saved = sent.map_err(|error| fault::qemu("save the server's memory", &error));
        if let Err(fault) = written.map_err(disk).and(saved) {
            let _ = files::remove(&partial);
            // It runs on rather than standing still while the operator makes room.
            let _ = held.monitor.go_on().await;
            return Err(fault);
        }
        let named = blocking(move || {
            std::fs::rename(&partial, &target)?;
            files::sync_folder(&target)
        });
        named.await.map_err(disk)?;
        self.ledger
            .update(|ledger| {
                ledger.done.memory_saved = true;
                ledger.done.alive = None;
            })
            .await
            .map_err(ledger_fault)?;
        self.end_process(ledger).await
    }

    /// Removes everything of the guest, its ledger last: until then the next agent goes on removing.
    async fn remove(&mut self, ledger: &Ledger) -> Result<Flow, AgentFault> {
        self.unwire(ledger).await;
        self.host.cgroups.ensure_absent(&self.id);
        let Some(lock) = hold::lock(&self.files.lock()).map_err(ledger_fault)? else {
            return Err(fault::qemu("be removed", &"a process holds the server's lock"));
        };
        let mut gone = ledger.clone();
        gone.done.generation = ledger.spec.generation;
        gone.done.soft_reboots = ledger.spec.soft_reboots;
        gone.done.hard_reboots = ledger.spec.hard_reboots;
        let (files, host, id) = (self.files.clone(), self.host.clone(), self.id.clone());
        let removed = self.ledger.remove(move || {
            for entry in std::fs::read_dir(&files.folder)? {
                let path = entry?.path();
                if path != files.ledger() {
                    files::remove(&path)?;
                }
            }
            files::remove(&files.ledger())?;
            files::remove(&files.folder)?;
            files::sync_folder(&files.folder)?;
            drop(lock);
            // Said before anybody can begin this guest anew.
            super::publish(&host, &id, &gone, Some(ObservedPower::Absent), None, 0, Vec::new(), None);
            Ok(())
        });
        removed.await.map_err(|error| fault::disk("server's files", &error))?;
        tracing::info!(server = %self.id, "removed");
        Ok(Flow::Gone)
    }
}
