//! Which host a server goes to, and why no other.

use base::HostName;

/// What a server needs.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Request {
    pub vcpus: u64,
    pub memory_mib: u64,
    pub disk_gib: u64,
    pub availability_zone: Option<String>,
    /// Only this host will do (`az:host`, by an administrator).
    pub host: Option<HostName>,
    /// Hosts that have already failed at it.
    pub avoid: Vec<HostName>,
}

/// A host as the scheduler sees it. Capacity is what may be handed out: `(total - reserved) * ratio`.
#[derive(Clone, Debug, PartialEq)]
pub struct Host {
    pub name: HostName,
    pub availability_zone: String,
    /// A session with it is alive.
    pub alive: bool,
    pub enabled: bool,
    pub vcpus: Room,
    pub memory_mib: Room,
    pub disk_gib: Room,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Room {
    pub used: u64,
    pub capacity: u64,
}

impl Room {
    pub fn free(self) -> u64 {
        self.capacity.saturating_sub(self.used)
    }
}

/// Why a host cannot take a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Obstacle {
    NotThisHost,
    Down,
    Disabled,
    Zone { has: String, wanted: String },
    Avoided,
    Short { what: &'static str, needed: u64, free: u64 },
}

impl std::fmt::Display for Obstacle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Obstacle::NotThisHost => write!(f, "another host was asked for"),
            Obstacle::Down => write!(f, "it is down"),
            Obstacle::Disabled => write!(f, "it is disabled"),
            Obstacle::Zone { has, wanted } => write!(f, "it is in zone {has}, not in {wanted}"),
            Obstacle::Avoided => write!(f, "it has already failed at this server"),
            Obstacle::Short { what, needed, free } => write!(f, "{what}: {needed} needed, {free} free"),
        }
    }
}

/// Host by host, everything that stood in the way: in the order in which the hosts were given.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Explained(pub Vec<(HostName, Vec<Obstacle>)>);

impl Explained {
    /// Without hosts' names: what the owner of a server may read.
    pub fn summary(&self) -> String {
        if self.0.is_empty() {
            return "The cloud has no hosts.".to_owned();
        }
        let mut lines: Vec<(String, usize)> = Vec::new();
        for (_, obstacles) in &self.0 {
            let text = obstacles.iter().map(Obstacle::to_string).collect::<Vec<_>>().join("; ");
            match lines.iter_mut().find(|line| line.0 == text) {
                Some(line) => line.1 += 1,
                None => lines.push((text, 1)),
            }
        }
        let hosts = |n: usize| if n == 1 { "1 host".to_owned() } else { format!("{n} hosts") };
        let lines: Vec<_> = lines.iter().take(8).map(|(text, n)| format!("{}: {text}", hosts(*n))).collect();
        format!("{}.", lines.join(". "))
    }

    /// With hosts' names, for administrators.
    pub fn table(&self) -> String {
        let line = |(host, obstacles): &(HostName, Vec<Obstacle>)| {
            format!("{host}: {}", obstacles.iter().map(Obstacle::to_string).collect::<Vec<_>>().join("; "))
        };
        self.0.iter().take(64).map(line).collect::<Vec<_>>().join("\n")
    }
}

/// The fitting host with the most free memory, then the most free processors, then the first by name.
pub fn choose(request: &Request, hosts: &[Host]) -> Result<HostName, Explained> {
    let mut explained = Explained::default();
    let mut best: Option<&Host> = None;
    for host in hosts {
        let obstacles = obstacles(request, host);
        if !obstacles.is_empty() {
            explained.0.push((host.name.clone(), obstacles));
            continue;
        }
        let weight = |host: &Host| (host.memory_mib.free(), host.vcpus.free(), std::cmp::Reverse(host.name.clone()));
        if best.is_none_or(|best| weight(host) > weight(best)) {
            best = Some(host);
        }
    }
    best.map(|host| host.name.clone()).ok_or(explained)
}

