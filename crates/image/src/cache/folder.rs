//! The folder of the cache: `IMAGE` is a whole copy, `.queued-IMAGE` an empty file that asks for one.
//!
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

    /// A copy for reading, which counts as a use.
    pub fn read(&self, image: &ImageId) -> Option<File> {
        let file = File::open(self.path.join(checked(image)?)).ok()?;
        let now = FileTimes::new().set_accessed(SystemTime::now());
        if let Err(error) = file.set_times(now) {
            tracing::debug!(%image, %error, "the use of a cached image is not kept");
        }
        *self.hits.lock().unwrap_or_else(PoisonError::into_inner).entry(image.clone()).or_default() += 1;
        Some(file)
    }

    pub fn has(&self, image: &ImageId) -> bool {
        checked(image).is_some_and(|name| self.path.join(name).is_file())
    }

    /// A file without a name in the folder.
    pub fn nameless(&self) -> Result<File> {
        let flags = OFlag::O_TMPFILE.bits();
        let opened = OpenOptions::new().read(true).write(true).mode(0o640).custom_flags(flags).open(&self.path);
        opened.map_err(|error| unavailable("make a file", error))
    }

    /// Gives a whole file of [`Folder::nameless`] its name, and makes room for it. False for one that is larger than
    /// the cache, which is not kept.
    pub fn keep(&self, image: &ImageId, file: &File) -> Result<bool> {
        let failed = |error| unavailable("keep an image", error);
        let Some(name) = checked(image) else { return Ok(false) };
        if file.metadata().map_err(failed)?.len() > self.most_bytes || self.entries()?.len() >= ENTRIES {
            return Ok(false);
        }
        file.sync_all().map_err(failed)?;
        let from = format!("/proc/self/fd/{}", file.as_raw_fd());
        let linked =
            nix::unistd::linkat(AT_FDCWD, from.as_str(), AT_FDCWD, &self.path.join(name), AtFlags::AT_SYMLINK_FOLLOW);
        match linked {
            // Another was quicker, with the same bytes.
            Ok(()) | Err(nix::Error::EEXIST) => {}
            Err(error) => return Err(failed(error.into())),
        }
        self.prune(Some(image))?;
        Ok(true)
    }

    /// False where there is none.
    pub fn remove(&self, image: &ImageId) -> Result<bool> {
        self.hits.lock().unwrap_or_else(PoisonError::into_inner).remove(image);
        match checked(image) {
            Some(name) => gone(&self.path.join(name)),
            None => Ok(false),
        }
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
        let mut waiting: Vec<(SystemTime, ImageId)> = self.files(|name| name.strip_prefix(QUEUED))?;
        waiting.sort();
        Ok(waiting.into_iter().map(|(_, image)| image).collect())
    }

    /// The copies, the one that was used last first.
    pub fn entries(&self) -> Result<Vec<Entry>> {
        let hits = self.hits.lock().unwrap_or_else(PoisonError::into_inner);
        let mut entries = Vec::new();
        for (entry, image) in self.named(|name| Some(name))? {
            if let Ok(about) = entry.metadata() {
                entries.push(seen(&about, hits.get(&image).copied().unwrap_or(0), image));
            }
        }
        entries.sort_by(|a, b| b.accessed_s.total_cmp(&a.accessed_s).then_with(|| a.image.cmp(&b.image)));
        Ok(entries)
    }

    /// Removes what was used least lately until all that is left fits. The one that was just made stays.
    ///
    /// Returns how many files and bytes went.
    pub fn prune(&self, just_made: Option<&ImageId>) -> Result<(usize, u64)> {
        let mut entries = self.entries()?;
        let mut all: u64 = entries.iter().map(|entry| entry.size_bytes).sum();
        let (mut files, mut bytes) = (0, 0);
        while all > self.most_bytes
            && let Some(oldest) = entries.pop()
        {
            if Some(&oldest.image) != just_made && self.remove(&oldest.image)? {
                (files, bytes) = (files + 1, bytes + oldest.size_bytes);
                all -= oldest.size_bytes;
            }
        }
        Ok((files, bytes))
    }

    fn files(&self, of: fn(&str) -> Option<&str>) -> Result<Vec<(SystemTime, ImageId)>> {
        let named = self.named(of)?.into_iter();
        Ok(named.filter_map(|(entry, image)| Some((entry.metadata().ok()?.modified().ok()?, image))).collect())
    }

    /// Files that are named after an image, by what the name says.
    fn named(&self, of: fn(&str) -> Option<&str>) -> Result<Vec<(DirEntry, ImageId)>> {
        let entries = std::fs::read_dir(&self.path).map_err(|error| unavailable("read its folder", error))?;
        let image = |entry: DirEntry| {
            let name = entry.file_name().into_string().ok()?;
            let image = of(&name).filter(|name| is_uuid(name)).map(ImageId::from)?;
            Some((entry, image))
        };
        Ok(entries.filter_map(|entry| image(entry.ok()?)).collect())
    }
}

fn seen(about: &Metadata, hits: u64, image: ImageId) -> Entry {
    let seconds = |s: i64, ns: i64| s as f64 + ns as f64 / 1e9;
    let modified_s = seconds(about.mtime(), about.mtime_nsec());
    let accessed_s = seconds(about.atime(), about.atime_nsec()).max(modified_s);
    Entry { image, size_bytes: about.len(), hits, accessed_s, modified_s }
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
