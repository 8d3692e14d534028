//! What an existing Keystone knew, for operators who move to this cloud.

use base::Result;
use identity::Identity;
use identity::keystone::Dump;
use policy::{Rule, Scope, Target};
use rest::{Access, Call, Method, Reply, Route};
use serde::Deserialize;
use std::sync::Arc;

/// The most bytes of an import.
const BYTES: usize = 256 << 20;

pub(crate) const RULES: &[Rule] = &[Rule::new(
    "nubo:keystone:import",
    "role:admin",
    &[Scope::System, Scope::Project],
    "Take over what a Keystone knows: users with their passwords, projects, roles.",
)];

pub(crate) fn routes(identity: &Arc<Identity>) -> Vec<Route> {
    let access = Access::Rule("nubo:keystone:import");
    let path = "/nubo/v1/keystone";
    vec![
        Route::new(identity, Method::POST, path, "nubo:keystone:import", access, 200, import)
            .no_undo("it brings credentials, which are not kept twice; what is there stays as it is"),
    ]
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Wanted {
    dump: Dump,
    rename_suffix: Option<String>,
}

async fn import(identity: Arc<Identity>, mut call: Call) -> Result<Reply> {
    call.enforce(&Target::default())?;
    let wanted: Wanted = rest::from_slice(&call.bytes(BYTES).await?)?;
    let report = identity.import_keystone(&call, wanted.dump, wanted.rename_suffix).await?;
    call.reply(200, &report)
}
