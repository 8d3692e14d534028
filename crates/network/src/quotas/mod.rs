//! Quotas: limits per project on the cloud's ledger, charged in the transaction of each change.

use crate::attr::shown;
use crate::resource::plain;
use crate::standard::{Ctx, Look};
use crate::{Network as Service, error};
use base::{ProjectId, Result};
use policy::Target;
use rest::{Call, Method, Reply, Route};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use std::sync::Arc;
use store::{Document, Query, Reader, Tx};

/// The resources that are counted, and Neutron's default limits.
pub const RESOURCES: &[(&str, i64)] = &[
    ("network", 100),
    ("subnet", 100),
    ("port", 500),
    ("router", 10),
    ("floatingip", 50),
    ("security_group", 10),
    ("security_group_rule", 100),
];

/// Resources that exist in Neutron but not here: their limit is shown and anything may be said of it except a number.
const ABSENT: &[&str] = &["subnetpool", "rbac_policy"];

/// The limit of a project that has none of its own.
pub fn default_limit(resource: &str) -> Option<i64> {
    RESOURCES.iter().find(|known| known.0 == resource).map(|known| known.1)
}

/// Says that a project has limits of its own. The limits stand in the ledger.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ProjectQuota {
    pub id: ProjectId,
}

impl Document for ProjectQuota {
    const KIND: &'static str = "network_quota";

    fn id(&self) -> &str {
        &self.id
    }
}

fn limits(reader: &mut Reader, project: &str) -> Result<Map<String, Value>> {
    let mut quota = Map::new();
    for (resource, default) in RESOURCES {
        let limit = reader.usage(project, resource)?.limit.unwrap_or(*default);
        quota.insert((*resource).into(), limit.into());
    }
    Ok(quota)
}

fn defaults() -> Map<String, Value> {
    RESOURCES.iter().map(|(resource, limit)| ((*resource).to_owned(), json!(limit))).collect()
}

fn require(ctx: &Ctx, rule: &str, project: &str) -> Result<()> {
    ctx.require(rule, &Target::project(project.to_owned()))
}

async fn list(net: Arc<Service>, call: Call) -> Result<Reply> {
    let ctx = net.ctx(&call);
    if !ctx.is_admin() {
        return Err(error::not_authorized("get_quota"));
    }
    let quotas = net.read(|reader| {
        let projects: Vec<ProjectQuota> = reader.docs(Query::all())?;
        projects.iter().map(|project| {
            let mut quota = limits(reader, &project.id)?;
            quota.insert("project_id".into(), project.id.as_str().into());
            quota.insert("tenant_id".into(), project.id.as_str().into());
            Ok(quota)
        }).collect::<Result<Vec<_>>>()
    }).await?;
    Reply::json(200, &json!({"quotas": quotas}))
}

async fn show(net: Arc<Service>, call: Call) -> Result<Reply> {
    let project = project(&call)?;
    if matches!(project.as_str(), "tenant" | "project") {
        // What old clients ask to learn their own project.
        let own = net.ctx(&call).project().to_owned();
        return Reply::json(200, &json!({"tenant": {"tenant_id": own, "project_id": own}}));
    }
    require(&net.ctx(&call), "get_quota", &project)?;
    let quota = net.read(move |reader| limits(reader, &project)).await?;
    Reply::json(200, &json!({"quota": quota}))
}

async fn show_default(net: Arc<Service>, call: Call) -> Result<Reply> {
    require(&net.ctx(&call), "get_quota", &project(&call)?)?;
    Reply::json(200, &json!({"quota": defaults()}))
}

async fn details(net: Arc<Service>, call: Call) -> Result<Reply> {
    let project = project(&call)?;
    require(&net.ctx(&call), "get_quota", &project)?;
    let quota = net.read(move |reader| {
        let mut quota = Map::new();
        for (resource, default) in RESOURCES {
            let usage = reader.usage(&project, resource)?;
            let limit = usage.limit.unwrap_or(*default);
            quota.insert((*resource).into(), json!({"limit": limit, "used": usage.used, "reserved": 0}));
        }
        Ok(quota)
    }).await?;
    Reply::json(200, &json!({"quota": quota}))
}

