//! Making, changing and removing networks.

use super::{Network, Provider};
use crate::attr::{Input, shown};
use crate::ports::{self, Port};
use crate::standard::{Ctx, Look, Standard, charge};
use crate::subnets::Subnet;
use crate::{error, floatingips, security_groups};
use base::{NetworkId, Result};
use store::{Query, Tx};

/// VXLAN numbers that we draw ourselves lie above those that administrators like to choose.
const FIRST_VNI: u64 = 65_536;
const LAST_VNI: u64 = 16_777_215;

pub fn create(tx: &mut Tx, ctx: &Ctx, project: &str, input: &Input) -> Result<Network> {
    charge(tx, project, "network", 1)?;
    security_groups::ensure_default(tx, project)?;
    let provider = provider(tx, ctx, input)?;
    let network = Network {
        id: NetworkId::new(tx.uuid()),
        project_id: project.into(),
        name: input.text("name").unwrap_or("").to_owned(),
        admin_state_up: input.boolean("admin_state_up").unwrap_or(true),
        shared: input.boolean("shared").unwrap_or(false),
        external: input.boolean("router:external").unwrap_or(false),
        is_default: input.boolean("is_default").unwrap_or(false),
        mtu: mtu(ctx, &provider, input.int("mtu"))?,
        port_security: input.boolean("port_security_enabled").unwrap_or(true),
        provider,
        standard: Standard::new(tx, input),
    };
    check_default(tx, &network)?;
    tx.create(&network)?;
    Ok(network)
}

/// The largest frame that fits, or what was asked for below it.
fn mtu(ctx: &Ctx, provider: &Provider, asked: Option<i64>) -> Result<u16> {
    let most = match provider {
        Provider::Vxlan { .. } => ctx.net.options.mtu.saturating_sub(50),
        Provider::Flat { .. } => ctx.net.options.mtu,
    };
    match asked {
        None | Some(0) => Ok(most),
        Some(asked) if asked < 68 => Err(error::invalid_input(format!("Requested MTU is too small, minimum is 68, not {asked}"))),
        Some(asked) if asked > i64::from(most) => {
            Err(error::invalid_input(format!("Requested MTU is too big, maximum is {most}")))
        }
        Some(asked) => Ok(asked as u16),
    }
}

fn provider(tx: &mut Tx, ctx: &Ctx, input: &Input) -> Result<Provider> {
    let (physical, segment) = (input.text("provider:physical_network"), input.int("provider:segmentation_id"));
    match input.text("provider:network_type") {
        None if physical.is_some() || segment.is_some() => Err(error::invalid_input("network_type required")),
        None => Ok(Provider::Vxlan { vni: free_vni(tx)? }),
        Some("vxlan") if physical.is_some() => {
            Err(error::invalid_input("provider:physical_network specified for vxlan network"))
        }
        Some("vxlan") => vxlan(tx, segment),
        Some("flat") => flat(tx, ctx, physical, segment),
        Some(other) => Err(error::invalid_input(format!("network_type value '{}' not supported", shown(&other.into())))),
    }
}

fn vxlan(tx: &mut Tx, segment: Option<i64>) -> Result<Provider> {
    let Some(vni) = segment else { return Ok(Provider::Vxlan { vni: free_vni(tx)? }) };
    if taken(tx, &["vxlan", &vni.to_string()])? {
        return Err(error::tunnel_in_use(vni));
    }
    Ok(Provider::Vxlan { vni: vni as u32 })
}

fn flat(tx: &mut Tx, ctx: &Ctx, physical: Option<&str>, segment: Option<i64>) -> Result<Provider> {
    if segment.is_some() {
        return Err(error::invalid_input("provider:segmentation_id specified for flat network"));
    }
    let Some(physical) = physical else {
        return Err(error::invalid_input("physical_network required for flat provider network"));
    };
    if !ctx.net.options.physical_networks.iter().any(|known| known == physical) {
        return Err(error::invalid_input(format!("physical_network '{physical}' unknown for flat provider network")));
    }
    if taken(tx, &["flat", physical])? {
        return Err(error::flat_network_in_use(physical));
    }
    Ok(Provider::Flat { physical: physical.to_owned() })
}

fn taken(tx: &mut Tx, parts: &[&str]) -> Result<bool> {
    Ok(tx.get_unique::<Network>("segment", parts.iter().copied())?.is_some())
}

