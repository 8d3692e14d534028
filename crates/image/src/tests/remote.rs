//! Stores that are no folders: what is put there, whose it is, and when it goes.

use super::*;
use crate::data::objects::memory::Memory;
use crate::data::objects::{self, Bites};
use crate::document::{Object, ObjectState};
use crate::{ObjectSweeper, Objects, PlaceOptions, StoreOptions, Sweeper};
use base::ImageId;
use engine::{Jobs, Reconciler};
use serde_json::json;
use std::fs::File;
use store::{Cause, Document, Query};
use tokio::sync::Semaphore;

/// [`Memory`] whose puts wait for leave.
#[derive(Default)]
struct Gated {
    memory: Memory,
    waiting: std::sync::atomic::AtomicUsize,
    gate: Option<Semaphore>,
}

#[async_trait]
impl Objects for Gated {
    fn kind(&self) -> &'static str {
        self.memory.kind()
    }

    async fn check(&self) -> objects::Result<()> {
        self.memory.check().await
    }

    async fn put(&self, key: &str, file: &File, size_bytes: u64) -> objects::Result<()> {
        self.waiting.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        if let Some(gate) = &self.gate {
            gate.acquire().await.unwrap().forget();
        }
        self.memory.put(key, file, size_bytes).await
    }

    async fn get(&self, key: &str, first: u64, length: u64) -> objects::Result<Bites> {
        self.memory.get(key, first, length).await
    }

    async fn size(&self, key: &str) -> objects::Result<Option<u64>> {
        self.memory.size(key).await
    }

    async fn remove(&self, key: &str) -> objects::Result<()> {
        self.memory.remove(key).await
    }

    async fn list(&self) -> objects::Result<Vec<String>> {
        self.memory.list().await
    }
}

struct Remote {
    world: Arc<World>,
    ceph: Arc<Gated>,
    _jobs: engine::Handle,
}

impl std::ops::Deref for Remote {
    type Target = World;

    fn deref(&self) -> &World {
        &self.world
    }
}

fn stores(options: &mut Options, ceph: &Arc<Gated>) {
    let beside = options.folder.parent().unwrap().join("second");
    let place = PlaceOptions::Driver(ceph.clone());
    options.stores = [
        ("ceph".to_owned(), StoreOptions { place, description: Some("objects".to_owned()), weight: 3 }),
        ("second".to_owned(), beside.into()),
    ]
    .into();
    options.default_store = Some("ceph".to_owned());
}

/// A world whose default store is in memory, with a trash, and whose jobs are worked on.
async fn remote(gated: bool) -> Remote {
    let temporary = tempfile::tempdir().unwrap();
    let ceph = Arc::new(Gated { gate: gated.then(|| Semaphore::new(0)), ..Gated::default() });
    let store = store::Options { trash_ms: 3_600_000, ..store::Options::memory() };
    let store = Store::open(store, Env::system()).await.unwrap();
    let mut options = Options::new(temporary.path().join("images"));
    stores(&mut options, &ceph);
    over(store, options, temporary, ceph)
}

fn over(store: Store, options: Options, temporary: tempfile::TempDir, ceph: Arc<Gated>) -> Remote {
    let world = Arc::new(World::over(store, options, temporary));
    let works: Vec<Arc<dyn engine::Work>> =
        vec![Arc::new(crate::ImportWork(world.service.clone())), Arc::new(crate::CopyWork(world.service.clone()))];
    let jobs = Jobs::new(world.store.clone(), Env::system(), true, works);
    let jobs = engine::run(&world.store, &Env::system(), vec![Arc::new(jobs)]);
    Remote { world, ceph, _jobs: jobs }
}

impl Remote {
    async fn uploaded(&self, bytes: &'static str) -> String {
        let id = self.raw_image(OWNER).await;
        self.upload(OWNER, &id, bytes).await.expect(204);
        id
    }

    /// One round of both sweepers. How many objects could not be brought to their end.
    async fn tidy(&self) -> usize {
        let images = Sweeper(self.service.clone());
        for id in images.pending().await.unwrap() {
            images.reconcile(&id).await.unwrap();
        }
        let sweeper = ObjectSweeper(self.service.clone());
        let mut failed = 0;
        // What arrives no more leaves, and then goes.
        for _ in 0..2 {
            failed = 0;
            for id in sweeper.pending().await.unwrap() {
                failed += usize::from(sweeper.reconcile(&id).await.is_err());
            }
        }
        failed
    }

