//! Services, pools, zones, QoS specs, versions.

use crate::cloud::{ADMIN, ALICE, Cloud};
use serde_json::json;

#[tokio::test]
async fn versions_are_negotiated_as_by_cinder() {
    let cloud = Cloud::new(1).await;
    let list = cloud.raw("GET", "", "/volume/", "", None).await.ok(300);
    assert_eq!(
        (list["versions"][0]["id"].as_str(), list["versions"][0]["min_version"].as_str()),
        (Some("v3.0"), Some("3.0"))
    );
    cloud.raw("GET", "", "/volume/v3/", "", None).await.ok(200);
    cloud.send("GET", ALICE, "/volumes", "3.999", None).await.ok(406);
    cloud.send("GET", ALICE, "/volumes", "3", None).await.ok(400);
    cloud.send("GET", ALICE, "/messages", "3.2", None).await.ok(404);
    cloud.raw("GET", ALICE, "/volume/v3/other/volumes", "", None).await.ok(400);
}

#[tokio::test]
async fn pools_and_services_are_looks_at_hosts_and_a_disabled_one_takes_nothing() {
    let cloud = Cloud::new(2).await;
    cloud.get(ALICE, "/scheduler-stats/get_pools").await.ok(403);
    let pools = cloud.get(ADMIN, "/scheduler-stats/get_pools?detail=true").await.ok(200);
    assert_eq!(pools["pools"][0]["name"], "sim-1@file#file");
    assert_eq!(pools["pools"][0]["capabilities"]["total_capacity_gb"], 10);
    let disable = json!({"host": "sim-1@file", "binary": "cinder-volume", "disabled_reason": "dust"});
    cloud.put(ADMIN, "/os-services/disable-log-reason", disable).await.ok(200);
    cloud.put(ADMIN, "/os-services/disable", json!({"host": "sim-9@file", "binary": "cinder-volume"})).await.ok(404);
    for _ in 0..3 {
        let id = cloud.volume(json!({"size": 1})).await;
        assert_eq!(cloud.show(&id).await["os-vol-host-attr:host"], "sim-2@file#file");
    }
    let services = cloud.get(ADMIN, "/os-services?binary=cinder-volume").await.ok(200);
    assert_eq!(services["services"][0]["disabled_reason"], "dust");
    cloud.set_alive(1, false);
    let services = cloud.get(ADMIN, "/os-services?host=sim-2@file").await.ok(200);
    assert_eq!(services["services"][0]["state"], "down");
    let host = cloud.get(ADMIN, "/os-hosts/sim-2@file").await.ok(200);
    assert_eq!(host["host"][0]["resource"]["volume_count"], "3");
    cloud.get(ADMIN, "/os-hosts/none").await.ok(404);
    assert_eq!(cloud.get(ALICE, "/os-availability-zone").await.ok(200)["availabilityZoneInfo"][0]["zoneName"], "nova");
    cloud.get(ADMIN, "/capabilities/sim-1@file").await.ok(200);
}

#[tokio::test]
async fn qos_specs_are_associated_with_types() {
    let cloud = Cloud::new(1).await;
    let made = cloud
        .post(ADMIN, "/qos-specs", json!({"qos_specs": {"name": "q", "consumer": "both", "iops": "5"}}))
        .await
        .ok(200);
    let path = format!("/qos-specs/{}", made["qos_specs"]["id"].as_str().unwrap());
    let kind = cloud.post(ADMIN, "/types", json!({"volume_type": {"name": "t"}})).await.ok(200);
    let kind = kind["volume_type"]["id"].as_str().unwrap();
    cloud.get(ADMIN, &format!("{path}/associate?vol_type_id={kind}")).await.ok(202);
    assert_eq!(cloud.get(ADMIN, &format!("{path}/associations")).await.ok(200)["qos_associations"][0]["id"], kind);
    cloud.delete(ADMIN, &path).await.ok(400);
    cloud.put(ADMIN, &format!("{path}/delete_keys"), json!({"keys": ["iops"]})).await.ok(202);
    cloud.put(ADMIN, &format!("{path}/delete_keys"), json!({"keys": ["iops"]})).await.ok(400);
    cloud.get(ADMIN, &format!("{path}/disassociate_all")).await.ok(202);
    cloud.delete(ADMIN, &path).await.ok(202);
}

#[tokio::test]
async fn a_service_is_named_by_its_binary_and_a_frozen_one_keeps_what_it_has() {
    let cloud = Cloud::new(1).await;
    let volume = cloud.volume(json!({"size": 1})).await;
    let snapshot = cloud.snapshot(&volume).await;
    let put = async |verb: &str, body| cloud.put(ADMIN, &format!("/os-services/{verb}"), body).await;
    let named = |more: serde_json::Value| {
        let mut body = json!({"host": "sim-1@file"});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        body
    };
    put("disable", named(json!({}))).await.ok(400);
    put("disable", named(json!({"binary": "cinder-volume", "disabled_reason": "dust"}))).await.ok(400);
    let shown = put("disable", named(json!({"service": "cinder-volume"}))).await.ok(200);
    assert_eq!((&shown["service"], &shown["binary"]), (&json!("cinder-volume"), &json!("")));
    let shown = put("enable", named(json!({"binary": "cinder-volume"}))).await.ok(200);
    assert!(shown.get("disabled_reason").is_none(), "{shown}");
    put("freeze", named(json!({"binary": "cinder-volume"}))).await.ok(400);
    put("freeze", named(json!({}))).await.ok(200);
    let why = cloud.delete(ALICE, &format!("/snapshots/{snapshot}")).await.ok(400);
    assert!(why["badRequest"]["message"].as_str().unwrap().contains("frozen"), "{why}");
    cloud.post(ALICE, "/snapshots", json!({"snapshot": {"volume_id": volume}})).await.ok(400);
    cloud.delete(ALICE, &format!("/volumes/{volume}?cascade=true")).await.ok(400);
    put("thaw", named(json!({}))).await.ok(200);
    cloud.delete(ALICE, &format!("/volumes/{volume}?cascade=true")).await.ok(202);
    for (version, has) in [("3.6", false), ("3.7", true)] {
        let list = cloud.send("GET", ADMIN, "/os-services", version, None).await.ok(200);
        assert_eq!(list["services"][0].get("cluster").is_some(), has, "{version}");
    }
}

#[tokio::test]
async fn pools_are_found_by_name_and_by_what_a_type_asks_for() {
    let cloud = Cloud::new(2).await;
    for (name, backend) in [("near", "file"), ("far", "ceph")] {
        let body = json!({"volume_type": {"name": name, "extra_specs": {"volume_backend_name": backend}}});
        cloud.post(ADMIN, "/types", body).await.ok(200);
    }
    let found = async |query: &str, version: &str| {
        let path = format!("/scheduler-stats/get_pools?{query}");
        let pools = cloud.send("GET", ADMIN, &path, version, None).await.ok(200);
        pools["pools"].as_array().unwrap().len()
    };
    assert_eq!(found("name=sim-2@file%23file", "3.28").await, 1);
    assert_eq!(found("name=sim-2@file%23file", "3.27").await, 2);
    assert_eq!((found("volume_type=near", "3.35").await, found("volume_type=far", "3.35").await), (2, 0));
    assert_eq!(found("volume_type=far", "3.34").await, 2);
    cloud.get(ADMIN, "/scheduler-stats/get_pools?colour=red").await.ok(400);
}
