//! Making, changing and removing ports.

use super::addresses::{Seeker, give_back};
use super::{AddressPair, Attached, FLOATING, Observed, Port, SERVICE, Wanted, read};
use crate::attr::Input;
use crate::networks::Network;
use crate::project::touch;
use crate::security_groups::{self, SecurityGroup};
use crate::standard::{Ctx, Look, Standard, charge};
use crate::{error, floatingips};
use agent_api::ViewKind;
use base::{HostName, PortId, Result, SecurityGroupId};
use std::collections::BTreeSet;
use store::Tx;

/// What a new port shall be; the rest follows from it.
#[derive(Default)]
pub struct NewPort<'a> {
    pub project: &'a str,
    pub name: String,
    pub down: bool,
    pub mac: Option<String>,
    /// None: one address of each family.
    pub wanted: Option<Vec<Wanted>>,
    pub device_id: String,
    pub device_owner: String,
    /// None: the project's default group, where the port has security at all.
    pub groups: Option<Vec<SecurityGroupId>>,
    pub port_security: Option<bool>,
    pub pairs: Vec<AddressPair>,
    pub attached: Option<Attached>,
    /// Ours alone: charged to nobody.
    pub free_of_charge: bool,
}

/// Makes and stores a port.
pub fn insert(tx: &mut Tx, network: &Network, new: NewPort, standard: Standard) -> Result<Port> {
    let charged = !new.free_of_charge && !new.project.is_empty();
    if charged {
        charge(tx, new.project, "port", 1)?;
    }
    let ours = new.device_owner.starts_with("network:");
    let port_security = new.port_security.unwrap_or(network.port_security) && !ours;
    let security_groups = match new.groups {
        Some(groups) => groups,
        None if port_security && !new.project.is_empty() => vec![security_groups::ensure_default(tx, new.project)?],
        None => vec![],
    };
    let mac = match new.mac {
        Some(mac) => claim_mac(tx, network, mac)?,
        None => free_mac(tx, network)?,
    };
    let seeker = Seeker { network, mac: &mac, owner: &new.device_owner };
    let fixed_ips = seeker.seek(tx, new.wanted.as_deref())?;
    let port = Port {
        id: PortId::new(tx.uuid()),
        project_id: new.project.into(),
        network_id: network.id.clone(),
        name: new.name,
        admin_state_up: !new.down,
        mac,
        fixed_ips,
        device_id: new.device_id,
        device_owner: new.device_owner,
        security_groups,
        port_security,
        address_pairs: new.pairs,
        dhcp_options: vec![],
        host: HostName::default(),
        wanted_at: None,
        vnic_type: "normal".into(),
        profile: serde_json::Map::new(),
        charged,
        attached: new.attached,
        standard,
    };
    check_security(&port)?;
    tx.create(&port)?;
    Ok(port)
}

/// Stores a port that changed, one revision further, and names what hosts must look at again.
pub fn put(tx: &mut Tx, old: &Port, port: &mut Port) -> Result<()> {
    if old == port {
        return Ok(());
    }
    port.standard.touch(tx.now());
    tx.update(&*port)?;
    touch_left(tx, old, port)
}

/// Names the groups that a port has left, and where it was bound: the new document does not show them.
fn touch_left(tx: &mut Tx, old: &Port, new: &Port) -> Result<()> {
    for group in old.security_groups.iter().filter(|group| !new.security_groups.contains(group)) {
        touch(tx, ViewKind::AddressSet, group)?;
        touch(tx, ViewKind::SecurityGroup, group)?;
    }
    Ok(())
}

/// Removes a port whatever it is, with its addresses, its floating associations and its charge.
pub fn remove(tx: &mut Tx, port: Port) -> Result<()> {
    for fixed in &port.fixed_ips {
        give_back(tx, fixed)?;
    }
    floatingips::port_gone(tx, &port.id)?;
    if port.charged {
        charge(tx, &port.project_id, "port", -1)?;
    }
    if tx.doc::<Observed>(&port.id)?.is_some() {
        tx.delete::<Observed>(&port.id)?;
    }
    for group in &port.security_groups {
        touch(tx, ViewKind::AddressSet, group)?;
        touch(tx, ViewKind::SecurityGroup, group)?;
    }
    if let Some(attached) = &port.attached {
        touch(tx, ViewKind::Guest, &attached.server)?;
    }
    if port.is_router_owned() {
        touch(tx, ViewKind::Router, &port.device_id)?;
    }
    if port.is_router_owned() || port.device_owner == SERVICE || !port.host.is_empty() {
        touch(tx, ViewKind::Network, &port.network_id)?;
    }
    tx.delete::<Port>(&port.id)?;
    Ok(())
}

