//! `add_router_interface` and `remove_router_interface`.

use super::{Router, interface_changed};
use crate::attr::Input;
use crate::floatingips::FloatingIp;
use crate::networks::Network;
use crate::ports::{self, INTERFACE, NewPort, Port, Wanted};
use crate::resource::{find, find_for};
use crate::standard::{Ctx, Look, Standard};
use crate::subnets::Subnet;
use crate::{Network as Service, error};
use base::Result;
use rest::{Call, Reply};
use serde_json::{Value, json};
use std::sync::Arc;
use store::Tx;

/// By subnet, by port, or (on removal) by both.
#[derive(Clone, Debug)]
struct Asked {
    subnet: Option<String>,
    port: Option<String>,
}

fn read(body: Value) -> Result<Asked> {
    let Value::Object(map) = body else { return Err(error::bad("router", "Invalid request body")) };
    if let Some(key) = map.keys().find(|key| !matches!(key.as_str(), "subnet_id" | "port_id")) {
        return Err(error::bad_request(format!("Unrecognized attribute(s) '{}'", crate::attr::shown(&json!(key)))));
    }
    let id = |name: &str| match map.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(id)) if base::is_uuid(id) => Ok(Some(id.clone())),
        Some(other) => Err(error::invalid_attribute(name, format!("'{}' is not a valid UUID", crate::attr::shown(other)))),
    };
    let asked = Asked { subnet: id("subnet_id")?, port: id("port_id")? };
    if asked.subnet.is_none() && asked.port.is_none() {
        return Err(error::bad("router", "Either subnet_id or port_id must be specified"));
    }
    Ok(asked)
}

pub async fn add(net: Arc<Service>, mut call: Call) -> Result<Reply> {
    let asked = read(call.json().await?)?;
    if asked.subnet.is_some() && asked.port.is_some() {
        return Err(error::bad("router", "Cannot specify both subnet-id and port-id"));
    }
    let (ctx, id) = (net.ctx(&call), call.param("id").to_owned());
    let answer = net.write(call.cause(), move |tx| {
        let (router, target) = find::<Router>(tx, &ctx, &id)?;
        ctx.require("add_router_interface", &target)?;
        let rested = router.rests(tx)?;
        let port = match (&asked.port, &asked.subnet) {
            (Some(port), _) => add_port(tx, &ctx, &router, port)?,
            (None, subnet) => add_subnet(tx, &ctx, &router, subnet.as_deref().unwrap_or(""))?,
        };
        interface_changed(tx, &router.id, rested)?;
        Ok(answer(&router, &port))
    }).await?;
    Reply::json(200, &answer)
}

fn answer(router: &Router, port: &Port) -> Value {
    let subnets: Vec<&str> = port.fixed_ips.iter().map(|fixed| fixed.subnet_id.as_str()).collect();
    json!({
        "id": router.id,
        "tenant_id": router.project_id,
        "project_id": router.project_id,
        "port_id": port.id,
        "network_id": port.network_id,
        "subnet_id": subnets.first(),
        "subnet_ids": subnets,
    })
}

/// Makes a port with the subnet's gateway address.
fn add_subnet(tx: &mut Tx, ctx: &Ctx, router: &Router, id: &str) -> Result<Port> {
    let (subnet, _) = find::<Subnet>(tx, ctx, id)?;
    let Some(gateway) = subnet.gateway else {
        return Err(error::bad("router", "Subnet for router interface must have a gateway IP"));
    };
    check_overlap(router, tx, &subnet)?;
    let network = tx.need::<Network>(&subnet.network_id)?.doc;
    // The port takes the gateway's address from everybody else: whoever may not make ports there may not do this.
    let target = policy::Target::project(router.project_id.to_string());
    ctx.require("create_port", &crate::networks::with_network(target, &network))?;
    let new = NewPort {
        project: &router.project_id,
        wanted: Some(vec![Wanted { subnet: Some(subnet.id.clone()), address: Some(gateway) }]),
        device_id: router.id.to_string(),
        device_owner: INTERFACE.into(),
        ..NewPort::default()
    };
    let standard = Standard::new(tx, &Input::default());
    ports::insert(tx, &network, new, standard)
}

