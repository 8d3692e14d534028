//! Policies, endpoint groups and filters, consumers, options of domains.

use super::*;

#[tokio::test]
async fn the_nearest_policy_holds_for_an_endpoint() {
    let cloud = Cloud::new().await;
    let service = cloud.made("/v3/services", "service", json!({"type": "x"})).await;
    cloud.made("/v3/regions", "region", json!({"id": "above"})).await;
    cloud.made("/v3/regions", "region", json!({"id": "below", "parent_region_id": "above"})).await;
    let endpoint = json!({"service_id": service, "interface": "public", "url": "http://x", "region_id": "below"});
    let endpoint = cloud.made("/v3/endpoints", "endpoint", endpoint).await;
    let mut policies = Vec::new();
    for name in ["service", "region", "endpoint"] {
        policies.push(cloud.made("/v3/policies", "policy", json!({"type": name, "blob": "{}"})).await);
    }
    let found = format!("/v3/endpoints/{endpoint}/OS-ENDPOINT-POLICY/policy");
    assert_eq!(cloud.get(&found).await.status, 404);
    let of = |at: usize, rest: &str| format!("/v3/policies/{}/OS-ENDPOINT-POLICY/{rest}", policies[at]);
    let paths = [
        of(0, &format!("services/{service}")),
        of(1, &format!("services/{service}/regions/above")),
        of(2, &format!("endpoints/{endpoint}")),
    ];
    for (path, policy) in paths.iter().zip(&policies) {
        assert_eq!(cloud.get(path).await.status, 404);
        assert_eq!(cloud.put(path).await, 204);
        assert_eq!(cloud.get(path).await.status, 204);
        assert_eq!(cloud.get(&found).await.body["policy"]["id"], json!(policy));
        let endpoints = cloud.get(&format!("/v3/policies/{policy}/OS-ENDPOINT-POLICY/endpoints")).await.body;
        assert_eq!(endpoints["endpoints"][0]["id"], json!(endpoint));
    }
    let instead = of(0, &format!("endpoints/{endpoint}"));
    assert_eq!(cloud.put(&instead).await, 204, "one takes the place of the other");
    assert_eq!(cloud.get(&paths[2]).await.status, 404);
    assert_eq!(cloud.delete(&instead).await, 204);
    assert_eq!(cloud.delete(&instead).await, 404);
    assert_eq!(cloud.delete(&format!("/v3/policies/{}", policies[1])).await, 204);
    assert_eq!(cloud.get(&found).await.body["policy"]["id"], json!(policies[0]));
    assert_eq!(cloud.put(&of(0, "endpoints/absent")).await, 404);
    let changed = cloud.patch(&format!("/v3/policies/{}", policies[0]), json!({"policy": {"blob": "new"}})).await.body;
    assert_eq!((&changed["policy"]["blob"], &changed["policy"]["type"]), (&json!("new"), &json!("service")));
    for bad in [
        json!({}),
        json!({"type": "x"}),
        json!({"blob": "x"}),
        json!({"type": "x", "blob": {}}),
        json!({"type": "", "blob": "x"}),
    ] {
        assert_eq!(cloud.post("/v3/policies", json!({ "policy": bad })).await.status, 400);
    }
    assert_eq!(cloud.delete(&format!("/v3/services/{service}")).await, 204);
}

