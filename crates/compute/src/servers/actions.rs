//! `POST /servers/{id}/action`: the body's only key says what is to be done.

use super::document::Server;
use super::{Full, consoles, find_for, history, network, ops, pending, snapshot, soft};
use crate::input::{self, Fields};
use crate::{Ask, Compute, ask};
use base::{Fault, Result};
use model::server::{Verb, guard};
use policy::Target;
use rest::{Access, Call, DryRun, Except, Method, Reply, Route, Undo, Version};
use serde_json::Value;
use std::sync::Arc;
use store::Tx;

/// Every action that is known, with its policy rule and the versions that have it.
const ACTIONS: &[(&str, &str, Version, Version)] = &[
    ("os-start", "os_compute_api:servers:start", FIRST, LAST),
    ("os-stop", "os_compute_api:servers:stop", FIRST, LAST),
    ("reboot", "os_compute_api:servers:reboot", FIRST, LAST),
    ("pause", "os_compute_api:os-pause-server:pause", FIRST, LAST),
    ("unpause", "os_compute_api:os-pause-server:unpause", FIRST, LAST),
    ("suspend", "os_compute_api:os-suspend-server:suspend", FIRST, LAST),
    ("resume", "os_compute_api:os-suspend-server:resume", FIRST, LAST),
    ("lock", "os_compute_api:os-lock-server:lock", FIRST, LAST),
    ("unlock", "os_compute_api:os-lock-server:unlock", FIRST, LAST),
    ("os-resetState", "os_compute_api:os-admin-actions:reset_state", FIRST, LAST),
    ("forceDelete", "os_compute_api:os-deferred-delete:force", FIRST, LAST),
    ("restore", "os_compute_api:os-deferred-delete:restore", FIRST, LAST),
    ("createImage", "os_compute_api:servers:create_image", FIRST, LAST),
    ("os-getConsoleOutput", "os_compute_api:os-console-output", FIRST, LAST),
    ("os-getVNCConsole", "os_compute_api:os-remote-consoles", FIRST, Version(2, 5)),
    ("os-getSerialConsole", "os_compute_api:os-remote-consoles", FIRST, Version(2, 5)),
    ("os-getSPICEConsole", "os_compute_api:os-remote-consoles", FIRST, Version(2, 5)),
    ("os-getRDPConsole", "os_compute_api:os-remote-consoles", FIRST, Version(2, 5)),
    ("addSecurityGroup", "os_compute_api:os-security-groups:add", FIRST, LAST),
    ("removeSecurityGroup", "os_compute_api:os-security-groups:remove", FIRST, LAST),
    // Nova has none: it is nubo's own.
    ("nubo-flatten", "os_compute_api:nubo-flatten", FIRST, LAST),
];
const FIRST: Version = Version(2, 1);
const LAST: Version = Version(u16::MAX, 0);

/// The names alone, for whoever walks the table of routes.
pub const NAMES: &[&str] = &[
    "os-start",
    "os-stop",
    "reboot",
    "pause",
    "unpause",
    "suspend",
    "resume",
    "lock",
    "unlock",
    "forceDelete",
    "restore",
    "os-resetState",
    "createImage",
    "os-getConsoleOutput",
    "os-getVNCConsole",
    "os-getSerialConsole",
    "os-getSPICEConsole",
    "os-getRDPConsole",
    "addSecurityGroup",
    "removeSecurityGroup",
    "nubo-flatten",
];

const CONSOLE: DryRun = DryRun::Not("the address of a console is the answer itself");
const SPENT: Undo = Undo::Not("a console's address is used once or expires");
const EXCEPT: &[Except] = &[
    Except {
        action: "os-getConsoleOutput",
        dry: DryRun::Not("it changes nothing"),
        undo: Undo::Not("it changes nothing"),
    },
    Except { action: "os-getVNCConsole", dry: CONSOLE, undo: SPENT },
    Except { action: "os-getSerialConsole", dry: CONSOLE, undo: SPENT },
    Except { action: "os-getSPICEConsole", dry: CONSOLE, undo: SPENT },
    Except { action: "os-getRDPConsole", dry: CONSOLE, undo: SPENT },
    Except { action: "reboot", dry: DryRun::Yes, undo: Undo::Not("what a reboot interrupts does not come back") },
    Except {
        action: "createImage",
        dry: DryRun::Yes,
        undo: Undo::Not("the image is deleted instead, which also ends its making"),
    },
    Except {
        action: "nubo-flatten",
        dry: DryRun::Yes,
        undo: Undo::Not("the disk has its own copy then, and goes on with it"),
    },
    Except { action: "forceDelete", dry: DryRun::Yes, undo: Undo::Not("it skips the trash on purpose") },
];

