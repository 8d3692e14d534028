//! Passwords: hashed with bcrypt (default) or scrypt, kept in passlib's formats, so that hashes of a Keystone go on
//! working here and ours there.
//!
//! Hashing costs a fifth of a second on purpose, so it runs on blocking threads, and only as many at a time as the
//! machine has cores: a flood of logins must wait in line and not starve everything else.

use base::{Fault, Random, Result};
use base64::Engine;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use subtle::ConstantTimeEq;
use tokio::sync::Semaphore;

/// bcrypt looks at no more bytes; Keystone cuts there, too.
const BCRYPT_BYTES: usize = 72;
/// The most logins that wait for a core: who comes later is told to come again. At 12 rounds this is half a minute.
const WAITING: usize = 256;
/// Keystone's own bound.
pub const PASSWORD_BYTES: usize = 4096;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Algorithm {
    /// 2^rounds; between 4 and 31.
    Bcrypt { rounds: u32 },
    /// N = 2^rounds, block size r, parallelism p.
    Scrypt { rounds: u8, r: u32, p: u32 },
}

impl Default for Algorithm {
    fn default() -> Self {
        Algorithm::Bcrypt { rounds: 12 }
    }
}

/// Makes and checks hashes. Cheap to clone.
#[derive(Clone)]
pub struct Passwords {
    algorithm: Algorithm,
    line: Arc<Semaphore>,
    waiting: Arc<AtomicUsize>,
    /// A hash that no password is known for, to spend the same time on a user who does not exist.
    decoy: Arc<str>,
    /// Work is done on the calling task: see [`store::Store::is_inline`].
    inline: bool,
}

impl Passwords {
    pub fn new(algorithm: Algorithm) -> Passwords {
        let cores = std::thread::available_parallelism().map_or(2, |n| n.get());
        let decoy = decoy(algorithm).into();
        Passwords { algorithm, line: Arc::new(Semaphore::new(cores)), waiting: Arc::default(), decoy, inline: false }
    }

    /// Without threads, where the store has none.
    pub fn inline(self, inline: bool) -> Passwords {
        Passwords { inline, ..self }
    }

    /// The hash to keep.
    pub async fn hash(&self, password: String, random: Arc<dyn Random>) -> Result<String> {
        let algorithm = self.algorithm;
        self.work(move || hash(&password, algorithm, &*random)).await?
    }

    /// True if `password` belongs to `hash`. Without a hash it takes as long, and is false.
    pub async fn verify(&self, password: String, hash: Option<String>) -> Result<bool> {
        let decoy = self.decoy.clone();
        self.work(move || match hash {
            Some(hash) => verify(&password, &hash),
            None => verify(&password, &decoy) && false,
        })
        .await
    }

    async fn work<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<T> {
        if self.inline {
            return Ok(work());
        }
        let place = Place(self.waiting.clone());
        if self.waiting.fetch_add(1, Ordering::SeqCst) >= WAITING {
            return Err(Fault::unavailable("Too many logins at once. Try again in a moment."));
        }
        let permit = self.line.clone().acquire_owned().await;
        drop(place);
        let permit = permit.map_err(|_| Fault::unavailable("The server is shutting down."))?;
        let done = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            work()
        });
        done.await.map_err(|error| Fault::bug("hashing a password failed").because(error))
    }
}

