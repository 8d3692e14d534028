//! The network service in one process: the real gateway, the real store in memory, and tokens that a test makes up.

mod basics;
mod bad_input;
mod cloud;
mod deadlines;
mod lists;
mod quota;
mod routing;
mod rules;
mod servers;
mod view;
