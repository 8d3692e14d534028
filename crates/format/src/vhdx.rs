//! VHDX: two headers, a log, two region tables, and behind those the metadata with the size and the parent.
//!
//! Layout: Microsoft's MS-VHDX. Little-endian throughout.
//! A file whose log still has to be replayed is refused: the replay may write anything anywhere, a parent among it.

use crate::Source;
use crate::bytes::{Bytes, crc32c, find_in_table, human, name, oversized, read_up_to, words64};
use crate::detect::Report;
use crate::facts::Facts;

const HEADERS: [u64; 2] = [64 * 1024, 128 * 1024];
const HEADER_BYTES: usize = 4096;
const REGION_TABLES: [u64; 2] = [192 * 1024, 256 * 1024];
const TABLE_BYTES: usize = 64 * 1024;
const ENTRIES: usize = 2047;
/// The end of headers and region tables; regions begin behind it.
const REGIONS_FROM: u64 = 1 << 20;
/// A parent locator's text: pairs of names and paths.
const LOCATOR_BYTES: usize = 64 * 1024;

// GUIDs as they lie in the file.
const METADATA_REGION: [u8; 16] = guid(0x8b7c_a206, 0x4790, 0x4b9a, 0xb8fe_575f_050f_886e);
const BLOCKS_REGION: [u8; 16] = guid(0x2dc2_7766, 0xf623, 0x4200, 0x9d64_115e_9bfd_4a08);
const VIRTUAL_DISK_SIZE: [u8; 16] = guid(0x2fa5_4224, 0xcd1b, 0x4876, 0xb211_5dbe_d83b_f4b8);
const FILE_PARAMETERS: [u8; 16] = guid(0xcaa1_6737, 0xfa36, 0x4d43, 0xb3b6_33f0_aa44_e76b);
const LOGICAL_SECTOR: [u8; 16] = guid(0x8141_bf1d, 0xa96f, 0x4709, 0xba47_f233_a8fa_ab5f);
const PARENT_LOCATOR: [u8; 16] = guid(0xa8d3_5f2d, 0xb30b, 0x454d, 0xabf7_d3d8_4834_ab0c);

const fn guid(a: u32, b: u16, c: u16, d: u64) -> [u8; 16] {
    let (a, b, c, d) = (a.to_le_bytes(), b.to_le_bytes(), c.to_le_bytes(), d.to_be_bytes());
    [a[0], a[1], a[2], a[3], b[0], b[1], c[0], c[1], d[0], d[1], d[2], d[3], d[4], d[5], d[6], d[7]]
}

/// # Errors
/// Those of the source.
pub(crate) fn report(source: &dyn Source) -> std::io::Result<Report> {
    let header = match header(source)? {
        Ok(header) => header,
        Err(problem) => return Ok(Report::problem(problem)),
    };
    let regions = match regions(source)? {
        Ok(regions) => regions,
        Err(problem) => return Ok(Report::problem(problem)),
    };
    let mut report = metadata(source, &regions)?;
    report.facts.dirty = header.log_in_use;
    if header.log_in_use {
        report.problems.push("was not closed: its log has to be replayed by the program that wrote it".to_owned());
    }
    if header.version != 1 {
        report.problems.push(format!("has version {}; version 1 is supported", header.version));
    }
    if report.problems.is_empty() {
        report.problems.extend(blocks(source, &regions, &report)?);
    }
    Ok(report)
}

struct Header {
    sequence: u64,
    log_in_use: bool,
    version: u16,
}

/// The header with the higher sequence number of those whose checksums hold.
fn header(source: &dyn Source) -> std::io::Result<Result<Header, String>> {
    let mut newest: Option<Header> = None;
    for offset in HEADERS {
        let bytes = read_up_to(source, offset, HEADER_BYTES)?;
        let header = Bytes(&bytes);
        if !header.starts_at(0, b"head") || !sum_holds(&bytes, HEADER_BYTES) {
            continue;
        }
        let found = Header {
            sequence: header.le64(8).unwrap_or(0),
            log_in_use: header.slice(48, 16).is_none_or(|guid| guid.iter().any(|byte| *byte != 0)),
            version: header.le16(66).unwrap_or(0),
        };
        if newest.as_ref().is_some_and(|newest| newest.sequence == found.sequence) {
            return Ok(Err("is corrupt: its two headers have the same sequence number".to_owned()));
        }
        if newest.as_ref().is_none_or(|newest| newest.sequence < found.sequence) {
            newest = Some(found);
        }
    }
    Ok(newest.ok_or_else(|| "is truncated or corrupt: it has no valid header".to_owned()))
}

