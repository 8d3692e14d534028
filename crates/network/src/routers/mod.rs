//! Routers: join subnets, and reach an external network through a gateway with source NAT.
//!
//! Rules: subnets on one router never overlap; what floating addresses or routes need is not taken away. A router is
//! realised on one host, which [`crate::reconcile`] chooses once the router joins anything.

mod gateway;
mod interfaces;
mod routes;

use crate::attr::{Attr, Guard, Input, Kind};
use crate::crud_routes;
use crate::ports::{self, Port};
use crate::project::touch;
use crate::resource::{Info, Resource, plain};
use crate::standard::{Ctx, Look, Standard, charge, object};
use crate::{Network as Service, error, pending};
use agent_api::{RouterObserved, ViewKind};
use base::{FloatingIpId, Fault, HostName, NetworkId, PortId, ProjectId, Result, RouterId, Timestamp};
use ipnet::IpNet;
use rest::{Method, Route};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use store::{Document, Keys, Reader, Tx};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Router {
    pub id: RouterId,
    pub project_id: ProjectId,
    pub name: String,
    pub admin_state_up: bool,
    pub gateway: Option<Gateway>,
    pub routes: Vec<(IpNet, IpAddr)>,
    /// Where it is realised; empty: nowhere yet.
    pub host: HostName,
    /// Since when a host shall have it up: the change after which it was no longer idle.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wanted_at: Option<Timestamp>,
    pub standard: Standard,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Gateway {
    pub network_id: NetworkId,
    pub port_id: PortId,
    pub enable_snat: bool,
}

impl Document for Router {
    const KIND: &'static str = "router";
    const MADE: store::Made = store::Made::Removed(1);
    const COUNTERS: &'static [&'static str] = crate::undo::COUNTERS;

    fn id(&self) -> &str {
        &self.id
    }

    fn needs(&self, needs: &mut store::Needs) {
        if let Some(gateway) = &self.gateway {
            needs.on::<crate::networks::Network>(&gateway.network_id);
            needs.on::<Port>(&gateway.port_id);
        }
    }

    fn costs(&self, costs: &mut store::Costs) {
        costs.add(&self.project_id, "router", 1);
    }

    fn restored(&mut self, now: base::Timestamp, replaced: Option<&Self>) {
        crate::undo::touch_standard(&mut self.standard, now, replaced.map(|it| &it.standard));
    }

    fn undone(tx: &mut Tx, before: Option<&Self>, after: Option<&Self>) -> Result<()> {
        let asks = |router: &Self| (router.admin_state_up, router.gateway.clone());
        match after {
            Some(after) if before.map(asks) != Some(asks(after)) => crate::undo::router(tx, &after.id),
            _ => Ok(()),
        }
    }

    fn project_id(&self) -> &str {
        &self.project_id
    }

    fn keys(&self, keys: &mut Keys) {
        keys.index("host", if self.host.is_empty() { "-" } else { self.host.as_str() });
        if let Some(gateway) = &self.gateway {
            keys.index("gateway", gateway.network_id.as_str());
        }
    }
}

/// What a host last said of a router. Written only when it changes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Observed {
    pub id: RouterId,
    pub host: HostName,
    pub up: bool,
    pub floating: Vec<FloatingIpId>,
    pub fault: Option<String>,
    /// When it went down, after it had been up there, or came back from the trash.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub down_at: Option<Timestamp>,
    /// When floating addresses went that had been in place, or came back from the trash.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub missing: BTreeMap<FloatingIpId, Timestamp>,
    /// Fruitless attempts of the host, as of their last doubling.
    #[serde(default)]
    pub attempts: u32,
}

/// The most floating addresses that are kept of a report.
const FLOATING: usize = 10_000;

impl Observed {
    /// Before a first report.
    pub(crate) fn nothing(id: &RouterId, host: &HostName) -> Observed {
        let (id, host) = (id.clone(), host.clone());
        let (floating, missing) = (Vec::new(), BTreeMap::new());
        Observed { id, host, up: false, floating, fault: None, down_at: None, missing, attempts: 0 }
    }

