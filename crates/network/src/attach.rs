//! What compute asks of this service, in compute's own transactions.
//!
//! Faults are those that Nova answers with: what a user names wrongly in `POST /servers` is a bad request, a port or
//! address in use a conflict, too many ports forbidden. Each carries a name that compute may look at.

use crate::attr::Input;
use crate::floatingips::FloatingIp;
use crate::networks::Network;
use crate::ports::{self, Attached, NewPort, Observed, Port, Wanted};
use crate::project::{Touch, touch};
use crate::routers::{self, Router};
use crate::security_groups::{self, SecurityGroup};
use crate::standard::{Look, Standard};
use crate::subnets::Subnet;
use agent_api::{PortObserved, RouterObserved, ViewKind};
use base::{Fault, HostName, PortId, ProjectId, Result, SecurityGroupId, ServerId};
use contract::{Caller, FixedAddress, NetworkRequest, Ports, RequestedNetwork, ServerPort};
use store::{Change, Document, Query, Reader, Tx};

/// The most ports of a server.
const PORTS: usize = 64;

fn invalid(name: &'static str, message: String) -> Fault {
    Fault::invalid(message).named(name)
}

impl Ports for crate::Network {
    fn attach(
        &self,
        tx: &mut Tx,
        caller: &Caller,
        project: &ProjectId,
        server: &ServerId,
        hostname: &str,
        request: &NetworkRequest,
        security_groups: &[String],
    ) -> Result<Vec<ServerPort>> {
        let wanted = match request {
            NetworkRequest::None => return Ok(vec![]),
            NetworkRequest::Auto => auto(tx, project)?,
            NetworkRequest::List(list) => list.clone(),
        };
        let has = server_ports(tx, server)?;
        if has.len() + wanted.len() > PORTS {
            return Err(invalid("TooManyPorts", format!("A server may have at most {PORTS} ports.")));
        }
        let groups = named_groups(tx, project, security_groups)?;
        let first = has.iter().filter_map(|port| port.attached.as_ref()).map(|attached| attached.index + 1).max().unwrap_or(0);
        let mut made = Vec::new();
        for (index, one) in (first..).zip(&wanted) {
            let attached = Attached {
                server: server.clone(),
                index,
                made: one.port.is_none(),
                hostname: hostname.to_owned(),
                tag: one.tag.clone(),
            };
            let port = match &one.port {
                Some(id) => take_over(tx, &Who { net: self, caller, project }, id, attached)?,
                None => make(tx, &Who { net: self, caller, project }, one, &groups, attached)?,
            };
            made.push(port);
        }
        made.into_iter().map(|port| server_port(tx, port)).collect()
    }

    fn bind(&self, tx: &mut Tx, server: &ServerId, host: Option<&HostName>) -> Result<()> {
        let host = host.cloned().unwrap_or_default();
        for mut port in server_ports(tx, server)? {
            if port.host == host {
                continue;
            }
            if !port.host.is_empty() {
                left(tx, &port)?;
            }
            // Where a port is wired is no change of its own: the revision stays.
            port.host = host.clone();
            port.wanted_at = (!host.is_empty()).then(|| tx.now());
            tx.update(&port)?;
        }
        Ok(())
    }

    fn detach(&self, tx: &mut Tx, server: &ServerId, port: &PortId) -> Result<()> {
        let found = server_ports(tx, server)?.into_iter().find(|known| known.id == *port);
        let found = found.ok_or_else(|| Fault::not_found(format!("Port id {port} could not be found.")).named("PortNotFound"))?;
        give_back(tx, found)
    }

    fn detach_all(&self, tx: &mut Tx, server: &ServerId) -> Result<()> {
        for port in server_ports(tx, server)? {
            give_back(tx, port)?;
        }
        Ok(())
    }

    fn servers_with_ports(&self, reader: &mut Reader) -> Result<Vec<ServerId>> {
        let ports: Vec<Port> = reader.docs(Query::all())?;
        let mut servers: Vec<ServerId> = ports.into_iter().filter_map(|port| Some(port.attached?.server)).collect();
        servers.sort();
        servers.dedup();
        Ok(servers)
    }

    fn of_server(&self, reader: &mut Reader, server: &ServerId) -> Result<Vec<ServerPort>> {
        server_ports(reader, server)?.into_iter().map(|port| server_port(reader, port)).collect()
    }

