//! VMDK: a text descriptor, alone or inside a sparse file.
//!
//! Layout: VMware's Virtual Disk Format 1.1. Little-endian. A descriptor names its extents, and an extent may be any
//! path of the host. Only the two single-file kinds are accepted, with every extent in the file itself.

use crate::Source;
use crate::bytes::{Bytes, find_in_table, human, name, oversized, printable, read_up_to, words32};
use crate::detect::Report;
use crate::facts::Facts;

/// Most bytes of a descriptor; VMware writes a few hundred.
const DESCRIPTOR_BYTES: usize = 64 * 1024;
/// Where QEMU looks for a parent's name in a sparse file, whatever the header says of the descriptor.
const DESCRIPTOR_AT: u64 = 512;
/// The kinds of `createType` whose extents are the file itself.
const SINGLE_FILE: [&str; 2] = ["monolithicsparse", "streamoptimized"];
/// Extents that are told.
const EXTENTS: usize = 16;
/// "The grain directory is told by the copy of the header at the end."
const AT_END: u64 = u64::MAX;
/// The footer: a marker, the header once more, the marker of the end.
const FOOTER_BYTES: u64 = 1536;
/// Bounds of QEMU: entries of a grain table, sectors of a grain.
const TABLE_ENTRIES: u32 = 512;
const GRAIN_SECTORS: u64 = 0x20_0000;
/// Entries of the grain directory: 128 TiB in grains as they usually are.
const DIRECTORY_ENTRIES: u64 = 4 << 20;

/// True for a descriptor that stands alone, as QEMU recognises one: after comments and blank lines comes `version=N`.
pub(crate) fn is_descriptor(head: &[u8]) -> bool {
    let mut seen_comment = false;
    for line in head[..head.len().min(4096)].split(|byte| *byte == b'\n') {
        let line = line.trim_ascii();
        if line.starts_with(b"# Disk DescriptorFile") {
            return true;
        }
        if line.is_empty() || line.starts_with(b"#") {
            seen_comment = true;
            continue;
        }
        return seen_comment && line.to_ascii_lowercase().starts_with(b"version=");
    }
    false
}

#[derive(PartialEq)]
struct Header {
    version: u32,
    sectors: u64,
    grain_sectors: u64,
    descriptor_at: u64,
    descriptor_sectors: u64,
    table_entries: u32,
    directory_at: u64,
    grains_at: u64,
    compression: u16,
}

fn parse(bytes: Bytes<'_>) -> Option<Header> {
    Some(Header {
        version: bytes.le32(4)?,
        sectors: bytes.le64(12)?,
        grain_sectors: bytes.le64(20)?,
        descriptor_at: bytes.le64(28)?,
        descriptor_sectors: bytes.le64(36)?,
        table_entries: bytes.le32(44)?,
        directory_at: bytes.le64(56)?,
        grains_at: bytes.le64(64)?,
        compression: bytes.le16(77)?,
    })
}

/// Checks header and descriptor, and the tables where the whole file is at hand.
///
/// # Errors
/// Those of the source.
pub(crate) fn report(head: &[u8], source: Option<&dyn Source>) -> std::io::Result<Report> {
    let bytes = Bytes(head);
    if bytes.starts_at(0, b"COWD") {
        return Ok(esx(bytes));
    }
    if !bytes.starts_at(0, b"KDMV") {
        return Ok(bare(head));
    }
    let Some(header) = parse(bytes) else {
        return Ok(Report::problem("ends inside its header: the upload is truncated"));
    };
    if !(1..=3).contains(&header.version) {
        return Ok(Report::problem(format!("has version {}; versions 1 to 3 are supported", header.version)));
    }
    let virtual_size = header.sectors.saturating_mul(512);
    let facts = Facts {
        cluster_size: Some(header.grain_sectors.saturating_mul(512)),
        compression: (header.compression == 1).then(|| "deflate".to_owned()),
        ..Facts::default()
    };
    let mut report = Report { virtual_size, facts, problems: Vec::new() };
    report.problems.extend(oversized(virtual_size));
    if header.sectors == 0 {
        // QEMU then reads the embedded descriptor as one that stands alone and opens the files that it names.
        report.problems.push("has no capacity of its own".to_owned());
    }
    let Some(source) = source else {
        let whole = header.descriptor_at == 1 && header.descriptor_sectors < head.len() as u64 / 512;
        if whole {
            embedded(&header, &head, &mut report)?;
        }
        return Ok(report);
    };
    embedded(&header, source, &mut report)?;
    if report.problems.is_empty() {
        report.problems.extend(grains(header, source)?);
    }
    Ok(report)
}

