//! How services use each other inside one transaction.
//!
//! A service never depends on another service: it depends on the small traits here, which `control` fills in. Methods
//! that take `&mut Tx` change documents of the service that implements them, in the caller's transaction; methods that
//! take `&mut Reader` only look. None of them may wait for anything, and none may do anything outside the store.

pub mod explain;
pub mod guests;
pub mod hosts;
pub mod images;
pub mod limits;
pub mod ports;
pub mod projector;
pub mod recount;
pub mod snapshots;
pub mod volumes;

pub use explain::{Asking, Explain, Explanation, Waiting};
pub use guests::{Guests, Running};
pub use hosts::*;
pub use images::*;
pub use limits::*;
pub use ports::*;
pub use projector::*;
pub use recount::{Counts, Miscount, Recount};
pub use snapshots::{Disk, Disks, InTx, Intake, NewSnapshot, Shape, is_in_vain};
pub use volumes::*;
pub use rest::{Caller, Tokens};
