//! What every back-end of volumes must do: one body, run over each of them.

use super::driver::{Content, Driver, Holder};
use agent_api::{AgentFault, DiskFormat};
use base::{VolumeId, VolumeSnapshotId};
use std::io::Write;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::process::Command;
use tokio::sync::watch;

const GIB: u64 = 1 << 30;

pub struct Check<'a> {
    pub driver: &'a dyn Driver,
    scratch: &'a Path,
    /// Nobody wants what is worked at.
    pub calm: watch::Sender<u32>,
}

pub fn id(number: u32) -> VolumeId {
    VolumeId::new(format!("5f2b0a6e-{number:04}-4000-8000-000000000001"))
}

impl<'a> Check<'a> {
    pub fn new(driver: &'a dyn Driver, scratch: &'a Path) -> Check<'a> {
        Check { driver, scratch, calm: watch::Sender::new(0) }
    }

    /// Runs a command of qemu-io over the volume as a guest would have it open.
    async fn io(&self, id: &VolumeId, command: &str) -> String {
        let source = self.driver.open(id, false).await.unwrap();
        let mut files = Vec::new();
        let node = source.describe(&mut |file| {
            let path = format!("/proc/{}/fd/{}", std::process::id(), file.as_raw_fd());
            files.push(file);
            path
        });
        let run = Command::new("qemu-io").arg("-c").arg(command).arg(format!("json:{node}")).output().unwrap();
        assert!(run.status.success(), "{command}: {}", String::from_utf8_lossy(&run.stderr));
        String::from_utf8_lossy(&run.stdout).into_owned()
    }

    pub async fn write(&self, id: &VolumeId, pattern: u8, at_kib: u64, kib: u64) {
        self.io(id, &format!("write -P {pattern} {at_kib}k {kib}k")).await;
    }

    pub async fn holds(&self, id: &VolumeId, pattern: u8, at_kib: u64, kib: u64) {
        let said = self.io(id, &format!("read -P {pattern} {at_kib}k {kib}k")).await;
        assert!(!said.contains("failed"), "{id} at {at_kib} KiB is not {pattern}: {said}");
    }

    pub async fn look(&self, id: &VolumeId) -> super::driver::Look {
        self.driver.look(id).await.unwrap().unwrap()
    }

    /// Twice: each method may be repeated.
    pub async fn create(&self, id: &VolumeId, gib: u64, content: impl Fn() -> Content) {
        for _ in 0..2 {
            self.driver.create(id, gib * GIB, content()).await.unwrap();
        }
    }

    pub async fn snapshot(&self, id: &VolumeId, snapshot: &VolumeSnapshotId) {
        for _ in 0..2 {
            self.driver.snapshot(id, snapshot, &Holder::Nobody).await.unwrap();
        }
    }

    pub async fn tidy(&self, id: &VolumeId, flatten: bool) {
        for _ in 0..2 {
            assert!(self.driver.tidy(id, flatten, &Holder::Nobody, self.calm.subscribe()).await.unwrap());
        }
    }
}

fn refused(outcome: Result<(), AgentFault>, word: &str) {
    let fault = outcome.unwrap_err();
    assert!(!fault.retried && fault.message.contains(word), "{fault:?}");
}

/// A driver that keeps nothing yet and whose sandbox works; images lie in `scratch`.
pub async fn conforms(driver: &dyn Driver, scratch: &Path) {
    let check = Check::new(driver, scratch);
    assert!(driver.pool().unwrap().total_gib >= driver.pool().unwrap().free_gib);
    assert_eq!(driver.list().await.unwrap(), []);
    assert_eq!(driver.look(&id(1)).await.unwrap(), None);
    blank_and_snapshots(&check).await;
    copies(&check).await;
    images(&check).await;
    files(&check).await;
    // Nothing stays, and what is gone can go again.
    for number in [1, 2, 3, 4, 1] {
        driver.delete(&id(number)).await.unwrap();
        assert_eq!(driver.look(&id(number)).await.unwrap(), None);
    }
    assert_eq!(driver.list().await.unwrap(), []);
}

async fn blank_and_snapshots(check: &Check<'_>) {
    let (one, first) = (id(1), VolumeSnapshotId::new("first"));
    check.create(&one, 1, || Content::Blank).await;
    assert_eq!(check.driver.list().await.unwrap(), [one.clone()]);
    let look = check.look(&one).await;
    assert!(look.size_bytes == GIB && look.used_bytes < 1 << 20 && !look.shares && !look.untidy, "{look:?}");
    check.holds(&one, 0, 0, 1024).await;
    check.write(&one, 1, 0, 1024).await;
    check.snapshot(&one, &first).await;
    check.write(&one, 2, 0, 64).await;
    let look = check.look(&one).await;
    assert_eq!(look.snapshots, [(first.clone(), GIB)]);
    assert!(look.used_bytes >= 1024 << 10, "snapshots count: {look:?}");
    // Larger, with all that it holds; never smaller. The snapshot keeps its size.
    for gib in [2, 2, 1] {
        check.driver.extend(&one, gib * GIB, &Holder::Nobody).await.unwrap();
    }
    let look = check.look(&one).await;
    assert_eq!((look.size_bytes, look.snapshots[0].1), (2 * GIB, GIB));
    check.write(&one, 3, 2 * (GIB >> 10) - 64, 64).await;
    check.holds(&one, 2, 0, 64).await;
    check.holds(&one, 1, 64, 960).await;
}

