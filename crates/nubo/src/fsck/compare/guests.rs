//! Guests: processes, control groups, folders, ledgers, overlays and taps.

use super::Sides;
use super::images::file_name;
use crate::fsck::files::{Folder, Ledger};
use crate::fsck::finding::{Finding, Repair};
use crate::fsck::machine::{Process, Role};
use agent::net::names;
use agent_api::{DesiredPower, GuestSpec};
use std::path::Path;

/// What a guest's folder may hold; and what is half written there.
const NAMES: &[&str] = &[
    "ledger.json",
    "process.lock",
    "root.qcow2",
    "config.iso",
    "memory",
    "qmp.sock",
    "serial.sock",
    "console.log",
    "console.log.1",
    "qemu.log",
];
/// Without these a process cannot be adopted by the next agent.
const NEEDED: &[&str] = &["process.lock", "qmp.sock", "serial.sock"];

pub fn compare(sides: &Sides<'_>) -> Vec<Finding> {
    let mut found = strays(sides);
    for guest in sides.shall.kept() {
        let folder = sides.files.folders.iter().find(|folder| folder.id == guest.id.as_str());
        let process = processes(sides, &guest.id).next();
        let one = One { sides, guest, folder, process };
        let before = found.len();
        one.folder(&mut found);
        one.process(&mut found);
        // One new start cures all that a process has lost.
        one.join_reboots(&mut found, before);
    }
    for folder in &sides.files.folders {
        if !sides.shall.owns(&folder.id) {
            let what = "it has no owner";
            let repair = Repair::Quarantine { path: folder.path.clone() };
            found.push(Finding::new(format!("guest directory {}", folder.path.display()), &folder.id, what, repair));
        }
    }
    found.extend(cgroups(sides));
    found.extend(containers(sides));
    found
}

/// No server is a container yet: one that bears the cloud's mark belongs to nobody.
fn containers(sides: &Sides<'_>) -> Vec<Finding> {
    let stray = |process: &Process| {
        let Role::Container { name, folder } = &process.role else { return None };
        let repair = match process.genuine {
            true => Repair::StopContainer {
                name: name.clone(),
                folder: folder.clone(),
                pid: process.pid,
                started: process.started,
            },
            false => Repair::hand("it only calls itself a container of LXC: end it if it is yours"),
        };
        let id = name.strip_prefix(&format!("nubo-{}-", sides.cloud)).unwrap_or_default();
        Some(Finding::new(format!("container {name}"), id, "it has no owner", repair))
    };
    sides.machine.processes.iter().filter_map(stray).collect()
}

/// The processes of a guest, under the guests' account.
pub(super) fn processes<'a>(sides: &'a Sides<'_>, id: &'a str) -> impl Iterator<Item = &'a Process> {
    let is = move |process: &&Process| process.role == Role::Guest(id.into()) && is_ours(sides, process);
    sides.machine.processes.iter().filter(is)
}

/// Anybody can give a process a name: ours run under the guests' account.
fn is_ours(sides: &Sides<'_>, process: &Process) -> bool {
    Some(process.uid) == sides.machine.guests_uid
}

/// Guests' processes that nobody owns, or that are one too many.
fn strays(sides: &Sides<'_>) -> Vec<Finding> {
    let mut found = Vec::new();
    for process in &sides.machine.processes {
        let (Role::Guest(id) | Role::Work(id)) = &process.role else { continue };
        let guest = matches!(process.role, Role::Guest(_));
        let kill = match is_ours(sides, process) {
            true => Repair::Kill { pid: process.pid, started: process.started },
            false => Repair::hand("it does not run under the guests' account: end it if it is yours"),
        };
        let alive = sides
            .files
            .folders
            .iter()
            .find(|folder| folder.id == *id)
            .and_then(known)
            .and_then(|l| l.done.alive.clone());
        let second = || {
            alive.is_some_and(|alive| alive.pid != process.pid && processes(sides, id).any(|it| it.pid == alive.pid))
        };
        let object = format!("process {} ({})", process.pid, if guest { "guest" } else { "disks at work" });
        if !sides.shall.owns(id) || !is_ours(sides, process) {
            found.push(Finding::new(object, id, "it has no owner", kill));
        } else if guest && second() {
            found.push(Finding::new(object, id, "its guest runs in another process already", kill));
        } else if process.frozen {
            let repair = Repair::Continue { pid: process.pid, started: process.started };
            let (name, what) = match guest {
                true => (sides.shall.name("server", id), "its process was stopped by a signal"),
                false => (object, "it was stopped by a signal"),
            };
            found.push(Finding::new(name, id, what, repair));
        }
    }
    found
}

