//! From one format to another, and from a chain of files to one.

use crate::child::{Show, limited_to, watched};
use crate::error::{Error, Result};
use crate::image::{Access, Image, VIRTUAL_BYTES};
use crate::place::Place;
use format::{Findings, Format};
use serde::Serialize;
use serde_json::Value;
use std::path::{Path, PathBuf};

/// Files below one another at most.
const CHAIN: usize = 16;

/// What to make of an image.
#[derive(Clone, Debug, Default)]
pub struct Conversion {
    /// What the source must be; none: what it is.
    pub from: Option<String>,
    /// `qcow2`, `raw`, `vmdk`, `vdi`, `vhd` or `vhdx`.
    pub to: String,
    /// Compressed clusters (qcow2 alone).
    pub compress: bool,
    /// The files that the source stands on, the nearest first. What its header names is not followed.
    pub backing: Vec<PathBuf>,
    /// Seconds of processor time that it may take; none: a day.
    pub cpu_s: Option<u64>,
    pub force: bool,
    pub show: Show,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Converted {
    pub format: &'static str,
    pub size_bytes: u64,
    pub virtual_size: u64,
}

/// Writes `target` with what a guest would see of `source`. The result has passed the inspector.
///
/// # Errors
/// Refused where the source is not accepted or the formats do not fit; Exists; Tool where QEMU gives up.
pub fn convert(source: &Path, target: &Path, conversion: &Conversion) -> Result<Converted> {
    let to = known(&conversion.to)?;
    if conversion.compress && to != Format::Qcow2 {
        return Err(Error::Refused("only qcow2 has compressed clusters".to_owned()));
    }
    let image = Image::open_overlay(source, conversion.from.as_deref(), Access::Read)?;
    let below = backing_files(&image, &conversion.backing)?;
    let place = Place::new(target, conversion.force)?;
    let mut command = limited_to("qemu-img", largest(image.findings().virtual_size), conversion.cpu_s);
    command.args(["convert", "-O", to.driver()]);
    if conversion.compress {
        command.arg("-c");
    }
    if conversion.show.on_terminal() {
        command.arg("-p");
    }
    command.arg(file_name(&image.node(chain(&below)))).arg(place.name());
    watched(&mut command, conversion.show)?;
    let findings = inspected(&place, to)?;
    place.finish()?;
    Ok(Converted {
        format: to.disk_format().unwrap_or("raw"),
        size_bytes: findings.size_bytes,
        virtual_size: findings.virtual_size,
    })
}

/// Most bytes of a file that holds such a disk: tables and rounding come on top.
pub(crate) fn largest(virtual_size: u64) -> u64 {
    virtual_size.min(VIRTUAL_BYTES) + virtual_size / 16 + (64 << 20)
}

/// The same for an image that is changed in place: snapshots in it have room of their own.
pub(crate) fn largest_of(image: &Image, virtual_size: u64) -> u64 {
    largest(virtual_size.max(image.findings().virtual_size)) + image.findings().size_bytes
}

/// A node as QEMU's programs read it from their command line, which then look at no header for what is below it.
pub(crate) fn file_name(node: &Value) -> String {
    format!("json:{node}")
}

/// The nodes below an image.
pub(crate) fn chain(below: &[Image]) -> Option<Value> {
    below.iter().rfold(None, |deeper, image| Some(image.node(deeper)))
}

/// Opens the files that the user names, which must be as many as there are.
fn backing_files(image: &Image, paths: &[PathBuf]) -> Result<Vec<Image>> {
    if paths.len() > CHAIN {
        return Err(Error::Refused(format!("at most {CHAIN} files stand on one another")));
    }
    let mut below: Vec<Image> = Vec::new();
    for path in paths {
        let above = below.last().unwrap_or(image);
        if above.backing().is_none() {
            let above = above.path().display();
            return Err(Error::Refused(format!("{above} stands alone: {} is not below it", path.display())));
        }
        below.push(Image::open_overlay(path, None, Access::Read)?);
    }
    let last = below.last().unwrap_or(image);
    match last.backing() {
        None => Ok(below),
        Some(backing) => Err(Error::Refused(format!(
            "{} stands on a backing file ('{}'), which is not followed: name the right one with --backing",
            last.path().display(),
            backing.name
        ))),
    }
}

pub(crate) fn known(name: &str) -> Result<Format> {
    use Format::{Qcow2, Raw, Vdi, Vhd, Vhdx, Vmdk};
    [Raw, Qcow2, Vmdk, Vdi, Vhd, Vhdx].into_iter().find(|format| format.disk_format() == Some(name)).ok_or_else(|| {
        Error::Refused(format!("'{name}' is no format that is written: raw, qcow2, vmdk, vdi, vhd and vhdx are"))
    })
}

/// Holds a result against what it shall be.
pub(crate) fn inspected(place: &Place, format: Format) -> Result<Findings> {
    let what = || Error::doing("reading the result");
    let source = place.file().try_clone().and_then(format::OnDisk::new).map_err(what())?;
    let findings = format::examine(&source).map_err(what())?;
    // What lies inside a raw disk is its owner's: it may well begin as an ISO does.
    if format != Format::Raw && (findings.format() != Some(format) || !findings.problems.is_empty()) {
        let problems = findings.problems.join("; ");
        return Err(Error::Refused(format!("the result is no sound {}: {problems}", format.name())));
    }
    Ok(findings)
}
