//! Proving the kernel equal to the plan: for fsck, and for tests.

use super::keeper::Keeper;
use super::plan::{network, router, underlay};
use super::shape::{Actual, Steps, is_guest_link};
use netlink::nft::{self, Table};
use netlink::{Netns, Result};
use std::collections::BTreeSet;

/// One thing that is not as it shall be.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Difference {
    /// `network`, `router` or `underlay`.
    pub kind: String,
    pub id: String,
    pub what: String,
}

impl Keeper {
    pub fn verify(&self) -> Vec<Difference> {
        let mut all = Vec::new();
        let mut note = |kind: &str, id: &str, found: Result<Vec<String>>| {
            let found = found.unwrap_or_else(|error| vec![format!("it could not be looked at: {error}")]);
            all.extend(found.into_iter().map(|what| Difference { kind: kind.into(), id: id.into(), what }));
        };
        for spec in self.world.networks.values().filter(|spec| spec.external.is_none()) {
            let shape = |actual: &Actual| network::shape(&self.names, &self.world, spec, actual);
            note("network", &spec.id, check(&self.names.network(&spec.id), shape));
        }
        for spec in self.world.routers.values() {
            let shape = |_: &Actual| router::shape(&self.names, &self.world, spec);
            note("router", &spec.id, check(&self.names.router(&spec.id), shape));
        }
        note("underlay", &self.options.cloud, self.check_underlay());
        all
    }

    fn check_underlay(&self) -> Result<Vec<String>> {
        let refused = self.refused.keys().cloned().collect();
        let shape = underlay::shape(&self.names, &self.world, &self.switched, &refused);
        let actual = Actual::read(&self.underlay.ns)?;
        let bridges: BTreeSet<&String> = shape.bridges.keys().collect();
        let mut found = Steps::between(&actual, &shape, |name| !bridges.contains(&name.to_owned())).describe();
        let table = self.names.table();
        let wanted: Vec<&Table> = if shape.bridges.is_empty() { Vec::new() } else { shape.tables.iter().collect() };
        found.extend(nft::compare(&self.underlay.ns, &wanted, |_, name| name == table)?);
        found.extend(self.refused.values().cloned());
        Ok(found)
    }
}

fn check(name: &str, shape: impl Fn(&Actual) -> super::shape::Shape) -> Result<Vec<String>> {
    let Some(ns) = Netns::open(name)? else { return Ok(vec![format!("namespace {name} is missing")]) };
    let actual = Actual::read(&ns)?;
    let shape = shape(&actual);
    let mut found = Steps::between(&actual, &shape, |_| false).describe();
    let surplus = actual.surplus(&shape, |link| link.name != "lo" && !is_guest_link(link));
    found.extend(surplus.map(|name| format!("unexpected link {name}")));
    found.extend(nft::compare(&ns, &shape.tables.iter().collect::<Vec<_>>(), |_, _| true)?);
    Ok(found)
}
