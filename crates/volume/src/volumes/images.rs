//! Volumes from images: what of an image goes with the volume, and which image cannot become one.

use crate::Volumes;
use crate::document::Origin;
use base::{Fault, FaultKind, ImageId, Result};
use contract::{Caller, ImageInfo};
use std::collections::BTreeMap;
use store::Reader;

/// The property by which an image names the type of its volumes.
pub const VOLUME_TYPE: &str = "cinder_img_volume_type";

/// The image, if a volume of this size can be made of it.
pub fn usable(state: &Volumes, reader: &mut Reader, caller: &Caller, id: &str, size_gib: u64) -> Result<ImageInfo> {
    let image = state.images.locate(reader, caller, &ImageId::new(id)).map_err(|fault| match fault.kind {
        FaultKind::NotFound => Fault::invalid("Invalid image identifier or unable to access requested image."),
        _ => fault,
    })?;
    let unfit = |why: String| Err(Fault::invalid(format!("Image {id} is unacceptable: {why}")));
    if !image.active {
        return unfit("it is not active.".to_owned());
    }
    if let Some(why) = &image.quarantined {
        return unfit(why.clone());
    }
    if image.sha512.is_empty() {
        return unfit("it has no bytes; make volumes of the snapshots that it names.".to_owned());
    }
    if image.disk_format.is_none() {
        return unfit("only bare images in the formats raw and qcow2 become volumes.".to_owned());
    }
    let needs = image.virtual_size_bytes.div_ceil(1 << 30);
    if size_gib < needs {
        return Err(Fault::invalid(format!(
            "Invalid input received: Size of specified image {needs}GB is larger than volume size {size_gib}GB."
        )));
    }
    if size_gib < image.min_disk_gib {
        return Err(Fault::invalid(format!(
            "Invalid input received: Volume size {size_gib}GB cannot be smaller than the image minDisk size {}GB.",
            image.min_disk_gib
        )));
    }
    Ok(image)
}

pub fn origin(image: &ImageInfo) -> Origin {
    Origin::Image {
        image: image.id.clone(),
        format: image.disk_format.unwrap_or(agent_api::DiskFormat::Raw),
        sha512: image.sha512.clone(),
        image_bytes: image.size_bytes,
    }
}

/// What Cinder calls the volume's image metadata.
pub fn metadata(image: &ImageInfo) -> BTreeMap<String, String> {
    let mut metadata = image.properties.clone();
    let format = match image.disk_format {
        Some(agent_api::DiskFormat::Qcow2) => "qcow2",
        _ => "raw",
    };
    for (name, value) in [
        ("image_id", image.id.to_string()),
        ("image_name", image.name.clone()),
        ("container_format", "bare".to_owned()),
        ("disk_format", format.to_owned()),
        ("min_disk", image.min_disk_gib.to_string()),
        ("min_ram", image.min_ram_mib.to_string()),
        ("size", image.size_bytes.to_string()),
    ] {
        metadata.insert(name.to_owned(), value);
    }
    metadata
}
