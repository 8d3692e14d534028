//! The files of guests and images on this machine, and what is in them.

use crate::settings::Settings;
use agent_api::{DiskFormat, GuestSpec, RootDisk, VolumeSpec};
use anyhow::Result;
use sha2::{Digest, Sha512};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

/// A guest's folder.
#[derive(Clone, Debug, Default)]
pub struct Folder {
    pub id: String,
    pub path: PathBuf,
    pub names: Vec<String>,
    /// What its ledger says, or why it cannot be read; none: there is none.
    pub ledger: Option<Result<Ledger, String>>,
    pub overlay: Option<Result<Overlay, String>>,
    /// A process holds its lock.
    pub locked: bool,
}

/// Of a ledger what fsck compares.
#[derive(Clone, Debug, PartialEq, serde::Deserialize)]
pub struct Ledger {
    pub version: u32,
    pub spec: GuestSpec,
    #[serde(default)]
    pub done: Done,
}

#[derive(Clone, Debug, Default, PartialEq, serde::Deserialize)]
#[serde(default)]
pub struct Done {
    pub alive: Option<Alive>,
    pub started_at: Option<i64>,
    pub memory_saved: bool,
}

#[derive(Clone, Debug, PartialEq, serde::Deserialize)]
pub struct Alive {
    pub pid: i32,
    pub start_ticks: u64,
    pub boot_id: String,
}

/// What a qcow2 header says.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Overlay {
    pub size_bytes: u64,
    pub backing: String,
}

impl Overlay {
    /// It was to come off its image, and has: from one moment to the next, whatever the agent's ledger says yet.
    pub fn stands_alone(&self, root: &RootDisk) -> bool {
        root.flat && self.backing.is_empty()
    }
}

/// A volume's folder.
#[derive(Clone, Debug, Default)]
pub struct Volume {
    pub id: String,
    pub path: PathBuf,
    pub names: Vec<String>,
    pub ledger: Option<Result<VolumeLedger, String>>,
    pub disk: Option<Result<Disk, String>>,
    /// The headers of the qcow2 layers that are there, by file name.
    pub headers: BTreeMap<String, Result<Overlay, String>>,
}

#[derive(Clone, Debug, PartialEq, serde::Deserialize)]
pub struct VolumeLedger {
    pub version: u32,
    pub spec: VolumeSpec,
    /// 0: it has never been made wholly.
    #[serde(default)]
    pub reached: u64,
}

/// Which layers belong to a volume, from the bottom.
#[derive(Clone, Debug, PartialEq, serde::Deserialize)]
pub struct Disk {
    pub version: u32,
    pub size_bytes: u64,
    pub layers: Vec<Layer>,
    #[serde(default)]
    pub snapshots: Vec<Snapshot>,
    #[serde(default)]
    pub pending: Option<Pending>,
    #[serde(default)]
    pub growing: Option<u64>,
}

#[derive(Clone, Debug, PartialEq, serde::Deserialize)]
pub struct Snapshot {
    pub id: String,
}

#[derive(Clone, Debug, PartialEq, serde::Deserialize)]
pub struct Layer {
    pub number: u32,
    pub format: DiskFormat,
}

#[derive(Clone, Debug, PartialEq, serde::Deserialize)]
pub struct Pending {
    pub layer: u32,
}

impl Layer {
    pub fn file_name(&self) -> String {
        match self.format {
            DiskFormat::Raw => format!("{}.raw", self.number),
            DiskFormat::Qcow2 => format!("{}.qcow2", self.number),
        }
    }
}

/// A file with its content's address.
#[derive(Clone, Debug, PartialEq)]
pub struct Stored {
    pub path: PathBuf,
    pub name: String,
    pub size_bytes: u64,
    pub sha512: String,
    /// A process holds a lock on it: a transfer that is under way.
    pub locked: bool,
}

