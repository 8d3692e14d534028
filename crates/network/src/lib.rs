//! The network service: Neutron's API v2.0 over the store.
//!
//! One folder per resource, each with its document, its attributes as data, and what is its own of create, update and
//! delete; [`resource`] does what is common. Everything that belongs together changes in one transaction: a port with
//! its addresses and its charge, a subnet with the service port that follows it.
//!
//! What must never happen here: an address or a MAC twice, an object of a foreign project seen, a step outside the
//! store. Hosts learn of it all through [`project`], which turns documents into their view; what they report comes back
//! as small documents of its own, and [`status`] computes what is shown.

pub mod attr;
pub mod availability;
pub mod error;
pub mod extensions;
pub mod floatingips;
pub mod networks;
pub mod ports;
pub mod project;
pub mod query;
pub mod quotas;
pub mod ranges;
pub mod resource;
pub mod routers;
pub mod security_groups;
pub mod standard;
pub mod status;
pub mod subnets;
pub mod tags;
pub mod traffic;
pub mod versions;

mod attach;
mod explain;
mod members;
mod pending;
mod reconcile;
mod recount;
mod rules;
mod undo;

use base::{Env, Result};
use contract::{Guests, Hosts};
use engine::Reconciler;
use policy::Policy;
use rest::{Call, Envelope, Service};
use standard::Ctx;
use std::sync::{Arc, OnceLock, Weak};
use store::{Cause, Reader, Store, Tx};

pub use rules::RULES;
pub use undo::{held as held_from_undo, remove as remove_by_undo};

/// The only availability zone there is.
pub const ZONE: &str = "nova";

/// What the operator decides.
#[derive(Clone, Debug)]
pub struct Options {
    /// The largest frame of the underlay; tenant networks have 50 bytes less for VXLAN.
    pub mtu: u16,
    /// Physical networks that a flat network may name.
    pub physical_networks: Vec<String>,
    /// Masquerade outward through this interface; none: not at all.
    pub uplink: Option<String>,
    pub deadlines: model::deadline::Deadlines,
}

impl Default for Options {
    fn default() -> Options {
        let physical_networks = vec!["public".into()];
        Options { mtu: 1500, physical_networks, uplink: None, deadlines: Default::default() }
    }
}

/// The service. Shared by its routes, its loops and those who use it through `contract`.
pub struct Network {
    pub(crate) store: Store,
    pub(crate) env: Env,
    pub(crate) options: Options,
    policy: Arc<Policy>,
    around: OnceLock<Around>,
    members: members::Members,
}

/// Who stands around this service, and is made after it. Not held: they hold this service.
struct Around {
    hosts: Weak<dyn Hosts>,
    guests: Weak<dyn Guests>,
}

impl Network {
    /// `policy` knows [`RULES`].
    pub fn new(store: Store, env: Env, options: Options, policy: Arc<Policy>) -> Arc<Network> {
        Arc::new(Network { store, env, options, policy, around: OnceLock::new(), members: Default::default() })
    }

    /// Set once, after the others stand. Without them every host counts as alive, and every server as running.
    pub fn meet(&self, hosts: Weak<dyn Hosts>, guests: Weak<dyn Guests>) {
        if self.around.set(Around { hosts, guests }).is_err() {
            tracing::error!("the network service met the others twice");
        }
    }

    /// Prefix, envelope, policy and all routes.
    pub fn service(self: &Arc<Self>) -> Service {
        let mut routes = versions::routes(self);
        routes.extend(extensions::routes(self));
        routes.extend(networks::routes(self));
        routes.extend(subnets::routes(self));
        routes.extend(ports::routes(self));
        routes.extend(routers::routes(self));
        routes.extend(floatingips::routes(self));
        routes.extend(security_groups::routes(self));
        routes.extend(quotas::routes(self));
        routes.extend(availability::routes(self));
        Service {
            name: "network",
            prefix: "/network",
            envelope: Envelope::Network,
            microversions: None,
            policy: self.policy.clone(),
            routes,
        }
    }

    /// The loops that this service needs to settle.
    pub fn loops(self: &Arc<Self>, hosts: Arc<dyn Hosts>) -> Vec<Arc<dyn Reconciler>> {
        vec![Arc::new(reconcile::PlaceRouters { net: self.clone(), hosts })]
    }

    /// Registers the kinds of documents that it keeps, for the store to rebuild their indexes.
    pub fn register(options: store::Options) -> store::Options {
        options
            .kind::<networks::Network>()
            .kind::<subnets::Subnet>()
            .kind::<subnets::SubnetAddresses>()
            .kind::<ports::Port>()
            .kind::<ports::Observed>()
            .kind::<routers::Router>()
            .kind::<routers::Observed>()
            .kind::<floatingips::FloatingIp>()
            .kind::<security_groups::SecurityGroup>()
            .kind::<security_groups::SecurityGroupRule>()
            .kind::<quotas::ProjectQuota>()
            .kind::<project::Touch>()
    }

    pub(crate) fn ctx(self: &Arc<Self>, call: &Call) -> Ctx {
        Ctx { net: self.clone(), caller: call.caller.clone(), policy: self.policy.clone() }
    }

    /// What the reader's snapshot says of all ports together.
    pub(crate) fn ask<T>(&self, reader: &mut Reader, ask: impl FnOnce(&members::Table) -> T) -> Result<T> {
        self.members.ask(&self.store, reader, ask)
    }

    pub(crate) async fn read<T: Send + 'static>(
        &self,
        look: impl FnMut(&mut Reader) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        self.store.read(look).await
    }

    pub(crate) async fn write<T: Send + 'static>(
        &self,
        cause: Cause,
        change: impl FnMut(&mut Tx) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        Ok(self.store.write(cause, change).await?.value)
    }
}

/// The attribute tables of all resources, by the name that their rules use: for the tests that walk them.
pub fn attribute_tables() -> Vec<(&'static str, &'static [attr::Attr])> {
    use resource::Resource;
    vec![
        ("network", networks::Network::INFO.attrs),
        ("subnet", subnets::Subnet::INFO.attrs),
        ("port", ports::Port::INFO.attrs),
        ("router", routers::Router::INFO.attrs),
        ("floatingip", floatingips::FloatingIp::INFO.attrs),
        ("security_group", security_groups::SecurityGroup::INFO.attrs),
        ("security_group_rule", security_groups::SecurityGroupRule::INFO.attrs),
    ]
}
