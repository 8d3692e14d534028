//! Network namespaces. Named ones stand under `/run/netns`, so that `ip netns` shows them.
//!
//! A namespace's mount must be seen by every later process, so it is made in the mount namespace of process 1 where
//! that can be entered: an agent that was itself started by `ip netns exec` lives in a private copy, and a namespace
//! that is mounted only there would vanish with it.

use crate::socket::Socket;
use crate::{Error, Result};
use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex, MutexGuard};

const DIR: &str = "/run/netns";

/// A namespace that is held open: it stays alive as long as this does.
#[derive(Clone)]
pub struct Netns {
    inner: Arc<Inner>,
}

struct Inner {
    name: Option<String>,
    fd: OwnedFd,
    inode: u64,
    route: Mutex<Option<Socket>>,
    conntrack: Mutex<Option<Socket>>,
}

impl std::fmt::Debug for Netns {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Netns({}, {})", self.inner.name.as_deref().unwrap_or("unnamed"), self.inner.inode)
    }
}

impl Netns {
    /// The namespace of the calling thread.
    pub fn current() -> Result<Netns> {
        Netns::of(None, Path::new("/proc/thread-self/ns/net"))
    }

    /// A named one; none where there is none of that name.
    pub fn open(name: &str) -> Result<Option<Netns>> {
        let path = path(name)?;
        in_host_mounts(|| match Netns::of(Some(name.to_owned()), &path) {
            // An empty file is what a crash between creation and mount leaves behind.
            Ok(ns) if is_mounted(&path) => Ok(Some(ns)),
            Ok(_) => Ok(None),
            Err(error) if error.errno == libc::ENOENT => Ok(None),
            Err(error) => Err(error),
        })
    }

    /// Makes a named one, or opens the one that is there. `lo` is up.
    pub fn create(name: &str) -> Result<Netns> {
        if let Some(ns) = Netns::open(name)? {
            return Ok(ns);
        }
        let path = path(name)?;
        let made = path.clone();
        let work = move || {
            prepare_dir()?;
            File::create(&made).map_err(|e| Error::os(format!("create {}", made.display()), e))?;
            unshare_net()?;
            mount_current(&made)
        };
        // Never on the caller's thread, which would be left in the new namespace.
        on_thread(|| in_host_mounts(work))?;
        let ns = Netns::open(name)?.ok_or_else(|| Error::tool(format!("namespace {name}"), "gone at once"))?;
        crate::link::set(&ns, "lo", &crate::LinkSet { up: Some(true), ..Default::default() })?;
        Ok(ns)
    }

    /// One without a name: it ends with the last handle.
    pub fn scratch() -> Result<Netns> {
        on_thread(|| {
            unshare_net()?;
            Netns::current()
        })
    }

    /// Takes the name away. The namespace itself ends once nothing holds it open.
    pub fn delete(name: &str) -> Result<()> {
        let path = path(name)?;
        in_host_mounts(move || {
            while is_mounted(&path) {
                nix::mount::umount2(&path, nix::mount::MntFlags::MNT_DETACH)
                    .map_err(|e| Error::errno(format!("unmount {}", path.display()), e as i32))?;
            }
            match std::fs::remove_file(&path) {
                Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                    Err(Error::os(format!("remove {}", path.display()), e))
                }
                _ => Ok(()),
            }
        })
    }

    /// The names of all that begin with `prefix`, leftovers without a namespace included.
    pub fn list(prefix: &str) -> Result<Vec<String>> {
        let prefix = prefix.to_owned();
        in_host_mounts(move || {
            let entries = match std::fs::read_dir(DIR) {
                Ok(entries) => entries,
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
                Err(e) => return Err(Error::os(format!("list {DIR}"), e)),
            };
            let mut names: Vec<String> = entries
                .flatten()
                .filter_map(|entry| entry.file_name().into_string().ok())
                .filter(|name| name.starts_with(&prefix))
                .collect();
            names.sort();
            Ok(names)
        })
    }

    fn of(name: Option<String>, path: &Path) -> Result<Netns> {
        let file = File::open(path).map_err(|e| Error::os(format!("open {}", path.display()), e))?;
        let inode = file.metadata().map_err(|e| Error::os("look at a namespace", e))?.ino();
        let inner = Inner { name, fd: file.into(), inode, route: Mutex::default(), conntrack: Mutex::default() };
        Ok(Netns { inner: Arc::new(inner) })
    }

    pub fn name(&self) -> Option<&str> {
        self.inner.name.as_deref()
    }

    /// Tells namespaces apart, also when a name has been used again.
    pub fn inode(&self) -> u64 {
        self.inner.inode
    }

    pub fn fd(&self) -> BorrowedFd<'_> {
        self.inner.fd.as_fd()
    }

    /// Runs `work` on a thread of its own inside the namespace.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        on_thread(|| {
            enter(self.inner.fd.as_fd())?;
            work()
        })
    }

    /// A command whose process runs inside the namespace.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        let inner = self.inner.clone();
        // SAFETY: setns is async-signal-safe; the descriptor lives as long as the closure.
        unsafe {
            command.pre_exec(move || {
                if libc::setns(inner.fd.as_raw_fd(), libc::CLONE_NEWNET) == 0 {
                    Ok(())
                } else {
                    Err(std::io::Error::last_os_error())
                }
            });
        }
        command
    }

    /// Writes a value below `/proc/sys`, as the namespace sees it: `net/ipv4/ip_forward`.
    pub fn sysctl(&self, values: &[(String, String)]) -> Result<()> {
        if values.is_empty() {
            return Ok(());
        }
        self.run(|| {
            for (name, value) in values {
                let path = sysctl_path(name)?;
                std::fs::write(&path, value)
                    .map_err(|e| Error::os(format!("write {value} to {}", path.display()), e))?;
            }
            Ok(())
        })
    }

    /// Reads values below `/proc/sys`; none for what this kernel does not have.
    pub fn sysctl_read(&self, names: &[String]) -> Result<Vec<Option<String>>> {
        self.run(|| {
            names
                .iter()
                .map(|name| {
                    let path = sysctl_path(name)?;
                    Ok(std::fs::read_to_string(path).ok().map(|text| text.trim().to_owned()))
                })
                .collect()
        })
    }

    pub(crate) fn route(&self) -> Result<Held<'_>> {
        self.held(&self.inner.route, libc::NETLINK_ROUTE)
    }

    pub(crate) fn netfilter(&self) -> Result<Held<'_>> {
        self.held(&self.inner.conntrack, libc::NETLINK_NETFILTER)
    }

    fn held<'a>(&self, place: &'a Mutex<Option<Socket>>, protocol: libc::c_int) -> Result<Held<'a>> {
        let mut guard = place.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        if guard.is_none() {
            *guard = Some(self.run(|| Socket::open(protocol))?);
        }
        Ok(Held(guard))
    }
}