#[derive(Debug, Default)]
pub struct Files {
    pub folders: Vec<Folder>,
    pub volumes: Vec<Volume>,
    /// Control's own files of images.
    pub images: Vec<Stored>,
    /// The same by their contents.
    pub contents: Vec<Stored>,
    /// The host's images, named by content.
    pub cache: Vec<Stored>,
}

/// Digests by device, inode, length and time of change: an image is hashed once, however many names and looks it has.
pub type Digests = BTreeMap<(u64, u64, u64, i64, i64), String>;

pub fn look(settings: &Settings, digests: &mut Digests) -> Result<Files> {
    let entries = |path: &Path| -> Vec<PathBuf> {
        let mut all: Vec<PathBuf> = fs::read_dir(path).into_iter().flatten().flatten().map(|e| e.path()).collect();
        all.sort();
        all
    };
    let guests = entries(&settings.state.join("hosts/guests"));
    let locked = locked();
    let mut stored = |folder: &str| -> Vec<Stored> {
        let files = entries(&settings.state.join(folder)).into_iter().filter(|path| !path.is_dir());
        files.filter_map(|path| stored(&path, &locked, digests).ok()).collect()
    };
    Ok(Files {
        folders: guests.iter().map(|path| folder(path, &locked)).collect(),
        volumes: entries(&settings.state.join("hosts/volumes")).iter().map(|path| volume(path)).collect(),
        images: stored("control/images"),
        contents: stored("control/images/.content"),
        cache: stored("hosts/images"),
    })
}

fn name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

fn names(path: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(path).into_iter().flatten().flatten().map(|e| name(&e.path())).collect();
    names.sort();
    names
}

