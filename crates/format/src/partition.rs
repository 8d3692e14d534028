//! How a raw disk is laid out: partition tables and bare file systems.

use crate::bytes::Bytes;
use crate::detect::Layout;

/// Looks at the first sectors. A boot sector alone (`0x55AA`) is no partition table: FAT, NTFS and Linux kernels have
/// one, too, so a table needs at least one plausible entry.
pub(crate) fn layout(head: &[u8]) -> Layout {
    let bytes = Bytes(head);
    if [512, 4096].iter().any(|sector| bytes.starts_at(*sector, b"EFI PART")) {
        return Layout::Gpt;
    }
    if is_file_system(bytes) {
        return Layout::FileSystem;
    }
    if bytes.le16(510) == Some(0xaa55) {
        return if has_partition(bytes) { Layout::Mbr } else { Layout::BootSector };
    }
    Layout::Unknown
}

fn is_file_system(bytes: Bytes<'_>) -> bool {
    let fat = (bytes.starts_at(54, b"FAT") || bytes.starts_at(82, b"FAT32")) && bytes.le16(510) == Some(0xaa55);
    fat || bytes.starts_at(3, b"NTFS    ")
        || bytes.le16(1080) == Some(0xef53)
        || bytes.starts_at(0, b"XFSB")
        || bytes.starts_at(0, b"hsqs")
}

fn has_partition(bytes: Bytes<'_>) -> bool {
    let entries: Vec<&[u8]> = (0..4).filter_map(|n| bytes.slice(446 + 16 * n, 16)).collect();
    entries.iter().all(|entry| matches!(entry[0], 0 | 0x80)) && entries.iter().any(|entry| entry[4] != 0)
}
