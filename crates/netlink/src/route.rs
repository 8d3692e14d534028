//! Addresses, routes and forwarding entries.

use crate::wire::{Message, NLM_F_CREATE, NLM_F_REPLACE, attributes, family_of, ip_bytes, ip_of, u32_of};
use crate::{Netns, Result, link};
use ipnet::IpNet;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

const RTM_NEWADDR: u16 = 20;
const RTM_DELADDR: u16 = 21;
const RTM_GETADDR: u16 = 22;
const RTM_NEWROUTE: u16 = 24;
const RTM_DELROUTE: u16 = 25;
const RTM_GETROUTE: u16 = 26;
const RTM_NEWNEIGH: u16 = 28;
const RTM_DELNEIGH: u16 = 29;
const RTM_GETNEIGH: u16 = 30;

const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const RTA_DST: u16 = 1;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;
const RTA_TABLE: u16 = 15;
const NDA_LLADDR: u16 = 2;
const NDA_MASTER: u16 = 9;

const TABLE_MAIN: u8 = 254;
const PROTO_KERNEL: u8 = 2;
const PROTO_STATIC: u8 = 4;
const NUD_NOARP: u16 = 0x40;
const NUD_PERMANENT: u16 = 0x80;
const NTF_MASTER: u8 = 4;

/// An address on a link. IPv6 addresses are taken without asking the link whether somebody else has them.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Address {
    pub link: String,
    pub address: IpNet,
}

/// A route of the main table that somebody set (not one that came with an address).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Route {
    pub to: IpNet,
    pub via: Option<IpAddr>,
    pub link: Option<String>,
}

/// A static forwarding entry of a bridge: frames for `mac` leave by `link`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct FdbEntry {
    pub link: String,
    pub mac: [u8; 6],
}

fn address_message(kind: u16, flags: u16, index: u32, address: &IpNet) -> Message {
    const IFA_F_NODAD: u8 = 2;
    let ip = address.addr();
    let nodad = if ip.is_ipv6() { IFA_F_NODAD } else { 0 };
    let mut header = vec![family_of(ip), address.prefix_len(), nodad, 0];
    header.extend_from_slice(&index.to_ne_bytes());
    let verb = if kind == RTM_NEWADDR { "add" } else { "remove" };
    Message::new(kind, flags, &header, format!("{verb} address {address}"))
        .raw(IFA_LOCAL, &ip_bytes(ip))
        .raw(IFA_ADDRESS, &ip_bytes(ip))
}

/// Adds and removes addresses; repeatable.
pub fn change_addresses(ns: &Netns, remove: &[Address], add: &[Address]) -> Result<()> {
    let mut messages = Vec::new();
    for (list, kind, flags) in [(remove, RTM_DELADDR, 0), (add, RTM_NEWADDR, NLM_F_CREATE | NLM_F_REPLACE)] {
        for it in list {
            match link::index(ns, &it.link) {
                Ok(index) => messages.push(address_message(kind, flags, index, &it.address)),
                Err(error) if error.absent() && kind == RTM_DELADDR => {}
                Err(error) => return Err(error),
            }
        }
    }
    settle(ns, messages)
}

/// All addresses, link-local IPv6 ones left out.
pub fn addresses(ns: &Netns) -> Result<BTreeSet<Address>> {
    addresses_of(ns, &names(ns)?)
}

/// As [`addresses`], with the links' names known.
pub fn addresses_of(ns: &Netns, names: &Names) -> Result<BTreeSet<Address>> {
    let message = Message::new(RTM_GETADDR, 0, &[0u8; 8], "list addresses");
    let mut all = BTreeSet::new();
    for (kind, body) in ns.route()?.dump(message)? {
        let (Some(&prefix), Some(index)) = (body.get(1), body.get(4..8).and_then(u32_of)) else { continue };
        let mut local = None;
        for (kind, value) in attributes(body.get(8..).unwrap_or(&[])) {
            match kind {
                IFA_LOCAL => local = ip_of(value),
                IFA_ADDRESS => local = local.or(ip_of(value)),
                _ => {}
            }
        }
        let (Some(ip), Some(link), true) = (local, names.get(&index), kind == RTM_NEWADDR) else { continue };
        let link_local = matches!(ip, IpAddr::V6(ip) if ip.segments()[0] & 0xffc0 == 0xfe80);
        if let (Ok(address), false) = (IpNet::new(ip, prefix), link_local) {
            all.insert(Address { link: link.clone(), address });
        }
    }
    Ok(all)
}

