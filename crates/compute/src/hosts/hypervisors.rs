//! Hypervisors.

use super::{Host, all, liveness};
use crate::servers::Server;
use crate::{Ask, Compute, input};
use base::{Fault, Result};
use model::scheduler;
use rest::{Access, Call, Change, Method, Page, PageRequest, Reply, Route, Version};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;
use store::{Query, Reader, Stored};

pub const CHANGES: &[Change] = &[Change {
    since: Version(2, 28),
    operations: &["hypervisors:detail", "hypervisors:show"],
    request: None,
    response: Some(|body| each(body, cpu_info_as_text)),
}];

fn each(body: &mut Value, change: fn(&mut Value)) {
    if let Some(one) = body.get_mut("hypervisor") {
        change(one);
    }
    body.get_mut("hypervisors").and_then(Value::as_array_mut).into_iter().flatten().for_each(change);
}

/// Until 2.28 the processor's description was JSON within JSON.
fn cpu_info_as_text(hypervisor: &mut Value) {
    if let Some(info) = hypervisor.get_mut("cpu_info") {
        *info = json!(info.to_string());
    }
}

pub fn routes(state: &Arc<Compute>) -> Vec<Route> {
    let rule = |name| Access::Rule(name);
    let path = "/os-hypervisors";
    let get = Method::GET;
    vec![
        Route::new(state, get.clone(), path, "hypervisors:list", rule("os_compute_api:os-hypervisors:list"), 200, list),
        Route::new(
            state,
            get.clone(),
            "/os-hypervisors/detail",
            "hypervisors:detail",
            rule("os_compute_api:os-hypervisors:list-detail"),
            200,
            detail,
        ),
        Route::new(
            state,
            get.clone(),
            "/os-hypervisors/statistics",
            "hypervisors:statistics",
            rule("os_compute_api:os-hypervisors:statistics"),
            200,
            statistics,
        ),
        Route::new(
            state,
            get.clone(),
            "/os-hypervisors/{id}",
            "hypervisors:show",
            rule("os_compute_api:os-hypervisors:show"),
            200,
            show,
        ),
        Route::new(
            state,
            get.clone(),
            "/os-hypervisors/{id}/uptime",
            "hypervisors:uptime",
            rule("os_compute_api:os-hypervisors:uptime"),
            200,
            uptime,
        ),
        Route::new(
            state,
            get.clone(),
            "/os-hypervisors/{id}/search",
            "hypervisors:search",
            rule("os_compute_api:os-hypervisors:search"),
            200,
            search,
        )
        .until(2, 52),
        Route::new(
            state,
            get,
            "/os-hypervisors/{id}/servers",
            "hypervisors:servers",
            rule("os_compute_api:os-hypervisors:servers"),
            200,
            servers,
        )
        .until(2, 52),
    ]
}

/// A host with its use and the servers on it.
#[derive(Clone)]
struct Full {
    host: Stored<Host>,
    room: scheduler::Host,
    running: usize,
    /// Empty unless asked for.
    servers: Vec<(String, String)>,
    alive: bool,
}

fn load(reader: &mut Reader, state: &Compute, host: Stored<Host>, named: bool) -> Result<Full> {
    let alive = state.hosts.is_alive(&host.name);
    let room = host.room(reader, &state.options.ratios, alive)?;
    let on_it = Query::index("host", host.name.as_str());
    if !named {
        let running = reader.count::<Server>(on_it)?;
        return Ok(Full { host, room, running, servers: Vec::new(), alive });
    }
    let servers = reader.list::<Server>(on_it)?;
    let servers: Vec<_> = servers.iter().map(|server| (server.id.to_string(), server.instance_name())).collect();
    Ok(Full { host, room, running: servers.len(), servers, alive })
}

impl Full {
    fn id(&self, ask: &Ask) -> Value {
        if ask.version >= Version(2, 53) { json!(self.host.uuid) } else { json!(self.host.number) }
    }

    /// With what the host itself needs, as Nova counts it.
    fn memory_used(&self) -> u64 {
        self.room.memory_mib.used + 512
    }

