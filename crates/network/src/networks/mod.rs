//! Networks: a tenant's own (`vxlan`, its number drawn by us), or `flat` on a physical network for the outside world.
//!
//! Rules: provider attributes, `shared` and `router:external` are the administrator's; a physical network carries one
//! flat network; a network goes with its subnets when no port but its own service port is left.

mod ops;

use crate::attr::{Attr, Guard, Input, Kind};
use crate::crud_routes;
use crate::resource::{Info, Resource};
use crate::standard::{Ctx, Look, Standard, object};
use crate::subnets::Subnet;
use crate::{Network as Service, error};
use base::{Fault, NetworkId, ProjectId, Result};
use policy::Target;
use rest::Route;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use std::sync::Arc;
use store::{Document, Keys, Query, Reader, Tx};

pub(crate) use ops::delete as remove;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Network {
    pub id: NetworkId,
    pub project_id: ProjectId,
    pub name: String,
    pub admin_state_up: bool,
    pub shared: bool,
    pub external: bool,
    pub is_default: bool,
    pub mtu: u16,
    pub port_security: bool,
    pub provider: Provider,
    pub standard: Standard,
}

/// What carries the frames.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Provider {
    Vxlan { vni: u32 },
    Flat { physical: String },
}

impl Document for Network {
    const KIND: &'static str = "network";
    const MADE: store::Made = store::Made::Removed(3);
    const COUNTERS: &'static [&'static str] = crate::undo::COUNTERS;

    fn id(&self) -> &str {
        &self.id
    }

    fn costs(&self, costs: &mut store::Costs) {
        costs.add(&self.project_id, "network", 1);
    }

    fn restored(&mut self, now: base::Timestamp, replaced: Option<&Self>) {
        crate::undo::touch_standard(&mut self.standard, now, replaced.map(|it| &it.standard));
    }

    fn project_id(&self) -> &str {
        &self.project_id
    }

    fn keys(&self, keys: &mut Keys) {
        match &self.provider {
            Provider::Vxlan { vni } => keys.unique("segment", ["vxlan", &vni.to_string()]),
            Provider::Flat { physical } => keys.unique("segment", ["flat", physical]),
        }
        if self.shared || self.external {
            keys.index("open", "1");
        }
    }
}

const ATTRS: &[Attr] = &[
    Attr::new("name", Kind::Text(255)),
    Attr::new("admin_state_up", Kind::Bool),
    Attr::new("shared", Kind::Bool).guarded(Guard::False),
    Attr::new("router:external", Kind::Bool).guarded(Guard::False),
    Attr::new("is_default", Kind::Bool).guarded(Guard::False),
    Attr::new("mtu", Kind::Int(0, 65535)),
    Attr::new("port_security_enabled", Kind::Bool).guarded(Guard::Unset),
    Attr::new("provider:network_type", Kind::Custom(text_or_null)).guarded(Guard::Unset).hidden(),
    Attr::new("provider:physical_network", Kind::Custom(text_or_null)).guarded(Guard::Unset).hidden(),
    Attr::new("provider:segmentation_id", Kind::IntOrNull(1, 16_777_215)).guarded(Guard::Unset).hidden(),
    Attr::new("availability_zone_hints", Kind::Custom(zone_hints)).post_only(),
    Attr::fixed("availability_zones"),
    Attr::fixed("status"),
    Attr::fixed("subnets"),
];

fn text_or_null(value: Value) -> Result<Value, String> {
    match value.as_str() {
        Some(text) if text.chars().count() <= 64 && !text.contains('\0') => Ok(value),
        None if value.is_null() => Ok(value),
        _ => Err(format!("'{}' is not a valid string", crate::attr::shown(&value))),
    }
}

/// The only zone there is may be hinted at.
pub(crate) fn zone_hints(value: Value) -> Result<Value, String> {
    let list = match value {
        Value::Null => vec![],
        Value::Array(list) => list,
        other => return Err(format!("'{}' is not a list", crate::attr::shown(&other))),
    };
    match list.iter().find(|zone| zone.as_str() != Some(crate::ZONE)) {
        Some(zone) => Err(format!("AvailabilityZone {} could not be found", crate::attr::shown(zone))),
        None => Ok(Value::Array(list)),
    }
}

impl Resource for Network {
    const INFO: Info = Info { one: "network", many: "networks", attrs: ATTRS, filters: &[] };

    fn standard(&self) -> &Standard {
        &self.standard
    }

    fn standard_mut(&mut self) -> &mut Standard {
        &mut self.standard
    }

    fn not_found(id: &str) -> Fault {
        error::network_not_found(id)
    }

    fn show(&self, reader: &mut Reader, _net: &Service) -> Result<Map<String, Value>> {
        let subnets: Vec<Subnet> = reader.by("network", &self.id)?;
        let (kind, physical, segment) = match &self.provider {
            Provider::Vxlan { vni } => ("vxlan", Value::Null, json!(vni)),
            Provider::Flat { physical } => ("flat", json!(physical), Value::Null),
        };
        let mut shown = object(json!({
            "name": self.name,
            "admin_state_up": self.admin_state_up,
            "status": if self.admin_state_up { "ACTIVE" } else { "DOWN" },
            "shared": self.shared,
            "router:external": self.external,
            "mtu": self.mtu,
            "port_security_enabled": self.port_security,
            "subnets": subnets.iter().map(|subnet| subnet.id.as_str()).collect::<Vec<_>>(),
            "availability_zone_hints": [],
            "availability_zones": [crate::ZONE],
            "provider:network_type": kind,
            "provider:physical_network": physical,
            "provider:segmentation_id": segment,
        }));
        if self.external {
            shown.insert("is_default".into(), self.is_default.into());
        }
        Ok(shown)
    }

    fn target(&self, _reader: &mut Reader) -> Result<Target<'static>> {
        Ok(self.policy_target())
    }

    fn foreign(reader: &mut Reader, _ctx: &Ctx) -> Result<Vec<Network>> {
        reader.by("open", "1")
    }

    fn create(tx: &mut Tx, ctx: &Ctx, project: &str, input: &Input) -> Result<Network> {
        ops::create(tx, ctx, project, input)
    }

    fn update(&mut self, tx: &mut Tx, ctx: &Ctx, input: &Input) -> Result<()> {
        ops::update(self, tx, ctx, input)
    }

    fn delete(self, tx: &mut Tx, _ctx: &Ctx) -> Result<()> {
        ops::delete(self, tx)
    }
}

impl Network {
    fn policy_target(&self) -> Target<'static> {
        Target::project(self.project_id.to_string()).with("shared", self.shared).with("router:external", self.external)
    }

    pub fn subnets(&self, reader: &mut Reader) -> Result<Vec<Subnet>> {
        reader.docs(Query::index("network", self.id.as_str()))
    }
}

/// What a policy needs to know of the network that a port or subnet lies in.
pub(crate) fn with_network(target: Target<'static>, network: &Network) -> Target<'static> {
    target
        .with("network:project_id", network.project_id.to_string())
        .with("network:tenant_id", network.project_id.to_string())
        .with("shared", network.shared)
        .with("router:external", network.external)
}

pub fn routes(net: &Arc<Service>) -> Vec<Route> {
    crud_routes!(net, Network, "networks", "network")
}
