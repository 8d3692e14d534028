//! How limits bind each other: not at all (`flat`), or so that no project may have more than its domain
//! (`strict_two_level`). The second takes trees of two levels only: a domain, and projects right below it.

use crate::documents::*;
use base::{Fault, Result};
use store::{Query, Tx};

/// Keystone's `[unified_limit] enforcement_model`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Model {
    #[default]
    Flat,
    StrictTwoLevel,
}

impl Model {
    pub const NAMES: [&str; 2] = ["flat", "strict_two_level"];

    pub fn parse(name: &str) -> Option<Model> {
        [Model::Flat, Model::StrictTwoLevel].into_iter().find(|model| model.name() == name)
    }

    pub fn name(self) -> &'static str {
        match self {
            Model::Flat => Model::NAMES[0],
            Model::StrictTwoLevel => Model::NAMES[1],
        }
    }

    pub(super) fn description(self) -> &'static str {
        match self {
            Model::Flat => "Limit enforcement and validation does not take project hierarchy into consideration.",
            Model::StrictTwoLevel => "This model requires project hierarchy never exceeds a depth of two",
        }
    }

    /// Projects right below a domain may have no projects of their own.
    pub(crate) fn check_depth(self, parent: &Project) -> Result<()> {
        if self == Model::Flat || parent.is_domain {
            return Ok(());
        }
        Err(Fault::forbidden(format!(
            "Max hierarchy depth reached for {} branch: the limit model {} has domains and projects right below them.",
            parent.id,
            self.name()
        )))
    }

    /// The limit fits those of its domain and of the projects of it. -1 is more than any number.
    pub(crate) fn check(self, tx: &mut Tx, limit: &Limit) -> Result<()> {
        if self == Model::Flat {
            return Ok(());
        }
        let fits = match &limit.project_id {
            Some(project) => {
                let project = tx.need::<Project>(project)?.doc;
                let above = above(tx, limit, project.parent_id.as_deref().unwrap_or(""))?;
                above.is_none_or(|above| wide(limit.resource_limit) <= wide(above))
            }
            None => {
                let domain = limit.domain_id.as_deref().unwrap_or("");
                let below = tx.list::<Project>(Query::index("parent", domain))?;
                let mut most = 0;
                for project in below {
                    let own = tx.get_unique::<Limit>("resource", key(limit, &project.id, ""))?;
                    most = most.max(own.map_or(0, |own| wide(own.resource_limit)));
                }
                wide(limit.resource_limit) >= most
            }
        };
        if fits {
            return Ok(());
        }
        let (level, owner) = match (&limit.project_id, &limit.domain_id) {
            (Some(id), _) => ("project_id", id.as_str()),
            (None, id) => ("domain_id", id.as_deref().unwrap_or("")),
        };
        Err(Fault::forbidden(format!(
            "Invalid resource limit: the resource limit ({level}: {owner}, resource_name: {}, resource_limit: {}, \
             service_id: {}, region_id: {}) doesn't satisfy current hierarchy model.",
            limit.resource_name,
            limit.resource_limit,
            limit.service_id,
            limit.region_id.as_deref().unwrap_or("None")
        )))
    }
}

fn wide(limit: i64) -> i64 {
    if limit < 0 { i64::MAX } else { limit }
}

fn key<'a>(limit: &'a Limit, project: &'a str, domain: &'a str) -> [&'a str; 5] {
    [project, domain, limit.service_id.as_str(), limit.region_id.as_deref().unwrap_or(""), &limit.resource_name]
}

/// The domain's own limit, or the one that was registered.
fn above(tx: &mut Tx, limit: &Limit, domain: &str) -> Result<Option<i64>> {
    if let Some(own) = tx.get_unique::<Limit>("resource", key(limit, "", domain))? {
        return Ok(Some(own.resource_limit));
    }
    let [_, _, service, region, resource] = key(limit, "", domain);
    let registered = tx.get_unique::<RegisteredLimit>("resource", [service, region, resource])?;
    Ok(registered.map(|registered| registered.default_limit))
}
