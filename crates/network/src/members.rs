//! Which ports are where and in which groups, kept in memory: what is asked of a network or a group of twenty thousand
//! ports for each port that comes or goes must not read twenty thousand documents.
//!
//! The table is the store's as of one revision. Who asks brings it up to the snapshot in which it stands, by the ports
//! that have changed since; where that cannot be done exactly all ports are read. Views are made of it, and nothing is
//! decided by it: addresses and groups are changed by what stands in the transaction.

use crate::ports::Port;
use crate::standard::Look;
use base::{HostName, Result};
use ipnet::IpNet;
use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use store::{Query, Reader, Rev, Store};

/// So many rows of history are looked through before all ports are read.
const BEHIND: usize = 20_000;

#[derive(Default)]
pub(crate) struct Members(Mutex<Option<(Rev, Table)>>);

/// What views ask of all ports together.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Table {
    ports: HashMap<Arc<str>, Member>,
    networks: HashMap<Arc<str>, Hosts>,
    groups: HashMap<Arc<str>, Group>,
}

/// How many bound ports on each host.
type Hosts = BTreeMap<HostName, u32>;

#[derive(Debug, PartialEq)]
struct Member {
    network: Arc<str>,
    host: HostName,
    groups: Vec<Arc<str>>,
    addresses: Vec<IpNet>,
}

#[derive(Debug, Default, PartialEq)]
struct Group {
    hosts: Hosts,
    /// How many ports have it: two may be allowed the same pair.
    addresses: BTreeMap<IpNet, u32>,
    ports: u32,
}

impl Members {
    /// Asks the table as of the reader's snapshot.
    pub fn ask<T>(&self, store: &Store, reader: &mut Reader, ask: impl FnOnce(&Table) -> T) -> Result<T> {
        let mut kept = self.lock();
        if !bring_up(&mut kept, store, reader)? {
            drop(kept);
            return Ok(ask(&Table::read(reader)?));
        }
        let Some((_, table)) = &*kept else { return Ok(ask(&Table::read(reader)?)) };
        // Elsewhere somebody may have edited the file by hand, which fsck finds and mends.
        debug_assert!(!store.is_inline() || *table == Table::read(reader)?, "the table of ports is what the store says");
        Ok(ask(table))
    }

    /// Forgets everything: the next one reads it anew.
    pub fn forget(&self) {
        *self.lock() = None;
    }

    fn lock(&self) -> MutexGuard<'_, Option<(Rev, Table)>> {
        self.0.lock().unwrap_or_else(|broken| broken.into_inner())
    }
}

/// Brings the table to the reader's snapshot. False where it is not of what is committed, or of the past.
fn bring_up(kept: &mut Option<(Rev, Table)>, store: &Store, reader: &mut Reader) -> Result<bool> {
    if reader.stands_in().is_some() || reader.own_moves().ids::<Port>().next().is_some() {
        return Ok(false);
    }
    let rev = reader.snapshot_rev()?;
    // What shares our commit may still fail with it, and its revision be used again.
    if rev > store.rev() {
        return Ok(false);
    }
    // Taken out meanwhile: half a step would be taken for a whole one.
    let Some((since, mut table)) = kept.take() else {
        *kept = Some((rev, Table::read(reader)?));
        return Ok(true);
    };
    if since > rev {
        *kept = Some((since, table));
        return Ok(false);
    }
    let moved = if since == rev { Some(Default::default()) } else { reader.moved_since(since, BEHIND)? };
    let table = match moved {
        None => Table::read(reader)?,
        Some(moved) => {
            for id in moved.ids::<Port>() {
                table.remove(id);
                if let Some(port) = reader.doc::<Port>(id)? {
                    table.insert(&port);
                }
            }
            table
        }
    };
    *kept = Some((rev, table));
    Ok(true)
}

impl Table {
    fn read(reader: &mut Reader) -> Result<Table> {
        let mut table = Table::default();
        for port in reader.docs::<Port>(Query::all())? {
            table.insert(&port);
        }
        Ok(table)
    }

    /// The hosts on which a network has bound ports.
    pub fn network_hosts(&self, id: &str) -> impl Iterator<Item = &HostName> {
        self.networks.get(id).into_iter().flat_map(BTreeMap::keys)
    }

    /// The hosts on which a group has bound ports.
    pub fn group_hosts(&self, id: &str) -> impl Iterator<Item = &HostName> {
        self.groups.get(id).into_iter().flat_map(|group| group.hosts.keys())
    }

    /// The addresses of a group's ports, in order, each once.
    pub fn addresses(&self, id: &str) -> Vec<IpNet> {
        self.groups.get(id).map(|group| group.addresses.keys().copied().collect()).unwrap_or_default()
    }

