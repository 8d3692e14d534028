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
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

const LOOK: Duration = Duration::from_millis(100);
/// A process that lived shorter than this is started again with a growing pause, at most a second.
const SHORT: Duration = Duration::from_secs(5);

static STOP: AtomicBool = AtomicBool::new(false);

extern "C" fn on_term(_: nix::libc::c_int) {
    STOP.store(true, Ordering::SeqCst);
}

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
        let mut command = Command::new(std::env::current_exe()?);
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
        own_session(&mut command);
        self.child = Some(command.spawn().with_context(|| format!("cannot start nubo {}", self.name))?);
        self.adopted = None;
        self.started = Instant::now();
        Ok(())
    }
}

/// The child leads a session of its own: no signal to our terminal or group reaches it.
#[allow(unsafe_code)]
pub fn own_session(command: &mut Command) {
    // SAFETY: setsid is async-signal-safe and touches no memory of the parent.
    unsafe {
        command.pre_exec(|| nix::unistd::setsid().map(drop).map_err(std::io::Error::from));
    }
}

pub fn main(settings: &Settings) -> Result<()> {
    let setup = Setup::load(&settings.state)?.context("the cloud is not set up: run `nubo up` first")?;
    let accounts = Accounts::find(&setup.cloud_id)?.context("the cloud's accounts are missing: run `nubo up`")?;
    catch_term()?;
    let (control, root) = (accounts.control, (Uid::from_raw(0), Gid::from_raw(0)));
    let mut wards = [("control", control), ("agent", root)].map(|(name, (uid, gid))| {
        let adopted = process::find(&settings.run().join(format!("{name}.pid")), name, &settings.state);
        Ward { name, uid, gid, child: None, adopted, started: Instant::now(), failures: 0 }
    });
    std::fs::write(settings.run().join("supervisor.pid"), std::process::id().to_string())?;
    while !STOP.load(Ordering::SeqCst) {
        for ward in &mut wards {
            tend(ward, settings)?;
        }
        std::thread::sleep(LOOK);
    }
    let _ = std::fs::remove_file(settings.run().join("supervisor.pid"));
    Ok(())
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

#[allow(unsafe_code)]
fn catch_term() -> Result<()> {
    use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};
    let action = SigAction::new(SigHandler::Handler(on_term), SaFlags::SA_RESTART, SigSet::empty());
    // SAFETY: the handler only stores to an atomic.
    unsafe { sigaction(Signal::SIGTERM, &action)? };
    Ok(())
}
