//! What `POST /servers` says of disks: the image of the root disk, and the block device mapping in both its shapes.

use super::attributes::device_tag;
use crate::Ask;
use crate::input::{self, Fields};
use agent_api::DiskBus;
use base::{Fault, FaultKind, ImageId, Result};
use contract::{ImageInfo, VolumeFrom, VolumeKept, WantedVolume};
use rest::Version;
use serde_json::{Value, json};

/// The most volumes of a server: it has fifteen slots.
const MOST: usize = 15;

/// The disks of a new server.
#[derive(Clone, Debug, Default)]
pub struct Disks {
    /// Of the local root disk. None: the server boots from a volume.
    pub image: Option<ImageId>,
    pub volumes: Vec<WantedVolume>,
    /// The mapping has the local root disk, too.
    mapped: bool,
    /// A volume wants to be called as the root disk is.
    named_root: bool,
}

impl Disks {
    pub fn boots_from_volume(&self) -> bool {
        self.volumes.iter().any(|volume| volume.boot_index == Some(0))
    }

    /// True where a second server could not have the same.
    pub fn are_single(&self) -> bool {
        self.volumes.iter().any(|volume| matches!(volume.from, VolumeFrom::Volume(_)))
    }
}

fn bad(why: impl std::fmt::Display) -> Fault {
    Fault::invalid(format!("Block Device Mapping is Invalid: {why}"))
}

const NO_SEQUENCE: &str = "Boot sequence for the instance and image/block device mapping combination is not valid.";

/// What an image says that its servers begin with, as it is written into the image's property.
pub const PROPERTY: &str = "block_device_mapping";
/// The longest mapping of an image.
const PROPERTY_BYTES: usize = 65_536;

/// The mapping of an image of a server that boots from a volume.
pub fn mapping(kept: &[VolumeKept]) -> Value {
    let one = |kept: &VolumeKept| {
        let mut device = json!({
            "source_type": "snapshot",
            "destination_type": "volume",
            "snapshot_id": kept.snapshot,
            "volume_size": kept.size_gib,
            "device_name": format!("/dev/{}", kept.of.device),
            "boot_index": kept.of.boot_index,
            "delete_on_termination": kept.of.delete_on_termination,
            "disk_bus": kept.of.bus.name(),
            "device_type": "disk",
        });
        if let Some(tag) = &kept.of.tag {
            device["tag"] = json!(tag);
        }
        device
    };
    kept.iter().map(one).collect()
}

impl Disks {
    /// An image may name volumes instead of being a disk itself: then those are had, but where the body says otherwise
    /// of a device.
    pub fn of_image(&self, image: &ImageInfo) -> Result<Option<Disks>> {
        let Some(text) = image.properties.get(PROPERTY).filter(|text| !["", "[]"].contains(&text.as_str())) else {
            return Ok(None);
        };
        let unread = || bad(format!("image {} has a property {PROPERTY} that is no list of devices.", image.id));
        if text.len() > PROPERTY_BYTES {
            return Err(unread());
        }
        let list: Vec<Value> = serde_json::from_str(text).map_err(|_| unread())?;
        let mut disks = Disks::default();
        for value in list.iter().take(MOST + 1) {
            device(crate::VERSIONS.max, PROPERTY, value, &mut disks)?;
        }
        let root = self.boots_from_volume();
        let named = |device: &Option<String>| device.is_some() && self.volumes.iter().any(|own| own.device == *device);
        disks.volumes.retain(|volume| !(root && volume.boot_index == Some(0) || named(&volume.device)));
        disks.volumes.extend(self.volumes.iter().cloned());
        if disks.volumes.len() > MOST {
            return Err(bad(format!("a server has at most {MOST} volumes.")));
        }
        check_order(&disks)?;
        Ok(Some(disks))
    }
}

