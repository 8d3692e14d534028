//! The store's handle: opening, writing, reading, watching.
//!
//! Three ways to run, one behaviour. Usually a writer thread owns the write connection and takes jobs from a bounded
//! queue, and a few read connections are lent out. In inline mode there is one connection and no thread: the closure
//! runs on the calling task, so that a simulator's one seed decides everything.

use crate::asking::Asking;
use crate::buffer::{Buffer, unique_value};
use crate::conn::{Conn, Connect};
use crate::document::{Document, Kind, Rev, Stored};
use crate::hooks::Hooks;
use crate::moment::{AsOf, Moment};
use crate::past::Version;
use crate::postgres::Postgres;
use crate::query::Query;
use crate::reader::{Reader, found_as, no_key};
use crate::scope::{self, Along, Scope};
use crate::sql::{self, Sql, Value, given};
use crate::sqlite::Sqlite;
use crate::tx::Tx;
use crate::watch::{BACKLOG, Change, Event, Revision, Watch};
use crate::writer::{Cause, Committed, Job, Outcome, Work, Writer, message};
use crate::{Difference, Error, Result, Secrets, maintain};
use base::{Env, Fault};
use std::collections::HashSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use tokio::sync::{Semaphore, broadcast, mpsc, oneshot};

/// The most jobs that wait for the writer; more wait in front of the queue.
const QUEUE: usize = 1024;
/// Lists of more rows run off the async threads.
const SMALL_LIST: usize = 200;

/// How to open a store.
#[derive(Clone)]
pub struct Options {
    /// `sqlite:PATH`, `sqlite::memory:` (always inline) or `postgres://…`.
    pub url: String,
    /// No thread: every closure runs on the calling task. SQLite only; for tests and the simulator.
    pub inline: bool,
    /// The most reads at a time.
    pub readers: usize,
    /// The kinds whose index version is checked, and whose entries are rebuilt if it differs, before open returns.
    pub kinds: Vec<Kind>,
    /// A simulator beside the store.
    pub hooks: Option<Arc<dyn Hooks>>,
    /// False: a commit is not brought to disk before it is answered. For stores that need not outlive the machine.
    pub durable: bool,
    /// How long what a request deletes can be brought back; 0: not at all.
    pub trash_ms: i64,
    /// The cloud's secret keys. Without any, no document with a secret can be written.
    pub secrets: Secrets,
}

impl Options {
    pub fn new(url: impl Into<String>) -> Options {
        Options {
            url: url.into(),
            inline: false,
            readers: 4,
            kinds: Vec::new(),
            hooks: None,
            durable: true,
            trash_ms: 0,
            secrets: Secrets::default(),
        }
    }

    /// A store in memory, inline: gone with its last handle.
    pub fn memory() -> Options {
        Options { inline: true, secrets: Secrets::of_memory(), ..Options::new("sqlite::memory:") }
    }

    /// Registers a kind. Needed before its `INDEX_VERSION` is raised; harmless earlier.
    pub fn kind<T: Document>(mut self) -> Options {
        self.kinds.push(Kind::of::<T>());
        self
    }

    /// No threads.
    pub fn inline(mut self) -> Options {
        self.inline = true;
        self
    }
}

/// What every part of a store knows.
pub(crate) struct Shared {
    pub env: Env,
    rev: AtomicU64,
    watchers: broadcast::Sender<Event>,
    kinds: RwLock<HashSet<&'static str>>,
    pub hooks: Option<Arc<dyn Hooks>>,
    pub trash_ms: i64,
    /// The kinds that were registered.
    pub registered: Vec<Kind>,
    pub secrets: Secrets,
}

impl Shared {
    fn new(env: Env, options: &Options) -> Shared {
        let (watchers, _) = broadcast::channel(BACKLOG);
        Shared {
            env,
            rev: AtomicU64::new(0),
            watchers,
            kinds: RwLock::default(),
            hooks: options.hooks.clone(),
            trash_ms: options.trash_ms,
            registered: options.kinds.clone(),
            secrets: options.secrets.clone(),
        }
    }

