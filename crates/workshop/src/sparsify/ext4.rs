//! ext2, ext3 and ext4: a bitmap of blocks a group.
//!
//! Layout: the kernel's `Documentation/filesystems/ext4`. Little-endian. A bitmap counts only where its checksum is
//! right and it has as many free blocks as its group says.

use super::volume::{Bytes, Crc, Ranges, Read, Volume, ensure, union, without};
use std::ops::Range;

/// 128 TiB in blocks of 4 KiB.
const GROUPS: u64 = 1 << 20;

const CLEAN: u16 = 1;
const ERRORS: u16 = 2;
const INCOMPAT_RECOVER: u32 = 0x4;
/// Directory entries with types, extents, 64 bits, flexible groups, values in inodes, checksum seeds, large directories,
/// inline data, encryption and letter case: none of them changes what a bitmap means.
const INCOMPAT_KNOWN: u32 = 0x2 | 0x40 | 0x80 | 0x200 | 0x400 | 0x2000 | 0x4000 | 0x8000 | 0x1_0000 | 0x2_0000;
const INCOMPAT_64BIT: u32 = 0x80;
const INCOMPAT_SEED: u32 = 0x2000;
/// Sparse superblocks, large and huge files, checksums, link counts, extra inode room, quotas, read-only, projects, verity.
const RO_KNOWN: u32 = 0x1 | 0x2 | 0x4 | 0x8 | 0x10 | 0x20 | 0x40 | 0x100 | 0x400 | 0x1000 | 0x2000 | 0x8000;
const RO_SPARSE: u32 = 0x1;
const COMPAT_TWO_COPIES: u32 = 0x200;
const RO_GROUP_SUMS: u32 = 0x10;
const RO_SUMS: u32 = 0x400;
/// Flag of a group: its bitmap was never written.
const UNWRITTEN: u16 = 0x2;

pub(crate) fn is(head: &Bytes) -> bool {
    head.le16(1024 + 56) == 0xef53
}

struct Shape {
    block: u64,
    blocks: u64,
    first: u64,
    per_group: u64,
    groups: u64,
    descriptor: usize,
    /// Blocks of a copy of superblock and descriptors, with the room in which those grow.
    reserved: u64,
    copies: Copies,
    sums: bool,
    group_sums: bool,
    seed: u32,
    uuid: Vec<u8>,
}

/// Which groups begin with a copy of the superblock.
enum Copies {
    All,
    /// 0, 1, and the powers of 3, 5 and 7.
    Sparse,
    /// The first one, and these.
    These([u32; 2]),
}

impl Copies {
    fn has(&self, group: u64) -> bool {
        let power = |base: u64| std::iter::successors(Some(base), move |it| it.checked_mul(base));
        match self {
            Copies::All => true,
            Copies::Sparse => {
                group <= 1
                    || [3, 5, 7].iter().any(|base| power(*base).take_while(|it| *it <= group).any(|it| it == group))
            }
            Copies::These(groups) => group == 0 || groups.iter().any(|it| u64::from(*it) == group),
        }
    }
}

/// A group, as its descriptor says.
struct Group {
    bitmap: u64,
    inode_bitmap: u64,
    inodes: u64,
    free: u64,
    flags: u16,
    sum: u32,
}

