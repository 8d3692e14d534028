//! Randomness, handed in.

use std::sync::Mutex;

/// Fills buffers with random bytes.
pub trait Random: Send + Sync {
    fn fill(&self, bytes: &mut [u8]);

    /// A number below `bound`; 0 for a bound of 0. The bias is below 2^-32 for bounds below 2^32.
    fn below(&self, bound: u64) -> u64 {
        let mut bytes = [0u8; 8];
        self.fill(&mut bytes);
        if bound == 0 { 0 } else { u64::from_le_bytes(bytes) % bound }
    }
}

/// The operating system's entropy. Aborts the process when there is none: nothing secret may be guessable.
pub struct OsRandom;

impl Random for OsRandom {
    fn fill(&self, bytes: &mut [u8]) {
        getrandom::fill(bytes).expect("the operating system gives no entropy");
    }
}

/// Reproducible numbers from one seed (xoshiro256**). For tests and the simulator, never for secrets.
pub struct SeededRandom(Mutex<[u64; 4]>);

impl SeededRandom {
    pub fn new(seed: u64) -> SeededRandom {
        let mut x = seed;
        SeededRandom(Mutex::new(std::array::from_fn(|_| {
            x = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut z = x;
            z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            z ^ (z >> 31)
        })))
    }
}

impl Random for SeededRandom {
    fn fill(&self, bytes: &mut [u8]) {
        let mut s = self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        for chunk in bytes.chunks_mut(8) {
            let word = s[1].wrapping_mul(5).rotate_left(7).wrapping_mul(9);
            let t = s[1] << 17;
            s[2] ^= s[0];
            s[3] ^= s[1];
            s[1] ^= s[2];
            s[0] ^= s[3];
            s[2] ^= t;
            s[3] = s[3].rotate_left(45);
            chunk.copy_from_slice(&word.to_le_bytes()[..chunk.len()]);
        }
    }
}
