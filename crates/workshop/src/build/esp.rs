//! The EFI system partition: a FAT32 with what the tree has in `/boot/efi`, made by mtools without mounting it.

use super::disk::ESP_BYTES;
use crate::child;
use crate::error::{Error, Result};
use crate::place::Place;
use std::collections::BTreeSet;
use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileExt};
use std::path::{Path, PathBuf};
use std::process::Command;

/// What a tree may bring for it; Debian brings four files of 3 MiB.
const FILES: usize = 1000;
const CONTENT_BYTES: u64 = 100 << 20;
const DEPTH: usize = 8;
/// What a firmware starts that was told of nothing else; FAT knows no cases.
const REMOVABLE: &str = "EFI/BOOT/BOOTX64.EFI";
const PIECE: usize = 64 << 10;

/// The file system, in a file of its own.
pub(crate) struct Esp(Place);

impl Esp {
    /// Moves what lies in the tree's `/boot/efi` into a file system in the folder `work`; the folder stays, empty, as
    /// the place where a system mounts it. None where the tree has nothing there that a firmware starts.
    ///
    /// # Errors
    /// Refused where there are links or special files, or too much.
    pub fn of(tree: &Path, work: &Path) -> Result<Option<Esp>> {
        let Some(folder) = inside(tree, Path::new("boot/efi")).filter(|it| it.is_dir()) else { return Ok(None) };
        let Some(entries) = startable(&folder)? else { return Ok(None) };
        let place = Place::scratch(work)?;
        place.file().set_len(ESP_BYTES).map_err(Error::doing("making the EFI system partition"))?;
        let mut make = Command::new("mkfs.vfat");
        make.args(["-F", "32", "-s", "1", "-n", "UEFI"]).arg(place.name()).env("LC_ALL", "C");
        child::succeed(&mut make)?;
        let mut fill = Command::new("mcopy");
        fill.args(["-s", "-i"]).arg(place.name()).args(entries).arg("::/");
        // Names in a system are UTF-8; mtools reads no configuration of the user who builds.
        fill.env_remove("MTOOLSRC").env("HOME", "/nonexistent").env("LC_ALL", "C.UTF-8");
        child::succeed(&mut fill)?;
        fs::remove_dir_all(&folder).map_err(Error::at(&folder))?;
        DirBuilder::new().mode(0o755).create(&folder).map_err(Error::at(&folder))?;
        Ok(Some(Esp(place)))
    }

    /// Writes it onto a disk of zeros.
    pub fn copy(&self, disk: &File, at: u64) -> io::Result<()> {
        let mut buffer = vec![0; PIECE];
        for offset in (0..ESP_BYTES).step_by(PIECE) {
            self.0.file().read_exact_at(&mut buffer, offset)?;
            if buffer.iter().any(|byte| *byte != 0) {
                disk.write_all_at(&buffer, at + offset)?;
            }
        }
        Ok(())
    }
}

/// A path of a tree that somebody else has made, if it is there and no link at any level leads elsewhere.
pub(crate) fn inside(tree: &Path, path: &Path) -> Option<PathBuf> {
    let wanted = tree.canonicalize().ok()?.join(path);
    wanted.canonicalize().ok().filter(|real| *real == wanted)
}

/// Looks at all that lies in `/boot/efi`: what stands at its top, if something in it is started. All of it must be such
/// that a FAT can have it.
fn startable(efi: &Path) -> Result<Option<Vec<PathBuf>>> {
    let wrong = |path: &Path, why: &str| {
        let path = path.strip_prefix(efi).unwrap_or(path).display().to_string();
        Err(Error::Refused(format!("the system's /boot/efi has {why}: {}", path.escape_debug())))
    };
    let (mut folders, mut top) = (vec![(efi.to_owned(), 0)], Vec::new());
    let (mut starts, mut count, mut bytes) = (false, 0, 0);
    while let Some((folder, depth)) = folders.pop() {
        let mut names = BTreeSet::new();
        for entry in fs::read_dir(&folder).map_err(Error::at(&folder))? {
            let path = entry.map_err(Error::at(&folder))?.path();
            let kind = fs::symlink_metadata(&path).map_err(Error::at(&path))?;
            count += 1;
            bytes += kind.len();
            if !kind.is_file() && !kind.is_dir() {
                return wrong(&path, "what a FAT cannot have, such as a link");
            }
            if count > FILES || bytes > CONTENT_BYTES || depth > DEPTH {
                return wrong(&path, "too much for the EFI system partition");
            }
            let name = path.file_name().unwrap_or_default().to_string_lossy().to_lowercase();
            if !names.insert(name) {
                return wrong(&path, "two names that are one in a FAT");
            }
            let name = path.strip_prefix(efi).unwrap_or(&path).to_string_lossy();
            starts |= kind.is_file() && name.eq_ignore_ascii_case(REMOVABLE);
            if depth == 0 {
                top.push(path.clone());
            }
            if kind.is_dir() {
                folders.push((path, depth + 1));
            }
        }
    }
    top.sort();
    Ok(starts.then_some(top))
}