async fn copies(check: &Check<'_>) {
    let (one, two, first) = (id(1), id(2), VolumeSnapshotId::new("first"));
    let from = || Content::Snapshot { volume: one.clone(), snapshot: first.clone() };
    check.create(&two, 3, from).await;
    let look = check.look(&two).await;
    assert!(look.size_bytes == 3 * GIB && look.shares && look.depends_on == [one.clone()], "{look:?}");
    assert!(look.used_bytes < 1 << 20, "what it shares counts with the first: {look:?}");
    check.holds(&two, 1, 0, 1024).await;
    // Each goes its own way.
    check.write(&two, 4, 512, 64).await;
    check.holds(&one, 1, 512, 64).await;
    check.write(&one, 5, 768, 64).await;
    check.holds(&two, 1, 768, 64).await;
    // The snapshot goes, and harms nobody.
    for _ in 0..2 {
        check.driver.delete_snapshot(&one, &first).await.unwrap();
    }
    check.tidy(&one, false).await;
    assert!(!check.look(&one).await.untidy);
    for (volume, pattern, at) in [(&one, 2, 0), (&one, 1, 512), (&one, 5, 768), (&two, 4, 512), (&two, 1, 768)] {
        check.holds(volume, pattern, at, 64).await;
    }
    // It stands alone, its source goes.
    check.tidy(&two, true).await;
    let look = check.look(&two).await;
    assert!(!look.shares && look.depends_on.is_empty() && look.used_bytes >= 1024 << 10, "{look:?}");
    check.driver.delete(&one).await.unwrap();
    check.holds(&two, 4, 512, 64).await;
    check.holds(&two, 1, 0, 512).await;
    let missing = Content::Snapshot { volume: two.clone(), snapshot: first };
    refused(check.driver.create(&id(3), GIB, missing).await, "no snapshot");
}

/// A copy is a file that stands alone, in both formats; a guest that wants the volume ends it.
async fn files(check: &Check<'_>) {
    let four = id(4);
    for format in [DiskFormat::Raw, DiskFormat::Qcow2] {
        let copy = check.driver.copy(&four, format, &Holder::Nobody, check.calm.subscribe()).await.unwrap().unwrap();
        let name = if format == DiskFormat::Raw { "raw" } else { "qcow2" };
        let path = format!("/proc/{}/fd/{}", std::process::id(), copy.as_raw_fd());
        for (pattern, at_kib) in [(8, 0), (7, 64), (0, 2 * (GIB >> 10) - 64)] {
            let read = format!("read -P {pattern} {at_kib}k 64k");
            let run = Command::new("qemu-io").args(["-r", "-f", name, "-c", &read, &path]).output().unwrap();
            let said = String::from_utf8_lossy(&run.stdout).into_owned();
            assert!(run.status.success() && !said.contains("failed"), "{name} at {at_kib} KiB: {said}");
        }
        use std::os::unix::fs::MetadataExt;
        let about = copy.metadata().unwrap();
        let most = if format == DiskFormat::Raw { 3 * GIB } else { 4 << 20 };
        assert!(about.nlink() == 0 && about.blocks() * 512 < most, "{about:?}");
        assert!(format == DiskFormat::Qcow2 || about.len() == 2 * GIB, "{about:?}");
    }
    check.calm.send_replace(1);
    let ended = check.driver.copy(&four, DiskFormat::Raw, &Holder::Nobody, check.calm.subscribe()).await.unwrap();
    check.calm.send_replace(0);
    assert!(ended.is_none());
    check.tidy(&four, false).await;
    assert!(!check.look(&four).await.untidy);
    check.holds(&four, 8, 0, 64).await;
}

/// An image of one MiB of sevens, as long as the first of the two lives.
pub fn image(scratch: &Path) -> (tempfile::NamedTempFile, Content) {
    let mut file = tempfile::NamedTempFile::new_in(scratch).unwrap();
    file.write_all(&[7u8; 1 << 20]).unwrap();
    let content = Content::Image { file: file.reopen().unwrap(), format: DiskFormat::Raw, name: "image".into() };
    (file, content)
}

async fn images(check: &Check<'_>) {
    let image = || image(check.scratch);
    let four = id(4);
    let (file, content) = image();
    check.driver.create(&four, 2 * GIB, content).await.unwrap();
    assert!(check.look(&four).await.shares);
    drop(file);
    check.holds(&four, 7, 0, 1024).await;
    check.holds(&four, 0, 1024, 64).await;
    check.write(&four, 8, 0, 64).await;
    let snapshot = VolumeSnapshotId::new("kept");
    check.snapshot(&four, &snapshot).await;
    check.driver.delete_snapshot(&four, &snapshot).await.unwrap();
    check.tidy(&four, false).await;
    assert!(check.look(&four).await.shares, "its image stays below it");
    check.tidy(&four, true).await;
    assert!(!check.look(&four).await.shares);
    check.holds(&four, 8, 0, 64).await;
    check.holds(&four, 7, 64, 960).await;
    let (_file, content) = image();
    refused(check.driver.create(&id(5), 512 << 10, content).await, "smaller than its source");
    check.driver.delete(&id(5)).await.unwrap();
}
