//! What is known from advisories on confused formats, a test each, with the file as an attacker would make it.

use super::*;

/// What is found, whatever it is called: for facts that a refusal tells in words.
fn found(file: &[u8]) -> Findings {
    examine(&file).expect("a slice reads")
}

/// Nobody takes the file, whatever it is called.
fn refused_as_anything(file: &[u8], because: &str) {
    let told = DISK_FORMATS.map(|declared| match verdict(declared, file) {
        Ok(accepted) => panic!("accepted as {declared}: {accepted:?}"),
        Err(reason) => reason,
    });
    assert!(told.iter().any(|reason| reason.contains(because)), "{told:?} lack {because:?}");
}

fn extension(kind: u32, content: &[u8]) -> Vec<u8> {
    let mut bytes = [kind.to_be_bytes(), (content.len() as u32).to_be_bytes()].concat();
    bytes.extend(content);
    bytes.resize(bytes.len().next_multiple_of(8), 0);
    bytes
}

fn backed(name: &[u8]) -> Vec<u8> {
    let fields: [(usize, &[u8]); 4] =
        [(8, &512u64.to_be_bytes()), (16, &(name.len() as u32).to_be_bytes()), (112, &[0; 8]), (512, name)];
    all(qcow2(), &fields)
}

/// CVE-2013-1922, CVE-2013-2096 (Nova), CVE-2015-5163 (Glance's import): a raw image that QEMU takes for a qcow2.
#[test]
fn cve_2013_1922_and_2015_5163_a_qcow2_called_raw_does_not_pass_and_its_backing_file_is_told() {
    let file = backed(b"/etc/passwd");
    refused_as_anything(&file, "a backing file ('/etc/passwd')");
    refused("raw", &file, "a qcow2 file");
    assert_eq!(found(&file).facts.backing_file.as_deref(), Some("/etc/passwd"));
}

/// CVE-2015-5162: `qemu-img info` takes hours and gigabytes over a crafted file. Ours is bounded before any program runs.
#[test]
fn cve_2015_5162_headers_that_ask_for_gigabytes_are_refused_without_allocating_them() {
    let huge = with(with(qcow2(), 20, &21u32.to_be_bytes()), 36, &u32::MAX.to_be_bytes());
    refused_as_anything(&huge, "L1 table of 32 GiB; at most 32 MiB");
    refused_as_anything(&with(qcow2(), 56, &u32::MAX.to_be_bytes()), "reference count table of");
    let table = vhd_dynamic(3, &[(28, &u32::MAX.to_be_bytes())]);
    refused_as_anything(&table, "its blocks lie beyond its end");
    let map = with(vdi(), 0x180, &0x1fff_ff80u32.to_le_bytes());
    refused_as_anything(&map, "its tables lie beyond its end");
    let ploop = with(parallels(b"WithoutFreeSpace"), 32, &0x1fff_ffffu32.to_le_bytes());
    refused_as_anything(&ploop, "its table lies beyond its end");
    let sectors = (1u64 << 40).to_le_bytes();
    let text = VMDK_DESCRIPTOR.replace("2048", &(1u64 << 40).to_string());
    refused_as_anything(&with(vmdk(&text), 12, &sectors), "grain directory for a disk of 512 TiB");
}

/// CVE-2022-47951 (Cinder, Glance, Nova): a VMDK whose descriptor names a file of the host as its flat extent.
#[test]
fn cve_2022_47951_a_vmdk_with_extents_elsewhere_is_refused_and_they_are_told() {
    let flat = "# Disk DescriptorFile\nversion=1\nparentCID=ffffffff\ncreateType=\"monolithicFlat\"\n\
                RW 8 FLAT \"/etc/passwd\" 0\nRW 16 FLAT \"b\" 0\n";
    refused_as_anything(flat.as_bytes(), "names other files");
    let facts = found(flat.as_bytes());
    assert_eq!(facts.facts.extents, ["/etc/passwd", "b"]);
    assert_eq!((facts.virtual_size, facts.facts.subformat.as_deref()), (24 * 512, Some("monolithicFlat")));
    // The same within a sparse file, of the allowed kind and of another.
    for name in ["/etc/passwd", "..\\x", "nbd://host/x", "json:{}"] {
        refused_as_anything(&vmdk(&VMDK_DESCRIPTOR.replace("a.vmdk", name)), "an extent in another place");
    }
    for kind in ["monolithicFlat", "vmfs", "twoGbMaxExtentFlat", "fullDevice", "custom", ""] {
        refused_as_anything(&vmdk(&VMDK_DESCRIPTOR.replace("monolithicSparse", kind)), "is of the kind");
    }
    let second = format!("{VMDK_DESCRIPTOR}RW 2048 FLAT \"b\" 0\n");
    refused_as_anything(&vmdk(&second), "2 extents");
}

