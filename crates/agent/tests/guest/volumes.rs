//! Volumes in guests: what was written is there, whoever is killed.

use crate::fixture::{self, Fixture, spec};
use agent::Agent;
use agent_api::{
    AttachmentState, Desired, DesiredPower, DiskFormat, GuestSpec, GuestVolume, HostAgent, ObservedPower, SnapshotSpec,
    VolumeObserved, VolumeSource, VolumeSpec, VolumeState,
};
use std::time::{Duration, Instant};
use tokio::io::AsyncReadExt;

/// Each disk that comes is filled once and read from then on; what it holds and how large it is, is said.
const KEEPER: &str = r#"#!/bin/sh
say() { echo "keeper: $*" > /dev/console; }
sum() { head -c 2097152 "/dev/$1" | md5sum | cut -d' ' -f1; }
look() {
  for folder in /sys/block/vd*; do
    name=${folder##*/} serial=$(cat "$folder/serial")
    case $serial in root | config | "") continue ;; esac
    now="$now $serial=$(cat "$folder/size")"
    case "$before " in *" $serial="*) continue ;; esac
    if [ "$(head -c 4 "/dev/$name")" = DATA ]; then say "read $serial $(sum "$name")"; continue; fi
    (echo DATA; head -c 2097147 /dev/urandom) | dd of="/dev/$name" bs=1048576 conv=notrunc 2>/dev/null
    sync
    say "wrote $serial $(sum "$name")"
  done
}
before=
(while :; do
  now=
  look
  [ "$now" = "$before" ] || say "disks$now."
  before=$now
  sleep 0.1
done) > /dev/null 2>&1 &
"#;

fn volume(number: u32) -> VolumeSpec {
    VolumeSpec {
        // They differ within what a guest sees of a serial number.
        id: format!("7a2b0a6e-{number:04}-4000-8000-000000000001").into(),
        generation: 1,
        size_gib: 1,
        desired: Desired::Present,
        source: VolumeSource::Blank,
        snapshots: Vec::new(),
        flatten: false,
        made: false,
    }
}

fn serial(volume: &VolumeSpec) -> &str {
    &volume.id.as_str()[..20]
}

fn attached(volume: &VolumeSpec, device: &str) -> GuestVolume {
    GuestVolume {
        attachment: format!("8{}", &volume.id.as_str()[1..]).into(),
        volume: volume.id.clone(),
        device: device.into(),
        boot_index: None,
        bus: Default::default(),
        tag: Some("data".into()),
        read_only: false,
    }
}

fn keeper(number: u32) -> GuestSpec {
    let mut spec = spec(number);
    // Without a second partition it is done at each boot.
    spec.root.as_mut().unwrap().size_gib = 0;
    spec.metadata.user_data = Some(fixture::base64(KEEPER.as_bytes()));
    spec
}

async fn until_volume(
    fixture: &Fixture,
    agent: &Agent,
    spec: &VolumeSpec,
    holds: impl Fn(&VolumeObserved) -> bool,
) -> VolumeObserved {
    let begun = Instant::now();
    loop {
        let report = agent.observe(true).await;
        let seen = report.volumes.iter().find(|it| it.id == spec.id);
        if let Some(seen) = seen.filter(|it| holds(it)) {
            return seen.clone();
        }
        assert!(begun.elapsed() < fixture::PATIENCE, "{seen:?} for {spec:?}; {:?}", report.guests);
        let _ = tokio::time::timeout(Duration::from_millis(200), agent.observe(false)).await;
        let _ = fixture;
    }
}

async fn put(fixture: &Fixture, agent: &Agent, spec: &VolumeSpec) -> VolumeObserved {
    fixture.view(agent, agent_api::ViewObject::Volume(spec.clone())).await;
    let reached = |it: &VolumeObserved| it.generation == spec.generation && it.fault.is_none();
    until_volume(fixture, agent, spec, reached).await
}

