//! Application credentials that are good for a few requests only.

use super::*;

/// A login with an application credential of the demo user.
async fn login(cloud: &Cloud, credential: &Value) -> Answer {
    let proof = json!({"id": credential["id"], "secret": credential["secret"]});
    let identity = json!({"methods": ["application_credential"], "application_credential": proof});
    cloud.ask("POST", "/v3/auth/tokens", &[], Some(json!({"auth": {"identity": identity}}))).await
}

#[tokio::test]
async fn a_restricted_credential_opens_what_its_rules_name_and_nothing_else() {
    let cloud = Cloud::new().await;
    let demo = cloud.login("demo", "demo", json!({"project": project_named("demo")})).await;
    let user = demo.body["token"]["user"]["id"].as_str().unwrap().to_owned();
    let path = format!("/v3/users/{user}/application_credentials");
    let rules = json!([
        {"service": "identity", "method": "GET", "path": "/v3/auth/projects"},
        {"service": "identity", "method": "GET", "path": "/identity/v3/users/{user_id}"},
        {"service": "compute", "method": "GET", "path": "/v3/auth/domains"},
    ]);
    let body = json!({"application_credential": {"name": "a", "access_rules": rules, "unrestricted": true}});
    let made = cloud.by(&demo.token, "POST", &path, Some(body)).await;
    assert_eq!(made.status, 201, "{}", made.body);
    let credential = &made.body["application_credential"];
    assert_eq!(credential["access_rules"].as_array().unwrap().len(), 3);
    let token = login(&cloud, credential).await;
    assert_eq!(token.status, 201);
    assert_eq!(token.body["token"]["application_credential"]["access_rules"][0]["path"], "/v3/auth/projects");
    for (method, path, expected) in [
        ("GET", "/v3/auth/projects".to_owned(), 200),
        ("GET", "/v3/auth/projects/".to_owned(), 200),
        ("HEAD", "/v3/auth/projects".to_owned(), 401),
        ("GET", format!("/v3/users/{user}"), 200),
        ("PATCH", format!("/v3/users/{user}"), 401),
        ("GET", format!("/v3/users/{user}/projects"), 401),
        ("GET", "/v3/auth/domains".to_owned(), 401),
        ("GET", "/v3/auth/catalog".to_owned(), 401),
        ("DELETE", path.clone(), 401),
    ] {
        let answer = cloud.by(&token.token, method, &path, None).await;
        assert_eq!(answer.status, expected, "{method} {path}");
    }
    let headers = |version: &'static str| {
        [
            ("x-auth-token", cloud.admin.clone()),
            ("x-subject-token", token.token.clone()),
            ("openstack-identity-access-rules", version.to_owned()),
        ]
    };
    for (version, expected) in [("1.0", 200), ("0.9", 404), ("x", 404)] {
        let headers = headers(version);
        let headers: Vec<_> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
        assert_eq!(cloud.ask("GET", "/v3/auth/tokens", &headers, None).await.status, expected, "{version}");
    }
    assert_eq!(cloud.validate(&token.token).await.status, 404, "who does not know rules sees no such token");
}

#[tokio::test]
async fn rules_belong_to_a_user_are_shared_and_outlive_their_credentials() {
    let cloud = Cloud::new().await;
    let demo = cloud.login("demo", "demo", json!({"project": project_named("demo")})).await;
    let user = demo.body["token"]["user"]["id"].as_str().unwrap().to_owned();
    let (path, rules) = (format!("/v3/users/{user}/application_credentials"), format!("/v3/users/{user}/access_rules"));
    let rule = json!({"service": "compute", "method": "GET", "path": "/v2.1/servers/*/ips"});
    let post = async |name: &str, rules: Value| {
        let body = json!({"application_credential": {"name": name, "access_rules": rules}});
        cloud.by(&demo.token, "POST", &path, Some(body)).await
    };
    let first = post("a", json!([rule, rule])).await.body["application_credential"].clone();
    let id = first["access_rules"][0]["id"].as_str().unwrap().to_owned();
    assert_eq!(first["access_rules"].as_array().unwrap().len(), 1, "equal rules are one");
    let second = post("b", json!([{"id": id}])).await.body["application_credential"].clone();
    assert_eq!(second["access_rules"], first["access_rules"]);
    let listed = cloud.by(&demo.token, "GET", &format!("{rules}?service=compute"), None).await.body;
    assert_eq!(listed["access_rules"][0]["id"], json!(id));
    let one = format!("{rules}/{id}");
    assert_eq!(cloud.by(&demo.token, "GET", &one, None).await.body["access_rule"]["path"], "/v2.1/servers/*/ips");
    for credential in [&first, &second] {
        assert_eq!(cloud.by(&demo.token, "DELETE", &one, None).await.status, 403, "in use");
        let path = format!("{path}/{}", credential["id"].as_str().unwrap());
        assert_eq!(cloud.by(&demo.token, "DELETE", &path, None).await.status, 204);
    }
    assert_eq!(cloud.get(&one).await.status, 403, "an administrator of a project has no part in them");
    assert_eq!(cloud.by(&demo.token, "DELETE", &one, None).await.status, 204);
    assert_eq!(cloud.by(&demo.token, "GET", &one, None).await.status, 404);
    let many = vec![rule.clone(); 65];
    for bad in [
        json!("x"),
        json!(["x"]),
        json!([{}]),
        json!([{"service": "compute", "method": "GET"}]),
        json!([{"service": "compute", "method": "OPTIONS", "path": "/"}]),
        json!([{"service": "compute", "method": "GET", "path": "servers"}]),
        json!([{"service": "compute", "method": "GET", "path": format!("/{}", "x".repeat(225))}]),
        json!([{"service": "com pute", "method": "GET", "path": "/"}]),
        json!([{"service": "compute", "method": "GET", "path": "/", "more": 1}]),
        json!([{"service": 1, "method": "GET", "path": "/"}]),
        json!(many),
    ] {
        assert_eq!(post("bad", bad.clone()).await.status, 400, "{bad}");
    }
    assert_eq!(post("bad", json!([{"id": "absent"}])).await.status, 404);
    let free = post("free", json!([])).await.body["application_credential"].clone();
    assert!(free.get("access_rules").is_none(), "an empty list restricts nothing");
}
