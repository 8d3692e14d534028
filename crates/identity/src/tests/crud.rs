//! What every resource does: create, show, list, update, delete, and what it refuses.

use super::*;

#[tokio::test]
async fn projects_keep_what_they_are_given_and_form_a_tree() {
    let cloud = Cloud::new().await;
    let body = json!({"project": {"name": "top", "description": "d", "tags": ["b", "a"], "colour": {"hue": 7}}});
    let made = cloud.post("/v3/projects", body.clone()).await;
    assert_eq!(made.status, 201);
    let project = &made.body["project"];
    assert_eq!(project["colour"], json!({"hue": 7}));
    assert_eq!(project["tags"], json!(["a", "b"]));
    assert_eq!((&project["domain_id"], &project["parent_id"]), (&json!("default"), &json!("default")));
    let id = project["id"].as_str().unwrap();
    assert_eq!(project["links"]["self"], format!("http://cloud/identity/v3/projects/{id}"));
    assert_eq!(cloud.post("/v3/projects", body).await.status, 409);
    let child = cloud.made("/v3/projects", "project", json!({"name": "low", "parent_id": id})).await;
    let shown = cloud.get(&format!("/v3/projects/{id}?subtree_as_ids")).await.body;
    assert_eq!(shown["project"]["subtree"], json!({ &child: null }));
    let shown = cloud.get(&format!("/v3/projects/{child}?parents_as_ids")).await.body;
    assert_eq!(shown["project"]["parents"], json!({id: {"default": null}}));
    assert_eq!(cloud.delete(&format!("/v3/projects/{id}")).await, 403);
    assert_eq!(cloud.patch(&format!("/v3/projects/{id}"), json!({"project": {"enabled": false}})).await.status, 403);
    assert_eq!(
        cloud.patch(&format!("/v3/projects/{child}"), json!({"project": {"parent_id": null}})).await.status,
        403
    );
    let patched =
        cloud.patch(&format!("/v3/projects/{child}"), json!({"project": {"name": "lower", "x": 1}})).await.body;
    assert_eq!((&patched["project"]["name"], &patched["project"]["x"]), (&json!("lower"), &json!(1)));
    let mut parent = child.clone();
    for depth in 3..=6 {
        let body = json!({"project": {"name": format!("d{depth}"), "parent_id": parent}});
        let made = cloud.post("/v3/projects", body).await;
        assert_eq!(made.status, if depth <= 5 { 201 } else { 403 }, "{depth}");
        parent = made.body["project"]["id"].as_str().unwrap_or(&parent).to_owned();
    }
    assert_eq!(cloud.delete(&format!("/v3/projects/{parent}")).await, 204);
    assert_eq!(cloud.get(&format!("/v3/projects/{parent}")).await.status, 404);
}

#[tokio::test]
async fn lists_filter_by_name_flag_tag_and_part_and_page() {
    let cloud = Cloud::new().await;
    for (name, enabled, tag) in [("alpha", true, "x"), ("beta", false, "y"), ("alphabet", true, "y")] {
        let body = json!({"name": name, "enabled": enabled, "tags": [tag, "z"]});
        cloud.made("/v3/projects", "project", body).await;
    }
    for (query, expected) in [
        ("name=alpha", vec!["alpha"]),
        ("name__contains=alpha", vec!["alpha", "alphabet"]),
        ("name__icontains=BETA", vec!["beta"]),
        ("name__endswith=bet", vec!["alphabet"]),
        ("enabled=false", vec!["beta"]),
        ("enabled=0&domain_id=default", vec!["beta"]),
        ("tags=y", vec!["alphabet", "beta"]),
        ("tags=y,z", vec!["alphabet", "beta"]),
        ("tags-any=x,y", vec!["alpha", "alphabet", "beta"]),
        ("not-tags-any=x,y", vec!["admin", "demo"]),
        ("is_domain=true", vec!["Default"]),
        ("parent_id=nowhere", vec![]),
        ("limit=2", vec!["admin", "demo"]),
    ] {
        let answer = cloud.get(&format!("/v3/projects?{query}")).await.body;
        // Ids of one millisecond have no order.
        let mut found = names(&answer["projects"], "name");
        found.sort();
        assert_eq!(found, expected, "{query}");
        assert_eq!(answer["links"]["next"].is_null(), query != "limit=2");
    }
    let first = cloud.get("/v3/projects?limit=4").await.body;
    let marker = first["projects"][3]["id"].as_str().unwrap();
    let rest = cloud.get(&format!("/v3/projects?limit=4&marker={marker}")).await.body;
    assert_eq!(names(&rest["projects"], "name"), ["alphabet"]);
}

