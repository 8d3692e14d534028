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

    pub fn be16(self, offset: usize) -> Option<u16> {
        self.array(offset).map(u16::from_be_bytes)
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

/// Shows a table to `look` in pieces of at most 1 MiB, however long a file says that it is, until that finds something.
/// What lies beyond the end is not shown. Pieces begin at multiples of 1 MiB from the table's start.
pub(crate) fn find_in_table<T>(
    source: &dyn Source,
    offset: u64,
    length: u64,
    mut look: impl FnMut(&[u8]) -> Option<T>,
) -> std::io::Result<Option<T>> {
    const PIECE: u64 = 1 << 20;
    let mut done = 0;
    while done < length {
        let piece = read_up_to(source, offset.saturating_add(done), PIECE.min(length - done) as usize)?;
        if piece.is_empty() {
            break;
        }
        if let Some(found) = look(&piece) {
            return Ok(Some(found));
        }
        done += PIECE;
    }
    Ok(None)
}

/// The 32-bit words of a table, as `read` takes them.
pub(crate) fn words32(table: &[u8], read: fn([u8; 4]) -> u32) -> impl Iterator<Item = u32> + '_ {
    table.chunks_exact(4).map(move |word| read(word.try_into().unwrap_or_default()))
}

/// The 64-bit words of a table, as `read` takes them.
pub(crate) fn words64(table: &[u8], read: fn([u8; 8]) -> u64) -> impl Iterator<Item = u64> + '_ {
    table.chunks_exact(8).map(move |word| read(word.try_into().unwrap_or_default()))
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

/// Bytes as one line of text, at most 1023 characters as QEMU's names are: what is not printable ASCII becomes `.`.
pub(crate) fn name(bytes: &[u8]) -> String {
    bytes.iter().take(1023).map(|b| if b.is_ascii_graphic() || *b == b' ' { *b as char } else { '.' }).collect()
}

/// The clause on a disk whose bytes cannot be counted with the 63 bits that programs have for them.
pub(crate) fn oversized(virtual_size: u64) -> Option<String> {
    let most = i64::MAX.unsigned_abs();
    (virtual_size > most).then(|| format!("has a disk of {virtual_size} bytes; no disk has more than 2^63 - 1"))
}

/// CRC-32C (Castagnoli), as VHDX uses it.
pub(crate) fn crc32c(parts: &[&[u8]]) -> u32 {
    const TABLE: [u32; 256] = crc32c_table();
    let step = |crc: u32, byte: &u8| TABLE[usize::from(crc as u8 ^ byte)] ^ (crc >> 8);
    !parts.iter().flat_map(|part| part.iter()).fold(u32::MAX, step)
}

const fn crc32c_table() -> [u32; 256] {
    let mut table = [0; 256];
    let mut n = 0;
    while n < 256 {
        let mut crc = n as u32;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 1 == 1 { (crc >> 1) ^ 0x82f6_3b78 } else { crc >> 1 };
            bit += 1;
        }
        table[n] = crc;
        n += 1;
    }
    table
}
