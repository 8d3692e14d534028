//! Identity providers. One belongs to a domain, in which its users are; a domain of its own is made where none is named.

use super::{chosen, finish};
use crate::Identity;
use crate::documents::*;
use crate::fields::Fields;
use crate::listing::{filtered, forbid, missing, single};
use crate::project::{pairs, remove_where, taken};
use base::{DomainId, Fault, Result};
use policy::Target;
use rest::{Call, Reply, Route};
use serde_json::{Map, Value, json};
use std::collections::BTreeSet;
use std::sync::Arc;
use store::{Query, Tx};

/// The most names of a provider, and the characters of one: as wide as Keystone's table.
const REMOTES: usize = 64;
const REMOTE_CHARS: usize = 255;
/// Sixty years.
const TTL_MINUTES: i64 = 60 * 365 * 24 * 60;

pub(super) fn routes(identity: &Arc<Identity>) -> Vec<Route> {
    let (all, one) = ("/v3/OS-FEDERATION/identity_providers", "/v3/OS-FEDERATION/identity_providers/{id}");
    routes![identity;
        GET all, "identity_providers:list", "identity:list_identity_providers", 200, list;
        PUT one, "identity_providers:create", "identity:create_identity_provider", 201, create;
        GET one, "identity_providers:show", "identity:get_identity_provider", 200, show;
        PATCH one, "identity_providers:update", "identity:update_identity_provider", 200, update;
        DELETE one, "identity_providers:delete", "identity:delete_identity_provider", 204, delete;
    ]
}

fn shown(call: &Call, provider: &IdentityProvider) -> Value {
    let link = call.link(&format!("/v3/OS-FEDERATION/identity_providers/{}", provider.id));
    let object: Map<String, Value> = pairs([
        ("id", json!(provider.id)),
        ("domain_id", json!(provider.domain_id)),
        ("enabled", json!(provider.enabled)),
        ("description", provider.description.clone()),
        ("remote_ids", json!(provider.remote_ids)),
        ("authorization_ttl", json!(provider.authorization_ttl)),
        ("links", json!({"self": link, "protocols": format!("{link}/protocols")})),
    ])
    .collect();
    object.into()
}

async fn list(identity: Arc<Identity>, call: Call) -> Result<Reply> {
    forbid(&call, &Target::new())?;
    let items: Vec<_> = identity.model().identity_providers.all().map(|provider| shown(&call, provider)).collect();
    filtered(&call, "identity_providers", items, &["id", "enabled"])
}

fn find(identity: &Identity, call: &Call) -> Result<Arc<IdentityProvider>> {
    forbid(call, &Target::new())?;
    let id = call.param("id");
    identity.model().identity_providers.get(id).cloned().ok_or_else(|| missing("identity provider", id))
}

async fn show(identity: Arc<Identity>, call: Call) -> Result<Reply> {
    let provider = find(&identity, &call)?;
    single(&call, 200, "identity_provider", shown(&call, &provider))
}

fn remotes(fields: &mut Fields) -> Result<Option<BTreeSet<String>>> {
    let wrong = |why: String| Fault::invalid(format!("Invalid input for field 'remote_ids': {why}."));
    let items = match fields.take("remote_ids") {
        None => return Ok(None),
        Some(Value::Null) => return Ok(Some(BTreeSet::new())),
        Some(Value::Array(items)) => items,
        Some(_) => return Err(wrong("it is a list of strings".into())),
    };
    if items.len() > REMOTES {
        return Err(wrong(format!("at most {REMOTES} are kept")));
    }
    let mut remotes = BTreeSet::new();
    for item in items {
        let Value::String(text) = item else { return Err(wrong(format!("{item} is no string"))) };
        base::limits::text("remote_ids", &text, REMOTE_CHARS)?;
        if text.is_empty() || !remotes.insert(text.clone()) {
            return Err(wrong(format!("'{text}' is empty or there twice")));
        }
    }
    Ok(Some(remotes))
}

/// Minutes, or null.
fn ttl(fields: &mut Fields) -> Result<Option<Option<i64>>> {
    match fields.take("authorization_ttl") {
        None => Ok(None),
        Some(Value::Null) => Ok(Some(None)),
        Some(value) => match value.as_i64().filter(|ttl| (0..=TTL_MINUTES).contains(ttl)) {
            Some(ttl) => Ok(Some(Some(ttl))),
            None => Err(Fault::invalid(format!(
                "Invalid input for field 'authorization_ttl': {value} is no number of minutes from 0 to {TTL_MINUTES}."
            ))),
        },
    }
}

