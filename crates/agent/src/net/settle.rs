//! Making namespaces what they shall be.

use super::keeper::{Keeper, Space};
use super::names;
use super::plan::underlay::SWITCHED;
use super::plan::{flows, network, router, underlay};
use super::shape::{Actual, Shape, Steps, is_guest_link, perform};
use agent_api::{PortObserved, PortSpec, RouterObserved, RouterSpec};
use base::{NetworkId, RouterId};
use netlink::nft::{self, Table};
use netlink::{Error, Link, Netns, Result, conntrack, link, route};
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};

/// Loads rules: what differs from those loaded last, or all of them. Answers the rules that stood before.
fn load(space: &mut Space, wanted: &[Table]) -> Result<Vec<Table>> {
    let before = space.tables.take();
    let find =
        |table: &Table| before.as_ref()?.iter().find(|old| (old.family, &old.name) == (table.family, &table.name));
    let script: String = wanted.iter().map(|table| nft::script(find(table), table)).collect();
    if let Err(first) = nft::apply(&space.ns, &script) {
        // Somebody may have changed the rules below us: what was taken for loaded is not there. Load all of them.
        let whole: String = wanted.iter().map(|table| nft::script(None, table)).collect();
        if before.is_none() || whole == script {
            return Err(first);
        }
        nft::apply(&space.ns, &whole)?;
    }
    space.tables = Some(wanted.to_vec());
    Ok(before.unwrap_or_default())
}

/// Brings links, addresses and routes to their shape. Removing an address takes routes with it, hence the second look.
fn bring(ns: &Netns, mut actual: Actual, shape: &Shape, foreign: impl Fn(&str) -> bool) -> Result<Steps> {
    let first = Steps::between(&actual, shape, &foreign);
    let mut steps = first.clone();
    for _ in 0..3 {
        if steps.bridges.is_empty() && steps.change.is_empty() && !touches_routes(&steps) {
            return Ok(first);
        }
        let outcome = perform(ns, shape, &steps);
        actual = Actual::read(ns)?;
        steps = Steps::between(&actual, shape, &foreign);
        if let (Err(error), false) = (outcome, steps.is_empty()) {
            return Err(error);
        }
    }
    Ok(first)
}

fn touches_routes(steps: &Steps) -> bool {
    !(steps.remove_addresses.is_empty()
        && steps.add_addresses.is_empty()
        && steps.remove_routes.is_empty()
        && steps.add_routes.is_empty()
        && steps.remove_fdb.is_empty()
        && steps.add_fdb.is_empty())
}

/// The namespace of that name: opened, or made.
fn open_space<'a, K: Ord + Clone>(spaces: &'a mut BTreeMap<K, Space>, id: &K, name: &str) -> Result<&'a mut Space> {
    let stands = match spaces.get(id) {
        // Somebody may have deleted it: then ours is a namespace that nobody else can find.
        Some(space) => Netns::open(name)?.is_some_and(|ns| ns.inode() == space.ns.inode()),
        None => false,
    };
    if !stands {
        let (ns, fresh) = match Netns::open(name)? {
            Some(ns) => (ns, false),
            None => (Netns::create(name)?, true),
        };
        // In one that is new no flow can have been stopped yet.
        spaces.insert(id.clone(), Space { marked: !fresh, ..Space::new(ns) });
    }
    spaces.get_mut(id).ok_or_else(|| Error::tool(name, "lost"))
}

