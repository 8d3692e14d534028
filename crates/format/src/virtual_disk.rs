//! The formats whose header says all: VDI, VHD, ISO 9660 and UDF.

use crate::bytes::Bytes;
use crate::detect::Report;

/// VirtualBox: little-endian, version 1.1.
pub(crate) fn vdi(head: &[u8], size_bytes: u64) -> Report {
    let head = Bytes(head);
    let fields = (head.le32(0x44), head.le32(0x4c), head.le32(0x154), head.le32(0x158), head.le64(0x170));
    let (Some(version), Some(kind), Some(map), Some(data), Some(virtual_size)) = fields else {
        return Report::problem("ends inside its header: the upload is truncated");
    };
    let mut report = Report { virtual_size, problems: Vec::new() };
    if version >> 16 != 1 {
        report.problems.push(format!("has version {}; version 1 is supported", version >> 16));
    }
    if !matches!(kind, 1 | 2) {
        report.problems.push(format!("is of the kind {kind} (a difference to another disk); 1 and 2 are supported"));
    }
    if u64::from(map) > size_bytes || u64::from(data) > size_bytes {
        report.problems.push("is truncated: its tables lie beyond its end".to_owned());
    }
    report
}

/// Virtual PC: a footer of 512 bytes at the end, and a copy of it at the start of dynamic disks.
pub(crate) fn vhd(head: &[u8], tail: &[u8], size_bytes: u64) -> Report {
    let dynamic = head.starts_with(b"conectix");
    let footer = Bytes(if dynamic { head } else { tail });
    let (Some(virtual_size), Some(kind)) = (footer.be64(48), footer.be32(60)) else {
        return Report::problem("ends inside its header: the upload is truncated");
    };
    let mut report = Report { virtual_size, problems: Vec::new() };
    match kind {
        2 if virtual_size > size_bytes => {
            report.problems.push("is truncated: it is shorter than the disk that it holds".to_owned());
        }
        2 | 3 => {}
        4 => report.problems.push("is a difference to another disk, and an image must be self-contained".to_owned()),
        other => report.problems.push(format!("is of the unknown kind {other}")),
    }
    if dynamic && !tail.starts_with(b"conectix") {
        report.problems.push("is truncated: it has no footer at its end".to_owned());
    }
    report
}

const SECTOR: usize = 2048;

/// True when one of the volume descriptors that begin at sector 16 is of ISO 9660 or of UDF.
pub(crate) fn is_iso(head: &[u8]) -> bool {
    let bytes = Bytes(head);
    (16..32).any(|sector| [&b"CD001"[..], b"NSR02", b"NSR03"].iter().any(|id| bytes.starts_at(sector * SECTOR + 1, id)))
}

/// The size of the volume as its primary descriptor says. Trailing bytes are common; missing ones are not.
pub(crate) fn iso(head: &[u8], size_bytes: u64) -> Report {
    let bytes = Bytes(head);
    let primary = (16..32).map(|sector| sector * SECTOR).find(|at| bytes.starts_at(*at, b"\x01CD001"));
    let Some(at) = primary else {
        return Report { virtual_size: size_bytes, problems: Vec::new() };
    };
    let (Some(blocks), Some(block_bytes)) = (bytes.le32(at + 80), bytes.le16(at + 128)) else {
        return Report::problem("ends inside its volume descriptor: the upload is truncated");
    };
    let volume = u64::from(blocks) * u64::from(block_bytes);
    let mut report = Report { virtual_size: volume, problems: Vec::new() };
    if volume > size_bytes {
        report.problems.push(format!("is truncated: it has {size_bytes} bytes of a volume of {volume}"));
    }
    report
}
