//! Who may do what, over the whole table of routes.

use super::*;
use rest::Access;

/// Every route is called by nobody and by a member of another project.
#[tokio::test]
async fn every_route_asks_for_a_token_and_every_rule_exists() {
    let cloud = Cloud::new().await;
    let policy = Policy::new(RULES, None).unwrap();
    let mut operations = std::collections::BTreeSet::new();
    for route in cloud.routes() {
        assert!(operations.insert(route.operation), "{} stands twice", route.operation);
        let path = filled(route.path);
        match route.access {
            Access::Open => {}
            Access::Rule(rule) => {
                assert!(policy.contains(rule), "{rule}");
                let answer = cloud.ask(route.method.as_str(), &path, &[], Some(json!({}))).await;
                assert_eq!(answer.status, 401, "{} {path}", route.method);
            }
        }
    }
    assert!(operations.len() > 120, "{}", operations.len());
}

fn filled(path: &str) -> String {
    path.split('/').map(|part| if part.starts_with('{') { "absent" } else { part }).collect::<Vec<_>>().join("/")
}

/// Rules that let everybody with a token in, or look only at what is the caller's own.
const FOR_ALL: &[&str] = &[
    "auth:validate_token",
    "auth:check_token",
    "auth:revoke_token",
    "auth:catalog",
    "auth:projects",
    "auth:domains",
    "auth:system",
    "regions:list",
    "regions:show",
    "limits:model",
    "limits:list",
    "registered_limits:list",
    "registered_limits:show",
    "credentials:list",
    "federation:projects",
    "federation:domains",
];

#[tokio::test]
async fn a_member_is_refused_alike_whether_the_thing_exists_or_not() {
    let cloud = Cloud::new().await;
    let demo = cloud.login("demo", "demo", json!({"project": project_named("demo")})).await.token;
    let domain = cloud.made("/v3/domains", "domain", json!({"name": "foreign"})).await;
    let user = cloud.made("/v3/users", "user", json!({"name": "u", "domain_id": domain})).await;
    let project = cloud.made("/v3/projects", "project", json!({"name": "p", "domain_id": domain})).await;
    let group = cloud.made("/v3/groups", "group", json!({"name": "g", "domain_id": domain})).await;
    let role = cloud.id("roles", "admin").await;
    let bodies = json!({"project": {"name": "x"}, "user": {"name": "x", "domain_id": domain}, "domain": {"name": "x"},
        "group": {"name": "x", "domain_id": domain}, "role": {"name": "x"}, "service": {"type": "x"},
        "endpoint": {"url": "http://x", "interface": "public", "service_id": "x"}, "region": {"id": "x"},
        "tenant_id": "x", "credential": {"type": "x", "blob": "x", "user_id": user}, "registered_limits": [{}], "limits": [{}],
        "application_credential": {"name": "x"}, "trust": {"trustor_user_id": "x"}, "limit": {}, "registered_limit": {}, "tags": [],
        "policy": {"type": "x", "blob": "x"}, "endpoint_group": {"name": "x"}, "consumer": {}, "config": {"ldap": {"url": "x"}}});
    for route in cloud.routes().iter().filter(|r| !FOR_ALL.contains(&r.operation) && r.access != Access::Open) {
        let absent = filled(route.path);
        let id = match route.path {
            path if path.contains("/users/{id}") => &user,
            path if path.contains("/groups/{id}") => &group,
            path if path.contains("domains/{id}") => &domain,
            _ => &project,
        };
        let present = route.path.replace("{id}", id).replace("{user_id}", &user).replace("{group_id}", &group);
        let present = filled(&present.replace("{role_id}", &role));
        for path in [absent, present] {
            let answer = cloud.by(&demo, route.method.as_str(), &path, Some(bodies.clone())).await;
            // A trust shows itself to nobody who has no part in it.
            let refusal = if path.contains("/trusts/") { 404 } else { 403 };
            assert_eq!(answer.status, refusal, "{} {path}: {}", route.method, answer.body);
        }
    }
}

#[tokio::test]
async fn a_user_sees_what_is_its_own() {
    let cloud = Cloud::new().await;
    let login = cloud.login("demo", "demo", json!({"project": project_named("demo")})).await;
    let (user, project) = (&login.body["token"]["user"]["id"], &login.body["token"]["project"]["id"]);
    let (user, project) = (user.as_str().unwrap(), project.as_str().unwrap());
    for path in [
        format!("/v3/users/{user}"),
        format!("/v3/users/{user}/projects"),
        format!("/v3/users/{user}/groups"),
        format!("/v3/projects/{project}"),
        format!("/v3/projects/{project}/tags"),
        "/v3/domains/default".to_owned(),
        "/v3/auth/catalog".to_owned(),
        "/v3/auth/domains".to_owned(),
    ] {
        assert_eq!(cloud.by(&login.token, "GET", &path, None).await.status, 200, "{path}");
    }
    let projects = cloud.by(&login.token, "GET", "/v3/auth/projects", None).await.body;
    assert_eq!(names(&projects["projects"], "name"), ["demo"]);
}

