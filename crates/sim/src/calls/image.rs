//! Bodies of the image service.

use super::Gen;
use async_trait::async_trait;
use base::{Fault, Result};
use control::web::{Fetched, Rules, Web};
use serde_json::{Value, json};

/// What users point to: bytes, nothing, a server that is busy, a place that nobody may reach.
const ELSEWHERE: [&str; 6] = [
    "http://mirror.example/small",
    "http://mirror.example/large",
    "http://mirror.example/small",
    "http://mirror.example/none",
    "http://busy.example/x",
    "http://127.0.0.1/secret",
];

/// The network outside the cloud.
pub struct Elsewhere;

#[async_trait]
impl Web for Elsewhere {
    async fn get(&self, url: &str, rules: &Rules) -> Result<Fetched> {
        let url = rules.check("URI", url)?;
        let bytes = match url.path() {
            "/small" => "small ".repeat(200),
            "/large" => "large ".repeat(40_000),
            "/none" => return Err(Fault::not_found(format!("{url} answers 404 Not Found."))),
            _ => return Err(Fault::unavailable(format!("{url} answers 503 Service Unavailable."))),
        };
        Ok(Fetched { size_bytes: Some(bytes.len() as u64), body: bytes.into() })
    }
}

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
        "images:import" => match g.dice.below(6) {
            4 => json!({"method": {"name": "copy-image"}, "all_stores": true}),
            5 => {
                let stores = g.dice.of([["local", "second"], ["second", "objects"], ["objects", "local"]]);
                json!({"method": {"name": "glance-direct"}, "stores": stores})
            }
            0 => json!({"method": {"name": "web-download", "uri": g.dice.of(ELSEWHERE)}}),
            1 => json!({"method": {
                "name": "glance-download",
                "glance_region": g.dice.of(["RegionOne", "RegionOne", "RegionTwo"]),
                "glance_image_id": g.id("images"),
            }}),
            _ => json!({"method": {"name": "glance-direct"}}),
        },
        "locations:create" => {
            let mut body = json!({"url": g.dice.of(ELSEWHERE)});
            if g.chance(20) {
                body["validation_data"] = json!({"os_hash_algo": "sha256", "os_hash_value": "0".repeat(64)});
            }
            body
        }
        "tasks:create" => json!({"type": "import", "input": {
            "import_from": g.dice.of(ELSEWHERE),
            "import_from_format": g.dice.of(["raw", "raw", "qcow2"]),
            "image_properties": {"name": g.name("image")},
        }}),
        "cache:clean" | "cache:prune" | "cache:queue" => Value::Null,
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
