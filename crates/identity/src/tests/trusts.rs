//! What one user lends another.

use super::*;

/// A trustor with two roles in a project of its own, and a trustee with nothing.
struct Lab {
    cloud: Cloud,
    trustor: String,
    trustee: String,
    project: String,
    roles: [String; 2],
    /// The trustor's own token for the project.
    token: String,
}

impl Lab {
    async fn new() -> Lab {
        let cloud = Cloud::new().await;
        let project = cloud.made("/v3/projects", "project", json!({"name": "lent"})).await;
        let mut users = Vec::new();
        for name in ["trustor", "trustee", "third"] {
            users.push(cloud.made("/v3/users", "user", json!({"name": name, "password": "secret"})).await);
        }
        let mut roles = Vec::new();
        for name in ["painter", "gardener"] {
            let role = cloud.made("/v3/roles", "role", json!({"name": name})).await;
            assert_eq!(cloud.put(&format!("/v3/projects/{project}/users/{}/roles/{role}", users[0])).await, 204);
            roles.push(role);
        }
        let token = cloud.login("trustor", "secret", json!({"project": {"id": project}})).await.token;
        let [trustor, trustee, _] = <[String; 3]>::try_from(users).unwrap();
        Lab { cloud, trustor, trustee, project, roles: roles.try_into().unwrap(), token }
    }

    fn wish(&self, more: Value) -> Value {
        let mut trust = json!({"trustor_user_id": self.trustor, "trustee_user_id": self.trustee,
            "project_id": self.project, "impersonation": false, "roles": [{"name": "painter"}]});
        trust.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        json!({ "trust": trust })
    }

    async fn lend(&self, more: Value) -> String {
        let made = self.cloud.by(&self.token, "POST", "/v3/OS-TRUST/trusts", Some(self.wish(more))).await;
        assert_eq!(made.status, 201, "{}", made.body);
        made.body["trust"]["id"].as_str().unwrap().to_owned()
    }

    async fn refused(&self, token: &str, more: Value) -> u16 {
        self.cloud.by(token, "POST", "/v3/OS-TRUST/trusts", Some(self.wish(more))).await.status
    }

    /// The trustee's login with the trust.
    async fn use_it(&self, user: &str, trust: &str) -> Answer {
        self.cloud.login(user, "secret", json!({"OS-TRUST:trust": {"id": trust}})).await
    }
}

#[tokio::test]
async fn a_trusts_token_has_its_roles_and_bears_the_right_name() {
    let lab = Lab::new().await;
    let trust = lab.lend(json!({})).await;
    let used = lab.use_it("trustee", &trust).await;
    assert_eq!(used.status, 201, "{}", used.body);
    let token = &used.body["token"];
    assert_eq!(names(&token["roles"], "name"), ["painter"]);
    assert_eq!(
        (token["user"]["id"].as_str(), token["project"]["id"].as_str()),
        (Some(&*lab.trustee), Some(&*lab.project))
    );
    let said = json!({"id": trust, "impersonation": false,
        "trustor_user": {"id": lab.trustor}, "trustee_user": {"id": lab.trustee}});
    assert_eq!(token["OS-TRUST:trust"], said);
    assert_eq!(lab.cloud.validate(&used.token).await.body["token"]["OS-TRUST:trust"], said);
    assert!(token.get("is_domain").is_none(), "as in Keystone");

    let deputy = lab.lend(json!({"impersonation": true})).await;
    let used = lab.use_it("trustee", &deputy).await;
    assert_eq!(used.body["token"]["user"]["id"].as_str(), Some(&*lab.trustor));

    // Nobody else can use it, and its tokens buy no others and no credentials.
    assert_eq!(lab.use_it("third", &trust).await.status, 403);
    assert_eq!(lab.use_it("trustor", &trust).await.status, 403);
    let auth = json!({"auth": {"identity": {"methods": ["token"], "token": {"id": used.token}}}});
    assert_eq!(lab.cloud.ask("POST", "/v3/auth/tokens", &[], Some(auth)).await.status, 403);
    let path = format!("/v3/users/{}/application_credentials", lab.trustor);
    let wish = json!({"application_credential": {"name": "more"}});
    assert_eq!(lab.cloud.by(&used.token, "POST", &path, Some(wish)).await.status, 403);
}

