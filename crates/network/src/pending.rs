//! Ports, routers and floating addresses on their way: since when, until when, and what is said afterwards.
//!
//! Nothing is written when a deadline passes: what is shown follows from what shall be, what hosts report, and the
//! time. `wanted_at` stands in the document since the commit that asks something of a host, and what went down notes
//! when it did; so it survives whatever dies, and ends by itself when a host says that all is well.

use crate::Network;
use crate::floatingips::FloatingIp;
use crate::ports::Port;
use crate::routers::Router;
use crate::standard::Look;
use crate::status::{self, PortState, Wait};
use base::{HostName, Result, Timestamp};
use contract::Running;
use model::deadline::{Operation, Passing};
use store::Reader;

/// What is shown of an object, and what stands in its way.
#[derive(Clone, Debug)]
pub struct Seen<S> {
    pub state: S,
    /// None: it rests.
    pub passing: Option<Passing>,
    /// Where it has to come about; empty: nowhere yet.
    pub host: HostName,
    /// Fruitless attempts, as of their last doubling.
    pub attempts: u32,
    /// What the host said against it.
    pub fault: Option<String>,
    /// What is said against that on which it depends.
    pub beneath: Option<String>,
}

impl<S> Seen<S> {
    pub fn last_error(&self) -> Option<String> {
        self.fault.clone().or_else(|| self.beneath.clone())
    }
}

fn wait(reader: &Reader, passing: Option<&Passing>) -> Wait {
    match passing {
        None => Wait::No,
        Some(passing) if passing.is_overdue(reader.clock()) => Wait::Over,
        Some(_) => Wait::On,
    }
}

pub fn port(net: &Network, reader: &mut Reader, port: &Port) -> Result<Seen<PortState>> {
    if port.is_router_owned() {
        return of_router(net, reader, port);
    }
    let seen = port.observed(reader)?;
    let up = seen.as_ref().is_some_and(|seen| seen.up);
    let server = port.attached.as_ref().filter(|_| port.admin_state_up && !port.host.is_empty() && !up);
    let running = match server {
        Some(attached) => net.running(reader, &attached.server)?,
        None => None,
    };
    let passing = running.as_ref().map(|running| {
        let wanted = port.wanted_at.unwrap_or(port.standard.updated_at).max(running.since);
        let down = seen.as_ref().and_then(|seen| seen.down_at);
        net.options.deadlines.passing(Operation::Port, wanted.max(down.unwrap_or_default()))
    });
    let state = status::port(port, seen.as_ref(), false, wait(reader, passing.as_ref()));
    let fault = seen.and_then(|seen| seen.fault);
    let running = running.unwrap_or_default();
    let (host, attempts, beneath) = (port.host.clone(), running.attempts, running.last_error);
    Ok(Seen { state, passing, host, attempts, fault, beneath })
}

/// It stands and falls with its router. Where that is switched off its ports are where they shall be, as in Neutron.
fn of_router(net: &Network, reader: &mut Reader, port: &Port) -> Result<Seen<PortState>> {
    let (mut up, mut passing, mut beneath, mut host) = (false, None, None, HostName::default());
    if let Some(found) = reader.doc::<Router>(&port.device_id)? {
        let seen = found.observed(reader)?;
        up = !found.admin_state_up || seen.is_some_and(|seen| seen.up);
        let of = router(net, reader, &found)?;
        passing = of.passing.filter(|_| port.admin_state_up && !up);
        beneath = of.last_error();
        host = of.host;
    }
    let state = status::port(port, None, up, wait(reader, passing.as_ref()));
    Ok(Seen { state, passing, host, attempts: 0, fault: None, beneath })
}

pub fn router(net: &Network, reader: &mut Reader, router: &Router) -> Result<Seen<&'static str>> {
    let rests = router.rests(reader)?;
    let seen = router.observed(reader)?;
    let up = seen.as_ref().is_some_and(|seen| seen.up);
    let passing = (!rests && !up).then(|| {
        let wanted = router.wanted_at.unwrap_or(router.standard.updated_at);
        let down = seen.as_ref().and_then(|seen| seen.down_at);
        net.options.deadlines.passing(Operation::Router, wanted.max(down.unwrap_or_default()))
    });
    let state = status::router(rests, seen.as_ref(), wait(reader, passing.as_ref()));
    let attempts = seen.as_ref().map_or(0, |seen| seen.attempts);
    let fault = seen.and_then(|seen| seen.fault);
    Ok(Seen { state, passing, host: router.host.clone(), attempts, fault, beneath: None })
}

pub fn floating(net: &Network, reader: &mut Reader, floating: &FloatingIp) -> Result<Seen<&'static str>> {
    let router = match &floating.router_id {
        Some(id) => reader.doc::<Router>(id)?,
        None => None,
    };
    let seen = match &router {
        Some(router) => router.observed(reader)?,
        None => None,
    };
    let there = seen.as_ref().is_some_and(|seen| seen.floating.contains(&floating.id));
    // Behind a router that is switched off it has nothing to wait for.
    let wanted = router.as_ref().filter(|router| floating.port_id.is_some() && router.admin_state_up && !there);
    let passing = wanted.map(|router| {
        let gone = seen.as_ref().and_then(|seen| seen.missing.get(&floating.id).copied());
        let down = seen.as_ref().and_then(|seen| seen.down_at);
        let since = floating.wanted_at.unwrap_or(floating.standard.updated_at);
        let since = [router.wanted_at, gone, down].into_iter().flatten().fold(since, Timestamp::max);
        net.options.deadlines.passing(Operation::FloatingIp, since)
    });
    let state = status::floating(floating, seen.as_ref(), wait(reader, passing.as_ref()));
    let attempts = seen.as_ref().map_or(0, |seen| seen.attempts);
    let host = router.map(|router| router.host).unwrap_or_default();
    Ok(Seen { state, passing, host, attempts, fault: None, beneath: seen.and_then(|seen| seen.fault) })
}

impl Network {
    fn running(&self, reader: &mut Reader, server: &base::ServerId) -> Result<Option<Running>> {
        match self.around.get().and_then(|around| around.guests.upgrade()) {
            Some(guests) => guests.running(reader, server),
            None => Ok(Some(Running { since: Timestamp(0), ..Running::default() })),
        }
    }

    /// What is said after a host's name: none while it answers.
    pub(crate) fn silence(&self, host: &HostName) -> Option<String> {
        let hosts = self.around.get()?.hosts.upgrade()?;
        if host.is_empty() { None } else { contract::silence(&*hosts, host) }
    }
}
