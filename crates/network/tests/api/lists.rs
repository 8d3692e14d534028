//! Filters, pages, fields, tags and revisions.

use crate::cloud::*;
use serde_json::{Value, json};

fn names(list: &Value) -> Vec<&str> {
    list["networks"].as_array().unwrap().iter().map(|network| text(&network["name"])).collect()
}

#[tokio::test]
async fn an_administrators_pages_cover_the_list_once_in_its_order() {
    let cloud = Cloud::new().await;
    for (actor, name) in [(DEMO, "a"), (ADMIN, "b"), (DEMO, "a"), (ADMIN, "a"), (DEMO, "b"), (DEMO, "a"), (DEMO, "a")] {
        assert_eq!(cloud.ask(actor, "POST", "/v2.0/networks", json!({"network": {"name": name}})).await.0, 201);
    }
    let ids = |list: &Value| -> Vec<String> {
        list["networks"].as_array().unwrap().iter().map(|network| text(&network["id"]).to_owned()).collect()
    };
    let demo = cloud.get(DEMO, "/v2.0/networks").await["networks"][0]["project_id"].clone();
    for filter in ["", "&name=a", "&name=nobody", &format!("&project_id={}", text(&demo))] {
        let all = ids(&cloud.get(ADMIN, &format!("/v2.0/networks?{}", filter.trim_start_matches('&'))).await);
        for limit in [1, 2, 5, 100] {
            let (mut seen, mut marker) = (Vec::new(), String::new());
            loop {
                let page = ids(&cloud.get(ADMIN, &format!("/v2.0/networks?limit={limit}{filter}{marker}")).await);
                assert!(page.len() <= limit);
                let Some(last) = page.last() else { break };
                marker = format!("&marker={last}");
                seen.extend(page);
            }
            assert_eq!(seen, all, "{filter} by {limit}");
        }
    }
    let b = &ids(&cloud.get(ADMIN, "/v2.0/networks?name=b").await)[0];
    for marker in [b.as_str(), "00000000-0000-4000-8000-000000000000", "nothing"] {
        let path = format!("/v2.0/networks?limit=2&name=a&marker={marker}");
        assert_eq!(cloud.send(ADMIN, "GET", &path, None, &[]).await.0, 404, "{marker} is not in the list");
    }
}

#[tokio::test]
async fn lists_are_filtered_ordered_and_cut() {
    let cloud = Cloud::new().await;
    let many: Vec<Value> = ["c", "a", "b"].iter().map(|name| json!({"name": name})).collect();
    let (status, made) = cloud.ask(DEMO, "POST", "/v2.0/networks", json!({"networks": many})).await;
    assert_eq!((status, made["networks"].as_array().unwrap().len()), (201, 3));
    for (query, expected) in [
        ("", vec!["c", "a", "b"]),
        ("?sort_key=name&sort_dir=asc", vec!["a", "b", "c"]),
        ("?name=a&name=b&sort_key=name&sort_dir=desc", vec!["b", "a"]),
        ("?shared=True", vec![]),
        ("?limit=2", vec!["c", "a"]),
        ("?router:external=false&limit=1&sort_key=name&sort_dir=asc", vec!["a"]),
    ] {
        assert_eq!(names(&cloud.get(DEMO, &format!("/v2.0/networks{query}")).await), expected, "{query}");
    }
    let mut next = "/v2.0/networks?limit=2&sort_key=name&sort_dir=asc".to_owned();
    let mut seen = Vec::new();
    loop {
        let page = cloud.get(DEMO, &next).await;
        seen.extend(names(&page).into_iter().map(str::to_owned));
        let link = page["networks_links"].as_array().unwrap().iter().find(|link| link["rel"] == "next").cloned();
        match link {
            Some(link) => next = text(&link["href"]).strip_prefix("http://cloud/network").unwrap().to_owned(),
            None => break,
        }
    }
    assert_eq!(seen, ["a", "b", "c"]);
    let fields = cloud.get(DEMO, "/v2.0/networks?fields=name&fields=mtu&name=a").await;
    assert_eq!(fields["networks"], json!([{"name": "a", "mtu": 1450}]));
    let one = text(&made["networks"][0]["id"]).to_owned();
    assert_eq!(cloud.get(DEMO, &format!("/v2.0/networks/{one}?fields=name")).await, json!({"network": {"name": "c"}}));
    assert_eq!(cloud.send(DEMO, "GET", "/v2.0/networks?color=red", None, &[]).await.0, 400);
    assert_eq!(cloud.send(DEMO, "GET", "/v2.0/networks?limit=x", None, &[]).await.0, 400);
    // A bulk request is made whole or not at all.
    let (status, _) = cloud.ask(DEMO, "POST", "/v2.0/networks", json!({"networks": [{"name": "d"}, {"mtu": 9999}]})).await;
    assert_eq!((status, names(&cloud.get(DEMO, "/v2.0/networks").await).len()), (400, 3));
}