    /// Nothing rests in the trash any more.
    async fn emptied(&self) {
        let empty = |tx: &mut store::Tx| {
            for trash in tx.list::<store::Trash>(Query::all())? {
                tx.delete::<store::Trash>(trash.id())?;
            }
            Ok(())
        };
        self.store.write(Cause::new("root", "", "trash:empty"), empty).await.unwrap();
    }

    async fn objects(&self) -> Vec<Object> {
        self.store.list::<Object>(Query::all()).await.unwrap().into_iter().map(|it| it.doc).collect()
    }

    /// Documents and objects agree, and there are so many.
    #[track_caller]
    fn has(&self, documents: &[Object], count: usize) {
        let mut keys: Vec<String> = documents.iter().map(|object| object.key.clone()).collect();
        keys.sort();
        assert_eq!(keys, self.ceph.memory.keys(), "{documents:?}");
        assert_eq!(keys.len(), count, "{documents:?}");
        assert!(documents.iter().all(|object| object.state == ObjectState::There), "{documents:?}");
    }

    async fn bytes(&self, id: &str) -> String {
        self.get(OWNER, &format!("/v2/images/{id}/file")).await.expect(200).text()
    }

    async fn copied(&self, id: &str, to: &str) {
        let body = json!({"method": {"name": "copy-image"}, "stores": [to]});
        self.send(ADMIN, "POST", &format!("/v2/images/{id}/import"), body).await.expect(202);
        wait_for("the copy", async || self.show(id).await.get("os_glance_importing_to_stores").is_none_or(|to| to == "")).await;
    }
}

#[tokio::test]
async fn bytes_are_kept_once_and_go_with_the_last_image_that_has_them() {
    let remote = remote(false).await;
    let first = remote.uploaded("the same bytes").await;
    let second = remote.uploaded("the same bytes").await;
    let third = remote.uploaded("other bytes").await;
    assert!(remote.files().is_empty(), "{:?}", remote.files());
    remote.has(&remote.objects().await, 2);
    assert_eq!(remote.show(&first).await["stores"], "ceph");
    assert_eq!(remote.bytes(&first).await, "the same bytes");
    let range = [("range", "bytes=4-7")];
    let part = remote.call(OWNER, "GET", &format!("/v2/images/{third}/file"), &range, Body::empty()).await.expect(206);
    assert_eq!((part.text().as_str(), part.header("content-range")), ("r by", "bytes 4-7/11"));
    // In the trash, an image has its bytes.
    for (id, left) in [(&first, 2), (&third, 2)] {
        remote.delete(OWNER, &format!("/v2/images/{id}")).await.expect(204);
        assert_eq!(remote.tidy().await, 0);
        remote.has(&remote.objects().await, left);
    }
    remote.emptied().await;
    assert_eq!(remote.tidy().await, 0);
    remote.has(&remote.objects().await, 1);
    assert_eq!(remote.bytes(&second).await, "the same bytes");
}

/// An id that was deleted twice and is used again: all that rest in the trash have their bytes still, in either store.
#[tokio::test]
async fn images_in_the_trash_keep_their_bytes_beside_others_of_their_id() {
    let remote = remote(false).await;
    let id = "6a0d1f9e-8b1e-4c4f-9a55-0d6c0c1b7d01";
    let image = json!({"id": id, "disk_format": "raw", "container_format": "bare"});
    for bytes in ["first", "second", "third"] {
        remote.send(OWNER, "POST", "/v2/images", image.clone()).await.expect(201);
        remote.upload(OWNER, id, bytes).await.expect(204);
        remote.copied(id, "local").await;
        assert_eq!(remote.tidy().await, 0);
        if bytes != "third" {
            remote.delete(OWNER, &format!("/v2/images/{id}")).await.expect(204);
        }
    }
    assert_eq!(remote.tidy().await, 0);
    assert_eq!(remote.files().len(), 3, "{:?}", remote.files());
    remote.has(&remote.objects().await, 3);
    assert_eq!(remote.bytes(id).await, "third");
    remote.emptied().await;
    assert_eq!((remote.tidy().await, remote.files().len()), (0, 1));
    remote.has(&remote.objects().await, 1);
    assert_eq!(remote.bytes(id).await, "third");
}

