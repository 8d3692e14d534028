//! Tests of what the engine does to the writer: full disks, failed and lost commits, connections that break.

use crate::asking::Asking;
use crate::conn::{Conn, Connect};
use crate::sql::{Row, Rows, Sql, Value};
use crate::sqlite::Sqlite;
use crate::{Cause, Document, Error, Event, Options, Query, Rev, Store};
use base::{Env, FaultKind};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Note {
    id: String,
    text: String,
}

impl Document for Note {
    const KIND: &'static str = "note";
    fn id(&self) -> &str {
        &self.id
    }
}

fn note(id: &str) -> Note {
    Note { id: id.into(), text: String::new() }
}

fn cause(request: &str) -> Cause {
    Cause::new("tester", request, "test")
}

/// Holds the writer inside a job until all others wait behind it, so that they become one batch.
struct Gate {
    open: mpsc::Sender<()>,
    held: tokio::task::JoinHandle<crate::Result<crate::Committed<()>>>,
}

async fn hold(store: &Store) -> Gate {
    let (open, opened) = mpsc::channel();
    let (enter, entered) = tokio::sync::oneshot::channel();
    let mut enter = Some(enter);
    let store = store.clone();
    let held = tokio::spawn(async move {
        let job = store.write(cause("gate"), move |_| {
            if let Some(enter) = enter.take() {
                let _ = enter.send(());
                let _ = opened.recv();
            }
            Ok(())
        });
        job.await
    });
    entered.await.unwrap();
    Gate { open, held }
}

/// SQLITE_FULL rolls back the whole batch and not the savepoint: the others must run again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_refuses_the_big_job_and_keeps_the_small() {
    let dir = tempfile::tempdir().unwrap();
    let options = Options::new(format!("sqlite:{}", dir.path().join("a.db").display()));
    let store = Store::open(options, Env::system()).await.unwrap();
    store.write(cause("limit"), |tx| Ok(tx.conn.batch("PRAGMA max_page_count = 200")?)).await.unwrap();
    let gate = hold(&store).await;
    let runs = Arc::new(AtomicUsize::new(0));
    let jobs: Vec<_> = (0..10)
        .map(|n| {
            let (store, runs) = (store.clone(), runs.clone());
            tokio::spawn(async move {
                let job = store.write(cause("job"), move |tx| {
                    runs.fetch_add(1, Ordering::SeqCst);
                    let text = if n == 5 { "x".repeat(3 << 20) } else { String::new() };
                    Ok(tx.create(&Note { id: n.to_string(), text })?)
                });
                job.await.map_err(|fault| fault.kind)
            })
        })
        .collect();
    waiting(&store, 10).await;
    gate.open.send(()).unwrap();
    gate.held.await.unwrap().unwrap();
    for (n, job) in jobs.into_iter().enumerate() {
        let result = job.await.unwrap();
        assert_eq!(result.err(), (n == 5).then_some(FaultKind::Unavailable), "{n}");
    }
    assert_eq!(store.list::<Note>(Query::all()).await.unwrap().len(), 9);
    assert_eq!(store.rev(), Rev(9));
    assert!(runs.load(Ordering::SeqCst) > 10, "some ran again");
}

/// What the engine refuses to one job alone, when the job's buffer is written, takes nothing from the others.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_whose_rows_are_refused_fails_alone() {
    const REFUSE: &str = "CREATE TRIGGER refuse BEFORE INSERT ON document WHEN NEW.id IN ('0', '5')
        BEGIN SELECT RAISE(ABORT, 'refused'); END";
    let dir = tempfile::tempdir().unwrap();
    let options = Options::new(format!("sqlite:{}", dir.path().join("a.db").display()));
    let store = Store::open(options, Env::system()).await.unwrap();
    store.write(cause("trigger"), |tx| Ok(tx.conn.batch(REFUSE)?)).await.unwrap();
    // Alone in its batch it is not tried again.
    let runs = Arc::new(AtomicUsize::new(0));
    let counted = runs.clone();
    let alone = store.write(cause("alone"), move |tx| {
        counted.fetch_add(1, Ordering::SeqCst);
        Ok(tx.create(&note("0"))?)
    });
    assert_eq!((alone.await.unwrap_err().kind, runs.load(Ordering::SeqCst)), (FaultKind::Bug, 1));
    let mut watch = store.watch();
    let gate = hold(&store).await;
    let job = |n: usize| {
        let store = store.clone();
        tokio::spawn(async move {
            let job = store.write(cause("job"), move |tx| Ok(tx.create(&note(&n.to_string()))?));
            job.await.map_err(|fault| fault.kind)
        })
    };
    let jobs: Vec<_> = (1..10).map(job).collect();
    waiting(&store, 9).await;
    gate.open.send(()).unwrap();
    gate.held.await.unwrap().unwrap();
    for (n, job) in (1..10).zip(jobs) {
        assert_eq!(job.await.unwrap().err(), (n == 5).then_some(FaultKind::Bug), "{n}");
    }
    assert_eq!(store.list::<Note>(Query::all()).await.unwrap().len(), 8);
    assert_eq!(store.rev(), Rev(8));
    for rev in 1..=8 {
        assert!(matches!(watch.try_next(), Some(Event::Revision(revision)) if revision.rev == Rev(rev)));
    }
    assert!(watch.try_next().is_none());
}

