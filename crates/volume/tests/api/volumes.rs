//! The life of a volume.

use crate::cloud::{ADMIN, ALICE, Cloud, IMAGE, MALLORY, READER, TYPED_IMAGE};
use serde_json::json;

#[tokio::test]
async fn a_volume_is_creating_until_its_host_has_it_and_then_available() {
    let cloud = Cloud::new(1).await;
    let made = cloud.post(ALICE, "/volumes", json!({"volume": {"size": 2, "name": "v"}})).await.ok(202);
    assert_eq!((&made["volume"]["status"], &made["volume"]["size"]), (&json!("creating"), &json!(2)));
    let id = made["volume"]["id"].as_str().unwrap();
    assert!(made["volume"].get("os-vol-host-attr:host").is_none());
    cloud.settle().await;
    let seen = cloud.show(id).await;
    assert_eq!((&seen["status"], &seen["bootable"]), (&json!("available"), &json!("false")));
    assert_eq!(seen["os-vol-host-attr:host"], "sim-1@file#file");
    let own = cloud.get(ALICE, &format!("/volumes/{id}")).await.ok(200);
    assert!(own["volume"].get("os-vol-host-attr:host").is_none(), "hosts are for administrators");
    assert_eq!(cloud.host(0).volumes()[0].size_bytes, 2 << 30);
    assert_eq!((cloud.used("volumes").await, cloud.used("gigabytes").await), (1, 2));
}

#[tokio::test]
async fn a_deleted_volume_is_gone_at_once_and_its_bytes_when_the_trash_is_emptied() {
    let cloud = Cloud::new(1).await;
    let id = cloud.volume(json!({"size": 1})).await;
    cloud.delete(ALICE, &format!("/volumes/{id}")).await.ok(202);
    cloud.get(ALICE, &format!("/volumes/{id}")).await.ok(404);
    assert_eq!(cloud.used("gigabytes").await, 0);
    cloud.settle().await;
    assert_eq!(cloud.host(0).volumes().len(), 1, "it rests");
    let forget = |tx: &mut store::Tx| {
        for trash in tx.list::<store::Trash>(store::Query::all())? {
            tx.delete::<store::Trash>(&trash.id)?;
        }
        Ok(())
    };
    cloud.store.write(store::Cause::default(), forget).await.unwrap();
    cloud.settle().await;
    assert!(cloud.host(0).volumes().is_empty());
}

#[tokio::test]
async fn without_a_trash_the_host_is_told_at_once() {
    let cloud = Cloud::with_trash(1, 0).await;
    let id = cloud.volume(json!({"size": 1})).await;
    let snapshot = cloud.snapshot(&id).await;
    cloud.delete(ALICE, &format!("/snapshots/{snapshot}")).await.ok(202);
    cloud.settle().await;
    assert!(cloud.host(0).volumes()[0].snapshots.is_empty());
    cloud.delete(ALICE, &format!("/volumes/{id}")).await.ok(202);
    cloud.settle().await;
    assert!(cloud.host(0).volumes().is_empty());
}

#[tokio::test]
async fn a_volume_grows_and_its_quota_with_it_and_in_use_only_from_3_42_on() {
    let cloud = Cloud::new(1).await;
    let id = cloud.volume(json!({"size": 1})).await;
    let path = format!("/volumes/{id}/action");
    let extend = |size: u64| json!({"os-extend": {"new_size": size}});
    cloud.act(ALICE, &id, extend(3)).await.ok(202);
    assert_eq!(cloud.status(&id).await, "extending");
    cloud.settle().await;
    assert_eq!((cloud.status(&id).await.as_str(), cloud.used("gigabytes").await), ("available", 3));
    cloud.act(ALICE, &id, json!({"os-attach": {"host_name": "h", "mountpoint": "/dev/vdb"}})).await.ok(202);
    cloud.send("POST", ALICE, &path, "3.41", Some(extend(4))).await.ok(400);
    cloud.send("POST", ALICE, &path, "3.42", Some(extend(4))).await.ok(202);
    cloud.settle().await;
    assert_eq!(cloud.status(&id).await, "in-use");
}

#[tokio::test]
async fn volumes_go_to_the_host_with_most_room_and_none_where_none_fits() {
    let cloud = Cloud::new(2).await;
    let first = cloud.volume(json!({"size": 100})).await;
    let second = cloud.volume(json!({"size": 50})).await;
    let third = cloud.volume(json!({"size": 40})).await;
    let host = async |id: &str| cloud.show(id).await["os-vol-host-attr:host"].clone();
    assert_ne!(host(&first).await, host(&second).await);
    assert_eq!(host(&second).await, host(&third).await);
    let made = cloud.post(ALICE, "/volumes", json!({"volume": {"size": 500}})).await.ok(202);
    let id = made["volume"]["id"].as_str().unwrap();
    assert_eq!(cloud.status(id).await, "error");
    let messages = cloud.get(ALICE, "/messages").await.ok(200);
    assert_eq!(messages["messages"][0]["resource_uuid"], id);
    assert!(messages["messages"][0]["user_message"].as_str().unwrap().contains("too little room"));
    assert_eq!(messages["messages"][0]["event_id"], "VOLUME_VOLUME_001_003");
    cloud.get(MALLORY, &format!("/messages/{}", messages["messages"][0]["id"].as_str().unwrap())).await.ok(404);
    cloud.delete(ALICE, &format!("/volumes/{id}")).await.ok(202);
    cloud.settle().await;
}

