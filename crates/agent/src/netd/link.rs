//! What the agent and netd say to each other: one question (at most 4096 bytes of JSON and at most one open file), one
//! answer. Larger things travel as a sealed memory file.

use agent_api::{InstanceMetadata, NetworkSpec, PortSpec};
use base::{NetworkId, ServerId};
use nix::sys::memfd::{MFdFlags, memfd_create};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

/// Raised with every change of what is said here: an agent replaces a netd of another version.
pub const VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), "/1");
const BLOB_MOST: u64 = 64 << 20;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "ask", rename_all = "snake_case")]
pub enum Ask {
    Hello,
    /// With a [`NetworkView`] as a file.
    Network,
    /// With a socket.
    Socket {
        network: NetworkId,
        role: Role,
    },
    /// With a [`GuestView`] as a file.
    Guest,
    /// The network is gone: its sockets would keep its namespace alive.
    Forget {
        network: NetworkId,
    },
    /// With a [`Keep`] as a file: whatever is not named in it ends.
    Keep,
    Quit,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    Dhcp,
    Frames,
    Metadata,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Answer {
    pub fault: Option<String>,
    #[serde(default)]
    pub version: String,
    #[serde(default)]
    pub pid: u32,
}

/// A network as it is served.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NetworkView {
    pub spec: NetworkSpec,
    /// The MAC of the bridge, from which frames are sent.
    pub mac: [u8; 6],
    pub ports: Vec<PortSpec>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GuestView {
    pub id: ServerId,
    pub metadata: InstanceMetadata,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Keep {
    pub networks: Vec<NetworkId>,
    pub guests: Vec<ServerId>,
}

/// The agent's end.
pub struct Link {
    stream: UnixStream,
    pub version: String,
}

impl Link {
    pub fn connect(socket: &Path) -> io::Result<Link> {
        let stream = unixfd::connect(socket)?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        stream.set_write_timeout(Some(Duration::from_secs(5)))?;
        let mut link = Link { stream, version: String::new() };
        link.hello()?;
        Ok(link)
    }

    /// Answers netd's process id.
    pub fn hello(&mut self) -> io::Result<u32> {
        let answer = self.ask(&Ask::Hello, None)?;
        self.version = answer.version;
        Ok(answer.pid)
    }

    pub fn ask(&mut self, ask: &Ask, file: Option<BorrowedFd<'_>>) -> io::Result<Answer> {
        unixfd::send_fd(&self.stream, &serde_json::to_vec(ask)?, file)?;
        let (bytes, _) = unixfd::recv_fd(&self.stream)?;
        if bytes.is_empty() {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "netd is gone"));
        }
        let answer: Answer = serde_json::from_slice(&bytes)?;
        match answer.fault {
            Some(fault) => Err(io::Error::other(fault)),
            None => Ok(answer),
        }
    }

    pub fn ask_with<T: Serialize>(&mut self, ask: &Ask, what: &T) -> io::Result<Answer> {
        let file = blob(what)?;
        self.ask(ask, Some(file.as_fd()))
    }

    /// The connection, for whoever wants to know when it ends.
    pub fn stream(&self) -> &UnixStream {
        &self.stream
    }

    pub fn wait_for_end(&self, patience: Duration) {
        let _ = self.stream.set_read_timeout(Some(patience));
        let _ = (&self.stream).read(&mut [0u8; 1]);
    }
}

/// A value as a memory file.
fn blob<T: Serialize>(what: &T) -> io::Result<OwnedFd> {
    let fd = memfd_create(c"view", MFdFlags::MFD_CLOEXEC)?;
    let mut file = File::from(fd);
    file.write_all(&serde_json::to_vec(what)?)?;
    file.rewind()?;
    Ok(file.into())
}

pub fn read_blob<T: DeserializeOwned>(fd: OwnedFd) -> io::Result<T> {
    let mut bytes = Vec::new();
    let mut file = File::from(fd);
    file.rewind()?;
    file.take(BLOB_MOST).read_to_end(&mut bytes)?;
    Ok(serde_json::from_slice(&bytes)?)
}
