//! The identity service with 10,000 users, 1,000 projects and 10,000 revocations, beside a bare endpoint, a cloud without
//! the revocations, and a real Keystone with the same database.

use crate::keystone::{ADMIN_PASSWORD, Keystone, PASSWORD, REVOCATIONS, USERS, project, user};
use crate::load::{Ask, Connection, rate_of};
use crate::simulated::{BareStore, Running, Session, cpu_of, password, revision};
use crate::{Row, median};
use anyhow::{Context, Result, bail};
use bytes::Bytes;
use hyper::Method;
use serde_json::{Value, json};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

const TURNS: usize = 5;
const TURN: Duration = Duration::from_secs(2);
const CONNECTIONS: usize = 8;
/// So many different tokens are validated in turns.
const TOKENS: usize = 500;
/// Requests of each kind to each of two clouds.
const PAIRS: usize = 401;
const LISTS: usize = 15;
/// Enough of them that their CPU can be told.
const COMMITS: usize = 500;
/// What a ratio of two equal things may come to here.
const NOISE: f64 = 1.15;
const VALIDATION: &str = "/identity/v3/auth/tokens";
/// Nothing is remembered of a token that is asked for so.
const AFRESH: &str = "/identity/v3/auth/tokens?allow_expired=true";
const ASSIGNMENTS: &str = "/identity/v3/role_assignments?include_names=true";

/// A cloud that has taken the Keystone over.
struct Cloud {
    running: Running,
    url: String,
    admin: Session,
}

impl Cloud {
    async fn of(nubo: &Path, keystone: &Keystone) -> Result<Cloud> {
        let mut command = Command::new(nubo);
        command.args(["up", "--simulated-hosts", "1"]).env("NUBO_LOG", "warn").env("NUBO_LISTEN", "127.0.0.1:0");
        command.env_remove("NUBO_STATE").env_remove("NUBO_NETNS");
        let running = Running::start(command)?;
        let words: Vec<&str> = running.line.split(' ').collect();
        let [_, url, clouds] = words[..] else { bail!("nubo said {:?}", running.line) };
        let (admin, url) = (Session::login(url, clouds, "nubo").await?, url.to_owned());
        let cloud = Cloud { running, url, admin };
        cloud.import(nubo, keystone)?;
        Ok(cloud)
    }

    /// What of it is not here yet.
    fn import(&self, nubo: &Path, keystone: &Keystone) -> Result<()> {
        let clouds = self.running.line.rsplit(' ').next().context("clouds.yaml")?;
        let mut import = Command::new(nubo);
        import.env("OS_AUTH_URL", format!("{}/identity", self.url)).env("OS_PASSWORD", password(clouds, "nubo")?);
        import.env("OS_USERNAME", "admin").env("OS_PROJECT_NAME", "admin");
        import.args(["keystone", "import", "--rename=-keystone", "--fernet-keys"]);
        let done = import.arg(keystone.folder.join("fernet-keys")).arg(keystone.folder.join("keystone.db")).output()?;
        if !done.status.success() {
            bail!("nubo keystone import: {}", String::from_utf8_lossy(&done.stderr));
        }
        Ok(())
    }
}

fn login(n: usize) -> Bytes {
    let user = json!({"id": user(n % USERS), "password": PASSWORD});
    let identity = json!({"methods": ["password"], "password": {"user": user}});
    json!({"auth": {"identity": identity, "scope": {"project": {"id": project(n % USERS)}}}}).to_string().into()
}

/// A token for whom the body says.
async fn token(connection: &mut Connection, path: &str, body: Bytes) -> Result<String> {
    let answer = connection.send(Method::POST, path, &[("content-type", "application/json")], body).await?;
    let token = answer.headers.get("x-subject-token");
    let said = || format!("{path}: {} {}", answer.status, String::from_utf8_lossy(&answer.body));
    Ok(token.with_context(said)?.to_str()?.to_owned())
}

/// Tokens of so many users.
async fn tokens(url: &str, path: &str, count: usize) -> Result<Vec<String>> {
    let (mut connection, mut all) = (Connection::open(url).await?, Vec::new());
    for n in 0..count {
        all.push(token(&mut connection, path, login(n)).await?);
    }
    Ok(all)
}

/// Validations a second of these tokens in turns.
async fn validations(url: &str, path: &str, admin: &str, tokens: &[String]) -> Result<f64> {
    let ask = |n: usize| Ask {
        headers: vec![("x-auth-token", admin), ("x-subject-token", &tokens[n % tokens.len()])],
        ..Ask::get(path)
    };
    rate_of(url, CONNECTIONS, TURN, ask).await
}

/// Logins a second of one user after the other.
async fn logins(url: &str, path: &str) -> Result<f64> {
    let ask = |n: usize| Ask {
        method: Method::POST,
        headers: vec![("content-type", "application/json")],
        body: login(n),
        status: 201,
        ..Ask::get(path)
    };
    rate_of(url, CONNECTIONS, TURN, ask).await
}

