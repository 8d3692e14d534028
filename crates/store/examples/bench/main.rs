//! Measures the store against bare prepared statements in the same run:
//! `cargo run --release -p store --example bench [-- sqlite | postgres]`.
//!
//! SQLite lies in a temporary directory; PostgreSQL, where it is installed, is one of its own with fsync on. A "create"
//! is what a server's creation writes: 5 documents (3.2 KB), 3 ledger rows, 14 index entries, 2 unique keys, 8 rows of
//! history and the request's. Store and reference take turns in one run, so that a busy machine slows both.
//!
//! The store is called from tasks of the runtime, as handlers of requests call it. The main task is not one of them: it
//! has a thread of its own, which every answer would have to wake.

mod bare;
mod place;

use bare::Bare;
use place::{Place, Server};

use base::Env;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use store::{Cause, Charge, Document, Event, Keys, Options, Query, Store, Tx};

/// How many writes a watcher is asked to hear of in one turn, and how often it has one.
const WRITES: usize = 1_000;
const TURNS: usize = 5;

#[derive(Clone, Serialize, Deserialize)]
struct Part {
    id: String,
    project_id: String,
    n: u8,
    unique: bool,
    text: String,
}

impl Document for Part {
    const KIND: &'static str = "part";
    fn id(&self) -> &str {
        &self.id
    }
    fn project_id(&self) -> &str {
        &self.project_id
    }
    fn keys(&self, keys: &mut Keys) {
        for (name, value) in
            [("host", "host-17"), ("flavor", "m1.small"), ("image", "0f3d")].iter().take(self.n as usize)
        {
            keys.index(name, *value);
        }
        if self.unique {
            keys.unique("address", [&self.project_id, &self.id]);
        }
    }
}

fn part(id: &str, project: &str, n: u8, unique: bool) -> Part {
    Part { id: id.into(), project_id: project.into(), n, unique, text: "x".repeat(520) }
}

fn create(tx: &mut Tx, project: &str) -> store::Result<String> {
    let mut last = String::new();
    let charges = [("instances", 1), ("cores", 4), ("ram", 8192)];
    tx.charge_all(
        project,
        &charges.map(|(resource, delta)| Charge { resource, delta, default_limit: Some(i64::MAX) }),
    )?;
    for n in 0..5u8 {
        let id = tx.uuid();
        let indexes = if n < 4 { 3 } else { 2 };
        tx.create(&part(&id, project, indexes, n < 2))?;
        last = id;
    }
    Ok(last)
}

fn cause() -> Cause {
    Cause::new("user", "req-0f3d8a1c-0000-4000-8000-000000000000", "server.create")
}

/// One line of the table: a figure in terms of its reference, and the bound.
fn line(engine: &str, what: &str, figure: f64, reference: f64, unit: &str, of: &str, bound: Bound) {
    let ratio = figure / reference;
    let (bound, holds) = match bound {
        Bound::Most(most) => (format!("≤ {most}"), ratio <= most),
        Bound::Least(least) => (format!("≥ {least}"), ratio >= least),
    };
    let holds = if holds { "yes" } else { "NO" };
    println!("| {engine}: {what} | {figure:.1} {unit} | {of} {reference:.1} {unit} | {ratio:.2} | {bound} | {holds} |");
}

enum Bound {
    Most(f64),
    Least(f64),
}

fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}

/// The value below which this share of the times lies, in microseconds.
fn quantile(times: &mut [Duration], share: f64) -> f64 {
    times.sort();
    micros(times[((times.len() - 1) as f64 * share) as usize])
}

fn timed<R>(times: &mut Vec<Duration>, work: impl FnOnce() -> R) -> R {
    let at = Instant::now();
    let result = work();
    times.push(at.elapsed());
    result
}