#[tokio::test]
async fn tags_are_kept_and_filtered() {
    let cloud = Cloud::new().await;
    let network = cloud.make(DEMO, "networks", json!({"name": "n", "tags": ["z"]})).await;
    let tags = format!("/v2.0/networks/{}/tags", text(&network["id"]));
    assert_eq!(cloud.ask(DEMO, "PUT", &format!("{tags}/blue"), json!({})).await.0, 201);
    assert_eq!(cloud.get(DEMO, &tags).await, json!({"tags": ["blue", "z"]}));
    assert_eq!(cloud.ask(DEMO, "PUT", &tags, json!({"tags": ["red", "green", "red"]})).await, (200, json!({"tags": ["green", "red"]})));
    assert_eq!(cloud.send(DEMO, "GET", &format!("{tags}/red"), None, &[]).await.0, 204);
    assert_eq!(cloud.send(DEMO, "GET", &format!("{tags}/blue"), None, &[]).await.0, 404);
    assert_eq!(names(&cloud.get(DEMO, "/v2.0/networks?tags=red,green").await), ["n"]);
    assert!(names(&cloud.get(DEMO, "/v2.0/networks?not-tags-any=red").await).is_empty());
    assert_eq!(cloud.delete(DEMO, &format!("{tags}/red")).await, 204);
    assert_eq!(cloud.delete(DEMO, &format!("{tags}/red")).await, 404);
    assert_eq!(cloud.delete(DEMO, &tags).await, 204);
    assert_eq!(cloud.get(DEMO, &tags).await, json!({"tags": []}));
    assert_eq!(cloud.ask(DEMO, "PUT", &tags, json!({"tags": [5]})).await.0, 400);
}

#[tokio::test]
async fn revisions_rise_and_are_honoured() {
    let cloud = Cloud::new().await;
    let network = cloud.make(DEMO, "networks", json!({"name": "n"})).await;
    assert_eq!(network["revision_number"], 1);
    let (_, same) = cloud.change(DEMO, "networks", &network["id"], json!({"name": "n"})).await;
    assert_eq!(same["revision_number"], 1, "nothing changed");
    let (_, changed) = cloud.change(DEMO, "networks", &network["id"], json!({"name": "m"})).await;
    assert_eq!(changed["revision_number"], 2);
    cloud.make(DEMO, "subnets", json!({"network_id": network["id"], "cidr": "10.0.0.0/24", "ip_version": 4})).await;
    let now = cloud.show(DEMO, "networks", &network["id"]).await["revision_number"].as_u64().unwrap();
    assert_eq!(now, 3, "a child raises its parent");
    let path = format!("/v2.0/networks/{}", text(&network["id"]));
    let body = json!({"network": {"name": "k"}});
    for (header, status) in [("revision_number=2", 412), ("revision_number=x", 400), ("revision_number=3", 200)] {
        assert_eq!(cloud.send(DEMO, "PUT", &path, Some(&body), &[("if-match", header)]).await.0, status, "{header}");
    }
    assert_eq!(cloud.send(DEMO, "DELETE", &path, None, &[("if-match", "revision_number=1")]).await.0, 412);
}
