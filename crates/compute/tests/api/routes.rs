//! The table of routes, walked: each has a policy default, wants a token, and hides other projects.

use crate::cloud::*;
use rest::Access;
use serde_json::json;

fn fill(path: &str, server: &str) -> String {
    let path = path.replace("{server_id}", server).replace("{flavor_id}", "1").replace("{project_id}", "demo");
    let mut filled = String::new();
    let mut rest = path.as_str();
    while let Some((before, after)) = rest.split_once('{') {
        filled.push_str(before);
        filled.push('x');
        rest = after.split_once('}').map_or("", |pair| pair.1);
    }
    filled + rest
}

#[tokio::test]
async fn every_route_has_a_policy_default_and_an_operation_of_its_own() {
    let cloud = Cloud::new(0).await;
    let mut operations = std::collections::BTreeSet::new();
    for service in cloud.gateway.services() {
        for route in &service.routes {
            assert!(operations.insert(route.operation), "{} stands twice", route.operation);
            match route.access {
                Access::Rule(rule) => assert!(service.policy.contains(rule), "{rule}"),
                Access::Open => assert!(
                    ["versions:show", "versions:list", "console:open"].contains(&route.operation),
                    "{} is open",
                    route.operation
                ),
            }
        }
    }
    assert!(operations.len() > 70, "{}", operations.len());
}

#[tokio::test]
async fn no_route_answers_without_a_token() {
    let cloud = Cloud::new(0).await;
    let api = &cloud.gateway.services()[0];
    for route in api.routes.iter().filter(|route| route.access != Access::Open) {
        let path = fill(route.path, "0192aaaa-0000-7000-8000-000000000000");
        for token in ["", "bogus"] {
            let answer = cloud.send(route.method.as_str(), token, &path, "", None).await;
            assert_eq!(answer.status, 401, "{} {path}", route.method);
        }
    }
}

#[tokio::test]
async fn a_server_of_another_project_is_as_good_as_none() {
    let cloud = Cloud::new(1).await;
    let id = cloud.active("web").await;
    let api = &cloud.gateway.services()[0];
    let mut walked = 0;
    for route in api.routes.iter().filter(|route| route.path.contains("{server_id}")) {
        let version = route.since.unwrap_or(api.microversions.unwrap().max).to_string();
        let bodies = match route.operation {
            "servers:action" => route.actions.iter().map(|name| json!({*name: body_of(name)})).collect(),
            other => vec![body_of(other)],
        };
        for body in bodies {
            let path = fill(route.path, &id);
            let answer = cloud.send(route.method.as_str(), MALLORY, &path, &version, Some(body.clone())).await;
            // Schemas are checked before anything is looked up: then it is the body that is refused.
            assert_eq!(answer.status, 404, "{} {path} {body}: {}", route.method, answer.body);
            walked += 1;
        }
    }
    assert!(walked > 40, "{walked}");
    assert_eq!(cloud.status(&id).await, "ACTIVE");
}

/// A body that holds to each operation's schema.
fn body_of(operation: &str) -> serde_json::Value {
    match operation {
        "servers:update" => json!({"server": {"name": "x"}}),
        "metadata:create" | "metadata:replace" => json!({"metadata": {"x": "y"}}),
        "metadata:update" => json!({"meta": {"x": "y"}}),
        "tags:replace" => json!({"tags": ["x"]}),
        "interfaces:create" => json!({"interfaceAttachment": {"net_id": NET}}),
        "volume_attachments:create" | "volume_attachments:update" => json!({"volumeAttachment": {"volumeId": NET}}),
        "remote_consoles:create" => json!({"remote_console": {"protocol": "vnc", "type": "novnc"}}),
        "reboot" => json!({"type": "SOFT"}),
        "createImage" => json!({"name": "x"}),
        "os-resetState" => json!({"state": "error"}),
        "addSecurityGroup" | "removeSecurityGroup" => json!({"name": "x"}),
        "os-getVNCConsole" => json!({"type": "novnc"}),
        _ => serde_json::Value::Null,
    }
}

#[tokio::test]
async fn a_reader_reads_and_changes_nothing() {
    let cloud = Cloud::new(1).await;
    let id = cloud.active("web").await;
    assert_eq!(cloud.get(READER, &format!("/servers/{id}")).await.status, 200);
    assert_eq!(cloud.get(READER, "/servers/detail").await.ok(200)["servers"].as_array().unwrap().len(), 1);
    for (method, path, body) in [
        ("DELETE", format!("/servers/{id}"), None),
        ("PUT", format!("/servers/{id}"), Some(json!({"server": {"name": "x"}}))),
        ("POST", format!("/servers/{id}/action"), Some(json!({"os-stop": null}))),
        ("POST", format!("/servers/{id}/metadata"), Some(json!({"metadata": {"x": "y"}}))),
        (
            "POST",
            "/servers".to_owned(),
            Some(json!({"server": {"name": "x", "flavorRef": "1", "imageRef": IMAGE, "networks": "auto"}})),
        ),
        ("POST", "/flavors".to_owned(), Some(json!({"flavor": {"name": "x", "ram": 1, "vcpus": 1, "disk": 1}}))),
        ("PUT", "/os-quota-sets/demo".to_owned(), Some(json!({"quota_set": {"cores": 1}}))),
        ("GET", "/os-hypervisors".to_owned(), None),
        ("GET", "/os-quota-sets/other".to_owned(), None),
        ("GET", "/servers?all_tenants=1".to_owned(), None),
    ] {
        assert_eq!(cloud.send(method, READER, &path, "latest", body).await.status, 403, "{method} {path}");
    }
    let system = "root@-:admin,member,reader";
    assert_eq!(cloud.get(system, "/servers").await.status, 403, "system tokens have no servers");
}
