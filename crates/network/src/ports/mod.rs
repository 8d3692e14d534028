//! Ports: a place on a network with a MAC and addresses, for a guest, a router, a floating address or our own services.
//!
//! Rules: (subnet, address) and (network, MAC) are unique keys of the store, so never twice; a port of a router or of
//! a floating address is removed only through what owns it. Each network with a subnet that has DHCP holds one service
//! port (`network:distributed`): its addresses are where DHCP and metadata answer. It belongs to the network's project
//! and counts against no quota, since nobody asked for it.

pub(crate) mod addresses;
mod ops;
mod read;
mod service;

use crate::attr::{Attr, Guard, Input, Kind};
use crate::crud_routes;
use crate::networks::{Network, with_network};
use crate::query::ListRequest;
use crate::resource::{Info, Resource};
use crate::standard::{Ctx, Look, Standard, object};
use crate::{Network as Service, error, pending};
use base::{Fault, HostName, NetworkId, PortId, ProjectId, Result, SecurityGroupId, ServerId, SubnetId, Timestamp};
use policy::Target;
use rest::Route;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use std::net::IpAddr;
use std::sync::Arc;
use store::{Document, Keys, Query, Reader, Tx};

pub(crate) use addresses::Wanted;
pub(crate) use read::fixed_ips as check_fixed_ips;
pub(crate) use ops::{NewPort, drop_subnet, insert, put, remove};
pub(crate) use service::{add_stateless_addresses, ensure_service_port};

/// Device owners that are ours alone.
pub const SERVICE: &str = "network:distributed";
pub const INTERFACE: &str = "network:router_interface";
pub const GATEWAY: &str = "network:router_gateway";
pub const FLOATING: &str = "network:floatingip";

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Port {
    pub id: PortId,
    /// Empty for gateways and floating addresses: the user has no say in them.
    pub project_id: ProjectId,
    pub network_id: NetworkId,
    pub name: String,
    pub admin_state_up: bool,
    pub mac: String,
    pub fixed_ips: Vec<FixedIp>,
    pub device_id: String,
    pub device_owner: String,
    pub security_groups: Vec<SecurityGroupId>,
    pub port_security: bool,
    pub address_pairs: Vec<AddressPair>,
    pub dhcp_options: Vec<DhcpOption>,
    /// Empty: not bound.
    pub host: HostName,
    /// Since when a host shall have it wired.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wanted_at: Option<Timestamp>,
    pub vnic_type: String,
    pub profile: Map<String, Value>,
    /// Counts against its project's quota.
    pub charged: bool,
    pub attached: Option<Attached>,
    pub standard: Standard,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FixedIp {
    pub subnet_id: SubnetId,
    pub ip_address: IpAddr,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AddressPair {
    /// None: the port's own.
    pub mac: Option<String>,
    /// An address or a network, as the user wrote it.
    pub ip: String,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DhcpOption {
    pub opt_name: String,
    pub opt_value: String,
    pub ip_version: u8,
}

/// What a server that holds the port wants to find again.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Attached {
    pub server: ServerId,
    /// The order in which the server has its ports.
    pub index: u32,
    /// Made for the server, so removed with it.
    pub made: bool,
    pub hostname: String,
    pub tag: Option<String>,
}

impl Document for Port {
    const KIND: &'static str = "port";
    const COUNTERS: &'static [&'static str] = crate::undo::COUNTERS;

    fn id(&self) -> &str {
        &self.id
    }

    fn needs(&self, needs: &mut store::Needs) {
        crate::undo::needs_of_port(self, needs);
    }

    fn costs(&self, costs: &mut store::Costs) {
        if self.charged {
            costs.add(&self.project_id, "port", 1);
        }
    }

    fn restored(&mut self, now: base::Timestamp, replaced: Option<&Self>) {
        crate::undo::touch_standard(&mut self.standard, now, replaced.map(|it| &it.standard));
    }

    fn undone(tx: &mut Tx, before: Option<&Self>, after: Option<&Self>) -> Result<()> {
        crate::undo::port(tx, before, after)
    }

    fn project_id(&self) -> &str {
        &self.project_id
    }

    fn keys(&self, keys: &mut Keys) {
        keys.index("network", self.network_id.as_str());
        if self.device_owner == SERVICE {
            keys.index("service", self.network_id.as_str());
        }
        if self.is_router_owned() {
            keys.index("router", self.network_id.as_str());
        }
        keys.unique("mac", [self.network_id.as_str(), &self.mac]);
        for fixed in &self.fixed_ips {
            keys.index("subnet", fixed.subnet_id.as_str());
            keys.unique("address", [fixed.subnet_id.as_str(), &fixed.ip_address.to_string()]);
        }
        if !self.device_id.is_empty() {
            keys.index("device", self.device_id.as_str());
        }
        for group in &self.security_groups {
            keys.index("group", group.as_str());
        }
        if !self.host.is_empty() {
            keys.index("host", self.host.as_str());
            keys.index("host_network", format!("{}/{}", self.host, self.network_id));
            for group in &self.security_groups {
                keys.index("host_group", format!("{}/{group}", self.host));
            }
        }
    }
}

/// What a host last said of a port. Written only when it changes; goes with the port.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Observed {
    pub id: PortId,
    pub host: HostName,
    pub up: bool,
    pub fault: Option<String>,
    /// When it went down, after it had been up there, or came back from the trash.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub down_at: Option<Timestamp>,
}

