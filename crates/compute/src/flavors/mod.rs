//! Flavors: how large a server is. Public ones are everybody's, private ones belong to the projects on their list.
//!
//! A server holds a copy of its flavor, so a flavor may be deleted while servers use it, and its size never changes.

mod access;
mod extra_specs;
mod ops;
mod wire;

use crate::{Ask, Compute};
use base::{FlavorId, Result};
use rest::{Access, Method, Route};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use store::{Document, Keys, Reader, Stored};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Flavor {
    pub id: FlavorId,
    pub name: String,
    pub vcpus: u32,
    pub ram_mib: u64,
    pub disk_gib: u64,
    pub ephemeral_gib: u64,
    pub swap_mib: u64,
    pub rxtx_factor: f64,
    pub is_public: bool,
    pub description: Option<String>,
    pub extra_specs: BTreeMap<String, String>,
    /// The projects that may use it, where it is private.
    pub projects: BTreeSet<String>,
}

impl Document for Flavor {
    const KIND: &'static str = "flavor";
    fn id(&self) -> &str {
        &self.id
    }
    fn keys(&self, keys: &mut Keys) {
        keys.unique("name", [&self.name]);
    }
}

impl Flavor {
    /// Administrators see every flavor, others the public ones and those of their project.
    pub fn visible_to(&self, project: Option<&str>, admin: bool) -> bool {
        admin || self.is_public || project.is_some_and(|project| self.projects.contains(project))
    }
}

/// The flavor, if the caller may know of it.
pub fn find(reader: &mut Reader, ask: &Ask, id: &str) -> Result<Stored<Flavor>> {
    let missing = || base::Fault::not_found(format!("Flavor {id} could not be found."));
    if id.is_empty() {
        return Err(missing());
    }
    let flavor = reader.get::<Flavor>(id)?.ok_or_else(missing)?;
    if flavor.visible_to(ask.project_str(), ask.is_admin()) { Ok(flavor) } else { Err(missing()) }
}

pub fn routes(state: &Arc<Compute>) -> Vec<Route> {
    use Method as M;
    let rule = |name| Access::Rule(name);
    let any = || rule("os_compute_api:flavors");
    let mut routes = vec![
        Route::new(state, M::GET, "/flavors", "flavors:list", any(), 200, ops::list),
        Route::new(state, M::GET, "/flavors/detail", "flavors:detail", any(), 200, ops::detail),
        Route::new(state, M::GET, "/flavors/{flavor_id}", "flavors:show", any(), 200, ops::show),
        Route::new(
            state,
            M::POST,
            "/flavors",
            "flavors:create",
            rule("os_compute_api:os-flavor-manage:create"),
            200,
            ops::create,
        ),
        Route::new(
            state,
            M::PUT,
            "/flavors/{flavor_id}",
            "flavors:update",
            rule("os_compute_api:os-flavor-manage:update"),
            200,
            ops::update,
        )
        .since(2, 55),
        Route::new(
            state,
            M::DELETE,
            "/flavors/{flavor_id}",
            "flavors:delete",
            rule("os_compute_api:os-flavor-manage:delete"),
            202,
            ops::delete,
        ),
    ];
    routes.extend(access::routes(state));
    routes.extend(extra_specs::routes(state));
    routes
}
