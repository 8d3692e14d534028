//! The compute service from outside: through the gateway, over a store in memory, with simulated hosts pumped by hand.

mod cloud;
mod input;
mod lifecycle;
mod lists;
mod pending;
mod resources;
mod routes;
mod versions;
