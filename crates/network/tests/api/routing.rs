//! Routers, gateways, floating addresses, and addresses in general.

use crate::cloud::*;
use agent_api::{PortObserved, RouterObserved};
use serde_json::{Value, json};

async fn interface(cloud: &Cloud, verb: &str, router: &Value, body: Value) -> (u16, Value) {
    cloud.ask(DEMO, "PUT", &format!("/v2.0/routers/{}/{verb}_router_interface", text(&router["id"])), body).await
}

#[tokio::test]
async fn a_router_joins_subnets_that_do_not_overlap() {
    let cloud = Cloud::new().await;
    let (_, one) = cloud.net_with(DEMO, "10.0.0.0/24").await;
    let (two_net, two) = cloud.net_with(DEMO, "10.0.0.0/16").await;
    let (_, three) = cloud.net_with(DEMO, "10.1.0.0/24").await;
    let router = cloud.make(DEMO, "routers", json!({"name": "r"})).await;
    assert_eq!(router["status"], "ACTIVE");
    let (status, added) = interface(&cloud, "add", &router, json!({"subnet_id": one["id"]})).await;
    assert_eq!((status, &added["subnet_id"], &added["id"]), (200, &one["id"], &router["id"]));
    let port = cloud.show(DEMO, "ports", &added["port_id"]).await;
    assert_eq!((&port["fixed_ips"][0]["ip_address"], &port["device_owner"]), (&json!("10.0.0.1"), &json!("network:router_interface")));
    for (body, status, words) in [
        (json!({"subnet_id": one["id"]}), 400, "Router already has a port on subnet"),
        (json!({"subnet_id": two["id"]}), 400, "overlaps with cidr 10.0.0.0/24"),
        (json!({}), 400, "Either subnet_id or port_id must be specified"),
        (json!({"subnet_id": one["id"], "port_id": port["id"]}), 400, "Cannot specify both"),
        (json!({"port_id": port["id"]}), 409, "PortInUse"),
        (json!({"subnet": one["id"]}), 400, "Unrecognized attribute(s) 'subnet'"),
        (json!({"subnet_id": "x"}), 400, "is not a valid UUID"),
        (json!({"subnet_id": router["id"]}), 404, "SubnetNotFound"),
    ] {
        let (got, answer) = interface(&cloud, "add", &router, body.clone()).await;
        assert!(got == status && refusal(&answer).contains(words), "{body}: {got} {answer}");
    }
    let (_, public) = cloud.public().await;
    let (status, answer) = interface(&cloud, "add", &router, json!({"subnet_id": public["id"]})).await;
    assert!(status == 403, "the outside's gateway address is not for everybody: {answer}");
    // By port, with an address of its own.
    let free = cloud.make(DEMO, "ports", json!({"network_id": two_net["id"], "fixed_ips": [{"subnet_id": two["id"]}]})).await;
    let other = cloud.make(DEMO, "routers", json!({"name": "s"})).await;
    assert_eq!(interface(&cloud, "add", &other, json!({"port_id": free["id"]})).await.0, 200);
    assert_eq!(interface(&cloud, "add", &other, json!({"subnet_id": three["id"]})).await.0, 200);
    assert_eq!(cloud.delete(DEMO, &format!("/v2.0/ports/{}", text(&free["id"]))).await, 409);
    assert_eq!(cloud.delete(DEMO, &format!("/v2.0/routers/{}", text(&other["id"]))).await, 409);
    assert_eq!(cloud.delete(DEMO, &format!("/v2.0/subnets/{}", text(&one["id"]))).await, 409);
    let (status, answer) = cloud.change(DEMO, "subnets", &one["id"], json!({"gateway_ip": null})).await;
    assert!(status == 409 && refusal(&answer).contains("GatewayIpInUse"), "{answer}");
    for (body, status) in [
        (json!({"subnet_id": three["id"]}), 404),
        (json!({"port_id": free["id"]}), 404),
        (json!({"subnet_id": two["id"], "port_id": port["id"]}), 400),
        (json!({"subnet_id": one["id"], "port_id": port["id"]}), 200),
    ] {
        assert_eq!(interface(&cloud, "remove", &router, body.clone()).await.0, status, "{body}");
    }
    assert_eq!(cloud.delete(DEMO, &format!("/v2.0/routers/{}", text(&router["id"]))).await, 204);
    assert_eq!(cloud.delete(DEMO, &format!("/v2.0/subnets/{}", text(&one["id"]))).await, 204);
}