/// Whether the CRC-32C behind a signature is that of `length` bytes with the CRC itself as zeroes.
#[allow(unexpected_cfgs)]
fn sum_holds(bytes: &[u8], length: usize) -> bool {
    // A fuzzer would seldom get behind them.
    if cfg!(fuzzing) {
        return true;
    }
    let parts = (bytes.get(..4), bytes.get(8..length), Bytes(bytes).le32(4));
    matches!(parts, (Some(before), Some(behind), Some(sum)) if crc32c(&[before, &[0; 4], behind]) == sum)
}

#[derive(PartialEq)]
struct Region {
    offset: u64,
    bytes: u64,
}

struct Regions {
    blocks: Region,
    metadata: Region,
}

fn regions(source: &dyn Source) -> std::io::Result<Result<Regions, String>> {
    for offset in REGION_TABLES {
        let table = read_up_to(source, offset, TABLE_BYTES)?;
        if table.starts_with(b"regi") && sum_holds(&table, TABLE_BYTES) {
            return Ok(in_table(Bytes(&table)));
        }
    }
    Ok(Err("is truncated or corrupt: it has no valid region table".to_owned()))
}

fn in_table(table: Bytes<'_>) -> Result<Regions, String> {
    let entries = table.le32(8).unwrap_or(0) as usize;
    if entries > ENTRIES {
        return Err(format!("is corrupt: its region table has {entries} entries; at most {ENTRIES} are valid"));
    }
    let (mut blocks, mut metadata) = (None, None);
    for at in (0..entries).map(|n| 16 + 32 * n) {
        let (Some(id), Some(offset), Some(length)) = (table.slice(at, 16), table.le64(at + 16), table.le32(at + 24))
        else {
            return Err("is corrupt: its region table is cut short".to_owned());
        };
        let place = match id {
            id if id == BLOCKS_REGION => &mut blocks,
            id if id == METADATA_REGION => &mut metadata,
            _ if table.le32(at + 28).is_some_and(|flags| flags & 1 == 0) => continue,
            _ => return Err("has a region that is not known and may not be left out".to_owned()),
        };
        if offset < REGIONS_FROM || !offset.is_multiple_of(REGIONS_FROM) {
            return Err(format!("is corrupt: a region at {offset:#x} does not begin at a multiple of 1 MiB"));
        }
        if place.replace(Region { offset, bytes: length.into() }).is_some() {
            return Err("is ambiguous: its region table names a region twice".to_owned());
        }
    }
    match (blocks, metadata) {
        (Some(blocks), Some(metadata)) if overlap(&blocks, &metadata) => {
            Err("is corrupt: its regions lie over one another".to_owned())
        }
        (Some(blocks), Some(metadata)) => Ok(Regions { blocks, metadata }),
        (_, None) => Err("is truncated or corrupt: it has no metadata region".to_owned()),
        (None, _) => Err("is truncated or corrupt: it has no table of blocks".to_owned()),
    }
}

fn overlap(one: &Region, other: &Region) -> bool {
    one.offset < other.offset.saturating_add(other.bytes) && other.offset < one.offset.saturating_add(one.bytes)
}

/// Size, block size and parent.
fn metadata(source: &dyn Source, regions: &Regions) -> std::io::Result<Report> {
    let table = read_up_to(source, regions.metadata.offset, TABLE_BYTES)?;
    let table = Bytes(&table);
    let value = |id: &[u8; 16], length: usize| match item(table, id) {
        Some((at, _)) => read_up_to(source, regions.metadata.offset.saturating_add(at), length),
        None => Ok(Vec::new()),
    };
    let (size, parameters) = (value(&VIRTUAL_DISK_SIZE, 8)?, value(&FILE_PARAMETERS, 8)?);
    let sector = Bytes(&value(&LOGICAL_SECTOR, 4)?).le32(0);
    let fields = (Bytes(&size).le64(0), Bytes(&parameters).le32(0), Bytes(&parameters).le32(4), sector);
    let (Some(virtual_size), Some(block), Some(flags), Some(sector)) = fields else {
        return Ok(Report::problem("is truncated or corrupt: its metadata lack the size of the disk"));
    };
    let mut facts = Facts { cluster_size: Some(block.into()), ..Facts::default() };
    let locator = item(table, &PARENT_LOCATOR);
    facts.subformat = Some(kind(flags, locator.is_some()).to_owned());
    let mut problems = Vec::new();
    if flags & 2 != 0 || locator.is_some() {
        problems.push("is a differencing disk with a parent, and an image must be one self-contained file".to_owned());
    }
    if let Some((at, length)) = locator {
        let length = (length as usize).min(LOCATOR_BYTES);
        let locator = read_up_to(source, regions.metadata.offset.saturating_add(at), length)?;
        facts.backing_file = parent(Bytes(&locator));
    }
    if is_ambiguous(table) {
        problems.push("is ambiguous: its metadata name an item twice".to_owned());
    }
    if sector != 512 {
        problems.push(format!("has sectors of {sector} bytes; 512 are supported"));
    }
    if !block.is_power_of_two() || !(1 << 20..=256 << 20).contains(&block) {
        problems.push(format!("has blocks of {block} bytes; powers of two from 1 MiB to 256 MiB are valid"));
    }
    if !virtual_size.is_multiple_of(512) || virtual_size == 0 {
        problems.push(format!("has a disk of {virtual_size} bytes, which is no number of sectors"));
    }
    if virtual_size > 64 << 40 {
        problems.push(format!("has a disk of {}; at most 64 TiB are valid", human(virtual_size)));
    }
    problems.extend(oversized(virtual_size));
    Ok(Report { virtual_size, facts, problems })
}

