//! `Idempotency-Key`: what is sent again is not done again.

use crate::cloud::{Answer, TestCloud, options};
use axum::body::Body;
use base::clock::ManualClock;
use base::{Env, Timestamp};
use control::Cloud;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;
use store::{Cause, Hooks, Waiting};

async fn post(cloud: &TestCloud, token: &str, path: &str, body: &Value, key: &str) -> Answer {
    cloud.call(token, "POST", path, body, &[("idempotency-key", key)]).await
}

const NETWORKS: &str = "/network/v2.0/networks";

fn network(name: &str) -> Value {
    json!({"network": {"name": name}})
}

async fn named(cloud: &TestCloud, name: &str) -> usize {
    cloud.get(&format!("{NETWORKS}?name={name}")).await["networks"].as_array().unwrap().len()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repeat_gets_the_same_answer_and_nothing_is_done_again() {
    let cloud = TestCloud::start(1).await;
    let first = post(&cloud, &cloud.demo, NETWORKS, &network("blue"), "k1").await;
    assert_eq!((first.status, first.header("idempotency-replayed")), (201, None), "{}", first.body);
    let again = post(&cloud, &cloud.demo, NETWORKS, &network("blue"), "k1").await;
    assert_eq!((again.status, &again.body), (201, &first.body));
    assert_eq!(again.header("idempotency-replayed"), Some("true"));
    assert_eq!(again.header("idempotency-request-id"), Some(first.request_id().as_str()));
    assert_eq!(again.header("content-type"), Some("application/json"));
    assert_ne!(again.request_id(), first.request_id());
    assert_eq!(named(&cloud, "blue").await, 1);
    let other = post(&cloud, &cloud.demo, NETWORKS, &network("blue"), "k2").await;
    assert_ne!(other.body["network"]["id"], first.body["network"]["id"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn another_body_is_a_conflict_and_another_scope_another_request() {
    let cloud = TestCloud::start(1).await;
    post(&cloud, &cloud.demo, NETWORKS, &network("blue"), "k").await;
    let other = post(&cloud, &cloud.demo, NETWORKS, &network("red"), "k").await;
    assert_eq!(other.status, 409);
    assert!(other.body.to_string().contains("another request"), "{}", other.body);
    let query = post(&cloud, &cloud.demo, &format!("{NETWORKS}?x=1"), &network("blue"), "k").await;
    assert_eq!(query.status, 409, "{}", query.body);
    // Another user of the same project, another project of the same user, another path: none of them repeats.
    let elsewhere = cloud.token("admin", "admin", "admin").await;
    for token in [&cloud.admin, &elsewhere] {
        let made = post(&cloud, token, NETWORKS, &network("blue"), "k").await;
        assert_eq!((made.status, made.header("idempotency-replayed")), (201, None), "{}", made.body);
    }
    let group = json!({"security_group": {"name": "blue"}});
    assert_eq!(post(&cloud, &cloud.demo, "/network/v2.0/security-groups", &group, "k").await.status, 201);
    assert_eq!((named(&cloud, "blue").await, named(&cloud, "red").await), (3, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_refused_may_be_tried_again() {
    let cloud = TestCloud::start(1).await;
    let subnet = |network: &str| json!({"subnet": {"network_id": network, "ip_version": 4, "cidr": "10.1.0.0/24"}});
    let missing = "00000000-0000-4000-8000-000000000000";
    let refused = post(&cloud, &cloud.demo, "/network/v2.0/subnets", &subnet(missing), "k").await;
    assert_eq!(refused.status, 404, "{}", refused.body);
    let made = post(&cloud, &cloud.demo, NETWORKS, &network("blue"), "n").await;
    let id = made.body["network"]["id"].as_str().unwrap();
    let made = post(&cloud, &cloud.demo, "/network/v2.0/subnets", &subnet(id), "k").await;
    assert_eq!((made.status, made.header("idempotency-replayed")), (201, None), "{}", made.body);
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_that_are_none_and_routes_that_take_none_are_refused() {
    let cloud = TestCloud::start(1).await;
    let long = "x".repeat(256);
    for key in ["", "tab\tbed", long.as_str(), "ümlaut"] {
        let request = http::Request::builder().method("POST").uri(NETWORKS).header("x-auth-token", &cloud.demo);
        let request = request.header("idempotency-key", http::HeaderValue::from_bytes(key.as_bytes()).unwrap());
        let answer = cloud.raw(request.body(Body::from(network("n").to_string())).unwrap()).await;
        assert_eq!(answer.status, 400, "{key:?}: {}", answer.body);
    }
    let twice = [("idempotency-key", "a"), ("idempotency-key", "b")];
    assert_eq!(cloud.call(&cloud.demo, "POST", NETWORKS, &network("n"), &twice).await.status, 400);
    let token = post(&cloud, "", "/identity/v3/auth/tokens", &json!({}), "k").await;
    assert_eq!(token.status, 400, "{}", token.body);
    let stream = [("idempotency-key", "a"), ("content-type", "application/octet-stream")];
    let mut request = http::Request::builder().method("POST").uri(NETWORKS).header("x-auth-token", &cloud.demo);
    for (name, value) in stream {
        request = request.header(name, value);
    }
    assert_eq!(cloud.raw(request.body(Body::from("x")).unwrap()).await.status, 400);
    assert_eq!(named(&cloud, "n").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_at_once_one_server_is_made() {
    let dir = tempfile::tempdir().unwrap();
    // With a writer thread, so that they really come at once.
    let url = format!("sqlite:{}", dir.path().join("store.db").display());
    let cloud = Arc::new(TestCloud::open(&url, Env::system(), 2).await);
    let image = cloud.image().await;
    let flavor = json!({"flavor": {"name": "small", "vcpus": 1, "ram": 64, "disk": 1, "id": "small"}});
    cloud.call(&cloud.admin, "POST", "/compute/v2.1/flavors", &flavor, &[]).await;
    let body = json!({"server": {"name": "web", "imageRef": image, "flavorRef": "small", "networks": "none"}});
    let posts = (0..16).map(|_| {
        let (cloud, body) = (cloud.clone(), body.clone());
        tokio::spawn(async move { post(&cloud, &cloud.demo, "/compute/v2.1/servers", &body, "once").await })
    });
    let answers = futures::future::join_all(posts.collect::<Vec<_>>()).await;
    let mut ids = std::collections::BTreeSet::new();
    for answer in answers {
        let answer = answer.unwrap();
        match answer.status {
            202 => {
                ids.insert(answer.body["server"]["id"].as_str().unwrap().to_owned());
            }
            409 => assert!(answer.body.to_string().contains("still running"), "{}", answer.body),
            other => panic!("{other}: {}", answer.body),
        }
    }
    assert_eq!(ids.len(), 1);
    let servers = cloud.get("/compute/v2.1/servers").await;
    assert_eq!(servers["servers"].as_array().map(Vec::len), Some(1));
    let again = post(&cloud, &cloud.demo, "/compute/v2.1/servers", &body, "once").await;
    assert!(ids.contains(again.body["server"]["id"].as_str().unwrap()));
    assert!(again.body["server"]["adminPass"].is_string());
}

#[tokio::test(flavor = "multi_thread")]
async fn no_secret_of_an_answer_and_no_key_lies_in_the_store() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("store.db");
    let cloud = TestCloud::open(&format!("sqlite:{}", file.display()), Env::system(), 1).await;
    let key = "a-key-that-nobody-guesses-5e1f";
    let pair = json!({"keypair": {"name": "mine"}});
    let made = post(&cloud, &cloud.demo, "/compute/v2.1/os-keypairs", &pair, key).await;
    let private = made.body["keypair"]["private_key"].as_str().unwrap().to_owned();
    let again = post(&cloud, &cloud.demo, "/compute/v2.1/os-keypairs", &pair, key).await;
    assert_eq!(again.body, made.body);
    let copy = dir.path().join("copy.db");
    cloud.cloud.store().vacuum_into(&copy).await.unwrap();
    let bytes = std::fs::read(&copy).unwrap();
    let line = private.lines().nth(2).unwrap();
    for secret in [key, line] {
        assert!(!bytes.windows(secret.len()).any(|window| window == secret.as_bytes()), "{secret} lies in the store");
    }
    assert!(bytes.windows(15).any(|window| window == b"idempotency_key"));
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_day_a_key_is_forgotten() {
    let clock = Arc::new(ManualClock::default());
    clock.set(Timestamp(1_800_000_000_000_000));
    let env = Env { clock: clock.clone(), ..Env::system() };
    let mut cloud = TestCloud::open("sqlite::memory:", env, 1).await;
    let made = post(&cloud, &cloud.demo, NETWORKS, &network("blue"), "k").await;
    clock.advance_ms(24 * 3600 * 1000 - 5_000);
    cloud.demo = cloud.token("demo", "demo", "demo").await;
    let again = post(&cloud, &cloud.demo, NETWORKS, &network("blue"), "k").await;
    assert_eq!(again.body, made.body);
    clock.advance_ms(6_000);
    let anew = post(&cloud, &cloud.demo, NETWORKS, &network("blue"), "k").await;
    assert_eq!((anew.status, anew.header("idempotency-replayed")), (201, None));
    assert_ne!(anew.body, made.body);
}

/// Never comes back from the commit of a network: what follows it is never done.
struct Stuck;

impl Hooks for Stuck {
    fn before_write<'a>(&'a self, _: &'a Cause) -> Waiting<'a> {
        Box::pin(async { Ok(()) })
    }

    fn commit(&self) -> Result<(), store::Error> {
        Ok(())
    }

    fn after_write<'a>(&'a self, cause: &'a Cause) -> Waiting<'a> {
        let stuck = cause.what == "network:create";
        Box::pin(async move { if stuck { std::future::pending().await } else { Ok(()) } })
    }

    fn before_read(&self) -> Waiting<'_> {
        Box::pin(async { Ok(()) })
    }
}

#[test]
fn a_crash_between_commit_and_answer_is_told_and_nothing_is_done_again() {
    let dir = tempfile::tempdir().unwrap();
    let url = format!("sqlite:{}", dir.path().join("store.db").display());
    let runtime = || tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let first = runtime();
    let (request, token) = first.block_on(async {
        let hooked = |store: store::Options| store::Options { hooks: Some(Arc::new(Stuck)), ..store };
        let cloud = Cloud::open_with(options(&url, dir.path()), Env::system(), hooked).await.unwrap();
        let cloud = TestCloud::of(cloud).await;
        let mut watch = cloud.cloud.store().watch();
        let token = cloud.demo.clone();
        let posting = tokio::spawn(async move { post(&cloud, &cloud.demo, NETWORKS, &network("blue"), "k").await });
        let record = tokio::time::timeout(Duration::from_secs(20), async {
            loop {
                let Some(store::Event::Revision(revision)) = watch.next().await else { panic!("no revision") };
                if let Some(record) = revision.changes.iter().find(|change| change.kind == "idempotency_key") {
                    let body: Value = serde_json::from_str(record.body.as_deref().unwrap()).unwrap();
                    return body["request_id"].as_str().unwrap().to_owned();
                }
            }
        });
        let request = record.await.unwrap();
        assert!(!posting.is_finished());
        (request, token)
    });
    // Everything that was in memory goes, also the request that never came back.
    first.shutdown_background();
    runtime().block_on(async {
        let cloud = Cloud::open(options(&url, dir.path()), Env::system()).await.unwrap();
        let cloud = TestCloud::of(cloud).await;
        let again = post(&cloud, &token, NETWORKS, &network("blue"), "k").await;
        let text = again.body.to_string();
        assert_eq!(again.status, 409, "{text}");
        assert!(text.contains(&request) && text.contains("not done again"), "{text}");
        let networks = cloud.get(&format!("{NETWORKS}?name=blue")).await;
        let id = networks["networks"][0]["id"].as_str().unwrap();
        assert!(text.contains(&format!("network {id}")), "{text}");
        assert_eq!(networks["networks"].as_array().map(Vec::len), Some(1));
    });
}
