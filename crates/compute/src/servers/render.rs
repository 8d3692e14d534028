//! A server as clients see it, in the newest shape: a typed struct that borrows, serialized without a tree of values.

use super::document::{Server, ServerObserved, fault_of, state_of};
use base::Timestamp;
use contract::{ServerPort, ServerVolume};
use rest::Version;
use serde::ser::{SerializeMap, SerializeSeq};
use serde::{Serialize, Serializer};
use sha2::{Digest, Sha224};
use std::collections::BTreeMap;
use store::Stored;

/// What the caller may see and how links look. Everything here is part of the key under which a rendering is kept.
#[derive(Clone, Debug, PartialEq)]
pub struct View {
    pub base_url: String,
    pub version: Version,
    /// Host, names and other internals.
    pub attributes: bool,
    pub extra_specs: bool,
    /// Set where the caller may see whether the host is up.
    pub host_status: Option<&'static str>,
    /// `server_groups` stand in answers for one server, not in lists.
    pub single: bool,
    pub admin: bool,
}

/// The parts of a server.
pub struct Parts<'a> {
    pub server: &'a Stored<Server>,
    pub observed: Option<&'a Stored<ServerObserved>>,
    pub ports: &'a [ServerPort],
    pub volumes: &'a [ServerVolume],
    pub user_data: Option<&'a str>,
    /// Set for a server that is gone.
    pub deleted: Option<Timestamp>,
}

#[derive(Serialize)]
struct Link {
    rel: &'static str,
    href: String,
}

fn links(base: &str, below: &str) -> [Link; 2] {
    [
        Link { rel: "self", href: format!("{base}/compute/v2.1{below}") },
        Link { rel: "bookmark", href: format!("{base}/compute{below}") },
    ]
}

#[derive(Serialize)]
#[serde(untagged)]
enum Image<'a> {
    Linked { id: &'a str, links: [Link; 1] },
    /// An empty text: it boots from a volume.
    None(&'static str),
}

#[derive(Serialize)]
struct Attached<'a> {
    id: &'a str,
    delete_on_termination: bool,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Flavor<'a> {
    /// Until 2.46.
    Linked { id: &'a str, links: [Link; 1] },
    Whole {
        vcpus: u32,
        ram: u64,
        disk: u64,
        ephemeral: u64,
        swap: u64,
        original_name: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        extra_specs: Option<&'a BTreeMap<String, String>>,
    },
}

#[derive(Serialize)]
struct Fault<'a> {
    code: u16,
    created: String,
    message: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    details: Option<&'a str>,
}

#[derive(Serialize)]
struct Named<'a> {
    name: &'a str,
}

/// What only administrators see of the place of a server.
#[derive(Serialize)]
struct Attributes<'a> {
    #[serde(rename = "OS-EXT-SRV-ATTR:host")]
    host: Option<&'a str>,
    #[serde(rename = "OS-EXT-SRV-ATTR:instance_name")]
    instance_name: String,
    #[serde(rename = "OS-EXT-SRV-ATTR:hypervisor_hostname")]
    hypervisor_hostname: Option<&'a str>,
    #[serde(rename = "OS-EXT-SRV-ATTR:reservation_id")]
    reservation_id: &'a str,
    #[serde(rename = "OS-EXT-SRV-ATTR:launch_index")]
    launch_index: u32,
    #[serde(rename = "OS-EXT-SRV-ATTR:hostname")]
    hostname: &'a str,
    #[serde(rename = "OS-EXT-SRV-ATTR:kernel_id")]
    kernel_id: &'static str,
    #[serde(rename = "OS-EXT-SRV-ATTR:ramdisk_id")]
    ramdisk_id: &'static str,
    #[serde(rename = "OS-EXT-SRV-ATTR:root_device_name")]
    root_device_name: &'static str,
    #[serde(rename = "OS-EXT-SRV-ATTR:user_data")]
    user_data: Option<&'a str>,
}

