//! What clients must not say.

use crate::cloud::{ADMIN, ALICE, Cloud, IMAGE, MALLORY, READER};
use serde_json::{Value, json};

#[tokio::test]
async fn volumes_of_impossible_sizes_and_sources_are_refused() {
    let cloud = Cloud::new(1).await;
    let nobody = "33333333-3333-3333-3333-333333333333";
    let cases: Vec<(Value, u16)> = vec![
        (json!({"size": 0}), 400),
        (json!({"size": -1}), 400),
        (json!({"size": "#$%"}), 400),
        (json!({"size": ""}), 400),
        (json!({"size": "0"}), 400),
        (json!({"size": 1.5}), 400),
        (json!({"size": 99_999_999_999u64}), 400),
        (json!({"size": true}), 400),
        (json!({}), 400),
        (json!({"size": 1, "name": "x".repeat(256)}), 400),
        (json!({"size": 1, "metadata": {"": "x"}}), 400),
        (json!({"size": 1, "metadata": {"a": 1}}), 400),
        (json!({"size": 1, "volume_type": nobody}), 404),
        (json!({"size": 1, "snapshot_id": nobody}), 404),
        (json!({"size": 1, "source_volid": nobody}), 404),
        (json!({"size": 1, "imageRef": nobody}), 400),
        (json!({"size": 3, "imageRef": IMAGE, "source_volid": nobody}), 400),
        (json!({"size": 1, "availability_zone": "moon"}), 400),
        (json!({"size": 1, "backup_id": nobody}), 400),
        (json!({"size": 1, "multiattach": true}), 400),
    ];
    for (body, status) in cases {
        let answer = cloud.post(ALICE, "/volumes", json!({"volume": body})).await;
        assert_eq!(answer.status, status, "{body}: {}", answer.body);
    }
    for body in [json!({}), json!([]), json!({"volume": []}), json!({"volume": null}), json!("x")] {
        cloud.post(ALICE, "/volumes", body).await.ok(400);
    }
    cloud.post(READER, "/volumes", json!({"volume": {"size": 1}})).await.ok(403);
    assert_eq!(cloud.used("volumes").await, 0);
}

#[tokio::test]
async fn volumes_do_not_shrink_and_are_attached_once_and_detached_by_who_has_them() {
    let cloud = Cloud::new(1).await;
    let id = cloud.volume(json!({"size": 2})).await;
    for size in [json!(0), json!(1), json!(2), json!("abc"), json!(null), json!(-3)] {
        cloud.act(ALICE, &id, json!({"os-extend": {"new_size": size}})).await.ok(400);
    }
    for action in [json!({"os-begin_detaching": null}), json!({"os-fly": null}), json!({})] {
        cloud.act(ALICE, &id, action).await.ok(400);
    }
    // As in Cinder, what nobody has begun is over already.
    for action in [json!({"os-roll_detaching": null}), json!({"os-unreserve": "x"})] {
        cloud.act(ALICE, &id, action).await.ok(202);
    }
    let attach = json!({"os-attach": {"host_name": "h", "mountpoint": "/dev/vdb"}});
    cloud.act(ALICE, &id, attach.clone()).await.ok(202);
    cloud.act(ALICE, &id, attach).await.ok(400);
    cloud.delete(ALICE, &format!("/volumes/{id}")).await.ok(400);
    let other = json!({"os-detach": {"attachment_id": "33333333-3333-3333-3333-333333333333"}});
    cloud.act(ALICE, &id, other).await.ok(404);
    // As in Cinder, what is not attached is detached already.
    for _ in 0..2 {
        cloud.act(ALICE, &id, json!({"os-detach": {}})).await.ok(202);
    }
}

