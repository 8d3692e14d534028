//! A copy of a guest's root disk, as it is at one moment, while the guest goes on.
//!
//! QEMU makes it, the guest's own or, for a guest that is stopped, one that never runs an instruction: the same sandbox
//! and the same descriptors, so that what a guest has written into its disk is never opened by a process of ours. The
//! copy has no name: it goes with the last descriptor, whoever dies. A host makes a few at a time, and none for which
//! it has no room.

use super::Guest;
use super::hold;
use super::start::{image, root_disk};
use crate::agent::Host;
use crate::fault;
use crate::files::{self, GuestFiles};
use crate::ledger::{Ledger, blocking};
use crate::sandbox::{AtRest, Rest};
use agent_api::AgentFault;
use base::ServerId;
use qemu::{Format, Monitor};
use std::fs::File;
use std::io::{self, Seek};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// Copies that a host makes at a time: each reads and writes a whole disk.
pub const AT_A_TIME: usize = 2;
/// What a copy leaves of the host's room.
const SPARE: u64 = 64 << 20;

pub(crate) fn too_many() -> String {
    format!("The host copies {AT_A_TIME} disks already; it is tried again.")
}

/// Makes the copy. The error may be shown to the server's owner.
pub async fn copy(host: &Host, id: &ServerId, guest: &Guest) -> Result<File, String> {
    let Ok(_permit) = host.copies.try_acquire() else {
        return Err(too_many());
    };
    let Ok(_alone) = guest.disk.try_lock() else {
        return Err("The server's disk is being copied or made to stand alone; it is tried again.".into());
    };
    let files = host.layout.guest(id);
    let failed = |error: io::Error| {
        tracing::warn!(server = %id, %error, "a disk cannot be copied");
        match error.kind() {
            io::ErrorKind::StorageFull => "The host has no room for the copy of the disk.".to_owned(),
            _ => "The host cannot write the copy of the disk.".to_owned(),
        }
    };
    let ledger = guest.ledger.read();
    if ledger.spec.root.is_none() {
        return Err("The server boots from a volume and has no disk of its own.".into());
    }
    let (own, below) = (files.clone(), ledger.image().map_or(0, |image| image.image_bytes));
    let target = blocking(move || {
        let root = File::open(own.root_disk())?;
        room(&own.folder, root.metadata()?.blocks() * 512 + below)?;
        nameless(&own.copy(), qemu::overlay::virtual_size(&root, Format::Qcow2)?, Format::Qcow2)
    });
    let mut target = target.await.map_err(failed)?;
    let copied = match guest.monitor().await? {
        Some(monitor) => copy_root(&monitor, &target).await,
        None => {
            let copier = start(host, id, &ledger, &files, "copy").await.map_err(|fault| fault.message)?;
            let copied = copy_root(&copier.held.monitor, &target).await;
            if let Err(error) = copier.end().await {
                tracing::warn!(server = %id, %error, "the copier did not end in order");
            }
            copied
        }
    };
    copied.map_err(|error| {
        tracing::warn!(server = %id, %error, "a disk cannot be copied");
        "The disk could not be copied.".to_owned()
    })?;
    // QEMU has moved the place at which its descriptor reads, and ours is the same.
    target.rewind().map_err(failed)?;
    Ok(target)
}

async fn copy_root(monitor: &Monitor, target: &File) -> qemu::Result<bool> {
    monitor.copy_disk("root", "root", target, Format::Qcow2, || false).await
}

/// Whether the copy would fit: it holds at most what the disk's layers do.
pub(crate) fn room(folder: &Path, bytes: u64) -> io::Result<()> {
    let about = nix::sys::statvfs::statvfs(folder)?;
    let free = (about.blocks_available() as u64).saturating_mul(about.fragment_size() as u64);
    if free < bytes.saturating_add(SPARE) {
        let why = format!("{free} bytes are free, a copy may take {bytes}");
        return Err(io::Error::new(io::ErrorKind::StorageFull, why));
    }
    Ok(())
}

/// A disk of zeros in a file that has no name any more.
pub(crate) fn nameless(path: &Path, size: u64, format: Format) -> io::Result<File> {
    let file = File::options().read(true).write(true).create(true).truncate(true).mode(0o600).open(path)?;
    std::fs::remove_file(path)?;
    match format {
        Format::Qcow2 => qemu::overlay::write_alone(&file, size)?,
        Format::Raw => file.set_len(size)?,
    }
    Ok(file)
}

/// What a copy leaves whose agent has died over it.
pub fn sweep(files: &GuestFiles) -> io::Result<()> {
    for path in [files.copy(), files.copy_monitor(), files.copy_serial()] {
        files::remove(&path)?;
    }
    Ok(())
}

/// A process that holds the disk of a stopped guest, for `purpose`. It holds the guest's lock, too: nobody starts the
/// guest meanwhile.
pub(super) async fn start(
    host: &Host,
    id: &ServerId,
    ledger: &Ledger,
    files: &GuestFiles,
    purpose: &str,
) -> Result<AtRest, AgentFault> {
    let Some(root) = ledger.spec.root.clone() else {
        return Err(fault::refused("The server boots from a volume now."));
    };
    let below = image(host, ledger).await?;
    let failed = |error: io::Error| fault::disk("server's disk", &error);
    let own = files.clone();
    let held = blocking(move || {
        let lock = hold::lock(&own.lock())?;
        Ok((lock, root_disk(&own, &root, below)))
    });
    let (lock, disk) = held.await.map_err(failed)?;
    let Some(lock) = lock else {
        return Err(AgentFault {
            message: "The server is starting or stopping; it is tried again.".into(),
            detail: format!("the lock of {id} is held"),
            retried: true,
        });
    };
    let rest = Rest {
        name: format!("{purpose}.{id}"),
        uuid: id.to_string(),
        disks: vec![disk?],
        monitor: files.copy_monitor(),
        serial: files.copy_serial(),
        log: files.qemu_log(),
        keep: vec![lock.into()],
    };
    host.sandbox.start(rest).await.map_err(|error| fault::qemu("open the server's disk", &error))
}

impl Guest {
    /// The monitor of the guest's process; none: it has no process.
    async fn monitor(&self) -> Result<Option<Arc<Monitor>>, String> {
        let (answer, answered) = tokio::sync::oneshot::channel();
        let asked = async {
            let gone = || "the server is being removed".to_owned();
            self.requests.send(super::Request::Monitor { answer }).await.map_err(|_| gone())?;
            answered.await.map_err(|_| gone())
        };
        let asked = tokio::time::timeout(Duration::from_secs(15), asked).await;
        asked.unwrap_or_else(|_| Err("The server is busy starting or stopping; it is tried again.".into()))
    }
}
