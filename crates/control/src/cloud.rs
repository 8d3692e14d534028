//! A whole control plane: opened from its store, closed by dropping it.

use crate::audit::Audit;
use crate::dry_run;
use crate::idempotency;
use crate::history::History;
use crate::ledger::Ledger;
use crate::link::{Link, Observers};
use crate::own_api::{self, Own};
use crate::trash;
use crate::sessions::Sessions;
use agent_api::{HostInventory, Report};
use axum::body::Body;
use base::{CloudId, Env, Fault, ImageId, Result};
use compute::Compute;
use contract::{Guests, Hosts, Miscount, Projector, Recount};
use http::{Request, Response};
use identity::Identity;
use model::deadline::Deadlines;
use network::Network;
use policy::Policy;
use rest::{Gateway, GatewayOptions};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use store::{Cause, Store, Tx};
use tokio::task::JoinSet;
use volume::Volumes;

/// What setup draws for a new cloud.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Bootstrap {
    pub cloud_id: CloudId,
    pub admin_password: String,
    pub demo_password: String,
    /// What secrets are sealed with in the store ([`store::Secrets::parse`]), oldest first.
    #[serde(default)]
    pub secret_keys: Vec<String>,
}

pub struct CloudOptions {
    /// `sqlite:PATH`, `sqlite::memory:` or `postgres://…`.
    pub store_url: String,
    /// Where clients reach the cloud; no trailing slash.
    pub public_url: String,
    pub images: PathBuf,
    /// Where images are cached, and how many bytes of them.
    pub image_cache: Option<image::CacheOptions>,
    /// What holds images beside that folder, by the ids that clients know them by.
    pub image_stores: BTreeMap<String, image::StoreOptions>,
    /// Where images go that nobody names a store for; none: to the folder.
    pub image_default_store: Option<String>,
    /// The text of `policy.yaml`.
    pub policy: Option<String>,
    pub bcrypt_rounds: u32,
    pub compliance: identity::compliance::Compliance,
    /// How limits of projects and domains bind each other.
    pub limit_model: identity::limit::Model,
    pub federation: identity::federation::Options,
    /// Connects to the directories of domains; none in the simulator.
    pub directories: Option<Arc<dyn identity::directory::Connect>>,
    pub token_provider: identity::Provider,
    pub auth_methods: identity::token::methods::Order,
    pub login_limit: identity::login_limit::Options,
    pub image_format_enforcement: bool,
    pub image_import: ImageImport,
    /// The text of a file of property protections, and what its words name.
    pub image_protections: Option<(String, image::protection::Format)>,
    pub bootstrap: Bootstrap,
    /// The interface through which the external network is masqueraded.
    pub masquerade: Option<String>,
    /// How long what was deleted can be brought back; 0: it is gone at once.
    pub trash_retention_s: i64,
    /// How long the past can be asked for and undone; at least as long as the trash is kept. 0: for ever.
    pub history_retention_s: i64,
    /// Nova's `reclaim_instance_interval`; 0: no soft delete.
    pub reclaim_instance_interval_s: i64,
    /// Until when what is on its way may be so.
    pub deadlines: Deadlines,
}

/// How images are fetched from elsewhere.
#[derive(Clone, Default)]
pub struct ImageImport {
    pub rules: image::web::Rules,
    /// Instead of the network: the simulator's.
    pub web: Option<Arc<dyn image::web::Web>>,
    /// What imports make of disks; none: they stay what they are.
    pub convert_to: Option<agent_api::DiskFormat>,
}

/// How long the past is kept unless somebody says otherwise: thirty days.
pub const HISTORY_RETENTION_S: i64 = 30 * 24 * 3600;
/// How long the trash is kept unless somebody says otherwise: a day.
pub const TRASH_RETENTION_S: i64 = 24 * 3600;

/// A control plane. Cheap to clone; the last clone's drop stops its tasks.
#[derive(Clone)]
pub struct Cloud(Arc<Inner>);

struct Inner {
    gateway: Gateway,
    sessions: Sessions,
    link: Link,
    recounts: Vec<Arc<dyn Recount>>,
    _tasks: JoinSet<()>,
}

/// The name of the region that a cloud is.
const REGION: &str = "RegionOne";

