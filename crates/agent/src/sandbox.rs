//! A QEMU that holds disks and never runs an instruction.
//!
//! What a guest has written is opened by no process of ours: copying a disk at rest, making it larger or merging its
//! layers is done by such a process, as confined as a guest's. It bears no guest's name, so that the next agent ends
//! what this one has left.

use crate::agent::Options;
use crate::files;
use crate::guest::Held;
use qemu::{Disk, Launch, Machine};
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::time::Duration;

/// How long a process that only held disks may take to end.
const LAST: Duration = Duration::from_secs(10);

/// How such processes are started on this host.
#[derive(Clone, Debug)]
pub struct Sandbox {
    program: PathBuf,
    user: Option<(u32, u32)>,
    prefix: String,
    host: String,
}

/// What one of them holds, and where it is reached.
pub struct Rest {
    /// Two words with a dot between them: what for, and the id of whose disk it is.
    pub name: String,
    pub uuid: String,
    pub disks: Vec<Disk>,
    pub monitor: PathBuf,
    pub serial: PathBuf,
    /// What QEMU says itself.
    pub log: PathBuf,
    /// Kept open as long as it lives.
    pub keep: Vec<OwnedFd>,
}

/// A process, and the sockets that go with it.
pub struct AtRest {
    pub held: Held,
    sockets: [PathBuf; 2],
    ended: bool,
}

impl Drop for AtRest {
    /// A step that was cut off: what it had begun is begun anew.
    fn drop(&mut self) {
        if !self.ended {
            self.held.process.kill();
        }
    }
}

impl Sandbox {
    pub fn new(options: &Options) -> Sandbox {
        Sandbox {
            program: options.qemu.clone(),
            user: options.guest_user,
            prefix: format!("nubo-{}-", options.cloud),
            host: options.host.to_string(),
        }
    }

    pub async fn start(&self, rest: Rest) -> io::Result<AtRest> {
        let own = self.clone();
        let sockets = [rest.monitor.clone(), rest.serial.clone()];
        // The process is made on this thread: it may not outlive its parent's thread by accident, but opening and
        // forking wait for the disk.
        let spawned = tokio::runtime::Handle::current();
        let process = tokio::task::spawn_blocking(move || {
            let _inside = spawned.enter();
            own.spawn(rest)
        });
        let process = process.await.map_err(io::Error::other)??;
        let held = Held::connect(process, &sockets[0]).await.map_err(io::Error::other)?;
        Ok(AtRest { held, sockets, ended: false })
    }

    fn spawn(&self, rest: Rest) -> io::Result<qemu::Process> {
        let machine = Machine {
            name: format!("{}{}@{}", self.prefix, rest.name, self.host),
            uuid: rest.uuid,
            accel: qemu::Accel::Tcg,
            vcpus: 1,
            memory_mib: 64,
            // It holds what a guest has written, and never runs for long.
            share_memory: Some(false),
            disks: rest.disks,
            nics: Vec::new(),
            qmp: unixfd::listen(&rest.monitor)?.into(),
            serial: unixfd::listen(&rest.serial)?.into(),
            console_log: File::options().append(true).open("/dev/null")?.into(),
            incoming: None,
            keep: rest.keep,
        };
        let stderr = File::options().append(true).create(true).mode(0o600).open(&rest.log)?;
        let launch = Launch {
            program: self.program.clone(),
            line: machine.command_line(),
            user: self.user,
            groups: Vec::new(),
            stderr,
            oom_score_adj: 500,
        };
        launch.spawn()
    }
}

impl AtRest {
    /// Ends it in order: what it was told to write is on disk.
    pub async fn end(mut self) -> io::Result<()> {
        let process = &self.held.process;
        let quit = self.held.monitor.quit().await;
        let ended = tokio::time::timeout(LAST, process.ended()).await;
        if ended.is_err() {
            process.kill();
        }
        self.ended = true;
        let status = process.exit_reason();
        for socket in &self.sockets {
            files::remove(socket)?;
        }
        quit.map_err(io::Error::other)?;
        match status.as_deref() {
            None | Some("ended with status 0") if ended.is_ok() => Ok(()),
            _ => Err(io::Error::other(format!("a process that held disks {}", status.unwrap_or("did not end".into())))),
        }
    }
}
