//! Numbers of one stream. Each step of a history draws from its own, so that leaving one out changes no other.

use base::Random;
use base::random::SeededRandom;

pub struct Dice(SeededRandom);

impl Dice {
    pub fn new(seed: u64, stream: u64) -> Dice {
        Dice(SeededRandom::new(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ stream.wrapping_mul(0xd1b5_4a32_d192_ed03)))
    }

    pub fn below(&self, bound: u64) -> u64 {
        self.0.below(bound)
    }

    pub fn between(&self, least: u64, most: u64) -> u64 {
        least + self.below(most - least + 1)
    }

    pub fn chance(&self, percent: u64) -> bool {
        self.below(100) < percent
    }

    pub fn pick<'a, T>(&self, of: &'a [T]) -> Option<&'a T> {
        of.get(self.below(of.len() as u64) as usize)
    }

    /// One of several that is always there.
    pub fn of<T: Copy, const N: usize>(&self, of: [T; N]) -> T {
        of[self.below(N as u64) as usize]
    }
}
