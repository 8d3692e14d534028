//! `POST /servers`: everything that can be refused is refused here; then one commit holds the servers, their ports and
//! their quota. A single server gets its host in it, too, where one has room; otherwise [`super::Placer`] looks on.

use super::attributes::device_tag;
use super::document::{Server, ServerFault, ServerFlavor, ServerSecret};
use super::block_devices::{self, Disks};
use super::plan::would_place;
use super::{changes, history, ops, place};
use crate::flavors::Flavor;
use crate::input::{self, Fields};
use crate::{Ask, Compute, ask, flavors, hosts, keypairs, quota};
use agent_api::RootDisk;
use base::{Fault, FaultKind, HostName, ProjectId, Result, ServerId};
use base64::Engine;
use contract::{ForServer, ImageInfo, NetworkRequest, RequestedNetwork};
use model::server::{Power, Verb};
use rest::{Call, Reply, Version, header};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;
use store::Tx;

/// The most servers of one request.
const MOST_SERVERS: i64 = 1000;
const GIB: u64 = 1 << 30;

/// A request that holds to the schema.
#[derive(Clone, Debug)]
struct Wanted {
    name: String,
    description: Option<String>,
    disks: Disks,
    flavor: String,
    admin_pass: Option<String>,
    metadata: BTreeMap<String, String>,
    networks: NetworkRequest,
    disk_config: String,
    access_ip_v4: Option<String>,
    access_ip_v6: Option<String>,
    zone: Option<String>,
    host: Option<HostName>,
    destination: Option<HostName>,
    config_drive: bool,
    key_name: Option<String>,
    min_count: i64,
    max_count: i64,
    return_reservation_id: bool,
    security_groups: Vec<String>,
    user_data: Option<String>,
    tags: Vec<String>,
}

pub async fn create(state: Arc<Compute>, mut call: Call) -> Result<Reply> {
    let (ask, body) = ask::read(&mut call, changes::CHANGES).await?;
    ask.enforce_own()?;
    let project = ask.project()?;
    let wanted = parse(&ask, &body)?;
    if wanted.host.is_some() {
        ask.enforce_rule("os_compute_api:servers:create:forced_host", &ask.own())?;
    }
    if wanted.destination.is_some() {
        ask.enforce_rule("compute:servers:create:requested_destination", &ask.own())?;
    }
    let admin_pass = wanted.admin_pass.clone().unwrap_or_else(|| state.env.secret_hex(6));
    let inner = state.clone();
    let pass = admin_pass.clone();
    let wanted_in = wanted.clone();
    let plan = store::scope::dry();
    let dry = plan.is_some();
    let (servers, place) = state
        .write(&ask, move |tx, ask| {
            let servers = make(&inner, tx, ask, &project, &wanted_in, &pass)?;
            // Before any room is taken, so that the plan can say which host has any.
            let place = if dry { Some(would_place(&inner, tx, &servers)?) } else { None };
            // Many at once are the loop's, one after the other: others want to write, too.
            if let [server] = servers.as_slice() {
                place::at_once(&inner, tx, server)?;
            }
            Ok((servers, place))
        })
        .await?;
    if let (Some(plan), Some(place)) = (plan, place) {
        plan.note(place);
    }
    let first = servers.first().ok_or_else(|| Fault::bug("a request for servers made none"))?;
    if wanted.return_reservation_id {
        return Reply::json(202, &json!({"reservation_id": first.reservation_id}));
    }
    let groups: Vec<String> =
        if wanted.security_groups.is_empty() { vec!["default".into()] } else { wanted.security_groups };
    let path = format!("/servers/{}", first.id);
    let body = json!({"server": {
        "id": first.id,
        "links": ask.links(&path),
        "OS-DCF:diskConfig": first.disk_config,
        "security_groups": groups.iter().map(|name| json!({"name": name})).collect::<Vec<_>>(),
        "adminPass": admin_pass,
    }});
    Ok(Reply::json(202, &body)?.header(header::LOCATION, ask.link(&path)))
}

