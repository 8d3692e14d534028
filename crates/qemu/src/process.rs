//! QEMU processes: started so that they belong to nobody, held by a pidfd, found again by their name.
#![allow(unsafe_code)]

use crate::machine::CommandLine;
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use tokio::io::unix::AsyncFd;

/// How a process is started.
pub struct Launch {
    pub program: PathBuf,
    pub line: CommandLine,
    /// The unprivileged user it becomes; none: stays what we are (for tests without root).
    pub user: Option<(u32, u32)>,
    /// More groups, such as that of /dev/kvm.
    pub groups: Vec<u32>,
    pub stderr: File,
    pub oom_score_adj: i32,
}

/// A running process that we may or may not be the parent of.
pub struct Process {
    pub pid: i32,
    /// Clock ticks after boot: with the pid, names a process for ever.
    pub start_ticks: u64,
    handle: AsyncFd<OwnedFd>,
}

impl Launch {
    /// Starts the process. Its descriptors are closed here; the child holds them under the same numbers.
    pub fn spawn(self) -> io::Result<Process> {
        let mut command = Command::new(&self.program);
        command.args(&self.line.args).stdin(Stdio::null()).stdout(Stdio::null()).stderr(self.stderr);
        command.env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").env("LC_ALL", "C").current_dir("/");
        let files: Vec<RawFd> = self.line.files.iter().map(|file| file.as_raw_fd()).collect();
        let (user, groups, score) = (self.user, self.groups, format!("{}\n", self.oom_score_adj));
        let become_guest = move || {
            // SAFETY: only async-signal-safe calls on values made before the fork; nothing here allocates.
            unsafe { enter(&files, user, &groups, score.as_bytes()) }
        };
        // SAFETY: `enter` keeps to what is allowed between fork and exec, see there.
        unsafe { command.pre_exec(become_guest) };
        let child = command.spawn()?;
        let pid = i32::try_from(child.id()).map_err(io::Error::other)?;
        // Not waited for through `child`: the pidfd tells of its end, and `exit_reason` takes the status.
        Process::open(pid)?.ok_or_else(|| io::Error::other("the process ended before it could be held"))
    }
}

/// What the child does between fork and exec.
///
/// # Safety
/// To be called in a forked child only; uses nothing but system calls.
unsafe fn enter(files: &[RawFd], user: Option<(u32, u32)>, groups: &[u32], score: &[u8]) -> io::Result<()> {
    let check = |answer: libc::c_int| if answer < 0 { Err(io::Error::last_os_error()) } else { Ok(()) };
    // SAFETY: plain system calls; pointers are to constants or to slices that outlive the call.
    unsafe {
        check(libc::setsid())?;
        libc::umask(0o077);
        let oom = libc::open(c"/proc/self/oom_score_adj".as_ptr(), libc::O_WRONLY | libc::O_CLOEXEC);
        if oom >= 0 {
            libc::write(oom, score.as_ptr().cast(), score.len());
            libc::close(oom);
        }
        let none = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
        libc::setrlimit(libc::RLIMIT_CORE, &none);
        libc::syscall(libc::SYS_close_range, 3u32, u32::MAX, libc::CLOSE_RANGE_CLOEXEC);
        for file in files {
            check(libc::fcntl(*file, libc::F_SETFD, 0))?;
        }
        if let Some((uid, gid)) = user {
            check(libc::setgroups(groups.len(), groups.as_ptr()))?;
            check(libc::setresgid(gid, gid, gid))?;
            check(libc::setresuid(uid, uid, uid))?;
        }
        check(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))?;
        // The signal mask and dispositions of the agent's runtime are not the guest's.
        let mut empty: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&mut empty);
        libc::sigprocmask(libc::SIG_SETMASK, &empty, std::ptr::null_mut());
    }
    Ok(())
}

impl Process {
    /// Takes hold of a process; none when it has gone.
    pub fn open(pid: i32) -> io::Result<Option<Process>> {
        // SAFETY: takes two integers, answers a new descriptor or -1.
        let raw = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
        if raw < 0 {
            let error = io::Error::last_os_error();
            return if error.raw_os_error() == Some(libc::ESRCH) { Ok(None) } else { Err(error) };
        }
        let raw = RawFd::try_from(raw).map_err(io::Error::other)?;
        // SAFETY: made by the call above, known to nobody else.
        let handle = unsafe { OwnedFd::from_raw_fd(raw) };
        let Some(start_ticks) = start_ticks(pid) else { return Ok(None) };
        // SAFETY: an OwnedFd names the same descriptor as long as it lives.
        let handle = unsafe { AsyncFd::register(handle) }?;
        Ok(Some(Process { pid, start_ticks, handle }))
    }

