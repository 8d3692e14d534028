//! The hosts that talk to this process: their leases, their views, their orders.
//!
//! A session lives in memory only. What a host has been told is projected from the store, so a restart of control
//! loses nothing: the next poll brings a whole view. A host counts as alive while a poll of it is open or ended less
//! than [`LEASE_MS`] ago.

use crate::view::{Holders, Key, View};
use agent_api::{
    BoxStream, DiskFormat, HostInventory, LinkError, MemorySharing, Order, OrderKind, PollAnswer, PollRequest, Report,
    ViewKind, ViewObject,
};
use base::{Env, Fault, HostName, Result, ServerId, Timestamp, VolumeId};
use contract::{Consoles, Disk, Disks, Hosts, Projector, Touched, Where};
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, Weak};
use std::time::Duration;
use store::{Change, Event, Store};
use tokio::sync::{Notify, oneshot};

/// How long a host counts as alive after its last poll.
pub const LEASE_MS: i64 = 15_000;
/// How long a poll stays open when nothing happens.
const POLL: Duration = Duration::from_secs(20);
/// A group's members may be on every host: of those that come within so much time hosts are told once.
const MEMBERS: Duration = Duration::from_millis(100);
/// How long an order may wait for its answer.
const ORDER: Duration = Duration::from_secs(10);
/// The most orders that wait for one host.
const ORDERS: usize = 64;
/// The most hosts that one process serves.
const HOSTS: usize = 16_384;

struct Session {
    inventory: HostInventory,
    /// As of its last poll: counters stand in no document.
    memory_sharing: Option<MemorySharing>,
    /// The inventory stands in the store.
    recorded: bool,
    view: Option<View>,
    polls: u32,
    /// The newest report that has come in this session.
    reported: u64,
    seen: Timestamp,
    orders: VecDeque<Order>,
    changed: Arc<Notify>,
}

enum Answer {
    Bytes(Vec<u8>),
    Stream(BoxStream),
}

struct Waiting {
    host: HostName,
    answer: oneshot::Sender<Result<Answer, String>>,
}

/// All sessions of this process. Cheap to clone.
#[derive(Clone)]
pub struct Sessions(Arc<Inner>);

/// The sessions, and which of them have been told of an object: a change of a group concerns a handful of a thousand
/// hosts, and to ask each of them would be most of the work.
#[derive(Default)]
struct Table {
    sessions: BTreeMap<HostName, Session>,
    holders: Holders,
    /// Hosts with news of a group's members alone, which are told of many at once.
    members: BTreeSet<HostName>,
}

struct Inner {
    env: Env,
    store: Store,
    hosts: Mutex<Table>,
    orders: Mutex<HashMap<String, Waiting>>,
    /// The services hold the sessions, so these must not hold the services.
    projectors: OnceLock<Vec<Weak<dyn Projector>>>,
    /// A session without a view wakes the projection.
    wanted: Notify,
}

impl Sessions {
    pub fn new(store: Store, env: Env) -> Sessions {
        Sessions(Arc::new(Inner {
            env,
            store,
            hosts: Mutex::default(),
            orders: Mutex::default(),
            projectors: OnceLock::new(),
            wanted: Notify::new(),
        }))
    }

    /// Set once, after the services stand (they need the sessions first).
    pub fn set_projectors(&self, projectors: &[Arc<dyn Projector>]) {
        if self.0.projectors.set(projectors.iter().map(Arc::downgrade).collect()).is_err() {
            tracing::error!("projectors were set twice");
        }
    }

    /// Enters a poll. Returns true where the host's inventory has not been recorded yet: [`Sessions::recorded`] ends that.
    pub fn enter(&self, request: &PollRequest) -> Result<bool, LinkError> {
        let inventory = &request.inventory;
        check_inventory(inventory)?;
        let now = self.0.env.now();
        let Table { sessions, holders, .. } = &mut *self.hosts();
        if !sessions.contains_key(&inventory.name) && sessions.len() >= HOSTS {
            return Err(LinkError(format!("this control process serves {HOSTS} hosts already")));
        }
        let session = sessions.entry(inventory.name.clone()).or_insert_with(|| Session {
            inventory: inventory.clone(),
            memory_sharing: None,
            recorded: false,
            view: None,
            polls: 0,
            reported: 0,
            seen: Timestamp(0),
            orders: VecDeque::new(),
            changed: Arc::new(Notify::new()),
        });
        session.recorded &= session.inventory == *inventory;
        if session.inventory.session != inventory.session {
            if let Some(view) = session.view.take() {
                view.keys().for_each(|key| holders.note(&inventory.name, key, false));
            }
            session.reported = 0;
            session.orders.clear();
        }
        session.inventory = inventory.clone();
        session.memory_sharing = request.memory_sharing.clone();
        session.seen = now;
        Ok(!session.recorded)
    }

