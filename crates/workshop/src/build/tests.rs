//! Words that are taken, and a disk from a small tree, read back by other programs.

use super::*;
use crate::sparsify;
use std::os::unix::fs::{FileExt, MetadataExt};

fn recipe() -> Debian {
    Debian { release: "bookworm".into(), mirror: None, keyring: None, include: Vec::new() }
}

#[test]
fn words_that_would_be_options_or_lines_are_refused() {
    assert!(check(&recipe()).is_ok());
    for release in ["", "-x", "book worm", "a/b", "Bookworm"] {
        assert!(check(&Debian { release: release.into(), ..recipe() }).is_err(), "{release}");
    }
    for mirror in ["ftp://x", "http://x y", "file://x", "https://x/[trusted=yes]", "http://x\ndeb"] {
        assert!(check(&Debian { mirror: Some(mirror.into()), ..recipe() }).is_err(), "{mirror}");
    }
    assert!(check(&Debian { mirror: Some("file:///srv/mirror".into()), ..recipe() }).is_ok());
    assert!(check(&Debian { include: vec!["vim".into(), "--x".into()], ..recipe() }).is_err());
}

#[test]
fn the_machine_s_own_mirror_counts_where_it_has_the_release() {
    let told = "Debian http://m/debian/ bookworm main\nDebian http://m/debian/ bookworm main\n\
                Debian http://m/debian/ bookworm-updates main\nNode http://n/ nodistro main\n\
                Debian http://m/debian-security/ bookworm-security main\nDebian http://m/debian/ bookworm contrib\n";
    let lines = machine_sources(told, "bookworm");
    assert_eq!(
        lines,
        [
            "deb http://m/debian/ bookworm main",
            "deb http://m/debian/ bookworm-updates main",
            "deb http://m/debian-security/ bookworm-security main"
        ]
    );
    assert_eq!(machine_sources(told, "trixie"), [""; 0]);
    assert_eq!(machine_sources("Debian http://m/ trixie-updates main", "trixie"), [""; 0]);
    let named = Debian { mirror: Some("file:///m".into()), ..recipe() };
    assert_eq!(sources(&named).unwrap(), ["deb file:///m bookworm main"]);
}

#[test]
fn a_small_system_becomes_a_disk() {
    if !testkit::require("root") || !testkit::require("qemu") || !testkit::require("filesystems") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let grub = path("system/boot/grub/i386-pc");
    fs::create_dir_all(&grub).unwrap();
    fs::write(path("system/hello"), "hello").unwrap();
    std::os::unix::fs::chown(path("system/hello"), Some(1234), Some(2345)).unwrap();
    let pack = |name: &str| {
        let mut command = Command::new("tar");
        command.arg("-C").arg(path("system")).arg("-czf").arg(path(name)).arg(".");
        child::succeed(&mut command).unwrap();
        path(name)
    };
    let on = |output: &str, format: &str| Disk {
        output: path(output),
        format: format.into(),
        size_bytes: None,
        compress: false,
        force: false,
        show: Show::Nothing,
    };
    let built = |file: &Path, on: &Disk| tarball(file, on, &mut |_| {});
    let without = built(&pack("without.tgz"), &on("disk", "raw")).unwrap_err().to_string();
    assert!(without.contains("no /boot/grub/i386-pc/boot.img"), "{without}");
    std::os::unix::fs::symlink("/etc/passwd", grub.join("boot.img")).unwrap();
    assert!(built(&pack("link.tgz"), &on("disk", "raw")).unwrap_err().to_string().contains("boot.img"));
    fs::remove_file(grub.join("boot.img")).unwrap();
    let elsewhere = path("elsewhere");
    fs::rename(&grub, &elsewhere).unwrap();
    fs::write(elsewhere.join("boot.img"), [0xb0; 512]).unwrap();
    std::os::unix::fs::symlink(&elsewhere, &grub).unwrap();
    assert!(built(&pack("parent.tgz"), &on("disk", "raw")).unwrap_err().to_string().contains("boot.img"));
    fs::remove_file(&grub).unwrap();
    fs::rename(&elsewhere, &grub).unwrap();
    fs::write(grub.join("boot.img"), [0xb0; 512]).unwrap();
    fs::write(grub.join("core.img"), vec![0xc0; 30_000]).unwrap();
    let whole = pack("whole.tgz");
    let small = Disk { size_bytes: Some(8 << 20), ..on("disk", "raw") };
    assert!(built(&whole, &small).unwrap_err().to_string().contains("too small"));
    let left: Vec<_> = fs::read_dir(folder.path()).unwrap().map(|it| it.unwrap().file_name()).collect();
    assert_eq!(left.len(), 5, "{left:?}");

    let made = built(&whole, &on("disk", "raw")).unwrap();
    let packed = built(&whole, &Disk { compress: true, ..on("disk.qcow2", "qcow2") }).unwrap();
    assert_eq!(made.virtual_size, packed.virtual_size);
    assert!(packed.size_bytes < 2 << 20);
    // Both GPTs, as QEMU's own and the reader of `sparsify` see them: the root is an ext4 that is sound.
    let done = sparsify::sparsify_in_place(&path("disk"), &sparsify::Sparsify::default()).unwrap();
    let kinds: Vec<_> = done.file_systems.iter().map(|it| (it.start_bytes >> 20, it.kind)).collect();
    assert_eq!(kinds, [(1, None), (2, Some("ext4"))]);
    let disk = fs::File::open(path("disk")).unwrap();
    let mut end = [0; 512];
    disk.read_exact_at(&mut end, disk.metadata().unwrap().size() - 512).unwrap();
    assert!(end.starts_with(b"EFI PART"));
    let mut core = [0; 512];
    disk.read_exact_at(&mut core, 1 << 20).unwrap();
    // 30,000 bytes are 59 sectors: 58 follow the first one, at sector 2049.
    assert_eq!(core[0x1f4..], [1, 8, 0, 0, 0, 0, 0, 0, 58, 0, 0x20, 8]);
    let root = path("root");
    let copied = format!("dd if={} of={} bs=1M skip=2 conv=sparse status=none", path("disk").display(), root.display());
    child::succeed(Command::new("sh").args(["-c", &copied])).unwrap();
    fs::OpenOptions::new().write(true).open(&root).unwrap().set_len(disk::root_bytes(made.virtual_size)).unwrap();
    child::succeed(Command::new("e2fsck").arg("-fn").arg(&root)).unwrap();
    let told = child::succeed(Command::new("debugfs").args(["-R", "stat /hello"]).arg(&root)).unwrap();
    let words: Vec<&str> = told.split_ascii_whitespace().collect();
    assert!(words.windows(2).any(|pair| pair == ["User:", "1234"]), "{told}");
}
