//! Finding a guest's process and taking hold of it.

use super::Actor;
use crate::agent::Host;
use crate::fault;
use agent_api::AgentFault;
use base::ServerId;
use qemu::process::{self, Seen};
use qemu::{Monitor, Process};
use std::fs::{File, TryLockError};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// A running process and its monitor.
pub struct Held {
    pub process: Process,
    /// Shared with who copies a disk, which takes longer than a step.
    pub monitor: Arc<Monitor>,
    pub changes: watch::Receiver<u64>,
}

impl Held {
    pub async fn connect(process: Process, socket: &Path) -> qemu::Result<Held> {
        let io = |error| qemu::Error::Io("connecting to the monitor", error);
        let connected = Monitor::connect(unixfd::connect(socket).map_err(io)?);
        // A process that ends meanwhile leaves its listening socket open no longer than itself.
        let monitor = tokio::select! {
            monitor = connected => monitor?,
            () = process.ended() => return Err(qemu::Error::Closed),
        };
        let changes = monitor.changes();
        Ok(Held { process, monitor: Arc::new(monitor), changes })
    }
}

/// What stands in the process's command line.
pub fn process_name(host: &Host, id: &ServerId) -> String {
    format!("{}{id}@{}", process_prefix(host), host.options.host)
}

pub fn process_prefix(host: &Host) -> String {
    format!("nubo-{}-", host.options.cloud)
}

/// Whether a process seen in /proc runs as our guests do: anybody may give a process a name.
pub fn is_ours(host: &Host, seen: &Seen) -> bool {
    let uid = host.options.guest_user.map_or_else(|| nix::unistd::getuid().as_raw(), |(uid, _)| uid);
    seen.uid == uid
}

/// The lock that a guest's process holds; none when one holds it. It goes with the last descriptor, so with the
/// process, whoever has started it and however it ends.
pub fn lock(path: &Path) -> io::Result<Option<File>> {
    let file = File::options().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)?;
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

impl Actor {
    /// Takes hold of a process that an earlier agent has started; none when there is none.
    pub(super) async fn adopt(&mut self) -> Result<Option<Held>, AgentFault> {
        let io = |error: io::Error| fault::disk("server's lock", &error);
        // Between fork and exec a process holds the lock and has no name yet.
        for _ in 0..250 {
            if lock(&self.files.lock()).map_err(io)?.is_some() {
                return Ok(None);
            }
            if let Some(process) = self.find()? {
                tracing::info!(server = %self.id, pid = process.pid, "adopted");
                self.wired = false;
                self.plugs = Default::default();
                self.confine(process.pid, self.ledger.read().spec.vcpus).await;
                let held = Held::connect(process, &self.files.monitor()).await;
                return held.map(Some).map_err(|error| fault::qemu("be reached after a restart of the agent", &error));
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Err(fault::qemu("be found", &"a process holds the server's lock, and none bears its name"))
    }

    fn find(&self) -> Result<Option<Process>, AgentFault> {
        let name = process_name(&self.host, &self.id);
        for seen in process::find(&name) {
            if seen.name != name || !is_ours(&self.host, &seen) {
                continue;
            }
            let opened = Process::open(seen.pid).map_err(|error| fault::qemu("be held", &error))?;
            // The number may have been given to another process between the look and the hold.
            if let Some(process) = opened
                && process::find(&name).contains(&seen)
            {
                return Ok(Some(process));
            }
        }
        Ok(None)
    }
}

/// Ends guests' processes that no ledger knows: their disks are gone, nobody can reach them.
pub fn end_orphans(host: &Host, known: impl Fn(&ServerId) -> bool) {
    let own = format!("@{}", host.options.host);
    for seen in process::find(&process_prefix(host)) {
        let Some(id) = seen.name.strip_prefix(&process_prefix(host)).and_then(|rest| rest.strip_suffix(&own)) else {
            continue;
        };
        if is_ours(host, &seen)
            && !known(&id.into())
            && let Ok(Some(process)) = Process::open(seen.pid)
        {
            tracing::warn!(server = id, pid = seen.pid, "ending a process that no ledger knows");
            process.kill();
        }
    }
}
