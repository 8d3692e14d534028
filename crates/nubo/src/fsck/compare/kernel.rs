//! Namespaces, links and rules.

use super::Sides;
use crate::fsck::finding::{Finding, Repair};
use agent::net::{KernelObject, Surplus, names};
use agent_api::ViewObject;
use std::collections::BTreeSet;

pub fn compare(sides: &Sides<'_>) -> Vec<Finding> {
    let mut found = Vec::new();
    for difference in sides.network {
        let repair = match &difference.surplus {
            Some(Surplus::Link { namespace, name }) => {
                Repair::RemoveLink { namespace: Some(namespace.clone()), name: name.clone() }
            }
            Some(Surplus::Table { namespace, family, name }) => {
                let (namespace, family, name) = (namespace.clone(), family.clone(), name.clone());
                Repair::RemoveTable { namespace, family, name }
            }
            None if sides.offline => Repair::hand("the agent does it when the cloud is up: nubo up"),
            None => Repair::Agent,
        };
        let object = match difference.kind.as_str() {
            "underlay" => "the external networks".to_owned(),
            kind => sides.shall.name(kind, &difference.id),
        };
        found.push(Finding::new(object, &difference.id, &difference.what, repair));
    }
    let wanted = namespaces(sides);
    for object in &sides.machine.kernel {
        found.extend(stray(sides, object, &wanted));
    }
    found
}

/// The namespaces that the view needs.
fn namespaces(sides: &Sides<'_>) -> BTreeSet<String> {
    let names = names::Names::new(sides.cloud);
    let name = |object: &ViewObject| match object {
        ViewObject::Network(network) if network.external.is_none() => Some(names.network(&network.id)),
        ViewObject::Router(router) => Some(names.router(&router.id)),
        _ => None,
    };
    sides.shall.view.iter().flatten().filter_map(name).collect()
}

/// A namespace that nobody needs, or a link whose alias names nothing that is here.
fn stray(sides: &Sides<'_>, object: &KernelObject, wanted: &BTreeSet<String>) -> Option<Finding> {
    let id = object.owner.as_ref().map(|(_, id)| id.as_str());
    match object.kind.as_str() {
        "namespace" if !wanted.contains(&object.name) => {
            let tail = object.name.rsplit('-').next().unwrap_or_default();
            if sides.shall.owns(id.unwrap_or(tail)) {
                return None;
            }
            let repair = Repair::RemoveNamespace { name: object.name.clone() };
            Some(Finding::new(format!("namespace {}", object.name), tail, "it has no owner", repair))
        }
        "link" if id.is_some_and(|id| !sides.shall.owns(id)) => {
            // What is in a namespace that goes need not be named.
            if object.namespace.as_ref().is_some_and(|namespace| !wanted.contains(namespace)) {
                return None;
            }
            let place = object.namespace.as_deref().unwrap_or("the cloud's namespace");
            let repair = Repair::RemoveLink { namespace: object.namespace.clone(), name: object.name.clone() };
            Some(Finding::new(format!("link {} in {place}", object.name), id.unwrap_or(""), "it has no owner", repair))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fsck::files::Files;
    use crate::fsck::machine::Machine;
    use crate::fsck::shall::tests::shall;
    use agent::net::Difference;

    const ID: &str = "018f3c2a-1b2c-7001-8aaa-0123456789ab";

    #[test]
    fn what_no_plan_has_goes_and_what_a_plan_has_is_left_to_the_agent() {
        let router = agent_api::RouterSpec {
            id: ID.into(),
            admin_state_up: true,
            gateway: None,
            interfaces: Vec::new(),
            routes: Vec::new(),
            floating: Vec::new(),
        };
        let shall = shall(vec![ViewObject::Router(router)], &[(ID, "router r1")]);
        let kernel = |kind: &str, name: &str, namespace: Option<&str>, id: &str| KernelObject {
            kind: kind.into(),
            name: name.into(),
            namespace: namespace.map(str::to_owned),
            owner: Some(("port".into(), id.into())),
        };
        let own = format!("nubo-0a1b2c3d-r-{}", &ID[24..]);
        let machine = Machine {
            kernel: vec![
                kernel("namespace", &own, None, ID),
                kernel("namespace", "nubo-0a1b2c3d-n-000000000000", None, "018f3c2a-1b2c-7001-8aaa-000000000000"),
                kernel("link", "tap1", Some(&own), "018f3c2a-1b2c-7001-8aaa-111111111111"),
                kernel("link", "tap2", Some("nubo-0a1b2c3d-n-000000000000"), "gone"),
                kernel("link", "mine", None, ID),
            ],
            ..Machine::default()
        };
        let surplus = Surplus::Table { namespace: own.clone(), family: "inet".into(), name: "t".into() };
        let difference = |what: &str, surplus: Option<Surplus>| Difference {
            kind: "router".into(),
            id: ID.into(),
            what: what.into(),
            surplus,
        };
        let network = [difference("route x is missing", None), difference("unexpected table inet t", Some(surplus))];
        let (files, cloud) = (Files::default(), "0a1b2c3d".into());
        let sides = Sides {
            cloud: &cloud,
            state: "/x".into(),
            shall: &shall,
            machine: &machine,
            files: &files,
            network: &network,
            offline: false,
        };
        let shown: Vec<String> =
            compare(&sides).iter().map(|f| format!("{} | {}", f.line(), f.repair.plan())).collect();
        let stray = "nubo-0a1b2c3d-n-000000000000";
        assert_eq!(
            shown,
            [
                format!("router r1 ({ID}): route x is missing | let the agent look again"),
                format!("router r1 ({ID}): unexpected table inet t | remove the nft table inet t in {own}"),
                format!("namespace {stray}: it has no owner | remove the namespace {stray}"),
                format!(
                    "link tap1 in {own} (018f3c2a-1b2c-7001-8aaa-111111111111): it has no owner | remove the link tap1 in {own}"
                ),
            ]
        );
    }
}
