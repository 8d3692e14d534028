//! What compute asks of the network service.

use crate::cloud::*;
use base::FaultKind;
use contract::{NetworkRequest, Ports, RequestedNetwork};
use serde_json::json;

fn named(result: base::Result<Vec<contract::ServerPort>>) -> (FaultKind, String) {
    let fault = result.expect_err("must be refused");
    (fault.kind, fault.name.unwrap_or_default().into_owned())
}

#[tokio::test]
async fn servers_get_ports_and_give_them_back() {
    let cloud = Cloud::new().await;
    let (network, _) = cloud.net_with(DEMO, "10.0.0.0/24").await;
    let group = cloud.make(DEMO, "security-groups", json!({"name": "web"})).await;
    let own = cloud.make(DEMO, "ports", json!({"network_id": network["id"], "name": "mine"})).await;
    let request = NetworkRequest::List(vec![
        RequestedNetwork { network: Some(text(&network["id"]).into()), fixed_ip: Some("10.0.0.50".into()), tag: Some("front".into()), ..Default::default() },
        RequestedNetwork { port: Some(text(&own["id"]).into()), ..Default::default() },
    ]);
    let ports = cloud.attach(DEMO, "s1", request, &["web", "default"]).await.unwrap();
    assert_eq!((ports[0].fixed[0].address.to_string(), ports[0].made_for_server, ports[0].tag.as_deref()), ("10.0.0.50".into(), true, Some("front")));
    assert_eq!((ports[1].id.as_str(), ports[1].made_for_server), (text(&own["id"]), false));
    let mut groups: Vec<&str> = ports[0].security_groups.iter().map(|group| group.1.as_str()).collect();
    groups.sort();
    assert_eq!(groups, ["default", "web"]);
    let shown = cloud.show(ADMIN, "ports", &json!(ports[0].id)).await;
    assert_eq!((&shown["device_id"], &shown["device_owner"]), (&json!("s1"), &json!("compute:nova")));
    assert_eq!(cloud.delete(DEMO, &format!("/v2.0/ports/{}", ports[0].id)).await, 403, "a server's port goes with the server");
    assert_eq!(cloud.get(DEMO, "/v2.0/ports?device_id=s1").await["ports"].as_array().unwrap().len(), 2);

    let taken = RequestedNetwork { port: Some(text(&own["id"]).into()), ..Default::default() };
    assert_eq!(named(cloud.attach(DEMO, "s2", NetworkRequest::List(vec![taken]), &[]).await), (FaultKind::Conflict, "PortInUse".into()));
    cloud.detach_all("s1").await;
    let left = cloud.get(DEMO, "/v2.0/ports?device_owner=").await;
    assert_eq!((left["ports"].as_array().unwrap().len(), &left["ports"][0]["name"]), (1, &json!("mine")));
    assert_eq!(cloud.delete(DEMO, &format!("/v2.0/security-groups/{}", text(&group["id"]))).await, 204);
    assert_eq!(cloud.used("demo", "port").await, 1);
}

#[tokio::test]
async fn requests_are_refused_as_nova_refuses_them() {
    use FaultKind::*;
    let cloud = Cloud::new().await;
    assert!(cloud.attach(DEMO, "s", NetworkRequest::Auto, &[]).await.unwrap().is_empty());
    let (network, _) = cloud.net_with(DEMO, "10.0.0.0/24").await;
    assert_eq!(cloud.attach(DEMO, "auto", NetworkRequest::Auto, &[]).await.unwrap().len(), 1);
    let bare = cloud.make(DEMO, "networks", json!({"name": "bare"})).await;
    let (public, _) = cloud.public().await;
    let (foreign, _) = cloud.net_with(OTHER, "10.0.0.0/24").await;
    let with = |network: &serde_json::Value, ip: Option<&str>| NetworkRequest::List(vec![RequestedNetwork {
        network: Some(text(&network["id"]).into()), fixed_ip: ip.map(str::to_owned), ..Default::default()
    }]);
    let port = NetworkRequest::List(vec![RequestedNetwork { port: Some("nothing".into()), ..Default::default() }]);
    for (request, groups, expected) in [
        (NetworkRequest::Auto, &[][..], (Conflict, "NetworkAmbiguous")),
        (with(&bare, None), &[], (Invalid, "NetworkRequiresSubnet")),
        (with(&public, None), &[], (Forbidden, "ExternalNetworkAttachForbidden")),
        (with(&foreign, None), &[], (Invalid, "NetworkNotFound")),
        (with(&network, Some("10.0.0.2")), &[], (Invalid, "FixedIpAlreadyInUse")),
        (with(&network, Some("10.9.0.2")), &[], (Invalid, "FixedIpInvalid")),
        (with(&network, Some("x")), &[], (Invalid, "FixedIpInvalid")),
        (with(&network, None), &["nope"], (Invalid, "SecurityGroupNotFound")),
        (port, &[], (Invalid, "PortNotFound")),
    ] {
        let (kind, name) = named(cloud.attach(DEMO, "s", request.clone(), groups).await);
        assert_eq!((kind, name.as_str()), expected, "{request:?}");
    }
    cloud.ask(ADMIN, "PUT", "/v2.0/quotas/demo", json!({"quota": {"port": 1}})).await;
    assert_eq!(named(cloud.attach(DEMO, "s", on(&network), &[]).await), (Quota, "PortLimitExceeded".into()));
    assert_eq!(cloud.used("demo", "port").await, 1, "a refusal leaves nothing behind");
}

#[tokio::test]
async fn security_groups_are_added_to_and_taken_from_servers() {
    let cloud = Cloud::new().await;
    let (network, _) = cloud.net_with(DEMO, "10.0.0.0/24").await;
    cloud.make(DEMO, "security-groups", json!({"name": "web"})).await;
    cloud.attach(DEMO, "s1", on(&network), &[]).await.unwrap();
    for (add, group, good) in [(true, "web", true), (true, "web", true), (true, "nope", false), (false, "web", true), (false, "web", false)] {
        let (net, who) = (cloud.net.clone(), caller(DEMO).unwrap());
        let done = cloud.store.write(cause(), move |tx| match add {
            true => net.add_security_group(tx, &who, &"s1".into(), group),
            false => net.remove_security_group(tx, &who, &"s1".into(), group),
        }).await;
        assert_eq!(done.is_ok(), good, "{add} {group}");
    }
}
