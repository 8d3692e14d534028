//! Passing open files over Unix sockets, asking who sits at the other end, and sockets whose path is too long.
//!
//! Control hands image files to the agent of the same machine this way instead of copying them, and the agent hands
//! sockets to QEMU. Nothing here knows what the files mean. Only blocking sockets of the standard library are taken:
//! whoever has asynchronous ones converts them or calls from a blocking task.

#![allow(unsafe_code)]

use nix::sys::socket::{
    ControlMessage, ControlMessageOwned, MsgFlags, UnixAddr, getsockopt, recvmsg, sendmsg, sockopt::PeerCredentials,
};
use std::fs::File;
use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;

/// The most bytes of a message that carries a file.
pub const MESSAGE_BYTES: usize = 4096;

/// Sends `message` (not empty) in one piece together with at most one open file.
pub fn send_fd(socket: impl AsFd, message: &[u8], file: Option<BorrowedFd<'_>>) -> io::Result<()> {
    if message.is_empty() || message.len() > MESSAGE_BYTES {
        return Err(io::Error::other(format!("a message has 1 to {MESSAGE_BYTES} bytes, not {}", message.len())));
    }
    let raw: Vec<RawFd> = file.iter().map(|file| file.as_raw_fd()).collect();
    let rights = [ControlMessage::ScmRights(&raw)];
    let control = if raw.is_empty() { &rights[..0] } else { &rights[..] };
    let sent = sendmsg::<UnixAddr>(
        socket.as_fd().as_raw_fd(),
        &[IoSlice::new(message)],
        control,
        MsgFlags::MSG_NOSIGNAL,
        None,
    )?;
    if sent != message.len() {
        return Err(io::Error::new(io::ErrorKind::WriteZero, "the other side took only a part of the message"));
    }
    Ok(())
}

/// Receives one message of at most [`MESSAGE_BYTES`] and the file that came with it. An empty message is the end.
/// Files beyond the first are closed: nobody may fill our table of descriptors.
pub fn recv_fd(socket: impl AsFd) -> io::Result<(Vec<u8>, Option<OwnedFd>)> {
    let mut bytes = vec![0u8; MESSAGE_BYTES];
    let mut space = nix::cmsg_space!([RawFd; 4]);
    let (length, mut files) = {
        let mut parts = [IoSliceMut::new(&mut bytes)];
        let message =
            recvmsg::<UnixAddr>(socket.as_fd().as_raw_fd(), &mut parts, Some(&mut space), MsgFlags::MSG_CMSG_CLOEXEC)?;
        let mut files = Vec::new();
        for control in message.cmsgs()? {
            if let ControlMessageOwned::ScmRights(raw) = control {
                // SAFETY: the kernel has just made these descriptors for us, and nobody else knows their numbers.
                files.extend(raw.into_iter().map(|raw| unsafe { OwnedFd::from_raw_fd(raw) }));
            }
        }
        (message.bytes, files)
    };
    bytes.truncate(length);
    Ok((bytes, if files.is_empty() { None } else { Some(files.swap_remove(0)) }))
}

/// The user id of the process at the other end, as the kernel saw it when the connection was made.
pub fn peer_uid(socket: impl AsFd) -> io::Result<u32> {
    Ok(getsockopt(&socket, PeerCredentials)?.uid())
}

/// Listens at `path`, however long it is (the kernel takes 107 bytes): through the folder's descriptor. A socket that
/// lies there already is replaced.
pub fn listen(path: &Path) -> io::Result<UnixListener> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => through_folder(path, |short| UnixListener::bind(short)),
    }
}

/// Connects to the socket at `path`, however long it is.
pub fn connect(path: &Path) -> io::Result<UnixStream> {
    through_folder(path, |short| UnixStream::connect(short))
}

fn through_folder<T>(path: &Path, call: impl FnOnce(&Path) -> io::Result<T>) -> io::Result<T> {
    if path.as_os_str().len() < 100 {
        return call(path);
    }
    let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::Error::other("the path of a socket names a folder and a file"));
    };
    let folder = File::open(folder)?;
    call(&Path::new("/proc/self/fd").join(folder.as_raw_fd().to_string()).join(name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};

    #[test]
    fn a_file_arrives_with_its_message() {
        let (here, there) = UnixStream::pair().unwrap();
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"content").unwrap();
        send_fd(&here, b"{\"ok\":true}\n", Some(file.as_fd())).unwrap();
        let (message, got) = recv_fd(&there).unwrap();
        assert_eq!(message, b"{\"ok\":true}\n");
        let mut got = File::from(got.unwrap());
        std::io::Seek::rewind(&mut got).unwrap();
        let mut text = String::new();
        got.read_to_string(&mut text).unwrap();
        assert_eq!(text, "content");
    }

    #[test]
    fn a_message_without_a_file_and_the_end_are_told_apart() {
        let (here, there) = UnixStream::pair().unwrap();
        send_fd(&here, b"no file", None).unwrap();
        drop(here);
        let (message, file) = recv_fd(&there).unwrap();
        assert_eq!((message.as_slice(), file.is_none()), (&b"no file"[..], true));
        assert!(recv_fd(&there).unwrap().0.is_empty());
    }

    #[test]
    fn the_peer_is_known_by_its_user() {
        let (here, _there) = UnixStream::pair().unwrap();
        assert_eq!(peer_uid(&here).unwrap(), nix::unistd::getuid().as_raw());
    }

    #[test]
    fn a_socket_may_have_a_long_path() {
        let folder = tempfile::tempdir().unwrap();
        let deep = folder.path().join("x".repeat(120));
        std::fs::create_dir(&deep).unwrap();
        let path = deep.join("s.sock");
        let _first = listen(&path).unwrap();
        let second = listen(&path).unwrap();
        let mut client = connect(&path).unwrap();
        client.write_all(b"hello").unwrap();
        let mut bytes = [0; 5];
        second.accept().unwrap().0.read_exact(&mut bytes).unwrap();
        assert_eq!(&bytes, b"hello");
    }
}
