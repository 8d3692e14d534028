//! Counting the ledger again from what stands in the store.
//!
//! A ledger row is charged in the transaction that makes or removes a thing, so it always equals the sum over the
//! things. Each service that charges says here what that sum is; whoever compares (fsck, the simulator) learns of every
//! row that differs. Nothing here is used to answer a request.

use base::Result;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use store::{Reader, Tx};

/// What is used, by scope and resource as they stand in the ledger.
pub type Counts = BTreeMap<(String, String), i64>;

/// A service that charges the ledger.
pub trait Recount: Send + Sync {
    /// Names the service in what is said of a difference.
    fn name(&self) -> &'static str;

    /// What every row that this service charges shall use, counted from its documents. A row that is left out shall
    /// use nothing. Two services never charge the same row.
    fn recount(&self, reader: &mut Reader) -> Result<Counts>;
}

/// A row of the ledger that is not what its things add up to.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Miscount {
    pub scope: String,
    pub resource: String,
    /// What the ledger says, and what was counted.
    pub ledger: i64,
    pub counted: i64,
}

impl std::fmt::Display for Miscount {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Miscount { scope, resource, ledger, counted } = self;
        write!(f, "{scope} uses {counted} of {resource}, and the ledger says {ledger}")
    }
}

/// Adds to a count.
pub fn add(counts: &mut Counts, scope: &str, resource: &str, amount: i64) {
    if amount != 0 {
        *counts.entry((scope.to_owned(), resource.to_owned())).or_default() += amount;
    }
}

/// Every row on which the ledger and the services disagree, in the order of the rows. Run it in one snapshot.
pub fn miscounts(services: &[Arc<dyn Recount>], reader: &mut Reader) -> Result<Vec<Miscount>> {
    let mut counted = Counts::new();
    for service in services {
        for ((scope, resource), amount) in service.recount(reader)? {
            add(&mut counted, &scope, &resource, amount);
        }
    }
    let ledger: Counts = reader.ledger()?.into_iter().map(|(row, usage)| (row, usage.used)).collect();
    let rows: BTreeSet<_> = ledger.keys().chain(counted.keys()).collect();
    let at = |counts: &Counts, row| counts.get(row).copied().unwrap_or(0);
    let differ = rows.into_iter().filter(|row| at(&ledger, row) != at(&counted, row));
    Ok(differ
        .map(|row| Miscount {
            scope: row.0.clone(),
            resource: row.1.clone(),
            ledger: at(&ledger, row),
            counted: at(&counted, row),
        })
        .collect())
}

/// Sets every row to what was counted, and says which were wrong. Limits stay as they are.
pub fn correct(services: &[Arc<dyn Recount>], tx: &mut Tx) -> Result<Vec<Miscount>> {
    let wrong = miscounts(services, tx)?;
    for row in &wrong {
        tx.set_used(&row.scope, &row.resource, row.counted)?;
    }
    Ok(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;
    use store::{Cause, Options, Store};

    struct Fixed(&'static [(&'static str, &'static str, i64)]);

    impl Recount for Fixed {
        fn name(&self) -> &'static str {
            "fixed"
        }
        fn recount(&self, _: &mut Reader) -> Result<Counts> {
            let mut counts = Counts::new();
            self.0.iter().for_each(|(scope, resource, amount)| add(&mut counts, scope, resource, *amount));
            Ok(counts)
        }
    }

    #[tokio::test]
    async fn every_row_that_differs_is_named_and_corrected_and_limits_stay() {
        let store = Store::open(Options::memory(), base::Env::system()).await.unwrap();
        let services: Vec<Arc<dyn Recount>> =
            vec![Arc::new(Fixed(&[("a", "x", 2), ("a", "y", 1)])), Arc::new(Fixed(&[("b", "z", 3)]))];
        let charge = |tx: &mut Tx| {
            tx.set_limit("a", "x", Some(9))?;
            for (scope, resource, used) in [("a", "x", 2), ("a", "y", 5), ("c", "stray", 1), ("c", "zero", 0)] {
                tx.charge(scope, resource, used, None)?;
            }
            Ok(())
        };
        store.write(Cause::default(), charge).await.unwrap();
        let look = services.clone();
        let wrong = store.read(move |reader| miscounts(&look, reader)).await.unwrap();
        let said: Vec<String> = wrong.iter().map(Miscount::to_string).collect();
        assert_eq!(
            said,
            [
                "a uses 1 of y, and the ledger says 5",
                "b uses 3 of z, and the ledger says 0",
                "c uses 0 of stray, and the ledger says 1"
            ]
        );
        let mend = services.clone();
        let mended = store.write(Cause::default(), move |tx| correct(&mend, tx)).await.unwrap().value;
        assert_eq!(mended, wrong);
        let look = services.clone();
        assert_eq!(store.read(move |reader| miscounts(&look, reader)).await.unwrap(), []);
        let limit = store.read(|reader| Ok(reader.usage("a", "x")?.limit)).await.unwrap();
        assert_eq!(limit, Some(9));
    }
}
