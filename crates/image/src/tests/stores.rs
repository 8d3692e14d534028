//! Several stores: uploads to one, copies to others, and what is left when a copy goes bad.

use super::*;
use engine::Jobs;
use serde_json::json;

/// A world with a second and a third store, whose jobs are worked on.
async fn three() -> (World, engine::Handle) {
    let world = World::with(|options| {
        let beside = options.folder.parent().unwrap().to_owned();
        options.stores = ["second", "third"].map(|id| (id.to_owned(), beside.join(id))).into();
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
        std::fs::read_dir(folder).unwrap().count()
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
