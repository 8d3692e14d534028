//! Attributes as data: what a request body may hold, of which type, and who may set or see it.
//!
//! Each resource has one table. It decides what is refused as unknown, read-only or of the wrong type, with Neutron's
//! sentences, and which attributes need a policy rule of their own (`create_network:shared`).

use crate::error;
use base::{Fault, Result, limits};
use ipnet::IpNet;
use serde_json::{Map, Value};
use std::net::IpAddr;

/// The most objects of one bulk request.
pub const BULK: usize = 256;
/// The most entries of any list in a body.
pub const ENTRIES: usize = 512;

/// The type of an attribute. Values are normalised: `"true"` becomes `true` where a boolean is meant.
#[derive(Clone, Copy)]
pub enum Kind {
    Text(usize),
    TextOrNull(usize),
    Bool,
    Int(i64, i64),
    IntOrNull(i64, i64),
    Uuid,
    UuidOrNull,
    UuidList,
    IpOrNull,
    Mac,
    Cidr,
    OneOf(&'static [&'static str]),
    Dict,
    /// Only the absence of a value: what we do not have yet but clients send as null.
    Null,
    /// A check of the resource's own; the error is the reason that the user reads.
    Custom(fn(Value) -> Result<Value, String>),
}

/// What a guarded attribute holds when nobody asked for anything: setting it to this needs no right on create.
#[derive(Clone, Copy, PartialEq)]
pub enum Guard {
    Open,
    /// Needs the rule `create_x:name` or `update_x:name`.
    Unset,
    /// The same, but `false` on create is free.
    False,
}

#[derive(Clone, Copy)]
pub struct Attr {
    pub name: &'static str,
    pub kind: Kind,
    pub post: bool,
    pub put: bool,
    pub required: bool,
    pub guard: Guard,
    /// Seen only by who passes `get_x:name`.
    pub hidden: bool,
}

impl Attr {
    /// Can be given on create and changed later.
    pub const fn new(name: &'static str, kind: Kind) -> Attr {
        Attr { name, kind, post: true, put: true, required: false, guard: Guard::Open, hidden: false }
    }

    /// Computed: nobody sets it.
    pub const fn fixed(name: &'static str) -> Attr {
        Attr { post: false, put: false, ..Attr::new(name, Kind::Null) }
    }

    pub const fn post_only(mut self) -> Attr {
        self.put = false;
        self
    }

    pub const fn put_only(mut self) -> Attr {
        self.post = false;
        self
    }

    pub const fn required(mut self) -> Attr {
        self.required = true;
        self
    }

    pub const fn guarded(mut self, guard: Guard) -> Attr {
        self.guard = guard;
        self
    }

    pub const fn hidden(mut self) -> Attr {
        self.hidden = true;
        self
    }
}

/// What every resource has.
pub const COMMON: &[Attr] = &[
    Attr::fixed("id"),
    Attr::new("tenant_id", Kind::Text(255)).post_only(),
    Attr::new("project_id", Kind::Text(255)).post_only(),
    Attr::new("description", Kind::TextOrNull(255)),
    Attr::fixed("created_at"),
    Attr::fixed("updated_at"),
    Attr::fixed("revision_number"),
    Attr::new("tags", Kind::Custom(tag_list)).post_only(),
];

/// The attributes of one object, checked and normalised. What was not given is absent.
#[derive(Clone, Debug, Default)]
pub struct Input(pub Map<String, Value>);

