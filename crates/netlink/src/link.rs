//! Links: making, changing, removing and listing them.

use crate::wire::{Message, NLM_F_CREATE, NLM_F_EXCL, attributes, find, text_of, u32_of};
use crate::{Error, Netns, Result, mac_text};
use std::collections::BTreeMap;
use std::os::fd::AsRawFd;

const RTM_NEWLINK: u16 = 16;
const RTM_DELLINK: u16 = 17;
const RTM_GETLINK: u16 = 18;
const RTM_SETLINK: u16 = 19;

const IFLA_ADDRESS: u16 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
const IFLA_MASTER: u16 = 10;
const IFLA_PROTINFO: u16 = 12;
const IFLA_LINKINFO: u16 = 18;
const IFLA_IFALIAS: u16 = 20;
const IFLA_NET_NS_FD: u16 = 28;
const IFLA_INFO_KIND: u16 = 1;
const IFLA_INFO_DATA: u16 = 2;
const IFLA_INFO_SLAVE_DATA: u16 = 5;
const VETH_INFO_PEER: u16 = 1;

const BR_FORWARD_DELAY: u16 = 1;
const BR_STP_STATE: u16 = 5;
const BR_MCAST_SNOOPING: u16 = 23;
const BR_NF_CALL_IPTABLES: u16 = 36;
const BR_NF_CALL_IP6TABLES: u16 = 37;
const BR_NF_CALL_ARPTABLES: u16 = 38;

const IFLA_CARRIER: u16 = 33;
const PORT_STATE: u16 = 1;
const PORT_FORWARDING: u8 = 3;
const PORT_LEARNING: u16 = 8;
const PORT_UNICAST_FLOOD: u16 = 9;

/// The longest name the kernel takes.
pub const NAME_MOST: usize = 15;

/// A link to be made.
#[derive(Clone, Debug, PartialEq)]
pub struct NewLink {
    pub name: String,
    pub mac: Option<[u8; 6]>,
    pub mtu: Option<u32>,
    pub kind: NewKind,
}

#[derive(Clone, Debug, PartialEq)]
pub enum NewKind {
    Bridge(BridgeOptions),
    /// The other end, made straight in its own namespace: nothing shows up elsewhere in between.
    Veth {
        peer: Box<VethPeer>,
    },
}

#[derive(Clone, Debug)]
pub struct VethPeer {
    pub name: String,
    pub mac: Option<[u8; 6]>,
    pub mtu: Option<u32>,
    pub namespace: Netns,
}