impl Keeper {
    pub fn settle_network(&mut self, id: &NetworkId) -> Result<()> {
        let Some(spec) = self.world.networks.get(id).filter(|spec| spec.external.is_none()).cloned() else {
            return Ok(());
        };
        let space = open_space(&mut self.networks, id, &self.names.network(id))?;
        let actual = Actual::read(&space.ns)?;
        let mut shape = network::shape(&self.names, &self.world, &spec, &actual);
        if !space.prepared {
            space.ns.sysctl(&shape.sysctls)?;
        }
        // Rules stand before the links that they guard.
        let tables = std::mem::take(&mut shape.tables);
        let before = load(space, &tables)?;
        bring(&space.ns, actual.clone(), &shape, |_| false)?;
        if !space.prepared {
            space.ns.sysctl(&shape.link_sysctls)?;
            space.prepared = true;
        }
        if space.marked || network::may_revoke(&before, &tables) {
            // One walk: the kernel looks at the flows of all namespaces for it, which takes milliseconds.
            let all = conntrack::list(&space.ns)?;
            let standing = all.iter().filter(|flow| flow.mark == flows::STOPPED).count();
            let verdicts = flows::judge(&self.world, id, all);
            conntrack::mark(&space.ns, &verdicts.stop, flows::STOPPED)?;
            conntrack::delete(&space.ns, &verdicts.release)?;
            space.marked = standing > verdicts.release.len() || !verdicts.stop.is_empty();
        }
        let ns = space.ns.clone();
        self.taps.stands(id, &ns);
        self.adopt_ports(id, &actual);
        self.services.network(&self.world, &spec, &ns);
        Ok(())
    }

    /// Guests that run already are seen to be wired.
    fn adopt_ports(&self, id: &NetworkId, actual: &Actual) {
        for port in self.world.ports_of(id) {
            let link = actual.links.get(&names::tap(&port.id));
            let wired = link.is_some_and(|link| is_guest_link(link) && link.master.is_some());
            if wired || self.seen.is_up(&port.id) {
                self.seen.port(PortObserved { id: port.id.clone(), up: wired && port.admin_state_up, fault: None });
            }
        }
    }

    /// Brings a guest's link into the bridge.
    pub fn settle_port(&mut self, port: &PortSpec) -> Result<()> {
        let (Some(space), Some(spec)) = (self.networks.get(&port.network), self.world.networks.get(&port.network))
        else {
            return Err(Error::tool(format!("port {}", port.id), "its network is not there"));
        };
        let actual = Actual::read(&space.ns)?;
        if !actual.links.contains_key(&names::tap(&port.id)) {
            return Err(Error::errno(format!("wire port {}: its link", port.id), 19));
        }
        let mut shape = network::links(&self.names, &self.world, spec, &actual);
        network::add_guest_link(&mut shape, &self.names, spec, port);
        bring(&space.ns, actual, &shape, |_| false)?;
        wait_until_forwarding(&space.ns, &names::tap(&port.id), names::BRIDGE)
    }

    pub fn settle_router(&mut self, id: &RouterId) -> Result<()> {
        let Some(spec) = self.world.routers.get(id).cloned() else { return Ok(()) };
        if let Some(why) = spec.gateway.as_ref().and_then(|g| self.refused.get(&g.network)) {
            return Err(Error::tool("external network", why.clone()));
        }
        let name = self.names.router(id);
        let space = open_space(&mut self.routers, id, &name)?;
        let ns = space.ns.clone();
        let shape = router::shape(&self.names, &self.world, &spec);
        if !space.prepared {
            space.ns.sysctl(&shape.sysctls)?;
            space.prepared = true;
        }
        let before = load(space, &shape.tables)?;
        let (inside, gateway) = self.join(&spec, &shape, &ns)?;
        let actual = Actual::read(&ns)?;
        let surplus: Vec<String> =
            actual.surplus(&shape, |link| link.name.starts_with('q')).map(str::to_owned).collect();
        for name in surplus {
            link::delete(&ns, &name)?;
        }
        let steps = bring(&ns, actual, &shape, |_| false)?;
        end_floating_flows(&ns, &before, &shape.tables)?;
        for (network, link) in inside {
            self.settle_network(&network)?;
            if let Some(space) = self.networks.get(&network) {
                wait_until_forwarding(&space.ns, &link, names::BRIDGE)?;
            }
        }
        if let (Some(link), Some(gateway)) = (gateway, &spec.gateway) {
            self.settle_underlay()?;
            wait_until_forwarding(&self.underlay.ns, &link, &self.names.external(&gateway.network))?;
        }
        self.announce(&spec, &ns, &steps)?;
        let carried: BTreeSet<IpAddr> = router::floating(&spec).map(|(outer, _)| IpAddr::V4(outer)).collect();
        let has_gateway = router::usable_gateway(&self.world, &spec).is_some();
        let floating = spec.floating.iter().filter(|f| has_gateway && carried.contains(&f.floating));
        let floating = floating.map(|f| f.id.clone()).collect();
        self.seen.router(RouterObserved {
            id: id.clone(),
            up: spec.admin_state_up,
            floating,
            fault: None,
            attempts: 0,
        });
        Ok(())
    }

