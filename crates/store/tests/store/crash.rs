//! `kill -9` of a writing process, again and again: nothing acknowledged is lost, nothing is half.
//!
//! The test runs itself as the process that is killed. That one creates three ports, a counter and a charge in each
//! transaction, from eight tasks, and says the transaction's name once it has been acknowledged.

use crate::things::*;
use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};
use store::{Options, Query, Store};

const CHILD: &str = "NUBO_TEST_STORE_TO_WRITE";
const PARTS: [&str; 3] = ["a", "b", "c"];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kill_9_on_sqlite() {
    if let Ok(url) = std::env::var(CHILD) {
        return write_until_killed(&url).await;
    }
    let dir = tempfile::tempdir().unwrap();
    let url = format!("sqlite:{}", dir.path().join("store.db").display());
    survive("crash::kill_9_on_sqlite", &url, rounds(20)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kill_9_on_postgres() {
    if let Ok(url) = std::env::var(CHILD) {
        return write_until_killed(&url).await;
    }
    let Some(server) = testkit::Postgres::start() else { return };
    survive("crash::kill_9_on_postgres", &server.url(), rounds(8)).await;
}

/// `NUBO_ROUNDS` scales the number of kills.
fn rounds(usual: usize) -> usize {
    std::env::var("NUBO_ROUNDS").ok().and_then(|rounds| rounds.parse().ok()).unwrap_or(usual)
}

async fn write_until_killed(url: &str) {
    let store = Store::open(Options::new(url), env()).await.unwrap();
    let tasks = (0..8).map(|_| {
        let store = store.clone();
        tokio::spawn(async move {
            loop {
                let name = store.env().uuid();
                write(&store, "create", {
                    let name = name.clone();
                    move |tx| {
                        for part in PARTS {
                            tx.create(&Port::new(&format!("{name}-{part}"), &name, part))?;
                        }
                        tx.create(&Progress { id: name.clone(), percent: 1 })?;
                        tx.charge("all", "transactions", 1, None)?;
                        Ok(())
                    }
                })
                .await;
                // One call of write, so that a line is whole or absent but for its end.
                std::io::stdout().write_all(format!("ack {name}\n").as_bytes()).unwrap();
            }
        })
    });
    futures::future::join_all(tasks).await;
}

async fn survive(test: &'static str, url: &str, rounds: usize) {
    let seed = std::env::var("NUBO_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(20_261_121);
    println!("NUBO_SEED={seed}");
    let random = base::random::SeededRandom::new(seed);
    let mut acknowledged = BTreeSet::new();
    for round in 0..rounds {
        let lines = base::Random::below(&random, 200) as usize + 1;
        let url_of_child = url.to_owned();
        let said = tokio::task::spawn_blocking(move || run_and_kill(test, &url_of_child, lines)).await.unwrap();
        assert!(said.len() >= lines, "round {round}: the child said {} of {lines}", said.len());
        acknowledged.extend(said);
        inspect(url, &acknowledged).await;
    }
}

/// Starts the child, kills it after it has acknowledged some transactions, and returns all that it acknowledged.
fn run_and_kill(test: &str, url: &str, lines: usize) -> Vec<String> {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture", "--test-threads=1"])
        .env(CHILD, url)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut reader = BufReader::new(child.stdout.take().unwrap());
    let mut said = Vec::new();
    let mut line = String::new();
    while reader.read_line(&mut line).unwrap() > 0 {
        if let Some(name) = line.strip_prefix("ack ").and_then(|rest| rest.strip_suffix('\n')) {
            said.push(name.to_owned());
        }
        if said.len() == lines {
            child.kill().unwrap();
        }
        line.clear();
    }
    child.wait().unwrap();
    said
}

/// Every acknowledged transaction is there, and every transaction that is there is whole.
async fn inspect(url: &str, acknowledged: &BTreeSet<String>) {
    let store = Store::open(Options::new(url), env()).await.unwrap();
    let ports = store.list::<Port>(Query::all()).await.unwrap();
    let there: BTreeSet<String> = ports.iter().map(|port| port.project_id.clone()).collect();
    let lost: Vec<_> = acknowledged.difference(&there).collect();
    assert!(lost.is_empty(), "acknowledged and lost: {lost:?}");
    assert_eq!(ports.len(), there.len() * PARTS.len());
    let by_index = store.list::<Port>(Query::index("host", "h1")).await.unwrap();
    assert_eq!(by_index, ports, "index entries");
    let rev = store.rev();
    let (progress, used, found) = store
        .read({
            let there = there.clone();
            move |reader| {
                let mut found = 0;
                for name in &there {
                    for part in PARTS {
                        found += usize::from(reader.get_unique::<Port>("name", [name.as_str(), part])?.is_some());
                    }
                }
                Ok((reader.count::<Progress>(Query::all())?, reader.usage("all", "transactions")?.used, found))
            }
        })
        .await
        .unwrap();
    assert_eq!(found, ports.len(), "unique keys");
    assert_eq!((progress, used as usize, rev.0 as usize), (there.len(), there.len(), there.len()));
    let history = store.changes(store::Rev(0), usize::MAX - 1).await.unwrap();
    assert_eq!(history.len(), ports.len());
}