    /// Called by the writer alone, in order. A gap means that another process wrote, or that the database went back.
    pub fn publish(&self, revision: Revision) {
        let last = self.rev.swap(revision.rev.0, Ordering::SeqCst);
        if last + 1 != revision.rev.0 {
            self.lose();
        }
        if !revision.changes.is_empty() {
            // No watcher is no error.
            let _ = self.watchers.send(Event::Revision(Arc::new(revision)));
        }
    }

    pub fn lose(&self) {
        let _ = self.watchers.send(Event::Lost);
    }

    pub fn knows(&self, kind: &str) -> bool {
        self.kinds.read().unwrap_or_else(PoisonError::into_inner).contains(kind)
    }

    pub fn learn(&self, kind: &'static str) {
        self.kinds.write().unwrap_or_else(PoisonError::into_inner).insert(kind);
    }
}

enum Mode {
    Inline(Box<Mutex<Writer>>),
    Threads { jobs: mpsc::Sender<Box<dyn Job>>, pool: Pool, asking: Option<Arc<Asking>> },
}

struct Inner {
    shared: Arc<Shared>,
    connect: Arc<dyn Connect>,
    /// The database file, where there is one.
    path: Option<PathBuf>,
    mode: Mode,
}

/// A handle to the store; clones share it.
#[derive(Clone)]
pub struct Store {
    inner: Arc<Inner>,
}

impl Store {
    /// Opens or creates the store, rebuilds the entries of registered kinds whose index version changed, and starts the
    /// writer. Refuses a store of a newer program.
    pub async fn open(options: Options, env: Env) -> Result<Store> {
        let (connect, path) = connect(&options)?;
        if options.inline || (options.url.starts_with("sqlite:") && path.is_none()) {
            return Ok(Store::start(options, env, connect, path, true)?);
        }
        let opened = tokio::task::spawn_blocking(move || Store::start(options, env, connect, path, false)).await;
        Ok(opened.map_err(|error| Fault::bug(format!("opening the store: {error}")))??)
    }

    pub(crate) fn start(
        options: Options,
        env: Env,
        connect: Arc<dyn Connect>,
        path: Option<PathBuf>,
        inline: bool,
    ) -> Result<Store, Error> {
        let shared = Arc::new(Shared::new(env, &options));
        let mut writer = Writer::new(connect.clone(), shared.clone())?;
        let rev = maintain::prepare(writer.reader(), &connect.schema(), &options.kinds, &options.secrets)?;
        shared.rev.store(rev.0, Ordering::SeqCst);
        let mode = if inline {
            Mode::Inline(Box::new(Mutex::new(writer)))
        } else {
            let (jobs, queue) = mpsc::channel(QUEUE);
            std::thread::Builder::new()
                .name("store-writer".into())
                .spawn(move || run(writer, queue))
                .map_err(|error| Error::Unavailable(format!("no thread for the writer: {error}")))?;
            let readers = options.readers.max(1);
            let pool = Pool::new(connect.clone(), shared.clone(), readers);
            Mode::Threads { jobs, pool, asking: connect.asking(readers) }
        };
        Ok(Store { inner: Arc::new(Inner { shared, connect, path, mode }) })
    }

