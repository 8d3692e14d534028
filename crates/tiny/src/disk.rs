//! The guest's disk: a boot record, one FAT partition with SYSLINUX, the kernel and the initramfs.

use crate::packages::{Unpacked, run};
use anyhow::{Context, Result};
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;

const SECTOR: u64 = 512;
/// The partition begins after 1 MiB, as is usual.
const START: u64 = 2048;
/// The label by which the guest finds its own disk.
const LABEL: &str = "TINYBOOT";

const CONFIGURATION: &str = "DEFAULT tiny
PROMPT 0
TIMEOUT 0
LABEL tiny
  LINUX /VMLINUZ
  INITRD /INITRD.GZ
  APPEND console=tty0 console=ttyS0,115200 quiet loglevel=3 panic=5 no_timer_check mitigations=off
";

/// Writes the disk from the files of a folder as a compressed qcow2.
pub fn write(unpacked: &Unpacked, stage: &Path, output: &Path) -> Result<()> {
    fs::write(stage.join("SYSLINUX.CFG"), CONFIGURATION)?;
    let names = ["SYSLINUX.CFG", "VMLINUZ", "INITRD.GZ"];
    let content: u64 = names.iter().filter_map(|name| fs::metadata(stage.join(name)).ok()).map(|it| it.len()).sum();
    // Room for SYSLINUX itself and the tables.
    let sectors = (content / SECTOR + 4 * 2048).next_multiple_of(2048);
    let raw = stage.join("disk.raw");
    boot_record(unpacked, &raw, sectors)?;

    let format = unpacked.file(&["sbin/mkfs.fat"])?;
    // FAT16 with small clusters: that many sectors hold between 4,085 and 65,524 of them.
    let (start, kib) = (START.to_string(), (sectors / 2).to_string());
    let geometry = ["-F", "16", "-s", "8", "-n", LABEL, "-h", &start, "--offset", &start];
    run(unpacked.command(&format)?.args(geometry).arg(&raw).arg(kib)).context("making the file system")?;

    let tools = stage.join("tools");
    unpacked.wrap(&tools, &unpacked.file(&["bin/mtools"])?, &["mcopy", "mattrib", "mmove", "mdel"])?;
    let path = format!("{}:/usr/sbin:/usr/bin:/sbin:/bin", tools.display());
    let place = format!("{}@@{}", raw.display(), START * SECTOR);
    let mut copy = Command::new(tools.join("mcopy"));
    copy.env("MTOOLS_SKIP_CHECK", "1").args(["-i", &place]).args(names.map(|name| stage.join(name))).arg("::/");
    run(&mut copy).context("copying kernel and initramfs")?;

    let loader = unpacked.file(&["bin/syslinux"])?;
    let offset = (START * SECTOR).to_string();
    let mut install = unpacked.command(&loader)?;
    run(install.env("PATH", path).args(["--offset", &offset, "--install"]).arg(&raw)).context("installing SYSLINUX")?;

    let mut convert = Command::new("qemu-img");
    run(convert.args(["convert", "-f", "raw", "-c", "-O", "qcow2"]).arg(&raw).arg(output)).context("compressing")?;
    Ok(())
}

fn boot_record(unpacked: &Unpacked, path: &Path, sectors: u64) -> Result<()> {
    let code = fs::read(unpacked.file(&["lib/syslinux/mbr/mbr.bin", "lib/SYSLINUX/mbr.bin"])?)?;
    let disk = File::create(path)?;
    disk.set_len((START + sectors) * SECTOR)?;
    disk.write_all_at(&code[..code.len().min(440)], 0)?;
    // Active, FAT16 by logical blocks; heads and cylinders say that nobody uses them.
    let mut partition = vec![0x80, 0xfe, 0xff, 0xff, 0x0e, 0xfe, 0xff, 0xff];
    partition.extend((START as u32).to_le_bytes());
    partition.extend((sectors as u32).to_le_bytes());
    disk.write_all_at(&partition, 446)?;
    disk.write_all_at(&[0x55, 0xaa], 510)?;
    Ok(())
}
