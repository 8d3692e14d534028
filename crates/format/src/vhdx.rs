//! VHDX: the region table leads to the metadata, which hold the size and whether there is a parent.
//!
//! Layout: Microsoft's MS-VHDX. Little-endian throughout.

use crate::Source;
use crate::bytes::{Bytes, read_up_to};
use crate::detect::Report;

const REGION_TABLES: [u64; 2] = [192 * 1024, 256 * 1024];
const TABLE_BYTES: usize = 64 * 1024;
const ENTRIES: usize = 2047;

// GUIDs as they lie in the file.
const METADATA_REGION: [u8; 16] = guid(0x8b7c_a206, 0x4790, 0x4b9a, 0xb8fe_575f_050f_886e);
const VIRTUAL_DISK_SIZE: [u8; 16] = guid(0x2fa5_4224, 0xcd1b, 0x4876, 0xb211_5dbe_d83b_f4b8);
const FILE_PARAMETERS: [u8; 16] = guid(0xcaa1_6737, 0xfa36, 0x4d43, 0xb3b6_33f0_aa44_e76b);

const fn guid(a: u32, b: u16, c: u16, d: u64) -> [u8; 16] {
    let (a, b, c, d) = (a.to_le_bytes(), b.to_le_bytes(), c.to_le_bytes(), d.to_be_bytes());
    [a[0], a[1], a[2], a[3], b[0], b[1], c[0], c[1], d[0], d[1], d[2], d[3], d[4], d[5], d[6], d[7]]
}

/// # Errors
/// Those of the source.
pub(crate) fn report(source: &dyn Source) -> std::io::Result<Report> {
    let mut metadata = None;
    for offset in REGION_TABLES {
        let table = read_up_to(source, offset, TABLE_BYTES)?;
        metadata = metadata.or(region(Bytes(&table)));
    }
    let Some(metadata) = metadata else {
        return Ok(Report::problem("is truncated or corrupt: it has no metadata region"));
    };
    let table = read_up_to(source, metadata, TABLE_BYTES)?;
    let table = Bytes(&table);
    let size = item(table, &VIRTUAL_DISK_SIZE).map(|at| read_up_to(source, metadata.saturating_add(at), 8));
    let parameters = item(table, &FILE_PARAMETERS).map(|at| read_up_to(source, metadata.saturating_add(at), 8));
    let size = size.transpose()?.and_then(|bytes| Bytes(&bytes).le64(0));
    let flags = parameters.transpose()?.and_then(|bytes| Bytes(&bytes).le32(4));
    let (Some(virtual_size), Some(flags)) = (size, flags) else {
        return Ok(Report::problem("is truncated or corrupt: its metadata lack the size of the disk"));
    };
    let mut report = Report { virtual_size, problems: Vec::new() };
    if flags & 2 != 0 {
        report
            .problems
            .push("is a differencing disk with a parent, and an image must be one self-contained file".into());
    }
    Ok(report)
}

fn region(table: Bytes<'_>) -> Option<u64> {
    if !table.starts_at(0, b"regi") {
        return None;
    }
    let entries = (table.le32(8)? as usize).min(ENTRIES);
    let at = (0..entries).map(|n| 16 + 32 * n).find(|at| table.starts_at(*at, &METADATA_REGION))?;
    table.le64(at + 16)
}

fn item(table: Bytes<'_>, id: &[u8; 16]) -> Option<u64> {
    if !table.starts_at(0, b"metadata") {
        return None;
    }
    let entries = usize::from(table.le16(10)?).min(ENTRIES);
    let at = (0..entries).map(|n| 32 + 32 * n).find(|at| table.starts_at(*at, id))?;
    table.le32(at + 16).map(u64::from)
}