    /// Runs the closure in the write transaction and commits what it changed, all or nothing, before this returns.
    ///
    /// The closure is synchronous: it cannot wait for anything but the store (docs/adr/0002). It may run more than once,
    /// so it must touch nothing outside the `Tx`. A fault or panic undoes it. A caller that goes away does not stop it.
    ///
    /// In the scope of a dry run it is undone as well, and answered as though it had been kept; see [`crate::scope`].
    pub async fn write<R: Send + 'static>(
        &self,
        cause: Cause,
        closure: impl FnMut(&mut Tx) -> Result<R> + Send + 'static,
    ) -> Result<Committed<R>> {
        let Scope { dry, as_of, along } = scope::current();
        if as_of.is_some() {
            return Err(Fault::invalid("The past cannot be changed: leave out as_of."));
        }
        let Some(plan) = dry else {
            let (value, outcome) = self.job(cause, Purpose { along, ..Purpose::default() }, closure).await?;
            return Ok(Committed { value, rev: outcome.rev });
        };
        let purpose = Purpose { dry: true, overlay: plan.overlay(), along: None };
        let (value, outcome) = self.job(cause, purpose, closure).await?;
        plan.keep(outcome.overlay.unwrap_or_default(), outcome.differences);
        Ok(Committed { value, rev: outcome.rev })
    }

    /// Runs the closure as [`Store::write`] does, returns what it would have changed, and undoes it.
    pub async fn dry_run<R: Send + 'static>(
        &self,
        cause: Cause,
        closure: impl FnMut(&mut Tx) -> Result<R> + Send + 'static,
    ) -> Result<(R, Vec<Difference>)> {
        let overlay = scope::dry().and_then(|plan| plan.overlay());
        let purpose = Purpose { dry: true, overlay, along: None };
        let (value, outcome) = self.job(cause, purpose, closure).await?;
        Ok((value, outcome.differences))
    }

    async fn job<R: Send + 'static>(
        &self,
        cause: Cause,
        purpose: Purpose,
        closure: impl FnMut(&mut Tx) -> Result<R> + Send + 'static,
    ) -> Result<(R, Outcome)> {
        let hooked = self.inner.shared.hooks.clone().map(|hooks| (hooks, cause.clone()));
        if let Some((hooks, cause)) = &hooked {
            hooks.before_write(cause).await?;
        }
        let (to, mut from) = oneshot::channel();
        let Purpose { dry, overlay, along } = purpose;
        let job = Box::new(Work { cause, dry, overlay, along, closure, value: None, to });
        let answer = match &self.inner.mode {
            Mode::Inline(writer) => {
                lock(writer).batch(job, || None);
                from.try_recv().map_err(|_| stopped())?
            }
            Mode::Threads { jobs, .. } => {
                jobs.send(job).await.map_err(|_| stopped())?;
                from.await.map_err(|_| stopped())?
            }
        };
        if let (Some((hooks, cause)), Ok((_, outcome))) = (&hooked, &answer)
            && outcome.changed
            && !dry
        {
            hooks.after_write(cause).await?;
        }
        answer
    }

    /// True where no thread is used: whoever has work of its own that would block does it where it stands, too.
    pub fn is_inline(&self) -> bool {
        matches!(self.inner.mode, Mode::Inline(_))
    }

    /// Runs the closure on one consistent snapshot, off the async threads. It may run again.
    pub async fn read<R: Send + 'static>(
        &self,
        closure: impl FnMut(&mut Reader) -> Result<R> + Send + 'static,
    ) -> Result<R> {
        self.with_reader(Way::Away, closure).await
    }

    /// As [`Store::read`], but on SQLite on the calling thread, which saves two thread switches: for closures that look
    /// at no more than some hundred rows.
    pub async fn read_few<R: Send + 'static>(
        &self,
        closure: impl FnMut(&mut Reader) -> Result<R> + Send + 'static,
    ) -> Result<R> {
        self.with_reader(Way::Here, closure).await
    }

    /// The document with this id.
    pub async fn get<T: Document>(&self, id: &str) -> Result<Option<Stored<T>>> {
        if let Some(asking) = self.asking::<T>().filter(|_| !no_key(id)) {
            return Ok(self.ask(asking, &sql::GET, &given![T::KIND, id]).await?.pop());
        }
        let id = id.to_owned();
        self.with_reader(Way::One, move |reader| Ok(reader.get(&id)?)).await
    }

    /// The document that owns this unique key.
    pub async fn get_unique<T: Document>(
        &self,
        name: &'static str,
        parts: impl IntoIterator<Item = impl AsRef<str>>,
    ) -> Result<Option<Stored<T>>> {
        let parts: Vec<String> = parts.into_iter().map(|part| part.as_ref().to_owned()).collect();
        let value = unique_value(&parts);
        if let Some(asking) = self.asking::<T>().filter(|_| !no_key(&value)) {
            return Ok(self.ask(asking, &sql::GET_UNIQUE, &given![T::KIND, name, &value]).await?.pop());
        }
        self.with_reader(Way::One, move |reader| Ok(reader.get_unique(name, &parts)?)).await
    }

    /// The documents that match, in the order of their creation.
    pub async fn list<T: Document>(&self, query: Query) -> Result<Vec<Stored<T>>> {
        let small = query.limit.is_some_and(|limit| limit <= SMALL_LIST);
        if let Some(asking) = self.asking::<T>().filter(|_| small && query.after.is_none()) {
            let beginning = query.beginning();
            return match query.statement(T::KIND, &beginning, query.most()) {
                Some((sql, values)) => self.ask(asking, sql, &values).await,
                None => Ok(Vec::new()),
            };
        }
        let way = match (small, query.after.is_none()) {
            (true, true) => Way::One,
            (true, false) => Way::Here,
            (false, true) => Way::OneAway,
            (false, false) => Way::Away,
        };
        self.with_reader(way, move |reader| Ok(reader.list(query.clone())?)).await
    }

    /// The document as it was, without its secrets.
    pub async fn get_as_of<T: Document>(&self, id: &str, at: AsOf) -> Result<Option<Stored<T>>> {
        let id = id.to_owned();
        self.with_reader(Way::Here, move |reader| Ok(reader.get_as_of(&id, at)?)).await
    }

    /// The documents that matched then, in the order of their creation, without their secrets.
    pub async fn list_as_of<T: Document>(&self, query: Query, at: AsOf) -> Result<Vec<Stored<T>>> {
        self.with_reader(Way::Away, move |reader| Ok(reader.list_as_of(query.clone(), at)?)).await
    }

    /// The commit and the time that are meant; Invalid, with the range, for what history does not reach.
    pub async fn moment(&self, at: AsOf) -> Result<Moment> {
        self.with_reader(Way::Here, move |reader| Ok(reader.moment(at)?)).await
    }

    /// The newest versions of a document, newest first.
    pub async fn history(&self, kind: &str, id: &str, limit: usize) -> Result<Vec<Version>> {
        let (kind, id) = (kind.to_owned(), id.to_owned());
        self.with_reader(Way::Away, move |reader| Ok(reader.history(&kind, &id, limit)?)).await
    }

    /// The changes after `since` in whole revisions; see [`Reader::changes`].
    pub async fn changes(&self, since: Rev, limit: usize) -> Result<Vec<Change>> {
        self.with_reader(Way::Away, move |reader| Ok(reader.changes(since, limit)?)).await
    }

    /// Every commit of this process from now on.
    pub fn watch(&self) -> Watch {
        Watch::new(self.inner.shared.watchers.subscribe())
    }

    /// Tells every watcher that it has lost its place, so that all of them look at everything anew: after mending.
    pub fn unsettle(&self) {
        self.inner.shared.lose();
    }

    /// The newest revision that this process knows of.
    pub fn rev(&self) -> Rev {
        Rev(self.inner.shared.rev.load(Ordering::SeqCst))
    }

    pub(crate) fn shared(&self) -> &Shared {
        &self.inner.shared
    }

    /// The time and randomness that the store was opened with.
    pub fn env(&self) -> &Env {
        &self.inner.shared.env
    }

    /// How many jobs wait for the writer.
    #[cfg(test)]
    pub(crate) fn queued(&self) -> usize {
        match &self.inner.mode {
            Mode::Inline(_) => 0,
            Mode::Threads { jobs, .. } => jobs.max_capacity() - jobs.capacity(),
        }
    }

    pub(crate) fn connect(&self) -> &Arc<dyn Connect> {
        &self.inner.connect
    }

    pub(crate) fn path(&self) -> Option<&PathBuf> {
        self.inner.path.as_ref()
    }

    /// Runs work on a connection outside any snapshot. For maintenance.
    pub(crate) async fn with_conn<R: Send + 'static>(
        &self,
        mut work: impl FnMut(&mut dyn Conn) -> Result<R, Error> + Send + 'static,
    ) -> Result<R> {
        self.with_reader(Way::Bare, move |reader| Ok(work(&mut *reader.conn)?)).await
    }

    /// Who answers single questions without a thread: where the engine is a server, nothing has to be laid over what is
    /// committed, and the entries of the kind are known to be ours.
    fn asking<T: Document>(&self) -> Option<&Asking> {
        let Mode::Threads { asking: Some(asking), .. } = &self.inner.mode else { return None };
        let plain = !scope::is_dry() && scope::as_of().is_none();
        (plain && self.inner.shared.knows(T::KIND)).then_some(asking)
    }

    async fn ask<T: Document>(
        &self,
        asking: &Asking,
        sql: &'static Sql,
        values: &[Value<'_>],
    ) -> Result<Vec<Stored<T>>> {
        if let Some(hooks) = &self.inner.shared.hooks {
            hooks.before_read().await?;
        }
        Ok(asking.ask(sql, values, found_as).await?)
    }

    async fn with_reader<R: Send + 'static>(
        &self,
        way: Way,
        mut closure: impl FnMut(&mut Reader) -> Result<R> + Send + 'static,
    ) -> Result<R> {
        let overlay = scope::dry().and_then(|plan| plan.overlay());
        let as_of = scope::as_of().filter(|_| way != Way::Bare);
        // The past takes several statements, between which it must not be trimmed.
        let way = match way {
            Way::One if as_of.is_some() => Way::Here,
            Way::OneAway if as_of.is_some() => Way::Away,
            way => way,
        };
        let closure = move |reader: &mut Reader| match (&overlay, as_of) {
            (_, Some(at)) => {
                let moment = reader.moment(at)?;
                // A panic must not leave a reader in the past that others will borrow.
                reader.standing(moment, |reader| guarded(reader, &mut closure))
            }
            (Some(overlay), None) => over(reader, overlay, &mut closure),
            (None, None) => closure(reader),
        };
        self.read_by(way, closure).await
    }

    /// A read outside any scope: what is derived from the store serves everybody.
    pub(crate) async fn read_by<R: Send + 'static>(
        &self,
        way: Way,
        mut closure: impl FnMut(&mut Reader) -> Result<R> + Send + 'static,
    ) -> Result<R> {
        if let Some(hooks) = &self.inner.shared.hooks {
            hooks.before_read().await?;
        }
        match &self.inner.mode {
            Mode::Inline(writer) => {
                let mut writer = lock(writer);
                let reader = writer.reader();
                if !matches!(way, Way::Bare) {
                    reader.conn.begin_read()?;
                }
                let result = guarded(reader, &mut closure);
                reader.conn.end_read();
                result
            }
            Mode::Threads { pool, .. } => pool.run(way, closure).await,
        }
    }
}