#[tokio::test]
async fn routes_lead_to_neighbours() {
    let cloud = Cloud::new().await;
    let (_, subnet) = cloud.net_with(DEMO, "10.0.0.0/24").await;
    let router = cloud.make(DEMO, "routers", json!({"name": "r"})).await;
    interface(&cloud, "add", &router, json!({"subnet_id": subnet["id"]})).await;
    for (via, status, words) in [("10.0.0.9", 200, ""), ("10.9.0.9", 400, "the nexthop is not connected with router"), ("10.0.0.1", 400, "the nexthop is used by router"), ("x", 400, "is not a valid IP address")] {
        let (got, answer) = cloud.change(DEMO, "routers", &router["id"], json!({"routes": [{"destination": "192.168.0.0/24", "nexthop": via}]})).await;
        assert!(got == status && refusal(&answer).contains(words), "{via}: {answer}");
    }
    let (status, answer) = interface(&cloud, "remove", &router, json!({"subnet_id": subnet["id"]})).await;
    assert!(status == 409 && refusal(&answer).contains("RouterInterfaceInUseByRoute"), "{answer}");
    let path = format!("/v2.0/routers/{}", text(&router["id"]));
    let extra = json!({"router": {"routes": [{"destination": "192.168.1.0/24", "nexthop": "10.0.0.8"}]}});
    let (status, answer) = cloud.ask(DEMO, "PUT", &format!("{path}/add_extraroutes"), extra.clone()).await;
    assert_eq!((status, answer["router"]["routes"].as_array().unwrap().len()), (200, 2));
    let (status, answer) = cloud.ask(DEMO, "PUT", &format!("{path}/remove_extraroutes"), extra).await;
    assert_eq!((status, answer["router"]["routes"].as_array().unwrap().len()), (200, 1));
    let (_, cleared) = cloud.change(DEMO, "routers", &router["id"], json!({"routes": []})).await;
    assert_eq!(cleared["routes"], json!([]));
}

