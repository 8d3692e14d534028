//! Taps of guests, made without waiting for the networks' thread, which may be loading rules at that moment.
//!
//! A tap that stands in its namespace and in no bridge reaches nothing and nobody: it needs no rules yet. Only
//! [`super::keeper`] brings it into the bridge, and loads the rules before.

use super::names::{self, Names};
use super::world::World;
use agent_api::{ViewDelta, ViewKind};
use base::{CloudId, NetworkId, PortId};
use netlink::{LinkSet, Netns, Result, link};
use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::sync::{Mutex, MutexGuard};

/// What the networks' thread has made, and which ports belong there.
pub struct Taps {
    names: Names,
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    networks: BTreeMap<NetworkId, Netns>,
    ports: BTreeMap<PortId, (NetworkId, u32)>,
}

impl Taps {
    pub fn new(cloud: &CloudId) -> Taps {
        Taps { names: Names::new(cloud), inner: Mutex::default() }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(|broken| broken.into_inner())
    }

    /// Takes over what a step of the view, which `world` has taken in already, says of ports.
    pub fn note(&self, world: &World, delta: &ViewDelta) {
        let place = |id: &PortId| {
            let port = world.ports.get(id)?;
            Some((port.network.clone(), u32::from(world.networks.get(&port.network)?.mtu)))
        };
        let mut inner = self.inner();
        // A network's change may be one of its MTU.
        let networks = delta.put.iter().any(|object| object.key().0 == ViewKind::Network);
        if delta.whole || networks {
            inner.ports = world.ports.keys().filter_map(|id| Some((id.clone(), place(id)?))).collect();
            return;
        }
        let put = delta.put.iter().map(|object| object.key());
        let gone = delta.remove.iter().map(|(kind, id)| (*kind, id.as_str()));
        for (_, id) in put.chain(gone).filter(|(kind, _)| *kind == ViewKind::Port) {
            let id = PortId::from(id);
            match place(&id) {
                Some(place) => drop(inner.ports.insert(id, place)),
                None => drop(inner.ports.remove(&id)),
            }
        }
    }

    pub fn stands(&self, network: &NetworkId, ns: &Netns) {
        self.inner().networks.insert(network.clone(), ns.clone());
    }

    pub fn gone(&self, network: &NetworkId) {
        self.inner().networks.remove(network);
    }

    /// The port's tap, where its network stands; none where the networks' thread must look into it.
    pub fn try_open(&self, port: &PortId) -> Option<OwnedFd> {
        let (ns, mtu) = {
            let inner = self.inner();
            let (network, mtu) = inner.ports.get(port)?;
            (inner.networks.get(network)?.clone(), *mtu)
        };
        // Somebody may have deleted it: then ours is a namespace that nobody else can find.
        let stands = Netns::open(ns.name()?).ok()??.inode() == ns.inode();
        if !stands {
            return None;
        }
        open(&self.names, &ns, port, Some(mtu)).ok()
    }
}

/// Makes the tap, or takes hold of the one that is there.
pub fn open(names: &Names, ns: &Netns, port: &PortId, mtu: Option<u32>) -> Result<OwnedFd> {
    let tap = netlink::open::tap(ns, &names::tap(port))?;
    dress(names, ns, port, mtu)?;
    Ok(tap)
}

/// Says whose a guest's link is.
pub fn dress(names: &Names, ns: &Netns, port: &PortId, mtu: Option<u32>) -> Result<()> {
    let alias = Some(names.alias("port", port));
    link::set(ns, &names::tap(port), &LinkSet { alias, mtu, ..Default::default() })
}
