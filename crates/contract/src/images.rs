//! What others may know of images.

use crate::{Caller, NewSnapshot};
use agent_api::DiskFormat;
use base::{Fault, ImageId, Result};
use std::collections::BTreeMap;
use store::{Reader, Tx};

/// An image that can be booted, or why it cannot.
#[derive(Clone, Debug)]
pub struct ImageInfo {
    pub id: ImageId,
    pub name: String,
    pub active: bool,
    pub disk_format: Option<DiskFormat>,
    /// Bytes of the file, and bytes of the disk that a guest sees.
    pub size_bytes: u64,
    pub virtual_size_bytes: u64,
    pub sha512: String,
    pub min_disk_gib: u64,
    pub min_ram_mib: u64,
    /// The inspection refused the bytes but enforcement is off: a server from it goes to ERROR with this reason.
    pub quarantined: Option<String>,
    pub properties: BTreeMap<String, String>,
}

/// What a volume remembers of its image's file, and what Cinder calls the core properties.
const OF_THE_FILE: &[&str] = &[
    "checksum",
    "container_format",
    "disk_format",
    "image_id",
    "image_name",
    "min_disk",
    "min_ram",
    "name",
    "signature_verified",
    "size",
];

/// Those of an image's properties that an image of other bytes has as well: no signature holds for those, and
/// `os_glance` is the image service's own.
pub fn inherited(mut properties: BTreeMap<String, String>) -> BTreeMap<String, String> {
    let own = |key: &str| key.starts_with("os_glance") || key.starts_with("img_signature");
    properties.retain(|key, _| key.len() <= 255 && !own(key) && !OF_THE_FILE.contains(&key.as_str()));
    properties
}

pub trait Images: Send + Sync {
    /// An image that the caller may use. NotFound otherwise, also for an image of another project.
    fn locate(&self, reader: &mut Reader, caller: &Caller, id: &ImageId) -> Result<ImageInfo>;
    /// The same without asking who asks: for rebuilding a view from what a server already holds.
    fn describe(&self, reader: &mut Reader, id: &ImageId) -> Result<Option<ImageInfo>>;
    /// True while an image waits for the bytes that a job was to bring. One that was deleted and brought back waits for
    /// whoever uploads them.
    fn is_awaited(&self, reader: &mut Reader, id: &ImageId) -> Result<bool> {
        Ok(self.describe(reader, id)?.is_some())
    }
    /// Refuses a property that the caller may not give to a new image.
    fn may_create(&self, _caller: &Caller, _property: &str) -> Result<()> {
        Ok(())
    }
    /// Makes an image without bytes, which a job will bring, and charges it.
    fn reserve(&self, _tx: &mut Tx, _new: &NewSnapshot) -> Result<()> {
        Err(Fault::new(base::FaultKind::NotImplemented, "Images cannot be made from servers here."))
    }
    /// Makes an image that is active without bytes: its properties name the snapshots that a server begins with.
    fn register(&self, _tx: &mut Tx, _new: &NewSnapshot) -> Result<()> {
        Err(Fault::new(base::FaultKind::NotImplemented, "Images cannot be made from servers here."))
    }
    /// Removes an image whose bytes have not come; one that is whole, or gone, stays as it is.
    fn discard(&self, _tx: &mut Tx, _id: &ImageId) -> Result<()> {
        Ok(())
    }
}
