//! Formats accepted and refused: built by hand, and mutated at random. `tests/corpus` has those of qemu-img.

mod advisories;
mod fixtures;
#[path = "../../fuzz/src/holds.rs"]
mod holds;
#[path = "../../fuzz/src/pieces.rs"]
mod pieces;
mod replay;

use super::*;
use fixtures::*;
use holds::{DISK_FORMATS, holds_for};
use proptest::prelude::*;

fn verdict(disk_format: &str, file: &[u8]) -> Result<Accepted, String> {
    match decide(disk_format, "bare", &examine(&file).expect("a slice reads"), &Limits::default()) {
        Decision::Accept(accepted) => Ok(accepted),
        Decision::Refuse(reason) => Err(reason),
    }
}

fn refused(disk_format: &str, file: &[u8], because: &str) {
    match verdict(disk_format, file) {
        Ok(accepted) => panic!("accepted as {accepted:?}, expected a refusal with {because:?}"),
        Err(reason) => assert!(reason.contains(because), "{reason:?} lacks {because:?}"),
    }
}

#[test]
fn what_is_what_it_says_is_accepted_with_its_virtual_size() {
    let cases: &[(&str, Vec<u8>, Format, Option<u64>)] = &[
        ("qcow2", qcow2(), Format::Qcow2, Some(1 << 30)),
        ("raw", mbr(0x83), Format::Raw, Some(1 << 20)),
        ("raw", b"anything at all".to_vec(), Format::Raw, Some(15)),
        ("raw", Vec::new(), Format::Raw, None),
        ("iso", iso(), Format::Iso, Some(34 * 2048)),
        ("vdi", vdi(), Format::Vdi, Some(1 << 30)),
        ("vhd", vhd_dynamic(3, &[]), Format::Vhd, Some(4096)),
        ("vhd", vhd_fixed(), Format::Vhd, Some(4096)),
        ("vhdx", vhdx(0, &[], &[]), Format::Vhdx, Some(1 << 30)),
        ("vmdk", vmdk(VMDK_DESCRIPTOR), Format::Vmdk, Some(1 << 20)),
        ("ploop", parallels(b"WithoutFreeSpace"), Format::Parallels, Some(4 << 20)),
        ("ploop", parallels(b"WithouFreSpacExt"), Format::Parallels, Some(4 << 20)),
        ("ami", mbr(0x83), Format::Raw, None),
        ("ari", b"\x1f\x8b\x08\x00ramdisk".to_vec(), Format::Gzip, None),
    ];
    for (declared, file, format, virtual_size) in cases {
        let accepted = verdict(declared, file).unwrap_or_else(|reason| panic!("{declared}: {reason}"));
        assert_eq!((accepted.format, accepted.virtual_size), (*format, *virtual_size), "{declared}");
    }
    assert_eq!(verdict("raw", &mbr(0x83)).unwrap().layout, Layout::Mbr);
    assert_eq!(verdict("raw", &gpt()).unwrap().layout, Layout::Gpt);
}

#[test]
fn what_is_called_something_else_is_refused_with_what_it_is() {
    let files: &[(Vec<u8>, &str)] = &[
        (qcow2(), "a qcow2 file: set disk_format to 'qcow2'"),
        (vmdk(VMDK_DESCRIPTOR), "a VMDK file: set disk_format to 'vmdk'"),
        (VMDK_DESCRIPTOR.as_bytes().to_vec(), "a VMDK file"),
        (b"# a comment\n\nversion=1\nRW 1 FLAT \"/etc/shadow\"\n".to_vec(), "a VMDK file"),
        (iso(), "an ISO 9660/UDF file: set disk_format to 'iso'"),
        (vdi(), "a VDI file"),
        (vhd_dynamic(3, &[]), "a VHD file"),
        (vhd_fixed(), "a VHD file"),
        (vhdx(0, &[], &[]), "a VHDX file"),
        (b"QED\0rest".to_vec(), "a QED file: convert it"),
        (b"QFI\xfb\0\0\0\x01".to_vec(), "a qcow (version 1) file: convert it"),
        (luks(), "a LUKS file: convert it"),
        (luks2(), "a LUKS file: convert it"),
        (parallels(b"WithoutFreeSpace"), "a Parallels file: set disk_format to 'ploop'"),
        (b"\x1f\x8b\x08\x00rest".to_vec(), "a gzip file: unpack it"),
        (b"\xfd7zXZ\0rest".to_vec(), "an xz file: unpack it"),
        (b"\x28\xb5\x2f\xfdrest".to_vec(), "a zstd file: unpack it"),
    ];
    for (file, because) in files {
        refused("raw", file, because);
    }
    refused("qcow2", &mbr(0x83), "no image format that is known");
    refused("qcow2", &iso(), "an ISO 9660/UDF file: set disk_format to 'iso'");
    refused("vmdk", &qcow2(), "a qcow2 file");
    refused("ami", &qcow2(), "a qcow2 file");
    refused("ploop", &mbr(0x83), "no image format that is known");
    refused("qcow2", b"", "no image format");
}