fn parse(ask: &Ask, body: &Value) -> Result<Wanted> {
    let mut outer = Fields::body(body)?;
    let mut fields = outer.object("server")?;
    for hints in ["os:scheduler_hints", "OS-SCH-HNT:scheduler_hints"] {
        outer.opt(hints).map(|value| Fields::of(hints, value)).transpose()?;
    }
    outer.finish()?;
    let name = input::name("name", fields.need("name")?)?;
    let flavor = match fields.need("flavorRef")? {
        Value::Number(number) => number.to_string(),
        value => input::text("flavorRef", value, 1, 4096)?,
    };
    // A link is taken for the id at its end, as Nova does.
    let flavor = flavor.rsplit('/').next().unwrap_or_default().to_owned();
    let (zone, host) = parse_zone(fields.name("availability_zone")?)?;
    let disks = block_devices::parse(ask, &mut fields)?;
    let min_count = fields.integer("min_count", 1, MOST_SERVERS)?;
    let max_count = fields.integer("max_count", 1, MOST_SERVERS)?;
    let destination = parse_destination(&mut fields)?;
    if destination.is_some() && host.is_some() {
        return Err(Fault::invalid(
            "One mechanism with host and/or hypervisor_hostname and another mechanism with zone:host:node are mutually exclusive.",
        ));
    }
    let wanted = Wanted {
        name,
        description: fields.text_or_null("description", 0, 255)?,
        disks,
        flavor,
        admin_pass: fields.text("adminPass", 1, 255)?,
        metadata: fields.metadata("metadata")?.unwrap_or_default(),
        networks: parse_networks(ask, &mut fields)?,
        disk_config: ops::disk_config(&mut fields)?.unwrap_or_else(|| "MANUAL".to_owned()),
        access_ip_v4: ops::access_ip(&mut fields, "accessIPv4", true)?.flatten(),
        access_ip_v6: ops::access_ip(&mut fields, "accessIPv6", false)?.flatten(),
        zone,
        host,
        destination,
        config_drive: parse_config_drive(&mut fields)?,
        key_name: fields.name("key_name")?,
        min_count: min_count.unwrap_or(1),
        max_count: max_count.or(min_count).unwrap_or(1),
        return_reservation_id: fields.boolean("return_reservation_id")?.unwrap_or(false),
        security_groups: parse_groups(&mut fields)?,
        user_data: parse_user_data(&mut fields)?,
        tags: super::attributes::parse_tags(fields.opt("tags"))?,
    };
    refuse_certificates(&mut fields)?;
    fields.finish()?;
    if wanted.min_count > wanted.max_count {
        return Err(Fault::invalid("min_count must be <= max_count"));
    }
    refuse_sharing(&wanted)?;
    Ok(wanted)
}

/// A port, a fixed address or a volume can be given to one server only.
fn refuse_sharing(wanted: &Wanted) -> Result<()> {
    if wanted.max_count > 1 && wanted.disks.are_single() {
        return Err(Fault::invalid("Cannot attach one or more volumes to multiple instances"));
    }
    let NetworkRequest::List(list) = &wanted.networks else { return Ok(()) };
    if wanted.max_count > 1 && list.iter().any(|network| network.port.is_some()) {
        return Err(Fault::invalid(
            "Unable to launch multiple instances with a single configured port ID. Please launch your instance one by one with different ports.",
        ));
    }
    if wanted.max_count > 1 && list.iter().any(|network| network.fixed_ip.is_some()) {
        return Err(Fault::invalid("max_count cannot be greater than 1 if an fixed_ip is specified."));
    }
    Ok(())
}

fn refuse_certificates(fields: &mut Fields<'_>) -> Result<()> {
    match fields.opt("trusted_image_certificates") {
        None | Some(Value::Null) => Ok(()),
        Some(value) if value.as_array().is_some_and(Vec::is_empty) => Ok(()),
        Some(value) => {
            Err(input::refuse("trusted_image_certificates", value, "Image signatures are not verified by this cloud"))
        }
    }
}