pub async fn measure(nubo: &Path) -> Result<Vec<Row>> {
    let keystone = Keystone::filled()?;
    let mut before = Cloud::of(nubo, &keystone).await?;
    let mut cloud = Cloud::of(nubo, &keystone).await?;
    keystone.revoke()?;
    cloud.import(nubo, &keystone)?;
    let tokens = tokens(&cloud.url, VALIDATION, TOKENS).await?;
    let mut rows = vec![
        validation(&cloud, VALIDATION, "token validation, 500 tokens in turns", &tokens).await?,
        validation(&cloud, AFRESH, "the same, each looked at as if for the first time", &tokens).await?,
        issue(&mut cloud, &keystone, &tokens).await?,
        assignments(&mut cloud).await?,
    ];
    rows.extend(after_revocations(&mut before, &mut cloud).await?);
    drop(before);
    rows.extend(beside(&cloud, &keystone).await?);
    Ok(rows)
}

async fn validation(cloud: &Cloud, path: &str, what: &str, tokens: &[String]) -> Result<Row> {
    let headers = [("x-auth-token", cloud.admin.token.as_str()), ("x-subject-token", tokens[0].as_str())];
    let shown = Connection::open(&cloud.url).await?.send(Method::GET, path, &headers, "").await?.body;
    let file = std::env::temp_dir().join(format!("nubo-bench-body-{}", std::process::id()));
    std::fs::write(&file, &shown)?;
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("bare").arg(&file);
    let bare = Running::start(command)?;
    std::fs::remove_file(&file)?;
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..TURNS {
        ours.push(validations(&cloud.url, path, &cloud.admin.token, tokens).await?);
        theirs.push(rate_of(&bare.line, CONNECTIONS, TURN, |_| Ask::get("/")).await?);
    }
    let (ours, theirs) = (median(ours), median(theirs));
    Ok(Row {
        what: what.into(),
        measured: format!("{ours:.0}/s"),
        reference: format!("bare axum that answers the same {} bytes of JSON {theirs:.0}/s", shown.len()),
        ratio: ours / theirs,
        bound: 0.5,
        more_is_better: true,
    })
}

/// What a login costs beside its hash, against five validations and a commit.
async fn issue(cloud: &mut Cloud, keystone: &Keystone, tokens: &[String]) -> Result<Row> {
    let (pid, bare) = (cloud.running.child.id(), BareStore::open()?);
    let (mut issues, mut hashes, mut checks, mut commits) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let mut bares = Vec::new();
    for _ in 0..TURNS {
        let (at, revision_before) = (cpu_of(pid)?, revision(&mut cloud.admin).await?);
        let made = logins(&cloud.url, VALIDATION).await? * TURN.as_secs_f64();
        issues.push((cpu_of(pid)? - at) / made * 1e6);
        commits.push((revision(&mut cloud.admin).await? - revision_before) as f64 / made);
        hashes.push(hash(&keystone.hash)?);
        let at = cpu_of(pid)?;
        let made = validations(&cloud.url, VALIDATION, &cloud.admin.token, tokens).await? * TURN.as_secs_f64();
        checks.push((cpu_of(pid)? - at) / made * 1e6);
        let at = cpu_of(std::process::id())?;
        (0..COMMITS).try_for_each(|_| bare.commit(&["token"]).map(drop))?;
        bares.push((cpu_of(std::process::id())? - at) / COMMITS as f64 * 1e6);
    }
    let (issue, hash, check, commits) = (median(issues), median(hashes), median(checks), median(commits));
    let bare = median(bares);
    Ok(Row {
        what: "CPU of issuing a token beside its password's hash".into(),
        measured: format!("{:.0} µs ({issue:.0} − {hash:.0}), {commits:.1} commits", issue - hash),
        reference: format!("five validations of {check:.1} µs and a bare commit of SQLite of {bare:.0} µs"),
        ratio: (issue - hash) / (5.0 * check + bare),
        bound: 1.0,
        more_is_better: false,
    })
}

/// Microseconds of CPU of one look at a hash, while as many threads do so as a cloud would have.
fn hash(hash: &str) -> Result<f64> {
    let (began, at) = (Instant::now(), cpu_of(std::process::id())?);
    let threads = std::thread::available_parallelism().map_or(2, |n| n.get());
    let counts: Vec<usize> = std::thread::scope(|scope| {
        let work = || {
            let mut count = 0;
            while began.elapsed() < TURN / 2 {
                assert!(bcrypt::verify(PASSWORD, hash).is_ok_and(|holds| holds), "the password is not theirs");
                count += 1;
            }
            count
        };
        let running: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        running.into_iter().map(|one| one.join().unwrap_or_default()).collect()
    });
    Ok((cpu_of(std::process::id())? - at) / counts.iter().sum::<usize>() as f64 * 1e6)
}

