//! Nothing is on its way for ever: what a host does not bring about in time is in ERROR, says why, and leaves it.

use crate::cloud::*;
use agent_api::{PortObserved, RouterObserved};
use base::{HostName, Result, ServerId, Timestamp};
use contract::{Asking, Explain, Guests, Hosts, Running};
use serde_json::{Value, json};
use std::sync::{Arc, Mutex};
use store::Reader;

/// One server, and one host that may fall silent.
struct Around {
    running: Mutex<Option<Running>>,
    alive: Mutex<bool>,
}

impl Guests for Around {
    fn running(&self, _: &mut Reader, _: &ServerId) -> Result<Option<Running>> {
        Ok(self.running.lock().unwrap().clone())
    }
}

impl Hosts for Around {
    fn alive(&self) -> Vec<HostName> {
        vec!["host-a".into()]
    }

    fn is_alive(&self, _: &HostName) -> bool {
        *self.alive.lock().unwrap()
    }

    fn last_seen(&self, _: &HostName) -> Option<Timestamp> {
        Some(Timestamp(0))
    }
}

async fn world() -> (Cloud, Arc<Around>) {
    let cloud = Cloud::new().await;
    let running = Some(Running { since: cloud.clock_now(), ..Running::default() });
    let around = Arc::new(Around { running: Mutex::new(running), alive: Mutex::new(true) });
    let hosts: Arc<dyn Hosts> = around.clone();
    let guests: Arc<dyn Guests> = around.clone();
    cloud.net.meet(Arc::downgrade(&hosts), Arc::downgrade(&guests));
    (cloud, around)
}

async fn explained(cloud: &Cloud, admin: bool, kind: &'static str, id: &Value) -> Value {
    let (net, id) = (cloud.net.clone(), text(id).to_owned());
    let asking = Asking { project_id: Some("demo".into()), admin };
    let found = cloud.store.read(move |reader| net.explain(reader, &asking, kind, &id)).await.unwrap();
    serde_json::to_value(found).unwrap()
}

/// State, whether it waits, and whether a fault is told.
async fn state(cloud: &Cloud, kind: &'static str, id: &Value) -> (String, bool, bool) {
    let shown = text(&cloud.show(DEMO, &format!("{kind}s"), id).await["status"]).to_owned();
    let explained = explained(cloud, false, kind, id).await;
    assert_eq!(explained["state"], json!(shown), "what is shown and what is explained are one");
    (shown, explained.get("deadline").is_some(), explained["details"].get("fault").is_some())
}

fn is(state: &str, waits: bool, late: bool) -> (String, bool, bool) {
    (state.to_owned(), waits, late)
}

