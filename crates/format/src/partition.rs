//! How a raw disk is laid out: partition tables and bare file systems.
//!
//! A GPT counts where a protective MBR leads to it, as firmware and kernels have it. An MBR that has partitions of its
//! own beside the protective one is a hybrid: the same disk is divided differently for different readers.

use crate::bytes::Bytes;
use crate::detect::Layout;

/// The type of an MBR's entry that stands for a GPT.
const PROTECTIVE: u8 = 0xee;

/// Looks at the first sectors. A boot sector alone (`0x55AA`) is no partition table: FAT, NTFS and Linux kernels have
/// one, too, so a table needs at least one plausible entry.
pub(crate) fn layout(head: &[u8]) -> Layout {
    let bytes = Bytes(head);
    let signed = bytes.le16(510) == Some(0xaa55);
    let types = if signed { partition_types(bytes) } else { Vec::new() };
    let gpt = [512, 4096].iter().any(|sector| bytes.starts_at(*sector, b"EFI PART"));
    if gpt && types.contains(&PROTECTIVE) {
        return if types.iter().all(|kind| *kind == PROTECTIVE) { Layout::Gpt } else { Layout::HybridMbr };
    }
    if is_file_system(bytes) {
        return Layout::FileSystem;
    }
    match signed {
        true if types.is_empty() => Layout::BootSector,
        true => Layout::Mbr,
        false => Layout::Unknown,
    }
}

/// True where the beginning is divided into partitions, which no format but a raw disk has there.
pub(crate) fn is_table(layout: Layout) -> bool {
    matches!(layout, Layout::Gpt | Layout::Mbr | Layout::HybridMbr)
}

fn is_file_system(bytes: Bytes<'_>) -> bool {
    let fat = (bytes.starts_at(54, b"FAT") || bytes.starts_at(82, b"FAT32")) && bytes.le16(510) == Some(0xaa55);
    fat || bytes.starts_at(3, b"NTFS    ")
        || bytes.le16(1080) == Some(0xef53)
        || bytes.starts_at(0, b"XFSB")
        || bytes.starts_at(0, b"hsqs")
}

/// The types of the primary partitions; none where an entry cannot be one.
fn partition_types(bytes: Bytes<'_>) -> Vec<u8> {
    let entries: Vec<&[u8]> = (0..4).filter_map(|n| bytes.slice(446 + 16 * n, 16)).collect();
    if !entries.iter().all(|entry| matches!(entry[0], 0 | 0x80)) {
        return Vec::new();
    }
    entries.iter().map(|entry| entry[4]).filter(|kind| *kind != 0).collect()
}
