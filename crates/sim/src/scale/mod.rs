//! How control behaves with many hosts and servers: real time, a real store on disk, simulated hosts in one process.
//!
//! Owns a measurement, not a test: it runs a small cloud and a large one, each in a process of its own, and holds the
//! second against the first. See docs/bench.md. Servers stand in projects of [`PROJECT`] at most, each with a network
//! of its own and the default security group, as tenants do; `together` puts all of them into one.

mod bounds;
mod calls;
mod client;
mod memory;

use crate::control_life::ADMIN_PASSWORD;
use anyhow::{Context, Result, bail};
use base::Env;
use calls::{Known, percentiles};
use client::Client;
use control::{Bootstrap, Cloud, CloudOptions};
use http::Method;
use memory::resident_mib;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use simhost::SimHost;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};
use store::Event;

pub use bounds::{compare, print};
pub use calls::Row;

/// Servers of one project.
const PROJECT: usize = 200;
/// Servers of one request.
const BATCH: usize = 100;
/// One volume for so many servers.
const VOLUME: usize = 20;

/// A cloud to be measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shape {
    pub hosts: usize,
    pub servers: usize,
    /// All servers in one project, on one network, in one security group.
    pub together: bool,
}

#[derive(Debug, Serialize, Deserialize)]
pub struct Measured {
    pub shape: Shape,
    pub rows: Vec<Row>,
    /// From one commit that gives a server its host to the next, of many that wait: half, 99 of 100, and all together
    /// by their number, in milliseconds.
    pub place: (f64, f64, f64),
    pub fill_s: f64,
    pub memory: memory::Memory,
}

/// Fills a cloud and measures it.
pub fn measure(shape: Shape) -> Result<Measured> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    // Hosts are no part of control: a call does not queue behind them, it shares the processors with them.
    let elsewhere = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let folder = tempfile::tempdir()?;
    let measured = runtime.block_on(async {
        let cloud = open(folder.path()).await?;
        let start_mib = resident_mib();
        let hosts = connect(&cloud, shape.hosts, elsewhere.handle());
        cloud.wait_hosts(shape.hosts).await;
        let began = Instant::now();
        let known = fill(&cloud, shape).await?;
        let fill_s = began.elapsed().as_secs_f64();
        eprintln!("{} hosts, {} servers: ACTIVE after {fill_s:.1} s", shape.hosts, shape.servers);
        quiet().await;
        let full_mib = resident_mib();
        let rows = calls::all(&known).await?;
        let place = placing(&known).await?;
        read_all(&known.own).await?;
        quiet().await;
        let memory = memory::Memory::now(start_mib, full_mib, &hosts);
        Ok(Measured { shape, rows, place, fill_s, memory })
    });
    elsewhere.shutdown_background();
    measured
}

async fn open(folder: &std::path::Path) -> Result<Cloud> {
    let bootstrap = Bootstrap {
        cloud_id: "0a1b2c3d".into(),
        admin_password: ADMIN_PASSWORD.into(),
        demo_password: "demo-password".into(),
        secret_keys: vec!["YSBrZXkgZm9yIHRlc3RzLCBvZiAzMiBieXRlcyAuLi4=".into()],
    };
    let options = CloudOptions {
        store_url: format!("sqlite:{}", folder.join("nubo.db").display()),
        public_url: "http://cloud".into(),
        images: folder.join("images"),
        policy: None,
        bcrypt_rounds: 4,
        image_format_enforcement: true,
        image_import: Default::default(),
        image_protections: None,
        image_stores: Default::default(),
        image_cache: None,
        image_default_store: None,
        compliance: Default::default(),
        limit_model: Default::default(),
        federation: Default::default(),
        directories: None,
        token_provider: Default::default(),
        auth_methods: Default::default(),
        login_limit: Default::default(),
        bootstrap,
        masquerade: None,
        history_retention_s: control::HISTORY_RETENTION_S,
        trash_retention_s: 0,
        reclaim_instance_interval_s: 0,
        deadlines: Default::default(),
    };
    Cloud::open(options, Env::system()).await.map_err(|fault| anyhow::anyhow!(fault.chain()))
}