#[tokio::test]
async fn a_port_that_nobody_wires_is_in_error_until_it_is_wired() {
    let (cloud, around) = world().await;
    let (network, _) = cloud.net_with(DEMO, "10.0.0.0/24").await;
    let port = cloud.attach(DEMO, "server-1", on(&network), &[]).await.unwrap().remove(0).id;
    let id = json!(port);
    let seen = |up| vec![PortObserved { id: port.clone(), up, fault: None }];
    assert_eq!(state(&cloud, "port", &id).await, is("DOWN", false, false), "bound nowhere, it waits for nothing");
    cloud.bind("server-1", Some("host-a")).await;
    assert_eq!(state(&cloud, "port", &id).await, is("BUILD", true, false));
    cloud.clock.advance_ms(599_999);
    // A name gives it no more time.
    cloud.change(DEMO, "ports", &id, json!({"name": "mine"})).await;
    assert_eq!(state(&cloud, "port", &id).await, is("BUILD", true, false));
    cloud.clock.advance_ms(1);
    assert_eq!(state(&cloud, "port", &id).await, is("ERROR", true, true));
    let told = explained(&cloud, false, "port", &id).await;
    assert_eq!(
        told["why"],
        "Wiring the port took longer than 10 minutes: it waits for its host to wire it. It is still tried and leaves \
         ERROR when it is wired; a hard reboot of its server wires it anew."
    );
    *around.alive.lock().unwrap() = false;
    let told = explained(&cloud, true, "port", &id).await;
    let silent = "it waits for host host-a, which has not answered since 1970-01-01T00:00:00Z. It goes on by itself \
                  when its host answers again.";
    assert!(text(&told["why"]).ends_with(silent), "{told}");
    *around.alive.lock().unwrap() = true;
    cloud.ports_seen("host-a", seen(true)).await;
    assert_eq!(state(&cloud, "port", &id).await, is("ACTIVE", false, false));
    // What was up for long and goes down has its whole time.
    cloud.clock.advance_ms(3_600_000);
    cloud.ports_seen("host-a", seen(false)).await;
    assert_eq!(state(&cloud, "port", &id).await, is("DOWN", true, false));
    cloud.clock.advance_ms(600_000);
    cloud.ports_seen("host-a", seen(false)).await;
    assert_eq!(state(&cloud, "port", &id).await, is("ERROR", true, true));
    // A server that is stopped needs no wire.
    let stopped = around.running.lock().unwrap().take();
    assert_eq!(state(&cloud, "port", &id).await, is("DOWN", false, false));
    assert_eq!(explained(&cloud, false, "port", &id).await["why"], "Its server does not run.");
    let again = Running { since: cloud.clock_now(), attempts: 4, last_error: Some("The disk is full.".into()) };
    *around.running.lock().unwrap() = Some(again);
    let told = explained(&cloud, false, "port", &id).await;
    assert_eq!(
        (&told["state"], &told["attempts"], &told["last_error"]),
        (&json!("DOWN"), &json!(4), &json!("The disk is full."))
    );
    *around.running.lock().unwrap() = stopped;
    cloud.change(DEMO, "ports", &id, json!({"admin_state_up": false})).await;
    assert_eq!(state(&cloud, "port", &id).await, is("DOWN", false, false), "switched off, it waits for nothing");
    cloud.change(DEMO, "ports", &id, json!({"admin_state_up": true})).await;
    assert_eq!(state(&cloud, "port", &id).await, is("DOWN", true, false), "switched on, it has its whole time");
}

#[tokio::test]
async fn a_port_that_is_bound_by_hand_waits_for_nothing() {
    let (cloud, _around) = world().await;
    let (network, _) = cloud.net_with(ADMIN, "10.0.0.0/24").await;
    let port = cloud.make(ADMIN, "ports", json!({"network_id": network["id"], "binding:host_id": "host-a"})).await;
    assert_eq!(port["status"], "DOWN");
}

