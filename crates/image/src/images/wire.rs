//! An image as the API writes it, and the attributes as the API takes them.

use crate::document::{Image, LOCAL, Status, Visibility, WEB};
use base::{Fault, ProjectId, Result, limits};
use serde::ser::{Serialize, SerializeMap, Serializer};
use serde_json::Value;
use store::Stored;

/// Most custom properties, and most tags (Glance's defaults).
pub const PROPERTIES: usize = 128;
pub const TAGS: usize = 128;
/// Most characters of a property's value.
const VALUE_CHARS: usize = 65_535;

pub const CONTAINER_FORMATS: [&str; 8] = ["ami", "ari", "aki", "bare", "ovf", "ova", "docker", "compressed"];
pub const DISK_FORMATS: [&str; 11] =
    ["ami", "ari", "aki", "vhd", "vhdx", "vmdk", "raw", "qcow2", "vdi", "iso", "ploop"];

/// What a client may never send at all.
pub const DISALLOWED: [&str; 5] = ["direct_url", "self", "file", "schema", "stores"];
/// What a client may read and never change.
pub const READ_ONLY: [&str; 13] = [
    "created_at",
    "updated_at",
    "status",
    "checksum",
    "size",
    "virtual_size",
    "direct_url",
    "self",
    "file",
    "schema",
    "id",
    "os_hash_algo",
    "os_hash_value",
];
/// Names that a custom property may not have.
const RESERVED: [&str; 3] = ["location", "deleted", "deleted_at"];
const RESERVED_PREFIX: &str = "os_glance";
/// Why an image may not be used.
const QUARANTINED: &str = "nubo:quarantined";

/// The attributes that are no custom properties and may be changed.
const CHANGEABLE: [&str; 10] = [
    "name",
    "visibility",
    "protected",
    "os_hidden",
    "owner",
    "container_format",
    "disk_format",
    "min_disk",
    "min_ram",
    "tags",
];

pub fn is_changeable(name: &str) -> bool {
    CHANGEABLE.contains(&name)
}

/// What no custom property stands beside.
fn is_attribute(name: &str) -> bool {
    is_changeable(name) || READ_ONLY.contains(&name) || DISALLOWED.contains(&name) || name == QUARANTINED
}

pub fn is_reserved(name: &str) -> bool {
    RESERVED.contains(&name) || name.starts_with(RESERVED_PREFIX)
}

/// An image in the newest and only shape: custom properties stand beside the attributes. Written as it is serialized,
/// since lists have thousands of them.
pub struct View<'a>(pub &'a Stored<Image>);

impl Serialize for View<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        let image = self.0;
        let mut map = serializer.serialize_map(None)?;
        for (name, value) in image.properties.iter().filter(|(name, _)| !is_attribute(name)) {
            map.serialize_entry(name, value)?;
        }
        let contents = image.contents.as_ref();
        let kept = contents.or(image.staged.as_ref().map(|staged| &staged.contents));
        // One that names the snapshots of volumes has no bytes, and says so.
        let size = kept.map(|kept| kept.size_bytes).or((image.status == Status::Active).then_some(0));
        map.serialize_entry("id", &image.id)?;
        map.serialize_entry("name", &image.name)?;
        map.serialize_entry("status", image.status.as_str())?;
        map.serialize_entry("visibility", image.visibility.as_str())?;
        map.serialize_entry("protected", &image.protected)?;
        map.serialize_entry("os_hidden", &image.hidden)?;
        map.serialize_entry("owner", &image.owner)?;
        map.serialize_entry("container_format", &image.container_format)?;
        map.serialize_entry("disk_format", &image.disk_format)?;
        map.serialize_entry("min_disk", &image.min_disk_gib)?;
        map.serialize_entry("min_ram", &image.min_ram_mib)?;
        map.serialize_entry("size", &size)?;
        map.serialize_entry("virtual_size", &contents.and_then(|contents| contents.virtual_size_bytes))?;
        map.serialize_entry("checksum", &contents.map(|contents| &contents.md5))?;
        map.serialize_entry("os_hash_algo", &contents.map(|contents| contents.hash().0))?;
        map.serialize_entry("os_hash_value", &contents.map(|contents| contents.hash().1))?;
        map.serialize_entry("tags", &image.tags)?;
        map.serialize_entry("created_at", &image.created.iso_seconds())?;
        map.serialize_entry("updated_at", &image.updated.iso_seconds())?;
        map.serialize_entry("file", &format_args!("/v2/images/{}/file", image.id))?;
        map.serialize_entry("schema", "/v2/schemas/image")?;
        map.serialize_entry("self", &format_args!("/v2/images/{}", image.id))?;
        let stores = stores(image);
        if !stores.is_empty() {
            map.serialize_entry("stores", &stores.join(","))?;
        }
        for (name, value) in arrival(image) {
            map.serialize_entry(name, &value)?;
        }
        if let Some(reason) = contents.and_then(|contents| contents.quarantined.as_ref()) {
            map.serialize_entry(QUARANTINED, reason)?;
        }
        map.end()
    }
}

/// The stores that have the bytes. What came from a location shows the store of locations, as in Glance, for the first:
/// the bytes are kept there all the same.
fn stores(image: &Image) -> Vec<&str> {
    let located = !image.locations.is_empty();
    let kept = image.contents.iter().flat_map(|contents| &contents.stores).map(String::as_str);
    let mut stores: Vec<&str> = kept.filter(|store| !located || *store != LOCAL).collect();
    stores.extend(Some(WEB).filter(|_| located));
    stores.sort_unstable();
    stores
}

