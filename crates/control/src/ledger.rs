//! Holds the ledger against what there is, now and then. It always agrees; where it does not, that is a bug: it is
//! counted, said in the log, and put right, since a wrong row refuses or allows what it must not.

use async_trait::async_trait;
use base::Result;
use contract::{Recount, recount};
use engine::{Leftover, Outcome, Reconciler};
use std::sync::Arc;
use store::{Cause, Change, Store};

const PERIOD_MS: u64 = 3_600_000;
/// The one thing that this loop brings in order.
const ALL: &str = "ledger";

pub(crate) struct Ledger {
    pub store: Store,
    pub services: Vec<Arc<dyn Recount>>,
}

#[async_trait]
impl Reconciler for Ledger {
    fn name(&self) -> &'static str {
        "ledger"
    }

    fn concerns(&self, _: &Change) -> Option<String> {
        None
    }

    async fn pending(&self) -> Result<Vec<String>> {
        let services = self.services.clone();
        let wrong = self.store.read(move |reader| recount::miscounts(&services, reader)).await?;
        Ok(if wrong.is_empty() { Vec::new() } else { vec![ALL.to_owned()] })
    }

    async fn reconcile(&self, _: &str) -> Result<Outcome> {
        let services = self.services.clone();
        let mend = move |tx: &mut store::Tx| {
            for row in recount::correct(&services, tx)? {
                Leftover::Ledger.count(tx, &row.to_string())?;
            }
            Ok(())
        };
        self.store.write(Cause::new("nubo", "", "ledger.correct"), mend).await?;
        Ok(Outcome::Settled)
    }

    fn period_ms(&self) -> u64 {
        PERIOD_MS
    }
}
