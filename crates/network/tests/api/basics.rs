//! Every route, and who may.

use crate::cloud::*;
use rest::Access;
use serde_json::{Value, json};
use std::collections::BTreeSet;

#[tokio::test]
async fn every_route_has_a_policy_default_and_refuses_nobody() {
    let cloud = Cloud::new().await;
    let service = cloud.net.service();
    let mut operations = BTreeSet::new();
    for route in &service.routes {
        assert!(operations.insert(route.operation), "{} twice", route.operation);
        let Access::Rule(rule) = route.access else { continue };
        assert!(service.policy.contains(rule), "{} asks for the unknown rule {rule}", route.operation);
        let path = route.path.replace("{id}", "x").replace("{project_id}", "x").replace("{tag}", "x").replace("{alias}", "x");
        let (status, body) = cloud.send("", route.method.as_str(), &path, None, &[]).await;
        assert_eq!(status, 401, "{} {path}", route.method);
        assert_eq!(body["error"]["code"], 401, "{path}");
        let (status, _) = cloud.send("nonsense", route.method.as_str(), &path, None, &[]).await;
        assert_eq!(status, 401, "{} {path}", route.method);
    }
}

#[tokio::test]
async fn guarded_attributes_have_rules() {
    let cloud = Cloud::new().await;
    let policy = cloud.net.service().policy;
    let unknown: Vec<_> = network::RULES.iter().filter(|rule| !policy.contains(rule.name)).collect();
    assert!(unknown.is_empty());
    for (one, attrs) in network::attribute_tables() {
        for attr in attrs {
            let guarded = attr.guard != network::attr::Guard::Open;
            for (wanted, name) in [
                (guarded && attr.post, format!("create_{one}:{}", attr.name)),
                (guarded && attr.put, format!("update_{one}:{}", attr.name)),
                (attr.hidden, format!("get_{one}:{}", attr.name)),
            ] {
                assert!(!wanted || policy.contains(&name), "{name} has no default");
            }
        }
    }
}

/// One object of each kind in the project `demo`.
async fn one_of_each(cloud: &Cloud) -> Vec<(&'static str, Value)> {
    let (public, _) = cloud.public().await;
    let (network, subnet) = cloud.net_with(DEMO, "10.0.0.0/24").await;
    let port = cloud.make(DEMO, "ports", json!({"network_id": network["id"]})).await;
    let router = cloud.make(DEMO, "routers", json!({"name": "r"})).await;
    let floating = cloud.make(DEMO, "floatingips", json!({"floating_network_id": public["id"]})).await;
    let group = cloud.make(DEMO, "security-groups", json!({"name": "web"})).await;
    let rule = cloud.make(DEMO, "security-group-rules", json!({"security_group_id": group["id"], "direction": "ingress", "protocol": "tcp", "port_range_min": 80, "port_range_max": 80})).await;
    vec![
        ("networks", network), ("subnets", subnet), ("ports", port), ("routers", router), ("floatingips", floating),
        ("security-groups", group), ("security-group-rules", rule),
    ]
}

#[tokio::test]
async fn foreign_projects_see_nothing() {
    let cloud = Cloud::new().await;
    let objects = one_of_each(&cloud).await;
    let service = cloud.net.service();
    for (collection, object) in &objects {
        let prefix = format!("/v2.0/{collection}/{{id}}");
        for route in service.routes.iter().filter(|route| route.path == prefix || route.path.starts_with(&format!("{prefix}/"))) {
            let path = route.path.replace("{id}", text(&object["id"])).replace("{tag}", "x");
            let one = collection.trim_end_matches('s').replace('-', "_");
            let body = match route.operation {
                operation if operation.contains(":tags") => json!({"tags": []}),
                operation if operation.ends_with("_router_interface") => json!({"subnet_id": "11111111-2222-3333-4444-555555555555"}),
                operation if operation.ends_with("extraroutes") => json!({"router": {"routes": []}}),
                _ => json!({one: {}}),
            };
            let (status, answer) = cloud.ask(OTHER, route.method.as_str(), &path, body).await;
            assert_eq!(status, 404, "{} {path}: {answer}", route.method);
        }
        let list = cloud.get(OTHER, &format!("/v2.0/{collection}?id={}", text(&object["id"]))).await;
        assert_eq!(list[collection.replace('-', "_")], json!([]), "{collection}");
        let (status, _) = cloud.ask("reader@demo", "DELETE", &format!("/v2.0/{collection}/{}", text(&object["id"])), json!({})).await;
        assert_eq!(status, 403, "a reader cannot delete {collection}");
    }
    let ids: Vec<&str> = objects.iter().map(|(_, object)| text(&object["id"])).collect();
    for (collection, _) in &objects {
        let all = cloud.get(OTHER, &format!("/v2.0/{collection}")).await.to_string();
        assert!(!ids.iter().any(|id| all.contains(id)), "{collection}: {all}");
    }
}

