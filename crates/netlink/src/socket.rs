//! A netlink socket: it stays in the namespace in which it was opened, whatever thread uses it.

use crate::wire::{HEADER, Message, NLM_F_ACK, NLM_F_DUMP, text_of};
use crate::{Error, Result};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NLM_F_MULTI: u16 = 2;
const NLM_F_ACK_TLVS: u16 = 0x200;
const NLM_F_CAPPED: u16 = 0x100;
const SOL_NETLINK: libc::c_int = 270;
const NETLINK_EXT_ACK: libc::c_int = 11;
const NETLINK_CAP_ACK: libc::c_int = 10;
const BUFFER: usize = 256 * 1024;
/// Messages sent in one call: their answers must fit the receive buffer.
const BATCH: usize = 64;

pub struct Socket {
    fd: OwnedFd,
    sequence: u32,
    buffer: Vec<u8>,
}

impl Socket {
    /// Opens one in the namespace of the calling thread.
    pub fn open(protocol: libc::c_int) -> Result<Socket> {
        // SAFETY: plain system calls; the descriptor is owned at once.
        let fd = unsafe {
            let fd = libc::socket(libc::AF_NETLINK, libc::SOCK_RAW | libc::SOCK_CLOEXEC, protocol);
            if fd < 0 {
                return Err(Error::last("open a netlink socket"));
            }
            OwnedFd::from_raw_fd(fd)
        };
        let on: libc::c_int = 1;
        let timeout = libc::timeval { tv_sec: 20, tv_usec: 0 };
        for option in [NETLINK_EXT_ACK, NETLINK_CAP_ACK] {
            // SAFETY: the pointer and length describe `on`, which lives across the call.
            unsafe {
                libc::setsockopt(fd.as_raw_fd(), SOL_NETLINK, option, (&raw const on).cast(), size_of_val(&on) as u32);
            }
        }
        // SAFETY: the pointer and length describe `timeout`.
        unsafe {
            libc::setsockopt(
                fd.as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_RCVTIMEO,
                (&raw const timeout).cast(),
                size_of_val(&timeout) as u32,
            );
        }
        Ok(Socket { fd, sequence: 0, buffer: vec![0; BUFFER] })
    }

    /// Sends one message and waits for the kernel's word on it.
    pub fn ask(&mut self, message: Message) -> Result<()> {
        self.ask_all(vec![message]).pop().unwrap_or(Ok(()))
    }

    /// Sends many, a few system calls for all; the kernel carries each out in order, also when one before it failed.
    pub fn ask_all(&mut self, messages: Vec<Message>) -> Vec<Result<()>> {
        let mut results = Vec::with_capacity(messages.len());
        let mut messages = messages.into_iter().peekable();
        while messages.peek().is_some() {
            let part: Vec<Message> = messages.by_ref().take(BATCH).collect();
            let whats: Vec<String> = part.iter().map(|m| m.what.clone()).collect();
            let first = self.sequence.wrapping_add(1);
            let mut bytes = Vec::new();
            for message in part {
                self.sequence = self.sequence.wrapping_add(1);
                bytes.extend(message.sealed(self.sequence, NLM_F_ACK));
            }
            match self.send(&bytes).and_then(|()| self.acks(first, &whats)) {
                Ok(part) => results.extend(part),
                Err(error) => results.extend(whats.iter().map(|_| Err(error.clone()))),
            }
        }
        results
    }

    fn acks(&mut self, first: u32, whats: &[String]) -> Result<Vec<Result<()>>> {
        let mut results: Vec<Option<Result<()>>> = vec![None; whats.len()];
        let mut open = whats.len();
        while open > 0 {
            let length = self.receive()?;
            for (header, body) in messages(&self.buffer[..length]) {
                let at = header.sequence.wrapping_sub(first) as usize;
                if header.kind != NLMSG_ERROR || at >= results.len() || results[at].is_some() {
                    continue;
                }
                results[at] = Some(verdict(&header, body, &whats[at]));
                open -= 1;
            }
        }
        Ok(results.into_iter().flatten().collect())
    }

    /// Asks for one object: what came back, kind and body.
    pub fn get(&mut self, message: Message) -> Result<Vec<(u16, Vec<u8>)>> {
        let what = message.what.clone();
        self.sequence = self.sequence.wrapping_add(1);
        let bytes = message.sealed(self.sequence, NLM_F_ACK);
        self.send(&bytes)?;
        let mut all = Vec::new();
        loop {
            let length = self.receive()?;
            for (header, body) in messages(&self.buffer[..length]) {
                match header.kind {
                    _ if header.sequence != self.sequence => {}
                    NLMSG_ERROR => {
                        verdict(&header, body, &what)?;
                        return Ok(all);
                    }
                    kind => all.push((kind, body.to_vec())),
                }
            }
        }
    }

