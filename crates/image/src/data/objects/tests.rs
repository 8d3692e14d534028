//! What every driver must do, and that each does.

use super::memory::Memory;
use super::*;
use futures::TryStreamExt;
use std::io::Write;

fn file(bytes: &[u8]) -> File {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(bytes).unwrap();
    file
}

async fn read(objects: &dyn Objects, key: &str, first: u64, length: u64) -> Vec<u8> {
    let bites = objects.get(key, first, length).await.unwrap();
    let pieces: Vec<Bytes> = bites.try_collect().await.unwrap();
    pieces.concat()
}

/// Holds for a place in which nobody else works. `sizes`: lengths at which the driver changes its ways.
pub async fn conforms(objects: &dyn Objects, sizes: &[usize]) {
    objects.check().await.unwrap();
    let nonces = ["00000000000000aa", "00000000000000bb"];
    let [one, other] = nonces.map(|nonce| key(&"5a".repeat(64), nonce));
    assert_eq!(objects.size(&one).await.unwrap(), None);
    assert!(matches!(objects.get(&one, 0, 1).await.err(), Some(Error::Missing(_))));
    objects.remove(&one).await.unwrap();
    for &size in sizes {
        let bytes: Vec<u8> = (0..size).map(|n| (n / 11 % 251) as u8).collect();
        objects.put(&one, &file(&bytes), size as u64).await.unwrap();
        assert_eq!(objects.size(&one).await.unwrap(), Some(size as u64));
        assert!(read(objects, &one, 0, size as u64).await == bytes, "{size} bytes");
        let some = size.min(7);
        for first in [0, size / 3, size - some] {
            let found = read(objects, &one, first as u64, some as u64).await;
            assert_eq!(found, bytes[first..first + some], "{some} of {size} from {first}");
        }
    }
    objects.put(&other, &file(b"longer than it shall be"), 6).await.unwrap();
    assert_eq!(read(objects, &other, 0, 6).await, b"longer");
    objects.put(&other, &file(b"another"), 7).await.unwrap();
    assert_eq!(read(objects, &other, 0, 7).await, b"another");
    let mut listed = objects.list().await.unwrap();
    listed.sort();
    assert_eq!(listed, [one.clone(), other.clone()]);
    objects.remove(&one).await.unwrap();
    assert_eq!(objects.list().await.unwrap(), [other.clone()]);
    assert_eq!(objects.size(&one).await.unwrap(), None);
    objects.remove(&other).await.unwrap();
    assert!(objects.list().await.unwrap().is_empty());
}

#[tokio::test]
async fn memory_conforms() {
    conforms(&Memory::default(), &[0, 1, 100_000]).await;
}

#[tokio::test]
async fn a_store_that_is_down_says_so() {
    let memory = Memory::default();
    memory.set_down(true);
    let fault = memory.check().await.unwrap_err().of("ceph");
    assert_eq!(fault.message, "The image store 'ceph' does not answer: it is switched off.");
    assert_eq!(fault.kind, base::FaultKind::Unavailable);
}

#[test]
fn keys_are_told_from_other_names() {
    let good = key(&"0".repeat(128), "0123456789abcdef");
    assert!(is_key(&good));
    for bad in ["", "-", &good[1..], &good.to_uppercase(), &format!("{good}0"), &good.replace('-', "/")] {
        assert!(!is_key(bad), "{bad}");
    }
}

/// The settings of real stores, as `nubo.toml` has them: `{"s3": {…}, "rbd": {…}}`.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a Ceph, and NUBO_TEST_STORES that says where it is: tests/host/test_ceph.py brings both"]
async fn real_ones_conform() {
    let settings = std::env::var("NUBO_TEST_STORES").expect("NUBO_TEST_STORES");
    let stores: std::collections::BTreeMap<String, crate::StoreOptions> = serde_json::from_str(&settings).unwrap();
    assert_eq!(stores.keys().collect::<Vec<_>>(), ["rbd", "s3"]);
    for options in stores.values() {
        let objects = options.place.driver(&base::Env::system()).unwrap().expect("no folder");
        conforms(&*objects, &[0, 1, 300_000, s3::PART_BYTES as usize, s3::PART_BYTES as usize * 2 + 12_345]).await;
    }
}