#[tokio::test]
async fn floating_addresses_follow_ports_behind_a_router() {
    let cloud = Cloud::new().await;
    let (public, _) = cloud.public().await;
    let (network, subnet) = cloud.net_with(DEMO, "10.0.0.0/24").await;
    let port = cloud.make(DEMO, "ports", json!({"network_id": network["id"]})).await;
    let floating = cloud.make(DEMO, "floatingips", json!({"floating_network_id": public["id"]})).await;
    assert_eq!((&floating["floating_ip_address"], &floating["status"]), (&json!("172.24.4.10"), &json!("DOWN")));
    let (status, answer) = cloud.change(DEMO, "floatingips", &floating["id"], json!({"port_id": port["id"]})).await;
    assert!(status == 404 && refusal(&answer).contains("ExternalGatewayForFloatingIPNotFound"), "{answer}");

    let router = cloud.make(DEMO, "routers", json!({"name": "r", "external_gateway_info": {"network_id": public["id"]}})).await;
    assert_eq!(router["external_gateway_info"]["external_fixed_ips"][0]["ip_address"], "172.24.4.11");
    assert_eq!(router["status"], "ALLOCATING");
    interface(&cloud, "add", &router, json!({"subnet_id": subnet["id"]})).await;
    let (status, now) = cloud.change(DEMO, "floatingips", &floating["id"], json!({"port_id": port["id"]})).await;
    assert_eq!((status, &now["fixed_ip_address"], &now["router_id"]), (200, &port["fixed_ips"][0]["ip_address"], &router["id"]));
    assert_eq!(now["port_details"]["mac_address"], port["mac_address"]);

    // What a host says becomes what is shown.
    cloud.settle().await;
    let id = text(&router["id"]);
    let seen = |up, fault: Option<&str>| vec![RouterObserved { id: id.into(), up, floating: vec![text(&floating["id"]).into()], fault: fault.map(str::to_owned), attempts: 0 }];
    cloud.routers_seen("host-a", seen(true, None)).await;
    assert_eq!(cloud.show(DEMO, "routers", &router["id"]).await["status"], "ACTIVE");
    assert_eq!(cloud.show(DEMO, "floatingips", &floating["id"]).await["status"], "ACTIVE");
    let gateway = cloud.get(ADMIN, "/v2.0/ports?device_owner=network:router_gateway").await;
    assert_eq!(gateway["ports"][0]["status"], "ACTIVE");
    cloud.routers_seen("host-b", seen(false, None)).await;
    assert_eq!(cloud.show(DEMO, "routers", &router["id"]).await["status"], "ACTIVE", "only its own host may speak of it");
    cloud.routers_seen("host-a", seen(false, Some("no room"))).await;
    assert_eq!(cloud.show(DEMO, "routers", &router["id"]).await["status"], "ERROR");
    cloud.change(DEMO, "routers", &router["id"], json!({"admin_state_up": false})).await;
    assert_eq!(cloud.show(DEMO, "routers", &router["id"]).await["status"], "ACTIVE", "switched off, it waits for nothing");

    // Nor may its port let go of what it says is taken.
    let holder = cloud.get(ADMIN, "/v2.0/ports?device_owner=network:floatingip").await["ports"][0].clone();
    for addresses in [json!([]), json!([{"ip_address": "172.24.4.200"}])] {
        let (status, answer) = cloud.change(ADMIN, "ports", &holder["id"], json!({"fixed_ips": addresses})).await;
        assert!(status == 409 && refusal(&answer).contains("which keeps it"), "{answer}");
    }
    let same = json!({"fixed_ips": holder["fixed_ips"], "name": "held"});
    assert_eq!(cloud.change(ADMIN, "ports", &holder["id"], same).await.0, 200);

    let second = cloud.make(DEMO, "floatingips", json!({"floating_network_id": public["id"]})).await;
    let (status, answer) = cloud.change(DEMO, "floatingips", &second["id"], json!({"port_id": port["id"]})).await;
    assert!(status == 409 && refusal(&answer).contains("FloatingIPPortAlreadyAssociated"), "{answer}");
    for (path, body, words) in [
        (format!("/v2.0/routers/{id}"), json!({"router": {"external_gateway_info": null}}), "RouterExternalGatewayInUseByFloatingIp"),
        (format!("/v2.0/routers/{id}/remove_router_interface"), json!({"subnet_id": subnet["id"]}), "RouterInterfaceInUseByFloatingIP"),
    ] {
        let (status, answer) = cloud.ask(DEMO, "PUT", &path, body).await;
        assert!(status == 409 && refusal(&answer).contains(words), "{answer}");
    }
    let foreign = cloud.ask(OTHER, "PUT", &format!("/v2.0/floatingips/{}", text(&floating["id"])), json!({"floatingip": {"port_id": null}})).await;
    assert_eq!(foreign.0, 404);
    // A port that goes leaves the address to its project.
    assert_eq!(cloud.delete(DEMO, &format!("/v2.0/ports/{}", text(&port["id"]))).await, 204);
    let left = cloud.show(DEMO, "floatingips", &floating["id"]).await;
    assert_eq!((&left["port_id"], &left["router_id"], &left["status"]), (&Value::Null, &Value::Null, &json!("DOWN")));
    assert_eq!(cloud.delete(DEMO, &format!("/v2.0/floatingips/{}", text(&floating["id"]))).await, 204);
    let again = cloud.make(DEMO, "floatingips", json!({"floating_network_id": public["id"]})).await;
    assert_eq!(again["floating_ip_address"], "172.24.4.10", "the address is free again");
    let external = format!("/v2.0/networks/{}", text(&public["id"]));
    assert_eq!(cloud.delete(ADMIN, &external).await, 409, "a router has its gateway there");
    let (status, _) = cloud.change(DEMO, "routers", &router["id"], json!({"external_gateway_info": {}})).await;
    assert_eq!(status, 200);
    assert_eq!(cloud.delete(ADMIN, &external).await, 204);
    assert_eq!(cloud.used("demo", "floatingip").await, 0, "addresses that stand for nothing go with their network");
}

