//! `nubo netd`: DHCP and metadata for the guests of this host, served by a process without any privilege.
//!
//! The agent opens the sockets inside the networks' namespaces and hands them over a Unix socket ([`link`]) together
//! with what is to be served there. netd lives in a network namespace of its own that is empty, as a user of its own,
//! and can open nothing. It goes on with the last view while the agent or control restart; a new agent finds it by its
//! socket and hands over everything again. What guests send is hostile: all of it has a limit in size, number and time.
//!
//! ```text
//!   agent ──(view, sockets)──> netd ──> DHCP    by MAC          (UDP 67, and a packet socket that can only send)
//!                                  └──> metadata by source address (TCP 169.254.169.254:80)
//! ```

pub mod dhcp;
pub mod link;
mod metadata;
mod serve;

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::time::Duration;

/// What the program gives to [`main`]. The listening control socket is standard input.
#[derive(Clone, Debug)]
pub struct Options {
    pub uid: u32,
    pub gid: u32,
}

/// Becomes netd: gives up every privilege, then serves until it is told to end. Answers the exit code.
pub fn main(options: Options) -> i32 {
    let allowed = nix::unistd::geteuid().as_raw();
    // A session of its own: what ends the agent's does not end this. Fails harmlessly for a leader of its group.
    let _ = nix::unistd::setsid();
    let result = control_socket().and_then(|listener| {
        confine(&options)?;
        serve::run(listener, allowed)
    });
    match result {
        Ok(()) => 0,
        Err(error) => {
            tracing::error!(%error, "netd ends");
            1
        }
    }
}

fn control_socket() -> io::Result<UnixListener> {
    use std::os::fd::AsFd;
    let owned: OwnedFd = io::stdin().as_fd().try_clone_to_owned()?;
    let null = std::fs::File::open("/dev/null")?;
    nix::unistd::dup2_stdin(&null)?;
    Ok(UnixListener::from(owned))
}

/// An empty network namespace, another user, and no way back.
fn confine(options: &Options) -> io::Result<()> {
    if !nix::unistd::geteuid().is_root() {
        return Ok(());
    }
    use nix::unistd::{Gid, Uid, setgroups, setresgid, setresuid};
    if options.uid == 0 {
        return Err(io::Error::other("netd does not run as root: give it a user of its own"));
    }
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET)?;
    let (uid, gid) = (Uid::from_raw(options.uid), Gid::from_raw(options.gid));
    setgroups(&[gid])?;
    setresgid(gid, gid, gid)?;
    setresuid(uid, uid, uid)?;
    nix::sys::prctl::set_no_new_privs()?;
    nix::sys::prctl::set_dumpable(false)?;
    Ok(())
}

/// Version and process id of the netd that serves at a socket; none where nobody does.
pub fn status(socket: &Path) -> Option<(String, u32)> {
    let mut link = link::Link::connect(socket).ok()?;
    Some((link.version.clone(), link.hello().ok()?))
}

/// Ends the netd that serves at a socket, and waits until it is gone. True if there was one.
pub fn stop(socket: &Path) -> bool {
    let Ok(mut link) = link::Link::connect(socket) else { return false };
    let told = link.ask(&link::Ask::Quit, None).is_ok();
    link.wait_for_end(Duration::from_secs(5));
    let _ = std::fs::remove_file(socket);
    told
}