/// Waits until so many jobs stand in the queue.
async fn waiting(store: &Store, jobs: usize) {
    while store.queued() < jobs {
        tokio::task::yield_now().await;
    }
}

/// What the next commit does.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Plan {
    Work,
    /// Fails, and the transaction is rolled back, as when the disk is full.
    Refuse,
    /// Happens, but the connection breaks before the answer.
    LoseAnswer,
    /// The connection breaks before it happens.
    LoseRequest,
}

struct Flaky {
    inner: Sqlite,
    plan: Arc<Mutex<Plan>>,
}

impl Connect for Flaky {
    fn writer(&self) -> Result<Box<dyn Conn>, Error> {
        Ok(Box::new(FlakyConn { inner: self.inner.writer()?, plan: self.plan.clone(), dead: false }))
    }
    fn reader(&self) -> Result<Box<dyn Conn>, Error> {
        self.inner.reader()
    }
    fn asking(&self, most: usize) -> Option<Arc<Asking>> {
        self.inner.asking(most)
    }
    fn schema(&self) -> String {
        self.inner.schema()
    }
    fn engine(&self) -> &'static str {
        self.inner.engine()
    }
}

struct FlakyConn {
    inner: Box<dyn Conn>,
    plan: Arc<Mutex<Plan>>,
    dead: bool,
}

impl Conn for FlakyConn {
    fn is_local(&self) -> bool {
        true
    }
    fn query(&mut self, sql: &'static Sql, values: &[Value<'_>]) -> Result<Vec<Row>, Error> {
        self.inner.query(sql, values)
    }
    fn query_all(&mut self, calls: &[(&'static Sql, Vec<Value<'_>>)]) -> Result<Vec<Vec<Row>>, Error> {
        self.inner.query_all(calls)
    }
    fn execute(&mut self, sql: &'static Sql, values: &[Value<'_>]) -> Result<u64, Error> {
        self.inner.execute(sql, values)
    }
    fn flush(&mut self, writes: &[Rows<'_>]) -> Result<(), Error> {
        self.inner.flush(writes)
    }
    fn begin_write(&mut self, known: Option<Rev>) -> Result<bool, Error> {
        self.inner.begin_write(known)
    }
    fn savepoint(&mut self) -> Result<(), Error> {
        self.inner.savepoint()
    }
    fn release(&mut self) -> Result<(), Error> {
        self.inner.release()
    }
    fn undo(&mut self) -> Result<(), Error> {
        self.inner.undo()
    }
    fn commit(&mut self) -> Result<(), Error> {
        let plan = std::mem::replace(&mut *self.plan.lock().unwrap(), Plan::Work);
        match plan {
            Plan::Work => return self.inner.commit(),
            Plan::LoseAnswer => self.inner.commit()?,
            Plan::Refuse | Plan::LoseRequest => self.inner.rollback(),
        }
        self.dead = plan != Plan::Refuse;
        Err(Error::Unavailable(format!("{plan:?}")))
    }
    fn commit_with(&mut self, sql: &'static Sql, values: &[Value<'_>]) -> Result<(), Error> {
        self.execute(sql, values)?;
        self.commit()
    }
    fn rollback(&mut self) {
        self.inner.rollback()
    }
    fn begin_read(&mut self) -> Result<(), Error> {
        self.inner.begin_read()
    }
    fn end_read(&mut self) {
        self.inner.end_read()
    }
    fn in_transaction(&self) -> bool {
        self.inner.in_transaction()
    }
    fn is_alive(&self) -> bool {
        !self.dead
    }
    fn batch(&mut self, text: &str) -> Result<(), Error> {
        self.inner.batch(text)
    }
}

