//! How long to wait before trying again.

use crate::Random;

/// Doubles from `first_ms` up to `most_ms`, with up to a quarter of jitter taken off.
#[derive(Clone, Copy, Debug)]
pub struct Backoff {
    pub first_ms: u64,
    pub most_ms: u64,
}

impl Backoff {
    /// The wait before attempt `attempts + 1`, in milliseconds; `attempts` counts the failures so far.
    pub fn delay_ms(&self, attempts: u32, random: &dyn Random) -> u64 {
        let full = self.first_ms.saturating_mul(1u64 << attempts.saturating_sub(1).min(32)).min(self.most_ms).max(1);
        full - random.below(full / 4 + 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::SeededRandom;

    #[test]
    fn grows_and_stays_below_the_bound() {
        let random = SeededRandom::new(1);
        let backoff = Backoff { first_ms: 100, most_ms: 5_000 };
        for attempts in 1..100 {
            let delay = backoff.delay_ms(attempts, &random);
            assert!((75..=5_000).contains(&delay), "{attempts}: {delay}");
        }
        assert!(backoff.delay_ms(50, &random) >= 3_750);
    }
}