#[tokio::test]
async fn a_project_sees_the_endpoints_that_it_was_given() {
    let cloud = Cloud::new().await;
    let (project, compute) = (cloud.id("projects", "demo").await, cloud.get("/v3/services?type=compute").await.body);
    let compute = compute["services"][0]["id"].as_str().unwrap().to_owned();
    let all = cloud.get("/v3/endpoints").await.body["endpoints"].as_array().unwrap().clone();
    let catalog = async || {
        let answer = cloud.login("demo", "demo", json!({"project": project_named("demo")})).await;
        let mut kinds = names(&answer.body["token"]["catalog"], "type");
        kinds.sort();
        kinds
    };
    assert_eq!(catalog().await, ["compute", "identity"]);
    let body = json!({"name": "g", "filters": {"service_id": compute, "interface": "public"}});
    let group = cloud.made("/v3/OS-EP-FILTER/endpoint_groups", "endpoint_group", body).await;
    let path = format!("/v3/OS-EP-FILTER/endpoint_groups/{group}");
    let members = cloud.get(&format!("{path}/endpoints")).await.body["endpoints"].clone();
    assert_eq!(members.as_array().unwrap().len(), 1);
    let given = format!("{path}/projects/{project}");
    assert_eq!(cloud.get(&given).await.status, 404);
    assert_eq!(cloud.put(&given).await, 204);
    assert_eq!(cloud.get(&given).await.body["project_endpoint_group"]["project_id"], json!(project));
    assert_eq!(cloud.get(&format!("{path}/projects")).await.body["projects"][0]["id"], json!(project));
    let groups = cloud.get(&format!("/v3/OS-EP-FILTER/projects/{project}/endpoint_groups")).await.body;
    assert_eq!(names(&groups["endpoint_groups"], "name"), ["g"]);
    assert_eq!(catalog().await, ["compute"]);
    let identity = all.iter().find(|endpoint| endpoint["service_id"] != json!(compute)).unwrap();
    let identity = identity["id"].as_str().unwrap();
    let single = format!("/v3/OS-EP-FILTER/projects/{project}/endpoints/{identity}");
    assert_eq!(cloud.put(&single).await, 204);
    assert_eq!(cloud.get(&single).await.status, 204);
    assert_eq!(catalog().await, ["compute", "identity"]);
    let seen = cloud.get(&format!("/v3/OS-EP-FILTER/projects/{project}/endpoints")).await.body;
    assert_eq!(seen["endpoints"].as_array().unwrap().len(), 2);
    let projects = cloud.get(&format!("/v3/OS-EP-FILTER/endpoints/{identity}/projects")).await.body;
    assert_eq!(names(&projects["projects"], "name"), ["demo"]);
    let body = json!({"endpoint_group": {"filters": {"region_id": "nowhere"}}});
    assert_eq!(cloud.patch(&path, body).await.status, 200);
    assert_eq!(catalog().await, ["identity"]);
    assert_eq!(cloud.delete(&path).await, 204);
    assert_eq!(cloud.delete(&single).await, 204);
    assert_eq!(cloud.delete(&single).await, 404);
    assert_eq!(catalog().await, ["compute", "identity"], "without any, a project sees all");
    for bad in [
        json!({"name": "g"}),
        json!({"name": "g", "filters": {}}),
        json!({"name": "g", "filters": {"colour": "x"}}),
        json!({"name": "g", "filters": {"interface": "inner"}}),
        json!({"name": "g", "filters": {"region_id": 7}}),
        json!({"filters": {"region_id": "x"}}),
    ] {
        let answer = cloud.post("/v3/OS-EP-FILTER/endpoint_groups", json!({ "endpoint_group": bad })).await;
        assert_eq!(answer.status, 400, "{bad}");
    }
}

#[tokio::test]
async fn a_consumers_secret_is_shown_once() {
    let cloud = Cloud::new().await;
    let made = cloud.post("/v3/OS-OAUTH1/consumers", json!({"consumer": {"description": "d"}})).await;
    assert_eq!(made.status, 201);
    let consumer = &made.body["consumer"];
    assert!(consumer["secret"].as_str().is_some_and(|secret| secret.len() >= 32));
    let path = format!("/v3/OS-OAUTH1/consumers/{}", consumer["id"].as_str().unwrap());
    let shown = cloud.get(&path).await.body;
    assert_eq!((&shown["consumer"]["description"], shown["consumer"].get("secret")), (&json!("d"), None));
    assert_eq!(cloud.patch(&path, json!({"consumer": {"secret": "x"}})).await.status, 400);
    let changed = cloud.patch(&path, json!({"consumer": {"description": "e"}})).await.body;
    assert_eq!((&changed["consumer"]["description"], changed["consumer"].get("secret")), (&json!("e"), None));
    assert_eq!(names(&cloud.get("/v3/OS-OAUTH1/consumers").await.body["consumers"], "description"), ["e"]);
    assert_eq!(cloud.delete(&path).await, 204);
    assert_eq!(cloud.get(&path).await.status, 404);
}

