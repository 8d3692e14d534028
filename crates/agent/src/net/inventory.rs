//! What bears a cloud's id in the kernel's network, found by looking and not by remembering: for fsck, `down`, `purge`
//! and `setup`. Written against the kernel; knows nothing of plans.

use super::names::{self, Names};
use super::plan::underlay;
use super::settle::remove_external_bridge;
use base::CloudId;
use ipnet::IpNet;
use netlink::{Netns, Result, link, nft, route};
use serde::{Deserialize, Serialize};

/// A thing in the kernel that bears the cloud's id.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct KernelObject {
    /// `namespace`, `link` or `nft-table`.
    pub kind: String,
    pub name: String,
    /// The namespace it is in; none: the underlay, or a namespace itself.
    pub namespace: Option<String>,
    /// What it belongs to: `network`, `router`, `port`, `external`, and the id of that. None: nothing says so.
    pub owner: Option<(String, String)>,
}

/// Lists them. `underlay` is the namespace in which the cloud's agent runs.
pub fn inventory(cloud: &CloudId, underlay: &Netns) -> Result<Vec<KernelObject>> {
    let names = Names::new(cloud);
    let prefix = names.alias_prefix();
    let owner = |alias: &Option<String>| {
        let (kind, id) = names::owner(&prefix, alias.as_deref()?)?;
        Some((kind.to_owned(), id.to_owned()))
    };
    let mut all = Vec::new();
    for name in Netns::list(&names.prefix())? {
        let links = match Netns::open(&name)? {
            Some(ns) => link::list(&ns)?,
            None => Default::default(),
        };
        let of = links.get("lo").and_then(|lo| owner(&lo.alias));
        all.push(KernelObject { kind: "namespace".into(), name: name.clone(), namespace: None, owner: of });
        for link in links.into_values().filter(|link| link.name != "lo") {
            let of = owner(&link.alias);
            let namespace = Some(name.clone());
            all.push(KernelObject { kind: "link".into(), name: link.name, namespace, owner: of });
        }
    }
    let links = link::list(underlay)?.into_values();
    for link in links.filter(|link| link.alias.as_deref().is_some_and(|alias| alias.starts_with(&prefix))) {
        let of = owner(&link.alias);
        all.push(KernelObject { kind: "link".into(), name: link.name, namespace: None, owner: of });
    }
    for (family, table) in nft::tables(underlay)? {
        if table == names.table() {
            let name = format!("{family} {table}");
            all.push(KernelObject { kind: "nft-table".into(), name, namespace: None, owner: None });
        }
    }
    Ok(all)
}

/// Removes all of it: namespaces (with guests' links in them, whether guests run or not), links and the table. Waits
/// until the kernel has taken the links away that ended in those namespaces.
pub fn purge(cloud: &CloudId, underlay: &Netns) -> Result<()> {
    let names = Names::new(cloud);
    for name in Netns::list(&names.prefix())? {
        if let Some(ns) = Netns::open(&name)? {
            // A namespace lives as long as somebody holds a tap in it; its links need not.
            for link in link::list(&ns)?.values().filter(|link| super::shape::is_guest_link(link)) {
                link::delete(&ns, &link.name)?;
            }
        }
        Netns::delete(&name)?;
    }
    let prefix = names.alias_prefix();
    let links = link::list(underlay)?;
    for link in links.values().filter(|link| link.alias.as_deref().is_some_and(|alias| alias.starts_with(&prefix))) {
        if link.name.starts_with("nubr-") {
            remove_external_bridge(underlay, &link::list(underlay)?, &link.name)?;
        } else {
            link::delete(underlay, &link.name)?;
        }
    }
    for (family, table) in nft::tables(underlay)? {
        if table == names.table() && family == "inet" {
            nft::delete(underlay, nft::Family::Inet, &table)?;
        }
    }
    Ok(())
}

/// Why a range cannot become an external network on this host: empty when it can. Said with the route in the way. What
/// stands already of `cloud` itself is not in the way.
pub fn external_conflicts(underlay: &Netns, cidr: IpNet, cloud: Option<&CloudId>) -> Result<Vec<String>> {
    let prefix = cloud.map(|cloud| Names::new(cloud).alias_prefix());
    let links = link::list(underlay)?;
    let own = |name: &str| {
        let alias = links.get(name).and_then(|link| link.alias.as_deref()).unwrap_or("");
        prefix.as_deref().is_some_and(|prefix| alias.starts_with(prefix))
    };
    Ok(underlay::conflicts(cidr, &route::routes(underlay, true)?, &route::addresses(underlay)?, own))
}

/// What in the host's own rules will keep an external network from working, as sentences.
pub fn external_warnings(underlay: &Netns) -> Result<Vec<String>> {
    let mut all = Vec::new();
    let (mut table, mut chain) = (String::new(), String::new());
    for line in nft::listing(underlay)?.lines().map(str::trim) {
        if let Some(rest) = line.strip_prefix("table ") {
            table = rest.trim_end_matches('{').trim().to_owned();
        } else if let Some(rest) = line.strip_prefix("chain ") {
            chain = rest.trim_end_matches('{').trim().to_owned();
        } else if line.contains("hook forward") && line.contains("policy drop") && !table.contains("nubo") {
            all.push(format!(
                "the chain {chain} of table {table} drops what this host forwards: guests reach the outside only if it \
                 accepts them"
            ));
        }
    }
    Ok(all)
}
