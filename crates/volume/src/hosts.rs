//! Hosts of volumes: services, pools, zones and capabilities are looks at the same document.
//!
//! Whether a host is alive stands in no document: [`contract::Hosts`] knows.

use crate::document::{Pool, Snapshot, Volume};
use crate::place::{ROOM, capabilities, scope, suits};
use crate::{Ask, Volumes, filters, table, types};
use base::{Fault, Result, Timestamp};
use rest::input::Fields;
use rest::{Call, Reply, Route};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;
use store::{Query, Reader, Stored};

pub fn routes(state: &Arc<Volumes>) -> Vec<Route> {
    table! { state;
        GET "/v3/{project_id}/os-availability-zone" "zones:list" "volume:availability_zone_list" 200 zones;
        GET "/v3/{project_id}/os-services" "volume_services:list" "volume_extension:services:index" 200 services;
        PUT "/v3/{project_id}/os-services/{verb}" "volume_services:update" "volume_extension:services:update" 200 update;
        GET "/v3/{project_id}/os-hosts" "volume_hosts:list" "volume_extension:hosts" 200 hosts;
        GET "/v3/{project_id}/os-hosts/{host_name}" "volume_hosts:show" "volume_extension:hosts" 200 host;
        GET "/v3/{project_id}/scheduler-stats/get_pools" "pools:list" "scheduler_extension:scheduler_stats:get_pools" 200 pools;
        GET "/v3/{project_id}/capabilities/{pool_host}" "capabilities:show" "volume_extension:capabilities" 200 show_capabilities;
    }
}

fn all(reader: &mut Reader) -> Result<Vec<Stored<Pool>>> {
    let mut pools = reader.list::<Pool>(Query::all())?;
    pools.sort_by(|a, b| a.host.cmp(&b.host));
    Ok(pools)
}

async fn zones(state: Arc<Volumes>, call: Call) -> Result<Reply> {
    let ask = Ask::of(&call)?;
    ask.enforce_own()?;
    let mut zones: BTreeMap<String, bool> = BTreeMap::new();
    for pool in state.read(&ask, |reader, _| all(reader)).await? {
        *zones.entry(pool.zone.clone()).or_default() |= pool.enabled;
    }
    if zones.is_empty() {
        zones.insert(crate::observe::ZONE.to_owned(), true);
    }
    let list: Vec<Value> =
        zones.iter().map(|(name, up)| json!({"zoneName": name, "zoneState": {"available": up}})).collect();
    ask.reply(200, &json!({"availabilityZoneInfo": list}))
}

/// One line of the list of services.
struct Line<'a> {
    binary: &'static str,
    host: String,
    pool: Option<&'a Stored<Pool>>,
    up: bool,
    seen: Timestamp,
}

fn lines<'a>(state: &Volumes, now: Timestamp, pools: &'a [Stored<Pool>]) -> Vec<Line<'a>> {
    let mut lines =
        vec![Line { binary: "cinder-scheduler", host: "control".to_owned(), pool: None, up: true, seen: now }];
    lines.extend(pools.iter().map(|pool| Line {
        binary: "cinder-volume",
        host: pool.service(),
        pool: Some(pool),
        up: state.hosts.is_alive(&pool.host),
        seen: state.hosts.last_seen(&pool.host).unwrap_or(pool.updated),
    }));
    lines
}

async fn services(state: Arc<Volumes>, call: Call) -> Result<Reply> {
    let ask = Ask::of(&call)?;
    ask.enforce_own()?;
    let pools = state.read(&ask, |reader, _| all(reader)).await?;
    let wanted = |line: &Line<'_>| {
        let binary = ask.query.get("binary").is_none_or(|binary| binary == line.binary);
        let host = ask.query.get("host");
        binary && host.is_none_or(|host| host == line.host || line.host.split('@').next() == Some(host))
    };
    let lines = lines(&state, ask.now, &pools);
    let list: Vec<Value> = lines
        .iter()
        .filter(|line| wanted(line))
        .map(|line| {
            let enabled = line.pool.is_none_or(|pool| pool.enabled);
            let mut view = json!({
                "binary": line.binary,
                "host": line.host,
                "zone": line.pool.map_or("nova", |pool| &pool.zone),
                "status": if enabled { "enabled" } else { "disabled" },
                "state": if line.up { "up" } else { "down" },
                "updated_at": line.seen.iso_naive(),
                "disabled_reason": line.pool.and_then(|pool| pool.disabled_reason.clone()),
            });
            if ask.since(7) {
                view["cluster"] = Value::Null;
            }
            if let Some(pool) = line.pool {
                view["frozen"] = json!(pool.frozen);
                view["replication_status"] = json!("disabled");
                view["active_backend_id"] = Value::Null;
                if ask.since(49) {
                    view["backend_state"] = json!(if line.up { "up" } else { "down" });
                }
            }
            view
        })
        .collect();
    ask.reply(200, &json!({"services": list}))
}

