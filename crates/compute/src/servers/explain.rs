//! Why a server is where it is and as it is, and what a host carries.

use super::document::{Server, ServerObserved, Tombstone, fault_of, state_of};
use super::{Allocation, pending, place};
use crate::{Compute, Host, hosts};
use base::Result;
use contract::{Asking, Explain, Explanation};
use model::scheduler;
use serde_json::json;
use store::{Query, Reader};

impl Explain for Compute {
    fn kinds(&self) -> &'static [&'static str] {
        &["server", "host"]
    }

    fn explain(&self, reader: &mut Reader, asking: &Asking, kind: &str, id: &str) -> Result<Option<Explanation>> {
        match kind {
            "server" => server(self, reader, asking, id),
            // Hosts are nobody's but the administrator's.
            "host" if asking.admin => host(self, reader, id),
            _ => Ok(None),
        }
    }
}

fn server(state: &Compute, reader: &mut Reader, asking: &Asking, id: &str) -> Result<Option<Explanation>> {
    let Some(server) = reader.get::<Server>(id)?.filter(|server| asking.may_see(&server.project_id)) else {
        return Ok(None);
    };
    let seen = reader.get::<ServerObserved>(id)?.map(|seen| seen.doc);
    let shown = state_of(&server, seen.as_ref());
    let mut explanation = Explanation {
        kind: "server",
        id: id.to_owned(),
        state: shown.task_state.map_or(shown.status.to_owned(), |task| format!("{} ({task})", shown.status)),
        waiting: pending::waiting(state, reader, &server, seen.as_ref(), asking.admin)?,
        ..Explanation::default()
    };
    placement(state, reader, asking, &server, &mut explanation)?;
    if let Some(disk) = disk(&server, seen.as_ref()) {
        explanation.details.insert("disk".into(), json!(disk));
    }
    let fault = fault_of(&server, seen.as_ref()).filter(|_| shown.shows_fault);
    explanation.why = match (fault, &explanation.waiting) {
        (Some(fault), _) => fault.message.clone(),
        (None, Some(waiting)) => waiting.sentence(),
        (None, None) if server.forced_error => "An administrator has put it into ERROR.".to_owned(),
        (None, None) => match &server.stop_reason {
            Some(reason) => format!("The guest stopped by itself: {reason}."),
            None => "It is what was asked for.".to_owned(),
        },
    };
    Ok(Some(explanation))
}

/// What its root disk stands on, where it shall stand alone or does.
fn disk(server: &Server, seen: Option<&ServerObserved>) -> Option<String> {
    let wanted = server.root.as_ref()?.flat;
    match seen {
        Some(seen) if seen.flat => Some("stands alone".to_owned()),
        Some(ServerObserved { flat_problem: Some(problem), .. }) => {
            Some(format!("shall stand alone, and still stands on its image: {problem}"))
        }
        _ => wanted.then(|| "is being made to stand alone".to_owned()),
    }
}

/// Why it is on its host; without one, which hosts would take it now.
fn placement(
    state: &Compute,
    reader: &mut Reader,
    asking: &Asking,
    server: &Server,
    explanation: &mut Explanation,
) -> Result<()> {
    let details = &mut explanation.details;
    if let Some(allocation) = reader.get::<Allocation>(&server.id)? {
        if let Some(decision) = &allocation.decision {
            let counts = format!("{} of {} hosts fitted.", decision.fitting, decision.hosts);
            details.insert("placement".into(), json!(if asking.admin { decision.sentence() } else { counts }));
        }
        details.insert("placed_at".into(), json!(allocation.taken.iso_seconds()));
        if asking.admin {
            details.insert("host".into(), json!(allocation.host));
            details.insert("claims".into(), json!(allocation.claims));
            details.insert("hosts_that_gave_up".into(), json!(server.avoid));
        }
    }
    if server.host.is_some() || server.root.is_none() && !server.flavor.root_on_volume {
        return Ok(());
    }
    let rooms = hosts::rooms::exact(state, reader)?;
    let explained = scheduler::explain(&place::request(state, reader, server)?, &rooms);
    let counts = explained.counts();
    let counts: serde_json::Map<_, _> =
        counts.iter().map(|(constraint, count)| (constraint.name().to_owned(), json!(count))).collect();
    let fits = explained.rows.iter().any(|row| row.failed().next().is_none());
    details.insert("hosts".into(), json!(explained.rows.len()));
    details.insert("would_fit_now".into(), json!(fits));
    details.insert("hosts_that_fail_by_constraint".into(), json!(counts));
    let change = if asking.admin { &explained.of_all } else { &explained.of_request };
    details.insert("would_fit".into(), json!(change.as_ref().filter(|_| !fits).map(ToString::to_string)));
    if asking.admin {
        details.insert("nearest".into(), json!(explained.nearest));
        details.insert("table".into(), json!(explained.rows));
    }
    Ok(())
}

fn host(state: &Compute, reader: &mut Reader, name: &str) -> Result<Option<Explanation>> {
    let Some(host) = reader.get::<Host>(name)? else { return Ok(None) };
    let alive = state.hosts.is_alive(&host.name);
    let room = host.room(reader, &state.options.ratios, alive)?;
    let seen = state.hosts.last_seen(&host.name).map(|at| at.iso_seconds());
    let (word, why) = match (alive, host.enabled) {
        (true, true) => ("up", "It answers and takes servers.".to_owned()),
        (true, false) => {
            let reason = host.disabled_reason.as_deref().unwrap_or("no reason was given");
            ("disabled", format!("It answers, and an administrator has disabled it: {reason}."))
        }
        (false, _) => {
            let since = seen.as_ref().map_or("this control was started".to_owned(), Clone::clone);
            ("down", format!("It has not answered since {since}. Servers on it go on when it does."))
        }
    };
    let mut explanation =
        Explanation { kind: "host", id: name.to_owned(), state: word.to_owned(), why, ..Explanation::default() };
    let servers = reader.count::<Server>(Query::index("host", name))?;
    let leaving = reader.count::<Tombstone>(Query::index("host", name))?;
    for (key, value) in [
        ("servers", json!(servers)),
        ("guests_to_remove", json!(leaving)),
        ("last_seen", json!(seen)),
        ("free_vcpus", json!(room.vcpus.free())),
        ("free_memory_mib", json!(room.memory_mib.free())),
        ("free_disk_gib", json!(room.disk_gib.free())),
        ("warnings", json!(host.inventory.warnings)),
    ] {
        explanation.details.insert(key.into(), value);
    }
    Ok(Some(explanation))
}
