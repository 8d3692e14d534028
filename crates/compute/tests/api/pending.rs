//! Nothing is on its way for ever: deadlines, other hosts, and what has no owner.

use crate::cloud::*;
use agent_api::ObservedPower;
use compute::Allocation;
use contract::{Asking, Explain};
use serde_json::json;
use simhost::Trouble;
use store::{Cause, Query};

const BUILD_MS: i64 = 30 * 60_000;
const OTHER_MS: i64 = 10 * 60_000;

async fn fault(cloud: &Cloud, token: &str, id: &str) -> (String, String) {
    let server = cloud.get(token, &format!("/servers/{id}")).await.ok(200)["server"].clone();
    let text = |key: &str| server["fault"][key].as_str().unwrap_or_default().to_owned();
    (text("message"), text("details"))
}

#[tokio::test]
async fn a_server_whose_host_falls_silent_is_in_error_until_the_host_answers() {
    let cloud = Cloud::new(1).await;
    let id = cloud.active("web").await;
    cloud.hardware.set_alive("sim-1", false);
    cloud.act(ALICE, &id, json!({"os-stop": null})).await.ok(202);
    cloud.clock.advance_ms(OTHER_MS - 1);
    cloud.settle().await;
    let actions = cloud.get(ALICE, &format!("/servers/{id}/os-instance-actions")).await.ok(200);
    let request = actions["instanceActions"][0]["request_id"].as_str().unwrap();
    let path = format!("/servers/{id}/os-instance-actions/{request}");
    for (token, host) in [(ALICE, "its host"), (ADMIN, "host sim-1")] {
        let event = cloud.get(token, &path).await.ok(200)["instanceAction"]["events"][0].clone();
        let details = event["details"].as_str().unwrap();
        assert!(details.starts_with(&format!("It waits for {host}, which has not answered since ")), "{details}");
        assert!(details.contains(", until ") && event["result"].is_null(), "{event}");
    }
    let server = cloud.server(&id).await;
    assert_eq!((&server["status"], &server["OS-EXT-STS:task_state"]), (&json!("ACTIVE"), &json!("powering-off")));
    cloud.clock.advance_ms(1);
    cloud.settle().await;
    assert_eq!(cloud.status(&id).await, "ERROR");
    let (message, details) = fault(&cloud, ALICE, &id).await;
    assert_eq!(
        message,
        "Stopping the server took longer than 10 minutes: it waits for its host, which has not answered. It goes on by \
         itself when its host answers again; or delete it."
    );
    assert!(details.is_empty(), "an owner learns no names of hosts: {details}");
    assert!(fault(&cloud, ADMIN, &id).await.1.contains("host sim-1"));
    let actions = cloud.get(ALICE, &format!("/servers/{id}/os-instance-actions")).await.ok(200);
    assert_eq!(actions["instanceActions"][0]["message"], "Error");
    cloud.hardware.set_alive("sim-1", true);
    cloud.settle().await;
    let server = cloud.server(&id).await;
    assert_eq!((&server["status"], server.get("fault")), (&json!("SHUTOFF"), None));
    // The next verb has its own time.
    cloud.act(ALICE, &id, json!({"os-start": null})).await.ok(202);
    assert_eq!(cloud.status(&id).await, "SHUTOFF");
    cloud.settle().await;
    assert_eq!(cloud.status(&id).await, "ACTIVE");
}

#[tokio::test]
async fn the_time_of_a_build_is_counted_by_whoever_comes_after_a_crash() {
    let mut cloud = Cloud::new(1).await;
    cloud.host(0).fail_starts(u32::MAX, Trouble { message: "The disk is full.".into(), retried: true });
    let id = cloud.boot("web").await;
    cloud.settle().await;
    assert_eq!(cloud.status(&id).await, "BUILD");
    cloud.clock.advance_ms(BUILD_MS - 1);
    cloud.restart();
    cloud.settle().await;
    assert_eq!(cloud.status(&id).await, "BUILD");
    cloud.clock.advance_ms(1);
    cloud.restart();
    cloud.settle().await;
    assert_eq!(cloud.status(&id).await, "ERROR");
    let (message, _) = fault(&cloud, ALICE, &id).await;
    assert!(message.contains("30 minutes") && message.contains("The last error was: The disk is full."), "{message}");
    // Nobody needs to reset anything: the host succeeds in the end.
    cloud.host(0).fail_starts(0, Trouble { message: String::new(), retried: true });
    cloud.settle().await;
    assert_eq!(cloud.status(&id).await, "ACTIVE");
}

