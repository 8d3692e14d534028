//! The view of a host: all objects that it shall realise, and how a change of it travels.

use crate::{
    AddressSet, GuestObserved, GuestSpec, HostInventory, MemorySharing, NetworkSpec, PortObserved, PortSpec, RouterObserved,
    RouterSpec, SecurityGroupSpec, VolumeObserved, VolumeSpec,
};
use base::ServerId;
use serde::{Deserialize, Serialize};

/// One object of a view.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum ViewObject {
    Guest(GuestSpec),
    Network(NetworkSpec),
    Port(PortSpec),
    Router(RouterSpec),
    SecurityGroup(SecurityGroupSpec),
    AddressSet(AddressSet),
    Volume(VolumeSpec),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ViewKind {
    Guest,
    Network,
    Port,
    Router,
    SecurityGroup,
    AddressSet,
    Volume,
}

impl ViewObject {
    pub fn key(&self) -> (ViewKind, &str) {
        match self {
            ViewObject::Guest(it) => (ViewKind::Guest, it.id.as_str()),
            ViewObject::Network(it) => (ViewKind::Network, it.id.as_str()),
            ViewObject::Port(it) => (ViewKind::Port, it.id.as_str()),
            ViewObject::Router(it) => (ViewKind::Router, it.id.as_str()),
            ViewObject::SecurityGroup(it) => (ViewKind::SecurityGroup, it.id.as_str()),
            ViewObject::AddressSet(it) => (ViewKind::AddressSet, it.id.as_str()),
            ViewObject::Volume(it) => (ViewKind::Volume, it.id.as_str()),
        }
    }
}

/// A step from one version of a view to the next. `whole` replaces everything but guests and volumes: one that is
/// missing from a whole view is left as it is and reported, and goes only when a spec asks for its absence.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ViewDelta {
    /// Names the version this leads to; handed back at the next poll.
    pub version: u64,
    pub whole: bool,
    pub put: Vec<ViewObject>,
    pub remove: Vec<(ViewKind, String)>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PollRequest {
    pub inventory: HostInventory,
    /// The version of the last delta that was applied; none: send the whole view.
    pub version: Option<u64>,
    /// What its guests share, counted now: no inventory, which stands in the store. None: its kernel shares nothing.
    #[serde(default)]
    pub memory_sharing: Option<MemorySharing>,
}

/// Answered when the view has changed or an order waits, or empty after about 20 seconds.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct PollAnswer {
    pub delta: Option<ViewDelta>,
    pub orders: Vec<Order>,
}

/// Something that must be answered at once. `id` is secret and serves for one answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Order {
    pub id: String,
    pub what: OrderKind,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "order", rename_all = "snake_case")]
pub enum OrderKind {
    /// The last `bytes` bytes of the console log, answered as bytes.
    ConsoleLog { server: ServerId, bytes: u64 },
    /// A byte stream to the guest's VNC server.
    Vnc { server: ServerId },
    /// A byte stream to the guest's serial console.
    Serial { server: ServerId },
    /// A copy of the guest's root disk, as [`crate::send_disk`] sends it.
    Disk { server: ServerId },
    /// A copy of a volume, as [`crate::send_disk`] sends it.
    Volume { volume: base::VolumeId, format: crate::DiskFormat },
}

/// What a host has seen since its last report. Delivered at least once; a session starts with everything.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Report {
    pub host: base::HostName,
    pub session: String,
    /// Rises with every report of a session, so that one that was held up on its way does not undo a later one. 0: not
    /// counted.
    #[serde(default)]
    pub sequence: u64,
    /// True: this names every guest, volume, port and router of the host, and what is missing is absent.
    pub whole: bool,
    pub guests: Vec<GuestObserved>,
    pub ports: Vec<PortObserved>,
    pub routers: Vec<RouterObserved>,
    #[serde(default)]
    pub volumes: Vec<VolumeObserved>,
}

impl Report {
    pub fn is_empty(&self) -> bool {
        !self.whole
            && self.guests.is_empty()
            && self.ports.is_empty()
            && self.routers.is_empty()
            && self.volumes.is_empty()
    }
}
