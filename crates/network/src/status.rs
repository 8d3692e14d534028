//! What is shown of ports, routers and floating addresses: pure functions of what shall be and what was reported.

use crate::floatingips::FloatingIp;
use crate::ports::{FLOATING, Observed as PortObserved, Port, SERVICE};
use crate::routers::Observed as RouterObserved;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PortState {
    Active,
    Down,
    Build,
    Error,
    /// A port that nobody wires: it only holds an address.
    NotApplicable,
}

impl PortState {
    pub fn as_str(self) -> &'static str {
        match self {
            PortState::Active => "ACTIVE",
            PortState::Down => "DOWN",
            PortState::Build => "BUILD",
            PortState::Error => "ERROR",
            PortState::NotApplicable => "N/A",
        }
    }
}

/// `observed` is what the host reports to which the port is bound now; `router_up` whether the router of a router's
/// port stands.
pub fn port(port: &Port, observed: Option<&PortObserved>, router_up: bool) -> PortState {
    let wired = |up: bool| match (port.admin_state_up, up) {
        (false, _) => PortState::Down,
        (true, true) => PortState::Active,
        (true, false) => PortState::Down,
    };
    match port.device_owner.as_str() {
        FLOATING => PortState::NotApplicable,
        // Served on every host that has a guest of the network, so never bound to one; OVN shows it like this, too.
        SERVICE => PortState::Down,
        _ if port.is_router_owned() => wired(router_up),
        _ if port.host.is_empty() || !port.admin_state_up => PortState::Down,
        _ => match observed {
            None => PortState::Build,
            Some(observed) if observed.fault.is_some() => PortState::Error,
            Some(observed) => wired(observed.up),
        },
    }
}

/// A router that joins nothing has nothing to wait for.
pub fn router(idle: bool, observed: Option<&RouterObserved>) -> &'static str {
    match observed {
        _ if idle => "ACTIVE",
        None => "ALLOCATING",
        Some(observed) if observed.fault.is_some() => "ERROR",
        Some(observed) if observed.up => "ACTIVE",
        Some(_) => "ALLOCATING",
    }
}

/// `observed` is what is reported of the floating address's router.
pub fn floating(floating: &FloatingIp, observed: Option<&RouterObserved>) -> &'static str {
    if floating.port_id.is_none() {
        return "DOWN";
    }
    match observed {
        Some(observed) if observed.floating.contains(&floating.id) => "ACTIVE",
        Some(observed) if observed.fault.is_some() => "ERROR",
        _ => "DOWN",
    }
}
