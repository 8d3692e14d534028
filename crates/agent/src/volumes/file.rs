//! Volumes as qcow2 files in a directory of the host: `hosts/volumes/<id>/<number>.qcow2`, and `disk.json` beside them.
//!
//! What a volume shares with an image or with another volume is the same file under a second name: each folder is
//! whole by itself, and the kernel counts who still needs a layer. A new layer is four small tables written by
//! [`qemu::overlay`]; what a guest has written is opened by QEMU alone, the guest's or one in the sandbox.
//!
//! `disk.json` decides what belongs to a volume. It is replaced whole, after the files that it names are on disk and
//! before those that it no longer names are removed. What must be asked of QEMU is announced in it first
//! (`pending`, `growing`): whoever comes next finishes it, and finishing twice changes nothing.

use super::disk::{Disk, Layer, Merge, Origin};
use super::driver::{Content, Driver, Holder, Look, Result, Wanted, nodes};
use crate::fault;
use crate::files::{self, Layout};
use crate::ledger::blocking;
use crate::sandbox::{AtRest, Rest, Sandbox};
use agent_api::{AgentFault, DiskFormat, VolumePool};
use async_trait::async_trait;
use base::{VolumeId, VolumeSnapshotId};
use qemu::block::Job;
use qemu::{DiskSource, Format, Monitor};
use std::fs::File;
use std::io::{self, Seek};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A volume's snapshots; each is a file that stays open as long as a guest has the volume.
pub const MOST_SNAPSHOTS: usize = 32;
/// How often a merge is looked at.
const LOOK: Duration = Duration::from_millis(100);

pub struct FileDriver {
    layout: Layout,
    sandbox: Sandbox,
}

pub(super) fn disk_fault(error: io::Error) -> AgentFault {
    fault::disk("volume", &error)
}

pub(super) fn asked(what: &'static str) -> impl Fn(qemu::Error) -> AgentFault {
    move |error| fault::qemu(what, &error)
}

pub(super) fn format(of: DiskFormat) -> Format {
    match of {
        DiskFormat::Raw => Format::Raw,
        DiskFormat::Qcow2 => Format::Qcow2,
    }
}

pub(super) fn file_name(layer: &Layer) -> String {
    format!("{}.{}", layer.number, format(layer.format).driver())
}

fn gone(id: &VolumeId) -> AgentFault {
    fault::refused(format!("The host has no volume {id}."))
}

impl FileDriver {
    pub fn new(layout: Layout, sandbox: Sandbox) -> FileDriver {
        FileDriver { layout, sandbox }
    }

    pub(super) fn folder(&self, id: &VolumeId) -> PathBuf {
        self.layout.volumes.join(id.as_str())
    }

    fn path(&self, id: &VolumeId, layer: &Layer) -> PathBuf {
        self.folder(id).join(file_name(layer))
    }

    async fn read(&self, id: &VolumeId) -> Result<Option<Disk>> {
        let path = self.folder(id).join("disk.json");
        blocking(move || load(&path)).await.map_err(disk_fault)
    }

    pub(super) async fn known(&self, id: &VolumeId) -> Result<Disk> {
        self.read(id).await?.ok_or_else(|| gone(id))
    }

    async fn write(&self, id: &VolumeId, disk: &Disk) -> Result<()> {
        let (path, disk) = (self.folder(id).join("disk.json"), disk.clone());
        blocking(move || files::replace_json(&path, &disk)).await.map_err(disk_fault)
    }

    /// An empty layer on top of what is there, or over nothing.
    async fn empty(&self, id: &VolumeId, number: u32, size: u64, below: Option<Layer>) -> Result<()> {
        let layer = Layer { number, format: DiskFormat::Qcow2, of: Origin::Own };
        let path = self.path(id, &layer);
        blocking(move || write_empty(&path, size, below.as_ref())).await.map_err(disk_fault)
    }

