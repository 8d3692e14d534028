//! A root disk that shall stand alone: what the image below it holds is copied up, and then the image is not needed.
//!
//! ```text
//!   stands on its image ──► copying (a job in the guest's QEMU, or in one that never runs) ──► stands alone
//!          ▲                   │
//!          └───────────────────┘  suspended, stopped, started, or the agent died: what was copied does no harm
//! ```
//!
//! QEMU is the truth of the copying, the ledger of its end: `flat` is written after all of it is on disk. Until then the
//! disk is opened over its image, which says the same as the disk where that has it already. The guest goes on
//! meanwhile, and its generation does not wait for it.

use super::start::image;
use super::{Actor, copy};
use crate::fault;
use crate::ledger::{Ledger, blocking};
use agent_api::AgentFault;
use qemu::Monitor;
use qemu::block::Job;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{Mutex, OwnedMutexGuard, OwnedSemaphorePermit, Semaphore};

/// The disk's node, which is also what the names of its nodes begin with.
const ROOT: &str = "root";
/// After a failure, or where somebody copies the disk.
const AGAIN: Duration = Duration::from_secs(30);
/// How often a copying at rest is looked at.
const LOOK: Duration = Duration::from_millis(100);
const WHAT: &str = "make the disk stand alone";

/// What an actor knows of it besides the ledger.
pub struct Flatten {
    disk: Arc<Mutex<()>>,
    host: Arc<Semaphore>,
    /// Held while it is copied: the disk, and a place among those of the host.
    turn: Option<(OwnedMutexGuard<()>, OwnedSemaphorePermit)>,
    not_before: Option<Instant>,
    pub problem: Option<String>,
}

impl Flatten {
    /// `host`: how many are made to stand alone at a time.
    pub fn new(disk: Arc<Mutex<()>>, host: Arc<Semaphore>) -> Flatten {
        Flatten { disk, host, turn: None, not_before: None, problem: None }
    }

    pub fn runs(&self) -> bool {
        self.turn.is_some()
    }

    /// Its process has ended, and the job with it.
    pub fn ended(&mut self) {
        self.turn = None;
    }

    /// True: it is our turn now, or was already. False: somebody copies the disk, others are made to stand alone, or it
    /// failed lately.
    fn begin(&mut self) -> bool {
        if self.not_before.is_some_and(|at| Instant::now() < at) {
            return false;
        }
        if self.turn.is_none() {
            let place = self.host.clone().try_acquire_owned().ok();
            self.turn = place.and_then(|place| Some((self.disk.clone().try_lock_owned().ok()?, place)));
        }
        self.not_before = self.turn.is_none().then(|| Instant::now() + AGAIN);
        self.turn.is_some()
    }

    fn fails(&mut self, fault: AgentFault) {
        tracing::warn!(detail = fault.detail, "{}", fault.message);
        self.problem = Some(fault.message);
        self.not_before = Some(Instant::now() + AGAIN);
    }
}

fn wanted(ledger: &Ledger) -> bool {
    !ledger.done.flat && ledger.spec.root.as_ref().is_some_and(|root| root.flat)
}

fn asked(error: qemu::Error) -> AgentFault {
    fault::qemu(WHAT, &error)
}

impl Actor {
    /// Brings the disk of a running guest nearer to standing alone. What stands in the way is said of the disk, and the
    /// guest goes on.
    pub(super) async fn flatten_live(&mut self, ledger: &Ledger) -> Result<(), AgentFault> {
        if !wanted(ledger) || !self.flatten.begin() {
            return Ok(());
        }
        let Some(monitor) = self.held.as_ref().map(|held| held.monitor.clone()) else { return Ok(()) };
        match self.look(&monitor).await {
            Ok(true) => self.flat().await,
            Ok(false) => Ok(()),
            Err(fault) => {
                self.flatten.fails(fault);
                // As long as a job may go on, nobody else may have the disk.
                if monitor.end_merge(ROOT).await.is_ok() {
                    self.flatten.turn = None;
                }
                Ok(())
            }
        }
    }

