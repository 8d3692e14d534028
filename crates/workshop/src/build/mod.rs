//! Images from recipes: Debian from its packages, or any system in a tarball.
//!
//! The system's tree is unpacked into a folder of ours, an ext4 is filled from it, and the disk is written around that:
//! nothing of the image is mounted. Needs root, so that the files get their owners. (The tiny guest, which needs none,
//! has a crate of its own.)

mod disk;
mod esp;
#[cfg(test)]
mod tests;

use crate::child::{self, Show, limited, watched};
use crate::convert::{self, inspected, largest};
use crate::error::{Error, Result};
use crate::place::{Place, folder};
use serde::Serialize;
use std::fs::{self, DirBuilder};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;

const MIB: u64 = 1 << 20;
const DEBIAN_BYTES: u64 = 2 << 30;
const CUSTOMIZE: &str = include_str!("customize.sh");
/// Where Debian is where no mirror is named and the machine has none of that release.
const MIRROR: &str = "http://deb.debian.org/debian";
/// A kernel for virtual machines, and what makes a cloud's guest of it.
const PACKAGES: &str = "linux-image-cloud-amd64,systemd-sysv,systemd-resolved,udev,dbus,grub2-common,cloud-init,\
                        cloud-guest-utils,fdisk,e2fsprogs,netplan.io,openssh-server,iproute2,iputils-ping,\
                        ca-certificates,sudo,locales";
/// What boots it from a BIOS.
const BIOS_PACKAGES: &str = "grub-pc-bin";
/// What boots it from UEFI, signed for secure boot; and what checks its partition at boot.
const UEFI_PACKAGES: &str = "shim-signed,grub-efi-amd64-signed,grub-efi-amd64-bin,dosfstools";

/// Debian, as mmdebstrap makes it.
#[derive(Clone, Debug)]
pub struct Debian {
    /// A code name: `bookworm`.
    pub release: String,
    /// `http://…`, `https://…` or `file:///…`. None: what this machine's apt has of that release, else Debian's own.
    pub mirror: Option<String>,
    /// Keys that sign the mirror, instead of the machine's.
    pub keyring: Option<PathBuf>,
    /// Packages besides.
    pub include: Vec<String>,
}

/// What a disk can be booted by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Firmware {
    Bios,
    Uefi,
    Both,
}

impl Firmware {
    fn bios(self) -> bool {
        self != Firmware::Uefi
    }

    fn uefi(self) -> bool {
        self != Firmware::Bios
    }
}

