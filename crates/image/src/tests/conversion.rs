//! Imports that become what the operator wants all disks to be.

use super::*;
use crate::web::{Fetched, Rules, Web};
use agent_api::DiskFormat;
use engine::Jobs;
use serde_json::json;
use std::process::Command;

/// A disk behind every URL.
struct Mirror(Vec<u8>);

#[async_trait]
impl Web for Mirror {
    async fn get(&self, _: &str, _: &Rules) -> Result<Fetched> {
        Ok(Fetched { size_bytes: None, body: Body::from(self.0.clone()) })
    }
}

async fn making(to: DiskFormat, behind: Vec<u8>) -> (World, engine::Handle) {
    making_within(to, behind, None).await
}

/// With so many MiB for all images of a project.
async fn making_within(to: DiskFormat, behind: Vec<u8>, quota_mib: Option<i64>) -> (World, engine::Handle) {
    let world = World::with(|options| {
        options.quota.image_size_total_mib = quota_mib;
        options.web = Arc::new(Mirror(behind));
        options.size_limit_bytes = 64 << 20;
        options.convert_to = Some(to);
    })
    .await;
    let work: Arc<dyn engine::Work> = Arc::new(crate::ImportWork(world.service.clone()));
    let jobs = Jobs::new(world.store.clone(), Env::system(), true, vec![work]);
    let handle = engine::run(&world.store, &Env::system(), vec![Arc::new(jobs)]);
    (world, handle)
}

/// A disk of so many MiB that begins and ends with words, in a format.
fn disk(format: &str, mib: usize) -> (Vec<u8>, Vec<u8>) {
    let folder = tempfile::tempdir().unwrap();
    let (raw, made) = (folder.path().join("raw"), folder.path().join("made"));
    let mut bytes = vec![0; mib << 20];
    bytes[..9].copy_from_slice(b"the first");
    let end = bytes.len();
    bytes[end - 8..].copy_from_slice(b"the last");
    std::fs::write(&raw, &bytes).unwrap();
    let done = Command::new("qemu-img").args(["convert", "-f", "raw", "-O", format]).args([&raw, &made]).status();
    assert!(done.unwrap().success());
    (bytes, std::fs::read(made).unwrap())
}

async fn ended(world: &World, id: &str) -> Value {
    let mut found = Value::Null;
    wait_for("the end of the import", async || {
        let tasks = world.get(ADMIN, &format!("/v2/images/{id}/tasks")).await.expect(200).json();
        found = tasks["tasks"][0].clone();
        found["status"] == "success" || found["status"] == "failure"
    })
    .await;
    found
}