/// A place in the line, given back however the wait ends.
struct Place(Arc<AtomicUsize>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Well-formed, of the same cost as a real one, and made without work: a start must not wait for it.
fn decoy(algorithm: Algorithm) -> String {
    match algorithm {
        Algorithm::Bcrypt { rounds } => format!("$2b${rounds:02}${}", ".".repeat(53)),
        Algorithm::Scrypt { rounds, r, p } => {
            format!("$scrypt$ln={rounds},r={r},p={p}${}${}", AB64.encode([0; 16]), AB64.encode([0; 32]))
        }
    }
}

/// Hashes at once: for the bootstrap and for blocking threads.
pub fn hash(password: &str, algorithm: Algorithm, random: &dyn Random) -> Result<String> {
    let mut salt = [0u8; 16];
    random.fill(&mut salt);
    match algorithm {
        Algorithm::Bcrypt { rounds } => {
            let parts = bcrypt::hash_with_salt(cut(password), rounds, salt)
                .map_err(|error| Fault::bug("bcrypt refused").because(error))?;
            Ok(parts.format_for_version(bcrypt::Version::TwoB))
        }
        Algorithm::Scrypt { rounds, r, p } => {
            let sum = scrypt_sum(password, &salt, rounds, r, p, 32)
                .ok_or_else(|| Fault::bug("the settings for scrypt are out of range"))?;
            Ok(format!("$scrypt$ln={rounds},r={r},p={p}${}${}", AB64.encode(salt), AB64.encode(sum)))
        }
    }
}

fn cut(password: &str) -> &[u8] {
    &password.as_bytes()[..password.len().min(BCRYPT_BYTES)]
}

/// passlib writes scrypt's salt and sum in plain base64 without padding; its older `ab64` has `.` for `+`.
const AB64: GeneralPurpose = GeneralPurpose::new(
    &base64::alphabet::STANDARD,
    GeneralPurposeConfig::new().with_encode_padding(false).with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

fn scrypt_sum(password: &str, salt: &[u8], rounds: u8, r: u32, p: u32, length: usize) -> Option<Vec<u8>> {
    // 128 * r * N bytes of memory: a hash from outside must not take the machine down.
    let memory = 128u64.checked_mul(r.into())?.checked_mul(1u64.checked_shl(rounds.into())?)?;
    if rounds >= 30 || memory > 256 << 20 || p > 16 {
        return None;
    }
    let params = scrypt::Params::new(rounds, r, p, length).ok()?;
    let mut sum = vec![0; length];
    scrypt::scrypt(password.as_bytes(), salt, &params, &mut sum).ok()?;
    Some(sum)
}

/// Checks at once. False for a format that nobody here knows.
pub fn verify(password: &str, hash: &str) -> bool {
    if let Some(rest) = hash.strip_prefix("$scrypt$") {
        return verify_scrypt(password, rest).unwrap_or(false);
    }
    bcrypt::verify(cut(password), hash).unwrap_or(false)
}

fn verify_scrypt(password: &str, rest: &str) -> Option<bool> {
    let mut parts = rest.split('$');
    let (settings, salt, sum) = (parts.next()?, parts.next()?, parts.next()?);
    let (mut rounds, mut r, mut p) = (None, None, None);
    for pair in settings.split(',') {
        match pair.split_once('=')? {
            ("ln", n) => rounds = n.parse().ok(),
            ("r", n) => r = n.parse().ok(),
            ("p", n) => p = n.parse().ok(),
            _ => return None,
        }
    }
    let salt = AB64.decode(salt.replace('.', "+")).ok()?;
    let sum = AB64.decode(sum.replace('.', "+")).ok()?;
    if !(16..=64).contains(&sum.len()) {
        return None;
    }
    Some(scrypt_sum(password, &salt, rounds?, r?, p?, sum.len())?.ct_eq(&sum).into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use base::random::SeededRandom;

    #[test]
    fn verifies_what_keystone_stored() {
        for (password, hash) in [
            ("s3cret", "$2b$04$lF5tnT7IxiKW.5c/FTD21uAy5l/60yE5.BM9fOLuxI9vzRBg9HfXW"),
            ("s3cret", "$2a$04$tYoqPLpPZLbT1FpY4PWmCOB28/96kzL4L8Rgr7i0QERuebBA9ho.q"),
            ("p\u{e4}ss", "$scrypt$ln=6,r=8,p=1$Icwv3v9E1lksOUi7Ra9PcA$xX6uO7hxeZZ7pdCcAbLG/eiq44a+V6vBsf/p8jX6CGc"),
            ("s3cret", "$scrypt$ln=10,r=4,p=2$zb811iZNqvoRxCvumn56RQ$DoiXrirhxhdkybUcT/EV9IVpsOiyMekS1jvOP0FX7RI"),
        ] {
            assert!(verify(password, hash), "{hash}");
            assert!(!verify("wrong", hash), "{hash}");
        }
        assert!(!verify("x", "plain"));
        assert!(!verify("x", "$scrypt$ln=40,r=8,p=1$AAAA$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"));
    }

    #[test]
    fn both_kinds_of_hash_verify_and_differ_each_time() {
        let random = SeededRandom::new(1);
        for algorithm in [Algorithm::Bcrypt { rounds: 4 }, Algorithm::Scrypt { rounds: 4, r: 8, p: 1 }] {
            let (a, b) =
                (hash("s\u{e9}cret", algorithm, &random).unwrap(), hash("s\u{e9}cret", algorithm, &random).unwrap());
            assert_ne!(a, b);
            assert!(verify("s\u{e9}cret", &a) && verify("s\u{e9}cret", &b) && !verify("secret", &a));
        }
    }

    #[test]
    fn the_decoy_costs_what_a_real_hash_costs() {
        for algorithm in [Algorithm::Bcrypt { rounds: 8 }, Algorithm::Scrypt { rounds: 8, r: 8, p: 1 }] {
            let real = hash("x", algorithm, &SeededRandom::new(1)).unwrap();
            let time = |hash: &str| {
                let best = |_| {
                    let began = std::time::Instant::now();
                    assert!(!verify("y", hash));
                    began.elapsed()
                };
                (0..5).map(best).min().unwrap()
            };
            let (real, decoy) = (time(&real), time(&decoy(algorithm)));
            assert!(decoy > real / 4 && decoy < real * 4, "{algorithm:?}: {real:?} and {decoy:?}");
        }
    }

    #[tokio::test]
    async fn a_flood_of_logins_is_told_to_come_again() {
        let passwords = Passwords::new(Algorithm::Bcrypt { rounds: 4 });
        let all = passwords.line.clone().acquire_many_owned(passwords.line.available_permits() as u32).await.unwrap();
        let waiting: Vec<_> = (0..WAITING)
            .map(|_| {
                let passwords = passwords.clone();
                tokio::spawn(async move { passwords.verify("x".into(), None).await })
            })
            .collect();
        while passwords.waiting.load(Ordering::SeqCst) < WAITING {
            tokio::task::yield_now().await;
        }
        let refused = passwords.verify("x".into(), None).await.unwrap_err();
        assert_eq!(refused.kind, base::FaultKind::Unavailable);
        drop(all);
        for one in waiting {
            assert!(!one.await.unwrap().unwrap());
        }
        assert_eq!(passwords.waiting.load(Ordering::SeqCst), 0);
    }

    #[tokio::test]
    async fn an_unknown_user_costs_a_verification_and_gets_a_no() {
        let random: Arc<dyn Random> = Arc::new(SeededRandom::new(1));
        let passwords = Passwords::new(Algorithm::Bcrypt { rounds: 4 });
        let hash = passwords.hash("right".into(), random).await.unwrap();
        assert!(passwords.verify("right".into(), Some(hash.clone())).await.unwrap());
        assert!(!passwords.verify("wrong".into(), Some(hash)).await.unwrap());
        assert!(!passwords.verify("right".into(), None).await.unwrap());
    }
}
