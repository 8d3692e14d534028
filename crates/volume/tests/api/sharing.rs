//! Attachments, transfers, types and quotas: who may have what.

use crate::cloud::{ADMIN, ALICE, Cloud, MALLORY};
use serde_json::json;

const SERVER: &str = "11111111-1111-1111-1111-111111111111";

#[tokio::test]
async fn an_attachment_is_reserved_attaching_attached_and_gone() {
    let cloud = Cloud::new(1).await;
    let volume = cloud.volume(json!({"size": 1})).await;
    let body = json!({"attachment": {"volume_uuid": volume, "instance_uuid": SERVER}});
    cloud.send("POST", ALICE, "/attachments", "3.26", Some(body.clone())).await.ok(404);
    let made = cloud.post(ALICE, "/attachments", body.clone()).await.ok(200);
    let path = format!("/attachments/{}", made["attachment"]["id"].as_str().unwrap());
    assert_eq!(
        (made["attachment"]["status"].as_str(), cloud.status(&volume).await.as_str()),
        (Some("reserved"), "reserved")
    );
    cloud.post(ALICE, "/attachments", body).await.ok(400);
    let connect = json!({"attachment": {"connector": {"host": "h", "mountpoint": "/dev/vdb"}}});
    cloud.put(MALLORY, &path, connect.clone()).await.ok(404);
    let connected = cloud.put(ALICE, &path, connect).await.ok(200);
    assert_eq!(connected["attachment"]["connection_info"]["volume_id"], volume);
    assert_eq!(cloud.status(&volume).await, "attaching");
    cloud.post(ALICE, &format!("{path}/action"), json!({"os-complete": {}})).await.ok(204);
    let seen = cloud.show(&volume).await;
    assert_eq!((&seen["status"], &seen["attachments"][0]["server_id"]), (&json!("in-use"), &json!(SERVER)));
    assert_eq!(seen["attachments"][0]["device"], "/dev/vdb");
    cloud.delete(ALICE, &format!("/volumes/{volume}")).await.ok(400);
    cloud.delete(ALICE, &path).await.ok(200);
    assert_eq!(cloud.status(&volume).await, "available");
}

#[tokio::test]
async fn a_transfer_moves_a_volume_with_its_quota_to_who_knows_the_key() {
    let cloud = Cloud::new(1).await;
    for list in ["os-volume-transfer", "volume-transfers"] {
        let volume = cloud.volume(json!({"size": 3})).await;
        let made = cloud.post(ALICE, &format!("/{list}"), json!({"transfer": {"volume_id": volume}})).await.ok(202);
        let (id, key) = (made["transfer"]["id"].as_str().unwrap(), &made["transfer"]["auth_key"]);
        assert_eq!(cloud.status(&volume).await, "awaiting-transfer");
        cloud.get(MALLORY, &format!("/{list}/{id}")).await.ok(404);
        assert!(cloud.get(ALICE, &format!("/{list}/{id}")).await.ok(200)["transfer"].get("auth_key").is_none());
        let accept = format!("/{list}/{id}/accept");
        cloud.post(MALLORY, &accept, json!({"accept": {"auth_key": "guess"}})).await.ok(400);
        cloud.post(MALLORY, &accept, json!({"accept": {"auth_key": key}})).await.ok(202);
        cloud.get(ALICE, &format!("/volumes/{volume}")).await.ok(404);
        assert_eq!(cloud.get(MALLORY, &format!("/volumes/{volume}")).await.ok(200)["volume"]["user_id"], "mallory");
        assert_eq!(cloud.used("gigabytes").await, 0);
        cloud.settle().await;
    }
    let volume = cloud.volume(json!({"size": 1})).await;
    let made = cloud.post(ALICE, "/os-volume-transfer", json!({"transfer": {"volume_id": volume}})).await.ok(202);
    cloud.delete(ALICE, &format!("/os-volume-transfer/{}", made["transfer"]["id"].as_str().unwrap())).await.ok(202);
    assert_eq!(cloud.status(&volume).await, "available");
}

