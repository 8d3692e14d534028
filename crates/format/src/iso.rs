//! ISO 9660 and UDF.

use crate::bytes::Bytes;
use crate::detect::Report;
use crate::facts::Facts;

const SECTOR: usize = 2048;

/// True when one of the volume descriptors that begin at sector 16 is of ISO 9660 or of UDF.
pub(crate) fn is_iso(head: &[u8]) -> bool {
    has_descriptor(head, &[b"CD001", b"NSR02", b"NSR03"])
}

fn has_descriptor(head: &[u8], ids: &[&[u8; 5]]) -> bool {
    (16..32).any(|sector| ids.iter().any(|id| Bytes(head).starts_at(sector * SECTOR + 1, *id)))
}

/// The size of the volume as its primary descriptor says. Trailing bytes are common; missing ones are not.
pub(crate) fn report(head: &[u8], size_bytes: u64) -> Report {
    let bytes = Bytes(head);
    let udf = has_descriptor(head, &[b"NSR02", b"NSR03"]);
    let primary = (16..32).map(|sector| sector * SECTOR).find(|at| bytes.starts_at(*at, b"\x01CD001"));
    let subformat = match primary {
        Some(_) if udf => "ISO 9660 and UDF",
        Some(_) => "ISO 9660",
        None => "UDF",
    };
    let facts = Facts { subformat: Some(subformat.to_owned()), ..Facts::default() };
    let Some(at) = primary else {
        return Report { virtual_size: size_bytes, facts, problems: Vec::new() };
    };
    let (Some(blocks), Some(block_bytes)) = (bytes.le32(at + 80), bytes.le16(at + 128)) else {
        return Report::problem("ends inside its volume descriptor: the upload is truncated");
    };
    let volume = u64::from(blocks) * u64::from(block_bytes);
    let mut report = Report { virtual_size: volume, facts, problems: Vec::new() };
    if volume > size_bytes {
        report.problems.push(format!("is truncated: it has {size_bytes} bytes of a volume of {volume}"));
    }
    report
}
