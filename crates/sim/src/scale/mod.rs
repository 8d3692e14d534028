//! How control behaves with many hosts and servers: real time, a real store on disk, simulated hosts in one process.
//!
//! Owns a measurement, not a test: it prints what it finds. See docs/bench.md.

use crate::control_life::ADMIN_PASSWORD;
use anyhow::{Context, Result, bail};
use axum::body::Body;
use base::Env;
use control::{Bootstrap, Cloud, CloudOptions};
use http::{Method, Request};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};
use store::Event;

/// How often each call is made.
const TURNS: usize = 200;
/// Servers of one request.
const BATCH: usize = 100;

/// A call's name, and its 50th and 99th percentile in milliseconds.
pub type Row = (&'static str, f64, f64);

pub struct Measured {
    pub rows: Vec<Row>,
    pub place_ms: (f64, f64),
    pub fill_s: f64,
    pub rss_mib: u64,
}

struct Client {
    cloud: Cloud,
    token: String,
}

impl Client {
    async fn call(&self, method: Method, path: &str, body: Value) -> Result<(u16, Value)> {
        let body = if body.is_null() { Vec::new() } else { body.to_string().into_bytes() };
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("x-auth-token", &self.token)
            .header(
                "content-type",
                if path.ends_with("/file") { "application/octet-stream" } else { "application/json" },
            )
            .header("content-length", body.len())
            .header("x-openstack-nova-api-version", "2.60");
        let response = self.cloud.answer(request.body(Body::from(body))?).await;
        let status = response.status().as_u16();
        let bytes = response.into_body().collect().await?.to_bytes();
        Ok((status, serde_json::from_slice(&bytes).unwrap_or(Value::Null)))
    }

    async fn ok(&self, method: Method, path: &str, body: Value) -> Result<Value> {
        let (status, json) = self.call(method.clone(), path, body).await?;
        if status >= 400 {
            bail!("{method} {path}: {status} {json}");
        }
        Ok(json)
    }
}

fn percentiles(mut times: Vec<f64>) -> (f64, f64) {
    times.sort_by(f64::total_cmp);
    let at = |part: f64| times.get(((times.len() as f64 * part) as usize).min(times.len().saturating_sub(1)));
    (at(0.5).copied().unwrap_or(0.0), at(0.99).copied().unwrap_or(0.0))
}

fn rss_mib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok()).unwrap_or(0) / 1024
}

/// Fills a cloud and measures it.
pub fn measure(hosts: usize, servers: usize) -> Result<Measured> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let folder = tempfile::tempdir()?;
    runtime.block_on(async {
        let cloud = open(folder.path()).await?;
        for n in 1..=hosts {
            let mut options = simhost::Options::new(format!("sim-{n:05}").as_str());
            options.memory_mib = 1 << 20;
            let host = Arc::new(simhost::SimHost::new(Env::system(), options));
            tokio::spawn(control::host(host, cloud.link()));
        }
        cloud.wait_hosts(hosts).await;
        let client = login(&cloud).await?;
        let (flavor, image, network) = things(&client).await?;
        let server = move |count: usize| {
            json!({"server": {"name": "scale", "imageRef": image, "flavorRef": flavor, "min_count": count,
                "max_count": count, "networks": [{"uuid": network}]}})
        };
        let began = Instant::now();
        for n in 0..servers.div_ceil(BATCH) {
            let count = BATCH.min(servers - n * BATCH);
            client.ok(Method::POST, "/compute/v2.1/servers", server(count)).await?;
        }
        wait_active(&client, servers).await?;
        let fill_s = began.elapsed().as_secs_f64();
        let (rows, place_ms) = calls(&client, &server).await?;
        Ok(Measured { rows, place_ms, fill_s, rss_mib: rss_mib() })
    })
}

