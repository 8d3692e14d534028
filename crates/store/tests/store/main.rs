//! The store's behaviour, one body for every engine.

mod bodies;
mod things;
