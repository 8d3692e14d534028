//! Why networks, ports, routers and floating addresses are as they are.

use crate::floatingips::FloatingIp;
use crate::ports::{self, Port};
use crate::routers::{self, Router};
use crate::standard::Look;
use crate::{Network, networks, status};
use base::{HostName, Result, Timestamp};
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
            "port" => port(reader, asking, id),
            "router" => router(reader, asking, id),
            "floatingip" => floating(reader, asking, id),
            _ => Ok(None),
        }
    }
}

fn explanation(kind: &'static str, id: &str, state: &str, why: impl Into<String>) -> Explanation {
    Explanation { kind, id: id.to_owned(), state: state.to_owned(), why: why.into(), ..Explanation::default() }
}

/// Something that a host is still to do. Nothing of the network has a deadline of its own: hosts go on trying, and a
/// server that waits for its ports has one.
fn waits(on: String, since: Timestamp, error: Option<String>) -> Option<Waiting> {
    Some(Waiting { waiting_on: on, since, deadline: None, attempts: 0, last_error: error })
}

fn named(asking: &Asking, host: &HostName) -> String {
    if asking.admin { format!("host {host}") } else { "its host".to_owned() }
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

fn port(reader: &mut Reader, asking: &Asking, id: &str) -> Result<Option<Explanation>> {
    let Some(stored) = reader.get::<Port>(id)?.filter(|port| asking.may_see(&port.project_id)) else {
        return Ok(None);
    };
    let port = &stored.doc;
    let seen = reader.doc::<ports::Observed>(id)?.filter(|seen| seen.host == port.host);
    let of_router = if port.is_router_owned() { reader.doc::<routers::Observed>(&port.device_id)? } else { None };
    let state = status::port(port, seen.as_ref(), of_router.is_some_and(|router| router.up)).as_str();
    let fault = seen.as_ref().and_then(|seen| seen.fault.clone());
    let why = match &fault {
        Some(fault) => format!("The host could not wire it: {fault}"),
        None if !port.admin_state_up => "Its owner has switched it off.".to_owned(),
        None if port.is_router_owned() => "It stands and falls with its router.".to_owned(),
        None if port.host.is_empty() => "Nothing that runs on a host uses it.".to_owned(),
        None if state == "ACTIVE" => "It is wired.".to_owned(),
        None => "It is not wired yet.".to_owned(),
    };
    let mut found = explanation("port", id, state, why);
    let wanted = port.admin_state_up && !port.host.is_empty() && state != "ACTIVE";
    found.waiting = waits(format!("{} to wire it", named(asking, &port.host)), stored.updated, fault).filter(|_| wanted);
    found.details.insert("device_id".into(), json!(port.device_id));
    if asking.admin {
        found.details.insert("host".into(), json!(port.host));
    }
    Ok(Some(found))
}

fn router(reader: &mut Reader, asking: &Asking, id: &str) -> Result<Option<Explanation>> {
    let Some(stored) = reader.get::<Router>(id)?.filter(|router| asking.may_see(&router.project_id)) else {
        return Ok(None);
    };
    let idle = stored.is_idle(reader)?;
    let seen = reader.doc::<routers::Observed>(id)?.filter(|seen| seen.host == stored.host);
    let state = status::router(idle, seen.as_ref());
    let fault = seen.as_ref().and_then(|seen| seen.fault.clone());
    let why = match &fault {
        Some(fault) => format!("The host could not bring it up: {fault}"),
        None if idle => "It joins nothing, so no host needs it.".to_owned(),
        None if stored.host.is_empty() => "No host has been found for it yet.".to_owned(),
        None if state == "ACTIVE" => "It is up on the first host, by name, that answered.".to_owned(),
        None => "Its host has not said yet that it is up. It is not moved: only a host that is proven stopped may be \
                 replaced."
            .to_owned(),
    };
    let mut found = explanation("router", id, state, why);
    let on = match stored.host.is_empty() {
        true => "any host that answers".to_owned(),
        false => format!("{} to bring it up", named(asking, &stored.host)),
    };
    found.waiting = waits(on, stored.updated, fault).filter(|_| state != "ACTIVE");
    if asking.admin {
        found.details.insert("host".into(), json!(stored.host));
    }
    Ok(Some(found))
}

fn floating(reader: &mut Reader, asking: &Asking, id: &str) -> Result<Option<Explanation>> {
    let Some(stored) = reader.get::<FloatingIp>(id)?.filter(|floating| asking.may_see(&floating.project_id)) else {
        return Ok(None);
    };
    let router = stored.router_id.clone();
    let seen = match &router {
        Some(router) => reader.doc::<routers::Observed>(router)?,
        None => None,
    };
    let state = status::floating(&stored, seen.as_ref());
    let why = match state {
        "ACTIVE" => "Its router translates it.",
        _ if stored.port_id.is_none() => "It is not associated with a port.",
        _ => "Its router has not said yet that it translates it.",
    };
    let mut found = explanation("floatingip", id, state, why);
    let on = format!("router {}", router.as_ref().map(|id| id.to_string()).unwrap_or_default());
    let error = seen.and_then(|seen| seen.fault);
    found.waiting = waits(on, stored.updated, error).filter(|_| stored.port_id.is_some() && state != "ACTIVE");
    found.details.insert("port_id".into(), json!(stored.port_id));
    Ok(Some(found))
}
