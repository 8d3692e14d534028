//! One `up`, `down` or `purge` of a state at a time.
//!
//! Each looks at what runs and then starts or stops it: two at once would both find no supervisor and start one each.
//! The lock is the kernel's, on `run/lock` in the state; it goes with its process, however that ends, so nobody ever
//! has to remove it. Services never take it.

use anyhow::{Context, Result};
use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io::ErrorKind;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Held until it is dropped, or until the process ends.
pub struct Lock {
    _file: File,
}

fn folder(state: &Path) -> PathBuf {
    state.join("run")
}

/// Where the lock's file lies.
pub fn path(state: &Path) -> PathBuf {
    folder(state).join("lock")
}

/// Takes the lock; `waits` is called once when another command has it, before the wait.
pub fn take(state: &Path, waits: impl FnOnce()) -> Result<Lock> {
    let path = path(state);
    let mut waits = Some(waits);
    loop {
        let folder = folder(state);
        DirBuilder::new().recursive(true).mode(0o755).create(&folder).with_context(|| folder.display().to_string())?;
        // Closed to control's account, which may write into `run`: what it cannot open it cannot hold.
        let opened = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .custom_flags(nix::fcntl::OFlag::O_NOFOLLOW.bits())
            .open(&path);
        let file = match opened {
            // A purge has just taken the folder away.
            Err(error) if error.kind() == ErrorKind::NotFound => continue,
            opened => opened.with_context(|| path.display().to_string())?,
        };
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                if let Some(say) = waits.take() {
                    say();
                }
                file.lock().with_context(|| path.display().to_string())?;
            }
            Err(TryLockError::Error(error)) => return Err(error).with_context(|| path.display().to_string()),
        }
        // Whoever had it before may have been a purge, which removes the file: then the lock is of a file that nobody
        // else can find.
        if std::fs::metadata(&path).is_ok_and(|now| file.metadata().is_ok_and(|own| own.ino() == now.ino())) {
            return Ok(Lock { _file: file });
        }
    }
}

/// True for a state that holds nothing, or nothing but the lock: an `up` has just begun there, or a purge was cut off
/// before its last removal.
pub fn is_all(state: &Path) -> bool {
    let only = |folder: &Path, name: &str| {
        std::fs::read_dir(folder).is_ok_and(|entries| entries.flatten().all(|entry| entry.file_name() == name))
    };
    only(state, "run") && (!folder(state).exists() || only(&folder(state), "lock"))
}

/// Removes the lock's file and folder, and the state where nothing else is left: the end of a purge.
pub fn remove(state: &Path) -> Result<()> {
    match std::fs::remove_file(path(state)) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error.into()),
        _ => {}
    }
    // Not empty when the next command has made its own lock already; and the state may be a mount, or stand in a place
    // that is not ours to change.
    let _ = std::fs::remove_dir(folder(state)).and_then(|()| std::fs::remove_dir(state));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::{Receiver, channel};
    use std::time::Duration;

    /// Another command of the same state: says when it waits and when it has the lock.
    fn other(state: &Path) -> Receiver<&'static str> {
        let (say, said) = channel();
        let state = state.to_owned();
        std::thread::spawn(move || {
            let lock = take(&state, || say.send("waits").unwrap()).unwrap();
            assert!(path(&state).exists());
            say.send("has it").unwrap();
            drop(lock);
        });
        said
    }

    fn next(said: &Receiver<&'static str>) -> &'static str {
        said.recv_timeout(Duration::from_secs(30)).unwrap()
    }

    #[test]
    fn the_second_command_says_that_it_waits_and_goes_on_after_the_first() {
        let state = tempfile::tempdir().unwrap();
        let first = take(state.path(), || panic!("nobody has it")).unwrap();
        let said = other(state.path());
        assert_eq!(next(&said), "waits");
        drop(first);
        assert_eq!(next(&said), "has it");
    }

    #[test]
    fn who_waited_for_a_purge_gets_a_lock_that_others_see() {
        let state = tempfile::tempdir().unwrap();
        let purge = take(state.path(), || {}).unwrap();
        let said = other(state.path());
        assert_eq!(next(&said), "waits");
        assert!(is_all(state.path()));
        remove(state.path()).unwrap();
        drop(purge);
        assert_eq!(next(&said), "has it");
        std::fs::write(state.path().join("setup.json"), "{}").unwrap();
        assert!(!is_all(state.path()));
    }
}
