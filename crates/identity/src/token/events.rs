//! What has been revoked, as others ask for it (OS-REVOKE), and the revocation of all tokens of a user at once.

use crate::Identity;
use crate::documents::*;
use crate::listing::{allowed, forbid};
use crate::project::revoke;
use base::{Fault, Result, Timestamp};
use policy::Target;
use rest::{Call, Reply};
use serde_json::{Map, Value, json};
use std::sync::Arc;

/// Lists of PKI tokens and their certificates are gone with these, as in Keystone.
pub(super) async fn gone(_: Arc<Identity>, call: Call) -> Result<Reply> {
    if !call.rule.is_empty() {
        forbid(&call, &Target::new())?;
    }
    Err(Fault::gone("This API is no longer available due to the removal of support for PKI tokens."))
}

fn shown(event: &Revocation) -> Value {
    let mut object = Map::new();
    let mut put = |name: &str, value: Option<&str>| value.map(|value| object.insert(name.into(), value.into()));
    put("audit_id", event.audit_id.as_deref());
    put("audit_chain_id", event.audit_chain_id.as_deref());
    put("user_id", event.user_id.as_deref());
    put("project_id", event.project_id.as_deref());
    put("domain_id", event.domain_id.as_deref());
    put("issued_before", Some(&event.before.iso_micros()));
    put("revoked_at", Some(&event.before.iso_micros()));
    Value::Object(object)
}

pub(super) async fn list(identity: Arc<Identity>, call: Call) -> Result<Reply> {
    forbid(&call, &Target::new())?;
    let since = match call.query.get("since").filter(|text| !text.is_empty()) {
        Some(text) => {
            let wrong =
                || Fault::invalid(format!("Invalid input for field 'since': {text:.64} is no time (RFC 3339)."));
            Some(Timestamp::parse(text).ok_or_else(wrong)?)
        }
        None => None,
    };
    let events: Vec<Value> = {
        let model = identity.model();
        let all = model.revocations.events().into_iter();
        all.filter(|event| since.is_none_or(|since| event.before >= since)).map(shown).collect()
    };
    let links = json!({"next": null, "previous": null, "self": call.link("/v3/OS-REVOKE/events")});
    call.reply(200, &json!({ "events": events, "links": links }))
}

/// For users who have no password to change, or think that somebody has their token.
pub(super) async fn revoke_all(identity: Arc<Identity>, call: Call) -> Result<Reply> {
    let found = crate::user::find(&identity, call.param("id"));
    let user = allowed(&call, found, "user", |user| crate::user::target(user))?.id.clone();
    let work =
        move |tx: &mut store::Tx| revoke(tx, Revocation { user_id: Some(user.clone()), ..Revocation::default() });
    identity.write(&call, work).await?;
    Ok(Reply::empty(204))
}