#[tokio::test]
async fn tags_are_added_checked_replaced_and_removed() {
    let cloud = Cloud::new().await;
    let id = cloud.made("/v3/projects", "project", json!({"name": "tagged"})).await;
    let path = format!("/v3/projects/{id}/tags");
    assert_eq!(cloud.put(&format!("{path}/one")).await, 201);
    assert_eq!(cloud.get(&format!("{path}/one")).await.status, 204);
    assert_eq!(cloud.get(&format!("{path}/two")).await.status, 404);
    let replaced = cloud.by(&cloud.admin, "PUT", &path, Some(json!({"tags": ["b", "a"]}))).await;
    assert_eq!((replaced.status, &replaced.body["tags"]), (200, &json!(["a", "b"])));
    for bad in [json!({"tags": ["a", "a"]}), json!({"tags": ["a,b"]}), json!({"tags": "a"}), json!({})] {
        assert_eq!(cloud.by(&cloud.admin, "PUT", &path, Some(bad)).await.status, 400);
    }
    assert_eq!(cloud.delete(&format!("{path}/a")).await, 204);
    assert_eq!(cloud.delete(&format!("{path}/a")).await, 404);
    assert_eq!(cloud.delete(&path).await, 204);
    assert_eq!(cloud.get(&path).await.body["tags"], json!([]));
}

#[tokio::test]
async fn a_domain_must_be_disabled_first_and_takes_everything_along() {
    let cloud = Cloud::new().await;
    let domain = cloud.made("/v3/domains", "domain", json!({"name": "acme"})).await;
    let path = format!("/v3/domains/{domain}");
    assert_eq!(cloud.post("/v3/domains", json!({"domain": {"name": "acme"}})).await.status, 409);
    let project = cloud.made("/v3/projects", "project", json!({"name": "p", "domain_id": domain})).await;
    let below = cloud.made("/v3/projects", "project", json!({"name": "q", "parent_id": project})).await;
    let user = cloud.made("/v3/users", "user", json!({"name": "u", "domain_id": domain})).await;
    let group = cloud.made("/v3/groups", "group", json!({"name": "g", "domain_id": domain})).await;
    let role = cloud.made("/v3/roles", "role", json!({"name": "r", "domain_id": domain})).await;
    assert_eq!(cloud.put(&format!("/v3/groups/{group}/users/{user}")).await, 204);
    assert_eq!(cloud.put(&format!("/v3/domains/{domain}/groups/{group}/roles/{role}")).await, 204);
    assert_eq!(cloud.delete(&path).await, 403);
    assert_eq!(cloud.patch(&path, json!({"domain": {"enabled": false}})).await.status, 200);
    assert_eq!(cloud.delete(&path).await, 204);
    for gone in [
        path,
        format!("/v3/projects/{project}"),
        format!("/v3/projects/{below}"),
        format!("/v3/users/{user}"),
        format!("/v3/groups/{group}"),
        format!("/v3/roles/{role}"),
    ] {
        assert_eq!(cloud.get(&gone).await.status, 404, "{gone}");
    }
    let left = cloud.identity.store.list::<documents::Membership>(store::Query::all()).await.unwrap();
    assert!(left.is_empty());
    assert!(!cloud.get("/v3/role_assignments").await.body.to_string().contains(&domain));
}

