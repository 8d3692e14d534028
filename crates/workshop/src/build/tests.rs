//! Words that are taken, and a disk from a small tree, read back by other programs.

use super::*;
use crate::sparsify;
use expect_test::expect;
use std::os::unix::fs::{FileExt, MetadataExt};

fn recipe(distribution: Distribution) -> Recipe {
    let release = distribution.default_release().into();
    Recipe { distribution, release, mirror: None, cache: None, keyring: None, include: Vec::new() }
}

#[test]
fn words_that_would_be_options_or_lines_are_refused() {
    for distribution in [Distribution::Debian, Distribution::Ubuntu] {
        let recipe = || recipe(distribution);
        assert!(recipe().check().is_ok());
        for release in ["", "-x", "book worm", "a/b", "Bookworm"] {
            assert!(Recipe { release: release.into(), ..recipe() }.check().is_err(), "{release}");
        }
        for mirror in ["ftp://x", "http://x y", "file://x", "https://x/[trusted=yes]", "http://x\ndeb"] {
            assert!(Recipe { mirror: Some(mirror.into()), ..recipe() }.check().is_err(), "{mirror}");
        }
        assert!(Recipe { mirror: Some("file:///srv/mirror".into()), ..recipe() }.check().is_ok());
        assert!(Recipe { include: vec!["vim".into(), "--x".into()], ..recipe() }.check().is_err());
    }
}

#[test]
fn the_machine_s_own_mirror_counts_where_it_has_the_release() {
    let told = "Debian http://m/debian/ bookworm main\nDebian http://m/debian/ bookworm main\n\
                Debian http://m/debian/ bookworm-updates main\nNode http://n/ nodistro main\n\
                Debian http://m/debian-security/ bookworm-security main\nDebian http://m/debian/ bookworm contrib\n\
                Ubuntu http://u/ noble main\nUbuntu http://u/ noble universe\nUbuntu http://u/ jammy main\n";
    let debian = recipe(Distribution::Debian);
    assert_eq!(
        debian.machine_sources(told),
        [
            "deb http://m/debian/ bookworm main",
            "deb http://m/debian/ bookworm-updates main",
            "deb http://m/debian-security/ bookworm-security main"
        ]
    );
    let trixie = Recipe { release: "trixie".into(), ..debian.clone() };
    assert_eq!(trixie.machine_sources(told), [""; 0]);
    assert_eq!(trixie.machine_sources("Debian http://m/ trixie-updates main"), [""; 0]);
    let ubuntu = recipe(Distribution::Ubuntu);
    assert_eq!(ubuntu.machine_sources(told), ["deb http://u/ noble main", "deb http://u/ noble universe"]);
    // Half of what the packages are in is not enough.
    let jammy = Recipe { release: "jammy".into(), ..ubuntu };
    assert_eq!(jammy.machine_sources(told), [""; 0]);
    let named = Recipe { mirror: Some("file:///m".into()), ..debian };
    assert_eq!(named.sources(Path::new("/w")).lines, ["deb file:///m bookworm main"]);
}

