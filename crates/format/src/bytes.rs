//! Reading numbers and ranges without ever panicking: what lies outside is `None`.

use crate::Source;

/// A window on bytes that may be too short.
#[derive(Clone, Copy)]
pub(crate) struct Bytes<'a>(pub &'a [u8]);

impl<'a> Bytes<'a> {
    fn array<const N: usize>(self, offset: usize) -> Option<[u8; N]> {
        self.slice(offset, N)?.try_into().ok()
    }

    pub fn slice(self, offset: usize, length: usize) -> Option<&'a [u8]> {
        self.0.get(offset..offset.checked_add(length)?)
    }

    pub fn starts_at(self, offset: usize, magic: &[u8]) -> bool {
        self.slice(offset, magic.len()) == Some(magic)
    }

    pub fn u8(self, offset: usize) -> Option<u8> {
        self.0.get(offset).copied()
    }

    pub fn be32(self, offset: usize) -> Option<u32> {
        self.array(offset).map(u32::from_be_bytes)
    }

    pub fn be64(self, offset: usize) -> Option<u64> {
        self.array(offset).map(u64::from_be_bytes)
    }

    pub fn le16(self, offset: usize) -> Option<u16> {
        self.array(offset).map(u16::from_le_bytes)
    }

    pub fn le32(self, offset: usize) -> Option<u32> {
        self.array(offset).map(u32::from_le_bytes)
    }

    pub fn le64(self, offset: usize) -> Option<u64> {
        self.array(offset).map(u64::from_le_bytes)
    }
}

/// `length` bytes at `offset`, or as many as the file has there. The caller bounds `length`.
pub(crate) fn read_up_to(source: &dyn Source, offset: u64, length: usize) -> std::io::Result<Vec<u8>> {
    let there = source.size_bytes().saturating_sub(offset);
    let length = usize::try_from(there).unwrap_or(usize::MAX).min(length);
    let mut buffer = vec![0; length];
    if length > 0 {
        source.read_at(offset, &mut buffer)?;
    }
    Ok(buffer)
}

/// Bytes as text for a message: printable ASCII, at most 60 characters.
pub(crate) fn printable(bytes: &[u8]) -> String {
    let shown = bytes.iter().take(60).map(|b| if b.is_ascii_graphic() || *b == b' ' { *b as char } else { '.' });
    shown.collect()
}

/// Bytes in the largest unit that keeps the number readable: `1.5 TiB`.
pub(crate) fn human(bytes: u64) -> String {
    let units = ["bytes", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < units.len() {
        value /= 1024.0;
        unit += 1;
    }
    let number = format!("{value:.1}");
    format!("{} {}", number.strip_suffix(".0").unwrap_or(&number), units[unit])
}
