//! What all resources share when they answer: the right to ask, links, filters and pages.

use base::{Fault, Result};
use policy::Target;
use rest::{Call, Page, Reply};
use serde_json::{Map, Value, json};

/// Forbidden unless the caller may do what the route is for. The sentence is Keystone's.
pub fn forbid(call: &Call, target: &Target) -> Result<()> {
    forbid_rule(call, call.rule, target)
}

pub fn forbid_rule(call: &Call, rule: &str, target: &Target) -> Result<()> {
    if call.may(rule, target) {
        return Ok(());
    }
    Err(Fault::forbidden(format!("You are not authorized to perform the requested action: {rule}.")))
}

/// Looks a thing up and asks for the right to it. A caller without the right reads the same for what is foreign and for
/// what does not exist: first the target is built, empty if there is nothing, then the right is asked for.
pub fn allowed<T>(call: &Call, found: Option<T>, what: &str, target: impl Fn(&T) -> Target<'static>) -> Result<T> {
    forbid(call, &found.as_ref().map_or_else(Target::new, target))?;
    found.ok_or_else(|| missing(what, call.param("id")))
}

pub fn missing(what: &str, id: &str) -> Fault {
    Fault::not_found(format!("Could not find {what}: {id}."))
}

/// The object with its link.
pub fn linked(call: &Call, collection: &str, mut object: Map<String, Value>) -> Value {
    let id = object.get("id").and_then(Value::as_str).unwrap_or("").to_owned();
    object.insert("links".into(), json!({"self": call.link(&format!("/v3/{collection}/{id}"))}));
    Value::Object(object)
}

/// `{"project": {…}}`.
pub fn single(call: &Call, status: u16, name: &str, object: Value) -> Result<Reply> {
    call.reply(status, &Value::Object(Map::from_iter([(name.to_owned(), object)])))
}

/// A list that is not filtered.
pub fn collection(call: &Call, name: &str, items: Vec<Value>) -> Result<Reply> {
    paged(call, name, items, false)
}

fn paged(call: &Call, name: &str, items: Vec<Value>, truncated: bool) -> Result<Reply> {
    let mut links = json!({"next": null, "self": here(call), "previous": null});
    let page = if call.query.has("limit") || call.query.has("marker") {
        let request = call.page()?;
        let page = Page::cut(items, &request, |item| item["id"].as_str().unwrap_or(""))?;
        if let (true, Some(last)) = (page.more, page.items.last().and_then(|item| item["id"].as_str())) {
            links["next"] = format!("{}?{}", here(call), call.query.with("marker", last)).into();
        }
        page.items
    } else {
        items
    };
    let mut body = Map::from_iter([("links".to_owned(), links), (name.to_owned(), page.into())]);
    if truncated {
        body.insert("truncated".into(), true.into());
    }
    call.reply(200, &Value::Object(body))
}

fn here(call: &Call) -> String {
    format!("{}{}", call.base_url, call.path)
}

/// A list, filtered by the query: `name=x` for the attributes named, and `name__contains=x` and its kin for any.
pub fn filtered(call: &Call, name: &str, items: Vec<Value>, exact: &[&str]) -> Result<Reply> {
    cut(call, name, items, exact, false)
}

/// The same, of a list that may have been cut before.
pub fn cut(call: &Call, name: &str, items: Vec<Value>, exact: &[&str], truncated: bool) -> Result<Reply> {
    let mut tests: Vec<(&str, &str, &str)> = Vec::new();
    for (key, wanted) in call.query.iter() {
        if exact.contains(&key) {
            tests.push((key, "", wanted));
        } else if let Some((attribute, comparator)) = key.split_once("__") {
            tests.push((attribute, comparator, wanted));
        }
    }
    let keeps = |item: &Value| tests.iter().all(|(attribute, how, wanted)| fits(&item[*attribute], how, wanted));
    paged(call, name, items.into_iter().filter(keeps).collect(), truncated)
}

/// One comparison. An unknown comparator keeps everything.
fn fits(value: &Value, how: &str, wanted: &str) -> bool {
    if let Value::Bool(value) = value {
        // Keystone's reading of a flag in a query: only these are no.
        return *value != matches!(wanted.to_ascii_lowercase().as_str(), "0" | "false" | "no" | "off");
    }
    let text = match value {
        Value::String(text) => text.clone(),
        Value::Null => return how.is_empty() && matches!(wanted, "" | "null" | "None"),
        other => other.to_string(),
    };
    let (lower, wanted_lower) = (text.to_lowercase(), wanted.to_lowercase());
    match how {
        "" => text == wanted,
        "contains" => text.contains(wanted),
        "startswith" => text.starts_with(wanted),
        "endswith" => text.ends_with(wanted),
        "icontains" => lower.contains(&wanted_lower),
        "istartswith" => lower.starts_with(&wanted_lower),
        "iendswith" => lower.ends_with(&wanted_lower),
        _ => true,
    }
}

/// A query flag that counts as set when it is there and says nothing of no: `?effective`, `?include_names=True`.
pub fn set(call: &Call, name: &str) -> bool {
    call.query.get(name).is_some_and(|text| !matches!(text.to_ascii_lowercase().as_str(), "0" | "false" | "no" | "off"))
}
