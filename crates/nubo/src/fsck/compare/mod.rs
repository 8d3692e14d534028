//! What is against what shall be: a pure function of both.

mod guests;
mod images;
mod kernel;
mod parts;
mod volumes;

use super::files::Files;
use super::finding::{Finding, Repair};
use super::machine::Machine;
use super::shall::Shall;
use agent::net::Difference;
use base::CloudId;
use std::path::PathBuf;

/// What both sides are looked at with.
pub struct Sides<'a> {
    pub cloud: &'a CloudId,
    pub state: PathBuf,
    pub shall: &'a Shall,
    pub machine: &'a Machine,
    pub files: &'a Files,
    /// Namespaces, links, addresses, routes and rules against the view.
    pub network: &'a [Difference],
    /// The cloud is down, and so are its processes.
    pub offline: bool,
}

impl Sides<'_> {
    /// The agent does it, where there is one.
    fn agent(&self) -> Repair {
        match self.offline {
            true => Repair::hand("the agent does it when the cloud is up: nubo up"),
            false => Repair::Agent,
        }
    }
}

/// Every disagreement, sorted.
pub fn compare(sides: &Sides<'_>) -> Vec<Finding> {
    let mut found = store(sides);
    found.extend(parts::compare(sides));
    // Without a view nothing on the machine has an owner: the store comes first.
    if sides.shall.view.is_some() {
        found.extend(guests::compare(sides));
        found.extend(images::compare(sides));
        found.extend(volumes::compare(sides));
        found.extend(kernel::compare(sides));
    }
    found.sort();
    found.dedup();
    found
}

fn store(sides: &Sides<'_>) -> Vec<Finding> {
    let mut found = Vec::new();
    for it in &sides.shall.store {
        let name = it.name.clone().unwrap_or_else(|| it.id.clone());
        let repair = match (&it.cure, &it.stuck) {
            (Some(cure), _) => Repair::Store { kind: it.kind.clone(), id: it.id.clone(), cure: cure.clone() },
            (None, why) => Repair::hand(why.clone().unwrap_or_default()),
        };
        found.push(Finding::new(format!("{} {name}", it.kind), &it.id, &it.what, repair));
    }
    if let Some(why) = &sides.shall.unreadable {
        let repair = Repair::hand("mend the damaged documents first; then what is on the machine can be compared");
        found.push(Finding::new("the store", "", format!("the views of hosts cannot be made: {why}"), repair));
    }
    found
}
