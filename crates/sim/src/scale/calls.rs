//! The calls that are measured, each by itself, one after the other.
//!
//! A page has the same size in every cloud, so that the same work is compared. What has one row for each host or server
//! of the cloud, whatever it is asked, is marked as such: no ratio can hold for it, the bound on its time does.

use super::client::{Client, credentials};
use anyhow::{Context, Result};
use http::Method;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

/// How often each call is made: of 300 the 99th percentile is the fourth from the top, so that no pause of the disk or of
/// a neighbour is taken for it. A read is made more often, as long as all of them have not taken [`SPENT`].
const WRITES: usize = 300;
const READS: usize = 1_000;
const SPENT: Duration = Duration::from_secs(3);

/// A call with its percentiles in milliseconds.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Row {
    pub what: String,
    pub p50: f64,
    pub p99: f64,
    /// Its answer grows with the cloud.
    pub grows: bool,
}

/// What there is to ask for.
pub(super) struct Known {
    /// In a project of the usual size.
    pub own: Client,
    /// Of its project.
    pub network: String,
    pub group: String,
    /// As the body of `POST /servers` for so many.
    pub server: Box<dyn Fn(usize) -> Value + Send + Sync>,
    /// Ids that were there before, one project's.
    pub servers: Vec<String>,
    pub host: String,
}

/// The least of the times that so many of all do not exceed.
pub(super) fn percentiles(mut times: Vec<f64>) -> (f64, f64) {
    times.sort_by(f64::total_cmp);
    let at = |part: f64| times.get(((times.len() as f64 * part).ceil() as usize).saturating_sub(1));
    (at(0.5).copied().unwrap_or(0.0), at(0.99).copied().unwrap_or(0.0))
}

#[derive(Default)]
struct Table(Vec<Row>);

impl Table {
    /// Makes a call again and again; the answers of what changes something. What the calls before have left to do (views
    /// to be brought up, reports to be written) is waited for: it is measured along with those, not with these.
    async fn time(
        &mut self,
        client: &Client,
        what: &str,
        turns: usize,
        call: impl Fn(usize) -> (Method, String, Value),
    ) -> Result<Vec<Value>> {
        let (mut times, mut answers) = (Vec::with_capacity(turns), Vec::new());
        super::quiet().await;
        let first = Instant::now();
        for turn in 0..turns {
            let (method, path, body) = call(turn);
            let keep = method != Method::GET;
            if !keep && turn >= WRITES && first.elapsed() > SPENT {
                break;
            }
            let began = Instant::now();
            let (_, answer) = client.bytes(method, &path, body).await?;
            times.push(began.elapsed().as_secs_f64() * 1e3);
            if keep {
                answers.push(serde_json::from_slice(&answer).unwrap_or(Value::Null));
            }
        }
        let (p50, p99) = percentiles(times);
        eprintln!("{what}: p50 {p50:.2} ms, p99 {p99:.2} ms");
        self.0.push(Row { what: what.to_owned(), p50, p99, grows: false });
        Ok(answers)
    }

    async fn get(&mut self, client: &Client, what: &str, path: impl Fn(usize) -> String) -> Result<()> {
        self.time(client, what, READS, |turn| (Method::GET, path(turn), Value::Null)).await.map(drop)
    }

    /// An answer that grows with the cloud.
    async fn whole(&mut self, client: &Client, path: &str) -> Result<()> {
        self.time(client, &format!("GET {path}"), WRITES, |_| (Method::GET, path.to_owned(), Value::Null)).await?;
        self.grows()
    }

    /// The last call looks at each server of the cloud, or answers with a row for each host.
    fn grows(&mut self) -> Result<()> {
        self.0.last_mut().context("a row was made")?.grows = true;
        Ok(())
    }
}

fn ids(answers: &[Value], key: &str) -> Result<Vec<String>> {
    let id = |answer: &Value| answer[key]["id"].as_str().map(str::to_owned).context("an answer has no id");
    answers.iter().map(id).collect()
}