#[tokio::test]
async fn a_reset_gives_the_whole_time_again() {
    let cloud = Cloud::new(1).await;
    let id = cloud.active("web").await;
    cloud.hardware.set_alive("sim-1", false);
    cloud.act(ALICE, &id, json!({"suspend": null})).await.ok(202);
    cloud.clock.advance_ms(3 * OTHER_MS);
    cloud.settle().await;
    assert_eq!(cloud.status(&id).await, "ERROR");
    cloud.act(ADMIN, &id, json!({"os-resetState": {"state": "active"}})).await.ok(202);
    let server = cloud.server(&id).await;
    assert_eq!((&server["status"], &server["OS-EXT-STS:task_state"]), (&json!("ACTIVE"), &json!("suspending")));
    cloud.clock.advance_ms(3 * OTHER_MS);
    cloud.settle().await;
    assert_eq!(cloud.status(&id).await, "ERROR");
}

#[tokio::test]
async fn what_is_deleted_on_a_dead_host_says_so_and_an_administrator_need_not_wait() {
    let cloud = Cloud::new(2).await;
    let ids = [cloud.active("a").await, cloud.active("b").await];
    let hosts: Vec<String> = {
        let mut hosts = Vec::new();
        for id in &ids {
            hosts.push(cloud.server(id).await["OS-EXT-SRV-ATTR:host"].as_str().unwrap().to_owned());
        }
        hosts
    };
    for host in &hosts {
        cloud.hardware.set_alive(host, false);
    }
    for id in &ids {
        cloud.delete(ALICE, &format!("/servers/{id}")).await.ok(204);
    }
    cloud.settle().await;
    assert_eq!(cloud.server(&ids[0]).await["OS-EXT-STS:task_state"], "deleting");
    cloud.clock.advance_ms(OTHER_MS);
    cloud.settle().await;
    let server = cloud.server(&ids[0]).await;
    assert_eq!((&server["status"], &server["OS-EXT-STS:task_state"]), (&json!("ERROR"), &json!("deleting")));
    assert!(fault(&cloud, ALICE, &ids[0]).await.0.contains("goes when its host answers again"));
    // The owner's force waits as well; the administrator's does not.
    cloud.act(ALICE, &ids[0], json!({"forceDelete": null})).await.ok(204);
    cloud.settle().await;
    assert_eq!(cloud.status(&ids[0]).await, "ERROR");
    cloud.act(ADMIN, &ids[0], json!({"forceDelete": null})).await.ok(204);
    assert_eq!(cloud.get(ALICE, &format!("/servers/{}", ids[0])).await.status, 404);
    cloud.settle().await;
    assert_eq!(cloud.store.list::<Allocation>(Query::all()).await.unwrap().len(), 1);
    // Both guests go when their hosts come back, and nothing is left to remember.
    for host in &hosts {
        cloud.hardware.set_alive(host, true);
    }
    cloud.report(true).await;
    cloud.settle().await;
    for host in 0..2 {
        assert!(cloud.host(host).guests().iter().all(|guest| guest.power == ObservedPower::Absent));
    }
    assert_eq!(cloud.get(ALICE, &format!("/servers/{}", ids[1])).await.status, 404);
    assert!(cloud.store.list::<compute::Tombstone>(Query::all()).await.unwrap().is_empty());
    assert!(cloud.store.list::<Allocation>(Query::all()).await.unwrap().is_empty());
}

#[tokio::test]
async fn a_server_that_a_host_cannot_build_is_built_by_another() {
    let cloud = Cloud::new(2).await;
    cloud.host(0).fail_starts(1, Trouble { message: "No KVM here.".into(), retried: false });
    let id = cloud.boot("web").await;
    cloud.settle().await;
    let server = cloud.server(&id).await;
    assert_eq!((server["status"].as_str(), server["OS-EXT-SRV-ATTR:host"].as_str()), (Some("ACTIVE"), Some("sim-2")));
    let running =
        |host: usize| cloud.host(host).guests().iter().filter(|it| it.power == ObservedPower::Running).count();
    assert_eq!((running(0), running(1)), (0, 1));
    assert!(cloud.store.list::<compute::Tombstone>(Query::all()).await.unwrap().is_empty());
    let actions = cloud.get(ADMIN, &format!("/servers/{id}/os-instance-actions")).await.ok(200);
    let request = actions["instanceActions"][0]["request_id"].as_str().unwrap().to_owned();
    let action = cloud.get(ADMIN, &format!("/servers/{id}/os-instance-actions/{request}")).await.ok(200);
    let event = &action["instanceAction"]["events"][0];
    assert_eq!(event["result"], "Success");
    assert!(event["details"].as_str().unwrap().contains("No KVM here."), "{event}");
}