/// Reads `imageRef`, `block_device_mapping_v2` and `block_device_mapping`.
pub fn parse(ask: &Ask, fields: &mut Fields<'_>) -> Result<Disks> {
    let mut disks = Disks { image: image_ref(fields)?, ..Disks::default() };
    let old = fields.array("block_device_mapping")?.filter(|list| !list.is_empty());
    let new = fields.array("block_device_mapping_v2")?.filter(|list| !list.is_empty());
    if old.is_some() && new.is_some() {
        return Err(Fault::invalid(
            "Block Device Mapping is Invalid: using different block_device_mapping syntaxes is not allowed in the same \
             request.",
        ));
    }
    if old.or(new).is_some_and(|list| list.len() > MOST) {
        return Err(bad(format!("a server has at most {MOST} volumes.")));
    }
    for value in new.into_iter().flatten() {
        device(ask.version, "block_device_mapping_v2", value, &mut disks)?;
    }
    for value in old.into_iter().flatten() {
        old_device(value, &mut disks)?;
    }
    check_order(&disks)?;
    if disks.image.is_some() && disks.named_root {
        return Err(Fault::invalid("The volume cannot be assigned the same device name as the root device vda"));
    }
    Ok(disks)
}

fn image_ref(fields: &mut Fields<'_>) -> Result<Option<ImageId>> {
    let Some(value) = fields.opt("imageRef").filter(|value| *value != "") else { return Ok(None) };
    let text = input::text("imageRef", value, 0, 4096)?;
    let id = text.rsplit('/').next().unwrap_or_default();
    if !base::is_uuid(id) {
        return Err(input::refuse("imageRef", value, format!("{} is not a 'uuid'", input::repr(value))));
    }
    Ok(Some(ImageId::new(id)))
}

/// Exactly one disk to boot from, and no gap in the order of the others.
fn check_order(disks: &Disks) -> Result<()> {
    let wrong = || bad(NO_SEQUENCE);
    let mut order: Vec<u32> = disks.volumes.iter().filter_map(|volume| volume.boot_index).collect();
    if disks.image.is_some() {
        order.push(0);
    }
    order.sort_unstable();
    let whole = order.iter().enumerate().all(|(at, index)| usize::try_from(*index) == Ok(at));
    match whole {
        true if !order.is_empty() || disks.volumes.is_empty() => Ok(()),
        _ => Err(wrong()),
    }
}

/// The name that a device is to have.
fn device_name(fields: &mut Fields<'_>) -> Result<Option<String>> {
    let Some(value) = fields.opt("device_name").filter(|value| !value.is_null()) else { return Ok(None) };
    let name = input::text("device_name", value, 1, 255)?;
    if !name.chars().all(|c| c.is_ascii_alphanumeric() || "._/-".contains(c)) {
        let why = format!("{} does not match '^[a-zA-Z0-9._/-]*$'", input::repr(value));
        return Err(input::refuse("device_name", value, why));
    }
    Ok(Some(name))
}

/// `/dev/vdb`, `vdb`: a slot. Another name is taken for a wish that cannot be met, as Nova's libvirt driver does.
pub fn slot(name: Option<String>) -> Option<String> {
    let name = name?;
    let name = name.strip_prefix("/dev/").unwrap_or(&name);
    let letter = name.strip_prefix("vd")?;
    (letter.len() == 1 && ("b"..="o").contains(&letter)).then(|| name.to_owned())
}

fn size(fields: &mut Fields<'_>) -> Result<Option<u64>> {
    let value = fields.opt("volume_size").filter(|value| !value.is_null() && **value != "");
    let size = value.map(|value| input::integer("volume_size", value, 0, i64::from(i32::MAX))).transpose()?;
    Ok(size.map(i64::unsigned_abs).filter(|size| *size > 0))
}

fn flag(fields: &mut Fields<'_>, key: &'static str) -> Result<bool> {
    Ok(fields
        .opt(key)
        .filter(|value| !value.is_null())
        .map(|value| input::boolean(key, value))
        .transpose()?
        .unwrap_or(false))
}

fn bus(name: Option<&str>) -> Result<DiskBus> {
    match name {
        None | Some("virtio") => Ok(DiskBus::Virtio),
        Some("scsi") => Ok(DiskBus::Scsi),
        Some(other) => Err(bad(format!("Invalid disk bus {other:.32}: virtio and scsi are what guests have here."))),
    }
}

