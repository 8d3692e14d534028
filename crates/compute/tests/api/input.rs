//! What is wrong is refused in Nova's words, and nothing is left behind.

use crate::cloud::*;
use serde_json::{Value, json};

fn with(change: impl FnOnce(&mut Value)) -> Value {
    let mut body = json!({"server": {"name": "x", "flavorRef": "1", "imageRef": IMAGE, "networks": "none"}});
    change(&mut body["server"]);
    body
}

fn root_of(image: &str) -> Value {
    json!({"source_type": "image", "uuid": image, "destination_type": "local", "boot_index": 0})
}

/// A server with a second disk.
fn data(more: Value) -> Value {
    let mut device = json!({"source_type": "blank", "destination_type": "volume", "volume_size": 1, "boot_index": -1});
    device.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    with(|server| server["block_device_mapping_v2"] = json!([root_of(IMAGE), device]))
}

#[tokio::test]
async fn a_wrong_server_is_refused_with_what_is_wrong() {
    let cloud = Cloud::new(1).await;
    let set = |key: &'static str, value: Value| with(move |server| server[key] = value);
    let cases: Vec<(Value, u16, &str)> = vec![
        (json!({}), 400, "'server' is a required property"),
        (json!([]), 400, "is not of type 'object'"),
        (json!({"server": 1}), 400, "1 is not of type 'object'"),
        (set("surprise", json!(1)), 400, "Additional properties are not allowed ('surprise' was unexpected)"),
        (set("name", json!(7)), 400, "7 is not of type 'string'"),
        (set("name", json!("")), 400, "name"),
        (set("name", json!("  ")), 400, "name"),
        (set("name", json!("n".repeat(256))), 400, "is too long"),
        (set("flavorRef", json!("nope")), 400, "Flavor nope could not be found."),
        (set("imageRef", json!("nope")), 400, "is not a 'uuid'"),
        (set("imageRef", json!("22222222-2222-2222-2222-22222222222f")), 400, "Can not find requested image"),
        (set("imageRef", json!(PRIVATE_IMAGE)), 400, "Can not find requested image"),
        (set("imageRef", json!("")), 400, "image"),
        (set("key_name", json!("nope")), 400, "Invalid key_name provided."),
        (set("networks", json!("some")), 400, "is not valid under any of the given schemas"),
        (set("networks", json!([{"uuid": "nope"}])), 400, "network uuid is not in proper format (nope)"),
        (set("networks", json!([{"uuid": "33333333-3333-3333-3333-333333333333"}])), 400, "could not be found"),
        (set("networks", json!([{}])), 400, "missing 'uuid'"),
        (set("networks", json!([{"uuid": NET, "extra": 1}])), 400, "'extra' was unexpected"),
        (set("networks", json!([{"uuid": NET, "fixed_ip": "10.0.0.999"}])), 400, "is not a 'ipv4'"),
        (
            with(|server| {
                server.as_object_mut().unwrap().remove("networks");
            }),
            400,
            "'networks' is a required property",
        ),
        (set("min_count", json!(0)), 400, "less than the minimum of 1"),
        (set("min_count", json!("x")), 400, "does not match"),
        (
            with(|server| {
                server["min_count"] = json!(3);
                server["max_count"] = json!(2);
            }),
            400,
            "min_count must be <= max_count",
        ),
        (set("max_count", json!(100_000)), 400, "greater than the maximum"),
        (set("user_data", json!("not base64!")), 400, "is not a 'base64'"),
        (set("user_data", json!("A".repeat(70_000))), 400, "is too long"),
        (set("metadata", json!({"a": 1})), 400, "1 is not of type 'string'"),
        (set("metadata", json!({"": "x"})), 400, "does not match any of the regexes"),
        (set("metadata", json!({"k": "v".repeat(256)})), 400, "is too long"),
        (
            set("metadata", (0..129).map(|n| (format!("k{n}"), json!("v"))).collect::<serde_json::Map<_, _>>().into()),
            403,
            "Maximum number of metadata items exceeds 128",
        ),
        (set("tags", json!(["a/b"])), 400, "does not match"),
        (set("tags", json!(vec!["t"; 51])), 400, "is too long"),
        (set("availability_zone", json!("mars")), 400, "The requested availability zone is not available"),
        (set("accessIPv4", json!("fe80::1")), 400, "is not a 'ipv4'"),
        (set("OS-DCF:diskConfig", json!("PERHAPS")), 400, "is not one of ['AUTO', 'MANUAL']"),
        (set("config_drive", json!("perhaps")), 400, "is not one of"),
        (
            set(
                "block_device_mapping_v2",
                json!([{"source_type": "volume", "uuid": NET, "destination_type": "volume", "boot_index": 0}]),
            ),
            400,
            "Boot sequence for the instance and image/block device mapping combination is not valid.",
        ),
        (
            set("block_device_mapping_v2", json!([{"source_type": "blank", "destination_type": "local"}])),
            400,
            "local ephemeral",
        ),
        (
            set("block_device_mapping_v2", json!([{"source_type": "tape", "destination_type": "volume"}])),
            400,
            "Invalid source_type",
        ),
        (
            set("block_device_mapping_v2", json!([{"uuid": NET, "disk_bus": "ide", "source_type": "volume"}])),
            400,
            "disk bus",
        ),
        (
            set("block_device_mapping_v2", json!([{"uuid": NET, "source_type": "volume", "boot_index": 2}])),
            400,
            "Boot sequence",
        ),
        (set("block_device_mapping_v2", json!([{"source_type": "volume"}])), 400, "Missing device UUID"),
        (set("block_device_mapping", json!([{"device_name": "vdb", "volume_id": "x"}])), 400, "Invalid device UUID"),
        (set("block_device_mapping", json!([{"device_name": "a b", "volume_id": NET}])), 400, "does not match"),
        (data(json!({"device_name": "a b"})), 400, "does not match"),
        (data(json!({"device_name": "/dev/vda"})), 400, "same device name as the root device"),
        (data(json!({"uuid": NET})), 400, "Invalid device UUID"),
        (data(json!({"source_type": "volume", "uuid": NET, "volume_type": "fast"})), 400, "volume_type"),
        (data(json!({"tag": "a,b"})), 400, "does not match"),
        (data(json!({"tag": "a/b"})), 400, "does not match"),
        (set("networks", json!([{"uuid": NET, "tag": "a,b"}])), 400, "does not match"),
        (
            set("block_device_mapping_v2", json!([root_of(IMAGE), root_of(IMAGE)])),
            400,
            "Boot sequence for the instance",
        ),
        (set("description", json!("d".repeat(256))), 400, "is too long"),
        (set("trusted_image_certificates", json!(["c"])), 400, "not verified"),
    ];
    for (body, status, message) in cases {
        let text = body.to_string();
        let answer = cloud.post(ALICE, "/servers", body).await;
        assert_eq!(answer.status, status, "{text:.200}: {}", answer.body);
        assert!(answer.message().contains(message), "{text:.200}: {}", answer.message());
    }
    let list = cloud.get(ALICE, "/servers").await.ok(200);
    assert!(list["servers"].as_array().unwrap().is_empty());
    let used = cloud.get(ALICE, "/limits").await.ok(200)["limits"]["absolute"]["totalInstancesUsed"].clone();
    assert_eq!(used, 0);
    let ports = cloud.store.list::<FakePort>(store::Query::all()).await.unwrap();
    assert!(ports.is_empty(), "{ports:?}");
}

