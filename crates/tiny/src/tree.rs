//! The guest's file system, as it stands in the initramfs.

use crate::cpio::{Entries, Entry, Node};
use crate::modules::Modules;
use crate::packages::{Kernel, Unpacked, run};
use anyhow::{Context, Result};
use std::fs;
use std::path::PathBuf;
use std::process::Command;

const NUBO: u32 = 1000;

/// Scripts: where they stand in the guest, and their text.
const SCRIPTS: [(&str, &str); 12] = [
    ("etc/rc", include_str!("../guest/rc")),
    ("etc/rc.stop", include_str!("../guest/rc.stop")),
    ("etc/acpi/PWRF/00000080", include_str!("../guest/power-button")),
    ("etc/lease", include_str!("../guest/lease")),
    ("bin/network", include_str!("../guest/network")),
    ("bin/cloud", include_str!("../guest/cloud")),
    ("bin/grow", include_str!("../guest/grow")),
    ("bin/secure-shell", include_str!("../guest/secure-shell")),
    ("bin/login-prompt", include_str!("../guest/login-prompt")),
    ("bin/set-password", include_str!("../guest/set-password")),
    ("bin/sudo", include_str!("../guest/sudo")),
    ("bin/lsblk", include_str!("../guest/lsblk")),
];

/// Programs that busybox has not, or not well enough: where they lie in the packages, and their mode.
const PROGRAMS: [(&str, u32); 8] = [
    ("sbin/dropbear", 0o755),
    ("bin/dropbearkey", 0o755),
    ("bin/dbclient", 0o755),
    ("bin/doas", 0o4755),
    ("sbin/mke2fs", 0o755),
    ("sbin/resize2fs", 0o755),
    ("sbin/e2fsck", 0o755),
    ("sbin/blkid", 0o755),
];

const FOLDERS: [&str; 22] = [
    "bin",
    "dev",
    "etc",
    "etc/acpi",
    "etc/acpi/PWRF",
    "etc/dropbear",
    "etc/pam.d",
    "home",
    "home/nubo",
    "lib",
    "lib/modules",
    "lib/x86_64-linux-gnu",
    "lib/x86_64-linux-gnu/security",
    "mnt",
    "proc",
    "root",
    "run",
    "sys",
    "tmp",
    "usr",
    "var",
    "var/log",
];

const LINKS: [(&str, &str); 8] = [
    ("init", "bin/busybox"),
    ("sbin", "bin"),
    ("lib64", "lib"),
    ("usr/bin", "../bin"),
    ("usr/sbin", "../bin"),
    ("usr/lib", "../lib"),
    ("var/run", "../run"),
    ("bin/mkfs.ext4", "mke2fs"),
];

const INITTAB: &str = "::sysinit:/etc/rc
::respawn:/bin/network
::respawn:/bin/secure-shell
::respawn:/bin/acpid -f -l /var/log/acpid.log
::once:/bin/cloud
ttyS0::respawn:/bin/login-prompt ttyS0
tty1::respawn:/bin/login-prompt tty1
::ctrlaltdel:/bin/reboot
::shutdown:/etc/rc.stop
";

struct Tree(Entries);

impl Tree {
    fn file(&mut self, path: &str, mode: u32, content: impl Into<Vec<u8>>) {
        self.0.insert(path.into(), Entry { node: Node::File(content.into()), mode, owner: 0 });
    }
}

pub fn guest(unpacked: &Unpacked, kernel: &Kernel, modules: &Modules) -> Result<Entries> {
    let mut tree = Tree(Entries::new());
    for folder in FOLDERS {
        tree.0.insert(folder.into(), Entry { node: Node::Folder, mode: 0o755, owner: 0 });
    }
    for (folder, mode, owner) in [("tmp", 0o1777, 0), ("root", 0o700, 0), ("home/nubo", 0o700, NUBO)] {
        tree.0.insert(folder.into(), Entry { node: Node::Folder, mode, owner });
    }
    tree.0.insert("home/nubo/.ssh".into(), Entry { node: Node::Folder, mode: 0o700, owner: NUBO });
    for (path, target) in LINKS {
        tree.0.insert(path.into(), Entry { node: Node::Link(target.into()), mode: 0o777, owner: 0 });
    }
    busybox(&mut tree, unpacked)?;
    programs(&mut tree, unpacked)?;
    kernel_modules(&mut tree, kernel, modules)?;
    settings(&mut tree, kernel);
    check_scripts(unpacked)?;
    for (path, text) in SCRIPTS {
        tree.file(path, 0o755, text);
    }
    Ok(tree.0)
}

