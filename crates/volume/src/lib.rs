//! The block storage service: volumes, their snapshots, types, attachments and transfers, as Cinder's API v3 shows them.
//!
//! One folder or file per resource. Owns all documents whose kind begins with `volume`. This crate never calls a host:
//! it writes what volumes shall be, tells hosts so through its [`contract::Projector`], and takes over what they report
//! in [`Volumes::observed`]. Images and servers belong to others and are reached through `contract`.

mod ask;
mod attachments;
mod document;
mod explain;
mod filters;
mod hosts;
mod listing;
mod messages;
mod metadata;
mod observe;
mod place;
mod policy;
mod projector;
mod qos;
mod quota;
mod servers;
mod sight;
mod snapshots;
mod sweep;
mod transfers;
mod trash;
mod types;
mod versions;
mod volumes;

pub use document::{
    Attachment, Origin, Pool, Snapshot, SnapshotTombstone, TrashedSnapshot, TrashedVolume, Volume, VolumeObserved,
    VolumeTombstone,
};
pub use policy::RULES;
pub use types::VolumeType;

pub(crate) use ask::Ask;

use ::policy::Policy;
use base::{Env, Result, ServerId, Timestamp, VolumeId};
use contract::{Disks, Guests, Hosts, Images, Intake};
use engine::Reconciler;
use rest::{Access, Envelope, Method, Microversions, Route, Service, Version};
use std::sync::{Arc, OnceLock, Weak};
use store::{Query, Reader, Store, Tx};

/// What is spoken: every change in this range that touches an operation of ours is made.
pub const VERSIONS: Microversions =
    Microversions { service_type: "volume", legacy_header: None, min: Version(3, 0), max: Version(3, 66) };

#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// How much more than it has a host hands out: volumes take room as they are written. Cinder's default.
    pub over_subscription: f64,
    /// How long after its start control waits for hosts to call before it says that there is none.
    pub host_grace_ms: i64,
    /// After it what is on its way is in error.
    pub deadline_s: i64,
    /// After it what was reserved for an attachment or a detachment that never came is free again.
    pub hold_s: i64,
    /// After it an image that is made of a volume is given up.
    pub upload_s: i64,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            over_subscription: 20.0,
            host_grace_ms: 15_000,
            deadline_s: 30 * 60,
            hold_s: 30 * 60,
            upload_s: 24 * 3600,
        }
    }
}

pub struct Volumes {
    pub(crate) store: Store,
    pub(crate) env: Env,
    pub(crate) options: Options,
    pub(crate) images: Arc<dyn Images>,
    pub(crate) hosts: Arc<dyn Hosts>,
    pub(crate) policy: Arc<Policy>,
    pub(crate) started: Timestamp,
    guests: OnceLock<Weak<dyn Guests>>,
}

/// The kinds of documents, for opening the store.
pub fn kinds() -> Vec<store::Kind> {
    use store::Kind;
    vec![
        Kind::of::<Volume>(),
        Kind::of::<VolumeObserved>(),
        Kind::of::<TrashedVolume>(),
        Kind::of::<VolumeTombstone>(),
        Kind::of::<SnapshotTombstone>(),
        Kind::of::<Snapshot>(),
        Kind::of::<TrashedSnapshot>(),
        Kind::of::<Attachment>(),
        Kind::of::<document::Leaving>(),
        Kind::of::<Pool>(),
        Kind::of::<VolumeType>(),
        Kind::of::<qos::Qos>(),
        Kind::of::<quota::QuotaClass>(),
        Kind::of::<messages::Message>(),
        Kind::of::<transfers::Transfer>(),
    ]
}

/// Makes what no API call can make: the type of volumes that name none. Repeatable.
///
/// # Errors
/// What the store says.
pub async fn bootstrap(store: &Store) -> Result<()> {
    if store.read_few(types::default_type).await?.is_some() {
        return Ok(());
    }
    store.write(store::Cause::new("nubo", "", "volume.bootstrap"), types::make_default).await.map(drop)
}

/// What cannot answer for the past.
const NO_PAST: &[(&str, &str)] = &[
    ("pools:list", "how much room hosts had is not written down"),
    ("volume_services:list", "how hosts were is not written down"),
    ("volume_hosts:list", "how hosts were is not written down"),
    ("capabilities:show", "what hosts could do is not written down"),
];

impl Volumes {
    /// `policy` knows [`RULES`].
    pub fn new(
        store: Store,
        env: Env,
        options: Options,
        images: Arc<dyn Images>,
        hosts: Arc<dyn Hosts>,
        policy: Arc<Policy>,
    ) -> Arc<Volumes> {
        let started = env.now();
        Arc::new(Volumes { store, env, options, images, hosts, policy, started, guests: OnceLock::new() })
    }

    /// Set once, after compute stands.
    pub fn meet(&self, guests: Weak<dyn Guests>) {
        if self.guests.set(guests).is_err() {
            tracing::error!("the volume service met compute twice");
        }
    }

    /// Says something to whom has servers, for each of this cloud's that has the volume.
    pub(crate) fn tell(
        &self,
        tx: &mut Tx,
        volume: &VolumeId,
        say: impl Fn(&dyn Guests, &mut Tx, &ServerId) -> Result<()>,
    ) -> Result<()> {
        let Some(guests) = self.guests.get().and_then(Weak::upgrade) else { return Ok(()) };
        for attachment in tx.list::<Attachment>(Query::index("volume", volume.as_str()))? {
            if let Some(server) = attachment.server.as_ref().filter(|_| attachment.by == document::By::Server) {
                say(&*guests, tx, server)?;
            }
        }
        Ok(())
    }

    pub fn service(self: &Arc<Self>) -> Service {
        let routes = [
            versions::routes(self),
            volumes::routes(self),
            snapshots::routes(self),
            types::routes(self),
            qos::routes(self),
            attachments::routes(self),
            transfers::routes(self),
            quota::routes(self),
            hosts::routes(self),
            filters::routes(self),
            messages::routes(self),
        ];
        Service {
            name: "volume",
            prefix: "/volume",
            envelope: Envelope::Volume,
            microversions: Some(VERSIONS),
            policy: self.policy.clone(),
            routes: rest::no_past(routes.concat(), NO_PAST),
        }
    }

    /// The loops that bring volumes to hosts and out of the cloud.
    pub fn loops(self: &Arc<Self>) -> Vec<Arc<dyn Reconciler>> {
        vec![Arc::new(place::Placer(self.clone())), Arc::new(sweep::Sweeper(self.clone()))]
    }

    /// What the jobs of this service do.
    pub fn works(self: &Arc<Self>, intake: Arc<dyn Intake>, disks: Arc<dyn Disks>) -> Vec<Arc<dyn engine::Work>> {
        vec![Arc::new(volumes::upload::ImageWork { volumes: self.clone(), intake, disks })]
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
}

/// One line of a route table.
macro_rules! table {
    ($state:expr; $($method:ident $path:literal $operation:literal $rule:literal $success:literal $handler:path $(, $more:ident($($arg:expr),*))*;)*) => {
        vec![$(rest::Route::new(
            $state, rest::Method::$method, $path, $operation, rest::Access::Rule($rule), $success, $handler,
        )$(.$more($($arg),*))*),*]
    };
}
pub(crate) use table;

/// A route that anybody may ask.
pub(crate) fn open<F, Fut>(state: &Arc<Volumes>, path: &'static str, operation: &'static str, ok: u16, f: F) -> Route
where
    F: Fn(Arc<Volumes>, rest::Call) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<rest::Reply>> + Send + 'static,
{
    Route::new(state, Method::GET, path, operation, Access::Open, ok, f)
}
