//! Random calls over the whole route table, with plausible and implausible arguments.
//!
//! Paths are filled in by the names of their placeholders; bodies are declared per operation in one file a service. An
//! operation that takes a body and has none declared is never called, and a run over many seeds fails for it.

mod compute;
mod identity;
mod image;
mod network;
mod volume;

pub use image::Elsewhere;

use crate::client::{Actor, Ask};
use crate::dice::Dice;
use crate::known::Known;
use http::Method;
use serde_json::{Value, json};

/// A row of the route table.
#[derive(Clone, Debug)]
pub struct Operation {
    pub service: &'static str,
    pub operation: &'static str,
    pub method: Method,
    pub path: String,
    pub actions: &'static [&'static str],
}

impl Operation {
    pub fn name(&self) -> String {
        format!("{} {}", self.service, self.operation)
    }
}

/// The operations of a cloud.
pub fn table(cloud: &control::Cloud) -> Vec<Operation> {
    let services = cloud.gateway().services().iter();
    let rows = services.flat_map(|service| {
        service.routes.iter().map(|route| Operation {
            service: service.name,
            operation: route.operation,
            method: route.method.clone(),
            path: format!("{}{}", service.prefix, route.path),
            actions: route.actions,
        })
    });
    rows.collect()
}

/// How often an operation is called in comparison with others.
fn weight(operation: &Operation) -> u64 {
    match (operation.service, operation.operation) {
        ("compute", "servers:create") => 70,
        ("compute", "servers:action") => 90,
        ("compute", "servers:delete") => 30,
        ("compute", "servers:show" | "servers:detail" | "servers:update") => 12,
        ("compute", "interfaces:create" | "interfaces:delete") => 12,
        ("network", "port:create" | "floatingip:create" | "subnet:create" | "network:create") => 14,
        ("network", "port:update" | "port:delete" | "floatingip:update" | "floatingip:delete") => 10,
        ("network", "router:create" | "router:add_router_interface" | "router:remove_router_interface") => 9,
        ("network", "security_group:create" | "security_group_rule:create" | "router:update") => 8,
        ("network", "router:delete" | "subnet:delete" | "network:delete" | "security_group:delete") => 5,
        ("image", "images:create" | "images:upload" | "images:stage" | "images:import") => 7,
        ("image", "images:delete") => 4,
        ("compute", "volume_attachments:create" | "volume_attachments:delete") => 12,
        ("volume", "volumes:create") => 14,
        ("volume", "volumes:action") => 14,
        ("volume", "volumes:delete" | "snapshots:create") => 7,
        ("volume", "snapshots:delete" | "attachments:create") => 4,
        ("volume", "transfers:create" | "transfers:accept" | "new_transfers:create" | "new_transfers:accept") => 4,
        ("nubo", "nubo:undo") => 12,
        ("nubo", "nubo:trash" | "nubo:purge" | "nubo:undo:plan") => 3,
        ("identity", "projects:create" | "users:create") => 4,
        _ if operation.method == Method::GET || operation.method == Method::HEAD => 1,
        _ => 2,
    }
}

/// One of the operations.
pub fn choose<'a>(dice: &Dice, table: &'a [Operation]) -> Option<&'a Operation> {
    let mut left = dice.below(table.iter().map(weight).sum());
    table.iter().find(|operation| match left.checked_sub(weight(operation)) {
        Some(rest) => {
            left = rest;
            false
        }
        None => true,
    })
}

pub const ADMIN: usize = 0;

/// What an argument is drawn from.
pub struct Gen<'a> {
    pub dice: &'a Dice,
    pub known: &'a Known,
    pub actors: &'a [Actor],
    pub actor: usize,
    /// Makes names unique.
    pub step: u64,
}

