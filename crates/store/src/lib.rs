//! The store: typed documents with revisions, indexes, unique keys, history, a ledger, a watch, dry runs and the past.
//!
//! Everything that must survive is written here, in one transaction with everything that belongs to it. The tables and
//! statements are the same on SQLite and PostgreSQL, and so is the behaviour: one writer at a time, one revision per
//! transaction, group commit.
//!
//! - A [`Document`] names its kind, its indexes and its unique keys.
//! - [`Store::write`] runs a synchronous closure in the one write transaction. It may run the closure again, so a
//!   closure touches nothing but the [`Tx`] and what it owns.
//! - [`Store::read`] runs a closure on one consistent snapshot.
//! - [`scope::run`] makes everything that a future does with the store a dry run, or a look at the past.
//! - [`Store::watch`] tells of every committed revision in order.
//!
//! ```
//! # use store::{Cause, Document, Error, Keys, Options, Query, Store};
//! #[derive(Clone, serde::Serialize, serde::Deserialize)]
//! struct Network { id: String, project_id: String, name: String }
//!
//! impl Document for Network {
//!     const KIND: &'static str = "network";
//!     fn id(&self) -> &str { &self.id }
//!     fn project_id(&self) -> &str { &self.project_id }
//!     fn keys(&self, keys: &mut Keys) { keys.unique("name", [&self.project_id, &self.name]) }
//! }
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> store::Result<()> {
//! let store = Store::open(Options::memory(), base::Env::system()).await?;
//! let created = store.write(Cause::new("a-user", "req-1", "network.create"), |tx| {
//!     tx.charge("p1", "networks", 1, Some(10))?;
//!     let network = Network { id: tx.uuid(), project_id: "p1".into(), name: "blue".into() };
//!     Ok(tx.create(&network)?)
//! }).await?;
//! assert_eq!(store.list::<Network>(Query::project("p1")).await?.len(), 1);
//! let again = store.write(Cause::default(), move |tx| Ok(tx.create(&Network { id: tx.uuid(), ..created.value.doc.clone() })?));
//! assert!(matches!(Error::of(&again.await.err().unwrap()), Some(Error::Taken { name: "name", .. })));
//! # Ok(()) }
//! ```
//!
//! What this crate must never do: decide anything about clouds, wait for anything but its database inside a
//! transaction, let a secret (see [`Document::redact`]) into history, watch or dry runs, or write one unsealed
//! ([`Secret`]).

mod asking;
mod buffer;
mod check;
mod conn;
mod document;
mod error;
#[cfg(test)]
mod faults;
mod follower;
mod hooks;
mod ledger;
mod maintain;
mod moment;
mod moved;
mod past;
mod postgres;
mod query;
mod reader;
mod schema;
mod secret;
pub mod scope;
mod sql;
mod sqlite;
mod store;
mod trash;
mod tx;
mod undo;
mod watch;
mod writer;

pub use buffer::Difference;
pub use check::{Flaw, What, check};
pub use document::{Costs, Document, Keys, Kind, Made, Needs, Rev, Stored};
pub use error::Error;
pub use follower::Follower;
pub use hooks::{Hooks, Waiting};
pub use ledger::Usage;
pub use maintain::{Info, Trimmed};
pub use moment::{AsOf, Moment};
pub use moved::Moved;
pub use past::Version;
pub use query::Query;
pub use reader::Reader;
pub use scope::Scope;
pub use secret::{Secret, Secrets};
pub use store::{Options, Store};
pub use trash::{Charged, Trash, TrashedDocument};
pub use tx::{Charge, Touched, Tx};
pub use undo::{Collision, Held, PastRequest, Reversal, UndoPlan, UndoServices, Undone};
pub use watch::{Change, Event, Revision, Watch};
pub use writer::{Cause, Committed};

/// The kinds that the store itself keeps.
pub fn kinds() -> Vec<Kind> {
    vec![Kind::of::<Trash>(), Kind::of::<Undone>()]
}

/// What the methods of [`Store`] return: a fault that can be shown.
pub type Result<T, E = base::Fault> = std::result::Result<T, E>;
