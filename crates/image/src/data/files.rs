//! The folder with the bytes.
//!
//! `.upload-IMAGE-NONCE` is a transfer on its way, `IMAGE.NONCE` a whole file. Its process holds a lock on the file
//! from before the commit that announces the transfer until after the one that ends it; the lock goes with the
//! process. A file that is neither locked nor named by a document belongs to nobody.
//!
//! Images of the same bytes are one file with a name each, and one more in [`CONTENT`]: its SHA-512. Whoever brings
//! bytes that are there becomes a name of them, and the last name takes them along. The file system counts the names,
//! so that nothing can go while an image has it, whatever dies when. A name by content can be lost or linger without
//! harm: then bytes are kept twice, or until the next sweep.

use base::{Fault, ImageId, Result, is_uuid};
use std::fs::{DirEntry, File, OpenOptions, TryLockError};
use std::io::{ErrorKind, Read};
use std::os::unix::fs::{DirEntryExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// The folder of the names by content.
pub const CONTENT: &str = ".content";

/// Bytes that are compared at a time.
const PIECE: usize = 1 << 20;

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

    /// A transfer that is being converted; it takes the place of the other when it is whole.
    pub fn converted(image: &ImageId, nonce: &str) -> String {
        format!(".upload-{image}-{nonce}.converted")
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

    /// Gives a finished transfer its whole name, durably. Its bytes are on disk already, and have this SHA-512.
    ///
    /// Where the same bytes are there, the name becomes one of theirs, and the transfer's file stays with its lock:
    /// whoever ends the transfer removes it.
    pub fn finish(&self, image: &ImageId, nonce: &str, sha512: &str) -> Result<()> {
        let (partial, whole) = (self.path(&Files::partial(image, nonce)), self.path(&Files::whole(image, nonce)));
        let content = self.content().join(sha512);
        if !joined(&partial, &content, &whole) {
            let renamed = std::fs::rename(&partial, &whole);
            renamed.map_err(|error| unavailable("rename the upload", error))?;
            // Not every file system has a second name for a file; then all bytes are kept as they come.
            if let Err(error) = std::fs::create_dir_all(self.content()).and_then(|()| std::fs::hard_link(&whole, &content)) {
                tracing::debug!(%image, %error, "the bytes have no name by content");
            }
        }
        let synced = File::open(&self.folder).and_then(|folder| folder.sync_all());
        synced.map_err(|error| unavailable("write the image folder", error))
    }

    /// Opens a whole file for reading.
    ///
    /// # Errors
    /// Bug when it is missing: a document named it.
    pub fn read(&self, name: &str) -> Result<File> {
        File::open(self.path(name)).map_err(|error| Fault::bug(format!("image file {name}")).because(error))
    }

    /// Removes a file; one that is gone already is no error. Its bytes go with the last image that has them.
    pub fn remove(&self, name: &str) -> Result<()> {
        let path = self.path(name);
        let about = path.symlink_metadata();
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(unavailable("remove an image file", error)),
            _ => match about {
                Ok(about) if about.nlink() > 1 => self.forget(|entry| entry.ino() == about.ino()),
                _ => Ok(()),
            },
        }
    }

    /// Removes names by content that nothing else has.
    pub fn sweep_contents(&self) -> Result<()> {
        self.forget(|_| true)
    }

    fn forget(&self, asked: impl Fn(&DirEntry) -> bool) -> Result<()> {
        let failed = |error| unavailable("sweep the contents of images", error);
        let entries = match std::fs::read_dir(self.content()) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            entries => entries.map_err(failed)?,
        };
        for entry in entries.filter_map(|entry| entry.ok().filter(&asked)) {
            // Should an image join in between, it has the file, and only the name by content is lost.
            if entry.metadata().is_ok_and(|about| about.nlink() == 1) {
                match std::fs::remove_file(entry.path()) {
                    Err(error) if error.kind() != ErrorKind::NotFound => return Err(failed(error)),
                    _ => {}
                }
            }
        }
        Ok(())
    }

    fn content(&self) -> PathBuf {
        self.folder.join(CONTENT)
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

/// Makes `whole` a name of the file that `content` names, if that holds the bytes of `partial`. A name by content of
/// other bytes is damaged, and goes.
fn joined(partial: &Path, content: &Path, whole: &Path) -> bool {
    match same_bytes(partial, content) {
        Ok(true) => std::fs::hard_link(content, whole).is_ok(),
        Ok(false) => {
            tracing::error!(content = %content.display(), "the bytes of images are no longer those that were accepted");
            let _ = std::fs::remove_file(content);
            false
        }
        Err(_) => false,
    }
}

fn same_bytes(one: &Path, other: &Path) -> std::io::Result<bool> {
    let (mut one, mut other) = (File::open(one)?, File::open(other)?);
    let mut left = one.metadata()?.len();
    if other.metadata()?.len() != left {
        return Ok(false);
    }
    let (mut here, mut there) = (vec![0; PIECE], vec![0; PIECE]);
    while left > 0 {
        let piece = left.min(PIECE as u64) as usize;
        one.read_exact(&mut here[..piece])?;
        other.read_exact(&mut there[..piece])?;
        if here[..piece] != there[..piece] {
            return Ok(false);
        }
        left -= piece as u64;
    }
    Ok(true)
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
