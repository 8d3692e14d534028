//! Networks on this host: the embedded `bridge` driver.
//!
//! A tenant network is a network namespace with one bridge; a router is a namespace with a link into each of its
//! networks and one to an external bridge in the *underlay*, the namespace in which the agent itself runs. Rules are
//! nftables. Everything is derived from the view: it is planned by pure functions ([`plan`]), compared with what
//! stands ([`shape`]) and mended ([`keeper`]), so that a restart adopts what is right, repairs what is not, and never
//! touches a running guest's tap. What bears another cloud's id, or none, is never touched.
//!
//! One thread does all work in order; a change of a hundred ports that arrives together is one transaction. Only the
//! making of a tap in a network that stands goes past it ([`taps`]): a guest's start waits for it.

pub mod inventory;
mod keeper;
pub mod names;
pub mod plan;
mod seen;
mod services;
mod settle;
pub mod shape;
mod taps;
mod verify;
pub mod world;

pub use inventory::{KernelObject, external_conflicts, external_warnings, inventory, purge};
pub use services::ServiceOptions;
pub use verify::{Difference, Surplus, verify};

use crate::Wiring;
use agent_api::{AgentFault, PortObserved, RouterObserved, ViewDelta};
use async_trait::async_trait;
use base::{CloudId, PortId};
use keeper::{Job, Keeper};
use netlink::Netns;
use std::os::fd::OwnedFd;
use std::sync::{Arc, mpsc};
use std::time::Duration;
use tokio::sync::oneshot;

/// What the driver must know.
#[derive(Clone)]
pub struct Options {
    /// Eight hex digits.
    pub cloud: CloudId,
    /// The namespace of external bridges: usually [`Netns::current`].
    pub underlay: Netns,
    /// DHCP and metadata by `nubo netd`; none: not served.
    pub services: Option<ServiceOptions>,
    /// How long [`Wiring::open_tap`] waits for a port that is not in the view yet.
    pub port_patience: Duration,
}

impl Options {
    pub fn new(cloud: CloudId, underlay: Netns) -> Options {
        Options { cloud, underlay, services: None, port_patience: Duration::from_secs(5) }
    }
}

/// The bridge driver. Dropping it ends its thread and leaves everything in the kernel as it stands.
pub struct Bridge {
    jobs: mpsc::Sender<Job>,
    seen: Arc<seen::Seen>,
    taps: Arc<taps::Taps>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Bridge {
    /// Starts the driver. Nothing is changed before the first step of the view arrives.
    pub fn start(options: Options) -> Result<Bridge, netlink::Error> {
        let cloud = options.cloud.as_str();
        if cloud.len() != 8 || !cloud.bytes().all(|b| b.is_ascii_hexdigit() && !b.is_ascii_uppercase()) {
            return Err(netlink::Error::tool(format!("cloud id {cloud:?}"), "it has eight lower-case hex digits"));
        }
        let seen = Arc::new(seen::Seen::default());
        let (jobs, inbox) = mpsc::channel();
        let keeper = Keeper::new(options, seen.clone(), jobs.clone());
        let taps = keeper.taps.clone();
        let thread = std::thread::Builder::new()
            .name("networks".into())
            .spawn(move || keeper.run(inbox))
            .map_err(|e| netlink::Error::os("start a thread", e))?;
        Ok(Bridge { jobs, seen, taps, thread: Some(thread) })
    }

    async fn ask<T>(&self, job: impl FnOnce(oneshot::Sender<T>) -> Job) -> Option<T> {
        let (answer, result) = oneshot::channel();
        self.jobs.send(job(answer)).ok()?;
        result.await.ok()
    }

    /// Waits until everything that was handed in has been carried out, or has failed and waits for another attempt.
    pub async fn settled(&self) {
        self.ask(Job::Barrier).await;
    }

    /// Compares the kernel with the plan, rule by rule. Empty when they agree.
    pub async fn verify(&self) -> Vec<Difference> {
        self.ask(Job::Verify).await.unwrap_or_default()
    }

    /// Makes everything anew that differs from the plan.
    pub async fn repair(&self) {
        self.ask(Job::Repair).await;
    }

    /// Like [`Wiring::open_tap`] for a guest that shares the kernel (a container): a veth whose other end, `name`, is
    /// made in the guest's namespace with the port's MAC. [`Wiring::wire`] brings it into the bridge.
    pub async fn open_veth(&self, port: &PortId, guest: &Netns, name: &str) -> Result<(), AgentFault> {
        let (port, guest, name) = (port.clone(), guest.clone(), name.to_owned());
        self.ask(|answer| Job::OpenVeth { port, guest, name, until: None, answer })
            .await
            .unwrap_or_else(|| Err(ended()))
    }
}

fn ended() -> AgentFault {
    AgentFault {
        message: "The host's networks are being restarted.".into(),
        detail: "the network driver's thread has ended".into(),
        retried: true,
    }
}

impl Drop for Bridge {
    fn drop(&mut self) {
        let _ = self.jobs.send(Job::Stop);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

#[async_trait]
impl Wiring for Bridge {
    async fn open_tap(&self, port: &PortId) -> Result<OwnedFd, AgentFault> {
        let (taps, port) = (self.taps.clone(), port.clone());
        let known = port.clone();
        if let Ok(Some(tap)) = tokio::task::spawn_blocking(move || taps.try_open(&known)).await {
            return Ok(tap);
        }
        self.ask(|answer| Job::OpenTap { port, until: None, answer }).await.unwrap_or_else(|| Err(ended()))
    }

    async fn wire(&self, port: &PortId) -> Result<(), AgentFault> {
        let port = port.clone();
        self.ask(|answer| Job::Wire { port, until: None, answer }).await.unwrap_or_else(|| Err(ended()))
    }

    async fn unwire(&self, port: &PortId) {
        let port = port.clone();
        self.ask(|answer| Job::Unwire { port, answer }).await;
    }

    async fn apply(&self, delta: &ViewDelta) {
        let delta = Box::new(delta.clone());
        self.ask(|answer| Job::Delta { delta, answer }).await;
    }

    async fn observe(&self, whole: bool) -> (Vec<PortObserved>, Vec<RouterObserved>) {
        self.seen.observe(whole).await
    }
}
