//! What was reached, over many histories.

use crate::faults::{Kind, PAIRS, Point};
use crate::run::OWN;
use std::collections::BTreeMap;
use std::fmt::Write;

/// The least that each history of a covered run has.
const CALLS: u64 = 200;
const FAULTS: u64 = 10;

#[derive(Clone, Debug, Default)]
pub struct Tally {
    pub seeds: u64,
    pub steps: u64,
    pub calls: u64,
    pub faults: u64,
    /// The fewest calls and the fewest faults of one whole history.
    pub fewest: Option<(u64, u64)>,
    pub virtual_s: f64,
    pub passed: BTreeMap<Point, u64>,
    pub struck: BTreeMap<(Point, Kind), u64>,
    /// By operation: asked, and answered with success.
    pub operations: BTreeMap<String, (u64, u64)>,
    pub statuses: BTreeMap<u16, u64>,
}

impl Tally {
    pub fn add(&mut self, other: &Tally) {
        self.seeds += other.seeds;
        self.steps += other.steps;
        self.calls += other.calls;
        self.faults += other.faults;
        self.virtual_s += other.virtual_s;
        self.fewest = match (self.fewest, other.fewest) {
            (Some(one), Some(two)) => Some((one.0.min(two.0), one.1.min(two.1))),
            (one, two) => one.or(two),
        };
        other.passed.iter().for_each(|(key, n)| *self.passed.entry(*key).or_default() += n);
        other.struck.iter().for_each(|(key, n)| *self.struck.entry(*key).or_default() += n);
        other.statuses.iter().for_each(|(key, n)| *self.statuses.entry(*key).or_default() += n);
        for (key, (asked, done)) in &other.operations {
            let entry = self.operations.entry(key.clone()).or_default();
            entry.0 += asked;
            entry.1 += done;
        }
    }

    /// What was declared and never happened.
    pub fn missing(&self) -> Vec<String> {
        let pairs = PAIRS.iter().flat_map(|(point, kinds)| kinds.iter().map(move |kind| (*point, *kind)));
        let never = pairs.filter(|pair| !self.struck.contains_key(pair));
        let mut missing: Vec<String> =
            never.map(|(point, kind)| format!("the fault {kind:?} at {point:?} never struck")).collect();
        let silent = self.operations.iter().filter(|(_, (asked, _))| *asked == 0);
        missing.extend(silent.map(|(name, _)| format!("the operation {name} never ran")));
        let never = OWN.iter().filter(|name| self.operations.get(**name).is_none_or(|(_, compared)| *compared == 0));
        missing.extend(never.map(|name| format!("nothing was ever compared for: {name}")));
        let (calls, faults) = self.fewest.unwrap_or_default();
        if calls < CALLS || faults < FAULTS {
            missing.push(format!("a history had {calls} calls or {faults} faults: {CALLS} and {FAULTS} are the least"));
        }
        missing
    }

    pub fn report(&self) -> String {
        let mut text = String::new();
        let _ = writeln!(text, "fault points, and how often each was passed and each kind of fault struck there:");
        for (point, kinds) in PAIRS {
            let struck: Vec<String> = kinds
                .iter()
                .map(|kind| format!("{kind:?} {}", self.struck.get(&(*point, *kind)).unwrap_or(&0)))
                .collect();
            let passed = self.passed.get(point).unwrap_or(&0);
            let _ = writeln!(text, "  {:14} {passed:>9}  {}", format!("{point:?}"), struck.join(", "));
        }
        let _ = writeln!(text, "operations, asked and done:");
        let width = self.operations.keys().map(String::len).max().unwrap_or(0);
        let rows: Vec<String> =
            self.operations.iter().map(|(name, (asked, done))| format!("{name:width$} {asked:>6} {done:>6}")).collect();
        for pair in rows.chunks(2) {
            let _ = writeln!(text, "  {}", pair.join("   "));
        }
        let statuses: Vec<String> = self.statuses.iter().map(|(status, n)| format!("{status}: {n}")).collect();
        let _ = writeln!(text, "answers: {}", statuses.join(", "));
        if let Some((calls, faults)) = self.fewest {
            let _ = writeln!(text, "the fewest of one history: {calls} calls, {faults} faults");
        }
        text
    }
}