fn parse_config_drive(fields: &mut Fields<'_>) -> Result<bool> {
    match fields.opt("config_drive") {
        None | Some(Value::Null) => Ok(false),
        Some(value) if value == "" => Ok(false),
        Some(value) => input::boolean("config_drive", value),
    }
}

/// `zone`, or `zone:host`, or `zone:host:node`.
fn parse_zone(zone: Option<String>) -> Result<(Option<String>, Option<HostName>)> {
    let Some(zone) = zone else { return Ok((None, None)) };
    let mut parts = zone.split(':').map(str::to_owned);
    let (name, host, node) = (parts.next(), parts.next(), parts.next());
    if parts.next().is_some() {
        return Err(Fault::invalid("Invalid availability_zone: it is one of ZONE, ZONE:HOST and ZONE:HOST:NODE"));
    }
    let host = [host, node].into_iter().flatten().rfind(|name| !name.is_empty());
    Ok((name.filter(|name| !name.is_empty()), host.map(HostName::new)))
}

fn parse_destination(fields: &mut Fields<'_>) -> Result<Option<HostName>> {
    let host = fields.text("host", 1, 255)?;
    let hypervisor = fields.text("hypervisor_hostname", 1, 255)?;
    match (host, hypervisor) {
        (Some(host), Some(hypervisor)) if host != hypervisor => Err(Fault::invalid(format!(
            "No compute host {host} with the hypervisor {hypervisor}: on this cloud both have one name."
        ))),
        (host, hypervisor) => Ok(host.or(hypervisor).map(HostName::new)),
    }
}

fn parse_networks(ask: &Ask, fields: &mut Fields<'_>) -> Result<NetworkRequest> {
    let list = match fields.need("networks")? {
        Value::String(word) if word == "auto" => return Ok(NetworkRequest::Auto),
        Value::String(word) if word == "none" => return Ok(NetworkRequest::None),
        Value::Array(list) => list,
        value => {
            let why = format!("{} is not valid under any of the given schemas", input::repr(value));
            return Err(input::refuse("networks", value, why));
        }
    };
    if list.len() > 64 {
        return Err(Fault::invalid("A server may have at most 64 networks."));
    }
    let list: Vec<RequestedNetwork> = list.iter().map(|value| parse_network(ask, value)).collect::<Result<_>>()?;
    // From 2.37 on an empty list is what it says.
    Ok(if list.is_empty() { NetworkRequest::None } else { NetworkRequest::List(list) })
}

fn parse_network(ask: &Ask, value: &Value) -> Result<RequestedNetwork> {
    let mut fields = Fields::of("networks", value)?;
    let uuid = fields.text_or_null("uuid", 0, 255)?;
    let port = fields.text_or_null("port", 0, 255)?;
    let fixed_ip = fields.text_or_null("fixed_ip", 0, 64)?;
    // Between 2.37 and 2.41 tags were lost by mistake.
    let tagged = !(ask.version >= Version(2, 37) && ask.version < Version(2, 42));
    let tag = if tagged { device_tag(&mut fields)? } else { None };
    fields.finish()?;
    for id in [&uuid, &port].into_iter().flatten() {
        if !base::is_uuid(id) {
            return Err(Fault::invalid(format!("Bad networks format: network uuid is not in proper format ({id})")));
        }
    }
    if let Some(ip) = &fixed_ip
        && ip.parse::<std::net::IpAddr>().is_err()
    {
        return Err(input::refuse("fixed_ip", &json!(ip), format!("'{ip}' is not a 'ipv4' or 'ipv6'")));
    }
    match (&uuid, &port) {
        (None, None) => Err(Fault::invalid("Bad network format: missing 'uuid'")),
        (_, Some(port)) if fixed_ip.is_some() => Err(Fault::invalid(format!(
            "Specified Fixed IP '{}' cannot be used with port '{port}': the two cannot be specified together.",
            fixed_ip.unwrap_or_default()
        ))),
        // A port decides its network.
        (_, Some(_)) => Ok(RequestedNetwork { network: None, port: port.map(Into::into), fixed_ip: None, tag }),
        (Some(_), None) => Ok(RequestedNetwork { network: uuid.map(Into::into), port: None, fixed_ip, tag }),
    }
}