#[tokio::test]
async fn what_is_foreign_is_not_there() {
    let cloud = Cloud::new(1).await;
    let id = cloud.volume(json!({"size": 1})).await;
    let path = format!("/volumes/{id}");
    cloud.get(MALLORY, &path).await.ok(404);
    cloud.put(MALLORY, &path, json!({"volume": {"name": "mine"}})).await.ok(404);
    cloud.delete(MALLORY, &path).await.ok(404);
    cloud.act(MALLORY, &id, json!({"os-extend": {"new_size": 2}})).await.ok(404);
    cloud.post(MALLORY, "/snapshots", json!({"snapshot": {"volume_id": id}})).await.ok(404);
    cloud.post(MALLORY, "/attachments", json!({"attachment": {"volume_uuid": id}})).await.ok(404);
    cloud.post(MALLORY, "/os-volume-transfer", json!({"transfer": {"volume_id": id}})).await.ok(404);
    cloud.get(ADMIN, &path).await.ok(200);
    for method in ["GET", "PUT", "DELETE"] {
        cloud.send(method, ALICE, "/volumes/", "", Some(json!({}))).await.ok(404);
    }
}

#[tokio::test]
async fn a_new_volume_has_no_unknown_fields_from_3_53_on_and_its_sources_are_named_by_uuid() {
    let cloud = Cloud::new(1).await;
    let send = |version: &'static str, body| cloud.send("POST", ALICE, "/volumes", version, Some(body));
    let odd = json!({"volume": {"size": 1, "colour": "red"}});
    send("3.52", odd.clone()).await.ok(202);
    send("3.53", odd).await.ok(400);
    send("3.0", json!({"volume": {"size": 1}, "colour": "red"})).await.ok(400);
    send("3.0", json!({"volume": {"size": 1}, "OS-SCH-HNT:scheduler_hints": []})).await.ok(400);
    send("3.0", json!({"volume": {"size": 1}, "OS-SCH-HNT:scheduler_hints": {"a": "b"}})).await.ok(202);
    for source in ["snapshot_id", "source_volid"] {
        send("3.0", json!({"volume": {"size": 1, source: "shoe"}})).await.ok(400);
        send("3.0", json!({"volume": {"size": 1, source: ""}})).await.ok(400);
    }
    let body = json!({"volume": {"size": 1, "volume_type": "", "name": " a ", "description": " b ", "metadata": {"c/d": "e"}}});
    let made = send("3.60", body).await.ok(202)["volume"].clone();
    assert_eq!(
        (&made["name"], &made["description"], &made["metadata"]["c/d"]),
        (&json!("a"), &json!("b"), &json!("e"))
    );
    let path = format!("/volumes/{}", made["id"].as_str().unwrap());
    for (version, status) in [("3.52", 200), ("3.53", 400)] {
        cloud.send("PUT", ALICE, &path, version, Some(json!({"volume": {}}))).await.ok(status);
    }
    cloud.post(ALICE, "/snapshots", json!({"snapshot": {"volume_id": "shoe"}})).await.ok(400);
    cloud.post(ALICE, "/attachments", json!({"attachment": {"volume_uuid": "shoe"}})).await.ok(400);
    cloud.post(ALICE, "/os-volume-transfer", json!({"transfer": {"volume_id": "shoe"}})).await.ok(400);
}

