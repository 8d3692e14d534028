//! The folder with the bytes.
//!
//! `.upload-IMAGE-NONCE` is a transfer on its way, `IMAGE.NONCE` a whole file. Its process holds a lock on the file
//! from before the commit that announces the transfer until after the one that ends it; the lock goes with the
//! process. A file that is neither locked nor named by a document belongs to nobody.

use base::{Fault, ImageId, Result, is_uuid};
use std::fs::{File, OpenOptions, TryLockError};
use std::io::ErrorKind;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

#[derive(Clone, Debug)]
pub struct Files {
    folder: PathBuf,
}

/// A file of the folder that follows its naming.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    pub name: String,
    pub image: ImageId,
}

impl Files {
    /// Makes the folder where it is missing.
    ///
    /// # Errors
    /// Unavailable when it cannot be made.
    pub fn open(folder: &Path) -> Result<Files> {
        std::fs::create_dir_all(folder).map_err(|error| unavailable("create the image folder", error))?;
        Ok(Files { folder: folder.to_owned() })
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    pub fn partial(image: &ImageId, nonce: &str) -> String {
        format!(".upload-{image}-{nonce}")
    }

    pub fn whole(image: &ImageId, nonce: &str) -> String {
        format!("{image}.{nonce}")
    }

    /// A new, locked, empty file for a transfer.
    pub fn begin(&self, image: &ImageId, nonce: &str) -> Result<File> {
        let path = self.path(&Files::partial(image, nonce));
        // A sweep of another process may take the file between its creation and the lock; then it is made again.
        for _ in 0..16 {
            let opened = OpenOptions::new().read(true).write(true).create_new(true).mode(0o640).open(&path);
            let file = opened.map_err(|error| unavailable("create a file for the upload", error))?;
            file.lock().map_err(|error| unavailable("lock the upload", error))?;
            if file.metadata().is_ok_and(|metadata| metadata.nlink() > 0) {
                return Ok(file);
            }
        }
        Err(Fault::bug("a new upload file vanished sixteen times"))
    }

    /// Gives a finished transfer its whole name, durably. The file's bytes are on disk already.
    pub fn finish(&self, image: &ImageId, nonce: &str) -> Result<String> {
        let whole = Files::whole(image, nonce);
        let renamed = std::fs::rename(self.path(&Files::partial(image, nonce)), self.path(&whole));
        renamed.map_err(|error| unavailable("rename the upload", error))?;
        let synced = File::open(&self.folder).and_then(|folder| folder.sync_all());
        synced.map_err(|error| unavailable("write the image folder", error))?;
        Ok(whole)
    }

    /// Opens a whole file for reading.
    ///
    /// # Errors
    /// Bug when it is missing: a document named it.
    pub fn read(&self, name: &str) -> Result<File> {
        File::open(self.path(name)).map_err(|error| Fault::bug(format!("image file {name}")).because(error))
    }

    /// Removes a file; one that is gone already is no error.
    pub fn remove(&self, name: &str) -> Result<()> {
        match std::fs::remove_file(self.path(name)) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(unavailable("remove an image file", error)),
            _ => Ok(()),
        }
    }

    /// Removes a file unless some process holds its lock. False if one does.
    pub fn remove_unheld(&self, name: &str) -> Result<bool> {
        let Ok(file) = File::open(self.path(name)) else { return Ok(true) };
        // Held while the name goes, so that whoever made the file this moment finds it unlinked and makes another.
        match file.try_lock() {
            Err(TryLockError::WouldBlock) => Ok(false),
            _ => self.remove(name).map(|()| true),
        }
    }

    /// True while a process holds the transfer, under either of its names.
    pub fn is_held(&self, image: &ImageId, nonce: &str) -> bool {
        self.is_locked(&Files::partial(image, nonce)) || self.is_locked(&Files::whole(image, nonce))
    }

    /// True while some process holds the lock of a file. A second open file of the same process sees it, too.
    fn is_locked(&self, name: &str) -> bool {
        let Ok(file) = File::open(self.path(name)) else { return false };
        matches!(file.try_lock(), Err(TryLockError::WouldBlock))
    }

    /// Every file that follows the naming. Others are left alone: they are not ours.
    pub fn list(&self) -> Result<Vec<Found>> {
        let entries = std::fs::read_dir(&self.folder).map_err(|error| unavailable("read the image folder", error))?;
        let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        let mut found: Vec<Found> = names.filter_map(|name| Some(Found { image: image_of(&name)?, name })).collect();
        // A folder has no order of its own.
        found.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        Ok(found)
    }
}

/// The image that a file's name says it belongs to.
fn image_of(name: &str) -> Option<ImageId> {
    let id = match name.strip_prefix(".upload-") {
        Some(rest) => rest.get(..36).filter(|_| rest.as_bytes().get(36) == Some(&b'-')),
        None => name.get(..36).filter(|_| name.as_bytes().get(36) == Some(&b'.')),
    };
    id.filter(|id| is_uuid(id)).map(ImageId::from)
}

fn unavailable(what: &str, error: std::io::Error) -> Fault {
    if error.kind() == ErrorKind::StorageFull || error.kind() == ErrorKind::QuotaExceeded {
        return Fault::too_large("Image storage media is full.").because(error);
    }
    Fault::unavailable(format!("The image service cannot {what}.")).because(error)
}