#[test]
fn mmdebstrap_gets_a_distribution_s_own_packages_and_sources() {
    let bench = tempfile::tempdir().unwrap();
    let keys = bench.path().join("keys");
    fs::write(&keys, "").unwrap();
    let on = |firmware| Disk {
        output: "disk".into(),
        format: "qcow2".into(),
        size_bytes: None,
        firmware,
        compress: false,
        force: false,
        show: Show::Nothing,
    };
    let words = |recipe: &Recipe, firmware| {
        let words = recipe.words(&on(firmware), Path::new("/w")).unwrap();
        words.join("\n").replace(&keys.canonicalize().unwrap().display().to_string(), "KEYS")
    };
    let ubuntu = Recipe {
        mirror: Some("file:///m".into()),
        keyring: Some(keys.clone()),
        include: vec!["vim".into()],
        ..recipe(Distribution::Ubuntu)
    };
    expect![[r#"
        --mode=root
        --quiet
        --variant=minbase
        --architectures=amd64
        --components=main,universe
        --include=linux-image-virtual
        --include=systemd-sysv,udev,dbus,grub2-common,cloud-init,cloud-guest-utils,fdisk,e2fsprogs,netplan.io,initramfs-tools,openssh-server,iproute2,iputils-ping,ca-certificates,sudo,locales
        --include=grub-pc-bin
        --include=shim-signed,grub-efi-amd64-signed,grub-efi-amd64-bin,dosfstools
        --include=systemd-resolved
        --include=vim
        --customize-hook=/w/customize
        --keyring=KEYS
        --hook-dir=/usr/share/mmdebstrap/hooks/file-mirror-automount
        noble
        /w/root.tar
        deb file:///m noble main universe"#]].assert_eq(&words(&ubuntu, None));
    let jammy = Recipe { release: "jammy".into(), ..ubuntu.clone() };
    assert!(!words(&jammy, None).contains("systemd-resolved"));
    let debian =
        Recipe { mirror: Some("http://m".into()), keyring: Some(keys.clone()), ..recipe(Distribution::Debian) };
    expect![[r#"
        --mode=root
        --quiet
        --variant=minbase
        --architectures=amd64
        --components=main
        --include=linux-image-cloud-amd64
        --include=systemd-sysv,udev,dbus,grub2-common,cloud-init,cloud-guest-utils,fdisk,e2fsprogs,netplan.io,initramfs-tools,openssh-server,iproute2,iputils-ping,ca-certificates,sudo,locales
        --include=grub-pc-bin
        --include=systemd-resolved
        --customize-hook=/w/customize
        --keyring=KEYS
        bookworm
        /w/root.tar
        deb http://m bookworm main"#]].assert_eq(&words(&debian, Some(Firmware::Bios)));
    let lost = Recipe { keyring: Some(bench.path().join("lost")), ..debian.clone() };
    assert!(lost.words(&on(None), Path::new("/w")).is_err());
    let script = customize(&debian, &on(Some(Firmware::Uefi)));
    assert!(script.starts_with("#!/bin/sh\nid=debian\nname=Debian\nbios=false\nuefi=true\nsources=''\n#"), "{script}");
    // A guest cannot use what lay on the machine that built it.
    let guest = customize(&ubuntu, &on(None));
    assert!(guest.contains("\nsources='deb http://archive.ubuntu.com/ubuntu noble main universe\ndeb"), "{guest}");
    let cache = Recipe { mirror: None, keyring: None, cache: Some("/debs".into()), ..ubuntu };
    let words = cache.words(&on(None), Path::new("/w w")).unwrap();
    assert_eq!(words.last().unwrap(), "deb [trusted=yes] copy:/w%20w/cache ./");
    assert!(customize(&cache, &on(None)).contains("\nsources='deb http://archive"));
}

#[test]
fn a_folder_of_packages_gets_an_index() {
    if !testkit::require("dpkg") {
        return;
    }
    let bench = tempfile::tempdir().unwrap();
    let path = |name: &str| bench.path().join(name);
    fs::create_dir_all(path("p/DEBIAN")).unwrap();
    fs::create_dir(path("debs")).unwrap();
    assert!(cache::index(&path("debs"), &path("none"), "bookworm").unwrap_err().to_string().contains("has 0 packages"));
    let control = "Package: p\nVersion: 1:2\nArchitecture: all\nMaintainer: m <m@example.org>\nDepends: q (>= 1)\n\
                   Filename: /etc/passwd\nDescription: short\n and long\n";
    fs::write(path("p/DEBIAN/control"), control).unwrap();
    let deb = path("debs/p_1%3a2_all.deb");
    child::succeed(Command::new("dpkg-deb").args(["--root-owner-group", "-b"]).arg(path("p")).arg(&deb)).unwrap();
    fs::write(path("debs/README"), "no package").unwrap();
    cache::index(&path("debs"), &path("mirror"), "bookworm").unwrap();
    let (text, bytes) = (fs::read_to_string(path("mirror/Packages")).unwrap(), fs::read(&deb).unwrap());
    let sum = crate::repository::sum(&fs::File::open(&deb).unwrap(), crate::repository::Hash::Sha256).unwrap();
    let own = format!("Filename: 0.deb\nSize: {}\nSHA256: {sum}\n\n", bytes.len());
    assert_eq!(text, control.replace("Filename: /etc/passwd\n", "") + &own);
    let release = fs::read_to_string(path("mirror/Release")).unwrap();
    assert!(release.starts_with("Codename: bookworm\n") && release.contains(&format!(" {} Packages", text.len())));
    assert_eq!(fs::read(path("mirror/0.deb")).unwrap(), bytes);
    fs::write(path("debs/broken.deb"), "no package").unwrap();
    assert!(cache::index(&path("debs"), &path("other"), "bookworm").unwrap_err().to_string().contains("dpkg-deb"));
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
        let built = tarball(&packed, None, on, &mut |_| {});
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
    bench.put("system/boot/efi/loader/loader.conf", "timeout 0");
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
    assert_eq!(bench.say("mtype", &["-i", "both@@2M", "::/loader/loader.conf"]), "timeout 0");
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
    for (name, because) in [
        ("system/boot", "lacks both"),
        ("system/boot/efi", "lacks both"),
        ("system/boot/efi/EFI", "such as a link: EFI"),
    ] {
        link(&bench.path("elsewhere"), name);
        let refusal = bench.refusal(&on);
        assert!(refusal.contains(because), "{name}: {refusal}");
        fs::remove_file(bench.path(name)).unwrap();
    }
    bench.put("system/boot/efi/EFI/BOOT/BOOTX64.EFI", "loader");
    link(Path::new("/etc/passwd"), "system/boot/efi/EFI/BOOT/extra");
    let refusal = bench.refusal(&on);
    assert!(refusal.contains("such as a link: EFI/BOOT/extra"), "{refusal}");
    fs::remove_file(bench.path("system/boot/efi/EFI/BOOT/extra")).unwrap();
    bench.put("system/boot/efi/EFI/boot/bootx64.efi", "loader");
    let refusal = bench.refusal(&on);
    assert!(refusal.contains("two names that are one in a FAT"), "{refusal}");
    fs::remove_dir_all(bench.path("system/boot/efi/EFI/boot")).unwrap();
    bench.put("system/boot/efi/EFI/large", "");
    let large = fs::OpenOptions::new().write(true).open(bench.path("system/boot/efi/EFI/large")).unwrap();
    large.set_len(101 << 20).unwrap();
    let refusal = bench.refusal(&on);
    assert!(refusal.contains("too much for the EFI system partition"), "{refusal}");
}
