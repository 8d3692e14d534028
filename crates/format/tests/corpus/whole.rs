//! Files as programs write them: at least fifteen a format. QEMU and the inspector tell the same of each, and the
//! inspector takes those that stand alone and refuses the others.

use crate::by_hand::{iso, partitioned, ploop};
use crate::compare::differences;
use crate::qemu::{Work, work};
use format::{Decision, Findings, Layout, Limits, OnDisk, decide, examine};
use std::fs::File;

/// `accept` or part of the refusal, and the commands that make the file.
type Lines = &'static [(&'static str, &'static str)];

const ACCEPT: &str = "accept";
const SECRET: &str = "--object secret,id=s,data=abc";

/// Options of `create`, with the size.
const QCOW2: Lines = &[
    (ACCEPT, "create -f qcow2 $ 1M"),
    (ACCEPT, "create -f qcow2 $ 0"),
    (ACCEPT, "create -f qcow2 $ 1000G"),
    (ACCEPT, "create -f qcow2 -o compat=0.10 $ 3G"),
    (ACCEPT, "create -f qcow2 -o cluster_size=512 $ 5M"),
    (ACCEPT, "create -f qcow2 -o cluster_size=4k,compat=0.10 $ 5M"),
    (ACCEPT, "create -f qcow2 -o cluster_size=2M $ 5M"),
    (ACCEPT, "create -f qcow2 -o extended_l2=on $ 10G"),
    (ACCEPT, "create -f qcow2 -o extended_l2=on,cluster_size=16k $ 10M"),
    (ACCEPT, "create -f qcow2 -o refcount_bits=1 $ 10M"),
    (ACCEPT, "create -f qcow2 -o refcount_bits=64,lazy_refcounts=on $ 10M"),
    (ACCEPT, "create -f qcow2 -o compression_type=zstd $ 10M"),
    (ACCEPT, "create -f qcow2 -o preallocation=metadata $ 4M"),
    (ACCEPT, "create -f qcow2 -o preallocation=falloc $ 4M"),
    (ACCEPT, "create -f qcow2 -o preallocation=full $ 1M"),
    (ACCEPT, "convert -O qcow2 base.raw $"),
    (ACCEPT, "convert -O qcow2 -o compat=0.10 base.raw $"),
    (ACCEPT, "convert -O qcow2 -c base.raw $"),
    (ACCEPT, "convert -O qcow2 -c -o compat=0.10,cluster_size=8k base.raw $"),
    (ACCEPT, "convert -O qcow2 -c -o compression_type=zstd,cluster_size=4k base.raw $"),
    (ACCEPT, "create -f qcow2 $ 2M ; snapshot -c one $"),
    (ACCEPT, "convert -O qcow2 base.raw $ ; snapshot -c one $ ; snapshot -c two $ ; snapshot -c three $"),
    (ACCEPT, "create -f qcow2 $ 2M ; bitmap --add $ changes"),
    (ACCEPT, "create -f qcow2 $ 2M ; resize -q $ 30G"),
    (ACCEPT, "create -f qcow2 $ 2M ; amend -f qcow2 -o compat=0.10 $"),
    ("backing file ('base.raw')", "create -f qcow2 -F raw -b base.raw $"),
    ("backing file ('base.raw')", "create -f qcow2 -o compat=0.10 -F raw -b base.raw $ 20M"),
    ("backing file ('base.qcow2')", "create -f qcow2 -F qcow2 -b base.qcow2 $"),
    ("backing file ('json:", "create -f qcow2 -u -F raw -b json:{\"driver\":\"raw\",\"file.filename\":\"/x\"} $ 1M"),
    ("backing file ('nbd://", "create -f qcow2 -u -F raw -b nbd://192.0.2.1/x $ 1M"),
    ("external data file", "create -f qcow2 -o data_file=$.data $ 1M"),
    ("external data file", "create -f qcow2 -o data_file=$.data,data_file_raw=on $ 1M"),
    ("is encrypted", "create -f qcow2 SECRET -o encrypt.format=aes,encrypt.key-secret=s $ 1M"),
    ("is encrypted", "create -f qcow2 SECRET -o encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=10 $ 1M"),
    ("unfolds to a disk of 100 TiB", "create -f qcow2 $ 100T"),
];

