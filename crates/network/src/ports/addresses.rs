//! Giving a port its addresses, and taking them back.
//!
//! The lowest free address of a pool is taken. What is taken stands in two places of one transaction: the subnet's
//! [`SubnetAddresses`], which finds the next one at once, and the port's unique keys, which would refuse a mistake.

use super::{FixedIp, GATEWAY, INTERFACE, Port, SERVICE};
use crate::error;
use crate::networks::Network;
use crate::ranges::{eui64, hosts};
use crate::standard::Look;
use crate::subnets::{Subnet, SubnetAddresses};
use base::{Result, SubnetId};
use std::net::IpAddr;
use store::Tx;

/// An address that somebody asks for: in a subnet, a certain one, or both.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Wanted {
    pub subnet: Option<SubnetId>,
    pub address: Option<IpAddr>,
}

impl Wanted {
    fn is(&self, fixed: &FixedIp) -> bool {
        self.subnet.as_ref().is_none_or(|subnet| *subnet == fixed.subnet_id)
            && self.address.is_none_or(|address| address == fixed.ip_address)
    }
}

/// The network, its subnets, and for whom addresses are sought.
pub struct Seeker<'a> {
    pub network: &'a Network,
    pub mac: &'a str,
    pub owner: &'a str,
}

impl Seeker<'_> {
    /// Addresses as asked for; without a wish one of each family. Stateless subnets are always included, since a guest
    /// forms such an address by itself, but for routers.
    pub fn seek(&self, tx: &mut Tx, wanted: Option<&[Wanted]>) -> Result<Vec<FixedIp>> {
        let subnets = self.network.subnets(tx)?;
        let mut fixed = Vec::new();
        match wanted {
            Some(wanted) => {
                for one in wanted {
                    fixed.push(self.one(tx, &subnets, one)?);
                }
            }
            None => {
                for v4 in [true, false] {
                    fixed.extend(self.any(tx, subnets.iter().filter(|subnet| subnet.is_ipv4() == v4))?);
                }
            }
        }
        if !matches!(self.owner, INTERFACE | GATEWAY | SERVICE) {
            for subnet in subnets.iter().filter(|subnet| subnet.is_stateless()) {
                if !fixed.iter().any(|fixed| fixed.subnet_id == subnet.id) {
                    fixed.extend(self.stateless(tx, subnet)?);
                }
            }
        }
        Ok(fixed)
    }

    /// One address of any of these subnets.
    fn any<'s>(&self, tx: &mut Tx, subnets: impl Iterator<Item = &'s Subnet>) -> Result<Option<FixedIp>> {
        let mut full = false;
        for subnet in subnets.filter(|subnet| !subnet.is_stateless()) {
            if let Some(fixed) = lowest(tx, subnet)? {
                return Ok(Some(fixed));
            }
            full = true;
        }
        if full { Err(error::addresses_exhausted(&self.network.id)) } else { Ok(None) }
    }

    fn one(&self, tx: &mut Tx, subnets: &[Subnet], wanted: &Wanted) -> Result<FixedIp> {
        let subnet = self.subnet_of(subnets, wanted)?;
        let Some(address) = wanted.address else {
            if subnet.is_stateless() && !matches!(self.owner, INTERFACE | GATEWAY) {
                return self.stateless(tx, subnet)?.ok_or_else(|| error::addresses_exhausted(&self.network.id));
            }
            return lowest(tx, subnet)?.ok_or_else(|| error::addresses_exhausted(&self.network.id));
        };
        if !hosts(&subnet.cidr).contains(address) {
            return Err(error::invalid_ip_for_subnet(address));
        }
        if subnet.is_stateless() && !matches!(self.owner, INTERFACE | GATEWAY | SERVICE) && eui64(&subnet.cidr, self.mac) != Some(address) {
            return Err(error::invalid_input(format!(
                "IPv6 address {address} can not be directly assigned to a port on subnet {} as the subnet is configured for automatic addresses", subnet.id
            )));
        }
        if !take(tx, &subnet.id, address)? {
            return Err(error::address_in_use(&self.network.id, address));
        }
        Ok(FixedIp { subnet_id: subnet.id.clone(), ip_address: address })
    }

    fn subnet_of<'s>(&self, subnets: &'s [Subnet], wanted: &Wanted) -> Result<&'s Subnet> {
        if let Some(id) = &wanted.subnet {
            let found = subnets.iter().find(|subnet| subnet.id == *id).ok_or_else(|| error::invalid_input(format!(
                "Failed to create port on network {}, because fixed_ips included invalid subnet {id}", self.network.id
            )))?;
            return match wanted.address {
                Some(address) if !found.cidr.contains(&address) => Err(error::invalid_ip_for_subnet(address)),
                _ => Ok(found),
            };
        }
        let Some(address) = wanted.address else { return Err(error::invalid_input("IP allocation requires subnet_id or ip_address")) };
        subnets.iter().find(|subnet| subnet.cidr.contains(&address)).ok_or_else(|| error::invalid_ip_for_network(address))
    }

    /// The address that the guest forms from its MAC.
    pub fn stateless(&self, tx: &mut Tx, subnet: &Subnet) -> Result<Option<FixedIp>> {
        let Some(address) = eui64(&subnet.cidr, self.mac) else { return Ok(None) };
        if !take(tx, &subnet.id, address)? {
            return Err(error::address_in_use(&self.network.id, address));
        }
        Ok(Some(FixedIp { subnet_id: subnet.id.clone(), ip_address: address }))
    }

    /// The addresses of a port after an update: what stays is kept, what is gone is given back, what is new is sought.
    pub fn change(&self, tx: &mut Tx, port: &Port, wanted: &[Wanted]) -> Result<Vec<FixedIp>> {
        let mut free = port.fixed_ips.clone();
        let mut kept = Vec::new();
        let mut missing = Vec::new();
        // Certain addresses first, so that a wish for a subnet does not keep one that another entry names.
        let mut ordered: Vec<&Wanted> = wanted.iter().collect();
        ordered.sort_by_key(|wanted| wanted.address.is_none());
        for wanted in ordered {
            match free.iter().position(|fixed| wanted.is(fixed)) {
                Some(at) => kept.push(free.remove(at)),
                None => missing.push(wanted.clone()),
            }
        }
        for fixed in &free {
            give_back(tx, fixed)?;
        }
        let subnets = self.network.subnets(tx)?;
        for wanted in &missing {
            kept.push(self.one(tx, &subnets, wanted)?);
        }
        Ok(kept)
    }
}

/// The lowest free address of a subnet; none when it is full.
pub fn lowest(tx: &mut Tx, subnet: &Subnet) -> Result<Option<FixedIp>> {
    let mut addresses = tx.need::<SubnetAddresses>(&subnet.id)?.doc;
    let Some(address) = addresses.used.lowest_free(&subnet.pools) else { return Ok(None) };
    addresses.used.take(address);
    tx.update(&addresses)?;
    Ok(Some(FixedIp { subnet_id: subnet.id.clone(), ip_address: address }))
}

/// Takes a certain address; false when it is taken.
fn take(tx: &mut Tx, subnet: &SubnetId, address: IpAddr) -> Result<bool> {
    let mut addresses = tx.need::<SubnetAddresses>(subnet)?.doc;
    if !addresses.used.take(address) {
        return Ok(false);
    }
    tx.update(&addresses)?;
    Ok(true)
}

pub fn give_back(tx: &mut Tx, fixed: &FixedIp) -> Result<()> {
    if let Some(mut addresses) = tx.doc::<SubnetAddresses>(&fixed.subnet_id)? {
        addresses.used.free(fixed.ip_address);
        tx.update(&addresses)?;
    }
    Ok(())
}
