//! Making a volume: its document, its quota and its room on a host, in one commit.

use super::{images, invalid, ops};
use crate::document::{Origin, Snapshot, Volume};
use crate::types::{self, VolumeType};
use crate::{Ask, Volumes, metadata, observe, place, quota, sight};
use base::{Fault, ProjectId, Result, ServerId, UserId, VolumeId};
use contract::Caller;
use model::volume::{Hold, Verb};
use rest::input::{self, Fields};
use serde_json::Value;
use std::collections::BTreeMap;
use store::{Query, Reader, Tx};

/// The largest volume, in GiB: Cinder keeps its size in 32 bits.
const MOST_GIB: i64 = 0x7fff_ffff;

/// What is asked for.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    pub name: Option<String>,
    pub description: Option<String>,
    pub size_gib: Option<u64>,
    pub volume_type: Option<String>,
    pub zone: Option<String>,
    pub metadata: BTreeMap<String, String>,
    pub snapshot: Option<String>,
    pub source: Option<String>,
    pub image: Option<String>,
    /// A server that is being made decides on the host.
    pub goes_with: Option<ServerId>,
}

impl Wanted {
    /// Reads a body. Up to 3.52 Cinder takes and ignores what it does not know of a volume.
    pub fn read(ask: &Ask, body: &Value) -> Result<Wanted> {
        let mut outer = Fields::body(body)?;
        let mut fields = outer.object("volume")?;
        if let Some(hints) = outer.opt("OS-SCH-HNT:scheduler_hints").filter(|hints| !hints.is_null()) {
            Fields::of("OS-SCH-HNT:scheduler_hints", hints)?;
        }
        outer.finish()?;
        let (name, description) = ops::read_names(&mut fields)?;
        let size_gib = match fields.opt("size").filter(|size| !size.is_null()) {
            None => None,
            Some(size) => Some(read_size("size", size)?),
        };
        let (snapshot, source) = (fields.uuid_or_null("snapshot_id")?, fields.uuid_or_null("source_volid")?);
        let mut text = |key, least| fields.text_or_null(key, least, 255);
        let image = text("imageRef", 0)?.or(text("image_id", 0)?);
        // Image services name images by URL, too.
        let image = image.map(|image| image.rsplit('/').next().unwrap_or_default().to_owned());
        let volume_type = text("volume_type", 0)?.filter(|name| !name.is_empty());
        let zone = text("availability_zone", 1)?;
        for (later, since) in [("consistencygroup_id", 0), ("group_id", 13), ("backup_id", 47)] {
            if ask.since(since) && text(later, 0)?.is_some() {
                return Err(Fault::invalid(format!("Invalid input received: {later} is not supported by this cloud.")));
            }
        }
        if [&snapshot, &source, &image].iter().filter(|it| it.is_some()).count() > 1 {
            return Err(Fault::invalid(
                "Invalid input received: May specify only one of snapshot, source volume or image!",
            ));
        }
        if fields
            .opt("multiattach")
            .filter(|it| !it.is_null())
            .map(|it| input::boolean("multiattach", it))
            .transpose()?
            == Some(true)
        {
            return Err(Fault::invalid("multiattach: no back-end of this cloud lets two servers use one volume."));
        }
        let metadata = match fields.opt("metadata").filter(|it| !it.is_null()) {
            Some(value) => metadata::read("metadata", value)?,
            None => BTreeMap::new(),
        };
        if ask.since(53) {
            fields.finish()?;
        }
        let (name, description) = (name.flatten(), description.flatten());
        Ok(Wanted {
            name,
            description,
            size_gib,
            volume_type,
            zone,
            metadata,
            snapshot,
            source,
            image,
            goes_with: None,
        })
    }
}

/// A size in GiB of at least 1.
pub fn read_size(name: &str, value: &Value) -> Result<u64> {
    Ok(input::integer(name, value, 1, MOST_GIB)?.unsigned_abs())
}

/// What the new volume begins with, and what it takes over from that.
#[derive(Default)]
struct Start {
    origin: Origin,
    size_gib: Option<u64>,
    type_id: Option<String>,
    bootable: bool,
    image_metadata: BTreeMap<String, String>,
}

