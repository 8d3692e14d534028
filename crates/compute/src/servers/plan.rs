//! Where new servers would go: for dry runs, by the same choice that the placing loop makes after the commit.

use super::document::Server;
use super::place::request;
use crate::Compute;
use base::Result;
use model::scheduler::{self, Request, choose, decide};
use serde_json::{Value, json};
use store::Tx;
use store::scope::Note;

/// What the plan says of hosts: names for administrators, counts and constraints for everybody else.
///
/// Charges nothing: the call leaves that to the loop, unless it makes a single server.
pub fn would_place(state: &Compute, tx: &mut Tx, servers: &[Server]) -> Result<Note> {
    let mut rooms = state.rooms.all(state, tx)?;
    // What rests in the trash makes room for what lives: looked at only where that is needed.
    let mut emptied: Option<Vec<scheduler::Host>> = None;
    let (mut admin, mut public) = (Vec::new(), Vec::new());
    for server in servers {
        let request = request(state, tx, server)?;
        let mut decided = decide(&request, &rooms).map(|decision| (decision.host, decision.fitting));
        if let Err(why) = decided {
            let emptied = match &mut emptied {
                Some(emptied) => emptied,
                none => none.insert(super::trash::emptied(tx, &rooms)?),
            };
            decided = choose(&request, emptied).map(|host| (host, 0)).map_err(|_| why);
        }
        match decided {
            _ if server.unschedulable => {
                let why = server.fault.as_ref().map_or("", |fault| fault.message.as_str());
                admin.push(json!({"server": server.id, "host": null, "refused": why}));
                public.push(json!({"server": server.id, "would_fit": false, "hosts": 0, "refused": why}));
            }
            Ok((host, fitting)) => {
                let both = rooms.iter_mut().chain(emptied.iter_mut().flatten());
                both.filter(|room| room.name == host).for_each(|room| take(room, &request));
                admin.push(json!({"server": server.id, "host": host, "would_fit": true, "hosts": fitting}));
                public.push(json!({"server": server.id, "would_fit": true, "hosts": fitting}));
            }
            Err(explained) => {
                let summary = explained.summary();
                let counts: serde_json::Map<String, Value> = explained
                    .counts()
                    .iter()
                    .map(|(constraint, count)| (constraint.name().to_owned(), json!(count)))
                    .collect();
                let change = explained.of_request.as_ref().map(ToString::to_string);
                public.push(json!({
                    "server": server.id, "would_fit": false, "hosts": 0, "refused": summary, "constraints": counts,
                    "would_fit_with": change,
                }));
                admin.push(json!({
                    "server": server.id, "host": null, "would_fit": false, "hosts": 0, "refused": summary,
                    "constraints": counts, "table": explained.rows, "nearest": explained.nearest,
                    "would_fit_with": explained.of_all.as_ref().map(ToString::to_string),
                }));
            }
        }
    }
    Ok(Note { name: "host", public: public.into(), admin: admin.into() })
}

fn take(room: &mut scheduler::Host, request: &Request) {
    room.vcpus.used += request.vcpus;
    room.memory_mib.used += request.memory_mib;
    room.disk_gib.used += request.disk_gib;
}
