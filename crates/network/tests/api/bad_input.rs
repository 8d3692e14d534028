//! What is refused, and with which words.

use crate::cloud::*;
use serde_json::{Value, json};

#[tokio::test]
async fn bad_bodies_are_refused_by_name() {
    let cloud = Cloud::new().await;
    let (public, _) = cloud.public().await;
    let (network, subnet) = cloud.net_with(DEMO, "10.0.0.0/24").await;
    let group = cloud.make(DEMO, "security-groups", json!({"name": "g"})).await;
    let (net, sub, sg, ext) = (text(&network["id"]), text(&subnet["id"]), text(&group["id"]), text(&public["id"]));
    let nowhere = "11111111-2222-3333-4444-555555555555";
    let long = "x".repeat(256);
    let rule = |more: Value| {
        let mut rule = json!({"security_group_id": sg, "direction": "ingress"});
        rule.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        rule
    };
    let cases = [
        ("networks", json!({"name": long}), 400, "exceeds maximum length"),
        ("networks", json!({"nmae": "x"}), 400, "HTTPBadRequest Unrecognized attribute(s) 'nmae'"),
        ("networks", json!({"id": nowhere}), 400, "Attribute 'id' not allowed in POST"),
        ("networks", json!({"admin_state_up": "maybe"}), 400, "cannot be converted to boolean"),
        ("networks", json!({"mtu": 70000}), 400, "too large"),
        ("networks", json!({"mtu": 1451}), 400, "Requested MTU is too big"),
        ("networks", json!({"name": 7}), 400, "is not a valid string"),
        ("networks", json!({"availability_zone_hints": ["mars"]}), 400, "AvailabilityZone mars"),
        ("subnets", json!({"network_id": net, "ip_version": 4}), 400, "a subnetpool must be specified"),
        ("subnets", json!({"network_id": net, "cidr": "10.1.0.0/24"}), 400, "Required attribute 'ip_version' not specified"),
        ("subnets", json!({"network_id": net, "ip_version": 4, "cidr": "10.1.0.0/33"}), 400, "is not a valid IP subnet"),
        ("subnets", json!({"network_id": net, "ip_version": 4, "cidr": "10.1.0.0"}), 400, "'10.1.0.0/32' is recommended"),
        ("subnets", json!({"network_id": net, "ip_version": 6, "cidr": "10.1.0.0/24"}), 400, "does not match the ip_version '6'"),
        ("subnets", json!({"network_id": net, "ip_version": 5, "cidr": "10.1.0.0/24"}), 400, "'5' is not in [4, 6]"),
        ("subnets", json!({"network_id": net, "ip_version": 4, "cidr": "10.0.0.128/25"}), 400, "overlaps with another subnet"),
        ("subnets", json!({"network_id": net, "ip_version": 4, "cidr": "10.0.0.0/16"}), 400, "overlaps with another subnet"),
        ("subnets", json!({"network_id": net, "ip_version": 4, "cidr": "10.1.0.0/24", "gateway_ip": "10.1.0.0"}), 400, "Gateway is not valid on subnet"),
        ("subnets", json!({"network_id": net, "ip_version": 4, "cidr": "10.1.0.0/24", "allocation_pools": [{"start": "10.1.0.1", "end": "10.1.0.9"}]}), 409, "GatewayConflictWithAllocationPools"),
        ("subnets", json!({"network_id": net, "ip_version": 4, "cidr": "10.1.0.0/24", "allocation_pools": [{"start": "10.1.0.9"}]}), 400, "Invalid input for allocation_pools"),
        ("subnets", json!({"network_id": net, "ip_version": 4, "cidr": "10.1.0.0/24", "dns_nameservers": ["1.1.1.1", "1.1.1.1"]}), 400, "Duplicate nameserver"),
        ("subnets", json!({"network_id": net, "ip_version": 4, "cidr": "10.1.0.0/24", "dns_nameservers": ["one"]}), 400, "is not a valid nameserver"),
        ("subnets", json!({"network_id": net, "ip_version": 4, "cidr": "10.1.0.0/24", "host_routes": [{"destination": "x", "nexthop": "10.1.0.2"}]}), 400, "Invalid input for host_routes"),
        ("subnets", json!({"network_id": net, "ip_version": 4, "cidr": "10.1.0.0/24", "ipv6_ra_mode": "slaac"}), 400, "not valid when ip_version is 4"),
        ("subnets", json!({"network_id": net, "ip_version": 6, "cidr": "fd00::/56", "ipv6_ra_mode": "slaac", "ipv6_address_mode": "slaac"}), 400, "requires the prefix to be /64"),
        ("subnets", json!({"network_id": nowhere, "ip_version": 4, "cidr": "10.1.0.0/24"}), 404, "NetworkNotFound"),
        ("ports", json!({"name": "x"}), 400, "Required attribute 'network_id' not specified"),
        ("ports", json!({"network_id": nowhere}), 404, "NetworkNotFound"),
        ("ports", json!({"network_id": net, "mac_address": "zz"}), 400, "is not a valid MAC address"),
        ("ports", json!({"network_id": net, "mac_address": "01:00:5e:00:00:01"}), 400, "is a multicast address"),
        ("ports", json!({"network_id": net, "fixed_ips": [{"ip_address": "10.9.0.1"}]}), 400, "InvalidIpForNetwork"),
        ("ports", json!({"network_id": net, "fixed_ips": [{"subnet_id": sub, "ip_address": "10.9.0.1"}]}), 400, "InvalidIpForSubnet"),
        ("ports", json!({"network_id": net, "fixed_ips": [{"ip_address": "10.0.0.255"}]}), 400, "InvalidIpForSubnet"),
        ("ports", json!({"network_id": net, "fixed_ips": [{"ip_address": "10.0.0.2"}]}), 409, "IpAddressInUse"),
        ("ports", json!({"network_id": net, "fixed_ips": [{"subnet_id": nowhere}]}), 400, "included invalid subnet"),
        ("ports", json!({"network_id": net, "fixed_ips": [{"ip": "10.0.0.9"}]}), 400, "Unexpected keys supplied: ip"),
        ("ports", json!({"network_id": net, "fixed_ips": "10.0.0.9"}), 400, "is not a list"),
        ("ports", json!({"network_id": net, "security_groups": [nowhere]}), 404, "SecurityGroupNotFound"),
        ("ports", json!({"network_id": net, "port_security_enabled": false, "security_groups": [sg]}), 400, "PortSecurityAndIPRequiredForSecurityGroups"),
        ("ports", json!({"network_id": net, "port_security_enabled": false, "allowed_address_pairs": [{"ip_address": "10.0.0.9"}]}), 409, "AddressPairAndPortSecurityRequired"),
        ("ports", json!({"network_id": net, "allowed_address_pairs": [{"mac_address": "fa:16:3e:00:00:01"}]}), 400, "must contain ip_address"),
        ("ports", json!({"network_id": net, "binding:vnic_type": "direct"}), 400, "is not in"),
        ("ports", json!({"network_id": net, "device_owner": "network:router_interface"}), 400, "cannot be set through the port API"),
        ("routers", json!({"external_gateway_info": {"network_id": net}}), 400, "is not an external network"),
        ("routers", json!({"external_gateway_info": {"network_id": nowhere}}), 404, "NetworkNotFound"),
        ("routers", json!({"external_gateway_info": {"enable_snat": true}}), 400, "Invalid input for external_gateway_info"),
        ("routers", json!({"external_gateway_info": "public"}), 400, "is not a dictionary"),
        ("floatingips", json!({"floating_network_id": net}), 400, "is not a valid external network"),
        ("floatingips", json!({"floating_network_id": ext, "port_id": nowhere}), 404, "PortNotFound"),
        ("floatingips", json!({"floating_network_id": ext, "fixed_ip_address": "10.0.0.9"}), 400, "cannot be specified without a port_id"),
        ("security-groups", json!({"name": "default"}), 409, "SecurityGroupDefaultAlreadyExists"),
        ("security-groups", json!({"name": null}), 400, "is not a valid string"),
        ("security-group-rules", json!({"direction": "ingress"}), 400, "Required attribute 'security_group_id'"),
        ("security-group-rules", json!({"security_group_id": nowhere, "direction": "ingress"}), 404, "SecurityGroupNotFound"),
        ("security-group-rules", json!({"security_group_id": sg, "direction": "sideways"}), 400, "is not in"),
        ("security-group-rules", rule(json!({"protocol": "bogus"})), 400, "SecurityGroupRuleInvalidProtocol"),
        ("security-group-rules", rule(json!({"protocol": 256})), 400, "SecurityGroupRuleInvalidProtocol"),
        ("security-group-rules", rule(json!({"port_range_min": 1, "port_range_max": 2})), 400, "SecurityGroupProtocolRequiredWithPorts"),
        ("security-group-rules", rule(json!({"protocol": "tcp", "port_range_min": 9, "port_range_max": 2})), 400, "SecurityGroupInvalidPortRange"),
        ("security-group-rules", rule(json!({"protocol": "tcp", "port_range_min": 1, "port_range_max": 65536})), 400, "Invalid value for port"),
        ("security-group-rules", rule(json!({"protocol": "icmp", "port_range_min": 256})), 400, "SecurityGroupInvalidIcmpValue"),
        ("security-group-rules", rule(json!({"protocol": "icmp", "port_range_max": 5})), 400, "SecurityGroupMissingIcmpType"),
        ("security-group-rules", rule(json!({"protocol": "gre", "port_range_min": 5, "port_range_max": 5})), 400, "SecurityGroupInvalidProtocolForPort"),
        ("security-group-rules", rule(json!({"ethertype": "IPv6", "remote_ip_prefix": "10.0.0.0/8"})), 400, "SecurityGroupRuleParameterConflict"),
        ("security-group-rules", rule(json!({"remote_group_id": "nothing"})), 404, "SecurityGroupNotFound"),
        ("security-group-rules", rule(json!({"protocol": "icmp", "port_range_min": -1, "port_range_max": 25})), 400, "Invalid value for port -1"),
        ("security-group-rules", rule(json!({"ethertype": "IPX"})), 400, "Invalid input for ethertype"),
        ("security-group-rules", rule(json!({"remote_ip_prefix": "10.0.0.0/99"})), 400, "is not a valid IP subnet"),
        ("security-group-rules", rule(json!({"remote_ip_prefix": "10.0.0.0/8", "remote_group_id": sg})), 400, "SecurityGroupMultipleRemoteEntites"),
        ("security-group-rules", rule(json!({"protocol": "ipv6-icmp"})), 400, "SecurityGroupEthertypeConflictWithProtocol"),
    ];
    for (collection, body, status, words) in cases {
        let one = collection.trim_end_matches('s').replace('-', "_");
        let (got, answer) = cloud.ask(DEMO, "POST", &format!("/v2.0/{collection}"), json!({one: body})).await;
        let said = refusal(&answer);
        assert!(got == status && said.contains(words), "{collection} {body}: {got} {said}, expected {status} {words}");
    }
    for body in ["", "{", "[]", "{\"network\": 5}", "{}", "{\"network\": {\"name\": \"a\\u0000b\"}}", "null"] {
        let request = http::Request::builder().method("POST").uri("/network/v2.0/networks").header("x-auth-token", DEMO);
        let response = cloud.gateway.handle(request.body(rest::Body::from(body)).unwrap()).await;
        assert_eq!(response.status(), 400, "{body}");
    }
    // Nothing of it was kept or charged.
    let networks = cloud.get(DEMO, "/v2.0/networks?project_id=demo").await;
    assert_eq!(networks["networks"].as_array().unwrap().len(), 1);
    assert_eq!((cloud.used("demo", "port").await, cloud.used("demo", "network").await, cloud.used("demo", "security_group_rule").await), (0, 1, 0));
}

