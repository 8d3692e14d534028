//! Servers on their way: since when, what they wait for, and the end of the waiting.
//!
//! `passing_since` is written in the commit that leaves a resting state and removed in the one that reaches the next,
//! so it survives whatever dies. Past the deadline of its verb a server is in ERROR, with a fault that names cause and
//! cure; nothing of what it shall be changes, so what comes right afterwards leaves ERROR by itself.

use super::document::{Server, ServerFault, ServerObserved, Tombstone, facts, rest_of};
use super::history;
use crate::Compute;
use async_trait::async_trait;
use base::{Result, ServerId, Timestamp};
use contract::{Guests, Running, Waiting};
use engine::{Outcome, Reconciler};
use model::deadline::{Operation, Passing, waits};
use model::server::{Power, Verb, settled};
use std::sync::Arc;
use store::{Cause, Change, Query, Reader, Tx};

/// How often deadlines are looked at.
const PERIOD_MS: u64 = 5_000;
/// The most servers whose deadline is looked at in one round.
const ROUND: usize = 10_000;

/// Notes in the server's document whether it is on its way now. Returns whether that changed the document.
pub fn mark(now: Timestamp, server: &mut Server, seen: Option<&ServerObserved>) -> bool {
    let before = (server.passing_since, server.overdue);
    if server.overdue != 0 && (server.overdue != server.verb_generation || settled(&facts(server, seen))) {
        // It came right after all, or something newer was asked of it.
        server.overdue = 0;
        server.fault = None;
    }
    let passing = server.is_overdue() || rest_of(server, seen).task_state.is_some();
    server.passing_since = if passing { server.passing_since.or(Some(now)) } else { None };
    before != (server.passing_since, server.overdue)
}

pub fn operation(server: &Server) -> Operation {
    Operation::of(server.verb)
}

pub fn passing(state: &Compute, server: &Server) -> Option<Passing> {
    server.passing_since.map(|since| state.options.deadlines.passing(operation(server), since))
}

/// What a server waits for. `admin`: hosts are named.
pub fn waiting(
    state: &Compute,
    reader: &mut Reader,
    server: &Server,
    seen: Option<&ServerObserved>,
    admin: bool,
) -> Result<Option<Waiting>> {
    let Some(passing) = passing(state, server) else { return super::snapshot::waiting(reader, server, admin) };
    let mut attempts = 0;
    let mut last_error = None;
    if let Some(fault) = seen.and_then(|seen| seen.fault.as_ref()) {
        attempts = seen.map_or(0, |seen| seen.attempts);
        let detail = if admin && !fault.details.is_empty() { format!(" ({})", fault.details) } else { String::new() };
        last_error = Some(format!("{}{detail}", fault.message));
    }
    let waiting_on = match &server.host {
        None => match reader.list::<Tombstone>(Query::index("guest", server.id.as_str()).limit(1))?.pop() {
            Some(last) if admin => format!("host {}, which could not build it, to let go of it", last.host),
            Some(_) => "the host that could not build it to let go of it".to_owned(),
            None => "a host".to_owned(),
        },
        Some(host) => {
            let name = if admin { format!("host {host}") } else { "its host".to_owned() };
            match contract::silence(&*state.hosts, host) {
                Some(silence) => format!("{name}{silence}"),
                None => on_host(state, reader, server, seen, name)?,
            }
        }
    };
    Ok(Some(Waiting::of(&passing, waiting_on, attempts, last_error)))
}

/// What is still to be done on a host that answers.
fn on_host(
    state: &Compute,
    reader: &mut Reader,
    server: &Server,
    seen: Option<&ServerObserved>,
    host: String,
) -> Result<String> {
    let runs = seen.is_some_and(|seen| seen.power == Some(Power::Running) && seen.launched_at.is_none());
    if runs && server.power == Power::Running {
        let ports = state.ports.of_server(reader, &server.id)?;
        let down: Vec<_> = ports.iter().filter(|port| port.admin_state_up && !port.up).collect();
        if let Some(first) = down.first() {
            let why = first.fault.as_ref().map(|fault| format!(": {fault}")).unwrap_or_default();
            return Ok(format!("{host} to wire {} of {} ports, first {}{why}", down.len(), ports.len(), first.id));
        }
    }
    Ok(match server.verb {
        Verb::Create => format!("{host} to start it"),
        Verb::Delete => format!("{host} to remove it"),
        _ => format!("{host} to bring it to what was asked"),
    })
}