const VMDK: Lines = &[
    (ACCEPT, "create -f vmdk $ 1M"),
    (ACCEPT, "create -f vmdk $ 512"),
    (ACCEPT, "create -f vmdk $ 9000001k"),
    (ACCEPT, "create -f vmdk $ 900G"),
    (ACCEPT, "create -f vmdk -o compat6=on $ 10M"),
    (ACCEPT, "create -f vmdk -o hwversion=7 $ 10M"),
    (ACCEPT, "create -f vmdk -o adapter_type=lsilogic,toolsversion=1 $ 10M"),
    (ACCEPT, "create -f vmdk -o adapter_type=buslogic $ 10M"),
    (ACCEPT, "create -f vmdk -o adapter_type=legacyESX $ 10M"),
    (ACCEPT, "create -f vmdk -o zeroed_grain=on $ 10M"),
    (ACCEPT, "create -f vmdk -o subformat=streamOptimized $ 10M"),
    (ACCEPT, "create -f vmdk -o subformat=streamOptimized,compat6=on $ 3G"),
    (ACCEPT, "convert -O vmdk base.raw $"),
    (ACCEPT, "convert -O vmdk -S 0 base.raw $"),
    (ACCEPT, "convert -O vmdk -o subformat=streamOptimized base.raw $"),
    (ACCEPT, "convert -O vmdk -o subformat=streamOptimized,zeroed_grain=on base.raw $"),
    ("a parent disk", "create -f vmdk -F vmdk -b base.vmdk $"),
    ("names other files", "create -f vmdk -o subformat=monolithicFlat $ 10M"),
    ("names other files", "convert -O vmdk -o subformat=monolithicFlat base.raw $"),
    ("names other files", "create -f vmdk -o subformat=twoGbMaxExtentSparse $ 5G"),
    ("names other files", "create -f vmdk -o subformat=twoGbMaxExtentFlat $ 5G"),
];

const VDI: Lines = &[
    (ACCEPT, "create -f vdi $ 0"),
    (ACCEPT, "create -f vdi $ 512"),
    (ACCEPT, "create -f vdi $ 1M"),
    (ACCEPT, "create -f vdi $ 1025k"),
    (ACCEPT, "create -f vdi $ 3G"),
    (ACCEPT, "create -f vdi $ 1000G"),
    (ACCEPT, "create -f vdi -o static=on $ 1M"),
    (ACCEPT, "create -f vdi -o static=on $ 7777k"),
    (ACCEPT, "create -f vdi -o static=on $ 3M"),
    (ACCEPT, "create -f vdi $ 30M"),
    (ACCEPT, "convert -O vdi base.raw $"),
    (ACCEPT, "convert -O vdi -S 0 base.raw $"),
    (ACCEPT, "convert -O vdi -o static=on base.raw $"),
    (ACCEPT, "convert -O vdi base.qcow2 $"),
    (ACCEPT, "convert -O vdi base.vmdk $"),
    ("unfolds to a disk of 2 TiB", "create -f vdi $ 2T"),
];