#[tokio::test]
async fn a_router_and_its_floating_addresses_have_a_deadline_each() {
    let (cloud, _around) = world().await;
    let (public, _) = cloud.public().await;
    let (network, subnet) = cloud.net_with(DEMO, "10.0.0.0/24").await;
    let port = cloud.make(DEMO, "ports", json!({"network_id": network["id"]})).await;
    let router = cloud.make(DEMO, "routers", json!({"name": "r"})).await;
    assert_eq!(state(&cloud, "router", &router["id"]).await, is("ACTIVE", false, false), "it joins nothing");
    cloud.clock.advance_ms(3_600_000);
    let (status, _) = cloud
        .ask(
            DEMO,
            "PUT",
            &format!("/v2.0/routers/{}/add_router_interface", text(&router["id"])),
            json!({"subnet_id": subnet["id"]}),
        )
        .await;
    assert_eq!((status, state(&cloud, "router", &router["id"]).await), (200, is("ALLOCATING", true, false)));
    assert_eq!(explained(&cloud, false, "router", &router["id"]).await["waiting_on"], "any host that answers");
    cloud.clock.advance_ms(300_000);
    let gateway = json!({"external_gateway_info": {"network_id": public["id"]}});
    assert_eq!(cloud.change(DEMO, "routers", &router["id"], gateway).await.0, 200);
    let one =
        cloud.make(DEMO, "floatingips", json!({"floating_network_id": public["id"], "port_id": port["id"]})).await;
    assert_eq!(state(&cloud, "floatingip", &one["id"]).await, is("DOWN", true, false));
    cloud.clock.advance_ms(300_000);
    // The gateway gave the router no more time; the address has its own.
    assert_eq!(state(&cloud, "router", &router["id"]).await, is("ERROR", true, true));
    assert_eq!(state(&cloud, "floatingip", &one["id"]).await, is("DOWN", true, false));
    let told = explained(&cloud, false, "router", &router["id"]).await;
    assert!(text(&told["why"]).ends_with("It goes on by itself when a host answers."), "{told}");
    let inside = cloud.get(DEMO, "/v2.0/ports?device_owner=network:router_interface").await["ports"][0].clone();
    assert_eq!(state(&cloud, "port", &inside["id"]).await, is("ERROR", true, true), "it falls with its router");
    cloud.clock.advance_ms(300_000);
    assert_eq!(state(&cloud, "floatingip", &one["id"]).await, is("ERROR", true, true));
    cloud.settle().await;
    let id = text(&router["id"]);
    let seen = |up, floating: &[&Value], fault: Option<&str>| {
        let floating = floating.iter().map(|id| text(id).into()).collect();
        vec![RouterObserved { id: id.into(), up, floating, fault: fault.map(str::to_owned), attempts: 2 }]
    };
    cloud.routers_seen("host-a", seen(true, &[&one["id"]], None)).await;
    assert_eq!(state(&cloud, "router", &router["id"]).await, is("ACTIVE", false, false));
    assert_eq!(state(&cloud, "floatingip", &one["id"]).await, is("ACTIVE", false, false));
    assert_eq!(state(&cloud, "port", &inside["id"]).await, is("ACTIVE", false, false));
    // One that is lost has its whole time again, whatever happens beside it.
    cloud.clock.advance_ms(3_600_000);
    cloud.routers_seen("host-a", seen(true, &[], None)).await;
    assert_eq!(state(&cloud, "floatingip", &one["id"]).await, is("DOWN", true, false));
    cloud.clock.advance_ms(600_000);
    cloud.routers_seen("host-a", seen(true, &[&json!("other")], None)).await;
    assert_eq!(state(&cloud, "floatingip", &one["id"]).await, is("ERROR", true, true));
    // A host that says why is believed at once, and the deadline runs all the same.
    cloud.routers_seen("host-a", seen(false, &[], Some("no room"))).await;
    let told = explained(&cloud, true, "router", &router["id"]).await;
    assert_eq!(
        (&told["state"], &told["attempts"], &told["last_error"]),
        (&json!("ERROR"), &json!(2), &json!("no room"))
    );
    assert_eq!(told["why"], "The host could not bring it up: no room");
    cloud.change(DEMO, "routers", &router["id"], json!({"admin_state_up": false})).await;
    assert_eq!(state(&cloud, "router", &router["id"]).await, is("ACTIVE", false, false));
    assert_eq!(state(&cloud, "floatingip", &one["id"]).await.1, false);
    cloud.change(DEMO, "routers", &router["id"], json!({"admin_state_up": true})).await;
    cloud.routers_seen("host-a", seen(false, &[], None)).await;
    assert_eq!(state(&cloud, "router", &router["id"]).await, is("ALLOCATING", true, false), "it has its whole time");
}

/// What is asked for a moment of the past has the state that it had then.
#[tokio::test]
async fn the_past_knows_no_deadline_that_had_not_passed_then() {
    let (cloud, _around) = world().await;
    let (network, _) = cloud.net_with(DEMO, "10.0.0.0/24").await;
    let id = json!(cloud.attach(DEMO, "server-1", on(&network), &[]).await.unwrap().remove(0).id);
    cloud.bind("server-1", Some("host-a")).await;
    let then = cloud.clock_now();
    cloud.clock.advance_ms(600_000);
    let (net, port) = (cloud.net.clone(), text(&id).to_owned());
    let states = cloud.store.read(move |reader| {
        let asking = Asking { project_id: None, admin: true };
        let now = net.explain(reader, &asking, "port", &port)?.unwrap().state;
        let before = reader.at(store::AsOf::Time(then), |reader| net.explain(reader, &asking, "port", &port))?;
        Ok((before.unwrap().state, now))
    });
    assert_eq!(states.await.unwrap(), ("BUILD".to_owned(), "ERROR".to_owned()));
}
