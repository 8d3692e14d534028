//! What is on this machine: written against the kernel and the files, not against the code that made things.

use crate::process;
use crate::settings::Settings;
use crate::setup::{Accounts, Setup};
use agent::net::KernelObject;
use anyhow::{Context, Result};
use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// A process that bears the cloud's marks.
#[derive(Clone, Debug, PartialEq)]
pub struct Process {
    pub pid: i32,
    /// Clock ticks since boot at which it started.
    pub started: u64,
    pub uid: u32,
    pub role: Role,
    /// Stopped by a signal.
    pub frozen: bool,
    /// Its program is the cloud's own, or QEMU.
    pub genuine: bool,
    pub line: String,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Role {
    /// A guest by `-name` and `-uuid`.
    Guest(String),
    /// It only holds disks, a server's or a volume's, while something is done to them; by the id of whose they are.
    Work(String),
    /// `supervise`, `control`, `agent` or `netd` of this state.
    Part(String),
    /// The monitor of a container of LXC: the container's name, and the folder where LXC keeps it.
    Container { name: String, folder: PathBuf },
}

/// One of the cloud's own processes as its file says.
#[derive(Clone, Debug, PartialEq)]
pub struct Part {
    pub name: &'static str,
    pub file: PathBuf,
    /// What the file says, if it can be read.
    pub pid: Option<i32>,
}

/// A file of the state with the owner and mode that it has and shall have.
#[derive(Clone, Debug, PartialEq)]
pub struct Place {
    pub path: PathBuf,
    pub is: Option<(u32, u32, u32)>,
    pub shall: (u32, u32, u32),
}

#[derive(Debug, Default)]
pub struct Machine {
    pub kernel: Vec<KernelObject>,
    pub processes: Vec<Process>,
    pub parts: Vec<Part>,
    /// The account of guests.
    pub guests_uid: Option<u32>,
    pub accounts: Vec<String>,
    pub missing_accounts: Vec<String>,
    /// Control groups of guests, with the processes in them.
    pub cgroups: Vec<(PathBuf, Vec<i32>)>,
    /// The cloud's directories of them, one a hierarchy.
    pub cgroup_bases: Vec<PathBuf>,
    pub places: Vec<Place>,
    /// Files whose absence keeps something from starting or being found, and what is missing.
    pub missing: Vec<PathBuf>,
    pub sockets: Vec<(PathBuf, bool)>,
    /// The netd that answers at its socket.
    pub netd: Option<i32>,
}

pub fn look(settings: &Settings, setup: &Setup) -> Result<Machine> {
    let underlay = netlink::Netns::current()?;
    let accounts = Accounts::find(&setup.cloud_id)?;
    let own = Accounts::names(&setup.cloud_id);
    let prefix = format!("nubo-{}-", setup.cloud_id);
    let known: Vec<String> = passwd()?.into_iter().filter(|name| name.starts_with(&prefix)).collect();
    let run = settings.run();
    let parts = [("supervise", "supervisor.pid"), ("control", "control.pid"), ("agent", "agent.pid")];
    let pid = |path: &Path| fs::read_to_string(path).ok()?.trim().parse().ok();
    let parts = parts.map(|(name, file)| Part { name, pid: pid(&run.join(file)), file: run.join(file) });
    let places = accounts.as_ref().map_or_else(Vec::new, |accounts| places(settings, accounts));
    let wanted = ["control/bootstrap.json", "clouds.yaml", "openrc", "bin/nubo", "run/url"];
    Ok(Machine {
        kernel: agent::net::inventory(&setup.cloud_id, &underlay).context("the kernel's network")?,
        processes: processes(settings, setup)?,
        parts: parts.to_vec(),
        guests_uid: accounts.as_ref().map(|accounts| accounts.guests.0.as_raw()),
        missing_accounts: own.iter().filter(|name| !known.contains(name)).cloned().collect(),
        accounts: known.into_iter().filter(|name| !own.contains(name)).collect(),
        cgroups: cgroups(setup),
        cgroup_bases: agent::offline::cgroups(&setup.cloud_id),
        missing: wanted.iter().map(|name| settings.state.join(name)).filter(|path| !path.exists()).collect(),
        sockets: ["control.sock", "control-fd.sock", "netd.sock"].map(|n| (run.join(n), run.join(n).exists())).to_vec(),
        netd: agent::netd::status(&run.join("netd.sock")).map(|(_, pid)| pid as i32),
        places,
    })
}

fn passwd() -> Result<Vec<String>> {
    let text = fs::read_to_string("/etc/passwd").context("/etc/passwd")?;
    Ok(text.lines().filter_map(|line| line.split(':').next()).map(str::to_owned).collect())
}

fn places(settings: &Settings, accounts: &Accounts) -> Vec<Place> {
    let directories = crate::setup::directories(&settings.state, accounts);
    // Control replaces its files in `run`, which is sticky.
    let own = [("run/url", 0o644), ("run/control.pid", 0o644)].map(|(name, mode)| (settings.state.join(name), mode));
    let control = (accounts.control.0.as_raw(), accounts.control.1.as_raw());
    let secrets = [("setup.json", 0), ("control/bootstrap.json", accounts.control.0.as_raw())];
    let secrets = secrets.map(|(name, uid)| (settings.state.join(name), uid));
    let mut all: Vec<Place> = directories
        .into_iter()
        .map(|(path, (uid, gid), mode)| (path, (uid.as_raw(), gid.as_raw(), mode)))
        .map(|(path, shall)| Place { is: stands(&path), path, shall })
        .collect();
    all.extend(secrets.into_iter().filter_map(|(path, uid)| {
        let is = stands(&path)?;
        Some(Place { shall: (uid, is.1, 0o600), is: Some(is), path })
    }));
    all.extend(own.into_iter().filter_map(|(path, mode)| {
        let is = stands(&path)?;
        Some(Place { shall: (control.0, control.1, mode), is: Some(is), path })
    }));
    // Whoever ran the command owns these; what matters is that nobody else reads them.
    let readable = ["clouds.yaml", "openrc", "demo.key"].map(|name| settings.state.join(name));
    all.extend(readable.into_iter().filter_map(|path| {
        let is = stands(&path)?;
        Some(Place { shall: (is.0, is.1, 0o600), is: Some(is), path })
    }));
    all
}

fn stands(path: &Path) -> Option<(u32, u32, u32)> {
    let about = fs::symlink_metadata(path).ok()?;
    Some((about.uid(), about.gid(), about.mode() & 0o7777))
}

/// Everything in /proc that bears the cloud's marks, but for this process.
fn processes(settings: &Settings, setup: &Setup) -> Result<Vec<Process>> {
    let program = crate::setup::program(&settings.state);
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").context("/proc")?.flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else { continue };
        let Ok(line) = fs::read(entry.path().join("cmdline")) else { continue };
        let words: Vec<String> =
            line.split(|b| *b == 0).map(|word| String::from_utf8_lossy(word).into_owned()).collect();
        let Some(role) = role(&words, settings, setup) else { continue };
        let (Some(started), Ok(about)) = (process::start_time(pid), fs::metadata(entry.path())) else { continue };
        if pid as u32 == std::process::id() {
            continue;
        }
        let exe = fs::read_link(entry.path().join("exe")).unwrap_or_default();
        let file = exe.file_name().unwrap_or_default().to_string_lossy().into_owned();
        // A program that was replaced meanwhile shows as deleted.
        let own = exe.to_string_lossy().trim_end_matches(" (deleted)") == program.to_string_lossy();
        let genuine = match role {
            Role::Guest(_) | Role::Work(_) => file.starts_with("qemu-system"),
            Role::Part(_) => own || file == "nubo",
            Role::Container { .. } => about.uid() == 0 && file.starts_with("lxc-"),
        };
        let stat = fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
        let state = stat.rsplit_once(')').and_then(|(_, rest)| rest.split_whitespace().next().map(str::to_owned));
        let frozen = matches!(state.as_deref(), Some("T" | "t"));
        let line = words.join(" ").trim().chars().take(200).collect();
        found.push(Process { pid, started, uid: about.uid(), role, frozen, genuine, line });
    }
    found.sort_by_key(|process| process.pid);
    Ok(found)
}

