//! qcow2, versions 2 and 3: header, header extensions, and the tables as far as they can lead astray.
//!
//! Layout and meaning of the fields: QEMU's `docs/interop/qcow2.txt`. Big-endian throughout.
//! A file passes when QEMU could open it read-only without reading any other file, and every table and cluster that
//! the guest could reach lies inside it.

use crate::bytes::{Bytes, find_in_table, human, name, oversized, printable, read_up_to, words64};
use crate::detect::Report;
use crate::facts::Facts;
use crate::{HEAD_BYTES, Source};

/// Most bytes of the active L1 table (QEMU's own bound).
const L1_BYTES: u64 = 32 << 20;
/// Most bytes of the refcount table (QEMU's own bound).
const REFCOUNT_TABLE_BYTES: u64 = 8 << 20;
/// Most internal snapshots (QEMU's own bound).
const SNAPSHOTS: u32 = 65_536;
/// Most header extensions; QEMU writes three or four.
const EXTENSIONS: usize = 64;

const INCOMPATIBLE_DIRTY: u64 = 1;
const INCOMPATIBLE_CORRUPT: u64 = 1 << 1;
const INCOMPATIBLE_DATA_FILE: u64 = 1 << 2;
const INCOMPATIBLE_COMPRESSION: u64 = 1 << 3;
const INCOMPATIBLE_EXTENDED_L2: u64 = 1 << 4;
/// dirty, corrupt, external data file, compression type, extended L2 entries
const INCOMPATIBLE_KNOWN: u64 = 0b1_1111;

/// Most bytes of what a snapshot has beside its fixed fields (QEMU's own bound).
const SNAPSHOT_EXTRA: u32 = 1024;
/// Subclusters, 32 in a cluster, have at least 512 bytes.
const EXTENDED_L2_BITS: u32 = 14;

const EXTENSION_END: u32 = 0;
const EXTENSION_BACKING_FORMAT: u32 = 0xe279_2aca;
const EXTENSION_ENCRYPTION: u32 = 0x0537_be77;
const EXTENSION_DATA_FILE: u32 = 0x4441_5441;

struct Header {
    version: u32,
    backing_offset: u64,
    backing_bytes: u32,
    cluster_bits: u32,
    size: u64,
    crypt_method: u32,
    l1_entries: u32,
    l1_offset: u64,
    refcount_offset: u64,
    refcount_clusters: u32,
    snapshots: u32,
    snapshots_offset: u64,
    incompatible: u64,
    refcount_order: u32,
    header_bytes: u32,
    compression: u8,
}

fn parse(head: Bytes<'_>) -> Option<Header> {
    let version = head.be32(4)?;
    let v3 = version >= 3;
    // Version 2 ends at 72 bytes; what stands behind is no field of it.
    let header_bytes = if v3 { head.be32(100)? } else { 72 };
    Some(Header {
        version,
        backing_offset: head.be64(8)?,
        backing_bytes: head.be32(16)?,
        cluster_bits: head.be32(20)?,
        size: head.be64(24)?,
        crypt_method: head.be32(32)?,
        l1_entries: head.be32(36)?,
        l1_offset: head.be64(40)?,
        refcount_offset: head.be64(48)?,
        refcount_clusters: head.be32(56)?,
        snapshots: head.be32(60)?,
        snapshots_offset: head.be64(64)?,
        incompatible: if v3 { head.be64(72)? } else { 0 },
        refcount_order: if v3 { head.be32(96)? } else { 4 },
        header_bytes,
        compression: if v3 && header_bytes > 104 { head.u8(104)? } else { 0 },
    })
}

impl Header {
    fn cluster_bytes(&self) -> u64 {
        1 << self.cluster_bits
    }

    fn l2_entry_bytes(&self) -> u64 {
        if self.incompatible & INCOMPATIBLE_EXTENDED_L2 != 0 { 16 } else { 8 }
    }

    /// L1 entries that a disk of this size needs.
    fn l1_needed(&self) -> u64 {
        let per_table = self.cluster_bytes() / self.l2_entry_bytes() * self.cluster_bytes();
        self.size.div_ceil(per_table)
    }
}

