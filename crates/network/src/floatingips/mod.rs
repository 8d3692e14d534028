//! Floating addresses: an address of an external network that stands for a fixed one behind a router.
//!
//! Rules: the address is held by a port of its own on the external network; a fixed address has at most one floating
//! address of each external network; an association needs a router that joins the port's subnet with that network.

mod ops;

use crate::attr::{Attr, Guard, Input, Kind};
use crate::crud_routes;
use crate::ports::Port;
use crate::query::ListRequest;
use crate::resource::{Info, Resource};
use crate::standard::{Ctx, Look, Standard, object};
use crate::{Network as Service, error, pending};
use base::{Fault, FloatingIpId, NetworkId, PortId, ProjectId, Result, RouterId, Timestamp};
use rest::Route;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use std::net::IpAddr;
use std::sync::Arc;
use store::{Document, Keys, Reader, Tx};

pub(crate) use ops::{addresses_changed, drop_idle, port_gone};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FloatingIp {
    pub id: FloatingIpId,
    pub project_id: ProjectId,
    pub network_id: NetworkId,
    pub address: IpAddr,
    /// The port on the external network that holds the address.
    pub holder: PortId,
    pub port_id: Option<PortId>,
    pub fixed_ip_address: Option<IpAddr>,
    pub router_id: Option<RouterId>,
    /// Since when its router shall translate it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wanted_at: Option<Timestamp>,
    pub standard: Standard,
}

impl Document for FloatingIp {
    const KIND: &'static str = "floatingip";
    const COUNTERS: &'static [&'static str] = crate::undo::COUNTERS;

    fn id(&self) -> &str {
        &self.id
    }

    fn needs(&self, needs: &mut store::Needs) {
        needs.on::<crate::networks::Network>(&self.network_id);
        needs.on::<crate::ports::Port>(&self.holder);
        needs.on::<crate::ports::Port>(self.port_id.as_deref().unwrap_or(""));
        needs.on::<crate::routers::Router>(self.router_id.as_deref().unwrap_or(""));
    }

    fn costs(&self, costs: &mut store::Costs) {
        costs.add(&self.project_id, "floatingip", 1);
    }

    fn restored(&mut self, now: base::Timestamp, replaced: Option<&Self>) {
        crate::undo::touch_standard(&mut self.standard, now, replaced.map(|it| &it.standard));
    }

    fn undone(tx: &mut Tx, before: Option<&Self>, after: Option<&Self>) -> Result<()> {
        crate::undo::floating(tx, before, after)
    }

    fn project_id(&self) -> &str {
        &self.project_id
    }

    fn keys(&self, keys: &mut Keys) {
        keys.index("network", self.network_id.as_str());
        if let (Some(port), Some(fixed)) = (&self.port_id, &self.fixed_ip_address) {
            keys.index("port", port.as_str());
            keys.unique("fixed", [port.as_str(), &fixed.to_string(), &self.network_id]);
        }
        if let Some(router) = &self.router_id {
            keys.index("router", router.as_str());
        }
    }
}

const ATTRS: &[Attr] = &[
    Attr::new("floating_network_id", Kind::Uuid).post_only().required(),
    Attr::new("floating_ip_address", Kind::IpOrNull).post_only().guarded(Guard::Unset),
    Attr::new("subnet_id", Kind::UuidOrNull).post_only(),
    Attr::new("port_id", Kind::UuidOrNull),
    Attr::new("fixed_ip_address", Kind::IpOrNull),
    Attr::fixed("router_id"),
    Attr::fixed("status"),
    Attr::fixed("port_details"),
];

impl Resource for FloatingIp {
    const INFO: Info = Info { one: "floatingip", many: "floatingips", attrs: ATTRS, filters: &[] };

    fn standard(&self) -> &Standard {
        &self.standard
    }

    fn standard_mut(&mut self) -> &mut Standard {
        &mut self.standard
    }

    fn not_found(id: &str) -> Fault {
        error::floating_ip_not_found(id)
    }

    fn show(&self, reader: &mut Reader, net: &Service) -> Result<Map<String, Value>> {
        let details = match &self.port_id {
            Some(id) => reader.doc::<Port>(id)?.map(|port| details(reader, net, &port)).transpose()?,
            None => None,
        };
        Ok(object(json!({
            "floating_network_id": self.network_id,
            "floating_ip_address": self.address,
            "port_id": self.port_id,
            "fixed_ip_address": self.fixed_ip_address,
            "router_id": self.router_id,
            "status": pending::floating(net, reader, self)?.state,
            "port_details": details,
        })))
    }

    fn index(request: &ListRequest) -> Option<(&'static str, String)> {
        Some(("port", request.one("port_id").filter(|id| base::is_uuid(id))?.to_owned()))
    }

    fn create(tx: &mut Tx, ctx: &Ctx, project: &str, input: &Input) -> Result<FloatingIp> {
        ops::create(tx, ctx, project, input)
    }

    fn update(&mut self, tx: &mut Tx, ctx: &Ctx, input: &Input) -> Result<()> {
        ops::update(self, tx, ctx, input)
    }

    fn delete(self, tx: &mut Tx, ctx: &Ctx) -> Result<()> {
        ops::delete(self, tx, ctx)
    }
}

fn details(reader: &mut Reader, net: &Service, port: &Port) -> Result<Value> {
    Ok(json!({
        "name": port.name,
        "network_id": port.network_id,
        "mac_address": port.mac,
        "admin_state_up": port.admin_state_up,
        "status": pending::port(net, reader, port)?.state.as_str(),
        "device_id": port.device_id,
        "device_owner": port.device_owner,
    }))
}

pub fn routes(net: &Arc<Service>) -> Vec<Route> {
    crud_routes!(net, FloatingIp, "floatingips", "floatingip")
}
