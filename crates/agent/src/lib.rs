//! The host's side of a cloud: pulls the view of its host from control, makes guests and networks so, and reports.
//!
//! One actor per guest ([`guest`]), one per volume ([`volumes`]), and one keeper of networks behind [`Wiring`]. What control asked for is in a ledger
//! on disk before anything is done, everything done may be repeated, and guests outlive this process: nothing here
//! stops a guest because the agent stops. It never reaches the store or a service; all it knows comes through
//! [`agent_api::ControlLink`] and is treated as hostile.

pub mod agent;
mod board;
mod cgroup;
mod fault;
mod files;
mod guest;
mod images;
pub mod inventory;
mod iso;
pub mod ksm;
mod ledger;
pub mod link;
pub mod metadata;
pub mod net;
pub mod netd;
pub mod offline;
pub mod run;
mod sandbox;
mod scope;
mod volumes;
pub mod wiring;

pub use agent::{Agent, Options};
pub use link::HttpLink;
pub use run::run;
pub use wiring::{NoWiring, Wiring};
