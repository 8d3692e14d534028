//! A server's life on a simulated host.

use crate::cloud::*;
use serde_json::json;

#[tokio::test]
async fn a_server_goes_through_every_state_and_away() {
    let cloud = Cloud::new(1).await;
    let id = cloud.boot("web").await;
    let server = cloud.server(&id).await;
    assert_eq!(
        (server["status"].as_str(), server["OS-EXT-STS:task_state"].as_str()),
        (Some("BUILD"), Some("spawning"))
    );
    cloud.settle().await;
    let server = cloud.server(&id).await;
    assert_eq!(server["status"], "ACTIVE");
    assert_eq!(server["OS-EXT-SRV-ATTR:host"], "sim-1");
    assert_eq!(server["addresses"]["demo-net"][0]["addr"], "10.0.0.4");
    assert_eq!(server["security_groups"], json!([{"name": "default"}]));
    for (action, during, after) in [
        (json!({"pause": null}), "ACTIVE", "PAUSED"),
        (json!({"unpause": null}), "PAUSED", "ACTIVE"),
        (json!({"suspend": null}), "ACTIVE", "SUSPENDED"),
        (json!({"resume": null}), "SUSPENDED", "ACTIVE"),
        (json!({"reboot": {"type": "SOFT"}}), "REBOOT", "ACTIVE"),
        (json!({"reboot": {"type": "HARD"}}), "HARD_REBOOT", "ACTIVE"),
        (json!({"os-stop": null}), "ACTIVE", "SHUTOFF"),
        (json!({"os-start": null}), "SHUTOFF", "ACTIVE"),
    ] {
        cloud.act(ALICE, &id, action.clone()).await.ok(202);
        assert_eq!(cloud.status(&id).await, during, "{action}");
        cloud.settle().await;
        assert_eq!(cloud.status(&id).await, after, "{action}");
    }
    assert_eq!(cloud.delete(ALICE, &format!("/servers/{id}")).await.status, 204);
    assert_eq!(cloud.server(&id).await["OS-EXT-STS:task_state"], "deleting");
    cloud.settle().await;
    assert_eq!(cloud.get(ALICE, &format!("/servers/{id}")).await.status, 404);
    assert!(cloud.host(0).guests().iter().all(|guest| guest.power == agent_api::ObservedPower::Absent));
    let limits = cloud.get(ALICE, "/limits").await.ok(200);
    assert_eq!(limits["limits"]["absolute"]["totalInstancesUsed"], 0);
    let hypervisor = &cloud.get(ADMIN, "/os-hypervisors/detail").await.ok(200)["hypervisors"][0];
    assert_eq!((&hypervisor["vcpus_used"], &hypervisor["local_gb_used"]), (&json!(0), &json!(0)));
    let actions = cloud.get(ALICE, &format!("/servers/{id}/os-instance-actions")).await.ok(200);
    let names: Vec<_> =
        actions["instanceActions"].as_array().unwrap().iter().map(|it| it["action"].as_str().unwrap()).collect();
    assert_eq!(
        names,
        ["delete", "start", "stop", "reboot", "reboot", "resume", "suspend", "unpause", "pause", "create"]
    );
}

#[tokio::test]
async fn active_is_said_only_when_the_ports_are_up() {
    let cloud = Cloud::new(1).await;
    let id = cloud.boot("web").await;
    for reconciler in cloud.compute.loops() {
        for id in reconciler.pending().await.unwrap() {
            reconciler.reconcile(&id).await.unwrap();
        }
    }
    // The guest alone, without the ports of its host.
    let (compute, host) = (cloud.compute.clone(), cloud.host(0));
    use contract::Projector;
    let objects = cloud.store.read(move |reader| compute.whole(reader, &"sim-1".into())).await.unwrap();
    host.apply_now(agent_api::ViewDelta { put: objects, ..Default::default() });
    let report = host.observe_now(false);
    assert!(report.ports.is_empty());
    let compute = cloud.compute.clone();
    let cause = store::Cause::new("test", "", "observed");
    cloud.store.write(cause, move |tx| compute.observed(tx, &report)).await.unwrap();
    let server = cloud.server(&id).await;
    assert_eq!((server["status"].as_str(), server["OS-EXT-STS:power_state"].as_u64()), (Some("BUILD"), Some(1)));
    cloud.settle().await;
    assert_eq!(cloud.status(&id).await, "ACTIVE");
}

