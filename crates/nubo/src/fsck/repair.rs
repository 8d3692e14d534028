//! Carrying out a plan, and looking whether it has helped.
//!
//! Parts come first, since they heal most of the rest; then documents, since everything else is compared with them;
//! then what is too many; the agent and new starts come last. What comes to light by that is repaired in further rounds.

use super::files;
use super::finding::{Finding, Repair};
use super::machine::{Machine, Role};
use super::{Looker, Source};
use crate::process::{self, Found};
use crate::setup::{self, Accounts, run};
use crate::{progress, up};
use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, chown};
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// A repair may bring other things to light: a document that is back has a namespace again.
const ROUNDS: usize = 4;
/// How long what was set in motion may take.
const PATIENCE: Duration = Duration::from_secs(45);
const PART_PATIENCE: Duration = Duration::from_secs(30);
const PAUSE: Duration = Duration::from_millis(300);

/// Carries out what can be, until nothing is left that can. Returns what is left.
pub fn carry_out(looker: &mut Looker<'_>, found: Vec<Finding>, aloud: bool) -> Result<Vec<Finding>> {
    let healthy = guests(&looker.look().map(|(_, machine)| machine).unwrap_or_default(), &found);
    let mut left = found;
    let mut failed: Vec<String> = Vec::new();
    for round in 0..ROUNDS {
        let possible: Vec<&Finding> = left.iter().filter(|finding| finding.repair.is_possible()).collect();
        if possible.is_empty() {
            break;
        }
        if round > 0 && aloud {
            possible.iter().for_each(|it| println!("  then {}\n    -> {}", it.line(), it.repair.plan()));
        }
        let documents = possible.iter().any(|finding| matches!(finding.repair, Repair::Store { .. }));
        failed = one_round(looker, &possible)?;
        left = settle(looker, if documents { 2 } else { 12 })?;
    }
    failed.iter().for_each(|error| eprintln!("nubo fsck: {error}"));
    let now = guests(&looker.look().map(|(_, machine)| machine).unwrap_or_default(), &[]);
    for (guest, process) in healthy {
        if now.get(&guest) != Some(&process) {
            eprintln!("nubo fsck: server {guest} did not keep its process, though nothing was planned for it");
        }
    }
    Ok(left)
}

/// Guests that nothing is planned for, with their processes.
fn guests(machine: &Machine, found: &[Finding]) -> BTreeMap<String, (i32, u64)> {
    let of = |process: &super::machine::Process| match &process.role {
        Role::Guest(id) => Some((id.clone(), (process.pid, process.started))),
        Role::Work(_) | Role::Part(_) | Role::Container { .. } => None,
    };
    let concerned: BTreeSet<&str> = found.iter().map(|finding| finding.id.as_str()).collect();
    machine.processes.iter().filter_map(of).filter(|(id, _)| !concerned.contains(id.as_str())).collect()
}

/// Looks until nothing changes for the better any more: until as many looks in a row have found the same. What can be
/// repaired and stays comes into the next round.
fn settle(looker: &mut Looker<'_>, looks: usize) -> Result<Vec<Finding>> {
    let until = Instant::now() + PATIENCE;
    let mut steady = (Vec::new(), 0);
    loop {
        let found = match looker.look() {
            Ok((found, _)) => found,
            Err(error) if Instant::now() > until => return Err(error),
            // Control is being started anew.
            Err(_) => {
                std::thread::sleep(PAUSE);
                continue;
            }
        };
        let helpless = found.iter().all(|finding| !finding.repair.is_possible());
        steady = if found == steady.0 { (found, steady.1 + 1) } else { (found, 1) };
        let enough = if helpless { 2 } else { looks };
        if steady.0.is_empty() || steady.1 >= enough || Instant::now() > until {
            return Ok(steady.0);
        }
        std::thread::sleep(PAUSE);
    }
}

/// Each repair once, in order. What failed is told; the rest goes on.
fn one_round(looker: &mut Looker<'_>, found: &[&Finding]) -> Result<Vec<String>> {
    let mut repairs: Vec<(u8, &Repair)> =
        found.iter().map(|finding| (order(&finding.repair), &finding.repair)).collect();
    repairs.sort();
    repairs.dedup();
    let mut failed = Vec::new();
    let mut documents = Vec::new();
    for (_, repair) in &repairs {
        if let Repair::Store { kind, id, .. } = repair {
            documents.push((kind.clone(), id.clone()));
        }
    }
    let mut mended = documents.is_empty();
    if !mended {
        // An owner may be what is missing: nothing on the machine goes before all documents are back.
        repairs.retain(|(at, _)| *at <= 2);
    }
    for (at, repair) in repairs {
        if at >= 2 && !mended {
            mended = true;
            if let Err(error) = mend(looker, &documents) {
                failed.push(format!("the store: {error:#}"));
            }
        }
        if let Err(error) = one(looker, repair) {
            failed.push(format!("{}: {error:#}", repair.plan()));
        }
    }
    Ok(failed)
}

