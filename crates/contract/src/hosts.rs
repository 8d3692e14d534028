//! Hosts as services see them. Leases live in the memory of the control process that holds the sessions.

use base::{HostName, ServerId, Timestamp};

pub trait Hosts: Send + Sync {
    /// The hosts whose sessions are alive, in the order of their names.
    fn alive(&self) -> Vec<HostName>;
    fn is_alive(&self, host: &HostName) -> bool;
    /// When the host was last heard of; none where this process has never heard of it.
    fn last_seen(&self, _host: &HostName) -> Option<Timestamp> {
        None
    }
}

/// What is said after the name of a host that others wait for: none while it answers.
pub fn silence(hosts: &dyn Hosts, host: &HostName) -> Option<String> {
    let since = || hosts.last_seen(host).map(|at| format!(" since {}", at.iso_seconds())).unwrap_or_default();
    (!hosts.is_alive(host)).then(|| format!(", which has not answered{}", since()))
}

/// Asks a host for something that must be answered at once. Filled in by `control`.
#[async_trait::async_trait]
pub trait Consoles: Send + Sync {
    /// The last `bytes` bytes of a server's console log.
    async fn console_log(&self, host: &HostName, server: &ServerId, bytes: u64) -> base::Result<Vec<u8>>;
    /// Opens a stream to the server's VNC, or to its serial console.
    async fn console(&self, host: &HostName, server: &ServerId, serial: bool) -> base::Result<agent_api::BoxStream>;
}
