//! Which images a list shows, and in which order.

use crate::document::{Image, MemberStatus, Visibility};
use base::{Fault, Result, Timestamp};
use rest::Query;
use std::cmp::Ordering;
use std::collections::VecDeque;
use store::{Reader, Stored};

/// Glance's page when a client names none.
const PAGE: usize = 25;
/// Images that are read at a time: memory is used again while a long page is written.
const PIECE: usize = 128;
const SORT_KEYS: [&str; 8] =
    ["name", "status", "container_format", "disk_format", "size", "id", "created_at", "updated_at"];

/// A list as a client asks for it.
pub struct Wanted {
    filters: Vec<Filter>,
    visibility: Wish,
    /// None: shared images of any membership.
    pub member_status: Option<MemberStatus>,
    /// Attribute, and whether it rises.
    sort: Vec<(String, bool)>,
    pub limit: usize,
    pub marker: Option<String>,
}

/// Images in the order of creation, read in pieces.
pub struct Source {
    query: store::Query,
    read: VecDeque<Stored<Image>>,
    ended: bool,
}

impl Source {
    pub fn of(query: store::Query) -> Source {
        Source { query: query.limit(PIECE), read: VecDeque::new(), ended: false }
    }

    /// These, which are in that order.
    pub fn these(images: Vec<Stored<Image>>) -> Source {
        Source { query: store::Query::all(), read: images.into(), ended: true }
    }

    /// Reads on where nothing is left.
    fn fill(&mut self, reader: &mut Reader) -> Result<()> {
        if self.read.is_empty() && !self.ended {
            self.read = reader.list::<Image>(self.query.clone())?.into();
            self.ended = self.read.len() < PIECE;
            if let Some(last) = self.read.back() {
                self.query = self.query.clone().after(last.id.as_str());
            }
        }
        Ok(())
    }
}

enum Wish {
    /// Everything except the community images of others.
    Usual,
    All,
    Only(Visibility),
}

enum Filter {
    Text(String, Vec<String>),
    Least(String, i64),
    Most(String, i64),
    Time { created: bool, operator: String, at: Timestamp },
    Tag(String),
    Hidden(bool),
    Protected(bool),
    Property(String, String),
}

impl Wanted {
    pub fn read(query: &Query) -> Result<Wanted> {
        let limit = match query.get("limit") {
            None => PAGE,
            Some(text) => {
                let number: i64 = text.parse().map_err(|_| Fault::invalid("limit param must be an integer"))?;
                usize::try_from(number).map_err(|_| Fault::invalid("limit param must be positive"))?
            }
        };
        let mut wanted = Wanted {
            filters: Vec::new(),
            visibility: Wish::Usual,
            member_status: member_status(query.get("member_status").unwrap_or("accepted"))?,
            sort: sorting(query)?,
            limit: limit.min(base::limits::PAGE),
            marker: query.get("marker").map(str::to_owned),
        };
        if !query.has("os_hidden") {
            wanted.filters.push(Filter::Hidden(false));
        }
        for (name, value) in query.iter() {
            wanted.filter(name, value)?;
        }
        Ok(wanted)
    }

