//! Parallels and ploop: a header of 64 bytes, a table of blocks, the blocks.
//!
//! Layout: QEMU's `docs/interop/parallels.txt`. Little-endian. The older magic counts in sectors, the newer in blocks.

use crate::Source;
use crate::bytes::{Bytes, find_in_table, human, oversized, words32};
use crate::detect::Report;
use crate::facts::Facts;

const HEADER_BYTES: u64 = 64;
/// Most sectors of a block (QEMU's own bound).
const BLOCK_SECTORS: u32 = i32::MAX as u32 / 513;
/// Most entries of the table (QEMU's own bound).
const BLOCKS: u32 = i32::MAX as u32 / 4;
const IN_USE: u32 = 0x746f_6e59;

struct Header {
    extended: bool,
    version: u32,
    block_sectors: u32,
    blocks: u32,
    sectors: u64,
    in_use: u32,
}

fn parse(head: Bytes<'_>) -> Option<Header> {
    let extended = head.starts_at(0, b"WithouFreSpacExt");
    let sectors = head.le64(36)?;
    Some(Header {
        extended,
        version: head.le32(16)?,
        block_sectors: head.le32(28)?,
        blocks: head.le32(32)?,
        // The upper half means nothing in the older version.
        sectors: if extended { sectors } else { sectors & 0xffff_ffff },
        in_use: head.le32(44)?,
    })
}

/// Checks the header, and the table where the whole file is at hand.
///
/// # Errors
/// Those of the source.
pub(crate) fn report(head: &[u8], source: Option<&dyn Source>) -> std::io::Result<Report> {
    let Some(header) = parse(Bytes(head)).filter(|_| head.len() as u64 >= HEADER_BYTES) else {
        return Ok(Report::problem("ends inside its header: the upload is truncated"));
    };
    let facts = Facts {
        subformat: Some(if header.extended { "WithouFreSpacExt" } else { "WithoutFreeSpace" }.to_owned()),
        cluster_size: Some(u64::from(header.block_sectors) * 512),
        dirty: header.in_use == IN_USE,
        ..Facts::default()
    };
    let virtual_size = header.sectors.saturating_mul(512);
    let mut report = Report { virtual_size, facts, problems: problems(&header) };
    if let (Some(source), true) = (source, report.problems.is_empty()) {
        report.problems.extend(blocks(&header, source)?);
    }
    Ok(report)
}

fn problems(header: &Header) -> Vec<String> {
    let mut problems = Vec::new();
    if header.version != 2 {
        problems.push(format!("has version {}; version 2 is supported", header.version));
    }
    if header.block_sectors == 0 || header.block_sectors > BLOCK_SECTORS {
        problems.push(format!("has blocks of {} sectors; 1 to {BLOCK_SECTORS} are valid", header.block_sectors));
    }
    let room = u64::from(header.blocks) * u64::from(header.block_sectors);
    if header.blocks > BLOCKS || header.sectors > room {
        let size = human(header.sectors.saturating_mul(512));
        problems.push(format!("is corrupt: its table has {} blocks for a disk of {size}", header.blocks));
    }
    problems.extend(oversized(header.sectors.saturating_mul(512)));
    if header.in_use == IN_USE {
        problems.push("was not closed: repair it with 'qemu-img check -r all'".to_owned());
    }
    problems
}

/// The table, and whether each block it names lies in the file. Read once, so bounded by the file's size.
fn blocks(header: &Header, source: &dyn Source) -> std::io::Result<Option<String>> {
    let end = source.size_bytes();
    let table_bytes = u64::from(header.blocks) * 4;
    if HEADER_BYTES + table_bytes > end {
        return Ok(Some(format!("is truncated or corrupt: its table lies beyond its end at {end} bytes")));
    }
    let unit = if header.extended { u64::from(header.block_sectors) * 512 } else { 512 };
    let beyond = find_in_table(source, HEADER_BYTES, table_bytes, |table| {
        words32(table, u32::from_le_bytes).any(|entry| entry != 0 && u64::from(entry) * unit >= end).then_some(())
    })?;
    Ok(beyond.map(|()| format!("is truncated or corrupt: its blocks lie beyond its end at {end} bytes")))
}
