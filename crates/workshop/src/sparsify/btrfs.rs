//! btrfs on one device: what no chunk has, and what no extent has of a chunk.
//!
//! Layout: the kernel's `include/uapi/linux/btrfs_tree.h`. Little-endian. A block counts only where its checksum, its
//! place and its generation are right, and the extents only where they are as much as the superblock says is used.

use super::volume::{Bytes, Crc, Ranges, Read, Volume, alone, ensure, union, without};
use std::ops::Range;

const SUPER: u64 = 64 << 10;
const DEPTH: u8 = 8;
/// Blocks of trees that are read, and extents that are kept in mind.
const NODES: u64 = 4 << 20;
const EXTENTS: usize = 16 << 20;
const CHUNKS: usize = 1 << 18;
/// At the beginning of a device nothing is kept but what boots.
const RESERVED: u64 = 1 << 20;
/// Where the copies of the superblock lie, and how much is kept free for each.
const COPIES: [u64; 3] = [64 << 10, 64 << 20, 256 << 30];
const COPY_BYTES: u64 = 64 << 10;
/// Mixed back references, default subvolumes, mixed groups, compressions, large metadata, long references, RAID 5 and 6,
/// short metadata items, no holes, a second UUID, RAID 1 with more copies, simple quotas.
const INCOMPAT_KNOWN: u64 = 0xfff | 0x1_0000;
/// The free space tree and its mark, verity, the tree of block groups.
const RO_KNOWN: u64 = 0xf;
/// Every profile but a single copy and two on the same device.
const OTHER_PROFILES: u64 = 0x8 | 0x10 | 0x40 | 0x80 | 0x100 | 0x200 | 0x400;

const ROOT_ITEM: u8 = 132;
const EXTENT_ITEM: u8 = 168;
const METADATA_ITEM: u8 = 169;
const CHUNK_ITEM: u8 = 228;
const EXTENT_TREE: u64 = 2;
const CHUNK_OBJECT: u64 = 256;

pub(crate) fn is(head: &Bytes) -> bool {
    head.slice(SUPER as usize + 64, 8) == b"_BHRfS_M"
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    object: u64,
    kind: u8,
    offset: u64,
}

fn key(bytes: &Bytes, at: usize) -> Key {
    Key { object: bytes.le64(at), kind: bytes.u8(at + 8), offset: bytes.le64(at + 9) }
}

/// A run of logical bytes, and where its copies lie on the device.
struct Chunk {
    logical: Range<u64>,
    stripes: Vec<u64>,
}

struct Reader<'a> {
    volume: &'a Volume<'a>,
    crc: Crc,
    node: usize,
    device: u64,
    chunks: Vec<Chunk>,
    nodes_left: u64,
}

/// A block of a tree that is to be read: what its parent says of it.
struct Pointer {
    logical: u64,
    generation: Option<u64>,
    level: u8,
}

/// The free ranges in bytes.
pub(crate) fn free(volume: &Volume<'_>) -> Read<Vec<Range<u64>>> {
    let top = volume.read(SUPER, 4096)?;
    let crc = Crc::castagnoli();
    ensure(top.le16(196) == 0, "has checksums of a kind that is not known here")?;
    ensure(crc.of_bytes(top.slice(32, 4064)) == top.le32(0), "has a superblock with a wrong checksum")?;
    ensure(top.le64(96) == 0, "has a log that was not played back: it was not unmounted")?;
    ensure(top.le64(136) == 1, "lies on several devices")?;
    let unknown = (top.le64(188) & !INCOMPAT_KNOWN, top.le64(180) & !RO_KNOWN);
    ensure(unknown == (0, 0), &format!("has features that are not known here ({:#x}, {:#x})", unknown.0, unknown.1))?;
    let node = top.le32(148) as usize;
    ensure((4096..=65536).contains(&node) && node.is_power_of_two(), "has blocks of a size that is not valid")?;
    let (device, size) = (top.le64(201), top.le64(209));
    ensure(size <= volume.length && top.le64(48) == SUPER, "is larger than its partition")?;
    let nodes_left = NODES.min(volume.length / node as u64 + 1);
    let mut reader = Reader { volume, crc, node, device, chunks: Vec::new(), nodes_left };
    reader.system_chunks(&top)?;
    reader.all_chunks(&Pointer { logical: top.le64(88), generation: Some(top.le64(164)), level: top.u8(199) })?;
    let root = Pointer { logical: top.le64(80), generation: Some(top.le64(72)), level: top.u8(198) };
    let used = reader.extents(&root, top.le64(120))?;
    reader.free(&used, size)
}

