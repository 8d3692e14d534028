//! What the services that work for a server ask of compute.

use base::{Result, ServerId, Timestamp};
use store::{Reader, Tx};

/// A server that shall run, or runs.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Running {
    /// Since when it has been asked for, or has run, whichever is later.
    pub since: Timestamp,
    /// Fruitless attempts of its host to bring it there.
    pub attempts: u32,
    /// What its host last said against it, for its owner.
    pub last_error: Option<String>,
}

pub trait Guests: Send + Sync {
    /// None for a server that shall not run, and for one that is not there: nothing of it has anything to wait for.
    fn running(&self, reader: &mut Reader, server: &ServerId) -> Result<Option<Running>>;
    /// A volume that the server has shall grow: the server's history says who asked for it, and in which request.
    fn volume_grows(&self, _tx: &mut Tx, _server: &ServerId, _user: &str, _request: &str) -> Result<()> {
        Ok(())
    }
    /// It has grown.
    fn volume_grown(&self, _tx: &mut Tx, _server: &ServerId) -> Result<()> {
        Ok(())
    }
}
