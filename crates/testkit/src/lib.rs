//! What tests need around them: requirements that are checked and said, and guards that clean up.
//!
//! Depends on no other crate of ours, so that every crate's tests can use it.

pub mod postgres;
pub mod require;

pub use postgres::Postgres;
pub use require::require;
