//! Time as microseconds since the Unix epoch, and the clocks that tell it.

use serde::{Deserialize, Serialize};
use std::sync::atomic::{AtomicI64, Ordering};

/// Microseconds since 1970-01-01T00:00:00Z. Serialized as that integer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Timestamp(pub i64);

impl Timestamp {
    pub fn micros(self) -> i64 {
        self.0
    }

    pub fn plus_ms(self, ms: i64) -> Timestamp {
        Timestamp(self.0.saturating_add(ms.saturating_mul(1000)))
    }

    pub fn plus_s(self, seconds: i64) -> Timestamp {
        self.plus_ms(seconds.saturating_mul(1000))
    }

    /// Milliseconds from `earlier` until this; negative when this lies before.
    pub fn ms_since(self, earlier: Timestamp) -> i64 {
        (self.0 - earlier.0) / 1000
    }

    fn jiff(self) -> jiff::Timestamp {
        jiff::Timestamp::from_microsecond(self.0).unwrap_or(jiff::Timestamp::UNIX_EPOCH)
    }

    /// `2026-11-21T01:38:32Z`: Nova, Neutron and Glance.
    pub fn iso_seconds(self) -> String {
        self.jiff().strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
    }

    /// `2026-11-21T01:38:32.000000Z`: Keystone, and Nova's actions (which write six digits, too, without the `Z`).
    pub fn iso_micros(self) -> String {
        self.jiff().strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string()
    }

    /// `2026-11-21T01:38:32.000000`: six digits and no zone, as Nova writes `OS-SRV-USG:launched_at` and Cinder its times.
    pub fn iso_naive(self) -> String {
        self.jiff().strftime("%Y-%m-%dT%H:%M:%S.%6f").to_string()
    }

    /// Reads RFC 3339, also without a zone (then UTC) and with a space instead of `T`.
    pub fn parse(text: &str) -> Option<Timestamp> {
        if text.len() > 64 {
            return None;
        }
        let text = text.trim().replacen(' ', "T", 1);
        if let Ok(at) = text.parse::<jiff::Timestamp>() {
            return Some(Timestamp(at.as_microsecond()));
        }
        let at: jiff::civil::DateTime = text.parse().ok()?;
        Some(Timestamp(at.to_zoned(jiff::tz::TimeZone::UTC).ok()?.timestamp().as_microsecond()))
    }
}

/// Tells the time. Implementations must be cheap: it is asked several times a request.
pub trait Clock: Send + Sync {
    fn now(&self) -> Timestamp;
}

/// The machine's clock.
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        Timestamp(i64::try_from(since.as_micros()).unwrap_or(i64::MAX))
    }
}

/// A clock that moves only when told. Starts at 2026-01-01T00:00:00Z.
pub struct ManualClock(AtomicI64);

impl Default for ManualClock {
    fn default() -> Self {
        ManualClock(AtomicI64::new(1_767_225_600_000_000))
    }
}

impl ManualClock {
    pub fn advance_ms(&self, ms: i64) {
        self.0.fetch_add(ms * 1000, Ordering::SeqCst);
    }

    pub fn set(&self, at: Timestamp) {
        self.0.store(at.0, Ordering::SeqCst);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        Timestamp(self.0.load(Ordering::SeqCst))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_and_read_as_openstack_does() {
        let at = Timestamp::parse("2026-11-21T01:38:32.5Z").unwrap();
        assert_eq!(at.iso_seconds(), "2026-11-21T01:38:32Z");
        assert_eq!(at.iso_micros(), "2026-11-21T01:38:32.500000Z");
        assert_eq!(at.iso_naive(), "2026-11-21T01:38:32.500000");
        assert_eq!(Timestamp::parse("2026-11-21 01:38:32.5"), Some(at));
        assert_eq!(Timestamp::parse(&at.iso_naive()), Some(at));
        assert_eq!(Timestamp::parse("yesterday"), None);
    }
}
