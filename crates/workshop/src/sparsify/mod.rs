//! Giving back the room of an image that nothing needs: zeros, and blocks that a file system in it has as free.
//!
//! The readers here are of Rust without `unsafe`, bound what they read, and believe a bitmap or a tree only where all
//! of it agrees; what was not unmounted, what is not known and what is damaged is left alone, with a reason. Nothing is
//! mounted. LVM, LUKS and RAID are left alone.

mod btrfs;
mod ext4;
mod holes;
mod partition;
mod volume;
mod xfs;

#[cfg(test)]
mod tests;

use crate::child::{Show, limited, watched};
use crate::convert::{file_name, inspected, largest};
use crate::error::{Error, Result};
use crate::image::{Access, Image};
use crate::lock;
use crate::place::{Place, folder};
use format::{Format, OnDisk, Source};
use holes::Reading;
use serde::Serialize;
use serde_json::{Value, json};
use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
pub(crate) use volume::Crc;
use volume::{Left, Read, Volume};

/// How to go about it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sparsify {
    /// Zeros alone; file systems are not read.
    pub zeros_only: bool,
    /// Pack the clusters of a qcow2.
    pub compress: bool,
    pub force: bool,
    pub show: Show,
}

/// A file system, or what stands in its place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FileSystem {
    pub start_bytes: u64,
    /// None where nothing is recognised.
    pub kind: Option<&'static str>,
    pub free_bytes: u64,
    /// Why its free blocks are left alone: a clause that goes on "it …".
    pub left_alone: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Sparsified {
    /// What the file takes of its disk, before and after.
    pub before_bytes: u64,
    pub after_bytes: u64,
    pub file_systems: Vec<FileSystem>,
}

/// Writes a copy of an image without what nothing needs, in the same format.
///
/// # Errors
/// Refused where the image is not accepted or in use; Exists.
pub fn sparsify(source: &Path, target: &Path, how: &Sparsify) -> Result<Sparsified> {
    let image = Image::open(source, None)?;
    let place = Place::new(target, how.force)?;
    if image.format() == Format::Raw {
        lock::unused(image.file(), source)?;
        let (free, file_systems) = look(image.file(), how)?;
        holes::copy(image.file(), place.file(), &free)?;
        return finish(&image, place, file_systems);
    }
    let file_systems = rewrite(&image, image.node(None), target, &place, how)?;
    finish(&image, place, file_systems)
}

/// The same in the file itself: holes in a raw file; other formats are written anew beside it and take its place.
///
/// # Errors
/// As [`sparsify`]; Refused for a qcow2 with internal snapshots, which a copy would lose.
pub fn sparsify_in_place(path: &Path, how: &Sparsify) -> Result<Sparsified> {
    let image = Image::open_for(path, None, Access::Write)?;
    if image.format() == Format::Raw {
        let before_bytes = allocated(image.file())?;
        let _mine = lock::alone(image.file(), path)?;
        let (free, file_systems) = look(image.file(), how)?;
        holes::punch(image.file(), &free, Reading::Past)?;
        return Ok(Sparsified { before_bytes, after_bytes: allocated(image.file())?, file_systems });
    }
    if snapshots(&image)? > 0 {
        let path = path.display();
        return Err(Error::Refused(format!("{path} has internal snapshots, which a new file would not have")));
    }
    // Our lock, which goes with the file that is replaced, keeps others out, and would stand in the way of QEMU's.
    let _mine = lock::alone(image.file(), path)?;
    let mut node = image.node(None);
    node["file"]["locking"] = json!("off");
    let place = Place::new(path, true)?;
    let file_systems = rewrite(&image, node, path, &place, how)?;
    finish(&image, place, file_systems)
}

fn finish(image: &Image, place: Place, file_systems: Vec<FileSystem>) -> Result<Sparsified> {
    place.file().sync_all().map_err(Error::doing("writing the result"))?;
    let (before_bytes, after_bytes) = (allocated(image.file())?, allocated(place.file())?);
    place.finish()?;
    Ok(Sparsified { before_bytes, after_bytes, file_systems })
}

/// Through a raw file without a name beside the target, and back into the same format.
fn rewrite(image: &Image, node: Value, target: &Path, place: &Place, how: &Sparsify) -> Result<Vec<FileSystem>> {
    if how.compress && image.format() != Format::Qcow2 {
        return Err(Error::Refused("only qcow2 has compressed clusters".to_owned()));
    }
    let raw = Place::scratch(folder(target))?;
    let most = largest(image.findings().virtual_size);
    let mut unfold = limited("qemu-img", most);
    unfold.args(["convert", "-O", "raw"]).args(how.show.on_terminal().then_some("-p"));
    watched(unfold.arg(file_name(&node)).arg(raw.name()), how.show)?;
    let (free, file_systems) = look(raw.file(), how)?;
    holes::punch(raw.file(), &free, Reading::Through)?;
    let mut fold = limited("qemu-img", most);
    fold.args(["convert", "-f", "raw", "-O", image.driver()]).args(how.compress.then_some("-c"));
    fold.args(how.show.on_terminal().then_some("-p"));
    // A VHD would get the next larger size that has a geometry.
    fold.args((image.format() == Format::Vhd).then_some(["-o", "force_size=on"]).into_iter().flatten());
    watched(fold.arg(raw.name()).arg(place.name()), how.show)?;
    let found = inspected(place, image.format())?;
    if found.virtual_size != image.findings().virtual_size {
        return Err(Error::Refused(format!(
            "{} would have {} bytes instead of {} as another file of its format",
            image.path().display(),
            found.virtual_size,
            image.findings().virtual_size
        )));
    }
    Ok(file_systems)
}

