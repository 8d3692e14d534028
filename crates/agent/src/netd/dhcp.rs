//! DHCPv4: reading what guests send, and the answer to it. Pure.
//!
//! Only MACs of the network's own ports are answered, each with its own address, always the same: there are no leases
//! to keep. Numbers are RFC 2131's and 2132's; classless routes RFC 3442's.

use super::link::NetworkView;
use agent_api::{PortSpec, SubnetSpec};
use ipnet::{IpNet, Ipv4Net};
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};

const COOKIE: [u8; 4] = [99, 130, 83, 99];
const FIXED: usize = 240;
const LEASE_SECONDS: u32 = 86_400;
const DOMAIN: &str = "openstacklocal";
pub const METADATA: Ipv4Addr = Ipv4Addr::new(169, 254, 169, 254);

const DISCOVER: u8 = 1;
const OFFER: u8 = 2;
const REQUEST: u8 = 3;
const ACK: u8 = 5;
const NAK: u8 = 6;
const INFORM: u8 = 8;

/// A request, as far as it matters.
#[derive(Clone, Debug, PartialEq)]
pub struct Query {
    pub kind: u8,
    pub transaction: [u8; 4],
    pub broadcast: bool,
    pub client: Ipv4Addr,
    pub relay: Ipv4Addr,
    pub mac: [u8; 6],
    pub requested: Option<Ipv4Addr>,
    pub server: Option<Ipv4Addr>,
    pub wanted: BTreeSet<u8>,
    /// The largest message the client takes, IP header included.
    pub most: usize,
}

/// How the answer reaches the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    Broadcast,
    /// The client has the address already.
    To(Ipv4Addr),
    /// To its MAC, as it has no address yet with which it could answer ARP.
    Frame(Ipv4Addr),
}

#[derive(Clone, Debug, PartialEq)]
pub struct Reply {
    pub bytes: Vec<u8>,
    pub way: Way,
    pub server: Ipv4Addr,
}

fn address(bytes: &[u8]) -> Option<Ipv4Addr> {
    Some(Ipv4Addr::from(<[u8; 4]>::try_from(bytes.get(..4)?).ok()?))
}

/// None for whatever is not a DHCP request over Ethernet.
pub fn parse(bytes: &[u8]) -> Option<Query> {
    if bytes.len() < FIXED || bytes[..3] != [1, 1, 6] || bytes[236..240] != COOKIE {
        return None;
    }
    let mut query = Query {
        kind: 0,
        transaction: bytes[4..8].try_into().ok()?,
        broadcast: bytes[10] & 0x80 != 0,
        client: address(&bytes[12..])?,
        relay: address(&bytes[24..])?,
        mac: bytes[28..34].try_into().ok()?,
        requested: None,
        server: None,
        wanted: BTreeSet::new(),
        most: 576,
    };
    let mut rest = &bytes[FIXED..];
    while let [code, tail @ ..] = rest {
        match code {
            0 => rest = tail,
            255 => break,
            _ => {
                let length = usize::from(*tail.first()?);
                let value = tail.get(1..1 + length)?;
                match code {
                    53 => query.kind = *value.first()?,
                    50 => query.requested = address(value),
                    54 => query.server = address(value),
                    55 => query.wanted.extend(value),
                    57 if length == 2 => query.most = usize::from(u16::from_be_bytes([value[0], value[1]])),
                    _ => {}
                }
                rest = &tail[1 + length..];
            }
        }
    }
    query.most = query.most.clamp(576, 1400);
    (query.kind != 0).then_some(query)
}

/// Who asks: a port of the network, and the first of its addresses that DHCP serves.
fn lease<'a>(view: &'a NetworkView, mac: &[u8; 6]) -> Option<(&'a PortSpec, &'a SubnetSpec, Ipv4Addr)> {
    let port = view.ports.iter().find(|port| netlink::mac(&port.mac).as_ref() == Some(mac))?;
    port.fixed_ips.iter().find_map(|(subnet, ip)| {
        let IpAddr::V4(ip) = ip else { return None };
        let subnet = view.spec.subnets.iter().find(|s| s.id == *subnet && s.dhcp && s.cidr.addr().is_ipv4())?;
        Some((port, subnet, *ip))
    })
}

/// The services' address in a subnet; the metadata address where the subnet has none of its own.
fn server_of(view: &NetworkView, subnet: &SubnetSpec) -> Ipv4Addr {
    let own = view.spec.service_addresses.iter().find_map(|ip| match ip {
        IpAddr::V4(v4) if subnet.cidr.contains(ip) => Some(*v4),
        _ => None,
    });
    own.unwrap_or(METADATA)
}

