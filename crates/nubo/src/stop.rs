//! `nubo down` and `nubo purge`.

use crate::lock::{self, Lock};
use crate::netns;
use crate::process;
use crate::settings::Settings;
use crate::setup::{Accounts, Setup};
use crate::units;
use anyhow::{Context, Result, bail};
use std::path::Path;
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(10);
/// How long a guest may take to shut down when asked to.
const GUEST_PATIENCE: Duration = Duration::from_secs(30);

/// Stops the cloud's processes. Guests keep running unless `stop_guests`.
pub fn down(settings: &Settings, stop_guests: bool) -> Result<()> {
    let Some((_lock, setup)) = locked(settings, "down")? else {
        println!("no cloud in {}: nothing to stop", settings.state.display());
        return Ok(());
    };
    enter(settings)?;
    processes(settings, &setup)?;
    agent::offline::restore_ksm(&settings.state).context("the host's KSM")?;
    if stop_guests {
        let uid = guests_uid(&setup)?;
        let stop = agent::offline::stop_guests(&settings.state, &setup.cloud_id, uid, GUEST_PATIENCE);
        let stopped = runtime()?.block_on(stop)?;
        println!("stopped {stopped} guests");
    }
    println!("cloud {} is down{}", setup.cloud_id, if stop_guests { "" } else { "; guests keep running" });
    Ok(())
}

/// Removes everything that bears the cloud's id, and the state directory.
pub fn purge(settings: &Settings) -> Result<()> {
    let state = &settings.state;
    let Some((_lock, setup)) = locked(settings, "purge")? else {
        if state.exists() && !lock::is_all(state) {
            bail!("{} holds no cloud (no setup.json), so purge does not touch it", state.display());
        }
        println!("no cloud in {}: nothing to remove", state.display());
        return Ok(());
    };
    let inside = settings.netns.as_deref().is_none_or(netns::exists);
    if inside {
        enter(settings)?;
    }
    processes(settings, &setup)?;
    agent::offline::restore_ksm(&settings.state).context("the host's KSM")?;
    units::remove(&setup.cloud_id)?;
    if Accounts::find(&setup.cloud_id)?.is_some() {
        runtime()?.block_on(agent::offline::kill_guests(&setup.cloud_id, guests_uid(&setup)?))?;
    }
    if inside {
        let underlay = netlink::Netns::current()?;
        agent::net::purge(&setup.cloud_id, &underlay)?;
    }
    agent::offline::remove_cgroups(&setup.cloud_id)?;
    if let Some(name) = &setup.made_netns {
        netns::remove(name)?;
    }
    Accounts::remove(&setup.cloud_id)?;
    remove_state(state)?;
    println!("cloud {} is gone: its processes, networks, cgroups, accounts and {}", setup.cloud_id, state.display());
    println!("apt packages that nubo installed stay");
    Ok(())
}

/// The cloud of the state, with the lock that keeps other commands away from it; none where there is no cloud.
fn locked(settings: &Settings, command: &str) -> Result<Option<(Lock, Setup)>> {
    // Looked at first: a folder that holds no cloud gets no lock either.
    if Setup::load(&settings.state)?.is_none() {
        return Ok(None);
    }
    need_root(command)?;
    let lock = lock::take(&settings.state, || {
        println!("  waits   for another `nubo up`, `down` or `purge` of this state to end");
    })?;
    match Setup::load(&settings.state)? {
        Some(setup) => Ok(Some((lock, setup))),
        // It was a purge.
        None => lock::remove(&settings.state).map(|()| None),
    }
}

/// The state goes last and its setup.json last of all but the lock, so that a purge that was cut off can be run again.
fn remove_state(state: &Path) -> Result<()> {
    remove_all_but(state, &[&Setup::path(state), &state.join("run")])?;
    remove_all_but(&state.join("run"), &[&lock::path(state)])?;
    std::fs::remove_file(Setup::path(state))?;
    lock::remove(state)
}

fn remove_all_but(folder: &Path, kept: &[&Path]) -> Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if kept.contains(&path.as_path()) {
            continue;
        }
        if path.is_dir() && !path.is_symlink() {
            std::fs::remove_dir_all(&path)?;
        } else {
            std::fs::remove_file(&path)?;
        }
    }
    Ok(())
}

/// Stops supervisor, agent, control and netd. Guests keep running.
pub fn processes(settings: &Settings, setup: &Setup) -> Result<()> {
    units::stop(&setup.cloud_id)?;
    for (file, subcommand) in [("supervisor.pid", "supervise"), ("agent.pid", "agent"), ("control.pid", "control")] {
        let path = settings.run().join(file);
        if let Some(found) = process::find(&path, subcommand, &settings.state) {
            found.stop(PATIENCE)?;
        }
        let _ = std::fs::remove_file(path);
        // One that was just started again has written no pid file yet.
        for found in process::all(subcommand, &settings.state) {
            found.stop(PATIENCE)?;
        }
    }
    agent::netd::stop(&settings.run().join("netd.sock"));
    for found in process::all("netd", &settings.state) {
        found.stop(PATIENCE)?;
    }
    Ok(())
}

fn guests_uid(setup: &Setup) -> Result<u32> {
    let accounts = Accounts::find(&setup.cloud_id)?;
    Ok(accounts.ok_or_else(|| anyhow::anyhow!("the cloud's accounts are missing"))?.guests.0.as_raw())
}

fn runtime() -> Result<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_current_thread().enable_all().build()?)
}

fn need_root(command: &str) -> Result<()> {
    if nix::unistd::geteuid().is_root() {
        return Ok(());
    }
    bail!("`nubo {command}` stops processes of other accounts, so it needs root: sudo nubo {command}")
}

fn enter(settings: &Settings) -> Result<()> {
    match &settings.netns {
        Some(name) if netns::exists(name) => netns::enter(name),
        _ => Ok(()),
    }
}
