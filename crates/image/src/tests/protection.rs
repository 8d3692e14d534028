//! Protected custom properties, as clients meet them.

use super::*;
use crate::protection::{Format, Protections};
use contract::Images;
use serde_json::json;

const FILE: &str = "
[^x_billing]
create = admin
read = admin, member
update = admin
delete = admin

[^x_secret]
create = member
read = admin
update = admin
delete = !

[.*]
create = @
read = @
update = @
delete = @
";

async fn world() -> World {
    World::with(|options| {
        let policy = Arc::new(Policy::new(crate::RULES, None).unwrap());
        options.protections = Arc::new(Protections::read(FILE, Format::Roles, policy).unwrap());
    })
    .await
}

fn patch(op: &str, name: &str, value: &str) -> Value {
    match op {
        "remove" => json!([{"op": op, "path": format!("/{name}")}]),
        _ => json!([{"op": op, "path": format!("/{name}"), "value": value}]),
    }
}

#[tokio::test]
async fn what_is_protected_is_made_seen_changed_and_removed_by_its_holders_alone() {
    let world = world().await;
    let create = async |token: &str, attributes: Value| world.send(token, "POST", "/v2/images", attributes).await;
    create(OWNER, json!({"x_billing": "1"})).await.refuses(403, "'x_billing' is protected: you may not create it");
    let made = create(OWNER, json!({"name": "n", "mine": "1", "x_secret": "s"})).await.expect(201).json();
    assert_eq!((&made["mine"], made.get("x_secret")), (&json!("1"), None), "made, and not shown to who made it");
    let id = made["id"].as_str().unwrap().to_owned();
    assert_eq!(world.show(&id).await["x_secret"], "s", "an administrator sees it");

    for (token, op, name, status, why) in [
        (OWNER, "add", "x_billing", 403, "create"),
        (OWNER, "replace", "x_billing", 409, "does not exist"),
        (ADMIN, "add", "x_billing", 200, ""),
        (OWNER, "add", "x_billing", 403, "update"),
        (OWNER, "replace", "x_billing", 403, "update"),
        (OWNER, "remove", "x_billing", 403, "delete"),
        // What cannot be seen is not there, and may be made where making is allowed.
        (OWNER, "replace", "x_secret", 409, "does not exist"),
        (OWNER, "remove", "x_secret", 409, "does not exist"),
        (ADMIN, "remove", "x_secret", 403, "delete"),
        (ADMIN, "replace", "x_billing", 200, ""),
        (OWNER, "replace", "mine", 200, ""),
        (OWNER, "replace", "name", 200, ""),
    ] {
        let answer = world.patch(token, &id, patch(op, name, "2")).await;
        match status {
            200 => drop(answer.expect(200)),
            _ => answer.refuses(status, why),
        }
    }
    let seen = |view: &Value| ["x_billing", "x_secret", "mine"].map(|name| view.get(name).cloned());
    let path = format!("/v2/images/{id}");
    let shown = world.get(OWNER, &path).await.expect(200).json();
    assert_eq!(seen(&shown), [Some(json!("2")), None, Some(json!("2"))]);
    assert_eq!(seen(&world.get(READER, &path).await.expect(200).json()), [None, None, Some(json!("2"))]);
    let listed = world.get(READER, "/v2/images").await.expect(200).json();
    assert_eq!(seen(&listed["images"][0]), [None, None, Some(json!("2"))]);
    for (token, filter, count) in
        [(OWNER, "x_billing=2", 1), (READER, "x_billing=2", 0), (OWNER, "x_secret=s", 0), (ADMIN, "x_secret=s", 1)]
    {
        let found = world.get(token, &format!("/v2/images?{filter}")).await.expect(200).json();
        assert_eq!(found["images"].as_array().unwrap().len(), count, "{token} {filter}");
    }
}

#[tokio::test]
async fn other_services_ask_before_they_give_an_image_what_a_user_names() {
    let world = world().await;
    let caller = PlainTokens.verify(OWNER).await.unwrap();
    assert!(world.service.may_create(&caller, "mine").is_ok());
    assert_eq!(world.service.may_create(&caller, "x_billing").unwrap_err().kind, base::FaultKind::Forbidden);
}