#[tokio::test]
async fn no_fitting_host_is_an_error_that_says_why() {
    let cloud = Cloud::new(1).await;
    let flavor = json!({"flavor": {"id": "big", "name": "big", "ram": 1_000_000, "vcpus": 1, "disk": 1}});
    cloud.post(ADMIN, "/flavors", flavor).await.ok(200);
    cloud.put(ADMIN, "/os-quota-sets/demo", json!({"quota_set": {"ram": -1}})).await.ok(200);
    let body = json!({"server": {"name": "x", "flavorRef": "big", "imageRef": IMAGE, "networks": "auto"}});
    let id = cloud.post(ALICE, "/servers", body).await.ok(202)["server"]["id"].as_str().unwrap().to_owned();
    cloud.settle().await;
    let shown = cloud.get(ALICE, &format!("/servers/{id}")).await.ok(200);
    let fault = &shown["server"]["fault"];
    assert_eq!(shown["server"]["status"], "ERROR");
    let message = fault["message"].as_str().unwrap();
    assert_eq!(
        message,
        "No valid host was found. Of 1 host, so many fail at: memory (MiB) 1. It would fit with a flavor of 738368 MiB \
         of memory less."
    );
    assert!(fault.get("details").is_none(), "an owner learns no names of hosts");
    assert!(cloud.server(&id).await["fault"]["details"].as_str().unwrap().contains("sim-1"));
    cloud.delete(ALICE, &format!("/servers/{id}")).await.ok(204);
    assert_eq!(cloud.get(ALICE, &format!("/servers/{id}")).await.status, 404);
}

#[tokio::test]
async fn a_host_that_gives_up_makes_an_error_that_a_hard_reboot_mends() {
    let cloud = Cloud::new(1).await;
    cloud.host(0).fail_starts(1, simhost::Trouble { message: "The image is gone.".into(), retried: false });
    let id = cloud.boot("web").await;
    cloud.settle().await;
    let server = cloud.server(&id).await;
    assert_eq!(
        (server["status"].as_str(), server["fault"]["message"].as_str()),
        (Some("ERROR"), Some("The image is gone."))
    );
    cloud.act(ALICE, &id, json!({"reboot": {"type": "HARD"}})).await.ok(202);
    cloud.settle().await;
    assert_eq!(cloud.status(&id).await, "ACTIVE");
}

#[tokio::test]
async fn a_guest_that_stops_by_itself_is_shutoff_or_back() {
    let cloud = Cloud::new(1).await;
    let id = cloud.active("web").await;
    cloud.host(0).crash_guest(&id.as_str().into(), "killed: signal 9");
    cloud.settle().await;
    assert_eq!(cloud.status(&id).await, "SHUTOFF");
    let actions = cloud.get(ADMIN, &format!("/servers/{id}/os-instance-actions")).await.ok(200);
    let request = actions["instanceActions"][0]["request_id"].as_str().unwrap().to_owned();
    let action = cloud.get(ADMIN, &format!("/servers/{id}/os-instance-actions/{request}")).await.ok(200);
    assert!(action["instanceAction"]["events"][0]["details"].as_str().unwrap().contains("signal 9"));
    cloud.act(ALICE, &id, json!({"os-start": null})).await.ok(202);
    cloud.settle().await;
    assert_eq!(cloud.status(&id).await, "ACTIVE");

    let specs = json!({"extra_specs": {"nubo:on_crash": "restart"}});
    cloud.post(ADMIN, "/flavors/1/os-extra_specs", specs).await.ok(200);
    let id = cloud.active("phoenix").await;
    cloud.host(0).crash_guest(&id.as_str().into(), "killed: signal 9");
    cloud.settle().await;
    assert_eq!(cloud.status(&id).await, "ACTIVE");
}

#[tokio::test]
async fn a_lost_guest_is_made_again() {
    let cloud = Cloud::new(1).await;
    let id = cloud.active("web").await;
    cloud.host(0).lose_guest(&id.as_str().into());
    cloud.settle().await;
    assert_eq!(cloud.status(&id).await, "ACTIVE");
    assert_eq!(cloud.host(0).guests().len(), 1);
}