#[test]
fn a_qcow2_that_leads_out_of_itself_or_is_broken_is_refused() {
    let named = with(with(qcow2(), 8, &512u64.to_be_bytes()), 16, &11u32.to_be_bytes());
    refused("qcow2", &with(named, 512, b"/etc/shadow"), "a backing file ('/etc/shadow')");
    refused("qcow2", &with(qcow2(), 8, &u64::MAX.to_be_bytes()), "a backing file");
    refused("qcow2", &with(qcow2(), 72, &4u64.to_be_bytes()), "an external data file");
    let hidden = with(qcow2(), 112, &[0x44, 0x41, 0x54, 0x41, 0, 0, 0, 4, b'/', b'x', 0, 0, 0, 0, 0, 0]);
    refused("qcow2", &hidden, "an external data file");
    refused("qcow2", &with(qcow2(), 72, &(1u64 << 40).to_be_bytes()), "features that are not known");
    refused("qcow2", &with(qcow2(), 72, &2u64.to_be_bytes()), "marked as corrupt");
    refused("qcow2", &with(qcow2(), 32, &2u32.to_be_bytes()), "encrypted");
    refused("qcow2", &with(qcow2(), 4, &4u32.to_be_bytes()), "version 4");
    refused("qcow2", &with(qcow2(), 20, &30u32.to_be_bytes()), "clusters of 2^30");
    refused("qcow2", &with(qcow2(), 24, &(1u64 << 60).to_be_bytes()), "L1 table has 2 entries");
    refused("qcow2", &with(qcow2(), 36, &u32::MAX.to_be_bytes()), "L1 table of 32 GiB");
    refused("qcow2", &with(qcow2(), 40, &(1u64 << 50).to_be_bytes()), "L1 table lies beyond");
    refused("qcow2", &with(qcow2(), 48, &5u64.to_be_bytes()), "does not begin at a cluster");
    refused("qcow2", &with(qcow2(), 60, &u32::MAX.to_be_bytes()), "internal snapshots");
    refused("qcow2", &with(qcow2(), 3 * 65536, &(1u64 << 40).to_be_bytes()), "L2 table lies beyond");
    refused("qcow2", &with(qcow2(), 4 * 65536 + 8, &(1u64 << 40).to_be_bytes()), "data lies beyond");
    for length in [20, 100, 4096, 4 * 65536, 5 * 65536] {
        refused("qcow2", &qcow2()[..length], "truncated");
    }
}

#[test]
fn a_small_file_that_unfolds_to_a_huge_disk_is_refused() {
    let bomb = with(with(qcow2(), 24, &(3u64 << 40).to_be_bytes()), 36, &6144u32.to_be_bytes());
    refused("qcow2", &bomb, "of 384 KiB unfolds to a disk of 3 TiB; at most 1 TiB");
    let small = Limits { virtual_size: 1 << 20 };
    let findings = examine(&qcow2()).unwrap();
    assert!(matches!(decide("qcow2", "bare", &findings, &small), Decision::Refuse(_)));
}

#[test]
fn other_formats_that_lead_out_of_themselves_are_refused() {
    refused("vmdk", VMDK_DESCRIPTOR.as_bytes(), "bare descriptor");
    refused("vmdk", &vmdk(&VMDK_DESCRIPTOR.replace("a.vmdk", "/etc/shadow")), "extent in another place");
    refused("vmdk", &vmdk(&VMDK_DESCRIPTOR.replace("monolithicSparse", "monolithicFlat")), "'monolithicFlat'");
    refused("vmdk", &vmdk(&VMDK_DESCRIPTOR.replace("ffffffff", "12345678")), "a parent disk");
    refused("vhd", &vhd_dynamic(4, &[]), "a difference to another disk");
    refused("vhdx", &vhdx(2, &[], &[]), "a differencing disk");
    refused("vhdx", &vhdx(0, &[], &[])[..1 << 20], "truncated");
    refused("iso", &iso()[..33 * 2048], "truncated");
}

