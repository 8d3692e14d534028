//! Holes in files: finding data, finding zeros in it, and giving their room back.

use crate::error::{Error, Result};
use nix::fcntl::{FallocateFlags, fallocate};
use nix::unistd::{Whence, lseek};
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, OpenOptionsExt};

/// What is read at a time: it stays in a processor's own cache while it is looked at.
const PIECE: usize = 256 << 10;
/// Memory and offsets of reads past the page cache lie on multiples of this: the largest block that disks have.
const ALIGN: u64 = 4096;
/// What becomes a hole: file systems keep data by such blocks.
const BLOCK: usize = 4096;
/// The shortest run of zeros that becomes a hole: shorter ones would tear the file for little.
const RUN: u64 = 16 << 10;

static ZEROS: [u8; BLOCK] = [0; BLOCK];

/// Calls `each` with every run of data that the file system knows of, in order.
fn data(file: &File, each: &mut dyn FnMut(Range<u64>) -> io::Result<()>) -> io::Result<()> {
    let size = file.metadata()?.len();
    let mut at = 0;
    while at < size {
        let start = match lseek(file, at as i64, Whence::SeekData) {
            Ok(start) => start as u64,
            Err(nix::Error::ENXIO) => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        let end = lseek(file, start as i64, Whence::SeekHole)? as u64;
        each(start..end.min(size))?;
        at = end.max(start + 1);
    }
    Ok(())
}

/// Reads a file in pieces, past the page cache where it can: a file that is read once costs a tenth of the processor time
/// so, and what others use stays in the cache.
struct Pieces<'a> {
    file: &'a File,
    past: Option<File>,
    buffer: Vec<u8>,
    /// Where in `buffer` the aligned part begins.
    begin: usize,
}

impl<'a> Pieces<'a> {
    fn new(file: &'a File, how: Reading) -> Pieces<'a> {
        let flags = nix::fcntl::OFlag::O_DIRECT.bits();
        let open = || File::options().read(true).custom_flags(flags).open(format!("/proc/self/fd/{}", file.as_raw_fd()));
        let past = if how == Reading::Past { open().ok() } else { None };
        let buffer = vec![0; PIECE + ALIGN as usize];
        let begin = buffer.as_ptr().align_offset(ALIGN as usize).min(ALIGN as usize);
        Pieces { file, past, buffer, begin }
    }

    /// At most [`PIECE`] bytes.
    fn read(&mut self, range: &Range<u64>) -> io::Result<&[u8]> {
        let wanted = (range.end - range.start) as usize;
        let aligned = range.start % ALIGN == 0;
        let piece = &mut self.buffer[self.begin..self.begin + PIECE];
        // The end of a file lies where it likes: what is asked for is whole blocks.
        let asked = wanted.next_multiple_of(ALIGN as usize);
        let past = self.past.as_ref().filter(|_| aligned).map(|past| past.read_at(&mut piece[..asked], range.start));
        if !matches!(past, Some(Ok(read)) if read >= wanted) {
            // Some file systems take the flag and refuse the read.
            if past.is_some() {
                self.past = None;
            }
            self.file.read_exact_at(&mut piece[..wanted], range.start)?;
        }
        Ok(&piece[..wanted])
    }
}

/// Whether a file goes through the page cache.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reading {
    Past,
    /// One that was just written lies there.
    Through,
}

/// Splits a run of data into runs of zeros and of others; only whole blocks are zeros.
fn split(
    pieces: &mut Pieces<'_>,
    run: Range<u64>,
    each: &mut dyn FnMut(Range<u64>, &[u8], bool) -> io::Result<()>,
) -> io::Result<()> {
    let mut at = run.start;
    while at < run.end {
        // The next piece begins at a whole one.
        let end = run.end.min((at / PIECE as u64 + 1) * PIECE as u64);
        let piece = pieces.read(&(at..end))?;
        let mut from = 0;
        while from < piece.len() {
            let is_zero = zero_block(piece, at, from);
            let mut to = next_block(piece, at, from);
            while to < piece.len() && zero_block(piece, at, to) == is_zero {
                to = next_block(piece, at, to);
            }
            each(at + from as u64..at + to as u64, &piece[from..to], is_zero)?;
            from = to;
        }
        at = end;
    }
    Ok(())
}

fn next_block(piece: &[u8], at: u64, from: usize) -> usize {
    let inside = ((at + from as u64) % BLOCK as u64) as usize;
    (from + BLOCK - inside).min(piece.len())
}

fn zero_block(piece: &[u8], at: u64, from: usize) -> bool {
    let block = &piece[from..next_block(piece, at, from)];
    *block == ZEROS[..block.len()]
}

fn punch_one(file: &File, range: &Range<u64>) -> io::Result<()> {
    let mode = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
    Ok(fallocate(file, mode, range.start as i64, (range.end - range.start) as i64)?)
}

/// Makes holes of what is free, and of the zeros that are left.
pub(crate) fn punch(file: &File, free: &[Range<u64>], how: Reading) -> Result<()> {
    let failed = Error::doing("making holes");
    let work = || {
        for range in free.iter().filter(|range| range.end - range.start >= BLOCK as u64) {
            punch_one(file, range)?;
        }
        let mut pieces = Pieces::new(file, how);
        let mut zeros: Option<Range<u64>> = None;
        let flush = |zeros: &mut Option<Range<u64>>| match zeros.take() {
            Some(run) if run.end - run.start >= RUN => punch_one(file, &run),
            _ => Ok(()),
        };
        data(file, &mut |run| {
            split(&mut pieces, run, &mut |range, _, is_zero| {
                match (&mut zeros, is_zero) {
                    (Some(run), true) if run.end == range.start => run.end = range.end,
                    (_, true) => {
                        flush(&mut zeros)?;
                        zeros = Some(range);
                    }
                    (_, false) => flush(&mut zeros)?,
                }
                Ok(())
            })
        })?;
        flush(&mut zeros)?;
        file.sync_all()
    };
    work().map_err(failed)
}

/// Writes what is neither free nor zero into an empty file of the same length.
pub(crate) fn copy(from: &File, to: &File, free: &[Range<u64>]) -> Result<()> {
    let failed = Error::doing("copying without holes");
    let work = || {
        to.set_len(from.metadata()?.len())?;
        let mut pieces = Pieces::new(from, Reading::Past);
        let mut next = 0;
        data(from, &mut |run| {
            while free.get(next).is_some_and(|range| range.end <= run.start) {
                next += 1;
            }
            let (mut at, mut looked) = (run.start, next);
            while at < run.end {
                let hole = free.get(looked).filter(|range| range.start < run.end);
                let end = hole.map_or(run.end, |range| range.start.max(at));
                split(&mut pieces, at..end, &mut |range, bytes, is_zero| match is_zero {
                    true => Ok(()),
                    false => to.write_all_at(bytes, range.start),
                })?;
                at = hole.map_or(run.end, |range| range.end);
                looked += 1;
            }
            Ok(())
        })
    };
    work().map_err(failed)
}
