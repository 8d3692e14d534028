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

/// A folder with a system, tarballs of it, and disks.
struct Bench(tempfile::TempDir);

impl Bench {
    fn new() -> Bench {
        let bench = Bench(tempfile::tempdir().unwrap());
        bench.put("system/hello", "hello");
        std::os::unix::fs::chown(bench.path("system/hello"), Some(1234), Some(2345)).unwrap();
        bench
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn put(&self, name: &str, bytes: impl AsRef<[u8]>) {
        fs::create_dir_all(self.path(name).parent().unwrap()).unwrap();
        fs::write(self.path(name), bytes).unwrap();
    }

    fn put_grub(&self) {
        self.put("system/boot/grub/i386-pc/boot.img", [0xb0; 512]);
        self.put("system/boot/grub/i386-pc/core.img", vec![0xc0; 30_000]);
    }

    fn on(&self, output: &str, format: &str) -> Disk {
        let (output, format) = (self.path(output), format.into());
        let (firmware, show) = (None, Show::Nothing);
        Disk { output, format, size_bytes: None, firmware, compress: false, force: false, show }
    }

    /// Packs the system as it is now, and builds a disk of it.
    fn build(&self, on: &Disk) -> Result<Built> {
        let packed = self.path("system.tgz");
        let mut command = Command::new("tar");
        command.arg("-C").arg(self.path("system")).arg("-czf").arg(&packed).arg(".");
        child::succeed(&mut command).unwrap();
        let built = tarball(&packed, on, &mut |_| {});
        fs::remove_file(&packed).unwrap();
        built
    }

    fn refusal(&self, on: &Disk) -> String {
        let refusal = self.build(on).unwrap_err().to_string();
        let mut left: Vec<_> = fs::read_dir(self.0.path()).unwrap().map(|it| it.unwrap().file_name()).collect();
        left.retain(|name| name != "system" && name != "elsewhere");
        assert!(left.is_empty(), "{left:?}");
        refusal
    }

    fn say(&self, program: &str, words: &[&str]) -> String {
        child::succeed(Command::new(program).args(words).current_dir(self.0.path()).env("LC_ALL", "C")).unwrap()
    }

    /// What lies where, in MiB, to the reader of `sparsify`.
    fn parts(&self, disk: &str) -> Vec<(u64, Option<&'static str>)> {
        let done = sparsify::sparsify_in_place(&self.path(disk), &sparsify::Sparsify::default()).unwrap();
        done.file_systems.iter().map(|it| (it.start_bytes >> 20, it.kind)).collect()
    }

    /// A sound ext4 with the file and its owner, so many MiB from the beginning of a disk.
    fn root_is_sound(&self, disk: &str, start: u64, bytes: u64) {
        self.say("dd", &[&format!("if={disk}"), "of=root", "bs=1M", &format!("skip={start}"), "conv=sparse"]);
        fs::OpenOptions::new().write(true).open(self.path("root")).unwrap().set_len(bytes).unwrap();
        self.say("e2fsck", &["-fn", "root"]);
        let told = self.say("debugfs", &["-R", "stat /hello", "root"]);
        let words: Vec<&str> = told.split_ascii_whitespace().collect();
        assert!(words.windows(2).any(|pair| pair == ["User:", "1234"]), "{told}");
    }
}

fn can_build() -> bool {
    ["root", "qemu", "filesystems"].into_iter().all(testkit::require)
}

#[test]
fn what_nothing_boots_is_no_disk() {
    if !can_build() {
        return;
    }
    let bench = Bench::new();
    let on = bench.on("disk", "raw");
    let without = bench.refusal(&on);
    assert!(without.contains("lacks both /boot/grub/i386-pc/boot.img"), "{without}");
    let grub = bench.path("system/boot/grub/i386-pc");
    fs::create_dir_all(&grub).unwrap();
    std::os::unix::fs::symlink("/etc/passwd", grub.join("boot.img")).unwrap();
    assert!(bench.refusal(&on).contains("boot.img"));
    fs::remove_file(grub.join("boot.img")).unwrap();
    bench.put_grub();
    fs::rename(&grub, bench.path("elsewhere")).unwrap();
    std::os::unix::fs::symlink(bench.path("elsewhere"), &grub).unwrap();
    assert!(bench.refusal(&on).contains("boot.img"));
    fs::remove_file(&grub).unwrap();
    bench.put_grub();
    for firmware in [Firmware::Uefi, Firmware::Both] {
        let refusal = bench.refusal(&Disk { firmware: Some(firmware), ..bench.on("disk", "raw") });
        assert!(refusal.contains("lacks /boot/efi/EFI/BOOT/BOOTX64.EFI"), "{refusal}");
    }
    let small = Disk { size_bytes: Some(8 << 20), ..on };
    assert!(bench.refusal(&small).contains("too small"));
}

#[test]
fn a_small_system_becomes_a_disk_for_a_bios() {
    if !can_build() {
        return;
    }
    let bench = Bench::new();
    bench.put_grub();
    let made = bench.build(&bench.on("disk", "raw")).unwrap();
    let packed = bench.build(&Disk { compress: true, ..bench.on("disk.qcow2", "qcow2") }).unwrap();
    assert_eq!(made.virtual_size, packed.virtual_size);
    assert!(packed.size_bytes < 2 << 20);
    assert_eq!(bench.parts("disk"), [(1, None), (2, Some("ext4"))]);
    let disk = fs::File::open(bench.path("disk")).unwrap();
    let mut end = [0; 512];
    disk.read_exact_at(&mut end, disk.metadata().unwrap().size() - 512).unwrap();
    assert!(end.starts_with(b"EFI PART"));
    let mut core = [0; 512];
    disk.read_exact_at(&mut core, 1 << 20).unwrap();
    // 30,000 bytes are 59 sectors: 58 follow the first one, at sector 2049.
    assert_eq!(core[0x1f4..], [1, 8, 0, 0, 0, 0, 0, 0, 58, 0, 0x20, 8]);
    bench.root_is_sound("disk", 2, made.virtual_size - (3 << 20));
}

#[test]
fn a_small_system_becomes_a_disk_for_uefi() {
    if !can_build() {
        return;
    }
    let bench = Bench::new();
    bench.put("system/boot/efi/EFI/boot/bootx64.efi", vec![b'e'; 50_000]);
    bench.put("system/boot/efi/EFI/debian/grub.cfg", "configfile");
    let uefi = bench.build(&bench.on("disk", "raw")).unwrap();
    assert_eq!(bench.parts("disk"), [(2, Some("FAT")), (126, Some("ext4"))]);
    bench.root_is_sound("disk", 126, uefi.virtual_size - (127 << 20));
    let told = bench.say("debugfs", &["-R", "ls -l /boot/efi", "root"]);
    assert!(!told.contains("EFI"), "{told}");
    let mut first = [0; 440];
    fs::File::open(bench.path("disk")).unwrap().read_exact_at(&mut first, 0).unwrap();
    assert_eq!(first, [0; 440]);

    bench.put_grub();
    let both = Disk { firmware: Some(Firmware::Both), ..bench.on("both", "raw") };
    bench.build(&both).unwrap();
    assert_eq!(bench.parts("both"), [(1, None), (2, Some("FAT")), (126, Some("ext4"))]);
    // What a firmware looks for, as other programs read it.
    let started = bench.say("mtype", &["-i", "both@@2M", "::/efi/BOOT/BOOTX64.EFI"]);
    assert_eq!(started.len(), 50_000);
    assert_eq!(bench.say("mtype", &["-i", "both@@2M", "::/EFI/debian/grub.cfg"]), "configfile");
    bench.say("dd", &["if=both", "of=esp", "bs=1M", "skip=2", "count=124"]);
    bench.say("fsck.vfat", &["-n", "esp"]);
    let bios = Disk { firmware: Some(Firmware::Bios), ..bench.on("bios", "raw") };
    bench.build(&bios).unwrap();
    assert_eq!(bench.parts("bios"), [(1, None), (2, Some("ext4"))]);
}

#[test]
fn a_boot_efi_that_leads_out_or_is_too_much_is_refused() {
    if !can_build() {
        return;
    }
    let bench = Bench::new();
    let on = bench.on("disk", "raw");
    bench.put("elsewhere/EFI/BOOT/BOOTX64.EFI", "secret");
    let link = |target: &Path, name: &str| {
        fs::create_dir_all(bench.path(name).parent().unwrap()).unwrap();
        std::os::unix::fs::symlink(target, bench.path(name)).unwrap();
    };
    for name in ["system/boot", "system/boot/efi", "system/boot/efi/EFI"] {
        link(&bench.path("elsewhere"), name);
        assert!(bench.refusal(&on).contains("lacks both"), "{name}");
        fs::remove_file(bench.path(name)).unwrap();
    }
    bench.put("system/boot/efi/EFI/BOOT/BOOTX64.EFI", "loader");
    link(Path::new("/etc/passwd"), "system/boot/efi/EFI/BOOT/extra");
    let refusal = bench.refusal(&on);
    assert!(refusal.contains("such as a link: BOOT/extra"), "{refusal}");
    fs::remove_file(bench.path("system/boot/efi/EFI/BOOT/extra")).unwrap();
    bench.put("system/boot/efi/EFI/large", "");
    let large = fs::OpenOptions::new().write(true).open(bench.path("system/boot/efi/EFI/large")).unwrap();
    large.set_len(101 << 20).unwrap();
    let refusal = bench.refusal(&on);
    assert!(refusal.contains("too much for the EFI system partition"), "{refusal}");
}