async fn measure(engine: &'static str, store: Store, mut bare: Box<dyn Bare + Send>, server: Server) {
    let info = store.info().await.expect("info");
    eprintln!("{} {}", info.engine, info.version);
    let text = serde_json::to_string(&part("x", "project-0", 3, false)).expect("JSON");
    let (mut own, mut reference, mut ids, mut bare_ids) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    // In rounds: each commit of another connection makes SQLite read its pages anew.
    for round in 0..5 {
        for n in 0..300 {
            let at = Instant::now();
            let done = store.write(cause(), move |tx| create(tx, &format!("project-{}", n % 5))).await;
            own.push(at.elapsed());
            ids.push(done.expect("a create").value);
        }
        tokio::task::block_in_place(|| {
            bare_ids.extend((0..300).map(|_| timed(&mut reference, || bare.create(&text))));
        });
        if round == 0 {
            own.clear();
            reference.clear();
        }
    }
    let own_rate = own.len() as f64 / own.iter().sum::<Duration>().as_secs_f64();
    let (one, bare_one) = (quantile(&mut own, 0.5), quantile(&mut reference, 0.5));
    line(engine, "create, one client, p50", one, bare_one, "µs", "bare statements", Bound::Most(2.0));
    let rate = clients(&store).await;
    let least = if engine == "SQLite" { 3.0 } else { 1.3 };
    line(engine, "create, 16 clients", rate, own_rate, "/s", "one client", Bound::Least(least));
    // The first question opens the connection that a place is then given to.
    store.get::<Part>(&ids[0]).await.expect("a get");
    for &place in Place::all(&server) {
        let _held = place.hold(&server);
        gets(engine, place, &store, &mut *bare, &ids, &bare_ids).await;
    }
    lists(engine, &store).await;
    watched(engine, &store, &mut *bare, &text).await;
    // A runtime of its own may be in there.
    tokio::task::block_in_place(|| drop(bare));
}

/// The work of one client, by sixteen at a time.
async fn clients(store: &Store) -> f64 {
    let at = Instant::now();
    let tasks = (0..16).map(|_| {
        let store = store.clone();
        tokio::spawn(async move {
            for n in 0..400 {
                store.write(cause(), move |tx| create(tx, &format!("project-{}", n % 5))).await.expect("a create");
            }
        })
    });
    for task in futures::future::join_all(tasks).await {
        task.expect("a client");
    }
    6_400.0 / at.elapsed().as_secs_f64()
}

async fn gets(
    engine: &str,
    place: Place,
    store: &Store,
    bare: &mut (dyn Bare + Send),
    ids: &[String],
    bare_ids: &[String],
) {
    let (mut own, mut reference) = (Vec::new(), Vec::new());
    for _ in 0..4 {
        for id in ids {
            let at = Instant::now();
            store.get::<Part>(id).await.expect("a get").expect("it is there");
            own.push(at.elapsed());
        }
        tokio::task::block_in_place(|| {
            bare_ids.iter().for_each(|id| drop(timed(&mut reference, || bare.get(id))));
        });
    }
    let (own, reference) = (quantile(&mut own, 0.5), quantile(&mut reference, 0.5));
    line(engine, &format!("get, parsed, p50{place}"), own, reference, "µs", "a bare SELECT", Bound::Most(3.0));
}

/// A project of 1,000 documents that have changed nine times since they were made, among others.
async fn lists(engine: &str, store: &Store) {
    for round in 0..10 {
        for part_of in 0..10 {
            let work = move |tx: &mut Tx| {
                for n in part_of * 100..(part_of + 1) * 100 {
                    let mut part = part(&format!("list-{n:04}"), "listed", 3, false);
                    part.text.push_str(&round.to_string());
                    tx.put(&part)?;
                }
                Ok(())
            };
            store.write(cause(), work).await.expect("documents");
        }
    }
    let rev = store::AsOf::Rev(store.rev());
    let query = || Query::project("listed").limit(1_000);
    let (mut own, mut serialized, mut past) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..40 {
        let at = Instant::now();
        let list = store.list::<Part>(query()).await.expect("a list");
        own.push(at.elapsed());
        let json =
            timed(&mut serialized, || serde_json::to_string(&list.iter().map(|part| &part.doc).collect::<Vec<_>>()));
        assert!(list.len() == 1_000 && json.is_ok());
        let at = Instant::now();
        let then = store.list_as_of::<Part>(query(), rev).await.expect("a list");
        past.push(at.elapsed());
        assert_eq!(then.len(), 1_000);
    }
    let (own, past) = (quantile(&mut own, 0.5), quantile(&mut past, 0.5));
    let serialized = quantile(&mut serialized, 0.5);
    line(engine, "list of 1,000, parsed", own, serialized, "µs", "serde_json serializes it in", Bound::Most(5.0));
    line(engine, "as_of list of 1,000 with 10 versions each", past, own, "µs", "a plain list", Bound::Most(10.0));
}