    /// Waits for the end. Cancelling loses nothing.
    pub async fn ended(&self) {
        // A pidfd becomes readable when its process ends and stays so; an error here would be a broken runtime.
        while let Ok(mut ready) = self.handle.readable().await {
            if self.has_ended() {
                return;
            }
            ready.clear_ready();
        }
    }

    pub fn has_ended(&self) -> bool {
        use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
        let mut fds = [PollFd::new(self.handle.get_ref().as_fd(), PollFlags::POLLIN)];
        poll(&mut fds, PollTimeout::ZERO).is_ok_and(|ready| ready > 0)
    }

    /// Why it ended, in words, and frees the kernel's entry. Known only to a parent.
    pub fn exit_reason(&self) -> Option<String> {
        let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG;
        match waitid(Id::PIDFd(self.handle.get_ref().as_fd()), flags) {
            Ok(WaitStatus::Exited(_, code)) => Some(format!("ended with status {code}")),
            Ok(WaitStatus::Signaled(_, signal, _)) => Some(format!("killed: signal {}", signal as i32)),
            _ => None,
        }
    }

    /// Ends it at once. An ended process is left alone.
    pub fn kill(&self) {
        let none = std::ptr::null::<libc::siginfo_t>();
        // SAFETY: the descriptor is ours; no memory is passed.
        unsafe { libc::syscall(libc::SYS_pidfd_send_signal, self.handle.as_raw_fd(), libc::SIGKILL, none, 0) };
    }
}

/// When the process was started; none when it has gone or is a zombie.
fn start_ticks(pid: i32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in parentheses may hold anything.
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace();
    let state = fields.next()?;
    if state == "Z" || state == "X" {
        return None;
    }
    fields.nth(18)?.parse().ok()
}

/// A QEMU process seen in /proc.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    pub pid: i32,
    /// What stands behind `-name guest=`.
    pub name: String,
    pub uid: u32,
}

/// All processes whose guest's name begins with `prefix`. Anybody can give a process such a name: the caller checks
/// the user.
pub fn find(prefix: &str) -> Vec<Seen> {
    let Ok(entries) = std::fs::read_dir("/proc") else { return Vec::new() };
    let pids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    pids.filter_map(|pid| look(pid, prefix)).collect()
}

fn look(pid: i32, prefix: &str) -> Option<Seen> {
    use std::os::unix::fs::MetadataExt;
    let line = std::fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let mut args = line.split(|byte| *byte == 0);
    args.find(|arg| *arg == b"-name")?;
    let value = std::str::from_utf8(args.next()?).ok()?;
    let name = value.strip_prefix("guest=")?.split(',').next()?;
    if !name.starts_with(prefix) {
        return None;
    }
    let uid = std::fs::metadata(format!("/proc/{pid}")).ok()?.uid();
    Some(Seen { pid, name: name.to_owned(), uid })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sleeper(files: Vec<OwnedFd>) -> Process {
        let line = CommandLine { args: vec!["60".into()], files };
        let launch = Launch {
            program: "/bin/sleep".into(),
            line,
            user: None,
            groups: Vec::new(),
            stderr: File::options().write(true).open("/dev/null").unwrap(),
            oom_score_adj: 200,
        };
        launch.spawn().unwrap()
    }

    #[tokio::test]
    async fn a_process_is_held_killed_and_its_end_explained() {
        let file: OwnedFd = tempfile::tempfile().unwrap().into();
        let number = file.as_raw_fd();
        let process = sleeper(vec![file]);
        assert!(!process.has_ended());
        assert_eq!(process.exit_reason(), None);
        // It leads its own session and holds the standard descriptors and the one that was given.
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", process.pid)).unwrap();
        let session: i32 = stat.rsplit_once(')').unwrap().1.split_ascii_whitespace().nth(3).unwrap().parse().unwrap();
        assert_eq!(session, process.pid);
        let open = std::fs::read_dir(format!("/proc/{}/fd", process.pid)).unwrap();
        let mut open: Vec<i32> = open.map(|it| it.unwrap().file_name().to_str().unwrap().parse().unwrap()).collect();
        open.sort();
        assert_eq!(open, [0, 1, 2, number]);
        let status = std::fs::read_to_string(format!("/proc/{}/status", process.pid)).unwrap();
        assert!(status.contains("NoNewPrivs:\t1"));

        let again = Process::open(process.pid).unwrap().unwrap();
        assert_eq!(again.start_ticks, process.start_ticks);
        process.kill();
        process.ended().await;
        assert_eq!(process.exit_reason().as_deref(), Some("killed: signal 9"));
        again.ended().await;
        assert_eq!(again.exit_reason(), None);
        assert!(Process::open(process.pid).unwrap().is_none());
    }

    #[test]
    fn only_processes_of_that_name_are_found() {
        assert_eq!(find("nubo-ffffffff-nobody"), []);
    }
}
