//! Limits that bind each other, revocation events, what is gone.

use super::*;

#[tokio::test]
async fn in_the_strict_model_no_project_has_more_than_its_domain() {
    let options = Options { limit_model: crate::limit::Model::StrictTwoLevel, ..Options::default() };
    let cloud = Cloud::on(store::Options { kinds: kinds(), ..store::Options::memory() }, options).await;
    let model = cloud.get("/v3/limits/model").await.body;
    assert_eq!(model["model"]["name"], "strict_two_level");
    let service = cloud.made("/v3/services", "service", json!({"type": "x"})).await;
    let registered = json!({"registered_limits": [{"service_id": service, "resource_name": "r", "default_limit": 10}]});
    assert_eq!(cloud.post("/v3/registered_limits", registered).await.status, 201);
    let domain = cloud.made("/v3/domains", "domain", json!({"name": "d"})).await;
    let project = json!({"name": "p", "domain_id": domain});
    let project = cloud.made("/v3/projects", "project", project).await;
    let below = json!({"project": {"name": "q", "parent_id": project}});
    assert_eq!(cloud.post("/v3/projects", below).await.status, 403, "two levels are all");
    let limit = |owner: &str, id: &str, most: i64| json!({"service_id": service, "resource_name": "r", owner: id, "resource_limit": most});
    let post = async |limits: Value| cloud.post("/v3/limits", json!({ "limits": limits })).await;
    let refused = post(json!([limit("project_id", &project, 11)])).await;
    assert_eq!(refused.status, 403);
    assert!(refused.body["error"]["message"].as_str().unwrap().contains("doesn't satisfy current hierarchy model"));
    assert_eq!(post(json!([limit("project_id", &project, -1)])).await.status, 403, "without end is more");
    let both = json!([limit("project_id", &project, 15), limit("domain_id", &domain, 20)]);
    let both = post(both).await;
    assert_eq!(both.status, 201, "together they fit: {}", both.body);
    let id = |at: usize| both.body["limits"][at]["id"].as_str().unwrap().to_owned();
    let change = async |id: &str, most: i64| {
        cloud.patch(&format!("/v3/limits/{id}"), json!({"limit": {"resource_limit": most}})).await.status
    };
    assert_eq!(change(&id(0), 21).await, 403);
    assert_eq!(change(&id(0), 20).await, 200);
    assert_eq!(change(&id(1), 19).await, 403);
    assert_eq!(change(&id(1), -1).await, 200);
    assert_eq!(change(&id(0), 1000).await, 200);
}

#[tokio::test]
async fn what_was_revoked_is_listed_and_reaches_what_was_made_of_it() {
    let cloud = Cloud::new().await;
    let unscoped = cloud.login("demo", "demo", json!("unscoped")).await.token;
    let rescope = json!({"auth": {"identity": {"methods": ["token"], "token": {"id": unscoped}},
        "scope": {"project": project_named("demo")}}});
    let scoped = async || cloud.ask("POST", "/v3/auth/tokens", &[], Some(rescope.clone())).await.token;
    let (first, second) = (scoped().await, scoped().await);
    let revoke = async |token: &str, query: &str| {
        let headers = [("x-auth-token", cloud.admin.as_str()), ("x-subject-token", token)];
        cloud.ask("DELETE", &format!("/v3/auth/tokens{query}"), &headers, None).await.status
    };
    assert_eq!(revoke(&first, "").await, 204);
    assert_eq!(cloud.validate(&first).await.status, 404);
    assert_eq!((cloud.validate(&second).await.status, cloud.validate(&unscoped).await.status), (200, 200));
    assert_eq!(revoke(&unscoped, "").await, 204);
    assert_eq!(cloud.validate(&second).await.status, 404, "its chain goes with it");
    let alone = cloud.login("demo", "demo", json!("unscoped")).await.token;
    let body = json!({"auth": {"identity": {"methods": ["token"], "token": {"id": alone}},
        "scope": {"project": project_named("demo")}}});
    let child = cloud.ask("POST", "/v3/auth/tokens", &[], Some(body)).await.token;
    assert_eq!(revoke(&alone, "?cascade=false").await, 204);
    assert_eq!((cloud.validate(&alone).await.status, cloud.validate(&child).await.status), (404, 200));
    let user = cloud.id("users", "demo").await;
    assert_eq!(cloud.by(&child, "DELETE", &format!("/v3/users/{user}/tokens"), None).await.status, 204);
    assert_eq!(cloud.validate(&child).await.status, 404, "all of a user's");
    let admin = cloud.id("users", "admin").await;
    let demo = cloud.login("demo", "demo", json!({"project": project_named("demo")})).await.token;
    assert_eq!(cloud.by(&demo, "DELETE", &format!("/v3/users/{admin}/tokens"), None).await.status, 403);

    let events = cloud.get("/v3/OS-REVOKE/events").await.body["events"].clone();
    let events = events.as_array().unwrap();
    assert_eq!(events.len(), 4);
    assert_eq!(events[0]["audit_id"], events[0]["audit_chain_id"]);
    assert_eq!((&events[2]["audit_chain_id"], &events[3]["user_id"]), (&Value::Null, &json!(user)));
    let since = events[3]["revoked_at"].as_str().unwrap();
    let later = cloud.get(&format!("/v3/OS-REVOKE/events?since={since}")).await.body["events"].clone();
    assert_eq!(later.as_array().unwrap().len(), 1);
    assert_eq!(cloud.get("/v3/OS-REVOKE/events?since=never").await.status, 400);
    assert_eq!(cloud.by(&demo, "GET", "/v3/OS-REVOKE/events", None).await.status, 403);
    for path in ["/v3/OS-SIMPLE-CERT/ca", "/v3/OS-SIMPLE-CERT/certificates", "/v3/auth/tokens/OS-PKI/revoked"] {
        assert_eq!(cloud.get(path).await.status, 410, "{path}");
    }
}

#[tokio::test]
async fn an_immutable_project_or_domain_neither_changes_nor_goes() {
    let cloud = Cloud::new().await;
    for (path, name) in [("/v3/projects", "project"), ("/v3/domains", "domain")] {
        let body = json!({"name": "fixed", "enabled": false, "options": {"immutable": true}});
        let one = format!("{path}/{}", cloud.made(path, name, body).await);
        assert_eq!(cloud.patch(&one, json!({name: {"description": "x"}})).await.status, 403);
        assert_eq!(cloud.delete(&one).await, 403);
        let free = json!({name: {"description": "x", "options": {"immutable": false}}});
        assert_eq!(cloud.patch(&one, free).await.status, 200);
        assert_eq!(cloud.delete(&one).await, 204);
    }
}
