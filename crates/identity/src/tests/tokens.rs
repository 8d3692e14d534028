//! Tokens: issue, scopes, revocation, keys.

use super::*;

#[tokio::test]
async fn a_password_buys_a_token_with_scope_roles_and_catalog() {
    let cloud = Cloud::new().await;
    let answer = cloud.login("admin", "secret", json!({"project": project_named("admin")})).await;
    assert_eq!(answer.status, 201);
    let token = &answer.body["token"];
    assert_eq!(token["project"]["name"], "admin");
    assert_eq!(token["project"]["domain"], json!({"id": "default", "name": "Default"}));
    assert_eq!(token["user"]["name"], "admin");
    assert_eq!(token["is_domain"], false);
    assert_eq!(token["methods"], json!(["password"]));
    assert_eq!(token["audit_ids"].as_array().unwrap().len(), 1);
    let mut roles = names(&token["roles"], "name");
    roles.sort();
    assert_eq!(roles, ["admin", "manager", "member", "reader"]);
    let mut types = names(&token["catalog"], "type");
    types.sort();
    assert_eq!(types, ["compute", "identity"]);
    let compute = token["catalog"].as_array().unwrap().iter().find(|entry| entry["type"] == "compute").unwrap();
    assert_eq!(compute["endpoints"].as_array().unwrap().len(), 3);
    assert_eq!(compute["endpoints"][0]["url"], "http://cloud/compute/v2.1");
    assert_eq!(compute["endpoints"][0]["region"], "RegionOne");
    let shown = cloud.validate(&answer.token).await;
    assert_eq!((shown.status, &shown.body, &shown.token), (200, &answer.body, &answer.token));
    let short = cloud
        .ask(
            "GET",
            "/v3/auth/tokens?nocatalog",
            &[("x-auth-token", &cloud.admin), ("x-subject-token", &answer.token)],
            None,
        )
        .await;
    assert!(short.body["token"].get("catalog").is_none());
}

#[tokio::test]
async fn scopes_are_project_domain_system_default_and_none() {
    let cloud = Cloud::new().await;
    let domain = cloud.login("admin", "secret", json!({"domain": {"id": "default"}})).await.body;
    assert_eq!(domain["token"]["domain"], json!({"id": "default", "name": "Default"}));
    let system = cloud.login("admin", "secret", json!({"system": {"all": true}})).await.body;
    assert_eq!(system["token"]["system"], json!({"all": true}));
    let unscoped = cloud.login("admin", "secret", Value::Null).await.body;
    assert!(unscoped["token"].get("project").is_none() && unscoped["token"].get("catalog").is_none());
    let (user, project) = (cloud.id("users", "admin").await, cloud.id("projects", "admin").await);
    let patched = cloud.patch(&format!("/v3/users/{user}"), json!({"user": {"default_project_id": project}})).await;
    assert_eq!(patched.body["user"]["default_project_id"], project);
    let usual = cloud.login("admin", "secret", Value::Null).await.body;
    assert_eq!(usual["token"]["project"]["id"], project);
    let explicit = cloud.login("admin", "secret", json!("unscoped")).await.body;
    assert!(explicit["token"].get("project").is_none());
}

#[tokio::test]
async fn every_failed_proof_reads_the_same() {
    let cloud = Cloud::new().await;
    let scope = || json!({"project": project_named("admin")});
    let refusals = [
        cloud.login("admin", "wrong", scope()).await,
        cloud.login("nobody", "secret", scope()).await,
        cloud.login("admin", "secret", json!({"project": project_named("nowhere")})).await,
        cloud.login("demo", "demo", scope()).await,
        cloud.login("demo", "demo", json!({"system": {"all": true}})).await,
        cloud.by("gAAAAABnonsense", "GET", "/v3/auth/projects", None).await,
        cloud.ask("GET", "/v3/auth/projects", &[], None).await,
    ];
    for refusal in refusals {
        assert_eq!(refusal.status, 401);
        let error = &refusal.body["error"];
        assert_eq!(error["code"], 401);
        assert_eq!(error["title"], "Unauthorized");
        assert_eq!(error["message"], "The request you have made requires authentication.");
    }
}