pub(super) fn known(folder: &Folder) -> Option<&Ledger> {
    folder.ledger.as_ref()?.as_ref().ok()
}

/// One guest with all that belongs to it.
struct One<'a> {
    sides: &'a Sides<'a>,
    guest: &'a GuestSpec,
    folder: Option<&'a Folder>,
    process: Option<&'a Process>,
}

impl One<'_> {
    fn finding(&self, what: impl Into<String>, repair: Repair) -> Finding {
        Finding::new(self.sides.shall.name("server", &self.guest.id), self.guest.id.as_str(), what, repair)
    }

    fn agent(&self) -> Repair {
        self.sides.agent()
    }

    fn folder(&self, found: &mut Vec<Finding>) {
        let Some(folder) = self.folder else {
            // The host may not have been told yet; a running process has lost its disk.
            if self.process.is_some() {
                found.push(
                    self.finding("its directory is gone", Repair::hand("its disk is lost: rebuild or delete it")),
                );
            }
            return;
        };
        self.ledger(folder, found);
        let partial = |name: &str| name.ends_with(".partial");
        for name in folder.names.iter().filter(|name| !NAMES.contains(&name.as_str()) && !partial(name)) {
            let repair = Repair::Quarantine { path: folder.path.join(name) };
            found.push(self.finding(format!("its directory holds {name}, which is none of its files"), repair));
        }
        let saved = known(folder).is_some_and(|ledger| ledger.done.memory_saved);
        if folder.names.iter().any(|name| name == "memory") && !saved && self.guest.power == DesiredPower::Running {
            let repair = Repair::Quarantine { path: folder.path.join("memory") };
            found.push(self.finding("it has saved memory, though it was not suspended", repair));
        }
        self.overlay(folder, found);
    }

    fn ledger(&self, folder: &Folder, found: &mut Vec<Finding>) {
        let ledger = match &folder.ledger {
            None => return found.push(self.finding("its ledger is missing", self.agent())),
            Some(Err(_)) => return found.push(self.finding("its ledger cannot be read", self.agent())),
            Some(Ok(ledger)) => ledger,
        };
        let (is, shall) = (&ledger.spec, self.guest);
        let what = if ledger.version != 1 || is.id != shall.id {
            Some("its ledger is of another guest or version".to_owned())
        } else if is.generation != shall.generation {
            Some(format!("its ledger has generation {}, the store has {}", is.generation, shall.generation))
        } else if core(is) != core(shall) {
            Some("its ledger asks for something else than the store".to_owned())
        } else {
            None
        };
        found.extend(what.map(|what| self.finding(what, self.agent())));
        let gone = |alive: &crate::fsck::files::Alive| {
            processes(self.sides, &self.guest.id)
                .all(|process| process.pid != alive.pid || process.started != alive.start_ticks)
        };
        if ledger.done.alive.as_ref().is_some_and(gone) {
            found.push(self.finding("its ledger names a process that is gone", self.agent()));
        }
    }

    fn overlay(&self, folder: &Folder, found: &mut Vec<Finding>) {
        // One that boots from a volume has no disk of its own.
        let Some(root) = &self.guest.root else { return };
        let lost = || Repair::hand("what was on its disk is lost: rebuild or delete it");
        let ran = known(folder).is_some_and(|ledger| ledger.done.started_at.is_some());
        let overlay = match &folder.overlay {
            None if ran => return found.push(self.finding("its disk is gone", lost())),
            None => return,
            Some(Err(why)) => return found.push(self.finding(format!("its disk is damaged: {why}"), lost())),
            Some(Ok(overlay)) => overlay,
        };
        let name = format!("../../images/{}", file_name(root));
        if overlay.backing != name && !overlay.stands_alone(root) {
            let path = folder.path.join("root.qcow2");
            let repair = match self.process {
                _ if overlay.backing.len() != name.len() => {
                    Repair::hand("its header has another shape than nubo writes")
                }
                Some(_) => Repair::hand("stop the server first: its disk is in use"),
                None => Repair::Backing { path, name },
            };
            found.push(self.finding("its disk names another image below it", repair));
        }
        let wanted = root.size_gib << 30;
        if wanted > 0 && overlay.size_bytes != wanted {
            let what = format!("its disk has {} bytes instead of {wanted}", overlay.size_bytes);
            found.push(self.finding(what, Repair::hand("somebody has resized it: see to its file system first")));
        }
    }

    fn process(&self, found: &mut Vec<Finding>) {
        let Some(process) = self.process else { return };
        let reboot = || match self.sides.offline {
            true => Repair::hand("start it anew when the cloud is up: openstack server reboot --hard"),
            false => Repair::Reboot { server: self.guest.id.to_string() },
        };
        if let Some(folder) = self.folder {
            for name in NEEDED.iter().filter(|name| !folder.names.iter().any(|it| it == *name)) {
                found.push(self.finding(format!("it runs, but its {name} is gone"), reboot()));
            }
            if folder.names.iter().any(|name| name == "process.lock") && !folder.locked {
                found.push(self.finding("it runs, but does not hold its lock", reboot()));
            }
        }
        let links = &self.sides.machine.kernel;
        for nic in &self.guest.nics {
            let name = names::tap(&nic.port);
            if !links.iter().any(|link| link.kind == "link" && link.name == name) {
                found.push(self.finding(format!("the link {name} of its port {} is gone", nic.port), reboot()));
            }
        }
        for (path, members) in &self.sides.machine.cgroups {
            if is_group(path, &self.guest.id) && !members.contains(&process.pid) {
                let repair = self.join(process);
                found.push(self.finding(format!("its process is not in {}", path.display()), repair));
            }
        }
        for base in &self.sides.machine.cgroup_bases {
            let path = base.join(self.guest.id.as_str());
            if !self.sides.machine.cgroups.iter().any(|(known, _)| *known == path) {
                found.push(self.finding(format!("its control group {} is gone", path.display()), self.join(process)));
            }
        }
    }

    fn join(&self, process: &Process) -> Repair {
        let (server, vcpus) = (self.guest.id.to_string(), self.guest.vcpus);
        Repair::JoinCgroup { server, vcpus, pid: process.pid, started: process.started }
    }

    fn join_reboots(&self, found: &mut Vec<Finding>, from: usize) {
        let reboots = |finding: &Finding| matches!(finding.repair, Repair::Reboot { .. });
        if !found[from..].iter().any(reboots) {
            return;
        }
        // What the agent would write about the old process is written by the new start.
        let stale = |finding: &Finding| finding.what.contains("control group") || finding.what.contains("is not in /");
        let kept: Vec<Finding> = found.drain(from..).filter(|finding| !stale(finding)).collect();
        found.extend(kept);
    }
}

/// What must be the same in both at one generation; metadata may be told anew without one.
fn core(spec: &GuestSpec) -> impl PartialEq + use<> {
    let ports: Vec<String> = spec.nics.iter().map(|nic| format!("{} {} {}", nic.port, nic.network, nic.mac)).collect();
    (
        (spec.power, spec.soft_reboots, spec.hard_reboots, spec.vcpus, spec.memory_mib),
        (spec.root.clone(), spec.volumes.clone(), spec.on_crash, spec.config_drive, ports),
    )
}

fn is_group(path: &Path, id: &str) -> bool {
    path.file_name().is_some_and(|name| name == id)
}

fn cgroups(sides: &Sides<'_>) -> Vec<Finding> {
    let stray = |(path, members): &(std::path::PathBuf, Vec<i32>)| {
        let id = path.file_name()?.to_string_lossy().into_owned();
        if sides.shall.owns(&id) {
            return None;
        }
        let repair = match members.is_empty() {
            true => Repair::RemoveCgroup { path: path.clone() },
            false => Repair::hand("processes are in it: end them first"),
        };
        Some(Finding::new(format!("cgroup {}", path.display()), id, "it has no owner", repair))
    };
    sides.machine.cgroups.iter().filter_map(stray).collect()
}