/// The free ranges in bytes.
pub(crate) fn free(volume: &Volume<'_>) -> Read<Vec<Range<u64>>> {
    let superblock = volume.read(1024, 1024)?;
    let crc = Crc::castagnoli();
    let shape = shape(&superblock, volume, &crc)?;
    let inode_blocks = inode_blocks(&superblock, &shape);
    let table = volume.read((shape.first + 1) * shape.block, shape.groups as usize * shape.descriptor)?;
    let groups: Vec<Group> = (0..shape.groups).map(|n| group(&table, n, &shape, &crc)).collect::<Read<Vec<Group>>>()?;
    let metadata = union(
        groups
            .iter()
            .flat_map(|it| [(it.bitmap, 1), (it.inode_bitmap, 1), (it.inodes, inode_blocks)])
            .map(|(at, count)| at..at.saturating_add(count))
            .collect(),
    );
    let mut free = Ranges::default();
    for (n, group) in groups.iter().enumerate() {
        let start = shape.first + n as u64 * shape.per_group;
        let blocks = start..(start + shape.per_group).min(shape.blocks);
        let unwritten = group.flags & UNWRITTEN != 0 && (shape.sums || shape.group_sums);
        let found = match unwritten {
            true => {
                let reserved = if shape.copies.has(n as u64) { shape.reserved } else { 0 };
                without(&[(start + reserved).min(blocks.end)..blocks.end], &metadata_in(&metadata, &blocks))
            }
            false => bitmap(volume, &shape, group, blocks, &crc)?,
        };
        for range in found {
            free.push(range.start * shape.block..range.end * shape.block)?;
        }
    }
    Ok(free.into_vec())
}

fn metadata_in(metadata: &[Range<u64>], blocks: &Range<u64>) -> Vec<Range<u64>> {
    let first = metadata.partition_point(|range| range.end <= blocks.start);
    let last = metadata.partition_point(|range| range.start < blocks.end);
    metadata.get(first..last).unwrap_or_default().to_vec()
}

fn shape(superblock: &Bytes, volume: &Volume<'_>, crc: &Crc) -> Read<Shape> {
    let state = superblock.le16(58);
    let (incompat, ro) = (superblock.le32(96), superblock.le32(100));
    ensure(incompat & INCOMPAT_RECOVER == 0, "has a journal that was not played back: it was not unmounted")?;
    ensure(state & CLEAN != 0 && state & ERRORS == 0, "was not unmounted cleanly, or has errors: check it first")?;
    let unknown = (incompat & !INCOMPAT_KNOWN, ro & !RO_KNOWN);
    ensure(unknown == (0, 0), &format!("has features that are not known here ({:#x}, {:#x})", unknown.0, unknown.1))?;
    let sums = ro & RO_SUMS != 0;
    let right = !sums || crc.update(!0, superblock.slice(0, 1020)) == superblock.le32(1020);
    ensure(right, "has a superblock with a wrong checksum")?;
    let shift = superblock.le32(24);
    ensure(shift <= 6, "has blocks of a size that is not valid")?;
    let block = 1024u64 << shift;
    let wide = incompat & INCOMPAT_64BIT != 0;
    let high = if wide { u64::from(superblock.le32(0x150)) << 32 } else { 0 };
    let blocks = u64::from(superblock.le32(4)) | high;
    let (first, per_group) = (u64::from(superblock.le32(20)), u64::from(superblock.le32(32)));
    let fits = blocks.checked_mul(block).is_some_and(|bytes| bytes <= volume.length);
    ensure(fits && first <= 1 && first < blocks, "is larger than its partition")?;
    ensure(per_group >= 256 && per_group <= block * 8 && per_group.is_multiple_of(8), "has groups of a wrong size")?;
    let groups = (blocks - first).div_ceil(per_group);
    ensure(groups <= GROUPS, "has too many groups")?;
    let descriptor = if wide { usize::from(superblock.le16(0xfe)) } else { 32 };
    ensure((32..=1024).contains(&descriptor) && descriptor.is_power_of_two(), "has descriptors of a wrong size")?;
    let uuid = superblock.slice(0x68, 16).to_vec();
    let seed = match incompat & INCOMPAT_SEED != 0 {
        true => superblock.le32(0x270),
        false => crc.update(!0, &uuid),
    };
    let reserved = 1 + (groups * descriptor as u64).div_ceil(block) + u64::from(superblock.le16(0xce));
    let copies = if superblock.le32(92) & COMPAT_TWO_COPIES != 0 {
        Copies::These([superblock.le32(0x24c), superblock.le32(0x250)])
    } else if ro & RO_SPARSE != 0 {
        Copies::Sparse
    } else {
        Copies::All
    };
    let group_sums = ro & RO_GROUP_SUMS != 0;
    Ok(Shape { block, blocks, first, per_group, groups, descriptor, reserved, copies, sums, group_sums, seed, uuid })
}

