//! The cloud's own processes, accounts, directories and small files.

use super::Sides;
use crate::fsck::finding::{Finding, Repair};
use crate::fsck::machine::{Process, Role};

pub fn compare(sides: &Sides<'_>) -> Vec<Finding> {
    let mut found = processes(sides);
    let machine = sides.machine;
    for name in &machine.accounts {
        let repair = Repair::RemoveAccount { name: name.clone() };
        found.push(Finding::new(format!("account {name}"), "", "it is none of the cloud's", repair));
    }
    for name in &machine.missing_accounts {
        let repair = Repair::hand("make it anew with the number that its files have: useradd --system --uid");
        found.push(Finding::new(format!("account {name}"), "", "it is missing", repair));
    }
    for place in &machine.places {
        let (uid, gid, mode) = place.shall;
        let what = match place.is {
            None => "it is missing".to_owned(),
            Some(is) if is != place.shall => {
                format!("it belongs to {}:{} with mode {:o} instead of {uid}:{gid} with {mode:o}", is.0, is.1, is.2)
            }
            Some(_) => continue,
        };
        let repair = match place.is {
            Some((own, group, _)) if (own, group) == (uid, gid) => Repair::Mode { path: place.path.clone(), mode },
            _ => Repair::State,
        };
        found.push(Finding::new(place.path.display().to_string(), "", what, repair));
    }
    for path in &machine.missing {
        let repair = match path.ends_with("run/url") {
            true if sides.offline => continue,
            true => Repair::WriteUrl,
            false => Repair::State,
        };
        found.push(Finding::new(path.display().to_string(), "", "it is missing", repair));
    }
    found
}

/// A part of the cloud that runs under its own program.
fn of<'a>(sides: &'a Sides<'_>, part: &'a str) -> impl Iterator<Item = &'a Process> {
    let is = move |process: &&Process| process.genuine && process.role == Role::Part(part.into());
    sides.machine.processes.iter().filter(is)
}

fn processes(sides: &Sides<'_>) -> Vec<Finding> {
    let mut found = Vec::new();
    let mut known: Vec<i32> = Vec::new();
    for part in &sides.machine.parts {
        let named = of(sides, part.name).find(|process| Some(process.pid) == part.pid);
        let runs = named.or_else(|| of(sides, part.name).next());
        let object = format!("process {}", part.name);
        match (named, runs) {
            _ if sides.offline && runs.is_none() => {}
            (None, None) => found.push(Finding::new(object, "", "it does not run", Repair::StartParts)),
            (None, Some(process)) => {
                let repair = Repair::WritePid { path: part.file.clone(), pid: process.pid };
                found.push(Finding::new(object, "", format!("{} does not name it", part.file.display()), repair));
            }
            (Some(_), _) => {}
        }
        known.extend(runs.map(|process| process.pid));
    }
    let netd = netd(sides, &mut found);
    known.extend(netd);
    for process in &sides.machine.processes {
        let Role::Part(part) = &process.role else { continue };
        if process.frozen {
            let repair = Repair::Continue { pid: process.pid, started: process.started };
            let what = "it was stopped by a signal and does nothing";
            found.push(Finding::new(format!("process {part} {}", process.pid), "", what, repair));
        } else if !known.contains(&process.pid) {
            let repair = match process.genuine {
                true => Repair::Kill { pid: process.pid, started: process.started },
                false => Repair::hand("it is no program of nubo's: end it if it is yours"),
            };
            let object = format!("process {} ({})", process.pid, process.line);
            found.push(Finding::new(object, "", "it has no owner", repair));
        }
    }
    found
}

/// The netd that serves is the one behind its socket; the agent keeps it running.
fn netd(sides: &Sides<'_>, found: &mut Vec<Finding>) -> Option<i32> {
    let serving = sides.machine.netd;
    for (path, there) in sides.machine.sockets.iter().filter(|_| !sides.offline) {
        if *there {
            continue;
        }
        // Its process made it at its start, and makes it again at the next.
        let part = if path.ends_with("netd.sock") { "netd" } else { "control" };
        let repair = match of(sides, part).next() {
            Some(process) => Repair::Kill { pid: process.pid, started: process.started },
            None => Repair::StartParts,
        };
        found.push(Finding::new(
            path.display().to_string(),
            "",
            format!("it is missing, and {part} is not heard"),
            repair,
        ));
        if part == "netd" {
            return of(sides, "netd").next().map(|process| process.pid);
        }
    }
    serving
}