#[tokio::test]
async fn users_keep_extras_and_never_show_a_password() {
    let cloud = Cloud::new().await;
    let body =
        json!({"user": {"name": "ann", "password": "pw", "email": "a@b", "options": {"ignore_password_expiry": true}}});
    let made = cloud.post("/v3/users", body.clone()).await;
    assert_eq!(made.status, 201);
    let user = &made.body["user"];
    assert_eq!(
        (&user["email"], &user["domain_id"], &user["enabled"]),
        (&json!("a@b"), &json!("default"), &json!(true))
    );
    assert_eq!(user["options"], json!({"ignore_password_expiry": true}));
    assert!(user["password_expires_at"].is_null() && user.get("password").is_none());
    assert_eq!(cloud.post("/v3/users", body).await.status, 409);
    let id = user["id"].as_str().unwrap();
    let patched = cloud.patch(&format!("/v3/users/{id}"), json!({"user": {"name": "bob", "password": "new"}})).await;
    assert_eq!(patched.body["user"]["name"], "bob");
    assert!(!patched.body.to_string().contains("new"));
    assert_eq!(cloud.login("bob", "new", Value::Null).await.status, 201);
    let history = cloud.identity.store.history("user", id, 10).await.unwrap();
    assert!(history.len() >= 2 && !format!("{history:?}").contains("$2b$"), "no hash in history");
    for bad in [
        json!({"name": ""}),
        json!({"name": "  "}),
        json!({"name": "x".repeat(256)}),
        json!({"name": 7}),
        json!({"name": "a\u{0}b"}),
        json!({}),
        json!({"name": "x", "enabled": "yes"}),
        json!({"name": "x", "domain_id": "no such/thing"}),
        json!({"name": "x", "default_project_id": "default"}),
    ] {
        assert_eq!(cloud.post("/v3/users", json!({"user": bad})).await.status, 400, "{bad}");
    }
    assert_eq!(cloud.post("/v3/users", json!({"user": {"name": "x", "domain_id": "absent"}})).await.status, 404);
    assert_eq!(cloud.delete(&format!("/v3/users/{id}")).await, 204);
    assert_eq!(cloud.delete(&format!("/v3/users/{id}")).await, 404);
}

#[tokio::test]
async fn groups_have_members_and_their_members_have_their_roles() {
    let cloud = Cloud::new().await;
    let group = cloud.made("/v3/groups", "group", json!({"name": "team", "description": "d"})).await;
    let user = cloud.made("/v3/users", "user", json!({"name": "ann", "password": "pw"})).await;
    let (project, role) = (cloud.id("projects", "demo").await, cloud.id("roles", "member").await);
    let member = format!("/v3/groups/{group}/users/{user}");
    assert_eq!(cloud.get(&member).await.status, 404);
    assert_eq!(cloud.put(&member).await, 204);
    assert_eq!(cloud.get(&member).await.status, 204);
    assert_eq!(names(&cloud.get(&format!("/v3/groups/{group}/users")).await.body["users"], "name"), ["ann"]);
    assert_eq!(names(&cloud.get(&format!("/v3/users/{user}/groups")).await.body["groups"], "name"), ["team"]);
    let scope = || json!({"project": project_named("demo")});
    assert_eq!(cloud.login("ann", "pw", scope()).await.status, 401);
    assert_eq!(cloud.put(&format!("/v3/projects/{project}/groups/{group}/roles/{role}")).await, 204);
    let token = cloud.login("ann", "pw", scope()).await;
    assert_eq!(token.status, 201);
    assert_eq!(names(&cloud.get(&format!("/v3/users/{user}/projects")).await.body["projects"], "name"), ["demo"]);
    assert_eq!(cloud.delete(&member).await, 204);
    assert_eq!(cloud.delete(&member).await, 404);
    assert_eq!(cloud.validate(&token.token).await.status, 404);
}

