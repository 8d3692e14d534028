//! Lockout, history, age and end of passwords.

use super::*;
use crate::compliance::Compliance;

const DAY_MS: i64 = 86_400_000;

struct Person {
    cloud: Cloud,
    id: String,
}

/// A cloud with these settings, and a user of the name `u` with the password `first`.
async fn person(compliance: Compliance, options: Value) -> Person {
    let cloud = Cloud::with(compliance).await;
    let user = json!({"name": "u", "password": "first", "domain_id": "default", "options": options});
    let id = cloud.made("/v3/users", "user", user).await;
    Person { cloud, id }
}

impl Person {
    async fn login(&self, password: &str) -> u16 {
        self.cloud.login("u", password, Value::Null).await.status
    }

    async fn change(&self, from: &str, to: &str) -> u16 {
        self.change_at("", from, to).await
    }

    async fn change_at(&self, query: &str, from: &str, to: &str) -> u16 {
        let body = json!({"user": {"original_password": from, "password": to}});
        self.cloud.ask("POST", &format!("/v3/users/{}/password{query}", self.id), &[], Some(body)).await.status
    }

    async fn reset(&self, user: Value) -> u16 {
        self.cloud.patch(&format!("/v3/users/{}", self.id), json!({ "user": user })).await.status
    }

    /// Time passes, and the administrator logs in anew.
    async fn wait(&mut self, ms: i64) {
        self.cloud.clock.advance_ms(ms);
        self.cloud.admin = self.cloud.login("admin", "secret", json!({"project": project_named("admin")})).await.token;
    }
}

fn locking() -> Compliance {
    Compliance { lockout_failure_attempts: Some(3), lockout_duration_s: 5, ..Compliance::default() }
}

#[tokio::test]
async fn three_failures_in_a_row_lock_a_user_for_a_while() {
    let mut user = person(locking(), json!({})).await;
    for _ in 0..2 {
        assert_eq!(user.login("wrong").await, 401);
    }
    assert_eq!(user.login("first").await, 201, "two are forgiven");
    for _ in 0..3 {
        assert_eq!(user.login("wrong").await, 401);
    }
    assert_eq!(user.login("first").await, 401);
    assert_eq!(user.change("first", "second").await, 401, "nor by the way of a change");
    user.wait(5000).await;
    assert_eq!(user.login("wrong").await, 401, "the count begins anew");
    assert_eq!(user.login("first").await, 201);
}

#[tokio::test]
async fn a_change_of_the_password_and_its_dry_run_count_as_logins() {
    let user = person(locking(), json!({})).await;
    for query in ["", "?dry_run=true", "?dry_run=true"] {
        assert_eq!(user.change_at(query, "wrong", "second").await, 401);
    }
    assert_eq!(user.login("first").await, 401);
}

#[tokio::test]
async fn some_users_are_never_locked_and_the_unknown_are_not_counted() {
    let user = person(locking(), json!({"ignore_lockout_failure_attempts": true})).await;
    for _ in 0..4 {
        assert_eq!(user.login("wrong").await, 401);
        assert_eq!(user.cloud.login("nobody", "wrong", Value::Null).await.status, 401);
    }
    assert_eq!(user.login("first").await, 201);
    assert_eq!(user.cloud.identity.store.list::<documents::FailedLogins>(store::Query::all()).await.unwrap().len(), 0);
    assert_eq!(user.reset(json!({"options": {"lock_password": "yes"}})).await, 400);
}

#[tokio::test]
async fn a_user_may_not_go_back_to_one_of_the_last_passwords() {
    let compliance = Compliance { unique_last_password_count: 3, ..Compliance::default() };
    let user = person(compliance, json!({})).await;
    assert_eq!(user.change("first", "first").await, 400);
    assert_eq!(user.change("first", "second").await, 204);
    assert_eq!(user.change("second", "first").await, 400);
    assert_eq!(user.reset(json!({"password": "third"})).await, 200);
    assert_eq!(user.change("third", "second").await, 400);
    assert_eq!(user.change("third", "fourth").await, 204);
    assert_eq!(user.change("fourth", "first").await, 204, "three others have come since");
    assert_eq!(user.reset(json!({"password": "first"})).await, 200, "an administrator may");
    let shown = user.cloud.get(&format!("/v3/users/{}", user.id)).await.body.to_string();
    assert!(!shown.contains("$2b$") && !shown.contains("history"), "{shown}");
}

