//! What is asked of a running QEMU, in words.

use crate::{Error, Qmp, Result};
use serde_json::json;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;
use tokio::sync::watch;

/// QEMU's run states, as far as they matter here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RunState {
    Running,
    /// Not yet told to run, or told to stop.
    Paused,
    /// Reading saved memory.
    Incoming,
    /// Memory saved, or being saved.
    Saved,
    /// The guest has switched itself off; the process stays until it is told to go.
    Shutdown,
    /// The host's disk is full or broken: the guest waits.
    DiskError,
    /// The guest is broken: QEMU cannot go on with it.
    Crashed,
}

/// A connection to one guest's QEMU.
pub struct Monitor {
    pub(crate) qmp: Qmp,
}

impl Monitor {
    pub async fn connect(socket: std::os::unix::net::UnixStream) -> Result<Monitor> {
        let io = |error| Error::Io("opening the monitor's socket", error);
        socket.set_nonblocking(true).map_err(io)?;
        let stream = tokio::net::UnixStream::from_std(socket).map_err(io)?;
        Ok(Monitor { qmp: Qmp::open(stream).await? })
    }

    pub fn changes(&self) -> watch::Receiver<u64> {
        self.qmp.changes()
    }

    pub async fn state(&self) -> Result<RunState> {
        let answer = self.qmp.call("query-status", json!({})).await?;
        let status = answer["status"].as_str().unwrap_or_default();
        Ok(match status {
            "running" | "suspended" => RunState::Running,
            "paused" | "prelaunch" | "restore-vm" | "save-vm" | "colo" | "watchdog" | "debug" => RunState::Paused,
            "inmigrate" => RunState::Incoming,
            "postmigrate" | "finish-migrate" => RunState::Saved,
            "shutdown" => RunState::Shutdown,
            "io-error" => RunState::DiskError,
            "internal-error" | "guest-panicked" => RunState::Crashed,
            other => return Err(Error::Protocol(format!("run state {other:?}"))),
        })
    }

    pub async fn go_on(&self) -> Result<()> {
        self.qmp.call("cont", json!({})).await.map(drop)
    }

    pub async fn pause(&self) -> Result<()> {
        self.qmp.call("stop", json!({})).await.map(drop)
    }

    /// Presses the power button.
    pub async fn press_power(&self) -> Result<()> {
        self.qmp.call("system_powerdown", json!({})).await.map(drop)
    }

    pub async fn reset(&self) -> Result<()> {
        self.qmp.call("system_reset", json!({})).await.map(drop)
    }

    /// Ends the process in order: what was written is flushed. The connection may close before the answer.
    pub async fn quit(&self) -> Result<()> {
        match self.qmp.call("quit", json!({})).await {
            Ok(_) | Err(Error::Closed) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Sends the memory of a paused guest into `sink` and waits until QEMU has given all of it.
    pub async fn save(&self, sink: BorrowedFd<'_>) -> Result<()> {
        let no_limit = json!({"max-bandwidth": 1u64 << 40});
        self.qmp.call("migrate-set-parameters", no_limit).await?;
        self.qmp.call_with("getfd", json!({"fdname": "memory"}), Some(sink)).await?;
        self.qmp.call("migrate", json!({"uri": "fd:memory"})).await?;
        loop {
            let answer = self.qmp.call("query-migrate", json!({})).await?;
            match answer["status"].as_str().unwrap_or_default() {
                "completed" => return Ok(()),
                status @ ("failed" | "cancelled") => {
                    let why = answer["error-desc"].as_str().unwrap_or("no reason given");
                    return Err(Error::Protocol(format!("saving the memory {status}: {why}")));
                }
                _ => tokio::time::sleep(Duration::from_millis(30)).await,
            }
        }
    }

    /// Stops a save that goes on without anybody who takes its bytes.
    pub async fn cancel_save(&self) -> Result<()> {
        self.qmp.call("migrate_cancel", json!({})).await.map(drop)
    }

    /// Hands over a connected socket as a viewer of the screen.
    pub async fn add_viewer(&self, socket: impl AsFd) -> Result<()> {
        self.qmp.call_with("getfd", json!({"fdname": "viewer"}), Some(socket.as_fd())).await?;
        let client = json!({"protocol": "vnc", "fdname": "viewer", "skipauth": true});
        self.qmp.call("add_client", client).await.map(drop)
    }

    /// The version as major * 1,000,000 + minor * 1,000 + patch.
    pub async fn version(&self) -> Result<u64> {
        let answer = self.qmp.call("query-version", json!({})).await?;
        let part = |name: &str| answer["qemu"][name].as_u64().unwrap_or(0);
        Ok(part("major") * 1_000_000 + part("minor") * 1_000 + part("micro"))
    }
}
