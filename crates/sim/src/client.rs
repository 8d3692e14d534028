//! Clients of the API: who they are, how they ask, what they hear.

use crate::world::World;
use axum::body::Body;
use http::{Method, Request};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use std::sync::Mutex;

/// A user in a project.
#[derive(Clone, Debug)]
pub struct Actor {
    pub name: &'static str,
    pub password: String,
    pub user_id: String,
    pub project_id: String,
}

/// What is asked.
#[derive(Clone, Debug)]
pub struct Ask {
    pub service: &'static str,
    pub operation: &'static str,
    pub method: Method,
    /// With its query.
    pub path: String,
    pub headers: Vec<(&'static str, String)>,
    pub body: Vec<u8>,
    pub actor: usize,
}

impl Ask {
    /// A look, by somebody who is not counted among the clients.
    pub fn look(actor: usize, path: impl Into<String>) -> Ask {
        let headers = vec![("x-openstack-nova-api-version", "2.60".to_owned())];
        let (method, path) = (Method::GET, path.into());
        Ask { service: "sim", operation: "sim:look", method, path, headers, body: Vec::new(), actor }
    }

    /// What is counted of it: the operation, and which action of several.
    pub fn names(&self) -> Vec<String> {
        let name = format!("{} {}", self.service, self.operation);
        let action = self.operation.ends_with(":action").then(|| serde_json::from_slice::<Value>(&self.body).ok());
        let action = action.flatten().and_then(|body| Some(format!("{name} {}", body.as_object()?.keys().next()?)));
        [Some(name), action].into_iter().flatten().collect()
    }

    /// Asks what it would do.
    pub fn is_dry(&self) -> bool {
        self.path.contains("dry_run=")
    }
}

/// What came back. No answer at all is `None` elsewhere: the connection broke.
#[derive(Clone, Debug)]
pub struct Answer {
    pub status: u16,
    pub token: Option<String>,
    pub request_id: String,
    /// It is the answer to an earlier request with the same key.
    pub replayed: bool,
    pub body: Vec<u8>,
    pub json: Value,
}

impl Answer {
    pub fn is_ok(&self) -> bool {
        (200..300).contains(&self.status)
    }
}

/// The tokens of the actors.
#[derive(Default)]
pub struct Tokens(Mutex<Vec<Option<String>>>);

impl Tokens {
    fn get(&self, actor: usize) -> Option<String> {
        let tokens = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        tokens.get(actor).cloned().flatten()
    }

    pub fn set(&self, actor: usize, token: Option<String>) {
        let mut tokens = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if tokens.len() <= actor {
            tokens.resize(actor + 1, None);
        }
        tokens[actor] = token;
    }
}

/// One request without a token of its own; none when the process died under it.
pub async fn raw(world: &World, ask: &Ask, token: Option<&str>) -> Option<Answer> {
    let process = world.process()?;
    let mut request = Request::builder().method(ask.method.clone()).uri(format!("http://cloud{}", ask.path));
    for (name, value) in &ask.headers {
        request = request.header(*name, value);
    }
    if let Some(token) = token {
        request = request.header("x-auth-token", token);
    }
    request = request.header("content-length", ask.body.len());
    let request = request.body(Body::from(ask.body.clone())).ok()?;
    let work = async {
        let response = process.cloud.answer(request).await;
        let (parts, mut body) = response.into_parts();
        let body = if ask.path.starts_with("/nubo/v1/watch") {
            // It has no end; the first line says enough.
            body.frame().await?.ok()?.into_data().ok()?.to_vec()
        } else {
            body.collect().await.ok()?.to_bytes().to_vec()
        };
        let header = |name: &str| parts.headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
        let token = header("x-subject-token");
        let request_id = header("x-openstack-request-id").unwrap_or_default();
        let replayed = header("idempotency-replayed").is_some();
        let json = serde_json::from_slice(&body).unwrap_or(Value::Null);
        Some(Answer { status: parts.status.as_u16(), token, request_id, replayed, body, json })
    };
    tokio::select! {
        biased;
        () = process.life.over() => None,
        answer = work => answer,
    }
}

pub fn login_body(actor: &Actor) -> Value {
    json!({"auth": {
        "identity": {"methods": ["password"], "password": {"user": {
            "name": actor.name, "password": actor.password, "domain": {"id": "default"}}}},
        "scope": {"project": {"id": actor.project_id}},
    }})
}

fn login_ask(actor: usize, who: &Actor) -> Ask {
    Ask {
        service: "identity",
        operation: "auth:issue_token",
        method: Method::POST,
        path: "/identity/v3/auth/tokens".into(),
        headers: vec![("content-type", "application/json".into())],
        body: login_body(who).to_string().into_bytes(),
        actor,
    }
}

/// A request of an actor, with a token as fresh as it must be.
pub async fn send(world: &World, tokens: &Tokens, actors: &[Actor], ask: &Ask) -> Option<Answer> {
    for _ in 0..2 {
        let token = match tokens.get(ask.actor) {
            Some(token) => token,
            None => {
                let answer = raw(world, &login_ask(ask.actor, &actors[ask.actor]), None).await?;
                // Whoever cannot log in hears why.
                let Some(token) = answer.token.clone() else { return Some(answer) };
                tokens.set(ask.actor, Some(token.clone()));
                token
            }
        };
        let mut ask = ask.clone();
        for (_, value) in ask.headers.iter_mut().filter(|(name, value)| *name == "x-subject-token" && value == "own") {
            *value = token.clone();
        }
        let answer = raw(world, &ask, Some(&token)).await?;
        if answer.status != 401 {
            return Some(answer);
        }
        tokens.set(ask.actor, None);
    }
    let (body, json) = (Vec::new(), Value::Null);
    Some(Answer { status: 401, token: None, request_id: String::new(), replayed: false, body, json })
}
