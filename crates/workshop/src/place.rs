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
/// the file system knows no files without a name, a kill leaves `.NAME.PID-N.partial`.
#[derive(Debug)]
pub struct Place {
    target: PathBuf,
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
        let replaced = match fs::symlink_metadata(&target) {
            Ok(_) if !force => return Err(Error::Exists(target)),
            Ok(there) if !there.is_file() => {
                return Err(Error::Refused(format!("{} is no plain file and is not replaced", target.display())));
            }
            Ok(there) => Some(there),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(Error::at(&target)(error)),
        };
        let folder = folder(&target);
        let nameless = nix::fcntl::OFlag::O_TMPFILE.bits();
        let opened = File::options().read(true).write(true).mode(0o644).custom_flags(nameless).open(folder);
        let (file, partial) = match opened {
            Ok(file) => (file, None),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(Error::at(folder)(error)),
            Err(_) => {
                let partial = beside(&target)?;
                let file = File::options().read(true).write(true).create_new(true).mode(0o644).open(&partial);
                (file.map_err(Error::at(&partial))?, Some(partial))
            }
        };
        inherit(&file).map_err(Error::at(&target))?;
        Ok(Place { target, file, partial, replaced })
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
        if let Some(replaced) = &self.replaced {
            let _ = std::os::unix::fs::fchown(&self.file, Some(replaced.uid()), Some(replaced.gid()));
            let mode = Permissions::from_mode(replaced.mode() & 0o777);
            self.file.set_permissions(mode).map_err(Error::at(&self.target))?;
        }
        self.file.sync_all().map_err(Error::at(&self.target))?;
        if self.replaced.is_some() {
            let partial = self.partial.take().map_or_else(|| self.link_beside(), Ok)?;
            self.partial = Some(partial.clone());
            fs::rename(&partial, &self.target).map_err(Error::at(&self.target))?;
        } else {
            let from = self.partial.clone().unwrap_or_else(|| PathBuf::from(handed(&self.file)));
            let follow = AtFlags::AT_SYMLINK_FOLLOW;
            match linkat(AT_FDCWD, &from, AT_FDCWD, &self.target, follow) {
                Ok(()) => {}
                Err(nix::Error::EEXIST) => return Err(Error::Exists(self.target.clone())),
                Err(error) => return Err(Error::at(&self.target)(error.into())),
            }
        }
        let folder = folder(&self.target);
        File::open(folder).and_then(|it| it.sync_all()).map_err(Error::at(folder))
    }

    fn link_beside(&self) -> Result<PathBuf> {
        let partial = beside(&self.target)?;
        linkat(AT_FDCWD, handed(&self.file).as_str(), AT_FDCWD, &partial, AtFlags::AT_SYMLINK_FOLLOW)
            .map_err(|error| Error::at(&partial)(error.into()))?;
        Ok(partial)
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

fn folder(target: &Path) -> &Path {
    target.parent().unwrap_or(Path::new("/"))
}

/// A name beside the target that nobody has.
fn beside(target: &Path) -> Result<PathBuf> {
    let name = target.file_name().ok_or_else(|| Error::Refused(format!("{} names no file", target.display())))?;
    let (name, process) = (name.to_string_lossy(), std::process::id());
    let names = (0..16).map(|n| target.with_file_name(format!(".{name}.{process}-{n}.partial")));
    let mut unused = names.filter(|path| fs::symlink_metadata(path).is_err());
    unused.next().ok_or_else(|| Error::Refused(format!("there are too many partial files of {}", target.display())))
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
