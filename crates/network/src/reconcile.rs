//! Gives each router that joins something a host.
//!
//! The first living host by name takes it. A router whose host is dead stays where it is: moving it is safe only when
//! that host is proven stopped, which is not known here.

use crate::Network;
use crate::ports::Port;
use crate::routers::Router;
use crate::standard::Look;
use async_trait::async_trait;
use base::Result;
use contract::Hosts;
use engine::{Outcome, Reconciler};
use std::sync::Arc;
use store::{Cause, Change, Document, Query};

/// How long to wait when no host is alive.
const NO_HOST_MS: u64 = 1_000;

pub(crate) struct PlaceRouters {
    pub net: Arc<Network>,
    pub hosts: Arc<dyn Hosts>,
}

#[async_trait]
impl Reconciler for PlaceRouters {
    fn name(&self) -> &'static str {
        "network.place_routers"
    }

    fn concerns(&self, change: &Change) -> Option<String> {
        match &*change.kind {
            Router::KIND if change.body.is_some() => Some(change.id.clone()),
            Port::KIND => {
                let port = change.document::<Port>().ok()??;
                port.is_router_owned().then(|| port.device_id.clone())
            }
            _ => None,
        }
    }

    async fn pending(&self) -> Result<Vec<String>> {
        self.net.read(|reader| {
            let routers: Vec<Router> = reader.docs(Query::index("host", "-"))?;
            let mut pending = Vec::new();
            for router in routers {
                if !router.is_idle(reader)? {
                    pending.push(router.id.to_string());
                }
            }
            Ok(pending)
        }).await
    }

    async fn reconcile(&self, id: &str) -> Result<Outcome> {
        let wanted = id.to_owned();
        let waits = self.net.read(move |reader| {
            let Some(router) = reader.doc::<Router>(&wanted)? else { return Ok(false) };
            Ok(router.host.is_empty() && !router.is_idle(reader)?)
        }).await?;
        if !waits {
            return Ok(Outcome::Settled);
        }
        let Some(host) = self.hosts.alive().into_iter().next() else {
            return Ok(Outcome::Again { after_ms: NO_HOST_MS });
        };
        let id = id.to_owned();
        let cause = Cause::new("nubo", format!("req-{}", self.net.env.uuid()), "router:place");
        self.net.store.write(cause, move |tx| {
            let Some(mut router) = tx.doc::<Router>(&id)? else { return Ok(()) };
            if router.host.is_empty() && !router.is_idle(tx)? {
                // Where it runs is no change that a user made: the revision stays.
                router.host = host.clone();
                tx.update(&router)?;
            }
            Ok(())
        }).await?;
        Ok(Outcome::Settled)
    }
}
