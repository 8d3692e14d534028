//! Where a simulator stands beside the store: it slows operations down, refuses them, and ends processes between them.
//!
//! Absent in production, where it costs one look at an `Option` for each operation.

use crate::Error;
use crate::writer::Cause;
use std::future::Future;
use std::pin::Pin;

/// What a hook waits for before the operation goes on. An error is the operation's answer.
pub type Waiting<'a> = Pin<Box<dyn Future<Output = Result<(), Error>> + Send + 'a>>;

/// See [`crate::Options::hooks`]. A handle whose process is dead refuses everything from then on.
pub trait Hooks: Send + Sync {
    /// Before a write's closure runs; what is refused here has no effect.
    fn before_write<'a>(&'a self, cause: &'a Cause) -> Waiting<'a>;

    /// In the place of a commit that changes something: an error undoes it, as a full disk does. Never waits.
    fn commit(&self) -> Result<(), Error>;

    /// A write that changed something stands; its caller does not know yet, and with an error never will.
    fn after_write<'a>(&'a self, cause: &'a Cause) -> Waiting<'a>;

    /// Before a read.
    fn before_read(&self) -> Waiting<'_>;
}