pub(super) async fn all(known: &Known) -> Result<Vec<Row>> {
    let mut table = Table::default();
    servers(&mut table, known).await?;
    networks(&mut table, known).await?;
    rest(&mut table, known).await?;
    Ok(table.0)
}

async fn servers(table: &mut Table, known: &Known) -> Result<()> {
    let (client, server) = (&known.own, &known.server);
    let path = "/compute/v2.1/servers";
    let post = |_| (Method::POST, path.to_owned(), server(1));
    let made = ids(&table.time(client, "POST servers", WRITES, post).await?, "server")?;
    let dry = |_| (Method::POST, format!("{path}?dry_run=true"), server(1));
    table.time(client, "POST servers?dry_run=true", WRITES, dry).await?;
    let of = |turn: usize, below: &str| format!("{path}/{}{below}", made[turn % made.len()]);
    table.get(client, "GET servers/ID", |turn| of(turn, "")).await?;
    let name = |turn| (Method::PUT, of(turn, ""), json!({"server": {"name": format!("other-{turn}")}}));
    table.time(client, "PUT servers/ID", WRITES, name).await?;
    let note = |turn| (Method::POST, of(turn, "/metadata"), json!({"metadata": {"turn": turn.to_string()}}));
    table.time(client, "POST servers/ID/metadata", WRITES, note).await?;
    let act = |turn, what: &str| (Method::POST, of(turn, "/action"), json!({what: null}));
    table.time(client, "POST servers/ID/action pause", WRITES, |turn| act(turn, "pause")).await?;
    for (what, below) in [
        ("GET servers/ID/os-interface", "/os-interface"),
        ("GET servers/ID/os-instance-actions", "/os-instance-actions"),
    ] {
        table.get(client, what, |turn| of(turn, below)).await?;
    }
    table.time(client, "POST servers/ID/action unpause", WRITES, |turn| act(turn, "unpause")).await?;
    let explain = |turn: usize| format!("/nubo/v1/explain/server/{}", known.servers[turn % known.servers.len()]);
    table.get(client, "GET explain/server/ID", explain).await?;
    for query in ["limit=100", "all_tenants=1&limit=100", "all_tenants=1&limit=100&status=ACTIVE"] {
        table.get(client, &format!("GET servers?{query}"), |_| format!("{path}?{query}")).await?;
        table.get(client, &format!("GET servers/detail?{query}"), |_| format!("{path}/detail?{query}")).await?;
    }
    let marker = |turn: usize| format!("{path}/detail?limit=20&marker={}", known.servers[turn % 50 + 100]);
    table.get(client, "GET servers/detail?limit=20&marker=ID", marker).await?;
    let named = |turn: usize| format!("{path}/detail?all_tenants=1&name=other-{turn}$&limit=10");
    table.get(client, "GET servers/detail?all_tenants=1&name=PATTERN", named).await?;
    table.grows()?;
    table.time(client, "DELETE servers/ID", WRITES, |turn| (Method::DELETE, of(turn, ""), Value::Null)).await?;
    Ok(())
}

