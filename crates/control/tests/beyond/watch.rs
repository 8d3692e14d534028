//! The watch over HTTP: who sees what, and going on after an end of any kind.

use crate::cloud::TestCloud;
use axum::body::Body;
use base::Env;
use http_body_util::BodyExt;
use serde_json::{Value, json};
use std::time::Duration;

/// An open stream, read line by line.
struct Lines {
    body: Body,
    text: Vec<u8>,
}

impl Lines {
    async fn open(cloud: &TestCloud, token: &str, since: Option<u64>) -> Result<Lines, (u16, String)> {
        let query = since.map_or(String::new(), |since| format!("?since={since}"));
        let request = http::Request::builder().uri(format!("/nubo/v1/watch{query}")).header("x-auth-token", token);
        let answer = cloud.cloud.answer(request.body(Body::empty()).unwrap()).await;
        let (parts, mut body) = answer.into_parts();
        if parts.status != 200 {
            let text = (&mut body).collect().await.unwrap().to_bytes();
            return Err((parts.status.as_u16(), String::from_utf8_lossy(&text).into_owned()));
        }
        Ok(Lines { body, text: Vec::new() })
    }

    async fn next(&mut self) -> Option<Value> {
        let waiting = async {
            loop {
                if let Some(end) = self.text.iter().position(|byte| *byte == b'\n') {
                    let line: Vec<u8> = self.text.drain(..=end).collect();
                    return Some(serde_json::from_slice(&line).unwrap());
                }
                let frame = self.body.frame().await?.unwrap();
                self.text.extend_from_slice(&frame.into_data().unwrap());
            }
        };
        tokio::time::timeout(Duration::from_secs(20), waiting).await.expect("a line in time")
    }

    /// The events until `since` has reached a revision.
    async fn until(&mut self, rev: u64) -> Vec<Value> {
        let mut seen = Vec::new();
        loop {
            let line = self.next().await.expect("the stream goes on");
            match line["since"].as_u64() {
                Some(since) if since >= rev => return seen,
                Some(_) => {}
                None => seen.push(line),
            }
        }
    }
}

async fn made(cloud: &TestCloud, token: &str, name: &str) -> (String, u64) {
    let body = json!({"network": {"name": name}});
    let answer = cloud.call(token, "POST", "/network/v2.0/networks", &body, &[]).await;
    assert_eq!(answer.status, 201, "{}", answer.body);
    (answer.body["network"]["id"].as_str().unwrap().to_owned(), cloud.cloud.store().rev().0)
}