#[tokio::test]
async fn a_domains_options_are_kept_by_group_and_secrets_are_never_shown() {
    let cloud = Cloud::new().await;
    let domain = cloud.made("/v3/domains", "domain", json!({"name": "acme"})).await;
    let path = format!("/v3/domains/{domain}/config");
    let put = async |config: Value| cloud.by(&cloud.admin, "PUT", &path, Some(json!({ "config": config }))).await;
    assert_eq!(cloud.get(&path).await.status, 404);
    let config = json!({"identity": {"driver": "ldap"}, "ldap": {"url": "ldap://x", "password": "hush"}});
    let made = put(config.clone()).await;
    assert_eq!((made.status, made.body["config"]["ldap"].clone()), (201, json!({"url": "ldap://x"})));
    assert_eq!(put(config).await.status, 200, "it takes the place of what was");
    let get = async |rest: &str| cloud.get(&format!("{path}{rest}")).await;
    assert_eq!(get("/ldap").await.body["config"], json!({"ldap": {"url": "ldap://x"}}));
    assert_eq!(get("/ldap/url").await.body["config"], json!({"url": "ldap://x"}));
    assert_eq!(get("/ldap/password").await.status, 404);
    assert_eq!(get("/ldap/suffix").await.status, 404);
    assert_eq!(get("/ldap/colour").await.status, 403);
    assert_eq!(get("/colour").await.status, 403);
    let patch =
        async |rest: &str, config: Value| cloud.patch(&format!("{path}{rest}"), json!({ "config": config })).await;
    let changed = patch("/ldap/url", json!({"url": "ldap://y"})).await;
    assert_eq!((changed.status, &changed.body["config"]["ldap"]["url"]), (200, &json!("ldap://y")));
    let changed = patch("/identity", json!({"identity": {"list_limit": 7}})).await;
    assert_eq!(changed.body["config"]["identity"], json!({"driver": "ldap", "list_limit": 7}));
    assert_eq!(patch("/ldap/password", json!({"password": "new"})).await.status, 200);
    for (rest, bad, expected) in [
        ("", json!({}), 403),
        ("", json!({"ldap": {}}), 403),
        ("", json!({"ldap": "x"}), 403),
        ("", json!({"ldap": {"colour": "x"}}), 403),
        ("", json!({"ldap": {"url": {"deep": 1}}}), 403),
        ("", json!({"ldap": {"url": "x".repeat(5000)}}), 403),
        ("/ldap", json!({"identity": {"driver": "x"}}), 403),
        ("/ldap/url", json!({"suffix": "x"}), 403),
        ("/ldap/suffix", json!({"suffix": "x"}), 404),
    ] {
        assert_eq!(patch(rest, bad.clone()).await.status, expected, "{rest} {bad}");
    }
    assert_eq!(cloud.delete(&format!("{path}/ldap/url")).await, 204);
    assert_eq!(cloud.delete(&format!("{path}/ldap/url")).await, 404);
    assert_eq!(cloud.delete(&format!("{path}/identity")).await, 204);
    assert_eq!(get("").await.status, 404, "only a secret is left");
    assert_eq!(cloud.delete(&path).await, 204);
    assert_eq!(cloud.delete(&format!("{path}/ldap")).await, 404);
    let usual = cloud.get("/v3/domains/config/default").await.body;
    assert_eq!(usual["config"]["identity"]["driver"], "sql");
    assert_eq!(cloud.get("/v3/domains/config/ldap/default").await.body["config"]["ldap"]["pool_size"], 10);
    assert_eq!(cloud.get("/v3/domains/config/ldap/url/default").await.body["config"]["url"], "ldap://localhost");
    assert_eq!(cloud.get("/v3/domains/config/ldap/password/default").await.status, 403);
    let compliance = cloud.get("/v3/domains/default/config/security_compliance").await.body;
    assert_eq!(compliance["config"]["security_compliance"]["password_regex"], Value::Null);
    assert_eq!(get("/security_compliance").await.status, 403, "in the default domain only");
}