/// The answer to a request; none: silence.
pub fn answer(view: &NetworkView, query: &Query) -> Option<Reply> {
    let (port, subnet, ip) = lease(view, &query.mac)?;
    let server = server_of(view, subnet);
    if query.server.is_some_and(|chosen| chosen != server) || query.relay != Ipv4Addr::UNSPECIFIED {
        return None;
    }
    let asked = query.requested.unwrap_or(query.client);
    let kind = match query.kind {
        DISCOVER => OFFER,
        REQUEST if asked == ip => ACK,
        REQUEST => NAK,
        INFORM => ACK,
        _ => return None,
    };
    let yours = if kind == NAK || query.kind == INFORM { Ipv4Addr::UNSPECIFIED } else { ip };
    let mut bytes = header(query, yours, if kind == NAK { Ipv4Addr::UNSPECIFIED } else { server });
    put(&mut bytes, 53, &[kind]);
    put(&mut bytes, 54, &server.octets());
    if kind != NAK {
        let mut options = options(view, port, subnet, server, ip);
        if query.kind == INFORM {
            [51, 58, 59].iter().for_each(|code| drop(options.remove(code)));
        }
        // Routes first: with them the router option is ignored, without them a guest finds no metadata.
        for code in [51, 1, 121, 3, 26, 6, 58, 59, 12, 15, 28] {
            if let Some(value) = options.remove(&code) {
                put_if_fits(&mut bytes, code, &value, query.most);
            }
        }
        options.retain(|code, _| *code != 249 || query.wanted.contains(&249));
        options.iter().for_each(|(code, value)| put_if_fits(&mut bytes, *code, value, query.most));
    }
    bytes.push(255);
    bytes.resize(bytes.len().max(300), 0);
    let way = match query.client {
        _ if kind == NAK => Way::Broadcast,
        Ipv4Addr::UNSPECIFIED if query.broadcast => Way::Broadcast,
        Ipv4Addr::UNSPECIFIED => Way::Frame(ip),
        // Answered only to the address that this guest has: the field is the guest's own word.
        client if client == ip => Way::To(ip),
        _ => Way::Frame(ip),
    };
    Some(Reply { bytes, way, server })
}

fn header(query: &Query, yours: Ipv4Addr, next: Ipv4Addr) -> Vec<u8> {
    let mut bytes = vec![2, 1, 6, 0];
    bytes.extend(query.transaction);
    bytes.extend([0, 0, if query.broadcast { 0x80 } else { 0 }, 0]);
    bytes.extend(if query.kind == REQUEST || query.kind == INFORM { query.client.octets() } else { [0; 4] });
    bytes.extend(yours.octets());
    bytes.extend(next.octets());
    bytes.extend(query.relay.octets());
    bytes.extend(query.mac);
    bytes.resize(FIXED - 4, 0);
    bytes.extend(COOKIE);
    bytes
}

fn put(bytes: &mut Vec<u8>, code: u8, value: &[u8]) {
    // RFC 3396: what is longer than 255 bytes is said in parts.
    for part in value.chunks(255) {
        bytes.extend([code, part.len() as u8]);
        bytes.extend(part);
    }
}

fn put_if_fits(bytes: &mut Vec<u8>, code: u8, value: &[u8], most: usize) {
    const IP_AND_UDP: usize = 28;
    let more = value.len() + 2 * value.len().div_ceil(255);
    if !value.is_empty() && bytes.len() + more < most - IP_AND_UDP {
        put(bytes, code, value);
    }
}

fn options(
    view: &NetworkView,
    port: &PortSpec,
    subnet: &SubnetSpec,
    server: Ipv4Addr,
    ip: Ipv4Addr,
) -> BTreeMap<u8, Vec<u8>> {
    let mut all = BTreeMap::new();
    let IpNet::V4(cidr) = subnet.cidr else { return all };
    let gateway = match subnet.gateway {
        Some(IpAddr::V4(gateway)) if gateway != ip => Some(gateway),
        _ => None,
    };
    let dns: Vec<u8> = subnet.dns.iter().filter_map(|ip| ip4(*ip)).flat_map(|ip| ip.octets()).collect();
    let routes = routes(subnet, gateway, server);
    all.insert(1, cidr.netmask().octets().to_vec());
    all.insert(28, cidr.broadcast().octets().to_vec());
    all.insert(3, gateway.map(|ip| ip.octets().to_vec()).unwrap_or_default());
    all.insert(6, dns);
    all.insert(12, port.hostname.clone().unwrap_or_default().into_bytes());
    all.insert(15, DOMAIN.as_bytes().to_vec());
    all.insert(26, view.spec.mtu.to_be_bytes().to_vec());
    all.insert(51, LEASE_SECONDS.to_be_bytes().to_vec());
    all.insert(58, (LEASE_SECONDS / 2).to_be_bytes().to_vec());
    all.insert(59, (LEASE_SECONDS / 8 * 7).to_be_bytes().to_vec());
    all.insert(121, routes.clone());
    all.insert(249, routes);
    for (name, value) in &port.extra_dhcp_opts {
        if let Some((code, value)) = extra(name, value) {
            all.insert(code, value);
        }
    }
    all
}

