//! Instance actions: what was asked of a server, by whom, and how it ended.
//!
//! An action that takes time is open until its server has reached the action's generation; the observation that says
//! so closes it in the same commit.

use super::document::{DeletedServer, Server};
use super::{find_for, missing, pending, render};
use crate::input::{drop_field, time};
use crate::{Ask, Compute};
use base::{Fault, Result, ServerId, Timestamp};
use policy::Target;
use rest::{Access, Call, Change, Method, Page, PageRequest, Reply, Route, Version};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::sync::Arc;
use store::{Document, Keys, Query, Reader, Stored, Tx};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct InstanceAction {
    pub id: String,
    pub server_id: ServerId,
    pub project_id: String,
    pub user_id: String,
    pub request_id: String,
    pub action: String,
    pub message: Option<String>,
    /// The generation of the server that ends it.
    pub generation: u64,
    pub host: Option<String>,
    pub finish: Option<Timestamp>,
    pub success: bool,
}

impl Document for InstanceAction {
    const KIND: &'static str = "instance_action";
    /// A log.
    const UNDO: bool = false;
    fn id(&self) -> &str {
        &self.id
    }
    fn project_id(&self) -> &str {
        &self.project_id
    }
    fn keys(&self, keys: &mut Keys) {
        keys.index("server", self.server_id.as_str());
        if self.finish.is_none() {
            keys.index("open", self.server_id.as_str());
        }
    }
}

/// The generation of an action that does not end with one of the server's.
pub const UNTIL_TOLD: u64 = u64::MAX;

/// Writes down that something was asked of a server. Without a generation it is done already.
pub fn begin(tx: &mut Tx, ask: &Ask, server: &Server, action: &str, generation: Option<u64>) -> Result<()> {
    let user = ask.caller.user_id();
    write(tx, server, user.as_str(), &ask.request_id, action, generation, None)
}

/// Writes down what a job will close: returns the action's id.
pub fn begin_for(tx: &mut Tx, ask: &Ask, server: &Server, action: &str) -> Result<String> {
    let action = InstanceAction {
        id: tx.uuid(),
        server_id: server.id.clone(),
        project_id: server.project_id.to_string(),
        user_id: ask.caller.user_id().to_string(),
        request_id: ask.request_id.to_string(),
        action: action.to_owned(),
        message: None,
        generation: UNTIL_TOLD,
        host: server.host.as_ref().map(|host| host.to_string()),
        finish: None,
        success: true,
    };
    tx.create(&action)?;
    Ok(action.id)
}

pub fn write(
    tx: &mut Tx,
    server: &Server,
    user: &str,
    request: &str,
    action: &str,
    generation: Option<u64>,
    message: Option<String>,
) -> Result<()> {
    let action = InstanceAction {
        id: tx.uuid(),
        server_id: server.id.clone(),
        project_id: server.project_id.to_string(),
        user_id: user.to_owned(),
        request_id: request.to_owned(),
        action: action.to_owned(),
        message,
        generation: generation.unwrap_or(0),
        host: server.host.as_ref().map(|host| host.to_string()),
        finish: generation.is_none().then(|| tx.now()),
        success: true,
    };
    tx.create(&action)?;
    Ok(())
}

/// Closes what was begun until told.
pub fn done(tx: &mut Tx, server: &ServerId, action: &str) -> Result<()> {
    for open in tx.list::<InstanceAction>(Query::index("open", server.as_str()))? {
        if open.action == action {
            let finish = Some(tx.now());
            tx.update(&InstanceAction { finish, ..open.doc })?;
        }
    }
    Ok(())
}

/// Closes the open actions up to a generation. An action that a later one overtook has ended as well as it could.
pub fn close(tx: &mut Tx, server: &ServerId, generation: u64, failed: bool) -> Result<()> {
    for action in tx.list::<InstanceAction>(Query::index("open", server.as_str()))? {
        if action.generation <= generation {
            let success = !(failed && action.generation == generation);
            let finish = Some(tx.now());
            tx.update(&InstanceAction { finish, success, ..action.doc })?;
        }
    }
    Ok(())
}

