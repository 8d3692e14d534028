//! Disk-image formats: what a file really is, and whether it may be taken for what it is called.
//!
//! Pure parsers over byte ranges: no async, no I/O but the reads of [`OnDisk`], nothing that an input can make panic or
//! grow. Every uploaded image passes [`examine`] and [`decide`] before any C program opens it; [`Glimpse`] sees the
//! stream while it is uploaded and refuses what is wrong from its first bytes on.
//!
//! The rule behind all refusals: an image is one self-contained file, it is what its `disk_format` says, and nothing
//! in it names another file. A guest's owner chose these bytes, and QEMU would follow any name in them on the host.

mod bytes;
mod decide;
mod detect;
mod facts;
mod iso;
mod luks;
mod parallels;
mod partition;
mod qcow2;
mod vdi;
mod vhd;
mod vhdx;
mod vmdk;

// What the fuzz targets share with the tests calls this crate by its name.
#[cfg(test)]
extern crate self as format;
#[cfg(test)]
mod tests;

pub use decide::{Accepted, Decision, Limits, decide};
pub use detect::{Findings, Format, Glimpse, Layout, examine};
pub use facts::Facts;

/// The bytes from the start of a file that detection needs: the volume descriptors of ISO 9660 and UDF lie at 32 KiB
/// and above.
pub const HEAD_BYTES: usize = 64 * 1024;

/// A finished file. Implementations read; this crate only says which ranges.
pub trait Source {
    /// Length in bytes.
    fn size_bytes(&self) -> u64;

    /// Fills `buffer` from `offset`, or fails: this crate never asks beyond [`Source::size_bytes`].
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> std::io::Result<()>;
}

/// A finished file on this machine's disk.
pub struct OnDisk {
    file: std::fs::File,
    size_bytes: u64,
}

impl OnDisk {
    /// # Errors
    /// Where its length cannot be told.
    pub fn new(file: std::fs::File) -> std::io::Result<OnDisk> {
        let size_bytes = file.metadata()?.len();
        Ok(OnDisk { file, size_bytes })
    }
}

impl Source for OnDisk {
    fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> std::io::Result<()> {
        std::os::unix::fs::FileExt::read_exact_at(&self.file, buffer, offset)
    }
}

impl Source for &[u8] {
    fn size_bytes(&self) -> u64 {
        self.len() as u64
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> std::io::Result<()> {
        let range = usize::try_from(offset).ok().and_then(|start| self.get(start..start.checked_add(buffer.len())?));
        buffer.copy_from_slice(range.ok_or(std::io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }
}

impl Source for Vec<u8> {
    fn size_bytes(&self) -> u64 {
        self.len() as u64
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> std::io::Result<()> {
        (&self[..]).read_at(offset, buffer)
    }
}
