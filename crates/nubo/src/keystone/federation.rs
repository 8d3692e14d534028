//! Identity providers and how they are heard, and service providers.

use super::tables::{Tables, flag, some, text};
use anyhow::Result;
use identity::documents::*;
use identity::keystone::Dump;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// What the cloud knows of other clouds and of identity providers, alone in a dump.
pub(super) fn federation(tables: &Tables) -> Result<Dump> {
    let mut remotes: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (id, remote) in
        tables.rows("SELECT idp_id, remote_id FROM idp_remote_ids", |r| Ok((text(r, 0)?, text(r, 1)?)))?
    {
        remotes.entry(id).or_default().insert(remote);
    }
    let sql = "SELECT id, domain_id, enabled, description, authorization_ttl FROM identity_provider ORDER BY id";
    let identity_providers = tables.rows(sql, |row| {
        let id = text(row, 0)?;
        Ok(IdentityProvider {
            domain_id: text(row, 1)?.into(),
            enabled: flag(row, 2)?,
            description: row.get::<_, Option<String>>(3)?.map_or(Value::Null, Value::from),
            remote_ids: remotes.remove(&id).unwrap_or_default(),
            authorization_ttl: row.get(4)?,
            id,
        })
    })?;
    let mappings = tables.rows("SELECT id, rules, schema_version FROM mapping ORDER BY id", |row| {
        // JSON, and that once more as JSON.
        let rules: Value = serde_json::from_str(&text(row, 1)?).unwrap_or_default();
        let rules = rules.as_str().and_then(|inner| serde_json::from_str(inner).ok()).unwrap_or(rules);
        Ok(Mapping { id: text(row, 0)?, rules, schema_version: text(row, 2)? })
    })?;
    let sql = "SELECT id, idp_id, mapping_id, remote_id_attribute FROM federation_protocol ORDER BY 1, 2";
    let protocols = tables.rows(sql, |row| {
        let (name, idp) = (text(row, 0)?, text(row, 1)?);
        Ok(Protocol {
            id: Protocol::id_of(&idp, &name),
            idp_id: idp,
            mapping_id: text(row, 2)?,
            remote_id_attribute: some(row, 3)?,
            name,
        })
    })?;
    let sql = "SELECT id, enabled, description, auth_url, sp_url, relay_state_prefix FROM service_provider ORDER BY id";
    let service_providers = tables.rows(sql, |row| {
        Ok(ServiceProvider {
            id: text(row, 0)?,
            enabled: flag(row, 1)?,
            description: row.get::<_, Option<String>>(2)?.map_or(Value::Null, Value::from),
            auth_url: text(row, 3)?,
            sp_url: text(row, 4)?,
            relay_state_prefix: text(row, 5)?,
        })
    })?;
    Ok(Dump { identity_providers, mappings, protocols, service_providers, ..Dump::default() })
}