/// QEMU takes a sparse VMDK without capacity for its descriptor, and looks for a parent's name at a fixed place.
#[test]
fn a_vmdk_whose_header_and_descriptor_tell_different_stories_is_refused() {
    refused_as_anything(&with(vmdk(VMDK_DESCRIPTOR), 12, &[0; 8]), "no capacity of its own");
    refused_as_anything(&with(vmdk(VMDK_DESCRIPTOR), 12, &4096u64.to_le_bytes()), "tells 4096 sectors and its");
    let rounded = vmdk(&VMDK_DESCRIPTOR.replace("2048", "2000"));
    assert_eq!(verdict("vmdk", &rounded).map(|accepted| accepted.virtual_size), Ok(Some(1 << 20)));
    let commented = format!("{VMDK_DESCRIPTOR}# parentFileNameHint=\"/etc/passwd\"\n");
    refused_as_anything(&vmdk(&commented), "names a parent disk");
    // The header leads to a harmless descriptor, and the one that QEMU reads stands at its usual place.
    let elsewhere = with(vmdk(&commented), 28, &20u64.to_le_bytes());
    refused_as_anything(&with(elsewhere, 20 * 512, VMDK_DESCRIPTOR.as_bytes()), "its descriptor in another place");
    // A footer that says something else than the header.
    let stream = with(vmdk(VMDK_DESCRIPTOR), 56, &u64::MAX.to_le_bytes());
    refused_as_anything(&stream, "no footer");
    let end = stream.len();
    let stream = with(stream.clone(), end + 512, &stream[..512]);
    let stream = with(with(stream, end + 12, &3u32.to_le_bytes()), end + 512 + 56, &8u64.to_le_bytes());
    let stream = with(stream, end + 1024, &[0; 512]);
    assert_eq!(verdict("vmdk", &stream).map(|accepted| accepted.virtual_size), Ok(Some(1 << 20)));
    refused_as_anything(&with(stream, end + 512 + 12, &9999u64.to_le_bytes()), "its header and its footer differ");
}

/// CVE-2024-32498 (Cinder, Glance, Nova): a qcow2 whose external data file is a file of the host.
#[test]
fn cve_2024_32498_a_qcow2_with_a_data_file_is_refused_and_it_is_told() {
    let hidden = with(qcow2(), 112, &extension(0x4441_5441, b"/etc/passwd"));
    let named = with(hidden.clone(), 72, &4u64.to_be_bytes());
    for file in [&named, &hidden] {
        refused_as_anything(file, "an external data file");
        assert_eq!(found(file).facts.data_file.as_deref(), Some("/etc/passwd"));
    }
    refused_as_anything(&with(qcow2(), 72, &4u64.to_be_bytes()), "an external data file");
    // Behind another extension, behind more of them than anybody writes, and behind one that leads out of the header.
    let behind = [extension(0x6803_f857, &[0; 48]), extension(0x4441_5441, b"x")].concat();
    refused_as_anything(&with(qcow2(), 112, &behind), "an external data file");
    let many = [extension(1, b"").repeat(100), extension(0x4441_5441, b"x")].concat();
    refused_as_anything(&with(qcow2(), 112, &many), "its header extensions do not end");
    refused_as_anything(&with(qcow2(), 112, &[0, 0, 0, 1, 0xff, 0xff, 0xff, 0xff]), "its header extensions do not end");
    let large = with(with(qcow2(), 20, &21u32.to_be_bytes()), 112, &[0, 0, 0, 1, 0, 0, 0xff, 0x88]);
    refused_as_anything(&large, "its header extensions do not end");
}

/// CVE-2024-40767 (Nova): the mend of the former looked at the format that the file was called by.
#[test]
fn cve_2024_40767_a_foreign_file_does_not_pass_under_any_other_name() {
    let hidden = with(with(qcow2(), 72, &4u64.to_be_bytes()), 112, &extension(0x4441_5441, b"/etc/passwd"));
    let flat = b"\n# x\nversion=1\ncreateType=\"monolithicFlat\"\nRW 8 FLAT \"/etc/passwd\" 0\n";
    let commented = b"#\n\nVersion=1\nRW 8 FLAT \"/etc/passwd\" 0\n";
    for file in [hidden, backed(b"x"), flat.to_vec(), commented.to_vec(), vhd_dynamic(4, &[]), vhdx(2, &[], &[])] {
        refused_as_anything(&file, "self-contained file");
    }
}