const SERVICES: [(&str, &str, &str); 6] = [
    ("identity", "keystone", "/identity"),
    ("image", "glance", "/image"),
    ("network", "neutron", "/network"),
    ("compute", "nova", "/compute/v2.1"),
    ("block-storage", "cinder", "/volume/v3/$(project_id)s"),
    // The name by which older clients look for it.
    ("volumev3", "cinderv3", "/volume/v3/$(project_id)s"),
];

struct Services {
    image: Arc<image::Service>,
    network: Arc<Network>,
    compute: Arc<Compute>,
    volume: Arc<Volumes>,
}

#[async_trait::async_trait]
impl Observers for Services {
    fn host_seen(&self, tx: &mut Tx, inventory: &HostInventory) -> Result<()> {
        self.volume.host_seen(tx, inventory)?;
        self.compute.host_seen(tx, inventory)
    }

    fn observed(&self, tx: &mut Tx, report: &Report) -> Result<()> {
        contract::Ports::ports_observed(&*self.network, tx, &report.host, &report.ports)?;
        contract::Ports::routers_observed(&*self.network, tx, &report.host, &report.routers)?;
        self.volume.observed(tx, report)?;
        self.compute.observed(tx, report)
    }

    async fn image(&self, image: &ImageId) -> Result<std::fs::File> {
        self.image.open_file(image).await
    }
}

impl Cloud {
    pub async fn open(options: CloudOptions, env: Env) -> Result<Cloud> {
        Cloud::open_with(options, env, |store| store).await
    }

