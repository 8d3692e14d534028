//! The order of `[auth] methods`, which a taken over Keystone brings along.

use super::*;
use crate::token::methods::Order;

fn order() -> Order {
    Order::parse(&["application_credential", "token", "totp", "password"]).unwrap()
}

async fn opened(cloud: &Cloud, methods: Order) -> Arc<Identity> {
    let (store, env) = (cloud.identity.store.clone(), cloud.identity.env.clone());
    Identity::open(store, env, Options { methods, ..Options::default() }).await.unwrap()
}

#[tokio::test]
async fn tokens_are_made_and_read_in_the_order_of_the_setting() {
    let store = store::Options { kinds: kinds(), ..store::Options::memory() };
    let cloud = Cloud::on(store, Options { methods: order(), ..Options::default() }).await;
    let shown = cloud.validate(&cloud.admin).await;
    assert_eq!(shown.body["token"]["methods"], json!(["password"]));
    let body = json!({"auth": {"identity": {"methods": ["token"], "token": {"id": cloud.admin}}}});
    let again = cloud.ask("POST", "/v3/auth/tokens", &[], Some(body)).await;
    assert_eq!(again.body["token"]["methods"], json!(["token", "password"]));
    let keys = cloud.identity.model().keys.clone();
    let (message, _) = token::fernet::open(&keys.keys, &again.token).unwrap();
    let read = |order| token::payload::Payload::unpack(&message, order).unwrap().methods.names();
    assert_eq!(read(order()), ["token", "password"]);
    // The bits 2 and 8: as a Keystone with this setting has them.
    assert_eq!(read(Order::default()), ["oauth1", "password"]);
}

#[tokio::test]
async fn a_new_order_ends_the_tokens_of_before_and_the_same_one_none() {
    let cloud = Cloud::new().await;
    opened(&cloud, Order::default()).await;
    cloud.identity.sync().await.unwrap();
    assert!(cloud.identity.verify_now(&cloud.admin).is_ok());
    let before = cloud.identity.export_keys().await.unwrap();
    let other = opened(&cloud, order()).await;
    assert!(other.verify_now(&cloud.admin).is_err(), "it would say that it was made by oauth1");
    assert!(other.export_keys().await.unwrap().values().all(|key| !before.values().any(|known| known == key)));
    // A process that has been running goes by what the keys say, and not by its own setting.
    cloud.identity.sync().await.unwrap();
    assert!(cloud.identity.verify_now(&cloud.admin).is_err());
    let token = cloud.login("admin", "secret", json!({"project": project_named("admin")})).await.token;
    assert_eq!(other.verify_now(&token).unwrap().credentials.user_name, "admin");
    assert_eq!(other.model().keys.open(&token).unwrap().0.methods.names(), ["password"]);
    // Keys that rotate or are taken over keep the order.
    let cause = || store::Cause::new("test", "", "keys");
    other.rotate_keys(cause()).await.unwrap();
    let key = token::fernet::Key::generate(&*base::Env::seeded(5).0.random);
    other.import_keys(cause(), [(1, key)].into()).await.unwrap();
    assert_eq!(other.model().keys.methods, order());
    assert_eq!(opened(&cloud, order()).await.verify_now(&token).unwrap().credentials.user_name, "admin");
}
