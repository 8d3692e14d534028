//! An image of a server: made by a job that outlives control, ended with its image and with its server.

use crate::cloud::{Answer, TestCloud, options};
use base::Env;
use engine::Job;
use serde_json::{Value, json};
use simhost::SimHost;
use std::sync::Arc;
use std::time::Duration;
use store::{Document, Query};

const NULL: Value = Value::Null;
/// Longer than any test: what a host does then never comes.
const NEVER_MS: u64 = 3_600_000;

/// A machine with a host on it, where one control after the other may live.
struct Lab {
    folder: tempfile::TempDir,
    host: Arc<SimHost>,
}

/// One life of control, with the host's session to it.
struct Life {
    cloud: TestCloud,
    session: tokio::task::JoinHandle<()>,
}

impl Lab {
    fn new() -> Lab {
        let host = Arc::new(SimHost::new(Env::system(), simhost::Options::new("sim1")));
        Lab { folder: tempfile::tempdir().unwrap(), host }
    }

    async fn open(&self) -> Life {
        let store = format!("sqlite:{}", self.folder.path().join("nubo.db").display());
        let cloud = TestCloud::open_with(options(&store, &self.folder.path().join("images")), Env::system(), 0).await;
        let session = tokio::spawn(control::host(self.host.clone(), cloud.cloud.link()));
        cloud.cloud.wait_hosts(1).await;
        Life { cloud, session }
    }
}

impl Life {
    /// All that was in memory goes.
    async fn die(self) {
        self.session.abort();
        self.session.await.ok();
        drop(self.cloud);
    }

    async fn send(&self, method: &str, path: &str, body: Value) -> Answer {
        self.cloud.call(&self.cloud.admin, method, path, &body, &[]).await
    }

    async fn make(&self, path: &str, key: &str, body: Value) -> String {
        let answer = self.send("POST", path, json!({ key: body })).await;
        assert!((200..300).contains(&answer.status), "{path}: {}", answer.body);
        answer.body[key]["id"].as_str().unwrap_or_default().to_owned()
    }