#[tokio::test]
async fn stores_are_shown_with_what_they_are() {
    let remote = remote(false).await;
    let listed = remote.get(OWNER, "/v2/info/stores").await.expect(200).json();
    assert_eq!(listed["stores"][1], json!({"id": "ceph", "description": "objects", "default": "true"}));
    assert!(listed["stores"][0].get("default").is_none());
    let detail = remote.get(ADMIN, "/v2/info/stores/detail").await.expect(200).json();
    assert_eq!((&detail["stores"][1]["type"], &detail["stores"][1]["weight"]), (&json!("memory"), &json!(3)));
    assert_eq!(detail["stores"][2]["type"], "file");
}

#[tokio::test]
async fn copies_go_to_and_from_objects() {
    let remote = remote(false).await;
    let id = remote.uploaded("the bytes").await;
    for to in ["second", "local"] {
        remote.copied(&id, to).await;
    }
    assert_eq!(remote.show(&id).await["stores"], "ceph,local,second");
    let from = |store: &str| format!("/v2/stores/{store}/{id}");
    remote.delete(ADMIN, &from("ceph")).await.expect(204);
    assert_eq!(remote.tidy().await, 0);
    remote.has(&remote.objects().await, 0);
    remote.copied(&id, "ceph").await;
    remote.has(&remote.objects().await, 1);
    for store in ["local", "second"] {
        remote.delete(ADMIN, &from(store)).await.expect(204);
    }
    assert_eq!(remote.bytes(&id).await, "the bytes");
    assert_eq!(remote.files(), Vec::<String>::new());
}

#[tokio::test]
async fn a_store_that_is_down_refuses_uploads_and_others_stand_in_for_it() {
    let remote = remote(false).await;
    let [alone, twice] = [remote.uploaded("alone").await, remote.uploaded("twice").await];
    remote.copied(&twice, "local").await;
    remote.ceph.memory.set_down(true);
    let new = remote.raw_image(OWNER).await;
    let silent = "The image store 'ceph' does not answer: it is switched off.";
    remote.upload(OWNER, &new, "new").await.refuses(503, silent);
    assert_eq!(remote.show(&new).await["status"], "queued");
    remote.get(OWNER, &format!("/v2/images/{alone}/file")).await.refuses(503, silent);
    assert_eq!(remote.bytes(&twice).await, "twice");
    assert!(remote.service.open_file(&ImageId::from(twice.as_str())).await.is_ok());
    assert!(remote.service.open_file(&ImageId::from(alone.as_str())).await.is_err());
    // A deletion is answered, and done when the store is back.
    let deleted = remote.delete(ADMIN, &format!("/v2/stores/ceph/{twice}")).await;
    deleted.expect(204);
    assert_eq!(remote.tidy().await, 1);
    assert_eq!(remote.ceph.memory.keys().len(), 2);
    remote.ceph.memory.set_down(false);
    assert_eq!(remote.tidy().await, 0);
    remote.has(&remote.objects().await, 1);
    remote.upload(OWNER, &new, "new").await.expect(204);
    remote.has(&remote.objects().await, 2);
}