fn connect(cloud: &Cloud, hosts: usize, runtime: &tokio::runtime::Handle) -> Vec<Arc<SimHost>> {
    let one = |n: usize| {
        let mut options = simhost::Options::new(host_name(n).as_str());
        options.memory_mib = 1 << 20;
        let host = Arc::new(SimHost::new(Env::system(), options));
        runtime.spawn(control::host(host.clone(), cloud.link()));
        host
    };
    (1..=hosts).map(one).collect()
}

fn host_name(n: usize) -> String {
    format!("sim-{n:05}")
}

/// Makes projects with their networks, servers and volumes, and waits until every server is ACTIVE.
async fn fill(cloud: &Cloud, shape: Shape) -> Result<Known> {
    let admin = Client::login(cloud, None).await?;
    let flavor = json!({"flavor": {"name": "tiny", "ram": 64, "vcpus": 1, "disk": 1}});
    let flavor = admin.make("/compute/v2.1/flavors", "flavor", flavor).await?;
    let image = json!({"name": "tiny", "disk_format": "raw", "container_format": "bare", "visibility": "public"});
    let image = admin.make("/image/v2/images", "", image).await?;
    admin.ok(Method::PUT, &format!("/image/v2/images/{image}/file"), json!("a few bytes of nothing")).await?;
    let roles = admin.ok(Method::GET, "/identity/v3/roles?name=admin", Value::Null).await?;
    let role = roles["roles"][0]["id"].as_str().context("no role is called admin")?.to_owned();
    let size = if shape.together { shape.servers } else { PROJECT };
    let mut first = None;
    let mut left = shape.servers;
    while left > 0 {
        let count = left.min(size);
        let known = project(&admin, &role, (flavor.clone(), image.clone()), (left, count)).await?;
        first.get_or_insert(known);
        left -= count;
    }
    wait_active(cloud, shape.servers).await?;
    let mut known = first.context("a cloud has at least one server")?;
    let page = known.own.ok(Method::GET, "/compute/v2.1/servers?limit=200", Value::Null).await?;
    let listed = page["servers"].as_array().into_iter().flatten();
    known.servers = listed.filter_map(|server| Some(server["id"].as_str()?.to_owned())).collect();
    Ok(known)
}

/// One project with its network, `count` servers, and its volumes.
async fn project(
    admin: &Client,
    role: &str,
    made_of: (String, String),
    (number, count): (usize, usize),
) -> Result<Known> {
    let name = format!("project-{number}");
    let id = admin.make("/identity/v3/projects", "project", json!({"project": {"name": name}})).await?;
    let grant = format!("/identity/v3/projects/{id}/users/{}/roles/{role}", admin.user);
    admin.ok(Method::PUT, &grant, Value::Null).await?;
    let own = Client::login(&admin.cloud, Some(&id)).await?;
    let no_limit = json!({"quota_set": {"instances": -1, "cores": -1, "ram": -1}});
    own.ok(Method::PUT, &format!("/compute/v2.1/os-quota-sets/{id}"), no_limit).await?;
    own.ok(Method::PUT, &format!("/network/v2.0/quotas/{id}"), json!({"quota": {"port": -1, "security_group_rule": -1}})).await?;
    let volumes = json!({"quota_set": {"volumes": -1, "gigabytes": -1}});
    own.ok(Method::PUT, &format!("/volume/v3/{id}/os-quota-sets/{id}"), volumes).await?;
    let network = own.make("/network/v2.0/networks", "network", json!({"network": {"name": "wide"}})).await?;
    let subnet = json!({"subnet": {"network_id": network, "ip_version": 4, "cidr": "10.0.0.0/12"}});
    own.ok(Method::POST, "/network/v2.0/subnets", subnet).await?;
    let (on, (flavor, image)) = (network.clone(), made_of);
    let server = move |count: usize| {
        json!({"server": {"name": "scale", "imageRef": image, "flavorRef": flavor, "min_count": count,
            "max_count": count, "networks": [{"uuid": on}]}})
    };
    for n in 0..count.div_ceil(BATCH) {
        own.ok(Method::POST, "/compute/v2.1/servers", server(BATCH.min(count - n * BATCH))).await?;
    }
    for n in 0..count.div_ceil(VOLUME) {
        let volume = json!({"volume": {"name": format!("volume-{n}"), "size": 1}});
        own.ok(Method::POST, &format!("/volume/v3/{id}/volumes"), volume).await?;
    }
    let groups = own.ok(Method::GET, &format!("/network/v2.0/security-groups?project_id={id}"), Value::Null).await?;
    let group = groups["security_groups"][0]["id"].as_str().context("no default security group")?.to_owned();
    Ok(Known { own, network, group, server: Box::new(server), servers: Vec::new(), host: host_name(1) })
}

