//! Whatever a client writes into a query, a patch or a body, it gets an answer and no panic.

use super::*;
use proptest::prelude::*;
use serde_json::json;

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(|b| json!(b)),
        any::<i64>().prop_map(|n| json!(n)),
        any::<f64>().prop_map(|n| json!(n)),
        ".{0,20}".prop_map(|text| json!(text)),
        prop_oneof![Just("raw"), Just("public"), Just("shared")].prop_map(|text| json!(text)),
    ];
    leaf.prop_recursive(2, 8, 4, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::Array),
            proptest::collection::btree_map(".{0,8}", inner, 0..4).prop_map(|map| json!(map)),
        ]
    })
}

fn name() -> impl Strategy<Value = String> {
    prop_oneof![
        prop_oneof![
            Just("name"),
            Just("tags"),
            Just("visibility"),
            Just("min_disk"),
            Just("owner"),
            Just("disk_format"),
            Just("status"),
            Just("locations"),
            Just("id"),
            Just("os_hidden"),
            Just("size_min"),
            Just("created_at"),
            Just("sort"),
            Just("sort_key"),
            Just("limit"),
            Just("marker"),
            Just("tag"),
            Just("member_status"),
        ]
        .prop_map(str::to_owned),
        ".{0,12}",
    ]
}

fn encode(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02x}")).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn queries(pairs in proptest::collection::vec((name(), prop_oneof![".{0,16}", "(in|gt|eq):.{0,12}", "[0-9]{1,20}"]), 0..5)) {
        let query: Vec<String> = pairs.iter().map(|(name, value)| format!("{}={}", encode(name), encode(value))).collect();
        let status = runtime().block_on(async {
            let world = World::new().await;
            world.raw_image(OWNER).await;
            world.get(OWNER, &format!("/v2/images?{}", query.join("&"))).await.status
        });
        prop_assert!(matches!(status, 200 | 400), "{status} for {pairs:?}");
    }

    #[test]
    fn patches(operations in proptest::collection::vec(
        (prop_oneof![Just("add"), Just("replace"), Just("remove"), Just("move")], name(), value()), 0..4,
    )) {
        let body: Vec<Value> = operations
            .iter()
            .map(|(op, path, value)| json!({"op": op, "path": format!("/{path}"), "value": value}))
            .collect();
        let status = runtime().block_on(async {
            let world = World::new().await;
            let id = world.raw_image(OWNER).await;
            world.patch(OWNER, &id, json!(body)).await.status
        });
        prop_assert!(matches!(status, 200 | 400 | 403 | 409), "{status} for {body:?}");
    }

    #[test]
    fn creates(body in proptest::collection::btree_map(name(), value(), 0..5)) {
        let status = runtime().block_on(async {
            let world = World::new().await;
            world.send(OWNER, "POST", "/v2/images", json!(body)).await.status
        });
        prop_assert!(matches!(status, 201 | 400 | 403), "{status} for {body:?}");
    }
}