fn inode_blocks(superblock: &Bytes, shape: &Shape) -> u64 {
    let bytes = if superblock.le32(76) == 0 { 128 } else { u64::from(superblock.le16(88)) };
    (u64::from(superblock.le32(40)) * bytes).div_ceil(shape.block)
}

fn group(table: &Bytes, n: u64, shape: &Shape, crc: &Crc) -> Read<Group> {
    let bytes = Bytes(table.slice(n as usize * shape.descriptor, shape.descriptor).to_vec());
    let stated = bytes.le16(30);
    let number = (n as u32).to_le_bytes();
    let (before, after) = (bytes.slice(0, 30), bytes.slice(32, shape.descriptor - 32));
    let right = if shape.sums {
        let sum = crc.update(crc.update(shape.seed, &number), before);
        crc.update(crc.update(sum, &[0; 2]), after) as u16 == stated
    } else {
        !shape.group_sums
            || [&shape.uuid[..], &number, before, after].iter().fold(!0, |sum, it| crc16(sum, it)) == stated
    };
    ensure(right, "has a group with a wrong checksum")?;
    let wide = shape.descriptor >= 64;
    let wide_u32 =
        |low: usize, high: usize| u64::from(bytes.le32(low)) | if wide { u64::from(bytes.le32(high)) << 32 } else { 0 };
    let wide_u16 =
        |low: usize, high: usize| u32::from(bytes.le16(low)) | if wide { u32::from(bytes.le16(high)) << 16 } else { 0 };
    Ok(Group {
        bitmap: wide_u32(0, 32),
        inode_bitmap: wide_u32(4, 36),
        inodes: wide_u32(8, 40),
        free: u64::from(wide_u16(12, 44)),
        flags: bytes.le16(18),
        sum: wide_u16(24, 56),
    })
}

/// The free blocks that a group's bitmap has.
fn bitmap(volume: &Volume<'_>, shape: &Shape, group: &Group, blocks: Range<u64>, crc: &Crc) -> Read<Vec<Range<u64>>> {
    ensure(group.bitmap < shape.blocks, "has a bitmap beyond its end")?;
    let bits = volume.read(group.bitmap * shape.block, shape.block as usize)?;
    if shape.sums {
        let sum = crc.update(shape.seed, bits.slice(0, (shape.per_group / 8) as usize));
        let kept = if shape.descriptor >= 64 { !0 } else { 0xffff };
        ensure(sum & kept == group.sum, "has a bitmap with a wrong checksum")?;
    }
    let count = (blocks.end - blocks.start) as usize;
    let mut found: Vec<Range<u64>> = Vec::new();
    let mut free = 0;
    let mut n = 0;
    while n < count {
        let byte = bits.u8(n / 8);
        let whole = n.is_multiple_of(8) && count - n >= 8;
        let (length, is_free) = match byte {
            0 if whole => (8, true),
            0xff if whole => (8, false),
            _ => (1, byte >> (n % 8) & 1 == 0),
        };
        if is_free {
            let start = blocks.start + n as u64;
            free += length as u64;
            match found.last_mut() {
                Some(last) if last.end == start => last.end += length as u64,
                _ => found.push(start..start + length as u64),
            }
        }
        n += length;
    }
    ensure(free == group.free, "has a bitmap that its group does not agree with: check it first")?;
    Ok(found)
}

/// The checksum of groups before there were better ones.
fn crc16(crc: u16, bytes: &[u8]) -> u16 {
    bytes.iter().fold(crc, |crc, byte| {
        (0..8).fold(crc ^ u16::from(*byte), |crc, _| (crc >> 1) ^ if crc & 1 == 1 { 0xa001 } else { 0 })
    })
}
