//! Nova's own soft delete: a deleted server is SOFT_DELETED, and can be restored until its time is over.
//!
//! Off unless the cloud says how long that is; nubo's trash needs none of it. A soft-deleted server is stopped, keeps
//! its ports and its place, shows in no list but those of deleted servers, and uses no quota, as in Nova.

use super::document::Server;
use super::{find_for, history, observe, ops};
use crate::{Ask, Compute, quota};
use async_trait::async_trait;
use base::Result;
use engine::{Outcome, Reconciler};
use model::server::{Power, Verb};
use rest::Reply;
use std::sync::Arc;
use store::{Change, Document, Query, Stored, Tx};

pub fn delete(tx: &mut Tx, ask: &Ask, server: Stored<Server>) -> Result<()> {
    let mut server = server.doc;
    if server.power == Power::Absent {
        return Ok(());
    }
    let running = server.power == Power::Running;
    server.ask(Verb::Stop, tx.now());
    server.soft_deleted = Some(super::document::SoftDeleted { at: tx.now(), running });
    history::begin(tx, ask, &server, "delete", None)?;
    quota::release_server(tx, &server.project_id, &server.user_id, &server.flavor)?;
    tx.update(&server)?;
    Ok(())
}

/// Brings a soft-deleted server back to what it was.
pub async fn restore(state: &Compute, ask: &Ask, rule: &'static str) -> Result<Reply> {
    let restore = move |tx: &mut Tx, ask: &Ask| {
        let full = find_for(tx, ask, ask.param("server_id"), rule)?;
        let vm_state = full.state().vm_state;
        let mut server = full.server.doc;
        let Some(soft) = server.soft_deleted.take() else {
            return Err(ops::refuse_state("restore", &server.id, "vm_state", vm_state));
        };
        quota::charge_servers(tx, &server.project_id, &server.user_id, &server.flavor, 1)?;
        server.ask(if soft.running { Verb::Start } else { Verb::Stop }, tx.now());
        history::begin(tx, ask, &server, "restore", Some(server.generation))?;
        tx.update(&server)?;
        Ok(())
    };
    state.write(ask, restore).await?;
    Ok(Reply::empty(202))
}

/// Deletes for good what has been deleted softly long enough.
pub struct Reclaimer(pub Arc<Compute>);

#[async_trait]
impl Reconciler for Reclaimer {
    fn name(&self) -> &'static str {
        "reclaim"
    }

    fn concerns(&self, change: &Change) -> Option<String> {
        // Once it is time, and not before: the timer finds it.
        let _ = change;
        None
    }

    async fn pending(&self) -> Result<Vec<String>> {
        let before = self.0.env.now().plus_s(-self.0.options.reclaim_interval_s);
        let soft = self.0.store.list::<Server>(Query::index("todo", "reclaim")).await?;
        let due = |server: &&Stored<Server>| server.soft_deleted.as_ref().is_some_and(|soft| soft.at <= before);
        Ok(soft.iter().filter(due).map(|server| server.id().to_owned()).collect())
    }

    async fn reconcile(&self, id: &str) -> Result<Outcome> {
        let (state, id) = (self.0.clone(), id.to_owned());
        let reclaim = move |tx: &mut Tx| {
            let Some(mut server) = tx.get::<Server>(&id)?.filter(|server| server.soft_deleted.is_some()) else {
                return Ok(());
            };
            if server.power == Power::Absent {
                return Ok(());
            }
            server.doc.ask(Verb::Delete, tx.now());
            tx.update(&server.doc)?;
            if server.host.is_none() { observe::remove(&state, tx, server, None) } else { Ok(()) }
        };
        self.0.store.write(super::place::cause("server.reclaim"), reclaim).await?;
        Ok(Outcome::Settled)
    }
}
