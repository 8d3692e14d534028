//! What compute asks of the network service.

use crate::Caller;
use agent_api::{PortObserved, RouterObserved};
use base::{HostName, NetworkId, PortId, ProjectId, Result, SecurityGroupId, ServerId, SubnetId};
use std::collections::HashMap;
use std::net::IpAddr;
use store::{Change, Reader, Tx};

/// The networks that `POST /servers` asks for.
#[derive(Clone, Debug, PartialEq)]
pub enum NetworkRequest {
    /// The project's only network; a conflict when there are several, none when there is none.
    Auto,
    None,
    List(Vec<RequestedNetwork>),
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct RequestedNetwork {
    pub network: Option<NetworkId>,
    pub port: Option<PortId>,
    pub fixed_ip: Option<String>,
    pub tag: Option<String>,
}

/// A server's port with everything that an address list, a guest's specification and its metadata need.
#[derive(Clone, Debug, PartialEq)]
pub struct ServerPort {
    pub id: PortId,
    pub server: ServerId,
    pub network: NetworkId,
    pub network_name: String,
    pub mac: String,
    pub mtu: u16,
    pub fixed: Vec<FixedAddress>,
    /// Floating address and the fixed one that it stands for.
    pub floating: Vec<(IpAddr, IpAddr)>,
    pub security_groups: Vec<(SecurityGroupId, String)>,
    pub admin_state_up: bool,
    /// Wired on its host, as last reported.
    pub up: bool,
    pub fault: Option<String>,
    /// Made for the server, so removed with it.
    pub made_for_server: bool,
    pub tag: Option<String>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct FixedAddress {
    pub subnet: SubnetId,
    pub address: IpAddr,
    pub prefix_len: u8,
    pub gateway: Option<IpAddr>,
    pub dns: Vec<IpAddr>,
    pub dhcp: bool,
}

pub trait Ports: Send + Sync {
    /// Makes or takes over the ports of a new server, in the order asked for, and charges their quota.
    /// `security_groups` are names or ids; empty means the project's `default`.
    fn attach(
        &self,
        tx: &mut Tx,
        caller: &Caller,
        project: &ProjectId,
        server: &ServerId,
        hostname: &str,
        request: &NetworkRequest,
        security_groups: &[String],
    ) -> Result<Vec<ServerPort>>;
    /// Binds all ports of a server to a host, or to none.
    fn bind(&self, tx: &mut Tx, server: &ServerId, host: Option<&HostName>) -> Result<()>;
    /// Gives one port back: removed when it was made for the server, else unbound. NotFound when it is not the server's.
    fn detach(&self, tx: &mut Tx, server: &ServerId, port: &PortId) -> Result<()>;
    /// Gives all ports of a server back.
    fn detach_all(&self, tx: &mut Tx, server: &ServerId) -> Result<()>;
    fn of_server(&self, reader: &mut Reader, server: &ServerId) -> Result<Vec<ServerPort>>;
    /// Every server that has ports: what a sweeper holds against the servers that there are.
    fn servers_with_ports(&self, _reader: &mut Reader) -> Result<Vec<ServerId>> {
        Ok(Vec::new())
    }
    /// The ports of many servers at once; a server without ports may be missing.
    fn of_servers(&self, reader: &mut Reader, servers: &[ServerId]) -> Result<HashMap<ServerId, Vec<ServerPort>>> {
        servers.iter().map(|server| Ok((server.clone(), self.of_server(reader, server)?))).collect()
    }
    /// The servers of which a committed change may have altered what [`Ports::of_server`] says. Naming too many costs
    /// time, naming too few shows old addresses. None: not known without looking at all of them.
    fn servers_touched(&self, _reader: &mut Reader, change: &Change) -> Result<Option<Vec<ServerId>>> {
        #[derive(serde::Deserialize)]
        struct Device {
            device_id: Option<String>,
        }
        match (change.kind.as_ref(), &change.body) {
            ("port", Some(body)) => {
                let device = serde_json::from_str::<Device>(body).ok().and_then(|device| device.device_id);
                Ok(Some(device.filter(|id| !id.is_empty()).map(ServerId::new).into_iter().collect()))
            }
            ("port" | "network" | "subnet" | "floating_ip" | "security_group", _) => Ok(None),
            _ => Ok(Some(Vec::new())),
        }
    }
    /// Adds or removes a security group (name or id) on every port of a server.
    fn add_security_group(&self, tx: &mut Tx, caller: &Caller, server: &ServerId, group: &str) -> Result<()>;
    fn remove_security_group(&self, tx: &mut Tx, caller: &Caller, server: &ServerId, group: &str) -> Result<()>;
    /// Takes over what a host reports. Writes only what changed.
    fn ports_observed(&self, tx: &mut Tx, host: &HostName, ports: &[PortObserved]) -> Result<()>;
    fn routers_observed(&self, tx: &mut Tx, host: &HostName, routers: &[RouterObserved]) -> Result<()>;
}
