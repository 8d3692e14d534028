//! Several stores: uploads to one, copies to others, and what is left when a copy goes bad.

use super::*;
use engine::Jobs;
use serde_json::json;

/// A world with a second and a third store, whose jobs are worked on.
async fn three() -> (World, engine::Handle) {
    let world = World::with(|options| {
        let beside = options.folder.parent().unwrap().to_owned();
        options.stores = ["second", "third"].map(|id| (id.to_owned(), beside.join(id).into())).into();
    })
    .await;
    let works: Vec<Arc<dyn engine::Work>> =
        vec![Arc::new(crate::ImportWork(world.service.clone())), Arc::new(crate::CopyWork(world.service.clone()))];
    let jobs = Jobs::new(world.store.clone(), Env::system(), true, works);
    let handle = engine::run(&world.store, &Env::system(), vec![Arc::new(jobs)]);
    (world, handle)
}

/// How many files each store has.
fn files(world: &World) -> [usize; 3] {
    ["images", "second", "third"].map(|name| {
        let folder = world.folder.parent().unwrap().join(name);
        std::fs::read_dir(folder).unwrap().filter(|entry| entry.as_ref().unwrap().path().is_file()).count()
    })
}

async fn stored(world: &World, id: &str, stores: &str) {
    wait_for(stores, async || {
        let view = world.show(id).await;
        view["stores"] == stores && view.get("os_glance_import_task").is_none()
    })
    .await;
}

#[tokio::test]
async fn an_image_is_copied_and_taken_from_stores() {
    let (world, _jobs) = three().await;
    let id = world.raw_image(OWNER).await;
    let path = format!("/v2/images/{id}");
    let to = [("content-type", "application/octet-stream"), ("x-image-meta-store", "second")];
    let nowhere = [("content-type", "application/octet-stream"), ("x-image-meta-store", "nowhere")];
    world
        .call(OWNER, "PUT", &format!("{path}/file"), &nowhere, Body::from("x"))
        .await
        .refuses(400, "no store 'nowhere'");
    world.call(OWNER, "PUT", &format!("{path}/file"), &to, Body::from("the bytes")).await.expect(204);
    assert_eq!(files(&world), [0, 1, 0]);
    assert_eq!(world.show(&id).await["stores"], "second");
    assert_eq!(world.get(OWNER, &format!("{path}/file")).await.expect(200).text(), "the bytes");
    let copy = |more: Value| {
        let mut body = json!({"method": {"name": "copy-image"}});
        for (name, value) in more.as_object().unwrap() {
            body[name] = value.clone();
        }
        body
    };
    let import = format!("{path}/import");
    world.send(OWNER, "POST", &import, copy(json!({"all_stores": true}))).await.refuses(403, "copy_image");
    world.send(ADMIN, "POST", &import, copy(json!({"stores": ["second"]}))).await.refuses(400, "already present");
    world.send(ADMIN, "POST", &import, copy(json!({"stores": ["none"]}))).await.refuses(409, "no store");
    world.send(ADMIN, "POST", &import, copy(json!({"all_stores": true}))).await.expect(202);
    stored(&world, &id, "local,second,third").await;
    let view = world.show(&id).await;
    let arrival = ["os_glance_import_task", "os_glance_importing_to_stores", "os_glance_failed_import"];
    assert_eq!(arrival.map(|name| &view[name]), [&Value::Null, &json!(""), &json!("")]);
    assert_eq!(files(&world), [1, 1, 1]);
    world.send(ADMIN, "POST", &import, copy(json!({"all_stores": true}))).await.expect(202);
    let usage = world.get(OWNER, "/v2/info/usage").await.expect(200).json();
    assert_eq!(usage["usage"]["image_size_total"]["usage"], 1, "27 bytes are one mebibyte");
    let from = |store: &str| format!("/v2/stores/{store}/{id}");
    world.delete(OWNER, &from("second")).await.refuses(403, "delete_image_location");
    world.delete(ADMIN, &from("none")).await.refuses(404, "not known");
    world.delete(ADMIN, &from("second")).await.expect(204);
    world.delete(ADMIN, &from("second")).await.refuses(404, "not stored on store 'second'");
    world.delete(ADMIN, &from("local")).await.expect(204);
    world.delete(ADMIN, &from("third")).await.refuses(403, "no other copy");
    assert_eq!(files(&world), [0, 0, 1]);
    assert_eq!(world.get(OWNER, &format!("{path}/file")).await.expect(200).text(), "the bytes");
    world.delete(OWNER, &path).await.expect(204);
    assert_eq!(files(&world), [0, 0, 0]);
}

