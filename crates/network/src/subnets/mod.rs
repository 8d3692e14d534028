//! Subnets: a range of addresses of a network, its gateway, and what DHCP tells.
//!
//! Rules: subnets of one network never overlap; a gateway is never in a pool; a subnet with DHCP has an address of the
//! network's service port, in the same transaction. Addresses are handed out lowest first: predictable, and a large
//! subnet stays one range (see [`crate::ranges::Used`]).

mod ops;
pub mod plan;

use crate::attr::{self, Attr, Guard, Input, Kind};
use crate::crud_routes;
use crate::networks::{Network, with_network};
use crate::query::ListRequest;
use crate::ranges::{Range, Used};
use crate::resource::{Info, Resource};
use crate::standard::{Ctx, Look, Standard, object};
use crate::{Network as Service, error};
use base::{Fault, NetworkId, ProjectId, Result, SubnetId};
use ipnet::IpNet;
use policy::Target;
use rest::Route;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use std::net::IpAddr;
use std::sync::Arc;
use store::{Document, Keys, Query, Reader, Tx};

pub(crate) use ops::{delete, leaves, read_routes, remove, routes as check_routes};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Subnet {
    pub id: SubnetId,
    pub project_id: ProjectId,
    pub network_id: NetworkId,
    pub name: String,
    pub cidr: IpNet,
    pub gateway: Option<IpAddr>,
    pub pools: Vec<Range>,
    pub dhcp: bool,
    pub dns: Vec<IpAddr>,
    pub host_routes: Vec<(IpNet, IpAddr)>,
    pub ipv6_ra_mode: Option<String>,
    pub ipv6_address_mode: Option<String>,
    pub standard: Standard,
}

impl Document for Subnet {
    const KIND: &'static str = "subnet";
    const MADE: store::Made = store::Made::Removed(2);
    const COUNTERS: &'static [&'static str] = crate::undo::COUNTERS;

    fn id(&self) -> &str {
        &self.id
    }

    fn needs(&self, needs: &mut store::Needs) {
        needs.on::<Network>(&self.network_id);
    }

    fn costs(&self, costs: &mut store::Costs) {
        costs.add(&self.project_id, "subnet", 1);
    }

    fn restored(&mut self, now: base::Timestamp, replaced: Option<&Self>) {
        crate::undo::touch_standard(&mut self.standard, now, replaced.map(|it| &it.standard));
    }

    fn undone(tx: &mut Tx, before: Option<&Self>, after: Option<&Self>) -> Result<()> {
        crate::undo::subnet(tx, before, after)
    }

    fn project_id(&self) -> &str {
        &self.project_id
    }

    fn keys(&self, keys: &mut Keys) {
        keys.index("network", self.network_id.as_str());
    }
}

impl Subnet {
    pub fn is_ipv4(&self) -> bool {
        self.cidr.addr().is_ipv4()
    }

    /// Guests form their address themselves, from their MAC.
    pub fn is_stateless(&self) -> bool {
        matches!(self.ipv6_address_mode.as_deref(), Some("slaac" | "dhcpv6-stateless"))
    }

    pub fn overlaps(&self, cidr: &IpNet) -> bool {
        self.cidr.contains(cidr) || cidr.contains(&self.cidr)
    }
}

/// The addresses of a subnet that are taken: what finds the next free one. The ports' unique keys are the truth that
/// this must agree with.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SubnetAddresses {
    pub id: SubnetId,
    pub used: Used,
}

impl Document for SubnetAddresses {
    const KIND: &'static str = "subnet_addresses";
    const HISTORY: bool = false;
    const TRASH: bool = false;
    const UNDO: bool = false;

    fn id(&self) -> &str {
        &self.id
    }
}

const MODES: &[&str] = &["slaac", "dhcpv6-stateful", "dhcpv6-stateless"];

const ATTRS: &[Attr] = &[
    Attr::new("name", Kind::Text(255)),
    Attr::new("network_id", Kind::Uuid).post_only().required(),
    Attr::new("ip_version", Kind::Custom(ip_version)).post_only().required(),
    Attr::new("cidr", Kind::Custom(cidr_or_null)).post_only(),
    Attr::new("prefixlen", Kind::Null).post_only(),
    Attr::new("subnetpool_id", Kind::Null).post_only(),
    Attr::new("gateway_ip", Kind::IpOrNull),
    Attr::new("allocation_pools", Kind::Custom(ops::pools)),
    Attr::new("dns_nameservers", Kind::Custom(ops::nameservers)),
    Attr::new("host_routes", Kind::Custom(ops::routes)),
    Attr::new("enable_dhcp", Kind::Bool),
    Attr::new("ipv6_ra_mode", Kind::Custom(mode)).post_only(),
    Attr::new("ipv6_address_mode", Kind::Custom(mode)).post_only(),
    Attr::fixed("router:external"),
    Attr { guard: Guard::Open, ..Attr::fixed("shared") },
];

