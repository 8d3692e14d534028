//! Files that stand on others: put on another one, or written down into it. The user names each file; what a header
//! names is compared with nothing and followed by nobody.

use crate::change::in_place;
use crate::child::{Show, limited};
use crate::convert::{file_name, largest_of};
use crate::error::{Error, Result};
use crate::image::{Access, Image};
use std::path::Path;

/// Puts an overlay that stands on `from` onto `onto`, so that a guest sees the same: what differs between the two is
/// written into the overlay, and then its header changes. In the file itself: an interruption leaves a whole overlay
/// of `from`.
///
/// # Errors
/// Refused where `path` is no overlay, or one of the others does not stand alone.
pub fn rebase(path: &Path, from: &Path, onto: &Path, show: Show) -> Result<()> {
    let overlay = overlay(path)?;
    let (old, new) = (Image::open(from, None)?, Image::open(onto, None)?);
    let target = onto.canonicalize().map_err(Error::at(onto))?;
    let mut command = limited("qemu-img", largest_of(&overlay, 0));
    // QEMU opens the new file by the name that goes into the header; it is the one that was looked at.
    command.args(["rebase", "-F", new.driver(), "-b"]).arg(&target);
    if show.on_terminal() {
        command.arg("-p");
    }
    in_place(command.arg(file_name(&overlay.node(Some(old.node(None))))), &overlay, show)
}

/// Writes what an overlay holds into the file that it stands on. The overlay is left as it is, and needed no more.
///
/// # Errors
/// Refused where `path` is no overlay, or `into` does not stand alone.
pub fn commit(path: &Path, into: &Path, show: Show) -> Result<()> {
    let overlay = overlay(path)?;
    let base = Image::open_for(into, None, Access::Write)?;
    let mut command = limited("qemu-img", largest_of(&base, overlay.findings().virtual_size));
    command.args(["commit", "-d"]);
    if show.on_terminal() {
        command.arg("-p");
    }
    in_place(command.arg(file_name(&overlay.node(Some(base.node(None))))), &base, show)
}

fn overlay(path: &Path) -> Result<Image> {
    let image = Image::open_overlay(path, Some("qcow2"), Access::Write)?;
    match image.backing() {
        Some(_) => Ok(image),
        None => Err(Error::Refused(format!("{} stands alone: it has no backing file", path.display()))),
    }
}
