//! Whether a file may be taken for what it is called.
//!
//! Compared with OpenStack's own inspector (oslo.utils 10) over 28 files in 9 declared formats. Stricter: whatever bears
//! a known mark is refused as `raw`, where Glance warns and lets it through. Looser: a fixed VHD, whose mark is at its
//! end, extended L2 entries of qcow2, and a partition table in an `ami` or `aki` are known and accepted.

use crate::bytes::human;
use crate::detect::{Findings, Format, Layout};

/// Bounds that an operator sets.
#[derive(Clone, Debug)]
pub struct Limits {
    /// The most bytes of the disk that a guest would see, however small the file is.
    pub virtual_size: u64,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits { virtual_size: 1 << 40 }
    }
}

/// What an accepted file is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Accepted {
    pub format: Format,
    /// Bytes of the disk that a guest would see; none where the format has no such size or is not looked into.
    pub virtual_size: Option<u64>,
    pub layout: Layout,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    Accept(Accepted),
    /// A sentence or two for the user: what was found, and what would be right.
    Refuse(String),
}

/// Holds findings against the declared `disk_format` and `container_format` (Glance's words).
///
/// Containers other than `bare` are archives that nothing here boots from: they are taken as they are, with their
/// format noted.
pub fn decide(disk_format: &str, container_format: &str, findings: &Findings, limits: &Limits) -> Decision {
    if container_format != "bare" && !is_single_disk_container(container_format) {
        let format = findings.formats.first().copied().unwrap_or(Format::Raw);
        return Decision::Accept(Accepted { format, virtual_size: None, layout: findings.layout });
    }
    let Some(format) = findings.format() else {
        let names: Vec<&str> = findings.formats.iter().map(|format| format.name()).collect();
        return Decision::Refuse(format!(
            "The file bears the marks of several formats at once ({}); it must be exactly one.",
            names.join(", ")
        ));
    };
    if let Some(reason) = mismatch(disk_format, format) {
        return Decision::Refuse(reason);
    }
    if !findings.problems.is_empty() {
        return Decision::Refuse(format!("The {} file {}.", format.name(), findings.problems.join("; it ")));
    }
    if findings.virtual_size > limits.virtual_size {
        return Decision::Refuse(format!(
            "The {} file of {} unfolds to a disk of {}; at most {} are allowed.",
            format.name(),
            human(findings.size_bytes),
            human(findings.virtual_size),
            human(limits.virtual_size)
        ));
    }
    let virtual_size = if is_opaque(disk_format) { None } else { Some(findings.virtual_size).filter(|size| *size > 0) };
    Decision::Accept(Accepted { format, virtual_size, layout: findings.layout })
}

/// Amazon's containers hold one disk, kernel or ramdisk, not an archive.
fn is_single_disk_container(container_format: &str) -> bool {
    matches!(container_format, "ami" | "ari" | "aki")
}

/// Formats that name a role and not a layout of bytes.
fn is_opaque(disk_format: &str) -> bool {
    matches!(disk_format, "ami" | "ari" | "aki")
}

/// Why a file of `format` is not what `disk_format` says.
fn mismatch(disk_format: &str, format: Format) -> Option<String> {
    if is_opaque(disk_format) && (format == Format::Raw || format.is_packed()) {
        return None;
    }
    if format.disk_format() == Some(disk_format) {
        return None;
    }
    let advice = match (format.disk_format(), format.is_packed()) {
        (Some("raw"), _) => {
            format!("give a file that is {disk_format}, or set disk_format to 'raw' if its bytes are the disk itself")
        }
        (Some(right), _) => format!("set disk_format to '{right}', or convert the file to {disk_format}"),
        (None, true) => "unpack it before uploading it".to_owned(),
        (None, false) => "convert it to raw or qcow2 before uploading it".to_owned(),
    };
    let found = match format {
        Format::Raw => "no image format that is known".to_owned(),
        other @ (Format::Iso | Format::Xz | Format::Lz4 | Format::Dmg) => format!("an {} file", other.name()),
        other => format!("a {} file", other.name()),
    };
    Some(format!("The image's disk_format is '{disk_format}', but the uploaded data are {found}: {advice}."))
}