fn ip_version(value: Value) -> Result<Value, String> {
    match value.as_i64().or_else(|| value.as_str()?.parse().ok()) {
        Some(version @ (4 | 6)) => Ok(version.into()),
        _ => Err(format!("'{}' is not in [4, 6]", attr::shown(&value))),
    }
}

fn cidr_or_null(value: Value) -> Result<Value, String> {
    if value.is_null() { Ok(value) } else { attr::cidr(&value).map(|net| net.to_string().into()) }
}

fn mode(value: Value) -> Result<Value, String> {
    match value.as_str() {
        None if value.is_null() => Ok(value),
        Some(text) if MODES.contains(&text) => Ok(value),
        _ => Err(format!("'{}' is not in {MODES:?}", attr::shown(&value))),
    }
}

impl Resource for Subnet {
    const INFO: Info = Info { one: "subnet", many: "subnets", attrs: ATTRS, filters: &[] };

    fn standard(&self) -> &Standard {
        &self.standard
    }

    fn standard_mut(&mut self) -> &mut Standard {
        &mut self.standard
    }

    fn not_found(id: &str) -> Fault {
        error::subnet_not_found(id)
    }

    fn show(&self, reader: &mut Reader, _net: &Service) -> Result<Map<String, Value>> {
        let external = reader.doc::<Network>(&self.network_id)?.is_some_and(|network| network.external);
        let routes = self.host_routes.iter().map(|(to, via)| json!({"destination": to, "nexthop": via}));
        Ok(object(json!({
            "name": self.name,
            "network_id": self.network_id,
            "ip_version": if self.is_ipv4() { 4 } else { 6 },
            "cidr": self.cidr,
            "subnetpool_id": null,
            "gateway_ip": self.gateway,
            "allocation_pools": self.pools,
            "dns_nameservers": self.dns,
            "host_routes": routes.collect::<Vec<_>>(),
            "enable_dhcp": self.dhcp,
            "ipv6_ra_mode": self.ipv6_ra_mode,
            "ipv6_address_mode": self.ipv6_address_mode,
            "router:external": external,
        })))
    }

    fn target(&self, reader: &mut Reader) -> Result<Target<'static>> {
        let target = Target::project(self.project_id.to_string());
        Ok(match reader.doc::<Network>(&self.network_id)? {
            Some(network) => with_network(target, &network),
            None => target,
        })
    }

    fn create_target(reader: &mut Reader, ctx: &Ctx, project: &str, input: &Input) -> Result<Target<'static>> {
        let (network, _) = crate::resource::find::<Network>(reader, ctx, input.text("network_id").unwrap_or(""))?;
        Ok(with_network(Target::project(project.to_owned()), &network))
    }

    fn foreign(reader: &mut Reader, ctx: &Ctx) -> Result<Vec<Subnet>> {
        let open: Vec<Network> = reader.by("open", "1")?;
        let own: Vec<Network> = reader.docs(Query::project(ctx.project()))?;
        let mut subnets = Vec::new();
        for network in open.iter().chain(&own) {
            subnets.extend(network.subnets(reader)?);
        }
        Ok(subnets)
    }

    fn index(request: &ListRequest) -> Option<(&'static str, String)> {
        Some(("network", request.one("network_id").filter(|id| base::is_uuid(id))?.to_owned()))
    }

    fn create(tx: &mut Tx, ctx: &Ctx, project: &str, input: &Input) -> Result<Subnet> {
        ops::create(tx, ctx, project, input)
    }

    fn update(&mut self, tx: &mut Tx, ctx: &Ctx, input: &Input) -> Result<()> {
        ops::update(self, tx, ctx, input)
    }

    fn delete(self, tx: &mut Tx, _ctx: &Ctx) -> Result<()> {
        ops::delete(self, tx)
    }
}

pub fn routes(net: &Arc<Service>) -> Vec<Route> {
    crud_routes!(net, Subnet, "subnets", "subnet")
}
