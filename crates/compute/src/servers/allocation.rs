//! The room that a server holds on its host, and why it holds it there.
//!
//! An allocation is a document beside the rows of the host's ledger: taken in the commit that gives a server its host,
//! released in the commit that takes the server away from it. Its owner is the server of its id, as long as that server
//! is on that host. What has no owner is freed by a loop, and counted as the bug that it is.

use super::document::Server;
use crate::Compute;
use crate::hosts::{self, Host, Ratios};
use async_trait::async_trait;
use base::{HostName, ProjectId, Result, ServerId, Timestamp};
use contract::recount::{Counts, add};
use engine::{Leftover, Outcome, Reconciler};
use model::scheduler::Decision;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use store::{Cause, Change, Document, Keys, Query, Reader, Tx};

/// How often everything is looked at although nothing signalled.
const PERIOD_MS: u64 = 300_000;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Allocation {
    /// The server that holds it.
    pub id: ServerId,
    pub project_id: ProjectId,
    pub host: HostName,
    /// The server's when it was given the host: a later one fences an earlier one out.
    pub generation: u64,
    /// By Placement's resource classes.
    pub claims: BTreeMap<String, i64>,
    /// Why this host.
    pub decision: Option<Decision>,
    pub taken: Timestamp,
}

impl Document for Allocation {
    const KIND: &'static str = "allocation";
    fn id(&self) -> &str {
        &self.id
    }
    fn project_id(&self) -> &str {
        &self.project_id
    }
    fn keys(&self, keys: &mut Keys) {
        keys.index("host", self.host.as_str());
    }
    fn needs(&self, needs: &mut store::Needs) {
        needs.on::<Server>(&self.id);
    }
}

/// Takes a server's room on a host. Whatever it held elsewhere is released first.
pub fn take(tx: &mut Tx, server: &Server, host: &Host, ratios: &Ratios, decision: Decision) -> Result<()> {
    release(tx, server)?;
    let claims = hosts::claims(&server.flavor);
    for (resource, amount) in claims {
        let most = host.capacity(ratios, resource) as i64;
        tx.charge(&hosts::scope(&host.name), resource, amount, Some(most))?;
    }
    let allocation = Allocation {
        id: server.id.clone(),
        project_id: server.project_id.clone(),
        host: host.name.clone(),
        generation: server.generation,
        claims: claims.into_iter().map(|(resource, amount)| (resource.to_owned(), amount)).collect(),
        decision: Some(decision),
        taken: tx.now(),
    };
    tx.create(&allocation)?;
    Ok(())
}

/// Gives back what a server holds, if it holds anything.
pub fn release(tx: &mut Tx, server: &Server) -> Result<()> {
    if tx.get::<Allocation>(&server.id)?.is_some() {
        return free(tx, &server.id);
    }
    // Placed by an older program, which kept the ledger alone.
    let Some(host) = &server.host else { return Ok(()) };
    for (resource, amount) in hosts::claims(&server.flavor) {
        tx.charge(&hosts::scope(host), resource, -amount, None)?;
    }
    Ok(())
}

fn free(tx: &mut Tx, id: &str) -> Result<()> {
    let allocation = tx.delete::<Allocation>(id)?.doc;
    for (resource, amount) in &allocation.claims {
        tx.charge(&hosts::scope(&allocation.host), resource, -amount, None)?;
    }
    Ok(())
}

/// What allocations, and servers that an older program placed, use of hosts.
pub fn recount(reader: &mut Reader, servers: &[store::Stored<Server>], counts: &mut Counts) -> Result<()> {
    let mut known = BTreeSet::new();
    for allocation in reader.list::<Allocation>(Query::all())? {
        for (resource, amount) in &allocation.claims {
            add(counts, &hosts::scope(&allocation.host), resource, *amount);
        }
        known.insert(allocation.doc.id);
    }
    for server in servers.iter().filter(|server| !known.contains(&server.id)) {
        let Some(host) = &server.host else { continue };
        for (resource, amount) in hosts::claims(&server.flavor) {
            add(counts, &hosts::scope(host), resource, amount);
        }
    }
    Ok(())
}

/// True while the server of the allocation's id is on the allocation's host.
fn is_owned(reader: &mut Reader, allocation: &Allocation) -> Result<bool> {
    Ok(reader.get::<Server>(&allocation.id)?.is_some_and(|server| server.host.as_ref() == Some(&allocation.host)))
}

/// Frees what belongs to no server: room on hosts, and ports.
pub struct Sweeper(pub Arc<Compute>);

#[async_trait]
impl Reconciler for Sweeper {
    fn name(&self) -> &'static str {
        "allocations"
    }

    /// A server that has gone should have left nothing.
    fn concerns(&self, change: &Change) -> Option<String> {
        (change.kind == Server::KIND && change.body.is_none()).then(|| change.id.clone())
    }

    async fn pending(&self) -> Result<Vec<String>> {
        let state = self.0.clone();
        self.0
            .store
            .read(move |reader| {
                let mut suspects = BTreeSet::new();
                for allocation in reader.list::<Allocation>(Query::all())? {
                    if !is_owned(reader, &allocation)? {
                        suspects.insert(allocation.id.to_string());
                    }
                }
                for server in state.ports.servers_with_ports(reader)? {
                    if reader.get::<Server>(&server)?.is_none() {
                        suspects.insert(server.to_string());
                    }
                }
                Ok(suspects.into_iter().collect())
            })
            .await
    }

    async fn reconcile(&self, id: &str) -> Result<Outcome> {
        let (look, looked) = (self.0.clone(), id.to_owned());
        if self.0.store.read(move |reader| left_by(&look, reader, &looked)).await?.is_empty() {
            return Ok(Outcome::Settled);
        }
        let (state, id) = (self.0.clone(), id.to_owned());
        let cause = Cause::new("nubo", "", "allocation.sweep");
        self.0.store.write(cause, move |tx| sweep(&state, tx, &id)).await?;
        Ok(Outcome::Settled)
    }

    fn period_ms(&self) -> u64 {
        PERIOD_MS
    }
}

/// What a server that is not there (any more) has left behind.
fn left_by(state: &Compute, reader: &mut Reader, id: &str) -> Result<Vec<Leftover>> {
    let mut left = Vec::new();
    if let Some(allocation) = reader.get::<Allocation>(id)?
        && !is_owned(reader, &allocation)?
    {
        left.push(Leftover::Allocation);
    }
    let gone = reader.get::<Server>(id)?.is_none();
    if gone && !state.ports.of_server(reader, &ServerId::new(id))?.is_empty() {
        left.push(Leftover::Ports);
    }
    Ok(left)
}

fn sweep(state: &Compute, tx: &mut Tx, id: &str) -> Result<()> {
    for left in left_by(state, tx, id)? {
        left.count(tx, &format!("{} of server {id}", left.name()))?;
        match left {
            Leftover::Allocation => free(tx, id)?,
            Leftover::Ports => state.ports.detach_all(tx, &ServerId::new(id))?,
            Leftover::Ledger => {}
        }
    }
    Ok(())
}
