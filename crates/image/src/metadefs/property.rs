//! The definition of a property: JSON schema's words for one value, and what Glance adds to them.

use base::{Fault, Result, limits};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// Most characters of a name, and of a text that explains.
pub const NAME_CHARS: usize = 80;
const TEXT_CHARS: usize = 10_000;
/// Most entries of an `enum`, and of the other lists.
const LIST: usize = 1000;

/// What a definition may say.
pub const FIELDS: [&str; 19] = [
    "name",
    "type",
    "title",
    "description",
    "pattern",
    "readonly",
    "uniqueItems",
    "additionalItems",
    "minimum",
    "maximum",
    "minLength",
    "maxLength",
    "minItems",
    "maxItems",
    "operators",
    "required",
    "enum",
    "items",
    "default",
];

const TYPES: [&str; 6] = ["array", "boolean", "integer", "number", "object", "string"];

/// What does not fit the schema of `what`.
pub fn mismatch(what: &str, name: &str, value: &Value, why: &str) -> Fault {
    let shown: String = value.to_string().chars().take(100).collect();
    Fault::invalid(format!(
        "Provided object does not match schema '{what}': {shown} {why}. Failed validating '{name}'."
    ))
}

/// A field that may be missing.
pub fn text(what: &str, body: &Map<String, Value>, name: &str, most: usize) -> Result<Option<String>> {
    match body.get(name) {
        None => Ok(None),
        Some(Value::String(text)) => {
            if text.chars().count() > most {
                return Err(mismatch(what, name, &json!(text), "is too long"));
            }
            limits::text(name, text, most)?;
            Ok(Some(text.clone()))
        }
        Some(other) => Err(mismatch(what, name, other, "is not of type 'string'")),
    }
}

/// A name that must be there and can stand in a path.
pub fn name(what: &str, body: &Map<String, Value>, field: &str) -> Result<String> {
    let found = text(what, body, field, NAME_CHARS)?;
    let found = found.ok_or_else(|| missing(what, field))?;
    called(what, &found)?;
    Ok(found)
}

/// Refuses what cannot stand in a path.
pub fn called(what: &str, name: &str) -> Result<()> {
    if name.is_empty() || name.contains('/') || name == "." || name == ".." {
        return Err(mismatch(what, "name", &json!(name), "is no name: it is empty or has a slash"));
    }
    if name.chars().count() > NAME_CHARS {
        return Err(mismatch(what, "name", &json!(name), "is too long"));
    }
    limits::text("name", name, NAME_CHARS)
}

pub fn missing(what: &str, field: &str) -> Fault {
    Fault::invalid(format!("Provided object does not match schema '{what}': '{field}' is a required property."))
}

/// Refuses fields that a client may not write, and such that do not exist.
pub fn only(what: &str, body: &Map<String, Value>, known: &[&str], read_only: &[&str]) -> Result<()> {
    for name in body.keys() {
        if read_only.contains(&name.as_str()) {
            return Err(Fault::forbidden(format!("Attribute '{name}' is read-only.")));
        }
        if !known.contains(&name.as_str()) {
            let shown: String = name.chars().take(100).collect();
            return Err(Fault::invalid(format!(
                "Provided object does not match schema '{what}': Additional properties are not allowed ('{shown}' was \
                 unexpected)."
            )));
        }
    }
    Ok(())
}

