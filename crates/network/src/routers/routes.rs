//! Extra routes of a router: `routes` as a whole, or added and removed one by one.

use super::Router;
use crate::attr;
use crate::resource::{find, save, shown};
use crate::standard::{Look, object};
use crate::subnets::{Subnet, check_routes, read_routes};
use crate::{Network as Service, error};
use base::Result;
use ipnet::IpNet;
use rest::{Call, Reply};
use serde_json::{Value, json};
use std::net::IpAddr;
use std::sync::Arc;
use store::Tx;

/// Neutron's own limit.
const ROUTES: usize = 30;

pub fn check(value: Value) -> Result<Value, String> {
    check_routes(value)
}

/// Replaces the routes. A next hop must lie on a subnet that the router joins, and must not be the router itself.
pub fn set(router: &mut Router, tx: &mut Tx, wanted: Vec<(IpNet, IpAddr)>) -> Result<()> {
    if wanted.len() > ROUTES {
        return Err(error::too_many_routes(&router.id, ROUTES));
    }
    let (mut cidrs, mut own) = (Vec::new(), Vec::new());
    for port in router.ports(tx)? {
        for fixed in port.fixed_ips {
            own.push(fixed.ip_address);
            cidrs.extend(tx.doc::<Subnet>(&fixed.subnet_id)?.map(|subnet| subnet.cidr));
        }
    }
    for (to, via) in &wanted {
        let route = format!("{{'destination': '{to}', 'nexthop': '{via}'}}");
        if to.addr().is_ipv4() != via.is_ipv4() {
            return Err(error::invalid_routes(route, "the nexthop is of another IP version than the destination"));
        }
        if !cidrs.iter().any(|cidr| cidr.contains(via)) {
            return Err(error::invalid_routes(route, "the nexthop is not connected with router"));
        }
        if own.contains(via) {
            return Err(error::invalid_routes(route, "the nexthop is used by router"));
        }
    }
    router.routes = wanted;
    Ok(())
}

pub async fn add(net: Arc<Service>, call: Call) -> Result<Reply> {
    change(net, call, "add_extraroutes", |routes, asked| {
        for route in asked {
            if !routes.contains(route) {
                routes.push(*route);
            }
        }
    }).await
}

pub async fn remove(net: Arc<Service>, call: Call) -> Result<Reply> {
    change(net, call, "remove_extraroutes", |routes, asked| routes.retain(|route| !asked.contains(route))).await
}

type Edit = fn(&mut Vec<(IpNet, IpAddr)>, &[(IpNet, IpAddr)]);

async fn change(net: Arc<Service>, mut call: Call, rule: &'static str, edit: Edit) -> Result<Reply> {
    let body: Value = call.json().await?;
    let map = attr::objects("router", None, body)?.pop().unwrap_or_default();
    attr::only(&map, &["routes"]).map_err(error::bad_request)?;
    let asked = check(map.get("routes").cloned().unwrap_or_default()).map_err(|why| error::invalid_attribute("routes", why))?;
    let asked = read_routes(asked.as_array().map_or(&[][..], Vec::as_slice));
    let (ctx, id) = (net.ctx(&call), call.param("id").to_owned());
    let router = net.write(call.cause(), move |tx| {
        let (mut router, target) = find::<Router>(tx, &ctx, &id)?;
        ctx.require(rule, &target)?;
        let old = router.clone();
        let mut routes = router.routes.clone();
        edit(&mut routes, &asked);
        set(&mut router, tx, routes)?;
        save(tx, &old, &mut router)?;
        let mut shown = shown(tx, &ctx, &router)?;
        shown.retain(|name, _| matches!(name.as_str(), "id" | "name" | "routes"));
        Ok(shown)
    }).await?;
    Reply::json(200, &object(json!({"router": router})))
}
