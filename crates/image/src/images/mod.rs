//! Images as the API knows them: created, listed, shown, patched, tagged, deactivated, deleted.
//!
//! The bytes are the business of [`crate::data`]. Rules: an image that a caller may not see does not exist for it
//! (404); what it may see and not change is refused (403); a protected image is never deleted.

mod list;
pub mod ops;
mod patch;
pub mod wire;

pub use ops::{find, visible};
pub use wire::within_limits;
