//! Where the agent keeps things below the state directory, and how it writes what must survive a crash.

use base::ServerId;
use serde::Serialize;
use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// The folders of one agent: `hosts/guests/<server>/…`, `hosts/images/<sha512>.<format>` and `hosts/volumes/<id>/…`.
#[derive(Clone, Debug)]
pub struct Layout {
    pub guests: PathBuf,
    pub images: PathBuf,
    pub volumes: PathBuf,
    /// What the host's switch for shared memory stood at before.
    pub ksm: PathBuf,
}

impl Layout {
    pub fn new(state: &Path) -> Layout {
        let below = |name: &str| state.join("hosts").join(name);
        Layout {
            guests: below("guests"),
            images: below("images"),
            volumes: below("volumes"),
            ksm: below("ksm.json"),
        }
    }

    pub fn make(&self) -> io::Result<()> {
        make_folder(&self.guests)?;
        make_folder(&self.images)?;
        make_folder(&self.volumes)
    }

    pub fn guest(&self, id: &ServerId) -> GuestFiles {
        GuestFiles { folder: self.guests.join(id.as_str()) }
    }
}

/// The files of one guest. The id was checked to be a UUID before it came here.
#[derive(Clone, Debug)]
pub struct GuestFiles {
    pub folder: PathBuf,
}

impl GuestFiles {
    pub fn ledger(&self) -> PathBuf {
        self.folder.join("ledger.json")
    }
    /// Locked by the guest's process as long as it lives, whoever started it.
    pub fn lock(&self) -> PathBuf {
        self.folder.join("process.lock")
    }
    pub fn root_disk(&self) -> PathBuf {
        self.folder.join("root.qcow2")
    }
    pub fn config_drive(&self) -> PathBuf {
        self.folder.join("config.iso")
    }
    pub fn memory(&self) -> PathBuf {
        self.folder.join("memory")
    }
    pub fn monitor(&self) -> PathBuf {
        self.folder.join("qmp.sock")
    }
    /// A copy of the root disk, for the moment until it has no name any more.
    pub fn copy(&self) -> PathBuf {
        self.folder.join("copy.partial")
    }
    /// The monitor of the process that copies the disk of a stopped guest.
    pub fn copy_monitor(&self) -> PathBuf {
        self.folder.join("copy.sock")
    }
    pub fn copy_serial(&self) -> PathBuf {
        self.folder.join("copy-serial.sock")
    }
    pub fn serial(&self) -> PathBuf {
        self.folder.join("serial.sock")
    }
    pub fn console_log(&self) -> PathBuf {
        self.folder.join("console.log")
    }
    /// The older part of the console log.
    pub fn console_log_before(&self) -> PathBuf {
        self.folder.join("console.log.1")
    }
    /// What QEMU itself says.
    pub fn qemu_log(&self) -> PathBuf {
        self.folder.join("qemu.log")
    }
}

/// Makes a folder that only we may enter, with those above it.
pub fn make_folder(path: &Path) -> io::Result<()> {
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// Replaces a file so that a crash leaves the old content or the new one.
pub fn replace(path: &Path, content: &[u8]) -> io::Result<()> {
    put(path, content)?;
    sync_folder(path)
}

/// The same where the host's end may take the new content away again, but never leave a part of it.
fn put(path: &Path, content: &[u8]) -> io::Result<()> {
    let partial = path.with_extension("partial");
    let written = write_synced(&partial, content).and_then(|()| std::fs::rename(&partial, path));
    if written.is_err() {
        let _ = std::fs::remove_file(&partial);
    }
    written
}

fn write_synced(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut file = File::options().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    file.write_all(content)?;
    file.sync_data()
}

/// Makes the name of a file in its folder survive a crash.
pub fn sync_folder(path: &Path) -> io::Result<()> {
    File::open(path.parent().unwrap_or(path))?.sync_all()
}

pub fn put_json(path: &Path, value: &impl Serialize) -> io::Result<()> {
    put(path, &serde_json::to_vec(value).map_err(io::Error::other)?)
}

pub fn replace_json(path: &Path, value: &impl Serialize) -> io::Result<()> {
    replace(path, &serde_json::to_vec(value).map_err(io::Error::other)?)
}

/// Removes a file or folder; what is not there is no error.
pub fn remove(path: &Path) -> io::Result<()> {
    let gone = match std::fs::symlink_metadata(path) {
        Ok(about) if about.is_dir() => std::fs::remove_dir_all(path),
        Ok(_) => std::fs::remove_file(path),
        Err(error) => Err(error),
    };
    match gone {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_replaced_file_is_whole_and_leaves_nothing_beside_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ledger.json");
        replace(&path, b"one").unwrap();
        replace(&path, b"two").unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"two");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
        remove(&path).unwrap();
        remove(&path).unwrap();
    }
}