impl Gen<'_> {
    pub fn me(&self) -> &Actor {
        &self.actors[self.actor]
    }

    pub fn chance(&self, percent: u64) -> bool {
        self.dice.chance(percent)
    }

    /// An id of a class that exists, or existed, or that nobody has ever heard of.
    pub fn id(&self, class: &str) -> String {
        self.some(class, false)
    }

    /// As [`Gen::id`], but of a thing that may be harmed.
    pub fn victim(&self, class: &str) -> String {
        self.some(class, true)
    }

    fn some(&self, class: &str, harm: bool) -> String {
        if class == "undo" {
            // Mostly a deletion: that is what undo is for.
            let deletions: Vec<_> = self.known.all(class).iter().filter(|it| it.value["deletes"] == true).collect();
            if let Some(request) = self.dice.pick(&deletions).filter(|_| self.chance(60)) {
                return request.id.clone();
            }
        }
        let found = self.known.pick(self.dice, class, self.actor, harm).filter(|_| !self.chance(3));
        found.map_or_else(|| self.nonsense(), |thing| thing.id.clone())
    }

    fn nonsense(&self) -> String {
        let id = format!("00000000-0000-4000-8000-{:012x}", self.dice.below(1 << 40));
        match self.dice.below(4) {
            0 => "no-such-thing".into(),
            1 => id.replace('-', ""),
            _ => id,
        }
    }

    pub fn name(&self, what: &str) -> String {
        match self.dice.below(30) {
            0 => String::new(),
            1 => "x".repeat(300),
            2 => "名前 ☃".into(),
            3 => "twin".into(),
            _ => format!("{what}-{}", self.step),
        }
    }

    pub fn word(&self) -> String {
        self.dice.of(["red", "green", "blue", "a", "twin"]).to_owned()
    }

    pub fn words(&self) -> Vec<String> {
        (0..self.dice.below(4)).map(|n| format!("{}{n}", self.word())).collect()
    }

    /// An address of the small networks that are made.
    pub fn address(&self) -> String {
        format!("10.{}.0.{}", self.dice.below(4), self.dice.below(20))
    }
}

fn class_of(operation: &Operation, before: &str, name: &str) -> String {
    match name {
        "project_id" if operation.service == "volume" => "own_project".into(),
        "host_name" | "pool_host" => "host_names".into(),
        "verb" => "verbs".into(),
        "store_id" => "image_stores".into(),
        "target_id" => "projects".into(),
        "project_id" | "member_id" => "projects".into(),
        // Clients choose these.
        "protocol_id" => "words".into(),
        "id" if ["identity_providers", "mappings", "service_providers"].contains(&before) => "words".into(),
        "user_id" => "users".into(),
        "group_id" => "groups".into(),
        "role_id" | "implied_id" => "roles".into(),
        "credential_id" => "application_credentials".into(),
        "id" if before == "network-ip-availabilities" => "networks".into(),
        "network" => "network_names".into(),
        "tag" | "key" | "class" => "words".into(),
        "image_id" => "images".into(),
        // Names that the bodies of the image service draw from as well.
        "namespace_name" | "object_name" | "property_name" | "tag_name" | "resource_type" => "words".into(),
        "alias" => "extensions".into(),
        "name" if before == "extensions" => "extensions".into(),
        _ if before == "OS-EC2" => "OS-EC2".into(),
        _ => {
            debug_assert!(!before.is_empty(), "{operation:?}");
            before.to_owned()
        }
    }
}

/// Operations whose harm to what the history needs would end it.
fn harms(operation: &Operation) -> bool {
    match operation.service {
        "identity" => {
            let method = &operation.method;
            *method == Method::DELETE || *method == Method::PATCH || operation.operation == "users:password" || {
                operation.operation.starts_with("roles:implies")
            }
        }
        "compute" | "image" | "network" | "volume" => operation.method == Method::DELETE || operation.method == Method::PATCH,
        _ => false,
    }
}

/// A volume of a server is reached by that server.
fn path_of_attachment(g: &Gen, operation: &Operation) -> Option<String> {
    let below = operation.path.strip_suffix("/servers/{server_id}/os-volume_attachments/{volume_id}")?;
    let thing = g.dice.pick(g.known.all("os-volume_attachments")).filter(|_| g.chance(85))?;
    Some(format!("{below}/servers/{}/os-volume_attachments/{}", thing.value["serverId"].as_str()?, thing.id))
}

