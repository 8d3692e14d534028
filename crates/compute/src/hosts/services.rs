//! Compute services: enabling and disabling hosts.

use super::{Host, all, liveness};
use crate::input::drop_field;
use crate::servers::Server;
use crate::{Ask, Compute, ask, input};
use base::{Fault, Result};
use rest::{Access, Call, Change, Method, Reply, Route, Version};
use serde_json::{Value, json};
use std::sync::Arc;
use store::{Query, Reader, Stored};

pub const CHANGES: &[Change] = &[Change {
    since: Version(2, 11),
    operations: &["services:list"],
    request: None,
    response: Some(|body| each(body, |service| drop_field(service, "forced_down"))),
}];

fn each(body: &mut Value, change: fn(&mut Value)) {
    body.get_mut("services").and_then(Value::as_array_mut).into_iter().flatten().for_each(change);
}

pub fn routes(state: &Arc<Compute>) -> Vec<Route> {
    let rule = |name| Access::Rule(name);
    let update_rule = rule("os_compute_api:os-services:update");
    vec![
        Route::new(
            state,
            Method::GET,
            "/os-services",
            "services:list",
            rule("os_compute_api:os-services:list"),
            200,
            list,
        ),
        Route::new(state, Method::PUT, "/os-services/{id}", "services:update", update_rule, 200, update),
        Route::new(
            state,
            Method::DELETE,
            "/os-services/{id}",
            "services:delete",
            rule("os_compute_api:os-services:delete"),
            204,
            delete,
        ),
    ]
}

fn view(state: &Compute, ask: &Ask, host: &Stored<Host>) -> Value {
    let alive = state.hosts.is_alive(&host.name) && !host.forced_down;
    let id = if ask.version >= Version(2, 53) { json!(host.service_uuid) } else { json!(host.number) };
    json!({
        "id": id,
        "binary": "nova-compute",
        "host": host.name,
        "zone": host.zone,
        "status": if host.enabled { "enabled" } else { "disabled" },
        "state": liveness(ask, alive),
        "updated_at": if alive && !ask.past { ask.now.iso_naive() } else { host.updated.iso_naive() },
        "disabled_reason": host.disabled_reason,
        "forced_down": host.forced_down,
    })
}

async fn list(state: Arc<Compute>, call: Call) -> Result<Reply> {
    let ask = Ask::of(&call);
    ask.enforce_own()?;
    ask.known_query(&["host", "binary"])?;
    let hosts = state.read(&ask, |reader, ask| match ask.query.get("host") {
        Some(name) => Ok(reader.get::<Host>(name)?.into_iter().collect()),
        None => all(reader),
    });
    let hosts = hosts.await?;
    let wanted = |key: &str, value: &str| ask.query.get(key).is_none_or(|wanted| wanted == value);
    let shown = hosts.iter().filter(|host| wanted("host", &host.name) && wanted("binary", "nova-compute"));
    let services: Vec<_> = shown.map(|host| view(&state, &ask, host)).collect();
    ask.answer(CHANGES, 200, json!({"services": services}))
}

fn find(reader: &mut Reader, id: &str) -> Result<Stored<Host>> {
    let missing = || Fault::not_found(format!("Compute service {id} could not be found."));
    if base::is_uuid(id) {
        return reader.get_unique::<Host>("service_uuid", [id])?.ok_or_else(missing);
    }
    let number: u32 = id
        .parse()
        .map_err(|_| Fault::invalid(format!("Invalid input received: Service id {id} has an invalid format.")))?;
    all(reader)?.into_iter().find(|host| host.number == number).ok_or_else(missing)
}

/// What is to change, in the shape of 2.53: who is meant, and the fields.
#[derive(Clone, Debug, Default)]
struct Wanted {
    enabled: Option<bool>,
    reason: Option<String>,
    forced_down: Option<bool>,
}

impl Wanted {
    fn apply(&self, host: &mut Host) {
        if let Some(enabled) = self.enabled {
            host.enabled = enabled;
            host.disabled_reason = if enabled { None } else { self.reason.clone() };
        }
        if let Some(forced_down) = self.forced_down {
            host.forced_down = forced_down;
        }
    }
}

async fn update(state: Arc<Compute>, mut call: Call) -> Result<Reply> {
    let (ask, body) = ask::read(&mut call, CHANGES).await?;
    ask.enforce_own()?;
    if ask.version < Version(2, 53) {
        return update_by_name(&state, &ask, &body).await;
    }
    if !base::is_uuid(ask.param("id")) {
        return Err(Fault::invalid(format!("Invalid uuid {}", ask.param("id"))));
    }
    let wanted = parse(&body)?;
    let host = state
        .write(&ask, move |tx, ask| {
            let id = find(tx, ask.param("id"))?.doc.name;
            Ok(tx.modify::<Host>(&id, |host| wanted.apply(host))?)
        })
        .await?;
    Reply::json(200, &json!({"service": view(&state, &ask, &host)}))
}

