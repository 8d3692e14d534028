//! What hosts shall realise, derived from documents: networks, ports, routers, security groups and address sets.
//!
//! A network is on a host where a port on it is bound, or where a router with a port on it lives. A security group is
//! there where a bound port has it; an address set where such a group names it as a remote.
//!
//! A change names what it may have touched by its new body. What the new body no longer shows (a group left, a port
//! gone) is named by a [`Touch`] that the same transaction wrote.

use crate::floatingips::FloatingIp;
use crate::members::net;
use crate::networks::{Network, Provider};
use crate::ports::{self, Port};
use crate::routers::Router;
use crate::security_groups::{Direction, SecurityGroup, SecurityGroupRule};
use crate::standard::Look;
use crate::subnets::Subnet;
use agent_api::{
    AddressSet, ExternalSpec, FloatingSpec, NetworkSpec, PortSpec, RouterGateway, RouterInterface, RouterSpec,
    RuleSpec, SecurityGroupSpec, SubnetSpec, ViewKind, ViewObject,
};
use base::{HostName, Result};
use contract::{Projector, Touched};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use store::{Change, Document, Reader, Tx};

/// Says that hosts must look at an object again. One per object, rewritten.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Touch {
    /// Kind and id of the object.
    pub id: String,
    pub kind: ViewKind,
    pub object: String,
    /// The revision that touched it last.
    pub rev: u64,
}

impl Document for Touch {
    const KIND: &'static str = "network_touch";
    const TRASH: bool = false;
    const UNDO: bool = false;

    fn id(&self) -> &str {
        &self.id
    }
}

/// Names an object that hosts must look at again.
pub fn touch(tx: &mut Tx, kind: ViewKind, object: &str) -> Result<()> {
    let touch = Touch { id: format!("{kind:?}/{object}"), kind, object: object.to_owned(), rev: tx.rev().0 };
    tx.put(&touch)?;
    Ok(())
}

impl Projector for crate::Network {
    fn whole(&self, reader: &mut Reader, host: &HostName) -> Result<Vec<ViewObject>> {
        let mut view = View { net: self, host, reader };
        let mut objects = Vec::new();
        for (kind, id) in view.all()? {
            objects.extend(view.object(kind, &id)?);
        }
        Ok(objects)
    }

    fn anew(&self) {
        self.members.forget();
    }

