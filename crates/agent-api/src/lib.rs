//! What the control plane asks of a host, and what a host says back.
//!
//! Control never calls a host: it publishes a *view* (every object the host shall realise) and *orders* (what must be
//! answered at once). The host pulls the view through [`ControlLink`], hands it to its [`HostAgent`], and reports what
//! it observes. Real hosts and simulated ones implement the same [`HostAgent`].
//!
//! The types are the wire format (JSON). An agent treats each of them as hostile input and a control process treats
//! each report likewise: see `check` on the types.

pub mod disk;
pub mod guest;
pub mod host;
pub mod network;
pub mod view;
pub mod volume;

pub use disk::{receive_disk, send_disk};
pub use guest::*;
pub use host::*;
pub use network::*;
pub use view::*;
pub use volume::*;