fn route_message(ns: &Netns, kind: u16, flags: u16, route: &Route) -> Result<Message> {
    const SCOPE_LINK: u8 = 253;
    const TYPE_UNICAST: u8 = 1;
    let net = route.to.network();
    let scope = if route.via.is_none() && net.is_ipv4() { SCOPE_LINK } else { 0 };
    let mut header = vec![family_of(net), route.to.prefix_len(), 0, 0, TABLE_MAIN, PROTO_STATIC, scope, TYPE_UNICAST];
    header.extend_from_slice(&0u32.to_ne_bytes());
    let verb = if kind == RTM_NEWROUTE { "add" } else { "remove" };
    let mut message = Message::new(kind, flags, &header, format!("{verb} route {}", route.to));
    if route.to.prefix_len() > 0 {
        message.put(RTA_DST, &ip_bytes(net));
    }
    if let Some(via) = route.via {
        message.put(RTA_GATEWAY, &ip_bytes(via));
    }
    if let Some(link) = &route.link {
        message.put(RTA_OIF, &link::index(ns, link)?.to_ne_bytes());
    }
    Ok(message)
}

/// Adds and removes routes; repeatable.
pub fn change_routes(ns: &Netns, remove: &[Route], add: &[Route]) -> Result<()> {
    let mut messages = Vec::new();
    for route in remove {
        match route_message(ns, RTM_DELROUTE, 0, route) {
            Ok(message) => messages.push(message),
            Err(error) if error.absent() => {}
            Err(error) => return Err(error),
        }
    }
    for route in add {
        messages.push(route_message(ns, RTM_NEWROUTE, NLM_F_CREATE | NLM_F_REPLACE, route)?);
    }
    settle(ns, messages)
}

/// Every route of every table but the local one: which ranges this namespace knows a way to. The kernel's own routes
/// (from addresses) are there only with `all`.
pub fn routes(ns: &Netns, all: bool) -> Result<BTreeSet<Route>> {
    routes_of(ns, &names(ns)?, all)
}

/// As [`routes`], with the links' names known.
pub fn routes_of(ns: &Netns, names: &Names, all: bool) -> Result<BTreeSet<Route>> {
    const TABLE_LOCAL: u32 = 255;
    const TYPE_UNICAST: u8 = 1;
    let message = Message::new(RTM_GETROUTE, 0, &[0u8; 12], "list routes");
    let mut found = BTreeSet::new();
    for (kind, body) in ns.route()?.dump(message)? {
        let Some(header) = body.get(..12).filter(|_| kind == RTM_NEWROUTE) else { continue };
        let (family, prefix, protocol, sort) = (header[0], header[1], header[5], header[7]);
        let (mut to, mut via, mut link, mut table) = (None, None, None, u32::from(header[4]));
        for (kind, value) in attributes(&body[12..]) {
            match kind {
                RTA_DST => to = ip_of(value),
                RTA_GATEWAY => via = ip_of(value),
                RTA_OIF => link = u32_of(value).and_then(|index| names.get(&index).cloned()),
                RTA_TABLE => table = u32_of(value).unwrap_or(table),
                _ => {}
            }
        }
        let any: IpAddr = if family == libc::AF_INET as u8 { [0u8; 4].into() } else { [0u8; 16].into() };
        let plain = sort == TYPE_UNICAST && table != TABLE_LOCAL && (all || protocol != PROTO_KERNEL);
        let link_local = matches!(to, Some(IpAddr::V6(ip)) if ip.segments()[0] & 0xffc0 == 0xfe80);
        let multicast = matches!(to, Some(ip) if ip.is_multicast());
        if let (Ok(to), true, false) = (IpNet::new(to.unwrap_or(any), prefix), plain, link_local || multicast) {
            found.insert(Route { to, via, link });
        }
    }
    Ok(found)
}

