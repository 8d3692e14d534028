//! Snapshots and what is made of them.

use crate::cloud::{ADMIN, ALICE, Cloud, MALLORY};
use serde_json::json;

#[tokio::test]
async fn a_snapshot_is_there_once_the_host_says_so_and_counts_towards_the_quota() {
    let cloud = Cloud::new(1).await;
    let volume = cloud.volume(json!({"size": 2})).await;
    let body = json!({"snapshot": {"volume_id": volume, "name": "s", "metadata": {"a": "b"}}});
    let made = cloud.post(ALICE, "/snapshots", body).await.ok(202);
    let id = made["snapshot"]["id"].as_str().unwrap();
    assert_eq!((&made["snapshot"]["status"], &made["snapshot"]["size"]), (&json!("creating"), &json!(2)));
    cloud.settle().await;
    let seen = cloud.get(ALICE, &format!("/snapshots/{id}")).await.ok(200)["snapshot"].clone();
    assert_eq!((&seen["status"], &seen["metadata"]["a"]), (&json!("available"), &json!("b")));
    assert_eq!(seen["os-extended-snapshot-attributes:progress"], "100%");
    assert_eq!((cloud.used("snapshots").await, cloud.used("gigabytes").await), (1, 4));
    cloud.get(MALLORY, &format!("/snapshots/{id}")).await.ok(404);
    cloud.delete(ALICE, &format!("/volumes/{volume}")).await.ok(400);
    cloud.delete(ALICE, &format!("/snapshots/{id}")).await.ok(202);
    cloud.get(ALICE, &format!("/snapshots/{id}")).await.ok(404);
    assert_eq!(cloud.used("gigabytes").await, 2);
    cloud.settle().await;
}

#[tokio::test]
async fn a_volume_goes_with_its_snapshots_by_cascade() {
    let cloud = Cloud::with_trash(1, 0).await;
    let volume = cloud.volume(json!({"size": 1})).await;
    cloud.snapshot(&volume).await;
    cloud.delete(ALICE, &format!("/volumes/{volume}?cascade=true")).await.ok(202);
    assert_eq!((cloud.used("snapshots").await, cloud.used("volumes").await), (0, 0));
    cloud.settle().await;
    assert!(cloud.host(0).volumes().is_empty());
}

#[tokio::test]
async fn volumes_of_snapshots_and_of_volumes_are_made_beside_them() {
    let cloud = Cloud::new(3).await;
    let volume = cloud.volume(json!({"size": 2})).await;
    let snapshot = cloud.snapshot(&volume).await;
    for (source, id) in [("snapshot_id", &snapshot), ("source_volid", &volume)] {
        cloud.post(ALICE, "/volumes", json!({"volume": {source: id, "size": 1}})).await.ok(400);
        cloud.post(MALLORY, "/volumes", json!({"volume": {source: id}})).await.ok(404);
        let copy = cloud.volume(json!({source: id})).await;
        let (copy, original) = (cloud.show(&copy).await, cloud.show(&volume).await);
        assert_eq!((&copy["size"], &copy[source]), (&json!(2), &json!(id)));
        assert_eq!(copy["os-vol-host-attr:host"], original["os-vol-host-attr:host"]);
    }
}

