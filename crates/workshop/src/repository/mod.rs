//! Repositories of images: a folder with an index that `virt-builder` reads, too; and sites that have a list of
//! checksums beside their images.

mod index;
mod pull;
mod signature;
mod sums;
#[cfg(test)]
mod tests;
mod unpack;
pub(crate) use unpack::{Hash, sum};

pub use index::{Entry, parse, render};
pub use pull::{Pull, Pulled, pull};
pub use sums::{KNOWN, Known};

use crate::error::{Error, Result};
use crate::place::Place;
use format::{Decision, Findings, Format, Limits, OnDisk};
use serde::Serialize;
use std::collections::HashSet;
use std::fs::{self, File};
use std::io::Write;
use std::path::Path;

/// Gets what lies behind a URL.
pub trait Fetch {
    /// Writes it; false where there is nothing.
    ///
    /// # Errors
    /// Io where `into` takes no more, Refused where it cannot be reached.
    fn get(&mut self, url: &str, into: &mut dyn Write) -> Result<bool>;
}

/// Files of a folder at most.
const FILES: usize = 10_000;
/// Endings of files that are images.
const ENDINGS: [&str; 4] = ["qcow2", "img", "raw", "xz"];

/// How to write an index.
#[derive(Clone, Debug)]
pub struct Listing {
    /// Of images that no former index says it of.
    pub arch: String,
    /// The key that signs: an id, fingerprint or address that the user's GnuPG has the secret of.
    pub sign: Option<String>,
    /// Bytes that a packed image may unfold to.
    pub most_bytes: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Listed {
    pub images: Vec<String>,
    /// Those that are new or have changed.
    pub changed: Vec<String>,
    pub signed: bool,
}

/// Writes `index`, and `index.asc` where a key is named, for the images of a folder: qcow2 and raw files, packed by xz
/// or not. What a former index says of a file stays (name, osinfo, notes, hidden …), and `revision` counts its changes.
///
/// # Errors
/// Refused with the file that the inspector does not accept.
pub fn index(folder: &Path, how: &Listing) -> Result<Listed> {
    let former = match fs::read_to_string(folder.join("index")) {
        Ok(text) => parse(&text)?,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
        Err(error) => return Err(Error::at(&folder.join("index"))(error)),
    };
    let (mut entries, mut changed, mut names) = (Vec::new(), Vec::new(), HashSet::new());
    for file in files(folder)? {
        let known: Vec<&Entry> = former.iter().filter(|entry| entry.get("file") == Some(&file)).collect();
        let entry = entry(folder, &file, known.first().copied(), how)?;
        if !names.insert((entry.name.clone(), entry.get("arch").map(str::to_owned))) {
            return Err(Error::Refused(format!("{file} has the name '{}' of another image", entry.name)));
        }
        if known.first() != Some(&&entry) {
            changed.push(entry.name.clone());
        }
        entries.push(entry);
    }
    let text = render(&entries);
    // The signature first: an index that is newer than its signature is never there.
    if let Some(key) = &how.sign {
        write(&folder.join("index.asc"), &signature::sign(folder, &text, key)?)?;
    } else if let Err(error) = fs::remove_file(folder.join("index.asc"))
        && error.kind() != std::io::ErrorKind::NotFound
    {
        return Err(Error::at(&folder.join("index.asc"))(error));
    }
    write(&folder.join("index"), text.as_bytes())?;
    let images = entries.into_iter().map(|entry| entry.name).collect();
    Ok(Listed { images, changed, signed: how.sign.is_some() })
}

fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    let place = Place::new(path, true)?;
    let mut file = place.file();
    file.write_all(bytes).map_err(Error::at(path))?;
    place.finish()
}

/// The names of the images in a folder, in order.
fn files(folder: &Path) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).map_err(Error::at(folder))? {
        let entry = entry.map_err(Error::at(folder))?;
        let is_file = entry.file_type().is_ok_and(|kind| kind.is_file());
        let Ok(name) = entry.file_name().into_string() else { continue };
        let ending = name.rsplit_once('.').map(|(_, ending)| ending);
        if is_file && ending.is_some_and(|ending| ENDINGS.contains(&ending)) && !name.starts_with('.') {
            found.push(name);
        }
    }
    if found.len() > FILES {
        return Err(Error::Refused(format!("{} has more than {FILES} images", folder.display())));
    }
    found.sort();
    Ok(found)
}

/// A name without the endings of images.
fn stem(file: &str) -> &str {
    let mut stem = file;
    while let Some((before, ending)) = stem.rsplit_once('.') {
        if !ENDINGS.contains(&ending) {
            break;
        }
        stem = before;
    }
    stem
}

fn entry(folder: &Path, file: &str, known: Option<&Entry>, how: &Listing) -> Result<Entry> {
    let path = folder.join(file);
    let opened = File::open(&path).map_err(Error::at(&path))?;
    let sum = unpack::sum(&opened, Hash::Sha512).map_err(Error::at(&path))?;
    if let Some(known) = known.filter(|known| known.get("checksum[sha512]") == Some(&sum)) {
        return Ok(known.clone());
    }
    let packed_bytes = file.ends_with(".xz").then(|| opened.metadata().map(|it| it.len())).transpose();
    let packed_bytes = packed_bytes.map_err(Error::at(&path))?;
    let scratch = if packed_bytes.is_some() { Some(Place::scratch(folder)?) } else { None };
    if let Some(scratch) = &scratch {
        unpack::xz(&opened, scratch.file(), how.most_bytes)?;
    }
    let plain = scratch.as_ref().map_or(&opened, Place::file);
    let source = plain.try_clone().and_then(OnDisk::new).map_err(Error::at(&path))?;
    let findings = format::examine(&source).map_err(Error::at(&path))?;
    let format = accepted(file, &findings)?;
    let mut entry = match known {
        Some(known) => {
            let mut entry = known.clone();
            entry.set("revision", (known.number("revision").unwrap_or(1) + 1).to_string());
            entry
        }
        None => {
            index::check_name(stem(file)).map_err(|why| Error::Refused(format!("{file} {why}")))?;
            let mut entry = Entry::new(stem(file));
            entry.set("name", stem(file));
            entry.set("arch", how.arch.as_str());
            entry.set("file", file);
            entry
        }
    };
    entry.set("checksum[sha512]", sum);
    entry.set("format", format);
    entry.set("size", findings.virtual_size.to_string());
    match packed_bytes {
        Some(bytes) => entry.set("compressed_size", bytes.to_string()),
        None => entry.remove("compressed_size"),
    }
    Ok(entry)
}

/// The formats that `virt-builder` knows.
fn accepted(file: &str, findings: &Findings) -> Result<&'static str> {
    let format = match findings.format() {
        Some(Format::Qcow2) => "qcow2",
        _ => "raw",
    };
    match format::decide(format, "bare", findings, &Limits { virtual_size: crate::VIRTUAL_BYTES }) {
        Decision::Accept(_) => Ok(format),
        Decision::Refuse(why) => Err(Error::Refused(format!("{file}: {why}"))),
    }
}
