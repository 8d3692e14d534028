//! The limit on failed logins, and keys that wait for every process.

use super::*;
use crate::login_limit::Rate;

fn cause() -> store::Cause {
    store::Cause::new("test", "", "keys")
}

async fn limited() -> Cloud {
    let store = store::Options { kinds: kinds(), ..store::Options::memory() };
    let rate = |burst| Rate { burst, per_minute: 1 };
    let login_limit =
        login_limit::Options { per_user: rate(3), per_source: rate(8), trusted_proxies: Vec::new() };
    Cloud::on(store, Options { login_limit, ..Options::default() }).await
}

/// A login from an address.
async fn from(cloud: &Cloud, address: &str, user: Value) -> (u16, Option<String>, Value) {
    cloud.clock.advance_ms(1);
    let body = json!({"auth": {"identity": {"methods": ["password"], "password": {"user": user}}}});
    let mut request = http::Request::post("/identity/v3/auth/tokens").body(Body::from(body.to_string())).unwrap();
    request.extensions_mut().insert(rest::Peer(address.parse().unwrap()));
    let answer = cloud.gateway.handle(request).await;
    let retry = answer.headers().get("retry-after").map(|value| value.to_str().unwrap().to_owned());
    let status = answer.status().as_u16();
    let bytes = answer.into_body().collect().await.unwrap().to_bytes();
    (status, retry, serde_json::from_slice(&bytes).unwrap())
}

fn user(name: &str, password: &str) -> Value {
    json!({"name": name, "domain": {"id": "default"}, "password": password})
}

#[tokio::test]
async fn who_fails_often_waits_whether_the_user_is_there_or_not() {
    let cloud = limited().await;
    let demo = cloud.id("users", "demo").await;
    for _ in 0..5 {
        assert_eq!(from(&cloud, "192.0.2.1", user("demo", "demo")).await.0, 201, "what holds is not counted");
    }
    let mut answers = Vec::new();
    for (name, address) in [("demo", "192.0.2.1"), ("nobody", "192.0.2.2")] {
        for _ in 0..3 {
            assert_eq!(from(&cloud, address, user(name, "wrong")).await.0, 401, "{name}");
        }
        answers.push(from(&cloud, address, user(name, "wrong")).await);
    }
    assert_eq!(answers[0], answers[1]);
    assert_eq!((answers[0].0, answers[0].1.as_deref()), (429, Some("60")), "{}", answers[0].2);
    assert_eq!(answers[0].2["error"]["title"], "Too Many Requests");
    // By id it is the same user, and the right password waits, too.
    assert_eq!(from(&cloud, "192.0.2.3", json!({"id": demo, "password": "demo"})).await.0, 429);
    let path = format!("/v3/users/{demo}/password");
    let change = json!({"user": {"original_password": "demo", "password": "other"}});
    assert_eq!(cloud.ask("POST", &path, &[], Some(change)).await.status, 429);
    cloud.clock.advance_ms(60_000);
    assert_eq!(from(&cloud, "192.0.2.3", user("demo", "demo")).await.0, 201);
}

#[tokio::test]
async fn a_source_that_tries_many_users_waits_and_others_do_not() {
    let cloud = limited().await;
    for n in 0..8 {
        assert_eq!(from(&cloud, "192.0.2.1", user(&format!("user-{n}"), "wrong")).await.0, 401);
    }
    assert_eq!(from(&cloud, "192.0.2.1", user("demo", "demo")).await.0, 429);
    assert_eq!(from(&cloud, "192.0.2.2", user("demo", "demo")).await.0, 201);
}

#[tokio::test]
async fn a_new_key_waits_until_every_process_has_it() {
    let cloud = Cloud::new().await;
    let (store, env) = (cloud.identity.store.clone(), cloud.identity.env.clone());
    let open = async || {
        Identity::open(store.clone(), env.clone(), Options { alone: false, ..Options::default() }).await.unwrap()
    };
    let (one, two) = (open().await, open().await);
    one.chores().await.unwrap();
    two.chores().await.unwrap();
    one.rotate_keys(cause()).await.unwrap();
    let refused = one.rotate_keys(cause()).await.unwrap_err();
    assert_eq!(refused.kind, base::FaultKind::Conflict);
    assert!(refused.message.contains(&two.process), "{}", refused.message);
    // By itself nothing rotates either, until the other has looked.
    let before = one.export_keys().await.unwrap();
    cloud.clock.advance_ms(86_401_000);
    two.store.write(cause(), {
        let holder = documents::KeyHolder { seen: env.now(), ..two.holder(env.now()).unwrap() };
        move |tx| Ok(tx.put(&documents::KeyHolder { staged: "another".into(), ..holder.clone() })?)
    })
    .await
    .unwrap();
    one.chores().await.unwrap();
    assert_eq!(one.export_keys().await.unwrap(), before);
    two.chores().await.unwrap();
    assert_ne!(two.export_keys().await.unwrap(), before, "both have it: it seals");
    // One that is gone holds nobody up for long.
    let two = two.process.clone();
    for _ in 0..2 {
        one.chores().await.unwrap();
        cloud.clock.advance_ms(901_000);
    }
    one.chores().await.unwrap();
    one.rotate_keys(cause()).await.unwrap();
    one.rotate_keys(cause()).await.unwrap();
    assert!(store.get::<documents::KeyHolder>(&two).await.unwrap().is_none());
}
