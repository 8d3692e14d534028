//! A disk that boots, from the tree of a system: GPT, GRUB for a BIOS, an EFI system partition, one ext4. Written
//! without mounting anything.
//!
//! ```text
//! 0          1 MiB        2 MiB                  126 MiB                     end - 1 MiB
//! | GPT      | 14: GRUB   | 15: EFI system       | 1: root (ext4) …          | GPT |
//! ```
//! Without a firmware, its partition is missing; without UEFI, the root begins at 2 MiB.
//!
//! GRUB's own installer needs devices and mounts to find out where its second part lies; here that is known, because
//! this lays it there: in a partition of its own, in one piece.

use super::esp::{Esp, inside};
use crate::error::{Error, Result};
use crate::sparsify::Crc;
use std::fs::{self, File};
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::Path;

const SECTOR: u64 = 512;
const MIB: u64 = 1 << 20;
/// Where GRUB's second part lies, and what follows it.
const CORE: Range<u64> = MIB..2 * MIB;
/// As large as in Debian's own images for clouds.
const ESP: Range<u64> = 2 * MIB..126 * MIB;
/// Kept for the second GPT.
const END_BYTES: u64 = MIB;
const ENTRIES: usize = 128;
const ENTRY_BYTES: usize = 128;
/// GRUB's boot sector: where the number of the next sector stands.
const BOOT_NEXT: usize = 0x5c;
/// The first sector of its second part ends with a list of what is to be loaded: sector, count, segment.
const CORE_LIST: usize = 0x1f4;
const CORE_SEGMENT: u16 = 0x820;
/// Code before the disk's signature and the partitions.
const BOOT_CODE: usize = 440;

/// Linux' root for x86-64, GRUB's own, and UEFI's.
const ROOT_TYPE: &str = "4f68bce3-e8cd-4db1-96e7-fbcaf984b709";
const CORE_TYPE: &str = "21686148-6449-6e6f-744e-656564454649";
const ESP_TYPE: &str = "c12a7328-f81f-11d2-ba4b-00a0c93ec93b";
/// Their places in the table, as Debian's own images have them: the root first, the others far behind.
const ROOT_ENTRY: usize = 0;
const CORE_ENTRY: usize = 13;
const ESP_ENTRY: usize = 14;

/// Both parts of GRUB, as they lie in a tree after its installation.
pub(crate) struct Grub {
    boot: Vec<u8>,
    core: Vec<u8>,
}

impl Grub {
    /// None where the tree has neither part.
    ///
    /// # Errors
    /// Refused where they are none of GRUB.
    pub fn of(tree: &Path) -> Result<Option<Grub>> {
        let read = |name: &str| -> Result<Option<Vec<u8>>> {
            let Some(path) = inside(tree, &Path::new("boot/grub/i386-pc").join(name)) else { return Ok(None) };
            let fits = fs::symlink_metadata(&path).is_ok_and(|it| it.is_file() && it.len() <= MIB);
            fits.then(|| fs::read(&path).map_err(Error::at(&path))).transpose()
        };
        let (Some(boot), Some(core)) = (read("boot.img")?, read("core.img")?) else { return Ok(None) };
        if boot.len() != 512 || core.len() < 1024 || core.len() as u64 > CORE.end - CORE.start {
            return Err(Error::Refused("the system's boot.img or core.img is none of GRUB".to_owned()));
        }
        Ok(Some(Grub { boot, core }))
    }
}

/// What a disk is booted by: one of both, or both.
pub(crate) struct Loaders {
    pub grub: Option<Grub>,
    pub esp: Option<Esp>,
}

impl Loaders {
    pub fn root_start(&self) -> u64 {
        if self.esp.is_some() { ESP.end } else { CORE.end }
    }

    /// Of the root's partition on a disk of this size; whole MiB.
    pub fn root_bytes(&self, disk_bytes: u64) -> u64 {
        (disk_bytes.saturating_sub(self.root_start() + END_BYTES)) / MIB * MIB
    }
}

/// Bytes of the partition for UEFI.
pub(crate) const ESP_BYTES: u64 = ESP.end - ESP.start;