const VHD: Lines = &[
    (ACCEPT, "create -f vpc $ 1M"),
    (ACCEPT, "create -f vpc $ 33333k"),
    (ACCEPT, "create -f vpc $ 9G"),
    (ACCEPT, "create -f vpc $ 127G"),
    (ACCEPT, "create -f vpc $ 1000G"),
    (ACCEPT, "create -f vpc -o force_size=on $ 1M"),
    (ACCEPT, "create -f vpc -o force_size=on $ 33333k"),
    (ACCEPT, "create -f vpc -o force_size=on $ 1000G"),
    (ACCEPT, "create -f vpc -o subformat=fixed $ 1M"),
    (ACCEPT, "create -f vpc -o subformat=fixed $ 7777k"),
    (ACCEPT, "create -f vpc -o subformat=fixed,force_size=on $ 7777k"),
    (ACCEPT, "create -f vpc -o subformat=dynamic,force_size=on $ 7777k"),
    (ACCEPT, "convert -O vpc base.raw $"),
    (ACCEPT, "convert -O vpc -S 0 -o force_size=on base.raw $"),
    (ACCEPT, "convert -O vpc -o subformat=fixed base.raw $"),
    (ACCEPT, "convert -O vpc -o subformat=fixed,force_size=on base.raw $"),
    (ACCEPT, "convert -O vpc -o force_size=on base.qcow2 $"),
    ("unfolds to a disk of 2 TiB", "create -f vpc $ 2040G"),
];

const VHDX: Lines = &[
    (ACCEPT, "create -f vhdx $ 1M"),
    (ACCEPT, "create -f vhdx $ 3G"),
    (ACCEPT, "create -f vhdx $ 1000G"),
    (ACCEPT, "create -f vhdx -o block_size=1M $ 33M"),
    (ACCEPT, "create -f vhdx -o block_size=1M $ 600G"),
    (ACCEPT, "create -f vhdx -o block_size=2M $ 33M"),
    (ACCEPT, "create -f vhdx -o block_size=32M $ 33M"),
    (ACCEPT, "create -f vhdx -o block_size=256M $ 1000G"),
    (ACCEPT, "create -f vhdx -o log_size=2M $ 33M"),
    (ACCEPT, "create -f vhdx -o log_size=32M $ 33M"),
    (ACCEPT, "create -f vhdx -o block_state_zero=off $ 33M"),
    (ACCEPT, "create -f vhdx -o subformat=fixed $ 1M"),
    (ACCEPT, "create -f vhdx -o subformat=fixed,block_size=1M $ 3M"),
    (ACCEPT, "convert -O vhdx base.raw $"),
    (ACCEPT, "convert -O vhdx -o block_size=1M base.raw $"),
    (ACCEPT, "convert -O vhdx -o subformat=fixed,block_size=1M base.raw $"),
    (ACCEPT, "convert -O vhdx -o block_size=1M base.qcow2 $"),
    ("unfolds to a disk of 60 TiB", "create -f vhdx $ 60T"),
];

const PLOOP: Lines = &[
    (ACCEPT, "create -f parallels $ 1M"),
    (ACCEPT, "create -f parallels $ 33M"),
    (ACCEPT, "create -f parallels $ 3G"),
    (ACCEPT, "create -f parallels $ 1000G"),
    (ACCEPT, "create -f parallels -o cluster_size=64k $ 33M"),
    (ACCEPT, "create -f parallels -o cluster_size=512k $ 33M"),
    (ACCEPT, "create -f parallels -o cluster_size=2M $ 33M"),
    (ACCEPT, "create -f parallels -o cluster_size=4k $ 33M"),
    (ACCEPT, "convert -O parallels base.raw $"),
    (ACCEPT, "convert -O parallels -S 0 base.raw $"),
    (ACCEPT, "convert -O parallels -o cluster_size=64k base.raw $"),
    (ACCEPT, "convert -O parallels base.qcow2 $"),
    ("unfolds to a disk of 3 TiB", "create -f parallels $ 3T"),
];

fn sources(work: &Work) {
    let mut base = partitioned(3 << 20, &[0x83], None);
    for (n, byte) in base[1 << 20..2 << 20].iter_mut().enumerate() {
        *byte = (n / 4096 * 7 + n % 11) as u8;
    }
    std::fs::write(work.path("base.raw"), base).expect("written");
    work.make("convert -O qcow2 base.raw $", "base.qcow2");
    work.make("convert -O vmdk base.raw $", "base.vmdk");
}

fn look(work: &Work, file: &str) -> Findings {
    let file = OnDisk::new(File::open(work.path(file)).expect("the file is there")).expect("it has a length");
    examine(&file).expect("a file reads")
}