async fn queued(world: &World, disk_format: &str) -> String {
    let body = json!({"name": "disk", "disk_format": disk_format, "container_format": "bare"});
    world.send(OWNER, "POST", "/v2/images", body).await.expect(201).json()["id"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn what_is_fetched_becomes_raw() {
    if !testkit::require("qemu") {
        return;
    }
    let (bytes, qcow2) = disk("qcow2", 3);
    let (world, _jobs) = making(DiskFormat::Raw, qcow2).await;
    let id = queued(&world, "qcow2").await;
    let import = json!({"method": {"name": "web-download", "uri": "http://mirror.example/disk"}});
    world.send(OWNER, "POST", &format!("/v2/images/{id}/import"), import).await.expect(202);
    assert_eq!(ended(&world, &id).await["status"], "success");
    let view = world.show(&id).await;
    assert_eq!((&view["disk_format"], &view["size"], &view["virtual_size"]), (&json!("raw"), &json!(3 << 20), &json!(3 << 20)));
    let file = world.get(OWNER, &format!("/v2/images/{id}/file?verify=true")).await.expect(200);
    assert!(file.bytes == bytes, "the bytes of the disk");
    assert_eq!(world.files().len(), 1, "{:?}", world.files());
}

#[tokio::test]
async fn what_is_staged_becomes_qcow2_by_a_job() {
    if !testkit::require("qemu") {
        return;
    }
    let (bytes, vmdk) = disk("vmdk", 2);
    let (world, _jobs) = making(DiskFormat::Qcow2, Vec::new()).await;
    let id = queued(&world, "vmdk").await;
    let octets = [("content-type", "application/octet-stream")];
    world.call(OWNER, "PUT", &format!("/v2/images/{id}/stage"), &octets, Body::from(vmdk)).await.expect(204);
    let import = json!({"method": {"name": "glance-direct"}});
    world.send(OWNER, "POST", &format!("/v2/images/{id}/import"), import).await.expect(202);
    assert_eq!(ended(&world, &id).await["status"], "success");
    let view = world.show(&id).await;
    assert_eq!((&view["disk_format"], &view["virtual_size"]), (&json!("qcow2"), &json!(2 << 20)));
    let file = world.get(OWNER, &format!("/v2/images/{id}/file")).await.expect(200);
    assert_eq!(file.header("content-md5"), view["checksum"].as_str().unwrap());
    let folder = tempfile::tempdir().unwrap();
    let (qcow2, raw) = (folder.path().join("qcow2"), folder.path().join("raw"));
    std::fs::write(&qcow2, &file.bytes).unwrap();
    let done = Command::new("qemu-img").args(["convert", "-f", "qcow2", "-O", "raw"]).args([&qcow2, &raw]).status();
    assert!(done.unwrap().success() && std::fs::read(raw).unwrap() == bytes);
    wait_for("the staged bytes to go", async || {
        world.sweep().await;
        world.files().len() == 1
    })
    .await;
}

#[tokio::test]
async fn what_cannot_be_converted_is_queued_again_and_leaves_nothing() {
    if !testkit::require("qemu") {
        return;
    }
    let (_, qcow2) = disk("qcow2", 65);
    let (world, _jobs) = making(DiskFormat::Raw, qcow2.clone()).await;
    let id = queued(&world, "qcow2").await;
    let octets = [("content-type", "application/octet-stream")];
    let import = json!({"method": {"name": "web-download", "uri": "http://mirror.example/disk"}});
    world.send(OWNER, "POST", &format!("/v2/images/{id}/import"), import).await.expect(202);
    let task = ended(&world, &id).await;
    assert!(task["message"].as_str().unwrap().contains("imports make raw files of disks"), "{task}");
    assert_eq!(world.show(&id).await["status"], "queued");
    // What is uploaded stays what it is.
    world.call(OWNER, "PUT", &format!("/v2/images/{id}/file"), &octets, Body::from(qcow2)).await.expect(204);
    assert_eq!(world.show(&id).await["disk_format"], "qcow2");
    world.sweep().await;
    assert_eq!(world.files().len(), 1, "{:?}", world.files());
}

#[tokio::test]
async fn a_disk_that_would_be_beyond_the_quota_as_raw_is_not_converted() {
    if !testkit::require("qemu") {
        return;
    }
    let (_, qcow2) = disk("qcow2", 5);
    assert!(qcow2.len() < 1 << 20);
    let (world, _jobs) = making_within(DiskFormat::Raw, qcow2.clone(), Some(4)).await;
    let id = queued(&world, "qcow2").await;
    let import = json!({"method": {"name": "web-download", "uri": "http://mirror.example/disk"}});
    world.send(OWNER, "POST", &format!("/v2/images/{id}/import"), import).await.expect(202);
    let task = ended(&world, &id).await;
    assert!(task["message"].as_str().unwrap().contains("image_size_total is over limit of 4"), "{task}");
    // The limit is met before the work: 5 MiB, and not what a conversion came to.
    assert!(task["message"].as_str().unwrap().contains("current usage 0 and delta 5"), "{task}");
    let view = world.show(&id).await;
    assert_eq!((&view["status"], &view["size"]), (&json!("queued"), &Value::Null));
    // What is staged is refused at once, and waits for another import.
    let octets = [("content-type", "application/octet-stream")];
    let path = format!("/v2/images/{id}");
    world.call(OWNER, "PUT", &format!("{path}/stage"), &octets, Body::from(qcow2)).await.expect(204);
    let import = json!({"method": {"name": "glance-direct"}});
    let refused = world.send(OWNER, "POST", &format!("{path}/import"), import).await;
    refused.refuses(413, "over limit of 4 due to current usage 0 and delta 5");
    assert_eq!(world.show(&id).await["status"], "uploading");
    let usage = world.get(OWNER, "/v2/info/usage").await.expect(200).json();
    assert_eq!(usage["usage"]["image_size_total"], json!({"limit": 4, "usage": 0}));
}

#[tokio::test]
async fn a_disk_that_is_within_the_quota_as_raw_is_converted() {
    if !testkit::require("qemu") {
        return;
    }
    let (bytes, qcow2) = disk("qcow2", 4);
    let (world, _jobs) = making_within(DiskFormat::Raw, qcow2, Some(4)).await;
    let id = queued(&world, "qcow2").await;
    let import = json!({"method": {"name": "web-download", "uri": "http://mirror.example/disk"}});
    world.send(OWNER, "POST", &format!("/v2/images/{id}/import"), import).await.expect(202);
    assert_eq!(ended(&world, &id).await["status"], "success");
    assert!(world.get(OWNER, &format!("/v2/images/{id}/file")).await.expect(200).bytes == bytes);
}
