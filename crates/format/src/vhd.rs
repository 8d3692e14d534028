//! VHD, the format of Virtual PC and Hyper-V: a footer of 512 bytes at the end, and a copy of it at the start of disks
//! that grow, before a header, a table of blocks and the blocks.
//!
//! Layout: Microsoft's Virtual Hard Disk Image Format Specification. Big-endian.

use crate::Source;
use crate::bytes::{Bytes, find_in_table, human, name, oversized, read_up_to, words32};
use crate::detect::Report;
use crate::facts::Facts;

const MAGIC: &[u8] = b"conectix";
const FOOTER: usize = 512;
const HEADER: usize = 1024;
/// Most sectors of a disk, 2040 GiB (the specification's bound).
const SECTORS: u64 = 0xff00_0000;
/// Sectors of the largest geometry: a disk of more has its size in bytes alone.
const GEOMETRY: u64 = 65_535 * 16 * 255;
/// Writers whose size in bytes counts; with all others the geometry does, as it does for QEMU.
const BY_BYTES: [&[u8]; 5] = [b"win ", b"qem2", b"d2v ", b"tap\0", b"CTXS"];

/// # Errors
/// Those of the source.
pub(crate) fn report(head: &[u8], tail: &[u8], source: &dyn Source) -> std::io::Result<Report> {
    let grows = head.starts_with(MAGIC);
    let footer = Bytes(if grows { head } else { tail });
    let (Some(kind), Some(virtual_size)) = (footer.be32(60), disk_bytes(footer)) else {
        return Ok(Report::problem("ends inside its header: the upload is truncated"));
    };
    let facts = Facts { subformat: subformat(kind).map(str::to_owned), ..Facts::default() };
    let mut report = Report { virtual_size, facts, problems: Vec::new() };
    if footer.slice(0, FOOTER).is_none_or(|footer| !sum_holds(footer, 64)) {
        report.problems.push("is corrupt: the checksum of its footer is wrong".to_owned());
    }
    if virtual_size > SECTORS * 512 {
        report.problems.push(format!("has a disk of {}; at most 2040 GiB are valid", human(virtual_size)));
    }
    report.problems.extend(oversized(virtual_size));
    if grows && !tail.starts_with(MAGIC) {
        report.problems.push("is truncated: it has no footer at its end".to_owned());
    } else if grows && !same_disk(head, tail) {
        report.problems.push("is ambiguous: the footers at its start and at its end are of different disks".to_owned());
    }
    match (kind, grows) {
        (2, false) if virtual_size > source.size_bytes().saturating_sub(FOOTER as u64) => {
            report.problems.push("is truncated: it is shorter than the disk that it holds".to_owned());
        }
        (2, false) => {}
        (3 | 4, true) => dynamic(kind, footer, source, &mut report)?,
        (2..=4, _) => {
            report.problems.push(format!("is ambiguous: its kind is {kind}, and its footer stands elsewhere"))
        }
        _ => report.problems.push(format!("is of the unknown kind {kind}")),
    }
    if kind == 4 {
        report
            .problems
            .push("is a difference to another disk, and an image must be one self-contained file".to_owned());
    }
    Ok(report)
}

fn subformat(kind: u32) -> Option<&'static str> {
    Some(match kind {
        2 => "fixed",
        3 => "dynamic",
        4 => "differencing",
        _ => return None,
    })
}

/// Bytes of the disk as QEMU takes them.
fn disk_bytes(footer: Bytes<'_>) -> Option<u64> {
    let by_geometry = u64::from(footer.be16(56)?) * u64::from(footer.u8(58)?) * u64::from(footer.u8(59)?);
    let by_bytes = footer.slice(28, 4).is_some_and(|creator| BY_BYTES.contains(&creator));
    if by_bytes || by_geometry == GEOMETRY {
        return Some(footer.be64(48)? / 512 * 512);
    }
    Some(by_geometry * 512)
}

