//! The block storage service behind a gateway, with simulated hosts and doubles for what belongs to other services.

mod bad_input;
mod cloud;
mod hosts;
mod snapshots;
mod sharing;
mod volumes;
