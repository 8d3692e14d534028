//! Growing, checking and comparing images.

use crate::child::{Show, failure, limited, run, succeed, watched};
use crate::convert::{file_name, largest_of};
use crate::error::{Error, Result};
use crate::image::{Access, Image};
use format::Format;
use serde::Serialize;
use serde_json::Value;
use std::path::Path;

/// Makes the disk in an image larger, or smaller where `shrink` says that its end may go. In the file itself: an
/// interruption leaves the one size or the other. Returns the new size in bytes.
///
/// # Errors
/// Refused for formats other than raw and qcow2, for an overlay, and for a smaller size without `shrink`.
pub fn resize(path: &Path, size_bytes: u64, shrink: bool) -> Result<u64> {
    let image = Image::open_for(path, None, Access::Write)?;
    let now = image.findings().virtual_size;
    if !matches!(image.format(), Format::Raw | Format::Qcow2) {
        let name = image.format().name();
        return Err(Error::Refused(format!("{name} is not resized here: convert it to raw or qcow2 first")));
    }
    if size_bytes < now && !shrink {
        return Err(Error::Refused(format!(
            "the disk has {now} bytes, and {size_bytes} would cut off its end; --shrink says that this is meant"
        )));
    }
    if size_bytes == 0 || !size_bytes.is_multiple_of(512) {
        return Err(Error::Refused(format!("{size_bytes} bytes are no whole number of sectors")));
    }
    let mut command = limited("qemu-img", largest_of(&image, size_bytes));
    command.args(["resize", "-q", "-f", image.driver()]);
    if size_bytes < now {
        command.arg("--shrink");
    }
    succeed(command.arg(image.name()).arg(size_bytes.to_string()))?;
    image.file().sync_all().map_err(Error::at(path))?;
    Ok(size_bytes)
}

/// What a look at an image's own tables found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Checked {
    pub format: &'static str,
    /// False where the format has no tables of its own (raw).
    pub has_tables: bool,
    /// Wrong entries that stand: reading them gives wrong bytes or none.
    pub corruptions: u64,
    /// Room that nothing uses.
    pub leaks: u64,
    pub corruptions_fixed: u64,
    pub leaks_fixed: u64,
}

impl Checked {
    pub fn is_sound(&self) -> bool {
        self.corruptions == 0 && self.leaks == 0
    }
}

/// Checks an image's tables against each other, and mends them if `repair` is `leaks` or `all`. An overlay may be
/// checked: what it stands on is not opened.
///
/// # Errors
/// Refused, as by the inspector; Tool where the check itself cannot be done.
pub fn check(path: &Path, repair: Option<&str>) -> Result<Checked> {
    let access = if repair.is_some() { Access::Write } else { Access::Read };
    let image = Image::open_overlay(path, None, access)?;
    let format = image.format().disk_format().unwrap_or("raw");
    if !matches!(image.format(), Format::Qcow2 | Format::Vmdk | Format::Vdi | Format::Vhdx) {
        return Ok(Checked { format, ..Checked::default() });
    }
    let mut command = limited("qemu-img", largest_of(&image, 0));
    command.args(["check", "--output=json"]);
    if let Some(what) = repair {
        command.args(["-r", what]);
    }
    let mut node = image.node(None);
    if image.backing().is_some() {
        node["backing"] = Value::Null;
    }
    let output = run(command.arg(file_name(&node)))?;
    let report: Option<Value> = serde_json::from_str(&output.stdout).ok();
    match (output.status.code(), report) {
        (Some(0 | 2 | 3), Some(report)) => Ok(checked(format, &report)),
        (Some(63), _) => Ok(Checked { format, ..Checked::default() }),
        _ => Err(failure(&command, &output)),
    }
}

fn checked(format: &'static str, report: &Value) -> Checked {
    let count = |name: &str| report[name].as_u64().unwrap_or(0);
    Checked {
        format,
        has_tables: true,
        corruptions: count("corruptions") + count("check-errors"),
        leaks: count("leaks"),
        corruptions_fixed: count("corruptions-fixed"),
        leaks_fixed: count("leaks-fixed"),
    }
}

/// How what a guest sees of two images differs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Compared {
    pub identical: bool,
    /// The first byte that differs, where one was found.
    pub first_difference_bytes: Option<u64>,
    /// Sizes of the disks. A longer one that ends in zeros is identical.
    pub virtual_sizes: [u64; 2],
    pub formats: [&'static str; 2],
}

/// Compares what a guest would see of two images, whatever formats they have.
///
/// # Errors
/// Refused, as by the inspector; Tool where one of them cannot be read.
pub fn compare(one: &Path, other: &Path) -> Result<Compared> {
    let images = [Image::open(one, None)?, Image::open(other, None)?];
    let mut command = limited("qemu-img", 0);
    command.arg("compare").args(["-f", images[0].driver(), "-F", images[1].driver()]);
    command.args(images.iter().map(Image::name));
    let output = run(&mut command)?;
    let identical = match output.status.code() {
        Some(0) => true,
        Some(1) => false,
        _ => return Err(failure(&command, &output)),
    };
    Ok(Compared {
        identical,
        first_difference_bytes: if identical { None } else { offset(&output.stdout) },
        virtual_sizes: images.each_ref().map(|image| image.findings().virtual_size),
        formats: images.each_ref().map(|image| image.format().disk_format().unwrap_or("raw")),
    })
}

/// "Content mismatch at offset 65536!"
fn offset(said: &str) -> Option<u64> {
    let digits = said.split("offset ").nth(1)?;
    digits.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

/// As [`watched`], for work in an image itself.
pub(crate) fn in_place(command: &mut std::process::Command, image: &Image, show: Show) -> Result<()> {
    watched(command, show)?;
    image.file().sync_all().map_err(Error::at(image.path()))
}
