//! `GET /` and `GET /v2.0`: which version there is, and what it holds.

use crate::Network as Service;
use base::Result;
use rest::{Access, Call, Method, Reply, Route};
use serde_json::{Value, json};
use std::sync::Arc;

const COLLECTIONS: &[(&str, &str)] = &[
    ("network", "networks"),
    ("subnet", "subnets"),
    ("port", "ports"),
    ("router", "routers"),
    ("floatingip", "floatingips"),
    ("security_group", "security-groups"),
    ("security_group_rule", "security-group-rules"),
    ("quota", "quotas"),
    ("availability_zone", "availability_zones"),
];

async fn versions(_net: Arc<Service>, call: Call) -> Result<Reply> {
    let link = json!({"rel": "self", "href": call.link("/v2.0/")});
    Reply::json(200, &json!({"versions": [{"id": "v2.0", "status": "CURRENT", "links": [link]}]}))
}

async fn resources(_net: Arc<Service>, call: Call) -> Result<Reply> {
    let resources: Vec<Value> = COLLECTIONS.iter().map(|(name, collection)| {
        let link = json!({"rel": "self", "href": call.link(&format!("/v2.0/{collection}"))});
        json!({"name": name, "collection": collection, "links": [link]})
    }).collect();
    Reply::json(200, &json!({"resources": resources}))
}

pub fn routes(net: &Arc<Service>) -> Vec<Route> {
    vec![
        Route::new(net, Method::GET, "", "versions", Access::Open, 200, versions),
        Route::new(net, Method::GET, "/v2.0", "version", Access::Open, 200, resources),
    ]
}