#[tokio::test]
async fn a_malformed_request_is_a_bad_request() {
    let cloud = Cloud::new().await;
    for body in [
        json!({}),
        json!({"auth": {"identity": {"methods": []}}}),
        json!({"auth": {"identity": {"methods": ["password"]}}}),
        json!({"auth": {"identity": {"methods": ["password"], "password": {"user": {"name": "x", "password": "y"}}}}}),
        json!({"auth": {"identity": {"methods": "password"}}}),
        json!({"auth": {"identity": {"methods": ["token"], "token": {"id": cloud.admin}},
            "scope": {"project": {"id": "x"}, "domain": {"id": "y"}}}}),
    ] {
        let answer = cloud.ask("POST", "/v3/auth/tokens", &[], Some(body.clone())).await;
        assert_eq!(answer.status, 400, "{body}");
        assert_eq!(answer.body["error"]["title"], "Bad Request");
    }
}

async fn exchanged(cloud: &Cloud, token: &str, scope: Value) -> Answer {
    let identity = json!({"methods": ["token"], "token": {"id": token}});
    cloud.ask("POST", "/v3/auth/tokens", &[], Some(json!({"auth": {"identity": identity, "scope": scope}}))).await
}

#[tokio::test]
async fn a_token_that_proves_nothing_is_not_found() {
    let cloud = Cloud::new().await;
    let revoked = cloud.login("admin", "secret", Value::Null).await.token;
    let headers = [("x-subject-token", revoked.as_str()), ("x-auth-token", cloud.admin.as_str())];
    assert_eq!(cloud.ask("DELETE", "/v3/auth/tokens", &headers, None).await.status, 204);
    for token in [revoked.as_str(), "gAAAAABnonsense", ""] {
        let answer = exchanged(&cloud, token, Value::Null).await;
        assert_eq!(answer.status, 404, "{token}: {}", answer.body);
    }
}

#[tokio::test]
async fn a_token_buys_another_that_lives_no_longer_and_keeps_the_chain() {
    let cloud = Cloud::new().await;
    let first = cloud.login("admin", "secret", Value::Null).await;
    cloud.clock.advance_ms(10 * 60_000);
    let second = exchanged(&cloud, &first.token, json!({"domain": {"name": "Default"}})).await;
    assert_eq!(second.status, 201);
    let (a, b) = (&first.body["token"], &second.body["token"]);
    assert_eq!(a["expires_at"], b["expires_at"]);
    assert_eq!(b["methods"], json!(["token", "password"]));
    assert_eq!(b["audit_ids"][1], a["audit_ids"][0]);
    let third = exchanged(&cloud, &second.token, json!({"system": {"all": true}})).await;
    assert_eq!(third.body["token"]["audit_ids"][1], a["audit_ids"][0]);
    assert_eq!(cloud.validate(&third.token).await.status, 200);
}

#[tokio::test]
async fn tokens_end_at_their_time_and_services_may_still_look_at_them() {
    let cloud = Cloud::new().await;
    let token = cloud.login("demo", "demo", json!({"project": project_named("demo")})).await.token;
    cloud.clock.advance_ms(3601 * 1000);
    assert_eq!(cloud.by(&token, "GET", "/v3/auth/projects", None).await.status, 401);
    let admin = cloud.login("admin", "secret", json!({"project": project_named("admin")})).await.token;
    let headers = [("x-auth-token", admin.as_str()), ("x-subject-token", token.as_str())];
    assert_eq!(cloud.ask("GET", "/v3/auth/tokens", &headers, None).await.status, 404);
    assert_eq!(cloud.ask("GET", "/v3/auth/tokens?allow_expired=1", &headers, None).await.status, 200);
    cloud.clock.advance_ms(49 * 3600 * 1000);
    let admin = cloud.login("admin", "secret", json!({"project": project_named("admin")})).await.token;
    let headers = [("x-auth-token", admin.as_str()), ("x-subject-token", token.as_str())];
    assert_eq!(cloud.ask("GET", "/v3/auth/tokens?allow_expired=1", &headers, None).await.status, 404);
}

