//! Random calls over all services: the plan of a dry run is what the call then does, and the dry run does nothing.

use crate::cloud::{Answer, TestCloud};
use base::Random;
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, BTreeSet};
use store::{Event, Rev, Watch};

const SEEDS: [u64; 2] = [1, 20_261];
const CALLS: usize = 400;

/// What is committed, as the watch tells it.
struct Mirror {
    watch: Watch,
    docs: BTreeMap<(String, String), Value>,
    rev: Rev,
}

/// What one call changed: by kind and id, before and after.
type Changes = Vec<(String, String, Option<Value>, Option<Value>)>;

impl Mirror {
    async fn new(cloud: &TestCloud) -> Mirror {
        let store = cloud.cloud.store();
        let watch = store.watch();
        let mut docs = BTreeMap::new();
        let mut rev = Rev(0);
        for change in store.changes(Rev(0), 100_000).await.unwrap() {
            rev = change.rev;
            match &change.body {
                Some(body) => docs.insert((change.kind.to_string(), change.id), parsed(body)),
                None => docs.remove(&(change.kind.to_string(), change.id)),
            };
        }
        Mirror { watch, docs, rev }
    }

    /// Follows to now. The changes of the request, and whether others wrote before it.
    async fn follow(&mut self, cloud: &TestCloud, request: &str) -> (Changes, bool) {
        let store = cloud.cloud.store();
        let (mut own, mut others) = (Changes::new(), false);
        while let Some(event) = self.watch.try_next() {
            let Event::Revision(revision) = event else { panic!("the watch was lost") };
            if revision.rev <= self.rev {
                continue;
            }
            self.rev = revision.rev;
            let mut ours = false;
            for change in &revision.changes {
                let versions = store.history(&change.kind, &change.id, 20).await.unwrap();
                ours |= versions.iter().any(|it| it.rev == revision.rev && it.request_id.as_str() == request);
            }
            others |= !ours && own.is_empty();
            // A plan tells of the deletion, and not of the trash in which the document then rests.
            for change in revision.changes.iter().filter(|change| change.kind != "trash") {
                let key = (change.kind.to_string(), change.id.clone());
                let after = change.body.as_deref().map(parsed);
                let before = match &after {
                    Some(body) => self.docs.insert(key.clone(), body.clone()),
                    None => self.docs.remove(&key),
                };
                // What is deleted goes to the trash only when it is really deleted.
                if ours && change.kind != "trash" {
                    own.push((key.0, key.1, before, after));
                }
            }
        }
        (own, others)
    }

    fn ids(&self) -> BTreeSet<String> {
        self.docs.keys().flat_map(|(_, id)| words(id).map(str::to_owned).collect::<Vec<_>>()).collect()
    }
}

fn parsed(body: &str) -> Value {
    serde_json::from_str(body).unwrap()
}

fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '-')).filter(|word| word.len() >= 32)
}

/// Replaces what is drawn anew in each run: ids that nobody knew before, times, random names.
struct Normal {
    known: BTreeSet<String>,
    seen: BTreeMap<String, usize>,
}

impl Normal {
    fn text(&mut self, text: &str) -> String {
        let drawn = |text: &str| {
            let hex = text.chars().all(|c| c.is_ascii_hexdigit() || c == '-');
            hex && (text.len() == 36 || text.len() == 32 || text.len() == 64 || text.len() == 56)
        };
        let mut replaced = text.to_owned();
        for word in words(text).map(str::to_owned).collect::<Vec<_>>() {
            let id = word.strip_prefix("server-").unwrap_or(&word);
            if drawn(id) && !self.known.contains(id) {
                let next = self.seen.len();
                let number = *self.seen.entry(id.to_owned()).or_insert(next);
                replaced = replaced.replace(id, &format!("NEW{number}"));
            }
        }
        let mac = text.len() == 17 && text.starts_with("fa:16:3e:");
        let reservation = text.len() == 10 && text.starts_with("r-");
        if mac || reservation { "DRAWN".into() } else { replaced }
    }