    /// As [`Cloud::open`], with the store opened as `adjust` says: inline and with hooks, for the simulator.
    pub async fn open_with(
        options: CloudOptions,
        env: Env,
        adjust: impl FnOnce(store::Options) -> store::Options,
    ) -> Result<Cloud> {
        let store = open_store(&options, &env, adjust).await?;
        let policy = Arc::new(Policy::joined(&crate::policies::DEFAULTS, options.policy.as_deref())?);
        let sealed = store.reseal().await?;
        if sealed > 0 {
            tracing::info!(sealed, "sealed secrets anew");
        }
        bootstrap(&store, &env, &options).await?;
        volume::bootstrap(&store).await?;
        image::bootstrap(&store).await?;
        let identity = open_identity(&store, &env, &options).await?;
        let sessions = Sessions::new(store.clone(), env.clone());
        let hosts: Arc<dyn Hosts> = Arc::new(sessions.clone());
        let mut image_options = image::Options::new(&options.images);
        image_options.format_enforcement = options.image_format_enforcement;
        image_options.deadlines = options.deadlines;
        image_options.quota.limits = Some(identity.clone());
        image_options.region = REGION.into();
        image_options.stores = options.image_stores.clone();
        image_options.cache = options.image_cache.clone();
        image_options.default_store = options.image_default_store.clone();
        if let Some((text, format)) = &options.image_protections {
            let protections = image::protection::Protections::read(text, *format, policy.clone())?;
            image_options.protections = Arc::new(protections);
        }
        image_options.web_rules = options.image_import.rules.clone();
        image_options.convert_to = options.image_import.convert_to;
        let web = options.image_import.web.clone();
        image_options.web = web.unwrap_or_else(|| Arc::new(image::web::Client::default()));
        let image = image::Service::new(store.clone(), env.clone(), image_options)?;
        let network_options = network::Options {
            uplink: options.masquerade.clone(),
            deadlines: options.deadlines,
            ..network::Options::default()
        };
        let network = Network::new(store.clone(), env.clone(), network_options, policy.clone());
        let volume = Volumes::new(
            store.clone(),
            env.clone(),
            volume::Options {
                deadline_s: options.deadlines.seconds(model::deadline::Operation::Volume),
                upload_s: options.deadlines.seconds(model::deadline::Operation::Image),
                ..volume::Options::default()
            },
            image.clone(),
            hosts.clone(),
            policy.clone(),
        );
        let compute = Compute::new(
            store.clone(),
            env.clone(),
            compute::Options {
                reclaim_interval_s: options.reclaim_instance_interval_s,
                deadlines: options.deadlines,
                ..compute::Options::default()
            },
            image.clone(),
            network.clone(),
            volume.clone(),
            hosts.clone(),
            Arc::new(sessions.clone()),
            policy.clone(),
        );
        let guests: Arc<dyn Guests> = compute.clone();
        network.meet(Arc::downgrade(&hosts), Arc::downgrade(&guests));
        volume.meet(Arc::downgrade(&guests));
        let projectors: Vec<Arc<dyn Projector>> = vec![network.clone(), volume.clone(), compute.clone()];
        sessions.set_projectors(&projectors);
        let recounts: Vec<Arc<dyn Recount>> = vec![image.clone(), network.clone(), volume.clone(), compute.clone()];
        let kinds = store_options(&options).kinds;
        let audit = Arc::new(Audit { kinds, projectors, recounts: recounts.clone() });
        let own = Arc::new(Own {
            store: store.clone(),
            sessions: sessions.clone(),
            audit,
            image: image.clone(),
            explains: vec![image.clone(), network.clone(), volume.clone(), compute.clone()],
            loops: OnceLock::new(),
            services: OnceLock::new(),
            gateway: OnceLock::new(),
        });
        let bin = Arc::new(trash::Bin {
            own: own.clone(),
            identity: identity.clone(),
            image: image.clone(),
            compute: compute.clone(),
            volume: volume.clone(),
        });
        let mut services = vec![own_api::service(&own, identity.clone(), &bin, &policy)?, identity.service(policy.clone()), image.rest(policy.clone())];
        services.push(network.service());
        services.push(volume.service());
        services.extend(compute.services());
        let _ = own.services.set(SERVICES.iter().map(|(kind, _, _)| *kind).collect());
        let gateway_options =
            GatewayOptions { public_url: options.public_url.clone(), env: env.clone(), identity_path: "/identity" };
        let gateway = Gateway::new(gateway_options, identity.clone(), services)?.with_history(store.clone())?;
        let keys = idempotency::Keys::new(store.clone(), env.clone());
        gateway.set_repeats(keys.clone());
        gateway.set_effects(Arc::new(dry_run::Meaning { store: store.clone() }));
        let _ = own.gateway.set(gateway.downgrade());
        let mut reconcilers: Vec<Arc<dyn engine::Reconciler>> =
            vec![Arc::new(image::Sweeper(image.clone())), Arc::new(image::ObjectSweeper(image.clone()))];
        reconcilers.extend(network.loops(hosts));
        reconcilers.extend(volume.loops());
        reconcilers.extend(compute.loops());
        let intake = Arc::new(image::SnapshotIntake(image.clone()));
        let mut works = compute.works(intake.clone(), Arc::new(sessions.clone()));
        works.extend(volume.works(intake, Arc::new(sessions.clone())));
        works.push(Arc::new(image::ImportWork(image.clone())));
        works.push(Arc::new(image::CopyWork(image.clone())));
        // SQLite has one control process; of several, each waits for the leases of the others to run out.
        let sole = options.store_url.starts_with("sqlite");
        reconcilers.push(Arc::new(engine::Jobs::new(store.clone(), env.clone(), sole, works)));
        reconcilers.push(Arc::new(idempotency::Forget(keys)));
        reconcilers.push(Arc::new(Ledger { store: store.clone(), services: recounts.clone() }));
        // What rests in the trash comes back by its past.
        let kept = options.history_retention_s;
        let retention_s = if kept == 0 { 0 } else { kept.max(options.trash_retention_s) };
        reconcilers.push(Arc::new(History { store: store.clone(), env: env.clone(), retention_s }));
        let _ = own.loops.set(engine::run(&store, &env, reconcilers));
        let observers = Arc::new(Services { image, network, compute, volume });
        let link = Link { sessions: sessions.clone(), store, env, observers };
        let mut tasks = JoinSet::new();
        tasks.spawn(identity.run());
        let projection = sessions.clone();
        tasks.spawn(async move { projection.project().await });
        Ok(Cloud(Arc::new(Inner { gateway, sessions, link, recounts, _tasks: tasks })))
    }

    /// Answers one request of the public API.
    pub async fn answer(&self, request: Request<Body>) -> Response<Body> {
        self.0.gateway.handle(request).await
    }

    /// What hosts talk to.
    pub fn link(&self) -> Link {
        self.0.link.clone()
    }

