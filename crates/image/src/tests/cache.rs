//! The cache API: what is brought, what goes, and who may ask.

use super::*;
use crate::CacheOptions;
use serde_json::json;

async fn caching(most_bytes: u64) -> World {
    World::with(|options| {
        options.cache = Some(CacheOptions { folder: options.folder.with_file_name("cache"), most_bytes });
    })
    .await
}

async fn state(world: &World) -> Value {
    world.get(ADMIN, "/v2/cache").await.expect(200).json()
}

async fn ids(world: &World) -> Vec<String> {
    let state = state(world).await;
    let cached = state["cached_images"].as_array().unwrap().iter();
    cached.map(|entry| entry["image_id"].as_str().unwrap().to_owned()).collect()
}

async fn image_of(world: &World, bytes: &'static str) -> String {
    let id = world.raw_image(OWNER).await;
    world.upload(OWNER, &id, bytes).await.expect(204);
    id
}

/// Queued, and there.
async fn cached(world: &World, id: &str) {
    world.call(ADMIN, "PUT", &format!("/v2/cache/{id}"), &[], Body::empty()).await.expect(202);
    wait_for("the copy", async || state(world).await["queued_images"] == json!([])).await;
}

#[tokio::test]
async fn an_image_is_brought_used_and_removed() {
    let world = caching(1 << 20).await;
    let id = image_of(&world, "the bytes").await;
    cached(&world, &id).await;
    let state = state(&world).await;
    assert_eq!((&state["cached_images"][0]["size"], &state["cached_images"][0]["hits"]), (&json!(9), &json!(0)));
    // What is cached is read there.
    let copies = std::fs::read_dir(world.folder.with_file_name("cache")).unwrap();
    let copies: Vec<_> = copies.map(|copy| copy.unwrap().path()).collect();
    assert_eq!(copies.len(), 1);
    std::fs::write(&copies[0], "THE BYTES").unwrap();
    let path = format!("/v2/images/{id}/file");
    assert_eq!(world.get(OWNER, &path).await.expect(200).text(), "THE BYTES");
    assert_eq!(world.get(OWNER, &format!("{path}?verify=true")).await.expect(200).text(), "the bytes");
    let entry = world.get(ADMIN, "/v2/cache").await.expect(200).json()["cached_images"][0].clone();
    assert_eq!(entry["hits"], 1);
    assert!(entry["last_accessed"].as_f64() >= entry["last_modified"].as_f64());
    // Queued again, it stays what it is.
    world.call(ADMIN, "PUT", &format!("/v2/cache/{id}"), &[], Body::empty()).await.expect(202);
    world.delete(ADMIN, &format!("/v2/cache/{id}")).await.expect(204);
    world.delete(ADMIN, &format!("/v2/cache/{id}")).await.expect(204);
    assert_eq!(world.get(OWNER, &path).await.expect(200).text(), "the bytes");
    assert_eq!(ids(&world).await, [""; 0]);
}

#[tokio::test]
async fn a_deleted_image_leaves_the_cache() {
    let world = caching(1 << 20).await;
    let [kept, gone] = [image_of(&world, "kept").await, image_of(&world, "gone").await];
    cached(&world, &kept).await;
    cached(&world, &gone).await;
    world.delete(OWNER, &format!("/v2/images/{gone}")).await.expect(204);
    assert_eq!(ids(&world).await, [kept]);
    world.delete(ADMIN, &format!("/v2/cache/{gone}")).await.refuses(404, "not found");
    // One that went while nobody looked.
    let stray = "6a0d1f9e-8b1e-4c4f-9a55-0d6c0c1b7d01";
    let folder = world.folder.with_file_name("cache");
    std::fs::write(folder.join(format!("{stray}.0123456789abcdef")), "x").unwrap();
    std::fs::write(folder.join("not an image"), "x").unwrap();
    world.sweep().await;
    assert_eq!(ids(&world).await.len(), 1);
    assert!(folder.join("not an image").exists());
}

