//! Control's side of a session: takes polls, reports and answers, whoever carries them.

use crate::Sessions;
use agent_api::{BoxStream, ControlLink, HostAgent, LinkError, PollAnswer, PollRequest, Report, obey};
use async_trait::async_trait;
use base::{Env, Fault, HostName, ImageId, RequestId, Result};
use std::sync::Arc;
use std::time::Duration;
use store::{Cause, Store, Tx};

/// The most observations in one report.
const OBSERVATIONS: usize = 50_000;

/// What the services take over from hosts. Filled in by the cloud.
#[async_trait]
pub trait Observers: Send + Sync + 'static {
    fn host_seen(&self, tx: &mut Tx, inventory: &agent_api::HostInventory) -> Result<()>;
    fn observed(&self, tx: &mut Tx, report: &Report) -> Result<()>;
    async fn image(&self, image: &ImageId) -> Result<std::fs::File>;
}

/// The one implementation of [`ControlLink`] behind HTTP and behind simulated hosts.
#[derive(Clone)]
pub struct Link {
    pub sessions: Sessions,
    pub store: Store,
    pub env: Env,
    pub observers: Arc<dyn Observers>,
}

impl Link {
    fn cause(&self, host: &HostName, what: &str) -> Cause {
        Cause {
            actor: format!("host:{host}"),
            request_id: RequestId::new(format!("req-{}", self.env.uuid())),
            what: what.to_owned(),
        }
    }
}

fn broken(fault: Fault) -> LinkError {
    LinkError(fault.chain())
}

#[async_trait]
impl ControlLink for Link {
    async fn poll(&self, request: PollRequest) -> Result<PollAnswer, LinkError> {
        if self.sessions.enter(&request)? {
            let (observers, inventory) = (self.observers.clone(), request.inventory.clone());
            let cause = self.cause(&inventory.name, "host:seen");
            let seen = self.store.write(cause, move |tx| observers.host_seen(tx, &inventory));
            // Failing that, the next poll tries again.
            seen.await.map_err(broken)?;
            self.sessions.recorded(&request.inventory);
        }
        self.sessions.poll(&request).await
    }

    async fn report(&self, report: Report) -> Result<(), LinkError> {
        if report.guests.len() + report.ports.len() + report.routers.len() > OBSERVATIONS {
            return Err(LinkError(format!("a report may hold {OBSERVATIONS} observations")));
        }
        if !self.sessions.is_current(&report) {
            return Err(LinkError("a report of a session that is not the host's current one, or overtaken".into()));
        }
        if report.is_empty() {
            return Ok(());
        }
        let observers = self.observers.clone();
        let cause = self.cause(&report.host, "host:report");
        let written = self.store.write(cause, move |tx| observers.observed(tx, &report));
        written.await.map(drop).map_err(broken)
    }

    async fn answer_bytes(
        &self,
        host: &HostName,
        order: &str,
        answer: Result<Vec<u8>, String>,
    ) -> Result<(), LinkError> {
        self.sessions.answer_bytes(host, order, answer)
    }

    async fn answer_stream(
        &self,
        host: &HostName,
        order: &str,
        answer: Result<BoxStream, String>,
    ) -> Result<(), LinkError> {
        self.sessions.answer_stream(host, order, answer)
    }

    async fn image(&self, _host: &HostName, image: &ImageId) -> Result<std::fs::File, LinkError> {
        self.observers.image(image).await.map_err(broken)
    }
}

/// Runs an agent in this process against this control: simulated hosts, and tests. Never returns.
pub async fn host<L: ControlLink + Clone>(agent: Arc<dyn HostAgent>, link: L) {
    tokio::join!(pull(&agent, &link), tell(&agent, &link));
}

async fn pull<L: ControlLink + Clone>(agent: &Arc<dyn HostAgent>, link: &L) {
    let mut version = None;
    loop {
        let request = PollRequest {
            inventory: agent.inventory(),
            version,
            memory_sharing: agent.memory_sharing(),
        };
        match link.poll(request).await {
            Ok(answer) => {
                if let Some(delta) = answer.delta {
                    let reached = delta.version;
                    version = agent.apply(delta).await.ok().map(|()| reached);
                }
                for order in answer.orders {
                    let (agent, link) = (agent.clone(), link.clone());
                    tokio::spawn(async move { obey(&*agent, &link, order).await });
                }
            }
            Err(error) => {
                tracing::debug!("a simulated host cannot poll: {error}");
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        }
    }
}

async fn tell<L: ControlLink>(agent: &Arc<dyn HostAgent>, link: &L) {
    let mut whole = true;
    loop {
        let report = agent.observe(whole).await;
        match link.report(report).await {
            Ok(()) => whole = false,
            Err(error) => {
                tracing::debug!("a simulated host cannot report: {error}");
                whole = true;
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
}