#[tokio::test]
async fn updates_are_refused_by_name() {
    let cloud = Cloud::new().await;
    let (network, subnet) = cloud.net_with(DEMO, "10.0.0.0/24").await;
    let port = cloud.make(DEMO, "ports", json!({"network_id": network["id"]})).await;
    for (collection, object, body, status, words) in [
        ("networks", &network, json!({"status": "DOWN"}), 400, "Cannot update read-only attribute status"),
        ("networks", &network, json!({"project_id": "x"}), 400, "Cannot update read-only attribute project_id"),
        ("networks", &network, json!({"color": 1}), 400, "Unrecognized attribute(s) 'color'"),
        ("subnets", &subnet, json!({"cidr": "10.0.0.0/8"}), 400, "Cannot update read-only attribute cidr"),
        ("subnets", &subnet, json!({"gateway_ip": "10.0.0.50"}), 409, "GatewayConflictWithAllocationPools"),
        ("ports", &port, json!({"network_id": network["id"]}), 400, "Cannot update read-only attribute network_id"),
        ("ports", &port, json!({"mac_address": "fa:16:3e:00:00:01"}), 403, "PolicyNotAuthorized"),
        ("ports", &port, json!({"port_security_enabled": false}), 409, "PortSecurityPortHasSecurityGroup"),
    ] {
        let (got, answer) = cloud.change(DEMO, collection, &object["id"], body.clone()).await;
        let said = refusal(&answer);
        assert!(got == status && said.contains(words), "{collection} {body}: {got} {said}");
    }
}
