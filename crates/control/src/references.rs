//! What documents say of each other: a document that names another one, which must be there. Pure.
//!
//! Services keep these references right themselves, in one transaction each. What stands here is written against the
//! documents and not against the services, so that a mistake of theirs is seen.

use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// The documents of one kind by id.
pub type Documents = BTreeMap<String, Value>;
/// Documents by kind.
pub type World = BTreeMap<&'static str, Documents>;

/// How a reference is mended whose target is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Remedy {
    /// A document that means nothing without the other goes, too.
    Delete,
    /// The field is emptied, and these with it.
    Clear(&'static [&'static str]),
    /// The item leaves its list.
    Drop,
}

/// `path` leads through objects by `/`; a list is walked where the step is `*`.
struct Reference {
    from: &'static str,
    path: &'static str,
    to: &'static str,
    remedy: Remedy,
}

const fn link(from: &'static str, path: &'static str, to: &'static str, remedy: Remedy) -> Reference {
    Reference { from, path, to, remedy }
}

use Remedy::{Clear, Delete, Drop};

const REFERENCES: &[Reference] = &[
    link("subnet", "network_id", "network", Delete),
    link("subnet_addresses", "id", "subnet", Delete),
    link("port", "network_id", "network", Delete),
    link("port", "fixed_ips/*/subnet_id", "subnet", Drop),
    link("port", "security_groups/*", "security_group", Drop),
    link("port", "attached/server", "server", Delete),
    link("port_observed", "id", "port", Delete),
    link("router", "gateway/port_id", "port", Clear(&["gateway"])),
    link("router", "gateway/network_id", "network", Clear(&["gateway"])),
    link("router_observed", "id", "router", Delete),
    link("floatingip", "network_id", "network", Delete),
    link("floatingip", "holder", "port", Delete),
    link("floatingip", "port_id", "port", Clear(&["port_id", "fixed_ip_address", "router_id"])),
    link("floatingip", "router_id", "router", Clear(&["port_id", "fixed_ip_address", "router_id"])),
    link("security_group_rule", "group_id", "security_group", Delete),
    // Without its remote group a rule would let in everybody.
    link("security_group_rule", "remote_group", "security_group", Delete),
    link("server_observed", "id", "server", Delete),
    link("server_secret", "id", "server", Delete),
    link("volume_snapshot", "volume", "volume", Delete),
    link("volume_attachment", "volume", "volume", Delete),
    link("volume_leaving", "id", "volume", Delete),
    link("volume_transfer", "volume", "volume", Delete),
    link("volume", "transfer", "volume_transfer", Clear(&["transfer"])),
    link("image_member", "image", "image", Delete),
    link("membership", "user_id", "user", Delete),
    link("membership", "group_id", "group", Delete),
    link("role_assignment", "actor/user", "user", Delete),
    link("role_assignment", "actor/group", "group", Delete),
    link("role_assignment", "place/project", "project", Delete),
    link("role_assignment", "role_id", "role", Delete),
    link("implied_role", "prior_role_id", "role", Delete),
    link("implied_role", "implied_role_id", "role", Delete),
    link("endpoint", "service_id", "service", Delete),
    link("application_credential", "user_id", "user", Delete),
    link("credential", "user_id", "user", Delete),
    link("access_rule", "user_id", "user", Delete),
    link("policy_association", "policy_id", "policy", Delete),
    link("policy_association", "endpoint_id", "endpoint", Delete),
    link("policy_association", "service_id", "service", Delete),
    link("policy_association", "region_id", "region", Delete),
    link("endpoint_filter", "project_id", "project", Delete),
    link("endpoint_filter", "endpoint_id", "endpoint", Delete),
    link("endpoint_filter", "endpoint_group_id", "endpoint_group", Delete),
    link("domain_config", "id", "project", Delete),
    link("registered_limit", "service_id", "service", Delete),
    link("limit", "service_id", "service", Delete),
];

