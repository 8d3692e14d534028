//! Images on this host: one read-only file per content, named by its SHA-512.
//!
//! Never opened by a program before control has inspected it, and never written once its name stands.

use crate::fault;
use crate::files;
use crate::ledger::blocking;
use agent_api::{AgentFault, ControlLink, ImageSource};
use base::HostName;
use sha2::{Digest, Sha512};
use std::collections::{BTreeSet, HashMap};
use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// An image that no guest uses is kept this long: the next guest is likely to want it.
const KEEP: Duration = Duration::from_secs(3600);

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
        let _alone = lock.lock().await;
        let expected = of.image_bytes;
        let known = path.clone();
        let there =
            blocking(move || open_whole(&known, expected)).await.map_err(|error| fault::disk("image", &error))?;
        if let Some(file) = there {
            return Ok(file);
        }
        let source = self.link.image(&self.host, &of.image).await.map_err(|error| AgentFault {
            message: "The image could not be fetched from the control plane; it is tried again.".into(),
            detail: error.to_string(),
            retried: true,
        })?;
        let (sha512, target) = (of.sha512.clone(), path);
        let taken = tokio::task::spawn_blocking(move || take(source, &target, expected, &sha512)).await;
        taken.unwrap_or_else(|error| Err(fault::bug(&error)))
    }

    /// Removes what a crash left and what no guest of `used` (file names) has needed for a while.
    pub fn sweep(&self, used: &BTreeSet<String>) {
        let Ok(entries) = std::fs::read_dir(&self.folder) else { return };
        for entry in entries.flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let idle = entry.metadata().and_then(|about| about.accessed()).ok().and_then(|at| at.elapsed().ok());
            let unused = !used.contains(&name) && idle.is_some_and(|idle| idle > KEEP);
            if unused && let Err(error) = files::remove(&entry.path()) {
                tracing::warn!(%error, name, "an unused image stays");
            }
        }
    }
}

/// The file, if it has the length that it should have.
fn open_whole(path: &Path, expected: u64) -> io::Result<Option<File>> {
    match File::open(path) {
        Ok(file) if file.metadata()?.len() == expected => Ok(Some(file)),
        Ok(_) => Ok(None),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Takes an image over under its own name: shared where the file system can, copied and hashed otherwise.
///
/// A shared file is not hashed again: control computed the hash when these very blocks were written, nothing has
/// copied them since, and hashing half a gigabyte at each first start would cost a second.
fn take(mut source: File, target: &Path, expected: u64, sha512: &str) -> Result<File, AgentFault> {
    let disk = |error: io::Error| fault::disk("image", &error);
    let length = source.metadata().map_err(disk)?.len();
    if length != expected {
        return Err(wrong(format!("it has {length} bytes instead of {expected}")));
    }
    let partial = target.with_extension("partial");
    files::remove(&partial).map_err(disk)?;
    let taken = match share(&source, &partial) {
        true => Ok(()),
        false => copy(&mut source, &partial, expected, sha512),
    };
    let named = taken.and_then(|()| {
        std::fs::rename(&partial, target).and_then(|()| files::sync_folder(target)).map_err(disk)?;
        File::open(target).map_err(disk)
    });
    if named.is_err() {
        let _ = files::remove(&partial);
    }
    named
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
    let got: String = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    if copied != expected || !got.eq_ignore_ascii_case(sha512) {
        return Err(wrong("its SHA-512 is not the one that it was uploaded with".into()));
    }
    file.sync_all().map_err(disk)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(bytes: &[u8]) -> String {
        Sha512::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
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
        copy(&mut make(), &target, length, &digest(&content)).unwrap();
        assert_eq!(std::fs::read(&target).unwrap(), content);
        let other = folder.path().join("b.partial");
        let fault = copy(&mut make(), &other, length, &digest(b"other")).unwrap_err();
        assert!(fault.message.contains("SHA-512") && !fault.retried);
        assert!(take(make(), &folder.path().join("c.raw"), 5, "").unwrap_err().message.contains("instead of 5"));
        assert!(!folder.path().join("c.partial").exists());
    }

    #[test]
    fn a_file_of_the_same_file_system_is_shared() {
        let folder = tempfile::tempdir().unwrap();
        let source = folder.path().join("upload");
        std::fs::write(&source, b"an image").unwrap();
        let target = folder.path().join("x.raw");
        take(File::open(&source).unwrap(), &target, 8, "not looked at").unwrap();
        std::fs::remove_file(&source).unwrap();
        assert_eq!(std::fs::read(&target).unwrap(), b"an image");
    }
}