/// A random number that no network has. The space is so large that the first draws succeed.
fn free_vni(tx: &mut Tx) -> Result<u32> {
    for _ in 0..64 {
        let vni = (FIRST_VNI + tx.env().random.below(LAST_VNI - FIRST_VNI + 1)) as u32;
        if !taken(tx, &["vxlan", &vni.to_string()])? {
            return Ok(vni);
        }
    }
    Err(base::Fault::unavailable("Unable to create the network. No tenant network is available for allocation.").named("NoNetworkAvailable"))
}

/// Provider attributes may be repeated in an update, but not changed: the frames would change their road.
fn distinct_segment(network: &Network, input: &Input) -> bool {
    let (kind, physical, segment) = match &network.provider {
        Provider::Vxlan { vni } => ("vxlan", None, Some(i64::from(*vni))),
        Provider::Flat { physical } => ("flat", Some(physical.as_str()), None),
    };
    input.has("provider:network_type") && input.text("provider:network_type") != Some(kind)
        || input.has("provider:physical_network") && input.text("provider:physical_network") != physical
        || input.has("provider:segmentation_id") && input.int("provider:segmentation_id") != segment
}

/// At most one external network is where `auto` goes.
fn check_default(tx: &mut Tx, network: &Network) -> Result<()> {
    if !network.is_default {
        return Ok(());
    }
    if !network.external {
        return Err(error::bad_request("is_default can only be set on an external network"));
    }
    let others: Vec<Network> = tx.by("open", "1")?;
    match others.iter().find(|other| other.is_default && other.id != network.id) {
        Some(other) => Err(base::Fault::conflict(format!("A default external network already exists: {}.", other.id)).named("DefaultExternalNetworkExists")),
        None => Ok(()),
    }
}

pub fn update(network: &mut Network, tx: &mut Tx, ctx: &Ctx, input: &Input) -> Result<()> {
    if distinct_segment(network, input) {
        return Err(error::invalid_input("Provider attributes of a network cannot be changed"));
    }
    if let Some(name) = input.text("name") {
        network.name = name.to_owned();
    }
    if let Some(up) = input.boolean("admin_state_up") {
        network.admin_state_up = up;
    }
    if let Some(enabled) = input.boolean("port_security_enabled") {
        network.port_security = enabled;
    }
    if input.has("mtu") {
        network.mtu = mtu(ctx, &network.provider, input.int("mtu"))?;
    }
    if let Some(shared) = input.boolean("shared") {
        unshare_check(network, tx, shared)?;
        network.shared = shared;
    }
    if let Some(external) = input.boolean("router:external") {
        if network.external && !external && in_use_outside(tx, network)? {
            return Err(error::external_in_use(&network.id));
        }
        network.external = external;
    }
    if let Some(default) = input.boolean("is_default") {
        network.is_default = default;
    }
    check_default(tx, network)
}

/// A network that other projects use stays shared.
fn unshare_check(network: &Network, tx: &mut Tx, shared: bool) -> Result<()> {
    if !network.shared || shared {
        return Ok(());
    }
    let ports: Vec<Port> = tx.by("network", &network.id)?;
    let foreign = |port: &Port| !port.project_id.is_empty() && port.project_id != network.project_id;
    if ports.iter().any(foreign) { Err(error::shared_in_use(&network.id)) } else { Ok(()) }
}

fn in_use_outside(tx: &mut Tx, network: &Network) -> Result<bool> {
    let ports: Vec<Port> = tx.by("network", &network.id)?;
    Ok(ports.iter().any(|port| matches!(port.device_owner.as_str(), ports::GATEWAY | ports::FLOATING)))
}

pub fn delete(network: Network, tx: &mut Tx) -> Result<()> {
    floatingips::drop_idle(tx, &network.id)?;
    let ports: Vec<Port> = tx.docs(Query::index("network", network.id.as_str()))?;
    if ports.iter().any(|port| port.device_owner != ports::SERVICE) {
        return Err(error::network_in_use(&network.id));
    }
    for port in ports {
        ports::remove(tx, port)?;
    }
    let subnets: Vec<Subnet> = tx.by("network", &network.id)?;
    for subnet in subnets {
        crate::subnets::remove(tx, &subnet)?;
    }
    charge(tx, &network.project_id, "network", -1)?;
    tx.delete::<Network>(&network.id)?;
    Ok(())
}