/// Says something of what is under way with a server.
pub fn remark(tx: &mut Tx, server: &Server, message: &str) -> Result<()> {
    for action in tx.list::<InstanceAction>(Query::index("open", server.id.as_str()))? {
        let host = server.host.as_ref().map(|host| host.to_string());
        tx.update(&InstanceAction { message: Some(message.to_owned()), host, ..action.doc })?;
    }
    Ok(())
}

/// Forgets everything that was done with a server.
pub fn forget(tx: &mut Tx, server: &str) -> Result<()> {
    for action in tx.list::<InstanceAction>(Query::index("server", server))? {
        tx.delete::<InstanceAction>(&action.id)?;
    }
    Ok(())
}

pub const CHANGES: &[Change] = &[
    Change {
        since: Version(2, 58),
        operations: &["actions:list", "actions:show"],
        request: None,
        response: Some(without_updated),
    },
    Change { since: Version(2, 62), operations: &["actions:show"], request: None, response: Some(without_hosts) },
    Change { since: Version(2, 84), operations: &["actions:show"], request: None, response: Some(without_details) },
];

fn without_updated(body: &mut Value) {
    if let Some(action) = body.get_mut("instanceAction") {
        drop_field(action, "updated_at");
    }
    for action in body.get_mut("instanceActions").and_then(Value::as_array_mut).into_iter().flatten() {
        drop_field(action, "updated_at");
    }
}

fn events(body: &mut Value) -> impl Iterator<Item = &mut Value> {
    body["instanceAction"].get_mut("events").and_then(Value::as_array_mut).into_iter().flatten()
}

fn without_hosts(body: &mut Value) {
    for event in events(body) {
        drop_field(event, "host");
        drop_field(event, "hostId");
    }
}

fn without_details(body: &mut Value) {
    events(body).for_each(|event| drop_field(event, "details"));
}

pub fn routes(state: &Arc<Compute>) -> Vec<Route> {
    let (list_rule, show_rule) = (
        Access::Rule("os_compute_api:os-instance-actions:list"),
        Access::Rule("os_compute_api:os-instance-actions:show"),
    );
    let path = "/servers/{server_id}/os-instance-actions";
    vec![
        Route::new(state, Method::GET, path, "actions:list", list_rule, 200, list),
        Route::new(
            state,
            Method::GET,
            "/servers/{server_id}/os-instance-actions/{request_id}",
            "actions:show",
            show_rule,
            200,
            show,
        ),
    ]
}

/// The server, or (from 2.21 on) the project of a deleted one.
fn check(reader: &mut Reader, ask: &Ask) -> Result<()> {
    let id = ask.param("server_id");
    match find_for(reader, ask, id, ask.rule) {
        Ok(_) => Ok(()),
        Err(fault) if fault.kind == base::FaultKind::NotFound && ask.version >= Version(2, 21) => {
            let deleted = reader.get::<DeletedServer>(id)?.ok_or(fault)?;
            let target = Target::project(deleted.server.project_id.as_str());
            if ask.may(ask.rule, &target) { Ok(()) } else { Err(missing(id)) }
        }
        Err(fault) => Err(fault),
    }
}

fn view(action: &Stored<InstanceAction>) -> Value {
    json!({
        "action": action.action,
        "instance_uuid": action.server_id,
        "request_id": action.request_id,
        "user_id": action.user_id,
        "project_id": action.project_id,
        "start_time": action.created.iso_naive(),
        "message": if action.success { Value::Null } else { json!("Error") },
        "updated_at": action.finish.unwrap_or(action.created).iso_naive(),
    })
}

