//! The past: a read that asks for it sees the model as it was, and never the one in memory.
//!
//! Verifying the caller's own token is no part of this: whoever asks is who they are now.

use crate::Identity;
use crate::model::Model;
use base::Result;
use rest::{Call, Reply, Route};
use std::ops::Deref;
use std::sync::{Arc, RwLockReadGuard};

tokio::task_local! {
    static THEN: Arc<Model>;
}

/// The model that a handler reads.
pub enum Seen<'a> {
    Now(RwLockReadGuard<'a, Model>),
    Then(Arc<Model>),
}

impl Deref for Seen<'_> {
    type Target = Model;
    fn deref(&self) -> &Model {
        match self {
            Seen::Now(model) => model,
            Seen::Then(model) => model,
        }
    }
}

/// The model of the moment that the request asks for; `None` in the present.
pub fn current() -> Option<Arc<Model>> {
    THEN.try_with(Clone::clone).ok()
}

/// What cannot answer for the past.
const NO_PAST: &[(&str, &str)] = &[
    ("auth:validate_token", "tokens are not kept, they are sealed and verified"),
    ("auth:check_token", "tokens are not kept, they are sealed and verified"),
    ("oauth2:token_get", "it answers 405 to every moment"),
    ("federation:auth", "a token is made now or never"),
    ("federation:websso", "a token is made now or never"),
    ("federation:websso_callback", "a token is made now or never"),
    ("federation:websso_provider", "a token is made now or never"),
    ("federation:saml2_metadata", "the settings have no history"),
    ("ec2:list", "what an EC2 credential holds is secret, and history keeps no secrets"),
    ("ec2:show", "what an EC2 credential holds is secret, and history keeps no secrets"),
];

/// The routes with a model of the past around each that only reads.
pub fn routes(identity: &Arc<Identity>, routes: Vec<Route>) -> Vec<Route> {
    let mut routes = rest::no_past(routes, NO_PAST);
    for route in routes.iter_mut().filter(|route| !route.mutates()) {
        let (identity, handler) = (identity.clone(), route.handler.clone());
        route.handler = Arc::new(move |call| Box::pin(answer(identity.clone(), call, handler.clone())));
    }
    routes
}

async fn answer(identity: Arc<Identity>, call: Call, handler: rest::Handler) -> Result<Reply> {
    if store::scope::as_of().is_none() {
        return handler(call).await;
    }
    // The scope makes this a read of the past.
    let model = identity.store.read(|reader| Model::load(reader)).await?;
    THEN.scope(Arc::new(model), async { handler(call).await }).await
}
