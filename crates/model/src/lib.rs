//! What the services decide, as pure functions: the state of a server, the choice of a host, the reading of specs.
//!
//! No I/O, no clock, no store: everything comes in as values, so that each decision is a table in a test. Nothing here
//! knows how documents are kept or how answers look on the wire.

pub mod deadline;
pub mod extra_spec;
pub mod scheduler;
pub mod server;
pub mod volume;