/// Takes the addresses of one subnet away from a port.
pub fn drop_subnet(tx: &mut Tx, mut port: Port, subnet: &str) -> Result<()> {
    let old = port.clone();
    port.fixed_ips.retain(|fixed| fixed.subnet_id.as_str() != subnet);
    put(tx, &old, &mut port)
}

fn claim_mac(tx: &mut Tx, network: &Network, mac: String) -> Result<String> {
    // The lowest bit of the first octet marks groups of hosts.
    let group = u8::from_str_radix(&mac[..2], 16).is_ok_and(|octet| octet & 1 == 1);
    if group {
        return Err(error::invalid_attribute("mac_address", format!("'{mac}' is a multicast address")));
    }
    match tx.get_unique::<Port>("mac", [network.id.as_str(), &mac])? {
        Some(_) => Err(error::mac_in_use(&network.id, mac)),
        None => Ok(mac),
    }
}

/// A MAC of Neutron's usual prefix that the network does not have yet.
fn free_mac(tx: &mut Tx, network: &Network) -> Result<String> {
    for _ in 0..64 {
        let n = tx.env().random.below(1 << 24) as u32;
        let mac = format!("fa:16:3e:{:02x}:{:02x}:{:02x}", n >> 16, n >> 8 & 0xff, n & 0xff);
        if tx.get_unique::<Port>("mac", [network.id.as_str(), &mac])?.is_none() {
            return Ok(mac);
        }
    }
    Err(error::mac_generation_failed(&network.id))
}

/// What goes together: filters need port security.
fn check_security(port: &Port) -> Result<()> {
    if port.port_security {
        return Ok(());
    }
    if !port.security_groups.is_empty() {
        return Err(error::groups_need_security());
    }
    if !port.address_pairs.is_empty() {
        return Err(error::pairs_need_security());
    }
    Ok(())
}

/// The groups of a body, each of which the caller must be able to use.
pub fn check_groups(tx: &mut Tx, ctx: &Ctx, project: &str, ids: &[String]) -> Result<Vec<SecurityGroupId>> {
    let mut groups = BTreeSet::new();
    for id in ids {
        match tx.doc::<SecurityGroup>(id)? {
            Some(group) if group.project_id.as_str() == project || ctx.is_admin() => groups.insert(group.id),
            _ => return Err(error::security_group_not_found(id)),
        };
    }
    Ok(groups.into_iter().collect())
}

/// Owners that only nubo itself writes: a router or floating address would believe such a port to be its own.
fn check_owner(owner: &str) -> Result<()> {
    if matches!(owner, super::INTERFACE | super::GATEWAY | FLOATING | SERVICE) {
        return Err(error::invalid_input(format!("device_owner {owner} cannot be set through the port API")));
    }
    Ok(())
}

pub fn create(tx: &mut Tx, ctx: &Ctx, project: &str, input: &Input) -> Result<Port> {
    let id = input.text("network_id").unwrap_or("");
    let network = tx.doc::<Network>(id)?.ok_or_else(|| error::network_not_found(id))?;
    let owner = input.text("device_owner").unwrap_or("");
    check_owner(owner)?;
    let groups = input.texts("security_groups").map(|ids| check_groups(tx, ctx, project, &ids)).transpose()?;
    let new = NewPort {
        project,
        name: input.text("name").unwrap_or("").to_owned(),
        down: input.boolean("admin_state_up") == Some(false),
        mac: input.text("mac_address").map(str::to_owned),
        wanted: read::wanted(input),
        device_id: input.text("device_id").unwrap_or("").to_owned(),
        device_owner: owner.to_owned(),
        groups,
        port_security: input.boolean("port_security_enabled"),
        pairs: read::pairs(input).unwrap_or_default(),
        ..NewPort::default()
    };
    let standard = Standard::new(tx, input);
    let mut port = insert(tx, &network, new, standard)?;
    read::merge_options(&mut port.dhcp_options, input);
    port.host = HostName::new(input.text("binding:host_id").unwrap_or(""));
    port.wanted_at = (!port.host.is_empty()).then(|| tx.now());
    if let Some(profile) = input.get("binding:profile").and_then(|value| value.as_object()) {
        port.profile = profile.clone();
    }
    tx.update(&port)?;
    Ok(port)
}