/// QEMU's names for files may be JSON that opens anything: CVE-2024-4467 for a data file, earlier for backing files.
#[test]
fn cve_2024_4467_names_that_are_json_or_urls_are_refused_like_all_others() {
    for name in [
        &br#"json:{"driver":"raw","file":{"driver":"file","filename":"/etc/passwd"}}"#[..],
        b"nbd:unix:/run/x",
        b"file:///etc/passwd",
        b"fat:rw:/etc",
        b"",
    ] {
        refused_as_anything(&backed(name), "a backing file");
        let data_file = with(with(qcow2(), 72, &4u64.to_be_bytes()), 112, &extension(0x4441_5441, name));
        refused_as_anything(&data_file, "an external data file");
    }
    // A name of control characters does not reach a terminal as it is.
    let facts = found(&backed(b"a\x1b[2J\nb")).facts;
    assert_eq!(facts.backing_file.as_deref(), Some("a.[2J.b"));
}

/// CVE-2024-44082 (Ironic), and the reason why formats are counted: one file that is an ISO and something else.
#[test]
fn polyglots_of_iso_and_gpt_are_refused_but_an_iso_that_boots_from_a_stick_is_an_iso() {
    let volume = &iso()[16 * 2048..];
    for file in [qcow2(), vmdk(VMDK_DESCRIPTOR), vdi(), vhd_dynamic(3, &[]), vhdx(0, &[], &[]), luks()] {
        refused_as_anything(&with(file, 16 * 2048, volume), "several formats at once");
    }
    let table = &gpt()[440..520];
    let header = &mbr(0x83)[440..512];
    for part in [table, header] {
        for file in [qcow2(), vmdk(VMDK_DESCRIPTOR), vdi(), vhdx(0, &[], &[]), parallels(b"WithoutFreeSpace")] {
            refused_as_anything(&with(file, 440, part), "begins with a partition table as well");
        }
        let hybrid = with(iso(), 440, part);
        assert_eq!(verdict("iso", &hybrid).map(|accepted| accepted.format), Ok(Format::Iso));
        refused("raw", &hybrid, "an ISO 9660/UDF file");
    }
    // A fixed VHD is a raw disk with a footer, and a footer that says "dynamic" makes it something else for others.
    let fixed = [gpt(), vhd_footer(2, 1 << 20)].concat();
    assert_eq!(verdict("vhd", &fixed).map(|accepted| accepted.virtual_size), Ok(Some(1 << 20)));
    refused("raw", &fixed, "a VHD file");
    refused_as_anything(&[gpt(), vhd_footer(3, 1 << 20)].concat(), "its footer stands elsewhere");
    refused_as_anything(&[qcow2(), vhd_footer(2, 6 << 16)].concat(), "several formats at once (qcow2, VHD)");
    let two = with(vhd_dynamic(3, &[]), 2048, &vhd_footer(3, 8192));
    refused_as_anything(&two, "the footers at its start and at its end are of different disks");
}

#[test]
fn a_gpt_counts_behind_a_protective_mbr_and_a_hybrid_is_told() {
    let layout = |file: &[u8]| verdict("raw", file).map(|accepted| accepted.layout);
    let other = [0, 0, 2, 0, 0x0c, 0, 0, 0, 0, 8, 0, 0, 0, 8, 0, 0];
    assert_eq!(layout(&gpt()), Ok(Layout::Gpt));
    assert_eq!(layout(&with(gpt(), 462, &other)), Ok(Layout::HybridMbr));
    assert_eq!(layout(&with(mbr(0x83), 512, b"EFI PART")), Ok(Layout::Mbr));
    assert_eq!(layout(&with(mbr(0xee), 4096, b"EFI PART")), Ok(Layout::Gpt));
    assert_eq!(layout(&mbr(0xee)), Ok(Layout::Mbr));
    assert_eq!(layout(&with(gpt(), 510, &[0, 0])), Ok(Layout::Unknown));
    assert_eq!(layout(&with(mbr(0x83), 446, &[0x70])), Ok(Layout::BootSector));
}

