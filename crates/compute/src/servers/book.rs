//! All servers in memory, fed by the watch: what lists are made of.
//!
//! A list of a thousand servers must not parse a thousand documents, ask a thousand times for ports, or serialize what
//! it serialized a second ago. The book holds documents, ports and rendered JSON, each thrown away by the change that
//! makes it old. It is brought up to the present before every list: a commit is published before its writer is
//! answered, so a client that has read an answer finds it in the next list.
//!
//! Never here: anything that decides. Decisions read the store in their own transaction.

use super::document::{Server, ServerObserved, ServerSecret};
use super::render::{Parts, View, render};
use crate::Compute;
use base::{ProjectId, Result, ServerId, Timestamp};
use contract::{ServerPort, ServerVolume};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Bound;
use std::sync::Arc;
use store::{Change, Document, Event, Query, Rev, Stored, Watch};
use tokio::sync::{Mutex, OwnedMutexGuard};

fn turned<'a>(entries: impl DoubleEndedIterator<Item = &'a Entry> + 'a, falling: bool) -> Box<dyn Iterator<Item = &'a Entry> + 'a> {
    if falling { Box::new(entries.rev()) } else { Box::new(entries) }
}

/// How many renderings of one server are kept: a user's, an administrator's, and one to spare.
const RENDERINGS: usize = 3;

/// Kinds of this service that no list shows.
const OWN: &[&str] = &[
    super::InstanceAction::KIND,
    super::DeletedServer::KIND,
    super::Tombstone::KIND,
    super::Allocation::KIND,
    ServerSecret::KIND,
    super::consoles::ConsoleToken::KIND,
    crate::Flavor::KIND,
    crate::KeyPair::KIND,
    crate::Host::KIND,
];

type Key = (Timestamp, ServerId);

/// A server in the book.
pub struct Entry {
    pub server: Stored<Server>,
    pub observed: Option<Stored<ServerObserved>>,
    pub ports: Option<Arc<Vec<ServerPort>>>,
    /// Read together with the ports.
    volumes: Arc<Vec<ServerVolume>>,
    renderings: Vec<(View, Arc<str>)>,
}

#[derive(Default)]
pub struct Pages {
    watch: Option<Watch>,
    /// The snapshot that the book was filled from.
    since: Rev,
    /// In the order of creation.
    pub entries: BTreeMap<Key, Entry>,
    keys: HashMap<ServerId, Timestamp>,
    /// Those of each project.
    projects: HashMap<ProjectId, BTreeSet<Key>>,
}

#[derive(Default)]
pub struct Book(Arc<Mutex<Pages>>);

impl Book {
    /// The book as of now; nobody else reads it meanwhile. Or one of the past, made for this request alone.
    pub async fn open(&self, state: &Arc<Compute>) -> Result<OwnedMutexGuard<Pages>> {
        if store::scope::as_of().is_some() {
            let mut pages = Arc::<Mutex<Pages>>::default().lock_owned().await;
            pages.fill(state).await?;
            return Ok(pages);
        }
        let mut pages = self.0.clone().lock_owned().await;
        let mut network = Vec::new();
        if !pages.catch_up(&mut network) {
            pages.fill(state).await?;
        } else if !network.is_empty() {
            pages.forget_ports(state, network).await?;
        }
        Ok(pages)
    }
}

impl Pages {
    /// Takes over what the watch has. False: start anew.
    fn catch_up(&mut self, network: &mut Vec<Change>) -> bool {
        let Some(mut watch) = self.watch.take() else { return false };
        while let Some(watched) = watch.try_next() {
            let Event::Revision(revision) = watched else { return false };
            if revision.rev <= self.since {
                continue;
            }
            for change in &revision.changes {
                if !self.take(change, network) {
                    return false;
                }
            }
        }
        self.watch = Some(watch);
        true
    }