fn parse_groups(fields: &mut Fields<'_>) -> Result<Vec<String>> {
    let mut groups: Vec<String> = Vec::new();
    for value in fields.array("security_groups")?.into_iter().flatten() {
        let mut group = Fields::of("security_groups", value)?;
        let name = input::name("name", group.need("name")?)?;
        group.finish()?;
        if !groups.contains(&name) {
            groups.push(name);
        }
    }
    if groups.len() > 128 {
        return Err(Fault::invalid("A server may have at most 128 security groups."));
    }
    Ok(groups)
}

fn parse_user_data(fields: &mut Fields<'_>) -> Result<Option<String>> {
    let Some(value) = fields.opt("user_data").filter(|value| !value.is_null()) else { return Ok(None) };
    let text = input::text("user_data", value, 0, base::limits::USER_DATA_BYTES)?;
    let plain: String = text.chars().filter(|c| !c.is_ascii_whitespace()).collect();
    if base64::engine::general_purpose::STANDARD.decode(&plain).is_err() {
        return Err(input::refuse("user_data", value, format!("{} is not a 'base64'", input::repr(value))));
    }
    Ok(Some(plain).filter(|text| !text.is_empty()))
}

/// The one commit.
fn make(
    state: &Compute,
    tx: &mut Tx,
    ask: &Ask,
    project: &ProjectId,
    wanted: &Wanted,
    pass: &str,
) -> Result<Vec<Server>> {
    let mapped;
    let mut wanted = wanted;
    let flavor = flavors::find(tx, ask, &wanted.flavor).map_err(as_invalid)?.doc;
    let image = match &wanted.disks.image {
        None if wanted.disks.boots_from_volume() => None,
        None => return Err(Fault::invalid("Invalid imageRef provided: a server needs an image or a volume to boot from.")),
        Some(id) => {
            let image = state.images.locate(tx, &ask.caller, id).map_err(|fault| match fault.kind {
                FaultKind::NotFound => Fault::invalid("Can not find requested image"),
                _ => fault,
            })?;
            if let Some(disks) = wanted.disks.of_image(&image)? {
                mapped = Wanted { disks, ..wanted.clone() };
                wanted = &mapped;
                refuse_sharing(wanted)?;
            }
            match &wanted.disks.image {
                None => None,
                Some(_) => {
                    check_image(&image, &flavor)?;
                    Some(image)
                }
            }
        }
    };
    let key = match &wanted.key_name {
        None => None,
        Some(name) => {
            let pair = keypairs::find(tx, &ask.caller.user_id(), name)?;
            Some(pair.ok_or_else(|| Fault::invalid("Invalid key_name provided."))?.doc)
        }
    };
    check_place(tx, wanted)?;
    quota::check_metadata(tx, project, wanted.metadata.len())?;
    let flavor = ServerFlavor {
        id: flavor.id,
        name: flavor.name,
        vcpus: flavor.vcpus,
        ram_mib: flavor.ram_mib,
        disk_gib: flavor.disk_gib,
        ephemeral_gib: flavor.ephemeral_gib,
        swap_mib: flavor.swap_mib,
        extra_specs: flavor.extra_specs,
        root_on_volume: image.is_none(),
    };
    let count = charge(tx, project, &ask.caller.user_id(), &flavor, wanted)?;
    let reservation_id = format!("r-{}", &tx.env().secret_hex(4));
    let mut servers = Vec::new();
    for index in 0..count {
        let mut server = draft(tx, ask, project, wanted, &flavor, image.as_ref());
        server.reservation_id.clone_from(&reservation_id);
        server.launch_index = index as u32;
        server.ec2_number = crate::next_number(tx, "server")?;
        if wanted.max_count > 1 {
            server.name = format!("{}-{}", wanted.name, index + 1);
        }
        server.hostname = hostname(&server.name, &server.id);
        if let Some(key) = &key {
            (server.key_name, server.public_key) = (Some(key.name.clone()), Some(key.public_key.clone()));
        }
        keep(state, tx, ask, wanted, pass, &server)?;
        servers.push(server);
    }
    Ok(servers)
}