fn role(words: &[String], settings: &Settings, setup: &Setup) -> Option<Role> {
    let after = |flag: &str| words.get(words.iter().position(|word| word == flag)? + 1);
    let mark = format!("nubo-{}-", setup.cloud_id);
    // The title that liblxc gives a container's monitor is one word: `[lxc monitor] FOLDER NAME`.
    if let Some((folder, name)) = words[0].strip_prefix("[lxc monitor] ").and_then(|title| title.rsplit_once(' ')) {
        let container = || Role::Container { name: name.to_owned(), folder: folder.into() };
        return name.starts_with(&mark).then(container);
    }
    if let Some((_, name)) = after("-name").and_then(|name| name.split_once(&mark)) {
        let id = after("-uuid").cloned().unwrap_or_default();
        // `copy.ID@host`, `volume.ID@host`; a guest is `ID@host`.
        let works = name.split('@').next().is_some_and(|name| name.contains('.'));
        return Some(if works { Role::Work(id) } else { Role::Guest(id) });
    }
    if after("--state").is_none_or(|path| Path::new(path) != settings.state) {
        return None;
    }
    let part = words.iter().find(|word| matches!(word.as_str(), "supervise" | "control" | "agent" | "netd"));
    part.map(|part| Role::Part(part.clone()))
}

/// Directories below those named after the cloud, in every hierarchy.
fn cgroups(setup: &Setup) -> Vec<(PathBuf, Vec<i32>)> {
    let mut found = BTreeSet::new();
    for group in agent::offline::cgroups(&setup.cloud_id) {
        for entry in fs::read_dir(&group).into_iter().flatten().flatten().filter(|entry| entry.path().is_dir()) {
            found.insert(entry.path());
        }
    }
    let inside = |path: &Path| {
        let text = fs::read_to_string(path.join("cgroup.procs")).unwrap_or_default();
        text.lines().filter_map(|line| line.parse().ok()).collect()
    };
    found.into_iter().map(|path| (path.clone(), inside(&path))).collect()
}