/// The namespace's own socket, in use.
pub(crate) struct Held<'a>(MutexGuard<'a, Option<Socket>>);

impl std::ops::Deref for Held<'_> {
    type Target = Socket;
    fn deref(&self) -> &Socket {
        self.0.as_ref().expect("opened by held()")
    }
}

impl std::ops::DerefMut for Held<'_> {
    fn deref_mut(&mut self) -> &mut Socket {
        self.0.as_mut().expect("opened by held()")
    }
}

fn sysctl_path(name: &str) -> Result<PathBuf> {
    if name.split('/').any(|part| part.is_empty() || part == ".." || part == ".") {
        return Err(Error::tool(format!("sysctl {name}"), "not a plain path"));
    }
    Ok(Path::new("/proc/sys").join(name))
}

fn path(name: &str) -> Result<PathBuf> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    if name.is_empty() || name.len() > 200 || name.starts_with('.') || !name.bytes().all(plain) {
        return Err(Error::tool(format!("namespace {name:?}"), "not a plain name"));
    }
    Ok(Path::new(DIR).join(name))
}

fn is_mounted(path: &Path) -> bool {
    const NSFS_MAGIC: i128 = 0x6e73_6673;
    nix::sys::statfs::statfs(path).is_ok_and(|fs| i128::from(fs.filesystem_type().0) == NSFS_MAGIC)
}

/// `/run/netns` is a shared mount, as `ip netns` makes it: names propagate to other mount namespaces, removal too.
fn prepare_dir() -> Result<()> {
    use nix::mount::{MsFlags, mount};
    std::fs::create_dir_all(DIR).map_err(|e| Error::os(format!("create {DIR}"), e))?;
    let none = None::<&str>;
    let shared = || mount(none, DIR, none, MsFlags::MS_SHARED | MsFlags::MS_REC, none);
    if shared().is_ok() {
        return Ok(());
    }
    mount(Some(DIR), DIR, none, MsFlags::MS_BIND | MsFlags::MS_REC, none)
        .and_then(|()| shared())
        .map_err(|e| Error::errno(format!("make {DIR} a shared mount"), e as i32))
}

fn mount_current(path: &Path) -> Result<()> {
    use nix::mount::{MsFlags, mount};
    let none = None::<&str>;
    mount(Some("/proc/thread-self/ns/net"), path, none, MsFlags::MS_BIND, none).map_err(|e| {
        let _ = std::fs::remove_file(path);
        Error::errno(format!("mount the namespace at {}", path.display()), e as i32)
    })
}

fn unshare_net() -> Result<()> {
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET)
        .map_err(|e| Error::errno("make a network namespace", e as i32))
}

fn enter(fd: BorrowedFd<'_>) -> Result<()> {
    nix::sched::setns(fd, nix::sched::CloneFlags::CLONE_NEWNET)
        .map_err(|e| Error::errno("enter a network namespace", e as i32))
}

/// A thread that ends after `work`: whatever namespaces it entered end with it.
fn on_thread<T: Send>(work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new()
            .stack_size(256 * 1024)
            .spawn_scoped(scope, work)
            .map_err(|e| Error::os("start a thread", e))?;
        thread.join().unwrap_or_else(|_| Err(Error::tool("a thread in a namespace", "it panicked")))
    })
}

/// The mount namespace of process 1, where it is not ours and may be entered.
fn other_mounts() -> Option<&'static File> {
    static FIRST: std::sync::OnceLock<Option<File>> = std::sync::OnceLock::new();
    let find = || {
        let ours = std::fs::read_link("/proc/self/ns/mnt").ok();
        let theirs = std::fs::read_link("/proc/1/ns/mnt").ok();
        if theirs.is_none() || ours == theirs { None } else { File::open("/proc/1/ns/mnt").ok() }
    };
    FIRST.get_or_init(find).as_ref()
}

fn in_host_mounts<T: Send>(work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    let Some(first) = other_mounts() else { return work() };
    on_thread(|| {
        use nix::sched::{CloneFlags, setns, unshare};
        // A thread may enter a mount namespace only with a working directory of its own.
        if unshare(CloneFlags::CLONE_FS).is_ok() {
            let _ = setns(first, CloneFlags::CLONE_NEWNS);
        }
        work()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_leave_the_directory_are_refused() {
        for name in ["", ".", "..", "a/b", "../x", "a b", ".hidden", "a\0b"] {
            assert!(path(name).is_err(), "{name:?}");
        }
        assert!(path("nubo-0011aabb-n-0123456789ab").is_ok());
        assert!(sysctl_path("net/../../etc/passwd").is_err());
    }
}