impl Input {
    pub fn has(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    /// The value, if it was given and is not null.
    pub fn get(&self, name: &str) -> Option<&Value> {
        self.0.get(name).filter(|value| !value.is_null())
    }

    pub fn is_null(&self, name: &str) -> bool {
        self.0.get(name).is_some_and(Value::is_null)
    }

    pub fn text(&self, name: &str) -> Option<&str> {
        self.get(name)?.as_str()
    }

    pub fn boolean(&self, name: &str) -> Option<bool> {
        self.get(name)?.as_bool()
    }

    pub fn int(&self, name: &str) -> Option<i64> {
        self.get(name)?.as_i64()
    }

    pub fn list(&self, name: &str) -> Option<&Vec<Value>> {
        self.get(name)?.as_array()
    }

    pub fn texts(&self, name: &str) -> Option<Vec<String>> {
        Some(self.list(name)?.iter().filter_map(|value| value.as_str().map(str::to_owned)).collect())
    }

    pub fn ip(&self, name: &str) -> Option<IpAddr> {
        self.text(name)?.parse().ok()
    }
}

fn find(attrs: &[Attr], name: &str) -> Option<Attr> {
    attrs.iter().chain(COMMON).find(|attr| attr.name == name).copied()
}

/// True where lists may be filtered and sorted by this name.
pub fn known(attrs: &[Attr], name: &str) -> bool {
    find(attrs, name).is_some()
}

/// Takes the objects out of a body: `{"network": {…}}`, or `{"networks": […]}` where many may be made at once.
pub fn objects(one: &str, many: Option<&str>, body: Value) -> Result<Vec<Map<String, Value>>> {
    let Value::Object(mut body) = body else { return Err(error::bad_request("Resource body required")) };
    if let Some(list) = many.and_then(|many| body.remove(many)) {
        let Value::Array(list) = list else { return Err(error::bad_request("Body contains invalid data")) };
        if list.is_empty() {
            return Err(error::bad_request("Resources required"));
        }
        if list.len() > BULK {
            return Err(error::bad_request(format!("At most {BULK} {one}s can be made with one request")));
        }
        return list.into_iter().map(|item| object(one, item)).collect();
    }
    match body.remove(one) {
        Some(Value::Object(map)) => Ok(vec![map]),
        Some(_) => Err(error::bad_request("Body contains invalid data")),
        None => Err(error::bad_request(format!("Unable to find '{one}' in request body"))),
    }
}

/// In a bulk request each entry may be wrapped once more, as old clients did.
fn object(one: &str, item: Value) -> Result<Map<String, Value>> {
    match item {
        Value::Object(mut map) if map.len() == 1 && map.get(one).is_some_and(Value::is_object) => {
            object(one, map.remove(one).unwrap_or_default())
        }
        Value::Object(map) => Ok(map),
        _ => Err(error::bad_request("Body contains invalid data")),
    }
}

/// Checks one object against a table.
pub fn check(attrs: &[Attr], creating: bool, mut map: Map<String, Value>) -> Result<Input> {
    if let (Some(project), Some(tenant)) = (map.get("project_id"), map.get("tenant_id"))
        && project != tenant
    {
        return Err(error::bad_request("'project_id' and 'tenant_id' do not match"));
    }
    let unknown: Vec<&str> = map.keys().map(String::as_str).filter(|name| !known(attrs, name)).collect();
    if !unknown.is_empty() {
        return Err(error::bad_request(format!("Unrecognized attribute(s) '{}'", unknown.join(", "))));
    }
    let mut input = Map::new();
    for (name, value) in std::mem::take(&mut map) {
        let Some(attr) = find(attrs, &name) else { continue };
        if creating && !attr.post {
            return Err(error::bad_request(format!("Attribute '{name}' not allowed in POST")));
        }
        if !creating && !attr.put {
            return Err(error::bad_request(format!("Cannot update read-only attribute {name}")));
        }
        let value = convert(attr.kind, value).map_err(|reason| error::invalid_attribute(&name, reason))?;
        input.insert(name, value);
    }
    if creating {
        for attr in attrs.iter().filter(|attr| attr.required && !input.contains_key(attr.name)) {
            let name = attr.name;
            return Err(error::bad_request(format!("Failed to parse request. Required attribute '{name}' not specified")));
        }
    }
    Ok(Input(input))
}

/// The guarded attributes that an input sets, so that their rules must hold.
pub fn guarded<'a>(attrs: &'a [Attr], creating: bool, input: &'a Input) -> impl Iterator<Item = &'static str> + 'a {
    attrs.iter().filter(move |attr| match attr.guard {
        Guard::Open => false,
        Guard::Unset => input.has(attr.name),
        Guard::False => input.0.get(attr.name).is_some_and(|value| !creating || value != &Value::Bool(false)),
    }).map(|attr| attr.name)
}

