//! What must hold of what was deleted and rests in the trash: nobody sees it, it costs its project nothing, and nothing
//! of it is left when its time is over.

use crate::check::{Broken, Held};
use crate::mirror::Mirror;
use crate::world::World;
use agent_api::{GuestObserved, ObservedPower};
use base::HostName;
use serde_json::Value;
use std::collections::BTreeSet;
use std::os::unix::fs::MetadataExt;

/// Kinds whose ids are drawn and never used again: one of them is either there or rests.
const DRAWN: &[&str] =
    &["server", "port", "network", "subnet", "router", "floatingip", "security_group", "security_group_rule", "image",
    "volume", "volume_snapshot"];

/// Kinds that only the trash has.
const OF_TRASH: &[&str] = &[
    "trash", "trashed_guest", "guest_tombstone", "trashed_volume", "trashed_volume_snapshot", "volume_tombstone",
    "volume_snapshot_tombstone",
];

const UUID: usize = 36;
const OWNER: &str = "what rests has an owner";

/// Kind and id of each document that rests, and the text of it.
pub fn documents(mirror: &Mirror) -> impl Iterator<Item = (&str, &str, &Value)> {
    let parts = mirror.all("trash").filter_map(|(_, trash)| trash["documents"].as_array());
    parts.flatten().filter_map(|it| Some((it["kind"].as_str()?, it["id"].as_str()?, it)))
}

/// What holds always. That addresses and quotas are free again is seen by those who count them: what rests is not
/// counted there.
pub fn every_step(mirror: &Mirror) -> Held {
    let mut servers = BTreeSet::new();
    for (kind, id, _) in documents(mirror) {
        if DRAWN.contains(&kind) && mirror.get(kind, id).is_some() {
            return Err(Broken::new("what rests is gone", format!("{kind} {id} rests in the trash and is there")));
        }
        if kind == "server" {
            servers.insert(id);
        }
    }
    for (id, resting) in mirror.all("trashed_guest") {
        if !servers.contains(id.as_str()) {
            return Err(Broken::new(OWNER, format!("guest {id} rests, and no trash has its server")));
        }
        if resting["server"]["power"] != "stopped" {
            let power = &resting["server"]["power"];
            return Err(Broken::new("what rests is stopped", format!("guest {id} shall be {power}")));
        }
        let ports = mirror.all("port").filter(|(_, port)| port["attached"].is_object() && port["device_id"] == **id);
        if let Some((port, _)) = ports.into_iter().next() {
            return Err(Broken::new("what rests holds no address", format!("port {port} is that of server {id}")));
        }
    }
    Ok(())
}

/// True for a guest that rests on this host; it is stopped there. Only where all is settled.
pub fn is_at_home(mirror: &Mirror, host: &HostName, guest: &GuestObserved) -> Result<bool, Broken> {
    let Some(resting) = mirror.get("trashed_guest", &guest.id) else { return Ok(false) };
    if resting["server"]["host"] != host.as_str() {
        return Ok(false);
    }
    if guest.power != ObservedPower::Stopped {
        let what = format!("guest {} is {:?} on {host}", guest.id, guest.power);
        return Err(Broken::new("what rests is stopped", what));
    }
    Ok(true)
}

/// Nothing of it is left anywhere: in the store, on hosts, among the files of images.
pub fn nothing_left(world: &World, mirror: &Mirror) -> Held {
    const RULE: &str = "after its time nothing of the trash is left";
    crate::objects::nothing_left(mirror)?;
    for kind in OF_TRASH {
        if let Some((id, body)) = mirror.all(kind).next() {
            return Err(Broken::new(RULE, format!("{kind} {id}: {body}")));
        }
    }
    let read = |folder| std::fs::read_dir(world.folder.join(folder));
    let files = read("images").and_then(|first| Ok(first.chain(read("images-2")?)));
    let files = files.map_err(|error| Broken::new("the simulator itself works", error.to_string()))?;
    for file in files.flatten() {
        let name = file.file_name().to_string_lossy().into_owned();
        let id = name.trim_start_matches(".upload-").get(..UUID).unwrap_or_default();
        if file.path().is_file() && mirror.get("image", id).is_none() {
            return Err(Broken::new(RULE, format!("the file {name} has no image")));
        }
    }
    for content in ["images/.content", "images-2/.content"].into_iter().flat_map(read).flatten().flatten() {
        if content.metadata().is_ok_and(|about| about.nlink() == 1) {
            return Err(Broken::new(RULE, format!("no image has the bytes {:?}", content.file_name())));
        }
    }
    Ok(())
}