#[tokio::test]
async fn a_trusts_token_ends_with_whatever_it_rests_on() {
    let lab = Lab::new().await;
    let (cloud, project, trustor) = (&lab.cloud, &lab.project, &lab.trustor);
    let works = async |token: &str| cloud.by(token, "GET", "/v3/auth/catalog", None).await.status == 200;
    let trust = lab.lend(json!({"impersonation": true})).await;
    let token = lab.use_it("trustee", &trust).await.token;
    assert!(works(&token).await);

    // A role that the trustor has lost is not replaced by those that are left.
    let grant = format!("/v3/projects/{project}/users/{trustor}/roles/{}", lab.roles[0]);
    assert_eq!(cloud.delete(&grant).await, 204);
    assert!(!works(&token).await);
    assert_eq!(lab.use_it("trustee", &trust).await.status, 401);
    assert_eq!(cloud.put(&grant).await, 204);
    let token = lab.use_it("trustee", &trust).await.token;
    assert!(works(&token).await);

    // Either user, though the token bears only the trustor's name.
    for user in [&lab.trustee, trustor] {
        let path = format!("/v3/users/{user}");
        assert_eq!(cloud.patch(&path, json!({"user": {"enabled": false}})).await.status, 200);
        assert!(!works(&token).await);
        assert_eq!(cloud.patch(&path, json!({"user": {"enabled": true}})).await.status, 200);
    }
    let lab_token = cloud.login("trustor", "secret", json!({"project": {"id": project}})).await.token;
    let token = lab.use_it("trustee", &trust).await.token;
    assert!(works(&token).await);
    assert_eq!(cloud.by(&lab_token, "DELETE", &format!("/v3/OS-TRUST/trusts/{trust}"), None).await.status, 204);
    assert!(!works(&token).await);

    // It goes with the trustee.
    let made = cloud.by(&lab_token, "POST", "/v3/OS-TRUST/trusts", Some(lab.wish(json!({})))).await;
    assert_eq!(made.status, 201);
    assert_eq!(cloud.delete(&format!("/v3/users/{}", lab.trustee)).await, 204);
    let left = cloud.get("/v3/OS-TRUST/trusts").await.body;
    assert_eq!(left["trusts"], json!([]));
}

#[tokio::test]
async fn a_trust_ends_at_its_time_and_after_its_uses() {
    let lab = Lab::new().await;
    let end = base::Env::seeded(7).0.now().plus_s(600).iso_micros();
    let trust = lab.lend(json!({"expires_at": end})).await;
    let used = lab.use_it("trustee", &trust).await;
    assert_eq!(used.status, 201, "{}", used.body);
    let ends = used.body["token"]["expires_at"].as_str().unwrap().to_owned();
    assert!(ends <= end, "a token lives no longer than its trust: {ends} {end}");
    lab.cloud.clock.advance_ms(601_000);
    let token = lab.cloud.login("trustor", "secret", json!({"project": {"id": lab.project}})).await.token;
    let path = format!("/v3/OS-TRUST/trusts/{trust}");
    assert_eq!(lab.cloud.by(&token, "GET", &path, None).await.status, 404);
    assert_eq!(lab.use_it("trustee", &trust).await.status, 401);

    let twice = lab.lend(json!({"remaining_uses": 2})).await;
    let tokens = [lab.use_it("trustee", &twice).await, lab.use_it("trustee", &twice).await];
    assert_eq!(tokens.each_ref().map(|used| used.status), [201, 201]);
    assert_eq!(lab.use_it("trustee", &twice).await.status, 401);
    let shown = lab.cloud.by(&token, "GET", &format!("/v3/OS-TRUST/trusts/{twice}"), None).await;
    assert_eq!(shown.body["trust"]["remaining_uses"], 0);
}

