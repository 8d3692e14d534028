//! Servers. What a server shall be is its document; what it is, is observed by its host; its status is computed from
//! both by [`model::server`].
//!
//! ```text
//!   POST -> document, ports, quota --place--> host, ports bound, room taken --view--> host ... --report--> observed
//!   DELETE -> the trash (see `trash.rs`), or, where there is none, and by forceDelete:
//!             desired Absent --view--> host ... --report Absent--> document, ports, quota, room gone in one commit
//! ```
//!
//! Never: a host's room taken without a server that holds it, a status that is stored, a guest that is asked to do
//! something outside a view.

mod actions;
mod allocation;
mod attributes;
mod block_devices;
mod book;
mod changes;
mod consoles;
mod create;
mod document;
mod explain;
mod history;
mod list;
mod network;
mod observe;
mod ops;
mod pending;
mod place;
mod plan;
mod projector;
mod render;
mod snapshot;
mod soft;
mod trash;
mod volume_attachments;

pub use allocation::{Allocation, Sweeper, recount as recount_hosts};
pub use book::{Book, Pages};
pub use changes::CHANGES;
pub use consoles::ConsoleToken;
pub use consoles::bridge_service;
pub use document::{DeletedServer, Server, ServerFlavor, ServerObserved, ServerSecret, Tombstone, TrashedGuest, state_of};
pub use history::InstanceAction;
pub use observe::report as observe_report;
pub use pending::Deadlines;
pub use place::{Janitor, Launcher, Placer};
pub use snapshot::ImageWork;
pub use soft::Reclaimer;
pub use trash::{Sweeper as TrashSweeper, purge as purge_trash, recount as recount_trash};

use crate::{Ask, Compute};
use base::{Fault, Result};
use policy::Target;
use rest::{Access, Method, Route};
use std::sync::Arc;
use store::{Reader, Stored};

/// A server with what was seen of it.
#[derive(Clone, Debug)]
pub struct Full {
    pub server: Stored<Server>,
    pub observed: Option<Stored<ServerObserved>>,
}

impl Full {
    pub fn state(&self) -> model::server::State {
        document::state_of(&self.server, self.observed.as_ref().map(|seen| &seen.doc))
    }
}

pub fn missing(id: &str) -> Fault {
    Fault::not_found(format!("Instance {id} could not be found."))
}

/// The server, if the caller may know of it and may do what `rule` says. A server of another project is as good as none.
pub fn find_for(reader: &mut Reader, ask: &Ask, id: &str, rule: &str) -> Result<Full> {
    if !base::is_uuid(id) {
        return Err(missing(id));
    }
    let server = reader.get::<Server>(id)?.ok_or_else(|| missing(id))?;
    let target = Target::project(server.project_id.as_str()).with("user_id", server.user_id.as_str());
    if !ask.may(rule, &target) {
        let own = ask.project_str() == Some(server.project_id.as_str());
        return Err(if own || ask.is_admin() {
            Fault::forbidden(format!("Policy doesn't allow {rule} to be performed."))
        } else {
            missing(id)
        });
    }
    let observed = reader.get::<ServerObserved>(id)?;
    Ok(Full { server, observed })
}

/// [`find_for`] with the path's server and the route's rule.
pub fn find(reader: &mut Reader, ask: &Ask) -> Result<Full> {
    find_for(reader, ask, ask.param("server_id"), ask.rule)
}

pub fn routes(state: &Arc<Compute>) -> Vec<Route> {
    let rule = |name| Access::Rule(name);
    let one = "/servers/{server_id}";
    let mut routes = vec![
        Route::new(
            state,
            Method::GET,
            "/servers",
            "servers:list",
            rule("os_compute_api:servers:index"),
            200,
            list::brief,
        ),
        Route::new(
            state,
            Method::GET,
            "/servers/detail",
            "servers:detail",
            rule("os_compute_api:servers:detail"),
            200,
            list::detail,
        ),
        Route::new(
            state,
            Method::POST,
            "/servers",
            "servers:create",
            rule("os_compute_api:servers:create"),
            202,
            create::create,
        ),
        Route::new(state, Method::GET, one, "servers:show", rule("os_compute_api:servers:show"), 200, ops::show),
        Route::new(state, Method::PUT, one, "servers:update", rule("os_compute_api:servers:update"), 200, ops::update),
        Route::new(
            state,
            Method::DELETE,
            one,
            "servers:delete",
            rule("os_compute_api:servers:delete"),
            204,
            ops::delete,
        ),
        Route::new(
            state,
            Method::GET,
            "/servers/{server_id}/topology",
            "servers:topology",
            rule("compute:server:topology:index"),
            200,
            ops::topology,
        )
        .since(2, 78),
    ];
    let password = "/servers/{server_id}/os-server-password";
    let (show_rule, clear_rule) =
        (rule("os_compute_api:os-server-password:show"), rule("os_compute_api:os-server-password:clear"));
    routes.push(Route::new(state, Method::GET, password, "password:show", show_rule, 200, ops::password));
    routes.push(Route::new(state, Method::DELETE, password, "password:clear", clear_rule, 204, ops::clear_password));
    routes.extend(actions::routes(state));
    routes.extend(attributes::routes(state));
    routes.extend(network::routes(state));
    routes.extend(volume_attachments::routes(state));
    routes.extend(history::routes(state));
    routes.extend(consoles::routes(state));
    routes
}