    /// False for a change that cannot be read.
    fn take(&mut self, change: &Change, network: &mut Vec<Change>) -> bool {
        match change.kind.as_ref() {
            Server::KIND => match change.document::<Server>() {
                Ok(Some(server)) => self.put(server),
                Ok(None) => self.remove(&ServerId::new(change.id.as_str())),
                Err(_) => return false,
            },
            ServerObserved::KIND => match change.document::<ServerObserved>() {
                Ok(seen) => {
                    if let Some(entry) = self.entry(&ServerId::new(change.id.as_str())) {
                        entry.observed = seen;
                        entry.renderings.clear();
                    }
                }
                Err(_) => return false,
            },
            // Which kinds the addresses and the volumes of a server are made of is for others to know.
            kind if !OWN.contains(&kind) => network.push(change.clone()),
            _ => {}
        }
        true
    }

    fn put(&mut self, server: Stored<Server>) {
        let id = server.id.clone();
        let created = server.created;
        self.keys.insert(id.clone(), created);
        let project = server.project_id.clone();
        self.projects.entry(project).or_default().insert((created, id.clone()));
        match self.entries.get_mut(&(created, id.clone())) {
            Some(entry) => {
                entry.server = server;
                entry.renderings.clear();
            }
            None => {
                let entry = Entry { server, observed: None, ports: None, volumes: Arc::default(), renderings: Vec::new() };
                self.entries.insert((created, id), entry);
            }
        }
    }

    fn remove(&mut self, id: &ServerId) {
        let Some(created) = self.keys.remove(id) else { return };
        let key = (created, id.clone());
        let Some(entry) = self.entries.remove(&key) else { return };
        if let Some(keys) = self.projects.get_mut(&entry.server.project_id) {
            keys.remove(&key);
            if keys.is_empty() {
                self.projects.remove(&entry.server.project_id);
            }
        }
    }

    pub fn get(&self, id: &ServerId) -> Option<&Entry> {
        let created = self.keys.get(id)?;
        self.entries.get(&(*created, id.clone()))
    }