/// Whoever makes an image under the id of one that was deleted sees none of its bytes, even where nobody has swept.
#[tokio::test]
async fn an_image_of_the_same_id_is_another() {
    let world = caching(1 << 20).await;
    let id = image_of(&world, "the first").await;
    cached(&world, &id).await;
    let folder = world.folder.with_file_name("cache");
    let copy = std::fs::read_dir(&folder).unwrap().next().unwrap().unwrap();
    let (path, bytes) = (copy.path(), std::fs::read(copy.path()).unwrap());
    world.delete(OWNER, &format!("/v2/images/{id}")).await.expect(204);
    assert!(!path.exists());
    // A process that was away still has it.
    std::fs::write(&path, bytes).unwrap();
    let again = json!({"id": id, "disk_format": "raw", "container_format": "bare"});
    world.send(OTHER, "POST", "/v2/images", again).await.expect(201);
    world.upload(OTHER, &id, "the second").await.expect(204);
    assert_eq!(world.get(OTHER, &format!("/v2/images/{id}/file")).await.expect(200).text(), "the second");
    world.sweep().await;
    assert!(!path.exists());
}

#[tokio::test]
async fn what_is_used_least_lately_makes_room() {
    let world = caching(10).await;
    let first = image_of(&world, "1111").await;
    let second = image_of(&world, "2222").await;
    let third = image_of(&world, "3333").await;
    cached(&world, &first).await;
    cached(&world, &second).await;
    world.get(OWNER, &format!("/v2/images/{first}/file")).await.expect(200);
    cached(&world, &third).await;
    let mut now = ids(&world).await;
    now.sort();
    let mut left = vec![first, third];
    left.sort();
    assert_eq!(now, left);
    let large = image_of(&world, "eleven bytes").await;
    cached(&world, &large).await;
    assert!(!ids(&world).await.contains(&large));
    let pruned = world.call(ADMIN, "POST", "/v2/cache/prune", &[], Body::empty()).await.expect(200).json();
    assert_eq!(pruned, json!({"total_files_pruned": 0, "total_bytes_pruned": 0}));
    world.call(ADMIN, "POST", "/v2/cache/clean", &[], Body::empty()).await.expect(200);
}

#[tokio::test]
async fn a_damaged_copy_is_not_cached() {
    let world = caching(1 << 20).await;
    let id = image_of(&world, "the bytes").await;
    let file = world.files().pop().unwrap();
    std::fs::write(world.folder.join(&file), "the bites").unwrap();
    cached(&world, &id).await;
    assert_eq!(ids(&world).await, [""; 0]);
}

#[tokio::test]
async fn the_cache_is_the_administrators() {
    let world = caching(1 << 20).await;
    let id = image_of(&world, "the bytes").await;
    let queued = world.raw_image(OWNER).await;
    let put = async |who: &str, id: &str| world.call(who, "PUT", &format!("/v2/cache/{id}"), &[], Body::empty()).await;
    put(OWNER, &id).await.refuses(403, "cache_image");
    put(ADMIN, &queued).await.refuses(400, "Only images with status active");
    put(ADMIN, "none").await.expect(404);
    world.get(OWNER, "/v2/cache").await.refuses(403, "cache_list");
    world.get(ADMIN, &format!("/v2/cache/nodes/{id}")).await.refuses(409, "Centralized caching is not enabled");
    cached(&world, &id).await;
    let clear = async |target: &'static str| {
        world.call(ADMIN, "DELETE", "/v2/cache", &[("x-image-cache-clear-target", target)], Body::empty()).await
    };
    clear("both").await.refuses(400, "x-image-cache-clear-target");
    clear("queue").await.expect(204);
    assert_eq!(ids(&world).await, [id]);
    clear("CACHE").await.expect(204);
    assert_eq!(ids(&world).await, [""; 0]);
    world.delete(ADMIN, "/v2/cache").await.expect(204);
}