async fn update(state: Arc<Volumes>, mut call: Call) -> Result<Reply> {
    let (ask, body) = Ask::read(&mut call).await?;
    ask.enforce_own()?;
    let verb = ask.param("verb").to_owned();
    if !["enable", "disable", "disable-log-reason", "freeze", "thaw"].contains(&verb.as_str()) {
        return Err(Fault::not_found(format!("Unknown action: {verb:.50}")));
    }
    let mut fields = Fields::body(&body)?;
    let name = fields.text("host", 1, 255)?.ok_or_else(|| Fault::invalid("'host' is a required property"))?;
    fields.text_or_null("cluster", 0, 255)?;
    let whole = ["freeze", "thaw"].contains(&verb.as_str());
    let (binary, service) = match whole {
        true => (None, None),
        false => (fields.text("binary", 1, 255)?, fields.text("service", 1, 255)?),
    };
    let reason = if verb == "disable-log-reason" { fields.text("disabled_reason", 1, 255)? } else { None };
    fields.finish()?;
    let binary_wanted = binary.clone().or(service.clone());
    if !whole && binary_wanted.is_none() {
        return Err(Fault::invalid("'binary' is a required property"));
    }
    let (inner, wanted) = (verb.clone(), name.clone());
    let found = state
        .write(&ask, move |tx, _| {
            let missing = || Fault::not_found(format!("Service could not be found on host {wanted}."));
            if binary_wanted.as_deref().is_some_and(|binary| binary != "cinder-volume") {
                return Err(missing());
            }
            let pools = all(tx)?;
            let pool = pools.into_iter().find(|pool| pool.service() == wanted || pool.host.as_str() == wanted);
            // Cinder tells a host that is not there from one that cannot be frozen by the status alone.
            let mut pool = pool
                .ok_or_else(|| match inner.as_str() {
                    "freeze" | "thaw" => Fault::invalid(missing().message),
                    _ => missing(),
                })?
                .doc;
            match inner.as_str() {
                "enable" => (pool.enabled, pool.disabled_reason) = (true, None),
                "freeze" => pool.frozen = true,
                "thaw" => pool.frozen = false,
                _ => (pool.enabled, pool.disabled_reason) = (false, reason.clone()),
            }
            tx.update(&pool)?;
            Ok(pool)
        })
        .await?;
    if whole {
        return Ok(Reply::empty(200));
    }
    let mut view = json!({
        "host": name,
        "service": service.unwrap_or_default(),
        "binary": binary.unwrap_or_default(),
        "disabled": !found.enabled,
        "status": if found.enabled { "enabled" } else { "disabled" },
    });
    if verb == "disable-log-reason" {
        view["disabled_reason"] = json!(found.disabled_reason);
    }
    ask.reply(200, &view)
}

async fn hosts(state: Arc<Volumes>, call: Call) -> Result<Reply> {
    let ask = Ask::of(&call)?;
    ask.enforce_own()?;
    let pools = state.read(&ask, |reader, _| all(reader)).await?;
    let lines = lines(&state, ask.now, &pools);
    let list: Vec<Value> = lines
        .iter()
        .map(|line| {
            json!({
                "host_name": line.host,
                "service": line.binary,
                "zone": line.pool.map_or("nova", |pool| &pool.zone),
                "service-status": if line.up { "available" } else { "unavailable" },
                "service-state": if line.pool.is_none_or(|pool| pool.enabled) { "enabled" } else { "disabled" },
                "last-update": line.seen.iso_naive(),
            })
        })
        .collect();
    ask.reply(200, &json!({"hosts": list}))
}

