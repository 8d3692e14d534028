//! A disk that boots, from the tree of a system: GPT, GRUB for a BIOS, one ext4. Written without mounting anything.
//!
//! GRUB's own installer needs devices and mounts to find out where its second part lies; here that is known, because
//! this lays it there: in a partition of its own, in one piece.

use crate::error::{Error, Result};
use crate::sparsify::Crc;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

const SECTOR: u64 = 512;
const MIB: u64 = 1 << 20;
/// Where GRUB's second part lies, and the root behind it.
const CORE_START: u64 = MIB;
pub(crate) const ROOT_START: u64 = 2 * MIB;
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

/// Linux' root for x86-64, and GRUB's own.
const ROOT_TYPE: &str = "4f68bce3-e8cd-4db1-96e7-fbcaf984b709";
const CORE_TYPE: &str = "21686148-6449-6e6f-744e-656564454649";

/// Both parts of GRUB, as they lie in a tree after its installation.
pub(crate) struct Grub {
    boot: Vec<u8>,
    core: Vec<u8>,
}

impl Grub {
    /// # Errors
    /// Refused where the tree has none.
    pub fn of(tree: &Path) -> Result<Grub> {
        let read = |name: &str| {
            let path = Path::new("boot/grub/i386-pc").join(name);
            let inside = tree.join(&path);
            // A link in somebody's tree, at any level, could lead out of it.
            let real = inside.canonicalize().is_ok_and(|real| tree.canonicalize().is_ok_and(|it| real == it.join(&path)));
            let is_file = real && fs::symlink_metadata(&inside).is_ok_and(|it| it.is_file() && it.len() <= MIB);
            match is_file {
                true => fs::read(&inside).map_err(Error::at(&inside)),
                false => Err(Error::Refused(format!(
                    "the system has no /{}: install GRUB for a BIOS in it (grub-mkimage -O i386-pc)",
                    path.display()
                ))),
            }
        };
        let (boot, core) = (read("boot.img")?, read("core.img")?);
        if boot.len() != 512 || core.len() < 1024 || core.len() as u64 > ROOT_START - CORE_START {
            return Err(Error::Refused("the system's boot.img or core.img is none of GRUB".to_owned()));
        }
        Ok(Grub { boot, core })
    }
}

/// The bytes of the root's partition on a disk of this size; whole MiB.
pub(crate) fn root_bytes(disk_bytes: u64) -> u64 {
    (disk_bytes.saturating_sub(ROOT_START + END_BYTES)) / MIB * MIB
}

/// Writes everything but the root itself.
pub(crate) fn write(disk: &File, size_bytes: u64, grub: &Grub) -> io::Result<()> {
    let mut first = vec![0; 512];
    first[..BOOT_CODE].copy_from_slice(&grub.boot[..BOOT_CODE]);
    first[BOOT_NEXT..BOOT_NEXT + 8].copy_from_slice(&(CORE_START / SECTOR).to_le_bytes());
    protect(&mut first, size_bytes / SECTOR);
    disk.write_all_at(&first, 0)?;

    let mut core = grub.core.clone();
    let sectors = (core.len() as u64).div_ceil(SECTOR);
    core[CORE_LIST..CORE_LIST + 8].copy_from_slice(&(CORE_START / SECTOR + 1).to_le_bytes());
    core[CORE_LIST + 8..CORE_LIST + 10].copy_from_slice(&((sectors - 1) as u16).to_le_bytes());
    core[CORE_LIST + 10..CORE_LIST + 12].copy_from_slice(&CORE_SEGMENT.to_le_bytes());
    disk.write_all_at(&core, CORE_START)?;

    let root = ROOT_START..ROOT_START + root_bytes(size_bytes);
    let mut table = vec![0; ENTRIES * ENTRY_BYTES];
    // As Debian's own images number them: the root first, so that it can grow.
    entry(&mut table, 0, ROOT_TYPE, root, "root")?;
    entry(&mut table, 13, CORE_TYPE, CORE_START..ROOT_START, "grub")?;
    let id = random()?;
    let last = size_bytes / SECTOR - 1;
    let table_sectors = table.len() as u64 / SECTOR;
    disk.write_all_at(&header(&table, &id, [1, last, 2], last), SECTOR)?;
    disk.write_all_at(&table, 2 * SECTOR)?;
    disk.write_all_at(&table, (last - table_sectors) * SECTOR)?;
    disk.write_all_at(&header(&table, &id, [last, 1, last - table_sectors], last), last * SECTOR)
}

/// One MBR entry over all of the disk, for those who know no GPT.
fn protect(first: &mut [u8], sectors: u64) {
    let length = u32::try_from(sectors - 1).unwrap_or(u32::MAX);
    first[446..454].copy_from_slice(&[0, 0, 2, 0, 0xee, 0xff, 0xff, 0xff]);
    first[454..458].copy_from_slice(&1u32.to_le_bytes());
    first[458..462].copy_from_slice(&length.to_le_bytes());
    first[510..512].copy_from_slice(&[0x55, 0xaa]);
}

fn entry(table: &mut [u8], n: usize, kind: &str, bytes: std::ops::Range<u64>, name: &str) -> io::Result<()> {
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