#[tokio::test]
async fn a_revoked_token_is_worthless_at_once_and_its_siblings_are_not() {
    let cloud = Cloud::new().await;
    let scope = || json!({"project": project_named("demo")});
    let (one, two) =
        (cloud.login("demo", "demo", scope()).await.token, cloud.login("demo", "demo", scope()).await.token);
    let headers = [("x-auth-token", one.as_str()), ("x-subject-token", one.as_str())];
    assert_eq!(cloud.ask("HEAD", "/v3/auth/tokens", &headers, None).await.status, 200);
    assert_eq!(cloud.ask("DELETE", "/v3/auth/tokens", &headers, None).await.status, 204);
    assert_eq!(cloud.by(&one, "GET", "/v3/auth/projects", None).await.status, 401);
    assert_eq!(cloud.validate(&one).await.status, 404);
    assert_eq!(cloud.validate(&two).await.status, 200);
    let by_member = [("x-auth-token", two.as_str()), ("x-subject-token", cloud.admin.as_str())];
    assert_eq!(cloud.ask("GET", "/v3/auth/tokens", &by_member, None).await.status, 403);
    assert_eq!(cloud.ask("DELETE", "/v3/auth/tokens", &by_member, None).await.status, 403);
    let gone = [("x-auth-token", two.as_str()), ("x-subject-token", one.as_str())];
    assert_eq!(cloud.ask("GET", "/v3/auth/tokens", &gone, None).await.status, 404);
}

#[tokio::test]
async fn what_happens_to_user_project_and_domain_happens_to_their_tokens() {
    let cloud = Cloud::new().await;
    let domain = cloud.made("/v3/domains", "domain", json!({"name": "acme"})).await;
    let project = cloud.made("/v3/projects", "project", json!({"name": "p", "domain_id": domain})).await;
    let user = json!({"name": "ann", "domain_id": domain, "password": "one"});
    let user = cloud.made("/v3/users", "user", user).await;
    let role = cloud.id("roles", "member").await;
    let grant = format!("/v3/projects/{project}/users/{user}/roles/{role}");
    assert_eq!(cloud.put(&grant).await, 204);
    let login = async |password: &str| {
        let user = json!({"id": user, "password": password});
        let identity = json!({"methods": ["password"], "password": {"user": user}});
        let auth = json!({"auth": {"identity": identity, "scope": {"project": {"id": project}}}});
        cloud.ask("POST", "/v3/auth/tokens", &[], Some(auth)).await
    };
    let holds = async |token: &str| cloud.by(token, "GET", "/v3/auth/projects", None).await.status == 200;

    let token = login("one").await.token;
    assert!(holds(&token).await);
    assert_eq!(cloud.delete(&grant).await, 204);
    assert!(!holds(&token).await, "without a role");
    assert_eq!(cloud.put(&grant).await, 204);
    assert!(holds(&token).await, "a token is worth what its user has");

    for (path, name) in [("users", &user), ("projects", &project), ("domains", &domain)] {
        let token = login("one").await.token;
        let what = path.trim_end_matches('s');
        assert_eq!(cloud.patch(&format!("/v3/{path}/{name}"), json!({what: {"enabled": false}})).await.status, 200);
        assert!(!holds(&token).await, "{what} disabled");
        assert_eq!(login("one").await.status, 401);
        assert_eq!(cloud.patch(&format!("/v3/{path}/{name}"), json!({what: {"enabled": true}})).await.status, 200);
        assert!(!holds(&token).await, "{what} enabled again: an old token stays revoked");
        assert!(holds(&login("one").await.token).await);
    }

    let token = login("one").await.token;
    let change = json!({"user": {"original_password": "one", "password": "two"}});
    let path = format!("/v3/users/{user}/password");
    assert_eq!(cloud.by(&token, "POST", &path, Some(change.clone())).await.status, 204);
    assert!(!holds(&token).await, "after a change of password");
    assert_eq!(cloud.by(&token, "POST", &path, Some(change)).await.status, 401, "the old password no longer counts");
    assert_eq!(login("one").await.status, 401);
    let token = login("two").await.token;
    assert!(holds(&token).await, "a token of the same second, made after the change");
    assert_eq!(cloud.delete(&format!("/v3/users/{user}")).await, 204);
    assert!(!holds(&token).await, "of a deleted user");
}

