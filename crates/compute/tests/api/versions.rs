//! What each microversion shows and takes.

use crate::cloud::*;
use serde_json::{Value, json};

fn keys(value: &Value) -> Vec<String> {
    let mut keys: Vec<String> = value.as_object().unwrap().keys().cloned().collect();
    keys.sort();
    keys
}

#[tokio::test]
async fn version_documents_say_the_range() {
    let cloud = Cloud::new(0).await;
    let version = cloud.send("GET", "", "", "", None).await.ok(200)["version"].clone();
    assert_eq!((version["min_version"].as_str(), version["id"].as_str()), (Some("2.1"), Some("v2.1")));
    let request = http::Request::get("/compute").body(rest::Body::empty()).unwrap();
    let list = cloud.answer(request).await.ok(200);
    assert_eq!(list["versions"][0]["version"], version["version"]);
    let answer = cloud.send("GET", ALICE, "/servers", "2.42", None).await;
    assert_eq!(answer.headers["openstack-api-version"], "compute 2.42");
    assert_eq!(answer.headers["x-openstack-nova-api-version"], "2.42");
}

#[tokio::test]
async fn a_server_grows_field_by_field() {
    let cloud = Cloud::new(1).await;
    let id = cloud.active("a").await;
    let at = async |version: &str| {
        cloud.send("GET", ADMIN, &format!("/servers/{id}"), version, None).await.ok(200)["server"].clone()
    };
    let steps: &[(&str, &str, &[&str])] = &[
        (
            "2.1",
            "2.3",
            &[
                "OS-EXT-SRV-ATTR:hostname",
                "OS-EXT-SRV-ATTR:kernel_id",
                "OS-EXT-SRV-ATTR:launch_index",
                "OS-EXT-SRV-ATTR:ramdisk_id",
                "OS-EXT-SRV-ATTR:reservation_id",
                "OS-EXT-SRV-ATTR:root_device_name",
                "OS-EXT-SRV-ATTR:user_data",
            ],
        ),
        ("2.8", "2.9", &["locked"]),
        ("2.15", "2.16", &["host_status"]),
        ("2.18", "2.19", &["description"]),
        ("2.25", "2.26", &["tags"]),
        ("2.62", "2.63", &["trusted_image_certificates"]),
        ("2.70", "2.71", &["server_groups"]),
        ("2.72", "2.73", &["locked_reason"]),
    ];
    for (before, after, new) in steps {
        let (old, newer) = (keys(&at(before).await), keys(&at(after).await));
        let grown: Vec<&String> = newer.iter().filter(|key| !old.contains(key)).collect();
        assert_eq!(grown, *new, "{after}");
        assert!(old.iter().all(|key| newer.contains(key)), "{after}");
    }
    assert_eq!(keys(&at("2.46").await["flavor"]), ["id", "links"]);
    assert_eq!(
        keys(&at("2.47").await["flavor"]),
        ["disk", "ephemeral", "extra_specs", "original_name", "ram", "swap", "vcpus"]
    );
    assert_eq!(at("2.16").await["host_status"], "UP");
    let mine = cloud.send("GET", ALICE, &format!("/servers/{id}"), "2.16", None).await.ok(200);
    assert!(mine["server"].get("host_status").is_none());
}

#[tokio::test]
async fn old_requests_mean_what_they_meant() {
    let cloud = Cloud::new(1).await;
    let body = |extra: Value| {
        let mut body = json!({"server": {"name": "x", "flavorRef": "1", "imageRef": IMAGE}});
        for (key, value) in extra.as_object().unwrap() {
            body["server"][key] = value.clone();
        }
        body
    };
    for (version, extra, status) in [
        ("2.1", json!({}), 202),
        ("2.36", json!({}), 202),
        ("2.37", json!({}), 400),
        ("2.36", json!({"networks": "auto"}), 400),
        ("2.37", json!({"networks": "auto"}), 202),
        ("2.18", json!({"description": "d"}), 400),
        ("2.19", json!({"description": "d"}), 202),
        ("2.51", json!({"networks": "none", "tags": ["t"]}), 400),
        ("2.52", json!({"networks": "none", "tags": ["t"]}), 202),
        ("2.31", json!({"networks": [{"uuid": NET, "tag": "t"}]}), 400),
        ("2.32", json!({"networks": [{"uuid": NET, "tag": "t"}]}), 202),
        ("2.40", json!({"networks": [{"uuid": NET, "tag": "t"}]}), 400),
        ("2.42", json!({"networks": [{"uuid": NET, "tag": "t"}]}), 202),
        ("2.56", json!({"networks": "none", "personality": []}), 202),
        ("2.56", json!({"networks": "none", "personality": [{"path": "/x", "contents": ""}]}), 400),
        ("2.57", json!({"networks": "none", "personality": []}), 400),
        ("2.73", json!({"networks": "none", "host": "sim-1"}), 400),
    ] {
        let answer = cloud.send("POST", ALICE, "/servers", version, Some(body(extra.clone()))).await;
        assert_eq!(answer.status, status, "{version} {extra}: {}", answer.body);
    }
    let named = json!({"networks": "none", "host": "sim-1"});
    assert_eq!(cloud.send("POST", ADMIN, "/servers", "2.74", Some(body(named.clone()))).await.status, 202);
    assert_eq!(cloud.send("POST", ALICE, "/servers", "2.74", Some(body(named))).await.status, 403);
}