    fn value(&mut self, name: &str, value: &Value) -> Value {
        let secret = ["fingerprint", "public_key", "secret", "hash", "blob", "request_id"].contains(&name);
        match value {
            Value::String(_) if secret => "DRAWN".into(),
            Value::Number(_) if name == "vni" => "DRAWN".into(),
            Value::String(text) => self.text(text).into(),
            // Microseconds since the epoch.
            Value::Number(number) if number.as_i64().is_some_and(|n| n > 1_000_000_000_000_000) => "TIME".into(),
            Value::Array(items) => items.iter().map(|item| self.value(name, item)).collect(),
            Value::Object(fields) => {
                let fields = fields.iter().map(|(inner, value)| {
                    let named = if ["before", "after"].contains(&inner.as_str()) { name } else { inner };
                    (self.text(inner), self.value(named, value))
                });
                Value::Object(fields.collect::<Map<_, _>>())
            }
            other => other.clone(),
        }
    }
}

/// The plan's own shape of what a call changed.
fn shape(changes: &Changes) -> Value {
    let shown = changes.iter().map(|(kind, id, before, after)| match (before, after) {
        (None, after) => json!({"kind": kind, "id": id, "change": "create", "after": after}),
        (before, None) => json!({"kind": kind, "id": id, "change": "delete", "before": before}),
        (Some(before), Some(after)) => {
            let (old, new) = (before.as_object().unwrap(), after.as_object().unwrap());
            let names: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
            let differing = names.into_iter().filter(|name| old.get(*name) != new.get(*name));
            let fields: Map<String, Value> = differing
                .map(|name| (name.clone(), json!({"before": old.get(name), "after": new.get(name)})))
                .collect();
            json!({"kind": kind, "id": id, "change": "update", "fields": fields})
        }
    });
    shown.collect()
}

fn planned(plan: &Value) -> Value {
    let changes = plan["changes"].as_array().unwrap().iter().map(|change| {
        let mut change = change.clone();
        change.as_object_mut().unwrap().remove("project_id");
        change
    });
    changes.collect()
}

/// Draws calls, and knows what earlier ones made.
struct Drawer {
    random: base::random::SeededRandom,
    /// Ids by collection.
    made: BTreeMap<&'static str, Vec<String>>,
    image: String,
    project: String,
    me: String,
    service: String,
}

struct Drawn {
    method: &'static str,
    path: String,
    body: Value,
    /// The collection that a success adds to.
    adds: Option<&'static str>,
}

impl Drawer {
    fn below(&self, most: usize) -> usize {
        let mut bytes = [0; 8];
        self.random.fill(&mut bytes);
        (u64::from_le_bytes(bytes) % most as u64) as usize
    }

    /// An id of a collection; sometimes one that nothing has.
    fn one(&self, collection: &'static str) -> String {
        match self.made.get(collection).filter(|ids| !ids.is_empty() && self.below(20) > 0) {
            Some(ids) => ids[self.below(ids.len())].clone(),
            None => "0192aaaa-0000-7000-8000-00000000dead".into(),
        }
    }

    fn draw(&self) -> Drawn {
        let n = self.below(TABLE.len());
        let (method, path, collection, body) = TABLE[n];
        let mut path = path.to_owned();
        while let Some(start) = path.find('{') {
            let end = start + path[start..].find('}').unwrap();
            let name = path[start + 1..end].to_owned();
            path.replace_range(start..=end, &self.filled(&name));
        }
        let mut text = body.to_owned();
        while let Some(start) = text.find('<') {
            let end = start + text[start..].find('>').unwrap();
            let name = text[start + 1..end].to_owned();
            text.replace_range(start..=end, &self.filled(&name));
        }
        let body = if text.is_empty() { Value::Null } else { serde_json::from_str(&text).expect(&text) };
        let adds = (method == "POST" && !collection.is_empty()).then_some(collection);
        Drawn { method, path, body, adds }
    }

