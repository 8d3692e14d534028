//! Why no host will do: the table, the nearest miss, and the smallest change that would fit.
//!
//! Owners of servers read names of constraints and counts, and what they themselves could change. Names of hosts, free
//! room and what would have to change on a host are for administrators.

use super::{Check, Constraint, Host, Request, Room, checks, needs};
use base::HostName;
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt;

/// The most hosts of a table that is written down.
const ROWS: usize = 64;

/// A host and everything that was asked of it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Row {
    pub host: HostName,
    pub checks: Vec<Check>,
}

impl Row {
    pub fn failed(&self) -> impl Iterator<Item = &Check> {
        self.checks.iter().filter(|check| !check.pass)
    }
}

/// Host × constraint, in the order in which the hosts were given.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Explained {
    pub rows: Vec<Row>,
    /// The host that fails at the least.
    pub nearest: Option<HostName>,
    /// The smallest change of the request alone.
    pub of_request: Option<Change>,
    /// The smallest change of all, of the request or of hosts.
    pub of_all: Option<Change>,
}

/// Something that makes a request fit: all steps together.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Change {
    pub steps: Vec<Step>,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Step {
    WithoutNamedHost,
    WithoutZone,
    /// Its volumes are elsewhere, or no host that would do has room for them.
    WithoutVolumes,
    /// By so much smaller.
    SmallerFlavor {
        vcpus: u64,
        memory_mib: u64,
        disk_gib: u64,
    },
    HostUp {
        host: HostName,
    },
    HostEnabled {
        host: HostName,
    },
    Free {
        host: HostName,
        vcpus: u64,
        memory_mib: u64,
        disk_gib: u64,
    },
    /// Nothing that is there can take it, whatever else changed.
    AnotherHost {
        zone: Option<String>,
        vcpus: u64,
        memory_mib: u64,
        disk_gib: u64,
    },
}

/// A change with what it costs: how many steps, then how large they are in proportion, then the host's place.
type Priced = ((usize, u64, usize), Change);

/// Why no host fits. Also right where one does: then its row has no failed check.
pub fn explain(request: &Request, hosts: &[Host]) -> Explained {
    let rows: Vec<Row> =
        hosts.iter().map(|host| Row { host: host.name.clone(), checks: checks(request, host) }).collect();
    let miss = |row: &Row| (row.failed().count(), row.failed().map(lack).sum::<u64>());
    let nearest = rows.iter().min_by_key(|row| miss(row)).map(|row| row.host.clone());
    let mut of_request: Option<Priced> = None;
    let mut of_all: Option<Priced> = None;
    for (place, host) in hosts.iter().enumerate() {
        for (less, steps) in lesser(request) {
            cheaper(&mut of_request, place, smaller(&less, host, steps.clone()));
            cheaper(&mut of_all, place, smaller(&less, host, steps.clone()));
            cheaper(&mut of_all, place, mended(&less, host, steps));
        }
    }
    let of_all = of_all.map_or_else(|| another(request), |(_, change)| change);
    Explained { rows, nearest, of_request: of_request.map(|(_, change)| change), of_all: Some(of_all) }
}

/// A new host, which has no name yet that could be asked for.
fn another(request: &Request) -> Change {
    let Request { vcpus, memory_mib, disk_gib, .. } = *request;
    let zone = request.availability_zone.clone();
    let unnamed = request.host.is_some().then_some(Step::WithoutNamedHost);
    let unbound = request.volumes.is_some().then_some(Step::WithoutVolumes);
    let host = Step::AnotherHost { zone, vcpus, memory_mib, disk_gib };
    Change { steps: unnamed.into_iter().chain(unbound).chain([host]).collect() }
}

/// How much is lacking, in parts per million of what is needed.
fn lack(check: &Check) -> u64 {
    check.amount.map_or(0, |amount| parts(amount.needed.saturating_sub(amount.free), amount.needed))
}

fn parts(part: u64, of: u64) -> u64 {
    (u128::from(part) * 1_000_000 / u128::from(of.max(1))).min(1 << 40) as u64
}

fn cheaper(best: &mut Option<Priced>, place: usize, found: Option<(Vec<Step>, u64)>) {
    let Some((steps, size)) = found else { return };
    let price = (steps.len(), size, place);
    if best.as_ref().is_none_or(|(known, _)| price < *known) {
        *best = Some((price, Change { steps }));
    }
}

/// The request as it is, and without each of its wishes about the place.
fn lesser(request: &Request) -> Vec<(Request, Vec<Step>)> {
    let mut all = vec![(request.clone(), vec![])];
    if request.host.is_some() {
        all.push((Request { host: None, ..request.clone() }, vec![Step::WithoutNamedHost]));
    }
    if request.availability_zone.is_some() {
        for (less, steps) in all.clone() {
            let steps = [steps, vec![Step::WithoutZone]].concat();
            all.push((Request { availability_zone: None, ..less }, steps));
        }
    }
    if request.volumes.is_some() {
        for (less, steps) in all.clone() {
            all.push((Request { volumes: None, ..less }, [steps, vec![Step::WithoutVolumes]].concat()));
        }
    }
    all
}

/// The steps after which the host takes the request with a smaller flavor at most, and the size of that step.
fn smaller(request: &Request, host: &Host, mut steps: Vec<Step>) -> Option<(Vec<Step>, u64)> {
    let (mut less, mut size) = ([0; 3], 0);
    for check in checks(request, host).iter().filter(|check| !check.pass) {
        let amount = check.amount?;
        // No server is without processors and memory.
        let least = u64::from(check.constraint != Constraint::Disk);
        if amount.free < least {
            return None;
        }
        less[index(check.constraint)?] = amount.needed - amount.free;
        size += lack(check);
    }
    if less != [0; 3] {
        let [vcpus, memory_mib, disk_gib] = less;
        steps.push(Step::SmallerFlavor { vcpus, memory_mib, disk_gib });
    }
    Some((steps, size))
}