#[tokio::test]
async fn an_image_on_a_local_disk_is_a_block_device_that_works() {
    let cloud = Cloud::new(1).await;
    let device = json!([{"source_type": "image", "uuid": IMAGE, "destination_type": "local", "boot_index": 0, "delete_on_termination": true}]);
    let body = with(|server| {
        server["imageRef"] = json!("");
        server["block_device_mapping_v2"] = device;
    });
    cloud.post(ALICE, "/servers", body).await.ok(202);
}

#[tokio::test]
async fn malformed_bodies_and_versions_are_refused() {
    let cloud = Cloud::new(0).await;
    let request = |version: &str, text: &str| {
        let request = http::Request::post("/compute/v2.1/servers").header("x-auth-token", ALICE);
        request.header("openstack-api-version", version).body(rest::Body::from(text.to_owned())).unwrap()
    };
    assert_eq!(cloud.answer(request("compute 2.1", "{")).await.status, 400);
    assert_eq!(cloud.answer(request("compute 2.1", "{\"server\": \"\\u0000\"}")).await.status, 400);
    assert_eq!(cloud.answer(request("compute 2.1", &"[".repeat(1000))).await.status, 400);
    assert_eq!(cloud.answer(request("compute 2.1", &format!("\"{}\"", "x".repeat(10 << 20)))).await.status, 413);
    assert_eq!(cloud.answer(request("compute 2.999", "{}")).await.status, 406);
    assert_eq!(cloud.answer(request("compute banana", "{}")).await.status, 400);
}