/// An older copy of the store must not destroy what it has not heard of yet.
#[tokio::test]
async fn a_guest_goes_from_where_it_has_no_place_only_if_the_store_knows_better() {
    use agent_api::{GuestSpec, ObservedPower, ViewDelta, ViewObject};
    let cloud = Cloud::new(2).await;
    let living = cloud.active("web").await;
    let home = cloud.server(&living).await["OS-EXT-SRV-ATTR:host"].as_str().unwrap().to_owned();
    let other = usize::from(home == "sim-1");
    let deleted = cloud.active("gone").await;
    cloud.delete(ALICE, &format!("/servers/{deleted}")).await.ok(204);
    cloud.settle().await;
    let spec = spec_on(&cloud, &home).await;
    let unknown = "77777777-7777-4777-8777-777777777777".to_owned();
    for (id, generation, stays) in [
        (&unknown, 1, true),
        (&unknown, 7, true),
        (&living, 1, false),
        (&living, 99, true),
        (&deleted, 1, false),
        (&deleted, 99, true),
    ] {
        let stray = GuestSpec { id: id.as_str().into(), generation, ..spec.clone() };
        cloud.host(other).apply_now(ViewDelta { put: vec![ViewObject::Guest(stray)], ..Default::default() });
        // A whole report is no more believed than another.
        cloud.report(true).await;
        cloud.settle().await;
        let guests = cloud.host(other).guests();
        let power = guests.iter().find(|guest| guest.id.as_str() == id).map(|guest| guest.power);
        let is_there = power.is_some_and(|power| power != ObservedPower::Absent);
        assert_eq!(is_there, stays, "{id} of generation {generation}: {power:?}");
        assert_eq!(cloud.status(&living).await, "ACTIVE");
        cloud.host(other).lose_guest(&id.as_str().into());
        cloud.report(true).await;
        cloud.settle().await;
    }
    assert!(cloud.store.list::<compute::Tombstone>(store::Query::all()).await.unwrap().is_empty());
}

async fn first_spec(cloud: &Cloud) -> agent_api::GuestSpec {
    spec_on(cloud, "sim-1").await
}

async fn spec_on(cloud: &Cloud, host: &str) -> agent_api::GuestSpec {
    use contract::Projector;
    let (compute, host) = (cloud.compute.clone(), base::HostName::new(host));
    let objects = cloud.store.read(move |reader| compute.whole(reader, &host)).await.unwrap();
    objects
        .into_iter()
        .find_map(|object| match object {
            agent_api::ViewObject::Guest(guest) => Some(guest),
            _ => None,
        })
        .unwrap()
}

#[tokio::test]
async fn a_host_that_forgot_everything_gets_its_guests_again() {
    let cloud = Cloud::new(1).await;
    let id = cloud.active("web").await;
    let gone = cloud.active("gone").await;
    cloud.delete(ALICE, &format!("/servers/{gone}")).await.ok(204);
    cloud.hardware.hosts.lock().unwrap()[0].0 =
        std::sync::Arc::new(simhost::SimHost::new(cloud.env.clone(), simhost::Options::new("sim-1")));
    // A session begins with a whole report, before the first view has come.
    let (compute, report) = (cloud.compute.clone(), cloud.host(0).observe_now(true));
    let cause = store::Cause::new("test", "", "observed");
    cloud.store.write(cause, move |tx| compute.observed(tx, &report)).await.unwrap();
    assert_eq!(cloud.get(ALICE, &format!("/servers/{gone}")).await.status, 404);
    cloud.settle().await;
    assert_eq!(cloud.status(&id).await, "ACTIVE");
    assert_eq!(cloud.host(0).guests().len(), 1);
}

#[tokio::test]
async fn states_refuse_what_does_not_fit_them() {
    let cloud = Cloud::new(1).await;
    let id = cloud.active("web").await;
    let answer = cloud.act(ALICE, &id, json!({"os-start": null})).await;
    assert_eq!(answer.message(), format!("Cannot 'start' instance {id} while it is in vm_state active"));
    assert_eq!(answer.status, 409);
    cloud.act(ALICE, &id, json!({"os-stop": null})).await.ok(202);
    let answer = cloud.act(ALICE, &id, json!({"pause": null})).await;
    assert_eq!(answer.message(), format!("Cannot 'pause' instance {id} while it is in task_state powering-off"));
    cloud.settle().await;
    assert_eq!(cloud.act(ALICE, &id, json!({"reboot": {"type": "SOFT"}})).await.status, 409);
}

#[tokio::test]
async fn locks_hold_against_the_owner_only() {
    let cloud = Cloud::new(1).await;
    let id = cloud.active("web").await;
    cloud.act(ADMIN, &id, json!({"lock": {"locked_reason": "audit"}})).await.ok(202);
    let server = cloud.server(&id).await;
    assert_eq!((&server["locked"], &server["locked_reason"]), (&json!(true), &json!("audit")));
    let answer = cloud.act(ALICE, &id, json!({"os-stop": null})).await;
    assert_eq!((answer.status, answer.message()), (409, format!("Instance {id} is locked").as_str()));
    assert_eq!(cloud.delete(ALICE, &format!("/servers/{id}")).await.status, 409);
    assert_eq!(cloud.act(ALICE, &id, json!({"unlock": null})).await.status, 403);
    cloud.act(ADMIN, &id, json!({"unlock": null})).await.ok(202);
    cloud.act(ALICE, &id, json!({"lock": null})).await.ok(202);
    cloud.act(ALICE, &id, json!({"unlock": null})).await.ok(202);
    cloud.act(ALICE, &id, json!({"os-stop": null})).await.ok(202);
}