    /// The chain with the active layer on top, opened for one QEMU.
    fn chain(&self, id: &VolumeId, disk: &Disk, read_only: bool) -> io::Result<DiskSource> {
        let mut source = None;
        for layer in &disk.layers {
            let writable = layer.number == disk.active() && !read_only;
            source = Some(self.source(id, layer, writable, source)?);
        }
        source.ok_or_else(|| io::Error::other("a volume without layers"))
    }

    fn source(
        &self,
        id: &VolumeId,
        layer: &Layer,
        writable: bool,
        below: Option<DiskSource>,
    ) -> io::Result<DiskSource> {
        Ok(DiskSource {
            node: Some(node(id, layer.number)),
            format: format(layer.format),
            file: File::options().read(true).write(writable).open(self.path(id, layer))?.into(),
            read_only: !writable,
            backing: below.map(Box::new),
        })
    }

    /// A process in the sandbox that holds the volume.
    pub(super) async fn rest(&self, id: &VolumeId, disk: &Disk, read_only: bool) -> Result<AtRest> {
        let folder = self.folder(id);
        let source = self.chain(id, disk, read_only).map_err(disk_fault)?;
        let held = qemu::Disk { name: id.to_string(), serial: id.to_string(), source, boot_index: None, slot: None };
        let rest = Rest {
            name: format!("volume.{id}"),
            uuid: id.to_string(),
            disks: vec![held],
            monitor: folder.join("work.sock"),
            serial: folder.join("work-serial.sock"),
            log: folder.join("qemu.log"),
            keep: Vec::new(),
        };
        self.sandbox.start(rest).await.map_err(|error| fault::qemu("open the volume", &error))
    }

    /// Finishes what was announced.
    pub(super) async fn finish(&self, id: &VolumeId, disk: &mut Disk, holder: &Holder) -> Result<()> {
        if let Some(size) = disk.growing {
            self.grow(id, disk, size, holder).await?;
            (disk.size_bytes, disk.growing) = (size, None);
            self.write(id, disk).await?;
        }
        if let Some(pending) = &disk.pending {
            // Nobody has it open: the empty layer is as good a top as the one below it, and QEMU may have used it.
            if let Holder::Guest(monitor) = holder {
                let layer = Layer { number: pending.layer, format: DiskFormat::Qcow2, of: Origin::Own };
                let on_top = self.source(id, &layer, true, None).map_err(disk_fault)?;
                let kept = monitor.snapshot(id, &nodes(id), on_top).await;
                kept.map_err(asked("keep the volume as it is"))?;
            }
            disk.seal();
            self.write(id, disk).await?;
        }
        Ok(())
    }

    async fn grow(&self, id: &VolumeId, disk: &Disk, size: u64, holder: &Holder) -> Result<()> {
        let what = "make the volume larger";
        match holder {
            Holder::Guest(monitor) => {
                let top = monitor.top(id).await.map_err(asked(what))?;
                let top = top.unwrap_or_else(|| node(id, disk.active()));
                monitor.resize(&nodes(id), &top, size).await.map_err(asked(what))
            }
            Holder::Nobody => {
                let rest = self.rest(id, disk, false).await?;
                let grown = rest.held.monitor.resize(&nodes(id), &node(id, disk.active()), size).await;
                let ended = rest.end().await;
                grown.map_err(asked(what))?;
                ended.map_err(disk_fault)
            }
        }
    }

    /// Copies layers up in a QEMU that has the volume open. False: ended early.
    async fn merge_in(
        &self,
        id: &VolumeId,
        disk: &Disk,
        merge: &Merge,
        monitor: &Monitor,
        mut wanted: Wanted,
    ) -> Result<bool> {
        let what = "merge the volume's layers";
        let (prefix, top) = (nodes(id), node(id, disk.active()));
        let base = merge.base.and_then(|number| disk.layers.iter().find(|layer| layer.number == number));
        let base = base.map(|layer| (node(id, layer.number), file_name(layer)));
        let base = base.as_ref().map(|(node, file)| (node.as_str(), file.as_str()));
        monitor.begin_merge(&prefix, &top, base).await.map_err(asked(what))?;
        loop {
            match monitor.merge(&prefix).await.map_err(asked(what))? {
                Job::Done => break,
                Job::Runs { .. } if *wanted.borrow() == 0 => {}
                Job::None => return Ok(false),
                Job::Failed(error) => {
                    monitor.end_merge(&prefix).await.map_err(asked(what))?;
                    return Err(fault::qemu(what, &error));
                }
                Job::Runs { .. } => {
                    monitor.end_merge(&prefix).await.map_err(asked(what))?;
                    return Ok(false);
                }
            }
            let _ = tokio::time::timeout(LOOK, wanted.changed()).await;
        }
        // What was copied must be on disk before the layers that it came from go.
        monitor.flush(&top).await.map_err(asked(what))?;
        monitor.end_merge(&prefix).await.map_err(asked(what))?;
        Ok(true)
    }