    /// What a report says, after what was known before.
    pub(crate) fn of(said: &RouterObserved, before: Option<Observed>, now: Timestamp) -> Observed {
        let mut floating = said.floating.clone();
        floating.sort();
        floating.truncate(FLOATING);
        let (mut down_at, mut missing) = (None, BTreeMap::new());
        if let Some(before) = before {
            down_at = if before.up { Some(now) } else { before.down_at };
            missing = before.missing;
            missing.extend(before.floating.into_iter().map(|id| (id, now)));
            missing.retain(|id, _| floating.binary_search(id).is_err());
            while missing.len() > FLOATING {
                missing.pop_first();
            }
        }
        let down_at = down_at.filter(|_| !said.up);
        let (id, host, fault) = (said.id.clone(), HostName::default(), said.fault.clone());
        Observed { id, host, up: said.up, floating, fault, down_at, missing, attempts: said.attempts }
    }
}

impl Document for Observed {
    const KIND: &'static str = "router_observed";
    // Hosts say it again.
    const TRASH: bool = false;
    const UNDO: bool = false;

    fn id(&self) -> &str {
        &self.id
    }
}

const ATTRS: &[Attr] = &[
    Attr::new("name", Kind::Text(255)),
    Attr::new("admin_state_up", Kind::Bool),
    Attr::new("external_gateway_info", Kind::Custom(gateway::check)).guarded(Guard::Unset),
    Attr::new("routes", Kind::Custom(routes::check)).put_only(),
    Attr::new("availability_zone_hints", Kind::Custom(crate::networks::zone_hints)).post_only(),
    Attr::fixed("availability_zones"),
    Attr::fixed("status"),
];

impl Router {
    /// Its ports: interfaces and gateway.
    pub fn ports(&self, reader: &mut Reader) -> Result<Vec<Port>> {
        let ports: Vec<Port> = reader.by("device", &self.id)?;
        Ok(ports.into_iter().filter(Port::is_router_owned).collect())
    }

    pub fn interfaces(&self, reader: &mut Reader) -> Result<Vec<Port>> {
        Ok(self.ports(reader)?.into_iter().filter(|port| port.device_owner == ports::INTERFACE).collect())
    }

    pub fn observed(&self, reader: &mut Reader) -> Result<Option<Observed>> {
        Ok(reader.doc::<Observed>(&self.id)?.filter(|observed| observed.host == self.host))
    }

    /// Joins nothing, so no host need realise it.
    pub fn is_idle(&self, reader: &mut Reader) -> Result<bool> {
        Ok(self.gateway.is_none() && self.interfaces(reader)?.is_empty())
    }

    /// Switched off, or idle: it has nothing to wait for.
    pub fn rests(&self, reader: &mut Reader) -> Result<bool> {
        Ok(!self.admin_state_up || self.is_idle(reader)?)
    }

    /// Notes when it stops resting. `rested` is what [`Router::rests`] said before the change.
    pub(crate) fn note_wanted(&mut self, tx: &mut Tx, rested: bool) -> Result<()> {
        if rested && !self.rests(tx)? {
            self.wanted_at = Some(tx.now());
        }
        Ok(())
    }
}

/// Counts a revision because an interface came or went.
pub(crate) fn interface_changed(tx: &mut Tx, id: &str, rested: bool) -> Result<()> {
    if let Some(mut router) = tx.doc::<Router>(id)? {
        router.note_wanted(tx, rested)?;
        router.standard.touch(tx.now());
        tx.update(&router)?;
    }
    Ok(())
}

impl Resource for Router {
    const INFO: Info = Info { one: "router", many: "routers", attrs: ATTRS, filters: &[] };

    fn standard(&self) -> &Standard {
        &self.standard
    }

    fn standard_mut(&mut self) -> &mut Standard {
        &mut self.standard
    }

    fn not_found(id: &str) -> Fault {
        error::router_not_found(id)
    }

    fn show(&self, reader: &mut Reader, net: &Service) -> Result<Map<String, Value>> {
        let gateway = match &self.gateway {
            None => Value::Null,
            Some(gateway) => json!({
                "network_id": gateway.network_id,
                "enable_snat": gateway.enable_snat,
                "external_fixed_ips": reader.doc::<Port>(&gateway.port_id)?.map(|port| port.fixed_ips).unwrap_or_default(),
            }),
        };
        let routes = self.routes.iter().map(|(to, via)| json!({"destination": to, "nexthop": via}));
        Ok(object(json!({
            "name": self.name,
            "admin_state_up": self.admin_state_up,
            "status": pending::router(net, reader, self)?.state,
            "external_gateway_info": gateway,
            "routes": routes.collect::<Vec<_>>(),
            "availability_zone_hints": [],
            "availability_zones": [crate::ZONE],
        })))
    }