/// How far an import or the making of copies is. Clients take the empty list of stores for its end.
fn arrival(image: &Image) -> Vec<(&'static str, String)> {
    let copying = image.copying.as_ref();
    let task = image.importing.as_ref().or(copying.map(|copying| &copying.task));
    let failed = copying.map_or(&image.not_copied, |copying| &copying.failed);
    let several = image.contents.as_ref().is_some_and(|contents| contents.stores.len() > 1);
    if task.is_none() && failed.is_empty() && !several {
        return Vec::new();
    }
    let to = match (task, copying) {
        (None, _) => String::new(),
        (Some(_), None) => LOCAL.to_owned(),
        (Some(_), Some(copying)) => copying.to.join(","),
    };
    let task = task.map(|task| ("os_glance_import_task", task.clone()));
    let rest = [("os_glance_importing_to_stores", to), ("os_glance_failed_import", failed.join(","))];
    task.into_iter().chain(rest).collect()
}

/// Sets an attribute or a custom property as a create or a patch asks. Invalid where the schema says no; Forbidden for
/// formats of an image that has bytes.
pub fn set(image: &mut Image, name: &str, value: &Value) -> Result<()> {
    match name {
        "name" => image.name = optional_text(name, value, limits::NAME_CHARS)?,
        "visibility" => image.visibility = visibility(value)?,
        "protected" => image.protected = boolean(name, value)?,
        "os_hidden" => image.hidden = boolean(name, value)?,
        "owner" => image.owner = optional_text(name, value, limits::NAME_CHARS)?.map(ProjectId::new),
        "container_format" => {
            let format = one_of(name, value, &CONTAINER_FORMATS)?;
            only_queued(image, name)?;
            image.container_format = format;
        }
        "disk_format" => {
            let format = one_of(name, value, &DISK_FORMATS)?;
            only_queued(image, name)?;
            image.disk_format = format;
        }
        "min_disk" => image.min_disk_gib = number(name, value)?,
        "min_ram" => image.min_ram_mib = number(name, value)?,
        "tags" => {
            let Value::Array(tags) = value else { return Err(mismatch(name, value, "is not of type 'array'")) };
            let tags: Result<Vec<String>> = tags.iter().map(tag).collect();
            image.tags = tags?.into_iter().collect();
        }
        custom => {
            if custom.chars().count() > limits::NAME_CHARS {
                return Err(Fault::invalid("Custom property should not be greater than 255 characters."));
            }
            let Value::String(text) = value else { return Err(mismatch(name, value, "is not of type 'string'")) };
            limits::text(custom, text, VALUE_CHARS)?;
            image.properties.insert(custom.to_owned(), text.clone());
        }
    }
    within_limits(image)
}

/// Refuses more tags and properties than an image may have.
pub fn within_limits(image: &Image) -> Result<()> {
    for (what, have, most) in
        [("image properties", image.properties.len(), PROPERTIES), ("tags", image.tags.len(), TAGS)]
    {
        if have > most {
            let message = format!(
                "The limit has been exceeded on the number of allowed {what}. Attempted: {have}, Maximum: {most}"
            );
            return Err(Fault::too_large(message));
        }
    }
    Ok(())
}

pub fn tag(value: &Value) -> Result<String> {
    let Value::String(tag) = value else { return Err(mismatch("tags", value, "is not of type 'string'")) };
    if tag.chars().count() > limits::NAME_CHARS {
        return Err(mismatch("tags", value, "is too long"));
    }
    limits::text("tags", tag, limits::NAME_CHARS)?;
    Ok(tag.clone())
}

fn only_queued(image: &Image, name: &str) -> Result<()> {
    if image.status == Status::Queued {
        return Ok(());
    }
    Err(Fault::forbidden(format!("Attribute {name} can be only replaced for a queued image.")))
}

fn mismatch(name: &str, value: &Value, why: &str) -> Fault {
    let shown: String = value.to_string().chars().take(100).collect();
    Fault::invalid(format!("Provided object does not match schema 'image': {shown} {why}. Failed validating '{name}'."))
}

fn optional_text(name: &str, value: &Value, most: usize) -> Result<Option<String>> {
    match value {
        Value::Null => Ok(None),
        Value::String(text) if text.chars().count() > most => Err(mismatch(name, value, "is too long")),
        Value::String(text) => {
            limits::text(name, text, most)?;
            Ok(Some(text.clone()))
        }
        _ => Err(mismatch(name, value, "is not of type 'null', 'string'")),
    }
}

fn visibility(value: &Value) -> Result<Visibility> {
    let known = value.as_str().and_then(Visibility::parse);
    known.ok_or_else(|| mismatch("visibility", value, "is not one of ['community', 'public', 'private', 'shared']"))
}

fn boolean(name: &str, value: &Value) -> Result<bool> {
    value.as_bool().ok_or_else(|| mismatch(name, value, "is not of type 'boolean'"))
}

fn one_of(name: &str, value: &Value, known: &[&str]) -> Result<Option<String>> {
    match value {
        Value::Null => Ok(None),
        Value::String(text) if known.contains(&text.as_str()) => Ok(Some(text.clone())),
        _ => Err(mismatch(name, value, &format!("is not one of {known:?}"))),
    }
}

fn number(name: &str, value: &Value) -> Result<u64> {
    // A column of 32 bits in Glance.
    const MOST: u64 = 2_147_483_647;
    if !(value.is_i64() || value.is_u64()) {
        return Err(mismatch(name, value, "is not of type 'integer'"));
    }
    value.as_u64().filter(|number| *number <= MOST).ok_or_else(|| {
        Fault::invalid(format!("Invalid value '{value}' for parameter '{name}': it must lie between 0 and {MOST}."))
    })
}