#[tokio::test]
async fn other_resources_change_at_their_versions() {
    let cloud = Cloud::new(1).await;
    let has = async |version: &str, path: &str, at: &str, field: &str| -> bool {
        let body = cloud.send("GET", ADMIN, path, version, None).await.ok(200);
        body.pointer(at).unwrap_or_else(|| panic!("{path} {at}: {body}")).get(field).is_some()
    };
    cloud.post(ADMIN, "/os-keypairs", json!({"keypair": {"name": "k"}})).await.ok(201);
    for (path, at, field, without, with) in [
        ("/os-keypairs/k", "/keypair", "type", "2.1", "2.2"),
        ("/os-keypairs", "/keypairs/0/keypair", "type", "2.1", "2.2"),
        ("/flavors/1", "/flavor", "description", "2.54", "2.55"),
        ("/flavors", "/flavors/0", "description", "2.54", "2.55"),
        ("/flavors/detail", "/flavors/0", "extra_specs", "2.60", "2.61"),
        ("/os-services", "/services/0", "forced_down", "2.10", "2.11"),
        ("/limits", "/limits/absolute", "maxTotalFloatingIps", "2.36", "2.35"),
        ("/limits", "/limits/absolute", "maxImageMeta", "2.39", "2.38"),
        ("/limits", "/limits/absolute", "maxPersonality", "2.57", "2.56"),
        ("/os-quota-sets/demo", "/quota_set", "floating_ips", "2.36", "2.35"),
        ("/os-quota-sets/demo", "/quota_set", "injected_files", "2.57", "2.56"),
        ("/os-quota-class-sets/default", "/quota_class_set", "server_groups", "2.49", "2.50"),
        ("/os-quota-class-sets/default", "/quota_class_set", "floating_ips", "2.50", "2.49"),
    ] {
        assert!(!has(without, path, at, field).await, "{path} {field} at {without}");
        assert!(has(with, path, at, field).await, "{path} {field} at {with}");
    }
    for (path, exists, gone) in [
        ("/os-hypervisors/sim/search", "2.52", "2.53"),
        ("/servers/33333333-3333-3333-3333-333333333333/tags", "2.26", "2.25"),
    ] {
        let here = cloud.send("GET", ADMIN, path, exists, None).await;
        assert!(here.status == 200 || here.message().contains("33333333"), "{path}");
        let there = cloud.send("GET", ADMIN, path, gone, None).await;
        assert_eq!((there.status, there.message()), (404, "The resource could not be found."), "{path}");
    }
    let swap = |version| cloud.send("GET", ADMIN, "/flavors/1", version, None);
    assert_eq!(swap("2.74").await.ok(200)["flavor"]["swap"], "");
    assert_eq!(swap("2.75").await.ok(200)["flavor"]["swap"], 0);
    assert_eq!(cloud.send("GET", ALICE, "/servers?shoes=1", "2.74", None).await.status, 200);
    let made = cloud
        .send("POST", ADMIN, "/os-keypairs", "2.1", Some(json!({"keypair": {"name": "old", "type": "ssh"}})))
        .await;
    assert_eq!(made.status, 400);
    let made = cloud.send("POST", ADMIN, "/os-keypairs", "2.1", Some(json!({"keypair": {"name": "old"}}))).await;
    assert_eq!(made.status, 200);
}