    /// The inventory stands in the store, unless the host has told of another one meanwhile.
    pub fn recorded(&self, inventory: &HostInventory) {
        if let Some(session) = self.hosts().sessions.get_mut(&inventory.name) {
            session.recorded = session.inventory == *inventory;
        }
    }

    /// Waits for a change of the view after `request.version`, or for an order; empty after a while.
    pub async fn poll(&self, request: &PollRequest) -> Result<PollAnswer, LinkError> {
        let name = &request.inventory.name;
        let _open = self.open(name);
        let deadline = tokio::time::Instant::now() + POLL;
        loop {
            let (answer, changed) = self.look(request)?;
            if answer.delta.is_some() || !answer.orders.is_empty() {
                return Ok(answer);
            }
            tokio::select! {
                biased;
                _ = changed => {}
                _ = tokio::time::sleep_until(deadline) => return Ok(PollAnswer::default()),
            }
        }
    }

    fn look(&self, request: &PollRequest) -> Result<(PollAnswer, tokio::sync::futures::OwnedNotified), LinkError> {
        let mut hosts = self.hosts();
        let session = hosts.sessions.get_mut(&request.inventory.name).ok_or_else(|| LinkError("no session".into()))?;
        if session.inventory.session != request.inventory.session {
            return Err(LinkError("a newer session of this host has taken over".into()));
        }
        // A waiter hears every `notify_waiters` from its making on, also before it is first awaited.
        let changed = session.changed.clone().notified_owned();
        let delta = match &mut session.view {
            Some(view) => view.delta(request.version),
            None => {
                self.0.wanted.notify_one();
                None
            }
        };
        let orders = session.orders.drain(..).collect();
        Ok((PollAnswer { delta, orders }, changed))
    }

    fn open(&self, name: &HostName) -> OpenPoll {
        if let Some(session) = self.hosts().sessions.get_mut(name) {
            session.polls += 1;
        }
        OpenPoll { sessions: self.clone(), name: name.clone() }
    }

    /// True when the report is of the host's current session, and of what it saw after all its earlier reports: one
    /// that was held up on its way is refused.
    pub fn is_current(&self, report: &Report) -> bool {
        let mut hosts = self.hosts();
        let known = hosts.sessions.get_mut(&report.host).filter(|known| known.inventory.session == report.session);
        let Some(known) = known else { return false };
        let newest = report.sequence == 0 || report.sequence > known.reported;
        known.reported = known.reported.max(report.sequence);
        newest
    }

    pub fn inventories(&self) -> Vec<HostInventory> {
        self.hosts().sessions.values().map(|session| session.inventory.clone()).collect()
    }

    /// What a host's guests shared of their memory at its last poll; none: nothing, or the host has no session here.
    pub fn memory_sharing(&self, host: &HostName) -> Option<MemorySharing> {
        self.hosts().sessions.get(host)?.memory_sharing.clone()
    }

    /// Follows the store and keeps every session's view up to date. Returns when the store is gone.
    pub async fn project(&self) {
        let mut watch = self.0.store.watch();
        let mut again = tokio::time::Instant::now();
        loop {
            let mut changes = Vec::new();
            let mut lost = false;
            let members_wait = !self.hosts().members.is_empty();
            tokio::select! {
                biased;
                event = watch.next() => match event {
                    Some(event) => take(event, &mut changes, &mut lost),
                    None => return,
                },
                _ = self.0.wanted.notified() => {}
                _ = tokio::time::sleep_until(again), if members_wait => {}
            }
            while let Some(event) = watch.try_next() {
                take(event, &mut changes, &mut lost);
            }
            while let Err(fault) = self.project_once(&changes, lost).await {
                tracing::error!("cannot project the views of hosts: {}", fault.chain());
                tokio::time::sleep(Duration::from_millis(200)).await;
                lost = true;
            }
            let now = tokio::time::Instant::now();
            if now >= again && self.hosts().tell_members() {
                again = now + MEMBERS;
            }
        }
    }