/// Small files that unfold to large ones: the disk counts, not the file, and nothing packed is taken for a disk.
#[test]
fn bombs_are_refused_whatever_they_are_packed_with() {
    let marks =
        [&b"\x1f\x8b\x08\x00\x1f\x8b\x08\x00"[..], b"\xfd7zXZ\0", b"\x28\xb5\x2f\xfd", b"BZh91AY&SY", b"PK\x03\x04"];
    for packed in marks {
        let refusals = ["raw", "qcow2", "vmdk", "iso", "ploop"].map(|declared| verdict(declared, packed));
        let told = |refusal: &Result<_, String>| refusal.as_ref().is_err_and(|why| why.contains("unpack it"));
        assert!(refusals.iter().all(told), "{refusals:?}");
    }
    let bomb = with(with(qcow2(), 24, &(1u64 << 50).to_be_bytes()), 36, &(1u32 << 21).to_be_bytes());
    refused_as_anything(&with(bomb, 3 << 16, &vec![0; 1 << 24]), "unfolds to a disk of 1 PiB; at most 1 TiB");
    let text =
        VMDK_DESCRIPTOR.replace("2048", &(1u64 << 33).to_string()).replace("monolithicSparse", "streamOptimized");
    let vmdk = with(with(vmdk(&text), 12, &(1u64 << 33).to_le_bytes()), 9 * 512, &vec![0; 1 << 20]);
    refused_as_anything(&vmdk, "unfolds to a disk of 4 TiB");
    let fields: [(usize, &[u8]); 2] = [(65536, &(2u64 << 40).to_le_bytes()), (65544, &(256u32 << 20).to_le_bytes())];
    refused_as_anything(&vhdx(0, &[], &fields), "unfolds to a disk of 2 TiB");
}

/// Sizes that do not fit into 63 bits, or that wrap when they are multiplied.
#[test]
fn sizes_past_2_to_the_63_are_refused_also_where_the_operator_allows_any() {
    let any = Limits { virtual_size: u64::MAX };
    for size in [1u64 << 63, u64::MAX, u64::MAX - 511] {
        let text = VMDK_DESCRIPTOR.replace("2048", &size.to_string());
        let vhd = |kind| vhd_footer(kind, size);
        let files: [(&str, Vec<u8>); 7] = [
            ("qcow2", with(qcow2(), 24, &size.to_be_bytes())),
            ("vmdk", with(vmdk(&text), 12, &size.to_le_bytes())),
            ("vdi", with(vdi(), 0x170, &size.to_le_bytes())),
            ("vhd", with(vhd_fixed(), 4096, &vhd(2))),
            ("vhd", all(vhd_dynamic(3, &[]), &[(0, &vhd(3)), (2048, &vhd(3))])),
            ("vhdx", vhdx(0, &[], &[(65536, &size.to_le_bytes())])),
            ("ploop", with(parallels(b"WithouFreSpacExt"), 36, &size.to_le_bytes())),
        ];
        for (declared, file) in files {
            let findings = found(&file);
            let told = findings.problems.join("; ");
            assert!(told.contains("no disk has more than 2^63 - 1"), "{declared} {size}: {told}");
            assert!(matches!(decide(declared, "bare", &findings, &any), Decision::Refuse(_)), "{declared} {size}");
        }
    }
}

/// The log of a VHDX is written into the file when the next program opens it for writing.
#[test]
fn a_vhdx_that_changes_when_it_is_opened_or_reads_in_two_ways_is_refused() {
    let log = vhdx(0, &[(48, b"a log of its own")], &[]);
    refused_as_anything(&log, "its log has to be replayed");
    assert!(found(&log).facts.dirty);
    let parent = b"\x2d\x5f\xd3\xa8\x0b\xb3\x4d\x45\xab\xf7\xd3\xd8\x48\x34\xab\x0c";
    let path: Vec<u8> = "relative_pathc:\\base.vhdx".encode_utf16().flat_map(u16::to_le_bytes).collect();
    let locator: [(usize, &[u8]); 8] = [
        (10, &4u16.to_le_bytes()),
        (128, parent),
        (144, &70000u32.to_le_bytes()),
        (148, &200u32.to_le_bytes()),
        (70018, &1u16.to_le_bytes()),
        (70020, &[32, 0, 0, 0, 58, 0, 0, 0]),
        (70028, &[26, 0, 24, 0]),
        (70032, &path),
    ];
    let differencing = vhdx(0, &[], &locator);
    refused_as_anything(&differencing, "a differencing disk with a parent");
    assert_eq!(found(&differencing).facts.backing_file.as_deref(), Some("c:\\base.vhdx"));
    let size = b"\x24\x42\xa5\x2f\x1b\xcd\x76\x48\xb2\x11\x5d\xbe\xd8\x3b\xf4\xb8";
    refused_as_anything(&vhdx(0, &[], &[(10, &4u16.to_le_bytes()), (128, size)]), "name an item twice");
    let twice = with(with(vhdx(0, &[], &[]), 192 * 1024 + 8, &3u32.to_le_bytes()), 192 * 1024 + 80, b"");
    let region: Vec<u8> = twice[192 * 1024 + 48..192 * 1024 + 80].to_vec();
    let twice = vhdx_sum(with(twice, 192 * 1024 + 80, &region), 192 * 1024, 65536);
    refused_as_anything(&twice, "names a region twice");
}