async fn networks(table: &mut Table, known: &Known) -> Result<()> {
    let client = &known.own;
    let path = "/network/v2.0";
    let port = json!({"port": {"network_id": known.network, "name": "by itself"}});
    let post = |_| (Method::POST, format!("{path}/ports"), port.clone());
    let ports = ids(&table.time(client, "POST ports", WRITES, post).await?, "port")?;
    let of = |turn: usize| format!("{path}/ports/{}", ports[turn % ports.len()]);
    table.get(client, "GET ports/ID", of).await?;
    let name = |turn| (Method::PUT, of(turn), json!({"port": {"name": "another"}}));
    table.time(client, "PUT ports/ID", WRITES, name).await?;
    let device = |turn: usize| format!("{path}/ports?device_id={}", known.servers[turn % known.servers.len()]);
    table.get(client, "GET ports?device_id=ID", device).await?;
    table.get(client, "GET ports?limit=100", |_| format!("{path}/ports?limit=100")).await?;
    let mine = format!("{path}/ports?limit=100&project_id={}", client.project);
    table.get(client, "GET ports?limit=100&project_id=ID", |_| mine.clone()).await?;
    table.time(client, "DELETE ports/ID", WRITES, |turn| (Method::DELETE, of(turn), Value::Null)).await?;
    let rule = |turn: usize| {
        json!({"security_group_rule": {"security_group_id": known.group, "direction": "ingress", "ethertype": "IPv4",
            "protocol": "tcp", "port_range_min": turn + 1, "port_range_max": turn + 1}})
    };
    let post = |turn| (Method::POST, format!("{path}/security-group-rules"), rule(turn));
    let rules = ids(&table.time(client, "POST security-group-rules", WRITES, post).await?, "security_group_rule")?;
    let gone = |turn: usize| (Method::DELETE, format!("{path}/security-group-rules/{}", rules[turn]), Value::Null);
    table.time(client, "DELETE security-group-rules/ID", rules.len(), gone).await?;
    for query in ["networks?limit=2", "subnets?limit=2", "security-groups?limit=2"] {
        table.get(client, &format!("GET {query}"), |_| format!("{path}/{query}")).await?;
    }
    table.get(client, "GET networks/ID", |_| format!("{path}/networks/{}", known.network)).await?;
    table.get(client, "GET network/quotas/ID/details", |_| format!("{path}/quotas/{}/details", client.project)).await
}

async fn rest(table: &mut Table, known: &Known) -> Result<()> {
    let client = &known.own;
    let compute = "/compute/v2.1";
    table.get(client, "GET auth/tokens", |_| "/identity/v3/auth/tokens".to_owned()).await?;
    let login = credentials(Some(&client.project));
    let post = |_| (Method::POST, "/identity/v3/auth/tokens".to_owned(), login.clone());
    table.time(client, "POST auth/tokens", WRITES, post).await?;
    for query in [
        "os-hypervisors?limit=10".to_owned(),
        "os-hypervisors/detail?limit=10".to_owned(),
        format!("os-services?host={}", known.host),
        "flavors/detail".to_owned(),
        "limits".to_owned(),
    ] {
        table.get(client, &format!("GET {query}"), |_| format!("{compute}/{query}")).await?;
    }
    let project = &client.project;
    for (what, path) in [
        ("GET os-quota-sets/ID", format!("{compute}/os-quota-sets/{project}")),
        ("GET os-quota-sets/ID/detail", format!("{compute}/os-quota-sets/{project}/detail")),
        ("GET os-simple-tenant-usage/ID?limit=100", format!("{compute}/os-simple-tenant-usage/{project}?limit=100")),
        ("GET images?limit=10", "/image/v2/images?limit=10".to_owned()),
        ("GET volumes/detail?limit=10", format!("/volume/v3/{project}/volumes/detail?limit=10")),
        (
            "GET volumes/detail?all_tenants=1&limit=10",
            format!("/volume/v3/{project}/volumes/detail?all_tenants=1&limit=10"),
        ),
        ("GET volume/os-quota-sets/ID?usage=true", format!("/volume/v3/{project}/os-quota-sets/{project}?usage=true")),
        ("GET projects/ID", format!("/identity/v3/projects/{project}")),
        ("GET explain/host/ID", format!("/nubo/v1/explain/host/{}", known.host)),
    ] {
        table.get(client, what, |_| path.clone()).await?;
    }
    for path in ["os-services", "os-hypervisors/statistics", "os-simple-tenant-usage"] {
        table.whole(client, &format!("{compute}/{path}")).await?;
    }
    table.whole(client, "/nubo/v1/status").await
}