#[tokio::test]
async fn application_credentials_log_in_with_a_part_of_the_rights() {
    let cloud = Cloud::new().await;
    let user = cloud.id("users", "admin").await;
    let path = format!("/v3/users/{user}/application_credentials");
    let wanted = json!({"application_credential": {"name": "ci", "roles": [{"name": "member"}]}});
    let made = cloud.post(&path, wanted.clone()).await;
    assert_eq!(made.status, 201, "{}", made.body);
    assert_eq!(cloud.post(&path, wanted).await.status, 409);
    let made = &made.body["application_credential"];
    let proof = json!({"id": made["id"], "secret": made["secret"]});
    let login = async |proof: Value, scope: Value| {
        let identity = json!({"methods": ["application_credential"], "application_credential": proof});
        let mut auth = json!({ "identity": identity });
        if !scope.is_null() {
            auth["scope"] = scope;
        }
        cloud.ask("POST", "/v3/auth/tokens", &[], Some(json!({ "auth": auth }))).await
    };
    let answer = login(proof.clone(), Value::Null).await;
    assert_eq!(answer.status, 201);
    let mut roles = names(&answer.body["token"]["roles"], "name");
    roles.sort();
    assert_eq!(roles, ["member", "reader"]);
    assert_eq!(answer.body["token"]["application_credential"]["restricted"], true);
    assert_eq!(cloud.validate(&answer.token).await.status, 200);
    let by_name = json!({"name": "ci", "user": {"id": user}, "secret": made["secret"]});
    assert_eq!(login(by_name, Value::Null).await.status, 201);
    assert_eq!(login(json!({"id": made["id"], "secret": "wrong"}), Value::Null).await.status, 401);
    assert_eq!(login(proof.clone(), json!({"system": {"all": true}})).await.status, 400);
    assert_eq!(exchanged(&cloud, &answer.token, json!({"system": {"all": true}})).await.status, 403);
    let again = json!({"application_credential": {"name": "more"}});
    assert_eq!(cloud.by(&answer.token, "POST", &path, Some(again)).await.status, 403);
    let shown = cloud.get(&path).await.body;
    assert_eq!(shown["application_credentials"].as_array().unwrap().len(), 1);
    assert!(shown["application_credentials"][0].get("secret").is_none());
    assert_eq!(cloud.delete(&format!("{path}/{}", made["id"].as_str().unwrap())).await, 204);
    assert_eq!(cloud.by(&answer.token, "GET", "/v3/auth/projects", None).await.status, 401);
}

#[tokio::test]
async fn a_model_that_missed_something_reads_everything_anew() {
    let cloud = Cloud::new().await;
    let cause = || store::Cause::new("test", "", "many");
    let region = |n: u32| documents::Region {
        id: format!("r{n}"),
        parent_region_id: None,
        description: String::new(),
        extra: Default::default(),
    };
    for n in 0..4200 {
        cloud.identity.store.write(cause(), move |tx| Ok(tx.create(&region(n)).map(drop)?)).await.unwrap();
    }
    cloud.identity.sync().await.unwrap();
    assert_eq!(cloud.identity.model().regions.all().count(), 4201);
    assert!(cloud.identity.verify_now(&cloud.admin).is_ok());
}
