//! The bytes of images: taken in, checked, kept, given out, removed.
//!
//! An upload is a file of its own until it is whole, on disk and accepted; only then does one commit make the image
//! active. Whatever breaks before leaves the image `queued` and no bytes: the handler removes them, or, where the
//! process died, the sweeper. Nothing here opens an image with anything but [`format`].

mod convert;
mod download;
mod files;
mod intake;
mod receive;
mod sink;
mod stores;
mod sweep;
mod transfer;

pub use convert::staged_fits;
pub use download::{download, whole};
pub use files::Files;

pub use intake::{After, SnapshotIntake, begin_for_job, carry_for_job};
pub use receive::Underway;
pub use stores::{Store, Stores};
pub use sweep::Sweeper;
pub use transfer::{SENDER, judge, may_import, stage, upload};