fn order(repair: &Repair) -> u8 {
    match repair {
        Repair::Continue { .. } | Repair::State | Repair::Mode { .. } | Repair::WriteUrl | Repair::WritePid { .. } => 0,
        Repair::StartParts => 1,
        Repair::Store { .. } => 2,
        Repair::Agent => 4,
        Repair::Reboot { .. } => 5,
        Repair::Kill { .. } => 3,
        // After the processes that hold it.
        Repair::RemoveCgroup { .. } => 4,
        _ => 3,
    }
}

fn one(looker: &mut Looker<'_>, repair: &Repair) -> Result<()> {
    let (settings, setup) = (looker.settings, &looker.setup);
    match repair {
        Repair::Hand { .. } | Repair::Store { .. } => Ok(()),
        Repair::StartParts => start_parts(looker),
        Repair::Continue { pid, started } => match alive(*pid, *started) {
            Some(found) => Ok(kill(found.pid, Signal::SIGCONT)?),
            None => Ok(()),
        },
        Repair::Kill { pid, started } => {
            alive(*pid, *started).map_or(Ok(()), |found| found.stop(Duration::from_secs(5)))
        }
        Repair::StopContainer { name, folder, pid, started } => match alive(*pid, *started) {
            // Its namespaces, mounts and control groups go with it. Its monitor listens at an abstract socket, which
            // belongs to a network namespace: not ours, where a cloud has one of its own.
            Some(_) => {
                let (namespace, folder) = (format!("--net=/proc/{pid}/ns/net"), folder.to_string_lossy());
                run("nsenter", &[&namespace, "lxc-stop", "--kill", "-P", &folder, "-n", name]).map(drop)
            }
            None => Ok(()),
        },
        Repair::WritePid { path, pid } => {
            setup::write_public(path, pid.to_string().as_bytes())?;
            // Each part replaces its own file at its next start, in a directory that is sticky.
            let about = fs::metadata(format!("/proc/{pid}"))?;
            Ok(chown(path, Some(about.uid().into()), Some(about.gid().into()))?)
        }
        Repair::WriteUrl => write_url(looker),
        Repair::State => state(looker),
        Repair::Mode { path, mode } => Ok(fs::set_permissions(path, fs::Permissions::from_mode(*mode))?),
        Repair::RemoveAccount { name } => {
            let prefix = format!("nubo-{}-", setup.cloud_id);
            if !name.starts_with(&prefix) || Accounts::names(&setup.cloud_id).contains(name) {
                bail!("it is none that may go");
            }
            run("userdel", &[name]).map(drop)
        }
        Repair::Quarantine { path } => quarantine(&settings.state, path),
        Repair::Copy { from, to } => copy(&settings.state, from, to),
        Repair::Backing { path, name } => Ok(files::write_backing(path, name)?),
        Repair::RemoveNamespace { name } => run("ip", &["netns", "delete", name]).map(drop),
        Repair::RemoveLink { namespace, name } => match namespace {
            Some(namespace) => run("ip", &["-n", namespace, "link", "delete", name]).map(drop),
            None => run("ip", &["link", "delete", name]).map(drop),
        },
        Repair::RemoveTable { namespace, family, name } => {
            run("ip", &["netns", "exec", namespace, "nft", "delete", "table", family, name]).map(drop)
        }
        Repair::RemoveCgroup { path } => Ok(fs::remove_dir(path)?),
        Repair::JoinCgroup { server, vcpus, pid, started } => match alive(*pid, *started) {
            Some(_) => Ok(agent::offline::join_cgroups(&setup.cloud_id, &server.as_str().into(), *vcpus, *pid)?),
            None => Ok(()),
        },
        Repair::Agent => {
            let found = process::find(&settings.run().join("agent.pid"), "agent", &settings.state);
            let found = found.context("the agent does not run")?;
            Ok(kill(found.pid, Signal::SIGHUP)?)
        }
        Repair::Reboot { server } => reboot(looker, server),
    }
}

/// The process, if it is still the one that was looked at.
fn alive(pid: i32, started: u64) -> Option<Found> {
    let found = Found { pid: Pid::from_raw(pid), started };
    found.alive().then_some(found)
}

fn start_parts(looker: &Looker<'_>) -> Result<()> {
    let settings = looker.settings;
    up::ensure_supervisor(settings, &looker.setup, &progress::Progress::new())?;
    let file = |name: &str| settings.run().join(format!("{name}.pid"));
    let both = || ["control", "agent"].iter().all(|name| process::find(&file(name), name, &settings.state).is_some());
    if !process::wait_until(PART_PATIENCE, both) {
        bail!("control or agent does not get ready: see {}/log", settings.state.display());
    }
    Ok(())
}