pub fn update(port: &mut Port, tx: &mut Tx, ctx: &Ctx, input: &Input) -> Result<()> {
    let old = port.clone();
    if let Some(name) = input.text("name") {
        port.name = name.to_owned();
    }
    if let Some(up) = input.boolean("admin_state_up") {
        port.wanted_at = if up && !port.admin_state_up { Some(tx.now()) } else { port.wanted_at };
        port.admin_state_up = up;
    }
    update_device(port, tx, input)?;
    update_security(port, tx, ctx, input)?;
    update_addresses(port, tx, input)?;
    read::merge_options(&mut port.dhcp_options, input);
    if let Some(kind) = input.text("binding:vnic_type") {
        port.vnic_type = kind.to_owned();
    }
    if let Some(profile) = input.get("binding:profile").and_then(|value| value.as_object()) {
        port.profile = profile.clone();
    }
    touch_left(tx, &old, port)?;
    if old.fixed_ips != port.fixed_ips {
        floatingips::addresses_changed(tx, port)?;
    }
    Ok(())
}

fn update_device(port: &mut Port, tx: &mut Tx, input: &Input) -> Result<()> {
    if let Some(owner) = input.text("device_owner")
        && owner != port.device_owner
    {
        check_owner(owner)?;
        check_owner(&port.device_owner).map_err(|_| error::unsupported_owner("update", &port.device_owner, &port.id))?;
        port.device_owner = owner.to_owned();
    }
    if let Some(device) = input.text("device_id")
        && device != port.device_id
    {
        check_owner(&port.device_owner).map_err(|_| error::unsupported_owner("update", &port.device_owner, &port.id))?;
        port.device_id = device.to_owned();
    }
    if input.has("binding:host_id") {
        let host = HostName::new(input.text("binding:host_id").unwrap_or(""));
        if host != port.host && !port.host.is_empty() {
            touch(tx, ViewKind::Network, &port.network_id)?;
        }
        port.wanted_at = if host != port.host { Some(tx.now()) } else { port.wanted_at };
        port.host = host;
    }
    Ok(())
}

fn update_security(port: &mut Port, tx: &mut Tx, ctx: &Ctx, input: &Input) -> Result<()> {
    if let Some(enabled) = input.boolean("port_security_enabled") {
        port.port_security = enabled;
    }
    if let Some(ids) = input.texts("security_groups") {
        let project = port.project_id.clone();
        port.security_groups = check_groups(tx, ctx, &project, &ids)?;
    }
    if let Some(pairs) = read::pairs(input) {
        port.address_pairs = pairs;
    }
    if !port.port_security && !port.security_groups.is_empty() {
        return Err(if input.has("security_groups") { error::groups_need_security() } else { error::has_groups() });
    }
    check_security(port)
}

fn update_addresses(port: &mut Port, tx: &mut Tx, input: &Input) -> Result<()> {
    let network = port.network(tx)?;
    if let Some(mac) = input.text("mac_address")
        && mac != port.mac
    {
        if !port.host.is_empty() {
            return Err(error::port_bound(&port.id, &port.mac, mac));
        }
        port.mac = claim_mac(tx, &network, mac.to_owned())?;
    }
    if let Some(wanted) = read::wanted(input) {
        let addresses = super::change_addresses(tx, &network, port, &wanted)?;
        if port.device_owner == FLOATING && addresses != port.fixed_ips {
            return Err(error::holds_floating(&port.id, &port.device_id));
        }
        port.fixed_ips = addresses;
    }
    Ok(())
}

pub fn delete(port: Port, tx: &mut Tx, _ctx: &Ctx) -> Result<()> {
    let ours = matches!(port.device_owner.as_str(), super::INTERFACE | super::GATEWAY | FLOATING | SERVICE);
    if ours {
        return Err(error::service_port_in_use(&port.id, format!("has device owner {}", port.device_owner)));
    }
    remove(tx, port)
}