#[tokio::test]
async fn a_password_must_have_an_age_to_be_changed_and_ends_some_day() {
    let compliance =
        Compliance { minimum_password_age_days: 1, password_expires_days: Some(3), ..Compliance::default() };
    let mut user = person(compliance, json!({})).await;
    let path = format!("/v3/users/{}", user.id);
    assert_eq!(user.change("first", "second").await, 400);
    user.wait(DAY_MS).await;
    assert_eq!(user.change("first", "second").await, 204);
    let end = user.cloud.get(&path).await.body["user"]["password_expires_at"].clone();
    let token = user.cloud.login("u", "second", Value::Null).await;
    assert!(end.as_str().is_some_and(|end| end.len() == 26), "{end}");
    assert_eq!(token.body["token"]["user"]["password_expires_at"], end);
    user.wait(3 * DAY_MS).await;
    let refused = user.cloud.login("u", "second", Value::Null).await;
    assert_eq!(refused.status, 401);
    assert!(refused.body["error"]["message"].as_str().unwrap().contains("expired"), "{}", refused.body);
    assert_eq!(user.change("second", "third").await, 204, "an ended one still serves for this");
    assert_eq!(user.login("third").await, 201);
    user.wait(3 * DAY_MS).await;
    user.cloud.identity.sync().await.unwrap();
    assert_eq!(user.login("third").await, 401);
}

#[tokio::test]
async fn what_somebody_else_has_set_must_be_changed_first() {
    let compliance =
        || Compliance { change_password_upon_first_use: true, minimum_password_age_days: 1, ..Compliance::default() };
    let user = person(compliance(), json!({})).await;
    assert_eq!(user.login("first").await, 401);
    assert_eq!(user.change("first", "second").await, 204, "who must may, whatever the age");
    assert_eq!(user.login("second").await, 201);
    assert_eq!(user.reset(json!({"password": "third"})).await, 200);
    assert_eq!(user.login("third").await, 401);
    let user = person(compliance(), json!({"ignore_change_password_upon_first_use": true})).await;
    assert_eq!(user.login("first").await, 201);
}

#[tokio::test]
async fn a_password_must_match_the_pattern() {
    let pattern = r"^(?=.*\d)(?=.*[a-z()])(?!x)?.{4,}$";
    assert!(Compliance { password_regex: Some(pattern.into()), ..Compliance::default() }.check().is_err());
    let compliance = Compliance {
        password_regex: Some(r"^(?=.*\d)(?=.*[a-z()]).{4,}$".into()),
        password_regex_description: Some("four characters, a digit and a letter".into()),
        ..Compliance::default()
    };
    compliance.check().unwrap();
    let cloud = Cloud::with(compliance).await;
    for (password, expected) in [("ab1", 400), ("abcd", 400), ("1234", 400), ("abc1", 201), ("1)23", 201)] {
        let user = json!({"name": format!("u{password}"), "password": password});
        let answer = cloud.post("/v3/users", json!({ "user": user })).await;
        assert_eq!(answer.status, expected, "{password}: {}", answer.body);
        if expected == 400 {
            assert!(answer.body.to_string().contains("a digit and a letter"));
        }
    }
    let shown = cloud.get("/v3/domains/default/config/security_compliance/password_regex_description").await.body;
    assert_eq!(shown["config"]["password_regex_description"], "four characters, a digit and a letter");
    for password_regex in [Some("(".to_owned()), Some("(?=a".to_owned()), Some("(?:a{1000}){1000}".to_owned())] {
        assert!(Compliance { password_regex, ..Compliance::default() }.check().is_err());
    }
}