#[tokio::test]
async fn roles_imply_and_inherit() {
    let cloud = Cloud::new().await;
    let (admin, reader) = (cloud.id("roles", "admin").await, cloud.id("roles", "reader").await);
    let role = cloud.made("/v3/roles", "role", json!({"name": "auditor"})).await;
    assert_eq!(cloud.put(&format!("/v3/roles/{role}/implies/{reader}")).await, 201);
    assert_eq!(cloud.put(&format!("/v3/roles/{role}/implies/{admin}")).await, 403);
    assert_eq!(cloud.by(&cloud.admin, "HEAD", &format!("/v3/roles/{role}/implies/{reader}"), None).await.status, 204);
    let implied = cloud.get(&format!("/v3/roles/{role}/implies")).await.body;
    assert_eq!(names(&implied["role_inference"]["implies"], "name"), ["reader"]);
    let rules = cloud.get("/v3/role_inferences").await.body;
    assert_eq!(rules["role_inferences"].as_array().unwrap().len(), 4);
    assert_eq!(cloud.delete(&format!("/v3/roles/{admin}")).await, 403, "immutable");

    let user = cloud.made("/v3/users", "user", json!({"name": "eve", "password": "pw"})).await;
    let inherited = format!("/v3/OS-INHERIT/domains/default/users/{user}/roles/{role}/inherited_to_projects");
    assert_eq!(cloud.put(&inherited).await, 204);
    assert_eq!(cloud.get(&inherited).await.status, 204);
    let token = cloud.login("eve", "pw", json!({"project": project_named("demo")})).await;
    let mut roles = names(&token.body["token"]["roles"], "name");
    roles.sort();
    assert_eq!(roles, ["auditor", "reader"]);
    assert_eq!(cloud.login("eve", "pw", json!({"domain": {"id": "default"}})).await.status, 401);

    let plain = cloud.get(&format!("/v3/role_assignments?user.id={user}&include_names")).await.body;
    let plain = &plain["role_assignments"].as_array().unwrap()[0];
    assert_eq!(plain["scope"]["OS-INHERIT:inherited_to"], "projects");
    assert_eq!(plain["scope"]["domain"]["name"], "Default");
    assert_eq!((&plain["role"]["name"], &plain["user"]["name"]), (&json!("auditor"), &json!("eve")));
    let effective = cloud.get(&format!("/v3/role_assignments?user.id={user}&effective&include_names")).await.body;
    let mut found: Vec<_> = effective["role_assignments"]
        .as_array()
        .unwrap()
        .iter()
        .map(|a| {
            format!("{} in {}", a["role"]["name"].as_str().unwrap(), a["scope"]["project"]["name"].as_str().unwrap())
        })
        .collect();
    found.sort();
    assert_eq!(found, ["auditor in admin", "auditor in demo", "reader in admin", "reader in demo"]);
    for bad in
        ["user.id=a&group.id=b", "scope.project.id=a&scope.domain.id=b", "effective&group.id=x", "include_subtree"]
    {
        assert_eq!(cloud.get(&format!("/v3/role_assignments?{bad}")).await.status, 400, "{bad}");
    }
    assert_eq!(cloud.delete(&inherited).await, 204);
    assert_eq!(cloud.delete(&inherited).await, 404);
    assert_eq!(cloud.delete(&format!("/v3/roles/{role}")).await, 204);
}

#[tokio::test]
async fn system_roles_are_granted_listed_and_revoked() {
    let cloud = Cloud::new().await;
    let (user, role) = (cloud.id("users", "demo").await, cloud.id("roles", "reader").await);
    let path = format!("/v3/system/users/{user}/roles");
    assert_eq!(cloud.put(&format!("{path}/{role}")).await, 204);
    assert_eq!(names(&cloud.get(&path).await.body["roles"], "name"), ["reader"]);
    let token = cloud.login("demo", "demo", json!({"system": {"all": true}})).await.token;
    assert_eq!(cloud.by(&token, "GET", "/v3/users", None).await.status, 200);
    assert_eq!(cloud.by(&token, "GET", "/v3/auth/system", None).await.body["system"], json!([{"all": true}]));
    assert_eq!(cloud.delete(&format!("{path}/{role}")).await, 204);
    assert_eq!(cloud.by(&token, "GET", "/v3/users", None).await.status, 401);
}

