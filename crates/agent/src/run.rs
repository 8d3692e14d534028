//! The agent's session with control: pulls the view, reports, obeys orders, and never ends because a link does.

use agent_api::{ControlLink, HostAgent, LinkError, PollRequest};
use base::Env;
use base::backoff::Backoff;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;

const RETRY: Backoff = Backoff { first_ms: 50, most_ms: 5_000 };
/// Orders that are carried out at a time: consoles hold theirs for as long as somebody looks.
const ORDERS: usize = 256;

/// Serves until dropped.
pub async fn run(agent: Arc<dyn HostAgent>, link: Arc<dyn ControlLink>, env: Env) {
    tokio::join!(pull(agent.clone(), link.clone(), env.clone()), report(agent, link, env));
}

/// Long polls, one after the other.
async fn pull(agent: Arc<dyn HostAgent>, link: Arc<dyn ControlLink>, env: Env) {
    let orders = Arc::new(Semaphore::new(ORDERS));
    let mut version = None;
    let mut failures = 0;
    loop {
        let request = PollRequest {
            inventory: agent.inventory(),
            version,
            memory_sharing: agent.memory_sharing(),
        };
        let problem = match link.poll(request).await {
            Ok(answer) => {
                for order in answer.orders {
                    let Ok(permit) = orders.clone().try_acquire_owned() else {
                        tracing::warn!("too many orders at a time; one was dropped");
                        continue;
                    };
                    let (agent, link) = (agent.clone(), link.clone());
                    tokio::spawn(async move {
                        if let Err(error) = agent_api::obey(&*agent, &*link, order).await {
                            tracing::debug!(%error, "an order was not answered");
                        }
                        drop(permit);
                    });
                }
                match answer.delta {
                    None => None,
                    Some(delta) => {
                        let reached = delta.version;
                        match agent.apply(delta).await {
                            Ok(()) => {
                                version = Some(reached);
                                None
                            }
                            // The same step is asked for again, from the same version.
                            Err(problem) => Some(problem),
                        }
                    }
                }
            }
            Err(LinkError(problem)) => Some(problem),
        };
        failures = wait(problem, failures, &env, "the view was not pulled").await;
    }
}

/// Reports what is observed, at once: what changes while a report is under way travels in the next one. After a failure
/// everything again, since nobody knows what has arrived.
async fn report(agent: Arc<dyn HostAgent>, link: Arc<dyn ControlLink>, env: Env) {
    let mut whole = true;
    let mut failures = 0;
    loop {
        let mut report = agent.observe(whole).await;
        if !whole {
            // Guests and ports that changed together travel together.
            if let Some(more) = futures::FutureExt::now_or_never(agent.observe(false)) {
                merge(&mut report.guests, more.guests, |it| it.id.clone());
                merge(&mut report.ports, more.ports, |it| it.id.clone());
                merge(&mut report.volumes, more.volumes, |it| it.id.clone());
                merge(&mut report.routers, more.routers, |it| it.id.clone());
            }
            if report.is_empty() {
                continue;
            }
        }
        let problem = link.report(report).await.err().map(|LinkError(problem)| problem);
        whole = problem.is_some();
        failures = wait(problem, failures, &env, "a report did not arrive").await;
    }
}

/// The newest observation of each thing, in the order in which they came.
fn merge<T, K: PartialEq>(into: &mut Vec<T>, more: Vec<T>, key: impl Fn(&T) -> K) {
    into.retain(|old| !more.iter().any(|new| key(new) == key(old)));
    into.extend(more);
}

/// Waits after a failure; says it once, and when it is over.
async fn wait(problem: Option<String>, failures: u32, env: &Env, what: &str) -> u32 {
    match problem {
        None if failures > 0 => {
            tracing::info!("control answers again");
            0
        }
        None => 0,
        Some(problem) => {
            if failures == 0 {
                tracing::info!(problem, "{what}; trying again");
            }
            tokio::time::sleep(Duration::from_millis(RETRY.delay_ms(failures + 1, &*env.random))).await;
            failures.saturating_add(1)
        }
    }
}