#[tokio::test]
async fn actions_have_what_they_need_and_no_more() {
    let cloud = Cloud::new(1).await;
    let id = cloud.volume(json!({"size": 1})).await;
    let cases = [
        json!({"os-attach": {"host_name": "h", "mountpoint": "/dev/vdb", "x": 1}}),
        json!({"os-detach": {"x": 1}}),
        json!({"os-extend": {"new_size": 2, "x": 1}}),
        json!({"os-extend": null}),
        json!({"os-initialize_connection": {}}),
        json!({"os-terminate_connection": {}}),
        json!({"os-set_bootable": {"bootable": true, "x": 1}}),
        json!({"os-update_readonly_flag": {"readonly": true, "x": 1}}),
        json!({"os-set_image_metadata": {"metadata": {"a": "b"}, "x": 1}}),
        json!({"os-set_image_metadata": {"metadata": {"a": "b".repeat(65_536)}}}),
        json!({"os-unset_image_metadata": {"key": "a", "x": 1}}),
        json!({"os-reset_status": {"status": "error", "x": 1}}),
        json!({"os-reset_status": {"status": "deleting"}}),
        json!({"os-reset_status": {"status": "in-use"}}),
        json!({"os-reset_status": {"status": "migrating"}}),
        json!({"os-reset_status": {"attach_status": "shoe"}}),
        json!({"os-reset_status": {"migration_status": "shoe"}}),
        json!({"os-reset_status": {}}),
    ];
    for action in cases {
        let answer = cloud.act(ADMIN, &id, action.clone()).await;
        assert_eq!(answer.status, 400, "{action:.200}: {}", answer.body);
    }
    assert_eq!(cloud.status(&id).await, "available");
    let connect = json!({"os-initialize_connection": {"connector": {"host": "h"}}});
    assert_eq!(cloud.act(ALICE, &id, connect).await.ok(200)["connection_info"]["enforce_multipath"], false);
    cloud.act(ALICE, &id, json!({"os-terminate_connection": {"connector": null}})).await.ok(202);
    cloud.act(ALICE, &id, json!({"os-set_image_metadata": {"metadata": {"a/b": "c".repeat(300)}}})).await.ok(200);
    for status in ["uploading", "extending", "detaching", "ERROR"] {
        cloud.act(ADMIN, &id, json!({"os-reset_status": {"status": status}})).await.ok(202);
        assert_eq!(cloud.status(&id).await, status.to_lowercase());
    }
    cloud.act(ADMIN, &id, json!({"os-reset_status": {"migration_status": "none"}})).await.ok(202);
    cloud.act(ADMIN, &id, json!({"os-reset_status": {"status": "available"}})).await.ok(202);
    let snapshot = cloud.snapshot(&id).await;
    cloud.act(ADMIN, &id, json!({"os-force_delete": null})).await.ok(400);
    cloud.delete(ALICE, &format!("/snapshots/{snapshot}")).await.ok(202);
    cloud.act(ADMIN, &id, json!({"os-force_delete": null})).await.ok(202);
}

#[tokio::test]
async fn lists_refuse_filters_that_nobody_has_and_times_that_are_none() {
    let cloud = Cloud::new(1).await;
    cloud.volume(json!({"size": 1})).await;
    for list in ["volumes", "snapshots", "attachments", "messages", "types"] {
        cloud.get(ALICE, &format!("/{list}?colour=red")).await.ok(400);
        cloud.get(ALICE, &format!("/{list}?all_tenants=1&limit=5")).await.ok(200);
        cloud.get(ADMIN, &format!("/{list}?colour=red")).await.ok(200);
    }
    let told = cloud.get(ALICE, "/resource_filters?resource=snapshot").await.ok(200);
    assert_eq!(told["resource_filters"].as_array().unwrap().len(), 1, "{told}");
    assert!(told["resource_filters"][0]["filters"].as_array().unwrap().contains(&json!("volume_id")));
    assert!(cloud.get(ALICE, "/resource_filters").await.ok(200)["resource_filters"].as_array().unwrap().len() > 3);
    cloud.send("GET", ALICE, "/resource_filters", "3.32", None).await.ok(404);
    cloud.send("GET", ALICE, "/volumes?colour=red", "3.30", None).await.ok(200);
    cloud.send("GET", ALICE, "/volumes?name~=a", "3.33", None).await.ok(400);
    for bad in [
        "created_at=2020-01-01T00:00:00",
        "created_at=about:2020-01-01T00:00:00",
        "updated_at=gt:noon",
        "bootable=perhaps",
        "sort=name:asc&sort_key=id",
    ] {
        cloud.get(ALICE, &format!("/volumes?{bad}")).await.ok(400);
    }
    let count = async |query: &str| {
        let list = cloud.get(ALICE, &format!("/volumes?{query}")).await.ok(200);
        list["volumes"].as_array().unwrap().len()
    };
    assert_eq!(
        (count("created_at=gte:1970-01-01T00:00:00").await, count("bootable=0").await, count("bootable=yes").await),
        (1, 1, 0)
    );
}
