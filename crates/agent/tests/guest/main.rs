//! Guests in real QEMU processes, most of them without networks.

mod base_image;
mod fixture;
mod flatten;
mod kills;
mod ksm;
// Networks as the tests of networks make them; guests in namespaces are not needed here.
#[allow(dead_code)]
#[path = "../net/lab.rs"]
mod lab;
mod lone;
mod room;
mod volumes;
mod wired;

use agent_api::{DesiredPower, HostAgent, ObservedPower, OnCrash};
use fixture::{Fixture, spec, wait_for};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const TICKS: &str = "#!/bin/sh\n\
    echo \"seed is $(cat /run/instance-id), data on $(grep ' /mnt ' /proc/mounts)\"\n\
    (n=0; while :; do n=$((n+1)); echo \"tick $n\" > /dev/console; sleep 0.2; done) > /dev/null 2>&1 &\n";

/// The highest tick that the guest has written.
fn ticks(console: &str) -> u64 {
    let numbers = console.lines().filter_map(|line| line.trim().strip_prefix("tick ")?.parse().ok());
    numbers.max().unwrap_or(0)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_obeys_every_verb_and_leaves_nothing() {
    let Some(fixture) = Fixture::new("verbs").await else { return };
    let mut spec = spec(1);
    spec.metadata.hostname = "web-1.novalocal".into();
    spec.metadata.user_data = Some(fixture::base64(TICKS.as_bytes()));
    let agent = fixture.agent().await;

    // Starts, unprivileged, in its own group and session, with what the config drive says.
    fixture.put(&agent, &spec).await;
    fixture.until(&agent, &spec, ObservedPower::Running).await;
    let first = fixture.process(&spec).expect("a running guest has a process");
    fixture::assert_confined(&first, &fixture.cloud, &spec.id);
    let booted = fixture.until_console(&agent, &spec, |log| ticks(log) >= 2).await;
    assert!(booted.contains("host=web-1 "), "{booted}");
    assert!(booted.contains(&format!("seed is {}, data on /dev/vda2 /mnt ext4", spec.id)), "{booted}");

    // The screen and the serial port answer.
    let mut screen = agent.console(&spec.id, false).await.unwrap();
    let mut banner = [0u8; 12];
    screen.read_exact(&mut banner).await.unwrap();
    assert_eq!(&banner[..8], b"RFB 003.");
    drop(screen);
    let mut serial = agent.console(&spec.id, true).await.unwrap();
    serial.write_all(b"\r\n").await.unwrap();
    fixture::read_until(&mut serial, "login:").await;
    let mut newer = agent.console(&spec.id, true).await.unwrap();
    newer.write_all(b"\r\n").await.unwrap();
    fixture::read_until(&mut newer, "login:").await;
    let mut rest = Vec::new();
    let _ = serial.read_to_end(&mut rest).await;

    // Pauses and goes on.
    fixture.change(&agent, &mut spec, |spec| spec.power = DesiredPower::Paused).await;
    fixture.until(&agent, &spec, ObservedPower::Paused).await;
    let paused = ticks(&fixture.console(&agent, &spec).await);
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(ticks(&fixture.console(&agent, &spec).await), paused);
    fixture.change(&agent, &mut spec, |spec| spec.power = DesiredPower::Running).await;
    fixture.until(&agent, &spec, ObservedPower::Running).await;
    fixture.until_console(&agent, &spec, |log| ticks(log) > paused).await;

    // Goes to disk and comes back in the middle of what it did.
    fixture.change(&agent, &mut spec, |spec| spec.power = DesiredPower::Suspended).await;
    fixture.until(&agent, &spec, ObservedPower::Suspended).await;
    assert!(fixture.process(&spec).is_none());
    let saved = ticks(&fixture.console(&agent, &spec).await);
    fixture.change(&agent, &mut spec, |spec| spec.power = DesiredPower::Running).await;
    fixture.until(&agent, &spec, ObservedPower::Running).await;
    let resumed = fixture.until_console(&agent, &spec, |log| ticks(log) > saved).await;
    assert_eq!(resumed.matches("tiny: ready").count(), 1, "it was booted instead of resumed");
    assert!(!fixture.folder(&spec).join("memory").exists());

    // A soft reboot is the guest's own work, in the same process.
    let before = fixture.process(&spec).unwrap();
    fixture.change(&agent, &mut spec, |spec| spec.soft_reboots = 1).await;
    let seen = fixture.until(&agent, &spec, ObservedPower::Running).await;
    assert_eq!((seen.soft_reboots, seen.stopped_by_itself), (1, None));
    assert_eq!(fixture.process(&spec).unwrap().pid, before.pid);
    fixture.until_console(&agent, &spec, |log| log.matches("tiny: ready").count() == 2).await;

    // A lower generation changes nothing.
    let mut old = spec.clone();
    (old.generation, old.power) = (1, DesiredPower::Absent);
    fixture.put(&agent, &old).await;

    // Stops in order, stays stopped, starts again in a process of its own, and is rebooted hard.
    fixture.change(&agent, &mut spec, |spec| spec.power = DesiredPower::Stopped).await;
    let seen = fixture.until(&agent, &spec, ObservedPower::Stopped).await;
    assert_eq!(seen.stopped_by_itself, None);
    assert!(fixture.console(&agent, &spec).await.contains("powering off"));
    assert!(fixture.process(&spec).is_none());
    fixture.change(&agent, &mut spec, |spec| spec.power = DesiredPower::Running).await;
    fixture.until(&agent, &spec, ObservedPower::Running).await;
    let before = fixture.process(&spec).unwrap();
    fixture.change(&agent, &mut spec, |spec| spec.hard_reboots = 1).await;
    let seen = fixture.until(&agent, &spec, ObservedPower::Running).await;
    assert_eq!(seen.hard_reboots, 1);
    assert_ne!(fixture.process(&spec).unwrap().pid, before.pid);

    // Goes, and nothing of it stays.
    fixture.change(&agent, &mut spec, |spec| spec.power = DesiredPower::Absent).await;
    fixture.until(&agent, &spec, ObservedPower::Absent).await;
    assert!(fixture.process(&spec).is_none());
    assert_eq!(std::fs::read_dir(fixture.state().join("hosts/guests")).unwrap().count(), 0);
    assert_eq!(fixture::cgroups(&fixture.cloud), Vec::<String>::new());
    // Asked once more, it is still gone.
    spec.generation += 1;
    fixture.put(&agent, &spec).await;
    fixture.until(&agent, &spec, ObservedPower::Absent).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_guest_follows_what_its_flavor_says() {
    let Some(fixture) = Fixture::new("killed").await else { return };
    let agent = fixture.agent().await;
    let (mut stays, mut returns) = (spec(1), spec(2));
    returns.on_crash = OnCrash::Restart;
    for spec in [&stays, &returns] {
        fixture.put(&agent, spec).await;
        fixture.until(&agent, spec, ObservedPower::Running).await;
    }
    let old = fixture.process(&returns).unwrap();
    fixture.kill(&stays);
    fixture.kill(&returns);
    let seen = fixture.until(&agent, &stays, ObservedPower::Stopped).await;
    assert_eq!(seen.stopped_by_itself.as_deref(), Some("killed: signal 9"));
    wait_for("the guest to come back", || fixture.process(&returns).is_some_and(|new| new.pid != old.pid)).await;
    let seen = fixture.until(&agent, &returns, ObservedPower::Running).await;
    assert_eq!(seen.stopped_by_itself, None);

    // Another change does not start it again; what is asked of its power does.
    fixture.change(&agent, &mut stays, |_| {}).await;
    let seen = fixture.until(&agent, &stays, ObservedPower::Stopped).await;
    assert_eq!(seen.stopped_by_itself.as_deref(), Some("killed: signal 9"));
    assert!(fixture.process(&stays).is_none());
    fixture.change(&agent, &mut stays, |it| it.power_generation = it.generation).await;
    let seen = fixture.until(&agent, &stays, ObservedPower::Running).await;
    assert_eq!(seen.stopped_by_itself, None);
    for spec in [&mut stays, &mut returns] {
        fixture.change(&agent, spec, |spec| spec.power = DesiredPower::Absent).await;
        fixture.until(&agent, spec, ObservedPower::Absent).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn guests_outlive_the_agent_and_a_reboot_of_the_host_brings_them_back() {
    let Some(mut fixture) = Fixture::new("adopt").await else { return };
    let (mut runs, mut paused, mut dies) = (spec(1), spec(2), spec(3));
    let agent = fixture.agent().await;
    for spec in [&mut runs, &mut paused, &mut dies] {
        fixture.put(&agent, spec).await;
        fixture.until(&agent, spec, ObservedPower::Running).await;
    }
    fixture.change(&agent, &mut paused, |spec| spec.power = DesiredPower::Paused).await;
    fixture.until(&agent, &paused, ObservedPower::Paused).await;
    let before = (fixture.process(&runs), fixture.process(&paused));

    // The agent goes without a word; a guest dies meanwhile.
    drop(agent);
    fixture.kill(&dies);
    let agent = fixture.agent().await;
    let report = agent.observe(true).await;
    let power = |id: &base::ServerId| report.guests.iter().find(|it| it.id == *id).map(|it| it.power);
    assert_eq!(power(&runs.id), Some(ObservedPower::Running));
    assert_eq!(power(&paused.id), Some(ObservedPower::Paused));
    assert_eq!((fixture.process(&runs), fixture.process(&paused)), before);
    let seen = fixture.until(&agent, &dies, ObservedPower::Stopped).await;
    assert!(seen.stopped_by_itself.is_some());
    // What was adopted obeys.
    fixture.change(&agent, &mut paused, |spec| spec.power = DesiredPower::Running).await;
    fixture.until(&agent, &paused, ObservedPower::Running).await;

    // The host is rebooted: no process is left, and the boot id is another.
    drop(agent);
    fixture.kill(&runs);
    fixture.kill(&paused);
    fixture.boot_id = "another boot".into();
    let agent = fixture.agent().await;
    for spec in [&runs, &paused] {
        fixture.until(&agent, spec, ObservedPower::Running).await;
        assert!(fixture.process(spec).is_some());
    }
    assert!(fixture.process(&dies).is_none(), "what was stopped stays so");

    // The cloud is stopped together with its guests: they come back with it, too.
    drop(agent);
    let patience = Duration::from_millis(500);
    let stopped = agent::offline::stop_guests(&fixture.state(), &fixture.cloud, fixture::NOBODY, patience).await;
    assert_eq!((stopped.unwrap(), fixture.processes()), (2, vec![]));
    let agent = fixture.agent().await;
    for spec in [&runs, &paused] {
        fixture.until(&agent, spec, ObservedPower::Running).await;
    }
    assert!(fixture.process(&dies).is_none());
    for spec in [&mut runs, &mut paused, &mut dies] {
        fixture.change(&agent, spec, |spec| spec.power = DesiredPower::Absent).await;
        fixture.until(&agent, spec, ObservedPower::Absent).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_killed_at_any_moment_leaves_one_process() {
    let Some(fixture) = Fixture::new("moments").await else { return };
    let mut spec = spec(1);
    let mut agent = fixture.agent().await;
    fixture.put(&agent, &spec).await;
    // Each agent lives a little longer than the last; all of them want the same guest.
    for ms in [0, 2, 5, 10, 20, 30, 40, 60, 80, 120, 200] {
        tokio::time::sleep(Duration::from_millis(ms)).await;
        drop(agent);
        agent = fixture.agent().await;
        assert!(fixture.processes().len() <= 1);
    }
    fixture.until(&agent, &spec, ObservedPower::Running).await;
    assert_eq!(fixture.processes().len(), 1);
    // A reboot is performed, though its agent dies between the end of the old process and the start of the new one.
    for ms in [0, 1, 2, 4, 6, 8, 12, 16, 24, 32] {
        let before = fixture.process(&spec).unwrap();
        fixture.change(&agent, &mut spec, |spec| spec.hard_reboots += 1).await;
        tokio::time::sleep(Duration::from_millis(ms)).await;
        drop(agent);
        agent = fixture.agent().await;
        let seen = fixture.until(&agent, &spec, ObservedPower::Running).await;
        assert_eq!(seen.hard_reboots, spec.hard_reboots, "after {ms} ms");
        assert_ne!(fixture.process(&spec).unwrap().pid, before.pid, "a reboot cut off after {ms} ms was forgotten");
    }
    fixture.change(&agent, &mut spec, |spec| spec.power = DesiredPower::Absent).await;
    for ms in [0, 2, 5, 10, 20] {
        tokio::time::sleep(Duration::from_millis(ms)).await;
        drop(agent);
        agent = fixture.agent().await;
    }
    fixture.put(&agent, &spec).await;
    fixture.until(&agent, &spec, ObservedPower::Absent).await;
    assert_eq!(fixture.processes(), []);
    assert_eq!(std::fs::read_dir(fixture.state().join("hosts/guests")).unwrap().count(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_stands_in_the_way_is_said_and_tried_again() {
    let Some(mut fixture) = Fixture::new("faults").await else { return };
    // A disk that is full heals by itself once there is room.
    let Some(small) = fixture.small_state() else { return };
    let agent = fixture.agent().await;
    let mut full = spec(1);
    fixture.put(&agent, &full).await;
    let fault = fixture.until_fault(&agent, &full).await;
    assert!(fault.message.contains("disk is full") && fault.retried, "{fault:?}");
    small.grow();
    fixture.until(&agent, &full, ObservedPower::Running).await;

    // A flavor whose disk is too small, and a host that is asked for nonsense: given up until the spec changes.
    let mut wrong = spec(2);
    wrong.memory_mib = 0;
    fixture.put(&agent, &wrong).await;
    let fault = fixture.until_fault(&agent, &wrong).await;
    assert!(fault.message.contains("0 MiB of memory") && !fault.retried, "{fault:?}");
    fixture.change(&agent, &mut wrong, |spec| spec.memory_mib = 128).await;
    fixture.until(&agent, &wrong, ObservedPower::Running).await;

    let mut damaged = spec(3);
    let root = damaged.root.as_mut().unwrap();
    root.sha512 = "0".repeat(128);
    root.image_bytes += 1;
    agent.apply(fixture::delta(&damaged)).await.unwrap();
    let fault = fixture.until_fault(&agent, &damaged).await;
    assert!(fault.message.contains("damaged") && !fault.retried, "{fault:?}");

    // Without QEMU nothing starts, and the cure is named.
    drop(agent);
    fixture.qemu = "/nonexistent/qemu".into();
    let agent = fixture.agent().await;
    assert!(agent.inventory().warnings.iter().any(|it| it.contains("qemu-system-x86")));
    let mut missing = spec(4);
    fixture.put(&agent, &missing).await;
    let fault = fixture.until_fault(&agent, &missing).await;
    assert!(fault.message.contains("install qemu-system-x86") && fault.retried, "{fault:?}");
    for spec in [&mut full, &mut wrong, &mut damaged, &mut missing] {
        fixture.change(&agent, spec, |spec| spec.power = DesiredPower::Absent).await;
        fixture.until(&agent, spec, ObservedPower::Absent).await;
    }
}