/// Runs a read with the changes of a dry run laid over what is committed.
fn over<R>(reader: &mut Reader, overlay: &Buffer, closure: &mut impl FnMut(&mut Reader) -> Result<R>) -> Result<R> {
    reader.buffer = overlay.clone();
    // A panic must not leave the changes in a reader that others will borrow.
    let result = guarded(reader, closure);
    reader.buffer = Buffer::default();
    result
}

/// What a job is for: to be kept, or a dry run.
#[derive(Default)]
struct Purpose {
    dry: bool,
    overlay: Option<Arc<Buffer>>,
    along: Option<Arc<dyn Along>>,
}

/// Where a read runs.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Way {
    /// One statement: needs no snapshot.
    One,
    /// One statement on a blocking thread.
    OneAway,
    /// On the calling thread if the engine is local.
    Here,
    /// On a blocking thread.
    Away,
    /// On a blocking thread, outside any transaction.
    Bare,
}

/// The read connections, lent out one closure at a time and opened when first needed.
struct Pool {
    idle: Arc<Mutex<Vec<Reader>>>,
    permits: Arc<Semaphore>,
    connect: Arc<dyn Connect>,
    shared: Arc<Shared>,
}

impl Pool {
    fn new(connect: Arc<dyn Connect>, shared: Arc<Shared>, readers: usize) -> Pool {
        Pool { idle: Arc::default(), permits: Arc::new(Semaphore::new(readers)), connect, shared }
    }

