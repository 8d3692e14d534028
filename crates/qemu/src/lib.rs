//! QEMU as an engine: its command line, its process, its monitor, and the files it opens.
//!
//! Knows nothing of clouds, ledgers or views, and keeps nothing on disk by itself: the agent decides what shall be,
//! this crate does it. A guest never decides a file name, an argument or the size of a buffer in here: every file is
//! opened by the caller and inherited as a descriptor. A process started here belongs to nobody, so that it outlives
//! whoever started it; it is found again by its name ([`process::find`]).

pub mod accel;
pub mod block;
mod copy;
pub mod disk;
pub mod machine;
pub mod monitor;
pub mod overlay;
pub mod process;
pub mod qmp;

pub use accel::Accel;
pub use disk::{Disk, DiskSource, Format};
pub use machine::{Machine, NicDevice};
pub use monitor::{Monitor, RunState};
pub use process::{Launch, Process};
pub use qmp::Qmp;

/// What can go wrong when talking to QEMU.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{0}: {1}")]
    Io(&'static str, #[source] std::io::Error),
    #[error("the monitor is closed: QEMU has ended or somebody else holds the connection")]
    Closed,
    #[error("QEMU did not answer {0} in time")]
    Timeout(String),
    #[error("QEMU refused {command}: {class}: {desc}")]
    Refused { command: String, class: String, desc: String },
    #[error("QEMU said something unexpected: {0}")]
    Protocol(String),
}

pub type Result<T, E = Error> = std::result::Result<T, E>;
