//! The JSON schemas by which clients learn the attributes of images, members and tasks.

use crate::Service;
use crate::images::wire::{CONTAINER_FORMATS, DISK_FORMATS};
use base::Result;
use rest::{Call, Reply};
use serde_json::{Value, json};
use std::sync::Arc;

const UUID: &str = "^([0-9a-fA-F]){8}-([0-9a-fA-F]){4}-([0-9a-fA-F]){4}-([0-9a-fA-F]){4}-([0-9a-fA-F]){12}$";

pub async fn image(_: Arc<Service>, _: Call) -> Result<Reply> {
    Reply::json(200, &image_schema())
}

pub async fn images(_: Arc<Service>, _: Call) -> Result<Reply> {
    Reply::json(200, &collection("images", image_schema()))
}

pub async fn member(_: Arc<Service>, _: Call) -> Result<Reply> {
    Reply::json(200, &member_schema())
}

pub async fn members(_: Arc<Service>, _: Call) -> Result<Reply> {
    Reply::json(200, &collection("members", member_schema()))
}

pub async fn task(_: Arc<Service>, _: Call) -> Result<Reply> {
    Reply::json(200, &task_schema(true))
}

pub async fn tasks(_: Arc<Service>, _: Call) -> Result<Reply> {
    Reply::json(200, &collection("tasks", task_schema(false)))
}

/// Lists show less of each.
fn task_schema(whole: bool) -> Value {
    let text = |description: &str| json!({"type": "string", "description": description});
    let mut schema = json!({
        "name": "task",
        "properties": {
            "id": {"type": "string", "description": "An identifier for the task", "pattern": UUID},
            "type": {
                "type": "string",
                "description": "What kind of work it tells of",
                "enum": ["import", "api_image_import", "location_import"],
            },
            "status": {
                "type": "string",
                "description": "How the work stands",
                "enum": ["pending", "processing", "success", "failure"],
            },
            "owner": text("The project that the task belongs to"),
            "created_at": text("When the task was created"),
            "updated_at": text("When the task was last changed"),
            "expires_at": {"type": ["null", "string"], "description": "Until when a finished task is shown"},
            "self": {"readOnly": true, "type": "string"},
            "schema": {"readOnly": true, "type": "string"},
        },
    });
    if whole {
        let more = [
            ("input", json!({"type": ["null", "object"], "description": "What the work was asked for with"})),
            ("result", json!({"type": ["null", "object"], "description": "What it came to"})),
            ("message", text("Why it failed, where it failed")),
            ("image_id", text("The image that it is about")),
            ("request_id", text("The request that asked for it")),
            ("user_id", text("Who asked for it")),
        ];
        for (name, shape) in more {
            schema["properties"][name] = shape;
        }
    }
    schema
}

fn collection(name: &str, item: Value) -> Value {
    let text = json!({"type": "string"});
    let mut schema = json!({
        "name": name,
        "properties": {name: {"type": "array", "items": item}, "schema": text},
        "links": [{"rel": "describedby", "href": "{schema}"}],
    });
    if name == "images" || name == "tasks" {
        schema["properties"]["first"] = text.clone();
        schema["properties"]["next"] = text;
        schema["links"] = json!([
            {"rel": "first", "href": "{first}"},
            {"rel": "next", "href": "{next}"},
            {"rel": "describedby", "href": "{schema}"},
        ]);
    }
    schema
}

fn member_schema() -> Value {
    json!({
        "name": "member",
        "properties": {
            "member_id": {"type": "string", "description": "An identifier for the image member (tenantId)"},
            "image_id": {"type": "string", "description": "An identifier for the image", "pattern": UUID},
            "created_at": {"type": "string", "description": "Date and time of image member creation"},
            "updated_at": {"type": "string", "description": "Date and time of last modification of image member"},
            "status": {
                "type": "string",
                "description": "The status of this image member",
                "enum": ["pending", "accepted", "rejected"],
            },
            "schema": {"readOnly": true, "type": "string"},
        },
        "additionalProperties": false,
    })
}

fn image_schema() -> Value {
    let formats = |known: &[&str]| -> Value {
        std::iter::once(Value::Null).chain(known.iter().map(|format| json!(format))).collect()
    };
    let read_only =
        |kind: Value, description: &str| json!({"type": kind, "readOnly": true, "description": description});
    let mut checksum = read_only(json!(["null", "string"]), "MD5 of the image's bytes.");
    checksum["maxLength"] = json!(32);
    let mut algorithm = read_only(json!(["null", "string"]), "Algorithm that calculated os_hash_value.");
    algorithm["maxLength"] = json!(64);
    let mut hash = read_only(json!(["null", "string"]), "Hash of the image's bytes in hex.");
    hash["maxLength"] = json!(128);
    let mut status = read_only(json!("string"), "Status of the image");
    status["enum"] = json!([
        "queued",
        "saving",
        "active",
        "killed",
        "deleted",
        "uploading",
        "importing",
        "pending_delete",
        "deactivated"
    ]);
    json!({
        "name": "image",
        "properties": {
            "id": {"type": "string", "description": "An identifier for the image", "pattern": UUID},
            "name": {"type": ["null", "string"], "description": "Descriptive name for the image", "maxLength": 255},
            "status": status,
            "visibility": {
                "type": "string",
                "description": "Scope of image accessibility",
                "enum": ["community", "public", "private", "shared"],
            },
            "protected": {"type": "boolean", "description": "If true, image will not be deletable."},
            "os_hidden": {
                "type": "boolean",
                "description": "If true, image will not appear in default image list response.",
            },
            "checksum": checksum,
            "os_hash_algo": algorithm,
            "os_hash_value": hash,
            "owner": {"type": ["null", "string"], "description": "Owner of the image", "maxLength": 255},
            "size": read_only(json!(["null", "integer"]), "Size of image file in bytes"),
            "virtual_size": read_only(json!(["null", "integer"]), "Virtual size of image in bytes"),
            "container_format": {
                "type": ["null", "string"],
                "description": "Format of the container",
                "enum": formats(&CONTAINER_FORMATS),
            },
            "disk_format": {
                "type": ["null", "string"],
                "description": "Format of the disk",
                "enum": formats(&DISK_FORMATS),
            },
            "created_at": read_only(json!("string"), "Date and time of image registration"),
            "updated_at": read_only(json!("string"), "Date and time of the last image modification"),
            "tags": {
                "type": "array",
                "description": "List of strings related to the image",
                "items": {"type": "string", "maxLength": 255},
            },
            "min_ram": {"type": "integer", "description": "Amount of ram (in MB) required to boot image."},
            "min_disk": {"type": "integer", "description": "Amount of disk space (in GB) required to boot image."},
            "self": read_only(json!("string"), "An image self url"),
            "file": read_only(json!("string"), "An image file url"),
            "schema": read_only(json!("string"), "An image schema url"),
            "stores": read_only(json!("string"), "The stores that hold the image's bytes, with commas between them"),
        },
        "additionalProperties": {"type": "string"},
        "links": [
            {"rel": "self", "href": "{self}"},
            {"rel": "enclosure", "href": "{file}"},
            {"rel": "describedby", "href": "{schema}"},
        ],
    })
}
