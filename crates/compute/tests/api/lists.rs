//! Lists of servers: filters, order, pages, freshness, and their price.

use crate::cloud::*;
use serde_json::{Value, json};

fn names(body: &Value) -> Vec<&str> {
    body["servers"].as_array().unwrap().iter().map(|it| it["name"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn filters_find_what_they_name() {
    let cloud = Cloud::new(1).await;
    let a = cloud.active("web-1").await;
    let b = cloud.active("web-2").await;
    let c = cloud.active("db").await;
    cloud.put(ALICE, &format!("/servers/{a}/tags"), json!({"tags": ["red", "big"]})).await.ok(200);
    cloud.put(ALICE, &format!("/servers/{b}/tags"), json!({"tags": ["red"]})).await.ok(200);
    cloud.act(ALICE, &c, json!({"os-stop": null})).await.ok(202);
    cloud.settle().await;
    cloud.act(ALICE, &b, json!({"lock": null})).await.ok(202);
    for (query, expected) in [
        ("", vec!["db", "web-2", "web-1"]),
        ("?name=web", vec!["web-2", "web-1"]),
        ("?name=%5Eweb-.%24", vec!["web-2", "web-1"]),
        ("?name=%5Eweb%24", vec![]),
        ("?status=shutoff", vec!["db"]),
        ("?status=ACTIVE&status=SHUTOFF", vec!["db", "web-2", "web-1"]),
        ("?tags=red,big", vec!["web-1"]),
        ("?tags-any=red,big", vec!["web-2", "web-1"]),
        ("?not-tags=red,big", vec!["db", "web-2"]),
        ("?not-tags-any=red,big", vec!["db"]),
        ("?locked=true", vec!["web-2"]),
        ("?flavor=1", vec!["db", "web-2", "web-1"]),
        ("?flavor=2", vec![]),
        ("?limit=0", vec![]),
        ("?ip=10.0.0.5", vec!["web-2"]),
        ("?power_state=4", vec!["db"]),
        ("?vm_state=stopped", vec!["db"]),
        ("?sort_key=display_name&sort_dir=asc", vec!["db", "web-1", "web-2"]),
        ("?host=nowhere", vec!["db", "web-2", "web-1"]),
        ("?changes-since=2030-01-01T00:00:00Z", vec![]),
    ] {
        for path in ["/servers", "/servers/detail"] {
            let list = cloud.get(ALICE, &format!("{path}{query}")).await.ok(200);
            assert_eq!(names(&list), expected, "{path}{query}");
        }
    }
    assert_eq!(names(&cloud.get(ADMIN, "/servers").await.ok(200)), Vec::<&str>::new());
    assert_eq!(names(&cloud.get(ADMIN, "/servers?all_tenants=1&host=sim-1").await.ok(200)).len(), 3);
    assert_eq!(names(&cloud.get(ADMIN, "/servers?all_tenants=1&host=nowhere").await.ok(200)).len(), 0);
    assert_eq!(names(&cloud.get(ADMIN, "/servers?all_tenants=1&project_id=demo").await.ok(200)).len(), 3);
    assert_eq!(names(&cloud.get(ADMIN, "/servers?project_id=demo").await.ok(200)).len(), 0);
    assert_eq!(names(&cloud.get(MALLORY, "/servers?project_id=demo").await.ok(200)).len(), 0);
}

#[tokio::test]
async fn pages_cover_the_list_once_and_link_to_the_next() {
    let cloud = Cloud::new(1).await;
    for n in 0..7 {
        cloud.boot(&format!("s{n}")).await;
    }
    let (mut seen, mut path) = (Vec::new(), "/servers/detail?limit=3".to_owned());
    loop {
        let page = cloud.get(ALICE, &path).await.ok(200);
        seen.extend(names(&page).into_iter().map(str::to_owned));
        let Some(next) = page["servers_links"][0]["href"].as_str() else { break };
        path = next.strip_prefix("http://cloud/compute/v2.1").unwrap().to_owned();
    }
    assert_eq!(seen, ["s6", "s5", "s4", "s3", "s2", "s1", "s0"]);
    let lost = cloud.get(ALICE, "/servers?marker=33333333-3333-3333-3333-333333333333").await;
    assert_eq!((lost.status, lost.message()), (400, "marker [33333333-3333-3333-3333-333333333333] not found"));
}

#[tokio::test]
async fn a_list_shows_what_has_been_answered_before() {
    let cloud = Cloud::new(1).await;
    let id = cloud.active("a").await;
    for round in 0..5 {
        let name = format!("renamed-{round}");
        cloud.put(ALICE, &format!("/servers/{id}"), json!({"server": {"name": name}})).await.ok(200);
        let list = cloud.get(ALICE, "/servers/detail").await.ok(200);
        assert_eq!(names(&list), [name.as_str()]);
        assert_eq!(list["servers"][0], without_groups(cloud.get(ALICE, &format!("/servers/{id}")).await.ok(200)));
    }
    let path = format!("/servers/{id}/os-interface");
    cloud.post(ALICE, &path, json!({"interfaceAttachment": {"net_id": NET}})).await.ok(200);
    let list = cloud.get(ALICE, "/servers/detail").await.ok(200);
    assert_eq!(list["servers"][0]["addresses"]["demo-net"].as_array().unwrap().len(), 2);
    let admin = cloud.get(ADMIN, "/servers/detail?all_tenants=1").await.ok(200);
    assert_eq!(admin["servers"][0]["OS-EXT-SRV-ATTR:host"], "sim-1");
    assert!(cloud.get(ALICE, "/servers/detail").await.ok(200)["servers"][0].get("OS-EXT-SRV-ATTR:host").is_none());
}

fn without_groups(mut shown: Value) -> Value {
    shown["server"].as_object_mut().unwrap().remove("server_groups");
    shown["server"].clone()
}

#[tokio::test]
async fn the_deleted_are_shown_to_those_who_ask() {
    let cloud = Cloud::new(1).await;
    let id = cloud.active("a").await;
    cloud.active("b").await;
    cloud.delete(ALICE, &format!("/servers/{id}")).await.ok(204);
    cloud.settle().await;
    assert_eq!(names(&cloud.get(ALICE, "/servers").await.ok(200)), ["b"]);
    let since = cloud.get(ALICE, "/servers/detail?changes-since=2020-01-01T00:00:00Z").await.ok(200);
    assert_eq!(names(&since), ["b", "a"]);
    assert_eq!(since["servers"][1]["status"], "DELETED");
    assert_eq!(cloud.get(ALICE, "/servers?status=deleted").await.status, 403);
    assert_eq!(names(&cloud.get(ADMIN, "/servers?all_tenants=1&deleted=true").await.ok(200)), ["a"]);
    cloud.clock.advance_ms(25 * 3_600_000);
    cloud.settle().await;
    assert!(names(&cloud.get(ADMIN, "/servers?all_tenants=1&deleted=true").await.ok(200)).is_empty());
    assert_eq!(cloud.get(ALICE, &format!("/servers/{id}/os-instance-actions")).await.status, 404);
}

#[tokio::test]
async fn a_long_list_costs_little_more_than_writing_it() {
    let cloud = Cloud::new(1).await;
    cloud
        .put(ADMIN, "/os-quota-sets/demo", json!({"quota_set": {"instances": -1, "cores": -1, "ram": -1}}))
        .await
        .ok(200);
    let body =
        json!({"server": {"name": "s", "flavorRef": "1", "imageRef": IMAGE, "networks": "auto", "min_count": 1000}});
    cloud.post(ALICE, "/servers", body).await.ok(202);
    for version in ["2.1", "latest"] {
        let first = cloud.send("GET", ALICE, "/servers/detail", version, None).await.ok(200);
        assert_eq!(first["servers"].as_array().unwrap().len(), 1000);
        let request = || {
            let request = http::Request::get("/compute/v2.1/servers/detail").header("x-auth-token", ALICE);
            request.header("openstack-api-version", format!("compute {version}")).body(rest::Body::empty()).unwrap()
        };
        let mut list = std::time::Duration::MAX;
        let mut write = std::time::Duration::MAX;
        for _ in 0..5 {
            let began = std::time::Instant::now();
            let response = cloud.gateway.handle(request()).await;
            list = list.min(began.elapsed());
            assert_eq!(response.status(), 200);
            let began = std::time::Instant::now();
            std::hint::black_box(serde_json::to_vec(&first).unwrap());
            write = write.min(began.elapsed());
        }
        println!("{version}: list {list:?}, serde_json {write:?}");
        assert!(list < write * 5, "{version}: list {list:?}, serde_json {write:?}");
    }
}