/// Control replaces the file at its next start, so it is control's.
fn write_url(looker: &Looker<'_>) -> Result<()> {
    let path = looker.settings.run().join("url");
    let accounts = Accounts::find(&looker.setup.cloud_id)?.context("the cloud's accounts are missing")?;
    setup::write_public(&path, format!("{}\n", crate::status::url(looker.settings)?).as_bytes())?;
    Ok(chown(&path, Some(accounts.control.0), Some(accounts.control.1))?)
}

/// Directories, and the files that setup writes.
fn state(looker: &Looker<'_>) -> Result<()> {
    let (settings, setup) = (looker.settings, &looker.setup);
    let accounts = Accounts::find(&setup.cloud_id)?.context("the cloud's accounts are missing")?;
    setup::make_directories(&settings.state, &accounts)?;
    for path in ["url", "control.pid"].map(|name| settings.run().join(name)).iter().filter(|path| path.exists()) {
        chown(path, Some(accounts.control.0), Some(accounts.control.1))?;
    }
    up::write_control_files(settings, setup, &accounts)?;
    if !setup::program(&settings.state).exists() {
        up::ensure_program(settings, setup, &progress::Progress::new())?;
    }
    setup::write_clouds(settings, setup, &crate::status::url(settings)?, setup::person()).map(drop)
}

/// Moves something to where nothing uses it.
fn quarantine(state: &Path, path: &Path) -> Result<()> {
    let place = lost_and_found(state, path)?;
    match fs::rename(path, &place) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        other => other.with_context(|| format!("{} to {}", path.display(), place.display())),
    }
}

/// A free name in `lost+found` that tells where a thing was.
fn lost_and_found(state: &Path, path: &Path) -> Result<PathBuf> {
    let folder = state.join("lost+found");
    fs::DirBuilder::new().recursive(true).mode(0o700).create(&folder)?;
    let was = path.strip_prefix(state).unwrap_or(path).to_string_lossy().replace('/', "_");
    let free =
        (0..10_000).map(|n| folder.join(format!("{was}.{n}"))).find(|place| fs::symlink_metadata(place).is_err());
    free.context("lost+found is full")
}

/// Puts a copy into a place, with owner and mode of the things there.
fn copy(state: &Path, from: &Path, to: &Path) -> Result<()> {
    let folder = to.parent().context("no folder")?;
    let partial = to.with_extension("partial");
    fs::copy(from, &partial).with_context(|| format!("{} to {}", from.display(), partial.display()))?;
    let about = fs::metadata(folder)?;
    chown(&partial, Some(about.uid().into()), Some(about.gid().into()))?;
    fs::set_permissions(&partial, fs::Permissions::from_mode(0o600))?;
    fs::File::open(&partial)?.sync_all()?;
    if to.exists() {
        quarantine(state, to)?;
    }
    Ok(fs::rename(&partial, to)?)
}

/// Asks control to mend documents, or does it in the store itself.
fn mend(looker: &mut Looker<'_>, objects: &[(String, String)]) -> Result<()> {
    match &looker.source {
        Some(Source::Store(store)) => {
            let done = looker.runtime.block_on(store.repair(objects.iter().cloned().collect()));
            done.map(drop).map_err(|fault| anyhow::anyhow!(fault.chain()))
        }
        Some(Source::Control { client, url }) => {
            let objects: Vec<_> = objects.iter().map(|(kind, id)| json!({"kind": kind, "id": id})).collect();
            let body = json!({ "objects": objects });
            looker.runtime.block_on(client.post_url(&format!("{url}/nubo/v1/repair"), body)).map(drop)
        }
        None => bail!("control is not reached"),
    }
}

fn reboot(looker: &mut Looker<'_>, server: &str) -> Result<()> {
    let Some(Source::Control { client, .. }) = &looker.source else { bail!("control is not reached") };
    let body = json!({"reboot": {"type": "HARD"}});
    looker.runtime.block_on(client.post("compute", &format!("/servers/{server}/action"), body)).map(drop)
}

/// The store's files belong to control's account, also those that this process has made.
pub fn give_back(settings: &crate::settings::Settings, setup: &setup::Setup) -> Result<()> {
    let accounts = Accounts::find(&setup.cloud_id)?.context("the cloud's accounts are missing")?;
    for entry in fs::read_dir(settings.state.join("control"))?.flatten() {
        if entry.file_name().to_string_lossy().starts_with("nubo.db") {
            chown(&entry.path(), Some(accounts.control.0), Some(accounts.control.1))?;
        }
    }
    Ok(())
}
