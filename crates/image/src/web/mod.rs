//! Fetching bytes that a user points to by a URL.
//!
//! The service runs where tenants must not reach: what it fetches for them could be the cloud's own interfaces, the
//! metadata of the machine it runs on, or a neighbour's database. So [`rules`] decide about every hop, redirects
//! included, and the connection goes to an address that was itself looked at: a name is resolved once, and never again
//! between the look and the connection.

pub(crate) mod client;
pub mod rules;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod tls_tests;

pub use client::Client;
pub use rules::Rules;

use async_trait::async_trait;
use base::Result;
use rest::Body;

/// What a server answered with success.
pub struct Fetched {
    /// As announced.
    pub size_bytes: Option<u64>,
    pub body: Body,
}

/// Where bytes come from: the network, or what the simulator gives.
#[async_trait]
pub trait Web: Send + Sync + 'static {
    /// The bytes behind a URL.
    ///
    /// # Errors
    /// Forbidden where a rule refuses a hop; NotFound where the server has no such bytes; Unavailable where another attempt may
    /// do better.
    async fn get(&self, url: &str, rules: &Rules) -> Result<Fetched>;
}

/// Nothing can be reached: for the simulator, and for services that only look at the store.
pub struct Unreachable;

#[async_trait]
impl Web for Unreachable {
    async fn get(&self, url: &str, _: &Rules) -> Result<Fetched> {
        Err(base::Fault::invalid(format!("{url} cannot be reached from here.")))
    }
}
