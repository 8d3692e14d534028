//! An image that has been looked at: opened once, inspected through that descriptor, and handed on as it.

use crate::error::{Error, Result};
use crate::overlay::{self, Backing, Masked};
use crate::place::{handed, inherit};
use format::{Decision, Findings, Format, Limits, OnDisk};
use serde_json::{Value, json};
use std::fs::File;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// The largest disk that the workshop takes.
pub const VIRTUAL_BYTES: u64 = 16 << 40;

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    Read,
    Write,
}

/// An image that the inspector has accepted.
#[derive(Debug)]
pub struct Image {
    path: PathBuf,
    file: File,
    findings: Findings,
    format: Format,
    /// What its header says of a backing file.
    backing: Option<Backing>,
}

impl Image {
    /// A file that stands alone. `declared` is the `disk_format` that it must be, if one is named.
    ///
    /// # Errors
    /// Refused with the inspector's reason.
    pub fn open(path: &Path, declared: Option<&str>) -> Result<Image> {
        Image::open_for(path, declared, Access::Read)
    }

    pub(crate) fn open_for(path: &Path, declared: Option<&str>, access: Access) -> Result<Image> {
        let image = Image::open_overlay(path, declared, access)?;
        match &image.backing {
            None => Ok(image),
            Some(backing) => Err(Error::Refused(format!(
                "{} stands on a backing file ('{}'), which is not followed unless it is named: \
                 'nubo image convert --backing FILE' makes one file of both",
                path.display(),
                backing.name
            ))),
        }
    }

    /// A file that may name a backing file. Nothing opens it by that name.
    pub(crate) fn open_overlay(path: &Path, declared: Option<&str>, access: Access) -> Result<Image> {
        let writes = access == Access::Write;
        // A pipe that somebody has put there does not hold us up.
        let flags = nix::fcntl::OFlag::O_NONBLOCK.bits();
        let file = File::options().read(true).write(writes).custom_flags(flags).open(path).map_err(Error::at(path))?;
        if !file.metadata().map_err(Error::at(path))?.is_file() {
            return Err(Error::Refused(format!("{} is no plain file", path.display())));
        }
        inherit(&file).map_err(Error::at(path))?;
        let source = file.try_clone().and_then(OnDisk::new).map_err(Error::at(path))?;
        let backing = overlay::backing(&source).map_err(Error::at(path))?;
        let findings = match &backing {
            Some(_) => format::examine(&Masked(&source)),
            None => format::examine(&source),
        };
        let findings = findings.map_err(Error::at(path))?;
        let format = accepted(path, declared, &findings)?;
        Ok(Image { path: path.to_owned(), file, findings, format, backing })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn format(&self) -> Format {
        self.format
    }

    pub fn findings(&self) -> &Findings {
        &self.findings
    }

    pub fn file(&self) -> &File {
        &self.file
    }

    pub(crate) fn backing(&self) -> Option<&Backing> {
        self.backing.as_ref()
    }

    /// Where a child finds it.
    pub(crate) fn name(&self) -> String {
        handed(&self.file)
    }

    /// The driver in QEMU's words.
    pub(crate) fn driver(&self) -> &'static str {
        self.format.driver()
    }

    /// The node that QEMU shall make of it, with nothing below that is not given.
    pub(crate) fn node(&self, below: Option<Value>) -> Value {
        let mut node = json!({"driver": self.driver(), "file": {"driver": "file", "filename": self.name()}});
        if let Some(below) = below {
            node["backing"] = below;
        }
        node
    }
}

fn accepted(path: &Path, declared: Option<&str>, findings: &Findings) -> Result<Format> {
    let refuse = |why: String| Error::Refused(format!("{}: {why}", path.display()));
    let found = findings.format().and_then(Format::disk_format);
    let as_what = match (declared, found) {
        (Some(declared), _) => declared,
        (None, Some(found)) => found,
        (None, None) => {
            let names: Vec<&str> = findings.formats.iter().map(|format| format.name()).collect();
            return Err(refuse(format!("it is no disk image that is read here ({})", names.join(" and "))));
        }
    };
    match format::decide(as_what, "bare", findings, &Limits { virtual_size: VIRTUAL_BYTES }) {
        Decision::Accept(accepted) => Ok(accepted.format),
        Decision::Refuse(why) => Err(refuse(why)),
    }
}