/// What went wrong with one file; nothing where all agree.
fn judge(work: &Work, file: &str, declared: &str, expected: &str) -> Vec<String> {
    let findings = look(work, file);
    let format = findings.format().unwrap_or_else(|| panic!("{file}: {:?}", findings.formats));
    let mut wrong = match work.info(file, format.driver()) {
        Ok(info) => differences(&findings, &info),
        Err(why) => vec![format!("QEMU refuses: {why}")],
    };
    match decide(declared, "bare", &findings, &Limits::default()) {
        Decision::Accept(_) if expected == ACCEPT => {}
        Decision::Refuse(why) if expected != ACCEPT && why.contains(expected) => {}
        decision => wrong.push(format!("{decision:?}, expected {expected}")),
    }
    if declared != "raw" {
        let as_raw = decide("raw", "bare", &findings, &Limits::default());
        assert!(matches!(as_raw, Decision::Refuse(_)), "{file} passes as raw");
    }
    wrong
}

/// Makes each file, holds it against QEMU, and takes it away again.
fn check(name: &str, declared: &str, lines: Lines) {
    let Some(work) = work(name) else { return };
    sources(&work);
    let mut wrong = Vec::new();
    for (n, (expected, commands)) in lines.iter().enumerate() {
        let file = format!("{n}.{name}");
        work.make(&commands.replace("SECRET", SECRET), &file);
        let told = judge(&work, &file, declared, expected);
        wrong.extend(told.into_iter().map(|told| format!("{commands}: {told}")));
        let _ = std::fs::remove_file(work.path(&file));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The same for files that no program made: what makes them, and their layout where it is known.
fn check_made(name: &str, declared: &str, files: &[(&str, Vec<u8>, Option<Layout>)]) {
    let Some(work) = work(name) else { return };
    let mut wrong = Vec::new();
    for (n, (expected, bytes, layout)) in files.iter().enumerate() {
        let file = format!("{n}.{name}");
        std::fs::write(work.path(&file), bytes).expect("written");
        let told = judge(&work, &file, declared, expected);
        wrong.extend(told.into_iter().map(|told| format!("{name} {n}: {told}")));
        let found = look(&work, &file).layout;
        if layout.is_some_and(|layout| layout != found) {
            wrong.push(format!("{name} {n}: {found:?}, expected {layout:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn qcow2() {
    check("qcow2", "qcow2", QCOW2);
}

#[test]
fn vmdk() {
    check("vmdk", "vmdk", VMDK);
}

#[test]
fn vdi() {
    check("vdi", "vdi", VDI);
}

#[test]
fn vhd() {
    check("vhd", "vhd", VHD);
}

#[test]
fn vhdx() {
    check("vhdx", "vhdx", VHDX);
}

#[test]
fn ploop_as_parallels_writes_it() {
    check("parallels", "ploop", PLOOP);
}

#[test]
fn ploop_of_the_older_version() {
    let sizes = [(1, 2048, 0), (4, 2048, 1), (4, 2048, 4), (100, 128, 7), (1000, 63, 0), (16, 8, 16)];
    let files = sizes.map(|(blocks, sectors, filled)| (ACCEPT, ploop(blocks, sectors, filled), None));
    check_made("ploop", "ploop", &files);
}

/// One that QEMU made, and its header with other ciphers, modes and sizes: to make each takes seconds of hashing.
/// Nothing here accepts them.
#[test]
fn luks() {
    let Some(work) = work("luks") else { return };
    work.make(&format!("create -f luks {SECRET} -o key-secret=s,iter-time=10 $ 1M"), "made.luks");
    let made = std::fs::read(work.path("made.luks")).expect("readable");
    let mut wrong = judge(&work, "made.luks", "raw", "a LUKS file");
    let ciphers = [("aes", 16), ("aes", 32), ("aes", 64), ("serpent", 32), ("serpent", 64), ("twofish", 64)];
    let modes = ["xts-plain64", "xts-plain"];
    let pairs = ciphers.iter().flat_map(|cipher| modes.map(|mode| (cipher, mode)));
    let others = [(&("aes", 32), "cbc-plain64"), (&("aes", 32), "cbc-essiv:sha256"), (&("aes", 16), "cbc-plain")];
    for (n, ((cipher, key_bytes), mode)) in pairs.chain(others).enumerate() {
        // XTS takes two keys.
        let key_bytes: u32 = if *key_bytes == 16 && mode.starts_with("xts") { 32 } else { *key_bytes };
        let mut file = made.clone();
        for (at, text) in [(8, *cipher), (40, mode)] {
            file[at..at + 32].fill(0);
            file[at..at + text.len()].copy_from_slice(text.as_bytes());
        }
        file[108..112].copy_from_slice(&key_bytes.to_be_bytes());
        file.resize(made.len() + n * 4096, 0);
        let name = format!("{n}.luks");
        std::fs::write(work.path(&name), file).expect("written");
        let told = judge(&work, &name, "raw", "a LUKS file");
        wrong.extend(told.into_iter().map(|told| format!("{cipher} {mode} {key_bytes}: {told}")));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn raw() {
    let sizes = [0, 1, 15, 511, 512, 513, 1000, 4096, 65535, 65536, 65537, 100_000, 1 << 20, (1 << 20) + 7, 5 << 20];
    let zeroes = sizes.map(|size| (ACCEPT, vec![0; size], Some(Layout::Unknown)));
    check_made("raw", "raw", &zeroes);
    let text = |text: &str| (ACCEPT, text.as_bytes().repeat(100), Some(Layout::Unknown));
    check_made(
        "text",
        "raw",
        &[text("#!/bin/sh\n"), text("{}"), text("json:{}"), text("QFI"), text("# Disk\nversion")],
    );
}

#[test]
fn partition_tables() {
    use Layout::{Gpt, HybridMbr, Mbr};
    let mut files = Vec::new();
    for (n, kind) in
        [0x01, 0x05, 0x07, 0x0b, 0x0c, 0x0f, 0x82, 0x83, 0x8e, 0xa5, 0xaf, 0xef, 0xfd].into_iter().enumerate()
    {
        files.push((ACCEPT, partitioned(4096 + n * 512, &[kind], None), Some(Mbr)));
    }
    files.push((ACCEPT, partitioned(1 << 20, &[0x83, 0x82, 0x05, 0x0c], None), Some(Mbr)));
    files.push((ACCEPT, partitioned(1 << 20, &[0x83], Some(512)), Some(Mbr)));
    for bytes in [1024, 4096, 5000, 65536, 1 << 20, 3 << 20] {
        files.push((ACCEPT, partitioned(bytes, &[0xee], Some(512)), Some(Gpt)));
    }
    for bytes in [8192, 65536, 1 << 20] {
        files.push((ACCEPT, partitioned(bytes, &[0xee], Some(4096)), Some(Gpt)));
        files.push((ACCEPT, partitioned(bytes, &[0xee, 0x83], Some(512)), Some(HybridMbr)));
        files.push((ACCEPT, partitioned(bytes, &[0x0c, 0xee], Some(512)), Some(HybridMbr)));
    }
    files.push((ACCEPT, partitioned(1 << 20, &[], None), Some(Layout::BootSector)));
    check_made("partitioned", "raw", &files);
}

#[test]
fn iso_and_udf() {
    let mut files = Vec::new();
    for blocks in [24, 32, 40, 41, 100, 350, 1000] {
        files.push((ACCEPT, iso(blocks, 0, false, false), None));
        files.push((ACCEPT, iso(blocks, 2048 * 150, true, false), None));
    }
    files.push((ACCEPT, iso(40, 0, true, true), None));
    files.push((ACCEPT, iso(40, 100, false, false), None));
    let mut stick = iso(40, 0, false, false);
    stick[..1024].copy_from_slice(&partitioned(1024, &[0xee, 0x17], Some(512)));
    files.push((ACCEPT, stick, Some(Layout::HybridMbr)));
    check_made("iso", "iso", &files);
}