fn allocated(file: &File) -> Result<u64> {
    Ok(file.metadata().map_err(Error::doing("asking for the size"))?.blocks() * 512)
}

fn snapshots(image: &Image) -> Result<u32> {
    let mut number = [0; 4];
    if image.format() == Format::Qcow2 {
        std::os::unix::fs::FileExt::read_exact_at(image.file(), &mut number, 60).map_err(Error::at(image.path()))?;
    }
    Ok(u32::from_be_bytes(number))
}

fn look(file: &File, how: &Sparsify) -> Result<(Vec<Range<u64>>, Vec<FileSystem>)> {
    if how.zeros_only {
        return Ok((Vec::new(), Vec::new()));
    }
    let source = file.try_clone().and_then(OnDisk::new).map_err(Error::doing("reading the disk"))?;
    free_ranges(&source)
}

/// What the file systems of a disk have as free, in ascending order, and what was found where.
fn free_ranges(disk: &dyn Source) -> Result<(Vec<Range<u64>>, Vec<FileSystem>)> {
    let whole = Volume::new(disk, 0, disk.size_bytes());
    let (mut free, mut found) = (Vec::new(), Vec::new());
    let parts = match partition::partitions(&whole) {
        Ok(parts) => parts,
        Err(Left::Io(error)) => return Err(Error::doing("reading the disk")(error)),
        Err(Left::Alone(why)) => {
            found.push(FileSystem { start_bytes: 0, kind: None, free_bytes: 0, left_alone: Some(why) });
            return Ok((free, found));
        }
    };
    for part in parts {
        let volume = Volume::new(disk, part.start, part.end - part.start);
        let (kind, ranges) = match read(&volume) {
            Ok((kind, Ok(ranges))) => (kind, Ok(ranges)),
            Ok((kind, Err(Left::Alone(why)))) => (kind, Err(why)),
            Ok((_, Err(Left::Io(error)))) | Err(Left::Io(error)) => {
                return Err(Error::doing("reading the disk")(error));
            }
            Err(Left::Alone(why)) => (None, Err(why)),
        };
        let (ranges, left_alone) = match ranges {
            Ok(ranges) => (ranges, None),
            Err(why) => (Vec::new(), Some(why)),
        };
        let free_bytes = ranges.iter().map(|range| range.end - range.start).sum();
        found.push(FileSystem { start_bytes: part.start, kind, free_bytes, left_alone });
        free.extend(ranges.into_iter().map(|range| range.start + part.start..range.end + part.start));
    }
    Ok((free, found))
}

/// Marks that are looked for lie in the first bytes, those of btrfs last.
const HEAD_BYTES: usize = (64 << 10) + 4096;

type Free = Read<Vec<Range<u64>>>;

/// What else may stand in a partition: nothing of it is looked into, and a mark of a file system that is read here, too,
/// may be what is left of an earlier use.
const OTHERS: [(&str, usize, &[u8]); 19] = [
    ("LUKS", 0, b"LUKS\xba\xbe"),
    ("LVM", 0, b"LABELONE"),
    ("LVM", 512, b"LABELONE"),
    ("LVM", 1024, b"LABELONE"),
    ("LVM", 1536, b"LABELONE"),
    ("RAID", 0, b"\xfc\x4e\x2b\xa9"),
    ("RAID", 4096, b"\xfc\x4e\x2b\xa9"),
    ("swap", 4086, b"SWAPSPACE2"),
    ("NTFS", 3, b"NTFS    "),
    ("exFAT", 3, b"EXFAT   "),
    ("BitLocker", 3, b"-FVE-FS-"),
    ("ReFS", 3, b"ReFS\0"),
    ("FAT", 54, b"FAT1"),
    ("FAT", 82, b"FAT32"),
    ("squashfs", 0, b"hsqs"),
    ("ISO 9660", 32769, b"CD001"),
    ("F2FS", 1024, b"\x10\x20\xf5\xf2"),
    ("bcache", 4120, b"\xc6\x85\x73\xf6\x4e\x1a\x45\xca"),
    ("ReiserFS", 65588, b"ReIsEr"),
];

/// Recognises what stands in a partition, and reads what is free in it.
fn read(volume: &Volume<'_>) -> Read<(Option<&'static str>, Free)> {
    let head = volume.head(HEAD_BYTES)?;
    let marks = [ext4::is(&head), xfs::is(&head), btrfs::is(&head)];
    let other = OTHERS.iter().find(|(_, at, mark)| head.slice(*at, mark.len()) == *mark).map(|(kind, _, _)| *kind);
    Ok(match (marks, other) {
        ([false, false, false], None) => (None, Ok(Vec::new())),
        ([true, false, false], None) => (Some("ext4"), ext4::free(volume)),
        ([false, true, false], None) => (Some("xfs"), xfs::free(volume)),
        ([false, false, true], None) => (Some("btrfs"), btrfs::free(volume)),
        ([false, false, false], Some(kind)) => (Some(kind), volume::alone("is not looked into")),
        _ => (None, volume::alone("bears the marks of several kinds at once")),
    })
}

/// True where a volume bears a mark, so that it is no table of partitions.
fn knows(volume: &Volume<'_>) -> Read<bool> {
    let head = volume.head(HEAD_BYTES)?;
    let other = OTHERS.iter().any(|(_, at, mark)| head.slice(*at, mark.len()) == *mark);
    Ok(other || ext4::is(&head) || xfs::is(&head) || btrfs::is(&head))
}