#[tokio::test]
async fn a_private_type_is_there_only_for_whom_it_lets_in_and_stays_while_it_is_used() {
    let cloud = Cloud::new(1).await;
    let body = json!({"volume_type": {"name": "fast", "os-volume-type-access:is_public": false,
        "extra_specs": {"volume_backend_name": "file"}}});
    cloud.post(ALICE, "/types", body.clone()).await.ok(403);
    let made = cloud.post(ADMIN, "/types", body.clone()).await.ok(200);
    cloud.post(ADMIN, "/types", body).await.ok(409);
    let id = made["volume_type"]["id"].as_str().unwrap();
    let path = format!("/types/{id}");
    cloud.get(ALICE, &path).await.ok(404);
    cloud.post(ALICE, "/volumes", json!({"volume": {"size": 1, "volume_type": "fast"}})).await.ok(404);
    let add = json!({"addProjectAccess": {"project": "demo"}});
    cloud.post(ADMIN, &format!("{path}/action"), add.clone()).await.ok(202);
    cloud.post(ADMIN, &format!("{path}/action"), add).await.ok(409);
    let seen = cloud.get(ALICE, &path).await.ok(200);
    assert_eq!(seen["volume_type"]["extra_specs"], json!({}), "specs are for administrators");
    let volume = cloud.volume(json!({"size": 1, "volume_type": "fast"})).await;
    assert_eq!(cloud.used(&format!("gigabytes_{id}")).await, 1);
    cloud.delete(ADMIN, &path).await.ok(400);
    // What volumes have been made by stays as it is.
    let (specs, one) = (format!("{path}/extra_specs"), format!("{path}/extra_specs/volume_backend_name"));
    cloud.post(ADMIN, &specs, json!({"extra_specs": {"a": "b"}})).await.ok(400);
    cloud.put(ADMIN, &one, json!({"volume_backend_name": "ceph"})).await.ok(400);
    cloud.delete(ADMIN, &one).await.ok(400);
    cloud.delete(ALICE, &format!("/volumes/{volume}")).await.ok(202);
    cloud.post(ADMIN, &specs, json!({"extra_specs": {"a b": "c"}})).await.ok(400);
    cloud.post(ADMIN, &specs, json!({"extra_specs": {"a": "b"}, "x": 1})).await.ok(400);
    cloud.post(ADMIN, &specs, json!({"extra_specs": {"a": "b"}})).await.ok(200);
    let found = cloud.get(ADMIN, "/types?is_public=none&extra_specs={'a':'b'}").await.ok(200);
    assert_eq!(found["volume_types"].as_array().unwrap().len(), 1);
    let found = cloud.get(ALICE, "/types?extra_specs={'a':'b'}").await.ok(200);
    assert_eq!(found["volume_types"], json!([]), "nobody finds what nobody sees");
    cloud.delete(ADMIN, &path).await.ok(202);
    cloud.settle().await;
}

#[tokio::test]
async fn no_host_takes_a_volume_whose_type_asks_for_what_none_has() {
    let cloud = Cloud::new(1).await;
    let body = json!({"volume_type": {"name": "far", "extra_specs": {"volume_backend_name": "ceph"}}});
    cloud.post(ADMIN, "/types", body).await.ok(200);
    let made = cloud.post(ALICE, "/volumes", json!({"volume": {"size": 1, "volume_type": "far"}})).await.ok(202);
    assert_eq!(cloud.status(made["volume"]["id"].as_str().unwrap()).await, "error");
}

#[tokio::test]
async fn quotas_of_a_project_and_of_a_type_hold() {
    let cloud = Cloud::new(1).await;
    let set = |body| cloud.put(ADMIN, "/os-quota-sets/demo", json!({"quota_set": body}));
    set(json!({"volumes": 1, "gigabytes": 3})).await.ok(200);
    let id = cloud.volume(json!({"size": 2})).await;
    let one_more = json!({"volume": {"size": 1}});
    let refused = cloud.post(ALICE, "/volumes", one_more.clone()).await;
    assert!(refused.body["overLimit"]["message"].as_str().unwrap().contains("VolumeLimitExceeded"));
    refused.ok(413);
    set(json!({"volumes": -1})).await.ok(200);
    cloud.act(ALICE, &id, json!({"os-extend": {"new_size": 4}})).await.ok(413);
    cloud.post(ALICE, "/snapshots", json!({"snapshot": {"volume_id": id}})).await.ok(413);
    set(json!({"volumes___DEFAULT__": 1})).await.ok(200);
    cloud.post(ALICE, "/volumes", one_more).await.ok(413);
    set(json!({"per_volume_gigabytes": 1, "gigabytes": -1, "volumes___DEFAULT__": -1})).await.ok(200);
    cloud.post(ALICE, "/volumes", json!({"volume": {"size": 2}})).await.ok(413);
    let usage = cloud.get(ALICE, "/os-quota-sets/demo?usage=true").await.ok(200);
    assert_eq!(usage["quota_set"]["volumes"]["in_use"], 1);
    cloud.get(MALLORY, "/os-quota-sets/demo").await.ok(403);
    set(json!({"shoes": 1})).await.ok(400);
    set(json!({})).await.ok(400);
    let below = set(json!({"volumes": 0})).await.ok(400);
    assert!(below["badRequest"]["message"].as_str().unwrap().contains("Current usage is 1"), "{below}");
    let more = json!({"quota_set": {"volumes": 2}, "x": 1});
    cloud.put(ADMIN, "/os-quota-sets/demo", more).await.ok(400);
    let others = cloud.get(MALLORY, "/limits?project_id=demo").await.ok(200);
    assert_eq!(others["limits"]["absolute"]["totalVolumesUsed"], 0, "who may not ask sees the own");
    let others = cloud.get(ADMIN, "/limits?project_id=demo").await.ok(200);
    assert_eq!(others["limits"]["absolute"]["totalVolumesUsed"], 1);
    cloud.delete(ADMIN, "/os-quota-sets/demo").await.ok(200);
    assert_eq!(cloud.get(ALICE, "/limits").await.ok(200)["limits"]["absolute"]["maxTotalVolumes"], 10);
}