/// Charges for as many servers as fit, between `min_count` and `max_count`.
fn charge(tx: &mut Tx, project: &str, user: &str, flavor: &ServerFlavor, wanted: &Wanted) -> Result<i64> {
    let mut count = wanted.max_count;
    loop {
        match quota::charge_servers(tx, project, user, flavor, count) {
            Ok(()) => return Ok(count),
            Err(fault) if fault.kind == FaultKind::Quota && count > wanted.min_count => count -= 1,
            // What did not fit is said of what was asked for.
            Err(fault) => return Err(fault),
        }
    }
}

fn keep(state: &Compute, tx: &mut Tx, ask: &Ask, wanted: &Wanted, pass: &str, server: &Server) -> Result<()> {
    tx.create(server)?;
    let secret = ServerSecret {
        id: server.id.clone(),
        project_id: server.project_id.clone(),
        user_data: wanted.user_data.clone().map(Into::into),
        admin_pass: Some(pass.into()),
    };
    tx.create(&secret)?;
    let generation = (!server.unschedulable).then_some(server.generation);
    history::begin(tx, ask, server, "create", generation)?;
    let (request, groups) = (&wanted.networks, &wanted.security_groups);
    state
        .ports
        .attach(tx, &ask.caller, &server.project_id, &server.id, &server.hostname, request, groups)
        .map_err(as_invalid)?;
    let asked = ForServer {
        caller: &ask.caller,
        server: &server.id,
        host: None,
        generation: server.generation,
        has_root: server.root.is_some(),
    };
    state.volumes.attach(tx, asked, &wanted.disks.volumes).map_err(block_devices::refused)?;
    Ok(())
}

/// What a body names and what does not exist is the body's mistake.
fn as_invalid(fault: Fault) -> Fault {
    match fault.kind {
        FaultKind::NotFound => Fault { kind: FaultKind::Invalid, status: None, ..fault },
        // Nova counts ports, too, among its own quotas.
        FaultKind::Quota => Fault { kind: FaultKind::Quota, status: None, ..fault },
        _ => fault,
    }
}

fn check_image(image: &ImageInfo, flavor: &Flavor) -> Result<()> {
    if !image.active {
        return Err(Fault::invalid(format!("Image {} is not active.", image.id)));
    }
    if image.sha512.is_empty() {
        return Err(Fault::invalid(format!("Image {} is unacceptable: it has no bytes, and names no volumes.", image.id)));
    }
    if image.quarantined.is_none() && image.disk_format.is_none() {
        return Err(Fault::invalid(format!(
            "Image {} is unacceptable: Direct booting of an image of this disk format is not possible; raw and qcow2 are.",
            image.id
        )));
    }
    if flavor.ram_mib < image.min_ram_mib {
        return Err(Fault::invalid("Flavor's memory is too small for requested image."));
    }
    let flavor_bytes = flavor.disk_gib * GIB;
    if flavor.disk_gib > 0 && image.virtual_size_bytes > flavor_bytes {
        return Err(Fault::invalid(format!(
            "Flavor's disk is too small for requested image. Flavor disk is {flavor_bytes} bytes, image is {} bytes.",
            image.virtual_size_bytes
        )));
    }
    if flavor.disk_gib > 0 && image.min_disk_gib > flavor.disk_gib {
        return Err(Fault::invalid(format!(
            "Flavor's disk is smaller than the minimum size specified in image metadata. Flavor disk is {flavor_bytes} bytes, minimum size is {} bytes.",
            image.min_disk_gib * GIB
        )));
    }
    Ok(())
}