fn flaky(path: PathBuf) -> (Store, Arc<Mutex<Plan>>) {
    let plan = Arc::new(Mutex::new(Plan::Work));
    let connect = Flaky { inner: Sqlite { path: Some(path.clone()), durable: true, aside: true }, plan: plan.clone() };
    let options = Options::new("sqlite:");
    let store = Store::start(options, Env::system(), Arc::new(connect), Some(path), false).unwrap();
    (store, plan)
}

/// Two jobs of one batch, whose commit does as planned: both are kept once, and told to the watch once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_that_fails_or_is_lost_is_made_good() {
    for (planned, again) in [(Plan::Refuse, true), (Plan::LoseRequest, true), (Plan::LoseAnswer, false)] {
        let dir = tempfile::tempdir().unwrap();
        let (store, plan) = flaky(dir.path().join("a.db"));
        let mut watch = store.watch();
        let gate = hold(&store).await;
        let runs = Arc::new(AtomicUsize::new(0));
        let jobs = ["a", "b"].map(|id| {
            let (store, runs) = (store.clone(), runs.clone());
            tokio::spawn(async move {
                let job = store.write(cause(id), move |tx| {
                    runs.fetch_add(1, Ordering::SeqCst);
                    Ok(tx.create(&note(id))?)
                });
                job.await
            })
        });
        waiting(&store, 2).await;
        *plan.lock().unwrap() = planned;
        gate.open.send(()).unwrap();
        let mut revs = Vec::new();
        for job in jobs {
            revs.push(job.await.unwrap().unwrap_or_else(|fault| panic!("{planned:?}: {}", fault.chain())).rev);
        }
        revs.sort();
        assert_eq!(revs, [Rev(1), Rev(2)], "{planned:?}");
        assert_eq!(runs.load(Ordering::SeqCst) > 2, again, "{planned:?}");
        assert_eq!(store.list::<Note>(Query::all()).await.unwrap().len(), 2, "{planned:?}");
        for rev in 1..=2 {
            let Some(Event::Revision(revision)) = watch.try_next() else { panic!("{planned:?}") };
            assert_eq!((revision.rev, revision.changes.len()), (Rev(rev), 1), "{planned:?}");
        }
        assert!(watch.try_next().is_none(), "{planned:?}");
    }
}

/// Where nothing in history can tell, the caller is told that nobody knows, and watchers that they lost.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_commit_without_history_is_said_to_be_unknown() {
    let dir = tempfile::tempdir().unwrap();
    let (store, plan) = flaky(dir.path().join("a.db"));
    let mut watch = store.watch();
    *plan.lock().unwrap() = Plan::LoseAnswer;
    let fault = store.write(cause("x"), |tx| Ok(tx.charge("p", "r", 1, None)?)).await.unwrap_err();
    assert!(matches!(Error::of(&fault), Some(Error::Unknown(_))), "{}", fault.chain());
    assert!(matches!(watch.try_next(), Some(Event::Lost)));
    store.write(cause("y"), |tx| Ok(tx.create(&note("a"))?)).await.unwrap();
    assert_eq!(store.rev(), Rev(2));
}

/// An administrator ends every connection while a closure runs: it runs again on a new one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_breaks_is_replaced() {
    let Some(server) = testkit::Postgres::start() else { return };
    let store = Store::open(Options::new(server.url()), Env::system()).await.unwrap();
    store.write(cause("before"), |tx| Ok(tx.create(&note("before"))?)).await.unwrap();
    assert!(store.get::<Note>("before").await.unwrap().is_some());
    let (admin, connection) = tokio_postgres::connect(&server.url(), tokio_postgres::NoTls).await.unwrap();
    let connection = tokio::spawn(connection);
    let end_all = "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE pid <> pg_backend_pid()
                   AND application_name = 'nubo'";
    let gate = hold(&store).await;
    let job = tokio::spawn({
        let store = store.clone();
        async move { store.write(cause("during"), |tx| Ok(tx.create(&note("during"))?)).await }
    });
    waiting(&store, 1).await;
    admin.batch_execute(end_all).await.unwrap();
    gate.open.send(()).unwrap();
    gate.held.await.unwrap().unwrap();
    assert_eq!(job.await.unwrap().unwrap().rev, Rev(2));
    // All of them are idle now: the writer and the readers notice with their next statement.
    admin.batch_execute(end_all).await.unwrap();
    assert_eq!(store.list::<Note>(Query::all()).await.unwrap().len(), 2);
    store.write(cause("after"), |tx| Ok(tx.create(&note("after"))?)).await.unwrap();
    assert_eq!(store.get::<Note>("after").await.unwrap().unwrap().rev, Rev(3));
    drop(admin);
    connection.await.unwrap().unwrap();
}
