//! What can be measured on simulated hosts: tokens, lists, uploads, the start of control.

use crate::load::{Answer, Connection, rate};
use crate::{Row, median, volumes};
use anyhow::{Context, Result, bail};
use bytes::Bytes;
use hyper::Method;
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const TURNS: usize = 5;
const SERVERS: usize = 1000;
const ENGINE_TURNS: usize = 41;
const UPLOAD_BYTES: usize = 256 << 20;

/// A child that is killed when dropped.
pub struct Running {
    pub child: Child,
    pub line: String,
}

impl Running {
    pub fn start(mut command: Command) -> Result<Running> {
        let mut child = command.stdout(Stdio::piped()).spawn().with_context(|| format!("cannot start {command:?}"))?;
        let mut line = String::new();
        BufReader::new(child.stdout.take().context("no output")?).read_line(&mut line)?;
        Ok(Running { child, line: line.trim().to_owned() })
    }

    /// Seconds of CPU used so far.
    pub fn cpu(&self) -> Result<f64> {
        cpu_of(self.child.id())
    }
}

/// Seconds of CPU that a process has used so far.
pub fn cpu_of(pid: u32) -> Result<f64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let fields: Vec<&str> = stat.rsplit_once(')').context("stat")?.1.split_whitespace().collect();
    let ticks: f64 = fields[11].parse::<f64>()? + fields[12].parse::<f64>()?;
    Ok(ticks / 100.0)
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status();
        let _ = self.child.wait();
    }
}

/// A user's password, as clouds.yaml has it.
pub fn password(clouds: &str, name: &str) -> Result<String> {
    let text = std::fs::read_to_string(clouds)?;
    let of = text.split(&format!("  {name}:\n")).nth(1).and_then(|rest| rest.split("password: ").nth(1)?.lines().next());
    Ok(of.context("no password in clouds.yaml")?.to_owned())
}

/// A session with one user of the cloud.
pub struct Session {
    pub connection: Connection,
    pub token: String,
}

impl Session {
    pub async fn login(url: &str, clouds: &str, name: &str) -> Result<Session> {
        let password = password(clouds, name)?;
        let user = if name == "nubo" { "admin" } else { name };
        let mut connection = Connection::open(url).await?;
        let body = json!({"auth": {
            "identity": {"methods": ["password"], "password": {"user": {
                "name": user, "password": password, "domain": {"id": "default"}}}},
            "scope": {"project": {"name": user, "domain": {"id": "default"}}},
        }});
        let answer = connection.send(Method::POST, "/identity/v3/auth/tokens", &[], body.to_string()).await?;
        let token = answer.headers.get("x-subject-token").context("no token")?.to_str()?.to_owned();
        Ok(Session { connection, token })
    }

    pub async fn send(&mut self, method: Method, path: &str, kind: &str, body: impl Into<Bytes>) -> Result<Answer> {
        let headers =
            [("x-auth-token", self.token.as_str()), ("x-openstack-nova-api-version", "2.60"), ("content-type", kind)];
        let answer = self.connection.send(method.clone(), path, &headers, body).await?;
        if answer.status >= 400 {
            bail!("{method} {path}: {} {}", answer.status, String::from_utf8_lossy(&answer.body));
        }
        Ok(answer)
    }

    pub async fn json(&mut self, method: Method, path: &str, body: Value) -> Result<Value> {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let answer = self.send(method, path, "application/json", body).await?;
        if answer.body.is_empty() { Ok(Value::Null) } else { Ok(serde_json::from_slice(&answer.body)?) }
    }
}

/// `services`: tokens, lists, uploads; `volumes`: what the making of a volume costs.
pub async fn measure(nubo: &Path, services: bool, volumes: bool) -> Result<Vec<Row>> {
    let mut command = Command::new(nubo);
    command.args(["up", "--simulated-hosts", "4"]).env("NUBO_LOG", "warn").env("NUBO_LISTEN", "127.0.0.1:0");
    command.env_remove("NUBO_STATE").env_remove("NUBO_NETNS");
    let cloud = Running::start(command)?;
    let words: Vec<&str> = cloud.line.split(' ').collect();
    let [_, url, clouds] = words[..] else { bail!("nubo said {:?}", cloud.line) };
    let mut admin = Session::login(url, clouds, "nubo").await?;
    let mut rows = Vec::new();
    if volumes {
        rows.extend(volumes::engine_work(Session::login(url, clouds, "nubo").await?).await?);
    }
    if services {
        rows.push(tokens(url, &admin).await?);
        rows.extend(details(&mut admin).await?);
        rows.extend(uploads(&mut admin, &cloud).await?);
    }
    Ok(rows)
}

