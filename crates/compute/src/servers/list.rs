//! Lists of servers: filters, order, pages.

use super::book::{Entry, Pages};
use super::document::{DeletedServer, Server, ServerObserved, state_of};
use super::ops;
use super::render::{self, Parts, View, render};
use crate::input::time;
use crate::{Ask, Compute};
use base::{Fault, Result, ServerId, Timestamp};
use model::server::State;
use regex_automata::nfa::thompson;
use regex_automata::nfa::thompson::pikevm::{Cache, PikeVM};
use rest::{Call, PageRequest, Reply, Version};
use std::cmp::Ordering;
use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use store::{Query, Stored};

/// Parameters that every version takes.
const KNOWN: &[&str] = &[
    "limit",
    "marker",
    "sort_key",
    "sort_dir",
    "all_tenants",
    "project_id",
    "tenant_id",
    "user_id",
    "name",
    "display_name",
    "status",
    "image",
    "image_ref",
    "flavor",
    "host",
    "hostname",
    "node",
    "ip",
    "ip6",
    "deleted",
    "changes-since",
    "changes-before",
    "reservation_id",
    "uuid",
    "key_name",
    "config_drive",
    "availability_zone",
    "vm_state",
    "task_state",
    "power_state",
    "description",
    "display_description",
    "launch_index",
    "locked",
    "tags",
    "tags-any",
    "not-tags",
    "not-tags-any",
    "created_at",
    "launched_at",
    "terminated_at",
    "progress",
    "access_ip_v4",
    "access_ip_v6",
    "auto_disk_config",
    "kernel_id",
    "ramdisk_id",
    "root_device_name",
    "instance_type_id",
    "cleaned",
    "disable_terminate",
    "ephemeral_gb",
    "internal_id",
    "memory_mb",
    "power_state",
    "root_gb",
    "vcpus",
    "shutdown_terminate",
    "updated_at",
    "block_device_mapping",
    "services",
    "metadata",
    "system_metadata",
    "info_cache",
    "security_groups",
    "pci_devices",
    "soft_deleted",
];

/// Filters that are not for administrators alone.
fn for_all(ask: &Ask, name: &str) -> bool {
    match name {
        "reservation_id" | "name" | "status" | "image" | "flavor" | "ip" | "changes-since" | "all_tenants" => true,
        "ip6" => ask.version >= Version(2, 5),
        "tags" | "tags-any" | "not-tags" | "not-tags-any" => ask.version >= Version(2, 26),
        "changes-before" => ask.version >= Version(2, 66),
        "locked" => ask.version >= Version(2, 73),
        "availability_zone" | "config_drive" | "key_name" | "created_at" | "launched_at" | "terminated_at"
        | "power_state" | "task_state" | "vm_state" | "progress" | "user_id" => ask.version >= Version(2, 83),
        _ => false,
    }
}

