//! XFS, versions 4 and 5: a tree of free extents for each allocation group.
//!
//! Layout: the "XFS Algorithms & Data Structures" book of the kernel's developers. Big-endian. A tree counts only where
//! its blocks say that they belong there and their sums agree with the group's own count.

use super::volume::{Bytes, Crc, Ranges, Read, Volume, alone, ensure};
use std::ops::Range;

const GROUPS: u64 = 1 << 17;
const DEPTH: u16 = 9;
/// Bytes of a log; more is not valid.
const LOG_BYTES: u64 = 2 << 30;
/// A sector of the log, whatever the disk's are.
const BASIC: usize = 512;
/// File types, sparse inodes, a second UUID, big timestamps, large extent counts, exchanges, parent pointers.
const INCOMPAT_KNOWN: u32 = 0x1 | 0x2 | 0x4 | 0x8 | 0x20 | 0x40 | 0x80;
/// Trees of free inodes, of owners, of references, and counts of inode trees.
const RO_KNOWN: u32 = 0x1 | 0x2 | 0x4 | 0x8;
/// The flag of the one record that is written last when a file system is unmounted.
const UNMOUNT: u8 = 0x20;

pub(crate) fn is(head: &Bytes) -> bool {
    head.slice(0, 4) == b"XFSB"
}

struct Shape {
    block: u64,
    blocks: u64,
    group_blocks: u64,
    groups: u64,
    sector: u64,
    v5: bool,
    uuid: Vec<u8>,
    log: Range<u64>,
}

/// The free ranges in bytes.
pub(crate) fn free(volume: &Volume<'_>) -> Read<Vec<Range<u64>>> {
    let crc = Crc::castagnoli();
    let shape = shape(&volume.read(0, 512)?, volume, &crc)?;
    log_is_clean(volume, &shape)?;
    let mut free = Ranges::default();
    for number in 0..shape.groups {
        group(volume, &shape, number, &crc, &mut free)?;
    }
    Ok(free.into_vec())
}

fn shape(head: &Bytes, volume: &Volume<'_>, crc: &Crc) -> Read<Shape> {
    let version = head.be16(100) & 0xf;
    ensure(matches!(version, 4 | 5), "has a version that is not known here")?;
    let v5 = version == 5;
    let block = u64::from(head.be32(4));
    ensure((512..=65536).contains(&block) && block.is_power_of_two(), "has blocks of a size that is not valid")?;
    let sector = u64::from(head.be16(102));
    ensure((512..=32768).contains(&sector) && sector.is_power_of_two(), "has sectors of a size that is not valid")?;
    ensure(head.u8(126) == 0, "is half made or half checked")?;
    if v5 {
        let whole = volume.read(0, sector as usize)?;
        ensure(crc.around(&whole.0, 224) == head.le32(224), "has a superblock with a wrong checksum")?;
        let unknown = (head.be32(216) & !INCOMPAT_KNOWN, head.be32(212) & !RO_KNOWN, head.be32(220));
        let named =
            format!("has features that are not known here ({:#x}, {:#x}, {:#x})", unknown.0, unknown.1, unknown.2);
        ensure(unknown == (0, 0, 0), &named)?;
    }
    let (blocks, group_blocks) = (head.be64(8), u64::from(head.be32(84)));
    let groups = u64::from(head.be32(88));
    let fits = blocks.checked_mul(block).is_some_and(|bytes| bytes <= volume.length);
    ensure(fits, "is larger than its partition")?;
    let right = group_blocks >= 4 && groups <= GROUPS && blocks.div_ceil(group_blocks) == groups;
    ensure(right, "has a wrong number of groups")?;
    let log = log(head, block, group_blocks, blocks)?;
    Ok(Shape { block, blocks, group_blocks, groups, sector, v5, uuid: head.slice(32, 16).to_vec(), log })
}

/// Where the log lies, in bytes.
fn log(head: &Bytes, block: u64, group_blocks: u64, blocks: u64) -> Read<Range<u64>> {
    let (place, length) = (head.be64(48), u64::from(head.be32(96)));
    ensure(place != 0, "has its log on another disk")?;
    let shift = u32::from(head.u8(124));
    ensure(shift < 32, "has a log beyond its end")?;
    let (group, inside) = (place >> shift, place & ((1 << shift) - 1));
    let start = group.checked_mul(group_blocks).and_then(|start| start.checked_add(inside));
    let Some(start) = start.filter(|start| start.saturating_add(length) <= blocks) else {
        return alone("has a log beyond its end");
    };
    ensure(length > 0 && length * block <= LOG_BYTES, "has a log of a wrong size")?;
    Ok(start * block..(start + length) * block)
}

