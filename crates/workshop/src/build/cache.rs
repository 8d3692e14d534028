//! A folder of packages, such as `/var/cache/apt/archives`, as a mirror that apt takes: an index that is thrown away.
//! Nothing signs it: whoever names the folder vouches for it.

use crate::child;
use crate::error::{Error, Result};
use crate::repository::{Hash, sum};
use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

/// A system with a desktop has some 3,000.
const PACKAGES: usize = 50_000;
/// What the index itself says of a file, whatever the file says of itself.
const OWN_FIELDS: [&str; 6] = ["filename:", "size:", "md5sum:", "sha1:", "sha256:", "sha512:"];

/// Makes the folder `mirror`, with an index of what is in `packages`, as if that were a release, and links to it, which
/// have no odd names.
///
/// # Errors
/// Refused where there are none, or too many; Tool where one is no package.
pub(super) fn index(packages: &Path, mirror: &Path, release: &str) -> Result<()> {
    let mut files = Vec::new();
    for entry in fs::read_dir(packages).map_err(Error::at(packages))? {
        let path = entry.map_err(Error::at(packages))?.path();
        if path.extension().is_some_and(|it| it == "deb") && path.is_file() {
            files.push(path.canonicalize().map_err(Error::at(&path))?);
        }
    }
    if files.is_empty() || files.len() > PACKAGES {
        let (packages, count) = (packages.display(), files.len());
        return Err(Error::Refused(format!("{packages} has {count} packages: 1 to {PACKAGES} are taken")));
    }
    files.sort();
    fs::create_dir(mirror).map_err(Error::at(mirror))?;
    let mut text = String::new();
    for (number, path) in files.iter().enumerate() {
        let name = format!("{number}.deb");
        symlink(path, mirror.join(&name)).map_err(Error::at(path))?;
        text.push_str(&stanza(path, &name)?);
    }
    let index = mirror.join("Packages");
    fs::write(&index, &text).map_err(Error::at(&index))?;
    // mmdebstrap asks apt for the packages of a release by its name.
    let sum = sum(&File::open(&index).map_err(Error::at(&index))?, Hash::Sha256).map_err(Error::at(&index))?;
    let length = text.len();
    let text = format!("Codename: {release}\nArchitectures: amd64 all\nSHA256:\n {sum} {length} Packages\n");
    fs::write(mirror.join("Release"), text).map_err(Error::at(mirror))
}

/// What an index says of one package.
fn stanza(path: &Path, name: &str) -> Result<String> {
    let file = File::open(path).map_err(Error::at(path))?;
    let told = child::succeed(Command::new("dpkg-deb").arg("--field").arg(path).env("LC_ALL", "C"))?;
    let mut text = String::new();
    let mut own = false;
    for line in told.lines().filter(|line| !line.trim().is_empty()) {
        // A line that goes on belongs to the field before it.
        own = match line.starts_with([' ', '\t']) {
            true => own,
            false => OWN_FIELDS.iter().any(|field| line.to_ascii_lowercase().starts_with(field)),
        };
        if !own {
            text.push_str(line);
            text.push('\n');
        }
    }
    let length = file.metadata().map_err(Error::at(path))?.len();
    let sum = sum(&file, Hash::Sha256).map_err(Error::at(path))?;
    Ok(format!("{text}Filename: {name}\nSize: {length}\nSHA256: {sum}\n\n"))
}