/// What is said once the deadline has passed: cause and cure.
fn late(
    state: &Compute,
    tx: &mut Tx,
    server: &Server,
    seen: Option<&ServerObserved>,
    passing: &Passing,
) -> Result<ServerFault> {
    let answers = server.host.as_ref().is_none_or(|host| state.hosts.is_alive(host));
    let cure = match (server.verb, answers) {
        (Verb::Delete, false) => {
            "It goes when its host answers again; an administrator may remove it now with forceDelete, and the host \
             then removes the guest when it returns."
        }
        (Verb::Delete, true) => "It is still tried; an administrator finds more in the host's log.",
        (_, false) => "It goes on by itself when its host answers again; or delete it.",
        (Verb::Create, true) => "It is still tried and leaves ERROR when it succeeds; or delete it.",
        (_, true) => "It is still tried and leaves ERROR when it succeeds; a hard reboot starts it anew.",
    };
    let public = waiting(state, tx, server, seen, false)?;
    let public = public.map(|it| passing.fault(&it.waiting_on, it.last_error.as_deref(), cure));
    let admin = waiting(state, tx, server, seen, true)?;
    Ok(ServerFault {
        code: 500,
        message: public.unwrap_or_default(),
        details: admin.map(|it| waits(&it.waiting_on, it.last_error.as_deref())).unwrap_or_default(),
        created: tx.now(),
    })
}

/// As Nova names it.
const EXTEND: &str = "extend_volume";

impl Guests for Compute {
    fn running(&self, reader: &mut Reader, server: &ServerId) -> Result<Option<Running>> {
        let Some(server) = reader.get::<Server>(server)? else { return Ok(None) };
        if !matches!(server.power, Power::Running | Power::Paused) {
            return Ok(None);
        }
        let seen = reader.get::<ServerObserved>(&server.id)?.map(|seen| seen.doc);
        let started = seen.as_ref().and_then(|seen| seen.started_at);
        let since = server.passing_since.max(started).unwrap_or(server.created);
        let fault = seen.as_ref().and_then(|seen| seen.fault.as_ref());
        Ok(Some(Running {
            since,
            attempts: seen.as_ref().map_or(0, |seen| seen.attempts),
            last_error: fault.map(|fault| fault.message.clone()),
        }))
    }

    fn volume_grows(&self, tx: &mut Tx, server: &ServerId, user: &str, request: &str) -> Result<()> {
        match tx.get::<Server>(server)? {
            Some(server) => history::write(tx, &server, user, request, EXTEND, Some(history::UNTIL_TOLD), None),
            None => Ok(()),
        }
    }

    fn volume_grown(&self, tx: &mut Tx, server: &ServerId) -> Result<()> {
        history::done(tx, server, EXTEND)
    }
}

/// Ends what is past its deadline.
pub struct Deadlines(pub Arc<Compute>);

#[async_trait]
impl Reconciler for Deadlines {
    fn name(&self) -> &'static str {
        "deadlines"
    }

    /// Nothing is urgent: the timer alone looks.
    fn concerns(&self, _: &Change) -> Option<String> {
        None
    }

    async fn pending(&self) -> Result<Vec<String>> {
        let now = self.0.env.now();
        let all = self.0.store.list::<Server>(Query::index("todo", "passing").limit(ROUND)).await?;
        let late = all.iter().filter(|server| passing(&self.0, server).is_some_and(|passing| passing.is_overdue(now)));
        Ok(late.map(|server| server.id.to_string()).collect())
    }

    async fn reconcile(&self, id: &str) -> Result<Outcome> {
        let (state, id) = (self.0.clone(), id.to_owned());
        let cause = Cause::new("nubo", "", "server.deadline");
        self.0.store.write(cause, move |tx| end(&state, tx, &id)).await?;
        Ok(Outcome::Settled)
    }

    fn period_ms(&self) -> u64 {
        PERIOD_MS
    }
}

fn end(state: &Compute, tx: &mut Tx, id: &str) -> Result<()> {
    let Some(mut server) = tx.get::<Server>(id)? else { return Ok(()) };
    let seen = tx.get::<ServerObserved>(id)?.map(|seen| seen.doc);
    if mark(tx.now(), &mut server.doc, seen.as_ref()) {
        tx.update(&server.doc)?;
    }
    let late_now = passing(state, &server).filter(|passing| passing.is_overdue(tx.now()));
    let Some(passing) = late_now.filter(|_| !server.is_overdue()) else { return Ok(()) };
    let fault = late(state, tx, &server, seen.as_ref(), &passing)?;
    tracing::warn!(server = id, "{} {}", fault.message, fault.details);
    server.doc.fault = Some(fault);
    server.doc.overdue = server.verb_generation;
    history::close(tx, &server.id, server.verb_generation, true)?;
    tx.update(&server.doc)?;
    Ok(())
}