/// None: there is no such file.
fn json<T: serde::de::DeserializeOwned>(path: &Path) -> Option<Result<T, String>> {
    match fs::read(path) {
        Ok(text) => Some(serde_json::from_slice(&text).map_err(|error| error.to_string())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
        Err(error) => Some(Err(error.to_string())),
    }
}

fn volume(path: &Path) -> Volume {
    let names = names(path);
    let layers = names.iter().filter(|name| name.ends_with(".qcow2"));
    let headers = layers.map(|name| (name.clone(), overlay(&path.join(name)))).collect();
    let (ledger, disk) = (json(&path.join("ledger.json")), json(&path.join("disk.json")));
    Volume { id: name(path), path: path.to_owned(), names, ledger, disk, headers }
}

fn folder(path: &Path, locked: &BTreeSet<u64>) -> Folder {
    let names = names(path);
    let ledger = json(&path.join("ledger.json"));
    let disk = path.join("root.qcow2");
    let overlay = disk.exists().then(|| overlay(&disk));
    let locked = is_locked(&path.join("process.lock"), locked);
    Folder { id: name(path), path: path.to_owned(), names, ledger, overlay, locked }
}

/// The inodes of all files that some process has locked. Asked of the kernel: taking a lock to look, even for a
/// moment, would stand in the way of whoever wants it.
fn locked() -> BTreeSet<u64> {
    let text = fs::read_to_string("/proc/locks").unwrap_or_default();
    // `1: FLOCK  ADVISORY  WRITE 1234 08:01:131 0 EOF`
    let place = |line: &str| {
        line.split_whitespace().find(|word| word.split(':').count() == 3)?.rsplit(':').next()?.parse().ok()
    };
    // Not the locks of QEMU, which it puts on every byte range of a disk that it uses.
    text.lines().filter(|line| line.contains(" FLOCK ") && !line.contains("->")).filter_map(place).collect()
}

fn is_locked(path: &Path, locked: &BTreeSet<u64>) -> bool {
    fs::metadata(path).is_ok_and(|about| locked.contains(&about.ino()))
}

/// Reads a qcow2 header: only its own fields, nothing that a guest can write.
fn overlay(path: &Path) -> Result<Overlay, String> {
    let file = File::open(path).map_err(|error| error.to_string())?;
    let mut head = [0u8; 32];
    file.read_exact_at(&mut head, 0).map_err(|_| "it is too short for a header".to_owned())?;
    let number =
        |at: usize, length: usize| head[at..at + length].iter().fold(0u64, |n, byte| n << 8 | u64::from(*byte));
    if number(0, 4) != 0x5146_49fb {
        return Err("it is no qcow2 file".into());
    }
    let length = number(16, 4);
    if length > 1023 {
        return Err("the name of its image is too long".into());
    }
    let mut backing = vec![0u8; length as usize];
    file.read_exact_at(&mut backing, number(8, 8)).map_err(|_| "its header is cut off".to_owned())?;
    Ok(Overlay { size_bytes: number(24, 8), backing: String::from_utf8_lossy(&backing).into_owned() })
}

/// Writes the name of the image below into an overlay's header, over one of the same length.
pub fn write_backing(path: &Path, backing: &str) -> std::io::Result<()> {
    let file = File::options().read(true).write(true).open(path)?;
    let mut head = [0u8; 20];
    file.read_exact_at(&mut head, 0)?;
    let number =
        |at: usize, length: usize| head[at..at + length].iter().fold(0u64, |n, byte| n << 8 | u64::from(*byte));
    if number(16, 4) != backing.len() as u64 {
        return Err(std::io::Error::other("the name in the header has another length"));
    }
    file.write_all_at(backing.as_bytes(), number(8, 8))?;
    file.sync_all()
}

fn stored(path: &Path, locked: &BTreeSet<u64>, digests: &mut Digests) -> std::io::Result<Stored> {
    let mut file = File::open(path)?;
    let about = file.metadata()?;
    let locked = locked.contains(&about.ino());
    let key = (about.dev(), about.ino(), about.len(), about.mtime(), about.mtime_nsec());
    let name = name(path);
    // What is still being written has no content yet that could be compared.
    let sha512 = match digests.get(&key) {
        _ if locked || name.starts_with('.') || name.ends_with(".partial") || !about.is_file() => String::new(),
        Some(known) => known.clone(),
        None => {
            let digest = digest(&mut file)?;
            digests.insert(key, digest.clone());
            digest
        }
    };
    Ok(Stored { path: path.to_owned(), name, size_bytes: about.len(), sha512, locked })
}

fn digest(file: &mut File) -> std::io::Result<String> {
    let mut hash = Sha512::new();
    let mut buffer = vec![0u8; 1 << 20];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()),
            read => hash.update(&buffer[..read]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_overlays_header_is_read_and_its_image_named_anew() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("root.qcow2");
        let file = File::create(&path).unwrap();
        qemu::overlay::write(&file, 1 << 30, "../../images/abc.qcow2", qemu::Format::Qcow2).unwrap();
        let expected = Overlay { size_bytes: 1 << 30, backing: "../../images/abc.qcow2".into() };
        assert_eq!(overlay(&path), Ok(expected.clone()));
        write_backing(&path, "../../images/xyz.qcow2").unwrap();
        assert_eq!(overlay(&path).unwrap().backing, "../../images/xyz.qcow2");
        assert!(write_backing(&path, "longer than that which stands there").is_err());
        fs::write(&path, b"QFI").unwrap();
        assert!(overlay(&path).unwrap_err().contains("too short"));
        fs::write(&path, [0u8; 512]).unwrap();
        assert!(overlay(&path).unwrap_err().contains("no qcow2"));

        // As QEMU leaves it that has copied everything up.
        fs::remove_file(&path).unwrap();
        qemu::overlay::write_alone(&File::create(&path).unwrap(), 1 << 30).unwrap();
        let root = |flat| RootDisk {
            image: "image".into(),
            format: DiskFormat::Qcow2,
            sha512: String::new(),
            image_bytes: 1,
            size_gib: 1,
            flat,
        };
        let alone = overlay(&path).unwrap();
        assert!(alone.stands_alone(&root(true)) && !alone.stands_alone(&root(false)));
        assert!(!expected.stands_alone(&root(true)));
    }
}