    /// Makes the router's links that are missing, and answers them.
    fn join(&mut self, spec: &RouterSpec, shape: &Shape, ns: &Netns) -> Result<Joined> {
        let there = link::list(ns)?;
        let (mut inside, mut outside) = (Vec::new(), None);
        for interface in &spec.interfaces {
            let name = names::inside(&interface.port);
            if !shape.links.contains_key(&name) {
                continue;
            }
            if !self.networks.contains_key(&interface.network) {
                self.settle_network(&interface.network)?;
            }
            let Some(space) = self.networks.get(&interface.network) else {
                return Err(Error::tool(format!("router {}", spec.id), "a network of it is not in the view"));
            };
            if joined(&there, &space.ns, &name, ns)? {
                continue;
            }
            make_pair(&space.ns, &name, &shape.links[&name], ns)?;
            inside.push((interface.network.clone(), name));
        }
        if let Some(gateway) = router::usable_gateway(&self.world, spec) {
            let name = self.names.gateway(&gateway.port);
            if !joined(&there, &self.underlay.ns, &name, ns)? {
                if self.underlay.tables.is_none() {
                    self.settle_underlay()?;
                }
                make_pair(&self.underlay.ns, &name, &shape.links[&name], ns)?;
                outside = Some(name);
            }
        }
        Ok((inside, outside))
    }

    /// Says to the outside who has the addresses that have just come.
    fn announce(&self, spec: &RouterSpec, ns: &Netns, steps: &Steps) -> Result<()> {
        let Some(gateway) = router::usable_gateway(&self.world, spec) else { return Ok(()) };
        let name = self.names.gateway(&gateway.port);
        let fresh: Vec<Ipv4Addr> = steps
            .add_addresses
            .iter()
            .filter(|a| a.link == name)
            .filter_map(|a| if let IpAddr::V4(ip) = a.address.addr() { Some(ip) } else { None })
            .collect();
        match netlink::mac(&gateway.mac) {
            Some(mac) => netlink::open::announce(ns, &name, mac, &fresh),
            None => Ok(()),
        }
    }

    pub fn settle_underlay(&mut self) -> Result<()> {
        let ns = self.underlay.ns.clone();
        let mut actual = Actual::read(&ns)?;
        self.recall_uplinks(&actual);
        self.find_conflicts(&ns, &actual)?;
        self.note_uplinks(&ns)?;
        let refused: BTreeSet<NetworkId> = self.refused.keys().cloned().collect();
        let shape = underlay::shape(&self.names, &self.world, &self.switched, &refused);
        let prefix = self.names.alias_prefix();
        let ours = |link: &Link| {
            link.name.starts_with("nubr-") && link.alias.as_deref().is_some_and(|alias| alias.starts_with(&prefix))
        };
        let surplus: Vec<String> = actual.surplus(&shape, ours).map(str::to_owned).collect();
        for name in &surplus {
            remove_external_bridge(&ns, &actual.links, name)?;
            actual = Actual::read(&ns)?;
        }
        let wanted = !shape.bridges.is_empty();
        if wanted {
            load(&mut self.underlay, &shape.tables)?;
        } else if self.underlay.tables.is_some() || self.world.whole {
            nft::delete(&ns, nft::Family::Inet, &self.names.table())?;
            self.underlay.tables = None;
        }
        let bridges: BTreeSet<&String> = shape.bridges.keys().collect();
        bring(&ns, actual, &shape, |name| !bridges.contains(&name.to_owned()))?;
        let there = link::list(&ns)?;
        let usable = |name: &str| name.split('/').nth(3).is_some_and(|link| there.contains_key(link));
        let (now, missing): (Vec<_>, Vec<_>) = shape.link_sysctls.into_iter().partition(|(name, _)| usable(name));
        let stand = ns.sysctl_read(&now.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>())?;
        let differ: Vec<_> =
            now.into_iter().zip(stand).filter(|(n, s)| Some(&n.1) != s.as_ref()).map(|(n, _)| n).collect();
        ns.sysctl(&differ)?;
        match missing.iter().find(|(name, _)| name.ends_with("/forwarding")) {
            Some((name, _)) => Err(Error::tool(name.clone(), "the uplink is not there")),
            None => Ok(()),
        }
    }