    async fn project_once(&self, changes: &[Change], lost: bool) -> Result<()> {
        if lost {
            self.projectors()?.iter().for_each(|projector| projector.anew());
        }
        let (mut anew, mut known) = (Vec::new(), false);
        for (name, session) in &self.hosts().sessions {
            match lost || session.view.is_none() {
                true => anew.push(name.clone()),
                false => known = true,
            }
        }
        if !changes.is_empty() && known {
            self.project_touched(changes.to_vec()).await?;
        }
        for name in anew {
            self.project_whole(name).await?;
        }
        Ok(())
    }

    /// Asks for what the changes touched, and sets it in the views that there are.
    async fn project_touched(&self, changes: Vec<Change>) -> Result<()> {
        let (projectors, sessions) = (self.projectors()?, self.clone());
        let objects = self.0.store.read(move |reader| {
            let mut touched = Touched::default();
            for change in &changes {
                for projector in &projectors {
                    projector.touched(reader, change, &mut touched)?;
                }
            }
            let (mut placed, mut anywhere) = (BTreeSet::new(), BTreeSet::new());
            for (place, kind, id) in touched.0 {
                match place {
                    Where::On(host) => drop(placed.insert((host, (kind, id)))),
                    Where::Anywhere => drop(anywhere.insert((kind, id))),
                }
            }
            placed.retain(|(host, key)| sessions.has_view(host) && !anywhere.contains(key));
            let mut found = Found::default();
            for (host, (kind, id)) in placed {
                let mut object = None;
                for projector in &projectors {
                    object = object.or(projector.one(reader, &host, kind, &id)?);
                }
                found.placed.push((host, (kind, id), object));
            }
            for (kind, id) in anywhere {
                let mut there = BTreeMap::new();
                for projector in &projectors {
                    there.extend(projector.everywhere(reader, kind, &id)?);
                }
                found.anywhere.push(((kind, id), there));
            }
            Ok(found)
        });
        let found = objects.await?;
        for (host, key, object) in found.placed {
            self.hosts().set(&host, key, object);
        }
        for (key, mut there) in found.anywhere {
            let mut hosts = self.hosts();
            let concerned: BTreeSet<HostName> = there.keys().chain(hosts.holders.of(&key)).cloned().collect();
            for host in concerned {
                let object = there.remove(&host);
                hosts.set(&host, key.clone(), object);
            }
        }
        Ok(())
    }

    fn has_view(&self, host: &HostName) -> bool {
        self.hosts().sessions.get(host).is_some_and(|session| session.view.is_some())
    }

    async fn project_whole(&self, name: HostName) -> Result<()> {
        let projectors = self.projectors()?;
        let host = name.clone();
        let objects = self.0.store.read(move |reader| {
            let mut objects = Vec::new();
            for projector in &projectors {
                objects.extend(projector.whole(reader, &host)?);
            }
            Ok(objects)
        });
        let objects = objects.await?;
        let Table { sessions, holders, .. } = &mut *self.hosts();
        if let Some(session) = sessions.get_mut(&name) {
            let new = session.view.is_none();
            let born = self.0.env.now().micros().max(0) as u64;
            let view = session.view.get_or_insert_with(|| View::new(born));
            view.keys().for_each(|key| holders.note(&name, key, false));
            if view.replace(objects) || new {
                session.changed.notify_waiters();
            }
            view.keys().for_each(|key| holders.note(&name, key, true));
        }
        Ok(())
    }