/// The device owners whose `device_id` is a router.
const ROUTER_PORTS: &[&str] = &["network:router_interface", "network:router_gateway"];

/// A reference to a document that is not there.
#[derive(Clone, Debug, PartialEq)]
pub struct Dangling {
    pub kind: &'static str,
    pub id: String,
    pub field: String,
    pub target: String,
    pub remedy: Remedy,
}

/// The kinds that are looked at.
pub fn kinds() -> BTreeSet<&'static str> {
    REFERENCES.iter().flat_map(|link| [link.from, link.to]).collect()
}

/// Every reference into nothing.
pub fn dangling(world: &World) -> Vec<Dangling> {
    let empty = Documents::new();
    let of = |kind: &str| world.get(kind).unwrap_or(&empty);
    let mut all = Vec::new();
    for link in REFERENCES {
        for (id, body) in of(link.from) {
            for target in targets(body, link.path) {
                // A document of an embedded kind bears its own id as the reference.
                if !of(link.to).contains_key(target) {
                    let field = link.path.replace("/*", "").replace('/', ".");
                    let target = format!("{} {target}", link.to);
                    all.push(Dangling { kind: link.from, id: id.clone(), field, target, remedy: link.remedy });
                }
            }
        }
    }
    for (id, body) in of("port") {
        let text = |name: &str| body[name].as_str().unwrap_or_default();
        if ROUTER_PORTS.contains(&text("device_owner")) && !of("router").contains_key(text("device_id")) {
            let (field, target) = ("device_id".to_owned(), format!("router {}", text("device_id")));
            all.push(Dangling { kind: "port", id: id.clone(), field, target, remedy: Delete });
        }
    }
    all
}

fn targets<'a>(body: &'a Value, path: &str) -> Vec<&'a str> {
    let mut found = vec![body];
    for step in path.split('/') {
        found = match step {
            "*" => found.into_iter().filter_map(Value::as_array).flatten().collect(),
            step => found.into_iter().filter_map(|value| value.get(step)).collect(),
        };
    }
    found.into_iter().filter_map(Value::as_str).filter(|text| !text.is_empty()).collect()
}

/// The body as it shall be once a reference is gone; none: the document goes.
pub fn mended(body: &Value, dangling: &Dangling) -> Option<Value> {
    let mut body = body.clone();
    match dangling.remedy {
        Delete => return None,
        Clear(fields) => fields.iter().for_each(|field| body[*field] = Value::Null),
        Drop => {
            let target = dangling.target.rsplit(' ').next().unwrap_or_default();
            let (list, key) = dangling.field.split_once('.').unwrap_or((&dangling.field, ""));
            let same = |item: &Value| if key.is_empty() { item == target } else { item[key] == target };
            if let Some(items) = body[list].as_array_mut() {
                items.retain(|item| !same(item));
            }
        }
    }
    Some(body)
}

/// The addresses that ports hold in each subnet, and those that the subnet believes to be taken, where they differ.
pub fn addresses(world: &World) -> Vec<(String, BTreeSet<std::net::IpAddr>)> {
    let empty = Documents::new();
    let mut held: BTreeMap<&str, BTreeSet<std::net::IpAddr>> = BTreeMap::new();
    for port in world.get("port").unwrap_or(&empty).values() {
        for fixed in port["fixed_ips"].as_array().into_iter().flatten() {
            let (Some(subnet), Some(address)) = (fixed["subnet_id"].as_str(), fixed["ip_address"].as_str()) else {
                continue;
            };
            held.entry(subnet).or_default().extend(address.parse::<std::net::IpAddr>());
        }
    }
    let subnets = world.get("subnet_addresses").unwrap_or(&empty);
    let wrong = subnets.iter().filter_map(|(id, body)| {
        let held = held.remove(id.as_str()).unwrap_or_default();
        (body["used"] != ranges(&held)).then(|| (id.clone(), held))
    });
    wrong.collect()
}

