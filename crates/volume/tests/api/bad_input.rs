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
    for action in [json!({"os-roll_detaching": null}), json!({"os-fly": null}), json!({})] {
        cloud.act(ALICE, &id, action).await.ok(400);
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
