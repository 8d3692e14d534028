//! Security groups.

use crate::cloud::*;
use serde_json::{Value, json};

#[tokio::test]
async fn every_project_has_a_default_group() {
    let cloud = Cloud::new().await;
    let list = cloud.get(DEMO, "/v2.0/security-groups").await;
    let groups = list["security_groups"].as_array().unwrap();
    assert_eq!((groups.len(), text(&groups[0]["name"])), (1, "default"));
    let rules = groups[0]["security_group_rules"].as_array().unwrap();
    let mut found: Vec<String> = rules.iter().map(|rule| format!("{} {} {}", text(&rule["direction"]), text(&rule["ethertype"]), rule["remote_group_id"] == groups[0]["id"])).collect();
    found.sort();
    assert_eq!(found, ["egress IPv4 false", "egress IPv6 false", "ingress IPv4 true", "ingress IPv6 true"]);
    let id = &groups[0]["id"];
    assert_eq!(cloud.delete(DEMO, &format!("/v2.0/security-groups/{}", text(id))).await, 409);
    assert_eq!(cloud.change(DEMO, "security-groups", id, json!({"name": "mine"})).await.0, 409);
    assert_eq!(cloud.change(DEMO, "security-groups", id, json!({"description": "ours"})).await.0, 200);
    assert_eq!(cloud.get(DEMO, "/v2.0/security-groups").await["security_groups"].as_array().unwrap().len(), 1);
    // A reader's list makes it, too.
    assert_eq!(cloud.get("reader@third", "/v2.0/security-groups").await["security_groups"].as_array().unwrap().len(), 1);
    assert_eq!(cloud.used("demo", "security_group").await, 0);
}

#[tokio::test]
async fn equal_rules_are_refused_however_they_are_written() {
    let cloud = Cloud::new().await;
    let group = cloud.make(DEMO, "security-groups", json!({"name": "web", "description": "d"})).await;
    assert_eq!(group["security_group_rules"].as_array().unwrap().len(), 2, "everything may go out");
    let make = async |mut rule: Value| {
        rule["security_group_id"] = group["id"].clone();
        cloud.ask(DEMO, "POST", "/v2.0/security-group-rules", json!({"security_group_rule": rule})).await
    };
    let base = json!({"direction": "ingress", "protocol": "tcp", "port_range_min": 22, "port_range_max": 22, "remote_ip_prefix": "10.0.0.7/8"});
    let (status, first) = make(base).await;
    assert_eq!((status, &first["security_group_rule"]["remote_ip_prefix"], &first["security_group_rule"]["normalized_cidr"]), (201, &json!("10.0.0.7/8"), &json!("10.0.0.0/8")));
    for same in [
        json!({"direction": "ingress", "protocol": "6", "port_range_min": "22", "port_range_max": 22, "remote_ip_prefix": "10.0.0.0/8"}),
        json!({"direction": "ingress", "protocol": 6, "port_range_min": 22, "port_range_max": 22, "remote_ip_prefix": "10.255.0.0/8", "ethertype": "ipv4"}),
    ] {
        let (status, answer) = make(same).await;
        assert!(status == 409 && refusal(&answer).contains(&format!("Rule id is {}", text(&first["security_group_rule"]["id"]))), "{answer}");
    }
    for other in [
        json!({"direction": "ingress", "protocol": "udp", "port_range_min": 22, "port_range_max": 22, "remote_ip_prefix": "10.0.0.0/8"}),
        json!({"direction": "egress", "protocol": "tcp", "port_range_min": 22, "port_range_max": 22, "remote_ip_prefix": "10.0.0.0/8"}),
        json!({"direction": "ingress", "protocol": "icmp", "port_range_min": 8, "port_range_max": 0}),
        json!({"direction": "ingress", "protocol": "icmp", "ethertype": "IPv6"}),
        json!({"direction": "ingress", "protocol": null, "remote_group_id": group["id"]}),
        json!({"direction": "ingress", "protocol": "any", "ethertype": "IPv6", "remote_ip_prefix": "fd00::/8"}),
        json!({"direction": "ingress", "protocol": "vrrp"}),
    ] {
        let (status, answer) = make(other.clone()).await;
        assert_eq!(status, 201, "{other} {answer}");
    }
    let (status, _) = make(json!({"direction": "egress", "remote_ip_prefix": "0.0.0.0/0"})).await;
    assert_eq!(status, 409, "everything is the same as no network");
    assert_eq!(cloud.used("demo", "security_group_rule").await, 8);
    let rules = cloud.get(DEMO, &format!("/v2.0/security-group-rules?security_group_id={}&protocol=tcp", text(&group["id"]))).await;
    assert_eq!(rules["security_group_rules"].as_array().unwrap().len(), 2);
    assert_eq!(cloud.delete(DEMO, &format!("/v2.0/security-group-rules/{}", text(&first["security_group_rule"]["id"]))).await, 204);
    assert_eq!(cloud.delete(DEMO, &format!("/v2.0/security-groups/{}", text(&group["id"]))).await, 204);
    assert_eq!(cloud.used("demo", "security_group_rule").await, 0);
    assert_eq!(cloud.used("demo", "security_group").await, 0);
}

#[tokio::test]
async fn a_group_in_use_stays() {
    let cloud = Cloud::new().await;
    let (network, _) = cloud.net_with(DEMO, "10.0.0.0/24").await;
    let group = cloud.make(DEMO, "security-groups", json!({"name": "web"})).await;
    let port = cloud.make(DEMO, "ports", json!({"network_id": network["id"], "security_groups": [group["id"]]})).await;
    let path = format!("/v2.0/security-groups/{}", text(&group["id"]));
    let (status, answer) = cloud.send(DEMO, "DELETE", &path, None, &[]).await;
    assert!(status == 409 && refusal(&answer).contains("SecurityGroupInUse"), "{answer}");
    assert_eq!(cloud.change(DEMO, "ports", &port["id"], json!({"security_groups": []})).await.0, 200);
    assert_eq!(cloud.delete(DEMO, &path).await, 204);
    // A foreign group cannot be used.
    let foreign = cloud.make(OTHER, "security-groups", json!({"name": "theirs"})).await;
    let (status, _) = cloud.change(DEMO, "ports", &port["id"], json!({"security_groups": [foreign["id"]]})).await;
    assert_eq!(status, 404);
}