    fn filter(&mut self, name: &str, value: &str) -> Result<()> {
        let filter = match name {
            "limit" | "marker" | "member_status" | "sort" | "sort_key" | "sort_dir" | "deleted" => return Ok(()),
            "visibility" => {
                self.visibility = match (Visibility::parse(value), value) {
                    (Some(one), _) => Wish::Only(one),
                    (None, "all") => Wish::All,
                    _ => return Err(Fault::invalid(format!("Invalid visibility value: {value}"))),
                };
                return Ok(());
            }
            "changes-since" => {
                return Err(Fault::invalid("The \"changes-since\" filter is no longer available on v2."));
            }
            "tag" => Filter::Tag(value.trim().to_owned()),
            "os_hidden" => Filter::Hidden(true_or_false(name, &value.to_ascii_lowercase())?),
            "protected" => Filter::Protected(true_or_false(name, value)?),
            "created_at" | "updated_at" => time(name, value)?,
            "name" | "id" | "status" | "container_format" | "disk_format" => {
                Filter::Text(name.to_owned(), alternatives(value)?)
            }
            "owner" | "checksum" | "os_hash_value" | "os_hash_algo" => {
                Filter::Text(name.to_owned(), vec![value.to_owned()])
            }
            "size_min" | "min_ram_min" | "min_disk_min" => {
                Filter::Least(name[..name.len() - 4].to_owned(), number(value)?)
            }
            "size_max" | "min_ram_max" | "min_disk_max" => {
                Filter::Most(name[..name.len() - 4].to_owned(), number(value)?)
            }
            "size" | "min_ram" | "min_disk" | "virtual_size" => {
                self.filters.push(Filter::Least(name.to_owned(), number(value)?));
                Filter::Most(name.to_owned(), number(value)?)
            }
            custom => Filter::Property(custom.to_owned(), value.to_owned()),
        };
        self.filters.push(filter);
        Ok(())
    }

    /// Whether the list is in the order of creation, which is the store's own, and whether that rises.
    pub fn by_creation(&self) -> Option<bool> {
        match self.sort.as_slice() {
            [(key, rises)] if key == "created_at" => Some(*rises),
            _ => None,
        }
    }

    /// The page of a list in the order of creation: reads no further than its last image, and hands out each as it
    /// comes. Each of the sources is in that order and begins after the marker; what several have is taken once.
    pub fn read_page(
        &self,
        sources: &mut [Source],
        reader: &mut Reader,
        own: Option<&str>,
        shown: impl Fn(Stored<Image>) -> Stored<Image>,
        mut each: impl FnMut(&Stored<Image>) -> Result<()>,
    ) -> Result<()> {
        let (mut count, mut last) = (0, None);
        while count < self.limit {
            for source in &mut *sources {
                source.fill(reader)?;
            }
            let heads = sources.iter_mut().filter(|source| !source.read.is_empty());
            let Some(first) = heads.min_by(|a, b| self.order(&a.read[0], &b.read[0])) else { break };
            let Some(image) = first.read.pop_front() else { break };
            if last.as_ref() == Some(&image.id) {
                continue;
            }
            last = Some(image.id.clone());
            let image = shown(image);
            if self.shows(&image, own) {
                each(&image)?;
                count += 1;
            }
        }
        Ok(())
    }

    /// Picks the page out of all images that the caller may see. Invalid when the marker is none of those seen.
    /// `own` is the caller's project.
    pub fn page(&self, seen: Vec<Stored<Image>>, own: Option<&str>) -> Result<Vec<Stored<Image>>> {
        let marker = match &self.marker {
            None => None,
            Some(id) => {
                let found = seen.iter().find(|image| *image.id == **id).cloned();
                Some(found.ok_or_else(|| no_marker(id))?)
            }
        };
        let mut images: Vec<_> = seen.into_iter().filter(|image| self.shows(image, own)).collect();
        self.put_in_order(&mut images, marker.as_ref());
        images.truncate(self.limit);
        Ok(images)
    }

    /// Sorts, and takes out what is not after the marker.
    pub fn put_in_order(&self, images: &mut Vec<Stored<Image>>, marker: Option<&Stored<Image>>) {
        images.sort_by(|a, b| self.order(a, b));
        if let Some(marker) = marker {
            images.retain(|image| self.order(image, marker) == Ordering::Greater);
        }
    }

    fn shows(&self, image: &Stored<Image>, own: Option<&str>) -> bool {
        let visible = match self.visibility {
            Wish::All => true,
            Wish::Only(visibility) => image.visibility == visibility,
            Wish::Usual => {
                image.visibility != Visibility::Community || own.is_some_and(|own| image.owner.as_deref() == Some(own))
            }
        };
        visible && self.filters.iter().all(|filter| filter.holds(image))
    }

