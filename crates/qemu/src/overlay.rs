//! A qcow2 file that holds nothing yet over an image below it, written without running a program.
//!
//! An empty overlay is four small tables (layout: QEMU's `docs/interop/qcow2.txt`). Writing them takes a millisecond,
//! a `qemu-img` process twenty to fifty.

use crate::Format;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

const MAGIC: u32 = 0x5146_49fb;
const CLUSTER_BITS: u32 = 16;
const CLUSTER: u64 = 1 << CLUSTER_BITS;
const SECTOR: u64 = 512;
/// Disks end at 64 TiB: the table of the first level then has 1 MiB.
const MOST_BYTES: u64 = 64 << 40;

/// The size of the disk that an image holds.
pub fn virtual_size(image: &File, format: Format) -> io::Result<u64> {
    let size = match format {
        Format::Raw => image.metadata()?.len().div_ceil(SECTOR) * SECTOR,
        Format::Qcow2 => {
            let mut header = [0u8; 32];
            image.read_exact_at(&mut header, 0)?;
            let magic = u32::from_be_bytes([header[0], header[1], header[2], header[3]]);
            if magic != MAGIC {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "the image is no qcow2 file"));
            }
            let size: [u8; 8] = header[24..32].try_into().unwrap_or_default();
            u64::from_be_bytes(size)
        }
    };
    if size == 0 || size > MOST_BYTES {
        return Err(io::Error::new(io::ErrorKind::InvalidData, format!("the image's disk has {size} bytes")));
    }
    Ok(size)
}

/// Writes an empty overlay of `size` bytes into `file`, which must be empty, and syncs it. `backing` is the name that
/// tools show: whoever opens the overlay here says what lies below without reading it.
pub fn write(file: &File, size: u64, backing: &str, backing_format: Format) -> io::Result<()> {
    write_over(file, size, Some((backing, backing_format)))
}

/// Writes an empty disk of `size` bytes into `file`, which must be empty, with nothing below it.
pub fn write_alone(file: &File, size: u64) -> io::Result<()> {
    write_over(file, size, None)
}

fn write_over(file: &File, size: u64, below: Option<(&str, Format)>) -> io::Result<()> {
    let size = size.div_ceil(SECTOR) * SECTOR;
    if size == 0 || size > MOST_BYTES || below.is_some_and(|(name, _)| name.len() > 1023) {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "a disk has 1 byte to 64 TiB and a short backing name",
        ));
    }
    // Clusters: 0 header, 1 refcount table, 2 refcount block, 3.. first-level table (zeros: everything from below).
    let l1_entries = size.div_ceil(CLUSTER * (CLUSTER / 8));
    let l1_clusters = (l1_entries * 8).div_ceil(CLUSTER);
    let clusters = 3 + l1_clusters;

    let mut refcounts = Vec::with_capacity(clusters as usize * 2);
    for _ in 0..clusters {
        refcounts.extend(1u16.to_be_bytes());
    }
    file.set_len(clusters * CLUSTER)?;
    file.write_all_at(&header(size, below, l1_entries), 0)?;
    file.write_all_at(&(2 * CLUSTER).to_be_bytes(), CLUSTER)?;
    file.write_all_at(&refcounts, 2 * CLUSTER)?;
    file.sync_all()
}

fn header(size: u64, below: Option<(&str, Format)>, l1_entries: u64) -> Vec<u8> {
    const LENGTH: u32 = 104;
    let (backing, format) = below.map_or(("", &b""[..]), |(name, format)| (name, format.driver().as_bytes()));
    // The header, the extension naming the backing format (padded to 8), the end of extensions, the backing name.
    let extension = if below.is_some() { 8 + format.len().div_ceil(8) * 8 } else { 0 };
    let name_at = LENGTH as usize + extension + 8;
    let mut bytes = Vec::new();
    bytes.extend(MAGIC.to_be_bytes());
    bytes.extend(3u32.to_be_bytes());
    bytes.extend(if below.is_some() { name_at as u64 } else { 0 }.to_be_bytes());
    bytes.extend((backing.len() as u32).to_be_bytes());
    bytes.extend(CLUSTER_BITS.to_be_bytes());
    bytes.extend(size.to_be_bytes());
    bytes.extend(0u32.to_be_bytes()); // not encrypted
    bytes.extend((l1_entries as u32).to_be_bytes());
    bytes.extend((3 * CLUSTER).to_be_bytes()); // first-level table
    bytes.extend(CLUSTER.to_be_bytes()); // refcount table
    bytes.extend(1u32.to_be_bytes()); // its clusters
    bytes.extend(0u32.to_be_bytes()); // no snapshots
    bytes.extend([0; 8 + 8 + 8 + 8]); // their offset; incompatible, compatible and autoclear features
    bytes.extend(4u32.to_be_bytes()); // refcounts of 16 bits
    bytes.extend(LENGTH.to_be_bytes());
    if below.is_some() {
        bytes.extend(0xe279_2acau32.to_be_bytes());
        bytes.extend((format.len() as u32).to_be_bytes());
        bytes.extend(format);
    }
    bytes.resize(LENGTH as usize + extension, 0);
    bytes.extend([0; 8]);
    bytes.extend(backing.as_bytes());
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn the_size_is_read_back() {
        for size in [1, 512, 24 << 20, 10 << 30, 3 << 40] {
            let file = tempfile::tempfile().unwrap();
            write(&file, size, "../images/abc.raw", Format::Raw).unwrap();
            assert_eq!(virtual_size(&file, Format::Qcow2).unwrap(), size.div_ceil(512) * 512);
        }
        let file = tempfile::tempfile().unwrap();
        assert!(write(&file, 0, "x", Format::Raw).is_err());
        assert!(write(&file, u64::MAX - 1024, "x", Format::Raw).is_err());
        assert!(virtual_size(&file, Format::Qcow2).is_err());
        file.set_len(4096).unwrap();
        assert!(virtual_size(&file, Format::Qcow2).is_err());
        assert_eq!(virtual_size(&file, Format::Raw).unwrap(), 4096);
    }

    #[test]
    fn qemu_img_finds_no_fault_with_it() {
        if Command::new("qemu-img").arg("--version").output().is_err() {
            assert!(!required("qemu"), "qemu-img is missing");
            println!("SKIP qemu-img is not installed");
            return;
        }
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("base.raw"), vec![7u8; 1 << 20]).unwrap();
        let path = folder.path().join("overlay.qcow2");
        let file = File::options().read(true).write(true).create_new(true).open(&path).unwrap();
        write(&file, 2000 << 30, "base.raw", Format::Raw).unwrap();
        for args in [&["check", "-f", "qcow2"][..], &["compare", "-f", "raw", "-F", "qcow2", "base.raw"][..]] {
            let out = Command::new("qemu-img").args(args).arg(&path).current_dir(folder.path()).output().unwrap();
            let text = String::from_utf8_lossy(&out.stdout).into_owned() + &String::from_utf8_lossy(&out.stderr);
            assert!(out.status.success(), "{args:?}: {text}");
        }
        let info = Command::new("qemu-img").args(["info", "--output=json"]).arg(&path).output().unwrap();
        let info: serde_json::Value = serde_json::from_slice(&info.stdout).unwrap();
        assert_eq!(info["virtual-size"], 2000u64 << 30);
        assert_eq!(info["backing-filename"], "base.raw");
        assert_eq!(info["backing-filename-format"], "raw");
    }

    fn required(what: &str) -> bool {
        let list = std::env::var("NUBO_REQUIRE").unwrap_or_default();
        list == "all" || list.split(',').any(|it| it == what)
    }
}
