//! A host's directory of volumes that is full, read-only or broken: whoever writes there learns it or waits, everybody
//! else goes on, and so do they when the cause is gone.

use crate::fixture::{self, Fixture, PATIENCE, spec};
use agent::Agent;
use agent_api::{
    Desired, GuestSpec, GuestVolume, HostAgent, ObservedPower, ViewObject, VolumeObserved, VolumeSource, VolumeSpec,
    VolumeState,
};
use std::process::Command;
use std::time::{Duration, Instant};

/// Writes 40 MiB to the disk that comes, then goes on writing a block of it; says what came of it.
const WRITER: &str = r#"#!/bin/sh
say() { echo "writer: $*" > /dev/console; }
disk() { grep -l '^7c2b0a6e' /sys/block/vd*/serial 2>/dev/null | cut -d/ -f4; }
(until [ "$(disk)" ]; do sleep 0.1; done
name=$(disk)
head -c 41943040 /dev/urandom > /dev/shm/data 2>/dev/null || head -c 41943040 /dev/urandom > /run/data
data=/dev/shm/data; [ -s $data ] || data=/run/data
if dd if=$data of="/dev/$name" bs=1048576 conv=notrunc,fsync 2>/dev/null; then
  say "wrote $(md5sum < $data | cut -d' ' -f1)."
else
  say "could not write all."
fi
n=0
while :; do
  n=$((n+1))
  if printf '%-511s\n' $n | dd of="/dev/$name" bs=512 seek=100000 conv=notrunc,fsync 2>/dev/null; then
    say "block $n"
  else
    say "block failed"
  fi
  sleep 0.5
done) > /dev/null 2>&1 &
"#;

const TICKS: &str = "#!/bin/sh\n\
    (n=0; while :; do n=$((n+1)); echo \"tick $n\" > /dev/console; sleep 0.2; done) > /dev/null 2>&1 &\n";

fn volume(number: u32) -> VolumeSpec {
    VolumeSpec {
        id: format!("7c2b0a6e-{number:04}-4000-8000-000000000001").into(),
        generation: 1,
        size_gib: 1,
        desired: Desired::Present,
        source: VolumeSource::Blank,
        snapshots: Vec::new(),
        flatten: false,
        made: false,
    }
}

fn guest(number: u32, script: &str) -> GuestSpec {
    let mut spec = spec(number);
    spec.root.as_mut().unwrap().size_gib = 0;
    spec.metadata.user_data = Some(fixture::base64(script.as_bytes()));
    spec
}

fn attached(volume: &VolumeSpec) -> GuestVolume {
    GuestVolume {
        attachment: format!("8{}", &volume.id.as_str()[1..]).into(),
        volume: volume.id.clone(),
        device: "vdb".into(),
        boot_index: None,
        bus: Default::default(),
        tag: None,
        read_only: false,
    }
}

async fn view(agent: &Agent, volume: &VolumeSpec) -> Result<(), String> {
    let put = vec![ViewObject::Volume(volume.clone())];
    agent.apply(agent_api::ViewDelta { version: 1, whole: false, put, remove: Vec::new() }).await
}

