//! What a file is, by what stands in it.

use crate::bytes::{Bytes, read_up_to};
use crate::decide::{self, Decision, Limits};
use crate::facts::Facts;
use crate::{HEAD_BYTES, Source, iso, luks, parallels, partition, qcow2, vdi, vhd, vhdx, vmdk};

/// A format that a file can be recognised as.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Format {
    /// Nothing that is recognised: bytes that a guest sees as they are.
    Raw,
    Qcow2,
    Qcow1,
    Qed,
    Vmdk,
    Vdi,
    Vhd,
    Vhdx,
    /// ISO 9660 or UDF.
    Iso,
    Luks,
    Parallels,
    Bochs,
    Dmg,
    Gzip,
    Xz,
    Zstd,
    Bzip2,
    Lz4,
    Zip,
    SevenZip,
    Tar,
}

impl Format {
    /// The name for messages.
    pub fn name(self) -> &'static str {
        match self {
            Format::Raw => "raw",
            Format::Qcow2 => "qcow2",
            Format::Qcow1 => "qcow (version 1)",
            Format::Qed => "QED",
            Format::Vmdk => "VMDK",
            Format::Vdi => "VDI",
            Format::Vhd => "VHD",
            Format::Vhdx => "VHDX",
            Format::Iso => "ISO 9660/UDF",
            Format::Luks => "LUKS",
            Format::Parallels => "Parallels",
            Format::Bochs => "Bochs",
            Format::Dmg => "Apple DMG",
            Format::Gzip => "gzip",
            Format::Xz => "xz",
            Format::Zstd => "zstd",
            Format::Bzip2 => "bzip2",
            Format::Lz4 => "LZ4",
            Format::Zip => "ZIP",
            Format::SevenZip => "7-Zip",
            Format::Tar => "tar",
        }
    }

    /// The `disk_format` that is right for such a file, where there is one.
    pub fn disk_format(self) -> Option<&'static str> {
        Some(match self {
            Format::Raw => "raw",
            Format::Qcow2 => "qcow2",
            Format::Vmdk => "vmdk",
            Format::Vdi => "vdi",
            Format::Vhd => "vhd",
            Format::Vhdx => "vhdx",
            Format::Iso => "iso",
            Format::Parallels => "ploop",
            _ => return None,
        })
    }

    /// QEMU's name for it; `raw` for what QEMU knows as bytes.
    pub fn driver(self) -> &'static str {
        match self {
            Format::Qcow2 => "qcow2",
            Format::Qcow1 => "qcow",
            Format::Qed => "qed",
            Format::Vmdk => "vmdk",
            Format::Vdi => "vdi",
            Format::Vhd => "vpc",
            Format::Vhdx => "vhdx",
            Format::Luks => "luks",
            Format::Parallels => "parallels",
            Format::Bochs => "bochs",
            Format::Dmg => "dmg",
            _ => "raw",
        }
    }

    /// Something packed that has to be unpacked first.
    pub fn is_packed(self) -> bool {
        use Format::*;
        matches!(self, Gzip | Xz | Zstd | Bzip2 | Lz4 | Zip | SevenZip | Tar)
    }
}

/// What a raw disk begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Layout {
    /// A GPT behind a protective MBR.
    Gpt,
    Mbr,
    /// A GPT, and an MBR that has partitions of its own beside the protective one.
    HybridMbr,
    /// A boot signature without a partition.
    BootSector,
    FileSystem,
    Unknown,
}

/// What [`examine`] found in a whole file.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Findings {
    /// Every format whose mark the file bears; never empty. More than one is a file that means different things to
    /// different readers.
    pub formats: Vec<Format>,
    pub layout: Layout,
    /// Bytes of the file.
    pub size_bytes: u64,
    /// Bytes of the disk that a guest would see; 0 when that is unknown.
    pub virtual_size: u64,
    #[serde(default)]
    pub facts: Facts,
    /// Why a file of this format may not be used: each a clause that goes on "the file …".
    pub problems: Vec<String>,
}