    fn filled(&self, name: &str) -> String {
        match name {
            "name" => format!("n{}", self.below(40)),
            "number" => format!("{}", 1 + self.below(9)),
            "bool" => format!("{}", self.below(2) == 0),
            "image" => self.image.clone(),
            "project" => self.project.clone(),
            "me" => self.me.clone(),
            "service" => self.service.clone(),
            other => {
                let known = TABLE.iter().find(|row| row.2 == other).unwrap_or_else(|| panic!("no collection {other}"));
                self.one(known.2)
            }
        }
    }

    fn learn(&mut self, adds: &'static str, answer: &Answer) {
        let id = |object: &Value| ["id", "name"].iter().find_map(|key| object[*key].as_str().map(str::to_owned));
        let inner = answer.body.as_object().and_then(|body| body.values().find(|value| value["id"].is_string()));
        let found = if adds == "keypairs" {
            answer.body["keypair"]["name"].as_str().map(str::to_owned)
        } else {
            inner.and_then(id).or_else(|| id(&answer.body))
        };
        self.made.entry(adds).or_default().extend(found);
    }
}

/// Method, path, collection, body. `{x}` and `<x>` are filled with a drawn name or an id of collection x.
const TABLE: &[(&str, &str, &str, &str)] = &[
    ("POST", "/identity/v3/projects", "projects", r#"{"project":{"name":"<name>","domain_id":"default"}}"#),
    ("PATCH", "/identity/v3/projects/{projects}", "", r#"{"project":{"description":"<name>","enabled":<bool>}}"#),
    ("DELETE", "/identity/v3/projects/{projects}", "", ""),
    ("PUT", "/identity/v3/projects/{projects}/tags/{name}", "", ""),
    ("POST", "/identity/v3/users", "users", r#"{"user":{"name":"<name>","password":"secret","domain_id":"default"}}"#),
    ("PATCH", "/identity/v3/users/{users}", "", r#"{"user":{"enabled":<bool>,"password":"other"}}"#),
    ("DELETE", "/identity/v3/users/{users}", "", ""),
    ("POST", "/identity/v3/groups", "groups", r#"{"group":{"name":"<name>","domain_id":"default"}}"#),
    ("PUT", "/identity/v3/groups/{groups}/users/{users}", "", ""),
    ("DELETE", "/identity/v3/groups/{groups}", "", ""),
    ("POST", "/identity/v3/roles", "roles", r#"{"role":{"name":"<name>"}}"#),
    ("PUT", "/identity/v3/projects/{projects}/users/{users}/roles/{roles}", "", ""),
    ("DELETE", "/identity/v3/roles/{roles}", "", ""),
    ("POST", "/identity/v3/services", "services", r#"{"service":{"type":"<name>","name":"<name>"}}"#),
    (
        "POST",
        "/identity/v3/endpoints",
        "endpoints",
        r#"{"endpoint":{"service_id":"<services>","interface":"public","url":"http://<name>"}}"#,
    ),
    ("DELETE", "/identity/v3/services/{services}", "", ""),
    (
        "POST",
        "/identity/v3/credentials",
        "credentials",
        r#"{"credential":{"type":"cert","blob":"<name>","user_id":"<users>"}}"#,
    ),
    ("DELETE", "/identity/v3/credentials/{credentials}", "", ""),
    ("POST", "/image/v2/images", "images", r#"{"name":"<name>","disk_format":"raw","container_format":"bare"}"#),
    ("PATCH", "/image/v2/images/{images}", "", r#"[{"op":"replace","path":"/name","value":"<name>"}]"#),
    ("PUT", "/image/v2/images/{images}/tags/{name}", "", ""),
    ("POST", "/image/v2/images/{images}/members", "", r#"{"member":"<projects>"}"#),
    ("POST", "/image/v2/images/{images}/actions/deactivate", "", ""),
    ("DELETE", "/image/v2/images/{images}", "", ""),
    ("POST", "/network/v2.0/networks", "networks", r#"{"network":{"name":"<name>"}}"#),
    ("PUT", "/network/v2.0/networks/{networks}", "", r#"{"network":{"name":"<name>","admin_state_up":<bool>}}"#),
    ("DELETE", "/network/v2.0/networks/{networks}", "", ""),
    (
        "POST",
        "/network/v2.0/subnets",
        "subnets",
        r#"{"subnet":{"network_id":"<networks>","ip_version":4,"cidr":"10.<number>.0.0/24"}}"#,
    ),
    ("DELETE", "/network/v2.0/subnets/{subnets}", "", ""),
    ("POST", "/network/v2.0/ports", "ports", r#"{"port":{"network_id":"<networks>","name":"<name>"}}"#),
    ("PUT", "/network/v2.0/ports/{ports}", "", r#"{"port":{"name":"<name>","security_groups":["<groups_of_rules>"]}}"#),
    ("DELETE", "/network/v2.0/ports/{ports}", "", ""),
    ("POST", "/network/v2.0/routers", "routers", r#"{"router":{"name":"<name>"}}"#),
    ("PUT", "/network/v2.0/routers/{routers}/add_router_interface", "", r#"{"subnet_id":"<subnets>"}"#),
    ("PUT", "/network/v2.0/routers/{routers}/remove_router_interface", "", r#"{"subnet_id":"<subnets>"}"#),
    ("DELETE", "/network/v2.0/routers/{routers}", "", ""),
    ("POST", "/network/v2.0/security-groups", "groups_of_rules", r#"{"security_group":{"name":"<name>"}}"#),
    (
        "POST",
        "/network/v2.0/security-group-rules",
        "rules",
        r#"{"security_group_rule":{"security_group_id":"<groups_of_rules>","direction":"ingress","protocol":"tcp","port_range_min":<number>,"port_range_max":<number>0}}"#,
    ),
    ("DELETE", "/network/v2.0/security-group-rules/{rules}", "", ""),
    ("DELETE", "/network/v2.0/security-groups/{groups_of_rules}", "", ""),
    ("PUT", "/network/v2.0/networks/{networks}/tags/{name}", "", ""),
    ("PUT", "/network/v2.0/quotas/{project}", "", r#"{"quota":{"network":<number>00}}"#),
    ("POST", "/compute/v2.1/flavors", "flavors", r#"{"flavor":{"name":"<name>","vcpus":1,"ram":64,"disk":1}}"#),
    ("POST", "/compute/v2.1/flavors/{flavors}/os-extra_specs", "", r#"{"extra_specs":{"hw:<name>":"1"}}"#),
    ("DELETE", "/compute/v2.1/flavors/{flavors}", "", ""),
    ("POST", "/compute/v2.1/os-keypairs", "keypairs", r#"{"keypair":{"name":"<name>"}}"#),
    ("DELETE", "/compute/v2.1/os-keypairs/{keypairs}", "", ""),
    (
        "POST",
        "/compute/v2.1/servers",
        "servers",
        r#"{"server":{"name":"<name>","imageRef":"<image>","flavorRef":"<flavors>","networks":"none"}}"#,
    ),
    (
        "POST",
        "/compute/v2.1/servers",
        "servers",
        r#"{"server":{"name":"<name>","imageRef":"<image>","flavorRef":"<flavors>","networks":[{"uuid":"<networks>"}]}}"#,
    ),
    (
        "POST",
        "/compute/v2.1/servers",
        "servers",
        r#"{"server":{"name":"<name>","imageRef":"<image>","flavorRef":"<flavors>","networks":"none","min_count":2}}"#,
    ),
    ("PUT", "/compute/v2.1/servers/{servers}", "", r#"{"server":{"name":"<name>"}}"#),
    ("POST", "/compute/v2.1/servers/{servers}/action", "", r#"{"os-stop":null}"#),
    ("POST", "/compute/v2.1/servers/{servers}/action", "", r#"{"os-start":null}"#),
    ("POST", "/compute/v2.1/servers/{servers}/action", "", r#"{"pause":null}"#),
    ("POST", "/compute/v2.1/servers/{servers}/action", "", r#"{"reboot":{"type":"HARD"}}"#),
    ("POST", "/compute/v2.1/servers/{servers}/action", "", r#"{"lock":null}"#),
    ("POST", "/compute/v2.1/servers/{servers}/action", "", r#"{"unlock":null}"#),
    ("POST", "/compute/v2.1/servers/{servers}/action", "", r#"{"os-resetState":{"state":"error"}}"#),
    ("POST", "/compute/v2.1/servers/{servers}/os-interface", "", r#"{"interfaceAttachment":{"net_id":"<networks>"}}"#),
    ("POST", "/compute/v2.1/servers/{servers}/metadata", "", r#"{"metadata":{"<name>":"<name>"}}"#),
    ("PUT", "/compute/v2.1/servers/{servers}/tags/{name}", "", ""),
    ("DELETE", "/compute/v2.1/servers/{servers}", "", ""),
    ("PUT", "/compute/v2.1/os-quota-sets/{project}", "", r#"{"quota_set":{"instances":<number>0}}"#),
    ("POST", "/identity/v3/domains", "domains", r#"{"domain":{"name":"<name>"}}"#),
    ("PATCH", "/identity/v3/domains/{domains}", "", r#"{"domain":{"enabled":<bool>}}"#),
    ("DELETE", "/identity/v3/domains/{domains}", "", ""),
    ("POST", "/identity/v3/regions", "regions", r#"{"region":{"id":"<name>","description":"x"}}"#),
    ("DELETE", "/identity/v3/regions/{name}", "", ""),
    (
        "POST",
        "/identity/v3/users/{me}/application_credentials",
        "app",
        r#"{"application_credential":{"name":"<name>"}}"#,
    ),
    ("DELETE", "/identity/v3/users/{me}/application_credentials/{app}", "", ""),
    ("POST", "/identity/v3/users/{me}/credentials/OS-EC2", "", r#"{"tenant_id":"<project>"}"#),
    (
        "POST",
        "/identity/v3/registered_limits",
        "",
        r#"{"registered_limits":[{"service_id":"<services>","resource_name":"<name>","default_limit":<number>}]}"#,
    ),
    ("PUT", "/identity/v3/roles/{roles}/implies/{roles}", "", ""),
    ("PATCH", "/identity/v3/users/{users}", "", r#"{"user":{"name":"<name>"}}"#),
    ("DELETE", "/identity/v3/groups/{groups}/users/{users}", "", ""),
    ("DELETE", "/image/v2/images/{images}/tags/{name}", "", ""),
    ("PATCH", "/image/v2/images/{images}", "", r#"[{"op":"add","path":"/owner","value":"<projects>"}]"#),
    ("POST", "/network/v2.0/networks", "externals", r#"{"network":{"name":"<name>","router:external":true}}"#),
    (
        "POST",
        "/network/v2.0/subnets",
        "",
        r#"{"subnet":{"network_id":"<externals>","ip_version":4,"cidr":"172.16.<number>.0/24"}}"#,
    ),
    ("POST", "/network/v2.0/floatingips", "floating", r#"{"floatingip":{"floating_network_id":"<externals>"}}"#),
    ("PUT", "/network/v2.0/floatingips/{floating}", "", r#"{"floatingip":{"port_id":"<ports>"}}"#),
    ("DELETE", "/network/v2.0/floatingips/{floating}", "", ""),
    (
        "PUT",
        "/network/v2.0/routers/{routers}",
        "",
        r#"{"router":{"external_gateway_info":{"network_id":"<externals>"}}}"#,
    ),
    ("PUT", "/network/v2.0/subnets/{subnets}", "", r#"{"subnet":{"name":"<name>","enable_dhcp":<bool>}}"#),
    ("DELETE", "/network/v2.0/quotas/{project}", "", ""),
    ("DELETE", "/network/v2.0/networks/{networks}/tags/{name}", "", ""),
    ("POST", "/compute/v2.1/flavors/{flavors}/action", "", r#"{"addTenantAccess":{"tenant":"<project>"}}"#),
    ("PUT", "/compute/v2.1/os-quota-class-sets/default", "", r#"{"quota_class_set":{"cores":<number>00}}"#),
    ("PUT", "/compute/v2.1/os-services/{service}", "", r#"{"status":"disabled","disabled_reason":"<name>"}"#),
    ("PUT", "/compute/v2.1/os-services/{service}", "", r#"{"status":"enabled"}"#),
    ("POST", "/compute/v2.1/servers/{servers}/action", "", r#"{"unpause":null}"#),
    ("POST", "/compute/v2.1/servers/{servers}/action", "", r#"{"suspend":null}"#),
    ("POST", "/compute/v2.1/servers/{servers}/action", "", r#"{"resume":null}"#),
    ("POST", "/compute/v2.1/servers/{servers}/action", "", r#"{"addSecurityGroup":{"name":"<name>"}}"#),
    ("POST", "/compute/v2.1/servers/{servers}/action", "", r#"{"forceDelete":null}"#),
    ("DELETE", "/compute/v2.1/servers/{servers}/metadata/{name}", "", ""),
    ("DELETE", "/compute/v2.1/servers/{servers}/os-interface/{ports}", "", ""),
    ("DELETE", "/compute/v2.1/os-quota-sets/{project}", "", ""),
];

const LISTS: [&str; 6] = [
    "/identity/v3/users",
    "/identity/v3/projects",
    "/image/v2/images",
    "/network/v2.0/ports",
    "/compute/v2.1/servers/detail",
    "/compute/v2.1/os-quota-sets/{project}/detail",
];

#[tokio::test(flavor = "multi_thread")]
async fn the_plan_equals_what_then_happens() {
    let (mut compared, mut refused, mut disturbed) = (0, 0, 0);
    for seed in SEEDS {
        let cloud = TestCloud::start(3).await;
        let image = cloud.image().await;
        let own = cloud.get("/identity/v3/projects?name=demo").await["projects"][0]["id"].as_str().unwrap().to_owned();
        let me = cloud.get("/identity/v3/users?name=admin").await["users"][0]["id"].as_str().unwrap().to_owned();
        let service = cloud.get("/compute/v2.1/os-services").await["services"][0]["id"].as_str().unwrap().to_owned();
        let random = base::random::SeededRandom::new(seed);
        let mut drawer = Drawer { random, made: BTreeMap::new(), image, project: own, me, service };
        let mut mirror = Mirror::new(&cloud).await;
        for step in 0..CALLS {
            let drawn = drawer.draw();
            cloud.settle().await;
            mirror.follow(&cloud, "none").await;
            let what = format!("seed {seed} step {step}: {} {} {}", drawn.method, drawn.path, drawn.body);
            let before = if step.is_multiple_of(10) { Some(lists(&cloud, &drawer.project).await) } else { None };
            let plan =
                cloud.call(&cloud.admin, drawn.method, &format!("{}?dry_run=true", drawn.path), &drawn.body, &[]).await;
            let (changes, others) = mirror.follow(&cloud, &plan.request_id()).await;
            assert_eq!(changes.len(), 0, "{what}: the dry run has written");
            if let Some(before) = before.filter(|_| !others) {
                assert_eq!(before, lists(&cloud, &drawer.project).await, "{what}");
            }
            let path = format!("{}?dry_run=true", drawn.path);
            let member = cloud.call(&cloud.demo, drawn.method, &path, &drawn.body, &[]).await;
            reads_only_its_own(&member.body["dry_run"], &drawer.project, &what);
            let known = mirror.ids();
            let usage = usages(&cloud, &plan.body).await;
            let real = cloud.call(&cloud.admin, drawn.method, &drawn.path, &drawn.body, &[]).await;
            if real.status >= 400 {
                assert_eq!((plan.status, &plan.body), (real.status, &real.body), "{what}");
                assert!(real.status < 500, "{what}: {}", real.body);
                refused += 1;
                continue;
            }
            assert_eq!(plan.status, 200, "{what}: {}", plan.body);
            let told = &plan.body["dry_run"];
            assert_eq!(told["status"].as_u64(), Some(u64::from(real.status)), "{what}");
            let after = usages(&cloud, &plan.body).await;
            let (changes, others) = mirror.follow(&cloud, &real.request_id()).await;
            if let Some(adds) = drawn.adds {
                drawer.learn(adds, &real);
            }
            if others {
                disturbed += 1;
                continue;
            }
            let normal = || Normal { known: known.clone(), seen: BTreeMap::new() };
            let expected = normal().value("", &planned(told));
            let found = normal().value("", &shape(&changes));
            assert_eq!(differing(&expected, &found), None, "{what}");
            for (n, row) in told["quota"].as_array().into_iter().flatten().enumerate() {
                assert_eq!(
                    (row["from"].as_i64(), row["to"].as_i64()),
                    (Some(usage[n]), Some(after[n])),
                    "{what}: {row}"
                );
            }
            compared += 1;
        }
    }
    println!("{compared} compared, {refused} refused, {disturbed} disturbed");
    assert!(compared > 250 && refused > 100 && disturbed < 40, "{compared} {refused} {disturbed}");
}

/// What a member of the project reads: no host, no document and no counter of others.
fn reads_only_its_own(plan: &Value, project: &str, what: &str) {
    let text = plan.to_string();
    assert!(!(1..=3).any(|host| text.contains(&format!("\"sim{host}\""))), "{what}: {text}");
    for change in plan["changes"].as_array().into_iter().flatten() {
        let owner = change["project_id"].as_str();
        assert!(owner.is_none_or(|owner| owner == project), "{what}: {change}");
    }
    for row in plan["quota"].as_array().into_iter().flatten() {
        assert!(!row["scope"].as_str().unwrap().starts_with("host:"), "{what}: {row}");
    }
}

/// The first lines in which the plan differs from what happened.
fn differing(plan: &Value, found: &Value) -> Option<String> {
    let (plan, found) = (serde_json::to_string_pretty(plan).unwrap(), serde_json::to_string_pretty(found).unwrap());
    let place = plan.lines().zip(found.lines()).position(|(a, b)| a != b);
    let place = place.or((plan.lines().count() != found.lines().count()).then_some(0))?;
    let part = |text: &str| text.lines().skip(place.saturating_sub(6)).take(14).collect::<Vec<_>>().join("\n");
    Some(format!("planned:\n{}\nhappened:\n{}", part(&plan), part(&found)))
}

async fn lists(cloud: &TestCloud, project: &str) -> Vec<Value> {
    let mut all = Vec::new();
    for path in LISTS {
        all.push(cloud.get(&path.replace("{project}", project)).await);
    }
    all
}

/// What the ledger says of each row that the plan names.
async fn usages(cloud: &TestCloud, plan: &Value) -> Vec<i64> {
    let mut found = Vec::new();
    for row in plan["dry_run"]["quota"].as_array().into_iter().flatten() {
        let (scope, resource) =
            (row["scope"].as_str().unwrap().to_owned(), row["resource"].as_str().unwrap().to_owned());
        found.push(cloud.cloud.store().read(move |reader| Ok(reader.usage(&scope, &resource)?.used)).await.unwrap());
    }
    found
}
