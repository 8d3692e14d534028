//! The bridge driver against the real kernel: real namespaces, real frames, real conversations. Every test makes an
//! underlay and guests of its own; nothing shows up in the machine's own namespace.

#![allow(unsafe_code)]

mod groups;
mod lab;
mod life;
mod routers;
mod services;