    /// Removes the files that `disk.json` does not name.
    async fn sweep(&self, id: &VolumeId, disk: &Disk) -> Result<()> {
        let (folder, disk) = (self.folder(id), disk.clone());
        let swept = blocking(move || strays(&folder, &disk)?.iter().try_for_each(|path| files::remove(path)));
        swept.await.map_err(disk_fault)
    }

    /// The first layers of a volume: the same files under names in its own folder.
    async fn share(&self, id: &VolumeId, content: Content) -> Result<(Vec<Layer>, u64)> {
        match content {
            Content::Blank => Ok((Vec::new(), 0)),
            Content::Image { file, format: kind, name } => {
                let layer = Layer { number: 1, format: kind, of: Origin::Image };
                let path = self.path(id, &layer);
                let linked = blocking(move || {
                    let size = qemu::overlay::virtual_size(&file, format(kind))?;
                    let shared = share_or_copy(file, &path)?;
                    tracing::debug!(image = name, shared, "below a volume");
                    Ok(size)
                });
                Ok((vec![layer], linked.await.map_err(disk_fault)?))
            }
            Content::Snapshot { volume, snapshot } => {
                let source = self.known(&volume).await?;
                let Some((below, size)) = source.below(&snapshot) else {
                    return Err(fault::refused(format!("The host has no snapshot {snapshot} of volume {volume}.")));
                };
                let mut layers = Vec::new();
                for layer in &below {
                    let of = match &layer.of {
                        Origin::Own => Origin::Volume(volume.clone()),
                        other => other.clone(),
                    };
                    let own = Layer { of, ..layer.clone() };
                    let (from, to) = (self.path(&volume, layer), self.path(id, &own));
                    blocking(move || link(&from.to_string_lossy(), &to, false)).await.map_err(disk_fault)?;
                    layers.push(own);
                }
                Ok((layers, size))
            }
        }
    }
}

#[async_trait]
impl Driver for FileDriver {
    fn pool(&self) -> Result<VolumePool> {
        let about = nix::sys::statvfs::statvfs(&self.layout.volumes).map_err(|error| disk_fault(error.into()))?;
        let gib = |blocks: u64| blocks.saturating_mul(about.fragment_size() as u64) >> 30;
        Ok(VolumePool {
            total_gib: gib(about.blocks() as u64),
            free_gib: gib(about.blocks_available() as u64),
            backend: "file".into(),
        })
    }

    async fn list(&self) -> Result<Vec<VolumeId>> {
        let folder = self.layout.volumes.clone();
        let names = blocking(move || {
            std::fs::read_dir(&folder)?.map(|it| Ok(it?.file_name().to_string_lossy().into_owned())).collect()
        });
        let names: Vec<String> = names.await.map_err(disk_fault)?;
        Ok(names.into_iter().filter(|name| crate::guest::check::id(name)).map(VolumeId::from).collect())
    }

