//! Sharing images between projects.

use super::*;
use serde_json::json;

#[tokio::test]
async fn an_image_is_shared_accepted_and_taken_back() {
    let world = World::new().await;
    let id = world.raw_image(OWNER).await;
    let path = format!("/v2/images/{id}");
    let members = format!("{path}/members");
    world.get(OTHER, &path).await.expect(404);
    let added = world.send(OWNER, "POST", &members, json!({"member": "blue"})).await.expect(200).json();
    assert_eq!(
        (&added["member_id"], &added["image_id"], &added["status"], &added["schema"]),
        (&json!("blue"), &json!(id), &json!("pending"), &json!("/v2/schemas/member"))
    );
    world.send(OWNER, "POST", &members, json!({"member": "blue"})).await.refuses(409, "is duplicated");
    world.send(OWNER, "POST", &members, json!({"member": "green"})).await.expect(200);
    world.get(OTHER, &path).await.expect(200);
    let seen = world.get(OTHER, &members).await.expect(200).json();
    assert_eq!(seen["members"].as_array().unwrap().len(), 1, "a member sees itself alone");
    assert_eq!(world.get(OWNER, &members).await.expect(200).json()["members"].as_array().unwrap().len(), 2);
    world.get(OTHER, &format!("{members}/green")).await.expect(404);
    world.get(OTHER, &format!("{members}/blue")).await.expect(200);
    let accept = json!({"status": "accepted"});
    world.send(OWNER, "PUT", &format!("{members}/blue"), accept.clone()).await.refuses(403, "modify_member");
    let accepted = world.send(OTHER, "PUT", &format!("{members}/blue"), accept).await.expect(200).json();
    assert_eq!(accepted["status"], "accepted");
    world.send(OTHER, "PUT", &format!("{members}/blue"), json!({"status": "maybe"})).await.refuses(400, "Status must");
    world.send(OTHER, "PUT", &format!("{members}/blue"), json!({})).await.refuses(400, "not specified");
    world.send(OTHER, "POST", &members, json!({"member": "violet"})).await.refuses(403, "add_member");
    world.delete(OTHER, &format!("{members}/blue")).await.refuses(403, "delete_member");
    world.delete(OTHER, &path).await.refuses(403, "delete_image");
    world.delete(OWNER, &format!("{members}/blue")).await.expect(204);
    world.delete(OWNER, &format!("{members}/blue")).await.expect(404);
    world.get(OTHER, &path).await.expect(404);
}

#[tokio::test]
async fn only_shared_images_have_members_and_not_too_many() {
    let world = World::new().await;
    let private = world.image(OWNER, json!({"visibility": "private"})).await;
    let members = format!("/v2/images/{private}/members");
    world.send(OWNER, "POST", &members, json!({"member": "blue"})).await.refuses(403, "Only shared images");
    world.get(OWNER, &members).await.refuses(403, "Only shared images");
    let shared = world.raw_image(OWNER).await;
    let members = format!("/v2/images/{shared}/members");
    for (body, because) in
        [(json!({}), "not specified"), (json!({"member": ""}), "can't be empty"), (json!({"member": 7}), "")]
    {
        world.send(OWNER, "POST", &members, body).await.refuses(400, because);
    }
    for n in 0..128 {
        world.send(OWNER, "POST", &members, json!({"member": format!("m{n}")})).await.expect(200);
    }
    world.send(OWNER, "POST", &members, json!({"member": "more"})).await.refuses(413, "maximum 128");
}