    /// Those of one project, or all, in the order of their creation or the other way round, from the one after `after`.
    pub fn in_order<'a>(
        &'a self,
        project: Option<&str>,
        after: Option<Key>,
        falling: bool,
    ) -> Box<dyn Iterator<Item = &'a Entry> + 'a> {
        let open = Bound::Unbounded;
        let after = after.map_or(Bound::Unbounded, Bound::Excluded);
        let range = if falling { (open, after) } else { (after, open) };
        match project {
            None => turned(self.entries.range(range).map(|(_, entry)| entry), falling),
            Some(project) => {
                let keys = self.projects.get(&ProjectId::new(project)).map(|keys| keys.range(range));
                turned(keys.into_iter().flatten().filter_map(|key| self.entries.get(key)), falling)
            }
        }
    }

    pub fn entry(&mut self, id: &ServerId) -> Option<&mut Entry> {
        let created = self.keys.get(id)?;
        self.entries.get_mut(&(*created, id.clone()))
    }

    async fn fill(&mut self, state: &Arc<Compute>) -> Result<()> {
        // The watch first: nothing that is committed after the snapshot can be missed.
        let watch = state.store.watch();
        let filled = state.store.read(|reader| {
            let rev = reader.snapshot_rev()?;
            Ok((rev, reader.list::<Server>(Query::all())?, reader.list::<ServerObserved>(Query::all())?))
        });
        let (rev, servers, observed) = filled.await?;
        *self = Pages { since: rev, ..Pages::default() };
        servers.into_iter().for_each(|server| self.put(server));
        for seen in observed {
            if let Some(entry) = self.entry(&seen.id.clone()) {
                entry.observed = Some(seen);
            }
        }
        self.watch = Some(watch);
        Ok(())
    }

    async fn forget_ports(&mut self, state: &Arc<Compute>, changes: Vec<Change>) -> Result<()> {
        let (ports, mut touched) = (state.ports.clone(), Vec::new());
        for change in &changes {
            match state.volumes.servers_touched(change)? {
                Some(servers) => touched.extend(servers),
                None => touched.extend(self.with_volumes()),
            }
        }
        let touched = state.store.read(move |reader| {
            let mut touched = touched.clone();
            for change in &changes {
                match ports.servers_touched(reader, change)? {
                    Some(servers) => touched.extend(servers),
                    None => return Ok(None),
                }
            }
            Ok(Some(touched))
        });
        let forget = |entry: &mut Entry| {
            entry.ports = None;
            entry.renderings.clear();
        };
        let touched = touched.await.inspect_err(|_| self.watch = None)?;
        match touched {
            None => self.entries.values_mut().for_each(forget),
            Some(servers) => {
                for server in servers {
                    if let Some(entry) = self.entry(&server) {
                        forget(entry);
                    }
                }
            }
        }
        Ok(())
    }

    fn with_volumes(&self) -> impl Iterator<Item = ServerId> {
        let with = self.entries.values().filter(|entry| !entry.volumes.is_empty());
        with.map(|entry| entry.server.id.clone())
    }

    /// Reads the ports and volumes of those servers that lack them.
    pub async fn load_ports(&mut self, state: &Arc<Compute>, ids: &[ServerId]) -> Result<()> {
        let missing: Vec<ServerId> =
            ids.iter().filter(|id| self.entry(id).is_some_and(|entry| entry.ports.is_none())).cloned().collect();
        if missing.is_empty() {
            return Ok(());
        }
        let (ports, volumes, wanted) = (state.ports.clone(), state.volumes.clone(), missing.clone());
        let read = state.store.read(move |reader| {
            let mut attached = HashMap::new();
            for id in &wanted {
                attached.insert(id.clone(), volumes.of_server(reader, id)?);
            }
            Ok((ports.of_servers(reader, &wanted)?, attached))
        });
        let (mut read, mut attached) = read.await?;
        for id in &missing {
            let (ports, volumes) = (read.remove(id).unwrap_or_default(), attached.remove(id).unwrap_or_default());
            if let Some(entry) = self.entry(id) {
                (entry.ports, entry.volumes) = (Some(Arc::new(ports)), Arc::new(volumes));
            }
        }
        Ok(())
    }

    /// The JSON of each server in its view; what is not kept is rendered.
    pub async fn rendered(
        &mut self,
        state: &Arc<Compute>,
        wanted: &[(ServerId, View)],
        operation: &str,
    ) -> Result<Vec<Arc<str>>> {
        let ids: Vec<ServerId> = wanted.iter().map(|(id, _)| id.clone()).collect();
        self.load_ports(state, &ids).await?;
        let secrets = self.secrets(state, wanted).await?;
        let mut rendered = Vec::with_capacity(wanted.len());
        for (id, view) in wanted {
            let Some(entry) = self.entry(id) else { continue };
            if let Some((_, text)) = entry.renderings.iter().find(|(known, _)| known == view) {
                rendered.push(text.clone());
                continue;
            }
            let parts = Parts {
                server: &entry.server,
                observed: entry.observed.as_ref(),
                ports: entry.ports.as_ref().map(|ports| ports.as_slice()).unwrap_or_default(),
                volumes: &entry.volumes,
                user_data: secrets.get(id).map(String::as_str),
                deleted: None,
            };
            let text: Arc<str> = render(&parts, view, operation)?.into();
            if entry.renderings.len() >= RENDERINGS {
                entry.renderings.remove(0);
            }
            entry.renderings.push((view.clone(), text.clone()));
            rendered.push(text);
        }
        Ok(rendered)
    }

    /// User data, for those renderings that show it and are not kept.
    async fn secrets(&mut self, state: &Compute, wanted: &[(ServerId, View)]) -> Result<HashMap<ServerId, String>> {
        let mut missing = Vec::new();
        for (id, view) in wanted.iter().filter(|(_, view)| view.attributes) {
            if self.entry(id).is_some_and(|entry| entry.renderings.iter().all(|(known, _)| known != view)) {
                missing.push(id.clone());
            }
        }
        if missing.is_empty() {
            return Ok(HashMap::new());
        }
        let read = move |reader: &mut store::Reader| {
            let mut found = HashMap::new();
            for id in &missing {
                if let Some(text) = ServerSecret::of(reader, id)?.0 {
                    found.insert(id.clone(), text);
                }
            }
            Ok(found)
        };
        state.store.read(read).await
    }
}