/// Takes a free port over, with the addresses that it has.
fn add_port(tx: &mut Tx, ctx: &Ctx, router: &Router, id: &str) -> Result<Port> {
    let (mut port, _) = find_for::<Port>(tx, ctx, id, "update")?;
    if !port.device_id.is_empty() {
        return Err(error::port_in_use(&port.id, &port.network_id, &port.device_id));
    }
    if port.fixed_ips.is_empty() {
        return Err(error::bad("router", "Router port must have at least one fixed IP"));
    }
    let mut v4 = 0;
    for fixed in &port.fixed_ips {
        let subnet = tx.need::<Subnet>(&fixed.subnet_id)?.doc;
        v4 += subnet.is_ipv4() as u32;
        check_overlap(router, tx, &subnet)?;
    }
    if v4 > 1 {
        return Err(error::bad("router", "Cannot have multiple IPv4 subnets on router port"));
    }
    let old = port.clone();
    port.device_id = router.id.to_string();
    port.device_owner = INTERFACE.into();
    // A router forwards what is not its own: filters would drop it.
    port.port_security = false;
    port.security_groups.clear();
    port.address_pairs.clear();
    ports::put(tx, &old, &mut port)?;
    Ok(port)
}

/// No two subnets of a router overlap, its gateway's included.
pub fn check_overlap(router: &Router, tx: &mut Tx, subnet: &Subnet) -> Result<()> {
    for port in router.ports(tx)? {
        for fixed in &port.fixed_ips {
            if fixed.subnet_id == subnet.id {
                return Err(error::bad("router", format!("Router already has a port on subnet {}", subnet.id)));
            }
            let Some(other) = tx.doc::<Subnet>(&fixed.subnet_id)? else { continue };
            if other.overlaps(&subnet.cidr) {
                return Err(error::bad("router", format!(
                    "Cidr {} of subnet {} overlaps with cidr {} of subnet {}", subnet.cidr, subnet.id, other.cidr, other.id
                )));
            }
        }
    }
    Ok(())
}

pub async fn remove(net: Arc<Service>, mut call: Call) -> Result<Reply> {
    let asked = read(call.json().await?)?;
    let (ctx, id) = (net.ctx(&call), call.param("id").to_owned());
    let answer = net.write(call.cause(), move |tx| {
        let (router, target) = find::<Router>(tx, &ctx, &id)?;
        ctx.require("remove_router_interface", &target)?;
        let port = interface(tx, &ctx, &router, &asked)?;
        check_unused(tx, &router, &port)?;
        let answer = answer(&router, &port);
        ports::remove(tx, port)?;
        interface_changed(tx, &router.id, false)?;
        Ok(answer)
    }).await?;
    Reply::json(200, &answer)
}

fn interface(tx: &mut Tx, ctx: &Ctx, router: &Router, asked: &Asked) -> Result<Port> {
    let interfaces = router.interfaces(tx)?;
    if let Some(id) = &asked.port {
        let port = interfaces.into_iter().find(|port| port.id.as_str() == id);
        let port = port.ok_or_else(|| error::router_interface_not_found(&router.id, id))?;
        return match &asked.subnet {
            Some(subnet) if port.address_on(subnet).is_none() => Err(error::subnet_mismatch(&port.id, subnet)),
            _ => Ok(port),
        };
    }
    let id = asked.subnet.as_deref().unwrap_or("");
    let (subnet, _) = find::<Subnet>(tx, ctx, id)?;
    let port = interfaces.into_iter().find(|port| port.address_on(&subnet.id).is_some());
    port.ok_or_else(|| error::router_interface_not_found_for_subnet(&router.id, &subnet.id))
}

/// Floating addresses and routes that lead through an interface keep it.
fn check_unused(tx: &mut Tx, router: &Router, port: &Port) -> Result<()> {
    let floating: Vec<FloatingIp> = tx.by("router", &router.id)?;
    for fixed in &port.fixed_ips {
        for floating in &floating {
            let Some(target) = floating.port_id.as_ref() else { continue };
            let target = tx.doc::<Port>(target)?;
            let through = target.is_some_and(|target| {
                target.fixed_ips.iter().any(|f| f.subnet_id == fixed.subnet_id && Some(f.ip_address) == floating.fixed_ip_address)
            });
            if through {
                return Err(error::router_interface_used_by_floating(&router.id, &fixed.subnet_id));
            }
        }
        let Some(subnet) = tx.doc::<Subnet>(&fixed.subnet_id)? else { continue };
        if router.routes.iter().any(|(_, via)| subnet.cidr.contains(via)) {
            return Err(error::router_interface_used_by_route(&router.id, &fixed.subnet_id));
        }
    }
    Ok(())
}