    fn touched(&self, reader: &mut Reader, change: &Change, touched: &mut Touched) -> Result<()> {
        let id = &change.id;
        match &*change.kind {
            Touch::KIND => {
                // Guests are another service's objects: who reads a server's ports asks `servers_touched`.
                if let Some(touch) = change
                    .document::<Touch>()?
                    .filter(|touch| !matches!(touch.kind, ViewKind::Guest | ViewKind::Volume))
                {
                    name(reader, touched, touch.kind, &touch.object)?;
                }
            }
            Network::KIND => name(reader, touched, ViewKind::Network, id)?,
            Subnet::KIND => {
                if let Some(subnet) = change.document::<Subnet>()? {
                    name(reader, touched, ViewKind::Network, &subnet.network_id)?;
                }
            }
            Port::KIND => {
                touched.anywhere(ViewKind::Port, id);
                if let Some(port) = change.document::<Port>()? {
                    port_touched(reader, touched, &port)?;
                }
            }
            Router::KIND => name(reader, touched, ViewKind::Router, id)?,
            FloatingIp::KIND => {
                if let Some(router) = change.document::<FloatingIp>()?.and_then(|floating| floating.doc.router_id) {
                    touched.anywhere(ViewKind::Router, &router);
                }
            }
            SecurityGroup::KIND => name(reader, touched, ViewKind::SecurityGroup, id)?,
            SecurityGroupRule::KIND => {
                if let Some(rule) = change.document::<SecurityGroupRule>()? {
                    name(reader, touched, ViewKind::SecurityGroup, &rule.group_id)?;
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn one(&self, reader: &mut Reader, host: &HostName, kind: ViewKind, id: &str) -> Result<Option<ViewObject>> {
        View { net: self, host, reader }.object(kind, id)
    }

    fn everywhere(&self, reader: &mut Reader, kind: ViewKind, id: &str) -> Result<BTreeMap<HostName, ViewObject>> {
        let hosts = places(self, reader, kind, id)?;
        let Some(host) = hosts.first() else { return Ok(BTreeMap::new()) };
        // Only whether it is there depends on the host.
        let object = View { net: self, host, reader }.object(kind, id)?;
        Ok(object.into_iter().flat_map(|object| hosts.iter().map(move |host| (host.clone(), object.clone()))).collect())
    }
}

/// Names an object with what hangs on it: a router's networks come and go with it, a network's subnets stand in the
/// routers on it, a group's remotes are there because of it.
fn name(reader: &mut Reader, touched: &mut Touched, kind: ViewKind, id: &str) -> Result<()> {
    touched.anywhere(kind, id);
    match kind {
        ViewKind::Network => {
            let ports: Vec<Port> = reader.by("router", id)?;
            for port in ports {
                touched.anywhere(ViewKind::Router, &port.device_id);
            }
        }
        ViewKind::Router => {
            let ports: Vec<Port> = reader.by("device", id)?;
            for port in ports {
                touched.anywhere(ViewKind::Network, &port.network_id);
            }
        }
        ViewKind::SecurityGroup => {
            for remote in remotes(reader, id)? {
                touched.anywhere(ViewKind::AddressSet, &remote);
            }
        }
        _ => {}
    }
    Ok(())
}

fn port_touched(reader: &mut Reader, touched: &mut Touched, port: &Port) -> Result<()> {
    touched.anywhere(ViewKind::Network, &port.network_id);
    for group in &port.security_groups {
        touched.anywhere(ViewKind::AddressSet, group);
        name(reader, touched, ViewKind::SecurityGroup, group)?;
    }
    if port.is_router_owned() {
        name(reader, touched, ViewKind::Router, &port.device_id)?;
    }
    Ok(())
}

fn remotes(reader: &mut Reader, group: &str) -> Result<BTreeSet<String>> {
    let rules: Vec<SecurityGroupRule> = reader.by("group", group)?;
    Ok(rules.into_iter().filter_map(|rule| rule.remote_group).map(|id| id.to_string()).collect())
}

/// The hosts that have an object: the module's comment says why.
fn places(net: &crate::Network, reader: &mut Reader, kind: ViewKind, id: &str) -> Result<BTreeSet<HostName>> {
    let mut hosts = BTreeSet::new();
    match kind {
        ViewKind::Port => hosts.extend(reader.doc::<Port>(id)?.map(|port| port.host)),
        ViewKind::Router => hosts.extend(reader.doc::<Router>(id)?.map(|router| router.host)),
        ViewKind::Network => {
            let ports: Vec<Port> = reader.by("router", id)?;
            for port in ports {
                hosts.extend(reader.doc::<Router>(&port.device_id)?.map(|router| router.host));
            }
            hosts.extend(net.ask(reader, |table| table.network_hosts(id).cloned().collect::<Vec<_>>())?);
        }
        ViewKind::SecurityGroup => {
            hosts.extend(net.ask(reader, |table| table.group_hosts(id).cloned().collect::<Vec<_>>())?);
        }
        ViewKind::AddressSet => {
            for group in naming(reader, id)? {
                hosts.extend(net.ask(reader, |table| table.group_hosts(&group).cloned().collect::<Vec<_>>())?);
            }
        }
        ViewKind::Guest | ViewKind::Volume => {}
    }
    hosts.retain(|host| !host.is_empty());
    Ok(hosts)
}

/// The groups with a rule that names a group as its remote.
fn naming(reader: &mut Reader, remote: &str) -> Result<BTreeSet<String>> {
    let rules: Vec<SecurityGroupRule> = reader.by("remote", remote)?;
    Ok(rules.into_iter().map(|rule| rule.group_id.to_string()).collect())
}

/// The view of one host.
struct View<'a> {
    net: &'a crate::Network,
    host: &'a HostName,
    reader: &'a mut Reader,
}

impl View<'_> {
    /// Everything that is on the host.
    fn all(&mut self) -> Result<BTreeSet<(ViewKind, String)>> {
        let mut all = BTreeSet::new();
        let ports: Vec<Port> = self.reader.by("host", self.host)?;
        for port in ports {
            all.insert((ViewKind::Port, port.id.to_string()));
            all.insert((ViewKind::Network, port.network_id.to_string()));
            for group in &port.security_groups {
                all.insert((ViewKind::SecurityGroup, group.to_string()));
            }
        }
        let routers: Vec<Router> = self.reader.by("host", self.host)?;
        for router in routers {
            for port in router.ports(self.reader)? {
                all.insert((ViewKind::Network, port.network_id.to_string()));
            }
            all.insert((ViewKind::Router, router.id.to_string()));
        }
        let groups: Vec<String> =
            all.iter().filter(|key| key.0 == ViewKind::SecurityGroup).map(|key| key.1.clone()).collect();
        for group in groups {
            for remote in remotes(self.reader, &group)? {
                all.insert((ViewKind::AddressSet, remote));
            }
        }
        Ok(all)
    }

    fn object(&mut self, kind: ViewKind, id: &str) -> Result<Option<ViewObject>> {
        Ok(match kind {
            ViewKind::Network => self.network(id)?.map(ViewObject::Network),
            ViewKind::Port => self.port(id)?.map(ViewObject::Port),
            ViewKind::Router => self.router(id)?.map(ViewObject::Router),
            ViewKind::SecurityGroup => self.group(id)?.map(ViewObject::SecurityGroup),
            ViewKind::AddressSet => self.address_set(id)?.map(ViewObject::AddressSet),
            ViewKind::Guest | ViewKind::Volume => None,
        })
    }

    fn has_network(&mut self, id: &str) -> Result<bool> {
        if self.reader.first::<Port>("host_network", &format!("{}/{id}", self.host))?.is_some() {
            return Ok(true);
        }
        let ports: Vec<Port> = self.reader.by("router", id)?;
        for port in ports {
            if self.reader.doc::<Router>(&port.device_id)?.is_some_and(|router| router.host == *self.host) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn has_group(&mut self, id: &str) -> Result<bool> {
        Ok(self.reader.first::<Port>("host_group", &format!("{}/{id}", self.host))?.is_some())
    }

    fn network(&mut self, id: &str) -> Result<Option<NetworkSpec>> {
        let Some(network) = self.reader.doc::<Network>(id)? else { return Ok(None) };
        if !self.has_network(id)? {
            return Ok(None);
        }
        let subnets = network.subnets(self.reader)?;
        let service = self.reader.first::<Port>("service", id)?;
        Ok(Some(NetworkSpec {
            external: external(self.net, &network, &subnets),
            id: network.id,
            mtu: network.mtu,
            admin_state_up: network.admin_state_up,
            subnets: subnets.into_iter().map(subnet_spec).collect(),
            service_mac: service.as_ref().map(|port| port.mac.clone()),
            service_addresses: service
                .map_or(vec![], |port| port.fixed_ips.iter().map(|fixed| fixed.ip_address).collect()),
        }))
    }

    fn port(&mut self, id: &str) -> Result<Option<PortSpec>> {
        let found = self.reader.doc::<Port>(id)?.filter(|port| port.host == *self.host);
        Ok(found.map(|port| PortSpec {
            server: port.attached.as_ref().map(|attached| attached.server.clone()),
            hostname: port.attached.as_ref().map(|attached| attached.hostname.clone()).filter(|name| !name.is_empty()),
            fixed_ips: port.fixed_ips.iter().map(|fixed| (fixed.subnet_id.clone(), fixed.ip_address)).collect(),
            allowed_address_pairs: port
                .address_pairs
                .iter()
                .filter_map(|pair| Some((pair.mac.clone(), net(&pair.ip)?)))
                .collect(),
            extra_dhcp_opts: port
                .dhcp_options
                .iter()
                .map(|option| (option.opt_name.clone(), option.opt_value.clone()))
                .collect(),
            id: port.id,
            network: port.network_id,
            mac: port.mac,
            admin_state_up: port.admin_state_up,
            port_security: port.port_security,
            security_groups: port.security_groups,
        }))
    }

    fn router(&mut self, id: &str) -> Result<Option<RouterSpec>> {
        let found = self.reader.doc::<Router>(id)?.filter(|router| router.host == *self.host);
        let Some(router) = found else { return Ok(None) };
        let (mut interfaces, mut gateway) = (Vec::new(), None);
        for port in router.ports(self.reader)? {
            let subnets = self.subnets_of(&port)?;
            let addresses = port
                .fixed_ips
                .iter()
                .filter_map(|fixed| {
                    let subnet = subnets.iter().find(|subnet| subnet.id == fixed.subnet_id)?;
                    IpNet::new(fixed.ip_address, subnet.cidr.prefix_len()).ok()
                })
                .collect();
            if port.device_owner == ports::INTERFACE {
                interfaces.push(RouterInterface { port: port.id, network: port.network_id, mac: port.mac, addresses });
                continue;
            }
            gateway = Some(RouterGateway {
                port: port.id,
                network: port.network_id,
                mac: port.mac,
                addresses,
                next_hops: subnets.iter().filter_map(|subnet| subnet.gateway).collect(),
                snat: router.gateway.as_ref().is_some_and(|gateway| gateway.enable_snat),
            });
        }
        let floating: Vec<FloatingIp> = self.reader.by("router", id)?;
        Ok(Some(RouterSpec {
            id: router.id,
            admin_state_up: router.admin_state_up,
            gateway,
            interfaces,
            routes: router.routes,
            floating: floating
                .into_iter()
                .filter_map(|floating| {
                    Some(FloatingSpec {
                        fixed: floating.fixed_ip_address?,
                        floating: floating.address,
                        id: floating.id,
                    })
                })
                .collect(),
        }))
    }

    fn subnets_of(&mut self, port: &Port) -> Result<Vec<Subnet>> {
        let mut subnets = Vec::new();
        for fixed in &port.fixed_ips {
            subnets.extend(self.reader.doc::<Subnet>(&fixed.subnet_id)?);
        }
        Ok(subnets)
    }

    fn group(&mut self, id: &str) -> Result<Option<SecurityGroupSpec>> {
        let Some(group) = self.reader.doc::<SecurityGroup>(id)? else { return Ok(None) };
        if !self.has_group(id)? {
            return Ok(None);
        }
        let rules: Vec<SecurityGroupRule> = self.reader.by("group", id)?;
        Ok(Some(SecurityGroupSpec {
            id: group.id,
            stateful: group.stateful,
            rules: rules.into_iter().map(rule_spec).collect(),
        }))
    }

    /// The addresses of all ports of a group, whatever host they are on, where a group on this host names it.
    fn address_set(&mut self, id: &str) -> Result<Option<AddressSet>> {
        let mut wanted = false;
        for group in naming(self.reader, id)? {
            wanted = wanted || self.has_group(&group)?;
        }
        if !wanted {
            return Ok(None);
        }
        let addresses = self.net.ask(self.reader, |table| table.addresses(id))?.into();
        Ok(Some(AddressSet { id: id.into(), addresses }))
    }
}

/// A flat network on which the host is the gateway.
fn external(net: &crate::Network, network: &Network, subnets: &[Subnet]) -> Option<ExternalSpec> {
    if !network.external || !matches!(network.provider, Provider::Flat { .. }) {
        return None;
    }
    let subnet = subnets.iter().find(|subnet| subnet.is_ipv4() && subnet.gateway.is_some())?;
    let host_address = IpNet::new(subnet.gateway?, subnet.cidr.prefix_len()).ok()?;
    Some(ExternalSpec { host_address, masquerade: net.options.uplink.clone() })
}

fn subnet_spec(subnet: Subnet) -> SubnetSpec {
    SubnetSpec {
        id: subnet.id,
        cidr: subnet.cidr,
        gateway: subnet.gateway,
        dhcp: subnet.dhcp,
        dns: subnet.dns,
        host_routes: subnet.host_routes,
        ipv6_ra_mode: subnet.ipv6_ra_mode,
        ipv6_address_mode: subnet.ipv6_address_mode,
    }
}

fn rule_spec(rule: SecurityGroupRule) -> RuleSpec {
    RuleSpec {
        ingress: rule.direction == Direction::Ingress,
        ipv6: rule.ipv6,
        protocol: rule.protocol_number(),
        port_min: rule.port_min,
        port_max: rule.port_max,
        remote_group: rule.remote_group,
        remote_prefix: rule.remote_prefix.map(|prefix| prefix.net),
    }
}
