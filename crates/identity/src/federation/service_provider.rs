//! Service providers: other clouds that tokens of this one name. Those that are enabled stand in every token.

use super::{chosen, finish};
use crate::Identity;
use crate::documents::*;
use crate::fields::Fields;
use crate::listing::{filtered, forbid, linked, missing, single};
use crate::project::{pairs, taken};
use base::{Fault, Result};
use policy::Target;
use rest::{Call, Reply, Route};
use serde_json::{Value, json};
use std::sync::Arc;
use store::Tx;

/// The most characters of a URL.
const URL_CHARS: usize = 225;

pub(super) fn routes(identity: &Arc<Identity>) -> Vec<Route> {
    let (all, one) = ("/v3/OS-FEDERATION/service_providers", "/v3/OS-FEDERATION/service_providers/{id}");
    routes![identity;
        GET all, "service_providers:list", "identity:list_service_providers", 200, list;
        PUT one, "service_providers:create", "identity:create_service_provider", 201, create;
        GET one, "service_providers:show", "identity:get_service_provider", 200, show;
        PATCH one, "service_providers:update", "identity:update_service_provider", 200, update;
        DELETE one, "service_providers:delete", "identity:delete_service_provider", 204, delete;
    ]
}

fn shown(call: &Call, provider: &ServiceProvider) -> Value {
    let parts = pairs([
        ("id", json!(provider.id)),
        ("enabled", json!(provider.enabled)),
        ("description", provider.description.clone()),
        ("auth_url", json!(provider.auth_url)),
        ("sp_url", json!(provider.sp_url)),
        ("relay_state_prefix", json!(provider.relay_state_prefix)),
    ]);
    linked(call, "OS-FEDERATION/service_providers", parts.collect())
}

async fn list(identity: Arc<Identity>, call: Call) -> Result<Reply> {
    forbid(&call, &Target::new())?;
    let items: Vec<_> = identity.model().service_providers.all().map(|provider| shown(&call, provider)).collect();
    filtered(&call, "service_providers", items, &["id", "enabled"])
}

fn find(identity: &Identity, call: &Call) -> Result<Arc<ServiceProvider>> {
    forbid(call, &Target::new())?;
    let id = call.param("id");
    identity.model().service_providers.get(id).cloned().ok_or_else(|| missing("service provider", id))
}

async fn show(identity: Arc<Identity>, call: Call) -> Result<Reply> {
    let provider = find(&identity, &call)?;
    single(&call, 200, "service_provider", shown(&call, &provider))
}

fn url(fields: &mut Fields, name: &str) -> Result<Option<String>> {
    let Some(url) = fields.name(name, URL_CHARS)? else { return Ok(None) };
    let rest = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://")).filter(|rest| !rest.is_empty());
    if rest.is_none() || url.contains(char::is_whitespace) {
        return Err(Fault::invalid(format!("Invalid input for field '{name}': '{url}' is no http or https URL.")));
    }
    Ok(Some(url))
}

fn prefix(fields: &mut Fields) -> Result<Option<String>> {
    let prefix = fields.text("relay_state_prefix")?.flatten();
    prefix.iter().try_for_each(|text| base::limits::text("relay_state_prefix", text, 256))?;
    Ok(prefix)
}

fn usual_prefix(identity: &Identity) -> String {
    let ours = identity.options.federation.saml.as_ref().map(|saml| saml.settings.relay_state_prefix.clone());
    ours.unwrap_or_else(|| "ss:mem:".into())
}

async fn create(identity: Arc<Identity>, mut call: Call) -> Result<Reply> {
    forbid(&call, &Target::new())?;
    let id = chosen(&call, "id")?.to_owned();
    let mut fields = Fields::read(&mut call, "service_provider").await?;
    let provider = ServiceProvider {
        id,
        enabled: fields.flag("enabled")?.unwrap_or(false),
        description: fields.description()?.unwrap_or(Value::Null),
        auth_url: url(&mut fields, "auth_url")?.ok_or_else(|| fields.missing("auth_url"))?,
        sp_url: url(&mut fields, "sp_url")?.ok_or_else(|| fields.missing("sp_url"))?,
        relay_state_prefix: prefix(&mut fields)?.unwrap_or_else(|| usual_prefix(&identity)),
    };
    finish(fields)?;
    let shown = shown(&call, &provider);
    let work = move |tx: &mut Tx| taken(tx.create(&provider).map(drop), "service_provider", &provider.id);
    identity.write(&call, work).await?;
    single(&call, 201, "service_provider", shown)
}

async fn update(identity: Arc<Identity>, mut call: Call) -> Result<Reply> {
    let id = find(&identity, &call)?.id.clone();
    let mut fields = Fields::read(&mut call, "service_provider").await?;
    let (enabled, description) = (fields.flag("enabled")?, fields.description()?);
    let (auth, sp) = (url(&mut fields, "auth_url")?, url(&mut fields, "sp_url")?);
    let prefix = prefix(&mut fields)?;
    finish(fields)?;
    let work = move |tx: &mut Tx| {
        let found = tx.get::<ServiceProvider>(&id)?.ok_or_else(|| missing("service provider", &id))?;
        let mut provider = found.doc;
        provider.enabled = enabled.unwrap_or(provider.enabled);
        provider.description = description.clone().unwrap_or(provider.description);
        provider.auth_url = auth.clone().unwrap_or(provider.auth_url);
        provider.sp_url = sp.clone().unwrap_or(provider.sp_url);
        provider.relay_state_prefix = prefix.clone().unwrap_or(provider.relay_state_prefix);
        tx.update(&provider)?;
        Ok(provider)
    };
    let provider = identity.write(&call, work).await?;
    single(&call, 200, "service_provider", shown(&call, &provider))
}

async fn delete(identity: Arc<Identity>, call: Call) -> Result<Reply> {
    let id = find(&identity, &call)?.id.clone();
    let work = move |tx: &mut Tx| {
        tx.get::<ServiceProvider>(&id)?.ok_or_else(|| missing("service provider", &id))?;
        Ok(tx.delete::<ServiceProvider>(&id).map(drop)?)
    };
    identity.write(&call, work).await?;
    Ok(Reply::empty(204))
}
