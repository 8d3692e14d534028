//! What happened, in order: a hash over everything and the last lines of it.

use std::collections::VecDeque;
use tokio::time::Instant;

/// Lines that are kept for a failure's report.
const LINES: usize = 4000;

pub struct Trace {
    began: Instant,
    hash: u64,
    lines: VecDeque<String>,
}

impl Trace {
    pub fn new() -> Trace {
        Trace { began: Instant::now(), hash: 0xcbf2_9ce4_8422_2325, lines: VecDeque::new() }
    }

    /// Counts what is not worth a line of its own.
    pub fn weigh(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.hash = (self.hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }

    pub fn say(&mut self, what: impl AsRef<str>) {
        let line = format!("{:>9.3} {}", self.began.elapsed().as_secs_f64(), what.as_ref());
        self.weigh(line.as_bytes());
        if self.lines.len() == LINES {
            self.lines.pop_front();
        }
        self.lines.push_back(line);
    }

    pub fn hash(&self) -> u64 {
        self.hash
    }

    pub fn lines(&self) -> Vec<String> {
        self.lines.iter().cloned().collect()
    }
}
