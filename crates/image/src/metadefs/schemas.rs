//! The JSON schemas of metadata definitions.

use crate::Service;
use base::{Fault, Result};
use rest::{Call, Reply};
use serde_json::{Value, json};
use std::sync::Arc;

/// One handler for all ten: the last part of the path says which.
pub async fn show(_: Arc<Service>, call: Call) -> Result<Reply> {
    let name = call.path.rsplit('/').next().unwrap_or("");
    let schema = match name {
        "namespace" => namespace(),
        "namespaces" => collection("namespaces", namespace()),
        "resource_type" => resource_type(),
        "resource_types" => collection("resource_type_associations", resource_type()),
        "object" => object(),
        "objects" => collection("objects", object()),
        "property" => property(true),
        "properties" => json!({
            "name": "properties",
            "properties": {"properties": {"type": "object", "additionalProperties": property(false)}},
            "links": links(),
        }),
        "tag" => tag(),
        "tags" => collection("tags", tag()),
        other => return Err(Fault::not_found(format!("There is no schema metadefs/{other}."))),
    };
    Reply::json(200, &schema)
}

fn links() -> Value {
    json!([
        {"rel": "first", "href": "{first}"},
        {"rel": "next", "href": "{next}"},
        {"rel": "describedby", "href": "{schema}"},
    ])
}

fn collection(name: &str, item: Value) -> Value {
    let mut schema = json!({
        "name": name,
        "properties": {
            name: {"type": "array", "items": item},
            "first": {"type": "string"},
            "next": {"type": "string"},
            "schema": {"type": "string"},
        },
        "links": links(),
    });
    // The definitions that items refer to stand at the root, where references look for them.
    if let Some(definitions) =
        schema["properties"][name]["items"].as_object_mut().and_then(|it| it.remove("definitions"))
    {
        schema["definitions"] = definitions;
    }
    schema
}

fn time(of: &str) -> Value {
    json!({"type": "string", "readOnly": true, "format": "date-time", "description": of})
}

fn definitions() -> Value {
    json!({
        "positiveInteger": {"type": "integer", "minimum": 0},
        "positiveIntegerDefault0": {"allOf": [{"$ref": "#/definitions/positiveInteger"}, {"default": 0}]},
        "stringArray": {"type": "array", "items": {"type": "string"}, "uniqueItems": true},
        "property": {
            "type": "object",
            "additionalProperties": {
                "type": "object",
                "required": ["title", "type"],
                "properties": property_fields(),
            },
        },
    })
}

fn property_fields() -> Value {
    let kinds = json!(["array", "boolean", "integer", "number", "object", "string", null]);
    let count = json!({"$ref": "#/definitions/positiveInteger"});
    let count_from_0 = json!({"$ref": "#/definitions/positiveIntegerDefault0"});
    json!({
        "name": {"type": "string", "maxLength": 80},
        "title": {"type": "string"},
        "description": {"type": "string"},
        "operators": {"type": "array", "items": {"type": "string"}},
        "type": {"type": "string", "enum": kinds},
        "required": {"$ref": "#/definitions/stringArray"},
        "minimum": {"type": "number"},
        "maximum": {"type": "number"},
        "maxLength": count,
        "minLength": count_from_0,
        "pattern": {"type": "string", "format": "regex"},
        "enum": {"type": "array"},
        "readonly": {"type": "boolean"},
        "default": {},
        "items": {
            "type": "object",
            "properties": {"type": {"type": "string", "enum": kinds}, "enum": {"type": "array"}},
        },
        "maxItems": count,
        "minItems": count_from_0,
        "uniqueItems": {"type": "boolean", "default": false},
        "additionalItems": {"type": "boolean"},
    })
}

fn property(named: bool) -> Value {
    let required = if named { json!(["type", "title", "name"]) } else { json!(["type", "title"]) };
    let mut definitions = definitions();
    if let Some(all) = definitions.as_object_mut() {
        all.remove("property");
    }
    json!({
        "name": "property",
        "properties": property_fields(),
        "additionalProperties": false,
        "definitions": definitions,
        "required": required,
    })
}

fn namespace() -> Value {
    let of_parts = |fields: Value| json!({"type": "array", "items": {"type": "object", "properties": fields}});
    let text = json!({"type": "string"});
    json!({
        "name": "namespace",
        "properties": {
            "namespace": {"type": "string", "description": "The unique name of the namespace.", "maxLength": 80},
            "display_name": {"type": "string", "description": "The name that people are shown.", "maxLength": 80},
            "description": {"type": "string", "description": "What the namespace defines.", "maxLength": 500},
            "visibility": {"type": "string", "description": "Who sees it.", "enum": ["public", "private"]},
            "protected": {"type": "boolean", "description": "Whether deleting it is refused."},
            "owner": {"type": "string", "description": "The project that it belongs to.", "maxLength": 255},
            "created_at": time("When the namespace was created"),
            "updated_at": time("When the namespace was last changed"),
            "schema": {"type": "string", "readOnly": true},
            "self": {"type": "string", "readOnly": true},
            "resource_type_associations": of_parts(json!({"name": text, "prefix": text, "properties_target": text})),
            "properties": {"$ref": "#/definitions/property"},
            "objects": of_parts(json!({
                "name": text,
                "description": text,
                "required": {"$ref": "#/definitions/stringArray"},
                "properties": {"$ref": "#/definitions/property"},
            })),
            "tags": of_parts(json!({"name": text})),
        },
        "additionalProperties": false,
        "definitions": definitions(),
        "required": ["namespace"],
    })
}

fn object() -> Value {
    json!({
        "name": "object",
        "properties": {
            "name": {"type": "string", "maxLength": 80},
            "description": {"type": "string"},
            "required": {"$ref": "#/definitions/stringArray"},
            "properties": {"$ref": "#/definitions/property"},
            "schema": {"type": "string", "readOnly": true},
            "self": {"type": "string", "readOnly": true},
            "created_at": time("When the object was created"),
            "updated_at": time("When the object was last changed"),
        },
        "additionalProperties": false,
        "definitions": definitions(),
        "required": ["name"],
    })
}

fn resource_type() -> Value {
    json!({
        "name": "resource_type_association",
        "properties": {
            "name": {"type": "string", "description": "The resource type, by Heat's name where it has one.", "maxLength": 80},
            "prefix": {"type": "string", "description": "What stands before each property of the namespace on this resource type, separator included.", "maxLength": 80},
            "properties_target": {"type": "string", "description": "Which of several sets of properties of the resource type is meant, such as image for volumes.", "maxLength": 80},
            "created_at": time("When the association was created"),
            "updated_at": time("When the association was last changed"),
        },
        "additionalProperties": false,
        "required": ["name"],
    })
}

fn tag() -> Value {
    json!({
        "name": "tag",
        "properties": {
            "name": {"type": "string", "maxLength": 80},
            "created_at": time("When the tag was created"),
            "updated_at": time("When the tag was last changed"),
        },
        "additionalProperties": false,
        "required": ["name"],
    })
}
