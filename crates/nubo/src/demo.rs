//! The demo: an image, a flavor, networks, a key and a server, made through the API as any user would. Each step looks
//! first and makes only what is missing.

use crate::client::{Client, Login};
use crate::progress::Progress;
use crate::settings::Settings;
use crate::setup::{self, Setup};
use anyhow::{Context, Result, bail};
use hyper::Method;
use serde_json::{Value, json};
use std::path::Path;
use std::time::Duration;
use tokio::io::AsyncReadExt;

/// How long a guest may take until it answers SSH: emulation on a loaded machine is slow.
const BOOT: Duration = Duration::from_secs(240);

/// The demo as it stands.
pub struct Demo {
    pub address: String,
    /// False when everything stood already.
    pub changed: bool,
}

struct Maker<'a> {
    client: &'a Client,
    progress: &'a Progress,
    changed: bool,
}

impl Maker<'_> {
    /// The first of a list with that name.
    async fn find(&self, service: &str, path: &str, list: &str, name: &str) -> Result<Option<Value>> {
        let all = self.client.get(service, path).await?;
        Ok(all[list].as_array().into_iter().flatten().find(|item| item["name"] == name).cloned())
    }

    /// Looks for an object by name and makes it when it is missing. Returns its id.
    async fn ensure(&mut self, service: &str, path: &str, keys: (&str, &str), body: Value) -> Result<String> {
        let (one, list) = keys;
        let name = body["name"].as_str().unwrap_or_default().to_owned();
        let what = format!("{} {name}", one.replace('_', " "));
        if let Some(found) = self.find(service, path, list, &name).await? {
            self.progress.stands(&what);
            return text(&found, "id");
        }
        let step = self.progress.step(&what);
        let made = self.client.post(service, path, json!({one: body})).await?;
        self.changed = true;
        step.done();
        text(&made[one], "id")
    }
}

fn text(value: &Value, key: &str) -> Result<String> {
    Ok(value[key].as_str().with_context(|| format!("the answer has no {key}"))?.to_owned())
}

pub async fn make(settings: &Settings, setup: &Setup, url: &str, image: &Path, progress: &Progress) -> Result<Demo> {
    let login = |user: &str, password: &str| Login {
        auth_url: format!("{url}/identity"),
        user: user.to_owned(),
        password: password.to_owned(),
        project: user.to_owned(),
        ca: Some(settings.state.join("ca.pem")).filter(|path| path.exists()),
    };
    let admin = Client::login(&login("admin", &setup.admin_password)).await?;
    let demo = Client::login(&login("demo", &setup.demo_password)).await?;
    let mut changed = false;
    let mut maker = Maker { client: &admin, progress, changed: false };
    let image_id = make_image(&mut maker, image).await?;
    let flavor = json!({"name": "m1.tiny", "ram": 128, "vcpus": 1, "disk": 1});
    let flavor_id = maker.ensure("compute", "/flavors", ("flavor", "flavors"), flavor).await?;
    let public_id = make_public(&mut maker, settings).await?;
    changed |= maker.changed;
    let mut maker = Maker { client: &demo, progress, changed: false };
    let network_id = make_network(&mut maker, &public_id).await?;
    make_rules(&mut maker).await?;
    make_key(&mut maker, settings).await?;
    let server = json!({
        "name": "demo", "imageRef": image_id, "flavorRef": flavor_id, "key_name": "demo",
        "networks": [{"uuid": network_id}],
    });
    let server_id = maker.ensure("compute", "/servers", ("server", "servers"), server).await?;
    let address = make_floating(&mut maker, &server_id, &public_id).await?;
    changed |= maker.changed;
    wait_active(&demo, progress, &server_id).await?;
    wait_ssh(progress, &address).await?;
    Ok(Demo { address, changed })
}

async fn make_image(maker: &mut Maker<'_>, file: &Path) -> Result<String> {
    let found = maker.find("image", "/v2/images?name=tiny", "images", "tiny").await?;
    if let Some(found) = found.as_ref().filter(|image| image["status"] == "active") {
        maker.progress.stands("image tiny");
        return text(found, "id");
    }
    let step = maker.progress.step("image tiny");
    let id = match found {
        Some(found) => text(&found, "id")?,
        None => {
            let body =
                json!({"name": "tiny", "disk_format": "qcow2", "container_format": "bare", "visibility": "public"});
            text(&maker.client.post("image", "/v2/images", body).await?, "id")?
        }
    };
    maker.client.upload("image", &format!("/v2/images/{id}/file"), file).await?;
    maker.changed = true;
    step.done();
    Ok(id)
}

async fn make_public(maker: &mut Maker<'_>, settings: &Settings) -> Result<String> {
    let network = json!({
        "name": "public", "router:external": true,
        "provider:network_type": "flat", "provider:physical_network": "public",
    });
    let id = maker.ensure("network", "/v2.0/networks", ("network", "networks"), network).await?;
    let mut hosts = settings.external_cidr.hosts();
    let gateway = hosts.next().context("the external network has no addresses")?;
    let subnet = json!({
        "name": "public-subnet", "network_id": id, "ip_version": 4, "cidr": settings.external_cidr.to_string(),
        "gateway_ip": gateway.to_string(), "enable_dhcp": false,
    });
    maker.ensure("network", "/v2.0/subnets", ("subnet", "subnets"), subnet).await?;
    Ok(id)
}

