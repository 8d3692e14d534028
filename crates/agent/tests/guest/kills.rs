//! `kill -9` of the agent and of QEMU at any moment of whatever is done to volumes: nothing stays under way, no file is
//! left without a volume, no disk is in two places, and what a guest has written is there.
//!
//! The moments are drawn from a seed, evenly over the time that the operation takes without a kill. NUBO_ROUNDS says how
//! many rounds there are, NUBO_SEED repeats a run.

use crate::fixture::{self, Fixture, spec};
use crate::lone::Lone;
use agent_api::{
    AttachmentState, Desired, DesiredPower, GuestSpec, GuestVolume, ObservedPower, SnapshotSpec, ViewObject,
    VolumeObserved, VolumeSource, VolumeSpec, VolumeState,
};
use base::VolumeId;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// Fills each disk that comes once and reads it from then on; counts on each of them, and says no number before it is
/// on the disk.
const COUNTER: &str = r#"#!/bin/sh
say() { echo "keeper: $*" > /dev/console; }
sum() { head -c 2097152 "$1" | md5sum | cut -d' ' -f1; }
count() { dd if="$1" bs=512 skip=8192 count=1 2>/dev/null | tr -d '\0' | cut -d' ' -f1; }
# A node of our own: what is written to a name in /dev whose disk has gone would make a file there.
node() { rm -f "/run/disk-$1"; mknod "/run/disk-$1" b $(tr : ' ' < "$2/dev"); }
look() {
  for folder in /sys/block/vd*; do
    serial=$(cat "$folder/serial")
    case $serial in root | config | "") continue ;; esac
    now="$now $serial=$(cat "$folder/size")" serials="$serials $serial"
    case "$before " in *" $serial="*) continue ;; esac
    node "$serial" "$folder"
    disk=/run/disk-$serial
    if [ "$(head -c 4 "$disk")" != DATA ]; then
      (echo DATA; head -c 2097147 /dev/urandom) | dd of="$disk" bs=1048576 conv=notrunc,fsync 2>/dev/null
    fi
    last=$(count "$disk")
    echo "${last:-0}" > "/run/count-$serial"
    say "read $serial $(sum "$disk") ${last:-0}"
  done
}
go_on() {
  for serial in $serials; do
    number=$(($(cat "/run/count-$serial") + 1))
    printf '%-511s\n' "$number" | dd of="/run/disk-$serial" bs=512 seek=8192 conv=notrunc,fsync 2>/dev/null || continue
    echo "$number" > "/run/count-$serial"
    say "count $serial $number"
  done
}
before=
(while :; do
  now= serials=
  look
  [ "$now" = "$before" ] || say "disks$now."
  before=$now
  go_on
  sleep 0.2
done) > /dev/null 2>&1 &
"#;

#[derive(Clone, Copy, Debug, PartialEq)]
enum Victim {
    Agent,
    Qemu,
}

struct Scene {
    fixture: Fixture,
    lone: Lone,
    server: GuestSpec,
    volumes: BTreeMap<VolumeId, VolumeSpec>,
    /// What each volume that a guest has filled holds.
    sums: BTreeMap<VolumeId, String>,
    /// The highest number that was said to be on each disk.
    counts: BTreeMap<VolumeId, u64>,
    victim: Victim,
    random: u64,
    /// How much of the console had been written when QEMU was killed last.
    mark: usize,
    /// What happens now, for messages.
    at: String,
}