    fn brief(&self, ask: &Ask) -> Value {
        json!({
            "id": self.id(ask),
            "hypervisor_hostname": self.host.name,
            "state": liveness(ask, self.alive && !self.host.forced_down),
            "status": if self.host.enabled { "enabled" } else { "disabled" },
        })
    }

    fn servers(&self) -> Value {
        json!(self.servers.iter().map(|(uuid, name)| json!({"uuid": uuid, "name": name})).collect::<Vec<_>>())
    }

    fn whole(&self, ask: &Ask) -> Value {
        let inventory = &self.host.inventory;
        let (disk_used, memory_used) = (self.room.disk_gib.used, self.memory_used());
        let service_id =
            if ask.version >= Version(2, 53) { json!(self.host.service_uuid) } else { json!(self.host.number) };
        let mut whole = self.brief(ask);
        let more = json!({
            "cpu_info": {"arch": inventory.arch, "model": inventory.cpu_model, "vendor": "", "features": [],
                "topology": {"cells": 1, "sockets": 1, "cores": inventory.vcpus, "threads": 1}},
            "current_workload": 0,
            "disk_available_least": inventory.disk_gib.saturating_sub(disk_used),
            "host_ip": inventory.address,
            "free_disk_gb": inventory.disk_gib as i64 - disk_used as i64,
            "free_ram_mb": inventory.memory_mib as i64 - memory_used as i64,
            "hypervisor_type": inventory.hypervisor_type,
            "hypervisor_version": inventory.hypervisor_version,
            "local_gb": inventory.disk_gib,
            "local_gb_used": disk_used,
            "memory_mb": inventory.memory_mib,
            "memory_mb_used": memory_used,
            "running_vms": self.running,
            "vcpus": inventory.vcpus,
            "vcpus_used": self.room.vcpus.used,
            "service": {"host": self.host.name, "id": service_id, "disabled_reason": self.host.disabled_reason},
        });
        if let (Some(map), Value::Object(more)) = (whole.as_object_mut(), more) {
            map.extend(more);
        }
        whole
    }
}

async fn select(state: &Arc<Compute>, ask: &Ask) -> Result<Page<Full>> {
    ask.enforce_own()?;
    let modern = ask.version >= Version(2, 53);
    ask.known_query(&["limit", "marker", "hypervisor_hostname_pattern", "with_servers"])?;
    let (state_in, named) = (state.clone(), with_servers(ask)?);
    if modern && !ask.query.has("hypervisor_hostname_pattern") {
        let request = PageRequest::read(&ask.query)?;
        return state.read(ask, move |reader, _| in_order(reader, &state_in, &request, named)).await;
    }
    let mut hosts = state
        .read(ask, move |reader, _| {
            all(reader)?.into_iter().map(|host| load(reader, &state_in, host, named)).collect::<Result<Vec<_>>>()
        })
        .await?;
    if let Some(pattern) = ask.query.get("hypervisor_hostname_pattern").filter(|_| modern) {
        hosts.retain(|full| full.host.name.contains(pattern));
        if hosts.is_empty() {
            return Err(Fault::not_found(format!("No hypervisor matching '{pattern}' could be found.")));
        }
    }
    if ask.version < Version(2, 33) {
        return Ok(Page { items: hosts, more: false });
    }
    let request = PageRequest::read(&ask.query)?;
    let by_uuid = |full: &Full| full.host.uuid.clone();
    if modern {
        hosts.sort_by_key(|full| full.host.number);
    }
    cut(hosts, &request, |full| if modern { by_uuid(full) } else { full.host.number.to_string() })
}

/// A page of all in the order of their numbers, which is that of their creation: no more than the page is read.
fn in_order(reader: &mut Reader, state: &Compute, request: &PageRequest, named: bool) -> Result<Page<Full>> {
    let mut query = Query::all().limit(request.limit + 1);
    if let Some(marker) = &request.marker {
        let host = reader.get_unique::<Host>("uuid", [marker])?;
        let host = host.ok_or_else(|| Fault::invalid(format!("marker [{marker}] not found")))?;
        query = query.after(host.name.as_str());
    }
    let mut hosts = reader.list::<Host>(query)?;
    let more = hosts.len() > request.limit;
    hosts.truncate(request.limit);
    let items = hosts.into_iter().map(|host| load(reader, state, host, named)).collect::<Result<Vec<_>>>()?;
    Ok(Page { items, more })
}

