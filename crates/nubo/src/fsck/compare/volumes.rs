//! Volumes: folders, ledgers, and the layers that they consist of.

use super::{Sides, guests};
use crate::fsck::files::{Disk, Volume};
use crate::fsck::finding::{Finding, Repair};
use agent_api::{Desired, VolumeSpec};
use std::collections::BTreeSet;

/// What a volume's folder may hold besides its layers.
const NAMES: &[&str] = &["ledger.json", "disk.json", "qemu.log", "work.sock", "work-serial.sock"];

pub fn compare(sides: &Sides<'_>) -> Vec<Finding> {
    let mut found = Vec::new();
    for spec in sides.shall.volumes() {
        let folder = sides.files.volumes.iter().find(|folder| folder.id == spec.id.as_str());
        let one = One { sides, spec };
        match folder {
            Some(folder) => one.folder(folder, &mut found),
            None => {
                let why = "the agent makes one that never was; of one that was, all is lost: delete it";
                found.push(one.finding("its directory is missing", Repair::hand(why)));
            }
        }
    }
    for folder in &sides.files.volumes {
        if !sides.shall.owns(&folder.id) {
            let repair = Repair::Quarantine { path: folder.path.clone() };
            let object = format!("volume directory {}", folder.path.display());
            found.push(Finding::new(object, &folder.id, "it has no owner", repair));
        }
    }
    found
}

/// What must be the same in both at one generation. A snapshot that went is asked for as absent until it is gone, and
/// then no more, without a new generation.
fn core(spec: &VolumeSpec) -> impl PartialEq + use<> {
    let kept = spec.snapshots.iter().filter(|it| it.desired == Desired::Present);
    let kept: BTreeSet<String> = kept.map(|it| it.id.to_string()).collect();
    (spec.size_gib, spec.desired, spec.source.clone(), kept, spec.flatten)
}

/// One volume with all that belongs to it.
struct One<'a> {
    sides: &'a Sides<'a>,
    spec: &'a VolumeSpec,
}

