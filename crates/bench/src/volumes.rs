//! Volumes: how long they take to be made, on a simulated host and on a real one.

use crate::by_hand::make_disk;
use crate::simulated::{BareStore, Session, revision};
use crate::{Row, median};
use anyhow::{Context, Result, bail};
use bytes::Bytes;
use hyper::Method;
use serde_json::{Value, json};
use std::time::{Duration, Instant};

const TURNS: usize = 31;
const PATIENCE: Duration = Duration::from_secs(60);
/// What a volume's commit writes: it, and what is known of it.
const ROWS: &[&str] = &["volume", "volume_observed"];

/// The volumes of a user's own project.
pub struct Volumes {
    pub session: Session,
    project: String,
}

impl Volumes {
    /// `name` is the project's.
    pub async fn of(mut session: Session, name: &str) -> Result<Volumes> {
        let all = session.json(Method::GET, "/identity/v3/auth/projects", Value::Null).await?;
        let found = all["projects"].as_array().and_then(|all| all.iter().find(|project| project["name"] == name));
        let project = found.with_context(|| format!("no project {name}"))?["id"].as_str().context("id")?.to_owned();
        Ok(Volumes { session, project })
    }

    fn path(&self, below: &str) -> String {
        format!("/volume/v3/{}/{below}", self.project)
    }

    /// Makes a volume or a snapshot; its id, once it is there.
    pub async fn make(&mut self, what: &str, body: Value) -> Result<String> {
        let path = self.path(&format!("{what}s"));
        let made = self.session.json(Method::POST, &path, json!({what: body})).await?;
        let id = made[what]["id"].as_str().context("id")?.to_owned();
        self.wait(what, &id, "available").await?;
        Ok(id)
    }

    pub async fn wait(&mut self, what: &str, id: &str, wanted: &str) -> Result<()> {
        let (path, until) = (self.path(&format!("{what}s/{id}")), Instant::now() + PATIENCE);
        loop {
            let found = self.session.json(Method::GET, &path, Value::Null).await?;
            let status = found[what]["status"].as_str().unwrap_or_default();
            if status == wanted {
                return Ok(());
            }
            if status.starts_with("error") || Instant::now() > until {
                bail!("{path} is {status}, not {wanted}");
            }
        }
    }

    pub async fn remove(&mut self, what: &str, id: &str) -> Result<()> {
        let path = self.path(&format!("{what}s/{id}"));
        self.session.send(Method::DELETE, &path, "", Bytes::new()).await?;
        let until = Instant::now() + PATIENCE;
        while self.session.json(Method::GET, &path, Value::Null).await.is_ok() {
            if Instant::now() > until {
                bail!("{path} does not go");
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        Ok(())
    }
}

/// The two kinds of volumes that are made: empty, and on a snapshot of another one.
async fn kinds(volumes: &mut Volumes) -> Result<(String, String, [(&'static str, Value); 2])> {
    let source = volumes.make("volume", json!({"size": 100})).await?;
    let snapshot = volumes.make("snapshot", json!({"volume_id": source})).await?;
    let clone = json!({"snapshot_id": snapshot});
    let bodies = [("an empty volume of 100 GiB", json!({"size": 100})), ("a copy-on-write clone of 100 GiB", clone)];
    Ok((source, snapshot, bodies))
}

/// From the `POST` until available: milliseconds, and the commits that it took.
async fn made(volumes: &mut Volumes, body: &Value) -> Result<(f64, f64)> {
    let before = revision(&mut volumes.session).await?;
    let began = Instant::now();
    let id = volumes.make("volume", body.clone()).await?;
    let took = began.elapsed().as_secs_f64() * 1e3;
    let commits = revision(&mut volumes.session).await? - before;
    volumes.remove("volume", &id).await?;
    Ok((took, commits as f64))
}

/// On a host that takes no time: the engine's work alone, against the commits that it needs, written bare.
pub async fn engine_work(session: Session) -> Result<Vec<Row>> {
    let (mut volumes, bare, mut rows) = (Volumes::of(session, "admin").await?, BareStore::open()?, Vec::new());
    let (source, snapshot, bodies) = kinds(&mut volumes).await?;
    for (what, body) in bodies {
        let (mut ours, mut commits, mut theirs) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..TURNS {
            let (took, needed) = made(&mut volumes, &body).await?;
            ours.push(took);
            commits.push(needed);
            theirs.push(bare.commit(ROWS)?);
        }
        let (ours, commits, theirs) = (median(ours), median(commits), median(theirs));
        rows.push(Row {
            what: format!("{what}, on a simulated host"),
            measured: format!("{ours:.2} ms, {commits:.0} commits"),
            reference: format!("so many bare commits of SQLite, {theirs:.2} ms each"),
            ratio: ours / (commits * theirs),
            bound: 3.0,
            more_is_better: false,
        });
    }
    volumes.remove("snapshot", &snapshot).await?;
    volumes.remove("volume", &source).await?;
    Ok(rows)
}

/// On a real host: against three times the commits and one `qemu-img create`, which the host does itself.
pub async fn on_a_host(session: Session) -> Result<Vec<Row>> {
    let (mut volumes, bare, mut rows) = (Volumes::of(session, "demo").await?, BareStore::open()?, Vec::new());
    let (source, snapshot, bodies) = kinds(&mut volumes).await?;
    let folder = std::env::temp_dir().join(format!("nubo-bench-disks-{}", std::process::id()));
    std::fs::create_dir_all(&folder)?;
    make_disk(&folder.join("below"), None, "100G")?;
    for (at, (what, body)) in bodies.into_iter().enumerate() {
        let below = folder.join("below");
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        for _ in 0..TURNS {
            let (took, commits) = made(&mut volumes, &body).await?;
            ours.push(took);
            let began = Instant::now();
            make_disk(&folder.join("disk"), (at == 1).then_some(&*below), "100G")?;
            theirs.push((commits * bare.commit(ROWS)?, began.elapsed().as_secs_f64() * 1e3));
        }
        let (commits, tool): (Vec<f64>, Vec<f64>) = theirs.into_iter().unzip();
        let (ours, commits, tool) = (median(ours), median(commits), median(tool));
        rows.push(Row {
            what: format!("{what}, on a real host"),
            measured: format!("{ours:.2} ms"),
            reference: format!("3 × its commits, {commits:.2} ms together, and a `qemu-img create`, {tool:.1} ms"),
            ratio: ours / (3.0 * commits + tool),
            bound: 1.0,
            more_is_better: false,
        });
    }
    std::fs::remove_dir_all(&folder)?;
    volumes.remove("snapshot", &snapshot).await?;
    volumes.remove("volume", &source).await?;
    Ok(rows)
}
