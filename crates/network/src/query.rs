//! What a list request asks for: filters, order, page and fields. Works on the objects as they are shown.

use crate::attr::{self, Attr};
use crate::error;
use base::{Result, limits};
use rest::Query;
use serde_json::{Map, Value, json};
use std::cmp::Ordering;

/// Names in a query that are no filters.
const CONTROL: &[&str] = &["limit", "marker", "page_reverse", "sort_key", "sort_dir", "fields", "verbose"];
const TAGS: &[&str] = &["tags", "tags-any", "not-tags", "not-tags-any"];

/// A list request, read and checked.
#[derive(Clone, Debug)]
pub struct ListRequest {
    filters: Vec<(String, Vec<String>)>,
    sort: Vec<(String, bool)>,
    pub limit: Option<usize>,
    pub marker: Option<String>,
    pub reverse: bool,
    fields: Vec<String>,
}

impl ListRequest {
    /// Refuses filters and sort keys that the resource does not have. `extra` are filters beyond the attributes.
    pub fn read(query: &Query, attrs: &[Attr], extra: &[&str]) -> Result<ListRequest> {
        let mut request = ListRequest {
            filters: Vec::new(),
            sort: sort(query, attrs)?,
            limit: limit(query)?,
            marker: query.get("marker").filter(|marker| !marker.is_empty()).map(str::to_owned),
            reverse: query.get("page_reverse").is_some_and(|text| matches!(text.to_ascii_lowercase().as_str(), "true" | "1")),
            fields: query.all("fields").filter(|field| !field.is_empty()).map(str::to_owned).collect(),
        };
        let mut unknown = Vec::new();
        for (name, value) in query.iter().filter(|pair| !CONTROL.contains(&pair.0)) {
            if !attr::known(attrs, name) && !TAGS.contains(&name) && !extra.contains(&name) && name != "changed_since" {
                unknown.push(name);
            }
            match request.filters.iter_mut().find(|filter| filter.0 == name) {
                Some(filter) => filter.1.push(value.to_owned()),
                None => request.filters.push((name.to_owned(), vec![value.to_owned()])),
            }
        }
        if !unknown.is_empty() {
            unknown.dedup();
            return Err(error::bad_request(format!("{unknown:?} is invalid attribute for filtering").replace('"', "'")));
        }
        Ok(request)
    }

    /// The only value of a filter: for finding an index.
    pub fn one(&self, name: &str) -> Option<&str> {
        match self.filters.iter().find(|filter| filter.0 == name)?.1.as_slice() {
            [one] => Some(one),
            _ => None,
        }
    }

    /// The number of objects asked for, where their order is that of creation.
    pub fn first(&self) -> Option<usize> {
        self.limit.filter(|_| self.sort.is_empty() && !self.reverse)
    }

    pub fn matches(&self, object: &Map<String, Value>) -> bool {
        self.filters.iter().all(|(name, wanted)| matches(object, name, wanted))
    }

    /// Orders, and cuts the page. None when the marker names none of them.
    pub fn page(&self, mut objects: Vec<Map<String, Value>>) -> Option<Vec<Map<String, Value>>> {
        objects.sort_by(|a, b| self.compare(a, b));
        if self.reverse {
            objects.reverse();
        }
        if let Some(marker) = &self.marker {
            let at = objects.iter().position(|object| object.get("id").and_then(Value::as_str) == Some(marker))?;
            objects.drain(..=at);
        }
        if let Some(limit) = self.limit {
            objects.truncate(limit);
        }
        if self.reverse {
            objects.reverse();
        }
        Some(objects)
    }

    fn compare(&self, a: &Map<String, Value>, b: &Map<String, Value>) -> Ordering {
        for (key, descending) in &self.sort {
            let order = order(a.get(key).unwrap_or(&Value::Null), b.get(key).unwrap_or(&Value::Null));
            let order = if *descending { order.reverse() } else { order };
            if order.is_ne() {
                return order;
            }
        }
        // The sort is stable, so that what is equal stays in the order of creation.
        Ordering::Equal
    }

    /// Keeps the asked-for fields. Unknown names are ignored, as in Neutron.
    pub fn fields(&self, object: &mut Map<String, Value>) {
        if !self.fields.is_empty() {
            object.retain(|name, _| self.fields.iter().any(|field| field == name));
        }
    }

    /// The links beside a page, as Neutron counts them.
    pub fn links(&self, base: &str, query: &Query, ids: (Option<String>, Option<String>), count: usize) -> Option<Value> {
        let limit = self.limit?;
        let mut links = Vec::new();
        if count >= limit || self.reverse {
            links.push(json!({"rel": "next", "href": href(base, query, ids.1, false)}));
        }
        if count >= limit || !self.reverse {
            links.push(json!({"rel": "previous", "href": href(base, query, ids.0, true)}));
        }
        Some(Value::Array(links))
    }
}

