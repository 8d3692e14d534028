//! A walk over the reads of the route table: what each answers for a moment of the past is what it answered then.

use crate::cloud::{Answer, TestCloud};
use rest::Past;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// What is not written down, or is of the answer itself: links that name the query, what a host's session alone knows,
/// secrets.
const ASIDE: [&str; 6] = ["links", "first", "next", "user_data", "OS-EXT-SRV-ATTR:user_data", "blob"];

/// By operation, what else is known now and not then.
const ASIDE_OF: [(&str, &[&str]); 6] = [
    ("services:list", &["state", "updated_at"]),
    ("hypervisors:", &["state"]),
    ("availability_zones:detail", &["available"]),
    ("servers:", &["host_status"]),
    // These count up to the moment that is asked for; the moment is that of the last commit.
    (
        "usage:",
        &[
            "hours",
            "total_hours",
            "total_vcpus_usage",
            "total_memory_mb_usage",
            "total_local_gb_usage",
            "uptime",
            "start",
            "stop",
        ],
    ),
    ("audit_log:", &["period_beginning", "period_ending"]),
];

fn without(value: &mut Value, names: &[&str]) {
    match value {
        Value::Object(fields) => {
            fields.retain(|name, _| !names.contains(&name.as_str()) && !name.ends_with("_links"));
            fields.values_mut().for_each(|value| without(value, names));
        }
        Value::Array(items) => items.iter_mut().for_each(|value| without(value, names)),
        _ => {}
    }
}

fn comparable(operation: &str, answer: &Answer) -> (u16, Value) {
    let mut names = ASIDE.to_vec();
    for (of, more) in ASIDE_OF {
        if operation.starts_with(of) {
            names.extend(more);
        }
    }
    let mut body = answer.body.clone();
    without(&mut body, &names);
    (answer.status, body)
}

struct World {
    cloud: TestCloud,
    /// What stands for a placeholder behind a segment of a path.
    ids: BTreeMap<&'static str, String>,
}

impl World {
    async fn ask(&self, method: &str, path: &str, body: Value) -> Value {
        let answer = self.cloud.call(&self.cloud.admin, method, path, &body, &[]).await;
        assert!(answer.status < 300, "{method} {path}: {} {}", answer.status, answer.body);
        answer.body
    }

    /// Creates and remembers the id.
    async fn make(&mut self, segment: &'static str, path: &str, body: Value) -> String {
        let answer = self.ask("POST", path, body).await;
        let id = answer.as_object().and_then(|body| body.values().next()?.get("id")?.as_str().map(str::to_owned));
        let id = id.or_else(|| answer["id"].as_str().map(str::to_owned)).unwrap_or_else(|| panic!("{path}: {answer}"));
        self.ids.insert(segment, id.clone());
        id
    }

    async fn first(&self, path: &str, list: &str) -> Value {
        self.cloud.get(path).await[list][0].clone()
    }