#[tokio::test]
async fn an_import_goes_to_the_stores_that_it_names() {
    let (world, _jobs) = three().await;
    let methods = world.get(OWNER, "/v2/info/import").await.expect(200).json();
    assert!(methods["import-methods"]["value"].as_array().unwrap().contains(&json!("copy-image")));
    let listed = world.get(OWNER, "/v2/info/stores").await.expect(200).json();
    assert_eq!(listed["stores"].as_array().unwrap().len(), 3);
    let headers = [("content-type", "application/octet-stream")];
    for (asked, stores) in
        [(json!({"all_stores": true}), "local,second,third"), (json!({"stores": ["local", "third"]}), "local,third")]
    {
        let id = world.raw_image(OWNER).await;
        let path = format!("/v2/images/{id}");
        world.call(OWNER, "PUT", &format!("{path}/stage"), &headers, Body::from("staged")).await.expect(204);
        let mut body = asked;
        body["method"] = json!({"name": "glance-direct"});
        world.send(OWNER, "POST", &format!("{path}/import"), body).await.expect(202);
        stored(&world, &id, stores).await;
        let tasks = world.get(OWNER, &format!("{path}/tasks")).await.expect(200).json();
        assert_eq!(tasks["tasks"][0]["status"], "success");
    }
    // From one image to another, into other stores.
    let source = world.raw_image(OWNER).await;
    world.upload(OWNER, &source, "the bytes").await.expect(204);
    let id = world.raw_image(OWNER).await;
    let method = json!({"name": "glance-download", "glance_region": "RegionOne", "glance_image_id": source});
    let body = json!({"method": method, "stores": ["third", "second"]});
    world.send(OWNER, "POST", &format!("/v2/images/{id}/import"), body).await.expect(202);
    stored(&world, &id, "second,third").await;
}

#[tokio::test]
async fn bytes_that_went_bad_are_not_copied() {
    let (world, _jobs) = three().await;
    let id = world.raw_image(OWNER).await;
    world.upload(OWNER, &id, "the bytes").await.expect(204);
    let file = world.files().pop().unwrap();
    std::fs::write(world.folder.join(&file), "the bites").unwrap();
    let body = json!({"method": {"name": "copy-image"}, "stores": ["second"]});
    world.send(ADMIN, "POST", &format!("/v2/images/{id}/import"), body).await.expect(202);
    wait_for("the failure", async || {
        let tasks = world.get(ADMIN, &format!("/v2/images/{id}/tasks")).await.expect(200).json();
        tasks["tasks"][0]["status"] == "failure"
    })
    .await;
    let view = world.show(&id).await;
    assert_eq!((&view["stores"], &view["os_glance_failed_import"]), (&json!("local"), &json!("second")));
    world.sweep().await;
    assert_eq!(files(&world), [1, 0, 0]);
}

/// The names that the bytes of a finished file have, the one by content among them.
fn names(folder: &std::path::Path, file: &str) -> u64 {
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata(folder.join(file)).unwrap().nlink()
}

/// The names by content.
fn contents(folder: &std::path::Path) -> Vec<std::path::PathBuf> {
    std::fs::read_dir(folder.join(".content")).unwrap().map(|entry| entry.unwrap().path()).collect()
}

