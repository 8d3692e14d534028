//! The disk of a guest, or a volume, that exists only in memory: one cluster at its beginning, so that two differ.

use std::io::Cursor;
use std::pin::Pin;
use tokio::io::AsyncRead;

/// A file's length and bytes.
pub type Bytes = (u64, Pin<Box<dyn AsyncRead + Send>>);

const CLUSTER: usize = 65_536;

fn bytes_of(size_gib: u64) -> u64 {
    size_gib.clamp(1, 1 << 14) << 30
}

/// A raw disk, cut after its first cluster: what is sent takes time that a history does not have.
pub fn raw(mark: &str) -> Bytes {
    let mut image = mark.as_bytes().to_owned();
    image.resize(CLUSTER, 0);
    (image.len() as u64, Box::pin(Cursor::new(image)))
}

/// A qcow2 without a backing file.
pub fn qcow2(size_gib: u64, mark: &str) -> Bytes {
    let image = image(size_gib, mark);
    (image.len() as u64, Box::pin(Cursor::new(image)))
}

/// A qcow2 of version 3, with `mark` at the beginning of its disk.
fn image(size_gib: u64, mark: &str) -> Vec<u8> {
    let size = bytes_of(size_gib);
    // Each entry of the first-level table stands for 512 MiB.
    let l1_entries = size.div_ceil(512 << 20);
    let l1_clusters = (l1_entries as usize * 8).div_ceil(CLUSTER);
    // 0 header, 1 refcount table, 2 refcount block, 3.. first-level table, then a second-level table and the data.
    let (l2, data) = (3 + l1_clusters, 4 + l1_clusters);
    let mut file = vec![0; (data + 1) * CLUSTER];
    let mut put = |at: usize, bytes: &[u8]| file[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, b"QFI\xfb");
    put(4, &3u32.to_be_bytes());
    put(20, &16u32.to_be_bytes());
    put(24, &size.to_be_bytes());
    put(36, &(l1_entries as u32).to_be_bytes());
    put(40, &(3 * CLUSTER as u64).to_be_bytes());
    put(48, &(CLUSTER as u64).to_be_bytes());
    put(56, &1u32.to_be_bytes());
    put(96, &4u32.to_be_bytes());
    put(100, &104u32.to_be_bytes());
    put(CLUSTER, &(2 * CLUSTER as u64).to_be_bytes());
    for cluster in 0..=data {
        put(2 * CLUSTER + 2 * cluster, &1u16.to_be_bytes());
    }
    let copied = 1u64 << 63;
    put(3 * CLUSTER, &((l2 * CLUSTER) as u64 | copied).to_be_bytes());
    put(l2 * CLUSTER, &((data * CLUSTER) as u64 | copied).to_be_bytes());
    let mark = mark.as_bytes();
    put(data * CLUSTER, &mark[..mark.len().min(CLUSTER)]);
    file
}