    /// Asks for a listing: kind and body of each message.
    pub fn dump(&mut self, message: Message) -> Result<Vec<(u16, Vec<u8>)>> {
        let what = message.what.clone();
        for _ in 0..8 {
            self.sequence = self.sequence.wrapping_add(1);
            let bytes = message.clone().sealed(self.sequence, NLM_F_DUMP);
            self.send(&bytes)?;
            if let Some(all) = self.dumped(&what)? {
                return Ok(all);
            }
        }
        Err(Error::tool(what, "the listing changed while it was read, eight times"))
    }

    fn dumped(&mut self, what: &str) -> Result<Option<Vec<(u16, Vec<u8>)>>> {
        const NLM_F_DUMP_INTR: u16 = 0x10;
        let (mut all, mut torn) = (Vec::new(), false);
        loop {
            let length = self.receive()?;
            for (header, body) in messages(&self.buffer[..length]) {
                if header.sequence != self.sequence {
                    continue;
                }
                torn |= header.flags & NLM_F_DUMP_INTR != 0;
                match header.kind {
                    NLMSG_DONE => return Ok((!torn).then_some(all)),
                    NLMSG_ERROR => {
                        verdict(&header, body, what)?;
                        return Ok(Some(all));
                    }
                    kind => all.push((kind, body.to_vec())),
                }
                if header.flags & NLM_F_MULTI == 0 {
                    return Ok(Some(all));
                }
            }
        }
    }

    fn send(&self, bytes: &[u8]) -> Result<()> {
        // SAFETY: pointer and length describe `bytes`.
        let sent = unsafe { libc::send(self.fd.as_raw_fd(), bytes.as_ptr().cast(), bytes.len(), 0) };
        if sent < 0 { Err(Error::last("send to the kernel")) } else { Ok(()) }
    }

    fn receive(&mut self) -> Result<usize> {
        loop {
            // SAFETY: pointer and length describe `buffer`.
            let length =
                unsafe { libc::recv(self.fd.as_raw_fd(), self.buffer.as_mut_ptr().cast(), self.buffer.len(), 0) };
            if length >= 0 {
                return Ok(length as usize);
            }
            let error = std::io::Error::last_os_error();
            if error.kind() != std::io::ErrorKind::Interrupted {
                return Err(Error::os("hear from the kernel", error));
            }
        }
    }
}

struct Header {
    kind: u16,
    flags: u16,
    sequence: u32,
}

fn messages(mut bytes: &[u8]) -> impl Iterator<Item = (Header, &[u8])> {
    std::iter::from_fn(move || {
        let length = u32::from_ne_bytes(bytes.get(..4)?.try_into().ok()?) as usize;
        if length < HEADER || length > bytes.len() {
            return None;
        }
        let header = Header {
            kind: u16::from_ne_bytes([bytes[4], bytes[5]]),
            flags: u16::from_ne_bytes([bytes[6], bytes[7]]),
            sequence: u32::from_ne_bytes([bytes[8], bytes[9], bytes[10], bytes[11]]),
        };
        let body = &bytes[HEADER..length];
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or(&[]);
        Some((header, body))
    })
}

/// What an error message says: 0 is an acknowledgement; otherwise the number and, where given, the kernel's sentence.
fn verdict(header: &Header, body: &[u8], what: &str) -> Result<()> {
    let Some(code) = body.get(..4).and_then(|b| b.try_into().ok()).map(i32::from_ne_bytes) else {
        return Err(Error::tool(what, "a short answer"));
    };
    if code == 0 {
        return Ok(());
    }
    let mut error = Error::errno(what, -code);
    if header.flags & NLM_F_ACK_TLVS != 0 {
        let echoed = if header.flags & NLM_F_CAPPED != 0 {
            HEADER
        } else {
            body.get(4..8).and_then(crate::wire::u32_of).unwrap_or(0) as usize
        };
        if let Some(text) = body.get(4 + echoed.next_multiple_of(4)..).and_then(|b| crate::wire::find(b, 1)) {
            error.detail = format!("{} ({})", text_of(text), error.detail);
        }
    }
    Err(error)
}