#[tokio::test]
async fn three_hosts_are_tried_and_the_last_says_so() {
    let cloud = Cloud::new(5).await;
    for host in 0..5 {
        cloud.host(host).fail_starts(1, Trouble { message: format!("Not on {host}."), retried: false });
    }
    let id = cloud.boot("web").await;
    cloud.settle().await;
    assert_eq!(cloud.status(&id).await, "ERROR");
    let (message, details) = fault(&cloud, ADMIN, &id).await;
    assert_eq!(message, "Not on 2.");
    assert!(details.contains("3 hosts could not build it"), "{details}");
    let holds = |host: usize| cloud.host(host).guests().iter().any(|it| it.power != ObservedPower::Absent);
    let left: Vec<usize> = (0..5).filter(|host| holds(*host)).collect();
    assert_eq!(left, [2], "the others have been told to forget it");
    cloud.delete(ALICE, &format!("/servers/{id}")).await.ok(204);
    cloud.settle().await;
    assert_eq!(cloud.get(ALICE, &format!("/servers/{id}")).await.status, 404);
}

#[tokio::test]
async fn room_and_ports_without_a_server_are_freed_and_counted() {
    let cloud = Cloud::new(1).await;
    let id = cloud.active("web").await;
    let known = cloud.store.list::<Allocation>(Query::all()).await.unwrap().remove(0).doc;
    assert_eq!((known.host.as_str(), known.claims["MEMORY_MB"]), ("sim-1", 512));
    assert!(known.decision.as_ref().unwrap().sentence().contains("1 of 1 hosts fitted"));
    // A bug: an allocation of a server that is nowhere.
    let stray = Allocation { id: "99999999-9999-9999-9999-999999999999".into(), ..known.clone() };
    let plant = move |tx: &mut store::Tx| {
        for (resource, amount) in &stray.claims {
            tx.charge("host:sim-1", resource, *amount, None)?;
        }
        tx.create(&stray)?;
        Ok(())
    };
    cloud.store.write(Cause::new("test", "", "plant"), plant).await.unwrap();
    cloud.settle().await;
    let left = cloud.store.list::<Allocation>(Query::all()).await.unwrap();
    assert_eq!(left.iter().map(|it| it.id.as_str()).collect::<Vec<_>>(), [id.as_str()]);
    let counted = |left: engine::Leftover| cloud.store.read(move |reader| left.counted(reader));
    assert_eq!(counted(engine::Leftover::Allocation).await.unwrap(), 1);
    // Another: a server that vanishes from the store leaves room and ports behind.
    let gone = id.clone();
    let vanish = move |tx: &mut store::Tx| Ok(tx.delete::<compute::Server>(&gone).map(drop)?);
    cloud.store.write(Cause::new("test", "", "vanish"), vanish).await.unwrap();
    cloud.work().await;
    assert!(cloud.store.list::<Allocation>(Query::all()).await.unwrap().is_empty());
    let usage = cloud.store.read(|reader| Ok(reader.usage("host:sim-1", "MEMORY_MB")?.used)).await.unwrap();
    assert_eq!((usage, counted(engine::Leftover::Allocation).await.unwrap()), (0, 2));
    assert_eq!(counted(engine::Leftover::Ports).await.unwrap(), 1);
}

async fn explained(
    cloud: &Cloud,
    project: &str,
    admin: bool,
    kind: &'static str,
    id: &str,
) -> Option<serde_json::Value> {
    let (compute, id) = (cloud.compute.clone(), id.to_owned());
    let asking = Asking { project_id: Some(project.to_owned()), admin };
    let found = cloud.store.read(move |reader| compute.explain(reader, &asking, kind, &id)).await.unwrap();
    found.map(|found| serde_json::to_value(found).unwrap())
}

