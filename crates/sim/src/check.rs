//! What must hold after every step, whatever has broken.

use crate::mirror::Mirror;
use crate::world::World;
use agent_api::{AttachmentState, ObservedPower};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

/// A rule that does not hold.
#[derive(Clone, Debug)]
pub struct Broken {
    pub rule: &'static str,
    pub detail: String,
}

impl Broken {
    pub fn new(rule: &'static str, detail: impl Into<String>) -> Broken {
        Broken { rule, detail: detail.into() }
    }
}

pub type Held = Result<(), Broken>;

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_default()
}

pub fn every_step(world: &World, mirror: &Mirror) -> Held {
    addresses(mirror)?;
    owners(mirror)?;
    crate::jobs::every_step(mirror)?;
    guests(world)?;
    attachments(world, mirror)?;
    crate::resting::every_step(mirror)
}

/// No address and no MAC twice in a network, no floating address twice.
fn addresses(mirror: &Mirror) -> Held {
    let mut seen: BTreeMap<(String, String), String> = BTreeMap::new();
    let mut enter = |place: String, address: String, id: &str| match seen.insert((place, address), id.to_owned()) {
        Some(other) => Err((other, id.to_owned())),
        None => Ok(()),
    };
    let twice = |what: &str, (one, other): (String, String)| {
        Err(Broken::new("no address twice", format!("{what} is held by {one} and {other}")))
    };
    for (id, port) in mirror.all("port") {
        let network = text(port, "network_id").to_owned();
        if let Err(both) = enter(network.clone(), text(port, "mac").to_lowercase(), id) {
            return twice(text(port, "mac"), both);
        }
        for fixed in port["fixed_ips"].as_array().into_iter().flatten() {
            if let Err(both) = enter(network.clone(), text(fixed, "ip_address").to_owned(), id) {
                return twice(text(fixed, "ip_address"), both);
            }
            if mirror.get("subnet", text(fixed, "subnet_id")).is_none() {
                return Err(Broken::new("no allocation without owner", format!("port {id}: no subnet for {fixed}")));
            }
        }
    }
    allocated(mirror)?;
    let mut floating = BTreeMap::new();
    for (id, ip) in mirror.all("floatingip") {
        if let Some(other) = floating.insert((text(ip, "network_id"), text(ip, "address")), id) {
            return twice(text(ip, "address"), (other.clone(), id.clone()));
        }
    }
    Ok(())
}

fn number(address: &str) -> u128 {
    match address.parse::<IpAddr>() {
        Ok(IpAddr::V4(address)) => u32::from(address).into(),
        Ok(IpAddr::V6(address)) => address.into(),
        Err(_) => 0,
    }
}

/// The addresses that a subnet calls used are those that its ports have.
fn allocated(mirror: &Mirror) -> Held {
    let mut used: BTreeMap<&str, BTreeSet<u128>> = BTreeMap::new();
    for (_, port) in mirror.all("port") {
        for fixed in port["fixed_ips"].as_array().into_iter().flatten() {
            used.entry(text(fixed, "subnet_id")).or_default().insert(number(text(fixed, "ip_address")));
        }
    }
    for (id, addresses) in mirror.all("subnet_addresses") {
        let ranges = addresses["used"].as_array().into_iter().flatten();
        let ranges = ranges.map(|range| (number(text(range, "start")), number(text(range, "end"))));
        let said: BTreeSet<u128> = ranges.flat_map(|(start, end)| start..=end).collect();
        let held = used.remove(id.as_str()).unwrap_or_default();
        if said != held {
            let what = format!("subnet {id}: {} are called used and {} held: {addresses}", said.len(), held.len());
            return Err(Broken::new("no allocation without owner", what));
        }
    }
    Ok(())
}

/// What is held is held by somebody.
fn owners(mirror: &Mirror) -> Held {
    let orphan = |what: String| Err(Broken::new("no allocation without owner", what));
    for (id, port) in mirror.all("port") {
        let (owner, device) = (text(port, "device_owner"), text(port, "device_id"));
        let missing = match owner {
            _ if mirror.get("network", text(port, "network_id")).is_none() => true,
            _ if owner.starts_with("compute:") && !device.is_empty() && port["attached"].is_object() => {
                mirror.get("server", device).is_none()
            }
            "network:router_interface" | "network:router_gateway" => mirror.get("router", device).is_none(),
            "network:floatingip" => mirror.get("floatingip", device).is_none(),
            _ => false,
        };
        if missing {
            return orphan(format!("port {id} of {owner} {device} in network {}", text(port, "network_id")));
        }
    }
    for kind in ["server_observed", "server_secret"] {
        for (id, _) in mirror.all(kind) {
            if mirror.get("server", id).is_none() {
                return orphan(format!("{kind} {id} has no server"));
            }
        }
    }
    for (id, seen) in mirror.all("port_observed") {
        if mirror.get("port", id).is_none() {
            return orphan(format!("port_observed {id}: {seen}"));
        }
    }
    for (id, ip) in mirror.all("floatingip") {
        let port = text(ip, "port_id");
        if mirror.get("port", text(ip, "holder")).is_none() || (!port.is_empty() && mirror.get("port", port).is_none())
        {
            return orphan(format!("floating address {id} hangs on a port that is not there: {ip}"));
        }
    }
    for (id, rule) in mirror.all("security_group_rule") {
        if mirror.get("security_group", text(rule, "group_id")).is_none() {
            return orphan(format!("rule {id} has no group"));
        }
    }
    Ok(())
}