#[tokio::test]
async fn a_volume_in_use_is_snapshotted_only_by_force() {
    let cloud = Cloud::new(1).await;
    let volume = cloud.volume(json!({"size": 1})).await;
    cloud.act(ALICE, &volume, json!({"os-attach": {"host_name": "h", "mountpoint": "/dev/vdb"}})).await.ok(202);
    let body = |force: bool| Some(json!({"snapshot": {"volume_id": volume, "force": force}}));
    cloud.send("POST", ALICE, "/snapshots", "3.60", body(false)).await.ok(400);
    cloud.send("POST", ALICE, "/snapshots", "3.60", body(true)).await.ok(202);
    cloud.send("POST", ALICE, "/snapshots", "3.66", body(false)).await.ok(400);
    cloud.post(ALICE, "/snapshots", json!({"snapshot": {"volume_id": volume}})).await.ok(202);
    cloud.settle().await;
    let list = cloud.get(ALICE, "/snapshots/detail?status=available").await.ok(200);
    assert_eq!(list["snapshots"].as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn the_state_of_a_snapshot_can_be_reset() {
    let cloud = Cloud::new(1).await;
    let volume = cloud.volume(json!({"size": 1})).await;
    let id = cloud.snapshot(&volume).await;
    let path = format!("/snapshots/{id}/action");
    cloud.post(ALICE, &path, json!({"os-reset_status": {"status": "error"}})).await.ok(403);
    cloud.post(ADMIN, &path, json!({"os-reset_status": {"status": "error"}})).await.ok(202);
    let seen = cloud.get(ALICE, &format!("/snapshots/{id}")).await.ok(200);
    assert_eq!(seen["snapshot"]["status"], "error");
    cloud.post(ALICE, "/volumes", json!({"volume": {"snapshot_id": id}})).await.ok(400);
    cloud.post(ADMIN, &path, json!({"os-reset_status": {"status": "shoe"}})).await.ok(400);
}

#[tokio::test]
async fn a_host_forgets_a_snapshot_only_where_the_store_says_so() {
    let cloud = Cloud::with_trash(1, 0).await;
    let volume = cloud.volume(json!({"size": 1})).await;
    let (deleted, unknown) = (cloud.snapshot(&volume).await, cloud.snapshot(&volume).await);
    cloud.delete(ALICE, &format!("/snapshots/{deleted}")).await.ok(202);
    // As an older copy of the store would have it.
    let id = unknown.clone();
    let forgotten = cloud.store.write(store::Cause::new("test", "", "test"), move |tx| {
        tx.skip_trash();
        let snapshot = tx.need::<volume::Snapshot>(&id)?;
        tx.delete::<volume::Snapshot>(&snapshot.id)?;
        for counted in ["snapshots", "gigabytes"] {
            tx.charge("project:demo", counted, -1, None)?;
            tx.charge("project:demo", &format!("{counted}_{}", snapshot.volume_type), -1, None)?;
        }
        Ok(())
    });
    forgotten.await.unwrap();
    cloud.act(ALICE, &volume, json!({"os-extend": {"new_size": 2}})).await.ok(202);
    cloud.settle().await;
    let kept = &cloud.host(0).volumes()[0].snapshots;
    assert_eq!(kept.iter().map(|it| it.id.to_string()).collect::<Vec<_>>(), [unknown]);
    let tombstones = cloud.store.list::<volume::SnapshotTombstone>(store::Query::all()).await.unwrap();
    assert!(tombstones.is_empty(), "{tombstones:?}");
    cloud.delete(ALICE, &format!("/volumes/{volume}")).await.ok(202);
    cloud.settle().await;
    assert!(cloud.host(0).volumes().is_empty());
}

#[tokio::test]
async fn a_copy_is_made_to_stand_alone_where_that_is_asked_for() {
    let cloud = Cloud::new(1).await;
    let volume = cloud.volume(json!({"size": 1})).await;
    let snapshot = cloud.snapshot(&volume).await;
    let shares = async |id: &str| {
        let seen = cloud.store.list::<volume::VolumeObserved>(store::Query::all()).await.unwrap();
        let seen = seen.into_iter().find(|it| it.doc.id.as_str() == id).unwrap().doc;
        (seen.shares, seen.depends_on.len())
    };
    let copy = cloud.volume(json!({"snapshot_id": snapshot})).await;
    assert_eq!((shares(&volume).await, shares(&copy).await), ((false, 0), (true, 1)));
    cloud.act(MALLORY, &copy, json!({"nubo-flatten": null})).await.ok(404);
    cloud.act(ALICE, &copy, json!({"nubo-flatten": {"depth": 2}})).await.ok(400);
    for _ in 0..2 {
        cloud.act(ALICE, &copy, json!({"nubo-flatten": null})).await.ok(202);
    }
    cloud.settle().await;
    assert_eq!(shares(&copy).await, (false, 0));
    assert_eq!(cloud.show(&copy).await["status"], "available");
    let flat = json!({"volume_type": {"name": "flat", "extra_specs": {"nubo:flatten": "<is> True"}}});
    cloud.post(ADMIN, "/types", flat).await.ok(200);
    let copy = cloud.volume(json!({"snapshot_id": snapshot, "volume_type": "flat"})).await;
    assert_eq!(shares(&copy).await, (false, 0));
}

#[tokio::test]
async fn a_driver_moves_a_snapshot_that_is_on_its_way() {
    let cloud = Cloud::new(1).await;
    let volume = cloud.volume(json!({"size": 1})).await;
    let id = cloud.snapshot(&volume).await;
    let path = format!("/snapshots/{id}/action");
    let says = |body| cloud.post(ALICE, &path, json!({"os-update_snapshot_status": body}));
    says(json!({"status": "error"})).await.ok(400);
    for status in ["deleted", "updating", "unmanaging", "backing-up", "restoring", "creating"] {
        cloud.post(ADMIN, &path, json!({"os-reset_status": {"status": status}})).await.ok(202);
    }
    says(json!({"status": "deleting"})).await.ok(400);
    says(json!({"status": "creating", "progress": "101%"})).await.ok(400);
    says(json!({"status": "creating", "progress": "80%"})).await.ok(202);
    let seen = cloud.get(ALICE, &format!("/snapshots/{id}")).await.ok(200)["snapshot"].clone();
    assert_eq!(
        (&seen["status"], &seen["os-extended-snapshot-attributes:progress"]),
        (&json!("creating"), &json!("80%"))
    );
    says(json!({"status": "available"})).await.ok(202);
    cloud.post(ADMIN, &path, json!({"os-reset_status": {"status": "deleting"}})).await.ok(202);
    says(json!({"status": "available"})).await.ok(400);
    says(json!({"status": "error_deleting"})).await.ok(202);
}

#[tokio::test]
async fn the_fields_of_a_snapshot_are_those_of_the_version() {
    let cloud = Cloud::new(1).await;
    let volume = cloud.volume(json!({"size": 1})).await;
    let body = json!({"snapshot": {"volume_id": volume, "name": " a ", "colour": "red"}});
    cloud.post(ALICE, "/snapshots", body).await.ok(400);
    let body = json!({"snapshot": {"volume_id": volume, "name": " a "}});
    assert_eq!(cloud.post(ALICE, "/snapshots", body).await.ok(202)["snapshot"]["name"], "a");
    cloud.settle().await;
    for (version, groups, users) in [("3.13", false, false), ("3.14", true, false), ("3.41", true, true)] {
        let list = cloud.send("GET", ALICE, "/snapshots/detail", version, None).await.ok(200);
        let has = |field| list["snapshots"][0].get(field).is_some();
        assert_eq!((has("group_snapshot_id"), has("user_id")), (groups, users), "{version}");
        let list = cloud.send("GET", ALICE, "/snapshots", version, None).await.ok(200);
        let has = |field| list["snapshots"][0].get(field).is_some();
        assert!(!has("group_snapshot_id") && !has("user_id"), "{version}");
    }
}
