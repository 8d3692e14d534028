//! Bytes that are fetched: by a job, from what a user points to.

use super::*;
use crate::web::{Fetched, Rules, Web};
use engine::Jobs;
use serde_json::json;
use sha2::{Digest, Sha256};

const BYTES: &str = "what lies behind the URL";

/// The network outside.
struct Outside;

#[async_trait]
impl Web for Outside {
    async fn get(&self, url: &str, rules: &Rules) -> Result<Fetched> {
        let url = rules.check("URI", url)?;
        match url.path() {
            "/good" => Ok(Fetched { size_bytes: Some(BYTES.len() as u64), body: BYTES.into() }),
            "/broken" => Ok(Fetched { size_bytes: None, body: data::stream(BYTES.as_bytes(), 5, true) }),
            "/endless" => Ok(Fetched { size_bytes: None, body: Body::from(vec![1; 3 << 20]) }),
            _ => Err(Fault::not_found(format!("{url} answers 404 Not Found."))),
        }
    }
}

/// A world whose jobs are worked on.
async fn working() -> (World, engine::Handle) {
    let world = World::with(|options| {
        options.web = Arc::new(Outside);
        options.size_limit_bytes = 2 << 20;
    })
    .await;
    let work: Arc<dyn engine::Work> = Arc::new(crate::ImportWork(world.service.clone()));
    let jobs = Jobs::new(world.store.clone(), Env::system(), true, vec![work]);
    let handle = engine::run(&world.store, &Env::system(), vec![Arc::new(jobs)]);
    (world, handle)
}

/// The image's only task, once it has ended.
async fn ended(world: &World, id: &str) -> Value {
    let mut found = Value::Null;
    wait_for("the end of the task", async || {
        let tasks = world.get(ADMIN, &format!("/v2/images/{id}/tasks")).await.expect(200).json();
        found = tasks["tasks"][0].clone();
        found["status"] == "success" || found["status"] == "failure"
    })
    .await;
    found
}

fn download(uri: &str) -> Value {
    json!({"method": {"name": "web-download", "uri": uri}})
}

#[tokio::test]
async fn what_lies_behind_a_url_becomes_the_images_own() {
    let (world, _jobs) = working().await;
    let id = world.raw_image(OWNER).await;
    let path = format!("/v2/images/{id}");
    world.send(OWNER, "POST", &format!("{path}/import"), download("http://mirror.example/good")).await.expect(202);
    let task = ended(&world, &id).await;
    assert_eq!((&task["status"], &task["type"]), (&json!("success"), &json!("api_image_import")));
    assert_eq!((&task["owner"], &task["user_id"]), (&json!("red"), &json!("alice")));
    assert_eq!(task["result"], json!({"image_id": id}));
    let view = world.show(&id).await;
    assert_eq!((&view["status"], &view["stores"]), (&json!("active"), &json!("local")));
    assert_eq!(view.get("os_glance_import_task"), None);
    assert_eq!(world.get(OWNER, &format!("{path}/file")).await.expect(200).text(), BYTES);
    world
        .send(OWNER, "POST", &format!("{path}/import"), download("http://mirror.example/good"))
        .await
        .refuses(409, "active");
    let shown = world.get(ADMIN, &format!("/v2/tasks/{}", task["id"].as_str().unwrap())).await.expect(200).json();
    assert_eq!(shown["id"], task["id"]);
    world.delete(OWNER, &path).await.expect(204);
    world.get(ADMIN, &format!("/v2/tasks/{}", task["id"].as_str().unwrap())).await.expect(404);
}

#[tokio::test]
async fn an_import_that_comes_to_nothing_leaves_a_queued_image() {
    let (world, _jobs) = working().await;
    for (uri, because) in [("http://mirror.example/none", "404"), ("http://mirror.example/endless", "too large")] {
        let id = world.raw_image(OWNER).await;
        world.send(OWNER, "POST", &format!("/v2/images/{id}/import"), download(uri)).await.expect(202);
        let task = ended(&world, &id).await;
        assert_eq!(task["status"], "failure");
        assert!(task["message"].as_str().unwrap().contains(because), "{task}");
        let view = world.show(&id).await;
        assert_eq!((&view["status"], &view["size"]), (&json!("queued"), &Value::Null));
        world.sweep().await;
        assert_eq!(world.files(), Vec::<String>::new());
        world
            .send(OWNER, "POST", &format!("/v2/images/{id}/import"), download("http://mirror.example/good"))
            .await
            .expect(202);
        wait_for("the bytes", async || world.show(&id).await["status"] == "active").await;
        world.delete(OWNER, &format!("/v2/images/{id}")).await.expect(204);
    }
    let usage = world.get(OWNER, "/v2/info/usage").await.expect(200).json();
    assert_eq!(usage["usage"]["image_count_uploading"]["usage"], 0);
}

