//! What control wants of this host's networks, and which namespaces a step of the view concerns.
//!
//! Specs are hostile input: what does not pass [`World::apply`]'s checks is left out and said, so that the plans may
//! rely on MAC addresses being MAC addresses and on lists having an end.

use agent_api::{
    AddressSet, InstanceMetadata, NetworkSpec, PortSpec, RouterSpec, SecurityGroupSpec, ViewDelta, ViewKind, ViewObject,
};
use base::{NetworkId, PortId, RouterId, SecurityGroupId, ServerId};
use std::collections::{BTreeMap, BTreeSet};

const LIST_MOST: usize = 10_000;
const TEXT_MOST: usize = 512;

#[derive(Clone, Debug, Default)]
pub struct World {
    pub networks: BTreeMap<NetworkId, NetworkSpec>,
    pub ports: BTreeMap<PortId, PortSpec>,
    pub routers: BTreeMap<RouterId, RouterSpec>,
    pub groups: BTreeMap<SecurityGroupId, SecurityGroupSpec>,
    pub members: BTreeMap<SecurityGroupId, AddressSet>,
    pub guests: BTreeMap<ServerId, InstanceMetadata>,
    /// Ports by network, so that a plan need not walk all.
    by_network: BTreeMap<NetworkId, BTreeSet<PortId>>,
    /// A whole view has arrived: what has no owner may go.
    pub whole: bool,
}

/// What must be looked at again.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Dirty {
    pub networks: BTreeSet<NetworkId>,
    pub routers: BTreeSet<RouterId>,
    pub underlay: bool,
    pub guests: bool,
    /// Objects may have gone: look for namespaces without an owner.
    pub sweep: bool,
}

impl Dirty {
    pub fn is_empty(&self) -> bool {
        *self == Dirty::default()
    }
}

impl World {
    /// Takes over a step; answers what it concerns and what was refused.
    pub fn apply(&mut self, delta: &ViewDelta) -> (Dirty, Vec<String>) {
        let (mut dirty, mut refused) = (Dirty::default(), Vec::new());
        if delta.whole {
            self.forget_missing(delta, &mut dirty);
            self.whole = true;
            dirty.sweep = true;
            dirty.underlay = true;
        }
        for (kind, id) in &delta.remove {
            self.remove(*kind, id, &mut dirty);
        }
        for object in &delta.put {
            if let Err(why) = check(object) {
                let (kind, id) = object.key();
                refused.push(format!("{kind:?} {id}: {why}"));
                continue;
            }
            self.put(object, &mut dirty);
        }
        (dirty, refused)
    }

    fn forget_missing(&mut self, delta: &ViewDelta, dirty: &mut Dirty) {
        let named: BTreeSet<(ViewKind, &str)> = delta.put.iter().map(ViewObject::key).collect();
        let mut gone: Vec<(ViewKind, String)> = Vec::new();
        let mut note = |kind: ViewKind, ids: Vec<&str>| {
            gone.extend(ids.into_iter().filter(|id| !named.contains(&(kind, *id))).map(|id| (kind, id.to_owned())));
        };
        note(ViewKind::Network, self.networks.keys().map(|k| k.as_str()).collect());
        note(ViewKind::Port, self.ports.keys().map(|k| k.as_str()).collect());
        note(ViewKind::Router, self.routers.keys().map(|k| k.as_str()).collect());
        note(ViewKind::SecurityGroup, self.groups.keys().map(|k| k.as_str()).collect());
        note(ViewKind::AddressSet, self.members.keys().map(|k| k.as_str()).collect());
        for (kind, id) in gone {
            self.remove(kind, &id, dirty);
        }
    }

    fn put(&mut self, object: &ViewObject, dirty: &mut Dirty) {
        match object {
            ViewObject::Network(it) => {
                self.touch_network(&it.id, dirty);
                dirty.underlay |= it.external.is_some();
                self.networks.insert(it.id.clone(), it.clone());
                self.touch_network(&it.id, dirty);
            }
            ViewObject::Port(it) => {
                self.forget_port(&it.id, dirty);
                dirty.networks.insert(it.network.clone());
                self.by_network.entry(it.network.clone()).or_default().insert(it.id.clone());
                self.ports.insert(it.id.clone(), it.clone());
            }
            ViewObject::Router(it) => {
                self.touch_router(&it.id, dirty);
                self.routers.insert(it.id.clone(), it.clone());
                self.touch_router(&it.id, dirty);
            }
            ViewObject::SecurityGroup(it) => {
                self.touch_group(&it.id, dirty);
                self.groups.insert(it.id.clone(), it.clone());
            }
            ViewObject::AddressSet(it) => {
                self.touch_group(&it.id, dirty);
                self.members.insert(it.id.clone(), it.clone());
            }
            ViewObject::Guest(it) => {
                dirty.guests = true;
                self.guests.insert(it.id.clone(), it.told());
            }
            ViewObject::Volume(_) => {}
        }
    }

