//! A server's addresses, interfaces and security groups: all of them belong to the network, behind [`contract::Ports`].

use super::attributes::device_tag;
use super::render::{Addresses, group_names};
use super::{Full, actions, find, history, ops};
use crate::input::{self, Fields, drop_field};
use crate::{Ask, Compute, ask};
use base::{Fault, FaultKind, PortId, Result};
use contract::{NetworkRequest, RequestedNetwork, ServerPort};
use rest::{Access, Call, Change, Method, Reply, Route, Version};
use serde_json::{Value, json};
use std::sync::Arc;

pub const CHANGES: &[Change] = &[
    Change {
        since: Version(2, 49),
        operations: &["interfaces:create"],
        request: Some(|body| input::refuse_new(body, "interfaceAttachment", "tag")),
        response: None,
    },
    Change {
        since: Version(2, 70),
        operations: &["interfaces:list", "interfaces:show", "interfaces:create"],
        request: None,
        response: Some(without_tag),
    },
];

fn without_tag(body: &mut Value) {
    if let Some(one) = body.get_mut("interfaceAttachment") {
        drop_field(one, "tag");
    }
    for one in body.get_mut("interfaceAttachments").and_then(Value::as_array_mut).into_iter().flatten() {
        drop_field(one, "tag");
    }
}

pub fn routes(state: &Arc<Compute>) -> Vec<Route> {
    let rule = |name| Access::Rule(name);
    let (all, one) = ("/servers/{server_id}/os-interface", "/servers/{server_id}/os-interface/{port_id}");
    vec![
        Route::new(
            state,
            Method::GET,
            "/servers/{server_id}/ips",
            "ips:list",
            rule("os_compute_api:ips:index"),
            200,
            ips,
        ),
        Route::new(
            state,
            Method::GET,
            "/servers/{server_id}/ips/{network}",
            "ips:show",
            rule("os_compute_api:ips:show"),
            200,
            ips_of_network,
        ),
        Route::new(
            state,
            Method::GET,
            all,
            "interfaces:list",
            rule("os_compute_api:os-attach-interfaces:list"),
            200,
            interfaces,
        ),
        Route::new(
            state,
            Method::POST,
            all,
            "interfaces:create",
            rule("os_compute_api:os-attach-interfaces:create"),
            200,
            attach,
        ),
        Route::new(
            state,
            Method::GET,
            one,
            "interfaces:show",
            rule("os_compute_api:os-attach-interfaces:show"),
            200,
            interface,
        ),
        Route::new(
            state,
            Method::DELETE,
            one,
            "interfaces:delete",
            rule("os_compute_api:os-attach-interfaces:delete"),
            202,
            detach,
        ),
        Route::new(
            state,
            Method::GET,
            "/servers/{server_id}/os-security-groups",
            "server_groups:list",
            rule("os_compute_api:os-security-groups:list"),
            200,
            groups,
        ),
    ]
}

async fn load(state: &Arc<Compute>, ask: &Ask) -> Result<(Full, Vec<ServerPort>)> {
    let inner = state.clone();
    state
        .read(ask, move |reader, ask| {
            let full = find(reader, ask)?;
            let ports = inner.ports.of_server(reader, &full.server.id)?;
            Ok((full, ports))
        })
        .await
}

/// Here an address is shown without its kind and MAC.
fn plain(addresses: Value) -> Value {
    let mut addresses = addresses;
    for entry in addresses.as_object_mut().into_iter().flatten().filter_map(|(_, list)| list.as_array_mut()).flatten() {
        drop_field(entry, "OS-EXT-IPS:type");
        drop_field(entry, "OS-EXT-IPS-MAC:mac_addr");
    }
    addresses
}

async fn ips(state: Arc<Compute>, call: Call) -> Result<Reply> {
    let (_, ports) = load(&state, &Ask::of(&call)).await?;
    Reply::json(200, &json!({"addresses": plain(json!(Addresses(&ports)))}))
}