#[tokio::test]
async fn damage_is_found_on_demand_and_nobody_joins_it() {
    let remote = remote(false).await;
    let id = remote.uploaded("the bytes").await;
    let key = remote.ceph.memory.keys().pop().unwrap();
    remote.ceph.memory.overwrite(&key, b"THE BYTES");
    let path = format!("/v2/images/{id}/file?verify=true");
    remote.get(OWNER, &path).await.refuses(503, "the copy in 'ceph' has other bytes");
    let file = remote.service.open_file(&ImageId::from(id.as_str())).await.unwrap_err();
    assert!(file.message.contains("has other bytes than were accepted"), "{}", file.message);
    let other = remote.uploaded("the bytes").await;
    assert_eq!(remote.ceph.memory.keys().len(), 2);
    let path = format!("/v2/images/{other}/file?verify=true");
    assert_eq!(remote.get(OWNER, &path).await.expect(200).text(), "the bytes");
    remote.copied(&other, "second").await;
    let sound = remote.objects().await.into_iter().find(|object| !object.damaged).unwrap();
    remote.ceph.memory.overwrite(&sound.key, b"THE BYTES");
    assert_eq!(remote.get(OWNER, &path).await.expect(200).text(), "the bytes", "from the other copy");
    // An object that is cut short is found when somebody would join it.
    let third = remote.uploaded("third").await;
    let cut = remote.objects().await.into_iter().find(|object| object.size_bytes == 5).unwrap();
    remote.ceph.memory.overwrite(&cut.key, b"thi");
    let fourth = remote.uploaded("third").await;
    assert_eq!(remote.bytes(&fourth).await, "third");
    assert_eq!(remote.bytes(&third).await, "thi", "nobody has asked");
}

#[tokio::test]
async fn a_host_gets_what_was_brought_for_another_one() {
    use std::io::Read;
    let remote = remote(false).await;
    let id = ImageId::from(remote.uploaded("the bytes").await.as_str());
    for down in [false, true] {
        remote.ceph.memory.set_down(down);
        let mut text = String::new();
        remote.service.open_file(&id).await.unwrap().read_to_string(&mut text).unwrap();
        assert_eq!(text, "the bytes");
    }
    assert!(remote.files().is_empty());
}

/// What a process leaves that dies before, while or after it puts, and before its last commit.
#[tokio::test]
async fn what_a_dead_transfer_put_goes() {
    for put in [None, Some("the by"), Some("the bytes")] {
        let remote = remote(false).await;
        let id = remote.raw_image(OWNER).await;
        let key = objects::key(&"ab".repeat(64), "0123456789abcdef");
        let (image, begun) = (ImageId::from(id.as_str()), key.clone());
        remote.store.write(Cause::new("nubo", "", "test"), move |tx| {
            let mut doc = tx.need::<Image>(&image)?.doc;
            doc.status = crate::document::Status::Saving;
            doc.begin_transfer("dead", tx.now());
            tx.update(&doc)?;
            tx.create(&Object::arriving("ceph", begun.clone(), &"ab".repeat(64), 9, format!("{image}.dead")))?;
            Ok(())
        }).await.unwrap();
        std::fs::write(remote.folder.join(format!(".upload-{id}-dead")), "the bytes").unwrap();
        if let Some(bytes) = put {
            remote.ceph.memory.overwrite(&key, bytes.as_bytes());
        }
        assert_eq!(remote.tidy().await, 0);
        remote.has(&remote.objects().await, 0);
        assert_eq!((remote.show(&id).await["status"].as_str(), remote.files().len()), (Some("queued"), 0));
    }
}

/// Two that bring the same bytes at once, and one that is deleted while it is put.
#[tokio::test]
async fn transfers_at_once_end_with_one_object() {
    let remote = Arc::new(remote(true).await);
    let gate = remote.ceph.gate.as_ref().unwrap();
    let ids = [remote.raw_image(OWNER).await, remote.raw_image(OWNER).await, remote.raw_image(OWNER).await];
    let uploads = ids.clone().map(|id| {
        let remote = remote.clone();
        tokio::spawn(async move { remote.upload(OWNER, &id, "the same bytes").await.status })
    });
    wait_for("three puts", async || remote.ceph.waiting.load(std::sync::atomic::Ordering::SeqCst) == 3).await;
    // While they are put, nobody may take them away.
    remote.tidy().await;
    assert_eq!(remote.objects().await.len(), 3);
    remote.delete(OWNER, &format!("/v2/images/{}", ids[2])).await.expect(204);
    gate.add_permits(3);
    let mut ended = Vec::new();
    for upload in uploads {
        ended.push(upload.await.unwrap());
    }
    assert_eq!(ended, [204, 204, 410]);
    assert_eq!(remote.tidy().await, 0);
    remote.has(&remote.objects().await, 1);
    for id in &ids[..2] {
        assert_eq!(remote.bytes(id).await, "the same bytes");
    }
    assert!(remote.files().is_empty());
}