/// The last record of the log must be the one of an unmounting, with nothing newer behind it.
fn log_is_clean(volume: &Volume<'_>, shape: &Shape) -> Read<()> {
    const PIECE: u64 = 1 << 20;
    let sectors = (shape.log.end - shape.log.start) / BASIC as u64;
    let mut newest: Option<(u64, u64)> = None;
    let mut at = shape.log.start;
    while at < shape.log.end {
        let piece = volume.read(at, PIECE.min(shape.log.end - at) as usize)?;
        for offset in (0..piece.0.len()).step_by(BASIC) {
            let sector = (at - shape.log.start + offset as u64) / BASIC as u64;
            let lsn = piece.be64(offset + 16);
            let is_record = piece.be32(offset) == 0xfeed_babe && lsn & 0xffff_ffff == sector;
            if is_record && newest.is_none_or(|(known, _)| lsn > known) {
                newest = Some((lsn, sector));
            }
        }
        at += PIECE;
    }
    let dirty = "has a log that was not played back: it was not unmounted";
    let Some((lsn, sector)) = newest else { return alone(dirty) };
    let place = |sector: u64| shape.log.start + sector % sectors * BASIC as u64;
    let record = volume.read(place(sector), BASIC)?;
    let (cycle, length) = ((lsn >> 32) as u32, u64::from(record.be32(12)));
    let own = record.slice(304, 16) == shape.uuid || shape.v5;
    let header_sectors = match record.be32(8) & 2 != 0 {
        true => u64::from(record.be32(320)).div_ceil(32768).clamp(1, 8),
        false => 1,
    };
    let operation = volume.read(place(sector + header_sectors), BASIC)?;
    let is_unmount = record.be32(40) == 1 && operation.u8(9) & UNMOUNT != 0;
    ensure(own && is_unmount && length <= 256 << 10, dirty)?;
    let behind = (sector + header_sectors + length.div_ceil(BASIC as u64)) % sectors;
    let next = volume.read(place(behind), BASIC)?;
    // Each sector of the log begins with the number of the round in which it was written, or with a record's mark.
    let round = if next.be32(0) == 0xfeed_babe { next.be32(4) } else { next.be32(0) };
    ensure(round < cycle || behind <= sector && round <= cycle, dirty)
}

/// Adds what is free in one group.
fn group(volume: &Volume<'_>, shape: &Shape, number: u64, crc: &Crc, free: &mut Ranges) -> Read<()> {
    let base = number * shape.group_blocks;
    let head = volume.read(base * shape.block + shape.sector, shape.sector as usize)?;
    let length = shape.group_blocks.min(shape.blocks - base);
    let right = head.slice(0, 4) == b"XAGF" && u64::from(head.be32(8)) == number && u64::from(head.be32(12)) == length;
    ensure(right, "has a group whose header is wrong")?;
    let summed = !shape.v5 || crc.around(&head.0, 216) == head.le32(216);
    ensure(summed, "has a group with a wrong checksum")?;
    let tree = Tree { volume, shape, base, length, crc };
    let (root, levels) = (head.be32(16), head.be32(28));
    ensure((1..=u32::from(DEPTH)).contains(&levels), "has a tree of a wrong depth")?;
    let mut sum = 0;
    let mut last = 0;
    let mut next = Some(tree.first_leaf(root, levels as u16 - 1)?);
    while let Some(leaf) = next {
        let (extents, right) = tree.leaf(leaf)?;
        // Every leaf but an only one has extents, each behind the last: a ring ends here.
        ensure(!extents.is_empty() || right.is_none(), "has an empty leaf among others")?;
        for extent in extents {
            ensure(extent.start >= last && extent.end <= length && extent.start < extent.end, "has a torn tree")?;
            last = extent.end;
            sum += extent.end - extent.start;
            free.push((base + extent.start) * shape.block..(base + extent.end) * shape.block)?;
        }
        next = right;
    }
    ensure(sum == u64::from(head.be32(52)), "has a group that does not agree with its tree: repair it first")
}

struct Tree<'a> {
    volume: &'a Volume<'a>,
    shape: &'a Shape,
    base: u64,
    length: u64,
    crc: &'a Crc,
}

impl Tree<'_> {
    fn header(&self) -> usize {
        if self.shape.v5 { 56 } else { 16 }
    }

    fn block(&self, number: u32, level: u16) -> Read<Bytes> {
        ensure(u64::from(number) < self.length, "has a tree that leads out of its group")?;
        let place = (self.base + u64::from(number)) * self.shape.block;
        let bytes = self.volume.read(place, self.shape.block as usize)?;
        let magic: &[u8] = if self.shape.v5 { b"AB3B" } else { b"ABTB" };
        ensure(bytes.slice(0, 4) == magic && bytes.be16(4) == level, "has a torn tree")?;
        if self.shape.v5 {
            let right = self.crc.around(&bytes.0, 52) == bytes.le32(52) && bytes.be64(16) == place / BASIC as u64;
            ensure(right, "has a tree with a wrong checksum")?;
        }
        Ok(bytes)
    }

    fn first_leaf(&self, root: u32, levels: u16) -> Read<u32> {
        let mut number = root;
        for level in (1..=levels).rev() {
            let bytes = self.block(number, level)?;
            let most = (self.shape.block as usize - self.header()) / 12;
            number = bytes.be32(self.header() + 8 * most);
        }
        Ok(number)
    }

    /// The extents of a leaf, in blocks of the group, and the leaf to its right.
    fn leaf(&self, number: u32) -> Read<(Vec<Range<u64>>, Option<u32>)> {
        let bytes = self.block(number, 0)?;
        let count = usize::from(bytes.be16(6));
        let most = (self.shape.block as usize - self.header()) / 8;
        ensure(count <= most, "has a leaf with too many entries")?;
        let extents = (0..count).map(|n| {
            let at = self.header() + 8 * n;
            let start = u64::from(bytes.be32(at));
            start..start + u64::from(bytes.be32(at + 4))
        });
        Ok((extents.collect(), Some(bytes.be32(12)).filter(|right| *right != u32::MAX)))
    }
}