#[tokio::test]
async fn a_server_is_explained_to_its_owner_without_hosts_and_to_nobody_else() {
    let cloud = Cloud::new(2).await;
    let id = cloud.active("web").await;
    let owner = explained(&cloud, "demo", false, "server", &id).await.unwrap();
    assert_eq!((&owner["state"], &owner["why"]), (&json!("ACTIVE"), &json!("It is what was asked for.")));
    assert_eq!(owner["details"]["placement"], "2 of 2 hosts fitted.");
    assert!(!owner.to_string().contains("sim-"), "{owner}");
    let admin = explained(&cloud, "admin", true, "server", &id).await.unwrap();
    let placement = admin["details"]["placement"].as_str().unwrap();
    assert!(placement.starts_with("2 of 2 hosts fitted, and sim-1 had the most free memory"), "{placement}");
    assert!(explained(&cloud, "other", false, "server", &id).await.is_none());
    assert!(explained(&cloud, "demo", false, "host", "sim-1").await.is_none());
    // On its way: what it waits for, since when, until when.
    cloud.hardware.set_alive("sim-1", false);
    cloud.act(ALICE, &id, json!({"os-stop": null})).await.ok(202);
    let owner = explained(&cloud, "demo", false, "server", &id).await.unwrap();
    assert_eq!(owner["state"], "ACTIVE (powering-off)");
    assert_eq!(owner["waiting_on"], "its host, which has not answered");
    assert!(owner["since"].as_str() < owner["deadline"].as_str(), "{owner}");
    let host = explained(&cloud, "admin", true, "host", "sim-1").await.unwrap();
    assert_eq!((&host["state"], &host["details"]["servers"]), (&json!("down"), &json!(1)));
}

#[tokio::test]
async fn what_an_explanation_says_would_fit_then_fits() {
    let cloud = Cloud::new(1).await;
    let flavor = |id: &str, ram: u64| json!({"flavor": {"id": id, "name": id, "ram": ram, "vcpus": 1, "disk": 1}});
    cloud.post(ADMIN, "/flavors", flavor("big", 1_000_000)).await.ok(200);
    cloud.put(ADMIN, "/os-quota-sets/demo", json!({"quota_set": {"ram": -1}})).await.ok(200);
    let boot =
        |flavor: &str| json!({"server": {"name": "x", "flavorRef": flavor, "imageRef": IMAGE, "networks": "none"}});
    let id = cloud.post(ALICE, "/servers", boot("big")).await.ok(202)["server"]["id"].as_str().unwrap().to_owned();
    cloud.settle().await;
    let owner = explained(&cloud, "demo", false, "server", &id).await.unwrap();
    assert_eq!(owner["state"], "ERROR");
    assert_eq!(owner["details"]["hosts_that_fail_by_constraint"], json!({"memory (MiB)": 1}));
    assert!(owner["details"].get("table").is_none() && !owner.to_string().contains("sim-"), "{owner}");
    assert_eq!(owner["details"]["would_fit"], "with a flavor of 738368 MiB of memory less");
    let admin = explained(&cloud, "admin", true, "server", &id).await.unwrap();
    assert_eq!(admin["details"]["nearest"], "sim-1");
    for (name, ram, status) in [("fits", 1_000_000 - 738_368, "ACTIVE"), ("not-quite", 1_000_001 - 738_368, "ERROR")] {
        cloud.post(ADMIN, "/flavors", flavor(name, ram)).await.ok(200);
        let id = cloud.post(ALICE, "/servers", boot(name)).await.ok(202)["server"]["id"].as_str().unwrap().to_owned();
        cloud.settle().await;
        assert_eq!(cloud.status(&id).await, status, "{name}");
        cloud.delete(ALICE, &format!("/servers/{id}")).await.ok(204);
        cloud.settle().await;
    }
}

#[tokio::test]
async fn a_disk_is_asked_to_stand_alone_and_does() {
    let cloud = Cloud::new(1).await;
    let id = cloud.active("web").await;
    let body = || json!({"nubo-flatten": null});
    assert_eq!(cloud.act(ALICE, &id, body()).await.status, 403);
    assert_eq!(cloud.act(ADMIN, &id, json!({"nubo-flatten": {"now": true}})).await.status, 400);
    let disk = async || explained(&cloud, "demo", false, "server", &id).await.unwrap()["details"].get("disk").cloned();
    assert_eq!(disk().await, None);
    cloud.act(ADMIN, &id, body()).await.ok(202);
    assert_eq!(disk().await, Some(json!("is being made to stand alone")));
    assert_eq!(cloud.status(&id).await, "ACTIVE");
    cloud.settle().await;
    assert_eq!(disk().await, Some(json!("stands alone")));
    assert!(cloud.host(0).guests().iter().all(|guest| guest.flat));

    // Once more changes nothing.
    cloud.act(ADMIN, &id, body()).await.ok(202);
    let events = cloud.get(ALICE, &format!("/servers/{id}/os-instance-actions")).await.ok(200);
    let named = |it: &&serde_json::Value| it["action"] == "nubo-flatten";
    assert_eq!(events["instanceActions"].as_array().unwrap().iter().filter(named).count(), 1);
}