/// Reads a definition, without its name. Invalid where it says what no schema says.
pub fn read(body: &Map<String, Value>) -> Result<Map<String, Value>> {
    let mut definition = Map::new();
    for (field, value) in body {
        let wrong = |why: &str| mismatch("property", field, value, why);
        let kept = match (field.as_str(), value) {
            ("name", _) => continue,
            ("type", Value::String(kind)) if TYPES.contains(&kind.as_str()) => value.clone(),
            ("type", _) => {
                return Err(wrong("is not one of 'array', 'boolean', 'integer', 'number', 'object', 'string'"));
            }
            ("title" | "description" | "pattern", Value::String(text)) => {
                limits::text(field, text, TEXT_CHARS)?;
                value.clone()
            }
            ("title" | "description" | "pattern", _) => return Err(wrong("is not of type 'string'")),
            ("readonly" | "uniqueItems" | "additionalItems", Value::Bool(_)) => value.clone(),
            ("readonly" | "uniqueItems" | "additionalItems", _) => return Err(wrong("is not of type 'boolean'")),
            ("minimum" | "maximum", Value::Number(_)) => value.clone(),
            ("minimum" | "maximum", _) => return Err(wrong("is not of type 'number'")),
            ("minLength" | "maxLength" | "minItems" | "maxItems", _) if value.is_u64() => value.clone(),
            ("minLength" | "maxLength" | "minItems" | "maxItems", _) => {
                return Err(wrong("is not an integer of at least 0"));
            }
            ("operators" | "required", _) => {
                strings("property", field, value)?;
                value.clone()
            }
            ("enum", _) => choices(field, value)?,
            ("items", _) => items(value)?,
            // Glance keeps it as text.
            ("default", Value::String(_)) => value.clone(),
            ("default", Value::Bool(_) | Value::Number(_)) => json!(value.to_string()),
            ("default", _) => return Err(wrong("is not of type 'string'")),
            _ => return Err(wrong("stands under a name that no definition has")),
        };
        definition.insert(field.clone(), kept);
    }
    for needed in ["title", "type"] {
        if !definition.contains_key(needed) {
            return Err(missing("property", needed));
        }
    }
    Ok(definition)
}

/// The same for the properties of an object or of a new namespace, by their names.
pub fn read_all(value: &Value) -> Result<BTreeMap<String, Map<String, Value>>> {
    let Value::Object(all) = value else {
        return Err(mismatch("property", "properties", value, "is not of type 'object'"));
    };
    let mut read_ones = BTreeMap::new();
    for (name, one) in all {
        called("property", name)?;
        let Value::Object(one) = one else { return Err(mismatch("property", name, one, "is not of type 'object'")) };
        read_ones.insert(name.clone(), read(one)?);
    }
    Ok(read_ones)
}

/// A list of texts, each once.
pub fn strings(what: &str, field: &str, value: &Value) -> Result<Vec<String>> {
    let Value::Array(list) = value else { return Err(mismatch(what, field, value, "is not of type 'array'")) };
    if list.len() > LIST {
        return Err(mismatch(what, field, &json!(list.len()), "entries are too many"));
    }
    let mut texts = Vec::new();
    for one in list {
        let Value::String(text) = one else { return Err(mismatch(what, field, one, "is not of type 'string'")) };
        limits::text(field, text, TEXT_CHARS)?;
        if texts.contains(text) {
            return Err(mismatch(what, field, value, "has non-unique elements"));
        }
        texts.push(text.clone());
    }
    Ok(texts)
}

/// An `enum`: texts; what is none is kept as its text, as Glance keeps it.
fn choices(field: &str, value: &Value) -> Result<Value> {
    let Value::Array(list) = value else { return Err(mismatch("property", field, value, "is not of type 'array'")) };
    if list.len() > LIST {
        return Err(mismatch("property", field, &json!(list.len()), "entries are too many"));
    }
    let choice = |one: &Value| match one {
        Value::String(text) => limits::text(field, text, TEXT_CHARS).map(|()| one.clone()),
        Value::Bool(_) | Value::Number(_) => Ok(json!(one.to_string())),
        _ => Err(mismatch("property", field, one, "is not of type 'string'")),
    };
    list.iter().map(choice).collect()
}

fn items(value: &Value) -> Result<Value> {
    let Value::Object(fields) = value else {
        return Err(mismatch("property", "items", value, "is not of type 'object'"));
    };
    let mut kept = Map::new();
    for (field, value) in fields {
        let value = match (field.as_str(), value) {
            ("type", Value::String(kind)) if TYPES.contains(&kind.as_str()) => value.clone(),
            ("enum", _) => choices(field, value)?,
            _ => return Err(mismatch("property", "items", value, "is neither a type nor an enum")),
        };
        kept.insert(field.clone(), value);
    }
    Ok(Value::Object(kept))
}