fn device(version: Version, name: &'static str, value: &Value, disks: &mut Disks) -> Result<()> {
    let mut fields = Fields::of(name, value)?;
    let source = fields.text_or_null("source_type", 1, 16)?;
    let destination = fields.text_or_null("destination_type", 1, 16)?;
    let named = |fields: &mut Fields<'_>, key| fields.text_or_null(key, 1, 255);
    let uuid = named(&mut fields, "uuid")?;
    let (image, volume, snapshot) =
        (named(&mut fields, "image_id")?, named(&mut fields, "volume_id")?, named(&mut fields, "snapshot_id")?);
    let index = fields.opt("boot_index").filter(|index| !index.is_null() && **index != "None");
    let index = index.map(|index| input::integer("boot_index", index, -1, 1 << 20)).transpose()?;
    let size_gib = size(&mut fields)?;
    let delete_on_termination = flag(&mut fields, "delete_on_termination")?;
    let no_device = flag(&mut fields, "no_device")?;
    let wanted_name = device_name(&mut fields)?;
    let disk_bus = fields.text_or_null("disk_bus", 1, 255)?;
    let kind = fields.text_or_null("device_type", 1, 255)?;
    let format = fields.text_or_null("guest_format", 1, 255)?;
    let tag = device_tag(&mut fields)?;
    let volume_type = fields.text_or_null("volume_type", 1, 255)?;
    for ignored in ["virtual_name", "connection_info"] {
        fields.opt(ignored);
    }
    fields.finish()?;
    // Tags were there in 2.32, lost by mistake, and back in 2.42.
    let tagged = version == Version(2, 32) || version >= Version(2, 42);
    for (field, told, allowed) in
        [("tag", tag.is_some(), tagged), ("volume_type", volume_type.is_some(), version >= Version(2, 67))]
    {
        if told && !allowed {
            return Err(input::refuse(
                name,
                value,
                format!("Additional properties are not allowed ('{field}' was unexpected)"),
            ));
        }
    }
    if no_device {
        return Ok(());
    }
    if kind.as_deref().is_some_and(|kind| kind != "disk") {
        return Err(bad("Invalid device_type: disks are what guests have here."));
    }
    let boot_index = index.and_then(|index| u32::try_from(index).ok());
    let source = source.as_deref().or(if volume.is_some() {
        Some("volume")
    } else if snapshot.is_some() {
        Some("snapshot")
    } else if image.is_some() {
        Some("image")
    } else {
        None
    });
    let source = source.ok_or_else(|| bad("Invalid source_type field."))?;
    let remote = match destination.as_deref() {
        Some("volume") => true,
        Some("local") => false,
        None => ["volume", "snapshot"].contains(&source),
        Some(_) => return Err(bad("Invalid destination_type field.")),
    };
    if volume_type.is_some() && (source == "volume" || !remote) {
        return Err(bad(
            "a volume_type is for new volumes: neither volumes that are there nor local disks have one to choose.",
        ));
    }
    disks.named_root |= remote && wanted_name.as_deref().is_some_and(|name| name.trim_start_matches("/dev/") == "vda");
    let device = slot(wanted_name);
    let need = |id: Option<String>| {
        let id = id.ok_or_else(|| bad("Missing device UUID."))?;
        if base::is_uuid(&id) { Ok(id) } else { Err(bad("Invalid device UUID.")) }
    };
    let from = match (source, remote) {
        ("image", false) => {
            let id = ImageId::new(need(uuid.or(image))?);
            let same = disks.image.as_ref().is_none_or(|known| *known == id);
            if !same || boot_index.unwrap_or(0) != 0 || index == Some(-1) {
                return Err(bad("an image becomes a local disk only as the root disk (boot_index 0)."));
            }
            if std::mem::replace(&mut disks.mapped, true) {
                return Err(bad(NO_SEQUENCE));
            }
            disks.image = Some(id);
            return Ok(());
        }
        ("blank", false) => {
            let what = if format.as_deref() == Some("swap") { "swap" } else { "ephemeral" };
            return Err(bad(format!("this cloud has no local {what} disks: ask for a blank volume instead.")));
        }
        ("volume" | "snapshot", false) => {
            return Err(bad("volumes and snapshots are mapped to destination_type volume only."));
        }
        ("image", true) => {
            if size_gib.is_none() {
                return Err(bad("Images with destination_type 'volume' need to have a non-zero size specified"));
            }
            VolumeFrom::Image(ImageId::new(need(uuid.or(image))?))
        }
        ("snapshot", true) => VolumeFrom::Snapshot(need(uuid.or(snapshot))?.into()),
        ("volume", true) => VolumeFrom::Volume(need(uuid.or(volume))?.into()),
        ("blank", true) if uuid.is_some() => return Err(bad("Invalid device UUID.")),
        ("blank", true) => {
            if size_gib.is_none() {
                return Err(bad("Blank volumes (source: 'blank', dest: 'volume') need to have non-zero size"));
            }
            VolumeFrom::Blank
        }
        _ => return Err(bad("Invalid source_type field.")),
    };
    // Clients name the image of a volume to boot from a second time, as the server's.
    if boot_index == Some(0) && matches!(&from, VolumeFrom::Image(id) if disks.image.as_ref() == Some(id)) {
        disks.image = None;
    }
    let bus = bus(disk_bus.as_deref())?;
    disks.volumes.push(WantedVolume {
        from,
        size_gib,
        volume_type,
        boot_index,
        bus,
        tag,
        device,
        delete_on_termination,
    });
    Ok(())
}