    fn inner_rules(input: &Input) -> Vec<&'static str> {
        let Some(info) = input.get("external_gateway_info") else { return vec![] };
        let mut rules = Vec::new();
        for (key, rule) in [
            ("network_id", "external_gateway_info:network_id"),
            ("enable_snat", "external_gateway_info:enable_snat"),
            ("external_fixed_ips", "external_gateway_info:external_fixed_ips"),
        ] {
            if info.get(key).is_some() {
                rules.push(rule);
            }
        }
        rules
    }

    fn create(tx: &mut Tx, ctx: &Ctx, project: &str, input: &Input) -> Result<Router> {
        charge(tx, project, "router", 1)?;
        let mut router = Router {
            id: RouterId::new(tx.uuid()),
            project_id: project.into(),
            name: input.text("name").unwrap_or("").to_owned(),
            admin_state_up: input.boolean("admin_state_up").unwrap_or(true),
            gateway: None,
            routes: vec![],
            host: HostName::default(),
            wanted_at: None,
            standard: Standard::new(tx, input),
        };
        tx.create(&router)?;
        if input.has("external_gateway_info") {
            gateway::set(&mut router, tx, ctx, input.get("external_gateway_info"))?;
            router.note_wanted(tx, true)?;
            tx.update(&router)?;
        }
        Ok(router)
    }

    fn update(&mut self, tx: &mut Tx, ctx: &Ctx, input: &Input) -> Result<()> {
        let rested = self.rests(tx)?;
        if let Some(name) = input.text("name") {
            self.name = name.to_owned();
        }
        if let Some(up) = input.boolean("admin_state_up") {
            self.admin_state_up = up;
        }
        if input.has("external_gateway_info") {
            gateway::set(self, tx, ctx, input.get("external_gateway_info"))?;
        }
        if let Some(list) = input.list("routes") {
            let wanted = crate::subnets::read_routes(list);
            routes::set(self, tx, wanted)?;
        } else if input.is_null("routes") {
            self.routes.clear();
        }
        self.note_wanted(tx, rested)
    }

    fn delete(self, tx: &mut Tx, _ctx: &Ctx) -> Result<()> {
        self.remove(tx)
    }
}

impl Router {
    /// Removes it with its gateway, unless something is plugged into it.
    pub(crate) fn remove(self, tx: &mut Tx) -> Result<()> {
        if !self.interfaces(tx)?.is_empty() {
            return Err(error::router_in_use(&self.id));
        }
        if let Some(gateway) = &self.gateway {
            gateway::check_unused(&self, tx)?;
            if let Some(port) = tx.doc::<Port>(&gateway.port_id)? {
                ports::remove(tx, port)?;
            }
        }
        if tx.doc::<Observed>(&self.id)?.is_some() {
            tx.delete::<Observed>(&self.id)?;
        }
        charge(tx, &self.project_id, "router", -1)?;
        touch(tx, ViewKind::Router, &self.id)?;
        tx.delete::<Router>(&self.id)?;
        Ok(())
    }
}

pub fn routes(net: &Arc<Service>) -> Vec<Route> {
    let mut all = crud_routes!(net, Router, "routers", "router");
    all.extend([
        plain(net, Method::PUT, "/v2.0/routers/{id}/add_router_interface", "router:add_router_interface", "add_router_interface", 200, interfaces::add),
        plain(net, Method::PUT, "/v2.0/routers/{id}/remove_router_interface", "router:remove_router_interface", "remove_router_interface", 200, interfaces::remove),
        plain(net, Method::PUT, "/v2.0/routers/{id}/add_extraroutes", "router:add_extraroutes", "add_extraroutes", 200, routes::add),
        plain(net, Method::PUT, "/v2.0/routers/{id}/remove_extraroutes", "router:remove_extraroutes", "remove_extraroutes", 200, routes::remove),
    ]);
    all
}