#[tokio::test]
async fn nobody_lends_what_is_not_theirs() {
    let lab = Lab::new().await;
    let refused = async |more: Value| lab.refused(&lab.token, more).await;
    assert_eq!(refused(json!({"trustor_user_id": lab.trustee})).await, 403);
    assert_eq!(lab.refused(&lab.cloud.admin, json!({})).await, 403);
    assert_eq!(refused(json!({"roles": [{"name": "admin"}]})).await, 404);
    assert_eq!(refused(json!({"roles": [{"name": "no such role"}]})).await, 404);
    assert_eq!(refused(json!({"roles": []})).await, 403);
    assert_eq!(refused(json!({"roles": [{"id": lab.roles[0], "name": "painter"}]})).await, 400);
    assert_eq!(refused(json!({"trustee_user_id": "nobody"})).await, 404);
    assert_eq!(refused(json!({"expires_at": "bad.123Z"})).await, 400);
    assert_eq!(refused(json!({"expires_at": "2001-01-01T00:00:00Z"})).await, 400);
    assert_eq!(refused(json!({"remaining_uses": 0})).await, 400);
    assert_eq!(refused(json!({"impersonation": "yes"})).await, 400);
    assert_eq!(refused(json!({"allow_redelegation": true, "remaining_uses": 3})).await, 400);
    assert_eq!(refused(json!({"allow_redelegation": true, "redelegation_count": 4})).await, 403);

    // Only the two of them and administrators see it.
    let path = format!("/v3/OS-TRUST/trusts/{}", lab.lend(json!({})).await);
    let third = lab.cloud.login("third", "secret", Value::Null).await.token;
    let trustee = lab.cloud.login("trustee", "secret", Value::Null).await.token;
    assert_eq!(lab.cloud.by(&third, "GET", &path, None).await.status, 404);
    assert_eq!(lab.cloud.by(&third, "DELETE", &path, None).await.status, 404);
    assert_eq!(lab.cloud.by(&trustee, "GET", &path, None).await.status, 200);
    assert_eq!(lab.cloud.by(&trustee, "DELETE", &path, None).await.status, 403);
    assert_eq!(lab.cloud.get(&path).await.status, 200);
    let roles = format!("{path}/roles");
    assert_eq!(names(&lab.cloud.get(&roles).await.body["roles"], "name"), ["painter"]);
    assert_eq!(lab.cloud.get(&format!("{roles}/{}", lab.roles[1])).await.status, 404);
}

#[tokio::test]
async fn what_is_lent_on_is_narrower_and_goes_with_its_source() {
    let lab = Lab::new().await;
    let third = lab.cloud.id("users", "third").await;
    let both = json!([{"name": "painter"}, {"name": "gardener"}]);
    let first = lab.lend(json!({"impersonation": true, "allow_redelegation": true, "roles": both})).await;
    let token = lab.use_it("trustee", &first).await.token;
    let on = |more: Value| {
        let mut wish = json!({"trustee_user_id": third, "impersonation": true});
        wish.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        lab.wish(wish)
    };
    let made = lab.cloud.by(&token, "POST", "/v3/OS-TRUST/trusts", Some(on(json!({"allow_redelegation": true})))).await;
    assert_eq!(made.status, 201, "{}", made.body);
    assert_eq!(made.body["trust"]["redelegation_count"], 2);
    assert_eq!(made.body["trust"]["redelegated_trust_id"].as_str(), Some(&*first));
    let second = made.body["trust"]["id"].as_str().unwrap().to_owned();
    let used = lab.use_it("third", &second).await;
    assert_eq!(names(&used.body["token"]["roles"], "name"), ["painter"]);

    // Not with more roles than it has, and not from one that may not be lent on.
    let wider = on(json!({"roles": [{"name": "gardener"}]}));
    assert_eq!(lab.cloud.by(&used.token, "POST", "/v3/OS-TRUST/trusts", Some(wider)).await.status, 403);
    let plain = lab.lend(json!({"impersonation": true})).await;
    let plain = lab.use_it("trustee", &plain).await.token;
    assert_eq!(lab.cloud.by(&plain, "POST", "/v3/OS-TRUST/trusts", Some(on(json!({})))).await.status, 403);

    let path = format!("/v3/OS-TRUST/trusts/{first}");
    assert_eq!(lab.cloud.by(&lab.token, "DELETE", &path, None).await.status, 204);
    assert_eq!(lab.cloud.by(&used.token, "GET", "/v3/auth/catalog", None).await.status, 401);
    assert_eq!(lab.cloud.get(&format!("/v3/OS-TRUST/trusts/{second}")).await.status, 404);
}
