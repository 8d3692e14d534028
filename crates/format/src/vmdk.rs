//! VMDK: a text descriptor, alone or inside a sparse file.
//!
//! A descriptor names its extents, and an extent may be any path of the host. Only the two single-file kinds are
//! accepted, with every extent in the file itself.

use crate::Source;
use crate::bytes::{Bytes, printable, read_up_to};
use crate::detect::Report;

/// Most bytes of a descriptor; VMware writes a few hundred.
const DESCRIPTOR_BYTES: usize = 64 * 1024;
/// The kinds of `createType` whose extents are the file itself.
const SINGLE_FILE: [&str; 2] = ["monolithicsparse", "streamoptimized"];

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

/// # Errors
/// Those of the source.
pub(crate) fn report(head: &[u8], source: &dyn Source) -> std::io::Result<Report> {
    let bytes = Bytes(head);
    if bytes.starts_at(0, b"COWD") {
        return Ok(Report::problem(
            "is an ESX copy-on-write extent and no disk of its own: convert it to raw or qcow2",
        ));
    }
    if !bytes.starts_at(0, b"KDMV") {
        return Ok(Report::problem(
            "is a bare descriptor that names other files, and an image must be one self-contained file: convert it \
             to raw or qcow2",
        ));
    }
    let fields = (bytes.le32(4), bytes.le64(12), bytes.le64(28), bytes.le64(36));
    let (Some(version), Some(sectors), Some(descriptor_sector), Some(descriptor_sectors)) = fields else {
        return Ok(Report::problem("ends inside its header: the upload is truncated"));
    };
    if !(1..=3).contains(&version) {
        return Ok(Report::problem(format!("has version {version}; versions 1 to 3 are supported")));
    }
    let mut report = Report { virtual_size: sectors.saturating_mul(512), problems: Vec::new() };
    if sectors == 0 {
        // QEMU then reads the embedded descriptor as one that stands alone and opens the files that it names.
        report.problems.push("has no capacity of its own".to_owned());
    }
    if descriptor_sector == 0 || descriptor_sectors == 0 {
        report.problems.push("has no descriptor".to_owned());
        return Ok(report);
    }
    let offset = descriptor_sector.saturating_mul(512);
    if offset >= source.size_bytes() {
        report.problems.push("is truncated: its descriptor lies beyond its end".to_owned());
        return Ok(report);
    }
    let length = usize::try_from(descriptor_sectors.saturating_mul(512)).unwrap_or(usize::MAX).min(DESCRIPTOR_BYTES);
    let text = read_up_to(source, offset, length)?;
    report.problems.extend(descriptor(&text));
    Ok(report)
}

fn descriptor(text: &[u8]) -> Vec<String> {
    let text = &text[..text.iter().position(|byte| *byte == 0).unwrap_or(text.len())];
    let mut create_type = String::new();
    let mut extents = 0;
    let mut problems = Vec::new();
    for line in text.split(|byte| *byte == b'\n') {
        let line = printable_line(line);
        if let Some((key, value)) = line.split_once('=') {
            let value = value.trim().trim_matches('"').to_ascii_lowercase();
            match key.trim().to_ascii_lowercase().as_str() {
                "createtype" => create_type = value,
                "parentcid" if value != "ffffffff" => problems.push("has a parent disk".to_owned()),
                "parentfilenamehint" => problems.push("names a parent disk".to_owned()),
                _ => {}
            }
        } else if let Some(problem) = extent(&line) {
            extents += 1;
            problems.extend(problem);
        }
    }
    if !SINGLE_FILE.contains(&create_type.as_str()) {
        problems.push(format!(
            "is of the kind '{}'; monolithicSparse and streamOptimized are supported",
            printable(create_type.as_bytes())
        ));
    }
    if extents != 1 {
        problems.push(format!("has {extents} extents; it must have exactly one"));
    }
    problems
}

/// For an extent line (`RW 4192256 SPARSE "disk.vmdk"`): its problem, if it has one.
fn extent(line: &str) -> Option<Option<String>> {
    let mut words = line.split_ascii_whitespace();
    if !matches!(words.next(), Some("RW" | "RDONLY" | "NOACCESS")) {
        return None;
    }
    let name = line.split('"').nth(1).unwrap_or_default();
    Some(
        (name.is_empty() || name.contains(['/', '\\']))
            .then(|| format!("has an extent in another place ('{}')", printable(name.as_bytes()))),
    )
}

fn printable_line(line: &[u8]) -> String {
    String::from_utf8_lossy(&line[..line.len().min(1024)]).trim().to_owned()
}
