//! Networks as a host realises them. All of it is derived from the store: dropping an object from the view removes it
//! from the host, and rebuilding it loses nothing but connection tracking.

use base::{FloatingIpId, NetworkId, PortId, RouterId, SecurityGroupId, ServerId, SubnetId};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use std::net::IpAddr;
use std::sync::Arc;

/// A network: on the bridge driver one namespace with one bridge.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NetworkSpec {
    pub id: NetworkId,
    pub mtu: u16,
    pub admin_state_up: bool,
    pub subnets: Vec<SubnetSpec>,
    /// Set for the external network: it lives on a bridge of the underlay namespace instead of one of its own.
    pub external: Option<ExternalSpec>,
    /// The MAC and addresses of the `network:distributed` port, from which DHCP and metadata are served.
    pub service_mac: Option<String>,
    pub service_addresses: Vec<IpAddr>,
}

/// An external network of the `nat` kind: the host holds `host_address` on the bridge and routes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ExternalSpec {
    /// The host's own address, such as 172.24.4.1/24.
    pub host_address: IpNet,
    /// Masquerade outward through this interface; none: not at all.
    pub masquerade: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SubnetSpec {
    pub id: SubnetId,
    pub cidr: IpNet,
    pub gateway: Option<IpAddr>,
    pub dhcp: bool,
    pub dns: Vec<IpAddr>,
    /// Destination and next hop.
    pub host_routes: Vec<(IpNet, IpAddr)>,
    pub ipv6_ra_mode: Option<String>,
    pub ipv6_address_mode: Option<String>,
}

/// A port whose device is a guest of some host. `host_local` guests are wired here; other ports are in the view only
/// where an address set needs them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PortSpec {
    pub id: PortId,
    pub network: NetworkId,
    pub server: Option<ServerId>,
    pub mac: String,
    pub fixed_ips: Vec<(SubnetId, IpAddr)>,
    pub admin_state_up: bool,
    /// False: no filter and no anti-spoofing at all.
    pub port_security: bool,
    pub security_groups: Vec<SecurityGroupId>,
    /// More addresses the port may send from: MAC (none: its own) and network.
    pub allowed_address_pairs: Vec<(Option<String>, IpNet)>,
    pub hostname: Option<String>,
    /// DHCP option number or name, and value.
    pub extra_dhcp_opts: Vec<(String, String)>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RouterSpec {
    pub id: RouterId,
    pub admin_state_up: bool,
    pub gateway: Option<RouterGateway>,
    pub interfaces: Vec<RouterInterface>,
    pub routes: Vec<(IpNet, IpAddr)>,
    pub floating: Vec<FloatingSpec>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RouterGateway {
    pub port: PortId,
    pub network: NetworkId,
    pub mac: String,
    pub addresses: Vec<IpNet>,
    pub next_hops: Vec<IpAddr>,
    pub snat: bool,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RouterInterface {
    pub port: PortId,
    pub network: NetworkId,
    pub mac: String,
    pub addresses: Vec<IpNet>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FloatingSpec {
    pub id: FloatingIpId,
    pub floating: IpAddr,
    pub fixed: IpAddr,
}

/// A security group's rules. Members' addresses are an [`AddressSet`] of the same id, so that a change of membership
/// is one small object.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SecurityGroupSpec {
    pub id: SecurityGroupId,
    pub stateful: bool,
    pub rules: Vec<RuleSpec>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RuleSpec {
    /// True: towards the guest.
    pub ingress: bool,
    pub ipv6: bool,
    /// IP protocol number; none: any.
    pub protocol: Option<u8>,
    /// Ports, or ICMP type and code.
    pub port_min: Option<u16>,
    pub port_max: Option<u16>,
    pub remote_group: Option<SecurityGroupId>,
    pub remote_prefix: Option<IpNet>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AddressSet {
    pub id: SecurityGroupId,
    /// In control the views of a thousand hosts share one.
    pub addresses: Arc<[IpNet]>,
}

/// What a host says of a port: reported when it changes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PortObserved {
    pub id: PortId,
    /// Wired, with its rules in place.
    pub up: bool,
    pub fault: Option<String>,
}

/// What a host says of a router or a network: reported when it changes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RouterObserved {
    pub id: RouterId,
    pub up: bool,
    /// The floating addresses that are in place.
    pub floating: Vec<FloatingIpId>,
    pub fault: Option<String>,
    /// Fruitless attempts in a row, as of their last doubling.
    #[serde(default)]
    pub attempts: u32,
}
