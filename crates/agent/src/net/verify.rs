//! Proving the kernel equal to the plan: for fsck, and for tests.

use super::Options;
use super::keeper::Keeper;
use super::names;
use super::plan::{network, router, underlay};
use super::shape::{Actual, Steps, is_guest_link};
use agent_api::{ViewDelta, ViewObject};
use netlink::nft::{self, Table};
use netlink::{Netns, Result, link};
use std::collections::BTreeSet;
use std::sync::Arc;

/// One thing that is not as it shall be.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Difference {
    /// `network`, `router` or `underlay`.
    pub kind: String,
    pub id: String,
    pub what: String,
    /// Something that nobody will take away by itself, and where it is.
    #[serde(default)]
    pub surplus: Option<Surplus>,
}

/// A link or an nft table in a namespace of the cloud that no plan has.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Surplus {
    Link { namespace: String, name: String },
    Table { namespace: String, family: String, name: String },
}

/// What one look finds: a sentence, and what is too many.
type Found = Vec<(String, Option<Surplus>)>;

/// Compares the kernel with a view, without a driver: for fsck, which trusts no running process. Changes nothing.
/// The cloud's guests' links are looked at where they stand; whether they stand is asked of the guests.
pub fn verify(options: Options, view: Vec<ViewObject>) -> Vec<Difference> {
    let (jobs, _inbox) = std::sync::mpsc::channel();
    let mut keeper = Keeper::new(options, Arc::default(), jobs);
    keeper.world.apply(&ViewDelta { whole: true, put: view, ..ViewDelta::default() });
    keeper.look();
    let mut found = keeper.verify();
    found.extend(keeper.loose());
    found
}

impl Keeper {
    pub fn verify(&self) -> Vec<Difference> {
        let mut all = Vec::new();
        let mut note = |kind: &str, id: &str, found: Result<Found>| {
            let found = found.unwrap_or_else(|error| vec![(format!("it could not be looked at: {error}"), None)]);
            let differences = found.into_iter();
            all.extend(differences.map(|(what, surplus)| Difference {
                kind: kind.into(),
                id: id.into(),
                what,
                surplus,
            }));
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

    /// Guests' links that are in no bridge. The driver itself leaves those alone: a guest that is being started has one.
    fn loose(&self) -> Vec<Difference> {
        let mut all = Vec::new();
        for spec in self.world.networks.values().filter(|spec| spec.external.is_none()) {
            let Ok(Some(ns)) = Netns::open(&self.names.network(&spec.id)) else { continue };
            let links = link::list(&ns).unwrap_or_default();
            for port in self.world.ports_of(&spec.id) {
                let name = names::tap(&port.id);
                if links.get(&name).is_some_and(|link| is_guest_link(link) && link.master.is_none()) {
                    let what = format!("link {name} is in no bridge");
                    all.push(Difference { kind: "network".into(), id: spec.id.to_string(), what, surplus: None });
                }
            }
        }
        all
    }

    fn check_underlay(&self) -> Result<Found> {
        let refused = self.refused.keys().cloned().collect();
        let shape = underlay::shape(&self.names, &self.world, &self.switched, &refused);
        let actual = Actual::read(&self.underlay.ns)?;
        let bridges: BTreeSet<&String> = shape.bridges.keys().collect();
        let mut found = Steps::between(&actual, &shape, |name| !bridges.contains(&name.to_owned())).describe();
        let table = self.names.table();
        let wanted: Vec<&Table> = if shape.bridges.is_empty() { Vec::new() } else { shape.tables.iter().collect() };
        found.extend(nft::compare(&self.underlay.ns, &wanted, |_, name| name == table)?);
        found.extend(self.refused.values().cloned());
        Ok(found.into_iter().map(|what| (what, None)).collect())
    }
}

fn check(name: &str, shape: impl Fn(&Actual) -> super::shape::Shape) -> Result<Found> {
    let Some(ns) = Netns::open(name)? else { return Ok(vec![(format!("namespace {name} is missing"), None)]) };
    let actual = Actual::read(&ns)?;
    let shape = shape(&actual);
    let steps = Steps::between(&actual, &shape, |_| false).describe();
    let mut found: Found = steps.into_iter().map(|what| (what, None)).collect();
    for link in actual.surplus(&shape, |link| link.name != "lo" && !is_guest_link(link)) {
        let surplus = Surplus::Link { namespace: name.to_owned(), name: link.to_owned() };
        found.push((format!("unexpected link {link}"), Some(surplus)));
    }
    let wanted: Vec<&Table> = shape.tables.iter().collect();
    let planned = |family: &str, table: &str| wanted.iter().any(|it| it.path() == format!("{family} {table}"));
    for (family, table) in nft::tables(&ns)?.into_iter().filter(|(family, table)| !planned(family, table)) {
        let what = format!("unexpected table {family} {table}");
        found.push((what, Some(Surplus::Table { namespace: name.to_owned(), family, name: table })));
    }
    let rules = nft::compare(&ns, &wanted, planned)?;
    found.extend(rules.into_iter().map(|what| (what, None)));
    let sysctls = shape.sysctls.iter().chain(&shape.link_sysctls).filter(|(path, _)| !path.contains("/conf/default/"));
    let (paths, values): (Vec<String>, Vec<String>) = sysctls.cloned().unzip();
    for ((path, wanted), stands) in paths.iter().zip(&values).zip(ns.sysctl_read(&paths)?) {
        if stands.as_ref().is_some_and(|stands| stands != wanted) {
            found.push((format!("setting {path} is {} instead of {wanted}", stands.unwrap_or_default()), None));
        }
    }
    Ok(found)
}
