//! Servers and their volumes: one transaction spans both services, and hosts have the last word.

use crate::cloud::{Answer, TestCloud};
use serde_json::{Value, json};
use std::time::Duration;

const NULL: Value = Value::Null;
const SERVERS: &str = "/compute/v2.1/servers";
const NOBODYS: &str = "11111111-1111-1111-1111-111111111111";

/// A cloud with an image and a flavor.
struct World {
    cloud: TestCloud,
    image: String,
    flavor: String,
    volumes: String,
}

impl World {
    async fn new(hosts: usize) -> World {
        let cloud = TestCloud::start(hosts).await;
        let image = cloud.image().await;
        let body = json!({"flavor": {"name": "small", "ram": 64, "vcpus": 1, "disk": 1}});
        let flavor = cloud.call(&cloud.admin, "POST", "/compute/v2.1/flavors", &body, &[]).await;
        let flavor = flavor.body["flavor"]["id"].as_str().unwrap().to_owned();
        let subject = [("x-subject-token", cloud.admin.as_str())];
        let me = cloud.call(&cloud.admin, "GET", "/identity/v3/auth/tokens", &NULL, &subject).await;
        let project = me.body["token"]["project"]["id"].as_str().unwrap().to_owned();
        World { cloud, image, flavor, volumes: format!("/volume/v3/{project}/volumes") }
    }

    async fn ask(&self, method: &str, path: &str, body: Value) -> Answer {
        let path = path.to_owned();
        self.cloud.call(&self.cloud.admin, method, &path, &body, &[]).await
    }

    async fn done(&self, method: &str, path: &str, body: Value) -> Answer {
        let answer = self.ask(method, path, body).await;
        assert!((200..300).contains(&answer.status), "{method} {path}: {} {}", answer.status, answer.body);
        answer
    }

    /// Why something is refused.
    async fn refused(&self, method: &str, path: &str, body: Value, status: u16) -> String {
        let answer = self.ask(method, path, body.clone()).await;
        assert_eq!(answer.status, status, "{body}: {}", answer.body);
        answer
            .body
            .as_object()
            .and_then(|map| map.values().next())
            .map_or(String::new(), |it| it["message"].to_string())
    }