    /// What a new body no longer shows (a port gone, a floating address taken away) is named by a touch of the server.
    fn servers_touched(&self, reader: &mut Reader, change: &Change) -> Result<Option<Vec<ServerId>>> {
        let ports: Vec<Port> = match &*change.kind {
            Port::KIND => change.document::<Port>()?.map(|stored| stored.doc).into_iter().collect(),
            Observed::KIND => reader.doc(&change.id)?.into_iter().collect(),
            FloatingIp::KIND => match change.document::<FloatingIp>()?.and_then(|stored| stored.doc.port_id) {
                Some(port) => reader.doc(&port)?.into_iter().collect(),
                None => vec![],
            },
            Network::KIND => reader.by("network", &change.id)?,
            Subnet::KIND => match change.document::<Subnet>()? {
                Some(subnet) => reader.by("subnet", &subnet.id)?,
                None => vec![],
            },
            SecurityGroup::KIND => reader.by("group", &change.id)?,
            Touch::KIND => {
                let touch = change.document::<Touch>()?.filter(|touch| touch.kind == ViewKind::Guest);
                return Ok(Some(touch.map(|touch| ServerId::new(touch.doc.object)).into_iter().collect()));
            }
            _ => vec![],
        };
        let mut servers: Vec<ServerId> = ports.into_iter().filter_map(|port| Some(port.attached?.server)).collect();
        servers.sort();
        servers.dedup();
        Ok(Some(servers))
    }

    fn add_security_group(&self, tx: &mut Tx, caller: &Caller, server: &ServerId, group: &str) -> Result<()> {
        let ports = server_ports(tx, server)?;
        let group = one_group(tx, caller, &ports, group)?;
        let mut fits = false;
        for mut port in ports {
            if !port.port_security || port.fixed_ips.is_empty() {
                continue;
            }
            fits = true;
            if !port.security_groups.contains(&group) {
                let old = port.clone();
                port.security_groups.push(group.clone());
                port.security_groups.sort();
                ports::put(tx, &old, &mut port)?;
            }
        }
        if fits { Ok(()) } else { Err(cannot_apply()) }
    }

    fn remove_security_group(&self, tx: &mut Tx, caller: &Caller, server: &ServerId, group: &str) -> Result<()> {
        let ports = server_ports(tx, server)?;
        let id = one_group(tx, caller, &ports, group)?;
        let mut found = false;
        for mut port in ports.into_iter().filter(|port| port.security_groups.contains(&id)) {
            found = true;
            let old = port.clone();
            port.security_groups.retain(|known| *known != id);
            ports::put(tx, &old, &mut port)?;
        }
        if found {
            return Ok(());
        }
        Err(Fault::not_found(format!("Security group {group} not associated with the instance {server}")).named("SecurityGroupNotFound"))
    }

    fn ports_observed(&self, tx: &mut Tx, host: &HostName, reported: &[PortObserved]) -> Result<()> {
        for one in reported {
            let known = tx.doc::<Port>(&one.id)?.is_some_and(|port| port.host == *host);
            if known {
                let before = tx.doc::<Observed>(&one.id)?.filter(|before| before.host == *host);
                let down_at = before.and_then(|before| if before.up { Some(tx.now()) } else { before.down_at });
                let (down_at, fault) = (down_at.filter(|_| !one.up), cut(&one.fault));
                tx.put(&Observed { id: one.id.clone(), host: host.clone(), up: one.up, fault, down_at })?;
            }
        }
        Ok(())
    }

    fn routers_observed(&self, tx: &mut Tx, host: &HostName, reported: &[RouterObserved]) -> Result<()> {
        for one in reported {
            let known = tx.doc::<Router>(&one.id)?.is_some_and(|router| router.host == *host);
            if known {
                let before = tx.doc::<routers::Observed>(&one.id)?.filter(|before| before.host == *host);
                let mut now = routers::Observed::of(one, before, tx.now());
                // What was taken away on purpose is not missed.
                for id in now.missing.keys().cloned().collect::<Vec<_>>() {
                    if tx.doc::<FloatingIp>(&id)?.is_none_or(|floating| floating.router_id.as_ref() != Some(&one.id)) {
                        now.missing.remove(&id);
                    }
                }
                tx.put(&routers::Observed { host: host.clone(), fault: cut(&one.fault), ..now })?;
            }
        }
        Ok(())
    }
}

/// A fault that a host tells is shown to users: bounded, and without what the store cannot keep.
fn cut(fault: &Option<String>) -> Option<String> {
    fault.as_ref().map(|text| text.chars().filter(|c| *c != '\0').take(500).collect())
}

struct Who<'a> {
    net: &'a crate::Network,
    caller: &'a Caller,
    project: &'a ProjectId,
}

