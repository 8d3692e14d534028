//! Protocols: how an identity provider is heard, and the mapping that reads what it says.

use super::{chosen, finish, users_of};
use crate::Identity;
use crate::documents::*;
use crate::fields::Fields;
use crate::listing::{collection, forbid, missing, single};
use crate::project::taken;
use base::{Fault, Result};
use policy::Target;
use rest::{Call, Reply, Route};
use serde_json::{Value, json};
use std::sync::Arc;
use store::Tx;

pub(super) fn routes(identity: &Arc<Identity>) -> Vec<Route> {
    let all = "/v3/OS-FEDERATION/identity_providers/{id}/protocols";
    let one = "/v3/OS-FEDERATION/identity_providers/{id}/protocols/{protocol_id}";
    routes![identity;
        GET all, "protocols:list", "identity:list_protocols", 200, list;
        PUT one, "protocols:create", "identity:create_protocol", 201, create;
        GET one, "protocols:show", "identity:get_protocol", 200, show;
        PATCH one, "protocols:update", "identity:update_protocol", 200, update;
        DELETE one, "protocols:delete", "identity:delete_protocol", 204, delete;
    ]
}

fn shown(call: &Call, protocol: &Protocol) -> Value {
    let provider = call.link(&format!("/v3/OS-FEDERATION/identity_providers/{}", protocol.idp_id));
    json!({
        "id": protocol.name,
        "mapping_id": protocol.mapping_id,
        "remote_id_attribute": protocol.remote_id_attribute,
        "links": {"self": format!("{provider}/protocols/{}", protocol.name), "identity_provider": provider},
    })
}

/// A provider that is not there has no protocols, as in Keystone.
async fn list(identity: Arc<Identity>, call: Call) -> Result<Reply> {
    forbid(&call, &Target::new())?;
    let items: Vec<_> = {
        let model = identity.model();
        model.protocols.find("idp", call.param("id")).map(|protocol| shown(&call, protocol)).collect()
    };
    collection(&call, "protocols", items)
}

fn find(identity: &Identity, call: &Call) -> Result<Arc<Protocol>> {
    forbid(call, &Target::new())?;
    let (provider, name) = (call.param("id"), call.param("protocol_id"));
    let found = identity.model().protocols.get(&Protocol::id_of(provider, name)).cloned();
    // Ids may hold colons, so both are compared.
    found.filter(|found| found.idp_id == provider && found.name == name).ok_or_else(|| none(provider, name))
}

fn none(provider: &str, name: &str) -> Fault {
    Fault::not_found(format!("Could not find federated protocol {name} for Identity Provider: {provider}."))
}

async fn show(identity: Arc<Identity>, call: Call) -> Result<Reply> {
    let protocol = find(&identity, &call)?;
    single(&call, 200, "protocol", shown(&call, &protocol))
}

fn attribute(fields: &mut Fields) -> Result<Option<Option<String>>> {
    let text = fields.text("remote_id_attribute")?;
    text.iter().flatten().try_for_each(|text| base::limits::text("remote_id_attribute", text, 64))?;
    Ok(text)
}

/// A mapping that is there.
fn mapping(tx: &mut Tx, id: &str) -> Result<()> {
    let known = tx.get::<Mapping>(id)?.is_some();
    if known { Ok(()) } else { Err(Fault::invalid(format!("Invalid mapping id: {id}"))) }
}

async fn create(identity: Arc<Identity>, mut call: Call) -> Result<Reply> {
    forbid(&call, &Target::new())?;
    let (provider, name) = (call.param("id").to_owned(), chosen(&call, "protocol_id")?.to_owned());
    if name.contains(':') {
        return Err(Fault::invalid(format!("'{name}' is no id of a protocol: it may have no colon.")));
    }
    let mut fields = Fields::read(&mut call, "protocol").await?;
    let protocol = Protocol {
        id: Protocol::id_of(&provider, &name),
        idp_id: provider,
        mapping_id: fields.need_name("mapping_id", 64)?,
        remote_id_attribute: attribute(&mut fields)?.flatten(),
        name,
    };
    finish(fields)?;
    let shown = shown(&call, &protocol);
    let work = move |tx: &mut Tx| {
        let provider = &protocol.idp_id;
        tx.get::<IdentityProvider>(provider)?.ok_or_else(|| missing("identity provider", provider))?;
        mapping(tx, &protocol.mapping_id)?;
        taken(tx.create(&protocol).map(drop), "federation_protocol", &protocol.name)
    };
    identity.write(&call, work).await?;
    single(&call, 201, "protocol", shown)
}

async fn update(identity: Arc<Identity>, mut call: Call) -> Result<Reply> {
    let known = find(&identity, &call)?;
    let mut fields = Fields::read(&mut call, "protocol").await?;
    let (wanted, attribute) = (fields.need_name("mapping_id", 64)?, attribute(&mut fields)?);
    finish(fields)?;
    let id = known.id.clone();
    let work = move |tx: &mut Tx| {
        let stored = tx.get::<Protocol>(&id)?.ok_or_else(|| none(&known.idp_id, &known.name))?;
        let mut protocol = stored.doc;
        mapping(tx, &wanted)?;
        protocol.mapping_id = wanted.clone();
        protocol.remote_id_attribute = attribute.clone().unwrap_or(protocol.remote_id_attribute);
        tx.update(&protocol)?;
        Ok(protocol)
    };
    let protocol = identity.write(&call, work).await?;
    single(&call, 200, "protocol", shown(&call, &protocol))
}

async fn delete(identity: Arc<Identity>, call: Call) -> Result<Reply> {
    let known = find(&identity, &call)?;
    let work = move |tx: &mut Tx| {
        users_of(tx, &known.idp_id, |of| of.protocol_id == known.name)?;
        tx.get::<Protocol>(&known.id)?.ok_or_else(|| none(&known.idp_id, &known.name))?;
        tx.delete::<Protocol>(&known.id)?;
        Ok(())
    };
    identity.write(&call, work).await?;
    Ok(Reply::empty(204))
}
