//! The access tokens of a user: listed, shown and taken back, with the roles that they lend.

use crate::Identity;
use crate::documents::*;
use crate::listing::{collection, forbid, missing, single};
use base::{Fault, Result};
use policy::Target;
use rest::{Call, Reply, Route};
use serde_json::{Value, json};
use std::sync::Arc;
use store::Tx;

pub(super) fn routes(identity: &Arc<Identity>) -> Vec<Route> {
    let (all, one) = ("/v3/users/{id}/OS-OAUTH1/access_tokens", "/v3/users/{id}/OS-OAUTH1/access_tokens/{token}");
    routes![identity;
        GET all, "access_tokens:list", "identity:list_access_tokens", 200, list;
        GET one, "access_tokens:show", "identity:get_access_token", 200, show;
        DELETE one, "access_tokens:delete", "identity:delete_access_token", 204, delete;
        GET "/v3/users/{id}/OS-OAUTH1/access_tokens/{token}/roles", "access_tokens:roles", "identity:list_access_token_roles", 200, roles;
        GET "/v3/users/{id}/OS-OAUTH1/access_tokens/{token}/roles/{role}", "access_tokens:role", "identity:get_access_token_role", 200, role;
    ]
}

fn shown(call: &Call, token: &AccessToken) -> Value {
    let link = |rest: &str| {
        let user = &token.authorizing_user_id;
        call.link(&format!("/v3/users/{user}/OS-OAUTH1/access_tokens/{}{rest}", token.id))
    };
    json!({
        "id": token.id,
        "consumer_id": token.consumer_id,
        "project_id": token.project_id,
        "authorizing_user_id": token.authorizing_user_id,
        "expires_at": token.expires_at.iso_micros(),
        "links": {"self": link(""), "roles": link("/roles")},
    })
}

/// The right to ask. What was lent shows and takes back nothing that was lent.
fn allowed(call: &Call) -> Result<()> {
    let user = call.param("id").to_owned();
    forbid(call, &Target::new().with("user_id", user.clone()).with("target.token.user_id", user))?;
    if call.caller.credentials.is_delegated_auth {
        return Err(Fault::forbidden("A token issued via delegation cannot manage access tokens."));
    }
    Ok(())
}

fn find(identity: &Identity, call: &Call) -> Result<Arc<AccessToken>> {
    allowed(call)?;
    let id = call.param("token");
    let found = identity.model().access_tokens.get(id).cloned();
    let own = found.filter(|token| token.authorizing_user_id.as_str() == call.param("id"));
    own.ok_or_else(|| missing("access token", id))
}

async fn list(identity: Arc<Identity>, call: Call) -> Result<Reply> {
    allowed(&call)?;
    let items: Vec<Value> = {
        let model = identity.model();
        model.access_tokens.find("user", call.param("id")).map(|token| shown(&call, token)).collect()
    };
    collection(&call, "access_tokens", items)
}

async fn show(identity: Arc<Identity>, call: Call) -> Result<Reply> {
    let token = find(&identity, &call)?;
    single(&call, 200, "access_token", shown(&call, &token))
}

async fn delete(identity: Arc<Identity>, call: Call) -> Result<Reply> {
    let id = find(&identity, &call)?.id.clone();
    identity.write(&call, move |tx: &mut Tx| Ok(tx.delete::<AccessToken>(&id).map(drop)?)).await?;
    Ok(Reply::empty(204))
}

async fn roles(identity: Arc<Identity>, call: Call) -> Result<Reply> {
    let token = find(&identity, &call)?;
    let items: Vec<Value> = {
        let model = identity.model();
        token.roles.iter().filter_map(|id| model.roles.get(id)).map(|role| crate::role::shown(&call, role)).collect()
    };
    collection(&call, "roles", items)
}

async fn role(identity: Arc<Identity>, call: Call) -> Result<Reply> {
    let token = find(&identity, &call)?;
    let id = call.param("role");
    let lent = token.roles.iter().any(|role| role.as_str() == id);
    let role = identity.model().roles.get(id).filter(|_| lent).cloned();
    let role = role.ok_or_else(|| missing("role", id))?;
    single(&call, 200, "role", crate::role::shown(&call, &role))
}