fn href(base: &str, query: &Query, marker: Option<String>, reverse: bool) -> String {
    let pairs: Vec<(&str, &str)> = query.iter().filter(|pair| !matches!(pair.0, "marker" | "page_reverse")).collect();
    let marker = marker.as_deref();
    let all = pairs.into_iter().chain(marker.map(|id| ("marker", id))).chain(reverse.then_some(("page_reverse", "True")));
    let text: Vec<String> = all.map(|(name, value)| format!("{}={}", encoded(name), encoded(value))).collect();
    format!("{base}?{}", text.join("&"))
}

fn encoded(text: &str) -> String {
    text.bytes().map(|byte| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => char::from(byte).to_string(),
        other => format!("%{other:02X}"),
    }).collect()
}

fn limit(query: &Query) -> Result<Option<usize>> {
    let Some(text) = query.get("limit") else { return Ok(None) };
    let wrong = || error::bad_request(format!("limit must be an integer 0 or greater and not '{text}'"));
    let number: i64 = text.parse().map_err(|_| wrong())?;
    match number {
        ..0 => Err(wrong()),
        0 => Ok(None),
        _ => Ok(Some(usize::try_from(number).unwrap_or(limits::PAGE).min(limits::PAGE))),
    }
}

fn sort(query: &Query, attrs: &[Attr]) -> Result<Vec<(String, bool)>> {
    let keys: Vec<&str> = query.all("sort_key").collect();
    let directions: Vec<&str> = query.all("sort_dir").collect();
    if keys.len() != directions.len() && !directions.is_empty() {
        return Err(error::bad_request("The number of sort_keys and sort_dirs must be same"));
    }
    if let Some(wrong) = keys.iter().find(|key| !attr::known(attrs, key)) {
        return Err(error::bad_request(format!("['{wrong}'] is invalid attribute for sort_keys")));
    }
    if let Some(wrong) = directions.iter().find(|direction| !matches!(**direction, "asc" | "desc")) {
        return Err(error::bad_request(format!("['{wrong}'] is invalid value for sort_dirs, valid value is 'asc' and 'desc'")));
    }
    let directions = directions.into_iter().chain(std::iter::repeat("asc"));
    Ok(keys.into_iter().zip(directions).map(|(key, direction)| (key.to_owned(), direction == "desc")).collect())
}

fn order(a: &Value, b: &Value) -> Ordering {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => a.as_i64().cmp(&b.as_i64()),
        (Value::Bool(a), Value::Bool(b)) => a.cmp(b),
        (Value::String(a), Value::String(b)) => a.cmp(b),
        (Value::Null, Value::Null) => Ordering::Equal,
        (Value::Null, _) => Ordering::Less,
        (_, Value::Null) => Ordering::Greater,
        (a, b) => a.to_string().cmp(&b.to_string()),
    }
}

fn matches(object: &Map<String, Value>, name: &str, wanted: &[String]) -> bool {
    let tags: Vec<&str> = object.get("tags").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).collect();
    let named = || wanted.iter().flat_map(|list| list.split(','));
    match name {
        "tags" => named().all(|tag| tags.contains(&tag)),
        "tags-any" => named().any(|tag| tags.contains(&tag)),
        "not-tags" => !named().all(|tag| tags.contains(&tag)),
        "not-tags-any" => !named().any(|tag| tags.contains(&tag)),
        "changed_since" => changed_since(object, wanted),
        "fixed_ips" => wanted.iter().any(|wanted| fixed_ip(object, wanted)),
        _ => {
            let Some(value) = object.get(name) else { return false };
            wanted.iter().any(|wanted| equal(value, wanted))
        }
    }
}

/// `ip_address=10.0.0.3`, `subnet_id=ID` or `ip_address_substr=10.0`.
fn fixed_ip(object: &Map<String, Value>, wanted: &str) -> bool {
    let Some((key, wanted)) = wanted.split_once('=') else { return false };
    let fixed = object.get("fixed_ips").and_then(Value::as_array).into_iter().flatten();
    let field = |fixed: &'_ Value, name: &str| fixed.get(name).and_then(Value::as_str).unwrap_or("").to_owned();
    fixed.into_iter().any(|fixed| match key {
        "ip_address_substr" => field(fixed, "ip_address").contains(wanted),
        "ip_address" => same_address(&field(fixed, "ip_address"), wanted),
        key => field(fixed, key) == wanted,
    })
}

