//! Quotas: what a project may have of volumes, snapshots and their gigabytes, in all and of each type.
//!
//! Use and a project's own limits are rows of the ledger; a limit that a project does not have of its own is that of
//! the class `default`, and what the class does not say is the program's. What is charged is charged in the
//! transaction that makes the thing.

mod limits;
mod sets;

use crate::document::{Snapshot, Volume};
use crate::types::VolumeType;
use crate::{Volumes, place};
use base::{Fault, Result};
use contract::recount::{Counts, Recount, add};
use rest::Route;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;
use store::{Document, Query, Reader, Tx};

/// Every resource with the limit that the program comes with, in Cinder's numbers.
pub const RESOURCES: &[(&str, i64)] = &[
    ("backup_gigabytes", 1000),
    ("backups", 10),
    ("gigabytes", 1000),
    ("groups", 10),
    ("per_volume_gigabytes", -1),
    ("snapshots", 10),
    ("volumes", 10),
];

/// What is counted of each type as well.
pub const OF_TYPES: &[&str] = &["gigabytes", "snapshots", "volumes"];

/// The limits of a class of projects. There is one class: `default`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct QuotaClass {
    pub name: String,
    pub limits: BTreeMap<String, i64>,
}

impl Document for QuotaClass {
    const KIND: &'static str = "volume_quota_class";
    fn id(&self) -> &str {
        &self.name
    }
}

pub fn scope(project: &str) -> String {
    format!("project:{project}")
}

/// The row of a type: it keeps its id, and shows its name.
pub fn of_type(resource: &str, type_id: &str) -> String {
    format!("{resource}_{type_id}")
}

pub fn is_ours(resource: &str) -> bool {
    let typed = OF_TYPES.iter().any(|name| resource.strip_prefix(name).is_some_and(|rest| rest.starts_with('_')));
    typed || RESOURCES.iter().any(|(name, _)| *name == resource)
}

/// The limits of who has none of its own; -1 is unlimited.
pub fn defaults(reader: &mut Reader) -> Result<BTreeMap<String, i64>> {
    let mut limits: BTreeMap<String, i64> =
        RESOURCES.iter().map(|(name, limit)| ((*name).to_owned(), *limit)).collect();
    if let Some(class) = reader.get::<QuotaClass>("default")? {
        limits.extend(class.doc.limits);
    }
    Ok(limits)
}

pub fn default_limit(reader: &mut Reader, resource: &str) -> Result<i64> {
    Ok(defaults(reader)?.get(resource).copied().unwrap_or(-1))
}

/// Names of quota rows as the API shows them, by the rows: the general ones, and those of each type.
pub fn rows(reader: &mut Reader) -> Result<Vec<(String, String)>> {
    let mut rows: Vec<(String, String)> = RESOURCES.iter().map(|(name, _)| ((*name).into(), (*name).into())).collect();
    for kind in reader.list::<VolumeType>(Query::all())? {
        for resource in OF_TYPES {
            rows.push((of_type(resource, &kind.id), of_type(resource, &kind.name)));
        }
    }
    Ok(rows)
}

/// Charges a project for resources of one type; a refusal names the first that falls short, in Cinder's words.
fn charge(tx: &mut Tx, project: &str, type_id: &str, deltas: &[(&str, i64)]) -> Result<()> {
    let (limits, scope) = (defaults(tx)?, scope(project));
    for (resource, delta) in deltas {
        for row in [(*resource).to_owned(), of_type(resource, type_id)] {
            let usage = tx.usage(&scope, &row)?;
            let limit = usage.limit.unwrap_or_else(|| limits.get(&row).copied().unwrap_or(-1));
            if *delta > 0 && limit >= 0 && usage.used.saturating_add(*delta) > limit {
                return Err(exceeded(resource, &row, *delta, usage.used, limit));
            }
        }
    }
    for (resource, delta) in deltas {
        for row in [(*resource).to_owned(), of_type(resource, type_id)] {
            tx.charge(&scope, &row, *delta, limits.get(&row).copied().filter(|limit| *limit >= 0))?;
        }
    }
    Ok(())
}