/// No attachment without a server and a volume, no volume of two servers or in two guests.
fn attachments(world: &World, mirror: &Mirror) -> Held {
    let no = |what: String| Err(Broken::new("no attachment without a server, no volume of two", what));
    let mut held = BTreeMap::new();
    for (id, attachment) in mirror.all("volume_attachment") {
        let (volume, server) = (text(attachment, "volume"), text(attachment, "server"));
        if let Some(other) = held.insert(volume, id) {
            return no(format!("volume {volume} has attachments {other} and {id}"));
        }
        if mirror.get("volume", volume).is_none() {
            return no(format!("attachment {id} has no volume {volume}"));
        }
        if attachment["by"] == "server" && mirror.get("server", server).is_none() {
            return no(format!("attachment {id} of volume {volume} has no server {server}"));
        }
    }
    let mut plugged = BTreeMap::new();
    for slot in world.hosts() {
        for guest in slot.guests().into_iter().filter(|guest| guest.power != ObservedPower::Absent) {
            for volume in guest.volumes.iter().filter(|volume| volume.state != AttachmentState::Attaching) {
                let kept = held.contains_key(&*volume.volume) || mirror.get("volume_leaving", &volume.volume).is_some();
                if mirror.get("volume", &volume.volume).is_some() && !kept {
                    return no(format!("volume {} is free, and guest {} has it", volume.volume, guest.id));
                }
                if let Some(other) = plugged.insert(volume.volume.to_string(), guest.id.to_string()) {
                    return no(format!("volume {} is in guests {other} and {}", volume.volume, guest.id));
                }
            }
        }
    }
    Ok(())
}

/// No guest on two hosts.
fn guests(world: &World) -> Held {
    let mut seen = BTreeSet::new();
    for slot in world.hosts() {
        for guest in slot.guests().into_iter().filter(|guest| guest.power != ObservedPower::Absent) {
            if !seen.insert(guest.id.clone()) {
                let what = format!("server {} is on {} and on another host", guest.id, slot.name);
                return Err(Broken::new("no server on two hosts", what));
            }
        }
    }
    Ok(())
}

/// What a server takes of its host's disk: a root disk on a volume is none of it.
fn disk_of(flavor: &Value) -> i64 {
    let number = |key: &str| flavor[key].as_i64().unwrap_or(0);
    let root = if flavor["root_on_volume"] == true { 0 } else { number("disk_gib") };
    root + number("ephemeral_gib")
}

/// What the ledger says of hosts and projects is what servers use.
pub fn ledger(mirror: &Mirror) -> Held {
    let mut counted: BTreeMap<(String, String), i64> = BTreeMap::new();
    for (_, server) in mirror.all("server") {
        let flavor = &server["flavor"];
        let number = |key: &str| flavor[key].as_i64().unwrap_or(0);
        let (vcpus, ram, disk) = (number("vcpus"), number("ram_mib"), disk_of(flavor));
        if let Some(host) = server["host"].as_str() {
            for (resource, amount) in [("VCPU", vcpus), ("MEMORY_MB", ram), ("DISK_GB", disk)] {
                *counted.entry((format!("host:{host}"), resource.into())).or_default() += amount;
            }
        }
        let project = format!("project:{}", text(server, "project_id"));
        for (resource, amount) in [("cores", vcpus), ("instances", 1), ("ram", ram)] {
            *counted.entry((project.clone(), resource.into())).or_default() += amount;
        }
    }
    for (id, resting) in mirror.all("trashed_guest") {
        let flavor = &resting["server"]["flavor"];
        let disk = disk_of(flavor);
        let Some(host) = resting["server"]["host"].as_str() else {
            return Err(Broken::new("what rests has an owner", format!("guest {id} rests on no host")));
        };
        *counted.entry((format!("host:{host}"), "DISK_GB".into())).or_default() += disk;
    }
    for (_, going) in mirror.all("guest_tombstone") {
        let disk = going["disk_gib"].as_i64().unwrap_or(0);
        *counted.entry((format!("host:{}", text(going, "host")), "DISK_GB".into())).or_default() += disk;
    }
    let ledger = mirror.ledger().map_err(|error| Broken::new("the store can be read", error.to_string()))?;
    let ours = |scope: &str, resource: &str| {
        (scope.starts_with("host:") || scope.starts_with("project:") && !scope.contains("/user:"))
            && ["VCPU", "MEMORY_MB", "DISK_GB", "cores", "instances", "ram"].contains(&resource)
    };
    let kept = ledger.into_iter().filter(|((scope, resource), used)| *used != 0 && ours(scope, resource));
    let kept: BTreeMap<_, _> = kept.collect();
    counted.retain(|_, used| *used != 0);
    if kept != counted {
        let differ: Vec<String> = kept
            .iter()
            .filter(|(key, used)| counted.get(*key) != Some(used))
            .chain(counted.iter().filter(|(key, used)| kept.get(*key) != Some(used)))
            .map(|((scope, resource), _)| {
                let key = (scope.clone(), resource.clone());
                format!("{scope} {resource}: ledger {:?}, counted {:?}", kept.get(&key), counted.get(&key))
            })
            .collect();
        return Err(Broken::new("the ledger equals the recount", differ.join("; ")));
    }
    Ok(())
}
