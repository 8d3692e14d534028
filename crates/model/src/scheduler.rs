//! Which host a server goes to, and why no other.
//!
//! A server's request is held against each host as a row of checks, one for each constraint. What decides is the same
//! row that explains: nothing else may refuse a host.

mod explain;

pub use explain::{Change, Explained, Row, Step, explain};

use base::HostName;
use serde::{Deserialize, Serialize};
use std::borrow::Borrow;
use std::collections::BTreeSet;

/// What a server needs.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Request {
    pub vcpus: u64,
    pub memory_mib: u64,
    pub disk_gib: u64,
    pub availability_zone: Option<String>,
    /// Only this host will do (`az:host`, by an administrator). A disabled host takes what names it.
    pub host: Option<HostName>,
    /// Hosts that have already failed at it.
    pub avoid: Vec<HostName>,
    /// The hosts on which its volumes are, or could be made. None: it has none.
    pub volumes: Option<BTreeSet<HostName>>,
}

/// A host as the scheduler sees it. Capacity is what may be handed out: `(total - reserved) * ratio`.
#[derive(Clone, Debug, PartialEq)]
pub struct Host {
    pub name: HostName,
    pub availability_zone: String,
    /// A session with it is alive.
    pub alive: bool,
    pub enabled: bool,
    pub vcpus: Room,
    pub memory_mib: Room,
    pub disk_gib: Room,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Room {
    pub used: u64,
    pub capacity: u64,
}

impl Room {
    pub fn free(self) -> u64 {
        self.capacity.saturating_sub(self.used)
    }
}

/// What can stand between a server and a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Constraint {
    /// The host that was asked for by name.
    NamedHost,
    HostUp,
    HostEnabled,
    AvailabilityZone,
    /// It has not failed at this server before.
    NotFailedBefore,
    /// Its volumes are there, or could be made there.
    Volumes,
    Vcpus,
    Memory,
    Disk,
}

impl Constraint {
    /// As people read it.
    pub fn name(self) -> &'static str {
        match self {
            Constraint::NamedHost => "the host that was asked for",
            Constraint::HostUp => "host up",
            Constraint::HostEnabled => "host enabled",
            Constraint::AvailabilityZone => "availability zone",
            Constraint::NotFailedBefore => "has not failed at this server before",
            Constraint::Volumes => "its volumes",
            Constraint::Vcpus => "vCPUs",
            Constraint::Memory => "memory (MiB)",
            Constraint::Disk => "disk (GiB)",
        }
    }
}

/// One constraint of one request on one host.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Check {
    pub constraint: Constraint,
    pub pass: bool,
    /// Where it is a matter of numbers: what is needed, what is free, and what the host hands out in all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub amount: Option<Amount>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Amount {
    pub needed: u64,
    pub free: u64,
    pub capacity: u64,
}

/// Every constraint of a request on a host, also those that it meets. The order is fixed.
pub fn checks(request: &Request, host: &Host) -> Vec<Check> {
    let check = |constraint, pass| Check { constraint, pass, amount: None };
    let mut row = Vec::with_capacity(9);
    if let Some(wanted) = &request.host {
        row.push(check(Constraint::NamedHost, *wanted == host.name));
    }
    row.push(check(Constraint::HostUp, host.alive));
    // Who names a host means it, also while it is disabled for everybody else.
    row.push(check(Constraint::HostEnabled, host.enabled || request.host.is_some()));
    if let Some(wanted) = &request.availability_zone {
        row.push(check(Constraint::AvailabilityZone, *wanted == host.availability_zone));
    }
    if !request.avoid.is_empty() {
        row.push(check(Constraint::NotFailedBefore, !request.avoid.contains(&host.name)));
    }
    if let Some(hosts) = &request.volumes {
        row.push(check(Constraint::Volumes, hosts.contains(&host.name)));
    }
    for (constraint, needed, room) in needs(request, host) {
        let amount = Amount { needed, free: room.free(), capacity: room.capacity };
        row.push(Check { constraint, pass: needed <= room.free(), amount: Some(amount) });
    }
    row
}

fn needs(request: &Request, host: &Host) -> [(Constraint, u64, Room); 3] {
    [
        (Constraint::Vcpus, request.vcpus, host.vcpus),
        (Constraint::Memory, request.memory_mib, host.memory_mib),
        (Constraint::Disk, request.disk_gib, host.disk_gib),
    ]
}

/// The same decision as [`checks`], without a row: a choice looks at every host of the cloud.
fn fits(request: &Request, host: &Host) -> bool {
    host.alive
        && request.host.as_ref().map_or(host.enabled, |wanted| *wanted == host.name)
        && request.availability_zone.as_ref().is_none_or(|zone| *zone == host.availability_zone)
        && !request.avoid.contains(&host.name)
        && request.volumes.as_ref().is_none_or(|hosts| hosts.contains(&host.name))
        && needs(request, host).iter().all(|(_, needed, room)| *needed <= room.free())
}

/// Why a server went where it went.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Decision {
    pub host: HostName,
    /// How many hosts there were, and how many of them fitted.
    pub hosts: u64,
    pub fitting: u64,
    /// What was free on the chosen host before.
    pub free_memory_mib: u64,
    pub free_vcpus: u64,
    /// The next best host with its free memory (MiB), if any fitted.
    pub runner_up: Option<(HostName, u64)>,
    /// It was asked for by name.
    pub asked_for: bool,
}

impl Decision {
    /// For administrators: it names hosts.
    pub fn sentence(&self) -> String {
        let Decision { host, hosts, fitting, free_memory_mib, free_vcpus, .. } = self;
        if self.asked_for {
            return format!("{host} was asked for by name, and fitted.");
        }
        let beaten = match &self.runner_up {
            Some((next, free)) => format!("; the next best, {next}, had {free} MiB"),
            None => String::new(),
        };
        format!(
            "{fitting} of {hosts} hosts fitted, and {host} had the most free memory: {free_memory_mib} MiB, with \
             {free_vcpus} vCPUs{beaten}."
        )
    }
}

/// The fitting host with the most free memory, then the most free processors, then the first by name.
pub fn decide<H: Borrow<Host>>(request: &Request, hosts: &[H]) -> Result<Decision, Explained> {
    let weight = |host: &Host| (host.memory_mib.free(), host.vcpus.free());
    // On equal weight the first by name is better.
    let better = |a: &Host, b: &Host| (weight(a), &b.name) > (weight(b), &a.name);
    let (mut best, mut next): (Option<&Host>, Option<&Host>) = (None, None);
    let mut fitting = 0;
    for host in hosts.iter().map(Borrow::borrow).filter(|host| fits(request, host)) {
        fitting += 1;
        if best.is_none_or(|best| better(host, best)) {
            (next, best) = (best, Some(host));
        } else if next.is_none_or(|next| better(host, next)) {
            next = Some(host);
        }
    }
    let Some(best) = best else {
        let hosts: Vec<Host> = hosts.iter().map(|host| host.borrow().clone()).collect();
        return Err(explain(request, &hosts));
    };
    Ok(Decision {
        host: best.name.clone(),
        hosts: hosts.len() as u64,
        fitting,
        free_memory_mib: best.memory_mib.free(),
        free_vcpus: best.vcpus.free(),
        runner_up: next.map(|next| (next.name.clone(), next.memory_mib.free())),
        asked_for: request.host.is_some(),
    })
}

/// [`decide`], where only the host matters.
pub fn choose<H: Borrow<Host>>(request: &Request, hosts: &[H]) -> Result<HostName, Explained> {
    decide(request, hosts).map(|decision| decision.host)
}

#[cfg(test)]
mod tests;