#[tokio::test]
async fn addresses_are_handed_out_lowest_first_until_none_is_left() {
    let cloud = Cloud::new().await;
    let (network, subnet) = cloud.net_with(DEMO, "10.0.0.0/29").await;
    let mut ports = Vec::new();
    for expected in ["10.0.0.3", "10.0.0.4", "10.0.0.5", "10.0.0.6"] {
        let port = cloud.make(DEMO, "ports", json!({"network_id": network["id"]})).await;
        assert_eq!(port["fixed_ips"][0]["ip_address"], expected);
        ports.push(port);
    }
    let (status, answer) = cloud.ask(DEMO, "POST", "/v2.0/ports", json!({"port": {"network_id": network["id"]}})).await;
    assert!(status == 409 && refusal(&answer).contains("IpAddressGenerationFailure"), "{answer}");
    assert_eq!(cloud.delete(DEMO, &format!("/v2.0/ports/{}", text(&ports[1]["id"]))).await, 204);
    let port = cloud.make(DEMO, "ports", json!({"network_id": network["id"]})).await;
    assert_eq!(port["fixed_ips"][0]["ip_address"], "10.0.0.4");
    let free = cloud.get(ADMIN, &format!("/v2.0/network-ip-availabilities/{}", text(&network["id"]))).await;
    assert_eq!((&free["network_ip_availability"]["total_ips"], &free["network_ip_availability"]["used_ips"]), (&json!(5), &json!(5)));
    assert_eq!(cloud.send(DEMO, "GET", &format!("/v2.0/network-ip-availabilities/{}", text(&network["id"])), None, &[]).await.0, 404);
    // Updates keep what is asked for again and free the rest.
    let second = cloud.make(DEMO, "subnets", json!({"network_id": network["id"], "cidr": "10.0.1.0/24", "ip_version": 4})).await;
    let (status, moved) = cloud.change(DEMO, "ports", &port["id"], json!({"fixed_ips": [{"subnet_id": second["id"]}, {"ip_address": "10.0.0.4"}]})).await;
    assert_eq!((status, moved["fixed_ips"].as_array().unwrap().len()), (200, 2));
    let (_, moved) = cloud.change(DEMO, "ports", &port["id"], json!({"fixed_ips": [{"subnet_id": second["id"], "ip_address": "10.0.1.77"}]})).await;
    assert_eq!(moved["fixed_ips"], json!([{"subnet_id": second["id"], "ip_address": "10.0.1.77"}]));
    let (status, _) = cloud.change(DEMO, "ports", &ports[0]["id"], json!({"fixed_ips": [{"ip_address": "10.0.0.4"}]})).await;
    assert_eq!(status, 200, "what was freed can be taken");
    let found = cloud.get(DEMO, "/v2.0/ports?fixed_ips=ip_address%3D10.0.1.77").await;
    assert_eq!(found["ports"][0]["id"], port["id"]);
    assert_eq!(cloud.delete(DEMO, &format!("/v2.0/subnets/{}", text(&subnet["id"]))).await, 409);
}

