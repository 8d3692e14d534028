//! Limits hold, also when many ask at once.

use crate::cloud::*;
use serde_json::{Value, json};

#[tokio::test]
async fn quotas_are_set_and_hold() {
    let cloud = Cloud::new().await;
    let (status, quota) = cloud.ask(ADMIN, "PUT", "/v2.0/quotas/demo", json!({"quota": {"network": 2, "subnet": "3"}})).await;
    assert_eq!((status, &quota["quota"]["network"], &quota["quota"]["subnet"], &quota["quota"]["port"]), (200, &json!(2), &json!(3), &json!(500)));
    for n in 0..2 {
        cloud.make(DEMO, "networks", json!({"name": n.to_string()})).await;
    }
    let (status, answer) = cloud.ask(DEMO, "POST", "/v2.0/networks", json!({"network": {}})).await;
    assert_eq!((status, refusal(&answer).as_str()), (409, "OverQuota Quota exceeded for resources: ['network']."));
    assert_eq!(cloud.ask(DEMO, "PUT", "/v2.0/quotas/demo", json!({"quota": {"network": 9}})).await.0, 403);
    assert_eq!(cloud.send(DEMO, "GET", "/v2.0/quotas/demo", None, &[]).await.0, 403);
    let details = cloud.get("manager@demo", "/v2.0/quotas/demo/details").await;
    assert_eq!(details["quota"]["network"], json!({"limit": 2, "used": 2, "reserved": 0}));
    assert_eq!(cloud.get(ADMIN, "/v2.0/quotas/demo/default").await["quota"]["network"], 100);
    assert_eq!(cloud.get(ADMIN, "/v2.0/quotas").await["quotas"].as_array().unwrap().len(), 1);
    for (bad, words) in [(json!({"network": -2}), "Invalid input for network"), (json!({"network": "x"}), "Invalid input for network"), (json!({"colour": 1}), "Unrecognized attribute(s) 'colour'")] {
        let (status, answer) = cloud.ask(ADMIN, "PUT", "/v2.0/quotas/demo", json!({"quota": bad})).await;
        assert!(status == 400 && refusal(&answer).contains(words), "{answer}");
    }
    let (status, answer) = cloud.ask(ADMIN, "PUT", "/v2.0/quotas/demo", json!({"quota": {"network": 1, "check_limit": true}})).await;
    assert!(status == 409, "{answer}");
    assert_eq!(cloud.delete(ADMIN, "/v2.0/quotas/demo").await, 204);
    assert_eq!(cloud.get(ADMIN, "/v2.0/quotas/demo").await["quota"]["network"], 100);
    assert_eq!(cloud.delete(ADMIN, "/v2.0/quotas/demo").await, 404);
}

#[tokio::test]
async fn parallel_creates_stop_exactly_at_the_limit() {
    let cloud = std::sync::Arc::new(Cloud::new().await);
    cloud.ask(ADMIN, "PUT", "/v2.0/quotas/demo", json!({"quota": {"port": 20}})).await;
    let (network, _) = cloud.net_with(DEMO, "10.0.0.0/24").await;
    let mut tasks = Vec::new();
    for _ in 0..60 {
        let (cloud, network) = (cloud.clone(), network["id"].clone());
        tasks.push(tokio::spawn(async move { cloud.ask(DEMO, "POST", "/v2.0/ports", json!({"port": {"network_id": network}})).await }));
    }
    let mut statuses = Vec::new();
    for task in tasks {
        statuses.push(task.await.unwrap().0);
    }
    assert_eq!(statuses.iter().filter(|status| **status == 201).count(), 20);
    assert_eq!(statuses.iter().filter(|status| **status == 409).count(), 40);
    let ports = cloud.get(DEMO, "/v2.0/ports?device_owner=").await;
    let mut addresses: Vec<String> = ports["ports"].as_array().unwrap().iter().map(|port| port["fixed_ips"][0]["ip_address"].to_string()).collect();
    addresses.sort();
    addresses.dedup();
    assert_eq!(addresses.len(), 20, "no address twice");
}

#[tokio::test]
async fn what_is_removed_is_given_back() {
    let cloud = Cloud::new().await;
    let (network, _) = cloud.net_with(DEMO, "10.0.0.0/24").await;
    let port = cloud.make(DEMO, "ports", json!({"network_id": network["id"]})).await;
    assert_eq!(cloud.used("demo", "port").await, 1, "the service port is not charged");
    assert_eq!(cloud.delete(DEMO, &format!("/v2.0/networks/{}", text(&network["id"]))).await, 409);
    assert_eq!(cloud.delete(DEMO, &format!("/v2.0/ports/{}", text(&port["id"]))).await, 204);
    assert_eq!(cloud.delete(DEMO, &format!("/v2.0/networks/{}", text(&network["id"]))).await, 204);
    for resource in ["network", "subnet", "port"] {
        assert_eq!(cloud.used("demo", resource).await, 0, "{resource}");
    }
    assert_eq!(cloud.get(ADMIN, "/v2.0/ports").await["ports"], Value::Array(vec![]));
    assert_eq!(cloud.get(ADMIN, "/v2.0/subnets").await["subnets"], Value::Array(vec![]));
}