/// A user of another project.
async fn stranger(cloud: &TestCloud) -> String {
    let ask = async |method: &str, path: &str, body: Value| {
        let answer = cloud.call(&cloud.admin, method, &format!("/identity/v3{path}"), &body, &[]).await;
        assert!(answer.status < 300, "{path}: {}", answer.body);
        answer.body
    };
    let project = ask("POST", "/projects", json!({"project": {"name": "blue"}})).await["project"]["id"].clone();
    let user =
        ask("POST", "/users", json!({"user": {"name": "ann", "password": "secret"}})).await["user"]["id"].clone();
    let roles = ask("GET", "/roles?name=member", Value::Null).await;
    let role = roles["roles"][0]["id"].as_str().unwrap().to_owned();
    let (project, user) = (project.as_str().unwrap(), user.as_str().unwrap());
    ask("PUT", &format!("/projects/{project}/users/{user}/roles/{role}"), Value::Null).await;
    cloud.token("ann", "secret", "blue").await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_project_sees_its_own_and_an_administrator_everything() {
    let cloud = TestCloud::start(0).await;
    let ann = stranger(&cloud).await;
    cloud.settle().await;
    let since = cloud.cloud.store().rev().0;
    let mut live = Lines::open(&cloud, &ann, None).await.unwrap();
    let (theirs, _) = made(&cloud, &cloud.demo, "theirs").await;
    let (own, _) = made(&cloud, &ann, "own").await;
    let renamed = json!({"network": {"name": "renamed"}});
    cloud.call(&ann, "PUT", &format!("/network/v2.0/networks/{own}"), &renamed, &[]).await;
    cloud.call(&ann, "DELETE", &format!("/network/v2.0/networks/{own}"), &Value::Null, &[]).await;
    let end = cloud.cloud.store().rev().0;
    let of = |seen: &[Value]| -> Vec<(String, String)> {
        let networks = seen.iter().filter(|line| line["kind"] == "network");
        networks.map(|line| (line["id"].as_str().unwrap().into(), line["change"].as_str().unwrap().into())).collect()
    };
    let mine: Vec<(String, String)> =
        ["created", "updated", "deleted"].into_iter().map(|change| (own.clone(), change.to_owned())).collect();
    // Ann's live stream, ann's history, and the administrator's.
    let lived = live.until(end).await;
    assert_eq!(of(&lived), mine);
    let read = Lines::open(&cloud, &ann, Some(since)).await.unwrap().until(end).await;
    assert_eq!(read, lived);
    let all = Lines::open(&cloud, &cloud.admin, Some(since)).await.unwrap().until(end).await;
    let mut expected = vec![(theirs.clone(), "created".to_owned())];
    expected.extend(mine);
    assert_eq!(of(&all), expected);
    // From the beginning of the cloud, nothing of another project and nothing of the cloud's inside.
    let project = lived[0]["project_id"].clone();
    for line in Lines::open(&cloud, &ann, Some(0)).await.unwrap().until(end).await {
        assert_eq!(line["project_id"], project, "{line}");
        assert!(line["body"].get("provider").is_none() && line["body"].get("host").is_none(), "{line}");
    }
    let everything = Lines::open(&cloud, &cloud.admin, Some(0)).await.unwrap().until(end).await;
    let text = serde_json::to_string(&everything).unwrap();
    assert!(!text.contains("$2b$") && !text.contains("token_keys"), "a secret was told");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_goes_on_after_a_kill_of_control_without_loss_or_doubles() {
    let dir = tempfile::tempdir().unwrap();
    let url = format!("sqlite:{}", dir.path().join("store.db").display());
    let (mut since, mut seen) = (0, Vec::new());
    let mut cloud = TestCloud::open(&url, Env::system(), 0).await;
    for round in 0..4 {
        let mut lines = Lines::open(&cloud, &cloud.admin, Some(since)).await.unwrap();
        let mut rev = 0;
        for n in 0..10 {
            rev = made(&cloud, &cloud.demo, &format!("{round}-{n}")).await.1;
        }
        // What was said since the last `since` is forgotten by a reader that goes on there.
        let mut pending = Vec::new();
        let stop = if round == 3 { rev } else { rev - 5 };
        while since < stop {
            let line = lines.next().await.unwrap();
            match line["since"].as_u64() {
                Some(rev) => {
                    since = rev;
                    seen.append(&mut pending);
                }
                None => pending.push(line),
            }
        }
        if round < 3 {
            // Half a revision is lost with the process.
            lines.next().await;
        }
        // Every object of the process goes; the next starts from the file.
        drop((lines, cloud));
        cloud = TestCloud::open(&url, Env::system(), 0).await;
    }
    let told: Vec<(u64, String, String)> = seen
        .iter()
        .map(|line| {
            let text = |name: &str| line[name].as_str().unwrap().to_owned();
            (line["rev"].as_u64().unwrap(), text("kind"), text("id"))
        })
        .collect();
    let changes = cloud.cloud.store().changes(store::Rev(0), 100_000).await.unwrap();
    let expected = changes.iter().filter(|change| change.rev.0 <= since);
    let expected: Vec<_> = expected.map(|change| (change.rev.0, change.kind.to_string(), change.id.clone())).collect();
    assert_eq!(told, expected);
    assert!(told.len() > 40);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_watched_is_refused_with_words() {
    let cloud = TestCloud::start(0).await;
    cloud.settle().await;
    let refused = async |since: Option<u64>, token: &str| {
        Lines::open(&cloud, token, since).await.err().unwrap_or_else(|| panic!("{since:?} was served"))
    };
    let newest = cloud.cloud.store().rev().0;
    let (status, text) = refused(Some(newest + 100), &cloud.demo).await;
    assert!(status == 400 && text.contains(&format!("newest revision is {newest}")), "{status} {text}");
    assert_eq!(refused(None, "").await.0, 401);
    let open: Vec<Lines> = {
        let mut open = Vec::new();
        for _ in 0..16 {
            open.push(Lines::open(&cloud, &cloud.demo, None).await.unwrap());
        }
        open
    };
    let (status, text) = refused(None, &cloud.demo).await;
    assert!(status == 429 && text.contains("has 16 watches open"), "{status} {text}");
    let ann = stranger(&cloud).await;
    assert!(Lines::open(&cloud, &ann, None).await.is_ok(), "another project has places of its own");
    drop(open);
    assert!(Lines::open(&cloud, &cloud.demo, None).await.is_ok(), "a place is given back");
    cloud.cloud.store().trim_history(store::Rev(2)).await.unwrap();
    let (status, text) = refused(Some(1), &cloud.demo).await;
    assert!(status == 410 && text.contains("the oldest that can be asked for is 2"), "{status} {text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_ends_when_its_token_is_revoked() {
    let cloud = TestCloud::start(0).await;
    let ann = stranger(&cloud).await;
    let (_, rev) = made(&cloud, &ann, "one").await;
    let mut lines = Lines::open(&cloud, &ann, Some(rev - 1)).await.unwrap();
    lines.until(rev).await;
    let headers = [("x-subject-token", ann.as_str())];
    let revoked = cloud.call(&cloud.admin, "DELETE", "/identity/v3/auth/tokens", &Value::Null, &headers).await;
    assert_eq!(revoked.status, 204, "{}", revoked.body);
    // The next commit wakes it, if the revocation itself was too quick.
    made(&cloud, &cloud.demo, "two").await;
    let mut last = lines.next().await.unwrap();
    while last.get("end").is_none() {
        last = lines.next().await.unwrap();
    }
    assert_eq!(last["end"], "token", "{last}");
    assert!(last["since"].as_u64().unwrap() >= rev);
    assert!(lines.next().await.is_none());
}