async fn ips_of_network(state: Arc<Compute>, call: Call) -> Result<Reply> {
    let ask = Ask::of(&call);
    let (_, ports) = load(&state, &ask).await?;
    let mut addresses = plain(json!(Addresses(&ports)));
    let name = ask.param("network");
    match addresses.as_object_mut().and_then(|map| map.remove(name)) {
        Some(list) => Reply::json(200, &json!({name: list})),
        None => Err(Fault::not_found(format!("Instance is not a member of network {name}"))),
    }
}

fn view(port: &ServerPort) -> Value {
    let fixed = |fixed: &contract::FixedAddress| json!({"subnet_id": fixed.subnet, "ip_address": fixed.address});
    json!({
        "port_id": port.id,
        "net_id": port.network,
        "mac_addr": port.mac,
        "port_state": if port.up { "ACTIVE" } else { "DOWN" },
        "fixed_ips": port.fixed.iter().map(fixed).collect::<Vec<_>>(),
        "tag": port.tag,
    })
}

async fn interfaces(state: Arc<Compute>, call: Call) -> Result<Reply> {
    let ask = Ask::of(&call);
    let (_, ports) = load(&state, &ask).await?;
    ask.answer(CHANGES, 200, json!({"interfaceAttachments": ports.iter().map(view).collect::<Vec<_>>()}))
}

fn no_port(ask: &Ask) -> Fault {
    Fault::not_found(format!(
        "Instance {} does not have a port with id {}",
        ask.param("server_id"),
        ask.param("port_id")
    ))
}

async fn interface(state: Arc<Compute>, call: Call) -> Result<Reply> {
    let ask = Ask::of(&call);
    let (_, ports) = load(&state, &ask).await?;
    let port = ports.iter().find(|port| port.id.as_str() == ask.param("port_id")).ok_or_else(|| no_port(&ask))?;
    ask.answer(CHANGES, 200, json!({"interfaceAttachment": view(port)}))
}

fn parse_attach(body: &Value) -> Result<NetworkRequest> {
    let mut outer = Fields::body(body)?;
    let mut fields = outer.object("interfaceAttachment")?;
    outer.finish()?;
    let (network, port) = (fields.uuid("net_id")?, fields.uuid("port_id")?);
    let mut fixed_ip = None;
    if let Some(list) = fields.array("fixed_ips")? {
        let [one] = list.as_slice() else {
            return Err(Fault::invalid(
                "Invalid input for field/attribute fixed_ips: exactly one address can be asked for.",
            ));
        };
        let mut address = Fields::of("fixed_ips", one)?;
        let value = address.need("ip_address")?;
        let text = input::text("ip_address", value, 1, 64)?;
        if text.parse::<std::net::IpAddr>().is_err() {
            return Err(input::refuse("ip_address", value, format!("'{text}' is not a 'ipv4' or 'ipv6'")));
        }
        address.finish()?;
        fixed_ip = Some(text);
    }
    let tag = device_tag(&mut fields)?;
    fields.finish()?;
    match (network, port) {
        (Some(_), Some(_)) => Err(Fault::invalid("Must not input both network_id and port_id")),
        (None, _) if fixed_ip.is_some() => Err(Fault::invalid("Must input network_id when request IP address")),
        (None, None) => Ok(NetworkRequest::Auto),
        (network, port) => {
            let network =
                RequestedNetwork { network: network.map(Into::into), port: port.map(Into::into), fixed_ip, tag };
            Ok(NetworkRequest::List(vec![network]))
        }
    }
}

/// Which states take a change of interfaces.
fn refuse_change(ask: &Ask, full: &Full, action: &str) -> Result<()> {
    ops::refuse_locked(ask, &full.server)?;
    let now = full.state();
    if !matches!(now.vm_state, "active" | "paused" | "stopped") {
        return Err(ops::refuse_state(action, &full.server.id, "vm_state", now.vm_state));
    }
    match now.task_state {
        Some(task) => Err(ops::refuse_state(action, &full.server.id, "task_state", task)),
        None => Ok(()),
    }
}