pub fn routes(state: &Arc<Compute>) -> Vec<Route> {
    // Each action has a rule of its own, checked below.
    let access = Access::Rule("os_compute_api:servers:show");
    vec![
        Route::new(state, Method::POST, "/servers/{server_id}/action", "servers:action", access, 202, action)
            .actions(NAMES)
            .except(EXCEPT),
    ]
}

async fn action(state: Arc<Compute>, mut call: Call) -> Result<Reply> {
    let (ask, body) = ask::read(&mut call, &[]).await?;
    let (name, value) = input::action(&body)?;
    let known = ACTIONS.iter().find(|action| action.0 == name);
    let Some((name, rule, since, until)) = known.copied() else {
        return Err(Fault::invalid(format!("There is no such action: {name}")));
    };
    if ask.version < since || ask.version > until {
        return Err(Fault::not_found("The resource could not be found."));
    }
    if let Some(Except { dry: DryRun::Not(why), .. }) = EXCEPT.iter().find(|except| except.action == name) {
        store::scope::refuse_dry(name, why)?;
    }
    match name {
        "os-start" => simple(&state, &ask, rule, Verb::Start, "start").await,
        "os-stop" => simple(&state, &ask, rule, Verb::Stop, "stop").await,
        "pause" => simple(&state, &ask, rule, Verb::Pause, "pause").await,
        "unpause" => simple(&state, &ask, rule, Verb::Unpause, "unpause").await,
        "suspend" => simple(&state, &ask, rule, Verb::Suspend, "suspend").await,
        "resume" => simple(&state, &ask, rule, Verb::Resume, "resume").await,
        "reboot" => reboot(&state, &ask, rule, value).await,
        "lock" => lock(&state, &ask, rule, value).await,
        "unlock" => unlock(&state, &ask, rule).await,
        "os-resetState" => reset_state(&state, &ask, rule, value).await,
        "forceDelete" => ops::force_delete(&state, &ask, rule).await,
        "restore" => soft::restore(&state, &ask, rule).await,
        "createImage" => snapshot::create(&state, &ask, rule, value).await,
        "addSecurityGroup" => network::group(&state, &ask, rule, value, true).await,
        "removeSecurityGroup" => network::group(&state, &ask, rule, value, false).await,
        "nubo-flatten" => flatten(&state, &ask, rule, value).await,
        "os-getConsoleOutput" => consoles::output(&state, &ask, rule, value).await,
        other => consoles::legacy(&state, &ask, rule, other, value).await,
    }
}

/// Changes the server of the path under an action's rule.
pub async fn change<R: Send + 'static>(
    state: &Compute,
    ask: &Ask,
    rule: &'static str,
    mut change: impl FnMut(&mut Tx, &Ask, Full) -> Result<R> + Send + 'static,
) -> Result<R> {
    let act = move |tx: &mut Tx, ask: &Ask| {
        let full = find_for(tx, ask, ask.param("server_id"), rule)?;
        change(tx, ask, full)
    };
    state.write(ask, act).await
}

/// A verb that needs nothing but the right state.
async fn simple(state: &Compute, ask: &Ask, rule: &'static str, verb: Verb, name: &'static str) -> Result<Reply> {
    change(state, ask, rule, move |tx, ask, full| begin(tx, ask, full, verb, name)).await?;
    Ok(Reply::empty(202))
}

fn begin(tx: &mut Tx, ask: &Ask, full: Full, verb: Verb, name: &'static str) -> Result<()> {
    ops::refuse_locked(ask, &full.server)?;
    let state = full.state();
    if let Some((attribute, value)) = guard(verb).refusal(&state) {
        return Err(ops::refuse_state(name, &full.server.id, attribute, value));
    }
    let mut server = full.server.doc;
    // What never came to a host cannot be started there.
    if server.host.is_none() || full.observed.is_none() {
        return Err(ops::refuse_state(name, &server.id, "vm_state", state.vm_state));
    }
    server.ask(verb, tx.now());
    history::begin(tx, ask, &server, name, Some(server.verb_generation))?;
    tx.update(&server)?;
    Ok(())
}

