//! Volumes: disks that outlive the servers that use them.

mod actions;
mod create;
mod images;
mod ops;
pub mod upload;
pub mod wire;

pub use create::{Wanted, make};
pub use ops::read_names;

use crate::document::Volume;
use crate::{Ask, Volumes, table};
use base::{Fault, Result};
use rest::{DryRun, Except, Route, Undo};
use std::sync::Arc;
use store::{Reader, Stored};

/// What the API can do to a volume by its action route.
const ACTIONS: &[&str] = &[
    "nubo-flatten",
    "os-attach",
    "os-begin_detaching",
    "os-detach",
    "os-extend",
    "os-force_delete",
    "os-force_detach",
    "os-initialize_connection",
    "os-reserve",
    "os-reset_status",
    "os-retype",
    "os-roll_detaching",
    "os-set_bootable",
    "os-set_image_metadata",
    "os-show_image_metadata",
    "os-terminate_connection",
    "os-unreserve",
    "os-unset_image_metadata",
    "os-update_readonly_flag",
    "os-volume_upload_image",
];

const EXCEPT: &[Except] = &[Except {
    action: "os-volume_upload_image",
    dry: DryRun::Yes,
    undo: Undo::Not("the image is deleted instead, which also ends its making"),
}];

pub fn routes(state: &Arc<Volumes>) -> Vec<Route> {
    let mut routes = table! { state;
        GET "/v3/{project_id}/volumes" "volumes:list" "volume:get_all" 200 ops::list;
        GET "/v3/{project_id}/volumes/detail" "volumes:detail" "volume:get_all" 200 ops::detail;
        GET "/v3/{project_id}/volumes/summary" "volumes:summary" "volume:get_all" 200 ops::summary, since(3, 12);
        POST "/v3/{project_id}/volumes" "volumes:create" "volume:create" 202 ops::create;
        PUT "/v3/{project_id}/volumes" "volumes:update_nameless" "volume:update" 404 ops::nameless, no_undo("it answers 404 and changes nothing");
        DELETE "/v3/{project_id}/volumes" "volumes:delete_nameless" "volume:delete" 404 ops::nameless, no_undo("it answers 404 and changes nothing");
        GET "/v3/{project_id}/volumes/{volume_id}" "volumes:show" "volume:get" 200 ops::show;
        PUT "/v3/{project_id}/volumes/{volume_id}" "volumes:update" "volume:update" 200 ops::update;
        DELETE "/v3/{project_id}/volumes/{volume_id}" "volumes:delete" "volume:delete" 202 ops::delete;
        POST "/v3/{project_id}/volumes/{volume_id}/action" "volumes:action" "volume_extension:volume_actions:action" 202 actions::action, actions(ACTIONS), except(EXCEPT);
    };
    routes.extend(crate::metadata::routes::<Volume>(state));
    routes
}

/// A volume of the path that the caller may do the route's rule to.
pub fn find(reader: &mut Reader, ask: &Ask) -> Result<Stored<Volume>> {
    of(reader, ask, ask.param("volume_id"))
}

/// A volume by its id. NotFound for one of another project, too.
pub fn of(reader: &mut Reader, ask: &Ask, id: &str) -> Result<Stored<Volume>> {
    let missing = || Fault::not_found(format!("Volume {id:.255} could not be found."));
    let volume = reader.get::<Volume>(id)?.ok_or_else(missing)?;
    ask.allow(&volume.project_id, missing)?;
    Ok(volume)
}

pub fn invalid(why: impl std::fmt::Display) -> Fault {
    Fault::invalid(format!("Invalid volume: {why}"))
}

pub use actions::connection;
