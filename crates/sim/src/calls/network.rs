//! Bodies of the network service.

use super::Gen;
use serde_json::{Map, Value, json};

pub fn body(g: &Gen, operation: &str) -> Option<Value> {
    if operation.ends_with(":tags_replace") || operation.ends_with(":tags_add") {
        return Some(json!({"tags": g.words()}));
    }
    if operation.ends_with(":tag_add") {
        return Some(Value::Null);
    }
    Some(match operation {
        "network:create" => {
            let mut network = json!({"name": g.name("network"), "admin_state_up": !g.chance(10)});
            if g.chance(10) {
                network["shared"] = true.into();
            }
            json!({"network": network})
        }
        "network:update" => json!({"network": {"name": g.name("network"), "admin_state_up": g.chance(80)}}),
        "subnet:create" => subnet(g),
        "subnet:update" => json!({"subnet": {"name": g.name("subnet"), "enable_dhcp": g.chance(70),
            "dns_nameservers": [g.address()]}}),
        "port:create" => port(g),
        "port:update" => port_change(g),
        "router:create" => {
            let mut router = json!({"name": g.name("router")});
            if g.chance(50) {
                router["external_gateway_info"] = json!({"network_id": public(g)});
            }
            json!({"router": router})
        }
        "router:update" => match g.dice.below(4) {
            0 => json!({"router": {"external_gateway_info": null}}),
            1 => json!({"router": {"external_gateway_info": {"network_id": public(g)}}}),
            2 => json!({"router": {"admin_state_up": g.chance(60)}}),
            _ => json!({"router": {"name": g.name("router")}}),
        },
        "router:add_router_interface" | "router:remove_router_interface" => {
            if g.chance(75) {
                json!({"subnet_id": g.id("subnets")})
            } else {
                json!({"port_id": g.id("ports")})
            }
        }
        "router:add_extraroutes" | "router:remove_extraroutes" => {
            json!({"router": {"routes": [{"destination": "192.0.2.0/24", "nexthop": g.address()}]}})
        }
        "floatingip:create" => {
            let mut floating = json!({"floating_network_id": public(g)});
            if g.chance(60) {
                floating["port_id"] = g.id("ports").into();
            }
            json!({"floatingip": floating})
        }
        "floatingip:update" => {
            let port = if g.chance(40) { Value::Null } else { g.id("ports").into() };
            json!({"floatingip": {"port_id": port}})
        }
        "security_group:create" => json!({"security_group": {"name": g.name("group"), "description": g.word()}}),
        "security_group:update" => json!({"security_group": {"name": g.name("group")}}),
        "security_group_rule:create" => rule(g),
        "security_group_rule:update" => json!({"security_group_rule": {"description": g.word()}}),
        "quota:update" => {
            let resource = g.dice.of(["network", "port", "subnet", "router", "floatingip", "security_group"]);
            let mut quota = Map::new();
            quota.insert(resource.to_owned(), g.dice.of([-1, 0, 3, 10, 100]).into());
            json!({"quota": quota})
        }
        _ => return None,
    })
}

/// The external network, mostly.
fn public(g: &Gen) -> String {
    let external = g.known.all("networks").iter().find(|network| network.value["router:external"] == true);
    external.filter(|_| !g.chance(10)).map_or_else(|| g.id("networks"), |network| network.id.clone())
}

fn subnet(g: &Gen) -> Value {
    let bits = g.dice.of([24, 28, 28, 29, 30]);
    let mut subnet = json!({"name": g.name("subnet"), "network_id": g.id("networks"), "ip_version": 4,
        "cidr": format!("10.{}.0.0/{bits}", g.dice.below(250))});
    if g.chance(10) {
        subnet["gateway_ip"] = Value::Null;
    }
    if g.chance(8) {
        subnet["ip_version"] = 6.into();
        subnet["cidr"] = format!("fd00:{}::/64", g.dice.below(9000)).into();
    }
    json!({"subnet": subnet})
}

fn port(g: &Gen) -> Value {
    let mut port = json!({"network_id": g.id("networks"), "name": g.name("port")});
    match g.dice.below(8) {
        0 => port["fixed_ips"] = json!([{"subnet_id": g.id("subnets")}]),
        1 => port["fixed_ips"] = json!([{"ip_address": g.address()}]),
        2 => port["security_groups"] = json!([g.id("security-groups")]),
        3 => port["fixed_ips"] = json!([]),
        4 => port["mac_address"] = format!("fa:16:3e:00:00:{:02x}", g.dice.below(8)).into(),
        _ => {}
    }
    json!({"port": port})
}

fn port_change(g: &Gen) -> Value {
    json!({"port": match g.dice.below(6) {
        0 => json!({"fixed_ips": [{"subnet_id": g.id("subnets")}]}),
        1 => json!({"security_groups": [g.id("security-groups")]}),
        2 => json!({"admin_state_up": g.chance(60)}),
        3 => json!({"fixed_ips": []}),
        4 => json!({"port_security_enabled": g.chance(60), "security_groups": []}),
        _ => json!({"name": g.name("port")}),
    }})
}

fn rule(g: &Gen) -> Value {
    let mut rule = json!({"security_group_id": g.id("security-groups"),
        "direction": g.dice.of(["ingress", "egress"]), "protocol": g.dice.of(["tcp", "udp", "icmp"])});
    match g.dice.below(4) {
        0 => rule["remote_group_id"] = g.id("security-groups").into(),
        1 => rule["remote_ip_prefix"] = "192.0.2.0/24".into(),
        _ => {}
    }
    if rule["protocol"] != "icmp" && g.chance(70) {
        let port = g.dice.between(1, 90);
        rule["port_range_min"] = port.into();
        rule["port_range_max"] = (port + g.dice.below(3)).into();
    }
    json!({"security_group_rule": rule})
}