/// As control does: what could not be taken over is said again.
async fn until(
    agent: &Agent,
    spec: &VolumeSpec,
    what: &str,
    holds: impl Fn(&VolumeObserved) -> bool,
) -> VolumeObserved {
    let begun = Instant::now();
    loop {
        let _ = view(agent, spec).await;
        let report = agent.observe(true).await;
        let seen = report.volumes.into_iter().find(|it| it.id == spec.id);
        if let Some(seen) = seen.clone().filter(&holds) {
            return seen;
        }
        assert!(begun.elapsed() < PATIENCE, "no {what}: {seen:?}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

async fn ready(agent: &Agent, spec: &VolumeSpec) -> VolumeObserved {
    let reached =
        |it: &VolumeObserved| it.state == VolumeState::Ready && it.generation == spec.generation && it.fault.is_none();
    until(agent, spec, "volume", reached).await
}

fn last_number(log: &str, word: &str) -> u64 {
    let numbers = log.lines().filter_map(|line| line.trim().rsplit_once(word)?.1.trim().parse().ok());
    numbers.max().unwrap_or(0)
}

/// Whatever happens to the other: this one goes on.
async fn goes_on(fixture: &Fixture, agent: &Agent, bystander: &GuestSpec) {
    let before = last_number(&fixture.console(agent, bystander).await, "tick ");
    fixture.until_console(agent, bystander, |log| last_number(log, "tick ") > before + 1).await;
}

async fn all_go(fixture: &Fixture, agent: &Agent, servers: &mut [GuestSpec], volumes: &mut [VolumeSpec]) {
    for server in servers {
        fixture.change(agent, server, |it| it.power = agent_api::DesiredPower::Absent).await;
        fixture.until(agent, server, ObservedPower::Absent).await;
    }
    for volume in volumes {
        volume.generation += 1;
        volume.desired = Desired::Absent;
        until(agent, volume, "absence", |it| it.state == VolumeState::Absent).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_holds_the_guest_that_writes_to_it_and_nobody_else() {
    let Some(mut fixture) = Fixture::new("full").await else { return };
    let Some(small) = fixture.small_volumes("size=24m") else { return };
    let agent = fixture.agent().await;
    let (mut server, bystander) = (guest(1, WRITER), guest(2, TICKS));
    let (data, late) = (volume(1), volume(2));
    server.volumes = vec![attached(&data)];
    ready(&agent, &data).await;
    for spec in [&bystander, &server] {
        fixture.put(&agent, spec).await;
        fixture.until(&agent, spec, ObservedPower::Running).await;
    }

    // The guest waits, and the reason names the volume; it is still a server that runs.
    let fault = fixture.until_fault(&agent, &server).await;
    assert!(fault.message.contains("disk is full") && fault.message.contains(data.id.as_str()), "{fault:?}");
    let seen = fixture.observed(&agent, &server.id, "a volume's fault", |it| it.volumes[0].fault.is_some()).await;
    assert_eq!(seen.power, ObservedPower::Running);
    assert!(seen.volumes[0].fault.as_ref().unwrap().message.contains("disk is full"), "{seen:?}");
    goes_on(&fixture, &agent, &bystander).await;
    assert!(agent.inventory().volume_pool.is_some_and(|pool| pool.total_gib == 0));

    // Nothing new fits; that is said, and waits, too.
    small.fill();
    let seen = until(&agent, &late, "fault", |it| it.fault.is_some()).await;
    assert!(seen.fault.as_ref().unwrap().message.contains("disk is full"), "{seen:?}");

    // Room again: all go on by themselves, and nothing was lost.
    small.grow();
    assert!(agent.inventory().volume_pool.is_some_and(|pool| pool.total_gib == 2), "asked for anew each time");
    fixture.until_console(&agent, &server, |log| log.contains("writer: wrote")).await;
    fixture.until(&agent, &server, ObservedPower::Running).await;
    fixture.observed(&agent, &server.id, "end of the fault", |it| it.volumes[0].fault.is_none()).await;
    ready(&agent, &late).await;

    all_go(&fixture, &agent, &mut [server, bystander], &mut [data, late]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_disk_is_the_guests_to_see() {
    let Some(mut fixture) = Fixture::new("broken").await else { return };
    let Some(broken) = fixture.loop_volumes(96) else { return };
    let agent = fixture.agent().await;
    let (mut server, bystander) = (guest(1, WRITER), guest(2, TICKS));
    let data = volume(1);
    server.volumes = vec![attached(&data)];
    ready(&agent, &data).await;
    for spec in [&bystander, &server] {
        fixture.put(&agent, spec).await;
        fixture.until(&agent, spec, ObservedPower::Running).await;
    }
    fixture.until_console(&agent, &server, |log| log.contains("writer: block 2")).await;

    // The file system gives up: the guest gets an error and goes on, the server runs.
    broken.give_up();
    fixture.until_console(&agent, &server, |log| log.contains("writer: block failed")).await;
    let seen = fixture.until(&agent, &server, ObservedPower::Running).await;
    assert_eq!(seen.stopped_by_itself, None);
    goes_on(&fixture, &agent, &bystander).await;
    let mut larger = data.clone();
    (larger.generation, larger.size_gib) = (2, 2);
    let refused = view(&agent, &larger).await.unwrap_err();
    assert!(refused.contains("read-only"), "{refused}");

    // Mended by its operator: the server starts, with what it had written.
    fixture.change(&agent, &mut server, |it| (it.power, it.at_once) = (agent_api::DesiredPower::Stopped, true)).await;
    fixture.until(&agent, &server, ObservedPower::Stopped).await;
    drop(agent);
    broken.mend();
    let agent = fixture.agent().await;
    ready(&agent, &larger).await;
    fixture.change(&agent, &mut server, |it| it.power = agent_api::DesiredPower::Running).await;
    fixture.until(&agent, &server, ObservedPower::Running).await;
    fixture.until_console(&agent, &server, |log| log.matches("writer: wrote").count() == 2).await;
    let check = Command::new("qemu-img").arg("check").arg("-U").arg(fixture.volume_file(&data, "1.qcow2")).output();
    assert!(matches!(check.unwrap().status.code(), Some(0 | 3)));
    all_go(&fixture, &agent, &mut [server, bystander], &mut [larger]).await;
    drop(agent);
    broken.remove();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_volume_that_was_there_once_is_not_made_anew() {
    let Some(fixture) = Fixture::new("lost").await else { return };
    let agent = fixture.agent().await;
    // An agent that has lost everything it knew: control alone knows that there was something.
    let mut lost = VolumeSpec { made: true, generation: 3, ..volume(1) };
    let seen = until(&agent, &lost, "fault", |it| it.fault.is_some()).await;
    let fault = seen.fault.as_ref().unwrap();
    assert!(fault.message.contains("lost") && !fault.retried && seen.state != VolumeState::Ready, "{seen:?}");
    assert!(!fixture.volume_file(&lost, "1.raw").exists());
    lost.made = false;
    lost.generation += 1;
    lost.desired = Desired::Absent;
    until(&agent, &lost, "absence", |it| it.state == VolumeState::Absent && it.fault.is_none()).await;
}