    async fn look(&self, id: &VolumeId) -> Result<Option<Look>> {
        let Some(disk) = self.read(id).await? else { return Ok(None) };
        let (folder, layout) = (self.folder(id), self.layout.clone());
        let looked = blocking(move || {
            let mut look = Look {
                // Without a growth that was only announced: it has to be asked for again.
                size_bytes: disk.size_bytes,
                snapshots: disk.snapshots.iter().map(|it| (it.id.clone(), it.size_bytes)).collect(),
                shares: disk.shares(),
                ..Look::default()
            };
            let mut linked = Vec::new();
            for layer in &disk.layers {
                let about = std::fs::metadata(folder.join(file_name(layer)))?;
                let shared = about.nlink() > 1;
                if shared {
                    linked.push(layer.number);
                }
                // The one that had it first pays for it; when that is gone, those that are left pay together.
                let by_first = match &layer.of {
                    Origin::Own => false,
                    Origin::Image => shared && holds(&layout.images, &about)?,
                    Origin::Volume(from) => {
                        let there = shared && holds(&layout.volumes.join(from.as_str()), &about)?;
                        if there && !look.depends_on.contains(from) {
                            look.depends_on.push(from.clone());
                        }
                        there
                    }
                };
                let payers = if layer.of == Origin::Own { 1 } else { about.nlink().max(1) };
                look.used_bytes += if by_first { 0 } else { about.blocks() * 512 / payers };
            }
            let merge = disk.merge(false, |number| linked.contains(&number));
            look.untidy = merge.is_some() || !strays(&folder, &disk)?.is_empty();
            Ok(Some(look))
        });
        looked.await.map_err(disk_fault)
    }

    async fn create(&self, id: &VolumeId, size_bytes: u64, content: Content) -> Result<()> {
        if self.read(id).await?.is_some() {
            return Ok(());
        }
        let folder = self.folder(id);
        blocking(move || files::make_folder(&folder)).await.map_err(disk_fault)?;
        let (layers, least) = self.share(id, content).await?;
        if least > size_bytes {
            return Err(fault::refused(format!(
                "The volume of {} GiB is smaller than its source of {} GiB. Make a larger one.",
                size_bytes >> 30,
                least.div_ceil(1 << 30)
            )));
        }
        let disk = Disk::new(size_bytes, layers);
        let below = disk.layers.iter().rev().nth(1).cloned();
        self.empty(id, disk.active(), size_bytes, below).await?;
        self.write(id, &disk).await
    }

    async fn extend(&self, id: &VolumeId, size_bytes: u64, holder: &Holder) -> Result<()> {
        let mut disk = self.known(id).await?;
        self.finish(id, &mut disk, holder).await?;
        if disk.size_bytes < size_bytes {
            disk.growing = Some(size_bytes);
            self.write(id, &disk).await?;
            self.finish(id, &mut disk, holder).await?;
        }
        Ok(())
    }

    async fn snapshot(&self, id: &VolumeId, snapshot: &VolumeSnapshotId, holder: &Holder) -> Result<()> {
        let mut disk = self.known(id).await?;
        self.finish(id, &mut disk, holder).await?;
        if disk.has(snapshot) {
            return Ok(());
        }
        if disk.layers.len() > 2 * MOST_SNAPSHOTS || disk.snapshots.len() >= MOST_SNAPSHOTS {
            return Err(fault::refused(format!(
                "The volume has {} snapshots, {MOST_SNAPSHOTS} go. Delete one, or make a volume from it.",
                disk.snapshots.len()
            )));
        }
        let number = disk.next;
        self.empty(id, number, disk.size_bytes, disk.layers.last().cloned()).await?;
        disk.announce(snapshot, number);
        self.write(id, &disk).await?;
        self.finish(id, &mut disk, holder).await
    }

    async fn delete_snapshot(&self, id: &VolumeId, snapshot: &VolumeSnapshotId) -> Result<()> {
        let mut disk = self.known(id).await?;
        if disk.has(snapshot) {
            disk.snapshots.retain(|it| it.id != *snapshot);
            self.write(id, &disk).await?;
        }
        Ok(())
    }

