//! The layers of volumes as QEMU's own tools see them, also after what worked on them was killed.

use super::conformance::{Check, id, image};
use super::driver::{Content, Driver, Holder};
use super::file::tests::driver;
use base::{VolumeId, VolumeSnapshotId};
use serde_json::Value;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

const GIB: u64 = 1 << 30;

fn folder(state: &Path, id: &VolumeId) -> std::path::PathBuf {
    state.join("hosts/volumes").join(id.as_str())
}

fn record(state: &Path, id: &VolumeId) -> Value {
    serde_json::from_slice(&std::fs::read(folder(state, id).join("disk.json")).unwrap()).unwrap()
}

/// The file names of the layers, from the top.
fn layers(state: &Path, id: &VolumeId) -> Vec<String> {
    let record = record(state, id);
    let layers = record["layers"].as_array().unwrap();
    layers.iter().rev().map(|it| format!("{}.{}", it["number"], it["format"].as_str().unwrap())).collect()
}

fn qemu_img(arguments: &[&str], file: &Path) -> Value {
    let run = Command::new("qemu-img").args(arguments).args(["--output", "json"]).arg(file).output().unwrap();
    assert!(run.status.success(), "{file:?}: {}", String::from_utf8_lossy(&run.stderr));
    serde_json::from_slice(&run.stdout).unwrap()
}

/// Each layer is whole, and the names in the headers lead down the same chain as the record. `killed`: clusters may
/// have been lost to a QEMU that was killed, which costs room and nothing else.
fn sound(state: &Path, id: &VolumeId, killed: bool) {
    let (folder, layers) = (folder(state, id), layers(state, id));
    let told = qemu_img(&["info", "--backing-chain"], &folder.join(&layers[0]));
    let named = told.as_array().unwrap().iter().map(|it| it["filename"].as_str().unwrap().rsplit('/').next().unwrap());
    assert_eq!(named.collect::<Vec<_>>(), layers, "{id}");
    assert_eq!(told[0]["virtual-size"], record(state, id)["size_bytes"], "{id}");
    for layer in layers.iter().filter(|name| name.ends_with("qcow2")) {
        let path = folder.join(layer);
        if killed {
            let run = Command::new("qemu-img").args(["check", "-q"]).arg(&path).output().unwrap();
            assert!(matches!(run.status.code(), Some(0 | 3)), "{path:?}: {}", String::from_utf8_lossy(&run.stderr));
        } else {
            let said = qemu_img(&["check"], &path);
            let bad = ["corruptions", "leaks", "check-errors"].map(|what| said[what].as_u64().unwrap_or(0));
            assert_eq!(bad, [0, 0, 0], "{path:?}: {said}");
        }
    }
}

#[tokio::test]
async fn copies_are_chains_that_qemu_img_follows_and_a_flat_volume_stands_alone() {
    let Some((folder, driver)) = driver() else { return };
    let (state, check) = (folder.path(), Check::new(&driver, folder.path()));
    let (first, copy, grandchild) = (id(1), id(2), id(3));
    let snapshot = |name: &str| VolumeSnapshotId::new(name);
    let from = |volume: &VolumeId, name: &str| Content::Snapshot { volume: volume.clone(), snapshot: snapshot(name) };
    let all = |ids: &[&VolumeId]| ids.iter().for_each(|id| sound(state, id, false));

    let (file, content) = image(state);
    driver.create(&first, GIB, content).await.unwrap();
    drop(file);
    all(&[&first]);
    assert_eq!(layers(state, &first), ["2.qcow2", "1.raw"]);
    // Two snapshots, of which the first goes: the numbers have a gap from now on.
    for (at, name) in ["a", "b"].into_iter().enumerate() {
        check.write(&first, at as u8 + 1, at as u64 * 64, 64).await;
        check.snapshot(&first, &snapshot(name)).await;
    }
    driver.delete_snapshot(&first, &snapshot("b")).await.unwrap();
    check.tidy(&first, false).await;
    check.snapshot(&first, &snapshot("c")).await;
    all(&[&first]);
    assert_eq!(layers(state, &first), ["5.qcow2", "4.qcow2", "2.qcow2", "1.raw"]);

    // A copy of it, larger, and a copy of the copy.
    check.create(&copy, 2, || from(&first, "c")).await;
    check.write(&copy, 3, 128, 64).await;
    check.snapshot(&copy, &snapshot("d")).await;
    check.create(&grandchild, 3, || from(&copy, "d")).await;
    all(&[&first, &copy, &grandchild]);
    assert_eq!(check.look(&grandchild).await.depends_on, [first.clone(), copy.clone()]);

    // The one in the middle goes; what only it paid for is the grandchild's to pay.
    let before = check.look(&grandchild).await.used_bytes;
    driver.delete(&copy).await.unwrap();
    all(&[&first, &grandchild]);
    let look = check.look(&grandchild).await;
    assert!(look.used_bytes >= before + (64 << 10), "{before}, then {look:?}");
    assert_eq!(look.depends_on, [first.clone()]);

    // Flat: one file, its source may go, and all of it is there.
    check.tidy(&grandchild, true).await;
    all(&[&first, &grandchild]);
    assert_eq!(layers(state, &grandchild).len(), 1);
    driver.delete(&first).await.unwrap();
    for (pattern, at) in [(1, 0), (2, 64), (3, 128), (7, 192)] {
        check.holds(&grandchild, pattern, at, 64).await;
    }
    let alone = std::fs::read_dir(state.join("hosts/volumes").join(grandchild.as_str())).unwrap();
    let files = alone.flatten().filter(|it| it.file_name().to_string_lossy().ends_with("qcow2")).count();
    assert_eq!(files, 1);
    all(&[&grandchild]);
}

