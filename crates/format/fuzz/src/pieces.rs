//! A file written down as the pieces that are not zero: tables of megabytes fit into a corpus of kilobytes, and a
//! mutation meets a field rather than emptiness.
//!
//! Little-endian: the size in sectors (u32), bytes past the last sector (u16), then pieces until the end, each its
//! place in units of 16 bytes (u32), its length (u16) and its bytes. Later pieces lie over earlier ones.

use format::Source;

/// Files are at most this large, so that an input of a few bytes cannot ask for hours of reading.
pub const MOST_BYTES: u64 = 24 << 20;
const UNIT: u64 = 16;
/// Zeroes that end a piece.
const GAP: usize = 32;

pub struct Pieces<'a> {
    size: u64,
    pieces: Vec<(u64, &'a [u8])>,
}

impl<'a> Pieces<'a> {
    /// None where the input is too short to say a size.
    pub fn parse(input: &'a [u8]) -> Option<Pieces<'a>> {
        let (sectors, input) = input.split_first_chunk::<4>()?;
        let (rest, mut input) = input.split_first_chunk::<2>()?;
        let size = u64::from(u32::from_le_bytes(*sectors)) * 512 + u64::from(u16::from_le_bytes(*rest));
        let mut pieces = Vec::new();
        while let Some((at, more)) = input.split_first_chunk::<4>()
            && let Some((length, more)) = more.split_first_chunk::<2>()
        {
            let (piece, more) = more.split_at(usize::from(u16::from_le_bytes(*length)).min(more.len()));
            pieces.push((u64::from(u32::from_le_bytes(*at)) * UNIT, piece));
            input = more;
        }
        Some(Pieces { size: size.min(MOST_BYTES), pieces })
    }

    /// The other way round. Keeps at most `most_bytes` of each run that is not zero: data of a guest say nothing.
    pub fn pack(file: &[u8], most_bytes: usize) -> Vec<u8> {
        let mut packed = (file.len() as u32 / 512).to_le_bytes().to_vec();
        packed.extend((file.len() as u16 % 512).to_le_bytes());
        let mut at = 0;
        while let Some(next) = file[at..].iter().position(|byte| *byte != 0) {
            let start = (at + next) / UNIT as usize * UNIT as usize;
            let mut end = at + next;
            while let Some(more) = file[end..].iter().take(GAP).rposition(|byte| *byte != 0) {
                end += more + 1;
            }
            let kept = &file[start..end.min(start + most_bytes.min(u16::MAX.into()))];
            packed.extend((start as u32 / UNIT as u32).to_le_bytes());
            packed.extend((kept.len() as u16).to_le_bytes());
            packed.extend(kept);
            at = end;
        }
        packed
    }
}

impl Source for Pieces<'_> {
    fn size_bytes(&self) -> u64 {
        self.size
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> std::io::Result<()> {
        let end = offset.checked_add(buffer.len() as u64).filter(|end| *end <= self.size);
        let end = end.ok_or(std::io::ErrorKind::UnexpectedEof)?;
        buffer.fill(0);
        for (at, piece) in &self.pieces {
            let (from, to) = (offset.max(*at), end.min(at + piece.len() as u64));
            if from < to {
                let taken = &piece[(from - at) as usize..(to - at) as usize];
                buffer[(from - offset) as usize..(to - offset) as usize].copy_from_slice(taken);
            }
        }
        Ok(())
    }
}