    async fn tidy(&self, id: &VolumeId, flatten: bool, holder: &Holder, wanted: Wanted) -> Result<bool> {
        let mut disk = self.known(id).await?;
        self.finish(id, &mut disk, holder).await?;
        let folder = self.folder(id);
        let linked = |number: u32| {
            let layer = disk.layers.iter().find(|it| it.number == number);
            let about = layer.and_then(|layer| std::fs::metadata(folder.join(file_name(layer))).ok());
            about.is_some_and(|about| about.nlink() > 1)
        };
        let Some(merge) = disk.merge(flatten, linked) else {
            self.sweep(id, &disk).await?;
            return Ok(true);
        };
        let merged = match holder {
            Holder::Guest(monitor) => self.merge_in(id, &disk, &merge, monitor, wanted).await?,
            Holder::Nobody => {
                let rest = self.rest(id, &disk, false).await?;
                let merged = self.merge_in(id, &disk, &merge, &rest.held.monitor, wanted).await;
                let ended = rest.end().await;
                let merged = merged?;
                ended.map_err(disk_fault)?;
                merged
            }
        };
        if merged {
            disk.merged(&merge);
            self.write(id, &disk).await?;
            self.sweep(id, &disk).await?;
        }
        Ok(merged)
    }

    async fn copy(&self, id: &VolumeId, format: DiskFormat, holder: &Holder, wanted: Wanted) -> Result<Option<File>> {
        super::copy::copy(self, id, format, holder, wanted).await
    }

    async fn delete(&self, id: &VolumeId) -> Result<()> {
        let folder = self.folder(id);
        let removed = blocking(move || {
            // First what names the layers: half a volume is none.
            files::remove(&folder.join("disk.json"))?;
            let entries = match std::fs::read_dir(&folder) {
                Ok(entries) => entries,
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
                Err(error) => return Err(error),
            };
            for entry in entries {
                let path = entry?.path();
                if path.file_name().is_some_and(|name| name != "ledger.json") {
                    files::remove(&path)?;
                }
            }
            match std::fs::remove_dir(&folder) {
                Err(error) if error.kind() != io::ErrorKind::DirectoryNotEmpty => Err(error),
                _ => Ok(()),
            }
        });
        removed.await.map_err(disk_fault)
    }

    async fn open(&self, id: &VolumeId, read_only: bool) -> Result<DiskSource> {
        let mut disk = self.known(id).await?;
        self.finish(id, &mut disk, &Holder::Nobody).await?;
        self.sweep(id, &disk).await?;
        self.chain(id, &disk, read_only).map_err(disk_fault)
    }
}

pub(super) fn node(id: &VolumeId, layer: u32) -> String {
    format!("{}{layer}", nodes(id))
}

fn load(path: &Path) -> io::Result<Option<Disk>> {
    let text = match std::fs::read(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let disk: Disk = serde_json::from_slice(&text)?;
    if disk.version != 1 || disk.layers.is_empty() {
        return Err(io::Error::other(format!("a volume's record of version {}; this agent reads 1", disk.version)));
    }
    Ok(Some(disk))
}

fn write_empty(path: &Path, size: u64, below: Option<&Layer>) -> io::Result<()> {
    let partial = path.with_extension("partial");
    let made = || -> io::Result<()> {
        let file = File::options().write(true).create(true).truncate(true).mode(0o600).open(&partial)?;
        match below {
            Some(layer) => qemu::overlay::write(&file, size, &file_name(layer), format(layer.format))?,
            None => qemu::overlay::write_alone(&file, size)?,
        }
        // Its name lasts with the record that names it, which is written next.
        std::fs::rename(&partial, path)
    };
    let made = made();
    if made.is_err() {
        let _ = files::remove(&partial);
    }
    made
}

/// What a crash has left: layers that `disk.json` does not name.
fn strays(folder: &Path, disk: &Disk) -> io::Result<Vec<PathBuf>> {
    let mut kept: Vec<String> = disk.layers.iter().map(file_name).collect();
    kept.extend(disk.pending.iter().map(|it| format!("{}.qcow2", it.layer)));
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let (stem, end) = name.rsplit_once('.').unwrap_or((&name, ""));
        let layer = stem.parse::<u32>().is_ok() && ["qcow2", "raw", "partial"].contains(&end);
        if layer && !kept.contains(&name) {
            found.push(path);
        }
    }
    Ok(found)
}

