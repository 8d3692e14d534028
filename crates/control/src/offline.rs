//! The store without a control plane around it: for fsck while control is down. Nothing runs, nothing is served.

use crate::audit::{Audit, Finding, Object};
use crate::cloud::{CloudOptions, store_options};
use crate::sessions::Sessions;
use base::{Env, Fault, Result};
use compute::Compute;
use contract::Recount;
use network::Network;
use policy::Policy;
use serde_json::Value;
use std::collections::BTreeSet;
use std::sync::Arc;
use store::Store;
use volume::Volumes;

/// A store that nobody serves.
pub struct Offline {
    store: Store,
    audit: Arc<Audit>,
}

impl Offline {
    /// Opens a store that exists. The caller has made sure that no control process has it.
    pub async fn open(options: CloudOptions, env: Env) -> Result<Offline> {
        let mut store_options = store_options(&options);
        store_options.secrets = store::Secrets::parse(&options.bootstrap.secret_keys)?;
        let kinds = store_options.kinds.clone();
        let store = Store::open(store_options, env.clone()).await?;
        let cloud =
            i64::from_str_radix(&options.bootstrap.cloud_id, 16).map_err(|_| Fault::bug("a cloud id is hex"))?;
        let known = store.read(|reader| Ok(reader.meta("cloud_id")?)).await?;
        if known != Some(cloud) {
            return Err(Fault::conflict(format!("The store is not that of cloud {}.", options.bootstrap.cloud_id)));
        }
        let policy = Arc::new(Policy::joined(&crate::policies::DEFAULTS, options.policy.as_deref())?);
        let sessions = Sessions::new(store.clone(), env.clone());
        let image = image::Service::new(store.clone(), env.clone(), image::Options::new(&options.images))?;
        let network_options = network::Options { uplink: options.masquerade.clone(), ..network::Options::default() };
        let network = Network::new(store.clone(), env.clone(), network_options, policy.clone());
        let hosts = Arc::new(sessions.clone());
        let volume = Volumes::new(
            store.clone(),
            env.clone(),
            volume::Options::default(),
            image.clone(),
            hosts.clone(),
            policy.clone(),
        );
        let compute = Compute::new(
            store.clone(),
            env,
            compute::Options::default(),
            image.clone(),
            network.clone(),
            volume.clone(),
            hosts,
            Arc::new(sessions),
            policy,
        );
        let recounts: Vec<Arc<dyn Recount>> = vec![image, network.clone(), volume.clone(), compute.clone()];
        let audit = Arc::new(Audit { kinds, projectors: vec![network, volume, compute], recounts });
        Ok(Offline { store, audit })
    }

    /// What is looked at: for maintenance, and for tests that plant damage.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// As `GET /nubo/v1/audit`.
    pub async fn answer(&self) -> Result<Value> {
        let audit = self.audit.clone();
        self.store.read(move |reader| audit.answer(reader)).await
    }

    /// As `GET /nubo/v1/owners`.
    pub async fn owners(&self) -> Result<Value> {
        let audit = self.audit.clone();
        self.store.read(move |reader| audit.owners(reader)).await
    }

    pub async fn findings(&self) -> Result<Vec<Finding>> {
        let audit = self.audit.clone();
        self.store.read(move |reader| audit.findings(reader)).await
    }

    /// As `POST /nubo/v1/repair`.
    pub async fn repair(&self, objects: BTreeSet<Object>) -> Result<Vec<String>> {
        self.audit.repair(&self.store, "nubo fsck", objects).await
    }
}