#[derive(Serialize)]
struct Whole<'a> {
    id: &'a str,
    name: &'a str,
    status: &'static str,
    tenant_id: &'a str,
    user_id: &'a str,
    metadata: &'a BTreeMap<String, String>,
    #[serde(rename = "hostId")]
    host_id: String,
    image: Image<'a>,
    flavor: Flavor<'a>,
    created: String,
    updated: String,
    addresses: Addresses<'a>,
    #[serde(rename = "accessIPv4")]
    access_ip_v4: &'a str,
    #[serde(rename = "accessIPv6")]
    access_ip_v6: &'a str,
    links: [Link; 2],
    #[serde(rename = "OS-DCF:diskConfig")]
    disk_config: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    progress: Option<u8>,
    #[serde(rename = "OS-EXT-AZ:availability_zone")]
    zone: &'a str,
    config_drive: &'static str,
    key_name: Option<&'a str>,
    #[serde(rename = "OS-SRV-USG:launched_at")]
    launched_at: Option<String>,
    #[serde(rename = "OS-SRV-USG:terminated_at")]
    terminated_at: Option<String>,
    #[serde(flatten)]
    attributes: Option<Attributes<'a>>,
    #[serde(rename = "OS-EXT-STS:task_state")]
    task_state: Option<&'static str>,
    #[serde(rename = "OS-EXT-STS:vm_state")]
    vm_state: &'static str,
    #[serde(rename = "OS-EXT-STS:power_state")]
    power_state: u8,
    #[serde(rename = "os-extended-volumes:volumes_attached")]
    volumes_attached: Vec<Attached<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    fault: Option<Fault<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    security_groups: Option<Vec<Named<'a>>>,
    locked: bool,
    locked_reason: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    host_status: Option<&'static str>,
    description: Option<&'a str>,
    tags: &'a [String],
    trusted_image_certificates: Option<()>,
    #[serde(skip_serializing_if = "Option::is_none")]
    server_groups: Option<[(); 0]>,
}

/// Addresses by network, in the order of the ports.
pub struct Addresses<'a>(pub &'a [ServerPort]);

#[derive(Serialize)]
struct Address<'a> {
    version: u8,
    addr: String,
    #[serde(rename = "OS-EXT-IPS:type")]
    kind: &'static str,
    #[serde(rename = "OS-EXT-IPS-MAC:mac_addr")]
    mac: &'a str,
}

impl Addresses<'_> {
    /// The networks' names, each once, in the order of the ports.
    fn networks(&self) -> Vec<&str> {
        let mut names: Vec<&str> = Vec::new();
        for port in self.0 {
            if !names.contains(&port.network_name.as_str()) {
                names.push(&port.network_name);
            }
        }
        names
    }
}

impl Serialize for Addresses<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let names = self.networks();
        let mut map = to.serialize_map(Some(names.len()))?;
        for name in names {
            map.serialize_entry(name, &OfNetwork(self.0, name))?;
        }
        map.end()
    }
}

struct OfNetwork<'a>(&'a [ServerPort], &'a str);

impl Serialize for OfNetwork<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let mut list = to.serialize_seq(None)?;
        for port in self.0.iter().filter(|port| port.network_name == self.1) {
            let version = |ip: &std::net::IpAddr| if ip.is_ipv4() { 4 } else { 6 };
            for fixed in &port.fixed {
                let (ip, mac) = (fixed.address, port.mac.as_str());
                list.serialize_element(&Address { version: version(&ip), addr: ip.to_string(), kind: "fixed", mac })?;
                for (floating, _) in port.floating.iter().filter(|(_, fixed)| *fixed == ip) {
                    let addr = floating.to_string();
                    list.serialize_element(&Address { version: version(floating), addr, kind: "floating", mac })?;
                }
            }
        }
        list.end()
    }
}

/// Tells a project whether two of its servers share a host, and nothing else.
pub fn host_id(project: &str, host: Option<&str>) -> String {
    let Some(host) = host else { return String::new() };
    Sha224::digest(format!("{project}{host}")).iter().map(|byte| format!("{byte:02x}")).collect()
}

pub fn group_names(ports: &[ServerPort]) -> Vec<&str> {
    let mut names: Vec<&str> = Vec::new();
    for (_, name) in ports.iter().flat_map(|port| &port.security_groups) {
        if !names.contains(&name.as_str()) {
            names.push(name);
        }
    }
    names
}

/// When the server last changed, in any respect.
pub fn updated(server: &Stored<Server>, observed: Option<&Stored<ServerObserved>>) -> Timestamp {
    observed.map_or(server.updated, |seen| seen.updated.max(server.updated))
}

