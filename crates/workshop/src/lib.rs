//! The workshop of disk images: converts, resizes, compares and mends files, without a cloud and without root;
//! keeps repositories of them and gets images from such.
//!
//! No program opens an image before the inspector of `format` has accepted it, and none follows a name that stands in
//! one: the file is opened here once, inspected, and handed on as a descriptor; a backing file is one that the user
//! names. Results appear under their name when they are whole, or not at all. Nothing is ever mounted.

pub mod build;
mod chain;
mod change;
mod child;
mod convert;
mod error;
mod image;
mod lock;
mod overlay;
mod place;
pub mod repository;
mod sparsify;

#[cfg(test)]
mod tests;

pub use chain::{commit, rebase};
pub use change::{Checked, Compared, check, compare, resize};
pub use child::Show;
pub use convert::{Conversion, Converted, convert};
pub use error::{Error, Result};
pub use image::{Image, VIRTUAL_BYTES};
pub use sparsify::{FileSystem, Sparsified, Sparsify, sparsify, sparsify_in_place};

/// Reads a size as people write it: `10G`, `512M`, `1T`, bytes without a letter. Letters are powers of 1024.
///
/// # Errors
/// Refused where it is no size, or more than [`VIRTUAL_BYTES`].
pub fn parse_size(text: &str) -> Result<u64> {
    let wrong = || Error::Refused(format!("'{text}' is no size: write bytes, or a number with K, M, G or T"));
    let (digits, letter) = match text.find(|c: char| !c.is_ascii_digit()) {
        Some(at) => text.split_at(at),
        None => (text, ""),
    };
    let shift = match letter.to_ascii_uppercase().as_str() {
        "" | "B" => 0,
        "K" | "KIB" => 10,
        "M" | "MIB" => 20,
        "G" | "GIB" => 30,
        "T" | "TIB" => 40,
        _ => return Err(wrong()),
    };
    let number: u64 = digits.parse().map_err(|_| wrong())?;
    let bytes = number.checked_mul(1 << shift).filter(|bytes| *bytes <= VIRTUAL_BYTES);
    bytes.ok_or_else(|| Error::Refused(format!("{text} is more than a disk may have (16 TiB)")))
}
