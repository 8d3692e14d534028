//! Small files built by hand, each right in all that is looked at.

use crate::bytes::crc32c;

pub const VMDK_DESCRIPTOR: &str = "# Disk DescriptorFile\nversion=1\nCID=1\nparentCID=ffffffff\n\
                                   createType=\"monolithicSparse\"\nRW 2048 SPARSE \"a.vmdk\"\n";

pub fn with(mut file: Vec<u8>, at: usize, bytes: &[u8]) -> Vec<u8> {
    if file.len() < at + bytes.len() {
        file.resize(at + bytes.len(), 0);
    }
    file[at..at + bytes.len()].copy_from_slice(bytes);
    file
}

/// Several fields at once: where, and the bytes there.
pub fn all(file: Vec<u8>, fields: &[(usize, &[u8])]) -> Vec<u8> {
    fields.iter().fold(file, |file, (at, bytes)| with(file, *at, bytes))
}

/// A qcow2 of version 3 with one L2 table and one data cluster, as QEMU lays it out.
pub fn qcow2() -> Vec<u8> {
    const CLUSTER: usize = 65536;
    let mut file = vec![0; 6 * CLUSTER];
    let mut put = |at: usize, bytes: &[u8]| file[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, b"QFI\xfb");
    put(4, &3u32.to_be_bytes());
    put(20, &16u32.to_be_bytes());
    put(24, &(1u64 << 30).to_be_bytes());
    put(36, &2u32.to_be_bytes());
    put(40, &(3 * CLUSTER as u64).to_be_bytes());
    put(48, &(CLUSTER as u64).to_be_bytes());
    put(56, &1u32.to_be_bytes());
    put(96, &4u32.to_be_bytes());
    put(100, &112u32.to_be_bytes());
    put(CLUSTER, &(2 * CLUSTER as u64).to_be_bytes());
    put(3 * CLUSTER, &((4 * CLUSTER as u64) | (1 << 63)).to_be_bytes());
    put(4 * CLUSTER, &((5 * CLUSTER as u64) | (1 << 63)).to_be_bytes());
    file
}

/// A sparse VMDK of 1 MiB: header, descriptor at sector 1, grain directory at 8, one table at 9, one grain at 16.
pub fn vmdk(descriptor: &str) -> Vec<u8> {
    let fields: [(usize, &[u8]); 12] = [
        (0, b"KDMV"),
        (4, &1u32.to_le_bytes()),
        (12, &2048u64.to_le_bytes()),
        (20, &128u64.to_le_bytes()),
        (28, &1u64.to_le_bytes()),
        (36, &7u64.to_le_bytes()),
        (44, &512u32.to_le_bytes()),
        (56, &8u64.to_le_bytes()),
        (64, &16u64.to_le_bytes()),
        (512, descriptor.as_bytes()),
        (8 * 512, &9u32.to_le_bytes()),
        (9 * 512, &16u32.to_le_bytes()),
    ];
    all(vec![0; (16 + 128) * 512], &fields)
}

/// A volume of 34 blocks of 2 KiB, and so is the file.
pub fn iso() -> Vec<u8> {
    let file = with(vec![0; 34 * 2048], 16 * 2048, b"\x01CD001\x01");
    let file = with(file, 16 * 2048 + 80, &34u32.to_le_bytes());
    with(file, 16 * 2048 + 128, &2048u16.to_le_bytes())
}

/// A disk of 1 GiB with nothing on it.
pub fn vdi() -> Vec<u8> {
    let fields: [(usize, &[u8]); 9] = [
        (0x40, b"\x7f\x10\xda\xbe"),
        (0x44, &0x10001u32.to_le_bytes()),
        (0x4c, &1u32.to_le_bytes()),
        (0x154, &512u32.to_le_bytes()),
        (0x158, &4608u32.to_le_bytes()),
        (0x168, &512u32.to_le_bytes()),
        (0x170, &(1u64 << 30).to_le_bytes()),
        (0x178, &(1u32 << 20).to_le_bytes()),
        (0x180, &1024u32.to_le_bytes()),
    ];
    with(all(vec![0; 4608], &fields), 512, &[0xff; 4096])
}

/// The complement of the sum of all bytes, at `at`.
pub fn vhd_sum(bytes: Vec<u8>, at: usize) -> Vec<u8> {
    let bytes = with(bytes, at, &[0; 4]);
    let sum = bytes.iter().fold(0u32, |sum, byte| sum.wrapping_add((*byte).into()));
    with(bytes, at, &(!sum).to_be_bytes())
}

pub fn vhd_footer(kind: u32, size: u64) -> Vec<u8> {
    let fields: [(usize, &[u8]); 5] = [
        (0, b"conectix"),
        (16, &if kind == 2 { u64::MAX } else { 512 }.to_be_bytes()),
        (28, b"win "),
        (48, &size.to_be_bytes()),
        (60, &kind.to_be_bytes()),
    ];
    vhd_sum(all(vec![0; 512], &fields), 64)
}

/// A disk of one block of 4 KiB, which is not there. `header` changes its header.
pub fn vhd_dynamic(kind: u32, header: &[(usize, &[u8])]) -> Vec<u8> {
    let fields: [(usize, &[u8]); 4] =
        [(0, b"cxsparse"), (16, &1536u64.to_be_bytes()), (28, &1u32.to_be_bytes()), (32, &4096u32.to_be_bytes())];
    let header = vhd_sum(all(all(vec![0; 1024], &fields), header), 36);
    let footer = vhd_footer(kind, 4096);
    all(Vec::new(), &[(0, &footer), (512, &header), (1536, &[0xff; 512]), (2048, &footer)])
}

