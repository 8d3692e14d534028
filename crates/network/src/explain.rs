//! Why networks, ports, routers and floating addresses are as they are.

use crate::floatingips::FloatingIp;
use crate::pending::{self, Seen};
use crate::ports::Port;
use crate::routers::Router;
use crate::standard::Look;
use crate::{Network, networks};
use base::{HostName, Result};
use contract::{Asking, Explain, Explanation, Waiting};
use serde_json::json;
use store::Reader;

impl Explain for Network {
    fn kinds(&self) -> &'static [&'static str] {
        &["network", "port", "router", "floatingip"]
    }

    fn explain(&self, reader: &mut Reader, asking: &Asking, kind: &str, id: &str) -> Result<Option<Explanation>> {
        match kind {
            "network" => network(reader, asking, id),
            "port" => port(self, reader, asking, id),
            "router" => router(self, reader, asking, id),
            "floatingip" => floating(self, reader, asking, id),
            _ => Ok(None),
        }
    }
}

fn explanation(kind: &'static str, id: &str, state: &str, why: impl Into<String>) -> Explanation {
    Explanation { kind, id: id.to_owned(), state: state.to_owned(), why: why.into(), ..Explanation::default() }
}

/// Adds what it waits for, and once the deadline has passed the fault with cause and cure.
fn add_waiting<S>(found: &mut Explanation, reader: &Reader, seen: &Seen<S>, on: String, cure: &str) {
    let Some(passing) = &seen.passing else { return };
    let error = seen.last_error();
    if passing.is_overdue(reader.clock()) {
        found.why = passing.fault(&on, error.as_deref(), cure);
        found.details.insert("fault".into(), json!({"message": found.why, "created": passing.deadline.iso_seconds()}));
    }
    found.waiting = Some(Waiting::of(passing, on, seen.attempts, error));
}

fn named(asking: &Asking, host: &HostName) -> String {
    if asking.admin { format!("host {host}") } else { "its host".to_owned() }
}

impl Network {
    /// The host as the asker may know it, with what is to be done there.
    fn awaited(&self, asking: &Asking, host: &HostName, what: &str) -> String {
        let name = named(asking, host);
        match self.silence(host) {
            _ if host.is_empty() => "any host that answers".to_owned(),
            Some(silence) => format!("{name}{silence}"),
            None => format!("{name} {what}"),
        }
    }