    /// Gives a host an order and waits for its answer.
    async fn order(&self, host: &HostName, what: OrderKind) -> Result<Answer> {
        let id = self.0.env.secret_hex(16);
        let (sender, receiver) = oneshot::channel();
        {
            let mut hosts = self.hosts();
            let session = hosts.sessions.get_mut(host).ok_or_else(|| gone(host))?;
            if session.orders.len() >= ORDERS {
                return Err(Fault::unavailable(format!("Host {host} has {ORDERS} unanswered requests; try again.")));
            }
            session.orders.push_back(Order { id: id.clone(), what });
            lock(&self.0.orders).insert(id.clone(), Waiting { host: host.clone(), answer: sender });
            session.changed.notify_waiters();
        }
        let _forget = Forget { sessions: self.clone(), id };
        match tokio::time::timeout(ORDER, receiver).await {
            Ok(Ok(Ok(answer))) => Ok(answer),
            Ok(Ok(Err(message))) => Err(Fault::conflict(message)),
            Ok(Err(_)) | Err(_) => Err(gone(host)),
        }
    }

    fn answer(&self, host: &HostName, order: &str, answer: Result<Answer, String>) -> Result<(), LinkError> {
        let mut orders = lock(&self.0.orders);
        if orders.get(order).is_none_or(|waiting| waiting.host != *host) {
            return Err(LinkError("nobody waits for this order".into()));
        }
        let sent = orders.remove(order).is_some_and(|waiting| waiting.answer.send(answer).is_ok());
        if sent { Ok(()) } else { Err(LinkError("nobody waits for this order any more".into())) }
    }

    pub fn answer_bytes(&self, host: &HostName, order: &str, answer: Result<Vec<u8>, String>) -> Result<(), LinkError> {
        self.answer(host, order, answer.map(Answer::Bytes))
    }

    pub fn answer_stream(
        &self,
        host: &HostName,
        order: &str,
        answer: Result<BoxStream, String>,
    ) -> Result<(), LinkError> {
        self.answer(host, order, answer.map(Answer::Stream))
    }

    fn hosts(&self) -> MutexGuard<'_, Table> {
        lock(&self.0.hosts)
    }

    /// All of them or none: a view that one of them is left out of would look as if nothing of its kind were there.
    fn projectors(&self) -> Result<Vec<Arc<dyn Projector>>> {
        let all = self.0.projectors.get().map(|all| all.iter().map(Weak::upgrade).collect::<Option<Vec<_>>>());
        all.flatten().ok_or_else(|| Fault::unavailable("This process is starting or ending."))
    }
}

impl Hosts for Sessions {
    fn alive(&self) -> Vec<HostName> {
        let now = self.0.env.now();
        self.hosts().sessions.iter().filter(|(_, session)| session.alive(now)).map(|(name, _)| name.clone()).collect()
    }

    fn is_alive(&self, host: &HostName) -> bool {
        let now = self.0.env.now();
        self.hosts().sessions.get(host).is_some_and(|session| session.alive(now))
    }

    fn last_seen(&self, host: &HostName) -> Option<Timestamp> {
        self.hosts().sessions.get(host).map(|session| session.seen).filter(|seen| *seen > Timestamp(0))
    }
}

#[async_trait::async_trait]
impl Consoles for Sessions {
    async fn console_log(&self, host: &HostName, server: &ServerId, bytes: u64) -> Result<Vec<u8>> {
        match self.order(host, OrderKind::ConsoleLog { server: server.clone(), bytes }).await? {
            Answer::Bytes(bytes) => Ok(bytes),
            Answer::Stream(_) => Err(Fault::bug("a host answered with a stream where bytes were asked for")),
        }
    }

    async fn console(&self, host: &HostName, server: &ServerId, serial: bool) -> Result<BoxStream> {
        let server = server.clone();
        let order = if serial { OrderKind::Serial { server } } else { OrderKind::Vnc { server } };
        match self.order(host, order).await? {
            Answer::Stream(stream) => Ok(stream),
            Answer::Bytes(_) => Err(Fault::bug("a host answered with bytes where a stream was asked for")),
        }
    }
}

/// How long a host may take to copy a disk before its first byte comes.
const COPY: Duration = Duration::from_secs(6 * 3600);
/// How often a host that copies is looked after meanwhile.
const LOOK: Duration = Duration::from_secs(1);

#[async_trait::async_trait]
impl Disks for Sessions {
    async fn disk(&self, host: &HostName, server: &ServerId) -> Result<Disk> {
        self.copied(host, OrderKind::Disk { server: server.clone() }).await
    }