#[test]
fn what_is_encrypted_is_told_and_refused() {
    let facts = |file: &[u8]| (found(file).facts.encryption, found(file).virtual_size);
    assert_eq!(facts(&luks()), (Some("luks".to_owned()), 1 << 20));
    assert_eq!(facts(&luks2()), (Some("luks".to_owned()), 65536));
    assert_eq!(facts(&with(qcow2(), 32, &1u32.to_be_bytes())).0.as_deref(), Some("aes"));
    assert_eq!(facts(&with(qcow2(), 32, &2u32.to_be_bytes())).0.as_deref(), Some("luks"));
    for file in [luks(), luks2()] {
        refused_as_anything(&file, "a LUKS file");
    }
    // The header for the key is there, and the field that asks for it says that nothing is encrypted.
    refused_as_anything(&with(qcow2(), 112, &extension(0x0537_be77, &[0; 16])), "is encrypted");
}

#[test]
fn parents_of_vdi_and_vhd_are_refused_wherever_they_are_named() {
    refused_as_anything(&with(vdi(), 0x4c, &4u32.to_le_bytes()), "is of the kind 4 (differencing)");
    refused_as_anything(&with(vdi(), 0x1a8, b"link"), "names a parent disk");
    refused_as_anything(&with(vdi(), 0x1b8, b"parent"), "names a parent disk");
    let named = vhd_dynamic(4, &[(64, b"\0b\0a\0s\0e")]);
    assert_eq!(found(&named).facts.backing_file.as_deref(), Some("base"));
    refused_as_anything(&named, "a difference to another disk");
    refused_as_anything(&vhd_dynamic(3, &[(64, b"\0b")]), "names a parent disk");
    refused_as_anything(&vhd_dynamic(3, &[(576, b"W2ku")]), "names a parent disk");
}

/// Tables that lead beyond the end of the file, or to one another in circles.
#[test]
fn tables_that_lead_astray_are_refused_and_loops_end() {
    refused_as_anything(&with(vdi(), 512, &[5, 0, 0, 0]), "its blocks lie beyond its end");
    refused_as_anything(&with(vmdk(VMDK_DESCRIPTOR), 8 * 512, &[0xff; 4]), "its grain tables lie beyond its end");
    refused_as_anything(&with(vmdk(VMDK_DESCRIPTOR), 9 * 512 + 4, &[0xff; 4]), "its grains lie beyond its end");
    refused_as_anything(&with(parallels(b"WithouFreSpacExt"), 68, &[2]), "its blocks lie beyond its end");
    let block = (0x40_0006u64).to_le_bytes();
    refused_as_anything(&with(vhdx(0, &[], &[]), 1 << 20, &block), "its blocks lie beyond its end");
    let snapshots = with(with(qcow2(), 60, &2u32.to_be_bytes()), 64, &(5u64 << 16).to_be_bytes());
    refused_as_anything(&with(snapshots.clone(), (5 << 16) + 36, &9999u32.to_be_bytes()), "a snapshot with 9999 bytes");
    refused_as_anything(&with(snapshots, (5 << 16) + 12, &[0xff; 4]), "its snapshot table lies beyond its end");
    // The first-level table is its own second level, and names itself again: a loop for whoever follows it further.
    let itself = with(qcow2(), 3 << 16, &((3u64 << 16) | (1 << 63)).to_be_bytes());
    assert!(verdict("qcow2", &itself).is_ok_and(|accepted| accepted.virtual_size == Some(1 << 30)));
}
