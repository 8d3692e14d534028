//! Locks as QEMU takes them, so that no image is worked on while a guest has it.

use crate::error::{Error, Result};
use nix::fcntl::{FcntlArg, fcntl};
use nix::libc;
use std::fs::File;
use std::path::Path;

/// QEMU locks single bytes from 100 on for what it does, and from 200 on for what it bears of others.
const FIRST: i64 = 100;
const COUNT: i64 = 200;

fn region(kind: libc::c_int) -> libc::flock {
    libc::flock { l_type: kind as i16, l_whence: libc::SEEK_SET as i16, l_start: FIRST, l_len: COUNT, l_pid: 0 }
}

fn busy(path: &Path) -> Error {
    Error::Refused(format!("{} is in use by another process", path.display()))
}

/// Requires that nobody has the image open with a lock.
pub(crate) fn unused(file: &File, path: &Path) -> Result<()> {
    let mut found = region(libc::F_WRLCK);
    fcntl(file, FcntlArg::F_OFD_GETLK(&mut found)).map_err(|error| Error::at(path)(error.into()))?;
    if found.l_type == libc::F_UNLCK as i16 { Ok(()) } else { Err(busy(path)) }
}

/// Keeps everybody out until it is dropped.
pub(crate) struct Alone<'a>(&'a File);

pub(crate) fn alone<'a>(file: &'a File, path: &Path) -> Result<Alone<'a>> {
    match fcntl(file, FcntlArg::F_OFD_SETLK(&region(libc::F_WRLCK))) {
        Ok(_) => Ok(Alone(file)),
        Err(nix::Error::EAGAIN | nix::Error::EACCES) => Err(busy(path)),
        Err(error) => Err(Error::at(path)(error.into())),
    }
}

impl Drop for Alone<'_> {
    fn drop(&mut self) {
        // Closing the file would do it, too.
        let _ = fcntl(self.0, FcntlArg::F_OFD_SETLK(&region(libc::F_UNLCK)));
    }
}