#[tokio::test]
async fn nobody_may_point_inside() {
    let world = World::new().await;
    let id = world.raw_image(OWNER).await;
    for uri in [
        "http://127.0.0.1/x",
        "http://169.254.169.254/latest/meta-data",
        "file:///etc/passwd",
        "http://[::1]/",
        "ftp://x/",
    ] {
        world
            .send(OWNER, "POST", &format!("/v2/images/{id}/import"), download(uri))
            .await
            .refuses(400, "does not pass filtering");
        let location = json!({"url": uri});
        world
            .send(OWNER, "POST", &format!("/v2/images/{id}/locations"), location)
            .await
            .refuses(400, "does not pass filtering");
        let task = json!({"type": "import", "input": {"import_from": uri, "import_from_format": "raw", "image_properties": {}}});
        world.send(ADMIN, "POST", "/v2/tasks", task).await.refuses(400, "does not pass filtering");
    }
    world
        .send(OWNER, "POST", &format!("/v2/images/{id}/import"), json!({"method": {"name": "web-download"}}))
        .await
        .expect(400);
    assert_eq!(world.show(&id).await["status"], "queued");
    let good = "http://mirror.example/good";
    for (extra, status, because) in [
        (json!({"stores": ["local"], "all_stores": true}), 400, "not allowed when"),
        (json!({"stores": ["other"]}), 409, "There is no store"),
        (json!({"stores": "local"}), 400, "must be a list"),
        (json!({"all_stores": "yes"}), 400, "must be boolean"),
        (json!({"all_stores_must_succeed": 1}), 400, "must be boolean"),
    ] {
        let mut body = download(good);
        for (name, value) in extra.as_object().unwrap() {
            body[name] = value.clone();
        }
        world.send(OWNER, "POST", &format!("/v2/images/{id}/import"), body).await.refuses(status, because);
    }
    // While a job is to bring the bytes, nobody else may.
    world.send(OWNER, "POST", &format!("/v2/images/{id}/import"), download(good)).await.expect(202);
    let view = world.show(&id).await;
    assert_eq!((&view["status"], &view["os_glance_importing_to_stores"]), (&json!("importing"), &json!("local")));
    world.upload(OWNER, &id, "mine").await.refuses(409, "from importing to saving");
    world
        .send(OWNER, "POST", &format!("/v2/images/{id}/import"), download(good))
        .await
        .refuses(409, "still in progress");
    let direct = json!({"method": {"name": "glance-direct"}});
    world.send(OWNER, "POST", &format!("/v2/images/{id}/import"), direct).await.refuses(409, "still in progress");
}

