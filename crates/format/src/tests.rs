//! Formats accepted and refused: built by hand, written by qemu-img, and mutated at random.

use super::*;
use proptest::prelude::*;
use std::cell::Cell;

/// A qcow2 of version 3 with one L2 table and one data cluster, as QEMU lays it out.
fn qcow2() -> Vec<u8> {
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

fn with(mut file: Vec<u8>, at: usize, bytes: &[u8]) -> Vec<u8> {
    if file.len() < at + bytes.len() {
        file.resize(at + bytes.len(), 0);
    }
    file[at..at + bytes.len()].copy_from_slice(bytes);
    file
}

fn vmdk(descriptor: &str) -> Vec<u8> {
    let mut file = with(vec![0; 8192], 0, b"KDMV");
    file = with(file, 4, &1u32.to_le_bytes());
    file = with(file, 12, &2048u64.to_le_bytes());
    file = with(file, 28, &1u64.to_le_bytes());
    file = with(file, 36, &2u64.to_le_bytes());
    with(file, 512, descriptor.as_bytes())
}

const VMDK_DESCRIPTOR: &str = "# Disk DescriptorFile\nversion=1\nCID=1\nparentCID=ffffffff\ncreateType=\"monolithicSparse\"\nRW 2048 SPARSE \"a.vmdk\"\n";

fn iso() -> Vec<u8> {
    let file = with(vec![0; 34 * 2048], 16 * 2048, b"\x01CD001\x01");
    let file = with(file, 16 * 2048 + 80, &34u32.to_le_bytes());
    with(file, 16 * 2048 + 128, &2048u16.to_le_bytes())
}

fn vdi() -> Vec<u8> {
    let file = with(vec![0; 4096], 0x40, b"\x7f\x10\xda\xbe");
    let file = with(file, 0x44, &0x10001u32.to_le_bytes());
    let file = with(file, 0x4c, &1u32.to_le_bytes());
    with(file, 0x170, &(1u64 << 30).to_le_bytes())
}

fn vhd_footer(kind: u32) -> Vec<u8> {
    let footer = with(vec![0; 512], 0, b"conectix");
    let footer = with(footer, 48, &4096u64.to_be_bytes());
    with(footer, 60, &kind.to_be_bytes())
}

fn vhd_dynamic() -> Vec<u8> {
    let file = with(vec![0; 4096], 0, &vhd_footer(3));
    with(file, 4096, &vhd_footer(3))
}

fn vhd_fixed() -> Vec<u8> {
    with(vec![7; 4096], 4096, &vhd_footer(2))
}

fn vhdx(flags: u32) -> Vec<u8> {
    let metadata = 1 << 20;
    let file = with(vec![0; metadata + 256 * 1024], 0, b"vhdxfile");
    let file = with(file, 192 * 1024, b"regi");
    let file = with(file, 192 * 1024 + 8, &1u32.to_le_bytes());
    let region = b"\x06\xa2\x7c\x8b\x90\x47\x9a\x4b\xb8\xfe\x57\x5f\x05\x0f\x88\x6e";
    let file = with(file, 192 * 1024 + 16, region);
    let file = with(file, 192 * 1024 + 32, &(metadata as u64).to_le_bytes());
    let file = with(file, metadata, b"metadata");
    let file = with(file, metadata + 10, &2u16.to_le_bytes());
    let size = b"\x24\x42\xa5\x2f\x1b\xcd\x76\x48\xb2\x11\x5d\xbe\xd8\x3b\xf4\xb8";
    let file = with(file, metadata + 32, size);
    let file = with(file, metadata + 48, &65536u32.to_le_bytes());
    let parameters = b"\x37\x67\xa1\xca\x36\xfa\x43\x4d\xb3\xb6\x33\xf0\xaa\x44\xe7\x6b";
    let file = with(file, metadata + 64, parameters);
    let file = with(file, metadata + 80, &65544u32.to_le_bytes());
    let file = with(file, metadata + 65536, &(1u64 << 30).to_le_bytes());
    with(file, metadata + 65548, &flags.to_le_bytes())
}

fn mbr() -> Vec<u8> {
    let file = with(vec![0; 1 << 20], 510, b"\x55\xaa");
    with(file, 446, b"\x80\x00\x02\x00\x83\x00\x00\x00\x00\x08\x00\x00\x00\x08\x00\x00")
}

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
        ("raw", mbr(), Format::Raw, Some(1 << 20)),
        ("raw", b"anything at all".to_vec(), Format::Raw, Some(15)),
        ("raw", Vec::new(), Format::Raw, None),
        ("iso", iso(), Format::Iso, Some(34 * 2048)),
        ("vdi", vdi(), Format::Vdi, Some(1 << 30)),
        ("vhd", vhd_dynamic(), Format::Vhd, Some(4096)),
        ("vhd", vhd_fixed(), Format::Vhd, Some(4096)),
        ("vhdx", vhdx(0), Format::Vhdx, Some(1 << 30)),
        ("vmdk", vmdk(VMDK_DESCRIPTOR), Format::Vmdk, Some(1 << 20)),
        ("ami", mbr(), Format::Raw, None),
        ("ari", b"\x1f\x8b\x08\x00ramdisk".to_vec(), Format::Gzip, None),
    ];
    for (declared, file, format, virtual_size) in cases {
        let accepted = verdict(declared, file).unwrap_or_else(|reason| panic!("{declared}: {reason}"));
        assert_eq!((accepted.format, accepted.virtual_size), (*format, *virtual_size), "{declared}");
    }
    assert_eq!(verdict("raw", &mbr()).unwrap().layout, Layout::Mbr);
    let gpt = with(mbr(), 512, b"EFI PART");
    assert_eq!(verdict("raw", &gpt).unwrap().layout, Layout::Gpt);
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
        (vhd_dynamic(), "a VHD file"),
        (vhd_fixed(), "a VHD file"),
        (vhdx(0), "a VHDX file"),
        (b"QED\0rest".to_vec(), "a QED file: convert it"),
        (b"QFI\xfb\0\0\0\x01".to_vec(), "a qcow (version 1) file: convert it"),
        (b"LUKS\xba\xbe\0\x01".to_vec(), "a LUKS file: convert it"),
        (b"\x1f\x8b\x08\x00rest".to_vec(), "a gzip file: unpack it"),
        (b"\xfd7zXZ\0rest".to_vec(), "an xz file: unpack it"),
        (b"\x28\xb5\x2f\xfdrest".to_vec(), "a zstd file: unpack it"),
    ];
    for (file, because) in files {
        refused("raw", file, because);
    }
    refused("qcow2", &mbr(), "no image format that is known");
    refused("qcow2", &iso(), "an ISO 9660/UDF file: set disk_format to 'iso'");
    refused("vmdk", &qcow2(), "a qcow2 file");
    refused("ami", &qcow2(), "a qcow2 file");
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
    refused("vmdk", &vmdk(&VMDK_DESCRIPTOR.replace("monolithicSparse", "monolithicFlat")), "'monolithicflat'");
    refused("vmdk", &vmdk(&VMDK_DESCRIPTOR.replace("ffffffff", "12345678")), "a parent disk");
    refused("vhd", &with(vhd_dynamic(), 60, &4u32.to_be_bytes()), "a difference to another disk");
    refused("vhdx", &vhdx(2), "a differencing disk");
    refused("vhdx", &vhdx(0)[..1 << 20], "truncated");
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
    for (declared, file) in [("qcow2", qcow2()), ("raw", mbr()), ("iso", with(iso(), 80_000, b"x"))] {
        assert_eq!(Glimpse::new().push(&file, declared, "bare", &limits), None, "{declared}");
    }
}

