//! Who changed what, and who logged in: an event in the form of CADF (DSP0262) for each, as a line of JSON in the log
//! under the target `audit`. Changes are at level info, logins at debug: strangers must not fill the log.
//!
//! An event names things by their ids. It never has a body, and so no secret and no token.

use crate::Identity;
use base::Result;
use http_body::Body as _;
use http_body_util::BodyExt;
use rest::{Body, Call, Envelope, Reply, Route};
use serde_json::{Map, Value, json};
use std::sync::Arc;
use tracing::Level;

/// The largest answer in which the id of what was made is looked for.
const ANSWER_BYTES: u64 = 1 << 20;

/// The routes with the audit around each that changes something.
pub(crate) fn routes(identity: &Arc<Identity>, mut routes: Vec<Route>) -> Vec<Route> {
    for route in routes.iter_mut().filter(|route| route.mutates() || is_login(route.operation)) {
        let (identity, handler) = (identity.clone(), route.handler.clone());
        route.handler = Arc::new(move |call| Box::pin(noted(identity.clone(), call, handler.clone())));
    }
    routes
}

/// What makes a token; everything else changes something.
fn is_login(operation: &str) -> bool {
    matches!(operation, "auth:issue_token" | "ec2tokens:create" | "s3tokens:create" | "oauth2:token")
        || operation.starts_with("federation:auth")
        || operation.starts_with("federation:websso")
        || matches!(operation, "federation:saml2" | "federation:saml2_ecp")
}

fn wanted(operation: &str) -> bool {
    // A dry run changes nothing.
    !store::scope::is_dry()
        && if is_login(operation) {
            tracing::enabled!(target: "audit", Level::DEBUG)
        } else {
            tracing::enabled!(target: "audit", Level::INFO)
        }
}

async fn noted(identity: Arc<Identity>, call: Call, handler: rest::Handler) -> Result<Reply> {
    if !wanted(call.operation) {
        return handler(call).await;
    }
    let operation = call.operation;
    let mut event = begun(&call, identity.env.uuid());
    event["eventTime"] = call.now.iso_micros().into();
    let mut result = handler(call).await;
    let outcome = match &mut result {
        Ok(reply) => {
            let answer = answer(reply).await;
            made(&mut event, operation, &answer);
            if reply.status < 400 { None } else { Some(reply.status) }
        }
        Err(fault) => Some(Envelope::Identity.status(fault)),
    };
    event["outcome"] = if outcome.is_none() { "success" } else { "failure" }.into();
    if let Some(status) = outcome {
        event["reason"] = json!({"reasonType": "HTTP", "reasonCode": status.to_string()});
    }
    if is_login(operation) {
        tracing::debug!(target: "audit", "{event}");
    } else {
        tracing::info!(target: "audit", "{event}");
    }
    result
}

/// The event as far as it is known before the work.
fn begun(call: &Call, id: impl std::fmt::Display) -> Value {
    let credentials = &call.caller.credentials;
    let (resource, verb) = call.operation.split_once(':').unwrap_or((call.operation, ""));
    let action = if is_login(call.operation) { "authenticate".to_owned() } else { format!("{verb}.{resource}") };
    let mut initiator = Map::from_iter([
        ("typeURI".to_owned(), json!("service/security/account/user")),
        ("id".to_owned(), json!(credentials.user_id)),
        ("request_id".to_owned(), json!(call.request_id)),
    ]);
    initiator.extend(credentials.project_id.as_ref().map(|id| ("project_id".to_owned(), json!(id))));
    initiator.extend(credentials.domain_id.as_ref().map(|id| ("domain_id".to_owned(), json!(id))));
    if let Some(agent) = call.header("user-agent") {
        let agent: String = agent.chars().take(128).collect();
        initiator.insert("host".into(), json!({ "agent": agent }));
    }
    // The path has ids and no secrets.
    json!({
        "typeURI": "http://schemas.dmtf.org/cloud/audit/1.0/event",
        "eventType": "activity",
        "id": id.to_string(),
        "action": action,
        "initiator": initiator,
        "target": {"typeURI": format!("data/security/{resource}"), "id": call.param("id")},
        "observer": {"typeURI": "service/security", "name": "identity"},
        "requestPath": call.path,
    })
}

/// The answer's JSON, which stays in the reply; null for what is no JSON, or too long.
async fn answer(reply: &mut Reply) -> Value {
    let body = std::mem::replace(&mut reply.body, Body::empty());
    if body.size_hint().exact().is_none_or(|size| size > ANSWER_BYTES) {
        reply.body = body;
        return Value::Null;
    }
    let Ok(bytes) = body.collect().await.map(|collected| collected.to_bytes()) else { return Value::Null };
    reply.body = Body::from(bytes.clone());
    serde_json::from_slice(&bytes).unwrap_or_default()
}

/// Names what was made, and who has logged in.
fn made(event: &mut Value, operation: &str, answer: &Value) {
    let object = answer.as_object().and_then(|answer| answer.values().find(|value| value.is_object()));
    let Some(object) = object else { return };
    if is_login(operation) {
        event["initiator"]["id"] = object["user"]["id"].clone();
        event["target"]["id"] = object["user"]["id"].clone();
    } else if event["target"]["id"] == "" {
        event["target"]["id"] = object["id"].clone();
    }
}