    /// One look at the copying, which begins it where there is none. True: all of it is copied and on disk.
    async fn look(&self, monitor: &Monitor) -> Result<bool, AgentFault> {
        match monitor.merge(ROOT).await.map_err(asked)? {
            Job::Runs { .. } => Ok(false),
            Job::None => {
                self.room().await?;
                monitor.begin_merge(ROOT, ROOT, None).await.map_err(asked)?;
                Ok(false)
            }
            Job::Failed(error) => {
                monitor.end_merge(ROOT).await.map_err(asked)?;
                Err(fault::qemu(WHAT, &error))
            }
            Job::Done => {
                monitor.flush(ROOT).await.map_err(asked)?;
                monitor.end_merge(ROOT).await.map_err(asked)?;
                Ok(true)
            }
        }
    }

    /// The image takes as much room again, at most.
    async fn room(&self) -> Result<(), AgentFault> {
        let Some(image) = self.ledger.read().image() else { return Ok(()) };
        let (folder, images) = (self.files.folder.clone(), self.host.layout.images.clone());
        let looked = blocking(move || {
            let file = images.join(crate::images::file_name(&image));
            let blocks = file.metadata().map_or(image.image_bytes, |about| about.blocks() * 512);
            copy::room(&folder, blocks)
        });
        looked.await.map_err(|error: io::Error| fault::disk("server's disk", &error))
    }

    async fn flat(&mut self) -> Result<(), AgentFault> {
        let written = self.ledger.update(|ledger| ledger.done.flat = true).await;
        written.map_err(|error| fault::disk("server's ledger", &error))?;
        (self.flatten.turn, self.flatten.problem) = (None, None);
        tracing::info!(server = %self.id, "the disk stands alone");
        Ok(())
    }

    /// Ends the copying in the guest's process, which is about to let go of the disk. An agent that died may have begun
    /// it, so that QEMU is asked and not we ourselves.
    pub(super) async fn pause_flatten(&mut self) -> Result<(), AgentFault> {
        if let Some(held) = &self.held {
            held.monitor.end_merge(ROOT).await.map_err(asked)?;
            self.flatten.turn = None;
        }
        Ok(())
    }

    /// The same for a guest without a process, by one that never runs an instruction; a new wish ends it early. True:
    /// something was done, so that there is something to look at.
    pub(super) async fn flatten_at_rest(&mut self, ledger: &Ledger) -> Result<bool, AgentFault> {
        let there = self.files.root_disk().exists();
        if !wanted(ledger) || !there || !self.flatten.begin() {
            return Ok(false);
        }
        let done = self.copied_at_rest(ledger).await;
        match done {
            Ok(true) => self.flat().await.map(|()| true),
            Ok(false) => {
                self.flatten.turn = None;
                Ok(true)
            }
            Err(fault) => {
                self.flatten.fails(fault);
                self.flatten.turn = None;
                Ok(true)
            }
        }
    }

    async fn copied_at_rest(&mut self, ledger: &Ledger) -> Result<bool, AgentFault> {
        tokio::select! {
            image = image(&self.host, ledger) => drop(image?),
            // As where a guest is started: an image may take minutes.
            _ = self.woken.changed() => return Ok(false),
        }
        let rest = copy::start(&self.host, &self.id, ledger, &self.files, "flatten").await?;
        let monitor = rest.held.monitor.clone();
        let copied = loop {
            match self.look(&monitor).await {
                Ok(false) => {}
                looked => break looked,
            }
            tokio::select! {
                // A new wish, perhaps to start.
                _ = self.woken.changed() => break monitor.end_merge(ROOT).await.map(|()| false).map_err(asked),
                () = tokio::time::sleep(LOOK) => {}
            }
        };
        let ended = rest.end().await.map_err(|error| fault::disk("server's disk", &error));
        copied.and_then(|copied| ended.map(|()| copied))
    }
}
