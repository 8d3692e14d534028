//! The bytes of images: taken in, checked, kept, given out, removed.
//!
//! An upload is a file of its own until it is whole, on disk and accepted; only then does one commit make the image
//! active. Bytes for a store that is no folder come into the folder first, and are put there once they are accepted
//! (see [`remote`]). Whatever breaks before leaves the image `queued` and no bytes: the handler removes them, or, where the
//! process died, the sweeper. Nothing here opens an image with anything but [`format`].

mod convert;
mod download;
mod fetch;
mod files;
mod intake;
pub mod objects;
mod receive;
pub mod remote;
mod sink;
mod stores;
mod strays;
mod sweep;
mod transfer;

pub use convert::staged_fits;
pub use download::download;
pub use fetch::Brought;
pub use files::Files;
pub use intake::{After, SnapshotIntake, begin_for_job, carry_for_job};
pub use receive::Underway;
pub use remote::{ObjectSweeper, settle};
pub use stores::{Place, PlaceOptions, Store, StoreOptions, Stores};
pub use strays::Stray;
pub use sweep::Sweeper;
pub use transfer::{SENDER, judge, may_import, reachable, stage, upload};
