//! What a dry run tells to whom.

use crate::cloud::{Answer, TestCloud};
use serde_json::{Value, json};

async fn dry(cloud: &TestCloud, token: &str, method: &str, path: &str, body: Value) -> Answer {
    cloud.call(token, method, &format!("{path}?dry_run=true"), &body, &[]).await
}

async fn server(cloud: &TestCloud) -> Value {
    let image = cloud.image().await;
    let flavors = cloud.get("/compute/v2.1/flavors").await;
    let flavor = match flavors["flavors"][0]["id"].as_str() {
        Some(id) => id.to_owned(),
        None => {
            let body = json!({"flavor": {"name": "small", "vcpus": 1, "ram": 64, "disk": 1, "id": "small"}});
            cloud.call(&cloud.admin, "POST", "/compute/v2.1/flavors", &body, &[]).await;
            "small".into()
        }
    };
    json!({"server": {"name": "web", "imageRef": image, "flavorRef": flavor, "networks": "none"}})
}

fn kinds(plan: &Value) -> Vec<String> {
    let changes = plan["changes"].as_array().unwrap();
    changes
        .iter()
        .map(|change| format!("{} {}", change["change"].as_str().unwrap(), change["kind"].as_str().unwrap()))
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_would_be_made_is_told_with_quota_and_host() {
    let cloud = TestCloud::start(3).await;
    let body = server(&cloud).await;
    cloud.settle().await;
    let rev = cloud.cloud.store().rev();
    let path = "/compute/v2.1/servers";
    let admin = dry(&cloud, &cloud.admin, "POST", path, body.clone()).await;
    assert_eq!(admin.status, 200, "{}", admin.body);
    let plan = &admin.body["dry_run"];
    assert_eq!((plan["operation"].as_str(), plan["status"].as_u64()), (Some("servers:create"), Some(202)));
    let kinds = kinds(plan);
    for expected in ["create server", "create server_secret", "create instance_action"] {
        assert!(kinds.iter().any(|kind| kind == expected), "{expected} in {kinds:?}");
    }
    assert!(plan["host"][0]["host"].as_str().is_some_and(|host| host.starts_with("sim")), "{plan}");
    let quota = plan["quota"].as_array().unwrap();
    assert!(quota.iter().any(|row| row["resource"] == "instances" && row["from"] == 0 && row["to"] == 1), "{quota:?}");

    let demo = dry(&cloud, &cloud.demo, "POST", path, body.clone()).await;
    let plan = &demo.body["dry_run"];
    assert_eq!((plan["host"][0]["would_fit"].as_bool(), plan["host"][0]["hosts"].as_u64()), (Some(true), Some(3)));
    assert!(!demo.body.to_string().contains("sim1"), "{}", demo.body);
    assert!(!demo.body.to_string().contains("adminPass"), "{}", demo.body);
    assert!(plan["changes"].as_array().is_some_and(|changes| !changes.is_empty()));

    let mut huge = body;
    huge["server"]["availability_zone"] = json!("nova");
    let flavor = json!({"flavor": {"name": "huge", "vcpus": 5000, "ram": 64, "disk": 1, "id": "huge"}});
    cloud.call(&cloud.admin, "POST", "/compute/v2.1/flavors", &flavor, &[]).await;
    let limits = json!({"quota_set": {"cores": -1}});
    let project = cloud.get("/identity/v3/auth/projects").await["projects"][0]["id"].clone();
    for project in [project.as_str().unwrap()] {
        cloud.call(&cloud.admin, "PUT", &format!("/compute/v2.1/os-quota-sets/{project}"), &limits, &[]).await;
    }
    huge["server"]["flavorRef"] = json!("huge");
    let refused = dry(&cloud, &cloud.admin, "POST", path, huge.clone()).await;
    if refused.status == 200 {
        let host = &refused.body["dry_run"]["host"][0];
        assert_eq!((host["host"].clone(), host["table"].as_array().map(Vec::len)), (Value::Null, Some(3)), "{host}");
        let told = dry(&cloud, &cloud.demo, "POST", path, huge).await;
        let text = told.body["dry_run"]["host"].to_string();
        assert!(text.contains("3 hosts") && text.contains("constraints") && !text.contains("sim"), "{text}");
    } else {
        assert_eq!(refused.status, 403, "{}", refused.body);
    }
    let servers = cloud.get(path).await;
    assert_eq!(servers["servers"].as_array().map(Vec::len), Some(0));
    assert!(cloud.cloud.store().rev() > rev);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_call_answers_its_ordinary_fault() {
    let cloud = TestCloud::start(1).await;
    for (method, path, body, status) in [
        ("DELETE", "/compute/v2.1/servers/00000000-0000-0000-0000-000000000000", Value::Null, 404),
        ("POST", "/network/v2.0/networks", json!({"network": {"nonsense": 1}}), 400),
        ("POST", "/compute/v2.1/flavors", json!({"flavor": {"name": "f", "vcpus": 1, "ram": 1, "disk": 1}}), 403),
    ] {
        let real = cloud.call(&cloud.demo, method, path, &body, &[]).await;
        let dry = dry(&cloud, &cloud.demo, method, path, body).await;
        assert_eq!((real.status, dry.status), (status, status), "{path}: {}", dry.body);
        assert_eq!(real.body, dry.body);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_loses_traffic_is_named_to_administrators_and_counted_for_others() {
    let cloud = TestCloud::start(1).await;
    let make = async |path: &str, body: Value| {
        let made = cloud.call(&cloud.demo, "POST", &format!("/network/v2.0/{path}"), &body, &[]).await;
        assert_eq!(made.status, 201, "{}", made.body);
        made.body.as_object().unwrap().values().next().unwrap()["id"].as_str().unwrap().to_owned()
    };
    let network = make("networks", json!({"network": {"name": "blue"}})).await;
    let subnet = json!({"subnet": {"network_id": network, "cidr": "10.9.0.0/24", "ip_version": 4}});
    make("subnets", subnet).await;
    let mut body = server(&cloud).await;
    body["server"]["networks"] = json!([{"uuid": network}]);
    let made = cloud.call(&cloud.demo, "POST", "/compute/v2.1/servers", &body, &[]).await;
    assert_eq!(made.status, 202, "{}", made.body);
    let path = format!("/compute/v2.1/servers/{}", made.body["server"]["id"].as_str().unwrap());
    while cloud.get(&path).await["server"]["status"] != "ACTIVE" {
        tokio::task::yield_now().await;
    }
    let plan = dry(&cloud, &cloud.admin, "DELETE", &path, Value::Null).await;
    let traffic = &plan.body["dry_run"]["traffic"];
    assert_eq!(
        (traffic[0]["device"].as_str(), traffic.as_array().map(Vec::len)),
        (made.body["server"]["id"].as_str(), Some(1))
    );
    let plan = dry(&cloud, &cloud.demo, "DELETE", &path, Value::Null).await;
    assert_eq!(plan.body["dry_run"]["traffic"], json!({"ports": 1}));
    let off = json!({"network": {"admin_state_up": false}});
    let plan = dry(&cloud, &cloud.demo, "PUT", &format!("/network/v2.0/networks/{network}"), off).await;
    assert_eq!(plan.body["dry_run"]["traffic"], json!({"ports": 1}));
    assert_eq!(cloud.get(&path).await["server"]["status"], "ACTIVE");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_takes_a_way_a_rule_or_an_address_away_interrupts_the_ports_behind_it() {
    let cloud = TestCloud::start(1).await;
    let make = async |path: &str, body: Value| {
        let made = cloud.call(&cloud.admin, "POST", &format!("/network/v2.0/{path}"), &body, &[]).await;
        assert_eq!(made.status, 201, "{}", made.body);
        made.body.as_object().unwrap().values().next().unwrap()["id"].as_str().unwrap().to_owned()
    };
    let network = make("networks", json!({"network": {"name": "blue"}})).await;
    let subnet =
        make("subnets", json!({"subnet": {"network_id": network, "cidr": "10.9.0.0/24", "ip_version": 4}})).await;
    let outside = make("networks", json!({"network": {"name": "out", "router:external": true}})).await;
    make("subnets", json!({"subnet": {"network_id": outside, "cidr": "172.16.9.0/24", "ip_version": 4}})).await;
    let router = make("routers", json!({"router": {"external_gateway_info": {"network_id": outside}}})).await;
    let interface = json!({"subnet_id": subnet});
    let path = format!("/network/v2.0/routers/{router}/add_router_interface");
    assert_eq!(cloud.call(&cloud.admin, "PUT", &path, &interface, &[]).await.status, 200);
    let group = make("security-groups", json!({"security_group": {"name": "web"}})).await;
    let rule = json!({"security_group_rule": {"security_group_id": group, "direction": "ingress", "protocol": "tcp"}});
    let rule = make("security-group-rules", rule).await;
    let port = json!({"port": {"network_id": network, "device_id": "vm-1", "security_groups": [group]}});
    let port = make("ports", port).await;
    make("ports", json!({"port": {"network_id": network, "name": "unused"}})).await;
    let floating = json!({"floatingip": {"floating_network_id": outside, "port_id": port}});
    let floating = make("floatingips", floating).await;
    for (method, path, body, why) in [
        ("PUT", format!("routers/{router}/remove_router_interface"), interface, None),
        (
            "PUT",
            format!("routers/{router}"),
            json!({"router": {"admin_state_up": false}}),
            Some("its router is switched off"),
        ),
        ("PUT", format!("routers/{router}"), json!({"router": {"name": "r"}}), None),
        ("DELETE", format!("security-group-rules/{rule}"), Value::Null, Some("a rule no longer allows")),
        ("DELETE", format!("floatingips/{floating}"), Value::Null, Some("a floating address no longer leads to it")),
        (
            "PUT",
            format!("ports/{port}"),
            json!({"port": {"security_groups": []}}),
            Some("a security group no longer allows"),
        ),
        ("PUT", format!("ports/{port}"), json!({"port": {"name": "p"}}), None),
        (
            "PUT",
            format!("networks/{network}"),
            json!({"network": {"admin_state_up": false}}),
            Some("its network is switched off"),
        ),
    ] {
        let answer = dry(&cloud, &cloud.admin, method, &format!("/network/v2.0/{path}"), body.clone()).await;
        if path.ends_with("remove_router_interface") {
            // A floating address leads through it: the call itself is refused.
            assert_eq!(answer.status, 409, "{}", answer.body);
            continue;
        }
        let traffic = answer.body["dry_run"]["traffic"].clone();
        let lost: Vec<_> =
            traffic.as_array().unwrap().iter().map(|row| row["why"].as_str().unwrap().to_owned()).collect();
        assert_eq!(lost, why.map(str::to_owned).into_iter().collect::<Vec<_>>(), "{path} {body}");
        assert!(traffic.as_array().unwrap().iter().all(|row| row["port"] == port.as_str() && row["device"] == "vm-1"));
    }
}