    fn cure(&self, host: &HostName, else_: &'static str) -> &'static str {
        match self.silence(host) {
            _ if host.is_empty() => "It goes on by itself when a host answers.",
            Some(_) => "It goes on by itself when its host answers again.",
            None => else_,
        }
    }
}

fn network(reader: &mut Reader, asking: &Asking, id: &str) -> Result<Option<Explanation>> {
    let Some(network) = reader.doc::<networks::Network>(id)? else { return Ok(None) };
    if !asking.may_see(&network.project_id) && !network.shared && !network.external {
        return Ok(None);
    }
    let subnets = network.subnets(reader)?.len();
    let why = match subnets {
        0 => "It has no subnet: servers cannot be booted on it.",
        _ => "It exists on each host that has a server on it.",
    };
    let mut found = explanation("network", id, "ACTIVE", why);
    found.details.insert("subnets".into(), json!(subnets));
    if asking.may_see(&network.project_id) {
        let ports: Vec<Port> = reader.by("network", id)?;
        found.details.insert("ports".into(), json!(ports.len()));
    }
    Ok(Some(found))
}

fn port(net: &Network, reader: &mut Reader, asking: &Asking, id: &str) -> Result<Option<Explanation>> {
    let Some(port) = reader.doc::<Port>(id)?.filter(|port| asking.may_see(&port.project_id)) else {
        return Ok(None);
    };
    let seen = pending::port(net, reader, &port)?;
    let state = seen.state.as_str();
    let why = match &seen.fault {
        Some(fault) => format!("The host could not wire it: {fault}"),
        None if !port.admin_state_up => "Its owner has switched it off.".to_owned(),
        None if port.is_router_owned() => "It stands and falls with its router.".to_owned(),
        None if port.host.is_empty() => "Nothing that runs on a host uses it.".to_owned(),
        None if state == "ACTIVE" => "It is wired.".to_owned(),
        None if port.attached.is_none() => "It is bound to a host, and no server uses it there.".to_owned(),
        None if seen.passing.is_none() => "Its server does not run.".to_owned(),
        None => "It is not wired yet.".to_owned(),
    };
    let mut found = explanation("port", id, state, why);
    if port.is_router_owned() {
        let cure = net.cure(&seen.host, "It is still tried and leaves ERROR with its router.");
        add_waiting(&mut found, reader, &seen, format!("router {} to come up", port.device_id), cure);
    } else {
        let on = net.awaited(asking, &seen.host, "to wire it");
        let cure = "It is still tried and leaves ERROR when it is wired; a hard reboot of its server wires it anew.";
        add_waiting(&mut found, reader, &seen, on, net.cure(&seen.host, cure));
    }
    found.details.insert("device_id".into(), json!(port.device_id));
    if asking.admin {
        found.details.insert("host".into(), json!(port.host));
    }
    Ok(Some(found))
}

fn router(net: &Network, reader: &mut Reader, asking: &Asking, id: &str) -> Result<Option<Explanation>> {
    let Some(router) = reader.doc::<Router>(id)?.filter(|router| asking.may_see(&router.project_id)) else {
        return Ok(None);
    };
    let seen = pending::router(net, reader, &router)?;
    let why = match &seen.fault {
        Some(fault) => format!("The host could not bring it up: {fault}"),
        None if !router.admin_state_up => "Its owner has switched it off.".to_owned(),
        None if router.is_idle(reader)? => "It joins nothing, so no host needs it.".to_owned(),
        None if router.host.is_empty() => "No host has been found for it yet.".to_owned(),
        None if seen.state == "ACTIVE" => "It is up on the first host, by name, that answered.".to_owned(),
        None => "Its host has not said yet that it is up. It is not moved: only a host that is proven stopped may be \
                 replaced."
            .to_owned(),
    };
    let mut found = explanation("router", id, seen.state, why);
    let on = net.awaited(asking, &router.host, "to bring it up");
    let cure = "It is still tried and leaves ERROR when it is up; switching it off and on again gives it the whole time.";
    add_waiting(&mut found, reader, &seen, on, net.cure(&router.host, cure));
    if asking.admin {
        found.details.insert("host".into(), json!(router.host));
    }
    Ok(Some(found))
}

fn floating(net: &Network, reader: &mut Reader, asking: &Asking, id: &str) -> Result<Option<Explanation>> {
    let Some(floating) = reader.doc::<FloatingIp>(id)?.filter(|floating| asking.may_see(&floating.project_id)) else {
        return Ok(None);
    };
    let seen = pending::floating(net, reader, &floating)?;
    let why = match seen.state {
        "ACTIVE" => "Its router translates it.",
        _ if floating.port_id.is_none() => "It is not associated with a port.",
        _ if seen.passing.is_none() => "Its router is switched off.",
        _ => "Its router has not said yet that it translates it.",
    };
    let mut found = explanation("floatingip", id, seen.state, why);
    let router = floating.router_id.as_ref().map(ToString::to_string).unwrap_or_default();
    let silence = net.silence(&seen.host).map(|silence| format!(" on {}{silence}", named(asking, &seen.host)));
    let on = format!("router {router}{} to translate it", silence.map(|it| it + ",").unwrap_or_default());
    let cure = "It is still tried and leaves ERROR when its router translates it; or associate it anew.";
    add_waiting(&mut found, reader, &seen, on, net.cure(&seen.host, cure));
    found.details.insert("port_id".into(), json!(floating.port_id));
    Ok(Some(found))
}