fn kind(flags: u32, locator: bool) -> &'static str {
    match flags {
        _ if flags & 2 != 0 || locator => "differencing",
        _ if flags & 1 != 0 => "fixed",
        _ => "dynamic",
    }
}

fn items(table: Bytes<'_>) -> Vec<usize> {
    if !table.starts_at(0, b"metadata") {
        return Vec::new();
    }
    let entries = usize::from(table.le16(10).unwrap_or(0)).min(ENTRIES);
    (0..entries).map(|n| 32 + 32 * n).collect()
}

/// Where in the region an item lies, and its length.
fn item(table: Bytes<'_>, id: &[u8; 16]) -> Option<(u64, u32)> {
    let at = items(table).into_iter().find(|at| table.starts_at(*at, id))?;
    Some((table.le32(at + 16)?.into(), table.le32(at + 20)?))
}

fn is_ambiguous(table: Bytes<'_>) -> bool {
    let mut ids: Vec<&[u8]> = items(table).into_iter().filter_map(|at| table.slice(at, 16)).collect();
    let all = ids.len();
    ids.sort_unstable();
    ids.dedup();
    ids.len() != all
}

/// The first path that a parent locator names.
fn parent(locator: Bytes<'_>) -> Option<String> {
    let text = |at: u32, length: u16| {
        let wide = locator.slice(at as usize, length.into())?;
        let units = wide.chunks_exact(2).map(|pair| u16::from_le_bytes(pair.try_into().unwrap_or_default()));
        Some(char::decode_utf16(units).flatten().collect::<String>())
    };
    let entries = locator.le16(18)?.min(64);
    (0..usize::from(entries)).map(|n| 20 + 12 * n).find_map(|at| {
        let key = text(locator.le32(at)?, locator.le16(at + 8)?)?;
        let value = text(locator.le32(at + 4)?, locator.le16(at + 10)?)?;
        key.contains("path").then(|| name(value.as_bytes()))
    })
}

/// Whether the table of blocks is whole and each block it names begins inside the file.
fn blocks(source: &dyn Source, regions: &Regions, report: &Report) -> std::io::Result<Option<String>> {
    let end = source.size_bytes();
    let truncated = |what: &str| Ok(Some(format!("is truncated or corrupt: its {what} beyond its end at {end} bytes")));
    let block = report.facts.cluster_size.unwrap_or(1 << 20);
    let needed = entries(report.virtual_size, block) * 8;
    if needed > regions.blocks.bytes {
        let size = human(report.virtual_size);
        return Ok(Some(format!("is corrupt: its table of blocks is too short for a disk of {size}")));
    }
    if regions.blocks.offset.checked_add(needed).is_none_or(|last| last > end) {
        return truncated("table of blocks lies");
    }
    // States 6 and 7: there, and there in part. The upper 44 bits count in MiB.
    let outside = |entry: u64| matches!(entry & 7, 6 | 7) && (entry >> 20 == 0 || entry & !0xf_ffff >= end);
    let found = find_in_table(source, regions.blocks.offset, needed, |table| {
        words64(table, u64::from_le_bytes).any(outside).then_some(())
    })?;
    if found.is_some() { truncated("blocks lie") } else { Ok(None) }
}

/// Entries of the table: one a block, and one for the bitmap of sectors after so many blocks.
fn entries(virtual_size: u64, block: u64) -> u64 {
    let blocks = virtual_size.div_ceil(block);
    let between_bitmaps = ((1 << 23) * 512 / block).max(1);
    blocks + blocks.saturating_sub(1) / between_bitmaps
}