#[tokio::test]
async fn the_mode_of_an_attachment_is_what_was_told_first() {
    let cloud = Cloud::new(1).await;
    for (told, said, mode) in
        [(None, None, "rw"), (None, Some("ro"), "ro"), (Some("rw"), Some("ro"), "rw"), (Some("ro"), None, "ro")]
    {
        let volume = cloud.volume(json!({"size": 1})).await;
        let mut body = json!({"attachment": {"volume_uuid": volume, "instance_uuid": SERVER}});
        if let Some(told) = told {
            body["attachment"]["mode"] = json!(told);
        }
        let made = cloud.post(ALICE, "/attachments", body).await.ok(200)["attachment"].clone();
        assert_eq!(made["attach_mode"], told.unwrap_or("null"));
        let path = format!("/attachments/{}", made["id"].as_str().unwrap());
        let mut body = json!({"attachment": {"connector": {"host": "h"}}});
        if let Some(said) = said {
            body["attachment"]["connector"]["mode"] = json!(said);
        }
        assert_eq!(cloud.put(ALICE, &path, body.clone()).await.ok(200)["attachment"]["attach_mode"], mode);
        body["attachment"]["mode"] = json!("rw");
        cloud.put(ALICE, &path, body).await.ok(400);
    }
}

#[tokio::test]
async fn a_transfer_takes_the_snapshots_along_by_either_path() {
    let cloud = Cloud::new(1).await;
    for (list, version) in [("os-volume-transfer", "3.0"), ("volume-transfers", "3.60")] {
        let volume = cloud.volume(json!({"size": 1})).await;
        let snapshot = cloud.snapshot(&volume).await;
        let reset = |status: &str| json!({"os-reset_status": {"status": status}});
        let body = Some(json!({"transfer": {"volume_id": volume, "name": " t "}}));
        let offer = async || cloud.send("POST", ALICE, &format!("/{list}"), version, body.clone()).await;
        cloud.post(ADMIN, &format!("/snapshots/{snapshot}/action"), reset("error")).await.ok(202);
        let why = offer().await.ok(400);
        assert!(why["badRequest"]["message"].as_str().unwrap().contains(&snapshot), "{why}");
        cloud.post(ADMIN, &format!("/snapshots/{snapshot}/action"), reset("available")).await.ok(202);
        let made = offer().await.ok(202)["transfer"].clone();
        assert_eq!(made["name"], "t");
        let path = format!("/{list}/{}", made["id"].as_str().unwrap());
        for (version, snapshots, history) in [("3.54", false, false), ("3.55", true, false), ("3.57", true, true)] {
            let answer = cloud.send("GET", ALICE, &path, version, None).await;
            if list == "volume-transfers" && version == "3.54" {
                answer.ok(404);
                continue;
            }
            let shown = answer.ok(200)["transfer"].clone();
            let has = |field| shown.get(field).is_some();
            assert_eq!((has("no_snapshots"), has("accepted")), (snapshots, history), "{list} {version}");
        }
        let accept = json!({"accept": {"auth_key": made["auth_key"]}});
        cloud.post(MALLORY, &format!("{path}/accept"), accept).await.ok(202);
        cloud.get(MALLORY, &format!("/snapshots/{snapshot}")).await.ok(200);
        assert_eq!((cloud.used("snapshots").await, cloud.used("gigabytes").await), (0, 0));
        cloud.settle().await;
    }
}
