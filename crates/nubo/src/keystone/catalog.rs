//! The catalog and what hangs on it: limits, policies, filters; and the options of domains.

use super::tables::{Tables, extra, flag, json, some, text, words};
use anyhow::Result;
use identity::documents::*;
use identity::keystone::Dump;
use rusqlite::Row;
use serde_json::Value;
use std::collections::BTreeMap;

/// What is there only with the endpoints that it names.
const OF_ENDPOINTS: [&str; 6] =
    ["service", "endpoint", "policy_association", "endpoint_group", "project_endpoint", "project_endpoint_group"];

/// All of it, alone in a dump. The services are named in any case: limits are about them.
pub(super) fn catalog(tables: &Tables, whole: bool) -> Result<Dump> {
    let known = Dump {
        catalog: whole,
        regions: regions(tables)?,
        services: services(tables)?,
        policies: policies(tables)?,
        registered_limits: registered_limits(tables)?,
        limits: limits(tables)?,
        domain_configs: domain_configs(tables)?,
        ..Dump::default()
    };
    if !whole {
        OF_ENDPOINTS.iter().try_for_each(|table| tables.leave_all(table))?;
        return Ok(known);
    }
    Ok(Dump {
        endpoints: endpoints(tables)?,
        policy_associations: policy_associations(tables)?,
        endpoint_groups: endpoint_groups(tables)?,
        endpoint_filters: endpoint_filters(tables)?,
        ..known
    })
}

fn or_null(row: &Row, at: usize) -> rusqlite::Result<Value> {
    Ok(row.get::<_, Option<String>>(at)?.map_or(Value::Null, Value::from))
}

fn regions(tables: &Tables) -> Result<Vec<Region>> {
    tables.rows("SELECT id, parent_region_id, description, extra FROM region ORDER BY id", |row| {
        Ok(Region {
            id: text(row, 0)?,
            parent_region_id: some(row, 1)?,
            description: text(row, 2)?,
            extra: extra(row, 3)?,
        })
    })
}

fn services(tables: &Tables) -> Result<Vec<Service>> {
    tables.rows("SELECT id, type, enabled, extra FROM service ORDER BY id", |row| {
        let mut extra = extra(row, 3)?;
        Ok(Service {
            id: text(row, 0)?.into(),
            kind: text(row, 1)?,
            name: extra.remove("name").and_then(|name| name.as_str().map(str::to_owned)),
            enabled: flag(row, 2)?,
            description: extra.remove("description").unwrap_or(Value::Null),
            extra,
        })
    })
}

fn endpoints(tables: &Tables) -> Result<Vec<Endpoint>> {
    let sql = "SELECT id, service_id, interface, region_id, url, enabled, extra FROM endpoint ORDER BY id";
    tables.rows(sql, |row| {
        Ok(Endpoint {
            id: text(row, 0)?.into(),
            service_id: text(row, 1)?.into(),
            interface: text(row, 2)?,
            region_id: some(row, 3)?,
            url: text(row, 4)?,
            enabled: flag(row, 5)?,
            extra: extra(row, 6)?,
        })
    })
}

/// Text that Keystone keeps as JSON: a string once more in quotes.
fn policies(tables: &Tables) -> Result<Vec<PolicyText>> {
    tables.rows("SELECT id, type, blob, extra FROM policy ORDER BY id", |row| {
        let blob = match json::<Value>(row, 2)?.unwrap_or_default() {
            Value::String(blob) => blob,
            other => other.to_string(),
        };
        Ok(PolicyText { id: text(row, 0)?, kind: text(row, 1)?, blob, extra: extra(row, 3)? })
    })
}

fn policy_associations(tables: &Tables) -> Result<Vec<PolicyAssociation>> {
    let sql = "SELECT id, policy_id, endpoint_id, service_id, region_id FROM policy_association ORDER BY id";
    tables.rows(sql, |row| {
        Ok(PolicyAssociation {
            id: text(row, 0)?,
            policy_id: text(row, 1)?,
            endpoint_id: some(row, 2)?.map(Into::into),
            service_id: some(row, 3)?.map(Into::into),
            region_id: some(row, 4)?,
        })
    })
}

fn endpoint_groups(tables: &Tables) -> Result<Vec<EndpointGroup>> {
    tables.rows("SELECT id, name, description, filters FROM endpoint_group ORDER BY id", |row| {
        Ok(EndpointGroup {
            id: text(row, 0)?,
            name: text(row, 1)?,
            description: words(row, 2)?,
            filters: extra(row, 3)?,
            extra: Extra::new(),
        })
    })
}

fn endpoint_filters(tables: &Tables) -> Result<Vec<EndpointFilter>> {
    let sql = "SELECT project_id, endpoint_id, NULL FROM project_endpoint UNION ALL \
               SELECT project_id, NULL, endpoint_group_id FROM project_endpoint_group ORDER BY 1, 2, 3";
    tables.rows(sql, |row| Ok(EndpointFilter::new(&text(row, 0)?, some(row, 1)?.as_deref(), some(row, 2)?.as_deref())))
}

fn registered_limits(tables: &Tables) -> Result<Vec<RegisteredLimit>> {
    let sql = "SELECT id, service_id, region_id, resource_name, default_limit, description \
               FROM registered_limit ORDER BY id";
    tables.rows(sql, |row| {
        Ok(RegisteredLimit {
            id: text(row, 0)?,
            service_id: text(row, 1)?.into(),
            region_id: some(row, 2)?,
            resource_name: text(row, 3)?,
            default_limit: row.get(4)?,
            description: or_null(row, 5)?,
        })
    })
}

fn limits(tables: &Tables) -> Result<Vec<Limit>> {
    let sql = "SELECT l.id, l.project_id, l.domain_id, r.service_id, r.region_id, r.resource_name, l.resource_limit, \
               l.description, r.id FROM \"limit\" l LEFT JOIN registered_limit r ON r.id = l.registered_limit_id \
               ORDER BY l.id";
    let rows = tables.rows(sql, |row| {
        let limit = Limit {
            id: text(row, 0)?,
            project_id: some(row, 1)?.map(Into::into),
            domain_id: some(row, 2)?.map(Into::into),
            service_id: text(row, 3)?.into(),
            region_id: some(row, 4)?,
            resource_name: text(row, 5)?,
            resource_limit: row.get(6)?,
            description: or_null(row, 7)?,
        };
        Ok((some(row, 8)?.is_some(), limit))
    })?;
    let (bound, loose): (Vec<_>, Vec<_>) = rows.into_iter().partition(|(bound, _)| *bound);
    tables.leave("limit without a registered limit", loose.len());
    Ok(bound.into_iter().map(|(_, limit)| limit).collect())
}

fn domain_configs(tables: &Tables) -> Result<Vec<DomainConfig>> {
    let sql = "SELECT domain_id, \"group\", option, value FROM whitelisted_config UNION ALL \
               SELECT domain_id, \"group\", option, value FROM sensitive_config ORDER BY 1, 2, 3";
    let mut all: BTreeMap<String, DomainConfig> = BTreeMap::new();
    let rows = tables.rows(sql, |row| {
        Ok((text(row, 0)?, text(row, 1)?, text(row, 2)?, json::<Value>(row, 3)?.unwrap_or_default()))
    })?;
    for (domain, group, option, value) in rows {
        let config = all.entry(domain.clone()).or_insert_with(|| DomainConfig { id: domain, groups: BTreeMap::new() });
        config.groups.entry(group).or_default().insert(option, value);
    }
    Ok(all.into_values().collect())
}