/// Counts what is read, and refuses any read beyond the end.
struct Counted<'a>(&'a [u8], Cell<u64>);

impl Source for Counted<'_> {
    fn size_bytes(&self) -> u64 {
        self.0.len() as u64
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> std::io::Result<()> {
        self.1.set(self.1.get() + buffer.len() as u64);
        self.0.read_at(offset, buffer)
    }
}

fn holds_for(file: &[u8]) {
    let source = Counted(file, Cell::new(0));
    let findings = examine(&source).expect("nothing is read beyond the end");
    let bound = 2 * file.len() as u64 + 4 * HEAD_BYTES as u64;
    assert!(source.1.get() <= bound, "read {} bytes of a file of {}", source.1.get(), file.len());
    for declared in ["raw", "qcow2", "vmdk", "vdi", "vhd", "vhdx", "iso", "ami"] {
        let decision = decide(declared, "bare", &findings, &Limits::default());
        if let (Decision::Accept(_), "qcow2") = (&decision, declared) {
            assert_eq!(file[8..16], [0; 8], "a backing file came through");
            assert!(file[4..8] != [0, 0, 0, 3] || file[79] & 4 == 0, "a data file came through");
        }
        if let (Decision::Accept(_), "raw") = (&decision, declared) {
            assert!(!file.starts_with(b"QFI\xfb") && !file.starts_with(b"KDMV"));
        }
        let mut glimpse = Glimpse::new();
        let early = file.chunks(7919).find_map(|chunk| glimpse.push(chunk, declared, "bare", &Limits::default()));
        assert!(early.is_none() || matches!(decision, Decision::Refuse(_)), "refused early, accepted late: {early:?}");
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
        which in 0usize..8,
        changes in proptest::collection::vec((0usize..4096, prop_oneof![Just(0u8), Just(0xff), any::<u8>()]), 1..12),
        cut in proptest::option::of(any::<proptest::sample::Index>()),
    ) {
        let mut file = [qcow2, || vmdk(VMDK_DESCRIPTOR), iso, vdi, vhd_dynamic, vhd_fixed, || vhdx(0), mbr][which]();
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

/// What QEMU itself writes is accepted, and what it writes with a second file is not.
#[test]
fn files_written_by_qemu_img_are_judged_rightly() {
    let Some(work) = qemu_img() else { return };
    let path = |name: &str| work.0.join(name).to_str().expect("a plain path").to_owned();
    let create = |arguments: &[&str]| {
        let done = std::process::Command::new("qemu-img").args(arguments).output().expect("qemu-img runs");
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    };
    std::fs::write(path("disk.raw"), mbr().repeat(3)).unwrap();
    let accepted = [
        ("qcow2", "qcow2", &[][..]),
        ("qcow2", "qcow2", &["-o", "compat=0.10"]),
        ("qcow2", "qcow2", &["-o", "cluster_size=512"]),
        ("qcow2", "qcow2", &["-o", "cluster_size=2M"]),
        ("qcow2", "qcow2", &["-o", "extended_l2=on"]),
        ("qcow2", "qcow2", &["-c"]),
        ("qcow2", "qcow2", &["-c", "-o", "compression_type=zstd"]),
        ("vmdk", "vmdk", &[]),
        ("vmdk", "vmdk", &["-o", "subformat=streamOptimized"]),
        ("vpc", "vhd", &[]),
        ("vpc", "vhd", &["-o", "subformat=fixed"]),
        ("vdi", "vdi", &[]),
        ("vhdx", "vhdx", &[]),
    ];
    for (qemu, ours, options) in accepted {
        let file = path("out");
        create(&[&["convert", "-f", "raw", "-O", qemu], options, &[&path("disk.raw"), &file]].concat());
        let bytes = std::fs::read(&file).unwrap();
        let accepted = verdict(ours, &bytes).unwrap_or_else(|reason| panic!("{qemu} {options:?}: {reason}"));
        let size = accepted.virtual_size.unwrap_or_default();
        assert!((3 << 20..4 << 20).contains(&size), "{qemu} {options:?}: {size}");
        assert!(verdict("raw", &bytes).is_err(), "{qemu} {options:?}");
        // The second half cut off shows where the tables are followed to the data, and where the end bears a mark.
        if matches!(ours, "qcow2" | "vhd") {
            assert!(verdict(ours, &bytes[..bytes.len() / 2]).is_err(), "{qemu} {options:?}");
        }
    }
    create(&["create", "-q", "-f", "qcow2", "-F", "raw", "-b", &path("disk.raw"), &path("backed")]);
    refused("qcow2", &std::fs::read(path("backed")).unwrap(), "disk.raw')");
    let data_file = format!("data_file={}", path("outside"));
    create(&["create", "-q", "-f", "qcow2", "-o", &data_file, &path("split"), "1M"]);
    refused("qcow2", &std::fs::read(path("split")).unwrap(), "an external data file");
    create(&["create", "-q", "-f", "vmdk", "-o", "subformat=monolithicFlat", &path("flat.vmdk"), "1M"]);
    refused("raw", &std::fs::read(path("flat.vmdk")).unwrap(), "a VMDK file");
    create(&["create", "-q", "-f", "qcow2", &path("bomb"), "100T"]);
    refused("qcow2", &std::fs::read(path("bomb")).unwrap(), "unfolds to a disk of 100 TiB");
    create(&["create", "-q", "-f", "qcow2", &path("snapped"), "1M"]);
    create(&["snapshot", "-c", "one", &path("snapped")]);
    assert!(verdict("qcow2", &std::fs::read(path("snapped")).unwrap()).is_ok());
}

/// A folder that goes when the test ends.
struct Work(std::path::PathBuf);

impl Drop for Work {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn qemu_img() -> Option<Work> {
    let there = std::process::Command::new("qemu-img").arg("--version").output().is_ok();
    let required = std::env::var("NUBO_REQUIRE").unwrap_or_default();
    if !there {
        assert!(!required.split(',').any(|name| matches!(name, "all" | "qemu")), "qemu-img is missing");
        println!("SKIP qemu-img is missing");
        return None;
    }
    let folder = std::env::temp_dir().join(format!("nubo-format-test-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a temporary folder");
    Some(Work(folder))
}