    fn order(&self, a: &Stored<Image>, b: &Stored<Image>) -> Ordering {
        let falls = !self.sort.first().is_some_and(|(_, rises)| *rises);
        let ends = [("created_at".to_owned(), !falls), ("id".to_owned(), !falls)];
        let keys = self.sort.iter().chain(&ends);
        keys.map(|(key, rises)| if *rises { compare(key, a, b) } else { compare(key, b, a) })
            .find(|order| *order != Ordering::Equal)
            .unwrap_or(Ordering::Equal)
    }
}

pub fn no_marker(id: &str) -> Fault {
    Fault::invalid(format!("No image found with ID {id}"))
}

fn compare(key: &str, a: &Stored<Image>, b: &Stored<Image>) -> Ordering {
    match key {
        "created_at" => a.created.cmp(&b.created),
        "updated_at" => a.updated.cmp(&b.updated),
        "size" => integer("size", a).cmp(&integer("size", b)),
        text => self::text(text, a).cmp(&self::text(text, b)),
    }
}

impl Filter {
    fn holds(&self, image: &Stored<Image>) -> bool {
        match self {
            Filter::Text(name, any) => text(name, image).is_some_and(|text| any.iter().any(|one| one == text)),
            Filter::Least(name, bound) => integer(name, image).is_some_and(|number| number >= *bound),
            Filter::Most(name, bound) => integer(name, image).is_some_and(|number| number <= *bound),
            Filter::Time { created, operator, at } => {
                // Times are shown in whole seconds, so they are compared in whole seconds.
                let time = if *created { image.created } else { image.updated };
                let order = (time.micros() / 1_000_000).cmp(&(at.micros() / 1_000_000));
                match operator.as_str() {
                    "gt" => order.is_gt(),
                    "gte" => order.is_ge(),
                    "lt" => order.is_lt(),
                    "lte" => order.is_le(),
                    "neq" => order.is_ne(),
                    _ => order.is_eq(),
                }
            }
            Filter::Tag(tag) => image.tags.contains(tag),
            Filter::Hidden(hidden) => image.hidden == *hidden,
            Filter::Protected(protected) => image.protected == *protected,
            Filter::Property(name, value) => image.properties.get(name) == Some(value),
        }
    }
}

fn text<'a>(name: &str, image: &'a Image) -> Option<&'a str> {
    let contents = image.contents.as_ref();
    match name {
        "name" => image.name.as_deref(),
        "id" => Some(image.id.as_str()),
        "status" => Some(image.status.as_str()),
        "container_format" => image.container_format.as_deref(),
        "disk_format" => image.disk_format.as_deref(),
        "owner" => image.owner.as_deref(),
        "checksum" => contents.map(|contents| contents.md5.as_str()),
        "os_hash_value" => contents.map(|contents| contents.hash().1),
        "os_hash_algo" => contents.map(|contents| contents.hash().0),
        _ => None,
    }
}

fn integer(name: &str, image: &Image) -> Option<i64> {
    let number = match name {
        "size" => image.contents.as_ref().map(|contents| contents.size_bytes),
        "virtual_size" => image.contents.as_ref().and_then(|contents| contents.virtual_size_bytes),
        "min_ram" => Some(image.min_ram_mib),
        "min_disk" => Some(image.min_disk_gib),
        _ => None,
    };
    number.and_then(|number| i64::try_from(number).ok())
}

