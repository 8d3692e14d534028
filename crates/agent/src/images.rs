//! Images on this host: one sealed file per content, named by its SHA-512, below the disks of all guests that use it.
//!
//! Never opened by a program before control has inspected it, and never written once its name stands: its mode lets
//! nobody write, QEMU gets it as a descriptor that only reads, and its bytes were held against its name when it was
//! brought in. What a look at the file can tell (inode, length, time of the last write) is written down then, and
//! compared whenever a guest starts; where it differs, the bytes are held against the name again.

use crate::fault;
use crate::files;
use crate::ledger::blocking;
use agent_api::{AgentFault, ControlLink, ImageSource};
use base::HostName;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha512};
use std::collections::{BTreeSet, HashMap};
use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// An image that no guest uses is kept this long: the next guest is likely to want it.
const KEEP: Duration = Duration::from_secs(3600);
/// Below the folder of images: what was seen of each file when its bytes were held against its name.
const SEALS: &str = ".seals";
/// Nobody writes it, whoever owns it: where control's file is shared, that is control.
const SEALED: u32 = 0o440;

pub struct Images {
    folder: PathBuf,
    host: HostName,
    link: Arc<dyn ControlLink>,
    /// One fetch per image at a time.
    fetching: Mutex<HashMap<String, Arc<tokio::sync::Mutex<()>>>>,
}

pub fn file_name(of: &ImageSource) -> String {
    format!("{}.{}", of.sha512, of.format.as_str())
}

impl Images {
    pub fn new(folder: PathBuf, host: HostName, link: Arc<dyn ControlLink>) -> Images {
        Images { folder, host, link, fetching: Mutex::default() }
    }

    /// The image, opened read-only; fetched from control when it is not here yet.
    pub async fn ensure(&self, of: &ImageSource) -> Result<File, AgentFault> {
        let path = self.folder.join(file_name(of));
        let lock = {
            let mut fetching = self.fetching.lock().unwrap_or_else(|broken| broken.into_inner());
            fetching.entry(file_name(of)).or_default().clone()
        };
        // Goes along with the work: whoever asks may leave, and the file is then still being read.
        let alone = lock.lock_owned().await;
        let (wanted, known) = (of.clone(), path.clone());
        let looked = blocking(move || Ok((standing(&known, &wanted)?, alone))).await;
        let (there, alone) = looked.map_err(|error| fault::disk("image", &error))?;
        if let Some(file) = there {
            return Ok(file);
        }
        let source = self.link.image(&self.host, &of.image).await.map_err(|error| AgentFault {
            message: "The image could not be fetched from the control plane; it is tried again.".into(),
            detail: error.to_string(),
            retried: true,
        })?;
        let of = of.clone();
        let taken = tokio::task::spawn_blocking(move || {
            let _alone = alone;
            take(source, &path, of.image_bytes, &of.sha512)
        });
        taken.await.unwrap_or_else(|error| Err(fault::bug(&error)))
    }

    /// Removes what a crash left and what no guest of `used` (file names) has needed for a while.
    pub fn sweep(&self, used: &BTreeSet<String>) {
        sweep(&self.folder, used);
    }
}

fn sweep(folder: &Path, used: &BTreeSet<String>) {
    let Ok(entries) = std::fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if name == SEALS {
            continue;
        }
        let idle = entry.metadata().and_then(|about| about.accessed()).ok().and_then(|at| at.elapsed().ok());
        let unused = !used.contains(&name) && idle.is_some_and(|idle| idle > KEEP);
        if unused && let Err(error) = files::remove(&entry.path()) {
            tracing::warn!(%error, name, "an unused image stays");
        }
    }
    let seals = std::fs::read_dir(folder.join(SEALS)).into_iter().flatten().flatten();
    for seal in seals.filter(|seal| !folder.join(seal.file_name()).exists()) {
        // That of a file which is just being brought in may go with them: its bytes are then looked at once more.
        let _ = files::remove(&seal.path());
    }
}

/// What a look at a file tells of whether it was written to. Not its device, whose number may be another one after a
/// reboot, nor the time of its last change, which moves with each further name that it gets.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Seal {
    inode: u64,
    size_bytes: u64,
    written_s: i64,
    written_ns: i64,
}

impl Seal {
    fn of(file: &File) -> io::Result<Seal> {
        let about = file.metadata()?;
        let (written_s, written_ns) = (about.mtime(), about.mtime_nsec());
        Ok(Seal { inode: about.ino(), size_bytes: about.len(), written_s, written_ns })
    }

    fn path(image: &Path) -> PathBuf {
        let name = image.file_name().unwrap_or_default();
        image.parent().unwrap_or(image).join(SEALS).join(name)
    }

    /// None: there is none, or none that can be read.
    fn read(image: &Path) -> Option<Seal> {
        serde_json::from_slice(&std::fs::read(Seal::path(image)).ok()?).ok()
    }

    fn write(&self, image: &Path) -> io::Result<()> {
        let path = Seal::path(image);
        files::make_folder(path.parent().unwrap_or(&path))?;
        files::put_json(&path, self)
    }