/// An extent of ESX: its size is told, and no more.
fn esx(bytes: Bytes<'_>) -> Report {
    let (sectors, grain) = (bytes.le32(12).unwrap_or(0), bytes.le32(16).unwrap_or(0));
    let facts = Facts {
        subformat: Some("vmfsSparse".to_owned()),
        cluster_size: Some(u64::from(grain) * 512),
        ..Facts::default()
    };
    let problem = "is an ESX copy-on-write extent and no disk of its own: convert it to raw or qcow2".to_owned();
    Report { virtual_size: u64::from(sectors) * 512, facts, problems: vec![problem] }
}

/// A descriptor that stands alone: what it names is told.
fn bare(head: &[u8]) -> Report {
    let descriptor = Descriptor::parse(head);
    let problem = "is a bare descriptor that names other files, and an image must be one self-contained file: convert \
                   it to raw or qcow2";
    let virtual_size = descriptor.sectors.saturating_mul(512);
    let mut facts = Facts::default();
    descriptor.tell(&mut facts);
    facts.extents = descriptor.extents;
    Report { virtual_size, facts, problems: vec![problem.to_owned()] }
}

/// The descriptor inside a sparse file.
fn embedded(header: &Header, source: &dyn Source, report: &mut Report) -> std::io::Result<()> {
    if header.descriptor_at == 0 || header.descriptor_sectors == 0 {
        report.problems.push("has no descriptor".to_owned());
        return Ok(());
    }
    let offset = header.descriptor_at.saturating_mul(512);
    if offset >= source.size_bytes() {
        report.problems.push("is truncated: its descriptor lies beyond its end".to_owned());
        return Ok(());
    }
    let length = header.descriptor_sectors.saturating_mul(512);
    let length = usize::try_from(length).unwrap_or(usize::MAX).min(DESCRIPTOR_BYTES);
    let text = read_up_to(source, offset, length)?;
    let descriptor = Descriptor::parse(&text);
    report.problems.extend(descriptor.problems());
    descriptor.tell(&mut report.facts);
    // Some writers tell whole grains in the header and the disk alone in the descriptor.
    let rounding = header.sectors.checked_sub(descriptor.sectors);
    if descriptor.count == 1 && rounding.is_none_or(|sectors| sectors >= header.grain_sectors.max(1)) {
        let (sectors, told) = (header.sectors, descriptor.sectors);
        report.problems.push(format!("is ambiguous: its header tells {sectors} sectors and its descriptor {told}"));
    }
    if offset != DESCRIPTOR_AT {
        report.problems.push("has its descriptor in another place than right behind its header".to_owned());
    }
    if names_parent(&text) || names_parent(&read_up_to(source, DESCRIPTOR_AT, DESCRIPTOR_BYTES)?) {
        report.problems.push("names a parent disk".to_owned());
    }
    Ok(())
}

/// QEMU takes the name of a parent from anywhere in the text, in a comment as well.
fn names_parent(text: &[u8]) -> bool {
    text.windows(18).any(|window| window.eq_ignore_ascii_case(b"parentFileNameHint"))
}

/// What a descriptor says.
#[derive(Default)]
struct Descriptor {
    create_type: String,
    parent_cid: String,
    parent: Option<String>,
    /// All that are told of, at most [`EXTENTS`].
    extents: Vec<String>,
    count: usize,
    sectors: u64,
}

impl Descriptor {
    fn parse(text: &[u8]) -> Descriptor {
        let text = &text[..text.iter().position(|byte| *byte == 0).unwrap_or(text.len())];
        let mut found = Descriptor::default();
        for line in text.split(|byte| *byte == b'\n') {
            let line = printable_line(line);
            if let Some(extent) = extent(&line) {
                found.count += 1;
                found.sectors = found.sectors.saturating_add(extent.0);
                if found.extents.len() < EXTENTS {
                    found.extents.push(name(extent.1.as_bytes()));
                }
            } else if let Some((key, value)) = line.split_once('=') {
                let value = value.trim().trim_matches('"').to_owned();
                match key.trim().to_ascii_lowercase().as_str() {
                    "createtype" => found.create_type = value,
                    "parentcid" => found.parent_cid = value,
                    "parentfilenamehint" => found.parent = Some(name(value.as_bytes())),
                    _ => {}
                }
            }
        }
        found
    }

    fn tell(&self, facts: &mut Facts) {
        facts.subformat = Some(name(self.create_type.as_bytes()));
        facts.backing_file.clone_from(&self.parent);
    }

    fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        if !self.parent_cid.is_empty() && !self.parent_cid.eq_ignore_ascii_case("ffffffff") {
            problems.push("has a parent disk".to_owned());
        }
        for extent in self.extents.iter().filter(|name| name.is_empty() || name.contains(['/', '\\', ':'])) {
            problems.push(format!("has an extent in another place ('{}')", printable(extent.as_bytes())));
        }
        if !SINGLE_FILE.contains(&self.create_type.to_ascii_lowercase().as_str()) {
            problems.push(format!(
                "is of the kind '{}'; monolithicSparse and streamOptimized are supported",
                printable(self.create_type.as_bytes())
            ));
        }
        if self.count != 1 {
            problems.push(format!("has {} extents; it must have exactly one", self.count));
        }
        problems
    }
}

/// Sectors and name of an extent line (`RW 4192256 SPARSE "disk.vmdk"`).
fn extent(line: &str) -> Option<(u64, &str)> {
    let mut words = line.split_ascii_whitespace();
    if !matches!(words.next(), Some("RW" | "RDONLY" | "NOACCESS")) {
        return None;
    }
    let sectors = words.next().and_then(|word| word.parse().ok()).unwrap_or(0);
    Some((sectors, line.split('"').nth(1).unwrap_or_default()))
}

fn printable_line(line: &[u8]) -> String {
    String::from_utf8_lossy(&line[..line.len().min(1024)]).trim().to_owned()
}

/// Follows the grain directory to its tables and those to the grains: none may lie outside the file. Each table is
/// read once, so that the work is bounded by the file's own size.
fn grains(mut header: Header, source: &dyn Source) -> std::io::Result<Option<String>> {
    let end = source.size_bytes();
    let beyond = |what: &str| format!("is truncated or corrupt: its {what} beyond its end at {end} bytes");
    if header.directory_at == AT_END {
        match footer(&header, source)? {
            Ok(footer) => header = footer,
            Err(problem) => return Ok(Some(problem)),
        }
    }
    if header.table_entries == 0 || header.table_entries > TABLE_ENTRIES {
        return Ok(Some(format!("has grain tables of {} entries; 1 to 512 are valid", header.table_entries)));
    }
    if header.grain_sectors == 0 || header.grain_sectors > GRAIN_SECTORS {
        return Ok(Some(format!("has grains of {} sectors; 1 to {GRAIN_SECTORS} are valid", header.grain_sectors)));
    }
    if header.grains_at.checked_mul(512).is_none_or(|at| at > end) {
        return Ok(Some(beyond("grains lie")));
    }
    let entries = header.sectors.div_ceil(u64::from(header.table_entries) * header.grain_sectors);
    if entries > DIRECTORY_ENTRIES {
        return Ok(Some(format!("has a grain directory for a disk of {}", human(header.sectors.saturating_mul(512)))));
    }
    let directory = header.directory_at.checked_mul(512).filter(|at| *at > 0 && at.saturating_add(entries * 4) <= end);
    let Some(directory) = directory else { return Ok(Some(beyond("grain directory lies"))) };
    let mut tables = Vec::new();
    find_in_table(source, directory, entries * 4, |piece| {
        tables.extend(words32(piece, u32::from_le_bytes).filter(|sector| *sector != 0));
        None::<()>
    })?;
    tables.sort_unstable();
    tables.dedup();
    let table_bytes = u64::from(header.table_entries) * 4;
    for at in tables.into_iter().map(|sector| u64::from(sector) * 512) {
        if at + table_bytes > end {
            return Ok(Some(beyond("grain tables lie")));
        }
        let table = read_up_to(source, at, table_bytes as usize)?;
        // 0 is a grain that is not there, 1 one of zeroes.
        if words32(&table, u32::from_le_bytes).any(|sector| sector > 1 && u64::from(sector) * 512 >= end) {
            return Ok(Some(beyond("grains lie")));
        }
    }
    Ok(None)
}

/// The copy of the header at the end, which counts where the first one says so. Both must tell the same disk.
fn footer(header: &Header, source: &dyn Source) -> std::io::Result<Result<Header, String>> {
    let end = source.size_bytes() / 512 * 512;
    let bytes = read_up_to(source, end.saturating_sub(FOOTER_BYTES), FOOTER_BYTES as usize)?;
    let marker =
        |at: usize, kind: u32| Bytes(&bytes).le32(at + 8) == Some(0) && Bytes(&bytes).le32(at + 12) == Some(kind);
    let found = bytes.get(512..1024).filter(|copy| copy.starts_with(b"KDMV")).and_then(|copy| parse(Bytes(copy)));
    let Some(found) = found.filter(|_| marker(0, 3) && marker(1024, 0)) else {
        return Ok(Err("is truncated: it has no footer".to_owned()));
    };
    let differs = Header { directory_at: found.directory_at, ..*header } != found;
    Ok(if differs { Err("is ambiguous: its header and its footer differ".to_owned()) } else { Ok(found) })
}
