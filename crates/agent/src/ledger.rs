//! What the agent has been asked for and has done, one file per guest.
//!
//! A spec is in the ledger before anything is done for it. What was done is written before it takes effect where
//! doing it twice would be wrong, afterwards where it would not.

use crate::files::{self, GuestFiles};
use agent_api::{GuestSpec, GuestVolume, ImageSource};
use base::{PortId, Timestamp};
use serde::{Deserialize, Serialize};
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Ledger {
    /// Of this file's shape.
    pub version: u32,
    /// The spec of the highest generation seen.
    pub spec: GuestSpec,
    #[serde(default)]
    pub done: Done,
}

impl Ledger {
    /// The image below its root disk; none: there is none, or none any more.
    pub fn image(&self) -> Option<ImageSource> {
        self.spec.image().filter(|_| !self.done.flat)
    }
}

/// What has been done for a guest.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Done {
    /// The highest generation whose spec has been reached.
    pub generation: u64,
    pub soft_reboots: u64,
    pub hard_reboots: u64,
    /// The guest was told to run and has not been told to end: if its process is gone, it ended by itself.
    pub alive: Option<Alive>,
    /// Its process is being ended because that was asked for: whoever finds it goes on ending it.
    pub ending: bool,
    pub started_at: Option<Timestamp>,
    /// The memory file is whole and belongs to the disks as they are.
    pub memory_saved: bool,
    pub stopped_by_itself: Option<StoppedByItself>,
    /// When we last pressed the guest's power button: its end shortly after is not its own doing.
    pub power_pressed_at: Option<Timestamp>,
    /// Ports that the spec no longer names and whose taps may exist.
    pub ports: Vec<PortId>,
    /// Volumes that its process, or the one that reads its saved memory, may have open.
    pub plugged: Vec<GuestVolume>,
    /// The root disk holds all of its data and stands on no image.
    pub flat: bool,
    /// How often it crashed and was started again since it last ran for long.
    pub crashes: u32,
}

impl Done {
    /// Its process is gone, and that was asked for.
    pub fn end_life(&mut self) {
        self.alive = None;
        self.ending = false;
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Alive {
    pub pid: i32,
    pub start_ticks: u64,
    pub boot_id: String,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StoppedByItself {
    /// It is not started again until something has been asked of its power in a generation above this.
    pub generation: u64,
    pub reason: String,
}

/// A ledger and its file. Cheap to clone; changes are on disk before anybody sees them.
#[derive(Clone)]
pub struct LedgerFile {
    files: GuestFiles,
    ledger: Arc<Mutex<Ledger>>,
    /// The guest and its files have been removed.
    gone: Arc<AtomicBool>,
}

impl LedgerFile {
    /// Begins a ledger with its first spec. Its content is on disk, its name survives the end of the agent; that it
    /// survives the host's is seen to before the guest runs ([`LedgerFile::begin_life`]): until then there is nothing
    /// that a host that ends would leave behind, and control says it again.
    pub async fn create(files: GuestFiles, spec: GuestSpec) -> io::Result<LedgerFile> {
        let ledger = Ledger { version: 1, spec, done: Done::default() };
        blocking(move || {
            files::make_folder(&files.folder)?;
            files::put_json(&files.ledger(), &ledger)?;
            Ok(LedgerFile { files, ledger: Arc::new(Mutex::new(ledger)), gone: Arc::default() })
        })
        .await
    }

    pub fn load(files: GuestFiles) -> io::Result<LedgerFile> {
        let ledger: Ledger = serde_json::from_slice(&std::fs::read(files.ledger())?)?;
        if ledger.version != 1 {
            return Err(io::Error::other(format!("the ledger has version {}, this agent reads 1", ledger.version)));
        }
        Ok(LedgerFile { files, ledger: Arc::new(Mutex::new(ledger)), gone: Arc::default() })
    }

    pub fn read(&self) -> Ledger {
        self.ledger.lock().unwrap_or_else(|broken| broken.into_inner()).clone()
    }

    /// What has been done by now, for a spec that was read before.
    pub fn read_with(&self, spec: GuestSpec) -> Ledger {
        Ledger { spec, ..self.read() }
    }

    pub fn is_gone(&self) -> bool {
        self.gone.load(Ordering::SeqCst)
    }

    /// Writes the file anew where it is not what we know. True where that was so.
    pub async fn ensure_written(&self) -> io::Result<bool> {
        let own = self.clone();
        blocking(move || {
            let ledger = own.ledger.lock().unwrap_or_else(|broken| broken.into_inner());
            let stands = std::fs::read(own.files.ledger()).ok().and_then(|text| serde_json::from_slice(&text).ok());
            if own.is_gone() || stands.as_ref() == Some(&*ledger) {
                return Ok(false);
            }
            files::make_folder(&own.files.folder)?;
            files::replace_json(&own.files.ledger(), &*ledger)?;
            Ok(true)
        })
        .await
    }

    /// Removes the guest: while `work` does so, nobody changes the ledger, and afterwards nobody can.
    pub async fn remove(&self, work: impl FnOnce() -> io::Result<()> + Send + 'static) -> io::Result<()> {
        let own = self.clone();
        blocking(move || {
            let _alone = own.ledger.lock().unwrap_or_else(|broken| broken.into_inner());
            work()?;
            own.gone.store(true, Ordering::SeqCst);
            Ok(())
        })
        .await
    }

    /// Says that the guest has a process, and makes all that was made for it last, before its first instruction.
    pub async fn begin_life(&self, change: impl FnOnce(&mut Ledger) + Send + 'static) -> io::Result<()> {
        self.update(change).await?;
        let folder = self.files.folder.clone();
        blocking(move || files::sync_folder(&folder)).await
    }

    /// Changes the ledger; a change of nothing writes nothing.
    pub async fn update<T: Send + 'static>(
        &self,
        change: impl FnOnce(&mut Ledger) -> T + Send + 'static,
    ) -> io::Result<T> {
        self.change(change, files::replace_json).await
    }

    /// The same where a host that loses its power may forget the change, and all before it since the last update: what
    /// control says again, and what concerns a process that is gone then.
    pub async fn note<T: Send + 'static>(
        &self,
        change: impl FnOnce(&mut Ledger) -> T + Send + 'static,
    ) -> io::Result<T> {
        self.change(change, files::put_json).await
    }

    async fn change<T: Send + 'static>(
        &self,
        change: impl FnOnce(&mut Ledger) -> T + Send + 'static,
        write: fn(&Path, &Ledger) -> io::Result<()>,
    ) -> io::Result<T> {
        let own = self.clone();
        blocking(move || {
            let mut ledger = own.ledger.lock().unwrap_or_else(|broken| broken.into_inner());
            if own.is_gone() {
                return Err(io::Error::new(io::ErrorKind::NotFound, "the guest has been removed"));
            }
            let mut new = ledger.clone();
            let answer = change(&mut new);
            if new != *ledger {
                write(&own.files.ledger(), &new)?;
                *ledger = new;
            }
            Ok(answer)
        })
        .await
    }
}

/// Runs something that waits for the disk where it holds up nobody.
pub async fn blocking<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other)?
}