async fn tokens(url: &str, admin: &Session) -> Result<Row> {
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("bare");
    let bare = Running::start(command)?;
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    let headers = [("x-auth-token", admin.token.as_str()), ("x-subject-token", admin.token.as_str())];
    for _ in 0..TURNS {
        ours.push(rate(url, "/identity/v3/auth/tokens", &headers, 8, Duration::from_secs(2)).await?);
        theirs.push(rate(&bare.line, "/", &[], 8, Duration::from_secs(2)).await?);
    }
    let (ours, theirs) = (median(ours), median(theirs));
    Ok(Row {
        what: "token validation with the full catalog".into(),
        measured: format!("{ours:.0}/s"),
        reference: format!("bare axum {theirs:.0}/s"),
        ratio: ours / theirs,
        bound: 0.5,
        more_is_better: true,
    })
}

async fn details(admin: &mut Session) -> Result<Vec<Row>> {
    let project: String = {
        let body = admin.json(Method::GET, "/identity/v3/auth/projects", Value::Null).await?;
        body["projects"].as_array().and_then(|all| all.iter().find(|p| p["name"] == "admin")).context("admin")?["id"]
            .as_str()
            .context("id")?
            .to_owned()
    };
    let quota = json!({"quota_set": {"instances": -1, "cores": -1, "ram": -1}});
    admin.json(Method::PUT, &format!("/compute/v2.1/os-quota-sets/{project}"), quota).await?;
    let quota = json!({"quota": {"port": -1}});
    admin.json(Method::PUT, &format!("/network/v2.0/quotas/{project}"), quota).await?;
    let image = image(admin, "bench", vec![0u8; 1 << 20]).await?;
    let flavor = json!({"flavor": {"name": "bench", "ram": 1, "vcpus": 1, "disk": 0}});
    let flavor = admin.json(Method::POST, "/compute/v2.1/flavors", flavor).await?["flavor"]["id"].clone();
    let network = json!({"network": {"name": "bench"}});
    let network = admin.json(Method::POST, "/network/v2.0/networks", network).await?["network"]["id"].clone();
    let subnet = json!({"subnet": {"network_id": network, "ip_version": 4, "cidr": "10.64.0.0/16"}});
    admin.json(Method::POST, "/network/v2.0/subnets", subnet).await?;
    // Before there are a thousand others.
    let engine = engine_work(admin).await?;
    for n in 0..SERVERS {
        let server = json!({"server": {"name": format!("bench-{n}"), "imageRef": image, "flavorRef": flavor,
            "networks": [{"uuid": network}]}});
        admin.json(Method::POST, "/compute/v2.1/servers", server).await?;
    }
    let path = "/compute/v2.1/servers/detail?limit=1000";
    let until = Instant::now() + Duration::from_secs(120);
    loop {
        let all = admin.json(Method::GET, path, Value::Null).await?;
        let servers = all["servers"].as_array().context("servers")?;
        if servers.len() == SERVERS && servers.iter().all(|server| server["status"] == "ACTIVE") {
            break;
        }
        if Instant::now() > until {
            bail!("{} servers, not all of them ACTIVE", servers.len());
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..4 * TURNS {
        let began = Instant::now();
        let answer = admin.send(Method::GET, path, "application/json", Bytes::new()).await?;
        ours.push(began.elapsed().as_secs_f64() * 1e3);
        let value: Value = serde_json::from_slice(&answer.body)?;
        let began = Instant::now();
        std::hint::black_box(serde_json::to_vec(&value)?);
        theirs.push(began.elapsed().as_secs_f64() * 1e3);
    }
    let (ours, theirs) = (median(ours), median(theirs));
    let list = Row {
        what: format!("GET /servers/detail with {SERVERS} servers"),
        measured: format!("{ours:.2} ms"),
        reference: format!("serde_json serializes it in {theirs:.2} ms"),
        ratio: ours / theirs,
        bound: 5.0,
        more_is_better: false,
    };
    Ok(vec![list, engine])
}

/// A server from its `POST` until ACTIVE on a host that takes no time, against the commits that it needs, written bare.
async fn engine_work(admin: &mut Session) -> Result<Row> {
    let first = |value: &Value, list: &str| value[list][0]["id"].clone();
    let image = first(&admin.json(Method::GET, "/image/v2/images?name=bench", Value::Null).await?, "images");
    let network = first(&admin.json(Method::GET, "/network/v2.0/networks?name=bench", Value::Null).await?, "networks");
    let flavors = admin.json(Method::GET, "/compute/v2.1/flavors", Value::Null).await?;
    let flavor = flavors["flavors"].as_array().and_then(|all| all.iter().find(|f| f["name"] == "bench"));
    let flavor = flavor.context("no flavor")?["id"].clone();
    let bare = BareStore::open()?;
    let (mut ours, mut commits, mut theirs) = (Vec::new(), Vec::new(), Vec::new());
    for n in 0..ENGINE_TURNS {
        let body = json!({"server": {"name": format!("engine-{n}"), "imageRef": image, "flavorRef": flavor,
            "networks": [{"uuid": network}]}});
        let before = revision(admin).await?;
        let began = Instant::now();
        let made = admin.json(Method::POST, "/compute/v2.1/servers", body).await?;
        let path = format!("/compute/v2.1/servers/{}", made["server"]["id"].as_str().context("id")?);
        while admin.json(Method::GET, &path, Value::Null).await?["server"]["status"] != "ACTIVE" {
            if began.elapsed() > Duration::from_secs(30) {
                bail!("{path} does not become ACTIVE");
            }
        }
        ours.push(began.elapsed().as_secs_f64() * 1e3);
        commits.push((revision(admin).await? - before) as f64);
        theirs.push(bare.commit(&["server", "server_secret", "port", "instance_action"])?);
        admin.send(Method::DELETE, &path, "", Bytes::new()).await?;
        // Gone before the next begins, and before anybody counts servers.
        while admin.json(Method::GET, &path, Value::Null).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }
    let (ours, commits, theirs) = (median(ours), median(commits), median(theirs));
    Ok(Row {
        what: "a server until ACTIVE on a simulated host".into(),
        measured: format!("{ours:.2} ms, {commits:.0} commits"),
        reference: format!("so many bare commits of SQLite, {theirs:.2} ms each"),
        ratio: ours / (commits * theirs),
        bound: 3.0,
        more_is_better: false,
    })
}

/// How many commits the store has seen.
pub async fn revision(admin: &mut Session) -> Result<u64> {
    let answer = admin.send(Method::GET, "/metrics", "", Bytes::new()).await?;
    let text = String::from_utf8_lossy(&answer.body);
    let line = text.lines().find_map(|line| line.strip_prefix("nubo_store_revision "));
    Ok(line.context("no nubo_store_revision in /metrics")?.trim().parse()?)
}

/// What a commit costs alone: its rows by prepared statements, durable as nubo's are.
pub struct BareStore {
    connection: rusqlite::Connection,
    folder: std::path::PathBuf,
}

impl BareStore {
    pub fn open() -> Result<BareStore> {
        let folder = std::env::temp_dir().join(format!("nubo-bench-store-{}", std::process::id()));
        std::fs::create_dir_all(&folder)?;
        let connection = rusqlite::Connection::open(folder.join("bare.sqlite"))?;
        connection.execute_batch(
            "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;
             CREATE TABLE document (kind TEXT, id TEXT, body BLOB, PRIMARY KEY (kind, id)) WITHOUT ROWID;
             CREATE TABLE entry (kind TEXT, name TEXT, value TEXT, id TEXT, PRIMARY KEY (kind, name, value, id))
             WITHOUT ROWID;
             CREATE TABLE history (rev INTEGER, kind TEXT, id TEXT, body BLOB, PRIMARY KEY (rev, kind, id))
             WITHOUT ROWID;",
        )?;
        Ok(BareStore { connection, folder })
    }

    /// Milliseconds of one commit: documents of these kinds with two index entries and their history.
    pub fn commit(&self, kinds: &[&str]) -> Result<f64> {
        let body = vec![b'x'; 1500];
        let mut document = self.connection.prepare_cached("INSERT INTO document VALUES (?1, ?2, ?3)")?;
        let mut entry = self.connection.prepare_cached("INSERT INTO entry VALUES (?1, ?2, ?3, ?4)")?;
        let mut history = self.connection.prepare_cached("INSERT INTO history VALUES (?1, ?2, ?3, ?4)")?;
        let rev: i64 = self.connection.query_row("SELECT coalesce(max(rev), 0) + 1 FROM history", [], |r| r.get(0))?;
        let began = Instant::now();
        self.connection.execute_batch("BEGIN IMMEDIATE")?;
        for kind in kinds {
            let id = format!("{kind}-{rev}");
            document.execute((kind, &id, &body))?;
            for name in ["project", "host"] {
                entry.execute((kind, name, "value", &id))?;
            }
            history.execute((rev, kind, &id, &body))?;
        }
        self.connection.execute_batch("COMMIT")?;
        Ok(began.elapsed().as_secs_f64() * 1e3)
    }
}

impl Drop for BareStore {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

pub async fn image(admin: &mut Session, name: &str, bytes: impl Into<Bytes>) -> Result<String> {
    let body = json!({"name": name, "disk_format": "raw", "container_format": "bare"});
    let made = admin.json(Method::POST, "/image/v2/images", body).await?;
    let id = made["id"].as_str().context("id")?.to_owned();
    admin.send(Method::PUT, &format!("/image/v2/images/{id}/file"), "application/octet-stream", bytes).await?;
    Ok(id)
}

/// Bytes that neither repeat nor shrink.
pub fn noise(length: usize) -> Bytes {
    let (mut bytes, mut x) = (vec![0u8; length], 1u64);
    for chunk in bytes.chunks_mut(8) {
        x = x.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        chunk.copy_from_slice(&x.to_le_bytes()[..chunk.len()]);
    }
    bytes.into()
}

async fn uploads(admin: &mut Session, cloud: &Running) -> Result<Vec<Row>> {
    let bytes = noise(UPLOAD_BYTES);
    let path = std::env::temp_dir().join(format!("nubo-bench-{}", std::process::id()));
    std::fs::File::create(&path)?.write_all(&bytes)?;
    let (mut ours, mut cpu, mut slower, mut tools_cpu) = (vec![], vec![], vec![], vec![]);
    for n in 0..TURNS {
        let before = cloud.cpu()?;
        let began = Instant::now();
        let id = image(admin, &format!("upload-{n}"), bytes.clone()).await?;
        ours.push(began.elapsed().as_secs_f64());
        cpu.push(cloud.cpu()? - before);
        admin.send(Method::DELETE, &format!("/image/v2/images/{id}"), "", Bytes::new()).await?;
        let (md5, md5_cpu) = timed(&format!("md5sum {}", path.display()))?;
        let (sha, sha_cpu) = timed(&format!("sha512sum {}", path.display()))?;
        slower.push(md5.max(sha));
        tools_cpu.push(md5_cpu + sha_cpu);
    }
    let _ = std::fs::remove_file(&path);
    let (ours, cpu, slower, tools_cpu) = (median(ours), median(cpu), median(slower), median(tools_cpu));
    let mib = (UPLOAD_BYTES >> 20) as f64;
    Ok(vec![
        Row {
            what: "image upload, rate".into(),
            measured: format!("{:.0} MiB/s", mib / ours),
            reference: format!("slower of md5sum and sha512sum {:.0} MiB/s", mib / slower),
            ratio: slower / ours,
            bound: 0.5,
            more_is_better: true,
        },
        Row {
            what: "image upload, CPU of the server".into(),
            measured: format!("{cpu:.2} s"),
            reference: format!("md5sum and sha512sum together {tools_cpu:.2} s"),
            ratio: cpu / tools_cpu,
            bound: 1.4,
            more_is_better: false,
        },
    ])
}

/// Wall and CPU seconds of a command, as bash's `time` tells them.
pub fn timed(command: &str) -> Result<(f64, f64)> {
    let script = format!("set -e; TIMEFORMAT='%R %U %S'; time {command} >/dev/null");
    let output = Command::new("bash").args(["-c", &script]).output()?;
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    let figures: Vec<f64> = text.split_whitespace().filter_map(|word| word.parse().ok()).collect();
    let [wall, user, system] = figures[..] else { bail!("{command}: {text}") };
    Ok((wall, user + system))
}
