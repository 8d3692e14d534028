//! What must hold once nothing breaks any more and time has passed: all that was asked for is so, or a fault says why.

use crate::check::{Broken, Held};
use crate::mirror::Mirror;
use crate::world::World;
use agent_api::{AttachmentState, HostAgent, ObservedPower, ViewKind, VolumeState};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_default()
}

const RULE: &str = "observed equals desired, or a fault says why";

pub fn settled(world: &World, mirror: &Mirror, owners: &Value) -> Held {
    servers(world, mirror)?;
    guests(world, mirror)?;
    volumes(world, mirror)?;
    attachments(world, mirror)?;
    views(world, owners)?;
    crate::objects::settled(&world.objects, mirror)?;
    for slot in world.hosts() {
        let Some(agent) = slot.agent() else { continue };
        let session = mirror.all("host").find(|(_, host)| text(host, "name") == slot.name.as_str());
        let boot_id = session.map(|(_, host)| text(&host["inventory"], "boot_id"));
        if boot_id != Some(agent.inventory().boot_id.as_str()) {
            return Err(Broken::new("each host is known as it is", format!("{}: {boot_id:?}", slot.name)));
        }
    }
    if let Some((id, job)) = mirror.all("job").next() {
        return Err(Broken::new(RULE, format!("job {id} is not done: {job}")));
    }
    for (id, image) in mirror.all("image") {
        if image["awaits"].is_string() {
            return Err(Broken::new(RULE, format!("image {id} waits for a disk, and no job brings it")));
        }
        if image["transfer"].is_string() {
            return Err(Broken::new(RULE, format!("image {id} waits for a transfer that nobody makes")));
        }
    }
    Ok(())
}

fn power(guest: ObservedPower) -> &'static str {
    match guest {
        ObservedPower::Absent => "absent",
        ObservedPower::Stopped => "stopped",
        ObservedPower::Running => "running",
        ObservedPower::Paused => "paused",
        ObservedPower::Suspended => "suspended",
        ObservedPower::Building => "building",
    }
}

fn servers(world: &World, mirror: &Mirror) -> Held {
    let no = |id: &str, what: String| Err(Broken::new(RULE, format!("server {id}: {what}")));
    let mut machines = BTreeMap::new();
    for slot in world.hosts() {
        for guest in slot.guests() {
            machines.insert((slot.name.to_string(), guest.id.to_string()), guest);
        }
    }
    for (id, server) in mirror.all("server") {
        let desired = text(server, "power").to_lowercase();
        if desired == "absent" {
            return no(id, "shall be gone and is not".into());
        }
        if server["unschedulable"] == true {
            if server["fault"].is_null() {
                return no(id, "has no host and no fault says why".into());
            }
            continue;
        }
        let Some(host) = server["host"].as_str() else { return no(id, "has no host".into()) };
        let Some(seen) = mirror.get("server_observed", id) else { return no(id, "was never seen".into()) };
        let Some(guest) = machines.get(&(host.to_owned(), id.clone())) else {
            return no(id, format!("is not on its host {host}"));
        };
        if !server["imaging"].is_null() {
            return no(id, "shows the making of an image that no job makes".into());
        }
        if seen["gave_up"] == true {
            if seen["fault"].is_null() {
                return no(id, "its host gave up and no fault says why".into());
            }
            continue;
        }
        let observed = text(seen, "power").to_lowercase();
        if observed != desired || power(guest.power) != desired {
            return no(id, format!("shall be {desired}, is said to be {observed}, is {}", power(guest.power)));
        }
        if seen["generation"] != server["generation"] || server["generation"] != guest.generation {
            let (wanted, said) = (&server["generation"], &seen["generation"]);
            return no(id, format!("generation {wanted}, {said} is said, {} is reached", guest.generation));
        }
        if desired == "running" && seen["launched_at"].is_null() {
            return no(id, "runs and was never ACTIVE".into());
        }
    }
    Ok(())
}

/// Every guest has an owner.
fn guests(world: &World, mirror: &Mirror) -> Held {
    for slot in world.hosts() {
        for guest in slot.guests().into_iter().filter(|guest| guest.power != ObservedPower::Absent) {
            let owner = mirror.get("server", &guest.id).map(|server| text(server, "host"));
            if owner.is_none() && crate::resting::is_at_home(mirror, &slot.name, &guest)? {
                continue;
            }
            if owner != Some(slot.name.as_str()) {
                let what = format!("guest {} on {}: its server is on {owner:?}", guest.id, slot.name);
                return Err(Broken::new("every guest has an owner", what));
            }
        }
    }
    Ok(())
}