/// A list's filters, read once.
struct Filter {
    project: Option<String>,
    statuses: Vec<String>,
    name: Option<Pattern>,
    ip: Option<Pattern>,
    ip6: Option<Pattern>,
    deleted: bool,
    since: Option<Timestamp>,
    before: Option<Timestamp>,
    tags: [(&'static str, Option<Vec<String>>); 4],
    locked: Option<bool>,
    config_drive: Option<bool>,
    power_states: Vec<String>,
    /// Name and value of what is compared for equality.
    plain: Vec<(&'static str, String)>,
}

/// Patterns are regular expressions, found anywhere, in linear time.
fn pattern(ask: &Ask, key: &str) -> Result<Option<Pattern>> {
    let Some(text) = ask.query.get(key).filter(|text| !text.is_empty()) else { return Ok(None) };
    let refused = || {
        Fault::invalid(format!("Invalid input for query parameters {key}. Value: {text}. '{text}' is not a 'regex'"))
    };
    if text.len() > 255 {
        return Err(refused());
    }
    let config = thompson::Config::new().nfa_size_limit(Some(1 << 20));
    let vm = PikeVM::builder().thompson(config).build(text).map_err(|_| refused())?;
    let cache = Mutex::new(vm.create_cache());
    Ok(Some(Pattern { vm, cache }))
}

/// With its scratch space, which costs more to make than a look at a name.
struct Pattern {
    vm: PikeVM,
    cache: Mutex<Cache>,
}

impl Pattern {
    fn finds(&self, text: &str) -> bool {
        let mut cache = self.cache.lock().unwrap_or_else(|broken| broken.into_inner());
        self.vm.is_match(&mut cache, text)
    }
}

impl Filter {
    fn read(ask: &Ask) -> Result<Filter> {
        ask.known_query(KNOWN)?;
        let all = ask.may("os_compute_api:servers:allow_all_filters", &ask.own());
        let given = |name: &str| ask.query.has(name) && (all || for_all(ask, name));
        let boolean =
            |name: &str| -> Result<Option<bool>> { if given(name) { ask.query.boolean(name) } else { Ok(None) } };
        let tags = |name: &'static str| {
            let list = ask.query.get(name).filter(|_| given(name) && ask.version >= Version(2, 26));
            (name, list.map(|list| list.split(',').map(str::to_owned).collect()))
        };
        let statuses: Vec<String> = ask.query.all("status").map(str::to_ascii_uppercase).collect();
        check_statuses(ask, &statuses)?;
        let wants_deleted = statuses.iter().any(|status| matches!(status.as_str(), "DELETED" | "SOFT_DELETED"));
        if wants_deleted && !all {
            return Err(Fault::forbidden("Only administrators may list deleted instances"));
        }
        let since = time(&ask.query, "changes-since")?;
        let before = time(&ask.query, "changes-before")?.filter(|_| ask.version >= Version(2, 66));
        if let (Some(since), Some(before)) = (since, before)
            && since > before
        {
            return Err(Fault::invalid("The value of changes-since must be less than or equal to changes-before."));
        }
        let mut plain = Vec::new();
        for name in [
            "image",
            "flavor",
            "host",
            "node",
            "reservation_id",
            "uuid",
            "key_name",
            "availability_zone",
            "vm_state",
            "task_state",
            "user_id",
            "description",
            "launch_index",
            "hostname",
            "created_at",
            "launched_at",
            "access_ip_v4",
            "access_ip_v6",
        ] {
            plain.extend(ask.query.get(name).filter(|_| given(name)).map(|value| (name, value.to_owned())));
        }
        Ok(Filter {
            project: project(ask)?,
            statuses,
            name: pattern(ask, "name")?,
            ip: pattern(ask, "ip")?,
            ip6: if given("ip6") { pattern(ask, "ip6")? } else { None },
            deleted: wants_deleted || boolean("deleted")?.unwrap_or(false),
            since,
            before,
            tags: [tags("tags"), tags("tags-any"), tags("not-tags"), tags("not-tags-any")],
            locked: boolean("locked")?,
            config_drive: boolean("config_drive")?,
            power_states: if given("power_state") {
                ask.query.all("power_state").map(str::to_owned).collect()
            } else {
                Vec::new()
            },
            plain,
        })
    }

    fn needs_ports(&self) -> bool {
        self.ip.is_some() || self.ip6.is_some()
    }

    /// Everything but addresses.
    fn fits(&self, server: &Stored<Server>, observed: Option<&Stored<ServerObserved>>, deleted: bool) -> bool {
        if self.project.as_ref().is_some_and(|project| *project != *server.project_id) {
            return false;
        }
        if self.name.as_ref().is_some_and(|pattern| !pattern.finds(&server.name)) {
            return false;
        }
        let state = shown_state(server, observed, deleted);
        if !self.statuses.is_empty() && !self.statuses.iter().any(|status| status == state.status) {
            return false;
        }
        let changed = render::updated(server, observed);
        if self.since.is_some_and(|since| changed < since) || self.before.is_some_and(|before| changed > before) {
            return false;
        }
        if self.locked.is_some_and(|locked| locked != server.lock.is_some())
            || self.config_drive.is_some_and(|drive| drive != server.config_drive)
            || (!self.power_states.is_empty() && !self.power_states.contains(&state.power_state.to_string()))
        {
            return false;
        }
        self.fits_tags(&server.tags)
            && self.plain.iter().all(|(name, value)| equal(server, observed, &state, name, value))
    }

    fn fits_tags(&self, tags: &[String]) -> bool {
        self.tags.iter().all(|(name, wanted)| {
            let Some(wanted) = wanted else { return true };
            let mut has = wanted.iter().map(|tag| tags.contains(tag));
            match *name {
                "tags" => has.all(|has| has),
                "tags-any" => has.any(|has| has),
                "not-tags" => !has.all(|has| has),
                _ => !has.any(|has| has),
            }
        })
    }

    fn fits_addresses(&self, entry: &Entry) -> bool {
        let ports = entry.ports.as_ref().map(|ports| ports.as_slice()).unwrap_or_default();
        let any = |pattern: &Pattern, v4: bool| {
            let fixed = ports.iter().flat_map(|port| &port.fixed).map(|fixed| fixed.address);
            fixed.filter(|ip| ip.is_ipv4() == v4).any(|ip| pattern.finds(&ip.to_string()))
        };
        self.ip.as_ref().is_none_or(|it| any(it, true)) && self.ip6.as_ref().is_none_or(|it| any(it, false))
    }
}

fn shown_state(server: &Server, observed: Option<&Stored<ServerObserved>>, deleted: bool) -> State {
    let state = state_of(server, observed.map(|seen| &seen.doc));
    if deleted {
        State { status: "DELETED", vm_state: "deleted", task_state: None, power_state: 0, ..state }
    } else {
        state
    }
}

fn equal(server: &Server, observed: Option<&Stored<ServerObserved>>, state: &State, name: &str, value: &str) -> bool {
    let time = |at: Option<Timestamp>| at.is_some() && at == Timestamp::parse(value);
    match name {
        "image" => server.image.as_str() == value,
        "flavor" => server.flavor.id.as_str() == value,
        "host" | "node" => server.host.as_deref() == Some(value),
        "reservation_id" => server.reservation_id == value,
        "uuid" => server.id.as_str() == value,
        "key_name" => server.key_name.as_deref() == Some(value),
        "availability_zone" => match &server.host {
            Some(_) => value == crate::hosts::ZONE,
            None => server.wanted_zone.as_deref() == Some(value),
        },
        "vm_state" => state.vm_state == value.to_ascii_lowercase(),
        "task_state" => state.task_state == Some(value),
        "user_id" => server.user_id.as_str() == value,
        "description" => server.description.as_deref() == Some(value),
        "launch_index" => server.launch_index.to_string() == value,
        "hostname" => server.hostname == value,
        "access_ip_v4" => server.access_ip_v4.as_deref() == Some(value),
        "access_ip_v6" => server.access_ip_v6.as_deref() == Some(value),
        "launched_at" => time(observed.and_then(|seen| seen.launched_at)),
        _ => true,
    }
}

fn check_statuses(ask: &Ask, statuses: &[String]) -> Result<()> {
    const STATUSES: &[&str] = &[
        "ACTIVE",
        "BUILD",
        "DELETED",
        "ERROR",
        "HARD_REBOOT",
        "MIGRATING",
        "PASSWORD",
        "PAUSED",
        "REBOOT",
        "REBUILD",
        "RESCUE",
        "RESIZE",
        "REVERT_RESIZE",
        "SHELVED",
        "SHELVED_OFFLOADED",
        "SHUTOFF",
        "SOFT_DELETED",
        "SUSPENDED",
        "UNKNOWN",
        "VERIFY_RESIZE",
    ];
    let unknown = statuses.iter().any(|status| !STATUSES.contains(&status.as_str()));
    if unknown && ask.version >= Version(2, 38) { Err(Fault::invalid("Invalid status value")) } else { Ok(()) }
}

/// The project whose servers are listed; none: all.
fn project(ask: &Ask) -> Result<Option<String>> {
    let admin = ask.may("os_compute_api:servers:allow_all_filters", &ask.own());
    let asked = ask.query.get("project_id").or(ask.query.get("tenant_id")).filter(|_| admin).map(str::to_owned);
    let all = match ask.query.get("all_tenants") {
        // A project alone does not widen the list: Nova ignores it then, and tools rely on that.
        None => false,
        Some("") => true,
        Some(_) => ask.query.boolean("all_tenants")?.unwrap_or(true),
    };
    if !all {
        return Ok(Some(ask.project()?.to_string()));
    }
    let rule = if ask.operation == "servers:detail" { "detail" } else { "index" };
    ask.enforce_rule(&format!("os_compute_api:servers:{rule}:get_all_tenants"), &ask.own())?;
    Ok(asked)
}

/// What a list holds: one of the book, or one that is gone.
enum Item {
    Here(ServerId),
    Gone(Box<DeletedServer>),
}

struct Row {
    item: Item,
    id: ServerId,
    sort: Vec<String>,
    created: Timestamp,
}

async fn select(state: &Arc<Compute>, ask: &Ask, pages: &mut Pages) -> Result<(Vec<Row>, bool)> {
    let filter = Filter::read(ask)?;
    let order = Order::read(ask)?;
    let by_creation = order.of_creation().filter(|_| !filter.needs_ports() && !filter.deleted && filter.since.is_none());
    if let Some(falling) = by_creation {
        return in_order(ask, pages, &filter, falling);
    }
    let mut rows = Vec::new();
    {
        // What is deleted softly shows where deleted servers do.
        let here = |entry: &&Entry| entry.server.soft_deleted.is_some() == filter.deleted;
        let fitting = pages.entries.values().filter(here);
        let fitting = fitting.filter(|entry| filter.fits(&entry.server, entry.observed.as_ref(), false));
        let ids: Vec<ServerId> = fitting.map(|entry| entry.server.id.clone()).collect();
        if filter.needs_ports() {
            pages.load_ports(state, &ids).await?;
        }
        for id in ids {
            let Some(entry) = pages.entry(&id) else { continue };
            if filter.fits_addresses(entry) {
                let sort = order.keys(&entry.server, entry.observed.as_ref());
                rows.push(Row { created: entry.server.created, item: Item::Here(id.clone()), id, sort });
            }
        }
    }
    if filter.deleted || filter.since.is_some() {
        rows.extend(gone(state, &filter, &order).await?);
    }
    order.sort(&mut rows);
    cut(ask, rows)
}

/// A page in the order of creation, which is the book's own: what lies beyond its end is not looked at.
fn in_order(ask: &Ask, pages: &Pages, filter: &Filter, falling: bool) -> Result<(Vec<Row>, bool)> {
    if ask.query.get("limit") == Some("0") {
        return Ok((Vec::new(), false));
    }
    let fits = |entry: &&Entry| {
        entry.server.soft_deleted.is_none() && filter.fits(&entry.server, entry.observed.as_ref(), false)
    };
    let mut request = PageRequest::read(&ask.query)?;
    let after = match request.marker.take() {
        None => None,
        Some(marker) => match pages.get(&ServerId::new(marker.as_str())).filter(fits) {
            Some(entry) => Some((entry.server.created, entry.server.id.clone())),
            None => return Err(Fault::invalid(format!("marker [{marker}] not found"))),
        },
    };
    let fitting = pages.in_order(filter.project.as_deref(), after, falling).filter(fits);
    let row = |entry: &Entry| {
        let (id, created) = (entry.server.id.clone(), entry.server.created);
        Row { item: Item::Here(id.clone()), id, sort: Vec::new(), created }
    };
    let page = rest::Page::cut(fitting.map(row), &request, |row| row.id.as_str())?;
    Ok((page.items, page.more))
}

async fn gone(state: &Compute, filter: &Filter, order: &Order) -> Result<Vec<Row>> {
    if filter.needs_ports() {
        return Ok(Vec::new());
    }
    let query = filter.project.as_ref().map_or_else(Query::all, Query::project);
    let mut rows = Vec::new();
    for deleted in state.store.list::<DeletedServer>(query).await? {
        let deleted = deleted.doc;
        let (server, observed) = revive(&deleted);
        if filter.fits(&server, observed.as_ref(), true) {
            let sort = order.keys(&server, observed.as_ref());
            let id = server.id.clone();
            rows.push(Row { item: Item::Gone(Box::new(deleted)), id, sort, created: server.created });
        }
    }
    Ok(rows)
}

/// A deleted server's documents as they lay in the store.
fn revive(deleted: &DeletedServer) -> (Stored<Server>, Option<Stored<ServerObserved>>) {
    let (created, updated) = (deleted.created, deleted.deleted);
    let stored = |doc: Server| Stored { doc, rev: Default::default(), created, updated };
    let observed = deleted.observed.clone().map(|doc| Stored { doc, rev: Default::default(), created, updated });
    (stored(deleted.server.clone()), observed)
}

fn cut(ask: &Ask, rows: Vec<Row>) -> Result<(Vec<Row>, bool)> {
    // Of servers alone, a limit of 0 is what it says.
    if ask.query.get("limit") == Some("0") {
        return Ok((Vec::new(), false));
    }
    let request = PageRequest::read(&ask.query)?;
    let page = rest::Page::cut(rows, &request, |row| row.id.as_str())?;
    Ok((page.items, page.more))
}

/// By which fields a list is ordered; `true`: falling.
struct Order(Vec<(String, bool)>);

impl Order {
    fn read(ask: &Ask) -> Result<Order> {
        const FOR_ALL: &[&str] = &[
            "access_ip_v4",
            "access_ip_v6",
            "auto_disk_config",
            "availability_zone",
            "config_drive",
            "created_at",
            "display_description",
            "display_name",
            "host",
            "hostname",
            "image_ref",
            "instance_type_id",
            "kernel_id",
            "key_name",
            "launch_index",
            "launched_at",
            "locked_by",
            "node",
            "power_state",
            "progress",
            "project_id",
            "ramdisk_id",
            "root_device_name",
            "task_state",
            "terminated_at",
            "updated_at",
            "user_id",
            "uuid",
            "vm_state",
            "locked",
        ];
        let keys: Vec<&str> = ask.query.all("sort_key").collect();
        let dirs: Vec<&str> = ask.query.all("sort_dir").collect();
        let mut order = Vec::new();
        for (n, key) in keys.iter().enumerate() {
            if !FOR_ALL.contains(key) {
                let why = format!(
                    "Invalid input for query parameters sort_key. Value: {key}. '{key}' is not a key that servers can be sorted by"
                );
                return Err(Fault::invalid(why));
            }
            if matches!(*key, "host" | "node") && !ask.is_admin() {
                return Err(Fault::forbidden("Only administrators can sort servers by host or node"));
            }
            order.push(((*key).to_owned(), dirs.get(n).or(dirs.last()).copied().unwrap_or("desc") == "desc"));
        }
        if let Some(bad) = dirs.iter().find(|dir| !matches!(**dir, "asc" | "desc")) {
            return Err(Fault::invalid(format!(
                "Invalid input for query parameters sort_dir. Value: {bad}. '{bad}' is not one of ['asc', 'desc']"
            )));
        }
        if order.is_empty() {
            order.push(("created_at".to_owned(), dirs.first().is_none_or(|dir| *dir == "desc")));
        }
        Ok(Order(order))
    }

    /// Set where they come in the order of their creation; true: the last one first.
    fn of_creation(&self) -> Option<bool> {
        match self.0.as_slice() {
            [(name, falling)] if name == "created_at" => Some(*falling),
            _ => None,
        }
    }

    fn keys(&self, server: &Stored<Server>, observed: Option<&Stored<ServerObserved>>) -> Vec<String> {
        let state = state_of(server, observed.map(|seen| &seen.doc));
        let time = |at: Timestamp| format!("{:020}", at.micros());
        let key = |name: &str| match name {
            "created_at" => time(server.created),
            "updated_at" => time(render::updated(server, observed)),
            "launched_at" => observed.and_then(|seen| seen.launched_at).map(time).unwrap_or_default(),
            "display_name" => server.name.clone(),
            "display_description" => server.description.clone().unwrap_or_default(),
            "host" | "node" => server.host.as_ref().map(|host| host.to_string()).unwrap_or_default(),
            "hostname" => server.hostname.clone(),
            "image_ref" => server.image.to_string(),
            "instance_type_id" => server.flavor.id.to_string(),
            "key_name" => server.key_name.clone().unwrap_or_default(),
            "launch_index" => format!("{:010}", server.launch_index),
            "project_id" => server.project_id.to_string(),
            "user_id" => server.user_id.to_string(),
            "uuid" => server.id.to_string(),
            "vm_state" => state.vm_state.to_owned(),
            "task_state" => state.task_state.unwrap_or("").to_owned(),
            "power_state" => format!("{:03}", state.power_state),
            "availability_zone" => server.wanted_zone.clone().unwrap_or_default(),
            "access_ip_v4" => server.access_ip_v4.clone().unwrap_or_default(),
            "access_ip_v6" => server.access_ip_v6.clone().unwrap_or_default(),
            "config_drive" => server.config_drive.to_string(),
            "locked" | "locked_by" => server.lock.is_some().to_string(),
            _ => String::new(),
        };
        self.0.iter().map(|(name, _)| key(name)).collect()
    }

    fn sort(&self, rows: &mut [Row]) {
        let turn = |falling: bool, order: Ordering| if falling { order.reverse() } else { order };
        rows.sort_by(|a, b| {
            let each =
                self.0.iter().zip(a.sort.iter().zip(&b.sort)).map(|((_, falling), (a, b))| turn(*falling, a.cmp(b)));
            let first = self.0.first().is_none_or(|(_, falling)| *falling);
            let last = turn(first, (a.created, &a.id).cmp(&(b.created, &b.id)));
            each.fold(Ordering::Equal, Ordering::then).then(last)
        });
    }
}

/// Joins what is JSON already.
fn reply(ask: &Ask, path: &str, fragments: &[Arc<str>], next: Option<&ServerId>) -> Reply {
    let bytes: usize = fragments.iter().map(|text| text.len() + 1).sum();
    let mut body = String::with_capacity(bytes + 512);
    body.push_str("{\"servers\":[");
    for (n, text) in fragments.iter().enumerate() {
        if n > 0 {
            body.push(',');
        }
        body.push_str(text);
    }
    body.push(']');
    if let Some(last) = next {
        body.push_str(",\"servers_links\":");
        body.push_str(&ask.next_link(path, last).to_string());
    }
    body.push('}');
    Reply::json_bytes(200, body)
}

pub async fn brief(state: Arc<Compute>, call: Call) -> Result<Reply> {
    let ask = Ask::of(&call);
    ask.enforce_own()?;
    let mut pages = state.book.open(&state).await?;
    let (rows, more) = select(&state, &ask, &mut pages).await?;
    let mut fragments: Vec<Arc<str>> = Vec::with_capacity(rows.len());
    for row in &rows {
        let text = match &row.item {
            Item::Here(id) => pages.entry(id).map(|entry| render::brief(&entry.server, &ask.base_url)),
            Item::Gone(gone) => Some(render::brief(&gone.server, &ask.base_url)),
        };
        fragments.extend(text.transpose()?.map(Arc::from));
    }
    Ok(reply(&ask, "/servers", &fragments, rows.last().filter(|_| more).map(|row| &row.id)))
}

pub async fn detail(state: Arc<Compute>, call: Call) -> Result<Reply> {
    let ask = Ask::of(&call);
    ask.enforce_own()?;
    let mut pages = state.book.open(&state).await?;
    let (rows, more) = select(&state, &ask, &mut pages).await?;
    let mut views = Views { state: &state, ask: &ask, known: HashMap::new() };
    let mut here = Vec::with_capacity(rows.len());
    for row in &rows {
        if let Item::Here(id) = &row.item
            && let Some(entry) = pages.entry(id)
        {
            here.push((id.clone(), views.of(&entry.server)));
        }
    }
    let mut rendered = pages.rendered(&state, &here, ask.operation).await?.into_iter();
    let mut fragments = Vec::with_capacity(rows.len());
    for row in &rows {
        match &row.item {
            Item::Here(_) => fragments.extend(rendered.next()),
            Item::Gone(gone) => {
                let (server, observed) = revive(gone);
                let deleted = Some(gone.deleted);
                let parts =
                    Parts { server: &server, observed: observed.as_ref(), ports: &[], volumes: &[], user_data: None, deleted };
                fragments.push(render(&parts, &views.of(&server), ask.operation)?.into());
            }
        }
    }
    Ok(reply(&ask, "/servers/detail", &fragments, rows.last().filter(|_| more).map(|row| &row.id)))
}

/// Policy is asked once for each project and host, not once for each server.
struct Views<'a> {
    state: &'a Compute,
    ask: &'a Ask,
    known: HashMap<(String, String, Option<String>), View>,
}

impl Views<'_> {
    fn of(&mut self, server: &Server) -> View {
        let host = server.host.as_ref().map(|host| host.to_string());
        let key = (server.project_id.to_string(), server.user_id.to_string(), host);
        self.known.entry(key).or_insert_with(|| ops::view(self.state, self.ask, server, false)).clone()
    }
}
