//! Forgets the past beyond its retention: what `as_of`, undo and the watch reach back into. What lives now, and the
//! newest version of it, stays whatever its age.

use async_trait::async_trait;
use base::{Env, FaultKind, Result};
use engine::{Outcome, Reconciler};
use store::{AsOf, Change, Rev, Store};

const PERIOD_MS: u64 = 3_600_000;
/// The one thing that this loop brings in order.
const ALL: &str = "history";

pub(crate) struct History {
    pub store: Store,
    pub env: Env,
    /// 0: everything is kept.
    pub retention_s: i64,
}

impl History {
    /// The last revision of the time that is no longer kept; `None` where nothing is as old.
    async fn beyond(&self) -> Result<Option<Rev>> {
        if self.retention_s == 0 {
            return Ok(None);
        }
        let before = self.env.now().plus_s(-self.retention_s);
        match self.store.moment(AsOf::Time(before)).await {
            Ok(moment) => Ok(Some(moment.rev)),
            // Before the first revision that there is.
            Err(fault) if fault.kind == FaultKind::Invalid => Ok(None),
            Err(fault) => Err(fault),
        }
    }
}

#[async_trait]
impl Reconciler for History {
    fn name(&self) -> &'static str {
        "history"
    }

    fn concerns(&self, _: &Change) -> Option<String> {
        None
    }

    async fn pending(&self) -> Result<Vec<String>> {
        let Some(beyond) = self.beyond().await? else { return Ok(Vec::new()) };
        let older = self.store.info().await?.oldest < beyond;
        Ok(if older { vec![ALL.to_owned()] } else { Vec::new() })
    }

    async fn reconcile(&self, _: &str) -> Result<Outcome> {
        if let Some(beyond) = self.beyond().await? {
            let trimmed = self.store.trim_history(beyond).await?;
            tracing::info!(
                rows = trimmed.rows,
                oldest = trimmed.oldest.0,
                "the past beyond its retention is forgotten"
            );
        }
        Ok(Outcome::Settled)
    }

    fn period_ms(&self) -> u64 {
        PERIOD_MS
    }
}