/// How a value looks in a sentence; Python's `None` for null, cut when long.
pub fn shown(value: &Value) -> String {
    let text = match value {
        Value::Null => "None".to_owned(),
        Value::Bool(true) => "True".to_owned(),
        Value::Bool(false) => "False".to_owned(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    if text.chars().count() > 300 { text.chars().take(300).chain("…".chars()).collect() } else { text }
}

fn convert(kind: Kind, value: Value) -> Result<Value, String> {
    match kind {
        Kind::Text(most) => text(value, most),
        Kind::TextOrNull(most) => if value.is_null() { Ok(value) } else { text(value, most) },
        Kind::Bool => boolean(&value).map(Value::Bool),
        Kind::Int(min, max) => int(&value, min, max),
        Kind::IntOrNull(min, max) => if value.is_null() { Ok(value) } else { int(&value, min, max) },
        Kind::Uuid => uuid(value),
        Kind::UuidOrNull => if value.is_null() { Ok(value) } else { uuid(value) },
        Kind::UuidList => uuid_list(value),
        Kind::IpOrNull => if value.is_null() { Ok(value) } else { ip(&value).map(|ip| ip.to_string().into()) },
        Kind::Mac => mac(&value).map(Value::String),
        Kind::Cidr => cidr(&value).map(|net| net.to_string().into()),
        Kind::OneOf(values) => match value.as_str() {
            Some(text) if values.contains(&text) => Ok(value),
            _ => Err(format!("'{}' is not in {values:?}", shown(&value))),
        },
        Kind::Dict => match value {
            Value::Null => Ok(Value::Object(Map::new())),
            Value::Object(ref map) if map.len() <= ENTRIES => Ok(value),
            _ => Err(format!("'{}' is not a dictionary", shown(&value))),
        },
        Kind::Null => if value.is_null() { Ok(value) } else { Err(format!("'{}' is not None", shown(&value))) },
        Kind::Custom(check) => check(value),
    }
}

fn text(value: Value, most: usize) -> Result<Value, String> {
    let Some(text) = value.as_str() else { return Err(format!("'{}' is not a valid string", shown(&value))) };
    if text.contains('\0') {
        return Err("it contains the character U+0000".into());
    }
    if text.chars().count() > most {
        return Err(format!("'{}' exceeds maximum length of {most}", shown(&value)));
    }
    Ok(value)
}

/// A boolean as Neutron takes it: also `"true"`, `"1"`, 0 and 1.
pub fn boolean(value: &Value) -> Result<bool, String> {
    match value {
        Value::Bool(value) => Ok(*value),
        Value::Number(number) if number.as_i64() == Some(0) => Ok(false),
        Value::Number(number) if number.as_i64() == Some(1) => Ok(true),
        Value::String(text) if matches!(text.to_ascii_lowercase().as_str(), "true" | "1") => Ok(true),
        Value::String(text) if matches!(text.to_ascii_lowercase().as_str(), "false" | "0") => Ok(false),
        other => Err(format!("'{}' cannot be converted to boolean", shown(other))),
    }
}

fn int(value: &Value, min: i64, max: i64) -> Result<Value, String> {
    let number = value.as_i64().or_else(|| value.as_str()?.trim().parse().ok());
    let number = number.ok_or_else(|| format!("'{}' is not an integer", shown(value)))?;
    if number < min {
        return Err(format!("'{number}' is too small - must be at least '{min}'"));
    }
    if number > max {
        return Err(format!("'{number}' is too large - must be no larger than '{max}'"));
    }
    Ok(number.into())
}

fn uuid(value: Value) -> Result<Value, String> {
    match value.as_str() {
        Some(text) if base::is_uuid(text) => Ok(value),
        _ => Err(format!("'{}' is not a valid UUID", shown(&value))),
    }
}

fn uuid_list(value: Value) -> Result<Value, String> {
    let Value::Array(list) = value else {
        return if value.is_null() { Ok(Value::Array(vec![])) } else { Err(format!("'{}' is not a list", shown(&value))) };
    };
    if list.len() > ENTRIES {
        return Err(format!("it has {} entries and may have at most {ENTRIES}", list.len()));
    }
    let mut seen = Vec::new();
    for item in list {
        let item = uuid(item)?;
        if seen.contains(&item) {
            return Err(format!("Duplicate items in the list: '{}'", shown(&item)));
        }
        seen.push(item);
    }
    Ok(Value::Array(seen))
}

/// An address without surroundings.
pub fn ip(value: &Value) -> Result<IpAddr, String> {
    let wrong = || format!("'{}' is not a valid IP address", shown(value));
    value.as_str().and_then(|text| text.parse().ok()).ok_or_else(wrong)
}

/// A MAC in lower case with colons. All zeros, broadcast and multicast addresses are no port's.
pub fn mac(value: &Value) -> Result<String, String> {
    let wrong = || format!("'{}' is not a valid MAC address", shown(value));
    let text = value.as_str().ok_or_else(wrong)?.to_ascii_lowercase().replace('-', ":");
    let parts: Vec<&str> = text.split(':').collect();
    let plain = parts.len() == 6 && parts.iter().all(|p| p.len() == 2 && p.bytes().all(|b| b.is_ascii_hexdigit()));
    if !plain || text == "00:00:00:00:00:00" {
        return Err(wrong());
    }
    Ok(text)
}

/// A network in canonical form. Neutron takes host bits and drops them, but wants a prefix length.
pub fn cidr(value: &Value) -> Result<IpNet, String> {
    let Some(text) = value.as_str() else { return Err(format!("'{}' is not a valid IP subnet", shown(value))) };
    if let Ok(address) = text.parse::<IpAddr>() {
        let all = IpNet::from(address);
        return Err(format!("'{text}' isn't a recognized IP subnet cidr, '{all}' is recommended"));
    }
    text.parse::<IpNet>().map(|net| net.trunc()).map_err(|_| format!("'{}' is not a valid IP subnet", shown(value)))
}

/// A list of objects, each with its own check.
pub fn entries(value: Value, each: impl Fn(Map<String, Value>) -> Result<Value, String>) -> Result<Value, String> {
    let list = match value {
        Value::Null => return Ok(Value::Array(vec![])),
        Value::Array(list) => list,
        other => return Err(format!("'{}' is not a list", shown(&other))),
    };
    if list.len() > ENTRIES {
        return Err(format!("it has {} entries and may have at most {ENTRIES}", list.len()));
    }
    let checked = list.into_iter().map(|item| match item {
        Value::Object(map) => each(map),
        other => Err(format!("'{}' is not a dictionary", shown(&other))),
    });
    Ok(Value::Array(checked.collect::<Result<_, _>>()?))
}

/// Refuses keys that are not in `known`.
pub fn only(map: &Map<String, Value>, known: &[&str]) -> Result<(), String> {
    match map.keys().find(|key| !known.contains(&key.as_str())) {
        Some(key) => Err(format!("Unexpected keys supplied: {}", shown(&Value::String(key.clone())))),
        None => Ok(()),
    }
}

/// The names of a tag list: at most 50 of at most 255 characters.
pub fn tag_list(value: Value) -> Result<Value, String> {
    let Value::Array(list) = value else { return Err(format!("'{}' is not a list", shown(&value))) };
    if list.len() > 50 {
        return Err("the number of tags exceed the per-resource limit of 50".into());
    }
    list.into_iter().map(|tag| text(tag, 255)).collect::<Result<Vec<_>, _>>().map(Value::Array)
}

/// Bounds a tag of a path.
pub fn tag(text: &str) -> Result<(), Fault> {
    limits::text("tag", text, 255)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const TABLE: &[Attr] = &[
        Attr::new("name", Kind::Text(255)),
        Attr::new("up", Kind::Bool),
        Attr::new("mtu", Kind::Int(0, 9000)),
        Attr::new("network_id", Kind::Uuid).post_only().required(),
        Attr::fixed("status"),
    ];

    #[test]
    fn bodies_are_refused_with_neutrons_sentences() {
        let net = "11111111-2222-3333-4444-555555555555";
        let cases = [
            (json!({"network_id": net, "x": 1, "y": 2}), "Unrecognized attribute(s) 'x, y'"),
            (json!({}), "Failed to parse request. Required attribute 'network_id' not specified"),
            (json!({"network_id": "7"}), "Invalid input for network_id. Reason: '7' is not a valid UUID."),
            (json!({"network_id": net, "status": "UP"}), "Attribute 'status' not allowed in POST"),
            (json!({"network_id": net, "name": 5}), "Invalid input for name. Reason: '5' is not a valid string."),
            (json!({"network_id": net, "name": null}), "Invalid input for name. Reason: 'None' is not a valid string."),
            (json!({"network_id": net, "up": "maybe"}), "Invalid input for up. Reason: 'maybe' cannot be converted to boolean."),
            (json!({"network_id": net, "mtu": 9001}), "Invalid input for mtu. Reason: '9001' is too large - must be no larger than '9000'."),
            (json!({"network_id": net, "mtu": []}), "Invalid input for mtu. Reason: '[]' is not an integer."),
            (json!({"network_id": net, "tenant_id": "a", "project_id": "b"}), "'project_id' and 'tenant_id' do not match"),
        ];
        for (body, message) in cases {
            let Value::Object(map) = body else { unreachable!() };
            assert_eq!(check(TABLE, true, map).unwrap_err().message, message);
        }
        let put = check(TABLE, false, json!({"network_id": net}).as_object().unwrap().clone());
        assert_eq!(put.unwrap_err().message, "Cannot update read-only attribute network_id");
        let good = json!({"network_id": net, "up": "True", "mtu": "1400"}).as_object().unwrap().clone();
        let input = check(TABLE, true, good).unwrap();
        assert_eq!((input.boolean("up"), input.int("mtu"), input.text("name")), (Some(true), Some(1400), None));
    }

    #[test]
    fn networks_and_macs_are_normalised_or_refused() {
        for (text, good) in [("10.0.0.7/24", Some("10.0.0.0/24")), ("fd00::1/64", Some("fd00::/64")), ("10.0.0.0", None), ("10.0.0.0/33", None), ("x", None), ("10.0.0.0/255.0.0.0", None)] {
            assert_eq!(cidr(&json!(text)).ok().map(|net| net.to_string()).as_deref(), good, "{text}");
        }
        for (text, good) in [("FA:16:3E:00:00:01", Some("fa:16:3e:00:00:01")), ("fa-16-3e-00-00-01", Some("fa:16:3e:00:00:01")), ("fa:16:3e:00:00", None), ("00:00:00:00:00:00", None), ("zz:16:3e:00:00:01", None)] {
            assert_eq!(mac(&json!(text)).ok().as_deref(), good, "{text}");
        }
    }

    #[test]
    fn bulk_bodies_have_bounds() {
        assert_eq!(objects("network", Some("networks"), json!({"networks": [{}, {"network": {"name": "x"}}]})).unwrap().len(), 2);
        for body in [json!([]), json!({}), json!({"network": 5}), json!({"networks": []}), json!({"networks": [1]}), json!({"networks": vec![json!({}); BULK + 1]})] {
            assert!(objects("network", Some("networks"), body).is_err());
        }
    }
}