#[tokio::test]
async fn services_endpoints_and_regions_make_the_catalog() {
    let cloud = Cloud::new().await;
    let service = cloud.made("/v3/services", "service", json!({"type": "dns", "name": "designate"})).await;
    let region = cloud.made("/v3/regions", "region", json!({"id": "Two", "parent_region_id": "RegionOne"})).await;
    let endpoint = json!({"service_id": service, "interface": "public", "url": "http://x/%(tenant_id)s/$(user_id)s", "region_id": "Two"});
    let endpoint = cloud.made("/v3/endpoints", "endpoint", endpoint).await;
    let login = cloud.login("demo", "demo", json!({"project": project_named("demo")})).await;
    let token = &login.body["token"];
    let dns = token["catalog"].as_array().unwrap().iter().find(|entry| entry["type"] == "dns").unwrap();
    let expected =
        format!("http://x/{}/{}", token["project"]["id"].as_str().unwrap(), token["user"]["id"].as_str().unwrap());
    assert_eq!(dns["endpoints"][0]["url"], expected);
    assert_eq!(dns["endpoints"][0]["region_id"], "Two");
    let catalog = cloud.by(&login.token, "GET", "/v3/auth/catalog", None).await.body;
    assert_eq!(catalog["catalog"], token["catalog"]);
    let domain = cloud.login("admin", "secret", json!({"domain": {"id": "default"}})).await.body;
    assert!(!domain["token"]["catalog"].to_string().contains("dns"), "a URL that needs a project is left out");
    assert_eq!(cloud.delete(&format!("/v3/regions/{region}")).await, 403);
    assert_eq!(
        cloud.patch(&format!("/v3/regions/RegionOne"), json!({"region": {"parent_region_id": "Two"}})).await.status,
        400
    );
    let patched = cloud.patch(&format!("/v3/endpoints/{endpoint}"), json!({"endpoint": {"enabled": false}})).await;
    assert_eq!(patched.body["endpoint"]["enabled"], false);
    let again = cloud.login("demo", "demo", json!({"project": project_named("demo")})).await.body;
    assert!(!again["token"]["catalog"].to_string().contains("dns"));
    for bad in [
        json!({"service_id": service, "interface": "outside", "url": "http://x"}),
        json!({"service_id": "absent", "interface": "public", "url": "http://x"}),
        json!({"service_id": service, "interface": "public", "url": "http://x/%(nonsense)s"}),
        json!({"service_id": service, "interface": "public", "url": "http://x", "region_id": "Nowhere"}),
        json!({"service_id": service, "interface": "public"}),
    ] {
        assert_eq!(cloud.post("/v3/endpoints", json!({"endpoint": bad})).await.status, 400, "{bad}");
    }
    let legacy = json!({"service_id": service, "interface": "admin", "url": "http://y", "region": "Made"});
    cloud.made("/v3/endpoints", "endpoint", legacy).await;
    assert_eq!(cloud.get("/v3/regions/Made").await.status, 200);
    let listed = cloud.get(&format!("/v3/endpoints?service_id={service}&interface=admin")).await.body;
    assert_eq!(names(&listed["endpoints"], "url"), ["http://y"]);
    assert_eq!(cloud.delete(&format!("/v3/services/{service}")).await, 204);
    assert_eq!(cloud.get(&format!("/v3/endpoints/{endpoint}")).await.status, 404);
}

#[tokio::test]
async fn limits_need_a_registered_default() {
    let cloud = Cloud::new().await;
    let (service, project) = (cloud.id("services", "nova").await, cloud.id("projects", "demo").await);
    let limit = json!({"limits": [{"service_id": service, "project_id": project, "resource_name": "servers", "resource_limit": 5}]});
    assert_eq!(cloud.post("/v3/limits", limit.clone()).await.status, 403);
    let registered =
        json!({"registered_limits": [{"service_id": service, "resource_name": "servers", "default_limit": 10}]});
    let made = cloud.post("/v3/registered_limits", registered.clone()).await;
    assert_eq!(made.status, 201);
    assert_eq!(cloud.post("/v3/registered_limits", registered).await.status, 409);
    let made_limit = cloud.post("/v3/limits", limit.clone()).await;
    assert_eq!(made_limit.status, 201);
    assert_eq!(cloud.post("/v3/limits", limit).await.status, 409);
    let registered = format!("/v3/registered_limits/{}", made.body["registered_limits"][0]["id"].as_str().unwrap());
    let limit = format!("/v3/limits/{}", made_limit.body["limits"][0]["id"].as_str().unwrap());
    assert_eq!(cloud.delete(&registered).await, 403);
    assert_eq!(cloud.patch(&limit, json!({"limit": {"resource_limit": 7}})).await.body["limit"]["resource_limit"], 7);
    let demo = cloud.login("demo", "demo", json!({"project": project_named("demo")})).await.token;
    let seen = cloud.by(&demo, "GET", "/v3/limits", None).await.body;
    assert_eq!(seen["limits"].as_array().unwrap().len(), 1);
    assert_eq!(cloud.get("/v3/limits/model").await.body["model"]["name"], "flat");
    let identity = cloud.identity.clone();
    let told = cloud.identity.store.read(move |reader| {
        let mut of = |project: &str, service: &str| {
            contract::Limits::limit(&*identity, reader, &project.into(), service, "servers")
        };
        Ok((of(&project, "compute")?, of("another", "compute")?, of(&project, "image")?))
    });
    assert_eq!(told.await.unwrap(), (Some(7), Some(10), None), "what other services are told");
    assert_eq!(cloud.delete(&limit).await, 204);
    assert_eq!(cloud.delete(&registered).await, 204);
}