/// What the system shall lie on.
#[derive(Clone, Debug)]
pub struct Disk {
    pub output: PathBuf,
    /// `qcow2` or another format that [`convert`](crate::convert()) writes.
    pub format: String,
    /// None: as much as the system needs and some room.
    pub size_bytes: Option<u64>,
    /// None: all that the system has loaders for, of which Debian has both kinds.
    pub firmware: Option<Firmware>,
    pub compress: bool,
    pub force: bool,
    pub show: Show,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Built {
    pub output: String,
    pub format: String,
    pub size_bytes: u64,
    pub virtual_size: u64,
}

/// Builds a Debian with cloud-init.
///
/// # Errors
/// Refused where a word is not understood or root is missing; Tool where mmdebstrap fails.
pub fn debian(recipe: &Debian, on: &Disk, progress: &mut dyn FnMut(&str)) -> Result<Built> {
    check(recipe)?;
    let (work, place) = begin(on)?;
    let firmware = on.firmware.unwrap_or(Firmware::Both);
    let hook = work.0.join("customize");
    let script = format!("#!/bin/sh\nbios={}\nuefi={}\n{CUSTOMIZE}", firmware.bios(), firmware.uefi());
    fs::write(&hook, script).map_err(Error::at(&hook))?;
    fs::set_permissions(&hook, fs::Permissions::from_mode(0o755)).map_err(Error::at(&hook))?;
    let tarball = work.0.join("root.tar");
    progress(&format!("installing Debian {} (mmdebstrap)", recipe.release));
    // Its mounts in a name space of their own: none is left in the machine's.
    let mut command = Command::new("unshare");
    command.args(["--mount", "--", "setpriv", "--pdeathsig", "TERM", "--", "mmdebstrap", "--mode=root", "--quiet"]);
    command.args(["--variant=minbase", "--components=main", "--architectures=amd64"]);
    command.arg(format!("--include={PACKAGES}"));
    command.args(firmware.bios().then(|| format!("--include={BIOS_PACKAGES}")));
    command.args(firmware.uefi().then(|| format!("--include={UEFI_PACKAGES}")));
    command.args(recipe.include.iter().map(|package| format!("--include={package}")));
    command.arg(format!("--customize-hook={}", hook.display()));
    if let Some(keyring) = &recipe.keyring {
        let keyring = keyring.canonicalize().map_err(Error::at(keyring))?;
        command.arg(format!("--keyring={}", keyring.display()));
    }
    if recipe.mirror.as_deref().is_some_and(|mirror| mirror.starts_with("file:")) {
        command.arg("--hook-dir=/usr/share/mmdebstrap/hooks/file-mirror-automount");
    }
    command.arg(&recipe.release).arg(&tarball).args(sources(recipe)?);
    command.env("TMPDIR", &work.0).env("LC_ALL", "C");
    child::succeed(&mut command)?;
    from_tree(&tarball, &work, place, on, DEBIAN_BYTES, progress)
}

/// Builds a disk from a system in a tarball, which must have GRUB for a BIOS in `/boot/grub` or what UEFI starts in
/// `/boot/efi`, and a configuration that finds the root by the label `root`.
///
/// # Errors
/// Refused where it has not.
pub fn tarball(file: &Path, on: &Disk, progress: &mut dyn FnMut(&str)) -> Result<Built> {
    let file = file.canonicalize().map_err(Error::at(file))?;
    let (work, place) = begin(on)?;
    from_tree(&file, &work, place, on, 0, progress)
}

/// A folder beside the output, which nobody else may enter; gone with it.
struct Work(PathBuf);

impl Drop for Work {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn begin(on: &Disk) -> Result<(Work, Place)> {
    convert::known(&on.format)?;
    let place = Place::new(&on.output, on.force)?;
    if !nix::unistd::geteuid().is_root() {
        return Err(Error::Refused("building needs root, so that the system's files get their owners".to_owned()));
    }
    let output = std::path::absolute(&on.output).map_err(Error::at(&on.output))?;
    let path = folder(&output).join(format!(".nubo-build.{}", std::process::id()));
    DirBuilder::new().mode(0o700).create(&path).map_err(Error::at(&path))?;
    Ok((Work(path), place))
}

fn check(recipe: &Debian) -> Result<()> {
    let word = |text: &str, more: &str| {
        let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || more.contains(c);
        !text.is_empty() && text.len() < 100 && text.chars().all(fits) && !text.starts_with('-')
    };
    if !word(&recipe.release, "-") {
        return Err(Error::Refused(format!("'{}' is no code name of a release", recipe.release)));
    }
    if let Some(package) = recipe.include.iter().find(|package| !word(package, "-+.")) {
        return Err(Error::Refused(format!("'{package}' is no name of a package")));
    }
    let fits = |mirror: &String| {
        let known = ["http://", "https://", "file:///"].iter().any(|scheme| mirror.starts_with(scheme));
        known && mirror.len() < 1000 && mirror.chars().all(|c| c.is_ascii_graphic() && !matches!(c, '[' | ']' | '#'))
    };
    match &recipe.mirror {
        Some(mirror) if !fits(mirror) => {
            Err(Error::Refused(format!("'{mirror}' is no mirror: http://…, https://… or file:///… are")))
        }
        _ => Ok(()),
    }
}

/// The lines of apt's sources.
fn sources(recipe: &Debian) -> Result<Vec<String>> {
    let release = &recipe.release;
    if let Some(mirror) = &recipe.mirror {
        return Ok(vec![format!("deb {mirror} {release} main")]);
    }
    let mut ask = Command::new("apt-get");
    let format = "$(ORIGIN) $(REPO_URI) $(CODENAME) $(COMPONENT)";
    ask.args(["indextargets", "--format", format, "Created-By: Packages"]).env("LC_ALL", "C");
    let own = child::run(&mut ask).map(|output| output.stdout).unwrap_or_default();
    let lines = machine_sources(&own, release);
    Ok(if lines.is_empty() { vec![format!("deb {MIRROR} {release} main")] } else { lines })
}

/// What the machine's apt has of a release, if that is the release itself and not only its updates.
fn machine_sources(targets: &str, release: &str) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for line in targets.lines() {
        let words: Vec<&str> = line.split(' ').collect();
        let ["Debian", uri, code, "main"] = words[..] else { continue };
        let ours = code == release || code == format!("{release}-updates") || code == format!("{release}-security");
        let line = format!("deb {uri} {code} main");
        if ours && !lines.contains(&line) {
            lines.push(line);
        }
    }
    let whole = lines.iter().any(|line| line.ends_with(&format!(" {release} main")));
    if whole { lines } else { Vec::new() }
}

fn from_tree(
    tarball: &Path,
    work: &Work,
    place: Place,
    on: &Disk,
    least_bytes: u64,
    progress: &mut dyn FnMut(&str),
) -> Result<Built> {
    let tree = work.0.join("tree");
    fs::create_dir(&tree).map_err(Error::at(&tree))?;
    progress("unpacking the system");
    let mut unpack = Command::new("tar");
    unpack.args(["--numeric-owner", "--xattrs", "--xattrs-include=*", "-xpf"]).arg(tarball).arg("-C").arg(&tree);
    child::succeed(&mut unpack)?;
    let loaders = loaders(&tree, work, on.firmware)?;
    let size = size(&tree, on, least_bytes, loaders.root_start())?;

    progress(&format!("writing a disk of {} MiB", size / MIB));
    let raw = Place::scratch(&work.0)?;
    raw.file().set_len(size).map_err(Error::doing("making the disk"))?;
    let mut fill = Command::new("mke2fs");
    // Features that GRUB 2.06 does not read.
    fill.args(["-q", "-F", "-t", "ext4", "-b", "4096", "-L", "root", "-O", "^metadata_csum_seed,^orphan_file"]);
    fill.arg("-E").arg(format!("offset={},root_owner=0:0", loaders.root_start())).arg("-d").arg(&tree);
    fill.arg(raw.name()).arg((loaders.root_bytes(size) / 4096).to_string()).env("LC_ALL", "C");
    child::succeed(&mut fill)?;
    disk::write(raw.file(), size, &loaders).map_err(Error::doing("writing the disk"))?;

    progress(&format!("writing {}", on.format));
    let format = convert::known(&on.format)?;
    let mut fold = limited("qemu-img", largest(size));
    fold.args(["convert", "-f", "raw", "-O", format.driver()]).args(on.compress.then_some("-c"));
    fold.args(on.show.on_terminal().then_some("-p")).arg(raw.name()).arg(place.name());
    watched(&mut fold, on.show)?;
    let findings = inspected(&place, format)?;
    place.finish()?;
    Ok(Built {
        output: on.output.display().to_string(),
        format: on.format.clone(),
        size_bytes: findings.size_bytes,
        virtual_size: size,
    })
}

/// What the tree is booted by, of what was asked for.
fn loaders(tree: &Path, work: &Work, wanted: Option<Firmware>) -> Result<disk::Loaders> {
    let of = wanted.unwrap_or(Firmware::Both);
    let grub = if of.bios() { disk::Grub::of(tree)? } else { None };
    let esp = if of.uefi() { esp::Esp::of(tree, &work.0)? } else { None };
    let lacks = |what: &str| Err(Error::Refused(format!("the system lacks {what}")));
    let (bios, uefi) = (
        "/boot/grub/i386-pc/boot.img and core.img, by which a BIOS boots it (grub-mkimage -O i386-pc)",
        "/boot/efi/EFI/BOOT/BOOTX64.EFI, which UEFI starts",
    );
    match (wanted, &grub, &esp) {
        (None, None, None) => lacks(&format!("both {bios}, and {uefi}")),
        (Some(Firmware::Bios | Firmware::Both), None, _) => lacks(bios),
        (Some(Firmware::Uefi | Firmware::Both), _, None) => lacks(uefi),
        _ => Ok(disk::Loaders { grub, esp }),
    }
}

/// The size that was asked for, or what the tree needs and a quarter more.
fn size(tree: &Path, on: &Disk, least_bytes: u64, root_start: u64) -> Result<u64> {
    let said = child::succeed(Command::new("du").args(["-sx", "--block-size=1"]).arg(tree).env("LC_ALL", "C"))?;
    let content: u64 = said.split_ascii_whitespace().next().and_then(|word| word.parse().ok()).unwrap_or(0);
    let needed = content + content / 8 + 62 * MIB + root_start;
    let size = on.size_bytes.unwrap_or((content + content / 4 + 254 * MIB + root_start).max(least_bytes)).next_multiple_of(MIB);
    match size < needed || size > crate::VIRTUAL_BYTES {
        true => Err(Error::Refused(format!("a disk of {size} bytes is too small: the system needs {needed}"))),
        false => Ok(size),
    }
}