fn exceeded(resource: &str, row: &str, delta: i64, used: i64, limit: i64) -> Fault {
    Fault::quota(match resource {
        "volumes" => format!("VolumeLimitExceeded: Maximum number of volumes allowed ({limit}) exceeded for quota '{row}'."),
        "snapshots" => format!("SnapshotLimitExceeded: Maximum number of snapshots allowed ({limit}) exceeded for quota '{row}'."),
        _ => format!(
            "VolumeSizeExceedsAvailableQuota: Requested volume or snapshot exceeds allowed {row} quota. Requested \
             {delta}G, quota is {limit}G and {used}G has been consumed."
        ),
    })
}

/// Refuses a volume that is larger than one may be.
pub fn check_size(reader: &mut Reader, project: &str, size_gib: u64) -> Result<()> {
    let own = reader.usage(&scope(project), "per_volume_gigabytes")?.limit;
    let limit = match own {
        Some(limit) => limit,
        None => default_limit(reader, "per_volume_gigabytes")?,
    };
    if limit >= 0 && size_gib as i64 > limit {
        return Err(Fault::quota(format!(
            "VolumeSizeExceedsLimit: Requested volume size {size_gib}G is larger than maximum allowed limit {limit}G."
        )));
    }
    Ok(())
}

pub fn charge_volume(tx: &mut Tx, volume: &Volume) -> Result<()> {
    check_size(tx, &volume.project_id, volume.size_gib)?;
    let size = volume.size_gib as i64;
    charge(tx, &volume.project_id, &volume.volume_type, &[("volumes", 1), ("gigabytes", size)])
}

pub fn release_volume(tx: &mut Tx, volume: &Volume) -> Result<()> {
    let size = volume.size_gib as i64;
    charge(tx, &volume.project_id, &volume.volume_type, &[("volumes", -1), ("gigabytes", -size)])
}

pub fn charge_growth(tx: &mut Tx, volume: &Volume, by_gib: u64) -> Result<()> {
    check_size(tx, &volume.project_id, volume.size_gib + by_gib)?;
    charge(tx, &volume.project_id, &volume.volume_type, &[("gigabytes", by_gib as i64)])
}

pub fn charge_snapshot(tx: &mut Tx, snapshot: &Snapshot) -> Result<()> {
    let size = snapshot.size_gib as i64;
    charge(tx, &snapshot.project_id, &snapshot.volume_type, &[("snapshots", 1), ("gigabytes", size)])
}

pub fn release_snapshot(tx: &mut Tx, snapshot: &Snapshot) -> Result<()> {
    let size = snapshot.size_gib as i64;
    charge(tx, &snapshot.project_id, &snapshot.volume_type, &[("snapshots", -1), ("gigabytes", -size)])
}

impl Recount for Volumes {
    fn name(&self) -> &'static str {
        "volume"
    }

    fn recount(&self, reader: &mut Reader) -> Result<Counts> {
        use crate::document::{TrashedVolume, VolumeTombstone};
        let mut counts = Counts::new();
        let mut of = |project: &str, type_id: &str, count: &str, size: u64| {
            for (resource, amount) in [(count, 1), ("gigabytes", size as i64)] {
                add(&mut counts, &scope(project), resource, amount);
                add(&mut counts, &scope(project), &of_type(resource, type_id), amount);
            }
        };
        let volumes = reader.list::<Volume>(Query::all())?;
        for volume in &volumes {
            of(&volume.project_id, &volume.volume_type, "volumes", volume.size_gib);
        }
        for snapshot in reader.list::<Snapshot>(Query::all())? {
            of(&snapshot.project_id, &snapshot.volume_type, "snapshots", snapshot.size_gib);
        }
        let mut rooms: Vec<(String, u64)> = Vec::new();
        rooms.extend(volumes.iter().filter_map(|it| Some((it.host.clone()?.to_string(), it.size_gib))));
        for trashed in reader.list::<TrashedVolume>(Query::all())? {
            rooms.extend(trashed.volume.host.clone().map(|host| (host.to_string(), trashed.volume.size_gib)));
        }
        for tombstone in reader.list::<VolumeTombstone>(Query::all())? {
            rooms.push((tombstone.host.to_string(), tombstone.size_gib));
        }
        for (host, size) in rooms {
            add(&mut counts, &place::scope(&host), place::ROOM, size as i64);
        }
        Ok(counts)
    }
}

pub fn routes(state: &Arc<Volumes>) -> Vec<Route> {
    [sets::routes(state), limits::routes(state)].concat()
}
