//! What the process holds: anonymous and shared memory, as docs/bench.md counts it everywhere. The pages of the store's
//! file are the machine's to keep or to drop.

use serde::{Deserialize, Serialize};
use simhost::SimHost;
use std::sync::Arc;

/// In MiB.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Memory {
    /// Control alone, before the first host.
    pub start: f64,
    /// With all hosts and servers, before the calls.
    pub full: f64,
    /// After the calls.
    pub end: f64,
    /// What the simulated hosts hold of it, by a second copy of what they keep.
    pub hosts: f64,
}

impl Memory {
    pub fn now(start: f64, full: f64, hosts: &[Arc<SimHost>]) -> Memory {
        let end = resident_mib();
        let copies: Vec<_> = hosts.iter().map(|host| host.twin()).collect();
        let hosts = resident_mib() - end;
        drop(copies);
        Memory { start, full, end, hosts }
    }

    /// Control without the hosts: they are no part of it, and stand in the same process only here.
    pub fn control(&self) -> f64 {
        self.full.max(self.end) - self.hosts.max(0.0)
    }
}

/// The processor time that the process has had.
pub fn processor_s() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // After the name, which may hold anything: the 12th and 13th are ticks of a hundredth of a second.
    let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace().skip(11).take(2);
    fields.filter_map(|ticks| ticks.parse::<f64>().ok()).sum::<f64>() / 100.0
}

pub fn resident_mib() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let lines = status.lines().filter(|line| line.starts_with("RssAnon:") || line.starts_with("RssShmem:"));
    let kib = lines.filter_map(|line| line.split_whitespace().nth(1)?.parse::<f64>().ok());
    kib.sum::<f64>() / 1024.0
}
