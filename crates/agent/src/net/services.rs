//! The agent's side of `nubo netd`: opens the sockets in each network's namespace and hands them over with what is to
//! be served there.

use super::world::World;
use agent_api::NetworkSpec;
use base::NetworkId;
use netlink::Netns;

/// How netd is found and started.
#[derive(Clone, Debug)]
pub struct ServiceOptions {
    /// Where netd's control socket lies.
    pub socket: std::path::PathBuf,
    /// Program and arguments that become netd.
    pub command: Vec<String>,
    pub uid: u32,
    pub gid: u32,
}

pub struct Services {
    _options: Option<ServiceOptions>,
}

impl Services {
    pub fn new(options: Option<ServiceOptions>) -> Services {
        Services { _options: options }
    }
    pub fn network(&mut self, _world: &World, _spec: &NetworkSpec, _ns: &Netns) {}
    pub fn guests(&mut self, _world: &World) {}
    pub fn forget(&mut self, _id: &NetworkId) {}
}