pub fn vhd_fixed() -> Vec<u8> {
    with(vec![7; 4096], 4096, &vhd_footer(2, 4096))
}

/// Puts the CRC of `length` bytes at `at` behind their signature.
pub fn vhdx_sum(file: Vec<u8>, at: usize, length: usize) -> Vec<u8> {
    let file = with(file, at + 4, &[0; 4]);
    let sum = crc32c(&[&file[at..at + length]]);
    with(file, at + 4, &sum.to_le_bytes())
}

pub const VHDX_METADATA: usize = 2 << 20;

/// A disk of 1 GiB with nothing on it. `header` changes the one header, `metadata` what is in the region.
pub fn vhdx(flags: u32, header: &[(usize, &[u8])], metadata: &[(usize, &[u8])]) -> Vec<u8> {
    let blocks = b"\x66\x77\xc2\x2d\x23\xf6\x00\x42\x9d\x64\x11\x5e\x9b\xfd\x4a\x08";
    let region = b"\x06\xa2\x7c\x8b\x90\x47\x9a\x4b\xb8\xfe\x57\x5f\x05\x0f\x88\x6e";
    let size = b"\x24\x42\xa5\x2f\x1b\xcd\x76\x48\xb2\x11\x5d\xbe\xd8\x3b\xf4\xb8";
    let parameters = b"\x37\x67\xa1\xca\x36\xfa\x43\x4d\xb3\xb6\x33\xf0\xaa\x44\xe7\x6b";
    let sector = b"\x1d\xbf\x41\x81\x6f\xa9\x09\x47\xba\x47\xf2\x33\xa8\xfa\xab\x5f";
    let table = 192 * 1024;
    let fields: [(usize, &[u8]); 11] = [
        (0, b"vhdxfile"),
        (65536, b"head"),
        (65536 + 66, &1u16.to_le_bytes()),
        (table, b"regi"),
        (table + 8, &2u32.to_le_bytes()),
        (table + 16, blocks),
        (table + 32, &(1u64 << 20).to_le_bytes()),
        (table + 40, &(1u32 << 20).to_le_bytes()),
        (table + 48, region),
        (table + 64, &(VHDX_METADATA as u64).to_le_bytes()),
        (table + 72, &(1u32 << 20).to_le_bytes()),
    ];
    let items: [(usize, &[u8]); 12] = [
        (0, b"metadata"),
        (10, &3u16.to_le_bytes()),
        (32, size),
        (48, &65536u32.to_le_bytes()),
        (64, parameters),
        (80, &65544u32.to_le_bytes()),
        (96, sector),
        (112, &65552u32.to_le_bytes()),
        (65536, &(1u64 << 30).to_le_bytes()),
        (65544, &(8u32 << 20).to_le_bytes()),
        (65548, &flags.to_le_bytes()),
        (65552, &512u32.to_le_bytes()),
    ];
    let mut file = all(vec![0; 3 << 20], &fields);
    for (at, bytes) in items.iter().chain(metadata) {
        file = with(file, VHDX_METADATA + at, bytes);
    }
    for (at, bytes) in header {
        file = with(file, 65536 + at, bytes);
    }
    vhdx_sum(vhdx_sum(file, 65536, 4096), table, 65536)
}

/// A disk of 4 MiB in blocks of 1 MiB, the first of them there.
pub fn parallels(magic: &[u8; 16]) -> Vec<u8> {
    let first = if magic == b"WithouFreSpacExt" { 1u32 } else { 2048 };
    let fields: [(usize, &[u8]); 6] = [
        (0, magic),
        (16, &2u32.to_le_bytes()),
        (28, &2048u32.to_le_bytes()),
        (32, &4u32.to_le_bytes()),
        (36, &8192u64.to_le_bytes()),
        (64, &first.to_le_bytes()),
    ];
    all(vec![0; 2 << 20], &fields)
}

/// Version 1, its data at 2 MiB, 1 MiB of them.
pub fn luks() -> Vec<u8> {
    let fields: [(usize, &[u8]); 4] =
        [(0, b"LUKS\xba\xbe\0\x01"), (8, b"aes"), (40, b"xts-plain64"), (104, &4096u32.to_be_bytes())];
    all(vec![0; 3 << 20], &fields)
}

/// Version 2, its data at 16 MiB as its JSON says, of which 64 KiB are there.
pub fn luks2() -> Vec<u8> {
    let json = br#"{"keyslots":{},"segments":{"0":{"type":"crypt","offset":"16777216","size":"dynamic"}}}"#;
    let file = with(vec![0; (16 << 20) + 65536], 0, b"LUKS\xba\xbe\0\x02");
    with(with(file, 8, &16384u64.to_be_bytes()), 4096, json)
}

/// One partition of the type `kind`.
pub fn mbr(kind: u8) -> Vec<u8> {
    let file = with(vec![0; 1 << 20], 510, b"\x55\xaa");
    with(file, 446, &[0x80, 0, 2, 0, kind, 0, 0, 0, 0, 8, 0, 0, 0, 8, 0, 0])
}

/// A GPT behind a protective MBR.
pub fn gpt() -> Vec<u8> {
    with(mbr(0xee), 512, b"EFI PART")
}
