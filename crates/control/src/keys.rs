//! The keys that seal tokens, for operators: rotated, taken over from a Keystone, handed out for one.
//!
//! Whoever has them can make any token, so the rules ask for an administrator of the cloud.

use base::{Fault, Result};
use identity::Identity;
use policy::{Rule, Scope, Target};
use rest::{Access, Call, Method, Reply, Route};
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::collections::BTreeMap;
use std::sync::Arc;

const SCOPES: &[Scope] = &[Scope::System, Scope::Project];

pub(crate) const RULES: &[Rule] = &[
    Rule::new("nubo:keys:rotate", "role:admin", SCOPES, "Let tokens be sealed with a new key."),
    Rule::new("nubo:keys:import", "role:admin", SCOPES, "Take over the keys of a Keystone."),
    Rule::new(
        "nubo:keys:export",
        "role:admin",
        SCOPES,
        "Read the keys of tokens: whoever has them can make any token.",
    ),
];

/// One key, by the name that its file has in Keystone's directory.
#[derive(Deserialize, Serialize)]
struct Numbered {
    number: u32,
    key: String,
}

pub(crate) fn routes(identity: &Arc<Identity>) -> Vec<Route> {
    let rule = |name| Access::Rule(name);
    let (keys, rotation) = ("/nubo/v1/keys", "/nubo/v1/keys/rotate");
    let signing = "/nubo/v1/keys/jws";
    let secret = "keys are shown in no difference";
    vec![
        Route::new(identity, Method::GET, keys, "nubo:keys:export", rule("nubo:keys:export"), 200, export)
            .no_past("keys of the past are not kept"),
        Route::new(identity, Method::PUT, keys, "nubo:keys:import", rule("nubo:keys:import"), 200, import)
            .no_dry_run(secret)
            .no_undo("tokens may have been made with the new keys"),
        Route::new(identity, Method::GET, signing, "nubo:keys:export_jws", rule("nubo:keys:export"), 200, export_jws)
            .no_past("keys of the past are not kept"),
        Route::new(identity, Method::PUT, signing, "nubo:keys:import_jws", rule("nubo:keys:import"), 200, import_jws)
            .no_dry_run(secret)
            .no_undo("tokens may have been made with the new keys"),
        Route::new(identity, Method::POST, rotation, "nubo:keys:rotate", rule("nubo:keys:rotate"), 204, rotate)
            .no_dry_run(secret)
            .no_undo("tokens may have been made with the new key"),
    ]
}

async fn export(identity: Arc<Identity>, call: Call) -> Result<Reply> {
    call.enforce(&Target::default())?;
    let keys = identity.export_keys().await?;
    let keys: Vec<_> = keys.into_iter().map(|(number, key)| Numbered { number, key }).collect();
    call.reply(200, &json!({ "keys": keys }))
}

async fn import(identity: Arc<Identity>, mut call: Call) -> Result<Reply> {
    #[derive(Deserialize)]
    struct Wanted {
        keys: Vec<Numbered>,
    }
    call.enforce(&Target::default())?;
    let wanted: Wanted = call.json().await?;
    let mut keys = BTreeMap::new();
    for Numbered { number, key } in wanted.keys {
        if keys.insert(number, key).is_some() {
            return Err(Fault::invalid(format!("Key {number} is there twice.")));
        }
    }
    let kept = identity.import_keys(call.cause(), keys).await?;
    call.reply(200, &json!({ "kept": kept }))
}

/// The keys of signed tokens, in PEM.
#[derive(Deserialize, Serialize)]
struct Signing {
    private: String,
    public: Vec<String>,
}

async fn export_jws(identity: Arc<Identity>, call: Call) -> Result<Reply> {
    call.enforce(&Target::default())?;
    let (private, public) = identity.export_signing().await?;
    call.reply(200, &Signing { private, public })
}

async fn import_jws(identity: Arc<Identity>, mut call: Call) -> Result<Reply> {
    call.enforce(&Target::default())?;
    let Signing { private, public } = call.json().await?;
    let kept = identity.import_signing(call.cause(), private, public).await?;
    call.reply(200, &json!({ "kept": kept }))
}

async fn rotate(identity: Arc<Identity>, call: Call) -> Result<Reply> {
    call.enforce(&Target::default())?;
    identity.rotate_keys(call.cause()).await?;
    Ok(Reply::empty(204))
}
