//! The service port of a network, and addresses that guests form themselves.

use super::addresses::{Seeker, give_back, lowest};
use super::{INTERFACE, GATEWAY, NewPort, Port, SERVICE, ops};
use crate::attr::Input;
use crate::networks::Network;
use crate::standard::{Look, Standard};
use crate::subnets::Subnet;
use base::Result;
use store::Tx;

/// Brings the service port in line with the network's subnets: one address in each that has DHCP, no port where none
/// has. A full subnet gets none and keeps working without; the port is brought in line at the next change.
pub fn ensure_service_port(tx: &mut Tx, network: &Network) -> Result<()> {
    let subnets: Vec<Subnet> = network.subnets(tx)?.into_iter().filter(|subnet| subnet.dhcp).collect();
    let port = tx.first::<Port>("service", &network.id)?;
    match (port, subnets.is_empty()) {
        (None, true) => Ok(()),
        (Some(port), true) => ops::remove(tx, port),
        (Some(port), false) => follow(tx, network, port, &subnets),
        (None, false) => {
            let new = NewPort {
                project: &network.project_id,
                wanted: Some(vec![]),
                device_id: format!("nubo-{}", network.id),
                device_owner: SERVICE.into(),
                free_of_charge: true,
                ..NewPort::default()
            };
            let standard = Standard::new(tx, &Input::default());
            let port = ops::insert(tx, network, new, standard)?;
            follow(tx, network, port, &subnets)
        }
    }
}

fn follow(tx: &mut Tx, network: &Network, mut port: Port, subnets: &[Subnet]) -> Result<()> {
    let old = port.clone();
    for gone in port.fixed_ips.iter().filter(|fixed| !subnets.iter().any(|subnet| subnet.id == fixed.subnet_id)) {
        give_back(tx, gone)?;
    }
    port.fixed_ips.retain(|fixed| subnets.iter().any(|subnet| subnet.id == fixed.subnet_id));
    for subnet in subnets {
        if port.address_on(&subnet.id).is_some() {
            continue;
        }
        let mac = port.mac.clone();
        let fixed = match subnet.is_stateless() {
            true => Seeker { network, mac: &mac, owner: SERVICE }.stateless(tx, subnet)?,
            false => lowest(tx, subnet)?,
        };
        port.fixed_ips.extend(fixed);
    }
    ops::put(tx, &old, &mut port)
}

/// A new stateless subnet gives every guest's port on its network an address.
pub fn add_stateless_addresses(tx: &mut Tx, network: &Network, subnet: &Subnet) -> Result<()> {
    if !subnet.is_stateless() {
        return Ok(());
    }
    let ports: Vec<Port> = tx.by("network", &network.id)?;
    for mut port in ports {
        if matches!(port.device_owner.as_str(), SERVICE | INTERFACE | GATEWAY) {
            continue;
        }
        let old = port.clone();
        let (mac, owner) = (port.mac.clone(), port.device_owner.clone());
        port.fixed_ips.extend(Seeker { network, mac: &mac, owner: &owner }.stateless(tx, subnet)?);
        ops::put(tx, &old, &mut port)?;
    }
    Ok(())
}
