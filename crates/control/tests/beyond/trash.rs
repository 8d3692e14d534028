//! What is deleted rests, and comes back: servers with all they had, whole projects, and nothing secret.

use crate::cloud::{Answer, TestCloud, options};
use base::Env;
use control::Cloud;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;

const NULL: Value = Value::Null;

impl TestCloud {
    async fn done(&self, method: &str, path: &str, body: Value) -> Answer {
        let answer = self.call(&self.admin, method, path, &body, &[]).await;
        assert!((200..300).contains(&answer.status), "{method} {path}: {} {}", answer.status, answer.body);
        answer
    }

    async fn made(&self, path: &str, key: &str, body: Value) -> String {
        let answer = self.done("POST", path, json!({ key: body })).await;
        answer.body[key]["id"].as_str().unwrap_or_default().to_owned()
    }

    /// Deletes, and returns the request's id.
    async fn gone(&self, path: &str) -> String {
        self.done("DELETE", path, NULL).await.request_id()
    }

    async fn undo(&self, token: &str, request: &str, partial: bool) -> Answer {
        let query = if partial { "?partial=true" } else { "" };
        self.call(token, "POST", &format!("/nubo/v1/undo/{request}{query}"), &NULL, &[]).await
    }

    async fn status_of(&self, path: &str) -> u16 {
        self.call(&self.admin, "GET", path, &NULL, &[]).await.status
    }