    async fn make_identity(&mut self) {
        let identity = "/identity/v3";
        let project = self
            .make("projects", &format!("{identity}/projects"), json!({"project": {"name": "blue", "tags": ["t1"]}}))
            .await;
        let user = self
            .make("users", &format!("{identity}/users"), json!({"user": {"name": "ann", "password": "secret"}}))
            .await;
        let group = self.make("groups", &format!("{identity}/groups"), json!({"group": {"name": "painters"}})).await;
        let role = self.make("roles", &format!("{identity}/roles"), json!({"role": {"name": "brush"}})).await;
        let other = self.ask("POST", &format!("{identity}/roles"), json!({"role": {"name": "hair"}})).await;
        let other = other["role"]["id"].as_str().unwrap().to_owned();
        self.ask("PUT", &format!("{identity}/roles/{role}/implies/{other}"), Value::Null).await;
        self.ids.insert("implies", other);
        self.ask("PUT", &format!("{identity}/groups/{group}/users/{user}"), Value::Null).await;
        for place in [format!("projects/{project}"), "domains/default".into(), "system".into()] {
            for actor in [format!("users/{user}"), format!("groups/{group}")] {
                self.ask("PUT", &format!("{identity}/{place}/{actor}/roles/{role}"), Value::Null).await;
            }
        }
        self.ids.insert("domains", "default".into());
        self.ids.insert("regions", "RegionOne".into());
        let service = self.first("/identity/v3/services", "services").await;
        self.ids.insert("services", service["id"].as_str().unwrap().into());
        let endpoint = self.first("/identity/v3/endpoints", "endpoints").await;
        self.ids.insert("endpoints", endpoint["id"].as_str().unwrap().into());
        let credential = json!({"credential": {"type": "cert", "blob": "x", "user_id": user}});
        self.make("credentials", &format!("{identity}/credentials"), credential).await;
        let limit = json!({"registered_limits": [
            {"service_id": self.ids["services"], "resource_name": "brushes", "default_limit": 5}]});
        let limits = self.ask("POST", &format!("{identity}/registered_limits"), limit).await;
        self.ids.insert("registered_limits", limits["registered_limits"][0]["id"].as_str().unwrap().into());
        let limit = json!({"limits": [{"service_id": self.ids["services"], "resource_name": "brushes",
            "resource_limit": 3, "project_id": project}]});
        let limits = self.ask("POST", &format!("{identity}/limits"), limit).await;
        self.ids.insert("limits", limits["limits"][0]["id"].as_str().unwrap().into());
        self.ids.insert("tags", "t1".into());
    }

    async fn make_network(&mut self) {
        let network = "/network/v2.0";
        let id = self.make("networks", &format!("{network}/networks"), json!({"network": {"name": "lan"}})).await;
        self.ids.insert("network-ip-availabilities", id.clone());
        let subnet = json!({"subnet": {"network_id": id, "ip_version": 4, "cidr": "10.9.0.0/24", "name": "sub"}});
        let subnet = self.make("subnets", &format!("{network}/subnets"), subnet).await;
        self.make("ports", &format!("{network}/ports"), json!({"port": {"network_id": id, "name": "hole"}})).await;
        let router = self.make("routers", &format!("{network}/routers"), json!({"router": {"name": "edge"}})).await;
        self.ask("PUT", &format!("{network}/routers/{router}/add_router_interface"), json!({"subnet_id": subnet}))
            .await;
        let group = json!({"security_group": {"name": "web"}});
        let group = self.make("security-groups", &format!("{network}/security-groups"), group).await;
        let rule = json!({"security_group_rule": {"security_group_id": group, "direction": "ingress", "protocol": "tcp",
            "port_range_min": 80, "port_range_max": 80}});
        self.make("security-group-rules", &format!("{network}/security-group-rules"), rule).await;
        let public = json!({"network": {"name": "public", "router:external": true}});
        let public = self.ask("POST", &format!("{network}/networks"), public).await["network"]["id"].clone();
        let range = json!({"subnet": {"network_id": public, "ip_version": 4, "cidr": "203.0.113.0/24"}});
        self.ask("POST", &format!("{network}/subnets"), range).await;
        let floating = json!({"floatingip": {"floating_network_id": public}});
        self.make("floatingips", &format!("{network}/floatingips"), floating).await;
        for kind in ["networks", "subnets", "ports", "routers", "security-groups", "floatingips"] {
            let path = format!("{network}/{kind}/{}/tags/t1", self.ids[kind]);
            self.ask("PUT", &path, Value::Null).await;
        }
        self.ids.insert("extensions", "router".into());
    }

