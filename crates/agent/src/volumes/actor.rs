//! One actor per volume: one task that compares the spec with what there is, and performs one step after the other.

use super::driver::{Content, Holder, Look};
use super::plan::{self, COPY, Step};
use super::{Record, Volumes, blank, check_spec, lock};
use crate::fault;
use crate::files;
use crate::images;
use crate::ledger::blocking;
use agent_api::{AgentFault, SnapshotObserved, VolumeObserved, VolumeSource, VolumeSpec, VolumeState};
use base::backoff::Backoff;
use base::{VolumeId, VolumeSnapshotId};
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::sync::watch;

const RETRY: Backoff = Backoff { first_ms: 500, most_ms: 60_000 };
/// How often a volume at rest is looked after: what it takes of the host's room changes while a guest writes.
const HOUSEKEEPING: Duration = Duration::from_secs(60);
/// How long a guest that starts is waited for.
const BUSY: Duration = Duration::from_millis(50);
/// After a guest has ended work that takes long.
const AGAIN: Duration = Duration::from_secs(5);

/// A volume's actor as others see it. Dropping it stops the actor, and nothing else.
pub struct Volume {
    record: Arc<Mutex<Record>>,
    path: PathBuf,
    wake: watch::Sender<u64>,
    gone: Arc<AtomicBool>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Volume {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Volume {
    pub(super) fn run(volumes: Arc<Volumes>, id: VolumeId, record: Record) -> Arc<Volume> {
        let (wake, woken) = watch::channel(0);
        let (record, gone) = (Arc::new(Mutex::new(record)), Arc::new(AtomicBool::new(false)));
        let path = volumes.record_path(&id);
        let actor = Actor {
            // The registry owns the actors: they do not keep it alive.
            volumes: Arc::downgrade(&volumes),
            id,
            path: path.clone(),
            record: record.clone(),
            gone: gone.clone(),
            woken,
            failures: 0,
            given_up: None,
            tidied: None,
        };
        let task = tokio::spawn(actor.run());
        Arc::new(Volume { record, path, wake, gone, task })
    }

    pub fn is_gone(&self) -> bool {
        self.gone.load(Ordering::SeqCst)
    }

    pub fn stop(&self) {
        self.task.abort();
    }

    pub fn wake(&self) {
        self.wake.send_modify(|count| *count += 1);
    }

    /// Writes the ledger anew where it is not what we know. A folder that is gone stays so: what was in it is lost, and
    /// that has to be seen.
    pub(super) async fn ensure_written(&self) -> io::Result<()> {
        let (record, path, gone) = (self.record.clone(), self.path.clone(), self.gone.clone());
        blocking(move || {
            let record = lock(&record);
            let stands = std::fs::read(&path).ok().and_then(|text| serde_json::from_slice(&text).ok());
            let folder = path.parent().is_some_and(|folder| folder.exists());
            if gone.load(Ordering::SeqCst) || !folder || stands.as_ref() == Some(&*record) {
                return Ok(());
            }
            files::replace_json(&path, &*record)
        })
        .await
    }

    /// Takes over a spec of a higher generation.
    pub(super) async fn take(&self, spec: VolumeSpec) -> io::Result<()> {
        let (record, path, gone) = (self.record.clone(), self.path.clone(), self.gone.clone());
        let risen = blocking(move || {
            let mut record = lock(&record);
            let known = record.spec.generation;
            if spec.generation <= known || gone.load(Ordering::SeqCst) {
                if spec.generation < known {
                    tracing::warn!(volume = %spec.id, generation = spec.generation, known, "refused a lower generation");
                }
                return Ok(false);
            }
            let new = Record { spec, ..record.clone() };
            files::replace_json(&path, &new)?;
            *record = new;
            Ok(true)
        });
        if risen.await? {
            self.wake();
        }
        Ok(())
    }
}

struct Actor {
    volumes: std::sync::Weak<Volumes>,
    id: VolumeId,
    path: PathBuf,
    record: Arc<Mutex<Record>>,
    gone: Arc<AtomicBool>,
    woken: watch::Receiver<u64>,
    failures: u32,
    /// The generation that cannot be reached, and why.
    given_up: Option<(u64, AgentFault)>,
    /// When tidying was last ended early.
    tidied: Option<Instant>,
}

enum Flow {
    Next,
    Wait(Duration),
    Gone,
}

impl Actor {
    async fn run(mut self) {
        loop {
            self.woken.borrow_and_update();
            let Some(volumes) = self.volumes.upgrade() else { return };
            let wait = match self.pass(&volumes).await {
                Ok(Flow::Next) => continue,
                Ok(Flow::Wait(most)) => most,
                Ok(Flow::Gone) => return,
                Err(fault) => self.failed(&volumes, fault),
            };
            drop(volumes);
            tokio::select! {
                changed = self.woken.changed() => {
                    if changed.is_err() {
                        return;
                    }
                }
                () = tokio::time::sleep(wait) => {}
            }
        }
    }

    /// Looks, decides, and performs one step.
    async fn pass(&mut self, volumes: &Arc<Volumes>) -> Result<Flow, AgentFault> {
        let record = lock(&self.record).clone();
        let spec = &record.spec;
        let look = volumes.driver.look(&self.id).await?;
        if let Some((generation, fault)) = &self.given_up {
            if *generation == spec.generation {
                self.publish(volumes, look.as_ref(), Some(fault.clone()));
                return Ok(Flow::Wait(HOUSEKEEPING));
            }
            self.given_up = None;
        }
        let absent = spec.desired == agent_api::Desired::Absent;
        if !absent {
            check_spec(spec)?;
        }
        let known = |copy: &str| lock(&volumes.volumes).get(&VolumeId::new(copy)).cloned();
        let done_with = |copy: &str| known(copy).is_none_or(|copy| lock(&copy.record).reached > 0 || copy.is_gone());
        if look.is_none() && !absent && (record.reached > 0 || spec.made) {
            // Made anew it would be empty, and nobody would see that something was lost.
            return Err(fault::refused(
                "The volume's files are gone from its host. What was on it is lost; delete it.",
            ));
        }
        let tidy = self.tidied.is_none_or(|at| at.elapsed() >= AGAIN);
        let step = plan::next(spec, look.as_ref(), done_with, tidy);
        if step != Step::Rest {
            tracing::debug!(volume = %self.id, generation = spec.generation, ?step, "step");
        }
        if look.is_none() && !absent {
            self.publish(volumes, None, None);
        }
        self.perform(volumes, &record, look, step).await
    }

    async fn perform(
        &mut self,
        volumes: &Arc<Volumes>,
        record: &Record,
        look: Option<Look>,
        step: Step,
    ) -> Result<Flow, AgentFault> {
        let driver = &volumes.driver;
        match step {
            Step::Rest => return self.rest(volumes, record, look).await,
            Step::Create => {
                if !self.create(volumes, &record.spec).await? {
                    return Ok(Flow::Wait(BUSY));
                }
                volumes.made.send_modify(|count| *count += 1);
                tracing::info!(volume = %self.id, "made");
            }
            Step::Delete => return self.delete(volumes, record).await,
            Step::DeleteSnapshot(snapshot) => {
                let _turn = volumes.work(&self.id).await;
                driver.delete_snapshot(&self.id, &snapshot).await?;
            }
            Step::Extend(_) | Step::Snapshot(_) => {
                let _turn = volumes.work(&self.id).await;
                let Ok(holder) = volumes.holder(&self.id) else { return Ok(Flow::Wait(BUSY)) };
                match step {
                    Step::Extend(size) => driver.extend(&self.id, size, &holder).await?,
                    Step::Snapshot(snapshot) => driver.snapshot(&self.id, &snapshot, &holder).await?,
                    _ => {}
                }
            }
            Step::Tidy { flatten } => return self.tidy(volumes, record, look, flatten).await,
        }
        Ok(Flow::Next)
    }

    /// Gives room back or makes it stand alone. What has been asked for stands already, save for the parent: that is
    /// said before, since this may take as long as it takes to copy a disk. A new wish ends it early.
    async fn tidy(
        &mut self,
        volumes: &Arc<Volumes>,
        record: &Record,
        look: Option<Look>,
        flatten: bool,
    ) -> Result<Flow, AgentFault> {
        if !flatten {
            self.reach(record.spec.generation).await?;
        }
        self.publish(volumes, look.as_ref(), None);
        let (_turn, wanted) = volumes.work(&self.id).await;
        let Ok(holder) = volumes.holder(&self.id) else { return Ok(Flow::Wait(BUSY)) };
        let work = volumes.driver.tidy(&self.id, flatten, &holder, wanted);
        tokio::pin!(work);
        let whole = tokio::select! {
            whole = &mut work => whole?,
            _ = self.woken.changed() => {
                let _wants = volumes.want(&self.id);
                work.await?
            }
        };
        self.tidied = (!whole).then(Instant::now);
        Ok(Flow::Next)
    }

    /// False: the source's guest is starting; soon.
    async fn create(&mut self, volumes: &Arc<Volumes>, spec: &VolumeSpec) -> Result<bool, AgentFault> {
        let driver = &volumes.driver;
        let size = spec.size_gib << 30;
        let content = match &spec.source {
            VolumeSource::Blank => Content::Blank,
            VolumeSource::Image(image) => {
                let file = tokio::select! {
                    file = volumes.images.ensure(image) => file?,
                    // A new wish, perhaps to be gone: an image may take minutes.
                    _ = self.woken.changed() => return Ok(false),
                };
                Content::Image { file, format: image.format, name: images::file_name(image) }
            }
            VolumeSource::Snapshot { volume, snapshot } => {
                let (_turn, _) = volumes.work(volume).await;
                let content = Content::Snapshot { volume: volume.clone(), snapshot: snapshot.clone() };
                driver.create(&self.id, size, content).await?;
                return Ok(true);
            }
            VolumeSource::Volume { volume } => return self.copy(volumes, volume, size).await,
        };
        driver.create(&self.id, size, content).await?;
        Ok(true)
    }

    /// Begins as another volume is at this moment: from a snapshot of it that is forgotten at once. Should this be cut
    /// off, the other volume's actor forgets it.
    async fn copy(&self, volumes: &Arc<Volumes>, source: &VolumeId, size: u64) -> Result<bool, AgentFault> {
        let driver = &volumes.driver;
        let (_turn, _) = volumes.work(source).await;
        let Ok(holder) = volumes.holder(source) else { return Ok(false) };
        let snapshot = VolumeSnapshotId::new(format!("{COPY}{}", self.id));
        driver.snapshot(source, &snapshot, &holder).await?;
        let content = Content::Snapshot { volume: source.clone(), snapshot: snapshot.clone() };
        let made = driver.create(&self.id, size, content).await;
        driver.delete_snapshot(source, &snapshot).await?;
        made.map(|()| true)
    }

    /// As it shall be: says so, and waits for something to happen.
    async fn rest(&mut self, volumes: &Arc<Volumes>, record: &Record, look: Option<Look>) -> Result<Flow, AgentFault> {
        self.failures = 0;
        self.reach(record.spec.generation).await?;
        self.publish(volumes, look.as_ref(), None);
        Ok(Flow::Wait(if self.tidied.is_some() { AGAIN } else { HOUSEKEEPING }))
    }

    /// Writes down that the spec of this generation has been reached.
    async fn reach(&self, generation: u64) -> Result<(), AgentFault> {
        if lock(&self.record).reached == generation {
            return Ok(());
        }
        let (record, path) = (self.record.clone(), self.path.clone());
        let written = blocking(move || {
            let mut record = lock(&record);
            let new = Record { reached: generation, ..record.clone() };
            files::replace_json(&path, &new)?;
            *record = new;
            Ok(())
        });
        written.await.map_err(|error| fault::disk("ledger", &error))
    }

    async fn delete(&mut self, volumes: &Arc<Volumes>, record: &Record) -> Result<Flow, AgentFault> {
        // A copy of it that is being made is for nobody any more.
        let _turn = volumes.take(&self.id).await;
        match volumes.holder(&self.id) {
            Ok(Holder::Nobody) => {}
            Ok(Holder::Guest(_)) | Err(_) => {
                return Err(AgentFault {
                    message: "The volume is still in a server; it is tried again.".into(),
                    detail: format!("volume {} is in a server", self.id),
                    retried: true,
                });
            }
        }
        volumes.driver.delete(&self.id).await?;
        let (path, gone, record_lock) = (self.path.clone(), self.gone.clone(), self.record.clone());
        let removed = blocking(move || {
            let _alone = lock(&record_lock);
            files::remove(&path)?;
            let folder = path.parent().unwrap_or(&path);
            files::remove(folder)?;
            files::sync_folder(folder)?;
            gone.store(true, Ordering::SeqCst);
            Ok(())
        });
        removed.await.map_err(|error| fault::disk("volume", &error))?;
        let generation = record.spec.generation;
        volumes.board.publish(VolumeObserved { generation, ..blank(&self.id, VolumeState::Absent) });
        tracing::info!(volume = %self.id, "removed");
        Ok(Flow::Gone)
    }

    /// Shows a fault; says how long to wait before the next attempt, or for a new spec.
    fn failed(&mut self, volumes: &Volumes, fault: AgentFault) -> Duration {
        self.failures = self.failures.saturating_add(1);
        tracing::warn!(volume = %self.id, failures = self.failures, detail = fault.detail, "{}", fault.message);
        if !fault.retried {
            let generation = lock(&self.record).spec.generation;
            self.given_up = Some((generation, fault));
            return Duration::ZERO;
        }
        let shown = volumes.board.get(&self.id).unwrap_or_else(|| blank(&self.id, VolumeState::Building));
        let attempts = crate::guest::doubling(self.failures);
        volumes.board.publish(VolumeObserved { fault: Some(fault), attempts, ..shown });
        Duration::from_millis(RETRY.delay_ms(self.failures, &*volumes.env.random))
    }

    fn publish(&self, volumes: &Volumes, look: Option<&Look>, fault: Option<AgentFault>) {
        let generation = lock(&self.record).reached;
        let attempts = if fault.is_some() { crate::guest::doubling(self.failures) } else { 0 };
        let shown = match look {
            None => blank(&self.id, VolumeState::Building),
            Some(look) => VolumeObserved {
                size_bytes: look.size_bytes,
                // Rounded, so that a guest that writes does not make a report with every block.
                used_bytes: look.used_bytes.div_ceil(1 << 20) << 20,
                snapshots: own(&look.snapshots),
                depends_on: look.depends_on.clone(),
                shares: look.shares,
                ..blank(&self.id, VolumeState::Ready)
            },
        };
        volumes.board.publish(VolumeObserved { generation, fault, attempts, ..shown });
    }
}

/// Without those that were made for a copy.
fn own(snapshots: &[(VolumeSnapshotId, u64)]) -> Vec<SnapshotObserved> {
    let named = snapshots.iter().filter(|(id, _)| !id.starts_with(COPY));
    named.map(|(id, size)| SnapshotObserved { id: id.clone(), size_bytes: *size }).collect()
}
