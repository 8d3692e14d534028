//! What is on its way says for what it waits, since when and until when; afterwards it is in ERROR and says what helps.

use crate::cloud::{TestCloud, options};
use base::Env;
use base::clock::ManualClock;
use futures::StreamExt;
use serde_json::{Value, json};
use simhost::SimHost;
use std::sync::{Arc, Mutex};
use std::time::Duration;

const NULL: Value = Value::Null;
/// Longer than any test: what a host does then never comes.
const NEVER_MS: u64 = 1_000_000_000;

struct Lab {
    cloud: Arc<TestCloud>,
    clock: Arc<ManualClock>,
    env: Env,
    /// The administrator's, drawn anew where time has passed.
    token: Mutex<String>,
    _folder: tempfile::TempDir,
}

impl Lab {
    async fn new() -> Lab {
        let clock = Arc::new(ManualClock::default());
        let env = Env { clock: clock.clone(), ..Env::system() };
        let folder = tempfile::tempdir().unwrap();
        let options = options("sqlite::memory:", folder.path());
        let cloud = Arc::new(TestCloud::open_with(options, env.clone(), 0).await);
        let token = Mutex::new(cloud.admin.clone());
        Lab { cloud, clock, env, token, _folder: folder }
    }

    async fn advance_ms(&self, ms: i64) {
        self.clock.advance_ms(ms);
        let token = self.cloud.token("admin", "admin", "demo").await;
        *self.token.lock().unwrap() = token;
    }

    async fn get(&self, path: &str) -> Value {
        let token = self.token.lock().unwrap().clone();
        self.cloud.call(&token, "GET", path, &NULL, &[]).await.body
    }

    async fn make(&self, path: &str, key: &str, body: Value) -> String {
        let answer = self.cloud.call(&self.cloud.admin, "POST", path, &json!({ key: body }), &[]).await;
        assert!((200..300).contains(&answer.status), "{path}: {}", answer.body);
        answer.body[key]["id"].as_str().unwrap_or_default().to_owned()
    }

    async fn explained(&self, kind: &str, id: &str) -> Value {
        self.get(&format!("/nubo/v1/explain/{kind}/{id}")).await["explanation"].clone()
    }