fn cut(hosts: Vec<Full>, request: &PageRequest, id: impl Fn(&Full) -> String) -> Result<Page<Full>> {
    let keyed: Vec<(String, Full)> = hosts.into_iter().map(|full| (id(&full), full)).collect();
    let page = Page::cut(keyed, request, |pair| pair.0.as_str())?;
    Ok(Page { items: page.items.into_iter().map(|pair| pair.1).collect(), more: page.more })
}

fn with_servers(ask: &Ask) -> Result<bool> {
    if ask.version < Version(2, 53) {
        return Ok(false);
    }
    ask.query
        .boolean("with_servers")
        .map(|with| with.unwrap_or(false))
        .map_err(|_| input::refuse("with_servers", &json!(ask.query.get("with_servers")), "it is not a boolean"))
}

fn reply(ask: &Ask, path: &str, page: Page<Full>, show: fn(&Full, &Ask) -> Value) -> Result<Reply> {
    let with = with_servers(ask)?;
    let shown = page.items.iter().map(|full| {
        let mut value = show(full, ask);
        if with && (!full.servers.is_empty() || ask.version >= Version(2, 75)) {
            value["servers"] = full.servers();
        }
        value
    });
    let mut body = json!({"hypervisors": shown.collect::<Vec<_>>()});
    if let Some(last) = page.items.last().filter(|_| page.more) {
        let marker = last.id(ask);
        let marker = marker.as_str().map_or_else(|| marker.to_string(), str::to_owned);
        body["hypervisors_links"] = ask.next_link(path, &marker);
    }
    ask.answer(CHANGES, 200, body)
}

async fn list(state: Arc<Compute>, call: Call) -> Result<Reply> {
    let ask = Ask::of(&call);
    let page = select(&state, &ask).await?;
    reply(&ask, "/os-hypervisors", page, Full::brief)
}

async fn detail(state: Arc<Compute>, call: Call) -> Result<Reply> {
    let ask = Ask::of(&call);
    let page = select(&state, &ask).await?;
    reply(&ask, "/os-hypervisors/detail", page, Full::whole)
}

async fn one(state: &Arc<Compute>, ask: &Ask) -> Result<Full> {
    ask.enforce_own()?;
    let (state_in, named) = (state.clone(), with_servers(ask)?);
    let found = state.read(ask, move |reader, ask| {
        let id = ask.param("id");
        let wanted = match ask.version >= Version(2, 53) {
            true => reader.get_unique::<Host>("uuid", [id])?,
            false => all(reader)?.into_iter().find(|host| host.number.to_string() == id),
        };
        wanted.map(|host| load(reader, &state_in, host, named)).transpose()
    });
    if ask.version >= Version(2, 53) && !base::is_uuid(ask.param("id")) {
        return Err(Fault::invalid(format!("Invalid uuid {}", ask.param("id"))));
    }
    found
        .await?
        .ok_or_else(|| Fault::not_found(format!("Hypervisor with ID '{}' could not be found.", ask.param("id"))))
}

async fn show(state: Arc<Compute>, call: Call) -> Result<Reply> {
    let ask = Ask::of(&call);
    let full = one(&state, &ask).await?;
    let mut whole = full.whole(&ask);
    if with_servers(&ask)? && (!full.servers.is_empty() || ask.version >= Version(2, 75)) {
        whole["servers"] = full.servers();
    }
    ask.answer(CHANGES, 200, json!({"hypervisor": whole}))
}

