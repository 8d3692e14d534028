//! Show, update, delete.

use super::document::{Server, ServerSecret, Tombstone};
use super::render::{Parts, View, render};
use super::{Full, find, history, soft};
use crate::{Ask, Compute, ask, input};
use base::{Fault, Result};
use model::server::{Power, Verb};
use policy::Target;
use rest::{Call, Reply};
use serde_json::{Value, json};
use std::sync::Arc;
use store::{Reader, Stored, Tx};

/// What this caller may see of a server.
pub fn view(state: &Compute, ask: &Ask, server: &Server, single: bool) -> View {
    let target = Target::project(server.project_id.as_str()).with("user_id", server.user_id.as_str());
    let host_status = ask.may("os_compute_api:servers:show:host_status", &target).then(|| match &server.host {
        None => "",
        Some(_) if ask.past => "UNKNOWN",
        Some(host) if state.hosts.is_alive(host) => "UP",
        Some(_) => "DOWN",
    });
    View {
        base_url: ask.base_url.clone(),
        version: ask.version,
        attributes: ask.may("os_compute_api:os-extended-server-attributes", &target),
        extra_specs: ask.may("os_compute_api:servers:show:flavor-extra-specs", &target),
        host_status,
        single,
        admin: ask.is_admin(),
    }
}

/// The answer for one server, read in the same snapshot as the server.
pub fn shown(state: &Compute, reader: &mut Reader, ask: &Ask, full: &Full) -> Result<String> {
    let view = view(state, ask, &full.server, true);
    let ports = state.ports.of_server(reader, &full.server.id)?;
    let volumes = state.volumes.of_server(reader, &full.server.id)?;
    let secret = match view.attributes {
        true => ServerSecret::of(reader, &full.server.id)?.0,
        false => None,
    };
    let parts = Parts {
        server: &full.server,
        observed: full.observed.as_ref(),
        ports: &ports,
        volumes: &volumes,
        user_data: secret.as_deref(),
        deleted: None,
    };
    Ok(format!("{{\"server\":{}}}", render(&parts, &view, ask.operation)?))
}

pub async fn show(state: Arc<Compute>, call: Call) -> Result<Reply> {
    let ask = Ask::of(&call);
    let inner = state.clone();
    let text = state
        .read(&ask, move |reader, ask| {
            let full = find(reader, ask)?;
            shown(&inner, reader, ask, &full)
        })
        .await?;
    Ok(Reply::json_bytes(200, text))
}

pub async fn topology(state: Arc<Compute>, call: Call) -> Result<Reply> {
    let ask = Ask::of(&call);
    state.read(&ask, |reader, ask| find(reader, ask).map(|_| ())).await?;
    Reply::json(200, &json!({"nodes": [], "pagesize_kb": null}))
}

#[derive(Clone, Default)]
struct Update {
    name: Option<String>,
    description: Option<Option<String>>,
    access_ip_v4: Option<Option<String>>,
    access_ip_v6: Option<Option<String>>,
    disk_config: Option<String>,
}

pub fn access_ip(fields: &mut input::Fields<'_>, key: &'static str, v4: bool) -> Result<Option<Option<String>>> {
    let Some(value) = fields.opt(key) else { return Ok(None) };
    if value.is_null() || value == "" {
        return Ok(Some(None));
    }
    let text = input::text(key, value, 1, 64)?;
    // Kept in the usual form: an IPv6 address has many spellings.
    let fitting = text.parse::<std::net::IpAddr>().ok().filter(|ip| ip.is_ipv4() == v4);
    let Some(ip) = fitting else {
        let family = if v4 { "ipv4" } else { "ipv6" };
        return Err(input::refuse(key, value, format!("{} is not a '{family}'", input::repr(value))));
    };
    Ok(Some(Some(ip.to_string())))
}

pub fn disk_config(fields: &mut input::Fields<'_>) -> Result<Option<String>> {
    let Some(value) = fields.opt("OS-DCF:diskConfig") else { return Ok(None) };
    match value.as_str() {
        Some(text @ ("AUTO" | "MANUAL")) => Ok(Some(text.to_owned())),
        _ => Err(input::refuse(
            "OS-DCF:diskConfig",
            value,
            format!("{} is not one of ['AUTO', 'MANUAL']", input::repr(value)),
        )),
    }
}

fn parse_update(body: &Value) -> Result<Update> {
    let mut outer = input::Fields::body(body)?;
    let mut fields = outer.object("server")?;
    outer.finish()?;
    let description = match fields.opt("description") {
        None => None,
        Some(Value::Null) => Some(None),
        Some(value) => Some(Some(input::text("description", value, 0, 255)?)),
    };
    let update = Update {
        name: fields.name("name")?,
        description,
        access_ip_v4: access_ip(&mut fields, "accessIPv4", true)?,
        access_ip_v6: access_ip(&mut fields, "accessIPv6", false)?,
        disk_config: disk_config(&mut fields)?,
    };
    fields.finish()?;
    Ok(update)
}

