//! Metadata definitions as clients see them.

use super::*;
use expect_test::expect;
use serde_json::json;

const ALL: &str = "/v2/metadefs/namespaces";

/// A namespace with one of everything.
async fn tiny(world: &World, name: &str, more: Value) -> Value {
    let mut body = json!({
        "namespace": name,
        "visibility": "public",
        "properties": {"size": {"title": "Size", "type": "integer", "minimum": 1, "default": 3}},
        "objects": [{"name": "disk", "required": ["bus"], "properties": {"bus": {"title": "Bus", "type": "string"}}}],
        "tags": [{"name": "fast"}],
        "resource_type_associations": [{"name": "OS::Glance::Image", "prefix": "hw_"}],
    });
    for (field, value) in more.as_object().unwrap() {
        body[field] = value.clone();
    }
    world.send(ADMIN, "POST", ALL, body).await.expect(201).json()
}

fn timeless(mut value: Value) -> Value {
    match &mut value {
        Value::Object(fields) => {
            for (name, value) in fields.iter_mut() {
                *value = if name.ends_with("_at") { json!("…") } else { timeless(value.take()) };
            }
        }
        Value::Array(list) => list.iter_mut().for_each(|one| *one = timeless(one.take())),
        _ => {}
    }
    value
}

#[tokio::test]
async fn a_namespace_is_made_and_shown_whole() {
    let world = World::new().await;
    let body = json!({"namespace": "N", "display_name": "A name"});
    let created = world.send(ADMIN, "POST", ALL, body).await.expect(201);
    assert_eq!(created.header("location"), "/v2/metadefs/namespaces/N");
    assert_eq!((&created.json()["visibility"], &created.json()["protected"]), (&json!("private"), &json!(false)));
    tiny(&world, "whole", json!({})).await;
    let path = format!("{ALL}/whole?resource_type=OS::Glance::Image");
    let shown = world.get(READER, &path).await.expect(200).json();
    expect![[r#"
        {
          "created_at": "…",
          "namespace": "whole",
          "objects": [
            {
              "created_at": "…",
              "name": "disk",
              "properties": {
                "hw_bus": {
                  "title": "Bus",
                  "type": "string"
                }
              },
              "required": [
                "hw_bus"
              ],
              "schema": "/v2/schemas/metadefs/object",
              "self": "/v2/metadefs/namespaces/whole/objects/disk",
              "updated_at": "…"
            }
          ],
          "owner": "admin",
          "properties": {
            "hw_size": {
              "default": "3",
              "minimum": 1,
              "title": "Size",
              "type": "integer"
            }
          },
          "protected": false,
          "resource_type_associations": [
            {
              "created_at": "…",
              "name": "OS::Glance::Image",
              "prefix": "hw_",
              "updated_at": "…"
            }
          ],
          "schema": "/v2/schemas/metadefs/namespace",
          "self": "/v2/metadefs/namespaces/whole",
          "tags": [
            {
              "name": "fast"
            }
          ],
          "updated_at": "…",
          "visibility": "public"
        }"#]]
    .assert_eq(&serde_json::to_string_pretty(&timeless(shown)).unwrap());
}

#[tokio::test]
async fn who_may_not_see_a_namespace_does_not_know_of_it() {
    let world = World::new().await;
    tiny(&world, "open", json!({"owner": "blue"})).await;
    tiny(&world, "closed", json!({"visibility": "private", "owner": "blue"})).await;
    let seen = async |token| {
        let listed = world.get(token, &format!("{ALL}?sort_key=namespace&sort_dir=asc")).await.expect(200).json();
        let names =
            listed["namespaces"].as_array().unwrap().iter().map(|one| one["namespace"].as_str().unwrap().to_owned());
        names.collect::<Vec<_>>().join(" ")
    };
    assert_eq!(seen(READER).await, "open");
    assert_eq!(seen(OTHER).await, "closed open");
    assert_eq!(seen(ADMIN).await, "closed open");
    for path in
        ["", "/objects", "/objects/disk", "/properties", "/properties/size", "/tags", "/tags/fast", "/resource_types"]
    {
        world.get(READER, &format!("{ALL}/closed{path}")).await.refuses(404, "closed was not found");
        world.get(OTHER, &format!("{ALL}/closed{path}")).await.expect(200);
        world.get(READER, &format!("{ALL}/open{path}")).await.expect(200);
        world.get("s:system:admin", &format!("{ALL}/open{path}")).await.expect(403);
    }
    let property = json!({"name": "p", "title": "P", "type": "string"});
    world.send(OWNER, "POST", ALL, json!({"namespace": "mine"})).await.refuses(403, "add_metadef_namespace");
    world
        .send(OWNER, "POST", &format!("{ALL}/open/properties"), property.clone())
        .await
        .refuses(403, "add_metadef_property");
    world.send(OWNER, "POST", &format!("{ALL}/closed/properties"), property).await.expect(404);
    world.delete(OTHER, &format!("{ALL}/closed")).await.refuses(403, "delete_metadef_namespace");
}

#[tokio::test]
async fn of_a_protected_namespace_nothing_is_deleted() {
    let world = World::new().await;
    tiny(&world, "kept", json!({"protected": true})).await;
    let paths = ["", "/objects", "/objects/disk", "/properties", "/properties/size", "/tags", "/tags/fast"];
    for path in paths.iter().chain(&["/resource_types/OS::Glance::Image"]) {
        world.delete(ADMIN, &format!("{ALL}/kept{path}")).await.refuses(403, "is protected");
    }
    let open = json!({"namespace": "renamed", "visibility": "public"});
    let updated = world.send(ADMIN, "PUT", &format!("{ALL}/kept"), open).await.expect(200).json();
    assert_eq!((&updated["protected"], &updated["namespace"]), (&json!(false), &json!("renamed")));
    world.get(ADMIN, &format!("{ALL}/kept")).await.expect(404);
    for path in ["/objects/disk", "/properties/size", "/tags/fast", "/resource_types/OS::Glance::Image"] {
        world.delete(ADMIN, &format!("{ALL}/renamed{path}")).await.expect(204);
        world.delete(ADMIN, &format!("{ALL}/renamed{path}")).await.expect(404);
    }
    world.delete(ADMIN, &format!("{ALL}/renamed")).await.expect(204);
    world.delete(ADMIN, &format!("{ALL}/renamed")).await.expect(404);
}

#[tokio::test]
async fn what_a_namespace_defines_is_changed_by_its_name() {
    let world = World::new().await;
    tiny(&world, "n", json!({})).await;
    let at = |path: &str| format!("{ALL}/n{path}");
    let property = json!({"name": "colour", "title": "Colour", "type": "string", "enum": ["red", 1, true]});
    let created = world.send(ADMIN, "POST", &at("/properties"), property.clone()).await.expect(201).json();
    assert_eq!(created["enum"], json!(["red", "1", "true"]));
    world.send(ADMIN, "POST", &at("/properties"), property.clone()).await.refuses(409, "already exists");
    world.send(ADMIN, "PUT", &at("/properties/size"), property).await.refuses(409, "already exists");
    let hue = json!({"name": "hue", "title": "Hue", "type": "string"});
    world.send(ADMIN, "PUT", &at("/properties/colour"), hue).await.expect(200);
    world.get(READER, &at("/properties/colour")).await.expect(404);
    assert_eq!(world.get(READER, &at("/properties/hue")).await.expect(200).json()["title"], "Hue");
    let listed = world.get(READER, &at("/properties")).await.expect(200).json();
    assert_eq!(listed["properties"].as_object().unwrap().keys().collect::<Vec<_>>(), ["hue", "size"]);
    let typed = world.get(READER, &at("/properties/hw_size?resource_type=OS::Glance::Image")).await.expect(200).json();
    assert_eq!(typed["name"], "size");
    world.get(READER, &at("/properties/size?resource_type=OS::Glance::Image")).await.refuses(404, "prefix of 'hw_'");
    world.get(READER, &at("/properties/size?resource_type=none")).await.refuses(404, "was not found");
    for name in ["b", "a", "c"] {
        world.send(ADMIN, "POST", &at("/objects"), json!({"name": name})).await.expect(201);
        world.send(ADMIN, "POST", &at(&format!("/tags/{name}")), Value::Null).await.expect(201);
    }
    let names = async |path: &str, of: &str| {
        let listed = world.get(READER, &at(path)).await.expect(200).json();
        let names = listed[of].as_array().unwrap().iter().map(|one| one["name"].as_str().unwrap().to_owned());
        names.collect::<Vec<_>>().join(" ")
    };
    assert_eq!(names("/objects", "objects").await, "c a b disk");
    assert_eq!(names("/objects?sort_key=name&sort_dir=asc&marker=a&limit=2", "objects").await, "b c");
    world.get(READER, &at("/objects?limit=0")).await.refuses(400, "must be positive");
    world.get(READER, &at("/objects?marker=none")).await.expect(404);
    assert_eq!(names("/tags?marker=c&limit=1", "tags").await, "a");
    world.send(ADMIN, "PUT", &at("/tags/a"), json!({"name": "c"})).await.refuses(409, "already exists");
    world.send(ADMIN, "PUT", &at("/tags/a"), json!({"name": "d"})).await.expect(200);
    world.send(ADMIN, "POST", &at("/tags"), json!({"tags": [{"name": "x"}, {"name": "y"}]})).await.expect(201);
    assert_eq!(names("/tags?sort_key=name&sort_dir=asc", "tags").await, "x y");
    let append = [("content-type", "application/json"), ("x-openstack-append", "true")];
    let more = Body::from(json!({"tags": [{"name": "z"}]}).to_string());
    world.call(ADMIN, "POST", &at("/tags"), &append, more).await.expect(201);
    assert_eq!(names("/tags?sort_key=name&sort_dir=asc", "tags").await, "x y z");
    world.delete(ADMIN, &at("/tags")).await.expect(204);
    world.delete(ADMIN, &at("/objects")).await.expect(204);
    world.delete(ADMIN, &at("/properties")).await.expect(204);
    let left = world.get(READER, &at("")).await.expect(200).json();
    assert!(["tags", "objects", "properties"].iter().all(|part| left.get(part).is_none()), "{left}");
}

#[tokio::test]
async fn definitions_that_no_schema_allows_are_refused() {
    let world = World::new().await;
    tiny(&world, "n", json!({})).await;
    let namespaces = [
        (json!({}), 400, "'namespace' is a required property"),
        (json!({"namespace": ""}), 400, "is no name"),
        (json!({"namespace": "a/b"}), 400, "is no name"),
        (json!({"namespace": "x".repeat(81)}), 400, "too long"),
        (json!({"namespace": 7}), 400, "is not of type 'string'"),
        (json!({"namespace": "m", "visibility": "shared"}), 400, "is not one of"),
        (json!({"namespace": "m", "protected": "no"}), 400, "'boolean'"),
        (json!({"namespace": "m", "description": "x".repeat(501)}), 400, "too long"),
        (json!({"namespace": "m", "colour": "red"}), 400, "'colour' was unexpected"),
        (json!({"namespace": "m", "self": "x"}), 403, "read-only"),
        (json!({"namespace": "m", "tags": {"a": 1}}), 400, "'array'"),
        (json!({"namespace": "m", "tags": [{"name": "t"}, {"name": "t"}]}), 409, "twice"),
        (json!({"namespace": "n"}), 409, "already exists"),
    ];
    for (body, status, because) in namespaces {
        world.send(ADMIN, "POST", ALL, body).await.refuses(status, because);
    }
    let properties = [
        (json!({"title": "T", "type": "string"}), "'name' is a required property"),
        (json!({"name": "p", "type": "string"}), "'title' is a required property"),
        (json!({"name": "p", "title": "T"}), "'type' is a required property"),
        (json!({"name": "p", "title": "T", "type": "text"}), "is not one of"),
        (json!({"name": "p", "title": "T", "type": "string", "maxLength": -1}), "at least 0"),
        (json!({"name": "p", "title": "T", "type": "string", "minimum": "1"}), "'number'"),
        (json!({"name": "p", "title": "T", "type": "string", "enum": "a"}), "'array'"),
        (json!({"name": "p", "title": "T", "type": "string", "enum": [{}]}), "'string'"),
        (json!({"name": "p", "title": "T", "type": "array", "items": {"enum": ["a"], "x": 1}}), "neither a type"),
        (json!({"name": "p", "title": "T", "type": "string", "operators": ["a", "a"]}), "non-unique"),
        (json!({"name": "p", "title": "T", "type": "string", "default": []}), "'string'"),
        (json!({"name": "p", "title": "T", "type": "string", "colour": 1}), "'colour' was unexpected"),
    ];
    for (body, because) in properties {
        world.send(ADMIN, "POST", &format!("{ALL}/n/properties"), body.clone()).await.refuses(400, because);
    }
    let big = json!({"name": "p", "title": "x".repeat(10_000), "type": "string"});
    let many: serde_json::Map<_, _> = (0..90).map(|n| (format!("p{n}"), big.clone())).collect();
    for n in 0..2 {
        let object = json!({"name": format!("o{n}"), "properties": many});
        let answer = world.send(ADMIN, "POST", &format!("{ALL}/n/objects"), object).await;
        assert_eq!(answer.status, if n == 0 { 201 } else { 413 }, "{}", answer.text());
    }
    for query in ["sort_key=colour", "sort_dir=up", "limit=x", "limit=-1", "visibility=shared"] {
        world.get(READER, &format!("{ALL}?{query}")).await.expect(400);
    }
    world.get(READER, &format!("{ALL}?marker=none")).await.expect(404);
}

#[tokio::test]
async fn lists_are_paged_and_filtered() {
    let world = World::new().await;
    crate::bootstrap(&world.store).await.unwrap();
    let mut seen = 0;
    let mut next = format!("{ALL}?limit=7");
    loop {
        let page = world.get(READER, &next).await.expect(200).json();
        seen += page["namespaces"].as_array().unwrap().len();
        match page["next"].as_str() {
            Some(link) => next = link.to_owned(),
            None => break,
        }
    }
    assert_eq!(seen, 21);
    let volumes =
        world.get(READER, &format!("{ALL}?resource_types=OS::Cinder::Volume&limit=100")).await.expect(200).json();
    assert_eq!(volumes["namespaces"].as_array().unwrap().len(), 6);
    let types = world.get(READER, "/v2/metadefs/resource_types").await.expect(200).json();
    assert_eq!(types["resource_types"].as_array().unwrap().len(), 6);
    // What an administrator takes away stays away.
    let watchdog = format!("{ALL}/OS::Compute::Watchdog");
    let open = json!({"namespace": "OS::Compute::Watchdog", "visibility": "public"});
    world.delete(ADMIN, &watchdog).await.refuses(403, "is protected");
    world.send(ADMIN, "PUT", &watchdog, open).await.expect(200);
    world.delete(ADMIN, &watchdog).await.expect(204);
    crate::bootstrap(&world.store).await.unwrap();
    world.get(ADMIN, &watchdog).await.expect(404);
}

#[tokio::test]
async fn every_schema_is_there() {
    let world = World::new().await;
    for (path, name) in [
        ("namespace", "namespace"),
        ("namespaces", "namespaces"),
        ("resource_type", "resource_type_association"),
        ("resource_types", "resource_type_associations"),
        ("object", "object"),
        ("objects", "objects"),
        ("property", "property"),
        ("properties", "properties"),
        ("tag", "tag"),
        ("tags", "tags"),
    ] {
        let schema = world.get(READER, &format!("/v2/schemas/metadefs/{path}")).await.expect(200).json();
        assert_eq!(schema["name"], name);
        assert!(schema["properties"].is_object(), "{path}");
    }
}