#[tokio::test]
async fn a_put_that_fails_leaves_the_image_queued_and_no_object() {
    let remote = Arc::new(remote(true).await);
    let id = remote.raw_image(OWNER).await;
    let (service, asked) = (remote.clone(), id.clone());
    let upload = tokio::spawn(async move { service.upload(OWNER, &asked, "the bytes").await });
    wait_for("a put", async || remote.ceph.waiting.load(std::sync::atomic::Ordering::SeqCst) == 1).await;
    remote.ceph.memory.set_down(true);
    remote.ceph.gate.as_ref().unwrap().add_permits(1);
    upload.await.unwrap().refuses(503, "'ceph' does not answer");
    assert_eq!((remote.show(&id).await["status"].as_str(), remote.files().len()), (Some("queued"), 0));
    assert_eq!(remote.objects().await[0].state, ObjectState::Leaving);
    remote.ceph.memory.set_down(false);
    assert_eq!(remote.tidy().await, 0);
    remote.has(&remote.objects().await, 0);
}

#[tokio::test]
async fn an_object_of_a_store_that_left_the_settings_is_told() {
    let remote = remote(false).await;
    let gone = Object::arriving("tape", objects::key(&"ab".repeat(64), "0123456789abcdef"), &"ab".repeat(64), 9, "x".into());
    let id = gone.id().to_owned();
    remote.store.write(Cause::new("nubo", "", "test"), move |tx| {
        let mut gone = gone.clone();
        gone.leave();
        tx.create(&gone)?;
        Ok(())
    }).await.unwrap();
    let refused = ObjectSweeper(remote.service.clone()).reconcile(&id).await.unwrap_err();
    assert!(refused.message.contains("'tape' is not in the settings"), "{}", refused.message);
}

#[tokio::test]
async fn what_does_not_agree_is_told_and_what_nobody_owns_is_given_up() {
    let remote = remote(false).await;
    let id = remote.uploaded("the bytes").await;
    assert_eq!(remote.service.strays().await.unwrap(), []);
    let own = remote.ceph.memory.keys().pop().unwrap();
    let nobodys = objects::key(&"cd".repeat(64), "0123456789abcdef");
    remote.ceph.memory.overwrite(&nobodys, b"nobody's");
    remote.ceph.memory.overwrite("what others keep there", b"x");
    remote.ceph.remove(&own).await.unwrap();
    let told = remote.service.strays().await.unwrap();
    let told: Vec<(&str, &str, bool)> =
        told.iter().map(|it| (it.id.as_str(), it.what.as_str(), it.cure.is_some())).collect();
    let (lost, stray) = (format!("ceph/{own}"), format!("ceph/{nobodys}"));
    assert_eq!(told, [
        (lost.as_str(), "it is not in the image store 'ceph'", false),
        (stray.as_str(), "it lies in the image store 'ceph' and has no owner", true),
    ]);
    assert!(remote.service.give_up(&stray).await.unwrap());
    for not in [&stray, &lost, "ceph/x", "local/x", "x"] {
        assert!(!remote.service.give_up(not).await.unwrap(), "{not}");
    }
    assert_eq!(remote.tidy().await, 0);
    assert_eq!(remote.ceph.memory.keys(), ["what others keep there"]);
    remote.delete(OWNER, &format!("/v2/images/{id}")).await.expect(204);
    remote.ceph.memory.set_down(true);
    let told = remote.service.strays().await.unwrap();
    assert!(told[0].id == "ceph" && told[0].what.contains("does not answer: it is switched off"), "{told:?}");
}

#[tokio::test]
async fn a_default_that_is_no_store_is_refused() {
    let temporary = tempfile::tempdir().unwrap();
    let store = Store::open(store::Options::memory(), Env::system()).await.unwrap();
    let mut options = Options::new(temporary.path().join("images"));
    options.default_store = Some("nowhere".to_owned());
    let refused = Service::new(store, Env::system(), options).err().unwrap();
    assert!(refused.message.contains("'nowhere' is none of [image_stores]"), "{}", refused.message);
}