/// 1,000 writes a second, and when a watcher hears of each: from the moment on at which the write was due. The reference
/// is a bare commit at the same rate, and what of it waits behind a slow one counts there, too. They take turns, so that
/// a disk that pauses now and then slows both.
async fn watched(engine: &str, store: &Store, bare: &mut (dyn Bare + Send), text: &str) {
    let (mut own, mut reference) = (Vec::new(), Vec::new());
    for turn in 0..TURNS {
        tokio::task::block_in_place(|| {
            let began = Instant::now();
            for n in 0..WRITES {
                let due = due(began, n);
                bare.commit_one(text);
                reference.push(due.elapsed());
            }
        });
        own.extend(heard(store, turn).await);
    }
    let median = (quantile(&mut own, 0.5), quantile(&mut reference, 0.5));
    eprintln!("{engine}: watch event at 1,000 writes/s: p50 {:.1} µs, a bare commit {:.1} µs", median.0, median.1);
    let (own, reference) = (quantile(&mut own, 0.99), quantile(&mut reference, 0.99));
    line(engine, "watch event at 1,000 writes/s, p99", own, reference, "µs", "a bare commit so, p99,", Bound::Most(5.0));
}

/// Sleeps until the n-th write is due. A thread that spun would take one of two cores from what is measured.
fn due(began: Instant, n: usize) -> Instant {
    let due = began + Duration::from_millis(n as u64);
    std::thread::sleep(due.saturating_duration_since(Instant::now()));
    due
}

/// After how long each write of a turn was heard of.
async fn heard(store: &Store, turn: usize) -> Vec<Duration> {
    let mut watch = store.watch();
    let sent: Arc<Mutex<HashMap<String, Instant>>> = Arc::default();
    let known = sent.clone();
    let hears = tokio::spawn(async move {
        let mut times = Vec::new();
        while times.len() < WRITES {
            let Some(Event::Revision(revision)) = watch.next().await else { continue };
            let now = Instant::now();
            for change in &revision.changes {
                if let Some(due) = known.lock().expect("the times").remove(&change.id) {
                    times.push(now - due);
                }
            }
        }
        times
    });
    let writer = store.clone();
    let writes = tokio::task::spawn_blocking(move || writes(&writer, turn, &sent)).await.expect("the writes");
    for write in writes {
        write.await.expect("a write");
    }
    hears.await.expect("the watcher")
}

fn writes(store: &Store, turn: usize, sent: &Arc<Mutex<HashMap<String, Instant>>>) -> Vec<tokio::task::JoinHandle<()>> {
    let began = Instant::now();
    let write = |n: usize| {
        let due = due(began, n);
        let (store, sent) = (store.clone(), sent.clone());
        tokio::spawn(async move {
            let id = format!("watched-{turn}-{n}");
            sent.lock().expect("the times").insert(id.clone(), due);
            let work = move |tx: &mut Tx| Ok(tx.create(&part(&id, "watched", 0, false)).map(drop)?);
            store.write(cause(), work).await.expect("a write");
        })
    };
    (0..WRITES).map(write).collect()
}

#[tokio::main]
async fn main() {
    let only = std::env::args().nth(1);
    let wanted = |engine: &str| only.as_deref().is_none_or(|only| only == engine);
    println!("| what | measured | reference | ratio | bound | holds |\n|---|---|---|---|---|---|");
    if wanted("sqlite") {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("store.db");
        let store = Store::open(Options::new(format!("sqlite:{}", path.display())), Env::system()).await;
        let bare = Box::new(bare::Sqlite::open(&path));
        tokio::spawn(measure("SQLite", store.expect("the store opens"), bare, None)).await.expect("the figures");
    }
    if wanted("postgres")
        && let Some(server) = testkit::Postgres::start_with(&["shared_buffers=256MB"])
    {
        let store = Store::open(Options::new(server.url()), Env::system()).await.expect("the store opens");
        let url = server.url().to_string();
        let bare = tokio::task::spawn_blocking(move || bare::Postgres::open(&url)).await.expect("a connection");
        let server = Some(Arc::new(server));
        tokio::spawn(measure("PostgreSQL", store, Box::new(bare), server)).await.expect("the figures");
    }
}
