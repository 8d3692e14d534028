//! What may be fetched: schemes, hosts, ports, and above all addresses.

use base::{Fault, Result};
use ipnet::IpNet;
use serde::Deserialize;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;
use url::{Host, Url};

/// Most characters of a URL.
const URL_CHARS: usize = 2048;

/// The operator's lists, in the words of Glance's `import_filtering_opts`. An empty allow list allows all.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Rules {
    pub allowed_schemes: Vec<String>,
    pub disallowed_schemes: Vec<String>,
    /// Names or addresses; `.example.org` stands for all names below it.
    pub allowed_hosts: Vec<String>,
    pub disallowed_hosts: Vec<String>,
    pub allowed_ports: Vec<u16>,
    pub disallowed_ports: Vec<u16>,
    /// Networks that may be reached although they are loopback, link-local, private or otherwise special.
    pub allowed_networks: Vec<IpNet>,
    /// Certificates to trust instead of the system's.
    pub ca_file: Option<PathBuf>,
}

impl Default for Rules {
    fn default() -> Rules {
        Rules {
            allowed_schemes: vec!["http".to_owned(), "https".to_owned()],
            disallowed_schemes: Vec::new(),
            allowed_hosts: Vec::new(),
            disallowed_hosts: Vec::new(),
            allowed_ports: vec![80, 443],
            disallowed_ports: Vec::new(),
            allowed_networks: Vec::new(),
            ca_file: None,
        }
    }
}

impl Rules {
    /// Reads a URL and holds all that can be seen of it without a name server against the lists. `what` is what the URL
    /// is for, in the words that clients look for.
    ///
    /// # Errors
    /// Invalid with the URL and the rule that refuses it.
    pub fn check(&self, what: &str, text: &str) -> Result<Url> {
        let shown: String = text.chars().take(200).collect();
        let refuse = |why: String| Fault::invalid(format!("{what} does not pass filtering: {shown} ({why})"));
        if text.chars().count() > URL_CHARS {
            return Err(refuse(format!("it is longer than {URL_CHARS} characters")));
        }
        let url = Url::parse(text).map_err(|error| refuse(error.to_string()))?;
        self.look(&url).map_err(refuse)?;
        Ok(url)
    }

    /// The reason against a URL, if there is one.
    pub fn look(&self, url: &Url) -> std::result::Result<(), String> {
        let scheme = url.scheme();
        // What is fetched is HTTP, whatever the lists say.
        if !matches!(scheme, "http" | "https") || !listed(&self.allowed_schemes, &self.disallowed_schemes, scheme) {
            return Err(format!("the scheme {scheme} is not allowed"));
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err("it holds a user name or a password".to_owned());
        }
        let port = url.port_or_known_default().unwrap_or(0);
        if self.disallowed_ports.contains(&port)
            || !(self.allowed_ports.is_empty() || self.allowed_ports.contains(&port))
        {
            return Err(format!("port {port} is not allowed"));
        }
        let host = url.host().ok_or("it names no host")?;
        let name = host.to_string().trim_end_matches('.').to_ascii_lowercase();
        let on = |list: &[String]| list.iter().any(|entry| matches(entry, &name));
        if on(&self.disallowed_hosts) || !(self.allowed_hosts.is_empty() || on(&self.allowed_hosts)) {
            return Err(format!("the host {name} is not allowed"));
        }
        match host {
            Host::Ipv4(address) => self.look_at(IpAddr::V4(address)),
            Host::Ipv6(address) => self.look_at(IpAddr::V6(address)),
            Host::Domain(_) => Ok(()),
        }
    }

    /// The reason against an address, if there is one.
    pub fn look_at(&self, address: IpAddr) -> std::result::Result<(), String> {
        let address = plain(address);
        if self.allowed_networks.iter().any(|network| network.contains(&address)) {
            return Ok(());
        }
        match special(address) {
            Some(kind) => Err(format!("{address} is {kind}")),
            None => Ok(()),
        }
    }
}

fn listed(allowed: &[String], disallowed: &[String], one: &str) -> bool {
    let on = |list: &[String]| list.iter().any(|entry| entry.eq_ignore_ascii_case(one));
    !on(disallowed) && (allowed.is_empty() || on(allowed))
}

fn matches(entry: &str, name: &str) -> bool {
    let entry = entry.trim_end_matches('.').to_ascii_lowercase();
    entry == name || (entry.starts_with('.') && name.ends_with(&entry))
}

/// The IPv4 address that an IPv6 address stands for on the wire, or itself.
fn plain(address: IpAddr) -> IpAddr {
    let IpAddr::V6(v6) = address else { return address };
    v6.to_ipv4_mapped().map_or(address, IpAddr::V4)
}

/// What kind of address it is that is not of the open Internet.
fn special(address: IpAddr) -> Option<&'static str> {
    match address {
        IpAddr::V4(v4) => special_v4(v4),
        IpAddr::V6(v6) => special_v6(v6),
    }
}

fn special_v4(address: Ipv4Addr) -> Option<&'static str> {
    let [a, b, c, _] = address.octets();
    Some(match (a, b, c) {
        (0, ..) => "an address of this network",
        (127, ..) => "a loopback address",
        (169, 254, _) => "a link-local address",
        (10, ..) | (172, 16..=31, _) | (192, 168, _) => "a private address",
        (100, 64..=127, _) => "an address of a provider's own network",
        (192, 0, 0) | (192, 0, 2) | (198, 51, 100) | (203, 0, 113) | (192, 88, 99) => "a reserved address",
        (198, 18..=19, _) => "an address for benchmarks",
        (224..=239, ..) => "a multicast address",
        (240..=255, ..) => "a reserved address",
        _ => return None,
    })
}

fn special_v6(address: Ipv6Addr) -> Option<&'static str> {
    let part = address.segments();
    // Addresses that carry an IPv4 address, which a translator on the way would reach.
    let inside = |high: u16, low: u16| {
        let [a, b] = high.to_be_bytes();
        let [c, d] = low.to_be_bytes();
        special_v4(Ipv4Addr::new(a, b, c, d))
    };
    Some(match part {
        [0, 0, 0, 0, 0, 0, 0, 0] => "the unspecified address",
        [0, 0, 0, 0, 0, 0, 0, 1] => "a loopback address",
        [0, 0, 0, 0, 0, 0, ..] => "an IPv4-compatible address",
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] => return inside(high, low),
        [0x64, 0xff9b, ..] => "an address of a local translator",
        [0x2002, high, low, ..] => return inside(high, low),
        [0x100, 0, 0, 0, ..] => "a discard address",
        [0x2001, 0..=0x1ff, ..] | [0x2001, 0xdb8, ..] | [0x3fff, 0..=0xfff, ..] => "a reserved address",
        [first, ..] if first & 0xfe00 == 0xfc00 => "a private address",
        [first, ..] if first & 0xffc0 == 0xfe80 => "a link-local address",
        [first, ..] if first & 0xffc0 == 0xfec0 => "a site-local address",
        [first, ..] if first & 0xff00 == 0xff00 => "a multicast address",
        [first, ..] if first & 0xe000 != 0x2000 => "a reserved address",
        _ => return None,
    })
}