impl Observed {
    /// Before a first report.
    pub(crate) fn nothing(id: &PortId, host: &HostName) -> Observed {
        Observed { id: id.clone(), host: host.clone(), up: false, fault: None, down_at: None }
    }
}

impl Document for Observed {
    const KIND: &'static str = "port_observed";
    // Hosts say it again.
    const TRASH: bool = false;
    const UNDO: bool = false;

    fn id(&self) -> &str {
        &self.id
    }
}

const VNIC_TYPES: &[&str] = &["normal"];

const ATTRS: &[Attr] = &[
    Attr::new("name", Kind::Text(255)),
    Attr::new("network_id", Kind::Uuid).post_only().required(),
    Attr::new("admin_state_up", Kind::Bool),
    Attr::new("mac_address", Kind::Custom(read::mac_or_null)).guarded(Guard::Unset),
    Attr::new("fixed_ips", Kind::Custom(read::fixed_ips)).guarded(Guard::Unset),
    Attr::new("device_id", Kind::Text(255)).guarded(Guard::Unset),
    Attr::new("device_owner", Kind::Text(255)).guarded(Guard::Unset),
    Attr::new("security_groups", Kind::UuidList),
    Attr::new("port_security_enabled", Kind::Bool).guarded(Guard::Unset),
    Attr::new("allowed_address_pairs", Kind::Custom(read::address_pairs)).guarded(Guard::Unset),
    Attr::new("extra_dhcp_opts", Kind::Custom(read::dhcp_options)),
    Attr::new("binding:host_id", Kind::TextOrNull(255)).guarded(Guard::Unset).hidden(),
    Attr::new("binding:profile", Kind::Dict).guarded(Guard::Unset).hidden(),
    Attr::new("binding:vnic_type", Kind::OneOf(VNIC_TYPES)).guarded(Guard::Unset),
    Attr { hidden: true, ..Attr::fixed("binding:vif_type") },
    Attr { hidden: true, ..Attr::fixed("binding:vif_details") },
    Attr::fixed("status"),
];

impl Port {
    pub fn is_router_owned(&self) -> bool {
        matches!(self.device_owner.as_str(), INTERFACE | GATEWAY)
    }

    pub fn address_on(&self, subnet: &str) -> Option<IpAddr> {
        self.fixed_ips.iter().find(|fixed| fixed.subnet_id.as_str() == subnet).map(|fixed| fixed.ip_address)
    }

    pub fn network(&self, reader: &mut Reader) -> Result<Network> {
        let found = reader.doc::<Network>(&self.network_id)?;
        found.ok_or_else(|| Fault::bug(format!("port {} lies on the missing network {}", self.id, self.network_id)))
    }

    /// What its host says.
    pub fn observed(&self, reader: &mut Reader) -> Result<Option<Observed>> {
        if self.host.is_empty() {
            return Ok(None);
        }
        Ok(reader.doc::<Observed>(&self.id)?.filter(|observed| observed.host == self.host))
    }
}

/// The addresses of a port after a change of what is wanted.
pub(crate) fn change_addresses(tx: &mut Tx, network: &Network, port: &Port, wanted: &[Wanted]) -> Result<Vec<FixedIp>> {
    let (mac, owner) = (port.mac.clone(), port.device_owner.clone());
    addresses::Seeker { network, mac: &mac, owner: &owner }.change(tx, port, wanted)
}

pub(crate) fn is_router_owned(port: &Port) -> bool {
    port.is_router_owned()
}

impl Resource for Port {
    const INFO: Info = Info { one: "port", many: "ports", attrs: ATTRS, filters: &["ip_address"] };

    fn standard(&self) -> &Standard {
        &self.standard
    }