/// The steps after which the host takes the request as large as it is.
fn mended(request: &Request, host: &Host, mut steps: Vec<Step>) -> Option<(Vec<Step>, u64)> {
    let (mut free, mut size) = ([0; 3], 0);
    for check in checks(request, host).iter().filter(|check| !check.pass) {
        let name = host.name.clone();
        match check.constraint {
            Constraint::HostUp => steps.push(Step::HostUp { host: name }),
            Constraint::HostEnabled => steps.push(Step::HostEnabled { host: name }),
            Constraint::NamedHost
            | Constraint::AvailabilityZone
            | Constraint::NotFailedBefore
            | Constraint::Volumes => return None,
            Constraint::Vcpus | Constraint::Memory | Constraint::Disk => {
                let at = index(check.constraint)?;
                let (_, needed, room) = needs(request, host)[at];
                if needed > room.capacity {
                    return None;
                }
                free[at] = over(room, needed);
                size += lack(check);
            }
        }
    }
    if free != [0; 3] {
        let [vcpus, memory_mib, disk_gib] = free;
        steps.push(Step::Free { host: host.name.clone(), vcpus, memory_mib, disk_gib });
    }
    Some((steps, size))
}

/// By how much a room would be overfull: a lowered ratio can leave more used than there is.
fn over(room: Room, needed: u64) -> u64 {
    (room.used.saturating_add(needed)).saturating_sub(room.capacity)
}

fn index(constraint: Constraint) -> Option<usize> {
    [Constraint::Vcpus, Constraint::Memory, Constraint::Disk].iter().position(|known| *known == constraint)
}

impl Explained {
    /// How many hosts fail at each constraint.
    pub fn counts(&self) -> BTreeMap<Constraint, usize> {
        let mut counts = BTreeMap::new();
        for check in self.rows.iter().flat_map(Row::failed) {
            *counts.entry(check.constraint).or_default() += 1;
        }
        counts
    }

    /// Without hosts' names and their room: what the owner of a server may read.
    pub fn summary(&self) -> String {
        if self.rows.is_empty() {
            return "The cloud has no hosts.".to_owned();
        }
        let counts: Vec<_> =
            self.counts().iter().map(|(constraint, count)| format!("{} {count}", constraint.name())).collect();
        let hosts = if self.rows.len() == 1 { "1 host".to_owned() } else { format!("{} hosts", self.rows.len()) };
        let change = match &self.of_request {
            Some(change) => format!("It would fit {change}."),
            None => "No change of the request would help; ask the administrator.".to_owned(),
        };
        format!("Of {hosts}, so many fail at: {}. {change}", counts.join(", "))
    }

    /// With hosts' names, for administrators.
    pub fn table(&self) -> String {
        let mut lines: Vec<String> = self.rows.iter().take(ROWS).map(Row::to_string).collect();
        if self.rows.len() > ROWS {
            lines.push(format!("and {} hosts more", self.rows.len() - ROWS));
        }
        lines.extend(self.nearest.as_ref().map(|host| format!("nearest: {host}")));
        lines.extend(self.of_all.as_ref().map(|change| format!("would fit: {change}")));
        lines.join("\n")
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.host)?;
        for (n, check) in self.checks.iter().enumerate() {
            let word = if check.pass { "ok" } else { "FAIL" };
            write!(f, "{} {} {word}", if n == 0 { "" } else { ";" }, check.constraint.name())?;
            if let Some(amount) = &check.amount {
                write!(f, " ({} needed, {} of {} free)", amount.needed, amount.free, amount.capacity)?;
            }
        }
        Ok(())
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let steps: Vec<String> = self.steps.iter().map(Step::to_string).collect();
        f.write_str(&steps.join(" and "))
    }
}

/// `1 vCPU less, 512 MiB less memory`.
fn amounts(vcpus: u64, memory_mib: u64, disk_gib: u64, word: &str) -> String {
    let parts = [
        (vcpus, format!("{vcpus} vCPU{}", if vcpus == 1 { "" } else { "s" })),
        (memory_mib, format!("{memory_mib} MiB of memory")),
        (disk_gib, format!("{disk_gib} GiB of disk")),
    ];
    let parts = parts.into_iter().filter(|(amount, _)| *amount > 0);
    parts.map(|(_, text)| format!("{text}{word}")).collect::<Vec<_>>().join(", ")
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Step::WithoutNamedHost => write!(f, "without asking for that host"),
            Step::WithoutZone => write!(f, "without asking for that availability zone"),
            Step::WithoutVolumes => write!(f, "without its volumes, or with them where there is room for it"),
            Step::SmallerFlavor { vcpus, memory_mib, disk_gib } => {
                write!(f, "with a flavor of {}", amounts(*vcpus, *memory_mib, *disk_gib, " less"))
            }
            Step::HostUp { host } => write!(f, "with host {host} up again"),
            Step::HostEnabled { host } => write!(f, "with host {host} enabled"),
            Step::Free { host, vcpus, memory_mib, disk_gib } => {
                write!(f, "with {} freed on host {host}", amounts(*vcpus, *memory_mib, *disk_gib, ""))
            }
            Step::AnotherHost { zone, vcpus, memory_mib, disk_gib } => {
                write!(f, "with another host that has {} free", amounts(*vcpus, *memory_mib, *disk_gib, ""))?;
                zone.as_ref().map_or(Ok(()), |zone| write!(f, " in zone {zone}"))
            }
        }
    }
}