async fn open(folder: &std::path::Path) -> Result<Cloud> {
    let bootstrap = Bootstrap {
        cloud_id: "0a1b2c3d".into(),
        admin_password: ADMIN_PASSWORD.into(),
        demo_password: "demo-password".into(),
    };
    let options = CloudOptions {
        store_url: format!("sqlite:{}", folder.join("nubo.db").display()),
        public_url: "http://cloud".into(),
        images: folder.join("images"),
        policy: None,
        bcrypt_rounds: 4,
        image_format_enforcement: true,
        compliance: Default::default(),
        bootstrap,
        masquerade: None,
        history_retention_s: control::HISTORY_RETENTION_S,
        trash_retention_s: 0,
        reclaim_instance_interval_s: 0,
        deadlines: Default::default(),
    };
    Cloud::open(options, Env::system()).await.map_err(|fault| anyhow::anyhow!(fault.chain()))
}

async fn login(cloud: &Cloud) -> Result<Client> {
    let body = json!({"auth": {
        "identity": {"methods": ["password"], "password": {"user": {
            "name": "admin", "password": ADMIN_PASSWORD, "domain": {"id": "default"}}}},
        "scope": {"project": {"name": "admin", "domain": {"id": "default"}}}}});
    let request = Request::post("/identity/v3/auth/tokens").header("content-type", "application/json");
    let response = cloud.answer(request.body(Body::from(body.to_string()))?).await;
    let token = response.headers().get("x-subject-token").context("no token")?.to_str()?.to_owned();
    let said: Value = serde_json::from_slice(&response.into_body().collect().await?.to_bytes())?;
    let project = said["token"]["project"]["id"].as_str().context("no project")?.to_owned();
    let client = Client { cloud: cloud.clone(), token };
    let no_limit = json!({"quota_set": {"instances": -1, "cores": -1, "ram": -1}});
    client.ok(Method::PUT, &format!("/compute/v2.1/os-quota-sets/{project}"), no_limit).await?;
    client.ok(Method::PUT, &format!("/network/v2.0/quotas/{project}"), json!({"quota": {"port": -1}})).await?;
    Ok(client)
}

async fn things(client: &Client) -> Result<(String, String, String)> {
    let id = |made: Value, key: &str| -> Result<String> {
        let object = if key.is_empty() { &made } else { &made[key] };
        Ok(object["id"].as_str().context("no id")?.to_owned())
    };
    let flavor = json!({"flavor": {"name": "tiny", "ram": 64, "vcpus": 1, "disk": 1}});
    let flavor = id(client.ok(Method::POST, "/compute/v2.1/flavors", flavor).await?, "flavor")?;
    let image = json!({"name": "tiny", "disk_format": "raw", "container_format": "bare"});
    let image = id(client.ok(Method::POST, "/image/v2/images", image).await?, "")?;
    client.ok(Method::PUT, &format!("/image/v2/images/{image}/file"), json!("a few bytes of nothing")).await?;
    let network = json!({"network": {"name": "wide"}});
    let network = id(client.ok(Method::POST, "/network/v2.0/networks", network).await?, "network")?;
    let subnet = json!({"subnet": {"network_id": network, "ip_version": 4, "cidr": "10.0.0.0/12"}});
    client.ok(Method::POST, "/network/v2.0/subnets", subnet).await?;
    Ok((flavor, image, network))
}

