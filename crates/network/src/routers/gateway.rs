//! The gateway of a router: a port on an external network.

use super::{Gateway, Router, interfaces};
use crate::attr::{self, Input, only, shown};
use crate::floatingips::FloatingIp;
use crate::networks::Network;
use crate::ports::{self, NewPort, Port, Wanted};
use crate::error;
use crate::standard::{Ctx, Look, Standard};
use base::{Result, SubnetId};
use serde_json::{Map, Value, json};
use store::Tx;

/// `{"network_id": …, "enable_snat": …, "external_fixed_ips": […]}`, or null.
pub fn check(value: Value) -> Result<Value, String> {
    let map = match value {
        Value::Null => return Ok(Value::Null),
        Value::Object(map) if map.is_empty() => return Ok(Value::Null),
        Value::Object(map) => map,
        other => return Err(format!("'{}' is not a dictionary", shown(&other))),
    };
    only(&map, &["network_id", "enable_snat", "external_fixed_ips", "qos_policy_id"])?;
    let mut checked = Map::new();
    match map.get("network_id") {
        Some(Value::String(id)) if base::is_uuid(id) => checked.insert("network_id".into(), json!(id)),
        other => return Err(format!("'{}' is not a valid UUID", other.map(shown).unwrap_or_default())),
    };
    if let Some(snat) = map.get("enable_snat") {
        checked.insert("enable_snat".into(), attr::boolean(snat)?.into());
    }
    if let Some(fixed) = map.get("external_fixed_ips").filter(|value| !value.is_null()) {
        checked.insert("external_fixed_ips".into(), crate::ports::check_fixed_ips(fixed.clone())?);
    }
    Ok(Value::Object(checked))
}

/// Sets, changes or clears the gateway. `info` has passed [`check`].
pub fn set(router: &mut Router, tx: &mut Tx, ctx: &Ctx, info: Option<&Value>) -> Result<()> {
    let Some(info) = info else { return clear(router, tx) };
    let text = |name: &str| info.get(name).and_then(Value::as_str).unwrap_or("");
    let (network, _) = crate::resource::find::<Network>(tx, ctx, text("network_id"))?;
    if !network.external {
        return Err(error::bad("router", format!("Network {} is not an external network", network.id)));
    }
    let wanted = wanted(info);
    let snat = info.get("enable_snat").and_then(Value::as_bool);
    match &mut router.gateway {
        Some(gateway) if gateway.network_id == network.id => {
            gateway.enable_snat = snat.unwrap_or(gateway.enable_snat);
            let port = gateway.port_id.clone();
            if let Some(wanted) = wanted {
                let mut port = tx.need::<Port>(&port)?.doc;
                let old = port.clone();
                port.fixed_ips = ports::change_addresses(tx, &network, &port, &wanted)?;
                ports::put(tx, &old, &mut port)?;
            }
        }
        _ => {
            clear(router, tx)?;
            check_overlap(router, tx, &network)?;
            let new = NewPort { wanted, device_id: router.id.to_string(), device_owner: ports::GATEWAY.into(), ..NewPort::default() };
            let standard = Standard::new(tx, &Input::default());
            let port = ports::insert(tx, &network, new, standard)?;
            router.gateway = Some(Gateway { network_id: network.id, port_id: port.id, enable_snat: snat.unwrap_or(true) });
        }
    }
    Ok(())
}

fn wanted(info: &Value) -> Option<Vec<Wanted>> {
    let list = info.get("external_fixed_ips")?.as_array()?;
    let text = |item: &Value, name: &str| item.get(name).and_then(Value::as_str).map(str::to_owned);
    let wanted: Vec<Wanted> = list.iter().map(|item| Wanted {
        subnet: text(item, "subnet_id").map(SubnetId::new),
        address: text(item, "ip_address").and_then(|text| text.parse().ok()),
    }).collect();
    (!wanted.is_empty()).then_some(wanted)
}

/// The external subnets must not overlap what the router joins already.
fn check_overlap(router: &Router, tx: &mut Tx, network: &Network) -> Result<()> {
    for subnet in network.subnets(tx)? {
        interfaces::check_overlap(router, tx, &subnet)?;
    }
    Ok(())
}

pub fn check_unused(router: &Router, tx: &mut Tx) -> Result<()> {
    let Some(gateway) = &router.gateway else { return Ok(()) };
    match tx.first::<FloatingIp>("router", &router.id)? {
        Some(_) => Err(error::gateway_used_by_floating(&router.id, &gateway.network_id)),
        None => Ok(()),
    }
}

fn clear(router: &mut Router, tx: &mut Tx) -> Result<()> {
    check_unused(router, tx)?;
    if let Some(gateway) = router.gateway.take()
        && let Some(port) = tx.doc::<Port>(&gateway.port_id)?
    {
        ports::remove(tx, port)?;
    }
    Ok(())
}