/// The complement of the sum of all bytes but the sum's own.
#[allow(unexpected_cfgs)]
fn sum_holds(bytes: &[u8], at: usize) -> bool {
    let counted = bytes.iter().enumerate().filter(|(n, _)| !(at..at + 4).contains(n));
    let sum = counted.fold(0u32, |sum, (_, byte)| sum.wrapping_add((*byte).into()));
    // A fuzzer would seldom get behind them.
    cfg!(fuzzing) || Bytes(bytes).be32(at) == Some(!sum)
}

/// Whether both footers tell the same disk; saved state and times may differ.
fn same_disk(head: &[u8], tail: &[u8]) -> bool {
    let fields = |footer| (Bytes(footer).slice(12, 12), Bytes(footer).slice(28, 4), Bytes(footer).slice(40, 24));
    fields(head) == fields(tail)
}

/// The header of a disk that grows, its table, and what a difference is to.
fn dynamic(kind: u32, footer: Bytes<'_>, source: &dyn Source, report: &mut Report) -> std::io::Result<()> {
    let end = source.size_bytes();
    let offset = footer.be64(16).unwrap_or(u64::MAX);
    let header = read_up_to(source, offset, HEADER)?;
    if header.len() < HEADER || !header.starts_with(b"cxsparse") {
        report.problems.push("is truncated or corrupt: it has no header of a dynamic disk".to_owned());
        return Ok(());
    }
    let bytes = Bytes(&header);
    let (table, entries, block) = (bytes.be64(16), bytes.be32(28).unwrap_or(0), bytes.be32(32).unwrap_or(0));
    report.facts.cluster_size = Some(block.into());
    if !sum_holds(&header, 36) {
        report.problems.push("is corrupt: the checksum of its header is wrong".to_owned());
    }
    parent(kind, bytes, report);
    if !block.is_power_of_two() || block < 512 {
        report.problems.push(format!("has blocks of {block} bytes; powers of two from 512 on are valid"));
        return Ok(());
    }
    if u64::from(entries) < report.virtual_size.div_ceil(block.into()) {
        let size = human(report.virtual_size);
        report.problems.push(format!("is corrupt: its table has {entries} blocks for a disk of {size}"));
    }
    let table_bytes = u64::from(entries) * 4;
    let table = table.filter(|at| at.checked_add(table_bytes).is_some_and(|last| last <= end));
    let beyond = || format!("is truncated or corrupt: its blocks lie beyond its end at {end} bytes");
    let Some(at) = table else {
        report.problems.push(beyond());
        return Ok(());
    };
    // Each block has its bitmap of sectors before it.
    let bitmap = (u64::from(block) / 512).div_ceil(8).next_multiple_of(512);
    let ends = |place: u32| u64::from(place) * 512 + bitmap + u64::from(block);
    let found = find_in_table(source, at, table_bytes, |table| {
        words32(table, u32::from_be_bytes).any(|place| place != u32::MAX && ends(place) > end).then_some(())
    })?;
    if found.is_some() {
        report.problems.push(beyond());
    }
    Ok(())
}

/// The name of the parent, UTF-16, and the eight places where further names may stand.
fn parent(kind: u32, header: Bytes<'_>, report: &mut Report) {
    let wide = header.slice(64, 512).unwrap_or_default();
    let letters = wide.chunks_exact(2).map(|pair| u16::from_be_bytes(pair.try_into().unwrap_or_default()));
    let text: String = char::decode_utf16(letters.take_while(|unit| *unit != 0)).flatten().collect();
    if !text.is_empty() {
        report.facts.backing_file = Some(name(text.as_bytes()));
    }
    let located = (0..8).any(|n| header.be32(576 + 24 * n).is_some_and(|platform| platform != 0));
    if kind != 4 && (located || wide.iter().any(|byte| *byte != 0)) {
        report.problems.push("names a parent disk, and an image must be one self-contained file".to_owned());
    }
}