/// An offer is taken by who knows its key.
fn path_of_offer(g: &Gen, operation: &Operation) -> Option<String> {
    let (before, after) = operation.path.split_once("{transfer_id}").filter(|(_, after)| *after == "/accept")?;
    let offer = volume::offer(g).filter(|_| g.chance(85))?;
    Some(format!("{}{}{after}", before.replace("{project_id}", &g.me().project_id), offer.id))
}

fn path(g: &Gen, operation: &Operation) -> String {
    if let Some(path) = path_of_offer(g, operation) {
        return path;
    }
    if let Some(path) = path_of_attachment(g, operation) {
        return path;
    }
    let mut path = String::new();
    let mut before = "";
    for part in operation.path.split('/').skip(1) {
        path.push('/');
        let Some(name) = part.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')) else {
            path.push_str(part);
            before = part;
            continue;
        };
        let class = class_of(operation, before, name.trim_start_matches('*'));
        // Whoever acts on users' own things is mostly that user.
        let own = before == "users" && operation.operation.contains(['_', '2']) && g.chance(80);
        path.push_str(&match class.as_str() {
            "words" if operation.operation.starts_with("quota_class") => "default".into(),
            "words" => g.word(),
            "own_project" => g.me().project_id.clone(),
            "host_names" => g.dice.of(["sim-1@file", "host-1@file", "none"]).into(),
            "image_stores" => g.dice.of(["local", "second", "objects", "none"]).into(),
            "verbs" => g.dice.of(["enable", "enable", "freeze", "thaw", "none"]).into(),
            "network_names" => g.dice.of(["demo-net", "blue-net", "none"]).into(),
            "extensions" => g.dice.of(["router", "security-group", "no-such", "os-keypairs"]).into(),
            _ if own => g.me().user_id.clone(),
            _ if harms(operation) => g.victim(&class),
            _ => g.id(&class),
        });
    }
    path
}

fn query(g: &Gen, operation: &Operation) -> String {
    let list = operation.method == Method::GET && !operation.path.ends_with('}');
    if list && g.chance(25) {
        let queries = [
            "limit=3",
            "limit=0",
            "limit=x",
            "marker=no-such",
            "name=twin",
            "status=ACTIVE",
            "all_tenants=1",
            "sort_key=name&sort_dir=asc",
            "fields=id",
            "sort=name:desc",
            "detailed=1",
            "changes-since=2026-01-01",
        ];
        return format!("?{}", g.dice.of(queries));
    }
    if operation.method != Method::GET && g.chance(4) {
        return "?dry_run=true".into();
    }
    String::new()
}

fn who(dice: &Dice, operation: &Operation, actors: usize) -> usize {
    let admins = operation.service == "identity"
        || operation.service == "volume" && ["/types", "qos-specs", "os-hosts", "stats", "capabilities"].iter().any(|word| operation.path.contains(word))
        || ["hypervisors", "services", "quota", "flavors", "audit", "usage", "owners", "status", "/metadefs/", "/cache", "/tasks", "/stores/"]
            .iter()
            .any(|word| operation.path.contains(word) && !operation.operation.starts_with("server"));
    match dice.below(100) {
        0..85 if admins => ADMIN,
        0..8 => ADMIN,
        _ => 1 + dice.below(actors as u64 - 1) as usize,
    }
}

fn body(g: &Gen, operation: &Operation) -> Option<Value> {
    match operation.service {
        "identity" => identity::body(g, operation.operation),
        "image" => image::body(g, operation.operation),
        "network" => network::body(g, operation.operation),
        "compute" => compute::body(g, operation.operation),
        "volume" => volume::body(g, operation.operation),
        "nubo" => own(g, operation.operation),
        _ => None,
    }
}

/// Bodies of nubo's own service. What is asked to be mended is whole: mending it changes nothing.
fn own(g: &Gen, operation: &str) -> Option<Value> {
    match operation {
        "nubo:undo" | "nubo:keys:rotate" => Some(Value::Null),
        "nubo:keys:import" => Some(json!({"keys": [{"number": 1, "key": g.word()}]})),
        // Signing keys are drawn by the system, so no seed would decide a history with them.
        "nubo:keys:import_jws" => Some(json!({"private": g.word(), "public": []})),
        "nubo:keystone:import" => Some(json!({"dump": {}, "rename_suffix": g.word()})),
        "nubo:repair" => Some(json!({"objects": [{"kind": "server", "id": g.id("servers")}]})),
        _ => None,
    }
}