    fn standard_mut(&mut self) -> &mut Standard {
        &mut self.standard
    }

    fn not_found(id: &str) -> Fault {
        error::port_not_found(id)
    }

    fn show(&self, reader: &mut Reader, net: &Service) -> Result<Map<String, Value>> {
        let bound = !self.host.is_empty();
        let pairs = self.address_pairs.iter().map(|pair| {
            json!({"mac_address": pair.mac.as_ref().unwrap_or(&self.mac), "ip_address": pair.ip})
        });
        Ok(object(json!({
            "name": self.name,
            "network_id": self.network_id,
            "admin_state_up": self.admin_state_up,
            "status": pending::port(net, reader, self)?.state.as_str(),
            "mac_address": self.mac,
            "fixed_ips": self.fixed_ips,
            "device_id": self.device_id,
            "device_owner": self.device_owner,
            "security_groups": self.security_groups,
            "port_security_enabled": self.port_security,
            "allowed_address_pairs": pairs.collect::<Vec<_>>(),
            "extra_dhcp_opts": self.dhcp_options,
            "binding:host_id": self.host,
            "binding:profile": self.profile,
            "binding:vnic_type": self.vnic_type,
            "binding:vif_type": if bound { "bridge" } else { "unbound" },
            "binding:vif_details": if bound { json!({"port_filter": true}) } else { json!({}) },
        })))
    }

    fn target(&self, reader: &mut Reader) -> Result<Target<'static>> {
        let target = owner_target(Target::project(self.project_id.to_string()), &self.device_owner);
        Ok(match reader.doc::<Network>(&self.network_id)? {
            Some(network) => with_network(target, &network),
            None => target,
        })
    }

    fn create_target(reader: &mut Reader, ctx: &Ctx, project: &str, input: &Input) -> Result<Target<'static>> {
        let (network, _) = crate::resource::find::<Network>(reader, ctx, input.text("network_id").unwrap_or(""))?;
        let target = owner_target(Target::project(project.to_owned()), input.text("device_owner").unwrap_or(""));
        Ok(with_network(target, &network))
    }

    fn update_target(target: Target<'static>, input: &Input) -> Target<'static> {
        match input.text("device_owner") {
            Some(owner) => owner_target(target, owner),
            None => target,
        }
    }

    fn inner_rules(input: &Input) -> Vec<&'static str> {
        let has = |list: &str, key: &str| input.list(list).is_some_and(|list| list.iter().any(|item| item.get(key).is_some()));
        let rules = [
            ("fixed_ips", "ip_address", "fixed_ips:ip_address"),
            ("fixed_ips", "subnet_id", "fixed_ips:subnet_id"),
            ("allowed_address_pairs", "mac_address", "allowed_address_pairs:mac_address"),
            ("allowed_address_pairs", "ip_address", "allowed_address_pairs:ip_address"),
        ];
        rules.into_iter().filter(|(list, key, _)| has(list, key)).map(|rule| rule.2).collect()
    }

    /// A network's owner sees every port on it.
    fn foreign(reader: &mut Reader, ctx: &Ctx) -> Result<Vec<Port>> {
        let networks: Vec<Network> = reader.docs(Query::project(ctx.project()))?;
        let mut ports = Vec::new();
        for network in networks {
            ports.extend(reader.by::<Port>("network", &network.id)?);
        }
        Ok(ports)
    }

    fn index(request: &ListRequest) -> Option<(&'static str, String)> {
        if let Some(device) = request.one("device_id").filter(|id| !id.is_empty() && id.len() <= 255) {
            return Some(("device", device.to_owned()));
        }
        Some(("network", request.one("network_id").filter(|id| base::is_uuid(id))?.to_owned()))
    }

    fn create(tx: &mut Tx, ctx: &Ctx, project: &str, input: &Input) -> Result<Port> {
        ops::create(tx, ctx, project, input)
    }

    fn update(&mut self, tx: &mut Tx, ctx: &Ctx, input: &Input) -> Result<()> {
        ops::update(self, tx, ctx, input)
    }

    fn delete(self, tx: &mut Tx, ctx: &Ctx) -> Result<()> {
        ops::delete(self, tx, ctx)
    }
}

fn owner_target(target: Target<'static>, owner: &str) -> Target<'static> {
    target
        .with("device_owner", owner.to_owned())
        .with("network_device", owner.starts_with("network:"))
        .with("compute_device", owner.starts_with("compute:"))
        .with("baremetal_device", owner.starts_with("baremetal:"))
}

pub fn routes(net: &Arc<Service>) -> Vec<Route> {
    crud_routes!(net, Port, "ports", "port")
}
