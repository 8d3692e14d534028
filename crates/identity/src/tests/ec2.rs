//! EC2 keys, and the tokens that services get for what was signed with them.

use super::*;
use base64::Engine;
use hmac::Mac;

const URL: base64::engine::GeneralPurpose = base64::prelude::BASE64_URL_SAFE;

/// What S3's first signature makes of a text.
fn s3(access: &str, secret: &str, text: &str) -> Value {
    let mac = <hmac::Hmac<sha1::Sha1> as Mac>::new_from_slice(secret.as_bytes()).unwrap();
    let signature = base64::prelude::BASE64_STANDARD.encode(mac.chain_update(text).finalize().into_bytes());
    json!({"credentials": {"access": access, "token": URL.encode(text), "signature": signature}})
}

/// An EC2 request of version 2 at a moment.
fn v2(access: &str, secret: &str, at: &str) -> Value {
    let query = format!("SignatureMethod=HmacSHA256&SignatureVersion=2&Timestamp={}", at.replace(':', "%3A"));
    let mac = <hmac::Hmac<sha2::Sha256> as Mac>::new_from_slice(secret.as_bytes()).unwrap();
    let mac = mac.chain_update(format!("GET\nhost\n/\n{query}")).finalize().into_bytes();
    json!({"credentials": {"access": access, "host": "host", "verb": "GET", "path": "/",
        "params": {"SignatureVersion": "2", "Timestamp": at},
        "signature": base64::prelude::BASE64_STANDARD.encode(mac)}})
}

async fn demo(cloud: &Cloud) -> (String, String, String) {
    let token = cloud.login("demo", "demo", json!({"project": project_named("demo")})).await.token;
    let (user, project) = (cloud.id("users", "demo").await, cloud.id("projects", "demo").await);
    (token, user, project)
}

#[tokio::test]
async fn what_was_signed_with_a_key_is_exchanged_for_a_token_that_makes_no_others() {
    let cloud = Cloud::new().await;
    let (token, user, project) = demo(&cloud).await;
    let keys = format!("/v3/users/{user}/credentials/OS-EC2");
    let key = cloud.by(&token, "POST", &keys, Some(json!({"tenant_id": project}))).await;
    assert_eq!(key.status, 201, "{}", key.body);
    let (access, secret) = (key.body["credential"]["access"].clone(), key.body["credential"]["secret"].clone());
    let (access, secret) = (access.as_str().unwrap(), secret.as_str().unwrap());
    let now = "2026-01-01T00:00:00Z";
    let answer = cloud.post("/v3/ec2tokens", v2(access, secret, now)).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    let shown = &answer.body["token"];
    assert_eq!(shown["methods"], json!(["ec2credential"]));
    assert_eq!((&shown["user"]["id"], &shown["project"]["id"]), (&json!(user), &json!(project)));
    assert!(shown["catalog"].as_array().is_some_and(|catalog| !catalog.is_empty()));
    assert_eq!(cloud.validate(&answer.token).await.status, 200);
    let own = cloud.by(&answer.token, "GET", "/v3/auth/projects", None).await;
    assert_eq!(own.status, 403, "it is good for other services only: {}", own.body);
    let again = json!({"auth": {"identity": {"methods": ["token"], "token": {"id": answer.token}}}});
    assert_eq!(cloud.ask("POST", "/v3/auth/tokens", &[], Some(again)).await.status, 403);
    assert_eq!(cloud.by(&answer.token, "POST", &keys, Some(json!({"tenant_id": project}))).await.status, 403);
    let s3 = cloud.post("/v3/s3tokens", s3(access, secret, "GET\n/bucket")).await;
    assert_eq!((s3.status, s3.token.as_str()), (200, ""), "who serves S3 gets no token: {}", s3.body);
    assert_eq!(s3.body["token"]["user"]["id"], json!(user));

    let unsigned = cloud.post("/v3/ec2tokens", v2(access, "wrong", now)).await;
    assert_eq!(unsigned.status, 401);
    assert_eq!(cloud.post("/v3/ec2tokens", v2(access, secret, "2025-12-31T23:44:00Z")).await.status, 401, "too old");
    assert_eq!(cloud.post("/v3/ec2tokens", v2(access, secret, "today")).await.status, 401);
    assert_eq!(cloud.post("/v3/ec2tokens", v2("absent", secret, now)).await.status, 404);
    assert_eq!(cloud.post("/v3/ec2tokens", json!({"credentials": {"signature": "x"}})).await.status, 401);
    assert_eq!(cloud.post("/v3/ec2tokens", json!({"credentials": "x"})).await.status, 400);
    assert_eq!(cloud.by(&token, "POST", "/v3/ec2tokens", Some(v2(access, secret, now))).await.status, 403);
    assert_eq!(cloud.ask("POST", "/v3/s3tokens", &[], Some(v2(access, secret, now))).await.status, 401);
    assert_eq!(cloud.get("/v3/ec2tokens").await.status, 405);

    let disabled = json!({"user": {"enabled": false}});
    assert_eq!(cloud.patch(&format!("/v3/users/{user}"), disabled).await.status, 200);
    assert_eq!(cloud.post("/v3/ec2tokens", v2(access, secret, now)).await.status, 401);
}

#[tokio::test]
async fn a_keys_blob_keeps_what_it_is_good_for() {
    let cloud = Cloud::new().await;
    let (token, user, project) = demo(&cloud).await;
    let body = |blob: Value| json!({"credential": {"type": "ec2", "user_id": user, "project_id": project, "blob": blob.to_string()}});
    let made = cloud.by(&token, "POST", "/v3/credentials", Some(body(json!({"access": "a", "secret": "s"})))).await;
    let path = format!("/v3/credentials/{}", made.body["credential"]["id"].as_str().unwrap());
    let patch = async |blob: Value| {
        let body = json!({"credential": {"blob": blob.to_string()}});
        cloud.by(&token, "PATCH", &path, Some(body)).await.status
    };
    assert_eq!(patch(json!({"access": "a", "secret": "other"})).await, 200);
    assert_eq!(patch(json!({"access": "a", "secret": "s", "trust_id": "t"})).await, 400);
    assert_eq!(patch(json!({"access": "a", "secret": "s", "app_cred_id": "t"})).await, 400);
    assert_eq!(patch(json!({"access": "b", "secret": "other"})).await, 200);
    assert_eq!(patch(json!("x")).await, 400);
    let now = "2026-01-01T00:00:00Z";
    assert_eq!(cloud.post("/v3/ec2tokens", v2("a", "other", now)).await.status, 200);
    // A key that claims somebody else's trust or application credential opens nothing.
    let admin = json!({"name": "mine"});
    let admin_id = cloud.id("users", "admin").await;
    let path = format!("/v3/users/{admin_id}/application_credentials");
    let mine = cloud.post(&path, json!({"application_credential": admin})).await.body["application_credential"]["id"].clone();
    for (access, claimed) in [
        ("x", json!({"app_cred_id": mine})),
        ("y", json!({"trust_id": "absent"})),
        ("z", json!({"access_token_id": "absent"})),
    ] {
        let mut blob = json!({"access": access, "secret": "s"});
        blob.as_object_mut().unwrap().extend(claimed.as_object().unwrap().clone());
        assert_eq!(cloud.by(&token, "POST", "/v3/credentials", Some(body(blob))).await.status, 201);
        assert_eq!(cloud.post("/v3/ec2tokens", v2(access, "s", now)).await.status, 401, "{access}");
    }
}
