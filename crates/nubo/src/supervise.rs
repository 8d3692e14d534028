//! `nubo supervise`: keeps control and agent running where no systemd does.
//!
//! It starts each of them in a session of its own, starts a dead one again within a second, and adopts those that run
//! already (its own predecessor was killed). It stops nothing when it ends: `nubo down` stops each by its own pid file.

use crate::process::{self, Found};
use crate::settings::Settings;
use crate::setup::{Accounts, Setup};
use anyhow::{Context, Result};
use nix::unistd::{Gid, Uid};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tokio::signal::unix::{SignalKind, signal};

const LOOK: Duration = Duration::from_millis(100);
/// A process that lived shorter than this is started again with a growing pause, at most a second.
const SHORT: Duration = Duration::from_secs(5);

/// One process that must run.
struct Ward {
    name: &'static str,
    uid: Uid,
    gid: Gid,
    child: Option<Child>,
    adopted: Option<Found>,
    started: Instant,
    failures: u32,
}

impl Ward {
    fn running(&mut self) -> bool {
        if let Some(child) = &mut self.child {
            return matches!(child.try_wait(), Ok(None));
        }
        self.adopted.is_some_and(|found| found.alive())
    }

    fn start(&mut self, settings: &Settings) -> Result<()> {
        let log = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(settings.state.join("log").join(format!("{}.log", self.name)))?;
        let mut command = Command::new(crate::setup::program(&settings.state));
        command
            .args([self.name, "--state"])
            .arg(&settings.state)
            .envs(settings.environment())
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .current_dir("/")
            .uid(self.uid.as_raw())
            .gid(self.gid.as_raw());
        self.child = Some(command.spawn().with_context(|| format!("cannot start nubo {}", self.name))?);
        self.adopted = None;
        self.started = Instant::now();
        Ok(())
    }
}

/// Leads a session of its own from here on: no signal to the terminal or group of whoever started us reaches us.
pub fn own_session() {
    // Fails only for a leader of a group, which is its own already.
    let _ = nix::unistd::setsid();
}

pub fn main(settings: &Settings) -> Result<()> {
    let setup = Setup::load(&settings.state)?.context("the cloud is not set up: run `nubo up` first")?;
    let accounts = Accounts::find(&setup.cloud_id)?.context("the cloud's accounts are missing: run `nubo up`")?;
    own_session();
    let (control, root) = (accounts.control, (Uid::from_raw(0), Gid::from_raw(0)));
    let mut wards = [("control", control), ("agent", root)].map(|(name, (uid, gid))| {
        let adopted = process::all(name, &settings.state).first().copied();
        Ward { name, uid, gid, child: None, adopted, started: Instant::now(), failures: 0 }
    });
    std::fs::write(settings.run().join("supervisor.pid"), std::process::id().to_string())?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(watch(&mut wards, settings))?;
    let _ = std::fs::remove_file(settings.run().join("supervisor.pid"));
    Ok(())
}

/// Tends the wards until a TERM comes.
async fn watch(wards: &mut [Ward], settings: &Settings) -> Result<()> {
    let mut term = signal(SignalKind::terminate())?;
    loop {
        for ward in wards.iter_mut() {
            tend(ward, settings)?;
        }
        tokio::select! {
            _ = term.recv() => return Ok(()),
            _ = tokio::time::sleep(LOOK) => {}
        }
    }
}

fn tend(ward: &mut Ward, settings: &Settings) -> Result<()> {
    if ward.running() {
        if ward.started.elapsed() > SHORT {
            ward.failures = 0;
        }
        return Ok(());
    }
    let pause = Duration::from_millis(100 * u64::from(ward.failures.min(9)));
    if ward.started.elapsed() < pause {
        return Ok(());
    }
    ward.failures += 1;
    ward.start(settings)
}