fn check_place(tx: &mut Tx, wanted: &Wanted) -> Result<()> {
    if let Some(zone) = &wanted.zone
        && zone != hosts::ZONE
        && !hosts::all(tx)?.iter().any(|host| host.zone == *zone)
    {
        return Err(Fault::invalid("The requested availability zone is not available"));
    }
    match wanted.host.as_ref().or(wanted.destination.as_ref()) {
        Some(host) if tx.get::<hosts::Host>(host)?.is_none() => {
            Err(Fault::invalid(format!("Compute host {host} could not be found.")))
        }
        _ => Ok(()),
    }
}

fn draft(tx: &Tx, ask: &Ask, project: &ProjectId, wanted: &Wanted, flavor: &ServerFlavor, image: Option<&ImageInfo>) -> Server {
    let bootable = image.filter(|image| image.quarantined.is_none());
    let root = bootable.and_then(|image| {
        Some(RootDisk {
            image: image.id.clone(),
            format: image.disk_format?,
            sha512: image.sha512.clone(),
            image_bytes: image.size_bytes,
            size_gib: flavor.disk_gib,
            flat: false,
        })
    });
    let fault = image.and_then(|image| image.quarantined.as_ref()).map(|why| ServerFault {
        code: 500,
        message: format!("The image cannot be booted: {why}"),
        details: String::new(),
        created: tx.now(),
    });
    Server {
        id: ServerId::new(tx.uuid()),
        project_id: project.clone(),
        user_id: ask.caller.user_id(),
        name: wanted.name.clone(),
        description: wanted.description.clone(),
        hostname: String::new(),
        generation: 1,
        power: Power::Running,
        verb: Verb::Create,
        verb_generation: 1,
        soft_reboots: 0,
        hard_reboots: 0,
        host: None,
        wanted_zone: wanted.zone.clone(),
        wanted_host: wanted.host.clone().or(wanted.destination.clone()),
        flavor: flavor.clone(),
        image: image.map(|image| image.id.clone()).unwrap_or_default(),
        unschedulable: image.is_some() && root.is_none(),
        root,
        key_name: None,
        public_key: None,
        metadata: wanted.metadata.clone(),
        tags: wanted.tags.clone(),
        config_drive: wanted.config_drive,
        lock: None,
        reservation_id: String::new(),
        launch_index: 0,
        ec2_number: 0,
        disk_config: wanted.disk_config.clone(),
        access_ip_v4: wanted.access_ip_v4.clone(),
        access_ip_v6: wanted.access_ip_v6.clone(),
        passing_since: fault.is_none().then(|| tx.now()),
        fault,
        forced_error: false,
        soft_deleted: None,
        stop_reason: None,
        imaging: None,
        overdue: 0,
        avoid: Vec::new(),
    }
}

/// A host name made of a server's name, as Nova makes it.
pub fn hostname(name: &str, id: &ServerId) -> String {
    let mapped: String = name
        .chars()
        .filter_map(|c| match c {
            ' ' | '_' | '.' => Some('-'),
            c if c.is_ascii_alphanumeric() || c == '-' => Some(c.to_ascii_lowercase()),
            _ => None,
        })
        .take(63)
        .collect();
    let trimmed = mapped.trim_matches('-');
    if trimmed.is_empty() { format!("server-{id}").chars().take(63).collect() } else { trimmed.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_names_are_what_dns_takes() {
        let id = ServerId::new("0192-x");
        for (name, expected) in
            [("web_1 b", "web-1-b"), ("Ünï.code", "n-code"), ("---", "server-0192-x"), ("日本", "server-0192-x")]
        {
            assert_eq!(hostname(name, &id), expected);
        }
        assert_eq!(hostname(&"a".repeat(100), &id).len(), 63);
    }
}