#[tokio::test]
async fn a_volume_waits_for_a_host_that_does_not_answer_and_says_when_it_takes_too_long() {
    let cloud = Cloud::new(1).await;
    cloud.set_alive(0, false);
    let made = cloud.post(ALICE, "/volumes", json!({"volume": {"size": 1}})).await.ok(202);
    let id = made["volume"]["id"].as_str().unwrap();
    cloud.settle().await;
    assert_eq!(cloud.status(id).await, "creating");
    cloud.clock.advance_ms(31 * 60 * 1000);
    cloud.settle().await;
    assert_eq!(cloud.status(id).await, "error");
    let messages = cloud.get(ALICE, "/messages").await.ok(200);
    assert_eq!(messages["messages"].as_array().unwrap().len(), 1);
    assert_eq!(messages["messages"][0]["event_id"], "VOLUME_VOLUME_008_012");
    cloud.set_alive(0, true);
    cloud.settle().await;
    assert_eq!(cloud.status(id).await, "available", "what comes right later is right");
}

#[tokio::test]
async fn a_reservation_that_nobody_ends_lapses() {
    let cloud = Cloud::new(1).await;
    let id = cloud.volume(json!({"size": 1})).await;
    cloud.act(ALICE, &id, json!({"os-reserve": null})).await.ok(202);
    assert_eq!(cloud.status(&id).await, "attaching");
    cloud.act(ALICE, &id, json!({"os-reserve": null})).await.ok(400);
    cloud.clock.advance_ms(31 * 60 * 1000);
    cloud.settle().await;
    assert_eq!(cloud.status(&id).await, "available");
}

#[tokio::test]
async fn a_volume_from_an_image_is_bootable_and_keeps_its_properties() {
    let cloud = Cloud::new(1).await;
    let small = json!({"volume": {"size": 1, "imageRef": IMAGE}});
    cloud.post(ALICE, "/volumes", small).await.ok(400);
    let id = cloud.volume(json!({"size": 2, "imageRef": IMAGE})).await;
    let seen = cloud.show(&id).await;
    assert_eq!((&seen["bootable"], &seen["volume_image_metadata"]["os"]), (&json!("true"), &json!("tiny")));
    assert_eq!(seen["volume_image_metadata"]["image_id"], IMAGE);
    let unset = json!({"os-unset_image_metadata": {"key": "os"}});
    cloud.act(ALICE, &id, unset.clone()).await.ok(200);
    cloud.act(ALICE, &id, unset).await.ok(404);
}

