//! What a guest is told of itself, in the two forms that guests ask for: OpenStack's and EC2's.
//!
//! Pure: both the metadata service and the config drive are made from these functions. Shapes and names are Nova's
//! (`nova/api/metadata/base.py` describes them by example); a path that Nova would answer with 404 is `None`.

use agent_api::{InstanceMetadata, MetadataAddress, MetadataDevice, MetadataNetwork};
use base64::Engine;
use serde_json::{Value, json};
use std::net::IpAddr;

const OPENSTACK_VERSIONS: [&str; 10] = [
    "2012-08-10",
    "2013-04-04",
    "2013-10-17",
    "2015-10-15",
    "2016-06-30",
    "2016-10-06",
    "2017-02-22",
    "2018-08-27",
    "2020-10-14",
    "latest",
];
const EC2_VERSIONS: [&str; 10] = [
    "1.0",
    "2007-01-19",
    "2007-03-01",
    "2007-08-29",
    "2007-10-10",
    "2007-12-15",
    "2008-02-01",
    "2008-09-01",
    "2009-04-04",
    "latest",
];

const JSON: &str = "application/json";
const TEXT: &str = "text/plain; charset=UTF-8";
const BYTES: &str = "application/octet-stream";

/// A content type and a body.
pub type Answer = (&'static str, Vec<u8>);

/// Answers a path that begins with `/openstack`.
pub fn openstack(path: &str, of: &InstanceMetadata) -> Option<Answer> {
    let mut parts = path.split('/').filter(|part| !part.is_empty());
    if parts.next()? != "openstack" {
        return None;
    }
    let Some(version) = parts.next() else {
        return Some((TEXT, OPENSTACK_VERSIONS.join("\n").into_bytes()));
    };
    if !OPENSTACK_VERSIONS.contains(&version) {
        return None;
    }
    let file = parts.next();
    if parts.next().is_some() {
        return None;
    }
    match file {
        None => {
            let mut names = vec!["meta_data.json", "network_data.json", "password"];
            names.extend(user_data(of).map(|_| "user_data"));
            names.extend(["vendor_data.json", "vendor_data2.json"]);
            Some((TEXT, names.join("\n").into_bytes()))
        }
        Some("meta_data.json") => Some((JSON, meta_data(of).to_string().into_bytes())),
        Some("network_data.json") => Some((JSON, network_data(&of.networks).to_string().into_bytes())),
        Some("vendor_data.json" | "vendor_data2.json") => Some((JSON, b"{}".to_vec())),
        Some("password") => Some((TEXT, Vec::new())),
        Some("user_data") => Some((BYTES, user_data(of)?)),
        Some(_) => None,
    }
}

/// Answers any other path: `/`, `/latest/meta-data/…`, `/2009-04-04/user-data`.
pub fn ec2(path: &str, of: &InstanceMetadata) -> Option<Answer> {
    let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
    let text = |text: String| Some((TEXT, text.into_bytes()));
    match parts.as_slice() {
        [] => text(EC2_VERSIONS.join("\n")),
        [version, ..] if !EC2_VERSIONS.contains(version) => None,
        [_] => text(if user_data(of).is_some() { "meta-data/\nuser-data" } else { "meta-data/" }.into()),
        [_, "user-data"] => Some((BYTES, user_data(of)?)),
        [_, "meta-data", rest @ ..] => text(ec2_meta_data(rest, of)?),
        _ => None,
    }
}

/// The files of a config drive, without a leading slash.
pub fn config_drive(of: &InstanceMetadata) -> Vec<(String, Vec<u8>)> {
    let mut files = Vec::new();
    for name in ["meta_data.json", "network_data.json", "user_data", "vendor_data.json", "vendor_data2.json"] {
        let path = format!("openstack/latest/{name}");
        if let Some((_, bytes)) = openstack(&format!("/{path}"), of) {
            files.push((path, bytes));
        }
    }
    files.push(("ec2/latest/meta-data.json".into(), ec2_tree(of).to_string().into_bytes()));
    if let Some(bytes) = user_data(of) {
        files.push(("ec2/latest/user-data".into(), bytes));
    }
    files
}

/// User data as the guest gets it: the API has checked the base64; what does not decode counts as none.
fn user_data(of: &InstanceMetadata) -> Option<Vec<u8>> {
    let text: String = of.user_data.as_ref()?.split_ascii_whitespace().collect();
    base64::engine::general_purpose::STANDARD.decode(text).ok().filter(|bytes| !bytes.is_empty())
}

fn meta_data(of: &InstanceMetadata) -> Value {
    let keys: Vec<Value> =
        of.public_keys.iter().map(|(name, key)| json!({"name": name, "type": "ssh", "data": key})).collect();
    let mut value = json!({
        "uuid": of.uuid,
        "name": of.name,
        "hostname": of.hostname,
        "project_id": of.project_id,
        "availability_zone": of.availability_zone,
        "launch_index": of.launch_index,
        "devices": of.devices.iter().map(device).collect::<Vec<_>>(),
        "dedicated_cpus": [],
    });
    if !of.meta.is_empty() {
        value["meta"] = json!(of.meta);
    }
    if !keys.is_empty() {
        value["public_keys"] = json!(of.public_keys);
        value["keys"] = json!(keys);
    }
    if let Some(password) = &of.admin_pass {
        value["admin_pass"] = json!(password);
    }
    value
}

/// A tagged disk, by the address at which the guest finds it: the slots are the first buses behind the first one.
fn device(of: &MetadataDevice) -> Value {
    let address = crate::guest::slot(&of.device).map(|slot| format!("0000:{:02x}:00.0", slot + 1));
    json!({
        "type": "disk",
        "bus": "pci",
        "address": address,
        "path": format!("/dev/{}", of.device),
        "serial": of.serial,
        "tags": [of.tag],
    })
}

fn network_data(networks: &[MetadataNetwork]) -> Value {
    let mut links = Vec::new();
    let mut entries = Vec::new();
    let mut services: Vec<Value> = Vec::new();
    for network in networks {
        let link = format!("tap{}", network.port.chars().take(11).collect::<String>());
        links.push(json!({
            "id": link,
            "vif_id": network.port,
            "type": "bridge",
            "mtu": network.mtu,
            "ethernet_mac_address": network.mac,
        }));
        for address in &network.addresses {
            let Ok(ip) = address.address.parse::<IpAddr>() else { continue };
            let number = entries.len();
            entries.push(network_entry(number, &link, network, address, ip));
            for server in &address.dns {
                let service = json!({"type": "dns", "address": server});
                if !services.contains(&service) {
                    services.push(service);
                }
            }
        }
    }
    json!({"links": links, "networks": entries, "services": services})
}

fn network_entry(number: usize, link: &str, network: &MetadataNetwork, address: &MetadataAddress, ip: IpAddr) -> Value {
    let family = if ip.is_ipv4() { "ipv4" } else { "ipv6" };
    let mut entry = json!({
        "id": format!("network{number}"),
        "link": link,
        "type": if address.dhcp { format!("{family}_dhcp") } else { family.to_owned() },
        "network_id": network.network,
    });
    if address.dhcp {
        return entry;
    }
    let any = if ip.is_ipv4() { "0.0.0.0" } else { "::" };
    let routes: Vec<Value> =
        address.gateway.iter().map(|via| json!({"network": any, "netmask": any, "gateway": via})).collect();
    entry["ip_address"] = json!(address.address);
    entry["netmask"] = json!(netmask(ip, address.prefix_len));
    entry["routes"] = json!(routes);
    entry["services"] = address.dns.iter().map(|server| json!({"type": "dns", "address": server})).collect();
    entry
}

/// A prefix length written as an address: 24 is 255.255.255.0.
fn netmask(family: IpAddr, prefix_len: u8) -> String {
    match family {
        IpAddr::V4(_) => {
            let host_bits = 32 - u32::from(prefix_len.min(32));
            std::net::Ipv4Addr::from(u32::MAX.checked_shl(host_bits).unwrap_or(0)).to_string()
        }
        IpAddr::V6(_) => {
            let host_bits = 128 - u32::from(prefix_len.min(128));
            std::net::Ipv6Addr::from(u128::MAX.checked_shl(host_bits).unwrap_or(0)).to_string()
        }
    }
}

/// EC2's meta-data as a tree, as it stands in a config drive.
fn ec2_tree(of: &InstanceMetadata) -> Value {
    let first = |wanted: fn(&IpAddr) -> bool| {
        let mut all = of.networks.iter().flat_map(|network| &network.addresses);
        all.find(|it| it.address.parse::<IpAddr>().is_ok_and(|ip| wanted(&ip))).map(|it| it.address.clone())
    };
    let mut tree = json!({
        "ami-id": format!("ami-{:08x}", fold(of.image.as_str())),
        "ami-launch-index": of.launch_index.to_string(),
        "ami-manifest-path": "FIXME",
        "block-device-mapping": {"ami": "vda", "root": "/dev/vda"},
        "hostname": of.hostname,
        "instance-action": "none",
        "instance-id": format!("i-{:08x}", of.ec2_number),
        "instance-type": of.flavor,
        "local-hostname": of.hostname,
        "local-ipv4": first(IpAddr::is_ipv4).unwrap_or_default(),
        "placement": {"availability-zone": of.availability_zone},
        "public-hostname": of.hostname,
        "public-ipv4": of.public_ipv4.clone().unwrap_or_default(),
        "reservation-id": of.reservation_id,
        "security-groups": of.security_groups.join("\n"),
    });
    if !of.public_keys.is_empty() {
        let keys =
            of.public_keys.iter().enumerate().map(|(at, (name, key))| {
                (at.to_string(), json!({"_name": format!("{at}={name}"), "openssh-key": key}))
            });
        tree["public-keys"] = Value::Object(keys.collect());
    }
    tree
}

/// EC2 names images by eight hex digits. Nova keeps a table; a hash of the id serves as well, since nothing reads it
/// back.
fn fold(text: &str) -> u32 {
    text.bytes().fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193))
}

