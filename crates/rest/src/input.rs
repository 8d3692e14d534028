//! Reading request bodies as Nova's schemas do: which fields may be there, of which type, and its words where not.
//!
//! Clients and test suites match on these messages, so they are made in one place. A reader that is not asked for a
//! field refuses it in [`Fields::finish`]: forgetting to call it would let unknown fields through, so every reader
//! ends with it.

use crate::Query;
use base::{Fault, Result, Timestamp};
use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// A value as Python's `repr` shows it, cut to a readable length: Nova's messages quote values this way.
pub fn repr(value: &Value) -> String {
    let mut text = String::new();
    write_repr(value, &mut text);
    if text.chars().count() > 400 {
        text = text.chars().take(400).chain("...".chars()).collect();
    }
    text
}

fn write_repr(value: &Value, out: &mut String) {
    match value {
        Value::Null => out.push_str("None"),
        Value::Bool(true) => out.push_str("True"),
        Value::Bool(false) => out.push_str("False"),
        Value::Number(number) => out.push_str(&number.to_string()),
        Value::String(text) => out.push_str(&format!("'{text}'")),
        Value::Array(items) => {
            out.push('[');
            for (n, item) in items.iter().enumerate() {
                out.push_str(if n > 0 { ", " } else { "" });
                write_repr(item, out);
            }
            out.push(']');
        }
        Value::Object(map) => {
            out.push('{');
            for (n, (key, item)) in map.iter().enumerate() {
                out.push_str(if n > 0 { ", " } else { "" });
                out.push_str(&format!("'{key}': "));
                write_repr(item, out);
            }
            out.push('}');
        }
    }
}

/// As a schema refuses a value: `Invalid input for field/attribute name. Value: 1. 1 is not of type 'string'`.
pub fn refuse(field: &str, value: &Value, why: impl std::fmt::Display) -> Fault {
    Fault::invalid(format!("Invalid input for field/attribute {field}. Value: {}. {why}", shown(value)))
}

/// At the top of a message Python shows a string without quotes.
fn shown(value: &Value) -> String {
    match value {
        Value::String(text) => text.chars().take(400).collect(),
        other => repr(other),
    }
}

fn not_of_type(field: &str, value: &Value, kind: &str) -> Fault {
    refuse(field, value, format!("{} is not of type '{kind}'", repr(value)))
}

/// The fields of one JSON object.
pub struct Fields<'a> {
    name: &'a str,
    value: &'a Value,
    map: &'a Map<String, Value>,
    known: Vec<&'a str>,
}