    /// Learns what stands in the underlay and is in no view, before a comparison: uplinks and clashes.
    pub fn look(&mut self) {
        let ns = self.underlay.ns.clone();
        let looked = Actual::read(&ns).and_then(|actual| {
            self.recall_uplinks(&actual);
            self.find_conflicts(&ns, &actual)
        });
        if let Err(error) = looked {
            tracing::warn!(%error, "the underlay could not be looked at");
        }
    }

    /// After a restart: which uplinks were switched on stands in the bridges' aliases.
    fn recall_uplinks(&mut self, actual: &Actual) {
        let marked = actual.links.values().filter_map(|link| link.alias.as_deref()).filter_map(switched_uplink);
        self.switched.extend(marked.map(str::to_owned));
    }

    /// Before forwarding of an uplink is switched on, it is noted that it was off.
    fn note_uplinks(&mut self, ns: &Netns) -> Result<()> {
        let links: Vec<String> =
            underlay::externals(&self.world).filter_map(|(_, external)| external.masquerade.clone()).collect();
        let names: Vec<String> = links.iter().map(|link| format!("net/ipv4/conf/{link}/forwarding")).collect();
        for (link, value) in links.into_iter().zip(ns.sysctl_read(&names)?) {
            if value.as_deref() == Some("0") {
                self.switched.insert(link);
            }
        }
        Ok(())
    }

    fn find_conflicts(&mut self, ns: &Netns, actual: &Actual) -> Result<()> {
        let mut refused = BTreeMap::new();
        for (network, external) in underlay::externals(&self.world) {
            let bridge = self.names.external(&network.id);
            if actual.links.contains_key(&bridge) {
                continue;
            }
            let cidr = external.host_address.trunc();
            let found = underlay::conflicts(cidr, &route::routes(ns, true)?, &actual.addresses, |link| link == bridge);
            if let Some(first) = found.first() {
                refused.insert(network.id.clone(), first.clone());
            }
        }
        if refused != self.refused {
            for why in refused.values() {
                tracing::warn!(%why, "an external network is refused");
            }
            self.dirty.routers.extend(self.world.routers.keys().cloned());
            self.refused = refused;
        }
        Ok(())
    }

    /// Removes namespaces whose owner is gone. A network in which guests still run stays until they are gone.
    pub fn sweep(&mut self) -> Result<()> {
        let wanted: BTreeSet<String> = self
            .world
            .networks
            .values()
            .filter(|network| network.external.is_none())
            .map(|network| self.names.network(&network.id))
            .chain(self.world.routers.keys().map(|id| self.names.router(id)))
            .collect();
        let stand = Netns::list(&self.names.prefix())?;
        let mut names: Vec<String> = stand.into_iter().filter(|name| !wanted.contains(name)).collect();
        if !self.world.whole {
            let known: BTreeSet<String> = self
                .networks
                .values()
                .chain(self.routers.values())
                .filter_map(|s| s.ns.name().map(str::to_owned))
                .collect();
            names.retain(|name| known.contains(name));
        }
        let mut busy = None;
        for name in names {
            let guests = match Netns::open(&name)? {
                Some(ns) => link::list(&ns)?.values().any(is_guest_link),
                None => false,
            };
            if guests {
                busy =
                    Some(Error::tool(format!("namespace {name}"), "guests still run in a network that nobody wants"));
            } else {
                Netns::delete(&name)?;
            }
        }
        let (world, services, taps) = (&self.world, &mut self.services, &self.taps);
        let spared = busy.is_some();
        self.networks.retain(|id, space| {
            let keep = world.networks.contains_key(id)
                || (spared && space.ns.name().is_some_and(|name| matches!(Netns::open(name), Ok(Some(_)))));
            if !keep {
                services.forget(id);
                taps.gone(id);
            }
            keep
        });
        self.routers.retain(|id, _| world.routers.contains_key(id));
        busy.map_or(Ok(()), Err)
    }
}