async fn reboot(state: &Compute, ask: &Ask, rule: &'static str, value: &Value) -> Result<Reply> {
    let mut fields = Fields::of("reboot", value)?;
    let kind = fields.need("type")?;
    let verb = match kind.as_str().map(str::to_ascii_uppercase).as_deref() {
        Some("SOFT") => Verb::SoftReboot,
        Some("HARD") => Verb::HardReboot,
        _ => {
            let why = format!("{} is not one of ['HARD', 'Hard', 'hard', 'SOFT', 'Soft', 'soft']", input::repr(kind));
            return Err(input::refuse("type", kind, why));
        }
    };
    fields.finish()?;
    change(state, ask, rule, move |tx, ask, full| begin(tx, ask, full, verb, "reboot")).await?;
    Ok(Reply::empty(202))
}

async fn lock(state: &Compute, ask: &Ask, rule: &'static str, value: &Value) -> Result<Reply> {
    let mut reason = None;
    if ask.version >= Version(2, 73) && !value.is_null() {
        let mut fields = Fields::of("lock", value)?;
        reason = fields.text("locked_reason", 1, 255)?;
        fields.finish()?;
    }
    change(state, ask, rule, move |tx, ask, full| {
        let mut server = full.server.doc;
        let by_admin = ask.project_str() != Some(server.project_id.as_str());
        // Who locks what the administrator has locked does not take that lock over.
        let by_admin = by_admin || server.lock.as_ref().is_some_and(|lock| lock.by_admin);
        server.lock = Some(super::document::Lock { by_admin, reason: reason.clone() });
        history::begin(tx, ask, &server, "lock", None)?;
        tx.update(&server)?;
        Ok(())
    })
    .await?;
    Ok(Reply::empty(202))
}

async fn unlock(state: &Compute, ask: &Ask, rule: &'static str) -> Result<Reply> {
    change(state, ask, rule, |tx, ask, full| {
        let mut server: Server = full.server.doc;
        if server.lock.as_ref().is_some_and(|lock| lock.by_admin) {
            let target = Target::project(server.project_id.as_str());
            ask.enforce_rule("os_compute_api:os-lock-server:unlock:unlock_override", &target)?;
        }
        server.lock = None;
        history::begin(tx, ask, &server, "unlock", None)?;
        tx.update(&server)?;
        Ok(())
    })
    .await?;
    Ok(Reply::empty(202))
}

/// The root disk shall hold all of its data itself. The guest goes on, and the host does it when it can.
async fn flatten(state: &Compute, ask: &Ask, rule: &'static str, value: &Value) -> Result<Reply> {
    if !value.is_null() {
        return Err(input::refuse("nubo-flatten", value, "it takes nothing: null"));
    }
    change(state, ask, rule, |tx, ask, full| {
        ops::refuse_locked(ask, &full.server)?;
        let mut server: Server = full.server.doc;
        let Some(root) = server.root.as_mut() else {
            let why = "boots from a volume and has no disk of its own";
            return Err(Fault::conflict(format!("Server {} {why}.", server.id)));
        };
        if root.flat {
            return Ok(());
        }
        root.flat = true;
        server.touch();
        history::begin(tx, ask, &server, "nubo-flatten", None)?;
        tx.update(&server)?;
        Ok(())
    })
    .await?;
    Ok(Reply::empty(202))
}

/// nubo needs no such thing, but tools know it: ERROR can be put on and taken off a server, and its guest is untouched.
async fn reset_state(state: &Compute, ask: &Ask, rule: &'static str, value: &Value) -> Result<Reply> {
    let mut fields = Fields::of("os-resetState", value)?;
    let wanted = fields.need("state")?;
    let forced = match wanted.as_str() {
        Some("error") => true,
        Some("active") => false,
        _ => {
            let why = format!("{} is not one of ['active', 'error']", input::repr(wanted));
            return Err(input::refuse("state", wanted, why));
        }
    };
    fields.finish()?;
    change(state, ask, rule, move |tx, _, full| {
        let mut server = Server { forced_error: forced, ..full.server.doc };
        if !forced {
            // What is still on its way then has its whole time again.
            (server.overdue, server.passing_since) = (0, None);
        }
        pending::mark(tx.now(), &mut server, full.observed.as_ref().map(|seen| &seen.doc));
        tx.update(&server)?;
        Ok(())
    })
    .await?;
    Ok(Reply::empty(202))
}