/// Lists every server once, page by page: what a list keeps is part of what control holds.
async fn read_all(client: &Client) -> Result<()> {
    let mut marker = String::new();
    loop {
        let path = format!("/compute/v2.1/servers/detail?all_tenants=1&limit=1000{marker}");
        let page = client.ok(Method::GET, &path, Value::Null).await?;
        let Some(last) = page["servers"].as_array().and_then(|page| page.last()) else { return Ok(()) };
        marker = format!("&marker={}", last["id"].as_str().context("a server has no id")?);
    }
}

/// Waits until so many servers are ACTIVE; fails when nothing moves for a minute.
async fn wait_active(cloud: &Cloud, servers: usize) -> Result<()> {
    let (mut active, mut moved) = (0, Instant::now());
    while active < servers {
        let link = cloud.link();
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

/// Waits until the process has nothing to do, so that the one measurement is not the work of the one before: views are
/// brought up and reports written after the call that made them necessary.
async fn quiet() {
    for _ in 0..200 {
        let before = memory::processor_s();
        tokio::time::sleep(Duration::from_millis(300)).await;
        if memory::processor_s() - before < 0.04 {
            return;
        }
    }
    eprintln!("the process does not come to rest");
}

/// As much of `server_observed` as is needed here.
#[derive(Clone, Serialize, Deserialize)]
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

/// How long the loop takes for each of many servers that wait for a host: from commit to commit.
async fn placing(known: &Known) -> Result<(f64, f64, f64)> {
    let mut watch = known.own.cloud.link().store.watch();
    let (mut times, mut spent) = (Vec::new(), 0.0);
    for _ in 0..5 {
        known.own.ok(Method::POST, "/compute/v2.1/servers", (known.server)(BATCH)).await?;
        let (mut waiting, mut last) = (BTreeSet::new(), Instant::now());
        loop {
            let Some(Event::Revision(revision)) = watch.next().await else { bail!("the watch was lost") };
            for change in revision.changes.iter().filter(|change| change.kind == "server") {
                let body: Value = serde_json::from_str(change.body.as_deref().unwrap_or("null"))?;
                if body["host"].is_null() && !change.existed {
                    waiting.insert(change.id.clone());
                    last = Instant::now();
                } else if body["host"].is_string() && waiting.remove(&change.id) {
                    times.push(last.elapsed().as_secs_f64() * 1e3);
                    spent += last.elapsed().as_secs_f64() * 1e3;
                    last = Instant::now();
                }
            }
            if waiting.is_empty() && !times.is_empty() && times.len().is_multiple_of(BATCH) {
                break;
            }
        }
    }
    let mean = spent / times.len() as f64;
    let (p50, p99) = percentiles(times);
    Ok((p50, p99, mean))
}