    fn remove(&mut self, kind: ViewKind, id: &str, dirty: &mut Dirty) {
        match kind {
            ViewKind::Network => {
                let id = NetworkId::from(id);
                self.touch_network(&id, dirty);
                dirty.underlay |= self.networks.remove(&id).is_some_and(|it| it.external.is_some());
                dirty.sweep = true;
            }
            ViewKind::Port => {
                self.forget_port(&PortId::from(id), dirty);
            }
            ViewKind::Router => {
                let id = RouterId::from(id);
                self.touch_router(&id, dirty);
                self.routers.remove(&id);
                dirty.sweep = true;
            }
            ViewKind::SecurityGroup => {
                self.touch_group(&SecurityGroupId::from(id), dirty);
                self.groups.remove(&SecurityGroupId::from(id));
            }
            ViewKind::AddressSet => {
                self.touch_group(&SecurityGroupId::from(id), dirty);
                self.members.remove(&SecurityGroupId::from(id));
            }
            ViewKind::Guest => {
                dirty.guests |= self.guests.remove(&ServerId::from(id)).is_some();
            }
            ViewKind::Volume => {}
        }
    }

    fn forget_port(&mut self, id: &PortId, dirty: &mut Dirty) {
        if let Some(old) = self.ports.remove(id) {
            if let Some(ports) = self.by_network.get_mut(&old.network) {
                ports.remove(id);
            }
            dirty.networks.insert(old.network);
        }
    }

    fn touch_network(&self, id: &NetworkId, dirty: &mut Dirty) {
        dirty.networks.insert(id.clone());
        for router in self.routers.values() {
            let gateway = router.gateway.iter().map(|g| &g.network);
            if router.interfaces.iter().map(|i| &i.network).chain(gateway).any(|n| n == id) {
                dirty.routers.insert(router.id.clone());
            }
        }
    }

    fn touch_router(&self, id: &RouterId, dirty: &mut Dirty) {
        dirty.routers.insert(id.clone());
        if let Some(router) = self.routers.get(id) {
            dirty.networks.extend(router.interfaces.iter().map(|i| i.network.clone()));
            dirty.underlay |= router.gateway.is_some();
        }
    }

    /// Networks with a port in the group, or in one whose rules name it.
    fn touch_group(&self, id: &SecurityGroupId, dirty: &mut Dirty) {
        let naming = |group: &SecurityGroupId| {
            group == id
                || self.groups.get(group).is_some_and(|g| g.rules.iter().any(|r| r.remote_group.as_ref() == Some(id)))
        };
        let ports = self.ports.values().filter(|port| port.security_groups.iter().any(naming));
        dirty.networks.extend(ports.map(|port| port.network.clone()));
    }

    /// The ports of a network that have a guest.
    pub fn ports_of<'a>(&'a self, network: &NetworkId) -> impl Iterator<Item = &'a PortSpec> + use<'a> {
        let ids = self.by_network.get(network).into_iter().flatten();
        ids.filter_map(|id| self.ports.get(id)).filter(|port| port.server.is_some())
    }

    /// Router interfaces in a network.
    pub fn interfaces_of<'a>(
        &'a self,
        network: &'a NetworkId,
    ) -> impl Iterator<Item = (&'a RouterSpec, &'a agent_api::RouterInterface)> {
        self.routers.values().filter(|router| router.admin_state_up).flat_map(move |router| {
            router.interfaces.iter().filter(move |i| i.network == *network).map(move |i| (router, i))
        })
    }
}

/// Refuses what no plan could be made of.
fn check(object: &ViewObject) -> Result<(), &'static str> {
    let mac =
        |text: &str| netlink::mac(text).is_some_and(|m| m[0] & 1 == 0).then_some(()).ok_or("a MAC address is not one");
    let short = |n: usize| (n <= LIST_MOST).then_some(()).ok_or("a list is too long");
    let (_, id) = object.key();
    if id.is_empty() || id.len() > 64 || id.contains([':', '\0', '\n']) {
        return Err("the id is not one");
    }
    match object {
        ViewObject::Network(it) => {
            it.service_mac.as_deref().map_or(Ok(()), mac)?;
            short(it.subnets.len().max(it.service_addresses.len()))?;
            let uplink = it.external.as_ref().and_then(|e| e.masquerade.as_deref()).unwrap_or("x");
            let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
            if uplink.is_empty() || uplink.len() > netlink::link::NAME_MOST || !uplink.chars().all(plain) {
                return Err("the uplink is not a link's name");
            }
            if !(68..=65_521).contains(&it.mtu) { Err("the MTU is out of range") } else { Ok(()) }
        }
        ViewObject::Port(it) => {
            mac(&it.mac)?;
            short(it.fixed_ips.len().max(it.security_groups.len()).max(it.allowed_address_pairs.len()))?;
            short(it.extra_dhcp_opts.len())?;
            if it.hostname.as_deref().unwrap_or("").len() > TEXT_MOST {
                return Err("the host name is too long");
            }
            it.allowed_address_pairs.iter().filter_map(|(m, _)| m.as_deref()).try_for_each(mac)
        }
        ViewObject::Router(it) => {
            short(it.interfaces.len().max(it.routes.len()).max(it.floating.len()))?;
            it.gateway.iter().map(|g| &g.mac[..]).chain(it.interfaces.iter().map(|i| &i.mac[..])).try_for_each(mac)
        }
        ViewObject::SecurityGroup(it) => short(it.rules.len()),
        ViewObject::AddressSet(it) => short(it.addresses.len() / 10),
        ViewObject::Guest(_) | ViewObject::Volume(_) => Ok(()),
    }
}
