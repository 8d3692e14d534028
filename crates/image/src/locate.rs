//! What compute may know of images.

use crate::Service;
use crate::document::{Image, Status};
use crate::images::visible;
use agent_api::DiskFormat;
use base::{Fault, ImageId, Result};
use contract::{Caller, ImageInfo, Images};
use store::Reader;

impl Images for Service {
    fn locate(&self, reader: &mut Reader, caller: &Caller, id: &ImageId) -> Result<ImageInfo> {
        let missing = || Fault::not_found(format!("Image {id} could not be found."));
        let image = reader.get::<Image>(id)?.ok_or_else(missing)?;
        if visible(reader, caller, &image)? { Ok(info(image.doc)) } else { Err(missing()) }
    }

    fn describe(&self, reader: &mut Reader, id: &ImageId) -> Result<Option<ImageInfo>> {
        Ok(reader.get::<Image>(id)?.map(|image| info(image.doc)))
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
