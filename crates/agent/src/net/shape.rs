//! What a namespace shall hold, and the steps from what it holds: a pure comparison.

use netlink::nft::Table;
use netlink::{Address, FdbEntry, Link, LinkKind, LinkSet, Netns, Result, Route, link, route};
use std::collections::{BTreeMap, BTreeSet};

/// A namespace as it shall be.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Shape {
    /// Bridges to be made here. Other links are made by whoever owns both of their ends.
    pub bridges: BTreeMap<String, BridgeShape>,
    /// What links shall be once they are there.
    pub links: BTreeMap<String, LinkShape>,
    pub addresses: BTreeSet<Address>,
    pub routes: BTreeSet<Route>,
    pub fdb: BTreeSet<FdbEntry>,
    /// Below `/proc/sys`; set before links are made.
    pub sysctls: Vec<(String, String)>,
    /// Set once the links are there.
    pub link_sysctls: Vec<(String, String)>,
    pub tables: Vec<Table>,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct BridgeShape {
    pub nf_call: bool,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct LinkShape {
    pub alias: Option<String>,
    pub mac: Option<[u8; 6]>,
    pub mtu: Option<u32>,
    pub master: Option<String>,
    pub learning: Option<bool>,
    pub flood: Option<bool>,
    pub up: bool,
}

/// A namespace as it is.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Actual {
    pub links: BTreeMap<String, Link>,
    pub addresses: BTreeSet<Address>,
    pub routes: BTreeSet<Route>,
    pub fdb: BTreeSet<FdbEntry>,
}

impl Actual {
    pub fn read(ns: &Netns) -> Result<Actual> {
        let links = link::list(ns)?;
        let names = route::names_of(&links);
        Ok(Actual {
            addresses: route::addresses_of(ns, &names)?,
            routes: route::routes_of(ns, &names, false)?,
            fdb: route::fdb_of(ns, &names)?,
            links,
        })
    }

    /// A link that must not stay: ours by name or alias, as `ours` says, and not wanted.
    pub fn surplus<'a>(&'a self, shape: &'a Shape, ours: impl Fn(&Link) -> bool + 'a) -> impl Iterator<Item = &'a str> {
        self.links
            .values()
            .filter(move |link| ours(link) && !shape.links.contains_key(&link.name))
            .map(|link| link.name.as_str())
    }
}

/// What leads from one to the other. Links that are wanted but must be made elsewhere are in `absent`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Steps {
    pub bridges: Vec<String>,
    pub change: Vec<(String, LinkSet)>,
    pub absent: Vec<String>,
    pub remove_addresses: Vec<Address>,
    pub add_addresses: Vec<Address>,
    pub remove_routes: Vec<Route>,
    pub add_routes: Vec<Route>,
    pub remove_fdb: Vec<FdbEntry>,
    pub add_fdb: Vec<FdbEntry>,
}

impl Steps {
    /// `foreign` links (others' in a shared namespace) keep whatever they have.
    pub fn between(actual: &Actual, shape: &Shape, foreign: impl Fn(&str) -> bool) -> Steps {
        let mut steps = Steps::default();
        for name in shape.bridges.keys().filter(|name| !actual.links.contains_key(*name)) {
            steps.bridges.push(name.clone());
        }
        for (name, wanted) in &shape.links {
            match actual.links.get(name) {
                Some(is) => steps.change.extend(change(is, wanted, &actual.links).map(|c| (name.clone(), c))),
                None if shape.bridges.contains_key(name) => {
                    steps.change.extend(change(&Link::default(), wanted, &actual.links).map(|c| (name.clone(), c)));
                }
                None => steps.absent.push(name.clone()),
            }
        }
        let there = |name: &str| !steps.absent.iter().any(|absent| absent == name);
        let ours = |name: &str| name != "lo" && !foreign(name);
        let gone = |a: &&Address| ours(&a.link) && !shape.addresses.contains(a);
        steps.remove_addresses = actual.addresses.iter().filter(gone).cloned().collect();
        steps.add_addresses =
            shape.addresses.difference(&actual.addresses).filter(|a| there(&a.link)).cloned().collect();
        let gone = |r: &&Route| r.link.as_deref().is_some_and(ours) && !shape.routes.contains(r);
        steps.remove_routes = actual.routes.iter().filter(gone).cloned().collect();
        let ready = |r: &&Route| r.link.as_deref().is_none_or(there);
        steps.add_routes = shape.routes.difference(&actual.routes).filter(ready).cloned().collect();
        let gone = |f: &&FdbEntry| ours(&f.link) && !shape.fdb.contains(f);
        steps.remove_fdb = actual.fdb.iter().filter(gone).cloned().collect();
        steps.add_fdb = shape.fdb.difference(&actual.fdb).filter(|f| there(&f.link)).cloned().collect();
        steps
    }

    pub fn is_empty(&self) -> bool {
        *self == Steps::default()
    }

