//! How a file is damaged.

/// One change. Numbers are written as the format has them.
#[derive(Clone, Copy)]
pub enum Edit {
    /// Only so many bytes are left.
    Cut(usize),
    /// So many bytes are gone from the end.
    CutEnd(usize),
    Big32(usize, u32),
    Big64(usize, u64),
    Little16(usize, u16),
    Little32(usize, u32),
    Little64(usize, u64),
    Bytes(usize, &'static [u8]),
    /// Before the end.
    BytesAtEnd(usize, &'static [u8]),
    /// A text for another of the same length, the first time that it stands there.
    Text(&'static str, &'static str),
    /// The checksums of a VHD's footers and header, made right again.
    VhdSums,
    /// Those of a VHDX's headers and region tables.
    VhdxSums,
}
pub use Edit::*;

pub fn damage(mut file: Vec<u8>, edits: &[Edit]) -> Vec<u8> {
    for edit in edits {
        let end = file.len();
        match *edit {
            Cut(length) => file.truncate(length),
            CutEnd(length) => file.truncate(end - length),
            Big32(at, value) => put(&mut file, at, &value.to_be_bytes()),
            Big64(at, value) => put(&mut file, at, &value.to_be_bytes()),
            Little16(at, value) => put(&mut file, at, &value.to_le_bytes()),
            Little32(at, value) => put(&mut file, at, &value.to_le_bytes()),
            Little64(at, value) => put(&mut file, at, &value.to_le_bytes()),
            Bytes(at, bytes) => put(&mut file, at, bytes),
            BytesAtEnd(before, bytes) => put(&mut file, end - before, bytes),
            Text(old, new) => {
                assert_eq!(old.len(), new.len());
                let at = file.windows(old.len()).position(|window| window == old.as_bytes()).expect("it is there");
                put(&mut file, at, new.as_bytes());
            }
            VhdSums => {
                vhd_sum(&mut file[512..1536], 36);
                vhd_sum(&mut file[..512], 64);
                vhd_sum(&mut file[end - 512..], 64);
            }
            VhdxSums => {
                for (at, length) in [(65536, 4096), (131_072, 4096), (196_608, 65536), (262_144, 65536)] {
                    put(&mut file, at + 4, &[0; 4]);
                    let sum = crc32c(&file[at..at + length]);
                    put(&mut file, at + 4, &sum.to_le_bytes());
                }
            }
        }
    }
    file
}

fn put(file: &mut [u8], at: usize, bytes: &[u8]) {
    file[at..at + bytes.len()].copy_from_slice(bytes);
}

fn vhd_sum(part: &mut [u8], at: usize) {
    put(part, at, &[0; 4]);
    let sum = part.iter().fold(0u32, |sum, byte| sum.wrapping_add((*byte).into()));
    put(part, at, &(!sum).to_be_bytes());
}

fn crc32c(bytes: &[u8]) -> u32 {
    let bit = |crc: u32, _| if crc & 1 == 1 { (crc >> 1) ^ 0x82f6_3b78 } else { crc >> 1 };
    !bytes.iter().fold(u32::MAX, |crc, byte| (0..8).fold(crc ^ u32::from(*byte), bit))
}