async fn update(net: Arc<Service>, mut call: Call) -> Result<Reply> {
    let project = project(&call)?;
    let body: Value = call.json().await?;
    require(&net.ctx(&call), "update_quota", &project)?;
    let (wanted, force) = read(body)?;
    let quota = net.write(call.cause(), move |tx| set(tx, &project, &wanted, force)).await?;
    Reply::json(200, &json!({"quota": quota}))
}

fn read(body: Value) -> Result<(Vec<(&'static str, i64)>, bool)> {
    let map = crate::attr::objects("quota", None, body)?.pop().unwrap_or_default();
    let (mut wanted, mut force) = (Vec::new(), true);
    for (name, value) in map {
        if matches!(name.as_str(), "tenant_id" | "project_id") || ABSENT.contains(&name.as_str()) {
            continue;
        }
        if matches!(name.as_str(), "force" | "check_limit") {
            let said = crate::attr::boolean(&value).map_err(|why| error::invalid_attribute(&name, why))?;
            force = if name == "force" { said } else { !said };
            continue;
        }
        let Some((resource, _)) = RESOURCES.iter().find(|known| known.0 == name) else {
            return Err(error::bad_request(format!("Unrecognized attribute(s) '{}'", shown(&name.into()))));
        };
        let limit = value.as_i64().or_else(|| value.as_str()?.parse().ok());
        match limit {
            Some(limit @ -1..=2_147_483_647) => wanted.push((*resource, limit)),
            _ => return Err(error::invalid_attribute(&name, format!("'{}' is not an integer of at least -1", shown(&value)))),
        }
    }
    Ok((wanted, force))
}

fn set(tx: &mut Tx, project: &str, wanted: &[(&'static str, i64)], force: bool) -> Result<Map<String, Value>> {
    for (resource, limit) in wanted {
        let used = tx.usage(project, resource)?.used;
        if !force && *limit >= 0 && used > *limit {
            return Err(error::quota_below_usage(resource, limit, used));
        }
        tx.set_limit(project, resource, Some(*limit))?;
    }
    tx.put(&ProjectQuota { id: project.into() })?;
    limits(tx, project)
}

async fn reset(net: Arc<Service>, call: Call) -> Result<Reply> {
    let project = project(&call)?;
    require(&net.ctx(&call), "delete_quota", &project)?;
    net.write(call.cause(), move |tx| {
        if tx.doc::<ProjectQuota>(&project)?.is_none() {
            return Err(error::project_quota_not_found(&project));
        }
        for (resource, _) in RESOURCES {
            tx.set_limit(&project, resource, None)?;
        }
        tx.delete::<ProjectQuota>(&project)?;
        Ok(())
    }).await?;
    Ok(Reply::empty(204))
}

fn project(call: &Call) -> Result<String> {
    let project = call.param("project_id");
    base::limits::text("project_id", project, 255)?;
    Ok(project.to_owned())
}

pub fn routes(net: &Arc<Service>) -> Vec<Route> {
    vec![
        plain(net, Method::GET, "/v2.0/quotas", "quota:list", "get_quota", 200, list),
        plain(net, Method::GET, "/v2.0/quotas/{project_id}", "quota:show", "get_quota", 200, show),
        plain(net, Method::PUT, "/v2.0/quotas/{project_id}", "quota:update", "update_quota", 200, update),
        plain(net, Method::DELETE, "/v2.0/quotas/{project_id}", "quota:delete", "delete_quota", 204, reset),
        plain(net, Method::GET, "/v2.0/quotas/{project_id}/default", "quota:default", "get_quota", 200, show_default),
        plain(net, Method::GET, "/v2.0/quotas/{project_id}/details", "quota:details", "get_quota", 200, details),
    ]
}
