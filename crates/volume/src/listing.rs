//! Lists: filters, order and pages over what the objects show of themselves.
//!
//! A list is drawn in its newest and longest shape first; what a client filters and sorts by is what it reads.

use crate::{Ask, filters};
use base::{Fault, Result, Timestamp, limits};
use rest::input;
use serde_json::{Map, Value, json};
use std::cmp::Ordering;
use store::{Document, Query, Reader, Stored};

/// What a list knows.
pub struct Listing {
    /// The word for the list in the answer.
    pub plural: &'static str,
    pub filters: &'static [&'static str],
    /// From this version on who is no administrator is refused other filters than those of this resource.
    pub open: Option<(u16, &'static str)>,
    pub sorts: &'static [&'static str],
    /// The fields that remain where no details are asked for; empty: all.
    pub brief: &'static [&'static str],
}

/// Query parameters that are no filters.
const RESERVED: &[&str] =
    &["limit", "marker", "offset", "sort", "sort_key", "sort_dir", "all_tenants", "with_count", "is_public"];

/// A page of the newest: after the marker, and no longer than this.
#[derive(Clone)]
pub struct Newest {
    pub limit: usize,
    pub marker: Option<String>,
}

impl Newest {
    /// Its documents.
    pub fn read<T: Document>(
        &self,
        reader: &mut Reader,
        scope: Query,
        project: Option<&str>,
    ) -> Result<Vec<Stored<T>>> {
        let mut query = scope.reverse().limit(self.limit);
        if let Some(marker) = &self.marker {
            let known = reader.get::<T>(marker)?;
            if !known.is_some_and(|doc| project.is_none_or(|project| doc.project_id() == project)) {
                return Err(no_marker(marker));
            }
            query = query.after(marker.as_str());
        }
        Ok(reader.list(query)?)
    }
}

fn no_marker(marker: &str) -> Fault {
    Fault::not_found(format!("Marker {marker} could not be found."))
}

fn limit(ask: &Ask) -> Result<usize> {
    Ok(number(ask, "limit")?.map_or(limits::PAGE, |limit| limit.min(limits::PAGE)))
}

impl Listing {
    /// The answer: a page of what fits, the link to the next one, the count where it was asked for.
    pub fn page(&self, ask: &Ask, items: Vec<Value>, detail: bool) -> Result<Value> {
        self.check(ask)?;
        let limit = limit(ask)?;
        let offset = number(ask, "offset")?.unwrap_or(0);
        let order = self.order(ask)?;
        let mut items: Vec<Value> = items.into_iter().filter(|item| self.fits(ask, item)).collect();
        items.sort_by(|a, b| {
            let by = order.iter().map(|(key, down)| {
                let ordering = compare(&a[key.as_str()], &b[key.as_str()]);
                if *down { ordering.reverse() } else { ordering }
            });
            by.fold(Ordering::Equal, Ordering::then)
        });
        let count = items.len();
        let from = match ask.query.get("marker").filter(|marker| !marker.is_empty()) {
            None => 0,
            Some(marker) => {
                let at = items.iter().position(|item| item["id"] == marker);
                1 + at.ok_or_else(|| no_marker(marker))?
            }
        };
        let page: Vec<Value> = items.into_iter().skip(from + offset).take(limit).collect();
        let mut body = self.answer(ask, page, limit, detail);
        if ask.since(45) && ask.query.boolean("with_count")?.unwrap_or(false) {
            body.insert("count".to_owned(), json!(count));
        }
        Ok(Value::Object(body))
    }