/// Bends a body so that it is no longer what the interface says.
fn bend(g: &Gen, value: &mut Value) {
    let nonsense = [json!(null), json!(-1), json!(""), json!([]), json!({"a": 1}), json!("\u{1}"), json!(1.5e300)];
    match value {
        Value::Object(map) if !map.is_empty() => {
            let keys: Vec<String> = map.keys().cloned().collect();
            let Some(key) = g.dice.pick(&keys) else { return };
            if g.chance(50)
                && let Some(inner) = map.get_mut(key).filter(|inner| inner.is_object() || inner.is_array())
            {
                bend(g, inner);
            } else if g.chance(40) {
                map.remove(key);
            } else {
                map.insert(key.clone(), g.dice.pick(&nonsense).cloned().unwrap_or_default());
            }
        }
        Value::Array(items) if !items.is_empty() => bend(g, &mut items[0]),
        other => *other = g.dice.pick(&nonsense).cloned().unwrap_or_default(),
    }
}

fn takes_body(method: &Method) -> bool {
    [Method::POST, Method::PUT, Method::PATCH].contains(method)
}

/// True when somebody knows something that the path could name.
fn has_place(known: &Known, operation: &Operation) -> bool {
    let mut before = "";
    operation.path.split('/').all(|part| {
        let name = part.strip_prefix('{').and_then(|rest| rest.strip_suffix('}'));
        let class = name.map(|name| class_of(operation, before, name.trim_start_matches('*')));
        before = part;
        class.is_none_or(|class| {
            ["words", "network_names", "extensions", "own_project", "host_names", "verbs", "image_stores"].contains(&class.as_str()) || !known.all(&class).is_empty()
        })
    })
}

/// The next call; none where the operation's body is not declared, and mostly none where nothing is known that it could
/// be about.
pub fn ask(dice: &Dice, known: &Known, actors: &[Actor], operation: &Operation, step: u64) -> Option<Ask> {
    if !has_place(known, operation) && dice.chance(85) {
        return None;
    }
    let actor = who(dice, operation, actors.len());
    let g = Gen { dice, known, actors, actor, step };
    let mut headers = Vec::new();
    let mut bytes = Vec::new();
    if takes_body(&operation.method) {
        let mut value = body(&g, operation)?;
        let kind = match (operation.service, operation.operation) {
            ("image", "images:upload" | "images:stage") => "application/octet-stream",
            ("image", "images:update" | "images:update_nameless") => "application/openstack-images-v2.1-json-patch",
            _ => "application/json",
        };
        headers.push(("content-type", kind.to_owned()));
        bytes = match &value {
            Value::String(text) if kind == "application/octet-stream" => text.clone().into_bytes(),
            Value::Null => Vec::new(),
            _ => {
                if g.chance(6) {
                    bend(&g, &mut value);
                }
                value.to_string().into_bytes()
            }
        };
    }
    if operation.service == "compute" {
        let version = dice.of(["2.1", "2.26", "2.60", "2.60", "2.60", "latest", "latest", "2.72"]);
        headers.push(("x-openstack-nova-api-version", version.to_owned()));
    }
    if operation.operation == "images:upload" && dice.chance(50) {
        headers.push(("x-image-meta-store", dice.of(["objects", "objects", "second", "none"]).to_owned()));
    }
    if operation.service == "volume" {
        let version = dice.of(["3.0", "3.27", "3.44", "3.60", "latest", "latest"]);
        headers.push(("openstack-api-version", format!("volume {version}")));
    }
    if operation.operation.starts_with("auth:") {
        headers.push(("x-subject-token", "own".to_owned()));
    }
    Some(Ask {
        service: operation.service,
        operation: operation.operation,
        method: operation.method.clone(),
        path: format!("{}{}", path(&g, operation), query(&g, operation)),
        headers,
        body: bytes,
        actor,
    })
}