/// Every volume is on its host as it shall be, no host has one that nobody owns, and nothing is on its way.
fn volumes(world: &World, mirror: &Mirror) -> Held {
    let no = |id: &str, what: String| Err(Broken::new(RULE, format!("volume {id}: {what}")));
    let mut on_hosts = BTreeMap::new();
    for slot in world.hosts() {
        for volume in slot.volumes().into_iter().filter(|volume| volume.state != VolumeState::Absent) {
            let owner = mirror.get("volume", &volume.id).or_else(|| Some(&mirror.get("trashed_volume", &volume.id)?["volume"]));
            if owner.map(|owner| text(owner, "host")) != Some(slot.name.as_str()) {
                return no(&volume.id, format!("is on {} and belongs to nobody there", slot.name));
            }
            on_hosts.insert(volume.id.to_string(), volume);
        }
    }
    for (id, volume) in mirror.all("volume") {
        let waits_for = mirror.get("server", text(volume, "goes_with"));
        if !volume["unplaceable"].is_null() || waits_for.is_some_and(|server| server["unschedulable"] == true) {
            continue;
        }
        let Some(there) = on_hosts.get(id) else { return no(id, "is on no host".into()) };
        if volume["generation"] != there.generation || volume["size_gib"] != there.size_bytes >> 30 {
            return no(id, format!("shall be {volume}, is {there:?}"));
        }
        if !volume["uploading"].is_null() {
            return no(id, "shows the making of an image that no job makes".into());
        }
        if !volume["passing_since"].is_null() {
            return no(id, "is there and still shows as on its way".into());
        }
    }
    let known = |id: &str| mirror.get("volume_snapshot", id).or(mirror.get("trashed_volume_snapshot", id)).is_some();
    for (id, volume) in &on_hosts {
        if let Some(stray) = volume.snapshots.iter().find(|it| !known(&it.id)) {
            return no(id, format!("its host has the snapshot {}, which is nobody's", stray.id));
        }
    }
    for (id, snapshot) in mirror.all("volume_snapshot") {
        let there = on_hosts.get(text(snapshot, "volume"));
        if !there.is_some_and(|volume| volume.snapshots.iter().any(|it| it.id.as_str() == id)) {
            return no(text(snapshot, "volume"), format!("its host does not have the snapshot {id}"));
        }
        if !snapshot["passing_since"].is_null() {
            return no(text(snapshot, "volume"), format!("the snapshot {id} still shows as on its way"));
        }
    }
    Ok(())
}

/// Every server has its volumes, and no volume waits for a guest that is gone.
fn attachments(world: &World, mirror: &Mirror) -> Held {
    let mut plugged = BTreeSet::new();
    for slot in world.hosts() {
        for guest in slot.guests() {
            let attached = guest.volumes.into_iter().filter(|volume| volume.state == AttachmentState::Attached);
            plugged.extend(attached.map(|volume| volume.attachment.to_string()));
        }
    }
    for (id, attachment) in mirror.all("volume_attachment").filter(|(_, it)| it["by"] == "server") {
        let server = text(attachment, "server");
        let stuck = mirror.get("server", server).is_some_and(|server| server["unschedulable"] == true);
        let gave_up = mirror.get("server_observed", server).is_some_and(|seen| seen["gave_up"] == true);
        if stuck || gave_up {
            continue;
        }
        if attachment["stage"] != "attached" || !plugged.contains(id) {
            let there = plugged.contains(id);
            return Err(Broken::new(RULE, format!("attachment {id} is {attachment}, in its guest: {there}")));
        }
    }
    match mirror.all("volume_leaving").next() {
        Some((id, leaving)) => Err(Broken::new(RULE, format!("volume {id} still waits for a guest: {leaving}"))),
        None => Ok(()),
    }
}

/// Each host holds what it shall hold.
fn views(world: &World, owners: &Value) -> Held {
    for slot in world.hosts() {
        let Some(agent) = slot.agent() else { continue };
        let kind = |kind: ViewKind| serde_json::to_value(kind).ok().and_then(|kind| kind.as_str().map(str::to_owned));
        let held: BTreeSet<(String, String)> =
            agent.objects().into_iter().filter_map(|(of, id)| Some((kind(of)?, id))).collect();
        let named = owners["hosts"][slot.name.as_str()].as_array().into_iter().flatten();
        let wanted: BTreeSet<(String, String)> =
            named.map(|object| (text(object, "kind").to_owned(), text(object, "id").to_owned())).collect();
        // The ports of routers are named beside them and are no objects of the view.
        let missing: Vec<_> = wanted.difference(&held).filter(|(kind, _)| kind != "guest" && kind != "port").collect();
        let strange: Vec<_> = held.difference(&wanted).collect();
        if !missing.is_empty() || !strange.is_empty() {
            let what = format!("{}: missing {missing:?}, not wanted {strange:?}", slot.name);
            return Err(Broken::new("a host holds what it shall hold", what));
        }
    }
    Ok(())
}