async fn attach(state: Arc<Compute>, mut call: Call) -> Result<Reply> {
    let (ask, body) = ask::read(&mut call, CHANGES).await?;
    let request = parse_attach(&body)?;
    let inner = state.clone();
    let port = state
        .write(&ask, move |tx, ask| {
            let full = find(tx, ask)?;
            refuse_change(ask, &full, "attach_interface")?;
            let mut server = full.server.doc;
            let before: Vec<PortId> = inner.ports.of_server(tx, &server.id)?.into_iter().map(|port| port.id).collect();
            inner
                .ports
                .attach(tx, &ask.caller, &server.project_id, &server.id, &server.hostname, &request, &[])
                .map_err(|fault| match fault.kind {
                    FaultKind::NotFound => Fault { status: None, ..fault },
                    _ => fault,
                })?;
            let host = server.host.clone();
            inner.ports.bind(tx, &server.id, host.as_ref())?;
            server.touch();
            history::begin(tx, ask, &server, "attach_interface", None)?;
            tx.update(&server)?;
            let after = inner.ports.of_server(tx, &server.id)?;
            let new = after.into_iter().find(|port| !before.contains(&port.id));
            new.ok_or_else(|| Fault::invalid("No network is available to attach to."))
        })
        .await?;
    ask.answer(CHANGES, 200, json!({"interfaceAttachment": view(&port)}))
}

async fn detach(state: Arc<Compute>, call: Call) -> Result<Reply> {
    let ask = Ask::of(&call);
    let inner = state.clone();
    state
        .write(&ask, move |tx, ask| {
            let full = find(tx, ask)?;
            refuse_change(ask, &full, "detach_interface")?;
            let mut server = full.server.doc;
            inner.ports.detach(tx, &server.id, &PortId::new(ask.param("port_id"))).map_err(|fault| {
                match fault.kind {
                    FaultKind::NotFound => no_port(ask),
                    _ => fault,
                }
            })?;
            server.touch();
            history::begin(tx, ask, &server, "detach_interface", None)?;
            tx.update(&server)?;
            Ok(())
        })
        .await?;
    Ok(Reply::empty(202))
}

async fn groups(state: Arc<Compute>, call: Call) -> Result<Reply> {
    let (full, ports) = load(&state, &Ask::of(&call)).await?;
    let names = group_names(&ports);
    let id = |name: &str| {
        let all = ports.iter().flat_map(|port| &port.security_groups);
        all.clone().find(|(_, known)| known == name).map(|(id, _)| id.to_string())
    };
    let view = |name: &&str| json!({"id": id(name), "name": name, "tenant_id": full.server.project_id, "description": "", "rules": []});
    Reply::json(200, &json!({"security_groups": names.iter().map(view).collect::<Vec<_>>()}))
}

/// `addSecurityGroup` and `removeSecurityGroup`.
pub async fn group(state: &Arc<Compute>, ask: &Ask, rule: &'static str, value: &Value, add: bool) -> Result<Reply> {
    let name = if add { "addSecurityGroup" } else { "removeSecurityGroup" };
    let mut fields = Fields::of(name, value)?;
    let group = input::name("name", fields.need("name")?)?;
    // The schema of these two actions lets other fields pass.
    let inner = state.clone();
    actions::change(state, ask, rule, move |tx, ask, full| {
        ops::refuse_locked(ask, &full.server)?;
        let server = &full.server.id;
        if add {
            inner.ports.add_security_group(tx, &ask.caller, server, &group)?;
        } else {
            inner.ports.remove_security_group(tx, &ask.caller, server, &group)?;
        }
        Ok(())
    })
    .await?;
    Ok(Reply::empty(202))
}