/// `sort=name:asc,size` or `sort_key=…&sort_dir=…`, several times each.
fn sorting(query: &Query) -> Result<Vec<(String, bool)>> {
    let key = |key: &str| {
        let known = SORT_KEYS.contains(&key).then(|| key.to_owned());
        known.ok_or_else(|| {
            let available = SORT_KEYS.join(", ");
            Fault::invalid(format!("Invalid sort key: {key}. It must be one of the following: {available}."))
        })
    };
    let rises = |dir: &str| match dir {
        "asc" => Ok(true),
        "desc" => Ok(false),
        _ => Err(Fault::invalid(format!("Invalid sort direction: {dir}"))),
    };
    if let Some(sort) = query.get("sort") {
        if query.has("sort_key") || query.has("sort_dir") {
            return Err(Fault::invalid("Old and new sorting syntax cannot be combined"));
        }
        let parts = sort.trim().split(',').take(64).map(|part| part.split_once(':').unwrap_or((part, "desc")));
        return parts.map(|(name, dir)| Ok((key(name.trim())?, rises(dir.trim())?))).collect();
    }
    let mut keys: Vec<String> = query.all("sort_key").map(|name| key(name.trim())).collect::<Result<_>>()?;
    let dirs: Vec<bool> = query.all("sort_dir").map(|dir| rises(dir.trim())).collect::<Result<_>>()?;
    if keys.is_empty() {
        keys.push("created_at".to_owned());
    }
    match dirs.as_slice() {
        [] => Ok(keys.into_iter().map(|key| (key, false)).collect()),
        [one] => Ok(keys.into_iter().map(|key| (key, *one)).collect()),
        many if many.len() == keys.len() => Ok(keys.into_iter().zip(dirs).collect()),
        _ => Err(Fault::invalid("Number of sort dirs does not match the number of sort keys")),
    }
}

fn member_status(text: &str) -> Result<Option<MemberStatus>> {
    match (MemberStatus::parse(text), text) {
        (Some(status), _) => Ok(Some(status)),
        (None, "all") => Ok(None),
        _ => Err(Fault::invalid(format!("Invalid status: {text}"))),
    }
}

fn true_or_false(name: &str, value: &str) -> Result<bool> {
    match value {
        "true" => Ok(true),
        "false" => Ok(false),
        _ => Err(Fault::invalid(format!(
            "Invalid value '{value}' for '{name}' filter. Valid values are 'true' or 'false'."
        ))),
    }
}

fn number(value: &str) -> Result<i64> {
    value.trim().parse().map_err(|_| Fault::invalid("Unable to filter on a range with a non-numeric value."))
}

/// `in:a,b` or a single value. Values with commas stand in double quotes.
fn alternatives(value: &str) -> Result<Vec<String>> {
    match value.split_once(':') {
        Some(("in", list)) => quoted_list(list),
        Some(("eq", one)) => Ok(vec![one.to_owned()]),
        Some((operator, _)) => Err(Fault::invalid(format!("Unable to filter by unknown operator '{operator}'."))),
        None => Ok(vec![value.to_owned()]),
    }
}

fn quoted_list(list: &str) -> Result<Vec<String>> {
    let mut values = Vec::new();
    let mut rest = list;
    loop {
        let (value, after) = if let Some(inside) = rest.strip_prefix('"') {
            inside
                .split_once('"')
                .ok_or_else(|| Fault::invalid(format!("Invalid filter value {list}. The quote is not closed.")))?
        } else {
            let end = rest.find(',').unwrap_or(rest.len());
            rest.split_at(end)
        };
        values.push(value.to_owned());
        match after.strip_prefix(',') {
            Some(more) => rest = more,
            None if after.is_empty() => return Ok(values),
            None => {
                let message = "There is no comma after closing quotation mark.";
                return Err(Fault::invalid(format!("Invalid filter value {list}. {message}")));
            }
        }
    }
}

/// `gte:2026-11-21T00:00:00Z`, or a bare time, which itself holds colons.
fn time(name: &str, value: &str) -> Result<Filter> {
    let bad = || Fault::invalid(format!("Bad \"{name}\" query filter format. Use ISO 8601 DateTime notation."));
    let created = name == "created_at";
    if let Some(at) = Timestamp::parse(value) {
        return Ok(Filter::Time { created, operator: "eq".to_owned(), at });
    }
    let (operator, time) = value.split_once(':').ok_or_else(bad)?;
    if !matches!(operator, "gt" | "gte" | "lt" | "lte" | "eq" | "neq") {
        return Err(Fault::invalid(format!("Unable to filter by unknown operator '{operator}'.")));
    }
    Ok(Filter::Time { created, operator: operator.to_owned(), at: Timestamp::parse(time).ok_or_else(bad)? })
}