async fn list(state: Arc<Compute>, call: Call) -> Result<Reply> {
    let ask = Ask::of(&call);
    let paged = ask.version >= Version(2, 58);
    ask.known_query(&["limit", "marker", "changes-since", "changes-before"])?;
    let mut actions = state
        .read(&ask, |reader, ask| {
            check(reader, ask)?;
            Ok(reader.list::<InstanceAction>(Query::index("server", ask.param("server_id")).reverse())?)
        })
        .await?;
    if !paged {
        let body = json!({"instanceActions": actions.iter().map(view).collect::<Vec<_>>()});
        return ask.answer(CHANGES, 200, body);
    }
    let changed = |action: &Stored<InstanceAction>| action.finish.unwrap_or(action.created);
    if let Some(since) = time(&ask.query, "changes-since")? {
        actions.retain(|action| changed(action) >= since);
    }
    if let Some(before) = time(&ask.query, "changes-before")?.filter(|_| ask.version >= Version(2, 66)) {
        actions.retain(|action| changed(action) <= before);
    }
    let page = Page::cut(actions, &PageRequest::read(&ask.query)?, |action| action.request_id.as_str())?;
    let mut body = json!({"instanceActions": page.items.iter().map(view).collect::<Vec<_>>()});
    if let Some(last) = page.items.last().filter(|_| page.more) {
        let path = format!("/servers/{}/os-instance-actions", ask.param("server_id"));
        body["links"] = ask.next_link(&path, &last.request_id);
    }
    ask.answer(CHANGES, 200, body)
}

/// Nova's name of the step that does an action.
fn event_name(action: &str) -> String {
    match action {
        "create" => "compute__do_build_and_run_instance".to_owned(),
        "delete" => "compute_terminate_instance".to_owned(),
        "attach_interface" | "detach_interface" | "attach_volume" | "detach_volume" | "extend_volume" => {
            format!("compute_{action}")
        }
        "lock" | "unlock" => format!("api_{action}"),
        other => format!("compute_{other}_instance"),
    }
}

/// What an action that is under way waits for.
fn waits(state: &Compute, reader: &mut Reader, ask: &Ask) -> Result<Option<String>> {
    let full = find_for(reader, ask, ask.param("server_id"), ask.rule)?;
    let seen = full.observed.as_ref().map(|seen| &seen.doc);
    let waiting = pending::waiting(state, reader, &full.server, seen, ask.is_admin())?;
    Ok(waiting.map(|waiting| waiting.sentence()))
}

async fn show(state: Arc<Compute>, call: Call) -> Result<Reply> {
    let ask = Ask::of(&call);
    let inner = state.clone();
    let (action, waits) = state
        .read(&ask, move |reader, ask| {
            check(reader, ask)?;
            let actions = reader.list::<InstanceAction>(Query::index("server", ask.param("server_id")))?;
            let found = actions.into_iter().find(|action| action.request_id == ask.param("request_id"));
            let action = found.ok_or_else(|| {
                Fault::not_found(format!(
                    "Action for request_id {} on instance {} not found",
                    ask.param("request_id"),
                    ask.param("server_id")
                ))
            })?;
            let waits = if action.finish.is_none() { waits(&inner, reader, ask)? } else { None };
            Ok((action, waits))
        })
        .await?;
    let mut body = json!({"instanceAction": view(&action)});
    let details = ask.may("os_compute_api:os-instance-actions:events", &Target::project(action.project_id.as_str()));
    if details || ask.version >= Version(2, 51) {
        let mut event = json!({
            "event": event_name(&action.action),
            "start_time": action.created.iso_naive(),
            "finish_time": action.finish.map(Timestamp::iso_naive),
            "result": action.finish.map(|_| if action.success { "Success" } else { "Error" }),
            "hostId": render::host_id(&action.project_id, action.host.as_deref()),
            "details": waits.or_else(|| action.message.clone()),
        });
        if details {
            event["traceback"] = Value::Null;
            event["host"] = json!(action.host);
        }
        body["instanceAction"]["events"] = json!([event]);
    }
    ask.answer(CHANGES, 200, body)
}