    async fn until(&self, kind: &str, id: &str, holds: impl Fn(&Value) -> bool) -> Value {
        for _ in 0..2000 {
            let explained = self.explained(kind, id).await;
            if holds(&explained) {
                return explained;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        panic!("{kind} {id}: {}", self.explained(kind, id).await);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_kind_of_object_on_its_way_says_all_five_things_and_ends_in_error() {
    let lab = Lab::new().await;
    let image = lab.cloud.image().await;
    let host = Arc::new(SimHost::new(lab.env.clone(), simhost::Options::new("sim1")));
    host.set_delay_ms(NEVER_MS);
    let session = tokio::spawn(control::host(host.clone(), lab.cloud.cloud.link()));
    lab.cloud.cloud.wait_hosts(1).await;
    let network = lab.make("/network/v2.0/networks", "network", json!({"name": "n"})).await;
    let subnet = json!({"network_id": network, "cidr": "10.9.0.0/24", "ip_version": 4});
    lab.make("/network/v2.0/subnets", "subnet", subnet).await;
    let flavor =
        lab.make("/compute/v2.1/flavors", "flavor", json!({"name": "f", "ram": 64, "vcpus": 1, "disk": 1})).await;
    let server = json!({"name": "s", "flavorRef": flavor, "imageRef": image, "networks": [{"uuid": network}]});
    let server = lab.make("/compute/v2.1/servers", "server", server).await;
    let ports = lab.get(&format!("/network/v2.0/ports?device_id={server}")).await;
    let port = ports["ports"][0]["id"].as_str().unwrap().to_owned();
    // An upload whose client never ends.
    let body = json!({"name": "slow", "disk_format": "raw", "container_format": "bare"});
    let slow = lab.cloud.call(&lab.cloud.admin, "POST", "/image/v2/images", &body, &[]).await;
    let slow = slow.body["id"].as_str().unwrap().to_owned();
    let (cloud, path) = (lab.cloud.clone(), format!("/image/v2/images/{slow}/file"));
    let upload = tokio::spawn(async move {
        let first = futures::stream::once(async { Ok::<_, std::io::Error>(vec![0u8; 512]) });
        let request = http::Request::builder().method("PUT").uri(path);
        let request = request.header("x-auth-token", &cloud.admin).header("content-type", "application/octet-stream");
        let body = axum::body::Body::from_stream(first.chain(futures::stream::pending()));
        cloud.raw(request.body(body).unwrap()).await.status
    });
    let waits = |explained: &Value| explained["deadline"].is_string();
    for (kind, id, on, state, seconds) in [
        ("server", &server, "host sim1", "BUILD", 1800),
        ("port", &port, "host sim1 to wire it", "", 600),
        ("image", &slow, "the client that sends its bytes", "saving", 86_400),
    ] {
        let told = lab.until(kind, id, waits).await;
        for key in ["waiting_on", "since", "deadline", "attempts", "last_error"] {
            assert!(told.get(key).is_some(), "{kind} does not say {key}: {told}");
        }
        assert!(told["waiting_on"].as_str().unwrap().starts_with(on), "{told}");
        assert!(told["state"].as_str().unwrap().starts_with(state), "{told}");
        let at = |key: &str| base::Timestamp::parse(told[key].as_str().unwrap()).unwrap();
        assert_eq!(at("deadline").ms_since(at("since")), seconds * 1000, "{told}");
    }
    lab.advance_ms(600_000).await;
    let told = lab.until("port", &port, |told| told["state"] == "ERROR").await;
    let fault = told["details"]["fault"]["message"].as_str().unwrap();
    assert!(fault.starts_with("Wiring the port took longer than 10 minutes: it waits for "), "{told}");
    let shown = lab.get(&format!("/network/v2.0/ports/{port}")).await;
    assert_eq!(shown["port"]["status"], "ERROR");
    lab.advance_ms(86_400_000).await;
    lab.until("server", &server, |told| told["state"].as_str().unwrap().starts_with("ERROR")).await;
    let told = lab.until("image", &slow, |told| told["state"] == "queued").await;
    assert!(told["why"].as_str().unwrap().contains("Taking in the image took longer than 24 hours"), "{told}");
    // All of it leaves ERROR by itself.
    host.set_delay_ms(0);
    lab.advance_ms(NEVER_MS as i64).await;
    host.tick();
    lab.until("server", &server, |told| told["state"].as_str().unwrap().starts_with("ACTIVE")).await;
    lab.until("port", &port, |told| told["state"] == "ACTIVE" && told.get("deadline").is_none()).await;
    upload.abort();
    session.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deadline_that_the_operator_sets_holds_for_every_service() {
    let clock = Arc::new(ManualClock::default());
    let env = Env { clock: clock.clone(), ..Env::system() };
    let folder = tempfile::tempdir().unwrap();
    let mut options = options("sqlite::memory:", folder.path());
    options.deadlines.read("router=30").unwrap();
    let cloud = TestCloud::open_with(options, env, 0).await;
    let made = |answer: crate::cloud::Answer, key: &str| answer.body[key]["id"].as_str().unwrap().to_owned();
    let network = cloud.call(&cloud.demo, "POST", "/network/v2.0/networks", &json!({"network": {}}), &[]).await;
    let subnet = json!({"subnet": {"network_id": made(network, "network"), "cidr": "10.8.0.0/24", "ip_version": 4}});
    let subnet = made(cloud.call(&cloud.demo, "POST", "/network/v2.0/subnets", &subnet, &[]).await, "subnet");
    let router = cloud.call(&cloud.demo, "POST", "/network/v2.0/routers", &json!({"router": {}}), &[]).await;
    let router = made(router, "router");
    let path = format!("/network/v2.0/routers/{router}");
    let joined = json!({"subnet_id": subnet});
    let joined = cloud.call(&cloud.demo, "PUT", &format!("{path}/add_router_interface"), &joined, &[]).await;
    assert_eq!(joined.status, 200, "{}", joined.body);
    for (ms, status) in [(29_999, "ALLOCATING"), (1, "ERROR")] {
        clock.advance_ms(ms);
        assert_eq!(cloud.call(&cloud.demo, "GET", &path, &NULL, &[]).await.body["router"]["status"], status);
    }
    let told = cloud.call(&cloud.demo, "GET", &format!("/nubo/v1/explain/router/{router}"), &NULL, &[]).await.body;
    assert_eq!(
        told["explanation"]["details"]["fault"]["message"],
        "Bringing up the router took longer than 30 seconds: it waits for any host that answers. It goes on by itself \
         when a host answers."
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_undo_brings_back_is_awaited_anew() {
    let clock = Arc::new(ManualClock::default());
    let env = Env { clock: clock.clone(), ..Env::system() };
    let folder = tempfile::tempdir().unwrap();
    let mut options = options("sqlite::memory:", folder.path());
    options.deadlines.read("router=30").unwrap();
    let cloud = TestCloud::open_with(options, env, 0).await;
    let ask = async |method: &str, path: &str, body: Value| {
        let answer = cloud.call(&cloud.demo, method, path, &body, &[]).await;
        assert!((200..300).contains(&answer.status), "{method} {path}: {} {}", answer.status, answer.body);
        answer
    };
    let id = |answer: &crate::cloud::Answer, key: &str| answer.body[key]["id"].as_str().unwrap().to_owned();
    let network = id(&ask("POST", "/network/v2.0/networks", json!({"network": {}})).await, "network");
    let subnet = json!({"subnet": {"network_id": network, "cidr": "10.8.0.0/24", "ip_version": 4}});
    let joins = json!({"subnet_id": id(&ask("POST", "/network/v2.0/subnets", subnet).await, "subnet")});
    let router = ask("POST", "/network/v2.0/routers", json!({"router": {"name": "r"}})).await;
    let path = format!("/network/v2.0/routers/{}", id(&router, "router"));
    ask("PUT", &format!("{path}/add_router_interface"), joins.clone()).await;
    let renamed = ask("PUT", &path, json!({"router": {"name": "s"}})).await;
    let parted = ask("PUT", &format!("{path}/remove_router_interface"), joins).await;
    let deleted = ask("DELETE", &path, NULL).await;
    // Long after, all of it comes back, the last thing first, and what a host must do is awaited as at its first start.
    let undo = async |request: crate::cloud::Answer, expected: [&str; 3]| {
        clock.advance_ms(100_000);
        ask("POST", &format!("/nubo/v1/undo/{}", request.request_id()), NULL).await;
        for (ms, expected) in [0, 29_999, 1].into_iter().zip(expected) {
            clock.advance_ms(ms);
            assert_eq!(ask("GET", &path, NULL).await.body["router"]["status"], expected, "{ms}");
        }
    };
    let awaited = ["ALLOCATING", "ALLOCATING", "ERROR"];
    undo(deleted, ["ACTIVE"; 3]).await;
    undo(parted, awaited).await;
    undo(ask("PUT", &path, json!({"router": {"admin_state_up": false}})).await, awaited).await;
    // A name asks nothing of a host.
    undo(renamed, ["ERROR"; 3]).await;
    assert_eq!(ask("GET", &path, NULL).await.body["router"]["name"], "r");
}