    /// What everything is kept in: for maintenance, and for tests that look beneath the API.
    pub fn store(&self) -> &Store {
        &self.0.link.store
    }

    pub fn gateway(&self) -> &Gateway {
        &self.0.gateway
    }

    /// Every service that charges the ledger.
    pub fn recounts(&self) -> Vec<Arc<dyn Recount>> {
        self.0.recounts.clone()
    }

    /// Every row of the ledger that is not what its things add up to: always empty, unless there is a bug.
    pub async fn miscounts(&self) -> Result<Vec<Miscount>> {
        let services = self.recounts();
        self.0.link.store.read(move |reader| contract::recount::miscounts(&services, reader)).await
    }

    /// Waits until `count` hosts poll.
    pub async fn wait_hosts(&self, count: usize) {
        while self.0.sessions.alive().len() < count {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

async fn open_store(
    options: &CloudOptions,
    env: &Env,
    adjust: impl FnOnce(store::Options) -> store::Options,
) -> Result<Store> {
    let mut store = store_options(options);
    store.secrets = store::Secrets::parse(&options.bootstrap.secret_keys)?;
    Store::open(adjust(store), env.clone()).await
}

/// With every kind of document that any service keeps.
pub(crate) fn store_options(options: &CloudOptions) -> store::Options {
    let mut store = store::Options::new(&options.store_url);
    store.trash_ms = options.trash_retention_s.saturating_mul(1000);
    store.kinds.extend(store::kinds());
    store.kinds.extend(engine::kinds());
    store.kinds.extend(identity::kinds());
    store.kinds.extend(image::kinds());
    store.kinds.extend(compute::kinds());
    store.kinds.extend(volume::kinds());
    store.kinds.push(store::Kind::of::<idempotency::Record>());
    Network::register(store)
}

fn algorithm(options: &CloudOptions) -> identity::Algorithm {
    identity::Algorithm::Bcrypt { rounds: options.bcrypt_rounds }
}

/// Makes what no API call can make: roles, the first users and projects, the catalog. Repeatable; a start after the
/// first finds the mark and hashes nothing.
async fn bootstrap(store: &Store, env: &Env, options: &CloudOptions) -> Result<()> {
    // The second brought the catalog of block storage.
    const VERSION: i64 = 2;
    let cloud = i64::from_str_radix(&options.bootstrap.cloud_id, 16).map_err(|_| Fault::bug("a cloud id is hex"))?;
    let (done, known) = store.read_few(|r| Ok((r.meta("bootstrap")?, r.meta("cloud_id")?))).await?;
    if let Some(known) = known.filter(|known| *known != cloud) {
        return Err(Fault::conflict(format!("The store belongs to cloud {known:08x}, and this is cloud {cloud:08x}.")));
    }
    if done == Some(VERSION) {
        return Ok(());
    }
    let services = SERVICES.iter().map(|(kind, name, path)| identity::ServiceSpec { kind, name, path }).collect();
    let identity_options = identity::BootstrapOptions {
        admin_password: options.bootstrap.admin_password.clone(),
        demo_password: Some(options.bootstrap.demo_password.clone()),
        password_algorithm: algorithm(options),
        region: REGION.into(),
        services,
    };
    let cause = Cause::new("nubo", format!("req-{}", env.uuid()), "bootstrap");
    let write = store.write(cause, move |tx| {
        identity::bootstrap(tx, &identity_options)?;
        tx.set_meta("cloud_id", cloud)?;
        Ok(tx.set_meta("bootstrap", VERSION)?)
    });
    write.await.map(drop)
}

async fn open_identity(store: &Store, env: &Env, options: &CloudOptions) -> Result<Arc<Identity>> {
    let identity_options = identity::Options {
        public_url: options.public_url.clone(),
        password_algorithm: algorithm(options),
        compliance: options.compliance.clone(),
        limit_model: options.limit_model,
        federation: options.federation.clone(),
        directories: options.directories.clone(),
        token_provider: options.token_provider,
        methods: options.auth_methods,
        login_limit: options.login_limit.clone(),
        alone: options.store_url.starts_with("sqlite"),
        ..identity::Options::default()
    };
    Identity::open(store.clone(), env.clone(), identity_options).await
}