pub async fn update(state: Arc<Compute>, mut call: Call) -> Result<Reply> {
    let (ask, body) = ask::read(&mut call, super::CHANGES).await?;
    let update = parse_update(&body)?;
    let inner = state.clone();
    let text = state
        .write(&ask, move |tx, ask| {
            let mut full = find(tx, ask)?;
            let server = &mut full.server.doc;
            let update = update.clone();
            if let Some(name) = update.name.filter(|name| *name != server.name) {
                server.name = name;
                server.touch();
            }
            server.description = update.description.unwrap_or(server.description.take());
            server.access_ip_v4 = update.access_ip_v4.unwrap_or(server.access_ip_v4.take());
            server.access_ip_v6 = update.access_ip_v6.unwrap_or(server.access_ip_v6.take());
            server.disk_config = update.disk_config.unwrap_or_else(|| server.disk_config.clone());
            if tx.update(&full.server.doc)? {
                full.server.updated = tx.now();
            }
            shown(&inner, tx, ask, &full)
        })
        .await?;
    Ok(Reply::json_bytes(200, text))
}

/// Refuses what a locked server does not take, except from who may override locks.
pub fn refuse_locked(ask: &Ask, server: &Stored<Server>) -> Result<()> {
    if server.lock.is_none() {
        return Ok(());
    }
    let target = Target::project(server.project_id.as_str());
    if ask.may("os_compute_api:os-lock-server:unlock:unlock_override", &target) {
        return Ok(());
    }
    Err(Fault::conflict(format!("Instance {} is locked", server.id)))
}

pub async fn delete(state: Arc<Compute>, call: Call) -> Result<Reply> {
    let ask = Ask::of(&call);
    let inner = state.clone();
    state
        .write(&ask, move |tx, ask| {
            let full = find(tx, ask)?;
            refuse_locked(ask, &full.server)?;
            match inner.options.reclaim_interval_s > 0 && full.server.soft_deleted.is_none() {
                true => soft::delete(tx, ask, full.server),
                false => begin_delete(&inner, tx, ask, full.server),
            }
        })
        .await?;
    Ok(Reply::empty(204))
}

/// Deletes at once: neither softly nor by way of the trash.
pub async fn force_delete(state: &Arc<Compute>, ask: &Ask, rule: &'static str) -> Result<Reply> {
    let inner = state.clone();
    super::actions::change(state, ask, rule, move |tx, ask, full| {
        refuse_locked(ask, &full.server)?;
        tx.skip_trash();
        // A host that does not answer, or does not get it done, is not waited for where an administrator says so.
        let silent = full.server.host.as_ref().is_some_and(|host| !inner.hosts.is_alive(host));
        if ask.is_admin() && (silent || (full.server.power == Power::Absent && full.server.is_overdue())) {
            return bury(&inner, tx, ask, full.server);
        }
        begin_delete(&inner, tx, ask, full.server)
    })
    .await?;
    Ok(Reply::empty(204))
}

/// Removes a server without its host. A tombstone stays, so that the host removes the guest when it answers again.
fn bury(state: &Compute, tx: &mut Tx, ask: &Ask, mut server: Stored<Server>) -> Result<()> {
    if server.power != Power::Absent {
        server.doc.ask(Verb::Delete, tx.now());
        history::begin(tx, ask, &server, "delete", Some(server.generation))?;
        tx.update(&server.doc)?;
    }
    if let Some(host) = server.host.clone() {
        tracing::warn!(server = %server.id, %host, "removed by an administrator without its host");
        tx.put(&Tombstone::new(server.id.clone(), host, server.generation + 1))?;
    }
    let resting = server.host.is_some().then_some(server.generation + 1);
    super::observe::remove(state, tx, server, resting)
}

/// Passwords that a guest would have encrypted for its owner: this cloud's guests send none.
pub async fn password(state: Arc<Compute>, call: Call) -> Result<Reply> {
    let ask = Ask::of(&call);
    state.read(&ask, |reader, ask| find(reader, ask).map(drop)).await?;
    Reply::json(200, &json!({"password": ""}))
}

pub async fn clear_password(state: Arc<Compute>, call: Call) -> Result<Reply> {
    let ask = Ask::of(&call);
    state.read(&ask, |reader, ask| find(reader, ask).map(drop)).await?;
    Ok(Reply::empty(204))
}

/// Lays the server into the trash, where there is one. Otherwise asks for its absence; one that no host ever saw goes
/// at once.
fn begin_delete(state: &Compute, tx: &mut Tx, ask: &Ask, server: Stored<Server>) -> Result<()> {
    if server.power == Power::Absent {
        return Ok(());
    }
    let (user, request) = (ask.caller.user_id(), ask.request_id.clone());
    delete_for(state, tx, user.as_str(), request.as_str(), server)
}

/// As [`begin_delete`], for whoever has checked that it may be.
pub(super) fn delete_for(
    state: &Compute,
    tx: &mut Tx,
    user: &str,
    request: &str,
    mut server: Stored<Server>,
) -> Result<()> {
    server.doc.ask(Verb::Delete, tx.now());
    if tx.has_trash() && server.host.is_some() {
        history::write(tx, &server, user, request, "delete", None, None)?;
        return super::trash::lay(state, tx, server);
    }
    let generation = Some(server.generation);
    history::write(tx, &server, user, request, "delete", generation, None)?;
    tx.update(&server.doc)?;
    if server.host.is_none() {
        super::observe::remove(state, tx, server, None)?;
    }
    Ok(())
}

/// What clients of an old version read where a server does not fit a verb.
pub fn refuse_state(action: &str, id: &str, attribute: &str, value: &str) -> Fault {
    Fault::conflict(format!("Cannot '{action}' instance {id} while it is in {attribute} {value}"))
}