fn number_of(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

fn volume(number: u32) -> VolumeSpec {
    VolumeSpec {
        // They differ within what a guest sees of a serial number.
        id: format!("7b2b0a6e-{number:04}-4000-8000-000000000001").into(),
        generation: 1,
        size_gib: 1,
        desired: Desired::Present,
        source: VolumeSource::Blank,
        snapshots: Vec::new(),
        flatten: false,
        made: false,
    }
}

fn serial(id: &VolumeId) -> &str {
    &id.as_str()[..20]
}

fn attached(id: &VolumeId, device: &str) -> GuestVolume {
    GuestVolume {
        attachment: format!("8{}", &id.as_str()[1..]).into(),
        volume: id.clone(),
        device: device.into(),
        boot_index: None,
        bus: Default::default(),
        tag: None,
        read_only: false,
    }
}

impl Scene {
    fn new(fixture: Fixture, server: GuestSpec, victim: Victim) -> Scene {
        let random = number_of("NUBO_SEED", 20_261_121);
        println!("NUBO_SEED={random}");
        let lone = Lone::start(&fixture);
        Scene {
            server: fixture.with_image(&server),
            fixture,
            lone,
            volumes: BTreeMap::new(),
            sums: BTreeMap::new(),
            counts: BTreeMap::new(),
            victim,
            random,
            mark: 0,
            at: String::new(),
        }
    }

    fn moment(&mut self, most: Duration) -> Duration {
        self.random = self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        most.mul_f64((self.random >> 40) as f64 / (1u64 << 24) as f64)
    }

    /// The whole view, as control says it.
    fn tell(&mut self) {
        for volume in self.volumes.values() {
            self.lone.put(&ViewObject::Volume(volume.clone()));
        }
        self.lone.put(&ViewObject::Guest(self.server.clone()));
    }

    fn put_volume(&mut self, volume: VolumeSpec) {
        self.lone.put(&ViewObject::Volume(volume.clone()));
        self.volumes.insert(volume.id.clone(), volume);
    }

    fn change_volume(&mut self, id: &VolumeId, change: impl FnOnce(&mut VolumeSpec)) {
        let mut volume = self.volumes[id].clone();
        volume.generation += 1;
        change(&mut volume);
        self.put_volume(volume);
    }

    fn change_server(&mut self, change: impl FnOnce(&mut GuestSpec)) {
        self.server.generation += 1;
        change(&mut self.server);
        self.lone.put(&ViewObject::Guest(self.server.clone()));
    }

    fn console(&self) -> String {
        let folder = self.fixture.folder(&self.server);
        let read = |name: &str| std::fs::read(folder.join(name)).unwrap_or_default();
        let both = [read("console.log.1"), read("console.log")].concat();
        String::from_utf8_lossy(&both).into_owned()
    }

    fn since_kill(&self) -> String {
        let log = self.console();
        log.get(self.mark.min(log.len())..).unwrap_or_default().to_owned()
    }

    async fn strike(&mut self, after: Duration) {
        tokio::time::sleep(after).await;
        match self.victim {
            Victim::Agent => {
                self.lone.kill();
                self.lone = Lone::start(&self.fixture);
                self.tell();
            }
            Victim::Qemu => {
                self.fixture.kill_if_there(&self.server);
                self.mark = self.console().len();
            }
        }
    }

    /// As the specs say, in the guest's eyes too. A server that was killed is started again, as its owner would do.
    async fn settled(&mut self) {
        let begun = Instant::now();
        while let Some(why) = self.unsettled() {
            let stopped = self.lone.guest(&self.server.id).and_then(|it| it.stopped_by_itself).is_some();
            if stopped && self.server.power == DesiredPower::Running {
                self.change_server(|it| it.power_generation = it.generation);
            }
            if begun.elapsed() > fixture::PATIENCE {
                let seen = self.lone.guest(&self.server.id);
                panic!("{:?}, {}: {why}\n{seen:?}\n{}", self.victim, self.at, self.console());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        self.read_what_was_said();
    }

    /// What is not yet as it shall be.
    fn unsettled(&self) -> Option<String> {
        self.volumes.values().find_map(|it| self.volume_unsettled(it)).or_else(|| self.server_unsettled())
    }

    fn volume_unsettled(&self, shall: &VolumeSpec) -> Option<String> {
        let seen = self.lone.volume(&shall.id);
        let folder = self.fixture.state().join("hosts/volumes").join(shall.id.as_str());
        let there = |it: &VolumeObserved| {
            it.state == VolumeState::Ready
                && it.size_bytes == shall.size_gib << 30
                && it.snapshots.len() == shall.snapshots.iter().filter(|it| it.desired == Desired::Present).count()
                && files_unnamed(&folder).is_empty()
        };
        let gone = |it: &VolumeObserved| it.state == VolumeState::Absent && !folder.exists();
        let reached = |it: &VolumeObserved| {
            let as_wanted = if shall.desired == Desired::Absent { gone(it) } else { there(it) };
            it.generation == shall.generation && it.fault.is_none() && as_wanted
        };
        let fine = seen.as_ref().is_some_and(reached);
        (!fine).then(|| format!("{seen:?}\nfor {shall:?}; unnamed {:?}", files_unnamed(&folder)))
    }

    fn server_unsettled(&self) -> Option<String> {
        let seen = self.lone.guest(&self.server.id);
        let reached = seen.as_ref().is_some_and(|it| {
            let plugged = it.volumes.iter().all(|it| it.state == AttachmentState::Attached && it.fault.is_none());
            let same: BTreeSet<_> = it.volumes.iter().map(|it| &it.attachment).collect();
            it.generation == self.server.generation
                && it.power == ObservedPower::Running
                && it.fault.is_none()
                && plugged
                && it.volumes.len() == self.server.volumes.len()
                && same == self.server.volumes.iter().map(|it| &it.attachment).collect()
        });
        if !reached {
            return Some(format!("{seen:?}\nfor {:?}", self.server.volumes));
        }
        // One process for the guest, none that still works on a disk.
        let processes = self.fixture.processes();
        if processes.len() != 1 {
            return Some(format!("{processes:?}"));
        }
        if self.server.root.is_none() {
            let ready = self.since_kill().contains("tiny: ready");
            return (!ready).then(|| "it has not booted".into());
        }
        let wanted: BTreeSet<String> = self
            .server
            .volumes
            .iter()
            .map(|it| format!("{}={}", serial(&it.volume), self.volumes[&it.volume].size_gib << 21))
            .collect();
        let log = self.since_kill();
        let log = if self.victim == Victim::Agent { self.console() } else { log };
        let last = log.rsplit_once("keeper: disks").and_then(|(_, rest)| rest.split_once('.'));
        let disks = last.map_or("none", |(disks, _)| disks);
        let list: Vec<String> = disks.split_whitespace().map(str::to_owned).collect();
        let fine = list.len() == wanted.len() && list.into_iter().collect::<BTreeSet<_>>() == wanted;
        (!fine).then(|| format!("the guest sees {disks}, not {wanted:?}"))
    }

    /// Every line of the guest in order: a disk that is found again holds what it held, and no number has been lost.
    fn read_what_was_said(&mut self) {
        let (mut sums, mut counts) = (self.sums.clone(), BTreeMap::<VolumeId, u64>::new());
        let ids: Vec<VolumeId> = self.volumes.keys().cloned().collect();
        let log = self.console();
        for line in log.lines() {
            let Some((_, words)) = line.split_once("keeper: ") else { continue };
            let words: Vec<&str> = words.split_whitespace().collect();
            let Some(id) = words.get(1).and_then(|word| ids.iter().find(|id| serial(id) == *word)) else { continue };
            match words[..] {
                ["read", _, sum, last] => {
                    let known = sums.entry(id.clone()).or_insert_with(|| sum.to_owned());
                    assert_eq!(known, sum, "{:?}, {}: {id} holds something else\n{log}", self.victim, self.at);
                    let last: u64 = last.parse().unwrap();
                    let said = counts.get(id).copied().unwrap_or(0);
                    assert!(last >= said, "{:?}, {}: {id} has lost {said}, it has {last}\n{log}", self.victim, self.at);
                }
                ["count", _, number] => {
                    if let Ok(number) = number.parse() {
                        counts.insert(id.clone(), number);
                    }
                }
                _ => {}
            }
        }
        (self.sums, self.counts) = (sums, counts);
    }

    async fn end(mut self) {
        self.at = "the end".into();
        self.change_server(|it| (it.power, it.volumes) = (DesiredPower::Absent, Vec::new()));
        let ids: Vec<VolumeId> = self.volumes.keys().cloned().collect();
        for id in &ids {
            self.change_volume(id, |it| it.desired = Desired::Absent);
        }
        let gone = |scene: &Scene| {
            let guest = scene.lone.guest(&scene.server.id).is_some_and(|it| it.power == ObservedPower::Absent);
            let volumes = scene.fixture.state().join("hosts/volumes");
            guest && std::fs::read_dir(volumes).unwrap().count() == 0
        };
        fixture::wait_for("everything to go", || gone(&self)).await;
        assert_eq!(self.fixture.processes(), []);
    }
}

/// Layers and halves of layers that the record of a volume does not name.
fn files_unnamed(folder: &PathBuf) -> Vec<String> {
    let record = std::fs::read(folder.join("disk.json")).unwrap_or_default();
    let record: serde_json::Value = serde_json::from_slice(&record).unwrap_or_default();
    let layers = record["layers"].as_array().cloned().unwrap_or_default();
    let named: Vec<String> =
        layers.iter().map(|it| format!("{}.{}", it["number"], it["format"].as_str().unwrap_or_default())).collect();
    let names = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let names = names.map(|it| it.file_name().to_string_lossy().into_owned());
    let known = ["ledger.json", "disk.json", "qemu.log", "ledger.partial", "disk.partial"];
    names.filter(|name| !known.contains(&name.as_str()) && !named.contains(name)).collect()
}

const OPERATIONS: [&str; 5] = ["attach", "snapshot", "extend", "detach", "delete"];

/// Asks for one of them, where everything is as it shall be.
async fn ask(scene: &mut Scene, what: &str, round: u32) {
    let (data, other) = (volume(1).id, volume(2).id);
    match what {
        "attach" => scene.change_server(|it| it.volumes = vec![attached(&data, "vdb"), attached(&other, "vdc")]),
        "detach" => scene.change_server(|it| it.volumes = vec![attached(&data, "vdb")]),
        // The one of the last round goes with it: its layer is merged into the active one.
        "snapshot" => scene.change_volume(&data, |it| {
            it.snapshots.retain(|it| it.desired == Desired::Present);
            it.snapshots.iter_mut().for_each(|it| it.desired = Desired::Absent);
            let id = format!("9a2b0a6e-0001-4000-8000-{round:012}").into();
            it.snapshots.push(SnapshotSpec { id, desired: Desired::Present });
        }),
        "extend" => {
            for id in [&data, &other] {
                scene.change_volume(id, |it| it.size_gib += 1);
            }
        }
        _ => {
            // With QEMU as the victim it is in the guest until this moment.
            let gone = volume(round + 100).id;
            scene.change_server(|it| it.volumes = vec![attached(&data, "vdb")]);
            scene.change_volume(&gone, |it| it.desired = Desired::Absent);
        }
    }
}

/// What an operation begins with.
async fn prepare(scene: &mut Scene, what: &str, round: u32) {
    if what != "delete" {
        return;
    }
    let mut gone = volume(round + 100);
    gone.snapshots =
        vec![SnapshotSpec { id: format!("9b2b0a6e-0001-4000-8000-{round:012}").into(), desired: Desired::Present }];
    let id = gone.id.clone();
    scene.put_volume(gone);
    if scene.victim == Victim::Qemu {
        scene.change_server(|it| it.volumes.push(attached(&id, "vdd")));
    }
    scene.settled().await;
}

async fn kill_at_every_operation(name: &str, victim: Victim, rounds: u64) {
    let Some(fixture) = Fixture::new(name).await else { return };
    let mut server = spec(1);
    server.root.as_mut().unwrap().size_gib = 0;
    server.metadata.user_data = Some(fixture::base64(COUNTER.as_bytes()));
    server.volumes = vec![attached(&volume(1).id, "vdb")];
    let mut scene = Scene::new(fixture, server, victim);
    for number in [1, 2] {
        scene.put_volume(volume(number));
    }
    scene.tell();
    // Once without a kill: how long each takes, and what the disks hold.
    let mut takes = BTreeMap::new();
    for round in 0..=rounds as u32 {
        for what in OPERATIONS {
            scene.at = format!("round {round}, before {what}");
            prepare(&mut scene, what, round).await;
            scene.settled().await;
            let begun = Instant::now();
            ask(&mut scene, what, round).await;
            if round > 0 {
                let after = scene.moment(takes[what]);
                scene.at = format!("round {round}, {what}, {after:?}");
                scene.strike(after).await;
            }
            scene.settled().await;
            if round == 0 {
                takes.insert(what, begun.elapsed().min(Duration::from_secs(3)));
            }
            if what == "delete" {
                scene.volumes.remove(&volume(round + 100).id);
            }
        }
    }
    assert!([1, 2].iter().all(|it| scene.sums.contains_key(&volume(*it).id)), "{:?}", scene.sums);
    println!("{victim:?}: {rounds} rounds of {takes:?}, numbers {:?}", scene.counts);
    // The last snapshot holds it, too.
    scene.at = "the copy".into();
    let mut copy = volume(3);
    copy.size_gib = scene.volumes[&volume(1).id].size_gib;
    let snapshot = format!("9a2b0a6e-0001-4000-8000-{rounds:012}").into();
    copy.source = VolumeSource::Snapshot { volume: volume(1).id, snapshot };
    let id = copy.id.clone();
    scene.put_volume(copy);
    scene.change_server(|it| it.volumes.push(attached(&id, "vde")));
    scene.settled().await;
    assert_eq!(scene.sums[&id], scene.sums[&volume(1).id]);
    scene.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_killed_at_any_moment_leaves_volumes_whole() {
    kill_at_every_operation("volume-agent", Victim::Agent, number_of("NUBO_ROUNDS", 3)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_qemu_killed_at_any_moment_leaves_volumes_whole() {
    kill_at_every_operation("volume-qemu", Victim::Qemu, number_of("NUBO_ROUNDS", 1)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_boot_from_a_volume_survives_whoever_is_killed() {
    for (name, victim) in [("boot-agent", Victim::Agent), ("boot-qemu", Victim::Qemu)] {
        let rounds = number_of("NUBO_ROUNDS", 1) as u32;
        let mut takes = Duration::ZERO;
        for round in 0..=rounds {
            let Some(fixture) = Fixture::new(name).await else { return };
            let mut server = spec(round + 10);
            let mut disk = volume(round + 10);
            disk.source = VolumeSource::Image(fixture.with_image(&server).root.as_ref().unwrap().into());
            server.root = None;
            server.volumes = vec![GuestVolume { boot_index: Some(0), ..attached(&disk.id, "vda") }];
            let mut scene = Scene::new(fixture, server, victim);
            scene.random = scene.random.wrapping_add(u64::from(round));
            let begun = Instant::now();
            scene.put_volume(disk);
            scene.tell();
            if round > 0 {
                let after = scene.moment(takes);
                scene.at = format!("round {round}, boot, {after:?}");
                scene.strike(after).await;
            }
            scene.settled().await;
            if round == 0 {
                takes = begun.elapsed().min(Duration::from_secs(3));
            }
            scene.end().await;
        }
    }
}