#[test]
fn a_file_of_several_formats_at_once_is_refused() {
    let both = with(qcow2(), 16 * 2048, &iso()[16 * 2048..]);
    for declared in ["raw", "qcow2", "iso"] {
        refused(declared, &both, "several formats at once (qcow2, ISO 9660/UDF)");
    }
}

#[test]
fn archives_are_taken_as_they_are_and_have_no_disk_size() {
    let findings = examine(&with(vec![0; 10240], 257, b"ustar")).unwrap();
    let Decision::Accept(accepted) = decide("vmdk", "ova", &findings, &Limits::default()) else { panic!("refused") };
    assert_eq!((accepted.format, accepted.virtual_size), (Format::Tar, None));
}

#[test]
fn a_stream_is_refused_from_its_first_64_kib_on_and_told_once() {
    let limits = Limits::default();
    let mut glimpse = Glimpse::new();
    let file = with(qcow2(), 8, &512u64.to_be_bytes());
    let mut reasons = Vec::new();
    for (n, chunk) in file.chunks(1000).enumerate() {
        reasons.extend(glimpse.push(chunk, "qcow2", "bare", &limits).map(|reason| (n, reason)));
    }
    assert_eq!(reasons.len(), 1);
    assert_eq!(reasons[0].0, HEAD_BYTES / 1000);
    assert!(reasons[0].1.contains("backing file"));
    let elsewhere = VMDK_DESCRIPTOR.replace("a.vmdk", "/etc/shadow");
    let early: [(&str, Vec<u8>, &str); 4] = [
        ("vmdk", vmdk(&elsewhere), "an extent in another place"),
        ("vmdk", with(VMDK_DESCRIPTOR.as_bytes().to_vec(), 70_000, b"x"), "a bare descriptor"),
        ("vdi", with(with(vdi(), 0x4c, &[4]), 70_000, b"x"), "the kind 4"),
        ("ploop", with(parallels(b"WithoutFreeSpace"), 16, &[3]), "version 3"),
    ];
    for (declared, file, because) in early {
        let reason = Glimpse::new().push(&file, declared, "bare", &limits);
        assert!(reason.as_ref().is_some_and(|reason| reason.contains(because)), "{reason:?} lacks {because:?}");
    }
    for (declared, file) in [("qcow2", qcow2()), ("raw", mbr(0x83)), ("iso", with(iso(), 80_000, b"x"))] {
        assert_eq!(Glimpse::new().push(&file, declared, "bare", &limits), None, "{declared}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn arbitrary_bytes_never_panic(
        bytes in proptest::collection::vec(any::<u8>(), 0..1000),
        times in 1usize..200,
    ) {
        holds_for(&bytes.repeat(times));
    }

    #[test]
    fn mutated_headers_never_panic_and_never_pass_with_a_foreign_file(
        which in 0usize..12,
        changes in proptest::collection::vec((0usize..4096, prop_oneof![Just(0u8), Just(0xff), any::<u8>()]), 1..12),
        cut in proptest::option::of(any::<proptest::sample::Index>()),
    ) {
        let makers: [fn() -> Vec<u8>; 12] = [
            qcow2,
            || vmdk(VMDK_DESCRIPTOR),
            iso,
            vdi,
            || vhd_dynamic(3, &[]),
            vhd_fixed,
            || vhdx(0, &[], &[]),
            gpt,
            || parallels(b"WithouFreSpacExt"),
            || parallels(b"WithoutFreeSpace"),
            luks,
            luks2,
        ];
        let mut file = makers[which]();
        for (at, byte) in changes {
            // Most fields lie in the first 128 bytes, the tables at every 64 KiB.
            let at = if at % 4 == 0 { (at / 64) * 65536 + at % 64 } else if at % 4 == 1 { at % 128 } else { at };
            if let Some(place) = file.get_mut(at) {
                *place = byte;
            }
        }
        if let Some(cut) = cut {
            file.truncate(cut.index(file.len()));
        }
        holds_for(&file);
    }
}
