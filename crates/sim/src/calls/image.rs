//! Bodies of the image service.

use super::Gen;
use serde_json::{Value, json};

pub fn body(g: &Gen, operation: &str) -> Option<Value> {
    Some(match operation {
        "images:create" => {
            let mut body = json!({"name": g.name("image"), "visibility": g.dice.of(["private", "shared", "public"])});
            if g.chance(85) {
                body["disk_format"] = g.dice.of(["raw", "raw", "raw", "qcow2", "vmdk"]).into();
                body["container_format"] = "bare".into();
            }
            body
        }
        "images:upload" | "images:stage" => {
            json!(g.word().repeat(g.dice.of([0, 1, 1000, 4000, 20_000])))
        }
        "images:import" => json!({"method": {"name": g.dice.of(["glance-direct", "glance-direct", "web-download"])}}),
        "images:update" | "images:update_nameless" => match g.dice.below(4) {
            0 => json!([{"op": "replace", "path": "/name", "value": g.name("image")}]),
            1 => json!([{"op": "add", "path": "/colour", "value": g.word()}]),
            2 => json!([{"op": "replace", "path": "/visibility", "value": g.dice.of(["private", "public", "x"])}]),
            _ => json!([{"op": "remove", "path": "/colour"}]),
        },
        "members:create" => json!({"member": g.id("projects")}),
        "members:update" => json!({"status": g.dice.of(["accepted", "rejected", "pending", "x"])}),
        "metadef_namespaces:create" | "metadef_namespaces:update" => {
            let mut body = json!({"namespace": g.word(), "protected": g.chance(10)});
            if g.chance(60) {
                body["visibility"] = g.dice.of(["public", "public", "private", "x"]).into();
            }
            if operation == "metadef_namespaces:create" && g.chance(60) {
                body["properties"] = json!({g.word(): {"title": "t", "type": "string"}});
                body["objects"] = json!([{"name": g.word()}]);
                body["tags"] = json!([{"name": g.word()}]);
                body["resource_type_associations"] = json!([{"name": g.word(), "prefix": "hw_"}]);
            }
            body
        }
        "metadef_associations:create" => json!({"name": g.word(), "prefix": g.dice.of(["hw_", "hw:", ""])}),
        "metadef_objects:create" | "metadef_objects:update" => json!({
            "name": g.word(),
            "required": g.words(),
            "properties": {g.word(): {"title": "t", "type": g.dice.of(["integer", "string", "x"])}},
        }),
        "metadef_properties:create" | "metadef_properties:update" => json!({
            "name": g.word(),
            "title": g.name("title"),
            "type": g.dice.of(["integer", "string", "array", "x"]),
        }),
        "metadef_tags:create_all" => {
            json!({"tags": g.words().into_iter().map(|name| json!({"name": name})).collect::<Vec<_>>()})
        }
        "metadef_tags:update" => json!({"name": g.word()}),
        "metadef_tags:create" => Value::Null,
        "images:deactivate" | "images:reactivate" | "tags:create" => Value::Null,
        _ => return None,
    })
}