/// Links that were made: those into networks, and that into the underlay.
type Joined = (Vec<(NetworkId, String)>, Option<String>);

/// Waits, a short time, until the bridge carries a link's frames: it hears of the carrier a moment later, and whoever
/// asked for an address meanwhile would ask again only after a second.
fn wait_until_forwarding(ns: &Netns, name: &str, bridge: &str) -> Result<()> {
    for _ in 0..200 {
        let link = link::get(ns, name)?;
        let expected = link.is_some_and(|link| link.carrier && link.up && link.master.is_some());
        let carried = || -> Result<bool> {
            let (link, bridge) = (link::get(ns, name)?, link::get(ns, bridge)?);
            Ok(link.is_some_and(|link| link.forwarding != Some(false)) && bridge.is_none_or(|b| b.running || !b.up))
        };
        if !expected || carried()? {
            return Ok(());
        }
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    tracing::debug!(name, "a link is up, but its bridge does not carry its frames yet");
    Ok(())
}

/// True when both ends of a pair are there. One that has lost its other end (whose namespace is being taken apart) is
/// removed, so that a new pair can be made.
fn joined(near: &BTreeMap<String, Link>, far: &Netns, name: &str, ns: &Netns) -> Result<bool> {
    if !near.contains_key(name) {
        return Ok(false);
    }
    if link::get(far, name)?.is_some() {
        return Ok(true);
    }
    link::delete(ns, name)?;
    Ok(false)
}

/// A pair of links, `name` at both ends. What is left of an earlier one is in the way and goes.
fn make_pair(here: &Netns, name: &str, wanted: &super::shape::LinkShape, there: &Netns) -> Result<()> {
    let peer = link::VethPeer { name: name.into(), mac: wanted.mac, mtu: wanted.mtu, namespace: there.clone() };
    let kind = link::NewKind::Veth { peer: Box::new(peer) };
    let new = netlink::NewLink { name: name.into(), mac: None, mtu: wanted.mtu, kind };
    match link::create(here, &new) {
        Err(error) if error.exists() => {
            link::delete(here, name)?;
            link::create(here, &new)
        }
        other => other,
    }
}

/// Flows by floating addresses that went, or now mean somebody else, end.
fn end_floating_flows(ns: &Netns, before: &[Table], after: &[Table]) -> Result<()> {
    let floating = |tables: &[Table]| -> BTreeMap<String, String> {
        tables.iter().filter_map(|t| t.maps.get("fip_in")).flat_map(|map| map.elements.clone()).collect()
    };
    let now = floating(after);
    let gone: BTreeSet<IpAddr> = floating(before)
        .into_iter()
        .filter(|(outer, inner)| now.get(outer) != Some(inner))
        .filter_map(|(outer, _)| outer.parse().ok())
        .collect();
    if gone.is_empty() {
        return Ok(());
    }
    let mut flows = conntrack::list(ns)?;
    flows
        .retain(|flow| gone.contains(&flow.destination) || flow.reply_destination.is_some_and(|ip| gone.contains(&ip)));
    conntrack::delete(ns, &flows)
}

/// The uplink that an alias says was switched on.
fn switched_uplink(alias: &str) -> Option<&str> {
    let rest = alias.strip_suffix(SWITCHED)?.strip_suffix(':')?;
    rest.starts_with("nubo:").then(|| rest.rsplit(':').next())?
}

/// Takes an external bridge away, and puts its uplink's forwarding back where no other bridge needs it.
pub fn remove_external_bridge(ns: &Netns, links: &BTreeMap<String, Link>, name: &str) -> Result<()> {
    let alias = |link: &Link| link.alias.as_deref().and_then(switched_uplink).map(str::to_owned);
    let uplink = links.get(name).and_then(alias);
    link::delete(ns, name)?;
    let Some(uplink) = uplink.filter(|uplink| links.contains_key(uplink)) else { return Ok(()) };
    let shared = links.values().any(|link| link.name != name && alias(link).as_deref() == Some(&uplink));
    if shared { Ok(()) } else { ns.sysctl(&[(format!("net/ipv4/conf/{uplink}/forwarding"), "0".into())]) }
}
