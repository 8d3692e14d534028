//! What needs a real cloud: NUBO_STATE names one that runs, and this process runs in its namespace. Without it these
//! lines are left out, and that is said.

use crate::load::Connection;
use crate::simulated::Session;
use crate::{Row, median};
use anyhow::{Context, Result, bail};
use bytes::Bytes;
use hyper::Method;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const TURNS: usize = 7;
/// A start of QEMU differs much from the next.
const SERVERS: usize = 21;
/// What a removed guest leaves to be done is over by then.
const QUIET: Duration = Duration::from_millis(300);

pub async fn measure() -> Result<Vec<Row>> {
    let Ok(state) = std::env::var("NUBO_STATE").map(PathBuf::from) else {
        println!("left out: servers, memory and start, since NUBO_STATE names no running cloud");
        return Ok(Vec::new());
    };
    let url = std::fs::read_to_string(state.join("run/url")).context("no cloud runs in NUBO_STATE")?;
    let url = url.trim();
    let mut rows = vec![memory(&state)?];
    rows.push(servers(&state, url).await?);
    rows.push(start(&state, url).await?);
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
        theirs.push(bare_qemu(state)?);
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

/// The demo's own command line, started by hand over an overlay of the same image; milliseconds until QMP answers its
/// first command (it greets earlier, before there is a machine). The overlay is made before the time begins.
fn bare_qemu(state: &Path) -> Result<f64> {
    let directory = std::env::temp_dir().join(format!("nubo-bench-qemu-{}", std::process::id()));
    std::fs::create_dir_all(&directory)?;
    let (overlay, image) = (directory.join("disk.qcow2"), state.join("tiny.qcow2"));
    let made = Command::new("qemu-img")
        .args(["create", "-q", "-f", "qcow2", "-F", "qcow2", "-b"])
        .args([&image, &overlay])
        .arg("1G")
        .status()?;
    if !made.success() {
        bail!("qemu-img create failed");
    }
    let words = same_line(state, &directory)?;
    let errors = std::fs::File::create(directory.join("stderr"))?;
    let began = Instant::now();
    let mut guest = Command::new("qemu-system-x86_64").args(words).stdin(Stdio::null()).stderr(errors).spawn()?;
    let outcome = first_answer(&directory.join("qmp"));
    let took = began.elapsed().as_secs_f64() * 1e3;
    guest.kill()?;
    guest.wait()?;
    let said = std::fs::read_to_string(directory.join("stderr")).unwrap_or_default();
    std::fs::remove_dir_all(&directory)?;
    outcome.with_context(|| format!("QEMU by hand said: {said}")).map(|()| took)
}

fn first_answer(socket: &Path) -> Result<()> {
    use std::io::{BufRead, BufReader, Write};
    let until = Instant::now() + Duration::from_secs(30);
    let mut stream = loop {
        match std::os::unix::net::UnixStream::connect(socket) {
            Ok(stream) => break stream,
            Err(error) if Instant::now() > until => return Err(error.into()),
            Err(_) => std::thread::sleep(Duration::from_micros(200)),
        }
    };
    let mut lines = BufReader::new(stream.try_clone()?).lines();
    lines.next().context("no greeting")??;
    writeln!(stream, "{{\"execute\": \"qmp_capabilities\"}}")?;
    while !lines.next().context("QMP ended")??.contains("\"return\"") {}
    Ok(())
}

/// The whole command line of a running guest, with names in `directory` where the agent passes descriptors.
fn same_line(state: &Path, directory: &Path) -> Result<Vec<String>> {
    let setup: Value = serde_json::from_slice(&std::fs::read(state.join("setup.json"))?)?;
    let cloud = setup["cloud_id"].as_str().context("cloud_id")?;
    for entry in std::fs::read_dir("/proc")?.flatten() {
        let Ok(line) = std::fs::read_to_string(entry.path().join("cmdline")) else { continue };
        let words: Vec<&str> = line.trim_end_matches('\0').split('\0').collect();
        if !words[0].contains("qemu-system") || !line.contains(cloud) {
            continue;
        }
        let mut named = Vec::new();
        let mut words = words.into_iter().skip(1);
        while let Some(word) = words.next() {
            let mut value = || words.next().context("an option without a value");
            match word {
                "-add-fd" => drop(value()?),
                "-name" => named.extend([word.to_owned(), value().map(|_| "guest=bench".to_owned())?]),
                "-chardev" | "-netdev" | "-blockdev" => {
                    named.extend([word.to_owned(), by_name(word, value()?, state, directory)?]);
                }
                _ => named.push(word.to_owned()),
            }
        }
        return Ok(named);
    }
    bail!("no guest of cloud {cloud} runs")
}

/// The option's value without descriptors.
fn by_name(option: &str, value: &str, state: &Path, directory: &Path) -> Result<String> {
    if option == "-blockdev" {
        let mut node: Value = serde_json::from_str(value)?;
        node["file"]["filename"] = json!(directory.join("disk.qcow2"));
        node["backing"]["file"]["filename"] = json!(state.join("tiny.qcow2"));
        return Ok(node.to_string());
    }
    let id = value.split(',').find_map(|part| part.strip_prefix("id=")).context("no id")?;
    let parts = value.split(',').map(|part| match part.split_once('=') {
        Some(("fd", _)) if option == "-netdev" => "ifname=nubo-bench,script=no,downscript=no".to_owned(),
        Some(("fd", _)) => format!("path={}", directory.join(id).display()),
        Some(("logfile", _)) => format!("logfile={}", directory.join("log").display()),
        _ => part.to_owned(),
    });
    Ok(parts.collect::<Vec<_>>().join(","))
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