impl Reader<'_> {
    /// The chunks that the superblock itself names: those in which the tree of chunks lies.
    fn system_chunks(&mut self, top: &Bytes) -> Read<()> {
        let length = top.le32(160) as usize;
        ensure(length <= 2048, "has too many system chunks")?;
        let list = Bytes(top.slice(811, length).to_vec());
        let mut at = 0;
        while at < length {
            let own = key(&list, at);
            let stripes = usize::from(list.le16(at + 17 + 44));
            let bytes = 48 + 32 * stripes;
            self.chunk(own, &Bytes(list.slice(at + 17, bytes).to_vec()))?;
            at += 17 + bytes;
        }
        self.chunks.sort_unstable_by_key(|chunk| chunk.logical.start);
        Ok(())
    }

    fn chunk(&mut self, key: Key, item: &Bytes) -> Read<()> {
        let (length, stripes) = (item.le64(0), usize::from(item.le16(44)));
        ensure(key.kind == CHUNK_ITEM && key.object == CHUNK_OBJECT, "has a chunk that is none")?;
        ensure(item.le64(24) & OTHER_PROFILES == 0, "has a profile of several devices")?;
        ensure((1..=2).contains(&stripes) && item.0.len() >= 48 + 32 * stripes, "has a chunk of a wrong shape")?;
        let mut places = Vec::new();
        for at in (0..stripes).map(|n| 48 + 32 * n) {
            let place = item.le64(at + 8);
            let inside = place.checked_add(length).is_some_and(|end| end <= self.volume.length);
            ensure(item.le64(at) == self.device && inside, "has a chunk beyond its end")?;
            places.push(place);
        }
        let Some(end) = key.offset.checked_add(length) else { return alone("has a chunk of a wrong shape") };
        ensure(self.chunks.len() < CHUNKS, "has too many chunks")?;
        self.chunks.push(Chunk { logical: key.offset..end, stripes: places });
        Ok(())
    }

    fn all_chunks(&mut self, root: &Pointer) -> Read<()> {
        let mut items = Vec::new();
        self.walk(root, &mut |key, leaf, at, length| {
            if key.kind == CHUNK_ITEM {
                ensure(items.len() < CHUNKS, "has too many chunks")?;
                // Of one or two stripes, which are all that is read.
                ensure(length <= 48 + 2 * 32, "has a chunk of a wrong shape")?;
                items.push((key, leaf.slice(at, length).to_vec()));
            }
            Ok(())
        })?;
        self.chunks.clear();
        for (key, item) in items {
            self.chunk(key, &Bytes(item))?;
        }
        let apart = self.chunks.windows(2).all(|pair| pair[0].logical.end <= pair[1].logical.start);
        ensure(apart, "has chunks that overlap")
    }

    /// Where a logical byte lies.
    fn place(&self, logical: u64, length: u64) -> Read<u64> {
        let after = self.chunks.partition_point(|chunk| chunk.logical.start <= logical);
        let chunk = after.checked_sub(1).and_then(|n| self.chunks.get(n));
        match chunk.filter(|chunk| logical.saturating_add(length) <= chunk.logical.end) {
            Some(chunk) => Ok(chunk.stripes[0] + (logical - chunk.logical.start)),
            None => alone("has a tree that leads out of its chunks"),
        }
    }

    fn node(&mut self, pointer: &Pointer) -> Read<Bytes> {
        ensure(self.nodes_left > 0, "has trees that do not end")?;
        self.nodes_left -= 1;
        let place = self.place(pointer.logical, self.node as u64)?;
        let bytes = self.volume.read(place, self.node)?;
        let summed = self.crc.of_bytes(bytes.slice(32, self.node - 32)) == bytes.le32(0);
        ensure(summed && bytes.le64(48) == pointer.logical, "has a block with a wrong checksum")?;
        let right = bytes.u8(100) == pointer.level && pointer.generation.is_none_or(|it| it == bytes.le64(80));
        ensure(right, "has a torn tree")?;
        Ok(bytes)
    }

    /// Gives every item of a tree, in order: its key, its leaf, and where in that it lies.
    fn walk(&mut self, root: &Pointer, each: &mut dyn FnMut(Key, &Bytes, usize, usize) -> Read<()>) -> Read<()> {
        ensure(root.level < DEPTH, "has a tree of a wrong depth")?;
        let mut open = vec![Pointer { ..*root }];
        let mut last: Option<Key> = None;
        while let Some(pointer) = open.pop() {
            let bytes = self.node(&pointer)?;
            let count = bytes.le32(96) as usize;
            if pointer.level > 0 {
                ensure(count > 0 && count <= (self.node - 101) / 33, "has a block with a wrong number of entries")?;
                // The leftmost comes off the pile first.
                open.extend((0..count).rev().map(|n| 101 + 33 * n).map(|at| Pointer {
                    logical: bytes.le64(at + 17),
                    generation: Some(bytes.le64(at + 25)),
                    level: pointer.level - 1,
                }));
                continue;
            }
            ensure(count <= (self.node - 101) / 25, "has a block with a wrong number of entries")?;
            for at in (0..count).map(|n| 101 + 25 * n) {
                let own = key(&bytes, at);
                ensure(last.is_none_or(|last| last < own), "has a torn tree")?;
                last = Some(own);
                let (offset, length) = (bytes.le32(at + 17) as usize, bytes.le32(at + 21) as usize);
                let inside = offset.saturating_add(length) <= self.node - 101;
                ensure(inside, "has an item that leads out of its block")?;
                each(own, &bytes, 101 + offset, length)?;
            }
        }
        Ok(())
    }

    /// Everything that is in use, in logical bytes; as much as `used_bytes`.
    fn extents(&mut self, root: &Pointer, used_bytes: u64) -> Read<Vec<Range<u64>>> {
        let mut tree = None;
        self.walk(root, &mut |key, leaf, at, length| {
            if (key.object, key.kind) == (EXTENT_TREE, ROOT_ITEM) && length >= 239 {
                let generation = Some(leaf.le64(at + 160));
                tree = Some(Pointer { logical: leaf.le64(at + 176), generation, level: leaf.u8(at + 238) });
            }
            Ok(())
        })?;
        let Some(tree) = tree else { return alone("has no tree of extents") };
        let node = self.node as u64;
        let mut used: Vec<Range<u64>> = Vec::new();
        let mut sum = 0u64;
        self.walk(&tree, &mut |key, _, _, _| {
            let length = match key.kind {
                EXTENT_ITEM => key.offset,
                METADATA_ITEM => node,
                _ => return Ok(()),
            };
            let Some(end) = key.object.checked_add(length) else { return alone("has an extent beyond its end") };
            sum = sum.saturating_add(length);
            match used.last_mut() {
                Some(last) if last.end > key.object => return alone("has extents that overlap"),
                Some(last) if last.end == key.object => last.end = end,
                _ => used.push(key.object..end),
            }
            ensure(used.len() <= EXTENTS, "has too many extents")
        })?;
        ensure(sum == used_bytes, "has extents that its superblock does not agree with: check it first")?;
        Ok(used)
    }

    /// What neither a chunk nor a superblock has of the device, and what no extent has of each chunk's copies.
    fn free(&self, used: &[Range<u64>], size: u64) -> Read<Vec<Range<u64>>> {
        let logical: Vec<Range<u64>> = self.chunks.iter().map(|chunk| chunk.logical.clone()).collect();
        ensure(without(used, &logical).is_empty(), "has extents outside its chunks")?;
        let copies = self.chunks.iter().flat_map(|chunk| {
            let length = chunk.logical.end - chunk.logical.start;
            chunk.stripes.iter().map(move |place| *place..*place + length)
        });
        let taken: Vec<Range<u64>> = copies.collect();
        let bytes: u64 = taken.iter().map(|range| range.end - range.start).sum();
        let chunked = union(taken);
        let joined: u64 = chunked.iter().map(|range| range.end - range.start).sum();
        ensure(bytes == joined, "has chunks that overlap")?;
        let mut free = without(&[0..size], &chunked);
        for chunk in &self.chunks {
            let first = used.partition_point(|range| range.end <= chunk.logical.start);
            let last = used.partition_point(|range| range.start < chunk.logical.end);
            let inside = used.get(first..last).unwrap_or_default();
            for gap in without(std::slice::from_ref(&chunk.logical), inside) {
                let (start, end) = (gap.start - chunk.logical.start, gap.end - chunk.logical.start);
                free.extend(chunk.stripes.iter().map(|place| place + start..place + end));
            }
        }
        let supers = COPIES.map(|at| at..at + COPY_BYTES);
        let kept = union(supers.into_iter().chain([0..RESERVED]).collect());
        let mut ranges = Ranges::default();
        for range in without(&union(free), &kept) {
            ranges.push(range)?;
        }
        Ok(ranges.into_vec())
    }
}