    async fn until(&self, path: &str, pointer: &str, wanted: &str) {
        for _ in 0..2000 {
            if self.get(path).await.pointer(pointer).and_then(Value::as_str) == Some(wanted) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        panic!("{path}{pointer} never became {wanted}: {}", self.get(path).await);
    }

    async fn net(&self, cidr: &str) -> (String, String) {
        let network = self.made("/network/v2.0/networks", "network", json!({"name": "net"})).await;
        let body = json!({"network_id": network, "ip_version": 4, "cidr": cidr});
        let subnet = self.made("/network/v2.0/subnets", "subnet", body).await;
        (network, subnet)
    }

    async fn flavor(&self) -> String {
        let body = json!({"name": "small", "ram": 64, "vcpus": 1, "disk": 1});
        self.made("/compute/v2.1/flavors", "flavor", body).await
    }

    async fn server(&self, flavor: &str, image: &str, network: &str, name: &str) -> String {
        let body = json!({"name": name, "flavorRef": flavor, "imageRef": image, "networks": [{"uuid": network}]});
        let id = self.made("/compute/v2.1/servers", "server", body).await;
        self.until(&format!("/compute/v2.1/servers/{id}"), "/server/status", "ACTIVE").await;
        id
    }

    async fn used(&self, scope: &str, resource: &'static str) -> i64 {
        let scope = scope.to_owned();
        self.cloud.store().read(move |reader| Ok(reader.usage(&scope, resource)?.used)).await.unwrap()
    }

    async fn project(&self) -> String {
        let all = self.get("/identity/v3/projects?name=demo").await;
        all["projects"][0]["id"].as_str().unwrap().to_owned()
    }

    async fn no_findings(&self) {
        let audit = self.get("/nubo/v1/audit").await;
        assert_eq!(audit["findings"], json!([]), "{audit}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_server_comes_back_with_id_address_mac_and_disk() {
    let cloud = TestCloud::start(1).await;
    let (flavor, image, (network, _)) = (cloud.flavor().await, cloud.image().await, cloud.net("10.9.0.0/24").await);
    let server = cloud.server(&flavor, &image, &network, "one").await;
    let path = format!("/compute/v2.1/servers/{server}");
    let project = cloud.project().await;
    let ports = cloud.get(&format!("/network/v2.0/ports?device_id={server}")).await;
    let before = cloud.get(&path).await["server"].clone();
    let scope = format!("project:{project}");
    let held = (cloud.used(&scope, "cores").await, cloud.used(&project, "port").await);

    let request = cloud.gone(&path).await;
    assert_eq!(cloud.status_of(&path).await, 404, "gone at once");
    assert_eq!(cloud.get(&format!("/network/v2.0/ports?device_id={server}")).await["ports"], json!([]));
    assert_eq!((cloud.used(&scope, "cores").await, cloud.used(&project, "port").await), (0, held.1 - 1));
    assert_eq!((cloud.used("host:sim1", "VCPU").await, cloud.used("host:sim1", "DISK_GB").await), (0, 1));
    let trash = cloud.get("/nubo/v1/trash").await;
    let kinds: Vec<&str> =
        trash["trash"][0]["documents"].as_array().unwrap().iter().map(|it| it["kind"].as_str().unwrap()).collect();
    assert!(kinds.contains(&"server") && kinds.contains(&"port"), "{trash}");
    cloud.settle().await;
    cloud.no_findings().await;

    let plan = cloud.get(&format!("/nubo/v1/undo/{request}")).await;
    assert_eq!(plan["undo"]["collisions"], json!([]), "{plan}");
    assert_eq!(cloud.status_of(&path).await, 404, "a plan does nothing");
    let undone = cloud.undo(&cloud.admin, &request, false).await;
    assert_eq!(undone.status, 200, "{}", undone.body);
    cloud.until(&path, "/server/status", "ACTIVE").await;
    cloud.until(&format!("/network/v2.0/ports?device_id={server}"), "/ports/0/status", "ACTIVE").await;
    let after = cloud.get(&path).await["server"].clone();
    for key in ["id", "name", "created", "addresses", "hostId", "key_name", "flavor", "image", "metadata"] {
        assert_eq!(after[key], before[key], "{key}");
    }
    assert_eq!(cloud.get(&format!("/network/v2.0/ports?device_id={server}")).await, ports);
    assert_eq!((cloud.used(&scope, "cores").await, cloud.used(&project, "port").await), held);
    assert_eq!((cloud.used("host:sim1", "VCPU").await, cloud.used("host:sim1", "DISK_GB").await), (1, 1));
    assert_eq!(cloud.get("/nubo/v1/trash").await["trash"], json!([]));
    cloud.settle().await;
    cloud.no_findings().await;

    let again = cloud.undo(&cloud.admin, &request, false).await;
    assert_eq!(again.status, 409, "{}", again.body);
    assert!(again.body.to_string().contains("undone already"), "{}", again.body);
    // And once more around.
    let request = cloud.gone(&path).await;
    assert_eq!(cloud.undo(&cloud.admin, &request, false).await.status, 200);
    cloud.until(&path, "/server/status", "ACTIVE").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_taken_address_is_named_and_the_rest_comes_back() {
    let cloud = TestCloud::start(1).await;
    let (flavor, image, (network, subnet)) =
        (cloud.flavor().await, cloud.image().await, cloud.net("10.9.0.0/24").await);
    let server = cloud.server(&flavor, &image, &network, "one").await;
    let ports = cloud.get(&format!("/network/v2.0/ports?device_id={server}")).await;
    let address = ports["ports"][0]["fixed_ips"][0]["ip_address"].clone();
    let request = cloud.gone(&format!("/compute/v2.1/servers/{server}")).await;
    let body = json!({"network_id": network, "fixed_ips": [{"subnet_id": subnet, "ip_address": address}]});
    let thief = cloud.made("/network/v2.0/ports", "port", body).await;
    let refused = cloud.undo(&cloud.admin, &request, false).await;
    let text = refused.body.to_string();
    assert_eq!(refused.status, 409, "{text}");
    assert!(
        text.contains(&thief) && text.contains(address.as_str().unwrap()) && text.contains("partial=true"),
        "{text}"
    );
    assert_eq!(cloud.status_of(&format!("/compute/v2.1/servers/{server}")).await, 404, "nothing was done");
    assert_eq!(cloud.undo(&cloud.admin, &request, true).await.status, 200);
    cloud.until(&format!("/compute/v2.1/servers/{server}"), "/server/status", "ACTIVE").await;
    assert_eq!(cloud.get(&format!("/compute/v2.1/servers/{server}")).await["server"]["addresses"], json!({}));
    cloud.settle().await;
    cloud.no_findings().await;
    // The port follows when its address is free.
    cloud.gone(&format!("/network/v2.0/ports/{thief}")).await;
    let rest = cloud.undo(&cloud.admin, &request, false).await;
    assert_eq!(rest.status, 200, "{}", rest.body);
    assert_eq!(
        cloud.get(&format!("/network/v2.0/ports?device_id={server}")).await["ports"][0]["id"],
        ports["ports"][0]["id"]
    );
    cloud.settle().await;
    cloud.no_findings().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_may_undo_what() {
    let cloud = TestCloud::start(1).await;
    let network =
        cloud.call(&cloud.demo, "POST", "/network/v2.0/networks", &json!({"network": {"name": "mine"}}), &[]).await;
    let path = format!("/network/v2.0/networks/{}", network.body["network"]["id"].as_str().unwrap());
    let by_demo = cloud.call(&cloud.demo, "DELETE", &path, &NULL, &[]).await.request_id();
    let other = cloud.token("admin", "admin", "admin").await;
    let foreign =
        cloud.call(&other, "POST", "/network/v2.0/networks", &json!({"network": {"name": "theirs"}}), &[]).await;
    let foreign = format!("/network/v2.0/networks/{}", foreign.body["network"]["id"].as_str().unwrap());
    let by_other = cloud.call(&other, "DELETE", &foreign, &NULL, &[]).await.request_id();
    assert_eq!(cloud.undo(&cloud.demo, &by_other, false).await.status, 404, "another project's request");
    assert_eq!(cloud.undo(&cloud.demo, "req-none", false).await.status, 404);
    assert_eq!(cloud.undo("", &by_demo, false).await.status, 401);
    let listed = cloud.call(&cloud.demo, "GET", "/nubo/v1/trash", &NULL, &[]).await.body.to_string();
    assert!(listed.contains("mine") && !listed.contains("theirs"), "{listed}");
    assert_eq!(cloud.undo(&cloud.demo, &by_demo, false).await.status, 200);
    let by_admin = cloud.gone(&path).await;
    let refused = cloud.undo(&cloud.demo, &by_admin, false).await;
    assert_eq!(refused.status, 403, "what an administrator did, a member does not take back: {}", refused.body);
    // An undo is not undone, and says so.
    let undo = cloud.undo(&cloud.admin, &by_admin, false).await.request_id();
    let refused = cloud.undo(&cloud.admin, &undo, false).await;
    assert!(refused.status == 409 && refused.body.to_string().contains("not undone"), "{}", refused.body);
    // Purged is gone.
    let request = cloud.gone(&path).await;
    let purge = format!("/nubo/v1/trash/{request}");
    assert_eq!(cloud.call(&cloud.demo, "DELETE", &purge, &NULL, &[]).await.status, 204);
    assert_eq!(cloud.call(&cloud.demo, "DELETE", &purge, &NULL, &[]).await.status, 404);
    assert_eq!(cloud.undo(&cloud.admin, &request, false).await.status, 409);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_touched_another_project_is_taken_back_by_an_administrator_alone() {
    let cloud = TestCloud::start(1).await;
    let admin = cloud.token("admin", "admin", "admin").await;
    let make = async |token: &str, path: &str, key: &str, body: Value| {
        let made = cloud.call(token, "POST", &format!("/network/v2.0/{path}"), &json!({ key: body }), &[]).await;
        assert_eq!(made.status, 201, "{path}: {}", made.body);
        made.body[key]["id"].as_str().unwrap().to_owned()
    };
    let public = make(&admin, "networks", "network", json!({"name": "public", "router:external": true})).await;
    let subnet = json!({"network_id": public, "cidr": "172.24.4.0/24", "ip_version": 4, "enable_dhcp": false});
    make(&admin, "subnets", "subnet", subnet).await;
    let network = make(&cloud.demo, "networks", "network", json!({"name": "mine"})).await;
    let subnet = json!({"network_id": network, "cidr": "10.3.0.0/24", "ip_version": 4});
    let subnet = make(&cloud.demo, "subnets", "subnet", subnet).await;
    let router = json!({"external_gateway_info": {"network_id": public}});
    let router = make(&cloud.demo, "routers", "router", router).await;
    let join = format!("/network/v2.0/routers/{router}/add_router_interface");
    cloud.call(&cloud.demo, "PUT", &join, &json!({"subnet_id": subnet}), &[]).await;
    let port = make(&cloud.demo, "ports", "port", json!({"network_id": network})).await;
    let floating = json!({"floating_network_id": public, "port_id": port});
    let floating = make(&admin, "floatingips", "floatingip", floating).await;
    let path = format!("/network/v2.0/ports/{port}");
    let deleted = cloud.call(&cloud.demo, "DELETE", &path, &NULL, &[]).await;
    assert_eq!(deleted.status, 204, "{}", deleted.body);
    let refused = cloud.undo(&cloud.demo, &deleted.request_id(), false).await;
    assert_eq!(refused.status, 403, "{}", refused.body);
    assert!(refused.body.to_string().contains("of other projects") && !refused.body.to_string().contains(&floating));
    assert_eq!(cloud.undo(&cloud.admin, &deleted.request_id(), false).await.status, 200);
    let floating = cloud.call(&admin, "GET", &format!("/network/v2.0/floatingips/{floating}"), &NULL, &[]).await;
    assert_eq!(floating.body["floatingip"]["port_id"], json!(port));
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_and_makings_go_back_too() {
    let cloud = TestCloud::start(1).await;
    let group = cloud.made("/network/v2.0/security-groups", "security_group", json!({"name": "web"})).await;
    let body = json!({"security_group_id": group, "direction": "ingress", "protocol": "tcp", "port_range_min": 80, "port_range_max": 80});
    let made = cloud.done("POST", "/network/v2.0/security-group-rules", json!({"security_group_rule": body})).await;
    let rule = made.body["security_group_rule"]["id"].as_str().unwrap().to_owned();
    let path = format!("/network/v2.0/security-groups/{group}");
    let renamed = cloud.done("PUT", &path, json!({"security_group": {"name": "db", "description": "new"}})).await;
    assert_eq!(cloud.undo(&cloud.admin, &renamed.request_id(), false).await.status, 200);
    assert_eq!(cloud.get(&path).await["security_group"]["name"], "web");
    assert_eq!(cloud.undo(&cloud.admin, &made.request_id(), false).await.status, 200);
    assert_eq!(cloud.status_of(&format!("/network/v2.0/security-group-rules/{rule}")).await, 404);
    // A dry run of an undo says what it would do and does nothing.
    let deleted = cloud.gone(&path).await;
    let dry = cloud.done("POST", &format!("/nubo/v1/undo/{deleted}?dry_run=true"), NULL).await;
    assert!(dry.body.to_string().contains(&group), "{}", dry.body);
    assert_eq!(cloud.status_of(&path).await, 404);
    assert_eq!(cloud.undo(&cloud.admin, &deleted, false).await.status, 200);
    cloud.no_findings().await;
}

impl TestCloud {
    /// Makes something, and returns its id and the request's.
    async fn asked(&self, path: &str, key: &str, body: Value) -> (String, String) {
        let answer = self.done("POST", path, json!({ key: body })).await;
        (answer.body[key]["id"].as_str().unwrap().to_owned(), answer.request_id())
    }

    /// The undo is refused, and names what is in the way; nothing was done.
    async fn held(&self, request: &str, by: &str) {
        let refused = self.undo(&self.admin, request, true).await;
        let text = refused.body.to_string();
        assert!(refused.status == 409 && text.contains(by), "{by} is in the way: {} {text}", refused.status);
    }

    async fn taken_back(&self, request: &str) {
        let undone = self.undo(&self.admin, request, false).await;
        assert_eq!(undone.status, 200, "{}", undone.body);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_making_is_taken_back_as_the_services_own_deletion_would() {
    let cloud = TestCloud::start(1).await;
    let (flavor, image, project) = (cloud.flavor().await, cloud.image().await, cloud.project().await);
    let v2 = "/network/v2.0";
    let (network, by_network) = cloud.asked(&format!("{v2}/networks"), "network", json!({"name": "n"})).await;
    let body = json!({"network_id": network, "ip_version": 4, "cidr": "10.8.0.0/24"});
    let (subnet, by_subnet) = cloud.asked(&format!("{v2}/subnets"), "subnet", body).await;
    let (router, by_router) = cloud.asked(&format!("{v2}/routers"), "router", json!({"name": "r"})).await;
    let plug = |verb| (format!("{v2}/routers/{router}/{verb}_router_interface"), json!({"subnet_id": subnet}));
    let (path, body) = plug("add");
    cloud.done("PUT", &path, body).await;
    let body = json!({"name": "s", "flavorRef": flavor, "imageRef": image, "networks": [{"uuid": network}]});
    let (server, by_server) = cloud.asked("/compute/v2.1/servers", "server", body).await;
    let server = format!("/compute/v2.1/servers/{server}");
    cloud.until(&server, "/server/status", "ACTIVE").await;
    let before = listings(&cloud, &project).await;

    cloud.held(&by_network, &format!("subnet {subnet} depends on it")).await;
    cloud.held(&by_subnet, "depends on it by now").await;
    cloud.held(&by_router, "depends on it by now").await;
    cloud.done("POST", &format!("{server}/action"), json!({"lock": null})).await;
    cloud.held(&by_server, "it is locked").await;
    cloud.done("POST", &format!("{server}/action"), json!({"unlock": null})).await;
    let extra = json!({"interfaceAttachment": {"net_id": network}});
    let plugged = cloud.done("POST", &format!("{server}/os-interface"), extra).await;
    let port = plugged.body["interfaceAttachment"]["port_id"].as_str().unwrap();
    cloud.held(&by_server, &format!("port {port} depends on it")).await;
    cloud.gone(&format!("{server}/os-interface/{port}")).await;
    wait(async || cloud.status_of(&format!("{v2}/ports/{port}")).await == 404).await;

    // Its guest rests, and comes back by the id of the undo.
    let undone = cloud.undo(&cloud.admin, &by_server, false).await;
    assert_eq!(undone.status, 200, "{}", undone.body);
    assert_eq!(cloud.status_of(&server).await, 404);
    assert_eq!((cloud.used("host:sim1", "DISK_GB").await, cloud.used("host:sim1", "VCPU").await), (1, 0));
    cloud.settle().await;
    cloud.no_findings().await;
    cloud.taken_back(&undone.request_id()).await;
    cloud.until(&server, "/server/status", "ACTIVE").await;
    cloud.settle().await;
    for ((what, before), (_, after)) in before.iter().zip(&listings(&cloud, &project).await) {
        assert_eq!(before, after, "{what}");
    }
    cloud.no_findings().await;

    cloud.gone(&server).await;
    let (path, body) = plug("remove");
    cloud.done("PUT", &path, body).await;
    for request in [&by_router, &by_subnet, &by_network] {
        cloud.taken_back(request).await;
    }
    for path in [format!("routers/{router}"), format!("subnets/{subnet}"), format!("networks/{network}")] {
        assert_eq!(cloud.status_of(&format!("{v2}/{path}")).await, 404, "{path}");
    }
    for resource in ["router", "subnet", "network"] {
        assert_eq!(cloud.used(&project, resource).await, 0, "{resource}");
    }
    cloud.held(&by_network, "undone already").await;
    cloud.settle().await;
    cloud.no_findings().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_manages_a_project_takes_back_what_they_could_have_done_themselves() {
    let cloud = TestCloud::start(1).await;
    let (flavor, image, (network, _)) = (cloud.flavor().await, cloud.image().await, cloud.net("10.9.0.0/24").await);
    let server = format!("/compute/v2.1/servers/{}", cloud.server(&flavor, &image, &network, "one").await);
    let renamed = cloud.done("PUT", &server, json!({"server": {"name": "two"}})).await.request_id();
    let project = cloud.project().await;
    let quota = json!({"quota_set": {"cores": 3}});
    let quota = cloud.done("PUT", &format!("/compute/v2.1/os-quota-sets/{project}"), quota).await.request_id();
    assert_eq!(cloud.undo(&cloud.demo, &renamed, false).await.status, 403, "a member may not");

    let user = cloud.get("/identity/v3/users?name=demo").await["users"][0]["id"].as_str().unwrap().to_owned();
    let role = cloud.get("/identity/v3/roles?name=manager").await["roles"][0]["id"].as_str().unwrap().to_owned();
    cloud.done("PUT", &format!("/identity/v3/projects/{project}/users/{user}/roles/{role}"), NULL).await;
    let manager = cloud.token("demo", "demo", "demo").await;
    let refused = cloud.undo(&manager, &quota, false).await;
    assert!([403, 404].contains(&refused.status), "a limit is above them: {} {}", refused.status, refused.body);
    // Nova's owner of a lock is the project that it came from.
    let above = cloud.token("admin", "admin", "admin").await;
    cloud.call(&above, "POST", &format!("{server}/action"), &json!({"lock": null}), &[]).await;
    assert_eq!(cloud.undo(&manager, &renamed, false).await.status, 403, "an administrator has locked it");
    cloud.done("POST", &format!("{server}/action"), json!({"unlock": null})).await;
    let undone = cloud.undo(&manager, &renamed, false).await;
    assert_eq!(undone.status, 200, "{}", undone.body);
    assert_eq!(cloud.get(&server).await["server"]["name"], "one");
}

#[tokio::test(flavor = "multi_thread")]
async fn force_delete_purge_and_retention_nought_leave_nothing() {
    let cloud = TestCloud::start(1).await;
    let (flavor, image, (network, _)) = (cloud.flavor().await, cloud.image().await, cloud.net("10.9.0.0/24").await);
    let server = cloud.server(&flavor, &image, &network, "one").await;
    let path = format!("/compute/v2.1/servers/{server}");
    cloud.done("POST", &format!("{path}/action"), json!({"forceDelete": null})).await;
    wait(async || cloud.status_of(&path).await == 404).await;
    assert_eq!(cloud.get("/nubo/v1/trash").await["trash"], json!([]));
    assert_eq!(cloud.used("host:sim1", "DISK_GB").await, 0);
    let server = cloud.server(&flavor, &image, &network, "two").await;
    let request = cloud.gone(&format!("/compute/v2.1/servers/{server}")).await;
    assert_eq!(cloud.used("host:sim1", "DISK_GB").await, 1, "its bytes are reserved");
    cloud.gone(&format!("/nubo/v1/trash/{request}")).await;
    wait(async || cloud.used("host:sim1", "DISK_GB").await == 0).await;
    let refused = cloud.undo(&cloud.admin, &request, false).await;
    assert!(refused.body.to_string().contains("no longer rests in the trash"), "{}", refused.body);
    cloud.settle().await;
    cloud.no_findings().await;

    let images = tempfile::tempdir().unwrap();
    let options = control::CloudOptions { trash_retention_s: 0, ..options("sqlite::memory:", images.path()) };
    let (env, cloud) = (Env::system(), Arc::new(Cloud::open(options, Env::system()).await.unwrap()));
    drop(env);
    let deleted = cloud.store().write(store::Cause::new("u", "req-1", "x"), |tx| {
        tx.create(&store::Undone {
            id: "a".into(),
            project_id: "p".into(),
            by: "b".into(),
            at: tx.now(),
            whole: true,
            rest: vec![],
        })?;
        Ok(tx.has_trash())
    });
    assert!(!deleted.await.unwrap().value, "retention 0 deletes at once");
}

async fn wait(mut ready: impl AsyncFnMut() -> bool) {
    for _ in 0..4000 {
        if ready().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("it never came about");
}

#[tokio::test(flavor = "multi_thread")]
async fn secrets_never_rest() {
    let cloud = TestCloud::start(1).await;
    let user = cloud.get("/identity/v3/users?name=demo").await["users"][0]["id"].as_str().unwrap().to_owned();
    let body = json!({"application_credential": {"name": "app", "secret": "hush-hush"}});
    let made = cloud
        .call(&cloud.demo, "POST", &format!("/identity/v3/users/{user}/application_credentials"), &body, &[])
        .await;
    let id = made.body["application_credential"]["id"].as_str().unwrap().to_owned();
    let path = format!("/identity/v3/users/{user}/application_credentials/{id}");
    let request = cloud.call(&cloud.demo, "DELETE", &path, &NULL, &[]).await.request_id();
    let body = json!({"type": "totp", "blob": "hush-hush", "user_id": user});
    let credential = cloud.made("/identity/v3/credentials", "credential", body).await;
    let second = cloud.gone(&format!("/identity/v3/credentials/{credential}")).await;
    assert_eq!(cloud.get("/nubo/v1/trash?all_projects=true").await["trash"], json!([]));
    for request in [request, second] {
        let undone = cloud.undo(&cloud.admin, &request, true).await;
        assert_eq!(undone.status, 409, "{}", undone.body);
    }
}

/// Every listing of what the project has.
async fn listings(cloud: &TestCloud, project: &str) -> Vec<(String, Value)> {
    let mut all = Vec::new();
    for what in ["networks", "subnets", "ports", "routers", "security-groups", "security-group-rules", "floatingips"] {
        let path = format!("/network/v2.0/{what}?project_id={project}");
        all.push((what.to_owned(), cloud.get(&path).await));
    }
    for path in [
        "/compute/v2.1/servers/detail?sort_key=created_at",
        "/compute/v2.1/os-keypairs",
        "/image/v2/images",
        "/identity/v3/projects",
    ] {
        let mut listing = cloud.get(path).await;
        for server in listing["servers"].as_array_mut().into_iter().flatten() {
            // When it last changed, and was started: both are true.
            server["updated"] = NULL;
            server["OS-SRV-USG:launched_at"] = NULL;
        }
        all.push((path.to_owned(), listing));
    }
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn a_project_of_two_hundred_objects_deleted_and_undone_lists_the_same() {
    let cloud = TestCloud::start(2).await;
    let (flavor, image, project) = (cloud.flavor().await, cloud.image().await, cloud.project().await);
    // The project's quota of routers is ten, of networks and groups more.
    let (mut paths, mut count) = (Vec::new(), 0);
    let mut first = String::new();
    for n in 0..10 {
        let (network, subnet) = cloud.net(&format!("10.{n}.0.0/24")).await;
        let router = cloud.made("/network/v2.0/routers", "router", json!({"name": format!("r{n}")})).await;
        cloud
            .done("PUT", &format!("/network/v2.0/routers/{router}/add_router_interface"), json!({"subnet_id": subnet}))
            .await;
        paths.push(format!("PUT /network/v2.0/routers/{router}/remove_router_interface {subnet}"));
        paths.push(format!("DELETE /network/v2.0/routers/{router}"));
        for m in 0..8 {
            let body = json!({"network_id": network, "name": format!("p{m}")});
            let port = cloud.made("/network/v2.0/ports", "port", body).await;
            paths.push(format!("DELETE /network/v2.0/ports/{port}"));
        }
        paths.push(format!("DELETE /network/v2.0/subnets/{subnet}"));
        paths.push(format!("DELETE /network/v2.0/networks/{network}"));
        if n == 0 {
            first = network;
        }
        count += 12;
    }
    for n in 0..9 {
        let body = json!({"name": format!("g{n}")});
        let group = cloud.made("/network/v2.0/security-groups", "security_group", body).await;
        for m in 0..5 {
            let body = json!({"security_group_id": group, "direction": "ingress", "protocol": "tcp", "port_range_min": m + 1, "port_range_max": m + 1});
            let rule = cloud.made("/network/v2.0/security-group-rules", "security_group_rule", body).await;
            paths.push(format!("DELETE /network/v2.0/security-group-rules/{rule}"));
        }
        paths.push(format!("DELETE /network/v2.0/security-groups/{group}"));
        count += 6;
    }
    for n in 0..15 {
        cloud.done("POST", "/compute/v2.1/os-keypairs", json!({"keypair": {"name": format!("k{n}"), "public_key": "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGPKSUTyz1HwHReFVvD5obVsALAgJRNarH4TRpNePnAS k"}})).await;
        paths.push(format!("DELETE /compute/v2.1/os-keypairs/k{n}"));
        count += 1;
    }
    let mut servers = Vec::new();
    for n in 0..6 {
        let server = cloud.server(&flavor, &image, &first, &format!("s{n}")).await;
        servers.push(format!("/compute/v2.1/servers/{server}"));
        count += 2;
    }
    assert!(count >= 200, "{count}");
    paths.push(format!("DELETE /image/v2/images/{image}"));
    cloud.settle().await;
    let before = listings(&cloud, &project).await;

    let mut requests = Vec::new();
    for server in &servers {
        requests.push(cloud.gone(server).await);
    }
    for path in &paths {
        let mut words = path.split(' ');
        let (method, path) = (words.next().unwrap(), words.next().unwrap());
        let body = words.next().map_or(NULL, |subnet| json!({"subnet_id": subnet}));
        requests.push(cloud.done(method, path, body).await.request_id());
    }
    let empty = listings(&cloud, &project).await;
    assert_eq!(empty[0].1, json!({"networks": []}));
    assert_eq!(empty[7].1["servers"], json!([]));
    cloud.settle().await;
    cloud.no_findings().await;

    for request in requests.iter().rev() {
        let undone = cloud.undo(&cloud.admin, request, false).await;
        assert_eq!(undone.status, 200, "{}", undone.body);
    }
    for server in &servers {
        cloud.until(server, "/server/status", "ACTIVE").await;
    }
    cloud.settle().await;
    let after = listings(&cloud, &project).await;
    for ((what, before), (_, after)) in before.iter().zip(&after) {
        assert_eq!(before, after, "{what}");
    }
    cloud.no_findings().await;
}

impl TestCloud {
    /// How much of its disk a host has for guests.
    async fn disk(&self) -> i64 {
        let shown = self.get("/compute/v2.1/os-hypervisors/detail").await;
        shown["hypervisors"].as_array().and_then(|all| all[0]["local_gb"].as_i64()).unwrap()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_oldest_trash_goes_first_when_the_disk_fills() {
    let cloud = TestCloud::start(1).await;
    let (image, (network, _)) = (cloud.image().await, cloud.net("10.9.0.0/24").await);
    let disk = cloud.disk().await;
    let body = json!({"name": "third", "ram": 64, "vcpus": 1, "disk": disk * 3 / 10});
    let flavor = cloud.made("/compute/v2.1/flavors", "flavor", body).await;
    let mut requests = Vec::new();
    for name in ["one", "two"] {
        let server = cloud.server(&flavor, &image, &network, name).await;
        requests.push(cloud.gone(&format!("/compute/v2.1/servers/{server}")).await);
    }
    assert_eq!(cloud.used("host:sim1", "DISK_GB").await, 2 * (disk * 3 / 10), "both rest");
    // A third passes 85 percent: the oldest goes.
    let third = cloud.server(&flavor, &image, &network, "three").await;
    wait(async || cloud.used("host:sim1", "DISK_GB").await == 2 * (disk * 3 / 10)).await;
    assert_eq!(cloud.undo(&cloud.admin, &requests[0], false).await.status, 409);
    // Its address has been given to the third meanwhile.
    let second = cloud.undo(&cloud.admin, &requests[1], true).await;
    assert_eq!(second.status, 200, "{}", second.body);
    cloud.gone(&format!("/compute/v2.1/servers/{third}")).await;
    // What fits only when nothing rests gets its room.
    let body = json!({"name": "large", "ram": 64, "vcpus": 1, "disk": disk * 6 / 10});
    let large = cloud.made("/compute/v2.1/flavors", "flavor", body).await;
    cloud.server(&large, &image, &network, "four").await;
    cloud.settle().await;
    cloud.no_findings().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_has_rested_long_enough_goes_by_itself() {
    let images = tempfile::tempdir().unwrap();
    let cloud = TestCloud::open_with(
        control::CloudOptions { trash_retention_s: 1, ..options("sqlite::memory:", images.path()) },
        Env::system(),
        1,
    )
    .await;
    let (flavor, image, (network, _)) = (cloud.flavor().await, cloud.image().await, cloud.net("10.9.0.0/24").await);
    let server = cloud.server(&flavor, &image, &network, "one").await;
    cloud.gone(&format!("/compute/v2.1/servers/{server}")).await;
    cloud.gone(&format!("/image/v2/images/{image}")).await;
    let is_file = |entry: &std::io::Result<std::fs::DirEntry>| entry.as_ref().unwrap().path().is_file();
    let files = || std::fs::read_dir(images.path()).unwrap().filter(is_file).count();
    assert_eq!(files(), 1, "its bytes rest");
    wait(async || {
        let empty = cloud.get("/nubo/v1/trash").await["trash"] == json!([]);
        empty && cloud.used("host:sim1", "DISK_GB").await == 0 && files() == 0
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn soft_deleted_servers_are_restored_or_reclaimed() {
    let images = tempfile::tempdir().unwrap();
    let mut options = options("sqlite::memory:", images.path());
    options.reclaim_instance_interval_s = 1000;
    let cloud = TestCloud::open_with(options, Env::system(), 1).await;
    let (flavor, image, (network, _)) = (cloud.flavor().await, cloud.image().await, cloud.net("10.9.0.0/24").await);
    let server = cloud.server(&flavor, &image, &network, "one").await;
    let path = format!("/compute/v2.1/servers/{server}");
    let scope = format!("project:{}", cloud.project().await);
    cloud.gone(&path).await;
    let shown = cloud.get(&path).await;
    assert_eq!(
        (&shown["server"]["status"], &shown["server"]["OS-EXT-STS:vm_state"]),
        (&json!("SOFT_DELETED"), &json!("soft-delete"))
    );
    assert_eq!(cloud.get("/compute/v2.1/servers").await["servers"], json!([]));
    assert_eq!(cloud.used(&scope, "cores").await, 0, "as in Nova it uses no quota");
    cloud.settle().await;
    cloud.no_findings().await;
    let started = cloud.call(&cloud.admin, "POST", &format!("{path}/action"), &json!({"os-start": null}), &[]).await;
    assert_eq!(started.status, 409, "{}", started.body);
    cloud.done("POST", &format!("{path}/action"), json!({"restore": null})).await;
    cloud.until(&path, "/server/status", "ACTIVE").await;
    assert_eq!(cloud.used(&scope, "cores").await, 1);
    cloud.gone(&path).await;
    cloud.done("POST", &format!("{path}/action"), json!({"forceDelete": null})).await;
    wait(async || cloud.status_of(&path).await == 404).await;
    assert_eq!((cloud.used(&scope, "cores").await, cloud.used("host:sim1", "DISK_GB").await), (0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_undo_takes_nothing_that_its_own_call_would_refuse_to_delete() {
    let cloud = TestCloud::start(1).await;
    let (flavor, image, (network, _)) = (cloud.flavor().await, cloud.image().await, cloud.net("10.9.0.0/24").await);
    // A member's server that an administrator has locked since.
    let body =
        json!({"server": {"name": "s", "flavorRef": flavor, "imageRef": image, "networks": [{"uuid": network}]}});
    let made = cloud.call(&cloud.demo, "POST", "/compute/v2.1/servers", &body, &[]).await;
    let server = format!("/compute/v2.1/servers/{}", made.body["server"]["id"].as_str().unwrap());
    cloud.until(&server, "/server/status", "ACTIVE").await;
    cloud.done("POST", &format!("{server}/action"), json!({"lock": null})).await;
    for partial in [false, true] {
        let refused = cloud.undo(&cloud.demo, &made.request_id(), partial).await;
        assert!(refused.status == 409 && refused.body.to_string().contains("it is locked"), "{}", refused.body);
    }
    cloud.until(&server, "/server/status", "ACTIVE").await;
    cloud.done("POST", &format!("{server}/action"), json!({"unlock": null})).await;
    assert_eq!(cloud.undo(&cloud.demo, &made.request_id(), false).await.status, 200);

    // An access rule that the first credential made and the second uses.
    let token =
        cloud.call(&cloud.demo, "GET", "/identity/v3/auth/tokens", &NULL, &[("x-subject-token", &cloud.demo)]).await;
    let user = token.body["token"]["user"]["id"].as_str().unwrap().to_owned();
    let (apps, rules) = ("application_credentials", "access_rules");
    let rule = json!([{"service": "compute", "method": "GET", "path": "/v2.1/servers"}]);
    let mut made = Vec::new();
    for name in ["first", "second"] {
        let body = json!({"application_credential": {"name": name, "access_rules": rule}});
        let answer = cloud.call(&cloud.demo, "POST", &format!("/identity/v3/users/{user}/{apps}"), &body, &[]).await;
        assert_eq!(answer.status, 201, "{}", answer.body);
        made.push(answer);
    }
    let count = async |what: &str| {
        let all = cloud.call(&cloud.demo, "GET", &format!("/identity/v3/users/{user}/{what}"), &NULL, &[]).await;
        all.body[what].as_array().map(Vec::len)
    };
    let refused = cloud.undo(&cloud.demo, &made[0].request_id(), false).await;
    assert!(refused.status == 409 && refused.body.to_string().contains("second lists it by now"), "{}", refused.body);
    assert_eq!((count(apps).await, count(rules).await), (Some(2), Some(1)));
    assert_eq!(cloud.undo(&cloud.demo, &made[0].request_id(), true).await.status, 200, "the rest goes");
    assert_eq!((count(apps).await, count(rules).await), (Some(1), Some(1)), "the rule stays with whom it serves");
    assert_eq!(cloud.undo(&cloud.demo, &made[1].request_id(), false).await.status, 200);
    assert_eq!(count(apps).await, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shared_image_comes_back_for_its_owner_with_those_it_is_shared_with() {
    let cloud = TestCloud::start(1).await;
    let other = cloud.made("/identity/v3/projects", "project", json!({"name": "other"})).await;
    let body = json!({"name": "lent", "disk_format": "raw", "container_format": "bare", "visibility": "shared"});
    let image = cloud.call(&cloud.demo, "POST", "/image/v2/images", &body, &[]).await;
    let path = format!("/image/v2/images/{}", image.body["id"].as_str().unwrap());
    let shared = cloud.call(&cloud.demo, "POST", &format!("{path}/members"), &json!({"member": other}), &[]).await;
    assert_eq!(shared.status, 200, "{}", shared.body);
    let gone = cloud.call(&cloud.demo, "DELETE", &path, &NULL, &[]).await;
    assert_eq!((gone.status, cloud.status_of(&path).await), (204, 404));
    let back = cloud.undo(&cloud.demo, &gone.request_id(), false).await;
    assert_eq!(back.status, 200, "{}", back.body);
    let members = cloud.call(&cloud.demo, "GET", &format!("{path}/members"), &NULL, &[]).await;
    assert_eq!(members.body["members"][0]["member_id"], *other, "{}", members.body);
}