    async fn make_compute(&mut self) {
        let compute = "/compute/v2.1";
        let image = self.cloud.image().await;
        let flavor = json!({"flavor": {"name": "small", "ram": 64, "vcpus": 1, "disk": 1}});
        let flavor = self.make("flavors", &format!("{compute}/flavors"), flavor).await;
        let specs = json!({"extra_specs": {"hw:key": "v"}});
        self.ask("POST", &format!("{compute}/flavors/{flavor}/os-extra_specs"), specs).await;
        self.ids.insert("os-extra_specs", "hw:key".into());
        self.ask(
            "POST",
            &format!("{compute}/os-keypairs"),
            json!({"keypair": {"name": "key", "type": "ssh",
            "public_key": "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIIdGvVRTGPFIHvNAEJlPkXj1aBxs1KFdZwBn3hNjKBZk a@b"}}),
        )
        .await;
        self.ids.insert("os-keypairs", "key".into());
        let server = json!({"server": {"name": "vm", "flavorRef": flavor, "imageRef": image, "key_name": "key",
            "metadata": {"colour": "red"}, "tags": ["t1"], "networks": [{"uuid": self.ids["networks"]}]}});
        let server = self.make("servers", &format!("{compute}/servers"), server).await;
        self.ids.insert("metadata", "colour".into());
        self.ids.insert("ips", "lan".into());
        self.ids.insert("images", image.clone());
        for _ in 0..400 {
            if self.cloud.get(&format!("{compute}/servers/{server}")).await["server"]["status"] == "ACTIVE" {
                break;
            }
            self.cloud.settle().await;
        }
        let port = self.first(&format!("{compute}/servers/{server}/os-interface"), "interfaceAttachments").await;
        self.ids.insert("os-interface", port["port_id"].as_str().unwrap().into());
        let action = self.first(&format!("{compute}/servers/{server}/os-instance-actions"), "instanceActions").await;
        self.ids.insert("os-instance-actions", action["request_id"].as_str().unwrap().into());
        let hypervisor = self.first(&format!("{compute}/os-hypervisors"), "hypervisors").await;
        self.ids.insert("os-hypervisors", hypervisor["id"].as_str().unwrap().into());
        let project = self.cloud.get(&format!("{compute}/servers/{server}")).await["server"]["tenant_id"].clone();
        for segment in ["os-quota-sets", "os-simple-tenant-usage", "quotas"] {
            self.ids.insert(segment, project.as_str().unwrap().into());
        }
        self.ids.insert("os-quota-class-sets", "default".into());
        self.ids.insert("os-instance_usage_audit_log", "2026-01-01 00:00:00".into());
        self.ask("PUT", &format!("/network/v2.0/quotas/{}", self.ids["quotas"]), json!({"quota": {"port": 77}})).await;
        let path = format!("{compute}/os-quota-sets/{}", self.ids["quotas"]);
        self.ask("PUT", &path, json!({"quota_set": {"cores": 33}})).await;
        let shared = [json!({"op": "replace", "path": "/visibility", "value": "shared"})];
        self.ask("PATCH", &format!("/image/v2/images/{image}"), json!(shared)).await;
        let member = json!({"member": self.ids["projects"]});
        self.ask("POST", &format!("/image/v2/images/{image}/members"), member).await;
        self.ids.insert("members", self.ids["projects"].clone());
    }

    /// Changes or removes everything of which something was read.
    async fn change_everything(&mut self) {
        let ids = self.ids.clone();
        let id = |segment: &str| ids[segment].clone();
        let named = |what: &str| json!({what: {"name": "changed"}});
        for (what, segment) in
            [("project", "projects"), ("group", "groups"), ("role", "roles"), ("service", "services")]
        {
            self.ask("PATCH", &format!("/identity/v3/{segment}/{}", id(segment)), named(what)).await;
        }
        self.ask("PUT", &format!("/identity/v3/projects/{}/tags", id("projects")), json!({"tags": ["t2"]})).await;
        self.ask("DELETE", &format!("/identity/v3/limits/{}", id("limits")), Value::Null).await;
        self.ask("DELETE", &format!("/identity/v3/registered_limits/{}", id("registered_limits")), Value::Null).await;
        self.ask("DELETE", &format!("/identity/v3/credentials/{}", id("credentials")), Value::Null).await;
        self.ask("DELETE", &format!("/identity/v3/users/{}", id("users")), Value::Null).await;
        let compute = "/compute/v2.1";
        let server = format!("{compute}/servers/{}", id("servers"));
        self.ask("PUT", &server, named("server")).await;
        self.ask("DELETE", &server, Value::Null).await;
        self.ask("DELETE", &format!("{compute}/flavors/{}", id("flavors")), Value::Null).await;
        self.ask("DELETE", &format!("{compute}/os-keypairs/key"), Value::Null).await;
        self.ask("DELETE", &format!("/network/v2.0/quotas/{}", id("quotas")), Value::Null).await;
        self.ask("DELETE", &format!("{compute}/os-quota-sets/{}", id("quotas")), Value::Null).await;
        self.cloud.settle().await;
        let network = "/network/v2.0";
        let back = json!({"subnet_id": id("subnets")});
        self.ask("PUT", &format!("{network}/routers/{}/remove_router_interface", id("routers")), back).await;
        for segment in ["security-group-rules", "security-groups", "floatingips", "routers"] {
            self.ask("DELETE", &format!("{network}/{segment}/{}", id(segment)), Value::Null).await;
        }
        self.ask("PUT", &format!("{network}/networks/{}", id("networks")), named("network")).await;
        self.ask("DELETE", &format!("{network}/ports/{}", id("ports")), Value::Null).await;
        self.ask("DELETE", &format!("/image/v2/images/{}", id("images")), Value::Null).await;
        self.cloud.settle().await;
    }