async fn host(state: Arc<Volumes>, call: Call) -> Result<Reply> {
    let ask = Ask::of(&call)?;
    ask.enforce_own()?;
    let name = ask.param("host_name").to_owned();
    let rows = state
        .read(&ask, move |reader, _| {
            let pool = all(reader)?.into_iter().find(|pool| pool.service() == name || pool.host.as_str() == name);
            let Some(pool) = pool else { return Ok(None) };
            let mut rows: BTreeMap<String, [u64; 4]> = BTreeMap::from([("(total)".to_owned(), [0; 4])]);
            for volume in reader.list::<Volume>(Query::index("host", pool.host.as_str()))? {
                let snapshots = reader.list::<Snapshot>(Query::index("volume", volume.id.as_str()))?;
                for project in ["(total)", volume.project_id.as_str()] {
                    let row = rows.entry(project.to_owned()).or_default();
                    *row = [
                        row[0] + 1,
                        row[1] + volume.size_gib,
                        row[2] + snapshots.len() as u64,
                        row[3] + snapshots.iter().map(|snapshot| snapshot.size_gib).sum::<u64>(),
                    ];
                }
            }
            Ok(Some(rows))
        })
        .await?;
    let rows = rows.ok_or_else(|| Fault::not_found(format!("Host {} could not be found.", ask.param("host_name"))))?;
    let view = rows.iter().map(|(project, row)| {
        json!({"resource": {
            "host": ask.param("host_name"),
            "project": project,
            "volume_count": row[0].to_string(),
            "total_volume_gb": row[1].to_string(),
            "snapshot_count": row[2].to_string(),
            "total_snapshot_gb": row[3].to_string(),
        }})
    });
    ask.reply(200, &json!({"host": view.collect::<Vec<_>>()}))
}

async fn pools(state: Arc<Volumes>, call: Call) -> Result<Reply> {
    let ask = Ask::of(&call)?;
    ask.enforce_own()?;
    let detail = ask.query.boolean("detail")?.unwrap_or(false);
    let unknown =
        ask.query.iter().map(|(name, _)| name).find(|name| *name != "detail" && !filters::of("pool").contains(name));
    if let Some(name) = unknown.filter(|_| ask.since(31)) {
        return Err(Fault::invalid(format!("Invalid filters {name:.100} are found in query options.")));
    }
    let found = state
        .read(&ask, |reader, ask| {
            let name = ask.query.get("name").filter(|_| ask.since(28));
            let kind = ask.query.get("volume_type").filter(|_| ask.since(35));
            let specs =
                kind.map(|kind| types::wanted(reader, ask, Some(kind))).transpose()?.map(|it| it.doc.extra_specs);
            let fits = |pool: &Pool| {
                name.is_none_or(|name| *name == pool.name())
                    && specs.as_ref().is_none_or(|specs| suits(pool, specs).is_ok())
            };
            let mut found = Vec::new();
            for pool in all(reader)?.into_iter().filter(|pool| fits(pool)) {
                let used = reader.usage(&scope(&pool.host), ROOM)?.used;
                found.push((pool, used));
            }
            Ok(found)
        })
        .await?;
    let list = found.iter().filter(|(pool, _)| state.hosts.is_alive(&pool.host)).map(|(pool, used)| {
        if !detail {
            return json!({"name": pool.name()});
        }
        json!({"name": pool.name(), "capabilities": {
            "timestamp": ask.now.iso_naive(),
            "volume_backend_name": pool.backend,
            "storage_protocol": pool.backend,
            "vendor_name": "nubo",
            "driver_version": env!("CARGO_PKG_VERSION"),
            "total_capacity_gb": pool.total_gib,
            "free_capacity_gb": pool.free_gib,
            "allocated_capacity_gb": used,
            "provisioned_capacity_gb": used,
            "max_over_subscription_ratio": state.options.over_subscription.to_string(),
            "reserved_percentage": 0,
            "thin_provisioning_support": true,
            "thick_provisioning_support": false,
            "multiattach": false,
            "QoS_support": false,
            "backend_state": "up",
        }})
    });
    ask.reply(200, &json!({"pools": list.collect::<Vec<_>>()}))
}

async fn show_capabilities(state: Arc<Volumes>, call: Call) -> Result<Reply> {
    let ask = Ask::of(&call)?;
    ask.enforce_own()?;
    let name = ask.param("pool_host").to_owned();
    let pools = state.read(&ask, |reader, _| all(reader)).await?;
    let pool = pools.iter().find(|pool| [pool.service(), pool.name(), pool.host.to_string()].contains(&name));
    let pool = pool.ok_or_else(|| Fault::not_found(format!("Service {name} could not be found.")))?;
    let has = capabilities(pool);
    ask.reply(200, &json!({
        "namespace": format!("OS::Storage::Capabilities::{}", pool.host),
        "vendor_name": has["vendor_name"],
        "volume_backend_name": pool.backend,
        "pool_name": pool.backend,
        "driver_version": has["driver_version"],
        "storage_protocol": pool.backend,
        "display_name": "Files of a host",
        "description": "Volumes as files on the disk of their host.",
        "visibility": "public",
        "replication_targets": [],
        "properties": {
            "thin_provisioning": {"title": "Thin Provisioning", "description": "Takes room as it is written.", "type": "boolean"},
        },
    }))
}