    async fn run<R: Send + 'static>(
        &self,
        way: Way,
        mut closure: impl FnMut(&mut Reader) -> Result<R> + Send + 'static,
    ) -> Result<R> {
        let permit = self.permits.clone().acquire_owned().await.map_err(|_| stopped())?;
        let idle = lock(&self.idle).pop();
        let here = matches!(way, Way::One | Way::Here) && idle.as_ref().is_some_and(|reader| reader.conn.is_local());
        let (pool, connect, shared) = (self.idle.clone(), self.connect.clone(), self.shared.clone());
        let work = move || {
            let reader = match idle {
                Some(reader) if reader.conn.is_alive() => reader,
                _ => Reader::new(connect.reader()?, shared.clone()),
            };
            let (result, reader) = Pool::on(reader, way, &mut closure);
            let (result, reader) = match result {
                // The connection died while it lay idle: once more on a new one.
                Err(_) if !reader.conn.is_alive() => {
                    drop(reader);
                    Pool::on(Reader::new(connect.reader()?, shared), way, &mut closure)
                }
                result => (result, reader),
            };
            lock(&pool).push(reader);
            drop(permit);
            result
        };
        if here {
            return work();
        }
        tokio::task::spawn_blocking(work).await.map_err(|error| Fault::bug(format!("a read: {error}")))?
    }

    fn on<R>(mut reader: Reader, way: Way, closure: &mut impl FnMut(&mut Reader) -> Result<R>) -> (Result<R>, Reader) {
        if matches!(way, Way::One | Way::OneAway | Way::Bare) {
            return (guarded(&mut reader, closure), reader);
        }
        if let Err(error) = reader.conn.begin_read() {
            return (Err(error.into()), reader);
        }
        let result = guarded(&mut reader, closure);
        reader.conn.end_read();
        (result, reader)
    }
}