/// Writes everything but the root itself.
pub(crate) fn write(disk: &File, size_bytes: u64, loaders: &Loaders) -> io::Result<()> {
    let mut first = vec![0; 512];
    let mut table = vec![0; ENTRIES * ENTRY_BYTES];
    let start = loaders.root_start();
    entry(&mut table, ROOT_ENTRY, ROOT_TYPE, start..start + loaders.root_bytes(size_bytes), "root")?;
    if let Some(grub) = &loaders.grub {
        first[..BOOT_CODE].copy_from_slice(&grub.boot[..BOOT_CODE]);
        first[BOOT_NEXT..BOOT_NEXT + 8].copy_from_slice(&(CORE.start / SECTOR).to_le_bytes());
        disk.write_all_at(&placed(grub), CORE.start)?;
        entry(&mut table, CORE_ENTRY, CORE_TYPE, CORE, "grub")?;
    }
    if let Some(esp) = &loaders.esp {
        esp.copy(disk, ESP.start)?;
        entry(&mut table, ESP_ENTRY, ESP_TYPE, ESP, "EFI system")?;
    }
    protect(&mut first, size_bytes / SECTOR);
    disk.write_all_at(&first, 0)?;

    let id = random()?;
    let last = size_bytes / SECTOR - 1;
    let table_sectors = table.len() as u64 / SECTOR;
    disk.write_all_at(&header(&table, &id, [1, last, 2], last), SECTOR)?;
    disk.write_all_at(&table, 2 * SECTOR)?;
    disk.write_all_at(&table, (last - table_sectors) * SECTOR)?;
    disk.write_all_at(&header(&table, &id, [last, 1, last - table_sectors], last), last * SECTOR)
}

/// GRUB's second part, told where the rest of it lies.
fn placed(grub: &Grub) -> Vec<u8> {
    let mut core = grub.core.clone();
    let sectors = (core.len() as u64).div_ceil(SECTOR);
    core[CORE_LIST..CORE_LIST + 8].copy_from_slice(&(CORE.start / SECTOR + 1).to_le_bytes());
    core[CORE_LIST + 8..CORE_LIST + 10].copy_from_slice(&((sectors - 1) as u16).to_le_bytes());
    core[CORE_LIST + 10..CORE_LIST + 12].copy_from_slice(&CORE_SEGMENT.to_le_bytes());
    core
}

/// One MBR entry over all of the disk, for those who know no GPT.
fn protect(first: &mut [u8], sectors: u64) {
    let length = u32::try_from(sectors - 1).unwrap_or(u32::MAX);
    first[446..454].copy_from_slice(&[0, 0, 2, 0, 0xee, 0xff, 0xff, 0xff]);
    first[454..458].copy_from_slice(&1u32.to_le_bytes());
    first[458..462].copy_from_slice(&length.to_le_bytes());
    first[510..512].copy_from_slice(&[0x55, 0xaa]);
}

fn entry(table: &mut [u8], n: usize, kind: &str, bytes: Range<u64>, name: &str) -> io::Result<()> {
    let own = &mut table[n * ENTRY_BYTES..(n + 1) * ENTRY_BYTES];
    own[..16].copy_from_slice(&guid(kind));
    own[16..32].copy_from_slice(&random()?);
    own[32..40].copy_from_slice(&(bytes.start / SECTOR).to_le_bytes());
    own[40..48].copy_from_slice(&(bytes.end / SECTOR - 1).to_le_bytes());
    for (at, unit) in name.encode_utf16().enumerate() {
        own[56 + 2 * at..58 + 2 * at].copy_from_slice(&unit.to_le_bytes());
    }
    Ok(())
}

/// `places`: the sectors of this header, of the other one, and of this one's table.
fn header(table: &[u8], id: &[u8; 16], places: [u64; 3], last: u64) -> Vec<u8> {
    let crc = Crc::ethernet();
    let table_sectors = table.len() as u64 / SECTOR;
    let mut header = vec![0; 512];
    header[..8].copy_from_slice(b"EFI PART");
    header[8..12].copy_from_slice(&0x1_0000u32.to_le_bytes());
    header[12..16].copy_from_slice(&92u32.to_le_bytes());
    header[24..32].copy_from_slice(&places[0].to_le_bytes());
    header[32..40].copy_from_slice(&places[1].to_le_bytes());
    header[40..48].copy_from_slice(&(2 + table_sectors).to_le_bytes());
    header[48..56].copy_from_slice(&(last - table_sectors - 1).to_le_bytes());
    header[56..72].copy_from_slice(id);
    header[72..80].copy_from_slice(&places[2].to_le_bytes());
    header[80..84].copy_from_slice(&(ENTRIES as u32).to_le_bytes());
    header[84..88].copy_from_slice(&(ENTRY_BYTES as u32).to_le_bytes());
    header[88..92].copy_from_slice(&crc.of_bytes(table).to_le_bytes());
    let sum = crc.around(&header[..92], 16);
    header[16..20].copy_from_slice(&sum.to_le_bytes());
    header
}

/// A GUID as a GPT has it: its first three groups with their bytes turned round.
fn guid(text: &str) -> [u8; 16] {
    let digits: String = text.chars().filter(char::is_ascii_hexdigit).collect();
    let mut bytes = u128::from_str_radix(&digits, 16).unwrap_or(0).to_be_bytes();
    bytes[..4].reverse();
    bytes[4..6].reverse();
    bytes[6..8].reverse();
    bytes
}

/// A random GUID, of the kernel's.
fn random() -> io::Result<[u8; 16]> {
    Ok(guid(&fs::read_to_string("/proc/sys/kernel/random/uuid")?))
}
