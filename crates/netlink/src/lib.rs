//! The kernel's network, in building blocks that cannot be misused: namespaces, links, addresses, routes, forwarding
//! entries, sysctls, connection tracking, nftables, and the sockets and taps that must be opened inside a namespace.
//!
//! Everything is typed and blocking; callers run it on a thread of their own. The crate knows nothing of clouds: names
//! are chosen by who calls. It never changes the namespace of a thread that it did not start itself, so that no caller
//! is ever left in the wrong one.
#![allow(unsafe_code)]

pub mod conntrack;
pub mod link;
pub mod nft;
pub mod ns;
pub mod open;
pub mod route;
mod socket;
mod wire;

pub use link::{BridgeOptions, Link, LinkKind, LinkSet, NewLink};
pub use ns::Netns;
pub use route::{Address, FdbEntry, Route};

use std::fmt;

/// What the kernel, or one of its tools, refused, and in the middle of what.
#[derive(Debug, Clone)]
pub struct Error {
    pub what: String,
    /// The system's error number; 0 where a tool failed instead.
    pub errno: i32,
    pub detail: String,
}

pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    pub fn os(what: impl Into<String>, error: std::io::Error) -> Error {
        Error { what: what.into(), errno: error.raw_os_error().unwrap_or(0), detail: error.to_string() }
    }

    pub fn errno(what: impl Into<String>, errno: i32) -> Error {
        Error::os(what, std::io::Error::from_raw_os_error(errno))
    }

    pub fn last(what: impl Into<String>) -> Error {
        Error::os(what, std::io::Error::last_os_error())
    }

    pub fn tool(what: impl Into<String>, detail: impl Into<String>) -> Error {
        Error { what: what.into(), errno: 0, detail: detail.into() }
    }

    /// The thing is there already.
    pub fn exists(&self) -> bool {
        self.errno == libc::EEXIST
    }

    /// The thing is not there (any more).
    pub fn absent(&self) -> bool {
        matches!(self.errno, libc::ENODEV | libc::ENOENT | libc::ESRCH | libc::EADDRNOTAVAIL)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.what, self.detail)
    }
}
impl std::error::Error for Error {}

impl From<nix::errno::Errno> for Error {
    fn from(errno: nix::errno::Errno) -> Error {
        Error::errno("system call", errno as i32)
    }
}

/// A MAC address in its binary form; none where the text is not one.
pub fn mac(text: &str) -> Option<[u8; 6]> {
    let mut bytes = [0u8; 6];
    let mut parts = text.split(':');
    for byte in &mut bytes {
        let part = parts.next()?;
        if part.len() != 2 || !part.bytes().all(|b| b.is_ascii_hexdigit()) {
            return None;
        }
        *byte = u8::from_str_radix(part, 16).ok()?;
    }
    parts.next().is_none().then_some(bytes)
}

/// A MAC address as the kernel's tools write it.
pub fn mac_text(mac: &[u8]) -> String {
    mac.iter().map(|b| format!("{b:02x}")).collect::<Vec<_>>().join(":")
}
