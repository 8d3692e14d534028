//! The volumes of this host: one actor per volume, and the back-end that keeps what is in them.
//!
//! ```text
//!   (nothing) ──Create──► READY ◄──► Extend, Snapshot, DeleteSnapshot, Tidy
//!       ▲                   │
//!       └──────Delete───────┘
//! ```
//!
//! What control asked for is in a ledger (`ledger.json`) before anything is done; what there is, is asked of the
//! [`Driver`] at each pass. A volume that a guest has open is changed through that guest's QEMU, so the actors of
//! guests say here who has what ([`Volumes::claim`], [`Volumes::live`], [`Volumes::leave`]). Whoever touches a volume's
//! content holds its turn ([`Volumes::take`]); work that takes long gives its turn up when a guest wants one.
//!
//! A volume goes only by an `Absent` specification: one that nobody asks for is left as it is and reported.

mod actor;
#[cfg(test)]
mod chain;
#[cfg(test)]
mod conformance;
mod copy;
mod disk;
pub mod driver;
pub mod file;
mod plan;

pub use driver::{Driver, Holder, nodes};

use crate::board::{Board, Observed};
use crate::fault;
use crate::files::{self, Layout};
use crate::guest::check;
use crate::images::Images;
use crate::ledger::blocking;
use actor::Volume;
use agent_api::{AgentFault, Desired, DiskFormat, VolumeObserved, VolumePool, VolumeSource, VolumeSpec, VolumeState};
use base::{Env, ServerId, VolumeId};
use qemu::{DiskSource, Monitor};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::{OwnedMutexGuard, watch};

const MOST_GIB: u64 = 64 << 10;

impl Observed for VolumeObserved {
    type Id = VolumeId;
    fn id(&self) -> &VolumeId {
        &self.id
    }
}

/// What is written of a volume besides its content.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Record {
    version: u32,
    spec: VolumeSpec,
    /// The highest generation whose spec has been reached.
    #[serde(default)]
    reached: u64,
}

/// Who has a volume open, or is about to.
struct User {
    server: ServerId,
    /// None: its process has not been looked at yet, or is starting.
    monitor: Option<Arc<Monitor>>,
}

#[derive(Default)]
struct Slot {
    turn: Arc<tokio::sync::Mutex<()>>,
    wanted: watch::Sender<u32>,
    user: Mutex<Option<User>>,
}

/// The turn of one who touches a volume's content.
pub struct Turn {
    _alone: OwnedMutexGuard<()>,
    slot: Arc<Slot>,
    wants: bool,
}

impl Drop for Turn {
    fn drop(&mut self) {
        if self.wants {
            self.slot.wanted.send_modify(|count| *count = count.saturating_sub(1));
        }
    }
}

pub struct Volumes {
    pub driver: Arc<dyn Driver>,
    pub board: Board<VolumeObserved>,
    layout: Layout,
    images: Arc<Images>,
    env: Env,
    volumes: Mutex<BTreeMap<VolumeId, Arc<Volume>>>,
    slots: Mutex<BTreeMap<VolumeId, Arc<Slot>>>,
    /// Rises when a volume has been made.
    made: watch::Sender<u64>,
}

fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Volumes {
    pub fn new(driver: Arc<dyn Driver>, layout: Layout, images: Arc<Images>, env: Env) -> Arc<Volumes> {
        Arc::new(Volumes {
            driver,
            board: Board::default(),
            layout,
            images,
            env,
            volumes: Mutex::default(),
            slots: Mutex::default(),
            made: watch::Sender::new(0),
        })
    }

    pub fn pool(&self) -> Option<VolumePool> {
        self.driver.pool().ok()
    }

    /// Sets an actor over each ledger. Guests have said before what they have open.
    pub async fn load(self: &Arc<Self>) -> io::Result<()> {
        let found = self.driver.list().await.map_err(|fault| io::Error::other(fault.detail))?;
        for id in found {
            let path = self.record_path(&id);
            match read_record(&path) {
                Ok(record) => {
                    self.board.expect(id.clone());
                    let volume = Volume::run(self.clone(), id.clone(), record);
                    lock(&self.volumes).insert(id, volume);
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => self.stray(&id).await,
                Err(error) => {
                    tracing::error!(%error, volume = %id, "a volume's ledger cannot be read; the volume is left alone");
                    let fault = AgentFault {
                        message: "The host's record of this volume is damaged. The operator must repair or remove it."
                            .into(),
                        detail: error.to_string(),
                        retried: false,
                    };
                    self.board.publish(VolumeObserved { fault: Some(fault), ..blank(&id, VolumeState::Ready) });
                }
            }
        }
        Ok(())
    }

    /// What lies there without a ledger: an empty folder goes, since ledgers are made first and go last. Whatever else
    /// there is, is shown and left as it is.
    async fn stray(&self, id: &VolumeId) {
        let folder = self.layout.volumes.join(id.as_str());
        match self.driver.look(id).await {
            Ok(None) => {
                let emptied = blocking(move || {
                    files::remove(&folder.join("ledger.partial"))?;
                    std::fs::remove_dir(&folder)
                });
                if let Err(error) = emptied.await {
                    tracing::warn!(%error, volume = %id, "a folder without a ledger is left as it is");
                }
            }
            Ok(Some(look)) => {
                tracing::warn!(volume = %id, "a volume without a ledger is left as it is");
                self.board.publish(VolumeObserved {
                    size_bytes: look.size_bytes,
                    used_bytes: look.used_bytes,
                    ..blank(id, VolumeState::Ready)
                });
            }
            Err(fault) => {
                self.board.publish(VolumeObserved { fault: Some(fault), ..blank(id, VolumeState::Ready) });
            }
        }
    }

    fn record_path(&self, id: &VolumeId) -> std::path::PathBuf {
        self.layout.volumes.join(id.as_str()).join("ledger.json")
    }

    /// Takes over a spec: in the ledger when this returns.
    pub async fn put(self: &Arc<Self>, spec: VolumeSpec) -> Result<(), String> {
        if !check::id(&spec.id) {
            tracing::error!(id = %spec.id, "a volume with an id that is no UUID was refused");
            return Ok(());
        }
        let id = spec.id.clone();
        let known = lock(&self.volumes).get(&id).cloned();
        if let Some(volume) = known.filter(|volume| !volume.is_gone()) {
            return volume.take(spec).await.map_err(|error| fault::disk("ledger", &error).message);
        }
        let folder = self.layout.volumes.join(id.as_str());
        if spec.desired == Desired::Absent && !folder.exists() {
            lock(&self.volumes).remove(&id);
            self.board.publish(VolumeObserved { generation: spec.generation, ..blank(&id, VolumeState::Absent) });
            return Ok(());
        }
        let record = Record { version: 1, spec, reached: 0 };
        let (path, text) = (self.record_path(&id), record.clone());
        let written = blocking(move || {
            files::make_folder(&folder)?;
            files::replace_json(&path, &text)?;
            files::sync_folder(&folder)
        });
        if let Err(error) = written.await {
            let fault = fault::disk("ledger", &error);
            let message = fault.message.clone();
            self.board.publish(VolumeObserved { fault: Some(fault), ..blank(&id, VolumeState::Building) });
            return Err(message);
        }
        let volume = Volume::run(self.clone(), id.clone(), record);
        lock(&self.volumes).insert(id, volume);
        Ok(())
    }

    /// Dropped from the view: one that exists is left as it is, what was said of a removed one is forgotten.
    pub fn dropped(&self, id: &VolumeId) {
        let mut volumes = lock(&self.volumes);
        if volumes.get(id).is_none_or(|volume| volume.is_gone()) {
            volumes.remove(id);
            self.board.forget(id);
        }
    }

    /// Ends the actors: whatever they were at is gone on with by the next agent.
    pub fn stop(&self) {
        let all = std::mem::take(&mut *lock(&self.volumes));
        all.values().for_each(|volume| volume.stop());
    }

    /// Every volume is looked at again; ledgers that somebody has changed or removed are written anew.
    pub async fn look_again(&self) {
        let volumes: Vec<_> = lock(&self.volumes).iter().map(|(id, volume)| (id.clone(), volume.clone())).collect();
        for (id, volume) in volumes {
            if let Err(error) = volume.ensure_written().await {
                tracing::warn!(%error, volume = %id, "a volume's ledger could not be written anew");
            }
            volume.wake();
        }
    }

    fn slot(&self, id: &VolumeId) -> Arc<Slot> {
        lock(&self.slots).entry(id.clone()).or_default().clone()
    }

    /// A guest's turn: work that takes long is ended.
    pub async fn take(&self, id: &VolumeId) -> Turn {
        let slot = self.slot(id);
        // Cancelled while it waits, it wants no more.
        let mut wanting = self.want(id);
        let alone = slot.turn.clone().lock_owned().await;
        wanting.0 = None;
        Turn { _alone: alone, slot, wants: true }
    }

    /// While this is held, work that takes long ends early.
    fn want(&self, id: &VolumeId) -> Wanting {
        let slot = self.slot(id);
        slot.wanted.send_modify(|count| *count += 1);
        Wanting(Some(slot))
    }

    async fn work(&self, id: &VolumeId) -> (Turn, watch::Receiver<u32>) {
        let slot = self.slot(id);
        let alone = slot.turn.clone().lock_owned().await;
        let wanted = slot.wanted.subscribe();
        (Turn { _alone: alone, slot, wants: false }, wanted)
    }

    /// A guest is about to open a volume, or may have it open. One guest at a time.
    pub fn claim(&self, id: &VolumeId, server: &ServerId) -> Result<(), AgentFault> {
        let slot = self.slot(id);
        let mut user = lock(&slot.user);
        match &*user {
            Some(other) if other.server != *server => Err(AgentFault {
                message: format!("Volume {id} is still in another server; it is tried again."),
                detail: format!("volume {id} is in server {}", other.server),
                retried: true,
            }),
            Some(_) => Ok(()),
            None => {
                *user = Some(User { server: server.clone(), monitor: None });
                Ok(())
            }
        }
    }

    /// The guest's QEMU has it open.
    pub fn live(&self, id: &VolumeId, server: &ServerId, monitor: &Arc<Monitor>) {
        let slot = self.slot(id);
        let mut user = lock(&slot.user);
        let known = user.as_ref().and_then(|it| it.monitor.as_ref()).is_some_and(|it| Arc::ptr_eq(it, monitor));
        if !known && user.as_ref().is_none_or(|it| it.server == *server) {
            *user = Some(User { server: server.clone(), monitor: Some(monitor.clone()) });
            drop(user);
            self.wake(id);
        }
    }

    /// The guest has it open no more.
    pub fn leave(&self, id: &VolumeId, server: &ServerId) {
        let slot = self.slot(id);
        let mut user = lock(&slot.user);
        if user.as_ref().is_some_and(|it| it.server == *server) {
            *user = None;
            drop(user);
            self.wake(id);
        }
    }

    fn wake(&self, id: &VolumeId) {
        if let Some(volume) = lock(&self.volumes).get(id) {
            volume.wake();
        }
    }

    /// Through whom a volume is changed; an error while that is not known.
    fn holder(&self, id: &VolumeId) -> Result<Holder, Busy> {
        match &*lock(&self.slot(id).user) {
            None => Ok(Holder::Nobody),
            Some(User { monitor: Some(monitor), .. }) => Ok(Holder::Guest(monitor.clone())),
            Some(User { monitor: None, .. }) => Err(Busy),
        }
    }

    /// The disk for a guest that has claimed it and has its turn.
    pub async fn open(&self, id: &VolumeId, read_only: bool, _turn: &Turn) -> Result<DiskSource, AgentFault> {
        if self.driver.look(id).await?.is_none() {
            return Err(AgentFault {
                message: format!("Volume {id} is not there yet; it is waited for."),
                detail: format!("volume {id} is not there"),
                retried: true,
            });
        }
        self.driver.open(id, read_only).await
    }

    /// A copy of it for an image. The error may be shown to the volume's owner.
    pub async fn copy(&self, id: &VolumeId, format: DiskFormat) -> Result<File, String> {
        if lock(&self.volumes).get(id).is_none_or(|volume| volume.is_gone()) {
            return Err(format!("The host has no volume {id}."));
        }
        let wanting = self.want(id);
        let (_turn, wanted) = self.work(id).await;
        drop(wanting);
        let busy = || "A server that has the volume starts or stops; it is tried again.".to_owned();
        let holder = self.holder(id).map_err(|Busy| busy())?;
        match self.driver.copy(id, format, &holder, wanted).await {
            Ok(copy) => copy.ok_or_else(busy),
            Err(fault) => {
                tracing::warn!(volume = %id, detail = fault.detail, "a volume cannot be copied");
                Err(fault.message)
            }
        }
    }

    /// Rises when a volume has been made: for guests that wait for one.
    pub fn made(&self) -> watch::Receiver<u64> {
        self.made.subscribe()
    }
}

struct Wanting(Option<Arc<Slot>>);

impl Drop for Wanting {
    fn drop(&mut self) {
        if let Some(slot) = &self.0 {
            slot.wanted.send_modify(|count| *count = count.saturating_sub(1));
        }
    }
}

/// A guest that starts or has not been looked at yet has it.
struct Busy;

fn read_record(path: &std::path::Path) -> io::Result<Record> {
    let record: Record = serde_json::from_slice(&std::fs::read(path)?)?;
    if record.version != 1 {
        return Err(io::Error::other(format!("the ledger has version {}, this agent reads 1", record.version)));
    }
    Ok(record)
}

fn blank(id: &VolumeId, state: VolumeState) -> VolumeObserved {
    VolumeObserved {
        id: id.clone(),
        generation: 0,
        state,
        size_bytes: 0,
        used_bytes: 0,
        snapshots: Vec::new(),
        depends_on: Vec::new(),
        shares: false,
        fault: None,
        attempts: 0,
    }
}

/// Whether a spec can be carried out at all: it comes from outside.
fn check_spec(spec: &VolumeSpec) -> Result<(), AgentFault> {
    let need = |holds: bool, what: String| {
        if holds { Ok(()) } else { Err(fault::refused(format!("The host refuses this volume: {what}."))) }
    };
    need((1..=MOST_GIB).contains(&spec.size_gib), format!("it has {} GiB, 1 to {MOST_GIB} go", spec.size_gib))?;
    let most = 4 * file::MOST_SNAPSHOTS;
    need(spec.snapshots.len() <= most, format!("it names {} snapshots, {most} go", spec.snapshots.len()))?;
    for snapshot in &spec.snapshots {
        need(check::id(&snapshot.id), "a snapshot's id is no UUID".into())?;
    }
    match &spec.source {
        VolumeSource::Blank => Ok(()),
        VolumeSource::Image(image) => {
            need(check::sha512(&image.sha512), "the image's SHA-512 is not 128 hex digits in lower case".into())
        }
        VolumeSource::Volume { volume } => need(check::id(volume), "its source's id is no UUID".into()),
        VolumeSource::Snapshot { volume, snapshot } => {
            need(check::id(volume) && check::id(snapshot), "its source's id is no UUID".into())
        }
    }
}