#[tokio::test]
async fn a_domain_manager_rules_the_domain_and_nothing_else() {
    let cloud = Cloud::new().await;
    let domain = cloud.made("/v3/domains", "domain", json!({"name": "acme"})).await;
    let boss = cloud.made("/v3/users", "user", json!({"name": "boss", "password": "pw", "domain_id": domain})).await;
    let (manager, admin) = (cloud.id("roles", "manager").await, cloud.id("roles", "admin").await);
    assert_eq!(cloud.put(&format!("/v3/domains/{domain}/users/{boss}/roles/{manager}")).await, 204);
    let identity = json!({"methods": ["password"], "password": {"user": {"id": boss, "password": "pw"}}});
    let auth = json!({"auth": {"identity": identity, "scope": {"domain": {"id": domain}}}});
    let token = cloud.ask("POST", "/v3/auth/tokens", &[], Some(auth)).await.token;
    let post = async |path: &str, body: Value| cloud.by(&token, "POST", path, Some(body)).await;
    assert_eq!(post("/v3/projects", json!({"project": {"name": "mine"}})).await.status, 201);
    assert_eq!(post("/v3/projects", json!({"project": {"name": "theirs", "domain_id": "default"}})).await.status, 403);
    let user = post("/v3/users", json!({"user": {"name": "worker"}})).await;
    assert_eq!((user.status, &user.body["user"]["domain_id"]), (201, &json!(domain)));
    let user = user.body["user"]["id"].as_str().unwrap().to_owned();
    let seen = cloud.by(&token, "GET", "/v3/users", None).await.body;
    assert_eq!(names(&seen["users"], "name"), ["boss", "worker"]);
    let grant = |role: &str| format!("/v3/domains/{domain}/users/{user}/roles/{role}");
    let member = cloud.id("roles", "member").await;
    assert_eq!(cloud.by(&token, "PUT", &grant(&member), None).await.status, 204);
    assert_eq!(
        cloud.by(&token, "PUT", &grant(&admin), None).await.status,
        403,
        "nobody makes an administrator of himself"
    );
}

#[tokio::test]
async fn bootstrap_again_changes_nothing() {
    let cloud = Cloud::new().await;
    let before = cloud.identity.store.rev();
    let options = bootstrap_options();
    let cause = store::Cause::new("test", "", "bootstrap");
    let first = cloud.identity.store.write(cause, move |tx| bootstrap(tx, &options)).await.unwrap();
    assert_eq!(cloud.identity.store.rev(), before);
    assert_eq!(first.value.admin_user.as_str(), cloud.id("users", "admin").await);
}

/// What `nubo policy explain` says of tokens is what tokens say.
#[tokio::test]
async fn the_rights_that_are_told_are_those_of_tokens() {
    let cloud = Cloud::new().await;
    let domain = cloud.made("/v3/domains", "domain", json!({"name": "corp"})).await;
    let user = json!({"name": "ann", "domain_id": domain, "password": "secret"});
    let user = cloud.made("/v3/users", "user", user).await;
    let project = cloud.made("/v3/projects", "project", json!({"name": "p", "domain_id": domain})).await;
    let (member, reader) = (cloud.id("roles", "member").await, cloud.id("roles", "reader").await);
    let own = cloud.made("/v3/roles", "role", json!({"name": "admin", "domain_id": domain})).await;
    let grants = [("projects", &project, &own), ("projects", &project, &reader), ("domains", &domain, &member)];
    for (places, place, role) in grants {
        let path = format!("/v3/{places}/{place}/users/{user}/roles/{role}");
        assert_eq!(cloud.by(&cloud.admin, "PUT", &path, None).await.status, 204);
    }
    let told = cloud.identity.rights(&user, None).unwrap();
    let scope = |it: &policy::Credentials| match (&it.project_id, &it.domain_id) {
        (Some(id), _) => json!({"project": {"id": id}}),
        (_, Some(id)) => json!({"domain": {"id": id}}),
        _ => json!({"system": {"all": true}}),
    };
    let scopes: Vec<Value> = told.iter().map(scope).collect();
    let [own, on, under] = [json!({"domain": {"id": domain}}), json!({"project": {"id": domain}}), json!({"project": {"id": project}})];
    assert_eq!(scopes, [own, on, under]);
    for rights in &told {
        let body = json!({"auth": {"scope": scope(rights), "identity": {"methods": ["password"],
            "password": {"user": {"id": user, "password": "secret"}}}}});
        let answer = cloud.ask("POST", "/v3/auth/tokens", &[], Some(body)).await;
        assert_eq!(answer.status, 201, "{}", answer.body);
        let mut roles = names(&answer.body["token"]["roles"], "name");
        let mut said = rights.roles.clone();
        (roles.sort(), said.sort());
        assert_eq!(roles, said);
    }
}