fn ip4(ip: IpAddr) -> Option<Ipv4Addr> {
    if let IpAddr::V4(ip) = ip { Some(ip) } else { None }
}

/// Metadata by the services' address, the subnet's own routes, and the default route, which a client that reads this
/// option takes from nowhere else.
fn routes(subnet: &SubnetSpec, gateway: Option<Ipv4Addr>, server: Ipv4Addr) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut add = |to: Ipv4Net, via: Ipv4Addr| {
        bytes.push(to.prefix_len());
        bytes.extend(&to.network().octets()[..usize::from(to.prefix_len().div_ceil(8))]);
        bytes.extend(via.octets());
    };
    // With no address of their own in the subnet, the services are on the link itself.
    add(Ipv4Net::from(METADATA), if server == METADATA { Ipv4Addr::UNSPECIFIED } else { server });
    for (to, via) in &subnet.host_routes {
        if let (IpNet::V4(to), IpAddr::V4(via)) = (to, via) {
            add(*to, *via);
        }
    }
    if let Some(gateway) = gateway {
        add(Ipv4Net::default(), gateway);
    }
    bytes
}

/// An option that a port asks for, by number or by the name that dnsmasq gives it.
fn extra(name: &str, value: &str) -> Option<(u8, Vec<u8>)> {
    let name = name.strip_prefix("option:").unwrap_or(name);
    let code = match name {
        "netmask" => 1,
        "router" => 3,
        "dns-server" => 6,
        "hostname" => 12,
        "domain-name" => 15,
        "mtu" | "interface-mtu" => 26,
        "broadcast" => 28,
        "ntp-server" => 42,
        "lease-time" => 51,
        "tftp-server" | "tftp-server-name" => 66,
        "bootfile-name" => 67,
        "tftp-server-address" => 150,
        "server-ip-address" => 150,
        "path-prefix" => 210,
        "wpad" => 252,
        other => other.parse().ok().filter(|code| !matches!(code, 0 | 53 | 54 | 255))?,
    };
    let bytes = match code {
        1 | 3 | 6 | 28 | 42 | 150 => {
            let list: Option<Vec<Ipv4Addr>> = value.split(',').map(|ip| ip.trim().parse().ok()).collect();
            list?.iter().flat_map(Ipv4Addr::octets).collect()
        }
        26 => value.parse::<u16>().ok()?.to_be_bytes().to_vec(),
        51 => value.parse::<u32>().ok()?.to_be_bytes().to_vec(),
        _ => value.as_bytes().iter().take(255).copied().collect(),
    };
    Some((code, bytes))
}

/// An Ethernet frame with the reply in it.
pub fn frame(reply: &Reply, from: [u8; 6], to: [u8; 6], ip: Ipv4Addr) -> Vec<u8> {
    let mut frame = Vec::with_capacity(42 + reply.bytes.len());
    frame.extend(to);
    frame.extend(from);
    frame.extend([0x08, 0x00]);
    let udp_length = (8 + reply.bytes.len()) as u16;
    let mut header = vec![0x45, 0x10];
    header.extend((20 + udp_length).to_be_bytes());
    header.extend([0, 0, 0, 0, 64, 17, 0, 0]);
    header.extend(reply.server.octets());
    header.extend(ip.octets());
    let sum: u32 = header.chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum();
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = !((sum & 0xffff) + (sum >> 16)) as u16;
    header[10..12].copy_from_slice(&sum.to_be_bytes());
    frame.extend(header);
    frame.extend(67u16.to_be_bytes());
    frame.extend(68u16.to_be_bytes());
    frame.extend(udp_length.to_be_bytes());
    frame.extend([0, 0]);
    frame.extend(&reply.bytes);
    frame
}

#[cfg(test)]
mod tests;