impl One<'_> {
    fn finding(&self, what: impl Into<String>, repair: Repair) -> Finding {
        Finding::new(self.sides.shall.name("volume", &self.spec.id), self.spec.id.as_str(), what, repair)
    }

    fn folder(&self, folder: &Volume, found: &mut Vec<Finding>) {
        self.ledger(folder, found);
        let lost = || Repair::hand("what was on it is lost: delete it");
        let made = matches!(&folder.ledger, Some(Ok(ledger)) if ledger.reached > 0);
        match &folder.disk {
            Some(Ok(disk)) => self.disk(folder, disk, found),
            Some(Err(_)) => {
                let why = "its disk.json says which layers belong to it: write it anew from what the layers name";
                found.push(self.finding("the record of its layers cannot be read", Repair::hand(why)));
            }
            None if made => found.push(self.finding("the record of its layers is gone", lost())),
            // Still being made.
            None => {}
        }
    }

    fn ledger(&self, folder: &Volume, found: &mut Vec<Finding>) {
        let shall = self.spec;
        let what = match &folder.ledger {
            None => "its ledger is missing".to_owned(),
            Some(Err(_)) => "its ledger cannot be read".into(),
            Some(Ok(ledger)) if ledger.version != 1 || ledger.spec.id != shall.id => {
                "its ledger is of another volume or version".into()
            }
            Some(Ok(ledger)) if ledger.spec.generation != shall.generation => {
                format!("its ledger has generation {}, the store has {}", ledger.spec.generation, shall.generation)
            }
            Some(Ok(ledger)) if core(&ledger.spec) != core(shall) => {
                "its ledger asks for something else than the store".into()
            }
            Some(Ok(_)) => return,
        };
        found.push(self.finding(what, self.sides.agent()));
    }

    fn disk(&self, folder: &Volume, disk: &Disk, found: &mut Vec<Finding>) {
        let lost = || Repair::hand("what was in it is lost: delete the volume, or bring the file back");
        let mut below = String::new();
        for layer in &disk.layers {
            let name = layer.file_name();
            if !folder.names.contains(&name) {
                found.push(self.finding(format!("its layer {name} is gone"), lost()));
            }
            match folder.headers.get(&name) {
                Some(Err(why)) => found.push(self.finding(format!("its layer {name} is damaged: {why}"), lost())),
                Some(Ok(header)) if header.backing != below => {
                    let what = format!("its layer {name} names {:?} below it instead of {below:?}", header.backing);
                    found.push(self.finding(what, self.rename(folder, &name, &header.backing, &below)));
                }
                _ => {}
            }
            below = name;
        }
        let top = folder.headers.get(&below).and_then(|header| header.as_ref().ok());
        if let Some(header) = top.filter(|header| disk.growing.is_none() && header.size_bytes != disk.size_bytes) {
            let what = format!("its disk has {} bytes instead of {}", header.size_bytes, disk.size_bytes);
            found.push(self.finding(what, Repair::hand("somebody has resized it: see to its file system first")));
        }
        self.snapshots(disk, found);
        self.names(folder, disk, found);
    }

    /// The host forgets one only where the store says so: the store may be an older copy.
    fn snapshots(&self, disk: &Disk, found: &mut Vec<Finding>) {
        // One that was made for a copy has a name that is no UUID, and goes with the copy's making.
        let there = self.spec.desired == Desired::Present;
        let own = disk.snapshots.iter().filter(|it| there && base::is_uuid(&it.id));
        for stray in own.filter(|it| !self.spec.snapshots.iter().any(|known| known.id.as_str() == it.id)) {
            let what = format!("its host keeps the snapshot {}, which the store does not know", stray.id);
            found.push(self.finding(what, Repair::hand("it costs room and goes with its volume; bring back the store that knows it")));
        }
    }

    /// QEMU is always told what lies below: the name serves people, and may be mended while nobody has it open.
    fn rename(&self, folder: &Volume, name: &str, is: &str, shall: &str) -> Repair {
        if is.len() != shall.len() {
            return Repair::hand("its header has another shape than nubo writes");
        }
        let mut users =
            self.sides.shall.guests().filter(|guest| guest.volumes.iter().any(|it| it.volume == self.spec.id));
        if users.any(|guest| guests::processes(self.sides, &guest.id).next().is_some()) {
            return Repair::hand("stop its server first: the volume is in use");
        }
        Repair::Backing { path: folder.path.join(name), name: shall.into() }
    }

    fn names(&self, folder: &Volume, disk: &Disk, found: &mut Vec<Finding>) {
        let layer = |name: &str| disk.layers.iter().any(|layer| layer.file_name() == name);
        let pending = |name: &str| disk.pending.as_ref().is_some_and(|it| name == format!("{}.qcow2", it.layer));
        for name in &folder.names {
            if !NAMES.contains(&name.as_str()) && !name.ends_with(".partial") && !layer(name) && !pending(name) {
                let repair = Repair::Quarantine { path: folder.path.join(name) };
                found.push(self.finding(format!("its directory holds {name}, which is none of its files"), repair));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fsck::files::{Files, Layer, Overlay, Snapshot, VolumeLedger};
    use crate::fsck::machine::Machine;
    use crate::fsck::shall::tests::shall;
    use agent_api::{DiskFormat, ViewObject};
    use serde_json::json;

    const ID: &str = "018f3c2a-1b2c-7001-8aaa-0123456789ab";

    fn spec() -> VolumeSpec {
        serde_json::from_value(json!({"id": ID, "generation": 3, "size_gib": 1, "desired": "present"})).unwrap()
    }

    /// An image, a layer of a snapshot, and the active one.
    fn whole() -> Volume {
        let layer = |number, format| Layer { number, format };
        let header = |backing: &str| Ok(Overlay { size_bytes: 1 << 30, backing: backing.into() });
        let names = ["1.raw", "2.qcow2", "4.qcow2", "disk.json", "disk.partial", "ledger.json", "qemu.log"];
        Volume {
            id: ID.into(),
            path: format!("/x/hosts/volumes/{ID}").into(),
            names: names.map(str::to_owned).into(),
            ledger: Some(Ok(VolumeLedger { version: 1, spec: spec(), reached: 3 })),
            disk: Some(Ok(Disk {
                version: 1,
                size_bytes: 1 << 30,
                layers: vec![layer(1, DiskFormat::Raw), layer(2, DiskFormat::Qcow2), layer(4, DiskFormat::Qcow2)],
                snapshots: vec![Snapshot { id: "copy-of-it".into() }],
                pending: None,
                growing: None,
            })),
            headers: [("2.qcow2".to_owned(), header("1.raw")), ("4.qcow2".to_owned(), header("2.qcow2"))].into(),
        }
    }

    fn check(volumes: Vec<Volume>, expected: &[&str]) {
        let shall = shall(vec![ViewObject::Volume(spec())], &[(ID, "volume data")]);
        let (cloud, machine) = ("0a1b2c3d".into(), Machine::default());
        let files = Files { volumes, ..Files::default() };
        let sides = Sides {
            cloud: &cloud,
            state: "/x".into(),
            shall: &shall,
            machine: &machine,
            files: &files,
            network: &[],
            offline: false,
        };
        let shown: Vec<String> =
            compare(&sides).iter().map(|it| format!("{} | {}", it.line(), it.repair.plan())).collect();
        let expected: Vec<String> =
            expected.iter().map(|line| line.replace("{data}", &format!("volume data ({ID})"))).collect();
        assert_eq!(shown, expected);
    }

    fn one(change: impl FnOnce(&mut Volume), expected: &[&str]) {
        let mut volume = whole();
        change(&mut volume);
        check(vec![volume], expected);
    }

    #[test]
    fn each_damage_of_a_volume_has_its_line() {
        one(|_| {}, &[]);
        let missing = "{data}: its directory is missing | by hand: the agent makes one that never was; of one that was, \
                       all is lost: delete it";
        check(Vec::new(), &[missing]);
        one(|it| it.ledger = None, &["{data}: its ledger is missing | let the agent look again"]);
        one(|it| it.ledger = Some(Err("?".into())), &["{data}: its ledger cannot be read | let the agent look again"]);
        let older = |it: &mut Volume| it.ledger.as_mut().unwrap().as_mut().unwrap().spec.generation = 2;
        one(older, &["{data}: its ledger has generation 2, the store has 3 | let the agent look again"]);
        let gone = |it: &mut Volume| {
            let snapshots = &mut it.ledger.as_mut().unwrap().as_mut().unwrap().spec.snapshots;
            snapshots.push(agent_api::SnapshotSpec { id: "s".into(), desired: Desired::Absent });
        };
        one(gone, &[]);
        let kept = |it: &mut Volume| {
            let snapshots = &mut it.ledger.as_mut().unwrap().as_mut().unwrap().spec.snapshots;
            snapshots.push(agent_api::SnapshotSpec { id: "s".into(), desired: Desired::Present });
        };
        one(kept, &["{data}: its ledger asks for something else than the store | let the agent look again"]);
        let lost = "by hand: what was on it is lost: delete it";
        one(|it| it.disk = None, &[&format!("{{data}}: the record of its layers is gone | {lost}")]);
        let building = |it: &mut Volume| {
            it.disk = None;
            it.ledger.as_mut().unwrap().as_mut().unwrap().reached = 0;
        };
        one(building, &[]);
        let stray = |it: &mut Volume| {
            let disk = it.disk.as_mut().unwrap().as_mut().unwrap();
            disk.snapshots.push(Snapshot { id: ID.into() });
        };
        let line = format!(
            "{{data}}: its host keeps the snapshot {ID}, which the store does not know | by hand: it costs room and goes \
             with its volume; bring back the store that knows it"
        );
        one(stray, &[&line]);
        let layer = "by hand: what was in it is lost: delete the volume, or bring the file back";
        let gone = |it: &mut Volume| it.names.retain(|name| name != "1.raw");
        one(gone, &[&format!("{{data}}: its layer 1.raw is gone | {layer}")]);
        let damaged = |it: &mut Volume| drop(it.headers.insert("2.qcow2".into(), Err("it is no qcow2 file".into())));
        one(damaged, &[&format!("{{data}}: its layer 2.qcow2 is damaged: it is no qcow2 file | {layer}")]);
        let renamed =
            |it: &mut Volume| it.headers.get_mut("4.qcow2").unwrap().as_mut().unwrap().backing = "9.qcow2".into();
        let line = format!(
            "{{data}}: its layer 4.qcow2 names \"9.qcow2\" below it instead of \"2.qcow2\" | write the name 2.qcow2 into \
             /x/hosts/volumes/{ID}/4.qcow2"
        );
        one(renamed, &[&line]);
        let larger = |it: &mut Volume| it.headers.get_mut("4.qcow2").unwrap().as_mut().unwrap().size_bytes = 5;
        one(
            larger,
            &["{data}: its disk has 5 bytes instead of 1073741824 | by hand: somebody has resized it: see to its \
                       file system first"],
        );
        let line = format!(
            "{{data}}: its directory holds 3.qcow2, which is none of its files | move /x/hosts/volumes/{ID}/3.qcow2 to \
             lost+found"
        );
        one(|it| it.names.push("3.qcow2".into()), &[&line]);
    }

    #[test]
    fn what_no_volume_owns_goes_aside_and_is_not_thrown_away() {
        let stray = Volume { id: "stray".into(), path: "/x/hosts/volumes/stray".into(), ..Volume::default() };
        let line =
            "volume directory /x/hosts/volumes/stray: it has no owner | move /x/hosts/volumes/stray to lost+found";
        check(vec![whole(), stray], &[line]);
    }
}