    /// The path with its placeholders filled, or none where nothing is known to stand there.
    fn fill(&self, path: &str) -> Option<String> {
        let mut filled: Vec<String> = Vec::new();
        for segment in path.split('/') {
            if !segment.starts_with('{') {
                filled.push(segment.to_owned());
                continue;
            }
            let before = filled.last()?.clone();
            filled.push(self.ids.get(before.as_str())?.replace(' ', "%20"));
        }
        Some(filled.join("/"))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_read_answers_for_the_past_as_it_answered_then() {
    let mut world = World { cloud: TestCloud::start(1).await, ids: BTreeMap::new() };
    world.make_identity().await;
    world.make_network().await;
    world.make_compute().await;
    world.cloud.settle().await;
    let rev = world.cloud.cloud.store().rev();
    let mut asked: Vec<(String, String, String, Answer)> = Vec::new();
    let (mut refusing, mut unknown) = (Vec::new(), Vec::new());
    for service in world.cloud.cloud.gateway().services() {
        for route in service.routes.iter().filter(|route| route.method == http::Method::GET) {
            let Some(path) = world.fill(&format!("{}{}", service.prefix, route.path)) else {
                unknown.push(route.operation);
                continue;
            };
            let version = route.until.map(|until| format!("compute {until}")).unwrap_or("compute 2.79".into());
            if let Past::Not(why) = route.past {
                refusing.push((path, why));
                continue;
            }
            let answer = world
                .cloud
                .call(&world.cloud.admin, "GET", &path, &Value::Null, &[("openstack-api-version", &version)])
                .await;
            asked.push((route.operation.to_owned(), path, version, answer));
        }
    }
    let found = asked.iter().filter(|(.., answer)| answer.status < 400).count();
    let missing: Vec<_> = asked
        .iter()
        .filter(|(.., answer)| answer.status >= 400)
        .map(|(_, path, _, answer)| (path, answer.status))
        .collect();
    assert_eq!(world.cloud.cloud.store().rev(), rev, "a read has written");
    world.change_everything().await;
    let mut wrong = Vec::new();
    let mut changed = 0;
    for (operation, path, version, then) in &asked {
        let headers = [("openstack-api-version", version.as_str())];
        let past = world
            .cloud
            .call(&world.cloud.admin, "GET", &format!("{path}?as_of=rev:{rev}"), &Value::Null, &headers)
            .await;
        let (past, then) = (comparable(operation, &past), comparable(operation, then));
        if past != then {
            wrong.push(format!("{operation} {path}\n  then {then:?}\n  past {past:?}"));
        }
        let now = world.cloud.call(&world.cloud.admin, "GET", path, &Value::Null, &headers).await;
        changed += usize::from(comparable(operation, &now) != then);
    }
    assert!(wrong.is_empty(), "{} of {} differ:\n{}", wrong.len(), asked.len(), wrong.join("\n"));
    for (path, why) in &refusing {
        let answer =
            world.cloud.call(&world.cloud.admin, "GET", &format!("{path}?as_of=rev:{rev}"), &Value::Null, &[]).await;
        assert_eq!(answer.status, 400, "{path}: {}", answer.body);
        assert!(answer.body.to_string().contains(why), "{path}: {}", answer.body);
    }
    assert!(
        found > 140 && changed > 80,
        "{found} found, {changed} changed; not found: {missing:?}; not asked: {unknown:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_moment_that_history_does_not_reach_is_refused_with_the_range() {
    let cloud = TestCloud::start(0).await;
    cloud.settle().await;
    let newest = cloud.cloud.store().rev();
    // Also where nothing is read from the store.
    for path in ["/compute/v2.1/flavors", "/network/v2.0/extensions", "/identity/v3/users", "/image/v2/images"] {
        for asked in ["rev:0", "0", "2020-01-01T00:00:00Z", "2999-01-01", "rev:99999999", "tomorrow"] {
            let answer = cloud.call(&cloud.admin, "GET", &format!("{path}?as_of={asked}"), &Value::Null, &[]).await;
            let text = answer.body.to_string();
            assert_eq!(answer.status, 400, "{path} {asked}: {text}");
            assert!(text.contains(&format!("rev:1 to rev:{newest}")) || asked == "tomorrow", "{path} {asked}: {text}");
        }
        let answer = cloud.call(&cloud.admin, "GET", &format!("{path}?as_of={newest}"), &Value::Null, &[]).await;
        assert_eq!(answer.status, 200, "{path}: {}", answer.body);
    }
    let answer = cloud.call(&cloud.admin, "DELETE", "/compute/v2.1/flavors/1?as_of=1", &Value::Null, &[]).await;
    assert_eq!(answer.status, 400, "the past is not changed");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_past_beyond_its_retention_is_forgotten_and_what_lives_is_not() {
    use base::{Env, clock::ManualClock};
    let folder = tempfile::tempdir().unwrap();
    let url = format!("sqlite:{}", folder.path().join("store.db").display());
    let clock = std::sync::Arc::new(ManualClock::default());
    clock.set(base::Timestamp(1_800_000_000_000_000));
    let env = Env { clock: clock.clone(), ..Env::system() };
    let networks = "/network/v2.0/networks";
    let names = |answer: Answer| -> Vec<String> {
        let all = answer.body["networks"].as_array().unwrap().clone();
        all.iter().map(|network| network["name"].as_str().unwrap().to_owned()).collect()
    };
    let cloud = TestCloud::open(&url, env.clone(), 0).await;
    for name in ["stays", "goes"] {
        let body = json!({"network": {"name": name}});
        let made = cloud.call(&cloud.demo, "POST", networks, &body, &[]).await;
        assert_eq!(made.status, 201, "{}", made.body);
        if name == "goes" {
            clock.advance_ms(1_000);
            let id = made.body["network"]["id"].as_str().unwrap().to_owned();
            let gone = cloud.call(&cloud.demo, "DELETE", &format!("{networks}/{id}"), &Value::Null, &[]).await;
            assert_eq!(gone.status, 204);
        }
    }
    let then = format!("{networks}?as_of=2027-01-15T08:00:00Z");
    assert_eq!(names(cloud.call(&cloud.demo, "GET", &then, &Value::Null, &[]).await), ["stays", "goes"]);
    drop(cloud);
    clock.advance_ms(1_000 * (control::HISTORY_RETENTION_S + 10));
    let cloud = TestCloud::open(&url, env, 0).await;
    let until = std::time::Instant::now() + std::time::Duration::from_secs(20);
    loop {
        let answer = cloud.call(&cloud.demo, "GET", &then, &Value::Null, &[]).await;
        if answer.status == 400 {
            assert!(answer.body.to_string().contains("2027"), "the range is named: {}", answer.body);
            break;
        }
        assert!(std::time::Instant::now() < until, "{} {}", answer.status, answer.body);
        tokio::task::yield_now().await;
    }
    assert_eq!(names(cloud.call(&cloud.demo, "GET", networks, &Value::Null, &[]).await), ["stays"]);
}