/// Whether a folder holds this very file.
fn holds(folder: &Path, file: &std::fs::Metadata) -> io::Result<bool> {
    let entries = match std::fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        entries => entries?,
    };
    for entry in entries {
        // One that goes at this moment is not there.
        if entry?.metadata().is_ok_and(|about| (about.dev(), about.ino()) == (file.dev(), file.ino())) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// An image below a volume: the same file, or a copy where volumes lie in another file system. True: shared.
fn share_or_copy(mut image: File, path: &Path) -> io::Result<bool> {
    match link(&format!("/proc/self/fd/{}", image.as_raw_fd()), path, true) {
        Ok(()) => return Ok(true),
        Err(error) if matches!(error.kind(), io::ErrorKind::CrossesDevices | io::ErrorKind::TooManyLinks) => {}
        Err(error) => return Err(error),
    }
    image.rewind()?;
    let mut copy = File::options().write(true).create_new(true).mode(0o400).open(path)?;
    io::copy(&mut image, &mut copy)?;
    copy.sync_all()?;
    Ok(false)
}

/// The same file under a second name.
fn link(from: &str, to: &Path, descriptor: bool) -> io::Result<()> {
    use nix::fcntl::{AT_FDCWD, AtFlags};
    files::remove(to)?;
    let flags = if descriptor { AtFlags::AT_SYMLINK_FOLLOW } else { AtFlags::empty() };
    Ok(nix::unistd::linkat(AT_FDCWD, from, AT_FDCWD, to, flags)?)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::agent::Options;
    use crate::volumes::conformance;

    /// A driver in a folder of its own; none without QEMU.
    pub fn driver() -> Option<(tempfile::TempDir, FileDriver)> {
        let runs = |name: &str| std::process::Command::new(name).arg("--version").output().is_ok();
        if !runs("qemu-system-x86_64") || !runs("qemu-io") {
            let required = std::env::var("NUBO_REQUIRE").unwrap_or_default();
            assert!(required != "all" && !required.split(',').any(|it| it == "qemu"), "QEMU is not installed");
            println!("SKIP qemu-system-x86_64 or qemu-io is not installed");
            return None;
        }
        let folder = tempfile::tempdir().unwrap();
        let layout = Layout::new(folder.path());
        layout.make().unwrap();
        let options = Options::new(folder.path().into(), "0a1b2c3d".into(), "host-1".into());
        Some((folder, FileDriver::new(layout, Sandbox::new(&options))))
    }

    #[tokio::test]
    async fn files_do_what_every_backend_must() {
        let Some((folder, driver)) = driver() else { return };
        conformance::conforms(&driver, folder.path()).await;
    }

    #[tokio::test]
    async fn what_was_announced_is_finished_by_whoever_comes_next() {
        let Some((_folder, driver)) = driver() else { return };
        let id = VolumeId::new("5f2b0a6e-0001-4000-8000-000000000001");
        driver.create(&id, 1 << 30, Content::Blank).await.unwrap();
        let mut disk = driver.known(&id).await.unwrap();
        // Cut off after the announcement: the layer lies there, the growth may have been done.
        driver.empty(&id, 2, disk.size_bytes, disk.layers.last().cloned()).await.unwrap();
        disk.announce(&"kept".into(), 2);
        disk.growing = Some(2 << 30);
        driver.write(&id, &disk).await.unwrap();
        std::fs::write(driver.folder(&id).join("9.qcow2"), "left by a crash").unwrap();
        let look = driver.look(&id).await.unwrap().unwrap();
        assert_eq!((look.size_bytes, look.snapshots.len(), look.untidy), (1 << 30, 0, true), "not done yet: {look:?}");
        driver.open(&id, false).await.unwrap();
        let disk = driver.known(&id).await.unwrap();
        assert_eq!((disk.active(), disk.size_bytes, disk.growing, disk.pending.is_none()), (2, 2 << 30, None, true));
        assert_eq!(disk.snapshots.len(), 1);
        assert!(!driver.folder(&id).join("9.qcow2").exists());
    }
}