#[tokio::test]
async fn lists_filter_sort_and_page() {
    let cloud = Cloud::new(1).await;
    let mut ids = Vec::new();
    for n in 1..=4 {
        ids.push(cloud.volume(json!({"size": n, "name": format!("v{n}"), "metadata": {"n": n.to_string()}})).await);
    }
    let named = async |path: &str| -> Vec<String> {
        let body = cloud.get(ALICE, path).await.ok(200);
        body["volumes"].as_array().unwrap().iter().map(|it| it["name"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(named("/volumes").await, ["v4", "v3", "v2", "v1"], "newest first");
    assert_eq!(named("/volumes/detail?sort=size:asc&limit=2").await, ["v1", "v2"]);
    assert_eq!(named(&format!("/volumes?sort=name:asc&marker={}", ids[1])).await, ["v3", "v4"]);
    assert_eq!(named("/volumes?name=v2").await, ["v2"]);
    assert_eq!(named("/volumes?name~=v").await.len(), 4);
    assert_eq!(named("/volumes/detail?metadata={'n':%20'3'}").await, ["v3"]);
    assert!(named("/volumes?status=null").await.is_empty());
    assert!(named("/volumes?limit=0").await.is_empty());
    let page = cloud.get(ALICE, "/volumes?limit=2&with_count=true").await.ok(200);
    assert_eq!((&page["count"], page["volumes_links"][0]["rel"].as_str()), (&json!(4), Some("next")));
    for bad in ["limit=x", "limit=-1", "sort_key=shoe", "sort=name:up", "offset=x"] {
        cloud.get(ALICE, &format!("/volumes?{bad}")).await.ok(400);
    }
    cloud.get(ALICE, "/volumes?marker=none").await.ok(404);
    assert_eq!(cloud.get(MALLORY, "/volumes").await.ok(200)["volumes"], json!([]));
    let all = cloud.get(ADMIN, "/volumes/detail?all_tenants=1&project_id=demo").await.ok(200);
    assert_eq!(all["volumes"].as_array().unwrap().len(), 4);
    let summary = cloud.get(ALICE, "/volumes/summary").await.ok(200);
    assert_eq!(summary["volume-summary"]["total_size"], 10);
}

#[tokio::test]
async fn metadata_has_items() {
    let cloud = Cloud::new(1).await;
    let id = cloud.volume(json!({"size": 1, "metadata": {"a": "1"}})).await;
    let path = format!("/volumes/{id}/metadata");
    let added = cloud.post(ALICE, &path, json!({"metadata": {"b": "2"}})).await.ok(200);
    assert_eq!(added["metadata"], json!({"a": "1", "b": "2"}));
    cloud.put(ALICE, &format!("{path}/b"), json!({"meta": {"b": "3"}})).await.ok(200);
    cloud.put(ALICE, &format!("{path}/b"), json!({"meta": {"c": "3"}})).await.ok(400);
    assert_eq!(cloud.get(READER, &format!("{path}/b")).await.ok(200)["meta"]["b"], "3");
    cloud.delete(READER, &format!("{path}/b")).await.ok(403);
    cloud.delete(ALICE, &format!("{path}/b")).await.ok(200);
    cloud.get(ALICE, &format!("{path}/b")).await.ok(404);
    assert_eq!(cloud.put(ALICE, &path, json!({"metadata": {}})).await.ok(200)["metadata"], json!({}));
    cloud.act(ALICE, &id, json!({"os-update_readonly_flag": {"readonly": true}})).await.ok(202);
    assert_eq!(cloud.get(ALICE, &path).await.ok(200)["metadata"]["readonly"], "True");
}

#[tokio::test]
async fn what_an_administrator_says_of_a_volume_holds_until_it_is_taken_back() {
    let cloud = Cloud::new(1).await;
    let id = cloud.volume(json!({"size": 1})).await;
    let reset = |status: &str| json!({"os-reset_status": {"status": status}});
    cloud.act(ALICE, &id, reset("error")).await.ok(403);
    cloud.act(ADMIN, &id, reset("error")).await.ok(202);
    assert_eq!(cloud.status(&id).await, "error");
    cloud.act(ADMIN, &id, reset("available")).await.ok(202);
    assert_eq!(cloud.status(&id).await, "available");
    cloud.act(ADMIN, &id, reset("maintenance")).await.ok(202);
    cloud.delete(ALICE, &format!("/volumes/{id}")).await.ok(400);
    cloud.act(ADMIN, &id, json!({"os-force_delete": {}})).await.ok(202);
    cloud.get(ALICE, &format!("/volumes/{id}")).await.ok(404);
}

#[tokio::test]
async fn a_host_is_told_which_volumes_it_has_had() {
    let cloud = Cloud::new(1).await;
    let id = cloud.post(ALICE, "/volumes", json!({"volume": {"size": 1}})).await.ok(202);
    let id = id["volume"]["id"].as_str().unwrap().to_owned();
    assert!(!cloud.made(&id).await);
    cloud.settle().await;
    assert!(cloud.made(&id).await);
    // Also of one that vanished since.
    let (volumes, mut report) = (cloud.volumes.clone(), cloud.host(0).observe_now(true));
    report.volumes.clear();
    cloud
        .store
        .write(store::Cause::new("test", "", "observed"), move |tx| volumes.observed(tx, &report))
        .await
        .unwrap();
    assert!(cloud.made(&id).await);
}

#[tokio::test]
async fn what_a_host_gives_up_is_said_of_what_it_was_about() {
    let cloud = Cloud::new(1).await;
    let volume = cloud.volume(json!({"size": 1})).await;
    let report = async |report: agent_api::Report| {
        let volumes = cloud.volumes.clone();
        let cause = store::Cause::new("test", "", "observed");
        cloud.store.write(cause, move |tx| volumes.observed(tx, &report)).await.unwrap();
    };
    let gives_up = async || {
        cloud.clock.advance_ms(1000);
        let mut said = cloud.host(0).observe_now(true);
        said.volumes[0].generation += 1;
        said.volumes[0].fault = Some(agent_api::AgentFault {
            message: "The disk is on fire.".into(),
            detail: "EIO".into(),
            retried: false,
        });
        report(said).await;
        let messages = cloud.get(ALICE, "/messages").await.ok(200)["messages"][0].clone();
        report(cloud.host(0).observe_now(true)).await;
        cloud.settle().await;
        messages
    };
    let said = gives_up().await;
    assert_eq!(said["event_id"], "VOLUME_VOLUME_008_001", "{said}");
    cloud.act(ALICE, &volume, json!({"os-extend": {"new_size": 2}})).await.ok(202);
    let said = gives_up().await;
    assert_eq!((&said["event_id"], &said["resource_type"]), (&json!("VOLUME_VOLUME_007_010"), &json!("VOLUME")));
    assert_eq!(said["user_message"], "extend volume:Volume Driver failed to extend volume. The disk is on fire.");
    let made = cloud.post(ALICE, "/snapshots", json!({"snapshot": {"volume_id": volume}})).await.ok(202);
    let said = gives_up().await;
    assert_eq!(said["event_id"], "VOLUME_VOLUME_SNAPSHOT_009_013");
    assert_eq!((&said["resource_type"], &said["resource_uuid"]), (&json!("VOLUME_SNAPSHOT"), &made["snapshot"]["id"]));
}

#[tokio::test]
async fn metadata_is_changed_only_where_it_is_what_the_client_has_seen() {
    let cloud = Cloud::new(1).await;
    let id = cloud.volume(json!({"size": 1, "metadata": {"a": "1"}})).await;
    let path = format!("/volumes/{id}/metadata");
    let tag = async |version: &str| cloud.tagged("GET", &path, version, None, None).await.1;
    assert_eq!(tag("3.14").await, None);
    let seen = tag("3.15").await.unwrap();
    let put = async |version: &str, tag: &str, value: &str| {
        let body = Some(json!({"meta": {"a": value}}));
        cloud.tagged("PUT", &format!("{path}/a"), version, Some(tag), body).await.0
    };
    assert_eq!(put("3.15", "\"another\"", "2").await, 412);
    assert_eq!(put("3.15", &format!("\"another\", \"{seen}\""), "2").await, 200);
    assert_eq!(put("3.15", &seen, "3").await, 412, "the tag has changed with the value");
    assert_eq!((put("3.15", "*", "4").await, put("3.14", &seen, "5").await), (200, 200));
    let body = Some(json!({"metadata": {}}));
    assert_eq!(cloud.tagged("PUT", &path, "3.15", Some(&seen), body).await.0, 412);
    assert_eq!(cloud.get(ALICE, &path).await.ok(200)["metadata"], json!({"a": "5"}));
}

#[tokio::test]
async fn a_read_only_volume_is_attached_read_only() {
    let cloud = Cloud::new(1).await;
    let id = cloud.volume(json!({"size": 1})).await;
    cloud.act(ALICE, &id, json!({"os-update_readonly_flag": {"readonly": "true"}})).await.ok(202);
    let attach = |mode: &str| json!({"os-attach": {"host_name": "h", "mountpoint": "/dev/vdb", "mode": mode}});
    cloud.act(ALICE, &id, attach("rw")).await.ok(400);
    cloud.act(ALICE, &id, attach("ro")).await.ok(202);
    assert_eq!(cloud.show(&id).await["metadata"], json!({"attached_mode": "ro", "readonly": "True"}));
    let detached = json!({"os-reset_status": {"status": "available", "attach_status": "detached"}});
    cloud.act(ADMIN, &id, detached).await.ok(202);
    let seen = cloud.show(&id).await;
    assert_eq!((&seen["status"], &seen["attachments"]), (&json!("available"), &json!([])));
    let made = cloud.post(ALICE, "/attachments", json!({"attachment": {"volume_uuid": id}})).await.ok(200);
    assert_eq!(made["attachment"]["attach_mode"], "ro");
}

#[tokio::test]
async fn administrators_alone_see_how_a_volume_migrates() {
    let cloud = Cloud::new(1).await;
    let id = cloud.volume(json!({"size": 1})).await;
    let own = cloud.get(ALICE, &format!("/volumes/{id}")).await.ok(200);
    assert!(own["volume"].get("migration_status").is_none());
    assert_eq!(cloud.show(&id).await["migration_status"], json!(null));
}

#[tokio::test]
async fn an_image_says_of_which_type_its_volumes_are_unless_the_request_does() {
    let cloud = Cloud::new(1).await;
    let body = json!({"volume": {"size": 2, "imageRef": format!("http://cloud/image/v2/images/{TYPED_IMAGE}")}});
    cloud.post(ALICE, "/volumes", body.clone()).await.ok(404);
    for name in ["fast", "slow"] {
        cloud.post(ADMIN, "/types", json!({"volume_type": {"name": name}})).await.ok(200);
    }
    assert_eq!(cloud.post(ALICE, "/volumes", body.clone()).await.ok(202)["volume"]["volume_type"], "fast");
    let mut named = body;
    named["volume"]["volume_type"] = json!("slow");
    assert_eq!(cloud.post(ALICE, "/volumes", named).await.ok(202)["volume"]["volume_type"], "slow");
}