async fn make_network(maker: &mut Maker<'_>, public_id: &str) -> Result<String> {
    let id = maker.ensure("network", "/v2.0/networks", ("network", "networks"), json!({"name": "demo-net"})).await?;
    let subnet = json!({"name": "demo-subnet", "network_id": id, "ip_version": 4, "cidr": "10.11.12.0/24"});
    let subnet_id = maker.ensure("network", "/v2.0/subnets", ("subnet", "subnets"), subnet).await?;
    let router = json!({"name": "demo-router", "external_gateway_info": {"network_id": public_id}});
    let router_id = maker.ensure("network", "/v2.0/routers", ("router", "routers"), router).await?;
    let ports = maker.client.get("network", &format!("/v2.0/ports?device_id={router_id}&network_id={id}")).await?;
    if ports["ports"].as_array().is_none_or(Vec::is_empty) {
        let path = format!("/v2.0/routers/{router_id}/add_router_interface");
        maker.client.put("network", &path, json!({"subnet_id": subnet_id})).await?;
        maker.changed = true;
    }
    Ok(id)
}

/// Lets ping and SSH in.
async fn make_rules(maker: &mut Maker<'_>) -> Result<()> {
    let groups = maker.client.get("network", "/v2.0/security-groups?name=default").await?;
    let group = groups["security_groups"][0].clone();
    let group_id = text(&group, "id")?;
    let has = |protocol: &str| {
        let rules = group["security_group_rules"].as_array().into_iter().flatten();
        rules.clone().any(|rule| rule["direction"] == "ingress" && rule["protocol"] == protocol)
    };
    for (protocol, port) in [("tcp", json!(22)), ("icmp", Value::Null)] {
        if !has(protocol) {
            let rule = json!({"security_group_rule": {
                "security_group_id": group_id, "direction": "ingress", "ethertype": "IPv4", "protocol": protocol,
                "port_range_min": port, "port_range_max": port, "remote_ip_prefix": "0.0.0.0/0",
            }});
            maker.client.post("network", "/v2.0/security-group-rules", rule).await?;
            maker.changed = true;
        }
    }
    Ok(())
}

async fn make_key(maker: &mut Maker<'_>, settings: &Settings) -> Result<()> {
    let private = settings.state.join("demo.key");
    let stands = maker.client.try_call(Method::GET, "compute", "/os-keypairs/demo", None).await?.status == 200;
    if stands && private.exists() {
        maker.progress.stands("key pair demo");
        return Ok(());
    }
    if stands {
        // Its private half is lost, so nobody can use it; servers keep the public half that they started with.
        maker.client.call(Method::DELETE, "compute", "/os-keypairs/demo", None).await?;
    }
    let made = maker.client.post("compute", "/os-keypairs", json!({"keypair": {"name": "demo"}})).await?;
    let key = text(&made["keypair"], "private_key")?;
    setup::write_private(&private, key.as_bytes(), Some(setup::person()))?;
    maker.changed = true;
    Ok(())
}

async fn make_floating(maker: &mut Maker<'_>, server_id: &str, public_id: &str) -> Result<String> {
    let ports = maker.client.get("network", &format!("/v2.0/ports?device_id={server_id}")).await?;
    let port_id = text(&ports["ports"][0], "id").context("the demo server has no port")?;
    let known = maker.client.get("network", &format!("/v2.0/floatingips?port_id={port_id}")).await?;
    if let Ok(address) = text(&known["floatingips"][0], "floating_ip_address") {
        maker.progress.stands(&format!("floating address {address}"));
        return Ok(address);
    }
    let body = json!({"floatingip": {"floating_network_id": public_id, "port_id": port_id}});
    let made = maker.client.post("network", "/v2.0/floatingips", body).await?;
    maker.changed = true;
    text(&made["floatingip"], "floating_ip_address")
}

async fn wait_active(client: &Client, progress: &Progress, id: &str) -> Result<()> {
    let step = progress.step("server demo becomes ACTIVE");
    let until = tokio::time::Instant::now() + BOOT;
    loop {
        let server = client.get("compute", &format!("/servers/{id}")).await?["server"].clone();
        match server["status"].as_str().unwrap_or_default() {
            "ACTIVE" => break,
            "ERROR" => bail!("the demo server is in ERROR: {}", server["fault"]["message"]),
            "SHUTOFF" => {
                let start = json!({"os-start": null});
                client.try_call(Method::POST, "compute", &format!("/servers/{id}/action"), Some(start)).await?;
            }
            _ => {}
        }
        if tokio::time::Instant::now() > until {
            bail!("the demo server is still {} after {} s", server["status"], BOOT.as_secs());
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    step.done();
    Ok(())
}

async fn wait_ssh(progress: &Progress, address: &str) -> Result<()> {
    let step = progress.step("server demo answers SSH");
    let until = tokio::time::Instant::now() + BOOT;
    while !greets(address).await {
        if tokio::time::Instant::now() > until {
            bail!("{address} does not answer SSH after {} s: see `openstack console log show demo`", BOOT.as_secs());
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    step.done();
    Ok(())
}

/// True when an SSH server says who it is.
async fn greets(address: &str) -> bool {
    let greeting = async {
        let mut stream = tokio::net::TcpStream::connect((address, 22)).await.ok()?;
        let mut first = [0u8; 4];
        stream.read_exact(&mut first).await.ok()?;
        (&first == b"SSH-").then_some(())
    };
    tokio::time::timeout(Duration::from_secs(3), greeting).await.ok().flatten().is_some()
}