fn start(state: &Volumes, reader: &mut Reader, ask: &Ask, caller: &Caller, wanted: &Wanted) -> Result<Start> {
    if let Some(id) = &wanted.snapshot {
        let missing = || Fault::not_found(format!("Snapshot {id:.255} could not be found."));
        let snapshot = reader.get::<Snapshot>(id)?.ok_or_else(missing)?;
        ask.allow(&snapshot.project_id, missing)?;
        let volume = reader.need::<Volume>(&snapshot.volume)?;
        let seen = sight::Sight::of(reader, &volume)?;
        let status = sight::snapshot(&snapshot, seen.observed.get(&volume.id)).to_owned();
        if status != "available" {
            return Err(Fault::invalid(format!(
                "Invalid snapshot: Originating snapshot status must be one of 'available' values, not {status}."
            )));
        }
        larger(wanted.size_gib, snapshot.size_gib, "snapshot")?;
        return Ok(Start {
            origin: Origin::Snapshot { volume: volume.id.clone(), snapshot: snapshot.id.clone() },
            size_gib: Some(snapshot.size_gib),
            type_id: Some(snapshot.volume_type.clone()),
            bootable: volume.bootable,
            image_metadata: volume.doc.image_metadata,
        });
    }
    if let Some(id) = &wanted.source {
        let volume = super::of(reader, ask, id)?;
        let status = sight::status_of(reader, &volume)?;
        if !["available", "in-use"].contains(&status.as_str()) {
            return Err(invalid(format!("Source volume status must be available or in-use, not {status}.")));
        }
        larger(wanted.size_gib, volume.size_gib, "source volume")?;
        return Ok(Start {
            origin: Origin::Volume { volume: volume.id.clone() },
            size_gib: Some(volume.size_gib),
            type_id: Some(volume.volume_type.clone()),
            bootable: volume.bootable,
            image_metadata: volume.doc.image_metadata,
        });
    }
    let Some(id) = &wanted.image else { return Ok(Start::default()) };
    ask.enforce_rule("volume:create_from_image", &ask.own())?;
    let image = images::usable(state, reader, caller, id, wanted.size_gib.unwrap_or(0))?;
    // An image may say what its volumes shall be like, unless who makes one says otherwise.
    let named =
        image.properties.get(images::VOLUME_TYPE).filter(|name| !name.is_empty() && wanted.volume_type.is_none());
    let type_id =
        named.map(|name| types::wanted(reader, ask, Some(name.as_str()))).transpose()?.map(|kind| kind.doc.id);
    let (origin, image_metadata) = (images::origin(&image), images::metadata(&image));
    Ok(Start { origin, bootable: true, image_metadata, type_id, ..Start::default() })
}

fn larger(asked: Option<u64>, least: u64, what: &str) -> Result<()> {
    match asked.filter(|asked| *asked < least) {
        None => Ok(()),
        Some(asked) => Err(Fault::invalid(format!(
            "Invalid input received: Volume size '{asked}'GB cannot be smaller than original {what} size {least}GB. They must be >= original {what} size."
        ))),
    }
}

fn zone(reader: &mut Reader, wanted: Option<&str>) -> Result<String> {
    let Some(zone) = wanted else { return Ok(observe::ZONE.to_owned()) };
    let known = reader.list::<crate::Pool>(Query::all())?.iter().any(|pool| pool.zone == zone);
    match known || zone == observe::ZONE {
        true => Ok(zone.to_owned()),
        false => Err(Fault::invalid(format!("Invalid input received: Availability zone '{zone}' is invalid."))),
    }
}

/// Makes a volume for a project, charges it, and gives it a host if one answers.
pub fn make(state: &Volumes, tx: &mut Tx, ask: &Ask, wanted: &Wanted) -> Result<Volume> {
    let (project, user): (ProjectId, UserId) = (ask.project()?, ask.caller.user_id());
    let start = start(state, tx, ask, &ask.caller, wanted)?;
    let Some(size_gib) = wanted.size_gib.or(start.size_gib) else {
        return Err(Fault::invalid(
            "Invalid input received: Invalid volume size provided for create request: None (size argument must be an integer (or string representation of an integer) and greater than zero).",
        ));
    };
    let type_id = match (&wanted.volume_type, start.type_id) {
        (Some(named), _) => types::wanted(tx, ask, Some(named))?.doc.id,
        (None, Some(same)) if tx.get::<VolumeType>(&same)?.is_some() => same,
        (None, _) => types::wanted(tx, ask, None)?.doc.id,
    };
    let specs = tx.get::<VolumeType>(&type_id)?.map(|kind| kind.doc.extra_specs).unwrap_or_default();
    let mut volume = Volume {
        id: VolumeId::new(tx.uuid()),
        project_id: project,
        user_id: user,
        name: wanted.name.clone(),
        description: wanted.description.clone(),
        size_gib,
        volume_type: type_id,
        zone: zone(tx, wanted.zone.as_deref())?,
        host: None,
        goes_with: wanted.goes_with.clone(),
        generation: 1,
        verb: Verb::Create,
        verb_generation: 1,
        passing_since: Some(tx.now()),
        overdue: 0,
        origin: start.origin,
        flatten: types::flattens(&specs),
        metadata: wanted.metadata.clone(),
        image_metadata: start.image_metadata,
        bootable: start.bootable,
        read_only: None,
        multiattach: false,
        hold: Hold::None,
        held_since: None,
        forced: None,
        transfer: None,
        uploading: None,
        unplaceable: None,
    };
    quota::charge_volume(tx, &volume)?;
    if volume.goes_with.is_none() {
        let only = place::bound_to(tx, &volume)?;
        place::place(state, tx, &mut volume, only.as_ref())?;
    }
    tx.create(&volume)?;
    Ok(volume)
}