impl Findings {
    fn new(formats: Vec<Format>, head: &[u8], size_bytes: u64, report: Report) -> Findings {
        let layout = partition::layout(head);
        let mut problems = report.problems;
        // A fixed VHD is a raw disk with a footer, and an ISO that boots from a stick has a table before its volume.
        let may_have_table = matches!(formats.as_slice(), [Format::Raw | Format::Iso | Format::Vhd, ..]);
        if partition::is_table(layout) && (!may_have_table || head.starts_with(b"conectix")) {
            problems.push("begins with a partition table as well, and would be another disk to other readers".into());
        }
        let Report { virtual_size, facts, .. } = report;
        Findings { formats, layout, size_bytes, virtual_size, facts, problems }
    }

    /// The format, when there is exactly one; a bootable ISO with a partition table is an ISO.
    pub fn format(&self) -> Option<Format> {
        match self.formats.as_slice() {
            [one] => Some(*one),
            _ => None,
        }
    }
}

/// What one format's parser reports.
#[derive(Default)]
pub(crate) struct Report {
    pub virtual_size: u64,
    pub facts: Facts,
    pub problems: Vec<String>,
}

impl Report {
    pub fn problem(text: impl Into<String>) -> Report {
        Report { problems: vec![text.into()], ..Report::default() }
    }
}

/// Formats whose mark is in the first [`HEAD_BYTES`] or in the last 512 bytes.
fn formats(head: &[u8], tail: &[u8]) -> Vec<Format> {
    let bytes = Bytes(head);
    let mut found = Vec::new();
    for (format, offset, magic) in MARKS {
        if bytes.starts_at(*offset, magic) && !found.contains(format) {
            found.push(*format);
        }
    }
    if bytes.starts_at(0, b"QFI\xfb") {
        found.push(if bytes.be32(4) == Some(1) { Format::Qcow1 } else { Format::Qcow2 });
    }
    if bytes.starts_at(0, b"BZh") && bytes.slice(4, 6) == Some(b"1AY&SY") {
        found.push(Format::Bzip2);
    }
    if bytes.starts_at(0, b"\x1f\x8b\x08") && bytes.u8(3).is_some_and(|flags| flags < 0x20) {
        found.push(Format::Gzip);
    }
    if !found.contains(&Format::Vmdk) && vmdk::is_descriptor(head) {
        found.push(Format::Vmdk);
    }
    if iso::is_iso(head) {
        found.push(Format::Iso);
    }
    if tail.starts_with(b"conectix") && !found.contains(&Format::Vhd) {
        found.push(Format::Vhd);
    }
    if tail.starts_with(b"koly") {
        found.push(Format::Dmg);
    }
    found
}

/// Marks at fixed places. Long enough that random bytes do not bear them.
const MARKS: &[(Format, usize, &[u8])] = &[
    (Format::Qed, 0, b"QED\0"),
    (Format::Vmdk, 0, b"KDMV"),
    (Format::Vmdk, 0, b"COWD"),
    (Format::Vdi, 0x40, b"\x7f\x10\xda\xbe"),
    (Format::Vhd, 0, b"conectix"),
    (Format::Vhdx, 0, b"vhdxfile"),
    (Format::Luks, 0, b"LUKS\xba\xbe"),
    (Format::Luks, 0, b"SKUL\xba\xbe"),
    (Format::Parallels, 0, b"WithoutFreeSpace"),
    (Format::Parallels, 0, b"WithouFreSpacExt"),
    (Format::Bochs, 0, b"Bochs Virtual HD Image"),
    (Format::Xz, 0, b"\xfd7zXZ\0"),
    (Format::Zstd, 0, b"\x28\xb5\x2f\xfd"),
    (Format::Lz4, 0, b"\x04\x22\x4d\x18"),
    (Format::Zip, 0, b"PK\x03\x04"),
    (Format::SevenZip, 0, b"7z\xbc\xaf\x27\x1c"),
    (Format::Tar, 257, b"ustar"),
];

