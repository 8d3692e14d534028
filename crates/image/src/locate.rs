//! What compute may know of images.

use crate::document::{Image, Member, Status, Visibility};
use crate::images::visible;
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

    fn reserve(&self, tx: &mut Tx, new: &NewSnapshot) -> Result<()> {
        self.make(tx, Image { awaits: Some(new.server.clone()), ..of_server(new, Status::Queued) })
    }

    fn register(&self, tx: &mut Tx, new: &NewSnapshot) -> Result<()> {
        self.make(tx, of_server(new, Status::Active))
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

fn of_server(new: &NewSnapshot, status: Status) -> Image {
    Image {
        name: Some(new.name.clone()),
        status,
        visibility: Visibility::Private,
        container_format: Some("bare".to_owned()),
        disk_format: Some("qcow2".to_owned()),
        min_disk_gib: new.min_disk_gib,
        min_ram_mib: new.min_ram_mib,
        properties: new.properties.clone(),
        ..Image::queued(new.id.clone(), Some(new.project.clone()))
    }
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