/// Waits until so many servers are ACTIVE; fails when nothing moves for a minute.
async fn wait_active(client: &Client, servers: usize) -> Result<()> {
    let (mut active, mut moved) = (0, Instant::now());
    while active < servers {
        let link = client.cloud.link();
        let text = link.store.read(|reader| {
            let seen = reader.list::<Launched>(store::Query::all())?;
            Ok(seen.iter().filter(|seen| seen.doc.launched_at.is_some()).count())
        });
        let now = text.await.map_err(|fault| anyhow::anyhow!(fault.chain()))?;
        if now > active {
            (active, moved) = (now, Instant::now());
        }
        if moved.elapsed() > Duration::from_secs(60) {
            bail!("{active} of {servers} servers became ACTIVE, and nothing moves");
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    Ok(())
}

/// As much of `server_observed` as is needed here.
#[derive(Clone, serde::Serialize, serde::Deserialize)]
struct Launched {
    id: String,
    launched_at: Option<i64>,
}

impl store::Document for Launched {
    const KIND: &'static str = "server_observed";
    fn id(&self) -> &str {
        &self.id
    }
}

async fn calls(client: &Client, server: &impl Fn(usize) -> Value) -> Result<(Vec<Row>, (f64, f64))> {
    let mut rows = Vec::new();
    let mut watch = client.cloud.link().store.watch();
    let (mut times, mut made) = (Vec::new(), Vec::new());
    for _ in 0..TURNS {
        let began = Instant::now();
        let answer = client.ok(Method::POST, "/compute/v2.1/servers", server(1)).await?;
        times.push(began.elapsed().as_secs_f64() * 1e3);
        made.push(answer["server"]["id"].as_str().context("no id")?.to_owned());
    }
    let (p50, p99) = percentiles(times);
    rows.push(("POST servers", p50, p99));
    let place = placing(client, &mut watch, server).await?;
    let listed = "/compute/v2.1/servers/detail?limit=100";
    let fixed = [
        ("GET servers/detail?limit=100", listed),
        ("GET servers?limit=100", "/compute/v2.1/servers?limit=100"),
        ("GET ports?limit=100", "/network/v2.0/ports?limit=100"),
        ("GET os-hypervisors/detail?limit=100", "/compute/v2.1/os-hypervisors/detail?limit=100"),
        ("GET flavors/detail", "/compute/v2.1/flavors/detail"),
        ("GET images", "/image/v2/images"),
        ("GET limits", "/compute/v2.1/limits"),
    ];
    for (name, path) in fixed {
        let mut times = Vec::new();
        for _ in 0..TURNS {
            let began = Instant::now();
            client.ok(Method::GET, path, Value::Null).await?;
            times.push(began.elapsed().as_secs_f64() * 1e3);
        }
        let (p50, p99) = percentiles(times);
        rows.push((name, p50, p99));
    }
    for (name, method, body) in [
        ("GET servers/ID", Method::GET, Value::Null),
        ("PUT servers/ID", Method::PUT, json!({"server": {"name": "other"}})),
        ("DELETE servers/ID", Method::DELETE, Value::Null),
    ] {
        let mut times = Vec::new();
        for id in &made {
            let began = Instant::now();
            client.ok(method.clone(), &format!("/compute/v2.1/servers/{id}"), body.clone()).await?;
            times.push(began.elapsed().as_secs_f64() * 1e3);
        }
        let (p50, p99) = percentiles(times);
        rows.push((name, p50, p99));
    }
    Ok((rows, place))
}

/// From the commit of a server to the commit that gives it a host.
async fn placing(client: &Client, watch: &mut store::Watch, server: &impl Fn(usize) -> Value) -> Result<(f64, f64)> {
    while watch.try_next().is_some() {}
    let mut times = Vec::new();
    for _ in 0..TURNS {
        client.ok(Method::POST, "/compute/v2.1/servers", server(1)).await?;
        let (mut created, mut began) = (String::new(), Instant::now());
        loop {
            let Some(Event::Revision(revision)) = watch.next().await else { continue };
            let at = revision.changes.iter().filter(|change| change.kind == "server");
            let bodies: BTreeMap<&str, Value> = at
                .filter_map(|change| Some((change.id.as_str(), serde_json::from_str(change.body.as_deref()?).ok()?)))
                .collect();
            if created.is_empty() && bodies.values().any(|body| body["host"].is_string() && body["generation"] == 1) {
                // Few hosts: it got one in the commit that made it.
                times.push(0.0);
                break;
            }
            if let Some((id, _)) = bodies.iter().find(|(_, body)| body["host"].is_null()) {
                (created, began) = ((*id).to_owned(), Instant::now());
            }
            if bodies.get(created.as_str()).is_some_and(|body| body["host"].is_string()) {
                times.push(began.elapsed().as_secs_f64() * 1e3);
                break;
            }
        }
    }
    Ok(percentiles(times))
}
