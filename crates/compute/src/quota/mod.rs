//! Quotas: what a project, or for key pairs a user, may have.
//!
//! Use and a project's own limits are rows of the ledger; a limit that a project does not have of its own is that of
//! the class `default`, and what the class does not say is the program's. What is charged is charged in the
//! transaction that makes the thing.

mod classes;
mod limits;
mod sets;

use crate::Compute;
use crate::servers::ServerFlavor;
use base::{Fault, Result};
use rest::Route;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;
use store::{Document, Reader, Tx};

/// Every resource with the limit that the program comes with, in Nova's numbers.
pub const RESOURCES: &[(&str, i64)] = &[
    ("cores", 20),
    ("fixed_ips", -1),
    ("floating_ips", -1),
    ("injected_file_content_bytes", 10_240),
    ("injected_file_path_bytes", 255),
    ("injected_files", 5),
    ("instances", 10),
    ("key_pairs", 100),
    ("metadata_items", 128),
    ("ram", 51_200),
    ("security_group_rules", -1),
    ("security_groups", -1),
    ("server_group_members", 10),
    ("server_groups", 10),
];

/// The network's own resources, which Nova stopped showing with 2.36 and 2.50.
pub const OF_NETWORK: &[&str] = &["fixed_ips", "floating_ips", "security_group_rules", "security_groups"];
/// Files could be injected until 2.56.
pub const OF_FILES: &[&str] = &["injected_file_content_bytes", "injected_file_path_bytes", "injected_files"];

/// The limits of a class of projects. There is one class: `default`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct QuotaClass {
    pub name: String,
    pub limits: BTreeMap<String, i64>,
}

impl Document for QuotaClass {
    const KIND: &'static str = "compute_quota_class";
    fn id(&self) -> &str {
        &self.name
    }
}

pub fn project_scope(project: &str) -> String {
    format!("project:{project}")
}

pub fn user_scope(user: &str) -> String {
    format!("user:{user}")
}

/// The limit of a resource for who has none of its own; -1 is unlimited.
pub fn default_limit(reader: &mut Reader, resource: &str) -> Result<i64> {
    Ok(defaults(reader)?.get(resource).copied().unwrap_or(-1))
}

pub fn defaults(reader: &mut Reader) -> Result<BTreeMap<String, i64>> {
    let mut limits: BTreeMap<String, i64> =
        RESOURCES.iter().map(|(name, limit)| ((*name).to_owned(), *limit)).collect();
    if let Some(class) = reader.get::<QuotaClass>("default")? {
        limits.extend(class.doc.limits);
    }
    Ok(limits)
}

/// The limit that holds for a project.
pub fn limit_of(reader: &mut Reader, project: &str, resource: &str) -> Result<i64> {
    match reader.usage(&project_scope(project), resource)?.limit {
        Some(limit) => Ok(limit),
        None => default_limit(reader, resource),
    }
}

pub fn server_resources(flavor: &ServerFlavor, count: i64) -> [(&'static str, i64); 3] {
    [("cores", i64::from(flavor.vcpus) * count), ("instances", count), ("ram", flavor.ram_mib as i64 * count)]
}

/// What one user has in one project: rows that have a limit only where an administrator gave that user one.
pub fn member_scope(project: &str, user: &str) -> String {
    format!("project:{project}/user:{user}")
}

/// A resource that falls short: its name, what was asked, what is used, the limit.
type Short = (&'static str, i64, i64, i64);

/// Charges a project and its user for `count` servers; a refusal names every resource that falls short, as Nova does.
pub fn charge_servers(tx: &mut Tx, project: &str, user: &str, flavor: &ServerFlavor, count: i64) -> Result<()> {
    let limits = defaults(tx)?;
    let unlimited = BTreeMap::new();
    let rows = [(project_scope(project), &limits), (member_scope(project, user), &unlimited)];
    for (scope, limits) in &rows {
        let mut short: Vec<Short> = Vec::new();
        for (resource, delta) in server_resources(flavor, count) {
            let usage = tx.usage(scope, resource)?;
            let limit = usage.limit.unwrap_or_else(|| limits.get(resource).copied().unwrap_or(-1));
            if limit >= 0 && usage.used.saturating_add(delta) > limit {
                short.push((resource, delta, usage.used, limit));
            }
        }
        if !short.is_empty() {
            return Err(exceeded(&short));
        }
    }
    for (scope, limits) in &rows {
        for (resource, delta) in server_resources(flavor, count) {
            tx.charge(scope, resource, delta, limits.get(resource).copied())?;
        }
    }
    Ok(())
}

fn exceeded(short: &[Short]) -> Fault {
    let join = |text: fn(&Short) -> String| short.iter().map(text).collect::<Vec<_>>().join(", ");
    let names = join(|row| row.0.to_owned());
    Fault::quota(format!(
        "Quota exceeded for {names}: Requested {}, but already used {} of {} {names}",
        join(|row| row.1.to_string()),
        join(|row| row.2.to_string()),
        join(|row| row.3.to_string()),
    ))
}

pub fn release_server(tx: &mut Tx, project: &str, user: &str, flavor: &ServerFlavor) -> Result<()> {
    for scope in [project_scope(project), member_scope(project, user)] {
        for (resource, delta) in server_resources(flavor, -1) {
            tx.charge(&scope, resource, delta, None)?;
        }
    }
    Ok(())
}

/// Refuses more metadata than the project may give a server.
pub fn check_metadata(reader: &mut Reader, project: &str, items: usize) -> Result<()> {
    let limit = limit_of(reader, project, "metadata_items")?;
    if limit >= 0 && items as i64 > limit {
        return Err(Fault::quota(format!("Maximum number of metadata items exceeds {limit}")));
    }
    Ok(())
}

pub fn routes(state: &Arc<Compute>) -> Vec<Route> {
    [sets::routes(state), classes::routes(state), limits::routes(state)].concat()
}
