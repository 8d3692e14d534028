//! The compute service: flavors, key pairs, servers, hosts and their quotas, as Nova's API v2.1 shows them.
//!
//! One folder per resource. Images, ports and hosts belong to others and are reached through `contract`, inside the
//! same transaction. This crate never calls a host: it writes what servers shall be, tells hosts so through its
//! [`contract::Projector`], and takes over what they report in [`Compute::observed`].

mod ask;
mod audit;
mod flavors;
mod hosts;
mod keypairs;
mod policy;
mod quota;
mod recount;
mod servers;
mod usage;
mod versions;

pub use flavors::Flavor;
pub use hosts::{Host, Ratios};
pub use keypairs::KeyPair;
pub use policy::RULES;
pub use servers::{
    Allocation, DeletedServer, InstanceAction, Server, ServerFlavor, ServerObserved, ServerSecret, Tombstone, TrashedGuest,
};
pub use servers::purge_trash;

pub(crate) use ask::Ask;
pub(crate) use rest::input;

use ::policy::Policy;
use agent_api::{HostInventory, Report};
use base::{Env, Result, Timestamp};
use contract::{Consoles, Disks, Hosts, Images, Intake, Ports, Volumes};
use engine::Reconciler;
use rest::{Envelope, Microversions, Service, Version};
use std::sync::Arc;
use store::{Reader, Store, Tx};

/// What is spoken: every change in this range that touches an operation of ours is made.
pub const VERSIONS: Microversions = Microversions {
    service_type: "compute",
    legacy_header: Some("x-openstack-nova-api-version"),
    min: Version(2, 1),
    max: Version(2, 85),
};

#[derive(Clone, Copy, Debug)]
pub struct Options {
    pub ratios: Ratios,
    /// How long after its start control waits for hosts to call before it says that there is none.
    pub host_grace_ms: i64,
    pub deadlines: model::deadline::Deadlines,
    /// How long a deleted server is SOFT_DELETED and can be restored, as Nova has it; 0: not at all.
    pub reclaim_interval_s: i64,
    /// The part of a host's disk from which on its trash goes, oldest first.
    pub trash_share: f64,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            ratios: Ratios::default(),
            host_grace_ms: 15_000,
            deadlines: Default::default(),
            reclaim_interval_s: 0,
            trash_share: 0.85,
        }
    }
}

pub struct Compute {
    pub(crate) store: Store,
    pub(crate) env: Env,
    pub(crate) options: Options,
    pub(crate) images: Arc<dyn Images>,
    pub(crate) ports: Arc<dyn Ports>,
    pub(crate) volumes: Arc<dyn Volumes>,
    pub(crate) hosts: Arc<dyn Hosts>,
    pub(crate) consoles: Arc<dyn Consoles>,
    pub(crate) policy: Arc<Policy>,
    pub(crate) book: servers::Book,
    pub(crate) rooms: hosts::rooms::Rooms,
    pub(crate) started: Timestamp,
}

/// The kinds of documents, for opening the store.
pub fn kinds() -> Vec<store::Kind> {
    use store::Kind;
    vec![
        Kind::of::<flavors::Flavor>(),
        Kind::of::<quota::QuotaClass>(),
        Kind::of::<keypairs::KeyPair>(),
        Kind::of::<Host>(),
        Kind::of::<servers::Server>(),
        Kind::of::<servers::ServerObserved>(),
        Kind::of::<servers::ServerSecret>(),
        Kind::of::<servers::DeletedServer>(),
        Kind::of::<servers::Tombstone>(),
        Kind::of::<servers::Allocation>(),
        Kind::of::<servers::TrashedGuest>(),
        Kind::of::<servers::InstanceAction>(),
        Kind::of::<servers::ConsoleToken>(),
    ]
}

/// What cannot answer for the past.
const NO_PAST: &[(&str, &str)] = &[("hypervisors:uptime", "how long a host was up is not written down")];

