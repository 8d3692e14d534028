//! Where a result goes: a file without a name until it is whole.

use crate::error::{Error, Result};
use nix::fcntl::{AT_FDCWD, AtFlags, FcntlArg, FdFlag, fcntl};
use nix::unistd::linkat;
use std::fs::{self, File, Metadata, Permissions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// A result that is being made beside its target. Dropped, or killed with the process, it leaves nothing; only where
/// the file system knows no files without a name, a kill leaves `.nubo.PID-N.partial`.
#[derive(Debug)]
pub struct Place {
    /// None: a file for the work alone, until it is aimed.
    target: Option<PathBuf>,
    file: File,
    /// Its name while it is made, where it needs one.
    partial: Option<PathBuf>,
    replaced: Option<Metadata>,
}

impl Place {
    /// # Errors
    /// Exists where there is such a file and `force` is false; Refused where it is no plain file.
    pub fn new(target: &Path, force: bool) -> Result<Place> {
        let target = std::path::absolute(target).map_err(Error::at(target))?;
        // Looked at before a file is made.
        replaced(&target, force)?;
        let mut place = Place::scratch(folder(&target))?;
        place.aim(&target, force)?;
        Ok(place)
    }

    /// A file for the work, in a folder in which its result may get a name.
    pub fn scratch(folder: &Path) -> Result<Place> {
        let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
        let folder = std::path::absolute(folder).map_err(Error::at(folder))?;
        let nameless = nix::fcntl::OFlag::O_TMPFILE.bits();
        let opened = File::options().read(true).write(true).mode(0o644).custom_flags(nameless).open(&folder);
        let (file, partial) = match opened {
            Ok(file) => (file, None),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(Error::at(&folder)(error)),
            Err(_) => {
                let partial = beside(&folder)?;
                let file = File::options().read(true).write(true).create_new(true).mode(0o644).open(&partial);
                (file.map_err(Error::at(&partial))?, Some(partial))
            }
        };
        inherit(&file).map_err(Error::at(&folder))?;
        Ok(Place { target: None, file, partial, replaced: None })
    }

    /// Says what it shall become, in the same folder.
    ///
    /// # Errors
    /// As [`Place::new`].
    pub fn aim(&mut self, target: &Path, force: bool) -> Result<()> {
        let target = std::path::absolute(target).map_err(Error::at(target))?;
        self.replaced = replaced(&target, force)?;
        self.target = Some(target);
        Ok(())
    }

    pub fn file(&self) -> &File {
        &self.file
    }

    /// Where a child finds it.
    pub fn name(&self) -> String {
        handed(&self.file)
    }

    /// Gives the result its name, with the mode and owner of what it replaces.
    ///
    /// # Errors
    /// Exists where somebody else has made such a file meanwhile.
    pub fn finish(mut self) -> Result<()> {
        let Some(target) = self.target.take() else { return Ok(()) };
        if let Some(replaced) = &self.replaced {
            let _ = std::os::unix::fs::fchown(&self.file, Some(replaced.uid()), Some(replaced.gid()));
            let mode = Permissions::from_mode(replaced.mode() & 0o777);
            self.file.set_permissions(mode).map_err(Error::at(&target))?;
        }
        self.file.sync_all().map_err(Error::at(&target))?;
        let folder = folder(&target);
        if self.replaced.is_some() {
            if self.partial.is_none() {
                let partial = beside(folder)?;
                self.link(&partial).map_err(|error| Error::at(&partial)(error.into()))?;
                self.partial = Some(partial);
            }
            let partial = self.partial.clone().unwrap_or_default();
            fs::rename(&partial, &target).map_err(Error::at(&target))?;
        } else {
            match self.link(&target) {
                Ok(()) => {}
                Err(nix::Error::EEXIST) => return Err(Error::Exists(target.clone())),
                Err(error) => return Err(Error::at(&target)(error.into())),
            }
        }
        File::open(folder).and_then(|it| it.sync_all()).map_err(Error::at(folder))
    }

    fn link(&self, name: &Path) -> nix::Result<()> {
        let from = self.partial.clone().unwrap_or_else(|| PathBuf::from(handed(&self.file)));
        linkat(AT_FDCWD, &from, AT_FDCWD, name, AtFlags::AT_SYMLINK_FOLLOW)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(partial) = &self.partial {
            // Renamed or linked, the name has gone or is to go.
            let _ = fs::remove_file(partial);
        }
    }
}

pub(crate) fn folder(target: &Path) -> &Path {
    target.parent().unwrap_or(Path::new("/"))
}

/// What a result would replace.
fn replaced(target: &Path, force: bool) -> Result<Option<Metadata>> {
    match fs::symlink_metadata(target) {
        Ok(_) if !force => Err(Error::Exists(target.to_owned())),
        Ok(there) if !there.is_file() => {
            Err(Error::Refused(format!("{} is no plain file and is not replaced", target.display())))
        }
        Ok(there) => Ok(Some(there)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::at(target)(error)),
    }
}

/// A name that nobody has.
fn beside(folder: &Path) -> Result<PathBuf> {
    let names = (0..64).map(|n| folder.join(format!(".nubo.{}-{n}.partial", std::process::id())));
    let mut unused = names.filter(|path| fs::symlink_metadata(path).is_err());
    unused.next().ok_or_else(|| Error::Refused(format!("{} has too many partial files", folder.display())))
}

/// The path by which a child opens a descriptor that it has inherited.
pub(crate) fn handed(file: &File) -> String {
    format!("/proc/self/fd/{}", file.as_raw_fd())
}

/// Lets children have the descriptor, under the same number.
pub(crate) fn inherit(file: &File) -> io::Result<()> {
    fcntl(file, FcntlArg::F_SETFD(FdFlag::empty()))?;
    Ok(())
}