#[tokio::test]
async fn ipv6_addresses_are_formed_from_macs() {
    let cloud = Cloud::new().await;
    let network = cloud.make(DEMO, "networks", json!({"name": "n"})).await;
    let early = cloud.make(DEMO, "ports", json!({"network_id": network["id"], "mac_address": "fa:16:3e:00:00:01"})).await;
    assert_eq!(early["fixed_ips"], json!([]));
    let slaac = json!({"network_id": network["id"], "cidr": "fd00:1::/64", "ip_version": 6, "ipv6_ra_mode": "slaac", "ipv6_address_mode": "slaac"});
    let subnet = cloud.make(DEMO, "subnets", slaac).await;
    let early = cloud.show(DEMO, "ports", &early["id"]).await;
    assert_eq!(early["fixed_ips"][0]["ip_address"], "fd00:1::f816:3eff:fe00:1");
    let (status, _) = cloud.ask(DEMO, "POST", "/v2.0/ports", json!({"port": {"network_id": network["id"], "fixed_ips": [{"ip_address": "fd00:1::5"}]}})).await;
    assert_eq!(status, 400);
    assert_eq!(cloud.delete(DEMO, &format!("/v2.0/subnets/{}", text(&subnet["id"]))).await, 204, "such addresses do not hold a subnet");
    let plain = cloud.make(DEMO, "subnets", json!({"network_id": network["id"], "cidr": "fd00:2::/64", "ip_version": 6})).await;
    assert_eq!((&plain["gateway_ip"], &plain["allocation_pools"][0]["start"]), (&json!("fd00:2::1"), &json!("fd00:2::2")));
    let port = cloud.make(DEMO, "ports", json!({"network_id": network["id"]})).await;
    assert_eq!(port["fixed_ips"][0]["ip_address"], "fd00:2::3", "the service port has the first");
}

#[tokio::test]
async fn the_service_port_follows_the_subnets() {
    let cloud = Cloud::new().await;
    let (network, one) = cloud.net_with(DEMO, "10.0.0.0/24").await;
    let list = format!("/v2.0/ports?network_id={}&device_owner=network:distributed", text(&network["id"]));
    let addresses = |list: Value| -> Vec<String> {
        let fixed = list["ports"][0]["fixed_ips"].as_array().cloned().unwrap_or_default();
        fixed.iter().map(|fixed| text(&fixed["ip_address"]).to_owned()).collect()
    };
    assert_eq!(addresses(cloud.get(DEMO, &list).await), ["10.0.0.2"]);
    let two = cloud.make(DEMO, "subnets", json!({"network_id": network["id"], "cidr": "10.1.0.0/24", "ip_version": 4})).await;
    assert_eq!(addresses(cloud.get(DEMO, &list).await), ["10.0.0.2", "10.1.0.2"]);
    cloud.change(DEMO, "subnets", &one["id"], json!({"enable_dhcp": false})).await;
    assert_eq!(addresses(cloud.get(DEMO, &list).await), ["10.1.0.2"]);
    assert_eq!(cloud.delete(DEMO, &format!("/v2.0/subnets/{}", text(&two["id"]))).await, 204);
    assert_eq!(cloud.get(DEMO, &list).await["ports"], json!([]));
    cloud.change(DEMO, "subnets", &one["id"], json!({"enable_dhcp": true})).await;
    let port = cloud.get(DEMO, &list).await["ports"][0].clone();
    assert_eq!(cloud.delete(DEMO, &format!("/v2.0/ports/{}", text(&port["id"]))).await, 409, "it is ours");
}

#[tokio::test]
async fn a_bound_port_shows_what_its_host_says() {
    let cloud = Cloud::new().await;
    let (network, _) = cloud.net_with(DEMO, "10.0.0.0/24").await;
    let ports = cloud.attach(DEMO, "server-1", on(&network), &[]).await.unwrap();
    let id = json!(ports[0].id);
    let status = async || text(&cloud.show(DEMO, "ports", &id).await["status"]).to_owned();
    assert_eq!(status().await, "DOWN");
    cloud.bind("server-1", Some("host-a")).await;
    assert_eq!(status().await, "BUILD");
    let seen = |up, fault: Option<&str>| vec![PortObserved { id: ports[0].id.clone(), up, fault: fault.map(str::to_owned) }];
    cloud.ports_seen("host-b", seen(true, None)).await;
    assert_eq!(status().await, "BUILD", "another host has no say");
    cloud.ports_seen("host-a", seen(true, None)).await;
    assert_eq!(status().await, "ACTIVE");
    cloud.ports_seen("host-a", seen(false, Some("no tap"))).await;
    assert_eq!(status().await, "ERROR");
    cloud.bind("server-1", None).await;
    assert_eq!(status().await, "DOWN");
}
