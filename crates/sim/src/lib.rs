//! The simulator: a whole control plane, simulated hosts, virtual time and one seed that decides everything.
//!
//! Owns the histories: what clients ask, what breaks and when, and what must hold whatever happens. A crash is the drop
//! of every object that the process had in memory and a new start from the store's bytes (control), the ledger and the
//! kernel (an agent), or the disks (a host). It must never reach into what it tests: it speaks the API as any client
//! does, reads the store's file as a stranger, and stands beside the store and the links through their public hooks.
//!
//! ```text
//!   seed ─> steps: a call, time, a fault that lies in wait ─> world: control <-links-> hosts ─> checks ─> trace
//!                                                               ^ dies, starts     ^ die, start
//! ```

pub mod calls;
mod check;
mod client;
mod clock;
mod control_life;
mod dice;
mod faults;
mod host_life;
mod jobs;
mod known;
mod life;
mod mirror;
mod objects;
mod promises;
mod resting;
mod run;
pub mod scale;
mod settled;
pub mod shrink;
pub mod tally;
mod template;
mod trace;
pub mod trouble;
mod world;

/// What a dead process hears from its store.
const DEAD: &str = "this process is dead";

pub use faults::{Kind, PAIRS, Point};
pub use run::{Plan, Verdict, run};
pub use template::Template;
