//! The folder of the cache: `IMAGE.NONCE` is a whole copy, `.queued-IMAGE` an empty file that asks for one.
//!
//! A copy has the name of the file that it is a copy of: an image that was deleted and made anew under its id has
//! another, and nobody gets the bytes of the one before.
//! A copy has no name until it is whole, so that nobody finds half of one, whatever dies when.

use base::{Fault, ImageId, Result, is_uuid};
use nix::fcntl::{AT_FDCWD, AtFlags, OFlag};
use std::collections::BTreeMap;
use std::fs::{DirEntry, File, FileTimes, Metadata, OpenOptions};
use std::io::{ErrorKind, Seek};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

const QUEUED: &str = ".queued-";

/// What one cache may have queued, and cached.
const ENTRIES: usize = 10_000;

#[derive(Debug)]
pub struct Folder {
    path: PathBuf,
    most_bytes: u64,
    /// How often each has been read since this process started.
    hits: Mutex<BTreeMap<ImageId, u64>>,
}

/// A copy as it lies there.
#[derive(Clone, Debug)]
pub struct Entry {
    pub image: ImageId,
    pub file: String,
    pub size_bytes: u64,
    pub hits: u64,
    /// Seconds since 1970; an entry that nobody has read has the time at which it was made.
    pub accessed_s: f64,
    pub modified_s: f64,
}

impl Folder {
    /// # Errors
    /// Unavailable when it cannot be made.
    pub fn open(path: &Path, most_bytes: u64) -> Result<Folder> {
        std::fs::create_dir_all(path).map_err(|error| unavailable("create its folder", error))?;
        Ok(Folder { path: path.to_owned(), most_bytes, hits: Mutex::default() })
    }

    /// A copy of this file for reading, which counts as a use.
    pub fn read(&self, file: &str) -> Option<File> {
        let image = image_of(file)?;
        let copy = File::open(self.path.join(file)).ok()?;
        let now = FileTimes::new().set_accessed(SystemTime::now());
        if let Err(error) = copy.set_times(now) {
            tracing::debug!(%image, %error, "the use of a cached image is not kept");
        }
        *self.hits.lock().unwrap_or_else(PoisonError::into_inner).entry(image).or_default() += 1;
        Some(copy)
    }

    pub fn has(&self, file: &str) -> bool {
        image_of(file).is_some() && self.path.join(file).is_file()
    }

    /// False for what is larger than the cache, which is not kept.
    pub fn takes(&self, size_bytes: u64) -> bool {
        size_bytes <= self.most_bytes
    }

    /// A file without a name in the folder.
    pub fn nameless(&self) -> Result<File> {
        let flags = OFlag::O_TMPFILE.bits();
        let opened = OpenOptions::new().read(true).write(true).mode(0o640).custom_flags(flags).open(&self.path);
        opened.map_err(|error| unavailable("make a file", error))
    }

    /// Gives a whole file of [`Folder::nameless`] its name, and makes room for it.
    pub fn keep(&self, file: &str, copy: &File) -> Result<()> {
        let failed = |error| unavailable("keep an image", error);
        if image_of(file).is_none() {
            return Err(Fault::bug(format!("a cached file called {file}")));
        }
        copy.sync_all().map_err(failed)?;
        let from = format!("/proc/self/fd/{}", copy.as_raw_fd());
        let linked =
            nix::unistd::linkat(AT_FDCWD, from.as_str(), AT_FDCWD, &self.path.join(file), AtFlags::AT_SYMLINK_FOLLOW);
        match linked {
            // Another was quicker, with the same bytes.
            Ok(()) | Err(nix::Error::EEXIST) => {}
            Err(error) => return Err(failed(error.into())),
        }
        self.prune(Some(file)).map(drop)
    }

    /// Removes the copies of an image, but for that of the file that it has. False where there are none.
    pub fn remove(&self, image: &ImageId, but: Option<&str>) -> Result<bool> {
        let mut removed = false;
        for (_, file, of) in self.named(image_of)? {
            if of == *image && but != Some(&*file) {
                removed |= gone(&self.path.join(&file))?;
            }
        }
        if but.is_none() {
            self.hits.lock().unwrap_or_else(PoisonError::into_inner).remove(image);
        }
        Ok(removed)
    }

    pub fn queue(&self, image: &ImageId) -> Result<()> {
        let Some(name) = checked(image) else { return Ok(()) };
        if self.queued()?.len() >= ENTRIES {
            return Err(Fault::unavailable(format!("{ENTRIES} images wait for the cache already.")));
        }
        let made = File::create(self.path.join(format!("{QUEUED}{name}")));
        made.map(drop).map_err(|error| unavailable("queue an image", error))
    }

