//! Connection tracking: listing, marking and ending flows of a namespace.
//!
//! A flow that rules no longer allow is marked rather than deleted: with `nf_conntrack_tcp_loose` (needed so that flows
//! survive a move to another host) a deleted flow would come back at its next packet.

use crate::wire::{Message, attributes, find, ip_of};
use crate::{Netns, Result};
use std::net::IpAddr;

const CT_NEW: u16 = 0x100;
const CT_GET: u16 = 0x101;
const CT_DELETE: u16 = 0x102;
const CTA_TUPLE_ORIG: u16 = 1;
const CTA_TUPLE_REPLY: u16 = 2;
const CTA_MARK: u16 = 8;
const CTA_ZONE: u16 = 18;
const CTA_TUPLE_IP: u16 = 1;
const CTA_TUPLE_PROTO: u16 = 2;

/// One flow: the direction in which it began, and what identifies it to the kernel.
#[derive(Clone, Debug, PartialEq)]
pub struct Flow {
    pub source: IpAddr,
    pub destination: IpAddr,
    /// IP protocol number.
    pub protocol: u8,
    /// Ports; for ICMP type and code stand in `destination_port` as type * 256 + code.
    pub source_port: u16,
    pub destination_port: u16,
    /// Where the answers go to: differs from `source` after address translation.
    pub reply_destination: Option<IpAddr>,
    pub reply_source: Option<IpAddr>,
    pub mark: u32,
    family: u8,
    tuple: Vec<u8>,
    zone: Option<Vec<u8>>,
}

impl Flow {
    /// A flow as a listing would show it, for what decides about flows; it names nothing in the kernel.
    pub fn new(source: IpAddr, destination: IpAddr, protocol: u8, destination_port: u16, mark: u32) -> Flow {
        Flow {
            source,
            destination,
            protocol,
            source_port: 0,
            destination_port,
            reply_destination: Some(source),
            reply_source: Some(destination),
            mark,
            family: crate::wire::family_of(source),
            tuple: Vec::new(),
            zone: None,
        }
    }
}

fn header(family: u8) -> [u8; 4] {
    [family, 0, 0, 0]
}

/// All flows of the namespace. The kernel walks the flows of all namespaces for it: it is asked only where there is one.
pub fn list(ns: &Netns) -> Result<Vec<Flow>> {
    let count = ns.sysctl_read(&["net/netfilter/nf_conntrack_count".to_owned()])?;
    if count.first().is_some_and(|count| count.as_deref() == Some("0")) {
        return Ok(Vec::new());
    }
    let all = ns.netfilter()?.dump(Message::new(CT_GET, 0, &header(0), "list flows"))?;
    Ok(all.iter().filter(|(kind, _)| *kind == CT_NEW).filter_map(|(_, body)| parse(body)).collect())
}

fn parse(body: &[u8]) -> Option<Flow> {
    let (family, rest) = (*body.first()?, body.get(4..)?);
    let tuple = find(rest, CTA_TUPLE_ORIG)?;
    let (source, destination) = addresses(tuple)?;
    let proto = find(tuple, CTA_TUPLE_PROTO)?;
    let byte = |kind: u16| find(proto, kind).and_then(|v| v.first().copied());
    let port = |kind: u16| find(proto, kind).and_then(|v| Some(u16::from_be_bytes(v.get(..2)?.try_into().ok()?)));
    let icmp = |kind: u16, code: u16| Some(u16::from(byte(kind)?) * 256 + u16::from(byte(code)?));
    let reply = find(rest, CTA_TUPLE_REPLY).and_then(addresses);
    Some(Flow {
        source,
        destination,
        protocol: byte(1)?,
        source_port: port(2).unwrap_or(0),
        destination_port: port(3).or(icmp(5, 6)).or(icmp(8, 9)).unwrap_or(0),
        reply_source: reply.map(|r| r.0),
        reply_destination: reply.map(|r| r.1),
        mark: find(rest, CTA_MARK).and_then(|v| Some(u32::from_be_bytes(v.try_into().ok()?))).unwrap_or(0),
        family,
        tuple: tuple.to_vec(),
        zone: find(rest, CTA_ZONE).map(<[u8]>::to_vec),
    })
}

fn addresses(tuple: &[u8]) -> Option<(IpAddr, IpAddr)> {
    let (mut source, mut destination) = (None, None);
    for (kind, value) in attributes(find(tuple, CTA_TUPLE_IP)?) {
        match kind {
            1 | 3 => source = ip_of(value),
            2 | 4 => destination = ip_of(value),
            _ => {}
        }
    }
    Some((source?, destination?))
}

fn about(flow: &Flow, kind: u16, what: &str) -> Message {
    let mut message = Message::new(kind, 0, &header(flow.family), what);
    message.put(CTA_TUPLE_ORIG | 0x8000, &flow.tuple);
    if let Some(zone) = &flow.zone {
        message.put(CTA_ZONE, zone);
    }
    message
}

/// Sets the mark of flows; one that has ended meanwhile is no fault.
pub fn mark(ns: &Netns, flows: &[Flow], mark: u32) -> Result<()> {
    let messages = flows.iter().map(|flow| about(flow, CT_NEW, "mark a flow").raw(CTA_MARK, &mark.to_be_bytes()));
    settle(ns, messages.collect())
}

/// Forgets flows: their next packets are judged anew.
pub fn delete(ns: &Netns, flows: &[Flow]) -> Result<()> {
    settle(ns, flows.iter().map(|flow| about(flow, CT_DELETE, "end a flow")).collect())
}

fn settle(ns: &Netns, messages: Vec<Message>) -> Result<()> {
    if messages.is_empty() {
        return Ok(());
    }
    ns.netfilter()?.ask_all(messages).into_iter().filter(|r| !matches!(r, Err(e) if e.absent())).collect()
}
