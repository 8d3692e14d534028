//! What guests need from networks, so that either side can be tested without the other.

use agent_api::{AgentFault, PortObserved, RouterObserved, ViewDelta};
use async_trait::async_trait;
use base::PortId;
use std::os::fd::OwnedFd;

/// The keeper of this host's networks.
#[async_trait]
pub trait Wiring: Send + Sync + 'static {
    /// Makes sure that the port's network, rules and tap exist; a descriptor of the tap, opened with IFF_VNET_HDR
    /// inside the network's namespace. Repeatable; a running guest's tap is not disturbed.
    async fn open_tap(&self, port: &PortId) -> Result<OwnedFd, AgentFault>;

    /// After QEMU holds the tap: brings the link into the bridge with its rules active; answers when the port is
    /// wired. Repeatable: also called when a running guest is adopted.
    async fn wire(&self, port: &PortId) -> Result<(), AgentFault>;

    /// The guest is gone: the tap goes too. Repeatable, also for a port that nobody knows.
    async fn unwire(&self, port: &PortId);

    /// Takes over a step of the view (networks, ports, routers, groups, address sets). Guests in it are not its to
    /// make; it reads their metadata.
    async fn apply(&self, delta: &ViewDelta);

    /// Waits for observations of ports and routers; at once and with all of them when `whole`. Cancelling the wait
    /// loses nothing: what was not handed out is handed out by the next call.
    async fn observe(&self, whole: bool) -> (Vec<PortObserved>, Vec<RouterObserved>);
}

/// For hosts whose guests have no NICs: refuses every port.
pub struct NoWiring;

#[async_trait]
impl Wiring for NoWiring {
    async fn open_tap(&self, _port: &PortId) -> Result<OwnedFd, AgentFault> {
        Err(AgentFault {
            message: "This host has no networks. Choose a host that has, or a server without ports.".into(),
            detail: "the agent runs without a network driver".into(),
            retried: false,
        })
    }

    async fn wire(&self, _port: &PortId) -> Result<(), AgentFault> {
        Ok(())
    }

    async fn unwire(&self, _port: &PortId) {}

    async fn apply(&self, _delta: &ViewDelta) {}

    async fn observe(&self, whole: bool) -> (Vec<PortObserved>, Vec<RouterObserved>) {
        if !whole {
            std::future::pending::<()>().await;
        }
        (Vec::new(), Vec::new())
    }
}
