//! Servers as the hosts that carry them are told.

use super::document::{Server, ServerSecret, Tombstone, TrashedGuest};
use crate::Compute;
use agent_api::{
    DesiredPower, GuestSpec, GuestVolume, InstanceMetadata, MetadataAddress, MetadataNetwork, Nic, OnCrash, ViewKind, ViewObject,
};
use base::{HostName, Result, ServerId};
use contract::{Projector, ServerPort, ServerVolume, Touched};
use model::extra_spec;
use model::server::Power;
use std::collections::BTreeMap;
use store::{Change, Document, Query, Reader, Stored};

impl Projector for Compute {
    fn whole(&self, reader: &mut Reader, host: &HostName) -> Result<Vec<ViewObject>> {
        let servers = reader.list::<Server>(Query::index("host", host.as_str()))?;
        let ids: Vec<ServerId> = servers.iter().map(|server| server.id.clone()).collect();
        let ports = self.ports.of_servers(reader, &ids)?;
        let mut objects = Vec::new();
        for server in &servers {
            let ports = ports.get(&server.id).map(Vec::as_slice).unwrap_or_default();
            objects.push(ViewObject::Guest(spec(self, reader, server, ports)?));
        }
        for trashed in reader.list::<TrashedGuest>(Query::index("host", host.as_str()))? {
            objects.push(ViewObject::Guest(resting(self, reader, &trashed)?));
        }
        let buried = reader.list::<Tombstone>(Query::index("host", host.as_str()))?;
        // A server that came back to a host needs no tombstone there.
        for tombstone in buried.iter().filter(|tombstone| !ids.contains(&tombstone.id)) {
            objects.push(ViewObject::Guest(absent(tombstone)));
        }
        Ok(objects)
    }

    fn touched(&self, reader: &mut Reader, change: &Change, touched: &mut Touched) -> Result<()> {
        match change.kind.as_ref() {
            Server::KIND => match change.document::<Server>()?.map(|server| server.doc.host) {
                Some(Some(host)) => touched.on(&host, ViewKind::Guest, &change.id),
                Some(None) => {}
                None => touched.anywhere(ViewKind::Guest, &change.id),
            },
            TrashedGuest::KIND => touched.anywhere(ViewKind::Guest, &change.id),
            Tombstone::KIND => match change.document::<Tombstone>()? {
                Some(tombstone) => touched.on(&tombstone.host, ViewKind::Guest, &tombstone.id),
                None => match Tombstone::parse(&change.id) {
                    Some((server, host)) => touched.on(&host, ViewKind::Guest, server),
                    None => touched.anywhere(ViewKind::Guest, &change.id),
                },
            },
            ServerSecret::KIND => on_its_host(reader, &change.id, touched)?,
            _ => match self.ports.servers_touched(reader, change)? {
                Some(servers) => {
                    for server in servers {
                        on_its_host(reader, &server, touched)?;
                    }
                }
                None => {
                    for server in reader.list::<Server>(Query::all())? {
                        if let Some(host) = &server.host {
                            touched.on(host, ViewKind::Guest, &server.id);
                        }
                    }
                }
            },
        }
        Ok(())
    }

    fn one(&self, reader: &mut Reader, host: &HostName, kind: ViewKind, id: &str) -> Result<Option<ViewObject>> {
        if kind != ViewKind::Guest {
            return Ok(None);
        }
        if let Some(server) = reader.get::<Server>(id)?.filter(|server| server.host.as_ref() == Some(host)) {
            let ports = self.ports.of_server(reader, &server.id)?;
            return Ok(Some(ViewObject::Guest(spec(self, reader, &server, &ports)?)));
        }
        let here = |trashed: &Stored<TrashedGuest>| trashed.server.host.as_ref() == Some(host);
        if let Some(trashed) = reader.get::<TrashedGuest>(id)?.filter(here) {
            return Ok(Some(ViewObject::Guest(resting(self, reader, &trashed)?)));
        }
        let tombstone = Tombstone::of(reader, id, host)?;
        Ok(tombstone.map(|tombstone| ViewObject::Guest(absent(&tombstone))))
    }

    fn everywhere(&self, reader: &mut Reader, kind: ViewKind, id: &str) -> Result<BTreeMap<HostName, ViewObject>> {
        let mut objects = BTreeMap::new();
        if kind != ViewKind::Guest {
            return Ok(objects);
        }
        let buried = reader.list::<Tombstone>(Query::index("guest", id))?;
        let mut hosts: Vec<HostName> = buried.into_iter().map(|tombstone| tombstone.doc.host).collect();
        hosts.extend(reader.get::<Server>(id)?.and_then(|server| server.doc.host));
        hosts.extend(reader.get::<TrashedGuest>(id)?.and_then(|trashed| trashed.doc.server.host));
        for host in hosts {
            if let Some(object) = self.one(reader, &host, kind, id)? {
                objects.insert(host, object);
            }
        }
        Ok(objects)
    }
}

fn on_its_host(reader: &mut Reader, server: &str, touched: &mut Touched) -> Result<()> {
    if let Some(host) = reader.get::<Server>(server)?.and_then(|server| server.doc.host) {
        touched.on(&host, ViewKind::Guest, server);
    }
    Ok(())
}