#[tokio::test]
async fn a_location_is_fetched_and_held_to_its_promise() {
    let (world, _jobs) = working().await;
    let url = "http://mirror.example/good";
    let sha256: String = Sha256::digest(BYTES).iter().map(|byte| format!("{byte:02x}")).collect();
    let id = world.raw_image(OWNER).await;
    let path = format!("/v2/images/{id}/locations");
    for (data, because) in [
        (json!({"os_hash_algo": "sha512", "os_hash_value": "abcd"}), "is not the 128 hex digits"),
        (json!({"os_hash_value": sha256}), "'os_hash_algo' is a required"),
        (json!({"os_hash_algo": "sha123", "os_hash_value": sha256}), "'sha123' is not one of"),
        (json!({"os_hash_algo": "sha256", "os_hash_value": "x".repeat(64)}), "is not the 64 hex digits"),
        (json!("abc"), "is not of type 'object'"),
    ] {
        world.send(OWNER, "POST", &path, json!({"url": url, "validation_data": data})).await.refuses(400, because);
    }
    world.send(OWNER, "POST", &path, json!({})).await.refuses(400, "needs a 'url'");
    world.send(OWNER, "POST", &path, json!({"url": url, "store": "x"})).await.refuses(400, "has no field 'store'");
    world.send(OTHER, "POST", &path, json!({"url": url})).await.expect(404);
    let promise = json!({"os_hash_algo": "sha256", "os_hash_value": sha256.to_uppercase()});
    world.send(OWNER, "POST", &path, json!({"url": url, "validation_data": promise})).await.expect(202);
    assert_eq!(ended(&world, &id).await["status"], "success");
    let view = world.show(&id).await;
    assert_eq!((&view["os_hash_algo"], &view["os_hash_value"]), (&json!("sha256"), &json!(sha256)));
    assert_eq!(world.get(ADMIN, &path).await.expect(200).json(), json!([{"url": url, "metadata": {"store": "web"}}]));
    assert_eq!(view["stores"], "web");
    world.get(OWNER, &path).await.refuses(403, "fetch_image_location");
    world.send(OWNER, "POST", &path, json!({"url": url})).await.refuses(409, "if image status is active");
    let wrong = world.raw_image(OWNER).await;
    let promise = json!({"os_hash_algo": "sha512", "os_hash_value": "beefdead".repeat(16)});
    let location = json!({"url": url, "validation_data": promise});
    world.send(OWNER, "POST", &format!("/v2/images/{wrong}/locations"), location).await.expect(202);
    let task = ended(&world, &wrong).await;
    assert_eq!((&task["status"], &task["type"]), (&json!("failure"), &json!("location_import")));
    assert!(task["message"].as_str().unwrap().contains("was promised"), "{task}");
    let view = world.show(&wrong).await;
    assert_eq!((&view["status"], &view["os_hash_algo"], &view["stores"]), (&json!("queued"), &Value::Null, &json!("web")));
    let tried = world.get(ADMIN, &format!("/v2/images/{wrong}/locations")).await.expect(200).json();
    assert_eq!(tried, json!([{"url": url, "metadata": {"store": "web"}}]));
    // A promise of nothing.
    let location = json!({"url": url, "validation_data": {}});
    world.send(OWNER, "POST", &format!("/v2/images/{wrong}/locations"), location).await.expect(202);
    wait_for("the bytes", async || world.show(&wrong).await["status"] == "active").await;
    assert_eq!(world.show(&wrong).await["os_hash_algo"], "sha512");
    // Bytes that come another way are no longer those of the location.
    let other = world.raw_image(OWNER).await;
    let promise = json!({"os_hash_algo": "sha512", "os_hash_value": "beefdead".repeat(16)});
    let location = json!({"url": url, "validation_data": promise});
    world.send(OWNER, "POST", &format!("/v2/images/{other}/locations"), location).await.expect(202);
    assert_eq!(ended(&world, &other).await["status"], "failure");
    world.upload(OWNER, &other, "bytes").await.expect(204);
    assert_eq!(world.show(&other).await["stores"], "local");
    let uploaded = world.raw_image(OWNER).await;
    world.upload(OWNER, &uploaded, "bytes").await.expect(204);
    let own = world.get(ADMIN, &format!("/v2/images/{uploaded}/locations")).await.expect(200).json();
    assert!(own[0]["url"].as_str().unwrap().starts_with("nubo:sha512:"), "{own}");
}

