//! What others may know of volumes, and do with them in their own transactions.

use crate::document::Attachment;
use base::Result;
use model::volume::Stage;
use store::Tx;

/// A server's attachment begins to go: its guest lets go of the volume first.
pub fn leave(tx: &mut Tx, attachment: &Attachment) -> Result<()> {
    tx.update(&Attachment { stage: Stage::Detaching, since: tx.now(), ..attachment.clone() })?;
    Ok(())
}
