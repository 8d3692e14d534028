//! The control plane: services, loops and host sessions in one process.
//!
//! Owns what joins them: the gateway behind the public listener, the sessions of hosts with their views, the loops of
//! the engine. Must never touch a host's engine: what a host shall do is published as its view, and what it has done
//! comes back as a report.

mod audit;
mod claims;
mod cloud;
mod dry_run;
mod explain;
mod directory;
mod federation;
mod history;
mod hosts;
mod idempotency;
mod keys;
mod keystone;
mod ledger;
mod link;
mod offline;
mod own_api;
mod policies;
mod references;
mod serve;
mod sessions;
mod trash;
mod view;
mod watch;
mod watch_sight;

pub use audit::{Audit, Finding};
pub use cloud::{Bootstrap, Cloud, CloudOptions, HISTORY_RETENTION_S, ImageImport, TRASH_RETENTION_S};
/// How images are fetched from elsewhere, and where they are kept.
pub use image::{CacheOptions, PlaceOptions as ImagePlace, StoreOptions as ImageStore, objects, protection, web};
pub use model::deadline::{Deadlines, Operation};
pub use directory::Network as Directories;
pub use federation::Federation;
pub use identity::federation::saml::Settings as Saml;
pub use hosts::serve as serve_hosts;
pub use identity::compliance::Compliance;
pub use identity::Provider as TokenProvider;
pub use identity::token::methods::Order as MethodOrder;
pub use identity::login_limit::{Options as LoginLimit, Rate};
pub use identity::limit::Model as LimitModel;
pub use link::{Link, Observers, host};
pub use offline::Offline;
pub use policies::sample as policy_sample;
pub use serve::serve;
pub use sessions::{LEASE_MS, Sessions};