async fn change(
    fixture: &Fixture,
    agent: &Agent,
    spec: &mut VolumeSpec,
    change: impl FnOnce(&mut VolumeSpec),
) -> VolumeObserved {
    spec.generation += 1;
    change(spec);
    put(fixture, agent, spec).await
}

/// Waits until just these volumes are in the guest.
async fn until_plugged(fixture: &Fixture, agent: &Agent, spec: &GuestSpec) {
    let what = format!("volumes {:?}", spec.volumes);
    let reached = |it: &agent_api::GuestObserved| {
        it.volumes.len() == spec.volumes.len()
            && it.volumes.iter().all(|it| it.state == AttachmentState::Attached && it.fault.is_none())
            && spec.volumes.iter().all(|wanted| it.volumes.iter().any(|it| it.attachment == wanted.attachment))
    };
    fixture.observed(agent, &spec.id, &what, reached).await;
}

/// The sum of what the keeper wrote, in a copy of the volume.
async fn sum_of_copy(agent: &Agent, volume: &VolumeSpec) -> String {
    let mut stream = agent.volume(&volume.id, DiskFormat::Raw).await.unwrap();
    let length = agent_api::receive_disk(&mut stream).await.unwrap().unwrap();
    assert_eq!(length, volume.size_gib << 30);
    let mut bytes = vec![0; 2 << 20];
    stream.read_exact(&mut bytes).await.unwrap();
    md5(&bytes)
}

fn md5(bytes: &[u8]) -> String {
    let mut child = std::process::Command::new("md5sum")
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), bytes).unwrap();
    let said = child.wait_with_output().unwrap().stdout;
    String::from_utf8_lossy(&said).split_whitespace().next().unwrap().to_owned()
}

/// The last of the lines `keeper: WHAT SERIAL …`, without what stands before.
fn said(log: &str, what: &str, of: &VolumeSpec) -> Option<String> {
    let begin = format!("keeper: {what} {} ", serial(of));
    log.lines().filter_map(|line| Some(line.split_once(&begin)?.1.trim().to_owned())).next_back()
}

/// The disks that the guest sees, as it said last.
fn disks(log: &str) -> &str {
    log.rsplit_once("keeper: disks").and_then(|(_, rest)| rest.split_once('.')).map_or("", |(disks, _)| disks)
}

