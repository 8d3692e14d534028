//! Measures the store: `cargo run --release -p store --example bench [URL]`.
//!
//! Without a URL it measures SQLite in a temporary directory and, where it is installed, a PostgreSQL of its own with
//! fsync on. A "create" is what a server's creation writes: 5 documents (3.2 KB), 3 ledger rows, 14 index entries, 2
//! unique keys and 5 rows of history.

use base::Env;
use serde::{Deserialize, Serialize};
use std::time::{Duration, Instant};
use store::{Cause, Charge, Document, Keys, Options, Query, Store, Tx};

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
        let text = "x".repeat(520);
        tx.create(&Part { id: id.clone(), project_id: project.into(), n: indexes, unique: n < 2, text })?;
        last = id;
    }
    Ok(last)
}

fn cause() -> Cause {
    Cause::new("user", "req-0f3d8a1c-0000-4000-8000-000000000000", "server.create")
}

fn show(what: &str, figure: String) {
    println!("  {what:<44}{figure}");
}

fn middle(mut times: Vec<Duration>) -> String {
    times.sort();
    format!("{:>9.1} µs p50 {:>9.1} µs p99", micros(times[times.len() / 2]), micros(times[times.len() * 99 / 100]))
}

fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}

async fn measure(url: String) {
    let store = Store::open(Options::new(url), Env::system()).await.expect("the store opens");
    let info = store.info().await.expect("info");
    println!("{} {}", info.engine, info.version);
    let (mut times, mut ids) = (Vec::new(), Vec::new());
    for n in 0..1_000 {
        let at = Instant::now();
        let done = store.write(cause(), move |tx| create(tx, &format!("project-{}", n % 5))).await.expect("a create");
        times.push(at.elapsed());
        ids.push(done.value);
    }
    show("create, one client", middle(times));
    clients(&store).await;
    let mut times = Vec::new();
    for id in ids.iter().cycle().take(5_000) {
        let at = Instant::now();
        let part = store.get::<Part>(id).await.expect("a get").expect("it is there");
        serde_json::to_string(&part.doc).expect("JSON");
        times.push(at.elapsed());
    }
    show("get, parsed, JSON out", middle(times));
    lists(&store).await;
    two_hundred(&store).await;
    let mut times = Vec::new();
    for _ in 0..5 {
        let at = Instant::now();
        let rev = store.rev();
        let list = store.list_as_of::<Part>(Query::project("project-1").limit(1_000), store::AsOf::Rev(rev)).await;
        times.push(at.elapsed());
        assert_eq!(list.expect("a list").len(), 1_000);
    }
    show("as_of list of a project", middle(times));
    let info = store.info().await.expect("info");
    show("size", format!("{:>9.1} MB at rev {}", info.size_bytes as f64 / 1e6, info.rev));
}

async fn clients(store: &Store) {
    let at = Instant::now();
    let tasks = (0..16).map(|client| {
        let store = store.clone();
        tokio::spawn(async move {
            for _ in 0..400 {
                store.write(cause(), move |tx| create(tx, &format!("project-{client}"))).await.expect("a create");
            }
        })
    });
    for task in futures::future::join_all(tasks).await {
        task.expect("a client");
    }
    show("create, 16 clients", format!("{:>9.0} /s", 6_400.0 / at.elapsed().as_secs_f64()));
}

async fn lists(store: &Store) {
    let mut times = Vec::new();
    for _ in 0..30 {
        let at = Instant::now();
        let list = store.list::<Part>(Query::project("project-1").limit(1_000)).await.expect("a list");
        let json: Vec<String> = list.iter().map(|part| serde_json::to_string(&part.doc).expect("JSON")).collect();
        assert_eq!(json.len(), 1_000);
        times.push(at.elapsed());
    }
    show("list of 1,000, parsed and serialized", middle(times));
}

async fn two_hundred(store: &Store) {
    let at = Instant::now();
    let tasks = (0..200).map(|_| {
        let store = store.clone();
        tokio::spawn(async move {
            let job = store.write(cause(), |tx| {
                tx.charge("small", "servers", 1, Some(50))?;
                create(tx, "small")
            });
            job.await.is_ok()
        })
    });
    let done = futures::future::join_all(tasks).await.into_iter().filter(|task| matches!(task, Ok(true))).count();
    show("200 creates against a limit of 50", format!("{done:>9} in {:.1} ms", micros(at.elapsed()) / 1e3));
}

#[tokio::main]
async fn main() {
    if let Some(url) = std::env::args().nth(1) {
        return measure(url).await;
    }
    let dir = tempfile::tempdir().expect("a directory");
    measure(format!("sqlite:{}", dir.path().join("store.db").display())).await;
    if let Some(server) = testkit::Postgres::start_with(&["shared_buffers=256MB"]) {
        measure(server.url()).await;
    }
}