fn ec2_meta_data(path: &[&str], of: &InstanceMetadata) -> Option<String> {
    let tree = ec2_tree(of);
    let mut node = &tree;
    for part in path {
        node = node.get(part)?;
    }
    match node {
        Value::String(text) => Some(text.clone()),
        Value::Object(fields) => {
            let mut lines = Vec::new();
            for (name, field) in fields {
                lines.push(match field {
                    _ if name == "_name" => continue,
                    Value::Object(inner) => match inner.get("_name").and_then(Value::as_str) {
                        Some(shown) => shown.to_owned(),
                        None => format!("{name}/"),
                    },
                    _ => name.clone(),
                });
            }
            lines.sort();
            Some(lines.join("\n"))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::{Expect, expect};

    fn sample() -> InstanceMetadata {
        InstanceMetadata {
            uuid: "5f2b0a6e-0001-4000-8000-000000000001".into(),
            name: "web 1".into(),
            hostname: "web-1.novalocal".into(),
            project_id: "p".into(),
            availability_zone: "nova".into(),
            flavor: "m1.tiny".into(),
            image: "img".into(),
            reservation_id: "r-abcdefgh".into(),
            ec2_number: 10,
            public_keys: [("demo".to_owned(), "ssh-ed25519 AAAA demo".to_owned())].into(),
            user_data: Some("IyEvYmluL3NoCmVjaG8gaGVsbG8K".into()),
            security_groups: vec!["default".into()],
            networks: vec![MetadataNetwork {
                port: "0123456789abcdef".into(),
                network: "net".into(),
                mac: "fa:16:3e:00:00:01".into(),
                mtu: 1450,
                addresses: vec![
                    MetadataAddress { address: "10.0.0.5".into(), prefix_len: 24, dhcp: true, ..Default::default() },
                    MetadataAddress {
                        address: "fd00::5".into(),
                        prefix_len: 64,
                        gateway: Some("fd00::1".into()),
                        dns: vec!["fd00::53".into()],
                        dhcp: false,
                    },
                ],
            }],
            ..Default::default()
        }
    }

    fn check(answer: Option<Answer>, expected: Expect) {
        expected.assert_eq(&match answer {
            Some((kind, bytes)) => format!("{kind}: {}", String::from_utf8_lossy(&bytes)),
            None => "404".into(),
        });
    }

    #[test]
    fn openstack_paths() {
        let of = sample();
        check(
            openstack("/openstack/latest", &of),
            expect![[r#"
            text/plain; charset=UTF-8: meta_data.json
            network_data.json
            password
            user_data
            vendor_data.json
            vendor_data2.json"#]],
        );
        check(
            openstack("/openstack/latest/user_data", &of),
            expect![[r#"
            application/octet-stream: #!/bin/sh
            echo hello
        "#]],
        );
        check(openstack("/openstack/1999-01-01/meta_data.json", &of), expect![[r#"404"#]]);
        check(openstack("/openstack/latest/nothing", &of), expect![[r#"404"#]]);
        check(openstack("/openstack/latest/meta_data.json/x", &of), expect![[r#"404"#]]);
        check(
            openstack("/openstack/2012-08-10/meta_data.json", &of),
            expect![[
                r#"application/json: {"availability_zone":"nova","dedicated_cpus":[],"devices":[],"hostname":"web-1.novalocal","keys":[{"data":"ssh-ed25519 AAAA demo","name":"demo","type":"ssh"}],"launch_index":0,"name":"web 1","project_id":"p","public_keys":{"demo":"ssh-ed25519 AAAA demo"},"uuid":"5f2b0a6e-0001-4000-8000-000000000001"}"#
            ]],
        );
        check(
            openstack("/openstack/latest/network_data.json", &of),
            expect![[
                r#"application/json: {"links":[{"ethernet_mac_address":"fa:16:3e:00:00:01","id":"tap0123456789a","mtu":1450,"type":"bridge","vif_id":"0123456789abcdef"}],"networks":[{"id":"network0","link":"tap0123456789a","network_id":"net","type":"ipv4_dhcp"},{"id":"network1","ip_address":"fd00::5","link":"tap0123456789a","netmask":"ffff:ffff:ffff:ffff::","network_id":"net","routes":[{"gateway":"fd00::1","netmask":"::","network":"::"}],"services":[{"address":"fd00::53","type":"dns"}],"type":"ipv6"}],"services":[{"address":"fd00::53","type":"dns"}]}"#
            ]],
        );
    }

    #[test]
    fn tagged_volumes_are_found_by_their_address() {
        let device = MetadataDevice {
            bus: "virtio".into(),
            device: "vdc".into(),
            serial: "5f2b0a6e-0001-4000-8000-000000000002".into(),
            tag: "data".into(),
        };
        let of = InstanceMetadata { devices: vec![device], ..InstanceMetadata::default() };
        check(
            Some((JSON, meta_data(&of)["devices"].to_string().into_bytes())),
            expect![[
                r#"application/json: [{"address":"0000:03:00.0","bus":"pci","path":"/dev/vdc","serial":"5f2b0a6e-0001-4000-8000-000000000002","tags":["data"],"type":"disk"}]"#
            ]],
        );
    }

    #[test]
    fn ec2_paths() {
        let of = sample();
        check(
            ec2("/latest/", &of),
            expect![[r#"
            text/plain; charset=UTF-8: meta-data/
            user-data"#]],
        );
        check(
            ec2("/2009-04-04/meta-data/", &of),
            expect![[r#"
            text/plain; charset=UTF-8: ami-id
            ami-launch-index
            ami-manifest-path
            block-device-mapping/
            hostname
            instance-action
            instance-id
            instance-type
            local-hostname
            local-ipv4
            placement/
            public-hostname
            public-ipv4
            public-keys/
            reservation-id
            security-groups"#]],
        );
        check(ec2("/latest/meta-data/public-keys/", &of), expect![[r#"text/plain; charset=UTF-8: 0=demo"#]]);
        check(ec2("/latest/meta-data/public-keys/0", &of), expect![[r#"text/plain; charset=UTF-8: openssh-key"#]]);
        check(
            ec2("/latest/meta-data/public-keys/0/openssh-key", &of),
            expect![[r#"text/plain; charset=UTF-8: ssh-ed25519 AAAA demo"#]],
        );
        check(ec2("/latest/meta-data/instance-id", &of), expect![[r#"text/plain; charset=UTF-8: i-0000000a"#]]);
        check(ec2("/latest/meta-data/local-ipv4", &of), expect![[r#"text/plain; charset=UTF-8: 10.0.0.5"#]]);
        check(ec2("/latest/meta-data/local-ipv4/x", &of), expect![[r#"404"#]]);
        check(ec2("/tomorrow/meta-data", &of), expect![[r#"404"#]]);
    }

    #[test]
    fn a_guest_without_user_data_has_none() {
        let of = InstanceMetadata { user_data: Some("not base64!".into()), ..sample() };
        check(openstack("/openstack/latest/user_data", &of), expect![[r#"404"#]]);
        check(ec2("/latest/user-data", &of), expect![[r#"404"#]]);
        assert!(config_drive(&of).iter().all(|(path, _)| !path.ends_with("user_data")));
    }
}
