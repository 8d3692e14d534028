//! What is shown of ports, routers and floating addresses: pure functions of what shall be and what was reported.

use crate::floatingips::FloatingIp;
use crate::ports::{FLOATING, Observed as PortObserved, Port, SERVICE};
use crate::routers::Observed as RouterObserved;

/// Whether something has to come about, and whether its deadline has passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// It rests: nothing has to.
    No,
    On,
    Over,
}

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
pub fn port(port: &Port, observed: Option<&PortObserved>, router_up: bool, wait: Wait) -> PortState {
    let wired = |up: bool| match (port.admin_state_up, up) {
        (false, _) => PortState::Down,
        (true, true) => PortState::Active,
        (true, false) if wait == Wait::Over => PortState::Error,
        (true, false) => PortState::Down,
    };
    match port.device_owner.as_str() {
        FLOATING => PortState::NotApplicable,
        // Served on every host that has a guest of the network, so never bound to one; OVN shows it like this, too.
        SERVICE => PortState::Down,
        _ if port.is_router_owned() => wired(router_up),
        _ if port.host.is_empty() || !port.admin_state_up => PortState::Down,
        _ => match observed {
            None if wait == Wait::On => PortState::Build,
            Some(observed) if observed.fault.is_some() => PortState::Error,
            other => wired(other.is_some_and(|observed| observed.up)),
        },
    }
}

/// A router that joins nothing, or is switched off (`idle`), has nothing to wait for.
pub fn router(idle: bool, observed: Option<&RouterObserved>, wait: Wait) -> &'static str {
    match observed {
        _ if idle => "ACTIVE",
        Some(observed) if observed.fault.is_some() => "ERROR",
        Some(observed) if observed.up => "ACTIVE",
        _ if wait == Wait::Over => "ERROR",
        _ => "ALLOCATING",
    }
}

/// `observed` is what is reported of the floating address's router.
pub fn floating(floating: &FloatingIp, observed: Option<&RouterObserved>, wait: Wait) -> &'static str {
    if floating.port_id.is_none() {
        return "DOWN";
    }
    match observed {
        Some(observed) if observed.floating.contains(&floating.id) => "ACTIVE",
        Some(observed) if observed.fault.is_some() => "ERROR",
        _ if wait == Wait::Over => "ERROR",
        _ => "DOWN",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ports::{GATEWAY, INTERFACE};
    use base::{HostName, PortId};
    use serde_json::json;

    fn a_port(owner: &str, host: &str, up: bool) -> Port {
        let port = json!({
            "id": "p", "project_id": "", "network_id": "n", "name": "", "admin_state_up": up, "mac": "", "fixed_ips": [],
            "device_id": "", "device_owner": owner, "security_groups": [], "port_security": true, "address_pairs": [],
            "dhcp_options": [], "host": host, "vnic_type": "normal", "profile": {}, "charged": false, "attached": null,
            "standard": {"description": "", "tags": [], "revision": 1, "created_at": 0, "updated_at": 0}
        });
        serde_json::from_value(port).unwrap()
    }

    #[test]
    fn ports() {
        use PortState::*;
        let seen = |up, fault: Option<&str>| Some(PortObserved { id: PortId::new("p"), host: HostName::new("h"), up, fault: fault.map(str::to_owned), down_at: None });
        use Wait::*;
        for (owner, host, admin_up, observed, router_up, wait, expected) in [
            ("", "", true, None, false, No, Down),
            ("compute:nova", "", true, None, false, No, Down),
            ("compute:nova", "h", true, None, false, On, Build),
            ("compute:nova", "h", true, None, false, Over, Error),
            ("compute:nova", "h", true, None, false, No, Down),
            ("compute:nova", "h", true, seen(true, None), false, No, Active),
            ("compute:nova", "h", true, seen(false, None), false, No, Down),
            ("compute:nova", "h", true, seen(false, None), false, On, Down),
            ("compute:nova", "h", true, seen(false, None), false, Over, Error),
            ("compute:nova", "h", true, seen(false, Some("no tap")), false, On, Error),
            ("compute:nova", "h", false, seen(true, None), false, No, Down),
            ("compute:nova", "h", false, None, false, No, Down),
            (INTERFACE, "", true, None, true, No, Active),
            (INTERFACE, "", true, None, false, On, Down),
            (INTERFACE, "", true, None, false, Over, Error),
            (GATEWAY, "", true, None, true, No, Active),
            (GATEWAY, "", false, None, true, No, Down),
            (FLOATING, "", true, None, true, No, NotApplicable),
            (SERVICE, "", true, None, true, No, Down),
        ] {
            let state = port(&a_port(owner, host, admin_up), observed.as_ref(), router_up, wait);
            assert_eq!(state, expected, "{owner} on {host:?}, up {admin_up}, {observed:?}, router {router_up}, {wait:?}");
        }
    }

    #[test]
    fn routers_and_floating_addresses() {
        let seen = |up, fault: Option<&str>, floating: &[&str]| {
            let floating = floating.iter().map(|id| (*id).into()).collect();
            let fault = fault.map(str::to_owned);
            let (host, missing) = ("h".into(), Default::default());
            Some(RouterObserved { id: "r".into(), host, up, floating, fault, down_at: None, missing, attempts: 0 })
        };
        for (idle, observed, wait, expected) in [
            (true, None, Wait::No, "ACTIVE"),
            (false, None, Wait::On, "ALLOCATING"),
            (false, None, Wait::Over, "ERROR"),
            (false, seen(false, None, &[]), Wait::On, "ALLOCATING"),
            (false, seen(false, None, &[]), Wait::Over, "ERROR"),
            (false, seen(true, None, &[]), Wait::No, "ACTIVE"),
            (false, seen(true, Some("x"), &[]), Wait::No, "ERROR"),
            (true, seen(false, Some("x"), &[]), Wait::No, "ACTIVE"),
        ] {
            assert_eq!(router(idle, observed.as_ref(), wait), expected, "{idle} {observed:?} {wait:?}");
        }
        for (port, observed, wait, expected) in [
            (None, None, Wait::No, "DOWN"),
            (None, seen(true, None, &["f"]), Wait::No, "DOWN"),
            (Some("p"), None, Wait::On, "DOWN"),
            (Some("p"), None, Wait::Over, "ERROR"),
            (Some("p"), seen(true, None, &["g"]), Wait::On, "DOWN"),
            (Some("p"), seen(true, None, &["g"]), Wait::Over, "ERROR"),
            (Some("p"), seen(true, None, &["f"]), Wait::No, "ACTIVE"),
            (Some("p"), seen(false, Some("x"), &[]), Wait::On, "ERROR"),
        ] {
            let one = json!({
                "id": "f", "project_id": "", "network_id": "n", "address": "1.2.3.4", "holder": "h", "port_id": port,
                "fixed_ip_address": null, "router_id": null,
                "standard": {"description": "", "tags": [], "revision": 1, "created_at": 0, "updated_at": 0}
            });
            let state = floating(&serde_json::from_value(one).unwrap(), observed.as_ref(), wait);
            assert_eq!(state, expected, "{port:?} {observed:?} {wait:?}");
        }
    }
}
