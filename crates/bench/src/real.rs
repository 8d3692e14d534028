//! What needs a real cloud: NUBO_STATE names one that runs, and this process runs in its namespace. Without it these
//! lines are left out, and that is said.

use crate::by_hand::Hand;
use crate::load::Connection;
use crate::simulated::Session;
use crate::{Row, disks, guest, median, volumes};
use anyhow::{Context, Result, bail};
use bytes::Bytes;
use hyper::Method;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

const TURNS: usize = 7;
/// A start of QEMU differs much from the next.
const SERVERS: usize = 21;
/// What a removed guest leaves to be done is over by then.
const QUIET: Duration = Duration::from_millis(300);

pub async fn measure(wanted: impl Fn(&str) -> bool) -> Result<Vec<Row>> {
    let Ok(state) = std::env::var("NUBO_STATE").map(PathBuf::from) else {
        println!("left out: servers, volumes of guests, memory and start, since NUBO_STATE names no running cloud");
        return Ok(Vec::new());
    };
    let url = std::fs::read_to_string(state.join("run/url")).context("no cloud runs in NUBO_STATE")?;
    let url = url.trim();
    let clouds = state.join("clouds.yaml").display().to_string();
    let mut rows = Vec::new();
    if wanted("real") {
        rows.push(memory(&state)?);
        rows.push(servers(&state, url).await?);
        rows.push(start(&state, url).await?);
    }
    if wanted("volumes") {
        rows.extend(volumes::on_a_host(Session::login(url, &clouds, "demo").await?).await?);
    }
    if wanted("disks") {
        rows.extend(disks::in_a_guest(&state, url, &clouds).await?);
    }
    if wanted("guest") {
        rows.extend(guest::measure(&state, url, &clouds).await?);
    }
    Ok(rows)
}

fn pid(state: &Path, name: &str) -> Result<u32> {
    Ok(std::fs::read_to_string(state.join(format!("run/{name}.pid")))?.trim().parse()?)
}

/// Anonymous and shared memory of control and agent together.
fn memory(state: &Path) -> Result<Row> {
    let mut kib = 0.0;
    for name in ["control", "agent"] {
        let text = std::fs::read_to_string(format!("/proc/{}/status", pid(state, name)?))?;
        let lines = text.lines().filter(|line| line.starts_with("RssAnon:") || line.starts_with("RssShmem:"));
        kib += lines.filter_map(|line| line.split_whitespace().nth(1)?.parse::<f64>().ok()).sum::<f64>();
    }
    let mib = kib / 1024.0;
    Ok(Row {
        what: "control and agent idle after the demo, anonymous and shared memory".into(),
        measured: format!("{mib:.1} MiB"),
        reference: "100 MiB".into(),
        ratio: mib / 100.0,
        bound: 1.0,
        more_is_better: false,
    })
}

/// `POST /servers` until ACTIVE against the same QEMU started by hand until its QMP answers.
async fn servers(state: &Path, url: &str) -> Result<Row> {
    let clouds = state.join("clouds.yaml").display().to_string();
    let mut demo = Session::login(url, &clouds, "demo").await?;
    let first = |value: &Value, list: &str| value[list][0]["id"].clone();
    let image = first(&demo.json(Method::GET, "/image/v2/images?name=tiny", Value::Null).await?, "images");
    let network =
        first(&demo.json(Method::GET, "/network/v2.0/networks?name=demo-net", Value::Null).await?, "networks");
    let flavors = demo.json(Method::GET, "/compute/v2.1/flavors", Value::Null).await?;
    let flavor = flavors["flavors"].as_array().and_then(|all| all.iter().find(|f| f["name"] == "m1.tiny"));
    let flavor = flavor.context("no m1.tiny")?["id"].clone();
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for n in 0..SERVERS {
        let body = json!({"server": {"name": format!("bench-{n}"), "imageRef": image, "flavorRef": flavor,
            "networks": [{"uuid": network}]}});
        let began = Instant::now();
        let made = demo.json(Method::POST, "/compute/v2.1/servers", body).await?;
        let path = format!("/compute/v2.1/servers/{}", made["server"]["id"].as_str().context("id")?);
        wait(&mut demo, &path, |status| status == "ACTIVE").await?;
        ours.push(began.elapsed().as_secs_f64() * 1e3);
        demo.send(Method::DELETE, &path, "", Bytes::new()).await?;
        gone(&mut demo, &path).await?;
        tokio::time::sleep(QUIET).await;
        theirs.push(Hand::start(state, None, None)?.1);
        tokio::time::sleep(QUIET).await;
    }
    let (ours, theirs) = (median(ours), median(theirs));
    Ok(Row {
        what: "POST /servers until ACTIVE".into(),
        measured: format!("{ours:.0} ms"),
        reference: format!("the same command line by hand until QMP answers {theirs:.0} ms"),
        ratio: ours / theirs,
        bound: 1.5,
        more_is_better: false,
    })
}

async fn wait(session: &mut Session, path: &str, done: impl Fn(&str) -> bool) -> Result<()> {
    let until = Instant::now() + Duration::from_secs(60);
    loop {
        let server = session.json(Method::GET, path, Value::Null).await?;
        let status = server["server"]["status"].as_str().unwrap_or_default();
        if done(status) {
            return Ok(());
        }
        if status == "ERROR" || Instant::now() > until {
            bail!("{path} is {status}: {}", server["server"]["fault"]);
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

async fn gone(session: &mut Session, path: &str) -> Result<()> {
    let until = Instant::now() + Duration::from_secs(60);
    while session.json(Method::GET, path, Value::Null).await.is_ok() {
        if Instant::now() > until {
            bail!("{path} does not go");
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    Ok(())
}

/// From the death of control until it answers again: the supervisor's pause and control's own start.
async fn start(state: &Path, url: &str) -> Result<Row> {
    let mut times = Vec::new();
    for _ in 0..TURNS {
        let began = Instant::now();
        Command::new("kill").args(["-KILL", &pid(state, "control")?.to_string()]).status()?;
        let until = Instant::now() + Duration::from_secs(30);
        loop {
            if let Ok(mut connection) = Connection::open(url).await
                && connection.send(Method::GET, "/healthcheck", &[], Bytes::new()).await.is_ok_and(|a| a.status == 200)
            {
                break;
            }
            if Instant::now() > until {
                bail!("control does not come back");
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        times.push(began.elapsed().as_secs_f64() * 1e3);
        tokio::time::sleep(Duration::from_secs(6)).await;
    }
    let ms = median(times);
    Ok(Row {
        what: "control killed until it answers again (100 ms of it is the supervisor's look)".into(),
        measured: format!("{ms:.0} ms"),
        reference: "300 ms".into(),
        ratio: ms / 300.0,
        bound: 1.0,
        more_is_better: false,
    })
}
