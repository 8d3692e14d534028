//! What the readers of file systems stand on: a bounded window on a disk, numbers in it, checksums, and lists of
//! ranges that cannot grow without end.

use format::Source;
use std::io;
use std::ops::Range;

/// Free ranges of a file system that are kept in mind; one that is more torn is left alone.
const RANGES: usize = 8 << 20;

/// Why a file system is not touched.
#[derive(Debug)]
pub(crate) enum Left {
    /// A clause that goes on "it …".
    Alone(String),
    Io(io::Error),
}

pub(crate) type Read<T> = Result<T, Left>;

pub(crate) fn alone<T>(why: impl Into<String>) -> Read<T> {
    Err(Left::Alone(why.into()))
}

/// Requires what a sound file system has.
pub(crate) fn ensure(holds: bool, why: &str) -> Read<()> {
    if holds { Ok(()) } else { alone(why) }
}

/// A partition, or a whole disk. Places are bytes from its own beginning.
#[derive(Clone, Copy)]
pub(crate) struct Volume<'a> {
    disk: &'a dyn Source,
    pub start: u64,
    pub length: u64,
}

impl<'a> Volume<'a> {
    /// The part of the window that the disk really has.
    pub fn new(disk: &'a dyn Source, start: u64, length: u64) -> Volume<'a> {
        let there = disk.size_bytes().saturating_sub(start);
        Volume { disk, start, length: length.min(there) }
    }

    /// `length` bytes, which the caller bounds.
    pub fn read(&self, at: u64, length: usize) -> Read<Bytes> {
        let end = at.checked_add(length as u64);
        ensure(end.is_some_and(|end| end <= self.length), "points beyond its end")?;
        let mut bytes = vec![0; length];
        self.disk.read_at(self.start + at, &mut bytes).map_err(Left::Io)?;
        Ok(Bytes(bytes))
    }

    /// The beginning, or as much of it as there is, with zeros behind.
    pub fn head(&self, length: usize) -> Read<Bytes> {
        let there = usize::try_from(self.length).unwrap_or(usize::MAX).min(length);
        let mut bytes = self.read(0, there)?;
        bytes.0.resize(length, 0);
        Ok(bytes)
    }
}

/// Bytes with numbers in them. A number that lies outside is zero: readers bound their places first.
pub(crate) struct Bytes(pub Vec<u8>);

impl Bytes {
    fn array<const N: usize>(&self, at: usize) -> [u8; N] {
        self.slice(at, N).try_into().unwrap_or([0; N])
    }

    pub fn slice(&self, at: usize, length: usize) -> &[u8] {
        at.checked_add(length).and_then(|end| self.0.get(at..end)).unwrap_or_default()
    }

    pub fn u8(&self, at: usize) -> u8 {
        self.0.get(at).copied().unwrap_or(0)
    }

    pub fn le16(&self, at: usize) -> u16 {
        u16::from_le_bytes(self.array(at))
    }

    pub fn le32(&self, at: usize) -> u32 {
        u32::from_le_bytes(self.array(at))
    }

    pub fn le64(&self, at: usize) -> u64 {
        u64::from_le_bytes(self.array(at))
    }

    pub fn be16(&self, at: usize) -> u16 {
        u16::from_be_bytes(self.array(at))
    }

    pub fn be32(&self, at: usize) -> u32 {
        u32::from_be_bytes(self.array(at))
    }

    pub fn be64(&self, at: usize) -> u64 {
        u64::from_be_bytes(self.array(at))
    }
}

/// Ranges in ascending order that do not touch.
#[derive(Default)]
pub(crate) struct Ranges(Vec<Range<u64>>);

impl Ranges {
    /// Adds one that begins where the last ends, or behind it.
    pub fn push(&mut self, range: Range<u64>) -> Read<()> {
        if range.is_empty() {
            return Ok(());
        }
        let room = self.0.len() < RANGES;
        match self.0.last_mut() {
            Some(last) if last.end == range.start => last.end = range.end,
            Some(last) if last.end > range.start => return alone("has free ranges that overlap"),
            _ if !room => return alone("has too many free ranges"),
            _ => self.0.push(range),
        }
        Ok(())
    }

    pub fn into_vec(self) -> Vec<Range<u64>> {
        self.0
    }
}

/// What of `from` lies in none of `holes`. Both ascend.
pub(crate) fn without(from: &[Range<u64>], holes: &[Range<u64>]) -> Vec<Range<u64>> {
    let mut left = Vec::new();
    let mut next = 0;
    for range in from {
        let mut at = range.start;
        while holes.get(next).is_some_and(|hole| hole.end <= at) {
            next += 1;
        }
        let mut looked = next;
        while let Some(hole) = holes.get(looked).filter(|hole| hole.start < range.end) {
            if hole.start > at {
                left.push(at..hole.start);
            }
            at = at.max(hole.end);
            looked += 1;
        }
        if at < range.end {
            left.push(at..range.end);
        }
    }
    left
}

/// Sorts ranges, and joins those that touch or overlap.
pub(crate) fn union(mut ranges: Vec<Range<u64>>) -> Vec<Range<u64>> {
    ranges.sort_unstable_by_key(|range| range.start);
    let mut joined: Vec<Range<u64>> = Vec::with_capacity(ranges.len());
    for range in ranges.into_iter().filter(|range| !range.is_empty()) {
        match joined.last_mut() {
            Some(last) if last.end >= range.start => last.end = last.end.max(range.end),
            _ => joined.push(range),
        }
    }
    joined
}

/// A reflected CRC of 32 bits: its table, made once per reader.
pub(crate) struct Crc([u32; 256]);

impl Crc {
    /// Castagnoli's, of ext4, XFS and btrfs.
    pub fn castagnoli() -> Crc {
        Crc::of(0x82f6_3b78)
    }

    /// IEEE 802.3's, of GPT.
    pub fn ethernet() -> Crc {
        Crc::of(0xedb8_8320)
    }

    fn of(polynomial: u32) -> Crc {
        let entry = |n: u32| (0..8).fold(n, |crc, _| (crc >> 1) ^ if crc & 1 == 1 { polynomial } else { 0 });
        Crc(std::array::from_fn(|n| entry(n as u32)))
    }

    /// Goes on from `crc`, without any inversion.
    pub fn update(&self, crc: u32, bytes: &[u8]) -> u32 {
        bytes.iter().fold(crc, |crc, byte| self.0[((crc ^ u32::from(*byte)) & 0xff) as usize] ^ (crc >> 8))
    }

    /// Begun with all ones and inverted at the end, as most use it.
    pub fn of_bytes(&self, bytes: &[u8]) -> u32 {
        !self.update(!0, bytes)
    }

    /// As [`Crc::of_bytes`], with zeros in the place of the four bytes at `at`, where the sum itself stands.
    pub fn around(&self, bytes: &[u8], at: usize) -> u32 {
        let (before, rest) = bytes.split_at(at.min(bytes.len()));
        let crc = self.update(self.update(!0, before), &[0; 4]);
        !self.update(crc, rest.get(4..).unwrap_or_default())
    }
}