impl Who<'_> {
    fn is_admin(&self) -> bool {
        self.net.policy.allows("context_is_admin", &self.caller.credentials, &policy::Target::new())
    }

    fn may_see(&self, network: &Network) -> bool {
        network.project_id == *self.project || network.shared || network.external || self.is_admin()
    }
}

/// The only network that the project could mean.
fn auto(tx: &mut Tx, project: &ProjectId) -> Result<Vec<RequestedNetwork>> {
    let mut networks: Vec<Network> = tx.docs(Query::project(project.as_str()))?;
    let open: Vec<Network> = tx.by("open", "1")?;
    networks.extend(open.into_iter().filter(|network| network.shared && network.project_id != *project));
    networks.retain(|network| !network.external);
    match networks.len() {
        0 => Ok(vec![]),
        1 => Ok(networks.into_iter().map(|network| RequestedNetwork { network: Some(network.id), ..Default::default() }).collect()),
        _ => Err(Fault::conflict("Multiple possible networks found, use a Network ID to be more specific.").named("NetworkAmbiguous")),
    }
}

/// Groups by name or id; none named: the default of each port.
fn named_groups(tx: &mut Tx, project: &ProjectId, names: &[String]) -> Result<Option<Vec<SecurityGroupId>>> {
    if names.is_empty() {
        return Ok(None);
    }
    let mut groups = Vec::new();
    for name in names {
        if name == security_groups::DEFAULT {
            groups.push(security_groups::ensure_default(tx, project)?);
            continue;
        }
        let found = security_groups::find_by_name_or_id(tx, project, name)?;
        let missing = || invalid("SecurityGroupNotFound", format!("Security group {name} not found for project {project}."));
        groups.push(found.ok_or_else(missing)?.id);
    }
    groups.sort();
    groups.dedup();
    Ok(Some(groups))
}

fn cannot_apply() -> Fault {
    invalid(
        "SecurityGroupCannotBeApplied",
        "Network requires port_security_enabled and subnet associated in order to apply security groups.".into(),
    )
}

fn make(tx: &mut Tx, who: &Who, one: &RequestedNetwork, groups: &Option<Vec<SecurityGroupId>>, attached: Attached) -> Result<Port> {
    let id = one.network.clone().unwrap_or_default();
    let found = tx.doc::<Network>(&id)?.filter(|network| who.may_see(network));
    let network = found.ok_or_else(|| invalid("NetworkNotFound", format!("Network {id} could not be found.")))?;
    if network.external && !network.shared && network.project_id != *who.project && !who.is_admin() {
        return Err(Fault::forbidden(format!("It is not allowed to create an interface on external network {id}")).named("ExternalNetworkAttachForbidden"));
    }
    let subnets = network.subnets(tx)?;
    if subnets.is_empty() {
        return Err(invalid("NetworkRequiresSubnet", format!("Network {id} requires a subnet in order to boot instances on.")));
    }
    if !network.port_security && groups.is_some() {
        return Err(cannot_apply());
    }
    let new = NewPort {
        project: who.project,
        wanted: one.fixed_ip.as_deref().map(|text| wanted_address(tx, text, &network, &subnets)).transpose()?,
        device_id: attached.server.to_string(),
        device_owner: format!("compute:{}", crate::ZONE),
        groups: groups.clone(),
        attached: Some(attached),
        ..NewPort::default()
    };
    let standard = Standard::new(tx, &Input::default());
    ports::insert(tx, &network, new, standard).map_err(as_nova)
}

fn wanted_address(tx: &mut Tx, text: &str, network: &Network, subnets: &[Subnet]) -> Result<Vec<Wanted>> {
    let wrong = |why: &str| invalid("FixedIpInvalid", format!("Fixed IP address {text:.64} {why} {}.", network.id));
    let address: std::net::IpAddr = text.parse().map_err(|_| wrong("is not an address for network"))?;
    let subnet = subnets.iter().find(|subnet| subnet.cidr.contains(&address)).ok_or_else(|| wrong("is not a valid ip address for network"))?;
    if let Some(holder) = tx.get_unique::<Port>("address", [subnet.id.as_str(), &address.to_string()])? {
        return Err(invalid("FixedIpAlreadyInUse", format!("Fixed IP address {address} is already in use on instance {}.", holder.device_id)));
    }
    Ok(vec![Wanted { subnet: Some(subnet.id.clone()), address: Some(address) }])
}