/// Checks header and extensions, and the tables where the whole file is at hand.
///
/// # Errors
/// Those of the source.
pub(crate) fn report(head: &[u8], source: Option<&dyn Source>) -> std::io::Result<Report> {
    let head = Bytes(head);
    let Some(header) = parse(head) else {
        return Ok(Report::problem("ends inside its header: the upload is truncated"));
    };
    if let Some(problem) = unusable(&header) {
        return Ok(Report::problem(problem));
    }
    let extensions = Extensions::parse(&header, head);
    let problems = foreign(&header, &extensions, head);
    // QEMU leaves out what is no whole sector.
    let mut report =
        Report { virtual_size: header.size / 512 * 512, facts: facts(&header, &extensions, head), problems };
    if let (Some(source), true) = (source, report.problems.is_empty()) {
        report.problems.extend(tables(&header, source)?);
    }
    Ok(report)
}

fn facts(header: &Header, extensions: &Extensions<'_>, head: Bytes<'_>) -> Facts {
    let text = |text: Option<&[u8]>| text.map(name);
    let backed = header.backing_offset != 0;
    Facts {
        subformat: Some(if header.version == 2 { "0.10" } else { "1.1" }.to_owned()),
        cluster_size: Some(header.cluster_bytes()),
        encryption: match header.crypt_method {
            0 => None,
            1 => Some("aes".to_owned()),
            2 => Some("luks".to_owned()),
            other => Some(format!("method {other}")),
        },
        compression: match header.compression {
            0 => Some("zlib".to_owned()),
            1 => Some("zstd".to_owned()),
            _ => None,
        },
        backing_file: backed.then(|| text(backing_name(header, head)).unwrap_or_default()),
        backing_format: text(extensions.backing_format).filter(|_| backed),
        data_file: text(extensions.data_file),
        extents: Vec::new(),
        snapshots: header.snapshots,
        dirty: header.incompatible & INCOMPATIBLE_DIRTY != 0,
        corrupt: header.incompatible & INCOMPATIBLE_CORRUPT != 0,
    }
}

fn backing_name<'a>(header: &Header, head: Bytes<'a>) -> Option<&'a [u8]> {
    head.slice(usize::try_from(header.backing_offset).ok()?, header.backing_bytes.min(1023) as usize)
}

/// The header extensions that name something.
#[derive(Default)]
struct Extensions<'a> {
    backing_format: Option<&'a [u8]>,
    data_file: Option<&'a [u8]>,
    encryption: bool,
    /// They do not end where they must, or are more than any writer makes: a name could hide behind them.
    broken: bool,
}