async fn until_disks(fixture: &Fixture, agent: &Agent, spec: &GuestSpec, wanted: &[(&VolumeSpec, u64)]) {
    let wanted: String = wanted.iter().map(|(volume, gib)| format!(" {}={}", serial(volume), gib << 21)).collect();
    fixture.until_console(agent, spec, |log| log.contains("keeper: ") && disks(log) == wanted).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_guest_wrote_to_a_volume_survives_everyone() {
    let Some(fixture) = Fixture::new("volumes").await else { return };
    let (mut server, mut data) = (keeper(1), volume(1));
    let agent = fixture.agent().await;
    let pool = agent.inventory().volume_pool.expect("a host keeps volumes");
    assert!(pool.total_gib >= pool.free_gib && pool.backend == "file");

    // Plugged into a guest that runs; it may still be booting.
    let seen = put(&fixture, &agent, &data).await;
    assert_eq!((seen.state, seen.size_bytes), (VolumeState::Ready, 1 << 30));
    assert!(seen.used_bytes <= 1 << 20, "{seen:?}");
    fixture.put(&agent, &server).await;
    fixture.until(&agent, &server, ObservedPower::Running).await;
    fixture.change(&agent, &mut server, |it| it.volumes = vec![attached(&data, "vdb")]).await;
    until_plugged(&fixture, &agent, &server).await;
    let log = fixture.until_console(&agent, &server, |log| said(log, "wrote", &data).is_some()).await;
    let sum = said(&log, "wrote", &data).unwrap();

    // Larger and kept, while it is written to.
    change(&fixture, &agent, &mut data, |it| it.size_gib = 2).await;
    until_disks(&fixture, &agent, &server, &[(&data, 2)]).await;
    let snapshot = SnapshotSpec { id: "9a2b0a6e-0001-4000-8000-000000000001".into(), desired: Desired::Present };
    let seen = change(&fixture, &agent, &mut data, |it| it.snapshots = vec![snapshot.clone()]).await;
    assert_eq!((seen.snapshots[0].id.clone(), seen.snapshots[0].size_bytes), (snapshot.id.clone(), 2 << 30));
    assert!(seen.used_bytes >= 2 << 20, "{seen:?}");

    // A copy of it for an image, while the guest has it; the agent dies over another one.
    assert_eq!(sum_of_copy(&agent, &data).await, sum);
    let broken_off = agent.volume(&data.id, DiskFormat::Qcow2).await.unwrap();
    tokio::task::yield_now().await;
    drop(broken_off);

    // The agent dies, then QEMU does.
    drop(agent);
    let agent = fixture.agent().await;
    until_plugged(&fixture, &agent, &server).await;
    assert_eq!(sum_of_copy(&agent, &data).await, sum);
    fixture.kill(&server);
    fixture.until(&agent, &server, ObservedPower::Stopped).await;
    fixture.change(&agent, &mut server, |it| it.power_generation = it.generation).await;
    fixture.until(&agent, &server, ObservedPower::Running).await;
    let log = fixture.until_console(&agent, &server, |log| said(log, "read", &data).is_some()).await;
    assert_eq!(said(&log, "read", &data).unwrap(), sum);

    // Out of the guest, and in again: what a snapshot held is copied up meanwhile.
    fixture.change(&agent, &mut server, |it| it.volumes.clear()).await;
    until_plugged(&fixture, &agent, &server).await;
    until_disks(&fixture, &agent, &server, &[]).await;
    assert_eq!(sum_of_copy(&agent, &data).await, sum, "at rest");
    let mut copy = volume(2);
    copy.size_gib = 2;
    copy.source = VolumeSource::Snapshot { volume: data.id.clone(), snapshot: snapshot.id.clone() };
    let seen = put(&fixture, &agent, &copy).await;
    assert_eq!(seen.depends_on, [data.id.clone()]);
    change(&fixture, &agent, &mut data, |it| it.snapshots[0].desired = Desired::Absent).await;
    let both = vec![attached(&data, "vdb"), attached(&copy, "vdc")];
    fixture.change(&agent, &mut server, |it| it.volumes = both).await;
    until_plugged(&fixture, &agent, &server).await;
    let log = fixture.until_console(&agent, &server, |log| said(log, "read", &copy).is_some()).await;
    assert_eq!((said(&log, "read", &copy).unwrap(), said(&log, "read", &data).unwrap()), (sum.clone(), sum.clone()));

    // Made independent while the guest has it; its source goes.
    change(&fixture, &agent, &mut copy, |it| it.flatten = true).await;
    until_volume(&fixture, &agent, &copy, |it| it.depends_on.is_empty()).await;
    fixture.change(&agent, &mut server, |it| it.volumes = vec![attached(&copy, "vdc")]).await;
    until_plugged(&fixture, &agent, &server).await;
    let seen = change(&fixture, &agent, &mut data, |it| it.desired = Desired::Absent).await;
    assert_eq!(seen.state, VolumeState::Absent);
    fixture.change(&agent, &mut server, |it| it.hard_reboots = 1).await;
    fixture.until(&agent, &server, ObservedPower::Running).await;
    fixture.until_console(&agent, &server, |log| log.matches("keeper: read").count() >= 4).await;
    let log = fixture.console(&agent, &server).await;
    assert_eq!(said(&log, "read", &copy).unwrap(), sum);

    fixture.change(&agent, &mut server, |it| it.power = DesiredPower::Absent).await;
    fixture.until(&agent, &server, ObservedPower::Absent).await;
    change(&fixture, &agent, &mut copy, |it| it.desired = Desired::Absent).await;
    assert_eq!(std::fs::read_dir(fixture.state().join("hosts/volumes")).unwrap().count(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_boots_from_a_volume() {
    let Some(fixture) = Fixture::new("boot-volume").await else { return };
    let agent = fixture.agent().await;
    let (mut server, mut disk) = (spec(1), volume(1));
    let root = fixture.with_image(&server).root.unwrap();
    disk.source = VolumeSource::Image((&root).into());
    server.root = None;
    server.volumes = vec![GuestVolume { boot_index: Some(0), ..attached(&disk, "vda") }];
    // The guest waits for the volume.
    fixture.put(&agent, &server).await;
    fixture.until_fault(&agent, &server).await;
    put(&fixture, &agent, &disk).await;
    fixture.until(&agent, &server, ObservedPower::Running).await;
    fixture.until_console(&agent, &server, |log| log.contains("tiny: ready")).await;
    // Nobody else gets it meanwhile, and it stays while it is in use.
    disk.generation += 1;
    disk.desired = Desired::Absent;
    fixture.view(&agent, agent_api::ViewObject::Volume(disk.clone())).await;
    let seen = until_volume(&fixture, &agent, &disk, |it| it.fault.is_some()).await;
    assert!(seen.fault.unwrap().message.contains("still in a server"));
    let mut other = spec(2);
    other.volumes = vec![attached(&disk, "vdb")];
    fixture.put(&agent, &other).await;
    let fault = fixture.until_fault(&agent, &other).await;
    assert!(fault.message.contains("in another server"), "{fault:?}");
    for server in [&mut other, &mut server] {
        fixture.change(&agent, server, |it| it.power = DesiredPower::Absent).await;
        fixture.until(&agent, server, ObservedPower::Absent).await;
    }
    until_volume(&fixture, &agent, &disk, |it| it.state == VolumeState::Absent).await;
    assert_eq!(std::fs::read_dir(fixture.state().join("hosts/volumes")).unwrap().count(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_killed_at_any_moment_of_a_change_leaves_the_volume_whole() {
    let Some(fixture) = Fixture::new("volume-moments").await else { return };
    let (mut server, mut data) = (keeper(1), volume(1));
    let mut agent = fixture.agent().await;
    put(&fixture, &agent, &data).await;
    server.volumes = vec![attached(&data, "vdb")];
    fixture.put(&agent, &server).await;
    fixture.until(&agent, &server, ObservedPower::Running).await;
    let log = fixture.until_console(&agent, &server, |log| said(log, "wrote", &data).is_some()).await;
    let sum = said(&log, "wrote", &data).unwrap();
    for (at, ms) in [0, 1, 2, 4, 8, 12, 20, 40].into_iter().enumerate() {
        let there = at % 2 == 1;
        // Out and in, a snapshot, a growth: all at once.
        server.generation += 1;
        server.volumes = if there { vec![attached(&data, "vdb")] } else { Vec::new() };
        data.generation += 1;
        data.size_gib += 1;
        for snapshot in &mut data.snapshots {
            snapshot.desired = Desired::Absent;
        }
        let id = format!("9a2b0a6e-0001-4000-8000-{at:012}").into();
        data.snapshots.push(SnapshotSpec { id, desired: Desired::Present });
        fixture.put(&agent, &server).await;
        fixture.view(&agent, agent_api::ViewObject::Volume(data.clone())).await;
        tokio::time::sleep(Duration::from_millis(ms)).await;
        drop(agent);
        agent = fixture.agent().await;
        let seen = put(&fixture, &agent, &data).await;
        assert_eq!((seen.size_bytes, seen.snapshots.len()), (data.size_gib << 30, 1), "after {ms} ms");
        until_plugged(&fixture, &agent, &server).await;
        if there {
            until_disks(&fixture, &agent, &server, &[(&data, data.size_gib)]).await;
            let log = fixture.console(&agent, &server).await;
            assert_eq!(said(&log, "read", &data).unwrap(), sum, "after {ms} ms");
        }
    }
    fixture.change(&agent, &mut server, |it| it.power = DesiredPower::Absent).await;
    fixture.until(&agent, &server, ObservedPower::Absent).await;
    change(&fixture, &agent, &mut data, |it| it.desired = Desired::Absent).await;
}