    async fn volume(&self, host: &HostName, volume: &VolumeId, format: DiskFormat) -> Result<Disk> {
        self.copied(host, OrderKind::Volume { volume: volume.clone(), format }).await
    }
}

impl Sessions {
    /// Waits for the copy that the order asks for.
    async fn copied(&self, host: &HostName, order: OrderKind) -> Result<Disk> {
        let mut bytes = match self.order(host, order).await? {
            Answer::Stream(stream) => stream,
            Answer::Bytes(_) => return Err(Fault::bug("a host answered with bytes where a stream was asked for")),
        };
        let silent = async {
            while self.is_alive(host) {
                tokio::time::sleep(LOOK).await;
            }
        };
        let first = tokio::select! {
            biased;
            first = tokio::time::timeout(COPY, agent_api::receive_disk(&mut bytes)) => first,
            () = silent => return Err(gone(host)),
        };
        match first {
            Ok(Ok(Ok(size_bytes))) => Ok(Disk { size_bytes, bytes }),
            Ok(Ok(Err(message))) => Err(Fault::conflict(message)),
            Ok(Err(error)) => Err(gone(host).because(error)),
            Err(_) => Err(gone(host)),
        }
    }
}

/// What a step of the views is made of: objects on one host, and objects with all the hosts that have them.
#[derive(Default)]
struct Found {
    placed: Vec<(HostName, Key, Option<ViewObject>)>,
    anywhere: Vec<(Key, BTreeMap<HostName, ViewObject>)>,
}

impl Table {
    /// Sets an object in a host's view, if there is one yet, and wakes the poll for it.
    fn set(&mut self, host: &HostName, key: Key, object: Option<ViewObject>) {
        let Some(session) = self.sessions.get_mut(host) else { return };
        let (Some(view), has) = (&mut session.view, object.is_some()) else { return };
        if view.set(key.clone(), object) {
            self.holders.note(host, &key, has);
            match key.0 {
                ViewKind::AddressSet => drop(self.members.insert(host.clone())),
                _ => session.changed.notify_waiters(),
            }
        }
    }

    /// Wakes the polls of those whose groups have other members. False where there are none.
    fn tell_members(&mut self) -> bool {
        let told = std::mem::take(&mut self.members);
        told.iter().filter_map(|host| self.sessions.get(host)).for_each(|session| session.changed.notify_waiters());
        !told.is_empty()
    }
}

impl Session {
    fn alive(&self, now: Timestamp) -> bool {
        // One that lasts longer than any lease was given by a clock that has been set back since.
        self.polls > 0 || (-LEASE_MS..LEASE_MS).contains(&now.ms_since(self.seen))
    }
}

/// Counts an open poll; the end of the poll, also a broken one, is the beginning of the lease's last stretch.
struct OpenPoll {
    sessions: Sessions,
    name: HostName,
}

impl Drop for OpenPoll {
    fn drop(&mut self) {
        let now = self.sessions.0.env.now();
        if let Some(session) = self.sessions.hosts().sessions.get_mut(&self.name) {
            session.polls = session.polls.saturating_sub(1);
            session.seen = now;
        }
    }
}

struct Forget {
    sessions: Sessions,
    id: String,
}

impl Drop for Forget {
    fn drop(&mut self) {
        lock(&self.sessions.0.orders).remove(&self.id);
    }
}

fn take(event: Event, changes: &mut Vec<Change>, lost: &mut bool) {
    match event {
        Event::Revision(revision) => changes.extend(revision.changes.iter().cloned()),
        Event::Lost => *lost = true,
    }
}

fn gone(host: &HostName) -> Fault {
    Fault::unavailable(format!("Host {host} does not answer at the moment; try again."))
}

fn check_inventory(inventory: &HostInventory) -> Result<(), LinkError> {
    let name = inventory.name.as_str();
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'.';
    if name.is_empty() || name.len() > 63 || !name.bytes().all(plain) {
        return Err(LinkError("a host's name has 1 to 63 characters of a-z, 0-9, '-' and '.'".into()));
    }
    if inventory.session.is_empty() || inventory.session.len() > 64 || inventory.warnings.len() > 64 {
        return Err(LinkError("the inventory is not of its form".into()));
    }
    Ok(())
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}