fn same_address(a: &str, b: &str) -> bool {
    a == b || b.parse::<std::net::IpAddr>().is_ok_and(|b| a == b.to_string())
}

fn changed_since(object: &Map<String, Value>, wanted: &[String]) -> bool {
    let Some(since) = wanted.first().and_then(|text| base::Timestamp::parse(text)) else { return false };
    let at = object.get("updated_at").and_then(Value::as_str).and_then(base::Timestamp::parse);
    at.is_some_and(|at| at >= since)
}

fn equal(value: &Value, wanted: &str) -> bool {
    match value {
        Value::String(text) => text == wanted || same_address(text, wanted),
        Value::Bool(value) => attr::boolean(&Value::String(wanted.to_owned())) == Ok(*value),
        Value::Number(number) => number.to_string() == wanted,
        Value::Null => matches!(wanted, "" | "null" | "None"),
        Value::Array(list) => list.iter().any(|item| equal(item, wanted)),
        Value::Object(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attr::Kind;

    const TABLE: &[Attr] = &[Attr::new("name", Kind::Text(255)), Attr::new("admin_state_up", Kind::Bool), Attr::new("mtu", Kind::Int(0, 9000)), Attr::new("fixed_ips", Kind::Null), Attr::new("device_id", Kind::Text(255))];

    fn objects() -> Vec<Map<String, Value>> {
        let list = json!([
            {"id": "1", "name": "b", "admin_state_up": true, "mtu": 1500, "tags": ["x", "y"], "fixed_ips": [{"subnet_id": "s", "ip_address": "10.0.0.3"}]},
            {"id": "2", "name": "a", "admin_state_up": false, "mtu": 9000, "tags": ["x"], "fixed_ips": []},
            {"id": "3", "name": "a", "admin_state_up": true, "mtu": 900, "tags": [], "fixed_ips": [], "device_id": ""}
        ]);
        list.as_array().unwrap().iter().map(|object| object.as_object().unwrap().clone()).collect()
    }

    fn ids(query: &str) -> String {
        let request = match ListRequest::read(&Query::parse(query).unwrap(), TABLE, &[]) {
            Ok(request) => request,
            Err(fault) => return fault.message,
        };
        let found = objects().into_iter().filter(|object| request.matches(object)).collect();
        let Some(page) = request.page(found) else { return "lost".into() };
        page.iter().map(|object| object["id"].as_str().unwrap()).collect()
    }

    #[test]
    fn filters_orders_and_pages() {
        for (query, found) in [
            ("", "123"),
            ("name=a", "23"),
            ("name=a&name=b", "123"),
            ("name=c", ""),
            ("admin_state_up=True", "13"),
            ("admin_state_up=maybe", ""),
            ("mtu=900", "3"),
            ("device_id=", "3"),
            ("tags=x,y", "1"),
            ("tags-any=y,z", "1"),
            ("not-tags=x", "3"),
            ("not-tags-any=y", "23"),
            ("fixed_ips=ip_address%3D10.0.0.3", "1"),
            ("fixed_ips=ip_address_substr%3D10.0", "1"),
            ("fixed_ips=subnet_id%3Dt", ""),
            ("sort_key=name&sort_dir=asc", "231"),
            ("sort_key=mtu&sort_dir=desc", "213"),
            ("sort_key=name&sort_key=mtu&sort_dir=asc&sort_dir=asc", "321"),
            ("limit=2", "12"),
            ("limit=2&marker=1", "23"),
            ("limit=1&marker=3&page_reverse=True", "2"),
            ("marker=9", "lost"),
            ("limit=0", "123"),
            ("limit=-1", "limit must be an integer 0 or greater and not '-1'"),
            ("color=red", "['color'] is invalid attribute for filtering"),
            ("sort_key=color", "['color'] is invalid attribute for sort_keys"),
            ("sort_key=name&sort_dir=up", "['up'] is invalid value for sort_dirs, valid value is 'asc' and 'desc'"),
        ] {
            assert_eq!(ids(query), found, "{query}");
        }
    }

    #[test]
    fn links_lead_both_ways() {
        let query = Query::parse("limit=2&name=a b&marker=1").unwrap();
        let request = ListRequest::read(&query, TABLE, &[]).unwrap();
        let links = request.links("http://h/network/v2.0/networks", &query, (Some("2".into()), Some("3".into())), 2).unwrap();
        assert_eq!(links[0]["href"], "http://h/network/v2.0/networks?limit=2&name=a%20b&marker=3");
        assert_eq!(links[1]["href"], "http://h/network/v2.0/networks?limit=2&name=a%20b&marker=2&page_reverse=True");
        assert_eq!(request.links("", &query, (None, None), 1).unwrap().as_array().unwrap().len(), 1);
    }
}