    /// `image` is the name that the file has or shall have.
    fn keep(&self, image: &Path) {
        if let Err(error) = self.write(image) {
            // A full disk is no reason to start no guest: the bytes are looked at again next time.
            tracing::warn!(%error, "what a host's image looks like could not be written down");
        }
    }
}

/// The file, if it is there and holds what its name says. One that is not as it was left is read whole; what it should
/// not be loses its name, so that it is fetched again, and stays with the guests that have it open.
fn standing(path: &Path, of: &ImageSource) -> io::Result<Option<File>> {
    let mut file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let (now, sealed) = (Seal::of(&file)?, Seal::read(path));
    if sealed.as_ref() == Some(&now) && now.size_bytes == of.image_bytes {
        return Ok(Some(file));
    }
    if now.size_bytes == of.image_bytes
        && let Some(proven) = proven(&mut file, &of.sha512)?
    {
        if sealed.is_some() {
            tracing::warn!(image = %of.image, "a host's image was touched; its bytes are the right ones");
        }
        proven.keep(path);
        return Ok(Some(file));
    }
    tracing::error!(image = %of.image, "a host's image was written to by somebody; it is fetched again");
    files::remove(path)?;
    Ok(None)
}

/// Nobody may write it any more.
fn protect(file: &File) -> io::Result<()> {
    if file.metadata()?.permissions().mode() & 0o7777 != SEALED {
        file.set_permissions(std::fs::Permissions::from_mode(SEALED))?;
    }
    Ok(())
}

/// The seal of a file that has these bytes; none where it has others, or was written to while it was read.
fn proven(file: &mut File, sha512: &str) -> io::Result<Option<Seal>> {
    protect(file)?;
    let before = Seal::of(file)?;
    let same = digest(file)?.eq_ignore_ascii_case(sha512);
    Ok(if same && Seal::of(file)? == before { Some(before) } else { None })
}

/// The SHA-512 of a file from its beginning, in hexadecimal digits.
fn digest(file: &mut File) -> io::Result<String> {
    file.rewind()?;
    let mut hash = Sha512::new();
    let mut buffer = vec![0u8; 1 << 20];
    loop {
        let read = file.read(&mut buffer)?;
        if read == 0 {
            return Ok(hex(hash));
        }
        hash.update(&buffer[..read]);
    }
}