    fn insert(&mut self, port: &Port) {
        let network = known(&self.networks, &port.network_id);
        let groups: Vec<Arc<str>> = port.security_groups.iter().map(|group| known(&self.groups, group)).collect();
        let addresses = addresses(port);
        if !port.host.is_empty() {
            up(self.networks.entry(network.clone()).or_default(), &port.host);
        }
        for id in &groups {
            let group = self.groups.entry(id.clone()).or_default();
            group.ports += 1;
            addresses.iter().for_each(|address| up(&mut group.addresses, address));
            if !port.host.is_empty() {
                up(&mut group.hosts, &port.host);
            }
        }
        let member = Member { network, host: port.host.clone(), groups, addresses };
        self.ports.insert(Arc::from(port.id.as_str()), member);
    }

    fn remove(&mut self, id: &str) {
        let Some(member) = self.ports.remove(id) else { return };
        if let Some(hosts) = self.networks.get_mut(&member.network) {
            down(hosts, &member.host);
            if hosts.is_empty() {
                self.networks.remove(&member.network);
            }
        }
        for id in &member.groups {
            let Some(group) = self.groups.get_mut(id) else { continue };
            group.ports -= 1;
            member.addresses.iter().for_each(|address| down(&mut group.addresses, address));
            down(&mut group.hosts, &member.host);
            if group.ports == 0 {
                self.groups.remove(id);
            }
        }
    }
}

/// One text for all that name the same.
fn known<V>(map: &HashMap<Arc<str>, V>, id: &str) -> Arc<str> {
    map.get_key_value(id).map_or_else(|| Arc::from(id), |(known, _)| known.clone())
}

fn up<K: Ord + Clone>(counts: &mut BTreeMap<K, u32>, key: &K) {
    match counts.get_mut(key) {
        Some(count) => *count += 1,
        None => drop(counts.insert(key.clone(), 1)),
    }
}

fn down<K: Ord>(counts: &mut BTreeMap<K, u32>, key: &K) {
    let Some(count) = counts.get_mut(key) else { return };
    *count -= 1;
    if *count == 0 {
        counts.remove(key);
    }
}

/// The addresses from which a port may send: its own, and those of its pairs.
fn addresses(port: &Port) -> Vec<IpNet> {
    let fixed = port.fixed_ips.iter().map(|fixed| IpNet::from(fixed.ip_address));
    let mut addresses: Vec<IpNet> = fixed.chain(port.address_pairs.iter().filter_map(|pair| net(&pair.ip))).collect();
    addresses.sort();
    addresses.dedup();
    addresses
}

/// An address, or a network.
pub(crate) fn net(text: &str) -> Option<IpNet> {
    text.parse::<IpAddr>().map(IpNet::from).ok().or_else(|| text.parse::<IpNet>().ok().map(|net| net.trunc()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn port(n: u8, host: u8, groups: &[u8], pair: bool) -> Port {
        let pairs = if pair { json!([{"mac": null, "ip": "10.9.0.0/16"}, {"mac": null, "ip": "10.0.0.1"}]) } else { json!([]) };
        serde_json::from_value(json!({
            "id": format!("p{n}"), "project_id": "", "network_id": format!("n{}", n % 3), "name": "",
            "admin_state_up": true, "mac": "", "fixed_ips": [{"subnet_id": "s", "ip_address": format!("10.0.0.{n}")}],
            "device_id": "", "device_owner": "", "port_security": true, "address_pairs": pairs, "dhcp_options": [],
            "security_groups": groups.iter().map(|group| format!("g{group}")).collect::<Vec<_>>(),
            "host": if host == 0 { String::new() } else { format!("h{host}") }, "vnic_type": "normal", "profile": {},
            "charged": false, "attached": null,
            "standard": {"description": "", "tags": [], "revision": 1, "created_at": 0, "updated_at": 0},
        }))
        .unwrap()
    }

    proptest! {
        #[test]
        fn a_table_that_follows_is_the_table_made_anew(
            steps in proptest::collection::vec((0u8..8, 0u8..4, proptest::sample::subsequence(vec![0u8, 1, 2], 0..=3), any::<bool>(), any::<bool>()), 0..60)
        ) {
            let (mut table, mut model) = (Table::default(), BTreeMap::new());
            for (n, host, groups, pair, stays) in steps {
                table.remove(&format!("p{n}"));
                model.remove(&n);
                if stays {
                    let port = port(n, host, &groups, pair);
                    table.insert(&port);
                    model.insert(n, port);
                }
                let mut anew = Table::default();
                model.values().for_each(|port| anew.insert(port));
                prop_assert_eq!(&table, &anew);
                for group in ["g0", "g1", "g2"] {
                    let with = model.values().filter(|port| port.security_groups.iter().any(|it| it.as_str() == group));
                    let mut wanted: Vec<IpNet> = with.flat_map(addresses).collect();
                    wanted.sort();
                    wanted.dedup();
                    prop_assert_eq!(table.addresses(group), wanted);
                }
            }
        }
    }
}
