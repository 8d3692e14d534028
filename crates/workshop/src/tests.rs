//! Public behaviour with the real programs.

use crate::*;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

struct Bench(tempfile::TempDir);

/// A folder to work in, where the machine has QEMU's programs.
fn bench() -> Option<Bench> {
    testkit::require("qemu").then(|| Bench(tempfile::tempdir().unwrap()))
}

impl Bench {
    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn qemu_img(&self, arguments: &[&str]) -> String {
        let run = Command::new("qemu-img").args(arguments).current_dir(self.0.path()).output().unwrap();
        assert!(run.status.success(), "qemu-img {arguments:?}: {}", String::from_utf8_lossy(&run.stderr));
        String::from_utf8_lossy(&run.stdout).into_owned()
    }

    /// A raw disk of 4 MiB whose bytes tell where they are.
    fn raw(&self, name: &str, seed: u8) -> PathBuf {
        let bytes: Vec<u8> = (0..4u32 << 20).map(|at| (at >> 9) as u8 ^ seed).collect();
        fs::write(self.path(name), &bytes).unwrap();
        self.path(name)
    }

    fn names(&self) -> Vec<String> {
        let mut names: Vec<String> =
            fs::read_dir(self.0.path()).unwrap().map(|it| it.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
}

fn to(format: &str) -> Conversion {
    Conversion { to: format.into(), ..Conversion::default() }
}

fn said<T: std::fmt::Debug>(result: Result<T>) -> String {
    result.unwrap_err().to_string()
}

#[test]
fn sizes_are_read_as_people_write_them() {
    assert_eq!(parse_size("512").unwrap(), 512);
    assert_eq!(parse_size("3G").unwrap(), 3 << 30);
    assert_eq!(parse_size("2TiB").unwrap(), 2 << 40);
    for wrong in ["", "G", "-1", "1.5G", "1P", "99999999999999999999", "17T"] {
        assert!(parse_size(wrong).is_err(), "{wrong}");
    }
}

#[test]
fn an_image_goes_through_all_formats_and_comes_back_the_same() {
    let Some(bench) = bench() else { return };
    let raw = bench.raw("disk.raw", 0);
    let mut last = raw.clone();
    for format in ["qcow2", "vmdk", "vdi", "vhdx", "vhd", "raw"] {
        let next = bench.path(&format!("disk.{format}.image"));
        let made = convert(&last, &next, &to(format)).unwrap();
        assert_eq!(made.format, format);
        last = next;
    }
    // A VHD's geometry rounds the size up: what lies behind is zero.
    let compared = compare(&raw, &last).unwrap();
    assert!(compared.identical, "{compared:?}");
    let packed = convert(&raw, &bench.path("packed"), &Conversion { compress: true, ..to("qcow2") }).unwrap();
    assert!(packed.size_bytes < 1 << 20, "{packed:?}");
}

/// It is read as what it is, and not as the bytes of its file.
#[test]
fn a_ploop_is_converted_by_its_disk() {
    let Some(bench) = bench() else { return };
    let raw = bench.raw("disk.raw", 0);
    bench.qemu_img(&["convert", "-f", "raw", "-O", "parallels", "disk.raw", "disk.hds"]);
    let made = convert(&bench.path("disk.hds"), &bench.path("made"), &to("qcow2")).unwrap();
    assert_eq!(made.format, "qcow2");
    assert!(compare(&raw, &bench.path("made")).unwrap().identical);
    assert!(compare(&raw, &bench.path("disk.hds")).unwrap().identical);
}

#[test]
fn nothing_is_overwritten_and_a_failure_leaves_nothing() {
    let Some(bench) = bench() else { return };
    let raw = bench.raw("disk", 0);
    fs::write(bench.path("kept"), "mine").unwrap();
    assert!(matches!(convert(&raw, &bench.path("kept"), &to("qcow2")), Err(Error::Exists(_))));
    assert!(said(convert(&raw, &bench.path("new"), &to("qed"))).contains("'qed' is no format that is written"));
    assert!(
        said(convert(&raw, &bench.path("new"), &Conversion { compress: true, ..to("raw") })).contains("only qcow2")
    );
    let wrong = Conversion { from: Some("qcow2".into()), ..to("raw") };
    assert!(said(convert(&raw, &bench.path("new"), &wrong)).contains("disk_format is 'qcow2'"));
    assert!(said(convert(&bench.path("none"), &bench.path("new"), &to("raw"))).contains("none"));
    assert_eq!(bench.names(), ["disk", "kept"]);
    assert_eq!(fs::read(bench.path("kept")).unwrap(), b"mine");
    let made = convert(&raw, &bench.path("kept"), &Conversion { force: true, ..to("qcow2") }).unwrap();
    assert_eq!(fs::metadata(bench.path("kept")).unwrap().len(), made.size_bytes);
    assert_eq!(bench.names(), ["disk", "kept"]);
    std::os::unix::fs::symlink("kept", bench.path("link")).unwrap();
    let forced = Conversion { force: true, ..to("qcow2") };
    assert!(said(convert(&raw, &bench.path("link"), &forced)).contains("no plain file"));
}

#[test]
fn a_name_in_an_image_is_never_followed() {
    let Some(bench) = bench() else { return };
    bench.raw("secret", 7);
    bench.qemu_img(&["create", "-q", "-f", "qcow2", "-b", "secret", "-F", "raw", "thief"]);
    let thief = bench.path("thief");
    assert!(said(convert(&thief, &bench.path("loot"), &to("raw"))).contains("stands on a backing file ('secret')"));
    assert!(said(resize(&thief, 8 << 20, false)).contains("backing file"));
    assert!(said(compare(&thief, &bench.path("secret"))).contains("backing file"));
    // A check opens no backing file: it may even be gone.
    fs::rename(bench.path("secret"), bench.path("moved")).unwrap();
    assert!(check(&thief, None).unwrap().is_sound());
    // Another file, named by the user, takes its place.
    bench.raw("other", 9);
    let flat = Conversion { backing: vec![bench.path("other")], ..to("raw") };
    fs::rename(bench.path("moved"), bench.path("secret")).unwrap();
    convert(&thief, &bench.path("flat"), &flat).unwrap();
    assert_eq!(fs::read(bench.path("flat")).unwrap(), fs::read(bench.path("other")).unwrap());
    let too_many = Conversion { backing: vec![bench.path("other"), bench.path("secret")], ..to("raw") };
    assert!(said(convert(&thief, &bench.path("x"), &too_many)).contains("stands alone"));
    fs::write(bench.path("text"), "# Disk DescriptorFile\nversion=1\nRW 1 FLAT \"/etc/passwd\" 0\n".repeat(20))
        .unwrap();
    assert!(said(convert(&bench.path("text"), &bench.path("x"), &to("raw"))).contains("VMDK"));
    assert!(said(convert(Path::new("/dev/null"), &bench.path("x"), &to("raw"))).contains("no plain file"));
}

#[test]
fn a_disk_grows_and_is_only_cut_when_that_is_meant() {
    let Some(bench) = bench() else { return };
    bench.raw("disk.raw", 0);
    let qcow2 = bench.path("disk.qcow2");
    convert(&bench.path("disk.raw"), &qcow2, &to("qcow2")).unwrap();
    for path in [qcow2.clone(), bench.path("disk.raw")] {
        assert_eq!(resize(&path, 16 << 20, false).unwrap(), 16 << 20);
        assert_eq!(Image::open(&path, None).unwrap().findings().virtual_size, 16 << 20);
        assert!(said(resize(&path, 2 << 20, false)).contains("--shrink"));
        assert!(said(resize(&path, (16 << 20) + 1, false)).contains("sectors"));
        assert_eq!(resize(&path, 2 << 20, true).unwrap(), 2 << 20);
    }
    assert!(compare(&qcow2, &bench.path("disk.raw")).unwrap().identical);
    convert(&qcow2, &bench.path("disk.vdi"), &to("vdi")).unwrap();
    assert!(said(resize(&bench.path("disk.vdi"), 16 << 20, false)).contains("convert it"));
}

#[test]
fn a_difference_is_found_where_it_is() {
    let Some(bench) = bench() else { return };
    let one = bench.raw("one", 0);
    let mut bytes = fs::read(&one).unwrap();
    bytes[3 << 20] ^= 1;
    fs::write(bench.path("other"), &bytes).unwrap();
    let compared = compare(&one, &bench.path("other")).unwrap();
    assert_eq!((compared.identical, compared.first_difference_bytes), (false, Some(3 << 20)));
}

#[test]
fn leaks_and_corruptions_are_told_and_leaks_mended() {
    let Some(bench) = bench() else { return };
    bench.raw("disk.raw", 0);
    let path = bench.path("disk");
    convert(&bench.path("disk.raw"), &path, &to("qcow2")).unwrap();
    assert_eq!(check(&bench.path("disk.raw"), None).unwrap(), Checked { format: "raw", ..Checked::default() });
    assert!(check(&path, None).unwrap().is_sound());
    // The first entry of the first L2 table goes: its cluster is used by nobody.
    let mut bytes = fs::read(&path).unwrap();
    let word = |bytes: &[u8], at: usize| u64::from_be_bytes(bytes[at..at + 8].try_into().unwrap());
    let l1 = word(&bytes, 40) as usize;
    let l2 = (word(&bytes, l1) & 0x00ff_ffff_ffff_fe00) as usize;
    bytes[l2..l2 + 8].fill(0);
    fs::write(&path, &bytes).unwrap();
    let found = check(&path, None).unwrap();
    assert_eq!((found.leaks, found.corruptions), (1, 0));
    assert_eq!(check(&path, Some("leaks")).unwrap().leaks_fixed, 1);
    assert!(check(&path, None).unwrap().is_sound());
    // The second takes the place of the third: one cluster twice in use, one never.
    let mut bytes = fs::read(&path).unwrap();
    let second = bytes[l2 + 8..l2 + 16].to_vec();
    bytes[l2 + 16..l2 + 24].copy_from_slice(&second);
    fs::write(&path, &bytes).unwrap();
    assert!(check(&path, None).unwrap().corruptions > 0);
}

#[test]
fn an_overlay_is_put_on_another_file_and_written_into_it() {
    let Some(bench) = bench() else { return };
    let (old, new) = (bench.raw("old", 1), bench.raw("new", 2));
    bench.qemu_img(&["create", "-q", "-f", "qcow2", "-b", "old", "-F", "raw", "overlay"]);
    let mut write = Command::new("qemu-io");
    write.args(["-f", "qcow2", "-c", "write -q -P 0xaa 1M 64k", "overlay"]).current_dir(bench.0.path());
    assert!(write.status().unwrap().success());
    let overlay = bench.path("overlay");
    let flat = |name: &str, below: &Path| {
        convert(&overlay, &bench.path(name), &Conversion { backing: vec![below.into()], ..to("raw") }).unwrap();
        fs::read(bench.path(name)).unwrap()
    };
    let before = flat("before", &old);
    rebase(&overlay, &old, &new, Show::Nothing).unwrap();
    assert_eq!(flat("after", &new), before);
    let info = bench.qemu_img(&["info", "--output=json", "overlay"]);
    let info: serde_json::Value = serde_json::from_str(&info).unwrap();
    assert_eq!(info["backing-filename"], new.canonicalize().unwrap().to_str().unwrap());
    assert_eq!(info["backing-filename-format"], "raw");
    commit(&overlay, &new, Show::Nothing).unwrap();
    assert_eq!(fs::read(&new).unwrap(), before);
    assert!(said(rebase(&new, &old, &new, Show::Nothing)).contains("qcow2"));
    let alone = bench.path("alone");
    convert(&old, &alone, &to("qcow2")).unwrap();
    assert!(said(commit(&alone, &old, Show::Nothing)).contains("stands alone"));
}
