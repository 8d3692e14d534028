//! Hosts: hypervisors, compute services and availability zones are three looks at the same document.
//!
//! A host document is made when a host's session first says what it is, and changes when that changes or when an
//! administrator enables or disables it. Whether a host is alive stands in no document: [`contract::Hosts`] knows.

mod hypervisors;
pub mod rooms;
mod services;
mod zones;

use crate::{Ask, Compute};
use agent_api::HostInventory;
use base::{HostName, Result};
use model::scheduler::{self, Room};
use rest::Route;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use store::{Document, Keys, Query, Reader, Stored, Tx};

/// The zone of every host, until aggregates exist.
pub const ZONE: &str = "nova";

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Host {
    pub name: HostName,
    /// As a hypervisor, and as a service.
    pub uuid: String,
    pub service_uuid: String,
    pub number: u32,
    pub inventory: HostInventory,
    pub enabled: bool,
    pub disabled_reason: Option<String>,
    pub forced_down: bool,
    pub zone: String,
}

impl Document for Host {
    const KIND: &'static str = "host";
    fn id(&self) -> &str {
        &self.name
    }
    fn keys(&self, keys: &mut Keys) {
        keys.unique("uuid", [&self.uuid]);
        keys.unique("service_uuid", [&self.service_uuid]);
    }
}

/// How much more than it has a host hands out, and what it keeps for itself.
#[derive(Clone, Copy, Debug)]
pub struct Ratios {
    pub vcpus: f64,
    pub memory: f64,
    pub disk: f64,
    pub reserved_memory_mib: u64,
}

impl Default for Ratios {
    /// Nova's: processors four-fold (its newer default), memory and disk as they are, 512 MiB for the host.
    fn default() -> Ratios {
        Ratios { vcpus: 4.0, memory: 1.0, disk: 1.0, reserved_memory_mib: 512 }
    }
}

pub fn scope(host: &str) -> String {
    format!("host:{host}")
}

/// The claim that a disk makes, and that a guest in the trash goes on making.
pub const DISK: &str = "DISK_GB";

pub fn disk_claim(flavor: &crate::servers::ServerFlavor) -> i64 {
    let root_gib = if flavor.root_on_volume { 0 } else { flavor.disk_gib };
    (root_gib + flavor.ephemeral_gib) as i64
}

/// What a server uses of a host.
pub fn claims(flavor: &crate::servers::ServerFlavor) -> [(&'static str, i64); 3] {
    [
        (DISK, disk_claim(flavor)),
        ("MEMORY_MB", flavor.ram_mib as i64),
        ("VCPU", i64::from(flavor.vcpus)),
    ]
}

impl Host {
    pub fn capacity(&self, ratios: &Ratios, resource: &str) -> u64 {
        let (total, ratio) = match resource {
            "VCPU" => (u64::from(self.inventory.vcpus), ratios.vcpus),
            "MEMORY_MB" => (self.inventory.memory_mib.saturating_sub(ratios.reserved_memory_mib), ratios.memory),
            "DISK_GB" => (self.inventory.disk_gib, ratios.disk),
            _ => (0, 1.0),
        };
        (total as f64 * ratio) as u64
    }

    /// The host for the scheduler, with its rows of the ledger.
    pub fn room(&self, reader: &mut Reader, ratios: &Ratios, alive: bool) -> Result<scheduler::Host> {
        let usage = reader.list_usage(&scope(&self.name))?;
        let room = |resource: &str| Room {
            used: usage.get(resource).map_or(0, |usage| usage.used.max(0) as u64),
            capacity: self.capacity(ratios, resource),
        };
        Ok(scheduler::Host {
            name: self.name.clone(),
            availability_zone: self.zone.clone(),
            alive: alive && !self.forced_down,
            enabled: self.enabled,
            vcpus: room("VCPU"),
            memory_mib: room("MEMORY_MB"),
            disk_gib: room("DISK_GB"),
        })
    }
}

/// Whether a host is alive, as the APIs of hypervisors and services say it. Of the past nobody wrote it down.
pub fn liveness(ask: &Ask, alive: bool) -> &'static str {
    match (ask.past, alive) {
        (true, _) => "unknown",
        (false, true) => "up",
        (false, false) => "down",
    }
}

/// Every host, by name.
pub fn all(reader: &mut Reader) -> Result<Vec<Stored<Host>>> {
    let mut hosts = reader.list::<Host>(Query::all())?;
    hosts.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(hosts)
}

/// Takes over what a host says of itself. Writes only what changed.
pub fn seen(tx: &mut Tx, inventory: &HostInventory) -> Result<()> {
    if let Some(known) = tx.get::<Host>(&inventory.name)? {
        if known.inventory != *inventory {
            tx.update(&Host { inventory: inventory.clone(), ..known.doc })?;
        }
        return Ok(());
    }
    let host = Host {
        name: inventory.name.clone(),
        uuid: tx.uuid(),
        service_uuid: tx.uuid(),
        number: crate::next_number(tx, "host")?,
        inventory: inventory.clone(),
        enabled: true,
        disabled_reason: None,
        forced_down: false,
        zone: ZONE.to_owned(),
    };
    tx.create(&host)?;
    Ok(())
}

pub fn routes(state: &Arc<Compute>) -> Vec<Route> {
    [hypervisors::routes(state), services::routes(state), zones::routes(state)].concat()
}
