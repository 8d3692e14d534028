//! VDI, VirtualBox's format: a header, a map of blocks, the blocks.
//!
//! Layout: VirtualBox's `VDICore.h`. Little-endian, version 1.1. The two kinds that stand alone are accepted.

use crate::Source;
use crate::bytes::{Bytes, find_in_table, human, oversized, words32};
use crate::detect::Report;
use crate::facts::Facts;

/// Blocks are of this size wherever the format is read (QEMU's own bound).
const BLOCK_BYTES: u32 = 1 << 20;
/// Most entries of the map (QEMU's own bound: a map of 2 GiB).
const BLOCKS: u32 = 0x1fff_ff80;
/// Entries of the map from here on mean that there is no block.
const NO_BLOCK: u32 = 0xffff_fffe;

struct Header {
    version: u32,
    kind: u32,
    map: u32,
    data: u32,
    sector_bytes: u32,
    virtual_size: u64,
    block_bytes: u32,
    blocks: u32,
    /// Whether it names another disk that belongs to it.
    linked: bool,
}

fn parse(head: Bytes<'_>) -> Option<Header> {
    Some(Header {
        version: head.le32(0x44)?,
        kind: head.le32(0x4c)?,
        map: head.le32(0x154)?,
        data: head.le32(0x158)?,
        sector_bytes: head.le32(0x168)?,
        virtual_size: head.le64(0x170)?,
        block_bytes: head.le32(0x178)?,
        blocks: head.le32(0x180)?,
        linked: head.slice(0x1a8, 32)?.iter().any(|byte| *byte != 0),
    })
}

/// Checks the header, and the map where the whole file is at hand.
///
/// # Errors
/// Those of the source.
pub(crate) fn report(head: &[u8], source: Option<&dyn Source>) -> std::io::Result<Report> {
    let Some(header) = parse(Bytes(head)) else {
        return Ok(Report::problem("ends inside its header: the upload is truncated"));
    };
    let mut facts = Facts { cluster_size: Some(header.block_bytes.into()), ..Facts::default() };
    facts.subformat = subformat(header.kind).map(str::to_owned);
    let mut report = Report { virtual_size: header.virtual_size, facts, problems: problems(&header) };
    // QEMU rounds up to whole sectors.
    report.virtual_size = header.virtual_size.checked_next_multiple_of(512).unwrap_or(header.virtual_size);
    if let (Some(source), true) = (source, report.problems.is_empty()) {
        report.problems.extend(blocks(&header, source)?);
    }
    Ok(report)
}

fn subformat(kind: u32) -> Option<&'static str> {
    Some(match kind {
        1 => "dynamic",
        2 => "static",
        3 => "undo",
        4 => "differencing",
        _ => return None,
    })
}

fn problems(header: &Header) -> Vec<String> {
    let mut problems = Vec::new();
    if header.version != 0x1_0001 {
        let (major, minor) = (header.version >> 16, header.version & 0xffff);
        problems.push(format!("has version {major}.{minor}; version 1.1 is supported"));
    }
    if !matches!(header.kind, 1 | 2) {
        let kind = subformat(header.kind).unwrap_or("unknown");
        problems.push(format!("is of the kind {} ({kind}); 1 and 2, dynamic and static, stand alone", header.kind));
    }
    if header.linked {
        problems.push("names a parent disk, and an image must be one self-contained file".to_owned());
    }
    if header.sector_bytes != 512 || header.block_bytes != BLOCK_BYTES {
        let (sectors, blocks) = (header.sector_bytes, header.block_bytes);
        problems
            .push(format!("has sectors of {sectors} and blocks of {blocks} bytes; 512 and {BLOCK_BYTES} are valid"));
    }
    let room = u64::from(header.blocks) * u64::from(BLOCK_BYTES);
    if header.blocks > BLOCKS || header.virtual_size > room {
        let size = human(header.virtual_size);
        problems.push(format!("is corrupt: its map has {} blocks for a disk of {size}", header.blocks));
    }
    problems.extend(oversized(header.virtual_size));
    if !header.map.is_multiple_of(512) || !header.data.is_multiple_of(512) {
        problems.push("is corrupt: its tables do not begin at a sector".to_owned());
    }
    problems
}

/// The map, and whether each block it names lies in the file. Read once, so bounded by the file's size.
fn blocks(header: &Header, source: &dyn Source) -> std::io::Result<Option<String>> {
    let end = source.size_bytes();
    let truncated = |what: &str| Ok(Some(format!("is truncated or corrupt: its {what} beyond its end at {end} bytes")));
    let map_bytes = u64::from(header.blocks) * 4;
    if u64::from(header.map) + map_bytes > end || u64::from(header.data) > end {
        return truncated("tables lie");
    }
    let missing = |block: u32| u64::from(header.data) + u64::from(block) * u64::from(BLOCK_BYTES) >= end;
    let found = find_in_table(source, header.map.into(), map_bytes, |map| {
        words32(map, u32::from_le_bytes).any(|entry| entry < NO_BLOCK && missing(entry)).then_some(())
    })?;
    if found.is_some() { truncated("blocks lie") } else { Ok(None) }
}
