//! The file of an upload: written in large pieces past the page cache where the file system can.
//!
//! An image is read hours later, if ever, by QEMU: to keep gigabytes of it in the cache would push out what is in use,
//! and finding pages for them costs more processor time than one of the two hashes. What is shorter than a piece, and
//! every piece where direct writing is refused, goes through the cache and is brought to disk now and then.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, OpenOptionsExt};

/// What is written at once.
const PIECE: usize = 256 << 10;
/// Memory and offsets of direct writes lie on multiples of this: the largest block that disks have.
const ALIGN: usize = 4096;
/// Through the cache, so much is brought to disk at a time, while the hashes are still being made.
const SYNC_BYTES: usize = 64 << 20;

pub struct Sink {
    file: File,
    /// The same file, opened past the cache.
    direct: Option<File>,
    buffer: Vec<u8>,
    /// Where in `buffer` the aligned piece begins.
    begin: usize,
    filled: usize,
    offset: u64,
    unsynced: usize,
}

impl Sink {
    /// `direct`: try to go past the cache.
    pub fn new(file: File, direct: bool) -> Sink {
        let past = || {
            let flags = nix::fcntl::OFlag::O_DIRECT.bits();
            OpenOptions::new().write(true).custom_flags(flags).open(format!("/proc/self/fd/{}", file.as_raw_fd()))
        };
        let direct = if direct { past().ok() } else { None };
        let buffer = vec![0; PIECE + ALIGN];
        let begin = buffer.as_ptr().align_offset(ALIGN).min(ALIGN);
        Sink { file, direct, buffer, begin, filled: 0, offset: 0, unsynced: 0 }
    }

    pub fn push(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let now = bytes.len().min(PIECE - self.filled);
            let at = self.begin + self.filled;
            self.buffer[at..at + now].copy_from_slice(&bytes[..now]);
            self.filled += now;
            bytes = &bytes[now..];
            if self.filled == PIECE {
                self.write()?;
            }
        }
        Ok(())
    }

    /// Writes what is left and brings everything to disk.
    pub fn finish(mut self) -> io::Result<File> {
        self.direct = None;
        self.write()?;
        self.file.sync_data()?;
        Ok(self.file)
    }

    fn write(&mut self) -> io::Result<()> {
        let piece = &self.buffer[self.begin..self.begin + self.filled];
        let written = self.direct.as_ref().map(|direct| direct.write_all_at(piece, self.offset));
        match written {
            Some(Ok(())) => {}
            // Some file systems take the flag and refuse the write, and some want larger blocks.
            Some(Err(error)) if error.kind() != ErrorKind::InvalidInput => return Err(error),
            refused => {
                if refused.is_some() {
                    self.direct = None;
                }
                self.file.write_all_at(piece, self.offset)?;
                self.unsynced += self.filled;
            }
        }
        if self.unsynced >= SYNC_BYTES {
            self.file.sync_data()?;
            self.unsynced = 0;
        }
        self.offset += self.filled as u64;
        self.filled = 0;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_bytes_arrive_however_they_come() {
        let content: Vec<u8> = (0..3 * PIECE + 12_345).map(|n| (n / 7 % 251) as u8).collect();
        // A folder on a disk and one in memory; either way of writing.
        for folder in ["/var/tmp", "/dev/shm", "/tmp"] {
            for (direct, step) in [(true, 65_537), (true, PIECE), (false, 4_099), (true, 4 * PIECE)] {
                let Ok(file) = tempfile::tempfile_in(folder) else { continue };
                let mut sink = Sink::new(file, direct);
                for bytes in content.chunks(step) {
                    sink.push(bytes).unwrap();
                }
                let file = sink.finish().unwrap();
                let mut found = vec![0; content.len()];
                file.read_exact_at(&mut found, 0).unwrap();
                assert!(found == content, "{folder} {direct} {step}");
                assert_eq!(file.metadata().unwrap().len(), content.len() as u64);
            }
        }
    }

    #[test]
    fn an_empty_upload_is_an_empty_file() {
        let file = Sink::new(tempfile::tempfile().unwrap(), true).finish().unwrap();
        assert_eq!(file.metadata().unwrap().len(), 0);
    }
}
