//! The wall clock of the simulated world: runs with tokio's virtual time, and jumps when told.

use base::{Clock, Timestamp};
use std::sync::atomic::{AtomicI64, Ordering};
use tokio::time::Instant;

/// 2026-11-21T00:00:00Z.
const BEGIN: i64 = 1_795_219_200_000_000;

pub struct SimClock {
    began: Instant,
    jumped: AtomicI64,
}

impl SimClock {
    /// Inside a runtime whose time is paused.
    pub fn new(from: Option<Timestamp>) -> SimClock {
        SimClock { began: Instant::now(), jumped: AtomicI64::new(from.map_or(0, |from| from.0 - BEGIN)) }
    }

    /// Moves the wall clock alone; timers go on as they were.
    pub fn jump_ms(&self, ms: i64) {
        self.jumped.fetch_add(ms * 1000, Ordering::SeqCst);
    }
}

impl Clock for SimClock {
    fn now(&self) -> Timestamp {
        let ran = i64::try_from(self.began.elapsed().as_micros()).unwrap_or(i64::MAX);
        Timestamp(BEGIN + ran + self.jumped.load(Ordering::SeqCst))
    }
}