#[tokio::test]
async fn credentials_belong_to_their_user() {
    let cloud = Cloud::new().await;
    let demo = cloud.login("demo", "demo", json!({"project": project_named("demo")})).await;
    let project = demo.body["token"]["project"]["id"].clone();
    let body =
        json!({"credential": {"type": "ec2", "blob": "{\"access\": \"a\", \"secret\": \"s\"}", "project_id": project}});
    let made = cloud.by(&demo.token, "POST", "/v3/credentials", Some(body.clone())).await;
    assert_eq!(made.status, 201, "{}", made.body);
    let id = made.body["credential"]["id"].as_str().unwrap();
    assert_eq!(id, "ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb");
    assert_eq!(cloud.by(&demo.token, "POST", "/v3/credentials", Some(body)).await.status, 409);
    let listed = cloud.by(&demo.token, "GET", "/v3/credentials?type=ec2", None).await.body;
    assert_eq!(listed["credentials"][0]["blob"], made.body["credential"]["blob"]);
    let user = cloud.made("/v3/users", "user", json!({"name": "ann", "password": "pw"})).await;
    let (project, role) = (cloud.id("projects", "demo").await, cloud.id("roles", "member").await);
    cloud.put(&format!("/v3/projects/{project}/users/{user}/roles/{role}")).await;
    let ann = cloud.login("ann", "pw", json!({"project": project_named("demo")})).await.token;
    assert_eq!(cloud.by(&ann, "GET", "/v3/credentials", None).await.body["credentials"], json!([]));
    assert_eq!(cloud.by(&ann, "GET", &format!("/v3/credentials/{id}"), None).await.status, 403);
    assert_eq!(cloud.by(&demo.token, "DELETE", &format!("/v3/credentials/{id}"), None).await.status, 204);
}

#[tokio::test]
async fn ec2_keys_are_made_shown_and_deleted_by_their_user() {
    let cloud = Cloud::new().await;
    let demo = cloud.login("demo", "demo", json!({"project": project_named("demo")})).await;
    let token = &demo.body["token"];
    let path = format!("/v3/users/{}/credentials/OS-EC2", token["user"]["id"].as_str().unwrap());
    let body = || Some(json!({"tenant_id": token["project"]["id"]}));
    let made = cloud.by(&demo.token, "POST", &path, body()).await;
    assert_eq!(made.status, 201, "{}", made.body);
    let key = &made.body["credential"];
    assert_eq!((&key["tenant_id"], &key["user_id"]), (&token["project"]["id"], &token["user"]["id"]));
    let one = format!("{path}/{}", key["access"].as_str().unwrap());
    assert_eq!(cloud.by(&demo.token, "GET", &one, None).await.body["credential"], *key);
    assert_eq!(cloud.by(&demo.token, "GET", &path, None).await.body["credentials"], json!([key]));
    let foreign = format!("/v3/users/{}/credentials/OS-EC2", cloud.id("users", "admin").await);
    assert_eq!(cloud.by(&demo.token, "POST", &foreign, body()).await.status, 403);
    assert_eq!(cloud.by(&demo.token, "DELETE", &one, None).await.status, 204);
    assert_eq!(cloud.by(&demo.token, "GET", &one, None).await.status, 404);
}

#[tokio::test]
async fn versions_are_found_without_a_token() {
    let cloud = Cloud::new().await;
    let list = cloud.ask("GET", "", &[], None).await;
    assert_eq!(list.status, 300);
    assert_eq!(list.body["versions"]["values"][0]["links"][0]["href"], "http://cloud/identity/v3/");
    let one = cloud.ask("GET", "/v3/", &[], None).await;
    assert_eq!((one.status, &one.body["version"]["id"]), (200, &json!("v3.14")));
}
