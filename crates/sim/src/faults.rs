//! What breaks, where, and how often it did.
//!
//! A fault is laid at a point and lies in wait there until the point has been passed so many times. The table of pairs
//! says which kinds make sense where; a run over many seeds fails when one of them never struck.

use std::collections::BTreeMap;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Point {
    BeforeCommit,
    Commit,
    AfterCommit,
    BeforeRead,
    BeforePoll,
    AfterPoll,
    BeforeReport,
    AfterReport,
    BeforeApply,
    AfterApply,
    BeforeObserve,
    AfterObserve,
    BeforeAnswer,
    AfterAnswer,
    /// A host sends the copy of a guest's disk.
    Disk,
    /// A host starts a guest.
    Start,
    /// Between two steps, at nothing in particular.
    Between,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    CrashControl,
    CrashAgent,
    CrashHost,
    Lose,
    Delay,
    Double,
    /// Arrives again, or for the first time, after what was sent later.
    Reorder,
    FullDisk,
    SlowStore,
    ClockForward,
    ClockBack,
    StartFails,
    StartRetries,
    /// A guest's process ends by itself.
    GuestDies,
    /// A person removes a guest from its host, with all the host knew of it.
    GuestVanishes,
}

use Kind::*;
use Point::*;

/// Where each kind may strike.
pub const PAIRS: &[(Point, &[Kind])] = &[
    (BeforeCommit, &[CrashControl, SlowStore]),
    (Commit, &[FullDisk]),
    (AfterCommit, &[CrashControl, SlowStore]),
    (BeforeRead, &[CrashControl, SlowStore]),
    (BeforePoll, &[CrashControl, CrashAgent, CrashHost, Lose, Delay, Double]),
    (AfterPoll, &[CrashControl, CrashAgent, CrashHost, Lose, Delay]),
    (BeforeReport, &[CrashControl, CrashAgent, CrashHost, Lose, Delay, Double, Reorder]),
    (AfterReport, &[CrashControl, CrashAgent, CrashHost, Lose, Delay]),
    (BeforeApply, &[CrashAgent, CrashHost, FullDisk, Delay]),
    (AfterApply, &[CrashAgent, CrashHost, FullDisk, Delay, Double]),
    (BeforeObserve, &[CrashAgent, CrashHost, Delay]),
    (AfterObserve, &[CrashAgent, CrashHost, Delay]),
    (BeforeAnswer, &[CrashControl, CrashAgent, CrashHost, Lose, Delay, Double]),
    (AfterAnswer, &[CrashControl, CrashAgent, CrashHost, Lose]),
    (Disk, &[CrashControl, CrashAgent, CrashHost, Lose, Delay]),
    (Start, &[StartFails, StartRetries]),
    (Between, &[CrashControl, CrashAgent, CrashHost, ClockForward, ClockBack, GuestDies, GuestVanishes]),
];

/// How often a kind is drawn in comparison with others: what rarely meets what it needs is drawn more often.
pub fn weight(point: Point, kind: Kind) -> u64 {
    match (point, kind) {
        (BeforeReport, Reorder) => 8,
        (BeforeAnswer | AfterAnswer | Disk, _) | (Between, ClockForward) => 2,
        (Between, GuestDies | GuestVanishes) | (BeforeCommit | AfterCommit, CrashControl) => 3,
        _ => 1,
    }
}

/// A fault that lies in wait.
#[derive(Clone, Debug)]
pub struct Trap {
    pub point: Point,
    pub kind: Kind,
    /// How often the point is passed before.
    pub skip: u32,
    /// How often it strikes.
    pub times: u32,
    /// For what takes time.
    pub ms: u64,
}

#[derive(Default)]
pub struct Board {
    traps: Vec<Trap>,
    pub passed: BTreeMap<Point, u64>,
    pub struck: BTreeMap<(Point, Kind), u64>,
}

impl Board {
    pub fn lay(&mut self, trap: Trap) {
        self.traps.push(trap);
    }

    /// No fault any more.
    pub fn clear(&mut self) {
        self.traps.clear();
    }

    /// Something passes the point: the fault that strikes, if one does.
    pub fn pass(&mut self, point: Point) -> Option<(Kind, u64)> {
        *self.passed.entry(point).or_default() += 1;
        let mut found = None;
        for (n, trap) in self.traps.iter_mut().enumerate().filter(|(_, trap)| trap.point == point) {
            if trap.skip > 0 {
                trap.skip -= 1;
            } else if found.is_none() {
                trap.times = trap.times.saturating_sub(1);
                found = Some((n, trap.kind, trap.ms, trap.times));
            }
        }
        let (n, kind, ms, left) = found?;
        if left == 0 {
            self.traps.remove(n);
        }
        self.strike(point, kind);
        Some((kind, ms))
    }

    pub fn strike(&mut self, point: Point, kind: Kind) {
        *self.struck.entry((point, kind)).or_default() += 1;
    }

    pub fn strikes(&self) -> u64 {
        self.struck.values().sum()
    }
}