async fn uptime(state: Arc<Compute>, call: Call) -> Result<Reply> {
    let ask = Ask::of(&call);
    let full = one(&state, &ask).await?;
    if !full.alive {
        return Err(Fault::invalid(format!("Compute service of {} is unavailable at this time.", full.host.name)));
    }
    let mut brief = full.brief(&ask);
    // The host says when it booted only by its boot id; since when it is known is what can be told.
    brief["uptime"] = json!(format!("known since {}", full.host.created.iso_seconds()));
    Reply::json(200, &json!({"hypervisor": brief}))
}

async fn matching(state: &Arc<Compute>, ask: &Ask) -> Result<Vec<Full>> {
    ask.enforce_own()?;
    let state_in = state.clone();
    let hosts = state
        .read(ask, move |reader, ask| {
            let matching = all(reader)?.into_iter().filter(|host| host.name.contains(ask.param("id")));
            matching.map(|host| load(reader, &state_in, host, true)).collect::<Result<Vec<_>>>()
        })
        .await?;
    if hosts.is_empty() {
        return Err(Fault::not_found(format!("No hypervisor matching '{}' could be found.", ask.param("id"))));
    }
    Ok(hosts)
}

async fn search(state: Arc<Compute>, call: Call) -> Result<Reply> {
    let ask = Ask::of(&call);
    let hosts = matching(&state, &ask).await?;
    Reply::json(200, &json!({"hypervisors": hosts.iter().map(|full| full.brief(&ask)).collect::<Vec<_>>()}))
}

async fn servers(state: Arc<Compute>, call: Call) -> Result<Reply> {
    let ask = Ask::of(&call);
    let hosts = matching(&state, &ask).await?;
    let shown = hosts.iter().map(|full| {
        let mut brief = full.brief(&ask);
        if !full.servers.is_empty() {
            brief["servers"] = full.servers();
        }
        brief
    });
    Reply::json(200, &json!({"hypervisors": shown.collect::<Vec<_>>()}))
}

async fn statistics(state: Arc<Compute>, call: Call) -> Result<Reply> {
    let ask = Ask::of(&call);
    ask.enforce_own()?;
    let state_in = state.clone();
    let sums = state
        .read(&ask, move |reader, _| {
            let rooms = state_in.rooms.all(&state_in, reader)?.into_iter().map(|room| (room.name.clone(), room));
            let mut rooms: BTreeMap<_, _> = rooms.collect();
            let mut sums = Sums(SUMS.iter().map(|name| (*name, 0)).collect());
            for host in all(reader)? {
                let Some(room) = rooms.remove(&host.name) else { continue };
                let running = reader.count::<Server>(Query::index("host", host.name.as_str()))?;
                sums.add(&Full { alive: room.alive, host, room, running, servers: Vec::new() });
            }
            Ok(sums)
        })
        .await?;
    Reply::json(200, &json!({"hypervisor_statistics": sums.0}))
}

/// Of a thousand hosts, each number alone: nothing of them is drawn.
struct Sums(BTreeMap<&'static str, i64>);

const SUMS: &[&str] = &[
    "count",
    "vcpus",
    "vcpus_used",
    "memory_mb",
    "memory_mb_used",
    "local_gb",
    "local_gb_used",
    "free_ram_mb",
    "free_disk_gb",
    "current_workload",
    "running_vms",
    "disk_available_least",
];

impl Sums {
    fn add(&mut self, full: &Full) {
        let inventory = &full.host.inventory;
        let (disk, disk_used) = (inventory.disk_gib as i64, full.room.disk_gib.used as i64);
        let (memory, memory_used) = (inventory.memory_mib as i64, full.memory_used() as i64);
        for (name, sum) in &mut self.0 {
            *sum += match *name {
                "count" => 1,
                "vcpus" => i64::from(inventory.vcpus),
                "vcpus_used" => full.room.vcpus.used as i64,
                "memory_mb" => memory,
                "memory_mb_used" => memory_used,
                "local_gb" => disk,
                "local_gb_used" => disk_used,
                "free_ram_mb" => memory - memory_used,
                "free_disk_gb" => disk - disk_used,
                "running_vms" => full.running as i64,
                "disk_available_least" => (disk - disk_used).max(0),
                _ => 0,
            };
        }
    }
}