#[tokio::test]
async fn an_images_content_is_paid_for_once() {
    let Some((folder, driver)) = driver() else { return };
    let (state, check) = (folder.path(), Check::new(&driver, folder.path()));
    // As the host keeps it.
    let (file, content) = image(&state.join("hosts/images"));
    driver.create(&id(1), GIB, content).await.unwrap();
    let again =
        Content::Image { file: file.reopen().unwrap(), format: agent_api::DiskFormat::Raw, name: "again".into() };
    driver.create(&id(2), GIB, again).await.unwrap();
    for number in [1, 2] {
        assert!(check.look(&id(number)).await.used_bytes < 1 << 20, "the host's own file of the image pays");
    }
    // The host forgets the image: both pay a half, then the last one all.
    drop(file);
    let mut used = Vec::new();
    for number in [1, 2] {
        used.push(check.look(&id(number)).await.used_bytes);
    }
    assert!(used.iter().all(|bytes| (512 << 10..1 << 20).contains(bytes)), "{used:?}");
    driver.delete(&id(1)).await.unwrap();
    assert!(check.look(&id(2)).await.used_bytes >= 1 << 20);
}

/// Moments from one seed: a failure can be repeated.
struct Moments(u64);

impl Moments {
    fn next(&mut self, most: Duration) -> Duration {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        most.mul_f64((self.0 >> 40) as f64 / (1u64 << 24) as f64)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_works_on_a_volume_may_be_killed_at_any_moment() {
    let Some((folder, driver)) = driver() else { return };
    let (state, check) = (folder.path(), Check::new(&driver, folder.path()));
    let volume = id(1);
    let (_file, content) = image(state);
    driver.create(&volume, GIB, content).await.unwrap();
    check.write(&volume, 1, 0, 4096).await;
    let mut moments = Moments(20_261_121);
    for round in 1..=20u64 {
        // A snapshot that goes again leaves a layer to merge; a growth is asked for with it.
        let kept = VolumeSnapshotId::new(format!("s{round}"));
        check.snapshot(&volume, &kept).await;
        check.write(&volume, (round % 200) as u8 + 2, 4096 + 64 * round, 64).await;
        driver.delete_snapshot(&volume, &kept).await.unwrap();
        let at = moments.next(Duration::from_millis(400));
        let work = async {
            driver.extend(&volume, (round + 1) * GIB, &Holder::Nobody).await?;
            driver.tidy(&volume, round % 2 == 0, &Holder::Nobody, check.calm.subscribe()).await.map(drop)
        };
        let killed = async {
            tokio::time::sleep(at).await;
            // By the folder's name: other tests have processes of the same name.
            for seen in qemu::process::find("nubo-0a1b2c3d-volume.") {
                let own = std::fs::read_dir(format!("/proc/{}/fd", seen.pid)).into_iter().flatten().flatten();
                let mut own = own.filter_map(|it| std::fs::read_link(it.path()).ok());
                if own.any(|file| file.starts_with(state)) {
                    let pid = nix::unistd::Pid::from_raw(seen.pid);
                    let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL);
                }
            }
        };
        let (_, ()) = tokio::join!(work, killed);
        // Whoever comes next makes it whole.
        for _ in 0..2 {
            driver.extend(&volume, (round + 1) * GIB, &Holder::Nobody).await.unwrap();
            check.tidy(&volume, round % 2 == 0).await;
        }
        sound(state, &volume, true);
        let look = check.look(&volume).await;
        assert!(look.size_bytes == (round + 1) * GIB && !look.untidy, "round {round}, {at:?}: {look:?}");
        check.holds(&volume, 1, 0, 4096).await;
        for earlier in 1..=round {
            check.holds(&volume, (earlier % 200) as u8 + 2, 4096 + 64 * earlier, 64).await;
        }
    }
}
