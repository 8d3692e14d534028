//! What a qcow2 file says of the file that it stands on: read, never followed.

use format::Source;
use std::io;

/// QEMU's own bound on the name.
const NAME_BYTES: u32 = 1023;
const EXTENSION_END: u32 = 0;
const EXTENSION_BACKING_FORMAT: u32 = 0xe279_2aca;
/// Header extensions that are looked at.
const EXTENSIONS: usize = 64;
/// Header, extensions and name lie in the first cluster.
const HEAD_BYTES: u64 = 2 << 20;

/// As it stands in the header; the bytes of a stranger.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backing {
    pub name: String,
    pub format: Option<String>,
}

/// The backing file that a qcow2 header names.
pub(crate) fn backing(source: &dyn Source) -> io::Result<Option<Backing>> {
    let length = usize::try_from(source.size_bytes().min(HEAD_BYTES)).unwrap_or(0);
    let mut first = vec![0; length.min(104)];
    source.read_at(0, &mut first)?;
    if !first.starts_with(b"QFI\xfb") || word64(&first, 8).is_none_or(|offset| offset == 0) {
        return Ok(None);
    }
    let mut head = vec![0; length];
    source.read_at(0, &mut head)?;
    Ok(named(&head))
}

fn named(head: &[u8]) -> Option<Backing> {
    let offset = usize::try_from(word64(head, 8)?).ok()?;
    let length = word32(head, 16)?.min(NAME_BYTES) as usize;
    let name = head.get(offset..offset.checked_add(length)?).unwrap_or_default();
    let name = String::from_utf8_lossy(name).chars().map(|c| if c.is_control() { '.' } else { c }).collect();
    let begin = if word32(head, 4)? >= 3 { word32(head, 100)? as usize } else { 72 };
    Some(Backing { name, format: backing_format(head, begin) })
}

fn backing_format(head: &[u8], mut at: usize) -> Option<String> {
    for _ in 0..EXTENSIONS {
        let (kind, length) = (word32(head, at)?, word32(head, at.checked_add(4)?)? as usize);
        let begin = at.checked_add(8)?;
        match kind {
            EXTENSION_END => return None,
            EXTENSION_BACKING_FORMAT => {
                let bytes = head.get(begin..begin.checked_add(length)?)?;
                return Some(String::from_utf8_lossy(bytes.get(..length.min(32))?).into_owned());
            }
            _ => at = begin.checked_add(length.checked_next_multiple_of(8)?)?,
        }
    }
    None
}

fn word32(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_be_bytes(bytes.get(at..at.checked_add(4)?)?.try_into().ok()?))
}

fn word64(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_be_bytes(bytes.get(at..at.checked_add(8)?)?.try_into().ok()?))
}

/// A qcow2 file as if it named no backing file: for the inspector, which then looks at all the rest.
pub(crate) struct Masked<'a>(pub &'a dyn Source);

/// Offset and length of the name.
const NAME_FIELDS: std::ops::Range<u64> = 8..20;

impl Source for Masked<'_> {
    fn size_bytes(&self) -> u64 {
        self.0.size_bytes()
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.0.read_at(offset, buffer)?;
        for (at, byte) in (offset..).zip(buffer.iter_mut()).take(NAME_FIELDS.end as usize) {
            if NAME_FIELDS.contains(&at) {
                *byte = 0;
            }
        }
        Ok(())
    }
}