    /// Refuses filters that this caller has not got, and values that a filter cannot have.
    fn check(&self, ask: &Ask) -> Result<()> {
        let strict = self
            .open
            .filter(|(since, _)| ask.since(*since) && !ask.is_admin())
            .map(|(_, resource)| filters::of(resource));
        for (name, wanted) in ask.query.iter().filter(|(name, _)| !RESERVED.contains(name)) {
            let plain = if ask.since(34) { name.strip_suffix('~').unwrap_or(name) } else { name };
            if strict.is_some_and(|open| !open.contains(&plain)) {
                return Err(Fault::invalid(format!("Invalid filters {name:.100} are found in query options.")));
            }
            if !self.filters.contains(&name) {
                continue;
            }
            match name {
                "created_at" | "updated_at" => times(name, wanted)?,
                "bootable" | "multiattach" if ask.since(2) => input::boolean(name, &json!(wanted)).map(drop)?,
                _ => {}
            }
        }
        Ok(())
    }

    /// What to read where a list is in the order of creation, the newest first, and nothing narrows or counts it: then
    /// no more than its page has to be looked at.
    pub fn newest(&self, ask: &Ask) -> Result<Option<Newest>> {
        let plain = |(name, value): (&str, &str)| match name {
            "limit" | "marker" | "all_tenants" => true,
            "sort_dir" => value == "desc",
            _ => false,
        };
        if !ask.query.iter().all(plain) {
            return Ok(None);
        }
        let marker = ask.query.get("marker").filter(|marker| !marker.is_empty()).map(str::to_owned);
        Ok(Some(Newest { limit: limit(ask)?, marker }))
    }

    /// The answer of such a page.
    pub fn newest_page(&self, ask: &Ask, page: Vec<Value>, newest: &Newest, detail: bool) -> Value {
        Value::Object(self.answer(ask, page, newest.limit, detail))
    }

    fn answer(&self, ask: &Ask, mut page: Vec<Value>, limit: usize, detail: bool) -> Map<String, Value> {
        let last = page.last().and_then(|item| item["id"].as_str()).map(str::to_owned);
        if !detail && !self.brief.is_empty() {
            page.iter_mut().for_each(|item| keep(item, self.brief));
        }
        let full = page.len() == limit;
        let mut body = Map::new();
        body.insert(self.plural.to_owned(), Value::Array(page));
        if let Some(last) = last.filter(|_| full) {
            let href = format!("{}{}?{}", ask.base_url, ask.path, ask.query.with("marker", &last));
            body.insert(format!("{}_links", self.plural), json!([{"rel": "next", "href": href}]));
        }
        body
    }

    fn order(&self, ask: &Ask) -> Result<Vec<(String, bool)>> {
        let mut keys: Vec<(String, bool)> = Vec::new();
        if ask.query.has("sort") && (ask.query.has("sort_key") || ask.query.has("sort_dir")) {
            return Err(Fault::invalid("sort cannot be used together with sort_key or sort_dir, which are older."));
        }
        if let Some(sort) = ask.query.get("sort") {
            for part in sort.split(',') {
                let (key, direction) = part.split_once(':').unwrap_or((part, "desc"));
                keys.push((key.trim().to_owned(), down(direction.trim())?));
            }
        } else if let Some(key) = ask.query.get("sort_key") {
            keys.push((key.to_owned(), down(ask.query.get("sort_dir").unwrap_or("desc"))?));
        }
        for (key, _) in &mut keys {
            if key == "display_name" {
                *key = "name".into();
            }
            if !self.sorts.contains(&key.as_str()) {
                return Err(Fault::invalid(format!("Invalid input received: Sort keys are invalid: {key}")));
            }
        }
        let default_down = match ask.query.get("sort_dir") {
            Some(direction) => down(direction)?,
            None => true,
        };
        keys.push(("created_at".into(), default_down));
        keys.push(("id".into(), default_down));
        Ok(keys)
    }