impl PartialEq for VethPeer {
    fn eq(&self, other: &VethPeer) -> bool {
        (&self.name, self.mac, self.namespace.inode()) == (&other.name, other.mac, other.namespace.inode())
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BridgeOptions {
    /// Frames pass the inet family's hooks and connection tracking, by the bridge's own flag.
    pub nf_call: bool,
}

/// What a link shall become; none leaves it as it is.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LinkSet {
    pub up: Option<bool>,
    pub mtu: Option<u32>,
    pub mac: Option<[u8; 6]>,
    pub alias: Option<String>,
    /// The bridge it shall belong to.
    pub master: Option<String>,
    pub learning: Option<bool>,
    pub flood: Option<bool>,
}

/// A link as it is.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Link {
    pub index: u32,
    pub name: String,
    pub kind: LinkKind,
    pub mac: Option<[u8; 6]>,
    pub mtu: u32,
    pub up: bool,
    pub alias: Option<String>,
    /// Index of the bridge it belongs to.
    pub master: Option<u32>,
    pub learning: Option<bool>,
    pub flood: Option<bool>,
    pub nf_call: Option<bool>,
    /// The other side is there.
    pub carrier: bool,
    /// It takes frames to send. That comes a moment after the carrier.
    pub running: bool,
    /// The bridge passes its frames on. That comes a moment after the link is up.
    pub forwarding: Option<bool>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum LinkKind {
    Bridge,
    Veth,
    Tun,
    Other(String),
    #[default]
    Plain,
}

fn ifinfo(family: u8, index: u32, flags: u32, change: u32) -> Vec<u8> {
    let mut bytes = vec![family, 0, 0, 0];
    bytes.extend_from_slice(&index.to_ne_bytes());
    bytes.extend_from_slice(&flags.to_ne_bytes());
    bytes.extend_from_slice(&change.to_ne_bytes());
    bytes
}

fn put_identity(message: &mut Message, name: &str, mac: Option<[u8; 6]>, mtu: Option<u32>) {
    let mut bytes = name.as_bytes().to_vec();
    bytes.push(0);
    message.put(IFLA_IFNAME, &bytes);
    if let Some(mac) = mac {
        message.put(IFLA_ADDRESS, &mac);
    }
    if let Some(mtu) = mtu {
        message.put(IFLA_MTU, &mtu.to_ne_bytes());
    }
}

fn check_name(name: &str) -> Result<()> {
    if name.is_empty() || name.len() > NAME_MOST || name.contains(['/', ' ', '\0']) {
        return Err(Error::tool(format!("link {name:?}"), "not a link's name"));
    }
    Ok(())
}

/// Makes a link.
///
/// The ends of a veth pair get different indexes: the kernel takes a link whose peer has its own number for one
/// without a lower link, and tells bridges of its carrier only after up to a second.
pub fn create(ns: &Netns, new: &NewLink) -> Result<()> {
    check_name(&new.name)?;
    let made = create_at(ns, new, None);
    let NewKind::Veth { peer } = &new.kind else { return made };
    made?;
    let (near, far) = (index(ns, &new.name)?, index(&peer.namespace, &peer.name)?);
    if near != far {
        return Ok(());
    }
    delete(ns, &new.name)?;
    let seed = new.name.bytes().fold(near, |sum, byte| sum.wrapping_mul(31).wrapping_add(u32::from(byte))) & 0xff_ffff;
    create_at(ns, new, Some((0x0100_0000 | seed, 0x0200_0000 | seed)))
}

fn create_at(ns: &Netns, new: &NewLink, indexes: Option<(u32, u32)>) -> Result<()> {
    let flags = NLM_F_CREATE | NLM_F_EXCL;
    let (near, far) = indexes.unwrap_or((0, 0));
    let mut message = Message::new(RTM_NEWLINK, flags, &ifinfo(0, near, 0, 0), format!("make link {}", new.name));
    put_identity(&mut message, &new.name, new.mac, new.mtu);
    let info = message.open(IFLA_LINKINFO);
    match &new.kind {
        NewKind::Bridge(options) => put_bridge(&mut message, options),
        NewKind::Veth { peer } => {
            check_name(&peer.name)?;
            put_veth(&mut message, peer, far);
        }
    }
    message.close(info);
    ns.route()?.ask(message)
}

fn put_bridge(message: &mut Message, options: &BridgeOptions) {
    let nf = u8::from(options.nf_call);
    message.put(IFLA_INFO_KIND, b"bridge\0");
    let data = message.open(IFLA_INFO_DATA);
    message.put(BR_FORWARD_DELAY, &0u32.to_ne_bytes());
    message.put(BR_STP_STATE, &0u32.to_ne_bytes());
    message.put(BR_MCAST_SNOOPING, &[0]);
    message.put(BR_NF_CALL_IPTABLES, &[nf]);
    message.put(BR_NF_CALL_IP6TABLES, &[nf]);
    message.put(BR_NF_CALL_ARPTABLES, &[0]);
    message.close(data);
}

fn put_veth(message: &mut Message, peer: &VethPeer, index: u32) {
    message.put(IFLA_INFO_KIND, b"veth\0");
    let data = message.open(IFLA_INFO_DATA);
    let other = message.open(VETH_INFO_PEER);
    message.fixed(&ifinfo(0, index, 0, 0));
    put_identity(message, &peer.name, peer.mac, peer.mtu);
    message.put(IFLA_NET_NS_FD, &(peer.namespace.fd().as_raw_fd() as u32).to_ne_bytes());
    message.close(other);
    message.close(data);
}

/// Sets the bridge's netfilter flag on a bridge that is there.
pub fn set_bridge(ns: &Netns, name: &str, options: &BridgeOptions) -> Result<()> {
    let mut message = Message::new(RTM_NEWLINK, 0, &ifinfo(0, 0, 0, 0), format!("set bridge {name}"));
    put_identity(&mut message, name, None, None);
    let info = message.open(IFLA_LINKINFO);
    put_bridge(&mut message, options);
    message.close(info);
    ns.route()?.ask(message)
}

/// Changes one link.
pub fn set(ns: &Netns, name: &str, change: &LinkSet) -> Result<()> {
    set_all(ns, &[(name.to_owned(), change.clone())]).pop().unwrap_or(Ok(()))
}

/// Changes many links; one answer each.
pub fn set_all(ns: &Netns, changes: &[(String, LinkSet)]) -> Vec<Result<()>> {
    changes.iter().map(|(name, change)| set_one(ns, name, change)).collect()
}

fn set_one(ns: &Netns, name: &str, change: &LinkSet) -> Result<()> {
    check_name(name)?;
    const IFF_UP: u32 = 1;
    let index = index(ns, name)?;
    let mut all = Vec::new();
    let what = || format!("set link {name}");
    if change.mac.is_some() || change.mtu.is_some() || change.alias.is_some() {
        let mut message = Message::new(RTM_SETLINK, 0, &ifinfo(0, index, 0, 0), what());
        if let Some(mac) = change.mac {
            message.put(IFLA_ADDRESS, &mac);
        }
        if let Some(mtu) = change.mtu {
            message.put(IFLA_MTU, &mtu.to_ne_bytes());
        }
        if let Some(alias) = &change.alias {
            message.put(IFLA_IFALIAS, alias.as_bytes());
        }
        all.push(message);
    }
    if let Some(master) = &change.master {
        let master = self::index(ns, master)?;
        all.push(Message::new(RTM_SETLINK, 0, &ifinfo(0, index, 0, 0), what()).u32(IFLA_MASTER, master));
    }
    if change.learning.is_some() || change.flood.is_some() {
        let family = libc::AF_BRIDGE as u8;
        let mut message = Message::new(RTM_SETLINK, 0, &ifinfo(family, index, 0, 0), what());
        let port = message.open(IFLA_PROTINFO);
        for (kind, value) in [(PORT_LEARNING, change.learning), (PORT_UNICAST_FLOOD, change.flood)] {
            if let Some(value) = value {
                message.put(kind, &[u8::from(value)]);
            }
        }
        message.close(port);
        all.push(message);
    }
    if let Some(up) = change.up {
        let flags = if up { IFF_UP } else { 0 };
        all.push(Message::new(RTM_SETLINK, 0, &ifinfo(0, index, flags, IFF_UP), what()));
    }
    ns.route()?.ask_all(all).into_iter().collect()
}

/// Removes a link; one that is not there is no fault.
pub fn delete(ns: &Netns, name: &str) -> Result<()> {
    check_name(name)?;
    let message =
        Message::new(RTM_DELLINK, 0, &ifinfo(0, 0, 0, 0), format!("remove link {name}")).text(IFLA_IFNAME, name);
    match ns.route()?.ask(message) {
        Err(error) if error.absent() => Ok(()),
        other => other,
    }
}

/// A link's index.
pub fn index(ns: &Netns, name: &str) -> Result<u32> {
    let found = get(ns, name)?;
    found.map(|link| link.index).ok_or_else(|| Error::errno(format!("find link {name}"), libc::ENODEV))
}

/// One link. Newer kernels bring its state up to date for this question.
pub fn get(ns: &Netns, name: &str) -> Result<Option<Link>> {
    let message =
        Message::new(RTM_GETLINK, 0, &ifinfo(0, 0, 0, 0), format!("find link {name}")).text(IFLA_IFNAME, name);
    match ns.route()?.get(message) {
        Ok(answers) => Ok(answers.first().and_then(|(_, body)| parse(body))),
        Err(error) if error.absent() => Ok(None),
        Err(error) => Err(error),
    }
}

/// All links of the namespace, by name.
pub fn list(ns: &Netns) -> Result<BTreeMap<String, Link>> {
    let message = Message::new(RTM_GETLINK, 0, &ifinfo(0, 0, 0, 0), "list links");
    let all = ns.route()?.dump(message)?;
    Ok(all
        .iter()
        .filter(|(kind, _)| *kind == RTM_NEWLINK)
        .filter_map(|(_, body)| parse(body))
        .map(|link| (link.name.clone(), link))
        .collect())
}

fn parse(body: &[u8]) -> Option<Link> {
    let index = u32_of(body.get(4..8)?)?;
    let flags = u32_of(body.get(8..12)?)?;
    let mut link = Link { index, up: flags & 1 != 0, running: flags & 0x40 != 0, ..Default::default() };
    for (kind, value) in attributes(body.get(16..)?) {
        match kind {
            IFLA_IFNAME => link.name = text_of(value),
            IFLA_ADDRESS => link.mac = value.try_into().ok(),
            IFLA_MTU => link.mtu = u32_of(value).unwrap_or(0),
            IFLA_MASTER => link.master = u32_of(value),
            IFLA_CARRIER => link.carrier = value.first() == Some(&1),
            IFLA_IFALIAS => link.alias = Some(text_of(value)),
            IFLA_LINKINFO => parse_info(value, &mut link),
            _ => {}
        }
    }
    Some(link)
}

fn parse_info(info: &[u8], link: &mut Link) {
    link.kind = match find(info, IFLA_INFO_KIND).map(text_of).as_deref() {
        Some("bridge") => LinkKind::Bridge,
        Some("veth") => LinkKind::Veth,
        Some("tun") => LinkKind::Tun,
        Some(other) => LinkKind::Other(other.to_owned()),
        None => LinkKind::Plain,
    };
    let flag = |part: &[u8], kind: u16| find(part, kind).and_then(|v| v.first()).map(|b| *b != 0);
    if link.kind == LinkKind::Bridge {
        link.nf_call = find(info, IFLA_INFO_DATA).and_then(|data| flag(data, BR_NF_CALL_IPTABLES));
    }
    if let Some(port) = find(info, IFLA_INFO_SLAVE_DATA) {
        link.forwarding = find(port, PORT_STATE).and_then(|v| v.first()).map(|state| *state == PORT_FORWARDING);
        link.learning = flag(port, PORT_LEARNING);
        link.flood = flag(port, PORT_UNICAST_FLOOD);
    }
}

impl Link {
    pub fn mac_text(&self) -> String {
        self.mac.map(|mac| mac_text(&mac)).unwrap_or_default()
    }
}