#[tokio::test]
async fn the_same_bytes_are_kept_once_and_go_with_the_last_image_that_has_them() {
    let world = World::new().await;
    let [first, second] = [world.raw_image(OWNER).await, world.raw_image(OWNER).await];
    for id in [&first, &second] {
        world.upload(OWNER, id, "the same bytes").await.expect(204);
    }
    let files = world.files();
    assert_eq!((files.len(), names(&world.folder, &files[0]), names(&world.folder, &files[1])), (2, 3, 3), "{files:?}");
    let content = contents(&world.folder);
    assert_eq!(content.len(), 1);
    assert_eq!(content[0].file_name().unwrap().to_str(), world.show(&first).await["os_hash_value"].as_str());
    let usage = world.get(OWNER, "/v2/info/usage").await.expect(200).json();
    assert_eq!(usage["usage"]["image_count_total"]["usage"], 2, "a project pays for what it has");
    world.delete(OWNER, &format!("/v2/images/{first}")).await.expect(204);
    world.sweep().await;
    assert_eq!(world.get(OWNER, &format!("/v2/images/{second}/file")).await.expect(200).text(), "the same bytes");
    assert_eq!((world.files().len(), contents(&world.folder).len()), (1, 1));
    world.delete(OWNER, &format!("/v2/images/{second}")).await.expect(204);
    assert_eq!((world.files().len(), contents(&world.folder).len()), (0, 0), "without a sweep");
}

#[tokio::test]
async fn bytes_that_went_bad_are_found_on_demand_and_nobody_joins_them() {
    let (world, _jobs) = three().await;
    let [first, second] = [world.raw_image(OWNER).await, world.raw_image(OWNER).await];
    world.upload(OWNER, &first, "the bytes").await.expect(204);
    let bad = world.files().pop().unwrap();
    std::fs::write(world.folder.join(&bad), "THE BYTES").unwrap();
    let path = |id: &str, query: &str| format!("/v2/images/{id}/file{query}");
    assert_eq!(world.get(OWNER, &path(&first, "")).await.expect(200).text(), "THE BYTES", "nobody has asked");
    world.get(OWNER, &path(&first, "?verify=true")).await.refuses(503, "The image is damaged: the copy in 'local' has");
    world.get(OWNER, &path(&first, "?verify=perhaps")).await.refuses(400, "perhaps");
    world.upload(OWNER, &second, "the bytes").await.expect(204);
    assert_eq!(world.get(OWNER, &path(&second, "?verify=true")).await.expect(200).text(), "the bytes");
    let mut good = world.files();
    good.retain(|name| *name != bad);
    assert_eq!((names(&world.folder, &bad), names(&world.folder, &good[0])), (1, 2));

    let copy = json!({"method": {"name": "copy-image"}, "all_stores": true});
    world.send(ADMIN, "POST", &format!("/v2/images/{second}/import"), copy).await.expect(202);
    stored(&world, &second, "local,second,third").await;
    std::fs::write(world.folder.join(&good[0]), "THE BYTES").unwrap();
    assert_eq!(world.get(OWNER, &path(&second, "?verify=true")).await.expect(200).text(), "the bytes");
}

/// What a crash leaves between two steps: a name by content that nothing else has, and a transfer that joined one.
#[tokio::test]
async fn a_sweep_takes_names_by_content_that_no_image_has() {
    let world = World::new().await;
    let id = world.raw_image(OWNER).await;
    world.upload(OWNER, &id, "the bytes").await.expect(204);
    let content = world.folder.join(".content");
    std::fs::write(content.join("0".repeat(128)), "nobody's").unwrap();
    std::fs::hard_link(&contents(&world.folder)[0], world.folder.join("6a0d1f9e-8b1e-4c4f-9a55-0d6c0c1b7d01.dead")).unwrap();
    std::fs::write(world.folder.join(".upload-6a0d1f9e-8b1e-4c4f-9a55-0d6c0c1b7d01-dead"), "the bytes").unwrap();
    world.sweep().await;
    assert_eq!((world.files().len(), contents(&world.folder).len()), (1, 1));
    assert_eq!(world.get(OWNER, &format!("/v2/images/{id}/file?verify=true")).await.expect(200).text(), "the bytes");
}
