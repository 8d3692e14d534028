//! How documents become the view of a host.
//!
//! A service says which objects of which hosts' views a change may have touched, and what such an object is now. Both
//! are pure functions of the store. Control keeps what each host was told, asks for the touched objects anew, and
//! sends what differs; a projector that names too much costs time, one that names too little is a bug that the
//! periodic whole projection finds.

use agent_api::{ViewKind, ViewObject};
use base::{HostName, Result};
use std::collections::BTreeMap;
use store::{Change, Reader};

/// Which hosts a touched object may belong to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Where {
    On(HostName),
    /// Not known without looking.
    Anywhere,
}

/// The objects that a change may have touched.
#[derive(Debug, Default)]
pub struct Touched(pub Vec<(Where, ViewKind, String)>);

impl Touched {
    pub fn on(&mut self, host: &HostName, kind: ViewKind, id: &str) {
        self.0.push((Where::On(host.clone()), kind, id.to_owned()));
    }

    pub fn anywhere(&mut self, kind: ViewKind, id: &str) {
        self.0.push((Where::Anywhere, kind, id.to_owned()));
    }
}

pub trait Projector: Send + Sync {
    /// Everything of this service that the host shall realise.
    fn whole(&self, reader: &mut Reader, host: &HostName) -> Result<Vec<ViewObject>>;
    /// Changes were missed: what it keeps of the store in memory is to be read anew.
    fn anew(&self) {}
    /// What a committed change may have touched, on any host. `change.body` is the new body, none for a deletion.
    fn touched(&self, reader: &mut Reader, change: &Change, touched: &mut Touched) -> Result<()>;
    /// One object as it shall be now on the host; none: not on that host, or not of this service.
    fn one(&self, reader: &mut Reader, host: &HostName, kind: ViewKind, id: &str) -> Result<Option<ViewObject>>;
    /// The same for every host that has it: what [`Projector::one`] would say of each of them, worked out once. A
    /// change of a group concerns a handful of a thousand hosts, and asking each of them would be most of the work.
    fn everywhere(&self, reader: &mut Reader, kind: ViewKind, id: &str) -> Result<BTreeMap<HostName, ViewObject>>;
}