fn parse(body: &Value) -> Result<Wanted> {
    let mut fields = input::Fields::body(body)?;
    let status = fields.text("status", 1, 16)?;
    let reason = fields.text("disabled_reason", 1, 255)?;
    let forced_down = fields.boolean("forced_down")?;
    fields.finish()?;
    let enabled = match status.as_deref() {
        None => None,
        Some("enabled") => Some(true),
        Some("disabled") => Some(false),
        Some(other) => {
            return Err(input::refuse(
                "status",
                &json!(other),
                format!("'{other}' is not one of ['enabled', 'disabled']"),
            ));
        }
    };
    if reason.is_some() && enabled != Some(false) {
        return Err(Fault::invalid("Specifying disabled_reason requires that status is 'disabled'."));
    }
    if enabled.is_none() && forced_down.is_none() {
        return Err(Fault::invalid("No updates were requested. Fields 'status' or 'forced_down' should be specified."));
    }
    Ok(Wanted { enabled, reason, forced_down })
}

/// Until 2.52 the path held the verb, and the body the host.
async fn update_by_name(state: &Compute, ask: &Ask, body: &Value) -> Result<Reply> {
    let mut fields = input::Fields::body(body)?;
    let host = input::text("host", fields.need("host")?, 1, 255)?;
    let binary = match fields.opt("binary") {
        Some(value) => input::text("binary", value, 1, 255)?,
        None => "nova-compute".to_owned(),
    };
    let reason = fields.text("disabled_reason", 1, 255)?;
    let forced_down = fields.boolean("forced_down")?;
    fields.finish()?;
    let wanted = match ask.param("id") {
        "enable" => Wanted { enabled: Some(true), ..Wanted::default() },
        "disable" => Wanted { enabled: Some(false), ..Wanted::default() },
        "disable-log-reason" if reason.is_some() => Wanted { enabled: Some(false), reason, ..Wanted::default() },
        "disable-log-reason" => return Err(Fault::invalid("Missing disabled reason field")),
        "force-down" if ask.version >= Version(2, 11) => {
            let forced_down = forced_down.ok_or_else(|| Fault::invalid("Missing forced_down field"))?;
            Wanted { forced_down: Some(forced_down), ..Wanted::default() }
        }
        _ => return Err(Fault::not_found("Unknown action")),
    };
    let by = (host.clone(), wanted.clone());
    state
        .write(ask, move |tx, _| {
            if binary != "nova-compute" || tx.get::<Host>(&by.0)?.is_none() {
                return Err(Fault::not_found(format!("Could not find binary {binary} on host {}.", by.0)));
            }
            tx.modify::<Host>(&by.0, |host| by.1.apply(host))?;
            Ok(())
        })
        .await?;
    let mut service = json!({"host": host, "binary": "nova-compute"});
    if let Some(enabled) = wanted.enabled {
        service["status"] = json!(if enabled { "enabled" } else { "disabled" });
    }
    if let Some(reason) = wanted.reason {
        service["disabled_reason"] = json!(reason);
    }
    if let Some(forced_down) = wanted.forced_down {
        service["forced_down"] = json!(forced_down);
    }
    Reply::json(200, &json!({"service": service}))
}

async fn delete(state: Arc<Compute>, call: Call) -> Result<Reply> {
    let ask = Ask::of(&call);
    ask.enforce_own()?;
    let hosts = state.hosts.clone();
    state
        .write(&ask, move |tx, ask| {
            if ask.version >= Version(2, 53) && !base::is_uuid(ask.param("id")) {
                return Err(Fault::invalid(format!("Invalid uuid {}", ask.param("id"))));
            }
            let host = find(tx, ask.param("id"))?;
            if tx.count::<Server>(Query::index("host", host.name.as_str()))? > 0 {
                return Err(Fault::conflict("Unable to delete compute service that is hosting instances. Migrate or delete the instances first."));
            }
            if hosts.is_alive(&host.name) {
                return Err(Fault::conflict(format!("Host {} is alive and would come back at once. Stop its agent first.", host.name)));
            }
            tx.delete::<Host>(&host.name)?;
            Ok(())
        })
        .await?;
    Ok(Reply::empty(204))
}
