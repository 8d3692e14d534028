//! Counting what must never happen. The counters stand in the store, so that they survive, and in the metrics.

use base::Result;
use store::{Reader, Tx};

/// Something that a loop put right and that no code of ours should have left behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leftover {
    /// Room on a host without a server that holds it.
    Allocation,
    /// Ports of a server that is not there.
    Ports,
    /// A row of the ledger that its things do not add up to.
    Ledger,
}

impl Leftover {
    pub const ALL: [Leftover; 3] = [Leftover::Allocation, Leftover::Ports, Leftover::Ledger];

    pub fn name(self) -> &'static str {
        match self {
            Leftover::Allocation => "allocation",
            Leftover::Ports => "ports",
            Leftover::Ledger => "ledger",
        }
    }

    fn meta(self) -> String {
        format!("leftover:{}", self.name())
    }

    /// Counts one, and says it in the log.
    pub fn count(self, tx: &mut Tx, what: &str) -> Result<()> {
        tracing::error!(kind = self.name(), "a bug left something without an owner, and it is put right: {what}");
        let known = self.counted(tx)?;
        Ok(tx.set_meta(&self.meta(), known + 1)?)
    }

    /// How many there have been, ever.
    pub fn counted(self, reader: &mut Reader) -> Result<i64> {
        Ok(reader.meta(&self.meta())?.unwrap_or(0))
    }
}