fn busybox(tree: &mut Tree, unpacked: &Unpacked) -> Result<()> {
    let busybox = unpacked.file(&["bin/busybox"])?;
    tree.file("bin/busybox", 0o755, fs::read(&busybox)?);
    for applet in run(Command::new(&busybox).arg("--list"))?.lines() {
        let path = format!("bin/{applet}");
        let link = Entry { node: Node::Link("busybox".into()), mode: 0o777, owner: 0 };
        tree.0.entry(path).or_insert(link);
    }
    Ok(())
}

fn programs(tree: &mut Tree, unpacked: &Unpacked) -> Result<()> {
    let mut files: Vec<PathBuf> = Vec::new();
    for (path, mode) in PROGRAMS {
        let file = unpacked.file(&[path])?;
        let name = path.rsplit('/').next().unwrap_or_default();
        tree.file(&format!("bin/{name}"), mode, fs::read(&file)?);
        files.push(file);
    }
    let permit = "lib/x86_64-linux-gnu/security/pam_permit.so";
    tree.file(permit, 0o644, fs::read(unpacked.file(&[permit])?)?);
    for (name, file) in unpacked.libraries(&files)? {
        tree.file(&format!("lib/{name}"), 0o755, fs::read(&file).with_context(|| file.display().to_string())?);
    }
    Ok(())
}

fn kernel_modules(tree: &mut Tree, kernel: &Kernel, modules: &Modules) -> Result<()> {
    let folder = format!("lib/modules/{}", kernel.release);
    tree.0.insert(folder.clone(), Entry { node: Node::Folder, mode: 0o755, owner: 0 });
    for (name, file) in &modules.files {
        tree.file(&format!("{folder}/{name}"), 0o644, fs::read(file)?);
    }
    tree.file(&format!("{folder}/modules.dep"), 0o644, modules.dependencies.clone());
    let order: String = modules.at_boot.iter().map(|name| format!("/{folder}/{name}\n")).collect();
    tree.file("etc/modules.boot", 0o644, order);
    Ok(())
}

fn settings(tree: &mut Tree, kernel: &Kernel) {
    let permit: String =
        ["auth", "account", "password", "session"].map(|kind| format!("{kind} required pam_permit.so\n")).concat();
    let release = format!(
        "NAME=\"tiny guest\"\nID=tiny\nID_LIKE=debian\nPRETTY_NAME=\"tiny guest (kernel {}, busybox)\"\n",
        kernel.release
    );
    let texts = [
        ("etc/inittab", 0o644, INITTAB),
        (
            "etc/passwd",
            0o644,
            "root:x:0:0:root:/root:/bin/sh\nnubo:x:1000:1000:nubo:/home/nubo:/bin/sh\nnobody:x:65534:65534:nobody:/nonexistent:/bin/false\n",
        ),
        // Nobody has a password until the metadata gives one.
        ("etc/shadow", 0o600, "root:!:19000:0:99999:7:::\nnubo:!:19000:0:99999:7:::\nnobody:!:19000:0:99999:7:::\n"),
        ("etc/group", 0o644, "root:x:0:\ntty:x:5:\ndisk:x:6:\nwheel:x:10:nubo\nnubo:x:1000:\nnogroup:x:65534:\n"),
        ("etc/shells", 0o644, "/bin/sh\n"),
        ("etc/nsswitch.conf", 0o644, "passwd: files\ngroup: files\nshadow: files\nhosts: files dns\n"),
        ("etc/hosts", 0o644, "127.0.0.1 localhost\n::1 localhost\n"),
        ("etc/hostname", 0o644, "tiny\n"),
        ("etc/doas.conf", 0o400, "permit nopass keepenv :wheel\npermit nopass root\n"),
        ("etc/profile", 0o644, "export PATH=/bin PS1='\\u@\\h:\\w\\$ '\n"),
        ("etc/pam.d/doas", 0o644, &permit),
        ("etc/pam.d/other", 0o644, &permit),
        ("etc/os-release", 0o644, &release),
    ];
    for (path, mode, text) in texts {
        tree.file(path, mode, text);
    }
}

/// Each script must be one for the guest's own shell.
fn check_scripts(unpacked: &Unpacked) -> Result<()> {
    let busybox = unpacked.file(&["bin/busybox"])?;
    for (path, text) in SCRIPTS {
        let script = unpacked.root.join(".script");
        fs::write(&script, text)?;
        run(Command::new(&busybox).args(["sh", "-n"]).arg(&script)).with_context(|| format!("the script {path}"))?;
        fs::remove_file(&script)?;
    }
    Ok(())
}
