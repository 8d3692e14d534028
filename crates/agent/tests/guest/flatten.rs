//! Root disks that shall stand on no image any more.

use crate::fixture::{Fixture, spec};
use agent::Agent;
use agent_api::{DesiredPower, GuestSpec, ObservedPower};
use std::process::Command;

/// What `qemu-img` finds below the disk.
fn backing(fixture: &Fixture, spec: &GuestSpec) -> serde_json::Value {
    let path = fixture.folder(spec).join("root.qcow2");
    let info = Command::new("qemu-img").args(["info", "-U", "--output=json"]).arg(path).output().unwrap();
    assert!(info.status.success(), "{info:?}");
    serde_json::from_slice::<serde_json::Value>(&info.stdout).unwrap()["backing-filename"].clone()
}

fn flat(spec: &mut GuestSpec) {
    spec.root.as_mut().unwrap().flat = true;
}

async fn until_flat(fixture: &Fixture, agent: &Agent, spec: &GuestSpec) {
    let seen = fixture.observed(agent, &spec.id, "disk that stands alone", |it| it.flat).await;
    assert_eq!((seen.fault, seen.flat_problem), (None, None));
    assert_eq!(backing(fixture, spec), serde_json::Value::Null);
}

/// Starts without the image, which nobody can bring any more.
async fn boots_alone(fixture: &mut Fixture, agent: &Agent, spec: &mut GuestSpec) {
    let base = fixture.base(spec);
    std::fs::remove_file(&base).unwrap();
    std::fs::remove_file(&fixture.image).unwrap();
    let boots = fixture.console(agent, spec).await.matches("tiny: ready").count();
    fixture.change(agent, spec, |spec| (spec.power, spec.hard_reboots) = (DesiredPower::Running, 1)).await;
    fixture.until(agent, spec, ObservedPower::Running).await;
    fixture.until_console(agent, spec, |log| log.matches("tiny: ready").count() > boots).await;
    assert!(!base.exists());
    let disk = fixture.folder(spec).join("root.qcow2");
    fixture.change(agent, spec, |spec| spec.power = DesiredPower::Stopped).await;
    fixture.until(agent, spec, ObservedPower::Stopped).await;
    let check = Command::new("qemu-img").arg("check").arg(disk).output().unwrap();
    assert!(check.status.success(), "{}", String::from_utf8_lossy(&check.stdout));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_comes_off_its_image_while_the_guest_runs() {
    let Some(mut fixture) = Fixture::new("flatten").await else { return };
    fixture.own_image();
    let mut spec = spec(1);
    let agent = fixture.agent().await;
    fixture.put(&agent, &spec).await;
    fixture.until_console(&agent, &spec, |log| log.contains("tiny: ready")).await;
    let before = fixture.process(&spec).unwrap().pid;
    assert!(backing(&fixture, &spec).is_string());
    let known = fixture.with_image(&spec);
    spec.root = known.root;
    fixture.change(&agent, &mut spec, flat).await;
    until_flat(&fixture, &agent, &spec).await;
    assert_eq!(fixture.process(&spec).unwrap().pid, before);

    // A later agent knows it, too.
    drop(agent);
    let agent = fixture.agent().await;
    until_flat(&fixture, &agent, &spec).await;
    boots_alone(&mut fixture, &agent, &mut spec).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_comes_off_its_image_at_rest_and_whatever_comes_between() {
    let Some(mut fixture) = Fixture::new("flat-rest").await else { return };
    fixture.own_image();
    let mut spec = spec(1);
    let agent = fixture.agent().await;
    fixture.put(&agent, &spec).await;
    fixture.until_console(&agent, &spec, |log| log.contains("tiny: ready")).await;
    let known = fixture.with_image(&spec);
    spec.root = known.root;
    // Asked for and suspended at once, by an agent that dies over it.
    fixture.change(&agent, &mut spec, flat).await;
    fixture.change(&agent, &mut spec, |spec| spec.power = DesiredPower::Suspended).await;
    drop(agent);
    let agent = fixture.agent().await;
    fixture.until(&agent, &spec, ObservedPower::Suspended).await;
    until_flat(&fixture, &agent, &spec).await;
    assert!(fixture.process(&spec).is_none());
    // Its saved memory fits the disk.
    fixture.change(&agent, &mut spec, |spec| spec.power = DesiredPower::Running).await;
    fixture.until(&agent, &spec, ObservedPower::Running).await;
    assert_eq!(fixture.console(&agent, &spec).await.matches("tiny: ready").count(), 1);
    boots_alone(&mut fixture, &agent, &mut spec).await;
}
