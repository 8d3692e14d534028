//! Copies of volumes in files, for images: made by the QEMU that has the volume open, or by one in the sandbox.

use super::driver::{Holder, Result, Wanted, nodes};
use super::file::{FileDriver, asked, disk_fault, file_name, format, node};
use crate::guest::copy::{nameless, room};
use crate::ledger::blocking;
use agent_api::DiskFormat;
use base::VolumeId;
use std::fs::File;
use std::io::Seek;
use std::os::unix::fs::MetadataExt;

/// See [`super::Driver::copy`].
pub async fn copy(
    driver: &FileDriver,
    id: &VolumeId,
    kind: DiskFormat,
    holder: &Holder,
    wanted: Wanted,
) -> Result<Option<File>> {
    let mut disk = driver.known(id).await?;
    driver.finish(id, &mut disk, holder).await?;
    let (folder, layers, size) = (driver.folder(id), disk.layers.clone(), disk.size_bytes);
    let target = blocking(move || {
        let mut bytes = 0;
        for layer in &layers {
            bytes += std::fs::metadata(folder.join(file_name(layer)))?.blocks() * 512;
        }
        // QEMU reserves the zeros of a raw file, and gives them a mark in a qcow2 one.
        room(&folder, if kind == DiskFormat::Raw { size } else { bytes })?;
        // Under this name for a moment only; one that stays is swept with all that the record does not name.
        nameless(&folder.join("copy.part"), size, format(kind))
    });
    let mut target = target.await.map_err(disk_fault)?;
    let unwanted = || *wanted.borrow() > 0;
    let (what, prefix) = ("copy the volume", nodes(id));
    let whole = match holder {
        Holder::Guest(monitor) => {
            let top = monitor.top(id).await.map_err(asked(what))?;
            let top = top.unwrap_or_else(|| node(id, disk.active()));
            monitor.copy_disk(&prefix, &top, &target, format(kind), unwanted).await.map_err(asked(what))?
        }
        Holder::Nobody => {
            let rest = driver.rest(id, &disk, true).await?;
            let monitor = &rest.held.monitor;
            let top = node(id, disk.active());
            let copied = monitor.copy_disk(&prefix, &top, &target, format(kind), unwanted).await;
            let ended = rest.end().await;
            let whole = copied.map_err(asked(what))?;
            ended.map_err(disk_fault)?;
            whole
        }
    };
    // QEMU has moved the place at which its descriptor reads, and ours is the same.
    target.rewind().map_err(disk_fault)?;
    Ok(whole.then_some(target))
}