#[tokio::test]
async fn wrong_actions_are_refused() {
    let cloud = Cloud::new(1).await;
    let id = cloud.active("web").await;
    for (body, status) in [
        (json!({"dance": null}), 400),
        (json!({}), 400),
        (json!({"os-stop": null, "os-start": null}), 400),
        (json!({"reboot": {}}), 400),
        (json!({"reboot": {"type": "MEDIUM"}}), 400),
        (json!({"reboot": {"type": "SOFT", "x": 1}}), 400),
        (json!({"os-resetState": {"state": "great"}}), 400),
        (json!({"os-getConsoleOutput": {"length": "many"}}), 400),
        (json!({"addSecurityGroup": {}}), 400),
    ] {
        let text = body.to_string();
        assert_eq!(cloud.act(ADMIN, &id, body).await.status, status, "{text}");
    }
    assert_eq!(cloud.get(ALICE, "/servers/not-a-uuid").await.status, 404);
    assert_eq!(
        cloud.get(ALICE, "/servers/33333333-3333-3333-3333-333333333333").await.message(),
        "Instance 33333333-3333-3333-3333-333333333333 could not be found."
    );
}

#[tokio::test]
async fn wrong_flavors_keys_and_quotas_are_refused() {
    let cloud = Cloud::new(0).await;
    let flavor = |change: fn(&mut Value)| {
        let mut body = json!({"flavor": {"name": "f", "ram": 1, "vcpus": 1, "disk": 1}});
        change(&mut body["flavor"]);
        body
    };
    let cases: Vec<(&str, &str, Value, u16)> = vec![
        ("POST", "/flavors", flavor(|f| f["ram"] = json!(0)), 400),
        ("POST", "/flavors", flavor(|f| f["ram"] = json!(-1)), 400),
        ("POST", "/flavors", flavor(|f| f["vcpus"] = json!("many")), 400),
        ("POST", "/flavors", flavor(|f| f["disk"] = json!(4_294_967_296u64)), 400),
        ("POST", "/flavors", flavor(|f| f["id"] = json!("1")), 409),
        ("POST", "/flavors", flavor(|f| f["name"] = json!("m1.tiny")), 409),
        ("POST", "/flavors", flavor(|f| f["id"] = json!(" x")), 400),
        ("POST", "/flavors", flavor(|f| f["rxtx_factor"] = json!(0)), 400),
        ("POST", "/flavors", flavor(|f| f["extra"] = json!(0)), 400),
        ("POST", "/flavors/1/os-extra_specs", json!({"extra_specs": {"a/b": "c"}}), 400),
        ("POST", "/flavors/1/os-extra_specs", json!({"extra_specs": {"nubo:on_crash": "explode"}}), 400),
        ("PUT", "/flavors/1/os-extra_specs/a", json!({"b": "c"}), 400),
        ("POST", "/flavors/1/action", json!({"addTenantAccess": {"tenant": "demo"}}), 409),
        ("PUT", "/flavors/none", json!({"flavor": {"description": "x"}}), 404),
        ("POST", "/os-keypairs", json!({"keypair": {"name": "a;b"}}), 400),
        ("POST", "/os-keypairs", json!({"keypair": {"name": ""}}), 400),
        ("POST", "/os-keypairs", json!({"keypair": {"name": "k", "public_key": "bogus"}}), 400),
        ("POST", "/os-keypairs", json!({"keypair": {"name": "k", "type": "x509"}}), 400),
        ("POST", "/os-keypairs", json!({"keypair": {"name": "k", "extra": 1}}), 400),
        ("PUT", "/os-quota-sets/demo", json!({"quota_set": {"cores": -2}}), 400),
        ("PUT", "/os-quota-sets/demo", json!({"quota_set": {"shoes": 1}}), 400),
        ("PUT", "/os-quota-sets/demo", json!({"quota_set": {"floating_ips": 1}}), 400),
        ("PUT", "/os-services/x", json!({"status": "disabled"}), 400),
        ("GET", "/flavors?limit=-1", Value::Null, 400),
        ("GET", "/flavors?limit=x", Value::Null, 400),
        ("GET", "/flavors?marker=none", Value::Null, 400),
        ("GET", "/servers?sort_key=shoes", Value::Null, 400),
        ("GET", "/servers?changes-since=yesterday", Value::Null, 400),
        ("GET", "/servers?name=%5B", Value::Null, 400),
        ("GET", "/servers?status=HAPPY", Value::Null, 400),
        ("GET", "/servers?shoes=1", Value::Null, 400),
        ("GET", "/os-hypervisors/7", Value::Null, 400),
        ("GET", "/os-simple-tenant-usage?start=x", Value::Null, 400),
        ("GET", "/os-instance_usage_audit_log/yesterday", Value::Null, 400),
    ];
    for (method, path, body, status) in cases {
        let body = (!body.is_null()).then_some(body);
        let text = format!("{method} {path} {body:?}");
        let answer = cloud.send(method, ADMIN, path, "latest", body).await;
        assert_eq!(answer.status, status, "{text}: {}", answer.body);
    }
}