    /// False where it does not wait.
    pub fn unqueue(&self, image: &ImageId) -> Result<bool> {
        match checked(image) {
            Some(name) => gone(&self.path.join(format!("{QUEUED}{name}"))),
            None => Ok(false),
        }
    }

    /// Those that wait, the first one first.
    pub fn queued(&self) -> Result<Vec<ImageId>> {
        let image = |name: &str| name.strip_prefix(QUEUED).filter(|name| is_uuid(name)).map(ImageId::from);
        let mut waiting: Vec<(SystemTime, ImageId)> = Vec::new();
        for (entry, _, image) in self.named(image)? {
            waiting.extend(entry.metadata().and_then(|about| about.modified()).ok().map(|since| (since, image)));
        }
        waiting.sort();
        Ok(waiting.into_iter().map(|(_, image)| image).collect())
    }

    /// The copies, the one that was used last first.
    pub fn entries(&self) -> Result<Vec<Entry>> {
        let hits = self.hits.lock().unwrap_or_else(PoisonError::into_inner);
        let mut entries = Vec::new();
        for (entry, file, image) in self.named(image_of)? {
            if let Ok(about) = entry.metadata() {
                entries.push(seen(&about, hits.get(&image).copied().unwrap_or(0), image, file));
            }
        }
        entries.sort_by(|a, b| b.accessed_s.total_cmp(&a.accessed_s).then_with(|| a.file.cmp(&b.file)));
        Ok(entries)
    }

    /// Removes what was used least lately until all that is left fits, in bytes and in number. The one that was just
    /// made stays.
    ///
    /// Returns how many files and bytes went.
    pub fn prune(&self, just_made: Option<&str>) -> Result<(usize, u64)> {
        let mut entries = self.entries()?;
        let mut all: u64 = entries.iter().map(|entry| entry.size_bytes).sum();
        let (mut left, mut files, mut bytes) = (entries.len(), 0, 0);
        while (all > self.most_bytes || left > ENTRIES)
            && let Some(oldest) = entries.pop()
        {
            if Some(&*oldest.file) != just_made && gone(&self.path.join(&oldest.file))? {
                (files, bytes) = (files + 1, bytes + oldest.size_bytes);
                (all, left) = (all - oldest.size_bytes, left - 1);
            }
        }
        Ok((files, bytes))
    }

    /// Files that are named after an image, by what the name says.
    fn named(&self, of: impl Fn(&str) -> Option<ImageId>) -> Result<Vec<(DirEntry, String, ImageId)>> {
        let entries = std::fs::read_dir(&self.path).map_err(|error| unavailable("read its folder", error))?;
        let image = |entry: DirEntry| {
            let name = entry.file_name().into_string().ok()?;
            let image = of(&name)?;
            Some((entry, name, image))
        };
        Ok(entries.filter_map(|entry| image(entry.ok()?)).collect())
    }
}

fn seen(about: &Metadata, hits: u64, image: ImageId, file: String) -> Entry {
    let seconds = |s: i64, ns: i64| s as f64 + ns as f64 / 1e9;
    let modified_s = seconds(about.mtime(), about.mtime_nsec());
    let accessed_s = seconds(about.atime(), about.atime_nsec()).max(modified_s);
    Entry { image, file, size_bytes: about.len(), hits, accessed_s, modified_s }
}

/// The image that a copy's name says it belongs to; none for what is no name of a copy.
fn image_of(file: &str) -> Option<ImageId> {
    let (id, nonce) = file.split_once('.')?;
    let plain = !nonce.is_empty() && nonce.bytes().all(|byte| byte.is_ascii_alphanumeric());
    Some(id).filter(|id| plain && id.len() == 36 && is_uuid(id)).map(ImageId::from)
}

/// An id becomes the name of a file.
fn checked(image: &ImageId) -> Option<&str> {
    Some(&**image).filter(|id| id.len() == 36 && is_uuid(id))
}

fn gone(path: &Path) -> Result<bool> {
    match std::fs::remove_file(path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        Err(error) => Err(unavailable("remove an image", error)),
    }
}

/// Copies a file to another, from their beginnings.
pub fn copy(mut from: File, mut to: &File) -> Result<()> {
    let copied = from.rewind().and_then(|()| std::io::copy(&mut from, &mut to));
    copied.map(drop).map_err(|error| unavailable("copy an image", error))
}

fn unavailable(what: &str, error: std::io::Error) -> Fault {
    Fault::unavailable(format!("The cache of images cannot {what}.")).because(error)
}