fn obstacles(request: &Request, host: &Host) -> Vec<Obstacle> {
    let mut found = Vec::new();
    if request.host.as_ref().is_some_and(|wanted| *wanted != host.name) {
        return vec![Obstacle::NotThisHost];
    }
    if !host.alive {
        found.push(Obstacle::Down);
    }
    // Who names the host means it, also while it is disabled for everybody else.
    if !host.enabled && request.host.is_none() {
        found.push(Obstacle::Disabled);
    }
    if let Some(wanted) = request.availability_zone.as_ref().filter(|zone| **zone != host.availability_zone) {
        found.push(Obstacle::Zone { has: host.availability_zone.clone(), wanted: wanted.clone() });
    }
    if request.avoid.contains(&host.name) {
        found.push(Obstacle::Avoided);
    }
    let needs = [
        ("processors", request.vcpus, host.vcpus),
        ("memory (MiB)", request.memory_mib, host.memory_mib),
        ("disk (GiB)", request.disk_gib, host.disk_gib),
    ];
    for (what, needed, room) in needs {
        if needed > room.free() {
            found.push(Obstacle::Short { what, needed, free: room.free() });
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn host(name: &str, free_memory: u64) -> Host {
        Host {
            name: name.into(),
            availability_zone: "nova".into(),
            alive: true,
            enabled: true,
            vcpus: Room { used: 0, capacity: 8 },
            memory_mib: Room { used: 0, capacity: free_memory },
            disk_gib: Room { used: 0, capacity: 100 },
        }
    }

    fn need(memory_mib: u64) -> Request {
        Request { vcpus: 1, memory_mib, disk_gib: 1, ..Request::default() }
    }

    #[test]
    fn the_emptiest_fitting_host_is_chosen() {
        let hosts = [host("a", 100), host("b", 300), host("c", 300)];
        assert_eq!(choose(&need(50), &hosts).unwrap().as_str(), "b");
        let only = Request { host: Some("a".into()), ..need(50) };
        assert_eq!(choose(&only, &hosts).unwrap().as_str(), "a");
        let not_b = Request { avoid: vec!["b".into()], ..need(50) };
        assert_eq!(choose(&not_b, &hosts).unwrap().as_str(), "c");
    }

    #[test]
    fn a_refusal_names_every_obstacle_and_the_nearest_miss() {
        let down = Host { alive: false, ..host("a", 10) };
        let disabled = Host { enabled: false, ..host("b", 1000) };
        let elsewhere = Host { availability_zone: "east".into(), ..host("c", 1000) };
        let request = Request { availability_zone: Some("nova".into()), ..need(500) };
        let explained = choose(&request, &[down, disabled, elsewhere]).unwrap_err();
        assert_eq!(
            explained.table(),
            "a: it is down; memory (MiB): 500 needed, 10 free\nb: it is disabled\nc: it is in zone east, not in nova"
        );
        assert!(!explained.summary().contains("a:"));
        assert_eq!(choose(&need(1), &[]).unwrap_err().summary(), "The cloud has no hosts.");
        let same = choose(&need(500), &[host("x", 1), host("y", 1)]).unwrap_err();
        assert_eq!(same.summary(), "2 hosts: memory (MiB): 500 needed, 1 free.");
    }

    #[test]
    fn a_disabled_host_takes_what_names_it() {
        let disabled = Host { enabled: false, ..host("b", 1000) };
        assert!(choose(&need(1), std::slice::from_ref(&disabled)).is_err());
        assert!(choose(&Request { host: Some("b".into()), ..need(1) }, &[disabled]).is_ok());
    }

    proptest! {
        #[test]
        fn what_is_chosen_fits_and_a_refusal_blames_every_host(
            memory in 0u64..200, frees in proptest::collection::vec((0u64..200, any::<bool>()), 0..8)
        ) {
            let hosts: Vec<_> = frees.iter().enumerate()
                .map(|(n, (free, alive))| Host { alive: *alive, ..host(&format!("h{n}"), *free) }).collect();
            match choose(&need(memory), &hosts) {
                Ok(name) => {
                    let chosen = hosts.iter().find(|host| host.name == name).unwrap();
                    prop_assert!(chosen.alive && chosen.memory_mib.free() >= memory);
                }
                Err(explained) => {
                    prop_assert_eq!(explained.0.len(), hosts.len());
                    prop_assert!(hosts.iter().all(|host| !host.alive || host.memory_mib.free() < memory));
                }
            }
        }
    }
}
