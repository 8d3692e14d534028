//! Images from recipes: Debian or Ubuntu from its packages, or any system in a tarball.
//!
//! The system's tree is unpacked into a folder of ours, an ext4 is filled from it, and the disk is written around that:
//! nothing of the image is mounted. Needs root, so that the files get their owners. (The tiny guest, which needs none,
//! has a crate of its own.)

mod cache;
mod disk;
mod esp;
mod recipe;
#[cfg(test)]
mod tests;
mod unpack;

use crate::child::{self, Show, limited, watched};
use crate::convert::{self, inspected, largest};
use crate::error::{Error, Result};
use crate::place::{Place, folder};
pub use recipe::{Distribution, Recipe};
use serde::Serialize;
use std::fs::{self, DirBuilder};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use unpack::Most;

const MIB: u64 = 1 << 20;
/// What a tarball may unfold to where nothing was said, and the files in it; a system has some 100,000.
const MOST_BYTES: u64 = 64 << 30;
const MEMBERS: u64 = 4_000_000;
const CUSTOMIZE: &str = include_str!("customize.sh");

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
    /// None: all that the system has loaders for; a distribution has both kinds.
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

/// Builds a Debian or an Ubuntu with cloud-init.
///
/// # Errors
/// Refused where a word is not understood or root is missing; Tool where mmdebstrap fails.
pub fn distribution(recipe: &Recipe, on: &Disk, progress: &mut dyn FnMut(&str)) -> Result<Built> {
    recipe.check()?;
    let (work, place) = begin(on)?;
    if let Some(packages) = &recipe.cache {
        progress("making an index of the packages");
        cache::index(packages, &work.0.join(recipe::CACHE), &recipe.release)?;
    }
    let hook = work.0.join(recipe::HOOK);
    fs::write(&hook, customize(recipe, on)).map_err(Error::at(&hook))?;
    fs::set_permissions(&hook, fs::Permissions::from_mode(0o755)).map_err(Error::at(&hook))?;
    progress(&format!("installing {} {} (mmdebstrap)", recipe.distribution.origin(), recipe.release));
    // Its mounts and processes in name spaces of their own: none is left in the machine's, whatever dies.
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "--", "unshare", "--mount", "--pid", "--fork", "--kill-child"]);
    command.args(["--mount-proc", "--", "mmdebstrap"]);
    command.args(recipe.words(on, &work.0)?).env("TMPDIR", &work.0).env("LC_ALL", "C");
    child::succeed(&mut command)?;
    let most = Most { bytes: crate::VIRTUAL_BYTES, members: MEMBERS };
    let bounds = Bounds { least_bytes: recipe.distribution.least_bytes(), most };
    from_tree(&work.0.join(recipe::TARBALL), &work, place, on, bounds, progress)
}

/// The script that makes a guest of what is installed.
fn customize(recipe: &Recipe, on: &Disk) -> String {
    let firmware = on.firmware.unwrap_or(Firmware::Both);
    let (id, origin) = (recipe.distribution.id(), recipe.distribution.origin());
    let (bios, uefi) = (firmware.bios(), firmware.uefi());
    let sources = recipe.sources_of_guest().unwrap_or_default().join("\n");
    format!("#!/bin/sh\nid={id}\nname={origin}\nbios={bios}\nuefi={uefi}\nsources='{sources}'\n{CUSTOMIZE}")
}

/// Builds a disk from a system in a tarball, which must have GRUB for a BIOS in `/boot/grub` or what UEFI starts in
/// `/boot/efi`, and a configuration that finds the root by the label `root`.
///
/// It may unfold to `most_bytes`; none: to the size of the disk that was asked for, or else to 64 GiB.
///
/// # Errors
/// Refused where it has not, and where it unfolds to more; Tool where it is damaged.
pub fn tarball(file: &Path, most_bytes: Option<u64>, on: &Disk, progress: &mut dyn FnMut(&str)) -> Result<Built> {
    let file = file.canonicalize().map_err(Error::at(file))?;
    let bytes = most_bytes.or(on.size_bytes).unwrap_or(MOST_BYTES).min(crate::VIRTUAL_BYTES);
    let (work, place) = begin(on)?;
    from_tree(&file, &work, place, on, Bounds { least_bytes: 0, most: Most { bytes, members: MEMBERS } }, progress)
}

/// A folder beside the output, which nobody else may enter; gone with it.
struct Work(PathBuf);

impl Drop for Work {
    fn drop(&mut self) {
        // A tree may be deeper than we may have folders open.
        let _ = Command::new("rm").args(["-rf", "--one-file-system", "--"]).arg(&self.0).status();
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

/// How large a disk is at least, and what is unpacked onto it at most.
struct Bounds {
    least_bytes: u64,
    most: Most,
}

fn from_tree(
    tarball: &Path,
    work: &Work,
    place: Place,
    on: &Disk,
    bounds: Bounds,
    progress: &mut dyn FnMut(&str),
) -> Result<Built> {
    let tree = work.0.join("tree");
    fs::create_dir(&tree).map_err(Error::at(&tree))?;
    progress("unpacking the system");
    let jail = work.0.join("jail");
    fs::create_dir(&jail).map_err(Error::at(&jail))?;
    unpack::unpack(tarball, &tree, &jail, bounds.most)?;
    let loaders = loaders(&tree, work, on.firmware)?;
    let size = size(&tree, on, bounds.least_bytes, loaders.root_start())?;

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
    let size = on
        .size_bytes
        .unwrap_or((content + content / 4 + 254 * MIB + root_start).max(least_bytes))
        .next_multiple_of(MIB);
    match size < needed || size > crate::VIRTUAL_BYTES {
        true => Err(Error::Refused(format!("a disk of {size} bytes is too small: the system needs {needed}"))),
        false => Ok(size),
    }
}