    async fn until(&self, path: &str, pointer: &str, wanted: &str) {
        for _ in 0..2000 {
            if self.cloud.get(path).await.pointer(pointer).and_then(Value::as_str) == Some(wanted) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        panic!("{path}{pointer} never became {wanted}: {}", self.cloud.get(path).await);
    }

    async fn volume(&self, more: Value) -> String {
        let mut body = json!({"size": 1});
        more.as_object().unwrap().iter().for_each(|(key, value)| body[key] = value.clone());
        let made = self.done("POST", &self.volumes, json!({"volume": body})).await;
        let id = made.body["volume"]["id"].as_str().unwrap().to_owned();
        self.is(&id, "available").await;
        id
    }

    /// Waits until a volume is in a state.
    async fn is(&self, volume: &str, status: &str) {
        self.until(&format!("{}/{volume}", self.volumes), "/volume/status", status).await;
    }

    fn body(&self, more: Value) -> Value {
        let mut body = json!({"name": "s", "flavorRef": self.flavor, "imageRef": self.image, "networks": "none"});
        more.as_object().unwrap().iter().for_each(|(key, value)| body[key] = value.clone());
        json!({"server": body})
    }

    async fn server(&self, more: Value) -> String {
        let made = self.done("POST", SERVERS, self.body(more)).await;
        let path = format!("{SERVERS}/{}", made.body["server"]["id"].as_str().unwrap());
        self.until(&path, "/server/status", "ACTIVE").await;
        path
    }

    async fn host_of(&self, server: &str) -> String {
        self.cloud.get(server).await["server"]["OS-EXT-SRV-ATTR:host"].as_str().unwrap().to_owned()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_volume_is_attached_seen_and_detached() {
    let world = World::new(1).await;
    let (server, volume) = (world.server(json!({})).await, world.volume(json!({})).await);
    let all = format!("{server}/os-volume_attachments");
    let wanted = json!({"volumeAttachment": {"volumeId": volume, "tag": "data", "delete_on_termination": false}});
    let made = world.done("POST", &all, wanted.clone()).await.body["volumeAttachment"].clone();
    assert_eq!((&made["id"], &made["device"], &made["tag"]), (&json!(volume), &json!("/dev/vdb"), &json!("data")));
    world.is(&volume, "in-use").await;
    let shown = world.cloud.get(&server).await;
    let attached = json!([{"id": volume, "delete_on_termination": false}]);
    assert_eq!(shown["server"]["os-extended-volumes:volumes_attached"], attached);
    let listed = world.cloud.get(&format!("{SERVERS}/detail")).await;
    assert_eq!(listed["servers"][0]["os-extended-volumes:volumes_attached"], attached);
    let of_volume = world.cloud.get(&format!("{}/{volume}", world.volumes)).await;
    assert_eq!(of_volume["volume"]["attachments"][0]["device"], "/dev/vdb");
    // What an attachment is stays as it is, but for what becomes of the volume with its server.
    let one = format!("{all}/{volume}");
    for (field, value) in [("device", "/dev/vdx"), ("tag", "other"), ("serverId", volume.as_str()), ("id", NOBODYS)] {
        let why =
            world.refused("PUT", &one, json!({"volumeAttachment": {"volumeId": volume, field: value}}), 400).await;
        assert!(why.contains("not mutable"), "{why}");
    }
    let same = json!({"volumeAttachment": {"volumeId": volume, "device": "/dev/vdb", "tag": "data", "delete_on_termination": true}});
    world.done("PUT", &one, same).await;
    assert_eq!(world.cloud.get(&one).await["volumeAttachment"]["delete_on_termination"], true);
    let why = world.refused("PUT", &one, json!({"volumeAttachment": {"volumeId": NOBODYS}}), 409).await;
    assert!(why.contains("not migrating"), "{why}");
    // What is in use is neither attached again nor deleted.
    assert!(world.refused("POST", &all, wanted.clone(), 400).await.contains("already attached"));
    world.refused("DELETE", &format!("{}/{volume}", world.volumes), NULL, 400).await;
    let other = world.server(json!({"name": "other"})).await;
    let why = world.refused("POST", &format!("{other}/os-volume_attachments"), wanted, 400).await;
    assert!(why.contains("status must be available"), "{why}");
    world.refused("DELETE", &format!("{other}/os-volume_attachments/{volume}"), NULL, 404).await;
    world.refused("POST", &all, json!({"volumeAttachment": {"volumeId": NOBODYS}}), 404).await;
    let device = json!({"volumeAttachment": {"volumeId": NOBODYS, "device": "vdc"}});
    assert!(world.refused("POST", &all, device, 400).await.contains("does not match"));
    let tag = json!({"volumeAttachment": {"volumeId": NOBODYS, "tag": "a/b"}});
    assert!(world.refused("POST", &all, tag, 400).await.contains("does not match"));
    world.done("DELETE", &format!("{all}/{volume}"), NULL).await;
    world.is(&volume, "available").await;
    assert_eq!(world.cloud.get(&all).await["volumeAttachments"], json!([]));
    let listed = world.cloud.get(&format!("{SERVERS}/detail")).await;
    assert_eq!(listed["servers"][1]["os-extended-volumes:volumes_attached"], json!([]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_boots_from_a_volume_that_goes_and_comes_back_with_it() {
    let world = World::new(2).await;
    let device = json!({"source_type": "image", "destination_type": "volume", "uuid": world.image, "volume_size": 1,
        "boot_index": 0, "delete_on_termination": true});
    let server = world.server(json!({"imageRef": "", "block_device_mapping_v2": [device]})).await;
    let shown = world.cloud.get(&server).await["server"].clone();
    assert_eq!(shown["image"], "");
    let volume = shown["os-extended-volumes:volumes_attached"][0]["id"].as_str().unwrap().to_owned();
    world.is(&volume, "in-use").await;
    let one = format!("{}/{volume}", world.volumes);
    let seen = world.cloud.get(&one).await["volume"].clone();
    assert_eq!((&seen["bootable"], &seen["attachments"][0]["device"]), (&json!("true"), &json!("/dev/vda")));
    let root = format!("{server}/os-volume_attachments/{volume}");
    assert!(world.refused("DELETE", &root, NULL, 400).await.contains("Cannot detach a root device volume"));
    let deleted = world.done("DELETE", &server, NULL).await.request_id();
    assert_eq!(world.ask("GET", &one, NULL).await.status, 404);
    world.cloud.settle().await;
    world.done("POST", &format!("/nubo/v1/undo/{deleted}"), NULL).await;
    world.until(&server, "/server/status", "ACTIVE").await;
    world.is(&volume, "in-use").await;
    assert_eq!(world.cloud.cloud.miscounts().await.unwrap(), []);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_detaching_that_was_announced_ends_with_the_attachment_and_comes_back_with_it() {
    let world = World::new(1).await;
    let actions = |volume: &str| format!("{}/{volume}/action", world.volumes);
    for goes in [false, true] {
        let (server, volume) = (world.server(json!({})).await, world.volume(json!({})).await);
        let wanted = json!({"volumeAttachment": {"volumeId": volume, "delete_on_termination": goes}});
        world.done("POST", &format!("{server}/os-volume_attachments"), wanted).await;
        world.is(&volume, "in-use").await;
        world.done("POST", &actions(&volume), json!({"os-begin_detaching": null})).await;
        world.is(&volume, "detaching").await;
        let deleted = world.done("DELETE", &server, NULL).await.request_id();
        if !goes {
            world.is(&volume, "available").await;
        }
        world.cloud.settle().await;
        world.done("POST", &format!("/nubo/v1/undo/{deleted}"), NULL).await;
        world.until(&server, "/server/status", "ACTIVE").await;
        world.is(&volume, "detaching").await;
        world.done("POST", &actions(&volume), json!({"os-roll_detaching": null})).await;
        world.is(&volume, "in-use").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_goes_to_the_host_of_its_volume_and_leaves_it_behind_free() {
    let world = World::new(2).await;
    let volume = world.volume(json!({})).await;
    let seen = world.cloud.get(&format!("{}/{volume}", world.volumes)).await;
    let host = seen["volume"]["os-vol-host-attr:host"].as_str().unwrap().split('@').next().unwrap().to_owned();
    let other = if host == "sim1" { "sim2" } else { "sim1" };
    let elsewhere = world.server(json!({"availability_zone": format!("nova:{other}")})).await;
    let wanted = json!({"volumeAttachment": {"volumeId": volume}});
    let why = world.refused("POST", &format!("{elsewhere}/os-volume_attachments"), wanted, 400).await;
    assert!(why.contains("another host"), "{why}");
    let device = json!([{"source_type": "volume", "destination_type": "volume", "uuid": volume, "boot_index": -1}]);
    let server = world.server(json!({"block_device_mapping_v2": device})).await;
    assert_eq!(world.host_of(&server).await, host);
    world.is(&volume, "in-use").await;
    world.done("DELETE", &server, NULL).await;
    world.is(&volume, "available").await;
    // Bound to one host by its volume and to another one by name it has none, and the fault says why.
    let zone = format!("nova:{other}");
    let body = world.body(json!({"block_device_mapping_v2": device, "availability_zone": zone}));
    let made = world.done("POST", SERVERS, body).await;
    let lost = format!("{SERVERS}/{}", made.body["server"]["id"].as_str().unwrap());
    world.until(&lost, "/server/status", "ERROR").await;
    let fault = world.cloud.get(&lost).await["server"]["fault"].to_string();
    assert!(fault.contains("its volumes"), "{fault}");
    world.done("DELETE", &lost, NULL).await;
    world.is(&volume, "available").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_mapped_is_refused_and_leaves_nothing() {
    let world = World::new(1).await;
    let volume = world.volume(json!({})).await;
    let missing = "11111111-1111-1111-1111-111111111111";
    let to_volume = |more: Value| {
        let mut device = json!({"destination_type": "volume", "boot_index": -1});
        more.as_object().unwrap().iter().for_each(|(key, value)| device[key] = value.clone());
        json!({"block_device_mapping_v2": [device]})
    };
    let blank = json!({"source_type": "blank", "destination_type": "volume", "volume_size": 1, "boot_index": 0});
    let cases = [
        (to_volume(json!({"source_type": "volume", "uuid": missing})), "failed to get volume"),
        (to_volume(json!({"source_type": "snapshot", "uuid": missing})), "failed to get snapshot"),
        (to_volume(json!({"source_type": "blank"})), "non-zero size"),
        (to_volume(json!({"source_type": "image", "uuid": world.image})), "non-zero size"),
        (to_volume(json!({"source_type": "volume"})), "Missing device UUID"),
        (to_volume(json!({"source_type": "tape"})), "source_type"),
        (json!({"block_device_mapping_v2": [blank]}), "Boot sequence"),
        (
            json!({"imageRef": "", "block_device_mapping_v2": [
            {"source_type": "volume", "destination_type": "volume", "uuid": volume, "boot_index": 0}]}),
            "not bootable",
        ),
        (
            json!({"max_count": 2, "block_device_mapping_v2": [
            {"source_type": "volume", "destination_type": "volume", "uuid": volume, "boot_index": -1}]}),
            "multiple instances",
        ),
    ];
    for (more, wanted) in cases {
        let why = world.refused("POST", SERVERS, world.body(more.clone()), 400).await;
        assert!(why.contains(wanted), "{more}: {why}");
    }
    assert_eq!(world.cloud.get(&format!("{}/detail", world.volumes)).await["volumes"].as_array().unwrap().len(), 1);
    world.is(&volume, "available").await;
}
