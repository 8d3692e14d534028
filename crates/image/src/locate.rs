//! What compute and the volume service may know of images.

use crate::document::{Image, Member, Status, Visibility};
use crate::images::wire::{CONTAINER_FORMATS, DISK_FORMATS};
use crate::images::visible;
use crate::protection::Action;
use crate::{Service, quota};
use agent_api::DiskFormat;
use base::{Fault, ImageId, Result};
use contract::{Caller, ImageInfo, Images, NewSnapshot};
use store::{Query, Reader, Tx};

impl Images for Service {
    fn locate(&self, reader: &mut Reader, caller: &Caller, id: &ImageId) -> Result<ImageInfo> {
        let missing = || Fault::not_found(format!("Image {id} could not be found."));
        let image = reader.get::<Image>(id)?.ok_or_else(missing)?;
        if visible(reader, caller, &image)? { Ok(info(image.doc)) } else { Err(missing()) }
    }

    fn describe(&self, reader: &mut Reader, id: &ImageId) -> Result<Option<ImageInfo>> {
        Ok(reader.get::<Image>(id)?.map(|image| info(image.doc)))
    }

    fn is_awaited(&self, reader: &mut Reader, id: &ImageId) -> Result<bool> {
        Ok(reader.get::<Image>(id)?.is_some_and(|image| image.awaits.is_some()))
    }

    fn may_create(&self, caller: &Caller, property: &str) -> Result<()> {
        self.options.protections.need(caller, Action::Create, property)
    }

    fn reserve(&self, tx: &mut Tx, new: &NewSnapshot) -> Result<()> {
        self.make(tx, Image { awaits: Some(new.of.clone()), ..of_disk(new, Status::Queued)? })
    }

    fn register(&self, tx: &mut Tx, new: &NewSnapshot) -> Result<()> {
        self.make(tx, of_disk(new, Status::Active)?)
    }

    fn discard(&self, tx: &mut Tx, id: &ImageId) -> Result<()> {
        let Some(image) = tx.get::<Image>(id)?.filter(|image| image.awaits.is_some()) else { return Ok(()) };
        for member in tx.list::<Member>(Query::index("image", image.id.as_str()))? {
            tx.delete::<Member>(store::Document::id(&member.doc))?;
        }
        crate::tasks::Task::forget(tx, &image.id)?;
        quota::settle(tx, &self.options.quota, Some(&image), None)?;
        tx.delete::<Image>(id)?;
        Ok(())
    }
}

impl Service {
    fn make(&self, tx: &mut Tx, image: Image) -> Result<()> {
        crate::images::within_limits(&image)?;
        quota::settle(tx, &self.options.quota, None, Some(&image))?;
        tx.create(&image)?;
        Ok(())
    }
}

fn of_disk(new: &NewSnapshot, status: Status) -> Result<Image> {
    let shape = &new.shape;
    let formats = [
        ("disk_format", &shape.disk_format, &DISK_FORMATS[..]),
        ("container_format", &shape.container_format, &CONTAINER_FORMATS[..]),
    ];
    for (name, value, known) in formats {
        if !known.contains(&value.as_str()) {
            let known = known.join(", ");
            return Err(Fault::invalid(format!("Invalid value '{value:.64}' for {name}; there are {known}.")));
        }
    }
    let visibility = Visibility::parse(&shape.visibility);
    let visibility =
        visibility.ok_or_else(|| Fault::invalid(format!("There is no visibility '{:.64}'.", shape.visibility)))?;
    Ok(Image {
        name: Some(new.name.clone()),
        status,
        visibility,
        protected: shape.protected,
        container_format: Some(shape.container_format.clone()),
        disk_format: Some(shape.disk_format.clone()),
        min_disk_gib: new.min_disk_gib,
        min_ram_mib: new.min_ram_mib,
        properties: new.properties.clone(),
        ..Image::queued(new.id.clone(), Some(new.project.clone()))
    })
}

fn info(image: Image) -> ImageInfo {
    // Only a bare disk can be given to a guest: anything else is an archive, or needs a kernel beside it.
    let bare = image.container_format.as_deref() == Some("bare");
    let disk_format = match image.disk_format.as_deref() {
        Some("raw") if bare => Some(DiskFormat::Raw),
        Some("qcow2") if bare => Some(DiskFormat::Qcow2),
        _ => None,
    };
    let contents = image.contents.as_ref();
    let size_bytes = contents.map_or(0, |contents| contents.size_bytes);
    ImageInfo {
        active: image.status == Status::Active,
        disk_format,
        size_bytes,
        virtual_size_bytes: contents.and_then(|contents| contents.virtual_size_bytes).unwrap_or(size_bytes),
        sha512: contents.map(|contents| contents.sha512.clone()).unwrap_or_default(),
        min_disk_gib: image.min_disk_gib,
        min_ram_mib: image.min_ram_mib,
        quarantined: contents.and_then(|contents| contents.quarantined.clone()),
        name: image.name.unwrap_or_default(),
        properties: image.properties,
        id: image.id,
    }
}