impl<'a> Extensions<'a> {
    fn parse(header: &Header, head: Bytes<'a>) -> Extensions<'a> {
        // QEMU looks up to the end of the first cluster, or up to the name of the backing file.
        let end = match header.backing_offset {
            0 => header.cluster_bytes(),
            offset => offset.min(header.cluster_bytes()),
        };
        let mut found = Extensions::default();
        let mut offset = header.header_bytes as usize;
        for _ in 0..EXTENSIONS {
            if offset as u64 >= end {
                return found;
            }
            let fields = (head.be32(offset), head.be32(offset.saturating_add(4)));
            let (Some(kind), Some(length)) = fields else {
                // A file that ends here has no more of them, and its tables are missed later.
                found.broken = head.0.len() >= HEAD_BYTES;
                return found;
            };
            let length = length as usize;
            if kind == EXTENSION_END {
                return found;
            }
            offset += 8;
            let content = head.slice(offset, length).filter(|_| (offset + length) as u64 <= end);
            match kind {
                EXTENSION_BACKING_FORMAT => found.backing_format = content,
                EXTENSION_ENCRYPTION => found.encryption = true,
                EXTENSION_DATA_FILE => found.data_file = Some(content.unwrap_or_default()),
                _ => {}
            }
            if content.is_none() {
                found.broken = true;
                return found;
            }
            offset += length.next_multiple_of(8);
        }
        found.broken = true;
        found
    }
}

/// What makes the rest of the header meaningless.
fn unusable(header: &Header) -> Option<String> {
    if !matches!(header.version, 2 | 3) {
        return Some(format!("has version {}; versions 2 and 3 are supported", header.version));
    }
    if !(9..=21).contains(&header.cluster_bits) {
        return Some(format!("has clusters of 2^{} bytes; 2^9 to 2^21 are valid", header.cluster_bits));
    }
    let header_bytes = u64::from(header.header_bytes);
    if header.version == 3 && !(104..=header.cluster_bytes()).contains(&header_bytes) {
        return Some(format!("has a header length of {header_bytes} bytes, which is not valid"));
    }
    if header.incompatible & INCOMPATIBLE_EXTENDED_L2 != 0 && header.cluster_bits < EXTENDED_L2_BITS {
        return Some(format!(
            "has subclusters in clusters of 2^{} bytes; at least 2^14 are needed",
            header.cluster_bits
        ));
    }
    if header.refcount_order > 6 {
        return Some(format!("has reference counts of 2^{} bits; at most 2^6 are valid", header.refcount_order));
    }
    None
}

/// What points outside the file, or needs what nobody here has.
fn foreign(header: &Header, extensions: &Extensions<'_>, head: Bytes<'_>) -> Vec<String> {
    let mut problems = Vec::new();
    if header.backing_offset != 0 {
        let name = backing_name(header, head);
        let name = name.map_or_else(String::new, |name| format!(" ('{}')", printable(name)));
        problems.push(format!(
            "has a backing file{name}, and an image must be one self-contained file: flatten it with \
             'qemu-img convert -O qcow2'"
        ));
    }
    if header.incompatible & INCOMPATIBLE_DATA_FILE != 0 || extensions.data_file.is_some() {
        problems.push(
            "has an external data file, and an image must be one self-contained file: flatten it with \
             'qemu-img convert -O qcow2'"
                .to_owned(),
        );
    }
    if extensions.broken {
        problems.push("is corrupt: its header extensions do not end inside its header".to_owned());
    }
    let unknown = header.incompatible & !INCOMPATIBLE_KNOWN;
    if unknown != 0 {
        problems.push(format!("needs features that are not known (incompatible feature bits {unknown:#x})"));
    }
    if header.incompatible & INCOMPATIBLE_CORRUPT != 0 {
        problems.push("is marked as corrupt: repair it with 'qemu-img check -r all'".to_owned());
    }
    let compression_flag = header.incompatible & INCOMPATIBLE_COMPRESSION != 0;
    if header.compression > 1 || compression_flag != (header.compression != 0) {
        problems.push(format!("has the unknown compression type {}", header.compression));
    }
    if header.crypt_method != 0 || extensions.encryption {
        problems.push("is encrypted, and there is no key for it: upload it decrypted".to_owned());
    }
    problems.extend(oversized(header.size));
    problems
}

/// Bounds of all tables, then what they point to.
fn tables(header: &Header, source: &dyn Source) -> std::io::Result<Vec<String>> {
    let end = source.size_bytes();
    let cluster = header.cluster_bytes();
    let l1_bytes = u64::from(header.l1_entries) * 8;
    let refcount_bytes = u64::from(header.refcount_clusters) * cluster;
    let mut problems = Vec::new();
    if l1_bytes > L1_BYTES {
        problems.push(format!("has an L1 table of {}; at most {} are valid", human(l1_bytes), human(L1_BYTES)));
    } else if u64::from(header.l1_entries) < header.l1_needed() {
        problems.push(format!(
            "is corrupt: its L1 table has {} entries and a disk of {} needs {}",
            header.l1_entries,
            human(header.size),
            header.l1_needed()
        ));
    }
    if refcount_bytes == 0 || refcount_bytes > REFCOUNT_TABLE_BYTES.max(cluster) {
        problems.push(format!("has a reference count table of {refcount_bytes} bytes, which is not valid"));
    }
    if header.snapshots > SNAPSHOTS {
        problems.push(format!("has {} internal snapshots; at most {SNAPSHOTS} are valid", header.snapshots));
    }
    let snapshot_bytes = if header.snapshots == 0 { 0 } else { u64::from(header.snapshots) * 40 };
    let ranges = [
        ("L1 table", header.l1_offset, l1_bytes),
        ("reference count table", header.refcount_offset, refcount_bytes),
        ("snapshot table", header.snapshots_offset, snapshot_bytes),
    ];
    for (what, offset, length) in ranges {
        if length == 0 {
            continue;
        }
        if !offset.is_multiple_of(cluster) || offset == 0 {
            problems.push(format!("is corrupt: its {what} at {offset:#x} does not begin at a cluster"));
        } else if offset.checked_add(length).is_none_or(|last| last > end) {
            problems.push(truncated(what, end));
        }
    }
    if problems.is_empty() {
        problems.extend(snapshots(header, source)?);
        problems.extend(clusters(header, source)?);
    }
    Ok(problems)
}

fn truncated(what: &str, end: u64) -> String {
    format!("is truncated or corrupt: its {what} lies beyond its end at {end} bytes")
}

/// Whether each snapshot's entry lies in the file and is as long as it may be. QEMU reads them when it opens the file.
fn snapshots(header: &Header, source: &dyn Source) -> std::io::Result<Option<String>> {
    const FIXED: u64 = 40;
    let end = source.size_bytes();
    if header.snapshots == 0 {
        return Ok(None);
    }
    let mut at = header.snapshots_offset;
    for _ in 0..header.snapshots {
        if at.saturating_add(FIXED) > end {
            return Ok(Some(truncated("snapshot table", end)));
        }
        let entry = read_up_to(source, at, FIXED as usize)?;
        let entry = Bytes(&entry);
        let (id, name) = (entry.be16(12).unwrap_or(0), entry.be16(14).unwrap_or(0));
        let extra = entry.be32(36).unwrap_or(0);
        if extra > SNAPSHOT_EXTRA {
            return Ok(Some(format!("has a snapshot with {extra} bytes more; at most {SNAPSHOT_EXTRA} are valid")));
        }
        at += (FIXED + u64::from(extra) + u64::from(id) + u64::from(name)).next_multiple_of(8);
    }
    Ok((at > end.next_multiple_of(8)).then(|| truncated("snapshot table", end)))
}

/// Follows the active L1 table to the L2 tables and those to the data: none may lie outside the file. Each L2 table
/// is read once, so that the work is bounded by the file's own size.
fn clusters(header: &Header, source: &dyn Source) -> std::io::Result<Option<String>> {
    const OFFSET: u64 = 0x00ff_ffff_ffff_fe00;
    let end = source.size_bytes();
    let cluster = header.cluster_bytes();
    let mut l2_tables: Vec<u64> = Vec::new();
    find_in_table(source, header.l1_offset, u64::from(header.l1_entries) * 8, |piece| {
        l2_tables.extend(words(piece).map(|entry| entry & OFFSET).filter(|offset| *offset != 0));
        None::<()>
    })?;
    l2_tables.sort_unstable();
    l2_tables.dedup();
    for offset in l2_tables {
        if !offset.is_multiple_of(cluster) {
            return Ok(Some(format!("is corrupt: an L2 table at {offset:#x} does not begin at a cluster")));
        }
        if offset.checked_add(cluster).is_none_or(|last| last > end) {
            return Ok(Some(truncated("L2 table", end)));
        }
        let table = read_up_to(source, offset, cluster as usize)?;
        let step = header.l2_entry_bytes() as usize / 8;
        if let Some(problem) = words(&table).step_by(step).find_map(|entry| bad_entry(header, entry, end)) {
            return Ok(Some(problem));
        }
    }
    Ok(None)
}

/// Why an L2 entry is not valid. A last cluster may be cut short by the end of the file (QEMU reads zeroes there).
fn bad_entry(header: &Header, entry: u64, end: u64) -> Option<String> {
    const COMPRESSED: u64 = 1 << 62;
    const OFFSET: u64 = 0x00ff_ffff_ffff_fe00;
    let offset = if entry & COMPRESSED != 0 {
        let offset_bits = 62 - (header.cluster_bits - 8);
        entry & ((1 << offset_bits) - 1)
    } else {
        let offset = entry & OFFSET;
        if !offset.is_multiple_of(header.cluster_bytes()) {
            return Some(format!("is corrupt: a cluster at {offset:#x} does not begin at a multiple of its size"));
        }
        offset
    };
    (offset >= end).then(|| truncated("data", end))
}

fn words(table: &[u8]) -> impl Iterator<Item = u64> + '_ {
    words64(table, u64::from_be_bytes)
}