    /// As sentences, for fsck.
    pub fn describe(&self) -> Vec<String> {
        let mut all = Vec::new();
        all.extend(self.bridges.iter().chain(&self.absent).map(|name| format!("link {name} is missing")));
        let changed = self.change.iter().filter(|(name, _)| !self.bridges.contains(name));
        all.extend(changed.map(|(name, c)| format!("link {name} differs: {c:?}")));
        all.extend(self.remove_addresses.iter().map(|a| format!("unexpected address {} on {}", a.address, a.link)));
        all.extend(self.add_addresses.iter().map(|a| format!("address {} on {} is missing", a.address, a.link)));
        all.extend(self.remove_routes.iter().map(|r| format!("unexpected route {}", r.to)));
        all.extend(self.add_routes.iter().map(|r| format!("route {} is missing", r.to)));
        let mac = |f: &FdbEntry| netlink::mac_text(&f.mac);
        all.extend(self.remove_fdb.iter().map(|f| format!("unexpected forwarding entry {} on {}", mac(f), f.link)));
        all.extend(self.add_fdb.iter().map(|f| format!("forwarding entry {} on {} is missing", mac(f), f.link)));
        all
    }
}

fn change(is: &Link, wanted: &LinkShape, links: &BTreeMap<String, Link>) -> Option<LinkSet> {
    let differs = |same: bool| !same;
    let mut set = LinkSet::default();
    if differs(wanted.alias.is_none() || wanted.alias == is.alias) {
        set.alias = wanted.alias.clone();
    }
    if wanted.mac.is_some() && wanted.mac != is.mac {
        set.mac = wanted.mac;
    }
    if wanted.mtu.is_some_and(|mtu| mtu != is.mtu) {
        set.mtu = wanted.mtu;
    }
    let master_index = wanted.master.as_ref().map(|name| links.get(name).map(|link| link.index));
    if let Some(index) = master_index
        && (index.is_none() || index != is.master)
    {
        set.master = wanted.master.clone();
    }
    let fresh = set.master.is_some();
    if wanted.learning.is_some() && (fresh || wanted.learning != is.learning) {
        set.learning = wanted.learning;
    }
    if wanted.flood.is_some() && (fresh || wanted.flood != is.flood) {
        set.flood = wanted.flood;
    }
    if wanted.up != is.up {
        set.up = Some(wanted.up);
    }
    (set != LinkSet::default()).then_some(set)
}

/// Carries the steps out. Safe to repeat; the first fault is answered after the rest has been tried.
pub fn perform(ns: &Netns, shape: &Shape, steps: &Steps) -> Result<()> {
    let mut first = Ok(());
    let mut note = |result: Result<()>| {
        if first.is_ok() {
            first = result;
        }
    };
    for name in &steps.bridges {
        let wanted = shape.links.get(name).cloned().unwrap_or_default();
        let nf_call = shape.bridges.get(name).is_some_and(|b| b.nf_call);
        let options = netlink::BridgeOptions { nf_call };
        let kind = link::NewKind::Bridge(options);
        note(link::create(ns, &netlink::NewLink { name: name.clone(), mac: wanted.mac, mtu: wanted.mtu, kind }));
    }
    for (name, set) in &steps.change {
        note(link::set(ns, name, set));
    }
    note(route::change_addresses(ns, &steps.remove_addresses, &steps.add_addresses));
    note(route::change_routes(ns, &steps.remove_routes, &steps.add_routes));
    note(route::change_fdb(ns, &steps.remove_fdb, &steps.add_fdb));
    first
}

/// True for links that come and go with a guest.
pub fn is_guest_link(link: &Link) -> bool {
    link.name.starts_with("tap") && matches!(link.kind, LinkKind::Tun | LinkKind::Veth)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shape() -> Shape {
        let mut shape = Shape::default();
        shape.bridges.insert("br0".into(), BridgeShape { nf_call: true });
        shape.links.insert("br0".into(), LinkShape { up: true, mtu: Some(1450), ..Default::default() });
        shape.links.insert("qr-1".into(), LinkShape { up: true, master: Some("br0".into()), ..Default::default() });
        shape.addresses.insert(Address { link: "br0".into(), address: "10.0.0.2/24".parse().unwrap() });
        shape
    }

    #[test]
    fn from_nothing_the_bridge_is_made_and_links_of_others_are_named_as_absent() {
        let steps = Steps::between(&Actual::default(), &shape(), |_| false);
        assert_eq!(steps.bridges, ["br0"]);
        assert_eq!(steps.absent, ["qr-1"]);
        assert_eq!(steps.add_addresses.len(), 1);
    }

    #[test]
    fn what_stands_as_wanted_needs_no_step_and_a_lost_master_is_mended() {
        let mut actual = Actual { addresses: shape().addresses, ..Default::default() };
        let br0 = Link { index: 2, name: "br0".into(), mtu: 1450, up: true, ..Default::default() };
        let qr = Link { index: 3, name: "qr-1".into(), master: Some(2), up: true, ..Default::default() };
        actual.links.insert("br0".into(), br0);
        actual.links.insert("qr-1".into(), qr);
        assert!(Steps::between(&actual, &shape(), |_| false).is_empty());
        actual.links.get_mut("qr-1").unwrap().master = None;
        let steps = Steps::between(&actual, &shape(), |_| false);
        assert_eq!(steps.change[0].1.master.as_deref(), Some("br0"));
        actual.addresses.insert(Address { link: "br0".into(), address: "10.9.9.9/24".parse().unwrap() });
        assert_eq!(Steps::between(&actual, &shape(), |_| false).remove_addresses.len(), 1);
        assert!(Steps::between(&actual, &shape(), |name| name == "br0").remove_addresses.is_empty());
    }
}