#[tokio::test]
async fn versions_and_extensions_are_told() {
    let cloud = Cloud::new().await;
    for path in ["", "/"] {
        let versions = cloud.send("", "GET", path, None, &[]).await.1;
        assert_eq!(versions["versions"][0]["links"][0]["href"], "http://cloud/network/v2.0/");
    }
    assert_eq!(cloud.send("", "GET", "/v2.0/", None, &[]).await.0, 200);
    let all = cloud.get(DEMO, "/v2.0/extensions").await;
    for extension in all["extensions"].as_array().unwrap() {
        let shown = cloud.get(DEMO, &format!("/v2.0/extensions/{}", text(&extension["alias"]))).await;
        assert_eq!(&shown["extension"], extension);
    }
    assert_eq!(cloud.send(DEMO, "GET", "/v2.0/extensions/fwaas_v2", None, &[]).await.0, 404);
    let zones = cloud.get(DEMO, "/v2.0/availability_zones").await;
    assert_eq!(zones["availability_zones"].as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn what_only_the_administrator_may() {
    let cloud = Cloud::new().await;
    let (network, _) = cloud.net_with(DEMO, "10.0.0.0/24").await;
    assert!(network.get("provider:network_type").is_none());
    assert_eq!(cloud.show(ADMIN, "networks", &network["id"]).await["provider:network_type"], "vxlan");
    for body in [json!({"shared": true}), json!({"router:external": true}), json!({"provider:network_type": "vxlan"})] {
        let (status, answer) = cloud.ask(DEMO, "POST", "/v2.0/networks", json!({"network": body})).await;
        assert_eq!((status, text(&answer["NeutronError"]["type"])), (403, "PolicyNotAuthorized"), "{body}");
        let (status, _) = cloud.change(DEMO, "networks", &network["id"], body).await;
        assert_eq!(status, 403);
    }
    assert_eq!(cloud.get(DEMO, "/v2.0/agents").await, json!({"agents": []}));
    let (status, _) = cloud.ask(DEMO, "POST", "/v2.0/networks", json!({"network": {"shared": false}})).await;
    assert_eq!(status, 201, "the default needs no right");
    let (status, _) = cloud.ask(DEMO, "POST", "/v2.0/networks", json!({"network": {"project_id": "other"}})).await;
    assert_eq!(status, 400);
    let (status, made) = cloud.ask(ADMIN, "POST", "/v2.0/networks", json!({"network": {"project_id": "other", "shared": true}})).await;
    assert_eq!((status, text(&made["network"]["project_id"])), (201, "other"));
    // A shared network is seen by all, and changed by its owner alone.
    let shared = made["network"]["id"].clone();
    assert_eq!(cloud.show(DEMO, "networks", &shared).await["shared"], true);
    assert_eq!(cloud.change(DEMO, "networks", &shared, json!({"name": "mine"})).await.0, 403);
    let port = json!({"network_id": network["id"], "device_owner": "network:dhcp"});
    assert_eq!(cloud.ask(OTHER, "POST", "/v2.0/ports", json!({"port": port})).await.0, 404);
}