/// Our own faults as Nova says them.
fn as_nova(fault: Fault) -> Fault {
    match fault.name.as_deref() {
        Some("OverQuota") => Fault::new(base::FaultKind::Quota, "Maximum number of ports exceeded").named("PortLimitExceeded").because(fault),
        Some("IpAddressGenerationFailure") => Fault::invalid("No fixed IP addresses available for network.").named("NoMoreFixedIps").because(fault),
        Some("InvalidIpForSubnet" | "InvalidIpForNetwork" | "InvalidInput") => Fault::invalid(fault.message.clone()).named("FixedIpInvalid").because(fault),
        _ => fault,
    }
}

fn take_over(tx: &mut Tx, who: &Who, id: &PortId, attached: Attached) -> Result<Port> {
    let found = tx.doc::<Port>(id)?;
    let mut port = match found {
        Some(port) if port.project_id == *who.project || who.is_admin() => port,
        _ => return Err(invalid("PortNotFound", format!("Port id {id} could not be found."))),
    };
    if !port.device_id.is_empty() {
        return Err(Fault::conflict(format!("Port {id} is still in use.")).named("PortInUse"));
    }
    let old = port.clone();
    port.device_id = attached.server.to_string();
    port.device_owner = format!("compute:{}", crate::ZONE);
    port.attached = Some(attached);
    ports::put(tx, &old, &mut port)?;
    Ok(port)
}

fn give_back(tx: &mut Tx, mut port: Port) -> Result<()> {
    if port.attached.as_ref().is_some_and(|attached| attached.made) {
        return ports::remove(tx, port);
    }
    let old = port.clone();
    if !port.host.is_empty() {
        left(tx, &port)?;
    }
    touch(tx, ViewKind::Guest, &port.device_id)?;
    port.device_id.clear();
    port.device_owner.clear();
    port.host = HostName::default();
    port.wanted_at = None;
    port.attached = None;
    ports::put(tx, &old, &mut port)
}

/// A port leaves its host: what was there because of it may go.
fn left(tx: &mut Tx, port: &Port) -> Result<()> {
    touch(tx, ViewKind::Network, &port.network_id)?;
    for group in &port.security_groups {
        touch(tx, ViewKind::SecurityGroup, group)?;
    }
    Ok(())
}

/// The ports of a server in its order.
fn server_ports(reader: &mut Reader, server: &ServerId) -> Result<Vec<Port>> {
    let mut ports: Vec<Port> = reader.by("device", server)?;
    ports.retain(|port| port.attached.as_ref().is_some_and(|attached| attached.server == *server));
    ports.sort_by_key(|port| port.attached.as_ref().map(|attached| attached.index));
    Ok(ports)
}

fn one_group(tx: &mut Tx, caller: &Caller, ports: &[Port], text: &str) -> Result<SecurityGroupId> {
    let project = ports.first().map(|port| port.project_id.clone()).or_else(|| caller.project_id()).unwrap_or_default();
    let found = security_groups::find_by_name_or_id(tx, &project, text)?;
    let missing = || Fault::not_found(format!("Security group {text} not found for project {project}.")).named("SecurityGroupNotFound");
    Ok(found.ok_or_else(missing)?.id)
}

fn server_port(reader: &mut Reader, port: Port) -> Result<ServerPort> {
    let network = port.network(reader)?;
    let mut fixed = Vec::new();
    for one in &port.fixed_ips {
        let Some(subnet) = reader.doc::<Subnet>(&one.subnet_id)? else { continue };
        fixed.push(FixedAddress {
            subnet: subnet.id,
            address: one.ip_address,
            prefix_len: subnet.cidr.prefix_len(),
            gateway: subnet.gateway,
            dns: subnet.dns,
            dhcp: subnet.dhcp,
        });
    }
    let floating: Vec<FloatingIp> = reader.by("port", &port.id)?;
    let mut groups = Vec::new();
    for id in &port.security_groups {
        groups.extend(reader.doc::<SecurityGroup>(id)?.map(|group| (group.id, group.name)));
    }
    let observed = reader.doc::<Observed>(&port.id)?.filter(|observed| observed.host == port.host);
    let attached = port.attached.clone();
    Ok(ServerPort {
        server: ServerId::new(port.device_id.clone()),
        network: network.id,
        network_name: network.name,
        mtu: network.mtu,
        mac: port.mac,
        fixed,
        floating: floating.into_iter().filter_map(|one| Some((one.address, one.fixed_ip_address?))).collect(),
        security_groups: groups,
        admin_state_up: port.admin_state_up,
        up: observed.as_ref().is_some_and(|observed| observed.up),
        fault: observed.and_then(|observed| observed.fault),
        made_for_server: attached.as_ref().is_some_and(|attached| attached.made),
        tag: attached.and_then(|attached| attached.tag),
        id: port.id,
    })
}
