//! Images as clients see them: create, list, patch, tags, delete.

use super::*;
use expect_test::expect;
use serde_json::json;

#[tokio::test]
async fn a_new_image_has_glances_shape() {
    let world = World::new().await;
    let body = json!({
        "id": "6a0d1f9e-8b1e-4c4f-9a55-0d6c0c1b7d01", "name": "tiny", "disk_format": "qcow2", "container_format": "bare",
        "min_disk": 1, "tags": ["b", "a"], "hw_disk_bus": "virtio",
    });
    let created = world.send(OWNER, "POST", "/v2/images", body).await.expect(201);
    assert_eq!(created.header("location"), "http://cloud/image/v2/images/6a0d1f9e-8b1e-4c4f-9a55-0d6c0c1b7d01");
    assert_eq!(created.header("openstack-image-import-methods"), "glance-direct,web-download,glance-download");
    let mut view = created.json();
    for time in ["created_at", "updated_at"] {
        assert!(view[time].as_str().unwrap().ends_with('Z'));
        view[time] = json!("…");
    }
    expect![[r#"
        {
          "checksum": null,
          "container_format": "bare",
          "created_at": "…",
          "disk_format": "qcow2",
          "file": "/v2/images/6a0d1f9e-8b1e-4c4f-9a55-0d6c0c1b7d01/file",
          "hw_disk_bus": "virtio",
          "id": "6a0d1f9e-8b1e-4c4f-9a55-0d6c0c1b7d01",
          "min_disk": 1,
          "min_ram": 0,
          "name": "tiny",
          "os_hash_algo": null,
          "os_hash_value": null,
          "os_hidden": false,
          "owner": "red",
          "protected": false,
          "schema": "/v2/schemas/image",
          "self": "/v2/images/6a0d1f9e-8b1e-4c4f-9a55-0d6c0c1b7d01",
          "size": null,
          "status": "queued",
          "tags": [
            "a",
            "b"
          ],
          "updated_at": "…",
          "virtual_size": null,
          "visibility": "shared"
        }"#]]
    .assert_eq(&serde_json::to_string_pretty(&view).unwrap());
    let again = json!({"id": "6a0d1f9e-8b1e-4c4f-9a55-0d6c0c1b7d01"});
    world.send(OWNER, "POST", "/v2/images", again).await.refuses(409, "already exists");
}

#[tokio::test]
async fn what_a_create_may_not_say_is_refused() {
    let world = World::new().await;
    let cases = [
        (json!({"disk_format": "floppy"}), 400, "is not one of"),
        (json!({"container_format": 7}), 400, "is not one of"),
        (json!({"name": "x".repeat(256)}), 400, "too long"),
        (json!({"name": {"a": 1}}), 400, "is not of type"),
        (json!({"min_disk": "1"}), 400, "is not of type 'integer'"),
        (json!({"min_ram": -1}), 400, "must lie between 0"),
        (json!({"visibility": "secret"}), 400, "is not one of"),
        (json!({"protected": "yes"}), 400, "is not of type 'boolean'"),
        (json!({"tags": "one"}), 400, "is not of type 'array'"),
        (json!({"tags": ["x".repeat(256)]}), 400, "too long"),
        (json!({"id": "not-a-uuid"}), 400, "is not a UUID"),
        (json!({"property": 7}), 400, "is not of type 'string'"),
        (json!({"x".repeat(256): "v"}), 400, "255 characters"),
        (json!({"status": "active"}), 403, "read-only"),
        (json!({"checksum": "0"}), 403, "read-only"),
        (json!({"deleted": "x"}), 403, "reserved"),
        (json!({"os_glance_x": "x"}), 403, "reserved"),
        (json!({"visibility": "public"}), 403, "publicize_image"),
        (json!({"owner": "blue"}), 403, "not permitted to create images owned by 'blue'"),
        (json!([]), 400, ""),
    ];
    for (body, status, because) in cases {
        world.send(OWNER, "POST", "/v2/images", body).await.refuses(status, because);
    }
    let many: serde_json::Map<_, _> = (0..129).map(|n| (format!("p{n}"), json!("v"))).collect();
    world.send(OWNER, "POST", "/v2/images", Value::Object(many)).await.refuses(413, "Maximum: 128");
    world.send(READER, "POST", "/v2/images", json!({})).await.refuses(403, "add_image");
    world.send("", "POST", "/v2/images", json!({})).await.expect(401);
    let foreign = world.image(ADMIN, json!({"owner": "blue", "visibility": "public"})).await;
    assert_eq!(world.show(&foreign).await["owner"], "blue");
}

#[tokio::test]
async fn lists_show_what_a_project_may_see() {
    let world = World::new().await;
    for (token, name, visibility) in [
        (OWNER, "own-private", "private"),
        (OTHER, "other-private", "private"),
        (OTHER, "other-shared", "shared"),
        (OTHER, "other-community", "community"),
        (OWNER, "own-community", "community"),
        (ADMIN, "public", "public"),
    ] {
        world.image(token, json!({"name": name, "visibility": visibility})).await;
    }
    let offered = world.image(OTHER, json!({"name": "offered"})).await;
    world.send(OTHER, "POST", &format!("/v2/images/{offered}/members"), json!({"member": "red"})).await.expect(200);
    let accepted = world.image(OTHER, json!({"name": "accepted"})).await;
    let members = format!("/v2/images/{accepted}/members");
    world.send(OTHER, "POST", &members, json!({"member": "red"})).await.expect(200);
    world.send(OWNER, "PUT", &format!("{members}/red"), json!({"status": "accepted"})).await.expect(200);
    for (token, query, names) in [
        (OWNER, "sort=name:asc", "accepted own-community own-private public"),
        (OWNER, "sort=name:asc&visibility=community", "other-community own-community"),
        (OWNER, "sort=name:asc&visibility=all", "accepted other-community own-community own-private public"),
        (OWNER, "sort=name:asc&member_status=pending", "offered own-community own-private public"),
        (OWNER, "sort=name:asc&member_status=all&visibility=shared", "accepted offered"),
        (READER, "sort=name:asc&owner=red", "own-community own-private"),
        (ADMIN, "sort=name:asc&visibility=private", "other-private own-private"),
        (ADMIN, "sort=name:asc", "accepted offered other-private other-shared own-private public"),
    ] {
        let listed = world.get(token, &format!("/v2/images?{query}")).await.expect(200).json();
        assert_eq!(names_of(&listed), names, "{token} {query}");
    }
}

fn names_of(listed: &Value) -> String {
    let images = listed["images"].as_array().unwrap();
    images.iter().map(|image| image["name"].as_str().unwrap_or("-")).collect::<Vec<_>>().join(" ")
}

#[tokio::test]
async fn filters_and_orders_are_glances() {
    let world = World::new().await;
    for (name, extra) in [
        ("a", json!({"disk_format": "raw", "container_format": "bare", "tags": ["x", "y"], "min_ram": 64})),
        ("b", json!({"disk_format": "qcow2", "tags": ["x"], "protected": true})),
        ("c,d", json!({"disk_format": "raw", "os_hidden": true})),
        ("e", json!({"disk_format": "vdi", "os_version": "12"})),
    ] {
        let mut body = json!({"name": name});
        body.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        let id = world.image(OWNER, body).await;
        if name == "a" {
            world.upload(OWNER, &id, "0123456789").await.expect(204);
        }
    }
    for (query, names) in [
        ("", "e b a"),
        ("sort_key=name&sort_dir=asc", "a b e"),
        ("sort=disk_format:asc,name:desc", "b a e"),
        ("name=a", "a"),
        ("name=in:a,b", "b a"),
        ("name=in:%22c,d%22,a&os_hidden=true", "c,d"),
        ("os_hidden=True", "c,d"),
        ("status=active", "a"),
        ("status=in:active,queued&disk_format=in:vdi,raw", "e a"),
        ("tag=x", "b a"),
        ("tag=x&tag=y", "a"),
        ("protected=true", "b"),
        ("size_min=10&size_max=10", "a"),
        ("size_min=11", ""),
        ("min_ram_min=1", "a"),
        ("os_version=12", "e"),
        ("os_version=13", ""),
        ("container_format=bare", "a"),
        ("created_at=gt:2020-01-01T00:00:00Z", "e b a"),
        ("updated_at=lt:2020-01-01T00:00:00Z", ""),
        ("created_at=2020-01-01T00:00:00Z", ""),
        ("limit=0", ""),
    ] {
        let listed = world.get(OWNER, &format!("/v2/images?{query}")).await.expect(200).json();
        assert_eq!(names_of(&listed), names, "{query}");
    }
    for (query, because) in [
        ("limit=x", "must be an integer"),
        ("limit=-1", "must be positive"),
        ("sort_key=owner", "Invalid sort key"),
        ("sort=name:up", "Invalid sort direction"),
        ("sort=name&sort_key=id", "cannot be combined"),
        ("sort_key=id&sort_dir=asc&sort_dir=desc&sort_key=name&sort_key=size", "does not match"),
        ("visibility=some", "Invalid visibility"),
        ("member_status=some", "Invalid status"),
        ("protected=yes", "Valid values"),
        ("os_hidden=yes", "Valid values"),
        ("size_min=big", "non-numeric"),
        ("name=like:a", "unknown operator"),
        ("created_at=gt:yesterday", "ISO 8601"),
        ("created_at=about:2020-01-01T00:00:00Z", "unknown operator"),
        ("changes-since=2020-01-01", "no longer available"),
        ("marker=nothing", "No image found"),
    ] {
        world.get(OWNER, &format!("/v2/images?{query}")).await.refuses(400, because);
    }
}

#[tokio::test]
async fn pages_cover_the_list_once_in_every_order() {
    let world = World::new().await;
    for n in 0..30 {
        world.image(OWNER, json!({"name": format!("n{}", n % 4)})).await;
    }
    for order in ["", "&sort=name:asc", "&sort=name:desc,id:asc", "&sort_key=updated_at&sort_dir=asc"] {
        let mut path = format!("/v2/images?limit=7{order}");
        let mut seen = std::collections::BTreeSet::new();
        let mut pages = 0;
        loop {
            let page = world.get(OWNER, &path).await.expect(200).json();
            assert!(page["first"].as_str().unwrap().starts_with("/v2/images?limit=7"));
            for image in page["images"].as_array().unwrap() {
                assert!(seen.insert(image["id"].as_str().unwrap().to_owned()), "twice in {order}");
            }
            pages += 1;
            let Some(next) = page["next"].as_str() else { break };
            path = next.to_owned();
        }
        assert_eq!((seen.len(), pages), (30, 5), "{order}");
    }
    let usual = world.get(OWNER, "/v2/images").await.json();
    assert_eq!(usual["images"].as_array().unwrap().len(), 25);
    assert_eq!(usual["first"], "/v2/images");
}

/// The order of creation is read page by page; with a second key, all is read and sorted.
#[tokio::test]
async fn the_order_of_creation_is_the_same_however_it_is_read() {
    let world = World::new().await;
    for n in 0..40 {
        let (owner, visibility) = match n % 8 {
            0 => (ADMIN, "public"),
            1 => (OTHER, "community"),
            2 => (OWNER, "community"),
            3 | 4 => (OTHER, "shared"),
            5 => (OTHER, "private"),
            _ => (OWNER, "private"),
        };
        let image = json!({"name": format!("n{n}"), "visibility": visibility, "tags": [format!("t{}", n % 3)]});
        let id = world.image(owner, image).await;
        if n % 8 == 3 || n % 16 == 4 {
            let members = format!("/v2/images/{id}/members");
            world.send(OTHER, "POST", &members, json!({"member": "red"})).await.expect(200);
            if n % 16 == 3 {
                let accept = json!({"status": "accepted"});
                world.send(OWNER, "PUT", &format!("{members}/red"), accept).await.expect(200);
            }
        }
    }
    let all = async |who: &str, query: &str| {
        let (mut path, mut names) = (format!("/v2/images?{query}"), Vec::new());
        loop {
            let page = world.get(who, &path).await.expect(200).json();
            let images = page["images"].as_array().unwrap().iter();
            names.extend(images.map(|image| image["name"].as_str().unwrap().to_owned()));
            let Some(next) = page["next"].as_str() else { return names };
            path = next.to_owned();
        }
    };
    for who in [OWNER, OTHER, ADMIN, "carl:green:member"] {
        for filter in ["", "&visibility=shared&member_status=all", "&visibility=all", "&tag=t1", "&visibility=community"] {
            for dir in ["asc", "desc"] {
                let sorted = all(who, &format!("limit=100&sort=created_at:{dir},id:{dir}{filter}")).await;
                assert!(!sorted.is_empty() || filter.contains("shared"), "{who} {filter}");
                for limit in [1, 3, 7, 100] {
                    let read = all(who, &format!("limit={limit}&sort=created_at:{dir}{filter}")).await;
                    assert_eq!(read, sorted, "{who} {filter} {dir} {limit}");
                }
            }
        }
    }
    let hidden = world.image(OTHER, json!({"name": "hidden"})).await;
    world.get(OWNER, &format!("/v2/images?marker={hidden}")).await.refuses(400, "No image found");
    assert_eq!(world.get(OWNER, "/v2/images?limit=0").await.expect(200).json()["images"], json!([]));
}

#[tokio::test]
async fn patches_follow_glances_rules() {
    let world = World::new().await;
    let id = world.image(OWNER, json!({"name": "a", "kept": "1"})).await;
    let patch = json!([
        {"op": "replace", "path": "/name", "value": "b"},
        {"op": "add", "path": "/new~1slash", "value": "v"},
        {"op": "replace", "path": "/kept", "value": "2"},
        {"op": "add", "path": "/tags", "value": ["t"]},
        {"op": "replace", "path": "/disk_format", "value": "raw"},
        {"op": "add", "path": "/container_format", "value": "bare"},
        {"op": "replace", "path": "/visibility", "value": "private"},
    ]);
    let view = world.patch(OWNER, &id, patch).await.expect(200).json();
    assert_eq!(
        (&view["name"], &view["new/slash"], &view["kept"], &view["tags"], &view["visibility"]),
        (&json!("b"), &json!("v"), &json!("2"), &json!(["t"]), &json!("private"))
    );
    let removed = world.patch(OWNER, &id, json!([{"op": "remove", "path": "/kept"}])).await.expect(200).json();
    assert_eq!(removed.get("kept"), None);
    assert_eq!(world.patch(OWNER, &id, json!([])).await.expect(200).json()["name"], "b");
    let op = |op: &str, path: &str, value: Value| json!([{"op": op, "path": path, "value": value}]);
    for (patch, status, because) in [
        (json!({"op": "add"}), 400, "must be a JSON array"),
        (json!(["x"]), 400, "must be JSON objects"),
        (json!([{"path": "/name"}]), 400, "Unable to find `op`"),
        (json!([{"op": "add"}]), 400, "Unable to find 'path'"),
        (json!([{"op": "add", "path": "/x"}]), 400, "requires a member named \"value\""),
        (op("move", "/name", json!("x")), 400, "Invalid operation"),
        (op("replace", "name", json!("x")), 400, "does not start with"),
        (op("replace", "/name/", json!("x")), 400, "end with"),
        (op("replace", "/a//b", json!("x")), 400, "adjacent"),
        (op("replace", "/a~2", json!("x")), 400, "escape"),
        (op("add", "/tags/0", json!("x")), 400, "Invalid JSON pointer"),
        (op("replace", "/missing", json!("x")), 409, "does not exist"),
        (json!([{"op": "remove", "path": "/missing"}]), 409, "does not exist"),
        (json!([{"op": "remove", "path": "/name"}]), 403, "may not be removed"),
        (op("replace", "/status", json!("active")), 403, "read-only"),
        (op("replace", "/size", json!(1)), 403, "read-only"),
        (op("add", "/deleted", json!("x")), 403, "reserved"),
        (op("add", "/locations/-", json!({})), 403, "locations"),
        (op("replace", "/visibility", json!("public")), 403, "publicize_image"),
        (op("replace", "/owner", json!("blue")), 403, "non admin"),
        (op("replace", "/min_disk", json!(1.5)), 400, "is not of type 'integer'"),
        (op("add", "/new", json!(["x"])), 400, "is not of type 'string'"),
    ] {
        world.patch(OWNER, &id, patch).await.refuses(status, because);
    }
    let headers = [("content-type", "application/json")];
    let path = format!("/v2/images/{id}");
    world.call(OWNER, "PATCH", &path, &headers, Body::from("[]")).await.refuses(415, "expects Content-Type");
    let headers = [("content-type", "application/openstack-images-v2.0-json-patch")];
    let old = |body: Value| Body::from(body.to_string());
    let replaced = old(json!([{"replace": "/name", "value": "c"}, {"add": "/old", "value": "1"}]));
    assert_eq!(world.call(OWNER, "PATCH", &path, &headers, replaced).await.expect(200).json()["name"], "c");
    let twice = old(json!([{"add": "/old", "value": "1"}]));
    world.call(OWNER, "PATCH", &path, &headers, twice).await.refuses(409, "already present");
    let both = old(json!([{"add": "/x", "replace": "/y", "value": "1"}]));
    world.call(OWNER, "PATCH", &path, &headers, both).await.refuses(400, "exactly one member");
    // A patch is all or nothing.
    let half = json!([{"op": "replace", "path": "/name", "value": "half"}, {"op": "remove", "path": "/missing"}]);
    world.patch(OWNER, &id, half).await.expect(409);
    assert_eq!(world.show(&id).await["name"], "c");
    world.upload(OWNER, &id, "bytes").await.expect(204);
    world.patch(OWNER, &id, op("replace", "/disk_format", json!("qcow2"))).await.refuses(403, "queued image");
}

#[tokio::test]
async fn images_of_others_do_not_exist_and_public_ones_cannot_be_changed() {
    let world = World::new().await;
    let private = world.raw_image(OWNER).await;
    let path = format!("/v2/images/{private}");
    world.get(OTHER, &path).await.refuses(404, "No image found");
    world.delete(OTHER, &path).await.expect(404);
    world.patch(OTHER, &private, json!([])).await.expect(404);
    world.upload(OTHER, &private, "x").await.expect(404);
    for method_path in ["/file", "/members", "/tasks"] {
        world.get(OTHER, &format!("{path}{method_path}")).await.expect(404);
    }
    world.call(OTHER, "PUT", &format!("{path}/tags/t"), &[], Body::empty()).await.expect(404);
    world.send(OTHER, "POST", &format!("{path}/actions/deactivate"), json!({})).await.expect(404);
    let public = world.image(ADMIN, json!({"visibility": "public", "name": "p"})).await;
    let path = format!("/v2/images/{public}");
    world.get(OTHER, &path).await.expect(200);
    world.delete(OTHER, &path).await.refuses(403, "delete_image");
    world.patch(OTHER, &public, json!([])).await.refuses(403, "modify_image");
    world.upload(OTHER, &public, "x").await.refuses(403, "upload_image");
    world.delete(READER, &format!("/v2/images/{private}")).await.refuses(403, "delete_image");
    world.get(OTHER, "/v2/images/no-such-image").await.refuses(404, "No image found");
    assert_eq!(world.files(), Vec::<String>::new());
}

#[tokio::test]
async fn deleting_removes_document_members_bytes_and_quota() {
    let world = World::with(|options| options.quota.image_count_total = Some(1)).await;
    let id = world.raw_image(OWNER).await;
    world.upload(OWNER, &id, "bytes").await.expect(204);
    world.send(OWNER, "POST", &format!("/v2/images/{id}/members"), json!({"member": "blue"})).await.expect(200);
    world.patch(OWNER, &id, json!([{"op": "replace", "path": "/protected", "value": true}])).await.expect(200);
    let path = format!("/v2/images/{id}");
    world.delete(OWNER, &path).await.refuses(403, "is protected and cannot be deleted");
    world.patch(OWNER, &id, json!([{"op": "replace", "path": "/protected", "value": false}])).await.expect(200);
    world.send(OWNER, "POST", "/v2/images", json!({})).await.refuses(413, "image_count_total");
    assert_eq!(world.files().len(), 1);
    world.delete(OWNER, &path).await.expect(204);
    assert_eq!(world.files(), Vec::<String>::new());
    world.get(OWNER, &path).await.expect(404);
    world.delete(OWNER, &path).await.expect(404);
    world.raw_image(OWNER).await;
}

#[tokio::test]
async fn tags_and_deactivation() {
    let world = World::new().await;
    let id = world.raw_image(OWNER).await;
    let path = format!("/v2/images/{id}");
    world.call(OWNER, "PUT", &format!("{path}/tags/a%20b"), &[], Body::empty()).await.expect(204);
    assert_eq!(world.show(&id).await["tags"], json!(["a b"]));
    world.delete(OWNER, &format!("{path}/tags/a%20b")).await.expect(204);
    world.delete(OWNER, &format!("{path}/tags/a%20b")).await.expect(404);
    let long = format!("{path}/tags/{}", "x".repeat(256));
    world.call(OWNER, "PUT", &long, &[], Body::empty()).await.refuses(400, "too long");
    for n in 0..128 {
        world.call(OWNER, "PUT", &format!("{path}/tags/t{n}"), &[], Body::empty()).await.expect(204);
    }
    world.call(OWNER, "PUT", &format!("{path}/tags/more"), &[], Body::empty()).await.refuses(413, "Maximum: 128");
    let deactivate = format!("{path}/actions/deactivate");
    let reactivate = format!("{path}/actions/reactivate");
    world.send(OWNER, "POST", &deactivate, json!({})).await.refuses(403, "in status 'queued'");
    world.upload(OWNER, &id, "bytes").await.expect(204);
    world.send(OWNER, "POST", &deactivate, json!({})).await.expect(204);
    world.send(OWNER, "POST", &deactivate, json!({})).await.expect(204);
    assert_eq!(world.show(&id).await["status"], "deactivated");
    world.get(OWNER, &format!("{path}/file")).await.refuses(403, "deactivated");
    world.get(ADMIN, &format!("{path}/file")).await.expect(200);
    world.send(OWNER, "POST", &reactivate, json!({})).await.expect(204);
    world.get(OWNER, &format!("{path}/file")).await.expect(200);
}

#[tokio::test]
async fn the_service_tells_what_it_is() {
    let world = World::new().await;
    let choices = world.get("", "").await.expect(300).json();
    assert_eq!(choices["versions"][0]["id"], "v2.17");
    assert_eq!(choices["versions"][0]["status"], "CURRENT");
    assert_eq!(choices["versions"][0]["links"][0]["href"], "http://cloud/image/v2/");
    assert_eq!(world.get("", "/").await.expect(300).json(), choices);
    assert_eq!(world.get("", "/v2/").await.expect(300).json(), choices);
    assert_eq!(world.get("", "/versions").await.expect(200).json(), choices);
    let info = world.get(OWNER, "/v2/info/import").await.expect(200).json();
    assert_eq!(info["import-methods"]["value"], json!(["glance-direct", "web-download", "glance-download"]));
    let stores = world.get(OWNER, "/v2/info/stores").await.expect(200).json();
    assert_eq!((&stores["stores"][0]["id"], &stores["stores"][0]["default"]), (&json!("local"), &json!("true")));
    world.get(OWNER, "/v2/info/stores/detail").await.expect(403);
    let detail = world.get(ADMIN, "/v2/info/stores/detail").await.expect(200);
    assert_eq!(detail.json()["stores"][0]["type"], "file");
    assert!(!detail.text().contains('/'), "no path is shown: {}", detail.text());
    for name in ["task", "tasks"] {
        assert_eq!(world.get(OWNER, &format!("/v2/schemas/{name}")).await.expect(200).json()["name"], name);
    }
    for (method, path) in [
        ("GET", ""),
        ("DELETE", ""),
        ("POST", "/clean"),
        ("POST", "/prune"),
        ("PUT", "/x"),
        ("DELETE", "/x"),
        ("GET", "/nodes/x"),
    ] {
        let path = format!("/v2/cache{path}");
        world.call(ADMIN, method, &path, &[], Body::empty()).await.refuses(404, "Caching via API is not supported");
        world.call(OWNER, method, &path, &[], Body::empty()).await.expect(403);
    }
    let schema = world.get(OWNER, "/v2/schemas/image").await.expect(200).json();
    let view = world.show(&world.raw_image(OWNER).await).await;
    for name in view.as_object().unwrap().keys() {
        assert!(schema["properties"].get(name).is_some(), "{name} is not in the schema");
    }
    let images = world.get(OWNER, "/v2/schemas/images").await.expect(200).json();
    assert_eq!(images["properties"]["images"]["items"]["name"], "image");
    assert_eq!(world.get(OWNER, "/v2/schemas/member").await.expect(200).json()["name"], "member");
    let members = world.get(OWNER, "/v2/schemas/members").await.expect(200).json();
    assert_eq!(members["properties"]["members"]["items"]["name"], "member");
}

#[tokio::test]
async fn every_route_has_a_rule_that_exists_and_refuses_who_has_no_token() {
    let world = World::new().await;
    let policy = Policy::new(crate::RULES, None).unwrap();
    for service in world.gateway.services() {
        for route in &service.routes {
            let rest::Access::Rule(rule) = route.access else { continue };
            assert!(policy.contains(rule), "{}", route.operation);
            let path = route.path.replace(['{', '}'], "");
            world.call("", route.method.as_str(), &path, &[], Body::empty()).await.expect(401);
        }
    }
}

#[tokio::test]
async fn an_empty_id_names_no_image() {
    let world = World::new().await;
    for method in ["GET", "DELETE", "PATCH"] {
        world.call(OWNER, method, "/v2/images/", &[], Body::empty()).await.refuses(404, "empty ID");
    }
    world.delete(OWNER, "/v2/images").await.expect(405);
}

#[tokio::test]
async fn tokens_of_the_system_may_nothing_and_see_no_image() {
    let world = World::new().await;
    let id = world.image(ADMIN, json!({"visibility": "public"})).await;
    for path in ["", "/members", "/members/blue", "/file", "/tasks"] {
        let path = format!("/v2/images/{id}{path}");
        world.get("root:system:admin", &path).await.refuses(404, "tokens that are scoped to a project");
    }
    for (method, path) in [("DELETE", ""), ("POST", "/actions/deactivate"), ("DELETE", "/members/blue")] {
        let path = format!("/v2/images/{id}{path}");
        world.call("root:system:admin", method, &path, &[], Body::empty()).await.expect(404);
    }
    world.get("root:system:admin", "/v2/images").await.expect(403);
    world.send("root:system:admin", "POST", "/v2/images", json!({})).await.expect(403);
}

#[tokio::test]
async fn usage_is_shown_with_its_limits() {
    let world = World::with(|options| options.quota.image_count_total = Some(7)).await;
    let id = world.raw_image(OWNER).await;
    world.upload(OWNER, &id, "x").await.expect(204);
    let usage = world.get(OWNER, "/v2/info/usage").await.expect(200).json();
    assert_eq!(usage["usage"]["image_count_total"], json!({"limit": 7, "usage": 1}));
    assert_eq!(usage["usage"]["image_size_total"], json!({"limit": -1, "usage": 1}));
}

#[tokio::test]
async fn what_is_staged_and_on_its_way_counts_too() {
    let world = World::with(|options| {
        options.quota.image_stage_total_mib = Some(2);
        options.quota.image_count_uploading = Some(1);
    })
    .await;
    let (first, second) = (world.raw_image(OWNER).await, world.raw_image(OWNER).await);
    let usage = async || {
        let usage = world.get(OWNER, "/v2/info/usage").await.expect(200).json();
        ["image_stage_total", "image_count_uploading", "image_size_total"]
            .map(|name| usage["usage"][name]["usage"].as_i64().unwrap())
    };
    let headers = [("content-type", "application/octet-stream")];
    let stage = async |id: &str, mib: usize| {
        let body = Body::from(vec![7; mib << 20]);
        world.call(OWNER, "PUT", &format!("/v2/images/{id}/stage"), &headers, body).await
    };
    // Nobody said how much would come.
    stage(&first, 3).await.refuses(413, "image_stage_total");
    assert_eq!(usage().await, [0, 0, 0]);
    stage(&first, 2).await.expect(204);
    assert_eq!(usage().await, [2, 1, 0]);
    stage(&second, 1).await.refuses(413, "image_count_uploading");
    let import = json!({"method": {"name": "glance-direct"}});
    world.send(OWNER, "POST", &format!("/v2/images/{first}/import"), import).await.expect(202);
    assert_eq!(usage().await, [0, 0, 2]);
    stage(&second, 1).await.expect(204);
    world.delete(OWNER, &format!("/v2/images/{second}")).await.expect(204);
    world.delete(OWNER, &format!("/v2/images/{first}")).await.expect(204);
    assert_eq!(usage().await, [0, 0, 0]);
    let service = world.service.clone();
    let counted = world.store.read(move |reader| contract::recount::Recount::recount(&*service, reader)).await.unwrap();
    assert!(counted.values().all(|count| *count == 0), "{counted:?}");
}

/// Stands in for the identity service: project red may have two images, others one.
struct Kept;

impl contract::Limits for Kept {
    fn limit(
        &self,
        _: &mut store::Reader,
        project: &base::ProjectId,
        service_type: &str,
        resource: &str,
    ) -> Result<Option<i64>> {
        let two = project.as_str() == "red";
        Ok((service_type == "image" && resource == "image_count_total").then_some(if two { 2 } else { 1 }))
    }
}

#[tokio::test]
async fn limits_of_the_identity_service_come_before_defaults() {
    let world = World::with(|options| {
        options.quota.limits = Some(Arc::new(Kept));
        options.quota.image_count_total = Some(9);
        options.quota.image_size_total_mib = Some(0);
    })
    .await;
    for (token, most) in [(OWNER, 2), (OTHER, 1)] {
        for _ in 0..most {
            world.raw_image(token).await;
        }
        world.send(token, "POST", "/v2/images", json!({})).await.refuses(413, &format!("over limit of {most}"));
    }
    let usage = world.get(OWNER, "/v2/info/usage").await.expect(200).json();
    assert_eq!(usage["usage"]["image_count_total"], json!({"limit": 2, "usage": 2}));
    let id = world.get(OWNER, "/v2/images").await.json()["images"][0]["id"].as_str().unwrap().to_owned();
    world.upload(OWNER, &id, "x").await.refuses(413, "image_size_total");
}