impl Compute {
    /// `policy` knows [`RULES`].
    #[allow(clippy::too_many_arguments)]
    pub fn new(
        store: Store,
        env: Env,
        options: Options,
        images: Arc<dyn Images>,
        ports: Arc<dyn Ports>,
        volumes: Arc<dyn Volumes>,
        hosts: Arc<dyn Hosts>,
        consoles: Arc<dyn Consoles>,
        policy: Arc<Policy>,
    ) -> Arc<Compute> {
        let (book, rooms, started) = (servers::Book::default(), hosts::rooms::Rooms::default(), env.now());
        Arc::new(Compute { store, env, options, images, ports, volumes, hosts, consoles, policy, book, rooms, started })
    }

    /// The API, and beside it the version list and the consoles' websocket.
    pub fn services(self: &Arc<Self>) -> Vec<Service> {
        let routes = [
            versions::routes(self),
            flavors::routes(self),
            keypairs::routes(self),
            servers::routes(self),
            hosts::routes(self),
            quota::routes(self),
            usage::routes(self),
            audit::routes(self),
        ];
        let api = Service {
            name: "compute",
            prefix: "/compute/v2.1",
            envelope: Envelope::Compute,
            microversions: Some(VERSIONS),
            policy: self.policy.clone(),
            routes: rest::no_past(routes.concat(), NO_PAST),
        };
        vec![api, servers::bridge_service(self, versions::root_routes(self))]
    }

    /// The loops that bring servers to hosts and out of the cloud.
    pub fn loops(self: &Arc<Self>) -> Vec<Arc<dyn Reconciler>> {
        vec![
            Arc::new(servers::Placer(self.clone())),
            Arc::new(servers::Launcher(self.clone())),
            Arc::new(servers::Janitor(self.clone())),
            Arc::new(servers::Deadlines(self.clone())),
            Arc::new(servers::Sweeper(self.clone())),
            Arc::new(servers::Reclaimer(self.clone())),
            Arc::new(servers::TrashSweeper(self.clone())),
        ]
    }

    /// The jobs of this service.
    pub fn works(self: &Arc<Self>, intake: Arc<dyn Intake>, disks: Arc<dyn Disks>) -> Vec<Arc<dyn engine::Work>> {
        vec![Arc::new(servers::ImageWork { compute: self.clone(), intake, disks })]
    }

    /// What a host says of itself: at the start of each session, and whenever it changes.
    pub fn host_seen(&self, tx: &mut Tx, inventory: &HostInventory) -> Result<()> {
        hosts::seen(tx, inventory)
    }

    /// What a host says of its guests. Call [`contract::Ports::ports_observed`] with the same report first: a server
    /// whose guest and ports come up in one report is ACTIVE in that commit.
    pub fn observed(&self, tx: &mut Tx, report: &Report) -> Result<()> {
        servers::observe_report(self, tx, report)
    }

    /// Reads one snapshot on behalf of a request.
    pub(crate) async fn read<R: Send + 'static>(
        &self,
        ask: &Ask,
        mut look: impl FnMut(&mut Reader, &Ask) -> Result<R> + Send + 'static,
    ) -> Result<R> {
        let ask = ask.clone();
        self.store.read_few(move |reader| look(reader, &ask)).await
    }

    /// Writes on behalf of a request. The closure may run again.
    pub(crate) async fn write<R: Send + 'static>(
        &self,
        ask: &Ask,
        mut change: impl FnMut(&mut Tx, &Ask) -> Result<R> + Send + 'static,
    ) -> Result<R> {
        let inner = ask.clone();
        Ok(self.store.write(ask.cause(), move |tx| change(tx, &inner)).await?.value)
    }

    /// The zone of a server's host.
    pub(crate) fn zone_of(&self, reader: &mut Reader, server: &Server) -> Result<String> {
        let Some(host) = &server.host else { return Ok(hosts::ZONE.to_owned()) };
        Ok(reader.get::<Host>(host)?.map_or_else(|| hosts::ZONE.to_owned(), |host| host.doc.zone))
    }
}

/// Numbers that old clients show: counted up within a kind, never given twice.
pub(crate) fn next_number(tx: &mut Tx, kind: &str) -> Result<u32> {
    let name = format!("compute:{kind}");
    let number = tx.meta(&name)?.unwrap_or(0) + 1;
    tx.set_meta(&name, number)?;
    Ok(number as u32)
}
