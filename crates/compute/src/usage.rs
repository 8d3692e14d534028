//! What a project has used: hours of servers, their memory, processors and disks, within a span of time.

use crate::servers::{self, DeletedServer, Pages, Server, ServerObserved};
use crate::{Ask, Compute};
use base::{Fault, Result, Timestamp};
use policy::Target;
use rest::{Access, Call, Method, Reply, Route, Version};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;
use store::{Query, Stored};
use tokio::sync::OwnedMutexGuard;

/// A server as far as use is concerned.
struct Lived<'a> {
    server: &'a Server,
    seen: Option<&'a ServerObserved>,
    began: Timestamp,
    ended: Option<Timestamp>,
}

impl Lived<'_> {
    fn state(&self) -> &'static str {
        if self.ended.is_some() { "terminated" } else { servers::state_of(self.server, self.seen).vm_state }
    }
}

pub fn routes(state: &Arc<Compute>) -> Vec<Route> {
    let (list_rule, show_rule) = (
        Access::Rule("os_compute_api:os-simple-tenant-usage:list"),
        Access::Rule("os_compute_api:os-simple-tenant-usage:show"),
    );
    vec![
        Route::new(state, Method::GET, "/os-simple-tenant-usage", "usage:list", list_rule, 200, list),
        Route::new(state, Method::GET, "/os-simple-tenant-usage/{project_id}", "usage:show", show_rule, 200, show),
    ]
}

/// The span asked for; the last four weeks otherwise.
fn span(ask: &Ask) -> Result<(Timestamp, Timestamp)> {
    let read = |key: &str| -> Result<Option<Timestamp>> {
        let Some(text) = ask.query.get(key).filter(|text| !text.is_empty()) else { return Ok(None) };
        let refused = || Fault::invalid(format!("Datetime is in invalid format: {text}"));
        let text = if text.len() == 10 { format!("{text}T00:00:00") } else { text.to_owned() };
        Timestamp::parse(&text).map(Some).ok_or_else(refused)
    };
    let end = read("end")?.unwrap_or(ask.now);
    let begin = read("start")?.unwrap_or_else(|| ask.now.plus_s(-28 * 24 * 3600));
    if begin >= end {
        return Err(Fault::invalid("Invalid start time. The start time cannot occur after the end time."));
    }
    // An end in the future counts a living server's hours until then, as in Nova: tools expect it.
    Ok((begin, end))
}

/// What is looked through: the book, where nothing needs to be parsed, and what has been deleted.
struct Known {
    pages: OwnedMutexGuard<Pages>,
    gone: Vec<Stored<DeletedServer>>,
}

impl Known {
    async fn of(state: &Arc<Compute>, project: Option<&str>) -> Result<Known> {
        let query = project.map_or_else(Query::all, Query::project);
        let gone = state.store.list::<DeletedServer>(query).await?;
        Ok(Known { gone, pages: state.book.open(state).await? })
    }

    fn lived(&self, project: Option<&str>) -> Vec<Lived<'_>> {
        let here = self.pages.in_order(project, None, false).filter_map(|entry| {
            let seen = entry.observed.as_ref().map(|seen| &seen.doc);
            Some(Lived { server: &entry.server, began: seen?.launched_at?, seen, ended: None })
        });
        let gone = self.gone.iter().filter_map(|gone| {
            let seen = gone.observed.as_ref();
            Some(Lived { server: &gone.server, began: seen?.launched_at?, seen, ended: Some(gone.deleted) })
        });
        here.chain(gone).collect()
    }
}

fn hours(lived: &Lived<'_>, begin: Timestamp, end: Timestamp) -> f64 {
    let from = lived.began.max(begin);
    let until = lived.ended.unwrap_or(end).min(end);
    (until.ms_since(from).max(0) as f64) / 3_600_000.0
}

fn usage(ask: &Ask, project: &str, lived: &[&Lived<'_>], (begin, end): (Timestamp, Timestamp), detailed: bool) -> Value {
    let sum =
        |weight: fn(&Server) -> f64| lived.iter().map(|it| hours(it, begin, end) * weight(it.server)).sum::<f64>();
    let disk = |server: &Server| (server.flavor.disk_gib + server.flavor.ephemeral_gib) as f64;
    let mut usage = json!({
        "tenant_id": project,
        "start": begin.iso_naive(),
        "stop": end.iso_naive(),
        "total_hours": sum(|_| 1.0),
        "total_vcpus_usage": sum(|server| f64::from(server.flavor.vcpus)),
        "total_memory_mb_usage": sum(|server| server.flavor.ram_mib as f64),
        "total_local_gb_usage": sum(disk),
    });
    if detailed {
        let one = |it: &&Lived<'_>| {
            json!({
                "instance_id": it.server.id,
                "name": it.server.name,
                "tenant_id": it.server.project_id,
                "flavor": it.server.flavor.name,
                "vcpus": it.server.flavor.vcpus,
                "memory_mb": it.server.flavor.ram_mib,
                "local_gb": disk(it.server),
                "hours": hours(it, begin, end),
                "started_at": it.began.iso_naive(),
                "ended_at": it.ended.map(Timestamp::iso_naive),
                "state": it.state(),
                "uptime": it.ended.unwrap_or(ask.now).ms_since(it.began) / 1000,
            })
        };
        usage["server_usages"] = json!(lived.iter().map(one).collect::<Vec<_>>());
    }
    usage
}

async fn list(state: Arc<Compute>, call: Call) -> Result<Reply> {
    let ask = Ask::of(&call);
    ask.enforce_own()?;
    let span = span(&ask)?;
    let detailed = ask.query.get("detailed") == Some("1");
    let known = Known::of(&state, None).await?;
    let lived = known.lived(None);
    let mut projects: BTreeMap<&str, Vec<&Lived<'_>>> = BTreeMap::new();
    for one in lived.iter().filter(|one| hours(one, span.0, span.1) > 0.0) {
        projects.entry(one.server.project_id.as_str()).or_default().push(one);
    }
    let usages: Vec<_> = projects.iter().map(|(project, lived)| usage(&ask, project, lived, span, detailed)).collect();
    Reply::json(200, &json!({"tenant_usages": usages}))
}

async fn show(state: Arc<Compute>, call: Call) -> Result<Reply> {
    let ask = Ask::of(&call);
    let project = ask.param("project_id").to_owned();
    ask.enforce(&Target::project(project.as_str()))?;
    let span = span(&ask)?;
    let known = Known::of(&state, Some(&project)).await?;
    let lived = known.lived(Some(&project));
    let mut counted: Vec<&Lived<'_>> = lived.iter().filter(|one| hours(one, span.0, span.1) > 0.0).collect();
    if counted.is_empty() {
        return Reply::json(200, &json!({"tenant_usage": {}}));
    }
    counted.sort_by(|a, b| a.server.id.cmp(&b.server.id));
    if ask.version < Version(2, 40) {
        return Reply::json(200, &json!({"tenant_usage": usage(&ask, &project, &counted, span, true)}));
    }
    let request = rest::PageRequest::read(&ask.query)?;
    let page = rest::Page::cut(counted, &request, |one| one.server.id.as_str())?;
    let mut body = json!({"tenant_usage": usage(&ask, &project, &page.items, span, true)});
    if let Some(last) = page.items.last().filter(|_| page.more) {
        body["tenant_usage_links"] = ask.next_link(&format!("/os-simple-tenant-usage/{project}"), &last.server.id);
    }
    Reply::json(200, &body)
}