impl<'a> Fields<'a> {
    /// An object below `name`.
    pub fn of(name: &'a str, value: &'a Value) -> Result<Fields<'a>> {
        let map = value.as_object().ok_or_else(|| not_of_type(name, value, "object"))?;
        Ok(Fields { name, value, map, known: Vec::new() })
    }

    /// The whole body: nothing stands above it, so messages carry no field.
    pub fn body(value: &'a Value) -> Result<Fields<'a>> {
        let map =
            value.as_object().ok_or_else(|| Fault::invalid(format!("{} is not of type 'object'", repr(value))))?;
        Ok(Fields { name: "", value, map, known: Vec::new() })
    }

    fn fault(&self, why: String) -> Fault {
        if self.name.is_empty() { Fault::invalid(why) } else { refuse(self.name, self.value, why) }
    }

    /// A field's value, which may be absent. `null` is a value.
    pub fn opt(&mut self, key: &'a str) -> Option<&'a Value> {
        self.known.push(key);
        self.map.get(key)
    }

    pub fn need(&mut self, key: &'a str) -> Result<&'a Value> {
        self.opt(key).ok_or_else(|| self.fault(format!("'{key}' is a required property")))
    }

    /// The object in a required field.
    pub fn object(&mut self, key: &'a str) -> Result<Fields<'a>> {
        let value = self.need(key)?;
        Fields::of(key, value)
    }

    /// A string of `min` to `max` characters.
    pub fn text(&mut self, key: &'a str, min: usize, max: usize) -> Result<Option<String>> {
        self.opt(key).map(|value| text(key, value, min, max)).transpose()
    }

    /// The same where `null` means that nothing was said.
    pub fn text_or_null(&mut self, key: &'a str, min: usize, max: usize) -> Result<Option<String>> {
        self.opt(key).filter(|value| !value.is_null()).map(|value| text(key, value, min, max)).transpose()
    }

    pub fn uuid(&mut self, key: &'a str) -> Result<Option<String>> {
        self.opt(key).map(|value| uuid(key, value)).transpose()
    }

    /// The same where `null` means that nothing was said.
    pub fn uuid_or_null(&mut self, key: &'a str) -> Result<Option<String>> {
        self.opt(key).filter(|value| !value.is_null()).map(|value| uuid(key, value)).transpose()
    }

    /// A name: printable, 1 to 255 characters, not only white space; white space around it is cut off, as Nova does for
    /// versions 2.1 without refusing it.
    pub fn name(&mut self, key: &'a str) -> Result<Option<String>> {
        self.opt(key).map(|value| name(key, value)).transpose()
    }

    pub fn boolean(&mut self, key: &'a str) -> Result<Option<bool>> {
        self.opt(key).map(|value| boolean(key, value)).transpose()
    }

    pub fn integer(&mut self, key: &'a str, min: i64, max: i64) -> Result<Option<i64>> {
        self.opt(key).map(|value| integer(key, value, min, max)).transpose()
    }

    /// A map of names to values, as server metadata and extra specs are.
    pub fn metadata(&mut self, key: &'a str) -> Result<Option<BTreeMap<String, String>>> {
        self.opt(key).map(|value| metadata(key, value)).transpose()
    }

    pub fn array(&mut self, key: &'a str) -> Result<Option<&'a Vec<Value>>> {
        self.opt(key).map(|value| value.as_array().ok_or_else(|| not_of_type(key, value, "array"))).transpose()
    }

    /// Refuses what nobody asked for.
    pub fn finish(self) -> Result<()> {
        let mut unknown: Vec<_> = self.map.keys().filter(|key| !self.known.contains(&key.as_str())).collect();
        unknown.sort();
        if unknown.is_empty() {
            return Ok(());
        }
        let names: Vec<_> = unknown.iter().map(|name| format!("'{name}'")).collect();
        let verb = if names.len() == 1 { "was" } else { "were" };
        let names = names.join(", ");
        Err(self.fault(format!("Additional properties are not allowed ({names} {verb} unexpected)")))
    }
}

pub fn text(key: &str, value: &Value, min: usize, max: usize) -> Result<String> {
    let text = value.as_str().ok_or_else(|| not_of_type(key, value, "string"))?;
    let chars = text.chars().count();
    if chars > max {
        return Err(refuse(key, value, format!("{} is too long", repr(value))));
    }
    if chars < min {
        let why = if min == 1 && chars == 0 { "should be non-empty" } else { "is too short" };
        return Err(refuse(key, value, format!("{} {why}", repr(value))));
    }
    Ok(text.to_owned())
}

pub fn name(key: &str, value: &Value) -> Result<String> {
    let text = text(key, value, 1, base::limits::NAME_CHARS)?;
    let trimmed = text.trim();
    if trimmed.is_empty() || trimmed.chars().any(|c| c.is_control()) {
        return Err(refuse(
            key,
            value,
            format!(
                "{} does not match the regex: a name holds printable characters only, and some that are not blank",
                repr(value)
            ),
        ));
    }
    Ok(trimmed.to_owned())
}

/// Nova takes many spellings of truth in bodies.
pub fn boolean(key: &str, value: &Value) -> Result<bool> {
    const TRUE: &[&str] = &["True", "TRUE", "true", "1", "ON", "On", "on", "YES", "Yes", "yes", "y", "t"];
    const FALSE: &[&str] = &["False", "FALSE", "false", "0", "OFF", "Off", "off", "NO", "No", "no", "n", "f"];
    match value {
        Value::Bool(value) => Ok(*value),
        Value::String(text) if TRUE.contains(&text.as_str()) => Ok(true),
        Value::String(text) if FALSE.contains(&text.as_str()) => Ok(false),
        _ => Err(refuse(
            key,
            value,
            format!(
                "{} is not one of [True, 'True', 'TRUE', 'true', '1', 'ON', 'On', 'on', 'YES', 'Yes', 'yes', 'y', 't', False, 'False', 'FALSE', 'false', '0', 'OFF', 'Off', 'off', 'NO', 'No', 'no', 'n', 'f']",
                repr(value)
            ),
        )),
    }
}

/// An integer, or a string of digits.
pub fn integer(key: &str, value: &Value, min: i64, max: i64) -> Result<i64> {
    let number = match value {
        Value::Number(number) => number.as_i64(),
        Value::String(text) => {
            let digits = text.strip_prefix('-').unwrap_or(text);
            let plain = !digits.is_empty() && digits.len() < 19 && digits.bytes().all(|b| b.is_ascii_digit());
            if !plain {
                return Err(refuse(key, value, format!("{} does not match '^-?[0-9]*$'", repr(value))));
            }
            text.parse().ok()
        }
        Value::Bool(_) | Value::Null | Value::Array(_) | Value::Object(_) => {
            return Err(refuse(key, value, format!("{} is not of type 'integer', 'string'", repr(value))));
        }
    };
    let number = match (number, value) {
        (Some(number), _) => number,
        (None, Value::Number(n)) if n.is_f64() => {
            return Err(refuse(key, value, format!("{} is not of type 'integer', 'string'", repr(value))));
        }
        (None, _) => i64::MAX,
    };
    if number < min {
        return Err(refuse(key, value, format!("{} is less than the minimum of {min}", repr(value))));
    }
    if number > max {
        return Err(refuse(key, value, format!("{} is greater than the maximum of {max}", repr(value))));
    }
    Ok(number)
}

/// A UUID, as it stands there.
pub fn uuid(key: &str, value: &Value) -> Result<String> {
    let id = text(key, value, 0, 255)?;
    match base::is_uuid(&id) {
        true => Ok(id),
        false => Err(refuse(key, value, format!("{} is not a 'uuid'", repr(value)))),
    }
}

/// Metadata: keys of `[a-zA-Z0-9-_:. ]{1,255}`, string values of at most 255 characters.
pub fn metadata(key: &str, value: &Value) -> Result<BTreeMap<String, String>> {
    keyed(key, value, "-_:. ", 255)
}

/// A map of strings of at most `max` characters. Its keys have letters, digits and what is `legal` besides.
pub fn keyed(key: &str, value: &Value, legal: &str, max: usize) -> Result<BTreeMap<String, String>> {
    let map = value.as_object().ok_or_else(|| not_of_type(key, value, "object"))?;
    let mut read = BTreeMap::new();
    for (name, item) in map {
        let fits = |c: char| c.is_ascii_alphanumeric() || legal.contains(c);
        if name.is_empty() || name.chars().count() > 255 || !name.chars().all(fits) {
            return Err(refuse(
                key,
                value,
                format!("'{name}' does not match any of the regexes: '^[a-zA-Z0-9{legal}]{{1,255}}$'"),
            ));
        }
        read.insert(name.clone(), text(name, item, 0, max)?);
    }
    Ok(read)
}

/// The only key of an action's body, and its value.
pub fn action(body: &Value) -> Result<(&str, &Value)> {
    let map = body.as_object().ok_or_else(|| Fault::invalid("Malformed request body"))?;
    let mut entries = map.iter();
    match (entries.next(), entries.next()) {
        (Some((name, value)), None) => Ok((name, value)),
        (None, _) => Err(Fault::invalid("There is no such action: the body is empty")),
        _ => Err(Fault::invalid("Multiple actions in the body: name exactly one")),
    }
}

/// Refuses query parameters that a list does not know (from 2.75 on; `older` lists take and ignore them), and checks
/// `limit` in the words of Nova.
pub fn limit(query: &Query) -> Result<()> {
    let Some(text) = query.get("limit") else { return Ok(()) };
    if text.is_empty() || !text.bytes().all(|b| b.is_ascii_digit()) {
        return Err(Fault::invalid(format!(
            "Invalid input for query parameters limit. Value: {text}. '{text}' does not match '^[0-9]*$'"
        )));
    }
    Ok(())
}

/// A point in time in a query.
pub fn time(query: &Query, key: &str) -> Result<Option<Timestamp>> {
    let Some(text) = query.get(key) else { return Ok(None) };
    Timestamp::parse(text).map(Some).ok_or_else(|| {
        Fault::invalid(format!(
            "Invalid input for query parameters {key}. Value: {text}. '{text}' is not a 'date-time'"
        ))
    })
}

/// Removes a field from an object; for the tables of changes.
pub fn drop_field(value: &mut Value, field: &str) {
    if let Some(map) = value.as_object_mut() {
        map.remove(field);
    }
}

/// For the tables of changes: a field that did not exist at the request's version is refused like any unknown one.
pub fn refuse_new(body: &Value, outer: &'static str, field: &'static str) -> Result<()> {
    let Some(inner) = body.get(outer) else { return Ok(()) };
    if inner.get(field).is_some() {
        return Err(refuse(outer, inner, format!("Additional properties are not allowed ('{field}' was unexpected)")));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn schemas_refuse_in_the_words_of_nova() {
        let read = |body: Value| -> Result<()> {
            let mut body = Fields::body(&body)?;
            let mut fields = body.object("flavor")?;
            body.finish()?;
            fields.name("name")?;
            fields.integer("ram", 1, 100)?;
            fields.boolean("public")?;
            fields.metadata("meta")?;
            fields.finish()
        };
        let cases = [
            (
                json!({"flavor": {"name": 1}}),
                "Invalid input for field/attribute name. Value: 1. 1 is not of type 'string'",
            ),
            (
                json!({"flavor": {"x": 1}}),
                "Invalid input for field/attribute flavor. Value: {'x': 1}. Additional properties are not allowed ('x' was unexpected)",
            ),
            (json!({"flavor": {}, "y": 1}), "Additional properties are not allowed ('y' was unexpected)"),
            (json!({}), "'flavor' is a required property"),
            (json!({"flavor": []}), "Invalid input for field/attribute flavor. Value: []. [] is not of type 'object'"),
            (
                json!({"flavor": {"ram": 0}}),
                "Invalid input for field/attribute ram. Value: 0. 0 is less than the minimum of 1",
            ),
            (
                json!({"flavor": {"ram": "x"}}),
                "Invalid input for field/attribute ram. Value: x. 'x' does not match '^-?[0-9]*$'",
            ),
            (
                json!({"flavor": {"ram": 1.5}}),
                "Invalid input for field/attribute ram. Value: 1.5. 1.5 is not of type 'integer', 'string'",
            ),
            (
                json!({"flavor": {"meta": {"a": 1}}}),
                "Invalid input for field/attribute a. Value: 1. 1 is not of type 'string'",
            ),
        ];
        for (body, message) in cases {
            assert_eq!(read(body).unwrap_err().message, message);
        }
        assert!(read(json!({"flavor": {"name": " a ", "ram": "5", "public": "yes", "meta": {"a": "b"}}})).is_ok());
        assert!(read(json!({"flavor": {"public": 2}})).is_err());
        assert!(read(json!({"flavor": {"name": "  "}})).is_err());
        assert!(read(json!({"flavor": {"ram": 99999999999999999999u128 as f64}})).is_err());
    }
}