fn whole<'a>(parts: &Parts<'a>, view: &View) -> Whole<'a> {
    let (server, observed): (&'a Server, Option<&'a ServerObserved>) =
        (&parts.server.doc, parts.observed.map(|seen| &seen.doc));
    let mut state = state_of(server, observed);
    if parts.deleted.is_some() {
        state = model::server::State {
            status: "DELETED",
            vm_state: "deleted",
            task_state: None,
            power_state: 0,
            shows_fault: true,
        };
    }
    let fault = fault_of(server, observed).filter(|_| state.shows_fault).map(|fault| Fault {
        code: fault.code,
        created: fault.created.iso_seconds(),
        message: &fault.message,
        details: Some(fault.details.as_str()).filter(|details| view.admin && !details.is_empty()),
    });
    let host = server.host.as_deref();
    let flavor = &server.flavor;
    let groups = group_names(parts.ports);
    let attributes = view.attributes.then(|| Attributes {
        host,
        instance_name: server.instance_name(),
        hypervisor_hostname: host,
        reservation_id: &server.reservation_id,
        launch_index: server.launch_index,
        hostname: &server.hostname,
        kernel_id: "",
        ramdisk_id: "",
        root_device_name: "/dev/vda",
        user_data: parts.user_data,
    });
    Whole {
        id: &server.id,
        name: &server.name,
        status: state.status,
        tenant_id: &server.project_id,
        user_id: &server.user_id,
        metadata: &server.metadata,
        host_id: host_id(&server.project_id, host),
        image: match server.image.as_str() {
            "" => Image::None(""),
            id => {
                let href = format!("{}/compute/images/{id}", view.base_url);
                Image::Linked { id, links: [Link { rel: "bookmark", href }] }
            }
        },
        flavor: if view.version < Version(2, 47) {
            let href = format!("{}/compute/flavors/{}", view.base_url, flavor.id);
            Flavor::Linked { id: &flavor.id, links: [Link { rel: "bookmark", href }] }
        } else {
            Flavor::Whole {
                vcpus: flavor.vcpus,
                ram: flavor.ram_mib,
                disk: flavor.disk_gib,
                ephemeral: flavor.ephemeral_gib,
                swap: flavor.swap_mib,
                original_name: &flavor.name,
                extra_specs: view.extra_specs.then_some(&flavor.extra_specs),
            }
        },
        created: parts.server.created.iso_seconds(),
        updated: updated(parts.server, parts.observed).iso_seconds(),
        addresses: Addresses(parts.ports),
        access_ip_v4: server.access_ip_v4.as_deref().unwrap_or(""),
        access_ip_v6: server.access_ip_v6.as_deref().unwrap_or(""),
        links: links(&view.base_url, &format!("/servers/{}", server.id)),
        disk_config: &server.disk_config,
        progress: match state.status {
            "ACTIVE" | "REBOOT" | "HARD_REBOOT" => Some(0),
            "BUILD" => Some(0),
            _ => None,
        },
        zone: match (host, &server.wanted_zone) {
            (Some(_), _) => crate::hosts::ZONE,
            (None, Some(zone)) => zone,
            (None, None) => "",
        },
        config_drive: if server.config_drive { "True" } else { "" },
        key_name: server.key_name.as_deref(),
        launched_at: observed.and_then(|seen| seen.launched_at).map(|at| at.iso_naive()),
        terminated_at: parts.deleted.map(|at| at.iso_naive()),
        attributes,
        task_state: state.task_state,
        vm_state: state.vm_state,
        power_state: state.power_state,
        volumes_attached: parts
            .volumes
            .iter()
            .map(|it| Attached { id: &it.volume, delete_on_termination: it.delete_on_termination })
            .collect(),
        fault,
        security_groups: (!groups.is_empty()).then(|| groups.iter().map(|name| Named { name }).collect()),
        locked: server.lock.is_some(),
        locked_reason: server.lock.as_ref().and_then(|lock| lock.reason.as_deref()),
        host_status: view.host_status,
        description: server.description.as_deref(),
        tags: &server.tags,
        trusted_image_certificates: None,
        server_groups: view.single.then_some([]),
    }
}

/// The server's JSON in the version of the view.
pub fn render(parts: &Parts<'_>, view: &View, operation: &str) -> base::Result<String> {
    let whole = whole(parts, view);
    let bug = |error| base::Fault::bug("a server cannot be serialized").because(error);
    if view.version >= crate::VERSIONS.max {
        return serde_json::to_string(&whole).map_err(bug);
    }
    let mut value = serde_json::json!({"server": serde_json::to_value(&whole).map_err(bug)?});
    rest::lower_response(super::CHANGES, operation, view.version, &mut value);
    Ok(value["server"].to_string())
}

/// A server in a list without details.
pub fn brief(server: &Server, base_url: &str) -> base::Result<String> {
    #[derive(Serialize)]
    struct Brief<'a> {
        id: &'a str,
        name: &'a str,
        links: [Link; 2],
    }
    let links = links(base_url, &format!("/servers/{}", server.id));
    serde_json::to_string(&Brief { id: &server.id, name: &server.name, links })
        .map_err(|error| base::Fault::bug("a server cannot be serialized").because(error))
}