async fn assignments(cloud: &mut Cloud) -> Result<Row> {
    let (mut ours, mut theirs, mut count) = (Vec::new(), Vec::new(), 0);
    for _ in 0..LISTS {
        let began = Instant::now();
        let answer = cloud.admin.send(Method::GET, ASSIGNMENTS, "application/json", Bytes::new()).await?;
        ours.push(began.elapsed().as_secs_f64() * 1e3);
        let value: Value = serde_json::from_slice(&answer.body)?;
        count = value["role_assignments"].as_array().context("role_assignments")?.len();
        let began = Instant::now();
        std::hint::black_box(serde_json::to_vec(&value)?);
        theirs.push(began.elapsed().as_secs_f64() * 1e3);
    }
    let (ours, theirs) = (median(ours), median(theirs));
    Ok(Row {
        what: format!("GET /role_assignments with names, {count} of them"),
        measured: format!("{ours:.1} ms"),
        reference: format!("serde_json serializes it in {theirs:.1} ms"),
        ratio: ours / theirs,
        bound: 5.0,
        more_is_better: false,
    })
}

/// Calls to a cloud with the revocations and to one without, one after the other.
async fn after_revocations(before: &mut Cloud, after: &mut Cloud) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    let shown = format!("/identity/v3/users/{}", user(7));
    let of_user = format!("/identity/v3/role_assignments?user.id={}", user(7));
    let calls: [(&str, Method, &str, usize); 8] = [
        ("GET /auth/tokens", Method::GET, VALIDATION, PAIRS),
        ("GET /auth/tokens, afresh", Method::GET, AFRESH, PAIRS),
        ("POST /auth/tokens", Method::POST, VALIDATION, PAIRS),
        ("DELETE /auth/tokens", Method::DELETE, VALIDATION, PAIRS),
        ("GET /users/ID", Method::GET, &shown, PAIRS),
        ("GET /auth/projects", Method::GET, "/identity/v3/auth/projects", PAIRS),
        ("GET /role_assignments?user.id=ID", Method::GET, &of_user, PAIRS),
        ("GET /role_assignments with names", Method::GET, ASSIGNMENTS, LISTS),
    ];
    for (what, method, path, times) in calls {
        let mut took = [Vec::new(), Vec::new()];
        for n in 0..times {
            for (cloud, took) in [&mut *before, &mut *after].into_iter().zip(&mut took) {
                let body = if method == Method::POST { login(n) } else { Bytes::new() };
                // Somebody's; each is revoked once.
                let subject = match path {
                    VALIDATION | AFRESH if method != Method::POST => {
                        let n = if method == Method::DELETE { n } else { n % 50 };
                        token(&mut cloud.admin.connection, VALIDATION, login(n)).await?
                    }
                    _ => String::new(),
                };
                let headers = [("x-auth-token", cloud.admin.token.as_str()), ("x-subject-token", subject.as_str())];
                let began = Instant::now();
                let answer = cloud.admin.connection.send(method.clone(), path, &headers, body).await?;
                took.push(began.elapsed().as_secs_f64() * 1e6);
                if answer.status >= 400 {
                    bail!("{method} {path}: {} {}", answer.status, String::from_utf8_lossy(&answer.body));
                }
            }
        }
        let [before, after] = took.map(median);
        rows.push(Row {
            what: format!("{what}, with {REVOCATIONS} revocations"),
            measured: format!("{after:.0} µs"),
            reference: format!("a cloud without them {before:.0} µs"),
            ratio: after / before,
            bound: NOISE,
            more_is_better: false,
        });
    }
    Ok(rows)
}

/// The real Keystone on the same database: validations of tokens that it has issued, and logins of its users.
async fn beside(cloud: &Cloud, keystone: &Keystone) -> Result<Vec<Row>> {
    let Some(real) = keystone.serve()? else {
        eprintln!("no real Keystone is installed in .venv-keystone: its lines are left out");
        return Ok(Vec::new());
    };
    let path = "/v3/auth/tokens";
    let identity = json!({"methods": ["password"], "password": {"user": {
        "name": "admin", "password": ADMIN_PASSWORD, "domain": {"id": "default"}}}});
    let scope = json!({"project": {"name": "admin", "domain": {"id": "default"}}});
    let body = json!({"auth": {"identity": identity, "scope": scope}}).to_string();
    let admin = token(&mut Connection::open(&real.line).await?, path, body.into()).await?;
    let tokens = tokens(&real.line, path, TOKENS / 5).await?;
    let (mut ours, mut theirs) = ([Vec::new(), Vec::new()], [Vec::new(), Vec::new()]);
    for _ in 0..TURNS {
        ours[0].push(validations(&cloud.url, VALIDATION, &cloud.admin.token, &tokens).await?);
        theirs[0].push(validations(&real.line, path, &admin, &tokens).await?);
        ours[1].push(logins(&cloud.url, VALIDATION).await?);
        theirs[1].push(logins(&real.line, path).await?);
    }
    let whats = ["validation of a Keystone's own tokens", "logins with a password (bcrypt, 4 rounds)"];
    let figures = whats.into_iter().zip(ours.map(median)).zip(theirs.map(median));
    Ok(figures
        .map(|((what, ours), theirs)| Row {
            what: what.into(),
            measured: format!("{ours:.0}/s"),
            reference: format!("Keystone 30 on SQLite, two processes of gunicorn, {theirs:.0}/s"),
            ratio: ours / theirs,
            bound: 1.0,
            more_is_better: true,
        })
        .collect())
}