/// Addresses as the subnet keeps them: ranges without gaps, in order.
pub fn ranges(held: &BTreeSet<std::net::IpAddr>) -> Value {
    let mut ranges: Vec<(std::net::IpAddr, std::net::IpAddr)> = Vec::new();
    for address in held {
        match ranges.last_mut() {
            Some((_, end)) if next(*end) == Some(*address) => *end = *address,
            _ => ranges.push((*address, *address)),
        }
    }
    ranges.into_iter().map(|(start, end)| serde_json::json!({"start": start, "end": end})).collect()
}

fn next(address: std::net::IpAddr) -> Option<std::net::IpAddr> {
    use std::net::IpAddr;
    match address {
        IpAddr::V4(ip) => u32::from(ip).checked_add(1).map(|n| IpAddr::V4(n.into())),
        IpAddr::V6(ip) => u128::from(ip).checked_add(1).map(|n| IpAddr::V6(n.into())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn world() -> World {
        let one = |body: Value| Documents::from([(body["id"].as_str().unwrap_or_default().to_owned(), body)]);
        World::from([
            ("network", one(json!({"id": "n"}))),
            ("subnet", one(json!({"id": "s", "network_id": "n"}))),
            ("subnet_addresses", one(json!({"id": "s", "used": [{"start": "10.0.0.2", "end": "10.0.0.3"}]}))),
            ("security_group", one(json!({"id": "g"}))),
            ("server", one(json!({"id": "v"}))),
            (
                "port",
                one(json!({
                    "id": "p", "network_id": "n", "device_owner": "compute:nova", "device_id": "v",
                    "attached": {"server": "v"}, "security_groups": ["g"],
                    "fixed_ips": [{"subnet_id": "s", "ip_address": "10.0.0.3"},
                                  {"subnet_id": "s", "ip_address": "10.0.0.2"}],
                })),
            ),
        ])
    }

    #[test]
    fn a_whole_world_has_no_loose_end() {
        assert_eq!(dangling(&world()), []);
        assert_eq!(addresses(&world()), []);
    }

    #[test]
    fn each_document_that_goes_leaves_its_loose_ends_and_their_remedies() {
        let check = |kind: &'static str, expected: &[(&str, &str, Remedy)]| {
            let mut world = world();
            world.remove(kind);
            let found = dangling(&world);
            let shown: Vec<_> = found.iter().map(|d| (d.kind, d.field.as_str(), d.remedy)).collect();
            assert_eq!(shown, expected, "without its {kind}");
        };
        check("network", &[("subnet", "network_id", Delete), ("port", "network_id", Delete)]);
        check(
            "subnet",
            &[
                ("subnet_addresses", "id", Delete),
                ("port", "fixed_ips.subnet_id", Drop),
                ("port", "fixed_ips.subnet_id", Drop),
            ],
        );
        check("server", &[("port", "attached.server", Delete)]);
        check("security_group", &[("port", "security_groups", Drop)]);
        check("port", &[]);
    }

    #[test]
    fn a_mended_document_names_nothing_that_is_gone() {
        let mut world = world();
        world.remove("subnet");
        let found = dangling(&world);
        let body = mended(&world["port"]["p"], &found[1]).unwrap();
        assert_eq!(body["fixed_ips"], json!([]));
        world.remove("security_group");
        let found = dangling(&world);
        let group = found.iter().find(|d| d.field == "security_groups").unwrap();
        assert_eq!(mended(&world["port"]["p"], group).unwrap()["security_groups"], json!([]));
    }

    #[test]
    fn addresses_without_a_port_are_seen() {
        let mut world = world();
        world.remove("port");
        assert_eq!(addresses(&world), [("s".to_owned(), BTreeSet::new())]);
        let held = ["10.0.0.9", "10.0.0.1", "10.0.0.2"].map(|text| text.parse().unwrap());
        let expected = json!([{"start": "10.0.0.1", "end": "10.0.0.2"}, {"start": "10.0.0.9", "end": "10.0.0.9"}]);
        assert_eq!(ranges(&BTreeSet::from(held)), expected);
    }
}