#[tokio::test]
async fn a_reset_state_is_shown_and_taken_back() {
    let cloud = Cloud::new(1).await;
    let id = cloud.active("web").await;
    assert_eq!(cloud.act(ALICE, &id, json!({"os-resetState": {"state": "error"}})).await.status, 403);
    cloud.act(ADMIN, &id, json!({"os-resetState": {"state": "error"}})).await.ok(202);
    assert_eq!(cloud.status(&id).await, "ERROR");
    cloud.act(ADMIN, &id, json!({"os-resetState": {"state": "active"}})).await.ok(202);
    assert_eq!(cloud.status(&id).await, "ACTIVE");
}

#[tokio::test]
async fn a_quarantined_image_makes_an_error_with_the_reason() {
    let cloud = Cloud::new(1).await;
    let body = json!({"server": {"name": "x", "flavorRef": "1", "imageRef": QUARANTINED, "networks": "none"}});
    let id = cloud.post(ALICE, "/servers", body).await.ok(202)["server"]["id"].as_str().unwrap().to_owned();
    cloud.settle().await;
    let server = cloud.server(&id).await;
    assert_eq!(server["status"], "ERROR");
    assert!(server["fault"]["message"].as_str().unwrap().contains("it is no qcow2"));
    assert!(cloud.host(0).guests().is_empty());
}

#[tokio::test]
async fn the_guest_reads_its_metadata_key_and_user_data() {
    let cloud = Cloud::new(1).await;
    let pair = cloud.post(ALICE, "/os-keypairs", json!({"keypair": {"name": "demo"}})).await.ok(201);
    let body = json!({"server": {
        "name": "My Web", "flavorRef": "1", "imageRef": IMAGE, "networks": [{"uuid": NET}], "key_name": "demo",
        "metadata": {"a": "b"}, "user_data": "aGVsbG8=", "config_drive": true, "adminPass": "secret"}});
    let answer = cloud.post(ALICE, "/servers", body).await.ok(202);
    assert_eq!(answer["server"]["adminPass"], "secret");
    let id = answer["server"]["id"].as_str().unwrap().to_owned();
    cloud.settle().await;
    let spec = first_spec(&cloud).await;
    assert_eq!(spec.metadata.hostname, "my-web");
    assert_eq!(spec.metadata.public_keys["demo"], pair["keypair"]["public_key"].as_str().unwrap());
    assert_eq!(spec.metadata.user_data.as_deref(), Some("aGVsbG8="));
    assert_eq!(spec.metadata.admin_pass.as_deref(), Some("secret"));
    assert!(spec.config_drive && spec.nics.len() == 1 && spec.metadata.networks[0].addresses[0].dhcp);
    cloud.post(ALICE, &format!("/servers/{id}/metadata"), json!({"metadata": {"c": "d"}})).await.ok(200);
    let newer = first_spec(&cloud).await;
    assert!(newer.generation > spec.generation && newer.metadata.meta["c"] == "d");
    assert_eq!(cloud.status(&id).await, "ACTIVE", "a change of metadata is no task");
    let server = cloud.server(&id).await;
    assert_eq!((&server["config_drive"], &server["OS-EXT-SRV-ATTR:user_data"]), (&json!("True"), &json!("aGVsbG8=")));
    let seen = cloud.get(ALICE, &format!("/servers/{id}")).await.ok(200);
    assert!(seen["server"].get("OS-EXT-SRV-ATTR:user_data").is_none());
    let changes = cloud.store.changes(store::Rev(0), 10_000).await.unwrap();
    assert!(changes.iter().all(|change| change.body.as_ref().is_none_or(|body| !body.contains("aGVsbG8="))));
}

