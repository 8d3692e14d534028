//! Where the file systems of a disk begin and end: GPT, MBR with its logical partitions, or one on the whole disk.

use super::volume::{Crc, Read, Volume, alone, ensure};
use std::ops::Range;

const SECTOR: u64 = 512;
/// Entries of a GPT that are read; tables have 128.
const ENTRIES: u32 = 1024;
/// Logical partitions in a chain.
const LOGICAL: usize = 128;

/// The partitions in bytes, in the order of their beginnings; the whole disk where there is no table. One of both may be
/// what is left of an earlier use, and nobody can say which: such a disk is left alone.
pub(crate) fn partitions(disk: &Volume<'_>) -> Read<Vec<Range<u64>>> {
    let head = disk.head(8192)?;
    let table = [512u64, 4096].into_iter().find(|sector| head.slice(*sector as usize, 8) == b"EFI PART");
    let found = match table {
        Some(_) if !is_protective(&head) => return alone("has a GPT that the table before it does not know of"),
        Some(sector) => gpt(disk, sector)?,
        None if head.le16(510) == 0xaa55 => mbr(disk)?,
        None => Vec::new(),
    };
    match (found.is_empty(), super::knows(disk)?) {
        (true, _) if table.is_none() => Ok(vec![0..disk.length]),
        (_, true) => alone("bears the marks of partitions and of a file system at once"),
        (_, false) => ordered(found),
    }
}

/// The old table says that all of the disk belongs to a GPT: systems look at no GPT without it.
fn is_protective(head: &super::volume::Bytes) -> bool {
    let kinds: Vec<u8> = (0..4).map(|n| head.u8(446 + 16 * n + 4)).filter(|kind| *kind != 0).collect();
    head.le16(510) == 0xaa55 && !kinds.is_empty() && kinds.iter().all(|kind| *kind == 0xee)
}

fn gpt(disk: &Volume<'_>, sector: u64) -> Read<Vec<Range<u64>>> {
    let header = disk.read(sector, 512)?;
    let length = header.le32(12) as usize;
    ensure((92..=512).contains(&length), "has a GPT with a header of a wrong length")?;
    let crc = Crc::ethernet();
    ensure(crc.around(header.slice(0, length), 16) == header.le32(16), "has a GPT with a wrong checksum")?;
    let (count, bytes) = (header.le32(80), header.le32(84));
    ensure(count <= ENTRIES && (128..=1024).contains(&bytes), "has a GPT with too many entries")?;
    let at = header.le64(72).checked_mul(sector).unwrap_or(u64::MAX);
    let table = disk.read(at, (count * bytes) as usize)?;
    ensure(crc.of_bytes(&table.0) == header.le32(88), "has a GPT whose entries have a wrong checksum")?;
    let mut found = Vec::new();
    for entry in (0..count as usize).map(|n| n * bytes as usize) {
        if table.slice(entry, 16).iter().all(|byte| *byte == 0) {
            continue;
        }
        let end = table.le64(entry + 40).checked_add(1).and_then(|end| end.checked_mul(sector));
        let (Some(start), Some(end)) = (table.le64(entry + 32).checked_mul(sector), end) else {
            return alone("has a partition beyond its end");
        };
        found.push(start..end);
    }
    Ok(found)
}

/// Beginning and end of one of the four entries of a table, with its type.
fn entry(table: &super::volume::Bytes, n: usize, base: u64) -> Option<(u8, Range<u64>)> {
    let at = 446 + 16 * n;
    let (kind, start, sectors) = (table.u8(at + 4), table.le32(at + 8), table.le32(at + 12));
    let start = (base + u64::from(start)) * SECTOR;
    (kind != 0 && sectors != 0).then(|| (kind, start..start + u64::from(sectors) * SECTOR))
}

fn mbr(disk: &Volume<'_>) -> Read<Vec<Range<u64>>> {
    let table = disk.read(0, 512)?;
    let mut found = Vec::new();
    for (kind, range) in (0..4).filter_map(|n| entry(&table, n, 0)) {
        match kind {
            0xee => return alone("has the MBR of a GPT that is not there"),
            0x05 | 0x0f | 0x85 => logical(disk, range.start, &mut found)?,
            _ => found.push(range),
        }
    }
    Ok(found)
}

/// Each logical partition has a table of its own, which names the next one.
fn logical(disk: &Volume<'_>, extended: u64, found: &mut Vec<Range<u64>>) -> Read<()> {
    let mut at = extended;
    for _ in 0..LOGICAL {
        let table = disk.read(at, 512)?;
        ensure(table.le16(510) == 0xaa55, "has a broken chain of logical partitions")?;
        found.extend(entry(&table, 0, at / SECTOR).map(|(_, range)| range));
        match entry(&table, 1, extended / SECTOR) {
            None => return Ok(()),
            Some((_, next)) => at = next.start,
        }
    }
    alone("has too many logical partitions")
}

fn ordered(mut found: Vec<Range<u64>>) -> Read<Vec<Range<u64>>> {
    found.sort_unstable_by_key(|range| range.start);
    ensure(found.windows(2).all(|pair| pair[0].end <= pair[1].start), "has partitions that overlap")?;
    ensure(found.iter().all(|range| range.start < range.end), "has partitions that end before they begin")?;
    Ok(found)
}