    /// A name that is no filter is none of ours: Cinder ignores it for who is no administrator, and so do we for all.
    fn fits(&self, ask: &Ask, item: &Value) -> bool {
        ask.query.iter().filter(|(name, _)| !RESERVED.contains(name)).all(|(name, wanted)| {
            let (name, like) = match name.strip_suffix('~') {
                Some(name) if ask.since(34) => (name, true),
                _ => (name, false),
            };
            let name = if name == "display_name" { "name" } else { name };
            if !self.filters.contains(&name) {
                return true;
            }
            let value = match name {
                "project_id" => &item["os-vol-tenant-attr:tenant_id"],
                "host" => &item["os-vol-host-attr:host"],
                "glance_metadata" => &item["volume_image_metadata"],
                _ => &item[name],
            };
            match name {
                "metadata" | "glance_metadata" | "extra_specs" => holds(value, wanted),
                "bootable" | "multiattach" => is_true(wanted) == (text(value) == "true"),
                "created_at" | "updated_at" => in_time(value, wanted),
                _ if like => text(value).contains(wanted),
                _ => text(value).eq_ignore_ascii_case(wanted),
            }
        })
    }
}

/// Leaves these fields of an object.
pub fn keep(item: &mut Value, fields: &[&str]) {
    if let Some(map) = item.as_object_mut() {
        map.retain(|name, _| fields.contains(&name.as_str()));
    }
}

fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        other => other.to_string(),
    }
}

fn compare(a: &Value, b: &Value) -> Ordering {
    match (a.as_i64(), b.as_i64()) {
        (Some(a), Some(b)) => a.cmp(&b),
        _ => text(a).cmp(&text(b)),
    }
}

/// A dictionary as Python clients write it into a query: `{'a': 'b'}`.
fn holds(value: &Value, wanted: &str) -> bool {
    let wanted: Map<String, Value> =
        serde_json::from_str(&wanted.replace("u'", "'").replace('\'', "\"")).unwrap_or_default();
    !wanted.is_empty() && wanted.iter().all(|(key, wanted)| value[key.as_str()] == *wanted)
}

/// Before 3.2 whatever is not false counts as true.
fn is_true(wanted: &str) -> bool {
    input::boolean("", &json!(wanted)).unwrap_or(!wanted.eq_ignore_ascii_case("false"))
}

const OPERATORS: &[&str] = &["gt", "gte", "eq", "neq", "lt", "lte"];

/// `gt:TIME,lte:TIME`.
fn times(name: &str, wanted: &str) -> Result<()> {
    for part in wanted.split(',') {
        let (operator, time) = part.split_once(':').unwrap_or((part, ""));
        if !OPERATORS.contains(&operator) {
            return Err(Fault::invalid(format!(
                "Invalid {name} operator: one of {} comes before a time.",
                OPERATORS.join(", ")
            )));
        }
        if Timestamp::parse(time).is_none() {
            return Err(Fault::invalid(format!("Invalid {time:.50} value")));
        }
    }
    Ok(())
}

/// All of them must hold.
fn in_time(value: &Value, wanted: &str) -> bool {
    let Some(value) = value.as_str().and_then(Timestamp::parse) else { return false };
    wanted.split(',').all(|part| {
        let Some((operator, time)) = part.split_once(':') else { return false };
        let Some(time) = Timestamp::parse(time) else { return false };
        match operator {
            "gt" => value > time,
            "gte" => value >= time,
            "lt" => value < time,
            "lte" => value <= time,
            "neq" => value != time,
            _ => value == time,
        }
    })
}

fn down(direction: &str) -> Result<bool> {
    match direction {
        "asc" => Ok(false),
        "desc" => Ok(true),
        other => Err(Fault::invalid(format!("Unknown sort direction, must be 'desc' or 'asc', not '{other:.20}'"))),
    }
}

fn number(ask: &Ask, name: &str) -> Result<Option<usize>> {
    let asked = ask.query.number(name);
    let asked =
        asked.map_err(|_| Fault::invalid(format!("Invalid input received: {name} must be an integer of 0 or more")))?;
    Ok(asked.map(|number| usize::try_from(number).unwrap_or(usize::MAX)))
}
