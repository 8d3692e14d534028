//! The documents by which clients find out what is spoken here.

use crate::Identity;
use base::Result;
use rest::{Access, Call, Method, Reply, Route};
use serde_json::{Value, json};
use std::sync::Arc;

/// The newest minor version of v3 whose behaviour is followed.
const VERSION: &str = "v3.14";

pub(crate) fn routes(identity: &Arc<Identity>) -> Vec<Route> {
    vec![
        Route::new(identity, Method::GET, "", "versions:list", Access::Open, 300, list),
        Route::new(identity, Method::GET, "/v3", "versions:show", Access::Open, 200, show),
    ]
}

fn version(call: &Call) -> Value {
    json!({
        "id": VERSION,
        "status": "stable",
        "updated": "2020-04-07T00:00:00Z",
        "links": [{"rel": "self", "href": call.link("/v3/")}],
        "media-types": [{"base": "application/json", "type": "application/vnd.openstack.identity-v3+json"}],
    })
}

async fn list(_: Arc<Identity>, call: Call) -> Result<Reply> {
    call.reply(300, &json!({"versions": {"values": [version(&call)]}}))
}

async fn show(_: Arc<Identity>, call: Call) -> Result<Reply> {
    call.reply(200, &json!({"version": version(&call)}))
}