/// A guest that must go is asked for its absence; nothing else of it matters.
fn absent(tombstone: &Tombstone) -> GuestSpec {
    GuestSpec {
        id: tombstone.id.clone(),
        generation: tombstone.generation,
        power: DesiredPower::Absent,
        power_generation: tombstone.generation,
        at_once: false,
        soft_reboots: 0,
        hard_reboots: 0,
        vcpus: 1,
        memory_mib: 1,
        root: None,
        volumes: Vec::new(),
        nics: Vec::new(),
        on_crash: OnCrash::Stop,
        config_drive: false,
        metadata: InstanceMetadata { uuid: tombstone.id.clone(), ..InstanceMetadata::default() },
    }
}

/// A guest in the trash: its disk, and nothing that runs or is wired.
fn resting(state: &Compute, reader: &mut Reader, trashed: &TrashedGuest) -> Result<GuestSpec> {
    Ok(GuestSpec { at_once: true, ..spec(state, reader, &trashed.server, &[])? })
}

fn spec(state: &Compute, reader: &mut Reader, server: &Server, ports: &[ServerPort]) -> Result<GuestSpec> {
    let secret = ServerSecret::of(reader, &server.id)?;
    let zone = state.zone_of(reader, server)?;
    let volumes = state.volumes.of_server(reader, &server.id)?;
    Ok(GuestSpec {
        id: server.id.clone(),
        generation: server.generation,
        power: match server.power {
            Power::Running => DesiredPower::Running,
            Power::Stopped => DesiredPower::Stopped,
            Power::Paused => DesiredPower::Paused,
            Power::Suspended => DesiredPower::Suspended,
            Power::Absent => DesiredPower::Absent,
        },
        power_generation: server.verb_generation,
        at_once: false,
        soft_reboots: server.soft_reboots,
        hard_reboots: server.hard_reboots,
        vcpus: server.flavor.vcpus,
        memory_mib: server.flavor.ram_mib,
        root: server.root.clone(),
        volumes: volumes.into_iter().filter(ServerVolume::is_wanted).map(plugged).collect(),
        nics: ports
            .iter()
            .map(|port| Nic {
                port: port.id.clone(),
                network: port.network.clone(),
                mac: port.mac.clone(),
                mtu: port.mtu,
            })
            .collect(),
        on_crash: match extra_spec::on_crash(&server.flavor.extra_specs) {
            extra_spec::OnCrash::Stop => OnCrash::Stop,
            extra_spec::OnCrash::Restart => OnCrash::Restart,
        },
        config_drive: server.config_drive,
        metadata: metadata(server, secret, ports, zone),
    })
}

fn plugged(volume: ServerVolume) -> GuestVolume {
    GuestVolume {
        attachment: volume.attachment,
        volume: volume.volume,
        device: volume.device,
        boot_index: volume.boot_index,
        bus: volume.bus,
        tag: volume.tag,
        read_only: volume.read_only,
    }
}

fn metadata(
    server: &Server,
    (user_data, admin_pass): (Option<String>, Option<String>),
    ports: &[ServerPort],
    zone: String,
) -> InstanceMetadata {
    let key = server.key_name.clone().zip(server.public_key.clone());
    let mut security_groups: Vec<String> = Vec::new();
    for (_, name) in ports.iter().flat_map(|port| &port.security_groups) {
        if !security_groups.contains(name) {
            security_groups.push(name.clone());
        }
    }
    let floating = ports.iter().flat_map(|port| &port.floating).find(|(floating, _)| floating.is_ipv4());
    let public_ipv4 = floating.map(|(floating, _)| floating.to_string());
    InstanceMetadata {
        uuid: server.id.clone(),
        name: server.name.clone(),
        hostname: server.hostname.clone(),
        project_id: server.project_id.clone(),
        user_id: server.user_id.clone(),
        availability_zone: zone,
        flavor: server.flavor.name.clone(),
        flavor_id: server.flavor.id.clone(),
        image: server.image.clone(),
        launch_index: server.launch_index,
        reservation_id: server.reservation_id.clone(),
        ec2_number: server.ec2_number,
        meta: server.metadata.clone(),
        public_keys: key.into_iter().collect::<BTreeMap<_, _>>(),
        user_data,
        security_groups,
        networks: ports.iter().map(network).collect(),
        public_ipv4,
        admin_pass,
        devices: Vec::new(),
    }
}

fn network(port: &ServerPort) -> MetadataNetwork {
    let addresses = port.fixed.iter().map(|fixed| MetadataAddress {
        address: fixed.address.to_string(),
        prefix_len: fixed.prefix_len,
        gateway: fixed.gateway.map(|gateway| gateway.to_string()),
        dns: fixed.dns.iter().map(ToString::to_string).collect(),
        dhcp: fixed.dhcp,
    });
    MetadataNetwork {
        port: port.id.clone(),
        network: port.network.clone(),
        mac: port.mac.clone(),
        mtu: port.mtu,
        addresses: addresses.collect(),
    }
}