/// Looks at a whole file: marks at both ends, then the tables of the format found. Reads at most the tables, each once.
///
/// # Errors
/// Only what the source's own reading raises; anything wrong with the bytes is a finding.
pub fn examine(source: &dyn Source) -> std::io::Result<Findings> {
    let size_bytes = source.size_bytes();
    let head = read_up_to(source, 0, HEAD_BYTES)?;
    let tail = if size_bytes >= 512 { read_up_to(source, size_bytes - 512, 512)? } else { Vec::new() };
    let mut formats = formats(&head, &tail);
    if formats.is_empty() {
        formats.push(Format::Raw);
    }
    let report = report(&formats, &head, &tail, source)?;
    Ok(Findings::new(formats, &head, size_bytes, report))
}

fn report(formats: &[Format], head: &[u8], tail: &[u8], source: &dyn Source) -> std::io::Result<Report> {
    let [format] = formats else { return Ok(Report::default()) };
    Ok(match format {
        Format::Raw => Report { virtual_size: source.size_bytes(), ..Report::default() },
        Format::Qcow2 => qcow2::report(head, Some(source))?,
        Format::Vmdk => vmdk::report(head, Some(source))?,
        Format::Vhdx => vhdx::report(source)?,
        Format::Vdi => vdi::report(head, Some(source))?,
        Format::Vhd => vhd::report(head, tail, source)?,
        Format::Parallels => parallels::report(head, Some(source))?,
        Format::Luks => luks::report(head, source)?,
        Format::Iso => iso::report(head, source.size_bytes()),
        _ => Report::default(),
    })
}

/// Watches a stream while it is uploaded. Keeps the first [`HEAD_BYTES`] and nothing else.
#[derive(Default)]
pub struct Glimpse {
    head: Vec<u8>,
    told: bool,
}

impl Glimpse {
    pub fn new() -> Glimpse {
        Glimpse::default()
    }

    /// Takes the next bytes of the stream. Returns a reason, at most once, as soon as the beginning shows that the
    /// file cannot be accepted, so that a wrong file of a hundred gigabytes ends after the first of them. Silence is
    /// no consent: [`examine`] decides.
    pub fn push(&mut self, bytes: &[u8], disk_format: &str, container_format: &str, limits: &Limits) -> Option<String> {
        if self.told {
            return None;
        }
        let room = HEAD_BYTES - self.head.len();
        self.head.extend_from_slice(&bytes[..bytes.len().min(room)]);
        if self.head.len() < HEAD_BYTES {
            return None;
        }
        self.told = true;
        let reason = self.verdict(disk_format, container_format, limits);
        self.head = Vec::new();
        reason
    }

    fn verdict(&self, disk_format: &str, container_format: &str, limits: &Limits) -> Option<String> {
        let mut formats = formats(&self.head, &[]);
        // The end of the file can still make it a VHD or a DMG, so that "raw" is not known yet.
        if formats.is_empty() && disk_format != "qcow2" {
            return None;
        }
        if formats.is_empty() {
            formats.push(Format::Raw);
        }
        let report = match formats.as_slice() {
            [Format::Qcow2] => qcow2::report(&self.head, None),
            [Format::Vmdk] => vmdk::report(&self.head, None),
            [Format::Vdi] => vdi::report(&self.head, None),
            [Format::Parallels] => parallels::report(&self.head, None),
            _ => Ok(Report::default()),
        };
        let report = report.unwrap_or_default();
        let findings = Findings::new(formats, &self.head, HEAD_BYTES as u64, report);
        match decide::decide(disk_format, container_format, &findings, limits) {
            Decision::Accept(_) => None,
            Decision::Refuse(reason) => Some(reason),
        }
    }
}