#[tokio::test]
async fn an_image_of_this_cloud_is_taken_over_with_what_describes_it() {
    let (world, _jobs) = working().await;
    let source = json!({"disk_format": "raw", "container_format": "bare", "hw_cpu_cores": "5", "os_distro": "debian", "speed": "x"});
    let source = world.image(OWNER, source).await;
    world.upload(OWNER, &source, "the bytes").await.expect(204);
    let with = |image: &str, region: &str| json!({"method": {"name": "glance-download", "glance_region": region, "glance_image_id": image}});
    let target = json!({"disk_format": "iso", "container_format": "ovf", "os_distro": "windows"});
    let id = world.image(OWNER, target.clone()).await;
    let path = format!("/v2/images/{id}/import");
    world.send(OWNER, "POST", &path, with("foo", "RegionOne")).await.refuses(400, "image id does not look like a UUID");
    let nameless = json!({"method": {"name": "glance-download", "glance_image_id": source}});
    world.send(OWNER, "POST", &path, nameless).await.refuses(400, "'glance_region' needs to be set");
    world.send(OWNER, "POST", &path, with(&source, "RegionOne")).await.expect(202);
    assert_eq!(ended(&world, &id).await["status"], "success");
    let view = world.show(&id).await;
    assert_eq!((&view["disk_format"], &view["container_format"]), (&json!("raw"), &json!("bare")));
    assert_eq!((&view["hw_cpu_cores"], &view["os_distro"]), (&json!("5"), &json!("debian")));
    assert_eq!((view.get("speed"), &view["size"]), (None, &json!(9)));
    // Of another cloud, of another project, of nobody: the task says so, and the image is as it was.
    let foreign = world.raw_image(OTHER).await;
    world.upload(OTHER, &foreign, "secret").await.expect(204);
    for (image, region) in [
        (source.as_str(), "elsewhere"),
        (foreign.as_str(), "RegionOne"),
        ("36d4b546-64a2-4bb9-bdd0-ba676aa48f2c", "RegionOne"),
    ] {
        let id = world.image(OWNER, target.clone()).await;
        world.send(OWNER, "POST", &format!("/v2/images/{id}/import"), with(image, region)).await.expect(202);
        assert_eq!(ended(&world, &id).await["status"], "failure");
        let view = world.show(&id).await;
        assert_eq!((&view["status"], &view["os_distro"]), (&json!("queued"), &json!("windows")));
    }
}

#[tokio::test]
async fn a_task_makes_an_image_for_administrators() {
    let (world, _jobs) = working().await;
    let input = json!({
        "import_from": "http://mirror.example/good",
        "import_from_format": "raw",
        "image_properties": {"name": "fetched", "container_format": "bare"},
    });
    let body = json!({"type": "import", "input": input});
    world.send(OWNER, "POST", "/v2/tasks", body.clone()).await.refuses(403, "tasks_api_access");
    world.get(OWNER, "/v2/tasks").await.refuses(403, "tasks_api_access");
    for (wrong, because) in [
        (json!({"type": "import"}), "'input' is required"),
        (json!({"type": "export", "input": {}}), "is 'import'"),
        (json!({"type": "import", "input": {"import_from": "http://x.example/"}}), "'import_from_format'"),
    ] {
        world.send(ADMIN, "POST", "/v2/tasks", wrong).await.refuses(400, because);
    }
    let task = world.send(ADMIN, "POST", "/v2/tasks", body).await.expect(201);
    let task = (task.header("location").to_owned(), task.json());
    assert_eq!(task.0, format!("/v2/tasks/{}", task.1["id"].as_str().unwrap()));
    assert_eq!(task.1["status"], "pending");
    let id = task.1["image_id"].as_str().unwrap().to_owned();
    assert_eq!(ended(&world, &id).await["status"], "success");
    let view = world.show(&id).await;
    assert_eq!(
        (&view["name"], &view["status"], &view["disk_format"]),
        (&json!("fetched"), &json!("active"), &json!("raw"))
    );
    let listed = world.get(ADMIN, "/v2/tasks?type=import&status=success&sort_dir=asc&limit=1").await.expect(200).json();
    assert_eq!(listed["tasks"][0]["id"], task.1["id"]);
    assert_eq!(listed["tasks"][0].get("input"), None);
    for query in ["type=x", "status=x", "sort_dir=x", "sort_key=x", "limit=-1", "limit=x", "marker=x"] {
        world.get(ADMIN, &format!("/v2/tasks?{query}")).await.expect(400);
    }
    world.delete(ADMIN, &task.0).await.refuses(405, "goes with its image");
}

#[tokio::test]
async fn an_image_that_came_back_without_its_import_is_queued_again() {
    let world = World::new().await;
    let id = world.raw_image(OWNER).await;
    let import = download("http://mirror.example/good");
    world.send(OWNER, "POST", &format!("/v2/images/{id}/import"), import).await.expect(202);
    world.sweep().await;
    assert_eq!(world.show(&id).await["status"], "importing");
    let gone = world.store.write(store::Cause::new("test", "", "test"), |tx| {
        for job in tx.list::<engine::job::Job>(store::Query::all())? {
            tx.delete::<engine::job::Job>(store::Document::id(&job.doc))?;
        }
        Ok(())
    });
    gone.await.unwrap();
    world.sweep().await;
    let view = world.show(&id).await;
    assert_eq!((&view["status"], view.get("os_glance_import_task")), (&json!("queued"), None));
    world.upload(OWNER, &id, "mine").await.expect(204);
}