    async fn await_value(&self, path: &str, pointer: &str, wanted: Value) {
        for _ in 0..2000 {
            if self.cloud.get(path).await.pointer(pointer) == Some(&wanted) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        panic!("{path}{pointer} never became {wanted}: {}", self.cloud.get(path).await);
    }

    async fn boot(&self, image: &str) -> String {
        let flavor = json!({"name": format!("of-{image}"), "ram": 64, "vcpus": 1, "disk": 1});
        let flavor = self.make("/compute/v2.1/flavors", "flavor", flavor).await;
        let body = json!({"name": "one", "flavorRef": flavor, "imageRef": image, "networks": "none"});
        let server = self.make("/compute/v2.1/servers", "server", body).await;
        self.await_value(&server_path(&server), "/server/status", json!("ACTIVE")).await;
        server
    }

    async fn create_image(&self, server: &str) -> Answer {
        let body = json!({"createImage": {"name": "copy", "metadata": {"of": "me"}}});
        self.send("POST", &format!("{}/action", server_path(server)), body).await
    }

    async fn jobs(&self) -> Vec<Job> {
        let jobs = self.cloud.cloud.store().list::<Job>(Query::all()).await.unwrap();
        jobs.into_iter().map(|stored| stored.doc).collect()
    }

    async fn no_jobs(&self) {
        for _ in 0..2000 {
            if self.jobs().await.is_empty() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        panic!("jobs stay: {:?}", self.jobs().await);
    }

    async fn actions(&self, server: &str) -> Vec<Value> {
        let all = self.cloud.get(&format!("{}/os-instance-actions", server_path(server))).await;
        let all = all["instanceActions"].as_array().cloned().unwrap_or_default();
        all.into_iter().filter(|action| action["action"] == "createImage").collect()
    }

    async fn is_clean(&self) {
        self.cloud.settle().await;
        let audit = self.cloud.get("/nubo/v1/audit").await;
        assert_eq!(audit["findings"], json!([]), "{audit}");
        assert_eq!(self.cloud.cloud.miscounts().await.unwrap(), []);
    }
}

fn server_path(server: &str) -> String {
    format!("/compute/v2.1/servers/{server}")
}

fn image_path(image: &str) -> String {
    format!("/image/v2/images/{image}")
}

const TASK: &str = "/server/OS-EXT-STS:task_state";

#[tokio::test(flavor = "multi_thread")]
async fn an_image_of_a_server_is_queued_at_once_and_bootable_in_the_end() {
    let lab = Lab::new();
    let life = lab.open().await;
    let base = life.cloud.image().await;
    let server = life.boot(&base).await;
    let dry = life
        .send("POST", &format!("{}/action?dry_run=true", server_path(&server)), json!({"createImage": {"name": "dry"}}))
        .await;
    assert!(dry.status < 300, "{}", dry.body);
    assert!(life.jobs().await.is_empty(), "a dry run makes no job");
    lab.host.set_delay_ms(NEVER_MS);
    let answer = life.create_image(&server).await;
    assert_eq!(answer.status, 202, "{}", answer.body);
    let image = answer.body["image_id"].as_str().unwrap().to_owned();
    let queued = life.cloud.get(&image_path(&image)).await;
    assert_eq!(
        (&queued["status"], &queued["visibility"], &queued["of"]),
        (&json!("queued"), &json!("private"), &json!("me"))
    );
    assert_eq!((&queued["image_type"], &queued["instance_uuid"]), (&json!("snapshot"), &json!(server)));
    let shown = life.cloud.get(&server_path(&server)).await;
    assert_eq!((shown.pointer(TASK), &shown["server"]["status"]), (Some(&json!("image_snapshot")), &json!("ACTIVE")));
    for body in [json!({"createImage": {"name": "again"}}), json!({"os-stop": null})] {
        let refused = life.send("POST", &format!("{}/action", server_path(&server)), body).await;
        assert_eq!(refused.status, 409, "{}", refused.body);
        assert!(refused.body.to_string().contains("task_state image_snapshot"), "{}", refused.body);
    }
    let explained = life.cloud.get(&format!("/nubo/v1/explain/server/{server}")).await.to_string();
    assert!(explained.contains("to copy its disk for image") && explained.contains("deadline"), "{explained}");
    let explained = life.cloud.get(&format!("/nubo/v1/explain/image/{image}")).await.to_string();
    assert!(explained.contains("the host to hand over the disk"), "{explained}");
    // The host's session breaks, and the copy is asked for anew.
    lab.host.set_delay_ms(0);
    life.die().await;
    let life = lab.open().await;
    life.await_value(&image_path(&image), "/status", json!("active")).await;
    life.await_value(&server_path(&server), TASK, NULL).await;
    life.no_jobs().await;
    let copy = life.cloud.get(&image_path(&image)).await;
    assert_eq!(
        (&copy["disk_format"], &copy["min_disk"], &copy["virtual_size"]),
        (&json!("qcow2"), &json!(1), &json!(1u64 << 30))
    );
    let actions = life.actions(&server).await;
    assert_eq!((actions.len(), &actions[0]["message"]), (1, &NULL), "{actions:?}");
    life.boot(&image).await;
    life.is_clean().await;
}

/// A control that is down, with a job in the middle of its work.
async fn broken_off(lab: &Lab) -> (String, String) {
    let life = lab.open().await;
    let server = life.boot(&life.cloud.image().await).await;
    lab.host.set_delay_ms(NEVER_MS);
    let image = life.create_image(&server).await.body["image_id"].as_str().unwrap().to_owned();
    for _ in 0..2000 {
        if life.jobs().await.first().is_some_and(|job| job.lease.epoch > 0) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    life.die().await;
    (server, image)
}

type Plant = fn(&mut store::Tx) -> Result<(), store::Error>;

fn job_id(tx: &mut store::Tx) -> Result<String, store::Error> {
    Ok(tx.list::<Job>(Query::all())?.remove(0).doc.id().to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn fsck_finds_and_mends_jobs_without_objects_and_objects_without_jobs() {
    let lose_job: Plant = |tx| {
        let id = job_id(tx)?;
        tx.delete::<Job>(&id).map(drop)
    };
    let lose_image: Plant = |tx| {
        let id = tx.list::<image::Image>(Query::all())?.into_iter().find(|it| it.doc.awaits.is_some()).unwrap();
        tx.skip_trash();
        tx.delete::<image::Image>(&id.doc.id).map(drop)
    };
    let age_lease: Plant = |tx| {
        let (id, until) = (job_id(tx)?, tx.now().plus_s(-3600));
        tx.modify::<Job>(&id, |job| job.lease.until = until).map(drop)
    };
    for (plant, expected) in
        [(lose_job, vec!["image", "instance_action", "server"]), (lose_image, vec!["job"]), (age_lease, vec!["job"])]
    {
        let lab = Lab::new();
        broken_off(&lab).await;
        let url = format!("sqlite:{}", lab.folder.path().join("nubo.db").display());
        let offline =
            control::Offline::open(options(&url, &lab.folder.path().join("images")), Env::system()).await.unwrap();
        assert_eq!(offline.findings().await.unwrap(), [], "a job that waits for the next control is no damage");
        let cause = store::Cause::new("test", "", "plant");
        offline.store().write(cause, move |tx| Ok(plant(tx)?)).await.unwrap();
        let found = offline.findings().await.unwrap();
        let kinds: Vec<&str> = found.iter().map(|it| it.kind.as_str()).filter(|kind| *kind != "quota").collect();
        assert_eq!(kinds, expected, "{found:?}");
        // What comes to light by a repair is repaired in the next round.
        for _ in 0..3 {
            let found = offline.findings().await.unwrap();
            let objects =
                found.into_iter().inspect(|it| assert!(it.cure.is_some(), "{it:?}")).map(|it| (it.kind, it.id));
            offline.repair(objects.collect()).await.unwrap();
        }
        assert_eq!(offline.findings().await.unwrap(), []);
        drop(offline);
        // And control goes on from there.
        lab.host.set_delay_ms(0);
        let life = lab.open().await;
        life.no_jobs().await;
        life.is_clean().await;
        life.die().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_whose_control_died_in_the_middle_is_finished_once_by_the_next() {
    let lab = Lab::new();
    let life = lab.open().await;
    let server = life.boot(&life.cloud.image().await).await;
    lab.host.set_delay_ms(NEVER_MS);
    let image = life.create_image(&server).await.body["image_id"].as_str().unwrap().to_owned();
    for _ in 0..2000 {
        if life.jobs().await.first().is_some_and(|job| job.lease.epoch > 0) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let before = life.jobs().await.remove(0);
    assert!(!before.lease.holder.is_empty() && before.done == 0, "{before:?}");
    life.die().await;
    lab.host.set_delay_ms(0);
    let life = lab.open().await;
    life.await_value(&image_path(&image), "/status", json!("active")).await;
    life.no_jobs().await;
    assert_eq!(life.cloud.get("/image/v2/images").await["images"].as_array().map(Vec::len), Some(2));
    assert_eq!(life.actions(&server).await.len(), 1);
    let files = std::fs::read_dir(lab.folder.path().join("images")).unwrap();
    let files = files.filter(|entry| entry.as_ref().unwrap().path().is_file()).count();
    assert_eq!(files, 2, "one file an image, and nothing of the broken transfer");
    life.is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_ends_with_its_image_and_with_its_server() {
    let lab = Lab::new();
    let life = lab.open().await;
    let server = life.boot(&life.cloud.image().await).await;
    lab.host.set_delay_ms(NEVER_MS);
    let image = life.create_image(&server).await.body["image_id"].as_str().unwrap().to_owned();
    assert_eq!(life.send("DELETE", &image_path(&image), NULL).await.status, 204);
    life.await_value(&server_path(&server), TASK, NULL).await;
    life.no_jobs().await;
    let actions = life.actions(&server).await;
    assert_eq!((actions.len(), &actions[0]["message"]), (1, &json!("Error")));
    let image = life.create_image(&server).await.body["image_id"].as_str().unwrap().to_owned();
    assert_eq!(life.send("DELETE", &server_path(&server), NULL).await.status, 204);
    life.no_jobs().await;
    assert_eq!(life.send("GET", &image_path(&image), NULL).await.status, 404, "an image that will never be is gone");
    lab.host.set_delay_ms(0);
    life.is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_that_is_deleted_and_brought_back_at_once_waits_for_a_client_and_its_server_for_nothing() {
    let lab = Lab::new();
    let life = lab.open().await;
    let server = life.boot(&life.cloud.image().await).await;
    lab.host.set_delay_ms(200);
    let image = life.create_image(&server).await.body["image_id"].as_str().unwrap().to_owned();
    let deleted = life.send("DELETE", &image_path(&image), NULL).await;
    assert_eq!(deleted.status, 204);
    let undone = life.send("POST", &format!("/nubo/v1/undo/{}", deleted.request_id()), NULL).await;
    assert_eq!(undone.status, 200, "{}", undone.body);
    life.no_jobs().await;
    assert_eq!(life.cloud.get(&image_path(&image)).await["status"], "queued");
    life.await_value(&server_path(&server), TASK, NULL).await;
    lab.host.set_delay_ms(0);
    life.is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn old_versions_answer_with_a_location_and_bad_bodies_are_refused() {
    let lab = Lab::new();
    let life = lab.open().await;
    let server = life.boot(&life.cloud.image().await).await;
    let path = format!("{}/action", server_path(&server));
    for body in
        [json!({}), json!({"name": ""}), json!({"name": "x", "more": 1}), json!({"name": "x", "metadata": {"a": 1}})]
    {
        assert_eq!(life.send("POST", &path, json!({"createImage": body})).await.status, 400);
    }
    let upload_of = |image: &str| {
        let request = http::Request::builder().method("PUT").uri(format!("{}/file", image_path(image)));
        let request =
            request.header("x-auth-token", &life.cloud.admin).header("content-type", "application/octet-stream");
        request.body(axum::body::Body::from("bytes")).unwrap()
    };
    lab.host.set_delay_ms(NEVER_MS);
    let request = http::Request::builder().method("POST").uri(&path).header("x-auth-token", &life.cloud.admin);
    let request = request.header("openstack-api-version", "compute 2.44").header("content-type", "application/json");
    let body = json!({"createImage": {"name": "old"}}).to_string();
    let answer = life.cloud.raw(request.body(axum::body::Body::from(body)).unwrap()).await;
    assert_eq!((answer.status, &answer.body), (202, &NULL));
    let location = answer.header("location").unwrap();
    assert!(location.starts_with("http://cloud/image/v2/images/"), "{location}");
    let image = location.rsplit('/').next().unwrap();
    assert_eq!(life.cloud.get(&image_path(image)).await["name"], "old");
    let refused = life.cloud.raw(upload_of(image)).await;
    assert_eq!(refused.status, 409, "bytes of a client do not get in between: {}", refused.body);
}

/// An image of a volume: the same way for the bytes, with the volume as the owner.
mod of_volumes {
    use super::*;

    impl Life {
        async fn volumes(&self) -> String {
            let subject = [("x-subject-token", self.cloud.admin.as_str())];
            let me = self.cloud.call(&self.cloud.admin, "GET", "/identity/v3/auth/tokens", &NULL, &subject).await;
            format!("/volume/v3/{}", me.body["token"]["project"]["id"].as_str().unwrap())
        }

        /// The path of a new volume that is made of an image.
        async fn volume(&self) -> String {
            let (base, volumes) = (self.cloud.image().await, self.volumes().await);
            let path = format!("{volumes}/volumes");
            let volume = self.make(&path, "volume", json!({"size": 1, "imageRef": base})).await;
            let path = format!("{path}/{volume}");
            self.await_value(&path, "/volume/status", json!("available")).await;
            path
        }

        async fn upload(&self, volume: &str, body: Value) -> Answer {
            let body = json!({"os-volume_upload_image": body});
            let latest = [("openstack-api-version", "volume 3.60")];
            self.cloud.call(&self.cloud.admin, "POST", &format!("{volume}/action"), &body, &latest).await
        }

        async fn image_of(&self, volume: &str) -> String {
            let answer = self.upload(volume, json!({"image_name": "copy", "disk_format": "qcow2"})).await;
            assert_eq!(answer.status, 202, "{}", answer.body);
            answer.body["os-volume_upload_image"]["image_id"].as_str().unwrap().to_owned()
        }
    }

    const STATUS: &str = "/volume/status";

    #[tokio::test(flavor = "multi_thread")]
    async fn it_is_queued_at_once_survives_control_and_makes_a_volume_again() {
        let lab = Lab::new();
        let life = lab.open().await;
        let volume = life.volume().await;
        let set = json!({"os-set_image_metadata": {"metadata": {"hw_disk_bus": "virtio", "img_signature": "of others"}}});
        assert_eq!(life.send("POST", &format!("{volume}/action"), set).await.status, 200);
        let dry = json!({"os-volume_upload_image": {"image_name": "dry"}});
        let dry = life.send("POST", &format!("{volume}/action?dry_run=true"), dry).await;
        assert!(dry.status < 300, "{}", dry.body);
        assert!(life.jobs().await.is_empty(), "a dry run makes no job");
        lab.host.set_delay_ms(NEVER_MS);
        let answer =
            life.upload(&volume, json!({"image_name": "copy", "disk_format": "qcow2", "protected": true})).await;
        let shown = &answer.body["os-volume_upload_image"];
        assert_eq!((answer.status, &shown["status"], &shown["size"]), (202, &json!("uploading"), &json!(1)));
        assert_eq!((&shown["visibility"], &shown["protected"]), (&json!("private"), &json!(true)));
        let image = shown["image_id"].as_str().unwrap().to_owned();
        let queued = life.cloud.get(&image_path(&image)).await;
        assert_eq!((&queued["status"], &queued["hw_disk_bus"]), (&json!("queued"), &json!("virtio")));
        assert!(queued["image_name"].is_null() && queued["img_signature"].is_null(), "{queued}");
        assert_eq!(life.cloud.get(&volume).await.pointer(STATUS), Some(&json!("uploading")));
        // Nothing else is done to it meanwhile.
        let id = volume.rsplit('/').next().unwrap();
        for body in [
            json!({"os-volume_upload_image": {"image_name": "again"}}),
            json!({"os-extend": {"new_size": 2}}),
            json!({"os-reserve": null}),
        ] {
            let refused = life.send("POST", &format!("{volume}/action"), body).await;
            assert_eq!(refused.status, 400, "{}", refused.body);
        }
        assert_eq!(life.send("DELETE", &volume, NULL).await.status, 400);
        let snapshot = json!({"snapshot": {"volume_id": id}});
        let snapshots = volume.replace(&format!("volumes/{id}"), "snapshots");
        assert_eq!(life.send("POST", &snapshots, snapshot).await.status, 400);
        let explained = life.cloud.get(&format!("/nubo/v1/explain/volume/{id}")).await.to_string();
        assert!(explained.contains("to copy it for image") && explained.contains("deadline"), "{explained}");
        // The host's session breaks, and the copy is asked for anew.
        lab.host.set_delay_ms(0);
        life.die().await;
        let life = lab.open().await;
        life.await_value(&image_path(&image), "/status", json!("active")).await;
        life.await_value(&volume, STATUS, json!("available")).await;
        life.no_jobs().await;
        let copy = life.cloud.get(&image_path(&image)).await;
        assert_eq!((&copy["disk_format"], &copy["virtual_size"]), (&json!("qcow2"), &json!(1u64 << 30)));
        let volumes = format!("{}/volumes", life.volumes().await);
        let again = life.make(&volumes, "volume", json!({"size": 1, "imageRef": image})).await;
        life.await_value(&format!("{volumes}/{again}"), STATUS, json!("available")).await;
        life.is_clean().await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_server_that_has_the_volume_goes_on_where_it_is_forced() {
        let lab = Lab::new();
        let life = lab.open().await;
        let server = life.boot(&life.cloud.image().await).await;
        let volume = life.volume().await;
        let id = volume.rsplit('/').next().unwrap();
        let attachments = format!("{}/os-volume_attachments", server_path(&server));
        let attach = json!({"volumeAttachment": {"volumeId": id}});
        assert_eq!(life.send("POST", &attachments, attach).await.status, 200);
        life.await_value(&volume, STATUS, json!("in-use")).await;
        let body = json!({"image_name": "copy", "disk_format": "qcow2"});
        let refused = life.upload(&volume, body).await;
        assert!(refused.status == 400 && refused.body.to_string().contains("in-use"), "{}", refused.body);
        lab.host.set_delay_ms(NEVER_MS);
        let body = json!({"image_name": "copy", "disk_format": "qcow2", "force": true});
        let answer = life.upload(&volume, body).await;
        let image = answer.body["os-volume_upload_image"]["image_id"].as_str().unwrap().to_owned();
        let detach = life.send("DELETE", &format!("{attachments}/{id}"), NULL).await;
        assert_eq!(detach.status, 400, "{}", detach.body);
        // Deleting the image ends its making.
        assert_eq!(life.send("DELETE", &image_path(&image), NULL).await.status, 204);
        life.no_jobs().await;
        life.await_value(&volume, STATUS, json!("in-use")).await;
        lab.host.set_delay_ms(0);
        life.is_clean().await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn it_ends_with_its_volume_and_where_an_administrator_says_what_the_volume_is() {
        let lab = Lab::new();
        let life = lab.open().await;
        let volume = life.volume().await;
        lab.host.set_delay_ms(NEVER_MS);
        for (body, left) in [
            (json!({"os-reset_status": {"status": "available"}}), true),
            (json!({"os-force_delete": null}), false),
        ] {
            let image = life.image_of(&volume).await;
            let answer = life.send("POST", &format!("{volume}/action"), body).await;
            assert_eq!(answer.status, 202, "{}", answer.body);
            life.no_jobs().await;
            assert_eq!(life.send("GET", &image_path(&image), NULL).await.status, 404, "it will never be");
            assert_eq!(life.cloud.get(&volume).await.pointer(STATUS) == Some(&json!("available")), left);
            if !left {
                let undone = life.send("POST", &format!("/nubo/v1/undo/{}", answer.request_id()), NULL).await;
                assert_eq!(undone.status, 200, "{}", undone.body);
                let kept = life.cloud.get(&volume).await;
                assert_eq!(kept.pointer("/volume/volume_image_metadata/disk_format"), Some(&json!("raw")));
            }
        }
        lab.host.set_delay_ms(0);
        life.await_value(&volume, STATUS, json!("available")).await;
        life.is_clean().await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn what_cannot_be_is_refused_by_name() {
        let lab = Lab::new();
        let life = lab.open().await;
        let volume = life.volume().await;
        for (body, word) in [
            (json!({}), "image_name"),
            (json!({"image_name": ""}), "image_name"),
            (json!({"image_name": "x".repeat(256)}), "image_name"),
            (json!({"image_name": "x", "disk_format": "floppy"}), "floppy"),
            (json!({"image_name": "x", "disk_format": "vmdk"}), "vmdk"),
            (json!({"image_name": "x", "container_format": "box"}), "box"),
            (json!({"image_name": "x", "container_format": "compressed"}), "compress"),
            (json!({"image_name": "x", "visibility": "secret"}), "secret"),
            (json!({"image_name": "x", "protected": "perhaps"}), "protected"),
            (json!({"image_name": "x", "more": 1}), "more"),
        ] {
            let refused = life.upload(&volume, body.clone()).await;
            assert!(refused.status == 400 && refused.body.to_string().contains(word), "{body}: {}", refused.body);
        }
        let old = json!({"os-volume_upload_image": {"image_name": "x", "visibility": "private"}});
        assert_eq!(life.send("POST", &format!("{volume}/action"), old).await.status, 400, "3.0 knows no visibility");
        // Nothing is left of a refusal.
        assert!(life.jobs().await.is_empty());
        assert_eq!(life.cloud.get(&volume).await.pointer(STATUS), Some(&json!("available")));
        life.is_clean().await;
    }
}