async fn create(identity: Arc<Identity>, mut call: Call) -> Result<Reply> {
    forbid(&call, &Target::new())?;
    let id = chosen(&call, "id")?.to_owned();
    let mut fields = Fields::read(&mut call, "identity_provider").await?;
    let named = fields.id("domain_id")?.flatten().map(DomainId::new);
    let provider = IdentityProvider {
        domain_id: named.clone().unwrap_or_else(|| identity.env.uuid_hex().into()),
        enabled: fields.flag("enabled")?.unwrap_or(false),
        description: fields.description()?.unwrap_or(Value::Null),
        remote_ids: remotes(&mut fields)?.unwrap_or_default(),
        authorization_ttl: ttl(&mut fields)?.flatten(),
        id,
    };
    finish(fields)?;
    let shown = shown(&call, &provider);
    let work = move |tx: &mut Tx| {
        let domain = &provider.domain_id;
        if named.is_some() {
            tx.get::<Project>(domain)?.filter(|d| d.is_domain).ok_or_else(|| missing("domain", domain))?;
        } else {
            tx.create(&own_domain(domain, &provider.id))?;
        }
        remotes_free(tx, &provider)?;
        taken(tx.create(&provider).map(drop), "identity_provider", &provider.id)
    };
    identity.write(&call, work).await?;
    single(&call, 201, "identity_provider", shown)
}

/// Named by its id, as Keystone names one.
fn own_domain(id: &DomainId, provider: &str) -> Project {
    Project {
        id: id.as_str().into(),
        name: id.to_string(),
        domain_id: None,
        parent_id: None,
        is_domain: true,
        enabled: true,
        description: format!("Auto generated federated domain for Identity Provider: {provider}").into(),
        tags: BTreeSet::new(),
        options: Extra::new(),
        extra: Extra::new(),
    }
}

fn remotes_free(tx: &mut Tx, provider: &IdentityProvider) -> Result<()> {
    for remote in &provider.remote_ids {
        let other = tx.get_unique::<IdentityProvider>("remote", [remote])?;
        if other.is_some_and(|other| other.id != provider.id) {
            return Err(Fault::conflict(format!("Duplicate remote ID: {remote} is another identity provider's.")));
        }
    }
    Ok(())
}

async fn update(identity: Arc<Identity>, mut call: Call) -> Result<Reply> {
    let known = find(&identity, &call)?;
    let mut fields = Fields::read(&mut call, "identity_provider").await?;
    fields.fixed("domain_id", &json!(known.domain_id))?;
    let enabled = fields.flag("enabled")?;
    let (description, remotes, ttl) = (fields.description()?, remotes(&mut fields)?, ttl(&mut fields)?);
    finish(fields)?;
    let id = known.id.clone();
    let work = move |tx: &mut Tx| {
        let found = tx.get::<IdentityProvider>(&id)?.ok_or_else(|| missing("identity provider", &id))?;
        let mut provider = found.doc;
        provider.enabled = enabled.unwrap_or(provider.enabled);
        provider.description = description.clone().unwrap_or(provider.description);
        provider.remote_ids = remotes.clone().unwrap_or(provider.remote_ids);
        provider.authorization_ttl = ttl.unwrap_or(provider.authorization_ttl);
        remotes_free(tx, &provider)?;
        tx.update(&provider)?;
        Ok(provider)
    };
    let provider = identity.write(&call, work).await?;
    single(&call, 200, "identity_provider", shown(&call, &provider))
}

async fn delete(identity: Arc<Identity>, call: Call) -> Result<Reply> {
    let id = find(&identity, &call)?.id.clone();
    identity.write(&call, move |tx| remove(tx, &id)).await?;
    Ok(Reply::empty(204))
}

/// Deletes a provider with its protocols, what it lends, and the users whom nobody else knows. Its domain stays.
pub(crate) fn remove(tx: &mut Tx, id: &str) -> Result<()> {
    if tx.get::<IdentityProvider>(id)?.is_none() {
        return Err(missing("identity provider", id));
    }
    users_of(tx, id, |_| true)?;
    remove_where::<Membership>(tx, "idp", id)?;
    remove_where::<Protocol>(tx, "idp", id)?;
    tx.delete::<IdentityProvider>(id)?;
    Ok(())
}

/// Users of a provider are no longer known by what `ends` says; those whom nobody knows any more go.
pub(crate) fn users_of(tx: &mut Tx, provider: &str, ends: impl Fn(&FederatedId) -> bool) -> Result<()> {
    for stored in tx.list::<User>(Query::index("idp", provider))? {
        let mut user = stored.doc;
        let before = user.federated.len();
        user.federated.retain(|of| of.idp_id != provider || !ends(of));
        if user.federated.len() == before {
            continue;
        }
        if user.shadow && user.federated.is_empty() {
            crate::user::remove(tx, &user.id)?;
        } else {
            tx.update(&user)?;
        }
    }
    Ok(())
}