/// Runs a read closure so that a panic in it costs nobody the connection.
fn guarded<R>(reader: &mut Reader, closure: &mut impl FnMut(&mut Reader) -> Result<R>) -> Result<R> {
    catch_unwind(AssertUnwindSafe(|| closure(reader)))
        .unwrap_or_else(|panic| Err(Fault::bug(format!("a read panicked: {}", message(&*panic)))))
}

/// The writer's thread: ends when the last handle is gone.
fn run(mut writer: Writer, mut queue: mpsc::Receiver<Box<dyn Job>>) {
    while let Some(job) = queue.blocking_recv() {
        writer.batch(job, || queue.try_recv().ok());
    }
}

fn connect(options: &Options) -> Result<(Arc<dyn Connect>, Option<PathBuf>), Error> {
    if let Some(path) = options.url.strip_prefix("sqlite:") {
        let path = (path != ":memory:").then(|| PathBuf::from(path));
        return Ok((Arc::new(Sqlite { path: path.clone(), durable: options.durable, aside: !options.inline }), path));
    }
    if options.url.starts_with("postgres://") || options.url.starts_with("postgresql://") {
        if options.inline {
            return Err(Error::Unsupported("PostgreSQL has no inline mode: it has to be waited for".into()));
        }
        return Ok((Arc::new(Postgres::new(&options.url)?), None));
    }
    Err(Error::Invalid("A store's URL begins with sqlite: or postgres://".into()))
}

fn stopped() -> Fault {
    Error::Unavailable("the writer has stopped".into()).into()
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