/// The shape before v2: volumes and snapshots by the device's name.
fn old_device(value: &Value, disks: &mut Disks) -> Result<()> {
    let mut fields = Fields::of("block_device_mapping", value)?;
    let name = device_name(&mut fields)?;
    let volume = fields.text_or_null("volume_id", 1, 255)?;
    let snapshot = fields.text_or_null("snapshot_id", 1, 255)?;
    let size_gib = size(&mut fields)?;
    let delete_on_termination = flag(&mut fields, "delete_on_termination")?;
    let no_device = flag(&mut fields, "no_device")?;
    for ignored in ["virtual_name", "connection_info"] {
        fields.opt(ignored);
    }
    fields.finish()?;
    if no_device {
        return Ok(());
    }
    let from = match (snapshot, volume) {
        (Some(id), _) if base::is_uuid(&id) => VolumeFrom::Snapshot(id.into()),
        (None, Some(id)) if base::is_uuid(&id) => VolumeFrom::Volume(id.into()),
        _ => return Err(bad("Invalid device UUID.")),
    };
    let short = name.as_deref().map(|name| name.strip_prefix("/dev/").unwrap_or(name));
    // Without an image the device named `vda`, or else the first, is the one to boot from.
    let first = disks.image.is_none() && !disks.boots_from_volume();
    let boot_index = (first && short.is_none_or(|name| name.ends_with('a'))).then_some(0);
    disks.volumes.push(WantedVolume {
        from,
        size_gib,
        volume_type: None,
        boot_index,
        bus: DiskBus::Virtio,
        tag: None,
        device: slot(name),
        delete_on_termination,
    });
    Ok(())
}

/// What the volume service refuses, in the words in which Nova refuses it at the making of a server.
pub fn refused(fault: Fault) -> Fault {
    match fault.kind {
        FaultKind::NotFound => {
            let mut words = fault.message.split(' ');
            let (what, id) = (words.next().unwrap_or_default().to_lowercase(), words.next().unwrap_or_default());
            match what.as_str() {
                "volume" | "snapshot" if base::is_uuid(id) => bad(format!("failed to get {what} {id}.")),
                _ => bad(fault.message),
            }
        }
        FaultKind::Quota => Fault { kind: FaultKind::Quota, status: None, ..fault },
        _ => Fault { status: None, ..fault },
    }
}
