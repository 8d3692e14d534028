//! Files of formats that `qemu-img` cannot make.

fn put(file: &mut Vec<u8>, at: usize, bytes: &[u8]) {
    if file.len() < at + bytes.len() {
        file.resize(at + bytes.len(), 0);
    }
    file[at..at + bytes.len()].copy_from_slice(bytes);
}

/// An ISO 9660 volume of so many blocks, with so many bytes behind it; `udf` beside it or alone.
pub fn iso(blocks: u32, behind: usize, udf: bool, alone: bool) -> Vec<u8> {
    let mut file = vec![0; blocks as usize * 2048 + behind];
    if !alone {
        put(&mut file, 32768, b"\x01CD001\x01");
        put(&mut file, 32768 + 80, &blocks.to_le_bytes());
        put(&mut file, 32768 + 84, &blocks.to_be_bytes());
        put(&mut file, 32768 + 128, &[0, 8, 8, 0]);
        put(&mut file, 34816, b"\xffCD001\x01");
    }
    if udf {
        for (sector, id) in [(18, b"\0BEA01"), (19, b"\0NSR02"), (20, b"\0TEA01")] {
            put(&mut file, sector * 2048, id);
        }
    }
    file
}

/// A disk of so many bytes with partitions of these types, and a GPT's header at `gpt`.
pub fn partitioned(bytes: usize, types: &[u8], gpt: Option<usize>) -> Vec<u8> {
    let mut file = vec![0; bytes];
    for (n, kind) in types.iter().enumerate() {
        put(&mut file, 446 + 16 * n, &[0, 0, 2, 0, *kind, 0, 0, 0, 1, 0, 0, 0, 0xff, 0, 0, 0]);
    }
    put(&mut file, 510, &[0x55, 0xaa]);
    if let Some(at) = gpt {
        put(&mut file, at, b"EFI PART\0\0\x01\0");
    }
    file
}

/// A ploop of the older version: so many blocks of so many sectors, the first `filled` of them there.
pub fn ploop(blocks: u32, block_sectors: u32, filled: u32) -> Vec<u8> {
    let block_bytes = block_sectors as usize * 512;
    let first = (64 + blocks as usize * 4).next_multiple_of(block_bytes);
    let mut file = vec![0; first + filled as usize * block_bytes];
    put(&mut file, 0, b"WithoutFreeSpace");
    let fields = [2, 16, 4, block_sectors, blocks, blocks * block_sectors, 0, 0, first as u32 / 512];
    put(&mut file, 16, &fields.map(u32::to_le_bytes).concat());
    for n in 0..filled {
        put(&mut file, 64 + n as usize * 4, &(first as u32 / 512 + n * block_sectors).to_le_bytes());
    }
    file
}