fn fdb_message(kind: u16, flags: u16, index: u32, mac: &[u8; 6]) -> Message {
    let mut header = vec![libc::AF_BRIDGE as u8, 0, 0, 0];
    header.extend_from_slice(&index.to_ne_bytes());
    header.extend_from_slice(&NUD_NOARP.to_ne_bytes());
    header.extend_from_slice(&[NTF_MASTER, 0]);
    Message::new(kind, flags, &header, format!("forwarding entry {}", crate::mac_text(mac))).raw(NDA_LLADDR, mac)
}

/// Adds and removes static forwarding entries; repeatable.
pub fn change_fdb(ns: &Netns, remove: &[FdbEntry], add: &[FdbEntry]) -> Result<()> {
    let mut messages = Vec::new();
    for (list, kind, flags) in [(remove, RTM_DELNEIGH, 0), (add, RTM_NEWNEIGH, NLM_F_CREATE | NLM_F_REPLACE)] {
        for it in list {
            match link::index(ns, &it.link) {
                Ok(index) => messages.push(fdb_message(kind, flags, index, &it.mac)),
                Err(error) if error.absent() && kind == RTM_DELNEIGH => {}
                Err(error) => return Err(error),
            }
        }
    }
    settle(ns, messages)
}

/// The static forwarding entries, not those that bridges learned or made for their own ports.
pub fn fdb(ns: &Netns) -> Result<BTreeSet<FdbEntry>> {
    fdb_of(ns, &names(ns)?)
}

/// As [`fdb`], with the links' names known.
pub fn fdb_of(ns: &Netns, names: &Names) -> Result<BTreeSet<FdbEntry>> {
    let mut header = vec![libc::AF_BRIDGE as u8];
    header.resize(12, 0);
    let mut found = BTreeSet::new();
    for (kind, body) in ns.route()?.dump(Message::new(RTM_GETNEIGH, 0, &header, "list forwarding entries"))? {
        let (Some(index), Some(state), true) = (
            body.get(4..8).and_then(u32_of),
            body.get(8..10).map(|b| u16::from_ne_bytes([b[0], b[1]])),
            kind == RTM_NEWNEIGH,
        ) else {
            continue;
        };
        let (mut mac, mut mastered) = (None, false);
        for (kind, value) in attributes(body.get(12..).unwrap_or(&[])) {
            match kind {
                NDA_LLADDR => mac = <[u8; 6]>::try_from(value).ok(),
                NDA_MASTER => mastered = true,
                _ => {}
            }
        }
        let is_static = state & NUD_NOARP != 0 && state & NUD_PERMANENT == 0;
        if let (Some(mac), Some(link), true) = (mac, names.get(&index), mastered && is_static) {
            found.insert(FdbEntry { link: link.clone(), mac });
        }
    }
    Ok(found)
}

fn names(ns: &Netns) -> Result<Names> {
    Ok(names_of(&link::list(ns)?))
}

/// Links' names by index.
pub type Names = BTreeMap<u32, String>;

pub fn names_of(links: &BTreeMap<String, crate::Link>) -> Names {
    links.values().map(|link| (link.index, link.name.clone())).collect()
}

/// Removal of what is gone already is no fault; all are tried before the first fault is answered.
fn settle(ns: &Netns, messages: Vec<Message>) -> Result<()> {
    if messages.is_empty() {
        return Ok(());
    }
    let removal: Vec<bool> = messages.iter().map(|m| matches!(m.bytes[4], 21 | 25 | 29)).collect();
    let results = ns.route()?.ask_all(messages);
    results
        .into_iter()
        .zip(removal)
        .filter(|(result, removal)| !(*removal && matches!(result, Err(e) if e.absent())))
        .try_for_each(|(result, _)| result)
}