#[tokio::test]
async fn consoles_are_opened_once_by_their_token() {
    let cloud = Cloud::new(1).await;
    let id = cloud.active("web").await;
    let output = cloud.act(ALICE, &id, json!({"os-getConsoleOutput": {"length": 1}})).await.ok(200);
    assert_eq!(output["output"], "web login:");
    let body = json!({"remote_console": {"protocol": "serial", "type": "serial"}});
    let console = cloud.post(ALICE, &format!("/servers/{id}/remote-consoles"), body).await.ok(200);
    let url = console["remote_console"]["url"].as_str().unwrap();
    assert!(url.starts_with("ws://cloud/compute/console?token="), "{url}");
    let path = url.strip_prefix("ws://cloud").unwrap();
    let open = || {
        let request = http::Request::get(path).header("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==");
        request.header("upgrade", "websocket").header("connection", "upgrade").body(rest::Body::empty()).unwrap()
    };
    // Without a connection to upgrade nothing is spent.
    assert_eq!(cloud.answer(open()).await.status, 426);
    let vnc = json!({"remote_console": {"protocol": "vnc", "type": "novnc"}});
    cloud.post(MALLORY, &format!("/servers/{id}/remote-consoles"), vnc).await.ok(404);
    let old = json!({"os-getVNCConsole": {"type": "novnc"}});
    let old_answer =
        cloud.send("POST", ALICE, &format!("/servers/{id}/action"), "2.1", Some(old.clone())).await.ok(200);
    assert!(old_answer["console"]["url"].as_str().unwrap().starts_with("http://cloud/compute/console?token="));
    assert_eq!(cloud.act(ALICE, &id, old).await.status, 404);
    cloud.act(ALICE, &id, json!({"os-stop": null})).await.ok(202);
    cloud.settle().await;
    let body = json!({"remote_console": {"protocol": "serial", "type": "serial"}});
    assert_eq!(cloud.post(ALICE, &format!("/servers/{id}/remote-consoles"), body).await.status, 409);
}

#[tokio::test]
async fn interfaces_and_groups_come_and_go() {
    let cloud = Cloud::new(1).await;
    let id = cloud.active("web").await;
    let path = format!("/servers/{id}/os-interface");
    let made = cloud.post(ALICE, &path, json!({"interfaceAttachment": {"net_id": NET}})).await.ok(200);
    let port = made["interfaceAttachment"]["port_id"].as_str().unwrap().to_owned();
    cloud.settle().await;
    let list = cloud.get(ALICE, &path).await.ok(200);
    assert_eq!(list["interfaceAttachments"].as_array().unwrap().len(), 2);
    assert_eq!(
        cloud.get(ALICE, &format!("{path}/{port}")).await.ok(200)["interfaceAttachment"]["port_state"],
        "ACTIVE"
    );
    assert_eq!(first_spec(&cloud).await.nics.len(), 2);
    cloud.delete(ALICE, &format!("{path}/{port}")).await.ok(202);
    assert_eq!(cloud.get(ALICE, &format!("{path}/{port}")).await.status, 404);
    assert_eq!(
        cloud.get(ALICE, &format!("/servers/{id}/ips")).await.ok(200)["addresses"]["demo-net"]
            .as_array()
            .unwrap()
            .len(),
        1
    );
    cloud.act(ALICE, &id, json!({"addSecurityGroup": {"name": "web"}})).await.ok(202);
    let groups = cloud.get(ALICE, &format!("/servers/{id}/os-security-groups")).await.ok(200);
    assert_eq!(groups["security_groups"].as_array().unwrap().len(), 2);
    cloud.act(ALICE, &id, json!({"removeSecurityGroup": {"name": "web"}})).await.ok(202);
    assert_eq!(cloud.act(ALICE, &id, json!({"removeSecurityGroup": {"name": "web"}})).await.status, 404);
}

#[tokio::test]
async fn disabled_and_dead_hosts_are_passed_over() {
    let cloud = Cloud::new(2).await;
    let services = cloud.get(ADMIN, "/os-services").await.ok(200);
    let first = services["services"].as_array().unwrap().iter().find(|it| it["host"] == "sim-1").unwrap().clone();
    let path = format!("/os-services/{}", first["id"].as_str().unwrap());
    cloud.put(ADMIN, &path, json!({"status": "disabled", "disabled_reason": "repair"})).await.ok(200);
    let id = cloud.active("a").await;
    assert_eq!(cloud.server(&id).await["OS-EXT-SRV-ATTR:host"], "sim-2");
    cloud.hardware.set_alive("sim-2", false);
    let id = cloud.boot("b").await;
    cloud.settle().await;
    assert_eq!(cloud.status(&id).await, "ERROR");
    let forced = json!({"server": {"name": "c", "flavorRef": "1", "imageRef": IMAGE, "networks": "none", "availability_zone": "nova:sim-1"}});
    assert_eq!(cloud.post(ALICE, "/servers", forced.clone()).await.status, 403);
    let id = cloud.post(ADMIN, "/servers", forced).await.ok(202)["server"]["id"].as_str().unwrap().to_owned();
    cloud.settle().await;
    assert_eq!(cloud.server(&id).await["OS-EXT-SRV-ATTR:host"], "sim-1");
}
