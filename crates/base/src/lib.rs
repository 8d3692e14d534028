//! The ground floor: typed ids, time, randomness, faults, backoff and limits.
//!
//! Nothing here does I/O or knows a runtime. Time and randomness are handed in through [`Env`], so that a simulator
//! with one seed decides everything; the process-wide clock and entropy are read only in [`clock::SystemClock`] and
//! [`random::OsRandom`].

pub mod backoff;
pub mod clock;
pub mod fault;
pub mod id;
pub mod limits;
pub mod random;

pub use clock::{Clock, Timestamp};
pub use fault::{Fault, FaultKind, Result};
pub use id::*;
pub use random::Random;

use std::sync::Arc;

/// Where time and randomness come from. Cheap to clone.
#[derive(Clone)]
pub struct Env {
    pub clock: Arc<dyn Clock>,
    pub random: Arc<dyn Random>,
}

impl Env {
    /// The real clock and the operating system's entropy.
    pub fn system() -> Env {
        Env { clock: Arc::new(clock::SystemClock), random: Arc::new(random::OsRandom) }
    }

    /// A clock that stands still until told, and randomness from one seed: for tests and the simulator.
    pub fn seeded(seed: u64) -> (Env, Arc<clock::ManualClock>) {
        let clock = Arc::new(clock::ManualClock::default());
        (Env { clock: clock.clone(), random: Arc::new(random::SeededRandom::new(seed)) }, clock)
    }

    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// A new time-ordered UUID (version 7), dashed: the form of document ids. Not secret.
    pub fn uuid(&self) -> String {
        self.uuid7().hyphenated().to_string()
    }

    /// A new time-ordered UUID as 32 hex digits, as Keystone writes its ids. Not secret.
    pub fn uuid_hex(&self) -> String {
        self.uuid7().simple().to_string()
    }

    fn uuid7(&self) -> uuid::Uuid {
        let mut bytes = [0u8; 10];
        self.random.fill(&mut bytes);
        uuid::Builder::from_unix_timestamp_millis((self.now().micros().max(0) / 1000) as u64, &bytes).into_uuid()
    }

    /// `n` bytes that nobody can guess, as lower-case hex: for one-time ids, passwords and order ids.
    pub fn secret_hex(&self, n: usize) -> String {
        let mut bytes = vec![0u8; n];
        self.random.fill(&mut bytes);
        bytes.iter().map(|b| format!("{b:02x}")).collect()
    }
}
