//! The events of changes and logins, as the log gets them.

use super::*;
use std::io::Write;
use std::sync::Mutex;

#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn changes_and_logins_are_events_without_secrets() {
    let cloud = Cloud::new().await;
    let lines = Lines::default();
    let writer = lines.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::DEBUG)
        .with_ansi(false)
        .with_writer(move || writer.clone())
        .finish();
    // Of a single listener `tracing` asks only the thread on which an event first happens whether anybody wants it, and
    // that may be another test's; of two it asks both.
    let _second = tracing::Dispatch::new(tracing::subscriber::NoSubscriber::default());
    let listening = tracing::subscriber::set_default(subscriber);
    let user = cloud.made("/v3/users", "user", json!({"name": "audited", "password": "hush-hush"})).await;
    let path = format!("/v3/users/{user}");
    assert_eq!(cloud.patch(&format!("{path}?dry_run=true"), json!({"user": {"enabled": false}})).await.status, 200);
    assert_eq!(cloud.patch(&path, json!({"user": {"domain_id": "x"}})).await.status, 400);
    assert_eq!(cloud.login("audited", "hush-hush", Value::Null).await.status, 201);
    assert_eq!(cloud.login("audited", "wrong-wrong", Value::Null).await.status, 401);
    assert_eq!(cloud.get(&path).await.status, 200);
    assert_eq!(cloud.delete(&path).await, 204);
    drop(listening);
    let text = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
    assert!(!text.contains("hush-hush") && !text.contains("wrong-wrong") && !text.contains(&cloud.admin));
    let events: Vec<Value> = text
        .lines()
        .filter(|line| line.contains(" audit: "))
        .map(|line| serde_json::from_str(&line[line.find('{').unwrap()..]).unwrap())
        .collect();
    let seen: Vec<_> = events
        .iter()
        .map(|event| (event["action"].as_str().unwrap(), event["outcome"].as_str().unwrap(), &event["target"]["id"]))
        .collect();
    let (id, none) = (json!(user), json!(""));
    assert_eq!(seen, [
        ("create.users", "success", &id),
        ("update.users", "failure", &id),
        ("authenticate", "success", &id),
        ("authenticate", "failure", &none),
        ("delete.users", "success", &id),
    ]);
    let admin = cloud.id("users", "admin").await;
    assert_eq!((&events[0]["initiator"]["id"], &events[2]["initiator"]["id"]), (&json!(admin), &id));
    assert_eq!(events[1]["reason"], json!({"reasonType": "HTTP", "reasonCode": "400"}));
    assert_eq!(events[0]["typeURI"], "http://schemas.dmtf.org/cloud/audit/1.0/event");
}
