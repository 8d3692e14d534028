//! Processes by pid file: found, checked, watched and stopped by the pid that the file names, never by name alone.

use anyhow::Result;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

/// A process that a pid file names and that really is what the file says: a `nubo` with the given subcommand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    pub pid: Pid,
    /// Clock ticks since boot at which it started: two processes with the same pid differ in it.
    pub started: u64,
}

/// The live process behind a pid file. None for a missing or stale file, and for a pid that something else has taken.
pub fn find(file: &Path, subcommand: &str, state: &Path) -> Option<Found> {
    let pid: i32 = fs::read_to_string(file).ok()?.trim().parse().ok()?;
    is(pid, subcommand, state)
}

/// Every live process that was started as `nubo SUBCOMMAND --state STATE`: also one that is not ready and so has
/// written no pid file yet.
pub fn all(subcommand: &str, state: &Path) -> Vec<Found> {
    let pids = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = pids.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter_map(|pid| is(pid, subcommand, state)).collect()
}

fn is(pid: i32, subcommand: &str, state: &Path) -> Option<Found> {
    let words = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let words: Vec<&[u8]> = words.split(|byte| *byte == 0).collect();
    let [_, named, flag, of, ..] = words[..] else { return None };
    let ours = named == subcommand.as_bytes() && flag == b"--state" && of == state.as_os_str().as_encoded_bytes();
    ours.then_some(Found { pid: Pid::from_raw(pid), started: start_time(pid)? })
}

/// Field 22 of /proc/PID/stat. None for a process that is gone or a zombie.
pub fn start_time(pid: i32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    if matches!(fields.first(), Some(&"Z" | &"X")) {
        return None;
    }
    fields.get(19)?.parse().ok()
}

impl Found {
    pub fn alive(&self) -> bool {
        start_time(self.pid.as_raw()) == Some(self.started)
    }

    /// TERM, then after `patience` KILL; returns once it is gone.
    pub fn stop(&self, patience: Duration) -> Result<()> {
        if self.alive() {
            let _ = kill(self.pid, Signal::SIGTERM);
        }
        if wait_until(patience, || !self.alive()) {
            return Ok(());
        }
        let _ = kill(self.pid, Signal::SIGKILL);
        if wait_until(Duration::from_secs(5), || !self.alive()) {
            return Ok(());
        }
        anyhow::bail!("process {} does not end", self.pid)
    }
}

/// Looks again every 20 ms until `done` or the time is over.
pub fn wait_until(most: Duration, mut done: impl FnMut() -> bool) -> bool {
    let until = Instant::now() + most;
    loop {
        if done() {
            return true;
        }
        if Instant::now() >= until {
            return false;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}