fn hex(hash: Sha512) -> String {
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Takes an image over under its own name: shared where the file system can, copied otherwise. Either way its bytes are
/// held against its hash, once for each host and content; for a shared file that also brings it into the page cache,
/// which the first guest is about to read it from.
fn take(mut source: File, target: &Path, expected: u64, sha512: &str) -> Result<File, AgentFault> {
    let disk = |error: io::Error| fault::disk("image", &error);
    let length = source.metadata().map_err(disk)?.len();
    if length != expected {
        return Err(wrong(format!("it has {length} bytes instead of {expected}")));
    }
    let partial = target.with_extension("partial");
    files::remove(&partial).map_err(disk)?;
    let shared = share(&source, &partial);
    let taken = if shared { Ok(()) } else { copy(&mut source, &partial, expected, sha512) };
    let named = taken.and_then(|()| {
        let mut file = File::open(&partial).map_err(disk)?;
        let seal = if shared {
            // Somebody else may have it open as well.
            proven(&mut file, sha512).map_err(disk)?.ok_or_else(other_bytes)?
        } else {
            protect(&file).and_then(|()| Seal::of(&file)).map_err(disk)?
        };
        seal.keep(target);
        std::fs::rename(&partial, target).and_then(|()| files::sync_folder(target)).map_err(disk)?;
        Ok(file)
    });
    if named.is_err() {
        let _ = files::remove(&partial);
    }
    named
}

fn other_bytes() -> AgentFault {
    wrong("its SHA-512 is not the one that it was uploaded with".into())
}

fn matching(got: &str, sha512: &str) -> Result<(), AgentFault> {
    if got.eq_ignore_ascii_case(sha512) { Ok(()) } else { Err(other_bytes()) }
}

fn wrong(what: String) -> AgentFault {
    AgentFault {
        message: format!("The image is damaged: {what}. Upload it again and rebuild the server."),
        detail: what,
        retried: false,
    }
}

/// A copy that shares blocks (btrfs, xfs), or the same file under a second name.
fn share(source: &File, target: &Path) -> bool {
    nix::ioctl_write_int!(clone_blocks, 0x94, 9);
    let Ok(copy) = File::options().write(true).create_new(true).mode(0o400).open(target) else { return false };
    #[allow(unsafe_code)]
    // SAFETY: FICLONE takes a descriptor number and touches no memory of ours.
    let cloned = unsafe { clone_blocks(copy.as_raw_fd(), source.as_raw_fd() as u64) };
    if cloned.is_ok() {
        return copy.sync_all().is_ok();
    }
    drop(copy);
    let _ = files::remove(target);
    let name = format!("/proc/self/fd/{}", source.as_raw_fd());
    let linked = nix::unistd::linkat(
        nix::fcntl::AT_FDCWD,
        name.as_str(),
        nix::fcntl::AT_FDCWD,
        target,
        nix::fcntl::AtFlags::AT_SYMLINK_FOLLOW,
    );
    linked.is_ok()
}

fn copy(source: &mut File, target: &Path, expected: u64, sha512: &str) -> Result<(), AgentFault> {
    let disk = |error: io::Error| fault::disk("image", &error);
    let mut file = File::options().write(true).create_new(true).mode(0o400).open(target).map_err(disk)?;
    source.rewind().map_err(disk)?;
    let mut hash = Sha512::new();
    let mut buffer = vec![0u8; 1 << 20];
    let mut copied = 0u64;
    loop {
        let read = source.read(&mut buffer).map_err(disk)?;
        if read == 0 {
            break;
        }
        copied += read as u64;
        if copied > expected {
            return Err(wrong(format!("it has more than {expected} bytes")));
        }
        hash.update(&buffer[..read]);
        file.write_all(&buffer[..read]).map_err(disk)?;
    }
    if copied != expected {
        return Err(wrong(format!("it has {copied} bytes instead of {expected}")));
    }
    matching(&hex(hash), sha512)?;
    file.sync_all().map_err(disk)
}

#[cfg(test)]
mod tests {
    use super::*;
    use agent_api::DiskFormat;

    fn hash(bytes: &[u8]) -> String {
        hex(Sha512::new_with_prefix(bytes))
    }

    #[test]
    fn a_copy_is_checked_and_a_wrong_one_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let content = b"an image".repeat(1000);
        let length = content.len() as u64;
        let make = || {
            let mut file = tempfile::tempfile().unwrap();
            file.write_all(&content).unwrap();
            file
        };
        let target = folder.path().join("a.partial");
        copy(&mut make(), &target, length, &hash(&content)).unwrap();
        assert_eq!(std::fs::read(&target).unwrap(), content);
        let other = folder.path().join("b.partial");
        let fault = copy(&mut make(), &other, length, &hash(b"other")).unwrap_err();
        assert!(fault.message.contains("SHA-512") && !fault.retried);
        assert!(take(make(), &folder.path().join("c.raw"), 5, "").unwrap_err().message.contains("instead of 5"));
        assert!(!folder.path().join("c.partial").exists());
    }

    #[test]
    fn a_file_of_the_same_file_system_is_shared_sealed_and_checked() {
        let folder = tempfile::tempdir().unwrap();
        let source = folder.path().join("upload");
        std::fs::write(&source, b"an image").unwrap();
        let target = folder.path().join("x.raw");
        let fault = take(File::open(&source).unwrap(), &target, 8, &hash(b"other")).unwrap_err();
        assert!(fault.message.contains("SHA-512") && !target.exists() && Seal::read(&target).is_none());
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "only the upload is there");
        take(File::open(&source).unwrap(), &target, 8, &hash(b"an image")).unwrap();
        std::fs::remove_file(&source).unwrap();
        assert_eq!(std::fs::read(&target).unwrap(), b"an image");
        assert_eq!(target.metadata().unwrap().mode() & 0o7777, SEALED);
    }

    #[test]
    fn what_was_written_to_is_noticed_and_what_was_only_touched_goes_on() {
        let folder = tempfile::tempdir().unwrap();
        let of = ImageSource {
            image: "image".into(),
            format: DiskFormat::Raw,
            sha512: hash(b"an image"),
            image_bytes: 8,
        };
        let path = folder.path().join(file_name(&of));
        let stands = || standing(&path, &of).unwrap().is_some();
        assert!(!stands());
        // As an agent has left it that wrote no seals.
        std::fs::write(&path, b"an image").unwrap();
        assert!(stands());
        let sealed = Seal::read(&path).unwrap();
        std::fs::hard_link(&path, folder.path().join("below a volume")).unwrap();
        assert!(stands());
        assert_eq!(Seal::read(&path).unwrap(), sealed, "a further name is no change");

        let touch = |content: &[u8]| {
            // Another file with that content: root may write a sealed one, others may not.
            std::fs::remove_file(&path).unwrap();
            std::fs::write(&path, content).unwrap();
        };
        touch(b"an image");
        assert!(stands());
        assert_ne!(Seal::read(&path).unwrap(), sealed);
        assert_eq!(path.metadata().unwrap().mode() & 0o7777, SEALED);
        touch(b"an imagf");
        assert!(!stands() && !path.exists());
        std::fs::write(&path, b"an imag").unwrap();
        assert!(!stands() && !path.exists());
    }

    #[test]
    fn seals_go_with_their_images_and_stay_with_them() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        for name in ["one.raw", "two.raw"] {
            std::fs::write(path(name), name).unwrap();
            let file = File::open(path(name)).unwrap();
            protect(&file).unwrap();
            Seal::of(&file).unwrap().keep(&path(name));
        }
        std::fs::remove_file(path("one.raw")).unwrap();
        sweep(folder.path(), &BTreeSet::new());
        assert!(Seal::read(&path("one.raw")).is_none());
        assert!(Seal::read(&path("two.raw")).is_some());
    }
}
